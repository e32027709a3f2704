// All layers of a Llama-type decoder for a few tokens, in one parallel region. See README.md.
#include <omp.h>

#include <atomic>
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

// Waits for all threads: spins for about a tenth of a millisecond, then sleeps. On a busy machine a sleeping thread gives
// its core to the one that it waits for; OpenMP's barrier spins ten times as long and made a token ten times slower.
class Barrier {
   public:
    void begin(int threads) { threads_ = threads; }
    void wait() {
        const int phase = phase_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) == threads_ - 1) {
            arrived_.store(0, std::memory_order_relaxed);
            phase_.store(phase + 1, std::memory_order_release);
            phase_.notify_all();
            return;
        }
        for (int i = 0; i < 2000; ++i) {
            if (phase_.load(std::memory_order_acquire) != phase) return;
            _mm_pause();
        }
        phase_.wait(phase, std::memory_order_acquire);
    }

   private:
    int threads_ = 1;
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<int> phase_{0};
};

// Activations of all tokens for a matrix of some width.
struct Quantized {
    std::vector<int8_t> code;
    std::vector<float> scale;
    std::vector<int32_t> sum;
    Activations x[kMaxTokens];

    void prepare(int64_t tokens, int64_t cols) {
        code.resize(tokens * cols), scale.resize(tokens * cols / kGroup), sum.resize(tokens * cols / kGroup);
        for (int64_t m = 0; m < tokens; ++m)
            x[m] = {code.data() + m * cols, scale.data() + m * cols / kGroup, sum.data() + m * cols / kGroup};
    }
};

// Float rows of all tokens.
struct Floats {
    std::vector<float> data;
    float* row[kMaxTokens];

    void prepare(int64_t tokens, int64_t cols) {
        data.resize(tokens * cols);
        for (int64_t m = 0; m < tokens; ++m) row[m] = data.data() + m * cols;
    }
};

// What one thread keeps to itself. Inputs of the narrow matrices are rounded by every thread for itself: a microsecond
// of work instead of a barrier.
struct Private {
    Quantized x, attended;
    std::vector<float> scores, block;
};

// What the threads share.
struct Work {
    int64_t position, base;  // row of the first token in the cache; rotary position of row 0
    Floats q, k, v, attended, gate, up;
    Quantized inner;
    float* h[kMaxTokens];
    Barrier barrier;

    Work(const Shape& s, float* hidden, int64_t tokens, int64_t position, int64_t base) : position(position), base(base) {
        q.prepare(tokens, s.heads * s.dim), k.prepare(tokens, s.kv_heads * s.dim), v.prepare(tokens, s.kv_heads * s.dim);
        attended.prepare(tokens, s.heads * s.dim), gate.prepare(tokens, s.ffn), up.prepare(tokens, s.ffn);
        inner.prepare(tokens, s.ffn);
        for (int64_t m = 0; m < tokens; ++m) h[m] = hidden + m * s.hidden;
    }
};

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

// Rotate q and k of one (token, KV head) and store k and v at their place in the cache; queries: where who looks on
// wants this layer's q, or null.
void place(const Shape& s, const Layer& layer, Work& w, int64_t m, int64_t kv, float* queries) {
    const int64_t at = w.position + m, angle = w.base + at;
    const int64_t half = s.dim / 2, per = s.heads / s.kv_heads, row = (kv * s.capacity + at) * s.dim;
    const float *cosine = s.cosine + angle * half, *sine = s.sine + angle * half;
    for (int64_t h = kv * per; h < (kv + 1) * per; ++h) rotate(w.q.row[m] + h * s.dim, cosine, sine, half);
    rotate(w.k.row[m] + kv * s.dim, cosine, sine, half);
    store_half(w.k.row[m] + kv * s.dim, layer.keys + row, s.dim);
    store_half(w.v.row[m] + kv * s.dim, layer.values + row, s.dim);
    if (queries) {
        const float* q = w.q.row[m] + kv * per * s.dim;
        std::copy(q, q + per * s.dim, queries + (m * s.heads + kv * per) * s.dim);
    }
}

void swiglu_group(Work& w, int64_t m, int64_t g) {
    alignas(64) float out[kGroup];
    for (int i = 0; i < kGroup; i += 16) {
        const __m512 x = _mm512_loadu_ps(w.gate.row[m] + g * kGroup + i), u = _mm512_loadu_ps(w.up.row[m] + g * kGroup + i);
        // silu through exp(-|x|), which never overflows
        const __m512 e = exp_ps(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(x))), one = _mm512_set1_ps(1.0f);
        const __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
        const __m512 sigmoid = _mm512_div_ps(_mm512_mask_mov_ps(one, negative, e), _mm512_add_ps(one, e));
        _mm512_store_ps(out + i, _mm512_mul_ps(_mm512_mul_ps(x, sigmoid), u));
    }
    const Activations& x = w.inner.x[m];
    quantize_group(out, {x.q + g * kGroup, x.scale + g, x.sum + g}, 0);
}

// One token and some query heads of one KV head.
void attend_part(const Shape& s, const Layer& layer, const Kept* kept, Work& w, Private& own, int64_t m, int64_t kv,
                 int64_t from, int64_t to) {
    const int64_t head = kv * (s.heads / s.kv_heads) + from;
    const int64_t last = w.position + m + 1, first = s.window ? std::max<int64_t>(0, last - s.window) : 0;
    const int64_t row = kv * s.capacity + first, stride = last - first + (kept ? kept->count(kv) : 0);
    own.scores.resize((to - from) * stride);
    const Tail tail = {layer.keys + row * s.dim, layer.values + row * s.dim, last - first,
                       layer.key_bias ? layer.key_bias + row : nullptr};
    attend(w.q.row[m] + head * s.dim, (int)(to - from), kept, kv, tail, s.dim, s.scale, own.scores.data(), stride,
           own.block.data(), w.attended.row[m] + head * s.dim);
}

// Rotate, store and attend. With no more threads than KV heads a thread does all of its heads and waits for nobody;
// otherwise the query heads of a KV head are split once its keys are in place.
void attend_all(const Shape& s, const Layer& layer, const Kept* kept, float* queries, Work& w, Private& own,
                int64_t tokens, int tid, int threads) {
    const int64_t per = s.heads / s.kv_heads;
    const bool alone = threads <= s.kv_heads;
    for (int64_t kv = tid; kv < s.kv_heads; kv += threads)
        for (int64_t m = 0; m < tokens; ++m) place(s, layer, w, m, kv, queries);
    if (!alone) w.barrier.wait();
    const int64_t parts = alone ? (per + 15) / 16
                                : std::min(per, std::max((per + 15) / 16, (threads + s.kv_heads - 1) / s.kv_heads));
    if (alone) {
        for (int64_t kv = tid; kv < s.kv_heads; kv += threads)
            for (int64_t i = 0; i < tokens * parts; ++i)
                attend_part(s, layer, kept, w, own, i / parts, kv, per * (i % parts) / parts, per * (i % parts + 1) / parts);
        return;
    }
    for (int64_t i = tid; i < tokens * s.kv_heads * parts; i += threads) {
        const int64_t part = i % parts, kv = i / parts % s.kv_heads, m = i / parts / s.kv_heads;
        attend_part(s, layer, kept, w, own, m, kv, per * part / parts, per * (part + 1) / parts);
    }
}

void run_layer(const Shape& s, const Layer& layer, const Kept* kept, float* queries, Work& w, Private& own,
               int64_t tokens, int tid, int threads) {
    const int64_t attended = s.heads * s.dim;
    auto mine = [&](const Matrix& matrix) { return rows_of(matrix.rows, tid, threads); };
    for (int64_t m = 0; m < tokens; ++m) norm_quantize(w.h[m], layer.norm_in, s.hidden, s.eps, own.x.x[m]);
    share(layer.q, own.x.x, w.q.row, tokens, layer.bias_q, false, mine(layer.q));
    share(layer.k, own.x.x, w.k.row, tokens, layer.bias_k, false, mine(layer.k));
    share(layer.v, own.x.x, w.v.row, tokens, layer.bias_v, false, mine(layer.v));
    w.barrier.wait();
    attend_all(s, layer, kept, queries, w, own, tokens, tid, threads);
    w.barrier.wait();
    for (int64_t m = 0; m < tokens; ++m)
        for (int64_t g = 0; g < attended / kGroup; ++g) quantize_group(w.attended.row[m], own.attended.x[m], g);
    share(layer.o, own.attended.x, w.h, tokens, nullptr, true, mine(layer.o));
    w.barrier.wait();
    for (int64_t m = 0; m < tokens; ++m) norm_quantize(w.h[m], layer.norm_ffn, s.hidden, s.eps, own.x.x[m]);
    share(layer.gate, own.x.x, w.gate.row, tokens, nullptr, false, mine(layer.gate));
    share(layer.up, own.x.x, w.up.row, tokens, nullptr, false, mine(layer.up));
    const Rows inner = mine(layer.gate);
    for (int64_t m = 0; m < tokens; ++m)
        for (int64_t g = inner.first / kGroup; g < inner.last / kGroup; ++g) swiglu_group(w, m, g);
    w.barrier.wait();
    share(layer.down, w.inner.x, w.h, tokens, nullptr, true, mine(layer.down));
    w.barrier.wait();
}

}  // namespace

extern "C" {

int64_t perdure_max_tokens() { return kMaxTokens; }
int64_t perdure_layer_bytes() { return sizeof(Layer); }
int64_t perdure_shape_bytes() { return sizeof(Shape); }
int64_t perdure_kept_bytes() { return sizeof(Kept); }

// h[tokens, hidden] in and out; the tokens go into rows position, position + 1, ... of the cache, whose row 0 stands at
// rotary position base; kept: [count], keys that every token sees before those of the cache, or null; queries:
// [count, tokens, heads, dim], filled with the rotated queries, or null.
void perdure_decoder_layers(const Shape* s, const Layer* layers, int64_t count, float* h, int64_t tokens,
                            int64_t position, int64_t base, const Kept* kept, float* queries) {
    Work work(*s, h, tokens, position, base);
#pragma omp parallel
    {
#pragma omp single
        work.barrier.begin(omp_get_num_threads());
        Private own;
        own.x.prepare(tokens, s->hidden);
        own.attended.prepare(tokens, s->heads * s->dim);
        own.block.resize(kUnpacked * s->dim);
        for (int64_t i = 0; i < count; ++i)
            run_layer(*s, layers[i], kept ? kept + i : nullptr,
                      queries ? queries + i * tokens * s->heads * s->dim : nullptr, work, own, tokens,
                      omp_get_thread_num(), omp_get_num_threads());
    }
}

}  // extern "C"
