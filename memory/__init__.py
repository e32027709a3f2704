"""Memory: the journal and its projections; recall; facts. It does not know what the agent wants.

The journal (`journal.py`, `packs.py`) is the truth. Words, vectors and facts are projections of it
(`projection.py`, `words.py`, `vectors.py`, `facts.py`): each can be dropped and derived again.
"""

from .directory import Settings
from .memory import Encoders, Memory
from .steps import Step

__all__ = ["Encoders", "Memory", "Settings", "Step"]
