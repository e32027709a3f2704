"""A story without end in a cache of fixed size: read, compact, merge, re-base, ask.

Knows tokens and what each operation does to the numbers. Does not know the journal, nor what the tokens say. An
operation depends on nothing but those before it, so the same operations on the same build and number of threads give
the same bytes.

    pinned | span span ... span | tail of tokens as they were read | room for a branch
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...errors import BadInput
from ...runtime.decoder import Decoder
from ...runtime.quantize import ModelWeights
from .queries import QueryRing, turned
from .spans import Span, joined, merge_pair, merged, pinned, spanned

__all__ = ["Policy", "Stream"]


@dataclass(frozen=True)
class Policy:
    """Sizes of a working memory, in slots: keys that a head holds, on the average over heads and layers.

    Attributes:
        budget_slots: never more, branches included.
        read_tokens: tokens read at once.
        chunk_tokens: tokens that leave the tail at once; they become one span.
        span_slots: slots of a span.
        branch_tokens: room for a question and its answer, or for a rehearsal.
        recent_slots: newest queries of a KV head that serve as examples.
        rehearse: read the tokens that leave once more, after the rest, for examples of queries that look back at them.
        horizon: positions are re-based before the newest token passes this; 0: the model's trained window.
    """

    budget_slots: int = 2048
    read_tokens: int = 128
    chunk_tokens: int = 256
    span_slots: int = 64
    branch_tokens: int = 288
    recent_slots: int = 1024
    rehearse: bool = True
    horizon: int = 0

    def __post_init__(self) -> None:
        if min(asdict(self).values()) < 0 or not 1 <= self.span_slots <= self.chunk_tokens:
            raise BadInput(f"expected sizes of at least 1 and span_slots <= chunk_tokens, got {self}")
        if self.read_tokens < 1 or self.branch_tokens < self.chunk_tokens * self.rehearse or self.recent_slots < 1:
            raise BadInput(f"expected read_tokens of at least 1 and branch_tokens >= chunk_tokens, got {self}")
        if self.most_spans < 2 or self.most_tail < self.chunk_tokens + self.read_tokens:
            raise BadInput(
                f"expected a budget_slots of two spans, a chunk, a read and a branch at least, got {self}; "
                "give more budget_slots"
            )

    @property
    def most_spans(self) -> int:
        """Half of what branches leave is for spans."""
        return (self.budget_slots - self.branch_tokens) // 2 // self.span_slots - 1

    @property
    def most_tail(self) -> int:
        """Tokens that the tail, with the pinned beginning, holds at most; there is one span more before a merge."""
        return self.budget_slots - self.branch_tokens - (self.most_spans + 1) * self.span_slots


class Stream:
    """The numbers of a working memory.

    Args:
        weights: of the planner; shared, not copied.
        policy: sizes.
        preamble: token ids that stay as they are for ever.
        keep: share of the slots of a span that each KV head gets, [layers * kv_heads], mean 1; None: all alike.

    Attributes:
        decoder: the model with the cache.
        spans: what is left of what no longer fits, oldest first; without the pinned beginning.
        read_tokens: tokens that were ever read.
    """

    def __init__(
        self, weights: ModelWeights, policy: Policy, preamble: Sequence[int], keep: Sequence[float] | None = None
    ) -> None:
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
        heads = config.layers * config.kv_heads
        self.keep = _shares(keep or [1.0] * heads, policy, heads)
        sizes = config.layers, config.kv_heads, config.head_dim
        self.recent = QueryRing(*sizes, policy.recent_slots, stride=4)
        self.asked = QueryRing(*sizes, max(1, policy.recent_slots // 2))
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
            found[f"span.{i}.q"] = span.queries_SND
        found["recent"], found["asked"] = self.recent.vectors_LKND, self.asked.vectors_LKND
        return found

    def counts(self) -> dict[str, Any]:
        """What else there is to know, as JSON values."""
        return {
            "tokens": list(self.cache.tokens),
            "base": self.cache.base,
            "read": self.read_tokens,
            "spans": [span.tokens for span in [self.pinned, *self.spans]],
            "recent": self.recent.count,
            "asked": self.asked.count,
        }

    def replace(self, pinned: Span, spans: Sequence[Span], base: int, read_tokens: int) -> None:
        """Take over the spans of a snapshot, with an empty tail that begins at position ``base``."""
        self.pinned, self.spans, self.read_tokens = pinned, list(spans), read_tokens
        self.cache.truncate(0)
        self.cache.base = base
        self.cache.compacted(0, self._kept())

    # -------------------------------------------------------------- operations

    def read(self, tokens: Sequence[int]) -> None:
        """Go on with the story.

        Raises:
            BadInput: something is due first, or an id is unknown.
        """
        if (due := self.due(len(tokens))) is not None:
            raise BadInput(f"expected no {due} to be due, one is before {len(tokens)} more tokens")
        self._read(tokens, self.recent.observe)
        self.read_tokens += len(tokens)

    def compact(self) -> None:
        """The oldest chunk of the tail becomes a span.

        Raises:
            BadInput: the tail is no longer than a chunk.
        """
        rows = self.policy.chunk_tokens
        if self.cache.length <= rows:
            raise BadInput(f"expected more than {rows} tokens in the tail, there are {self.cache.length}")
        examples = self._examples(rows)
        with torch.inference_mode():
            self.spans.append(spanned(self.cache, rows, self.keep, examples))
            self.cache.compacted(rows, self._kept())
            self.cache.past.clear()  # the journal knows them; a list of them would grow with the life

    def merge(self) -> None:
        """Two neighbouring spans become one."""
        at = merge_pair(self.spans, self.cache.length)
        with torch.inference_mode():
            both = merged(self.spans[at], self.spans[at + 1], self.keep, self._free())
            self.spans[at : at + 2] = [both]
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
                return self.decoder.read(tokens, all_logits=all_logits)
        finally:
            self.decoder.observe = None

    def _examples(self, rows: int) -> Tensor:
        """Queries that the rows shall be matched for: a rehearsal of them, then the agent's own."""
        free = self._free()
        if not self.policy.rehearse and free.shape[1] >= 2 * max(self.keep):
            return free
        length = self.cache.length
        if self.cache.capacity - length < rows:
            raise BadInput(f"expected room for a rehearsal of {rows} tokens; give more branch_tokens")
        layers, kv_heads, _, dim = self.recent.vectors_LKND.shape
        rehearsal = QueryRing(layers, kv_heads, dim, rows * self._group)
        self._read(self.cache.tokens[:rows], rehearsal.observe)
        self.forget(length)
        return torch.cat([rehearsal.newest(), free], dim=1)

    def _free(self) -> Tensor:
        return torch.cat([self.asked.newest(), self.recent.newest()], dim=1)

    def _room(self, tokens: int) -> None:
        room = self.cache.capacity - self.cache.length
        if not 1 <= tokens <= room:
            raise BadInput(f"expected a question of 1 to {room} tokens, got {tokens}; ask shorter")

    def _kept(self) -> list[Any]:
        return joined([self.pinned, *self.spans], self._layers)


def _shares(keep: Sequence[float], policy: Policy, heads: int) -> list[int]:
    """Slots of a span for each head, about ``span_slots`` on the average."""
    if len(keep) != heads or min(keep) < 0:
        raise BadInput(f"expected {heads} shares of at least 0, got {len(keep)}")
    mean = sum(keep) / heads
    return [min(policy.chunk_tokens, max(4, round(policy.span_slots * share / mean))) for share in keep]
