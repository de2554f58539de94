/* Owns nothing: carries out every step but routing and experts by splitting it over the workers.
 *
 * Two ways to split: element-wise steps by row of the batch, products by row of the weight. A step that is too small to
 * be worth a meeting of the workers runs on the caller alone; the bits are the same either way. */
#include "exec/steps.h"

#include <string.h>

enum {
    PARALLEL_ELEMENTS = 1 << 15 /* element-wise work below this is not split */
};

static uint32_t width_of(const sl_place *place)
{
    return (uint32_t)place->width;
}

static void norm_heads(const sl_step_run *run, float *row)
{
    const sl_step *step = run->step;
    uint32_t group = step->attributes.head_dim;
    for (uint32_t begin = 0; begin < width_of(&step->inputs[0]); begin += group) {
        run->kernels->rms_norm(row + begin, run->inputs[1], group, step->attributes.epsilon, row + begin);
    }
}

static void add_row(const sl_step_run *run, uint32_t row, float *out)
{
    const sl_place *second = &run->step->inputs[1];
    bool is_vector = second->kind == SL_PLACE_BINDING && second->rows == 1 && run->step->inputs[0].rows != 1;
    const float *b = is_vector ? run->inputs[1] : sl_float_row(run->inputs[1], second, row);
    run->kernels->add(sl_float_row(run->inputs[0], &run->step->inputs[0], row), b, width_of(&run->step->outputs[0]),
                      out);
}

static void embed_row(const sl_step_run *run, uint32_t row, float *out)
{
    const sl_place *table = &run->step->inputs[1];
    uint32_t token = (uint32_t)((const int32_t *)run->inputs[0])[row];
    run->kernels->decode_row[table->type]((const char *)run->inputs[1] + table->row_bytes * token, out, table->width);
}

static void rope_table_row(const sl_step_run *run, uint32_t row, float *out)
{
    const sl_op_attributes *attributes = &run->step->attributes;
    sl_rope_config config = {.n_rot = attributes->n_rot,
                             .base = attributes->rope_base,
                             .scale = attributes->rope_scale,
                             .factors = run->inputs[1]};
    run->kernels->rope_table(&config, (uint32_t)((const int32_t *)run->inputs[0])[row], out);
}

static void add_rms_norm_row(const sl_step_run *run, uint32_t row, float *sum)
{
    const sl_step *step = run->step;
    uint32_t n = width_of(&step->inputs[0]);
    run->kernels->add(sl_float_row(run->inputs[0], &step->inputs[0], row),
                      sl_float_row(run->inputs[1], &step->inputs[1], row), n, sum);
    run->kernels->rms_norm(sum, run->inputs[2], n, step->attributes.epsilon,
                           sl_float_row_of(run->outputs[1], &step->outputs[1], row));
}

static void quantize_row(const sl_step_run *run, uint32_t row)
{
    const sl_place *out = &run->step->outputs[0];
    run->kernels->quantize_row[out->type](sl_float_row(run->inputs[0], &run->step->inputs[0], row),
                                          width_of(&run->step->inputs[0]),
                                          (char *)run->outputs[0] + out->row_bytes * row);
}

/* One row of an element-wise step. */
static void run_row(const sl_step_run *run, uint32_t row)
{
    const sl_step *step = run->step;
    const sl_kernel_table *kernels = run->kernels;
    const sl_op_attributes *attributes = &step->attributes;
    uint32_t n = width_of(&step->outputs[0]);
    const float *x = sl_float_row(run->inputs[0], &step->inputs[0], row);
    float *out = sl_float_row_of(run->outputs[0], &step->outputs[0], row);
    switch (step->kind) {
    case SL_OP_EMBED: embed_row(run, row, out); break;
    case SL_OP_RMS_NORM: kernels->rms_norm(x, run->inputs[1], n, attributes->epsilon, out); break;
    case SL_OP_NORM_HEADS: norm_heads(run, out); break;
    case SL_OP_ADD: add_row(run, row, out); break;
    case SL_OP_MULTIPLY: kernels->multiply(x, sl_float_row(run->inputs[1], &step->inputs[1], row), n, out); break;
    case SL_OP_CLAMP: kernels->clamp(x, n, attributes->limit, out); break;
    case SL_OP_SILU: kernels->silu(x, n, out); break;
    case SL_OP_GELU: kernels->gelu(x, n, out); break;
    case SL_OP_SOFTMAX:
        memcpy(out, x, n * sizeof *out);
        kernels->softmax(out, n);
        break;
    case SL_OP_SIGMOID_SCALE:
        kernels->sigmoid_scale(x, *sl_float_row(run->inputs[1], &step->inputs[1], row), n, out);
        break;
    case SL_OP_ROPE_TABLE: rope_table_row(run, row, out); break;
    case SL_OP_ROPE:
        kernels->rope(out, attributes->n_heads, attributes->head_dim, attributes->n_rot, attributes->pairing,
                      sl_float_row(run->inputs[1], &step->inputs[1], row));
        break;
    case SL_OP_SWIGLU: kernels->swiglu(x, sl_float_row(run->inputs[1], &step->inputs[1], row), n, out); break;
    case SL_OP_ADD_RMS_NORM: add_rms_norm_row(run, row, out); break;
    case SL_OP_QUANTIZE: quantize_row(run, row); break;
    case SL_OP_MATMUL:
    case SL_OP_MATMUL_SWIGLU:
    case SL_OP_KV_STORE:
    case SL_OP_ATTENTION:
    case SL_OP_ROUTE:
    case SL_OP_PREDICT:
    case SL_OP_EXPERTS:
    case SL_OP_KIND_COUNT: break; /* not row by row */
    }
}

static void rows_task(void *argument, uint32_t worker, uint32_t n_workers)
{
    const sl_step_run *run = argument;
    uint32_t begin = 0;
    uint32_t end = 0;
    sl_workers_share(run->rows, 1, worker, n_workers, &begin, &end);
    for (uint32_t row = begin; row < end; row++) {
        run_row(run, row);
    }
}

static void matmul_rows(const sl_step_run *run, uint32_t i_weight, uint32_t begin, uint32_t end, float *out)
{
    const sl_place *x = &run->step->inputs[0];
    const sl_place *weight = &run->step->inputs[i_weight];
    run->kernels->matmul[weight->type](run->inputs[i_weight], weight->row_bytes, (uint32_t)weight->width, begin, end,
                                       run->inputs[0], x->row_bytes, run->rows, out, run->step->outputs[0].width);
}

/* Products of the same rows, side by side: to the workers the rows of their matrices are one sequence. */
typedef struct product_group {
    const sl_step_run *runs; // [n_runs]
    uint32_t n_runs;
    sl_pieces pieces[SL_MAX_PRODUCTS];
    sl_units units;
} product_group;

static void product_rows(const sl_step_run *run, uint32_t begin, uint32_t end)
{
    matmul_rows(run, 1, begin, end, run->outputs[0]);
    const float *bias = run->inputs[2];
    for (uint32_t row = 0; row < run->rows && bias != NULL; row++) {
        float *y = sl_float_row_of(run->outputs[0], &run->step->outputs[0], row) + begin;
        run->kernels->add(y, bias + begin, end - begin, y);
    }
}

static void product_task(void *argument, uint32_t worker, uint32_t n_workers)
{
    (void)n_workers;
    const product_group *group = argument;
    uint32_t begin = 0;
    uint32_t end = 0;
    while (sl_workers_next(group->runs[0].executor->config.workers, &group->units, worker, &begin, &end)) {
        uint32_t first = 0; /* of the units of a matrix */
        for (uint32_t i = 0; i < group->n_runs && first < end; i++) {
            const sl_pieces *pieces = &group->pieces[i];
            uint32_t last = first + pieces->units.count;
            if (begin < last) {
                uint32_t from = begin > first ? begin - first : 0;
                uint32_t to = (end < last ? end : last) - first;
                product_rows(&group->runs[i], from * pieces->unit_rows, sl_end_row(pieces, to));
            }
            first = last;
        }
    }
}

void sl_step_products(const sl_step_run *runs, uint32_t n_runs)
{
    product_group group = {.runs = runs, .n_runs = n_runs, .units.most = UINT32_MAX};
    for (uint32_t i = 0; i < n_runs; i++) {
        const sl_step *step = runs[i].step;
        group.pieces[i] = sl_pieces_of(1, width_of(&step->outputs[0]), step->inputs[1].row_bytes, runs[i].rows,
                                       runs[i].executor->n_workers);
        const sl_units *units = &group.pieces[i].units;
        group.units.count += units->count;
        group.units.most = units->most < group.units.most ? units->most : group.units.most;
    }
    group.units.span = group.units.count;
    sl_workers_run(runs[0].executor->config.workers, product_task, &group);
}

/* The gate's rows land in the output, the up rows beside them in the second output, scratch of the step. */
static void matmul_swiglu_task(void *argument, uint32_t worker, uint32_t n_workers)
{
    const sl_step_run *run = argument;
    const sl_place *gates = &run->step->outputs[0];
    const sl_place *ups = &run->step->outputs[SL_SWIGLU_UP];
    sl_pieces pieces = sl_pieces_of(1, width_of(gates), run->step->inputs[1].row_bytes, run->rows, n_workers);
    sl_rows rows;
    while (sl_next_rows(run->executor->config.workers, &pieces, worker, &rows)) {
        matmul_rows(run, 1, rows.begin, rows.end, run->outputs[0]);
        matmul_rows(run, 2, rows.begin, rows.end, run->outputs[SL_SWIGLU_UP]);
        for (uint32_t row = 0; row < run->rows; row++) {
            float *gate = sl_float_row_of(run->outputs[0], gates, row) + rows.begin;
            const float *up = sl_float_row(run->outputs[SL_SWIGLU_UP], ups, row) + rows.begin;
            run->kernels->swiglu(gate, up, rows.end - rows.begin, gate);
        }
    }
}

static sl_kv_type kv_type_of(sl_type type)
{
    return type == SL_TYPE_F16 ? SL_KV_F16 : type == SL_TYPE_Q8_0 ? SL_KV_Q8_0 : SL_KV_F32;
}

/* Where a KV head's row of a position lies: caches are [n_kv_heads][kv_capacity][dim]. */
static char *kv_row(const sl_step_run *run, void *cache, const sl_place *place, uint32_t head, uint32_t position,
                    uint32_t dim)
{
    return (char *)cache +
           ((uint64_t)head * run->run->kv_capacity + position) * sl_kv_row_bytes(kv_type_of(place->type), dim);
}

static void kv_store(const sl_step_run *run)
{
    const sl_step *step = run->step;
    const sl_op_attributes *attributes = &step->attributes;
    const int32_t *positions = run->inputs[2];
    for (uint32_t row = 0; row < run->rows; row++) {
        const float *k = sl_float_row(run->inputs[0], &step->inputs[0], row);
        const float *v = sl_float_row(run->inputs[1], &step->inputs[1], row);
        uint32_t position = (uint32_t)positions[row];
        for (uint32_t head = 0; head < attributes->n_kv_heads; head++) {
            run->kernels->store_kv(k + (size_t)head * attributes->head_dim, attributes->head_dim,
                                   kv_type_of(step->inputs[3].type),
                                   kv_row(run, run->inputs[3], &step->inputs[3], head, position, attributes->head_dim));
            run->kernels->store_kv(
                v + (size_t)head * attributes->value_dim, attributes->value_dim, kv_type_of(step->inputs[4].type),
                kv_row(run, run->inputs[4], &step->inputs[4], head, position, attributes->value_dim));
        }
    }
}

/* How attention is cut into units: rows by KV heads by parts of a head's group. */
typedef struct attention_split {
    uint32_t group;      /* query heads of a KV head */
    uint32_t tile_rows;  /* rows of a unit: they share what is prepared of the keys and values; */
    uint32_t part_heads; /* query heads of a unit: all of a group, unless workers would be idle */
    uint32_t n_tiles, n_parts;
} attention_split;

static attention_split split_attention(const sl_step_run *run, uint32_t n_workers)
{
    const sl_op_attributes *attributes = &run->step->attributes;
    uint32_t group = attributes->n_heads / attributes->n_kv_heads;
    uint32_t largest = sl_attention_tile_tokens(group);
    /* Four units for each worker, so that none waits long for the last. */
    uint64_t even = (uint64_t)run->rows * attributes->n_kv_heads / (4 * n_workers);
    uint32_t tile_rows = even < 1 ? 1 : even < largest ? (uint32_t)even : largest;
    uint32_t n_tiles = (run->rows + tile_rows - 1) / tile_rows;
    uint32_t n_units = n_tiles * attributes->n_kv_heads;
    uint32_t n_parts = n_units >= n_workers ? 1 : (n_workers + n_units - 1) / n_units;
    n_parts = n_parts < group ? n_parts : group;
    uint32_t part_heads = (group + n_parts - 1) / n_parts;
    return (attention_split){.group = group,
                             .tile_rows = tile_rows,
                             .part_heads = part_heads,
                             .n_tiles = n_tiles,
                             .n_parts = (group + part_heads - 1) / part_heads};
}

/* Rows [begin, end) follow one another in position; query heads [first_query, first_query + n_queries) belong to one
 * KV head. */
static void attend_rows(const sl_step_run *run, uint32_t begin, uint32_t end, uint32_t kv_head, uint32_t first_query,
                        uint32_t n_queries, float *scratch)
{
    const sl_step *step = run->step;
    const sl_op_attributes *attributes = &step->attributes;
    const int32_t *positions = run->inputs[1];
    sl_attention_task task = {
        .queries = sl_float_row(run->inputs[0], &step->inputs[0], begin) + (size_t)first_query * attributes->head_dim,
        .query_stride = step->inputs[0].row_bytes / sizeof(float),
        .n_tokens = end - begin,
        .n_queries = n_queries,
        .key_dim = attributes->head_dim,
        .value_dim = attributes->value_dim,
        .keys = kv_row(run, run->inputs[2], &step->inputs[2], kv_head, 0, attributes->head_dim),
        .values = kv_row(run, run->inputs[3], &step->inputs[3], kv_head, 0, attributes->value_dim),
        .kv_type = kv_type_of(step->inputs[2].type),
        .n_positions = (uint32_t)positions[begin] + 1,
        .scale = attributes->scale,
        .out = sl_float_row_of(run->outputs[0], &step->outputs[0], begin) + (size_t)first_query * attributes->value_dim,
        .out_stride = step->outputs[0].row_bytes / sizeof(float),
        .scratch = scratch,
    };
    run->kernels->attention(&task);
}

static void attention_task(void *argument, uint32_t worker, uint32_t n_workers)
{
    const sl_step_run *run = argument;
    const int32_t *positions = run->inputs[1];
    uint32_t n_kv_heads = run->step->attributes.n_kv_heads;
    attention_split split = split_attention(run, n_workers);
    float *scratch = run->executor->attention_scratch + run->executor->attention_stride * worker;
    /* Later rows see more positions, so units are dealt out one by one. */
    for (uint32_t unit = worker; unit < split.n_tiles * n_kv_heads * split.n_parts; unit += n_workers) {
        uint32_t first = unit % split.n_parts * split.part_heads;
        uint32_t left = split.group - first;
        uint32_t n_queries = left < split.part_heads ? left : split.part_heads;
        uint32_t kv_head = unit / split.n_parts % n_kv_heads;
        uint32_t begin = unit / split.n_parts / n_kv_heads * split.tile_rows;
        uint32_t tile_end = begin + split.tile_rows < run->rows ? begin + split.tile_rows : run->rows;
        while (begin < tile_end) {
            uint32_t end = begin + 1;
            while (end < tile_end && positions[end] == positions[end - 1] + 1) {
                end++;
            }
            attend_rows(run, begin, end, kv_head, kv_head * split.group + first, n_queries, scratch);
            begin = end;
        }
    }
}

void sl_step_rows(const sl_step_run *step)
{
    sl_workers *workers = step->executor->config.workers;
    switch (step->step->kind) {
    case SL_OP_MATMUL_SWIGLU: sl_workers_run(workers, matmul_swiglu_task, (void *)step); return;
    case SL_OP_ATTENTION: sl_workers_run(workers, attention_task, (void *)step); return;
    case SL_OP_KV_STORE: kv_store(step); return;
    default: break;
    }
    uint64_t n_elements = step->step->outputs[0].width * step->rows;
    if (step->rows > 1 && n_elements >= PARALLEL_ELEMENTS) {
        sl_workers_run(workers, rows_task, (void *)step);
    } else {
        rows_task((void *)step, 0, 1);
    }
}
