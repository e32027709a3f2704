"""Facts are bitemporal: nothing is overwritten, nothing told is lost, and what was believed then can be asked now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from perdure.clock import to_us
from perdure.memory.facts import Facts, Reader
from perdure.memory.schema import claims, fact_sources, facts, metadata
from perdure.records import Fact, Interval, Record, Statement, Trust

START = datetime(2026, 11, 16, 8, tzinfo=UTC)
FUNCTIONAL = {"location", "owner"}
FACT_TABLES = {"facts", "fact_sources", "claims", "unread"}


def hour(h: float) -> datetime:
    return START + timedelta(hours=h)


def state(
    subject: str, value: str, start: float | None = None, end: float | None = None, *, predicate: str = "location",
    negated: bool = False, by: str | None = None, past: bool = False,
) -> dict[str, object]:  # fmt: skip
    """A statement as JSON; times in hours, ``past`` leaves the start unknown."""
    return {
        "s": subject,
        "p": predicate,
        "o": value,
        "start": start,
        "end": end,
        "neg": negated,
        "by": by,
        "past": past,
    }


def statements(text: str, said: datetime) -> tuple[Statement, ...]:
    """The reader of these tests: statements stand in the text as JSON after the lead ("no, ")."""
    found = []
    for item in json.loads(text[text.index("[") :]):
        start = None if item["past"] else said if item["start"] is None else hour(item["start"])
        end = None if item["end"] is None else hour(item["end"])
        end = said if item["past"] and end is None else end
        functional = item["p"] in FUNCTIONAL
        found.append(
            Statement(item["s"], item["p"], item["o"], functional, Interval(start, end), item["neg"], item["by"])
        )
    return tuple(found)


READER = Reader(
    parse=lambda text, said, zone, speaker: statements(text, said),
    from_json=lambda answer, text, said, zone, speaker: statements(json.dumps(answer["statements"]), said),
)
ENGINE = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
metadata.create_all(ENGINE, [table for table in metadata.sorted_tables if table.name in FACT_TABLES])


class Life:
    """Tells a projection one record an hour, without a journal."""

    def __init__(self) -> None:
        self.connection = ENGINE.connect()
        self.connection.begin()
        self.facts = Facts(READER)
        self.records: list[Record] = []

    def close(self) -> None:
        self.connection.rollback()
        self.connection.close()

    def tell(
        self, *said: dict[str, object], lead: str = "", trust: Trust = Trust.OWNER, at: float | None = None
    ) -> int:
        return self.add("told", {"text": lead + json.dumps(said), "speaker": "owner"}, trust, at)

    def read(self, about: int, *found: dict[str, object]) -> int:
        return self.add(
            "model_call", {"purpose": "statements", "about": about, "statements": list(found)}, Trust.AGENT, None
        )

    def add(self, kind: str, payload: dict[str, object], trust: Trust, at: float | None) -> int:
        seq = len(self.records) + 1
        time = hour(seq if at is None else at)
        record = Record(seq, kind, payload, time, time, hour(seq), 0, 0, "boot", "user", trust, "owner", "UTC")
        self.records.append(record)
        self.take(record)
        return seq

    def take(self, record: Record) -> None:
        self.facts.apply(self.connection, record, self.facts.prepare(record))

    def ask(
        self, subject: str | None = None, predicate: str | None = None, value: str | None = None,
        at: float | Interval | None = None, as_of: float | None = None,
    ) -> list[Fact]:  # fmt: skip
        when = hour(at) if isinstance(at, int | float) else at
        known = None if as_of is None else hour(as_of)
        return self.facts.query(self.connection, subject, predicate, value, at=when, as_of=known, owner="owner")

    def where(self, at: float, as_of: float | None = None, subject: str = "key") -> list[str]:
        return [fact.object for fact in self.ask(subject, "location", at=at, as_of=as_of) if not fact.negated]

    def spans(self, subject: str = "key") -> list[tuple[str, float | None, float | None]]:
        """(value, start, end) in hours, oldest first, denials left out."""
        known = [fact for fact in reversed(self.ask(subject)) if not fact.negated]
        return [(f.object, _hours(f.valid.start), _hours(f.valid.end)) for f in known]

    def check(self) -> list[str]:
        return [problem.message for problem in self.facts.check(self.connection)]

    def rebuilt(self) -> str:
        self.facts.reset(self.connection)
        for record in self.records:
            self.take(record)
        return self.facts.digest(self.connection)


def _hours(moment: datetime | None) -> float | None:
    return None if moment is None else round((moment - START) / timedelta(hours=1), 2)


@pytest.fixture
def life() -> Iterator[Life]:
    with closing(Life()) as one:
        yield one
        assert one.check() == []


# ------------------------------------------------------------------ one thing


def test_what_was_told_holds_from_when_it_was_said(life: Life) -> None:
    seq = life.tell(state("key", "hook"))
    (fact,) = life.ask("key", "location")
    assert fact.valid == Interval(hour(1), None)
    assert fact.known == Interval(hour(1), None)
    assert fact.evidence == (seq,)
    assert life.where(0) == []


def test_a_new_place_ends_the_old_one_in_the_world(life: Life) -> None:
    life.tell(state("key", "hook"))
    life.tell(state("key", "bowl"))
    assert life.spans() == [("hook", 1, 2), ("bowl", 2, None)]
    assert life.where(1.5) == ["hook"]
    assert life.where(2) == ["bowl"]


def test_the_ending_itself_is_bitemporal(life: Life) -> None:
    first, second = life.tell(state("key", "hook")), life.tell(state("key", "bowl"))
    (then,) = life.ask("key", at=9, as_of=1)
    assert (then.object, then.valid.end, then.known) == ("hook", None, Interval(hour(1), hour(2)))
    ended = life.ask("key", value="hook")[0]
    assert (ended.evidence, ended.ended_by) == ((first,), (second,))
    assert ended.known == Interval(hour(2), None)
    assert life.facts.lineage(life.connection, second) == [2, 3]


def test_late_news_about_the_past_ends_where_the_next_known_begins(life: Life) -> None:
    life.tell(state("key", "shelf"))
    life.tell(state("key", "hook", 10), at=10)
    life.tell(state("key", "car", 5), at=11)
    assert life.spans() == [("shelf", 1, 5), ("car", 5, 10), ("hook", 10, None)]
    assert life.where(6, as_of=2) == ["shelf"]


def test_telling_the_same_again_adds_lineage_and_no_fact(life: Life) -> None:
    life.tell(state("key", "hook"))
    life.tell(state("key", "hook"))
    (fact,) = life.ask("key")
    assert fact.evidence == (1, 2)
    assert life.ask("key", as_of=1)[0].evidence == (1,)


def test_late_news_divides_what_was_told_twice(life: Life) -> None:
    life.tell(state("key", "hook"))
    life.tell(state("key", "hook", 10), at=10)
    life.tell(state("key", "car", 5, 6), at=11)
    assert life.spans() == [("hook", 1, 5), ("car", 5, 6), ("hook", 10, None)]
    assert life.where(7) == []
    assert [fact.evidence for fact in reversed(life.ask("key"))] == [(1,), (3,), (2,)]


def test_what_ended_in_the_past_does_not_end_what_is_assumed_to_go_on(life: Life) -> None:
    life.tell(state("key", "hook"))
    life.tell(state("key", "hook", 1, 1.5))
    assert life.spans() == [("hook", 1, None)]


def test_an_end_in_the_future_ends_it_unless_later_news_come(life: Life) -> None:
    life.tell(state("key", "hook"))
    life.tell(state("key", "hook", 2, 20))
    assert life.spans() == [("hook", 1, 20)]
    life.tell(state("key", "hook"))
    assert life.spans() == [("hook", 1, None)]


def test_news_before_the_announced_end_comes_first(life: Life) -> None:
    life.tell(state("key", "hook", 1, 20))
    life.tell(state("key", "bowl"))
    assert life.spans() == [("hook", 1, 2), ("bowl", 2, None)]


def test_were_ends_the_same_value_now(life: Life) -> None:
    life.tell(state("key", "hook"))
    life.tell(state("key", "hook", past=True))
    assert life.spans() == [("hook", 1, 2)]


def test_were_is_about_the_time_before_another_value(life: Life) -> None:
    life.tell(state("key", "shelf"))
    life.tell(state("key", "hook"))
    life.tell(state("key", "car", past=True))
    assert life.spans() == [("shelf", 1, 1), ("car", 1, 2), ("hook", 2, None)]
    assert life.where(1) == ["shelf"]
    assert life.where(1.5) == ["car"]


def test_were_of_an_unknown_thing_has_no_beginning(life: Life) -> None:
    life.tell(state("key", "car", past=True))
    assert life.spans() == [("car", None, 1)]


def test_until_a_named_time_ends_what_was_assumed_to_go_on(life: Life) -> None:
    life.tell(state("key", "hook"))
    life.tell(state("key", "car", end=5, past=True), at=9)
    assert life.spans() == [("hook", 1, 1), ("car", 1, 5)]


def test_a_denial_ends_the_place_it_denies_and_no_other(life: Life) -> None:
    life.tell(state("key", "drawer"))
    life.tell(state("key", "hook", negated=True))
    assert life.where(3) == ["drawer"]
    life.tell(state("key", "drawer", negated=True))
    assert life.spans() == [("drawer", 1, 3)]
    denied = life.ask("key", "location", "drawer", at=4)
    assert [fact.negated for fact in denied] == [True]


def test_a_thing_likes_several_and_a_denial_ends_one(life: Life) -> None:
    life.tell(state("anna", "coffee", predicate="likes"), state("anna", "tea", predicate="likes"))
    life.tell(state("anna", "coffee", predicate="likes", negated=True))
    now = {(fact.object, fact.negated) for fact in life.ask("anna", "likes", at=3)}
    assert now == {("tea", False), ("coffee", True)}


def test_who_did_it_is_kept_and_another_doer_is_another_act(life: Life) -> None:
    life.tell(state("key", "bowl"))
    life.tell(state("key", "bowl", by="anna"))
    life.tell(state("key", "bowl", by="otto"))
    assert [(fact.by, _hours(fact.valid.start)) for fact in reversed(life.ask("key"))] == [("anna", 1), ("otto", 3)]


# ---------------------------------------------------------------- corrections


@pytest.mark.parametrize("lead", ["No, ", "Correction: ", "I meant ", "Actually, "])
def test_a_correction_takes_back_what_was_known_not_what_was_valid(life: Life, lead: str) -> None:
    life.tell(state("key", "hook"), at=1)
    life.tell(state("key", "bowl"), lead=lead, at=1.5)
    assert life.spans() == [("bowl", 1, None)]
    assert life.where(1, as_of=1) == ["hook"]
    assert life.ask("key", value="hook") == []


def test_a_corrected_claim_no_longer_ends_what_came_before(life: Life) -> None:
    life.tell(state("key", "shelf"))
    life.tell(state("key", "hook"), state("key", "hook"))
    life.tell(state("key", "shelf"), lead="No, ")
    assert life.spans() == [("shelf", 1, None)]


def test_long_after_it_was_said_no_is_news(life: Life) -> None:
    life.tell(state("key", "hook"))
    life.tell(state("anna", "coffee", predicate="likes"))
    life.tell(state("key", "bowl"), lead="No, ")
    assert life.spans() == [("hook", 1, 3), ("bowl", 3, None)]


def test_a_correction_may_change_the_thing(life: Life) -> None:
    life.tell(state("key", "hook"))
    life.tell(state("spare key", "hook"), lead="No, ")
    assert life.where(1, subject="spare key") == ["hook"]
    assert [fact.subject for fact in life.ask("key")] == ["spare key"]


def test_actually_may_add_a_liking_but_no_replaces_it(life: Life) -> None:
    life.tell(state("anna", "coffee", predicate="likes"))
    life.tell(state("anna", "tea", predicate="likes"), lead="Actually, ")
    assert {fact.object for fact in life.ask("anna", "likes")} == {"coffee", "tea"}
    life.tell(state("anna", "cake", predicate="likes"), lead="No, ")
    assert {fact.object for fact in life.ask("anna", "likes")} == {"coffee", "cake"}


def test_somebody_else_cannot_take_back_what_the_owner_said(life: Life) -> None:
    life.tell(state("key", "hook"))
    life.tell(state("key", "bowl"), lead="No, ", trust=Trust.OTHER)
    assert life.where(3) == ["hook", "bowl"]


# ---------------------------------------------------------------------- trust


def test_others_never_end_what_the_owner_said_and_come_after_it(life: Life) -> None:
    life.tell(state("key", "hook"))
    life.tell(state("key", "bowl"), trust=Trust.OTHER)
    assert life.where(3) == ["hook", "bowl"]
    assert [fact.trust for fact in life.ask("key", at=3)] == [Trust.OWNER, Trust.OTHER]


def test_the_owner_ends_what_others_said(life: Life) -> None:
    life.tell(state("key", "bowl"), trust=Trust.OTHER)
    life.tell(state("key", "hook"))
    assert life.where(3) == ["hook"]
    assert life.where(1) == ["bowl"]


# ------------------------------------------------------------ a model's reading


def test_a_model_may_read_what_the_rules_could_not(life: Life) -> None:
    told = life.tell()
    assert life.facts.unread(life.connection, "owner") == [told]
    call = life.read(told, state("key", "hook"))
    (fact,) = life.ask("key")
    assert (fact.trust, fact.evidence) == (Trust.AGENT, (told, call))
    assert (fact.valid.start, fact.known.start) == (hour(told), hour(call))
    assert life.facts.unread(life.connection, "owner") == []


def test_a_model_is_not_heard_where_the_rules_understood(life: Life) -> None:
    told = life.tell(state("key", "hook"))
    life.read(told, state("key", "bowl"))
    assert life.where(3) == ["hook"]


def test_a_model_does_not_raise_somebody_elses_word(life: Life) -> None:
    told = life.tell(trust=Trust.OTHER)
    life.read(told, state("key", "hook"))
    assert [fact.trust for fact in life.ask("key")] == [Trust.OTHER]


def test_what_a_model_found_nothing_in_counts_as_read(life: Life) -> None:
    told = life.tell()
    life.read(told)
    assert life.facts.unread(life.connection, "owner") == []
    life.read(told, state("key", "hook"))
    assert life.where(5) == ["hook"]


# ---------------------------------------------------------------------- names


def test_a_shorter_name_finds_fuller_ones_after_the_exact_one(life: Life) -> None:
    life.tell(state("spare key", "tin"), state("monkey", "zoo"))
    assert [fact.subject for fact in life.ask("key")] == ["spare key"]
    life.tell(state("key", "hook"), at=1)
    assert [fact.subject for fact in life.ask("the keys")] == ["key", "spare key"]


def test_the_owners_key_is_the_key_and_annas_is_not(life: Life) -> None:
    life.tell(state("owner's keys", "hook"))
    life.tell(state("keys", "bowl"))
    life.tell(state("anna's keys", "car"))
    assert life.where(4, subject="my keys") == ["bowl"]
    assert life.where(4, subject="keys") == ["bowl", "car"]


def test_a_place_is_found_without_its_preposition(life: Life) -> None:
    life.tell(state("key", "in the blue tin"))
    assert [fact.subject for fact in life.ask(None, "location", "the blue tin")] == ["key"]


def test_a_span_finds_what_overlaps_it(life: Life) -> None:
    life.tell(state("key", "hook"))
    life.tell(state("key", "bowl"))
    life.tell(state("key", "car"))
    assert {fact.object for fact in life.ask("key", at=Interval(hour(1.5), hour(2.5)))} == {"hook", "bowl"}
    assert {fact.object for fact in life.ask("key", at=Interval(hour(2), hour(2)))} == {"bowl"}
    assert {fact.object for fact in life.ask("key", at=Interval(None, hour(2)))} == {"hook"}


def test_entities_are_counted_with_when_they_were_heard_of(life: Life) -> None:
    life.tell(state("key", "hook"))
    life.tell(state("lamp", "hook"))
    entities = life.facts.entities(life.connection, "owner")
    assert [(e.name, e.facts) for e in entities] == [("hook", 2), ("key", 1), ("lamp", 1)]
    assert (entities[0].first, entities[0].last) == (hour(1), hour(2))
    assert [e.name for e in life.facts.entities(life.connection, "owner", like="the keys")] == ["key"]


def test_owners_of_one_store_do_not_see_each_others_facts(life: Life) -> None:
    life.tell(state("key", "hook"))
    assert life.facts.query(life.connection, "key", None, None, at=None, as_of=None, owner="eve") == []


# ------------------------------------------------------------------- checking


def test_check_finds_a_belief_that_nobody_told() -> None:
    with closing(Life()) as life:
        life.tell(state("key", "hook"))
        life.connection.execute(facts.update().values(object_key="bowl"))
        assert any("is not what was told" in message for message in life.check())


def test_check_finds_lost_lineage_and_reversed_intervals() -> None:
    with closing(Life()) as life:
        life.tell(state("key", "hook"))
        life.connection.execute(fact_sources.delete())
        life.connection.execute(facts.update().values(valid_to_us=to_us(hour(0))))
        assert {"fact 1 has no source", "fact 1 ends before it begins", "what record 1 says is in no fact"} <= set(
            life.check()
        )


def test_check_finds_two_places_at_once_even_in_the_past() -> None:
    with closing(Life()) as life:
        life.tell(state("key", "hook"))
        life.tell(state("key", "bowl"))
        life.connection.execute(facts.update().where(facts.c.id == 2).values(valid_to_us=None))
        assert (
            "facts 2 and 3 contradict each other" in life.check()
            or "facts 3 and 2 contradict each other" in life.check()
        )


def test_the_producer_names_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    version = Facts().producer
    assert version == Facts(READER).producer
    assert version.startswith("facts/1+")


# ----------------------------------------------------------------- properties

HOURS = st.integers(-4, 12)
PLAIN = st.builds(
    state,
    st.sampled_from(["key", "lamp"]),
    st.sampled_from(["hook", "bowl", "car"]),
    st.none() | HOURS,
    predicate=st.sampled_from(["location", "likes"]),
    negated=st.booleans(),
    by=st.none() | st.sampled_from(["anna", "otto"]),
)
BOUNDED = st.builds(
    lambda item, length: item | {"start": item["start"] or 0, "end": (item["start"] or 0) + length},
    PLAIN,
    st.integers(1, 6),
)
PAST = st.builds(lambda item, end: item | {"past": True, "end": end, "by": None}, PLAIN, st.none() | HOURS)
TOLD = st.tuples(
    st.lists(PLAIN | BOUNDED | PAST, max_size=2),
    st.sampled_from(["", "", "No, "]),
    st.sampled_from([Trust.OWNER, Trust.OWNER, Trust.OTHER]),
)


def held(life: Life, at: float, as_of: float) -> list[Fact]:
    return life.ask(at=at + 0.5, as_of=as_of)


@settings(max_examples=40, deadline=None)
@given(st.lists(TOLD, max_size=9))
def test_whatever_is_told_beliefs_stay_consistent_and_nothing_is_lost(story: list[tuple]) -> None:
    with closing(Life()) as life:
        for items, lead, trust in story:
            life.tell(*items, lead=lead, trust=trust)
            assert life.check() == []
        for as_of in range(len(story) + 1):
            for at in range(-5, 20, 3):
                single = [f for f in held(life, at, as_of) if f.predicate in FUNCTIONAL and not f.negated]
                assert len({(f.subject, f.trust) for f in single}) == len(single)
        stated = {record.seq for record, (items, _, _) in zip(life.records, story, strict=True) if items}
        assert stated == {seq for seq in range(1, len(story) + 1) if life.facts.lineage(life.connection, seq)}
        assert life.facts.digest(life.connection) == life.rebuilt()


@settings(max_examples=25, deadline=None)
@given(st.lists(TOLD, max_size=7))
def test_what_was_believed_then_never_changes_afterwards(story: list[tuple]) -> None:
    with closing(Life()) as life:
        then = []
        for items, lead, trust in story:
            life.tell(*items, lead=lead, trust=trust)
            now = len(life.records)
            then.append({(f.id, f.object, f.valid, f.evidence, f.ended_by) for f in life.ask(as_of=now)})
            assert then[-1] == {(f.id, f.object, f.valid, f.evidence, f.ended_by) for f in life.ask()}
        for known, before in enumerate(then, start=1):
            assert before == {(f.id, f.object, f.valid, f.evidence, f.ended_by) for f in life.ask(as_of=known)}


@settings(max_examples=25, deadline=None)
@given(st.lists(PLAIN, max_size=6, unique_by=lambda item: item["start"]), st.randoms())
def test_the_order_of_telling_does_not_matter_for_claims_with_times_of_their_own(items: list, random: object) -> None:
    timed = [item for item in items if item["start"] is not None]
    shuffled = list(timed)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    beliefs = []
    for story in (timed, shuffled):
        with closing(Life()) as life:
            for item in story:
                life.tell(item)
            beliefs.append({(f.subject, f.predicate, f.object, f.negated, f.valid, f.by) for f in life.ask()})
    assert beliefs[0] == beliefs[1]


def test_news_costs_what_comes_after_it_not_what_came_before(life: Life) -> None:
    for place in range(60):
        life.tell(state("key", f"place {place % 7}"))
    rows = life.connection.execute(fact_sources.select()).all()
    life.tell(state("key", "hook"))
    assert len(life.connection.execute(fact_sources.select()).all()) - len(rows) == 3
    assert len(life.connection.execute(claims.select()).all()) == 61


def test_what_the_agent_infers_is_a_fact_of_its_own_and_a_later_conclusion_takes_its_place(memory, clock) -> None:
    for place in ("hall shelf", "desk"):
        clock.wait(days=1)
        with memory.step() as step:
            step.inferred([Statement("keys", "usual location in the morning", place, functional=True)], "habits")
    now, before = memory.facts("keys", "usual location in the morning")
    assert (now.object, now.trust, now.valid.end) == ("desk", Trust.AGENT, None)
    assert before.object == "hall shelf"
    assert before.valid.end == now.valid.start
    assert memory.compare(["facts"])[0].equal
