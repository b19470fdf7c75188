"""The native kernels of csrc/ on the CPU: one file per op makes structs of the C interface."""
