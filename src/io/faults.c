/* Owns the read engine it is wrapped round; passes reads on to it and spoils the results that the plan names.
 *
 * Invariants
 *  (1) Reads are numbered in the order they are submitted, from 1; the plan names numbers, so a run can be repeated.
 *  (2) A fault is reported from a thread of the inner engine, or the one that performs the read, as a true one would be.
 *  (3) A spoiled read's destination is overwritten: bytes of a failed read that are used show up as wrong.
 *  (4) An interrupted read goes to the inner engine in two parts: the front, and from a thread of the engine the rest.
 *      When it is reported its owner sees its own fields again.
 *  (5) A slow read is held back until every other one was reported; n_flying counts those that are neither. So time
 *      plays no part, and nothing is held for ever: the last to be reported lets the others go.
 * States of a read's `fault`: a planned fault; REST_IN_FLIGHT once the front of an interrupted one has arrived.
 * Threads: as the inner engine. `n_flying` and `held` belong to the holder of the lock, n_seen of the plan is atomic;
 * nothing else changes after open. */
#include "io/reads.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

typedef struct fault_wrapper {
    sl_memory *memory;        /* borrowed */
    sl_read_fault_plan *plan; /* borrowed */
    sl_reads inner;           /* owned */
    void (*on_done)(void *user, sl_read *read);
    void *user; /* borrowed */
    pthread_mutex_t lock;
    uint64_t n_flying; /* guarded by lock */
    sl_read *held;     /* borrowed; guarded by lock; slow reads that have arrived, the newest first */
} fault_wrapper;

enum { SPOILED_BYTE = 0xA5, REST_IN_FLIGHT = SL_READ_FAULT_EVENT + 1 };

static sl_read_fault fault_of_next_read(sl_read_fault_plan *plan)
{
    uint64_t number = __atomic_add_fetch(&plan->n_seen, 1, __ATOMIC_RELAXED);
    uint64_t n_hit = plan->n_after == 0 ? 1 : plan->n_after;
    uint64_t first = __atomic_load_n(&plan->at_read, __ATOMIC_RELAXED);
    bool hit = first != 0 && number >= first && number - first < n_hit;
    return hit ? plan->fault : SL_READ_FAULT_NONE;
}

/* Where to interrupt: about half, at a place where a direct read can go on. 0 when the read is too small. */
static uint64_t front_bytes_of(const sl_read *read)
{
    uint64_t half = read->required / 2;
    return read->direct ? half - half % read->file->direct_alignment : half;
}

static void count_flying(fault_wrapper *wrapper)
{
    pthread_mutex_lock(&wrapper->lock);
    wrapper->n_flying++;
    pthread_mutex_unlock(&wrapper->lock);
}

static void faults_submit(void *self, sl_read *read)
{
    fault_wrapper *wrapper = self;
    read->fault = (int)fault_of_next_read(wrapper->plan);
    if (read->fault == SL_READ_FAULT_INTERRUPTED) {
        uint64_t front_bytes = front_bytes_of(read);
        if (front_bytes == 0) {
            read->fault = SL_READ_FAULT_NONE;
        } else {
            read->whole_length = read->length;
            read->whole_required = read->required;
            read->length = front_bytes;
            read->required = front_bytes;
        }
    } else if (read->fault == SL_READ_FAULT_EVENT) {
        wrapper->plan->event(wrapper->plan->user);
    }
    count_flying(wrapper);
    wrapper->inner.backend->submit(wrapper->inner.self, read);
}

/* Nobody sees whether such a read is interrupted or slow. */
static void faults_perform(void *self, sl_read *read)
{
    fault_wrapper *wrapper = self;
    read->fault = (int)fault_of_next_read(wrapper->plan);
    if (read->fault == SL_READ_FAULT_INTERRUPTED || read->fault == SL_READ_FAULT_SLOW) {
        read->fault = SL_READ_FAULT_NONE;
    } else if (read->fault == SL_READ_FAULT_EVENT) {
        wrapper->plan->event(wrapper->plan->user);
    }
    count_flying(wrapper);
    wrapper->inner.backend->perform(wrapper->inner.self, read);
}

static void spoil(sl_read *read, sluice_status status, int system_errno, uint64_t bytes_read)
{
    read->status = status;
    read->system_errno = system_errno;
    read->bytes_read = bytes_read;
    memset((char *)read->destination + bytes_read, SPOILED_BYTE, read->length - bytes_read);
}

/* Step an interrupted read. true when the whole of it is done. */
static bool resume(fault_wrapper *wrapper, sl_read *read)
{
    if (read->fault == SL_READ_FAULT_INTERRUPTED) {
        uint64_t front_bytes = read->length;
        if (read->status == SLUICE_OK) {
            read->offset += front_bytes;
            read->destination = (char *)read->destination + front_bytes;
            read->length = read->whole_length - front_bytes;
            read->required = read->whole_required - front_bytes;
            read->fault = REST_IN_FLIGHT;
            wrapper->inner.backend->submit(wrapper->inner.self, read);
            return false;
        }
    } else {
        uint64_t front_bytes = read->whole_length - read->length;
        read->offset -= front_bytes;
        read->destination = (char *)read->destination - front_bytes;
        read->bytes_read += front_bytes;
    }
    read->length = read->whole_length;
    read->required = read->whole_required;
    return true;
}

/* A read is over, or is `slow` (else NULL) and has arrived, to be held back. Returns the held ones that may go now. */
static sl_read *land(fault_wrapper *wrapper, sl_read *slow)
{
    sl_read *released = NULL;
    pthread_mutex_lock(&wrapper->lock);
    wrapper->n_flying--;
    if (slow != NULL) {
        slow->next = wrapper->held;
        wrapper->held = slow;
    }
    if (wrapper->n_flying == 0) {
        released = wrapper->held;
        wrapper->held = NULL;
    }
    pthread_mutex_unlock(&wrapper->lock);
    return released;
}

static void inner_done(void *user, sl_read *read)
{
    fault_wrapper *wrapper = user;
    bool resumes = read->fault == SL_READ_FAULT_INTERRUPTED || read->fault == REST_IN_FLIGHT;
    if (read->fault == SL_READ_FAULT_EIO || read->fault == SL_READ_FAULT_GONE) {
        spoil(read, SLUICE_ERROR_IO, read->fault == SL_READ_FAULT_EIO ? EIO : ENODEV, 0);
    } else if (read->fault == SL_READ_FAULT_SHORT) {
        spoil(read, SLUICE_ERROR_CHANGED, 0, read->required / 2);
    } else if (resumes && !resume(wrapper, read)) {
        return;
    }
    bool is_slow = read->fault == SL_READ_FAULT_SLOW;
    if (!is_slow) {
        wrapper->on_done(wrapper->user, read);
    }
    sl_read *released = land(wrapper, is_slow ? read : NULL);
    while (released != NULL) {
        sl_read *next = released->next;
        released->next = NULL;
        wrapper->on_done(wrapper->user, released);
        released = next;
    }
}

static void faults_redirect(void *self, void (*on_done)(void *user, sl_read *read), void *user)
{
    fault_wrapper *wrapper = self;
    wrapper->on_done = on_done;
    wrapper->user = user;
}

static void faults_close(void *self)
{
    fault_wrapper *wrapper = self;
    sl_reads_close(&wrapper->inner);
    pthread_mutex_destroy(&wrapper->lock);
    sl_free(wrapper->memory, wrapper);
}

static void faults_register_memory(void *self, bool registered)
{
    sl_reads_register_memory(&((fault_wrapper *)self)->inner, registered);
}

static void faults_describe(void *self, char *text, size_t capacity)
{
    const fault_wrapper *wrapper = self;
    wrapper->inner.backend->describe(wrapper->inner.self, text, capacity);
}

static const sl_reads_backend faults_backend = {.name = "faults",
                                                .submit = faults_submit,
                                                .perform = faults_perform,
                                                .redirect = faults_redirect,
                                                .register_memory = faults_register_memory,
                                                .describe = faults_describe,
                                                .close = faults_close};

uint64_t sl_reads_faults_cost(void)
{
    return sl_memory_cost(sizeof(fault_wrapper), 16);
}

sluice_status sl_reads_wrap_faults(sl_reads *reads, sl_read_fault_plan *plan, sl_memory *memory, sluice_error *error)
{
    fault_wrapper *wrapper = sl_alloc(memory, SL_MEMORY_IO, 1, sizeof *wrapper);
    if (wrapper == NULL) {
        return sl_error_no_memory(error, sizeof *wrapper, "the fault plan of the read engine");
    }
    *wrapper = (fault_wrapper){
        .memory = memory, .plan = plan, .inner = *reads, .on_done = reads->on_done, .user = reads->user};
    int failed = pthread_mutex_init(&wrapper->lock, NULL);
    if (failed != 0) {
        sl_free(memory, wrapper);
        return sl_error_set_system(error, SLUICE_ERROR_SYSTEM, failed, "cannot set up the lock of the fault plan");
    }
    reads->backend->redirect(reads->self, inner_done, wrapper);
    reads->backend = &faults_backend;
    reads->self = wrapper;
    return SLUICE_OK;
}
