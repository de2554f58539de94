/* Shared by the kernel tests: numbers, buffers that end where memory ends, and weights of every temper. */
#ifndef TESTS_KERNELS_SUPPORT_H
#define TESTS_KERNELS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>

#include "kernels/table.h"

/* Deterministic random numbers; the seed is in every failure message's test. */
typedef struct random_source {
    uint64_t state;
} random_source;

uint64_t random_next(random_source *random);
uint32_t random_below(random_source *random, uint32_t bound);
float random_between(random_source *random, float low, float high);

/* `bytes` bytes that end at a page without access, with a canary before them. */
typedef struct guarded {
    void *data; /* owned */
    size_t bytes;
    void *map; /* owned */
    size_t map_bytes;
} guarded;

guarded guarded_allocate(size_t bytes);
/* Fails the test when bytes before the data were written. */
void guarded_release(guarded *buffer);

/* What the scales and codes of weights look like. */
typedef enum weight_fill {
    WEIGHTS_SANE,     /* random codes, scales of ordinary size */
    WEIGHTS_ZERO,     /* all bytes 0x00 */
    WEIGHTS_FF,       /* all bytes 0xff: NaN scales */
    WEIGHTS_80,       /* all bytes 0x80 */
    WEIGHTS_LARGEST,  /* codes 0xff, ordinary scales: the largest integer sums */
    WEIGHTS_LOWEST,   /* codes 0x80, ordinary scales: -128 where codes and scales are signed */
    WEIGHTS_DENORMAL, /* random codes, the smallest scales */
    WEIGHTS_HUGE,     /* random codes, the largest finite scales */
    WEIGHTS_RANDOM,   /* every byte random: NaN, infinity, anything */
    WEIGHTS_FILL_COUNT
} weight_fill;

void fill_weights(sl_type type, weight_fill fill, void *weights, size_t bytes, random_source *random);

typedef enum float_fill {
    FLOATS_NORMAL,     /* within [-2, 2] */
    FLOATS_EXTREME,    /* plus and minus one value: the largest codes */
    FLOATS_WIDE,       /* random exponents, finite */
    FLOATS_ZERO,       /* zeros of both signs */
    FLOATS_DENORMAL,   /* magnitudes below 2^-126 */
    FLOATS_NOT_FINITE, /* normal with a few NaN and infinities */
    FLOATS_FILL_COUNT
} float_fill;

void fill_floats(float_fill fill, float *x, size_t n, random_source *random);

/* Equal bits, or both NaN. */
bool same_float(float a, float b);
/* Fails with the index, both values and `what` at the first difference. */
void assert_same_floats(const float *actual, const float *expected, size_t n, const char *what, ...)
    __attribute__((format(printf, 4, 5)));

sl_kernel_table table_of(sl_isa isa);
/* Skips the test, saying so, where generic is the only set of this machine and there is nothing to compare it with. */
void skip_without_other_sets(void);

/* Groups of tests; each returns the number of failures. */
int run_matmul_tests(void);
int run_row_tests(void);
int run_attention_tests(void);
int run_accuracy_tests(void);
/* Prints speeds: of every kernel, of the products whose type's name begins with `prefix`, or of "attention"; those of
 * weights that come from memory over how fast one thread reads it. false when there are none to print, or no memory to
 * read. */
bool run_bench(const char *prefix);

/* In large pages, when nothing is computed, and what a meeting of threads takes. */
typedef struct bandwidth {
    double read_bytes_per_s;      /* 1 GiB, the best time */
    double sustained_bytes_per_s; /* for a second, what others do on the machine included */
    double meeting_s;
} bandwidth;

/* false, with a line to stderr, where it cannot be measured. */
bool measure_bandwidth(uint32_t n_threads, bandwidth *measured);
/* Prints it as one line of JSON. */
bool print_bandwidth(uint32_t n_threads);

#endif
