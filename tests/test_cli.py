"""The commands as a user types them, in this process, without models."""

import json
from pathlib import Path

import cv2
import networkx as nx
import numpy as np
import pytest
from perdure.cli import main

NO_MODELS = ("--planner", "none", "--encoder", "none", "--text-encoder", "none")


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    printed = capsys.readouterr()
    return int(stop.value.code or 0), printed.out, printed.err


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    path = str(tmp_path / "agent.perdure")
    assert _run(capsys, "tell", path, "The spare key is in the blue tin.")[0] == 0
    return path


def test_tell_says_what_it_understood(tmp_path, capsys) -> None:
    code, out, _ = _run(capsys, "tell", str(tmp_path / "a"), "Anna likes tea.")
    assert code == 0
    assert "anna | likes | tea" in out


def test_ask_prints_answer_and_evidence_and_writes_json(home, tmp_path, capsys) -> None:
    path = tmp_path / "answer.json"
    code, out, _ = _run(capsys, "ask", home, "Where is the spare key?", *NO_MODELS, "--json", str(path))
    assert code == 0
    assert "in the blue tin" in out
    answer = json.loads(path.read_text())
    assert answer["value"] == "in the blue tin"
    assert answer["evidence"][0]["seq"] == 3


def test_ask_as_of_a_time_before_it_was_told_does_not_know(home, capsys) -> None:
    _, out, _ = _run(capsys, "ask", home, "Where is the spare key?", *NO_MODELS, "--as-of", "2020-01-01")
    assert "I don't know" in out


def test_recall_says_why(home, capsys) -> None:
    code, out, _ = _run(capsys, "recall", home, "key", "--text-encoder", "none", "--encoder", "none")
    assert code == 0
    assert "why: words" in out


def test_verify_rebuild_and_replay_agree(home, capsys) -> None:
    assert _run(capsys, "verify", home)[0] == 0
    assert _run(capsys, "rebuild", home, "--text-encoder", "none")[0] == 0
    code, out, _ = _run(capsys, "replay", home, "--text-encoder", "none")
    assert code == 0
    assert "differs" not in out


def test_inspect_writes_a_page_and_a_graph(home, tmp_path, capsys) -> None:
    assert "told" in _run(capsys, "inspect", home)[1]
    page, graph = tmp_path / "graph.html", tmp_path / "graph.graphml"
    assert _run(capsys, "inspect", home, "--export", str(page))[0] == 0
    assert "blue tin" in page.read_text("utf-8")
    assert _run(capsys, "inspect", home, "--export", str(graph))[0] == 0
    assert nx.read_graphml(graph).number_of_nodes() >= 2
    code, _, err = _run(capsys, "inspect", home, "--export", str(tmp_path / "graph.pdf"))
    assert code == 1
    assert ".graphml" in err


def test_watch_then_again(tmp_path, capsys) -> None:
    video = str(tmp_path / "v.avi")
    writer = cv2.VideoWriter(video, cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for n in range(20):
        writer.write(np.full((48, 64, 3), n * 10, np.uint8))
    writer.release()
    watch = ("watch", video, "--agent", str(tmp_path / "a"), "--encoder", "none", "--start", "2026-11-02T08:00:00Z")
    code, out, _ = _run(capsys, *watch)
    assert code == 0
    assert "20 frames" in out
    assert "already" in _run(capsys, *watch)[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ask", "nowhere.perdure", "Where?", *NO_MODELS), "no AGENT.toml"),
        (("verify", "nowhere.perdure"), "no AGENT.toml"),
        (("watch", "nothing.mp4", "--agent", "x.perdure", "--encoder", "none"), "nothing.mp4"),
        (("weights", "fetch", "no-such-weights"), "no-such-weights"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(tmp_path, monkeypatch, capsys, arguments, said) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = _run(capsys, *arguments)
    assert code == 1
    assert said in err
    assert "Traceback" not in err


def test_a_time_that_is_none_is_refused(home, capsys) -> None:
    code, _, err = _run(capsys, "ask", home, "Where?", *NO_MODELS, "--as-of", "yesterdayish")
    assert code == 1
    assert "2026-11-23T14:00:00+01:00" in err
