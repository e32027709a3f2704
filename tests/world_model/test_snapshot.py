"""Opening is fast and never wrong: a snapshot is taken if it fits the journal, else the fold is made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from perdure.memory import Memory
from perdure.world_model import WorldModel

Home = Any


@pytest.fixture
def memory(tmp_path: Path, home: Home) -> Any:
    with Memory.open(tmp_path / "agent") as opened:
        store(opened, home)
        yield opened


def store(memory: Memory, home: Home) -> None:
    lessons = [record for record in home.records if record.kind == "lesson"]
    with memory.step() as step:
        for record in lessons:
            step.note("lesson", record.payload, time=record.start)
        for event in home.events:
            step.event(event)


def test_the_journal_gives_the_same_world_however_it_is_read(memory: Memory, home: Home) -> None:
    model, stepwise = WorldModel(memory), WorldModel()
    for record in memory.journal.read():
        stepwise.apply(record)
    assert model.digest() == stepwise.digest()
    assert model.place_of("keys").value == "kitchen table"


def test_a_snapshot_is_taken_up_again(memory: Memory, home: Home) -> None:
    model = WorldModel(memory)
    digest = model.digest()
    model.snapshot()
    again = WorldModel(memory)
    assert again.fold.seq == model.fold.seq
    assert again.digest() == digest


def test_what_came_after_a_snapshot_is_read(memory: Memory, home: Home) -> None:
    model = WorldModel(memory)
    model.catch_up()
    model.snapshot()
    home.events.clear()
    home.states["kitchen lamp"] = "on"
    home.watch(2)
    with memory.step() as step:
        for event in home.events:
            step.event(event)
    again = WorldModel(memory)
    again.catch_up()
    assert again.state_of("kitchen lamp").value == "on"


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"version": 99, "seq": 1, "sha256": ""}\n{}'])
def test_a_snapshot_that_does_not_fit_is_refused(
    memory: Memory, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    model = WorldModel(memory)
    digest = model.digest()
    path = model.snapshot()
    assert path is not None
    path.write_bytes(damage)
    assert WorldModel(memory).digest() == digest
    assert "is refused" in caplog.text


def test_a_torn_snapshot_is_refused(memory: Memory) -> None:
    model = WorldModel(memory)
    digest = model.digest()
    path = model.snapshot()
    assert path is not None
    path.write_bytes(path.read_bytes()[:-7])
    assert WorldModel(memory).digest() == digest
