"""What a lived life amounts to, in numbers: questions by kind and by rival, errands, costs a day, the causal graph.

It counts and compares; it draws and prints nothing (``report.py``, ``pictures.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Protocol

from .errands import Errand
from .mechanisms import CauseEdge
from .notes import Remembered
from .questions.question import KINDS, Grade, Tally, tally, wilson

OURS = "perdure"
DIAGNOSES = ("true_percepts", "true_memory")
Key = tuple[str, str, str, str]
"""Cause, its state, effect, its state."""


class LearnedEdge(Protocol):
    """An edge of a learned causal graph."""

    @property
    def cause(self) -> str: ...
    @property
    def cause_state(self) -> str: ...
    @property
    def effect(self) -> str: ...
    @property
    def effect_state(self) -> str: ...
    @property
    def lag_min(self) -> float: ...
    @property
    def lag_max(self) -> float: ...


@dataclass(frozen=True, slots=True)
class DayCost:
    """What one day cost."""

    step_ms: Sequence[float]
    """Milliseconds of each step."""
    decisions: int
    """Calls of the language model that decided something."""
    rss_mb: float
    disk_mb: float


@dataclass(frozen=True, slots=True)
class CausalGraph:
    """The learned graph beside the true one."""

    both: frozenset[Key]
    missed: frozenset[Key]
    made_up: frozenset[Key]

    @property
    def f1(self) -> float:
        """F1 of the edges, states of cause and effect included."""
        found, wrong = len(self.both), len(self.missed) + len(self.made_up)
        return 2 * found / (2 * found + wrong) if found else 0.0


@dataclass
class Figures:
    """All figures of one life."""

    seed: int
    days: Sequence[DayCost]
    grades: Mapping[str, Sequence[Grade]]
    """By name of who answered: `OURS`, the rivals, the diagnoses."""
    errands: Sequence[Errand]
    errands_of: Mapping[str, Sequence[Errand]] = field(default_factory=dict)
    """Errands of other lives in the same home: ``random proposer``, ``expert``."""
    violations: int = 0
    percepts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By kind and light: shares ``missed``, ``unread``, ``wrong``."""
    graph: CausalGraph = field(default_factory=lambda: CausalGraph(frozenset(), frozenset(), frozenset()))
    remembered: Remembered | None = None
    """What was known at the end with recall switched off."""

    def tally(self, name: str = OURS, kind: str | None = None) -> Tally:
        """Grades of one answerer, of one kind of question or of all."""
        return tally(g for g in self.grades[name] if kind in (None, g.question.kind))

    @property
    def rivals(self) -> list[str]:
        """Everyone else who was asked, diagnoses last."""
        return sorted((n for n in self.grades if n != OURS), key=lambda n: n in DIAGNOSES)


def causal_graph(learned: Iterable[LearnedEdge], true: Iterable[CauseEdge]) -> CausalGraph:
    """Compares edges by cause, effect and their states; lags are not counted."""
    got = {(e.cause, e.cause_state, e.effect, e.effect_state) for e in learned if e.cause != "clock"}
    want = {(e.cause, e.cause_state, e.effect, e.effect_state) for e in true}
    return CausalGraph(frozenset(got & want), frozenset(want - got), frozenset(got - want))


def errand_share(errands: Sequence[Errand]) -> tuple[int, int]:
    """(done, asked) of errands that were decided and allowed."""
    counted = [e for e in errands if not e.forbidden and e.done is not None]
    return sum(bool(e.done) for e in counted), len(counted)


def day_row(day: DayCost) -> dict[str, float]:
    """One entry of ``days``."""
    steps = sorted(day.step_ms)
    return {
        "step_ms_p50": round(median(steps), 3) if steps else 0.0,
        "step_ms_p95": round(steps[int(0.95 * (len(steps) - 1))], 3) if steps else 0.0,
        "step_ms_max": round(steps[-1], 3) if steps else 0.0,
        "rss_mb": round(day.rss_mb, 1),
        "disk_mb": round(day.disk_mb, 1),
        "llm_decisions": float(day.decisions),
    }


def summary(figures: Figures) -> dict[str, Any]:
    """The ``summary`` that benchmarks of this project speak in."""
    ours = figures.tally()
    done, asked = errand_share(figures.errands)
    found: dict[str, Any] = {
        "seed": figures.seed,
        "questions": ours.asked,
        "accuracy": round(ours.accuracy, 4),
        "accuracy_interval": [round(x, 4) for x in wilson(ours.right, ours.asked)],
        "wrong": round(ours.wrong_share, 4),
        "false_answers": round(ours.false_share, 4),
        "unanswerable": ours.unanswerable,
        "evidence_hit": round(ours.hit_share, 4),
        "baselines": {n: _baseline(figures.tally(n)) for n in figures.rivals if n not in DIAGNOSES},
        "diagnoses": {n: _baseline(figures.tally(n)) for n in figures.rivals if n in DIAGNOSES},
        "errands": asked,
        "errands_done": done,
        "violations": figures.violations,
        "llm_decisions_per_day": round(sum(d.decisions for d in figures.days) / max(1, len(figures.days)), 1),
        "causal_edge_f1": round(figures.graph.f1, 4),
        "percept_error": {k: {n: round(x, 4) for n, x in v.items()} for k, v in figures.percepts.items()},
    }
    if figures.remembered is not None:
        found["working_memory"] = asdict(figures.remembered)
    for name, errands in figures.errands_of.items():
        found[f"errands_done_{name.replace(' ', '_')}"] = errand_share(errands)[0]
        found[f"errands_{name.replace(' ', '_')}"] = errand_share(errands)[1]
    return found


def _baseline(counts: Tally) -> dict[str, float]:
    return {
        "questions": counts.asked,
        "accuracy": round(counts.accuracy, 4),
        "wrong": round(counts.wrong_share, 4),
        "false_answers": round(counts.false_share, 4),
    }


def rows(figures: Figures) -> list[dict[str, Any]]:
    """One row for each kind of question and rival, in the form of this project's benchmarks."""
    found = []
    for kind in (None, *KINDS):
        ours = figures.tally(kind=kind)
        if not ours.asked:
            continue
        low, high = wilson(ours.right, ours.asked)
        for name in figures.rivals:
            peer = figures.tally(name, kind)
            ratio = round(ours.accuracy / peer.accuracy, 3) if peer.accuracy else None
            found.append(
                {
                    "bench": "home",
                    "case": f"seed {figures.seed} {kind or 'all questions'}",
                    "metric": "accuracy",
                    "value": round(ours.accuracy, 4),
                    "unit": "share",
                    "spread": round((high - low) / 2, 4),
                    "peer": name,
                    "peer_value": round(peer.accuracy, 4),
                    "ratio": ratio,
                }
            )
    return found
