"""The examples that need no weights run as they are; the first day runs with the real weights (marked)."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import perdure
import pytest

ROOT = Path(perdure.__file__).resolve().parent


def _run(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", str(ROOT / "examples" / script), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_the_doorkeeper_posts_its_letter_once_although_it_is_killed(tmp_path: Path) -> None:
    first = _run("doorkeeper.py", "keeper.perdure", cwd=tmp_path)
    assert first.returncode == -signal.SIGKILL
    second = _run("doorkeeper.py", "keeper.perdure", cwd=tmp_path)
    assert second.stdout == "already settled: done, posted nothing\n", second.stderr
    assert (tmp_path / "mailbox" / "letter.txt").read_text() == "Dear Anna\n"


@pytest.mark.weights
@pytest.mark.slow
def test_the_first_day_answers_rightly_from_another_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "perdure.examples.first_day", "--folder", "out", "--json", "day.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    day = json.loads((tmp_path / "day.json").read_text())
    key, bike, seen, code = day["answers"]
    assert "blue tin" in key["text"]
    assert "Anna" in bike["text"]
    assert "0:05" in seen["text"]
    assert code["text"] == "I don't know."
    assert [a["evidence"] > 0 for a in day["answers"]] == [True, True, True, False]
    assert day["replay_identical"]
    assert day["problems"] == 0
    assert day["kept_after_kill"] >= day["acknowledged_before_kill"] >= 1
    assert (tmp_path / "out" / "memory.html").stat().st_size > 10_000
