"""The same questions put to rivals and to the agent's own memory under diagnosis, after a life has been lived.

Each question is put with what was in the journal when it was asked. ``true_percepts`` is the agent's world model fed by
eyes that misread nothing; ``true_memory`` is a memory that forgets and confuses nothing (which of two twins it was, who
carried what) but has seen no more than was in view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from perdure.agent.findings import Asked
from perdure.agent.questions import parse_question
from perdure.agent.world_answering import World, find_in_world
from perdure.records import Answer, Record
from perdure.world_model.causes import CausalModel

from ..plan import Plan
from ..truth import Truth
from .log import Log
from .perfect import LooseMemory, PerfectEyes
from .question import Grade, Question, Scorer
from .rivals import NOTHING, Put, Rival, resolved, rivals
from .truthful import TruthfulWorld

ZONE = ZoneInfo("UTC")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Examined:
    """Grades of everyone who was asked, by name; all in the order of the questions."""

    grades: Mapping[str, Sequence[Grade]]
    answers: Mapping[str, Sequence[Answer]]


def put_to_rivals(
    questions: Sequence[Question],
    records: Iterable[Record],
    names: World,
    start: datetime,
    more: Sequence[Rival] = (),
) -> dict[str, list[Answer]]:
    """Answers of all rivals, by name.

    Args:
        questions: in order of when they were asked.
        records: the journal, in order.
        names: resolves names and rooms: the agent's own world model.
        start: world time of minute 0.
        more: other rivals.
    """
    found: dict[str, list[Answer]] = {}
    everyone = [*rivals(names.room_of), *more]
    log, waiting = Log(), iter(records)
    ahead = next(waiting, None)
    for question in questions:
        now = start + timedelta(minutes=question.asked)
        while ahead is not None and ahead.start <= now:
            log.take(ahead)
            ahead = next(waiting, None)
        query = resolved(parse_question(question.text, now, ZONE), names.name_of)
        put = Put(question.text, query, now)
        for rival in everyone:
            found.setdefault(rival.name, []).append(rival.answer(put, log))
    return found


def with_true_percepts(questions: Sequence[Question], truth: Truth, plan: Plan, start: datetime) -> Iterator[Answer]:
    """Answers of the agent's world model and answerer with eyes that misread nothing."""
    eyes, learned = PerfectEyes(truth, plan, start), -1
    eyes.model.causes = CausalModel()
    for question in questions:
        eyes.advance(question.asked)
        if question.kind == "why" and question.asked != learned:
            eyes.model.learn_causes()
            learned = question.asked
        yield answered(eyes.memory, eyes.model, question, start)


def with_true_memory(questions: Sequence[Question], truth: Truth, plan: Plan, start: datetime) -> Iterator[Answer]:
    """Answers of the agent's answerer from a memory of all that was in view, in which nothing is confused."""
    world = TruthfulWorld(truth, plan, start)
    for question in questions:
        world.now = question.asked
        yield answered(world.memory, world, question, start)


def answered(memory: LooseMemory, world: World, question: Question, start: datetime) -> Answer:
    """One question put to one world by the agent's parser and answerer."""
    now = start + timedelta(minutes=question.asked)
    found = find_in_world(memory, world, Asked(parse_question(question.text, now, ZONE), ZONE, now, None))
    if found is None:
        return NOTHING
    return Answer(found.said, found.value, found.evidence, found.confidence, found.reason)


def graded(
    scorer: Scorer, questions: Sequence[Question], answers: Mapping[str, Sequence[Answer]]
) -> dict[str, list[Grade]]:
    """Grades of everybody's answers."""
    return {
        name: [scorer.grade(q, a) for q, a in zip(questions, given, strict=True)] for name, given in answers.items()
    }
