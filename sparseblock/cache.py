"""FeatureCache: what a plan remembers of each stream from one frame to the next."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from sparseblock import backends
from sparseblock.backends.cpu import native
from sparseblock.errors import SparseBlockError
from sparseblock.grid import LIMIT


@dataclass(frozen=True)
class Rims:
    """What lasts of a map in shared memory: of each block the rows and columns that are seen from its neighbours.

    Attributes:
        rows, cols: the names of the planes that keep them.
        halo: pixels that readers see above, below, to the left and to the right of a block that they write.
    """

    rows: str
    cols: str
    halo: tuple[int, int, int, int]


@dataclass(frozen=True)
class PlaneSpec:
    """One plane of a cache.

    Attributes:
        name: unique in its cache.
        c, h, w: channels, and the valid frame in pixels.
        border: pixels of zeros around the frame, for readers with a padding.
        parent: name of an earlier plane of the same h and w whose channels [offset, offset + c) this plane is, so that
            an operator writes straight into a concatenation; memory and border are the parent's.
        offset: first channel in the parent.
        external: no memory of its own; `FeatureCache.bind` says before a run where it lies.
        shared: byte, of one stream, at which it lies in the memory that values share in turn; None: memory of its own.
            What it holds is lost before the frame is over, but for `rims`. Without these its border is 0.
        dtype: float32, bfloat16 or float16; a slice has its parent's.
        pitch: channels that a pixel has room for, at least c; None: c. Of a plane without parent.
        scratch: byte at which a piece of it lies in the scratch of the thread that runs a chain; there is nothing of it
            in the cache. None: it is not such a value.
        rims: of a plane in shared memory, what lasts of it.
    """

    name: str
    c: int
    h: int
    w: int
    border: int = 0
    parent: str | None = None
    offset: int = 0
    external: bool = False
    shared: int | None = None
    dtype: torch.dtype = torch.float32
    pitch: int | None = None
    scratch: int | None = None
    rims: Rims | None = None

    @property
    def size(self) -> int:
        """Bytes of the map and its border, a stream, wherever they lie."""
        return self.dtype.itemsize * (self.pitch or self.c) * (self.h + 2 * self.border) * (self.w + 2 * self.border)

    @property
    def nbytes(self) -> int:
        """Bytes of its own memory, a stream."""
        elsewhere = self.external or self.parent is not None or self.shared is not None or self.scratch is not None
        return 0 if elsewhere else self.size


def shared_bytes(specs: Sequence[PlaneSpec]) -> int:
    """Bytes, a stream, of the memory that values share in turn."""
    return max((spec.shared + spec.size for spec in specs if spec.shared is not None), default=0)


def total_bytes(specs: Sequence[PlaneSpec]) -> int:
    """Bytes, a stream, of all planes."""
    return shared_bytes(specs) + sum(spec.nbytes for spec in specs)


class FeatureCache:
    """The cached planes of `streams` videos, and how many frames each has seen.

    A plane is [n, c, h, w] in shape and channels-last in memory, where n is the stream: the frame plus a zero border
    that nothing writes, and room behind a pixel's channels where its spec has a pitch. A plan writes active blocks
    only, so everything else is still what an earlier frame left there. Planes that say so lie in one memory that they
    share in turn, and last no longer than the frame.

    Attributes:
        specs: what the cache was made of, in order; a plane's number in `planes` is its place here.
        streams: number of videos.
        device: where the planes are.
        frames: frames seen by each stream since its start or reset.
        planes: the table of planes for the native `sb_run`, one per spec.
        gates: what the gates of a plan remember, by layer.
        open: bool [n, rows, cols] by layer: the tiles that a gate left open in the last frame.

    Example:
        >>> state = FeatureCache([PlaneSpec("stem", c=64, h=360, w=640, border=1)], streams=2)
        >>> state["stem"].shape, state.frames
        (torch.Size([2, 64, 360, 640]), [0, 0])
    """

    state_keys: ClassVar = ("frames", "planes", "gates")  # of `state_dict`

    @torch.inference_mode(False)  # whose tensors count no writes
    def __init__(self, specs: Sequence[PlaneSpec], streams: int = 1, device: torch.device | str = "cpu") -> None:
        """Allocates every plane, zeroed, on `device`.

        Raises:
            SparseBlockError: `streams` is no positive integer, a name appears twice, a size is not positive, a slice
                does not fit into its parent, there is no such device, or memory is short.
        """
        check_streams("FeatureCache", streams)
        self.specs = tuple(specs)
        self.streams = streams
        self.device = backends.device_that_is_there("FeatureCache", device)
        self.planes = (native.Plane * len(self.specs))()
        self._storage: dict[str, torch.Tensor] = {}  # [n, h + 2*border, w + 2*border, pitch or c], if own
        self._views: dict[str, torch.Tensor] = {}  # [n, c, h, w]
        self.gates: dict[str, dict[str, Any]] = {}
        self.open: dict[str, torch.Tensor] = {}
        self._numbers = {spec.name: number for number, spec in enumerate(self.specs)}
        borders: dict[str, int] = {}
        needed = streams * total_bytes(self.specs)
        self._shared = self._zeros(streams * shared_bytes(self.specs), needed)
        for number, spec in enumerate(self.specs):
            self._check(spec, number)
            if spec.external:
                continue
            if spec.scratch is not None:  # sizes only
                sizes = torch.empty(streams, spec.c, spec.h, spec.w, device="meta", dtype=spec.dtype)
                self.planes[number] = native.plane_of(sizes)
                continue
            if spec.parent is None:
                b = borders[spec.name] = spec.border
                if spec.shared is None:
                    memory = self._zeros(streams * spec.size, needed)
                else:
                    memory = self._shared[streams * spec.shared : streams * (spec.shared + spec.size)]
                plane = memory.view(spec.dtype).view(streams, spec.h + 2 * b, spec.w + 2 * b, spec.pitch or spec.c)
                if spec.shared is None:
                    self._storage[spec.name] = plane
                view = plane[:, b : b + spec.h, b : b + spec.w, : spec.c].permute(0, 3, 1, 2)
            else:
                borders[spec.name] = borders[spec.parent]
                view = self._views[spec.parent][:, spec.offset : spec.offset + spec.c]
            self._views[spec.name] = view
            self.planes[number] = native.plane_of(view, borders[spec.name])
        self._handed: dict[str, int] = {}  # planes that the last frame gave to the caller: torch's counts of writes
        self._called: Mapping[str, str] = {}  # what errors call them
        self.frames = [0] * streams  # after the planes, which say how much memory is short

    def _zeros(self, size: int, needed: int) -> torch.Tensor:
        """`size` bytes of zeros."""
        try:
            return torch.zeros(size, dtype=torch.uint8, device=self.device)
        except (RuntimeError, MemoryError):
            raise SparseBlockError(
                f"FeatureCache: planes for {self.streams} streams take {needed} bytes, more memory than there is on "
                f"{self.device}; use fewer streams or smaller frames"
            ) from None

    def _check(self, spec: PlaneSpec, number: int) -> None:
        if self._numbers[spec.name] != number:
            raise SparseBlockError(f"FeatureCache: two planes are called {spec.name!r}; names must be unique")
        if min(spec.c, spec.h, spec.w) < 1 or spec.border < 0 or (spec.pitch or spec.c) < spec.c:
            raise SparseBlockError(
                f"FeatureCache: plane {spec.name!r} has c={spec.c} h={spec.h} w={spec.w} border={spec.border} "
                f"pitch={spec.pitch}; c, h and w must be positive, border not negative and pitch not less than c"
            )
        bordered = spec.border and spec.rims is None
        if spec.shared is not None and (bordered or spec.parent is not None or spec.external or spec.shared % 64):
            raise SparseBlockError(
                f"FeatureCache: plane {spec.name!r} has shared={spec.shared} border={spec.border} "
                f"parent={spec.parent!r} external={spec.external}; a plane in shared memory lies at a multiple of 64 "
                "bytes and has no parent, a border only with rims, and is not external"
            )
        if spec.parent is None:
            return
        parent = self._views.get(spec.parent)
        if parent is None:
            raise SparseBlockError(
                f"FeatureCache: plane {spec.name!r} is a slice of {spec.parent!r}, which is no earlier plane"
            )
        _, c, h, w = parent.shape
        if (spec.h, spec.w) != (h, w) or spec.offset < 0 or spec.offset + spec.c > c:
            raise SparseBlockError(
                f"FeatureCache: plane {spec.name!r} is channels {spec.offset}..{spec.offset + spec.c} at "
                f"{spec.h}x{spec.w}, which do not lie in its parent {spec.parent!r} [c={c} h={h} w={w}]"
            )
        if spec.dtype != parent.dtype:
            raise SparseBlockError(
                f"FeatureCache: plane {spec.name!r} is {spec.dtype} in its parent {spec.parent!r} of {parent.dtype}; "
                "both must have one dtype"
            )

    def __getitem__(self, name: str) -> torch.Tensor:
        """The valid frame of plane `name`, [n, c, h, w], as a view: it changes with the stream's next frame. One that
        lies in shared memory holds what was written there last, be it another value.

        Raises:
            SparseBlockError: there is no such plane, or it is external.
        """
        if name not in self._views:
            first = ", ".join(map(repr, list(self._views)[:3])) + (", ..." if len(self._views) > 3 else "")
            raise SparseBlockError(f"FeatureCache: there is no plane {name!r}; there are {first or 'none'}")
        return self._views[name]

    def bind(self, name: str, tensor: torch.Tensor) -> None:
        """Lets the external plane `name` lie at `tensor` [n, c, h, w], any strides, for the next run.

        The caller keeps `tensor` alive until the run is over.

        Raises:
            SparseBlockError: there is no such external plane, or it has another shape, dtype or device.
        """
        number = self._numbers.get(name)
        if number is None or not self.specs[number].external:
            external = ", ".join(repr(spec.name) for spec in self.specs if spec.external)
            raise SparseBlockError(f"FeatureCache.bind: {name!r} is no external plane; there are {external or 'none'}")
        spec = self.specs[number]
        wanted = f"{spec.dtype} {[self.streams, spec.c, spec.h, spec.w]} on {self.device}"
        given = type(tensor).__name__
        if isinstance(tensor, torch.Tensor):
            given = f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"
        if given != wanted:
            raise SparseBlockError(f"FeatureCache.bind: {name!r} is given {given}; it must be {wanted}")
        self.planes[number] = native.plane_of(tensor)

    def hand_out(self, names: Mapping[str, str]) -> None:
        """The caller gets views of these planes, which errors call so, until the next frame."""
        self._handed = {name: self._views[name]._version for name in names}
        self._called = names

    def overwritten(self) -> list[str]:
        """Those of the planes handed out that something has written to since."""
        return [name for name, version in self._handed.items() if self._views[name]._version != version]

    def check_kept(self, what: str) -> None:
        """Raises SparseBlockError where a plane handed out was written to: it is no frame's result any more."""
        for name in self.overwritten():
            raise SparseBlockError(
                f"{what}: the output of {self._called[name]} was changed in place after the last frame and would be "
                "kept; change a clone of what a plan returns, and begin anew with state.reset()"
            )

    @property
    def nbytes(self) -> int:
        """Bytes of all planes, borders included."""
        return self._shared.nbytes + sum(plane.nbytes for plane in self._storage.values())

    def reset(self, stream: int | None = None) -> None:
        """Forgets what one stream, or where `stream` is None every stream, has seen; its next frame is its first.

        What gates remember is of all streams, and forgotten with all of them; a gate is told which streams begin anew.

        Raises:
            SparseBlockError: there is no such stream.
        """
        check_stream("FeatureCache.reset", stream, self.streams)
        chosen = slice(None) if stream is None else slice(stream, stream + 1)
        whole = self._handed.keys() - self.overwritten() if stream is not None else ()
        for plane in self._storage.values():
            plane[chosen].zero_()
        self._handed |= {name: self._views[name]._version for name in whole}
        self.frames[chosen] = [0] * len(self.frames[chosen])
        if stream is None:
            self.gates.clear()
            self._handed.clear()

    def state_dict(self) -> dict[str, Any]:
        """What the streams have left behind, as plain data and tensors of its own: torch.save takes it.

        Holds every plane that lasts from frame to frame, [n, c, h, w], what gates remember, and the frames seen.

        Raises:
            SparseBlockError: something has written to what the last frame returned.
        """
        self.check_kept("FeatureCache")
        return {
            "frames": list(self.frames),
            "planes": {name: self._views[name].clone() for name in self._storage},
            "gates": copy.deepcopy(self.gates),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the state of another cache of the same plan and number of streams was, `state_dict` of which
        this is. Nothing changes where it does not fit. Which maps last, whole or as rims, goes with a plan's device and
        algorithms: to load it in another process, pickle the plan too, or give `compile` its `algorithms`.

        Raises:
            SparseBlockError: it is no such dict, of another number of streams, or its planes are not those of this one.
        """
        check_state("FeatureCache", state, self.state_keys, self.streams)
        planes = state["planes"]
        if planes.keys() != self._storage.keys():
            odd = sorted(planes.keys() ^ self._storage.keys())[0]
            raise SparseBlockError(
                f"FeatureCache: plane {odd!r} is in only one of the two states; load what a state of the same plan gave"
                " (which maps last, whole or as rims, goes with a plan's device and algorithms)"
            )
        for name, plane in planes.items():
            check_tensor(f"FeatureCache: plane {name!r}", plane, self._views[name])
        for name, plane in planes.items():
            self._views[name].copy_(plane)
        self.gates = copy.deepcopy(state["gates"])
        self._handed.clear()
        self.frames[:] = state["frames"]

    def fork(self) -> FeatureCache:
        """A state of its own that goes on from here, such as to look ahead."""
        fork = self._empty()
        fork.load_state_dict(self.state_dict())
        return fork

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureCache:
        return self.fork()

    def __getstate__(self) -> None:
        raise SparseBlockError(
            f"{type(self).__name__}: it belongs to its plan, and is neither pickled nor copied in part; fork() gives a "
            "state of its own, and state_dict() what torch.save takes"
        )

    def to(self, device: torch.device | str) -> FeatureCache:
        """This state, where it is on `device` already.

        Raises:
            SparseBlockError: it is on another, where its plan does not run.
        """
        check_device("FeatureCache", device, self.device)
        return self

    def _empty(self) -> FeatureCache:
        return FeatureCache(self.specs, self.streams, self.device)


def check_device(what: str, device: torch.device | str, own: torch.device) -> None:
    """Raises SparseBlockError unless `device` is `own`, where a plan runs and its states are."""
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError):
        raise SparseBlockError(f"{what}: to {device!r}, which is no device of torch's") from None
    if wanted.type == "meta":
        raise SparseBlockError(f"{what}: to meta, where tensors have no values and nothing runs; it stays on {own}")
    if wanted.type != own.type or wanted.index not in (None, own.index):
        raise SparseBlockError(
            f"{what}: to {wanted}, but its plan runs on {own}; compile the model for {wanted}, and let a state of "
            "that plan begin with a whole frame"
        )


def check_streams(what: str, streams: Any) -> None:
    """Raises SparseBlockError unless it is a positive integer."""
    if isinstance(streams, bool) or not isinstance(streams, int) or not 1 <= streams < LIMIT:
        raise SparseBlockError(f"{what}: streams is {streams!r}; it must be a positive integer below 2**31")


def check_stream(what: str, stream: Any, streams: int) -> None:
    """Raises SparseBlockError unless it is one of `streams` streams, or None for all."""
    if stream is not None and (isinstance(stream, bool) or not isinstance(stream, int) or not 0 <= stream < streams):
        raise SparseBlockError(f"{what}: stream is {stream!r}; it must be None or in 0..{streams - 1}")


def check_tensor(what: str, tensor: Any, own: torch.Tensor) -> None:
    """Raises SparseBlockError unless `tensor` is a dense one of the shape and dtype of `own`, with values if it has."""
    is_tensor = isinstance(tensor, torch.Tensor)
    is_dense = is_tensor and tensor.layout == torch.strided and tensor.is_meta <= own.is_meta
    if not is_dense or (tensor.shape, tensor.dtype) != (own.shape, own.dtype):
        given = f"{tensor.dtype} {list(tensor.shape)}" if is_tensor else type(tensor).__name__
        if is_tensor and not is_dense:
            given += f" on {tensor.device}, {tensor.layout}"
        raise SparseBlockError(
            f"{what} is {given} but {own.dtype} {list(own.shape)} here; load what a state of the same plan gave"
        )


def check_state(what: str, state: Any, keys: Sequence[str], streams: int) -> None:
    """`state` is a dict with exactly `keys`, and its "frames" are of `streams` streams."""
    if not isinstance(state, dict) or state.keys() != set(keys):
        given = f"a dict of {', '.join(map(repr, state))}" if isinstance(state, dict) else type(state).__name__
        raise SparseBlockError(f"{what}: state is {given}; it must be what state_dict gave, with {', '.join(keys)}")
    for key in state.keys() & {"planes", "gates", "caches", "pending"}:
        if not isinstance(state[key], dict):
            raise SparseBlockError(f"{what}: {key} is {type(state[key]).__name__}; it must be what state_dict gave")
    frames = state["frames"]
    if not isinstance(frames, list) or not all(type(seen) is int and seen >= 0 for seen in frames):
        raise SparseBlockError(
            f"{what}: frames is {frames!r}; it must be the number of frames that each stream has seen"
        )
    if len(frames) != streams:
        raise SparseBlockError(
            f"{what}: state is of {len(frames)} streams, but this one has {streams}; "
            f"make it with new_state({len(frames)})"
        )
