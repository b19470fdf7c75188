"""`Gated` computes the paper's formulas, and gates learn by it."""

from __future__ import annotations

import copy
import re

import pytest
import skipconv
import torch
import torch.nn.functional as F
from integers import Twice, clip
from torch import nn

from sparseblock import SparseBlockError


class One(nn.Module):
    """A convolution, a bias, an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).relu()


def video(frames: int = 4, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shown = [torch.rand(2, 3, 10, 12, generator=generator, dtype=torch.float64)]
    for _ in range(frames - 1):
        frame = shown[-1].clone()
        frame[:, :, 2:6, 3:8] += torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64)
        shown.append(frame)
    return shown


@pytest.mark.parametrize("form", ["recompute", "accumulate"])
@pytest.mark.parametrize("structure", [1, 3])
def test_the_formulas_of_the_paper(form, structure):
    network, epsilon = One().double(), 2.0
    gated = skipconv.Gated(network, skipconv.InputNorm(epsilon, "last_frame"), structure, form=form).double()
    w, b = network.conv.weight, network.conv.bias
    shown, held = video(), None
    with torch.no_grad():
        for number, frame in enumerate(shown):
            out = gated(frame)
            z = F.conv2d(frame, w, b, padding=1)
            if held is None:
                held = z
            else:
                residual = frame - shown[number - 1]
                norm = F.conv2d(residual.abs(), torch.ones(1, 3, 3, 3, dtype=torch.float64), padding=1)
                g = F.max_pool2d((norm > epsilon).double(), structure, ceil_mode=True)
                g = F.interpolate(g, scale_factor=structure, mode="nearest")[..., : z.shape[2], : z.shape[3]]
                assert 0 < g.mean() < 1 and gated.opened["conv"] == pytest.approx(float(g.mean()))
                if form == "recompute":
                    held = torch.where(g > 0, z, held)
                else:
                    held = held + g * F.conv2d(residual, w, padding=1)
            assert torch.allclose(out, held.relu(), rtol=0, atol=1e-12)


def test_the_bias_is_added_once():
    """The paper's code adds it with every residual."""
    network = One().double()
    gated = skipconv.Gated(network, skipconv.InputNorm(0.0, "last_frame"), 1, form="accumulate").double()
    with torch.no_grad():
        for frame in video(20):
            out = gated(frame)
        assert torch.allclose(out, network(frame), rtol=0, atol=1e-12)


def test_output_norm_bounds_the_change_of_the_output():
    network, shown = One().double(), video(seed=2)
    norm = float(network.conv.weight.detach().abs().sum())
    with torch.no_grad():
        for epsilon in (0.5, 5.0, 50.0):
            a = skipconv.Gated(network, skipconv.OutputNorm(epsilon), 1)
            b = skipconv.Gated(network, skipconv.InputNorm(epsilon / norm), 1)
            for frame in shown:
                out = a(frame)
                assert torch.equal(out, b(frame))
                assert (out - network(frame)).abs().max() <= epsilon + 1e-12


def test_the_cost_is_the_share_of_macs_that_gates_leave():
    gated = skipconv.Gated(Twice(1, kernel_size=3, padding=1), skipconv.InputNorm(2.0), 2).eval()
    macs = {"stem": 4 * 3 * 9 * 100, "wide": 5 * 4 * 9 * 100, "head": 2 * 9 * 100}
    small = 4 * 2 * 9 * 25  # the shared one at the lower size
    shares = []
    with torch.no_grad():
        frames = clip(1, 4, 1, 20, 20)
        gated(frames[0])
        with pytest.raises(SparseBlockError, match="no frame came after the first"):
            gated.cost()
        for frame in frames[1:]:
            calls = []
            handle = gated._hook
            gated._hook = lambda *given, calls=calls, handle=handle: calls.append(given) or handle(*given)
            gated(frame)
            gated._hook = handle
            opened = calls[0][2]  # (layer, MACs, share) of every call, in order
            total = sum(macs.values()) + small + 4 * small
            expected = {"stem": macs["stem"], "wide": macs["wide"], "head": macs["head"]}
            assert [m for name, m, _ in opened if name == "shared"] == [small, 4 * small]
            assert {name: m for name, m, _ in opened if name != "shared"} == expected
            shares.append(sum(m * float(g) for _, m, g in opened) / total)
    assert float(gated.cost()) == pytest.approx(sum(shares) / 3)


def test_gates_learn_what_matters():
    """Changes of the first channel matter to the task, larger ones of the second do not: the gate tells them apart."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 1, 1, bias=False))
    network[0].weight.data = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    gated = skipconv.Gated(network, skipconv.Gumbel(), structure=1).train()
    network_weight = gated.model[0].weight.requires_grad_(False)
    optimizer = torch.optim.Adam(gated.phi.parameters(), lr=0.1)

    def pair() -> tuple[torch.Tensor, torch.Tensor]:
        before = torch.rand(4, 2, 8, 8)
        after = before.clone()
        after[:, 0, :4] += 1.0
        after[:, 1, 4:] += 3.0
        return before, after

    costs = []
    for _ in range(120):
        gated.reset()
        before, after = pair()
        gated(before)
        error = (gated(after) - F.conv2d(after, network_weight)).square().mean()
        costs.append(gated.cost().item())
        (error + 0.2 * gated.cost()).backward()
        optimizer.step()
        optimizer.zero_grad()
    gated.eval()
    before, after = pair()
    net = skipconv.convert(gated, before)
    net(before)
    assert torch.allclose(net(after), F.conv2d(after, network_weight), rtol=0, atol=1e-6)
    assert net.stats.opened == {"0": 0.5}


def test_samples_are_bernoulli_and_gradients_those_of_the_relaxation():
    torch.manual_seed(1)
    gated = skipconv.Gated(nn.Sequential(nn.Conv2d(1, 1, 1)), skipconv.Gumbel(temperature=0.5), structure=1).train()
    phi = gated.phi["0"]
    phi.weight.data.fill_(0.0)
    phi.bias.data.fill_(-1.0)
    gated(torch.zeros(1, 1, 200, 200))
    out = gated(torch.ones(1, 1, 200, 200))
    share = gated.opened["0"]
    expected, deviation = torch.sigmoid(torch.tensor(-1.0)).item(), (0.27 * 0.73 / 40000) ** 0.5
    assert abs(share - expected) < 5 * deviation
    assert out.unique().numel() == 2  # samples, not their relaxation
    gated.cost().backward()
    # d/dbias mean(sigmoid((bias + noise) / t)): 1 / t * mean(s (1 - s)), by simulation
    noise = torch.logit(torch.rand(1_000_000, dtype=torch.float64))
    soft = torch.sigmoid((noise - 1.0) / 0.5)
    slopes = soft * (1 - soft) / 0.5
    assert abs(float(phi.bias.grad) - float(slopes.mean())) < 5 * float(slopes.std()) / 40000**0.5


def test_the_gradient_of_a_block_goes_to_the_pixel_that_is_most_open():
    torch.manual_seed(2)
    gated = skipconv.Gated(nn.Sequential(nn.Conv2d(1, 1, 1)), skipconv.Gumbel(), structure=4).train()
    gated.phi["0"].bias.data.fill_(-2.0)
    seen = []

    def keep(module, inputs, out):
        out.retain_grad()
        seen.append(out)

    gated.phi["0"].register_forward_hook(keep)
    gated(torch.zeros(1, 1, 64, 64))
    gated(torch.ones(1, 1, 64, 64))
    gated.cost().backward()
    reached = seen[0].grad[0, 0] != 0
    assert reached.sum() == 256  # one of each block
    of_blocks = reached.view(16, 4, 16, 4).sum((0, 2))
    assert (of_blocks > 0).all(), "pixels of a block are alike: none may be passed over"


def test_a_copy_begins_a_new_clip():
    gated = skipconv.Gated(One(), skipconv.Gumbel()).train()
    for _ in range(2):
        gated(torch.rand(1, 3, 8, 8))
    frame = torch.rand(1, 3, 8, 8)
    assert torch.equal(copy.deepcopy(gated)(frame), gated.model(frame))


def test_the_model_is_copied_and_keeps_its_names():
    network = One()
    gated = skipconv.Gated(network, skipconv.Gumbel())
    gated.model.conv.weight.data.zero_()
    assert network.conv.weight.abs().sum() > 0 and not network.conv._forward_hooks
    assert {"model.conv.weight", "phi.conv.weight", "phi.conv.bias"} <= gated.state_dict().keys()
    other = skipconv.Gated(network, skipconv.Gumbel())
    other.load_state_dict(gated.state_dict())
    assert torch.equal(other.phi["conv"].weight, gated.phi["conv"].weight)


def test_a_frame_that_fails_begins_anew_and_leaves_no_hooks():
    gated = skipconv.Gated(One(), skipconv.InputNorm(1.0)).eval()
    gated(torch.rand(1, 3, 8, 8))
    with pytest.raises(SparseBlockError, match=re.escape("conv reads [1, 3, 9, 9], in the frame before [1, 3, 8, 8]")):
        gated(torch.rand(1, 3, 9, 9))
    assert not gated.model.conv._forward_hooks
    frame = torch.rand(1, 3, 9, 9)
    assert torch.equal(gated(frame), gated.model(frame))


def test_what_gated_refuses():
    for arguments, message in (
        ((skipconv.InputNorm(1.0), 4, None, "add"), "form is 'add'"),
        ((skipconv.InputNorm(1.0), 4, None, "accumulate"), '"accumulate" with reference "last_frame"'),
        (("norm",), "gate is 'norm'; it must be a skipconv.InputNorm"),
        ((skipconv.InputNorm(1.0), 4, ["relu"]), "layers has 'relu', which is no Conv2d"),
    ):
        with pytest.raises(SparseBlockError, match=re.escape(message)):
            skipconv.Gated(One(), *arguments)
