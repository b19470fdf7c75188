"""Every op in Triton: the fallback without CUDA C++, and the default on GPUs of other vendors than NVIDIA.

One file per op, or gradient that has kernels, prepares a launch, as in the cuda backend; the kernels lie with what runs
them, and what kernels share in maps.py (where elements are), values.py (how they are stored), epilogue.py and math.py.

Tests run the same kernels on CPU tensors where the environment variable TRITON_INTERPRET is 1, Triton's own
interpreter: set before Triton is imported.
"""
