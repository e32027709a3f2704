"""The working memory of a decoder: keys and values of the tokens it has read, and which tokens those were.

Knows how the tensors lie, how to forget a tail, and how to be written to disk and read back. It is also a
`transformers` `Cache`, so any Hugging Face model runs on it. Does not know what the tokens mean.

A snapshot is one safetensors file: keys and values of every layer, the token ids, and in its metadata a version, the
identity of the model, the sizes and a sha256 over all tensors. It is written to a temporary name, synced and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from ..errors import BadInput, DamagedError, StorageError, VersionError
from ..kernels.decode_attention import RaggedKV

SNAPSHOT_VERSION = 1


class KVLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer: room for ``capacity`` positions, filled from the front.

    Attributes:
        keys, values: [1, kv_heads, capacity, head_dim] once anything was stored.
        length: positions that are filled.
    """

    is_sliding = False
    is_croppable = True

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity, self.length = capacity, 0

    def allocate(self, kv_heads: int, dim: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        """Reserve the room; pages are touched only as they fill."""
        self.keys = torch.empty(1, kv_heads, self.capacity, dim, dtype=dtype, device=device)
        self.values = torch.empty_like(self.keys)
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        if key_states.shape[0] != 1 or key_states.shape != value_states.shape:
            raise BadInput(f"expected keys and values of one sequence, alike in shape, got {tuple(key_states.shape)}")
        self.allocate(key_states.shape[1], key_states.shape[3], key_states.dtype, key_states.device)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append [1, kv_heads, n, head_dim]; returns views of all positions so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        if end > self.capacity:
            raise BadInput(
                f"expected at most {self.capacity} tokens in the cache, got {end}; give a larger context_tokens"
            )
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return self.capacity

    def reset(self) -> None:
        self.length = 0

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last ``-tokens_to_remove`` positions (transformers passes a negative number)."""
        if tokens_to_remove > 0 or -tokens_to_remove > self.length:
            raise BadInput(f"expected to forget 0 to {self.length} positions, given as a negative number")
        self.length += tokens_to_remove


class KVCache(Cache):  # type: ignore[misc]
    """Keys and values of one conversation.

    Args:
        layers: number of layers.
        capacity: positions there is room for.
        model_sha256: identity of the model whose arithmetic filled it.

    Attributes:
        tokens: ids whose keys and values it holds, oldest first.
        past: ids before those, of which only the compacted ``kept`` is left.
        kept: per layer the compacted keys and values that every token sees, kv_heads segments; None: nothing is.
        base: rotary position of ``tokens[0]``.
    """

    def __init__(self, layers: int, capacity: int, model_sha256: str) -> None:
        super().__init__(layers=[KVLayer(capacity) for _ in range(layers)])
        self.capacity, self.model_sha256 = capacity, model_sha256
        self.tokens: list[int] = []
        self.past: list[int] = []
        self.kept: list[RaggedKV] | None = None
        self.base = 0

    def allocate(self, kv_heads: int, dim: int, dtype: torch.dtype) -> None:
        """Reserve room in all layers."""
        for layer in self.layers:
            layer.allocate(kv_heads, dim, dtype)

    @property
    def length(self) -> int:
        """Positions that are filled."""
        return int(self.layers[0].length)

    @property
    def slots(self) -> float:
        """Keys that a head holds, on the average over heads and layers."""
        kept = 0.0 if self.kept is None else sum(x.k_ND.shape[0] / x.segments for x in self.kept) / len(self.kept)
        return self.length + kept

    def compacted(self, rows: int, kept: list[RaggedKV]) -> None:
        """Let ``kept`` stand for all that was kept before and for the oldest ``rows`` of the tokens.

        Raises:
            BadInput: fewer rows are there, or the layers or heads are not those of this cache.
        """
        heads = self.layers[0].keys.shape[1]
        if not 0 <= rows <= self.length or len(kept) != len(self.layers) or any(x.segments != heads for x in kept):
            raise BadInput(
                f"expected 0 to {self.length} rows and {len(self.layers)} layers of {heads} heads, got {rows} rows and "
                f"{[x.segments for x in kept]}"
            )
        for layer in self.layers:
            layer.keys[:, :, : layer.length - rows] = layer.keys[:, :, rows : layer.length].clone()
            layer.values[:, :, : layer.length - rows] = layer.values[:, :, rows : layer.length].clone()
            layer.length -= rows
        self.kept, self.base = kept, self.base + rows
        self.past += self.tokens[:rows]
        del self.tokens[:rows]

    def advance(self, tokens: Sequence[int]) -> None:
        """Note that the decoder has written keys and values of these tokens at the end."""
        self.tokens.extend(tokens)
        for layer in self.layers:
            layer.length = len(self.tokens)

    def truncate(self, length: int) -> None:
        """Forget everything from position ``length`` on."""
        if not 0 <= length <= self.length:
            raise BadInput(f"expected a length from 0 to {self.length}, got {length}")
        del self.tokens[length:]
        for layer in self.layers:
            layer.length = length

    def shared_prefix(self, tokens: Sequence[int]) -> int:
        """How many of these tokens, from the first, it already holds."""
        same = 0
        for ours, theirs in zip(self.tokens, tokens, strict=False):
            if ours != theirs:
                break
            same += 1
        return same

    def save(self, path: Path) -> None:
        """Write a snapshot; atomic and durable.

        Raises:
            StorageError: the disk refused; an older snapshot at that path is untouched.
        """
        tensors = {"tokens": torch.tensor(self.tokens, dtype=torch.int64)}
        for i, layer in enumerate(self.layers):
            if layer.is_initialized:
                tensors[f"k.{i}"] = layer.keys[:, :, : self.length].contiguous()
                tensors[f"v.{i}"] = layer.values[:, :, : self.length].contiguous()
        about = {"version": SNAPSHOT_VERSION, "model": self.model_sha256, "sha256": _checksum(tensors)}
        temporary = path.with_name(f".{path.name}.tmp")  # always the same: a kill leaves one file at most
        try:
            save_file(tensors, temporary, metadata={"perdure-kv": json.dumps(about)})
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        except (OSError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            raise StorageError(f"expected to write {path}, got {error}; free some space or check the folder") from error

    def load(self, path: Path) -> None:
        """Replace the content by a snapshot.

        Raises:
            BadInput: the snapshot is of another model or longer than this cache; what was held is untouched.
            VersionError: a newer Perdure wrote it.
            DamagedError: the file is torn or altered.
            StorageError: it cannot be read.
        """
        about, tensors = _read_snapshot(path)
        if about["version"] > SNAPSHOT_VERSION:
            raise VersionError(f"expected a snapshot of version {SNAPSHOT_VERSION}, {path} has {about['version']}")
        if about["model"] != self.model_sha256:
            raise BadInput(
                f"expected a snapshot of model {self.model_sha256[:12]}, {path} is of {str(about['model'])[:12]}; "
                "read the text again with this model"
            )
        if about["sha256"] != _checksum(tensors):
            raise DamagedError(f"expected {path} to have the content that it was written with; delete it")
        tokens = tensors["tokens"].tolist()
        if len(tokens) > self.capacity:
            raise BadInput(
                f"expected at most {self.capacity} tokens, {path} has {len(tokens)}; give more context_tokens"
            )
        for i, layer in enumerate(self.layers):
            if f"k.{i}" not in tensors:
                continue
            k, v = tensors[f"k.{i}"], tensors[f"v.{i}"]
            if not layer.is_initialized:
                layer.lazy_initialization(k, v)
            layer.keys[:, :, : len(tokens)] = k
            layer.values[:, :, : len(tokens)] = v
        self.tokens = []
        self.advance(tokens)


def _read_snapshot(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
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


def _checksum(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
