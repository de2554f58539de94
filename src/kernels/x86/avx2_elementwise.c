/* Norms, activation functions, rotations and the other operations on rows, eight elements at a time.
 *
 * Owns: nothing; equals generic/elementwise.c and generic/rope.c bit for bit.
 * Invariants:
 *   1. What is left after the last whole vector goes through the scalar definition.
 *   2. `out` may be an input: a vector is read before it is written.
 * Threads: pure functions; any thread. */
#include <immintrin.h>
#include <string.h>

#include "kernels/generic/math.h"
#include "kernels/generic/rope.h"
#include "kernels/generic/sums.h"
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_math.h"

void sl_avx2_rms_norm(const float *x, const float *weight, uint32_t n, float epsilon, float *out)
{
    __m256 low = _mm256_setzero_ps();
    __m256 high = _mm256_setzero_ps();
    uint32_t i = 0;
    for (; n - i >= SL_PARTIAL_SUMS; i += SL_PARTIAL_SUMS) {
        __m256 x_low = _mm256_loadu_ps(x + i);
        __m256 x_high = _mm256_loadu_ps(x + i + 8);
        low = _mm256_fmadd_ps(x_low, x_low, low);
        high = _mm256_fmadd_ps(x_high, x_high, high);
    }
    float partial[SL_PARTIAL_SUMS];
    _mm256_storeu_ps(partial, low);
    _mm256_storeu_ps(partial + 8, high);
    for (; i < n; i++) {
        partial[i % SL_PARTIAL_SUMS] = fmaf(x[i], x[i], partial[i % SL_PARTIAL_SUMS]);
    }
    float mean_square = sl_sum_tree(partial) / (float)n;
    float scale = 1.0f / sqrtf(mean_square + epsilon);
    __m256 scale8 = _mm256_set1_ps(scale);
    for (i = 0; n - i >= 8; i += 8) {
        __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(x + i), scale8);
        if (weight != NULL) {
            scaled = _mm256_mul_ps(scaled, _mm256_loadu_ps(weight + i));
        }
        _mm256_storeu_ps(out + i, scaled);
    }
    for (; i < n; i++) {
        float scaled = x[i] * scale;
        out[i] = weight == NULL ? scaled : scaled * weight[i];
    }
}

void sl_avx2_add(const float *a, const float *b, uint32_t n, float *out)
{
    uint32_t i = 0;
    for (; n - i >= 8; i += 8) {
        _mm256_storeu_ps(out + i, _mm256_add_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i)));
    }
    for (; i < n; i++) {
        out[i] = a[i] + b[i];
    }
}

void sl_avx2_multiply(const float *a, const float *b, uint32_t n, float *out)
{
    uint32_t i = 0;
    for (; n - i >= 8; i += 8) {
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i)));
    }
    for (; i < n; i++) {
        out[i] = a[i] * b[i];
    }
}

void sl_avx2_swiglu(const float *gate, const float *up, uint32_t n, float *out)
{
    uint32_t i = 0;
    for (; n - i >= 8; i += 8) {
        __m256 silu = sl_avx2_silu8(_mm256_loadu_ps(gate + i));
        _mm256_storeu_ps(out + i, _mm256_mul_ps(silu, _mm256_loadu_ps(up + i)));
    }
    for (; i < n; i++) {
        out[i] = sl_silu(gate[i]) * up[i];
    }
}

void sl_avx2_silu(const float *x, uint32_t n, float *out)
{
    uint32_t i = 0;
    for (; n - i >= 8; i += 8) {
        _mm256_storeu_ps(out + i, sl_avx2_silu8(_mm256_loadu_ps(x + i)));
    }
    for (; i < n; i++) {
        out[i] = sl_silu(x[i]);
    }
}

void sl_avx2_gelu(const float *x, uint32_t n, float *out)
{
    uint32_t i = 0;
    for (; n - i >= 8; i += 8) {
        _mm256_storeu_ps(out + i, sl_avx2_gelu8(_mm256_loadu_ps(x + i)));
    }
    for (; i < n; i++) {
        out[i] = sl_gelu(x[i]);
    }
}

void sl_avx2_clamp(const float *x, uint32_t n, float limit, float *out)
{
    uint32_t i = 0;
    for (; n - i >= 8; i += 8) {
        /* Both give their second operand when the values are equal or either is NaN, as the definition does. */
        __m256 value = _mm256_max_ps(_mm256_set1_ps(-limit), _mm256_loadu_ps(x + i));
        _mm256_storeu_ps(out + i, _mm256_min_ps(_mm256_set1_ps(limit), value));
    }
    for (; i < n; i++) {
        float value = x[i] < -limit ? -limit : x[i];
        out[i] = value > limit ? limit : value;
    }
}

void sl_avx2_sigmoid_scale(const float *x, float gate, uint32_t n, float *out)
{
    float scale = sl_sigmoid(gate);
    uint32_t i = 0;
    for (; n - i >= 8; i += 8) {
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_loadu_ps(x + i)));
    }
    for (; i < n; i++) {
        out[i] = scale * x[i];
    }
}

void sl_avx2_accumulate(const float *x, float weight, bool first, uint32_t n, float *out)
{
    __m256 weight8 = _mm256_set1_ps(weight);
    uint32_t i = 0;
    if (first) {
        for (; n - i >= 8; i += 8) {
            _mm256_storeu_ps(out + i, _mm256_mul_ps(weight8, _mm256_loadu_ps(x + i)));
        }
    } else {
        for (; n - i >= 8; i += 8) {
            _mm256_storeu_ps(out + i, _mm256_fmadd_ps(weight8, _mm256_loadu_ps(x + i), _mm256_loadu_ps(out + i)));
        }
    }
    for (; i < n; i++) {
        out[i] = first ? weight * x[i] : fmaf(weight, x[i], out[i]);
    }
}

void sl_avx2_softmax(float *x, uint32_t n)
{
    __m256 maximum8 = _mm256_set1_ps(-INFINITY);
    uint32_t i = 0;
    for (; n - i >= 8; i += 8) {
        maximum8 = _mm256_max_ps(maximum8, _mm256_loadu_ps(x + i));
    }
    float lanes[8];
    _mm256_storeu_ps(lanes, maximum8);
    float maximum = -INFINITY;
    for (int lane = 0; lane < 8; lane++) {
        maximum = lanes[lane] > maximum ? lanes[lane] : maximum;
    }
    for (; i < n; i++) {
        maximum = x[i] > maximum ? x[i] : maximum;
    }

    __m256 low = _mm256_setzero_ps();
    __m256 high = _mm256_setzero_ps();
    __m256 shift = _mm256_set1_ps(maximum);
    for (i = 0; n - i >= SL_PARTIAL_SUMS; i += SL_PARTIAL_SUMS) {
        __m256 p_low = sl_avx2_exp(_mm256_sub_ps(_mm256_loadu_ps(x + i), shift));
        __m256 p_high = sl_avx2_exp(_mm256_sub_ps(_mm256_loadu_ps(x + i + 8), shift));
        low = _mm256_add_ps(low, p_low);
        high = _mm256_add_ps(high, p_high);
        _mm256_storeu_ps(x + i, p_low);
        _mm256_storeu_ps(x + i + 8, p_high);
    }
    float partial[SL_PARTIAL_SUMS];
    _mm256_storeu_ps(partial, low);
    _mm256_storeu_ps(partial + 8, high);
    for (; i < n; i++) {
        x[i] = sl_exp(x[i] - maximum);
        partial[i % SL_PARTIAL_SUMS] += x[i];
    }
    float sum = sl_sum_tree(partial);
    __m256 sum8 = _mm256_set1_ps(sum);
    for (i = 0; n - i >= 8; i += 8) {
        _mm256_storeu_ps(x + i, _mm256_div_ps(_mm256_loadu_ps(x + i), sum8));
    }
    for (; i < n; i++) {
        x[i] /= sum;
    }
}

void sl_avx2_rope_table(const sl_rope_config *config, uint32_t position, float *table)
{
    sl_fill_rope_table(config, position, table);
}

static void rotate_pair(float *first, float *second, float cosine, float sine)
{
    float a = *first;
    float b = *second;
    *first = fmaf(a, cosine, -(b * sine));
    *second = fmaf(b, cosine, a * sine);
}

/* Pairs (2 i, 2 i + 1): lanes a and b alternate, as cos and sin do in the table. */
static void rotate_adjacent(float *row, uint32_t n_pairs, const float *table)
{
    uint32_t i = 0;
    for (; n_pairs - i >= 4; i += 4) {
        __m256 x = _mm256_loadu_ps(row + 2 * i);
        __m256 angles = _mm256_loadu_ps(table + 2 * i);
        __m256 swapped = _mm256_permute_ps(x, 0xb1);
        __m256 crossed = _mm256_mul_ps(swapped, _mm256_movehdup_ps(angles));
        _mm256_storeu_ps(row + 2 * i, _mm256_fmaddsub_ps(x, _mm256_moveldup_ps(angles), crossed));
    }
    for (; i < n_pairs; i++) {
        rotate_pair(&row[2 * i], &row[2 * i + 1], table[2 * i], table[2 * i + 1]);
    }
}

/* Pairs (i, i + n_pairs). */
static void rotate_halves(float *row, uint32_t n_pairs, const float *table)
{
    uint32_t i = 0;
    for (; n_pairs - i >= 8; i += 8) {
        __m256 first = _mm256_loadu_ps(table + 2 * i);
        __m256 second = _mm256_loadu_ps(table + 2 * i + 8);
        /* Within each 128-bit lane: cosines of two pairs of `first`, then of `second`; put in order by the permutation.
         */
        __m256d cosines = _mm256_castps_pd(_mm256_shuffle_ps(first, second, 0x88));
        __m256d sines = _mm256_castps_pd(_mm256_shuffle_ps(first, second, 0xdd));
        __m256 cosine = _mm256_castpd_ps(_mm256_permute4x64_pd(cosines, 0xd8));
        __m256 sine = _mm256_castpd_ps(_mm256_permute4x64_pd(sines, 0xd8));
        __m256 a = _mm256_loadu_ps(row + i);
        __m256 b = _mm256_loadu_ps(row + n_pairs + i);
        _mm256_storeu_ps(row + i, _mm256_fmsub_ps(a, cosine, _mm256_mul_ps(b, sine)));
        _mm256_storeu_ps(row + n_pairs + i, _mm256_fmadd_ps(b, cosine, _mm256_mul_ps(a, sine)));
    }
    for (; i < n_pairs; i++) {
        rotate_pair(&row[i], &row[i + n_pairs], table[2 * i], table[2 * i + 1]);
    }
}

void sl_avx2_rope(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, sl_rope_pairing pairing,
                  const float *table)
{
    for (uint32_t head = 0; head < n_heads; head++) {
        float *row = x + (size_t)head * head_dim;
        if (pairing == SL_ROPE_NORM) {
            rotate_adjacent(row, n_rot / 2, table);
        } else {
            rotate_halves(row, n_rot / 2, table);
        }
    }
}
