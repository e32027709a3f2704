"""An agent's directory: its layout, its ``AGENT.toml``, and the lock that keeps it to one writer.

Knows files and processes; knows nothing of what is remembered.

    AGENT.toml   format, zone, owner; written last when the directory is made, so where it is, the journal is
    perdure.db   journal and projections
    witness      number of the newest acknowledged record
    frames/      packs of key frames
    vectors/     sealed vector segments, one folder a space
    kv/          snapshots of the working KV cache; in pages/ the attention of closed events
    world/       snapshot of the world model
    receipts/    proofs of erasure
    lock         held while an agent is awake
"""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from filelock import FileLock, Timeout

from ..errors import AgentAwakeError, BadInput, DamagedError, VersionError
from .database import translated
from .packs import sync_folder

FORMAT = 1
_FOLDERS = ("frames", "vectors", "kv", "receipts")
_DATABASE = ("", "-journal", "-wal", "-shm")
_OWNER = re.compile(r"[^\W_][\w.@+ -]{0,99}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``AGENT.toml`` says."""

    zone: str = "UTC"
    """IANA name of the time zone that "Tuesday evening" is read in when the asker names none."""
    owner: str = "owner"
    """Whose memories new records are, and who may order irreversible acts."""

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise BadInput(f"expected an IANA time zone such as 'Europe/Berlin', got {self.zone!r}") from error
        if not _OWNER.fullmatch(self.owner):
            raise BadInput(f"expected an owner name of letters, digits, spaces and '_.@+-', got {self.owner!r}")


def prepare(root: Path, settings: Settings | None) -> Settings:
    """Create the directory if it is not there, and return its settings. Safe to repeat after a crash at any point.

    A new one is an agent's directory only after `finish`.

    Raises:
        BadInput: ``root`` is a file, or a folder with other things in it.
        VersionError: a newer Perdure wrote it.
        StorageError: the disk refused.
    """
    if root.exists() and not root.is_dir():
        raise BadInput(f"expected a directory for the agent, got the file {root}; choose another path")
    manifest = root / "AGENT.toml"
    if manifest.exists():
        return read_settings(root)
    strangers = [p.name for p in root.iterdir() if not _is_ours(p.name)] if root.is_dir() else []
    if strangers:
        raise BadInput(
            f"{root} is not an agent's directory: it holds {', '.join(sorted(strangers)[:3])} and no AGENT.toml; "
            "choose an empty or a new one"
        )
    with translated(f"creating {root}"):
        for name in _FOLDERS:
            (root / name).mkdir(parents=True, exist_ok=True)
        sync_folder(root.absolute().parent)
        for folder in root.absolute().parent.parents:
            with contextlib.suppress(OSError):  # mkdir made it, or it is not ours to sync
                sync_folder(folder)
    return settings or Settings()


def is_finished(root: Path) -> bool:
    """Whether ``AGENT.toml`` is there, so that the journal is as well.

    Raises:
        DamagedError: it is there, but the journal is not: opening would silently begin a new one.
    """
    if not (root / "AGENT.toml").exists():
        return False
    database = root / "perdure.db"
    if not database.exists() or database.stat().st_size == 0:
        state = "empty" if database.exists() else "missing"
        raise DamagedError(
            f"{database} is {state}, and with it the journal of this agent; nothing was changed: restore it from a "
            "copy of the directory (with perdure.db-wal, if there is one), or start anew in another directory"
        )
    return True


def finish(root: Path, settings: Settings, last_seq: int) -> None:
    """Make a prepared directory with a migrated database an agent's directory, by writing ``AGENT.toml``.

    Raises:
        DamagedError: the database holds records already, so an ``AGENT.toml`` was here and is gone.
        StorageError: the disk refused.
    """
    if last_seq:
        raise DamagedError(
            f"{root / 'AGENT.toml'} is missing although {last_seq} records are here; nothing was changed: restore it "
            f"from a copy, or write it anew with the lines 'format = {FORMAT}', 'zone = \"UTC\"', 'owner = \"owner\"'"
        )
    text = f'format = {FORMAT}\nzone = "{settings.zone}"\nowner = "{settings.owner}"\n'
    with translated(f"creating {root}"):
        write_atomically(root / "AGENT.toml", text.encode())


def read_settings(root: Path) -> Settings:
    """Read ``AGENT.toml``.

    Raises:
        BadInput: there is none, or it cannot be read as TOML.
        VersionError: its format is newer than this Perdure.
    """
    manifest = root / "AGENT.toml"
    if not manifest.is_file():
        raise BadInput(
            f"{root} is not an agent's directory (no AGENT.toml); `perdure watch VIDEO --agent DIR` makes one"
        )
    try:
        with translated(f"reading {manifest}"):
            values = tomllib.loads(manifest.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{manifest} is not valid TOML: {error}; mend it by hand, nothing else was touched") from error
    found = values.get("format")
    if found != FORMAT:
        raise VersionError(
            f"{root} has format {found!r}, this Perdure knows format {FORMAT}; nothing was changed: "
            "install the Perdure that wrote it, or a newer one"
        )
    return Settings(zone=str(values.get("zone", "UTC")), owner=str(values.get("owner", "owner")))


def lock(root: Path) -> FileLock:
    """Take the writer's lock of ``root``; it is released by the operating system if this process dies.

    Raises:
        AgentAwakeError: another process holds it.
    """
    path = root / "lock"
    held = FileLock(path, timeout=0)
    with translated(f"locking {root}"):
        try:
            held.acquire()
        except Timeout:  # an OSError, so it must not reach `translated`
            raise AgentAwakeError(
                f"the agent in {root} is awake in {_read_holder(path)}; close it, or use a command that only reads "
                "(recall, inspect)"
            ) from None
        try:
            _write_holder(path)
        except OSError:
            held.release()
            raise
    return held


class Witness:
    """Remembers, beside the database, the number of the newest record that was acknowledged.

    A database that ends earlier has gone back: its ``-wal`` was deleted, or an old copy was put in its place. The file
    is written without a sync, after the transaction is durable: it never says more than was acknowledged, it survives
    the death of the process, and it costs microseconds. After a loss of power it may say less, which hides nothing that
    the journal can show.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / "witness"

    def note(self, seq: int) -> None:
        """Remember ``seq``."""
        # The record is durable already: a disk that refuses this note must not make it look as if it were not.
        with contextlib.suppress(OSError):
            number = f"{seq:020d}"
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.pwrite(file, f"{number} {crc32(number.encode()):08x}\n".encode(), 0)
            finally:
                os.close(file)

    def read(self) -> int:
        """The number it remembers; 0 if it remembers none, or was torn by a loss of power."""
        try:
            number, _, mark = self._path.read_text("ascii").strip().partition(" ")
            return int(number) if mark == f"{crc32(number.encode()):08x}" else 0
        except (OSError, ValueError):
            return 0

    def require(self, last_seq: int) -> None:
        """Raise `DamagedError` if the journal ends before the record that it remembers."""
        if last_seq < self.read():
            raise DamagedError(
                f"{self._path.parent / 'perdure.db'} has gone back: it ends at record {last_seq}, but record "
                f"{self.read()} was acknowledged; perdure.db-wal was deleted or an old copy put in place. Nothing was "
                f"changed: restore both from a copy, or delete {self._path} to go on without those records"
            )


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``: temporary file, sync, rename, sync of the folder.

    A crash leaves old or new, never half.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def _is_ours(name: str) -> bool:
    return name in {*_FOLDERS, "lock", "witness", ".AGENT.toml.tmp"} or name.removeprefix("perdure.db") in _DATABASE


def _write_holder(path: Path) -> None:
    path.write_text(f"process {os.getpid()}\n", "utf-8")


def _read_holder(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip() or "another process"
    except OSError:
        return "another process"
