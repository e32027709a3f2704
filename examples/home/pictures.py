"""Plots of a lived life as PNG files: questions, days, the learned causal graph beside the true one.

Matplotlib is imported here alone, without a display.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from .figures import OURS, Figures, Key, day_row
from .questions.question import KINDS, wilson

_COLOURS = {OURS: "#0b6e4f", "true_percepts": "#9ec9b8", "true_memory": "#c9ddd4"}
_ARC_POINTS = 72
"""How far the middle of an arrow is from the straight line, for a bend of 1."""
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
        axes.set_ylim(0, 1.12 * max(axes.get_ylim()[1], 1e-6))
        axes.set_xticks(days if len(days) <= 10 else days[:: max(1, len(days) // 10)])
        axes.set_xlabel("day")
        _tidy(axes)


def _causes(figure: Figure, figures: Figures) -> None:
    """Causes on the left, effects on the right: what is true, and what was learned."""
    graph = figures.graph
    everything = sorted(graph.both | graph.missed | graph.made_up, key=lambda key: (key[2], key[0], key[1]))
    effects = list(dict.fromkeys(key[2] for key in everything))
    causes = list(dict.fromkeys(key[0] for key in everything))
    true, learned = figure.subplots(1, 2)
    _columns(true, causes, effects, [(k, "#333333") for k in everything if k not in graph.made_up])
    true.set_title(f"what truly brings about what ({len(graph.both | graph.missed)})")
    shown = [(k, "#0b6e4f" if k in graph.both else "#c0392b") for k in everything if k not in graph.missed]
    _columns(learned, causes, effects, shown)
    learned.set_title(f"learned: {len(graph.both)} right, {len(graph.made_up)} made up (red); F1 {graph.f1:.2f}")


def _columns(axes: Axes, causes: list[str], effects: list[str], edges: list[tuple[Key, str]]) -> None:
    height = max(len(causes), len(effects), 2)
    left = {name: height * (i + 0.5) / len(causes) for i, name in enumerate(causes)}
    right = {name: height * (i + 0.5) / len(effects) for i, name in enumerate(effects)}
    for column, x, aside in ((left, 0.0, "right"), (right, 1.0, "left")):
        for name, y in column.items():
            axes.plot([x], [y], "o", color="#555555", markersize=5)
            axes.text(x - 0.04 if aside == "right" else x + 0.04, y, name, ha=aside, va="center", fontsize=9)
    axes.set_xlim(-0.75, 1.75)
    axes.set_ylim(height, 0)
    axes.axis("off")
    pairs = Counter((cause, effect) for (cause, _, effect, _), _ in edges)
    seen: Counter[tuple[str, str]] = Counter()
    for (cause, before, effect, after), colour in edges:
        bend = 0.26 * (seen[cause, effect] - (pairs[cause, effect] - 1) / 2)
        seen[cause, effect] += 1
        arrow = FancyArrowPatch(
            (0.0, left[cause]),
            (1.0, right[effect]),
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=11,
            color=colour,
            linewidth=1.4,
            shrinkA=6,
            shrinkB=6,
        )
        axes.add_patch(arrow)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        axes.annotate(
            f"{before} > {after}",
            (0.5, (left[cause] + right[effect]) / 2),
            (0, -_ARC_POINTS * bend),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=7.5,
            color=colour,
            bbox=box,
        )


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
