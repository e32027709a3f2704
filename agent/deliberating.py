"""Choosing a tool for a request in words: the planner proposes, a grammar holds it to what exists, foresight chooses.

Knows prompts and schemas; it neither acts nor touches the body. Every model call is journaled, and so is the choice.
"""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from ..memory import Memory
from ..memory.journal import canonical
from ..records import Effect, Record, Trust
from .loop import Call
from .tools import Tool

if TYPE_CHECKING:
    from ..runtime import Planner

_NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Menu:
    """What may be proposed, and how."""

    tools: Mapping[str, Tool]
    options: Callable[[str, str], Sequence[str] | None] = lambda tool, argument: None
    """Values that an argument of a tool can have; None: whatever its type allows; an empty list: it is not offered."""
    examples: Sequence[tuple[str, Call]] = ()
    """Requests with the right call, shown to the planner."""
    put: Callable[[Record], str] = lambda told: str(told.payload["text"])
    """How a request is put to the planner."""


class Proposer(Protocol):
    """Proposes calls for what was told, the likeliest first."""

    def propose(self, told: Record, menu: Menu, cancel: threading.Event) -> list[Call]: ...


class PlannerProposer:
    """Proposals by a language model, all greedy: the call it likes best, then the best with each of the other tools.

    So foresight has something to choose from even where the model is sure and wrong. What cannot be undone is proposed
    only if the model likes it best.
    """

    def __init__(self, memory: Memory, planner: Planner, *, each_tool: bool = False) -> None:
        self._memory = memory
        self._planner = planner
        self._each_tool = each_tool

    def propose(self, told: Record, menu: Menu, cancel: threading.Event) -> list[Call]:
        first = self._ask(told, menu, menu.tools, cancel)
        found = [] if first is None else [first]
        for name, tool in menu.tools.items() if self._each_tool else ():
            if cancel.is_set():
                break
            if (first is None or name != first.tool) and tool.effect is not Effect.IRREVERSIBLE:
                other = self._ask(told, menu, {name: menu.tools[name]}, cancel)
                found += [] if other is None else [other]
        return found

    def _ask(self, told: Record, menu: Menu, tools: Mapping[str, Tool], cancel: threading.Event) -> Call | None:
        """The best call with one of ``tools``; None for doing nothing."""
        messages = _prompt(menu, menu.put(told))
        schema = call_schema(Menu(tools, menu.options), nothing=len(tools) > 1)
        done = self._planner.chat(messages, schema=schema, max_tokens=160, cancel=cancel)
        chosen: dict[str, Any] = json.loads(done.text) if done.stopped == "end" else {"tool": _NOTHING}
        with self._memory.step() as step:
            step.note(
                "model_call",
                {
                    "purpose": "deliberation",
                    "about": told.seq,
                    "model": self._planner.model_hash,
                    "prompt_sha256": hashlib.sha256(canonical({"messages": messages}).encode()).hexdigest(),
                    "prompt_tokens": done.prompt_tokens,
                    "sampling": dict(done.sampling),
                    "output": done.text,
                    "stopped": done.stopped,
                },
            )
        return None if chosen["tool"] == _NOTHING else Call(chosen["tool"], chosen["arguments"], told.seq)


def choose(memory: Memory, told: Record, proposals: Sequence[Call], foresee: Callable[[Call], float]) -> Call | None:
    """The proposal with the best prospects, the earlier one of equals; None if none has any. The choice is journaled.

    Args:
        memory: where the choice is written down.
        told: the request.
        proposals: the likeliest first.
        foresee: how well a call would end, from 0 (it cannot) to 1.
    """
    prospects = [round(foresee(call), 4) for call in proposals]
    best = max(range(len(proposals)), key=lambda i: (prospects[i], -i), default=None)
    chosen = None if best is None or prospects[best] <= 0 else best
    with memory.step() as step:
        step.note(
            "choice",
            {
                "about": told.seq,
                "proposals": [{"tool": c.tool, "arguments": c.arguments} for c in proposals],
                "prospects": prospects,
                "chosen": chosen,
            },
        )
    return None if chosen is None else proposals[chosen]


def call_schema(menu: Menu, *, nothing: bool = True) -> dict[str, Any]:
    """JSON schema of one call of a tool on the menu, or of doing ``nothing``."""
    empty = {"type": "object", "properties": {}, "additionalProperties": False}
    choices = [_choice(_NOTHING, empty)] if nothing else []
    for name, tool in menu.tools.items():
        arguments = copy.deepcopy(tool.schema())
        for argument in list(arguments.get("properties", {})):
            values = menu.options(name, argument)
            if values is not None and not values:
                del arguments["properties"][argument]
            elif values is not None:
                arguments["properties"][argument]["enum"] = list(values)
        choices.append(_choice(name, arguments))
    return {"anyOf": choices}


def menu_for(told: Record, menu: Menu) -> Menu:
    """The menu for a request: what cannot be undone is only for the owner's words."""
    if told.trust is Trust.OWNER:
        return menu
    allowed = {name: tool for name, tool in menu.tools.items() if tool.effect is not Effect.IRREVERSIBLE}
    return replace(menu, tools=allowed)


def _choice(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"tool": {"const": name}, "arguments": arguments},
        "required": ["tool", "arguments"],
        "additionalProperties": False,
    }


def _prompt(menu: Menu, text: str) -> list[dict[str, str]]:
    lines = []
    for name, tool in menu.tools.items():
        offered = [argument for argument in tool.arguments.model_fields if menu.options(name, argument) != []]
        lines.append(f"- {name}({', '.join(offered)}): {tool.description}")
    system = (
        "You choose one tool for a request. Answer with JSON: the tool and its arguments. "
        f'Use "{_NOTHING}" if no tool fits.\nTools:\n' + "\n".join(lines)
    )
    messages = [{"role": "system", "content": system}]
    for request, call in menu.examples:
        answer = json.dumps({"tool": call.tool, "arguments": call.arguments}, separators=(",", ":"))
        messages += [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": text}]
