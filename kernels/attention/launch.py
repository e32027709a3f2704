"""Grids, configurations and autograd around the attention kernels. Imported when a kernel is used first.

Configurations are a table by head dimension, found on an H100; smaller tiles where shared memory is smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from .backward import attention_backward, attention_backward_queries, attention_delta, attention_finish_dq
from .forward import attention_forward

if TYPE_CHECKING:
    from .gluon import HopperConfig
    from .gluon_backward import HopperBackwardConfig

__all__ = ["HEAD_DIMS", "Call", "Config", "backward_config", "forward_config", "run", "run_backward", "run_forward"]

HEAD_DIMS = (16, 32, 64, 128, 256)
LOG2E = 1.4426950408889634


class Config(NamedTuple):
    """One way to launch a kernel.

    Attributes:
        block_m, block_n: queries and keys of a tile.
        warps, stages: of Triton.
        tma: rows are moved by the bulk tensor copy engine (compute capability 9.0 or later).
        software: entries of eight whose exponential is computed on the FMA units: 0, 1 or 2.
        lazy: 0 rescales always; 1 keeps maxima that are stale by up to 2 ** 8; 2 also skips the multiplication.
        longest_first: tiles with most keys start first.
        heads_together: heads that are walked side by side, for the L2 cache.
        specialize: Triton's automatic warp specialisation.
        dq: how the fused backward adds dQ: 1 atomics, 2 reducing bulk copy; 0: a second kernel.
    """

    block_m: int
    block_n: int
    warps: int
    stages: int
    tma: bool = False
    software: int = 0
    lazy: int = 0
    longest_first: bool = True
    heads_together: int = 4
    specialize: bool = False
    dq: int = 1


@dataclass(frozen=True)
class Call:
    """What is computed, apart from the tensors: see `perdure.kernels.attention`."""

    scale: float
    causal: bool
    window: int | None = None
    deterministic: bool = False
    gluon: bool = False
    forward: Config | HopperConfig | None = None
    backward: Config | HopperBackwardConfig | None = None


def forward_config(capability: int, dim: int, causal: bool) -> Config:
    """Of the Triton forward kernel; ``capability`` 90 is an H100."""
    if capability in (90, 100):
        return {
            64: Config(128, 64, 4, 3, tma=True),
            128: Config(128, 64, 8, 3, tma=True),
            256: Config(128, 64, 8, 2, tma=True),
        }.get(dim, Config(128, 64, 4, 3))
    if capability in (80, 87):
        return Config(128, 64, 4, 3) if dim <= 64 else Config(128, 64, 8, 2) if dim == 128 else Config(64, 32, 4, 2)
    return Config(128, 64, 4, 2) if dim <= 64 else Config(64, 64, 4, 2) if dim == 128 else Config(64, 32, 4, 1)


def backward_config(capability: int, dim: int, causal: bool) -> Config:
    """Of the Triton backward kernel."""
    if capability in (90, 100):  # a second kernel for dQ beats adding it in memory
        return {
            64: Config(64, 128, 8, 2, tma=True, dq=0),
            128: Config(64, 128, 8, 2, tma=True, dq=0),
            256: Config(32, 64, 8, 2, tma=True, dq=1),
        }.get(dim, Config(64, 64, 4, 2))
    if dim <= 64:  # eight warps: with four the accumulators spill
        return Config(64, 64, 8, 2 if capability in (80, 87) else 1)
    return Config(32, 64, 8, 2 if capability in (80, 87) else 1) if dim == 128 else Config(32, 32, 8, 1)


def run(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, cu_q: Tensor | None, cu_k: Tensor | None, call: Call
) -> tuple[Tensor, Tensor]:
    """out [B, H, S, D] and lse float32 [B, H, S], differentiable in q, k, v, bias (and lse)."""
    return _Attention.apply(q, k, v, bias, cu_q, cu_k, call)  # type: ignore[no-any-return]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        cu_q: Tensor | None,
        cu_k: Tensor | None,
        call: Call,
    ) -> tuple[Tensor, Tensor]:
        out, lse = run_forward(q, k, v, bias, cu_q, cu_k, call)
        ctx.save_for_backward(q, k, v, bias, cu_q, cu_k, out, lse)
        ctx.call = call
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx: Any, dout: Tensor | None, dlse: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, bias, cu_q, cu_k, out, lse = ctx.saved_tensors
        dout = torch.zeros_like(out) if dout is None else dout
        dq, dk, dv, dbias = run_backward(q, k, v, bias, cu_q, cu_k, out, lse, dout, dlse, ctx.call)
        return dq, dk, dv, dbias, None, None, None


def run_forward(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, cu_q: Tensor | None, cu_k: Tensor | None, call: Call
) -> tuple[Tensor, Tensor]:
    """out in the shape of q (contiguous in the order of q's dimensions) and the log-sum-exp; not differentiable."""
    batch, heads, queries, dim = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    if call.gluon and _hopper_can(q, k, v, bias, cu_q, call):
        from .gluon import gluon_forward

        return gluon_forward(q, k, v, call, None if isinstance(call.forward, Config) else call.forward)
    config = call.forward if isinstance(call.forward, Config) else forward_config(_capability(q), dim, call.causal)
    tma = config.tma and cu_q is None and _descriptor_fits(q, k, v)
    out = torch.empty_like(q)
    lse = torch.empty(batch, heads, queries, dtype=torch.float32, device=q.device)
    sequences = 0 if cu_q is None else cu_q.numel() - 1
    tiles = triton.cdiv(queries, config.block_m) + sequences
    row, column = [1, 1, config.block_m, dim], [1, 1, config.block_n, dim]
    with _on(q):
        attention_forward[(tiles * heads * batch,)](
            _descriptor(q, row) if tma else q,
            _descriptor(k, column) if tma else k,
            _descriptor(v, column) if tma else v,
            _descriptor(out, row) if tma else out,
            lse, bias, cu_q, cu_k if cu_k is not None else cu_q,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3], *_bias_strides(bias),
            heads, heads // kv_heads, queries, keys, sequences, tiles, call.scale * LOG2E, call.window or 0,
            D=dim, BLOCK_M=config.block_m, BLOCK_N=config.block_n, CAUSAL=call.causal, WINDOW=call.window is not None,
            BIAS=bias is not None, VARLEN=cu_q is not None, NZ=triton.next_power_of_2(max(sequences, 1)), TMA=tma,
            SOFTWARE=config.software, LAZY=config.lazy, LONGEST_FIRST=config.longest_first and call.causal,
            heads_together=config.heads_together, SPECIALIZE=config.specialize,
            num_warps=config.warps, num_stages=config.stages, enable_fp_fusion=True,
        )  # fmt: skip
    return out, lse


def run_backward(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, cu_q: Tensor | None, cu_k: Tensor | None,
    out: Tensor, lse: Tensor, dout: Tensor, dlse: Tensor | None, call: Call,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """dq, dk, dv and dbias (float32, None without a bias)."""
    batch, heads, queries, dim = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    if dout.stride(-1) != 1:
        dout = dout.contiguous()
    config = call.backward if isinstance(call.backward, Config) else backward_config(_capability(q), dim, call.causal)
    if call.deterministic:
        config = replace_dq(config, 0)
    tma = config.tma and cu_q is None and _descriptor_fits(q, k, v, dout)
    if config.dq == 2 and not tma:
        config = replace_dq(config, 1)
    padded = triton.cdiv(queries, 128) * 128
    shift = torch.empty(batch, heads, padded, dtype=torch.float32, device=q.device)
    delta = torch.empty_like(shift)
    dk, dv, dq = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (k, v, q))
    gluon = call.gluon and not call.deterministic and _hopper_can(q, k, v, bias, cu_q, call, dout)
    fused = dim < 256 if gluon else config.dq > 0
    dq32 = torch.zeros(batch, heads, padded, dim, dtype=torch.float32, device=q.device) if fused else dq
    dbias = torch.empty(k.shape[:3], dtype=torch.float32, device=k.device) if bias is not None else None
    sequences = 0 if cu_q is None else cu_q.numel() - 1
    cu_k = cu_k if cu_k is not None else cu_q
    if cu_k is not None:  # rows outside of every sequence
        dk.zero_(), dv.zero_(), dq.zero_()
        if dbias is not None:
            dbias.zero_()
    row, column = [1, 1, config.block_m, dim], [1, 1, config.block_n, dim]
    shared: dict[str, Any] = {
        "D": dim, "CAUSAL": call.causal, "WINDOW": call.window is not None, "BIAS": bias is not None,
        "VARLEN": cu_q is not None, "NZ": triton.next_power_of_2(max(sequences, 1)), "TMA": tma,
        "num_warps": config.warps, "num_stages": config.stages, "enable_fp_fusion": True,
    }  # fmt: skip
    window = call.window or 0
    dlse = dlse.contiguous() if dlse is not None else None
    with _on(q):
        attention_delta[(padded // 64, batch * heads)](
            out, dout, lse, dlse, delta, shift, *out.stride()[:3], *dout.stride()[:3], heads, queries, padded,
            D=dim, BLOCK_M=64, HAS_DLSE=dlse is not None, num_warps=4, num_stages=1, enable_fp_fusion=True,
        )  # fmt: skip
        if gluon:
            from .gluon_backward import gluon_backward
            from .gluon_backward_wide import gluon_backward_wide

            step = gluon_backward if dim < 256 else gluon_backward_wide
            hopper = None if isinstance(call.backward, Config) else call.backward
            step(q, k, v, dout, dq32, dk, dv, shift, delta, call, hopper)
            if fused:
                _finish(dq32, dq, call.scale)
            return dq, dk, dv, None
        tiles = triton.cdiv(keys, config.block_n) + sequences
        operands = (
            _descriptor(q, row) if tma else q, _descriptor(k, column) if tma else k, _descriptor(v,
            column) if tma else v,
            _descriptor(dout, row) if tma else dout,
        )  # fmt: skip
        attention_backward[(tiles * kv_heads * batch,)](
            *operands, _descriptor(dq32, row) if config.dq == 2 else dq32, dk, dv, dbias, shift, delta, bias, cu_q,
            cu_k,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *dout.stride()[:3], *dq32.stride()[:3], *dk.stride()[:3],
            *_bias_strides(bias), kv_heads, heads // kv_heads, queries, keys, padded, sequences, tiles,
            call.scale * LOG2E, call.scale, window,
            BLOCK_M=config.block_m, BLOCK_N=config.block_n, DQ=config.dq, heads_together=config.heads_together,
            **shared,
        )  # fmt: skip
        if config.dq:
            _finish(dq32, dq, call.scale)
        else:
            tiles = triton.cdiv(queries, config.block_n) + sequences
            if tma:
                operands = (_descriptor(q, column), _descriptor(k, row), _descriptor(v, row), _descriptor(dout, column))
            attention_backward_queries[(tiles * heads * batch,)](
                *operands, dq, shift, delta, bias, cu_q, cu_k,
                *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *dout.stride()[:3], *dq.stride()[:3],
                *_bias_strides(bias), heads, heads // kv_heads, queries, keys, padded, sequences, tiles,
                call.scale * LOG2E, call.scale, window, BLOCK_M=config.block_n, BLOCK_N=config.block_m, **shared,
            )  # fmt: skip
    return dq, dk, dv, dbias


def _hopper_can(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, cu_q: Tensor | None, call: Call, *more: Tensor
) -> bool:
    """The Gluon kernels know dense tensors of head dimension 64, 128 and 256, causal or full."""
    if q.shape[3] not in (64, 128, 256) or bias is not None or cu_q is not None or call.window is not None:
        return False
    return _descriptor_fits(q, k, v, *more)


def _finish(dq32: Tensor, dq: Tensor, scale: float) -> None:
    batch, heads, queries, dim = dq.shape
    attention_finish_dq[(triton.cdiv(queries, 32), batch * heads)](
        dq32, dq, scale, queries, dq32.shape[2], D=dim, BLOCK_M=32, num_warps=4, num_stages=1, enable_fp_fusion=True
    )


def replace_dq(config: Config, dq: int) -> Config:
    """The same configuration with another way to add dQ."""
    return config._replace(dq=dq)


def _capability(x: Tensor) -> int:
    if x.device.type != "cuda":
        return 80  # the interpreter
    major, minor = torch.cuda.get_device_capability(x.device)
    return major * 10 + minor


def _on(x: Tensor) -> Any:
    return torch.cuda.device_of(x)  # type: ignore[no-untyped-call]


def _bias_strides(bias: Tensor | None) -> tuple[int, int, int]:
    return (0, 0, 0) if bias is None else (bias.stride(0), bias.stride(1), bias.stride(2))


def _descriptor(x: Tensor, block: list[int]) -> TensorDescriptor:
    return TensorDescriptor(x, list(x.shape), list(x.stride()), block)


def _descriptor_fits(*tensors: Tensor) -> bool:
    """The copy engine wants 16-byte aligned bases and strides."""
    return all(x.data_ptr() % 16 == 0 and all(s * x.element_size() % 16 == 0 for s in x.stride()[:-1]) for x in tensors)
