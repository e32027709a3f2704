"""A world in a process of its own: it outlives its client, goes on without one, and survives a bad request."""

import multiprocessing
import time
from datetime import UTC, datetime

import gymnasium
import numpy as np
import pytest
from perdure.agent import RemoteBody, StepClock, WorldGone, serve
from perdure.errors import BadInput

CLOCK = StepClock(60.0, datetime(2026, 11, 2, 8, tzinfo=UTC))


class Counter(gymnasium.Env):
    """Counts its steps and sums its actions."""

    action_space = gymnasium.spaces.Discrete(10)
    observation_space = gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8)
    render_mode = None

    def __init__(self) -> None:
        self.steps = self.total = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros((4, 4, 3), np.uint8), {}

    def step(self, action):
        self.steps += 1
        self.total += int(action)
        return np.full((4, 4, 3), self.steps % 256, np.uint8), 0.0, False, False, {"steps": self.steps}

    def doubled(self, number):
        return 2 * number


@pytest.fixture
def world(tmp_path):
    """The address of a world that goes on by itself, 2 ms a step."""
    address = tmp_path / "world"
    arguments = {"clock": CLOCK, "idle_s": 0.002}
    process = multiprocessing.get_context("fork").Process(target=serve, args=(Counter, address), kwargs=arguments)
    process.start()
    yield address
    process.kill()
    process.join()


def test_steps_are_taken_there_and_seen_here(world):
    with RemoteBody(world) as body:
        body.step(3)
        seen = body.step(4)
        assert seen.time == CLOCK.at(2)
        assert seen.frame[0, 0, 0] == 2
        assert body.call("total") == 7
        assert body.call("doubled", 21) == 42


def test_the_world_goes_on_while_nobody_is_there_and_waits_while_somebody_is(world):
    with RemoteBody(world) as body:
        before = body.observe().index
    time.sleep(0.3)
    with RemoteBody(world) as body:
        after = body.observe().index
        time.sleep(0.1)
        assert body.step(0).index == after + 1
    assert after > before + 10


def test_a_bad_request_does_not_end_the_world(world):
    with RemoteBody(world) as body:
        with pytest.raises(WorldGone, match="nonsense"):
            body.call("nonsense")
        assert body.step(1).index == 1


def test_a_client_can_close_the_world(world):
    body = RemoteBody(world)
    body.close(world=True)
    with pytest.raises(WorldGone, match="start"):
        RemoteBody(world, timeout_s=0.3)


def test_time_that_does_not_pass_is_refused(tmp_path):
    with pytest.raises(BadInput, match="idle_s above 0"):
        serve(Counter, tmp_path / "world", clock=CLOCK, idle_s=0)
