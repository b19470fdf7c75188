"""stack of the cpu backend: csrc/cpu/maps.cpp."""

from __future__ import annotations

from ctypes import byref

from sparseblock.backends.cpu import native


def stack(maps, out) -> None:
    planes = (native.Plane * len(maps))(*map(native.plane_of, maps))
    native.lib().sb_stack_run(planes, len(maps), byref(native.plane_of(out)))
