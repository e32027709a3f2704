"""The scene reader against a small renderer of its own: taught in good light, tested in bad."""

import ast
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import perdure.perception.scenes as scenes
import pytest
from perdure.errors import BadInput
from perdure.perception.looks import Layout
from perdure.perception.scenes import SceneReader, SceneSettings, cells_in_view
from perdure.records import Pose, Scene, Sighting

NOON = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)
FLOOR, WALL = "floor", "wall"
FIXTURES = {"table": [""], "lamp": ["on", "off"], "fridge": ["closed", "open"], "shelf": [""]}
PEOPLE = ["Anna", "Ben"]
ITEMS = ["blue mug", "keys", "letter", "umbrella", "red book", "green bottle"]


class TinyHome:
    """One room of 11 x 11 cells with walls around; everything is drawn from a seed."""

    def __init__(self, seed: int = 0, tile: int = 24) -> None:
        rng = np.random.default_rng(seed)
        self.tile, self.rng = tile, rng
        self.sprites = {WALL: self._base(rng), FLOOR: self._base(rng, 14)}
        for kind, states in FIXTURES.items():
            first = self._base(rng)
            for state in states:
                self.sprites[kind, state] = first
                first = self._shapes(rng, first.copy(), 5)
        for name in PEOPLE:
            self.sprites[name] = self._base(rng)
        self.items = {name: self._item(rng) for name in ITEMS}
        self.fixtures = {"table": (3, 0), "lamp": (5, 0), "fridge": (7, 0), "shelf": (9, 0), "desk lamp": (1, 0)}
        self.kinds = {**{k: k for k in FIXTURES}, "desk lamp": "lamp"}
        self.states = {"lamp": "off", "desk lamp": "off", "fridge": "closed"}
        self.people: dict[str, tuple[int, int]] = {}
        self.things: dict[tuple[int, int], str] = {}

    def _base(self, rng: np.random.Generator, contrast: int = 60) -> np.ndarray:
        image = np.full((self.tile, self.tile, 3), rng.integers(70, 190, 3), np.float32)
        image += cv2.resize(rng.normal(0, contrast / 3, (4, 4, 3)).astype(np.float32), (self.tile, self.tile))
        return self._shapes(rng, image, 2) if contrast > 20 else image

    def _shapes(self, rng: np.random.Generator, image: np.ndarray, count: int) -> np.ndarray:
        for _ in range(count):
            x, y, w, h = rng.integers(1, self.tile - 8, 4)
            cv2.rectangle(
                image, (int(x), int(y)), (int(x + w % 9 + 3), int(y + h % 9 + 3)), rng.integers(20, 235, 3).tolist(), -1
            )
        return image

    def _item(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        size = round(self.tile * 14 / 24)
        mask = np.zeros((size, size), np.uint8)
        cv2.ellipse(
            mask, (size // 2, size // 2), tuple(int(v) for v in rng.integers(3, size // 2, 2)), 0, 0, 360, 1, -1
        )
        image = np.full((size, size, 3), rng.integers(20, 235, 3), np.float32)
        image[: size // 2] = rng.integers(20, 235, 3)
        return image, mask > 0

    def tile_at(self, cell: tuple[int, int], extra: str = "") -> np.ndarray:
        x, y = cell
        if not (0 <= x < 11 and 0 <= y < 11):
            return np.zeros((self.tile, self.tile, 3), np.float32)
        base = self.sprites[WALL if x in (0, 10) or y in (0, 10) else FLOOR]
        for name, where in self.fixtures.items():
            if where == cell:
                base = self.sprites[self.kinds[name], self.states.get(name, "")]
        for name, where in self.people.items():
            if where == cell:
                base = self.sprites[name]
        image = base.copy()
        if item := extra or self.things.get(cell):
            picture, mask = self.items[item]
            low = (self.tile - len(mask)) // 2
            image[low : low + len(mask), low : low + len(mask)][mask] = picture[mask]
        return image

    def frame(
        self, pose: Pose, light: tuple[float, float, float] = (1, 1, 1), noise: float = 8, hide: float = 0.0
    ) -> np.ndarray:
        out = np.zeros((7 * self.tile, 7 * self.tile, 3), np.float32)
        for index, cell in enumerate(cells_in_view(pose, 7)):
            row, column = divmod(index, 7)
            tile = self.tile_at(cell) * np.array(light, np.float32)
            if tile.any() and self.rng.random() < hide:
                half = self.tile // 2
                x, y = self.rng.integers(0, 2, 2) * half
                tile[y : y + half, x : x + half] = self.rng.integers(0, 255)
            out[row * self.tile : (row + 1) * self.tile, column * self.tile : (column + 1) * self.tile] = tile
        shown = out.any(axis=2, keepdims=True)
        return np.clip(np.round(out + shown * self.rng.normal(0, noise, out.shape)), 0, 255).astype(np.uint8)

    def lessons(self) -> Iterator[tuple[np.ndarray, Pose, str]]:
        for name, (x, y) in self.fixtures.items():
            states = FIXTURES[self.kinds[name]]
            for turn, state in enumerate(states):
                if state:
                    self.states[name] = state
                said = f"This is the {name}." + (f" It is {state}." if state else "")
                yield self.frame(Pose(x, y + 1, 3)), Pose(x, y + 1, 3), f"Now the {name} is {state}." if turn else said
        for name in PEOPLE:
            self.people = {name: (5, 4)}
            yield self.frame(Pose(5, 5, 3)), Pose(5, 5, 3), f"This is {name}."
        self.people = {}
        for turn, name in enumerate(ITEMS):
            if turn % 2:
                self.people = {"Anna": (5, 4)}
            self.things = {(5, 4): name}
            said = f"These are the {name}." if name == "keys" else f"This is a {name}."
            yield self.frame(Pose(5, 5, 3)), Pose(5, 5, 3), said
            self.people, self.things = {}, {}
        yield self.frame(Pose(5, 5, 2)), Pose(5, 5, 2), "This room is the kitchen."


def taught(home: TinyHome, settings: SceneSettings | None = None) -> SceneReader:
    reader = SceneReader(settings)
    for frame, pose, sentence in home.lessons():
        assert reader.teach(frame, pose, sentence, NOON) is not None, sentence
    return reader


def furnish(home: TinyHome) -> None:
    """Draw where things are."""
    rng = home.rng
    home.states = {
        "lamp": rng.choice(["on", "off"]),
        "desk lamp": rng.choice(["on", "off"]),
        "fridge": rng.choice(["closed", "open"]),
    }
    cells = [(int(x), int(y)) for x, y in rng.permutation([(x, y) for x in range(2, 9) for y in range(2, 6)])]
    home.people = {name: cells.pop() for name in PEOPLE}
    spots = [home.people["Anna"], (3, 0), (9, 0), *cells[:3]]
    home.things = {spots[k]: str(name) for k, name in enumerate(rng.permutation(ITEMS)) if k < len(spots)}


def truth(home: TinyHome, pose: Pose) -> set[tuple[str, tuple[int, int], str, str]]:
    """Name, cell, state and what it lies on, of all that is in view."""
    view, found = set(cells_in_view(pose, 7)), set()
    at = {where: name for name, where in (home.fixtures | home.people).items()}
    found |= {(name, cell, home.states.get(name, ""), "") for cell, name in at.items() if cell in view}
    return found | {(name, cell, "", at.get(cell, "")) for cell, name in home.things.items() if cell in view}


def read_out(scene: Scene) -> set[tuple[str, tuple[int, int], str, str]]:
    return {(s.name, s.cell, s.state, s.on) for s in scene.sightings if s.name != WALL}


def errors(reader: SceneReader, home: TinyHome, times: int, **light: object) -> tuple[float, float]:
    """Share of what is there (in cells that count as read) that was missed, and of sightings that are wrong."""
    missed = wrong = there = said = 0
    for _ in range(times):
        furnish(home)
        pose = Pose(5, 6, 3)
        scene = reader.read(home.frame(pose, **light), pose, NOON)  # type: ignore[arg-type]
        true = {t for t in truth(home, pose) if t[1] in scene.seen}
        seen = {t for t in read_out(scene) if t[1] in scene.seen}
        missed, wrong, there, said = (
            missed + len(true - seen),
            wrong + len(seen - true),
            there + len(true),
            said + len(seen),
        )
    return missed / there, wrong / max(1, said)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_was_taught_is_read_by_day(seed: int) -> None:
    home = TinyHome(seed)
    missed, wrong = errors(taught(home), home, 15)
    assert missed <= 0.04
    assert wrong <= 0.04


def test_what_was_taught_is_read_in_the_dark_and_half_hidden() -> None:
    home = TinyHome(3)
    reader = taught(home)
    missed, wrong = errors(reader, home, 15, light=(0.35, 0.38, 0.5), noise=10)
    assert (missed, wrong) <= (0.1, 0.1)
    missed, wrong = errors(reader, home, 15, hide=0.15)
    assert missed <= 0.1
    assert wrong <= 0.1


def test_nothing_is_known_before_it_was_taught() -> None:
    home = TinyHome()
    scene = SceneReader().read(home.frame(Pose(5, 6, 3)), Pose(5, 6, 3), NOON)
    assert scene.sightings == ()
    assert scene.seen == frozenset()


def test_what_is_unlike_everything_is_something() -> None:
    home = TinyHome(1)
    reader = taught(home)
    home.items["gadget"] = (np.full((14, 14, 3), (250, 5, 250), np.float32), np.ones((14, 14), bool))
    home.things = {(5, 3): "gadget"}
    scene = reader.read(home.frame(Pose(5, 6, 3)), Pose(5, 6, 3), NOON)
    found = [s for s in scene.sightings if s.cell == (5, 3)]
    assert [s.name for s in found] == ["something"]
    assert found[0].certainty < 0.5


def test_a_thing_said_with_the_is_an_item_if_a_person_holds_it_up() -> None:
    home = TinyHome(2)
    reader = taught(home)
    home.people, home.things = {"Ben": (5, 4)}, {(5, 4): "letter"}
    lesson = reader.teach(home.frame(Pose(5, 5, 3)), Pose(5, 5, 3), "This is the invitation.", NOON)
    assert lesson is not None
    assert [naming.kind for naming in lesson.taught] == ["item"]


def test_a_thing_said_with_the_is_an_item_if_it_lies_on_known_ground() -> None:
    home = TinyHome(2)
    reader = taught(home)
    home.things = {(5, 4): "letter"}
    lesson = reader.teach(home.frame(Pose(5, 5, 3)), Pose(5, 5, 3), "This is the invitation.", NOON)
    assert lesson is not None
    assert [naming.kind for naming in lesson.taught] == ["item"]
    assert [s.name for s in reader.read(home.frame(Pose(5, 6, 3)), Pose(5, 6, 3), NOON).sightings if s.cell == (5, 4)]


def test_floor_is_what_was_walked_on_and_wall_is_the_rest() -> None:
    home = TinyHome(0)
    reader = taught(home)
    home.people, home.things = {}, {}
    scene = reader.read(home.frame(Pose(2, 3, 3)), Pose(2, 3, 3), NOON)
    walls = {s.cell for s in scene.sightings if s.name == WALL}
    assert {(0, 2), (0, 3), (2, 0), (4, 0)} <= walls
    assert not {cell for cell in walls if 0 < cell[0] < 10 and 0 < cell[1] < 10}


def test_a_reader_restored_from_its_state_reads_the_same() -> None:
    home = TinyHome(4)
    reader = taught(home)
    state = json.loads(json.dumps(reader.to_state()))
    again = SceneReader.from_state(state)
    assert again.to_state() == reader.to_state()
    for _ in range(3):
        furnish(home)
        frame = home.frame(Pose(5, 6, 3))
        assert again.read(frame, Pose(5, 6, 3), NOON) == reader.read(frame, Pose(5, 6, 3), NOON)


def test_other_sizes_of_tiles_work() -> None:
    home = TinyHome(5, tile=32)
    settings = SceneSettings(Layout(tile=32, item=19))
    missed, wrong = errors(taught(home, settings), home, 8)
    assert missed <= 0.08
    assert wrong <= 0.08


def test_bad_input_says_what_was_expected() -> None:
    reader = SceneReader()
    with pytest.raises(BadInput, match=r"\[168, 168, 3\]"):
        reader.read(np.zeros((10, 10, 3), np.uint8), Pose(0, 0, 0), NOON)
    with pytest.raises(BadInput, match="version"):
        SceneReader.from_state({"version": 9})
    with pytest.raises(BadInput, match="odd"):
        Layout(view=6)
    state = taught(TinyHome()).to_state()
    with pytest.raises(BadInput, match="other sizes"):
        SceneReader.from_state(state, SceneSettings(Layout(tile=32)))


def test_headings_turn_the_view() -> None:
    assert cells_in_view(Pose(5, 5, 0), 3) == [(7, 4), (7, 5), (7, 6), (6, 4), (6, 5), (6, 6), (5, 4), (5, 5), (5, 6)]
    assert cells_in_view(Pose(5, 5, 3), 3)[:3] == [(4, 3), (5, 3), (6, 3)]


def test_perception_knows_nothing_of_examples() -> None:
    for path in Path(scenes.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                assert not any("examples" in alias.name or "gymnasium" in alias.name for alias in node.names), path
            elif isinstance(node, ast.ImportFrom):
                assert "examples" not in (node.module or ""), path
                assert not any(alias.name == "examples" for alias in node.names), path


def test_a_sighting_is_a_record() -> None:
    home = TinyHome(0)
    scene = taught(home).read(home.frame(Pose(5, 6, 3)), Pose(5, 6, 3), NOON)
    assert all(isinstance(s, Sighting) and 0 <= s.certainty <= 1 for s in scene.sightings)
