"""The oracle: each op as PyTorch's dense one, then a choice per pixel. Short and slow; computes in float64 too."""
