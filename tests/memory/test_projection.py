"""Projections: whole, level or silent."""

import hashlib

import pytest
import sqlalchemy as sa
from perdure.errors import StaleProjectionError, StorageError
from perdure.memory import database, projection
from perdure.memory.database import scratch_engine
from perdure.memory.journal import Journal
from perdure.memory.projection import CatchUp
from perdure.memory.schema import alive
from perdure.memory.writer import Writer


class Wakes:
    """A projection for the tests: keeps the sum of the numbers of the records it took in, in the table ``alive``."""

    name = "sum"

    def __init__(self, producer="1", fails_at=0):
        self.producer = producer
        self.fails_at = fails_at
        self.taken = []

    def prepare(self, record):
        return record.seq

    def apply(self, tx, record, prepared):
        if prepared == self.fails_at:
            raise OSError(28, "No space left on device")
        self.taken.append(record.seq)
        tx.execute(alive.insert().values(id=prepared, boot="", wall_us=prepared))

    def reset(self, tx):
        tx.execute(alive.delete())

    def digest(self, connection):
        total = connection.execute(sa.select(sa.func.sum(alive.c.wall_us))).scalar()
        return hashlib.sha256(str(total).encode()).hexdigest()

    def check(self, connection):
        return []


@pytest.fixture
def follow(memory, tmp_path):
    """Makes a `CatchUp` of one projection, stored in a database of its own, that follows the journal of ``memory``."""
    with memory.step() as step:
        for number in range(99):
            step.told(f"thing {number}")
    engine = scratch_engine(tmp_path / "scratch.db")
    writer = Writer(engine)
    yield lambda member, write=writer.do: CatchUp(engine, Journal(memory._engine), [member], write)
    writer.close()
    engine.dispose()


def test_it_takes_in_every_record_once_in_order(follow):
    member = Wakes()
    assert follow(member).advance()
    assert member.taken == list(range(1, 101))


def test_a_budget_stops_it_and_it_goes_on_where_it_stopped(follow):
    member = Wakes()
    catching_up = follow(member)
    assert not catching_up.advance(budget_s=0.0)
    while not catching_up.advance(budget_s=0.001):
        pass
    assert member.taken == list(range(1, 101))


def test_what_fails_in_the_middle_leaves_it_whole_and_behind(follow, memory):
    catching_up = follow(Wakes(fails_at=50))
    with pytest.raises(StorageError, match="free some space"):
        catching_up.advance()
    assert catching_up.reflects("sum") == 32
    healed = Wakes()
    assert follow(healed).advance()
    assert healed.taken == list(range(33, 101))


def test_another_producer_is_derived_from_the_beginning(follow):
    follow(Wakes("1")).advance()
    newer = Wakes("2")
    catching_up = follow(newer)
    assert catching_up.reflects("sum") == -1
    catching_up.ready("sum")
    assert newer.taken == list(range(1, 101))


def test_one_that_knows_more_than_the_journal_is_derived_again(follow, memory):
    catching_up = follow(Wakes())
    catching_up.advance()
    with catching_up._engine.begin() as tx:
        tx.execute(sa.text("UPDATE projections SET seq = 500"))
    member = Wakes()
    follow(member).ready("sum")
    assert member.taken[0] == 1


def test_a_reader_of_one_that_is_behind_is_refused(follow, monkeypatch):
    monkeypatch.setattr(projection, "_READER_WAIT_S", 0.0)
    with pytest.raises(StaleProjectionError, match=r"to reflect record 100, it reflects 0.*rebuild"):
        follow(Wakes(), None).ready("sum")
    follow(Wakes()).advance()
    follow(Wakes(), None).ready("sum")


def test_writing_does_not_wait_for_long_while_it_catches_up(follow, monkeypatch):
    largest = []
    member = Wakes()
    taken_in = CatchUp._apply
    monkeypatch.setattr(
        CatchUp, "_apply", lambda self, m, batch: largest.append(len(batch)) or taken_in(self, m, batch)
    )
    follow(member).advance()
    assert max(largest) == projection._SLICE


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        (OSError(28, "No space left on device"), "free some space"),
        (OSError(30, "Read-only file system"), "make it writable"),
        (OSError(5, "Input/output error"), "check that the disk"),
    ],
)
def test_an_error_of_the_disk_says_what_to_do(said, advice):
    with pytest.raises(StorageError, match=advice), database.translated("writing"):
        raise said
