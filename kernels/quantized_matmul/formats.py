"""How weights are rounded to a few bits and how the codes are laid out for each matrix product.

Knows three roundings, in groups of inputs that share a scale (32 on the CPU), w ~ scale * code + low:

    bits  codes    low                 bits per weight  keeps exactly
    4     0..15    float16 per group   5.0              Q4_0, Q4_1 and Q4_K of GGUF (up to float16 of scale and low)
    5     0..31    -16 * scale         5.5              Q5_0
    8     1..255   -128 * scale        8.5              Q8_0

and four layouts: ``vnni`` (native.h), ``torch`` (the operators that torch ships), ``triton`` (kernel.py, for GPUs:
4 bits in groups of 128, 4.25 bits per weight, or 8 bits with one scale per output) and ``dense``.
Does not know which tensor of a model deserves which: that is `perdure.runtime`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...errors import BadInput

GROUP = 32
GPU_GROUP = 128
_ROWS = 16
_CHUNK = 1 << 18  # elements
_CHUNK_GPU = 1 << 25
_OFFSET = {5: 16, 8: 128}
_LIMITS = {4: (0, 15), 5: (0, 31), 8: (1, 255)}
# Candidates for 4 bits: (steps between least and greatest value, share of that range that is kept). 15 to 8 steps keep
# any 4-bit lattice, because one of them is the true number; the shrunk ranges help floating point sources.
_FOUR_BITS = (*((steps, 1.0) for steps in range(15, 7, -1)), (15, 0.95), (15, 0.9), (15, 0.85))
# Candidates for 5 and 8 bits: the code minus offset on which the greatest value falls. -16 is what Q5_0 does; the
# others trade the error of that value against the rest.
_PEAK_CODES = {5: (-16.0, 15.0, -17.0), 8: (127.0,)}
Bits = Literal[4, 5, 8]
Layout = Literal["vnni", "torch", "triton", "dense"]


@dataclass(frozen=True)
class Quantized:
    """Codes and scales before packing. N outputs, K inputs, G = ceil(K / group) groups."""

    bits: int
    codes_NK: Tensor  # noqa: N815
    """uint8."""
    scale_NG: Tensor  # noqa: N815
    """float16."""
    low_NG: Tensor | None  # noqa: N815
    """float16 for 4 bits; None where it follows from the scale."""
    group: int = GROUP
    """Inputs that share a scale; the last group may have fewer."""

    def dequantize(self) -> Tensor:
        """float32 [N, K]: scale * code + low."""
        n, k = self.codes_NK.shape
        scale = self.scale_NG.float()[..., None]
        low = self.low_NG.float()[..., None] if self.low_NG is not None else -_OFFSET[self.bits] * scale
        codes = pad_inputs(self.codes_NK, self.group).view(n, -1, self.group)
        return (codes.float() * scale + low).view(n, -1)[:, :k].contiguous()


@dataclass(frozen=True)
class PackedWeight:
    """A weight matrix ready for `quantized_matmul`."""

    layout: Layout
    bits: int
    """4, 5 or 8; 16 and 32 for dense bfloat16 and float32."""
    rows: int
    cols: int
    data: Tensor
    scales: Tensor | None = None
    """Layout ``torch``: bfloat16 [G, N, 2] for 4 bits, [N] for 8. ``triton``: float16 [N, G, 2] (scale, low) for 4,
    float32 [N] for 8."""

    @property
    def bytes(self) -> int:
        """Bytes that one product reads."""
        extra = 0 if self.scales is None else self.scales.numel() * self.scales.element_size()
        return self.data.numel() * self.data.element_size() + extra


@dataclass(frozen=True)
class Int8Tokens:
    """Activations rounded to int8, x ~ scale * q with one scale per token; made by `round_tokens`."""

    q_MK: Tensor  # noqa: N815
    """int8 [M, K], K padded with zeros as the product needs it."""
    scale_M: Tensor  # noqa: N815
    """float32."""
    sum_M: Tensor  # noqa: N815
    """int32: sum of a token's q."""
    cols: int
    """Inputs before padding."""
    spread: int
    """1: natural order. M of an N:M sparse weight: the order of its product, for which alone it can be used."""
    dtype: torch.dtype
    """Of the activations, and so of the product."""


def quantize(w_NK: Tensor, bits: Bits, group: int | None = GROUP) -> Quantized:
    """Round a matrix to 4, 5 or 8 bits in groups of inputs, with the least square error found.

    A matrix that already lies on a lattice of that many bits (as dequantised GGUF does) comes back unchanged: among
    the candidates tried are all numbers of steps that a group may use, so the right one has no error.

    Args:
        w_NK: float32 [N, K].
        bits: 4 (scale and offset), 5 or 8 (scale only).
        group: inputs that share a scale; 32 (then K is a multiple of 32), 128, or None for all of a row. Layout
            ``triton`` takes 128 for 4 bits and None for 8.

    Raises:
        BadInput: another shape, dtype or number of bits.
    """
    wrong = w_NK.dtype != torch.float32 or w_NK.ndim != 2 or 0 in w_NK.shape or bits not in (4, 5, 8)
    if wrong or (group == GROUP and w_NK.shape[1] % GROUP):
        raise BadInput(
            f"expected a float32 matrix whose inputs are a multiple of {GROUP} and 4, 5 or 8 bits, "
            f"got {w_NK.dtype} {tuple(w_NK.shape)} and {bits} bits; keep such a weight dense"
        )
    n, k = w_NK.shape
    width = k if group is None else group
    if width < 1:
        raise BadInput(f"expected a group of at least one input, got {width}")
    # A group that is not full is filled with its last value, which widens no range.
    missing = -k % width
    filled = w_NK if missing == 0 else torch.cat([w_NK, w_NK[:, -1:].expand(n, missing)], dim=1)
    groups = filled.reshape(-1, width)
    codes = torch.empty(groups.shape, dtype=torch.uint8, device=w_NK.device)
    scale, low = groups.new_empty(len(groups), dtype=torch.float16), groups.new_empty(len(groups), dtype=torch.float16)
    # A chunk of 1 MB stays in the cache through all candidates: several times faster than whole matrices.
    chunk = max(1, (_CHUNK_GPU if w_NK.is_cuda else _CHUNK) // width)
    for at in range(0, len(groups), chunk):
        part = slice(at, at + chunk)
        codes[part], scale[part], low[part] = _quantize_groups(groups[part], bits)
    scale, low = scale.view(n, -1), low.view(n, -1)
    return Quantized(bits, codes.view(n, -1)[:, :k].contiguous(), scale, low if bits == 4 else None, width)


def _quantize_groups(x_GE: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes [G, E], scale and low [G]: for each group the candidate with the least square error."""
    best, error = _try(x_GE, bits, 0)
    # A relative error of 1e-3 or less is that of float16 scales: the group lay on this lattice and is done.
    enough = x_GE.square().sum(-1) * 1e-6
    for step in range(1, len(_FOUR_BITS if bits == 4 else _PEAK_CODES[bits])):
        left = (error > enough).nonzero()[:, 0]
        if len(left) == 0:
            break
        made, new_error = _try(x_GE[left], bits, step)
        better = new_error < error[left]
        rows = left[better]
        error[rows] = new_error[better]
        for kept, new in zip(best, made, strict=True):
            kept[rows] = new[better]
    return best


def _try(x_GE: Tensor, bits: int, step: int) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Codes, scale and low of one candidate, and its square error per group."""
    if bits == 4:
        steps, range_kept = _FOUR_BITS[step]
        bottom, top = x_GE.aminmax(dim=-1)
        middle, half = (top + bottom) / 2, (top - bottom) / 2 * range_kept
        scale, low = 2 * half / steps, bottom if range_kept == 1 else middle - half
    else:
        scale = x_GE.gather(-1, x_GE.abs().argmax(dim=-1, keepdim=True))[:, 0] / _PEAK_CODES[bits][step]
        low = -_OFFSET[bits] * scale
    # A group of equal values, or one that float16 cannot tell from zero, has scale 1 and is held by low alone.
    scale16 = scale.half()
    scale16 = torch.where(scale16 == 0, torch.ones_like(scale16), scale16)
    low16 = low.half() if bits == 4 else -_OFFSET[bits] * scale16
    scale32 = scale16.float()[:, None]
    low32 = low16.float()[:, None] if bits == 4 else -_OFFSET[bits] * scale32
    codes = ((x_GE - low32) / scale32).round_().clamp_(*_LIMITS[bits])
    error = (codes * scale32 + low32 - x_GE).square_().sum(-1)
    return (codes.to(torch.uint8), scale16, low16), error


def pack(weight: Quantized, layout: Layout) -> PackedWeight:
    """Lay codes out for one of the products.

    ``torch`` has no 5-bit product and rounds 5 and 8 bits once more, to int8 with one scale per output.
    """
    n, k = weight.codes_NK.shape
    if layout == "triton":
        return _pack_triton(weight)
    if weight.group != GROUP and layout != "dense":
        raise BadInput(f"layout {layout} has groups of {GROUP}, got weights in groups of {weight.group}")
    if layout == "vnni":
        return PackedWeight("vnni", weight.bits, n, k, _pack_vnni(weight))
    if layout == "dense":
        return PackedWeight("dense", 16, n, k, weight.dequantize().to(torch.bfloat16))
    if weight.bits == 4 and n % _ROWS == 0:
        assert weight.low_NG is not None
        # torch's form is (code - 8) * scale + zero.
        zero = weight.low_NG.float() + 8 * weight.scale_NG.float()
        scales = torch.stack([weight.scale_NG.float().T, zero.T], dim=-1).to(torch.bfloat16).contiguous()
        data = torch._convert_weight_to_int4pack_for_cpu(weight.codes_NK.int(), 1)
        return PackedWeight("torch", 4, n, k, data, scales)
    w = weight.dequantize()
    scale = (w.abs().amax(dim=1) / 127).clamp_min(1e-12).to(torch.bfloat16)
    data = (w / scale.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8)
    return PackedWeight("torch", 8, n, k, data, scale)


def _pack_triton(weight: Quantized) -> PackedWeight:
    """4 bits: int32 words, word i of a group of 128 holds inputs i, 16 + i, .. 112 + i, lowest nibble first."""
    n, k = weight.codes_NK.shape
    if weight.bits == 4:
        if weight.group != GPU_GROUP or weight.low_NG is None:
            raise BadInput(f"layout triton has groups of {GPU_GROUP} for 4 bits, got groups of {weight.group}")
        nibbles = pad_inputs(weight.codes_NK, GPU_GROUP).view(n, -1, 4, 2, 16)
        bytes_ = (nibbles[:, :, :, 0] | (nibbles[:, :, :, 1] << 4)).transpose(2, 3).contiguous()
        scales = torch.stack([weight.scale_NG, weight.low_NG], dim=-1)
        return PackedWeight("triton", 4, n, k, bytes_.view(n, -1).view(torch.int32), scales)
    if weight.bits != 8:
        raise BadInput(f"layout triton has 4 and 8 bits, got {weight.bits}")
    if weight.group >= k:
        data, scale = (weight.codes_NK.short() - _OFFSET[8]).to(torch.int8), weight.scale_NG[:, 0].float()
    else:
        w = weight.dequantize()
        scale = (w.abs().amax(dim=1) / 127).clamp_min(1e-12)
        data = (w / scale[:, None]).round_().to(torch.int8)
    return PackedWeight("triton", 8, n, k, pad_inputs(data, GPU_GROUP), scale)


def unpack_triton(weight: PackedWeight) -> Tensor:
    """float32 [N, K] of a weight in layout ``triton``, in plain torch."""
    n, k = weight.rows, weight.cols
    assert weight.layout == "triton"
    assert weight.scales is not None
    if weight.bits == 8:
        return weight.data[:, :k].float() * weight.scales[:, None]
    bytes_ = weight.data.view(torch.uint8).view(n, -1, 16, 4)
    codes = torch.stack([bytes_ & 15, bytes_ >> 4], dim=-1).view(n, -1, 16, 8).transpose(2, 3).reshape(n, -1, GPU_GROUP)
    scale, low = weight.scales.float().unbind(-1)
    return (codes.float() * scale[..., None] + low[..., None]).view(n, -1)[:, :k].contiguous()


def pad_inputs(x: Tensor, multiple: int) -> Tensor:
    """x [N, K] with zeros behind, so that K is a multiple."""
    missing = -x.shape[1] % multiple
    return x.contiguous() if missing == 0 else torch.cat([x, x.new_zeros(x.shape[0], missing)], dim=1)


def _pack_vnni(weight: Quantized) -> Tensor:
    """uint8 [N/16, G, block bytes], see README.md; rows are padded with zeros to a multiple of 16."""
    n, k = weight.codes_NK.shape
    blocks, groups = -(-n // _ROWS), k // GROUP
    codes = _pad_rows(weight.codes_NK, blocks * _ROWS)
    # [N/16, 16 rows, G, 8 vectors, 4 inputs] -> [N/16, G, 8 vectors, 16 rows * 4 inputs]
    lanes = codes.view(blocks, _ROWS, groups, 8, 4).permute(0, 2, 3, 1, 4).reshape(blocks, groups, 8, 64)
    parts = [lanes.flatten(2)]
    if weight.bits < 8:
        low_nibble = lanes & 15
        parts = [(low_nibble[:, :, 0::2] | (low_nibble[:, :, 1::2] << 4)).flatten(2)]
    if weight.bits == 5:
        bits = (lanes >> 4).view(blocks, groups, 8, 8, 8)
        parts.append((bits << torch.arange(8, dtype=torch.uint8)).sum(-1, dtype=torch.uint8).flatten(2))
    for values in (weight.scale_NG, weight.low_NG):
        if values is not None:
            rows = _pad_rows(values, blocks * _ROWS).view(blocks, _ROWS, groups).transpose(1, 2)
            parts.append(rows.contiguous().view(torch.uint8))
    return torch.cat(parts, dim=-1)


def _pad_rows(x: Tensor, rows: int) -> Tensor:
    return x if x.shape[0] == rows else torch.cat([x, x.new_zeros(rows - x.shape[0], *x.shape[1:])])
