"""A world in a process of its own: it lives on while the agent is dead, and the agent comes back to it.

`serve` owns the environment and steps it for whoever is connected; while nobody is, the world goes on by itself with an
idle action, so many seconds of real time a step. `RemoteBody` is the agent's end. They speak over a socket in the file
system, which only this user can open; messages are pickles, so never serve to somebody you do not trust.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ..errors import BadInput, PerdureError
from ..records import Observation
from .body import EnvBody, StepClock

_CONNECT_S = 30.0
_RETRY_S = 0.05
_LINGER_S = 600.0
"""A world that has ended waits so long for who may still want to hear how it ended."""


class WorldGone(PerdureError):
    """The process of the world does not answer."""


def serve(
    make_env: Callable[[], Any],
    address: Path,
    *,
    clock: StepClock,
    idle_action: Any = 0,
    idle_s: float | None = None,
    seed: int | None = None,
) -> None:
    """Run a world until a client says ``close``, or until it has ended and nobody has come back for ten minutes.

    Args:
        make_env: makes the Gymnasium environment.
        address: path of the socket; its folder must exist, an old socket there is replaced.
        clock: world time of a step.
        idle_action: what the body does while nobody moves it.
        idle_s: real seconds a step takes while nobody is connected; None: the world waits instead.
        seed: for the environment's reset.

    Raises:
        BadInput: ``idle_s`` is not above 0.
    """
    if idle_s is not None and idle_s <= 0:
        raise BadInput(f"expected idle_s above 0, or None for a world that waits, got {idle_s}")
    env = make_env()
    body = EnvBody(env, clock, seed=seed)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        address.unlink(missing_ok=True)
        listener.bind(str(address))
        address.chmod(0o600)
        listener.listen(1)
        try:
            was_connected = False
            while True:
                pace = idle_s if was_connected else None  # a world begins with its first client
                if wait([listener], timeout=_LINGER_S if body.done else pace):
                    accepted, _ = listener.accept()
                    was_connected = True
                    if _attend(Connection(accepted.detach()), env, body):
                        return
                elif body.done:
                    return
                else:
                    body.step(idle_action)
        finally:
            address.unlink(missing_ok=True)


def _attend(client: Connection, env: Any, body: EnvBody) -> bool:
    """Serve one client until it goes or dies; True if it asked the world to close."""
    with client:
        while True:
            try:
                name, arguments = client.recv()
                if name == "close":
                    client.send((True, None))
                    return True
                client.send(_answer(env, body, name, arguments))
            except (EOFError, OSError):
                return False


def _answer(env: Any, body: EnvBody, name: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    """(True, result) or (False, what went wrong); the world must outlive a bad request."""
    try:
        if name == "observe":
            return True, (body.observe(), body.done)
        if name == "step":
            return True, (body.step(*arguments), body.done)
        method, *rest = arguments
        found = getattr(env, method)
        return True, found(*rest) if callable(found) else found
    except Exception as error:  # noqa: BLE001 - whatever the environment raises is the client's to hear
        return False, f"{type(error).__name__}: {error}"


class RemoteBody:
    """The body of a world that `serve` runs. A `Body`; use it as a context manager or `close` it.

    Args:
        address: path of the socket.
        timeout_s: how long to wait for the world to appear.

    Raises:
        WorldGone: nobody serves there.
    """

    def __init__(self, address: Path, *, timeout_s: float = _CONNECT_S) -> None:
        self._address = address
        self._link = _connect(address, timeout_s)
        self._latest: Observation
        self._done = False
        self._take(self._request("observe"))

    @property
    def done(self) -> bool:
        return self._done

    def observe(self) -> Observation:
        return self._latest

    def step(self, action: Any) -> Observation:
        self._take(self._request("step", action))
        return self._latest

    def call(self, method: str, *arguments: Any) -> Any:
        """Read an attribute of the environment, or call a method: for whoever runs the experiment, not for the agent.

        Raises:
            WorldGone: the world is gone, or the method raised.
        """
        return self._request("call", method, *arguments)

    def close(self, *, world: bool = False) -> None:
        """Let go; the world lives on, or ends too if ``world``."""
        if world:
            self._request("close")
        self._link.close()

    def __enter__(self) -> RemoteBody:
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()

    def _take(self, result: tuple[Observation, bool]) -> None:
        self._latest, self._done = result

    def _request(self, name: str, *arguments: Any) -> Any:
        try:
            self._link.send((name, arguments))
            fine, result = self._link.recv()
        except (EOFError, OSError) as error:
            raise WorldGone(
                f"the world at {self._address} went away ({type(error).__name__}); start it again"
            ) from error
        if not fine:
            raise WorldGone(f"the world at {self._address} could not {name}{arguments!r}: {result}")
        return result


def _connect(address: Path, timeout_s: float) -> Connection:
    give_up = time.monotonic() + timeout_s
    while True:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.connect(str(address))
            return Connection(link.detach())
        except OSError as error:
            link.close()
            if time.monotonic() > give_up:
                raise WorldGone(f"expected a world at {address}, got {error!r}; start `serve` there first") from error
            time.sleep(_RETRY_S)
