"""Pages: what recall finds comes back as attention, not as text to be read again.

A page is the compacted int8 KV of one closed event (or of a few short ones in a row), a projection of the journal in
``DIR/kv/pages/``. Knows which records have a page, how pages lie in a cache beside each other, and how one is
forgotten. Does not know what was asked, nor how attention is compacted (page_maker.py).

Pages are read alone, so each stands at positions from 0. Spliced, they lie one after another right before the first
token of the cache, turned to these positions: attention depends on distances alone, so positions below 0 serve.

Pages never saw each other, and a small model takes one's fact for another's: of 40 questions to ten pages of 290
tokens it answered 21, where it answers 37 from their text, and 40 from the right page alone. So the question is read
once after each page alone: its log-probability says which page it speaks of (the right one in 40 of 40, by 11 nats at
least). The likeliest page lies last, nearest to the question, and the keys of the others carry the difference as bias,
at most -2.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from ...errors import BadInput, DamagedError, PerdureError, StorageError
from ...kernels.decode_attention import RaggedKV
from ...records import Record
from ...runtime.cache import KVCache
from ...runtime.ragged import join, plain, rotated
from ..journal import Journal
from ..packs import sync_folder
from . import story
from .page_file import NAME, Page, check_pages, folder_of, index, page_text, read_page, write_page
from .page_maker import PageMaker, PageSettings

if TYPE_CHECKING:
    from ...runtime.generate import Engine
    from ...runtime.planner import LocalPlanner

__all__ = ["NAME", "Page", "PageSettings", "PageStore", "Spliced", "check_pages", "folder_of", "page_text"]

log = logging.getLogger("perdure")

MOST_DOUBT = 2.0
"""Nats by which the keys of an unlikely page count less, at most. Of the 40 questions, with the right page last, 36
were answered without, 39 with 1 and 40 with 2."""


class Spliced(NamedTuple):
    """What lies in a cache, as seq in the order in which they were asked for."""

    pages: tuple[int, ...]
    missing: tuple[int, ...]
    """Records without a page that can be used: their text is to be read."""
    tokens: int
    """Tokens that the pages stand for."""
    keys: float
    """Keys that a head holds of them, on the average."""


class PageStore:
    """The pages of one agent's directory, for one planner.

    Args:
        root: the agent's directory.
        planner: its weights and tokenizer; it must run in our own decoder, without a window.
        settings: how new pages are made; pages made otherwise keep serving.
        text: the text of a record; `page_text` by default.

    Raises:
        BadInput: the planner runs elsewhere, or has a window.
    """

    def __init__(
        self,
        root: Path,
        planner: LocalPlanner,
        settings: PageSettings | None = None,
        text: Callable[[Record], str] = page_text,
    ) -> None:
        weights = getattr(getattr(planner, "engine", None), "weights", None)
        if weights is None:
            raise BadInput(f"expected a planner that runs in our own decoder, got {planner.name}")
        self.folder, self.settings = folder_of(root), settings or PageSettings()
        self._model, self._text = planner.model_hash, text
        self._layers, self._frequencies = weights.config.layers, weights.config.inverse_frequencies
        self._maker = PageMaker(weights, self.settings)
        self._preamble: RaggedKV | None = None
        self._where = index(self.folder)
        self._reached = max(self._where, default=0)

    # ------------------------------------------------------------------ making

    def write(self, records: Sequence[int], text: str) -> Page | None:
        """Make the page of a text and keep it; the pages that these records had are replaced.

        Takes about as long as reading the text three times; for slack time, never for the write path.

        Args:
            records: seq of the journal records that the text comes from.
            text: as recall would put it into a prompt.

        Returns:
            The page; None where none pays (`PageSettings.least_tokens`, ``most_tokens``): the text is to be read then.

        Raises:
            BadInput: no records.
            StorageError: the disk refused.
        """
        if not records:
            raise BadInput("expected the records that a page is made of, got none")
        tokens = self._maker.encode(text)
        if not self.settings.least_tokens <= len(tokens) <= self.settings.most_tokens:
            return None
        lineage = tuple(sorted(set(records)))
        digest = hashlib.sha256(text.encode()).hexdigest()
        page = Page(lineage, digest, tuple(tokens), self._model, asdict(self.settings), self._maker.make(tokens, text))
        before = {self._where[seq] for seq in lineage if seq in self._where}
        path = write_page(self.folder, page)
        self._drop(before - {path})
        self._where.update(dict.fromkeys(lineage, path))
        return page

    def advance(self, journal: Journal, budget_s: float | None = None) -> bool:
        """Make pages of the records that came since; a page holds one, or several short ones in a row.

        Short records wait until they are together as long as a page of 256 tokens or the next one is of another source
        or hour; until then their text is read.

        Args:
            journal: of the same directory.
            budget_s: seconds after which no further page is begun; None: until all is done.

        Returns:
            Whether nothing was left to do.
        """
        started = time.monotonic()
        group: list[tuple[Record, str]] = []
        for record in journal.read(after=self._reached, kinds=story.KINDS):
            if budget_s is not None and time.monotonic() - started > budget_s:
                return False
            text = self._text(record)
            if group and not self._belongs(group, record, text):
                self._write_group(group)
                group = []
            if text:
                group.append((record, text))
        return not group

    def _belongs(self, group: Sequence[tuple[Record, str]], record: Record, text: str) -> bool:
        first = group[0][0]
        near = record.source == first.source and (record.start - first.start).total_seconds() < _HOUR_S
        return near and len(self._maker.encode("".join(t for _, t in group) + text)) <= _GROUP_TOKENS

    def _write_group(self, group: Sequence[tuple[Record, str]]) -> None:
        self.write([record.seq for record, _ in group], "".join(text for _, text in group))
        self._reached = group[-1][0].seq

    # ------------------------------------------------------------------- using

    def __contains__(self, seq: int) -> bool:
        return seq in self._where

    def __len__(self) -> int:
        """Pages that there are."""
        return len(set(self._where.values()))

    def get(self, seq: int) -> Page | None:
        """The page that a record is in; None if there is none of this model. A torn one is deleted: it never answers.

        Raises:
            StorageError: the disk refused.
        """
        path = self._where.get(seq)
        if path is None:
            return None
        try:
            return read_page(path, self._model)
        except DamagedError as error:
            log.warning("%s; its text is read instead", error)
            self._drop({path})
        except StorageError:
            if path.exists():
                raise
            self._drop({path})  # somebody else deleted it
        except PerdureError as error:
            log.info("%s; its text is read instead", error)
        return None

    @contextmanager
    def spliced(self, engine: Engine, seqs: Sequence[int], question: Sequence[int] = ()) -> Iterator[Spliced]:
        """Have the pages of these records in a cache; afterwards it is as before, whatever was read meanwhile.

        Args:
            engine: of the same planner. What its cache holds stays where it is; the pages lie before its first token,
                behind what it keeps. If it holds nothing, the preamble is spliced before them: it takes the sinks.
            seqs: the best hit first. Records of one page share it, at the place of the best of them.
            question: tokens that will be read next; the pages are weighed by it (one short read a page). Without, all
                count alike, the best hit last.

        Raises:
            BadInput: the cache is of another model.
            StorageError: the disk refused.
        """
        cache = engine.cache
        if cache.model_sha256 != self._model:
            raise BadInput(
                f"expected a cache of model {self._model[:12]}, got {cache.model_sha256[:12]}; open the store with "
                "the planner that the cache belongs to"
            )
        pages = {seq: page for seq in dict.fromkeys(seqs) if (page := self.get(seq)) is not None}
        distinct = list({page.records: page for page in pages.values()}.values())
        kept, length = cache.kept, cache.length
        try:
            with torch.inference_mode():
                laid = [_Loose(plain(x.kv, torch.float32), len(x.tokens), 0.0) for x in distinct]
                if len(question) > 1 and len(laid) > 1:
                    laid = self._weighed(engine, laid, question)
                if laid:
                    cache.kept = self._laid(cache, laid, kept)
            yield Spliced(
                tuple(pages),
                tuple(seq for seq in dict.fromkeys(seqs) if seq not in pages),
                sum(len(page.tokens) for page in distinct),
                sum(page.kv.k_ND.shape[0] / page.kv.segments for page in distinct),
            )
        finally:
            cache.truncate(length)
            cache.kept = kept

    def _weighed(self, engine: Engine, pages: Sequence[_Loose], question: Sequence[int]) -> list[_Loose]:
        """The pages, the one after which the question is likeliest first, each with the bias of its keys."""
        cache = engine.cache
        kept, length = cache.kept, cache.length
        follows = torch.tensor(question[1:])[:, None]
        found = []
        for page in pages:
            cache.kept = self._laid(cache, [page], kept)
            logits = engine.read(question, all_logits=True)[:-1]
            cache.truncate(length)
            found.append(float(logits.log_softmax(-1).gather(1, follows).sum()))
        cache.kept = kept
        order = sorted(range(len(pages)), key=lambda i: -found[i])
        return [pages[i]._replace(bias=max(found[i] - found[order[0]], -MOST_DOUBT)) for i in order]

    def _laid(self, cache: KVCache, pages: Sequence[_Loose], kept: Sequence[RaggedKV] | None) -> list[RaggedKV]:
        """Per layer what was kept, then the pages, the best last, right before the cache's first token."""
        parts: list[RaggedKV] = []
        at = cache.base
        for page in pages:
            at -= page.tokens
            moved = rotated(page.kv, at, self._frequencies)
            assert moved.bias_N is not None
            parts.insert(0, replace(moved, bias_N=moved.bias_N + page.bias))
        if kept is None and not cache.length:
            if self._preamble is None:
                self._preamble = plain(self._maker.preamble(), torch.float32)
            parts.insert(0, rotated(self._preamble, at - self._maker.preamble_tokens, self._frequencies))
        layers = _layers(plain(join(parts), cache.layers[0].keys.dtype), self._layers)
        if kept is None:
            return layers
        return [join([plain(old, new.k_ND.dtype), new]) for old, new in zip(kept, layers, strict=True)]

    # --------------------------------------------------------------- forgetting

    def forget(self, records: Iterable[int]) -> list[int]:
        """Remove every page that was made of one of these records; durable on return.

        Returns:
            Other records whose page went with it, ascending: `write` or `rebuild` gives them a new one.

        Raises:
            StorageError: the disk refused.
        """
        gone = set(records)
        paths = {self._where[seq] for seq in gone if seq in self._where}
        orphans = sorted(seq for seq, path in self._where.items() if path in paths and seq not in gone)
        self._drop(paths)
        return orphans

    def rebuild(self, journal: Journal, without: Iterable[int] = ()) -> int:
        """Drop all pages and make them again, as if the records ``without`` had never been; returns how many there are.

        Raises:
            StorageError: the disk refused.
        """
        banned = set(without)
        self._drop(set(self.folder.glob("*")) if self.folder.is_dir() else set())
        self._where, self._reached = {}, 0
        keep = self._text
        try:
            self._text = lambda record: "" if record.seq in banned else keep(record)
            self.advance(journal)
        finally:
            self._text = keep
        return len(self)

    def _drop(self, paths: set[Path]) -> None:
        if not paths:
            return
        try:
            for path in paths:
                path.unlink(missing_ok=True)
            sync_folder(self.folder)
        except OSError as error:
            raise StorageError(f"expected to delete pages in {self.folder}, got {error}; check the folder") from error
        self._where = {seq: path for seq, path in self._where.items() if path not in paths}


_GROUP_TOKENS = 256
_HOUR_S = 3600


class _Loose(NamedTuple):
    """A page as it is laid: unpacked, positions from 0, tokens that it stands for, and the bias of its keys."""

    kv: RaggedKV
    tokens: int
    bias: float


def _layers(all_heads: RaggedKV, layers: int) -> list[RaggedKV]:
    """All heads of all layers cut into layers: views, nothing is copied."""
    heads = all_heads.segments // layers
    cuts = all_heads.cu_len.tolist()
    found = []
    for first in range(0, all_heads.segments, heads):
        rows = slice(cuts[first], cuts[first + heads])
        cu_len = all_heads.cu_len[first : first + heads + 1] - cuts[first]
        bias, pos = (None if x is None else x[rows] for x in (all_heads.bias_N, all_heads.pos_N))
        found.append(RaggedKV(all_heads.k_ND[rows], all_heads.v_ND[rows], cu_len, bias_N=bias, pos_N=pos))
    return found
