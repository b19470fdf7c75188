"""The report: the same facts as text, JSON and HTML, and the graph that the page draws."""

from __future__ import annotations

import json
from html import escape
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import sparseblock
from sparseblock.plan.report_html import COLOURS, lanes


class Network(nn.Module):
    """Two branches that meet, a node without a rule, and a name that HTML would take for markup."""

    def __init__(self):
        super().__init__()
        self.add_module("a<b&c", nn.Conv2d(3, 4, 3, padding=1))
        self.skip = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = torch.relu(getattr(self, "a<b&c")(x))
        y = torch.relu(self.skip(x))
        return torch.cumsum(self.skip(torch.relu(y)) + x, dim=3)


@pytest.fixture(scope="module")
def report():
    torch.manual_seed(0)
    return sparseblock.compile(Network().eval(), torch.zeros(1, 3, 32, 32), block_size=16).report()


class Page(HTMLParser):
    """What the page says: the text of each cell, and the circles and lines of the picture."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.fills, self.paths, self.open, self.depth = [], [], 0, [], None
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "circle":
            self.fills.append(values["fill"])
        self.paths += tag == "path"
        if tag == "td" and values.get("class") != "graph":
            self.cells.append("")
            self.depth = len(self.open)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        if tag == "circle":
            self.fills.append(dict(attributes)["fill"])
        self.paths += tag == "path"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "td":
            self.depth = None

    def handle_data(self, data):
        if self.depth is not None:
            self.cells[-1] += data


def test_json_holds_what_the_report_holds(report):
    plain = json.loads(report.to_json())
    assert plain["macs"] == report.macs and plain["coverage"] == report.coverage
    assert [node["op"] for node in plain["nodes"]] == [node.op for node in report.nodes]
    assert [tuple(node["inputs"]) for node in plain["nodes"]] == [node.inputs for node in report.nodes]


def test_the_page_has_every_cell_of_the_table(report):
    cells = Page(report.to_html()).cells
    assert cells == [cell for row in report.rows() for cell in row]
    assert any("a<b&c" in cell for cell in cells)


def test_the_picture_has_a_circle_per_node_in_the_colour_of_its_placement(report):
    page = Page(report.to_html())
    assert page.fills[: len(COLOURS)] == list(COLOURS.values())  # the key
    assert page.fills[len(COLOURS) :] == [COLOURS[node.placement] for node in report.nodes]
    assert page.paths == sum(len(node.inputs) for node in report.nodes)
    assert {node.placement for node in report.nodes} == {"sparse", "dense"}


def test_inputs_name_the_nodes_that_are_read(report):
    by_op = {node.op: node for node in report.nodes}
    total = by_op["conv2d+add"]
    first = next(place for place, node in enumerate(report.nodes) if node.op == "conv2d+relu")
    assert first in total.inputs and len(total.inputs) == 2
    assert report.nodes[0].inputs == ()  # the copy of the frame


def test_edges_in_one_lane_never_overlap(report):
    chosen = lanes(report.nodes)
    assert chosen, "the skip is an edge over several rows"
    for edge, lane in chosen.items():
        for other, other_lane in chosen.items():
            if edge != other and lane == other_lane:
                assert edge[1] <= other[0] or other[1] <= edge[0]


class InParts(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        score = self.head(self.backbone(x)).sort(1).values
        return score[score > 0]


def test_the_page_of_a_plan_in_parts_has_those_of_its_parts():
    network = InParts().eval()
    report = sparseblock.compile(network, torch.rand(1, 3, 32, 32), 16, parts=["backbone", "head"]).report()
    text = report.to_html()
    page = Page(text)
    nodes = [node for part in report.parts.values() for node in part.nodes]
    assert page.cells == [cell for part in report.parts.values() for row in part.rows() for cell in row]
    assert page.fills[len(COLOURS) :] == [COLOURS[node.placement] for node in nodes]
    headings = [text.index(f"<h2>{name}</h2>") for name in ("backbone", "head")]
    assert headings == sorted(headings) and text.count("<svg") == len(COLOURS) + 2
    assert all(text.index(escape(line)) < headings[0] for line in report.totals())
