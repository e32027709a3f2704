"""A story without end in a cache of fixed size: read, compact, merge, re-base, ask.

Knows tokens and what each operation does to the numbers. Does not know the journal, nor what the tokens say. An
operation depends on nothing but those before it, so the same operations on the same build and number of threads give
the same bytes.

    pinned | span span ... span | tail of tokens as they were read | room for a branch
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import BadInput
from ...kernels.decoder_layers import MAX_TOKENS
from ...runtime.decoder import Decoder
from ...runtime.quantize import ModelWeights
from ...runtime.ragged import turned
from .queries import QueryRing
from .spans import Span, joined, merge_pair, merged, pinned, spanned

__all__ = ["Policy", "Stream"]


@dataclass(frozen=True)
class Policy:
    """Sizes of a working memory, in slots: keys that a head holds, on the average over heads and layers.

    Attributes:
        budget_slots: never more, branches included.
        read_tokens: tokens read at once; 64 or fewer are read fastest.
        chunk_tokens: tokens that leave the tail at once; they become one span.
        span_slots: slots of a span.
        branch_tokens: room for a question and its answer, or for a rehearsal.
        example_queries: newest queries of a KV head that serve as examples, and half as many of questions.
        rehearse: before a chunk leaves, read it once more after the rest, for queries that look back at it; before two
            spans are merged, what was told in them.
        horizon: positions are re-based before the newest token passes this; 0: the model's trained window.
    """

    budget_slots: int = 2048
    read_tokens: int = 64
    chunk_tokens: int = 256
    span_slots: int = 64
    branch_tokens: int = 288
    example_queries: int = 256
    rehearse: bool = True
    horizon: int = 0

    def __post_init__(self) -> None:
        if min(self.read_tokens, self.span_slots, self.example_queries) < 1 or self.horizon < 0:
            raise BadInput(f"expected sizes of at least 1, got {self}")
        if self.span_slots > self.chunk_tokens or self.branch_tokens < self.chunk_tokens * self.rehearse:
            raise BadInput(f"expected span_slots <= chunk_tokens <= branch_tokens, got {self}")
        if self.most_spans < 2:
            raise BadInput(
                f"expected a budget_slots of a branch, a chunk, four reads and three spans at least, got {self}; "
                "give more budget_slots"
            )

    @property
    def most_tail(self) -> int:
        """Tokens that the tail, with the pinned beginning, holds at most."""
        return self.chunk_tokens + 4 * self.read_tokens

    @property
    def most_spans(self) -> int:
        """Spans before two are merged; for a moment there is one more."""
        return (self.budget_slots - self.branch_tokens - self.most_tail) // self.span_slots - 1


class Stream:
    """The numbers of a working memory.

    Args:
        weights: of the planner; shared, not copied.
        policy: sizes.
        preamble: token ids that stay as they are for ever.

    Attributes:
        decoder: the model with the cache.
        spans: what is left of what no longer fits, oldest first; without the pinned beginning.
        told: of each token of the tail, whether it is worth rehearsing later.
        read_tokens: tokens that were ever read.
    """

    def __init__(self, weights: ModelWeights, policy: Policy, preamble: Sequence[int]) -> None:
        config = weights.config
        self.policy = policy
        self.horizon = min(policy.horizon or config.context, config.context)
        capacity = policy.most_tail + policy.branch_tokens
        if not 1 <= len(preamble) <= policy.most_tail - policy.chunk_tokens - policy.read_tokens:
            raise BadInput(f"expected a preamble that leaves room for the story, got {len(preamble)} tokens")
        if self.horizon < 2 * (capacity + len(preamble)):
            raise BadInput(f"expected a horizon of at least {2 * (capacity + len(preamble))}, got {self.horizon}")
        if config.window is not None:
            raise BadInput("expected a model that attends to everything; one with a sliding window drops it exactly")
        self.decoder = Decoder(weights, capacity)
        self._frequencies = torch.tensor(config.inverse_frequencies, dtype=torch.float64)
        sizes = config.layers, config.kv_heads, config.head_dim
        self.recent = QueryRing(*sizes, policy.example_queries, stride=4)
        self.asked = QueryRing(*sizes, max(1, policy.example_queries // 2))
        self.told: list[bool] = []
        self.spans: list[Span] = []
        self.read_tokens = 0
        self._layers, self._group = config.layers, config.heads // config.kv_heads
        with torch.inference_mode():
            self.decoder.read(list(preamble))
            self.pinned = pinned(self.decoder.cache, len(preamble))
            self.decoder.cache.compacted(len(preamble), self._kept())

    # ------------------------------------------------------------------- state

    @property
    def cache(self) -> Any:
        """The cache of the story."""
        return self.decoder.cache

    @property
    def slots(self) -> float:
        """Keys that a head holds, on the average."""
        return float(self.cache.slots)

    def due(self, tokens: int) -> str | None:
        """What must be done before so many tokens can be read: ``merge``, ``rebase``, ``compact`` or nothing."""
        if len(self.spans) > self.policy.most_spans:
            return "merge"
        if self.cache.base + self.cache.capacity > self.horizon:
            return "rebase"
        if self.pinned.tokens + self.cache.length + tokens > self.policy.most_tail:
            return "compact"
        return None

    def digest(self) -> str:
        """sha256 over everything that later numbers depend on."""
        digest = hashlib.sha256()
        for tensor in self.tensors().values():
            digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
        digest.update(repr(self.counts()).encode())
        return digest.hexdigest()

    def tensors(self) -> dict[str, Tensor]:
        """All numbers, by name."""
        cache, found = self.cache, {}
        for i, layer in enumerate(cache.layers):
            found[f"k.{i}"] = layer.keys[:, :, : cache.length].contiguous()
            found[f"v.{i}"] = layer.values[:, :, : cache.length].contiguous()
        for i, span in enumerate([self.pinned, *self.spans]):
            kv = span.kv
            parts = {"k": kv.k_ND, "v": kv.v_ND, "cu": kv.cu_len, "bias": kv.bias_N, "pos": kv.pos_N}
            found |= {f"span.{i}.{name}": part for name, part in parts.items() if part is not None}
        found["recent"], found["asked"] = self.recent.vectors_LKND, self.asked.vectors_LKND
        return found

    def counts(self) -> dict[str, Any]:
        """What else there is to know, as JSON values."""
        return {
            "tokens": list(self.cache.tokens),
            "base": self.cache.base,
            "read": self.read_tokens,
            "told": [int(told) for told in self.told],
            "spans": [[span.tokens, *span.told] for span in [self.pinned, *self.spans]],
            "recent": self.recent.count,
            "asked": self.asked.count,
        }

    def replace(self, spans: Sequence[Span], base: int) -> None:
        """Take over the spans of a snapshot, pinned first, with an empty tail that begins at position ``base``."""
        self.pinned, self.spans = spans[0], list(spans[1:])
        self.cache.truncate(0)
        self.cache.base = base
        self.cache.compacted(0, self._kept())

    # -------------------------------------------------------------- operations

    def read(self, tokens: Sequence[int], told: Sequence[bool] = ()) -> None:
        """Go on with the story.

        Args:
            tokens: ids.
            told: of each, whether it is worth rehearsing when it gets old; none is by default.

        Raises:
            BadInput: something is due first, or an id is unknown.
        """
        if (due := self.due(len(tokens))) is not None:
            raise BadInput(f"expected no {due} to be due, one is before {len(tokens)} more tokens")
        self._read(tokens, self.recent.observe)
        self.told += list(told) or [False] * len(tokens)
        self.read_tokens += len(tokens)

    def compact(self) -> None:
        """The oldest chunk of the tail becomes a span.

        Raises:
            BadInput: the tail is no longer than a chunk.
        """
        rows = self.policy.chunk_tokens
        if self.cache.length <= rows:
            raise BadInput(f"expected more than {rows} tokens in the tail, there are {self.cache.length}")
        leaving = list(self.cache.tokens[:rows])
        examples = self._examples(leaving)
        worth = [token for token, told in zip(leaving, self.told, strict=False) if told]
        with torch.inference_mode():
            beside = [self.pinned, *self.spans]
            self.spans.append(spanned(self.cache, rows, self.policy.span_slots, examples, beside, worth))
            self.cache.compacted(rows, self._kept())
        self.cache.past.clear()  # the journal knows them; a list of them would grow with the life
        del self.told[:rows]

    def merge(self) -> None:
        """Two neighbouring spans become one."""
        at = merge_pair(self.spans, self.cache.length)
        first, second = self.spans[at : at + 2]
        worth = (*first.told, *second.told)[-self.policy.chunk_tokens :]
        examples = self._examples(worth)
        with torch.inference_mode():
            beside = [self.pinned, *self.spans[:at], *self.spans[at + 2 :]]
            kv = merged(first, second, self.policy.span_slots, examples, self.cache, beside)
            self.spans[at : at + 2] = [Span(first.tokens + second.tokens, kv, worth)]
            self.cache.compacted(0, self._kept())

    def rebase(self) -> None:
        """Move everything but the beginning back, so that positions stay in the trained window.

        The tail goes to half of the horizon; spans go with it, but never to before the end of the beginning.
        """
        cache = self.cache
        shift = cache.base - self.horizon // 2
        if shift <= 0:
            raise BadInput(f"expected a base beyond {self.horizon // 2} to move back, it is {cache.base}")
        with torch.inference_mode():
            spans = []
            for span in self.spans:
                assert span.kv.pos_N is not None
                room = max(0, int(span.kv.pos_N.min()) - self.pinned.tokens)
                spans.append(span.moved(-min(shift, room), self._frequencies))
            self.spans = spans
            for layer in cache.layers:
                rows = layer.keys[:, :, : cache.length]
                rows.copy_(turned(rows, -shift, self._frequencies))
            for ring in (self.recent, self.asked):
                ring.turn(-shift, self._frequencies)
            cache.base -= shift
            cache.compacted(0, self._kept())

    def ask(self, tokens: Sequence[int], *, observe: bool = True) -> Tensor:
        """Read tokens on a branch; `forget` ends it. Their queries become examples of what is asked.

        Returns:
            float32 logits [M, vocab] after every token.

        Raises:
            BadInput: the branch has no room for so many.
        """
        self._room(len(tokens))
        return self._read(tokens, self.asked.observe if observe else None, all_logits=True)

    def forget(self, length: int) -> None:
        """End a branch that began when the tail had ``length`` tokens."""
        self.cache.truncate(length)

    # ------------------------------------------------------------------ inside

    def _read(
        self, tokens: Sequence[int], observe: Callable[[int, Tensor], None] | None, *, all_logits: bool = False
    ) -> Tensor:
        self.decoder.observe = observe
        try:
            with torch.inference_mode():
                pieces = [tokens[at : at + MAX_TOKENS] for at in range(0, len(tokens), MAX_TOKENS)]
                logits = [self.decoder.read(piece, all_logits=all_logits) for piece in pieces]
                return torch.cat(logits) if all_logits else logits[-1]
        finally:
            self.decoder.observe = None

    def _examples(self, tokens: Sequence[int]) -> Tensor:
        """Queries [S, N, D] to match for: those of the agent's own reading, and of a rehearsal of some tokens."""
        own = torch.cat([self.asked.newest(), self.recent.newest()], dim=1)
        if not self.policy.rehearse or not tokens:
            return own
        layers, kv_heads, _, dim = self.recent.vectors_LKND.shape
        rehearsal = QueryRing(layers, kv_heads, dim, len(tokens) * self._group)
        length = self.cache.length
        self._read(tokens, rehearsal.observe)
        self.forget(length)
        return torch.cat([rehearsal.newest(), own], dim=1)

    def _room(self, tokens: int) -> None:
        room = self.cache.capacity - self.cache.length
        if not 1 <= tokens <= room:
            raise BadInput(f"expected a question of 1 to {room} tokens, got {tokens}; ask shorter")

    def _kept(self) -> list[Any]:
        return joined([self.pinned, *self.spans], self._layers)
