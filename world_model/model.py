"""`WorldModel`: the front door of the room. It keeps the fold level with the journal and puts the questions to it.

Opening does not read the whole journal again: a snapshot of the fold lies in ``DIR/world/`` with the number of the
newest record it reflects and a checksum. One that is torn, foreign or ahead of the journal is refused, and the fold is
made anew. Nothing is in a snapshot that the journal does not give.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from zoneinfo import ZoneInfo

import networkx as nx

from ..memory import Memory
from ..memory.directory import write_atomically
from ..records import Record
from .beliefs import Beliefs
from .fold import VERSION, Fold
from .foresight import Foresight
from .geography import Geography
from .habits import Habits

logger = logging.getLogger("perdure")

KINDS = ("event", "lesson", "intent", "outcome")


class WorldModel(Habits, Foresight):
    """What the agent knows of the world it sees.

    Args:
        memory: the journal behind it; None for a model that is fed by `apply` alone.
    """

    def __init__(self, memory: Memory | None = None) -> None:
        self.memory = memory
        self.fold = Fold()
        self.told = None if memory is None else Beliefs(memory)
        if memory is not None:
            self.zone = ZoneInfo(memory.settings.zone)
            self.restore()

    # -------------------------------------------------------------- keeping level

    def apply(self, record: Record) -> None:
        """Take in one record that was just stored; those already known are ignored."""
        self.fold.apply(record)

    def catch_up(self) -> int:
        """Read what the journal has and the fold has not; returns the newest record it then reflects."""
        if self.memory is None:
            return self.fold.seq
        last = self.memory.journal.last_seq()
        if last < self.fold.seq:
            self.fold = Fold()
        if last > self.fold.seq:
            for record in self.memory.journal.read(after=self.fold.seq, until=last, kinds=KINDS):
                self.fold.apply(record)
            self.fold.seq = last
        return self.fold.seq

    def digest(self) -> str:
        """sha256 of all that is known, level with the journal; equal for equal journals."""
        self.catch_up()
        return self.fold.digest()

    def snapshot(self) -> Path | None:
        """Write the fold to ``DIR/world/fold.json``; a crash leaves the old one or the new one."""
        if self.memory is None or self.memory.read_only:
            return None
        folder = self.memory.root / "world"
        folder.mkdir(exist_ok=True)
        body = self.fold.dump()
        head = {"version": VERSION, "seq": self.fold.seq, "sha256": hashlib.sha256(body).hexdigest()}
        path = folder / "fold.json"
        write_atomically(path, json.dumps(head).encode() + b"\n" + body)
        return path

    def restore(self) -> bool:
        """Take the newest snapshot if it fits the journal; else begin anew. Returns whether one was taken."""
        assert self.memory is not None
        self.fold = Fold()
        path = self.memory.root / "world" / "fold.json"
        if not path.exists():
            return False
        try:
            head_line, _, body = path.read_bytes().partition(b"\n")
            head = json.loads(head_line)
            fits = head["version"] == VERSION and head["sha256"] == hashlib.sha256(body).hexdigest()
            if not fits or head["seq"] > self.memory.journal.last_seq():
                raise ValueError("it is of another version, torn, or ahead of the journal")
            self.fold = Fold.from_state(json.loads(body))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            logger.warning("the snapshot %s is refused (%s); the world model is made anew", path, error)
            self.fold = Fold()
            return False
        return True

    # -------------------------------------------------------------------- the map

    @property
    def map(self) -> Geography:
        """Cells, fixtures and rooms."""
        return self.fold.map

    @property
    def graph(self) -> nx.Graph:
        """Cells one can stand on, joined where one can step."""
        return self.fold.map.graph
