/* How fast this machine reads memory when nothing is computed, and what a meeting of threads costs: what the speed of
 * kernels is compared with. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "exec/workers.h"

enum {
    LARGE_PAGE = 2 << 20,
    STREAM_BYTES = 1024 << 20, /* more than any cache */
    LINE_BYTES = 64,
    NEAR_BYTES = 1024, /* prefetched into the first-level cache */
    FAR_BYTES = 4096,  /* and into the second */
    PACE = 3,
    ROUNDS = 7,
    READ_SECONDS = 1, /* at least, all rounds together */
    MEETINGS = 20000
};

typedef struct stream {
    const char *bytes; // [STREAM_BYTES]
    uint64_t sums[2];  /* so that the loads are not left out */
} stream;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Every line takes the time of PACE multiplications: a loop that does nothing else runs ahead of its own prefetches,
 * and reads less. */
static void read_task(void *argument, uint32_t worker, uint32_t n_workers)
{
    stream *self = argument;
    size_t share = STREAM_BYTES / n_workers / LINE_BYTES * LINE_BYTES;
    const char *at = self->bytes + worker * share;
    uint64_t sum = 1;
    for (const char *end = at + share; at < end; at += LINE_BYTES) {
        __builtin_prefetch((const void *)((uintptr_t)at + NEAR_BYTES), 0, 3);
        __builtin_prefetch((const void *)((uintptr_t)at + FAR_BYTES), 0, 1);
        for (int i = 0; i < PACE; i++) {
            sum = (sum + *(const uint64_t *)(const void *)(at + i * (LINE_BYTES / 4))) * 3;
        }
    }
    self->sums[worker % 2] = sum;
}

static void meet_task(void *argument, uint32_t worker, uint32_t n_workers)
{
    (void)argument;
    (void)worker;
    (void)n_workers;
}

bool measure_bandwidth(uint32_t n_threads, bandwidth *measured)
{
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_workers *workers = NULL;
    char *map = mmap(NULL, STREAM_BYTES + LARGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || sl_workers_open(&workers, n_threads, &memory, NULL) != SLUICE_OK) {
        fprintf(stderr, "cannot set up %u threads and %d MiB\n", n_threads, (STREAM_BYTES + LARGE_PAGE) >> 20);
        return false;
    }
    char *start = map + (LARGE_PAGE - (uintptr_t)map % LARGE_PAGE) % LARGE_PAGE;
    (void)madvise(start, STREAM_BYTES, MADV_HUGEPAGE);
    for (size_t i = 0; i < STREAM_BYTES; i += 64) {
        start[i] = (char)i;
    }
    stream self = {.bytes = start};
    double best_seconds = 1e9;
    double all_seconds = 0.0;
    double meeting_seconds = 1e9;
    uint32_t n_reads = 0;
    while (n_reads < ROUNDS || all_seconds < READ_SECONDS) {
        double begin = now();
        sl_workers_run(workers, read_task, &self);
        double seconds = now() - begin;
        best_seconds = seconds < best_seconds ? seconds : best_seconds;
        all_seconds += seconds;
        n_reads++;
    }
    for (int round = 0; round < ROUNDS; round++) {
        double begin = now();
        for (int i = 0; i < MEETINGS; i++) {
            sl_workers_run(workers, meet_task, NULL);
        }
        double seconds = (now() - begin) / MEETINGS;
        meeting_seconds = seconds < meeting_seconds ? seconds : meeting_seconds;
    }
    *measured = (bandwidth){.read_bytes_per_s = STREAM_BYTES / best_seconds,
                            .sustained_bytes_per_s = STREAM_BYTES / all_seconds * n_reads,
                            .meeting_s = meeting_seconds};
    sl_workers_close(&workers);
    munmap(map, STREAM_BYTES + LARGE_PAGE);
    return true;
}

bool print_bandwidth(uint32_t n_threads)
{
    bandwidth measured;
    if (!measure_bandwidth(n_threads, &measured)) {
        return false;
    }
    printf("{\"threads\": %u, \"read_bytes_per_s\": %.6g, \"sustained_bytes_per_s\": %.6g, \"meeting_s\": %.6g}\n",
           n_threads, measured.read_bytes_per_s, measured.sustained_bytes_per_s, measured.meeting_s);
    return true;
}
