"""Arithmetic on tensors; needs torch alone. Each operation is a folder: reference, fast path, derivation."""

from __future__ import annotations

from .attention import attention, attention_reference
from .quantized_matmul import Int8Tokens, PackedWeight, Quantized, pack, quantize, quantized_matmul, round_tokens
from .ternary_matmul import TernaryWeight, pack_ternary, round_tokens_for, ternarize, ternary_matmul

__all__ = [
    "Int8Tokens",
    "PackedWeight",
    "Quantized",
    "TernaryWeight",
    "attention",
    "attention_reference",
    "pack",
    "pack_ternary",
    "quantize",
    "quantized_matmul",
    "round_tokens",
    "round_tokens_for",
    "ternarize",
    "ternary_matmul",
]
