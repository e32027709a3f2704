"""A small agent with one tool of each kind, and a world outside that remembers what was done to it."""

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from perdure import Agent, tool
from perdure.records import OutcomeStatus

WORLD: list[str] = []


@dataclass
class Notes:
    visited: list[str] = field(default_factory=list)
    count: int = 0


class Butler(Agent):
    State = Notes

    def was_it_sold(self, thing: str) -> OutcomeStatus:
        return OutcomeStatus.DONE if f"sold {thing}" in WORLD else OutcomeStatus.FAILED

    @tool(effect="none")
    def look(self, place: str, times: int = 1) -> str:
        """Look at a place."""
        WORLD.append(f"looked at {place}")
        return f"{place} " * times

    @tool(effect="irreversible", recover=was_it_sold)
    def sell(self, thing: str) -> str:
        """Sell a thing."""
        WORLD.append(f"sold {thing}")
        return "money"

    @tool(effect="reversible", timeout_s=0.05)
    def dawdle(self) -> None:
        import time

        time.sleep(1.0)

    @tool(effect="reversible")
    def stumble(self) -> None:
        raise RuntimeError("a step too many")

    @tool(effect="reversible", confirm=True)
    def unlock(self) -> str:
        return "open"

    @tool(effect="reversible")
    def walk(self, steps: int) -> Generator[int, Any, int]:
        """Walk so many steps to the right."""
        seen = 0
        for _ in range(steps):
            observation = yield 2
            seen += observation is not None
        return seen


@pytest.fixture
def world() -> list[str]:
    WORLD.clear()
    return WORLD


@pytest.fixture
def butler(tmp_path: Path, world: list[str]) -> Generator[Butler, None, None]:
    with Butler.open(tmp_path / "butler.perdure") as agent:
        yield agent
