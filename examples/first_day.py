"""What you will see: an agent is told two things, watches a real clip, is killed with SIGKILL in the middle, wakes,
goes on where it stopped, and answers four questions with time, key frame and reason; one answer is rightly
"I don't know". At the end its memory is verified, replayed, and drawn.

    perdure weights fetch && python -P -m perdure.examples.first_day
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.agent import Agent, default_parts
from perdure.agent.defaults import DEFAULT_PLANNER
from perdure.agent.inspector import export_page
from perdure.memory import Encoders
from perdure.memory.replay import replay
from perdure.records import Answer
from perdure.runtime import locate
from rich.console import Console
from rich.markup import escape

TOLD = ("The spare key is in the blue tin on the shelf.", "The red bike belongs to Anna.")
QUESTIONS = (
    "Where is the spare key?",
    "Who owns the red bike?",
    "When did you first see a bike?",
    "What is the code of the front door?",
)
"""The last one was never told and cannot be seen."""
KILL_AFTER_EVENTS = 1


@dataclass(frozen=True, slots=True)
class Killed:
    """What the watching process had acknowledged when it was killed."""

    events: int
    exit_code: int


def run(folder: Path, *, video: str | None, planner: str | None, console: Console) -> dict[str, Any]:
    """Live the first day in ``folder`` (its old content is removed); returns what ``--json`` writes."""
    began = time.monotonic()
    clip = video or str(locate("bikes"))
    home = folder / "agent.perdure"
    if home.exists():
        shutil.rmtree(home)
    folder.mkdir(parents=True, exist_ok=True)

    console.rule("told")
    with Agent.open(home) as agent:
        for sentence in TOLD:
            console.print(f"record {agent.tell(sentence).seq}: {sentence}")

    console.rule("watching, until it is killed")
    killed = _watch_and_kill(clip, home, console)
    console.print(f"killed with SIGKILL after {killed.events} acknowledged events (exit code {killed.exit_code})")

    console.rule("awake again")
    console.print("loading the models ...")
    parts = default_parts(planner=planner) if planner else default_parts(planner=None)
    with Agent.open(home, parts=parts) as agent:
        kept = sum(1 for _ in agent.memory.journal.read(kinds=["event"]))
        outage = agent.memory.outages()[-1]
        lost = (outage.interval.end or agent.memory.now()) - (outage.interval.start or agent.memory.now())
        console.print(f"{kept} events kept; it knows that it was dead for {lost.total_seconds():.1f} s")
        report = agent.watch(clip)
        console.print(f"went on at frame {report.resumed_from}: {report.events} more events")
        console.rule("asked")
        answers = [_ask(agent, question, folder, console) for question in QUESTIONS]
        problems = agent.memory.check()
        page = folder / "memory.html"
        export_page(agent.memory, page)
    relived = replay(home, encoders=Encoders(text=parts.text_encoder, picture_text=parts.image_encoder))
    identical = all(row.equal for row in relived.rows)

    console.rule("kept")
    console.print(f"verify: {problems or 'all well'}")
    console.print(f"replay: {relived.records} records give {'identical' if identical else 'DIFFERENT'} projections")
    console.print(f"the picture of its memory: {page}")
    console.print(f"{time.monotonic() - began:.0f} s in all")
    return {
        "bench": "first_day",
        "acknowledged_before_kill": killed.events,
        "kept_after_kill": kept,
        "answers": [
            {"question": q, "text": a.text, "evidence": len(a.evidence)}
            for q, a in zip(QUESTIONS, answers, strict=True)
        ],
        "problems": len(problems),
        "replay_identical": identical,
        "seconds": round(time.monotonic() - began, 1),
    }


def _watch_and_kill(clip: str, home: Path, console: Console) -> Killed:
    """Watch in a process of its own, and kill it when it has acknowledged its first events."""
    command = [sys.executable, "-P", "-m", "perdure", "watch", clip, "--agent", str(home)]
    events = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            console.print(escape(line.rstrip()))
            events += 1
            if events == KILL_AFTER_EVENTS:
                child.send_signal(signal.SIGKILL)
                break
        child.wait()
    return Killed(events, child.returncode)


def _ask(agent: Agent, question: str, folder: Path, console: Console) -> Answer:
    answer = agent.ask(question)
    console.print(f"\n[bold]{question}[/]\n  {escape(answer.text)}")
    console.print(f"  because: {escape(answer.reason)}")
    for item in answer.evidence[:2]:
        console.print(f"  record {item.seq}, {item.time:%Y-%m-%d %H:%M:%S}Z: {escape(item.text)}")
        if item.frame is not None:
            path = folder / f"evidence-{item.seq}.jpg"
            path.write_bytes(agent.memory.read_blob(item.frame))
            console.print(f"  key frame: {path}")
    return answer


def main() -> None:
    """The command; the weights must be here (`perdure weights fetch`)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("demo-output"))
    parser.add_argument("--video", help="another video than the packaged clip")
    parser.add_argument("--planner", default=DEFAULT_PLANNER, help="or none")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    planner = None if chosen.planner == "none" else chosen.planner
    found = run(chosen.folder, video=chosen.video, planner=planner, console=Console(highlight=False, soft_wrap=True))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
