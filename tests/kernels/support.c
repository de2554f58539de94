/* Owns the buffers it hands out until guarded_release.
 *
 * Invariants:
 *   1. The byte after a guarded buffer is in a page without access: reading or writing beyond the end is a crash.
 *   2. The bytes before it in the same page are a canary that guarded_release checks.
 * Threads: one. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "quant/blocks.h"
#include "quant/half.h"

enum { CANARY = 0xa5 };

uint64_t random_next(random_source *random)
{
    uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint32_t random_below(random_source *random, uint32_t bound)
{
    return (uint32_t)(random_next(random) >> 32) % bound;
}

float random_between(random_source *random, float low, float high)
{
    return low + (high - low) * (float)(random_next(random) >> 40) * 0x1p-24f;
}

guarded guarded_allocate(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t usable = (bytes + page) / page * page;
    guarded buffer = {.bytes = bytes, .map_bytes = usable + page};
    buffer.map = mmap(NULL, buffer.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(buffer.map != MAP_FAILED);
    assert_int_equal(mprotect((char *)buffer.map + usable, page, PROT_NONE), 0);
    (void)madvise(buffer.map, usable, MADV_HUGEPAGE); /* as the engine's weights have them */
    memset(buffer.map, CANARY, usable);
    buffer.data = (char *)buffer.map + usable - bytes;
    return buffer;
}

void guarded_release(guarded *buffer)
{
    const unsigned char *map = buffer->map;
    size_t n_before = (size_t)((char *)buffer->data - (char *)buffer->map);
    for (size_t i = 0; i < n_before; i++) {
        if (map[i] != CANARY) {
            fail_msg("%zu bytes before a buffer of %zu were overwritten", n_before - i, buffer->bytes);
        }
    }
    munmap(buffer->map, buffer->map_bytes);
}

/* Where the 16-bit scales of a block lie; -1 for none. */
static void scale_offsets(sl_type type, int offsets[2])
{
    offsets[0] = 0;
    offsets[1] = -1;
    switch ((int)type) {
    case SL_TYPE_Q4_1:
    case SL_TYPE_Q5_1:
    case SL_TYPE_Q4_K:
    case SL_TYPE_Q5_K: offsets[1] = 2; break;
    case SL_TYPE_Q2_K:
        offsets[0] = offsetof(sl_block_q2_k, d);
        offsets[1] = offsetof(sl_block_q2_k, dmin);
        break;
    case SL_TYPE_Q3_K: offsets[0] = offsetof(sl_block_q3_k, d); break;
    case SL_TYPE_Q6_K: offsets[0] = offsetof(sl_block_q6_k, d); break;
    case SL_TYPE_IQ1_M:
    case SL_TYPE_MXFP4: offsets[0] = -1; break;
    default: break;
    }
}

static uint16_t scale_bits(weight_fill fill, random_source *random)
{
    uint16_t sign = (uint16_t)(random_below(random, 2) << 15);
    switch (fill) {
    case WEIGHTS_DENORMAL: return (uint16_t)(sign | (1 + random_below(random, 16)));
    case WEIGHTS_HUGE: return sign | 0x7bff;
    default: return (uint16_t)(sign | sl_f32_to_f16(random_between(random, 0.001f, 0.1f)));
    }
}

static void set_scales(sl_type type, weight_fill fill, uint8_t *block, random_source *random)
{
    int offsets[2];
    scale_offsets(type, offsets);
    for (int i = 0; i < 2; i++) {
        if (offsets[i] >= 0) {
            uint16_t bits = scale_bits(fill, random);
            memcpy(block + offsets[i], &bits, sizeof bits);
        }
    }
    if (type == SL_TYPE_IQ1_M) {
        /* Four bits of the scale are the highest of each word. */
        uint16_t bits = scale_bits(fill, random);
        for (int i = 0; i < SL_QK_K / 64; i++) {
            uint8_t *high = block + offsetof(sl_block_iq1_m, scales) + 2 * i + 1;
            *high = (uint8_t)((*high & 0x0f) | ((bits >> (4 * i)) & 0x0f) << 4);
        }
    }
    if (type == SL_TYPE_MXFP4) {
        block[0] = fill == WEIGHTS_DENORMAL ? (uint8_t)random_below(random, 2)
                   : fill == WEIGHTS_HUGE   ? (uint8_t)(254 + random_below(random, 2))
                                            : (uint8_t)(120 + random_below(random, 8));
    }
}

static void set_float_weight(sl_type type, weight_fill fill, uint8_t *element, random_source *random)
{
    float value = random_between(random, -2.0f, 2.0f);
    if (type == SL_TYPE_F16) {
        uint16_t bits = fill == WEIGHTS_SANE ? sl_f32_to_f16(value) : scale_bits(fill, random);
        memcpy(element, &bits, sizeof bits);
        return;
    }
    value = fill == WEIGHTS_DENORMAL ? value * 0x1p-130f : fill == WEIGHTS_HUGE ? value * 0x1.fp126f : value;
    if (type == SL_TYPE_BF16) {
        uint16_t bits = sl_f32_to_bf16(value);
        memcpy(element, &bits, sizeof bits);
    } else {
        memcpy(element, &value, sizeof value);
    }
}

void fill_weights(sl_type type, weight_fill fill, void *weights, size_t bytes, random_source *random)
{
    uint8_t *out = weights;
    const sl_type_traits *traits = sl_type_traits_of((int)type);
    for (size_t i = 0; i < bytes; i++) {
        switch (fill) {
        case WEIGHTS_ZERO: out[i] = 0; break;
        case WEIGHTS_FF:
        case WEIGHTS_LARGEST: out[i] = 0xff; break;
        case WEIGHTS_80:
        case WEIGHTS_LOWEST: out[i] = 0x80; break;
        default: out[i] = (uint8_t)random_next(random); break;
        }
    }
    if (fill == WEIGHTS_ZERO || fill == WEIGHTS_FF || fill == WEIGHTS_80 || fill == WEIGHTS_RANDOM) {
        return;
    }
    for (size_t at = 0; at + traits->block_bytes <= bytes; at += traits->block_bytes) {
        if (traits->block_elements == 1) {
            set_float_weight(type, fill, out + at, random);
        } else {
            set_scales(type, fill, out + at, random);
        }
    }
}

static float random_float(float_fill fill, random_source *random)
{
    uint32_t bits = (uint32_t)random_next(random);
    switch (fill) {
    case FLOATS_EXTREME: return bits & 1 ? 3.0f : -3.0f;
    case FLOATS_WIDE: return sl_float_from_bits((bits & 0x807fffffu) | (1 + random_below(random, 253)) << 23);
    case FLOATS_ZERO: return bits & 1 ? 0.0f : -0.0f;
    case FLOATS_DENORMAL: return sl_float_from_bits(bits & 0x807fffffu);
    case FLOATS_NOT_FINITE:
        if (bits % 37 == 0) {
            return bits & 0x100 ? NAN : bits & 0x200 ? INFINITY : -INFINITY;
        }
        return random_between(random, -2.0f, 2.0f);
    default: return random_between(random, -2.0f, 2.0f);
    }
}

void fill_floats(float_fill fill, float *x, size_t n, random_source *random)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = random_float(fill, random);
    }
}

bool same_float(float a, float b)
{
    return sl_float_bits(a) == sl_float_bits(b) || (a != a && b != b);
}

void assert_same_floats(const float *actual, const float *expected, size_t n, const char *what, ...)
{
    for (size_t i = 0; i < n; i++) {
        if (!same_float(actual[i], expected[i])) {
            char where[256];
            va_list arguments;
            va_start(arguments, what);
            vsnprintf(where, sizeof where, what, arguments);
            va_end(arguments);
            fail_msg("%s: element %zu is %a, generic has %a", where, i, (double)actual[i], (double)expected[i]);
        }
    }
}

sl_kernel_table table_of(sl_isa isa)
{
    sl_kernel_table table;
    sl_kernel_table_init(&table, isa);
    return table;
}

void skip_without_other_sets(void)
{
    if (sl_cpu_best_isa() == SL_ISA_GENERIC) {
        print_message("skipped: this processor has no instruction set above generic\n");
        skip();
    }
}
