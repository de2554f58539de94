/* Norms, activation functions, rotations and the other operations on rows, four elements at a time.
 *
 * Owns: nothing; equals generic/elementwise.c and generic/rope.c bit for bit.
 * Invariants:
 *   1. What is left after the last whole vector goes through the scalar definition.
 *   2. `out` may be an input: a vector is read before it is written.
 * Threads: pure functions; any thread. */
#include "kernels/arm/neon.h"
#include "kernels/arm/neon_math.h"
#include "kernels/generic/sums.h"

static void store_partials(const float32x4_t sums[SL_NEON_VECTORS], float partial[SL_PARTIAL_SUMS])
{
    for (int v = 0; v < SL_NEON_VECTORS; v++) {
        vst1q_f32(partial + 4 * v, sums[v]);
    }
}

static float sum_of_squares(const float *x, uint32_t n)
{
    float32x4_t sums[SL_NEON_VECTORS] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    uint32_t i = 0;
    for (; n - i >= SL_PARTIAL_SUMS; i += SL_PARTIAL_SUMS) {
        for (int v = 0; v < SL_NEON_VECTORS; v++) {
            float32x4_t x4 = vld1q_f32(x + i + 4 * v);
            sums[v] = vfmaq_f32(sums[v], x4, x4);
        }
    }
    float partial[SL_PARTIAL_SUMS];
    store_partials(sums, partial);
    for (; i < n; i++) {
        partial[i % SL_PARTIAL_SUMS] = fmaf(x[i], x[i], partial[i % SL_PARTIAL_SUMS]);
    }
    return sl_sum_tree(partial);
}

void sl_neon_rms_norm(const float *x, const float *weight, uint32_t n, float epsilon, float *out)
{
    float mean_square = sum_of_squares(x, n) / (float)n;
    float scale = 1.0f / sqrtf(mean_square + epsilon);
    uint32_t i = 0;
    for (; n - i >= 4; i += 4) {
        float32x4_t scaled = vmulq_n_f32(vld1q_f32(x + i), scale);
        if (weight != NULL) {
            scaled = vmulq_f32(scaled, vld1q_f32(weight + i));
        }
        vst1q_f32(out + i, scaled);
    }
    for (; i < n; i++) {
        float scaled = x[i] * scale;
        out[i] = weight == NULL ? scaled : scaled * weight[i];
    }
}

void sl_neon_add(const float *a, const float *b, uint32_t n, float *out)
{
    uint32_t i = 0;
    for (; n - i >= 4; i += 4) {
        vst1q_f32(out + i, vaddq_f32(vld1q_f32(a + i), vld1q_f32(b + i)));
    }
    for (; i < n; i++) {
        out[i] = a[i] + b[i];
    }
}

void sl_neon_multiply(const float *a, const float *b, uint32_t n, float *out)
{
    uint32_t i = 0;
    for (; n - i >= 4; i += 4) {
        vst1q_f32(out + i, vmulq_f32(vld1q_f32(a + i), vld1q_f32(b + i)));
    }
    for (; i < n; i++) {
        out[i] = a[i] * b[i];
    }
}

void sl_neon_swiglu(const float *gate, const float *up, uint32_t n, float *out)
{
    uint32_t i = 0;
    for (; n - i >= 4; i += 4) {
        vst1q_f32(out + i, vmulq_f32(sl_neon_silu4(vld1q_f32(gate + i)), vld1q_f32(up + i)));
    }
    for (; i < n; i++) {
        out[i] = sl_silu(gate[i]) * up[i];
    }
}

void sl_neon_silu(const float *x, uint32_t n, float *out)
{
    uint32_t i = 0;
    for (; n - i >= 4; i += 4) {
        vst1q_f32(out + i, sl_neon_silu4(vld1q_f32(x + i)));
    }
    for (; i < n; i++) {
        out[i] = sl_silu(x[i]);
    }
}

void sl_neon_gelu(const float *x, uint32_t n, float *out)
{
    uint32_t i = 0;
    for (; n - i >= 4; i += 4) {
        vst1q_f32(out + i, sl_neon_gelu4(vld1q_f32(x + i)));
    }
    for (; i < n; i++) {
        out[i] = sl_gelu(x[i]);
    }
}

/* By comparisons, as the definition has it: the instructions for minimum and maximum differ at zeros. */
void sl_neon_clamp(const float *x, uint32_t n, float limit, float *out)
{
    float32x4_t lowest = vdupq_n_f32(-limit);
    float32x4_t highest = vdupq_n_f32(limit);
    uint32_t i = 0;
    for (; n - i >= 4; i += 4) {
        float32x4_t value = vld1q_f32(x + i);
        value = vbslq_f32(vcltq_f32(value, lowest), lowest, value);
        value = vbslq_f32(vcgtq_f32(value, highest), highest, value);
        vst1q_f32(out + i, value);
    }
    for (; i < n; i++) {
        float value = x[i] < -limit ? -limit : x[i];
        out[i] = value > limit ? limit : value;
    }
}

void sl_neon_sigmoid_scale(const float *x, float gate, uint32_t n, float *out)
{
    float scale = sl_sigmoid(gate);
    uint32_t i = 0;
    for (; n - i >= 4; i += 4) {
        vst1q_f32(out + i, vmulq_n_f32(vld1q_f32(x + i), scale));
    }
    for (; i < n; i++) {
        out[i] = scale * x[i];
    }
}

void sl_neon_accumulate(const float *x, float weight, bool first, uint32_t n, float *out)
{
    uint32_t i = 0;
    if (first) {
        for (; n - i >= 4; i += 4) {
            vst1q_f32(out + i, vmulq_n_f32(vld1q_f32(x + i), weight));
        }
    } else {
        for (; n - i >= 4; i += 4) {
            vst1q_f32(out + i, vfmaq_f32(vld1q_f32(out + i), vdupq_n_f32(weight), vld1q_f32(x + i)));
        }
    }
    for (; i < n; i++) {
        out[i] = first ? weight * x[i] : fmaf(weight, x[i], out[i]);
    }
}

static float maximum_of(const float *x, uint32_t n)
{
    float32x4_t maximum4 = vdupq_n_f32(-INFINITY);
    uint32_t i = 0;
    for (; n - i >= 4; i += 4) {
        maximum4 = sl_neon_greater(vld1q_f32(x + i), maximum4);
    }
    float maximum = vmaxvq_f32(maximum4); /* no lane is NaN */
    for (; i < n; i++) {
        maximum = x[i] > maximum ? x[i] : maximum;
    }
    return maximum;
}

void sl_neon_softmax(float *x, uint32_t n)
{
    float maximum = maximum_of(x, n);
    float32x4_t sums[SL_NEON_VECTORS] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    uint32_t i = 0;
    for (; n - i >= SL_PARTIAL_SUMS; i += SL_PARTIAL_SUMS) {
        for (int v = 0; v < SL_NEON_VECTORS; v++) {
            float32x4_t p = sl_neon_exp(vsubq_f32(vld1q_f32(x + i + 4 * v), vdupq_n_f32(maximum)));
            sums[v] = vaddq_f32(sums[v], p);
            vst1q_f32(x + i + 4 * v, p);
        }
    }
    float partial[SL_PARTIAL_SUMS];
    store_partials(sums, partial);
    for (; i < n; i++) {
        x[i] = sl_exp(x[i] - maximum);
        partial[i % SL_PARTIAL_SUMS] += x[i];
    }
    float sum = sl_sum_tree(partial);
    for (i = 0; n - i >= 4; i += 4) {
        vst1q_f32(x + i, vdivq_f32(vld1q_f32(x + i), vdupq_n_f32(sum)));
    }
    for (; i < n; i++) {
        x[i] /= sum;
    }
}

SL_ALWAYS_INLINE void rotate_four(float32x4_t *first, float32x4_t *second, float32x4x2_t angles)
{
    float32x4_t a = *first;
    float32x4_t b = *second;
    *first = vfmaq_f32(vnegq_f32(vmulq_f32(b, angles.val[1])), a, angles.val[0]);
    *second = vfmaq_f32(vmulq_f32(a, angles.val[1]), b, angles.val[0]);
}

static void rotate_pair(float *first, float *second, float cosine, float sine)
{
    float a = *first;
    float b = *second;
    *first = fmaf(a, cosine, -(b * sine));
    *second = fmaf(b, cosine, a * sine);
}

/* Pairs (2 i, 2 i + 1). */
static void rotate_adjacent(float *row, uint32_t n_pairs, const float *table)
{
    uint32_t i = 0;
    for (; n_pairs - i >= 4; i += 4) {
        float32x4x2_t pairs = vld2q_f32(row + 2 * i);
        rotate_four(&pairs.val[0], &pairs.val[1], vld2q_f32(table + 2 * i));
        vst2q_f32(row + 2 * i, pairs);
    }
    for (; i < n_pairs; i++) {
        rotate_pair(&row[2 * i], &row[2 * i + 1], table[2 * i], table[2 * i + 1]);
    }
}

/* Pairs (i, i + n_pairs). */
static void rotate_halves(float *row, uint32_t n_pairs, const float *table)
{
    uint32_t i = 0;
    for (; n_pairs - i >= 4; i += 4) {
        float32x4_t first = vld1q_f32(row + i);
        float32x4_t second = vld1q_f32(row + n_pairs + i);
        rotate_four(&first, &second, vld2q_f32(table + 2 * i));
        vst1q_f32(row + i, first);
        vst1q_f32(row + n_pairs + i, second);
    }
    for (; i < n_pairs; i++) {
        rotate_pair(&row[i], &row[i + n_pairs], table[2 * i], table[2 * i + 1]);
    }
}

void sl_neon_rope(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, sl_rope_pairing pairing,
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
