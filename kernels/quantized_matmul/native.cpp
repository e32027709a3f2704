// Entry points of the packed matrix product and of its inverse, dequantisation to bfloat16.
#include "quantized_matmul/native.h"

#include <omp.h>

#include <vector>

using namespace perdure;

namespace {

// Round to nearest even, as torch does.
inline __m256i to_bf16(__m512 x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

template <int BITS>
void dequantize_block(const uint8_t* b, uint16_t* out, int64_t stride, int64_t rows) {
    alignas(64) __m512i w[8];
    unpack<BITS>(b, w);
    alignas(64) uint32_t words[8][kRows];
    for (int j = 0; j < 8; ++j) _mm512_store_si512(words[j], w[j]);
    alignas(64) float scale[kRows], low[kRows];
    const __m512 s = block_scale<BITS>(b);
    _mm512_store_ps(scale, s);
    _mm512_store_ps(low, block_low<BITS>(b, s));
    for (int64_t r = 0; r < rows; ++r) {
        alignas(32) uint32_t codes[8];
        for (int j = 0; j < 8; ++j) codes[j] = words[j][r];
        const __m512 sr = _mm512_set1_ps(scale[r]), lr = _mm512_set1_ps(low[r]);
        for (int half = 0; half < 2; ++half) {
            const __m512i c = _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i*)(codes + 4 * half)));
            const __m512 x = _mm512_fmadd_ps(_mm512_cvtepi32_ps(c), sr, lr);
            _mm256_storeu_si256((__m256i*)(out + r * stride + 16 * half), to_bf16(x));
        }
    }
}

template <int BITS>
void dequantize(const Matrix& w, uint16_t* out) {
    const int64_t blocks = (w.rows + kRows - 1) / kRows, groups = w.cols / kGroup;
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t rows = w.rows - block * kRows < kRows ? w.rows - block * kRows : kRows;
        for (int64_t g = 0; g < groups; ++g)
            dequantize_block<BITS>(w.data + (block * groups + g) * block_bytes(BITS),
                                   out + block * kRows * w.cols + g * kGroup, w.cols, rows);
    }
}

}  // namespace

extern "C" {

// y[tokens, rows] = x[tokens, cols] W^T + bias, all float32 and contiguous.
void perdure_matmul(const Matrix* w, const float* x, float* y, const float* bias, int64_t tokens) {
    const int64_t groups = w->cols / kGroup;
    std::vector<int8_t> q(tokens * w->cols);
    std::vector<float> scale(tokens * groups);
    std::vector<int32_t> sum(tokens * groups);
    std::vector<Activations> a(tokens);
    std::vector<float*> out(tokens);
    for (int64_t m = 0; m < tokens; ++m) {
        a[m] = {q.data() + m * w->cols, scale.data() + m * groups, sum.data() + m * groups};
        out[m] = y + m * w->rows;
    }
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < tokens * groups; ++i) quantize_group(x + (i / groups) * w->cols, a[i / groups], i % groups);
        // Pieces are handed out as threads come for them: one that lost its core does not hold up the rest.
        const int64_t piece = std::clamp<int64_t>(w->rows / (8 * omp_get_num_threads()) / 32 * 32, 32, 1024);
#pragma omp for schedule(dynamic, 1)
        for (int64_t row = 0; row < w->rows; row += piece)
            share(*w, a.data(), out.data(), tokens, bias, false, {row, std::min(w->rows, row + piece)});
    }
}

// out[rows, cols] as bfloat16.
void perdure_dequantize(const Matrix* w, uint16_t* out) {
    if (w->bits == 4) dequantize<4>(*w, out);
    else if (w->bits == 5) dequantize<5>(*w, out);
    else dequantize<8>(*w, out);
}

}  // extern "C"
