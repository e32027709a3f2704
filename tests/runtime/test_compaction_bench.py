"""The benchmark of compaction: its texts and questions, the grid, going on after a stop; and the real model."""

from __future__ import annotations

import json
import statistics
from itertools import pairwise
from pathlib import Path

import pytest
from perdure.errors import BadInput
from perdure.runtime.bench_compaction import bench_compaction
from perdure.runtime.compaction import stored_budgets
from perdure.runtime.compaction.influence import measure_budgets, measure_influence
from perdure.runtime.compaction.questions import KINDS, make_diary
from perdure.runtime.compaction.trial import METHODS, Trial
from perdure.runtime.decoder import Decoder
from perdure.runtime.planner import exact_planner, load_planner
from perdure.runtime.tiny import TinyModel


def words(text: str) -> int:
    return len(text.split())


def test_a_diary_says_each_fact_once_and_asks_for_it() -> None:
    diary = make_diary(3, 1500, 30, words)
    assert 1450 < words(diary.text) <= 1500
    for question in diary.questions:
        for sentence in question.sentences:
            assert diary.text.count(sentence) == 1
        assert question.text + "." == " ".join(question.sentences)
        answers = [text for text, scored in question.pieces if scored]
        assert len(answers) == len(question.sentences)
    assert [q.kind for q in diary.questions[:3]] == list(KINDS)
    assert make_diary(3, 1500, 30, words) == diary
    assert make_diary(4, 1500, 30, words).text != diary.text
    assert len({q.asked for q in diary.questions}) == 30


def test_facts_lie_everywhere_in_a_diary() -> None:
    diary = make_diary(5, 3000, 48, words)
    at = sorted(diary.text.index(s) / len(diary.text) for q in diary.questions for s in q.sentences)
    gaps = [b - a for a, b in pairwise(at)]
    assert max(gaps) < 4 * statistics.mean(gaps)


def test_too_much_for_a_diary_is_refused() -> None:
    with pytest.raises(BadInput, match="questions"):
        make_diary(1, 9000, 500, words)
    with pytest.raises(BadInput, match="room"):
        make_diary(1, 100, 30, words)


def test_the_grid_is_measured_once_and_goes_on_after_a_stop(tiny: TinyModel, tmp_path: Path) -> None:
    said: list[str] = []
    grid = {"contexts": 1, "tokens": 1200, "questions": 4, "folder": tmp_path, "say": said.append}
    first = bench_compaction(tiny.folder, ratios=[8.0], methods=["am", "drop oldest"], **grid)  # type: ignore[arg-type]
    assert len(said) == 3
    plot = tmp_path / "plot.png"
    both = bench_compaction(tiny.folder, ratios=[8.0, 20.0], methods=METHODS, plot=plot, **grid)  # type: ignore[arg-type]
    assert len(said) == 1 + 2 * (len(METHODS) - 1)
    assert plot.stat().st_size > 1000
    value = {(row["case"].split(", ")[-1], row["metric"]): row["value"] for row in both["rows"]}
    for row in first["rows"]:  # what was measured before is what is told again
        key = (row["case"].split(", ")[-1], row["metric"])
        assert value[key] == row["value"]
    whole = value["full", "size"]
    for method in METHODS[1:]:
        for ratio in (8, 20):
            assert value[f"{method} {ratio}x", "size"] <= whole / ratio * 1.01
            assert 0 <= value[f"{method} {ratio}x", "accuracy"] <= 1
    assert value["am 8x", "attention output error"] < 0.7 * value["drop oldest 8x", "attention output error"]
    assert value["am 8x", "KL per answer token"] < value["drop oldest 8x", "KL per answer token"]
    assert json.loads(json.dumps(both)) == both
    assert set(both) >= {"machine", "commit", "command", "rows", "summary"}


def test_grids_that_cannot_be_measured_are_refused(tiny: TinyModel) -> None:
    for bad in ({"ratios": [1.0]}, {"contexts": 0}, {"methods": ["magic"]}):
        with pytest.raises(BadInput):
            bench_compaction(tiny.folder, **{"tokens": 800, "questions": 2, "contexts": 1, **bad})  # type: ignore[arg-type]


def test_budgets_can_be_measured_for_any_model(tiny: TinyModel) -> None:
    engine = exact_planner(tiny.folder, 64).engine
    assert isinstance(engine, Decoder)
    budgets = measure_budgets(engine.weights, seeds=(1,), tokens=600, questions=3)
    assert len(budgets.losses) == 6
    assert all(a >= b for head in budgets.losses for a, b in pairwise(head))
    shares = budgets.shares(0.1)
    assert max(shares) > 1.5 * min(shares)


def test_the_full_curves_are_losses_of_single_heads(tiny: TinyModel) -> None:
    engine = exact_planner(tiny.folder, 64).engine
    assert isinstance(engine, Decoder)
    cheap = measure_budgets(engine.weights, seeds=(1,), tokens=500, questions=2)
    full = measure_influence(engine.weights, cheap, (1,), 500, 2, points=(0.05, 0.3, 1.0))
    assert full.points == (0.05, 0.3, 1.0)
    assert all(head[-1] == 0 for head in full.losses)
    assert statistics.mean(head[0] for head in full.losses) > statistics.mean(head[1] for head in full.losses) > 0
    assert sum(full.shares(0.2)) == pytest.approx(0.2 * 6)


@pytest.mark.weights
def test_what_was_compacted_can_still_be_asked_for_and_what_was_dropped_cannot(published: Path) -> None:
    planner = load_planner(published, context_tokens=64)
    engine = planner.engine  # type: ignore[attr-defined]
    budgets = stored_budgets(engine.weights.source_sha256)
    assert budgets is not None
    decoder = Decoder(engine.weights, 1400)
    trial = Trial(decoder, engine.weights.tokenizer, 77, 352, 9, budgets, ["am", "drop oldest"])
    full, ours, window = (trial.measure(m, r) for m, r in (("full", 1.0), ("am", 5.0), ("drop oldest", 5.0)))
    assert statistics.mean(full.right) >= 0.9
    assert sum(ours.right) >= sum(full.right) - 1
    assert sum(window.right) <= 0.5 * sum(full.right)
    assert statistics.mean(ours.kl) < 0.2 * statistics.mean(window.kl)
    assert statistics.mean(full.kl) == pytest.approx(0, abs=1e-3)
    assert ours.nbytes <= full.nbytes / 5
