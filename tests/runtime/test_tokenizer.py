"""Token ids straight from GGUF metadata."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
from perdure.errors import WeightsError
from perdure.runtime.gguf_file import GgufFile
from perdure.runtime.planner import open_source
from perdure.runtime.tiny import TinyModel
from perdure.runtime.tokenizer import Tokenizer, tokenizer_from_gguf, tokenizer_from_json
from tokenizers import Tokenizer as Core

TEXTS = (
    "The keys are on the kitchen table.",
    "  def f(x):\n\treturn x + 12345 \n\n\n",
    "Ünïcode e\u0301 日本語 🙂🏽 \u200d مرحبا",
    "<|im_start|>user\nHi<|im_end|>\n<|im_star",
    "it's I'LL we'd 'tis \r\n mixed\r line ends",
    "",
)


@pytest.fixture(scope="module")
def tokenizer(tiny: TinyModel) -> Tokenizer:
    return open_source(tiny.gguf).tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_ids_equal_those_of_the_folders_tokenizer_json(tokenizer: Tokenizer, tiny: TinyModel, text: str) -> None:
    theirs = Core.from_file(str(tiny.folder / "tokenizer.json"))
    assert tokenizer.encode(text) == theirs.encode(text, add_special_tokens=False).ids


@hypothesis.given(st.text(max_size=60))
@hypothesis.settings(max_examples=50, deadline=None)
def test_decoding_gives_the_text_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text), skip_special=False) == unicodedata.normalize("NFC", text)


def test_special_tokens_are_one_id_and_can_be_left_out(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<|im_start|>ok<|im_end|>")
    assert ids[0] == tokenizer.token_id("<|im_start|>")
    assert ids[-1] in tokenizer.eos
    assert tokenizer.decode(ids) == "ok"


def test_it_survives_json(tokenizer: Tokenizer) -> None:
    again = tokenizer_from_json(tokenizer.to_json(), tokenizer.eos)
    assert [again.encode(t) for t in TEXTS] == [tokenizer.encode(t) for t in TEXTS]


def test_a_beginning_token_is_put_once(tiny: TinyModel) -> None:
    own = tokenizer_from_gguf(GgufFile(tiny.gguf).metadata, eos=[1], bos=7)
    assert own.encode("cat")[0] == 7
    assert own.encode("cat").count(7) == 1


def test_other_kinds_of_tokenizer_are_refused(tiny: TinyModel) -> None:
    metadata = {**GgufFile(tiny.gguf).metadata, "tokenizer.ggml.model": "llama"}
    with pytest.raises(WeightsError, match=r"tokenizer\.json"):
        tokenizer_from_gguf(metadata, eos=[1])


@pytest.mark.weights
def test_published_file_gives_the_ids_of_transformers_own_conversion(published: Path) -> None:
    """On text of many kinds; transformers takes about eleven seconds for the same data.

    Its conversion leaves out the NFC step that the publisher's own tokenizer.json has, so the texts are composed first.
    """
    from transformers import AutoTokenizer

    path = published
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    ours = open_source(path, "0" * 64).tokenizer
    for text in (*TEXTS, Path(__file__).read_text(), Path(pytest.__file__).read_text()):
        composed = unicodedata.normalize("NFC", text)
        assert ours.encode(text) == theirs.encode(composed, add_special_tokens=False)
