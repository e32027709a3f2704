"""What you will see: an agent with a tool that must never be done twice, killed while it acts, and awake again.

The tool drops a letter into a mailbox (a folder). On the second run the agent finds that it died between intent and
outcome, looks into the mailbox, and notes what became of the letter instead of posting it again.

    perdure's python: examples/doorkeeper.py DIR        posts the letter, and dies while it does
    perdure's python: examples/doorkeeper.py DIR        wakes up, settles what was open, posts nothing
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from perdure import Agent, tool
from perdure.records import OutcomeStatus


@dataclass
class Duties:
    """Saved whenever it changes; a plain attribute of the agent would be lost."""

    mailbox: str = "mailbox"
    letters_posted: int = 0


class Doorkeeper(Agent):
    """Posts letters."""

    State = Duties

    def look_for_letter(self, text: str) -> OutcomeStatus:
        """What became of a letter that was being posted when the agent died."""
        there = (Path(self.state.mailbox) / "letter.txt").exists()
        return OutcomeStatus.DONE if there else OutcomeStatus.FAILED

    @tool(effect="irreversible", timeout_s=10, recover=look_for_letter)
    def post_letter(self, text: str) -> str:
        """Post a letter; it cannot be taken back."""
        mailbox = Path(self.state.mailbox)
        mailbox.mkdir(parents=True, exist_ok=True)
        (mailbox / "letter.txt").open("a").write(text + "\n")
        os.kill(os.getpid(), signal.SIGKILL)  # the worst moment: it is done, and nobody has noted it
        return "posted"


def main() -> None:
    home = Path(sys.argv[1] if len(sys.argv) > 1 else "doorkeeper.perdure")
    with Doorkeeper.open(home) as keeper:
        keeper.state.mailbox = str(home.parent / "mailbox")
        posted = [r for r in keeper.memory.journal.read(kinds=["outcome"]) if r.payload["how"] == "recover"]
        if posted:
            print(f"already settled: {posted[0].payload['status']}, posted nothing")
            return
        keeper.save_state()
        order = keeper.tell("Please post the letter to Anna.")
        keeper.post_letter("Dear Anna", cause=order)


if __name__ == "__main__":
    main()
