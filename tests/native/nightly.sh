#!/usr/bin/env bash
# The tests of the CPU's kernels and ops, and of rims, which plans alone have, and those of CUDA's kernels over their stand-in, in Python, over libraries built with the address
# and undefined-behaviour sanitizers: too slow for every commit, 20 to 40 minutes on two cores beside 10 to 30 for building.
# Takes the Python that has the package and its tests installed, .venv/bin/python where $PYTHON does not say another, and pytest's arguments.
set -euo pipefail
cd "$(dirname "$0")/../.."
tests=$PWD/tests python=${PYTHON:-$PWD/.venv/bin/python} package=$PWD/build/nightly/package

cmake -S . -B build/nightly -DSPARSEBLOCK_SANITIZE=address,undefined -DSPARSEBLOCK_EMULATED=ON > /dev/null
cmake --build build/nightly --target sparseblock sparseblock_emulated --parallel 2
rm -rf "$package" && mkdir -p "$package/sparseblock/lib"
cp -r sparseblock csrc adapters/blockcopy adapters/skipconv adapters/tasknets "$package"
cp build/nightly/libsparseblock.so "$package/sparseblock/lib"

# Neither Python nor torch are built with the sanitizers: their runtime has to come first, and what they never free is no leak of ours.
export SPARSEBLOCK_CUDA_EMULATED=$PWD/build/nightly/csrc/cuda/libsparseblock_emulated.so
cd "$package" # Python puts the current folder first
export PYTHONPATH=$package ASAN_OPTIONS=detect_leaks=0
export LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so) $(g++ -print-file-name=libstdc++.so)"
used=$("$python" -c "from sparseblock.backends.cpu import native; print(native.lib()._name)")
[ "$used" = "$package/sparseblock/lib/libsparseblock.so" ] || { echo "the tests would run over $used" >&2; exit 1; }
"$python" -m pytest -q -n 2 "$tests/kernels" "$tests/ops" "$tests/plan/test_rims.py" -k "not cuda and not triton" "$@"
# What a kernel of CUDA does outside of its memory is an error of its launch, not the process's end: a test of it fails, and hypothesis makes the case small.
# That the sanitizer sees it is tested at every commit (tests/cuda/test_emulation.py).
ASAN_OPTIONS=$ASAN_OPTIONS:halt_on_error=0:suppress_equal_pcs=0 "$python" -m pytest -q -n 2 "$tests/ops" "$tests"/test_{blocks,dense}.py "$tests"/cuda/test_{map_sizes,{cuda,hopper}_conv2d,cuda_pool2d}.py \
  "$tests/plan/test_device_plan.py" "$tests/blockcopy/test_on_device.py" -k "cuda or hopper or map_sizes or by_a_kernel or tf32" "$@"
