/* Recordings of routing: written, read back, and refused when they are something else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "experts/recording.h"

static char path[] = P_tmpdir "/sluice-recording-XXXXXX";

static int make_path(void **state)
{
    (void)state;
    int descriptor = mkstemp(path);
    return descriptor < 0 ? -1 : close(descriptor);
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_text(const char *text)
{
    FILE *stream = fopen(path, "w");
    assert_non_null(stream);
    assert_true(fputs(text, stream) >= 0);
    assert_int_equal(fclose(stream), 0);
}

static void a_recording_is_read_as_it_was_written(void **state)
{
    (void)state;
    enum { N_LAYERS = 3, N_USED = 2, STRIDE = 5000 };
    const sl_recording_shape shape = {.n_layers = N_LAYERS, .n_experts = 65536, .n_used = N_USED};
    static uint32_t experts[N_LAYERS * STRIDE];
    for (uint32_t i = 0; i < N_LAYERS * STRIDE; i++) {
        experts[i] = i % 2 == 0 ? i * 7919u % 65536 : (i - 1) * 7919u % 65536 ^ 1u;
    }
    sl_recording_writer writer;
    sluice_error error;
    assert_int_equal(sl_recording_create(&writer, path, &shape, &error), SLUICE_OK);
    const uint32_t lengths[] = {1, 2500, 3, 1};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(sl_recording_append(&writer, experts, STRIDE, lengths[i], &error), SLUICE_OK);
    }
    assert_int_equal(sl_recording_commit(&writer, &error), SLUICE_OK);
    sl_recording_discard(&writer);

    sl_recording_reader reader;
    assert_int_equal(sl_recording_open(&reader, path, &error), SLUICE_OK);
    assert_memory_equal(&reader.shape, &shape, sizeof shape);
    static uint32_t row[STRIDE];
    uint32_t n_tokens = 0;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(sl_recording_next_chunk(&reader, &n_tokens, &error), SLUICE_OK);
        assert_int_equal(n_tokens, lengths[i]);
        for (uint32_t layer = 0; layer < N_LAYERS; layer++) {
            assert_int_equal(sl_recording_next_layer(&reader, n_tokens, row, &error), SLUICE_OK);
            assert_memory_equal(row, experts + layer * STRIDE, (size_t)n_tokens * N_USED * sizeof *row);
        }
    }
    assert_int_equal(sl_recording_next_chunk(&reader, &n_tokens, &error), SLUICE_OK);
    assert_int_equal(n_tokens, 0);
    sl_recording_close(&reader);
}

static void a_recording_that_is_not_finished_leaves_nothing(void **state)
{
    (void)state;
    write_text("untouched");
    const sl_recording_shape shape = {.n_layers = 1, .n_experts = 4, .n_used = 1};
    const uint32_t experts[1] = {3};
    sl_recording_writer writer;
    sluice_error error;
    assert_int_equal(sl_recording_create(&writer, path, &shape, &error), SLUICE_OK);
    assert_int_equal(sl_recording_append(&writer, experts, 1, 1, &error), SLUICE_OK);
    sl_recording_discard(&writer);
    sl_recording_reader reader;
    assert_int_equal(sl_recording_open(&reader, path, &error), SLUICE_ERROR_FORMAT);
    sl_recording_close(&reader);
}

/* Read all of it; the first error. */
static sluice_status read_all(sluice_error *error)
{
    sl_recording_reader reader;
    sluice_status status = sl_recording_open(&reader, path, error);
    uint32_t n_tokens = 1;
    uint32_t experts[64];
    while (status == SLUICE_OK && n_tokens > 0) {
        status = sl_recording_next_chunk(&reader, &n_tokens, error);
        assert_true(n_tokens <= 2);
        for (uint32_t layer = 0; n_tokens > 0 && layer < reader.shape.n_layers && status == SLUICE_OK; layer++) {
            status = sl_recording_next_layer(&reader, n_tokens, experts, error);
        }
    }
    sl_recording_close(&reader);
    return status;
}

static const char good[] =
    "sluice-routing 1 layers 2 experts 9 used 2\nchunk 1\n0 8\n8 1\nchunk 2\n1 2 2 1\n3 4 5 6\nend\n";

static void every_cut_is_noticed(void **state)
{
    (void)state;
    sluice_error error;
    write_text(good);
    assert_int_equal(read_all(&error), SLUICE_OK);
    char cut[sizeof good];
    for (size_t length = 0; length + 1 < sizeof good; length++) {
        memcpy(cut, good, length);
        cut[length] = '\0';
        write_text(cut);
        if (read_all(&error) != SLUICE_ERROR_FORMAT) {
            fail_msg("the first %zu bytes were taken for a recording", length);
        }
    }
}

static void expect_refusal(const char *text, const char *part_of_sentence)
{
    sluice_error error = {0};
    write_text(text);
    assert_int_equal(read_all(&error), SLUICE_ERROR_FORMAT);
    if (strstr(error.message, part_of_sentence) == NULL) {
        fail_msg("expected \"%s\" in \"%s\"", part_of_sentence, error.message);
    }
}

static void what_cannot_be_is_refused_with_its_line(void **state)
{
    (void)state;
    expect_refusal("sluice-routing 2 layers 2 experts 9 used 2\nend\n", "line 1");
    expect_refusal("sluice-routing 1 layers 0 experts 9 used 2\nend\n", "0 layers");
    expect_refusal("sluice-routing 1 layers 99999 experts 9 used 2\nend\n", "99999 layers");
    expect_refusal("sluice-routing 1 layers 1 experts 2 used 3\nend\n", "3 are used");
    expect_refusal("sluice-routing 1 layers 99999999999999999999 experts 2 used 3\nend\n", "line 1");
    const char *head = "sluice-routing 1 layers 1 experts 9 used 2\n";
    const struct {
        const char *rest, *line;
    } cases[] = {
        {"chunk 1\n0 9\nend\n", "line 3"},     {"chunk 1\n3 3\nend\n", "line 3"},  {"chunk 1\n-1 3\nend\n", "line 3"},
        {"chunk 1\n0 1 2\nend\n", "line 3"},   {"chunk 0\nend\n", "line 2"},       {"chunk 65537\n", "line 2"},
        {"chunk 1\n0 1\nend\nmore", "line 4"}, {"chunk 1\n0  1\nend\n", "line 3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[200];
        snprintf(text, sizeof text, "%s%s", head, cases[i].rest);
        expect_refusal(text, cases[i].line);
    }
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    sl_recording_reader reader;
    sluice_error error;
    assert_int_equal(sl_recording_open(&reader, "/nowhere/routing", &error), SLUICE_ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, "/nowhere/routing"));
    sl_recording_close(&reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_recording_is_read_as_it_was_written),
        cmocka_unit_test(a_recording_that_is_not_finished_leaves_nothing),
        cmocka_unit_test(every_cut_is_noticed),
        cmocka_unit_test(what_cannot_be_is_refused_with_its_line),
        cmocka_unit_test(a_missing_file_is_named),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
