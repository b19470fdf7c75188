"""The planner: an unmodified network becomes a plan that runs block-sparse.

capture (torch.export) -> lower (ATen to a small IR, `ir.py`) -> passes -> placement -> planes -> steps -> `Plan`.
"""

from __future__ import annotations

from sparseblock.plan.compile import compile
from sparseblock.plan.plan import Plan
from sparseblock.plan.report import NodeReport, Report

__all__ = ["NodeReport", "Plan", "Report", "compile"]
