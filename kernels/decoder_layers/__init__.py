"""All layers of a Llama-type decoder for a few tokens in one call. Derivation: README.md."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import BadInput
from .. import native
from ..quantized_matmul import Matrix, matrix
from .reference import DecoderShape, LayerWeights, decoder_layer, rotate

__all__ = ["MAX_TOKENS", "DecoderShape", "FusedLayers", "LayerWeights", "decoder_layer", "rotate"]

MAX_TOKENS = 64
_pointer = ctypes.c_void_p


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


class FusedLayers:
    """The layers bound to one cache, run by the project's own C++; up to 64 tokens a call.

    Args:
        layers: weights, all in layout ``vnni``.
        shape: sizes; hidden, ffn and heads * dim multiples of 32, dim of 16.
        cosine_TE, sine_TE: float32 [capacity, dim / 2].
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
        for name, expected in (("layer", _Layer), ("shape", _Shape)):
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
        self._hidden, self._capacity, self._count = shape.hidden, capacity, len(layers)
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

    def __call__(self, h_MX: Tensor, position: int) -> None:
        """Run M tokens at position, position + 1, ... through all layers; ``h_MX`` float32 [M, hidden] is overwritten.

        Raises:
            BadInput: shape, dtype or position do not fit.
        """
        tokens = h_MX.shape[0]
        if h_MX.dtype != torch.float32 or h_MX.shape != (tokens, self._hidden) or not h_MX.is_contiguous():
            raise BadInput(f"expected contiguous float32 [M, {self._hidden}], got {h_MX.dtype} {tuple(h_MX.shape)}")
        if not 1 <= tokens <= MAX_TOKENS or position < 0 or position + tokens > self._capacity:
            raise BadInput(
                f"expected 1 to {MAX_TOKENS} tokens that end within {self._capacity} positions, "
                f"got {tokens} at {position}"
            )
        self._run(
            ctypes.byref(self._shape),
            self._layers,
            ctypes.c_int64(self._count),
            _pointer(h_MX.data_ptr()),
            ctypes.c_int64(tokens),
            ctypes.c_int64(position),
        )


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
