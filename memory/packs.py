"""Packs: append-only files that hold key frames and percept vectors, one pack an owner and day.

A pack knows bytes and checksums, not what they show. Bytes are synced (file, and folder when the file is new) before
`append` returns, so that a database row may name them. A crash can leave bytes that no row names; they are harmless,
and nothing is ever written over them.

Entry: ``b"PDR1"``, length as uint32 little endian, sha256 (32 bytes), then the bytes; `Blob.offset` points at these.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ..errors import BadInput, DamagedError
from ..records import Blob

_HEADER = struct.Struct("<4sI32s")
_MAGIC = b"PDR1"


class Packs:
    """The packs of one agent's directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._named: set[Path] = set()
        """Packs whose names this process has made durable; another may have died between making and syncing one."""

    def append(self, owner: str, day: datetime, items: Sequence[tuple[str, bytes]]) -> list[Blob]:
        """Write ``(role, bytes)`` items at the end of the pack of ``owner`` and ``day``; durable on return.

        Raises:
            OSError: the disk refused; what was written before is untouched.
        """
        if not items:
            return []
        pack = f"frames/{_folder_name(owner)}/{day:%Y-%m-%d}.pack"
        path = self._root / pack
        path.parent.mkdir(parents=True, exist_ok=True)
        blobs = []
        with path.open("ab") as file:
            offset = file.seek(0, os.SEEK_END)
            for role, data in items:
                digest = hashlib.sha256(data)
                file.write(_HEADER.pack(_MAGIC, len(data), digest.digest()))
                file.write(data)
                blobs.append(Blob(digest.hexdigest(), role, pack, offset + _HEADER.size, len(data)))
                offset += _HEADER.size + len(data)
            file.flush()
            os.fsync(file.fileno())
        if path not in self._named:
            for folder in (path.parent, path.parent.parent, self._root):
                sync_folder(folder)
            self._named.add(path)
        return blobs

    def read(self, blob: Blob) -> bytes:
        """The bytes of ``blob``, checked.

        Raises:
            DamagedError: the pack is missing or the bytes are not those that were written.
        """
        path = self._root / blob.pack
        try:
            with path.open("rb") as file:
                file.seek(blob.offset)
                data = file.read(blob.length)
        except OSError as error:
            raise DamagedError(f"cannot read {path}: {error}; restore it from a copy of the directory") from error
        if hashlib.sha256(data).hexdigest() != blob.sha256:
            raise DamagedError(
                f"{path} at byte {blob.offset}: {blob.length} bytes do not have sha256 {blob.sha256}; "
                "restore the pack from a copy of the directory"
            )
        return data


def sync_folder(folder: Path) -> None:
    """Make new names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folder_name(owner: str) -> str:
    if not owner or owner in {".", ".."} or "/" in owner or "\0" in owner:
        raise BadInput(f"expected an owner name without '/', got {owner!r}; use letters, digits, '-' or '_'")
    return owner
