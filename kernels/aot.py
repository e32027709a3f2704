"""Compiling Triton and Gluon kernels for devices that are not here.

Triton's compiler needs no GPU: it emits PTX and calls the assembler that it brings along. So every configuration that
is shipped can be compiled for every supported device on a CPU, and its shared memory compared with what the device has.
Needs triton; not imported by ``perdure.kernels`` itself.

``python -P -m perdure.kernels.aot [OPERATION ...]`` compiles everything that is shipped and prints a table.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

__all__ = ["SHARED_LIMIT", "Compilation", "Compiled", "Report", "compile_for", "compile_shipped", "pool", "shipping"]

SHARED_LIMIT = {80: 166912, 87: 166912, 89: 101376, 90: 232448, 100: 232448, 120: 101376}
"""Bytes of shared memory that one block may have, by compute capability (CUDA programming guide, table of limits)."""


@dataclass(frozen=True)
class Compilation:
    """One configuration of a kernel.

    Attributes:
        name: says which, ``forward hd128 causal 128x64``.
        kernel: the ``triton.jit`` or ``gluon.jit`` function.
        signature: argument name -> type: ``*bf16`` or ``*fp16`` pointers, ``i32``, ``fp32``, ``constexpr``,
            ``tensordesc<...>``. Pointers are taken as aligned to 16 bytes; ``i32:16`` says that an integer is always a
            multiple of 16 (as the launcher finds out at run time). Arguments left out must be in ``constants``.
        constants: argument name -> value, the ``tl.constexpr`` arguments and arguments that are None or 1.
        options: what a launch passes: num_warps, num_stages, num_ctas, enable_fp_fusion, maxnreg.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


class Compiled(NamedTuple):
    """What the compiler says: bytes of shared memory a block, registers and spilled bytes a thread, and the PTX."""

    shared_bytes: int
    registers: int | None
    spills: int | None
    ptx: str


class Report(NamedTuple):
    """One compiled configuration: bytes of shared memory, registers, bytes of stack, or why it failed."""

    name: str
    shared_bytes: int
    registers: int | None
    spills: int | None
    failure: str


def shipping() -> dict[str, str]:
    """Operation -> name of its module that has ``shipped(capability)``."""
    return {
        path.parent.name: f"{__package__}.{path.parent.name}.{path.stem}"
        for path in sorted(Path(__file__).parent.glob("*/*.py"))
        if "\ndef shipped(" in path.read_text("utf-8")
    }


def compile_shipped(module: str, capability: int) -> list[Report]:
    """Compile all that ``module`` ships for a compute capability."""
    reports = []
    for compilation in importlib.import_module(module).shipped(capability):
        try:
            done = compile_for(compilation, capability)
        except Exception as error:  # noqa: BLE001  (the compiler raises many kinds; the report names the kernel)
            reports.append(Report(compilation.name, 0, None, None, f"{type(error).__name__}: {error}"[:2000]))
        else:
            reports.append(Report(compilation.name, done.shared_bytes, done.registers, done.spills, ""))
    return reports


def pool() -> ProcessPoolExecutor:
    """A process for each core: the compiler uses one, and an abort inside it must not take the caller along."""
    return ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn"))


def compile_for(compilation: Compilation, capability: int) -> Compiled:
    """Compile for a compute capability (90 is an H100); no GPU is needed, and the result is cached by triton.

    Raises:
        Exception: whatever triton raises for a kernel that does not compile.
    """
    kernel = compilation.kernel
    signature, attributes = {}, {}
    for index, name in enumerate(kernel.arg_names):
        if name in compilation.constants:
            signature[name] = "constexpr"
            continue
        kind, _, multiple = compilation.signature[name].partition(":")
        signature[name] = kind
        if multiple == "16" or kind.startswith("*"):
            attributes[(index,)] = [["tt.divisibility", 16]]
    unknown = set(compilation.constants).union(compilation.signature) - set(kernel.arg_names)
    assert not unknown, f"{compilation.name}: {unknown} are no arguments of {kernel.__name__}"
    source = _source_class(kernel)(kernel, signature, constexprs=dict(compilation.constants), attrs=attributes)
    target = GPUTarget("cuda", capability, 32)
    done = triton.compile(source, target=target, options=dict(compilation.options))
    registers, spills = _resources(done.asm.get("cubin"))
    return Compiled(int(done.metadata.shared), registers, spills, str(done.asm["ptx"]))


def _source_class(kernel: Any) -> Any:
    is_gluon = getattr(kernel, "is_gluon", None)
    if is_gluon is not None and is_gluon():
        from triton.experimental.gluon._runtime import GluonASTSource

        return GluonASTSource
    return ASTSource


def _resources(cubin: bytes | None) -> tuple[int | None, int | None]:
    """Registers and bytes of local memory (stack: what spills need), read from the machine code."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if cubin is None or not tool.is_file():
        return None, None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    return (int(found.group(1)), int(found.group(2))) if found else (None, None)


def _table(operations: list[str]) -> Iterator[str]:
    modules = shipping()
    with pool() as workers:
        jobs = {
            (operation, capability): workers.submit(compile_shipped, modules[operation], capability)
            for operation in operations or modules
            for capability in SHARED_LIMIT
        }
        for (operation, capability), job in jobs.items():
            for report in job.result():
                over = " TOO MUCH" if report.shared_bytes > SHARED_LIMIT[capability] else ""
                yield (
                    f"sm_{capability:<4}{operation:<20}{report.name:<56}{report.shared_bytes:>8} B{over} "
                    f"{report.registers} registers, {report.spills} B stack {report.failure}"
                )


if __name__ == "__main__":
    for line in _table(sys.argv[1:]):
        sys.stdout.write(line + "\n")
