"""What brings about what: causal edges between states of fixtures, with lag, learned from watching and from own acts.

It knows changes, acts and coverage, and asks causal-learn which of several correlated causes are direct. It knows no
mechanism beforehand, and does not know how changes are seen or acts are done.

    causes = CausalModel()
    causes.learn(changes, acts, coverage)
    causes.edges                                    Edge("kettle", "on", "kettle", "off", lag 4 to 6, strength 0.97 ...)
    causes.explain(change)                          Estimate("hall lamp", ...), or None and why not
    causes.do(hall_lamp="on").probability(study_lamp="on")
    causes.next_experiments({"radio": "off", ...})  what to try next, and where to look then

An edge is believed if its outcomes (`exposures`) say so beyond chance, if no better cause explains the same changes, if
PC keeps it next to the effect (`screening`), and if own acts, where there are some, do not speak against it: what was
only watched may be two things that one person does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

import networkx as nx
import numpy as np

from ..errors import BadInput
from ..records import Change, Estimate
from .exposures import LONGEST_LAG, ME, Evidence, Key, Outcome, Score, Timeline, Turn, score, timelines
from .screening import direct_causes

CLOCK = "clock"
"""Cause of what happens at a time of day."""
_DAY = 1440
_MOST_WATCHED = 4
_RARE = 1.25  # nats more for each success short of four: with thousands of pairs, twice may be luck
_LEAST_VALUE = 0.05
_CLOCK_GAIN = 6.0  # nats beyond chance, all minutes of the day counted as tried


@dataclass(frozen=True, slots=True)
class CauseSettings:
    """How much evidence makes an edge."""

    believe: float = 7.5
    """Log likelihood ratio (nats) from which an edge is believed if own acts support it ..."""
    believe_watched: float = 10.0
    """... and if it was only watched."""
    consider: float = 2.5
    """From which a pair is worth an experiment."""
    watched_weight: float = 0.6
    """How much watching counts beside acting, from 0 to 1: what is watched may have a common cause."""
    trials: int = 3
    """Own trials of each state that are wanted before it is taken to bring about nothing."""
    confirm: int = 5
    """Own trials that are wanted of an edge before it is left alone."""

    def __post_init__(self) -> None:
        if not 0 < self.watched_weight <= 1 or self.believe <= 0 or self.trials < 1:
            raise BadInput("CauseSettings wants watched_weight in (0, 1], believe above 0 and trials of 1 or more")


@dataclass(frozen=True, slots=True)
class Edge:
    """A state that brings about another."""

    cause: str
    cause_state: str
    effect: str
    effect_state: str
    lag_min: float
    lag_max: float
    """Minutes, both ends included."""
    strength: float
    """Probability that the effect follows, from 0 to 1."""
    p_value: float
    """That chance alone did as well."""
    n: int
    """Exposures that told something ..."""
    acted: int
    """... of which own acts."""
    evidence: tuple[int, ...] = ()
    also: tuple[Key, ...] = ()
    """What must hold too when the cause comes."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.cause, self.cause_state, self.effect, self.effect_state


@dataclass(frozen=True, slots=True)
class Experiment:
    """Something to try: bring ``fixture`` into ``state`` and see what becomes of ``watch`` within ``minutes``."""

    fixture: str
    state: str
    watch: tuple[str, ...]
    """Where an effect is suspected; empty: look at everything."""
    minutes: int
    value: float
    """How much is expected to be learned, in nats."""
    also: tuple[Key, ...] = ()
    """What should hold then."""


@dataclass(frozen=True)
class Distribution:
    """What is expected after something was done: for each fixture, probabilities of its states."""

    states: Mapping[str, Mapping[str, float]]
    minutes: Mapping[str, float] = field(default_factory=dict)
    """After how long each changed fixture is expected to have changed."""

    def probability(self, **states: str) -> float:
        """Probability that all named fixtures are in these states (``study_lamp="on"``), taken as independent."""
        product = 1.0
        for name, state in _named(states).items():
            product *= self.states.get(name, {}).get(state, 0.0)
        return product


class CausalModel:
    """Learns which state of which fixture brings about which, and answers from that."""

    def __init__(self, settings: CauseSettings | None = None) -> None:
        self.settings = settings or CauseSettings()
        self.edges: tuple[Edge, ...] = ()
        self.clocks: tuple[Edge, ...] = ()
        """Changes that come at a time of day: ``cause_state`` is ``HH:MM`` in UTC."""
        self._lines: dict[str, Timeline] = {}
        self._doubtful: dict[tuple[str, str, str, str], float] = {}
        self._trials: dict[Key, int] = {}
        """Own acts that were left alone long enough to show something."""
        self._attempts: dict[Key, int] = {}
        self._states: dict[str, list[str]] = {}

    # ---------------------------------------------------------------------- learning

    def learn(
        self,
        changes: Sequence[Change],
        acts: Iterable[tuple[datetime, str, int]] = (),
        coverage: Mapping[str, Sequence[tuple[datetime, datetime]]] | None = None,
    ) -> tuple[Edge, ...]:
        """Learn anew from all that is known.

        Args:
            changes: those of kind ``state`` count; ``earliest`` and ``latest`` are the last time that the old state
                and the first time that the new one was seen.
            acts: the agent's own uses of fixtures: (time, fixture, seq).
            coverage: stretches in which each fixture was in view, by name.

        Returns:
            The edges that are believed now, also in ``edges``.
        """
        self._lines = timelines(changes, acts, coverage or {})
        evidence = Evidence(self._lines)
        self._states = {
            name: list(dict.fromkeys(state for turn in line.turns for state in (turn.old, turn.new)))
            for name, line in self._lines.items()
        }
        self._trials = {key: evidence.trials(key) for key in evidence.exposures}
        self._doubtful = {}
        found: list[Edge] = []
        clocks: list[Edge] = []
        for effect in evidence.entered:
            self.clocks = ()
            edges, explained = self._causes_of(effect, evidence)
            clock = self._clock(effect, explained)
            if clock is not None:
                self.clocks = (clock,)
                edges, _ = self._causes_of(effect, evidence)
                clocks.append(clock)
            found += edges
        self.edges = tuple(sorted(found, key=lambda edge: edge.key))
        self.clocks = tuple(clocks)
        return self.edges

    def _causes_of(self, effect: Key, evidence: Evidence) -> tuple[list[Edge], set[Turn]]:
        """The believed edges into one state, best first, each explaining changes that no better one did, and those."""
        pools = {cause: evidence.outcomes(cause, effect) for cause in evidence.exposures if cause != effect}
        spoken_for = self._at_clock(effect)
        turns = [t for t in self._lines[effect[0]].turns if t.new == effect[1] and t.by != ME]
        scored: dict[Key, Score] = {}
        for cause, outcomes in pools.items():
            result = self._score(outcomes, spoken_for, turns)
            if result is not None and result.total > self.settings.consider:
                scored[cause] = result
        taken: list[tuple[Key, Score]] = []
        explained: set[Turn] = set(spoken_for)
        left = dict(scored)
        while left:
            cause = max(left, key=lambda key: (left[key].total, key))
            result = left.pop(cause)
            if result.total <= self.settings.consider:
                break
            if self._believed(result):
                taken.append((cause, result))
                explained |= {o.effect for o in pools[cause] if o.effect is not None and _fits(o, result)}
                for other in list(left):
                    again = self._score(pools[other], explained, turns)
                    if again is None:
                        del left[other]
                    else:
                        left[other] = again
            else:
                self._doubtful[(*cause, *effect)] = result.total
        kept = self._screened(effect, taken, pools) if len(taken) > 1 else taken
        return [self._edge(cause, effect, result, pools[cause]) for cause, result in kept], explained

    def _score(self, outcomes: Sequence[Outcome], explained: set[Turn], turns: Iterable[Turn]) -> Score | None:
        """Score of outcomes; an event that something else explains counts as nothing seen."""
        rest = [o for o in outcomes if o.effect is None or o.effect not in explained]
        unexplained = sum(turn not in explained for turn in turns)
        return score(rest, self.settings.watched_weight, unexplained)

    def _believed(self, result: Score) -> bool:
        acted = result.own_yes + result.own_no
        if acted and (result.own <= 0 or result.own_yes < 0.7 * acted):
            return False
        least = self.settings.believe if result.own_yes else self.settings.believe_watched
        least += _RARE * max(0, 4 - result.yes)
        dated = result.precise >= 1 or (result.own_yes >= 4 and result.total >= least + 3)
        return result.total >= least and result.yes >= 2 and dated

    def _screened(
        self, effect: Key, taken: list[tuple[Key, Score]], pools: Mapping[Key, Sequence[Outcome]]
    ) -> list[tuple[Key, Score]]:
        """Those that PC keeps next to the effect; two own successes outweigh it."""
        order = sorted(taken, key=lambda pair: pair[1].total)
        table = self._table(effect, order)
        direct = direct_causes(table)
        return [pair for i, pair in enumerate(order) if i in direct or pair[1].own_yes >= 2]

    def _table(self, effect: Key, causes: Sequence[tuple[Key, Score]]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """One row for each look at the effect while it could still come: was each cause due, did the effect come."""
        line = self._lines[effect[0]]
        rows = []
        for start, end, came in _looks(line, effect[1]):
            due = [
                any(
                    turn.new == cause[1] and turn.low + 1 + result.lag[0] <= end and turn.high + result.lag[1] > start
                    for turn in self._lines[cause[0]].turns
                )
                for cause, result in causes
            ]
            rows.append([*due, came])
        return np.array(rows, np.int64).reshape(-1, len(causes) + 1)

    def _edge(self, cause: Key, effect: Key, result: Score, outcomes: Sequence[Outcome]) -> Edge:
        seqs: dict[int, None] = {}
        for outcome in outcomes:
            if outcome.effect is not None and _fits(outcome, result):
                seqs |= dict.fromkeys(outcome.seqs)
        told = result.yes + result.no
        strength = (result.yes + 0.5) / (told + 1) if told else result.strength
        lag = _lag(outcomes, result)
        return Edge(
            *cause, *effect, *lag, round(strength, 3), float(min(1.0, math.exp(-result.total))), told,
            result.own_yes + result.own_no, tuple(list(seqs)[-8:]),
        )  # fmt: skip

    # -------------------------------------------------------------------- the clock

    def _clock(self, key: Key, explained: set[Turn]) -> Edge | None:
        """A time of day at which a state comes on at least three days, if more of its changes fit it than chance."""
        turns = [t for t in self._lines[key[0]].turns if t.new == key[1] and t.by is None and t.high - t.low <= 120]
        turns = [t for t in turns if t not in explained]
        days = {int(turn.high // _DAY) for turn in turns}
        if len(days) < 3:
            return None
        best: tuple[float, int, list[Turn]] | None = None
        for minute in sorted({int(turn.high % _DAY) for turn in turns}):
            fits = [t for t in turns if t.low < t.high - (t.high - minute) % _DAY <= t.high]
            if len({int(t.high // _DAY) for t in fits}) < 3:
                continue
            gain = sum(math.log(_DAY / 3 / max(1.0, t.high - t.low)) for t in fits) - math.log(_DAY)
            gain -= 2.0 * (len(days) - len({int(t.high // _DAY) for t in fits}))
            if best is None or gain > best[0]:
                best = (gain, minute, fits)
        if best is None or best[0] < _CLOCK_GAIN:
            return None
        at = f"{best[1] // 60:02d}:{best[1] % 60:02d}"
        seqs = tuple(seq for turn in best[2] for seq in turn.seqs)[-8:]
        return Edge(CLOCK, at, *key, 0, 0, len(best[2]) / len(days), math.exp(-best[0]), len(days), 0, seqs)

    def _at_clock(self, effect: Key) -> set[Turn]:
        """Changes that the clock explains."""
        found: set[Turn] = set()
        for edge in self.clocks:
            if (edge.effect, edge.effect_state) == effect:
                minute = int(edge.cause_state[:2]) * 60 + int(edge.cause_state[3:])
                turns = [t for t in self._lines[effect[0]].turns if t.new == effect[1] and t.by is None]
                found |= {t for t in turns if t.low < t.high - (t.high - minute) % _DAY <= t.high}
        return found

    # --------------------------------------------------------------------- answering

    def effects(self, fixture: str, state: str) -> list[tuple[str, str, float, float]]:
        """What a state brings about: (fixture, state, probability, minutes until then), soonest first."""
        found = [
            (edge.effect, edge.effect_state, edge.strength, (edge.lag_min + edge.lag_max) / 2)
            for edge in self.edges
            if (edge.cause, edge.cause_state) == (fixture, state)
        ]
        return sorted(found, key=lambda effect: effect[3])

    def do(self, within: float = 60.0, **states: str) -> Distribution:
        """What is expected within some minutes after fixtures were brought into states by hand.

        Edges into what was done are cut. Other fixtures are expected to stay as they are and are not listed.

        Args:
            within: minutes.
            states: by fixture, blanks as underscores: ``hall_lamp="on"``.
        """
        return self.predict(_named(states), within)

    def predict(self, states: Mapping[str, str], within: float = 60.0, since: float = 0.0) -> Distribution:
        """As `do`, by name: what follows from states that fixtures took ``since`` minutes ago."""
        chance: dict[str, dict[str, float]] = {name: {state: 1.0} for name, state in states.items()}
        when: dict[str, float] = dict.fromkeys(states, 0.0)
        front = [(name, state, 1.0, -since) for name, state in states.items()]
        done = set(states)
        while front:
            name, state, probability, at = front.pop(0)
            for edge in self.edges:
                if (edge.cause, edge.cause_state) != (name, state) or (edge.effect in done and edge.effect != name):
                    continue
                after, p = at + (edge.lag_min + edge.lag_max) / 2, probability * edge.strength
                if not 0 <= after <= within or p < 0.05 or (edge.effect == edge.cause and edge.effect not in states):
                    continue
                old = chance.setdefault(edge.effect, {})
                previous = old.get(edge.effect_state, 0.0)
                old[edge.effect_state] = 1 - (1 - previous) * (1 - p)
                if edge.effect == name:
                    old[state] = 1 - old[edge.effect_state]
                when[edge.effect] = min(after, when.get(edge.effect, after) or after)
                if previous == 0.0 and edge.effect != name:
                    front.append((edge.effect, edge.effect_state, p, after))
        return Distribution(chance, {name: minutes for name, minutes in when.items() if minutes})

    def explain(self, change: Change) -> Estimate:
        """What made a change: a person or ``me`` who was seen to do it, else a fixture or the clock.

        Returns:
            Estimate whose value is a name, or None with the reason ``not identifiable: ...``.
        """
        if change.by is not None:
            return Estimate(change.by, f"{change.by} was seen to do it", change.evidence, 0.9)
        low, high = change.earliest.timestamp() / 60, change.latest.timestamp() / 60
        fits: list[tuple[float, Edge, Turn | None]] = []
        for edge in self.edges:
            if (edge.effect, edge.effect_state) == (change.thing, change.new):
                turn = self._due(edge, low, high)
                if turn is not None:
                    fits.append((edge.strength, edge, turn))
        for edge in self.clocks:
            minute = int(edge.cause_state[:2]) * 60 + int(edge.cause_state[3:])
            if (edge.effect, edge.effect_state) == (change.thing, change.new) and low < high - (high - minute) % _DAY:
                fits.append((edge.strength, edge, None))
        if not fits:
            known = [e for e in self.edges if (e.effect, e.effect_state) == (change.thing, change.new)]
            why = "no known cause was due then" if known else "no cause of that is known"
            return Estimate(None, f"not identifiable: {why}, and nobody was seen to do it", change.evidence)
        fits.sort(key=lambda fit: (-fit[0], fit[1].key))
        best, edge, turn = fits[0]
        rivals = [other for _, other, _ in fits[1:] if other.cause != edge.cause]
        if rivals and fits[1][0] > 0.8 * best:
            names = ", ".join(sorted({edge.cause, *(other.cause for other in rivals)}))
            return Estimate(None, f"not identifiable: it may have been {names}", change.evidence)
        wide = math.exp(-max(0.0, high - low - 30) / 240)
        reason = (
            f"{edge.cause} {edge.cause_state} brings it about after {edge.lag_min:.0f} to {edge.lag_max:.0f} minutes"
        )
        seqs = (*(turn.seqs if turn is not None else edge.evidence[-2:]), *change.evidence)
        return Estimate(edge.cause, reason, tuple(dict.fromkeys(seqs)), round(best * wide, 3))

    def _due(self, edge: Edge, low: float, high: float) -> Turn | None:
        """The newest change of an edge's cause that could have brought about a change in (low, high]."""
        line = self._lines.get(edge.cause)
        for turn in reversed(line.turns if line is not None else []):
            first, last = turn.low + 1 + edge.lag_min, turn.high + edge.lag_max + 1
            if turn.new == edge.cause_state and first <= high and last > low:
                return turn
            if turn.high < low - 4 * LONGEST_LAG:
                break
        return None

    @property
    def graph(self) -> nx.MultiDiGraph:
        """Fixtures joined by edges; attributes ``cause_state``, ``effect_state``, ``lag``, ``strength`` ..."""
        graph = nx.MultiDiGraph()
        for edge in (*self.edges, *self.clocks):
            graph.add_edge(
                edge.cause, edge.effect, cause_state=edge.cause_state, effect_state=edge.effect_state,
                lag=(edge.lag_min, edge.lag_max), strength=edge.strength, p_value=edge.p_value, n=edge.n,
                acted=edge.acted, evidence=edge.evidence, also=edge.also,
            )  # fmt: skip
        return graph

    # ------------------------------------------------------------------- experiments

    def next_experiments(self, states: Mapping[str, str], count: int = 5) -> list[Experiment]:
        """What to try next, most instructive first.

        Args:
            states: the present state of each fixture that may be tried.
            count: how many at most.

        Returns:
            Each brings one fixture from its present state into another: first what is suspected but was only watched,
            then what was never tried.
        """
        found = []
        for fixture, now in sorted(states.items()):
            others = [state for state in self._states.get(fixture, ()) if state != now]
            found += [self._experiment(fixture, state) for state in others or [""]]
        found = [experiment for experiment in found if experiment.value > _LEAST_VALUE]
        return sorted(found, key=lambda experiment: (-experiment.value, experiment.fixture))[:count]

    def tried(self, fixture: str, state: str) -> None:
        """An experiment was begun: it is worth less until the next `learn` shows what came of it."""
        self._attempts[fixture, state] = self._attempts.get((fixture, state), 0) + 1

    def _experiment(self, fixture: str, state: str) -> Experiment:
        """``state`` is empty if the fixture was never seen in another one than now."""
        settings = self.settings
        keys = [(fixture, state)] if state else [key for key in self._attempts if key[0] == fixture]
        trials = sum(self._trials.get(key, 0) for key in keys)
        tried = max(trials, sum(self._attempts.get(key, 0) for key in keys))
        value = max(0.0, 1.0 - tried / settings.trials)
        suspects: list[tuple[float, str]] = []
        minutes = 0.0
        for key, total in self._doubtful.items():
            if key[:2] == (fixture, state):
                suspects.append((min(1.0, total / settings.believe), key[2]))
        for edge in self.edges:
            if (edge.cause, edge.cause_state) == (fixture, state):
                minutes = max(minutes, edge.lag_max)
                if edge.acted < settings.confirm:
                    suspects.append((1.2 * (1 - edge.acted / settings.confirm), edge.effect))
        suspects.sort(reverse=True)
        if suspects:
            value += suspects[0][0] * 0.8 ** max(0, tried - settings.trials)
        if trials and not suspects and tried % 2 == 0:
            minutes = LONGEST_LAG  # now and then wait for what takes long
        watch = tuple(dict.fromkeys(effect for _, effect in suspects))[:_MOST_WATCHED]
        return Experiment(fixture, state, watch, int(minutes) or LONGEST_LAG // 2, round(value, 3))

    # ------------------------------------------------------------------------- state

    def to_state(self) -> dict[str, Any]:
        """The edges as JSON-able values; what they were learned from is learned again from the records."""
        return {
            "edges": [asdict(edge) for edge in self.edges],
            "clocks": [asdict(edge) for edge in self.clocks],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], settings: CauseSettings | None = None) -> CausalModel:
        """A model with the edges that `to_state` wrote; `explain` needs `learn` again."""
        model = cls(settings)
        try:
            model.edges = tuple(_edge(entry) for entry in state["edges"])
            model.clocks = tuple(_edge(entry) for entry in state["clocks"])
        except (KeyError, TypeError) as err:
            raise BadInput(f"expected edges as to_state wrote them, got something else ({err}); learn again") from err
        return model


def _edge(entry: Mapping[str, Any]) -> Edge:
    edge = Edge(**entry)
    return replace(edge, evidence=tuple(edge.evidence), also=tuple((str(f), str(s)) for f, s in edge.also))


def _named(states: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", " "): state for name, state in states.items()}


def _fits(outcome: Outcome, result: Score) -> bool:
    return outcome.event and outcome.low <= result.lag[1] and outcome.high >= result.lag[0]


def _lag(outcomes: Sequence[Outcome], result: Score) -> tuple[float, float]:
    """The window, narrowed to the precise events in it if there are some."""
    exact = [o for o in outcomes if _fits(o, result) and o.high - o.low <= 2]
    if len(exact) < 2:
        return result.lag
    low, high = min(o.low for o in exact), max(o.high for o in exact)
    return max(result.lag[0], low), min(result.lag[1], high)


def _looks(line: Timeline, state: str) -> Iterator[tuple[float, float, int]]:
    """Stretches of at most five minutes between looks at a fixture that is not in a state, and whether it came."""
    for index, turn in enumerate(line.turns):
        if turn.new == state and turn.by is None:
            yield turn.low, turn.high, 1
        if turn.new != state:
            after = line.turns[index + 1].low if index + 1 < len(line.turns) else math.inf
            for start, end in line.seen:
                low, high = max(start, turn.high), min(end, after)
                while low + 1 <= high:
                    yield low, min(high, low + 5), 0
                    low += 5


__all__ = ["CLOCK", "CausalModel", "CauseSettings", "Distribution", "Edge", "Experiment"]
