"""All that can be asked, by kind."""

from __future__ import annotations

from .ground import Candidate, Draw, Ground
from .question import Kind
from .several import changed, count_flips, count_moved, count_seen, order_of, usual_place, usual_time, why
from .single import when_did, where_at, where_before, where_person, where_taken, where_when, who_did, who_moved

__all__ = ["DRAWS", "Candidate", "Ground"]

DRAWS: dict[Kind, tuple[Draw, ...]] = {
    "where": (where_at, where_when, where_at, where_before, where_taken, where_person),
    "when": (when_did,),
    "who": (who_moved, who_did),
    "how_often": (count_moved, count_flips, count_seen),
    "order": (order_of,),
    "changed": (changed,),
    "why": (why,),
    "usual": (usual_place, usual_time, usual_place),
}
