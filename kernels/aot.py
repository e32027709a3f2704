"""Compiling Triton and Gluon kernels for devices that are not here.

Triton's compiler needs no GPU: it emits PTX and calls the assembler that it brings along. So every configuration that
is shipped can be compiled for every supported device on a CPU, and its shared memory compared with what the device has.
Needs triton; not imported by ``perdure.kernels`` itself.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

__all__ = ["SHARED_LIMIT", "Compilation", "Compiled", "compile_for"]

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
