"""The oracle: each op as PyTorch's dense one, then a choice per pixel. Short and slow; computes in float64 too.

Its bits are PyTorch's, which may depend on the number of threads; every other backend's must not.
"""
