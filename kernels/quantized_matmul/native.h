// Packed weights and their dot products with int8 activations (AVX-512 VNNI). See README.md for the layout.
#pragma once
#include <immintrin.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace perdure {

constexpr int kRows = 16;   // output rows in a block: one per 32-bit lane
constexpr int kGroup = 32;  // inputs that share a scale

// bits 4: unsigned code with scale and low; 5 and 8: code minus 16 or 128, with scale.
struct Matrix {
    const uint8_t* data;
    int64_t rows, cols;  // rows may be less than the padded rows in data
    int32_t bits;
};

constexpr int block_bytes(int bits) { return bits == 4 ? 256 + 64 : bits == 5 ? 256 + 64 + 32 : 512 + 32; }

// Activations of one token, quantised in groups: x = scale * q.
struct Activations {
    int8_t* q;     // [cols]
    float* scale;  // [cols / 32]
    int32_t* sum;  // [cols / 32], sum of q in the group
};

inline void quantize_group(const float* x, const Activations& a, int64_t g) {
    const __m512 lo = _mm512_loadu_ps(x + g * kGroup), hi = _mm512_loadu_ps(x + g * kGroup + 16);
    const float peak = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(lo), _mm512_abs_ps(hi)));
    const __m512 inverse = _mm512_set1_ps(peak > 0 ? 127.0f / peak : 0.0f);
    const __m512i a0 = _mm512_cvtps_epi32(_mm512_mul_ps(lo, inverse)), a1 = _mm512_cvtps_epi32(_mm512_mul_ps(hi, inverse));
    _mm_storeu_si128((__m128i*)(a.q + g * kGroup), _mm512_cvtepi32_epi8(a0));
    _mm_storeu_si128((__m128i*)(a.q + g * kGroup + 16), _mm512_cvtepi32_epi8(a1));
    a.scale[g] = peak / 127.0f;
    a.sum[g] = _mm512_reduce_add_epi32(_mm512_add_epi32(a0, a1));
}

// The eight vectors of unsigned codes of one block: vector j holds inputs 4j..4j+3 of 16 rows.
template <int BITS>
inline void unpack(const uint8_t* b, __m512i w[8]) {
    if (BITS == 8) {
        for (int j = 0; j < 8; ++j) w[j] = _mm512_loadu_si512(b + 64 * j);
        return;
    }
    const __m512i nibble = _mm512_set1_epi8(15);
    for (int c = 0; c < 4; ++c) {
        const __m512i two = _mm512_loadu_si512(b + 64 * c);
        w[2 * c] = _mm512_and_si512(two, nibble);
        w[2 * c + 1] = _mm512_and_si512(_mm512_srli_epi16(two, 4), nibble);
    }
    if (BITS == 5) {
        uint64_t high[8];
        std::memcpy(high, b + 256, 64);
        const __m512i sixteen = _mm512_set1_epi8(16);
        for (int j = 0; j < 8; ++j) w[j] = _mm512_mask_add_epi8(w[j], high[j], w[j], sixteen);
    }
}

template <int BITS>
inline __m512 block_scale(const uint8_t* b) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(b + (BITS == 4 ? 256 : BITS == 5 ? 320 : 512))));
}
template <int BITS>
inline __m512 block_low(const uint8_t* b, __m512 scale) {
    if (BITS == 4) return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(b + 288)));
    return _mm512_mul_ps(scale, _mm512_set1_ps(BITS == 5 ? -16.0f : -128.0f));
}

// Sixteen outputs for M tokens: y[m] = sum over groups of xs * (scale * dot(code, q) + low * sum(q)).
template <int BITS, int M>
inline void row_block(const uint8_t* b, const Activations* x, int64_t groups, __m512 y[M]) {
    for (int m = 0; m < M; ++m) y[m] = _mm512_setzero_ps();
    for (int64_t g = 0; g < groups; ++g, b += block_bytes(BITS)) {
        __m512i w[8];
        unpack<BITS>(b, w);
        const __m512 scale = block_scale<BITS>(b);
        for (int m = 0; m < M; ++m) {
            const int32_t* q = (const int32_t*)(x[m].q + g * kGroup);
            const int32_t sum = x[m].sum[g];
            __m512i dot = BITS == 4 ? _mm512_setzero_si512() : _mm512_set1_epi32(sum * (BITS == 5 ? -16 : -128));
            for (int j = 0; j < 8; ++j) dot = _mm512_dpbusd_epi32(dot, w[j], _mm512_set1_epi32(q[j]));
            const __m512 xs = _mm512_set1_ps(x[m].scale[g]);
            y[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(scale, xs), y[m]);
            if (BITS == 4)
                y[m] = _mm512_fmadd_ps(block_low<4>(b, scale), _mm512_set1_ps(x[m].scale[g] * (float)sum), y[m]);
        }
    }
}

// Outputs of one block of rows for M tokens.
template <int BITS, int M>
inline void block_tile(const Matrix& w, int64_t block, const Activations* x, float* const* y, const float* bias, bool add) {
    const int64_t groups = w.cols / kGroup, row = block * kRows, left = w.rows - row;
    __m512 out[M];
    row_block<BITS, M>(w.data + block * groups * block_bytes(BITS), x, groups, out);
    const __mmask16 mask = left >= kRows ? 0xFFFF : (__mmask16)((1u << left) - 1);
    for (int m = 0; m < M; ++m) {
        if (bias) out[m] = _mm512_add_ps(out[m], _mm512_maskz_loadu_ps(mask, bias + row));
        if (add) out[m] = _mm512_add_ps(out[m], _mm512_maskz_loadu_ps(mask, y[m] + row));
        _mm512_mask_storeu_ps(y[m] + row, mask, out[m]);
    }
}

// Rows of thread tid, in units of 32: [first, last). Equal matrices are cut alike, so that a thread finds the outputs of
// two of them (gate and up) without waiting for the others.
struct Rows {
    int64_t first, last;
};
inline Rows rows_of(int64_t rows, int tid, int threads) {
    const int64_t units = (rows + 31) / 32;
    return {units * tid / threads * 32, std::min(rows, units * (tid + 1) / threads * 32)};
}

// This thread's share of y[m][row] (=, or += with add) for all tokens; no barrier. Blocks outside, tokens inside: a
// block of weights comes from memory once and stays in the nearest cache.
template <int BITS>
inline void share_bits(const Matrix& w, const Activations* x, float* const* y, int64_t tokens, const float* bias,
                       bool add, Rows mine) {
    for (int64_t row = mine.first; row < mine.last; row += kRows) {
        const int64_t block = row / kRows;
        int64_t m = 0;
        for (; m + 4 <= tokens; m += 4) block_tile<BITS, 4>(w, block, x + m, y + m, bias, add);
        for (; m + 2 <= tokens; m += 2) block_tile<BITS, 2>(w, block, x + m, y + m, bias, add);
        for (; m < tokens; ++m) block_tile<BITS, 1>(w, block, x + m, y + m, bias, add);
    }
}

inline void share(const Matrix& w, const Activations* x, float* const* y, int64_t tokens, const float* bias, bool add,
                  Rows mine) {
    if (w.bits == 4) share_bits<4>(w, x, y, tokens, bias, add, mine);
    else if (w.bits == 5) share_bits<5>(w, x, y, tokens, bias, add, mine);
    else share_bits<8>(w, x, y, tokens, bias, add, mine);
}

}  // namespace perdure
