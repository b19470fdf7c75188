"""Skip-Convolutions: a gate for every convolution decides, from what changed since the last frame, where it runs anew.

Habibian, Abati, Cohen and Bejnordi, "Skip-Convolutions for efficient video processing", CVPR 2021.
"""

from skipconv.convert import SkipNet, SkipStats, convert
from skipconv.gated import Gated
from skipconv.gates import Gumbel, InputNorm, OutputNorm

__all__ = ["Gated", "Gumbel", "InputNorm", "OutputNorm", "SkipNet", "SkipStats", "convert"]
