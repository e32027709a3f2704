"""When two names mean one thing for memory: as the language layer says, and "my keys" are just "the keys"."""

from __future__ import annotations

import re

from ..perception.words import entity_key, entity_match

_OWNERS = re.compile(r"^\s*(?:owner's|my)\s+", re.IGNORECASE)


def thing_key(name: str) -> str:
    """What the names of one thing have in common; the owner's key is just "the key"."""
    return entity_key(_OWNERS.sub("", name))


def name_match(asked: str, known: str) -> int:
    """How well a known name answers to an asked one: 3 same, 2 same but for a possessor, 1 fuller, 0 not at all."""
    bare, other = _OWNERS.sub("", asked), _OWNERS.sub("", known)
    if bare != asked and "'s " in other:
        return 0
    return entity_match(bare, other)
