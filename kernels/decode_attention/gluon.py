"""Gluon kernel: at most 8 rows against int8 and int4 codes that go from memory straight to the matrix unit.

`kernel.py` brings values through shared memory once more to turn them, and its warps exchange maxima, weights and
scaled queries at every tile. Here every warp has tokens of its own and its own softmax until a unit is done; a thread
loads just the bytes that the matrix unit wants from it. Which channel or token stands at which place of a product is
free, so places are chosen such that a thread's bytes are 8 or 16 consecutive ones. README.md has the derivation.

Units, shares and partial results are those of `kernel.py`, whose merge follows. Needs triton with Gluon, sm_80.

    W warps, T tokens of a warp's tile, K channels as they stand in the products, D channels in memory, R = 8 rows
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import mma_v2
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from .kernel import LENGTHS

__all__ = ["codes_kernel"]

_LOG2E = gl.constexpr(1.4426950408889634)
_LN2 = gl.constexpr(0.6931471805599453)
_FOUR = gl.constexpr((gl.bfloat16,) * 4)
_EIGHT = gl.constexpr((gl.bfloat16,) * 8)
_NEVER = gl.constexpr(float("-inf"))

# A code in the low bits of a bfloat16 is read as code * 2^-133 (kernel.py); int8 codes plus 128.
_UP = gl.constexpr(2.0**100)
_DOWN = gl.constexpr(2.0**33)
_BACK = gl.constexpr(2.0**-100)
_LESS_128 = gl.constexpr(-(2.0**-126))
_LESS_128_BITS = gl.constexpr(-0x7F80)  # the same as a bfloat16: constants of that type pass through six decimals

# Two words of keys to pairs (byte 0, byte 2) and (byte 1, byte 3) of either word.
_KEYS_INT8 = gl.constexpr("""{
.reg .b32 a, b;
xor.b32 a, $4, 0x80808080;
xor.b32 b, $5, 0x80808080;
prmt.b32 $0, a, 0, 0x4240;
prmt.b32 $1, a, 0, 0x4341;
prmt.b32 $2, b, 0, 0x4240;
prmt.b32 $3, b, 0, 0x4341;
}""")
# The same with the low and the high nibble of each byte; a high one counts 16 fold where it stands.
_KEYS_INT4 = gl.constexpr("""{
.reg .b32 a, b;
shr.u32 a, $8, 8;
shr.u32 b, $9, 8;
and.b32 $0, $8, 0x000f000f;
and.b32 $1, $8, 0x00f000f0;
and.b32 $2, a, 0x000f000f;
and.b32 $3, a, 0x00f000f0;
and.b32 $4, $9, 0x000f000f;
and.b32 $5, $9, 0x00f000f0;
and.b32 $6, b, 0x000f000f;
and.b32 $7, b, 0x00f000f0;
}""")
# The same word of two tokens to a pair for each of its bytes.
_VALUES_INT8 = gl.constexpr("""{
.reg .b32 a, b;
prmt.b32 a, $4, $5, 0x5410;
prmt.b32 b, $4, $5, 0x7632;
xor.b32 a, a, 0x80808080;
xor.b32 b, b, 0x80808080;
prmt.b32 $0, a, 0, 0x4240;
prmt.b32 $1, a, 0, 0x4341;
prmt.b32 $2, b, 0, 0x4240;
prmt.b32 $3, b, 0, 0x4341;
}""")
_VALUES_INT4 = gl.constexpr("""{
.reg .b32 a, b, c, d;
prmt.b32 a, $8, $9, 0x5410;
prmt.b32 b, $8, $9, 0x7632;
shr.u32 c, a, 8;
shr.u32 d, b, 8;
and.b32 $0, a, 0x000f000f;
and.b32 $1, a, 0x00f000f0;
and.b32 $2, c, 0x000f000f;
and.b32 $3, c, 0x00f000f0;
and.b32 $4, b, 0x000f000f;
and.b32 $5, b, 0x00f000f0;
and.b32 $6, d, 0x000f000f;
and.b32 $7, d, 0x00f000f0;
}""")
_PRODUCT = gl.constexpr("{ .reg .b32 z; mov.b32 z, 0x80008000; fma.rn.bf16x2 $0, $1, $2, z; }")
_LOWS = gl.constexpr("prmt.b32 $0, $1, $2, 0x5410;")
_HIGHS = gl.constexpr("prmt.b32 $0, $1, $2, 0x7632;")
_ROUND = gl.constexpr("cvt.rn.bf16x2.f32 $0, $2, $1;")
# Rows and columns of 8 x 8 pairs change places among the threads of a warp.
_TURN = gl.constexpr("movmatrix.sync.aligned.m8n8.trans.b16 $0, $1;")


@gluon.constexpr_function
def _powers(count, step, axis, rank):
    """Bases of a layout: ``count`` (a power of two) places along an axis, ``step`` apart."""
    return [[step << bit if i == axis else 0 for i in range(rank)] for bit in range(count.bit_length() - 1)]


@gluon.constexpr_function
def _products(W):
    return gl.NVMMADistributedLayout(version=[2, 0], warps_per_cta=[W, 1, 1], instr_shape=[1, 16, 8])


@gluon.constexpr_function
def _key_words(W, T, WORDS, RUN):
    """[W, T, WORDS]: thread (g, t) has T / 8 tokens from g * T / 8 and RUN words from t * RUN (and 4 RUN further)."""
    registers = _powers(RUN, 1, 2, 3) + _powers(T // 8, 1, 1, 3) + _powers(WORDS // (4 * RUN), 4 * RUN, 2, 3)
    lanes = _powers(4, RUN, 2, 3) + _powers(8, T // 8, 1, 3)
    return gl.DistributedLinearLayout(registers, lanes, _powers(W, 1, 0, 3), [], [W, T, WORDS])


@gluon.constexpr_function
def _value_words(W, T, WORDS, PAIRED):
    """[W, T, WORDS]: thread (g, t) has T / 4 tokens from t * T / 4 and WORDS / 8 words; PAIRED: its tokens first."""
    words, pair = _powers(WORDS // 8, 1, 2, 3), _powers(2, T // 8, 1, 3)
    registers = pair + words if PAIRED else words + pair
    lanes = _powers(4, T // 4, 1, 3) + _powers(8, WORDS // 8, 2, 3)
    return gl.DistributedLinearLayout(
        registers + _powers(T // 8, 1, 1, 3), lanes, _powers(W, 1, 0, 3), [], [W, T, WORDS]
    )


@gluon.constexpr_function
def _token_words(W, T):
    """[W, T]: the tokens of `_key_words`, the same in the threads of a row."""
    lanes = [[0, 0], [0, 0], *_powers(8, T // 8, 1, 2)]
    return gl.DistributedLinearLayout(_powers(T // 8, 1, 1, 2), lanes, _powers(W, 1, 0, 2), [], [W, T])


@gluon.constexpr_function
def _channel_words(W, D, RUN):
    """[W, D]: the channels of `_key_words`, the same in the threads of a column."""
    registers = _powers(4 * RUN, 1, 1, 2) + _powers(D // (16 * RUN), 16 * RUN, 1, 2)
    lanes = [*_powers(4, 4 * RUN, 1, 2), [0, 0], [0, 0], [0, 0]]
    return gl.DistributedLinearLayout(registers, lanes, _powers(W, 1, 0, 2), [], [W, D])


@gluon.constexpr_function
def _query_channels(W, D, RUN):
    """[8, D]: thread (g, t) has the channels of `_channel_words` of row g."""
    registers = _powers(4 * RUN, 1, 1, 2) + _powers(D // (16 * RUN), 16 * RUN, 1, 2)
    lanes = _powers(4, 4 * RUN, 1, 2) + _powers(8, 1, 0, 2)
    return gl.DistributedLinearLayout(registers, lanes, [[0, 0]] * (W.bit_length() - 1), [], [8, D])


@gluon.constexpr_function
def _sums(W):
    """[W, 8, 8]: one sum for each thread row g and row of the queries."""
    lanes = _powers(4, 2, 2, 3) + _powers(8, 1, 1, 3)
    return gl.DistributedLinearLayout(_powers(2, 1, 2, 3), lanes, _powers(W, 1, 0, 3), [], [W, 8, 8])


@gluon.constexpr_function
def _exchange(W, D):
    """Shared memory [W, D, 8] that the threads of a result write, and those of `_all_warps` read, 16 bytes each without
    conflicts: 4 channels of a thread, then 8 threads (rows of the queries are mixed in), then the rest."""
    vector, bank = [[0, 8, 0], [0, 16, 0]], [[0, 1, 0], [0, 2, 0], [0, 4, 0]]
    rest = [[0, 2, 2], [0, 4, 4], [0, 0, 1], *_powers(D // 32, 32, 1, 3), *_powers(W, 1, 0, 3)]
    return gl.SharedLinearLayout(vector + bank + rest)


@gluon.constexpr_function
def _all_warps(W, D):
    """[W, D, 8]: a thread has all warps' parts of 4 channels that follow each other in memory."""
    threads = [[0, 1, 0], [0, 2, 0], [0, 4, 0], *_powers(D // 32, 32, 1, 3), *_powers(8, 1, 2, 3)]
    warps = len(_powers(W, 1, 0, 3))
    registers = [[0, 8, 0], [0, 16, 0], *_powers(W, 1, 0, 3), *threads[5 : len(threads) - warps]]
    return gl.DistributedLinearLayout(registers, threads[:5], threads[len(threads) - warps :], [], [W, D, 8])


@gluon.jit
def _channels_placed(x_WD, RUN: gl.constexpr):
    """Channels from their order in memory to that of the products."""
    W: gl.constexpr = x_WD.shape[0]
    D: gl.constexpr = x_WD.shape[1]
    x = gl.reshape(x_WD, [W, D // (16 * RUN), 4, RUN // 2, 2, 2, 2])
    return gl.reshape(gl.permute(x, [0, 1, 3, 4, 6, 2, 5]), [W, D])


@gluon.jit
def _tokens_placed(x_WT):
    W: gl.constexpr = x_WT.shape[0]
    T: gl.constexpr = x_WT.shape[1]
    return gl.reshape(gl.permute(gl.reshape(x_WT, [W, 8, T // 8]), [0, 2, 1]), [W, T])


@gluon.jit
def _keys(word, FORMAT: gl.constexpr, RUN: gl.constexpr, MMA: gl.constexpr):
    """Words [W, T, WORDS] to the left operand [W, T, K]."""
    W: gl.constexpr = word.shape[0]
    T: gl.constexpr = word.shape[1]
    WORDS: gl.constexpr = word.shape[2]
    A: gl.constexpr = gl.DotOperandLayout(0, MMA, 2)
    if FORMAT == 2:
        a, b, c, d = gl.inline_asm_elementwise(
            _KEYS_INT8,
            "=r,=r,=r,=r,r,r",
            [word],
            dtype=_FOUR,
            is_pure=True,
            pack=2,
        )
        x = gl.join(gl.join(a, b), gl.join(c, d))
        x = gl.reshape(x, [W, 8, T // 8, WORDS // (4 * RUN), 4, RUN // 2, 2, 2, 2])
        x = gl.permute(x, [0, 2, 1, 3, 5, 8, 7, 4, 6])
        return gl.convert_layout(gl.reshape(x, [W, T, 4 * WORDS]), A, assert_trivial=True)
    else:
        a, e, b, f, c, g, d, h = gl.inline_asm_elementwise(
            _KEYS_INT4, "=r,=r,=r,=r,=r,=r,=r,=r,r,r", [word],
            dtype=_EIGHT, is_pure=True, pack=2,
        )  # fmt: skip
        x = gl.join(gl.join(gl.join(a, b), gl.join(c, d)), gl.join(gl.join(e, f), gl.join(g, h)))
        x = gl.reshape(x, [W, 8, T // 8, WORDS // (4 * RUN), 4, RUN // 2, 2, 2, 2, 2])
        x = gl.permute(x, [0, 2, 1, 9, 3, 5, 8, 7, 4, 6])
        return gl.convert_layout(gl.reshape(x, [W, T, 8 * WORDS]), A, assert_trivial=True)


@gluon.jit
def _values(word, FORMAT: gl.constexpr, MMA: gl.constexpr):
    """Words [W, T, WORDS] to the left operand [W, K, T]."""
    W: gl.constexpr = word.shape[0]
    T: gl.constexpr = word.shape[1]
    WORDS: gl.constexpr = word.shape[2]
    A: gl.constexpr = gl.DotOperandLayout(0, MMA, 2)
    word = gl.convert_layout(word, _value_words(W, T, WORDS, True), assert_trivial=True)
    if FORMAT == 2:
        a, b, c, d = gl.inline_asm_elementwise(
            _VALUES_INT8,
            "=r,=r,=r,=r,r,r",
            [word],
            dtype=_FOUR,
            is_pure=True,
            pack=2,
        )
        x = gl.join(gl.join(a, b), gl.join(c, d))
        x = gl.reshape(x, [W, 4, 2, T // 8, 8, WORDS // 8, 2, 2])
        x = gl.permute(x, [0, 5, 7, 6, 4, 3, 1, 2])
        return gl.convert_layout(gl.reshape(x, [W, 4 * WORDS, T]), A, assert_trivial=True)
    else:
        a, e, b, f, c, g, d, h = gl.inline_asm_elementwise(
            _VALUES_INT4, "=r,=r,=r,=r,=r,=r,=r,=r,r,r", [word],
            dtype=_EIGHT, is_pure=True, pack=2,
        )  # fmt: skip
        x = gl.join(gl.join(gl.join(a, b), gl.join(c, d)), gl.join(gl.join(e, f), gl.join(g, h)))
        x = gl.reshape(x, [W, 4, 2, T // 8, 8, WORDS // 8, 2, 2, 2])
        x = gl.permute(x, [0, 8, 5, 7, 6, 4, 3, 1, 2])
        return gl.convert_layout(gl.reshape(x, [W, 8 * WORDS, T]), A, assert_trivial=True)


@gluon.jit
def _weights(p_WTR, MMA: gl.constexpr):
    """Weights from a result to a right operand, both [W, T, R]: what a warp holds is turned inside of it."""
    W: gl.constexpr = p_WTR.shape[0]
    T: gl.constexpr = p_WTR.shape[1]
    x = gl.inline_asm_elementwise(_TURN, "=r,r", [p_WTR], dtype=gl.bfloat16, is_pure=True, pack=2)
    x = gl.reshape(gl.permute(gl.reshape(x, [W, T // 8, 8, 8]), [0, 1, 3, 2]), [W, T, 8])
    return gl.convert_layout(x, gl.DotOperandLayout(1, MMA, 2), assert_trivial=True)


@gluon.jit
def _rounded(x):
    """To bfloat16, two entries an instruction (the compiler's own conversion takes one at a time here)."""
    return gl.inline_asm_elementwise(_ROUND, "=r,r,r", [x], dtype=gl.bfloat16, is_pure=True, pack=2)


@gluon.jit
def _repeated(x_WTR, T: gl.constexpr, MMA: gl.constexpr):
    """16 tokens' results to those of T tokens."""
    if x_WTR.shape[1] == T:
        return x_WTR
    else:
        W: gl.constexpr = x_WTR.shape[0]
        TWICE: gl.constexpr = x_WTR.shape[1] * 2
        x = gl.reshape(gl.permute(gl.join(x_WTR, x_WTR), [0, 3, 1, 2]), [W, TWICE, 8])
        return _repeated(gl.convert_layout(x, MMA, assert_trivial=True), T, MMA)


@gluon.jit
def _summed(x_WTR):
    """[W, T, R] to a thread's own sums, [W, 8, R]."""
    W: gl.constexpr = x_WTR.shape[0]
    T: gl.constexpr = x_WTR.shape[1]
    x = gl.sum(gl.reshape(x_WTR, [W, T // 8, 8, 8]), 1)
    return gl.convert_layout(x, _sums(W), assert_trivial=True)


@gluon.jit
def _extent(
    cu_ptr, len_ptr, qpos_ptr, segment, live, queries, kv_heads, window,
    HAS_LEN: gl.constexpr, POS: gl.constexpr, WINDOW: gl.constexpr, BLOCK_N: gl.constexpr,
):  # fmt: skip
    """(packed start, first key, one past the last key) of segments; the first is a multiple of BLOCK_N."""
    start = gl.load(cu_ptr + segment, mask=live, other=0)
    if HAS_LEN:
        high = gl.load(len_ptr + segment, mask=live, other=0)
    else:
        high = gl.load(cu_ptr + segment + 1, mask=live, other=0) - start
    low = high * 0
    if POS == 1:
        first = gl.load(qpos_ptr + segment // kv_heads * queries, mask=live, other=0)
        last = gl.load(qpos_ptr + segment // kv_heads * queries + queries - 1, mask=live, other=-1)
        high = gl.minimum(high.to(gl.int64), gl.maximum(last + 1, 0)).to(gl.int32)
        if WINDOW:
            low = gl.minimum(gl.maximum(first - window + 1, 0), high.to(gl.int64)).to(gl.int32) // BLOCK_N * BLOCK_N
    return start, low, high


@gluon.jit
def _add(a, b):
    return a + b


@gluon.jit
def _places(table_ptr, start, segment, pages, at, high, T: gl.constexpr, PAGE: gl.constexpr, LAYOUT: gl.constexpr):
    """(packed row of each warp's first token [W], how many follow it [W]); none lies outside of the segment."""
    W: gl.constexpr = gl.num_warps()
    first = gl.minimum(at + gl.arange(0, W, layout=LAYOUT) * T, high - 1)
    if PAGE == 0:  # noqa: SIM108  (the other branch must not be compiled)
        row = start + first
    else:
        row = gl.load(table_ptr + segment * pages + first // PAGE) * PAGE + first % PAGE
    return row.to(gl.int64), high - 1 - first


@gluon.jit
def _load_words(
    ptr, table_ptr, start, segment, pages, at, high,
    T: gl.constexpr, PAGE: gl.constexpr, WORDS: gl.constexpr, LAYOUT: gl.constexpr,
):  # fmt: skip
    """Words [W, T, WORDS] of codes; tokens behind the last repeat it."""
    tokens: gl.constexpr = gl.SliceLayout(2, LAYOUT)
    row, more = _places(table_ptr, start, segment, pages, at, high, T, PAGE, gl.SliceLayout(1, tokens))
    token = gl.arange(0, T, layout=gl.SliceLayout(0, tokens))
    offset = gl.minimum(token[None, :], more[:, None])
    base = ptr + row * WORDS
    word = gl.arange(0, WORDS, layout=gl.SliceLayout(0, gl.SliceLayout(1, LAYOUT)))
    at = base[:, None][:, :, None] + ((offset * WORDS)[:, :, None] + word[None, :][:, None, :])
    return gl.load(at, eviction_policy="evict_first")  # what is read again (scales, partial results) stays longer


@gluon.jit
def _load_tokens(
    ptr, table_ptr, start, segment, pages, at, high, T: gl.constexpr, PAGE: gl.constexpr, MMA: gl.constexpr
):
    """What the tokens have one of, [W, T], as the rows of the scores."""
    layout: gl.constexpr = _token_words(gl.num_warps(), T)
    row, more = _places(table_ptr, start, segment, pages, at, high, T, PAGE, gl.SliceLayout(1, layout))
    token = gl.arange(0, T, layout=gl.SliceLayout(0, layout))
    x = gl.load((ptr + row)[:, None] + gl.minimum(token[None, :], more[:, None]))
    return gl.convert_layout(_tokens_placed(x), gl.SliceLayout(2, MMA), assert_trivial=True)


@gluon.jit
def _load_channels(
    ptr, table_ptr, start, segment, group0, pages, at, high, D: gl.constexpr, RUN: gl.constexpr, T: gl.constexpr,
    GROUP: gl.constexpr, PAGE: gl.constexpr, LAYOUT: gl.constexpr,
):  # fmt: skip
    """Words of the group of each warp's tokens, [W, K]."""
    W: gl.constexpr = gl.num_warps()
    layout: gl.constexpr = _channel_words(W, D, RUN)
    if PAGE == 0:
        first = gl.minimum(at + gl.arange(0, W, layout=gl.SliceLayout(1, layout)) * T, high - 1)
        group = group0 + first // GROUP
    else:
        row, _ = _places(table_ptr, start, segment, pages, at, high, T, PAGE, gl.SliceLayout(1, layout))
        group = row // GROUP
    channel = gl.arange(0, D, layout=gl.SliceLayout(0, layout))
    x = gl.load((ptr + group.to(gl.int64) * D)[:, None] + channel[None, :])
    return gl.convert_layout(_channels_placed(x, RUN), LAYOUT, assert_trivial=True)


@gluon.jit
def _queries(q_ptr, q_h, q_s, HEADS: gl.constexpr, queries, D: gl.constexpr, RUN: gl.constexpr, MMA: gl.constexpr):
    """The queries of a segment times 2^100 as a right operand [W, K, R], the same for all warps."""
    W: gl.constexpr = gl.num_warps()
    B: gl.constexpr = gl.DotOperandLayout(1, MMA, 2)
    layout: gl.constexpr = _query_channels(W, D, RUN)
    row = gl.arange(0, 8, layout=gl.SliceLayout(1, layout))
    channel = gl.arange(0, D, layout=gl.SliceLayout(0, layout))
    at = row % HEADS * q_h + (row // HEADS).to(gl.int64) * q_s
    q = gl.load(q_ptr + (at[:, None] + channel[None, :]), mask=(row < HEADS * queries)[:, None], other=0.0)
    q = gl.reshape((q.to(gl.float32) * _UP).to(gl.bfloat16), [8, D // (16 * RUN), 4, RUN // 2, 2, 2, 2])
    q = gl.reshape(gl.permute(q, [1, 3, 4, 6, 2, 5, 0]), [1, D, 8])
    q = gl.convert_layout(q, B, assert_trivial=True)
    q, _ = gl.broadcast(q, gl.zeros([W, D, 8], gl.bfloat16, layout=B))
    return q


@gluon.jit
def _index(at, T: gl.constexpr, MMA: gl.constexpr):
    """Which keys of their segment the rows of the scores are, [W, T]."""
    W: gl.constexpr = gl.num_warps()
    warp = gl.arange(0, W, layout=gl.SliceLayout(1, gl.SliceLayout(2, MMA)))
    place = gl.arange(0, T, layout=gl.SliceLayout(0, gl.SliceLayout(2, MMA)))
    return (at + warp * T)[:, None] + (place % 8 * (T // 8) + place // 8)[None, :]


@gluon.jit
def _scores(k_WTK, up_WKR, word_WK, scale2, FORMAT: gl.constexpr, MMA: gl.constexpr):
    """Scores [W, T, R] in base 2; ``up_WKR``: the queries times 2^100, ``word_WK``: the scales, as right operands."""
    W: gl.constexpr = k_WTK.shape[0]
    T: gl.constexpr = k_WTK.shape[1]
    D: gl.constexpr = k_WTK.shape[2]
    A: gl.constexpr = gl.DotOperandLayout(0, MMA, 2)
    B: gl.constexpr = gl.DotOperandLayout(1, MMA, 2)
    few = gl.zeros([W, 16, 8], gl.float32, layout=MMA)
    if FORMAT == 2:
        step = gl.inline_asm_elementwise(_HIGHS, "=r,r,r", [word_WK], dtype=gl.bfloat16, is_pure=True, pack=2)
        q = gl.inline_asm_elementwise(
            _PRODUCT, "=r,r,r", [up_WKR, step[:, :, None]], dtype=gl.bfloat16, is_pure=True, pack=2
        )
        s = mma_v2(gl.full([W, 16, D], _LESS_128_BITS, gl.int16, layout=A).to(gl.bfloat16, bitcast=True), q, few)
        return mma_v2(k_WTK, q, _repeated(s, T, MMA)) * (scale2 * _DOWN)
    else:
        step = gl.inline_asm_elementwise(_LOWS, "=r,r,r", [word_WK], dtype=gl.bfloat16, is_pure=True, pack=2)
        word_WK = gl.convert_layout(word_WK, gl.SliceLayout(1, A), assert_trivial=True)
        low = gl.inline_asm_elementwise(_HIGHS, "=r,r,r", [word_WK], dtype=gl.bfloat16, is_pure=True, pack=2)
        # high nibbles count 16 fold
        place = gl.arange(0, D, layout=gl.SliceLayout(0, gl.SliceLayout(2, B)))
        less = gl.where(place >= D // 2, 0.0625, 1.0).to(gl.bfloat16)[None, :]
        step = gl.inline_asm_elementwise(_PRODUCT, "=r,r,r", [step, less], dtype=gl.bfloat16, is_pure=True, pack=2)
        q = gl.inline_asm_elementwise(
            _PRODUCT, "=r,r,r", [up_WKR, step[:, :, None]], dtype=gl.bfloat16, is_pure=True, pack=2
        )
        low, _ = gl.broadcast(low[:, None, :], gl.zeros([W, 16, D], gl.bfloat16, layout=A))
        lows = _repeated(
            mma_v2(low, up_WKR, few) * (scale2 * _BACK), T, MMA
        )  # the group's low is the same for all of its keys
        none = gl.zeros([W, T, 8], gl.float32, layout=MMA)
        return mma_v2(k_WTK, q, none) * (scale2 * _DOWN) + lows


@gluon.jit
def _joined(m_WR, l_WGR, z_WGR, acc_WDR, FORMAT: gl.constexpr, MMA: gl.constexpr):
    """The warps' parts to (greatest score [R], sum of weights [R], sum of weights times values [D, R])."""
    W: gl.constexpr = acc_WDR.shape[0]
    D: gl.constexpr = acc_WDR.shape[1]
    ROWS: gl.constexpr = gl.SliceLayout(1, MMA)
    PLAIN: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
    ALL: gl.constexpr = _all_warps(W, D)
    all_rows: gl.constexpr = gl.SliceLayout(1, ALL)
    shared = gl.allocate_shared_memory(gl.float32, [W, D, 8], _exchange(W, D), acc_WDR)
    m_WR = gl.allocate_shared_memory(gl.float32, [W, 8], PLAIN, m_WR).load(all_rows)
    l_WR = gl.convert_layout(gl.sum(l_WGR, 1), ROWS, assert_trivial=True)
    l_WR = gl.allocate_shared_memory(gl.float32, [W, 8], PLAIN, l_WR).load(all_rows)
    z_WR = gl.convert_layout(gl.sum(z_WGR, 1), ROWS, assert_trivial=True)
    z_WR = gl.allocate_shared_memory(gl.float32, [W, 8], PLAIN, z_WR).load(all_rows)
    m = gl.max(m_WR, 0)
    weight = gl.exp2(m_WR - gl.where(m == _NEVER, 0.0, m)[None, :])
    l_sum = gl.sum(l_WR * weight, 0)
    out = gl.sum(shared.load(ALL) * weight[:, None, :], 0)
    z_sum = gl.convert_layout(gl.sum(z_WR * weight, 0), gl.SliceLayout(0, out.type.layout), assert_trivial=True)[
        None, :
    ]
    if FORMAT == 2:
        out = out * _DOWN + z_sum * (_LESS_128 * _DOWN)
        out = gl.permute(gl.reshape(out, [D // 8, 8, 8]), [1, 0, 2])
    else:
        place = gl.arange(0, D, layout=gl.SliceLayout(1, out.type.layout))
        out = out * gl.where(place >= D // 2, _DOWN * 0.0625, _DOWN)[:, None] + z_sum
        out = gl.permute(gl.reshape(out, [2, D // 16, 8, 8]), [0, 2, 1, 3])
    return m, l_sum, gl.reshape(out, [D, 8])


@gluon.jit(do_not_specialize=LENGTHS)
def codes_kernel(
    q_ptr, k_ptr, v_ptr, kscale_ptr, vscale_ptr, bias_ptr, pos_ptr,
    cu_ptr, len_ptr, group_ptr, table_ptr, qpos_ptr, out_ptr, lse_ptr, part_ptr, stat_ptr,
    scale, segments, kv_heads, queries, programs, window, pages, q_b, q_h, q_s,
    HEADS: gl.constexpr, D: gl.constexpr, T: gl.constexpr, FORMAT: gl.constexpr,
    GROUP: gl.constexpr, PAGE: gl.constexpr, HAS_BIAS: gl.constexpr, HAS_LEN: gl.constexpr, POS: gl.constexpr,
    WINDOW: gl.constexpr, SPLIT: gl.constexpr, SEGMENTS: gl.constexpr, EARLY: gl.constexpr,
):  # fmt: skip
    """One program: its share of the key tiles of all segments (SPLIT), or one whole segment.

    All pointers to codes and scales are to int32 words (vscale_ptr of int8 to float32). FORMAT 2 int8, 3 int4; the
    other arguments are those of `ragged_kernel`, with BLOCK_N = warps * T. T divides GROUP and PAGE.
    """
    W: gl.constexpr = gl.num_warps()
    BLOCK_N: gl.constexpr = W * T
    WORDS: gl.constexpr = D // (4 if FORMAT == 2 else 8)
    RUN: gl.constexpr = 4 if WORDS >= 16 else 2
    MMA: gl.constexpr = _products(W)
    B: gl.constexpr = gl.DotOperandLayout(1, MMA, 2)
    KEYS: gl.constexpr = _key_words(W, T, WORDS, RUN)
    VALUES: gl.constexpr = _value_words(W, T, WORDS, False)
    PLAN: gl.constexpr = gl.BlockedLayout([1], [32], [W], [0])
    program = gl.program_id(0)
    if EARLY:  # `ragged_kernel` says why in this order
        gdc_wait()
        gdc_launch_dependents()
    if SPLIT:
        all_S = gl.arange(0, SEGMENTS, layout=PLAN)
        live_S = all_S < segments
        start_S, low_S, high_S = _extent(
            cu_ptr, len_ptr, qpos_ptr, all_S, live_S, queries, kv_heads, window, HAS_LEN, POS, WINDOW, T
        )
        group_S = all_S * 0
        if PAGE == 0:
            group_S = gl.load(group_ptr + all_S, mask=live_S, other=0)
        work_S = gl.where(live_S, gl.cdiv(high_S - low_S, T), 0)
        ends_S = gl.associative_scan(work_S, 0, _add)
        total = gl.sum(work_S, 0).to(gl.int64)
        sharing = gl.maximum(gl.minimum(programs.to(gl.int64), total), 1)
        begin = gl.minimum(program * total // sharing, total).to(gl.int32)
        finish = gl.minimum((program + 1) * total // sharing, total).to(gl.int32)
    else:
        begin = 0
        finish = 1
    while begin < finish:
        if SPLIT:
            segment = gl.sum((ends_S <= begin).to(gl.int32), 0)
            here_S = all_S == segment
            first = begin - gl.sum(gl.where(all_S < segment, work_S, 0), 0)
            start = gl.sum(gl.where(here_S, start_S, 0), 0)
            low = gl.sum(gl.where(here_S, low_S, 0), 0)
            high = gl.sum(gl.where(here_S, high_S, 0), 0)
            group0 = gl.sum(gl.where(here_S, group_S, 0), 0)
            until = gl.minimum(gl.cdiv(high - low, T), first + finish - begin)
        else:
            segment = program
            start, low, high = _extent(
                cu_ptr, len_ptr, qpos_ptr, segment, segment < segments, queries, kv_heads, window,
                HAS_LEN, POS, WINDOW, T,
            )  # fmt: skip
            group0 = 0
            if PAGE == 0:
                group0 = gl.load(group_ptr + segment)
            first = 0
            until = gl.cdiv(high - low, T)
        high = gl.minimum(high, low + until * T)
        b = (segment // kv_heads).to(gl.int64)
        h = (segment % kv_heads).to(gl.int64)
        row_R = gl.arange(0, 8, layout=gl.SliceLayout(0, gl.SliceLayout(1, MMA)))
        qpos_R = (row_R // HEADS).to(gl.int64)
        if POS > 0:
            qpos_R = gl.load(qpos_ptr + b * queries + qpos_R, mask=row_R < HEADS * queries, other=0)
        ROWS: gl.constexpr = gl.SliceLayout(1, MMA)
        m = gl.full([W, 8], _NEVER, gl.float32, layout=ROWS)
        l_sum = gl.zeros([W, 8, 8], gl.float32, layout=_sums(W))
        z_sum = gl.zeros([W, 8, 8], gl.float32, layout=_sums(W))
        acc = gl.zeros([W, D, 8], gl.float32, layout=MMA)
        if first < until:
            at = low + first * T
            k = _load_words(k_ptr, table_ptr, start, segment, pages, at, high, T, PAGE, WORDS, KEYS)
            v = _load_words(v_ptr, table_ptr, start, segment, pages, at, high, T, PAGE, WORDS, VALUES)
            word = _load_channels(
                kscale_ptr, table_ptr, start, segment, group0, pages, at, high, D, RUN, T, GROUP, PAGE,
                gl.SliceLayout(2, B),
            )  # fmt: skip
            word_T = _load_tokens(vscale_ptr, table_ptr, start, segment, pages, at, high, T, PAGE, MMA)
            if HAS_BIAS:
                bias_T = _load_tokens(bias_ptr, table_ptr, start, segment, pages, at, high, T, PAGE, MMA)
            up = _queries(q_ptr + (b * q_b + h * HEADS * q_h), q_h, q_s, HEADS, queries, D, RUN, MMA)
            for at in range(low + first * T, high, BLOCK_N):
                s = _scores(_keys(k, FORMAT, RUN, MMA), up, word, scale * _LOG2E, FORMAT, MMA)
                k = _load_words(k_ptr, table_ptr, start, segment, pages, at + BLOCK_N, high, T, PAGE, WORDS, KEYS)
                word = _load_channels(
                    kscale_ptr, table_ptr, start, segment, group0, pages, at + BLOCK_N, high, D, RUN, T, GROUP, PAGE,
                    gl.SliceLayout(2, B),
                )  # fmt: skip
                if HAS_BIAS:
                    s += (bias_T * _LOG2E)[:, :, None]
                    bias_T = _load_tokens(bias_ptr, table_ptr, start, segment, pages, at + BLOCK_N, high, T, PAGE, MMA)
                index_T = _index(at, T, MMA)
                s = gl.where((index_T < high)[:, :, None], s, _NEVER)
                if POS > 0:
                    pos_T = index_T.to(gl.int64)
                    if POS == 2:
                        pos_T = _load_tokens(pos_ptr, table_ptr, start, segment, pages, at, high, T, PAGE, MMA)
                    seen = pos_T[:, :, None] <= qpos_R[None, :][:, None, :]
                    if WINDOW:
                        seen = seen & (pos_T[:, :, None] > qpos_R[None, :][:, None, :] - window)
                    s = gl.where(seen, s, _NEVER)
                new = gl.maximum(m, gl.max(s, 1))
                safe = gl.where(new == _NEVER, 0.0, new)
                p = gl.exp2(s - safe[:, None, :])
                factor = gl.exp2(m - safe)
                m = new
                factor_sum = gl.convert_layout(factor, gl.SliceLayout(1, _sums(W)), assert_trivial=True)[:, None, :]
                l_sum = l_sum * factor_sum + _summed(p)
                if FORMAT == 2:  # what the 128 in every code adds
                    p16 = _rounded(p * (word_T * _UP)[:, :, None])
                    z_sum = z_sum * factor_sum + _summed(p16.to(gl.float32))
                else:
                    step_T = (word_T << 16).to(gl.float32, bitcast=True)
                    low_T = (word_T & -65536).to(gl.float32, bitcast=True)
                    p16 = _rounded(p * (step_T * _UP)[:, :, None])
                    z_sum = z_sum * factor_sum + _summed(p * low_T[:, :, None])
                word_T = _load_tokens(vscale_ptr, table_ptr, start, segment, pages, at + BLOCK_N, high, T, PAGE, MMA)
                acc = mma_v2(_values(v, FORMAT, MMA), _weights(p16, MMA), acc * factor[:, None, :])
                v = _load_words(v_ptr, table_ptr, start, segment, pages, at + BLOCK_N, high, T, PAGE, WORDS, VALUES)
        m_R, l_R, out = _joined(m, l_sum, z_sum, acc, FORMAT, MMA)
        OUT: gl.constexpr = out.type.layout
        row_R = gl.arange(0, 8, layout=gl.SliceLayout(0, OUT))
        channel = gl.arange(0, D, layout=gl.SliceLayout(1, OUT))
        used_R = row_R < HEADS * queries
        if SPLIT:
            slot = (program + segment).to(gl.int64) * 8
            gl.store(part_ptr + (slot * D + (row_R * D)[None, :] + channel[:, None]), out, mask=used_R[None, :])
            row_R = gl.arange(0, 8, layout=m_R.type.layout)
            used_R = row_R < HEADS * queries
            gl.store(stat_ptr + (slot + row_R) * 2, m_R, mask=used_R)
            gl.store(stat_ptr + (slot + row_R) * 2 + 1, l_R, mask=used_R)
            begin += until - first
        else:
            l_O = gl.convert_layout(l_R, gl.SliceLayout(0, OUT))
            out *= gl.where(l_O > 0, 1.0 / l_O, 0.0)[None, :]
            to_R = (segment.to(gl.int64) * HEADS + row_R % HEADS) * queries + row_R // HEADS
            gl.store(
                out_ptr + ((to_R * D)[None, :] + channel[:, None]),
                out.to(out_ptr.dtype.element_ty),
                mask=used_R[None, :],
            )
            row_R = gl.arange(0, 8, layout=m_R.type.layout)
            to_R = (segment.to(gl.int64) * HEADS + row_R % HEADS) * queries + row_R // HEADS
            gl.store(lse_ptr + to_R, (m_R + gl.log2(l_R)) * _LN2, mask=row_R < HEADS * queries)
            begin += 1
