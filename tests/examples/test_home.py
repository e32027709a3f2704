"""The home as an environment: Gymnasium's contract, repeatable, restorable, and honest about what happened."""

import ast
import random
import warnings
from pathlib import Path

import numpy as np
import perdure
import pytest
from gymnasium.utils.env_checker import check_env
from perdure.errors import BadInput
from perdure.examples.home.house import LESSON_END
from perdure.examples.home.world import ACTIONS, HomeEnv

ROOT = Path(perdure.__file__).resolve().parent


def _walk(env: HomeEnv, steps: int, seed: int = 0) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    return [tuple(env.step(rng.choice([0, 1, 2, 3, 3, 3, 4, 5, 6, 7]))[0].tolist()) for _ in range(steps)]


def test_gymnasiums_checker_finds_nothing() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not having a spec.*")
        check_env(HomeEnv(3))


def test_the_same_seed_and_actions_give_the_same_life() -> None:
    one, two = HomeEnv(5), HomeEnv(5)
    assert _walk(one, 900) == _walk(two, 900)
    assert one.truth.events == two.truth.events
    assert np.array_equal(one.render(), two.render())


def test_a_restored_state_goes_on_as_the_original() -> None:
    one, two = HomeEnv(6), HomeEnv(7)
    _walk(one, 400)
    two.set_state(one.get_state())
    assert np.array_equal(one.render(), two.render())
    assert _walk(one, 500, seed=1) == _walk(two, 500, seed=1)
    assert one.truth.events == two.truth.events
    assert [e.text for e in one.errands] == [e.text for e in two.errands]


def test_seeds_differ() -> None:
    frames = [HomeEnv(seed).render() for seed in (1, 2)]
    assert not np.array_equal(*frames)
    assert HomeEnv(1).plan.fixtures != HomeEnv(2).plan.fixtures


def test_nonsense_is_refused() -> None:
    with pytest.raises(BadInput, match="days >= 1"):
        HomeEnv(0, days=0)
    with pytest.raises(BadInput, match="action from 0 to 8"):
        HomeEnv(0).step(len(ACTIONS))
    with pytest.raises(BadInput, match="outside the life so far"):
        HomeEnv(0).truth.visible(10_000)


@pytest.mark.parametrize("seed", range(12))
def test_the_lesson_covers_everything_in_an_hour(seed: int) -> None:
    env = HomeEnv(seed)
    names = {f.name for f in env.plan.fixtures.values()} | {i.name for i in env.house.items.values()}
    looks = {(f.kind.name, s) for f in env.plan.fixtures.values() for s in f.kind.states}
    shown: set[tuple[str, str]] = set()
    seen = env.truth.in_view(env.minute)
    while env.minute < LESSON_END - 1:
        ahead = env.plan.fixture_at.get(env.house.robot.ahead)
        if ahead and ahead.kind.states:
            shown.add((ahead.kind.name, env.house.state[ahead.name]))
        env.step(0)
        seen |= env.truth.in_view(env.minute)
    words = " ".join(u.text for u in env.said)
    assert len(env.said) <= 60
    assert [n for n in (*names, *env.people) if f" {n}." not in words] == []
    assert [r for r in env.plan.floors if f"This room is the {r}." not in words] == []
    assert looks <= shown
    assert env.plan.floor <= seen


@pytest.mark.parametrize("seed", [0, 4])
def test_the_truth_log_agrees_with_the_state(seed: int) -> None:
    env = HomeEnv(seed, days=1)
    places: dict[str, str] = {}
    states: dict[str, str] = dict(env.house.state)
    seen = len(env.truth.events)
    for event in env.truth.events:
        places[event.thing] = event.new
    rng = random.Random(seed)
    for _ in range(1000):
        env.step(rng.choice([1, 2, 3, 3, 4, 5, 6]))
        for event in env.truth.events[seen:]:
            if event.kind == "state":
                assert states[event.thing] == event.old
                states[event.thing] = event.new
            elif event.kind == "moved" and event.thing in places:
                assert places[event.thing] == event.old
            places[event.thing] = event.new
        seen = len(env.truth.events)
        assert states == env.house.state
        for item in env.house.items.values():
            assert env.truth.position(item.id, env.minute) == item.place
            assert places.get(item.id, item.place) == item.place
    assert {c: i.id for i in env.house.items.values() if (c := i.cell)} == env.house.item_at


def test_nobody_else_imports_the_renderer() -> None:
    rooms = ("agent", "kernels", "memory", "perception", "runtime", "world_model", "examples/home/questions")
    paths = [p for room in rooms for p in (ROOT / room).rglob("*.py")]
    paths += [*ROOT.glob("*.py"), *(ROOT / "examples").glob("*.py")]
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert not any("home.render" in n or n in ("sprites", "atlas", "render") for n in names), path
