"""Running models: weights, quantisation, KV cache, decoding. Knows nothing of agents.

Names are imported where they are used first (PEP 562): `import perdure.runtime` needs nothing but Python.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bench import bench_planner as bench_planner
    from .cache import KVCache as KVCache
    from .generate import Completion as Completion
    from .planner import Planner as Planner
    from .planner import load_planner as load_planner
    from .weights import DEFAULTS as DEFAULTS
    from .weights import cache_folder as cache_folder
    from .weights import catalogue as catalogue
    from .weights import fetch as fetch
    from .weights import locate as locate
    from .weights import require as require
    from .weights import verify as verify

_HOME = {
    "Completion": ".generate",
    "KVCache": ".cache",
    "Planner": ".planner",
    "bench_planner": ".bench",
    "fetch": ".weights",
    "load_planner": ".planner",
    "verify": ".weights",
    "DEFAULTS": ".weights",
    "cache_folder": ".weights",
    "catalogue": ".weights",
    "locate": ".weights",
    "require": ".weights",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
