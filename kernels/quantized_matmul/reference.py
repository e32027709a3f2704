"""The product in plain torch, slowly and exactly: what every faster path is compared with."""

from __future__ import annotations

from torch import Tensor

from .formats import Quantized


def quantized_matmul_reference(x_MK: Tensor, weight: Quantized, bias_N: Tensor | None = None) -> Tensor:
    """float32 [M, N]: x W^T + bias with dequantised weights and activations that are not rounded."""
    y = x_MK.float() @ weight.dequantize().T
    return y if bias_N is None else y + bias_N
