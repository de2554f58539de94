/* Reads of several files and devices at once: one that does not answer holds up its own reads and no others. */
#include "reads_fixture.h"

#include <sys/stat.h>
#include <sys/types.h>

#include "reads_kinds.h"

enum { N_PLACES = 4, N_SLOW = 12, N_FAST = 24, SLOW_BYTES = 4096 };

/* A file that gives nothing until the test lets it: a pipe, for the io_uring, and for the read threads a pread that
 * waits. */
typedef struct slow_file {
    sl_file file;
    int writing_end;
    unsigned char buffer[N_SLOW][SLOW_BYTES];
    sl_read reads[N_SLOW];
} slow_file;

static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_opened = PTHREAD_COND_INITIALIZER;
static bool gate_is_open;   /* guarded by gate_lock */
static int gate_descriptor; /* changed while no read is in flight */

ssize_t __real_pread(int descriptor, void *destination, size_t length, off_t offset);
ssize_t __wrap_pread(int descriptor, void *destination, size_t length, off_t offset);
ssize_t __wrap_pread64(int descriptor, void *destination, size_t length, off_t offset);

ssize_t __wrap_pread(int descriptor, void *destination, size_t length, off_t offset)
{
    if (descriptor != gate_descriptor) {
        return __real_pread(descriptor, destination, length, offset);
    }
    pthread_mutex_lock(&gate_lock);
    while (!gate_is_open) {
        pthread_cond_wait(&gate_opened, &gate_lock);
    }
    pthread_mutex_unlock(&gate_lock);
    memset(destination, 'w', length);
    return (ssize_t)length;
}

ssize_t __wrap_pread64(int descriptor, void *destination, size_t length, off_t offset)
{
    return __wrap_pread(descriptor, destination, length, offset);
}

static void open_slow_file(slow_file *slow, uint64_t device)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    slow->file = (sl_file){
        .descriptor = ends[0], .direct_descriptor = -1, .direct_alignment = 1, .identity = {.device = device}};
    slow->writing_end = ends[1];
    gate_descriptor = ends[0];
    gate_is_open = false;
}

static void submit_slow_reads(fixture *test, slow_file *slow, uint32_t n_reads)
{
    for (uint32_t i_read = 0; i_read < n_reads; i_read++) {
        slow->reads[i_read] = (sl_read){.file = &slow->file,
                                        .path = "slow",
                                        .length = SLOW_BYTES,
                                        .required = SLOW_BYTES,
                                        .destination = slow->buffer[i_read]};
        sl_reads_submit(&test->reads, &slow->reads[i_read]);
    }
}

/* Let all slow reads go on. */
static void open_gate(const slow_file *slow, uint32_t n_reads)
{
    static const unsigned char answer[SLOW_BYTES];
    pthread_mutex_lock(&gate_lock);
    gate_is_open = true;
    pthread_cond_broadcast(&gate_opened);
    pthread_mutex_unlock(&gate_lock);
    for (uint32_t i_read = 0; tested_kind == SL_READS_URING && i_read < n_reads; i_read++) {
        assert_int_equal(write(slow->writing_end, answer, SLOW_BYTES), SLOW_BYTES);
    }
}

static void close_slow_file(slow_file *slow)
{
    gate_descriptor = -1;
    close(slow->file.descriptor);
    close(slow->writing_end);
}

static void open_engine(fixture *test)
{
    open_reads(test,
               (sl_reads_options){
                   .kind = tested_kind, .n_threads = N_PLACES, .depth = N_PLACES, .piece_bytes = 4 * BLOCK_BYTES});
}

static void submit_fast_reads(fixture *test, sl_read reads[N_FAST], uint32_t n_reads)
{
    for (uint32_t i_read = 0; i_read < n_reads; i_read++) {
        reads[i_read] = make_read(test, i_read, i_read % 2 == 0);
        sl_reads_submit(&test->reads, &reads[i_read]);
    }
}

static void a_device_that_does_not_answer_leaves_the_others_their_places(void **state)
{
    fixture *test = *state;
    slow_file slow;
    sl_read reads[N_FAST];
    open_slow_file(&slow, test->file.identity.device + 1);
    open_engine(test);
    submit_fast_reads(test, reads, 1);
    wait_for(test, 1);
    /* More than there are places, and still these are not all the slow device's. */
    submit_slow_reads(test, &slow, N_SLOW);
    submit_fast_reads(test, reads, N_FAST);
    wait_for(test, 1 + N_FAST);
    for (uint32_t i_read = 0; i_read < N_FAST; i_read++) {
        expect_true_bytes(test, &reads[i_read]);
    }
    pthread_mutex_lock(&test->lock);
    assert_int_equal(test->n_done, 1 + N_FAST); /* and not one of the slow ones */
    pthread_mutex_unlock(&test->lock);
    open_gate(&slow, N_SLOW);
    wait_for(test, 1 + N_FAST + N_SLOW);
    for (uint32_t i_read = 0; i_read < N_SLOW; i_read++) {
        assert_int_equal(slow.reads[i_read].bytes_read, SLOW_BYTES);
    }
    sl_reads_close(&test->reads);
    close_slow_file(&slow);
}

static void two_files_of_one_device_finish_independently(void **state)
{
    fixture *test = *state;
    slow_file slow;
    sl_read reads[N_FAST];
    open_slow_file(&slow, test->file.identity.device);
    open_engine(test);
    submit_slow_reads(test, &slow, N_PLACES - 1);
    submit_fast_reads(test, reads, N_FAST);
    wait_for(test, N_FAST);
    for (uint32_t i_read = 0; i_read < N_FAST; i_read++) {
        expect_true_bytes(test, &reads[i_read]);
    }
    open_gate(&slow, N_PLACES - 1);
    wait_for(test, N_FAST + N_PLACES - 1);
    sl_reads_close(&test->reads);
    close_slow_file(&slow);
}

static void closing_waits_for_every_device(void **state)
{
    fixture *test = *state;
    for (uint32_t i_round = 0; i_round < 20; i_round++) {
        slow_file slow;
        sl_read reads[N_FAST];
        open_slow_file(&slow, test->file.identity.device + 1);
        open_engine(test);
        submit_fast_reads(test, reads, 1 + i_round % N_FAST);
        submit_slow_reads(test, &slow, N_SLOW);
        open_gate(&slow, N_SLOW);
        sl_reads_close(&test->reads);
        assert_int_equal(test->n_done, 1 + i_round % N_FAST + N_SLOW);
        close_slow_file(&slow);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_device_that_does_not_answer_leaves_the_others_their_places),
        TEST(two_files_of_one_device_finish_independently),
        TEST(closing_waits_for_every_device),
    };
    return RUN_WITH_BOTH_KINDS(tests);
}
