"""What a user would run instead: the same network, dense, by the engines that there are for a CPU."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

OF_FILES = ("ONNX Runtime", "OpenVINO")
ENGINES = ("PyTorch", "torch.compile", *OF_FILES)
IN_BFLOAT16 = ("PyTorch", "torch.compile", "OpenVINO")  # ONNX Runtime has no bfloat16 for these processors
ERRORS = {torch.float32: 1e-2, torch.bfloat16: 0.1}  # of the largest output: anything else is another network


def engines(model: nn.Module, frame: torch.Tensor) -> dict[str, Callable[[], object]]:
    """The dense network on `frame` [1, 3, h, w] by each engine, by name, and by those of `IN_BFLOAT16` as
    "bfloat16 NAME"; each with torch.get_num_threads() threads.

    All of them are ready: compiled, optimised, and their answer has been compared with PyTorch's in float32.
    """
    with torch.inference_mode():
        expected = model(frame)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(model, frame, path)
        found = {name: (torch.float32, engine(name, model, frame, path)) for name in ENGINES}
        found |= {
            f"bfloat16 {name}": (torch.bfloat16, engine(name, model, frame, path, torch.bfloat16))
            for name in IN_BFLOAT16
        }
    for name, (dtype, run) in found.items():
        error = (torch.as_tensor(run()) - expected).abs().max() / expected.abs().max()
        if not error < ERRORS[dtype]:
            raise RuntimeError(f"{name} computes something else: {error:.2g} of the largest output")
    return {name: run for name, (_, run) in found.items()}


def export(model: nn.Module, frame: torch.Tensor, path: Path) -> None:
    """Write the network to `path`, for the engines that read ONNX."""
    torch.onnx.export(model, (frame,), path, dynamo=True, verbose=False, external_data=False)


def engine(
    name: str, model: nn.Module | None, frame: torch.Tensor, path: Path, dtype: torch.dtype = torch.float32
) -> Callable[[], object]:
    """The network on `frame`, float32, by one engine: of the module, or, those of `OF_FILES`, of its export at `path`.

    Args:
        dtype: what it computes in: torch.float32, or for those of `IN_BFLOAT16` torch.bfloat16.
    """
    if dtype != torch.float32 and name not in OF_FILES:
        model, frame = copy.deepcopy(model).to(dtype), frame.to(dtype)
    match name:
        case "PyTorch":
            return _torch(model, frame)
        case "torch.compile":
            return _torch_compile(model, frame)
        case "ONNX Runtime":
            return _onnxruntime(path, frame)
        case "OpenVINO":
            return _openvino(path, frame, dtype)
    raise ValueError(f"no engine {name!r}; there are: {', '.join(ENGINES)}")


def _torch(model: nn.Module, frame: torch.Tensor) -> Callable[[], torch.Tensor]:
    fast, x = model.to(memory_format=torch.channels_last), frame.contiguous(memory_format=torch.channels_last)
    return lambda: fast(x)


def _torch_compile(model: nn.Module, frame: torch.Tensor) -> Callable[[], torch.Tensor]:
    import torch._inductor.config as inductor

    inductor.freezing = True
    fast, x = torch.compile(model), frame.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        fast(x)

    def run() -> torch.Tensor:
        with torch.no_grad():
            return fast(x)

    return run


def _onnxruntime(path: Path, frame: torch.Tensor) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: frame.numpy()}
    return lambda: session.run(None, given)[0]


def _openvino(path: Path, frame: torch.Tensor, dtype: torch.dtype) -> Callable[[], object]:
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32" if dtype == torch.float32 else "bf16",
    }
    network = openvino.Core().compile_model(openvino.Core().read_model(path), "CPU", settings)
    request, given = network.create_infer_request(), [frame.numpy()]
    return lambda: request.infer(given)[0]


def show(record: dict) -> None:
    """Print the engines' times, and those of plans as fractions of the fastest one's: float32 among those in float32,
    bfloat16 among all.
    """
    machine = record["machine"]
    title = f"engines: {machine['processor']}, {machine['cores']} cores, torch {machine['torch']}, {record['date']}"
    densities = [key for key in record["rows"][0]["seconds"] if key[0].isdigit()]
    out = Table(title=title)
    for column in ("", "dtype", *(f"{name}, ms" for name in ENGINES), *(f"at {density}" for density in densities)):
        out.add_column(column, justify="left" if not column else "right", no_wrap=not column)
    for row in record["rows"]:
        seconds = row["seconds"]
        for prefix, dtype in (("", "float32"), ("bfloat16 ", "bfloat16")):
            times = [f"{seconds[prefix + name] * 1e3:.0f}" if prefix + name in seconds else "" for name in ENGINES]
            fastest = min(seconds[p + name] for p in ("", prefix) for name in ENGINES if p + name in seconds)
            fractions = [f"{seconds[prefix + density] / fastest:.3f}" for density in densities]
            out.add_row(row["row"] if dtype == "float32" else "", dtype, *times, *fractions)
    Console(width=max(Console().width, 150)).print(out)
