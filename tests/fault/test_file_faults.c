/* Model files that change under an engine, just as the n-th read is submitted: cut off and restored, rewritten in
 * place, replaced by another file of the same name. Never a crash, never wrong numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "session_faults.h"

static const char original[] = "tests/golden/models/qwen3moe.gguf";
static const char another[] = "tests/golden/models/qwen2moe.gguf";

enum { PATH_BYTES = 96 };

typedef struct model_copy {
    char directory[48];
    char path[PATH_BYTES];
    char other_path[PATH_BYTES]; /* of a whole other model, until it takes the name */
    unsigned char *bytes;        /* owned */
    size_t n_bytes;
} model_copy;

/* Written long ago, so that any further write is seen, however slowly the filesystem's clock ticks. */
static const struct timespec written_at[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000, .tv_nsec = 5}};

static unsigned char *read_whole(const char *path, size_t *n_bytes)
{
    FILE *stream = fopen(path, "rb");
    struct stat information;
    assert_non_null(stream);
    assert_int_equal(fstat(fileno(stream), &information), 0);
    *n_bytes = (size_t)information.st_size;
    unsigned char *bytes = malloc(*n_bytes);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *n_bytes, stream), *n_bytes);
    fclose(stream);
    return bytes;
}

static void write_whole(const char *path, const unsigned char *bytes, size_t n_bytes)
{
    int descriptor = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(descriptor >= 0);
    assert_int_equal(write(descriptor, bytes, n_bytes), n_bytes);
    assert_int_equal(futimens(descriptor, written_at), 0);
    close(descriptor);
}

static void open_copy(model_copy *copy)
{
    strcpy(copy->directory, P_tmpdir "/sluice-model-XXXXXX");
    assert_non_null(mkdtemp(copy->directory));
    snprintf(copy->path, sizeof copy->path, "%s/model.gguf", copy->directory);
    snprintf(copy->other_path, sizeof copy->other_path, "%s/other.gguf", copy->directory);
    copy->bytes = read_whole(another, &copy->n_bytes);
    write_whole(copy->other_path, copy->bytes, copy->n_bytes);
    free(copy->bytes);
    copy->bytes = read_whole(original, &copy->n_bytes);
    write_whole(copy->path, copy->bytes, copy->n_bytes);
}

static void close_copy(model_copy *copy)
{
    unlink(copy->path);
    unlink(copy->other_path);
    rmdir(copy->directory);
    free(copy->bytes);
}

static void cut_off(void *user)
{
    const model_copy *copy = user;
    assert_int_equal(truncate(copy->path, 4096), 0);
}

/* The same bytes; what says so is nothing but the time of the change. */
static void rewrite(void *user)
{
    const model_copy *copy = user;
    int descriptor = open(copy->path, O_WRONLY);
    assert_true(descriptor >= 0);
    assert_int_equal(pwrite(descriptor, copy->bytes, 100, 0), 100);
    close(descriptor);
}

static void replace(void *user)
{
    const model_copy *copy = user;
    assert_int_equal(rename(copy->other_path, copy->path), 0);
}

static void change_at_every_read(void (*change)(void *), const char *io)
{
    model_copy copy;
    open_copy(&copy);
    engine_run run = {.model_path = copy.path, .prefetch = "none", .io = io};
    subject test = {.plan = {.fault = SL_READ_FAULT_EVENT, .event = change, .user = &copy}};
    open_subject(&test, &run, 0);
    uint32_t n_hits = 0;
    for (uint64_t n = 1;; n++) {
        sluice_error error = {0};
        plan_fault(&test, n);
        sluice_status status = start_over(test.session, &error);
        if (!fault_was_reached(&test)) {
            assert_int_equal(status, SLUICE_OK);
            break;
        }
        n_hits++;
        plan_fault(&test, 0);
        check_failure(&test, status, SLUICE_ERROR_CHANGED, &error);
        assert_non_null(strstr(error.message, "while it was in use"));
        /* Until the file is as it was, every evaluation that reads fails. */
        check_failure(&test, go_on(test.session, &error), SLUICE_ERROR_CHANGED, &error);
        settle(&test);
        write_whole(copy.path, copy.bytes, copy.n_bytes);
        check_recovery(&test, n % 2 == 0);
    }
    assert_true(n_hits > 50);
    close_subject(&test);
    close_copy(&copy);
}

static void a_file_that_is_cut_off_is_an_error_until_it_is_restored(void **state)
{
    (void)state;
    change_at_every_read(cut_off, "pread");
    change_at_every_read(cut_off, "auto");
}

static void a_file_that_is_rewritten_is_an_error(void **state)
{
    (void)state;
    change_at_every_read(rewrite, "auto");
}

/* What is open is the file, not the name. */
static void a_file_that_is_replaced_is_still_the_one_that_was_opened(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 60; n += 19) {
        model_copy copy;
        open_copy(&copy);
        engine_run run = {.model_path = copy.path, .prefetch = "none"};
        subject test = {.plan = {.fault = SL_READ_FAULT_EVENT, .event = replace, .user = &copy}};
        open_subject(&test, &run, 0);
        plan_fault(&test, n);
        check_recovery(&test, true);
        assert_true(fault_was_reached(&test));
        assert_int_not_equal(access(copy.other_path, F_OK), 0);
        check_recovery(&test, true);
        close_subject(&test);
        close_copy(&copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_is_cut_off_is_an_error_until_it_is_restored),
        cmocka_unit_test(a_file_that_is_rewritten_is_an_error),
        cmocka_unit_test(a_file_that_is_replaced_is_still_the_one_that_was_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
