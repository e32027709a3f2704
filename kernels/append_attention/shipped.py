"""Every configuration that `append_attention` launches, for compiling ahead of time."""

from __future__ import annotations

from collections.abc import Iterator

from ..aot import Compilation
from ..decode_attention.shipped import attend, unpacking

__all__ = ["shipped"]


def shipped(capability: int) -> Iterator[Compilation]:
    """One of each kind: whole tiles of rows, quantised keys inside of the kernel, unpacking."""
    for format, dim, rows in (
        ("plain", 128, 512),
        ("int8", 128, 64),
    ):
        yield attend(capability, format, dim, rows, 64)
    yield unpacking("int4", 128)
