/* Owns nothing: counts what happens in the store, per layer.
 *
 * Invariants
 *  (1) All counters of the whole store but busy_ns are the sums over the layers. busy_ns is not: reads of two layers at
 *      once are one busy time of the store. Its meter knows bytes_read beside, to tell the disk's speed.
 *  (2) requests = hits + misses, at every moment the lock is free.
 * Threads: the holder of the store's lock; the public functions take it. */
#include <string.h>

#include "experts/store_internal.h"
#include "os/clock.h"

static void meter_start(sl_store_meter *meter, uint64_t now_ns)
{
    if (meter->n_reading++ == 0) {
        meter->busy_since_ns = now_ns;
    }
}

static void meter_stop(sl_store_meter *meter, uint64_t now_ns)
{
    if (--meter->n_reading == 0) {
        meter->counters.busy_ns += now_ns - meter->busy_since_ns;
    }
}

static uint64_t busy_ns(const sl_store_meter *meter)
{
    return meter->counters.busy_ns + (meter->n_reading == 0 ? 0 : sl_clock_ns() - meter->busy_since_ns);
}

void sl_store_count_reading(sl_store *store, uint32_t layer, uint64_t now_ns)
{
    meter_start(&store->meters[layer], now_ns);
    meter_start(&store->meters[store->n_layers], now_ns);
}

void sl_store_count_read(sl_store *store, uint32_t layer, uint64_t now_ns)
{
    meter_stop(&store->meters[layer], now_ns);
    meter_stop(&store->meters[store->n_layers], now_ns);
}

/* A layer's counters, settled requests included. */
static sl_store_counters counters_of(const sl_store *store, uint32_t layer)
{
    const sl_store_meter *meter = &store->meters[layer];
    sl_store_counters counters = meter->counters;
    uint64_t settled_hits = atomic_load_explicit(&meter->settled_hits, memory_order_relaxed);
    counters.requests += settled_hits;
    counters.hits += settled_hits;
    return counters;
}

void sl_store_counters_get(sl_store *store, sl_store_counters *total)
{
    *total = (sl_store_counters){0};
    pthread_mutex_lock(&store->lock);
    for (uint32_t i_layer = 0; i_layer < store->n_layers; i_layer++) {
        const sl_store_counters counters = counters_of(store, i_layer);
        const sl_store_counters *layer = &counters;
        total->requests += layer->requests;
        total->hits += layer->hits;
        total->misses += layer->misses;
        total->evictions += layer->evictions;
        total->bytes_read += layer->bytes_read;
        total->expert_bytes += layer->expert_bytes;
        total->failed_reads += layer->failed_reads;
        total->wait_ns += layer->wait_ns;
        total->prefetch_issued += layer->prefetch_issued;
        total->prefetch_used += layer->prefetch_used;
        total->prefetch_late += layer->prefetch_late;
        total->prefetch_useless += layer->prefetch_useless;
        total->prefetch_used_bytes += layer->prefetch_used_bytes;
        total->prefetch_useless_bytes += layer->prefetch_useless_bytes;
        total->prefetch_displaced += layer->prefetch_displaced;
        total->prefetch_ahead_bytes += layer->prefetch_ahead_bytes;
    }
    total->busy_ns = busy_ns(&store->meters[store->n_layers]);
    pthread_mutex_unlock(&store->lock);
}

bool sl_store_layer_counters_get(sl_store *store, uint32_t layer, sl_store_counters *counters)
{
    if (layer >= store->n_layers) {
        *counters = (sl_store_counters){0};
        return false;
    }
    pthread_mutex_lock(&store->lock);
    *counters = counters_of(store, layer);
    counters->busy_ns = busy_ns(&store->meters[layer]);
    pthread_mutex_unlock(&store->lock);
    return true;
}

void sl_store_counters_reset(sl_store *store)
{
    pthread_mutex_lock(&store->lock);
    uint64_t now_ns = sl_clock_ns();
    for (uint32_t i_meter = 0; i_meter <= store->n_layers; i_meter++) {
        store->meters[i_meter].counters = (sl_store_counters){0};
        atomic_store_explicit(&store->meters[i_meter].settled_hits, 0, memory_order_relaxed);
        store->meters[i_meter].busy_since_ns = now_ns;
    }
    for (uint32_t index = 0; index < store->max_slots; index++) {
        const sl_slot *slot = &store->slots[index];
        if (slot->state != SL_SLOT_ABSENT && slot->unasked) {
            store->meters[slot->layer].counters.prefetch_issued++;
        }
    }
    pthread_mutex_unlock(&store->lock);
}

static void add_residency(sl_store *store, uint32_t layer, uint64_t *mask, uint32_t n_words)
{
    for (uint32_t expert = 0; expert < store->n_experts && expert / 64 < n_words; expert++) {
        uint32_t slot = *sl_slot_place(store, layer, expert);
        if (slot != SL_NO_SLOT && store->slots[slot].state == SL_SLOT_READY) {
            mask[expert / 64] |= (uint64_t)1 << (expert % 64);
        }
    }
}

void sl_store_residency(sl_store *store, uint32_t layer, uint64_t *mask, uint32_t n_words)
{
    memset(mask, 0, (size_t)n_words * sizeof *mask);
    if (layer < store->n_layers) {
        pthread_mutex_lock(&store->lock);
        add_residency(store, layer, mask, n_words);
        pthread_mutex_unlock(&store->lock);
    }
}

void sl_store_merged_residency(sl_store *store, uint64_t *mask, uint32_t n_words)
{
    memset(mask, 0, (size_t)n_words * sizeof *mask);
    pthread_mutex_lock(&store->lock);
    for (uint32_t layer = 0; layer < store->n_layers; layer++) {
        add_residency(store, layer, mask, n_words);
    }
    pthread_mutex_unlock(&store->lock);
}
