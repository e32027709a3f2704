"""A short, repeatable life of a memory, and what must hold after it was cut off anywhere.

`live` opens a directory, remembers events with frames, is told things, acts upon the world, lets projections catch up,
seals segments, keeps a snapshot, and closes. Everything that was acknowledged is reported at once. `inspect` opens what
is left and returns what is wrong with it.
"""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from perdure.errors import PerdureError, StaleProjectionError, StorageError
from perdure.memory import Encoders, Memory, database, packs, projection, vectors
from perdure.memory.directory import write_atomically
from perdure.records import Effect, Event, KeyFrame, Label, OutcomeStatus, Record, Space, Trust

DIM = 16
SNAPSHOT = "kv/snapshot.bin"
_START = datetime(2026, 3, 1, 8, tzinfo=UTC)
_SPACE = Space("ab" * 32, DIM, "cosine", "hash")


class HashEncoder:
    """Turns words into a unit vector by hashing them: repeatable, and equal words are near."""

    space = _SPACE

    def encode_texts(self, texts: list[str]) -> Any:
        return np.stack([_unit(text.lower().split()) for text in texts])


class TickClock:
    """Goes on by 10 ms a reading, from an hour that the generation names."""

    def __init__(self, generation: int) -> None:
        self._start = _START + timedelta(hours=generation)
        self._readings = 0

    def now(self) -> datetime:
        self._readings += 1
        return self._start + timedelta(milliseconds=10 * self._readings)

    def monotonic_us(self) -> int:
        return 10_000 * self._readings


class World:
    """A file outside the agent's directory in which an act can be seen to have happened, and how often."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def act(self, what: str) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(file, f"{what}\n".encode())
        os.close(file)

    def acts(self) -> list[str]:
        return self._path.read_text().split() if self._path.exists() else []


def shrink() -> None:
    """Have segments sealed and the write-ahead log checkpointed after a few records, so that a short life does both."""
    vectors.SEGMENT_ROWS = 2
    connect = database._connect

    def impatient(path: Path, options: str) -> Any:
        connection = connect(path, options)
        connection.execute("PRAGMA wal_autocheckpoint=40")
        return connection

    database._connect = impatient


class _NoSync:
    """The module ``os`` on a disk that only says that it has synced."""

    def fsync(self, file: int) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


_broken: set[str] = set()


def sabotage(promise: str) -> None:
    """Break a promise on purpose, to see that the laboratory notices."""
    _broken.add(promise)
    if promise == "packs are synced":
        packs.os = _NoSync()
    elif promise == "the journal is synced":
        database.open_engine = functools.partial(database.open_engine, durable=False)
    else:
        assert promise == "intents come before acts", promise


def open_memory(root: Path, generation: int, *, read_only: bool = False) -> Memory:
    encoders = Encoders(text=HashEncoder())
    return Memory.open(root, encoders=encoders, clock=TickClock(generation), read_only=read_only)


def live(
    root: Path,
    world: World,
    report: Callable[[str], None],
    generation: int,
    rounds: int,
    refused: Callable[[StorageError], None] | None = None,
) -> None:
    """Live through ``rounds`` of remembering and acting, then close.

    Args:
        root: the agent's directory.
        world: what is acted upon.
        report: gets one line for everything that was acknowledged.
        generation: number of this life in the directory; distinguishes times and words.
        rounds: how many.
        refused: told when the disk refuses; the same memory then goes on with the next round.
    """
    with open_memory(root, generation) as memory:
        acknowledge(report, *memory.journal.read(newest_first=True, limit=1))
        settle(memory, report)
        for number in range(rounds):
            try:
                one_round(memory, world, report, f"pebble{generation:03d}x{number:03d}")
                with database.translated("saving the snapshot"):
                    write_atomically(root / SNAPSHOT, snapshot(generation * 1000 + number))
            except StorageError as error:
                if refused is None:
                    raise
                refused(error)


def one_round(memory: Memory, world: World, report: Callable[[str], None], word: str) -> None:
    """An event, something told, a projection that catches up, and one irreversible act."""
    with memory.step() as step:
        step.event(_event(memory.now(), word))
        step.told(f"The {word} is in the blue tin.", time=memory.now())
    acknowledge(report, *step.records)
    told = step.records[1]
    report(f"told {told.seq} {word}")
    memory.heartbeat()
    memory.catch_up()
    intent = f"act-{word}"
    if "intents come before acts" in _broken:
        world.act(word)
    with memory.step() as step:
        step.intent(intent, "press", {"what": word}, Effect.IRREVERSIBLE, told.seq)
    acknowledge(report, *step.records)
    if "intents come before acts" not in _broken:
        world.act(word)
    report(f"world {word}")
    with memory.step() as step:
        step.outcome(intent, OutcomeStatus.DONE)
    acknowledge(report, *step.records)


def settle(memory: Memory, report: Callable[[str], None]) -> None:
    """Call every act that was cut off unknown, as waking does."""
    ended = {record.payload["intent"] for record in memory.journal.read(kinds=["outcome"])}
    for record in list(memory.journal.read(kinds=["intent"])):
        if record.payload["intent"] not in ended:
            with memory.step() as step:
                step.outcome(record.payload["intent"], OutcomeStatus.UNKNOWN, how="recover")
            acknowledge(report, *step.records)


def acknowledge(report: Callable[[str], None], *records: Record) -> None:
    for record in records:
        report(f"record {record.seq} {fingerprint(record)}")


def fingerprint(record: Record) -> str:
    return hashlib.sha256(repr(record).encode()).hexdigest()


def snapshot(number: int) -> bytes:
    """Bytes that can be told to be whole: 5,000 of them and their checksum."""
    body = number.to_bytes(4, "little") * 1250
    return body + hashlib.sha256(body).digest()


def inspect(root: Path, world: World, reports: list[str], generation: int) -> dict[str, Any]:
    """Open what is left of a life and say what is wrong with it (``wrong``), and how long opening took."""
    wrong: list[str] = []
    known = {int(seq): mark for kind, seq, mark in _fields(reports, "record")}
    told = [(int(seq), word) for kind, seq, word in _fields(reports, "told")]
    if known:
        wrong += _read_beside(root, generation, told)
    began = time.perf_counter()
    try:
        memory = open_memory(root, generation)
    except PerdureError as error:
        return {"wrong": [*wrong, f"does not open: {error}"], "open_s": 0.0, "records": 0}
    open_s = time.perf_counter() - began
    with memory:
        wrong += _compare(memory, known)
        wrong += [f"verify before catching up: {problem}" for problem in memory.check()]
        wrong += _check_outage(memory)
        wrong += _check_acts(memory, world)
        wrong += _check_answers(memory, told)
        wrong += _check_snapshot(root)
        wrong += [f"replay gives another {row.name}" for row in memory.compare() if not row.equal]
        count = memory.journal.last_seq()
    return {"wrong": wrong, "open_s": open_s, "records": count}


def _fields(reports: list[str], kind: str) -> Iterator[list[str]]:
    return (line.split() for line in reports if line.startswith(f"{kind} "))


def _read_beside(root: Path, generation: int, told: list[tuple[int, str]]) -> list[str]:
    """What a reader gets who comes before the agent wakes: the truth, or a refusal because a projection is behind."""
    with _impatience(), open_memory(root, generation, read_only=True) as memory:
        try:
            return _check_answers(memory, told[-1:])
        except StaleProjectionError:
            return []


@contextmanager
def _impatience() -> Iterator[None]:
    waiting = projection._READER_WAIT_S
    projection._READER_WAIT_S = 0.0
    yield
    projection._READER_WAIT_S = waiting


def _compare(memory: Memory, known: dict[int, str]) -> list[str]:
    stored = {record.seq: fingerprint(record) for record in memory.journal.read()}
    wrong = [f"record {seq} was acknowledged and is missing" for seq in known if seq not in stored]
    wrong += [
        f"record {seq} is not what was acknowledged" for seq in known if stored.get(seq, known[seq]) != known[seq]
    ]
    if list(stored) != list(range(1, len(stored) + 1)):
        wrong.append(f"the journal has gaps: {list(stored)}")
    return wrong


def _check_outage(memory: Memory) -> list[str]:
    """The time since the last sign of life is known as an outage, and whether it was on purpose."""
    boot = memory.journal.newest("boot")
    before = next(memory.journal.read(until=boot.seq - 1, newest_first=True, limit=1), None)
    outages = memory.outages()
    if before is None:
        return []
    last = outages[-1]
    if last.clean != (before.kind == "stop"):
        return [f"the outage is called clean={last.clean} after a {before.kind}"]
    if not before.recorded <= last.interval.start < last.interval.end == boot.recorded:
        return [f"the outage {last.interval} does not lie between {before.recorded} and {boot.recorded}"]
    return []


def _check_acts(memory: Memory, world: World) -> list[str]:
    acts = world.acts()
    intended = [record.payload["arguments"]["what"] for record in memory.journal.read(kinds=["intent"])]
    wrong = [f"{act} was done {acts.count(act)} times" for act in set(acts) if acts.count(act) > 1]
    return wrong + [f"{act} was done without a durable intent" for act in acts if act not in intended]


def _check_answers(memory: Memory, told: list[tuple[int, str]]) -> list[str]:
    wrong = []
    for seq, word in [*told[:1], *told[-2:]]:
        found = [hit.record.seq for hit in memory.recall(word, k=3, kinds=["told"]).hits]
        if seq not in found:
            wrong.append(f"recall of {word} (record {seq}) found {found}")
        if seq not in {source for fact in memory.facts(word) for source in fact.evidence}:
            wrong.append(f"no fact names record {seq} about {word}")
    return wrong


def _check_snapshot(root: Path) -> list[str]:
    path = root / SNAPSHOT
    if not path.exists():
        return []
    data = path.read_bytes()
    return [] if hashlib.sha256(data[:-32]).digest() == data[-32:] else ["the snapshot is neither old nor new"]


def _event(now: datetime, word: str) -> Event:
    frames = tuple(
        KeyFrame(now, np.full((8, 8, 3), 40 * index, np.uint8), 0.5, index, _unit([word, str(index)]))
        for index in range(2)
    )
    labels = (Label("tin", 0.9),)
    return Event(now, now, "camera", Trust.SEEN, f"{word} beside a tin", frames, labels=labels, space=_SPACE)


def _unit(words: list[str]) -> Any:
    total = np.zeros(DIM, np.float32)
    for word in words:
        total += np.frombuffer(hashlib.sha256(word.encode()).digest()[:DIM], np.int8)
    return (total / np.linalg.norm(total)).astype(np.float32)
