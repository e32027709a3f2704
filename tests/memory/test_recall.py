"""Recall by words, meaning, picture, thing and time: what is found, why, in which order, and when it abstains."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest
from perdure.errors import BadInput, StaleProjectionError
from perdure.memory import Encoders, Memory
from perdure.perception.text import HashingTextEncoder
from perdure.records import Event, Interval, KeyFrame, Recall

from .conftest import START


def told(memory: Memory, *texts: str, time: datetime | None = None) -> list[int]:
    with memory.step() as step:
        for text in texts:
            step.told(text, time=time)
    return [record.seq for record in step.records]


def seqs(found: Recall) -> list[int]:
    return [hit.record.seq for hit in found.hits]


def test_the_best_hit_answers_and_gives_its_reasons(memory: Memory) -> None:
    _, key, _ = told(memory, "The mug is in the sink.", "The spare key is in the blue tin.", "We went hiking.")
    hit = memory.recall("where are the spare keys?").hits[0]
    assert (hit.record.seq, hit.text) == (key, "The spare key is in the blue tin.")
    reasons = {reason.list: reason for reason in hit.reasons}
    assert (reasons["words"].rank, reasons["words"].detail) == (1, "spare, key")
    assert reasons["meaning"].rank == 1
    assert 0.3 < reasons["meaning"].score <= 1.0


def test_it_abstains_when_no_word_and_no_meaning_is_near(memory: Memory) -> None:
    told(memory, "The mug is in the sink.", "The spare key is in the blue tin.")
    found = memory.recall("photosynthesis chlorophyll")
    assert (found.hits, found.abstained) == ((), True)
    assert "cosine" in found.note


def test_an_empty_memory_abstains(memory: Memory) -> None:
    assert memory.recall("anything").abstained
    assert memory.recall(when=Interval()).abstained


def test_it_works_without_any_encoder(open_memory) -> None:
    with open_memory(Encoders()) as memory:
        (key,) = told(memory, "The spare key is in the blue tin.")
        assert list(memory.projections)[:2] == ["words", "picture_vectors"]
        assert seqs(memory.recall("keys")) == [key]
        assert memory.recall("quark").abstained


def test_a_reply_is_found_by_the_question_before_it(memory: Memory) -> None:
    asked, reply, _ = told(memory, "Where did you go camping, Ann?", "Up in the mountains.", "I had soup.")
    assert seqs(memory.recall("camping", k=2)) == [asked, reply]


def test_only_what_overlaps_the_time_is_found(memory: Memory) -> None:
    hours = [START + timedelta(hours=h) for h in range(4)]
    found = [told(memory, "the key moved", time=hour)[0] for hour in hours]
    assert seqs(memory.recall("key", Interval(hours[1], hours[3]))) == found[1:3], "the end is not inside"
    assert seqs(memory.recall("key", Interval(None, hours[1]))) == found[:1]
    assert seqs(memory.recall("key", Interval(hours[3], None))) == found[3:]


def test_a_long_event_is_found_by_any_time_inside_it(memory: Memory) -> None:
    with memory.step() as step:
        step.event(Event(START, START + timedelta(days=2), "camera", text="a person sleeps"))
        step.event(Event(START, START + timedelta(hours=1), "camera", text="a person eats"))
    day = Interval(START + timedelta(hours=30), START + timedelta(hours=31))
    assert seqs(memory.recall("person", day)) == seqs(memory.recall(when=day)) == [step.records[0].seq]


def test_without_a_question_everything_in_the_time_comes_in_order_and_the_newest_if_there_is_more(memory) -> None:
    late, early = (told(memory, text, time=START + timedelta(hours=h))[0] for text, h in (("late", 2), ("early", 1)))
    (last,) = told(memory, "last", time=START + timedelta(hours=3))
    assert seqs(memory.recall(when=Interval(START))) == [early, late, last]
    cut = memory.recall(when=Interval(START), k=2)
    assert (seqs(cut), cut.note) == ([late, last], "only the newest 2 are given, there is more")


def test_only_records_that_mention_the_thing_are_found(memory: Memory) -> None:
    one, _, three = told(memory, "My keys are in the tin.", "The mug is in the tin.", "Ann took the key.")
    assert seqs(memory.recall(entity="the keys")) == [one, three]
    assert seqs(memory.recall("tin", entity="a key"))[0] == one
    assert set(seqs(memory.recall("tin", entity="a key"))) <= {one, three}
    assert memory.recall(entity="?!").abstained


def test_only_the_wanted_kinds_are_found(memory: Memory) -> None:
    told(memory, "a dog barks")
    with memory.step() as step:
        step.event(Event(START, START, "camera", text="a dog runs"))
    assert seqs(memory.recall("dog", kinds=["event"])) == [step.records[0].seq]
    assert seqs(memory.recall(when=Interval(), kinds=["event"])) == [step.records[0].seq]


def test_until_forgets_what_was_recorded_later(memory: Memory, clock) -> None:
    (first,) = told(memory, "the key is here")
    then = clock.now()
    clock.wait(minutes=5)
    told(memory, "the key is there", time=START - timedelta(days=1))
    assert seqs(memory.recall("key", until=then)) == [first]
    assert memory.recall("key", until=then - timedelta(hours=1)).abstained


def test_equal_records_come_in_the_order_of_the_journal(memory: Memory, clock) -> None:
    found = []
    for _ in range(5):
        found += told(memory, "the lamp is lit")
        clock.wait(hours=2)
    assert seqs(memory.recall("lamp lit", k=5)) == found
    assert memory.recall("lamp lit", k=5) == memory.recall("lamp lit", k=5)


def test_a_picture_is_found_by_words_about_it(open_memory) -> None:
    encoder = HashingTextEncoder()
    cat, dog = encoder.encode_texts(["a tabby cat", "a brown dog"])
    picture = np.zeros((4, 4, 3), np.uint8)
    with open_memory(Encoders(picture_text=encoder)) as memory:
        with memory.step() as step:
            for vector in (dog, cat):
                frames = (KeyFrame(START, picture, 1.0, vector=vector),)
                step.event(Event(START, START, "camera", key_frames=frames, space=encoder.space))
        found = memory.recall("the tabby cat")
        assert seqs(found) == [step.records[1].seq]
        assert [reason.list for reason in found.hits[0].reasons] == ["picture"]


def test_what_cannot_be_asked_is_refused(memory: Memory) -> None:
    for arguments in ({}, {"query": "  "}, {"query": "key", "k": 0}):
        with pytest.raises(BadInput, match="expected"):
            memory.recall(**arguments)


def test_a_reader_never_answers_from_a_projection_that_is_behind(open_memory, monkeypatch) -> None:
    monkeypatch.setattr("perdure.memory.projection._READER_WAIT_S", 0.05)
    with open_memory() as memory, open_memory(read_only=True) as reader:
        told(memory, "the key is here")
        with pytest.raises(StaleProjectionError, match="catch up"):
            reader.recall("key")
        memory.catch_up()
        assert len(reader.recall("key").hits) == 1
