"""Planes: borders, slices, who keeps its own and who shares."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st
from miniatures import miniature
from networks import Call, cases
from torch import nn

from sparseblock.cache import FeatureCache, PlaneSpec, shared_bytes
from sparseblock.grid import BlockGrid
from sparseblock.plan.arena import ALIGNMENT, Span, assign_offsets
from sparseblock.plan.compile import trace
from sparseblock.plan.ir import Graph, Pointwise
from sparseblock.plan.passes import run_passes
from sparseblock.plan.placement import place
from sparseblock.plan.planes import assign_planes


def planes(network: nn.Module, frame: torch.Tensor, block: int, **rest: object) -> tuple[Graph, dict[str, PlaneSpec]]:
    graph, _ = trace(network, frame)
    grid = BlockGrid(*frame.shape[2:], block)
    with torch.no_grad():
        graph = run_passes(graph, grid)
    return graph, {spec.name: spec for spec in assign_planes(graph, grid, place(graph, grid), **rest)}


def by_origin(graph: Graph, specs: dict[str, PlaneSpec]) -> dict[str, PlaneSpec]:
    return {node.origin: specs[node.output] for node in graph.nodes if node.output in specs and node.origin}


spans = st.builds(
    lambda size, first, length: Span(size, first, first + length),
    st.integers(1, 1000),
    st.integers(0, 9),
    st.integers(0, 9),
)
FRAME = torch.randn(1, 3, 32, 48)


def test_border_is_the_widest_padding_of_a_convolution():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), Call("", lambda x: x.sin()), nn.Conv2d(4, 4, 1)).eval()
    graph, specs = planes(network, FRAME, 8)
    assert all(spec.border == 0 for spec in specs.values())

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 7, padding=3)
            self.b, self.pool = nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(3, 1, 1)
            self.c = nn.Conv2d(4, 4, 3, padding=(12, 2), dilation=(12, 1))

        def forward(self, x):
            x = self.stem(x)
            return self.a(x) + self.b(x), self.pool(self.b(x)), self.c(self.a(x))

    graph, specs = planes(Two().eval(), FRAME, 8)
    assert by_origin(graph, specs)["stem"].border == 3
    assert by_origin(graph, specs)["b"].border == 0, "a pool does not read the border"
    assert by_origin(graph, specs)["a"].border == 2, "nor does a window along an axis with dilation"


def test_pixels_begin_where_kernels_want_them():
    """Of more than 16 bytes: fewer channels are read in another way. A slice lies in its parent as ever."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 9, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(17, 5, 3, padding=1)

        def forward(self, x):
            return self.c(torch.cat([self.a(x), self.b(x)], 1))

    graph, specs = planes(Network().eval(), FRAME, 8, dtype=torch.float16, align=16)
    parts = by_origin(graph, specs)
    whole = specs[parts["a"].parent]
    assert (whole.c, whole.pitch, parts["a"].pitch, parts["c"].pitch) == (17, 24, None, None)
    assert whole.size == 2 * 24 * (32 + 2) * (48 + 2)
    state = FeatureCache(list(specs.values()), streams=2)
    assert state[whole.name].shape[1] == 17
    assert state[whole.name].stride(3) == 24
    assert state.nbytes == shared_bytes(state.specs) * 2 + 2 * sum(spec.nbytes for spec in state.specs)


def test_transient_values_share_and_others_do_not():
    conv = lambda c, k, r: nn.Conv2d(c, k, r, padding=r // 2)  # noqa: E731
    network = nn.Sequential(conv(3, 8, 1), conv(8, 6, 1), conv(6, 8, 1), conv(8, 4, 3), conv(4, 5, 1)).eval()
    graph, specs = planes(network, FRAME, 8)
    own = by_origin(graph, specs)
    assert None not in (own["0"].shared, own["1"].shared) and own["0"].shared != own["1"].shared
    assert own["2"].shared is None and own["2"].border == 1, "a 3x3 reads it with a halo"
    assert own["3"].shared == 0, "whatever was there is dead"
    assert own["4"].shared is None, "an output is the user's"


def test_maps_of_any_size_share_one_memory():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 2, 1)).eval()
    _, specs = planes(network, FRAME, 8)
    sizes = [spec.size for spec in specs.values() if spec.shared is not None]
    assert len(sizes) == 4  # with the copy of the frame
    assert shared_bytes(tuple(specs.values())) == max(a + b for a, b in itertools.pairwise(sizes))


def test_a_sum_takes_the_place_of_the_value_that_it_adds_last():
    case = miniature("bottlenecks")
    graph, specs = planes(case.network, case.frames(), case.block)
    sums = [specs[node.output] for node in graph.nodes if node.label == "conv2d+add+relu"]
    assert [spec.c for spec in sums] == [8, 8, 8, 16]
    assert sums[0].shared != sums[1].shared == sums[2].shared is not None, "the first is read again later"


class Sine(nn.Module):
    """An operator without a rule."""

    def forward(self, x):
        return x.sin()


def test_dense_readers_keep_a_plane():
    graph, specs = planes(nn.Sequential(nn.Conv2d(3, 8, 1), Sine(), nn.Conv2d(8, 8, 1)).eval(), FRAME, 8)
    assert by_origin(graph, specs)["0"].shared is None


def test_values_of_torch_alone_have_no_plane():
    _, specs = planes(nn.Sequential(Sine(), Sine()).eval(), FRAME, 8)
    assert len(specs) == 2  # the frame and its copy


def test_pyramid_sums_lie_in_the_concatenation():
    case = miniature("pyramid")
    graph, specs = planes(case.network, case.frames(), case.block)
    own = by_origin(graph, specs)
    sums = [own[f"units.0.branches.{i}"] for i in range(4)]
    assert len({spec.parent for spec in sums}) == 1
    assert [spec.offset for spec in sums] == [0, 4, 8, 12]
    assert own["up.0"].parent == own["stem.0"].parent
    assert (own["up.0"].offset, own["stem.0"].offset) == (0, 5)


@given(cases(longest=12))
def test_live_values_never_share(case):
    """A node's output has no memory in common with any value that a later node reads, and with one that it reads itself
    only where it writes each pixel over the same one.
    """
    graph, specs = planes(case.network, case.frames(), case.block)
    cache = FeatureCache(tuple(specs.values()))
    positions = {node.output: i for i, node in enumerate(graph.nodes)}
    moving = [node for node in graph.nodes if not node.is_view and node.output in specs]
    for node in moving:
        written = positions[node.output]
        for other in moving:
            readers = [reader for reader in moving if other.output in _sources(graph, reader)]
            last = max((positions[reader.output] for reader in readers), default=0)
            if positions[other.output] < written <= last and _overlap(cache[node.output], cache[other.output]):
                assert last == written, f"{node.output} overwrites {other.output}"
                _check_in_place(node, other.output, cache)


def _check_in_place(node, name: str, cache: FeatureCache) -> None:
    assert name == node.residual or isinstance(node.op, Pointwise), f"{node.output} lies over {name}"
    assert name != node.inputs[0] or isinstance(node.op, Pointwise), f"{node.output} lies over its x"
    assert cache[node.output].shape == cache[name].shape and cache[node.output].data_ptr() == cache[name].data_ptr()


def _sources(graph: Graph, reader) -> set[str]:
    """The values that `reader` reads, through views as well."""
    producers, found, names = graph.producers(), set(), list(reader.inputs)
    while names:
        name = names.pop()
        found.add(name)
        if name in producers and producers[name].is_view:
            names += producers[name].inputs
    return found


def _overlap(a: torch.Tensor, b: torch.Tensor) -> bool:
    a.fill_(1)
    b.fill_(2)
    return bool((a == 2).any())


@given(st.lists(spans, max_size=20))
def test_spans_that_live_together_lie_apart(spans):
    offsets = assign_offsets(spans)
    assert all(offset >= 0 and offset % ALIGNMENT == 0 for offset in offsets)
    for (a, at), (b, bt) in itertools.combinations(zip(spans, offsets, strict=True), 2):
        together = a.first <= b.last and b.first <= a.last
        assert not together or at + a.size <= bt or bt + b.size <= at


def test_the_smallest_gap_that_holds_it():
    """Two gaps of 128 and 64 bytes are left when the fourth dies: the next span of 64 takes the second."""
    spans = [Span(512, 0, 9), Span(256, 0, 4), Span(192, 0, 9), Span(128, 0, 4), Span(100, 0, 9), Span(64, 5, 9)]
    assert assign_offsets(spans) == [0, 512, 768, 960, 1088, 960]
