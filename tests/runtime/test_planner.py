"""Chat, grammars, sampling, streaming, cancellation and state of a local planner."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from perdure.errors import BadInput
from perdure.runtime import Planner, load_planner
from perdure.runtime.chat import render_chat
from perdure.runtime.generate import Sampling, _sampler
from perdure.runtime.grammar import GrammarCompiler
from perdure.runtime.planner import LocalPlanner, exact_planner, open_source
from perdure.runtime.tiny import TinyModel
from transformers import AutoTokenizer

ASK = [{"role": "system", "content": "You keep a flat."}, {"role": "user", "content": "Where are the keys?"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "place": {"enum": ["table", "shelf", "unknown"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
        "why": {"type": "string", "maxLength": 20},
    },
    "required": ["place", "count", "why"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def planner(tiny: TinyModel) -> LocalPlanner:
    return exact_planner(tiny.gguf, 512)


def test_loading_twice_gives_the_same_answers_from_the_cache(tiny: TinyModel, tmp_path: Path, kernels: str) -> None:
    first = load_planner(tiny.gguf, cache_dir=tmp_path, context_tokens=256)
    made = [p.stat().st_mtime_ns for p in (tmp_path / "packed").glob("*.safetensors")]
    second = load_planner(tiny.gguf, cache_dir=tmp_path, context_tokens=256)
    assert [p.stat().st_mtime_ns for p in (tmp_path / "packed").glob("*.safetensors")] == made
    assert first.model_hash == second.model_hash
    assert first.chat(ASK, max_tokens=20).text == second.chat(ASK, max_tokens=20).text


def test_a_damaged_cache_is_made_again(tiny: TinyModel, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = load_planner(tiny.gguf, cache_dir=tmp_path).chat(ASK, max_tokens=8).text
    (path,) = (tmp_path / "packed").glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    assert load_planner(tiny.gguf, cache_dir=tmp_path).chat(ASK, max_tokens=8).text == expected
    assert "made again" in caplog.text


def test_a_full_disk_does_not_keep_the_model_from_running(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("perdure.runtime.quantize.save_file", full)
    assert load_planner(tiny.gguf, cache_dir=tmp_path).chat(ASK, max_tokens=4).new_tokens > 0
    assert "No space left" in caplog.text
    monkeypatch.undo()
    load_planner(tiny.gguf, cache_dir=tmp_path)
    assert not list((tmp_path / "packed").glob("*.tmp"))


def test_folder_and_gguf_have_a_planner_each(tiny: TinyModel, tmp_path: Path) -> None:
    planners: list[Planner] = [load_planner(p, cache_dir=tmp_path) for p in (tiny.folder, str(tiny.gguf))]
    assert [p.name for p in planners] == ["tiny", "tiny"]
    assert all(p.chat(ASK, max_tokens=5).new_tokens <= 5 for p in planners)


def test_a_second_question_reuses_the_first_and_answers_the_same(planner: LocalPlanner) -> None:
    longer = [*ASK, {"role": "assistant", "content": "On the table."}, {"role": "user", "content": "And the cup?"}]
    planner.engine.cache.truncate(0)
    fresh = planner.chat(longer, max_tokens=12)
    assert fresh.reused_tokens == 0
    planner.engine.cache.truncate(0)
    first = planner.chat(ASK, max_tokens=12)
    second = planner.chat(longer, max_tokens=12)
    assert second.reused_tokens >= first.prompt_tokens - 3
    assert second.text == fresh.text
    assert planner.chat(longer, max_tokens=12).reused_tokens == second.prompt_tokens - 1


@pytest.mark.parametrize("seed", range(6))
def test_every_constrained_answer_satisfies_its_schema(planner: LocalPlanner, seed: int) -> None:
    done = planner.chat(ASK, schema=SCHEMA, temperature=1.5, seed=seed, max_tokens=120)
    assert done.stopped == "end"
    answer = json.loads(done.text)
    assert set(answer) == {"place", "count", "why"}
    assert answer["place"] in ("table", "shelf", "unknown")
    assert 0 <= answer["count"] <= 9
    assert len(answer["why"]) <= 20


def test_forced_tokens_do_not_change_the_answer(planner: LocalPlanner, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = planner.chat(ASK, schema=SCHEMA, max_tokens=120).text
    monkeypatch.setattr("perdure.runtime.grammar.Grammar.forced", lambda self: [])
    assert json.loads(planner.chat(ASK, schema=SCHEMA, max_tokens=120).text) == json.loads(fast)


def test_lark_and_regex_hold(planner: LocalPlanner) -> None:
    assert planner.chat(ASK, lark='start: "yes" | "no"').text in ("yes", "no")
    grammar = GrammarCompiler(planner.tokenizer, planner.engine.vocab).compile(regex="[0-9]{3}")
    from perdure.runtime.generate import Limits, generate

    done = generate(planner.engine, planner.tokenizer, [5, 6], Sampling(), Limits(9), grammar)
    assert done.text.isdigit()
    assert len(done.text) == 3


def test_bad_grammars_are_refused(planner: LocalPlanner) -> None:
    with pytest.raises(BadInput, match="valid grammar"):
        planner.chat(ASK, lark="start: (")
    with pytest.raises(BadInput, match="valid grammar"):
        planner.chat(ASK, schema={"type": "nonsense"})
    with pytest.raises(BadInput, match="exactly one"):
        planner.chat(ASK, schema=SCHEMA, lark='start: "a"')


def test_a_seed_repeats_an_answer_and_another_changes_it(planner: LocalPlanner) -> None:
    def say(seed: int) -> str:
        return planner.chat(ASK, temperature=1.0, seed=seed, max_tokens=30).text

    assert say(1) == say(1)
    assert len({say(seed) for seed in range(4)}) > 1


def test_top_p_leaves_out_what_is_improbable() -> None:
    import torch

    logits = torch.log(torch.tensor([0.05, 0.6, 0.3, 0.05]))
    drawn = {_sampler(Sampling(1.0, 0.8, seed))(logits) for seed in range(60)}
    assert drawn == {1, 2}
    assert _sampler(Sampling(1.0, 1e-6, 0))(logits) == 1


def test_streamed_pieces_make_the_text(planner: LocalPlanner) -> None:
    pieces: list[str] = []
    done = planner.chat(ASK, max_tokens=40, temperature=1.0, on_text=pieces.append)
    assert done.text.startswith("".join(pieces))
    assert len(pieces) > 3


def test_cancelling_stops_before_the_next_token(planner: LocalPlanner) -> None:
    cancel, pieces = threading.Event(), []

    def hear(text: str) -> None:
        pieces.append(text)
        if len(pieces) == 3:
            cancel.set()

    done = planner.chat(ASK, max_tokens=200, temperature=2.0, cancel=cancel, on_text=hear)
    assert done.stopped == "cancelled"
    assert len(pieces) == 3
    assert planner.chat(ASK, max_tokens=200, cancel=cancel).new_tokens == 0


def test_the_budget_is_kept(planner: LocalPlanner) -> None:
    done = planner.chat(ASK, max_tokens=3)
    assert (done.new_tokens, done.stopped) == (3, "length")
    assert done.sampling == {"temperature": 0.0, "top_p": 1.0, "seed": 0, "max_tokens": 3, "grammar": None}


def test_a_full_context_ends_the_answer_and_a_longer_prompt_is_refused(tiny: TinyModel) -> None:
    small = exact_planner(tiny.gguf, 64)
    done = small.chat(ASK[1:], max_tokens=500, temperature=2.0)
    assert done.stopped in ("length", "end")
    assert done.prompt_tokens + done.new_tokens <= 65
    with pytest.raises(BadInput, match="more context_tokens"):
        small.chat([{"role": "user", "content": "word " * 100}])


def test_state_saved_and_loaded_continues_the_same(tiny: TinyModel, tmp_path: Path, kernels: str) -> None:
    lives = load_planner(tiny.gguf, cache_dir=tmp_path, context_tokens=256)
    lives.chat(ASK, max_tokens=10)
    lives.save_state(tmp_path / "kv")
    more = [*ASK, {"role": "user", "content": "And now?"}]
    wakes = load_planner(tiny.gguf, cache_dir=tmp_path, context_tokens=256)
    wakes.load_state(tmp_path / "kv")
    ours, theirs = wakes.chat(more, max_tokens=20), lives.chat(more, max_tokens=20)
    assert ours.text == theirs.text
    assert ours.reused_tokens == theirs.reused_tokens > 0


def test_a_state_of_other_arithmetic_is_refused(tiny: TinyModel, tmp_path: Path) -> None:
    exact_planner(tiny.gguf, 64).save_state(tmp_path / "kv")
    with pytest.raises(BadInput, match="snapshot of model"):
        load_planner(tiny.gguf, cache_dir=tmp_path, context_tokens=64).load_state(tmp_path / "kv")


def test_the_template_renders_as_transformers_does(tiny: TinyModel) -> None:
    theirs = AutoTokenizer.from_pretrained(tiny.folder).apply_chat_template(
        ASK, tokenize=False, add_generation_prompt=True
    )
    assert render_chat(ASK, open_source(tiny.gguf).chat_template) == theirs


def test_bad_messages_are_refused(planner: LocalPlanner) -> None:
    for messages in ([], [{"role": "robot", "content": "x"}], [{"role": "user"}]):
        with pytest.raises(BadInput, match="message"):
            planner.chat(messages)
    with pytest.raises(BadInput, match="accepts"):
        render_chat(ASK, "{{ raise_exception('no system role') }}")
