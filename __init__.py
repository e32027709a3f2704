"""Perdure: agents that live for days.

Names are imported where they are used first (PEP 562), so that ``perdure.kernels`` needs torch alone and
``perdure.runtime`` needs torch, transformers and safetensors.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .agent import Agent as Agent
    from .agent import tool as tool
    from .memory import Memory as Memory

__version__ = "0.2.0"

_HOME = {"Agent": ".agent", "tool": ".agent", "Memory": ".memory"}
__all__ = ["Agent", "Memory", "__version__", "tool"]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
