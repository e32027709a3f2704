"""Hidden causes between fixtures: each home has five or more of a larger family.

A mechanism is a set of edges. When its cause enters ``cause_state`` (and ``also`` holds), its effect enters
``effect_state`` after a lag drawn anew each time, if the cause has stayed in its state until then. The clock can be a
cause too; it is no edge, because nothing can be done to it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from .catalogue import APPLIANCES
from .house import House


@dataclass(frozen=True, slots=True)
class CauseEdge:
    """A direct cause between states of fixtures; lags in minutes, both ends included."""

    cause: str
    cause_state: str
    effect: str
    effect_state: str
    lag_min: int
    lag_max: int
    self: bool = False
    """A fixture that ends its own state."""
    also: tuple[tuple[str, str], ...] = ()
    """What must hold too when the cause comes: a conjunction."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """Edges that belong together, or a clock: ``at`` = (minute of the day, fixture, state)."""

    name: str
    edges: tuple[CauseEdge, ...] = ()
    at: tuple[int, str, str] | None = None

    @property
    def fixtures(self) -> frozenset[str]:
        """All fixtures it needs."""
        names = {n for e in self.edges for n in (e.cause, e.effect, *(f for f, _ in e.also))}
        return frozenset(names | ({self.at[1]} if self.at else set()))


def _edge(text: str, low: int, high: int, *also: tuple[str, str]) -> CauseEdge:
    """``_edge("kettle on > kettle off", 4, 6)``."""
    left, right = text.split(" > ")
    cause, cause_state = left.rsplit(" ", 1)
    effect, effect_state = right.rsplit(" ", 1)
    return CauseEdge(cause, cause_state, effect, effect_state, low, high, cause == effect, also)


FAMILY: tuple[Mechanism, ...] = (
    Mechanism("kettle switches itself off", (_edge("kettle on > kettle off", 4, 6),)),
    Mechanism("coffee machine switches itself off", (_edge("coffee machine on > coffee machine off", 3, 5),)),
    Mechanism("washing machine runs through", (_edge("washing machine on > washing machine off", 25, 30),)),
    Mechanism(
        "tap overflows",
        (_edge("bathroom tap on > bathroom mat wet", 8, 12), _edge("bathroom tap off > bathroom mat dry", 14, 18)),
    ),
    Mechanism(
        "cold air starts the heater",
        (_edge("bedroom window open > heater on", 9, 12), _edge("bedroom window closed > heater off", 3, 5)),
    ),
    Mechanism(
        "open fridge alarms",
        (_edge("fridge open > fridge alarm on", 5, 7), _edge("fridge closed > fridge alarm off", 0, 1)),
    ),
    Mechanism(
        "wired lamps",
        (_edge("hall lamp on > study lamp on", 0, 1), _edge("hall lamp off > study lamp off", 0, 1)),
    ),
    Mechanism(
        "fan follows the lamp",
        (_edge("bathroom lamp on > fan on", 2, 3), _edge("bathroom lamp off > fan off", 4, 6)),
    ),
    Mechanism("draught shuts the door", (_edge("kitchen window open > kitchen door closed", 1, 3),)),
    Mechanism("front door lights the bedroom", (_edge("front door open > bedroom lamp on", 0, 1),)),
    Mechanism("cinema mode", (_edge("television on > living room lamp off", 1, 2),)),
    Mechanism(
        "fuse and emergency light",
        (
            _edge("coffee machine on > hall lamp on", 0, 1, ("kettle", "on")),
            _edge("kettle on > hall lamp on", 0, 1, ("coffee machine", "on")),
        ),
    ),
    Mechanism("timer", at=(18 * 60 + 30, "living room lamp", "on")),
)


@dataclass
class Causes:
    """The mechanisms of one home at work."""

    mechanisms: tuple[Mechanism, ...]
    rng: random.Random
    pending: list[tuple[int, CauseEdge, int]] = field(default_factory=list)
    """(due minute, edge, how often the cause had changed when it was drawn)."""
    changes: dict[str, int] = field(default_factory=dict)

    @property
    def edges(self) -> list[CauseEdge]:
        """All direct edges."""
        return [e for m in self.mechanisms for e in m.edges]

    def step(self, house: House) -> None:
        """Looks at what was toggled in this minute and does what is due, until nothing follows."""
        for mechanism in self.mechanisms:
            if mechanism.at and house.minute % 1440 == mechanism.at[0]:
                house.set_fixture(mechanism.at[1], mechanism.at[2], cause="clock")
        for _ in range(10):
            self._notice(house)
            due = [p for p in self.pending if p[0] <= house.minute]
            if not due:
                return
            self.pending = [p for p in self.pending if p[0] > house.minute]
            for _, edge, count in due:
                if self.changes.get(edge.cause, 0) == count and house.state[edge.cause] == edge.cause_state:
                    house.set_fixture(edge.effect, edge.effect_state, cause=edge.cause)

    def _notice(self, house: House) -> None:
        toggled, house.toggled = house.toggled, []
        for name, state in toggled:
            self.changes[name] = self.changes.get(name, 0) + 1
            for edge in self.edges:
                if (edge.cause, edge.cause_state) == (name, state) and all(house.state[f] == s for f, s in edge.also):
                    lag = self.rng.randint(edge.lag_min, edge.lag_max)
                    self.pending.append((house.minute + lag, edge, self.changes[name]))


MOST_SHOTS = 16
"""The lesson has time for so many pictures of appliances."""


def appliances_of(mechanisms: Iterable[Mechanism]) -> frozenset[str]:
    """Appliances that a home with these mechanisms needs; it always has a kettle, a radio and a bathroom tap."""
    needed = {f for m in mechanisms for f in m.fixtures}
    return frozenset({n for n, _, _ in APPLIANCES if n in needed} | {"kettle", "radio", "bathroom tap"})


def appliance_shots(names: Iterable[str]) -> int:
    """Pictures that the lesson needs for these appliances: both states of each kind, one of a second of a kind."""
    kinds = [kind for name, kind, _ in APPLIANCES if name in set(names)]
    return len(kinds) + len(set(kinds))


def draw_mechanisms(rng: random.Random) -> tuple[Mechanism, ...]:
    """Six mechanisms with distinct effects, among them one that ends itself, one that takes time, and the timer."""
    family = {m.name: m for m in FAMILY}
    timed = ["kettle switches itself off", "coffee machine switches itself off", "washing machine runs through"]
    slow = ["tap overflows", "cold air starts the heater", "open fridge alarms"]
    first = [rng.choice(timed), *rng.sample(slow, 2)]
    rest = [n for n in family if n not in first and n not in timed and n != "timer"]
    drawn = [family[n] for n in first]
    effects = {e.effect for m in drawn for e in m.edges}
    rng.shuffle(rest)
    for name in rest:
        fits = appliance_shots(appliances_of([*drawn, family[name]])) <= MOST_SHOTS
        if len(drawn) < 6 and fits and not effects & {e.effect for e in family[name].edges}:
            drawn.append(family[name])
            effects |= {e.effect for e in family[name].edges}
    if "living room lamp" not in effects:
        drawn.append(family["timer"])
    return tuple(drawn)
