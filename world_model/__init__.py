"""World model: what the agent believes about the state of things. It does not know how records are stored.

`Beliefs` are estimates made of told facts; `WorldModel` is what was seen, folded from the journal; `SceneWatcher` finds
what changed in what is seen now. `README.md` says what is here and what is not.
"""

from .beliefs import Beliefs
from .doubt import Caution
from .model import WorldModel
from .sight import SceneWatcher

__all__ = ["Beliefs", "Caution", "SceneWatcher", "WorldModel"]
