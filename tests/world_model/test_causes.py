"""Causes learned from a small simulated home that is looked at now and then."""

import json
import random
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from perdure.errors import BadInput
from perdure.records import Change
from perdure.world_model.causes import CLOCK, CausalModel, CauseSettings
from perdure.world_model.screening import direct_causes

START = datetime(2027, 3, 1, tzinfo=UTC)
DAY = 1440
ROOM = {"switch": 0, "lamp": 1, "kettle": 0, "tap": 1, "mat": 1, "radio": 0, "coffee machine": 0, "heater": 2, "fan": 2}
MECHANISMS = {
    ("switch", "on", "lamp", "on"): (0, 1),
    ("switch", "off", "lamp", "off"): (0, 1),
    ("kettle", "on", "kettle", "off"): (4, 6),
    ("tap", "on", "mat", "on"): (8, 12),
    ("tap", "off", "mat", "off"): (14, 18),
}


class Life:
    """Residents use things; the robot goes from room to room, watches, and tries things if it may."""

    def __init__(self, seed: int, days: int, acting: bool) -> None:
        self.rng = random.Random(seed)
        self.state = dict.fromkeys(ROOM, "off")
        self.since = dict.fromkeys(ROOM, 0)
        self.due: list[tuple[int, str, str, str, int]] = []
        self.last: dict[str, tuple[int, str]] = {}
        self.changes: list[Change] = []
        self.acts: list[tuple[datetime, str, int]] = []
        self.seen: dict[str, list[list[int]]] = {name: [] for name in ROOM}
        self.plans: list[tuple[int, str, str]] = []
        room = 0
        for minute in range(days * DAY):
            self._mechanisms(minute)
            acted = None
            if 480 <= minute % DAY < 1320:
                self._residents(minute)
                if minute % 13 == 0:
                    room = (room + 1) % 3
                if acting and minute % 13 == 1:
                    acted = self.rng.choice(
                        [name for name in ROOM if ROOM[name] == room and name not in ("mat", "heater")]
                    )
                    self._turn(minute, acted, "off" if self.state[acted] == "on" else "on")
                    self.acts.append((self.at(minute), acted, minute))
                self._mechanisms(minute)
            self._look(minute, room, acted)

    def at(self, minute: int) -> datetime:
        return START + timedelta(minutes=minute)

    def _turn(self, minute: int, name: str, state: str) -> None:
        if self.state[name] == state:
            return
        self.state[name], self.since[name] = state, minute
        for (cause, when, effect, becomes), lag in MECHANISMS.items():
            if (cause, when) == (name, state):
                self.due.append((minute + self.rng.randint(*lag), effect, becomes, cause, minute))

    def _mechanisms(self, minute: int) -> None:
        for entry in [d for d in self.due if d[0] <= minute]:
            self.due.remove(entry)
            if self.since[entry[3]] == entry[4]:
                self._turn(minute, entry[1], entry[2])
        if minute % DAY == 1110:
            self._turn(minute, "heater", "on")

    def _residents(self, minute: int) -> None:
        for name, times in {"switch": 5, "kettle": 4, "tap": 4, "radio": 5, "heater": 3, "fan": 2}.items():
            if self.rng.random() < times / 840:
                self.plans += [(minute, name, "on"), (minute + self.rng.randint(8, 30), name, "off")]
                if name == "radio" and self.rng.random() < 0.85:  # one person does both: no cause
                    self.plans += [(minute + 3, "coffee machine", "on"), (minute + 20, "coffee machine", "off")]
        for plan in [p for p in self.plans if p[0] <= minute]:
            self.plans.remove(plan)
            self._turn(minute, plan[1], plan[2])

    def _look(self, minute: int, room: int, acted: str | None) -> None:
        for name in [name for name in ROOM if ROOM[name] == room]:
            before = self.last.get(name)
            if before is not None and before[1] != self.state[name]:
                by = "me" if acted == name else None
                bracket = (self.at(before[0]), self.at(minute))
                seq = len(self.changes) + 1
                self.changes.append(
                    Change("state", name, before[1], self.state[name], *bracket, by, minute - before[0] < 2, (seq,))
                )
            if self.seen[name] and self.seen[name][-1][1] == minute - 1:
                self.seen[name][-1][1] = minute
            else:
                self.seen[name].append([minute, minute])
            self.last[name] = (minute, self.state[name])

    def learn(self, settings: CauseSettings | None = None) -> CausalModel:
        model = CausalModel(settings)
        coverage = {name: [(self.at(a), self.at(b)) for a, b in runs] for name, runs in self.seen.items()}
        model.learn(self.changes, self.acts, coverage)
        return model


def f1(model: CausalModel) -> float:
    found, true = {edge.key for edge in model.edges}, set(MECHANISMS)
    return 2 * len(found & true) / (len(found) + len(true))


@pytest.fixture(scope="module")
def lived() -> tuple[Life, CausalModel]:
    life = Life(0, 5, acting=True)
    return life, life.learn()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_edges_are_found_from_glimpses_and_own_acts(seed: int) -> None:
    assert f1(Life(seed, 6, acting=True).learn()) >= 0.8


def test_what_one_person_does_is_no_cause(lived: tuple[Life, CausalModel]) -> None:
    assert not [edge for edge in lived[1].edges if edge.cause == "radio" or edge.effect == "coffee machine"]


def test_an_edge_says_lag_strength_and_where_it_was_seen(lived: tuple[Life, CausalModel]) -> None:
    edge = next(e for e in lived[1].edges if e.key == ("tap", "on", "mat", "on"))
    assert 5 <= edge.lag_min <= 12
    assert 8 <= edge.lag_max <= 15
    assert edge.strength > 0.7
    assert edge.p_value < 0.01
    assert edge.n >= 2
    assert edge.evidence
    assert lived[1].graph.has_edge("tap", "mat")


def test_a_change_is_explained_by_what_was_due(lived: tuple[Life, CausalModel]) -> None:
    life, model = lived
    by_itself = [c for c in life.changes if c.thing == "kettle" and c.new == "off" and c.by is None]
    assert [model.explain(c).value for c in by_itself].count("kettle") > len(by_itself) / 2
    done = next(c for c in life.changes if c.by == "me")
    assert model.explain(done).value == "me"
    nobody = next(c for c in life.changes if c.thing == "fan" and c.by is None)
    assert model.explain(nobody).value is None
    assert "not identifiable" in model.explain(nobody).reason


def test_a_time_of_day_is_a_cause_too(lived: tuple[Life, CausalModel]) -> None:
    clocks = [edge for edge in lived[1].clocks if edge.effect == "heater"]
    assert [edge.cause for edge in clocks] == [CLOCK]
    assert clocks[0].cause_state.startswith("18:")


def test_do_follows_the_edges(lived: tuple[Life, CausalModel]) -> None:
    model = lived[1]
    assert model.do(switch="on").probability(lamp="on") > 0.7
    assert model.do(lamp="on").probability(switch="on") == 0.0
    assert model.do(within=3, tap="on").probability(mat="on") == 0.0
    assert ("lamp", "on") in {(fixture, state) for fixture, state, _, _ in model.effects("switch", "on")}


def test_what_was_only_watched_is_to_be_tried() -> None:
    model = Life(5, 3, acting=False).learn()
    plans = model.next_experiments(dict.fromkeys(ROOM, "off"), 4)
    assert len(plans) == 4
    assert all(plan.state == "on" and plan.value > 0.5 for plan in plans)
    first = plans[0]
    for _ in range(6):
        model.tried(first.fixture, first.state)
    assert model.next_experiments({first.fixture: "off"})[:1] != [first]


def test_a_model_restored_from_its_state_foresees_the_same(lived: tuple[Life, CausalModel]) -> None:
    model = lived[1]
    again = CausalModel.from_state(json.loads(json.dumps(model.to_state())))
    assert again.edges == model.edges
    assert again.clocks == model.clocks
    with pytest.raises(BadInput, match="learn again"):
        CausalModel.from_state({})


def test_nothing_is_learned_from_nothing() -> None:
    model = CausalModel()
    assert model.learn([]) == ()
    assert model.next_experiments({}) == []
    with pytest.raises(BadInput, match="watched_weight"):
        CauseSettings(watched_weight=0)


def test_pc_drops_a_cause_that_acts_through_another() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(800) < 0.1
    second = (first & (rng.random(800) < 0.8)) | (rng.random(800) < 0.1)
    effect = (second & (rng.random(800) < 0.9)) | (rng.random(800) < 0.02)
    table = np.stack([first, second, effect], 1).astype(np.int64)
    assert direct_causes(table) == {1}
    assert direct_causes(table[:5]) == {0, 1}
