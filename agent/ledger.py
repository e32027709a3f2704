"""The ledger of acts: intent durable before the act, outcome durable after, nothing ever blindly repeated.

It knows intents and outcomes; it does not choose what to do. If the agent dies in between, `settle` finds the intent
without an outcome on waking and asks the tool's ``recover`` what became of it.
"""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import BadInput, PerdureError
from ..memory import Memory
from ..memory.journal import canonical
from ..records import Effect, OutcomeStatus, Record, Trust
from .tools import Tool

if TYPE_CHECKING:
    from .agent import Agent


class NotAllowed(PerdureError):
    """A tool may not be used: no cause by the owner, or not confirmed. Nothing was done."""


class ActFailed(PerdureError):
    """A tool raised, or took too long. The outcome is in the journal."""


def act(agent: Agent, tool: Tool, arguments: Mapping[str, Any], cause: Record | int | None) -> Any:
    """Do one act and return its result.

    Raises:
        BadInput: the arguments do not fit.
        NotAllowed: an irreversible tool without a cause by the owner, or not confirmed.
        ActFailed: the tool raised or timed out.
    """
    if tool.is_generator:
        raise BadInput(
            f"tool {tool.name!r} moves the body step by step: it runs inside Agent.live, not by a plain call"
        )
    intent, checked = begin(agent, tool, arguments, cause)
    try:
        result = _within(tool, agent, checked)
    except TimeoutError as error:
        end(agent.memory, intent, OutcomeStatus.UNKNOWN, error=str(error))
        raise ActFailed(f"{tool.name}: {error}; it may still be going on, look before you act again") from error
    except Exception as error:
        end(agent.memory, intent, OutcomeStatus.FAILED, error=f"{type(error).__name__}: {error}")
        raise ActFailed(f"{tool.name} failed: {type(error).__name__}: {error}") from error
    end(agent.memory, intent, OutcomeStatus.DONE, result=result)
    return result


def begin(
    agent: Agent, tool: Tool, arguments: Mapping[str, Any], cause: Record | int | None
) -> tuple[str, dict[str, Any]]:
    """Check that ``tool`` may be used, and make the intent durable. Returns its id and the checked arguments."""
    checked = tool.check(arguments)
    seq = cause.seq if isinstance(cause, Record) else cause
    if tool.effect is Effect.IRREVERSIBLE:
        _require_owner(agent.memory, tool, seq)
    if tool.confirm and not agent.confirm(tool, checked):
        raise NotAllowed(f"{tool.name} was not confirmed; nothing was done")
    intent = uuid.uuid4().hex
    with agent.memory.step() as step:
        step.intent(intent, tool.name, tool.arguments(**checked).model_dump(mode="json"), tool.effect, seq)
    return intent, checked


def end(memory: Memory, intent: str, status: OutcomeStatus, *, result: Any = None, error: str | None = None) -> None:
    """Make the outcome durable. A result without a JSON form is kept as its ``repr``."""
    with memory.step() as step:
        step.outcome(intent, status, result=storable(result), error=error)


def settle(agent: Agent, tools: Mapping[str, Tool], *, body: bool) -> list[Record]:
    """Give every intent without an outcome one, by its tool's ``recover``; UNKNOWN where that cannot tell.

    Args:
        agent: that has woken.
        tools: its tools.
        body: whether there is a world to look at. Acts of the body stay open until there is.

    Returns the intents that were open and now have an outcome.
    """
    ended: set[str] = set()
    open_intents: list[Record] = []
    for record in agent.memory.journal.read(kinds=["intent", "outcome", "settled"], newest_first=True):
        if record.kind == "settled":  # older ones were settled then: waking costs what has happened since
            break
        if record.kind == "outcome":
            ended.add(record.payload["intent"])
        elif record.payload["intent"] not in ended:
            open_intents.append(record)
    waiting = [record for record in open_intents if not body and _moves_body(tools, record)]
    open_intents = [record for record in open_intents if record not in waiting]
    if body and not open_intents:
        return []
    for record in reversed(open_intents):
        status, error = _recovered(agent, tools.get(record.payload["tool"]), record)
        with agent.memory.step() as step:
            step.outcome(record.payload["intent"], status, error=error, how="recover")
    if not waiting:
        with agent.memory.step() as step:
            step.note("settled", {"open": len(open_intents)})
    return open_intents[::-1]


def _moves_body(tools: Mapping[str, Tool], record: Record) -> bool:
    tool = tools.get(record.payload["tool"])
    return tool is not None and tool.is_generator


def run_generator(tool: Tool, agent: Agent, arguments: Mapping[str, Any]) -> Generator[Any, Any, Any]:
    """The running body of a generator tool: yields actions, is sent observations, returns the result."""
    running: Generator[Any, Any, Any] = tool.function(agent, **arguments)
    return running


def _recovered(agent: Agent, tool: Tool | None, record: Record) -> tuple[OutcomeStatus, str | None]:
    name = record.payload["tool"]
    if tool is None:
        return OutcomeStatus.UNKNOWN, f"this agent no longer has a tool {name!r}"
    if tool.recover is None:
        return OutcomeStatus.UNKNOWN, "the agent died while it acted, and the tool has no recover"
    try:
        status = tool.recover(agent, **tool.check(record.payload["arguments"]))
        return OutcomeStatus(status), None
    except Exception as error:  # noqa: BLE001 - an agent must wake even if its recover does not work
        return OutcomeStatus.UNKNOWN, f"recover failed: {type(error).__name__}: {error}"


def _require_owner(memory: Memory, tool: Tool, seq: int | None) -> None:
    record = memory.journal.get([seq]).get(seq) if seq is not None else None
    if record is None or record.kind != "told" or record.trust is not Trust.OWNER:
        came = "no cause" if record is None else f"a {record.kind!r} with trust {record.trust.value!r}"
        raise NotAllowed(
            f"{tool.name} is irreversible: expected a cause that the owner gave, got {came}; "
            "pass cause=agent.tell('...') with the owner's words"
        )


def _within(tool: Tool, agent: Agent, arguments: Mapping[str, Any]) -> Any:
    if tool.timeout_s is None:
        return tool.function(agent, **arguments)
    box: queue.Queue[tuple[bool, Any]] = queue.Queue()

    def run() -> None:
        try:
            box.put((True, tool.function(agent, **arguments)))
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread
            box.put((False, error))

    # A daemon: a tool that hangs must not keep the process alive.
    threading.Thread(target=run, name=f"tool-{tool.name}", daemon=True).start()
    try:
        fine, value = box.get(timeout=tool.timeout_s)
    except queue.Empty:
        raise TimeoutError(f"took longer than {tool.timeout_s} s") from None
    if not fine:
        raise value
    return value


def storable(result: Any) -> Any:
    try:
        canonical({"result": result})
    except BadInput:
        return repr(result)
    return result
