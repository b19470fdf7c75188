"""The native kernels of csrc/, float32 on the CPU: one file per op makes structs of the C interface."""
