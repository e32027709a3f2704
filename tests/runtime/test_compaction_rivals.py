"""Which keys the rivals keep, each against its formula written out for one head."""

from __future__ import annotations

import math

import pytest
import torch
from perdure.errors import BadInput
from perdure.kernels.decode_attention import RaggedKV
from perdure.runtime.compaction import PeakLog, observed_read, repeat_prefill, rivals
from perdure.runtime.compaction.influence import leftover
from perdure.runtime.decoder import Decoder
from perdure.runtime.planner import exact_planner
from perdure.runtime.tiny import TinyModel
from torch import Tensor

TEXT = [(7 * i * i + 3 * i) % 380 for i in range(96)]
SLOTS = 24


@pytest.fixture(scope="module")
def watched(tiny: TinyModel) -> tuple[Decoder, rivals.Prefill, list[Tensor]]:
    """A decoder that has read 96 tokens in two goes, who watched, and all queries of each layer [heads, 96, D]."""
    engine = exact_planner(tiny.folder, 400).engine
    assert isinstance(engine, Decoder)
    prefill = rivals.Prefill(len(engine.cache.layers), stride=4, window=8)
    every: list[list[Tensor]] = [[] for _ in engine.cache.layers]
    watch = rivals.watching(prefill, lambda i, q: every[i].append(q.clone()))
    for part in (TEXT[:41], TEXT[41:]):
        observed_read(engine, part, watch, forget=False)
    return engine, prefill, [torch.cat(x, 1) for x in every]


def kept_of(kept: list[RaggedKV], layer: int, head: int) -> list[int]:
    x = kept[layer]
    assert x.pos_N is not None
    return x.pos_N[int(x.cu_len[head]) : int(x.cu_len[head + 1])].tolist()


def attention(q_GND: Tensor, k_TD: Tensor, first: int) -> Tensor:
    """[G, N, T] of queries at positions first, first + 1, ..."""
    scores = q_GND @ k_TD.T / math.sqrt(k_TD.shape[1])
    later = torch.arange(k_TD.shape[0]) > (first + torch.arange(q_GND.shape[1]))[:, None]
    return scores.masked_fill(later, -torch.inf).softmax(-1)


def chosen(score_T: Tensor, always: range) -> list[int]:
    score = score_T.clone()
    score[:4] = score[list(always)] = math.inf
    return sorted(score.topk(SLOTS).indices.tolist())


def test_the_watcher_keeps_every_fourth_query_and_the_last(
    watched: tuple[Decoder, rivals.Prefill, list[Tensor]],
) -> None:
    _, prefill, every = watched
    for layer, q in enumerate(every):
        seen, at = prefill.queries(layer)
        assert at.tolist() == list(range(0, 96, 4))
        torch.testing.assert_close(seen, q[:, ::4], rtol=1e-3, atol=1e-3)
        last = prefill.last[layer]
        assert last is not None
        torch.testing.assert_close(last.float(), q[:, -8:], rtol=1e-3, atol=1e-3)


def test_the_window_keeps_sinks_and_the_last_keys(watched: tuple[Decoder, rivals.Prefill, list[Tensor]]) -> None:
    kept = rivals.drop_oldest(watched[0].cache, 96, SLOTS)
    assert kept_of(kept, 1, 1) == [0, 1, 2, 3, *range(76, 96)]
    assert torch.equal(kept[1].k_ND[SLOTS:], watched[0].cache.layers[1].keys[0, 1, kept_of(kept, 1, 1)])


def test_h2o_keeps_the_greatest_sums_and_the_last_half(watched: tuple[Decoder, rivals.Prefill, list[Tensor]]) -> None:
    engine, prefill, every = watched
    kept = rivals.h2o(engine.cache, 96, SLOTS, prefill)
    for head in range(2):
        k = engine.cache.layers[1].keys[0, head, :96]
        q = every[1][2 * head : 2 * head + 2].half().float()
        total = attention(q, k, 0)[:, ::4].sum((0, 1))
        assert kept_of(kept, 1, head) == chosen(total, range(84, 96))


def test_snapkv_smooths_what_the_last_queries_look_at(watched: tuple[Decoder, rivals.Prefill, list[Tensor]]) -> None:
    engine, prefill, every = watched
    kept = rivals.snapkv(engine.cache, 96, SLOTS, prefill)
    k = engine.cache.layers[2].keys[0, 1, :96]
    mean = attention(every[2][2:4, -8:].half().float(), k, 88).mean((0, 1))
    padded = torch.cat((torch.zeros(2), mean, torch.zeros(2)))
    smooth = torch.stack([padded[i : i + 5].mean() for i in range(96)])
    assert kept_of(kept, 2, 1) == chosen(smooth, range(88, 96))


def test_expected_attention_is_the_mean_over_normal_queries(
    watched: tuple[Decoder, rivals.Prefill, list[Tensor]],
) -> None:
    """exp(k.mu + k.Sigma.k / 2) is the mean of exp(k.q) over q ~ N(mu, Sigma): compared with drawn queries."""
    engine, prefill, every = watched
    frequencies = engine.weights.config.inverse_frequencies
    kept = rivals.expected_attention(engine.cache, 96, SLOTS, prefill, frequencies, future=16)
    w = torch.tensor(frequencies).float()

    def turn(x: Tensor, angle: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)

    at = torch.arange(4, 96)[:, None]
    at = at[at[:, 0] % 4 == 0]
    q = every[0][:2, at[:, 0]].half().float()
    raw = turn(q, -at * w)
    # The watcher's first SINKS queries are left out: positions 0, 4, 8, 12.
    raw = raw[:, 3:]
    future = torch.arange(96, 112)[:, None] * w
    matrix = torch.stack([turn(row.expand(16, -1), future).mean(0) for row in torch.eye(16)]).T
    k, v = (getattr(engine.cache.layers[0], name)[0, 0, :96] for name in ("keys", "values"))
    score = torch.zeros(96)
    for head in raw:
        cov = (head - head.mean(0)).T @ (head - head.mean(0)) / len(head)
        root = torch.linalg.cholesky(cov.double() + 1e-9 * torch.eye(16)).float()
        drawn = (head.mean(0) + torch.randn(400_000, 16) @ root.T) @ matrix.T
        score += (drawn @ k.T / 4).logsumexp(0).softmax(0) / 2
    ours = set(kept_of(kept, 0, 0))
    assert len(ours & set(chosen(score * v.norm(dim=1), range(0)))) >= SLOTS - 2  # drawn, not computed


def test_kvzip_keeps_what_the_repetition_looks_at_most(
    watched: tuple[Decoder, rivals.Prefill, list[Tensor]],
) -> None:
    engine = watched[0]
    scores = PeakLog(engine.cache, 96)
    request = [5, 6, 7]
    queries: list[list[Tensor]] = [[] for _ in engine.cache.layers]
    keys: list[Tensor] = []

    def spy(layer: int, q: Tensor) -> None:
        queries[layer].append(q.clone())
        if layer == 1:
            keys[:] = [engine.cache.layers[1].keys[0, :, : 96 + 3 + 48].clone()]

    spans: list[tuple[int, int]] = []

    def on_span(first: int, last: int) -> None:
        scores.on_span(first, last)
        spans.append(scores.span)

    repeat_prefill(engine, rivals.watching(scores, spy), lambda text: request, chunk=48, on_span=on_span)
    assert spans == [(0, 48), (48, 96)]
    own = keys[0]  # of the second repetition: request, 8 tokens before it, 48 tokens
    q = queries[1][1]
    assert q.shape[1] == 3 + 8 + 48
    full = torch.cat((own[:, :4], own[:, 48:96], engine.cache.layers[1].keys[0, :, 96 : 96 + 59]), 1)
    expected = attention(q[:2], full[0], 52)[..., 4:52].amax((0, 1))
    torch.testing.assert_close(scores.scores[1][0, 48:96], expected, rtol=1e-3, atol=1e-5)
    which = attention(q[:2], full[0], 52)[..., 4:52].flatten(0, 1).argmax(0)
    torch.testing.assert_close(scores.of(1)[0, 48:96].float(), q[:2].flatten(0, 1)[which], rtol=1e-3, atol=1e-2)
    kept = rivals.kvzip(engine.cache, 96, SLOTS, scores)
    assert sum(x.k_ND.shape[0] for x in kept) == SLOTS * 2 * len(kept)
    assert len({n for x in kept for n in x.lengths().tolist()}) > 1
    assert all(kept_of(kept, i, h)[:4] == [0, 1, 2, 3] for i in range(3) for h in range(2))
    least = min(float(scores.scores[1][0, at]) for at in kept_of(kept, 1, 0)[4:])
    dropped = sorted(set(range(4, 96)) - set(kept_of(kept, 0, 1)))
    assert max(float(scores.scores[0][1, at]) for at in dropped) <= least


def test_leftover_attention_falls_to_nothing() -> None:
    score = torch.rand(3, 104)
    curve = leftover(score, (0.0, 0.25, 1.0))
    torch.testing.assert_close(curve[:, 0], score[:, 4:].double().mean(1))
    torch.testing.assert_close(curve[:, 1], score[:, 4:].double().sort(1).values[:, :75].sum(1) / 100)
    assert (curve[:, 2] == 0).all()


def test_too_few_slots_are_refused() -> None:
    with pytest.raises(BadInput, match="5 to 96 slots"):
        rivals.check_slots(96, 4)
