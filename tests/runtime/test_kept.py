"""A cache whose past is compacted: what is read after it, snapshots, memory, prefixes, windows, other devices."""

from __future__ import annotations

import ctypes
import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from perdure.errors import BadInput, DamagedError
from perdure.kernels.decode_attention import RaggedKV, quantize_kv
from perdure.runtime import snapshot as snapshot_module
from perdure.runtime.cache import KVCache
from perdure.runtime.decoder import Decoder
from perdure.runtime.planner import LocalPlanner, exact_planner, open_source
from perdure.runtime.quantize import ModelWeights, load_weights
from perdure.runtime.ragged import from_cache_rows, join
from perdure.runtime.room import trim
from perdure.runtime.snapshot import _checksum
from perdure.runtime.tiny import TinyModel, TinyShape, make_tiny_model
from safetensors import safe_open
from safetensors.torch import save_file

TOKENS = [(5 * i * i + 3 * i + 1) % 380 for i in range(90)]


@pytest.fixture(scope="module")
def weights(tiny: TinyModel) -> ModelWeights:
    return load_weights(open_source(tiny.gguf), "float32")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with heads of 32 channels, which every format of kept keys fits."""
    return make_tiny_model(tmp_path_factory.mktemp("wide"), TinyShape(hidden=128), kind="Q8_0").gguf


def whole(cache: KVCache, rows: int) -> list[RaggedKV]:
    """The oldest rows, all of them, as kept keys: nothing is lost."""
    return [from_cache_rows(cache, i, 0, rows) for i in range(len(cache.layers))]


def thinned(kept: Sequence[RaggedKV], seed: int = 0) -> list[RaggedKV]:
    """Another number of keys in every head, with biases."""
    made, g = [], torch.Generator().manual_seed(seed)
    for x in kept:
        assert x.pos_N is not None
        chosen = torch.rand(x.k_ND.shape[0], generator=g) < 0.4
        ends = torch.tensor([int(chosen[: int(end)].sum()) for end in x.cu_len], dtype=torch.int32)
        bias = torch.rand(int(chosen.sum()), generator=g) * 2
        made.append(RaggedKV(x.k_ND[chosen], x.v_ND[chosen], ends, bias, x.pos_N[chosen]))
    return made


def compacted(decoder: Decoder, rows: int = 60, format: str = "plain") -> Decoder:
    decoder.read(TOKENS)
    kept = thinned(whole(decoder.cache, rows))
    decoder.cache.compacted(rows, kept, format)
    return decoder


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got - expected).norm() / expected.norm()).item()


# --------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("steps", [(20,), (1, 1, 18)])
def test_rows_that_are_kept_whole_change_nothing(weights: ModelWeights, steps: tuple[int, ...]) -> None:
    cut, full = Decoder(weights, 128), Decoder(weights, 128)
    cut.read(TOKENS[:70])
    cut.cache.compacted(40, whole(cut.cache, 40))
    assert (cut.cache.base, cut.cache.length, cut.cache.past) == (40, 30, TOKENS[:40])
    expected, at = full.read(TOKENS, all_logits=True), 70
    for size in steps:
        got = cut.read(TOKENS[at : at + size], all_logits=True)
        torch.testing.assert_close(got, expected[at : at + size], rtol=1e-4, atol=1e-4)
        at += size


def test_twice_compacted_rows_that_are_kept_whole_change_nothing(weights: ModelWeights) -> None:
    cut, full = Decoder(weights, 60), Decoder(weights, 128)
    cut.read(TOKENS[:50])
    cut.cache.compacted(40, whole(cut.cache, 40))
    cut.read(TOKENS[50:70])
    assert cut.cache.kept is not None
    both = [join([old, new]) for old, new in zip(cut.cache.kept, whole(cut.cache, 30), strict=True)]
    cut.cache.compacted(30, both)
    assert cut.cache.slots == 70
    torch.testing.assert_close(cut.read(TOKENS[70:]), full.read(TOKENS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("format", ["plain", "int8", "int4"])
def test_short_reads_in_our_own_code_agree_with_torch(wide: Path, kernels: str, format: str) -> None:
    packed = load_weights(open_source(wide))
    short, seen = (compacted(Decoder(packed, 256), format=format) for _ in range(2))
    assert short.fused == (kernels == "native")
    kept = short.cache.kept
    assert kept is not None
    assert kept[0].format == format
    seen._fused = None  # torch operators on the same packed weights
    for part in (TOKENS[:7], TOKENS[7:8], TOKENS[8:40]):
        assert relative(short.read(part, all_logits=True), seen.read(part, all_logits=True)) < 0.09
    blind = Decoder(packed, 256)
    blind.read(TOKENS)
    blind.cache.compacted(60, None)
    assert relative(blind.read(TOKENS[:7]), seen.read(TOKENS[:7])) > 0.2  # kept keys matter


@pytest.mark.parametrize("format", ["plain", "int8", "int4"])
def test_the_number_of_tokens_in_a_short_read_after_kept_keys_changes_nothing(
    wide: Path, kernels: str, format: str
) -> None:
    if kernels == "torch":
        pytest.skip("torch's products round differently for different sizes")
    packed = load_weights(open_source(wide))
    one, many = (compacted(Decoder(packed, 256), format=format) for _ in range(2))
    many.read(TOKENS[:17])
    for token in TOKENS[:17]:
        one.read([token])
    assert torch.equal(one.read(TOKENS[17:18]), many.read(TOKENS[17:18]))


def test_a_forgotten_branch_leaves_what_is_kept(weights: ModelWeights) -> None:
    asked, quiet = compacted(Decoder(weights, 128)), compacted(Decoder(weights, 128))
    asked.read([7, 8, 9])
    asked.cache.truncate(30)
    assert torch.equal(asked.read([1]), quiet.read([1]))


def test_a_read_ends_where_the_positions_of_the_model_end(weights: ModelWeights) -> None:
    decoder = compacted(Decoder(weights, 128))
    decoder.cache.base = weights.config.context - 40
    assert decoder.cache.room == 10
    with pytest.raises(BadInput, match="1 to 10 more tokens"):
        decoder.read(TOKENS[:11])
    assert decoder.read(TOKENS[:10]).isfinite().all()


@pytest.mark.parametrize(("format", "error"), [("plain", 1e-5), ("int8", 0.02)])
def test_moved_keys_answer_as_before(weights: ModelWeights, format: str, error: float) -> None:
    moved, stays = (compacted(Decoder(weights, 128), format=format) for _ in range(2))
    for base in (1700, 3, 0):
        moved.rebase(base)
        assert moved.cache.base == base
        assert relative(moved.read(TOKENS[:9]), stays.read(TOKENS[:9])) < error
    with pytest.raises(BadInput, match="from 0 to 1991"):
        moved.rebase(1992)


def test_a_model_with_a_window_reads_on_for_ever(narrow: ModelWeights) -> None:
    decoder, fresh = Decoder(replace(narrow, config=replace(narrow.config, context=100)), 60), Decoder(narrow, 128)
    for start in range(0, 600, 20):
        decoder.cache.compacted(decoder.cache.unseen, None)
        if decoder.cache.room < 20:
            decoder.rebase(0)
        last = decoder.read([TOKENS[i % 90] for i in range(start, start + 20)])
    expected = fresh.read([TOKENS[i % 90] for i in range(480, 600)])
    torch.testing.assert_close(last, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_any_life_of_a_cache_equals_reading_what_it_has_not_forgotten(
    weights: ModelWeights, tmp_path: Path, seed: int
) -> None:
    """Read, forget, keep rows whole, move, save and wake in any order: the next logits are those of a fresh read."""
    draw, decoder, story = random.Random(seed), Decoder(weights, 120), list[int]()
    for _ in range(40):
        what, cache = draw.choice(["read", "read", "forget", "keep", "move", "wake"]), decoder.cache
        if what == "read" and cache.room > 40:
            new = [draw.randrange(380) for _ in range(draw.randint(1, 40))]
            decoder.read(new)
            story += new
        elif what == "forget" and cache.length:
            gone = draw.randint(0, min(20, cache.length))
            cache.truncate(cache.length - gone)
            story = story[: len(story) - gone]
        elif what == "keep" and cache.length:
            rows = draw.randint(1, cache.length)
            old = cache.kept or [None] * len(cache.layers)
            kept = [join([x for x in (a, b) if x is not None]) for a, b in zip(old, whole(cache, rows), strict=True)]
            cache.compacted(rows, kept)
        elif what == "move":
            decoder.rebase(draw.randint(0, 1500))
        elif what == "wake":
            cache.save(tmp_path / "kv")
            decoder = Decoder(weights, 120)
            decoder.cache.load(tmp_path / "kv")
    assert decoder.cache.past + decoder.cache.tokens == story
    assert len(story) > 40
    expected = Decoder(weights, 1000).read([*story, 7])
    assert relative(decoder.read([7]), expected) < 1e-3


@pytest.mark.parametrize("what", ["layers", "heads", "rows", "format", "paged"])
def test_kept_keys_that_do_not_fit_are_refused_and_nothing_changes(weights: ModelWeights, what: str) -> None:
    decoder = Decoder(weights, 128)
    decoder.read(TOKENS)
    kept, rows, format = whole(decoder.cache, 60), 60, "plain"
    if what == "layers":
        kept = kept[:2]
    elif what == "heads":
        kept = [RaggedKV(x.k_ND, x.v_ND, x.cu_len[:2].clone()) for x in kept]
    elif what == "paged":
        pages = torch.arange(4, dtype=torch.int32).view(2, 2)
        kept = [RaggedKV(x.k_ND[:64], x.v_ND[:64], x.cu_len, block_table_SP=pages, page=16) for x in kept]
    elif what == "rows":
        rows = 91
    else:
        format = "int3"
    with pytest.raises(BadInput, match="expected"):
        decoder.cache.compacted(rows, kept, format)
    assert decoder.cache.tokens == TOKENS
    assert decoder.cache.kept is None


# -------------------------------------------------------------------------------------------------------- snapshots


@pytest.mark.parametrize("format", ["plain", "int8", "int4"])
def test_a_reloaded_snapshot_with_kept_keys_continues_bit_for_bit(
    wide: Path, tmp_path: Path, kernels: str, format: str
) -> None:
    packed = load_weights(open_source(wide))
    lives, wakes = compacted(Decoder(packed, 128), format=format), Decoder(packed, 64)
    lives.cache.save(tmp_path / "kv")
    wakes.read([1, 2, 3])
    wakes.cache.load(tmp_path / "kv")
    assert (wakes.cache.tokens, wakes.cache.past, wakes.cache.base) == (TOKENS[60:], TOKENS[:60], 60)
    assert wakes.cache.slots == lives.cache.slots
    for token in (3, 1, 4):
        assert torch.equal(lives.read([token]), wakes.read([token]))
    lives.cache.save(tmp_path / "a")
    wakes.cache.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def _as_first_version(path: Path) -> None:
    """What the first version wrote: tokens, keys and values."""
    with safe_open(path, framework="pt") as opened:
        about = json.loads(opened.metadata()["perdure-kv"])
        tensors = {n: opened.get_tensor(n) for n in opened.keys() if n == "tokens" or n[:2] in ("k.", "v.")}  # noqa: SIM118
    about |= {"version": 1, "sha256": _checksum(tensors)}
    save_file(tensors, path, metadata={"perdure-kv": json.dumps(about)})


def test_a_snapshot_of_the_first_version_still_loads(weights: ModelWeights, tmp_path: Path) -> None:
    lives, wakes = Decoder(weights, 128), compacted(Decoder(weights, 128))
    lives.read(TOKENS)
    lives.cache.save(tmp_path / "kv")
    _as_first_version(tmp_path / "kv")
    wakes.cache.load(tmp_path / "kv")
    assert (wakes.cache.past, wakes.cache.base, wakes.cache.kept) == ([], 0, None)
    assert torch.equal(lives.read([5]), wakes.read([5]))


def test_one_flipped_bit_of_what_is_kept_is_noticed_and_nothing_is_lost(weights: ModelWeights, tmp_path: Path) -> None:
    decoder = compacted(Decoder(weights, 128))
    decoder.cache.save(tmp_path / "kv")
    data = bytearray((tmp_path / "kv").read_bytes())
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    begin, end = header["kept.1.v_ND"]["data_offsets"]
    data[8 + int.from_bytes(data[:8], "little") + (begin + end) // 2] ^= 1
    (tmp_path / "kv").write_bytes(data)
    with pytest.raises(DamagedError, match="content"):
        decoder.cache.load(tmp_path / "kv")
    assert decoder.cache.past == TOKENS[:60]


def test_a_newer_snapshot_is_refused(weights: ModelWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from perdure.errors import VersionError

    decoder = compacted(Decoder(weights, 128))
    monkeypatch.setattr(snapshot_module, "VERSION", 3)
    decoder.cache.save(tmp_path / "kv")
    monkeypatch.undo()
    with pytest.raises(VersionError, match="version 2 or older"):
        decoder.cache.load(tmp_path / "kv")


# ----------------------------------------------------------------------------------------------------------- memory


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_room_that_is_not_used_costs_no_memory() -> None:
    before, cache = resident_mb(), KVCache(24, 32768, "m")
    cache.allocate(2, 64, torch.float16)  # 384 MiB
    for layer in cache.layers:
        layer.update(torch.ones(1, 2, 100, 64).half(), torch.ones(1, 2, 100, 64).half())
    assert resident_mb() - before < 40


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", ["compacted", "reset"])
def test_memory_falls_when_rows_are_gone(how: str) -> None:
    cache = KVCache(24, 16384, "m")
    cache.allocate(2, 64, torch.float16)
    before = resident_mb()
    for layer in cache.layers:
        part = torch.ones(1, 2, 8192, 64).half()
        layer.update(part, part)
    cache.advance([1] * 8192)
    held = 24 * 2 * 2 * 8192 * 64 * 2 / 2**20
    assert cache.nbytes == held * 2**20
    full = resident_mb() - before
    assert full > 0.9 * held
    if how == "reset":
        cache.reset()
    else:
        cu_len = torch.tensor([0, 700, 1600], dtype=torch.int32)
        x = torch.ones(1600, 64).half()
        cache.compacted(8100, [RaggedKV(x.clone(), x.clone(), cu_len) for _ in range(24)])
        assert cache.nbytes < 0.11 * held * 2**20
    assert resident_mb() - before < 0.2 * held


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_what_the_heap_has_to_spare_goes_back_with_many_rows() -> None:
    cache = KVCache(24, 2048, "m")
    cache.allocate(2, 64, torch.float16)
    for layer in cache.layers:
        layer.update(torch.ones(1, 2, 2048, 64).half(), torch.ones(1, 2, 2048, 64).half())
    cache.advance([1] * 2048)
    trim()
    before = resident_mb()
    garbage = [torch.ones(10_000) for _ in range(2500)]
    held = garbage[::50]  # so that the heap's end stays in use
    del garbage
    assert resident_mb() - before > 60
    cache.compacted(2000, None)
    assert resident_mb() - before < 20
    assert len(held) == 50


# ----------------------------------------------------------------------------------------------------------- planner


ASK = [{"role": "system", "content": "You keep a flat."}, {"role": "user", "content": "Where are the keys?"}]
LONGER = [*ASK, {"role": "assistant", "content": "On the table."}, {"role": "user", "content": "And the cup?"}]


@pytest.fixture(scope="module")
def planner(tiny: TinyModel) -> LocalPlanner:
    return exact_planner(tiny.gguf, 300)


def test_a_prompt_that_begins_with_the_past_is_not_read_again(planner: LocalPlanner) -> None:
    cache = planner.engine.cache
    cache.reset()
    expected = planner.chat(LONGER, max_tokens=12)
    cache.reset()
    first = planner.chat(ASK, max_tokens=12)
    cache.compacted(20, whole(cache, 20))
    done = planner.chat(LONGER, max_tokens=12)
    assert done.reused_tokens >= first.prompt_tokens - 3 > 20
    assert done.text == expected.text
    assert len(cache.past) == 20


def test_a_prompt_that_differs_from_the_past_is_read_afresh(planner: LocalPlanner) -> None:
    other, cache = [{"role": "user", "content": "Open the window."}], planner.engine.cache
    cache.reset()
    expected = planner.chat(other, max_tokens=12)
    planner.chat(ASK, max_tokens=12)
    cache.compacted(20, thinned(whole(cache, 20)))
    done = planner.chat(other, max_tokens=12)
    assert (done.text, done.reused_tokens) == (expected.text, 0)
    assert (cache.past, cache.kept, cache.base) == ([], None, 0)


def test_a_prompt_may_be_longer_than_the_cache_when_its_beginning_is_compacted(planner: LocalPlanner) -> None:
    cache, tokenizer = planner.engine.cache, planner.tokenizer
    from perdure.runtime.generate import Limits, Sampling, generate

    cache.reset()
    prompt = [TOKENS[i % 90] for i in range(320)]
    planner.engine.read(prompt[:250])
    cache.compacted(240, whole(cache, 240))
    done = generate(planner.engine, tokenizer, prompt, Sampling(), Limits(5))
    assert (done.reused_tokens, done.new_tokens) == (250, 5)
    with pytest.raises(BadInput, match="at most 299 tokens"):
        generate(planner.engine, tokenizer, [9, *prompt], Sampling(), Limits(5))
    assert len(cache.past) == 240  # what cannot be answered costs nothing


def test_a_planner_continues_from_a_compacted_state(planner: LocalPlanner, tiny: TinyModel, tmp_path: Path) -> None:
    cache = planner.engine.cache
    cache.reset()
    planner.chat(ASK, max_tokens=12)
    cache.compacted(20, thinned(whole(cache, 20)), "int8")
    planner.save_state(tmp_path / "kv")
    woken = exact_planner(tiny.gguf, 300)
    woken.load_state(tmp_path / "kv")
    a, b = (p.chat(LONGER, max_tokens=8) for p in (planner, woken))
    assert (a.text, a.reused_tokens) == (b.text, b.reused_tokens)
    assert a.reused_tokens > 20


# ----------------------------------------------------------------------------------------------------------- windows


@pytest.fixture(scope="module")
def narrow(weights: ModelWeights) -> ModelWeights:
    return replace(weights, config=replace(weights.config, window=16))


def test_what_is_out_of_the_window_is_dropped_exactly(narrow: ModelWeights) -> None:
    drops, holds = Decoder(narrow, 60), Decoder(narrow, 256)
    expected = holds.read([*TOKENS, *TOKENS], all_logits=True)
    for start in range(0, 180, 20):
        drops.cache.compacted(drops.cache.unseen, None)
        assert drops.cache.length <= 15
        got = drops.read([*TOKENS, *TOKENS][start : start + 20], all_logits=True)
        torch.testing.assert_close(got, expected[start : start + 20], rtol=1e-4, atol=1e-4)
    assert drops.cache.kept is None


def test_what_a_window_still_shows_is_neither_dropped_nor_compacted(narrow: ModelWeights) -> None:
    decoder = Decoder(narrow, 128)
    decoder.read(TOKENS)
    assert decoder.cache.unseen == 75
    with pytest.raises(BadInput, match="at most 75 rows"):
        decoder.cache.compacted(76, None)
    with pytest.raises(BadInput, match="dropped exactly"):
        decoder.cache.compacted(60, whole(decoder.cache, 60))


# ------------------------------------------------------------------------------------------------------ other devices


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_plain_bfloat16_weights_agree_with_exact_ones(tiny: TinyModel, precision: Any) -> None:
    plain = Decoder(load_weights(open_source(tiny.gguf), precision), 128, device="cpu")
    exact = Decoder(load_weights(open_source(tiny.gguf), "float32"), 128)
    assert plain.cache.layers[0].keys.dtype == torch.bfloat16
    assert plain.cache.model_sha256 != exact.cache.model_sha256
    assert relative(compacted(plain).read(TOKENS[:20]), compacted(exact).read(TOKENS[:20])) < 0.03


def test_packed_weights_are_unpacked_for_a_device(wide: Path, kernels: str) -> None:
    if kernels == "torch":
        pytest.skip("torch's 4-bit layout cannot be unpacked")
    packed = load_weights(open_source(wide))
    plain, own = compacted(Decoder(packed, 128, device="cpu")), compacted(Decoder(packed, 128))
    assert not plain.fused
    assert relative(plain.read(TOKENS[:20]), own.read(TOKENS[:20])) < 0.06


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_agrees_with_the_cpu(tiny: TinyModel, tmp_path: Path) -> None:
    source = load_weights(open_source(tiny.gguf), "bfloat16")
    here, there = Decoder(source, 3000, device="cpu"), Decoder(source, 3000, device="cuda")
    for format in ("plain", "int8"):
        for decoder in (here, there):
            decoder.cache.reset()
            decoder.read(TOKENS * 14)
            decoder.cache.compacted(1200, whole(decoder.cache, 1200), format)
        assert relative(there.read(TOKENS).cpu(), here.read(TOKENS)) < 0.05
    assert there.cache.layers[0].keys.shape[2] == 1024
    there.cache.save(tmp_path / "kv")
    expected = there.read([3])
    there.cache.load(tmp_path / "kv")
    assert torch.equal(there.read([3]), expected)


def test_tensors_on_a_device_grow_and_shrink_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from perdure.runtime.room import Room

    room = Room(2, 5000, 8, torch.float32, torch.device("meta"))
    sizes = [room.keys.shape[2]]
    for rows in (1024, 1025, 5000):
        room.reserve(rows)
        sizes.append(room.values.shape[2])
    room.release(10)
    assert [*sizes, room.keys.shape[2]] == [1024, 1024, 2048, 5000, 1024]


def test_what_was_quantised_before_is_stored_as_it_is(weights: ModelWeights) -> None:
    decoder = Decoder(weights, 128)
    decoder.read(TOKENS)
    small = [quantize_kv(x, "int4", group=16) for x in whole(decoder.cache, 60)]
    decoder.cache.compacted(60, small, "int8")
    assert decoder.cache.kept == tuple(small)
