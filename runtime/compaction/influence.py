"""Measures what each head of a model needs: ``python -P -m perdure.runtime.compaction.influence MODEL --json FILE``.

Knows texts made by rule, their repetition and how losses of heads are put together. Does not know how budgets are dealt
out (budgets.py).

The curve of a head: a text is read and repeated, and every key gets the greatest attention that a query of the
repetition gives it. What a head loses when it keeps a share of its keys is the sum of what the others got, per token of
the text. The greedy exchange along these curves keeps the keys of the greatest attention over all heads (KVzip's rule),
here on the average over other texts than those that are compacted later.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..decoder import Decoder
from ..quantize import ModelWeights
from .budgets import HeadBudgets
from .queries import SINKS, PeakLog, repeat_prefill
from .questions import make_diary

POINTS = (0.005, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SEEDS = (1, 2)
"""Of the texts; the benchmark's begin at 1001."""


def measure_budgets(
    weights: ModelWeights,
    seeds: Sequence[int] = SEEDS,
    tokens: int = 2048,
    questions: int = 24,
    make: Callable[[ModelWeights, int], Decoder] = Decoder,
) -> HeadBudgets:
    """Curves of all heads.

    Args:
        weights: of the model.
        seeds: one text each.
        tokens: of each text.
        questions: as many have their facts in each text.
        make: a decoder from weights and capacity.
    """
    encode = weights.tokenizer.encode
    curves = []
    with torch.inference_mode():
        for seed in seeds:
            decoder = make(weights, 2 * tokens + 256)
            decoder.read(encode(make_diary(seed, tokens, questions, lambda text: len(encode(text))).text))
            peaks = PeakLog(decoder.cache, decoder.cache.length)
            repeat_prefill(decoder, peaks, encode, on_span=peaks.on_span)
            curves.append(leftover(torch.cat(peaks.scores)))
    losses = torch.stack(curves).mean(0)
    return HeadBudgets(weights.source_sha256, POINTS, tuple(tuple(row) for row in losses.tolist()))


def leftover(score_HT: Tensor, points: Sequence[float] = POINTS) -> Tensor:
    """float64 [H, P]: mean score of a key where the best share of each point counts 0; sinks are no head's need."""
    sorted_HT = score_HT[:, SINKS:].double().sort(1, descending=True).values
    total = sorted_HT.shape[1]
    beyond = torch.cat((sorted_HT.flip(1).cumsum(1).flip(1), sorted_HT.new_zeros(len(sorted_HT), 1)), 1)
    return beyond[:, [min(total, round(total * p)) for p in points]] / total


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a model and write the JSON; one that lies beside this file as ``budgets-NAME.json`` is used from then."""
    from ..planner import LocalPlanner, load_planner

    parser = argparse.ArgumentParser(description="Measure what each attention head needs of a common budget.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=2048)
    given = parser.parse_args(arguments)
    planner = load_planner(given.model, context_tokens=64)
    if not isinstance(planner, LocalPlanner) or not isinstance(planner.engine, Decoder):
        parser.error(f"{given.model} is not run by our own decoder")
    given.json.write_text(measure_budgets(planner.engine.weights, tokens=given.tokens).to_json(), "utf-8")


if __name__ == "__main__":
    main()
