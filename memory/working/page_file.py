"""A page on the disk: the compacted attention of one text, in one safetensors file named by its own content.

Knows the file and how it can be wrong. Does not know how a page is made or used.

    RECORD.DIGEST.safetensors   first record it was made of, 16 digits of the sha256 of all its bytes

Tensors: ``k``, ``v`` int8 [N, D], ``k_scale`` float32 [G, D], ``v_scale`` float32 [N], ``bias`` float32 [N], ``pos``
int32 [N], ``cu_len`` and ``cu_group`` int32 [S + 1], ``tokens`` int32 [n]; the S segments are all heads of all layers,
layer after layer (`RaggedKV`). Metadata: version, model, records, sha256 of the text, and with which settings it was
made. It is written to a temporary name, synced and renamed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ...errors import BadInput, DamagedError, PerdureError, StorageError, VersionError
from ...kernels.decode_attention import RaggedKV
from ...records import Problem, Record
from ..journal import Journal
from ..packs import sync_folder
from . import story

VERSION = 1
_DIGITS = 16
NAME = "pages"
"""Among projections."""
log = logging.getLogger("perdure")


@dataclass(frozen=True)
class Page:
    """The compacted attention of a text.

    Attributes:
        records: seq of the journal records whose text it stands for, ascending.
        text_sha256: of that text.
        tokens: its ids, without the preamble that was read before it.
        model_sha256: identity of the weights and arithmetic that read it.
        made: the settings that it was made with.
        kv: int8, layers * kv_heads segments; positions count from the first token of the text.
    """

    records: tuple[int, ...]
    text_sha256: str
    tokens: tuple[int, ...]
    model_sha256: str
    made: Mapping[str, Any]
    kv: RaggedKV


def write_page(folder: Path, page: Page) -> Path:
    """Write a page; atomic and durable on return.

    Raises:
        StorageError: the disk refused; nothing else was touched.
    """
    kv = page.kv
    assert kv.k_scale is not None
    assert kv.v_scale is not None
    assert kv.cu_group is not None
    assert kv.bias_N is not None
    assert kv.pos_N is not None
    tensors = {
        "k": kv.k_ND,
        "v": kv.v_ND,
        "k_scale": kv.k_scale,
        "v_scale": kv.v_scale,
        "bias": kv.bias_N,
        "pos": kv.pos_N.int(),
        "cu_len": kv.cu_len,
        "cu_group": kv.cu_group,
        "tokens": torch.tensor(page.tokens, dtype=torch.int32),
    }
    about = {
        "version": VERSION,
        "model": page.model_sha256,
        "records": list(page.records),
        "text": page.text_sha256,
        "made": dict(page.made),
        "group": kv.group,
    }
    data = save(tensors, {"perdure-page": json.dumps(about)})
    path = folder / f"{page.records[0]:012d}.{hashlib.sha256(data).hexdigest()[:_DIGITS]}.safetensors"
    temporary = folder / ".page.tmp"  # always the same: a kill leaves one file at most
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"expected to write {path}, got {error}; free some space or check the folder") from error
    return path


def read_about(path: Path) -> dict[str, Any]:
    """The metadata of a page, without its tensors and without its checksum.

    Raises:
        DamagedError: it is torn, or no page.
        VersionError: a newer Perdure wrote it.
        StorageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            return _about(path, file.read(min(size, 1 << 20)))
    except OSError as error:
        raise StorageError(f"expected to read {path}, got {error}; check the path") from error


def read_page(path: Path, model_sha256: str) -> Page:
    """Read a page in one go and check it.

    Raises:
        DamagedError: it is torn or altered.
        VersionError: a newer Perdure wrote it.
        BadInput: another model made it.
        StorageError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(f"expected to read {path}, got {error}; check the path") from error
    if hashlib.sha256(data).hexdigest()[:_DIGITS] != path.name.split(".")[1]:
        raise DamagedError(f"expected {path} to have the content that its name says; `perdure rebuild DIR pages`")
    about = _about(path, data[8 : 8 + int.from_bytes(data[:8], "little")])
    if about["model"] != model_sha256:
        raise BadInput(
            f"expected a page of model {model_sha256[:12]}, {path} is of {about['model'][:12]}; "
            "`perdure rebuild DIR pages` with this planner"
        )
    try:
        x = load(data)
        kv = RaggedKV(
            x["k"],
            x["v"],
            x["cu_len"],
            bias_N=x["bias"],
            pos_N=x["pos"].long(),
            k_scale=x["k_scale"],
            v_scale=x["v_scale"],
            cu_group=x["cu_group"],
            group=about["group"],
        )
    except (SafetensorError, KeyError, BadInput) as error:
        raise DamagedError(f"expected a whole page, {path} is not ({error}); `perdure rebuild DIR pages`") from error
    return Page(tuple(about["records"]), about["text"], tuple(x["tokens"].tolist()), about["model"], about["made"], kv)


def _about(path: Path, header: bytes) -> dict[str, Any]:
    try:
        about = json.loads(json.loads(header)["__metadata__"]["perdure-page"])
        version = about["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"expected a page, {path} is torn or another file; `perdure rebuild DIR pages`") from error
    if version > VERSION:
        raise VersionError(f"expected a page of version {VERSION}, {path} has {version}; use a newer Perdure")
    return dict(about)


def page_text(record: Record) -> str:
    """The text of a record as recall puts it into a prompt: day, hour and line; empty if it has no line."""
    said = story.line(record)
    return f"{story.heading(record)}, {said}\n" if said else ""


def folder_of(root: Path) -> Path:
    """Where the pages of an agent's directory lie."""
    return root / "kv" / NAME


def index(folder: Path) -> dict[int, Path]:
    """Which record is in which page; what cannot be read is passed over, `check` names it."""
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        try:
            found.update(dict.fromkeys(read_about(path)["records"], path))
        except PerdureError as error:
            log.warning("%s; its text is read instead", error)
    return found


def check_pages(root: Path, journal: Journal, text: Callable[[Record], str] = page_text) -> list[Problem]:
    """Every page is whole, and the text that it was made of is what its records say; no model is needed."""
    problems = []
    folder = folder_of(root)
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        place, repair = str(path.relative_to(root)), "perdure rebuild DIR pages"
        try:
            page = read_page(path, read_about(path)["model"])
        except PerdureError as error:
            problems.append(Problem(place, str(error), repair))
            continue
        records = journal.get(page.records)
        said = "".join(text(records[seq]) for seq in page.records if seq in records)
        if len(records) != len(page.records) or hashlib.sha256(said.encode()).hexdigest() != page.text_sha256:
            problems.append(Problem(place, "was made of another text than its records hold", repair))
    return problems
