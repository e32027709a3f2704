"""Who proposes what an errand means, for comparison: somebody who does not read it."""

from __future__ import annotations

import random
import threading

from perdure.agent import Call, Menu
from perdure.records import Record


class RandomProposer:
    """As many proposals as the planner makes, one with each tool, all at random; foresight chooses as ever."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def propose(self, told: Record, menu: Menu, cancel: threading.Event) -> list[Call]:
        """See `perdure.agent.Proposer`."""
        rng = random.Random(f"{self._seed} {told.seq}")
        found = []
        for name in rng.sample(sorted(menu.tools), len(menu.tools)):
            arguments = {}
            for argument in menu.tools[name].arguments.model_fields:
                values = menu.options(name, argument)
                if values:
                    arguments[argument] = rng.choice(list(values))
            found.append(Call(name, arguments, told.seq))
        return found
