/* Sluice: run Mixture-of-Experts language models that are bigger than memory.
 *
 * An engine holds one model: its dense weights in memory and an arena of expert slots, filled from the GGUF file on
 * demand. Sessions of an engine each have their own KV cache and position. Nothing is shared between engines: several,
 * with different models, may live in one process.
 *
 * Ownership: whoever opens closes; close functions take the address of the pointer and set it to NULL; NULL is ignored.
 * Strings in options are read during the call that takes them. Threads: an engine may be used by several threads at
 * once, a session or a sampler by one at a time. The library never exits, aborts or prints. */
#ifndef SLUICE_SLUICE_H
#define SLUICE_SLUICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sluice/errors.h"

#ifdef __cplusplus
extern "C" {
#endif

/* "0.1.0" */
SLUICE_API const char *sluice_version(void);

/* ---- Files: what is in a GGUF file, without loading it ----------------------------------------------------------- */

typedef struct sluice_file sluice_file;

/* Open a GGUF file or split set and check its structure. */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_file_open(sluice_file **out, const char *path, sluice_error *error);
SLUICE_API void sluice_file_close(sluice_file **file);

typedef struct sluice_file_summary {
    uint32_t version;    /* of the format */
    uint32_t n_files;    /* above 1: a split set */
    uint64_t file_bytes; /* of all files */
    uint64_t alignment;
    uint64_t n_values; /* metadata entries */
    uint64_t n_tensors;
    const char *architecture; /* "qwen3moe"; "" when absent; valid until close */
    /* The rest is 0 or false when no supported family is recognised; `unsupported` then says why. */
    bool supported;
    const char *unsupported;
    uint32_t n_layers, n_expert_layers, n_experts, n_experts_used;
    uint64_t dense_bytes;      /* weights every token needs */
    uint64_t expert_bytes;     /* all experts */
    uint64_t max_expert_bytes; /* the largest single expert */
} sluice_file_summary;
SLUICE_API void sluice_file_summarize(const sluice_file *file, sluice_file_summary *summary);

SLUICE_API const char *sluice_file_path(const sluice_file *file, uint32_t index);

typedef struct sluice_file_value {
    const char *key;  /* valid until close */
    const char *type; /* "u32", "string", "array of string", ... */
    uint64_t count;   /* elements of an array, else 1 */
} sluice_file_value;
/* false past the end. */
SLUICE_API bool sluice_file_value_at(const sluice_file *file, uint64_t index, sluice_file_value *value);
/* The value as text into `buffer` (cut, always NUL-terminated): numbers, strings with control bytes escaped, arrays as
 * "[a, b, ...]" with as many elements as fit. Returns the bytes written without the NUL. */
SLUICE_API size_t sluice_file_value_text(const sluice_file *file, uint64_t index, char *buffer, size_t capacity);

typedef struct sluice_file_tensor {
    const char *name; /* valid until close */
    const char *type; /* "Q4_K" */
    uint32_t n_dims;
    uint64_t dims[4]; /* dims[0] is contiguous */
    uint32_t file;    /* index of the file of a split set */
    uint64_t offset;  /* absolute, bytes */
    uint64_t bytes;
} sluice_file_tensor;
SLUICE_API bool sluice_file_tensor_at(const sluice_file *file, uint64_t index, sluice_file_tensor *tensor);

/* Where the experts of one MoE layer lie. */
typedef struct sluice_file_expert_layer {
    uint32_t layer; /* of the model */
    uint32_t n_experts;
    uint64_t expert_bytes; /* of one expert: gate, up and down */
    const char *types[3];  /* of gate, up, down */
    uint32_t files[3];
    uint64_t first_offset[3]; /* of expert 0's matrices */
    uint64_t stride[3];       /* from expert to expert; 0 when each lies for itself */
} sluice_file_expert_layer;
SLUICE_API bool sluice_file_expert_layer_at(const sluice_file *file, uint32_t index, sluice_file_expert_layer *layer);

/* ---- Vocabulary: text to tokens and back, without loading weights ------------------------------------------------ */

typedef struct sluice_vocabulary sluice_vocabulary;

SLUICE_API SLUICE_NODISCARD sluice_status sluice_vocabulary_open(sluice_vocabulary **out, const char *path,
                                                                 sluice_error *error);
SLUICE_API void sluice_vocabulary_close(sluice_vocabulary **vocabulary);
SLUICE_API uint32_t sluice_vocabulary_size(const sluice_vocabulary *vocabulary);
SLUICE_API bool sluice_vocabulary_is_stop(const sluice_vocabulary *vocabulary, int32_t token);

/* Encode `length` bytes. `add_special` puts BOS and EOS by the file's rules; `parse_special` turns texts of control
 * tokens into those tokens. `*tokens` is freed with sluice_free. */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_tokenize(const sluice_vocabulary *vocabulary, const char *text,
                                                          size_t length, bool add_special, bool parse_special,
                                                          int32_t **tokens, size_t *n_tokens, sluice_error *error);
/* Decode. `*text` is NUL-terminated (the bytes may hold NUL too) and freed with sluice_free. */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_detokenize(const sluice_vocabulary *vocabulary, const int32_t *tokens,
                                                            size_t n_tokens, bool show_special, char **text,
                                                            size_t *length, sluice_error *error);
SLUICE_API void sluice_free(void *pointer);

/* ---- Engine ------------------------------------------------------------------------------------------------------ */

typedef struct sluice_engine sluice_engine;

typedef enum sluice_log_level {
    SLUICE_LOG_ERROR,
    SLUICE_LOG_WARNING,
    SLUICE_LOG_INFO,
    SLUICE_LOG_DEBUG,
    SLUICE_LOG_TRACE
} sluice_log_level;

/* Q8_0 takes 34 bytes for 32 elements, and heads of a multiple of 32 elements. */
typedef enum sluice_kv_type { SLUICE_KV_F16, SLUICE_KV_F32, SLUICE_KV_Q8_0 } sluice_kv_type;

/* Memory from the caller. `allocate` returns at least `bytes` bytes aligned to `alignment` (a power of two) or NULL.
 * Expert slots are not allocated: the engine maps their pages, so that it can give them back to the system while it
 * runs. It asks `charge` whether it may take `bytes` more of them, and tells `discharge` what it gave back; both may be
 * NULL. All are called from any thread. */
typedef struct sluice_allocator {
    void *(*allocate)(void *user, size_t bytes, size_t alignment);
    void (*release)(void *user, void *pointer);
    bool (*charge)(void *user, size_t bytes);
    void (*discharge)(void *user, size_t bytes);
    void *user; /* borrowed until the engine is closed */
} sluice_allocator;

typedef struct sluice_engine_options {
    const char *model_path;
    uint64_t mem_budget_bytes; /* of the whole process; 0: found, see sluice_engine_plan */
    uint32_t context_length;   /* positions of a session's KV cache; 0: the smaller of the model's and 4096 */
    uint32_t n_sessions;       /* KV caches to plan for; 0: 1 */
    uint32_t n_threads;        /* 0: usable physical cores */
    uint32_t prefill_chunk;    /* tokens at once, 1 to 512; 0: the most the budget allows up to 512 */
    sluice_kv_type kv_type;
    bool capture_routing; /* room in every session for the routing of one evaluation: sluice_session_capture_routing */
    const char *cpu_mask; /* "auto" (NULL), "generic", "avx2", "avx512", "amx", "neon" */
    const char *io;       /* "auto" (NULL), "uring", "pread" */
    const char *prefetch; /* "auto" (NULL), "none", "previous", "router" */
    const char *policy;   /* "auto" (NULL), "lru", "lfru", "pinned", "placement", "reuse": which expert gives way */
    const char *policy_trace; /* "pinned" alone, which needs it: a recording (sluice_session_record_routing) whose most
                                 used experts stay in memory */
    void (*log)(void *user, sluice_log_level level, const char *line); /* may be NULL; any thread */
    void *log_user;
    sluice_log_level log_level;
    /* Loading: called now and then from the opening thread; false cancels. May be NULL. */
    bool (*progress)(void *user, uint64_t done_bytes, uint64_t total_bytes);
    void *progress_user;
    const sluice_allocator *allocator; /* NULL: the C library */
} sluice_engine_options;

/* All zero, which means the defaults above. */
SLUICE_API void sluice_engine_options_init(sluice_engine_options *options);

/* What an engine uses of its budget, known before a weight is read; bytes. The parts from dense to other, and n_slots
 * times slot_bytes, are what sluice_engine_stats has by tag once all planned sessions are open. */
typedef struct sluice_memory_plan {
    uint64_t budget_bytes;
    uint64_t process_bytes;    /* program, libraries, thread stacks, page tables */
    uint64_t dense_bytes;      /* dense weights */
    uint64_t kv_bytes;         /* all planned sessions */
    uint64_t activation_bytes; /* arenas and logits of all planned sessions */
    uint64_t io_bytes;
    uint64_t text_bytes;     /* vocabulary */
    uint64_t other_bytes;    /* metadata, graphs, programs */
    uint64_t slot_bytes;     /* of one expert slot */
    uint64_t n_slots;        /* what the rest of the budget buys */
    uint64_t minimum_slots;  /* what one layer of one token needs */
    uint64_t maximum_slots;  /* every expert of every layer */
    uint64_t total_bytes;    /* what will be used: at most the budget */
    uint64_t floor_bytes;    /* the smallest budget that works with these options */
    uint64_t resident_bytes; /* the smallest budget in which every expert stays in memory */
    uint32_t prefill_chunk;  /* tokens at once */
    uint32_t context_length;
} sluice_memory_plan;

/* Read headers only and plan. A budget of 0 is the smallest of physical memory, available memory and the limits of all
 * memory cgroups above this process (version 1 and 2), less a reserve of a sixteenth, at most 256 MiB; one that is given
 * is taken as it is. SLUICE_ERROR_BUDGET, with a sentence that names every part and the floor, when it cannot
 * fit; `plan` is filled then too. */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_engine_plan(const sluice_engine_options *options,
                                                             sluice_memory_plan *plan, sluice_error *error);

/* Plan, then load the dense weights. Errors: as the plan; NOT_FOUND, IO, FORMAT, UNSUPPORTED, NO_MEMORY, SYSTEM,
 * CANCELLED. */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_engine_open(sluice_engine **out, const sluice_engine_options *options,
                                                             sluice_error *error);
/* All sessions must be closed. */
SLUICE_API void sluice_engine_close(sluice_engine **engine);

SLUICE_API const sluice_vocabulary *sluice_engine_vocabulary(const sluice_engine *engine);
/* The plan in force. Safe from any thread. */
SLUICE_API void sluice_engine_memory_plan_get(sluice_engine *engine, sluice_memory_plan *plan);
/* Change the budget while the engine runs: how many experts stay in memory follows, results do not. The chunk and the
 * sessions stay as planned at open, so floor_bytes is now the floor with these. 0: found again, as at open; what the
 * engine holds counts as available. Safe from any thread while sessions run, but not from a log function.
 *
 * Raising makes room at once. Lowering evicts the experts in the last slots, whatever they are worth, and returns when
 * the memory is back with the kernel; an evaluation in progress goes on, its step holds the call up only while it
 * computes with experts that are to go. `plan` (may be NULL) receives the new plan, also a refused one.
 *
 * Errors, with nothing changed: BUDGET below the floor, with a sentence that names every part; NO_MEMORY; SYSTEM where
 * the system had no addresses for so many slots when the engine was opened. SYSTEM also when the kernel does not take
 * the memory back: the experts are gone then, and the plan stays. */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_engine_set_budget(sluice_engine *engine, uint64_t mem_budget_bytes,
                                                                   sluice_memory_plan *plan, sluice_error *error);
SLUICE_API uint32_t sluice_engine_n_vocab(const sluice_engine *engine);
SLUICE_API const char *sluice_engine_model_name(const sluice_engine *engine); /* general.name, or the file's name */
SLUICE_API const char *sluice_engine_isa(const sluice_engine *engine);        /* "avx2" */
SLUICE_API const char *sluice_engine_io_backend(const sluice_engine *engine); /* "uring, direct" */
SLUICE_API uint32_t sluice_engine_n_threads(const sluice_engine *engine);

/* The compiled graphs of the model for `rows` tokens at once, with their memory plans, as text; freed with sluice_free.
 */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_engine_dump_graph(sluice_engine *engine, uint32_t rows, char **text,
                                                                   sluice_error *error);

/* Counters of the expert store and memory since open. */
typedef struct sluice_engine_stats {
    uint64_t expert_requests, expert_hits, expert_misses, expert_evictions;
    uint64_t bytes_read;
    uint64_t expert_bytes;     /* bytes of the experts that were read, alone */
    double io_wait_ms;         /* waited with nothing to compute */
    double io_busy_ms;         /* at least one read in flight */
    uint64_t prefetch_issued;  /* experts read ahead of being asked for */
    uint64_t prefetch_used;    /* of them, asked for later */
    uint64_t prefetch_late;    /* of those, still on their way then */
    uint64_t prefetch_useless; /* of the issued ones, gone before anyone asked */
    uint64_t mem_peak_bytes;   /* the kernel's figure for the process */
    uint64_t mem_by_tag[7];    /* now; sluice_memory_tag_name gives the names */
} sluice_engine_stats;
SLUICE_API void sluice_engine_stats_get(sluice_engine *engine, sluice_engine_stats *stats);
SLUICE_API void sluice_engine_stats_reset(sluice_engine *engine);
enum { SLUICE_MEMORY_TAGS = 7 };
SLUICE_API const char *sluice_memory_tag_name(uint32_t tag);

/* ---- Sessions ---------------------------------------------------------------------------------------------------- */

typedef struct sluice_session sluice_session;

SLUICE_API SLUICE_NODISCARD sluice_status sluice_session_open(sluice_session **out, sluice_engine *engine,
                                                              sluice_error *error);
SLUICE_API void sluice_session_close(sluice_session **session);

/* Positions evaluated so far. */
SLUICE_API uint32_t sluice_session_position(const sluice_session *session);
/* Forget everything: position 0, an empty cache, logits hash of nothing. */
SLUICE_API void sluice_session_reset(sluice_session *session);

typedef enum sluice_logits_want { SLUICE_LOGITS_NONE, SLUICE_LOGITS_LAST, SLUICE_LOGITS_ALL } sluice_logits_want;

/* Receives the logits of one position, [n_vocab], valid during the call; positions come in order. false stops the
 * evaluation with SLUICE_ERROR_CANCELLED. */
typedef bool sluice_logits_fn(void *user, uint32_t position, const float *logits);

/* Evaluate tokens at the next positions, in chunks. Logits are computed for the positions wanted; `on_logits` may be
 * NULL with NONE or when sluice_session_logits is used after LAST. After an error the position is that of the last
 * whole chunk, and the session can go on. Errors: ARGUMENT (token outside the vocabulary, context full), IO, CHANGED,
 * CANCELLED. */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_session_eval(sluice_session *session, const int32_t *tokens,
                                                              size_t n_tokens, sluice_logits_want want,
                                                              sluice_logits_fn *on_logits, void *user,
                                                              sluice_error *error);
/* The last logits computed, [n_vocab], valid until the next eval; NULL before any. */
SLUICE_API const float *sluice_session_logits(const sluice_session *session);
/* 64-bit hash over all logits rows delivered since open or reset, in order. */
SLUICE_API uint64_t sluice_session_logits_hash(const sluice_session *session);

/* Make the evaluation or generation in progress, or the next one, end with SLUICE_ERROR_CANCELLED. Safe from any thread
 * and from a signal handler. */
SLUICE_API void sluice_session_cancel(sluice_session *session);

/* ---- Experts: what the router chose, and where they were -----------------------------------------------------------
 *
 * Layers are those that have experts, counted from 0 without the others. */

typedef struct sluice_expert_shape {
    uint32_t n_layers;
    uint32_t n_experts; /* per layer */
    uint32_t n_used;    /* by each token in each layer */
} sluice_expert_shape;
SLUICE_API void sluice_engine_expert_shape(const sluice_engine *engine, sluice_expert_shape *shape);

/* Keep what the router chose in each evaluation from now on, or stop. Each evaluation begins with nothing kept; one
 * that fails keeps its whole chunks. ARGUMENT when the engine was opened without capture_routing. */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_session_capture_routing(sluice_session *session, bool on,
                                                                         sluice_error *error);
/* The choices of one layer for the tokens of the last evaluation, in order: (*experts)[token * *n_used + rank], valid
 * until the next evaluation. 0 tokens when nothing is kept; false for a layer out of range. */
SLUICE_API bool sluice_session_routing(const sluice_session *session, uint32_t layer, const uint32_t **experts,
                                       uint32_t *n_tokens, uint32_t *n_used);

/* Write the routing of all further evaluations to a file, chunk by chunk; turns capturing on. The file appears when the
 * recording is finished, and not at all when the session is closed before. ARGUMENT when the engine was opened without
 * capture_routing, or during a recording. An evaluation whose chunk cannot be written fails with IO, and the recording
 * is over; its tokens count as evaluated. */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_session_record_routing(sluice_session *session, const char *path,
                                                                        sluice_error *error);
/* Does nothing without a recording. */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_session_finish_recording(sluice_session *session, sluice_error *error);

/* What a session asked of its experts since open or the last reset of these counters, by tier: in memory when asked
 * for, or read. A call is one expert's turn in one chunk, its tokens are those routed to it. */
typedef struct sluice_expert_use {
    uint64_t memory_calls, memory_tokens;
    uint64_t read_calls, read_tokens;
} sluice_expert_use;
/* false for a layer out of range. */
SLUICE_API bool sluice_session_expert_use(const sluice_session *session, uint32_t layer, sluice_expert_use *use);
SLUICE_API void sluice_session_expert_use_total(const sluice_session *session, sluice_expert_use *use);
SLUICE_API void sluice_session_expert_use_reset(sluice_session *session);

/* Which experts are in memory now, as a mask: word e / 64, bit e % 64; n_words words are written. What is missing
 * counts as in memory: experts past the last, and every expert of a layer that does not exist. */
SLUICE_API void sluice_engine_residency(sluice_engine *engine, uint32_t layer, uint64_t *mask, uint32_t n_words);
/* Those that are in memory in any layer. */
SLUICE_API void sluice_engine_merged_residency(sluice_engine *engine, uint64_t *mask, uint32_t n_words);
/* One bit of a mask; true past its end, and without a mask (NULL). */
SLUICE_API bool sluice_residency_has(const uint64_t *mask, uint32_t n_words, uint32_t expert);

/* ---- Sampling and generation ------------------------------------------------------------------------------------- */

typedef struct sluice_sampling {
    float temperature;        /* 0: greedy */
    uint32_t top_k;           /* 0: off */
    float top_p;              /* 1: off */
    float min_p;              /* 0: off */
    float repetition_penalty; /* 1: off */
    uint32_t penalty_window;  /* last tokens it looks at */
    uint64_t seed;
} sluice_sampling;

/* temperature 0.8, top_k 40, top_p 0.95, min_p 0.05, penalty 1 over 64 tokens, seed 0. */
SLUICE_API void sluice_sampling_init(sluice_sampling *sampling);

/* A piece of text, whole UTF-8 characters only (bytes that are no UTF-8 come as they are). false ends the generation,
 * which then succeeds. */
typedef bool sluice_text_fn(void *user, const char *bytes, size_t length);

typedef struct sluice_generation {
    const int32_t *prompt; /* borrowed during the call */
    size_t n_prompt;       /* at least 1 */
    uint32_t max_tokens;   /* 0: until the context is full */
    bool ignore_eos;       /* go on after a stop token */
    sluice_sampling sampling;
    sluice_text_fn *on_text; /* may be NULL */
    /* Prefill progress; may be NULL. */
    void (*on_prefill)(void *user, size_t done_tokens, size_t n_tokens);
    void *user;
} sluice_generation;

typedef struct sluice_generation_result {
    uint32_t prompt_tokens;
    uint32_t generated_tokens;
    bool stopped;      /* by a stop token */
    double prefill_ms; /* evaluating the prompt */
    double ttft_ms;    /* from the call to the first token */
    double decode_ms;  /* from the first token to the last */
    double prefill_tok_s;
    double decode_tok_s; /* 0 with fewer than 2 tokens */
} sluice_generation_result;

/* Evaluate the prompt at the session's position, then draw tokens. `result` is filled up to where it came, also on
 * failure and on cancel. */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_session_generate(sluice_session *session,
                                                                  const sluice_generation *generation,
                                                                  sluice_generation_result *result,
                                                                  sluice_error *error);

/* ---- Quantising -------------------------------------------------------------------------------------------------- */

typedef struct sluice_quantize_options {
    const char *type; /* "Q4_K", "Q8_0", "F16", ...: for matrices; vectors and routers stay F32 */
    /* Overrides for matrices and stacks of them, routers included, first match wins: "pattern=TYPE" with * and ? in the
     * pattern, as in "*ffn_down_exps*=Q5_0". */
    const char *const *overrides; /* [n_overrides] */
    size_t n_overrides;
    uint32_t n_threads; /* 0: usable cores */
    /* false cancels; may be NULL. */
    bool (*progress)(void *user, uint64_t done_bytes, uint64_t total_bytes, const char *tensor);
    void *user;
} sluice_quantize_options;

typedef struct sluice_quantize_result {
    uint64_t input_bytes, output_bytes;
    uint64_t n_tensors, n_converted;
    uint64_t n_fallback; /* rows that do not divide into the type's blocks and took another type */
} sluice_quantize_result;

/* Write `output_path` with other tensor types. It appears under that name only when complete. A row that is no multiple
 * of the type's block falls back to a 32-wide type of at least the same precision. Requantising an already quantised
 * input is allowed. */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_quantize(const char *input_path, const char *output_path,
                                                          const sluice_quantize_options *options,
                                                          sluice_quantize_result *result, sluice_error *error);

#ifdef __cplusplus
}
#endif
#endif
