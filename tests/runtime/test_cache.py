"""The KV cache: reuse, snapshots, and as a transformers Cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from perdure.errors import BadInput, DamagedError, StorageError, VersionError
from perdure.runtime import snapshot as snapshot_module
from perdure.runtime.cache import KVCache
from perdure.runtime.decoder import Decoder
from perdure.runtime.planner import open_source
from perdure.runtime.quantize import ModelWeights, load_weights
from perdure.runtime.tiny import TinyModel
from safetensors.torch import save_file

TOKENS = [(5 * i + 1) % 380 for i in range(60)]


@pytest.fixture(scope="module")
def weights(tiny: TinyModel) -> ModelWeights:
    return load_weights(open_source(tiny.gguf), "float32")


def test_a_reused_prefix_gives_the_logits_of_a_fresh_cache(weights: ModelWeights) -> None:
    reused, fresh = Decoder(weights, 128), Decoder(weights, 128)
    reused.read([*TOKENS[:30], 5, 6, 7])
    assert reused.cache.shared_prefix(TOKENS) == 30
    reused.cache.truncate(30)
    torch.testing.assert_close(reused.read(TOKENS[30:]), fresh.read(TOKENS), rtol=1e-4, atol=1e-4)


def test_a_reloaded_snapshot_continues_bit_for_bit(weights: ModelWeights, tmp_path: Path) -> None:
    lives, wakes = Decoder(weights, 128), Decoder(weights, 128)
    lives.read(TOKENS)
    lives.cache.save(tmp_path / "kv")
    wakes.cache.load(tmp_path / "kv")
    assert wakes.cache.tokens == TOKENS
    for token in (3, 1, 4):
        assert torch.equal(lives.read([token]), wakes.read([token]))


def test_an_empty_cache_can_be_saved_and_loaded(weights: ModelWeights, tmp_path: Path) -> None:
    decoder = Decoder(weights, 16)
    decoder.cache.save(tmp_path / "kv")
    decoder.read([1, 2])
    decoder.cache.load(tmp_path / "kv")
    assert decoder.cache.length == 0


@pytest.mark.parametrize("cut", [0, 7, 100, 4000, -1])
def test_a_torn_snapshot_is_refused_and_nothing_is_lost(weights: ModelWeights, tmp_path: Path, cut: int) -> None:
    decoder, path = Decoder(weights, 128), tmp_path / "kv"
    decoder.read(TOKENS)
    decoder.cache.save(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DamagedError, match="torn"):
        decoder.cache.load(path)
    assert decoder.cache.tokens == TOKENS


def test_one_flipped_bit_is_noticed(weights: ModelWeights, tmp_path: Path) -> None:
    decoder, path = Decoder(weights, 128), tmp_path / "kv"
    decoder.read(TOKENS)
    decoder.cache.save(path)
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="content"):
        decoder.cache.load(path)


def test_a_snapshot_of_another_model_is_refused(weights: ModelWeights, tmp_path: Path) -> None:
    decoder = Decoder(weights, 128)
    other = KVCache(3, 128, "f" * 64)
    other.save(tmp_path / "kv")
    with pytest.raises(BadInput, match="is of ffffffffffff"):
        decoder.cache.load(tmp_path / "kv")


def test_a_snapshot_of_a_newer_version_or_longer_than_the_cache_is_refused(
    weights: ModelWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, small = Decoder(weights, 128), Decoder(weights, 32)
    decoder.read(TOKENS)
    decoder.cache.save(tmp_path / "long")
    with pytest.raises(BadInput, match="more context_tokens"):
        small.cache.load(tmp_path / "long")
    monkeypatch.setattr(snapshot_module, "VERSION", 3)
    decoder.cache.save(tmp_path / "new")
    monkeypatch.setattr(snapshot_module, "VERSION", 2)
    with pytest.raises(VersionError, match="has 3"):
        decoder.cache.load(tmp_path / "new")


def test_another_file_is_no_snapshot(weights: ModelWeights, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(3)}, tmp_path / "other")
    with pytest.raises(DamagedError, match="another file"):
        Decoder(weights, 16).cache.load(tmp_path / "other")
    with pytest.raises(StorageError):
        Decoder(weights, 16).cache.load(tmp_path / "missing")


def test_a_failed_save_keeps_the_old_snapshot(
    weights: ModelWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, path = Decoder(weights, 128), tmp_path / "kv"
    decoder.read(TOKENS[:5])
    decoder.cache.save(path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    decoder.read(TOKENS[5:])
    with pytest.raises(StorageError, match="No space left"):
        decoder.cache.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["kv"]  # noqa: PTH208


def test_as_a_transformers_cache_it_appends_crops_and_reports_sizes() -> None:
    cache = KVCache(2, 8, "m")
    k = torch.arange(3.0).view(1, 1, 3, 1)
    for layer in range(2):
        keys, _ = cache.update(k, k + 10, layer)
    assert keys.flatten().tolist() == [0, 1, 2]
    cache.crop(-1)
    keys, values = cache.update(k[:, :, :1] + 7, k[:, :, :1] + 8, 0)
    assert keys.flatten().tolist() == [0, 1, 7]
    assert values.flatten().tolist() == [10, 11, 8]
    assert cache.get_seq_length() == 3
    assert cache.get_mask_sizes(2, 0) == (5, 0)
    assert cache.get_max_length() == 8
    cache.reset()
    assert cache.get_seq_length() == 0


def test_a_full_transformers_cache_says_what_to_do() -> None:
    cache = KVCache(1, 2, "m")
    with pytest.raises(BadInput, match="larger context_tokens"):
        cache.update(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4), 0)
