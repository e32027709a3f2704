"""Every configuration of low-bit attention that is launched on a device, for compilation ahead of time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..aot import Compilation
from . import backward, kernel
from .launch import BACKWARD_TILE, TRAINED_DIM, Tile, backward_warps, hopper_tile, portable_tile

__all__ = ["shipped"]

_DIMS = (64, 128, 256)


def shipped(capability: int) -> Iterator[Compilation]:
    """All of ``capability`` (90 for an H100) in bfloat16; float16 has the same tiles.

    The portable kernels are given causal: without the mask they are the same, less one comparison.
    """
    kinds = (True, False) if capability >= 89 else (False,)
    for dim in _DIMS:
        for fp8 in kinds:
            tile = portable_tile(dim, fp8, capability)
            yield from _quantization(dim, tile.n, fp8, permute=False)
            yield _portable(dim, fp8, True, tile, sage=False)
            if capability == 90:
                tile = hopper_tile(dim, fp8)
                yield from _quantization(dim, tile.n, fp8, permute=True)
                for causal in (True, False):
                    yield _hopper(dim, fp8, causal, tile)
        if dim <= TRAINED_DIM:
            yield from _sage(dim)


def _portable(dim: int, fp8: bool, causal: bool, tile: Tile, sage: bool) -> Compilation:
    pointers = "q:*bf16 k8:*i8 v:*bf16 k_scale:*fp32 v_scale:*fp32 shift:*fp32 o:*bf16 lse:*fp32".replace(
        "v:*bf16", "v:*fp8e4nv" if fp8 else "v:*bf16"
    )
    signature = _signature(pointers, "scale_log2e", "H K S T T_PAD:16")
    constants = {
        "D": dim, "M": tile.m, "N": tile.n, "CAUSAL": causal, "FP8": fp8, "ONE_Q_SCALE": sage, "SHIFT": False,
        "STAGES": tile.stages,
    }  # fmt: skip
    name = f"{'SageBwd' if sage else 'portable'} forward {_words(dim, fp8, causal)} {tile.m}x{tile.n}"
    return Compilation(name, kernel.forward, signature, constants, _options(tile.warps, tile.stages))


def _hopper(dim: int, fp8: bool, causal: bool, tile: Tile) -> Compilation:
    from triton.experimental.gluon import language as gl

    from . import hopper

    block, kind, type_ = ([dim, tile.n], "fp8e4nv", gl.float8e4nv) if fp8 else ([tile.n, dim], "bf16", gl.bfloat16)
    k_layout = gl.NVMMASharedLayout.get_default_for([tile.n, dim], gl.int8)
    v_layout = gl.NVMMASharedLayout.get_default_for(block, type_)
    signature = {
        **_signature("q:*bf16 k_scale:*fp32 v_scale:*fp32 o:*bf16 lse:*fp32", "scale_log2e", "H K S T T_PAD:16"),
        "k_desc": f"tensordesc<i8[{tile.n}, {dim}],{k_layout!r}>",
        "v_desc": f"tensordesc<{kind}{block},{v_layout!r}>",
    }
    constants = {
        "D": dim, "M": tile.m, "N": tile.n, "CAUSAL": causal, "FP8": fp8, "SHARE": tile.share, "TWO": tile.two,
        "PING": tile.ping, "HOLD": tile.hold, "STAGES": tile.stages, "REGISTERS": tile.registers,
    }  # fmt: skip
    name = f"hopper forward {_words(dim, fp8, causal)} {tile.m}x{tile.n}"
    return Compilation(name, hopper.forward, signature, constants, _options(4, 1))


def _quantization(dim: int, n: int, fp8: bool, permute: bool, transpose: bool = False) -> Iterator[Compilation]:
    label = f"hd{dim} {'fp8' if fp8 else 'half'} {n}{' permuted' * permute}{' transposed' * transpose}"
    yield Compilation(
        f"statistics {label}", kernel.statistics,
        _signature("k:*bf16 v:*bf16 sum:*fp32 top:*fp32", "", "T CHUNK:16"),
        {"D": dim, "ROWS": 8192 // dim, "HAS_V": fp8}, _options(8, 1),
    )  # fmt: skip
    v8 = "v8:*fp8e4nv" if fp8 else "v8:*bf16"
    pointers = f"k:*bf16 v:*bf16 sum:*fp32 top:*fp32 k8:*i8 kt8:*i8 k_scale:*fp32 mean:*fp32 {v8} v_scale:*fp32"
    yield Compilation(
        f"quantize {label}", kernel.quantize_keys_and_values, _signature(pointers, "", "T T_PAD:16 CHUNKS"),
        {"D": dim, "N": n, "CHUNKS_P2": 32, "HAS_V": fp8, "HAS_KT": transpose, "PERMUTE": permute}, _options(8, 1),
    )  # fmt: skip


def _sage(dim: int) -> Iterator[Compilation]:
    n = BACKWARD_TILE
    yield from _quantization(dim, n, False, permute=False, transpose=True)
    yield Compilation(
        f"quantize rows hd{dim}", kernel.quantize_rows,
        _signature("x:*bf16 x8:*i8 xt8:*i8 scale:*fp32", "", "S S_PAD:16"), {"D": dim, "M": n}, _options(4, 1),
    )  # fmt: skip
    yield _portable(dim, False, True, Tile(n, n, 2, 4), sage=True)
    constants = {"D": dim, "M": n, "N": n, "CAUSAL": True}
    integers = "H K S S_PAD:16 T T_PAD:16"
    pointers = (
        "q8:*i8 qt8:*i8 q_scale:*fp32 k8:*i8 k_scale:*fp32 v:*bf16 do:*bf16 dot8:*i8 do_scale:*fp32 lse:*fp32 "
        "delta:*fp32 dk:*bf16 dv:*bf16"
    )
    yield Compilation(
        f"backward of keys {_words(dim, False, True)}", backward.backward_keys,
        _signature(pointers, "scale scale_log2e", integers), constants, _options(backward_warps(dim), 2),
    )  # fmt: skip
    pointers = (
        "q8:*i8 q_scale:*fp32 k8:*i8 kt8:*i8 k_scale:*fp32 mean:*fp32 v:*bf16 do:*bf16 lse:*fp32 delta:*fp32 dq:*bf16"
    )
    yield Compilation(
        f"backward of queries {_words(dim, False, True)}", backward.backward_queries,
        _signature(pointers, "scale scale_log2e", integers), constants, _options(backward_warps(dim), 2),
    )  # fmt: skip


def _signature(pointers: str, floats: str, integers: str) -> dict[str, str]:
    found = {}
    for word in pointers.split():
        name, kind = word.split(":")
        found[f"{name}_ptr"] = kind
    found.update(dict.fromkeys(floats.split(), "fp32"))
    for word in integers.split():
        name, _, multiple = word.partition(":")
        found[name] = f"i32:{multiple}" if multiple else "i32"
    return found


def _options(warps: int, stages: int) -> dict[str, Any]:
    return {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}


def _words(dim: int, fp8: bool, causal: bool) -> str:
    return f"hd{dim} {'fp8' if fp8 else 'half'} {'causal' if causal else 'full'}"
