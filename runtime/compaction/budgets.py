"""What each head gets of a common budget: measured once per model, stored, dealt out for any ratio.

Knows curves (loss of the model's predictions when one head keeps a share of its keys) and how to trade along them.
Does not know how a head is compacted or what the losses were measured on.

    H = layers * KV heads, P points of a curve
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise

from ...errors import BadInput

_LEAST = 0.1
"""No head gets less than this share of what it would get if all got the same."""
_FORMED = 0.1
"""Below this mean share all heads shrink alike: at 20x answers had a KL of 1.32 nats so, 1.72 by an exchange at 20x."""


@dataclass(frozen=True)
class HeadBudgets:
    """Losses of a model when a single head keeps a share of its keys and all others as they stand.

    Attributes:
        model_sha256: identity of the model's source file.
        points: shares of keys, ascending, the last is 1: nothing is lost.
        losses: per head (layer * kv_heads + head) the loss at each point, in nats a token.
    """

    model_sha256: str
    points: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in pairwise(self.points))
        if len(self.points) < 2 or not rising or self.points[0] <= 0 or self.points[-1] != 1:
            raise BadInput(f"expected ascending points that end at 1, got {self.points}")
        if not self.losses or any(len(x) != len(self.points) for x in self.losses):
            raise BadInput(f"expected {len(self.points)} losses for every head")

    def shares(self, mean: float) -> list[float]:
        """Share of its keys that each head keeps, ``mean`` on the average: the greatest gain a slot first.

        The curve of a head is its lower convex hull over the points, so that a gain never waits behind a smaller one.

        Args:
            mean: in (0, 1].

        Source: arXiv 2602.16284 (influence curves and greedy exchange); on convex curves the greedy choice is the best.
        """
        if not 0 < mean <= 1:
            raise BadInput(f"expected a mean share in (0, 1], got {mean}")
        at = max(mean, _FORMED)
        return [share * mean / at for share in self._exchanged(at)]

    def _exchanged(self, mean: float) -> list[float]:
        heads, floor = len(self.losses), _LEAST * mean
        segments: list[tuple[float, int, float]] = []  # (gain a share, head, width)
        for head, losses in enumerate(self.losses):
            hull = _convex(self.points, losses, floor)
            for (x0, y0), (x1, y1) in pairwise(hull):
                segments.append(((y0 - y1) / (x1 - x0), head, x1 - x0))
        got = [floor] * heads
        left = (mean - floor) * heads
        for _, head, width in sorted(segments, key=lambda s: (-s[0], s[1])):
            take = min(width, left)
            got[head] += take
            left -= take
            if left <= 0:
                break
        return got

    def to_json(self) -> str:
        """For the file that `stored_budgets` reads."""
        rows = ",\n  ".join(json.dumps([float(f"{x:.4g}") for x in head]) for head in self.losses)
        return (
            f'{{\n "model": "{self.model_sha256}",\n "points": {json.dumps(list(self.points))},\n'
            f' "losses": [\n  {rows}\n ]\n}}\n'
        )


def budgets_from_json(text: str) -> HeadBudgets:
    """The inverse of `HeadBudgets.to_json`.

    Raises:
        BadInput: it is not such a text.
    """
    try:
        found = json.loads(text)
        return HeadBudgets(found["model"], tuple(found["points"]), tuple(tuple(x) for x in found["losses"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"expected the JSON of head budgets, got {error!r}; measure them again") from error


def stored_budgets(model_sha256: str) -> HeadBudgets | None:
    """The budgets that are shipped for a model, by the sha256 of its source file; None: all heads get the same."""
    for entry in sorted(resources.files(__package__).iterdir(), key=lambda x: x.name):
        if entry.name.startswith("budgets-") and entry.name.endswith(".json"):
            found = budgets_from_json(entry.read_text("utf-8"))
            if found.model_sha256 == model_sha256:
                return found
    return None


def _convex(points: Sequence[float], losses: Sequence[float], floor: float) -> list[tuple[float, float]]:
    """Lower convex hull of the falling curve from ``floor`` on; left of the first point the loss stays as there."""
    best = list(losses)
    for i in range(len(best) - 2, -1, -1):  # more keys are never worse: what looks so is noise
        best[i] = max(best[i], best[i + 1])
    curve = [(floor, _at(points, best, floor))] + [(x, y) for x, y in zip(points, best, strict=True) if x > floor]
    hull: list[tuple[float, float]] = []
    for x, y in curve:
        while len(hull) > 1 and _above(hull[-2], hull[-1], (x, y)):
            hull.pop()
        hull.append((x, y))
    return hull


def _at(points: Sequence[float], losses: Sequence[float], x: float) -> float:
    for i in range(1, len(points)):
        if x < points[i]:
            a, b = points[i - 1], points[i]
            part = min(1.0, max(0.0, (x - a) / (b - a)))
            return losses[i - 1] + part * (losses[i] - losses[i - 1])
    return losses[-1]


def _above(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether b lies on or above the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])
