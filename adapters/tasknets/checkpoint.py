"""Reading a weights file into a network, and saying precisely why it does not fit."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from sparseblock import SparseBlockError

_SHOWN = 3


def load_weights(model: nn.Module, path: str | Path, name: str) -> None:
    """Fills `model` from the file `path` (torch.save of a state_dict, plain or under the key `state_dict`).

    A prefix `module.` is dropped; the batch norms' `num_batches_tracked`, which inference never reads, may be absent.
    Half precision files are widened. A model with `adapt_state_dict` renames other published schemes' keys itself.

    Raises:
        SparseBlockError: the file is missing, is no weights file, or holds other tensors than `model`.
    """
    state = {key.removeprefix("module."): value for key, value in _read(path, name).items()}
    if hasattr(model, "adapt_state_dict"):
        state = model.adapt_state_dict(state)
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    expected = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    shaped = [
        f"{key} {list(value.shape)} for {list(expected[key].shape)}"
        for key, value in state.items()
        if key in expected and value.shape != expected[key].shape
    ]
    # Half precision is widened without loss of meaning; whole numbers for fractions are of another network.
    kinds = [
        f"{key} {_kind(value)} for {_kind(expected[key])}"
        for key, value in state.items()
        if key in expected
        and (value.layout != torch.strided or value.is_floating_point() != expected[key].is_floating_point())
    ]
    faults = [("missing", missing), ("unexpected", unexpected), ("wrong shape", shaped), ("wrong type", kinds)]
    if any(keys for _, keys in faults):
        said = "; ".join(f"{len(keys)} {what} ({_first(keys)})" for what, keys in faults if keys)
        parameters = sum(value.numel() for value in model.parameters())
        raise SparseBlockError(
            f"{name}: weights {path} do not fit: {said}; the network has {len(expected)} tensors, "
            f"{parameters:,} parameters; pass a file made for {name}"
        )
    model.load_state_dict(state, strict=False)


def _read(path: str | Path, name: str) -> dict[str, torch.Tensor]:
    if not Path(path).is_file():
        raise SparseBlockError(f"{name}: weights {path} is no file; pass a file written by torch.save")
    try:
        with warnings.catch_warnings():  # of a plain pickle's protocol, before the error that says more
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler meets in a foreign file
        raise SparseBlockError(
            f"{name}: weights {path} cannot be read ({type(error).__name__}): it is damaged, cut off or no weights "
            "file; pass a state_dict written by torch.save"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise SparseBlockError(
            f"{name}: weights {path} hold a {type(state).__name__}, not a state_dict; pass a dict of tensors by name"
        )
    return state


def _kind(value: torch.Tensor) -> str:
    return " ".join(str(what).removeprefix("torch.") for what in (value.layout, value.dtype) if what != torch.strided)


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", …" if len(keys) > _SHOWN else "")
