// Attention of a few query heads over the keys and values of one KV head (AVX-512): float16 rows, and before them
// compacted ones in any storage format of decode_attention/ragged.py. See README.md.
#pragma once
#include <immintrin.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

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

inline __m512 load(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
inline __m512 load(const float* p) { return _mm512_loadu_ps(p); }

// Compacted keys and values of all KV heads: the fields of RaggedKV, plain, int8 or int4.
enum Format : int32_t { kHalf, kBfloat, kFloat, kInt8, kInt4 };
struct Kept {
    const void *k, *v;              // [N, dim]; int4: [N, dim / 2]
    const float* bias;              // [N] or null
    const int32_t *start, *length;  // first row of each KV head; rows in use, or null: up to the next start
    const void *k_scale, *v_scale;  // int8: float [G, dim], [N]; int4: pairs of bfloat16 (scale, low)
    const int32_t* first_group;
    int64_t group;  // rows that share the scales of a channel
    int32_t format;

    int64_t count(int64_t kv) const { return length ? length[kv] : start[kv + 1] - start[kv]; }
};

constexpr int kUnpacked = 32;  // rows that are unpacked at a time: 8 KiB at 64 channels

inline __m512 widen(const int8_t* p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p))); }
inline __m512 widen_bfloat(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
// The two halves of 32-bit words (scale, low).
inline __m512 scale_of(__m512i pair) { return _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)); }
inline __m512 low_of(__m512i pair) { return _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32(0xFFFF0000))); }

inline void unpack_plain(const void* rows, int32_t format, int64_t n, float* out) {
    for (int64_t i = 0; i < n; i += 16)
        _mm512_storeu_ps(out + i, format == kBfloat ? widen_bfloat((const uint16_t*)rows + i)
                                  : format == kHalf ? load((const uint16_t*)rows + i)
                                                    : load((const float*)rows + i));
}

// One int4 row: byte j holds channel j (low nibble) and channel j + dim / 2; pairs(c) are (scale, low) of channel c.
template <class Pairs>
inline void unpack_nibbles(const uint8_t* row, int64_t dim, Pairs pairs, float* out) {
    for (int64_t j = 0; j < dim / 2; j += 16) {
        const __m512i two = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(row + j)));
        const __m512 codes[2] = {_mm512_cvtepi32_ps(_mm512_and_si512(two, _mm512_set1_epi32(15))),
                                 _mm512_cvtepi32_ps(_mm512_srli_epi32(two, 4))};
        for (int half = 0; half < 2; ++half) {
            const int64_t c = j + half * dim / 2;
            const __m512i pair = pairs(c);
            _mm512_storeu_ps(out + c, _mm512_fmadd_ps(codes[half], scale_of(pair), low_of(pair)));
        }
    }
}

// Keys of rows at .. at + n of a KV head as float [n, dim].
inline void unpack_keys(const Kept& x, int64_t kv, int64_t at, int64_t n, int64_t dim, float* out) {
    const int64_t row = x.start[kv] + at;
    if (x.format < kInt8) return unpack_plain((const char*)x.k + row * dim * (x.format == kFloat ? 4 : 2), x.format, n * dim, out);
    for (int64_t t = 0; t < n; ++t) {
        const int64_t g = x.first_group[kv] + (at + t) / x.group;
        if (x.format == kInt8) {
            const int8_t* codes = (const int8_t*)x.k + (row + t) * dim;
            for (int64_t d = 0; d < dim; d += 16)
                _mm512_storeu_ps(out + t * dim + d, _mm512_mul_ps(widen(codes + d), load((const float*)x.k_scale + g * dim + d)));
        } else {
            const uint32_t* pairs = (const uint32_t*)x.k_scale + g * dim;
            unpack_nibbles((const uint8_t*)x.k + (row + t) * dim / 2, dim, [&](int64_t c) { return _mm512_loadu_si512(pairs + c); },
                           out + t * dim);
        }
    }
}

// The same of the values.
inline void unpack_values(const Kept& x, int64_t kv, int64_t at, int64_t n, int64_t dim, float* out) {
    const int64_t row = x.start[kv] + at;
    if (x.format < kInt8) return unpack_plain((const char*)x.v + row * dim * (x.format == kFloat ? 4 : 2), x.format, n * dim, out);
    for (int64_t t = 0; t < n; ++t) {
        if (x.format == kInt8) {
            const int8_t* codes = (const int8_t*)x.v + (row + t) * dim;
            const __m512 scale = _mm512_set1_ps(((const float*)x.v_scale)[row + t]);
            for (int64_t d = 0; d < dim; d += 16) _mm512_storeu_ps(out + t * dim + d, _mm512_mul_ps(widen(codes + d), scale));
        } else {
            const __m512i pair = _mm512_set1_epi32(((const int32_t*)x.v_scale)[row + t]);
            unpack_nibbles((const uint8_t*)x.v + (row + t) * dim / 2, dim, [&](int64_t) { return pair; }, out + t * dim);
        }
    }
}

// scores[h][t] = scale * q[h] . k[t] + bias[t].
template <int NV, class T>
inline void score_heads(const float* q, int heads, const T* k, int64_t count, int64_t dim, float scale, const float* bias,
                        float* scores, int64_t stride) {
    for (int64_t t = 0; t < count; ++t) {
        float sum[16] = {0};
        for (int64_t d = 0; d < dim; d += 16 * NV) {
            __m512 kv[NV];
            for (int i = 0; i < NV; ++i) kv[i] = load(k + t * dim + d + 16 * i);
            for (int h = 0; h < heads; ++h) {
                __m512 acc = _mm512_mul_ps(kv[0], _mm512_loadu_ps(q + h * dim + d));
                for (int i = 1; i < NV; ++i) acc = _mm512_fmadd_ps(kv[i], _mm512_loadu_ps(q + h * dim + d + 16 * i), acc);
                sum[h] += _mm512_reduce_add_ps(acc);
            }
        }
        for (int h = 0; h < heads; ++h) scores[h * stride + t] = bias ? std::fma(sum[h], scale, bias[t]) : sum[h] * scale;
    }
}

// Softmax weights in place, not yet divided by their sum, which is returned.
inline float softmax_row(float* s, int64_t count) {
    __m512 peak = _mm512_set1_ps(-INFINITY);
    for (int64_t t = 0; t < count; t += 16) {
        const __mmask16 m = count - t >= 16 ? 0xFFFF : (__mmask16)((1u << (count - t)) - 1);
        peak = _mm512_mask_max_ps(peak, m, peak, _mm512_maskz_loadu_ps(m, s + t));
    }
    const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(peak));
    __m512 sum = _mm512_setzero_ps();
    for (int64_t t = 0; t < count; t += 16) {
        const __mmask16 m = count - t >= 16 ? 0xFFFF : (__mmask16)((1u << (count - t)) - 1);
        const __m512 e = exp_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(m, s + t), top));
        sum = _mm512_mask_add_ps(sum, m, sum, e);
        _mm512_mask_storeu_ps(s + t, m, e);
    }
    return _mm512_reduce_add_ps(sum);
}

// out[h][d .. d + 16 NV) = (or += with add) inverse[h] * sum over t of weight[h][t] * v[t].
template <int NV, int H, class T>
inline void mix_some(const float* w, int64_t stride, const float* inverse, const T* v, int64_t count, int64_t dim, int64_t d,
                     bool add, float* out) {
    __m512 acc[H][NV];
    for (int h = 0; h < H; ++h)
        for (int i = 0; i < NV; ++i) acc[h][i] = _mm512_setzero_ps();
    for (int64_t t = 0; t < count; ++t) {
        __m512 vv[NV];
        for (int i = 0; i < NV; ++i) vv[i] = load(v + t * dim + d + 16 * i);
        for (int h = 0; h < H; ++h) {
            const __m512 p = _mm512_set1_ps(w[h * stride + t]);
            for (int i = 0; i < NV; ++i) acc[h][i] = _mm512_fmadd_ps(p, vv[i], acc[h][i]);
        }
    }
    for (int h = 0; h < H; ++h)
        for (int i = 0; i < NV; ++i) {
            float* to = out + h * dim + d + 16 * i;
            const __m512 r = _mm512_set1_ps(inverse[h]);  // one rounding in every instance, whatever the compiler contracts
            _mm512_storeu_ps(to, add ? _mm512_fmadd_ps(acc[h][i], r, _mm512_loadu_ps(to)) : _mm512_mul_ps(acc[h][i], r));
        }
}

// The same for all heads, four at a time, and all channels.
template <int NV, class T>
inline void mix_heads(const float* w, int heads, int64_t stride, const float* inverse, const T* v, int64_t count, int64_t dim,
                      bool add, float* out) {
    for (int64_t d = 0; d < dim; d += 16 * NV) {
        int h = 0;
        for (; h + 4 <= heads; h += 4)
            mix_some<NV, 4>(w + h * stride, stride, inverse + h, v, count, dim, d, add, out + h * dim);
        for (; h < heads; ++h)
            mix_some<NV, 1>(w + h * stride, stride, inverse + h, v, count, dim, d, add, out + h * dim);
    }
}

// The rows of one KV head in the cache that a token sees, oldest first.
struct Tail {
    const uint16_t *k, *v;  // [count, dim]
    int64_t count;
    const float* bias;  // [count] or null
};

template <int NV>
inline void attend_nv(const float* q, int heads, const Kept* kept, int64_t kv, const Tail& tail, int64_t dim, float scale,
                      float* scores, int64_t stride, float* block, float* out) {
    const int64_t n = kept ? kept->count(kv) : 0, row = kept ? kept->start[kv] : 0;
    const float* bias = kept && kept->bias ? kept->bias + row : nullptr;
    const bool half = kept && kept->format == kHalf;
    if (half) score_heads<NV>(q, heads, (const uint16_t*)kept->k + row * dim, n, dim, scale, bias, scores, stride);
    for (int64_t t = 0; !half && t < n; t += kUnpacked) {
        const int64_t rows = std::min<int64_t>(kUnpacked, n - t);
        unpack_keys(*kept, kv, t, rows, dim, block);
        score_heads<NV>(q, heads, block, rows, dim, scale, bias ? bias + t : nullptr, scores + t, stride);
    }
    score_heads<NV>(q, heads, tail.k, tail.count, dim, scale, tail.bias, scores + n, stride);
    float inverse[16];
    for (int h = 0; h < heads; ++h) inverse[h] = 1.0f / softmax_row(scores + h * stride, n + tail.count);
    mix_heads<NV>(scores + n, heads, stride, inverse, tail.v, tail.count, dim, false, out);
    if (half && n) mix_heads<NV>(scores, heads, stride, inverse, (const uint16_t*)kept->v + row * dim, n, dim, true, out);
    for (int64_t t = 0; !half && t < n; t += kUnpacked) {
        const int64_t rows = std::min<int64_t>(kUnpacked, n - t);
        unpack_values(*kept, kv, t, rows, dim, block);
        mix_heads<NV>(scores + t, heads, stride, inverse, block, rows, dim, true, out);
    }
}

// out[heads, dim] for at most 16 query heads that share KV head kv, over kept (or null) and the tail; dim a multiple of
// 16; scores [heads, stride], stride >= all rows; block [kUnpacked, dim] where kept is not float16.
inline void attend(const float* q, int heads, const Kept* kept, int64_t kv, const Tail& tail, int64_t dim, float scale,
                   float* scores, int64_t stride, float* block, float* out) {
    if (dim % 64 == 0) attend_nv<4>(q, heads, kept, kv, tail, dim, scale, scores, stride, block, out);
    else attend_nv<1>(q, heads, kept, kv, tail, dim, scale, scores, stride, block, out);
}

}  // namespace perdure
