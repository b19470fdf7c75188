"""Block-sparse convolutional networks on video: recompute only the blocks of a frame that matter, keep the rest."""

from __future__ import annotations

from sparseblock.blocks import BlockSet
from sparseblock.errors import SparseBlockError
from sparseblock.grid import BlockGrid

__version__ = "0.1.0"

__all__ = ["BlockGrid", "BlockSet", "SparseBlockError"]
