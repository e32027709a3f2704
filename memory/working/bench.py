"""A long made-up life in a small cache: does compaction after compaction drift?

Knows how errors are measured against the attention before and against a fresh reading. Draws one picture. What is
compared, at equal slots where slots matter:

    stream  the story in its cache, compacted again and again
    fresh   the last tokens of the story, read anew into a cache that holds them all: the truth as far as they reach
    window  the beginning and as many of the last tokens as the stream has slots: what dropping the oldest would leave
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import BadInput
from ...kernels.decoder_layers import MAX_TOKENS
from ...runtime.decoder import Decoder
from .lives import Fact, life
from .projection import PREAMBLE
from .queries import QueryRing
from .spans import Rows, rows_of, tail_rows
from .stream import Policy, Stream

if TYPE_CHECKING:
    from ...runtime.planner import LocalPlanner

SMALL = Policy(budget_slots=768, chunk_tokens=64, span_slots=16, branch_tokens=160, example_queries=64)


@dataclass(frozen=True, slots=True)
class Held:
    """Error of one compaction, by the queries of the next read, which had no part in it."""

    compaction: int
    output: float
    """|new - old| / |old| of the attention outputs, root mean square over heads and queries."""
    mass: float
    """Mean |difference| of the logarithm of the attention mass."""
    seconds: float
    """Of the compaction, and of the merge if one followed."""


@dataclass(frozen=True, slots=True)
class Check:
    """Comparison with a fresh reading."""

    compaction: int
    tokens: int
    """Of the story so far."""
    kl_stream: float
    """Nats a token: how far the predictions are from the fresh ones."""
    kl_window: float
    agree_stream: float
    """Share of tokens of which the most probable next one is the same."""
    agree_window: float
    asked: int
    """Facts told within the reach of the fresh reading and no longer in the tail."""
    right_stream: int
    right_fresh: int
    right_window: int
    fresh_s: float
    """Seconds of the fresh reading."""


@dataclass
class Drift:
    """All that was measured."""

    policy: Policy
    held: list[Held] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0
    """Of reading and compacting, without the checks."""
    tokens: int = 0
    rebases: int = 0


def bench_drift(
    planner: LocalPlanner,
    *,
    compactions: int = 1000,
    check_every: int = 50,
    context: int = 8192,
    facts: int = 12,
    ahead: int = 128,
    seed: int = 0,
    policy: Policy = SMALL,
    on_progress: Callable[[int], None] | None = None,
) -> Drift:
    """Live until so many chunks were compacted.

    Args:
        planner: a model that runs in our own decoder.
        compactions: of chunks that leave the tail; nearly each is followed by a merge of two older spans.
        check_every: compactions between two comparisons with a fresh reading.
        context: tokens of the fresh reading.
        facts: asked at each comparison.
        ahead: tokens of the story, not read yet, on which the predictions are compared.
        seed: of the life.
        on_progress: told the number of compactions after each.

    Raises:
        BadInput: the sizes make no sense.
    """
    if compactions < 1 or check_every < 1 or context < policy.budget_slots or policy.branch_tokens < ahead:
        raise BadInput(f"expected positive numbers and a context beyond {policy.budget_slots}, got {context}")
    weights, found = planner.engine.weights, Drift(policy)  # type: ignore[attr-defined]
    preamble = planner.tokenizer.encode(PREAMBLE)
    stream, story = Stream(weights, policy, preamble), _Story(planner, seed, context)
    fresh = Decoder(weights, len(preamble) + context + policy.branch_tokens)
    with torch.inference_mode():
        while len(found.held) < compactions:
            piece, told = story.next(policy.read_tokens)
            before = _tidy(stream, len(piece), found)
            began = time.perf_counter()
            stream.read(piece, told)
            found.seconds += time.perf_counter() - began
            story.read(piece)
            if before is None:
                continue
            held = _held_out(stream, before, len(piece), len(found.held) + 1)
            found.held.append(held)
            if on_progress is not None:
                on_progress(len(found.held))
            if len(found.held) % check_every == 0:
                found.checks.append(_check(stream, story, fresh, preamble, len(found.held), facts, ahead))
    found.tokens = stream.read_tokens
    return found


class _Story:
    """Tokens of the life, those ahead and the last ones behind."""

    def __init__(self, planner: LocalPlanner, seed: int, context: int) -> None:
        self._planner, self._lines = planner, life(seed)
        self._ahead: deque[tuple[int, bool]] = deque()
        self.last: deque[int] = deque(maxlen=context)
        self.facts: deque[tuple[int, Fact]] = deque(maxlen=2000)
        self._made = self.behind = 0

    def next(self, count: int) -> tuple[list[int], list[bool]]:
        """The next tokens and whether each is of a told fact; still ahead afterwards."""
        while len(self._ahead) < count:
            line = next(self._lines)
            ids = self._planner.tokenizer.encode(line.text + "\n")
            self._ahead.extend((token, line.fact is not None) for token in ids)
            self._made += len(ids)
            if line.fact is not None:
                self.facts.append((self._made, line.fact))
        some = [self._ahead[i] for i in range(count)]
        return [token for token, _ in some], [told for _, told in some]

    def read(self, tokens: Sequence[int]) -> None:
        """Put these behind."""
        for token in tokens:
            assert self._ahead.popleft()[0] == token
        self.last.extend(tokens)
        self.behind += len(tokens)

    def asked(self, tail: int, count: int) -> list[Fact]:
        """Facts within the last tokens and before the tail, evenly over their ages."""
        first = self.behind - len(self.last) + 64
        fit = [fact for end, fact in self.facts if first < end <= self.behind - tail]
        step = max(1, len(fit) // count)
        return fit[::step][:count]

    def encode(self, text: str) -> list[int]:
        return self._planner.tokenizer.encode(text)


@dataclass(frozen=True, slots=True)
class _Before:
    parts: list[Rows]
    seconds: float


def _tidy(stream: Stream, tokens: int, found: Drift) -> _Before | None:
    """Do what is due; returns how the cache was before if a chunk was compacted and positions stayed."""
    before, seconds, moved = None, 0.0, False
    while (due := stream.due(tokens)) is not None:
        if due == "compact":
            before = _state(stream)
        began = time.perf_counter()
        getattr(stream, due)()
        seconds += time.perf_counter() - began
        moved |= due == "rebase"
        found.rebases += due == "rebase"
        if before is not None and due == "compact" and stream.due(tokens) == "merge":
            began = time.perf_counter()
            stream.merge()
            seconds += time.perf_counter() - began
    found.seconds += seconds
    return None if before is None or moved else _Before(before, seconds)


def _state(stream: Stream) -> list[Rows]:
    return [*rows_of([stream.pinned, *stream.spans]), tail_rows(stream.cache, 0, stream.cache.length)]


def _held_out(stream: Stream, before: _Before, fresh: int, number: int) -> Held:
    """The queries of the last ``fresh`` tokens over what was before them, compacted and not."""
    count = -(-fresh // stream.recent.stride) * (stream.decoder.shape.heads // stream.decoder.shape.kv_heads)
    queries = _last(stream.recent, count)
    after = [*rows_of([stream.pinned, *stream.spans]), tail_rows(stream.cache, 0, stream.cache.length - fresh)]
    old, old_mass = _attended(queries, before.parts)
    new, new_mass = _attended(queries, after)
    output = float(((new - old).square().sum() / old.square().sum()).sqrt())
    return Held(number, output, float((new_mass - old_mass).abs().mean()), before.seconds)


def _last(ring: QueryRing, count: int) -> Tensor:
    layers, kv_heads, capacity, dim = ring.vectors_LKND.shape
    at = (torch.arange(ring.count - min(count, len(ring)), ring.count)) % capacity
    return ring.vectors_LKND[:, :, at].reshape(layers * kv_heads, -1, dim)


def _attended(queries_SND: Tensor, parts: Sequence[Rows]) -> tuple[Tensor, Tensor]:
    """Outputs [S, N, D] and log-masses [S, N] over all parts together."""
    k_STD, v_STD, bias_ST = (torch.cat([part[i] for part in parts], dim=1) for i in range(3))
    scores = queries_SND.float() * queries_SND.shape[2] ** -0.5 @ k_STD.float().mT + bias_ST[:, None]
    mass = scores.logsumexp(2)
    return (scores - mass[:, :, None]).exp() @ v_STD.float(), mass


def _check(
    stream: Stream, story: _Story, fresh: Decoder, preamble: Sequence[int], number: int, facts: int, ahead_tokens: int
) -> Check:
    ahead, _ = story.next(ahead_tokens)
    asked = story.asked(stream.cache.length, facts)

    def examined(read: Callable[[Sequence[int]], Tensor], forget: Callable[[], None]) -> tuple[Tensor, int]:
        logits, right = read(ahead).log_softmax(-1), 0
        forget()
        for fact in asked:
            cue, answer = story.encode(fact.cue), story.encode(fact.answer)
            given = read([*cue, *answer])[len(cue) - 1 : -1].argmax(-1)
            forget()
            right += given.tolist() == answer
        return logits, right

    length = stream.cache.length
    ours, right = examined(lambda ids: stream.ask(ids, observe=False), lambda: stream.forget(length))
    began = time.perf_counter()
    held = _filled(fresh, [*preamble, *story.last])
    fresh_s = time.perf_counter() - began
    truth, right_fresh = examined(lambda ids: _read(fresh, ids), lambda: fresh.cache.truncate(held))
    slots = round(stream.slots) - len(preamble)
    held_short = _filled(fresh, [*preamble, *list(story.last)[-slots:]])
    short, right_window = examined(lambda ids: _read(fresh, ids), lambda: fresh.cache.truncate(held_short))
    kl_stream, kl_window = (float((truth.exp() * (truth - x)).sum(-1).mean()) for x in (ours, short))
    agree_stream, agree_window = (float((truth.argmax(-1) == x.argmax(-1)).float().mean()) for x in (ours, short))
    return Check(
        compaction=number,
        tokens=story.behind,
        kl_stream=kl_stream,
        kl_window=kl_window,
        agree_stream=agree_stream,
        agree_window=agree_window,
        asked=len(asked),
        right_stream=right,
        right_fresh=right_fresh,
        right_window=right_window,
        fresh_s=fresh_s,
    )


def _filled(decoder: Decoder, tokens: Sequence[int]) -> int:
    decoder.cache.truncate(0)
    for piece in _pieces(tokens):
        decoder.read(piece)
    return len(tokens)


def _read(decoder: Decoder, tokens: Sequence[int]) -> Tensor:
    return torch.cat([decoder.read(piece, all_logits=True) for piece in _pieces(tokens)])


def _pieces(tokens: Sequence[int]) -> Iterator[Sequence[int]]:
    return (tokens[at : at + MAX_TOKENS] for at in range(0, len(tokens), MAX_TOKENS))


# --- report -----------------------------------------------------------------------------------------------------------


def rows(found: Drift) -> list[dict[str, Any]]:
    """The form in which all benchmarks of this project speak; early and late thirds beside each other."""
    third = max(1, len(found.held) // 3)
    early, late = found.held[:third], found.held[-third:]
    case = f"{len(found.held)} compactions, {found.tokens} tokens, {found.policy.budget_slots} slots"
    made = [
        _row(case, "attention output error, last third", mean(h.output for h in late), "relative", "first third",
             mean(h.output for h in early), lower=True),
        _row(case, "attention log-mass error, last third", mean(h.mass for h in late), "nats", "first third",
             mean(h.mass for h in early), lower=True),
        _row(case, "seconds a compaction", mean(h.seconds for h in found.held), "s", None, None),
        _row(case, "reading and compacting", found.seconds, "s", None, None),
        _row(case, "re-bases", float(found.rebases), "count", None, None),
    ]  # fmt: skip
    if not found.checks:
        return made
    part = max(1, len(found.checks) // 3)
    first, last, every = found.checks[:part], found.checks[-part:], found.checks
    asked = sum(c.asked for c in every)
    case = f"{len(every)} checks against a fresh reading"
    made += [
        _row(case, "KL, last third", mean(c.kl_stream for c in last), "nats/token", "first third",
             mean(c.kl_stream for c in first), lower=True),
        _row(case, "KL", mean(c.kl_stream for c in every), "nats/token", "window of as many slots",
             mean(c.kl_window for c in every), lower=True),
        _row(case, "KL, greatest of all checks", max(c.kl_stream for c in every), "nats/token", None, None),
        _row(case, "same next token", mean(c.agree_stream for c in every), "share", "window of as many slots",
             mean(c.agree_window for c in every)),
        _row(case, f"facts right of {asked}", sum(c.right_stream for c in every) / max(1, asked), "share",
             "fresh reading", sum(c.right_fresh for c in every) / max(1, asked)),
        _row(case, f"facts right of {asked}", sum(c.right_stream for c in every) / max(1, asked), "share",
             "window of as many slots", sum(c.right_window for c in every) / max(1, asked)),
        _row(case, "fresh reading of the last tokens", mean(c.fresh_s for c in every), "s", None, None),
    ]  # fmt: skip
    return made


def series(found: Drift) -> dict[str, Any]:
    """Every single measurement, a list a figure."""
    columns: dict[str, Any] = {"policy": asdict(found.policy)}
    for name, measured in (("held", found.held), ("checks", found.checks)):
        every = [asdict(one) for one in measured]
        columns[name] = {key: [round(one[key], 4) for one in every] for key in (every[0] if every else ())}
    return columns


def draw(found: Drift, path: Path) -> None:
    """One PNG: the error of each compaction, the distance from a fresh reading, the facts."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), dpi=110, layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    number = [h.compaction for h in found.held]
    top.plot(number, [h.output for h in found.held], ".", markersize=3, color="#9ec9b8", label="one compaction")
    width = max(1, len(number) // 20)
    smooth = [mean(h.output for h in found.held[max(0, i - width) : i + 1]) for i in range(len(number))]
    top.plot(number, smooth, color="#0b6e4f", label=f"mean of {width + 1}")
    top.set_ylabel("attention output error\n(relative, held-out queries)")
    top.set_title(
        f"{len(number)} compactions in a row, {found.tokens} tokens in {found.policy.budget_slots} slots a head"
    )
    at = [c.compaction for c in found.checks]
    middle.plot(at, [c.kl_stream for c in found.checks], "o-", color="#0b6e4f", label="compacted story")
    middle.plot(at, [c.kl_window for c in found.checks], "s--", color="#b9770e", label="window of as many slots")
    middle.set_ylabel("KL from a fresh reading\n(nats a token)")
    share = [(c.right_stream, c.right_fresh, c.right_window, max(1, c.asked)) for c in found.checks]
    bottom.plot(at, [s / n for s, _, _, n in share], "o-", color="#0b6e4f", label="compacted story")
    bottom.plot(at, [f / n for _, f, _, n in share], "^:", color="#8e6c8a", label="fresh reading")
    bottom.plot(at, [w / n for _, _, w, n in share], "s--", color="#b9770e", label="window of as many slots")
    bottom.set_ylabel("facts right\n(no longer in the tail)")
    bottom.set_xlabel("compactions")
    for axes in (top, middle, bottom):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(loc="best", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _row(
    case: str, metric: str, value: float, unit: str, peer: str | None, against: float | None, *, lower: bool = False
) -> dict[str, Any]:
    ratio = None
    if against is not None and value and against:
        ratio = round(against / value if lower else value / against, 3)
    return {
        "bench": "drift",
        "case": case,
        "metric": metric,
        "value": round(value, 4),
        "unit": unit,
        "spread": None,
        "peer": peer,
        "peer_value": None if against is None else round(against, 4),
        "ratio": ratio,
    }
