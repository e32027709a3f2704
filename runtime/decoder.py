"""The project's own forward pass of a Qwen2 or Llama decoder.

Knows in which order the layers run, where the fast path ends (more than 64 tokens, no C++, another device) and how
logits are made. Does not know text.

Tensors: M tokens of this call, X hidden, V vocabulary.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadInput
from ..kernels.decode_attention import RaggedKV, quantize_kv
from ..kernels.decoder_layers import MAX_TOKENS, DecoderShape, FusedLayers, decoder_layer
from ..kernels.decoder_layers import fits as fused_fits
from ..kernels.quantized_matmul import quantized_matmul
from .cache import KVCache
from .quantize import ModelWeights, plain_weights
from .ragged import from_cache_rows, plain, rotated

_CHUNK = 512
"""Tokens of a long prompt between two looks at ``cancel``; bounds the memory of one pass."""
_GPU_CHUNK = 2048
"""The same elsewhere, where a layer costs more to start than to run."""
_ROWS = 32
"""Logits that are made at once: few enough for the product that does not unpack the whole output matrix."""


class Cancelled(Exception):
    """The caller asked to stop in the middle of a prompt; the cache holds what was read."""


class Decoder:
    """A model and its cache.

    Args:
        weights: packed weights.
        capacity: positions there is room for.
        device: None runs packed weights on the CPU. Else they are unpacked to plain bfloat16 on that device (``cuda``),
            with a bfloat16 cache: for measurements, best from weights that were loaded in bfloat16.

    Attributes:
        cache: keys and values of what it has read.
        observe: is given the rotated queries of every layer (index, float32 [heads, M, head_dim]) while it reads.
        vocab: width of the logits.
    """

    def __init__(self, weights: ModelWeights, capacity: int, device: torch.device | str | None = None) -> None:
        weights = weights if device is None else plain_weights(weights, device)
        config, self.device = weights.config, torch.device(device or "cpu")
        if capacity < 1:
            raise BadInput(f"expected context_tokens of at least 1, got {capacity}")
        self.weights, self.vocab = weights, config.vocab
        self.shape = DecoderShape(
            config.hidden, config.heads, config.kv_heads, config.head_dim, config.ffn, config.eps, config.window
        )
        self.observe: Callable[[int, Tensor], None] | None = None
        frequencies = torch.tensor(config.inverse_frequencies, dtype=torch.float64)
        angles = torch.arange(max(capacity, config.context))[:, None] * frequencies
        self._cosine, self._sine = (x.float().to(self.device) for x in (angles.cos(), angles.sin()))
        dtype = torch.float32 if weights.output.bits == 32 else torch.float16
        dtype = dtype if device is None else torch.bfloat16
        self.cache = KVCache(config.layers, capacity, weights.sha256, config.window, len(angles))
        self.cache.allocate(config.kv_heads, config.head_dim, dtype, self.device)
        self._fused: FusedLayers | None = None
        if fused_fits(weights.layers, self.shape, dtype):
            # On a CPU the rows of a cache stay where they are.
            rows = [[x[0] for x in (layer.keys, layer.values)] for layer in self.cache.layers]
            keys, values = zip(*rows, strict=True)
            self._fused = FusedLayers(weights.layers, self.shape, self._cosine, self._sine, keys, values)

    @property
    def fused(self) -> bool:
        """Whether short reads run in our C++."""
        return self._fused is not None

    def read(self, tokens: Sequence[int], *, all_logits: bool = False, cancel: threading.Event | None = None) -> Tensor:
        """Read tokens after those in the cache, and after what it keeps compacted.

        Args:
            tokens: ids, at least one.
            all_logits: logits after every token; else after the last.
            cancel: looked at between chunks of a long prompt.

        Returns:
            float32 [V], or [M, V] with ``all_logits``, on the decoder's device.

        Raises:
            BadInput: no tokens, an id out of range, or more than the cache has room or the model positions for.
            Cancelled: ``cancel`` was set; the cache holds what was read.
        """
        room = self.cache.room
        if not 1 <= len(tokens) <= room:
            full = self.cache.length + room == self.cache.capacity
            advice = (
                "give a larger context_tokens" if full else "the positions of the model end: `rebase` to earlier ones"
            )
            raise BadInput(f"expected 1 to {room} more tokens, got {len(tokens)}; {advice}")
        self.cache.reserve(len(tokens))
        if not all(0 <= t < self.vocab for t in tokens):
            raise BadInput(f"expected token ids from 0 to {self.vocab - 1}, got {max(tokens)}; wrong tokenizer?")
        parts: list[Tensor] = []
        size = _CHUNK if self.device.type == "cpu" else _GPU_CHUNK
        for start in range(0, len(tokens), size):
            if cancel is not None and cancel.is_set():
                raise Cancelled
            chunk = tokens[start : start + size]
            h_MX = self._layers(torch.tensor(chunk, device=self.device), self.cache.length)
            self.cache.advance(chunk)
            if all_logits:
                parts += [self._logits(h_MX[at : at + _ROWS]) for at in range(0, len(chunk), _ROWS)]
            elif start + size >= len(tokens):
                return self._logits(h_MX[-1:])[0]
        return torch.cat(parts)

    def rebase(self, base: int) -> None:
        """Move all keys, so that ``cache.tokens[0]`` stands at another rotary position; distances stay as they are.

        Keys are turned in float32 and rounded once more to how they are stored; quantised ones get new scales.

        Args:
            base: the new `KVCache.base`, from 0.

        Raises:
            BadInput: there are no such positions.
        """
        cache, last = self.cache, len(self._cosine) - self.cache.length
        if not 0 <= base <= last:
            raise BadInput(f"expected a position from 0 to {last}, got {base}")
        shift, frequencies = base - cache.base, self.weights.config.inverse_frequencies
        for i, layer in enumerate(cache.layers if cache.length else ()):
            keys_KTD = layer.keys[0, :, : cache.length]
            turned = rotated(from_cache_rows(cache, i, 0, cache.length), shift, frequencies)
            keys_KTD.copy_(turned.k_ND.view(keys_KTD.shape))
        if cache.kept is not None:
            cache.kept = [_turned(x, shift, frequencies) for x in cache.kept]
        cache.base = base

    def _layers(self, ids_M: Tensor, position: int) -> Tensor:
        h_MX = self.weights.embedding(ids_M)
        kept, first = self.cache.kept, self.cache.base + position
        end = first + len(ids_M)
        short = len(ids_M) <= MAX_TOKENS
        if self._fused is not None and short and (kept is None or self._fused.takes(kept)):
            if self.observe is None:
                self._fused(h_MX, position, self.cache.base, kept)
                return h_MX
            q_LMHD = torch.empty(len(self.weights.layers), len(ids_M), self.shape.heads, self.shape.dim)
            self._fused(h_MX, position, self.cache.base, kept, q_LMHD)
            for i, q_MHD in enumerate(q_LMHD):
                self.observe(i, q_MHD.transpose(0, 1))
            return h_MX
        cosine, sine = self._cosine[first:end], self._sine[first:end]
        for i, (layer, rows) in enumerate(zip(self.weights.layers, self.cache.layers, strict=True)):
            h_MX = decoder_layer(
                h_MX,
                layer,
                self.shape,
                cosine,
                sine,
                rows.keys[0],
                rows.values[0],
                position,
                kept=None if kept is None else kept[i],
                observe=None if self.observe is None else partial(self.observe, i),
            )
        return h_MX

    def _logits(self, h_MX: Tensor) -> Tensor:
        x_MX = F.rms_norm(h_MX, (self.shape.hidden,), self.weights.norm_out, self.shape.eps)
        return quantized_matmul(x_MX, self.weights.output)


def _turned(kept: RaggedKV, shift: int, frequencies: Sequence[float]) -> RaggedKV:
    """Kept keys at other positions, in the format that they had."""
    if kept.format == "plain":
        return rotated(plain(kept, kept.k_ND.dtype), shift, frequencies)
    return quantize_kv(rotated(plain(kept, torch.float32), shift, frequencies), kept.format, group=kept.group)
