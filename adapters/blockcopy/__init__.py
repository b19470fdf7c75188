"""BlockCopy: video through any network, recomputing only the blocks that a policy, trained online, thinks worth it."""

from blockcopy.policies import names
from blockcopy.video import BlockCopy, FrameStats

__all__ = ["BlockCopy", "FrameStats", "names"]
