"""How weights become ternary, with or without N:M sparsity, and how they are packed.

    pattern   of M inputs at most N weights   bits per weight, layout triton
    dense     any                             2
    6:8       6 of 8                          (8 + 6) / 8 = 1.75
    2:4       2 of 4                          (4 + 2) / 4 = 1.5

Layouts: ``triton`` (kernel.py), ``vnni`` (native.h, 2 bits for every pattern) and ``torch`` (int8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ...errors import BadInput
from ..quantized_matmul.formats import GPU_GROUP, pad_inputs

Pattern = Literal["dense", "6:8", "2:4"]
TernaryLayout = Literal["triton", "vnni", "torch"]
_ROWS = 16
_VNNI_INPUTS = 1 << 17  # the highest field counts 64 fold: 2 * 64 * 127 * inputs < 2^31


class Sparsity(NamedTuple):
    """At most ``kept`` weights in each ``group`` of consecutive inputs."""

    kept: int
    group: int


SPARSITY: dict[str, Sparsity] = {"6:8": Sparsity(6, 8), "2:4": Sparsity(2, 4)}


@dataclass(frozen=True)
class Ternary:
    """Weights -1, 0, 1 and a scale per output, w ~ scale * value."""

    pattern: Pattern
    values_NK: Tensor  # noqa: N815
    """int8."""
    scale_N: Tensor  # noqa: N815
    """float32."""

    def dequantize(self) -> Tensor:
        """float32 [N, K]."""
        return self.values_NK.float() * self.scale_N[:, None]


@dataclass(frozen=True)
class TernaryWeight:
    """Ternary weights ready for `ternary_matmul`."""

    layout: TernaryLayout
    pattern: Pattern
    rows: int
    cols: int
    data: Tensor
    scale_N: Tensor  # noqa: N815

    @property
    def bytes(self) -> int:
        """Bytes that one product reads."""
        return self.data.numel() * self.data.element_size() + self.scale_N.numel() * 4


def ternarize(w_NK: Tensor, pattern: Pattern = "dense") -> Ternary:
    """Round to -1, 0, 1 times the mean of |w|; sparse patterns first drop the smallest of each group.

    Args:
        w_NK: float [N, K]; K a multiple of the pattern's group.
        pattern: ``dense``, ``6:8`` or ``2:4``.

    Raises:
        BadInput: another shape or pattern.

    Source: BitNet b1.58 (2402.17764), equations 1 to 3; Sparse-BitNet (2603.05168), mask from the full-precision
    weights, scale over the whole dense matrix.
    """
    if pattern != "dense" and pattern not in SPARSITY:
        raise BadInput(f"expected the pattern dense, {', '.join(SPARSITY)}, got {pattern!r}")
    if not w_NK.is_floating_point() or w_NK.ndim != 2 or 0 in w_NK.shape:
        raise BadInput(f"expected a floating point matrix [N, K], got {w_NK.dtype} {tuple(w_NK.shape)}")
    w = w_NK.float()
    scale = w.abs().mean().clamp_min(1e-12)
    values = (w / scale).round_().clamp_(-1, 1).to(torch.int8)
    if pattern != "dense":
        kept, group = SPARSITY[pattern]
        if w.shape[1] % group:
            raise BadInput(f"expected inputs in groups of {group} for the pattern {pattern}, got {w.shape[1]}")
        grouped = w.abs().view(-1, group)
        keep = torch.zeros_like(grouped, dtype=torch.bool)
        keep.scatter_(1, grouped.topk(kept, dim=1).indices, True)
        values *= keep.view(values.shape)
    return Ternary(pattern, values, scale.expand(w.shape[0]).contiguous())


def pack_ternary(weight: Ternary, layout: TernaryLayout) -> TernaryWeight:
    """Lay ternary weights out for one of the products.

    Raises:
        BadInput: values other than -1, 0, 1, or more weights in a group than the pattern allows.
    """
    values = weight.values_NK
    n, k = values.shape
    if values.dtype != torch.int8 or bool((values.abs() > 1).any()):
        raise BadInput(f"expected int8 values -1, 0 and 1, got {values.dtype} up to {values.abs().max().item()}")
    if layout == "vnni" and k > _VNNI_INPUTS:
        raise BadInput(f"layout vnni sums at most {_VNNI_INPUTS} inputs in 32 bits, got {k}")
    if layout == "torch":
        data = values.contiguous()
    elif layout == "vnni":
        data = _pack_vnni(values)
    elif weight.pattern == "dense":
        data = _pack_two_bits(values)
    else:
        data = _pack_planes(values, SPARSITY[weight.pattern])
    return TernaryWeight(layout, weight.pattern, n, k, data, weight.scale_N.float().contiguous())


def unpack_ternary(weight: TernaryWeight) -> Tensor:
    """int8 [N, K] in plain torch."""
    n, k = weight.rows, weight.cols
    if weight.layout == "torch":
        return weight.data
    if weight.layout == "vnni":
        fields = torch.stack([(weight.data >> (2 * j)) & 3 for j in range(4)], dim=-1).view(
            -1, k_blocks(k), _ROWS, 4, 4
        )
        return (fields.permute(0, 2, 1, 4, 3).reshape(-1, k_blocks(k) * 16)[:n, :k].to(torch.int8) - 1).contiguous()
    if weight.pattern == "dense":
        bytes_ = weight.data.view(n, -1, 1, 32)
        fields = torch.cat([(bytes_ >> (2 * j)) & 3 for j in range(4)], dim=2)
        return (fields.reshape(n, -1)[:, :k].to(torch.int8) - 1).contiguous()
    return _unpack_planes(weight.data, SPARSITY[weight.pattern], n)[:, :k].contiguous()


def k_blocks(cols: int) -> int:
    """Blocks of 16 inputs in layout ``vnni``; rows are padded to a multiple of 64 inputs."""
    return -(-cols // 64) * 4


def _pack_two_bits(values_NK: Tensor) -> Tensor:
    """uint8 [N, G * 32]: byte i of a block of 128 holds value + 1 of inputs i, 32 + i, 64 + i, 96 + i."""
    n = values_NK.shape[0]
    codes = pad_inputs(values_NK + 1, GPU_GROUP)
    # Padding is code 0 = weight -1; the padded activations are zero.
    parts = codes.to(torch.uint8).view(n, -1, 4, 32)
    return (parts[:, :, 0] | (parts[:, :, 1] << 2) | (parts[:, :, 2] << 4) | (parts[:, :, 3] << 6)).reshape(n, -1)


def _pack_vnni(values_NK: Tensor) -> Tensor:
    """uint8 [N/16, K/16, 64]: byte 4 r + i of a block holds value + 1 of row r and inputs i, 4 + i, 8 + i, 12 + i."""
    n, k = values_NK.shape
    codes = torch.ones(-(-n // _ROWS) * _ROWS, k_blocks(k) * 16, dtype=torch.uint8, device=values_NK.device)
    codes[:n, :k] = (values_NK + 1).to(torch.uint8)
    parts = codes.view(-1, _ROWS, k_blocks(k), 4, 4)  # [N/16, row, block, field, input]
    out = parts[:, :, :, 0] | (parts[:, :, :, 1] << 2) | (parts[:, :, :, 2] << 4) | (parts[:, :, :, 3] << 6)
    return out.permute(0, 2, 1, 3).reshape(out.shape[0], k_blocks(k), 64).contiguous()


def _pack_planes(values_NK: Tensor, sparsity: Sparsity) -> Tensor:
    """int32 [N, N:M's M + N planes, blocks of 32 groups]; bit g of a word belongs to group g of the block."""
    kept, group = sparsity
    n = values_NK.shape[0]
    v = pad_inputs(values_NK, 32 * group).view(n, -1, 32, group)
    mask, negative = v != 0, v < 0
    if bool((mask.sum(-1) > kept).any()):
        raise BadInput(f"expected at most {kept} weights in each group of {group}, got {int(mask.sum(-1).max())}")
    sign = negative[..., :kept].clone()
    gap = ~mask[..., :kept]
    first = gap & (gap.cumsum(-1) == 1)
    last_but_one, last = negative[..., kept : kept + 1], negative[..., kept + 1 :]
    # The first gap holds the sign of the last input but one. The last input's is the parity of all gaps, put right by
    # the second gap; with one gap only one of the two inputs has a weight, and the gap is both first and parity.
    has_two = gap.sum(-1, keepdim=True) >= 2
    second = gap & (gap.cumsum(-1) == 2)
    single = torch.where(mask[..., kept : kept + 1], last_but_one, last)
    sign |= first & torch.where(has_two, last_but_one, single)
    sign |= second & (last_but_one ^ last)
    planes = torch.cat([mask, sign], dim=-1).permute(0, 3, 1, 2)  # [N, plane, block, 32]
    bits = planes.to(torch.int64) << torch.arange(32, device=v.device)
    words = bits.sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32).contiguous()


def _unpack_planes(planes: Tensor, sparsity: Sparsity, n: int) -> Tensor:
    """int8 [N, padded K]."""
    kept, group = sparsity
    bits = (planes[..., None] >> torch.arange(32, dtype=torch.int32, device=planes.device)) & 1
    mask, sign = bits[:, :group].bool(), bits[:, group:].bool()
    gap = ~mask[:, :kept]
    first = gap & (gap.int().cumsum(1) == 1)
    last_but_one = (first & sign).any(1, keepdim=True)
    last = (gap & sign).sum(1, keepdim=True) % 2 == 1
    negative = mask & torch.cat([sign, last_but_one, last], dim=1)
    values = mask.to(torch.int8) - 2 * negative.to(torch.int8)
    return values.permute(0, 2, 3, 1).reshape(n, -1)
