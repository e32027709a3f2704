"""Curiosity: what the robot tries out unasked, to learn what brings about what.

It walks its rounds anyway. In passing it brings one fixture of the room into another state, and on a later round back
again; each is an act whose effects, near or far, the rounds find. Which is worth it is for the causal model to say; the
act itself goes through the ledger like every other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from perdure.world_model.causes import CausalModel

_LASTS_S = 20 * 60
"""A trial lasts so long at least, and until every room has been looked into ..."""
_LASTS_AT_MOST_S = 3 * 3600
"""... but no longer than this."""
_BETWEEN_S = 6 * 60
"""Time between two trials: what changes then has one likely cause."""
_AT_LEAST = 0.15
"""Nats that a trial must promise."""
_SHORT_MINUTES = 9
"""What the owner wants otherwise is tried out for no longer, and watched all the time."""


@dataclass
class Trial:
    """Something that is in another state because the robot tries it out."""

    fixture: str
    old: str
    since_s: float


@dataclass
class Trials:
    """What is being tried out, as far as it must survive a crash."""

    open: list[Trial] = field(default_factory=list)
    last_s: float = 0.0
    not_usable: list[str] = field(default_factory=list)
    """Fixtures that cannot be set by hand."""


@dataclass(frozen=True)
class Wish:
    """A fixture to bring into a state; ``minutes`` above 0: watch it for so long and bring it back at once."""

    fixture: str
    state: str
    minutes: int = 0


def wish(
    trials: Trials,
    causes: CausalModel,
    states: Mapping[str, str],
    possible: Mapping[str, Collection[str]],
    kept: Collection[str],
    now_s: float,
    round_s: float,
) -> Wish | None:
    """What to try out now among the fixtures at hand, or to bring back; None for nothing.

    Args:
        trials: what is being tried out; changed by what is wished.
        causes: says from which trial most is to be learned.
        states: present state of each fixture at hand, by name.
        possible: states that each can be in.
        kept: fixtures that a standing order holds in one state.
        now_s: world time in seconds.
        round_s: since when every room has been looked into.
    """
    if now_s - trials.last_s < _BETWEEN_S:
        return None
    for trial in list(trials.open):
        age_s = now_s - trial.since_s
        over = (age_s >= _LASTS_S and round_s > trial.since_s) or age_s > _LASTS_AT_MOST_S
        if trial.fixture in states and over:
            trials.open.remove(trial)
            trials.last_s = now_s
            return Wish(trial.fixture, trial.old)
    under_way = {trial.fixture for trial in trials.open}
    free = {name: state for name, state in states.items() if name not in under_way and name not in trials.not_usable}
    for experiment in causes.next_experiments(free, len(free)):
        name, old = experiment.fixture, free.get(experiment.fixture, "")
        others = [state for state in possible.get(name, ()) if state != old]
        state = experiment.state or next(iter(others), "")
        if experiment.value < _AT_LEAST or not old or state not in others:
            continue
        causes.tried(name, state)
        trials.last_s = now_s
        if name in kept:
            return Wish(name, state, _SHORT_MINUTES)
        trials.open.append(Trial(name, old, now_s))
        return Wish(name, state)
    return None
