"""The dispatcher and the timing of benchmarks."""

from __future__ import annotations

import logging
import time

import pytest
import torch
from perdure.errors import BadInput
from perdure.kernels import dispatch
from perdure.kernels.timing import cpu_time_s, row

CPU = torch.device("cpu")


def test_the_first_able_candidate_is_asked_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    def able(device: torch.device) -> bool:
        asked.append(device)
        return True

    with caplog.at_level(logging.INFO, "perdure"):
        names = [dispatch.choose("test once", CPU, {"fast": lambda d: False, "plain": able}) for _ in range(3)]
    assert names == ["plain"] * 3
    assert asked == [CPU]
    assert [r.getMessage() for r in caplog.records] == ["kernels: test once on cpu uses plain, not fast"]


def test_an_override_holds_inside_and_nests() -> None:
    candidates = {"fast": lambda d: False, "plain": lambda d: True}
    with dispatch.override("test nest", "fast"):
        assert dispatch.choose("test nest", CPU, candidates) == "fast"
        with dispatch.override("test nest", "plain"):
            assert dispatch.choose("test nest", CPU, candidates) == "plain"
        assert dispatch.choose("test nest", CPU, candidates) == "fast"
    assert dispatch.choose("test nest", CPU, candidates) == "plain"


def test_what_cannot_be_had_is_refused() -> None:
    with pytest.raises(BadInput, match="none of fast is able"):
        dispatch.choose("test refuse", CPU, {"fast": lambda d: False})
    with dispatch.override("test refuse", "nonsense"), pytest.raises(BadInput, match="'nonsense' is none of them"):
        dispatch.choose("test refuse", CPU, {"fast": lambda d: True})


def test_a_cpu_has_no_capability() -> None:
    assert dispatch.capability(CPU) is None


def test_a_time_is_that_of_one_call() -> None:
    timing = cpu_time_s(lambda: time.sleep(0.002), repetitions=5)
    assert timing.median_s >= 0.002
    assert timing.spread_s >= 0


@pytest.mark.parametrize(("larger_is_better", "ratio"), [(True, 2.0), (False, 0.5)])
def test_a_ratio_above_one_means_ahead(larger_is_better: bool, ratio: float) -> None:
    found = row("op", "case", "rate", 4.0, "TB/s", peer="torch", peer_value=2.0, larger_is_better=larger_is_better)
    assert found["ratio"] == ratio
    assert row("op", "case", "rate", 4.0, "TB/s")["ratio"] is None
