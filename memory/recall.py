"""Recall: what is remembered about a question, in a time, about a thing; each hit with its reasons.

Lists are made by words (`words.WordSearch`) and vectors (`vectors.VectorProjection`) and fused by weighted reciprocal
rank (Cormack et al. 2009). This module knows lists and ranks. It does not know how a list is made, nor the answer.

Evidence found among the first ten on LoCoMo's development half (997 questions, single turns, nothing trained): words
without neighbours 68.8 %, words 82.8 %, meaning 52.6 %, fused 85.2 %; all the evidence of a multi-hop question 20 %.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ..clock import to_us
from ..errors import BadInput
from ..perception.words import entity_key
from ..records import Hit, Interval, Reason, Recall, Record, Space, Vector
from .journal import Journal
from .packs import Packs
from .projection import Projection
from .schema import documents, records
from .vectors import PictureVectors, TextVectors, VectorProjection
from .words import Found, Scope, Words, WordSearch, all_of, terms_of

if TYPE_CHECKING:
    from .memory import Encoders

DEPTH = 50
"""Entries of a list that take part in the fusion."""
RANK_OFFSET = 5
"""``weight / (RANK_OFFSET + rank)``. 3 to 10 do as well on LoCoMo; the customary 60 loses 4 points, because words with
their neighbours are much better at the top than the other lists."""
WEIGHTS = {"words": 2.0, "meaning": 0.75, "meaning nearby": 0.5, "picture": 1.0, "entity": 0.5}
"""A further list of words without neighbours makes it worse (84.8 %), and names of speakers as a list do not help."""
LEAST_COSINE = {"": 0.30, "imagenet-bridge": 0.35}
"""Below this nothing is near, by the name of the space; "" for any other. For all-MiniLM-L6-v2 on LoCoMo's development
half the best cosine of an answerable question was below 0.30 in 0.0 % of 762 questions (0.35: 0.1 %), of a question
about another conversation in 22 % (0.35: 45 %), of fourteen questions about other subjects altogether in 94 %.
The bridge's figure is a guess that keeps clear misses out; what may count as evidence is decided by who answers."""
_FAINT = 0.5
"""Beside words, meaning may propose down to this share of `LEAST_COSINE`: ranks say the rest."""
_MOST_PICTURES = 20
"""A class name near the query is near for every frame that shows the class (hubs), so a picture list stays short."""
_MOST_MENTIONS = 1_000
_BESIDE = "with what was before and after"
_NEARBY = 0.5
"""Weight of the two neighbours' vectors in the mean of "meaning nearby"."""


@dataclass(frozen=True, slots=True)
class _List:
    """One ranked proposal."""

    name: str
    found: Sequence[Found]
    detail: str = ""


class Searcher:
    """Makes the projections that recall needs, and recalls. Any thread."""

    def __init__(self, engine: Engine, journal: Journal, encoders: Encoders) -> None:
        self._engine = engine
        self._journal = journal
        self._encoders = encoders
        self._words = WordSearch()
        self._texts: TextVectors | None = None
        self._pictures: PictureVectors | None = None
        self._names: list[str] = []

    def projections(self, root: Path, packs: Packs) -> list[Projection]:
        """The projections that this searcher reads; text vectors only if there is an encoder."""
        self._pictures = PictureVectors(root, packs, self._engine)
        members: list[Projection] = [Words(), self._pictures]
        if self._encoders.text is not None:
            self._texts = TextVectors(root, self._encoders.text, self._engine)
            members.append(self._texts)
        self._names = [member.name for member in members]
        return members

    @property
    def names(self) -> list[str]:
        """Names of the projections that must be level before `recall`."""
        return list(self._names)

    def recall(
        self,
        query: str | None,
        when: Interval | None,
        k: int,
        *,
        entity: str | None,
        kinds: Sequence[str] | None,
        until: datetime | None,
        owner: str,
    ) -> Recall:
        """See `memory.Memory.recall`.

        Raises:
            BadInput: neither query, nor time, nor entity was given, or ``k`` < 1.
            BrokenProjectionError: a vector segment is not what was stored.
        """
        if k < 1:
            raise BadInput(f"expected to recall at least one record, got k={k}")
        wanted = query if query is not None and query.strip() else None
        if wanted is None and when is None and entity is None:
            raise BadInput("expected a question, a time or a thing to recall by, got none of them")
        with self._engine.connect() as connection:
            scope = _scope(connection, when, entity, kinds, until, owner)
            if scope is None:
                return Recall((), True, f"{entity!r} names nothing that could be looked up")
            if wanted is None:
                return self._in_time(connection, scope, k, entity)
            terms = terms_of(wanted)
            depth = max(DEPTH, 2 * k)
            lists = [_List("words", self._words.ranked(connection, terms, scope, depth))]
            has_words, best = bool(lists[0].found), "nothing to compare meanings with"
            if self._texts is not None and self._encoders.text is not None:
                nearest, cosine = self._by_meaning(connection, wanted, scope, depth, is_alone=not has_words)
                best = f"the nearest meaning has cosine {cosine:.2f}"
                lists += nearest
            lists += self._by_picture(connection, wanted, scope)
            if not any(found.found for found in lists):
                return Recall((), True, f"nothing that may be recalled here holds a word of the question; {best}")
            if entity is not None and scope.entity is not None:
                seqs = self._words.mentions(connection, scope, scope.entity, depth)
                lists.append(_List("entity", [Found(seq, 1.0) for seq in seqs], entity))
            return Recall(self._hits(connection, _fused(lists, k), lists, terms), False)

    def _in_time(self, connection: Connection, scope: Scope, k: int, entity: str | None) -> Recall:
        """Everything in scope, oldest first; the newest ``k`` if there is more."""
        seqs = self._words.newest(connection, scope, k + 1)
        if not seqs:
            return Recall((), True, "nothing is remembered of that")
        note = f"only the newest {k} are given, there is more" if len(seqs) > k else ""
        chosen = list(reversed(seqs[:k]))
        lists = [_List("time", [Found(seq, 1.0) for seq in chosen])]
        if entity is not None:
            lists.append(_List("entity", [Found(seq, 1.0) for seq in reversed(chosen)], entity))
        scored = [Found(seq, 1.0) for seq in chosen]
        return Recall(self._hits(connection, scored, lists, ()), False, note)

    def _by_meaning(
        self, connection: Connection, query: str, scope: Scope, depth: int, *, is_alone: bool
    ) -> tuple[list[_List], float]:
        """Lists by meaning, and the best cosine. Alone, they hold only what is near enough to stand for itself."""
        assert self._texts is not None
        assert self._encoders.text is not None
        space = self._encoders.text.space
        vector = self._encoders.text.encode_texts([query])[0]
        if scope.entity is None:
            near = self._nearest(connection, self._texts, space, vector, scope, depth)
        else:
            near = self._nearest_mentions(connection, scope, vector, depth)
        if not near:
            return [], 0.0
        best = near[0].score
        least = _least_cosine(space.name) * (1.0 if is_alone else _FAINT)
        near = [found for found in near if found.score >= least]
        around = self._words.neighbours(connection, [found.seq for found in near])
        asked = {found.seq for found in near} | {seq for seqs in around.values() for seq in seqs}
        vectors = self._texts.of_records(connection, space, scope.owner, sorted(asked))
        cosine = {seq: float(np.vecdot(other, vector)) for seq, other in vectors.items()}
        nearby = []
        for found in near:
            sides = [cosine[seq] for seq in around.get(found.seq, []) if seq in cosine]
            nearby.append(Found(found.seq, (found.score + _NEARBY * sum(sides)) / (1 + _NEARBY * len(sides))))
        nearby.sort(key=lambda found: (-found.score, found.seq))
        return [_List("meaning", near), _List("meaning nearby", nearby, _BESIDE)], best

    def _by_picture(self, connection: Connection, query: str, scope: Scope) -> list[_List]:
        encoder = self._encoders.picture_text
        if encoder is None or self._pictures is None:
            return []
        vector = encoder.encode_texts([query])[0]
        near = self._nearest(connection, self._pictures, encoder.space, vector, scope, _MOST_PICTURES)
        least = _least_cosine(encoder.space.name)
        return [_List("picture", [found for found in near if found.score >= least], encoder.space.name)]

    def _nearest(
        self,
        connection: Connection,
        projection: VectorProjection,
        space: Space,
        vector: Vector,
        scope: Scope,
        depth: int,
    ) -> list[Found]:
        is_filtered = scope.kinds is not None or scope.entity is not None
        accept = partial(self._words.accepted, connection, scope) if is_filtered else None
        near = projection.search(connection, space, vector, scope, depth, accept)
        return [Found(found.seq, found.score) for found in near]

    def _nearest_mentions(self, connection: Connection, scope: Scope, vector: Vector, depth: int) -> list[Found]:
        """The nearest of the newest thousand documents that mention the entity: compared one by one, they are few."""
        assert self._texts is not None
        assert self._encoders.text is not None
        assert scope.entity is not None
        seqs = self._words.mentions(connection, scope, scope.entity, _MOST_MENTIONS)
        vectors = self._texts.of_records(connection, self._encoders.text.space, scope.owner, seqs)
        found = [Found(seq, float(np.vecdot(other, vector))) for seq, other in vectors.items()]
        return sorted(found, key=lambda one: (-one.score, one.seq))[:depth]

    def _hits(
        self, connection: Connection, scored: Sequence[Found], lists: Sequence[_List], terms: Sequence[str]
    ) -> tuple[Hit, ...]:
        seqs = [found.seq for found in scored]
        known = self._journal.get(seqs)
        query = sa.select(documents.c.seq, documents.c.text).where(documents.c.seq.in_(seqs))
        matched = self._words.matched(connection, terms, seqs)
        texts = {int(seq): str(text) for seq, text in connection.execute(query)}
        hits = []
        for found in scored:
            record: Record | None = known.get(found.seq)
            if record is None:
                continue
            reasons = _reasons(found.seq, lists, matched.get(found.seq, ""))
            hits.append(Hit(record, texts.get(found.seq, ""), found.score, reasons))
        return tuple(hits)


def _scope(
    connection: Connection,
    when: Interval | None,
    entity: str | None,
    kinds: Sequence[str] | None,
    until: datetime | None,
    owner: str,
) -> Scope | None:
    """What may be found; None if the entity has no word to look up."""
    expression = None
    if entity is not None:
        words = re.findall(r"[^\W_]+", entity_key(entity)) or terms_of(entity)
        if not words:
            return None
        expression = all_of(words, "text")
    return Scope(
        owner=owner,
        start_us=to_us(when.start) if when is not None and when.start is not None else None,
        end_us=to_us(when.end) if when is not None and when.end is not None else None,
        last_seq=None if until is None else _last_recorded(connection, to_us(until)),
        kinds=None if kinds is None else tuple(kinds),
        entity=expression,
    )


def _last_recorded(connection: Connection, until_us: int) -> int:
    """The newest record that had been written by then, 0 if none: a binary search, for that clock never goes back."""
    low, high = 0, int(connection.execute(sa.select(sa.func.max(records.c.seq))).scalar() or 0)
    while low < high:
        middle = (low + high + 1) // 2
        query = sa.select(records.c.wall_us).where(records.c.seq <= middle).order_by(records.c.seq.desc()).limit(1)
        written = connection.execute(query).scalar()
        if written is None or written <= until_us:
            low = middle
        else:
            high = middle - 1
    return low


def _fused(lists: Sequence[_List], k: int) -> list[Found]:
    """The best ``k`` by the sum of ``weight / (RANK_OFFSET + rank)``; ties by seq."""
    total: dict[int, float] = {}
    for one in lists:
        for rank, found in enumerate(one.found, start=1):
            total[found.seq] = total.get(found.seq, 0.0) + WEIGHTS[one.name] / (RANK_OFFSET + rank)
    ordered = sorted(total.items(), key=lambda entry: (-entry[1], entry[0]))
    return [Found(seq, score) for seq, score in ordered[:k]]


def _reasons(seq: int, lists: Sequence[_List], matched: str) -> tuple[Reason, ...]:
    reasons = []
    for one in lists:
        for rank, found in enumerate(one.found, start=1):
            if found.seq == seq:
                detail = (matched or _BESIDE) if one.name == "words" else one.detail
                reasons.append(Reason(one.name, rank, found.score, detail))
                break
    return tuple(reasons)


def _least_cosine(name: str) -> float:
    return LEAST_COSINE.get(name, LEAST_COSINE[""])
