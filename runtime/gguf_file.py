"""Reading GGUF: the container, its metadata and its tensors.

Knows the layout of version 2 and 3 files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). The header is
read here, in a third of a second for a 152,000-token vocabulary where the `gguf` package's reader takes seven;
the arithmetic of the packed formats is left to `gguf`. Does not know what is kept of them.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from torch import Tensor

from ..errors import WeightsError
from .architecture import config_from_gguf
from .source import Source, check_shapes, file_sha256
from .tokenizer import tokenizer_from_gguf

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_PIECE = 1 << 18


@dataclass(frozen=True)
class _Entry:
    """Where one tensor lies. ``shape`` is [outputs, inputs], the reverse of GGUF's order."""

    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    length: int


class _Cursor:
    """Reads the header; every step past the end is a clear error."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise WeightsError(
                f"expected {count} more bytes at offset {self.at} of {self.path}, the file ends at {len(self.data)}; "
                "it is truncated or damaged: fetch it again"
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize(code)))[0]

    def text(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind != _ARRAY:
            raise WeightsError(f"expected a GGUF value type from 0 to 12, got {kind} in {self.path}; it is damaged")
        inner, count = self.number("I"), self.number("Q")
        if inner in _SCALARS:
            width = struct.calcsize(_SCALARS[inner])
            return list(struct.unpack(f"<{count}{_SCALARS[inner]}", self.take(count * width)))
        if count > len(self.data):
            raise WeightsError(f"expected an array that fits into {self.path}, got {count} entries; it is damaged")
        return [self.value(inner) for _ in range(count)]


class GgufFile:
    """An open GGUF file.

    Args:
        path: the file.

    Raises:
        WeightsError: not a GGUF file, truncated, or of a version or number format that is not known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise WeightsError(f"expected a GGUF file at {path}, got {error}; check the path") from error
        cursor = _Cursor(self._data, path)
        if self._data[:4] != b"GGUF":
            raise WeightsError(f"expected a GGUF file, {path} begins with {self._data[:4]!r}; give another file")
        cursor.take(4)
        version = cursor.number("I")
        if version not in (2, 3):
            raise WeightsError(f"expected GGUF version 2 or 3, got {version} in {path}; convert the file again")
        tensors, keys = cursor.number("Q"), cursor.number("Q")
        self.metadata: Mapping[str, Any] = {cursor.text(): cursor.value(cursor.number("I")) for _ in range(keys)}
        infos = [self._info(cursor) for _ in range(tensors)]
        align = int(self.metadata.get("general.alignment", 32))
        base = -(-cursor.at // align) * align
        self.tensors: Mapping[str, _Entry] = {name: self._entry(name, s, k, base + at) for name, s, k, at in infos}

    def _info(self, cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
        name = cursor.text()
        dims = [int(cursor.number("Q")) for _ in range(cursor.number("I"))]
        return name, tuple(reversed(dims)), cursor.number("I"), cursor.number("Q")

    def _entry(self, name: str, shape: tuple[int, ...], kind: int, start: int) -> _Entry:
        known = {int(k): k for k in GGML_QUANT_SIZES}
        if kind not in known:
            raise WeightsError(f"expected a known number format for {name}, got type {kind} in {self.path}")
        block, width = GGML_QUANT_SIZES[known[kind]]
        if not shape or shape[-1] % block:
            raise WeightsError(
                f"expected rows of {name} in blocks of {block}, got {shape} in {self.path}; it is damaged"
            )
        length = prod(shape) // block * width
        if start + length > len(self._data):
            raise WeightsError(
                f"expected {name} to end at byte {start + length} of {self.path}, the file ends at {len(self._data)}; "
                "it is truncated: fetch it again"
            )
        return _Entry(shape, known[kind], start, length)

    def read(self, name: str) -> Tensor:
        """One tensor as float32, exactly what its blocks mean."""
        entry = self.tensors[name]
        raw = np.frombuffer(self._data, np.uint8, entry.length, entry.start)
        block, width = GGML_QUANT_SIZES[entry.kind]
        rows = raw.reshape(*entry.shape[:-1], entry.shape[-1] // block * width)
        if entry.kind == GGMLQuantizationType.F32:
            return torch.from_numpy(raw.view(np.float32).reshape(entry.shape).copy())
        # In pieces: numpy's intermediates of a whole output matrix would take gigabytes, and miss every cache.
        out = np.empty(entry.shape, np.float32)
        step = max(1, _PIECE // entry.shape[-1])
        for at in range(0, len(rows), step):
            part = rows[at : at + step]
            part = part.view(np.float16) if entry.kind == GGMLQuantizationType.F16 else part
            out[at : at + step] = dequantize(part, entry.kind)
        return torch.from_numpy(out)


def gguf_source(path: Path, sha256: str | None = None) -> Source:
    """Open a GGUF file of the Qwen2 or Llama family as a source of weights.

    Args:
        path: the file.
        sha256: its hash if it is known already; else it is computed.

    Raises:
        WeightsError: the file is damaged, incomplete or of another architecture.
    """
    file = GgufFile(path)
    embedding = file.tensors.get("token_embd.weight")
    config = config_from_gguf(file.metadata, embedding.shape[0] if embedding else 1)
    check_shapes(config, {name: entry.shape for name, entry in file.tensors.items()}, str(path))
    if "rope_freqs.weight" in file.tensors:
        factors = file.read("rope_freqs.weight").tolist()
        pairs = zip(config.inverse_frequencies, factors, strict=True)
        config = type(config).from_dict({**config.to_dict(), "inverse_frequencies": tuple(f / x for f, x in pairs)})

    def read(name: str) -> Tensor:
        tensor = file.read(name)
        if config.family == "llama" and ".attn_q." in name:
            return _halves(tensor, config.heads)
        if config.family == "llama" and ".attn_k." in name:
            return _halves(tensor, config.kv_heads)
        return tensor

    return Source(
        config=config,
        sha256=sha256 or file_sha256(path),
        tokenizer=tokenizer_from_gguf(file.metadata, config.eos, config.bos),
        chat_template=str(file.metadata.get("tokenizer.chat_template", "")),
        kinds={name: entry.kind.name for name, entry in file.tensors.items()},
        read=read,
    )


def _halves(tensor: Tensor, heads: int) -> Tensor:
    """Rows of q or k from neighbouring rotary pairs, as GGUF stores Llama, to two halves."""
    return tensor.view(heads, -1, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
