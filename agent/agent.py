"""`Agent`: what users subclass. It remembers, answers, acts and lives; the work is done in the modules beside it."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..clock import Clock
from ..errors import BadInput, PerdureError
from ..memory import Encoders, Memory, Settings
from ..memory.working import story
from ..records import Answer, Event, Observation, Record, Trust
from ..world_model import WorldModel
from . import ledger
from .answering import find
from .asking_oneself import cue, recalled
from .body import Body, EnvBody, StepClock
from .deliberating import Menu, PlannerProposer, Proposer, choose, menu_for
from .eyes import Eyes, VideoEyes
from .findings import Asked, Finding
from .loop import Call, Heard, Life, LifeReport, Situation
from .requests import open_requests
from .state import NoState, StateKeeper
from .tools import Tool, tools_of
from .watching import WatchReport, watch
from .wording import Linguist

if TYPE_CHECKING:
    from ..memory.working.pages import PageSettings
    from ..memory.working.projection import WorkingMemory
    from ..memory.working.stream import Policy
    from ..perception import ImageEncoder, TextEncoder
    from ..runtime import Planner
    from .recollecting import Recollection


log = logging.getLogger("perdure")


@dataclass(frozen=True, slots=True)
class Parts:
    """The models an agent runs with; each may be missing, and what needs it is then done without."""

    planner: Planner | None = None
    """Reads what rules cannot, words answers, chooses tools. Without it: rules and plain sentences."""
    text_encoder: TextEncoder | None = None
    """Finds text by meaning. Without it: by words, time and entity."""
    image_encoder: ImageEncoder | None = None
    """Names and embeds key frames. Without it: novelty, motion and time alone."""
    working: Policy | None = None
    """Sizes of a working memory: the story of its life in the planner's cache. Without it: none is kept."""
    pages: PageSettings | None = None
    """How closed events become pages of the planner's attention, for `Agent.recollect`. Without it: none are made."""


class Agent:
    """An agent in one directory. Subclass it, add tools with `tool`, and `open` it.

    ``State`` may be set to a dataclass whose fields all have defaults; ``self.state`` is then saved whenever it has
    changed. Any other public attribute would be lost at a crash, and setting one warns.
    """

    State: ClassVar[type] = NoState

    def __init__(self, memory: Memory, parts: Parts) -> None:
        self.memory = memory
        self.parts = parts
        self.world = WorldModel(memory)
        self.tools: Mapping[str, Tool] = tools_of(type(self))
        self._keeper = StateKeeper(memory, self.State)
        self.state: Any = self._keeper.state
        self._linguist = Linguist(memory, parts.planner)
        self._working: WorkingMemory | None = None
        self._recollection: Recollection | None = None
        self._requested: list[int] = []
        self._ready = True

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        parts: Parts | None = None,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """Wake the agent in the directory ``path``, or make a new one.

        Intents that a crash left without an outcome are settled first (`tool`, ``recover``).

        Args:
            path: the agent's directory.
            parts: the models; none by default. `perdure.agent.default_parts` loads the embedded ones.
            settings: zone and owner of a new directory.
            clock: where the time comes from; the system's by default.

        Raises:
            BadInput: not an agent's directory, or the saved state does not fit ``State``.
            AgentAwakeError: it is open in another process.
            VersionError: a newer Perdure wrote it.
            StorageError: the disk refused.
        """
        parts = parts or Parts()
        encoders = Encoders(text=parts.text_encoder, picture_text=parts.image_encoder)
        memory = Memory.open(path, settings=settings, encoders=encoders, clock=clock)
        try:
            agent = cls(memory, parts)
            ledger.settle(agent, agent.tools, body=False)
            agent.load_working_memory()
            return agent
        except BaseException:
            memory.close()
            raise

    def close(self) -> None:
        """Save the state and let go of the directory. Harmless to repeat."""
        if not self.memory.is_open:
            return
        try:
            self.save_state()
            if self._working is not None:
                self._working.snapshot()
            if self.parts.planner is not None:
                self.parts.planner.save_state(self._working_path())
        finally:
            self.memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __setattr__(self, name: str, value: object) -> None:
        if self.__dict__.get("_ready") and not name.startswith("_") and name != "state":
            warnings.warn(
                f"{type(self).__name__}.{name} is a plain attribute and is lost at a crash; make it a field of State",
                UserWarning,
                stacklevel=2,
            )
        super().__setattr__(name, value)

    # ------------------------------------------------------------------ talking

    def tell(
        self,
        text: str,
        *,
        speaker: str | None = None,
        trust: Trust = Trust.OWNER,
        time: datetime | None = None,
        source: str = "user",
        request: bool = False,
    ) -> Record:
        """Tell the agent something; durable on return.

        Args:
            text: 1 to 100,000 characters.
            speaker: who says it; the owner by default.
            trust: OWNER, or OTHER for what somebody else says: data, never an instruction.
            time: when it was said; now by default.
            source: the channel.
            request: True if it asks for something to be done: deliberation takes it up while the agent lives.

        Returns:
            The record, which can be the ``cause`` of an act.

        Raises:
            BadInput: empty or too long.
            StorageError: the disk refused; it is not remembered.
        """
        with self.memory.step() as step:
            step.told(text, speaker=speaker or self.memory.settings.owner, trust=trust, time=time, source=source)
            if request and trust is Trust.OWNER:
                step.note("request", {"told": len(step.drafts)}, trust=trust)
        told = step.records[0]
        if request and trust is Trust.OWNER:
            self._requested.append(told.seq)
        return told

    def ask(
        self,
        question: str,
        *,
        as_of: datetime | None = None,
        zone: str | None = None,
        asker: str = "owner",
        plain: bool = False,
        recall: bool = True,
    ) -> Answer:
        """Answer from facts and events, with the records that prove it; without evidence, "I don't know".

        Args:
            question: in English.
            as_of: answer with what the agent knew then.
            zone: IANA zone of the asker, for "this morning"; the directory's own by default.
            asker: who "I" and "my" are.
            plain: do not let the planner word what was found.
            recall: False answers from working memory alone: what the planner says with the story of this life in its
                cache, with no evidence. It does best on the beginning of a sentence: "The spare key is in the".

        Raises:
            BadInput: an empty question, a naive ``as_of`` or an unknown zone; without ``recall``: there is no working
                memory, or ``as_of`` was given.
        """
        if not question.strip():
            raise BadInput("expected a question, got no words")
        if not recall:
            return self._ask_oneself(question, as_of)
        if as_of is not None and as_of.tzinfo is None:
            raise BadInput(f"expected an aware as_of, got {as_of!r}; add tzinfo, for example datetime.UTC")
        where = _zone(zone or self.memory.settings.zone)
        with self.memory.step() as step:
            payload = {"question": question, "as_of": as_of.isoformat() if as_of else None, "zone": str(where)}
            step.note("asked", payload, source="user", trust=Trust.OWNER)
        seq, now = step.records[0].seq, step.records[0].start
        self.consolidate()
        self.world.catch_up()
        query = self._linguist.question(question, as_of or now, where, seq)
        finding = find(self.memory, Asked(query, where, now, as_of), self.world)
        text = finding.said if plain else self._linguist.word(question, finding, seq)
        return self._answered(seq, finding, text)

    def recollect(self, question: str, k: int = 10) -> Answer:
        """What the planner says with the ``k`` best hits of recall in mind, which come back as pages of attention.

        Nothing checks it against the records, which are its evidence; `ask` answers from facts alone.

        Args:
            question: best the beginning of a sentence: "The spare key is in the".
            k: hits, from 1.

        Raises:
            BadInput: no words, or an agent without pages.
        """
        if not question.strip() or self.recollection is None:
            raise BadInput("expected a question to an agent with pages; open it with Parts(pages=PageSettings(), ...)")
        with self.memory.step() as step:
            payload = {"question": question, "as_of": None, "zone": self.memory.settings.zone, "pages": True}
            step.note("asked", payload, source="user", trust=Trust.OWNER)
        self.memory.catch_up()
        finding = self.recollection.ask(question, k)
        return self._answered(step.records[0].seq, finding, finding.said)

    def consolidate(self, budget_s: float | None = None) -> bool:
        """Let memory catch up, then let the planner read what was told and the rules could not.

        Returns whether all projections are level. Safe to stop at any point: it goes on next time.
        """
        if not self.memory.catch_up(budget_s):
            return False
        for told in self.memory.unread():
            if self.parts.planner is None:
                break
            self._linguist.statements(told)
        self.read_on(budget_s)
        if budget_s is not None and self.recollection is not None:  # seconds a page: never while somebody waits
            self.recollection.advance(budget_s)
        return self.memory.catch_up(budget_s)

    # ------------------------------------------------------------------- seeing

    @property
    def image_encoder(self) -> ImageEncoder | None:
        return self.parts.image_encoder

    def watch(
        self,
        video: str,
        *,
        start: datetime | None = None,
        again: bool = False,
        on_event: Callable[[Event, int], None] | None = None,
    ) -> WatchReport:
        """Watch a video file, camera or stream to its end; each event is durable when ``on_event`` hears of it.

        A file whose watching was cut off goes on after its last durable event.

        Args:
            video: path, ``camera:0``, or a stream's URL.
            start: world time of the first frame; by default a file is taken to have been recorded just now, so that it
                ends now.
            again: watch a file once more although it has been watched.
            on_event: called with each event and the number of its last frame.

        Raises:
            BadInput: there is no such video, or it is not one.
            StorageError: the disk refused; events that were reported before are kept.
        """
        return watch(self.memory, self.image_encoder, video, start=start, again=again, on_event=on_event)

    # ------------------------------------------------------------------- acting

    def act(self, tool: str, arguments: Mapping[str, Any], *, cause: Record | int | None = None) -> Any:
        """Use a tool, through the ledger, then save the state; see `ledger.act` for what it raises."""
        try:
            return ledger.act(self, self.tool_named(tool), arguments, cause)
        finally:
            self.save_state()

    def tool_named(self, name: str) -> Tool:
        """The tool of that name; raises `BadInput` if there is none."""
        if name not in self.tools:
            raise BadInput(f"expected a tool out of {', '.join(self.tools) or '(none)'}, got {name!r}")
        return self.tools[name]

    def confirm(self, tool: Tool, arguments: Mapping[str, Any]) -> bool:
        """Asked before a tool with ``confirm=True``. Override it to ask the owner; the default refuses."""
        return False

    def safe_action(self, observation: Observation) -> Any:
        """The action of a step in which nothing else is to be done. Override it; the default is 0."""
        return 0

    def on_failure(self, call: Call, error: PerdureError) -> None:
        """Told when a decision could not be carried out. Override it; the outcome is in the journal already."""

    # ------------------------------------------------------------------- living

    def live(
        self,
        env: Any,
        days: float,
        *,
        clock: StepClock | None = None,
        tick_s: float | None = None,
        think_steps: int | None = None,
        seed: int | None = None,
        on_step: Callable[[LifeReport], None] | None = None,
    ) -> LifeReport:
        """Live in a Gymnasium environment, or any `Body`, for so many days of its own time.

        Args:
            env: the environment or body.
            days: days of world time, above 0.
            clock: world time per step; one minute by default.
            tick_s: real seconds that one step may take (a robot); None steps as fast as it goes (a simulation).
            think_steps: steps of the world that every thought takes, so that a simulated life is the same on any
                machine; None: as long as it takes in real time.
            seed: for the environment's reset.
            on_step: called after each step.
        """
        if days <= 0:
            raise BadInput(f"expected days above 0, got {days}")
        clock = clock or StepClock(60.0)
        body: Body = EnvBody(env, clock, seed=seed) if hasattr(env, "reset") else env
        self.read_on()  # before the first tick: waking may have a lot to make up for
        return Life(self, body, tick_s=tick_s, think_steps=think_steps).run(clock.steps(days), on_step)

    def deliberate(self, situation: Situation, cancel: threading.Event) -> Call | None:
        """Decide what to do; runs beside the control loop. Override it for a policy of your own.

        The default has `proposer` propose calls for the owner's oldest request, in output that a grammar holds to
        `menu`, and takes the one that ends best by `foresee`.
        """
        proposer = self.proposer
        if situation.request is None or proposer is None:
            return None
        told = self.memory.journal.get([situation.request])[situation.request]
        return choose(self.memory, told, proposer.propose(told, menu_for(told, self.menu), cancel), self.foresee)

    @property
    def proposer(self) -> Proposer | None:
        """Who proposes calls: the planner, once, if there is one."""
        return None if self.parts.planner is None else PlannerProposer(self.memory, self.parts.planner)

    @property
    def menu(self) -> Menu:
        """What may be proposed; all tools by default."""
        return Menu(self.tools)

    def foresee(self, call: Call) -> float:
        """How well a call would end, from 0 (it cannot) to 1. The default, without a world model, is 1."""
        return 1.0

    def wants_to_deliberate(self, observation: Observation, pending: list[int]) -> bool:
        """Whether there is something to decide; called every step, so it must be cheap."""
        return bool(pending)

    def react(self, observation: Observation, events: Sequence[Event]) -> Call | None:
        """A call for which nothing has to be thought over, asked for in every step in which no tool runs and nothing is
        being decided or waits to be.

        Override it for standing orders and for what to do when there is nothing to do. The default is None.
        """
        return None

    def has_moved_on(self, events: Sequence[Event]) -> bool:
        """Whether what has just happened makes the present thought pointless. The default: any event does."""
        return bool(events)

    def hear(self, observation: Observation) -> Heard:
        """How to take the words of an observation. The default: somebody else's data, never an instruction.

        Override it where a channel is authenticated, or where the owner has allowed others to ask for things.
        """
        return Heard()

    def describe_action(self, action: Any) -> str | None:
        """A body action in words, for the eyes: ``use``, ``pick up``. The default is None."""
        return None

    def open_eyes(self) -> Eyes:
        """What makes events of the observations of a life. The default sees video: novelty, motion, key frames."""
        return VideoEyes(self.image_encoder)

    def taken_in(self, records: Sequence[Record], observation: Observation) -> None:
        """Called in every step with the records that it stored, durable by now. The default does nothing."""

    def rest(self, observation: Observation, budget_s: float | None) -> None:
        """Slack time: consolidate for at most ``budget_s`` seconds (None: as the agent thinks fit). Must be safe to
        cut off at any instant. The default does nothing; memory itself catches up anyway."""

    def still_wants(self, told: Record) -> bool:
        """Whether a request that could not be met may be tried once more; the default is yes."""
        return True

    def open_requests(self) -> list[int]:
        """Requests that still have to be met, oldest first: see `requests.open_requests`."""
        self._requested.clear()
        return open_requests(self.memory, self.still_wants)

    def new_requests(self) -> list[int]:
        """Requests that came since the last call."""
        fresh, self._requested = self._requested, []
        return fresh

    def save_state(self) -> bool:
        """Save `state` now if it has changed; it is also saved after every step, act and on closing."""
        return self._keeper.save(self.state)

    @property
    def working(self) -> WorkingMemory | None:
        """The story of its life in the planner's cache, if `Parts.working` asks for one; made when first used."""
        if self._working is None and self.parts.working is not None and self.parts.planner is not None:
            from ..memory.working.projection import WorkingMemory

            planner: Any = self.parts.planner
            self._working = WorkingMemory(self.memory, planner, self.parts.working, self.story_line)
        return self._working

    def story_line(self, record: Record) -> str | None:
        """What a record adds to that story; None for what is not worth a line. Override it; it must be a pure function
        of the record. The default is `memory.working.story.line`."""
        return story.line(record)

    def read_on(self, budget_s: float | None = None) -> None:
        """Let working memory read what is new, for at most ``budget_s`` seconds; called in slack time."""
        if self.working is not None:
            self.working.advance(budget_s)

    @property
    def recollection(self) -> Recollection | None:
        """The pages of its events, if `Parts.pages` asks for them; opened when first used."""
        if self._recollection is None and self.parts.pages is not None and self.parts.planner is not None:
            from .recollecting import Recollection

            planner: Any = self.parts.planner
            self._recollection = Recollection(self.memory, planner, self.parts.pages)
        return self._recollection

    # ------------------------------------------------------------------- inside

    def _ask_oneself(self, question: str, as_of: datetime | None) -> Answer:
        if self.working is None:
            raise BadInput("expected an agent with a working memory; open it with Parts(working=Policy(), planner=...)")
        if as_of is not None:
            raise BadInput("expected no as_of: working memory holds the present alone; ask with recall")
        with self.memory.step() as step:
            payload = {"question": question, "as_of": None, "zone": self.memory.settings.zone, "recall": False}
            step.note("asked", payload, source="user", trust=Trust.OWNER)
        return self._answered(step.records[0].seq, *recalled(self.working.ask(cue(question))))

    def load_working_memory(self) -> None:
        """Take the planner's KV cache back from its snapshot, if there is one that fits; otherwise start empty.

        The snapshot saves reading the stable part of the prompts again; it holds nothing that the journal does not.
        """
        path = self._working_path()
        if self.parts.planner is not None and path.exists():
            try:
                self.parts.planner.load_state(path)
            except PerdureError as error:
                log.warning("working memory starts empty: %s", error)
                path.unlink()

    def _working_path(self) -> Path:
        return self.memory.root / "kv" / "working.safetensors"

    def _answered(self, seq: int, finding: Finding, text: str) -> Answer:
        with self.memory.step() as step:
            step.note(
                "answered",
                {
                    "asked": seq,
                    "text": text,
                    "evidence": [e.seq for e in finding.evidence],
                    "confidence": round(finding.confidence, 4),
                    "reason": finding.reason,
                },
            )
        return Answer(text, finding.value, finding.evidence, finding.confidence, finding.reason)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise BadInput(f"expected an IANA time zone such as 'Europe/Berlin', got {name!r}") from error
