// Attention of a few query heads over the float16 keys and values of one KV head (AVX-512). See README.md.
#pragma once
#include <immintrin.h>
#include <algorithm>
#include <cmath>
#include <cstdint>

namespace perdure {

// exp(x) for x <= 0 within 2 units in the last place: 2^n times a degree-6 polynomial of the fraction.
inline __m512 exp_ps(__m512 x) {
    const __m512 t = _mm512_mul_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.0f)), _mm512_set1_ps(1.44269504088896f));
    const __m512 n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_mul_ps(_mm512_sub_ps(t, n), _mm512_set1_ps(0.693147180559945f));
    __m512 p = _mm512_set1_ps(1.0f / 720);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.0f), _CMP_GT_OQ), p, n);
}

inline __m512 load_half(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }

// scores[h][t] = scale * q[h] . k[t] + bias[t] for t in [first, last).
template <int NV>
inline void score_heads(const float* q, int heads, const uint16_t* k, int64_t first, int64_t last, int64_t dim,
                        float scale, const float* bias, float* scores, int64_t stride) {
    for (int64_t t = first; t < last; ++t) {
        float sum[16] = {0};
        for (int64_t d = 0; d < dim; d += 16 * NV) {
            __m512 kv[NV];
            for (int i = 0; i < NV; ++i) kv[i] = load_half(k + t * dim + d + 16 * i);
            for (int h = 0; h < heads; ++h) {
                __m512 acc = _mm512_mul_ps(kv[0], _mm512_loadu_ps(q + h * dim + d));
                for (int i = 1; i < NV; ++i) acc = _mm512_fmadd_ps(kv[i], _mm512_loadu_ps(q + h * dim + d + 16 * i), acc);
                sum[h] += _mm512_reduce_add_ps(acc);
            }
        }
        for (int h = 0; h < heads; ++h) scores[h * stride + t] = sum[h] * scale + (bias ? bias[t] : 0.0f);
    }
}

// Softmax weights in place, not yet divided by their sum, which is returned.
inline float softmax_row(float* s, int64_t first, int64_t last) {
    __m512 peak = _mm512_set1_ps(-INFINITY);
    for (int64_t t = first; t < last; t += 16) {
        const __mmask16 m = last - t >= 16 ? 0xFFFF : (__mmask16)((1u << (last - t)) - 1);
        peak = _mm512_mask_max_ps(peak, m, peak, _mm512_maskz_loadu_ps(m, s + t));
    }
    const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(peak));
    __m512 sum = _mm512_setzero_ps();
    for (int64_t t = first; t < last; t += 16) {
        const __mmask16 m = last - t >= 16 ? 0xFFFF : (__mmask16)((1u << (last - t)) - 1);
        const __m512 e = exp_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(m, s + t), top));
        sum = _mm512_mask_add_ps(sum, m, sum, e);
        _mm512_mask_storeu_ps(s + t, m, e);
    }
    return _mm512_reduce_add_ps(sum);
}

// out[h][d .. d+16 NV) = sum over t of weight[h][t] * v[t], for four heads at a time.
template <int NV, int H>
inline void mix_heads(const float* w, int64_t stride, const float* inverse, const uint16_t* v, int64_t first,
                      int64_t last, int64_t dim, int64_t d, float* out) {
    __m512 acc[H][NV];
    for (int h = 0; h < H; ++h)
        for (int i = 0; i < NV; ++i) acc[h][i] = _mm512_setzero_ps();
    for (int64_t t = first; t < last; ++t) {
        __m512 vv[NV];
        for (int i = 0; i < NV; ++i) vv[i] = load_half(v + t * dim + d + 16 * i);
        for (int h = 0; h < H; ++h) {
            const __m512 p = _mm512_set1_ps(w[h * stride + t]);
            for (int i = 0; i < NV; ++i) acc[h][i] = _mm512_fmadd_ps(p, vv[i], acc[h][i]);
        }
    }
    for (int h = 0; h < H; ++h)
        for (int i = 0; i < NV; ++i)
            _mm512_storeu_ps(out + h * dim + d + 16 * i, _mm512_mul_ps(acc[h][i], _mm512_set1_ps(inverse[h])));
}

template <int NV>
inline void attend_nv(const float* q, int heads, const uint16_t* k, const uint16_t* v, int64_t first, int64_t last,
                      int64_t dim, float scale, const float* bias, float* scores, int64_t stride, float* out) {
    score_heads<NV>(q, heads, k, first, last, dim, scale, bias, scores, stride);
    float inverse[16];
    for (int h = 0; h < heads; ++h) inverse[h] = 1.0f / softmax_row(scores + h * stride, first, last);
    for (int64_t d = 0; d < dim; d += 16 * NV) {
        int h = 0;
        for (; h + 4 <= heads; h += 4)
            mix_heads<NV, 4>(scores + h * stride, stride, inverse + h, v, first, last, dim, d, out + h * dim);
        for (; h < heads; ++h)
            mix_heads<NV, 1>(scores + h * stride, stride, inverse + h, v, first, last, dim, d, out + h * dim);
    }
}

// out[heads, dim] for at most 16 query heads that share one KV head; dim a multiple of 16; scores [heads, stride].
inline void attend(const float* q, int heads, const uint16_t* k, const uint16_t* v, int64_t first, int64_t last,
                   int64_t dim, float scale, const float* bias, float* scores, int64_t stride, float* out) {
    if (dim % 64 == 0) attend_nv<4>(q, heads, k, v, first, last, dim, scale, bias, scores, stride, out);
    else attend_nv<1>(q, heads, k, v, first, last, dim, scale, bias, scores, stride, out);
}

}  // namespace perdure
