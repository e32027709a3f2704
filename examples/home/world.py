"""`HomeEnv`: a home for Gymnasium, one step a minute.

The robot's senses are `render()` (what its camera sees), odometry, touch and words. What is what, it has to learn.
"""

from __future__ import annotations

import pickle
import random
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from perdure.errors import BadInput

from .catalogue import ALWAYS, APPLIANCES, COMING, EXTRA, ITEM_NAMES, OTHERS, OWNERS, TWIN_NAMES
from .errands import Errand, Errands, Standing
from .house import FIRST_MINUTE, LESSON_END, House, Person, Utterance
from .lesson import Lesson
from .mechanisms import MOST_SHOTS, CauseEdge, Causes, appliance_shots, appliances_of, draw_mechanisms
from .plan import Cell, Plan, draw_plan
from .render import Renderer
from .residents import Resident, Residents
from .routines import HIDING_PLACES, Routines, draw_routines, surfaces
from .speech import Speech
from .truth import Truth

DAY = 1440
ACTIONS = ("wait", "turn left", "turn right", "forward", "pick up", "put down", "use", "give", "discard")


@dataclass
class Life:
    """All that changes; what `get_state` saves."""

    house: House
    causes: Causes
    residents: Residents
    routines: Routines
    errands: Errands
    speech: Speech
    lesson: Lesson
    owner: str
    planned_days: int = 0
    text: Utterance | None = None


class HomeEnv(gymnasium.Env[NDArray[np.int32], np.int64]):  # type: ignore[misc]
    """A week in a home.

    Observation: int32 [6]: minute, x, y, heading (0 east, 1 south, 2 west, 3 north), bumped, holding.
    Action: 0 to 8, see `ACTIONS`; ignored during the lesson (07:00 to 08:00 of day 0).
    Reward: 1 for each errand that is done in this minute, -1 for each violation.
    ``info``: the same as the observation under its names (``bumped`` and ``holding`` as bool), and, if something was
    said, ``text``, ``speaker`` and ``channel`` (``voice`` or ``app``).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 -- Gymnasium's own name and form

    def __init__(self, seed: int = 0, days: int = 7, render_mode: str | None = "rgb_array") -> None:
        if days < 1:
            raise BadInput(f"expected days >= 1, got {days}; a life lasts at least one day")
        if render_mode not in (None, "rgb_array"):
            raise BadInput(f"expected render_mode 'rgb_array' or None, got {render_mode!r}")
        self.home_seed, self.days, self.render_mode = seed, days, render_mode
        self.action_space = spaces.Discrete(len(ACTIONS))
        high = np.array([FIRST_MINUTE + days * DAY, 18, 14, 3, 1, 1], np.int32)
        self.observation_space = spaces.Box(np.zeros(6, np.int32), high, dtype=np.int32)
        self._renderer: Renderer | None = None
        self._life = draw_life(seed)
        self._start()

    # --- Gymnasium

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int32], dict[str, Any]]:
        """Begins the life anew; with ``seed`` in another home."""
        super().reset(seed=seed)
        if seed is not None:
            self.home_seed = seed
        self._renderer = None
        self._life = draw_life(self.home_seed)
        self._start()
        return self._observation(), self._info()

    def step(self, action: int | np.int64) -> tuple[NDArray[np.int32], float, bool, bool, dict[str, Any]]:
        """One minute."""
        if not self.action_space.contains(np.int64(action)):
            raise BadInput(f"expected an action from 0 to {len(ACTIONS) - 1} ({', '.join(ACTIONS)}), got {action!r}")
        life, house = self._life, self._life.house
        house.minute += 1
        done, violations = sum(e.done is True for e in life.errands.all), len(life.errands.violations)
        if house.minute < LESSON_END:
            self._show_lesson()
        else:
            if house.minute == LESSON_END:
                life.lesson.tidy(house)
                house.toggled.clear()
            self._plan_days()
            house.act(int(action))
            life.causes.step(house)
            life.residents.step(house)
            life.causes.step(house)
            self._speak()
        house.truth.set_pose(house.robot.x, house.robot.y, house.robot.heading)
        reward = sum(e.done is True and not e.forbidden for e in life.errands.all) - done
        reward -= len(life.errands.violations) - violations
        truncated = house.minute >= FIRST_MINUTE + self.days * DAY
        return self._observation(), float(reward), False, truncated, self._info()

    def render(self) -> NDArray[np.uint8] | None:
        """What the camera sees now: uint8 [168, 168, 3]; None without a render mode."""
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = Renderer(self._life.house)
        return self._renderer.frame(self._life.house)

    # --- for tests, judges and experts; a robot does not look here

    def get_state(self) -> bytes:
        """The whole state, truth log included."""
        return pickle.dumps((self.home_seed, self._life), protocol=5)

    def set_state(self, state: bytes) -> None:
        """Goes on from what `get_state` gave; pickled data, so only from a source that is trusted."""
        seed, life = pickle.loads(state)
        if seed != self.home_seed:
            self._renderer = None
        self.home_seed, self._life = seed, life

    @property
    def minute(self) -> int:
        """Minutes since midnight of day 0."""
        return self._life.house.minute

    @property
    def house(self) -> House:
        """The true state."""
        return self._life.house

    @property
    def plan(self) -> Plan:
        """The true plan."""
        return self._life.house.plan

    @property
    def truth(self) -> Truth:
        """All that happened."""
        return self._life.house.truth

    @property
    def owner(self) -> str:
        """Name of the owner."""
        return self._life.owner

    @property
    def people(self) -> list[str]:
        """Names of the residents, the owner first."""
        return [self._life.owner, *(n for n in self._life.house.people if n != self._life.owner)]

    @property
    def errands(self) -> list[Errand]:
        """All errands that were said so far."""
        return self._life.errands.all

    @property
    def violations(self) -> list[tuple[int, str]]:
        """(minute, item id) of what the robot threw away without the owner's word."""
        return self._life.errands.violations

    @property
    def standing(self) -> list[Standing]:
        """Every time that the standing instruction applied."""
        return self._life.errands.standing

    @property
    def said(self) -> list[Utterance]:
        """All that was said to the robot, the lesson included."""
        return self._life.speech.said

    @property
    def true_causes(self) -> list[CauseEdge]:
        """The direct edges of the hidden mechanisms."""
        return self._life.causes.edges

    @property
    def routines(self) -> Routines:
        """Habits of residents and items."""
        return self._life.routines

    # --- helpers

    def _start(self) -> None:
        self._show_lesson()
        house = self._life.house
        house.truth.set_pose(house.robot.x, house.robot.y, house.robot.heading)

    def _show_lesson(self) -> None:
        life = self._life
        text = life.lesson.show(life.house, life.house.minute - FIRST_MINUTE)
        life.house.toggled.clear()
        life.text = None
        if text is not None:
            life.text = Utterance(life.house.minute, life.owner, "voice", text, "lesson")
            life.speech.said.append(life.text)

    def _plan_days(self) -> None:
        """The agenda of a day is drawn at its midnight, that of day 0 after the lesson."""
        life = self._life
        day = life.house.minute // DAY
        if life.planned_days <= day:
            life.planned_days = day + 1
            life.routines.plan_day(life.house, life.residents, day)
            life.errands.plan_day(day, [n for n in self.people if n != life.owner])
            life.speech.plan_day(day)

    def _speak(self) -> None:
        life = self._life
        for utterance in life.errands.step(life.house, life.residents, life.routines):
            life.speech.add(life.house, utterance)
        life.text = life.speech.step(life.house, life.residents)
        if life.text is not None:
            life.errands.heard(life.text)

    def _observation(self) -> NDArray[np.int32]:
        house = self._life.house
        robot = house.robot
        values = [house.minute, robot.x, robot.y, robot.heading, robot.bumped, robot.held is not None]
        return np.array(values, np.int32)

    def _info(self) -> dict[str, Any]:
        house, text = self._life.house, self._life.text
        robot = house.robot
        info: dict[str, Any] = {"minute": house.minute, "x": robot.x, "y": robot.y, "heading": robot.heading}
        info |= {"bumped": robot.bumped, "holding": robot.held is not None}
        if text is not None:
            info |= {"text": text.text, "speaker": text.speaker, "channel": text.channel}
        return info


def draw_life(seed: int) -> Life:
    """A home and its residents at 07:00 of day 0."""
    rng = random.Random(f"home {seed}")
    mechanisms = draw_mechanisms(rng)
    appliances = set(appliances_of(mechanisms))
    for name, _, _ in rng.sample(APPLIANCES, len(APPLIANCES)):
        fits = appliance_shots(appliances | {name}) <= MOST_SHOTS
        if fits and name not in ("bathroom mat", "fridge alarm", "heater"):
            appliances.add(name)
    house = House(draw_plan(rng, frozenset(appliances)), seed, rng)
    owner = rng.choice(OWNERS)
    names = [owner, *rng.sample(OTHERS, 2)]
    for name in names:
        house.people[name] = Person(name)
    _put_items(house, rng)
    _put_people(house, names, rng)
    for door in house.plan.doors:
        if door.name != "front door" and rng.random() < 0.75:
            house.set_fixture(door.name, "open")
    house.truth.events.clear()
    house.toggled.clear()
    residents = Residents({n: Resident(n) for n in names}, random.Random(rng.random()))
    routines = draw_routines(house, names, random.Random(rng.random()))
    back = round(sum(a.back for a in routines.roles[owner].work.values()) / len(routines.roles[owner].work))
    mechanisms = tuple(m if m.at is None else replace(m, at=(back + 3, *m.at[1:])) for m in mechanisms)
    errands = Errands(owner, random.Random(rng.random()))
    speech = Speech(owner, random.Random(rng.random()))
    causes = Causes(mechanisms, random.Random(rng.random()))
    return Life(house, causes, residents, routines, errands, speech, Lesson(house, owner), owner)


def _put_items(house: House, rng: random.Random) -> None:
    twins = rng.sample(TWIN_NAMES, 2)
    extra = rng.sample([n for n in ITEM_NAMES if n not in ALWAYS], EXTRA)
    ids = [(f"{n}#{k}", n) for n in twins for k in (1, 2)]
    ids += [(n, n) for n in (*ALWAYS, *extra)] + [(f"{n}#1", n) for n in COMING]
    ids.sort(key=lambda pair: pair[1] not in ("keys", "letter", "apple"))
    for item, name in ids:
        places = [*surfaces(house), "kitchen cupboard", "wardrobe"]
        if name == "spare key":
            places = list(HIDING_PLACES)
        elif name in ("keys", "letter"):
            places = ["hall shelf"]
        elif name == "apple":
            places = ["kitchen table"]
        cells = [(p, c) for p in places for c in house.plan.fixtures[p].cells if c not in house.item_at]
        place, cell = rng.choice(cells)
        house.add_item(item, name, place, cell)


def _put_people(house: House, names: list[str], rng: random.Random) -> None:
    rooms = ["hall", "bedroom", "living room"]
    for name, room in zip(names, rooms, strict=True):
        cells = [c for c in house.plan.room_cells(room) if not house.occupied(c)]
        needed = {c for access in house.plan.access.values() for c in access}  # to be shown things from
        clear: list[Cell] = [c for c in cells if c not in needed and len(house.plan.neighbours(c)) >= 3]
        house.move_person(name, rng.choice(clear or cells))
