"""The front door: waking, sleeping, dying, clocks, and what `check` finds."""

from datetime import timedelta

import numpy as np
import pytest
import sqlalchemy as sa
from perdure.errors import BadInput, DamagedError, PerdureError
from perdure.memory import Memory
from perdure.records import Event, KeyFrame, Space


def picture(shade=0):
    return np.full((12, 16, 3), shade, np.uint8)


def see(memory, *shades, text="a cat"):
    now = memory.now()
    frames = tuple(KeyFrame(now, picture(shade), 0.5, vector=np.eye(4, dtype=np.float32)[0]) for shade in shades)
    with memory.step() as step:
        step.event(Event(now, now, "camera", text=text, key_frames=frames, space=Space("ab" * 32, 4)))
    return step.records[0]


def tell(memory, text):
    with memory.step() as step:
        step.told(text)
    return step.records[0]


def die(memory):
    """Let go of everything as the operating system does, without closing."""
    memory._lives = False
    memory.close()


def spoil(memory, statement):
    with memory._engine.begin() as tx:
        tx.execute(sa.text(statement))


def places(memory):
    return {problem.place for problem in memory.check()}


def test_a_key_frame_comes_back_as_a_picture(memory):
    frame = see(memory, 200).blobs[0]
    assert frame.role == "frame"
    assert np.abs(memory.frame(frame).astype(int) - 200).max() <= 2


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_picture_is_refused(memory, image):
    now = memory.now()
    with pytest.raises(BadInput, match="expected a picture"), memory.step() as step:
        step.event(Event(now, now, "camera", key_frames=(KeyFrame(now, image, 1.0),)))


def test_bytes_that_are_no_picture_are_damaged(memory):
    vector = see(memory, 1).blobs[1]
    with pytest.raises(DamagedError, match="no picture"):
        memory.frame(vector)


def test_an_outage_lies_between_the_last_sign_of_life_and_waking(open_memory, clock):
    memory = open_memory()
    tell(memory, "hello")
    alive = clock.wait(minutes=7)
    memory.heartbeat()
    die(memory)
    awake = clock.wait(hours=3)
    with open_memory() as memory:
        (outage,) = memory.outages()
    assert (outage.interval.start, outage.interval.end, outage.clean) == (alive, awake, False)


def test_a_pause_on_purpose_is_a_clean_outage(open_memory, clock):
    open_memory().close()
    clock.wait(hours=1)
    with open_memory() as memory:
        assert [outage.clean for outage in memory.outages()] == [True]


def test_the_first_waking_is_no_outage(memory):
    assert memory.outages() == []


def test_upkeep_and_reading_are_no_waking(open_memory, memory, tmp_path, clock):
    memory.close()
    Memory.open(tmp_path / "agent", clock=clock, upkeep=True).close()
    with open_memory(read_only=True) as reader:
        assert [record.kind for record in reader.journal.read()] == ["boot", "stop"]
        with pytest.raises(PerdureError, match="read-only"):
            tell(reader, "no")


def test_closing_twice_is_harmless(open_memory):
    memory = open_memory()
    memory.close()
    memory.close()
    assert not memory.is_open


def test_a_closed_memory_can_be_read_by_who_only_reads(open_memory):
    with open_memory() as memory:
        told = tell(memory, "The key is in the tin.")
    with open_memory(read_only=True) as reader:
        assert reader.recall("key").hits[0].record == told
        assert reader.facts("key")[0].evidence == (told.seq,)


class SetClock:
    """A wall clock that can be set, beside a monotonic one that cannot."""

    def __init__(self, now):
        self.wall = now
        self.up_us = 5_000_000

    def now(self):
        return self.wall

    def monotonic_us(self):
        return self.up_us

    def wait(self, seconds):
        self.wall += timedelta(seconds=seconds)
        self.up_us += int(seconds * 1e6)


@pytest.fixture
def set_clock(clock):
    return SetClock(clock.now())


def test_time_goes_on_when_the_clock_is_set_back(tmp_path, set_clock):
    start = set_clock.now()
    with Memory.open(tmp_path / "agent", clock=set_clock) as memory:
        tell(memory, "before")
        set_clock.wall -= timedelta(days=1)
        set_clock.wait(60)
        told = tell(memory, "after")
        assert told.recorded == told.start == start + timedelta(seconds=60)
        assert told.recorded_error_us > 86_000_000_000
        set_clock.wait(30)
        assert tell(memory, "later").recorded == start + timedelta(seconds=90)
        set_clock.wall += timedelta(days=1)
        assert tell(memory, "mended").recorded_error_us == 1_000_000


def test_waking_with_a_clock_set_back_is_noted_and_times_never_run_backwards(tmp_path, set_clock):
    with Memory.open(tmp_path / "agent", clock=set_clock) as memory:
        tell(memory, "before")
    set_clock.wall -= timedelta(days=400)
    with Memory.open(tmp_path / "agent", clock=set_clock) as memory:
        tell(memory, "after")
        assert memory.journal.newest("clock").payload["behind_us"] == 400 * 86_400_000_000
        recorded = [record.recorded for record in memory.journal.read()]
        assert recorded == sorted(recorded)
        assert memory.outages()[0].interval.start == memory.outages()[0].interval.end
        assert memory.check() == []


def test_jitter_of_the_clock_is_not_noted(tmp_path, set_clock):
    Memory.open(tmp_path / "agent", clock=set_clock).close()
    set_clock.wall -= timedelta(milliseconds=900)
    with Memory.open(tmp_path / "agent", clock=set_clock) as memory:
        assert memory.journal.newest("clock") is None


def test_a_healthy_memory_has_no_problems_level_or_behind(memory):
    tell(memory, "The key is in the tin.")
    see(memory, 1, 2)
    assert memory.check() == []
    memory.catch_up()
    assert memory.check() == []


def test_a_flipped_bit_in_a_pack_is_found(memory, tmp_path):
    blob = see(memory, 1).blobs[0]
    path = tmp_path / "agent" / blob.pack
    data = bytearray(path.read_bytes())
    data[blob.offset + 5] ^= 4
    path.write_bytes(data)
    (problem,) = memory.check()
    assert problem.place == blob.pack
    assert "record 2" in problem.message
    with pytest.raises(DamagedError):
        memory.frame(blob)


def test_lost_frames_are_found(memory, tmp_path):
    import shutil

    see(memory, 1)
    shutil.rmtree(tmp_path / "agent" / "frames")
    assert any("cannot read" in problem.message for problem in memory.check())
    tell(memory, "life goes on")


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        ("UPDATE documents SET text = 'The key is in the box.' WHERE kind = 'told'", "words"),
        ("UPDATE documents SET start_us = start_us + 1", "words"),
        ("DELETE FROM documents WHERE kind = 'told'", "words"),
        ("UPDATE facts SET object = 'in the box'", "facts"),
        ("UPDATE facts SET valid_from_us = valid_from_us + 1", "facts"),
        ("UPDATE facts SET trust = 'other'", "facts"),
        ("DELETE FROM fact_sources", "facts"),
        ("UPDATE vectors SET value = x'00000000' WHERE space LIKE 'text-%'", "text_vectors"),
        ("UPDATE projections SET producer = 'somebody' WHERE name = 'words'", "words"),
    ],
)
def test_a_changed_projection_is_found_and_rebuilding_mends_it(memory, damage, place):
    told = tell(memory, "The key is in the tin.")
    memory.catch_up()
    spoil(memory, damage)
    problems = memory.check()
    assert {problem.place for problem in problems} == {place}
    assert problems[0].repair == f"perdure rebuild DIR {place}"
    memory.rebuild([place])
    assert memory.check() == []
    assert memory.recall("key").hits[0].record == told
    assert memory.facts("key")[0].object == "in the tin"


def test_text_vectors_are_checked_without_their_encoder(open_memory, tmp_path):
    with open_memory() as memory:
        tell(memory, "The key is in the tin.")
        memory.catch_up()
        spoil(memory, "UPDATE vectors SET value = x'00000000'")
    with Memory.open(tmp_path / "agent", read_only=True) as reader:
        assert places(reader) == {"text_vectors"}


def test_only_projections_that_exist_are_rebuilt(memory):
    with pytest.raises(BadInput, match="expected projections out of words"):
        memory.rebuild(["dreams"])


def test_another_encoder_makes_its_own_vectors(open_memory, memory):
    from perdure.memory import Encoders
    from perdure.perception.text import HashingTextEncoder

    tell(memory, "The key is in the tin.")
    memory.catch_up()
    memory.close()
    other = Encoders(text=HashingTextEncoder(dim=64))
    with open_memory(other, read_only=True) as reader:
        assert any("another version or encoder" in problem.message for problem in reader.check())
    with open_memory(other) as memory:
        memory.catch_up()
        assert memory.check() == []
        spaces = sa.text("SELECT count(DISTINCT space) FROM vectors")
        with memory._engine.connect() as connection:
            assert connection.execute(spaces).scalar() == 1
