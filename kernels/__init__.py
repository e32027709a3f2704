"""Arithmetic on tensors; needs torch alone. Each operation is a folder: reference, fast path, derivation."""

from __future__ import annotations

from .attention import attention, attention_reference
from .quantized_matmul import PackedWeight, Quantized, pack, quantize, quantized_matmul

__all__ = [
    "PackedWeight",
    "Quantized",
    "attention",
    "attention_reference",
    "pack",
    "quantize",
    "quantized_matmul",
]
