"""Every shipped configuration compiles for every supported device, and fits its shared memory. No GPU is needed."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import perdure.kernels
import pytest

triton = pytest.importorskip("triton")

from perdure.kernels.aot import SHARED_LIMIT, Compilation, compile_for  # noqa: E402

ROOM = Path(perdure.kernels.__file__).parent
OPERATIONS = {
    path.parent.name: f"perdure.kernels.{path.parent.name}.{path.stem}"
    for path in sorted(ROOM.glob("*/*.py"))
    if "\ndef shipped(" in path.read_text("utf-8")
}
CASES = list(itertools.product(OPERATIONS, SHARED_LIMIT))


def shipped(operation: str, capability: int) -> Iterator[Compilation]:
    yield from importlib.import_module(OPERATIONS[operation]).shipped(capability)


@pytest.mark.parametrize(("operation", "capability"), CASES)
def test_every_shipped_configuration_compiles_and_fits(operation: str, capability: int) -> None:
    names = []
    for compilation in shipped(operation, capability):
        names.append(compilation.name)
        compiled = compile_for(compilation, capability)
        assert compiled.ptx, compilation.name
        assert compiled.shared_bytes <= SHARED_LIMIT[capability], (
            f"{operation} {compilation.name} needs {compiled.shared_bytes} bytes of shared memory on sm_{capability}, "
            f"which has {SHARED_LIMIT[capability]}"
        )
    assert len(set(names)) == len(names), "two configurations bear one name"
    assert names, f"{operation} ships nothing for sm_{capability}; its table has no fallback"
