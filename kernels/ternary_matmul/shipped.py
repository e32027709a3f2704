"""Every configuration of the ternary products that is launched on a device, for compilation ahead of time."""

from __future__ import annotations

from collections.abc import Iterator

from ..aot import Compilation
from ..quantized_matmul.shipped import compilation, gemm_constants, gemms, gemvs
from . import kernel
from .formats import SPARSITY
from .launch import gemv_config, sparse_config, unpack_blocks

__all__ = ["shipped"]


def shipped(capability: int) -> Iterator[Compilation]:
    """All kernels with bfloat16 products for ``capability``, 90 for an H100."""
    for c in gemvs(gemv_config):
        constants = {"HAS_BIAS": True, "BLOCK_N": c.block_n, "BLOCK_T": c.block_t, "EVEN": False, "STAGES": c.stages}
        yield compilation("gemv_t2", kernel.gemv_t2, constants | {"ASM": True}, c.warps, c.stages)
    for kept, group in SPARSITY.values():
        for c in dict.fromkeys(sparse_config(rows, blocks) for rows in (896, 4096, 14336) for blocks in (16, 32)):
            constants = {"BLOCK_N": c.block_n, "BLOCK_T": c.block_t, "EVEN": False, "STAGES": c.stages, "ASM": True}
            constants |= {"KEPT": kept, "HAS_BIAS": True}
            yield compilation("gemv_sparse", kernel.gemv_sparse, constants, c.warps, c.stages)
        constants = {"KEPT": kept, "BLOCK_B": unpack_blocks(group)}
        yield compilation("unpack_sparse", kernel.unpack_sparse, constants, 1, 1)
    for g in gemms(2, capability):
        constants = gemm_constants(g) | {"ASM": True}
        yield compilation("gemm_t2", kernel.gemm_t2, constants, g.warps, g.stages, {"x_MK": "*i8"})
    yield compilation("unpack_t2", kernel.unpack_t2, {"BLOCK_B": 32}, 4, 1, {"w_NK": "*i8"})
