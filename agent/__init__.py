"""The agent: goals, tools and their effects, asking and telling, the life loop, the inspector.

It knows what an agent wants and does. It does not know SQL, FAISS or Triton.
"""

from .agent import Agent, Parts
from .body import Body, EnvBody, StepClock
from .defaults import default_parts
from .ledger import ActFailed, NotAllowed
from .loop import Call, LifeReport, Situation
from .tools import tool
from .watching import WatchReport

__all__ = [
    "ActFailed",
    "Agent",
    "Body",
    "Call",
    "EnvBody",
    "LifeReport",
    "NotAllowed",
    "Parts",
    "Situation",
    "StepClock",
    "WatchReport",
    "default_parts",
    "tool",
]
