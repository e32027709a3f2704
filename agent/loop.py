"""The life loop: two clocks, one writer.

The control loop takes one step of the world at a time and always has an action: the running tool's next one, else the
agent's safe action. It never waits for a language model. Deliberation runs beside it on a thread of its own, one at a
time, and is cancelled when the world has moved on. Whatever a step brings (event, words, outcome, changed state) is
one transaction; what time is left in the step goes to consolidation.

In a simulation that shall be the same at every run, a thought takes a fixed number of steps instead (``think_steps``):
the body goes on safely for as long, and the thought is then thought to its end, however long that takes here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from ..clock import WorldClock
from ..errors import BadInput
from ..memory import Step
from ..records import Event, Observation, OutcomeStatus, Trust
from . import ledger
from .body import Body
from .tools import Tool

if TYPE_CHECKING:
    from .agent import Agent


_SIGN_OF_LIFE_S = 10.0


@dataclass(frozen=True, slots=True)
class Call:
    """A decision: which tool, with what, because of which record."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)
    cause: int | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """What deliberation starts from. It must not touch the body."""

    observation: Observation
    request: int | None
    """seq of the oldest request by the owner that has not been taken up, if there is one."""


@dataclass(frozen=True, slots=True)
class Heard:
    """How words that were heard in the world are to be taken."""

    speaker: str = "other"
    trust: Trust = Trust.OTHER
    request: bool = False
    """True if they may ask for something to be done; an irreversible tool needs the owner's words all the same."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How a thought ended."""

    situation: Situation
    call: Call | None
    """None: nothing is to be done, or the thought was cancelled."""
    cancelled: bool


@dataclass(slots=True)
class LifeReport:
    """What a stretch of life was made of."""

    steps: int = 0
    events: int = 0
    decisions: int = 0
    cancelled: int = 0
    late: int = 0
    """Steps that missed their deadline."""
    step_s: list[float] = field(default_factory=list)
    ended: bool = False
    """True if the world ended by itself."""


class Deliberating(Protocol):
    """At most one thought at a time."""

    @property
    def busy(self) -> bool: ...

    def start(self, situation: Situation) -> None: ...

    def cancel(self) -> None:
        """The world has moved on: what is being thought must not be done."""

    def take(self) -> Decision | None:
        """The decision once the thought has ended, else None. Raises whatever the thought raised."""

    def close(self) -> None: ...


class Deliberation:
    """A thought beside the control loop, on a thread of its own; `take` never waits."""

    def __init__(self, think: Callable[[Situation, threading.Event], Call | None]) -> None:
        self._think = think
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="perdure-deliberation")
        self._thought: tuple[Situation, Future[Call | None]] | None = None
        self._cancel = threading.Event()

    @property
    def busy(self) -> bool:
        return self._thought is not None

    def start(self, situation: Situation) -> None:
        assert self._thought is None, "one thought at a time"
        self._cancel = threading.Event()
        self._thought = situation, self._pool.submit(self._think, situation, self._cancel)

    def cancel(self) -> None:
        self._cancel.set()

    def take(self) -> Decision | None:
        if self._thought is None or not self._thought[1].done():
            return None
        (situation, thought), self._thought = self._thought, None
        if self._cancel.is_set():
            return Decision(situation, None, cancelled=True)
        return Decision(situation, thought.result(), cancelled=False)

    def close(self) -> None:
        self._cancel.set()
        self._pool.shutdown()


class TimedDeliberation:
    """A thought that takes ``steps`` steps of the world, so that a life does not depend on how fast the machine is."""

    def __init__(self, think: Callable[[Situation, threading.Event], Call | None], steps: int) -> None:
        if steps < 1:
            raise BadInput(f"expected think_steps of at least 1, got {steps}")
        self._think = think
        self._steps = steps
        self._left = 0
        self._situation: Situation | None = None
        self._cancel = threading.Event()

    @property
    def busy(self) -> bool:
        return self._situation is not None

    def start(self, situation: Situation) -> None:
        assert self._situation is None, "one thought at a time"
        self._cancel = threading.Event()
        self._situation, self._left = situation, self._steps

    def cancel(self) -> None:
        self._cancel.set()

    def take(self) -> Decision | None:
        if self._situation is None:
            return None
        self._left -= 1
        if self._left > 0:
            return None
        situation, self._situation = self._situation, None
        if self._cancel.is_set():
            return Decision(situation, None, cancelled=True)
        return Decision(situation, self._think(situation, self._cancel), cancelled=False)

    def close(self) -> None:
        self._situation = None


class Life:
    """One stretch of living in one body."""

    def __init__(self, agent: Agent, body: Body, *, tick_s: float | None, think_steps: int | None = None) -> None:
        if tick_s is not None and tick_s <= 0:
            raise BadInput(f"expected tick_s above 0, or None for as fast as it goes, got {tick_s}")
        self._agent = agent
        self._body = body
        self._tick_s = tick_s
        self._eyes = agent.open_eyes()
        self._deliberation: Deliberating = (
            Deliberation(agent.deliberate) if think_steps is None else TimedDeliberation(agent.deliberate, think_steps)
        )
        self._acted: str | None = None
        self._running: _Running | None = None
        self._outcome: tuple[str, OutcomeStatus, Any, str | None] | None = None
        self._sign = 0.0
        self._pending: list[int] = []
        self.report = LifeReport()

    def run(self, steps: int, on_step: Callable[[LifeReport], None] | None = None) -> LifeReport:
        """Live ``steps`` steps, or until the world ends."""
        observation = self._body.observe()
        with _closing(self._deliberation):
            for number in range(steps):
                if self._body.done:
                    self.report.ended = True
                    break
                began = time.monotonic()
                events = self._take_in(observation)
                if number == 0:
                    # Acts of the body that a crash cut off: now there is a world to look at.
                    ledger.settle(self._agent, self._agent.tools, body=True)
                    self._pending = self._agent.open_requests()
                self._decide(observation, events)
                action = self._next_action(observation)
                self._acted = self._agent.describe_action(action)
                observation = self._body.step(action)
                self._settle_time(began, observation)
                if on_step is not None:
                    on_step(self.report)
        self._finish(observation)
        return self.report

    # -------------------------------------------------------------- one step

    def _take_in(self, observation: Observation) -> list[Event]:
        """Perceive, and make what was perceived durable."""
        clock = self._agent.memory.clock
        if isinstance(clock, WorldClock):
            clock.set(observation.time)
        events = self._eyes.look(observation, self._acted)
        failed = self._outcome is not None and self._outcome[1] is OutcomeStatus.FAILED
        with self._agent.memory.step() as step:
            self._store(step, observation, events)
        for record in step.records:
            if record.kind == "request":
                self._pending.append(record.seq - record.payload["told"])
        self._agent.taken_in(step.records, observation)
        self._agent.save_state()
        self.report.events += len(events)
        if failed:
            self._pending = self._agent.open_requests()
        return events

    def _store(self, step: Step, observation: Observation, events: list[Event]) -> None:
        for event in events:
            step.event(event)
        if observation.text:
            heard = self._agent.hear(observation)
            step.told(
                observation.text,
                time=observation.time,
                source=observation.source,
                trust=heard.trust,
                speaker=heard.speaker,
            )
            if heard.request:
                step.note("request", {"told": 1}, time=observation.time, trust=heard.trust)
        if self._outcome is not None:
            intent, status, result, error = self._outcome
            step.outcome(intent, status, result=ledger.storable(result), error=error)
            self._outcome = None

    def _decide(self, observation: Observation, events: list[Event]) -> None:
        deliberation = self._deliberation
        self._pending += self._agent.new_requests()
        if deliberation.busy and self._agent.has_moved_on(events):
            deliberation.cancel()
        ended = deliberation.take()
        if ended is not None:
            self.report.decisions += 1
            self.report.cancelled += ended.cancelled
            if not ended.cancelled and ended.situation.request in self._pending:
                self._pending.remove(ended.situation.request)  # taken up, or nothing can be done about it
                if ended.call is None:
                    with self._agent.memory.step() as step:
                        step.note("declined", {"told": ended.situation.request})
            if ended.call is not None:
                self._begin(ended.call, observation)
        if self._running is not None or deliberation.busy:
            return  # one thing at a time: what is being decided must find the body free
        if self._agent.wants_to_deliberate(observation, self._pending):
            deliberation.start(Situation(observation, self._pending[0] if self._pending else None))
            return
        reaction = self._agent.react(observation, events)
        if reaction is not None:
            self._begin(reaction, observation)

    def _begin(self, call: Call, observation: Observation) -> None:
        tool = self._agent.tool_named(call.tool)
        if not tool.is_generator:
            try:
                self._agent.act(call.tool, call.arguments, cause=call.cause)
            except (ledger.ActFailed, ledger.NotAllowed, BadInput) as error:
                self._agent.on_failure(call, error)
            return
        try:
            intent, arguments = ledger.begin(self._agent, tool, call.arguments, call.cause)
        except (ledger.NotAllowed, BadInput) as error:
            self._agent.on_failure(call, error)
            return
        body = ledger.run_generator(tool, self._agent, arguments)
        self._running = _Running(intent, tool, body, observation.time)

    def _next_action(self, observation: Observation) -> Any:
        running = self._running
        if running is None:
            return self._agent.safe_action(observation)
        try:
            if running.is_late(observation.time):
                running.body.close()
                raise TimeoutError(f"took longer than {running.tool.timeout_s} s of world time")
            action = running.body.send(observation if running.started else None)
            running.started = True
            return action
        except StopIteration as stop:
            self._outcome = (running.intent, OutcomeStatus.DONE, stop.value, None)
        except Exception as error:  # noqa: BLE001 - whatever a user's tool raises is an outcome of the act
            self._outcome = (running.intent, OutcomeStatus.FAILED, None, f"{type(error).__name__}: {error}")
        self._running = None
        return self._agent.safe_action(observation)

    def _settle_time(self, began: float, observation: Observation) -> None:
        """Consolidate in what is left of the tick, then wait for its end."""
        self.report.steps += 1
        if began - self._sign > _SIGN_OF_LIFE_S:
            self._agent.memory.heartbeat()
            self._sign = began
        spent = time.monotonic() - began
        self.report.step_s.append(spent)
        if self._tick_s is None:
            self._agent.memory.catch_up(budget_s=0.02)
            self._agent.read_on()
            self._agent.rest(observation, None)
            return
        self.report.late += spent > self._tick_s
        slack_s = max(0.0, self._tick_s - spent)
        self._agent.memory.catch_up(budget_s=slack_s / 4)
        self._agent.read_on(slack_s / 4)
        self._agent.rest(observation, slack_s / 4)
        time.sleep(max(0.0, self._tick_s - (time.monotonic() - began)))

    def _finish(self, observation: Observation) -> None:
        if self._running is not None:
            self._running.body.close()
            self._outcome = (self._running.intent, OutcomeStatus.UNKNOWN, None, "life ended while it was going on")
            self._running = None
        rest = [*self._eyes.look(observation, self._acted), *self._eyes.flush()]
        with self._agent.memory.step() as step:
            self._store(step, observation, rest)
        self._agent.taken_in(step.records, observation)
        self.report.events += len(rest)


@dataclass(slots=True)
class _Running:
    intent: str
    tool: Tool
    body: Generator[Any, Any, Any]
    since: datetime
    started: bool = False

    def is_late(self, now: datetime) -> bool:
        return self.tool.timeout_s is not None and (now - self.since).total_seconds() > self.tool.timeout_s


@contextmanager
def _closing(deliberation: Deliberating) -> Iterator[Deliberating]:
    try:
        yield deliberation
    finally:
        deliberation.close()
