"""A stream on the disk: one checksummed file with all its numbers, and the record that it reflects.

Knows how the file is written and when it is refused. Does not know what the numbers are for. Written to a temporary
name, synced and renamed: a kill leaves the old file or the new one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ...errors import DamagedError, StorageError
from ...kernels.decode_attention import RaggedKV
from ..directory import write_atomically
from .spans import Span
from .stream import Stream

__all__ = ["Saved", "restore", "store"]

VERSION = 1


class Saved(NamedTuple):
    """What a snapshot says of itself."""

    seq: int
    about: dict[str, Any]
    """What the writer added: model, policy, where in the journal it stands."""


def store(path: Path, stream: Stream, seq: int, about: dict[str, Any]) -> None:
    """Write a stream that reflects the record ``seq``.

    Raises:
        StorageError: the disk refused; an older snapshot is untouched.
    """
    tensors = stream.tensors()
    # Spans and rings may share memory with the cache; safetensors wants each tensor on its own.
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    head = {"version": VERSION, "seq": seq, "counts": stream.counts(), "about": about}
    head["sha256"] = _checksum(tensors, head)
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, save(tensors, {"perdure-working": json.dumps(head)}))
    except OSError as error:
        raise StorageError(f"expected to write {path}, got {error}; free some space or check the folder") from error


def restore(path: Path, stream: Stream, expected: dict[str, Any]) -> Saved:
    """Fill a fresh stream from a snapshot.

    Args:
        stream: made with the same weights and policy; must not have read anything. Useless after an error.
        expected: what ``about`` must hold at least.

    Raises:
        DamagedError: the file is torn, altered, of another version, or was made for another model or policy.
        StorageError: it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            head = json.loads((opened.metadata() or {}).get("perdure-working", "null"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, ValueError) as error:
        raise DamagedError(f"expected a whole snapshot, {path} is torn ({error}); delete it") from error
    except OSError as error:
        raise StorageError(f"expected to read {path}, got {error}; check the path") from error
    if not isinstance(head, dict) or head.get("version") != VERSION:
        raise DamagedError(f"expected a working memory of version {VERSION}, {path} is something else; delete it")
    checksum = head.pop("sha256", None)
    if checksum != _checksum(tensors, head):
        raise DamagedError(f"expected {path} to have the content that it was written with; delete it")
    about = head["about"]
    if wrong := [name for name, value in expected.items() if about.get(name) != value]:
        raise DamagedError(f"{path} was made with another {', '.join(wrong)}; the story is read again")
    with torch.inference_mode():
        _fill(stream, tensors, head["counts"])
    return Saved(int(head["seq"]), about)


def _fill(stream: Stream, tensors: dict[str, Tensor], counts: dict[str, Any]) -> None:
    spans = []
    for i, (tokens, *told) in enumerate(counts["spans"]):
        k, v, cu, bias, pos = (tensors[f"span.{i}.{name}"] for name in ("k", "v", "cu", "bias", "pos"))
        spans.append(Span(tokens, RaggedKV(k, v, cu, bias_N=bias, pos_N=pos), tuple(told)))
    stream.replace(spans, counts["base"])
    cache = stream.cache
    for i, layer in enumerate(cache.layers):
        rows = tensors[f"k.{i}"].shape[2]
        layer.keys[:, :, :rows] = tensors[f"k.{i}"]
        layer.values[:, :, :rows] = tensors[f"v.{i}"]
    cache.advance(counts["tokens"])
    stream.told, stream.read_tokens = [bool(told) for told in counts["told"]], counts["read"]
    for name, ring in (("recent", stream.recent), ("asked", stream.asked)):
        ring.vectors_LKND, ring.count = tensors[name], counts[name]


def _checksum(tensors: dict[str, Tensor], head: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
