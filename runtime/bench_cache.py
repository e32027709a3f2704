"""What a compacted cache is worth: tokens a second after it, bytes, resident memory, snapshots.

Knows one long context, read once, and the caches that are made of it: whole, compacted (plain, int8, int4), empty.
They decode in turn, once each per repetition, so that a busy machine slows all. Does not know whether the answers are
still right (`perdure bench compaction`).
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import BadInput
from ..kernels.timing import commit
from .bench import _resident_mb, bench_text
from .cache import FORMATS
from .compaction import Plan, QueryLog, compact
from .decoder import Decoder
from .planner import LocalPlanner, load_planner
from .quantize import ModelWeights
from .room import trim

_ROOM = 256
"""Positions that are left for what is decoded."""


def bench_cache(
    path: Path | str,
    *,
    tokens: int = 8192,
    ratio: float = 10.0,
    repetitions: int = 7,
    new_tokens: int = 24,
    threads: int | None = None,
    cache_dir: Path | None = None,
) -> dict[str, Any]:
    """Read a context, compact a copy of it, and decode after each.

    Args:
        path: GGUF file or folder.
        tokens: length of the context.
        ratio: tokens of which one slot is left (keys by highest attention of the context's own queries).
        repetitions: of every cache, after one that is not counted.
        new_tokens: decoded in a repetition, up to 256.
        threads: default: as torch is set.
        cache_dir: see `load_planner`.

    Returns:
        The JSON object of a benchmark (docs/design.md, section 8). Peer of the rates: the whole cache.

    Raises:
        BadInput: a count is out of range, or the model is not for our own decoder.
    """
    if tokens < 256 or repetitions < 1 or not 1 <= new_tokens <= _ROOM:
        raise BadInput(
            f"expected tokens >= 256, repetitions >= 1 and new_tokens from 1 to {_ROOM}, "
            f"got {tokens}, {repetitions} and {new_tokens}"
        )
    planner = load_planner(path, cache_dir=cache_dir, threads=threads, context_tokens=2)
    if not isinstance(planner, LocalPlanner) or not isinstance(planner.engine, Decoder):
        raise BadInput(f"expected a model for our own decoder, got {path}")
    weights = planner.engine.weights
    ids = planner.tokenizer.encode(bench_text())
    ids = (ids * (tokens // len(ids) + 1))[:tokens]
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        bench = _Bench(weights, f"{planner.name} {torch.get_num_threads()} threads, {tokens} tokens", tokens)
        bench.prepare(ids, ratio, Path(folder))
        bench.decode(repetitions, new_tokens)
    command = f"perdure bench cache --tokens {tokens} --ratio {ratio:g} --repetitions {repetitions}"
    command += f" --threads {torch.get_num_threads()}"
    return {"machine": f"cpu{os.cpu_count()}", "commit": commit(), "command": command, "rows": bench.rows}


class _Bench:
    def __init__(self, weights: ModelWeights, case: str, tokens: int) -> None:
        self.weights, self.case, self.tokens = weights, case, tokens
        self.decoders: dict[str, Decoder] = {}
        self.rows: list[dict[str, Any]] = []

    def row(self, case: str, metric: str, value: float, unit: str, spread: float | None = None) -> dict[str, Any]:
        row = {"bench": "cache", "case": f"{self.case}, {case}", "metric": metric, "value": value, "unit": unit}
        self.rows.append({**row, "spread": spread, "peer": None, "peer_value": None, "ratio": None})
        return self.rows[-1]

    def against(self, row: dict[str, Any], peer: str, value: float, ratio: float | None) -> None:
        row |= {"peer": peer, "peer_value": value, "ratio": ratio}

    def prepare(self, ids: list[int], ratio: float, folder: Path) -> None:
        """One cache is read and compacted; the others come from snapshots of it."""
        config = self.weights.config
        whole = self.decoders["whole"] = Decoder(self.weights, self.tokens + _ROOM)
        log = QueryLog(config.layers, config.kv_heads, 2048)
        whole.read(ids[:64])  # the weights come from the disk
        whole.observe = log
        _, seconds = _timed(lambda: whole.read(ids[64:]))
        whole.observe = None
        self.row("whole", "prefill", (len(ids) - 64) / seconds, "token/s")
        self.row("whole", "bytes of keys and values", whole.cache.nbytes / 2**20, "MB")
        plan = Plan(ratio, "highest")
        kept, seconds = _timed(lambda: compact(whole.cache, len(ids), log, plan))
        self.row(f"compacted {ratio:g}x", "time to compact", seconds, "s")
        _, seconds = _timed(lambda: whole.cache.save(folder / "whole"))
        self.row("whole", "time to save", seconds, "s")
        full = whole.cache.nbytes
        for format in FORMATS:
            name = f"compacted {ratio:g}x, {format}"
            made = self.decoders[name] = Decoder(self.weights, self.tokens + _ROOM)
            empty = _trimmed_mb()
            made.cache.load(folder / "whole")
            loaded = _trimmed_mb() - empty
            own = [replace(x, k_ND=x.k_ND.clone(), v_ND=x.v_ND.clone()) for x in kept]
            made.cache.compacted(len(ids), own, format)
            del own
            resident = _trimmed_mb() - empty
            row = self.row(name, "resident memory", resident, "MB")
            self.against(row, "whole", loaded, loaded / resident if resident > 0 else None)
            row = self.row(name, "bytes of keys and values", made.cache.nbytes / 2**20, "MB")
            self.against(row, "whole", full / 2**20, full / made.cache.nbytes)
            self.row(name, "slots of a head, mean", made.cache.slots, "")
            _, seconds = _timed(lambda made=made: made.cache.save(folder / "kept"))  # type: ignore[misc]
            self.row(name, "time to save", seconds, "s")
            _, seconds = _timed(lambda made=made: made.cache.load(folder / "kept"))  # type: ignore[misc]
            self.row(name, "time to load", seconds, "s")
        self.decoders["empty"] = Decoder(self.weights, self.tokens + _ROOM)

    def decode(self, repetitions: int, new_tokens: int) -> None:
        """All caches in turn; ratios are of one repetition, then their median."""
        rates: dict[str, list[float]] = {name: [] for name in self.decoders}
        for repetition in range(repetitions + 1):
            for name, decoder in self.decoders.items():
                rate = _rate(decoder, new_tokens)
                if repetition:
                    rates[name].append(rate)
        for name, mine in rates.items():
            row = self.row(name, "decode", statistics.median(mine), "token/s", max(mine) - min(mine))
            for peer in ("whole", "empty"):
                ratios = [a / b for a, b in zip(mine, rates[peer], strict=True)]
                if name != peer and (peer == "whole" or name != "whole"):
                    if row["peer"] is not None:
                        row = self.row(name, "decode", statistics.median(mine), "token/s", max(mine) - min(mine))
                    self.against(row, peer, statistics.median(rates[peer]), statistics.median(ratios))


def _rate(decoder: Decoder, new_tokens: int) -> float:
    length = decoder.cache.length
    token, started = 100, time.perf_counter()
    for _ in range(new_tokens):
        token = int(decoder.read([token]).argmax())
    seconds = time.perf_counter() - started
    decoder.cache.truncate(length)
    return new_tokens / seconds


def _trimmed_mb() -> float:
    """Resident memory without what the heap has to spare."""
    trim()
    return _resident_mb()


def _timed(what: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = what()
    return result, time.perf_counter() - started
