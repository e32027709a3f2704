"""Every configuration of the quantised products that is launched on a device, for compilation ahead of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..aot import Compilation
from . import kernel
from .launch import Gemm, Gemv, gemm_config, gemv_w4_config, gemv_w8_config

__all__ = ["GEMM_TOKENS", "SHAPES", "compilation", "gemms", "gemvs", "shipped"]

SHAPES = ((896, 896), (896, 4864), (4096, 14336), (28672, 8192))
"""Rows and inputs that reach every entry of the GEMV tables."""
GEMM_TOKENS = (16, 64, 256, 1024, 4096)
"""Tokens that reach every entry of the GEMM table."""

_TYPES = {"x_MK": "*bf16", "x_K": "*bf16", "y_N": "*bf16", "y_MN": "*bf16", "y_SMN": "*bf16", "bias_N": "*bf16"}
_POINTERS = {
    "x_W": "*i32", "x_MW": "*i32", "words_NW": "*i32", "scales_NG": "*i32", "planes_NPB": "*i32", "x_sum": "*i32",
    "x_sum_M": "*i32", "sum_M": "*i32", "bytes_NK": "*i8", "bytes_NB": "*i8", "q_MK": "*i8", "x_scale": "*fp32",
    "x_scale_M": "*fp32", "scale_M": "*fp32", "scale_N": "*fp32", "x_sums_GM": "*fp32", "sums_GM": "*fp32",
    "part_SE": "*fp32", "y_E": "*bf16", "w_NK": "*bf16",
}  # fmt: skip


def shipped(capability: int) -> Iterator[Compilation]:
    """All kernels with bfloat16 activations (float16 has the same blocks) for ``capability``, 90 for an H100."""
    for c in gemvs(gemv_w4_config):
        yield compilation("gemv_w4", kernel.gemv_w4, _gemv(c) | {"ASM": True}, c.warps, c.stages)
    for c in gemvs(gemv_w8_config):
        yield compilation("gemv_w8", kernel.gemv_w8, _gemv(c), c.warps, c.stages)
        yield compilation("gemv_i8", kernel.gemv_i8, _gemv(c) | {"ASM": True}, c.warps, c.stages)
    for g in gemms(4, capability):
        yield compilation("gemm_w4", kernel.gemm_w4, gemm_constants(g) | {"ASM": True}, g.warps, g.stages)
    for g in gemms(16, capability):
        yield compilation("gemm_w8", kernel.gemm_w8, gemm_constants(g) | {"INT8": False}, g.warps, g.stages)
    for g in gemms(8, capability):
        constants = gemm_constants(g) | {"INT8": True}
        yield compilation("gemm_i8", kernel.gemm_w8, constants, g.warps, g.stages, {"x_MK": "*i8"})
    yield compilation("add_parts", kernel.add_parts, {"SPLIT": 4, "BLOCK": 1024}, 4, 1)
    yield compilation("group_sums", kernel.group_sums, {"BLOCK_G": 16}, 4, 1)
    for spread in (1, 4, 8):
        constants = {"BLOCK": 4096, "SPREAD": spread, "STAGES": 1}
        yield compilation("round_tokens", kernel.round_tokens, constants, 8, 1)
    yield compilation("unpack_w4", kernel.unpack_w4, {"BLOCK_G": 16}, 4, 1)
    yield compilation("unpack_w8", kernel.unpack_w8, {"BLOCK": 2048}, 4, 1)


def gemvs(table: Any) -> list[Gemv]:
    """The different entries of a GEMV table."""
    return list(dict.fromkeys(table(rows, cols) for rows, cols in SHAPES))


def gemms(bits: int, capability: int) -> list[Gemm]:
    """The different entries of the GEMM table."""
    return list(dict.fromkeys(gemm_config(tokens, bits, capability) for tokens in GEMM_TOKENS))


def gemm_constants(c: Gemm) -> dict[str, Any]:
    """The constants that every GEMM has."""
    return {"HAS_BIAS": True, "BLOCK_N": c.block_n, "BLOCK_M": c.block_m, "STAGES": c.stages}


def _gemv(c: Gemv) -> dict[str, Any]:
    return {"HAS_BIAS": True, "BLOCK_N": c.block_n, "BLOCK_T": c.block_t, "EVEN": False, "STAGES": c.stages}


def compilation(
    name: str,
    function: Any,
    constants: Mapping[str, Any],
    warps: int,
    stages: int,
    types: Mapping[str, str] | None = None,
) -> Compilation:
    """One configuration; argument types follow from the names that all kernels here share, or from ``types``."""
    known = _TYPES | _POINTERS | dict(types or {})
    signature = {n: known.get(n, "i32") for n in function.arg_names if n not in constants}
    words = " ".join(f"{key.lower()}={value}" for key, value in constants.items())
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    return Compilation(f"{name} {words}", function, signature, dict(constants), options)
