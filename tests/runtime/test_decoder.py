"""Our forward pass against transformers' on the same weights."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from perdure.errors import BadInput
from perdure.runtime.decoder import Cancelled, Decoder
from perdure.runtime.planner import open_source
from perdure.runtime.quantize import load_weights
from perdure.runtime.tiny import TinyModel, TinyShape, make_tiny_model
from transformers import AutoModelForCausalLM

TOKENS = [(7 * i * i + 3 * i) % 380 for i in range(150)]


def logits_of_transformers(folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    return model(torch.tensor([TOKENS])).logits[0]


def exact(path: Path, capacity: int = 256) -> Decoder:
    return Decoder(load_weights(open_source(path), "float32"), capacity)


def test_float32_logits_of_a_qwen2_folder_equal_those_of_transformers(tiny: TinyModel) -> None:
    ours = exact(tiny.folder).read(TOKENS, all_logits=True)
    torch.testing.assert_close(ours, logits_of_transformers(tiny.folder), rtol=1e-4, atol=1e-4)


def test_the_gguf_file_gives_the_same_logits_as_the_folder(tiny: TinyModel) -> None:
    assert torch.equal(exact(tiny.gguf).read(TOKENS), exact(tiny.folder).read(TOKENS))


def test_a_llama_gguf_with_its_other_rotary_order_equals_transformers(tmp_path: Path) -> None:
    made = make_tiny_model(tmp_path, TinyShape(family="llama"))
    expected = logits_of_transformers(made.folder)
    torch.testing.assert_close(exact(made.gguf).read(TOKENS, all_logits=True), expected, rtol=1e-4, atol=1e-4)


def test_tied_embeddings_and_many_heads_equal_transformers(tmp_path: Path) -> None:
    made = make_tiny_model(tmp_path, TinyShape(heads=8, kv_heads=1, hidden=128, tied=True))
    ours = exact(made.folder).read(TOKENS, all_logits=True)
    torch.testing.assert_close(ours, logits_of_transformers(made.folder), rtol=1e-4, atol=1e-4)


def test_reading_in_pieces_gives_the_logits_of_reading_at_once(tiny: TinyModel) -> None:
    pieces = exact(tiny.folder)
    for part in (TOKENS[:1], TOKENS[1:40], TOKENS[40:41]):
        pieces.read(part)
    torch.testing.assert_close(pieces.read(TOKENS[41:]), exact(tiny.folder).read(TOKENS), rtol=1e-4, atol=1e-4)


# Random weights magnify every rounding; what it costs on real weights is in runtime/quantize.py. Measured: native
# 0.044, 0.015, 0.023; torch 0.079 (output matrix in 4 bits), 0.185 (feed-forward too), 0.023.
STATED = {
    "Q8_0": {"native": 0.055, "torch": 0.10},
    "Q5_0": {"native": 0.025, "torch": 0.22},
    "Q4_0": {"native": 0.035, "torch": 0.035},
}


@pytest.mark.parametrize("kind", STATED)
def test_quantized_logits_stay_within_the_stated_error(tmp_path: Path, kernels: str, kind: str) -> None:
    """The peer is the exactly dequantised file, so that only our own rounding counts."""
    error = STATED[kind]
    made = make_tiny_model(tmp_path, kind=kind)  # type: ignore[arg-type]
    expected = exact(made.gguf).read(TOKENS, all_logits=True)
    ours = Decoder(load_weights(open_source(made.gguf)), 256)
    assert ours.fused == (kernels == "native")
    got = ours.read(TOKENS, all_logits=True)
    assert ((got - expected).norm() / expected.norm()).item() < error[kernels]


def test_few_tokens_at_a_time_agree_with_one_long_read(tmp_path: Path, kernels: str) -> None:
    made = make_tiny_model(tmp_path, kind="Q8_0")
    weights = load_weights(open_source(made.gguf))
    whole, steps = Decoder(weights, 256), Decoder(weights, 256)
    at_once = whole.read(TOKENS)
    for token in TOKENS[:-1]:
        steps.read([token])
    last = steps.read(TOKENS[-1:])
    assert ((last - at_once).norm() / at_once.norm()).item() < 0.08


def test_the_number_of_tokens_in_a_short_read_changes_nothing(tmp_path: Path, kernels: str) -> None:
    if kernels == "torch":
        pytest.skip("torch's products round differently for different sizes")
    made = make_tiny_model(tmp_path, kind="Q5_0")
    weights = load_weights(open_source(made.gguf))
    one, many = Decoder(weights, 64), Decoder(weights, 64)
    many.read(TOKENS[:17])
    for token in TOKENS[:17]:
        one.read([token])
    assert torch.equal(one.read(TOKENS[17:18]), many.read(TOKENS[17:18]))


def test_a_window_hides_what_lies_before_it(tmp_path: Path, kernels: str) -> None:
    from dataclasses import replace

    made = make_tiny_model(tmp_path, kind="Q8_0")
    weights = load_weights(open_source(made.gguf))
    narrow = replace(weights, config=replace(weights.config, window=4))
    # With 3 layers a token can see 3 * (4 - 1) positions back: what is before that must not matter.
    a, b = Decoder(narrow, 64), Decoder(narrow, 64)
    a.read([1, 2, 3, 4, 5, *TOKENS[:12]])
    b.read([9, 8, 7, 6, 5, *TOKENS[:12]])
    assert torch.equal(a.read([50]), b.read([50]))
    wide = Decoder(weights, 64)
    wide.read([1, 2, 3, 4, 5, *TOKENS[:12]])
    assert not torch.equal(wide.read([50]), a.read([51]))


def test_a_prompt_longer_than_a_chunk_is_read_whole(tiny: TinyModel) -> None:
    long = [TOKENS[i % 150] for i in range(1100)]
    ours = exact(tiny.folder, 1200).read(long)
    model = AutoModelForCausalLM.from_pretrained(tiny.folder, dtype=torch.float32).eval()
    torch.testing.assert_close(ours, model(torch.tensor([long])).logits[0, -1], rtol=1e-3, atol=1e-3)


def test_too_many_tokens_and_wrong_ids_are_refused(tiny: TinyModel) -> None:
    decoder = exact(tiny.folder, 16)
    with pytest.raises(BadInput, match="1 to 16 more tokens"):
        decoder.read(TOKENS[:17])
    with pytest.raises(BadInput, match="ids from 0 to 389"):
        decoder.read([400])
    with pytest.raises(BadInput, match="got 0"):
        decoder.read([])


def test_a_cancelled_prompt_leaves_a_usable_cache(tiny: TinyModel) -> None:
    decoder, cancel = exact(tiny.folder, 1200), threading.Event()
    decoder.read(TOKENS)
    cancel.set()
    with pytest.raises(Cancelled):
        decoder.read(TOKENS, cancel=cancel)
    assert decoder.cache.tokens == TOKENS


def test_who_looks_on_sees_the_same_queries_whether_a_read_is_short_or_long(tmp_path: Path, kernels: str) -> None:
    """Short reads run in C++ where there is one, long ones do not; looking on changes no logit."""
    made = make_tiny_model(tmp_path, kind="Q8_0")
    weights = load_weights(open_source(made.gguf))
    seen: dict[str, list[list[torch.Tensor]]] = {"short": [[], [], []], "long": [[], [], []]}
    unseen = Decoder(weights, 256)
    for name, sizes in (("short", (1, 40, 39)), ("long", (80,))):
        decoder = Decoder(weights, 256)
        decoder.observe = lambda i, q, name=name: seen[name][i].append(q.clone())  # type: ignore[misc]
        for at, size in zip((0, 1, 41), sizes, strict=False):
            logits = decoder.read(TOKENS[at : at + size])
            assert torch.equal(logits, unseen.read(TOKENS[at : at + size]))
        unseen.cache.truncate(0)
    for short, long in zip(*seen.values(), strict=True):
        a, b = torch.cat(short, 1), torch.cat(long, 1)
        assert a.shape == (4, 80, 16)
        assert ((a - b).norm() / b.norm()).item() < 0.1
