"""Arithmetic on tensors; needs torch alone. Each operation is a folder: reference, fast path, derivation."""

from __future__ import annotations

from .append_attention import append_attention
from .attention import attention, attention_reference
from .compaction_solvers import Compacted, compact_kv
from .decode_attention import Attended, RaggedKV, decode_attention, quantize_kv, ragged_from_dense
from .lowbit_attention import LowbitResult, lowbit_attention
from .quantized_matmul import Int8Tokens, PackedWeight, Quantized, pack, quantize, quantized_matmul, round_tokens
from .ternary_matmul import TernaryWeight, pack_ternary, round_tokens_for, ternarize, ternary_matmul

__all__ = [
    "Attended",
    "Compacted",
    "Int8Tokens",
    "LowbitResult",
    "PackedWeight",
    "Quantized",
    "RaggedKV",
    "TernaryWeight",
    "append_attention",
    "attention",
    "attention_reference",
    "compact_kv",
    "decode_attention",
    "lowbit_attention",
    "pack",
    "pack_ternary",
    "quantize",
    "quantize_kv",
    "quantized_matmul",
    "ragged_from_dense",
    "round_tokens",
    "round_tokens_for",
    "ternarize",
    "ternary_matmul",
]
