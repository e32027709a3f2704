"""Every configuration that `decode_attention` and `append_attention` launch, for compiling ahead of time."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..aot import Compilation
from .launch import Launch, config_for, prepare, unpack_launch
from .ragged import RaggedKV, quantize_kv

__all__ = ["attend", "shipped"]

_TYPES = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
_HEADS = 4  # query heads a KV head


def shipped(capability: int) -> Iterator[Compilation]:
    """Decode: one of each kind (formats, head dimensions, codes straight to the matrix unit or not), and the merge."""
    for format, dim, rows in (
        ("plain", 64, 7),
        ("plain", 256, 16),
        ("int8", 128, 4),
        ("int4", 128, 4),
        ("int8", 256, 8),
        ("int4", 64, 7),
        ("int8", 128, 16),
        ("int4", 64, 16),
        ("fp8", 128, 4),
    ):
        if format != "fp8" or capability >= 89:
            yield attend(capability, format, dim, rows, 0)
    yield attend(capability, "plain", 128, 4, 0, merge=True)


def attend(capability: int, format: str, dim: int, rows: int, tail: int, *, merge: bool = False) -> Compilation:
    """One configuration of `ragged_kernel` or `codes_kernel` (or their merge) with biases; ``tail`` new tokens."""
    cache = _cache(format, dim)
    queries = max(1, rows // _HEADS) if tail else 1
    heads = _HEADS if tail else rows
    config = config_for(capability, heads * queries, dim, format, cache.group, 0, tail=bool(tail))
    q = torch.empty(1, 2 * heads, queries, dim, dtype=torch.bfloat16)
    new = torch.empty(1, 2, tail, dim, dtype=torch.bfloat16)
    launches, _, _ = prepare(
        q,
        cache,
        tail=(new, new) if tail else None,
        scale=1.0,
        q_pos_BS=None,
        window=None,
        config=config,
        split=rows <= 64,
        processors=132,
        early=capability >= 90,
    )
    name = f"{'append' if tail else 'decode'} {format} hd{dim} {rows} rows"
    if merge:
        return _compilation(f"merge hd{dim}", launches[1])
    return _compilation(name, launches[0])


def unpacking(format: str, dim: int) -> Compilation:
    """`unpack_kernel` for a format."""
    cache = _cache(format, dim)
    k = torch.empty(cache.k_ND.shape[0], dim, dtype=torch.bfloat16)
    return _compilation(f"unpack {format} hd{dim}", unpack_launch(cache, k, k))


def _cache(format: str, dim: int) -> RaggedKV:
    k = torch.zeros(256, dim, dtype=torch.bfloat16)
    cu_len = torch.tensor([0, 128, 256], dtype=torch.int32)
    plain = RaggedKV(k, k.clone(), cu_len, bias_N=torch.zeros(256))
    return plain if format == "plain" else quantize_kv(plain, format)


def _compilation(name: str, launch: Launch) -> Compilation:
    signature, constants = {}, dict(launch.constants)
    for argument, value in launch.arguments.items():
        if value is None:
            constants[argument] = None
        elif isinstance(value, torch.Tensor):
            signature[argument] = _TYPES[value.dtype]
        elif isinstance(value, float):
            signature[argument] = "fp32"
        else:  # strides of heads and tokens are multiples of the head dimension
            signature[argument] = "i32:16" if argument.startswith(("q_", "tk_", "tv_")) else "i32"
    return Compilation(name, launch.kernel, signature, constants, launch.options)
