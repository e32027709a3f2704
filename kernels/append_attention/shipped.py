"""Every configuration that `append_attention` launches, for compiling ahead of time."""

from __future__ import annotations

from collections.abc import Iterator

from ..aot import Compilation
from ..decode_attention.shipped import attend, unpacking

__all__ = ["shipped"]


def shipped(capability: int) -> Iterator[Compilation]:
    """From 16 rows (one query of a large group) to tiles of 128, and the unpacking of a quantised cache."""
    for format, dim, rows in (
        ("plain", 64, 512),
        ("plain", 128, 512),
        ("plain", 256, 512),
        ("int8", 128, 8),
        ("int8", 128, 64),
        ("int4", 64, 32),
        ("int8", 64, 256),
    ):
        yield attend(capability, format, dim, rows, 64)
    yield unpacking("int8", 128)
    yield unpacking("int4", 64)
