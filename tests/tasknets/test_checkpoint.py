from __future__ import annotations

import pickle
import re
import warnings

import pytest
import tasknets
import torch

from sparseblock import SparseBlockError

FILES = {"espnet": "espnet_p2q8_cityscapes", "vdsr": "vdsr_epoch50_converted"}


def refuses(message: str):
    return pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$")


def saved(state: object, path):
    torch.save(state, path)
    return path


@pytest.mark.parametrize("name", FILES)
def test_state_dict_is_the_published_tensor_list(data, name):
    listed = {}
    for line in (data / "weights" / f"{FILES[name]}.tensors.txt").read_text().splitlines():
        key, shape = line.split(" ", 1)
        listed[key] = [int(side) for side in re.findall(r"\d+", shape)]
    state = tasknets.load(name).model.state_dict()
    ours = {key: list(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert ours == listed


@pytest.mark.parametrize("name", FILES)
def test_real_weights_arrive(data, name):
    path = data / "weights" / f"{FILES[name]}.pth"
    state = tasknets.load(name, path).model.state_dict()
    for key, value in torch.load(path, weights_only=True, map_location="cpu").items():
        assert torch.equal(state[key], value), key


@pytest.fixture(params=["swiftnet-rn18", "swiftnet-rn50"])
def swiftnet(request):
    return tasknets.load(request.param, seed=1)


def test_swiftnet_loads_blockcopys_keys(swiftnet, tmp_path):
    state = {f"module.{key}": value for key, value in swiftnet.model.state_dict().items()}
    state["module.backbone.fc.weight"] = torch.zeros(1000, 512)
    loaded = tasknets.load(swiftnet.name, saved({"state_dict": state}, tmp_path / "w.pth")).model
    assert not loaded.skips_before_relu
    for key, value in swiftnet.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_swiftnet_loads_the_originals_keys_and_its_skips(swiftnet, tmp_path):
    state = {
        f"backbone.{key}" if key.startswith(("spp.", "upsample.")) else key: value
        for key, value in swiftnet.model.state_dict().items()
    }
    assert "backbone.upsample.2.blend_conv.norm.weight" in state and "backbone.spp.spp.spp_fuse.conv.weight" in state
    state |= {"backbone.img_mean": torch.zeros(1, 3, 1, 1), "backbone.img_std": torch.ones(1, 3, 1, 1)}
    loaded = tasknets.load(swiftnet.name, saved(state, tmp_path / "w.pth")).model
    assert loaded.skips_before_relu
    for key, value in swiftnet.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_weights_of_another_network_are_named(tmp_path):
    state = tasknets.load("vdsr").model.state_dict()
    del state["input.weight"]
    state["head.bias"] = torch.zeros(1)
    state["output.weight"] = torch.zeros(1, 32, 3, 3)
    path = saved(state, tmp_path / "w.pth")
    message = (
        f"vdsr: weights {path} do not fit: 1 missing (input.weight); 1 unexpected (head.bias); "
        "1 wrong shape (output.weight [1, 32, 3, 3] for [1, 64, 3, 3]); "
        "the network has 20 tensors, 664,704 parameters; pass a file made for vdsr"
    )
    with refuses(message):
        tasknets.load("vdsr", path)


def test_only_the_first_few_tensors_are_listed(tmp_path):
    path = saved({}, tmp_path / "w.pth")
    message = (
        f"vdsr: weights {path} do not fit: 20 missing (input.weight, residual_layer.0.conv.weight, "
        "residual_layer.1.conv.weight, …); the network has 20 tensors, 664,704 parameters; pass a file made for vdsr"
    )
    with refuses(message):
        tasknets.load("vdsr", path)


def test_a_missing_file(tmp_path):
    with refuses(f"espnet: weights {tmp_path / 'no.pth'} is no file; pass a file written by torch.save"):
        tasknets.load("espnet", tmp_path / "no.pth")


def test_a_file_that_is_none_of_torchs(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"\x00" * 100)
    message = (
        f"espnet: weights {path} cannot be read (UnpicklingError): it is damaged, cut off or no weights file; "
        "pass a state_dict written by torch.save"
    )
    with refuses(message):
        tasknets.load("espnet", path)


def test_a_file_that_is_cut_off(tmp_path):
    path = saved(tasknets.load("vdsr").model.state_dict(), tmp_path / "w.pth")
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(SparseBlockError, match="it is damaged, cut off or no weights file"):
        tasknets.load("vdsr", path)


def test_a_plain_pickle_is_refused_without_a_warning(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps({"input.weight": 1}, protocol=4))
    # Recorded, not raised: raised it would be one more reason why the file cannot be read.
    with warnings.catch_warnings(record=True) as warned, pytest.raises(SparseBlockError, match="weights"):
        warnings.simplefilter("always")
        tasknets.load("vdsr", path)
    assert not warned


@pytest.mark.parametrize(
    ("change", "kind"),
    [(torch.Tensor.to_sparse, "sparse_coo float32"), (torch.Tensor.long, "int64")],
    ids=["sparse", "whole numbers"],
)
def test_tensors_of_another_kind(tmp_path, change, kind):
    state = tasknets.load("vdsr").model.state_dict()
    state["input.weight"] = change(state["input.weight"])
    with pytest.raises(SparseBlockError, match=rf"do not fit: 1 wrong type \(input.weight {kind} for float32\)"):
        tasknets.load("vdsr", saved(state, tmp_path / "w.pth"))


def test_a_file_that_holds_no_state_dict(tmp_path):
    path = saved([1, 2], tmp_path / "w.pth")
    with refuses(f"espnet: weights {path} hold a list, not a state_dict; pass a dict of tensors by name"):
        tasknets.load("espnet", path)


def test_a_file_whose_tensors_have_no_names(tmp_path):
    path = saved({0: torch.zeros(1)}, tmp_path / "w.pth")
    with refuses(f"espnet: weights {path} hold a dict, not a state_dict; pass a dict of tensors by name"):
        tasknets.load("espnet", path)
