"""The project's own C++ for x86 CPUs: built once into a cache folder, loaded with ctypes, never required.

Knows how to find a compiler and which instructions the processor has. Does not know what the functions compute. Every
operation in this room has a plain torch path; `library` returns None where the C++ cannot be had, and says why in the
log once.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

log = logging.getLogger("perdure")

_HERE = Path(__file__).parent
_SOURCES = ("quantized_matmul/native.cpp", "decoder_layers/native.cpp", "ternary_matmul/native.cpp")
_HEADERS = ("quantized_matmul/native.h", "attention/native.h")
_FLAGS = ("-O3", "-std=c++20", "-shared", "-fPIC", "-fopenmp", "-fno-math-errno", "-ffp-contract=fast")
_CPU = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma", "-mf16c")
_COMPILERS = ("g++", "c++", "clang++")


class _State:
    """The one library of this process, and whether it is switched off (tests compare both paths)."""

    lib: ctypes.CDLL | None = None
    tried: bool = False
    off: bool = False


def supported() -> bool:
    """True if this processor has what the C++ is compiled for: AVX-512 with byte dot products (VNNI)."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and bool(torch.cpu._is_vnni_supported())


def enable(build_dir: Path) -> bool:
    """Build the library into ``build_dir`` if it is not there yet, and load it. Returns whether it is in use.

    A missing compiler, processor feature or source is not an error: the torch path is used and the log says why.
    """
    if _State.lib is None and not _State.tried:
        _State.tried = True
        reason = _try_load(build_dir)
        if reason:
            log.warning("kernels: torch operators are used, because %s", reason)
    return library() is not None


def library() -> ctypes.CDLL | None:
    """The loaded library, or None when the torch path is to be used."""
    return None if _State.off else _State.lib


class torch_only:  # noqa: N801  (a context manager that reads like a word)
    """``with torch_only(): ...`` uses the torch path inside, for tests and benchmarks."""

    def __enter__(self) -> None:
        self._before, _State.off = _State.off, True

    def __exit__(self, *exc: object) -> None:
        _State.off = self._before


def _try_load(build_dir: Path) -> str:
    """Load, building if needed; the empty string, or the reason why not."""
    if not supported():
        return "this processor has no AVX-512 VNNI"
    missing = [name for name in (*_SOURCES, *_HEADERS) if not (_HERE / name).is_file()]
    if missing:
        return f"the source {missing[0]} is not installed"
    digest = hashlib.sha256(" ".join((*_FLAGS, *_CPU)).encode())
    for name in (*_SOURCES, *_HEADERS):
        digest.update((_HERE / name).read_bytes())
    target = build_dir / f"perdure-cpu-{digest.hexdigest()[:16]}.so"
    if not target.is_file():
        reason = _build(target)
        if reason:
            return reason
    try:
        _State.lib = ctypes.CDLL(str(target))
    except OSError as error:
        return f"{target} cannot be loaded ({error}); delete it and try again"
    return ""


def _build(target: Path) -> str:
    """Compile into a temporary file and rename it, so that a torn library is never loaded."""
    compiler = next((path for name in _COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        return f"no C++ compiler was found ({', '.join(_COMPILERS)})"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, suffix=".so")
    except OSError as error:
        return f"{target.parent} cannot be written ({error})"
    os.close(descriptor)
    # torch ships its own libgomp under the same soname: ours binds to the one already loaded, so there is one pool.
    command = [compiler, *_FLAGS, *_CPU, f"-I{_HERE}", *(str(_HERE / s) for s in _SOURCES), "-o", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        Path(name).unlink(missing_ok=True)
        return f"{compiler} failed: {done.stderr.strip()[:300]}"
    Path(name).replace(target)
    log.info("kernels: built %s", target)
    return ""
