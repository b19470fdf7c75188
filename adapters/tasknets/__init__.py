"""Task networks for block-sparse video: networks, the frames that go in, the predictions and scores that come out."""

from tasknets.network import TaskNetwork
from tasknets.registry import load, names

__all__ = ["TaskNetwork", "load", "names"]
