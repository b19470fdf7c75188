"""Winograd's minimal filtering F(m, 3) in float64, from its points alone, and how much it may enlarge rounding errors.

Toom-Cook (see Barabasz et al., "Error analysis and improving the accuracy of Winograd convolution", 2018): with points
p_1 .. p_n and infinity, n = m + 1, the m outputs of a filter g of 3 taps on m + 2 inputs d are A^T ((G g) * (B^T d)).
"""

from __future__ import annotations

import functools

import torch

# The kernels' points: (0, 1, -1) for m = 2; for m = 4 those of least rounding error that were tried.
POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))}


@functools.cache
def transforms(m: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A^T [m, m + 2], G [m + 2, 3] and B^T [m + 2, m + 2] of F(m, 3), float64."""
    points = torch.tensor(POINTS[m], dtype=torch.float64)
    others = [torch.cat([points[:i], points[i + 1 :]]) for i in range(len(points))]
    at, g, bt = (
        torch.zeros(rows, cols, dtype=torch.float64) for rows, cols in ((m, m + 2), (m + 2, 3), (m + 2, m + 2))
    )
    for i, point in enumerate(points):
        at[:, i] = point ** torch.arange(m)
        g[i] = point ** torch.arange(3) / (point - others[i]).prod()
        bt[i, : m + 1] = _polynomial(others[i])
    at[m - 1, m + 1] = g[m + 1, 2] = 1.0
    bt[m + 1] = _polynomial(points)
    return at, g, bt


def amplification(m: int) -> float:
    """Size of the products in F(m x m, 3 x 3) relative to those of the direct sum, as they reach an output.

    The largest over the outputs of sum_f A_if^2 |G_f|^2 |B_f|^2, row norms of each axis: the root of the expected
    square where inputs, weights and roundings are random in sign. Both axes have the same root, which makes a square.
    """
    at, g, bt = transforms(m)
    return float((at.square() @ (g.square().sum(1) * bt.square().sum(1))).max())


def _polynomial(roots: torch.Tensor) -> torch.Tensor:
    """Coefficients of prod (x - root), the constant first."""
    coefficients = torch.ones(1, dtype=torch.float64)
    for root in roots:
        shifted = torch.cat([torch.zeros(1, dtype=torch.float64), coefficients])
        shifted[:-1] -= root * coefficients
        coefficients = shifted
    return coefficients
