/* The eviction policy as an option of the engine: what is planned, said and refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../support/engine_account.h"
#include "experts/recording.h"
#include "sluice/sluice.h"

static const char model_path[] = "tests/golden/models/qwen3moe.gguf";
static const int32_t tokens[] = {5, 17, 40, 99, 3, 61, 200, 7, 8, 120};
static const char *const policies[] = {"lru", "lfru", "pinned", "placement", "reuse"};
enum { N_POLICIES = 5, N_TOKENS = 10 };

static char trace_path[] = P_tmpdir "/sluice-policy-XXXXXX";

static sluice_engine_options options_of(const char *policy)
{
    sluice_engine_options options;
    sluice_engine_options_init(&options);
    options.model_path = model_path;
    options.context_length = 32;
    options.n_threads = 1;
    options.prefill_chunk = 4;
    options.policy = policy;
    options.policy_trace = policy != NULL && strcmp(policy, "pinned") == 0 ? trace_path : NULL;
    options.capture_routing = true;
    return options;
}

static sluice_engine *open_engine(const sluice_engine_options *options)
{
    sluice_engine *engine = NULL;
    sluice_error error;
    if (sluice_engine_open(&engine, options, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    return engine;
}

static int record_trace(void **state)
{
    (void)state;
    int descriptor = mkstemp(trace_path);
    if (descriptor < 0) {
        return -1;
    }
    close(descriptor);
    sluice_engine_options options = options_of(NULL);
    sluice_engine *engine = NULL;
    sluice_session *session = NULL;
    sluice_status status = sluice_engine_open(&engine, &options, NULL);
    status = status == SLUICE_OK ? sluice_session_open(&session, engine, NULL) : status;
    status = status == SLUICE_OK ? sluice_session_record_routing(session, trace_path, NULL) : status;
    status = status == SLUICE_OK ? sluice_session_eval(session, tokens, N_TOKENS, SLUICE_LOGITS_LAST, NULL, NULL, NULL)
                                 : status;
    status = status == SLUICE_OK ? sluice_session_finish_recording(session, NULL) : status;
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    return status == SLUICE_OK ? 0 : -1;
}

static int remove_trace(void **state)
{
    (void)state;
    return unlink(trace_path);
}

/* An engine with its planned session takes what was planned. */
static void check_plan_of(const char *policy, uint64_t budget_bytes)
{
    sluice_engine_options options = options_of(policy);
    options.mem_budget_bytes = budget_bytes;
    sluice_engine *engine = open_engine(&options);
    sluice_session *session = NULL;
    assert_int_equal(sluice_session_open(&session, engine, NULL), SLUICE_OK);
    (void)expect_account_as_planned(engine);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
}

static uint64_t floor_of(const char *policy)
{
    sluice_engine_options options = options_of(policy);
    options.mem_budget_bytes = 1;
    sluice_memory_plan plan;
    assert_int_equal(sluice_engine_plan(&options, &plan, NULL), SLUICE_ERROR_BUDGET);
    return plan.floor_bytes;
}

static void what_a_policy_takes_is_planned(void **state)
{
    (void)state;
    for (int i = 0; i < N_POLICIES; i++) {
        check_plan_of(policies[i], 0);
        check_plan_of(policies[i], floor_of(policies[i]));
        assert_true(i == 0 || floor_of(policies[i]) > floor_of("lru"));
    }
}

/* Counts what an engine holds. Every block begins with its size. */
typedef struct measuring_allocator {
    uint64_t held_bytes, peak_bytes;
} measuring_allocator;
enum { SIZE_ROOM = 4096 };

static bool measured_charge(void *user, size_t bytes)
{
    measuring_allocator *self = user;
    self->held_bytes += bytes;
    self->peak_bytes = self->held_bytes > self->peak_bytes ? self->held_bytes : self->peak_bytes;
    return true;
}

static void measured_discharge(void *user, size_t bytes)
{
    measuring_allocator *self = user;
    self->held_bytes -= bytes;
}

static void *measured_allocate(void *user, size_t bytes, size_t alignment)
{
    size_t room = alignment > SIZE_ROOM ? alignment : SIZE_ROOM;
    char *block = aligned_alloc(room, (room + bytes + room - 1) / room * room);
    if (block == NULL) {
        return NULL;
    }
    char *given = block + room;
    memcpy(given - sizeof bytes, &bytes, sizeof bytes);
    memcpy(given - sizeof bytes - sizeof block, &block, sizeof block);
    measured_charge(user, bytes);
    return given;
}

static void measured_release(void *user, void *pointer)
{
    size_t bytes = 0;
    char *block = NULL;
    memcpy(&bytes, (char *)pointer - sizeof bytes, sizeof bytes);
    memcpy(&block, (char *)pointer - sizeof bytes - sizeof block, sizeof block);
    measured_discharge(user, bytes);
    free(block);
}

/* The same routing again and again. */
static void write_long_trace(const char *path, uint32_t n_chunks)
{
    sl_recording_reader reader;
    sl_recording_writer writer;
    uint32_t experts[64] = {0};
    assert_int_equal(sl_recording_open(&reader, trace_path, NULL), SLUICE_OK);
    assert_true(reader.shape.n_used <= 64);
    for (uint32_t rank = 0; rank < reader.shape.n_used; rank++) {
        experts[rank] = rank;
    }
    assert_int_equal(sl_recording_create(&writer, path, &reader.shape, NULL), SLUICE_OK);
    for (uint32_t i_chunk = 0; i_chunk < n_chunks; i_chunk++) {
        assert_int_equal(sl_recording_append(&writer, experts, 0, 1, NULL), SLUICE_OK);
    }
    assert_int_equal(sl_recording_commit(&writer, NULL), SLUICE_OK);
    sl_recording_discard(&writer);
    sl_recording_close(&reader);
}

static void a_long_recording_does_not_break_the_budget(void **state)
{
    (void)state;
    char path[sizeof trace_path + 8];
    snprintf(path, sizeof path, "%s.long", trace_path);
    write_long_trace(path, 300000);
    measuring_allocator measuring = {0};
    const sluice_allocator allocator = {.allocate = measured_allocate,
                                        .release = measured_release,
                                        .charge = measured_charge,
                                        .discharge = measured_discharge,
                                        .user = &measuring};
    sluice_engine_options options = options_of("pinned");
    options.policy_trace = path;
    options.mem_budget_bytes = floor_of("pinned");
    options.allocator = &allocator;
    sluice_engine *engine = open_engine(&options);
    sluice_memory_plan plan;
    sluice_engine_memory_plan_get(engine, &plan);
    assert_true(measuring.peak_bytes <= plan.total_bytes - plan.process_bytes);
    sluice_engine_close(&engine);
    assert_int_equal(measuring.held_bytes, 0);
    unlink(path);
}

typedef struct heard {
    const char *policy;
    bool said;
} heard;

static void listen(void *user, sluice_log_level level, const char *line)
{
    (void)level;
    heard *self = user;
    char expected[40];
    snprintf(expected, sizeof expected, ", policy %s", self->policy);
    self->said = self->said || strstr(line, expected) != NULL;
}

static void the_log_names_the_policy(void **state)
{
    (void)state;
    for (int i = 0; i < N_POLICIES; i++) {
        heard ear = {.policy = policies[i]};
        sluice_engine_options options = options_of(policies[i]);
        options.log = listen;
        options.log_user = &ear;
        options.log_level = SLUICE_LOG_INFO;
        sluice_engine *engine = open_engine(&options);
        assert_true(ear.said);
        sluice_engine_close(&engine);
    }
}

static void expect_refused(const sluice_engine_options *options, sluice_status status, const char *part)
{
    sluice_engine *engine = NULL;
    sluice_error error = {0};
    assert_int_equal(sluice_engine_open(&engine, options, &error), status);
    assert_null(engine);
    if (strstr(error.message, part) == NULL) {
        fail_msg("%s", error.message);
    }
}

static void what_makes_no_sense_is_refused(void **state)
{
    (void)state;
    sluice_engine_options options = options_of("random");
    expect_refused(&options, SLUICE_ERROR_ARGUMENT, "unknown policy 'random'");
    options = options_of("pinned");
    options.policy_trace = NULL;
    expect_refused(&options, SLUICE_ERROR_ARGUMENT, "--policy-trace");
    options = options_of("lru");
    options.policy_trace = trace_path;
    expect_refused(&options, SLUICE_ERROR_ARGUMENT, "does not use a recording");
    options = options_of("pinned");
    options.policy_trace = "tests/golden/routing/tales.routing"; /* of another model */
    expect_refused(&options, SLUICE_ERROR_FORMAT, "record the routing of this model");
    options.policy_trace = "/nowhere/routing";
    expect_refused(&options, SLUICE_ERROR_NOT_FOUND, "/nowhere/routing");
    options.policy_trace = model_path;
    expect_refused(&options, SLUICE_ERROR_FORMAT, "no part of a recording");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_policy_takes_is_planned),
        cmocka_unit_test(a_long_recording_does_not_break_the_budget),
        cmocka_unit_test(the_log_names_the_policy),
        cmocka_unit_test(what_makes_no_sense_is_refused),
    };
    return cmocka_run_group_tests(tests, record_trace, remove_trace);
}
