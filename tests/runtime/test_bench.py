"""The benchmark of the planner: its arithmetic, its rows, and that the peer sees the same model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from perdure.errors import BadInput
from perdure.runtime import bench_planner
from perdure.runtime.bench import _open_llama, bench_text, perplexity
from perdure.runtime.planner import exact_planner
from perdure.runtime.tiny import TinyModel

ROW = {"bench", "case", "metric", "value", "unit", "spread", "peer", "peer_value", "ratio"}


def test_perplexity_is_the_exponent_of_the_mean_loss_whatever_the_step(tiny: TinyModel) -> None:
    planner = exact_planner(tiny.gguf, 256)
    tokens = planner.tokenizer.encode("The keys are on the kitchen table.")
    planner.engine.cache.truncate(0)
    logits = planner.engine.read(tokens[:-1], all_logits=True)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[1:])).exp().item()
    for step in (1, 3, 512):
        assert perplexity(planner.engine, tokens, step) == pytest.approx(expected, rel=1e-4)


def test_a_report_has_every_field_and_rates_that_were_measured(tiny: TinyModel, tmp_path: Path) -> None:
    report = bench_planner(tiny.folder, repetitions=1, perplexity_tokens=100, cache_dir=tmp_path)
    assert set(report) >= {"machine", "commit", "command", "rows"}
    assert all(set(row) == ROW for row in report["rows"])
    values = {row["metric"]: row["value"] for row in report["rows"]}
    assert values["decode"] > 1
    assert values["prefill"] > 1
    exact = next(row for row in report["rows"] if row["peer"] == "exact float32 weights")
    assert exact["ratio"] == pytest.approx(exact["peer_value"] / exact["value"])


def test_llama_cpp_finds_the_same_perplexity_in_the_same_file(tiny: TinyModel) -> None:
    pytest.importorskip("xllamacpp")
    planner = exact_planner(tiny.gguf, 256)
    tokens = planner.tokenizer.encode(bench_text())[:40]
    peer = _open_llama(tiny.gguf, 2, planner.tokenizer.encode("a")[-1])
    assert peer is not None
    assert peer.perplexity(tokens, planner.engine.vocab) == pytest.approx(
        perplexity(planner.engine, tokens, 64), rel=0.02
    )


def test_counts_out_of_range_are_refused(tiny: TinyModel) -> None:
    with pytest.raises(BadInput, match="repetitions"):
        bench_planner(tiny.gguf, repetitions=0)


@pytest.mark.weights
def test_re_packed_weights_cost_less_than_five_per_cent_of_perplexity(published: Path) -> None:
    from perdure.runtime import load_planner
    from perdure.runtime.planner import LocalPlanner

    planner = load_planner(published, context_tokens=2048)
    assert isinstance(planner, LocalPlanner)
    tokens = planner.tokenizer.encode(bench_text())[:600]
    exact = perplexity(exact_planner(published, 2048).engine, tokens, 512)
    for step in (32, 512):
        assert perplexity(planner.engine, tokens, step) < 1.05 * exact
