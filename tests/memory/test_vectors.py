"""Vectors survive sealing, crashes and damage, and a search finds what comparing them all would find."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from perdure.memory import Encoders, Memory
from perdure.memory import index as index_module
from perdure.memory import vectors as vectors_module
from perdure.memory.schema import segments
from perdure.memory.schema import vectors as vectors_table
from perdure.memory.words import Scope
from perdure.perception.text import HashingTextEncoder
from perdure.records import Event, KeyFrame, Space

ENCODER = HashingTextEncoder()


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors_module, "SEGMENT_ROWS", 40)


def tell(memory: Memory, first: int, last: int) -> None:
    with memory.step() as step:
        for number in range(first, last):
            step.told(f"thing {number} lies on shelf {number % 7} beside thing {number * 31 % 100}")
    memory.catch_up()


def near(memory: Memory, query: str, depth: int = 5, **scope: int) -> list[tuple[int, float]]:
    memory.catch_up()
    member = memory.projections["text_vectors"]
    with memory._engine.connect() as connection:
        vector = ENCODER.encode_texts([query])[0]
        found = member.search(connection, ENCODER.space, vector, Scope("owner", **scope), depth)
    return [(entry.seq, entry.score) for entry in found]


def compared_with_all(memory: Memory, query: str, depth: int = 5) -> list[tuple[int, float]]:
    told = list(memory.journal.read(kinds=["told"]))
    everything = ENCODER.encode_texts([record.payload["text"] for record in told])
    scores = np.vecdot(everything, ENCODER.encode_texts([query])[0])
    order = sorted(range(len(told)), key=lambda at: (-scores[at], told[at].seq))[:depth]
    return [(told[at].seq, float(scores[at])) for at in order]


def files(memory: Memory) -> list[Path]:
    return sorted((memory.root / "vectors").rglob("*.*"))


def same(a: list[tuple[int, float]], b: list[tuple[int, float]]) -> bool:
    return [seq for seq, _ in a] == [seq for seq, _ in b] and np.allclose([s for _, s in a], [s for _, s in b])


def test_a_search_finds_what_comparing_all_would_find_before_and_after_sealing(memory: Memory) -> None:
    query = "thing 3 on shelf 3"
    for first, last in ((0, 10), (10, 70), (70, 200)):
        tell(memory, first, last)
        assert same(near(memory, query), compared_with_all(memory, query))
    assert len(files(memory)) == 4


def test_many_segments_are_searched_by_their_nearest_lists(memory: Memory, monkeypatch) -> None:
    memory.projections["text_vectors"]._segment_rows = 256
    tell(memory, 0, 600)
    monkeypatch.setattr(index_module, "EXACT_ROWS", 0)
    monkeypatch.setattr(index_module, "FIRST_LISTS", 2)
    assert near(memory, "thing 150 lies on shelf 3 beside thing 50", 1)[0][1] == pytest.approx(1.0)
    everything = near(memory, "thing 3 on shelf 3", 600)
    assert len(files(memory)) == 2
    assert same(everything, compared_with_all(memory, "thing 3 on shelf 3", 600)), "widened until there is enough"


def test_time_and_newest_record_bound_a_search(memory: Memory, clock) -> None:
    tell(memory, 0, 90)
    start = clock.wait(hours=1)
    tell(memory, 0, 90)
    later = int(start.timestamp() * 1_000_000)
    half = memory.journal.last_seq() - 90
    assert {seq > half for seq, _ in near(memory, "thing 3", 20, start_us=later)} == {True}
    assert {seq > half for seq, _ in near(memory, "thing 3", 20, end_us=later)} == {False}
    assert {seq > half for seq, _ in near(memory, "thing 3", 20, last_seq=half)} == {False}


def test_vectors_of_records_are_the_same_active_and_sealed(memory: Memory) -> None:
    tell(memory, 0, 90)
    told = list(memory.journal.read(kinds=["told"]))
    with memory._engine.connect() as connection:
        member = memory.projections["text_vectors"]
        found = member.of_records(connection, ENCODER.space, "owner", [record.seq for record in told] + [9999])
    assert len(found) == 90
    for record in told:
        assert np.array_equal(found[record.seq], ENCODER.encode_texts([record.payload["text"]])[0])


def test_the_digest_does_not_depend_on_segments(memory: Memory) -> None:
    tell(memory, 0, 90)
    before = memory.digests()["text_vectors"]
    memory.projections["text_vectors"]._segment_rows = 10_000
    memory.rebuild(["text_vectors"])
    assert memory.digests()["text_vectors"] == before
    assert same(near(memory, "thing 3"), compared_with_all(memory, "thing 3"))


def test_files_of_before_a_rebuild_are_removed(memory: Memory) -> None:
    tell(memory, 0, 180)
    stranger = files(memory)[0].with_name("000099.seg")
    stranger.write_bytes(b"left by a crash")
    memory.rebuild(["text_vectors"])
    assert [path.name for path in files(memory)] == ["000001.seg", "000002.seg", "000003.seg"]
    assert memory.check() == []


@contextmanager
def damaged(path: Path, how: str) -> Iterator[None]:
    data = bytearray(path.read_bytes())
    path.unlink()
    if how == "flipped":
        data[-5] ^= 1
    if how == "head":
        data[300] ^= 1
    if how == "torn":
        del data[-100:]
    if how != "missing":
        path.write_bytes(data)
    yield


@pytest.mark.parametrize("how", ["flipped", "head", "torn", "missing", "foreign"])
def test_a_damaged_segment_is_reported_and_never_answers(open_memory, how: str, caplog) -> None:
    with open_memory() as memory:
        tell(memory, 0, 130)
        right = memory.recall("thing 3 on shelf 3").hits
        first, second, *_ = files(memory)
    if how == "foreign":
        first.write_bytes(second.read_bytes())
    else:
        with damaged(first, how):
            pass
    with open_memory() as memory:
        assert str(first.relative_to(memory.root)) in {problem.place for problem in memory.check()}
        again = memory.recall("thing 3 on shelf 3").hits
        assert [(hit.record.seq, hit.score) for hit in again] == [(hit.record.seq, hit.score) for hit in right]
        assert "rebuilding" in caplog.text
        assert memory.check() == []


def test_a_damaged_active_row_is_reported_and_rebuilt(open_memory, caplog) -> None:
    with open_memory() as memory:
        tell(memory, 0, 5)
        value = np.ones(ENCODER.space.dim, "<f4").tobytes()
        with memory._engine.begin() as tx:
            tx.execute(vectors_table.update().where(vectors_table.c.id == 2).values(value=value))
        assert [problem.place for problem in memory.check()] == ["text_vectors"]
        assert same(near_after_rebuild(memory), compared_with_all(memory, "thing 3"))


def near_after_rebuild(memory: Memory) -> list[tuple[int, float]]:
    memory.recall("thing 3")
    return near(memory, "thing 3")


class _PowerCutError(BaseException):
    pass


@pytest.mark.parametrize("name", ["fsync", "adopt"])
def test_a_crash_while_sealing_loses_nothing(open_memory, name: str, monkeypatch) -> None:
    def die(*_: object) -> None:
        raise _PowerCutError

    memory = open_memory()
    tell(memory, 0, 10)
    with memory.step() as step:
        for number in range(10, 120):
            step.told(f"thing {number}")
    with monkeypatch.context() as patched:
        if name == "fsync":
            patched.setattr("perdure.memory.segments.os.fsync", die)
        else:
            patched.setattr(vectors_module.VectorProjection, "_adopt", die)
        with pytest.raises(_PowerCutError):
            memory.catch_up()
    memory._release()
    with open_memory() as memory:
        assert same(near(memory, "thing 3"), compared_with_all(memory, "thing 3"))
        assert memory.check() == []
        with memory._engine.connect() as connection:
            named = {path for (path,) in connection.execute(sa.select(segments.c.path))}
        assert {str(path.relative_to(memory.root)) for path in files(memory)} == named


def test_a_reader_beside_the_agent_sees_what_was_sealed_meanwhile(open_memory) -> None:
    with open_memory() as memory, open_memory(read_only=True) as reader:
        tell(memory, 0, 10)
        assert len(reader.recall("thing 3 on shelf 3").hits) == 10
        tell(memory, 10, 120)
        assert len(files(memory)) == 2
        found = reader.recall("thing 77 lies on shelf 0 beside thing 87", k=1).hits
        assert found[0].text == "thing 77 lies on shelf 0 beside thing 87"


def test_another_encoder_embeds_everything_again(open_memory) -> None:
    with open_memory() as memory:
        tell(memory, 0, 80)
        old = files(memory)
    with open_memory(Encoders(text=HashingTextEncoder(64))) as memory:
        assert memory.reflects("text_vectors") == -1
        memory.catch_up()
        with memory._engine.connect() as connection:
            spaces = {space for (space,) in connection.execute(sa.select(vectors_table.c.space))}
        assert spaces == {memory.projections["text_vectors"].key(HashingTextEncoder(64).space)}
        assert old
        assert not any(path.exists() for path in old)


def test_key_frames_are_found_by_their_vectors(memory: Memory) -> None:
    space = Space("ab" * 32, 4, name="toy")
    axes = np.eye(4, dtype=np.float32)
    for number in range(80):
        with memory.step() as step:
            picture = np.full((4, 4, 3), number, np.uint8)
            frames = tuple(KeyFrame(memory.now(), picture, 0.5, vector=axes[(number + at) % 4]) for at in (0, 1))
            step.event(Event(memory.now(), memory.now(), "camera", key_frames=frames, space=space))
    memory.catch_up()
    member = memory.projections["picture_vectors"]
    with memory._engine.connect() as connection:
        found = member.search(connection, space, axes[2], Scope("owner"), 100)
    assert [entry.score for entry in found] == [1.0] * 40 + [0.0] * 40
    assert len({entry.seq for entry in found}) == 80, "each record once"
    assert len(files(memory)) == 2
    assert memory.check() == []


def test_the_file_holds_the_vectors_bit_for_bit(memory: Memory) -> None:
    tell(memory, 0, 80)
    with memory._engine.connect() as connection:
        rows = connection.execute(sa.select(vectors_table).where(vectors_table.c.segment.is_not(None))).all()
    size = 4 * ENCODER.space.dim
    data = files(memory)[0].read_bytes()[-40 * size :]
    assert len(rows) == 40
    for row in rows:
        assert hashlib.sha256(data[row.row * size : (row.row + 1) * size]).digest() == row.checksum


def test_sealing_syncs_the_file_before_it_is_named(memory: Memory, monkeypatch) -> None:
    order: list[str] = []
    fsync, adopt = os.fsync, vectors_module.VectorProjection._adopt
    monkeypatch.setattr("perdure.memory.segments.os.fsync", lambda fd: (order.append("sync"), fsync(fd)))
    monkeypatch.setattr(vectors_module.VectorProjection, "_adopt", lambda *given: (order.append("name"), adopt(*given)))
    tell(memory, 0, 120)
    assert order == ["sync", "sync", "sync", "name", "sync", "sync", "name"], "the first time, the new folder too"
