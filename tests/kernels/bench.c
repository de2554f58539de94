/* Speed of every kernel on every instruction set of this machine, one thread: the best of several rounds in
 * processor time, since other programs may share the machine.
 *
 * Matrix products run over weights that fit the second-level cache (cached) and over weights that do not fit any
 * (streamed), with one token (decode) and with many (prefill). */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { COLUMNS = 2048, PREFILL_TOKENS = 64, ROUND_NS = 4000000, ROUNDS = 12 };

typedef struct matmul_bench {
    const sl_kernel_table *table;
    sl_type type;
    uint32_t n_rows;
    uint32_t n_tokens;
    size_t stride;
    guarded weights;
    guarded activations;
    guarded out;
} matmul_bench;

typedef void bench_fn(void *work);

static uint64_t processor_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Seconds of one call. */
static double best_seconds(bench_fn *run, void *work)
{
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = processor_ns();
        uint64_t now;
        uint32_t n_calls = 0;
        do {
            run(work);
            n_calls++;
            now = processor_ns();
        } while (now - start < ROUND_NS);
        double seconds = (double)(now - start) * 1e-9 / n_calls;
        best = seconds < best ? seconds : best;
    }
    return best;
}

static void run_matmul(void *work)
{
    matmul_bench *bench = work;
    bench->table->matmul[bench->type](bench->weights.data, bench->weights.bytes / bench->n_rows, COLUMNS, 0,
                                      bench->n_rows, bench->activations.data, bench->stride, bench->n_tokens,
                                      bench->out.data, bench->n_rows);
}

static double matmul_seconds(const sl_kernel_table *table, sl_type type, size_t bytes, uint32_t n_tokens,
                             size_t *weight_bytes, double *operations)
{
    random_source random = {71};
    const sl_type_traits *traits = sl_type_traits_of((int)type);
    size_t row_bytes = (size_t)sl_type_row_bytes(type, COLUMNS);
    matmul_bench bench = {.table = table, .type = type, .n_rows = (uint32_t)(bytes / row_bytes), .n_tokens = n_tokens};
    bench.weights = guarded_allocate(row_bytes * bench.n_rows);
    fill_weights(type, WEIGHTS_SANE, bench.weights.data, bench.weights.bytes, &random);
    bench.stride = (size_t)sl_type_row_bytes(traits->activation_type, COLUMNS);
    bench.activations = guarded_allocate(bench.stride * n_tokens);
    for (uint32_t t = 0; t < n_tokens; t++) {
        float x[COLUMNS];
        uint8_t *row = (uint8_t *)bench.activations.data + t * bench.stride;
        fill_floats(FLOATS_NORMAL, x, COLUMNS, &random);
        if (traits->activation_type == SL_TYPE_F32) {
            memcpy(row, x, sizeof x);
        } else {
            table->quantize_row[traits->activation_type](x, COLUMNS, row);
        }
    }
    bench.out = guarded_allocate((size_t)bench.n_rows * n_tokens * sizeof(float));
    double seconds = best_seconds(run_matmul, &bench);
    *weight_bytes = bench.weights.bytes;
    *operations = 2.0 * bench.n_rows * COLUMNS * n_tokens;
    guarded_release(&bench.weights);
    guarded_release(&bench.activations);
    guarded_release(&bench.out);
    return seconds;
}

static void bench_matmul(const sl_kernel_table *table, sl_type type, double read_bytes_per_s)
{
    size_t bytes;
    double operations;
    double seconds = matmul_seconds(table, type, 512 << 10, 1, &bytes, &operations);
    printf("%-8s %-7s decode cached %6.2f GB/s %7.2f GFLOP/s", sl_isa_name(table->isa),
           sl_type_traits_of((int)type)->name, (double)bytes / seconds * 1e-9, operations / seconds * 1e-9);
    seconds = matmul_seconds(table, type, 192 << 20, 1, &bytes, &operations);
    printf("   streamed %6.2f GB/s, %4.2f of memory", (double)bytes / seconds * 1e-9,
           (double)bytes / seconds / read_bytes_per_s);
    seconds = matmul_seconds(table, type, 512 << 10, PREFILL_TOKENS, &bytes, &operations);
    printf("   prefill %7.2f GFLOP/s%s\n", operations / seconds * 1e-9,
           sl_kernel_table_falls_back(table, type) ? " (generic)" : "");
    fflush(stdout);
}

typedef struct row_bench {
    const sl_kernel_table *table;
    float *a;
    float *b;
    float *out;
    const float *rotations;
} row_bench;

static void run_rms_norm(void *work)
{
    row_bench *bench = work;
    bench->table->rms_norm(bench->a, bench->b, COLUMNS, 1e-6f, bench->out);
}

static void run_swiglu(void *work)
{
    row_bench *bench = work;
    bench->table->swiglu(bench->a, bench->b, COLUMNS, bench->out);
}

static void run_softmax(void *work)
{
    row_bench *bench = work;
    memcpy(bench->out, bench->a, COLUMNS * sizeof(float));
    bench->table->softmax(bench->out, COLUMNS);
}

static void run_accumulate(void *work)
{
    row_bench *bench = work;
    bench->table->accumulate(bench->a, 0.5f, false, COLUMNS, bench->out);
}

static void run_quantize_32(void *work)
{
    row_bench *bench = work;
    bench->table->quantize_row[SL_TYPE_ACT_Q8_32](bench->a, COLUMNS, bench->out);
}

static void run_quantize_256(void *work)
{
    row_bench *bench = work;
    bench->table->quantize_row[SL_TYPE_ACT_Q8_256](bench->a, COLUMNS, bench->out);
}

static void run_rope_table(void *work)
{
    row_bench *bench = work;
    bench->table->rope_table(&(sl_rope_config){128, 1e6f, 1.0f, NULL}, 12345, bench->out);
}

static void run_rope(void *work)
{
    row_bench *bench = work;
    memcpy(bench->out, bench->a, COLUMNS * sizeof(float));
    bench->table->rope(bench->out, COLUMNS / 128, 128, 128, SL_ROPE_NEOX, bench->rotations);
}

static void run_store(void *work)
{
    row_bench *bench = work;
    bench->table->store_kv(bench->a, COLUMNS, SL_KV_F16, bench->out);
}

static const struct {
    const char *name;
    bench_fn *run;
} row_benches[] = {
    {"rms_norm", run_rms_norm},
    {"swiglu", run_swiglu},
    {"softmax", run_softmax},
    {"accumulate", run_accumulate},
    {"quantize32", run_quantize_32},
    {"quantize256", run_quantize_256},
    {"rope", run_rope},
    {"rope_table", run_rope_table},
    {"store_kv", run_store},
};

static void bench_rows(const sl_kernel_table *table, random_source *random)
{
    guarded a = guarded_allocate(COLUMNS * sizeof(float));
    guarded b = guarded_allocate(COLUMNS * sizeof(float));
    guarded out = guarded_allocate(2 * COLUMNS * sizeof(float));
    fill_floats(FLOATS_NORMAL, a.data, COLUMNS, random);
    fill_floats(FLOATS_NORMAL, b.data, COLUMNS, random);
    float rotations[128];
    table->rope_table(&(sl_rope_config){128, 1e6f, 1.0f, NULL}, 12345, rotations);
    row_bench bench = {
        .table = table,
        .a = a.data,
        .b = b.data,
        .out = out.data,
        .rotations = rotations,
    };
    for (size_t i = 0; i < sizeof row_benches / sizeof row_benches[0]; i++) {
        double seconds = best_seconds(row_benches[i].run, &bench);
        printf("%-8s %-11s %8.3f us per %d elements\n", sl_isa_name(table->isa), row_benches[i].name, seconds * 1e6,
               COLUMNS);
    }
    guarded_release(&a);
    guarded_release(&b);
    guarded_release(&out);
}

typedef struct attention_bench {
    const sl_kernel_table *table;
    sl_attention_task task;
} attention_bench;

static void run_attention(void *work)
{
    attention_bench *bench = work;
    bench->table->attention(&bench->task);
}

/* n_tokens tokens at the end of a context. */
static void bench_attention(const sl_kernel_table *table, sl_kv_type kv_type, uint32_t n_queries, uint32_t n_tokens,
                            random_source *random)
{
    enum { POSITIONS = 4096, DIM = 128 };
    uint32_t n_floats = n_queries * n_tokens * DIM;
    size_t cache_bytes = POSITIONS * sl_kv_row_bytes(kv_type, DIM);
    guarded queries = guarded_allocate(n_floats * sizeof(float));
    guarded out = guarded_allocate(n_floats * sizeof(float));
    guarded rows = guarded_allocate((size_t)POSITIONS * DIM * sizeof(float));
    guarded kv = guarded_allocate(2 * cache_bytes);
    guarded scratch = guarded_allocate(sl_attention_scratch_floats(n_queries, DIM, DIM) * sizeof(float));
    fill_floats(FLOATS_NORMAL, queries.data, n_floats, random);
    fill_floats(FLOATS_NORMAL, rows.data, POSITIONS * DIM, random);
    table->store_kv(rows.data, POSITIONS * DIM, kv_type, kv.data);
    table->store_kv(rows.data, POSITIONS * DIM, kv_type, (char *)kv.data + cache_bytes);
    attention_bench bench = {.table = table,
                             .task = {.queries = queries.data,
                                      .query_stride = (size_t)n_queries * DIM,
                                      .n_tokens = n_tokens,
                                      .n_queries = n_queries,
                                      .key_dim = DIM,
                                      .value_dim = DIM,
                                      .keys = kv.data,
                                      .values = (char *)kv.data + cache_bytes,
                                      .kv_type = kv_type,
                                      .n_positions = POSITIONS - n_tokens + 1,
                                      .scale = 0.088f,
                                      .out = out.data,
                                      .out_stride = (size_t)n_queries * DIM,
                                      .scratch = scratch.data}};
    static const char *const names[] = {"F32", "F16", "Q8_0"};
    double seconds = best_seconds(run_attention, &bench);
    printf("%-8s attention, %s, %u queries of %2u tokens, dims %d, %d positions: %9.3f us, %6.2f GB/s, %7.2f GFLOP/s\n",
           sl_isa_name(table->isa), names[kv_type], n_queries, n_tokens, DIM, POSITIONS, seconds * 1e6,
           (double)kv.bytes / seconds * 1e-9, 4.0 * n_floats * POSITIONS / seconds * 1e-9);
    fflush(stdout);
    guarded_release(&queries);
    guarded_release(&out);
    guarded_release(&rows);
    guarded_release(&kv);
    guarded_release(&scratch);
}

static void bench_attentions(const sl_kernel_table *table, random_source *random)
{
    static const uint32_t shapes[][2] = {{1, 1}, {2, 1}, {4, 1}, {8, 1}, {8, 16}, {1, 64}}; /* queries, tokens */
    for (int kv_type = SL_KV_F32; kv_type <= SL_KV_Q8_0; kv_type++) {
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            bench_attention(table, (sl_kv_type)kv_type, shapes[i][0], shapes[i][1], random);
        }
    }
}

static bool is_wanted(const char *name, const char *prefix)
{
    return prefix == NULL || strncmp(name, prefix, strlen(prefix)) == 0;
}

/* Whether there is anything that the prefix names. */
static bool names_something(const char *prefix)
{
    const sl_kernel_table table = table_of(SL_ISA_GENERIC);
    for (int type = 0; type < SL_TYPE_COUNT; type++) {
        if (table.matmul[type] != NULL && is_wanted(sl_type_traits_of(type)->name, prefix)) {
            return true;
        }
    }
    return strcmp(prefix, "attention") == 0;
}

bool run_bench(const char *prefix)
{
    random_source random = {67};
    bandwidth memory;
    if (prefix != NULL && !names_something(prefix)) {
        fprintf(stderr, "no products have weights whose name begins with '%s', such as Q4_K\n", prefix);
        return false;
    }
    if (!measure_bandwidth(1, &memory)) {
        return false;
    }
    printf("memory is read at %.2f GB/s by one thread\n", memory.read_bytes_per_s * 1e-9);
    for (int isa = SL_ISA_GENERIC; isa <= (int)sl_cpu_best_isa(); isa++) {
        sl_kernel_table table = table_of((sl_isa)isa);
        if (isa > SL_ISA_GENERIC) {
            /* A set without kernels of its own runs those of the set below. */
            sl_kernel_table below = table_of((sl_isa)(isa - 1));
            below.isa = table.isa;
            if (memcmp(&below, &table, sizeof table) == 0) {
                printf("%-8s as %s\n", sl_isa_name(table.isa), sl_isa_name((sl_isa)(isa - 1)));
                continue;
            }
        }
        for (int type = 0; type < SL_TYPE_COUNT; type++) {
            if (table.matmul[type] != NULL && is_wanted(sl_type_traits_of(type)->name, prefix)) {
                bench_matmul(&table, (sl_type)type, memory.read_bytes_per_s);
            }
        }
        if (prefix == NULL) {
            bench_rows(&table, &random);
        }
        if (prefix == NULL || strcmp(prefix, "attention") == 0) {
            bench_attentions(&table, &random);
        }
    }
    return true;
}
