"""What every test shares: how hypothesis runs, and where real clips and weights are."""

from __future__ import annotations

import fcntl
import os
import subprocess
import zlib
from pathlib import Path

# Tests run in several processes at a time: a thread that waits must not spin. Read when OpenMP is loaded, before torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from hypothesis import HealthCheck, settings

from sparseblock.backends.cpu import native

# Where there is no GPU, Triton interprets its kernels. Read when Triton is imported, which no import above does.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# `ci` is deterministic and bounded; `search` looks for what it has not yet seen: HYPOTHESIS_PROFILE=search.
_COMMON = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, max_examples=100, **_COMMON)
settings.register_profile("search", max_examples=1000, print_blob=True, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# Made absolute before the tests leave this folder.
DATA = Path(os.environ["SPARSEBLOCK_DATA"]).absolute() if os.environ.get("SPARSEBLOCK_DATA") else None


@pytest.fixture(scope="session", autouse=True)
def outside_of_the_source_tree(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Interpreters that tests start put their folder first on the path: they are to find the installed package."""
    os.chdir(tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> None:
    """Weights and frames drawn without a generator are the same in every run, whatever ran before."""
    torch.manual_seed(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real weights and videos, which no checkout carries."""
    if not (DATA / "videos").is_dir() or not (DATA / "weights").is_dir():
        pytest.fail(f"SPARSEBLOCK_DATA is {DATA}; it must name a folder that holds videos/ and weights/")
    return DATA


@pytest.fixture(scope="session")
def emulated_library() -> Path:
    """The CUDA kernels for the host: the library that the environment says, or built as the sources are now."""
    if "SPARSEBLOCK_CUDA_EMULATED" in os.environ:
        return Path(os.environ["SPARSEBLOCK_CUDA_EMULATED"])
    source, build = Path(__file__).parents[1], Path(__file__).parents[1] / "build" / "emulated"
    build.mkdir(parents=True, exist_ok=True)
    with (build / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one build at a time
        make = ["cmake", "--build", build, "--target", "sparseblock_emulated", "--parallel", "2"]
        for command in (["cmake", "-S", source, "-B", build, "-DSPARSEBLOCK_EMULATED=ON"], make):
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    return build / "csrc" / "cuda" / "libsparseblock_emulated.so"


@pytest.fixture
def cuda_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where the cuda backend computes in this test: on a GPU, or, where there is none, emulated on the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    library = request.getfixturevalue("emulated_library")
    monkeypatch.setenv("SPARSEBLOCK_CUDA_EMULATED", str(library))
    return torch.device("cpu")


@pytest.fixture
def hopper(cuda_device: torch.device, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """As `cuda_device`, with what only Hopper has: such a GPU, or its emulation."""
    monkeypatch.setenv("SPARSEBLOCK_CUDA_EMULATED_ARCH", "sm_90a")
    return cuda_device


@pytest.fixture
def triton_device() -> torch.device:
    """Where the triton backend computes: on a GPU, or, where there is none, interpreted on the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def gpu() -> torch.device:
    """For what only a GPU can show."""
    return torch.device("cuda")


def _needs(item: pytest.Item) -> tuple[str, ...]:
    """Its fixtures, and the algorithm that it is for."""
    marks = [mark.args[0] for mark in item.iter_markers("algorithm")]
    return (*getattr(item, "fixturenames", ()), *marks)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that need what is not here are not part of the run, which says so. It begins with long ones: at its end,
    one process would run them and the others wait.
    """
    missing = {} if DATA is not None else {"data": "SPARSEBLOCK_DATA, which is not set"}
    missing |= {} if torch.cuda.is_available() else {"gpu": "a GPU, and there is none"}
    if torch.cuda.is_available() and torch.cuda.get_device_capability() != (9, 0):
        missing["hopper"] = "a GPU of compute capability 9.0, and this is another"
    for algorithm, what in (("bf16_pairs", "AVX512-BF16"), ("bf16_amx", "AMX-BF16")):
        if not native.lib().sb_conv2d_has(native.ALGORITHMS[algorithm]):
            missing[algorithm] = f"{what}, which this processor or SPARSEBLOCK_ISA lacks"
    for name, what in missing.items():
        need = [item for item in items if name in _needs(item)]
        if need:
            items[:] = [item for item in items if item not in need]
            config.hook.pytest_deselected(items=need)
            config.get_terminal_writer().line(f"\n{len(need)} tests need {what}: left out")
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
