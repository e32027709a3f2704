"""The product in plain torch, slowly and exactly: what every faster path is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from .formats import Ternary


def ternary_matmul_reference(x_MK: Tensor, weight: Ternary, bias_N: Tensor | None = None) -> Tensor:
    """float64 [M, N]: int8 activations as BitNet rounds them, exact sums, then both scales."""
    x = x_MK.double()
    peak = x.abs().amax(dim=1, keepdim=True)
    q = torch.where(peak > 0, x * (127 / peak), torch.zeros_like(x)).round()
    y = (q @ weight.values_NK.double().T) * (peak / 127) * weight.scale_N.double()
    return y if bias_N is None else y + bias_N.double()
