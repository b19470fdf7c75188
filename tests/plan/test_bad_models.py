"""What models do that a plan must get right, or refuse with a name and what to do."""

from __future__ import annotations

import collections
import copy
import random
import re
import threading
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from error_bound import assert_within, depth_tolerance
from torch import nn
from torch.utils import _pytree as pytree

import sparseblock
from sparseblock import SparseBlockError
from sparseblock.plan.reference import Reference
from sparseblock.plan.trace import trace

FRAME = (1, 3, 32, 48)


def conv(c: int = 3, k: int = 4) -> nn.Conv2d:
    return nn.Conv2d(c, k, 3, padding=1)


class Model(nn.Module):
    """What `run` does, with modules of its own."""

    def __init__(self, run, **modules) -> None:
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.run = run

    def forward(self, x):
        return self.run(self, x)


def model(run, **modules) -> nn.Module:
    return Model(run, a=conv(), b=conv(4, 4), **modules).eval()


def hooked(kind: str, hook) -> nn.Module:
    network = nn.Sequential(conv(), conv(4, 4)).eval()
    getattr(network[1], f"register_{kind}")(hook)
    return network


def tied() -> nn.Module:
    network = nn.Sequential(conv(), conv(4, 4), conv(4, 4)).eval()
    network[2].weight = network[1].weight
    return network


def sub_view(self, x):
    y = self.a(x)
    y[:, :2].add_(1)
    return self.b(y)


def two_views(self, x):
    y = self.a(x)
    first = y[:, :2]
    y[:, 1:3].add_(1)
    return self.b(torch.cat([first, y], 1)[:, 2:])


def written(self, x):
    y = self.a(x)
    y[..., :5, 3:9] = 0.5
    return self.b(y)


def after_reading(self, x):
    y = self.a(x)
    z = self.b(y)
    y.mul_(z)
    return y, z


def switched(context):
    """The first convolution within a context of torch's."""

    def run(self, x):
        with context():
            y = self.a(x.float())
        return self.b(y) + y[:, :1]

    return run


def autocast(self, x):
    with torch.autocast("cpu", torch.bfloat16):
        return self.a(x).float() * 2


CASES = {
    "autocast off": model(switched(lambda: torch.autocast("cpu", enabled=False))),
    "autocast on for another device": model(switched(lambda: torch.autocast("cuda", torch.float16))),
    "gradients on": model(switched(torch.enable_grad)),
    "contexts in a context": model(
        lambda self, x: switched(torch.enable_grad)(self, switched(torch.enable_grad)(self, x)[:, :3])
    ),
    "a constant made in forward": model(lambda self, x: self.a(x - torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))),
    "a cast to what it is": model(lambda self, x: self.b(self.a(x).to(torch.float32))),
    "float64 within": model(lambda self, x: self.b((self.a(x).double() * 2).float())),
    "a module twice": model(lambda self, x: self.b(F.relu(self.b(self.a(x))))),
    "a module listed twice": (lambda b: nn.Sequential(conv(), b, b).eval())(conv(4, 4)),
    "tied weights": tied(),
    "a weight in two layouts": model(
        lambda self, x: F.conv2d(F.conv2d(x, self.a.weight), self.a.weight.transpose(0, 1), padding=2)
    ),
    "a weight of two factors": nn.Sequential(nn.utils.parametrizations.weight_norm(conv())).eval(),
    "a hook that changes the result": hooked("forward_hook", lambda module, args, out: out * 2 + 1),
    "a hook that changes the input": hooked("forward_pre_hook", lambda module, args: (F.relu(args[0]),)),
    "a hook that looks at values": hooked("forward_hook", lambda *given: -given[2] if given[2].mean() < 9 else 0),
    "in place": model(lambda self, x: F.relu_(self.a(x)).add_(1).clamp_(max=1.5)),
    "the input in place": model(lambda self, x: self.a(x.mul_(2)) + x[:, :1]),
    "in place after another has read it": model(after_reading),
    "in place in some channels": model(sub_view),
    "in place in some pixels": model(written),
    "into a tensor of its own": model(lambda self, x: torch.add(self.a(x), 1, out=torch.empty(1, 4, 32, 48))),
    "a model in channels-last": nn.Sequential(conv(), nn.BatchNorm2d(4)).eval().to(memory_format=torch.channels_last),
    "views of channels-last": model(
        lambda self, x: self.a(x).contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).reshape(1, -1)
    ),
    "a branch on values": model(lambda self, x: self.b(self.a(x)) if x.mean() > 0 else self.a(x)),
    "sizes that depend on values": model(lambda self, x: (lambda y: y[y > 0.1])(self.a(x))),
    "an fx graph that returns a dict": torch.fx.symbolic_trace(
        model(lambda self, x: {"a": [y := self.a(x), {"b": y}], "c": (self.b(y),)})
    ),
    "a result of numpy": model(lambda self, x: torch.from_numpy(self.a(x).numpy() * 2)),
    "sizes in Python": model(lambda self, x: F.interpolate(self.a(x), (x.shape[2] // 2, x.shape[3] // 2))[:, :, :-1]),
    "results that are the input, a constant, a view, one twice": model(
        lambda self, x: (lambda y: (x, torch.ones(3), None, "text", y, y, y[:, 1:, ::2]))(self.a(x))
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_is_right(name):
    network = CASES[name]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    frames = [torch.rand(FRAME), torch.rand(FRAME)]
    plan = sparseblock.compile(network, frames[0].clone(), block_size=16)
    state = plan.new_state()
    for frame in frames:
        out = plan(frame.clone(), None, state)
        with torch.no_grad():
            expected = network(frame.clone())
        assert pytree.tree_structure(out) == pytree.tree_structure(expected)
        for got, want in zip(pytree.tree_leaves(out), pytree.tree_leaves(expected), strict=True):
            if isinstance(got, torch.Tensor):
                torch.testing.assert_close(got, want)
            else:
                assert got == want
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


LAYOUTS = {
    "channels-last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every second row": lambda x: x.repeat_interleave(2, 2)[:, :, ::2],
    "one channel three times": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "of a gradient": lambda x: x.requires_grad_(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("streams", [1, 3])
def test_layouts_and_batches_of_frames(layout, streams):
    network = nn.Sequential(conv(), nn.ReLU(), conv(4, 4)).eval()
    frame = LAYOUTS[layout](torch.rand(streams, *FRAME[1:]))
    plan = sparseblock.compile(network, frame, block_size=16)
    out = plan(frame, None, plan.new_state(streams))
    reference = Reference(trace(network, frame[:1])[0], plan.grid)
    for stream in range(streams):
        image = frame[stream : stream + 1].detach()
        (want,) = pytree.tree_leaves(reference(image, torch.ones(2, 3, dtype=torch.bool)))
        assert_within(out[stream : stream + 1], want, depth_tolerance(reference))


def test_each_image_of_a_batch_is_a_video_of_its_own():
    """Also where the model by itself would mix the images of a batch."""
    network = model(lambda self, x: self.a(x).flip(0) - self.a(x).mean(0, keepdim=True) + self.a(x).softmax(0))
    frame = torch.rand(3, *FRAME[1:])
    plan = sparseblock.compile(network, frame, block_size=16)
    out = plan(frame, None, plan.new_state(3))
    for stream in range(3):
        image = frame[stream : stream + 1]
        assert torch.equal(out[stream : stream + 1], plan(image, None, plan.new_state()))
        torch.testing.assert_close(out[stream : stream + 1], network(image).detach())
    network = model(lambda self, x: torch.cat([self.a(x), self.a(x)], 0))
    plan = sparseblock.compile(network, frame, block_size=16)
    message = "new_state: the output of cat is [2, 4, 32, 48] for one frame, without an axis for 3 streams; use one "
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}"):
        plan.new_state(3)


def keeps_frame(self, x):
    out = self.a(x) if self.last is None else self.a(x - self.last)
    self.last = x
    return out


def keeps_list(self, x):
    self.seen.append(self.a(x))
    return sum(self.seen)


def counts(self, x):
    self.number += 1
    return self.a(x) * self.number


@pytest.mark.parametrize(
    ("run", "attributes"),
    [
        (keeps_frame, {"last": None}),
        (keeps_list, {"seen": collections.deque(maxlen=2)}),
        (keeps_list, {"seen": []}),
        (counts, {"number": 0}),
    ],
)
def test_what_a_model_remembers_stays_python(run, attributes):
    """It would be a constant of a plan; and what it holds is not what a capture left there."""
    network = model(run)
    for name, value in attributes.items():
        setattr(network, name, value)
    (name,) = attributes
    message = f"compile: Model keeps {name} from frame to frame, which a plan does not; give it to the model"
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}"):
        sparseblock.compile(network, torch.rand(FRAME), mode="exact")
    assert not getattr(network, name)
    plan = sparseblock.compile(network, torch.rand(FRAME), block_size=16)
    assert list(plan.parts) == ["a"] and message in str(plan.report())


def test_what_a_model_kept_of_a_run_with_gradients_is_no_obstacle_to_seeing_that_it_remembers():
    """Such results torch does not copy; and what cannot be copied at all counts as remembering."""

    def adds(self, x):
        before, self.last = self.last, self.a(x)
        return self.last + before

    def shows(self, x):
        self.last = self.a(x)
        return self.b(self.last)

    network, harmless = model(adds), model(shows)
    for kind in (network, harmless):
        kind.last = kind.a(torch.rand(FRAME))
        assert not kind.last.is_leaf
    assert isinstance(sparseblock.compile(harmless, torch.rand(FRAME), block_size=16), sparseblock.Plan)
    assert "keeps last" in str(sparseblock.compile(network, torch.rand(FRAME), block_size=16).report())
    harmless.lock = threading.Lock()
    assert "keeps last" in str(sparseblock.compile(harmless, torch.rand(FRAME), block_size=16).report())


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_what_a_model_draws_outside_of_torch_stays_python(draw):
    """It would be a constant of a plan; what it draws from torch is drawn in every frame."""
    network, frame = model(lambda self, x: self.a(x) * draw()), torch.rand(FRAME)
    plan = sparseblock.compile(network, frame, block_size=16)
    assert list(plan.parts) == ["a"] and "Model draws from Python's or NumPy's random" in str(plan.report())
    state = plan.new_state()
    first = plan(frame, None, state).clone()
    assert not torch.equal(plan(frame, None, state), first)
    network = model(lambda self, x: self.a(x) * torch.rand(()) + F.dropout(self.a(x)))
    plan = sparseblock.compile(network, frame, block_size=16)
    assert isinstance(plan, sparseblock.Plan)
    for seed in (1, 2):
        torch.manual_seed(seed)
        out = plan(frame, None, plan.new_state())
        torch.manual_seed(seed)
        torch.testing.assert_close(out, network(frame).detach())


def test_attributes_that_carry_nothing_over_are_no_obstacle():
    def run(self, x):
        self.features, self.size = self.a(x), x.shape[2:]
        return self.features * 2

    network = model(run)
    network.features = "none yet"
    plan = sparseblock.compile(network, torch.rand(FRAME), block_size=16)
    assert isinstance(plan, sparseblock.Plan)
    assert network.features == "none yet"


def test_what_a_model_keeps_for_frames_of_one_size_is_made_again_for_the_next():
    """A capture leaves nothing of it behind, neither tensors without values nor the size that they are of."""

    def run(self, x):
        y = self.a(x)
        if getattr(self, "size", None) != y.shape:
            self.size, self.places = y.shape, torch.arange(y.shape[3]).type_as(y) + 0.5
        return y + self.places

    network = model(run)
    before = set(vars(network))
    for width in (48, 32):
        frame = torch.rand(1, 3, 32, width)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plan = sparseblock.compile(network, frame, block_size=16)
        assert isinstance(plan, sparseblock.Plan) and set(vars(network)) == before
        with torch.no_grad():
            torch.testing.assert_close(plan(frame, None, plan.new_state()), copy.deepcopy(network)(frame))


def test_hooks_that_the_first_frame_sets_are_set_once():
    """And what the model keeps to know that it has them stays with them."""

    def run(self, x):
        if not hasattr(self, "hooked"):
            self.hooked = self.a.register_forward_hook(lambda module, given, result: result + 1) is not None
        return self.a(x)

    network, frame = model(run), torch.rand(FRAME)
    plan = sparseblock.compile(network, frame, block_size=16)
    with torch.no_grad():
        torch.testing.assert_close(plan(frame, None, plan.new_state()), network(frame))


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x, mask=None, *, scale=2.0):
        return self.conv(x) * scale if mask is None else x


def test_an_argument_that_is_none_is_no_map():
    def run(self, x):
        y = self.part(x, mask=None, scale=3.0)
        return y[y > 0.1]

    network, frame = model(run, part=Part()), torch.rand(FRAME)
    plan = sparseblock.compile(network, frame, block_size=16, parts=["part"])
    torch.testing.assert_close(plan(frame, None, plan.new_state()), network(frame).detach())


def vmapped(self, x):
    return self.b(torch.vmap(lambda image: self.a(image[None])[0])(x))


def branches(self, x):
    y = self.a(x)
    return torch.cond(y.mean() > 0, lambda y: self.b(y), lambda y: -self.b(y), (y,))


def branches_first(self, x):
    return self.b(torch.cond(x.mean() > 0, lambda x: self.a(x), lambda x: -self.a(x), (x,)))


@pytest.mark.parametrize(("run", "part"), [(vmapped, "b"), (branches, "a")])
def test_what_a_transform_calls_stays_python(run, part):
    """Its tensors have no memory of their own, or no values yet."""
    network, frame = model(run), torch.rand(FRAME)
    plan = sparseblock.compile(network, frame, block_size=16)
    assert part in plan.parts
    torch.testing.assert_close(plan(frame, None, plan.new_state()), network(frame).detach())


def test_a_first_part_within_a_branch_is_refused():
    message = "compile: part 'a' is called by a transform of torch (cond, vmap), where its input is no map in memory; "
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}"):
        sparseblock.compile(model(branches_first), torch.rand(FRAME), block_size=16)


def test_a_verification_covers_what_is_cast():
    def run(self, x):
        return self.b(self.a(x).to(torch.float32).half().float() + self.a(x).double().float())

    network, frame = model(run), torch.rand(1, 3, 9, 7)
    plan = sparseblock.compile(network, frame, mode="exact", whole_from=1.0)
    assert sparseblock.verify(plan, [frame, frame + torch.eye(9, 7)])


def test_autocast_changes_nothing():
    network, frame = model(lambda self, x: self.tail(self.a(x).flatten(2)), tail=nn.Conv1d(4, 4, 3)), torch.rand(FRAME)
    plan = sparseblock.compile(network, frame, block_size=16)
    expected = plan(frame, None, plan.new_state())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(plan(frame, None, plan.new_state()), expected)
        with pytest.raises(SparseBlockError, match=r"^compile: autocast is on, but a plan computes in float32"):
            sparseblock.compile(network, frame)


def training_part() -> nn.Module:
    network = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Dropout(0.5)).eval()
    network[1].train()
    return network


def counting() -> nn.Module:
    def run(self, x):
        self.count += 1
        return self.a(x)

    return model(run, count=nn.Buffer(torch.zeros(1)))


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (nn.Sequential(conv()), {}, "Sequential is in training mode; call model.eval() first"),
        (training_part(), {}, "1 is in training mode, though Sequential is not; call model.eval() once all of its"),
        (counting(), {"mode": "exact"}, "add_ changes count in place; a plan's constants cannot change: do not update"),
        (nn.LazyConv2d(4, 3).eval(), {}, "weight has no size yet, as lazy modules have none; run the model on a frame"),
        (
            torch.jit.trace(conv().eval(), torch.rand(FRAME)),
            {},
            "model is a TopLevelTracedModule, of which no graph can be captured; compile the module that it was made",
        ),
        (
            nn.Sequential(conv(), torch.jit.script(nn.Sequential(conv(4, 4)))).eval(),
            {},
            "1 is a RecursiveScriptModule, of which no graph can be captured; use the module that it was made from",
        ),
        (
            conv(5).eval(),
            {},
            "Conv2d itself fails on a frame of [1, 3, 32, 48] (RuntimeError: Given groups=1",
        ),
        (
            model(autocast),
            {"mode": "exact"},
            "mul switches autocast on, but a plan computes in float32; switch it off in the model, with dtype=",
        ),
        (
            model(lambda self, x: torch.vmap(lambda y: self.a(y[None])[0])(x)),
            {"mode": "exact"},
            "lazy_load_decompositions is of a transform of torch.func, which a plan cannot run; call the module on the",
        ),
        (conv().eval(), {"gates": None}, "gates is None; it must be a list of names"),
        (conv().eval(), {"parts": 5}, "parts is 5; it must be a list of names"),
        (conv().eval(), {"algorithms": ["direct"]}, "algorithms is ['direct']; it must be the name of one for all, "),
        (conv().eval().half(), {}, "weight is torch.float16; plans compute in float32: call model.float() first"),
        (
            model(two_views),
            {"mode": "exact"},
            "add_ changes in place what slice_1 shows in part; write it out of place",
        ),
        (
            model(lambda self, x: self.a(x).nonzero()),
            {"mode": "exact"},
            "the size of nonzero (aten.nonzero.",
        ),
    ],
)
def test_is_refused(network, options, message):
    with pytest.raises(SparseBlockError, match=f"^compile: {re.escape(message)}"):
        sparseblock.compile(network, torch.rand(FRAME), **options)


def test_an_example_is_a_dense_tensor():
    message = "compile: example_frame is torch.float32 [1, 3, 32, 48] on cpu, torch.sparse_coo; it must be a float32 "
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}"):
        sparseblock.compile(conv().eval(), torch.rand(FRAME).to_sparse())


def test_an_example_of_nan_does_not_look_like_memory():
    """Results that are NaN both times are no sign that a model keeps what it saw."""

    def run(self, x):
        self.seen = self.a(x)
        return self.seen

    network = model(run)
    assert isinstance(sparseblock.compile(network, torch.full(FRAME, torch.nan), block_size=16), sparseblock.Plan)
    assert not hasattr(network, "seen")  # the model is as it was
