"""An agent with a list of irreversible things to do, each exactly once, however often it is killed on the way.

What has been done it knows only from its own ledger; what a kill left open, `recover` finds out by looking outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import life
from perdure import Agent, tool
from perdure.agent import Parts
from perdure.records import OutcomeStatus

BUTTONS = ("red", "green", "blue")


@dataclass
class Count:
    pressed: int = 0


class Presser(Agent):
    """Presses buttons."""

    State = Count
    outside: life.World

    def was_pressed(self, what: str) -> OutcomeStatus:
        return OutcomeStatus.DONE if what in self.outside.acts() else OutcomeStatus.FAILED

    @tool(effect="irreversible", recover=was_pressed)
    def press(self, what: str) -> str:
        """Press a button; it cannot be undone."""
        self.outside.act(what)
        return "pressed"


def live(root: Path, world: life.World, report: Callable[[str], None], generation: int) -> None:
    """Press every button that the ledger does not call done."""
    Presser.outside = world
    with Presser.open(root, parts=Parts(text_encoder=life.HashEncoder()), clock=life.TickClock(generation)) as agent:
        life.acknowledge(report, *agent.memory.journal.read(newest_first=True, limit=1))
        done = ledger(agent)
        for button in BUTTONS:
            if done.get(button) is OutcomeStatus.DONE:
                continue
            told = agent.tell(f"Please press the {button} button.")
            life.acknowledge(report, told)
            agent.press(button, cause=told)
            agent.state.pressed += 1
            agent.save_state()
            report(f"pressed {button}")
            agent.ask(f"Who pressed the {button} button?")


def ledger(agent: Agent) -> dict[str, OutcomeStatus]:
    """What became of each button, by the last outcome."""
    asked: dict[str, str] = {}
    found = {}
    for record in agent.memory.journal.read(kinds=["intent", "outcome"]):
        if record.kind == "intent":
            asked[record.payload["intent"]] = record.payload["arguments"]["what"]
        else:
            found[asked[record.payload["intent"]]] = OutcomeStatus(record.payload["status"])
    return found


def inspect(root: Path, world: life.World, reports: list[str], generation: int) -> dict[str, Any]:
    """After a last life without a fault: every button was pressed once, and the memory is as it must be."""
    result = life.inspect(root, world, reports, generation)
    acts = world.acts()
    wrong = [f"{button} was pressed {acts.count(button)} times" for button in BUTTONS if acts.count(button) != 1]
    return result | {"wrong": result["wrong"] + wrong}
