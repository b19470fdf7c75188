"""The kernels of csrc/cuda on NVIDIA GPUs: one file per op makes structs of the C interface, launch.py runs the kernel.

Tests run the same kernels on CPU tensors where the environment variable SPARSEBLOCK_CUDA_EMULATED is the path of the
emulated library (csrc/cuda/emulated, CMake option SPARSEBLOCK_EMULATED).
"""
