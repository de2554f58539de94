/* Shared by the files of this folder: what an engine and a session are made of. */
#ifndef SL_ENGINE_ENGINE_H
#define SL_ENGINE_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/dense.h"
#include "exec/executor.h"
#include "graph/buckets.h"
#include "experts/recording.h"
#include "graph/program.h"
#include "models/model.h"
#include "sluice/sluice.h"
#include "text/tokenizer.h"

enum {
    SL_MAX_CHUNK = 512,
    SL_BODY_BUCKETS = 10, /* 1, 2, 4, ... 512 rows */
    SL_HEAD_ROWS = 8,     /* positions whose logits are computed together */
    SL_HEAD_BUCKETS = 4,  /* 1, 2, 4, 8 */
    SL_READ_THREADS = 8   /* of the pread pool: docs/io.md */
};

struct sluice_vocabulary {
    sl_memory own_memory;    /* used only by a vocabulary that was opened by itself */
    sl_memory *memory;       /* borrowed, or points at own_memory */
    sl_gguf *file;           /* owned when opened by itself, else NULL */
    sl_tokenizer *tokenizer; /* owned */
};

/* Build the tokenizer of an open file, which must outlive the vocabulary. */
SLUICE_NODISCARD sluice_status sl_model_vocabulary_init(sluice_vocabulary *vocabulary, const sl_gguf *file,
                                                        sl_memory *memory, sluice_error *error);
void sl_model_vocabulary_fini(sluice_vocabulary *vocabulary);

struct sluice_engine {
    sluice_allocator allocator; /* the caller's; zero for the C library */
    sl_memory memory;           /* everything but this struct */
    sl_log log;
    sluice_log_level log_level;
    void (*log_function)(void *user, sluice_log_level level, const char *line); /* borrowed */
    void *log_user;                                                             /* borrowed */
    char *model_name;                                                           /* owned */

    /* Prepared before any weight is read; immutable afterwards. */
    sl_gguf *file;   /* owned */
    sl_model *model; /* owned */
    sluice_vocabulary vocabulary;
    sl_kernel_table kernels;
    uint32_t n_threads;
    uint32_t n_sessions_planned;
    sl_kv_type kv_type;
    sl_reads_kind reads_kind;
    sl_predictor_config predictor_config;
    sl_policy_kind policy_kind;
    bool captures_routing; /* sessions have room for it */
    sl_graph body_graph, head_graph;
    sl_bucket buckets[SL_MAX_BUCKETS];   /* powers of two from 1 to SL_MAX_CHUNK rows; the head uses the first ones */
    sl_program *body[SL_BODY_BUCKETS];   /* owned; by bucket; NULL above the chunk's */
    uint64_t body_cost[SL_BODY_BUCKETS]; /* bytes of the account that each body program holds */
    sl_program *head[SL_HEAD_BUCKETS];   /* owned */
    sl_executor_limits limits;
    sl_expert_range *ranges;    /* owned; [n_expert_layers][n_experts][3] */
    sl_store_file *store_files; /* owned; [n_files] */
    sl_store_config store_config;
    sl_dense dense;
    sl_store_plan store_plan;   /* of a single slot */
    sluice_memory_plan plan;    /* as opened: what of it can change later is in current_plan */
    uint64_t resident_before;   /* of the process, by the kernel's figure, before anything was opened */
    uint64_t *pins;             /* owned; [expert layers][mask words]; NULL: no expert is pinned */
    sl_read_fault_plan *faults; /* borrowed; NULL outside tests */

    /* Loaded. */
    sl_workers *workers;             /* owned */
    sl_store *store;                 /* owned */
    sl_predictor *predictor;         /* owned; guarded by: run_lock; NULL: nothing is read ahead */
    sl_executor *executor;           /* owned; guarded by: run_lock */
    void *body_arena;                /* owned; guarded by: run_lock */
    void *head_arena;                /* owned; guarded by: run_lock */
    pthread_mutex_t run_lock;        /* one chunk of one session at a time */
    atomic_uint n_sessions;          /* open now */
    pthread_mutex_t budget_lock;     /* held while the budget changes */
    pthread_mutex_t plan_lock;       /* held for a moment */
    sluice_memory_plan current_plan; /* guarded by: plan_lock */
};

struct sluice_session {
    sluice_engine *engine; /* borrowed: closed after its sessions */
    uint32_t position;     /* positions evaluated */
    int32_t *tokens;       /* owned; [chunk] */
    int32_t *positions;    /* owned; [chunk] */
    void **body_bindings;  /* owned; [body n_bindings] */
    void **head_bindings;  /* owned; [head n_bindings] */
    void *kv;              /* owned: all caches of this session */
    float *logits;         /* owned; [n_vocab]: the last row delivered */
    bool has_logits;
    uint64_t logits_hash;
    atomic_bool cancelled;

    sl_expert_use *expert_use; /* owned; [expert layers] */
    uint32_t *routing;         /* owned; [expert layers][context length][experts used]; NULL: no room was asked for */
    uint32_t n_captured;       /* tokens of the last evaluation in `routing` */
    bool captures;
    sl_recording_writer *recording; /* owned; NULL without `routing` */
    bool records;
};

/* Everything up to and including the plan: reads headers only. On failure the engine is as far as it came and must be
 * closed. BUDGET leaves the plan filled. */
SLUICE_NODISCARD sluice_status sl_engine_prepare(sluice_engine *engine, const sluice_engine_options *options,
                                                 sluice_error *error);

/* Room for the experts to pin, before the plan, and then which they are, from a recording (engine/pins.c); with another
 * policy nothing. */
SLUICE_NODISCARD sluice_status sl_engine_open_pins(sluice_engine *engine, sluice_error *error);
SLUICE_NODISCARD sluice_status sl_engine_read_pins(sluice_engine *engine, const char *path, sluice_error *error);

/* Fill engine->plan from what was prepared (engine/plan.c). */
SLUICE_NODISCARD sluice_status sl_engine_make_plan(sluice_engine *engine, const sluice_engine_options *options,
                                                   sluice_error *error);

/* The plan of a running engine with another budget: `plan` is the present one, with the new budget in it. Everything
 * but the slots stays. BUDGET leaves it filled. */
SLUICE_NODISCARD sluice_status sl_engine_plan_again(const sluice_engine *engine, sluice_memory_plan *plan,
                                                    sluice_error *error);

/* What memory there is; bytes. */
typedef struct sl_memory_limits {
    uint64_t cgroup_bytes;    /* UINT64_MAX: no limit */
    uint64_t available_bytes; /* 0: unknown */
    uint64_t free_bytes;      /* and used for nothing, not even a cache; 0: unknown */
    uint64_t physical_bytes;  /* 0: unknown */
    uint64_t held_bytes;      /* by the engine already, which is therefore not available */
} sl_memory_limits;
/* The budget that is taken when none is given (engine/budget.c). */
uint64_t sl_budget_within(const sl_memory_limits *limits);
/* Whether an engine with every expert in memory finds that memory beside a page cache that has the whole model, so that none
 * of it gives way. */
bool sl_cache_stays_within(const sl_memory_limits *limits, uint64_t resident_bytes, uint64_t model_bytes);
uint64_t sl_engine_automatic_budget(const sluice_engine *engine);
bool sl_engine_cache_stays(const sluice_engine *engine);

/* Bytes of one session's caches, and where a state of the body graph starts in them. */
uint64_t sl_engine_kv_bytes(const sluice_engine *engine);
uint64_t sl_engine_state_bytes(const sluice_engine *engine, sl_value state);
/* Bytes a session takes beside its caches, as ACTIVATIONS. */
uint64_t sl_session_cost(const sluice_engine *engine);
/* The bucket for `rows`, 1 to SL_MAX_CHUNK. */
uint32_t sl_engine_bucket(const sluice_engine *engine, uint32_t rows);
/* Routing of a session (engine/routing.c): what its capture costs and holds, and the end of a chunk of `n_rows`. */
uint64_t sl_session_routing_cost(const sluice_engine *engine);
SLUICE_NODISCARD bool sl_session_routing_allocate(sluice_session *session);
void sl_session_routing_free(sluice_session *session);
size_t sl_session_routing_stride(const sluice_engine *engine);
SLUICE_NODISCARD sluice_status sl_session_routing_take(sluice_session *session, uint32_t n_rows, sluice_error *error);

/* sluice_engine_open with faults injected into the reads of dense weights and experts; `faults` is borrowed until close. For tests. */
SLUICE_NODISCARD sluice_status sl_engine_open_with_faults(sluice_engine **out, const sluice_engine_options *options,
                                                          sl_read_fault_plan *faults, sluice_error *error);

#endif
