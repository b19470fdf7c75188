"""layer_norm of the reference backend."""

from __future__ import annotations

import torch.nn.functional as F

from sparseblock.backends.reference.masked import activate, store, widened


def layer_norm(x, weight, bias, index, count, block, out, eps, activation, slope, bounds) -> None:
    x, weight, bias = widened(x, weight, bias)
    dense = F.layer_norm(x.movedim(1, -1), x.shape[1:2], weight, bias, eps).movedim(-1, 1)
    store(activate(dense, activation, slope, bounds), index, count, block, out)
