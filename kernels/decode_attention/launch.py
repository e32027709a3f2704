"""Launching the kernels of `kernel.py` and `gluon.py`: sizes of tiles, how the work is cut, the arguments.

Knows the table of configurations that were measured. Does not know what is computed. Needs triton.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from .gluon import codes_kernel
from .kernel import merge_kernel, ragged_kernel, unpack_kernel
from .ragged import FORMATS, RaggedKV

__all__ = [
    "CodesConfig",
    "Config",
    "Launch",
    "able",
    "config_for",
    "prepare",
    "ragged_triton",
    "unpack",
    "unpack_launch",
]

DIMS = (64, 128, 256)


@dataclass(frozen=True)
class Config:
    """One configuration of `ragged_kernel`.

    Attributes:
        block_m: rows of a tile.
        block_n: keys of a tile; divides the group of quantised keys.
        warps: warps of a program.
        stages: tiles in flight.
        per_sm: programs for each multiprocessor when the keys are split.
        lazy: sums are kept per key until the end of a unit.
        pure_k: the compiler may move the conversion of keys behind shared memory.
        pure_v: the same for values, which then arrive byte by byte (README.md).
        swap: scores are held as keys by rows (8 rows are enough for the matrix unit then, instead of 16).
        peel: whole tiles run without masks in a loop of their own.
        registers: most registers of a thread, so that more programs fit a multiprocessor; None: the compiler's choice.
        split_below: the keys of a unit are shared out if there are fewer units than this times the programs that fit.
    """

    block_m: int
    block_n: int
    warps: int
    stages: int
    per_sm: int
    lazy: bool = True
    pure_k: bool = True
    pure_v: bool = False
    swap: bool = False
    peel: bool = False
    registers: int | None = None
    split_below: float = 0.8


@dataclass(frozen=True)
class CodesConfig:
    """One configuration of `codes_kernel`.

    Attributes:
        tokens: keys of a warp's tile, 16, 32 or 64; at most the group and the page.
        warps: warps of a program.
        per_sm: programs for each multiprocessor when the keys are split.
        registers: most registers of a thread.
    """

    tokens: int
    warps: int
    per_sm: int
    registers: int

    @property
    def block_m(self) -> int:
        """Rows of a tile."""
        return 8

    @property
    def block_n(self) -> int:
        """Keys in which the work is counted."""
        return self.tokens

    @property
    def split_below(self) -> float:
        """As in `Config`."""
        return 0.8


class Launch(NamedTuple):
    """A kernel, the arguments of one launch (tensors and numbers, constants, options) and the grid."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    constants: dict[str, Any]
    options: dict[str, Any]


def able(device: torch.device) -> bool:
    """Whether these kernels run there: a CUDA device of compute capability 8.0 or more."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def config_for(
    capability: int, rows: int, dim: int, format: str, group: int, page: int, *, tail: bool
) -> Config | CodesConfig:
    """The configuration for ``rows`` = heads of a group times queries; the tables were measured on an H100.

    `codes_kernel` serves int8 and int4 with at most 8 rows and no new tokens (``tail``), `ragged_kernel` the rest.
    """
    if format in ("int8", "int4") and rows <= 8 and not tail:
        tokens = 16 if dim == 256 else 64 if format == "int4" and dim == 128 else 32
        return CodesConfig(min(tokens, group, page or group), 4, 2, 255)
    limit = (99 if capability in (86, 89, 120) else 160 if capability < 90 else 220) << 10
    if rows <= 16:
        config = _decode(8 if rows <= 8 else 16, dim, format)
    else:
        config = Config(32 if rows <= 32 else 64, 64, 4, 3, 3 if dim == 64 else 2, lazy=False, peel=True)
        if dim == 128 and format == "plain" and 64 < rows <= 4096:  # few units: larger ones, and their keys are split
            config = replace(config, block_m=128, warps=8, per_sm=1, split_below=1.6)
        if dim == 256:
            config = replace(config, block_n=32, warps=8, stages=2, per_sm=1)
    block_n = config.block_n
    if format in ("int8", "int4"):
        block_n = min(block_n, group)
        if block_n <= 64 and config.block_n == 128:  # of tiles of 64 keys, two warps and four programs are the best
            config = replace(config, warps=2, stages=3, per_sm=4, registers=None)
    if page:
        block_n = min(block_n, max(page, 32))
    stages = config.stages
    while stages > 1 and _shared(config.block_m, block_n, dim, format, stages) > limit:
        stages -= 1
    if _shared(config.block_m, block_n, dim, format, stages) > limit:
        block_n = 32
    return replace(config, block_n=block_n, stages=stages)


def _decode(rows: int, dim: int, format: str) -> Config:
    """What was fastest of 8 to 15 configurations at 32k tokens, 8 KV heads, 4 rows, head dimension 128."""
    keys = {64: 128, 128: 64, 256: 32}[dim]
    if format == "plain":
        return Config(16, keys, 4, 3, 2)
    if format == "fp8":
        return Config(rows, min(64, keys), 2, 3, 4, swap=True, registers=168)
    if dim == 256:
        return Config(rows, 64, 4, 2, 2, swap=True)
    return Config(rows, 128, 4, 2 if format == "int8" else 3, 3, swap=True, registers=168)


def _shared(block_m: int, block_n: int, dim: int, format: str, stages: int) -> int:
    """Bytes of shared memory, about: tiles in flight, and one unpacked tile for the values and for the keys."""
    tile = block_n * dim * 2
    share = {"plain": 2, "fp8": 1, "int8": 1, "int4": 0.5}[format]
    unpacked = 0 if format == "plain" else 2 * tile
    return int(stages * tile * share) + unpacked + block_m * dim * 2


def ragged_triton(
    q_BHSD: Tensor,
    cache: RaggedKV,
    *,
    tail: tuple[Tensor, Tensor] | None = None,
    scale: float,
    q_pos_BS: Tensor | None = None,
    window: int | None = None,
    config: Config | CodesConfig | None = None,
    split: bool | None = None,
    early: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """(out [B, H, S, D] like q, lse float32 [B, H, S]); the arguments are those of the public functions.

    Args:
        config: instead of the table's (for measuring).
        split: whether the keys of a unit are shared out; None: as the sizes say.
        early: whether kernels are launched before the one before them has ended (compute capability 9.0); None: where
            they can.
    """
    launches, out, lse = prepare(
        q_BHSD,
        cache,
        tail=tail,
        scale=scale,
        q_pos_BS=q_pos_BS,
        window=window,
        config=config,
        split=split,
        early=early,
    )
    for launch in launches:
        launch.kernel[launch.grid](**launch.arguments, **launch.constants, **launch.options)
    return out, lse


def prepare(
    q: Tensor,
    cache: RaggedKV,
    *,
    tail: tuple[Tensor, Tensor] | None,
    scale: float,
    q_pos_BS: Tensor | None,
    window: int | None,
    config: Config | CodesConfig | None,
    split: bool | None,
    processors: int | None = None,
    asm: bool = True,
    early: bool | None = None,
) -> tuple[list[Launch], Tensor, Tensor]:
    """The launches (kernel, then merge if the keys are split) and their outputs."""
    batch, heads, queries, dim = q.shape
    segments, kv_heads = cache.segments, cache.segments // batch
    per_kv = heads // kv_heads
    device = q.device
    if processors is None:
        processors = torch.cuda.get_device_properties(device).multi_processor_count
    if config is None:
        major, minor = torch.cuda.get_device_capability(device)
        rows = per_kv * queries
        of = (rows, dim, cache.format, cache.group, cache.page)
        config = config_for(major * 10 + minor, *of, tail=tail is not None)
    if early is None:
        early = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
    row_tiles = triton.cdiv(per_kv * queries, config.block_m)
    tail_tokens = 0 if tail is None else tail[0].shape[2]
    tail_tiles = triton.cdiv(tail_tokens, config.block_n)
    tokens = cache.k_ND.shape[0] if cache.block_table_SP is None else cache.block_table_SP.numel() * cache.page
    most_tiles = (triton.cdiv(tokens, config.block_n) + segments * (1 + tail_tiles)) * row_tiles
    units, slots = segments * row_tiles, processors * config.per_sm
    if split is None:
        split = units < slots * config.split_below and most_tiles > units * 2
    programs = min(slots, most_tiles) if split else units
    pos = 0 if q_pos_BS is None else (1 if cache.pos_N is None else 2)
    padded = max(16, triton.next_power_of_2(segments))
    out = torch.empty(q.shape, dtype=q.dtype, device=device)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=device)
    slots_used = programs + units if split else 0
    part = torch.empty(slots_used * config.block_m * dim, dtype=torch.float32, device=device) if split else None
    stat = torch.empty(slots_used * config.block_m * 2, dtype=torch.float32, device=device) if split else None
    shared = {
        "cu_ptr": cache.cu_len,
        "len_ptr": cache.len_S,
        "qpos_ptr": q_pos_BS,
        "out_ptr": out,
        "lse_ptr": lse,
        "part_ptr": part,
        "stat_ptr": stat,
        "segments": segments,
        "kv_heads": kv_heads,
        "queries": queries,
        "programs": programs,
        "window": 0 if window is None else window,
    }
    tiling = {"tail": tail_tokens, "row_tiles": row_tiles}
    strides = dict(zip(("q_b", "q_h", "q_s"), q.stride()[:3], strict=True))
    pages = 0 if cache.block_table_SP is None else cache.block_table_SP.shape[1]
    arguments = {
        "q_ptr": q,
        "bias_ptr": cache.bias_N,
        "pos_ptr": cache.pos_N,
        "group_ptr": cache.cu_group,
        "table_ptr": cache.block_table_SP,
        "scale": scale,
        "pages": pages,
        **shared,
        **strides,
    }
    common = {
        "HEADS": per_kv,
        "D": dim,
        "HAS_LEN": cache.len_S is not None,
        "POS": pos,
        "WINDOW": window is not None,
        "SEGMENTS": padded,
    }
    constants = {
        **common,
        "FORMAT": FORMATS.index(cache.format),
        "GROUP": cache.group,
        "PAGE": cache.page if pages else 0,
        "HAS_BIAS": cache.bias_N is not None,
        "SPLIT": split,
        "EARLY": early and split,
    }
    options = {"num_warps": config.warps, "num_stages": 1, "enable_fp_fusion": True}
    if config.registers is not None:
        options["maxnreg"] = config.registers
    if isinstance(config, CodesConfig):
        kernel = codes_kernel
        arguments |= {name: x.view(torch.int32) for name, x in (("k_ptr", cache.k_ND), ("v_ptr", cache.v_ND))}
        arguments |= {"kscale_ptr": _words(cache.k_scale, True), "vscale_ptr": _words(cache.v_scale)}
        constants["T"] = config.tokens
    else:
        kernel = ragged_kernel
        arguments |= {"k_ptr": _codes(cache.k_ND), "v_ptr": _codes(cache.v_ND)}
        arguments |= {"kscale_ptr": _words(cache.k_scale), "vscale_ptr": _words(cache.v_scale)}
        arguments |= {"tk_ptr": None if tail is None else tail[0], "tv_ptr": None if tail is None else tail[1]}
        for name, x in zip(("tk", "tv"), tail or (None, None), strict=True):
            arguments |= {f"{name}_{axis}": 0 if x is None else x.stride(i) for i, axis in enumerate("bht")}
        constants |= {
            "BLOCK_M": config.block_m,
            "BLOCK_N": config.block_n,
            "TAIL": tail is not None,
            "STAGES": config.stages,
            "LAZY": config.lazy,
            "ASM": asm,
            "PURE_K": config.pure_k,
            "PURE_V": config.pure_v,
            "SWAP": config.swap,
            "PEEL": config.peel,
        }
        arguments |= tiling
        options["num_stages"] = config.stages
    if early and split:
        options["launch_pdl"] = True
    launches = [Launch(kernel, (programs,), arguments, constants, options)]
    if split:
        parts = min(64, max(8, triton.next_power_of_2(programs // units + 2)))
        merging = {"num_warps": 1, "num_stages": 1, "enable_fp_fusion": True}
        if early:
            merging["launch_pdl"] = True
        constants = {
            **common,
            "BLOCK_M": config.block_m,
            "BLOCK_N": config.block_n,
            "PARTS": parts,
            "CHANNELS": 32,
            "EARLY": early,
        }
        grid = (per_kv * queries, segments, dim // 32)
        launches.append(Launch(merge_kernel, grid, {**shared, **tiling}, constants, merging))
    return launches, out, lse


def _codes(x_ND: Tensor) -> Tensor:
    """fp8 travels as bytes: masked loads of it need no zero of that type."""
    return x_ND.view(torch.uint8) if x_ND.dtype == torch.float8_e4m3fn else x_ND


def _words(x: Tensor | None, always: bool = False) -> Tensor | None:
    """The pairs (scale, low) of int4 travel as 32-bit words: asynchronous copies of 2 bytes do not exist."""
    return x.view(torch.int32) if x is not None and (always or x.dtype == torch.bfloat16) else x


def unpack(cache: RaggedKV, dtype: torch.dtype) -> RaggedKV:
    """The cache as a plain one of ``dtype``, packed rows at the same places (rows of no segment stay unwritten).

    Worth it when a quantised tile would be converted by many row tiles: 512 queries over 16k tokens, for example.
    """
    tokens = cache.k_ND.shape[0]
    k, v = (torch.empty(tokens, cache.dim, dtype=dtype, device=cache.k_ND.device) for _ in range(2))
    launch = unpack_launch(cache, k, v)
    launch.kernel[launch.grid](**launch.arguments, **launch.constants, **launch.options)
    return replace(cache, k_ND=k, v_ND=v, k_scale=None, v_scale=None, cu_group=None)


def unpack_launch(cache: RaggedKV, k_ND: Tensor, v_ND: Tensor) -> Launch:
    """The launch of `unpack_kernel` into ``k_ND`` and ``v_ND``."""
    block_n = min(32, cache.group)
    pages = 0 if cache.block_table_SP is None else cache.block_table_SP.shape[1]
    if pages:
        block_n = min(block_n, cache.page)
    covered = cache.segments * pages * cache.page if pages else cache.k_ND.shape[0]
    arguments = {
        "k_ptr": _codes(cache.k_ND),
        "v_ptr": _codes(cache.v_ND),
        "kscale_ptr": _words(cache.k_scale),
        "vscale_ptr": _words(cache.v_scale),
        "cu_ptr": cache.cu_len,
        "len_ptr": cache.len_S,
        "group_ptr": cache.cu_group,
        "table_ptr": cache.block_table_SP,
        "ko_ptr": k_ND,
        "vo_ptr": v_ND,
        "segments": cache.segments,
        "pages": pages,
    }
    constants = {
        "D": cache.dim,
        "BLOCK_N": block_n,
        "FORMAT": FORMATS.index(cache.format),
        "GROUP": cache.group,
        "PAGE": cache.page if pages else 0,
        "HAS_LEN": cache.len_S is not None,
        "SEGMENTS": max(16, triton.next_power_of_2(cache.segments)),
    }
    options = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}
    return Launch(unpack_kernel, (triton.cdiv(covered, block_n) + cache.segments,), arguments, constants, options)
