"""A life of a working memory in a process of its own: told things, asked now and then; may be killed at any instant.

    python working_life.py MODEL DIR CACHE LINES

It goes on where the journal says it stopped, and prints one line for each line of its story that is behind it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from perdure.memory import Memory
from perdure.memory.working.projection import WorkingMemory
from perdure.memory.working.stream import Policy
from perdure.runtime.planner import load_planner

POLICY = Policy(
    budget_slots=480,
    read_tokens=24,
    chunk_tokens=48,
    span_slots=12,
    branch_tokens=64,
    example_queries=128,
    horizon=1024,
)
CUE = "The box number 3 is in room"


def sentence(number: int) -> str:
    """Line ``number`` of the story."""
    return f"The box number {number} is in room {number * 7 % 23}, next to the lamp."


def live(model: Path, root: Path, cache: Path, lines: int, report: bool = False) -> None:
    """Tell lines until the journal has so many; after every 9th comes a question, after every 5th a snapshot."""
    torch.set_num_threads(1)
    planner = load_planner(model, cache_dir=cache)
    with Memory.open(root) as memory:
        working = WorkingMemory(memory, planner, POLICY)  # type: ignore[arg-type]
        done = sum(record.kind == "told" for record in memory.journal.read(kinds=["told"]))
        asked = sum(record.payload.get("op") == "ask" for record in memory.journal.read(kinds=["working"]))
        working.advance()
        for number in range(done, lines + 1):
            if asked < number // 9:  # also one that a kill cut off
                working.ask(CUE, max_tokens=4)
                asked += 1
            if number == lines:
                break
            with memory.step() as step:
                step.told(sentence(number))
            working.advance()
            if number % 5 == 4:
                working.snapshot()
            if report:
                sys.stdout.write(f"{number}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    live(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), report=True)
