"""The fused layers in C++ against the layer in plain torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from perdure.errors import BadInput
from perdure.kernels import native, pack, quantize
from perdure.kernels.decode_attention import RaggedKV, quantize_kv
from perdure.kernels.decoder_layers import DecoderShape, FusedLayers, LayerWeights, decoder_layer


@pytest.fixture(autouse=True)
def _library(build_dir: Path) -> None:
    if not native.supported() or not native.enable(build_dir):
        pytest.skip("needs AVX-512 VNNI and a C++ compiler")


def model(shape: DecoderShape, layers: int, capacity: int, layout: str) -> tuple[list[LayerWeights], torch.Tensor]:
    """Weights of 8, 5 and 4 bits, with and without biases; the same for both layouts."""
    g = torch.Generator().manual_seed(1)
    q, kv = shape.heads * shape.dim, shape.kv_heads * shape.dim
    sizes = [(q, shape.hidden), (kv, shape.hidden), (kv, shape.hidden), (shape.hidden, q)]
    sizes += [(shape.ffn, shape.hidden)] * 2 + [(shape.hidden, shape.ffn)]
    made = []
    for i in range(layers):
        bits = (8, 5, 4)[i % 3]
        packed = [
            pack(quantize(torch.randn(s, generator=g) * s[1] ** -0.5, bits), layout)  # type: ignore[arg-type]
            for s in sizes
        ]
        norms = [1 + torch.randn(shape.hidden, generator=g) * 0.1 for _ in range(2)]
        biases = [torch.randn(n, generator=g) for n in (q, kv, kv)] if i % 2 == 0 else [None] * 3
        made.append(LayerWeights(*packed, *norms, *biases))  # type: ignore[arg-type]
    angles = torch.arange(capacity)[:, None] * 10000 ** (-torch.arange(shape.dim // 2) / (shape.dim // 2))
    return made, angles


SHAPES = [
    DecoderShape(64, 4, 2, 16, 128, 1e-6),
    DecoderShape(96, 6, 6, 16, 32, 1e-5, window=7),
    DecoderShape(128, 14, 2, 64, 160, 1e-6),
    DecoderShape(64, 20, 1, 32, 64, 1e-6),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.heads}x{s.kv_heads}x{s.dim}")
@pytest.mark.parametrize("bias", [False, True])
def test_fused_layers_equal_plain_ones(shape: DecoderShape, bias: bool) -> None:
    layers, angles = model(shape, 3, 40, "vnni")
    plain, _ = model(shape, 3, 40, "dense")
    row = (shape.kv_heads, 40, shape.dim)
    fused_kv = [[torch.zeros(row).half() for _ in range(3)] for _ in range(2)]
    plain_kv = [[torch.zeros(row) for _ in range(3)] for _ in range(2)]
    key_bias = [torch.randn(shape.kv_heads, 40) for _ in range(3)] if bias else None
    fused = FusedLayers(layers, shape, angles.cos(), angles.sin(), *fused_kv, key_bias)
    position = 0
    for tokens in (3, 1, 20, 1):
        h = torch.randn(tokens, shape.hidden, generator=torch.Generator().manual_seed(position))
        expected = h
        for i in range(3):
            rows = slice(position, position + tokens)
            one = None if key_bias is None else key_bias[i]
            expected = decoder_layer(
                expected,
                plain[i],
                shape,
                angles.cos()[rows],
                angles.sin()[rows],
                plain_kv[0][i],
                plain_kv[1][i],
                position,
                one,
            )
        fused(h, position)
        # Activations of seven products per layer are rounded to int8, here, and to bfloat16, there.
        assert (h - expected).norm() / expected.norm() < 0.03
        position += tokens
    for ours, theirs in zip(fused_kv[0] + fused_kv[1], plain_kv[0] + plain_kv[1], strict=True):
        assert (ours.float() - theirs).norm() / theirs.norm() < 0.03


def test_the_number_of_threads_does_not_change_a_bit() -> None:
    shape, before, results = SHAPES[2], torch.get_num_threads(), []
    layers, angles = model(shape, 2, 40, "vnni")
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        kv = [[torch.zeros(2, 40, 64).half() for _ in range(2)] for _ in range(2)]
        h = torch.ones(9, shape.hidden).cumsum(0)
        FusedLayers(layers, shape, angles.cos(), angles.sin(), *kv)(h, 0)
        results.append(h)
    torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_positions_beyond_the_cache_are_refused() -> None:
    shape = SHAPES[0]
    layers, angles = model(shape, 1, 8, "vnni")
    kv = [[torch.zeros(2, 8, 16).half()] for _ in range(2)]
    fused = FusedLayers(layers, shape, angles.cos(), angles.sin(), *kv)
    with pytest.raises(BadInput, match="within 8 positions"):
        fused(torch.zeros(2, 64), 7)
    with pytest.raises(BadInput, match=r"\[M, 64\]"):
        fused(torch.zeros(1, 32), 0)


def test_a_missing_compiler_falls_back_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native._State, "lib", None)
    monkeypatch.setattr(native._State, "tried", False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not native.enable(tmp_path)
    assert native.library() is None
    assert "no C++ compiler" in caplog.text


def kept_keys(shape: DecoderShape, layers: int, lengths: tuple[int, ...], dtype: torch.dtype) -> list[RaggedKV]:
    """Random keys of that many rows per KV head, with biases; one key hidden."""
    g = torch.Generator().manual_seed(7)
    cu_len, made = torch.tensor([0, *lengths]).cumsum(0).int(), []
    for _ in range(layers):
        k, v = (torch.randn(sum(lengths), shape.dim, generator=g).to(dtype) for _ in range(2))
        bias = torch.randn(sum(lengths), generator=g)
        bias[0] = -torch.inf
        made.append(RaggedKV(k, v, cu_len, bias_N=bias))
    return made


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32", "int8", "int4"])
@pytest.mark.parametrize("shape", [SHAPES[2], SHAPES[3]], ids=lambda s: f"{s.heads}x{s.kv_heads}x{s.dim}")
def test_fused_layers_see_kept_keys_as_plain_ones_do(shape: DecoderShape, stored: str) -> None:
    layers, angles = model(shape, 3, 80, "vnni")
    plain, _ = model(shape, 3, 80, "dense")
    lengths = (70, 161)[: shape.kv_heads]
    kept = kept_keys(shape, 3, lengths, torch.float32 if stored in ("int8", "int4") else getattr(torch, stored))
    kept = [quantize_kv(x, stored, group=32) for x in kept] if stored in ("int8", "int4") else kept
    same = [x if x.format != "plain" else replace(x, k_ND=x.k_ND.float(), v_ND=x.v_ND.float()) for x in kept]
    row, base = (shape.kv_heads, 40, shape.dim), 37
    fused_kv = [[torch.zeros(row).half() for _ in range(3)] for _ in range(2)]
    plain_kv = [[torch.zeros(row) for _ in range(3)] for _ in range(2)]
    fused = FusedLayers(layers, shape, angles.cos(), angles.sin(), *fused_kv)
    position = 0
    for tokens in (5, 1, 12):
        h = torch.randn(tokens, shape.hidden, generator=torch.Generator().manual_seed(position))
        expected, blind, at = h, h.clone(), slice(base + position, base + position + tokens)
        for i in range(3):
            expected = decoder_layer(
                expected, plain[i], shape, angles.cos()[at], angles.sin()[at], plain_kv[0][i], plain_kv[1][i],
                position, kept=same[i],
            )  # fmt: skip
        fused(blind, position, base)
        fused(h, position, base, kept)
        assert (h - expected).norm() / expected.norm() < 0.03
        assert (blind - expected).norm() / expected.norm() > 0.1
        position += tokens


def test_kept_heads_may_be_empty_or_use_part_of_their_rows() -> None:
    shape = SHAPES[2]
    layers, angles = model(shape, 1, 80, "vnni")
    one = kept_keys(shape, 1, (50, 20), torch.float16)[0]
    results = []
    part = RaggedKV(one.k_ND, one.v_ND, one.cu_len, one.bias_N, len_S=torch.tensor([30, 0], dtype=torch.int32))
    bias = None if one.bias_N is None else one.bias_N[:30].clone()
    short = RaggedKV(one.k_ND[:30].clone(), one.v_ND[:30].clone(), torch.tensor([0, 30, 30], dtype=torch.int32), bias)
    for kept in (part, short):
        kv = [[torch.zeros(2, 8, 64).half()] for _ in range(2)]
        h = torch.ones(2, shape.hidden).cumsum(0)
        FusedLayers(layers, shape, angles.cos(), angles.sin(), *kv)(h, 0, 3, [kept])
        results.append(h)
    assert torch.equal(*results)


def test_threads_do_not_change_a_bit_of_what_kept_keys_give() -> None:
    shape, before, results = SHAPES[2], torch.get_num_threads(), []
    layers, angles = model(shape, 2, 80, "vnni")
    kept = [quantize_kv(x, "int8") for x in kept_keys(shape, 2, (70, 33), torch.float32)]
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        kv = [[torch.zeros(2, 40, 64).half() for _ in range(2)] for _ in range(2)]
        h = torch.ones(9, shape.hidden).cumsum(0)
        FusedLayers(layers, shape, angles.cos(), angles.sin(), *kv)(h, 0, 11, kept)
        results.append(h)
    torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_kept_keys_that_cannot_be_read_are_refused() -> None:
    shape = SHAPES[2]
    layers, angles = model(shape, 1, 80, "vnni")
    kv = [[torch.zeros(2, 8, 64).half()] for _ in range(2)]
    fused = FusedLayers(layers, shape, angles.cos(), angles.sin(), *kv)
    one = kept_keys(shape, 1, (5, 6), torch.float16)[0]
    beyond = RaggedKV(one.k_ND, one.v_ND, torch.tensor([0, 5, 400], dtype=torch.int32))
    for wrong in ([one, one], [quantize_kv(one, "fp8")], [beyond]):
        assert not fused.takes(wrong)
        with pytest.raises(BadInput, match="kept keys of 1 layers"):
            fused(torch.zeros(1, shape.hidden), 0, 0, wrong)
    with pytest.raises(BadInput, match="rotary positions within 80"):
        fused(torch.zeros(1, shape.hidden), 0, 80)
