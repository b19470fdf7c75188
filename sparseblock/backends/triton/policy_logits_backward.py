"""policy_logits_backward of the triton backend: the cuda backend's, which is operators of torch."""

from __future__ import annotations

from sparseblock.backends.cuda.policy_logits_backward import policy_logits_backward

__all__ = ["policy_logits_backward"]
