"""policy_logits of the triton backend: the cuda backend's, which is operators of torch."""

from __future__ import annotations

from sparseblock.backends.cuda.policy_logits import policy_logits

__all__ = ["policy_logits"]
