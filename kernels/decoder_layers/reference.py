"""One layer of a Llama-type decoder in plain torch: the reference, and the path for long prompts and other CPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import BadInput
from ..append_attention import append_attention
from ..attention import attention
from ..decode_attention import RaggedKV
from ..quantized_matmul import PackedWeight, quantized_matmul


@dataclass(frozen=True)
class DecoderShape:
    """Sizes that all layers share."""

    hidden: int
    heads: int
    kv_heads: int
    dim: int
    """Width of a head, even."""
    ffn: int
    eps: float
    """Added to the mean square in RMSNorm."""
    window: int | None = None
    """A token sees only the last ``window`` positions, itself included; None for all."""


@dataclass(frozen=True)
class LayerWeights:
    """Weights of one layer; norms and biases are float32."""

    q: PackedWeight
    k: PackedWeight
    v: PackedWeight
    o: PackedWeight
    gate: PackedWeight
    up: PackedWeight
    down: PackedWeight
    norm_in: Tensor
    norm_ffn: Tensor
    bias_q: Tensor | None = None
    bias_k: Tensor | None = None
    bias_v: Tensor | None = None


def rotate(x_MHD: Tensor, cosine_ME: Tensor, sine_ME: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021) of the two halves of each head, E = D / 2."""
    a, b = x_MHD.chunk(2, dim=-1)
    cosine, sine = cosine_ME[:, None], sine_ME[:, None]
    return torch.cat([a * cosine - b * sine, b * cosine + a * sine], dim=-1)


def decoder_layer(
    h_MX: Tensor,
    layer: LayerWeights,
    shape: DecoderShape,
    cosine_ME: Tensor,
    sine_ME: Tensor,
    keys_KTD: Tensor,
    values_KTD: Tensor,
    position: int,
    key_bias_KT: Tensor | None = None,
    kept: RaggedKV | None = None,
    observe: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """h + attention(norm(h)), then h + swiglu(norm(h)), for M tokens that go into rows position, position + 1, ...

    Args:
        h_MX: float32 [M, hidden].
        cosine_ME, sine_ME: float32 [M, dim / 2] of these positions.
        keys_KTD, values_KTD: cache of this layer [kv_heads, capacity, dim]; rows position .. position + M are written.
        key_bias_KT: float32 [kv_heads, capacity] added to the scores of each key, or None.
        kept: keys before those of the cache, in the past of every token (kv_heads segments); not with a window; plain
            ones of the cache's dtype.
        observe: is given the rotated queries, float32 [heads, M, dim].

    Returns:
        float32 [M, hidden].

    Raises:
        BadInput: kept keys and a window.
    """
    if kept is not None and shape.window is not None:
        raise BadInput("expected no kept keys in a layer with a window; what is out of sight is dropped exactly")
    tokens, end = h_MX.shape[0], position + h_MX.shape[0]
    x = F.rms_norm(h_MX, (shape.hidden,), layer.norm_in, shape.eps)
    q = quantized_matmul(x, layer.q, layer.bias_q).view(tokens, shape.heads, shape.dim)
    k = quantized_matmul(x, layer.k, layer.bias_k).view(tokens, shape.kv_heads, shape.dim)
    v = quantized_matmul(x, layer.v, layer.bias_v).view(tokens, shape.kv_heads, shape.dim)
    keys_KTD[:, position:end] = rotate(k, cosine_ME, sine_ME).transpose(0, 1)
    values_KTD[:, position:end] = v.transpose(0, 1)
    q_HMD = rotate(q, cosine_ME, sine_ME).transpose(0, 1)
    if observe is not None:
        observe(q_HMD)
    q_BHMD, k_BKTD, v_BKTD = q_HMD[None].to(keys_KTD.dtype), keys_KTD[None, :, :end], values_KTD[None, :, :end]
    if kept is None:
        bias_BKT = None if key_bias_KT is None else key_bias_KT[None, :, :end]
        attended = attention(q_BHMD, k_BKTD, v_BKTD, window=shape.window, key_bias_BKT=bias_BKT)
    else:
        attended = append_attention(q_BHMD, kept, k_BKTD, v_BKTD).out_BHSD
    attended = attended[0].transpose(0, 1).reshape(tokens, shape.heads * shape.dim).float()
    h_MX = h_MX + quantized_matmul(attended, layer.o)
    x = F.rms_norm(h_MX, (shape.hidden,), layer.norm_ffn, shape.eps)
    inner = F.silu(quantized_matmul(x, layer.gate), inplace=True).mul_(quantized_matmul(x, layer.up))
    return h_MX + quantized_matmul(inner, layer.down)
