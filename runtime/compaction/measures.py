"""How far a compacted cache is from the whole one: attention on unseen queries, answers, intervals.

Knows exact attention, Wilson's interval and the paired bootstrap. Does not know how the cache was compacted.
"""

# ruff: noqa: N815  (fields carry shape suffixes, as all tensors do)

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels.decode_attention import RaggedKV
from ..ragged import plain, to_dense


class AttentionErrors(NamedTuple):
    """float32 [L * K]: |got - exact| / |exact| of the outputs (Frobenius), mean |log mass got - log mass exact|."""

    output_H: Tensor
    mass_H: Tensor


def attention_errors(
    queries: Sequence[Tensor], keys: Sequence[Tensor], values: Sequence[Tensor], kept: Sequence[RaggedKV]
) -> AttentionErrors:
    """Attention over ``kept`` against attention over all keys.

    Args:
        queries: per layer float [K, N, D], rotated, not those that the cache was compacted with.
        keys, values: per layer [K, T, D], of everything that ``kept`` stands for.
        kept: per layer, K segments.
    """
    output, mass = [], []
    for q, k, v, few in zip(queries, keys, values, kept, strict=True):
        scale = q.shape[2] ** -0.5
        q32 = q.float() * scale
        dense = to_dense(plain(few, torch.float32))
        whole = q32 @ k.float().mT
        short = q32 @ dense.k_STD.mT + dense.bias_ST[:, None]
        exact, got = whole.softmax(-1) @ v.float(), short.softmax(-1) @ dense.v_STD
        output.append((got - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1).clamp_min(1e-30))
        mass.append((short.logsumexp(-1) - whole.logsumexp(-1)).abs().mean(1))
    return AttentionErrors(torch.cat(output), torch.cat(mass))


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of a share (Wilson 1927), 95 % by default."""
    share = right / count
    middle, spread = share + z * z / (2 * count), z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return (middle - spread) / (1 + z * z / count), (middle + spread) / (1 + z * z / count)


def paired_interval(ours: Sequence[float], theirs: Sequence[float], draws: int = 4000) -> tuple[float, float]:
    """95 % interval of the mean of ours - theirs over the same questions, by the bootstrap (percentiles)."""
    difference = torch.tensor(ours, dtype=torch.float64) - torch.tensor(theirs, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(difference), (draws, len(difference)), generator=generator)
    low, high = difference[drawn].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
