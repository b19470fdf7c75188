from __future__ import annotations

import av
import pytest
import torch


@pytest.fixture(scope="session")
def read_frame(data):
    """read_frame(clip, number): a decoded frame, uint8 [h, w, 3]."""

    def read(clip: str, number: int) -> torch.Tensor:
        with av.open(str(data / "videos" / f"{clip}.mp4")) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index == number:
                    return torch.from_numpy(frame.to_ndarray(format="rgb24"))
        raise AssertionError(f"{clip} has no frame {number}")

    return read
