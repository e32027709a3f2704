"""The scene reader in the home: taught in the first hour, held against the truth."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from perdure.examples.home.percepts import PerceptError
from perdure.examples.home.world import HomeEnv
from perdure.perception.scenes import SceneReader
from perdure.records import Pose

START = datetime(2027, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_reader_learns_all_names_in_the_first_hour_and_errs_rarely(seed: int) -> None:
    env, reader, error, rng = HomeEnv(seed=seed), SceneReader(), PerceptError(), random.Random(seed)
    _, info = env.reset()
    taught = set()
    while info["minute"] < 900:
        frame, pose = env.render(), Pose(info["x"], info["y"], info["heading"])
        assert frame is not None
        time = START + timedelta(minutes=info["minute"])
        if info["minute"] < 480 and "text" in info:
            lesson = reader.teach(frame, pose, info["text"], time)
            assert lesson is not None, info["text"]
            taught |= {(naming.kind, naming.name) for naming in lesson.taught}
        elif info["minute"] >= 480:
            error.look(env, reader.read(frame, pose, time))
        _, _, _, _, info = env.step(rng.choice([1, 2, 3, 3, 3, 6]))
    assert {name for kind, name in taught if kind == "fixture"} == set(env.plan.fixtures)
    assert {name for kind, name in taught if kind == "person"} == set(env.people)
    assert {name for kind, name in taught if kind == "item"} >= {env.truth.name_of(item) for item in env.truth.items}
    everything = error.result()["all"]
    assert everything["there"] > 500
    assert everything["missed"] <= 0.01
    assert everything["wrong"] <= 0.01
