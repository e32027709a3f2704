"""A KV cache on disk: one safetensors file, versioned, checksummed, written whole or not at all.

Knows the tensors and their names, and which files are to be refused. Does not know what a cache does with them.

| tensor | version | content |
| --- | --- | --- |
| `tokens` | 1 | int64, ids whose keys and values follow |
| `k.I`, `v.I` | 1 | [1, kv_heads, tokens, head_dim] of layer I |
| `past` | 2 | int64, ids of which only the kept keys are left |
| `base` | 2 | int64 [1], rotary position of the first token |
| `kept.I.FIELD` | 2 | the fields of layer I's `RaggedKV` that are there |
| `kept.I.group` | 2 | int64 [1], tokens that share scales |

The metadata hold the version, the identity of the model and a sha256 over names, dtypes, shapes and bytes of the
tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import BadInput, DamagedError, StorageError, VersionError
from ..kernels.decode_attention import RaggedKV

VERSION = 2


@dataclass(frozen=True)
class Snapshot:
    """What a file holds.

    Attributes:
        tokens, past: ids; see `KVCache`.
        base: rotary position of ``tokens[0]``.
        layers: keys and values [1, kv_heads, tokens, head_dim]; None for a layer that was never filled.
        kept: per layer, or None.
    """

    tokens: list[int]
    past: list[int]
    base: int
    layers: list[tuple[Tensor, Tensor] | None]
    kept: Sequence[RaggedKV] | None


def write_snapshot(path: Path, model_sha256: str, snapshot: Snapshot) -> None:
    """Write to a temporary name, sync and rename.

    Raises:
        StorageError: the disk refused; an older snapshot at that path is untouched.
    """
    tensors = {name: torch.tensor(getattr(snapshot, name), dtype=torch.int64) for name in ("tokens", "past")}
    tensors["base"] = torch.tensor([snapshot.base])
    for i, layer in enumerate(snapshot.layers):
        if layer is not None:
            tensors[f"k.{i}"], tensors[f"v.{i}"] = (x.contiguous().cpu() for x in layer)
    for i, kept in enumerate(snapshot.kept or ()):
        parts = {f.name: getattr(kept, f.name) for f in fields(kept)}
        tensors |= {f"kept.{i}.{name}": x.cpu() for name, x in parts.items() if isinstance(x, Tensor)}
        tensors[f"kept.{i}.group"] = torch.tensor([kept.group])
    about = {"version": VERSION, "model": model_sha256, "sha256": _checksum(tensors)}
    temporary = path.with_name(f".{path.name}.tmp")  # always the same: a kill leaves one file at most
    try:
        save_file(tensors, temporary, metadata={"perdure-kv": json.dumps(about)})
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"expected to write {path}, got {error}; free some space or check the folder") from error


def read_snapshot(path: Path, model_sha256: str, layers: int) -> Snapshot:
    """Read and check a file of this version or an older one.

    Raises:
        BadInput: it is of another model.
        VersionError: a newer Perdure wrote it.
        DamagedError: it is torn or altered.
        StorageError: it cannot be read.
    """
    about, tensors = _open(path)
    if about["version"] > VERSION:
        raise VersionError(
            f"expected a snapshot of version {VERSION} or older, {path} has {about['version']}; "
            "update Perdure, or delete the file"
        )
    if about["model"] != model_sha256:
        raise BadInput(
            f"expected a snapshot of model {model_sha256[:12]}, {path} is of {str(about['model'])[:12]}; "
            "read the text again with this model"
        )
    if about["sha256"] != _checksum(tensors):
        raise DamagedError(f"expected {path} to have the content that it was written with; delete it")
    kept = [_kept(i, tensors) for i in range(layers)] if "kept.0.k_ND" in tensors else None
    return Snapshot(
        tokens=tensors["tokens"].tolist(),
        past=tensors["past"].tolist() if "past" in tensors else [],
        base=int(tensors["base"]) if "base" in tensors else 0,
        layers=[(tensors[f"k.{i}"], tensors[f"v.{i}"]) if f"k.{i}" in tensors else None for i in range(layers)],
        kept=kept,
    )


def _kept(layer: int, tensors: Mapping[str, Tensor]) -> RaggedKV:
    prefix = f"kept.{layer}."
    parts: dict[str, Any] = {name[len(prefix) :]: x for name, x in tensors.items() if name.startswith(prefix)}
    return RaggedKV(**{**parts, "group": int(parts["group"])})


def _open(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as opened:
            about = json.loads((opened.metadata() or {}).get("perdure-kv", "null"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, ValueError) as error:
        raise DamagedError(f"expected a whole snapshot, {path} is torn ({error}); delete it") from error
    except OSError as error:
        raise StorageError(f"expected to read {path}, got {error}; check the path") from error
    if not isinstance(about, dict) or "tokens" not in tensors:
        raise DamagedError(f"expected a snapshot of a KV cache, {path} is another file; check the path")
    return about, tensors


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
