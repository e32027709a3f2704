"""Questions answered from facts and events, without any model: rules, plain sentences, and "I don't know"."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from perdure import Agent
from perdure.records import Event, Interval, KeyFrame, Label, Tracklet

TOLD = (
    "The spare key is in the blue tin on the shelf.",
    "The red bike belongs to Anna.",
    "Anna likes tea.",
    "I don't like coffee.",
    "Tom took the mug to the kitchen.",
    "Anna watered the plants yesterday.",
    "The wallet is in the drawer.",
    "No, the wallet is on the desk.",
    "The door code is 4711.",
)
MORNING = datetime(2026, 11, 2, 8, tzinfo=UTC)


def _event(minute: int, *labels: str, tracks: int = 0) -> Event:
    start = MORNING + timedelta(minutes=minute)
    end = start + timedelta(seconds=30)
    image = np.full((24, 32, 3), minute * 20, np.uint8)
    named = tuple(Label(name, 0.8) for name in labels)
    return Event(
        start, end, "porch", text=", ".join(labels), labels=named, key_frames=(KeyFrame(start, image, 0.5),),
        tracklets=tuple(Tracklet(n + 1, start, end, ()) for n in range(tracks)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory):
    path: Path = tmp_path_factory.mktemp("agent") / "a.perdure"
    with Agent.open(path) as agent:
        for sentence in TOLD:
            agent.tell(sentence)
        with agent.memory.step() as step:
            step.event(_event(0, "mountain bike", tracks=2))
            step.event(_event(5, "tabby cat"))
            step.event(_event(10, "mountain bike", "helmet", tracks=1))
        yield agent


@pytest.mark.parametrize(
    ("question", "value"),
    [
        ("Where is the spare key?", "in the blue tin on the shelf"),
        ("Who owns the red bike?", "Anna"),
        ("What does Anna own?", ["red bike"]),
        ("What is the door code?", "4711"),
        ("Does Anna like tea?", True),
        ("What does Anna like?", ["tea"]),
        ("Who likes tea?", ["Anna"]),
        ("Do I like coffee?", False),
        ("Who took the mug?", "Tom"),
        ("Did Tom take the mug?", True),
        ("Who watered the plants?", "Anna"),
        ("What is on the desk?", ["wallet"]),
        ("Is the wallet on the desk?", True),
        ("Is the wallet in the drawer?", False),
        ("How many moving things did you see?", 3),
    ],
)
def test_an_answer_has_the_right_value_and_evidence(agent: Agent, question: str, value: object) -> None:
    answer = agent.ask(question)
    assert answer.value == value
    assert answer.evidence
    assert answer.confidence > 0


@pytest.mark.parametrize(
    "question",
    [
        "What is the code of the garage?",
        "What colour is the spare key?",
        "Who owns the spare key?",
        "Is the mug blue?",
        "Did Anna take the mug?",
        "What is in the drawer?",
        "Does Tom like tea?",
        "When did you see a dog?",
        "How many dogs did you see?",
        "When did the plumber come?",
        "What did I tell you about the garden?",
        "Why is the sky blue?",
        "blorp?",
    ],
)
def test_without_evidence_it_does_not_know_and_says_why(agent: Agent, question: str) -> None:
    answer = agent.ask(question)
    assert answer.value is None
    assert answer.text == "I don't know."
    assert answer.evidence == ()
    assert answer.reason


def test_what_was_seen_is_answered_with_time_and_frame(agent: Agent) -> None:
    answer = agent.ask("When did you first see a bike?")
    assert answer.value == Interval(MORNING, MORNING + timedelta(seconds=30))
    assert answer.evidence[0].frame is not None
    assert agent.memory.frame(answer.evidence[0].frame).shape == (24, 32, 3)
    last = agent.ask("When did you last see a bike?")
    assert last.value.start == MORNING + timedelta(minutes=10)


def test_what_was_told_is_quoted(agent: Agent) -> None:
    answer = agent.ask("What did I tell you about the bike?")
    assert answer.value == ["The red bike belongs to Anna."]


def test_a_question_is_answered_in_the_zone_of_the_asker(agent: Agent) -> None:
    assert "08:00:00" in agent.ask("When did you first see a bike?").text
    assert "09:00:00" in agent.ask("When did you first see a bike?", zone="Europe/Berlin").text


def test_an_outage_is_known_and_dated(tmp_path: Path) -> None:
    agent = Agent.open(tmp_path / "a.perdure")
    agent.tell("The key is on the hook.")
    agent.memory._release()
    with Agent.open(tmp_path / "a.perdure") as woken:
        answer = woken.ask("Were you off at any time?")
        assert "cut off" in answer.text
        assert len(answer.value) == 1


def test_asking_is_journaled_with_its_answer(agent: Agent) -> None:
    agent.ask("Who owns the red bike?")
    answered = agent.memory.journal.newest("answered")
    asked = agent.memory.journal.get([answered.payload["asked"]])[answered.payload["asked"]]
    assert asked.payload["question"] == "Who owns the red bike?"
    assert answered.payload["evidence"] == [4]
