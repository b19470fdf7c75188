"""policy_inputs of the triton backend: the cuda backend's, which is operators of torch."""

from __future__ import annotations

from sparseblock.backends.cuda.policy_inputs import policy_inputs

__all__ = ["policy_inputs"]
