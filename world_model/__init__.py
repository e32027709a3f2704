"""World model: what the agent believes about the state of things. It does not know how records are stored.

Today that is `Beliefs`, estimates made of told facts; `README.md` says what is here and what is not.
"""

from .beliefs import Beliefs

__all__ = ["Beliefs"]
