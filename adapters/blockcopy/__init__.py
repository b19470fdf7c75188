"""BlockCopy: video through any network, recomputing only the blocks that a policy, trained online, thinks worth it."""

from __future__ import annotations

import importlib

__all__ = ["BlockCopy", "FrameStats", "names"]

# Loaded on first use: the command line catches Ctrl-C while torch is imported.
_LAZY = {"BlockCopy": "blockcopy.video", "FrameStats": "blockcopy.video", "names": "blockcopy.policies"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'blockcopy' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
