"""A long cache made short: attention matching, where its queries come from, what each head gets, rivals, measures.

The page README.md has the derivation and what was measured.
"""

from __future__ import annotations

from .budgets import HeadBudgets, stored_budgets
from .matching import Plan, compact
from .queries import (
    REPEAT,
    PeakLog,
    QueryLog,
    joined,
    log_for,
    observed_read,
    repeat_prefill,
    self_study,
    surprised_read,
    weights_of,
)

__all__ = [
    "REPEAT",
    "HeadBudgets",
    "PeakLog",
    "Plan",
    "QueryLog",
    "compact",
    "joined",
    "log_for",
    "observed_read",
    "repeat_prefill",
    "self_study",
    "stored_budgets",
    "surprised_read",
    "weights_of",
]
