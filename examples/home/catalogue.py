"""What a home can be made of: kinds of fixtures, items, rooms and names.

It knows no plan and no pixels. A fixture's look depends on its kind and state only; which one it is depends on where
it stands. States are ordered: the first is the state of rest.
"""

from __future__ import annotations

from dataclasses import dataclass

ROOMS = ("hall", "kitchen", "living room", "bedroom", "bathroom", "study")
OWNERS = ("Anna", "Clara", "Julia", "Emma", "Maria", "Laura")
OTHERS = ("Ben", "Leo", "Tom", "Max", "Nina", "Mia", "Paul", "Ida")
GONE = "gone"
"""Place of what left the home or was thrown away."""
ME = "me"
"""The robot, as a place and as one who does things."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fixture."""

    name: str
    states: tuple[str, ...] = ()
    holds: str = ""
    """``surface``, ``container`` (needs to be open), ``bin`` or empty."""
    usable: bool = True
    """Whether ``use`` toggles it; only if it has states."""
    in_wall: bool = False
    """Doors and windows stand in a wall."""


def _kinds() -> dict[str, Kind]:
    on_off, closed_open = ("off", "on"), ("closed", "open")
    kinds = [Kind(n, holds="surface") for n in ("table", "coffee table", "sofa", "bed", "desk", "shelf")]
    kinds += [Kind(n, closed_open, "container") for n in ("fridge", "cupboard", "drawer")]
    kinds += [Kind(n, closed_open, in_wall=True) for n in ("door", "window")]
    appliances = ("lamp", "kettle", "coffee machine", "radio", "television", "tap", "washing machine", "heater", "fan")
    kinds += [Kind(n, on_off) for n in (*appliances, "fridge alarm")]
    kinds += [Kind("mat", ("dry", "wet"), usable=False), Kind("bin", holds="bin")]
    return {k.name: k for k in kinds}


KINDS = _kinds()

FURNITURE: tuple[tuple[str, str, str, int], ...] = (
    ("kitchen table", "table", "kitchen", 3),
    ("kitchen cupboard", "cupboard", "kitchen", 2),
    ("fridge", "fridge", "kitchen", 1),
    ("bin", "bin", "kitchen", 1),
    ("kitchen lamp", "lamp", "kitchen", 1),
    ("sofa", "sofa", "living room", 3),
    ("coffee table", "coffee table", "living room", 3),
    ("living room lamp", "lamp", "living room", 1),
    ("bed", "bed", "bedroom", 2),
    ("wardrobe", "cupboard", "bedroom", 2),
    ("bedroom lamp", "lamp", "bedroom", 1),
    ("bathroom shelf", "shelf", "bathroom", 2),
    ("bathroom lamp", "lamp", "bathroom", 1),
    ("desk", "desk", "study", 3),
    ("desk drawer", "drawer", "study", 1),
    ("study lamp", "lamp", "study", 1),
    ("hall shelf", "shelf", "hall", 3),
    ("hall lamp", "lamp", "hall", 1),
)
"""Name, kind, room and number of cells of what every home has, beside its doors."""

APPLIANCES: tuple[tuple[str, str, str], ...] = (
    ("kettle", "kettle", "kitchen"),
    ("coffee machine", "coffee machine", "kitchen"),
    ("fridge alarm", "fridge alarm", "kitchen"),
    ("kitchen window", "window", "kitchen"),
    ("radio", "radio", "living room"),
    ("television", "television", "living room"),
    ("bedroom window", "window", "bedroom"),
    ("heater", "heater", "bedroom"),
    ("bathroom tap", "tap", "bathroom"),
    ("bathroom mat", "mat", "bathroom"),
    ("washing machine", "washing machine", "bathroom"),
    ("fan", "fan", "bathroom"),
)
"""Name, kind and room of what a home may have: the mechanisms that it has decide."""

TWIN_NAMES = ("blue mug", "red mug", "green bottle", "book", "cushion", "yellow cup")
"""Names of items that come in identical pairs; two are drawn."""
ITEM_NAMES = (
    "keys",
    "spare key",
    "wallet",
    "glasses",
    "umbrella",
    "scissors",
    "tablet",
    "basket",
    "torch",
    "teddy",
)
"""Names of single items; `ALWAYS` and four more are drawn."""
ALWAYS = ("keys", "spare key", "umbrella")
EXTRA = 4
COMING = ("letter", "apple")
"""Items that are brought in and leave: a new one is a new thing."""
PLURAL = frozenset({"keys", "glasses", "scissors"})


def article(name: str) -> str:
    """``a blue mug``, ``an umbrella``."""
    return ("an " if name[0] in "aeiou" else "a ") + name
