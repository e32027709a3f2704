"""What `perdure doctor` looks at: whether this machine has what an agent needs. It looks only; it changes nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import psutil

from ..runtime import DEFAULTS, cache_folder, locate

_MIN_FREE_BYTES = 2_000_000_000
_MIN_MEMORY_BYTES = 4_000_000_000
_LIBRARIES = (
    "torch",
    "transformers",
    "open-clip-torch",
    "faiss-cpu",
    "sqlalchemy",
    "networkx",
    "opencv-python",
    "llguidance",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    fine: bool
    advice: str = ""


def examine() -> list[Finding]:
    """Look at everything; never raises."""
    return (
        [check() for check in _CHECKS] + [_library(name) for name in _LIBRARIES] + [_weights(name) for name in DEFAULTS]
    )


def _python() -> Finding:
    fine = sys.version_info >= (3, 11)
    return Finding("Python", platform.python_version(), fine, "install Python 3.11 or newer")


def _sqlite() -> Finding:
    with closing(sqlite3.connect(":memory:")) as connection:
        options = {row[0] for row in connection.execute("PRAGMA compile_options")}
    fine = "ENABLE_FTS5" in options
    found = f"{sqlite3.sqlite_version}, full-text search {'yes' if fine else 'no'}"
    return Finding("SQLite", found, fine, "use a Python whose SQLite has FTS5")


def _cpu() -> Finding:
    import torch

    return Finding("CPU", f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}", True)


def _compiler() -> Finding:
    found = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    advice = "install a C++ compiler, for example Debian's g++: without it planning is slower, nothing else"
    return Finding("C++ compiler", found or "none", found is not None, advice)


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    return Finding(
        "memory", f"{free / 1e9:.1f} GB available", free >= _MIN_MEMORY_BYTES, "4 GB are needed: close something"
    )


def _disk() -> Finding:
    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    return Finding("disk for weights", f"{free / 1e9:.1f} GB free at {folder}", free >= _MIN_FREE_BYTES, "free 2 GB")


def _library(name: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name), True)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", False, f"pip install {name}")


def _weights(name: str) -> Finding:
    path = locate(name)
    return Finding(name, str(path or "not here"), path is not None, f"perdure weights fetch {name}")


_CHECKS: tuple[Callable[[], Finding], ...] = (_python, _sqlite, _cpu, _compiler, _memory, _disk)
