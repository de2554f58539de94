/* Owns its buffers, its file and one read engine. Measures random reads as the expert store makes them: groups of a few
 * reads, one group per expert, many groups outstanding. Prints one line: what was run, bandwidth, processor time per
 * gigabyte, and how long a group took.
 *
 * Usage: io_bench FILE [kind=uring|pread] [threads=N] [depth=N] [piece=KIB] [read=KIB] [group=N] [outstanding=N]
 *                 [burst=0|1] [seconds=F] [huge=0|1] [buffered=0|1] [memory=0|1] [files=0|1]
 *
 * With burst=1 all outstanding groups are submitted at once and waited for before the next ones, as a layer does;
 * otherwise each finished group is replaced by the next. memory=1 registers the memory of each group, files=1 the file.
 * Threads: main submits; the engine's threads report under the lock. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "io/reads.h"
#include "os/clock.h"

enum { MAX_GROUP = 8, MAX_OUTSTANDING = 256, MAX_LATENCIES = 1 << 20, ALIGNMENT = 4096, KIB = 1024 };

typedef struct setting {
    const char *name;
    double value;
} setting;

enum {
    THREADS,
    DEPTH,
    PIECE,
    READ,
    GROUP,
    OUTSTANDING,
    BURST,
    SECONDS,
    HUGE,
    BUFFERED,
    MEMORY,
    FILES,
    SEED,
    N_SETTINGS
};

typedef struct group {
    sl_read reads[MAX_GROUP];
    uint32_t n_unfinished;
    uint64_t start_ns;
    struct group *next_done;
} group;

typedef struct bench {
    setting settings[N_SETTINGS];
    sl_reads_kind kind;
    const char *path;
    sl_file file;
    sl_memory memory;
    sl_reads reads;
    unsigned char *buffer; // [outstanding][group][read bytes]
    uint64_t read_bytes;
    uint32_t n_group, n_outstanding;
    uint64_t random;
    group groups[MAX_OUTSTANDING];
    float *latencies; // [MAX_LATENCIES], ms
    uint32_t n_latencies;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    group *done; /* guarded by lock */
    bool failed; /* guarded by lock */
} bench;

static double value_of(const bench *self, int which)
{
    return self->settings[which].value;
}

static void on_done(void *user, sl_read *read)
{
    bench *self = user;
    group *owner = read->user;
    pthread_mutex_lock(&self->lock);
    self->failed = self->failed || read->status != SLUICE_OK;
    if (--owner->n_unfinished == 0) {
        owner->next_done = self->done;
        self->done = owner;
        pthread_cond_signal(&self->changed);
    }
    pthread_mutex_unlock(&self->lock);
}

static uint64_t next_random(bench *self)
{
    self->random ^= self->random << 13;
    self->random ^= self->random >> 7;
    self->random ^= self->random << 17;
    return self->random;
}

static void start_group(bench *self, group *starting)
{
    uint32_t index = (uint32_t)(starting - self->groups);
    uint64_t n_places = (self->file.identity.bytes - self->read_bytes) / ALIGNMENT;
    starting->n_unfinished = self->n_group;
    starting->start_ns = sl_clock_ns();
    for (uint32_t i_read = 0; i_read < self->n_group; i_read++) {
        starting->reads[i_read] = (sl_read){
            .file = &self->file,
            .path = self->path,
            .offset = next_random(self) % n_places * ALIGNMENT,
            .length = self->read_bytes,
            .required = self->read_bytes,
            .destination = self->buffer + ((size_t)index * self->n_group + i_read) * self->read_bytes,
            .direct = value_of(self, BUFFERED) == 0,
            .user = starting,
        };
    }
    for (uint32_t i_read = 0; i_read < self->n_group; i_read++) {
        sl_reads_submit(&self->reads, &starting->reads[i_read]);
    }
}

/* Wait until a group is done. */
static group *take_done(bench *self)
{
    pthread_mutex_lock(&self->lock);
    while (self->done == NULL) {
        pthread_cond_wait(&self->changed, &self->lock);
    }
    group *taken = self->done;
    self->done = taken->next_done;
    pthread_mutex_unlock(&self->lock);
    if (self->n_latencies < MAX_LATENCIES) {
        self->latencies[self->n_latencies++] = (float)((double)(sl_clock_ns() - taken->start_ns) * 1e-6);
    }
    return taken;
}

/* Returns the groups that were read. */
static uint64_t run(bench *self)
{
    uint64_t end_ns = sl_clock_ns() + (uint64_t)(value_of(self, SECONDS) * 1e9);
    bool burst = value_of(self, BURST) != 0;
    uint64_t n_started = 0;
    uint64_t n_done = 0;
    while (sl_clock_ns() < end_ns) {
        while (n_started - n_done < self->n_outstanding) {
            start_group(self, &self->groups[n_started++ % self->n_outstanding]);
            if (!burst && n_started >= self->n_outstanding) {
                break;
            }
        }
        if (burst) {
            for (; n_done < n_started; n_done++) {
                (void)take_done(self);
            }
        } else if (n_started >= self->n_outstanding) {
            group *again = take_done(self);
            n_done++;
            n_started++;
            start_group(self, again);
        }
    }
    for (; n_done < n_started; n_done++) {
        (void)take_done(self);
    }
    return n_done;
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

static int compare(const void *left, const void *right)
{
    float a = *(const float *)left;
    float b = *(const float *)right;
    return (a > b) - (a < b);
}

static void report(bench *self, uint64_t n_groups, double seconds, double cpu)
{
    double gigabytes = (double)(n_groups * self->n_group * self->read_bytes) * 1e-9;
    qsort(self->latencies, self->n_latencies, sizeof *self->latencies, compare);
    char text[256];
    sl_reads_describe_backend(&self->reads, text, sizeof text);
    printf("%.3f GB/s  %.1f ms CPU/GB  group of %u x %" PRIu64 " KiB: median %.3f ms, 99%% %.3f ms  %u outstanding%s  "
           "[%s]%s%s\n",
           gigabytes / seconds, cpu * 1e3 / gigabytes, self->n_group, self->read_bytes / KIB,
           (double)self->latencies[self->n_latencies / 2], (double)self->latencies[self->n_latencies * 99ull / 100],
           self->n_outstanding, value_of(self, BURST) != 0 ? " in bursts" : "", text,
           value_of(self, HUGE) != 0 ? " huge pages" : "", value_of(self, BUFFERED) != 0 ? " buffered" : "");
}

static bool parse(bench *self, int n_words, char **words)
{
    static const setting defaults[N_SETTINGS] = {
        [THREADS] = {"threads", 4},   [DEPTH] = {"depth", 0},     [PIECE] = {"piece", 0},
        [READ] = {"read", 864},       [GROUP] = {"group", 3},     [OUTSTANDING] = {"outstanding", 8},
        [BURST] = {"burst", 0},       [SECONDS] = {"seconds", 3}, [HUGE] = {"huge", 1},
        [BUFFERED] = {"buffered", 0}, [MEMORY] = {"memory", 0},   [FILES] = {"files", 0},
        [SEED] = {"seed", 1},
    };
    memcpy(self->settings, defaults, sizeof defaults);
    for (int i_word = 2; i_word < n_words; i_word++) {
        char *equals = strchr(words[i_word], '=');
        bool known = false;
        if (equals != NULL) {
            *equals = '\0';
            known = strcmp(words[i_word], "kind") == 0 && sl_reads_kind_parse(equals + 1, &self->kind);
            for (int i_setting = 0; i_setting < N_SETTINGS && !known; i_setting++) {
                known = strcmp(words[i_word], self->settings[i_setting].name) == 0;
                if (known) {
                    self->settings[i_setting].value = strtod(equals + 1, NULL);
                }
            }
        }
        if (!known) {
            fprintf(stderr, "io_bench: unknown setting %s\n", words[i_word]);
            return false;
        }
    }
    self->read_bytes = (uint64_t)value_of(self, READ) * KIB;
    self->n_group = (uint32_t)value_of(self, GROUP);
    self->n_outstanding = (uint32_t)value_of(self, OUTSTANDING);
    self->random = 88172645463325252ull + (uint64_t)value_of(self, SEED) * 7919;
    return n_words >= 2 && self->n_group >= 1 && self->n_group <= MAX_GROUP && self->n_outstanding >= 1 &&
           self->n_outstanding <= MAX_OUTSTANDING && self->read_bytes >= ALIGNMENT && self->read_bytes % ALIGNMENT == 0;
}

static sluice_status open_all(bench *self, uint64_t buffer_bytes, sluice_error *error)
{
    SL_TRY(sl_file_open(&self->file, self->path, true, error));
    if (self->file.identity.bytes <= self->read_bytes) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%s: smaller than one read", self->path);
    }
    self->latencies = malloc(MAX_LATENCIES * sizeof *self->latencies);
    self->buffer = sl_alloc_aligned(&self->memory, SL_MEMORY_EXPERTS, buffer_bytes, 2 << 20);
    if (self->buffer == NULL || self->latencies == NULL) {
        return sl_error_no_memory(error, buffer_bytes, "buffers");
    }
    (void)madvise(self->buffer, buffer_bytes, value_of(self, HUGE) != 0 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    memset(self->buffer, 1, buffer_bytes);
    sl_reads_options options = {.kind = self->kind,
                                .n_threads = (uint32_t)value_of(self, THREADS),
                                .depth = (uint32_t)value_of(self, DEPTH),
                                .piece_bytes = (uint32_t)value_of(self, PIECE) * KIB,
                                .memory = {.start = self->buffer,
                                           .range_bytes = self->n_group * self->read_bytes,
                                           .n_ranges = value_of(self, MEMORY) != 0 ? self->n_outstanding : 0},
                                .plain_files = value_of(self, FILES) == 0};
    SL_TRY(sl_reads_open(&self->reads, &options, &self->memory, NULL, on_done, self, error));
    return SLUICE_OK;
}

int main(int n_words, char **words)
{
    bench *self = calloc(1, sizeof *self);
    if (self == NULL || !parse(self, n_words, words)) {
        fprintf(stderr, "usage: io_bench FILE [SETTING=VALUE ...]; the settings are listed in the source\n");
        free(self);
        return 2;
    }
    self->path = words[1];
    sl_memory_init(&self->memory, NULL);
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->changed, NULL);
    sluice_error error = {0};
    uint64_t buffer_bytes = self->n_outstanding * self->n_group * self->read_bytes;
    sluice_status status = open_all(self, buffer_bytes, &error);
    if (status == SLUICE_OK) {
        double cpu_before = cpu_seconds();
        uint64_t start_ns = sl_clock_ns();
        uint64_t n_groups = run(self);
        double seconds = (double)(sl_clock_ns() - start_ns) * 1e-9;
        report(self, n_groups, seconds, cpu_seconds() - cpu_before);
        if (self->failed) {
            status = sl_error_set(&error, SLUICE_ERROR_IO, "some reads failed");
        }
    }
    if (status != SLUICE_OK) {
        fprintf(stderr, "io_bench: %s\n", error.message);
    }
    sl_reads_close(&self->reads);
    sl_file_close(&self->file);
    sl_free(&self->memory, self->buffer);
    free(self->latencies);
    free(self);
    return status == SLUICE_OK ? 0 : 1;
}
