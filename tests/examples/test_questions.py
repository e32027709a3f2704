"""The examination of a life in a home: what is asked, how it is graded, and who answers how well."""

import random
from collections import Counter
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from perdure.agent.questions import parse_questions
from perdure.errors import BadInput
from perdure.examples.home.figures import DayCost, Figures, causal_graph, day_row, errand_share, rows, summary
from perdure.examples.home.plan import HEADINGS
from perdure.examples.home.questions import Examination, Question, QuestionSource, Scorer, ValueScorer, tally
from perdure.examples.home.questions.examine import graded, put_to_rivals, with_true_memory, with_true_percepts
from perdure.examples.home.questions.full_log import FullLog
from perdure.examples.home.questions.log import Log
from perdure.examples.home.questions.perfect import PerfectEyes
from perdure.examples.home.questions.question import wilson
from perdure.examples.home.questions.rivals import Put, resolved
from perdure.examples.home.questions.wordings import WORDINGS, Times
from perdure.examples.home.report import as_json, text
from perdure.examples.home.world import HomeEnv
from perdure.records import Answer, Evidence, Interval

START = datetime(2027, 3, 1, tzinfo=UTC)
ZONE = ZoneInfo("UTC")
DAYS = 3


def at(minute):
    return START + timedelta(minutes=minute)


def tour(env):
    """Actions of somebody who walks from room to room, looks around in each, and knows the plan."""
    plan, rng = env.plan, random.Random(1)
    while True:
        goal = rng.choice(plan.room_cells(rng.choice(sorted(plan.floors))))
        distance = plan.distances([goal])
        for _ in range(60):
            robot = env.house.robot
            if robot.cell == goal:
                break
            step = min((c for c in plan.neighbours(robot.cell) if c in distance), key=lambda c: distance[c])
            heading = HEADINGS.index((step[0] - robot.x, step[1] - robot.y))
            door = plan.fixture_at.get(step)
            if heading != robot.heading:
                yield 2 if (heading - robot.heading) % 4 == 1 else 1
            elif door is not None and env.house.state.get(door.name) == "closed":
                yield 6
            else:
                yield 3
        for look in range(24):
            yield 2 if look % 6 == 0 else 0


@pytest.fixture(scope="module")
def life():
    """(home, examination) after three days."""
    env = HomeEnv(seed=5, days=DAYS, render_mode=None)
    env.reset()
    examination, actions = Examination(env, START, 5), tour(env)
    over = False
    while not over:
        over = env.step(next(actions) if env.minute >= 480 else 0)[3]
        examination.due(env.minute)
    examination.final()
    return env, examination


# --- what is asked


def test_an_examination_asks_enough_of_every_sort(life):
    questions = life[1].questions
    assert len(questions) >= 55
    assert len({q.kind for q in questions}) >= 7
    assert sum(q.needs_events > 1 for q in questions) >= 0.4 * len(questions)
    assert len({q.text for q in questions}) == len(questions)


def test_a_quarter_cannot_be_answered_and_has_an_answerable_twin(life):
    questions = {q.id: q for q in life[1].questions}
    hard = [q for q in questions.values() if not q.answerable]
    assert 0.2 <= len(hard) / len(questions) <= 0.3
    for question in hard:
        twin = questions[question.twin]
        assert (twin.answerable, twin.family, twin.asked, twin.twin) == (
            True,
            question.family,
            question.asked,
            question.id,
        )
        assert question.value is None


def test_half_is_asked_on_the_way(life):
    asked = Counter(q.asked for q in life[1].questions)
    assert asked[life[0].truth.last_minute] <= 42
    assert len(asked) > DAYS


def test_a_question_is_about_what_was_before_it(life):
    for question in life[1].questions:
        assert all(last <= question.asked for _, last in question.proof if question.kind != "changed")


def test_the_same_seed_asks_the_same(life):
    again = Examination(life[0], START, 5, sittings=0)
    once = Examination(life[0], START, 5, sittings=0)
    assert [q.text for q in again.final()] == [q.text for q in once.final()]


def test_every_family_has_four_wordings():
    assert all(len(set(forms)) >= 4 for forms in WORDINGS.values())


def test_the_agent_reads_every_question(life):
    kinds = {"where": "location", "when": "when_happened", "who": "who_did", "how_often": "count", "usual": "usual"}
    for question in life[1].questions:
        (query,) = parse_questions(question.text, at(question.asked), ZONE)
        assert query.kind.startswith(kinds.get(question.kind, question.kind)), question.text


def test_times_are_said_as_people_say_them():
    times = Times(START, 9 * 1440 + 600)
    assert times.at(9 * 1440 + 65) == "today at 01:05"
    assert times.between(8 * 1440, 8 * 1440 + 90) == "yesterday between 00:00 and 01:30"
    assert times.day(5 * 1440) == "on Saturday"
    assert times.day(0) == "on 1 March"
    assert times.part(9 * 1440 + 500) == "this morning"


# --- how it is graded


def question(kind, value, *, answerable=True, tolerance=0, proof=()):
    return Question("q1", "?", 2000, kind, "family", answerable, value, tolerance, proof=proof)


def verdict(asked, value, evidence=()):
    return ValueScorer(START).grade(asked, Answer("", value, evidence, 0.5)).verdict


@pytest.mark.parametrize(
    ("asked", "value", "expected"),
    [
        (question("where", "kitchen table"), "in the kitchen table", "right"),
        (question("where", "kitchen table"), "sofa", "wrong"),
        (question("where", "kitchen table"), None, "abstained"),
        (question("who", "Ben"), "ben", "right"),
        (question("when", 600, tolerance=10), Interval(at(595), at(609)), "right"),
        (question("when", 600, tolerance=10), Interval(at(560), at(600)), "wrong"),
        (question("when", 600, tolerance=10), at(611), "wrong"),
        (question("how_often", 2), 2, "right"),
        (question("how_often", 1), True, "wrong"),
        (question("order", ("keys", "Ben")), ["Keys", "ben"], "right"),
        (question("order", ("keys", "Ben")), ["Ben", "keys"], "wrong"),
        (question("changed", frozenset({"keys", "book"})), ["book", "keys", "mug"], "right"),
        (question("changed", frozenset({"keys"})), ["book", "keys"], "wrong"),
        (question("changed", frozenset({"keys"})), [], "abstained"),
        (question("usual", 1435, tolerance=30), time(0, 10), "right"),
        (question("usual", "sofa"), "sofa", "right"),
        (question("why", "bathroom tap"), "the bathroom tap", "right"),
        (question("where", None, answerable=False), None, "right"),
        (question("where", None, answerable=False), "sofa", "wrong"),
    ],
)
def test_answers_are_graded_on_their_value(asked, value, expected):
    assert verdict(asked, value) == expected


def test_evidence_counts_if_it_is_of_the_time_that_proves_it():
    asked = question("where", "sofa", proof=((600, 610),))
    scorer = ValueScorer(START)
    for minute, hit in ((605, True), (700, False)):
        shown = (Evidence(1, at(minute), at(minute), "", 1.0, ""),)
        assert scorer.grade(asked, Answer("", "sofa", shown, 0.9)).evidence_hit is hit


def test_interfaces_take_what_others_bring(life):
    assert isinstance(life[1], QuestionSource)
    assert isinstance(ValueScorer(START), Scorer)
    with pytest.raises(BadInput, match="aware"):
        ValueScorer(datetime(2027, 3, 1))


def test_an_interval_of_a_share_holds_it():
    low, high = wilson(9, 10)
    assert 0.55 < low < 0.9 < high < 1.0
    assert wilson(0, 0) == (0.0, 1.0)


# --- who answers how well


@pytest.fixture(scope="module")
def grades(life):
    env, examination = life
    questions = examination.questions
    eyes = PerfectEyes(env.truth, env.plan, START)
    eyes.advance(env.truth.last_minute)
    answers = put_to_rivals(questions, eyes.memory.journal.records, eyes.model, START)
    answers["true_memory"] = list(with_true_memory(questions, env.truth, env.plan, START))
    answers["perdure"] = list(with_true_percepts(questions, env.truth, env.plan, START))
    return graded(ValueScorer(START), questions, answers)


def test_memory_and_answerer_beat_every_rival_where_nothing_is_misread(grades):
    ours = tally(grades["perdure"])
    assert ours.accuracy >= 0.8
    assert ours.wrong_share <= 0.1
    assert ours.false_share <= 0.1
    for rival in ("no_memory", "last_seen", "bm25", "sql"):
        assert tally(grades[rival]).accuracy < ours.accuracy


def test_what_was_in_view_decides_what_is_called_answerable(grades):
    assert tally(grades["true_memory"]).accuracy >= 0.95


def test_who_remembers_nothing_answers_little_and_rarely_wrongly(grades):
    counts = tally(grades["no_memory"])
    assert counts.accuracy < 0.5
    assert counts.wrong_share < 0.1


def test_rivals_say_something(grades):
    for rival in ("last_seen", "bm25", "sql"):
        assert tally(grades[rival]).accuracy > 0.25


class Parrot:
    """A language model that says what its grammar allows first."""

    def __init__(self):
        self.prompts = []

    def chat(self, messages, *, schema, max_tokens):
        self.prompts.append(messages)
        answer = schema["properties"]["answer"]
        said = answer["enum"][0] if "enum" in answer else [] if answer["type"] == "array" else "unknown"
        return type("Done", (), {"text": f'{{"answer": {said!r}}}'.replace("'", '"')})()


def test_the_log_is_read_from_the_front_of_the_prompt(life):
    env, examination = life
    eyes = PerfectEyes(env.truth, env.plan, START)
    eyes.advance(env.truth.last_minute)
    log, parrot = Log(), Parrot()
    for record in eyes.memory.journal.records:
        log.take(record)
    reader = FullLog(parrot, log, START, tokens=400)
    for asked in examination.questions[-8:]:
        query = resolved(parse_questions(asked.text, at(asked.asked), ZONE)[0], eyes.model.name_of)
        reader.answer(Put(asked.text, query, at(asked.asked)))
    assert 5 < reader.lines < 60
    assert all(one[0] == other[0] for one, other in pairwise(parrot.prompts))


# --- the report


@pytest.fixture
def figures(life, grades):
    days = [DayCost([1.0, 2.0, 9.0], 3, 300.0, 20.0) for _ in range(DAYS)]
    graph = causal_graph(life[0].true_causes[1:], life[0].true_causes[:-1])
    percepts = {"item day": {"there": 10.0, "missed": 0.1, "unread": 0.0, "wrong": 0.02}}
    return Figures(5, days, grades, life[0].errands, {"expert": life[0].errands}, 0, percepts, graph)


def test_a_report_says_all_figures(figures):
    said = text(figures)
    for word in (
        "where",
        "sql",
        "true memory",
        "errands",
        "expert",
        "step p50 ms",
        "item day",
        "F1",
        "false answers",
    ):
        assert word in said


def test_a_report_speaks_the_language_of_the_benchmarks(figures):
    found = as_json(figures, "test")
    assert {"machine", "commit", "command", "rows", "summary", "days"} <= found.keys()
    assert {"accuracy", "wrong", "false_answers", "evidence_hit", "baselines", "errands", "errands_done",
            "errands_done_expert", "llm_decisions_per_day", "seed", "questions"} <= summary(figures).keys()  # fmt: skip
    assert {"step_ms_p50", "step_ms_p95", "step_ms_max", "rss_mb", "disk_mb"} <= day_row(figures.days[0]).keys()
    assert all(row["peer"] != "perdure" for row in rows(figures))


def test_edges_are_compared_with_their_states(life):
    true = life[0].true_causes
    assert causal_graph(true, true).f1 == 1.0
    assert causal_graph([], true).f1 == 0.0
    assert len(causal_graph(true[1:], true).missed) == 1


def test_forbidden_errands_are_not_asked(life):
    done, asked = errand_share(life[0].errands)
    assert 0 <= done <= asked <= len(life[0].errands)
