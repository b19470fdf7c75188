"""Ctrl-C, once."""

from __future__ import annotations

import signal


def interrupt_once(*_: object) -> None:
    """Handler of Ctrl-C: interrupts; further ones are ignored while files are closed and the process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt
