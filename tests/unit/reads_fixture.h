/* A file of random bytes, room for reads of it, and a read engine that reports to a list. */
#ifndef TESTS_UNIT_READS_FIXTURE_H
#define TESTS_UNIT_READS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/reads.h"

enum { FILE_BYTES = 1000003, BLOCK_BYTES = 4096, N_READS = 40 };

typedef struct fixture {
    char path[64];
    sl_file file;
    sl_memory memory;
    sl_reads reads;
    sl_read_fault_plan plan;
    sl_log log;
    uint32_t n_log_lines;  /* atomic access */
    char log_line[1100];   /* the last one; read while no read is in flight */
    unsigned char *bytes;  // [FILE_BYTES], what the file holds
    unsigned char *buffer; // [N_READS][16 * BLOCK_BYTES], aligned

    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t n_done;         /* guarded by lock */
    sl_read *order[N_READS]; /* guarded by lock; in the order they were reported, the first ones */
    bool resubmit;           /* the first read that is done is submitted again */
} fixture;

static inline void keep_line(void *user, sl_log_level level, const char *line)
{
    fixture *test = user;
    (void)level;
    __atomic_add_fetch(&test->n_log_lines, 1, __ATOMIC_RELAXED);
    snprintf(test->log_line, sizeof test->log_line, "%s", line);
}

static inline void on_done(void *user, sl_read *read)
{
    fixture *test = user;
    pthread_mutex_lock(&test->lock);
    bool again = test->resubmit;
    test->resubmit = false;
    if (!again) {
        if (test->n_done < N_READS) {
            test->order[test->n_done] = read;
        }
        test->n_done++;
        pthread_cond_broadcast(&test->changed);
    }
    pthread_mutex_unlock(&test->lock);
    if (again) {
        sl_reads_submit(&test->reads, read);
    }
}

static inline void wait_for(fixture *test, uint32_t n_done)
{
    pthread_mutex_lock(&test->lock);
    while (test->n_done < n_done) {
        pthread_cond_wait(&test->changed, &test->lock);
    }
    pthread_mutex_unlock(&test->lock);
}

static inline int open_fixture(void **state)
{
    fixture *test = calloc(1, sizeof *test);
    void *buffer = NULL;
    assert_non_null(test);
    assert_int_equal(posix_memalign(&buffer, 1 << 16, (size_t)N_READS * 16 * BLOCK_BYTES), 0);
    test->buffer = buffer;
    test->bytes = malloc(FILE_BYTES);
    assert_non_null(test->bytes);
    uint32_t random = 99;
    for (size_t place = 0; place < FILE_BYTES; place++) {
        random = random * 1664525u + 1013904223u;
        test->bytes[place] = (unsigned char)(random >> 24);
    }
    snprintf(test->path, sizeof test->path, "%s/sluice-reads-XXXXXX", P_tmpdir);
    int descriptor = mkstemp(test->path);
    assert_true(descriptor >= 0);
    assert_int_equal(write(descriptor, test->bytes, FILE_BYTES), FILE_BYTES);
    assert_int_equal(fsync(descriptor), 0);
    close(descriptor);
    assert_int_equal(sl_file_open(&test->file, test->path, true, NULL), SLUICE_OK);
    sl_memory_init(&test->memory, NULL);
    test->log = (sl_log){.write = keep_line, .user = test, .level = SL_LOG_TRACE};
    pthread_mutex_init(&test->lock, NULL);
    pthread_cond_init(&test->changed, NULL);
    *state = test;
    return 0;
}

static inline int close_fixture(void **state)
{
    fixture *test = *state;
    sl_reads_close(&test->reads);
    assert_int_equal(test->memory.total_bytes, 0);
    sl_file_close(&test->file);
    unlink(test->path);
    pthread_cond_destroy(&test->changed);
    pthread_mutex_destroy(&test->lock);
    free(test->bytes);
    free(test->buffer);
    free(test);
    return 0;
}

static inline void open_reads(fixture *test, sl_reads_options options)
{
    sl_reads_close(&test->reads);
    test->n_done = 0;
    sluice_error error = {0};
    if (sl_reads_open(&test->reads, &options, &test->memory, &test->log, on_done, test, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
}

/* Read i of a test: 16 blocks from block 16 i on, cut where the file ends. Past the end there is nothing to ask for. */
static inline sl_read make_read(const fixture *test, uint32_t i_read, bool direct)
{
    sl_read read = {.file = &test->file,
                    .path = test->path,
                    .offset = (uint64_t)i_read * 16 * BLOCK_BYTES % (FILE_BYTES / BLOCK_BYTES * BLOCK_BYTES),
                    .length = 16 * BLOCK_BYTES,
                    .required = 16 * BLOCK_BYTES,
                    .destination = test->buffer + (size_t)i_read * 16 * BLOCK_BYTES,
                    .direct = direct};
    read.offset -= read.offset % (16 * BLOCK_BYTES);
    if (read.offset + read.length > FILE_BYTES) {
        read.required = FILE_BYTES - read.offset;
        read.length = (read.required + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
    }
    return read;
}

static inline void expect_true_bytes(const fixture *test, const sl_read *read)
{
    assert_int_equal(read->status, SLUICE_OK);
    assert_true(read->bytes_read >= read->required);
    assert_true(read->done_ns >= read->submit_ns);
    assert_memory_equal(read->destination, test->bytes + read->offset, read->required);
}

#endif
