"""The benchmark of caches: its rows, on a model that is too small for its figures to mean anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from perdure.errors import BadInput
from perdure.runtime.bench_cache import bench_cache
from perdure.runtime.tiny import TinyModel

ROW = {"bench", "case", "metric", "value", "unit", "spread", "peer", "peer_value", "ratio"}


def test_a_report_has_every_cache_and_ratios_of_what_was_measured(tiny: TinyModel, tmp_path: Path) -> None:
    report = bench_cache(tiny.folder, tokens=512, ratio=8, repetitions=2, new_tokens=4, cache_dir=tmp_path)
    assert set(report) >= {"machine", "commit", "command", "rows"}
    assert all(set(row) == ROW for row in report["rows"])
    rates = [row for row in report["rows"] if row["metric"] == "decode"]
    assert {row["case"].split("tokens, ")[-1] for row in rates} == {
        "whole", "empty", "compacted 8x, plain", "compacted 8x, int8", "compacted 8x, int4"
    }  # fmt: skip
    assert all(row["value"] > 1 for row in rates)
    for format, least in (("plain", 6.5), ("int8", 9), ("int4", 14)):
        (row,) = [
            r
            for r in report["rows"]
            if r["peer"] == "whole" and r["metric"].startswith("bytes") and format in r["case"]
        ]
        assert row["ratio"] == pytest.approx(row["peer_value"] / row["value"])
        assert row["ratio"] > least, format


def test_counts_out_of_range_are_refused(tiny: TinyModel) -> None:
    with pytest.raises(BadInput, match="tokens >= 256"):
        bench_cache(tiny.folder, tokens=10)
