"""Ragged keys and values cut, joined, moved and unpacked: pure functions on `RaggedKV`.

Knows the layout (kernels/decode_attention/ragged.py) and that positions are turns of the rotary embedding. Does not
know what the keys stand for or who chose them.

    N packed tokens, S segments (KV heads), T tokens of the longest segment, D head dimension

What comes out is packed without gaps, pages or unused rows, with positions written out.
"""

# ruff: noqa: N815  (fields carry shape suffixes, as all tensors do)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..errors import BadInput
from ..kernels.decode_attention import RaggedKV

if TYPE_CHECKING:
    from .cache import KVCache

__all__ = ["Dense", "from_cache_rows", "join", "plain", "positions", "rotated", "to_dense", "turned"]


class Dense(NamedTuple):
    """Padded to the longest segment: keys and values with 0, ``bias_ST`` (float32) with -inf, ``pos_ST`` with -1."""

    k_STD: Tensor
    v_STD: Tensor
    bias_ST: Tensor
    pos_ST: Tensor


def join(parts: Sequence[RaggedKV]) -> RaggedKV:
    """Segment by segment, the tokens of the first part, then those of the second, and so on.

    Args:
        parts: at least one, all plain, alike in dtype, device, head dimension and number of segments. A part without
            biases has biases of 0, one without positions counts from 0 in every segment.

    Raises:
        BadInput: no parts, or they do not fit together.
    """
    if not parts:
        raise BadInput("expected at least one part to join, got none")
    kinds = {(x.k_ND.dtype, x.k_ND.device, x.dim, x.segments) for x in parts}
    if len(kinds) > 1 or any(x.format != "plain" for x in parts):
        raise BadInput(
            f"expected plain parts alike in dtype, device, dimension and segments, got {sorted(map(str, kinds))}; "
            "use `plain` first"
        )
    packed = [_packed(x) for x in parts]
    lengths_PS = torch.stack([x.lengths().long() for x in packed])
    count = lengths_PS.shape[1]
    owner = torch.arange(count, device=lengths_PS.device).repeat(len(parts)).repeat_interleave(lengths_PS.flatten())
    order = owner.argsort(stable=True)
    bias = None
    if any(x.bias_N is not None for x in packed):
        bias = torch.cat([_bias(x) for x in packed])[order]
    return RaggedKV(
        torch.cat([x.k_ND for x in packed])[order],
        torch.cat([x.v_ND for x in packed])[order],
        _starts(lengths_PS.sum(0)),
        bias_N=bias,
        pos_N=torch.cat([positions(x) for x in packed])[order],
    )


def rotated(cache: RaggedKV, shift_positions: int | Tensor, inverse_frequencies: Sequence[float] | Tensor) -> RaggedKV:
    """The same keys as if they had been read ``shift_positions`` later: turned in float32, ``pos_N`` moved.

    Rotary embedding turns pair (i, i + D / 2) of a key at position p by p * inverse_frequencies[i] radians (Su et al.
    2021), so turning it by shift * inverse_frequencies[i] moves it. A key of float16 loses one rounding a call.

    Args:
        cache: plain.
        shift_positions: positions, negative to go back; or int64 [N], one a packed token.
        inverse_frequencies: radians per position [D / 2].

    Raises:
        BadInput: the cache is quantised, the sizes do not fit, or its positions cannot be counted.
    """
    if cache.format != "plain":
        raise BadInput(f"expected a plain cache to turn, got {cache.format}; use `plain` first")
    frequencies = torch.as_tensor(inverse_frequencies, dtype=torch.float64, device=cache.k_ND.device)
    if frequencies.shape != (cache.dim // 2,):
        raise BadInput(f"expected {cache.dim // 2} inverse frequencies, got {tuple(frequencies.shape)}")
    if isinstance(shift_positions, Tensor):
        if shift_positions.shape != (cache.k_ND.shape[0],):
            raise BadInput(f"expected shifts [{cache.k_ND.shape[0]}], got {tuple(shift_positions.shape)}")
        shift = shift_positions[:, None].double()
    else:
        shift = torch.tensor([[float(shift_positions)]], dtype=torch.float64, device=cache.k_ND.device)
    return replace(cache, k_ND=turned(cache.k_ND, shift, frequencies), pos_N=positions(cache) + shift_positions)


def turned(x_ND: Tensor, shift: float | Tensor, inverse_frequencies: Tensor) -> Tensor:
    """Keys or queries [..., D] as if read ``shift`` positions later (one number, or [N, 1]), turned in float32."""
    angle = shift * inverse_frequencies.double()
    cosine, sine = angle.cos().float(), angle.sin().float()
    a, b = x_ND.float().chunk(2, dim=-1)
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), dim=-1).to(x_ND.dtype)


def plain(cache: RaggedKV, dtype: torch.dtype) -> RaggedKV:
    """A copy in bfloat16, float16 or float32: unpacked from fp8, int8 or int4, without gaps or pages."""
    rows, lengths = _used(cache)
    k, v = cache.k_ND[rows], cache.v_ND[rows]
    if cache.format in ("int8", "int4"):
        assert cache.k_scale is not None
        assert cache.v_scale is not None
        k_scale, v_scale = cache.k_scale[_group_of(cache, rows, lengths)].float(), cache.v_scale[rows, None].float()
        if cache.format == "int8":
            k, v = k.float() * k_scale, v.float() * v_scale
        else:
            k, v = (torch.cat((x & 15, x >> 4), dim=1).float() for x in (k, v))
            k = k * k_scale[..., 0] + k_scale[..., 1]
            v = v * v_scale[..., 0] + v_scale[..., 1]
    return RaggedKV(
        k.to(dtype),
        v.to(dtype),
        _starts(lengths),
        bias_N=None if cache.bias_N is None else cache.bias_N[rows],
        pos_N=_inside(lengths) if cache.pos_N is None else cache.pos_N[rows],
    )


def to_dense(cache: RaggedKV) -> Dense:
    """Keys, values and biases [S, T, ...] as `compact_kv` takes them; quantised ones are unpacked to float32.

    Raises:
        BadInput: no segment has a token.
    """
    packed = _packed(cache) if cache.format == "plain" else plain(cache, torch.float32)
    lengths = packed.lengths().long()
    longest = int(lengths.max())
    if not longest:
        raise BadInput("expected at least one token to make dense, got an empty cache")
    seg, at = torch.arange(packed.segments, device=lengths.device).repeat_interleave(lengths), _inside(lengths)
    shape = (packed.segments, longest)
    k = packed.k_ND.new_zeros(*shape, packed.dim)
    v, pos = torch.zeros_like(k), at.new_full(shape, -1)
    bias = torch.full(shape, -torch.inf, device=k.device)
    k[seg, at], v[seg, at], pos[seg, at], bias[seg, at] = packed.k_ND, packed.v_ND, positions(packed), _bias(packed)
    return Dense(k, v, bias, pos)


def from_cache_rows(cache: KVCache, layer: int, first: int, last: int) -> RaggedKV:
    """A copy of rows ``first`` .. ``last - 1`` of one layer's tail, at their positions; kv_heads segments.

    Raises:
        BadInput: there are no such rows.
    """
    if not 0 <= first < last <= cache.length or not 0 <= layer < len(cache.layers):
        raise BadInput(
            f"expected rows within 0 .. {cache.length} of layers 0 .. {len(cache.layers) - 1}, "
            f"got rows {first} .. {last} of layer {layer}"
        )
    held = cache.layers[layer]
    k_KTD, v_KTD = (x[0, :, first:last].clone() for x in (held.keys, held.values))
    heads, tokens, dim = k_KTD.shape
    pos = torch.arange(cache.base + first, cache.base + last, device=k_KTD.device).repeat(heads)
    return RaggedKV(k_KTD.view(-1, dim), v_KTD.view(-1, dim), _starts(pos.new_full((heads,), tokens)), pos_N=pos)


def positions(cache: RaggedKV) -> Tensor:
    """int64 [N] positions of the packed tokens, written out where the cache leaves them to be counted.

    Raises:
        BadInput: the cache is paged or has unused rows, so that not every packed token has one.
    """
    if cache.pos_N is not None:
        return cache.pos_N
    if not _gapless(cache):
        raise BadInput("expected a cache without pages and unused rows to count positions in; use `plain` first")
    return _inside(cache.cu_len.diff().long())


def _bias(cache: RaggedKV) -> Tensor:
    if cache.bias_N is not None:
        return cache.bias_N
    return torch.zeros(cache.k_ND.shape[0], device=cache.k_ND.device)


def _packed(cache: RaggedKV) -> RaggedKV:
    """The cache itself if it has no gaps or pages, else such a copy."""
    return cache if _gapless(cache) else plain(cache, cache.k_ND.dtype)


def _gapless(cache: RaggedKV) -> bool:
    whole = int(cache.cu_len[-1]) == cache.k_ND.shape[0]
    return cache.block_table_SP is None and cache.len_S is None and whole


def _used(cache: RaggedKV) -> tuple[Tensor, Tensor]:
    """(int64 [N'] where the used tokens lie, segment after segment; int64 [S] how many there are of each)."""
    lengths = cache.lengths().long()
    seg, at = torch.arange(cache.segments, device=lengths.device).repeat_interleave(lengths), _inside(lengths)
    if cache.block_table_SP is None:
        return cache.cu_len.long()[seg] + at, lengths
    return cache.block_table_SP.long()[seg, at // cache.page] * cache.page + at % cache.page, lengths


def _group_of(cache: RaggedKV, rows: Tensor, lengths: Tensor) -> Tensor:
    """int64: group of key scales of each used token."""
    if cache.cu_group is None:
        return rows // cache.group
    return cache.cu_group.long()[:-1].repeat_interleave(lengths) + _inside(lengths) // cache.group


def _inside(lengths: Tensor) -> Tensor:
    """0 .. length - 1 of every segment, one after another."""
    starts = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum()), device=lengths.device) - starts.repeat_interleave(lengths)


def _starts(lengths: Tensor) -> Tensor:
    cu_len = torch.zeros(lengths.shape[0] + 1, dtype=torch.int32, device=lengths.device)
    cu_len[1:] = lengths.cumsum(0)
    return cu_len
