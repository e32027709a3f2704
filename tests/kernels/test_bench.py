"""The one benchmark command of the kernels: what it finds, prints and writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from perdure.kernels import bench
from perdure.kernels.timing import row

ROOM = Path(bench.__file__).parent


def some_rows(device: torch.device, quick: bool) -> Iterator[dict[str, Any]]:
    yield row("some", f"on {device} {'quick' if quick else 'long'}", "rate", 2.0, "TB/s", peer="torch", peer_value=1.0)


def broken_rows(device: torch.device, quick: bool) -> Iterator[dict[str, Any]]:
    yield from some_rows(device, quick)
    raise RuntimeError("a kernel is wrong")


def test_every_folder_with_a_benchmark_is_found() -> None:
    assert bench.operations() == sorted(path.parent.name for path in ROOM.glob("*/bench.py"))
    for name in bench.operations():
        assert callable(bench._rows_of(name))


def test_the_object_is_that_of_the_design(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "_rows_of", lambda name: some_rows)
    path = tmp_path / "kernels.json"
    assert bench.main(["--device", "cpu", "--op", "machine", "--quick", "--json", str(path), "--commit", "abc"]) == 0
    found = json.loads(path.read_text("utf-8"))
    assert found["machine"] == f"cpu{torch.get_num_threads()}"
    assert found["commit"] == "abc"
    assert found["command"].endswith(f"--op machine --quick --json {path} --commit abc")
    assert found["torch"] == torch.__version__
    assert found["rows"] == list(some_rows(torch.device("cpu"), True))
    assert "on cpu quick" in capsys.readouterr().out


def test_an_operation_that_fails_is_named_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = {"machine": broken_rows, bench.operations()[0]: some_rows}
    monkeypatch.setattr(bench, "_rows_of", both.__getitem__)
    path = tmp_path / "kernels.json"
    arguments = ["--device", "cpu", "--json", str(path)]
    for name in both:
        arguments += ["--op", name]
    assert bench.main(arguments) == 1
    found = json.loads(path.read_text("utf-8"))
    assert found["failed"] == ["machine"]
    assert len(found["rows"]) == 2
    assert "a kernel is wrong" in capsys.readouterr().out
