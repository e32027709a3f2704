"""Text encoders: the same text, the same bytes; and the written-out forward equals the one it replaces."""

import json
import threading

import numpy as np
import pytest
import torch
from perdure.errors import BadInput, WeightsError
from perdure.perception.encoding import identity, one_thread, unit
from perdure.perception.text import MAX_TOKENS, BertTextEncoder, HashingTextEncoder, load_text_encoder
from perdure.runtime import weights
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "keys", "lie", "in", "hall", "mug", "##s", "cat"]
WIDTH, HEADS, LAYERS, INNER = 16, 4, 2, 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random BERT of two layers, as a folder."""
    root = tmp_path_factory.mktemp("tiny-bert")
    tokenizer = Tokenizer(WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(root / "tokenizer.json"))
    config = {
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": WIDTH, "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS, "intermediate_size": INNER, "layer_norm_eps": 1e-12,
        "max_position_embeddings": 300, "type_vocab_size": 2, "vocab_size": len(WORDS),
    }  # fmt: skip
    (root / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    shapes = {
        f"embeddings.{n}_embeddings.weight": (s, WIDTH) for n, s in [("word", 12), ("position", 300), ("token_type", 2)]
    }
    shapes |= {"embeddings.LayerNorm.weight": (WIDTH,), "embeddings.LayerNorm.bias": (WIDTH,)}
    linears = {f"attention.self.{p}": (WIDTH, WIDTH) for p in ("query", "key", "value")}
    linears |= {
        "attention.output.dense": (WIDTH, WIDTH),
        "intermediate.dense": (INNER, WIDTH),
        "output.dense": (WIDTH, INNER),
    }
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        for name, shape in linears.items():
            shapes |= {f"{at}{name}.weight": shape, f"{at}{name}.bias": shape[:1]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{at}{name}.weight": (WIDTH,), f"{at}{name}.bias": (WIDTH,)}
    save_file({k: torch.randn(s) * 0.4 for k, s in shapes.items()}, root / "model.safetensors")
    return root


@pytest.fixture(scope="module")
def encoder(folder):
    return BertTextEncoder(folder)


def test_the_forward_equals_that_of_transformers(folder, encoder):
    from transformers import BertModel

    reference = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.no_grad():
        hidden = reference(torch.tensor([[2, 4, 5, 6, 7, 4, 8, 3]])).last_hidden_state[0].mean(0)
    ours = encoder.encode_texts(["The keys lie in the hall"])[0]
    np.testing.assert_allclose(ours, (hidden / hidden.norm()).numpy(), atol=2e-6)


def test_a_text_has_the_same_bytes_in_any_company(encoder):
    texts = ["the keys", "mugs in the hall lie in the hall", "", "cat"]
    together = encoder.encode_texts(texts)
    alone = np.concatenate([encoder.encode_texts([t]) for t in texts])
    assert together.tobytes() == alone.tobytes()


def test_the_bytes_do_not_depend_on_the_number_of_threads(encoder):
    before = torch.get_num_threads()
    vectors = []
    for count in (1, 2):
        torch.set_num_threads(count)
        vectors.append(encoder.encode_texts(["the keys lie in the hall"]).tobytes())
        assert torch.get_num_threads() == count
    torch.set_num_threads(before)
    assert vectors[0] == vectors[1]


def test_rows_are_unit_float32_and_an_empty_text_has_one(encoder):
    out = encoder.encode_texts(["", "the mug", "unknownword"])
    assert out.dtype == np.float32
    assert out.shape == (3, WIDTH)
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-6)
    assert encoder.encode_texts([]).shape == (0, WIDTH)


def test_only_the_first_256_tokens_count(encoder):
    kept = MAX_TOKENS - 2  # and the two special ones
    long, longer = "cat " * kept, "cat " * kept + "mug " * 50
    assert np.array_equal(*encoder.encode_texts([long, longer]))
    assert not np.array_equal(*encoder.encode_texts([long[:-4] + "mug", long]))


def test_other_weights_are_another_space(folder, encoder, tmp_path):
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    assert BertTextEncoder(tmp_path).space.encoder != encoder.space.encoder
    assert BertTextEncoder(folder).space.encoder == encoder.space.encoder


def test_a_folder_that_is_no_encoder_is_refused(folder, tmp_path):
    with pytest.raises(WeightsError, match=r"model\.safetensors, tokenizer\.json, config\.json missing"):
        load_text_encoder(str(tmp_path))
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(WeightsError, match="expected a BERT encoder with gelu, got 'gpt2'"):
        load_text_encoder(str(tmp_path))


def test_weights_that_are_not_here_say_how_to_fetch_them(tmp_path):
    with pytest.raises(WeightsError, match="missing: perdure weights fetch all-minilm-l6-v2"):
        load_text_encoder(cache_dir=tmp_path)


def test_one_thread_gives_the_budget_back_even_when_nested_or_shared():
    before = torch.get_num_threads()
    seen = []

    def work():
        with one_thread(), one_thread():
            seen.append(torch.get_num_threads())

    threads = [threading.Thread(target=work) for _ in range(8)]
    with one_thread():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert torch.get_num_threads() == 1
    fresh = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    fresh.start()
    fresh.join()
    assert seen == [1] * 8 + [before]
    assert torch.get_num_threads() == before


def test_unit_never_makes_nan():
    rows = unit(np.array([[0.0, 0.0], [3.0, 4.0]]))
    np.testing.assert_allclose(rows, [[1, 0], [0.6, 0.8]], atol=1e-7)


def test_identity_depends_on_bytes_and_on_preprocessing(tmp_path):
    (tmp_path / "w").write_bytes(b"w")
    assert identity([tmp_path / "w"], size=224) != identity([tmp_path / "w"], size=256)


def test_hashing_finds_the_text_that_shares_words():
    encoder = HashingTextEncoder()
    asked, near, far = encoder.encode_texts(["Where are the keys?", "the key lies on a hook", "it rains outside"])
    assert asked @ near > asked @ far + 0.05
    assert encoder.encode_texts([""])[0, 0] == 1.0


def test_hashing_is_the_same_in_every_process():
    vector = HashingTextEncoder(16).encode_texts(["keys on hooks"])[0]
    assert np.flatnonzero(vector).tolist() == [2, 8, 14]
    with pytest.raises(BadInput, match="at least 2"):
        HashingTextEncoder(1)


@pytest.fixture(scope="module")
def minilm():
    if weights.locate("all-minilm-l6-v2") is None:
        pytest.skip("perdure weights fetch all-minilm-l6-v2")
    return load_text_encoder()


@pytest.mark.weights
def test_minilm_puts_meaning_before_words(minilm):
    texts = [
        "Where did I leave my keys?",
        "The car key is on the hook.",
        "The weather is fine today.",
        "a sofa",
        "a couch",
    ]
    asked, key, weather, sofa, couch = minilm.encode_texts(texts)
    assert minilm.space.dim == 384
    assert asked @ key > asked @ weather + 0.3
    assert sofa @ couch > 0.7


@pytest.mark.weights
def test_minilm_equals_transformers_on_a_long_text(minilm):
    from transformers import AutoTokenizer, BertModel

    root = weights.locate("all-minilm-l6-v2")
    text = "Naïve café: the keys lie in the hall, 42 of them. " * 40
    tokens = AutoTokenizer.from_pretrained(root)(text, return_tensors="pt", truncation=True, max_length=256)
    with torch.no_grad():
        hidden = BertModel.from_pretrained(root, add_pooling_layer=False).eval()(**tokens).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(minilm.encode_texts([text])[0], (hidden / hidden.norm()).numpy(), atol=1e-6)
