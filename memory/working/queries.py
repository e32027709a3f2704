"""Queries that an agent's own reading asked of its memory: what compaction takes as its examples. They cost nothing.

Knows rings of vectors. Does not know models, nor what is compacted with them.

    L layers, K KV heads, G query heads of each, M tokens, N vectors of a ring, D head dimension
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import BadInput
from ...runtime.ragged import turned

__all__ = ["QueryRing"]


class QueryRing:
    """The newest queries of every KV head, those of its group of query heads together; float16.

    Args:
        layers, kv_heads, dim: of the model.
        capacity: vectors a KV head keeps.
        stride: of the tokens read at once every so many are kept, the last one always.

    Attributes:
        vectors_LKND: the ring.
        count: vectors that were ever put in; the newest ``capacity`` of them are there.
    """

    def __init__(self, layers: int, kv_heads: int, dim: int, capacity: int, stride: int = 1) -> None:
        if min(layers, kv_heads, dim, capacity, stride) < 1:
            raise BadInput(f"expected sizes of at least 1, got {(layers, kv_heads, dim, capacity, stride)}")
        self.vectors_LKND = torch.zeros(layers, kv_heads, capacity, dim, dtype=torch.float16)
        self.stride, self.count = stride, 0
        self._fresh = 0

    def __len__(self) -> int:
        return min(self.count, self.vectors_LKND.shape[2])

    def observe(self, layer: int, q_HMD: Tensor) -> None:
        """Take in rotated queries [heads, M, D] of one layer; a hook of `Decoder`, which names layer 0 first."""
        _, kv_heads, capacity, dim = self.vectors_LKND.shape
        taken = q_HMD.flip(1)[:, :: self.stride].flip(1)
        vectors_KND = taken.reshape(kv_heads, -1, dim)[:, -capacity:]
        if layer == 0:
            self._fresh = vectors_KND.shape[1]
            self.count += self._fresh
        at = (torch.arange(self._fresh) + (self.count - self._fresh)) % capacity
        self.vectors_LKND[layer][:, at] = vectors_KND.to(torch.float16).cpu()

    def newest(self) -> Tensor:
        """float16 [L * K, N, D], all that are there."""
        layers, kv_heads, _, dim = self.vectors_LKND.shape
        return self.vectors_LKND[:, :, : len(self)].reshape(layers * kv_heads, -1, dim)

    def turn(self, shift: int, inverse_frequencies: Tensor) -> None:
        """As if everything had been asked ``shift`` positions later."""
        self.vectors_LKND = turned(self.vectors_LKND, shift, inverse_frequencies)
