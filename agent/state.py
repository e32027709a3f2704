"""An agent's own state: a typed dataclass that survives a crash.

It is journaled whole whenever it has changed (``state`` records); on waking the newest one is read back.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..errors import BadInput
from ..memory import Memory


@dataclasses.dataclass
class NoState:
    """The state of an agent that declares none."""


class StateKeeper:
    """Loads the state of one agent and saves it when it has changed."""

    def __init__(self, memory: Memory, kind: type) -> None:
        if not dataclasses.is_dataclass(kind):
            raise BadInput(f"expected State to be a dataclass, got {kind!r}; decorate it with @dataclass")
        self._memory = memory
        self._adapter: TypeAdapter[Any] = TypeAdapter(kind)
        record = memory.journal.newest("state")
        try:
            self.state: Any = kind() if record is None else self._adapter.validate_python(record.payload["values"])
        except TypeError as error:
            raise BadInput(f"{kind.__name__} needs a default for every field: {error}") from error
        except ValidationError as error:
            raise BadInput(
                f"the saved state does not fit {kind.__name__}: {error.errors()[0]['msg']}; "
                "give new fields a default and keep the types of old ones"
            ) from error
        self._saved = self._values()

    def save(self, state: Any) -> bool:
        """Make ``state`` durable if it has changed since the last time; returns whether it had."""
        self.state = state
        values = self._values()
        if values == self._saved:
            return False
        with self._memory.step() as step:
            step.note("state", {"values": values})
        self._saved = values
        return True

    def _values(self) -> Any:
        return self._adapter.dump_python(self.state, mode="json")
