"""What a watched world answers, and where it says that nobody can know."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from perdure.agent.findings import Asked
from perdure.agent.moves import joined
from perdure.agent.questions import parse_question
from perdure.agent.world_answering import find_in_world
from perdure.records import Change, Estimate, Interval, Record, Trust

ZONE = ZoneInfo("UTC")
NOW = datetime(2027, 3, 3, 20, 0, tzinfo=UTC)
ROLES = {"keys": "item", "book": "item", "blue mug": "item", "fridge": "fixture", "hall lamp": "fixture",
         "kitchen table": "fixture", "sofa": "fixture", "hall shelf": "fixture", "Ben": "person", "Anna": "person",
         "kitchen": "room", "living room": "room", "hall": "room"}  # fmt: skip
ROOMS = {
    "kitchen table": "kitchen",
    "fridge": "kitchen",
    "sofa": "living room",
    "hall shelf": "hall",
    "hall lamp": "hall",
}


def on_tuesday(clock):
    hour, minute = map(int, clock.split(":"))
    return datetime(2027, 3, 2, hour, minute, tzinfo=UTC)


def change(kind, thing, old, new, earliest, latest, by=None, witnessed=False):
    first, last = on_tuesday(earliest), on_tuesday(latest)
    return Change(kind, thing, old, new, first, last, by, witnessed, (first.hour * 60 + first.minute,))


@dataclass
class Memory:
    """Every record there is: record number n is of minute n of Tuesday."""

    told: list = field(default_factory=list)

    @property
    def journal(self):
        def get(seqs):
            return {s: self.record(s) for s in seqs}

        return SimpleNamespace(get=get)

    def record(self, seq):
        at = on_tuesday("0:00") + timedelta(minutes=seq)
        return Record(seq, "event", {"text": "seen"}, at, at, at, 0, 0, "", "eyes", Trust.SEEN, "owner", "UTC")

    def facts(self, subject=None, predicate=None, object=None, **_):
        return self.told


@dataclass
class World:
    """A world model that says what it is given."""

    known: list = field(default_factory=list)
    places: dict = field(default_factory=dict)
    states: dict = field(default_factory=dict)
    causes: dict = field(default_factory=dict)
    in_view: list = field(default_factory=list)
    habit: Estimate = field(default_factory=lambda: Estimate(None, "unknown"))

    def name_of(self, said):
        return next((name for name in ROLES if name.lower() == said.lower()), None)

    def role_of(self, name):
        return ROLES.get(name.partition("#")[0])

    def room_of(self, place):
        return ROOMS.get(place)

    def place_of(self, thing, at=None):
        return self.places.get(thing, Estimate(None, "never seen"))

    def state_of(self, fixture, at=None):
        return self.states.get(fixture, Estimate(None, "never seen"))

    def changes(self, within=None, *, thing=None, kind=None):
        within = within or Interval()
        return [
            c
            for c in self.known
            if thing in (None, c.thing, c.thing.partition("#")[0])
            and kind in (None, c.kind)
            and (within.start is None or c.latest >= within.start)
            and (within.end is None or c.earliest < within.end)
        ]

    def watched(self, room, within):
        return 1.0

    def coverage(self, fixture):
        return self.in_view

    def people_in(self, room, at=None):
        return Estimate(("Ben",), "seen", (600,), 0.9)

    def why(self, fixture, state=None, at=None):
        return self.causes.get(fixture, Estimate(None, "no cause is known"))

    def usual_place(self, thing, part_of_day=None, weekday=None):
        return self.habit

    def usual_time(self, person, kind, place=None, **which):
        return self.habit


def ask(world, text, memory=None):
    query = parse_question(text, NOW, ZONE)
    return find_in_world(memory or Memory(), world, Asked(query, ZONE, NOW, None))


CARRIED = [
    change("moved", "keys", "hall shelf", "Ben", "9:58", "10:02", "Ben"),
    change("moved", "keys", "Ben", "sofa", "10:05", "10:07", "Ben"),
]


def test_who_carries_a_thing_has_moved_it_once():
    (move,) = joined(CARRIED, lambda place: place == "Ben")
    assert (move.change.old, move.change.new, move.change.by) == ("hall shelf", "sofa", "Ben")
    assert (move.change.earliest, move.change.latest) == (on_tuesday("9:58"), on_tuesday("10:07"))
    assert move.width == timedelta(minutes=2)


def test_what_is_still_carried_has_been_moved():
    (move,) = joined(CARRIED[:1], lambda place: place == "Ben")
    assert move.change.new == "Ben"


def test_there_and_back_is_no_move():
    back = change("moved", "keys", "Ben", "hall shelf", "10:05", "10:07", "Ben")
    assert joined([CARRIED[0], back], lambda place: place == "Ben") == []


def test_who_when_and_from_where():
    world = World(CARRIED)
    assert ask(world, "Who moved the keys yesterday between 9:00 and 11:00?").value == "Ben"
    assert ask(world, "When were the keys moved to the sofa yesterday?").value == Interval(
        on_tuesday("10:05"), on_tuesday("10:07")
    )
    assert ask(world, "Where were the keys before they were moved to the sofa yesterday?").value == "hall shelf"
    assert ask(world, "Where did Ben put the keys yesterday?").value == "sofa"
    assert ask(world, "How often were the keys moved yesterday?").value == 1
    assert ask(world, "What was moved in the hall yesterday between 9:30 and 10:30?").value == ["keys"]


def test_an_answer_has_records_or_there_is_none():
    world = World([change("state", "fridge", "closed", "open", "10:00", "10:01", "Ben", True)])
    found = ask(world, "Who opened the fridge yesterday at 10:01?")
    assert (found.value, [e.seq for e in found.evidence]) == ("Ben", [600])
    assert "Ben" in found.must_say
    bare = World(
        [Change("state", "fridge", "closed", "open", on_tuesday("10:00"), on_tuesday("10:01"), "Ben", True, ())]
    )
    assert ask(bare, "Who opened the fridge yesterday at 10:01?").value is None


UNSEEN = [
    change("moved", "keys", "hall shelf", "sofa", "8:00", "14:00"),
    change("moved", "book", "sofa", "kitchen table", "9:00", "13:00"),
]


@pytest.mark.parametrize(
    "text",
    [
        "Who moved the keys yesterday between 9:00 and 11:00?",
        "When were the keys moved to the sofa yesterday?",
        "How often were the keys moved yesterday between 9:00 and 11:00?",
        "Which came first yesterday: the keys being moved to the sofa or the book being moved to the kitchen table?",
        "What was moved in the hall yesterday between 9:00 and 11:00?",
        "Where were the keys yesterday at 10:00?",
    ],
)
def test_what_happened_while_nobody_looked_is_not_known(text):
    world = World(UNSEEN, places={"keys": Estimate("hall shelf", "last seen so", (480,), 0.9)})
    found = ask(world, text)
    assert found.value is None
    assert found.reason


def test_order_is_known_when_looks_decide_it():
    world = World([*CARRIED, change("state", "fridge", "closed", "open", "11:00", "11:01", "Ben", True)])
    asked = "What happened first yesterday, the fridge being opened or the keys being moved to the sofa?"
    assert ask(world, asked).value == ["keys", "fridge"]


def test_counts_need_a_view_of_most_of_the_time():
    flips = [change("state", "fridge", "closed", "open", f"10:{m:02}", f"10:{m + 1:02}", None, True) for m in (5, 25)]
    world = World(flips, in_view=[(on_tuesday("10:00"), on_tuesday("10:40"))])
    assert ask(world, "How often was the fridge opened yesterday between 10:00 and 10:40?").value == 2
    world.in_view = [(on_tuesday("10:00"), on_tuesday("10:10"))]
    assert ask(world, "How often was the fridge opened yesterday between 10:00 and 10:40?").value is None
    assert ask(world, "How often did you see the fridge being opened yesterday?").value == 2


def test_why_needs_a_look_near_it():
    lamp = {"hall lamp": Estimate("fridge", "learned", (601,), 0.8)}
    seen = World([change("state", "hall lamp", "off", "on", "10:00", "10:02")], causes=lamp)
    assert ask(seen, "Why did the hall lamp go on yesterday at 10:01?").value == "fridge"
    unseen = World([change("state", "hall lamp", "off", "on", "9:00", "11:00")], causes=lamp)
    assert ask(unseen, "Why did the hall lamp go on yesterday at 10:01?").value is None
    assert ask(World(causes=lamp), "Why did the hall lamp go on yesterday at 10:01?").value is None


def test_coming_home_is_from_outside():
    world = World([
        change("entered", "Ben", "gone", "hall", "17:30", "17:31", "Ben", True),
        change("entered", "Ben", "hall", "kitchen", "17:35", "17:36", "Ben", True),
    ])  # fmt: skip
    assert ask(world, "When did Ben come home yesterday?").value == Interval(on_tuesday("17:31"), on_tuesday("17:31"))
    assert ask(world, "When did Ben enter the kitchen yesterday?").value == Interval(
        on_tuesday("17:36"), on_tuesday("17:36")
    )


def test_states_and_habits():
    world = World(
        states={"fridge": Estimate("open", "seen so", (600,), 0.97)}, habit=Estimate(1050, "3 days", (600,), 0.8)
    )
    assert ask(world, "Was the fridge open or closed yesterday at 10:00?").value == "open"
    assert ask(world, "Was the fridge closed yesterday at 10:00?").value is False
    assert ask(world, "When does Ben usually come home?").value == time(17, 30)
    world.habit = Estimate("sofa", "mostly", (600,), 0.8)
    assert ask(world, "Where are the keys usually in the morning?").value == "sofa"


def test_what_was_said_later_than_seen_counts_more():
    told = SimpleNamespace(subject="key", object="in the kitchen table", negated=False, evidence=(720,))
    seen = World(places={"keys": Estimate("sofa", "last seen so", (600,), 0.9)})
    memory = Memory([told])
    assert ask(seen, "Where were the keys yesterday at 15:00?", memory).value == "kitchen table"
    seen.places["keys"] = Estimate("sofa", "last seen so", (800,), 0.9)
    assert ask(seen, "Where were the keys yesterday at 15:00?", memory).value == "sofa"


def test_what_was_said_of_the_spare_key_is_not_said_of_the_keys():
    told = SimpleNamespace(subject="spare key", object="in the drawer", negated=False, evidence=(720,))
    seen = World(places={"keys": Estimate("sofa", "last seen so", (600,), 0.9)})
    assert ask(seen, "Where were the keys yesterday at 15:00?", Memory([told])).value == "sofa"


def test_what_the_world_does_not_know_is_left_to_memory():
    assert ask(World(), "Where is the spare tyre?") is None
    assert ask(World(), "What is the code of the door?") is None
    assert ask(World(), "When did the plumber come?") is None
