"""Compaction of a cache: spans and budgets, queries, equality with the real path, and that it keeps what was asked."""

from __future__ import annotations

import pytest
import torch
from perdure.errors import BadInput
from perdure.runtime.cache import KVCache
from perdure.runtime.compaction import (
    HeadBudgets,
    Plan,
    QueryLog,
    compact,
    log_for,
    observed_read,
    repeat_prefill,
    surprised_read,
    weights_of,
)
from perdure.runtime.compaction.asking import Continuation, read_after
from perdure.runtime.compaction.budgets import budgets_from_json
from perdure.runtime.compaction.measures import attention_errors, paired_interval, wilson
from perdure.runtime.decoder import Decoder
from perdure.runtime.planner import exact_planner
from perdure.runtime.ragged import from_cache_rows
from perdure.runtime.tiny import TinyModel
from torch import Tensor

TOKENS = list(range(5, 205))


def decoder(tiny: TinyModel, capacity: int = 900) -> Decoder:
    engine = exact_planner(tiny.folder, capacity).engine
    assert isinstance(engine, Decoder)
    return engine


def read(tiny: TinyModel) -> tuple[Decoder, QueryLog]:
    """A decoder that has read 200 tokens, and the queries of their repetition."""
    engine = decoder(tiny)
    engine.read(TOKENS)
    log = log_for(engine, 600)
    repeat_prefill(engine, log, lambda text: [7, 8, 9])
    return engine, log


def errors(engine: Decoder, log: QueryLog, kept: object) -> tuple[float, float]:
    layers = engine.cache.layers
    keys, values = ([getattr(x, n)[0, :, :200] for x in layers] for n in ("keys", "values"))
    found = attention_errors([log.of(i) for i in range(len(layers))], keys, values, kept)  # type: ignore[arg-type]
    return float(found.output_H.mean()), float(found.mass_H.mean())


def test_texts_read_at_once_are_as_if_read_one_by_one(tiny: TinyModel) -> None:
    engine, log = read(tiny)
    texts = [
        Continuation((3, 9, 40, 41), (1, 3)),
        Continuation(tuple(range(30, 42)), (11,)),
        Continuation((9, 3), (1,)),
    ]
    for rows in (0, 150):
        if rows:
            engine.cache.compacted(rows, compact(engine.cache, rows, log, Plan(4, chunk=64)))
        together = read_after(engine, texts)
        length = engine.cache.length
        for text, rows_TV in zip(texts, together, strict=True):
            logits = engine.read(text.tokens, all_logits=True)
            engine.cache.truncate(length)
            alone = logits.log_softmax(-1)[[i - 1 for i in text.scored]]
            torch.testing.assert_close(rows_TV, alone, rtol=1e-3, atol=1e-3)


def test_reading_after_a_compacted_text_is_reading_after_the_cache_that_was_compacted(tiny: TinyModel) -> None:
    engine, log = read(tiny)
    kept = compact(engine.cache, 200, log, Plan(5))
    before = read_after(engine, [Continuation((3, 9, 40), (2,))], kept=kept)[0]
    engine.cache.compacted(200, kept)
    logits = engine.read([3, 9, 40], all_logits=True)
    torch.testing.assert_close(before[0], logits.log_softmax(-1)[1], rtol=1e-3, atol=1e-3)
    assert engine.cache.slots == pytest.approx(40 + 3, abs=0.5)


def test_a_compacted_text_attends_far_better_than_a_window_of_the_same_size(tiny: TinyModel) -> None:
    engine, log = read(tiny)
    unseen = log_for(engine, 300)
    observed_read(engine, list(range(300, 340)), unseen, forget=True)
    output, mass = errors(engine, unseen, compact(engine.cache, 200, log, Plan(5)))
    layers = range(len(engine.cache.layers))
    window_output, window_mass = errors(engine, unseen, [from_cache_rows(engine.cache, i, 160, 200) for i in layers])
    assert output < 0.6 * window_output
    assert mass < 0.3 * window_mass


@pytest.mark.parametrize("method", ["omp", "highest"])
def test_slots_sinks_and_positions_are_as_planned(tiny: TinyModel, method: str) -> None:
    engine, log = read(tiny)
    kept = compact(engine.cache, 120, log, Plan(4, method=method, chunk=40, keep_last=3))  # type: ignore[arg-type]
    assert sum(x.k_ND.shape[0] for x in kept) / (len(kept) * 2) == pytest.approx(30, abs=1)
    for layer, x in enumerate(kept):
        assert x.pos_N is not None
        assert x.bias_N is not None
        for head in range(x.segments):
            a, b = int(x.cu_len[head]), int(x.cu_len[head + 1])
            at = x.pos_N[a:b]
            assert at[:4].tolist() == [0, 1, 2, 3]
            assert at[-3:].tolist() == [117, 118, 119]
            assert bool((at.diff() > 0).all())
            assert (x.bias_N[a : a + 4] == 0).all()
            torch.testing.assert_close(x.k_ND[a:b], engine.cache.layers[layer].keys[0, head, at])
            assert torch.equal(x.v_ND[a : a + 4], engine.cache.layers[layer].values[0, head, :4])


def test_what_was_kept_stays_or_shrinks_with_the_rest(tiny: TinyModel) -> None:
    engine, log = read(tiny)
    engine.cache.compacted(100, compact(engine.cache, 100, log, Plan(4)))
    old = engine.cache.kept
    assert old is not None
    beside = compact(engine.cache, 60, log, Plan(4))
    assert beside[0].k_ND.shape[0] == old[0].k_ND.shape[0] + 2 * 15
    assert torch.equal(beside[0].k_ND[:25], old[0].k_ND[:25])
    shrunk = compact(engine.cache, 60, log, Plan(4), slots=30)
    assert sum(x.k_ND.shape[0] for x in shrunk) == pytest.approx(30 * 2 * len(shrunk), abs=2)
    assert shrunk[0].pos_N is not None
    assert shrunk[0].pos_N[:4].tolist() == [0, 1, 2, 3]
    assert int(shrunk[0].pos_N.max()) >= 100
    roomy = compact(engine.cache, 60, log, Plan(4), slots=85)  # 25 old ones stay, all 60 new ones fit
    assert sum(x.k_ND.shape[0] for x in roomy) == 85 * 2 * len(roomy)


def test_compacting_nothing_away_changes_nothing(tiny: TinyModel) -> None:
    engine, log = read(tiny)
    kept = compact(engine.cache, 200, log, Plan(1))
    assert errors(engine, log, kept) == pytest.approx((0, 0), abs=1e-5)


def test_heads_get_what_the_budgets_say(tiny: TinyModel) -> None:
    engine, log = read(tiny)
    heads = len(engine.cache.layers) * 2
    losses = tuple((0.1 * h, 0.05 * h, 0.0) for h in range(heads))
    budgets = HeadBudgets("m", (0.02, 0.5, 1.0), losses)
    kept = compact(engine.cache, 200, log, Plan(5, budgets=budgets))
    lengths = torch.cat([x.lengths() for x in kept])
    assert lengths.float().mean() == pytest.approx(40, abs=1)
    assert lengths[0] < 12 < 100 < lengths[-1]
    other = HeadBudgets("m", (0.5, 1.0), ((1.0, 0.0),))
    with pytest.raises(BadInput, match="another model"):
        compact(engine.cache, 200, log, Plan(5, budgets=other))


def test_budgets_spend_exactly_what_is_there_where_it_helps_most() -> None:
    losses = ((1.0, 0.2, 0.0), (0.1, 0.1, 0.1), (0.3, 0.25, 0.0))
    budgets = HeadBudgets("m", (0.05, 0.4, 1.0), losses)
    for mean in (0.02, 0.1, 0.3, 0.9, 1.0):
        shares = budgets.shares(mean)
        assert sum(shares) / 3 == pytest.approx(mean)
        assert all(0 < x <= 1 for x in shares)
    few = budgets.shares(0.1)
    assert few[0] > few[2] >= few[1]
    assert budgets_from_json(budgets.to_json()) == budgets
    with pytest.raises(BadInput, match="head budgets"):
        budgets_from_json('{"model": 3}')


def test_few_queries_leave_a_usable_cache(tiny: TinyModel) -> None:
    engine, _ = read(tiny)
    one = [torch.randn(2, 1, 16) for _ in engine.cache.layers]
    kept = compact(engine.cache, 200, one, Plan(4))
    for layer, x in enumerate(kept):
        old = engine.cache.layers[layer].values[0]
        assert x.v_ND.isfinite().all()
        assert x.v_ND.abs().max() < 3 * old.abs().max()


def test_a_log_keeps_a_fair_and_repeatable_sample() -> None:
    def offered(log: QueryLog, cuts: list[int]) -> Tensor:
        numbers = torch.arange(2000.0)
        for a, b in zip([0, *cuts], [*cuts, 2000], strict=True):
            log(0, numbers[a:b].view(1, -1, 1).expand(2, -1, 4))
        return log.of(0)

    logs = [QueryLog(1, 2, 500, seed=s) for s in (0, 0, 1)]
    whole, cut, other = offered(logs[0], []), offered(logs[1], [1, 500, 777, 1900]), offered(logs[2], [100])
    assert torch.equal(whole, cut)
    assert not torch.equal(whole, other)
    assert logs[0].seen == 2000
    assert len(logs[0]) == 500
    kept = whole[0, :, 0].float()
    assert len(kept.unique()) == 500
    assert kept.mean() == pytest.approx(1000, abs=100)  # 4 standard errors
    again = QueryLog(1, 2, 500)
    again.restore(logs[0].tensors())
    more = torch.ones(2, 50, 4)
    logs[0](0, more)
    again(0, more)
    assert torch.equal(again.of(0), logs[0].of(0))


def test_repeating_leaves_the_cache_as_it_was(tiny: TinyModel) -> None:
    engine = decoder(tiny)
    engine.read(TOKENS)
    keys = engine.cache.layers[1].keys[0, :, :200].clone()
    spans: list[tuple[int, int]] = []
    log = log_for(engine, 2000)
    repeat_prefill(engine, log, lambda text: [7, 8], chunk=100, on_span=lambda a, b: spans.append((a, b)))
    assert spans == [(0, 100), (100, 200)]
    assert engine.cache.tokens == TOKENS
    assert torch.equal(engine.cache.layers[1].keys[0, :, :200], keys)
    assert log.seen == 2 * (2 + 100 + 2 + 8 + 100)  # two query heads look at each KV head
    assert engine.observe is None


def test_intervals_are_those_of_the_books() -> None:
    low, high = wilson(90, 100)
    assert (low, high) == (pytest.approx(0.8256, abs=1e-3), pytest.approx(0.9448, abs=1e-3))
    assert wilson(0, 10)[0] == pytest.approx(0, abs=1e-9)
    ours, theirs = [1.0] * 80 + [0.0] * 20, [1.0] * 70 + [0.0] * 30
    low, high = paired_interval(ours, theirs)
    assert 0.03 < low < 0.1 < high < 0.17
    assert paired_interval(ours, ours) == (0, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rows": 0}, "rows to compact"),
        ({"rows": 201}, "rows to compact"),
        ({"queries": []}, "queries"),
        ({"ratio": 100.0}, "more slots"),
        ({"slots": 3.0}, "more slots"),
    ],
)
def test_what_cannot_be_compacted_is_refused(tiny: TinyModel, change: dict[str, object], says: str) -> None:
    engine, log = read(tiny)
    cache: KVCache = engine.cache
    given: dict[str, object] = {"rows": 200, "queries": log, "ratio": 4.0, "slots": None} | change
    with pytest.raises(BadInput, match=says):
        compact(cache, given["rows"], given["queries"], Plan(given["ratio"]), slots=given["slots"])  # type: ignore[arg-type]


def test_plans_and_texts_are_checked() -> None:
    for bad in ({"ratio": 0.5}, {"ratio": 2.0, "method": "best"}, {"ratio": 2.0, "queries": 0}):
        with pytest.raises(BadInput):
            Plan(**bad)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="scored"):
        Continuation((1, 2), (0,))


def test_reading_says_how_unexpected_each_token_was(tiny: TinyModel) -> None:
    engine, plain = decoder(tiny), decoder(tiny)
    log = log_for(engine, 100)
    nats = surprised_read(engine, TOKENS * 2, log)  # longer than what is read at once
    logits = plain.read(TOKENS * 2, all_logits=True)
    expected = -logits[:-1].log_softmax(-1).gather(1, torch.tensor((TOKENS * 2)[1:])[:, None])[:, 0]
    torch.testing.assert_close(nats[1:], expected, rtol=1e-3, atol=1e-3)
    assert nats[0] == 0
    assert log.seen == 2 * 400
    assert (weights_of(nats, 7, 10.0) == 1).all()
    weights = weights_of(nats, 7, 50.0)
    assert weights.shape == (407,)
    assert (weights > 0).all()
    assert weights[1:400].argmax() in (nats[1:] >= nats[1:].clamp(max=5).max()).nonzero()


def test_what_counts_more_is_matched_better(tiny: TinyModel) -> None:
    engine, log = read(tiny)
    count = log.of(0).shape[1]
    heavy = torch.arange(count) % 4 == 0
    weight = torch.where(heavy, 1.0, 0.01)
    found = {}
    for name, weight_N in (("even", None), ("weighted", weight)):
        kept = compact(engine.cache, 200, log, Plan(8), weight_N=weight_N)
        layers = engine.cache.layers
        keys, values = ([getattr(x, n)[0, :, :200] for x in layers] for n in ("keys", "values"))
        some = [log.of(i)[:, heavy] for i in range(len(layers))]
        found[name] = float(attention_errors(some, keys, values, kept).output_H.mean())
    assert found["weighted"] < 0.9 * found["even"]
    with pytest.raises(BadInput, match="weight for each"):
        compact(engine.cache, 200, log, Plan(8), weight_N=weight[:-1])


def test_small_budgets_are_shrunken_large_ones() -> None:
    budgets = HeadBudgets("m", (0.05, 0.4, 1.0), ((1.0, 0.2, 0.0), (0.1, 0.1, 0.1)))
    assert budgets.shares(0.02) == pytest.approx([x / 5 for x in budgets.shares(0.1)])
