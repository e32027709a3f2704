"""What all encoders share: their identity, unit rows, and one thread per call.

This module knows bytes, rows and threads. It knows no model.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .protocols import Vectors


def identity(weights: Sequence[Path | bytes], **preprocessing: Any) -> str:
    """Content hash of an encoder: sha256 over the hashes of its weights, in order, and how its input is prepared.

    Args:
        weights: files, or hashes of weights that are not files.
        preprocessing: whatever changes a vector besides the weights; values must be JSON.
    """
    digest = hashlib.sha256()
    for item in weights:
        if isinstance(item, bytes):
            digest.update(item)
        else:
            with item.open("rb") as source:
                digest.update(hashlib.file_digest(source, "sha256").digest())
    digest.update(json.dumps(preprocessing, sort_keys=True).encode())
    return digest.hexdigest()


def unit(rows: NDArray[Any]) -> Vectors:
    """Rows scaled to unit length in float32; a row of zeros becomes the first axis, so that no vector is NaN."""
    out = np.array(rows, dtype=np.float32)
    length = np.linalg.norm(out, axis=-1)
    out[length == 0, 0] = 1.0
    return np.ascontiguousarray(out / np.where(length == 0, 1.0, length)[..., None], dtype=np.float32)


class _Depth(threading.local):
    value = 0


_depth = _Depth()
_lock = threading.Lock()
_inside = 0
_budget = 0


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the body's torch operations on the calling thread alone, without gradients. May be nested.

    One text or image is a handful of milliseconds in many small operations. With two threads on two busy cores they
    waited for each other at every one of them: 3 to 50 texts/s against 105 on one thread (idle: 195 against 120). It
    also makes the bytes of a vector independent of the machine's thread count. torch keeps the number per thread, so
    threads that already compute keep theirs; the number that new threads start with is put back at the end.
    """
    global _inside, _budget
    if _depth.value == 0:
        with _lock:
            if _inside == 0:
                _budget = torch.get_num_threads()
            _inside += 1
            torch.set_num_threads(1)
    _depth.value += 1
    try:
        with torch.inference_mode():
            yield
    finally:
        _depth.value -= 1
        if _depth.value == 0:
            with _lock:
                _inside -= 1
                torch.set_num_threads(_budget)
