"""Replaying a life gives the same projections, and shows the ones that are not what the journal gives."""

import numpy as np
import pytest
import sqlalchemy as sa
from perdure.errors import BadInput
from perdure.memory import Encoders, vectors
from perdure.memory.replay import replay
from perdure.perception.text import HashingTextEncoder
from perdure.records import Event, KeyFrame, Space

ENCODERS = Encoders(text=HashingTextEncoder())
SAID = (
    "The key is in the tin.",
    "Anna moved the key to the drawer.",
    "No, the key is on the shelf.",
    "The key was in the shed yesterday.",
    "Nothing that a rule could read, really",
)


def life(memory, clock):
    """Things told and seen, with projections that catch up now and then."""
    for number, text in enumerate(SAID * 3):
        clock.wait(minutes=1)
        with memory.step() as step:
            step.told(text, time=memory.now())
            vector = np.roll(np.eye(8, dtype=np.float32)[0], number)
            frame = KeyFrame(memory.now(), np.zeros((8, 8, 3), np.uint8), 1.0, vector=vector)
            space = Space("cd" * 32, 8)
            step.event(Event(memory.now(), memory.now(), "camera", text="a key", key_frames=(frame,), space=space))
        if number % 4 == 0:
            memory.catch_up()


@pytest.fixture
def root(open_memory, clock, tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "SEGMENT_ROWS", 4)
    with open_memory() as memory:
        life(memory, clock)
    assert list((tmp_path / "agent" / "vectors").rglob("*.seg"))
    return tmp_path / "agent"


def test_replaying_a_life_gives_identical_projections(root):
    report = replay(root, encoders=ENCODERS)
    assert report.records == 32
    assert {row.name for row in report.rows} == {"words", "facts", "text_vectors", "picture_vectors"}
    assert report.equal
    assert all(row.seq == 32 for row in report.rows)
    assert len({row.live for row in report.rows}) == 4


def test_it_changes_nothing(root):
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and "-shm" not in path.name}
    replay(root, encoders=ENCODERS)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        ("UPDATE documents SET text = 'forged' WHERE seq = 2", "words"),
        ("UPDATE facts SET object = 'forged' WHERE id = 1", "facts"),
        ("DELETE FROM vectors WHERE id = 1", None),
    ],
)
def test_a_forged_projection_is_shown(open_memory, root, damage, name):
    with open_memory() as memory, memory._engine.begin() as tx:
        tx.execute(sa.text(damage))
    differing = [row.name for row in replay(root, encoders=ENCODERS).rows if not row.equal]
    assert differing == [name] if name else len(differing) == 1


def test_without_the_encoder_its_vectors_are_left_out(root):
    assert {row.name for row in replay(root).rows} == {"words", "facts", "picture_vectors"}


def test_it_works_beside_a_living_agent_that_is_behind(open_memory, root):
    with open_memory() as memory:
        with memory.step() as step:
            step.told("The tin is red.")
        report = replay(root, encoders=ENCODERS)
        assert report.equal
        assert report.records == 34
        assert {row.seq for row in report.rows} == {32}


def test_a_rebuilt_projection_is_the_same(open_memory, root):
    with open_memory() as memory:
        memory.catch_up()
        before = memory.digests()
        assert set(memory.rebuild().values()) == {memory.journal.last_seq()}
        assert memory.digests() == before


def test_what_is_no_agent_cannot_be_replayed(tmp_path):
    with pytest.raises(BadInput, match="not an agent's directory"):
        replay(tmp_path / "nobody")
