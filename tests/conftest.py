"""What every test shares: how hypothesis runs."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# `ci` is deterministic and bounded; `search` looks for what it has not yet seen: HYPOTHESIS_PROFILE=search.
_COMMON = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, max_examples=100, **_COMMON)
settings.register_profile("search", max_examples=1000, print_blob=True, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
