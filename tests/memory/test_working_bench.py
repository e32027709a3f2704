"""The benchmark of drift measures what it says: a broken compaction is seen in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from perdure.errors import BadInput
from perdure.memory.working import bench, spans
from perdure.memory.working.stream import Policy
from perdure.runtime.planner import load_planner
from perdure.runtime.tiny import make_tiny_model

POLICY = Policy(
    budget_slots=480, read_tokens=24, chunk_tokens=48, span_slots=12, branch_tokens=80, example_queries=64, horizon=1280
)


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny")
    return load_planner(make_tiny_model(folder).folder, cache_dir=folder / "cache")


def measured(planner: Any, **more: Any) -> bench.Drift:
    return bench.bench_drift(
        planner, compactions=8, check_every=4, context=500, facts=3, ahead=64, policy=POLICY, **more
    )


def test_it_counts_what_was_asked_for_and_draws_it(planner: Any, tmp_path: Path) -> None:
    seen: list[int] = []
    found = measured(planner, on_progress=seen.append)
    assert seen == list(range(1, 9))
    assert [check.compaction for check in found.checks] == [4, 8]
    assert all(check.kl_stream > 0 for check in found.checks)
    rows = bench.rows(found)
    assert {"attention output error, last third", "KL", "same next token"} <= {row["metric"] for row in rows}
    assert len(bench.series(found)["held"]["output"]) == 8
    bench.draw(found, tmp_path / "drift.png")
    assert (tmp_path / "drift.png").read_bytes()[:4] == b"\x89PNG"


def test_a_broken_compaction_shows(planner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mean(held.output for held in measured(planner).held)
    matched = spans._matched

    def broken(*arguments: Any) -> Any:
        kv = matched(*arguments)
        return replace(kv, v_ND=kv.v_ND.roll(1, 0).contiguous())  # values of the neighbours

    monkeypatch.setattr(spans, "_matched", broken)
    assert mean(held.output for held in measured(planner).held) > 1.5 * whole


def test_with_as_many_slots_as_tokens_there_is_no_error(planner: Any) -> None:
    policy = replace(POLICY, budget_slots=900, span_slots=48)
    found = bench.bench_drift(planner, compactions=4, check_every=9, context=900, ahead=64, policy=policy)
    assert mean(held.output for held in found.held) < 0.02


def test_a_reach_shorter_than_the_budget_is_refused(planner: Any) -> None:
    with pytest.raises(BadInput, match="context"):
        bench.bench_drift(planner, context=100, policy=POLICY)
