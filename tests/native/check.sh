#!/usr/bin/env bash
# The kernels without Python: the self-test under the address and undefined-behaviour sanitizers on this processor, and for aarch64
# under an emulator. Needs cmake and g++, and for aarch64 Debian's cross compiler and qemu-user, which it installs when run as root.
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! { command -v aarch64-linux-gnu-g++ && command -v qemu-aarch64; } > /dev/null; then
  apt-get update -qq && apt-get install -y -qq g++-aarch64-linux-gnu qemu-user > /dev/null
fi

check() { # NAME CASES [CMAKE ARGUMENTS]
  cmake -S . -B "build/$1" -DSPARSEBLOCK_SELFTEST=ON -DSPARSEBLOCK_SELFTEST_CASES="$2" "${@:3}" > /dev/null
  cmake --build "build/$1" --parallel 2
  ctest --test-dir "build/$1" --output-on-failure
}
check sanitized 100 -DSPARSEBLOCK_SANITIZE=address,undefined
check aarch64 100 -DCMAKE_TOOLCHAIN_FILE=tests/native/aarch64.cmake
