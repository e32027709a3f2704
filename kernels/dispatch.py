"""Which implementation of an operation a device uses: chosen once, said once, and open to an override.

Knows names and a question for each ("are you able on this device?"). Does not know any kernel. A choice never changes
a result beyond the precision that the operation promises.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from ..errors import BadInput

__all__ = ["capability", "choose", "override"]

log = logging.getLogger("perdure")

_chosen: dict[tuple[str, torch.device], str] = {}
_overrides: dict[str, str] = {}


def choose(operation: str, device: torch.device, candidates: Mapping[str, Callable[[torch.device], bool]]) -> str:
    """The name of the implementation of ``operation`` on ``device``.

    Args:
        operation: name of the operation, ``attention`` or ``attention backward``.
        device: where the tensors live; ``cuda`` without an index is the current device.
        candidates: name -> is it able on this device, the best first. Asked once per operation and device.

    Returns:
        The overriding name inside ``override``, else the first able candidate.

    Raises:
        BadInput: no candidate is able, or the overriding name is not a candidate.
    """
    forced = _overrides.get(operation)
    if forced is not None:
        if forced not in candidates:
            raise BadInput(f"{operation} has the implementations {', '.join(candidates)}; {forced!r} is none of them")
        return forced
    if device == torch.device("cuda"):
        device = torch.device("cuda", torch.cuda.current_device())
    key = (operation, device)
    if key not in _chosen:
        unable: list[str] = []
        for name, able in candidates.items():
            if able(device):
                break
            unable.append(name)
        else:
            raise BadInput(f"{operation} cannot run on {device}: none of {', '.join(candidates)} is able")
        _chosen[key] = name
        log.info("kernels: %s on %s uses %s%s", operation, device, name, f", not {', '.join(unable)}" if unable else "")
    return _chosen[key]


@contextmanager
def override(operation: str, implementation: str) -> Iterator[None]:
    """``with override("attention", "torch"): ...`` uses that implementation inside, on every device and thread.

    For tests and benchmarks: the named implementation is not asked whether it is able.
    """
    before = _overrides.get(operation)
    _overrides[operation] = implementation
    try:
        yield
    finally:
        if before is None:
            del _overrides[operation]
        else:
            _overrides[operation] = before


def capability(device: torch.device) -> tuple[int, int] | None:
    """(major, minor) of a CUDA device, (9, 0) for an H100; None for anything else."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None
