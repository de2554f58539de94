/* The number of slots of a store that runs: what goes and what stays, who waits for what, whose memory it is. */
#include "manual_store.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "../support/failing_memory.h"
#include "os/limits.h"

static const expert_shape small = {
    .n_layers = 3, .n_experts = 8, .n_ranges = 3, .matrix_bytes = 5000, .n_files = 1, .buffered = true};
enum { N_ALL = 24 };

/* ---- Calls that the system refuses ---- */

static size_t largest_map = SIZE_MAX;
static bool refuse_protect, refuse_map_over, refuse_advice;
static const void *populated_last; /* start of what the kernel was asked to populate last */

void *__real_mmap(void *start, size_t bytes, int protection, int flags, int descriptor, off_t offset);
void *__wrap_mmap(void *start, size_t bytes, int protection, int flags, int descriptor, off_t offset);
void *__real_mmap64(void *start, size_t bytes, int protection, int flags, int descriptor, off_t offset);
void *__wrap_mmap64(void *start, size_t bytes, int protection, int flags, int descriptor, off_t offset);
int __real_mprotect(void *start, size_t bytes, int protection);
int __wrap_mprotect(void *start, size_t bytes, int protection);
int __real_madvise(void *start, size_t bytes, int advice);
int __wrap_madvise(void *start, size_t bytes, int advice);

static bool is_refused(size_t bytes, int flags)
{
    return bytes > largest_map || ((flags & MAP_FIXED) != 0 && refuse_map_over);
}

void *__wrap_mmap(void *start, size_t bytes, int protection, int flags, int descriptor, off_t offset)
{
    return is_refused(bytes, flags) ? MAP_FAILED : __real_mmap(start, bytes, protection, flags, descriptor, offset);
}

/* The same with a 64-bit offset, which it may be called by. */
void *__wrap_mmap64(void *start, size_t bytes, int protection, int flags, int descriptor, off_t offset)
{
    return is_refused(bytes, flags) ? MAP_FAILED : __real_mmap64(start, bytes, protection, flags, descriptor, offset);
}

int __wrap_mprotect(void *start, size_t bytes, int protection)
{
    return refuse_protect ? -1 : __real_mprotect(start, bytes, protection);
}

int __wrap_madvise(void *start, size_t bytes, int advice)
{
    populated_last = advice == MADV_POPULATE_WRITE ? start : populated_last;
    return refuse_advice ? -1 : __real_madvise(start, bytes, advice);
}

/* ---- Helpers ---- */

/* A store whose reads wait for the test, and one request. */
typedef struct bench {
    expert_files *set; /* owned */
    manual_reads reads;
    sl_store *store; /* owned */
    sl_store_request request;
    uint64_t progress[8];
    sl_expert_view views[8];
    uint32_t n_held;
} bench;

static void open_bench(bench *self, uint64_t n_slots)
{
    *self = (bench){.set = expert_files_open(&small)};
    self->store = manual_store_open(self->set, n_slots, 1 << 20, &self->reads);
}

static void close_bench(bench *self)
{
    sl_store_close(&self->store);
    assert_int_equal(self->set->memory.total_bytes, 0);
    expert_files_close(self->set);
}

static void begin(bench *self, uint32_t layer, const uint32_t *experts, uint32_t n_experts)
{
    assert_int_equal(sl_store_begin(self->store, &self->request, layer, experts, n_experts, self->progress, NULL),
                     SLUICE_OK);
    self->n_held = 0;
}

/* Take what is there, at least one. */
static void take(bench *self)
{
    uint32_t n_ready = 0;
    assert_int_equal(
        sl_store_wait(self->store, &self->request, self->views + self->n_held, 8 - self->n_held, &n_ready, NULL),
        SLUICE_OK);
    assert_true(n_ready > 0);
    for (uint32_t i_view = self->n_held; i_view < self->n_held + n_ready; i_view++) {
        assert_true(expert_is_true(self->set, self->request.layer, &self->views[i_view]));
    }
    self->n_held += n_ready;
}

static void release_all(bench *self)
{
    while (self->n_held > 0) {
        sl_store_release(self->store, &self->request, &self->views[--self->n_held]);
    }
}

static void end(bench *self)
{
    sl_store_end(self->store, &self->request);
}

/* From begin to end, with as many reads in between as it takes. */
static void fetch(bench *self, uint32_t layer, const uint32_t *experts, uint32_t n_experts)
{
    begin(self, layer, experts, n_experts);
    for (uint32_t n_seen = 0; n_seen < n_experts;) {
        manual_finish_all(&self->reads);
        take(self);
        n_seen += self->n_held;
        release_all(self);
    }
    end(self);
}

static void set_slots(bench *self, uint64_t n_slots)
{
    sluice_error error = {0};
    if (sl_store_set_slots(self->store, n_slots, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(sl_store_n_slots(self->store), n_slots < N_ALL ? n_slots : N_ALL);
}

static uint64_t charged_slots(const bench *self)
{
    uint64_t bytes = self->set->memory.bytes[SL_MEMORY_EXPERTS];
    assert_int_equal(bytes % self->store->geometry.slot_bytes, 0);
    return bytes / self->store->geometry.slot_bytes;
}

static uint64_t residency(const bench *self, uint32_t layer)
{
    uint64_t mask = 0;
    sl_store_residency(self->store, layer, &mask, 1);
    return mask;
}

static sl_store_counters counters_of(const bench *self)
{
    sl_store_counters counters;
    sl_store_counters_get(self->store, &counters);
    return counters;
}

/* Lowering from another thread, because it waits. */
typedef struct lowering {
    pthread_t thread;
    sl_store *store;
    uint64_t n_slots;
    sluice_status status;
} lowering;

static void *lower(void *argument)
{
    lowering *self = argument;
    self->status = sl_store_set_slots(self->store, self->n_slots, NULL);
    return NULL;
}

/* Returns once the slots are being given up: the memory of those that are held cannot be back by then. */
static void start_lowering(lowering *self, sl_store *store, uint64_t n_slots)
{
    *self = (lowering){.store = store, .n_slots = n_slots};
    assert_int_equal(pthread_create(&self->thread, NULL, lower, self), 0);
    while (sl_store_n_slots(store) != n_slots) {
        sched_yield();
    }
}

static void join_lowering(lowering *self)
{
    pthread_join(self->thread, NULL);
    assert_int_equal(self->status, SLUICE_OK);
}

static const uint32_t numbers[8] = {0, 1, 2, 3, 4, 5, 6, 7};

/* ---- Raising ---- */

static void more_slots_are_there_at_once(void **state)
{
    (void)state;
    bench self;
    open_bench(&self, 1);
    assert_int_equal(sl_store_max_slots(self.store), N_ALL);
    begin(&self, 1, numbers, 4);
    assert_int_equal(self.reads.n_flying, 3); /* of one expert */
    set_slots(&self, 3);
    assert_int_equal(self.reads.n_flying, 9);
    assert_int_equal(charged_slots(&self), 3);
    set_slots(&self, 1000);
    assert_int_equal(self.reads.n_flying, 12);
    assert_int_equal(charged_slots(&self), N_ALL);
    manual_finish_all(&self.reads);
    take(&self);
    assert_int_equal(self.n_held, 4);
    end(&self);
    for (uint32_t layer = 0; layer < 3; layer++) {
        fetch(&self, layer, numbers, 8);
        assert_int_equal(residency(&self, layer), 0xff);
    }
    assert_int_equal(counters_of(&self).evictions, 0);
    close_bench(&self);
}

static void a_hint_is_read_into_new_slots(void **state)
{
    (void)state;
    bench self;
    open_bench(&self, 1);
    begin(&self, 0, numbers, 1);
    manual_finish_all(&self.reads);
    take(&self);
    sl_store_prefetch(self.store, 1, numbers, 2);
    assert_int_equal(self.reads.n_flying, 0);
    set_slots(&self, 3);
    assert_int_equal(self.reads.n_flying, 6);
    release_all(&self);
    end(&self);
    close_bench(&self);
}

/* ---- Lowering ---- */

static void what_nobody_holds_goes_at_once(void **state)
{
    (void)state;
    bench self;
    open_bench(&self, 6);
    fetch(&self, 0, numbers, 4);
    set_slots(&self, 5); /* an empty one */
    assert_int_equal(counters_of(&self).evictions, 0);
    set_slots(&self, 2); /* slots were taken in order */
    assert_int_equal(residency(&self, 0), 0x3);
    assert_int_equal(counters_of(&self).evictions, 2);
    assert_int_equal(charged_slots(&self), 2);
    fetch(&self, 0, numbers, 8);
    assert_int_equal(residency(&self, 0), 0xc0);
    set_slots(&self, 1);
    fetch(&self, 2, numbers, 8);
    assert_int_equal(residency(&self, 2), 0x80);
    set_slots(&self, 4);
    fetch(&self, 2, numbers, 8);
    assert_int_equal(residency(&self, 2), 0xf0);
    close_bench(&self);
}

static void lowering_waits_for_experts_that_are_held(void **state)
{
    (void)state;
    bench self;
    lowering other;
    open_bench(&self, 4);
    begin(&self, 0, numbers, 3);
    manual_finish_all(&self.reads);
    take(&self);
    start_lowering(&other, self.store, 1);
    assert_int_equal(charged_slots(&self), 4);
    for (int i_view = 0; i_view < 3; i_view++) {
        assert_true(expert_is_true(self.set, 0, &self.views[i_view]));
    }
    assert_int_equal(residency(&self, 0), 0x7);
    sl_store_release(self.store, &self.request, &self.views[2]);
    assert_int_equal(charged_slots(&self), 4);
    assert_int_equal(residency(&self, 0), 0x3);
    sl_store_release(self.store, &self.request, &self.views[1]);
    join_lowering(&other);
    assert_int_equal(charged_slots(&self), 1);
    assert_true(expert_is_true(self.set, 0, &self.views[0]));
    end(&self);
    assert_int_equal(residency(&self, 0), 0x1);
    close_bench(&self);
}

static void ending_a_request_lets_go_of_what_it_held(void **state)
{
    (void)state;
    bench self;
    lowering other;
    open_bench(&self, 4);
    begin(&self, 0, numbers, 4);
    manual_finish_all(&self.reads);
    take(&self);
    start_lowering(&other, self.store, 2);
    end(&self);
    join_lowering(&other);
    assert_int_equal(residency(&self, 0), 0x3);
    close_bench(&self);
}

static void lowering_waits_for_reads(void **state)
{
    (void)state;
    bench self;
    lowering other;
    open_bench(&self, 3);
    begin(&self, 0, numbers, 3);
    end(&self); /* nobody wants them, but they are on their way */
    start_lowering(&other, self.store, 1);
    for (int i_read = 0; i_read < 6; i_read++) {
        assert_int_equal(charged_slots(&self), 3);
        manual_finish(&self.reads, self.reads.n_flying - 1, i_read != 4); /* one fails */
    }
    join_lowering(&other);
    assert_int_equal(charged_slots(&self), 1);
    manual_finish_all(&self.reads);
    assert_int_equal(residency(&self, 0), 0x1);
    close_bench(&self);
}

static void a_request_goes_on_with_the_slots_that_are_left(void **state)
{
    (void)state;
    bench self;
    lowering other;
    open_bench(&self, 5);
    begin(&self, 0, numbers, 8);
    assert_int_equal(self.reads.n_flying, 15);
    start_lowering(&other, self.store, 1);
    manual_finish_all(&self.reads);
    take(&self);
    assert_int_equal(self.n_held, 5);
    release_all(&self);
    join_lowering(&other);
    for (uint32_t n_seen = 5; n_seen < 8; n_seen++) {
        assert_int_equal(self.reads.n_flying, 3);
        manual_finish_all(&self.reads);
        take(&self);
        assert_int_equal(self.n_held, 1);
        release_all(&self);
    }
    end(&self);
    close_bench(&self);
}

/* Its caller would wait for a slot that will not come. */
static void waiting_for_oneself_is_refused_also_when_slots_are_given_up(void **state)
{
    (void)state;
    bench self;
    lowering other;
    uint32_t n_ready = 0;
    sl_store_request early;
    uint64_t progress[1];
    open_bench(&self, 2);
    begin(&self, 0, numbers, 1);
    manual_finish_all(&self.reads);
    take(&self);
    end(&self);
    assert_int_equal(sl_store_begin(self.store, &early, 1, numbers, 1, progress, NULL), SLUICE_OK);
    sl_store_end(self.store, &early); /* reads into slot 1, held by nobody */
    begin(&self, 0, numbers, 2);
    take(&self);
    start_lowering(&other, self.store, 1);
    assert_int_equal(sl_store_wait(self.store, &self.request, self.views + 1, 1, &n_ready, NULL),
                     SLUICE_ERROR_ARGUMENT);
    release_all(&self);
    manual_finish_all(&self.reads);
    join_lowering(&other);
    take(&self);
    end(&self);
    close_bench(&self);
}

static void an_expert_that_is_leaving_is_still_shared(void **state)
{
    (void)state;
    bench self;
    lowering other;
    sl_store_request second;
    uint64_t progress[1];
    sl_expert_view view;
    uint32_t n_ready = 0;
    open_bench(&self, 2);
    begin(&self, 0, numbers, 2);
    start_lowering(&other, self.store, 1);
    assert_int_equal(sl_store_begin(self.store, &second, 0, numbers + 1, 1, progress, NULL), SLUICE_OK);
    assert_int_equal(self.reads.n_submitted, 6);
    manual_finish_all(&self.reads);
    assert_int_equal(sl_store_wait(self.store, &second, &view, 1, &n_ready, NULL), SLUICE_OK);
    assert_int_equal(view.slot, 1);
    take(&self);
    release_all(&self);
    end(&self);
    assert_int_equal(charged_slots(&self), 2);
    assert_true(expert_is_true(self.set, 0, &view));
    sl_store_release(self.store, &second, &view);
    join_lowering(&other);
    sl_store_end(self.store, &second);
    assert_int_equal(residency(&self, 0), 0x1);
    close_bench(&self);
}

/* What was half read for a hint is dropped, what is on its way finishes, what arrived goes. */
static void hints_do_not_keep_their_slots(void **state)
{
    (void)state;
    bench self;
    lowering other;
    self = (bench){.set = expert_files_open(&small)};
    self.store = manual_store_open(self.set, 4, 16000, &self.reads); /* 15000 + 2331 bytes make an expert */
    fetch(&self, 2, numbers, 1);
    sl_store_prefetch(self.store, 0, numbers, 3);
    manual_finish_all(&self.reads);
    sl_store_prefetch(self.store, 1, numbers, 3); /* slot 0 alone: hints do not push out each other */
    set_slots(&self, 2);
    assert_int_equal(counters_of(&self).prefetch_useless, 2);
    assert_int_equal(residency(&self, 0), 0x1);
    set_slots(&self, 4);
    assert_int_equal(self.reads.n_flying, 3);
    manual_finish(&self.reads, 0, true); /* makes room for the first piece of another */
    assert_int_equal(self.store->filling, 2);
    start_lowering(&other, self.store, 2);
    manual_finish_all(&self.reads);
    join_lowering(&other);
    assert_int_equal(self.store->filling, SL_NO_SLOT);
    assert_int_equal(residency(&self, 1), 0x1);
    fetch(&self, 1, numbers, 8);
    sl_store_counters counters = counters_of(&self);
    assert_int_equal(counters.prefetch_issued, counters.prefetch_used + counters.prefetch_useless);
    assert_int_equal(counters.prefetch_used, 1);
    close_bench(&self);
}

static void impossible_numbers_are_refused(void **state)
{
    (void)state;
    bench self;
    sluice_error error = {0};
    open_bench(&self, 3);
    assert_int_equal(sl_store_set_slots(self.store, 0, &error), SLUICE_ERROR_ARGUMENT);
    assert_int_equal(sl_store_n_slots(self.store), 3);
    set_slots(&self, UINT64_MAX);
    close_bench(&self);
}

/* ---- What the account and the system refuse ---- */

static void a_refused_charge_or_commit_changes_nothing(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&small);
    failing_source source;
    failing_memory_init(&set->memory, &source, UINT64_MAX);
    sl_store *store = expert_store_open(set, 3);
    uint64_t before = set->memory.bytes[SL_MEMORY_EXPERTS];
    assert_int_equal(source.charged_bytes, before);
    for (int i_round = 0; i_round < 2; i_round++) {
        sluice_error error = {0};
        source.failing_call = i_round == 0 ? source.n_calls : UINT64_MAX;
        refuse_protect = i_round == 1;
        assert_int_equal(sl_store_set_slots(store, 7, &error), SLUICE_ERROR_NO_MEMORY);
        refuse_protect = false;
        assert_non_null(strstr(error.message, "expert slots"));
        assert_int_equal(set->memory.bytes[SL_MEMORY_EXPERTS], before);
        assert_int_equal(source.charged_bytes, before);
        assert_int_equal(sl_store_n_slots(store), 3);
        assert_int_equal(expert_fetch(set, store, 1, numbers, 8, 3, &error), SLUICE_OK);
    }
    assert_int_equal(sl_store_set_slots(store, 7, NULL), SLUICE_OK);
    assert_int_equal(source.charged_bytes, before / 3 * 7);
    assert_int_equal(sl_store_set_slots(store, 2, NULL), SLUICE_OK);
    assert_int_equal(source.charged_bytes, before / 3 * 2);
    sl_store_close(&store);
    assert_int_equal(source.charged_bytes, 0);
    assert_int_equal(set->memory.n_live, 0);
    expert_files_close(set);
}

static void without_addresses_for_all_the_slots_of_open_are_the_most(void **state)
{
    (void)state;
    bench self;
    sluice_error error = {0};
    largest_map = 5 * (size_t)20480 + (2 << 20);
    open_bench(&self, 5);
    largest_map = SIZE_MAX;
    assert_true(self.store->geometry.slot_bytes <= 20480);
    assert_int_equal(sl_store_max_slots(self.store), 5);
    assert_int_equal(sl_store_set_slots(self.store, 6, &error), SLUICE_ERROR_SYSTEM);
    assert_non_null(strstr(error.message, "addresses for 5"));
    assert_int_equal(charged_slots(&self), 5);
    set_slots(&self, 2);
    fetch(&self, 0, numbers, 8);
    set_slots(&self, 5);
    fetch(&self, 0, numbers, 8);
    assert_int_equal(residency(&self, 0), 0xf8);
    close_bench(&self);
}

static void without_any_addresses_opening_fails_and_leaves_nothing(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&small);
    sl_store_config config = expert_config(set, 5);
    sl_store *store = NULL;
    largest_map = 4096;
    assert_int_equal(sl_store_open(&store, &config, NULL), SLUICE_ERROR_NO_MEMORY);
    largest_map = SIZE_MAX;
    assert_null(store);
    assert_int_equal(set->memory.total_bytes, 0);
    refuse_protect = true;
    assert_int_equal(sl_store_open(&store, &config, NULL), SLUICE_ERROR_NO_MEMORY);
    refuse_protect = false;
    assert_int_equal(set->memory.total_bytes, 0);
    expert_files_close(set);
}

static void memory_that_the_kernel_keeps_stays_charged_until_it_goes(void **state)
{
    (void)state;
    bench self;
    sluice_error error = {0};
    open_bench(&self, 8);
    fetch(&self, 0, numbers, 8);
    refuse_map_over = refuse_advice = true;
    assert_int_equal(sl_store_set_slots(self.store, 2, &error), SLUICE_ERROR_SYSTEM);
    assert_non_null(strstr(error.message, "does not take back"));
    assert_int_equal(charged_slots(&self), 8);
    assert_int_equal(sl_store_n_slots(self.store), 2);
    refuse_map_over = refuse_advice = false;
    set_slots(&self, 4); /* what is still there is used again */
    assert_int_equal(charged_slots(&self), 4);
    fetch(&self, 1, numbers, 8);
    refuse_map_over = true; /* emptied in place */
    set_slots(&self, 2);
    refuse_map_over = false;
    assert_int_equal(charged_slots(&self), 2);
    fetch(&self, 1, numbers, 8);
    close_bench(&self);
}

/* By the kernel's figure. */
static void the_kernel_has_the_memory_back(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    print_message("the sanitizer has memory of its own for ours\n");
    skip();
#endif
    static const uint64_t mib = (uint64_t)1 << 20;
    sl_expert_range ranges[40];
    expert_files *set = expert_files_open_repeated(ranges, 40);
    uint32_t experts[40];
    for (uint32_t expert = 0; expert < 40; expert++) {
        experts[expert] = expert;
    }
    sl_store_config config = expert_config(set, 3);
    config.n_experts = 40;
    config.ranges = ranges;
    sl_store *store = NULL;
    assert_int_equal(sl_store_open(&store, &config, NULL), SLUICE_OK);
    uint64_t before = sl_process_resident_bytes();
    for (int i_round = 0; i_round < 2; i_round++) {
        sl_store_request request;
        uint64_t progress[40];
        sl_expert_view view;
        uint32_t n_ready = 1;
        assert_int_equal(sl_store_set_slots(store, 40, NULL), SLUICE_OK);
        assert_true(sl_process_resident_bytes() < before + 24 * mib); /* not before it is used */
        assert_int_equal(sl_store_begin(store, &request, 0, experts, 40, progress, NULL), SLUICE_OK);
        while (n_ready > 0) {
            assert_int_equal(sl_store_wait(store, &request, &view, 1, &n_ready, NULL), SLUICE_OK);
        }
        sl_store_end(store, &request);
        assert_true(sl_process_resident_bytes() > before + 140 * mib);
        assert_int_equal(sl_store_set_slots(store, 3, NULL), SLUICE_OK);
        assert_true(sl_process_resident_bytes() < before + 24 * mib);
    }
    sl_store_close(&store);
    expert_files_close(set);
}

/* ---- Who waits prepares memory ---- */

static const expert_shape large = {
    .n_layers = 1, .n_experts = 8, .n_ranges = 1, .matrix_bytes = 3 << 20, .n_files = 1, .buffered = true};

static void open_large(bench *self)
{
    *self = (bench){.set = expert_files_open(&large)};
    self->store = manual_store_open(self->set, 8, 1 << 20, &self->reads);
}

/* Everything that was asked for arrives. */
static void finish_and_close(bench *self)
{
    manual_finish_all(&self->reads);
    take(self);
    release_all(self);
    end(self);
    close_bench(self);
}

/* What a waiting thread does before it sleeps. The slot it prepared, SL_NO_SLOT for none. */
static uint32_t populate(bench *self)
{
    populated_last = NULL;
    pthread_mutex_lock(&self->store->lock);
    bool populated = sl_arena_populate(self->store, &self->request);
    pthread_mutex_unlock(&self->store->lock);
    size_t place = (size_t)((const unsigned char *)populated_last - self->store->arena);
    return populated ? (uint32_t)(place / self->store->geometry.slot_bytes) : SL_NO_SLOT;
}

static void who_waits_has_memory_given_to_the_slots_that_are_read_later(void **state)
{
    (void)state;
    bench self;
    open_large(&self);
    begin(&self, 0, numbers, 6);
    /* Reads are at the first; as much again as two large pages is passed over. */
    assert_int_equal(populate(&self), 3);
    assert_int_equal(populate(&self), 4);
    assert_int_equal(populate(&self), 5);
    assert_int_equal(populate(&self), SL_NO_SLOT);
    finish_and_close(&self);
}

static void memory_that_a_slot_has_already_is_left_alone(void **state)
{
    (void)state;
    bench self;
    open_large(&self);
    fetch(&self, 0, numbers, 8);
    set_slots(&self, 3); /* the other five give theirs back */
    set_slots(&self, 8);
    begin(&self, 0, numbers, 8);
    assert_int_equal(self.request.n_without_slot, 0);
    assert_int_equal(populate(&self), 6); /* of slots 3 to 7, and three are passed over */
    assert_int_equal(populate(&self), 7);
    assert_int_equal(populate(&self), SL_NO_SLOT);
    finish_and_close(&self);
}

static void who_has_nothing_to_do_has_memory_given_to_the_slots_that_are_used_next(void **state)
{
    (void)state;
    sl_expert_range ranges[100];
    expert_files *set = expert_files_open_repeated(ranges, 100);
    sl_store_config config = expert_config(set, 100);
    config.n_experts = 100;
    config.ranges = ranges;
    sl_store *store = NULL;
    assert_int_equal(sl_store_open(&store, &config, NULL), SLUICE_OK);
    uint32_t n_prepared = 0;
    refuse_advice = true; /* so the test needs no memory: a slot is asked for once whatever the kernel says */
    while (sl_store_prepare(store)) {
        assert_ptr_equal(populated_last, store->arena + n_prepared * store->geometry.slot_bytes);
        n_prepared++;
    }
    refuse_advice = false;
    assert_int_equal(n_prepared, (UINT64_C(256) << 20) / store->geometry.slot_bytes);
    sl_store_close(&store);
    expert_files_close(set);
}

static void memory_of_a_small_store_comes_when_it_is_used(void **state)
{
    (void)state;
    bench self;
    open_bench(&self, 4);
    assert_false(sl_store_prepare(self.store));
    close_bench(&self);
}

static void memory_is_not_given_back_while_some_is_prepared(void **state)
{
    (void)state;
    bench self;
    lowering other;
    open_bench(&self, 4);
    fetch(&self, 0, numbers, 4);
    pthread_mutex_lock(&self.store->lock);
    self.store->n_populating = 1;
    pthread_mutex_unlock(&self.store->lock);
    start_lowering(&other, self.store, 1);
    assert_int_equal(charged_slots(&self), 4);
    pthread_mutex_lock(&self.store->lock);
    self.store->n_populating = 0;
    pthread_cond_broadcast(&self.store->slots_left);
    pthread_mutex_unlock(&self.store->lock);
    join_lowering(&other);
    assert_int_equal(charged_slots(&self), 1);
    close_bench(&self);
}

/* ---- Everything at once ---- */

enum { N_CALLERS = 3 };

typedef struct crowd {
    expert_files *set;
    sl_store *store;
    atomic_int n_running;
    atomic_int n_failed;
} crowd;

static void *ask_again_and_again(void *argument)
{
    crowd *self = argument;
    uint32_t random = (uint32_t)(uintptr_t)&random | 1;
    for (int i_request = 0; i_request < 300; i_request++) {
        random = random * 1664525u + 1013904223u;
        uint32_t n_experts = 1 + random / 65536 % 8;
        sl_store_prefetch(self->store, (uint32_t)i_request % 3, numbers, random >> 29);
        sluice_status status =
            expert_fetch(self->set, self->store, random / 16 % 3, numbers, n_experts, 1 + random / 256 % 4, NULL);
        atomic_fetch_add(&self->n_failed, status == SLUICE_OK ? 0 : 1);
    }
    atomic_fetch_sub(&self->n_running, 1);
    return NULL;
}

static void expect_true_bytes_while_the_number_changes(const expert_shape *shape)
{
    expert_files *set = expert_files_open(shape);
    crowd self = {.set = set, .store = expert_store_open(set, 4), .n_running = N_CALLERS};
    pthread_t threads[N_CALLERS];
    for (int i_thread = 0; i_thread < N_CALLERS; i_thread++) {
        assert_int_equal(pthread_create(&threads[i_thread], NULL, ask_again_and_again, &self), 0);
    }
    uint32_t random = 1;
    while (atomic_load(&self.n_running) > 0) {
        random = random * 1664525u + 1013904223u;
        uint64_t n_slots = 1 + random / 65536 % N_ALL;
        assert_int_equal(sl_store_set_slots(self.store, n_slots, NULL), SLUICE_OK);
        assert_int_equal(set->memory.bytes[SL_MEMORY_EXPERTS], n_slots * self.store->geometry.slot_bytes);
    }
    for (int i_thread = 0; i_thread < N_CALLERS; i_thread++) {
        pthread_join(threads[i_thread], NULL);
    }
    assert_int_equal(self.n_failed, 0);
    sl_store_close(&self.store);
    assert_int_equal(set->memory.total_bytes, 0);
    expert_files_close(set);
}

/* Directly too: what is read into registered memory must not land where a slot was before it was given back. */
static void bytes_are_true_while_the_number_changes(void **state)
{
    (void)state;
    expert_shape direct = small;
    direct.buffered = false;
    expect_true_bytes_while_the_number_changes(&small);
    expect_true_bytes_while_the_number_changes(&direct);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(more_slots_are_there_at_once),
        cmocka_unit_test(a_hint_is_read_into_new_slots),
        cmocka_unit_test(what_nobody_holds_goes_at_once),
        cmocka_unit_test(lowering_waits_for_experts_that_are_held),
        cmocka_unit_test(ending_a_request_lets_go_of_what_it_held),
        cmocka_unit_test(lowering_waits_for_reads),
        cmocka_unit_test(a_request_goes_on_with_the_slots_that_are_left),
        cmocka_unit_test(waiting_for_oneself_is_refused_also_when_slots_are_given_up),
        cmocka_unit_test(an_expert_that_is_leaving_is_still_shared),
        cmocka_unit_test(hints_do_not_keep_their_slots),
        cmocka_unit_test(impossible_numbers_are_refused),
        cmocka_unit_test(a_refused_charge_or_commit_changes_nothing),
        cmocka_unit_test(without_addresses_for_all_the_slots_of_open_are_the_most),
        cmocka_unit_test(without_any_addresses_opening_fails_and_leaves_nothing),
        cmocka_unit_test(memory_that_the_kernel_keeps_stays_charged_until_it_goes),
        cmocka_unit_test(the_kernel_has_the_memory_back),
        cmocka_unit_test(who_waits_has_memory_given_to_the_slots_that_are_read_later),
        cmocka_unit_test(memory_that_a_slot_has_already_is_left_alone),
        cmocka_unit_test(who_has_nothing_to_do_has_memory_given_to_the_slots_that_are_used_next),
        cmocka_unit_test(memory_of_a_small_store_comes_when_it_is_used),
        cmocka_unit_test(memory_is_not_given_back_while_some_is_prepared),
        cmocka_unit_test(bytes_are_true_while_the_number_changes),
    };
    return RUN_WITH_BOTH_KINDS(tests);
}
