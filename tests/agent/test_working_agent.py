"""An agent with a working memory: it reads in slack time, answers from it alone when asked to, and wakes with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from perdure import Agent
from perdure.agent import Parts
from perdure.agent.asking_oneself import cue
from perdure.errors import BadInput
from perdure.memory.working.stream import Policy
from perdure.records import Record
from perdure.runtime.planner import load_planner
from perdure.runtime.tiny import make_tiny_model

POLICY = Policy(
    budget_slots=480, read_tokens=24, chunk_tokens=48, span_slots=12, branch_tokens=64, example_queries=64, horizon=1024
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    folder = tmp_path_factory.mktemp("tiny")
    return Parts(planner=load_planner(make_tiny_model(folder).folder, cache_dir=folder / "cache"), working=POLICY)


class Terse(Agent):
    def story_line(self, record: Record) -> str | None:
        return None if record.kind != "told" else str(record.payload["text"]).upper()


def test_what_it_is_told_becomes_its_story_and_it_wakes_with_it(tmp_path: Path, parts: Parts) -> None:
    with Agent.open(tmp_path / "agent", parts=parts) as agent:
        for number in range(12):
            agent.tell(f"The box {number} is in room {number}.")
        agent.read_on()
        assert agent.working is not None
        assert agent.working.counts.compactions > 2
        before = agent.working.digest()
    with Agent.open(tmp_path / "agent", parts=parts) as agent:
        assert agent.working is not None
        assert agent.working.digest() == before
        assert agent.working.counts.read_tokens == 0, "it read nothing again"


def test_without_recall_an_answer_has_no_evidence_and_is_journaled(tmp_path: Path, parts: Parts) -> None:
    with Agent.open(tmp_path / "agent", parts=parts) as agent:
        agent.tell("The keys are in the hall.")
        answer = agent.ask("Where are the keys?", recall=False)
        asked, answered = (agent.memory.journal.newest(kind) for kind in ("asked", "answered"))
    assert answer.evidence == ()
    assert 0 < answer.confidence <= 1
    assert asked is not None
    assert asked.payload["recall"] is False
    assert answered is not None
    assert answered.payload["text"] == answer.text


def test_an_agent_decides_what_is_worth_a_line(tmp_path: Path, parts: Parts) -> None:
    with Terse.open(tmp_path / "agent", parts=parts) as agent:
        agent.tell("The keys are in the hall.")
        assert agent.working is not None
        agent.working.advance(whole=True)
        assert "THE KEYS ARE IN THE HALL." in agent.working.tail_text()


def test_without_a_working_memory_it_says_what_is_missing(tmp_path: Path) -> None:
    with Agent.open(tmp_path / "agent") as agent, pytest.raises(BadInput, match="Parts"):
        agent.ask("Where are the keys?", recall=False)


@pytest.mark.parametrize(
    ("question", "beginning"),
    [
        ("Where is the spare key kept?", "The spare key is kept in the"),
        ("where are my keys?", "My keys are"),
        ("The code of the gate is", "The code of the gate is"),
        ("Did Anna call?", "Question: Did Anna call?\nAnswer:"),
    ],
)
def test_questions_become_beginnings(question: str, beginning: str) -> None:
    assert cue(question) == beginning
