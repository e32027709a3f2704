"""The laboratory as a fixture: one process for all tests, with the shim in front of libc (see faults.py)."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def lab() -> Iterator[Callable[..., Any]]:
    """``lab("cuts", mode=..., ats=[...])`` runs that method of `faults.Lab` and returns what it found."""
    command = [sys.executable, str(Path(__file__).with_name("faults.py")), "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def ask(method: str, **arguments: Any) -> Any:
            server.stdin.write(json.dumps({"do": method, "with": arguments}) + "\n")
            server.stdin.flush()
            return json.loads(server.stdout.readline())

        yield ask
        server.stdin.close()


@pytest.fixture(scope="session")
def kinds(lab: Callable[..., Any]) -> list[int]:
    """The kinds of all calls of the life that is cut off."""
    return lab("kinds")
