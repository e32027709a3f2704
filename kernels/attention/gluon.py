"""Forward attention for Hopper in Gluon: a producer and two or three consumer warpgroups that share its keys.

The producer (one warpgroup with few registers) moves tiles of K and V through a ring of shared memory with the bulk
tensor copy engine. Each consumer owns 64 queries. It starts Q K' of the next tile, then P V of the present one, and
computes the softmax of the next tile while P V runs. With PINGPONG the consumers take turns in starting products, so
that one computes exponentials while the other multiplies. Source: FlashAttention-3 (arXiv 2407.08608), written anew.

Knows tiles and barriers; does not know autograd. Suffixes: M the 64 queries of a consumer, N keys of a tile, D head
dimension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from triton._C.libtriton import ir
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language._core import builtin
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from .forward import SIZES

if TYPE_CHECKING:
    from .launch import Call

# Triton renamed the copies between 3.6 and 3.9.
_copy_in = tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared
_copy_out = tma.async_store if hasattr(tma, "async_store") else tma.async_copy_shared_to_global


@builtin
def _reduce_add(tensor_desc, coord, src, _semantic=None):
    """Adds shared memory to global memory with the bulk copy engine (3.9 has it as tma.async_atomic_add)."""
    coord = _semantic._convert_to_ir_values(coord, require_i64=False)
    kind = ir.DESCRIPTOR_REDUCE_KIND.ADD
    _semantic.builder.create_async_tma_reduce(kind, tensor_desc.handle, coord, src.handle)


LOG2E = gl.constexpr(1.4426950408889634)
LN2 = gl.constexpr(0.6931471805599453)
NEVER = gl.constexpr(float("-inf"))


@gluon.jit
def _exp2(x, SOFTWARE: gl.constexpr):
    """2 ** x; one entry of every 4 (SOFTWARE 2) or 8 (1) on the FMA units: see forward.py."""
    if SOFTWARE == 0:
        y = gl.exp2(x)
    elif SOFTWARE == 1:
        y = gl.inline_asm_elementwise(
            """
            {
            .reg .f32 r, f, p; .reg .b32 b, c;
            ex2.approx.ftz.f32 $0, $8; ex2.approx.ftz.f32 $1, $9; ex2.approx.ftz.f32 $2, $10;
            max.f32 f, $11, 0fC2FE0000; add.rm.ftz.f32 r, f, 0f4B400000; add.ftz.f32 p, r, 0fCB400000;
            sub.ftz.f32 f, f, p; fma.rn.ftz.f32 p, f, 0f3D9DF09D, 0f3E6906A4; fma.rn.ftz.f32 p, p, f, 0f3F31F519;
            fma.rn.ftz.f32 p, p, f, 0f3F800000; mov.b32 b, r; shl.b32 b, b, 23;
            mov.b32 c, p; add.s32 c, c, b; mov.b32 $3, c;
            ex2.approx.ftz.f32 $4, $12; ex2.approx.ftz.f32 $5, $13; ex2.approx.ftz.f32 $6, $14;
            ex2.approx.ftz.f32 $7, $15;
            }
            """,
            "=&f,=&f,=&f,=&f,=&f,=&f,=&f,=&f,f,f,f,f,f,f,f,f",
            [x],
            dtype=gl.float32,
            is_pure=True,
            pack=8,
        )
    else:
        y = gl.inline_asm_elementwise(
            """
            {
            .reg .f32 r, f, p; .reg .b32 b, c;
            ex2.approx.ftz.f32 $0, $4; ex2.approx.ftz.f32 $1, $5; ex2.approx.ftz.f32 $2, $6;
            max.f32 f, $7, 0fC2FE0000; add.rm.ftz.f32 r, f, 0f4B400000; add.ftz.f32 p, r, 0fCB400000;
            sub.ftz.f32 f, f, p; fma.rn.ftz.f32 p, f, 0f3D9DF09D, 0f3E6906A4; fma.rn.ftz.f32 p, p, f, 0f3F31F519;
            fma.rn.ftz.f32 p, p, f, 0f3F800000; mov.b32 b, r; shl.b32 b, b, 23;
            mov.b32 c, p; add.s32 c, c, b; mov.b32 $3, c;
            }
            """,
            "=&f,=&f,=&f,=&f,f,f,f,f",
            [x],
            dtype=gl.float32,
            is_pure=True,
            pack=4,
        )
    return y


@gluon.jit
def _place(
    tiles,
    heads,
    queries,
    keys,
    BLOCK_M: gl.constexpr,
    BLOCK_N: gl.constexpr,
    CAUSAL: gl.constexpr,
    LONGEST_FIRST: gl.constexpr,
    heads_together,
):
    """What this program computes: batch, head, first query, tiles of keys, and how many of the last ones are cut."""
    program = gl.program_id(0)
    span = tiles * heads_together
    first_head = program // span * heads_together
    beside = gl.minimum(heads_together, gl.num_programs(0) // tiles - first_head)
    rest = program % span
    tile = rest // beside
    batch_head = first_head + rest % beside
    if LONGEST_FIRST:
        tile = tiles - 1 - tile
    m0 = tile * BLOCK_M
    last = keys
    whole = keys // BLOCK_N
    if CAUSAL:
        last = gl.minimum(keys, m0 + BLOCK_M + keys - queries)
        whole = gl.minimum(whole, (m0 + keys - queries + 1) // BLOCK_N)
    count = (last + BLOCK_N - 1) // BLOCK_N
    return batch_head // heads, batch_head % heads, m0, count, count - whole


@gluon.jit
def _produce(
    q_desc, k_desc, v_desc, q_smem, k_smem, v_smem, q_full, k_full, k_free, v_full, v_free,
    tiles, heads, group, queries, keys,
    BLOCK_N: gl.constexpr, CONSUMERS: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr,
    LONGEST_FIRST: gl.constexpr, heads_together,
):  # fmt: skip
    b, h, m0, count, _ = _place(
        tiles, heads, queries, keys, 64 * CONSUMERS, BLOCK_N, CAUSAL, LONGEST_FIRST, heads_together
    )
    kv = h // group
    mbarrier.expect(q_full, CONSUMERS * q_desc.block_type.nbytes)
    for c in gl.static_range(CONSUMERS):
        _copy_in(q_desc, [b, h, m0 + 64 * c, 0], q_full, q_smem.index(c))
    for i in range(count):
        stage = i % STAGES
        parity = (i // STAGES & 1) ^ 1
        start = (count - 1 - i) * BLOCK_N
        mbarrier.wait(k_free.index(stage), parity)
        mbarrier.expect(k_full.index(stage), k_desc.block_type.nbytes)
        _copy_in(k_desc, [b, kv, start, 0], k_full.index(stage), k_smem.index(stage))
        mbarrier.wait(v_free.index(stage), parity)
        mbarrier.expect(v_full.index(stage), v_desc.block_type.nbytes)
        _copy_in(v_desc, [b, kv, start, 0], v_full.index(stage), v_smem.index(stage))


@gluon.jit
def _keep(x):
    """No instruction, but x keeps its registers until here: an asynchronous product may still be reading them."""
    return gl.inline_asm_elementwise("", "=r,0", [x], dtype=x.dtype, is_pure=False, pack=2)


@gluon.jit
def _partial_sums(p_MN):
    """[M, 4]: sums over the entries that one thread holds, so that no lanes are shuffled in the loop."""
    M: gl.constexpr = p_MN.shape[0]
    N: gl.constexpr = p_MN.shape[1]
    return gl.sum(gl.sum(p_MN.reshape([M, N // 8, 4, 2]), axis=3), axis=1)


@gluon.jit
def _softmax(
    s_MN,
    m_M,
    at_M,
    start,
    keys,
    scale,
    MASKED: gl.constexpr,
    CAUSAL: gl.constexpr,
    LAZY: gl.constexpr,
    SOFTWARE: gl.constexpr,
):
    """(p, new maximum, factor of what was summed so far)."""
    BLOCK_N: gl.constexpr = s_MN.shape[1]
    layout: gl.constexpr = s_MN.type.layout
    if MASKED:
        n_N = start + gl.arange(0, BLOCK_N, layout=gl.SliceLayout(0, layout))
        seen = gl.expand_dims(n_N < keys, 0)
        if CAUSAL:
            seen = seen & (gl.expand_dims(n_N, 0) <= gl.expand_dims(at_M, 1))
        s_MN = gl.where(seen, s_MN, NEVER)
    new_M = gl.maximum(m_M, gl.max(s_MN, axis=1) * scale)
    if LAZY > 0:
        new_M = gl.where(new_M - m_M <= 8.0, m_M, new_M)
    shift_M = new_M
    if MASKED:
        shift_M = gl.where(new_M == NEVER, 0.0, new_M)
    p_MN = _exp2(s_MN * scale - gl.expand_dims(shift_M, 1), SOFTWARE)
    return p_MN, new_M, gl.exp2(m_M - shift_M)


@gluon.jit
def _step(
    i, count, q, acc_MD, p_MN, m_M, l_M4, at_M, k_smem, v_smem, k_full, k_free, v_full, v_free, mine, other, keys,
    scale,
    MASKED: gl.constexpr, CAUSAL: gl.constexpr, STAGES: gl.constexpr, LAZY: gl.constexpr, SOFTWARE: gl.constexpr,
    PINGPONG: gl.constexpr, EARLY: gl.constexpr, P_L: gl.constexpr,
):  # fmt: skip
    """Tile i of the keys (from the last): its scores and softmax while P V of tile i - 1 runs."""
    BLOCK_N: gl.constexpr = p_MN.shape[1]
    D: gl.constexpr = acc_MD.shape[1]
    S_L: gl.constexpr = p_MN.type.layout
    stage = i % STAGES
    before = (i - 1) % STAGES
    mbarrier.wait(k_full.index(stage), i // STAGES & 1)
    if PINGPONG:
        mbarrier.wait(mine, (i & 1) ^ 1)
    # P stays float32 until here: carried as bfloat16 it would be unpacked and packed again.
    if EARLY:
        p = gl.convert_layout(p_MN.to(v_smem.dtype), P_L)
    zero = gl.zeros([64, BLOCK_N], gl.float32, S_L)
    s = warpgroup_mma(q, k_smem.index(stage).reshape([BLOCK_N, D]).permute((1, 0)), zero, use_acc=False, is_async=True)
    if not EARLY:
        p = gl.convert_layout(p_MN.to(v_smem.dtype), P_L)
    mbarrier.wait(v_full.index(before), (i - 1) // STAGES & 1)
    acc = warpgroup_mma(p, v_smem.index(before).reshape([BLOCK_N, D]), acc_MD, is_async=True)
    if PINGPONG:
        mbarrier.arrive(other, count=1)
    s_MN = warpgroup_mma_wait(1, deps=[s])
    mbarrier.arrive(k_free.index(stage), count=1)
    p_MN, m_M, alpha_M = _softmax(
        s_MN, m_M, at_M, (count - 1 - i) * BLOCK_N, keys, scale, MASKED, CAUSAL, LAZY, SOFTWARE
    )
    alpha_M4 = gl.expand_dims(gl.convert_layout(alpha_M, gl.SliceLayout(1, l_M4.type.layout)), 1)
    l_M4 = l_M4 * alpha_M4 + _partial_sums(p_MN)
    acc_MD = warpgroup_mma_wait(0, deps=[acc])
    p = _keep(p)
    mbarrier.arrive(v_free.index(before), count=1)
    acc_MD = acc_MD * gl.expand_dims(gl.convert_layout(alpha_M, gl.SliceLayout(1, P_L.parent)), 1)
    return acc_MD, p_MN, m_M, l_M4


@gluon.jit
def _consume(
    o_desc, lse, q_smem, k_smem, v_smem, q_full, k_full, k_free, v_full, v_free, turns, tiles, heads, queries, keys,
    scale,
    ME: gl.constexpr, D: gl.constexpr, BLOCK_N: gl.constexpr, CONSUMERS: gl.constexpr, STAGES: gl.constexpr,
    CAUSAL: gl.constexpr, LONGEST_FIRST: gl.constexpr, heads_together, LAZY: gl.constexpr,
    SOFTWARE: gl.constexpr, PINGPONG: gl.constexpr, EARLY: gl.constexpr,
):  # fmt: skip
    S_L: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_N, 16])
    O_L: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, D, 16])
    P_L: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=O_L, k_width=2)
    b, h, m0, count, cut = _place(
        tiles, heads, queries, keys, 64 * CONSUMERS, BLOCK_N, CAUSAL, LONGEST_FIRST, heads_together
    )
    mine = turns.index(ME)
    other = turns.index((ME + 1) % CONSUMERS)
    row_M = m0 + 64 * ME + gl.arange(0, 64, layout=gl.SliceLayout(1, S_L))
    at_M = row_M + keys - queries
    q = q_smem.index(ME).reshape([64, D])
    mbarrier.wait(q_full, 0)
    mbarrier.wait(k_full.index(0), 0)
    zero = gl.zeros([64, BLOCK_N], gl.float32, S_L)
    s = warpgroup_mma(q, k_smem.index(0).reshape([BLOCK_N, D]).permute((1, 0)), zero, use_acc=False, is_async=True)
    s_MN = warpgroup_mma_wait(0, deps=[s])
    mbarrier.arrive(k_free.index(0), count=1)
    m_M = gl.full([64], NEVER, gl.float32, layout=gl.SliceLayout(1, S_L))
    p_MN, m_M, _ = _softmax(s_MN, m_M, at_M, (count - 1) * BLOCK_N, keys, scale, True, CAUSAL, 0, 0)
    l_M4 = _partial_sums(p_MN)
    acc_MD = gl.zeros([64, D], gl.float32, O_L)
    for i in range(1, cut):
        acc_MD, p_MN, m_M, l_M4 = _step(
            i, count, q, acc_MD, p_MN, m_M, l_M4, at_M, k_smem, v_smem, k_full, k_free, v_full, v_free, mine, other,
            keys,
            scale, True, CAUSAL, STAGES, 0, 0, PINGPONG, EARLY, P_L,
        )  # fmt: skip
    for i in range(gl.maximum(cut, 1), count):
        acc_MD, p_MN, m_M, l_M4 = _step(
            i, count, q, acc_MD, p_MN, m_M, l_M4, at_M, k_smem, v_smem, k_full, k_free, v_full, v_free, mine, other,
            keys,
            scale, False, CAUSAL, STAGES, LAZY, SOFTWARE, PINGPONG, EARLY, P_L,
        )  # fmt: skip
    last = (count - 1) % STAGES
    mbarrier.wait(v_full.index(last), (count - 1) // STAGES & 1)
    p = gl.convert_layout(p_MN.to(v_smem.dtype), P_L)
    acc = warpgroup_mma(p, v_smem.index(last).reshape([BLOCK_N, D]), acc_MD, is_async=True)
    l_M = gl.convert_layout(gl.sum(l_M4, axis=1), gl.SliceLayout(1, S_L))
    lse_M = gl.where(l_M > 0.0, m_M * LN2 + gl.log(l_M), NEVER)
    inverse_M = gl.convert_layout(gl.where(l_M > 0.0, 1.0 / l_M, 0.0), gl.SliceLayout(1, O_L))
    gl.store(lse + (b * heads + h).to(gl.int64) * queries + row_M, lse_M, mask=row_M < queries)
    acc_MD = warpgroup_mma_wait(0, deps=[acc])
    p = _keep(p)
    q.store((acc_MD * gl.expand_dims(inverse_M, 1)).to(v_smem.dtype))
    fence_async_shared()
    _copy_out(o_desc, [b, h, m0 + 64 * ME, 0], q_smem.index(ME))
    tma.store_wait(0)


@gluon.jit(do_not_specialize=SIZES)
def hopper_forward(
    q_desc, k_desc, v_desc, o_desc, lse, tiles, heads, group, queries, keys, scale,
    D: gl.constexpr, BLOCK_N: gl.constexpr, CONSUMERS: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr,
    LONGEST_FIRST: gl.constexpr, heads_together, LAZY: gl.constexpr, SOFTWARE: gl.constexpr,
    PINGPONG: gl.constexpr, EARLY: gl.constexpr, REGISTERS: gl.constexpr,
):  # fmt: skip
    """Grid: tiles of 64 * CONSUMERS queries * heads * batch. scale includes log2 e; keys >= queries if CAUSAL."""
    q_smem = gl.allocate_shared_memory(q_desc.dtype, [CONSUMERS] + q_desc.block_type.shape, q_desc.layout)  # noqa: RUF005
    k_smem = gl.allocate_shared_memory(k_desc.dtype, [STAGES] + k_desc.block_type.shape, k_desc.layout)  # noqa: RUF005
    v_smem = gl.allocate_shared_memory(v_desc.dtype, [STAGES] + v_desc.block_type.shape, v_desc.layout)  # noqa: RUF005
    q_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    turns = gl.allocate_shared_memory(gl.int64, [CONSUMERS, 1], mbarrier.MBarrierLayout())
    mbarrier.init(q_full, count=1)
    for s in gl.static_range(STAGES):
        mbarrier.init(k_full.index(s), count=1)
        mbarrier.init(v_full.index(s), count=1)
        mbarrier.init(k_free.index(s), count=CONSUMERS)
        mbarrier.init(v_free.index(s), count=CONSUMERS)
    for c in gl.static_range(CONSUMERS):
        mbarrier.init(turns.index(c), count=1)
    fence_async_shared()
    if PINGPONG:
        mbarrier.arrive(turns.index(0), count=1)
    if CONSUMERS == 2:
        gl.warp_specialize(
            [
                (_produce, (
                    q_desc, k_desc, v_desc, q_smem, k_smem, v_smem, q_full, k_full, k_free, v_full, v_free, tiles,
                    heads, group, queries, keys, BLOCK_N, CONSUMERS, STAGES, CAUSAL, LONGEST_FIRST, heads_together
                )),
                (_consume, (
                    o_desc, lse, q_smem, k_smem, v_smem, q_full, k_full, k_free, v_full, v_free, turns, tiles, heads,
                    queries, keys, scale, 0, D, BLOCK_N, CONSUMERS, STAGES, CAUSAL, LONGEST_FIRST, heads_together, LAZY,
                    SOFTWARE, PINGPONG, EARLY
                )),
                (_consume, (
                    o_desc, lse, q_smem, k_smem, v_smem, q_full, k_full, k_free, v_full, v_free, turns, tiles, heads,
                    queries, keys, scale, 1, D, BLOCK_N, CONSUMERS, STAGES, CAUSAL, LONGEST_FIRST, heads_together, LAZY,
                    SOFTWARE, PINGPONG, EARLY
                )),
            ],
            [4, 4],
            [REGISTERS, REGISTERS],
        )  # fmt: skip
    else:
        gl.warp_specialize(
            [
                (_produce, (
                    q_desc, k_desc, v_desc, q_smem, k_smem, v_smem, q_full, k_full, k_free, v_full, v_free, tiles,
                    heads, group, queries, keys, BLOCK_N, CONSUMERS, STAGES, CAUSAL, LONGEST_FIRST, heads_together
                )),
                (_consume, (
                    o_desc, lse, q_smem, k_smem, v_smem, q_full, k_full, k_free, v_full, v_free, turns, tiles, heads,
                    queries, keys, scale, 0, D, BLOCK_N, CONSUMERS, STAGES, CAUSAL, LONGEST_FIRST, heads_together, LAZY,
                    SOFTWARE, PINGPONG, EARLY
                )),
                (_consume, (
                    o_desc, lse, q_smem, k_smem, v_smem, q_full, k_full, k_free, v_full, v_free, turns, tiles, heads,
                    queries, keys, scale, 1, D, BLOCK_N, CONSUMERS, STAGES, CAUSAL, LONGEST_FIRST, heads_together, LAZY,
                    SOFTWARE, PINGPONG, EARLY
                )),
                (_consume, (
                    o_desc, lse, q_smem, k_smem, v_smem, q_full, k_full, k_free, v_full, v_free, turns, tiles, heads,
                    queries, keys, scale, 2, D, BLOCK_N, CONSUMERS, STAGES, CAUSAL, LONGEST_FIRST, heads_together, LAZY,
                    SOFTWARE, PINGPONG, EARLY
                )),
            ],
            [4, 4, 4],
            [REGISTERS, REGISTERS, REGISTERS],
        )  # fmt: skip


class HopperConfig(NamedTuple):
    """One way to launch `hopper_forward`.

    Attributes:
        block_n: keys of a tile.
        consumers: warpgroups of 64 queries, 2 or 3.
        stages: tiles of K and of V in the ring.
        registers: per thread of a consumer; the producer keeps 24 to 32.
        pingpong: consumers take turns in starting products.
        early: P is rounded before Q K' is started, not behind it (32 registers fewer).
        software: entries of eight whose exponential is computed on the FMA units: 0, 1 or 2.
        lazy: 0 rescales always; 1 keeps maxima that are stale by up to 2 ** 8.
        longest_first: with a causal mask, tiles with most keys start first.
        heads_together: heads that are walked side by side, for the L2 cache.
    """

    block_n: int
    consumers: int
    stages: int
    registers: int = 240
    pingpong: bool = False
    early: bool = False
    software: int = 0
    lazy: int = 0
    longest_first: bool = True
    heads_together: int = 4


def hopper_config(dim: int, causal: bool) -> HopperConfig:
    """The configuration for a head dimension of 64, 128 or 256; measured, see README.md."""
    return {
        64: HopperConfig(64, 3, 3, registers=160),
        128: HopperConfig(128, 2, 2) if causal else HopperConfig(128, 2, 2, lazy=1, heads_together=1),
        256: HopperConfig(64, 2, 2, heads_together=2 if causal else 1),
    }[dim]


def gluon_forward(
    q: Tensor, k: Tensor, v: Tensor, call: Call, config: HopperConfig | None = None
) -> tuple[Tensor, Tensor]:
    """out [B, H, S, D] and lse [B, H, S]; dense, no bias, no window, S <= T if causal, D 64, 128 or 256."""
    batch, heads, queries, dim = q.shape
    config = config or hopper_config(dim, call.causal)
    out = torch.empty_like(q)
    lse = torch.empty(batch, heads, queries, dtype=torch.float32, device=q.device)
    tiles = -(-queries // (64 * config.consumers))
    with torch.cuda.device_of(q):
        hopper_forward[(tiles * heads * batch,)](
            _descriptor(q, 64), _descriptor(k, config.block_n), _descriptor(v, config.block_n), _descriptor(out, 64),
            lse,
            tiles, heads, heads // k.shape[1], queries, k.shape[2], call.scale * 1.4426950408889634,
            D=dim, BLOCK_N=config.block_n, CONSUMERS=config.consumers, STAGES=config.stages, CAUSAL=call.causal,
            LONGEST_FIRST=config.longest_first and call.causal, heads_together=config.heads_together,
            LAZY=config.lazy, SOFTWARE=config.software, PINGPONG=config.pingpong, EARLY=config.early,
            REGISTERS=config.registers, num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip
    return out, lse


def _descriptor(x: Tensor, rows: int) -> Any:
    block = [1, 1, rows, x.shape[-1]]
    layout = gl.NVMMASharedLayout.get_default_for(block, gl.float16)  # any type of 16 bits
    return TensorDescriptor(x, list(x.shape), list(x.stride()), block, layout)
