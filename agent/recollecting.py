"""Answers from what recall finds, put before the planner as pages: attention instead of text read again.

Knows how hits become what the planner has in mind while it goes on with a sentence. Does not know how pages are made
(memory/working/pages.py). What comes out is what the planner says; its evidence is what it had before it.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

import torch

from ..memory import Memory
from ..memory.working.pages import PageSettings, PageStore, page_text
from ..runtime.decoder import Decoder
from .asking_oneself import cue
from .findings import Finding, as_evidence, unknown

if TYPE_CHECKING:
    from ..runtime.planner import LocalPlanner

_MOST_TOKENS = 32
_ROOM = 1024
"""Tokens for the text of hits without a page, the question and its answer; worse hits are left out beyond."""


class Recollection:
    """The pages of an agent's memory, and a decoder of their own to ask them with.

    Args:
        memory: what recall searches.
        planner: must run in our own decoder.
        settings: of new pages.

    Raises:
        BadInput: the planner runs elsewhere, or has a window.
    """

    def __init__(self, memory: Memory, planner: LocalPlanner, settings: PageSettings) -> None:
        self.store = PageStore(memory.root, planner, settings)
        self._memory, self._tokenizer = memory, planner.tokenizer
        engine = planner.engine
        assert isinstance(engine, Decoder)
        self._decoder = Decoder(engine.weights, _ROOM)
        self._lock = threading.Lock()

    def advance(self, budget_s: float | None = None) -> bool:
        """Make pages of what came since, for slack time: see `PageStore.advance`."""
        with self._lock:
            return self.store.advance(self._memory.journal, budget_s)

    def ask(self, question: str, k: int = 10) -> Finding:
        """Go on with the sentence that answers, with the ``k`` best hits of recall in mind.

        Args:
            question: best the beginning of a sentence: "The spare key is in the".
            k: hits, from 1.
        """
        found = self._memory.recall(question, k=k, kinds=["event", "told", "outcome"])
        if not found.hits:
            return unknown(found.note or "nothing that I remember speaks of that")
        records = {hit.record.seq: hit.record for hit in found.hits}
        asked = self._tokenizer.encode(cue(question))[-_ROOM // 2 :]
        with self._lock, torch.inference_mode(), self.store.spliced(self._decoder, list(records), asked) as spliced:
            texts = [page_text(records[seq]) for seq in spliced.missing]
            text, probability = self._go_on(texts, asked, preamble=not spliced.pages)
        evidence = tuple(as_evidence(hit.record, "recalled before it was said", hit.score) for hit in found.hits)
        reason = f"what the planner says with {len(records)} recalled records in mind, {len(spliced.pages)} as pages"
        return Finding(text, text, text, evidence, probability, reason)

    def _go_on(self, texts: list[str], asked: list[int], *, preamble: bool) -> tuple[str, float]:
        """(the rest of the sentence, mean probability of its tokens), the best text read last."""
        room = self._decoder.cache.room - len(asked) - _MOST_TOKENS
        head = self._tokenizer.encode(self.store.settings.preamble) if preamble else []
        before: list[int] = []
        for text in texts:
            tokens = self._tokenizer.encode(text)
            if len(head) + len(tokens) + len(before) > room:
                break
            before = tokens + before
        logits = self._decoder.read(head + before + asked)
        said: list[int] = []
        total = 0.0
        while len(said) < _MOST_TOKENS:
            token = int(logits.argmax())
            piece = self._tokenizer.decode([token])
            if token in self._tokenizer.eos or "\n" in piece or "." in piece:
                break
            said.append(token)
            total += float(logits.log_softmax(-1)[token])
            logits = self._decoder.read([token])
        return self._tokenizer.decode(said).strip(), math.exp(total / max(1, len(said)))
