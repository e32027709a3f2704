// All layers of a Llama-type decoder for a few tokens, in one parallel region. See README.md.
#include <omp.h>

#include <vector>

#include "attention/native.h"
#include "quantized_matmul/native.h"

using namespace perdure;

namespace {

constexpr int kMaxTokens = 64;

struct Shape {
    int64_t hidden, heads, kv_heads, dim, ffn, capacity, window;  // window 0: none
    float eps, scale;
    const float *cosine, *sine;  // [capacity, dim / 2]
};

struct Layer {
    Matrix q, k, v, o, gate, up, down;
    const float *norm_in, *norm_ffn, *bias_q, *bias_k, *bias_v;  // biases may be null
    const float* key_bias;                                       // [kv_heads, capacity] or null
    uint16_t *keys, *values;                                     // [kv_heads, capacity, dim], float16
};

// Buffers of one call, shared by the threads.
struct Work {
    std::vector<float> q, k, v, attended, gate, up, scale;
    std::vector<int8_t> code;
    std::vector<int32_t> sum;
    std::vector<std::vector<float>> scores;
    Activations x[kMaxTokens];
    float *rows_q[kMaxTokens], *rows_k[kMaxTokens], *rows_v[kMaxTokens], *rows_gate[kMaxTokens], *rows_up[kMaxTokens],
        *rows_h[kMaxTokens];
};

void prepare(Work& w, const Shape& s, float* h, int64_t tokens, int threads) {
    const int64_t heads = s.heads * s.dim, kv = s.kv_heads * s.dim;
    const int64_t widest = std::max(std::max(s.ffn, s.hidden), heads);
    w.q.resize(tokens * heads), w.k.resize(tokens * kv), w.v.resize(tokens * kv), w.attended.resize(tokens * heads);
    w.gate.resize(tokens * s.ffn), w.up.resize(tokens * s.ffn);
    w.code.resize(tokens * widest), w.scale.resize(tokens * widest / kGroup), w.sum.resize(tokens * widest / kGroup);
    w.scores.resize(threads);
    for (int64_t m = 0; m < tokens; ++m) {
        w.x[m] = {w.code.data() + m * widest, w.scale.data() + m * widest / kGroup, w.sum.data() + m * widest / kGroup};
        w.rows_q[m] = w.q.data() + m * heads, w.rows_k[m] = w.k.data() + m * kv, w.rows_v[m] = w.v.data() + m * kv;
        w.rows_gate[m] = w.gate.data() + m * s.ffn, w.rows_up[m] = w.up.data() + m * s.ffn;
        w.rows_h[m] = h + m * s.hidden;
    }
}

// Quantised activations of x / rms(x) * weight.
void norm_quantize(const float* x, const float* weight, int64_t n, float eps, const Activations& out) {
    __m512 square = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 16) {
        const __m512 v = _mm512_loadu_ps(x + i);
        square = _mm512_fmadd_ps(v, v, square);
    }
    const __m512 r = _mm512_set1_ps(1.0f / std::sqrt(_mm512_reduce_add_ps(square) / (float)n + eps));
    alignas(64) float group[kGroup];
    for (int64_t g = 0; g < n / kGroup; ++g) {
        for (int i = 0; i < kGroup; i += 16) {
            const int64_t at = g * kGroup + i;
            _mm512_store_ps(group + i, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(x + at), r), _mm512_loadu_ps(weight + at)));
        }
        quantize_group(group, {out.q + g * kGroup, out.scale + g, out.sum + g}, 0);
    }
}

// Rotate the two halves of a head by the angle of its position.
inline void rotate(float* x, const float* cosine, const float* sine, int64_t half) {
    for (int64_t i = 0; i < half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a * cosine[i] - b * sine[i];
        x[i + half] = b * cosine[i] + a * sine[i];
    }
}

inline void store_half(const float* x, uint16_t* out, int64_t n) {
    for (int64_t i = 0; i < n; i += 16)
        _mm256_storeu_si256((__m256i*)(out + i),
                            _mm512_cvtps_ph(_mm512_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// Rotate q and k of one (token, KV head) and store k and v at their place in the cache.
void place(const Shape& s, const Layer& layer, Work& w, int64_t m, int64_t kv, int64_t position) {
    const int64_t half = s.dim / 2, per = s.heads / s.kv_heads, row = (kv * s.capacity + position) * s.dim;
    const float *cosine = s.cosine + position * half, *sine = s.sine + position * half;
    for (int64_t h = kv * per; h < (kv + 1) * per; ++h) rotate(w.rows_q[m] + h * s.dim, cosine, sine, half);
    rotate(w.rows_k[m] + kv * s.dim, cosine, sine, half);
    store_half(w.rows_k[m] + kv * s.dim, layer.keys + row, s.dim);
    store_half(w.rows_v[m] + kv * s.dim, layer.values + row, s.dim);
}

void swiglu_group(Work& w, int64_t m, int64_t g) {
    alignas(64) float out[kGroup];
    for (int i = 0; i < kGroup; i += 16) {
        const __m512 x = _mm512_loadu_ps(w.rows_gate[m] + g * kGroup + i), u = _mm512_loadu_ps(w.rows_up[m] + g * kGroup + i);
        // silu through exp(-|x|), which never overflows
        const __m512 e = exp_ps(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(x))), one = _mm512_set1_ps(1.0f);
        const __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
        const __m512 sigmoid = _mm512_div_ps(_mm512_mask_mov_ps(one, negative, e), _mm512_add_ps(one, e));
        _mm512_store_ps(out + i, _mm512_mul_ps(_mm512_mul_ps(x, sigmoid), u));
    }
    quantize_group(out, {w.x[m].q + g * kGroup, w.x[m].scale + g, w.x[m].sum + g}, 0);
}

void attend_all(const Shape& s, const Layer& layer, Work& w, int64_t tokens, int64_t position, int tid, int threads) {
    const int64_t per = s.heads / s.kv_heads;
    // Query heads of a KV head are split further when there are more threads than KV heads.
    const int64_t parts = std::min<int64_t>(per, std::max<int64_t>((per + 15) / 16, (threads + s.kv_heads - 1) / s.kv_heads));
    const int64_t items = tokens * s.kv_heads * parts;
    for (int64_t i = items * tid / threads; i < items * (tid + 1) / threads; ++i) {
        const int64_t m = i % tokens, kv = i / tokens / parts, part = i / tokens % parts;
        const int64_t from = per * part / parts, to = per * (part + 1) / parts, head = kv * per + from;
        const int64_t last = position + m + 1, first = s.window ? std::max<int64_t>(0, last - s.window) : 0;
        const uint16_t *k = layer.keys + kv * s.capacity * s.dim, *v = layer.values + kv * s.capacity * s.dim;
        w.scores[tid].resize((to - from) * last);
        attend(w.rows_q[m] + head * s.dim, (int)(to - from), k, v, first, last, s.dim, s.scale,
               layer.key_bias ? layer.key_bias + kv * s.capacity : nullptr, w.scores[tid].data(), last,
               w.attended.data() + m * s.heads * s.dim + head * s.dim);
    }
}

void run_layer(const Shape& s, const Layer& layer, Work& w, int64_t tokens, int64_t position, int tid, int threads) {
    const int64_t attended = s.heads * s.dim;
    for (int64_t m = tid; m < tokens; m += threads) norm_quantize(w.rows_h[m], layer.norm_in, s.hidden, s.eps, w.x[m]);
#pragma omp barrier
    share(layer.q, w.x, w.rows_q, tokens, layer.bias_q, false, tid, threads);
    share(layer.k, w.x, w.rows_k, tokens, layer.bias_k, false, tid, threads);
    share(layer.v, w.x, w.rows_v, tokens, layer.bias_v, false, tid, threads);
#pragma omp barrier
    for (int64_t i = tid; i < tokens * s.kv_heads; i += threads)
        place(s, layer, w, i / s.kv_heads, i % s.kv_heads, position + i / s.kv_heads);
#pragma omp barrier
    attend_all(s, layer, w, tokens, position, tid, threads);
#pragma omp barrier
    for (int64_t i = tid; i < tokens * attended / kGroup; i += threads) {
        const int64_t m = i / (attended / kGroup);
        quantize_group(w.attended.data() + m * attended, w.x[m], i % (attended / kGroup));
    }
#pragma omp barrier
    share(layer.o, w.x, w.rows_h, tokens, nullptr, true, tid, threads);
#pragma omp barrier
    for (int64_t m = tid; m < tokens; m += threads) norm_quantize(w.rows_h[m], layer.norm_ffn, s.hidden, s.eps, w.x[m]);
#pragma omp barrier
    share(layer.gate, w.x, w.rows_gate, tokens, nullptr, false, tid, threads);
    share(layer.up, w.x, w.rows_up, tokens, nullptr, false, tid, threads);
#pragma omp barrier
    for (int64_t i = tid; i < tokens * s.ffn / kGroup; i += threads) swiglu_group(w, i / (s.ffn / kGroup), i % (s.ffn / kGroup));
#pragma omp barrier
    share(layer.down, w.x, w.rows_h, tokens, nullptr, true, tid, threads);
#pragma omp barrier
}

}  // namespace

extern "C" {

int64_t perdure_max_tokens() { return kMaxTokens; }
int64_t perdure_layer_bytes() { return sizeof(Layer); }
int64_t perdure_shape_bytes() { return sizeof(Shape); }

// h[tokens, hidden] in and out; the tokens are at positions position, position + 1, ...
void perdure_decoder_layers(const Shape* s, const Layer* layers, int64_t count, float* h, int64_t tokens,
                            int64_t position) {
    Work work;
    prepare(work, *s, h, tokens, omp_get_max_threads());
#pragma omp parallel
    for (int64_t i = 0; i < count; ++i)
        run_layer(*s, layers[i], work, tokens, position, omp_get_thread_num(), omp_get_num_threads());
}

}  // extern "C"
