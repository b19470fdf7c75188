"""The planner: an unmodified network becomes a plan that runs block-sparse.

capture (torch.export) -> lower (ATen to a small IR, `ir.py`) -> passes -> placement -> planes -> steps -> `Plan`.
"""

from __future__ import annotations

from sparseblock.plan.calibrate import Calibration, Trial, calibrate
from sparseblock.plan.choice import Candidate, Choice
from sparseblock.plan.compile import compile
from sparseblock.plan.device_plan import DevicePlan
from sparseblock.plan.dynamo import CompiledState, active
from sparseblock.plan.exact import ExactPlan
from sparseblock.plan.explain import explain
from sparseblock.plan.gates import Gate, GatedLayer
from sparseblock.plan.nested import NestedPlan, NestedReport, NestedState
from sparseblock.plan.plan import Plan
from sparseblock.plan.recording import Recording, can_record
from sparseblock.plan.report import NodeReport, Report
from sparseblock.plan.residual_gates import ResidualGate
from sparseblock.plan.resize import ResizablePlan, ResizableState
from sparseblock.plan.verify import verify
from sparseblock.plan.whole import WholeChoice

__all__ = [
    "Calibration",
    "Candidate",
    "Choice",
    "CompiledState",
    "DevicePlan",
    "ExactPlan",
    "Gate",
    "GatedLayer",
    "NestedPlan",
    "NestedReport",
    "NestedState",
    "NodeReport",
    "Plan",
    "Recording",
    "Report",
    "ResidualGate",
    "ResizablePlan",
    "ResizableState",
    "Trial",
    "WholeChoice",
    "active",
    "calibrate",
    "can_record",
    "compile",
    "explain",
    "verify",
]
