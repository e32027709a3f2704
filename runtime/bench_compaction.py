"""What is left of a text when its cache is made short: answers, perplexity, attention, bytes and seconds, by method.

Knows the grid of texts, methods and ratios, how results are kept on disk so that a run can go on, and how they are put
together. Does not know how anything is compacted (compaction/).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import BadInput
from ..kernels.timing import commit
from .compaction.budgets import HeadBudgets, stored_budgets
from .compaction.measures import paired_interval, wilson
from .compaction.trial import METHODS, Trial
from .decoder import Decoder
from .quantize import ModelWeights, load_weights
from .source import folder_source

RATIOS = (2.0, 5.0, 10.0, 20.0, 50.0)
DEFAULT_METHODS = METHODS[:9]
FIRST_SEED = 1001
"""Of the texts; budgets are measured on others."""
_ROOM = 3072


def bench_compaction(
    path: Path | str,
    *,
    contexts: int = 8,
    tokens: int = 8192,
    questions: int = 64,
    ratios: Sequence[float] = RATIOS,
    methods: Sequence[str] = DEFAULT_METHODS,
    device: str = "cpu",
    threads: int | None = None,
    folder: Path | None = None,
    plot: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Compact texts in every way at every ratio and ask about them.

    Args:
        path: model, see `load_planner`.
        contexts: texts; each has its own questions.
        tokens: of each text.
        questions: about each text.
        ratios: bytes of the whole cache over bytes that are left, each > 1.
        methods: of ``METHODS``; ``full`` is always there.
        device: ``cpu`` or ``cuda``.
        threads: for torch and our C++.
        folder: what is finished is kept here, one file a text, and not done again; None: nothing is kept.
        plot: write a PNG of accuracy against ratio here, if matplotlib is there.
        say: told what was finished.

    Returns:
        The JSON object of a benchmark (docs/design.md, section 8).

    Raises:
        BadInput: a count or ratio is out of range, or the model is not run by our own decoder.
    """
    if min(contexts, tokens, questions) < 1 or not ratios or min(ratios) <= 1:
        raise BadInput(f"expected positive counts and ratios above 1, got {contexts}, {tokens}, {questions}, {ratios}")
    if threads is not None:
        torch.set_num_threads(threads)
    weights = loaded_weights(Path(path), device)
    methods = ["full", *(m for m in methods if m != "full")]
    budgets = stored_budgets(weights.source_sha256)
    key = _key(weights, budgets, tokens, questions, device)
    found: list[dict[str, Any]] = []
    for seed in range(FIRST_SEED, FIRST_SEED + contexts):
        at = None if folder is None else folder / f"{key}-{seed}.json"
        found += _one_text(weights, seed, tokens, questions, ratios, methods, budgets, device, at, say)
    wanted = {("full", 1.0), *((m, r) for m in methods if m != "full" for r in ratios)}
    found = [row for row in found if (row["method"], row["ratio"]) in wanted]
    if plot is not None:
        _plot(found, plot)
    command = f"perdure bench compaction --contexts {contexts} --tokens {tokens} --questions {questions}"
    command += f" --ratios {','.join(f'{r:g}' for r in ratios)}" + ("" if device == "cpu" else f" --device {device}")
    command += "" if methods == list(DEFAULT_METHODS) else f" --methods {','.join(methods)}"
    return {
        "machine": _machine(device),
        "commit": commit(),
        "command": command,
        "rows": _rows(found, f"{weights.config.name}, {tokens} tokens"),
        "summary": {"questions": contexts * questions, "head_budgets": budgets is not None, "first_seed": FIRST_SEED},
    }


def loaded_weights(path: Path, device: str) -> ModelWeights:
    """As the planner runs them on a CPU; in bfloat16 for another device, without what only a planner needs."""
    if device == "cpu":
        from .planner import LocalPlanner, load_planner

        planner = load_planner(path, context_tokens=64)
        if isinstance(planner, LocalPlanner) and isinstance(planner.engine, Decoder):
            return planner.engine.weights
        raise BadInput(f"expected a model that our own decoder runs, got {path}")
    if path.is_dir():
        return load_weights(folder_source(path), "bfloat16")
    from .gguf_file import gguf_source

    return load_weights(gguf_source(path), "bfloat16")


def _one_text(
    weights: ModelWeights,
    seed: int,
    tokens: int,
    questions: int,
    ratios: Sequence[float],
    methods: Sequence[str],
    budgets: HeadBudgets | None,
    device: str,
    at: Path | None,
    say: Callable[[str], None] | None,
) -> list[dict[str, Any]]:
    """Rows of one text; those that ``at`` has are not measured again."""
    done: list[dict[str, Any]] = json.loads(at.read_text("utf-8")) if at is not None and at.exists() else []
    have = {(row["method"], row["ratio"]) for row in done}
    grid = [("full", 1.0), *((m, r) for r in ratios for m in methods if m != "full")]
    missing = [item for item in grid if item not in have]
    if not missing:
        return done
    decoder = Decoder(weights, tokens + _ROOM) if device == "cpu" else Decoder(weights, tokens + _ROOM, device)
    with torch.inference_mode():
        trial = Trial(decoder, weights.tokenizer, seed, tokens, questions, budgets, [m for m, _ in missing])
        for method, ratio in missing:
            measured = trial.measure(method, ratio)
            row = {**measured.to_json(), "read_s": trial.read_s}
            done.append(row)
            if at is not None:
                at.parent.mkdir(parents=True, exist_ok=True)
                temporary = at.with_suffix(".tmp")
                temporary.write_text(json.dumps(done), "utf-8")
                temporary.replace(at)
            if say is not None:
                share = statistics.mean(measured.right)
                say(f"text {seed} {method} {ratio:g}x: {share:.3f} right, {measured.seconds:.1f} s")
    return done


def _rows(found: Sequence[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    """One row a measure; accuracy also as the paired difference to the full cache and to attention matching."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in found:
        groups.setdefault((row["method"], row["ratio"]), []).append(row)
    full = groups[("full", 1.0)]
    whole = {(row["seed"], i): x for row in full for i, x in zip(row["asked"], row["right"], strict=True)}
    rows = []
    for (method, ratio), some in groups.items():
        case = f"{where}, {method}" + ("" if method == "full" else f" {ratio:g}x")
        right = [x for row in some for x in row["right"]]
        low, high = wilson(round(sum(right)), len(right))
        paired = [whole[row["seed"], i] for row in some for i in row["asked"]]
        off = paired_interval(right, paired)
        mean = statistics.mean(right)
        rows.append(_row(case, "accuracy", mean, "share", high - low, "full cache", statistics.mean(paired)))
        if method != "full":
            rows.append(_row(case, "accuracy minus full", mean - statistics.mean(paired), "share", off[1] - off[0]))
            ours = groups.get(("am", ratio))
            if ours is not None and method != "am" and len(ours) == len(some):
                rows += _against(case, ours, some)
            rows.append(_row(case, "KL per answer token", _mean(some, "kl"), "nats"))
        rows.append(_row(case, "log-probability of the answer", _mean(some, "logprob"), "nats"))
        sequel = statistics.mean(row["sequel_nats"] for row in some)
        before = statistics.mean(row["sequel_nats"] for row in full)
        rows.append(_row(case, "perplexity of what follows", math.exp(sequel), "", None, "full", math.exp(before)))
        for name, metric in (("output_error", "attention output error"), ("mass_error", "log mass error")):
            if some[0][name] is not None:
                rows.append(_row(case, metric, statistics.mean(row[name] for row in some), ""))
        size = statistics.mean(row["nbytes"] for row in some)
        rows.append(_row(case, "size", size / 1e6, "MB"))
        rows.append(_row(case, "time to make", statistics.median(row["seconds"] for row in some), "s"))
        rows.append(_row(case, "of it for queries", statistics.median(row["queries_s"] for row in some), "s"))
        rows.append(_row(case, "time of a question", 1e3 * statistics.median(r["ask_s"] for r in some), "ms"))
    rows.append(_row(where, "time to read", statistics.median(row["read_s"] for row in full), "s"))
    return rows


def _against(case: str, ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Attention matching minus a rival over the same questions, with the interval's ends."""
    mine = {(row["seed"], i): x for row in ours for i, x in zip(row["asked"], row["right"], strict=True)}
    pairs = [
        (mine[row["seed"], i], x)
        for row in theirs
        for i, x in zip(row["asked"], row["right"], strict=True)
        if (row["seed"], i) in mine
    ]
    if not pairs:
        return []
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    low, high = paired_interval(a, b)
    difference = statistics.mean(a) - statistics.mean(b)
    return [
        _row(case, "accuracy of am minus this", difference, "share", high - low),
        _row(case, "accuracy of am minus this, low end", low, "share"),
    ]


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    return float(statistics.mean(x for row in rows for x in row[name]))


def _row(
    case: str,
    metric: str,
    value: float,
    unit: str,
    spread: float | None = None,
    peer: str | None = None,
    peer_value: float | None = None,
) -> dict[str, Any]:
    """``spread`` is the width of the 95 % interval; nothing here is a race, so there is no ratio."""
    named = {"bench": "compaction", "case": case, "metric": metric, "value": value, "unit": unit}
    return {**named, "spread": spread, "peer": peer, "peer_value": peer_value, "ratio": None}


def _plot(found: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy against ratio, a line a method; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return
    figure = Figure(figsize=(8, 5))
    axes = figure.add_subplot()
    points: dict[str, dict[float, list[float]]] = {}
    for row in found:
        points.setdefault(row["method"], {}).setdefault(row["ratio"], []).extend(row["right"])
    for method, by_ratio in points.items():
        if method == "full":
            axes.axhline(statistics.mean(by_ratio[1.0]), color="black", linestyle=":", label="full cache")
            continue
        ratios = sorted(by_ratio)
        shares = [statistics.mean(by_ratio[r]) for r in ratios]
        intervals = [wilson(round(sum(by_ratio[r])), len(by_ratio[r])) for r in ratios]
        ends = [[max(0.0, s - i[0]) for s, i in zip(shares, intervals, strict=True)]]
        ends.append([max(0.0, i[1] - s) for s, i in zip(shares, intervals, strict=True)])
        wide = 2.5 if method == "am" else 1.2
        axes.errorbar(ratios, shares, yerr=ends, marker="o", markersize=4, linewidth=wide, capsize=2, label=method)
    axes.set_xscale("log")
    axes.set_xticks(sorted({row["ratio"] for row in found if row["method"] != "full"}))
    axes.xaxis.set_major_formatter("{x:g}x")
    axes.minorticks_off()
    axes.set_xlabel("bytes of the whole cache over bytes left")
    axes.set_ylabel("questions answered right, with 95 % intervals")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(fontsize=8, ncols=2)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _key(weights: ModelWeights, budgets: HeadBudgets | None, tokens: int, questions: int, device: str) -> str:
    """Names the files of results: they are of this model, these budgets and sizes, this machine and this code."""
    told = "none" if budgets is None else budgets.to_json()
    code = b"".join(path.read_bytes() for path in sorted((Path(__file__).parent / "compaction").glob("*.py")))
    parts = (weights.sha256, told, str(tokens), str(questions), _machine(device), hashlib.sha256(code).hexdigest())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -P -m perdure.runtime.bench_compaction MODEL``: where the command line is not."""
    parser = argparse.ArgumentParser(description="Measure compaction.")
    parser.add_argument("model", type=Path)
    for name, default in (("contexts", 8), ("tokens", 8192), ("questions", 64), ("threads", None)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--ratios", default=",".join(f"{r:g}" for r in RATIOS))
    parser.add_argument("--methods", default=",".join(DEFAULT_METHODS))
    parser.add_argument("--device", default="cpu")
    for name in ("folder", "plot", "json"):
        parser.add_argument(f"--{name}", type=Path)
    given = vars(parser.parse_args(arguments))
    path, json_path = given.pop("model"), given.pop("json")
    given["ratios"] = [float(r) for r in given["ratios"].split(",")]
    given["methods"] = given["methods"].split(",")
    result = bench_compaction(path, **given, say=lambda line: print(line, flush=True))  # noqa: T201
    for row in result["rows"]:
        print(f"{row['case']:60s} {row['metric']:36s} {row['value']:10.4g} {row['unit']}")  # noqa: T201
    if json_path is not None:
        json_path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def _machine(device: str) -> str:
    if device == "cpu":
        return f"cpu{os.cpu_count()}"
    name = torch.cuda.get_device_name().lower()
    return next((known for known in ("h100", "h200") if known in name), name.replace(" ", "-"))


if __name__ == "__main__":
    main()
