"""Planes: borders, slices, who keeps its own and who shares."""

from __future__ import annotations

import torch
from hypothesis import given
from networks import Call, cases, miniature
from torch import nn

from sparseblock.cache import FeatureCache, PlaneSpec
from sparseblock.grid import BlockGrid
from sparseblock.plan.compile import trace
from sparseblock.plan.ir import Graph
from sparseblock.plan.passes import run_passes
from sparseblock.plan.placement import place
from sparseblock.plan.planes import assign_planes


def planes(network: nn.Module, frame: torch.Tensor, block: int) -> tuple[Graph, dict[str, PlaneSpec]]:
    graph, _ = trace(network, frame)
    grid = BlockGrid(*frame.shape[2:], block)
    with torch.no_grad():
        graph = run_passes(graph, grid)
    return graph, {spec.name: spec for spec in assign_planes(graph, grid, place(graph, grid))}


def by_origin(graph: Graph, specs: dict[str, PlaneSpec]) -> dict[str, PlaneSpec]:
    return {node.origin: specs[node.output] for node in graph.nodes if node.output in specs and node.origin}


FRAME = torch.randn(1, 3, 32, 48)


def test_border_is_the_widest_padding_of_a_convolution():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), Call("", lambda x: x.sigmoid()), nn.Conv2d(4, 4, 1)).eval()
    graph, specs = planes(network, FRAME, 8)
    assert all(spec.border == 0 for spec in specs.values())

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=4, dilation=4)
            self.b, self.pool = nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(3, 1, 1)

        def forward(self, x):
            x = self.stem(x)
            return self.a(x) + self.b(x), self.pool(self.b(x))

    graph, specs = planes(Two().eval(), FRAME, 8)
    assert by_origin(graph, specs)["stem"].border == 4
    assert by_origin(graph, specs)["b"].border == 0, "a pool does not read the border"


def test_transient_values_share_and_others_do_not():
    conv = lambda c, k, r: nn.Conv2d(c, k, r, padding=r // 2)  # noqa: E731
    network = nn.Sequential(conv(3, 8, 1), conv(8, 6, 1), conv(6, 8, 1), conv(8, 4, 3), conv(4, 5, 1)).eval()
    graph, specs = planes(network, FRAME, 8)
    own = by_origin(graph, specs)
    assert own["0"].parent == own["2"].parent or own["2"].parent is None
    assert own["0"].parent is not None and own["1"].parent not in (None, own["0"].parent)
    assert own["2"].parent is None and own["2"].border == 1, "a 3x3 reads it with a halo"
    assert own["3"].parent is not None
    assert own["4"].parent is None, "an output is the user's"


def test_dense_readers_keep_a_plane():
    graph, specs = planes(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sigmoid(), nn.Conv2d(8, 8, 1)).eval(), FRAME, 8)
    assert by_origin(graph, specs)["0"].parent is None


def test_values_of_torch_alone_have_no_plane():
    _, specs = planes(nn.Sequential(nn.Sigmoid(), nn.Tanh()).eval(), FRAME, 8)
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
    """A node's output has no memory in common with its x, nor with any value that a later node reads."""
    graph, specs = planes(case.network, case.frames(), case.block)
    cache = FeatureCache(tuple(specs.values()))
    positions = {node.output: i for i, node in enumerate(graph.nodes)}
    moving = [node for node in graph.nodes if not node.is_view and node.output in specs]
    for node in moving:
        written = positions[node.output]
        for other in moving:
            read_later = any(
                other.output in _sources(graph, reader) and positions[reader.output] >= written for reader in moving
            )
            if positions[other.output] < written and read_later:
                assert not _overlap(cache[node.output], cache[other.output]), f"{node.output} overwrites {other.output}"


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
