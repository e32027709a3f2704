"""The robot lives a day in the home: it learns by being shown, does what it is asked, and knows what it saw.

The planner is replaced by somebody who reads every errand rightly, so that no weights are needed.
"""

from __future__ import annotations

import pytest
from perdure.agent import Call, EnvBody, Parts, taught_reader
from perdure.clock import WorldClock
from perdure.examples.home import house, skills
from perdure.examples.home.endure import endure
from perdure.examples.home.examined import START, STEP_CLOCK, ExaminedHome
from perdure.examples.home.questions import ValueScorer, tally
from perdure.examples.home.robot import HomeRobot
from perdure.memory.replay import replay
from perdure.records import Effect
from perdure.world_model import checking

SEED = 2
MINUTES = 15 * 60


class RightReader:
    """Proposes what an errand means, by its goal."""

    def __init__(self, env: ExaminedHome) -> None:
        self._env = env

    def propose(self, told, menu, cancel):
        goal = next((e.goal for e in self._env.errands if e.text == told.payload["text"]), None)
        if goal is None:
            return []
        if goal.kind == "state":
            return [Call("set", {"fixture": goal.thing, "state": goal.target}, told.seq)]
        if goal.kind == "discarded":
            return [Call("throw_away", {"thing": goal.thing}, told.seq)] if "throw_away" in menu.tools else []
        if goal.when_home:
            return [Call("bring_when_home", {"thing": goal.thing, "person": goal.target}, told.seq)]
        return [Call("bring", {"thing": goal.thing, "to": goal.target}, told.seq)]


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """A robot at the end of its first day, its home, and the grades of its examination."""
    folder = tmp_path_factory.mktemp("home") / "robot.perdure"
    env = ExaminedHome(SEED, 2)
    with HomeRobot.open(folder, parts=Parts(), clock=WorldClock(STEP_CLOCK.start)) as robot:
        robot.use_proposer(lambda: RightReader(env))
        robot.live(EnvBody(env, STEP_CLOCK), days=MINUTES / 1440, think_steps=2)
        scorer = ValueScorer(START)
        grades = [scorer.grade(q, robot.ask(q.text, plain=True)) for q in env.final()]
        yield robot, env, grades


def test_moves_are_what_the_body_does() -> None:
    names = ("WAIT", "LEFT", "RIGHT", "FORWARD", "PICK_UP", "PUT_DOWN", "USE", "GIVE", "DISCARD")
    body = (house.WAIT, house.LEFT, house.RIGHT, house.FORWARD, house.PICK, house.PUT, house.USE, house.GIVE)
    assert [skills.Move[name] for name in names] == [*body, house.DISCARD]


def test_everything_that_was_shown_has_a_name(day) -> None:
    robot, env, _ = day
    assert set(robot.world.map.rooms) == set(env.plan.room_at.values())
    assert set(robot.world.map.fixtures.values()) >= {f.name for f in env.plan.fixtures.values() if f.kind.states}
    assert {name for name, role in robot.world.fold.roles.items() if role == "person"} == set(env.people)


def test_most_of_what_the_robot_believes_of_fixtures_is_so(day) -> None:
    robot, env, _ = day
    believed = {name: life.now.value for name, life in robot.world.fold.fixtures.items() if life.now}
    right = [env.house.state[name] == state for name, state in believed.items() if state]
    assert sum(right) >= 0.8 * len(right)


def test_errands_are_done_and_nothing_is_thrown_away_unasked(day) -> None:
    _, env, _ = day
    asked = [e for e in env.errands if not e.forbidden and e.done is not None]
    assert sum(bool(e.done) for e in asked) >= len(asked) / 2
    assert env.violations == []


def test_every_act_has_its_intent_before_it_and_its_outcome_after(day) -> None:
    robot, _, _ = day
    intents = {r.payload["intent"]: r for r in robot.memory.journal.read(kinds=["intent"])}
    outcomes = {r.payload["intent"]: r for r in robot.memory.journal.read(kinds=["outcome"])}
    assert intents
    assert set(intents) == set(outcomes)
    assert all(outcomes[name].seq > record.seq for name, record in intents.items())
    assert all(r.payload["effect"] != Effect.IRREVERSIBLE or r.payload["cause"] for r in intents.values())


def test_it_answers_from_what_it_saw_and_says_when_it_cannot_know(day) -> None:
    _, _, grades = day
    counted = tally(grades)
    assert counted.asked >= 20
    assert counted.accuracy >= 0.6
    assert counted.false_share <= 0.25


def test_the_day_replays_identically_and_all_is_well(day) -> None:
    robot, _, _ = day
    robot.memory.catch_up()
    assert robot.memory.check() == []
    assert replay(robot.memory.root).equal
    robot.world.snapshot()
    assert checking.compare(robot.memory).equal


def test_a_woken_robot_reads_as_it_did_before(day) -> None:
    robot, env, _ = day
    frame = EnvBody(env, STEP_CLOCK).observe().frame
    taught, kept = taught_reader(robot.memory), taught_reader(robot.memory)
    assert (robot.memory.root / "world" / "looks.json").exists()
    assert taught.to_state() == kept.to_state()
    assert taught.read(frame, robot.pose, START) == kept.read(frame, robot.pose, START)
    assert set(taught.gallery.cells.values()) >= set(robot.world.fold.fixtures)


def test_looks_that_were_damaged_are_taught_again(day) -> None:
    robot, _, _ = day
    before = taught_reader(robot.memory).to_state()
    path = robot.memory.root / "world" / "looks.json"
    path.write_bytes(path.read_bytes()[:-7])
    assert taught_reader(robot.memory).to_state() == before


@pytest.mark.slow
def test_a_life_that_is_killed_again_and_again_loses_nothing(tmp_path) -> None:
    found = endure(tmp_path / "endured.perdure", seed=3, days=1, kills=3, planner=False)
    assert found.kills == 3
    assert found.outage_minutes > 0
    assert found.clean, found
