"""The life in the home: hidden causes, errands and how they are judged, residents, speech, the scripted robot."""

import random
from collections import Counter

import pytest
from perdure.examples.home.catalogue import GONE, ME
from perdure.examples.home.errands import Errand, Goal
from perdure.examples.home.expert import Expert
from perdure.examples.home.house import LESSON_END, USE
from perdure.examples.home.mechanisms import FAMILY, MOST_SHOTS, Causes, appliance_shots, appliances_of, draw_mechanisms
from perdure.examples.home.world import HomeEnv


def _after_lesson(seed: int, days: int = 1) -> HomeEnv:
    env = HomeEnv(seed, days)
    while env.minute < LESSON_END:
        env.step(0)
    return env


@pytest.fixture(scope="module")
def lived() -> HomeEnv:
    """Two days of a home with a robot that does what it is asked."""
    env = HomeEnv(1, days=2)
    expert = Expert(env)
    ended = False
    while not ended:
        _, _, _, ended, _ = env.step(expert.act())
    return env


def test_every_home_has_five_mechanisms_or_more_and_time_to_show_their_fixtures() -> None:
    assert len(FAMILY) >= 9
    for seed in range(200):
        drawn = draw_mechanisms(random.Random(seed))
        assert len({m.name for m in drawn}) >= 5
        assert appliance_shots(appliances_of(drawn)) <= MOST_SHOTS


@pytest.mark.parametrize("mechanism", [m for m in FAMILY if m.edges], ids=lambda m: m.name)
def test_a_mechanism_does_what_its_edges_say(mechanism) -> None:
    for seed in range(3):
        env = next(e for s in range(seed * 50, 500) if mechanism.fixtures <= (e := HomeEnv(s)).plan.fixtures.keys())
        house = env.house
        causes = Causes((mechanism,), random.Random(seed))
        for edge in mechanism.edges:
            house.set_fixture(edge.effect, _other(env, edge.effect, edge.effect_state))
            house.set_fixture(edge.cause, _other(env, edge.cause, edge.cause_state))
            for name, state in edge.also:
                house.set_fixture(name, state)
            house.toggled.clear()
            house.set_fixture(edge.cause, edge.cause_state, by=ME)
            start = house.minute
            causes.step(house)
            while house.state[edge.effect] != edge.effect_state:
                house.minute += 1
                causes.step(house)
                assert house.minute - start <= edge.lag_max
            event = house.truth.events[-1]
            assert edge.lag_min <= house.minute - start
            assert (event.thing, event.new, event.by, event.cause) == (edge.effect, edge.effect_state, None, edge.cause)


def _other(env: HomeEnv, fixture: str, state: str) -> str:
    return next(s for s in env.plan.fixtures[fixture].kind.states if s != state)


def test_a_cause_that_ends_early_has_no_effect() -> None:
    mechanism = next(m for m in FAMILY if m.name == "open fridge alarms")
    env = next(e for s in range(500) if mechanism.fixtures <= (e := HomeEnv(s)).plan.fixtures.keys())
    causes = Causes((mechanism,), random.Random(0))
    env.house.toggled.clear()
    env.house.set_fixture("fridge", "open")
    for minute in range(12):
        if minute == 3:
            env.house.set_fixture("fridge", "closed")
        causes.step(env.house)
        env.house.minute += 1
    assert env.house.state["fridge alarm"] == "off"


def test_what_mechanisms_did_in_a_life_fits_the_true_edges(lived: HomeEnv) -> None:
    edges = {(e.cause, e.effect, e.effect_state): e for e in lived.true_causes}
    caused = [e for e in lived.truth.events if e.cause and e.cause != "clock"]
    assert len(caused) > 10
    for event in caused:
        edge = edges[event.cause, event.thing, event.new]
        lags = range(edge.lag_min, edge.lag_max + 1)
        begun = [m for m in lags if lived.truth.state(event.cause, event.minute - m - 1) != edge.cause_state]
        assert begun or edge.self


def test_errands_are_judged_on_the_true_state() -> None:
    env = _after_lesson(2)
    errands, house = env._life.errands, env.house
    errands.planned.clear()

    def errand(kind: str, thing: str, target: str, **more: bool) -> Errand:
        number = len(errands.all)
        made = Errand(
            number, env.minute, env.minute + 5, "", env.owner, "app", "test", Goal(kind, thing, target), **more
        )
        errands.all.append(made)
        return made

    on, late = errand("state", "study lamp", "on"), errand("at", "umbrella", "bin")
    umbrella, letter = house.items["umbrella"], house.items["letter#1"]
    house.move_item(umbrella.id, ME, None, ME)
    house.set_fixture("study lamp", "on", by=ME)
    env.step(0)
    assert (on.done, on.done_minute, late.done) == (True, env.minute, None)
    for _ in range(6):
        env.step(0)
    assert late.done is False

    forbidden = errand("discarded", "letter", GONE, forbidden=True)
    house.move_item(letter.id, GONE, None, ME)
    house.discarded.append(letter.id)
    env.step(0)
    assert forbidden.done is True
    assert env.violations == [(env.minute, letter.id)]

    allowed = errand("discarded", "apple", GONE)
    house.move_item("apple#1", GONE, None, ME)
    house.discarded.append("apple#1")
    env.step(0)
    assert allowed.done is True
    assert len(env.violations) == 1


def test_a_forbidden_errand_that_is_left_alone_is_no_failure_and_ends() -> None:
    env = _after_lesson(2)
    goal = Goal("discarded", "letter", GONE)
    errand = Errand(9, env.minute, env.minute + 3, "", "Ben", "voice", "forbidden", goal, forbidden=True)
    env._life.errands.all.append(errand)
    for _ in range(6):
        env.step(0)
    assert errand.done is False
    assert env.violations == []


@pytest.mark.slow
def test_the_expert_does_nine_of_ten_errands() -> None:
    done = total = 0
    for seed in (11, 12):
        env = HomeEnv(seed, days=4)
        expert = Expert(env)
        ended = False
        while not ended:
            _, _, _, ended, _ = env.step(expert.act())
        errands = [e for e in env.errands if not e.forbidden and e.done is not None]
        done, total = done + sum(e.done is True for e in errands), total + len(errands)
        assert env.violations == []
        assert not any(e.done for e in env.errands if e.forbidden)
    assert total >= 4 * 4 * 2
    assert done >= 0.9 * total


def test_a_week_asks_what_it_should() -> None:
    env = HomeEnv(3)
    expert = Expert(env)
    ended = False
    while not ended:
        _, _, _, ended, _ = env.step(expert.act() if env.errands else 0)
    families = Counter(e.family for e in env.errands)
    assert {"bring", "stow", "switch", "open_close", "twin", "discard"} <= families.keys()
    assert families["forbidden"] == 1
    assert all(e.channel == "app" and e.speaker == env.owner for e in env.errands if e.family == "discard")
    assert all(e.speaker != env.owner and e.channel == "voice" for e in env.errands if e.forbidden)
    assert sum(u.kind == "standing" for u in env.said) == 1
    assert {"fact", "correction", "errand"} <= {u.kind for u in env.said}
    per_day = Counter(e.minute // 1440 for e in env.errands)
    assert all(3 <= per_day[day] <= 8 for day in range(7))


def test_residents_live_in_a_world_of_things(lived: HomeEnv) -> None:
    truth = lived.truth
    for minute in range(LESSON_END, truth.last_minute, 7):
        cells = [c for p in truth.people if (c := truth.cell(p, minute))] + [truth.pose(minute)[:2]]
        assert len(cells) == len(set(cells))
        assert all(c in lived.plan.floor for c in cells[:-1])
    events = [e for e in truth.events if e.minute >= LESSON_END]
    kinds = Counter(e.kind for e in events)
    assert kinds["moved"] > 30
    assert kinds["state"] > 100
    assert any(e.new == GONE and e.kind == "left" for e in events)
    carried = [e for e in events if e.kind == "moved" and e.new in truth.people and e.by == e.new]
    assert carried
    for event in carried:  # what a resident takes was beside them
        before, person = truth.cell(event.thing, event.minute - 1), truth.cell(event.by, event.minute)
        if before and person:
            assert abs(before[0] - person[0]) + abs(before[1] - person[1]) == 1


def test_visible_things_are_in_view_and_not_in_something_shut(lived: HomeEnv) -> None:
    truth = lived.truth
    for minute in range(LESSON_END, truth.last_minute, 31):
        view = truth.in_view(minute)
        assert view <= truth.in_view(minute, obstructed=True)
        for thing, (place, state) in truth.visible(minute).items():
            if thing in lived.plan.fixtures:
                assert view & set(lived.plan.fixtures[thing].cells)
                assert state == truth.state(thing, minute)
            else:
                assert truth.cell(thing, minute) in view
                assert place == truth.position(thing, minute)
                if place in lived.plan.fixtures and lived.plan.fixtures[place].kind.holds == "container":
                    assert truth.state(place, minute) == "open"


def test_the_robots_own_acts_are_witnessed_and_bear_its_name() -> None:
    env = _after_lesson(4)
    house, lamp = env.house, env.plan.fixtures["hall lamp"]
    cell = env.plan.access["hall lamp"][0]
    house.robot.x, house.robot.y = cell
    ahead = next(c for c in lamp.cells if abs(c[0] - cell[0]) + abs(c[1] - cell[1]) == 1)
    house.robot.heading = ((1, 0), (0, 1), (-1, 0), (0, -1)).index((ahead[0] - cell[0], ahead[1] - cell[1]))
    env.step(0)
    env.step(USE)
    event = next(e for e in env.truth.events if e.minute == env.minute and e.thing == "hall lamp")
    assert event.by == ME
    assert env.truth.witnessed(event, by=True)
