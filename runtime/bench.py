"""Tokens a second and perplexity of the planner, beside llama.cpp on the same file, threads and tokens, in one run.

Knows both engines and how to ask them the same thing: the two are timed in turn, once each per repetition, so that a
busy machine slows both. Does not know what a planner is for.

Perplexity: text is cut into windows of 1,024 tokens; every token but the first of a window is scored. llama.cpp's
server gives no log-probabilities of a prompt, so its are had by teacher forcing: one request a token, and the
log-probability of the token that really follows, before sampling. The same file with exactly dequantised float32
weights is the third engine.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from ..errors import BadInput
from ..kernels.timing import commit
from .generate import Engine
from .planner import LocalPlanner, exact_planner, load_planner

PROMPT_TOKENS, NEW_TOKENS, WINDOW = 482, 128, 1024
_MODULES = ("statistics", "fractions", "heapq", "difflib", "threading", "functools", "textwrap", "random", "string")


@dataclass(frozen=True)
class _Speed:
    """Tokens a second of one repetition."""

    prefill: float
    decode: float


def bench_planner(
    path: Path | str,
    *,
    threads: int | None = None,
    repetitions: int = 5,
    perplexity_tokens: int = 1500,
    cache_dir: Path | None = None,
) -> dict[str, Any]:
    """Time our decoder and llama.cpp in turn, then compare perplexities.

    Args:
        path: GGUF file (or a folder, which has no peer).
        threads: for both; default: as torch is set.
        repetitions: of prefill (482 tokens) and decode (128 tokens), after one that is not counted.
        perplexity_tokens: how many tokens of text are scored; 0 leaves perplexity out.
        cache_dir: see `load_planner`.

    Returns:
        The JSON object of a benchmark (docs/design.md, section 8).

    Raises:
        BadInput: a count is out of range, or the file is not for our own decoder.
    """
    if repetitions < 1 or perplexity_tokens < 0:
        raise BadInput(f"expected repetitions >= 1 and perplexity_tokens >= 0, got {repetitions}, {perplexity_tokens}")
    before = _resident_mb()
    started = time.perf_counter()
    planner = load_planner(path, cache_dir=cache_dir, threads=threads, context_tokens=2048)
    load_s = time.perf_counter() - started
    if not isinstance(planner, LocalPlanner):
        raise BadInput(f"expected a local model, got {path}")
    tokens = planner.tokenizer.encode(bench_text())
    prompt = tokens[:PROMPT_TOKENS]
    with torch.inference_mode():
        _time_engine(planner.engine, prompt)
    resident_mb = _resident_mb() - before
    peer = _open_llama(Path(path), torch.get_num_threads(), planner.tokenizer.encode("a")[-1])
    ours: list[_Speed] = []
    theirs: list[_Speed] = []
    with torch.inference_mode():
        for repetition in range(repetitions + 1):
            speeds = _time_engine(planner.engine, prompt), peer.time(prompt) if peer else None
            if repetition > 0:
                ours.append(speeds[0])
                theirs += [s for s in speeds[1:] if s is not None]
        case = f"{planner.name} {torch.get_num_threads()} threads"
        rows = [
            _rate_row(f"{case}, prompt of {PROMPT_TOKENS}", "prefill", ours, theirs),
            _rate_row(f"{case}, {NEW_TOKENS} after it", "decode", ours, theirs),
            _row(case, "load", load_s, "s"),
            _row(case, "resident after one answer", resident_mb, "MB"),
        ]
        if perplexity_tokens:
            rows += _perplexity_rows(case, planner, Path(path), tokens[:perplexity_tokens], peer)
    digest = hashlib.sha256(bench_text().encode()).hexdigest()
    command = f"perdure bench planner --threads {torch.get_num_threads()} --repetitions {repetitions}"
    command += f" --perplexity-tokens {perplexity_tokens}"
    return {
        "machine": f"cpu{os.cpu_count()}",
        "commit": commit(),
        "command": command,
        "rows": rows,
        "text_sha256": digest,
    }


def bench_text() -> str:
    """A few thousand tokens of English about code: documentation strings of Python's standard library.

    It is on every machine and none of it is carried here; it differs a little from one Python version to the next,
    which is why results name its hash.
    """
    parts = []
    for name in _MODULES:
        module = importlib.import_module(name)
        parts.append(inspect.getdoc(module) or "")
        for member, value in sorted(vars(module).items()):
            if callable(value) and getattr(value, "__module__", "") == name:
                parts.append(f"{name}.{member}: {inspect.getdoc(value) or ''}")
    return "\n\n".join(part for part in parts if part)


def perplexity(engine: Engine, tokens: Sequence[int], step: int) -> float:
    """exp of the mean negative log-probability of each token given those before it in its window.

    Args:
        engine: its cache is emptied.
        tokens: at least two.
        step: tokens read at once; small ones run the arithmetic of decoding, large ones that of prefill.
    """
    total, count = 0.0, 0
    for start in range(0, len(tokens), WINDOW):
        window = tokens[start : start + WINDOW]
        if len(window) < 2:
            break
        engine.cache.reset()
        for at in range(0, len(window) - 1, step):
            part = window[at : min(at + step, len(window) - 1)]
            logits = engine.read(part, all_logits=True)
            follows = torch.tensor(window[at + 1 : at + 1 + len(part)])
            total += float(torch.nn.functional.cross_entropy(logits, follows, reduction="sum"))
            count += len(part)
    return math.exp(total / count)


def _time_engine(engine: Engine, prompt: Sequence[int]) -> _Speed:
    engine.cache.truncate(0)
    started = time.perf_counter()
    logits = engine.read(prompt)
    read = time.perf_counter()
    for _ in range(NEW_TOKENS):
        logits = engine.read([int(logits.argmax())])
    return _Speed(len(prompt) / (read - started), NEW_TOKENS / (time.perf_counter() - read))


class _Llama:
    """llama.cpp through `xllamacpp`, asked with token ids.

    Args:
        plain: a token of one ASCII letter. Scoring makes the server "say" it, which leaves the probabilities alone: it
            reports none for a token that ends the text or is part of a character.
    """

    def __init__(self, server: Any, plain: int) -> None:
        self._server, self._plain = server, plain

    def ask(self, prompt: Sequence[int], **settings: Any) -> dict[str, Any]:
        body = {"prompt": list(prompt), "temperature": 0.0, "stream": False, **settings}
        answer = self._server.handle_completions(body)
        if not isinstance(answer, dict) or "choices" not in answer:
            raise BadInput(f"expected a completion of llama.cpp, got {str(answer)[:200]}")
        return answer

    def time(self, prompt: Sequence[int]) -> _Speed:
        """By llama.cpp's own clocks, which leave out its server."""
        timings = self.ask(prompt, n_predict=NEW_TOKENS, ignore_eos=True, cache_prompt=False)["timings"]
        return _Speed(float(timings["prompt_per_second"]), float(timings["predicted_per_second"]))

    def perplexity(self, tokens: Sequence[int], vocab: int) -> float:
        total, count = 0.0, 0
        for start in range(0, len(tokens), WINDOW):
            window = tokens[start : start + WINDOW]
            for i in range(1, len(window)):
                total -= self._logprob(window[:i], window[i], vocab)
                count += 1
        return math.exp(total / count)

    def _logprob(self, prefix: Sequence[int], follows: int, vocab: int) -> float:
        """Log-probability of one token; the whole vocabulary is asked for only when it is not among the first 1,000."""
        for width in (1000, vocab):
            answer = self.ask(prefix, n_predict=1, n_probs=width, cache_prompt=True, logit_bias=[[self._plain, 1000.0]])
            for item in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
                if item["id"] == follows:
                    return float(item["logprob"])
        raise BadInput(f"llama.cpp gives no probability for token {follows}")


def _open_llama(path: Path, threads: int, plain: int) -> _Llama | None:
    """The peer, or None where there is none: no `xllamacpp`, or no GGUF file."""
    if path.suffix != ".gguf":
        return None
    with contextlib.suppress(ModuleNotFoundError):
        xllamacpp = importlib.import_module("xllamacpp")
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.verbosity = 2048, 1, -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        return _Llama(xllamacpp.Server(params), plain)
    return None


def _perplexity_rows(
    case: str, planner: LocalPlanner, path: Path, tokens: Sequence[int], peer: _Llama | None
) -> list[dict[str, Any]]:
    """Ours in both arithmetics, each beside llama.cpp and beside the exact weights; ratio > 1 means ours is lower."""
    ours = {
        "as decoded": perplexity(planner.engine, tokens, 32),
        "as prefilled": perplexity(planner.engine, tokens, 512),
    }
    exact = perplexity(exact_planner(path, 2048).engine, tokens, 512)
    rows = []
    peers = {"exact float32 weights": exact}
    if peer is not None:
        peers["llama.cpp"] = peer.perplexity(tokens, planner.engine.vocab)
    for how, value in ours.items():
        for name, theirs in peers.items():
            row = _row(f"{case}, {len(tokens)} tokens {how}", "perplexity", value, "")
            rows.append({**row, "peer": name, "peer_value": theirs, "ratio": theirs / value})
    return rows


def _rate_row(case: str, metric: str, ours: Sequence[_Speed], theirs: Sequence[_Speed]) -> dict[str, Any]:
    """Medians; ``spread`` is the greatest minus the least of ours."""
    mine = [getattr(s, metric) for s in ours]
    row = _row(case, metric, statistics.median(mine), "token/s")
    row["spread"] = max(mine) - min(mine)
    if theirs:
        other = statistics.median([getattr(s, metric) for s in theirs])
        row |= {"peer": "llama.cpp", "peer_value": other, "ratio": row["value"] / other}
    return row


def _row(case: str, metric: str, value: float, unit: str) -> dict[str, Any]:
    empty = {"spread": None, "peer": None, "peer_value": None, "ratio": None}
    return {"bench": "planner", "case": case, "metric": metric, "value": value, "unit": unit, **empty}


def _resident_mb() -> float:
    """Memory of this process now, pages of mapped weights included."""
    return float(psutil.Process().memory_info().rss) / 2**20
