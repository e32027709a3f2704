"""Memory for the keys and values of a layer that is used only by the rows that are filled, and given back.

Knows pages of the operating system and blocks on an accelerator. Does not know what lies in the rows.

On a CPU the room is address space for all rows at once (an anonymous mapping): addresses never change, a page is there
when something was written to it, and `release` hands pages back to the system. Elsewhere tensors of whole blocks grow
and shrink by copying.
"""

from __future__ import annotations

import ctypes
import mmap
import sys

import torch
from torch import Tensor

_BLOCK = 1024
"""Rows by which tensors on an accelerator grow."""


def trim() -> None:
    """Let the C library hand pages that hold nothing back to the system, where it can (glibc); takes milliseconds.

    Compacting 2,048 tokens left 180 MB of temporaries resident, seven times the rows that it had freed.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


class Room:
    """Two tensors [1, kv_heads, rows, head_dim], rows = capacity on a CPU, else as many as are needed.

    Args:
        kv_heads, capacity, dim: sizes.
        dtype, device: of both tensors.
    """

    def __init__(self, kv_heads: int, capacity: int, dim: int, dtype: torch.dtype, device: torch.device) -> None:
        self._shape, self._dtype, self._device = (1, kv_heads, capacity, dim), dtype, device
        self._maps: tuple[mmap.mmap, ...] = ()
        self._fixed = device.type == "cpu"
        if self._fixed and hasattr(mmap, "MAP_ANONYMOUS"):
            size = kv_heads * capacity * dim * dtype.itemsize
            self._maps = tuple(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(2))
            if hasattr(mmap, "MADV_NOHUGEPAGE"):
                for one in self._maps:  # one row would make two megabytes resident
                    one.madvise(mmap.MADV_NOHUGEPAGE)
            self.keys, self.values = (torch.frombuffer(x, dtype=dtype).view(self._shape) for x in self._maps)
        else:
            rows = capacity if self._fixed else min(_BLOCK, capacity)
            self.keys, self.values = (self._empty(rows) for _ in range(2))

    def reserve(self, rows: int) -> None:
        """Make sure that so many rows, at most the capacity, can be written."""
        if self.keys.shape[2] < rows:
            self._resize(rows, self.keys.shape[2])

    def release(self, rows: int) -> None:
        """Give back what lies behind the first ``rows``; its content is lost."""
        if not self._fixed:
            self._resize(rows, rows)
        elif hasattr(mmap, "MADV_DONTNEED"):
            _, heads, capacity, dim = self._shape
            row = dim * self._dtype.itemsize
            for one in self._maps:
                for head in range(heads):
                    first = -(-(head * capacity + rows) * row // mmap.PAGESIZE) * mmap.PAGESIZE
                    last = (head + 1) * capacity * row // mmap.PAGESIZE * mmap.PAGESIZE
                    if last > first:
                        one.madvise(mmap.MADV_DONTNEED, first, last - first)

    def _resize(self, rows: int, used: int) -> None:
        """Whole blocks for ``rows``; the first ``used`` are copied."""
        size = min(max(-(-rows // _BLOCK), 1) * _BLOCK, self._shape[2])
        if size == self.keys.shape[2]:
            return
        for name in ("keys", "values"):
            new, old = self._empty(size), getattr(self, name)
            new[:, :, :used] = old[:, :, :used]
            setattr(self, name, new)

    def _empty(self, rows: int) -> Tensor:
        _, heads, _, dim = self._shape
        return torch.empty(1, heads, rows, dim, dtype=self._dtype, device=self._device)
