"""Attention beside cuDNN, the other backends of torch and FlexAttention; what each idea for Hopper brings."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..timing import Timing, cpu_time_s, gpu_time_s, row
from . import attention

__all__ = ["rows"]

_NAME = "attention"
_TOKENS = 16384
_WIDTH = 2048  # heads times head dimension, as in the FlashAttention papers

Call = Callable[[], Any]


def rows(device: torch.device, quick: bool) -> Iterator[dict[str, Any]]:
    """TFLOP/s of forward and backward (2.5 times the operations; half of all if causal)."""
    if device.type == "cpu":
        yield from _cpu()
        return
    for dim in (64, 128, 256):
        for causal in (True, False):
            heads = _WIDTH // dim
            yield from _shape(f"hd{dim} {_kind(causal)} 16k", 1, heads, heads, _TOKENS, dim, causal, everyone=not quick)
    if quick:
        return
    yield from _shape("14/2 heads hd64 causal 4k", 4, 14, 2, 4096, 64, True, everyone=False)
    yield from _shape("32/8 heads hd128 causal 4k", 1, 32, 8, 4096, 128, True, everyone=False)
    yield from _biased()
    yield from _packed()
    yield from _ideas()


def _kind(causal: bool) -> str:
    return "causal" if causal else "full"


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, device="cuda").bfloat16()


def _operations(batch: int, heads: int, tokens: int, dim: int, causal: bool) -> float:
    return 4.0 * batch * heads * tokens * tokens * dim / (2 if causal else 1)


def _timed(call: Call) -> Timing:
    return gpu_time_s(call, graph=False, budget_s=0.1)


def _row(case: str, operations: float, ours: Timing, peer: str, theirs: Timing | None) -> dict[str, Any]:
    rate = operations / ours.median_s * 1e-12
    spread = rate * ours.spread_s / ours.median_s
    peer_rate = None if theirs is None else operations / theirs.median_s * 1e-12
    return row(_NAME, case, "rate", rate, "TFLOP/s", spread=spread, peer=peer, peer_value=peer_rate)


def _pair(forward: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Call, Call]:
    """A forward call without gradients, and a backward call; both compile what they need when they are called first."""
    ins = [x.detach().requires_grad_() for x in (q, k, v)]
    kept: list[Tensor] = []

    def forward_only() -> None:
        with torch.no_grad():
            forward(q, k, v)

    def backward_only() -> None:
        if not kept:
            with torch.enable_grad():
                kept.append(forward(*ins))
        torch.autograd.grad(kept[0], ins, g, retain_graph=True)

    return forward_only, backward_only


def _backend(name: str, causal: bool, grouped: bool) -> Callable[..., Tensor]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backend = {
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
    }[name]

    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)

    return forward


def _flex(tokens: int) -> Callable[..., Tensor]:
    """FlexAttention with a causal block mask, compiled when it is called first."""
    made: dict[str, Any] = {}

    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        if not made:
            made["mask"] = create_block_mask(lambda b, h, i, j: i >= j, None, None, tokens, tokens, device="cuda")
            made["run"] = torch.compile(flex_attention, dynamic=False)
        out: Tensor = made["run"](q, k, v, block_mask=made["mask"])
        return out

    return forward


def _shape(
    case: str, batch: int, heads: int, kv_heads: int, tokens: int, dim: int, causal: bool, *, everyone: bool
) -> Iterator[dict[str, Any]]:
    q, g = _random(batch, heads, tokens, dim), _random(batch, heads, tokens, dim)
    k, v = _random(batch, kv_heads, tokens, dim), _random(batch, kv_heads, tokens, dim)
    ours = [_timed(call) for call in _pair(lambda q, k, v: attention(q, k, v, causal=causal), q, k, v, g)]
    peers = {"cudnn": _backend("cudnn", causal, heads != kv_heads)}
    if everyone:
        peers |= {name: _backend(name, causal, heads != kv_heads) for name in ("flash", "efficient")}
        if causal and dim == 128:  # its compilation takes as long as all of ours
            peers["flex"] = _flex(tokens)
        if (fa4 := _flash_attn_4(causal)) is not None:
            peers["flash-attn-4"] = fa4
    operations = _operations(batch, heads, tokens, dim, causal)
    for name, forward in peers.items():
        for call, mine, direction, factor in zip(
            _pair(forward, q, k, v, g), ours, ("fwd", "bwd"), (1.0, 2.5), strict=True
        ):
            try:
                theirs = _timed(call)
            except RuntimeError:  # this backend does not know this shape
                continue
            yield _row(f"{case} {direction}", operations * factor, mine, name, theirs)


def _flash_attn_4(causal: bool) -> Callable[..., Tensor] | None:
    if importlib.util.find_spec("flash_attn") is None or importlib.util.find_spec("flash_attn.cute") is None:
        return None
    from flash_attn.cute import flash_attn_func  # type: ignore[import-not-found,unused-ignore]

    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = flash_attn_func(*(x.transpose(1, 2) for x in (q, k, v)), causal=causal)
        first: Tensor = out[0] if isinstance(out, tuple) else out
        return first.transpose(1, 2)

    return forward


def _biased() -> Iterator[dict[str, Any]]:
    """A bias per key: torch needs a mask of all scores for it."""
    batch, heads, kv_heads, tokens, dim = 1, 14, 2, 4096, 64
    q, g = _random(batch, heads, tokens, dim), _random(batch, heads, tokens, dim)
    k, v = _random(batch, kv_heads, tokens, dim), _random(batch, kv_heads, tokens, dim)
    bias = torch.randn(batch, kv_heads, tokens, device="cuda")
    hidden = torch.ones(tokens, tokens, dtype=torch.bool, device="cuda").triu(1)
    mask = bias.repeat_interleave(heads // kv_heads, 1)[:, :, None].masked_fill(hidden, -math.inf).bfloat16()
    wide_k, wide_v = (x.repeat_interleave(heads // kv_heads, 1) for x in (k, v))
    operations = _operations(batch, heads, tokens, dim, True)
    mine = _pair(lambda q, k, v: attention(q, k, v, key_bias_BKT=bias), q, k, v, g)
    theirs = _pair(lambda q, k, v: scaled_dot_product_attention(q, k, v, attn_mask=mask), q, wide_k, wide_v, g)
    for ours, peer, direction, factor in zip(mine, theirs, ("fwd", "bwd"), (1.0, 2.5), strict=True):
        case = f"14/2 heads hd64 causal 4k key bias {direction}"
        yield _row(case, operations * factor, _timed(ours), "torch, mask, heads repeated", _timed(peer))


def _packed() -> Iterator[dict[str, Any]]:
    sequences, tokens, heads, dim = 8, 2048, 16, 128
    q, k, v = (_random(1, heads, sequences * tokens, dim) for _ in range(3))
    ends = torch.arange(0, sequences * tokens + 1, tokens, dtype=torch.int32, device="cuda")
    dense = [x.view(heads, sequences, tokens, dim).transpose(0, 1) for x in (q, k, v)]
    ours = _timed(lambda: attention(q, k, v, cu_seqlens=ends))
    cudnn = _backend("cudnn", True, False)
    yield _row(
        "hd128 causal 8 packed sequences of 2k fwd", _operations(sequences, heads, tokens, dim, True), ours,
        "cudnn, a dense batch", _timed(lambda: cudnn(*dense)),
    )  # fmt: skip


def _ideas() -> Iterator[dict[str, Any]]:
    """Each idea on, the peer is the same kernel with it off."""
    if torch.cuda.get_device_capability() != (9, 0):
        return
    from .gluon import HopperConfig, gluon_forward
    from .launch import Call as Settings

    for dim, base in ((64, HopperConfig(128, 2, 3)), (128, HopperConfig(128, 2, 2))):
        heads = _WIDTH // dim
        q, k, v = (_random(1, heads, _TOKENS, dim) for _ in range(3))
        settings = Settings(dim**-0.5, True)

        def timed(
            config: HopperConfig, q: Tensor = q, k: Tensor = k, v: Tensor = v, settings: Settings = settings
        ) -> Timing:
            return _timed(lambda: gluon_forward(q, k, v, settings, config))

        off = timed(base)
        ideas = {
            "1 of 8 exponentials in software": (base._replace(software=1), False),
            "stale maxima kept": (base._replace(lazy=1), False),
            "ping-pong": (base._replace(pingpong=True), False),
            "longest tiles first": (base._replace(longest_first=False), True),
        }
        operations = _operations(1, heads, _TOKENS, dim, True)
        for name, (config, other_is_off) in ideas.items():
            other = timed(config)
            on, without = (off, other) if other_is_off else (other, off)
            yield _row(f"hd{dim} causal 16k fwd, {name}", operations, on, "the same kernel without", without)


def _cpu_pair(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor | None) -> tuple[Timing, Timing]:
    def theirs() -> Tensor:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True)

    with torch.inference_mode():
        return cpu_time_s(lambda: attention(q, k, v, key_bias_BKT=bias)), cpu_time_s(theirs)


def _cpu() -> Iterator[dict[str, Any]]:
    """Beside the way that torch's documentation gives for the same job."""
    heads, kv_heads, dim = 14, 2, 64
    for queries, keys, biased in ((1, 512, False), (1, 512, True), (512, 512, False), (64, 1024, False)):
        q = torch.randn(1, heads, queries, dim)
        k, v = torch.randn(1, kv_heads, keys, dim), torch.randn(1, kv_heads, keys, dim)
        bias = torch.randn(1, kv_heads, keys) if biased else None
        mask: Tensor | None = None
        if biased or queries != keys:
            mask = torch.zeros(queries, keys).masked_fill_(
                torch.ones(queries, keys, dtype=torch.bool).triu(keys - queries + 1), -math.inf
            )
            if bias is not None:
                mask = mask + bias.repeat_interleave(heads // kv_heads, 1)[:, :, None]
        ours, theirs = _cpu_pair(q, k, v, bias, mask)
        yield row(
            _NAME, f"14/2 heads hd64 {queries} of {keys}{' bias' * biased}", "time", ours.median_s * 1e6, "us",
            spread=ours.spread_s * 1e6, peer="torch sdpa, enable_gqa", peer_value=theirs.median_s * 1e6,
            larger_is_better=False,
        )  # fmt: skip
