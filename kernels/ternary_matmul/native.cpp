// Ternary weights of 2 bits times int8 activations (AVX-512 VNNI). README.md draws the layout.
#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr int kRows = 16;     // output rows in a block: one per 32-bit lane
constexpr int kInputs = 16;   // inputs in a block of 64 bytes: four fields of four
constexpr int64_t kBlock = 64;

// Sixteen rows for M tokens: sums of code * q, where code = weight + 1. Fields are not shifted down; field j counts 4^j
// fold and has a sum of its own.
template <int M>
inline void row_block(const uint8_t* w, const int8_t* const* q, int64_t blocks, __m512i out[M]) {
    const __m512i low = _mm512_set1_epi8(0x03), second = _mm512_set1_epi8(0x0C), third = _mm512_set1_epi8(0x30),
                  high = _mm512_set1_epi8((char)0xC0);
    __m512i s0[M], s1[M], s2[M], s3[M];
    for (int m = 0; m < M; ++m) s0[m] = s1[m] = s2[m] = s3[m] = _mm512_setzero_si512();
    for (int64_t b = 0; b < blocks; ++b, w += kBlock) {
        const __m512i v = _mm512_loadu_si512(w);
        const __m512i f0 = _mm512_and_si512(v, low), f1 = _mm512_and_si512(v, second), f2 = _mm512_and_si512(v, third),
                      f3 = _mm512_and_si512(v, high);
        for (int m = 0; m < M; ++m) {
            const int32_t* x = (const int32_t*)(q[m] + b * kInputs);
            s0[m] = _mm512_dpbusd_epi32(s0[m], f0, _mm512_set1_epi32(x[0]));
            s1[m] = _mm512_dpbusd_epi32(s1[m], f1, _mm512_set1_epi32(x[1]));
            s2[m] = _mm512_dpbusd_epi32(s2[m], f2, _mm512_set1_epi32(x[2]));
            s3[m] = _mm512_dpbusd_epi32(s3[m], f3, _mm512_set1_epi32(x[3]));
        }
    }
    for (int m = 0; m < M; ++m) {
        const __m512i lower = _mm512_add_epi32(s0[m], _mm512_srai_epi32(s1[m], 2));
        const __m512i upper = _mm512_add_epi32(_mm512_srai_epi32(s2[m], 4), _mm512_srai_epi32(s3[m], 6));
        out[m] = _mm512_add_epi32(lower, upper);
    }
}

struct Tokens {
    const int8_t* q;       // [tokens, inputs]
    const int32_t* sum;    // [tokens]
    const float* scale;    // [tokens]
};

template <int M>
inline void tile(const uint8_t* w, int64_t row, int64_t rows, int64_t inputs, const Tokens& x, int64_t m,
                 const float* row_scale, const float* bias, float* y) {
    const int8_t* q[M];
    for (int i = 0; i < M; ++i) q[i] = x.q + (m + i) * inputs;
    __m512i dot[M];
    row_block<M>(w, q, inputs / kInputs, dot);
    const int64_t left = rows - row;
    const __mmask16 mask = left >= kRows ? 0xFFFF : (__mmask16)((1u << left) - 1);
    const __m512 scale = _mm512_maskz_loadu_ps(mask, row_scale + row);
    for (int i = 0; i < M; ++i) {
        const __m512i exact = _mm512_sub_epi32(dot[i], _mm512_set1_epi32(x.sum[m + i]));
        __m512 out = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(exact), _mm512_set1_ps(x.scale[m + i])), scale);
        if (bias) out = _mm512_add_ps(out, _mm512_maskz_loadu_ps(mask, bias + row));
        _mm512_mask_storeu_ps(y + (m + i) * rows + row, mask, out);
    }
}

void round_token(const float* x, int64_t inputs, int64_t padded, int8_t* q, float* scale, int32_t* sum) {
    __m512 peaks = _mm512_setzero_ps();
    for (int64_t k = 0; k < inputs; k += 16) {
        const __mmask16 mask = inputs - k >= 16 ? 0xFFFF : (__mmask16)((1u << (inputs - k)) - 1);
        peaks = _mm512_max_ps(peaks, _mm512_abs_ps(_mm512_maskz_loadu_ps(mask, x + k)));
    }
    const float peak = _mm512_reduce_max_ps(peaks);
    const __m512 inverse = _mm512_set1_ps(peak > 0 ? 127.0f / peak : 0.0f);
    __m512i sums = _mm512_setzero_si512();
    for (int64_t k = 0; k < padded; k += 16) {
        const __mmask16 mask = inputs - k >= 16 ? 0xFFFF : inputs > k ? (__mmask16)((1u << (inputs - k)) - 1) : 0;
        const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + k), inverse));
        _mm_storeu_si128((__m128i*)(q + k), _mm512_cvtepi32_epi8(a));
        sums = _mm512_add_epi32(sums, a);
    }
    *scale = peak / 127.0f;
    *sum = _mm512_reduce_add_epi32(sums);
}

}  // namespace

extern "C" {

// y[tokens, rows] = scale W q + bias for tokens that are already int8; inputs is a multiple of 64, zeros at the end.
void perdure_ternary_int8(const uint8_t* w, int64_t rows, int64_t inputs, const int8_t* q, const int32_t* sum,
                          const float* scale, const float* row_scale, const float* bias, float* y, int64_t tokens) {
    const Tokens x{q, sum, scale};
    const int64_t blocks = (rows + kRows - 1) / kRows, stride = inputs / kInputs * kBlock;
#pragma omp parallel
    {
        // Pieces are handed out as threads come for them: one that lost its core does not hold up the rest.
        const int64_t piece = std::clamp<int64_t>(blocks / (8 * omp_get_num_threads()), 1, 64);
#pragma omp for schedule(dynamic, 1)
        for (int64_t first = 0; first < blocks; first += piece)
            for (int64_t b = first; b < std::min(blocks, first + piece); ++b) {
                const uint8_t* block = w + b * stride;
                int64_t m = 0;
                for (; m + 4 <= tokens; m += 4) tile<4>(block, b * kRows, rows, inputs, x, m, row_scale, bias, y);
                for (; m < tokens; ++m) tile<1>(block, b * kRows, rows, inputs, x, m, row_scale, bias, y);
            }
    }
}

// The same for float32 tokens [tokens, cols], rounded here.
void perdure_ternary(const uint8_t* w, int64_t rows, int64_t inputs, const float* x, int64_t cols,
                     const float* row_scale, const float* bias, float* y, int64_t tokens) {
    std::vector<int8_t> q(tokens * inputs);
    std::vector<float> scale(tokens);
    std::vector<int32_t> sum(tokens);
    for (int64_t m = 0; m < tokens; ++m)
        round_token(x + m * cols, cols, inputs, q.data() + m * inputs, &scale[m], &sum[m]);
    perdure_ternary_int8(w, rows, inputs, q.data(), sum.data(), scale.data(), row_scale, bias, y, tokens);
}

}  // extern "C"
