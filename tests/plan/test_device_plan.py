"""Plans that run op by op on a backend: on CPU tensors, with the ops of the reference and of the cpu backend, with the
emulated CUDA kernels, and with the interpreted ones of Triton.
"""

from __future__ import annotations

import functools
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from miniatures import MINIATURES, miniature
from networks import Case, cases
from test_random_networks import check, random_masks
from torch import nn

import sparseblock
from sparseblock.backends.cuda import conv2d, conv2d_wgmma, launch
from sparseblock.errors import SparseBlockError
from sparseblock.plan.device_plan import DevicePlan
from sparseblock.plan.trace import trace

FRAME = (1, 3, 36, 44)


def on(backend: str):
    return functools.partial(DevicePlan, backend=backend, device=torch.device("cpu"))


@settings(max_examples=40)
@given(cases(), st.integers(1, 2), st.integers(0, 2**16))
def test_random_network(case, streams, seed):
    with sparseblock.backend("cpu"):
        check(case, streams, random_masks(case, streams, seed), make_plan=on("cpu"))


@pytest.mark.parametrize("name", MINIATURES)
def test_miniature(name):
    case = miniature(name)
    with sparseblock.backend("cpu"):
        check(case, 2, random_masks(case, 2, seed=1), deep=True, make_plan=on("cpu"))


class NoSums(nn.Module):
    """Layers of every kind but convolutions and statistics, and one that torch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.rand(1, 8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.pixel_unshuffle(nn.functional.pad(x, (2, 2, 2, 2), "reflect"), 2)
        x = torch.cat([x, nn.functional.max_pool2d(x, 3, 1, 1)], 1)[:, :8]
        x = torch.sigmoid(x) * self.scale + x.flip(3)
        return nn.functional.avg_pool2d(nn.functional.silu(x), 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_on_the_kernels_of_gpus(backend, dtype, request):
    case = Case(NoSums().eval(), (3, 36, 44), 16)
    make = functools.partial(DevicePlan, backend=backend, device=request.getfixturevalue(f"{backend}_device"))
    with sparseblock.backend(backend):
        check(case, 2, random_masks(case, 2, seed=1), deep=True, dtype=dtype, make_plan=make)


@pytest.mark.parametrize("name", MINIATURES)
def test_miniature_on_the_cuda_kernels(name, cuda_device):
    case = miniature(name)
    make = functools.partial(DevicePlan, backend="cuda", device=cuda_device)
    with sparseblock.backend("cuda"):
        check(case, 1, random_masks(case, 1, seed=1)[:2], deep=True, make_plan=make)


@pytest.mark.parametrize("name", ["next", "shuffle", "swift"])
def test_miniature_on_the_triton_kernels(name, triton_device):
    case = miniature(name)
    make = functools.partial(DevicePlan, backend="triton", device=triton_device)
    with sparseblock.backend("triton"):
        check(case, 1, random_masks(case, 1, seed=1)[:2], deep=True, make_plan=make)


def test_tf32_where_it_is_asked_for(cuda_device):
    """Rounds both factors to 2^-11 of them: what a sum of 8 x 9 products may be off by, and is."""
    model, frame = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3, padding=1)).eval(), torch.rand(FRAME)
    model, frame = model.to(cuda_device), frame.to(cuda_device)
    with sparseblock.backend("cuda"), torch.no_grad():
        plans = [sparseblock.compile(model, frame, block_size=16, algorithms=name) for name in ("direct", "tf32")]
        exact, rounded = (plan(frame, None, plan.new_state()) for plan in plans)
    assert {node.kernel for node in plans[1].report().nodes} == {"cuda", "cuda conv2d_tf32"}
    largest = model[0](frame).abs().max() * model[1].weight.abs().max()
    assert 0 < (rounded - exact).abs().max() <= 2 * 2**-10 * 8 * 9 * largest


class Convolutions(nn.Module):
    """One for each family of kernels, and one whose input is a slice that begins in the midst of 16 bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.each = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.wide, self.narrow = nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 4, 1)
        self.sliced, self.both, self.up = (
            nn.Conv2d(16, 16, 3, 1, 1),
            nn.Conv2d(20, 8, 1),
            nn.ConvTranspose2d(16, 8, 2, 2),
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.each(self.stem(x))
        narrow, wide = self.narrow(x), self.wide(x)
        return self.both(torch.cat([narrow, wide], 1)), self.up(self.sliced(wide))


@pytest.mark.parametrize(
    ("arch", "dtype", "algorithms", "expected"),
    [
        ("sm_90a", torch.float16, None, dict.fromkeys(("stem", "narrow", "wide", "both"), "conv2d_wgmma")),
        ("sm_90a", torch.float32, None, {}),
        ("sm_90a", torch.float32, "tf32", dict.fromkeys(("stem", "narrow", "wide", "sliced", "both"), "conv2d_tf32")),
        ("sm_80", torch.bfloat16, None, {}),
    ],
)
def test_report_and_explain_name_the_kernels_that_run(arch, dtype, algorithms, expected, hopper, monkeypatch):
    """What a report says is what is launched."""
    monkeypatch.setattr(conv2d_wgmma, "architecture", lambda _: arch)
    device = hopper
    names, real = [], launch.launch
    for place in (launch, conv2d, conv2d_wgmma):
        monkeypatch.setattr(place, "launch", lambda kernel, **rest: names.append(kernel) or real(kernel, **rest))
    model, frame = Convolutions().eval().to(device), torch.rand(1, 3, 32, 32, device=device)
    with sparseblock.backend("cuda"):
        plan = sparseblock.compile(model, frame, block_size=16, dtype=dtype, algorithms=algorithms)
        plan(frame, None, plan.new_state())
    told = {node.name: node.kernel for node in plan.report().nodes if node.macs}
    families = dict.fromkeys(("stem", "narrow", "wide", "sliced", "both", "up"), "conv2d") | {
        "each": "conv2d_depthwise"
    }
    assert told == {name: f"cuda {family}" for name, family in (families | expected).items()}
    ran = [name for name in names if name.startswith("conv2d") and "windows" not in name]
    ran = [re.sub(r"_narrow|_f32|_f16|_bf16|_\d+x\d+.*", "", name) for name in ran]
    assert [f"cuda {name}" for name in ran] == [node.kernel for node in plan.report().nodes if node.macs]
    said = sparseblock.explain(plan).splitlines()
    assert "each: conv2d, cuda conv2d_depthwise" in said and len(said) == len(told)


def test_the_report_of_a_plan_whose_gpu_is_elsewhere_names_the_backend(cuda_device, monkeypatch):
    model, frame = nn.Conv2d(3, 4, 3).eval(), torch.rand(FRAME)
    with sparseblock.backend("cuda"):
        plan = sparseblock.compile(model.to(cuda_device), frame.to(cuda_device), block_size=16)
    monkeypatch.setattr(plan, "device", torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert {node.kernel for node in plan.report().nodes} == {"cuda"}


class Summed(nn.Module):
    """A batch norm after a sum: scale and shift after the residual. Sums of integers, so that only rounding is left."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8, eps=2.0**-20)
        self.norm.running_var.fill_(1 - 2.0**-20)  # of both, 1 is the root
        numbers = torch.Generator().manual_seed(0)
        self.conv.weight.data = torch.randint(-99, 100, (8, 8, 1, 1), generator=numbers).float()
        self.norm.weight.data, self.norm.bias.data = torch.rand(8, generator=numbers), torch.full((8,), 0.1)

    def sums(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.sums(x))


@pytest.mark.parametrize("kind", ["cuda_device", "hopper"])
def test_scale_and_shift_after_a_residual_round_once(kind, request):
    device, model = request.getfixturevalue(kind), Summed().eval()
    frame = torch.randint(-99, 100, (1, 8, 16, 16), generator=torch.Generator().manual_seed(1)).float()
    with sparseblock.backend("cuda"), torch.no_grad():
        plan = sparseblock.compile(model.to(device), frame.to(device), block_size=8, dtype=torch.bfloat16)
        out = plan(frame.to(device), None, plan.new_state()).float().cpu()
        sums = model.cpu().sums(frame)
        scale, shift = (v.double()[:, None, None] for v in (model.norm.weight, model.norm.bias))
    once, twice = (((v.double() * scale + shift).bfloat16().float()) for v in (sums, sums.bfloat16()))
    assert torch.equal(out, once)
    assert not torch.equal(once, twice)


def test_weights_of_inference_mode_are_packed_once(cuda_device, monkeypatch):
    """They count no writes, so that they would be packed in every frame."""
    packed, pack = [], conv2d._packed
    monkeypatch.setattr(conv2d, "_packed", lambda *given: packed.append(given) or pack(*given))
    with sparseblock.backend("cuda"), torch.inference_mode():
        model, frame = nn.Conv2d(3, 4, 3, device=cuda_device).eval(), torch.rand(FRAME, device=cuda_device)
        assert model.weight.is_inference()
        plan = sparseblock.compile(model, frame, block_size=16)
        state = plan.new_state()
        for _ in range(3):
            plan(frame, None, state)
    assert len(packed) == 1


@pytest.mark.parametrize("number", ["", ":0"])
def test_its_device_is_the_one_that_its_tensors_name(number, cuda_device):
    """However it is given: "cuda" is not equal to "cuda:0", where its planes are."""
    device = torch.device(f"{cuda_device.type}{number}")
    graph, signature = trace(nn.Conv2d(3, 4, 3).eval(), torch.rand(FRAME))
    grid = sparseblock.BlockGrid(*FRAME[2:], 16)
    plan = DevicePlan(graph, signature, grid, torch.float32, backend="cuda", device=device)
    assert plan.device == torch.empty(0, device=device).device
    assert plan.new_state().whole.index.device == plan.device


def test_compile_makes_it_where_another_backend_is_forced():
    model, frame = nn.Conv2d(3, 4, 3, padding=1).eval(), torch.rand(FRAME)
    with sparseblock.backend("reference"):
        plan = sparseblock.compile(model, frame, block_size=16)
        with torch.no_grad():
            torch.testing.assert_close(plan(frame, None, plan.new_state()), model(frame))
    assert {node.kernel for node in plan.report().nodes} == {"reference"}
    with pytest.raises(SparseBlockError, match="compiled for the reference backend, but cpu is in force"):
        plan(frame, None, plan.new_state())


def test_a_gate_leaves_tiles_out():
    class LeftHalf:
        tile = 4

        def __call__(self, layer):
            return (torch.arange(layer.active.shape[2]) < 5).expand_as(layer.active)

    model, frames = nn.Conv2d(3, 4, 3, padding=1).eval(), torch.rand(2, *FRAME)
    with sparseblock.backend("reference"):
        plan = sparseblock.compile(model, frames[0], block_size=16, gates=[""])
        state = plan.new_state()
        outs = [plan(frame, None, state, gates={"": LeftHalf()}).clone() for frame in frames]
    with torch.no_grad():
        dense = [model(frame) for frame in frames]
    torch.testing.assert_close(outs[0], dense[0])
    torch.testing.assert_close(outs[1][..., :20], dense[1][..., :20])
    assert torch.equal(outs[1][..., 20:], outs[0][..., 20:])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "exact"}, "mode is 'exact', .* for the reference backend; it runs whole models"),
        ({"parts": ["0"]}, "parts \\['0'\\] .* for the reference backend"),
        ({"algorithms": "winograd_2x2"}, "algorithms 'winograd_2x2' for the reference backend"),
        ({"algorithms": "tf32"}, "algorithms 'tf32' for the reference backend"),
    ],
)
def test_what_only_the_cpu_backend_runs_is_refused(given, message):
    with sparseblock.backend("reference"), pytest.raises(SparseBlockError, match=message):
        sparseblock.compile(nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), torch.rand(FRAME), block_size=16, **given)


def test_a_maximum_over_padding_with_a_value_is_refused():
    model = nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(3, 2)).eval()
    with sparseblock.backend("reference"), pytest.raises(SparseBlockError, match="takes 0 for what lies outside"):
        sparseblock.compile(model, torch.rand(FRAME), block_size=16)


def test_a_state_goes_on_where_another_was():
    model, frames = nn.Conv2d(3, 4, 3, padding=1).eval(), torch.rand(2, *FRAME)
    mask = torch.zeros(1, 3, 3, dtype=torch.bool)
    mask[0, 1, 1] = True
    with sparseblock.backend("reference"):
        plan = sparseblock.compile(model, frames[0], block_size=16)
        state = plan.new_state()
        plan(frames[0], None, state)
        fork = state.fork()
        assert torch.equal(plan(frames[1], mask, state), plan(frames[1], mask, fork))


def test_one_cuda_graph_serves_every_density_and_no_frame_waits(gpu):
    frames, model = torch.rand(6, *FRAME, device=gpu), NoSums().eval().to(gpu)
    plan = sparseblock.compile(model, frames[0], block_size=16)
    replayed, by_op = plan.new_state(), plan.new_state()
    masks = [torch.rand(1, 3, 3, device=gpu) < density for density in (1, 0.3, 0, 0.6, 1, 0.1)]
    for frame, mask in zip(frames, masks, strict=True):
        plan.profile(frame, mask, by_op)
    plan(frames[0], None, replayed)
    plan(frames[1], masks[1], replayed)
    recording = replayed.recording
    try:
        torch.cuda.set_sync_debug_mode("error")
        for frame, mask in zip(frames[2:], masks[2:], strict=True):
            out = plan(frame, mask, replayed)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert replayed.recording is recording
    for name, plane in by_op.state_dict()["planes"].items():
        assert torch.equal(plane, replayed[name]), name
    assert torch.equal(out, plan.output_planes(by_op)[0])
