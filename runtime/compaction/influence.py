"""Measures what each head of a model needs: ``python -P -m perdure.runtime.compaction.influence MODEL --json FILE``.

Knows texts made by rule, their repetition, and how losses of heads are found. Does not know how budgets are dealt out
(budgets.py). Two forms of a head's curve:

*Cheap* (the default): a text is read and repeated, and every key gets the greatest attention that a query of the
repetition gives it. What a head loses when it keeps a share of its keys is the sum of what the others got, per token of
the text. The greedy exchange along these curves keeps the keys of the greatest attention over all heads (KVzip's rule).

*Full* (``--full``, for a GPU): all heads are compacted by attention matching at every point; then one head after the
other takes each point while the others stand at the budgets so far, and the loss is the KL divergence of the answers
and of the prose that follows from those of the whole cache. Source: arXiv 2602.16284, influence curves.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...kernels.decode_attention import RaggedKV
from ..decoder import Decoder
from ..quantize import ModelWeights
from .asking import read_after
from .budgets import HeadBudgets
from .matching import Plan, compact
from .queries import SINKS, PeakLog, joined, log_for, repeat_prefill, surprised_read, weights_of
from .questions import Diary, make_diary
from .rivals import watching
from .trial import continuation, whole

POINTS = (0.005, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FULL_POINTS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
SEEDS = (1, 2)
"""Of the texts; the benchmark's begin at 1001."""
_STANDS = 0.05
"""Mean share at which the other heads stand."""
Make = Callable[[ModelWeights, int], Decoder]


def measure_budgets(
    weights: ModelWeights,
    seeds: Sequence[int] = SEEDS,
    tokens: int = 2048,
    questions: int = 24,
    make: Make = Decoder,
) -> HeadBudgets:
    """Curves of all heads, the cheap form.

    Args:
        weights: of the model.
        seeds: one text each.
        tokens: of each text.
        questions: as many have their facts in each text.
        make: a decoder from weights and capacity.
    """
    curves = []
    with torch.inference_mode():
        for seed in seeds:
            decoder = make(weights, 2 * tokens + 256)
            decoder.read(_text(weights, seed, tokens, questions)[0])
            peaks = PeakLog(decoder.cache, decoder.cache.length)
            repeat_prefill(decoder, peaks, weights.tokenizer.encode, on_span=peaks.on_span)
            curves.append(leftover(torch.cat(peaks.scores)).cpu())
    losses = torch.stack(curves).mean(0)
    return HeadBudgets(weights.source_sha256, POINTS, tuple(tuple(row) for row in losses.tolist()))


def measure_influence(
    weights: ModelWeights,
    budgets: HeadBudgets,
    seeds: Sequence[int] = SEEDS,
    tokens: int = 2048,
    questions: int = 24,
    points: Sequence[float] = FULL_POINTS,
    make: Make = Decoder,
) -> HeadBudgets:
    """Curves of all heads, the full form: heads * points * seeds readings of all questions.

    Args:
        budgets: where the other heads stand.
        points: shares of keys, ascending to 1.
        weights, seeds, tokens, questions, make: see `measure_budgets`.
    """
    curves = []
    with torch.inference_mode():
        for seed in seeds:
            decoder = make(weights, 2 * tokens + 256)
            curves.append(_influence_of_one_text(decoder, weights, budgets, seed, tokens, questions, points))
    losses = torch.tensor(curves, dtype=torch.float64).mean(0)
    return HeadBudgets(weights.source_sha256, tuple(points), tuple(tuple(row) for row in losses.tolist()))


def _influence_of_one_text(
    decoder: Decoder,
    weights: ModelWeights,
    budgets: HeadBudgets,
    seed: int,
    tokens: int,
    questions: int,
    points: Sequence[float],
) -> list[list[float]]:
    ids, diary = _text(weights, seed, tokens, questions)
    surprisal = surprised_read(decoder, ids, lambda layer, q: None)
    cache, rows = decoder.cache, decoder.cache.length
    peaks, sample = PeakLog(cache, rows), log_for(decoder, 4096, seed=2)
    repeat_prefill(decoder, watching(sample, peaks), weights.tokenizer.encode, on_span=peaks.on_span)
    queries = joined(peaks, sample)
    texts = [continuation(question, weights.tokenizer) for question in diary.questions]
    texts.append(whole(weights.tokenizer.encode(diary.sequel)))
    full = read_after(decoder, texts)
    # Shares of keys count those that stay exactly; a point below them is them and one slot more.
    least = (SINKS + 2 * max(1, round(rows / Plan(1).chunk))) / rows
    kept = []
    for ratio in (1 / max(point, least) for point in points):
        weight_N = weights_of(surprisal, len(sample), ratio)
        kept.append(compact(cache, rows, queries, Plan(ratio), weight_N=weight_N))
    stands = [min(range(len(points)), key=lambda i: abs(points[i] - share)) for share in budgets.shares(_STANDS)]

    def loss(choice: Sequence[int]) -> float:
        found = read_after(decoder, texts, kept=mixed(kept, choice))
        kl = [float((a.exp() * (a - b)).sum(-1).mean()) for a, b in zip(full, found, strict=True)]
        return statistics.mean(kl[:-1]) + kl[-1]

    curves = []
    for head in range(len(stands)):
        losses = [loss([*stands[:head], i, *stands[head + 1 :]]) for i in range(len(points))]
        curves.append([x - losses[-1] for x in losses])
    return curves


def mixed(kept: Sequence[Sequence[RaggedKV]], choice: Sequence[int]) -> list[RaggedKV]:
    """One cache of several: head h (layer * kv_heads + head) as in ``kept[choice[h]]``; all plain with biases."""
    out, at = [], 0
    for layer in range(len(kept[0])):
        cuts = []
        for segment in range(kept[0][layer].segments):
            some = kept[choice[at]][layer]
            cuts.append((some, slice(int(some.cu_len[segment]), int(some.cu_len[segment + 1]))))
            at += 1
        k, v, bias, pos = (
            torch.cat([getattr(some, name)[cut] for some, cut in cuts]) for name in ("k_ND", "v_ND", "bias_N", "pos_N")
        )
        cu_len = torch.tensor([0, *(cut.stop - cut.start for _, cut in cuts)], device=k.device).cumsum(0).int()
        out.append(RaggedKV(k, v, cu_len, bias_N=bias, pos_N=pos))
    return out


def leftover(score_HT: Tensor, points: Sequence[float] = POINTS) -> Tensor:
    """float64 [H, P]: mean score of a key where the best share of each point counts 0; sinks are no head's need."""
    sorted_HT = score_HT[:, SINKS:].double().sort(1, descending=True).values
    total = sorted_HT.shape[1]
    beyond = torch.cat((sorted_HT.flip(1).cumsum(1).flip(1), sorted_HT.new_zeros(len(sorted_HT), 1)), 1)
    return beyond[:, [min(total, round(total * p)) for p in points]] / total


def _text(weights: ModelWeights, seed: int, tokens: int, questions: int) -> tuple[list[int], Diary]:
    encode = weights.tokenizer.encode
    diary = make_diary(seed, tokens, questions, lambda text: len(encode(text)))
    return encode(diary.text), diary


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a model and write the JSON; one that lies beside this file as ``budgets-NAME.json`` is used from then."""
    from ..bench_compaction import loaded_weights

    parser = argparse.ArgumentParser(description="Measure what each attention head needs of a common budget.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--full", action="store_true", help="the full form; minutes on a GPU, hours on a CPU")
    given = parser.parse_args(arguments)
    weights = loaded_weights(given.model, given.device)

    def make(weights: ModelWeights, capacity: int) -> Decoder:
        return Decoder(weights, capacity, None if given.device == "cpu" else given.device)

    budgets = measure_budgets(weights, tokens=given.tokens, make=make)
    if given.full:
        for _ in range(2):  # once more from where the first round leads
            budgets = measure_influence(weights, budgets, tokens=given.tokens, make=make)
    given.json.write_text(budgets.to_json(), "utf-8")


if __name__ == "__main__":
    main()
