"""Choosing a tool for a request in words: the planner proposes, a grammar holds it to the tools that exist.

Knows prompts and schemas; it neither acts nor touches the body. The call is journaled like every model call.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..memory import Memory
from ..memory.journal import canonical
from ..records import Record
from .loop import Call
from .tools import Tool

if TYPE_CHECKING:
    from ..runtime import Planner

_NOTHING = "nothing"


def choose_call(
    memory: Memory, planner: Planner, tools: Mapping[str, Tool], told: Record, cancel: threading.Event
) -> Call | None:
    """The tool call for what ``told`` asks, or None: no tool fits, the planner was cancelled or ran out of tokens."""
    messages = _prompt(tools, str(told.payload["text"]))
    done = planner.chat(messages, schema=call_schema(tools), max_tokens=160, cancel=cancel)
    chosen: dict[str, Any] = json.loads(done.text) if done.stopped == "end" else {"tool": _NOTHING}
    call = None if chosen["tool"] == _NOTHING else Call(chosen["tool"], chosen["arguments"], told.seq)
    with memory.step() as step:
        step.note(
            "model_call",
            {
                "purpose": "deliberation",
                "about": told.seq,
                "model": planner.model_hash,
                "prompt_sha256": hashlib.sha256(canonical({"messages": messages}).encode()).hexdigest(),
                "prompt_tokens": done.prompt_tokens,
                "sampling": dict(done.sampling),
                "output": done.text,
                "stopped": done.stopped,
            },
        )
    return call


def call_schema(tools: Mapping[str, Tool]) -> dict[str, Any]:
    """JSON schema of one call of one of ``tools``, or of doing nothing."""
    choices: list[dict[str, Any]] = [
        _choice(_NOTHING, {"type": "object", "properties": {}, "additionalProperties": False})
    ]
    choices += [_choice(name, tool.schema()) for name, tool in tools.items()]
    return {"anyOf": choices}


def _choice(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"tool": {"const": name}, "arguments": arguments},
        "required": ["tool", "arguments"],
        "additionalProperties": False,
    }


def _prompt(tools: Mapping[str, Tool], text: str) -> list[dict[str, str]]:
    lines = [f"- {name}({', '.join(tool.arguments.model_fields)}): {tool.description}" for name, tool in tools.items()]
    system = (
        "You choose one tool for a request. Answer with JSON: the tool and its arguments. "
        f'Use "{_NOTHING}" if no tool fits.\nTools:\n' + "\n".join(lines)
    )
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]
