/* Norms, activation functions and the other operations on single rows.
 *
 * Owns: their definition.
 * Invariants:
 *   1. Sums have the shape of sums.h; everything else is one element at a time.
 *   2. `out` may be an input: element i is read before it is written, and no other element is read after.
 *   3. NaN in gives NaN out for that element, or for the row where a sum or a maximum covers it.
 * Threads: pure functions; any thread. */
#include "kernels/generic/generic.h"
#include "kernels/generic/math.h"
#include "kernels/generic/sums.h"

void sl_generic_rms_norm(const float *x, const float *weight, uint32_t n, float epsilon, float *out)
{
    float partial[SL_PARTIAL_SUMS] = {0};
    for (uint32_t i = 0; i < n; i++) {
        float *sum = &partial[i % SL_PARTIAL_SUMS];
        *sum = fmaf(x[i], x[i], *sum);
    }
    float mean_square = sl_sum_tree(partial) / (float)n;
    float scale = 1.0f / sqrtf(mean_square + epsilon);
    for (uint32_t i = 0; i < n; i++) {
        float scaled = x[i] * scale;
        out[i] = weight == NULL ? scaled : scaled * weight[i];
    }
}

void sl_generic_add(const float *a, const float *b, uint32_t n, float *out)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = a[i] + b[i];
    }
}

void sl_generic_multiply(const float *a, const float *b, uint32_t n, float *out)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = a[i] * b[i];
    }
}

void sl_generic_swiglu(const float *gate, const float *up, uint32_t n, float *out)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = sl_silu(gate[i]) * up[i];
    }
}

void sl_generic_silu(const float *x, uint32_t n, float *out)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = sl_silu(x[i]);
    }
}

void sl_generic_gelu(const float *x, uint32_t n, float *out)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = sl_gelu(x[i]);
    }
}

void sl_generic_clamp(const float *x, uint32_t n, float limit, float *out)
{
    for (uint32_t i = 0; i < n; i++) {
        float value = x[i] < -limit ? -limit : x[i];
        out[i] = value > limit ? limit : value;
    }
}

void sl_generic_sigmoid_scale(const float *x, float gate, uint32_t n, float *out)
{
    float scale = sl_sigmoid(gate);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = scale * x[i];
    }
}

void sl_generic_accumulate(const float *x, float weight, bool first, uint32_t n, float *out)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = first ? weight * x[i] : fmaf(weight, x[i], out[i]);
    }
}

/* When an element is NaN or +infinity, or all are -infinity, every result is NaN whatever maximum was found. */
void sl_generic_softmax(float *x, uint32_t n)
{
    float maximum = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        maximum = x[i] > maximum ? x[i] : maximum;
    }
    float partial[SL_PARTIAL_SUMS] = {0};
    for (uint32_t i = 0; i < n; i++) {
        x[i] = sl_exp(x[i] - maximum);
        partial[i % SL_PARTIAL_SUMS] += x[i];
    }
    float sum = sl_sum_tree(partial);
    for (uint32_t i = 0; i < n; i++) {
        x[i] /= sum;
    }
}
