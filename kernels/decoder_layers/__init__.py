"""All layers of a Llama-type decoder for a few tokens in one call. Derivation: README.md."""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import BadInput
from .. import native
from ..decode_attention import RaggedKV
from ..quantized_matmul import Matrix, matrix
from .reference import DecoderShape, LayerWeights, decoder_layer, rotate

__all__ = [
    "MAX_TOKENS",
    "DecoderShape",
    "FusedLayers",
    "LayerWeights",
    "decoder_layer",
    "fits",
    "rotate",
]

MAX_TOKENS = 64
_pointer = ctypes.c_void_p
_FORMATS = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.int8: 3, torch.uint8: 4}
"""Storage of kept keys by dtype, numbered as in attention/native.h."""


class _Shape(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("hidden", "heads", "kv_heads", "dim", "ffn", "capacity", "window")),
        ("eps", ctypes.c_float),
        ("scale", ctypes.c_float),
        ("cosine", _pointer),
        ("sine", _pointer),
    ]


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, Matrix) for name in ("q", "k", "v", "o", "gate", "up", "down")),
        *((name, _pointer) for name in ("norm_in", "norm_ffn", "bias_q", "bias_k", "bias_v")),
        *((name, _pointer) for name in ("key_bias", "keys", "values")),
    ]


class _Kept(ctypes.Structure):
    _fields_ = [
        *((name, _pointer) for name in ("k", "v", "bias", "start", "length", "k_scale", "v_scale", "first_group")),
        ("group", ctypes.c_int64),
        ("format", ctypes.c_int32),
    ]


class FusedLayers:
    """The layers bound to one cache, run by the project's own C++; up to 64 tokens a call.

    Args:
        layers: weights, all in layout ``vnni``.
        shape: sizes; hidden, ffn and heads * dim multiples of 32, dim of 16.
        cosine_TE, sine_TE: float32 [at least capacity, dim / 2].
        keys, values: per layer float16 [kv_heads, capacity, dim], contiguous.
        key_bias: per layer float32 [kv_heads, capacity], or None.

    Raises:
        BadInput: something does not fit; ask `fits` first.
    """

    def __init__(
        self,
        layers: Sequence[LayerWeights],
        shape: DecoderShape,
        cosine_TE: Tensor,
        sine_TE: Tensor,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        key_bias: Sequence[Tensor] | None = None,
    ) -> None:
        lib = native.library()
        if lib is None or not fits(layers, shape, keys[0].dtype):
            raise BadInput("expected vnni weights, a float16 cache and the C++ library; use decoder_layer instead")
        for name, expected in (("layer", _Layer), ("shape", _Shape), ("kept", _Kept)):
            size = getattr(lib, f"perdure_{name}_bytes")
            size.restype = ctypes.c_int64
            assert size() == ctypes.sizeof(expected), name
        capacity = keys[0].shape[1]
        row = (shape.kv_heads, capacity, shape.dim)
        if any(t.shape != row or t.dtype != torch.float16 or not t.is_contiguous() for t in (*keys, *values)):
            raise BadInput(f"expected contiguous float16 caches {row}, got {keys[0].dtype} {tuple(keys[0].shape)}")
        if cosine_TE.shape[0] < capacity or cosine_TE.dtype != torch.float32:
            raise BadInput(f"expected float32 rotary tables of {capacity} positions, got {tuple(cosine_TE.shape)}")
        # Everything that the structures point at must stay alive.
        self._alive = (layers, cosine_TE, sine_TE, keys, values, key_bias)
        self._sizes, self._capacity, self._positions = shape, capacity, cosine_TE.shape[0]
        self._kept: tuple[tuple[RaggedKV, ...], ctypes.Array[_Kept] | None] = (), None
        self._shape = _Shape(
            shape.hidden,
            shape.heads,
            shape.kv_heads,
            shape.dim,
            shape.ffn,
            capacity,
            shape.window or 0,
            shape.eps,
            shape.dim**-0.5,
            cosine_TE.data_ptr(),
            sine_TE.data_ptr(),
        )
        self._layers = (_Layer * len(layers))(
            *(
                _Layer(
                    *(matrix(w) for w in (x.q, x.k, x.v, x.o, x.gate, x.up, x.down)),
                    *(_address(t) for t in (x.norm_in, x.norm_ffn, x.bias_q, x.bias_k, x.bias_v)),
                    _address(None if key_bias is None else key_bias[i]),
                    _address(keys[i]),
                    _address(values[i]),
                )
                for i, x in enumerate(layers)
            )
        )
        self._run = lib.perdure_decoder_layers

    def __call__(
        self,
        h_MX: Tensor,
        position: int,
        base: int = 0,
        kept: Sequence[RaggedKV] | None = None,
        queries_LMHD: Tensor | None = None,
    ) -> None:
        """Run M tokens through all layers, into the rows position, position + 1, ... of the cache.

        Args:
            h_MX: float32 [M, hidden]; overwritten.
            position: row of the first token.
            base: rotary position of row 0.
            kept: per layer the keys that every token sees before those of the cache; ask `takes` first.
            queries_LMHD: float32 [layers, M, heads, dim], contiguous; filled with the rotated queries.

        Raises:
            BadInput: shape, dtype or position do not fit, or kept keys that cannot be read here.
        """
        tokens, hidden, layers = h_MX.shape[0], self._sizes.hidden, len(self._layers)
        if h_MX.dtype != torch.float32 or h_MX.shape != (tokens, hidden) or not h_MX.is_contiguous():
            raise BadInput(f"expected contiguous float32 [M, {hidden}], got {h_MX.dtype} {tuple(h_MX.shape)}")
        end = position + tokens
        if not 1 <= tokens <= MAX_TOKENS or position < 0 or end > self._capacity or base < 0:
            raise BadInput(
                f"expected 1 to {MAX_TOKENS} tokens that end within {self._capacity} positions, "
                f"got {tokens} at {position} after {base}"
            )
        if base + end > self._positions:
            raise BadInput(f"expected rotary positions within {self._positions}, got {base + end}")
        seen = layers, tokens, self._sizes.heads, self._sizes.dim
        if queries_LMHD is not None and queries_LMHD.shape != seen:
            raise BadInput(f"expected queries {list(seen)} to fill, got {list(queries_LMHD.shape)}")
        self._run(
            ctypes.byref(self._shape),
            self._layers,
            ctypes.c_int64(layers),
            _pointer(h_MX.data_ptr()),
            ctypes.c_int64(tokens),
            ctypes.c_int64(position),
            ctypes.c_int64(base),
            self._bound(kept),
            _pointer(_address(queries_LMHD)),
        )

    def takes(self, kept: Sequence[RaggedKV]) -> bool:
        """Whether these kept keys can be read here: on the CPU, plain, int8 or int4, not paged, no window.

        Asked once per sequence of caches; the answer to the same ones costs microseconds.
        """
        before, _ = self._kept
        if len(before) == len(kept) and all(map(operator.is_, before, kept)):
            return True
        if len(kept) != len(self._layers) or not all(_readable(x, self._sizes) for x in kept):
            return False
        made = (_Kept * len(kept))(*(_kept(x) for x in kept))
        self._kept = tuple(kept), made  # the tensors must stay alive
        return True

    def _bound(self, kept: Sequence[RaggedKV] | None) -> ctypes.Array[_Kept] | None:
        if kept is None:
            return None
        if not self.takes(kept):
            raise BadInput(
                f"expected kept keys of {len(self._layers)} layers, {self._sizes.kv_heads} heads of {self._sizes.dim} "
                f"channels, plain, int8 or int4, no window; got {[(x.format, x.segments, x.dim) for x in kept]}"
            )
        return self._kept[1]


def _readable(x: RaggedKV, shape: DecoderShape) -> bool:
    return (
        shape.window is None
        and x.k_ND.device.type == "cpu"
        and x.block_table_SP is None
        and x.k_ND.dtype in _FORMATS
        and x.segments == shape.kv_heads
        and x.dim == shape.dim
        and (x.format != "int4" or x.dim % 32 == 0)
        and int(x.cu_len[-1]) <= x.k_ND.shape[0]
        and bool((x.cu_len.diff() >= x.lengths()).all())
    )


def _kept(x: RaggedKV) -> _Kept:
    fields = (x.k_ND, x.v_ND, x.bias_N, x.cu_len, x.len_S, x.k_scale, x.v_scale, x.cu_group)
    return _Kept(*(None if t is None else t.data_ptr() for t in fields), x.group, _FORMATS[x.k_ND.dtype])


def fits(layers: Sequence[LayerWeights], shape: DecoderShape, cache_dtype: torch.dtype) -> bool:
    """Whether `FusedLayers` can run these layers: library loaded, layout ``vnni``, float16 cache, sizes."""
    weights = [w for x in layers for w in (x.q, x.k, x.v, x.o, x.gate, x.up, x.down)]
    sizes = shape.hidden % 32 == 0 and shape.ffn % 32 == 0 and shape.heads * shape.dim % 32 == 0
    return (
        native.library() is not None
        and cache_dtype == torch.float16
        and sizes
        and shape.dim % 16 == 0
        and all(w.layout == "vnni" for w in weights)
    )


def _address(tensor: Tensor | None) -> int | None:
    if tensor is None:
        return None
    if not tensor.is_contiguous() or tensor.dtype not in (torch.float32, torch.float16):
        raise BadInput(f"expected contiguous float32, got {tensor.dtype} with strides {tensor.stride()}")
    return tensor.data_ptr()
