"""Replay: live a journal again, and compare what it gives with what is stored.

It is the proof that projections are nothing but the journal: same records and same producers, same content. It knows
nothing of what the projections hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .checking import Comparison
from .memory import Encoders, Memory

__all__ = ["Comparison", "ReplayReport", "replay"]


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay found."""

    records: int
    """Records in the journal."""
    rows: tuple[Comparison, ...]
    """One for each stored projection whose producer is at hand."""

    @property
    def equal(self) -> bool:
        """Whether every projection is what the journal gives."""
        return all(row.equal for row in self.rows)


def replay(root: Path | str, *, encoders: Encoders | None = None) -> ReplayReport:
    """Derive every projection of the agent in ``root`` anew, in a private temporary folder, and compare digests.

    Nothing in ``root`` is changed; it may be in use.

    Args:
        root: the agent's directory.
        encoders: those that it was filled with; without the text encoder its vectors are left out.

    Raises:
        BadInput: ``root`` is not an agent's directory.
        VersionError: another Perdure wrote it.
        DamagedError: the journal or a pack cannot be read.
    """
    with Memory.open(root, encoders=encoders, read_only=True) as memory:
        return ReplayReport(memory.journal.last_seq(), tuple(memory.compare()))
