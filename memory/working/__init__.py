"""Working memory: what an agent has in mind while it thinks, as keys and values in the cache of its planner.

The running story of its life is a projection of the journal (`projection.py`): records become lines (`story.py`), lines
become tokens, and where the budget ends the oldest are compacted (`stream.py`, `spans.py`).
"""
