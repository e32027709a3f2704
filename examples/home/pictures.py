"""Plots of a lived life as PNG files: questions, days, the learned causal graph beside the true one.

Matplotlib is imported here alone, without a display.
"""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from .figures import OURS, Figures, day_row
from .questions.question import KINDS, wilson

_COLOURS = {OURS: "#0b6e4f", "true_percepts": "#9ec9b8", "true_memory": "#c9ddd4"}
_RIVALS = ("#b9770e", "#ca9d52", "#8e6c8a", "#c78f8f", "#7f8c8d", "#b0b7bd")


def draw(figures: Figures, folder: Path) -> list[Path]:
    """Draws everything into a folder (made if needed); returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, paint in (("questions", _questions), ("days", _days), ("causes", _causes)):
        figure = Figure(figsize=(11, 6.5), dpi=110, layout="constrained")
        paint(figure, figures)
        path = folder / f"{name}.png"
        figure.savefig(path)
        found.append(path)
    return found


def _questions(figure: Figure, figures: Figures) -> None:
    """Accuracy by kind of question and by who answered, with 95 % intervals over all; and how each fails."""
    names = [OURS, *figures.rivals]
    colours = [_COLOURS.get(n) or _RIVALS[i % len(_RIVALS)] for i, n in enumerate(names)]
    kinds = [k for k in KINDS if figures.tally(kind=k).asked]
    above, below = figure.subplots(2, 1, height_ratios=(3, 2))
    width = 0.84 / len(names)
    for i, name in enumerate(names):
        counts = [figures.tally(name, k) for k in (None, *kinds)]
        at = [x + (i - (len(names) - 1) / 2) * width for x in range(len(counts))]
        spans = [wilson(c.right, c.asked) for c in counts]
        errors = [
            [max(0.0, c.accuracy - s[0]) for c, s in zip(counts, spans, strict=True)],
            [max(0.0, s[1] - c.accuracy) for c, s in zip(counts, spans, strict=True)],
        ]
        above.bar(at, [c.accuracy for c in counts], width * 0.92, color=colours[i], label=name.replace("_", " "))
        above.errorbar(at[:1], [counts[0].accuracy], [[errors[0][0]], [errors[1][0]]], fmt="none", ecolor="#333333")
    labels = ["all", *(k.replace("_", " ") for k in kinds)]
    asked = [figures.tally().asked, *(figures.tally(kind=k).asked for k in kinds)]
    above.set_xticks(range(len(labels)), [f"{label}\n({n})" for label, n in zip(labels, asked, strict=True)])
    above.set_ylim(0, 1.02)
    above.set_ylabel("answered rightly")
    above.set_title(f"Questions about {len(figures.days)} days in home {figures.seed}")
    above.legend(ncols=min(len(names), 8), loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False, fontsize=8)
    _tidy(above)
    counts = [figures.tally(n) for n in names]
    left = [0.0] * len(names)
    parts = (
        ("right", [c.right / max(1, c.asked) for c in counts], "#0b6e4f"),
        ("abstained, though it could be known", [1 - (c.right + c.wrong) / max(1, c.asked) for c in counts], "#d9d9d9"),
        ("wrong", [(c.wrong - c.false_answers) / max(1, c.asked) for c in counts], "#c0392b"),
        ("answered, though nobody could know", [c.false_answers / max(1, c.asked) for c in counts], "#7b241c"),
    )
    for label, shares, colour in parts:
        below.barh([n.replace("_", " ") for n in names], shares, left=left, color=colour, label=label)
        left = [a + b for a, b in zip(left, shares, strict=True)]
    below.invert_yaxis()
    below.set_xlim(0, 1)
    below.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False, fontsize=8)
    _tidy(below)


def _days(figure: Figure, figures: Figures) -> None:
    """Step times, memory, disk and decisions of each day."""
    rows = [day_row(d) for d in figures.days]
    days = list(range(1, len(rows) + 1))
    times, memory, disk, decisions = figure.subplots(2, 2).ravel()
    times.plot(days, [r["step_ms_p50"] for r in rows], "o-", color="#0b6e4f", label="median")
    times.plot(days, [r["step_ms_p95"] for r in rows], "s--", color="#b9770e", label="95th percentile")
    times.set_title("a step (one minute of the world), ms")
    times.legend(frameon=False)
    memory.plot(days, [r["rss_mb"] for r in rows], "o-", color="#0b6e4f")
    memory.set_title("resident memory, MB")
    disk.plot(days, [r["disk_mb"] for r in rows], "o-", color="#0b6e4f")
    disk.set_title("directory, MB")
    decisions.bar(days, [r["llm_decisions"] for r in rows], color="#8e6c8a")
    decisions.set_title("decisions by the language model")
    for axes in (times, memory, disk, decisions):
        axes.set_ylim(bottom=0)
        axes.set_xticks(days if len(days) <= 10 else days[:: max(1, len(days) // 10)])
        axes.set_xlabel("day")
        _tidy(axes)


def _causes(figure: Figure, figures: Figures) -> None:
    """The true graph and the learned one over the same fixtures on a ring."""
    graph = figures.graph
    names = sorted({n for key in graph.both | graph.missed | graph.made_up for n in (key[0], key[2])})
    ring = {
        name: (math.cos(2 * math.pi * i / len(names) + 0.3), math.sin(2 * math.pi * i / len(names) + 0.3))
        for i, name in enumerate(names)
    }
    true, learned = figure.subplots(1, 2)
    _ring(true, ring, [(key, "#333333") for key in sorted(graph.both | graph.missed)])
    true.set_title(f"what truly brings about what ({len(graph.both | graph.missed)})")
    edges = [(key, "#0b6e4f") for key in sorted(graph.both)] + [(key, "#c0392b") for key in sorted(graph.made_up)]
    _ring(learned, ring, edges)
    learned.set_title(f"learned: {len(graph.both)} right, {len(graph.made_up)} made up (red); F1 {graph.f1:.2f}")


def _ring(axes: Axes, ring: dict[str, tuple[float, float]], edges: list[tuple[tuple[str, str, str, str], str]]) -> None:
    for name, (x, y) in ring.items():
        axes.plot([x], [y], "o", color="#555555", markersize=5)
        axes.text(1.12 * x, 1.12 * y, name, ha="left" if x > 0.2 else "right" if x < -0.2 else "center",
                  va="bottom" if y > 0 else "top", fontsize=9)  # fmt: skip
    seen: dict[tuple[str, str], int] = {}
    for (cause, before, effect, after), colour in edges:
        start, end = ring[cause], ring[effect]
        number = seen[cause, effect] = seen.get((cause, effect), 0) + 1
        label = f"{before} > {after}"
        if cause == effect:
            x, y = 1.0 * start[0], 1.0 * start[1]
            loop = FancyArrowPatch((x - 0.06, y), (x + 0.06, y), connectionstyle="arc3,rad=-2.2", arrowstyle="-|>",
                                   mutation_scale=9, color=colour, linewidth=1.4)  # fmt: skip
            axes.add_patch(loop)
            axes.text(0.8 * x, 0.8 * y - 0.07 * number, label, ha="center", fontsize=7, color=colour)
            continue
        bend = 0.12 + 0.1 * number
        arrow = FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", arrowstyle="-|>", mutation_scale=11,
                                color=colour, linewidth=1.4, shrinkA=6, shrinkB=6)  # fmt: skip
        axes.add_patch(arrow)
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        across = (end[1] - start[1], start[0] - end[0])
        axes.text(middle[0] + across[0] * bend / 2, middle[1] + across[1] * bend / 2, label, ha="center", va="center",
                  fontsize=7, color=colour, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})  # fmt: skip
    axes.set_xlim(-1.75, 1.75)
    axes.set_ylim(-1.45, 1.45)
    axes.set_aspect("equal")
    axes.axis("off")


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
