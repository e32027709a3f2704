"""Cutting, joining, turning and unpacking of ragged keys and values."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from perdure.errors import BadInput
from perdure.kernels.decode_attention import RaggedKV, dequantize_kv, quantize_kv
from perdure.kernels.decoder_layers.reference import rotate
from perdure.runtime.decoder import Decoder
from perdure.runtime.planner import open_source
from perdure.runtime.quantize import load_weights
from perdure.runtime.ragged import from_cache_rows, join, plain, positions, rotated, to_dense
from perdure.runtime.tiny import TinyModel

LENGTHS = ([3, 0, 5], [70, 40, 1], [2, 2, 2])


def random(lengths: list[int], dim: int = 16, bias: bool = True, dtype: torch.dtype = torch.float32) -> RaggedKV:
    cu_len = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)
    n = sum(lengths)
    k, v = torch.randn(n, dim).to(dtype), torch.randn(n, dim).to(dtype)
    pos = torch.randint(0, 100, (n,))
    return RaggedKV(k, v, cu_len, bias_N=torch.randn(n) if bias else None, pos_N=pos)


def segment(cache: RaggedKV, s: int) -> tuple[torch.Tensor, ...]:
    rows = slice(int(cache.cu_len[s]), int(cache.cu_len[s + 1]))
    bias = torch.zeros(len(cache.k_ND)) if cache.bias_N is None else cache.bias_N
    return cache.k_ND[rows], cache.v_ND[rows], bias[rows], positions(cache)[rows]


def test_joined_segments_are_those_of_the_parts_one_after_another() -> None:
    parts = [random(LENGTHS[0]), random(LENGTHS[1], bias=False), random(LENGTHS[2])]
    joined = join(parts)
    for s in range(3):
        for i, whole in enumerate(segment(joined, s)):
            assert torch.equal(whole, torch.cat([segment(x, s)[i] for x in parts]))


def test_joining_counts_positions_that_were_left_out() -> None:
    part = replace(random([2, 3]), pos_N=None)
    assert join([part, part]).pos_N.tolist() == [0, 1, 0, 1, 0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    "wrong",
    [[], [random([2, 2]), random([2])], [random([2]), random([2], dim=8)], [quantize_kv(random([2]), "int8")]],
)
def test_parts_that_do_not_fit_are_refused(wrong: list[RaggedKV]) -> None:
    with pytest.raises(BadInput, match="expected"):
        join(wrong)


def test_turned_keys_are_those_read_at_the_later_position() -> None:
    frequencies = torch.tensor([1e4 ** (-i / 8) for i in range(8)], dtype=torch.float64)
    raw, pos = torch.randn(40, 2, 16), torch.arange(1000, 1040)

    def read_at(at: torch.Tensor) -> RaggedKV:
        angles = at[:, None] * frequencies
        k_MKD = rotate(raw, angles.cos().float(), angles.sin().float())
        k, cu_len = k_MKD.transpose(0, 1).reshape(-1, 16), torch.tensor([0, 40, 80], dtype=torch.int32)
        return RaggedKV(k, torch.zeros_like(k), cu_len, pos_N=at.repeat(2))

    for shift in (2000, -990):
        moved, expected = rotated(read_at(pos), shift, frequencies), read_at(pos + shift)
        torch.testing.assert_close(moved.k_ND, expected.k_ND, rtol=1e-4, atol=1e-5)
        assert torch.equal(moved.pos_N, expected.pos_N)
    each = torch.randint(0, 500, (80,))
    moved = rotated(read_at(pos), each, frequencies)
    torch.testing.assert_close(moved.k_ND[50], rotated(read_at(pos), int(each[50]), frequencies).k_ND[50])


@pytest.mark.parametrize("format", ["int8", "int4", "fp8"])
@pytest.mark.parametrize("paged", [False, True])
def test_unpacked_caches_are_what_attention_reads(format: str, paged: bool) -> None:
    lengths = [70, 0, 5]
    cache = random(lengths)
    if paged:  # a pool of 8 pages of 32, some of which no segment owns
        table = torch.tensor([[3, 1, 6], [0, 0, 0], [2, 0, 0]], dtype=torch.int32)
        n = 8 * 32
        cache = RaggedKV(
            torch.randn(n, 16), torch.randn(n, 16), cache.cu_len, torch.randn(n), block_table_SP=table, page=32
        )
    quantised = quantize_kv(cache, format, group=32)
    unpacked = plain(quantised, torch.float32)
    assert unpacked.cu_len.tolist() == [0, 70, 70, 75]
    for s, length in enumerate(lengths):
        k, v = dequantize_kv(quantised, s, length, torch.float32)
        assert torch.equal(segment(unpacked, s)[0], k)
        assert torch.equal(segment(unpacked, s)[1], v)
        assert torch.equal(segment(unpacked, s)[2], quantised.bias_N[quantised.rows(s, length)])


def test_rows_beyond_the_used_ones_are_left_behind() -> None:
    cache = replace(random([6, 6]), len_S=torch.tensor([2, 0], dtype=torch.int32))
    assert torch.equal(plain(cache, torch.float32).k_ND, cache.k_ND[:2])
    assert join([cache]).cu_len.tolist() == [0, 2, 2]


def test_dense_rows_are_padded_with_keys_that_nothing_sees() -> None:
    cache = random([3, 0, 5])
    dense = to_dense(cache)
    assert dense.k_STD.shape == (3, 5, 16)
    assert (dense.bias_ST > -torch.inf).sum(1).tolist() == [3, 0, 5]
    for s, length in enumerate([3, 0, 5]):
        for ours, theirs in zip(
            (dense.k_STD, dense.v_STD, dense.bias_ST, dense.pos_ST), segment(cache, s), strict=True
        ):
            assert torch.equal(ours[s, :length], theirs)


def test_rows_of_a_cache_kept_as_they_are_change_no_logits(tiny: TinyModel) -> None:
    tokens = [(7 * i * i + 3 * i) % 380 for i in range(90)]
    weights = load_weights(open_source(tiny.gguf), "float32")
    whole, cut = Decoder(weights, 128), Decoder(weights, 128)
    expected = whole.read(tokens)
    cut.read(tokens[:70])
    kept = [join([from_cache_rows(cut.cache, i, 0, 10), from_cache_rows(cut.cache, i, 10, 50)]) for i in range(3)]
    assert kept[0].pos_N.tolist() == [*range(50), *range(50)]
    cut.cache.compacted(50, kept)
    assert from_cache_rows(cut.cache, 0, 0, 1).pos_N.tolist() == [50, 50]
    torch.testing.assert_close(cut.read(tokens[70:]), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(BadInput, match=r"rows 3 \.\. 3"):
        from_cache_rows(cut.cache, 0, 3, 3)


def test_a_text_and_its_past_moved_together_give_the_same_logits(tiny: TinyModel) -> None:
    tokens = [(7 * i * i + 3 * i) % 380 for i in range(90)]
    weights = load_weights(open_source(tiny.gguf), "float32")
    one, other = Decoder(weights, 128), Decoder(weights, 128)
    expected = one.read(tokens)
    other.read(tokens[:60])
    kept = [from_cache_rows(other.cache, i, 0, 60) for i in range(3)]
    other.cache.compacted(60, [rotated(x, 300, weights.config.inverse_frequencies) for x in kept])
    other.cache.base += 300
    torch.testing.assert_close(other.read(tokens[60:]), expected, rtol=2e-4, atol=2e-4)
