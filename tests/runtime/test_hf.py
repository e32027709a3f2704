"""Other models: through transformers, with our attention and our cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from perdure.errors import BadInput, WeightsError
from perdure.kernels.decode_attention import RaggedKV
from perdure.runtime import load_planner
from perdure.runtime.cache import KVCache
from perdure.runtime.hf import HfEngine, load_hf_planner, register_attention
from perdure.runtime.planner import exact_planner
from perdure.runtime.ragged import from_cache_rows
from perdure.runtime.tiny import TinyModel
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2Config, GPT2Config

IDS = torch.tensor([[(11 * i + 2) % 380 for i in range(40)]])


def both(folder: Path) -> tuple[torch.nn.Module, torch.nn.Module]:
    return tuple(  # type: ignore[return-value]
        AutoModelForCausalLM.from_pretrained(folder, attn_implementation=name, dtype=torch.float32).eval()
        for name in (register_attention(), "sdpa")
    )


def test_our_attention_in_a_transformers_model_equals_sdpa(tiny: TinyModel) -> None:
    ours, sdpa = both(tiny.folder)
    torch.testing.assert_close(ours(IDS).logits, sdpa(IDS).logits, rtol=1e-5, atol=1e-5)


def test_padding_and_batches_equal_sdpa(tiny: TinyModel) -> None:
    ours, sdpa = both(tiny.folder)
    batch, mask = IDS.repeat(2, 1), torch.ones(2, 40, dtype=torch.long)
    mask[1, :13] = 0
    a, b = (m(batch, attention_mask=mask).logits for m in (ours, sdpa))
    torch.testing.assert_close(a[mask.bool()], b[mask.bool()], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pieces", [(40,), (7, 1, 32), (39, 1)])
def test_a_transformers_model_runs_on_our_cache(tiny: TinyModel, pieces: tuple[int, ...]) -> None:
    ours, sdpa = both(tiny.folder)
    cache, at, parts = KVCache(3, 64, "m"), 0, []
    for size in pieces:
        parts.append(ours(IDS[:, at : at + size], past_key_values=cache).logits)
        at += size
    torch.testing.assert_close(torch.cat(parts, 1), sdpa(IDS).logits, rtol=1e-4, atol=1e-4)


def test_generate_of_transformers_runs_through_our_cache(tiny: TinyModel) -> None:
    ours, sdpa = both(tiny.folder)
    settings = {"max_new_tokens": 15, "do_sample": False, "pad_token_id": 0}
    expected = sdpa.generate(IDS, **settings)
    assert torch.equal(ours.generate(IDS, past_key_values=KVCache(3, 64, "m"), **settings), expected)


def test_static_caches_of_transformers_work_with_our_attention(tiny: TinyModel) -> None:
    ours, sdpa = both(tiny.folder)
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "cache_implementation": "static"}
    settings["disable_compile"] = True
    assert torch.equal(ours.generate(IDS, **settings), sdpa.generate(IDS, **settings))


def test_sliding_layers_equal_eager_attention() -> None:
    config = Gemma2Config(
        vocab_size=390, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, sliding_window=8, attn_logit_softcapping=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    expected = model(IDS).logits
    model.set_attn_implementation(register_attention())
    torch.testing.assert_close(model(IDS).logits, expected, rtol=1e-4, atol=1e-4)


def test_the_planner_answers_as_our_own_decoder_does(tiny: TinyModel) -> None:
    ask = [{"role": "user", "content": "Where are the keys?"}]
    theirs, ours = load_hf_planner(str(tiny.folder), 256), exact_planner(tiny.folder, 256)
    assert theirs.chat(ask, max_tokens=20).text == ours.chat(ask, max_tokens=20).text


def test_another_architecture_gets_a_planner(tiny: TinyModel, tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoTokenizer.from_pretrained(tiny.folder).save_pretrained(tmp_path / "gpt2")
    config = GPT2Config(vocab_size=390, n_positions=128, n_embd=32, n_layer=2, n_head=2, eos_token_id=389)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "gpt2")
    planner = load_planner(tmp_path / "gpt2", cache_dir=tmp_path, context_tokens=100)
    schema = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 3}, "minItems": 2, "maxItems": 2}
    done = planner.chat([{"role": "user", "content": "Two numbers."}], schema=schema)
    assert done.text.startswith("[")
    planner.save_state(tmp_path / "kv")
    again = load_planner(tmp_path / "gpt2", cache_dir=tmp_path, context_tokens=100)
    again.load_state(tmp_path / "kv")
    assert again.chat([{"role": "user", "content": "Two numbers."}], schema=schema).reused_tokens > 0


def thinned(cache: KVCache, rows: int) -> list[RaggedKV]:
    """Every third of the oldest rows, and one more in the first head, with biases."""
    made = []
    for i in range(len(cache.layers)):
        x = from_cache_rows(cache, i, 0, rows)
        chosen = torch.arange(x.k_ND.shape[0]) % 3 == 0
        chosen[1] = True
        ends = torch.tensor([int(chosen[: int(end)].sum()) for end in x.cu_len], dtype=torch.int32)
        made.append(RaggedKV(x.k_ND[chosen], x.v_ND[chosen], ends, torch.full((int(chosen.sum()),), 0.7)))
    return made


@pytest.mark.parametrize("format", ["plain", "int8"])
def test_a_transformers_model_reads_after_kept_keys_as_our_decoder_does(
    tiny: TinyModel, tmp_path: Path, format: str
) -> None:
    ids = IDS[0].tolist()
    ours = exact_planner(tiny.folder, 128).engine
    theirs = HfEngine(both(tiny.folder)[0], 128, "m")
    for engine in (ours, theirs):
        engine.read(ids)
        engine.cache.compacted(25, thinned(engine.cache, 25), format)
    for part in (ids[:9], ids[9:10], ids[10:30]):
        a, b = (engine.read(part, all_logits=True) for engine in (ours, theirs))
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    theirs.cache.save(tmp_path / "kv")
    expected = theirs.read([5])
    again = HfEngine(theirs.model, 128, "m")
    again.cache.load(tmp_path / "kv")
    assert torch.equal(again.read([5]), expected)


def test_generate_of_transformers_goes_on_after_kept_keys(tiny: TinyModel) -> None:
    ours, sdpa = both(tiny.folder)
    settings = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": 0}
    engine = HfEngine(ours, 64, "m")
    engine.read(IDS[0, :30].tolist())
    engine.cache.compacted(20, [from_cache_rows(engine.cache, i, 0, 20) for i in range(3)])
    answer = ours.generate(IDS, past_key_values=engine.cache, **settings)
    assert torch.equal(answer, sdpa.generate(IDS, **settings))


def test_kept_keys_with_another_attention_say_what_to_do(tiny: TinyModel) -> None:
    engine = HfEngine(both(tiny.folder)[1], 128, "m")
    engine.read(IDS[0].tolist())
    engine.cache.compacted(25, thinned(engine.cache, 25))
    with pytest.raises(BadInput, match="attn_implementation='perdure'"):
        engine.read([1, 2])


def test_sliding_layers_are_dropped_and_the_others_compacted() -> None:
    config = Gemma2Config(
        vocab_size=390, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, sliding_window=8, attn_logit_softcapping=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=register_attention()).eval()
    cut, full, ids = HfEngine(model, 60, "m"), HfEngine(model, 60, "m"), IDS[0].tolist()
    assert [layer.window for layer in cut.cache.layers] == [8, None, 8, None]
    for engine in (cut, full):
        engine.read(ids[:30])
    kept = [from_cache_rows(cut.cache, i, 0, 23) for i in range(4)]
    with pytest.raises(BadInput, match="no kept keys in layers with a window"):
        cut.cache.compacted(23, kept)
    none = [torch.zeros(0, 16), torch.zeros(0, 16), torch.zeros(3, dtype=torch.int32)]
    kept = [x if i % 2 else RaggedKV(*none) for i, x in enumerate(kept)]
    with pytest.raises(BadInput, match="at most 23 rows"):
        cut.cache.compacted(24, kept)
    cut.cache.compacted(23, kept)
    for part in (ids[:1], ids[1:12]):
        a, b = (engine.read(part, all_logits=True) for engine in (cut, full))
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_soft_caps_are_refused_rather_than_left_out(tiny: TinyModel) -> None:
    from perdure.runtime.hf import perdure_attention

    x = torch.zeros(1, 1, 1, 4)
    with pytest.raises(BadInput, match="softcap"):
        perdure_attention(torch.nn.Identity(), x, x, x, None, softcap=30.0)


def test_a_full_cache_is_refused(tiny: TinyModel) -> None:
    engine = HfEngine(both(tiny.folder)[0], 8, "m")
    with pytest.raises(BadInput, match="context_tokens"):
        engine.read(list(range(9)))


def test_an_id_that_nobody_has_says_what_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="GGUF file, a folder"):
        load_planner("no-such-owner/no-such-model", cache_dir=tmp_path)
