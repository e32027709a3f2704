"""Chooses tiles, quantises, and launches the kernels of low-bit attention. Needs triton; imported where it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from . import backward, kernel

__all__ = [
    "BACKWARD_TILE",
    "TRAINED_DIM",
    "SageAttention",
    "Tile",
    "backward_warps",
    "forward",
    "hopper_forward",
    "hopper_tile",
    "portable_forward",
    "portable_tile",
    "quantize",
    "with_mean",
]

LOG2_E = 1.4426950408889634
CHUNK = 1024  # rows of the first pass over K and V that one program sums
Q_TILE = 128  # queries that share a mean when Q is smoothed
BACKWARD_TILE = 64
TRAINED_DIM = 128  # SageBwd: the greatest head dim


@dataclass(frozen=True)
class Tile:
    """Shape of a tile, stages and warps; and switches of ``hopper.py``.

    ``share`` of 8 exponentials in software (1 or 2), ``two`` levels of accumulation, ``ping``: the groups take turns at
    the matrix unit, ``hold``: the wait for PV stays behind the exponentials.
    """

    m: int
    n: int
    stages: int
    warps: int
    share: int = 0
    two: bool = False
    ping: bool = False
    hold: bool = False
    registers: int = 240


def hopper_tile(dim: int, fp8: bool) -> Tile:
    """Measured on an H100 (README.md): software exp2 pays at head dim 64, turns at 64 and 128."""
    if dim == 256:
        return Tile(128, 64, 4 if fp8 else 2, 4)
    if dim == 64:
        return Tile(128, 128, 4, 4, share=1, ping=True)
    return Tile(128, 128, 4 if fp8 else 3, 4, ping=True)


def portable_tile(dim: int, fp8: bool, capability: int) -> Tile:
    """Tiles that fit the shared memory of every device: 99 KB on sm_89 and sm_120, 163 KB on sm_80, 227 KB on sm_90."""
    if dim == 256:
        return Tile(64 if capability in (89, 120) else 128, 64, 2, 8)
    if capability in (90, 100):
        return Tile(128, 128 if fp8 else 64, 3, 8)
    return Tile(128, 64, 2, 8 if dim == 128 else 4)


def backward_warps(dim: int) -> int:
    """Eight from head dim 128: with four, 536 bytes a thread spill."""
    return 8 if dim >= 128 else 4


def forward(
    name: str, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float, values: str, smooth_q: bool, lse: bool
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp (of the true keys if ``lse``, else of the keys without their mean)."""
    capability = _capability(q)
    fp8 = values == "fp8" and capability >= 89
    if smooth_q or name == "triton":
        tile = portable_tile(q.shape[-1], fp8, capability)
        out, log_sum, mean = portable_forward(q, k, v, causal, scale, fp8, smooth_q, tile)
    else:
        out, log_sum, mean = hopper_forward(q, k, v, causal, scale, fp8, hopper_tile(q.shape[-1], fp8))
    if lse:
        log_sum = log_sum + scale * with_mean(q, mean)
    return out, log_sum


def with_mean(q: Tensor, mean_BKD: Tensor) -> Tensor:
    """q . mean(k) [B, H, S]: what taking the mean off the keys takes off every score of a row."""
    mean = mean_BKD.repeat_interleave(q.shape[1] // mean_BKD.shape[1], dim=1)
    return torch.einsum("bhsd,bhd->bhs", q.float(), mean)


@dataclass(frozen=True)
class Keys:
    """Quantised keys and values; see ``kernel.quantize_keys_and_values``."""

    k8: Tensor
    kt8: Tensor
    k_scale: Tensor
    mean: Tensor
    v8: Tensor
    v_scale: Tensor
    padded: int


def quantize(k: Tensor, v: Tensor, n: int, fp8: bool, permute: bool, transpose: bool = False) -> Keys:
    """Two passes: sums and maxima of the channels, then the rounding."""
    batch, heads, keys, dim = k.shape
    bk, padded, chunks = batch * heads, triton.cdiv(keys, n) * n, triton.cdiv(keys, CHUNK)
    partial = k.new_empty((2, bk, chunks, dim), dtype=torch.float32)
    rows = 8192 // dim
    kernel.statistics[(chunks, bk)](
        k, v, partial[0], partial[1], keys, CHUNK, D=dim, ROWS=rows, HAS_V=fp8,
        num_warps=8, num_stages=1, enable_fp_fusion=True,
    )  # fmt: skip
    k8 = k.new_empty((bk * padded, dim), dtype=torch.int8)
    kt8 = k.new_empty((bk * dim, padded), dtype=torch.int8) if transpose else k8
    v8 = v.new_empty((bk * dim, padded), dtype=torch.float8_e4m3fn) if fp8 else v
    scales = k.new_empty((bk * (padded // n),), dtype=torch.float32)
    mean = k.new_empty((batch, heads, dim), dtype=torch.float32)
    v_scale = k.new_empty((bk, dim), dtype=torch.float32) if fp8 else mean
    kernel.quantize_keys_and_values[(padded // n, bk)](
        k, v, partial[0], partial[1], k8, kt8, scales, mean, v8, v_scale, keys, padded, chunks,
        D=dim, N=n, CHUNKS_P2=triton.next_power_of_2(chunks), HAS_V=fp8, HAS_KT=transpose, PERMUTE=permute,
        num_warps=8, num_stages=1, enable_fp_fusion=True,
    )  # fmt: skip
    return Keys(k8, kt8, scales, mean, v8, v_scale, padded)


def hopper_forward(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float, fp8: bool, tile: Tile, ready: Keys | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The Gluon kernel; ``ready`` leaves the quantisation out (to time it)."""
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    from . import hopper

    batch, heads, queries, dim = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    done = quantize(k, v, tile.n, fp8, permute=True) if ready is None else ready
    if fp8:
        values, v_block, v_type = done.v8, [dim, tile.n], gl.float8e4nv
    else:
        if keys != done.padded:
            v = torch.nn.functional.pad(v, (0, 0, 0, done.padded - keys))
        v_type = gl.bfloat16 if v.dtype == torch.bfloat16 else gl.float16
        values, v_block = v.view(-1, dim), [tile.n, dim]
    k_block = [tile.n, dim]
    k_layout = gl.NVMMASharedLayout.get_default_for(k_block, gl.int8)
    v_layout = gl.NVMMASharedLayout.get_default_for(v_block, v_type)
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)
    hopper.forward[(triton.cdiv(queries, tile.m), batch * heads)](
        q, TensorDescriptor.from_tensor(done.k8, k_block, k_layout),
        TensorDescriptor.from_tensor(values, v_block, v_layout),
        done.k_scale, done.v_scale, out, lse, scale * LOG2_E, heads, kv_heads, queries, keys, done.padded,
        D=dim, M=tile.m, N=tile.n, CAUSAL=causal, FP8=fp8, SHARE=tile.share, TWO=tile.two, PING=tile.ping,
        HOLD=tile.hold, STAGES=tile.stages, REGISTERS=tile.registers, num_warps=4, num_stages=1, enable_fp_fusion=True,
    )  # fmt: skip
    return out, lse, done.mean


def portable_forward(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float, fp8: bool, smooth_q: bool, tile: Tile
) -> tuple[Tensor, Tensor, Tensor]:
    done = quantize(k, v, tile.n, fp8, permute=False)
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)
    shift = out
    if smooth_q:
        q, shift = _smoothed(q, done, tile, scale * LOG2_E)
    _launch_portable(q, done, v, shift, out, lse, causal, scale, fp8, smooth_q, False, tile, k.shape)
    return out, lse, done.mean


def _smoothed(q: Tensor, done: Keys, tile: Tile, scale_log2e: float) -> tuple[Tensor, Tensor]:
    """Queries minus the mean of their tile, and that mean times the quantised keys: [B H, tiles, T_PAD] fp32."""
    batch, heads, queries, dim = q.shape
    tiles = triton.cdiv(queries, tile.m)
    padded = torch.nn.functional.pad(q.float(), (0, 0, 0, tiles * tile.m - queries)).view(batch, heads, tiles, -1, dim)
    count = torch.full((tiles, 1), tile.m, device=q.device)
    count[-1] = queries - (tiles - 1) * tile.m
    mean = padded.sum(3) / count
    smooth = (padded - mean[:, :, :, None]).view(batch, heads, -1, dim)[:, :, :queries].to(q.dtype).contiguous()
    kv_heads = done.mean.shape[1]
    k = done.k8.view(batch, kv_heads, -1, tile.n, dim).float() * done.k_scale.view(batch, kv_heads, -1, 1, 1)
    k = k.view(batch, kv_heads, -1, dim).repeat_interleave(heads // kv_heads, dim=1)
    return smooth, (mean @ k.transpose(-1, -2) * scale_log2e).contiguous()


def _launch_portable(
    q: Tensor, done: Keys, v: Tensor, shift: Tensor, out: Tensor, lse: Tensor, causal: bool, scale: float, fp8: bool,
    smooth_q: bool, one_q_scale: bool, tile: Tile, kv_shape: torch.Size,
) -> None:  # fmt: skip
    batch, heads, queries, dim = q.shape
    kernel.forward[(triton.cdiv(queries, tile.m), batch * heads)](
        q, done.k8, done.v8 if fp8 else v, done.k_scale, done.v_scale, shift, out, lse, scale * LOG2_E,
        heads, kv_shape[1], queries, kv_shape[2], done.padded,
        D=dim, M=tile.m, N=tile.n, CAUSAL=causal, FP8=fp8, ONE_Q_SCALE=one_q_scale, SHIFT=smooth_q, STAGES=tile.stages,
        num_warps=tile.warps, num_stages=tile.stages, enable_fp_fusion=True,
    )  # fmt: skip


class SageAttention(torch.autograd.Function):
    """INT8 attention with the INT8 backward of SageBwd; values and dP = dO V^T in half precision."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
        """One scale for each 64 queries, so that the backward recomputes the very same scores."""
        n = BACKWARD_TILE
        done = quantize(k, v, n, fp8=False, permute=False, transpose=True)
        out, lse = torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)
        tile = Tile(n, n, 2, 4)
        _launch_portable(q, done, v, out, out, lse, causal, scale, False, False, True, tile, k.shape)
        ctx.save_for_backward(q, k, v, out, lse, done.k8, done.kt8, done.k_scale, done.mean)
        ctx.causal, ctx.scale, ctx.padded = causal, scale, done.padded
        true_lse = lse + scale * with_mean(q, done.mean)
        ctx.mark_non_differentiable(true_lse)
        return out, true_lse

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """dQ, dK, dV in the dtype of the inputs."""
        q, k, v, out, lse, k8, kt8, k_scale, mean = ctx.saved_tensors
        do = gradients[0].contiguous()
        batch, heads, queries, dim = q.shape
        kv_heads, keys = k.shape[1], k.shape[2]
        n = BACKWARD_TILE
        padded = triton.cdiv(queries, n) * n
        q8, qt8, q_scale = _rows(q, padded)
        _, dot8, do_scale = _rows(do, padded)
        delta = (do.float() * out.float()).sum(-1)
        lse2 = lse * LOG2_E
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        shape = (heads, kv_heads, queries, padded, keys, ctx.padded)
        constants = {"D": dim, "M": n, "N": n, "CAUSAL": ctx.causal}
        options = {"num_warps": backward_warps(dim), "num_stages": 2, "enable_fp_fusion": True}
        scales = (ctx.scale, ctx.scale * LOG2_E)
        backward.backward_keys[(ctx.padded // n, batch * kv_heads)](
            q8, qt8, q_scale, k8, k_scale, v, do, dot8, do_scale, lse2, delta, dk, dv, *scales, *shape,
            **constants, **options,
        )  # fmt: skip
        backward.backward_queries[(padded // n, batch * heads)](
            q8, q_scale, k8, kt8, k_scale, mean, v, do, lse2, delta, dq, *scales, *shape, **constants, **options
        )
        return dq, dk, dv, None, None


def _rows(x: Tensor, padded: int) -> tuple[Tensor, Tensor, Tensor]:
    """``kernel.quantize_rows``: INT8 rows, their transpose, and a scale for each tile."""
    batch, heads, rows, dim = x.shape
    bh, n = batch * heads, BACKWARD_TILE
    x8 = x.new_empty((bh, padded, dim), dtype=torch.int8)
    xt8 = x.new_empty((bh, dim, padded), dtype=torch.int8)
    scale = x.new_empty((bh, padded // n), dtype=torch.float32)
    kernel.quantize_rows[(padded // n, bh)](
        x, x8, xt8, scale, rows, padded, D=dim, M=n, num_warps=4, num_stages=1, enable_fp_fusion=True
    )
    return x8, xt8, scale


def _capability(x: Tensor) -> int:
    if x.device.type != "cuda":  # the interpreter
        return 90
    major, minor = torch.cuda.get_device_capability(x.device)
    return major * 10 + minor
