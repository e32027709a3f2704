"""The agent: goals, tools and their effects, asking and telling, the life loop, the inspector.

It knows what an agent wants and does. It does not know SQL, FAISS or Triton.
"""

from .agent import Agent, Parts
from .body import Body, EnvBody, StepClock
from .defaults import default_parts
from .deliberating import Menu, PlannerProposer, Proposer
from .eyes import Eyes, SceneEyes, VideoEyes, taught_reader
from .ledger import ActFailed, NotAllowed
from .loop import Call, Heard, LifeReport, Situation
from .remote import RemoteBody, WorldGone, serve
from .tools import tool
from .watching import WatchReport

__all__ = [
    "ActFailed",
    "Agent",
    "Body",
    "Call",
    "EnvBody",
    "Eyes",
    "Heard",
    "LifeReport",
    "Menu",
    "NotAllowed",
    "Parts",
    "PlannerProposer",
    "Proposer",
    "RemoteBody",
    "SceneEyes",
    "Situation",
    "StepClock",
    "VideoEyes",
    "WatchReport",
    "WorldGone",
    "default_parts",
    "serve",
    "taught_reader",
    "tool",
]
