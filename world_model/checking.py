"""Is the world model what the journal gives? It compares the kept one with one that is folded anew."""

from __future__ import annotations

from ..memory import Memory
from ..memory.checking import Comparison
from .model import KINDS, WorldModel

NAME = "world"
"""Of the world model among projections."""


def compare(memory: Memory) -> Comparison:
    """The world model from its snapshot beside one made of the whole journal."""
    kept = WorldModel(memory)
    seq = kept.catch_up()
    return Comparison(NAME, seq, kept.fold.digest(), _folded(memory, seq).fold.digest())


def rebuild(memory: Memory) -> int:
    """Drop the snapshot and fold the journal anew; returns the record that the new one reflects.

    Args:
        memory: open for writing or upkeep.
    """
    model = WorldModel(memory)
    model.fold = _folded(memory, memory.journal.last_seq()).fold
    model.snapshot()
    return model.fold.seq


def _folded(memory: Memory, seq: int) -> WorldModel:
    fresh = WorldModel()
    for record in memory.journal.read(until=seq, kinds=KINDS):
        fresh.apply(record)
    fresh.fold.seq = seq
    return fresh
