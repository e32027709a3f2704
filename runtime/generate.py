"""From a prompt to an answer: prefix reuse, sampling, grammar, budget, cancellation, streaming.

Knows tokens and logits. Does not know messages or model files. Any `Engine` will do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor

from ..errors import BadInput
from .cache import KVCache
from .decoder import Cancelled
from .grammar import Grammar
from .tokenizer import Tokenizer

Stopped = Literal["end", "length", "cancelled"]


class Engine(Protocol):
    """Reads tokens into its cache and says what it expects next."""

    cache: KVCache
    vocab: int

    def read(self, tokens: Sequence[int], *, all_logits: bool = False, cancel: threading.Event | None = None) -> Tensor:
        """float32 logits [vocab] after the last token, or [M, vocab]."""


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn.

    Attributes:
        temperature: 0 takes the most probable token; else logits are divided by it.
        top_p: only the most probable tokens that together have this share, (0, 1].
        seed: of the generator; equal seeds give equal answers.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise BadInput(
                f"expected temperature >= 0 and 0 < top_p <= 1, got temperature {self.temperature}, top_p {self.top_p}"
            )


@dataclass(frozen=True)
class Completion:
    """One answer of a planner."""

    text: str
    prompt_tokens: int
    reused_tokens: int
    """Of the prompt, already in the cache."""
    new_tokens: int
    prefill_s: float
    decode_s: float
    stopped: Stopped
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Everything that is needed to get the same answer again."""


@dataclass(frozen=True)
class Limits:
    """When to stop, and who listens."""

    max_tokens: int = 256
    cancel: threading.Event | None = None
    on_text: Callable[[str], None] | None = None


def generate(
    engine: Engine,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    sampling: Sampling,
    limits: Limits,
    grammar: Grammar | None = None,
) -> Completion:
    """Answer a prompt. What the cache already holds of it is not read again.

    Args:
        prompt: token ids; prompt and answer must fit into the cache.
        grammar: a fresh one; its forced tokens are taken over without sampling.

    Raises:
        BadInput: the prompt is empty or does not fit.
    """
    if not prompt or limits.max_tokens < 1:
        raise BadInput(f"expected a prompt and max_tokens >= 1, got {len(prompt)} tokens and {limits.max_tokens}")
    started = time.perf_counter()
    reused = _reused(engine.cache, prompt)
    stopped: Stopped = "cancelled"
    tokens: list[int] = []
    read_at = started
    try:
        logits = engine.read(prompt[reused:], cancel=limits.cancel).cpu()
        read_at = time.perf_counter()
        stopped = _decode(engine, tokenizer, logits, sampling, limits, grammar, tokens)
    except Cancelled:
        read_at = time.perf_counter()
    ends = len(tokens) - 1 if tokens and tokens[-1] in tokenizer.eos else len(tokens)
    return Completion(
        text=tokenizer.decode(tokens[:ends]),
        prompt_tokens=len(prompt),
        reused_tokens=reused,
        new_tokens=len(tokens),
        prefill_s=read_at - started,
        decode_s=time.perf_counter() - read_at,
        stopped=stopped,
    )


def _reused(cache: KVCache, prompt: Sequence[int]) -> int:
    """Leave in the cache what it has read of the prompt, from the first token on; how many tokens that is.

    Kept keys stand for all of ``past`` together: where the prompt differs from it, everything is read afresh. Kept keys
    without a ``past`` (pages) come before every prompt.
    """
    # The last token is always read: its logits are needed.
    same = min(cache.shared_prefix(prompt), len(prompt) - 1)
    fresh = bool(cache.past) and same < len(cache.past)
    most = cache.capacity if fresh else len(cache.past) + cache.length + cache.room
    if len(prompt) + 1 > most:
        raise BadInput(
            f"expected a prompt of at most {most - 1} tokens, got {len(prompt)}; "
            "shorten it or load the planner with more context_tokens"
        )
    if fresh:
        cache.reset()
        return 0
    cache.truncate(same - len(cache.past))
    return same


def _decode(
    engine: Engine,
    tokenizer: Tokenizer,
    logits: Tensor,
    sampling: Sampling,
    limits: Limits,
    grammar: Grammar | None,
    tokens: list[int],
) -> Stopped:
    """Append tokens until something stops it."""
    draw = _sampler(sampling)
    stream = DecodeStream(skip_special_tokens=True)
    room = min(limits.max_tokens, engine.cache.room)
    while True:
        if limits.cancel is not None and limits.cancel.is_set():
            return "cancelled"
        new = [draw(logits)] if grammar is None else _constrained(grammar, logits, draw)
        new = new[: room - len(tokens)]
        for token in new:
            tokens.append(token)
            if token in tokenizer.eos:
                return "end"
            piece = stream.step(tokenizer.core, token)
            if piece and limits.on_text is not None:
                limits.on_text(piece)
        if grammar is not None and (grammar.stopped or not new):
            return "end"
        if len(tokens) >= room:
            return "length"
        logits = engine.read(new).cpu()


def _constrained(grammar: Grammar, logits: Tensor, draw: Callable[[Tensor], int]) -> list[int]:
    """One drawn token that the grammar allows, preceded or followed by those that it forces; empty at its end."""
    new = _take_forced(grammar)
    if new or grammar.stopped:
        return new
    token = draw(grammar.mask(logits))
    grammar.consume(token)
    return [token, *_take_forced(grammar)]


def _take_forced(grammar: Grammar) -> list[int]:
    forced = [] if grammar.stopped else grammar.forced()
    for token in forced:
        grammar.consume(token)
    return forced


def _sampler(sampling: Sampling) -> Callable[[Tensor], int]:
    if sampling.temperature == 0:
        return lambda logits: int(logits.argmax())
    generator = torch.Generator().manual_seed(sampling.seed)

    def draw(logits_V: Tensor) -> int:
        p, ids = torch.softmax(logits_V / sampling.temperature, dim=-1).sort(descending=True)
        # A token is kept while the share of those before it is below top_p, so one always is.
        p[p.cumsum(0) - p >= sampling.top_p] = 0
        return int(ids[torch.multinomial(p, 1, generator=generator)])

    return draw
