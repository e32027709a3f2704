"""Reference queries: what a model asked of its keys while it read, kept in a bounded sample per layer and KV head.

Knows how queries are sampled and where they can come from. Does not know what is done with them.

    K KV heads, G query heads of a group, N kept queries, D channels
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...errors import BadInput
from ..cache import KVCache
from ..decoder import Decoder

SINKS = 4
"""First keys of a text, which draw attention whatever they say (arXiv 2309.17453)."""
_LOGITS = 256
"""Tokens whose logits are held at once."""
_UNEXPECTED, _EXPECTED, _SAMPLED = 5.0, 0.02, 0.3
"""Nats of full weight, weight of what was certain, weight of a sampled query."""
_ROOMY, _SCARCE = 10.0, 25.0
"""Ratios up to which nothing, and from which everything, depends on that."""
Observer = Callable[[int, Tensor], None]
REPEAT = "\nRepeat the previous text exactly:\n"
REPEAT_FROM = "\nRepeat the previous text exactly, from here on:\n"
STUDY = (
    "\nA summary of the text above:\n",
    "\nA list of all people in the text above and of what is said about each:\n1.",
    "\nThe facts of the text above as JSON:\n{",
    "\nQuestions about the text above with their answers:\nQuestion:",
)


class QueryLog:
    """A uniform sample of the queries of every layer: give it to `Decoder.observe`.

    The query heads of a group are pooled, since they look at the same keys. All layers and KV heads keep the same
    tokens and heads of a group. What is kept depends on the seed and on how much was seen, not on how it was cut into
    calls of one layer, so a replay of the same reads keeps the same queries.

    Args:
        layers: of the model.
        kv_heads: KV heads of a layer.
        capacity: queries that each layer and KV head keeps.
        seed: of the sample.

    Attributes:
        seen: queries of a KV head that were offered (of the first layer).

    Source: reservoir sampling, algorithm R (Vitter 1985).
    """

    def __init__(self, layers: int, kv_heads: int, capacity: int = 4096, seed: int = 0) -> None:
        if min(layers, kv_heads, capacity) < 1:
            raise BadInput(
                f"expected layers, kv_heads and capacity of at least 1, got {layers}, {kv_heads}, {capacity}"
            )
        self.kv_heads, self.capacity, self.seed = kv_heads, capacity, seed
        self._kept: list[Tensor | None] = [None] * layers
        self._seen = [0] * layers

    @property
    def layers(self) -> int:
        """Layers of the model."""
        return len(self._kept)

    @property
    def seen(self) -> int:
        return self._seen[0]

    def __len__(self) -> int:
        """Queries that each layer and KV head holds."""
        return min(self._seen[0], self.capacity)

    def __call__(self, layer: int, q_HMD: Tensor) -> None:
        """Offer rotated queries float [H, M, D] of one layer."""
        heads, rows, dim = q_HMD.shape
        if heads % self.kv_heads:
            raise BadInput(f"expected query heads in {self.kv_heads} groups, got {heads}")
        q_KND = q_HMD.reshape(self.kv_heads, -1, rows, dim).transpose(1, 2).reshape(self.kv_heads, -1, dim)
        kept = self._kept[layer]
        if kept is None:
            kept = torch.empty(self.kv_heads, self.capacity, dim, dtype=torch.float16, device=q_HMD.device)
            self._kept[layer] = kept
        taken, places = self._choose(self._seen[layer], q_KND.shape[1])
        kept[:, places.to(kept.device)] = q_KND[:, taken.to(kept.device)].to(kept.dtype)
        self._seen[layer] += q_KND.shape[1]

    def _choose(self, seen: int, new: int) -> tuple[Tensor, Tensor]:
        """(which of the new ones are kept, where): the number of an offered one alone decides where it would go."""
        number = torch.arange(seen, seen + new)
        # A counter-based draw (splitmix64 in wrapping int64) instead of a generator: no state to save.
        x = number * -7046029254386353131 + (self.seed * 7046029254386353087) % (1 << 62)
        x = (x ^ (x >> 30 & 0x3FFFFFFFF)) * -4658895280553007687
        x = (x ^ (x >> 27 & 0x1FFFFFFFFF)) * -7723592293110705685
        x = (x ^ (x >> 31 & 0x1FFFFFFFF)) & 0x7FFFFFFFFFFFFFFF
        place = torch.where(number < self.capacity, number, x % (number + 1))
        taken = (place < self.capacity).nonzero()[:, 0]
        place = place[taken]
        # Of several that go to one place the last stays.
        last = torch.full((self.capacity,), -1).scatter_reduce(0, place, torch.arange(len(taken)), "amax")
        stays = last[last >= 0]
        return taken[stays], place[stays]

    def of(self, layer: int) -> Tensor:
        """float16 [K, N, D] of one layer.

        Raises:
            BadInput: nothing was seen yet.
        """
        kept = self._kept[layer]
        if kept is None:
            raise BadInput("expected queries to have been seen; set Decoder.observe to this log and read some tokens")
        return kept[:, : min(self._seen[layer], self.capacity)]

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is held, to be saved; the inverse of `restore`."""
        held = {f"q.{i}": x[:, : min(n, self.capacity)].contiguous() for i, (x, n) in enumerate(self._pairs())}
        return {"seen": torch.tensor(self._seen), **held}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Hold what `tensors` gave, in a log of the same sizes.

        Raises:
            BadInput: it is of a log with other sizes.
        """
        seen = tensors["seen"].tolist()
        if len(seen) != len(self._seen):
            raise BadInput(f"expected the queries of {len(self._seen)} layers, got {len(seen)}")
        self._seen = [int(n) for n in seen]
        for i, n in enumerate(self._seen):
            self._kept[i] = None
            if n:
                q = tensors[f"q.{i}"]
                if q.shape[0] != self.kv_heads or q.shape[1] != min(n, self.capacity):
                    raise BadInput(f"expected queries of {self.kv_heads} KV heads, at most {self.capacity} each")
                kept = torch.empty(q.shape[0], self.capacity, q.shape[2], dtype=q.dtype, device=q.device)
                kept[:, : q.shape[1]] = q
                self._kept[i] = kept

    def _pairs(self) -> list[tuple[Tensor, int]]:
        return [(x, n) for x, n in zip(self._kept, self._seen, strict=True) if x is not None]

    def clear(self) -> None:
        """Forget all."""
        self._kept = [None] * len(self._kept)
        self._seen = [0] * len(self._seen)


@dataclass
class PeakLog:
    """For every key the query that looks at it most, among those that are offered: give it to `Decoder.observe` while
    a text is repeated.

    A sample of queries may lack the one that a key is there for; these do not. Attention is over the first keys, the
    span that is repeated, and the repetition so far, as in KVzip, whose scores are the peaks.

    Attributes:
        cache: that the text lies in, as the oldest ``rows`` of the tail.
        rows: of the text; later rows are the repetition.
        span: first and last + 1 row that are repeated now.
        scores: per layer float32 [K, rows], the greatest attention.

    Source: KVzip, arXiv 2505.23416, eq. 2, for the scores.
    """

    cache: KVCache
    rows: int
    span: tuple[int, int] = (0, 0)
    scores: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 1 <= self.rows <= self.cache.length:
            raise BadInput(f"expected 1 to {self.cache.length} rows that were read, got {self.rows}")
        self.span = self.span if self.span[1] else (0, self.rows)
        held = [layer.keys[0, :, : self.rows] for layer in self.cache.layers]
        self.scores = [torch.zeros(k.shape[:2], dtype=torch.float32, device=k.device) for k in held]
        self._best = [torch.zeros(k.shape, dtype=torch.float16, device=k.device) for k in held]

    def on_span(self, first: int, last: int) -> None:
        """Be told what is repeated next (`repeat_prefill`)."""
        self.span = (first, last)

    def __call__(self, layer: int, q_HMD: Tensor) -> None:
        """Offer rotated queries float [H, M, D] of one layer that stand after all rows of the tail."""
        first, last = self.span
        keys = self.cache.layers[layer].keys[0]
        at, new = int(self.cache.layers[layer].length), q_HMD.shape[1]
        own = keys[:, self.rows : at + new]
        head = keys[:, : min(SINKS, first)]
        k_KTD = torch.cat((head, keys[:, first:last], own), 1).float()
        q_KGMD = q_HMD.reshape(k_KTD.shape[0], -1, *q_HMD.shape[1:])
        scores = (q_KGMD * q_HMD.shape[2] ** -0.5) @ k_KTD.mT[:, None]
        behind = head.shape[1] + last - first
        later = torch.ones(new, own.shape[1], dtype=torch.bool, device=keys.device)
        scores[..., behind:].masked_fill_(later.triu(at - self.rows + 1), -torch.inf)
        mass = scores.logsumexp(-1, keepdim=True)
        peak, which = (scores[..., head.shape[1] : behind] - mass).flatten(1, 2).max(1)
        peak = peak.exp()
        before = self.scores[layer][:, first:last]
        better = peak > before
        found = q_KGMD.flatten(1, 2).gather(1, which[:, :, None].expand(-1, -1, q_HMD.shape[2]))
        best = self._best[layer][:, first:last]
        self._best[layer][:, first:last] = torch.where(better[:, :, None], found.to(best.dtype), best)
        self.scores[layer][:, first:last] = torch.maximum(before, peak)

    def of(self, layer: int) -> Tensor:
        """float16 [K, rows, D]: the query of each key; zeros where none was offered."""
        return self._best[layer]


def joined(*logs: QueryLog | PeakLog) -> list[Tensor]:
    """The queries of several logs, per layer float16 [K, N, D], as `compact` takes them."""
    layers = {len(log.scores) if isinstance(log, PeakLog) else log.layers for log in logs}
    if len(layers) != 1:
        raise BadInput(f"expected logs of one model, got {sorted(layers)} layers")
    return [torch.cat([log.of(i) for log in logs], 1) for i in range(layers.pop())]


def log_for(decoder: Decoder, capacity: int = 4096, seed: int = 0) -> QueryLog:
    """An empty log of the sizes of a decoder."""
    return QueryLog(len(decoder.cache.layers), decoder.shape.kv_heads, capacity, seed)


def observed_read(decoder: Decoder, tokens: Sequence[int], observe: Observer, *, forget: bool) -> Tensor:
    """Read tokens while ``observe`` looks on; with ``forget`` the cache is as before afterwards. Returns the logits."""
    length, before = decoder.cache.length, decoder.observe
    decoder.observe = observe
    try:
        return decoder.read(tokens)
    finally:
        decoder.observe = before
        if forget:
            decoder.cache.truncate(length)


def surprised_read(decoder: Decoder, tokens: Sequence[int], observe: Observer) -> Tensor:
    """Read tokens while ``observe`` looks on; float32 [tokens] nats, how unexpected each was (the first: 0).

    It costs the logits of every token: for the default planner about a third more than reading alone.
    """
    nats = [torch.zeros(1, device=decoder.cache.layers[0].keys.device)]
    for at in range(0, len(tokens), _LOGITS):
        part = tokens[at : at + _LOGITS]
        before, decoder.observe = decoder.observe, observe
        try:
            logits = decoder.read(part, all_logits=True)
        finally:
            decoder.observe = before
        follows = torch.tensor(tokens[at + 1 : at + 1 + len(part)], device=logits.device)
        nats.append(torch.nn.functional.cross_entropy(logits[: len(follows)], follows, reduction="none"))
    return torch.cat(nats)


def weights_of(surprisal_T: Tensor, sample: int, ratio: float) -> Tensor:
    """float32 [T + sample]: what the queries of `joined` (peaks of T keys, then a sample) count in `compact`.

    What a model can guess need not be kept: the query of a key counts by how unexpected the key's token was when it was
    read, in full from ``_UNEXPECTED`` nats on. As long as there is room for all, up to ``_ROOMY``, all count the same;
    from ``_SCARCE`` on this holds entirely (measured: README.md).

    Args:
        surprisal_T: nats, of `surprised_read`.
        sample: queries of the sample.
        ratio: of the `Plan`.
    """
    strength = min(1.0, max(0.0, math.log(ratio / _ROOMY) / math.log(_SCARCE / _ROOMY)))
    peaks = (surprisal_T / _UNEXPECTED).clamp(max=1.0) + _EXPECTED
    return torch.cat((peaks, torch.full((sample,), _SAMPLED, device=peaks.device))) ** strength


def repeat_prefill(
    decoder: Decoder,
    observe: Observer,
    encode: Callable[[str], list[int]],
    *,
    rows: int | None = None,
    chunk: int = 2048,
    on_span: Callable[[int, int], None] | None = None,
) -> None:
    """Read "repeat the previous text" and then the text again, a chunk at a time, each as if it were the first.

    The queries of the second reading look for what the text says. The cache is as before afterwards, and needs room for
    a chunk more.

    Args:
        observe: sees the queries of the repetition.
        encode: text to ids.
        rows: of the tail that are repeated, from the oldest; None: all.
        chunk: tokens repeated at once.
        on_span: told the first and last + 1 row before each chunk is read.

    Source: arXiv 2602.16284, section on reference queries; chunks: KVzip, arXiv 2505.23416.
    """
    rows = decoder.cache.length if rows is None else rows
    if not 1 <= rows <= decoder.cache.length:
        raise BadInput(f"expected 1 to {decoder.cache.length} rows to repeat, got {rows}")
    tokens = list(decoder.cache.tokens[:rows])
    count = max(1, round(rows / chunk))
    for i in range(count):
        first, last = rows * i // count, rows * (i + 1) // count
        if on_span is not None:
            on_span(first, last)
        request = encode(REPEAT) if not i else encode(REPEAT_FROM) + tokens[max(0, first - 8) : first]
        observed_read(decoder, request + tokens[first:last], observe, forget=True)


def self_study(
    decoder: Decoder, observe: Observer, encode: Callable[[str], list[int]], *, answer_tokens: int = 64
) -> None:
    """Let the model answer a few requests about what it has read, greedily, and watch it; the cache is as before.

    Source: arXiv 2602.16284, self-study (there with longer conversations).
    """
    for request in STUDY:
        length = decoder.cache.length
        logits = observed_read(decoder, encode(request), observe, forget=False)
        for _ in range(answer_tokens):
            logits = observed_read(decoder, [int(logits.argmax())], observe, forget=False)
        decoder.cache.truncate(length)
