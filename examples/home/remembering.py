"""The examination with recall switched off: what working memory alone knows of the notes, beside the whole story.

Apart from `notes`, because it needs torch, and the process of the world does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from perdure.memory.working.projection import WorkingMemory
from perdure.runtime.decoder import Decoder

from .notes import Note, Remembered

_PIECE = 64


def examined(working: WorkingMemory, told: Sequence[Note]) -> Remembered:
    """Ask for the notes: of working memory, and of a cache that holds the whole story as it was read."""
    working.advance(whole=True)
    tail = working.tail_text()
    asked = [note for note in told if note.text not in tail]
    right = sum(working.score(note.cue, note.answer)[0] for note in asked)
    counts, story = working.counts, working.story_tokens()
    return Remembered(
        asked=len(asked),
        right=right,
        right_whole=_whole(working, story, asked),
        story_tokens=len(story),
        slots=working.stream.slots,
        compactions=counts.compactions,
        merges=counts.merges,
        rebases=counts.rebases,
        seconds=counts.seconds,
    )


def _whole(working: WorkingMemory, story: Sequence[int], asked: Sequence[Note]) -> int | None:
    weights = working.stream.decoder.weights
    if len(story) + 2 * _PIECE > weights.config.context:
        return None
    decoder, right = Decoder(weights, len(story) + 2 * _PIECE), 0
    with torch.inference_mode():
        for at in range(0, len(story), _PIECE):
            decoder.read(story[at : at + _PIECE])
        for note in asked:
            cue, answer = working.encode(note.cue), working.encode(note.answer)
            logits = decoder.read([*cue, *answer], all_logits=True)[len(cue) - 1 : -1]
            decoder.cache.truncate(len(story))
            right += bool((logits.argmax(-1) == torch.tensor(answer)).all())
    return right
