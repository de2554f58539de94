/* Owns nothing between calls: evaluates a prompt, then draws tokens one by one and hands out their text.
 *
 * Invariants: text leaves in whole UTF-8 characters; the result is right for as far as it came whatever ends the
 * generation; what is drawn depends on logits, sampling options and the number of draws alone. */
#include "engine/engine.h"

#include "os/clock.h"
#include "text/sampler.h"

typedef struct generator {
    sluice_session *session;
    const sluice_generation *generation;
    sluice_generation_result *result;
    sl_sampler *sampler; /* owned */
    sl_text piece;       /* bytes of the token just drawn */
    sl_text ready;       /* whole characters to hand out */
    sl_utf8_stream stream;
} generator;

void sluice_sampling_init(sluice_sampling *sampling)
{
    *sampling = (sluice_sampling){.temperature = 0.8f,
                                  .top_k = 40,
                                  .top_p = 0.95f,
                                  .min_p = 0.05f,
                                  .repetition_penalty = 1.0f,
                                  .penalty_window = 64};
}

static double milliseconds_since(uint64_t start_ns)
{
    return (double)(sl_clock_ns() - start_ns) * 1e-6;
}

static sluice_status prefill(generator *self, sluice_error *error)
{
    const sluice_generation *generation = self->generation;
    uint32_t chunk = self->session->engine->plan.prefill_chunk;
    uint64_t start_ns = sl_clock_ns();
    for (size_t done = 0; done < generation->n_prompt;) {
        size_t n_tokens = generation->n_prompt - done < chunk ? generation->n_prompt - done : chunk;
        bool is_last = done + n_tokens == generation->n_prompt;
        SL_TRY(sluice_session_eval(self->session, generation->prompt + done, n_tokens,
                                   is_last ? SLUICE_LOGITS_LAST : SLUICE_LOGITS_NONE, NULL, NULL, error));
        done += n_tokens;
        self->result->prompt_tokens = (uint32_t)done;
        self->result->prefill_ms = milliseconds_since(start_ns);
        self->result->prefill_tok_s = (double)done * 1e3 / self->result->prefill_ms;
        if (generation->on_prefill != NULL) {
            generation->on_prefill(generation->user, done, generation->n_prompt);
        }
    }
    for (size_t i = 0; i < generation->n_prompt; i++) {
        sl_sampler_accept(self->sampler, generation->prompt[i]);
    }
    return SLUICE_OK;
}

/* Hand out what is complete; false when the receiver wants no more. */
static bool hand_out(generator *self)
{
    bool go_on = true;
    if (self->ready.length > 0 && self->generation->on_text != NULL) {
        go_on = self->generation->on_text(self->generation->user, self->ready.data, self->ready.length);
    }
    self->ready.length = 0;
    return go_on;
}

static sluice_status emit(generator *self, int32_t token, bool *go_on, sluice_error *error)
{
    self->piece.length = 0;
    SL_TRY(sl_tokenizer_piece(self->session->engine->vocabulary.tokenizer, token, false, &self->piece, error));
    if (self->piece.length > 0 &&
        !sl_utf8_stream_push(&self->stream, self->piece.data, self->piece.length, &self->ready)) {
        return sl_error_no_memory(error, self->piece.length, "generated text");
    }
    *go_on = hand_out(self);
    return SLUICE_OK;
}

static sluice_status decode(generator *self, uint64_t call_ns, sluice_error *error)
{
    const sluice_generation *generation = self->generation;
    sluice_generation_result *result = self->result;
    const sluice_engine *engine = self->session->engine;
    uint32_t space = engine->plan.context_length - self->session->position;
    /* The last token drawn needs no position of its own. */
    uint32_t limit =
        generation->max_tokens == 0 || generation->max_tokens > space + 1 ? space + 1 : generation->max_tokens;
    uint64_t first_ns = 0;
    for (bool go_on = true; go_on && result->generated_tokens < limit;) {
        int32_t token = sl_sampler_draw(self->sampler, sluice_session_logits(self->session));
        if (result->generated_tokens == 0) {
            first_ns = sl_clock_ns();
            result->ttft_ms = milliseconds_since(call_ns);
        }
        result->generated_tokens++;
        result->decode_ms = milliseconds_since(first_ns);
        if (result->generated_tokens > 1) {
            result->decode_tok_s = (result->generated_tokens - 1) * 1e3 / result->decode_ms;
        }
        if (!generation->ignore_eos && sl_tokenizer_is_stop(engine->vocabulary.tokenizer, token)) {
            result->stopped = true;
            return SLUICE_OK;
        }
        SL_TRY(emit(self, token, &go_on, error));
        if (go_on && result->generated_tokens < limit) {
            SL_TRY(sluice_session_eval(self->session, &token, 1, SLUICE_LOGITS_LAST, NULL, NULL, error));
        }
    }
    return SLUICE_OK;
}

sluice_status sluice_session_generate(sluice_session *session, const sluice_generation *generation,
                                      sluice_generation_result *result, sluice_error *error)
{
    *result = (sluice_generation_result){0};
    uint64_t call_ns = sl_clock_ns();
    if (generation->n_prompt == 0) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "the prompt is empty: a model needs at least one token");
    }
    sluice_engine *engine = session->engine;
    uint32_t context_length = engine->plan.context_length;
    if (generation->n_prompt > context_length - session->position) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "the prompt has %zu tokens, but of the context's %u positions %u are taken; use a larger "
                            "--ctx or a shorter prompt",
                            generation->n_prompt, context_length, session->position);
    }
    const sluice_sampling *sampling = &generation->sampling;
    sl_sampler_options options = {.temperature = sampling->temperature,
                                  .top_k = sampling->top_k,
                                  .top_p = sampling->top_p,
                                  .min_p = sampling->min_p,
                                  .repetition_penalty = sampling->repetition_penalty,
                                  .penalty_window = sampling->penalty_window,
                                  .seed = sampling->seed};
    generator self = {.session = session, .generation = generation, .result = result};
    /* The embedding may have more rows than there are tokens; only tokens are drawn. */
    uint32_t n_tokens = sl_tokenizer_size(engine->vocabulary.tokenizer);
    SL_TRY(sl_sampler_open(&self.sampler, &options, n_tokens, &engine->memory, error));
    sl_text_init(&self.piece, &engine->memory, SL_MEMORY_TEXT);
    sl_text_init(&self.ready, &engine->memory, SL_MEMORY_TEXT);
    sluice_status status = prefill(&self, error);
    if (status == SLUICE_OK) {
        status = decode(&self, call_ns, error);
    }
    if (sl_utf8_stream_flush(&self.stream, &self.ready)) {
        hand_out(&self);
    }
    sl_text_fini(&self.ready);
    sl_text_fini(&self.piece);
    sl_sampler_close(&self.sampler);
    return status;
}
