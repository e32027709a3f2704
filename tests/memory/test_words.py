"""What a record is searched by, and the full-text index over it."""

from __future__ import annotations

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from perdure.memory import Memory
from perdure.memory import words as words_module
from perdure.memory.schema import documents
from perdure.memory.words import Scope, WordSearch, document, terms_of
from perdure.records import Effect, Event, Label, OutcomeStatus, Record


def tell(memory: Memory, *texts: str, source: str = "user") -> list[Record]:
    with memory.step() as step:
        for text in texts:
            step.told(text, source=source)
    return list(step.records)


def contexts(memory: Memory) -> dict[str, str]:
    memory.catch_up()
    with memory._engine.connect() as connection:
        return dict(map(tuple, connection.execute(sa.select(documents.c.text, documents.c.context))))


def ranked(memory: Memory, query: str, scope: Scope | None = None) -> list[int]:
    memory.catch_up()
    with memory._engine.connect() as connection:
        found = WordSearch().ranked(connection, terms_of(query), scope or Scope("owner"), 10)
    return [entry.seq for entry in found]


def test_an_event_is_searched_by_its_text_and_by_labels_that_the_text_leaves_out(memory: Memory) -> None:
    with memory.step() as step:
        labels = (Label("mug", 0.9), Label("teapot", 0.4))
        step.event(Event(memory.now(), memory.now(), "camera", text="A mug appears.", labels=labels))
    assert document(step.records[0]) == "A mug appears. (teapot)"


def test_what_somebody_else_says_carries_their_name(memory: Memory) -> None:
    with memory.step() as step:
        step.told("I moved the keys.", speaker="Ann")
        step.told("I moved the mug.")
    assert [document(record) for record in step.records] == ["Ann: I moved the keys.", "I moved the mug."]


def test_an_act_reads_as_its_tool_its_arguments_and_its_result(memory: Memory) -> None:
    with memory.step() as step:
        step.intent("i1", "go_to", {"place": "kitchen"}, Effect.REVERSIBLE, None)
        step.outcome("i1", OutcomeStatus.DONE, result="arrived")
        step.note("asked", {"text": "where?"})
    assert [document(record) for record in step.records] == ["go to: place kitchen", "done: arrived", None]


def test_the_context_is_two_neighbours_on_either_side_and_grows_when_the_next_one_comes(memory: Memory) -> None:
    tell(memory, "one", "two")
    assert contexts(memory) == {"one": "two", "two": "one"}
    tell(memory, "three", "four")
    assert contexts(memory) == {
        "one": "two three",
        "two": "one three four",
        "three": "one two four",
        "four": "two three",
    }


def test_another_source_or_another_hour_is_no_neighbour(memory: Memory, clock) -> None:
    tell(memory, "one")
    tell(memory, "elsewhere", source="radio")
    clock.wait(hours=2)
    tell(memory, "two")
    assert set(contexts(memory).values()) == {""}


def test_contexts_do_not_depend_on_how_often_the_projection_caught_up(memory: Memory) -> None:
    for text in ("one", "two", "three", "four", "five"):
        tell(memory, text)
        memory.catch_up()
    before = memory.digests()["words"]
    memory.rebuild(["words"])
    assert memory.digests()["words"] == before


def test_words_are_found_in_any_ending(memory: Memory, clock) -> None:
    tell(memory, "The mug is blue.")
    clock.wait(hours=2)
    (keys,) = tell(memory, "She was hiding the keys.")
    assert ranked(memory, "where did he hide my key") == [keys.seq]


def test_context_finds_what_was_said_next_to_the_word(memory: Memory) -> None:
    question, reply = tell(memory, "Where did you go camping?", "In the mountains.")
    assert ranked(memory, "camping") == [question.seq, reply.seq]


def test_a_scope_of_kinds_and_entity_is_kept(memory: Memory) -> None:
    with memory.step() as step:
        step.told("The red mug is clean.")
        step.told("The red tin is clean.")
        step.intent("i1", "clean", {"thing": "red mug"}, Effect.REVERSIBLE, None)
    scope = Scope("owner", kinds=("told",), entity='text : ("mug")')
    assert ranked(memory, "clean red", scope=scope) == [step.records[0].seq]


def test_stop_words_count_only_when_there_is_nothing_else() -> None:
    assert terms_of("Where was the Spare key?") == ["spare", "key"]
    assert terms_of("Who is it?") == ["who", "is", "it"]
    assert terms_of("?!") == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.text(max_size=40) | st.sampled_from(['"', "a AND", "NEAR(a b)", "x*", "text:a", "^a", "(", "{a}: b", "\0"])
)
def test_no_text_is_a_syntax_error(memory: Memory, query: str) -> None:
    memory.recall(f"x {query}")


def test_common_words_are_left_out_when_rarer_ones_remain(memory: Memory, clock, monkeypatch) -> None:
    monkeypatch.setattr(words_module, "_BUDGET", 3)
    tell(memory, "lamp lit", "lamp out", "lamp lit")
    clock.wait(hours=2)
    red, last = tell(memory, "lamp red", "lamp lit again")
    assert ranked(memory, "red lamp") == [red.seq, last.seq], "not those that only hold the common word"
    assert ranked(memory, "lamp")[0] == last.seq, "all are common: the newest"


def test_in_a_short_time_common_words_still_count(memory: Memory, clock, monkeypatch) -> None:
    monkeypatch.setattr(words_module, "_BUDGET", 3)
    tell(memory, "lamp lit", "lamp out", "lamp lit", "lamp red")
    start = clock.wait(hours=3)
    (late,) = tell(memory, "lamp off")
    memory.catch_up()
    scope = Scope("owner", start_us=int(start.timestamp() * 1e6), end_us=int(start.timestamp() * 1e6) + 1)
    assert ranked(memory, "red lamp", scope=scope) == [late.seq]


def test_a_full_text_index_that_lost_a_row_is_reported_and_rebuilt(memory: Memory) -> None:
    (told,) = tell(memory, "the key is here")
    memory.catch_up()
    with memory._engine.begin() as tx:
        tx.execute(
            sa.text(
                "INSERT INTO documents_fts(documents_fts, rowid, text, context) VALUES ('delete', :seq, :text, '')"
            ),
            {"seq": told.seq, "text": "the key is here"},
        )
    assert [problem.place for problem in memory.check()] == ["words"]
    memory.rebuild(["words"])
    assert memory.check() == []
    assert ranked(memory, "key") == [told.seq]
