"""Questions to the planner with nothing but the story of its life before it: wordings in, answers out.

Knows how a question becomes the beginning of a sentence, which small models go on with far better than they answer. It
does not know the story. What comes out has no evidence: it is what the planner says.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from .findings import Finding

if TYPE_CHECKING:
    from ..memory.working.projection import Said

_RULES = (
    (r"where (is|are|was|were) (.+?) (kept|stored|hidden|lying)", r"\2 \1 \3 in the"),
    (r"(?:where|what|who) (is|are|was|were) (.+?)", r"\2 \1"),
)


def cue(question: str) -> str:
    """The beginning of the sentence that answers; words without a question mark are taken as one already.

    >>> cue("Where is the spare key kept?")
    'The spare key is kept in the'
    >>> cue("The code of the gate is")
    'The code of the gate is'
    >>> cue("Did Anna call?")
    'Question: Did Anna call?\\nAnswer:'
    """
    text = " ".join(question.split())
    if not text.endswith("?"):
        return text
    for pattern, beginning in _RULES:
        if found := re.fullmatch(pattern, text[:-1].strip(), re.IGNORECASE):
            said = found.expand(beginning)
            return said[0].upper() + said[1:]
    return f"Question: {text}\nAnswer:"


def recalled(said: Said) -> tuple[Finding, str]:
    """What was said as a finding without evidence; its confidence is the mean probability of a token."""
    text = said.text.rstrip(".")
    mean = math.exp(said.log_probability / max(1, said.tokens))
    reason = "what the planner says after the story of its life; nothing was looked up"
    return Finding(text, text, text, (), mean, reason), text
