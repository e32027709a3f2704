"""Every configuration that is shipped, as `perdure.kernels.aot` compiles it for a device that is not here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from triton.experimental.gluon import language as gl

from ..aot import Compilation
from .backward import attention_backward, attention_backward_queries, attention_delta, attention_finish_dq
from .forward import attention_forward
from .gluon import hopper_config, hopper_forward
from .gluon_backward import hopper_backward, hopper_backward_config
from .gluon_backward_queries import hopper_backward_queries
from .gluon_backward_wide import hopper_backward_wide
from .launch import Config, backward_config, forward_config

__all__ = ["shipped"]

_POINTERS = {
    **dict.fromkeys(("q", "k", "v", "out", "dout", "dk", "dv", "dq"), "*bf16"),
    **dict.fromkeys(("lse", "dlse", "shift", "delta", "bias", "dbias", "dq32"), "*fp32"),
    **dict.fromkeys(("cu_q", "cu_k"), "*i32"),
    **dict.fromkeys(("scale", "scale_log2"), "fp32"),
}


def shipped(capability: int) -> Iterator[Compilation]:
    """Configurations that a device of this compute capability (90 is an H100) can be asked to run.

    Head dimensions of 16 and 32 use the tiles of 64 with less memory; windows, bias and packing are compiled together.
    """
    for dim in (64, 128, 256):
        yield from _small(dim)
        yield from _triton(capability, dim, plain=True)
        yield from _triton(capability, dim, plain=False)
    if capability == 90:
        for dim in (64, 128, 256):
            for causal in (True, False):
                yield from _hopper(dim, causal)


def _triton(capability: int, dim: int, *, plain: bool) -> Iterator[Compilation]:
    case = f"hd{dim} causal{'' if plain else ' window bias packed'}"
    common: dict[str, Any] = {
        "D": dim, "CAUSAL": True, "WINDOW": not plain, "BIAS": not plain, "VARLEN": not plain, "NZ": 1 if plain else 8,
        **({"bias": None, "cu_q": None, "cu_k": None} if plain else {}),
    }  # fmt: skip
    config = forward_config(capability, dim, True)
    constants = common | {
        "BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "TMA": config.tma and plain,
        "SOFTWARE": config.software, "LAZY": config.lazy, "LONGEST_FIRST": config.longest_first,
        "SPECIALIZE": config.specialize,
    }  # fmt: skip
    yield _compilation(f"forward {case}", attention_forward, constants, config, config.block_m, config.block_n)
    config = backward_config(capability, dim, True)
    for dq in {config.dq if config.tma and plain else min(config.dq, 1), 0}:
        constants = common | {
            "BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "TMA": config.tma and plain, "DQ": dq,
            **({"dbias": None} if plain else {}),
        }  # fmt: skip
        yield _compilation(
            f"backward {case} dq{dq}", attention_backward, constants, config, config.block_m, config.block_n
        )
    constants = common | {"BLOCK_M": config.block_n, "BLOCK_N": config.block_m, "TMA": config.tma and plain}
    yield _compilation(
        f"backward queries {case}", attention_backward_queries, constants, config, config.block_n, config.block_m
    )


def _compilation(
    name: str, kernel: Any, constants: dict[str, Any], config: Config, rows: int, columns: int
) -> Compilation:
    signature = _signature(kernel, constants)
    if constants["TMA"]:
        dim = constants["D"]
        by_row, by_column = (f"tensordesc<bf16[1, 1, {n}, {dim}]>" for n in (rows, columns))
        signature |= {"q": by_row, "k": by_column, "v": by_column}
        signature |= {name: by_row for name in ("out", "dout") if name in signature}
    if "DQ" in constants:
        dq = f"tensordesc<fp32[1, 1, {rows}, {constants['D']}]>"
        signature["dq"] = {0: "*bf16", 1: "*fp32", 2: dq}[constants["DQ"]]
    options = {"num_warps": config.warps, "num_stages": config.stages, "enable_fp_fusion": True}
    return Compilation(name, kernel, signature, constants, options)


def _signature(kernel: Any, constants: dict[str, Any]) -> dict[str, str]:
    """Strides are multiples of 16, as those of contiguous tensors."""
    rest = [name for name in kernel.arg_names if name not in constants]
    return {name: _POINTERS.get(name, "i32:16" if name.startswith("stride") else "i32") for name in rest}


def _small(dim: int) -> Iterator[Compilation]:
    options = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}
    for kernel, constants in (
        (attention_delta, {"D": dim, "BLOCK_M": 64, "HAS_DLSE": True}),
        (attention_finish_dq, {"D": dim, "BLOCK_M": 32}),
    ):
        yield Compilation(f"{kernel.__name__} hd{dim}", kernel, _signature(kernel, constants), constants, options)


def _hopper(dim: int, causal: bool) -> Iterator[Compilation]:
    def rows(count: int) -> str:
        block = [1, 1, count, dim]
        return f"tensordesc<bf16{block},{gl.NVMMASharedLayout.get_default_for(block, gl.bfloat16)!r}>"

    case = f"hd{dim}{' causal' * causal}"
    options = {"num_warps": 4, "enable_fp_fusion": True}
    forward = hopper_config(dim, causal)
    constants: dict[str, Any] = {
        "D": dim, "BLOCK_N": forward.block_n, "CONSUMERS": forward.consumers, "STAGES": forward.stages,
        "CAUSAL": causal, "LONGEST_FIRST": forward.longest_first and causal, "LAZY": forward.lazy,
        "SOFTWARE": forward.software, "PINGPONG": forward.pingpong, "EARLY": forward.early,
        "REGISTERS": forward.registers,
    }  # fmt: skip
    signature = _signature(hopper_forward, constants) | {
        "q_desc": rows(64), "k_desc": rows(forward.block_n), "v_desc": rows(forward.block_n), "o_desc": rows(64),
    }  # fmt: skip
    yield Compilation(f"hopper forward {case}", hopper_forward, signature, constants, options)
    backward = hopper_backward_config(dim, causal)
    kernel, block_n = (hopper_backward_wide, 64) if dim == 256 else (hopper_backward, 128)
    constants = {
        "D": dim, "STAGES": backward.stages, "CAUSAL": causal, "REGISTERS": backward.registers,
        **({} if dim == 256 else {"M": backward.block_m}),
    }  # fmt: skip
    vector = _tile([1, backward.block_m], gl.NVMMASharedLayout(0, 32, 2))
    signature = _signature(kernel, constants) | {
        "q_desc": rows(backward.block_m), "k_desc": rows(block_n), "v_desc": rows(block_n),
        "do_desc": rows(backward.block_m), "shift_desc": vector, "delta_desc": vector,
    }  # fmt: skip
    if dim < 256:
        signature["dq_desc"] = _tile([1, 1, 64, 64], gl.NVMMASharedLayout(128, 32, 4))
    yield Compilation(f"hopper backward {case}", kernel, signature, constants, options)
    if dim == 256:
        constants = {
            "D": dim, "BLOCK_N": 64, "K_STAGES": 2, "V_STAGES": 1, "CAUSAL": causal, "REGISTERS": backward.registers,
        }  # fmt: skip
        signature = _signature(hopper_backward_queries, constants) | dict.fromkeys(
            ("q_desc", "k_desc", "v_desc", "do_desc"), rows(64)
        )
        yield Compilation(f"hopper backward queries {case}", hopper_backward_queries, signature, constants, options)


def _tile(block: list[int], layout: Any) -> str:
    return f"tensordesc<fp32{block},{layout!r}>"
