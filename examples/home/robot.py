"""The robot that lives in the home: what it can do, what it does unasked, and how it takes what it hears.

Deciding what an errand means is the planner's work; walking and handling are `skills`; what is where, and what follows
from what, is the world model's. This file puts them together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from perdure import Agent, tool
from perdure.agent import (
    Call,
    Eyes,
    Heard,
    Menu,
    Parts,
    PlannerProposer,
    Proposer,
    SceneEyes,
    Situation,
    taught_reader,
)
from perdure.agent.deliberating import choose
from perdure.agent.eyes import is_lesson, pose_of
from perdure.memory import Memory
from perdure.perception.lessons import read_lesson
from perdure.perception.scenes import SceneReader
from perdure.perception.statements import parse_statements
from perdure.records import Answer, Event, Observation, OutcomeStatus, Pose, Record, Scene, Statement, Trust
from perdure.world_model import SceneWatcher
from perdure.world_model.causes import CausalModel, Edge

from . import skills
from .curiosity import Trials, wish
from .requests import EXAMPLES, grounded, is_request, put, spoken_of, states_spoken_of
from .skills import FLOOR, OPEN, Failed, Move, Skill

ME = "me"
_ACTS = {
    Move.PICK_UP: "pick_up",
    Move.PUT_DOWN: "put_down",
    Move.USE: "use",
    Move.GIVE: "give",
    Move.DISCARD: "discard",
}
_PATIENCE = timedelta(minutes=70)
"""How long after it was asked a failed errand is still tried again."""
_LESSON_PAUSE_S = 180
"""While things were named so recently, the robot stays where it is held."""
_LEAST_GROUNDED = 0.2
"""A proposal whose arguments the request hardly speaks of is not done."""
_RULE_PAUSE_S = 120
_DAY = (7, 23)
"""Hours between which the robot tries things out unasked."""
_KNOWN_LOOKS = 60
"""A fixture must have been seen so often before a state of it can be unusual ..."""
_RARE = 0.05
"""... which it is if it was in it in no more of these looks."""
_HANDLED_S = 3 * 3600
"""What the robot itself handled so recently does not surprise it."""
_UNASKED = ("look_into", "try_out")
_LOOK_INTO_S = 8 * 3600
"""So often it looks into everything that can be shut."""
_FRAME_BUDGET = 48 * 2**20
"""Bytes of pictures that are kept; older ones fade."""
_REST_S = 6 * 3600
_COMPANY_S = 10 * 60


@dataclass
class Rule:
    """A standing order: this fixture shall be in this state."""

    fixture: str
    state: str
    cause: int
    tried_s: float = 0.0


@dataclass
class Waiting:
    """A thing that a person gets on coming home."""

    thing: str
    person: str
    cause: int
    since_s: float


@dataclass(frozen=True)
class _Surprise:
    """Something that is not as it usually is."""

    event: Record
    fixture: str
    state: str
    usual: str


@dataclass
class Memo:
    """What the robot must not forget and no record says."""

    rules: list[Rule] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    looked_into: dict[str, float] = field(default_factory=dict)
    trials: Trials = field(default_factory=Trials)
    rested_s: float = 0.0


class HomeRobot(Agent):
    """Keeps an eye on a home, does errands, and knows where everything is."""

    State = Memo

    def __init__(self, memory: Memory, parts: Parts) -> None:
        super().__init__(memory, parts)
        self._eyes: SceneEyes | None = None
        self._reader = SceneReader()
        self._causes = CausalModel()
        self._pose = Pose(0, 0, 0)
        self._holding = self._bumped = False
        self._now_s = 0.0
        self._shown_s: float | None = None
        self._idle: Iterator[int] | None = None
        self._idle_next: int | None = None
        self._visited: dict[str, float] = {}
        self._surprise: _Surprise | None = None
        self._considered: Record | None = None
        self._make_proposer: Callable[[], Proposer] | None = None

    # ------------------------------------------------------------ the body, for skills

    @property
    def pose(self) -> Pose:
        return self._pose

    @property
    def scene(self) -> Scene | None:
        return None if self._eyes is None else self._eyes.scene

    @property
    def holding(self) -> bool:
        return self._holding

    @property
    def bumped(self) -> bool:
        return self._bumped

    def states_of(self, fixture: str) -> tuple[str, ...]:
        """States that a fixture can be in: as it, or one that looks like it, was shown."""
        return self._reader.gallery.states_of(fixture)

    # ------------------------------------------------------------------------- tools

    def is_there(self, thing: str, to: str) -> OutcomeStatus:
        """After a crash: it was brought if the world model saw it there."""
        return OutcomeStatus.DONE if self.world.place_of(thing).value == to else OutcomeStatus.FAILED

    def is_set(self, fixture: str, state: str) -> OutcomeStatus:
        return OutcomeStatus.DONE if self.world.state_of(fixture).value == state else OutcomeStatus.FAILED

    def is_gone(self, thing: str) -> OutcomeStatus:
        """After a crash: what is still held or still lies about was not thrown away."""
        if self._holding:
            return OutcomeStatus.FAILED
        held = any(life.now is not None and life.now.value == ME for life in self.world.lives(thing))
        return OutcomeStatus.DONE if held else OutcomeStatus.FAILED

    @tool(effect="reversible", timeout_s=4200, recover=is_there)
    def bring(self, thing: str, to: str) -> Generator[int, Observation, str]:
        """Carry a thing to a place or a person."""
        yield from self._empty_hand(thing)
        if not self._holding:
            yield from skills.take(self, thing)
        yield from skills.put(self, to)
        return f"the {thing} is at {to}"

    @tool(effect="reversible", timeout_s=4200, recover=is_set)
    def set(self, fixture: str, state: str) -> Generator[int, Observation, str]:
        """Switch a device on or off, open or close something."""
        yield from skills.set_state(self, fixture, state)
        return f"the {fixture} is {state}"

    @tool(effect="irreversible", timeout_s=4200, recover=is_gone)
    def throw_away(self, thing: str) -> Generator[int, Observation, str]:
        """Throw a thing away, get rid of it for good."""
        yield from self._empty_hand(thing)
        if not self._holding:
            yield from skills.take(self, thing)
        yield from skills.discard(self)
        return f"the {thing} is thrown away"

    @tool(effect="reversible", timeout_s=1800, recover=is_set)
    def try_out(self, fixture: str, state: str, minutes: int = 0) -> Generator[int, Observation, str]:
        """Bring a device or door into a state to see what that brings about; back after some minutes, if any."""
        old = self.world.state_of(fixture).value
        try:
            yield from skills.set_state(self, fixture, state)
        except skills.NotUsable:
            trials: Trials = self.state.trials
            trials.not_usable.append(fixture)
            trials.open = [trial for trial in trials.open if trial.fixture != fixture]
            raise
        for _ in range(minutes):
            yield Move.WAIT
        if minutes and old is not None:
            yield from skills.set_state(self, fixture, old)
        else:
            yield from skills.look_around(self)
        return f"the {fixture} was {state}" if minutes else f"the {fixture} is {state}"

    @tool(effect="reversible", timeout_s=1800)
    def look_into(self, container: str) -> Generator[int, Observation, str]:
        """Open something, see what is in it, and leave it as it was."""
        self.state.looked_into[container] = self._now_s
        yield from skills.look_into(self, container)
        return f"looked into the {container}"

    @tool(effect="reversible")
    def always(self, fixture: str, state: str, cause: int = 0) -> str:
        """From now on, whenever a device or door is seen in another state, bring it into this one."""
        self.state.rules = [rule for rule in self.state.rules if rule.fixture != fixture]
        self.state.rules.append(Rule(fixture, state, cause))
        return f"the {fixture} will be kept {state}"

    @tool(effect="reversible")
    def bring_when_home(self, thing: str, person: str, cause: int = 0) -> str:
        """Bring a thing to a person as soon as they come home."""
        self.state.waiting.append(Waiting(thing, person, cause, self._now_s))
        return f"{person} will get the {thing} on coming home"

    def _empty_hand(self, wanted: str) -> Skill:
        """Put down what is held, unless it is what is wanted."""
        held = self.world.fold.objects.held
        if self._holding and (held is None or held.name != wanted.split("#")[0]):
            yield from skills.put(self, f"{self._room() or self.world.map.rooms[0]}{FLOOR}")

    # --------------------------------------------------------------------- answering

    def ask(self, question: str, **options: Any) -> Answer:
        """See `Agent.ask`; what was seen unchanged since the last look counts as well."""
        if self._eyes is not None:
            with self.memory.step() as step:
                for event in self._eyes.flush():
                    step.event(event)
            for record in step.records:
                self.world.apply(record)
        return super().ask(question, **options)

    # ------------------------------------------------------------------ perceiving

    def open_eyes(self) -> Eyes:
        self.world.catch_up()
        self.world.causes = self._causes = CausalModel()
        self.world.learn_causes()
        self._reader = taught_reader(self.memory)
        self._eyes = SceneEyes(self._reader, SceneWatcher(self.world))
        return self._eyes

    def hear(self, observation: Observation) -> Heard:
        """The paired telephone is the owner's; a voice may ask for what can be undone, as the owner allowed."""
        state = observation.state or {}
        text = observation.text or ""
        speaker = str(state.get("speaker", "other"))
        by_app = state.get("channel") == "app"
        facts = parse_statements(text, observation.time, self._zone(), speaker)
        asks = not read_lesson(text) and (is_request(text) or (by_app and not facts))
        return Heard(speaker, Trust.OWNER if by_app else Trust.OTHER, request=asks)

    def taken_in(self, records: Sequence[Record], observation: Observation) -> None:
        for record in records:
            self.world.apply(record)
            if record.kind == "lesson":
                self._shown_s = record.start.timestamp()
            elif record.kind == "event" and self._surprise is None:
                self._surprise = self._surprising(record)
        state = observation.state or {}
        self._pose = pose_of(observation)
        self._holding, self._bumped = bool(state.get("holding")), bool(state.get("bumped"))
        self._now_s = observation.time.timestamp()

    def describe_action(self, action: int) -> str | None:
        return _ACTS.get(Move(action))

    def has_moved_on(self, events: Sequence[Event]) -> bool:
        return False  # an errand stays an errand while people walk about

    # -------------------------------------------------------------------- deciding

    @property
    def proposer(self) -> Proposer | None:
        if self._make_proposer is not None:
            return self._make_proposer()
        planner = self.parts.planner
        return None if planner is None else PlannerProposer(self.memory, planner, each_tool=True)

    def use_proposer(self, make: Callable[[], Proposer]) -> None:
        """Let another proposer take the planner's place, for a comparison."""
        self._make_proposer = make

    @property
    def menu(self) -> Menu:
        asked_for = {name: found for name, found in self.tools.items() if name not in _UNASKED}
        return Menu(asked_for, self._spoken, EXAMPLES, put)

    def _spoken(self, tool_name: str, argument: str) -> Sequence[str] | None:
        """What an argument can be, as far as the request speaks of it."""
        values, told = self._options(tool_name, argument), self._considered
        if not values or told is None:
            return values
        text = str(told.payload["text"])
        if argument == "state":
            return states_spoken_of(values, text) or self._changes(text) or values
        return spoken_of(values, text, str(told.payload["speaker"]))

    def _changes(self, text: str) -> list[str]:
        """States that would be new to one of the fixtures spoken of: nobody asks for what is so already."""
        found = set()
        for name in spoken_of(self._options("set", "fixture") or [], text, ""):
            life = self.world.fold.fixtures.get(name)
            now = None if life is None or life.now is None else life.now.value
            found |= {state for state in self.states_of(name) if state != now}
        return sorted(found)

    def _options(self, tool_name: str, argument: str) -> Sequence[str] | None:
        fold = self.world.fold
        can_be_set = sorted(name for name in fold.fixtures if len(self.states_of(name)) > 1)
        if argument == "thing":
            return sorted(name for name, role in fold.roles.items() if role == "item")
        if argument == "person":
            return sorted(fold.people) or sorted(n for n, role in fold.roles.items() if role == "person")
        if argument == "to":
            people = sorted(name for name, role in fold.roles.items() if role == "person")
            fixtures = {name for name in self.world.map.fixtures.values() if not name.endswith(skills.BIN)}
            return [*sorted(fixtures), *people]
        if argument == "fixture":
            return can_be_set
        if argument == "state":
            return sorted({state for name in can_be_set for state in self.states_of(name)})
        return [] if argument == "cause" else None

    def foresee(self, call: Call) -> float:
        """How far the request speaks of the call's arguments, times how likely the world model thinks it succeeds."""
        told = self.memory.journal.get([call.cause])[call.cause] if call.cause is not None else None
        if told is None:
            return 0.0
        share = grounded(str(told.payload["text"]), str(told.payload["speaker"]), call)
        return 0.0 if share < _LEAST_GROUNDED else share * self._feasible(call)

    def _feasible(self, call: Call) -> float:
        arguments = call.arguments
        if call.tool in ("bring", "throw_away", "bring_when_home"):
            lives = self.world.lives(arguments["thing"])
            known = any(life.now is not None and life.now.gone is None for life in lives)
            return 1.0 if known else 0.6
        return 1.0 if arguments["state"] in self.states_of(arguments["fixture"]) else 0.0

    def react(self, observation: Observation, events: Sequence[Event]) -> Call | None:
        """Standing orders, and what was promised for when somebody comes home."""
        state: Memo = self.state
        people = {s.name for s in self.scene.sightings if s.name in self.world.fold.people} if self.scene else set()
        for rule in state.rules:
            if self._now_s - rule.tried_s > _RULE_PAUSE_S and not people and self._sees_other(rule):
                rule.tried_s = self._now_s
                return Call("set", {"fixture": rule.fixture, "state": rule.state}, rule.cause)
        for promise in list(state.waiting):
            entered = self.world.fold.people.get(promise.person)
            stay = None if entered is None else entered.now
            if stay is not None and stay.first > promise.since_s and promise.person in people:
                state.waiting.remove(promise)
                return Call("bring", {"thing": promise.thing, "to": promise.person}, promise.cause)
        if self._in_lesson() or not _DAY[0] <= observation.time.hour < _DAY[1]:
            return None
        return self._unasked()

    def _unasked(self) -> Call | None:
        """What there is to find out when there is nothing else to do: what is in things, and what brings about what."""
        here = self._room()
        for cell, name in sorted(self.world.map.fixtures.items()):
            shuts = OPEN in self.states_of(name) and not name.endswith(("door", "window"))
            old = self._now_s - self.state.looked_into.get(name, 0.0) > _LOOK_INTO_S
            if shuts and old and self.world.map.room_at(cell) == here:
                return Call("look_into", {"container": name})
        at_hand = {name for cell, name in self.world.map.fixtures.items() if self.world.map.room_at(cell) == here}
        lives = {name: life.now for name, life in self.world.fold.fixtures.items() if name in at_hand}
        wanted = wish(
            self.state.trials,
            self._causes,
            {name: str(stay.value) for name, stay in lives.items() if stay is not None},
            {name: self.states_of(name) for name in at_hand},
            {rule.fixture for rule in self.state.rules},
            self._now_s,
            min((self._visited.get(room, 0.0) for room in self.world.map.rooms), default=0.0),
        )
        if wanted is None:
            return None
        return Call("try_out", {"fixture": wanted.fixture, "state": wanted.state, "minutes": wanted.minutes})

    def _sees_other(self, rule: Rule) -> bool:
        sightings = self.scene.sightings if self.scene is not None else ()
        return any(s.name == rule.fixture and s.state and s.state != rule.state for s in sightings)

    def wants_to_deliberate(self, observation: Observation, pending: list[int]) -> bool:
        return (bool(pending) or self._surprise is not None) and not self._in_lesson()

    def deliberate(self, situation: Situation, cancel: Any) -> Call | None:
        if situation.request is None:
            surprise, self._surprise = self._surprise, None
            return None if surprise is None else self._wonder(surprise, cancel)
        self._considered = self.memory.journal.get([situation.request]).get(situation.request)
        call = super().deliberate(situation, cancel)
        if call is not None and call.tool in ("always", "bring_when_home"):
            return Call(call.tool, {**call.arguments, "cause": situation.request}, call.cause)
        return call

    def _surprising(self, event: Record) -> _Surprise | None:
        """A fixture that is in a state in which it hardly ever was, and that nobody is seen to have brought about."""
        scene = event.payload["media"].get("scene") or {}
        for entry in scene.get("fixtures", ()):
            name, state = entry["name"], entry["state"]
            looks: Counter[str] = Counter()
            life = self.world.fold.fixtures.get(name)
            for stay in life.stays if life is not None else ():
                looks[stay.value] += stay.looks
            usual = max(looks, key=lambda value: looks[value], default=state)
            handled = name in self.state.trials.not_usable or any(
                thing == name and self._now_s - at < _HANDLED_S for at, _, thing, _ in self.world.fold.acts[-200:]
            )
            seen_there = entry.get("by") or entry.get("near") or scene.get("people")
            rare = looks.total() >= _KNOWN_LOOKS and looks[state] <= _RARE * looks.total()
            if entry.get("was") and rare and usual in self.states_of(name) and not (handled or seen_there):
                return _Surprise(event, name, state, usual)
        return None

    def _wonder(self, surprise: _Surprise, cancel: Any) -> Call | None:
        """Let the planner decide whether something unusual is to be put right."""
        if self.proposer is None or self.world.state_of(surprise.fixture).value != surprise.state:
            return None
        text = f"The {surprise.fixture} is {surprise.state} and nobody is there. It is usually {surprise.usual}."
        matter = replace(surprise.event, payload={"text": text, "speaker": ""})
        values = {"fixture": [surprise.fixture], "state": list(self.states_of(surprise.fixture))}
        menu = Menu({"set": self.tools["set"]}, lambda tool, argument: values.get(argument), EXAMPLES, put)
        found = self.proposer.propose(matter, menu, cancel)
        return choose(self.memory, matter, found, lambda call: float(call.arguments["state"] == surprise.usual))

    def still_wants(self, told: Record) -> bool:
        return datetime.fromtimestamp(self._now_s, told.start.tzinfo) - told.start < _PATIENCE

    # ------------------------------------------------------------------------ slack

    def safe_action(self, observation: Observation) -> int:
        """Stay put while things are shown; else make the rounds, the room longest unseen first."""
        if self._in_lesson() or not self.world.map.rooms:
            return Move.WAIT
        if self._idle is None or observation.index != self._idle_next:
            self._idle = self._round()  # a tool has moved the body meanwhile
        self._idle_next = (observation.index or 0) + 1
        action = next(self._idle, None)
        if action is None:
            self._idle = None
            return Move.WAIT
        return action

    def _round(self) -> Iterator[int]:
        rooms = sorted(
            (room for room in self.world.map.rooms if room != self._room()),
            key=lambda room: (self._visited.get(room, 0.0), room),
        )
        for room in rooms:
            try:
                yield from skills.visit(self, room)
            except Failed:
                continue
            finally:
                self._visited[room] = self._now_s
            yield from self._watch_people()
            return

    def _watch_people(self) -> Iterator[int]:
        """Stay for a while where people are: most of what happens is done by them."""
        until_s = self._now_s + _COMPANY_S
        while self._now_s < until_s:
            people = {s.cell for s in self.scene.sightings if s.name in self.world.fold.people} if self.scene else set()
            if not any(self.world.map.room_at(cell) == self._room() for cell in people):
                return
            yield Move.WAIT

    def learn_causes(self) -> tuple[Edge, ...]:
        """Learn what brings about what from all that is known by now."""
        self.world.learn_causes()
        return self._causes.edges

    def story_line(self, record: Record) -> str | None:
        """What is said, and where things and people's belongings are; not every door, lamp and look."""
        scene = (record.payload.get("media") or {}).get("scene") or {} if record.kind == "event" else {}
        return super().story_line(record) if record.kind == "told" or scene.get("things") else None

    def rest(self, observation: Observation, budget_s: float | None) -> None:
        """Four times a day: learn habits and causes, let old pictures fade, and leave a snapshot of what is known."""
        if self._now_s - self.state.rested_s < _REST_S:
            return
        first = self.state.rested_s == 0.0
        self.state.rested_s = self._now_s
        if first:
            return
        self.learn_causes()
        self._conclude(self.world.facts())
        self.memory.fade(_FRAME_BUDGET, keep=is_lesson)
        self.world.snapshot()

    # ----------------------------------------------------------------------- inside

    def _conclude(self, habits: Sequence[Statement]) -> None:
        """Make facts of habits that are not known as they are by now."""
        known = {(f.subject, f.predicate, f.object) for f in self.memory.facts() if f.trust is Trust.AGENT}
        fresh = [s for s in habits if (s.subject, s.predicate, s.object) not in known]
        if fresh:
            with self.memory.step() as step:
                step.inferred(fresh, "habits")

    def _in_lesson(self) -> bool:
        return self._shown_s is None or self._now_s - self._shown_s <= _LESSON_PAUSE_S

    def _room(self) -> str | None:
        return self.world.map.room_at((self._pose.x, self._pose.y))

    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.memory.settings.zone)
