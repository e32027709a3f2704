"""The working memory of an agent: the running story of its life, kept level with the journal.

Knows which records are read when, and how what was done is written down. Does not know attention.

Every operation is a record before it is done: which records and token ids were read, what was
compacted, merged, re-based or asked. So the first run and every later one take the same path, and the cache is a pure
function of the journal (for one build and number of threads). What comes next depends only on the story so far, never
on the clock: whether lines are read at once or a day later, the same tokens are read together.

    working_begun   {"version", "model", "policy", "preamble": [ids], "without": [seq, ...]}   from the first record
    working         {"op": "read", "tokens": [ids], "told": [[first, last + 1], ...], "seq", "offset", "heading"}
                    up to that token of the line after record seq; told: which are worth rehearsing
                    {"op": "compact"} {"op": "merge"} {"op": "rebase"}
                    {"op": "ask", "tokens": [ids]}   its queries serve as examples later
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...errors import BadInput, PerdureError
from ...records import Record
from . import snapshot, story
from .stream import Policy, Stream

if TYPE_CHECKING:
    from ...runtime.planner import LocalPlanner
    from ..memory import Memory

log = logging.getLogger("perdure")

KIND, BEGUN = "working", "working_begun"
VERSION = 1
PREAMBLE = "This is the story of my life, line by line, as I saw it, heard it and did it.\n"
FILE = "stream.safetensors"
_SNAPSHOT_OPS = 64
"""So many operations after a snapshot the next one is due."""


@dataclass(frozen=True, slots=True)
class Said:
    """What came after a text."""

    text: str
    tokens: int
    log_probability: float
    """Of all tokens of the text together, natural logarithm."""


@dataclass
class _Line:
    """Tokens of one record that were not read yet."""

    seq: int
    heading: str
    """The heading in force after it."""
    told: bool
    tokens: list[int]
    offset: int = 0


@dataclass
class _Place:
    """How far in the journal the story has been read."""

    seq: int = 0
    """Newest record of which every token was read."""
    offset: int = 0
    """Tokens of the next line that were read as well."""
    heading: str = ""


@dataclass
class Counts:
    """What a working memory has done since it was opened."""

    read_tokens: int = 0
    compactions: int = 0
    merges: int = 0
    rebases: int = 0
    asked: int = 0
    seconds: float = 0.0
    """Of `WorkingMemory.advance`."""

    def tally(self, operation: str, tokens: int) -> None:
        """Count one operation."""
        self.read_tokens += tokens if operation == "read" else 0
        self.compactions += operation == "compact"
        self.merges += operation == "merge"
        self.rebases += operation == "rebase"


class WorkingMemory:
    """The story in the planner's cache. Open it on a memory; `advance` in slack time; `ask` it.

    Args:
        memory: the journal behind it; open for writing, else it can only be looked at.
        planner: its weights and tokenizer; the model must run in our own decoder.
        policy: sizes.
        lines: how a record becomes a line; `story.line` by default.

    Raises:
        BadInput: the planner runs elsewhere, or the policy does not fit it.
    """

    def __init__(
        self, memory: Memory, planner: LocalPlanner, policy: Policy | None = None, lines: story.Lines = story.line
    ) -> None:
        weights = getattr(getattr(planner, "engine", None), "weights", None)
        if weights is None:
            raise BadInput(f"expected a planner that runs in our own decoder, got {planner.name}")
        self._memory, self._weights, self._tokenizer = memory, weights, planner.tokenizer
        self._lines, self._model = lines, planner.model_hash
        self.policy = policy or Policy()
        self._lock = threading.RLock()
        self.counts = Counts()
        self._preamble = self.encode(PREAMBLE, first=True)
        self._place = _Place()
        self._ops = self._saved = 0
        self._took_s: dict[str, float] = {}
        self._begin()
        self._restore()

    @property
    def path(self) -> Path:
        """Where its snapshot lies."""
        return self._memory.root / "kv" / FILE

    @property
    def waiting_tokens(self) -> int:
        """Tokens of lines that were rendered and not read yet."""
        return sum(len(line.tokens) - line.offset for line in self._waiting)

    def advance(self, budget_s: float | None = None, *, whole: bool = False) -> bool:
        """Read what the journal has and the story has not; returns whether it is level.

        Args:
            budget_s: seconds; an operation that last took longer than what is left is put off, so that a control
                loop is not held up; it is made up for when there is more time. None: until level.
            whole: read the last tokens too, although they are fewer than are read at once.

        Raises:
            StorageError: the disk refused; nothing is lost.
        """
        began = time.monotonic()
        with self._lock:
            try:
                left_s = budget_s
                while left_s is None or left_s > 0:
                    if not self._go_on(whole, left_s):
                        return self.waiting_tokens < (1 if whole else self.policy.read_tokens)
                    left_s = None if budget_s is None else budget_s - (time.monotonic() - began)
                return False
            finally:
                self.counts.seconds += time.monotonic() - began

    def ask(self, text: str, *, max_tokens: int = 16, stop: str = "\n") -> Said:
        """What comes after a text that follows the story, by the most probable tokens; the story then forgets both.

        Args:
            text: best the beginning of a line: "The spare key is in the".
            max_tokens: of the answer.
            stop: the answer ends before this.

        Raises:
            BadInput: no text, or too long for a branch.
        """
        with self._lock:
            self.advance(whole=True)
            tokens = self.encode(text)
            if not tokens or max_tokens < 1 or len(tokens) + max_tokens > self.policy.branch_tokens:
                raise BadInput(
                    f"expected a text and an answer of at most {self.policy.branch_tokens} tokens together, "
                    f"got {len(tokens)} and {max_tokens}"
                )
            if not self._memory.read_only:
                self._note(KIND, {"op": "ask", "tokens": tokens})
            self.counts.asked += 1
            self._ops += 1
            return self._answer(tokens, max_tokens, stop)

    def score(self, text: str, answer: str) -> tuple[bool, float]:
        """Whether the story would answer just so, and the log-probability of it; leaves no trace."""
        with self._lock:
            asked, given = self.encode(text), self.encode(answer)
            length = self.stream.cache.length
            logits = self.stream.ask([*asked, *given], observe=False)[len(asked) - 1 : -1]
            self.stream.forget(length)
            chosen = logits.log_softmax(-1).gather(1, torch.tensor(given)[:, None])[:, 0]
            return bool((logits.argmax(-1) == torch.tensor(given)).all()), float(chosen.sum())

    def snapshot(self) -> Path | None:
        """Write the state to ``DIR/kv``, so that waking is quick; None if the memory is read-only."""
        if self._memory.read_only:
            return None
        with self._lock:
            if self._ops == self._saved and self.path.exists():
                return self.path
            about = {**self._identity(), "place": asdict(self._place), "begun": self._begun}
            snapshot.store(self.path, self.stream, self.seq, about)
            self._saved = self._ops
        return self.path

    def story_tokens(self) -> list[int]:
        """Every token of the present story, as it was read, from the journal."""
        found = list(self._preamble)
        for record in self._operations(0):
            if record.payload.get("op") == "read":
                found += record.payload["tokens"]
        return found

    def tail_text(self) -> str:
        """What of the story is still in the cache as it was read."""
        return self._tokenizer.decode(self.stream.cache.tokens)

    def digest(self) -> str:
        """sha256 of all numbers; the same for the same journal, build and number of threads."""
        with self._lock:
            return self.stream.digest()

    def rebuild(self) -> int:
        """Drop the state and do all operations of the journal again; returns the record it then reflects."""
        with self._lock:
            self._begin()
            for record in self._operations(0):
                self._do(record)
            return self.seq

    def retell(self, without: Sequence[int] = ()) -> None:
        """Begin the story anew from the first record, as if the records ``without`` had never been; `advance` reads.

        What was read before has no part in it any more.
        """
        with self._lock:
            self._note(BEGUN, self._beginning(sorted(without)))

    # ------------------------------------------------------------------ inside

    def _go_on(self, whole: bool, left_s: float | None = None) -> bool:
        """One operation; False if there is nothing to do, or nothing that takes as little time as is left."""
        if self._memory.read_only:
            return False
        if not self._begun:
            self._note(BEGUN, self._beginning(()))
        self._fill()
        waiting = self.waiting_tokens
        count = min(waiting, self.policy.read_tokens)
        if count == 0 or (count < self.policy.read_tokens and not whole):
            if self._ops - self._saved >= _SNAPSHOT_OPS and self._fits("snapshot", left_s):
                with self._timed("snapshot"):
                    self.snapshot()
            return False
        operation = self.stream.due(count) or "read"
        if not self._fits(operation, left_s):
            return False
        with self._timed(operation):
            self._note(KIND, {"op": operation, **(self._next(count) if operation == "read" else {})})
        return True

    def _fits(self, operation: str, left_s: float | None) -> bool:
        return left_s is None or self._took_s.get(operation, 0.0) <= left_s

    @contextmanager
    def _timed(self, operation: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._took_s[operation] = time.monotonic() - began

    def _note(self, kind: str, payload: dict[str, Any]) -> None:
        """Write an operation down, then do it. A kill between the two is made up for on waking."""
        with self._memory.step() as step:
            step.note(kind, payload)
        if payload.get("op") != "ask":  # its branch is still needed
            self._do(step.records[0])
        self.seq = step.records[0].seq

    def _do(self, record: Record) -> None:
        """One operation of the journal; those of a life and those that are made up for are the same."""
        payload = record.payload
        operation = payload.get("op", "begin")
        if operation == "begin":
            self._begin(payload["without"])
            self._begun = record.seq
        elif operation == "read":
            told = [False] * len(payload["tokens"])
            for first, end in payload["told"]:
                told[first:end] = [True] * (end - first)
            self.stream.read(payload["tokens"], told)
            self._advance_to(_Place(payload["seq"], payload["offset"], payload["heading"]))
        elif operation == "ask":
            length = self.stream.cache.length
            self.stream.ask(payload["tokens"])
            self.stream.forget(length)
        else:
            {"compact": self.stream.compact, "merge": self.stream.merge, "rebase": self.stream.rebase}[operation]()
        self.counts.tally(operation, len(payload.get("tokens", ())))
        self.seq = record.seq
        self._ops += 1

    def _begin(self, without: Sequence[int] = ()) -> None:
        self.stream = Stream(self._weights, self.policy, self._preamble)
        self.seq = self._begun = 0
        self._ops = self._saved = 0
        self._place = _Place()
        self._without = frozenset(without)
        self._forget_waiting()

    def _restore(self) -> None:
        """Take the snapshot if it fits the journal, then do what the journal has after it."""
        begun = self._newest_beginning()
        if begun is None:
            return
        if self.path.exists():
            try:
                found = snapshot.restore(self.path, self.stream, self._identity() | {"begun": begun.seq})
                if found.seq > self._memory.journal.last_seq():
                    raise BadInput(f"{self.path} is ahead of the journal")
                self.seq, self._begun = found.seq, begun.seq
                self._without = frozenset(begun.payload["without"])
                self._advance_to(_Place(**found.about["place"]))
            except (PerdureError, KeyError, TypeError) as error:
                log.warning("the snapshot of the working memory is refused (%s); it is made anew", error)
                self._begin()
        for record in self._operations(self.seq):
            self._do(record)

    def _newest_beginning(self) -> Record | None:
        """The record with which the present story began, if it is of this model and policy."""
        record = self._memory.journal.newest(BEGUN)
        if record is None or any(record.payload[name] != value for name, value in self._identity().items()):
            return None
        return record

    def _operations(self, after: int) -> Iterator[Record]:
        """The present story's operations after a record."""
        begun = self._newest_beginning()
        if begun is not None:
            yield from self._memory.journal.read(after=max(after, begun.seq - 1), kinds=[BEGUN, KIND])

    def _identity(self) -> dict[str, Any]:
        policy = asdict(self.policy)
        return {"version": VERSION, "model": self._model, "policy": policy, "preamble": self._preamble}

    def _beginning(self, without: Sequence[int]) -> dict[str, Any]:
        return {**self._identity(), "without": list(without)}

    # ------------------------------------------------- from records to tokens

    def _forget_waiting(self) -> None:
        self._waiting: deque[_Line] = deque()
        self._rendered = self._place.seq
        self._heading = self._place.heading

    def _advance_to(self, place: _Place) -> None:
        """Note that the story was read up to there."""
        self._place = place
        while self._waiting and self._waiting[0].seq <= place.seq:
            self._waiting.popleft()
        if self._waiting:
            self._waiting[0].offset = place.offset
        elif self._rendered < place.seq or place.offset:
            self._forget_waiting()

    def _fill(self) -> None:
        """Render records until a read's worth of tokens is waiting, or there are none left."""
        last, waiting = self._memory.journal.last_seq(), self.waiting_tokens
        if last <= self._rendered:
            return
        for record in self._memory.journal.read(after=self._rendered, until=last, kinds=story.KINDS):
            if waiting >= 2 * self.policy.read_tokens:
                return
            self._rendered = record.seq
            text = None if record.seq in self._without else self._lines(record)
            if not text:
                continue
            heading = story.heading(record)
            head = "" if heading == self._heading else f"{heading}\n"
            self._heading = heading
            line = _Line(record.seq, heading, record.kind == "told", self.encode(f"{head}{text}\n"))
            if not self._waiting and self._place.offset and record.seq > self._place.seq:
                line.offset = self._place.offset
            self._waiting.append(line)
            waiting += len(line.tokens) - line.offset
        self._rendered = max(self._rendered, last)

    def _next(self, count: int) -> dict[str, Any]:
        """The next ``count`` waiting tokens, and where the story stands after them."""
        tokens: list[int] = []
        told: list[list[int]] = []
        place = _Place(self._place.seq, self._place.offset, self._place.heading)
        for line in self._waiting:
            taken = line.tokens[line.offset : line.offset + count - len(tokens)]
            if line.told:
                told.append([len(tokens), len(tokens) + len(taken)])
            tokens += taken
            if line.offset + len(taken) < len(line.tokens):
                place.offset = line.offset + len(taken)
                break
            place = _Place(line.seq, 0, line.heading)
            if len(tokens) == count:
                break
        return {"tokens": tokens, "told": told, **asdict(place)}

    def encode(self, text: str, *, first: bool = False) -> list[int]:
        """Token ids of a text within the story; ``first``: at its very beginning."""
        ids = self._tokenizer.encode(text)
        return ids[1:] if self._tokenizer.bos is not None and not first else ids

    def _answer(self, asked: list[int], max_tokens: int, stop: str) -> Said:
        stream, tokenizer = self.stream, self._tokenizer
        length = stream.cache.length
        try:
            logits = stream.ask(asked)[-1]
            given: list[int] = []
            total, text = 0.0, ""
            while True:
                token = int(logits.argmax())
                total += float(logits.log_softmax(-1)[token])
                text = tokenizer.decode([*given, token])
                if token in tokenizer.eos or stop in text or len(given) + 1 == max_tokens:
                    return Said(text.split(stop)[0].strip(), len(given) + 1, total)
                given.append(token)
                logits = stream.ask([token], observe=False)[-1]
        finally:
            stream.forget(length)
