"""The ragged, biased, quantised key-value cache that `decode_attention` and `append_attention` read.

Knows the layout and its roundings. Does not know who fills it or how attention is computed.

    N packed tokens, D head dimension, S segments = B sequences * K KV heads (segment b * K + h), G groups of tokens

Segment s owns the packed tokens cu_len[s] .. cu_len[s + 1]; with ``len_S`` only the first ``len_S[s]`` of them are
used, so that a cache can grow in place. With ``block_table_SP`` the packed tokens are a pool of pages instead, and the
i-th token of segment s is the pool's token ``block_table_SP[s, i // page] * page + i % page``.

| format | keys | values |
| --- | --- | --- |
| plain | as they are (bfloat16, float16, float32) | as they are |
| fp8 | float8_e4m3fn, saturating at 448 | the same |
| int8 | scale[group, channel] * code, code -127 .. 127 | scale[token] * code |
| int4 | low[group, channel] + scale[group, channel] * code, code 0 .. 15 | low[token] + scale[token] * code |

A group is ``group`` consecutive tokens of one segment. Keys have outlier channels and values have not (KIVI, arXiv
2402.02750), hence the directions. An int4 byte j holds channel j (low nibble) and channel j + D / 2 (high nibble).
Scales and lows have the values of bfloat16 (range of float32; codes are rounded against the rounded scale) and
lie in 32-bit words, the smallest that a GPU copies asynchronously: float32 for int8, pairs (scale, low) for int4.
"""

# ruff: noqa: N815  (fields carry shape suffixes, as all tensors do)

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import BadInput

__all__ = ["FORMATS", "RaggedKV", "dequantize_kv", "quantize_kv", "ragged_from_dense"]

FORMATS = ("plain", "fp8", "int8", "int4")
_PLAIN = (torch.bfloat16, torch.float16, torch.float32)
_BY_DTYPE = {torch.float8_e4m3fn: "fp8", torch.int8: "int8", torch.uint8: "int4"}


@dataclass(frozen=True)
class RaggedKV:
    """A cache of S segments; the page's head says what the fields mean.

    Attributes:
        k_ND: keys [N, D] (int4: uint8 [N, D / 2]).
        v_ND: values, the shape and dtype of ``k_ND``.
        cu_len: int32 [S + 1], starts of the segments, ascending from 0 (paged: only the differences count).
        bias_N: float32 [N] added to the score of a key, in natural-log units; None for zero. -inf hides a key.
        pos_N: int64 [N] positions of the keys; None: the index inside of the segment.
        len_S: int32 [S] used tokens; None: the differences of ``cu_len``.
        k_scale: int8: float32 [G, D]; int4: bfloat16 [G, D, 2], (scale, low).
        v_scale: int8: float32 [N]; int4: bfloat16 [N, 2], (scale, low).
        cu_group: int32 [S + 1], first group of each segment (not when paged: there, group = pool token // group).
        group: tokens of a group, a power of two of at least 16.
        block_table_SP: int32 [S, P] page numbers; None: not paged.
        page: tokens of a page.
    """

    k_ND: Tensor
    v_ND: Tensor
    cu_len: Tensor
    bias_N: Tensor | None = None
    pos_N: Tensor | None = None
    len_S: Tensor | None = None
    k_scale: Tensor | None = None
    v_scale: Tensor | None = None
    cu_group: Tensor | None = None
    group: int = 128
    block_table_SP: Tensor | None = None
    page: int = 0

    def __post_init__(self) -> None:
        _check(self)

    @property
    def format(self) -> str:
        """One of ``FORMATS``."""
        return _BY_DTYPE.get(self.k_ND.dtype, "plain")

    @property
    def dim(self) -> int:
        """Channels of a head."""
        return self.k_ND.shape[1] * (2 if self.format == "int4" else 1)

    @property
    def segments(self) -> int:
        """Sequences times KV heads."""
        return self.cu_len.shape[0] - 1

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values, biases and scales (what one step reads)."""
        parts = (self.k_ND, self.v_ND, self.bias_N, self.k_scale, self.v_scale)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def lengths(self) -> Tensor:
        """int32 [S] used tokens of each segment."""
        return self.len_S if self.len_S is not None else self.cu_len.diff()

    def rows(self, segment: int, length: int) -> Tensor | slice:
        """Where the ``length`` tokens of a segment lie among the packed ones."""
        if self.block_table_SP is None:
            start = int(self.cu_len[segment])
            return slice(start, start + length)
        index = torch.arange(length, device=self.k_ND.device)
        return self.block_table_SP[segment].long()[index // self.page] * self.page + index % self.page


def ragged_from_dense(k_BKTD: Tensor, v_BKTD: Tensor, bias_BKT: Tensor | None = None) -> RaggedKV:
    """A view of dense keys and values [B, K, T, D] (contiguous: nothing is copied) as segments of equal length."""
    batch, heads, tokens, dim = k_BKTD.shape
    cu_len = torch.arange(batch * heads + 1, dtype=torch.int32, device=k_BKTD.device) * tokens
    bias = None if bias_BKT is None else bias_BKT.float().reshape(-1)
    return RaggedKV(k_BKTD.reshape(-1, dim), v_BKTD.reshape(-1, dim), cu_len, bias_N=bias)


def quantize_kv(cache: RaggedKV, format: str, *, group: int = 128) -> RaggedKV:
    """A plain cache in another format; biases, positions, lengths and pages stay as they are.

    Args:
        cache: format plain. Paged caches: ``page`` is a multiple of ``group`` (int8, int4).
        format: ``fp8``, ``int8`` or ``int4``.
        group: tokens that share the scales of a key channel; fewer round better, 128 are read fastest.

    Raises:
        BadInput: unknown format, or the cache is already quantised.
    """
    if cache.format != "plain" or format not in FORMATS[1:]:
        raise BadInput(f"expected a plain cache and one of {FORMATS[1:]}, got {cache.format} and {format!r}")
    if format == "fp8":
        k, v = (x.float().clamp(-448, 448).to(torch.float8_e4m3fn) for x in (cache.k_ND, cache.v_ND))
        return replace(cache, k_ND=k, v_ND=v)
    first_row, group_of, cu_group = _groups(cache, group)
    groups = int(first_row.shape[0])
    k, v = cache.k_ND.float(), cache.v_ND.float()
    index = group_of[:, None].expand_as(k)
    empty = k.new_zeros(groups, k.shape[1])
    if format == "int8":
        k_scale = _step(empty.scatter_reduce(0, index, k.abs(), "amax") / 127)
        v_scale = _step(v.abs().amax(1) / 127)
        k_codes = (k / k_scale[group_of]).round().clamp(-127, 127).to(torch.int8)
        v_codes = (v / v_scale[:, None]).round().clamp(-127, 127).to(torch.int8)
    else:
        k_min = empty.scatter_reduce(0, index, k, "amin", include_self=False)
        k_max = empty.scatter_reduce(0, index, k, "amax", include_self=False)
        k_low, k_step = k_min.bfloat16().float(), _step((k_max - k_min) / 15)
        v_low, v_step = v.amin(1).bfloat16().float(), _step((v.amax(1) - v.amin(1)) / 15)
        k_codes = _nibbles((k - k_low[group_of]) / k_step[group_of])
        v_codes = _nibbles((v - v_low[:, None]) / v_step[:, None])
        k_scale, v_scale = (torch.stack(pair, -1).bfloat16() for pair in ((k_step, k_low), (v_step, v_low)))
    return replace(
        cache,
        k_ND=k_codes,
        v_ND=v_codes,
        k_scale=k_scale,
        v_scale=v_scale,
        cu_group=cu_group,
        group=group,
    )


def dequantize_kv(cache: RaggedKV, segment: int, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Keys and values [length, D] of the first ``length`` tokens of one segment, in ``dtype``."""
    rows = cache.rows(segment, length)
    k, v = cache.k_ND[rows], cache.v_ND[rows]
    if cache.format in ("plain", "fp8"):
        return k.to(dtype), v.to(dtype)
    assert cache.k_scale is not None
    assert cache.v_scale is not None
    if cache.block_table_SP is None:
        assert cache.cu_group is not None
        group_of = int(cache.cu_group[segment]) + torch.arange(length, device=k.device) // cache.group
    else:
        assert isinstance(rows, Tensor)
        group_of = rows // cache.group
    k_scale, v_scale = cache.k_scale.to(dtype)[group_of], cache.v_scale[rows, None].to(dtype)
    if cache.format == "int8":
        return k.to(dtype) * k_scale, v.to(dtype) * v_scale
    k, v = (torch.cat((codes & 15, codes >> 4), dim=1).to(dtype) for codes in (k, v))
    return k * k_scale[..., 0] + k_scale[..., 1], v * v_scale[..., 0] + v_scale[..., 1]


def _groups(cache: RaggedKV, group: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """(something with one row per group, group of each packed token, first group of each segment)."""
    tokens = torch.arange(cache.k_ND.shape[0], device=cache.k_ND.device)
    if cache.block_table_SP is not None:
        if cache.page % group:
            raise BadInput(f"expected pages of a multiple of {group} tokens, got {cache.page}")
        return tokens[::group], tokens // group, None
    sizes = cache.cu_len.diff()
    cu_group = torch.zeros_like(cache.cu_len)
    cu_group[1:] = ((sizes + group - 1) // group).cumsum(0)
    segment = torch.repeat_interleave(torch.arange(cache.segments, device=tokens.device), sizes)
    inside = tokens[: segment.shape[0]] - cache.cu_len[segment]
    group_of = cu_group[segment].long() + inside // group
    return tokens.new_empty(int(cu_group[-1])), group_of, cu_group


def _step(size: Tensor) -> Tensor:
    """A rounding step with a value of bfloat16; 1 where everything is equal (no division by zero)."""
    return torch.where(size > 0, size, 1.0).clamp_min(1e-30).bfloat16().float()


def _nibbles(x: Tensor) -> Tensor:
    codes = x.round().clamp(0, 15).to(torch.uint8)
    low, high = codes.chunk(2, dim=1)
    return (low | (high << 4)).contiguous()


def _check(c: RaggedKV) -> None:
    if c.k_ND.ndim != 2 or c.k_ND.shape != c.v_ND.shape or c.k_ND.dtype != c.v_ND.dtype:
        raise BadInput(
            f"expected k and v [N, D] of one dtype, got {tuple(c.k_ND.shape)} {c.k_ND.dtype}, "
            f"{tuple(c.v_ND.shape)} {c.v_ND.dtype}"
        )
    if c.k_ND.dtype not in _PLAIN and c.k_ND.dtype not in _BY_DTYPE:
        raise BadInput(f"expected bfloat16, float16, float32, float8_e4m3fn, int8 or uint8 (int4), got {c.k_ND.dtype}")
    if c.cu_len.ndim != 1 or c.cu_len.shape[0] < 2:
        raise BadInput(f"expected cu_len [S + 1] with S >= 1, got {tuple(c.cu_len.shape)}")
    if c.group < 16 or c.group & (c.group - 1):
        raise BadInput(f"expected a group of a power of two of at least 16 tokens, got {c.group}")
    tokens, segments, paged = c.k_ND.shape[0], c.segments, c.block_table_SP is not None
    if paged and (c.page < 16 or c.page & (c.page - 1)):
        raise BadInput(f"expected pages of a power of two of at least 16 tokens, got {c.page}")
    quantised = c.format in ("int8", "int4")
    if quantised and paged and c.page % c.group:
        raise BadInput(f"expected pages of a multiple of {c.group} tokens (one group), got {c.page}")
    groups = c.k_scale.shape[0] if c.k_scale is not None else 0
    pair, kind = ((2,), torch.bfloat16) if c.format == "int4" else ((), torch.float32)
    _field("cu_len", c, c.cu_len, True, (segments + 1,), torch.int32)
    _field("bias_N", c, c.bias_N, False, (tokens,), torch.float32)
    _field("pos_N", c, c.pos_N, False, (tokens,), torch.int64)
    _field("len_S", c, c.len_S, False, (segments,), torch.int32)
    _field("k_scale", c, c.k_scale, quantised, (groups, c.dim, *pair), kind)
    _field("v_scale", c, c.v_scale, quantised, (tokens, *pair), kind)
    _field("cu_group", c, c.cu_group, quantised and not paged, (segments + 1,), torch.int32)
    if c.block_table_SP is not None:
        _field("block_table_SP", c, c.block_table_SP, True, (segments, c.block_table_SP.shape[-1]), torch.int32)
    for name, x in (("k_ND", c.k_ND), ("v_ND", c.v_ND)):
        if not x.is_contiguous():
            raise BadInput(f"expected a contiguous {name}, got strides {x.stride()}; call .contiguous()")


def _field(
    name: str, cache: RaggedKV, x: Tensor | None, needed: bool, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    if x is None:
        if needed:
            raise BadInput(f"a cache of {cache.k_ND.dtype} needs {name} {shape} of {dtype}")
        return
    if tuple(x.shape) != shape or x.dtype != dtype or x.device != cache.k_ND.device or not x.is_contiguous():
        raise BadInput(
            f"expected {name} {shape}, {dtype}, contiguous on {cache.k_ND.device}; got {tuple(x.shape)}, {x.dtype}, "
            f"strides {x.stride()} on {x.device}"
        )
