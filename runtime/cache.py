"""The working memory of a decoder: keys and values of the tokens it has read, and which tokens those were.

Knows how the tensors lie, what stands for tokens that are no longer there, how to forget a tail, and how to be written
to disk and read back (snapshot.py). It is also a `transformers` `Cache`, so any Hugging Face model runs on it. Does not
know what the tokens mean, or how keys are compacted.

    past (ids only)           tokens
    [ kept: compacted keys ]  [ tail: row 0 .. length - 1, rotary position base + row ][ room up to capacity ]

A layer with a window needs no compaction: rows that no later token can see are dropped, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from ..errors import BadInput
from ..kernels.decode_attention import RaggedKV, quantize_kv
from .room import Room, trim
from .snapshot import Snapshot, read_snapshot, write_snapshot

_TRIM_BYTES = 8 << 20
"""Rows of so many bytes make it worth to give back what the C library holds besides (trim: 40 ms on a busy machine)."""
FORMATS = ("plain", "int8", "int4")
"""How kept keys and values may be stored."""


@dataclass(frozen=True)
class KeptView:
    """What `KVLayer.update` returns where compacted keys stand before the tail: the attention of hf.py unpacks it.

    Attributes:
        kept: of this layer.
        tail: keys or values [1, kv_heads, n, head_dim].
    """

    kept: RaggedKV
    tail: Tensor

    @property
    def shape(self) -> NoReturn:
        """Every other attention asks for it first."""
        raise BadInput(
            "expected a model with attn_implementation='perdure' (runtime.hf.register_attention) on a cache with "
            "compacted keys, got another one"
        )


class KVLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer: room for ``capacity`` positions, filled from the front.

    Attributes:
        keys, values: [1, kv_heads, rows, head_dim] once anything was stored; rows = capacity on a CPU.
        length: positions that are filled.
        base: rotary position of the first.
        kept: compacted keys before them, or None.
        window: a token sees only that many positions, itself included; None for all.
    """

    is_sliding = False
    is_croppable = True

    def __init__(self, capacity: int, window: int | None = None) -> None:
        super().__init__()
        self.capacity, self.window, self.length, self.base = capacity, window, 0, 0
        self.kept: RaggedKV | None = None

    def allocate(self, kv_heads: int, dim: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        """Reserve the room; memory is touched only as it fills."""
        self._room = Room(kv_heads, self.capacity, dim, dtype, torch.device(device))
        self.keys, self.values = self._room.keys, self._room.values
        self.is_initialized = True

    def reserve(self, rows: int) -> None:
        """Make sure that so many rows, at most the capacity, can be written."""
        self._room.reserve(rows)
        self.keys, self.values = self._room.keys, self._room.values

    def drop(self, rows: int) -> None:
        """Forget the oldest rows, move the others to the front and give back the memory behind them."""
        for x in (self.keys, self.values):
            x[:, :, : self.length - rows] = x[:, :, rows : self.length].clone()
        self.length -= rows
        self.release()

    def release(self) -> None:
        """Give back the memory behind the filled rows."""
        self._room.release(self.length)
        self.keys, self.values = self._room.keys, self._room.values

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        if key_states.shape[0] != 1 or key_states.shape != value_states.shape:
            raise BadInput(f"expected keys and values of one sequence, alike in shape, got {tuple(key_states.shape)}")
        self.allocate(key_states.shape[1], key_states.shape[3], key_states.dtype, key_states.device)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Append [1, kv_heads, n, head_dim]; returns views of all positions so far, with kept keys as `KeptView`."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        if end > self.capacity:
            raise BadInput(
                f"expected at most {self.capacity} tokens in the cache, got {end}; give a larger context_tokens"
            )
        self.reserve(end)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        keys, values = self.keys[:, :, :end], self.values[:, :, :end]
        if self.kept is None or not self.kept.k_ND.shape[0]:
            return keys, values
        return KeptView(self.kept, keys), KeptView(self.kept, values)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, self.base

    def get_seq_length(self) -> int:
        return self.base + self.length

    def get_max_length(self) -> int:
        return self.base + self.capacity

    def reset(self) -> None:
        self.length, self.base, self.kept = 0, 0, None
        if self.is_initialized:
            self.release()

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last ``-tokens_to_remove`` positions (transformers passes a negative number)."""
        if tokens_to_remove > 0 or -tokens_to_remove > self.length:
            raise BadInput(f"expected to forget 0 to {self.length} positions, given as a negative number")
        self.length += tokens_to_remove


class KVCache(Cache):  # type: ignore[misc]
    """Keys and values of one conversation.

    Args:
        layers: number of layers.
        capacity: positions there is room for; on a CPU, room that is not used costs no memory.
        model_sha256: identity of the model whose arithmetic filled it.
        windows: of each layer, or of all; None: every token sees everything.
        positions: rotary positions that the model knows, or None for no end.

    Attributes:
        tokens: ids whose keys and values it holds, oldest first.
        past: ids before those, of which only the compacted ``kept`` is left.
    """

    def __init__(
        self,
        layers: int,
        capacity: int,
        model_sha256: str,
        windows: Sequence[int | None] | int | None = None,
        positions: int | None = None,
    ) -> None:
        each = [windows] * layers if windows is None or isinstance(windows, int) else list(windows)
        super().__init__(layers=[KVLayer(capacity, window) for window in each])
        self.capacity, self.model_sha256, self.positions = capacity, model_sha256, positions
        self.tokens: list[int] = []
        self.past: list[int] = []

    def allocate(self, kv_heads: int, dim: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        """Reserve room in all layers."""
        for layer in self.layers:
            layer.allocate(kv_heads, dim, dtype, device)

    @property
    def length(self) -> int:
        """Positions that are filled."""
        return int(self.layers[0].length)

    @property
    def room(self) -> int:
        """Tokens that can still be read."""
        known = self.capacity if self.positions is None else self.positions - self.base
        return min(self.capacity, known) - self.length

    @property
    def base(self) -> int:
        """Rotary position of ``tokens[0]``."""
        return int(self.layers[0].base)

    @base.setter
    def base(self, position: int) -> None:
        for layer in self.layers:
            layer.base = position

    @property
    def kept(self) -> tuple[RaggedKV, ...] | None:
        """Per layer the compacted keys and values that every token sees, kv_heads segments; None: nothing is.

        Plain ones are stored in the dtype of the tail. What is assigned replaces all that was kept.

        Raises:
            BadInput: layers, heads or head dimension are not those of this cache, keys are paged, or a layer with a
                window is given any.
        """
        kept = tuple(layer.kept for layer in self.layers)
        return None if any(x is None for x in kept) else kept

    @kept.setter
    def kept(self, kept: Sequence[RaggedKV] | None) -> None:
        if kept is not None:
            self._check(kept)
        empty = kept is None or not any(x.k_ND.shape[0] for x in kept)
        for i, layer in enumerate(self.layers):
            layer.kept = None if kept is None or empty else _stored(kept[i], layer.keys.dtype)

    @property
    def slots(self) -> float:
        """Keys that a head holds, on the average over heads and layers."""
        kept = self.kept
        return self.length + (0.0 if kept is None else sum(x.k_ND.shape[0] / x.segments for x in kept) / len(kept))

    @property
    def nbytes(self) -> int:
        """Bytes of all keys, values, biases and scales that are held."""
        filled = [x.keys[:, :, : x.length] for x in self.layers if x.is_initialized]
        tail = sum(2 * int(x.numel()) * int(x.element_size()) for x in filled)
        return tail + sum(x.nbytes for x in self.kept or ())

    @property
    def unseen(self) -> int:
        """Oldest rows that no later token will see, because all layers have a window (0 if one has none)."""
        windows = [layer.window for layer in self.layers]
        return 0 if None in windows else max(0, self.length + 1 - int(max(windows)))

    def compacted(self, rows: int, kept: Sequence[RaggedKV] | None, format: str = "plain") -> None:
        """Let ``kept`` stand for all that was kept before and for the oldest ``rows`` of the tokens.

        The rows are gone and their memory is given back, and with that of many rows (8 MiB) what the heap has to spare.
        In layers with a window nothing may stand for them: there,
        ``kept`` has no keys and the rows must be out of sight (`unseen`).

        Args:
            rows: oldest tokens of the tail, 0 to length.
            kept: per layer, kv_heads segments each, all keys in the past of every token; None for no keys at all.
            format: ``int8`` or ``int4`` rounds plain keys and values (`quantize_kv`); ``plain`` takes them as given.

        Raises:
            BadInput: fewer rows are there, or ``kept`` does not fit (see `kept`). Nothing has changed then.
        """
        if not 0 <= rows <= self.length or format not in FORMATS:
            raise BadInput(f"expected 0 to {self.length} rows and one of {FORMATS}, got {rows} rows and {format!r}")
        windows = [layer.window for layer in self.layers if layer.window is not None]
        if windows and rows > max(0, self.length + 1 - max(windows)):
            raise BadInput(
                f"expected at most {max(0, self.length + 1 - max(windows))} rows, which no token in a window of "
                f"{max(windows)} sees any more, got {rows}"
            )
        if kept is not None:
            self._check(kept)
            kept = [x if format == "plain" or x.format != "plain" else quantize_kv(x, format) for x in kept]
        self.kept = kept
        before = self.nbytes
        for layer in self.layers if rows else ():
            layer.drop(rows)
        if before - self.nbytes >= _TRIM_BYTES:
            trim()
        self.base += rows
        self.past += self.tokens[:rows]
        del self.tokens[:rows]

    def _check(self, kept: Sequence[RaggedKV]) -> None:
        shape = self.layers[0].keys.shape if self.layers[0].is_initialized else (1, 0, 0, 0)
        fit = [x.segments == shape[1] and x.dim == shape[3] and x.block_table_SP is None for x in kept]
        if len(kept) != len(self.layers) or not all(fit):
            raise BadInput(
                f"expected {len(self.layers)} layers of {shape[1]} heads and {shape[3]} channels, not paged, got "
                f"{[(x.segments, x.dim) for x in kept]}"
            )
        if any(layer.window is not None and x.k_ND.shape[0] for layer, x in zip(self.layers, kept, strict=True)):
            raise BadInput("expected no kept keys in layers with a window; what is out of sight is dropped exactly")

    def reset(self) -> None:
        """Forget everything and give back the memory."""
        before = self.nbytes
        super().reset()
        if before >= _TRIM_BYTES:
            trim()
        self.tokens, self.past = [], []

    def reserve(self, tokens: int) -> None:
        """Make sure that so many more tokens, at most `room`, can be written."""
        for layer in self.layers:
            layer.reserve(self.length + tokens)

    def advance(self, tokens: Sequence[int]) -> None:
        """Note that the decoder has written keys and values of these tokens at the end."""
        self.tokens.extend(tokens)
        for layer in self.layers:
            layer.length = len(self.tokens)

    def truncate(self, length: int) -> None:
        """Forget every token from row ``length`` on; what is kept stays."""
        if not 0 <= length <= self.length:
            raise BadInput(f"expected a length from 0 to {self.length}, got {length}")
        del self.tokens[length:]
        for layer in self.layers:
            layer.length = length

    def shared_prefix(self, tokens: Sequence[int]) -> int:
        """How many of these tokens, from the first, it has read: those of ``past``, then those of ``tokens``."""
        same, past = 0, len(self.past)
        for same, token in enumerate(tokens):
            ours = self.past[same] if same < past else self.tokens[same - past] if same - past < self.length else None
            if ours != token:
                return same
        return len(tokens)

    def save(self, path: Path) -> None:
        """Write a snapshot; atomic and durable.

        Raises:
            StorageError: the disk refused; an older snapshot at that path is untouched.
        """
        n = self.length
        layers = [(x.keys[:, :, :n], x.values[:, :, :n]) if x.is_initialized else None for x in self.layers]
        write_snapshot(path, self.model_sha256, Snapshot(self.tokens, self.past, self.base, layers, self.kept))

    def load(self, path: Path) -> None:
        """Replace the content by a snapshot.

        Raises:
            BadInput: the snapshot is of another model or longer than this cache; what was held is untouched.
            VersionError: a newer Perdure wrote it.
            DamagedError: the file is torn or altered.
            StorageError: it cannot be read.
        """
        found = read_snapshot(path, self.model_sha256, len(self.layers))
        if len(found.tokens) > self.capacity:
            raise BadInput(
                f"expected at most {self.capacity} tokens, {path} has {len(found.tokens)}; give more context_tokens"
            )
        self.reset()
        for layer, held in zip(self.layers, found.layers, strict=True):
            if held is None:
                continue
            if not layer.is_initialized:
                layer.lazy_initialization(*held)
            layer.reserve(len(found.tokens))
            layer.keys[:, :, : len(found.tokens)], layer.values[:, :, : len(found.tokens)] = held
        if found.kept is not None:
            device = self.layers[0].keys.device
            self.kept = [_moved(x, device) for x in found.kept]
        self.past, self.base = found.past, found.base
        self.advance(found.tokens)


def _stored(kept: RaggedKV, dtype: torch.dtype) -> RaggedKV:
    """Plain keys and values in the dtype of the tail, which attention wants; others as they are."""
    if kept.format != "plain" or kept.k_ND.dtype == dtype:
        return kept
    return replace(kept, k_ND=kept.k_ND.to(dtype), v_ND=kept.v_ND.to(dtype))


def _moved(kept: RaggedKV, device: torch.device) -> RaggedKV:
    names = ("k_ND", "v_ND", "cu_len", "bias_N", "pos_N", "len_S", "k_scale", "v_scale", "cu_group")
    parts: dict[str, Any] = {name: getattr(kept, name) for name in names}
    return replace(kept, **{name: x.to(device) for name, x in parts.items() if x is not None})
