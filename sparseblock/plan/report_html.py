"""A plan's report as one HTML page: the totals, and the graph drawn beside the table of its nodes.

Nodes stand below each other in the order in which they run, coloured by placement; an edge to the next row is a short
line, any other goes down a lane on the left, which it has to itself from its first row to its last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparseblock.plan.report import NodeReport, Report

COLOURS = {"sparse": "#2e7d32", "incremental": "#f9a825", "dense": "#c62828"}
_ROW, _LANE, _RADIUS = 22, 9, 5  # pixels

_STYLE = f"""
body {{ font: 13px/1.4 system-ui, sans-serif; margin: 2em; color: #222; }}
table {{ border-collapse: collapse; }}
td, th {{ height: {_ROW}px; padding: 0 .7em; white-space: nowrap; text-align: left; }}
tbody tr {{ height: {_ROW}px; }}
tbody tr:nth-child(even) {{ background: #f6f6f6; }}
td.graph {{ padding: 0; vertical-align: top; background: #fff; }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
.key {{ margin-right: 1.5em; }}
"""


def page(parts: Mapping[str, Report], totals: Sequence[str] = ()) -> str:
    """The whole page: `totals`, and each part's, with its graph and table, under its name where it has one.

    It needs no other file and no script.
    """
    keys = "".join(
        f'<span class="key"><svg width="12" height="12"><circle cx="6" cy="6" r="{_RADIUS}" fill="{colour}"/></svg> '
        f"{kind}</span>"
        for kind, colour in COLOURS.items()
    )
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Plan</title>',
            f"<style>{_STYLE}</style></head>\n<body>{_lines(totals)}<p>{keys}</p>",
            *(part for name, report in parts.items() for part in _part(name, report)),
            "</body></html>\n",
        ]
    )


def _part(name: str, report: Report) -> list[str]:
    head = "".join(
        f'<th class="number">{title}</th>' if is_number else f"<th>{title}</th>"
        for title, is_number in zip(report.columns, report.right, strict=True)
    )
    picture = f'<td class="graph" rowspan="{len(report.nodes)}">{_picture(report.nodes)}</td>'
    rows = []
    for number, cells in enumerate(report.rows()):
        line = "".join(
            f'<td class="number">{escape(cell)}</td>' if is_number else f"<td>{escape(cell)}</td>"
            for cell, is_number in zip(cells, report.right, strict=True)
        )
        rows.append(f"<tr>{picture if number == 0 else ''}{line}</tr>")
    return [
        *([f"<h2>{escape(name)}</h2>"] if name else []),
        _lines(report.totals()),
        f"<table><thead><tr><th></th>{head}</tr></thead>\n<tbody>",
        *rows,
        "</tbody></table>",
    ]


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def lanes(nodes: tuple[NodeReport, ...]) -> dict[tuple[int, int], int]:
    """The lane, 1 and up, of every edge (from row, to row) that is no step to the next row."""
    edges = sorted({(source, row) for row, node in enumerate(nodes) for source in node.inputs if source + 1 < row})
    ends: list[int] = []  # per lane: the row where its last edge so far ends
    chosen = {}
    for source, row in edges:
        lane = next((i for i, end in enumerate(ends) if end <= source), len(ends))
        ends[lane : lane + 1] = [row]
        chosen[source, row] = lane + 1
    return chosen


def _picture(nodes: tuple[NodeReport, ...]) -> str:
    chosen = lanes(nodes)
    centre = (max(chosen.values(), default=0) + 1) * _LANE
    shapes = []
    for row, node in enumerate(nodes):
        for source in node.inputs:
            y0, y1 = _middle(source), _middle(row)
            if source + 1 == row:
                path = f"M{centre} {y0}V{y1}"
            else:
                x = centre - chosen[source, row] * _LANE
                bend = _ROW // 2
                path = f"M{centre} {y0}Q{x} {y0} {x} {y0 + bend}V{y1 - bend}Q{x} {y1} {centre} {y1}"
            shapes.append(f'<path d="{path}" fill="none" stroke="#999"/>')
    for row, node in enumerate(nodes):
        title = escape(f"{node.name}: {node.op}, {node.placement}")
        shapes.append(
            f'<circle cx="{centre}" cy="{_middle(row)}" r="{_RADIUS}" fill="{COLOURS[node.placement]}">'
            f"<title>{title}</title></circle>"
        )
    width, height = centre + 2 * _LANE, len(nodes) * _ROW
    return f'<svg width="{width}" height="{height}">{"".join(shapes)}</svg>'


def _middle(row: int) -> int:
    return row * _ROW + _ROW // 2
