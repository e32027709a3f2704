"""Many short texts read in one pass, each as if it alone came after what the cache holds; the cache stays as it is.

Knows how attention over shared past keys and over a text's own tokens is joined by the masses of both. Does not know
what the texts ask. It is the batched form of ``read`` and ``truncate``: a test compares the two.

    B texts, S tokens of the longest, M = B * S, H query heads, K KV heads, D channels, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import BadInput
from ...kernels.decode_attention import RaggedKV, decode_attention
from ...kernels.decoder_layers import rotate
from ...kernels.quantized_matmul import quantized_matmul
from ..cache import KVCache
from ..decoder import Decoder
from ..ragged import from_cache_rows, plain

_AT_ONCE = 512
"""Tokens of one pass: large enough for the products that unpack a matrix once, small enough for the memory."""


@dataclass(frozen=True)
class Continuation:
    """A text to read.

    Attributes:
        tokens: ids, at least one.
        scored: indices of tokens (1 or more each) whose probability given those before is wanted.
    """

    tokens: tuple[int, ...]
    scored: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.tokens or not self.scored or not all(0 < i < len(self.tokens) for i in self.scored):
            raise BadInput(f"expected tokens and scored indices from 1 to {len(self.tokens) - 1}, got {self.scored}")


def read_after(
    decoder: Decoder,
    texts: Sequence[Continuation],
    *,
    kept: Sequence[RaggedKV] | None = None,
    observe: Callable[[int, Tensor], None] | None = None,
) -> list[Tensor]:
    """Log-probabilities float32 [scored tokens, V] before each scored token of each text.

    Args:
        decoder: the model and the cache that all texts continue; nothing is written to it.
        texts: what to read; texts of like length are read together.
        kept: per layer what is attended to instead of what the cache holds; positions go on as if it stood for that.
        observe: as `Decoder.observe`: is given rotated queries, float32 [H, M, D], without those of padding.
    """
    found: list[Tensor | None] = [None] * len(texts)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i].tokens))
    dtype = decoder.cache.layers[0].keys.dtype
    if kept is None:
        past = [_past(decoder.cache, i, dtype) for i in range(len(decoder.cache.layers))]
    else:
        past = [[plain(x, dtype)] for x in kept]
    while order:
        longest = len(texts[order[-1]].tokens)
        batch = [order.pop() for _ in range(min(len(order), max(1, _AT_ONCE // longest)))]
        for i, rows in zip(batch, _read(decoder, [texts[i] for i in batch], past, observe), strict=True):
            found[i] = rows
    return [rows for rows in found if rows is not None]


def _past(cache: KVCache, layer: int, dtype: torch.dtype) -> list[RaggedKV]:
    """What is kept and the tail of a layer, in one dtype."""
    parts = [] if cache.kept is None else [plain(cache.kept[layer], dtype)]
    return parts + ([from_cache_rows(cache, layer, 0, cache.length)] if cache.length else [])


def _read(
    decoder: Decoder,
    texts: Sequence[Continuation],
    past: Sequence[Sequence[RaggedKV]],
    observe: Callable[[int, Tensor], None] | None,
) -> list[Tensor]:
    shape, weights, cache = decoder.shape, decoder.weights, decoder.cache
    device, dtype = cache.layers[0].keys.device, cache.layers[0].keys.dtype
    batch, length = len(texts), max(len(text.tokens) for text in texts)
    ids_BS = torch.zeros(batch, length, dtype=torch.int64)
    for row, text in enumerate(texts):
        ids_BS[row, : len(text.tokens)] = torch.tensor(text.tokens)
    real_BS = torch.arange(length) < torch.tensor([len(text.tokens) for text in texts])[:, None]
    real_M = real_BS.flatten().to(device)
    first = cache.base + cache.length
    angles = (first + torch.arange(length, dtype=torch.float64))[:, None] * torch.tensor(
        weights.config.inverse_frequencies, dtype=torch.float64
    )
    cosine, sine = (x.float().repeat(batch, 1).to(device) for x in (angles.cos(), angles.sin()))
    h_MX = weights.embedding(ids_BS.flatten().to(device)).float()
    for i, layer in enumerate(weights.layers):
        x = F.rms_norm(h_MX, (shape.hidden,), layer.norm_in, shape.eps)
        q = quantized_matmul(x, layer.q, layer.bias_q).view(-1, shape.heads, shape.dim)
        k = quantized_matmul(x, layer.k, layer.bias_k).view(-1, shape.kv_heads, shape.dim)
        v = quantized_matmul(x, layer.v, layer.bias_v).view(-1, shape.kv_heads, shape.dim)
        q_HMD, k_KMD = rotate(q, cosine, sine).transpose(0, 1), rotate(k, cosine, sine).transpose(0, 1)
        if observe is not None:
            observe(i, q_HMD[:, real_M])
        v_KMD = v.transpose(0, 1).to(dtype)
        attended = _attend(q_HMD.to(dtype), k_KMD.to(dtype), v_KMD, past[i], batch)
        h_MX = h_MX + quantized_matmul(attended.transpose(0, 1).flatten(1).float().contiguous(), layer.o)
        x = F.rms_norm(h_MX, (shape.hidden,), layer.norm_ffn, shape.eps)
        inner = F.silu(quantized_matmul(x, layer.gate)).mul_(quantized_matmul(x, layer.up))
        h_MX = h_MX + quantized_matmul(inner, layer.down)
    h_BSX = h_MX.view(batch, length, -1)
    rows = torch.cat([h_BSX[row, [i - 1 for i in text.scored]] for row, text in enumerate(texts)])
    x = F.rms_norm(rows, (shape.hidden,), weights.norm_out, shape.eps)
    logits = quantized_matmul(x.contiguous(), weights.output).float()
    return list(torch.split(torch.log_softmax(logits, dim=-1), [len(text.scored) for text in texts]))


def _attend(q_HMD: Tensor, k_KMD: Tensor, v_KMD: Tensor, past: Sequence[RaggedKV], batch: int) -> Tensor:
    """[H, M, D] in the dtype of q: every token sees all past keys and its own text up to itself."""
    heads, rows, dim = q_HMD.shape
    kv_heads = k_KMD.shape[0]
    q_KBGSD = q_HMD.reshape(kv_heads, heads // kv_heads, batch, -1, dim).transpose(1, 2).float()
    k_KBSD, v_KBSD = (x.reshape(kv_heads, batch, -1, dim).float() for x in (k_KMD, v_KMD))
    scores = (q_KBGSD @ k_KBSD.mT[:, :, None]) * dim**-0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    scores = scores.masked_fill(later, -torch.inf)
    own = scores.softmax(-1) @ v_KBSD[:, :, None]
    parts = [(own.transpose(1, 2).reshape(heads, rows, dim), scores.logsumexp(-1).transpose(1, 2).reshape(heads, rows))]
    for kept in past:
        out, lse = decode_attention(q_HMD[None].contiguous(), kept)
        parts.append((out[0].float(), lse[0]))
    mass = torch.stack([lse for _, lse in parts]).softmax(0)
    joined = torch.stack([out for out, _ in parts]).mul_(mass[..., None]).sum(0)
    return joined.to(q_HMD.dtype)
