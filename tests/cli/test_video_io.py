"""Reading stops where a video breaks and says so; a written video is whole or absent."""

from __future__ import annotations

import functools
import http.server
import resource
import struct
import threading
from fractions import Fraction

import av
import numpy as np
import pytest
from blockcopy import video_io
from blockcopy.video_io import VideoReader, VideoWriter
from clips import cut, decode, encode, street

from sparseblock import SparseBlockError

RATES = [Fraction(25), Fraction(30000, 1001), Fraction(25, 2), Fraction(10)]


def read_until_error(source) -> tuple[int, str]:
    """(number of frames, message of the error that ended them)."""
    count = 0
    with pytest.raises(SparseBlockError) as stopped, VideoReader(str(source)) as reader:
        for frame in reader:
            assert frame.index == count
            count += 1
    return count, str(stopped.value)


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("suffix", video_io.CONTAINERS)
def test_what_is_written_is_read_back_with_its_rate(out, suffix, rate):
    frames = [np.full((48, 64, 3), (255, 0, 0) if i % 2 else (0, 0, 255), np.uint8) for i in range(9)]
    with VideoWriter(out / f"v{suffix}", rate) as writer:
        for frame in frames:
            writer.write(frame)
    with VideoReader(str(out / f"v{suffix}")) as reader:
        read = list(reader)
        assert reader.rate == rate
        assert reader.length == len(frames)
    assert [f.index for f in read] == list(range(9))
    assert [tuple(f.rgb.shape) for f in read] == [(48, 64, 3)] * 9
    for i, frame in enumerate(read):
        assert frame.rgb.argmax(2).unique().tolist() == [0 if i % 2 else 2]
        assert round(1000 * frame.time) == round(1000 * i / rate)


@pytest.mark.parametrize(("height", "width"), [(47, 64), (48, 63), (47, 63), (1, 1)])
def test_odd_sizes_gain_a_copy_of_the_last_row_or_column(out, height, width):
    frame = np.zeros((height, width, 3), np.uint8)
    frame[-1, -1] = 255
    with VideoWriter(out / "v.mp4", Fraction(25)) as writer:
        writer.write(frame)
    (read,), _ = decode(out / "v.mp4")
    assert read.shape == (height + height % 2, width + width % 2, 3)
    assert read[-1, -1].min() > read.mean() or read.shape == (2, 2, 3)


def test_a_variable_rate_keeps_its_times(out):
    times = [0.0, 0.04, 0.05, 0.3, 1.0]
    with VideoWriter(out / "v.mp4", Fraction(25)) as writer:
        for time in times:
            writer.write(np.zeros((32, 32, 3), np.uint8), time)
    with VideoReader(str(out / "v.mp4")) as reader:
        assert [round(f.time, 4) for f in reader] == times


def test_times_that_stand_still_or_go_back_still_make_a_video(out):
    with VideoWriter(out / "v.mp4", Fraction(25)) as writer:
        for time in (0.0, 0.0, -1.0, None, 0.5):
            writer.write(np.zeros((32, 32, 3), np.uint8), time)
    assert len(decode(out / "v.mp4")[0]) == 5


def test_nothing_written_leaves_nothing(out):
    VideoWriter(out / "v.mp4", Fraction(25)).close()
    assert list(out.iterdir()) == []


def test_the_name_appears_with_the_whole_video_only(out):
    writer = VideoWriter(out / "v.mp4", Fraction(25))
    writer.write(np.zeros((32, 32, 3), np.uint8))
    assert not (out / "v.mp4").exists()
    writer.close()
    assert [p.name for p in out.iterdir()] == ["v.mp4"]


@pytest.mark.parametrize("share", [0.7, 0.8, 0.95])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_cut_off_file_yields_its_good_frames_and_then_says_where_it_ends(tmp_path, suffix, share):
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    whole = encode(tmp_path / f"whole.{suffix}", street(20), options=options)
    count, message = read_until_error(cut(whole, tmp_path / f"cut.{suffix}", share))
    assert 0 < count < 20
    assert f"cut off or damaged after {count} good frames" in message
    assert "\n" not in message


def test_the_index_lost_is_no_video(tmp_path):
    whole = encode(tmp_path / "whole.mp4", street(20))
    broken = cut(whole, tmp_path / "cut.mp4", 0.5)
    count, message = read_until_error(broken)
    assert count == 0
    assert message == (
        f"video {broken}: not a video, or damaged beyond reading; give a video file, a camera index or a stream URL"
    )


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_damage_in_the_middle_ends_the_good_frames(tmp_path, suffix):
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    path = encode(tmp_path / f"v.{suffix}", street(40), options=options)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = np.random.default_rng(0).bytes(600)
    path.write_bytes(data)
    count, message = read_until_error(path)
    assert 0 < count < 40
    assert f"cut off or damaged after {count} good frames" in message


def test_another_resolution_in_mid_stream_is_an_error_that_names_both(tmp_path):
    first = encode(tmp_path / "a.ts", street(10, 96, 128))
    second = encode(tmp_path / "b.ts", street(10, 64, 96))
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    count, message = read_until_error(both)
    assert count == 10
    assert message == (
        f"video {both}: frame 10 is 96x64 but the frames before are 128x96; one run holds one resolution: "
        "cut the video there, or scale it to one size"
    )


def test_a_stream_without_pictures_is_named_so(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(SparseBlockError) as refused:
        VideoReader(str(path))
    assert str(refused.value) == (f"video {path}: it has no video stream; give a file or stream with pictures")


def test_a_lying_picture_is_set_upright(tmp_path):
    frame = np.zeros((32, 64, 3), np.uint8)
    frame[:, :32] = (255, 0, 0)
    path = encode(tmp_path / "v.mp4", [frame] * 3)
    data = bytearray(path.read_bytes())
    # The matrix in the track header, ISO/IEC 14496-12 8.3.2: 90 degrees clockwise.
    matrix = data.index(b"tkhd") + 4 + 40
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    with VideoReader(str(path)) as reader:
        rgb = next(iter(reader)).rgb
    assert rgb.shape == (64, 32, 3)
    assert rgb[8, 16].argmax() == 0
    assert rgb[8, 16, 0] > rgb[56, 16, 0]


def test_a_file_is_decoded_only_when_asked(clip):
    with VideoReader(str(clip)) as reader:
        assert reader.read().index == 0
        assert reader._frames.empty()
        reader.prefetch()
        reader.prefetch()
        assert reader.read().index == 1
        assert [f.index for f in reader] == list(range(2, 20))


def test_the_limit_counts_frames(clip):
    with VideoReader(str(clip), limit=7) as reader:
        assert reader.length == 7
        assert len(list(reader)) == 7


def test_a_file_behind_a_url_is_read_whole(clip):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(clip.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with VideoReader(f"http://127.0.0.1:{server.server_port}/clip.mp4") as reader:
            assert not reader.live
            assert [f.index for f in reader] == list(range(20))
        server.shutdown()


def test_a_live_source_drops_what_waits_too_long(clip, monkeypatch):
    monkeypatch.setattr(video_io, "_open_camera", lambda index: av.open(str(clip)))
    with VideoReader("0") as reader:
        assert reader.live
        reader._thread.join()
        kept = [f.index for f in reader]
    assert kept == list(range(20 - video_io.LIVE_QUEUE, 20))
    assert reader.dropped == 20 - video_io.LIVE_QUEUE


def test_a_full_disk_is_said_and_leaves_nothing(out):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    with VideoWriter(out / "v.mp4", Fraction(25)) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            with pytest.raises(SparseBlockError) as told:
                for _ in range(200):
                    writer.write(noise)
                writer.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        with pytest.raises(SparseBlockError):
            writer.close()
    assert str(told.value) == (
        f"output {out / 'v.mp4'}: File too large; the video is lost, make room or give another path"
    )
    assert list(out.iterdir()) == []
