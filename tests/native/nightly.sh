#!/usr/bin/env bash
# The tests of the CPU's kernels and ops, and of rims, which plans alone have, in Python, over a library built with the address and undefined-behaviour sanitizers: too slow
# for every commit, 10 to 20 minutes on two cores beside 5 to 20 for building.
# Takes the Python that has the package and its tests installed, .venv/bin/python where $PYTHON does not say another, and pytest's arguments.
set -euo pipefail
cd "$(dirname "$0")/../.."
tests=$PWD/tests python=${PYTHON:-$PWD/.venv/bin/python} package=$PWD/build/nightly/package

cmake -S . -B build/nightly -DSPARSEBLOCK_SANITIZE=address,undefined > /dev/null
cmake --build build/nightly --target sparseblock --parallel 2
rm -rf "$package" && mkdir -p "$package/sparseblock/lib"
cp -r sparseblock adapters/blockcopy adapters/skipconv adapters/tasknets "$package"
cp build/nightly/libsparseblock.so "$package/sparseblock/lib"

# Neither Python nor torch are built with the sanitizers: their runtime has to come first, and what they never free is no leak of ours.
cd "$package" # Python puts the current folder first
export PYTHONPATH=$package ASAN_OPTIONS=detect_leaks=0
export LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so) $(g++ -print-file-name=libstdc++.so)"
used=$("$python" -c "from sparseblock.backends.cpu import native; print(native.lib()._name)")
[ "$used" = "$package/sparseblock/lib/libsparseblock.so" ] || { echo "the tests would run over $used" >&2; exit 1; }
"$python" -m pytest -q -n 2 "$tests/kernels" "$tests/ops" "$tests/plan/test_rims.py" -k "not cuda and not triton" "$@"
