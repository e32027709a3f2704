"""Tools: what an agent can do, with the effect that each has on the world.

`tool` marks a method of an `Agent`; calling it goes through the ledger (`ledger.py`), so an act is durable as an intent
before it happens and as an outcome after. This module knows signatures and effects, not when to act.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ..errors import BadInput
from ..records import Effect, Record

if TYPE_CHECKING:
    from .agent import Agent


@dataclass(frozen=True)
class Tool:
    """One thing that an agent can do. As a class attribute it is a method whose calls go through the ledger."""

    function: Callable[..., Any]
    effect: Effect
    confirm: bool
    timeout_s: float | None
    recover: Callable[..., Any] | None
    arguments: type[BaseModel] = field(repr=False)

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def description(self) -> str:
        return inspect.cleandoc(self.function.__doc__ or self.name.replace("_", " ")).splitlines()[0]

    @property
    def is_generator(self) -> bool:
        """True if it yields body actions and receives observations, one a step."""
        return inspect.isgeneratorfunction(self.function)

    def schema(self) -> dict[str, Any]:
        """JSON schema of the arguments."""
        return self.arguments.model_json_schema()

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, converted to their annotated types.

        Raises:
            BadInput: one is missing, unknown or of the wrong type.
        """
        try:
            checked = self.arguments.model_validate(dict(arguments))
        except ValidationError as error:
            details = "; ".join(f"{'.'.join(map(str, e['loc'])) or self.name}: {e['msg']}" for e in error.errors())
            raise BadInput(f"tool {self.name!r} expects {_signature(self.function)}; {details}") from error
        return {name: getattr(checked, name) for name in type(checked).model_fields}

    @overload
    def __get__(self, agent: None, owner: type) -> Tool: ...
    @overload
    def __get__(self, agent: Agent, owner: type) -> BoundTool: ...
    def __get__(self, agent: Agent | None, owner: type) -> Tool | BoundTool:
        return self if agent is None else BoundTool(self, agent)


@dataclass(frozen=True)
class BoundTool:
    """A tool of one agent; call it as the method that it is."""

    tool: Tool
    agent: Agent

    def __call__(self, *args: Any, cause: Record | int | None = None, **kwargs: Any) -> Any:
        """Act, through the ledger.

        Args:
            args: of the tool.
            cause: the record that asked for it (what `Agent.tell` returned); an irreversible tool needs
                one by the owner.
            kwargs: of the tool.
        """
        try:
            bound = inspect.signature(self.tool.function).bind(self.agent, *args, **kwargs)
        except TypeError as error:
            raise BadInput(f"tool {self.tool.name!r} expects {_signature(self.tool.function)}; {error}") from error
        arguments = dict(list(bound.arguments.items())[1:])
        return self.agent.act(self.tool.name, arguments, cause=cause)


def tool(
    *,
    effect: Literal["none", "reversible", "irreversible"],
    confirm: bool = False,
    timeout_s: float | None = None,
    recover: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., Any]], Tool]:
    """Mark a method of an `Agent` as a tool.

    Args:
        effect: ``none`` (looking), ``reversible`` (can be undone) or ``irreversible`` (needs a cause by the owner).
        confirm: ask `Agent.confirm` first.
        timeout_s: seconds that it may take, more than 0; None for no limit. For a generator this is world time.
        recover: called as ``recover(agent, **arguments)`` on waking if the agent died between intent and outcome. It
            looks at the world and returns an `OutcomeStatus`. Without it such an act stays UNKNOWN. No act is repeated.

    Raises:
        BadInput: an argument has no type, or the effect is none of the three.
    """
    if timeout_s is not None and timeout_s <= 0:
        raise BadInput(f"expected timeout_s above 0, got {timeout_s}")
    try:
        kind = Effect(effect)
    except ValueError as error:
        raise BadInput(f"expected effect 'none', 'reversible' or 'irreversible', got {effect!r}") from error

    def mark(function: Callable[..., Any]) -> Tool:
        return Tool(function, kind, confirm, timeout_s, recover, _arguments_model(function))

    return mark


def tools_of(cls: type) -> dict[str, Tool]:
    """The tools of an agent class by name, inherited ones too."""
    return {name: value for name, value in inspect.getmembers(cls) if isinstance(value, Tool)}


def _arguments_model(function: Callable[..., Any]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    hints = inspect.signature(function, eval_str=True).parameters
    for parameter in list(hints.values())[1:]:
        if parameter.annotation is parameter.empty or parameter.kind in {
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        }:
            raise BadInput(
                f"tool {function.__name__!r}: argument {parameter.name!r} needs a type (`{parameter.name}: str`), and "
                "*args and **kwargs cannot be used"
            )
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (parameter.annotation, default)
    name = function.__name__
    return create_model(name, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=False), **fields)


def _signature(function: Callable[..., Any]) -> str:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return f"({', '.join(str(p).replace(chr(39), '') for p in parameters)})"
