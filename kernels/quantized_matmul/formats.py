"""How weights are rounded to a few bits and how the codes are laid out for each matrix product.

Knows three roundings, all in groups of 32 inputs that share a scale, w ~ scale * code + low:

    bits  codes    low                 bits per weight  keeps exactly
    4     0..15    float16 per group   5.0              Q4_0, Q4_1 and Q4_K of GGUF (up to float16 of scale and low)
    5     0..31    -16 * scale         5.5              Q5_0
    8     1..255   -128 * scale        8.5              Q8_0

and three layouts: ``vnni`` (native.h), ``torch`` (the operators that torch ships) and ``dense``.
Does not know which tensor of a model deserves which: that is `perdure.runtime`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...errors import BadInput

GROUP = 32
_ROWS = 16
_CHUNK = 8192
_OFFSET = {5: 16, 8: 128}
_LIMITS = {4: (0, 15), 5: (0, 31), 8: (1, 255)}
# Candidates for 4 bits: (steps between least and greatest value, share of that range that is kept). 15 to 8 steps keep
# any 4-bit lattice, because one of them is the true number; the shrunk ranges help floating point sources.
_FOUR_BITS = (*((steps, 1.0) for steps in range(15, 7, -1)), (15, 0.95), (15, 0.9), (15, 0.85))
# Candidates for 5 and 8 bits: the code minus offset on which the greatest value falls. -16 is what Q5_0 does; the
# others trade the error of that value against the rest.
_PEAK_CODES = {5: (-16.0, 15.0, -17.0), 8: (127.0,)}
Bits = Literal[4, 5, 8]
Layout = Literal["vnni", "torch", "dense"]


@dataclass(frozen=True)
class Quantized:
    """Codes and scales before packing. N outputs, K inputs, G = K / 32 groups."""

    bits: int
    codes_NK: Tensor  # noqa: N815
    """uint8."""
    scale_NG: Tensor  # noqa: N815
    """float16."""
    low_NG: Tensor | None  # noqa: N815
    """float16 for 4 bits; None where it follows from the scale."""

    def dequantize(self) -> Tensor:
        """float32 [N, K]: scale * code + low."""
        n, k = self.codes_NK.shape
        scale = self.scale_NG.float()[..., None]
        low = self.low_NG.float()[..., None] if self.low_NG is not None else -_OFFSET[self.bits] * scale
        return (self.codes_NK.view(n, k // GROUP, GROUP).float() * scale + low).view(n, k)


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
    """Layout ``torch`` only: bfloat16 [G, N, 2] for 4 bits, [N] for 8."""

    @property
    def bytes(self) -> int:
        """Bytes that one product reads."""
        extra = 0 if self.scales is None else self.scales.numel() * self.scales.element_size()
        return self.data.numel() * self.data.element_size() + extra


def quantize(w_NK: Tensor, bits: Bits) -> Quantized:
    """Round a matrix to 4, 5 or 8 bits in groups of 32 inputs, with the least square error found.

    A matrix that already lies on a lattice of that many bits (as dequantised GGUF does) comes back unchanged: among
    the candidates tried are all numbers of steps that a group may use, so the right one has no error.

    Args:
        w_NK: float32 [N, K], K a multiple of 32.
        bits: 4 (scale and offset), 5 or 8 (scale only).

    Raises:
        BadInput: another shape, dtype or number of bits.
    """
    if w_NK.dtype != torch.float32 or w_NK.ndim != 2 or w_NK.shape[1] % GROUP or bits not in (4, 5, 8):
        raise BadInput(
            f"expected a float32 matrix whose inputs are a multiple of {GROUP} and 4, 5 or 8 bits, "
            f"got {w_NK.dtype} {tuple(w_NK.shape)} and {bits} bits; keep such a weight dense"
        )
    n, k = w_NK.shape
    groups = w_NK.reshape(-1, GROUP)
    codes = torch.empty(groups.shape, dtype=torch.uint8)
    scale, low = torch.empty(len(groups), dtype=torch.float16), torch.empty(len(groups), dtype=torch.float16)
    # A chunk of 1 MB stays in the cache through all candidates: several times faster than whole matrices.
    for at in range(0, len(groups), _CHUNK):
        part = slice(at, at + _CHUNK)
        codes[part], scale[part], low[part] = _quantize_groups(groups[part], bits)
    scale, low = scale.view(n, k // GROUP), low.view(n, k // GROUP)
    return Quantized(bits, codes.view(n, k), scale, low if bits == 4 else None)


def _quantize_groups(x_GE: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes [G, 32], scale and low [G]: for each group the candidate with the least square error."""
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
