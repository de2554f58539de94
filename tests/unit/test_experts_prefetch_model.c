/* The expert store with hints against a simple model of it, over long random sequences of requests, hints, and reads
 * that finish or fail in any order. The model knows no slots and no lists of free ones: only experts, and the rules:
 *   hints wait without a place until fewer bytes than the window are in flight, and go piece by piece;
 *   what is asked for is started at once; places for hints are taken only while no request lacks one;
 *   a hint ends with a newer one for its layer, with its layer's request, and when that is overdue;
 *   a read for a hint that fails is nobody's error: who asked meanwhile has it read once more;
 *   when places are given up, which experts are on them is the one thing the store is asked about its slots: those that
 *   nobody holds and nothing reads go at once, the others when that ends, and none of them makes room for another. */
#include "manual_store.h"

static const expert_shape shape = {
    .n_layers = 4, .n_experts = 6, .n_ranges = 3, .matrix_bytes = 200, .n_files = 1, .buffered = true};
enum { N_LAYERS = 4, N_EXPERTS = 6, N_TOTAL = N_LAYERS * N_EXPERTS, N_PIECES = 3, ALL_PIECES = 7, NOBODY = -1 };

typedef enum place_state { ABSENT, READING, READY } place_state;

/* One expert. */
typedef struct place {
    place_state state;
    bool pinned, unasked, for_hint, abandoned, displaced, leaving;
    int n_started;
    int done, failed; /* pieces, as bits */
    int64_t rank;     /* the lowest gives way first: time of the last request, below 0 for one nobody asked for */
    uint64_t arrival;
} place;

typedef struct hint_list {
    int experts[N_EXPERTS];
    int n_experts, next;
    uint64_t expires_at;
} hint_list;

typedef enum entry_state { WITHOUT, HIT, MISS, DELIVERED, GONE } entry_state;

typedef struct model {
    int n_places, n_taken; /* without those that are given up */
    int n_leaving;
    int n_waits; /* times that places were given up on which somebody still was */
    uint64_t window;
    place places[N_TOTAL];
    hint_list hints[N_LAYERS];
    int filling;
    int flying[MANUAL_MAX_FLYING]; /* place * N_PIECES + piece, oldest first */
    int n_flying;
    uint64_t time, n_begins, n_arrivals, n_prefetched;
    int last_layer;
    /* The request. */
    bool open, failed;
    int layer, n_entries;
    uint32_t experts[N_EXPERTS];
    entry_state entries[N_EXPERTS];
    uint64_t request_time;
    sl_store_counters counters;
} model;

static uint64_t piece_bytes(int piece)
{
    return shape.matrix_bytes + 777 * (uint64_t)piece;
}

static uint64_t bytes_of(const place *p, bool done)
{
    uint64_t bytes = 0;
    for (int piece = 0; piece < p->n_started; piece++) {
        bytes += ((p->done >> piece & 1) != 0) == done ? piece_bytes(piece) : 0;
    }
    return bytes;
}

static uint64_t flying_bytes(const model *m, bool unasked_only)
{
    uint64_t bytes = 0;
    for (int i = 0; i < m->n_flying; i++) {
        bool counts = !unasked_only || m->places[m->flying[i] / N_PIECES].unasked;
        bytes += counts ? piece_bytes(m->flying[i] % N_PIECES) : 0;
    }
    return bytes;
}

static bool is_hinted(const model *m, int who)
{
    const hint_list *hint = &m->hints[who / N_EXPERTS];
    for (int i = 0; i < hint->n_experts; i++) {
        if (hint->experts[i] == who % N_EXPERTS) {
            return true;
        }
    }
    return false;
}

static bool lacks_a_place(const model *m)
{
    bool lacks = false;
    for (int i = 0; m->open && !m->failed && i < m->n_entries; i++) {
        lacks = lacks || m->entries[i] == WITHOUT;
    }
    return lacks;
}

static void leave(model *m, int who)
{
    place *p = &m->places[who];
    if (p->unasked) {
        m->counters.prefetch_useless++;
        m->counters.prefetch_useless_bytes += bytes_of(p, true);
    }
    *(p->leaving ? &m->n_leaving : &m->n_taken) -= 1;
    bool displaced = p->displaced;
    *p = (place){.displaced = displaced};
}

static void go_if_leaving(model *m, int who)
{
    const place *p = &m->places[who];
    if (p->leaving && p->state == READY && !p->pinned) {
        m->counters.evictions++;
        leave(m, who);
    }
}

/* Of the experts that may go, the one of the lowest rank; none once that rank is reached at which one is held. */
static int victim(const model *m, bool spare, bool stop_at_held)
{
    int best = NOBODY;
    int64_t held = INT64_MAX;
    for (int who = 0; who < N_TOTAL; who++) {
        const place *p = &m->places[who];
        if (p->leaving) {
            continue;
        }
        if (p->state != ABSENT && p->pinned && stop_at_held && p->rank < held) {
            held = p->rank;
        }
        if (p->state == READY && !p->pinned && !(spare && is_hinted(m, who)) &&
            (best == NOBODY || p->rank < m->places[best].rank)) {
            best = who;
        }
    }
    return best != NOBODY && m->places[best].rank < held ? best : NOBODY;
}

static void start_piece(model *m, int who)
{
    m->flying[m->n_flying++] = who * N_PIECES + m->places[who].n_started++;
}

static void start_pieces(model *m, int who)
{
    while (m->places[who].n_started < N_PIECES) {
        start_piece(m, who);
    }
}

static void abandon(model *m, int who)
{
    m->filling = m->filling == who ? NOBODY : m->filling;
    if (bytes_of(&m->places[who], false) == 0) {
        leave(m, who);
    } else {
        m->places[who].abandoned = true;
    }
}

static bool any_hint(const model *m)
{
    bool any = false;
    for (int layer = 0; layer < N_LAYERS; layer++) {
        any = any || m->hints[layer].n_experts > 0;
    }
    return any;
}

/* Make room for one more; false when there is none. */
static bool make_room(model *m, bool for_hint)
{
    if (m->n_taken < m->n_places) {
        return true;
    }
    int gone = victim(m, true, !for_hint);
    if (gone == NOBODY && !for_hint && m->filling != NOBODY) {
        abandon(m, m->filling);
    } else if (gone == NOBODY && !for_hint && any_hint(m)) {
        gone = victim(m, false, true);
    }
    if (gone != NOBODY) {
        m->places[gone].displaced = m->places[gone].displaced || (for_hint && !m->places[gone].unasked);
        m->counters.evictions++;
        leave(m, gone);
    }
    return m->n_taken < m->n_places;
}

static void give_places(model *m)
{
    for (int i = 0; m->open && !m->failed && i < m->n_entries; i++) {
        if (m->entries[i] != WITHOUT) {
            continue;
        }
        if (!make_room(m, false)) {
            return;
        }
        int who = m->layer * N_EXPERTS + (int)m->experts[i];
        bool displaced = m->places[who].displaced;
        m->places[who] =
            (place){.state = READING, .pinned = true, .rank = (int64_t)m->request_time + i, .displaced = displaced};
        m->n_taken++;
        m->entries[i] = MISS;
        start_pieces(m, who);
    }
}

/* The next expert of the nearest hint that has no place gets one. */
static bool begin_next(model *m)
{
    if (lacks_a_place(m)) {
        return false;
    }
    for (;;) {
        int layer = NOBODY;
        for (int i = 0; i < N_LAYERS; i++) {
            if (m->hints[i].next < m->hints[i].n_experts &&
                (layer == NOBODY || m->hints[i].expires_at < m->hints[layer].expires_at)) {
                layer = i;
            }
        }
        if (layer == NOBODY) {
            return false;
        }
        hint_list *hint = &m->hints[layer];
        int who = layer * N_EXPERTS + hint->experts[hint->next];
        if (m->places[who].state == ABSENT) {
            if (!make_room(m, true)) {
                return false;
            }
            bool displaced = m->places[who].displaced;
            m->places[who] = (place){.state = READING,
                                     .unasked = true,
                                     .for_hint = true,
                                     .rank = -(int64_t)++m->n_prefetched,
                                     .displaced = displaced};
            m->n_taken++;
            m->counters.prefetch_issued++;
            m->filling = who;
            hint->next++;
            return true;
        }
        hint->next++;
    }
}

static void read_hints(model *m)
{
    while (any_hint(m) && flying_bytes(m, false) < m->window) {
        if (m->filling == NOBODY && !begin_next(m)) {
            return;
        }
        start_piece(m, m->filling);
        m->filling = m->places[m->filling].n_started == N_PIECES ? NOBODY : m->filling;
    }
}

static void drop_hint(model *m, int layer)
{
    if (m->hints[layer].n_experts > 0) {
        m->hints[layer] = (hint_list){0};
        if (m->filling != NOBODY && m->filling / N_EXPERTS == layer) {
            abandon(m, m->filling);
        }
    }
}

static void model_hint(model *m, int layer, const uint32_t *experts, uint32_t n_experts)
{
    hint_list hint = {0};
    int turns = 1;
    for (int next = (m->last_layer + 1) % N_LAYERS; next != layer; next = (next + 1) % N_LAYERS) {
        turns++;
    }
    hint.expires_at = m->n_begins + (uint64_t)turns;
    for (uint32_t i = 0; i < n_experts; i++) {
        hint.experts[hint.n_experts++] = (int)experts[i];
    }
    m->hints[layer] = hint;
    if (m->filling != NOBODY && m->filling / N_EXPERTS == layer && !is_hinted(m, m->filling)) {
        abandon(m, m->filling);
    }
    read_hints(m);
}

static void ask(model *m, int who)
{
    place *p = &m->places[who];
    if (p->unasked) {
        p->unasked = false;
        p->abandoned = false;
        m->counters.prefetch_used++;
        m->counters.prefetch_used_bytes += bytes_of(p, true);
        if (p->state == READING) {
            m->counters.prefetch_late++;
            m->filling = m->filling == who ? NOBODY : m->filling;
            start_pieces(m, who);
        }
    }
}

static void model_begin(model *m, int layer, const uint32_t *experts, uint32_t n_experts)
{
    m->open = true;
    m->failed = false;
    m->layer = layer;
    m->n_entries = (int)n_experts;
    memcpy(m->experts, experts, n_experts * sizeof *experts);
    m->request_time = m->time;
    m->time += n_experts;
    m->n_begins++;
    m->last_layer = layer;
    uint64_t n_hits = 0;
    for (int i = 0; i < m->n_entries; i++) {
        int who = layer * N_EXPERTS + (int)experts[i];
        place *p = &m->places[who];
        m->counters.prefetch_displaced += p->displaced && p->state == ABSENT ? 1 : 0;
        p->displaced = false;
        m->entries[i] = p->state == ABSENT ? WITHOUT : p->state == READY ? HIT : MISS;
        n_hits += p->state == READY ? 1 : 0;
        if (p->state != ABSENT) {
            ask(m, who);
            p->pinned = true;
            p->rank = (int64_t)m->request_time + i;
        }
    }
    m->counters.requests += n_experts;
    m->counters.hits += n_hits;
    m->counters.misses += n_experts - n_hits;
    m->counters.prefetch_ahead_bytes += n_hits < n_experts ? flying_bytes(m, true) : 0;
    drop_hint(m, layer);
    for (int i = 0; i < N_LAYERS; i++) {
        if (m->hints[i].n_experts > 0 && m->hints[i].expires_at <= m->n_begins) {
            drop_hint(m, i);
        }
    }
    give_places(m);
    read_hints(m);
}

/* All pieces are done. */
static void finish(model *m, int who)
{
    place *p = &m->places[who];
    if (p->failed == 0) {
        p->state = READY;
        p->arrival = ++m->n_arrivals;
        go_if_leaving(m, who);
    } else if (p->for_hint && p->pinned) {
        p->for_hint = false;
        p->n_started = p->done = p->failed = 0;
        start_pieces(m, who);
    } else {
        for (int i = 0; p->pinned && i < m->n_entries; i++) {
            if (m->layer * N_EXPERTS + (int)m->experts[i] == who) {
                m->entries[i] = GONE;
                m->failed = true;
            }
        }
        leave(m, who);
    }
}

static void model_finish(model *m, int i_read, bool works)
{
    int read = m->flying[i_read];
    place *p = &m->places[read / N_PIECES];
    memmove(&m->flying[i_read], &m->flying[i_read + 1], (size_t)(m->n_flying - i_read - 1) * sizeof m->flying[0]);
    m->n_flying--;
    p->done |= 1 << read % N_PIECES;
    p->failed |= works ? 0 : 1 << read % N_PIECES;
    m->counters.failed_reads += works ? 0 : 1;
    if (p->done == ALL_PIECES) {
        finish(m, read / N_PIECES);
        give_places(m);
    } else if (p->abandoned && bytes_of(p, false) == 0) {
        leave(m, read / N_PIECES);
        give_places(m);
    }
    read_hints(m);
}

/* The entry that is delivered next; NOBODY when none can be. */
static int next_delivery(const model *m)
{
    int best = NOBODY;
    for (int i = 0; i < m->n_entries; i++) {
        const place *p = &m->places[m->layer * N_EXPERTS + (int)m->experts[i]];
        if (m->entries[i] == HIT) {
            return i;
        }
        if (m->entries[i] == MISS && p->state == READY &&
            (best == NOBODY || p->arrival < m->places[m->layer * N_EXPERTS + (int)m->experts[best]].arrival)) {
            best = i;
        }
    }
    return best;
}

static void model_release(model *m, int i_entry)
{
    int who = m->layer * N_EXPERTS + (int)m->experts[i_entry];
    m->places[who].pinned = false;
    m->entries[i_entry] = GONE;
    go_if_leaving(m, who);
    give_places(m);
    read_hints(m);
}

static void model_end(model *m)
{
    m->open = false;
    for (int who = 0; who < N_TOTAL; who++) {
        m->places[who].pinned = false;
        go_if_leaving(m, who);
    }
    read_hints(m);
}

/* `is_beyond`: whether an expert is on one of the places that are given up. */
static void model_limit(model *m, int n_places, const bool is_beyond[N_TOTAL])
{
    m->n_places = n_places;
    for (int who = 0; who < N_TOTAL; who++) {
        if (m->places[who].state != ABSENT && is_beyond[who]) {
            m->places[who].leaving = true;
            m->n_taken--;
            m->n_leaving++;
        }
    }
    if (m->filling != NOBODY && m->places[m->filling].leaving) {
        abandon(m, m->filling);
    }
    for (int who = 0; who < N_TOTAL; who++) {
        go_if_leaving(m, who);
    }
    m->n_waits += m->n_leaving > 0 ? 1 : 0;
    give_places(m);
    read_hints(m);
}

/* ---- The store beside it ---- */

typedef struct pair {
    model m;
    expert_files *set; /* owned */
    manual_reads reads;
    sl_store *store; /* owned */
    sl_store_request request;
    uint64_t progress[N_EXPERTS];
    uint32_t experts[N_EXPERTS];
    sl_expert_view held[N_EXPERTS];
    int n_held;
    uint32_t random;
} pair;

static uint32_t draw(pair *both, uint32_t below)
{
    both->random ^= both->random << 13;
    both->random ^= both->random >> 17;
    both->random ^= both->random << 5;
    return both->random % below;
}

static uint32_t draw_experts(pair *both, uint32_t experts[N_EXPERTS])
{
    uint32_t n_wanted = draw(both, 8) == 0 ? draw(both, N_EXPERTS + 1) : draw(both, 4);
    uint32_t n_drawn = 0;
    while (n_drawn < n_wanted) {
        uint32_t expert = draw(both, 1 + draw(both, N_EXPERTS));
        bool known = false;
        for (uint32_t i = 0; i < n_drawn; i++) {
            known = known || experts[i] == expert;
        }
        if (!known) {
            experts[n_drawn++] = expert;
        }
    }
    return n_drawn;
}

static void expect_same(const pair *both)
{
    const model *m = &both->m;
    assert_int_equal(both->reads.n_flying, m->n_flying);
    for (int i = 0; i < m->n_flying; i++) {
        int who = m->flying[i] / N_PIECES;
        assert_int_equal(manual_name(both->store, both->reads.flying[i]),
                         who / N_EXPERTS * 1000000 + who % N_EXPERTS * 1000 + m->flying[i] % N_PIECES);
    }
    assert_int_equal(both->store->n_leaving, m->n_leaving);
    assert_int_equal(both->store->n_slots, m->n_places);
    uint64_t n_unasked = 0;
    for (uint32_t layer = 0; layer < N_LAYERS; layer++) {
        uint64_t mask = 0;
        uint64_t expected = 0;
        sl_store_residency(both->store, layer, &mask, 1);
        for (uint32_t expert = 0; expert < N_EXPERTS; expert++) {
            const place *p = &m->places[layer * N_EXPERTS + expert];
            expected |= (uint64_t)(p->state == READY) << expert;
            n_unasked += p->unasked ? 1 : 0;
        }
        assert_int_equal(mask, expected);
    }
    sl_store_counters counters;
    sl_store_counters_get(both->store, &counters);
    assert_int_equal(counters.requests, m->counters.requests);
    assert_int_equal(counters.hits, m->counters.hits);
    assert_int_equal(counters.misses, m->counters.misses);
    assert_int_equal(counters.evictions, m->counters.evictions);
    assert_int_equal(counters.failed_reads, m->counters.failed_reads);
    assert_int_equal(counters.prefetch_issued, m->counters.prefetch_issued);
    assert_int_equal(counters.prefetch_used, m->counters.prefetch_used);
    assert_int_equal(counters.prefetch_late, m->counters.prefetch_late);
    assert_int_equal(counters.prefetch_useless, m->counters.prefetch_useless);
    assert_int_equal(counters.prefetch_used_bytes, m->counters.prefetch_used_bytes);
    assert_int_equal(counters.prefetch_useless_bytes, m->counters.prefetch_useless_bytes);
    assert_int_equal(counters.prefetch_displaced, m->counters.prefetch_displaced);
    assert_int_equal(counters.prefetch_ahead_bytes, m->counters.prefetch_ahead_bytes);
    assert_int_equal(counters.prefetch_issued, counters.prefetch_used + counters.prefetch_useless + n_unasked);
}

static void begin(pair *both)
{
    uint32_t n_experts = draw_experts(both, both->experts);
    int layer = draw(both, 5) == 0 ? (int)draw(both, N_LAYERS) : (both->m.last_layer + 1) % N_LAYERS;
    assert_int_equal(
        sl_store_begin(both->store, &both->request, (uint32_t)layer, both->experts, n_experts, both->progress, NULL),
        SLUICE_OK);
    both->n_held = 0;
    model_begin(&both->m, layer, both->experts, n_experts);
}

static void hint(pair *both)
{
    uint32_t experts[N_EXPERTS];
    uint32_t n_experts = draw_experts(both, experts);
    int layer = draw(both, 3) == 0 ? (int)draw(both, N_LAYERS) : (both->m.last_layer + 1) % N_LAYERS;
    sl_store_prefetch(both->store, (uint32_t)layer, experts, n_experts);
    model_hint(&both->m, layer, experts, n_experts);
}

static void finish_one(pair *both, uint32_t one_fails_in)
{
    if (both->m.n_flying > 0) {
        uint32_t i_read = draw(both, 2) == 0 ? 0 : draw(both, (uint32_t)both->m.n_flying);
        bool works = one_fails_in == 0 || draw(both, one_fails_in) != 0;
        manual_finish(&both->reads, i_read, works);
        model_finish(&both->m, (int)i_read, works);
    }
}

static void release_one(pair *both)
{
    both->n_held--;
    const sl_expert_view *view = &both->held[both->n_held];
    assert_true(expert_is_true(both->set, (uint32_t)both->m.layer, view));
    sl_store_release(both->store, &both->request, view);
    model_release(&both->m, (int)view->index);
}

static void end(pair *both)
{
    sl_store_end(both->store, &both->request);
    both->n_held = 0;
    model_end(&both->m);
}

/* Take the next expert of the request; nothing when there is none yet. */
static void deliver(pair *both)
{
    model *m = &both->m;
    int expected = m->failed ? NOBODY : next_delivery(m);
    if (expected == NOBODY && !m->failed) {
        return;
    }
    uint32_t n_ready = 0;
    sl_expert_view *view = &both->held[both->n_held];
    sluice_status status = sl_store_wait(both->store, &both->request, view, 1, &n_ready, NULL);
    assert_int_equal(status, m->failed ? SLUICE_ERROR_IO : SLUICE_OK);
    if (m->failed) {
        end(both);
        return;
    }
    assert_int_equal(n_ready, 1);
    assert_int_equal(view->index, expected);
    m->entries[expected] = DELIVERED;
    both->n_held++;
}

static bool is_complete(const model *m)
{
    bool complete = !m->failed;
    for (int i = 0; i < m->n_entries; i++) {
        complete = complete && m->entries[i] == GONE;
    }
    return complete;
}

/* The call that waits is made only where there is nothing to wait for: before that, what it begins with. */
static void resize(pair *both)
{
    model *m = &both->m;
    if (m->n_leaving > 0) {
        return;
    }
    bool is_beyond[N_TOTAL] = {false};
    assert_int_equal(sl_store_set_slots(both->store, (uint64_t)m->n_places, NULL), SLUICE_OK);
    model_limit(m, m->n_places, is_beyond);
    uint32_t n_slots = 1 + draw(both, draw(both, 3) == 0 ? N_TOTAL : 8);
    if (n_slots > (uint32_t)m->n_places) {
        assert_int_equal(sl_store_set_slots(both->store, n_slots, NULL), SLUICE_OK);
    } else {
        for (int who = 0; who < N_TOTAL; who++) {
            uint32_t slot = both->store->slot_of_expert[who];
            is_beyond[who] = slot != SL_NO_SLOT && slot >= n_slots;
        }
        pthread_mutex_lock(&both->store->lock);
        sl_slots_limit(both->store, n_slots);
        pthread_mutex_unlock(&both->store->lock);
    }
    model_limit(m, (int)n_slots, is_beyond);
}

static void step(pair *both, uint32_t one_fails_in, bool resizes)
{
    uint32_t what = draw(both, 100);
    if (resizes && what < 3) {
        resize(both);
    } else if (what < 15) {
        hint(both);
    } else if (what < 50) {
        finish_one(both, one_fails_in);
    } else if (!both->m.open) {
        begin(both);
    } else if (is_complete(&both->m) || what < 53) {
        end(both);
    } else if (both->n_held > 0 && what < 75) {
        release_one(both);
    } else {
        deliver(both);
    }
}

static void run(uint32_t n_slots, uint64_t window, uint32_t one_fails_in, bool resizes)
{
    pair *both = calloc(1, sizeof *both);
    assert_non_null(both);
    both->set = expert_files_open(&shape);
    both->store = manual_store_open(both->set, n_slots, window, &both->reads);
    both->random = 4711 + n_slots * 31 + (uint32_t)window + one_fails_in;
    both->m =
        (model){.n_places = (int)n_slots, .window = window, .filling = NOBODY, .time = 1, .last_layer = N_LAYERS - 1};
    for (int i_step = 0; i_step < 20000; i_step++) {
        step(both, one_fails_in, resizes);
        expect_same(both);
    }
    assert_true(!resizes || both->m.n_waits > 20);
    /* With a slot for each expert there is soon nothing left to read. */
    if (n_slots < N_TOTAL) {
        assert_true(both->m.counters.prefetch_late > 10 && both->m.counters.prefetch_useless > 10);
        assert_true(both->m.counters.prefetch_used > both->m.counters.prefetch_late);
    }
    if (both->m.open) {
        end(both);
    }
    sl_store_close(&both->store);
    expert_files_close(both->set);
    free(both);
}

static const uint32_t slot_counts[] = {1, 2, 3, 4, 6, 9, 14, 20, 24};
static const uint64_t windows[] = {1, 600, 5000, 1 << 20};

static void random_sequences_do_what_the_model_does(void **state)
{
    (void)state;
    for (size_t i_count = 0; i_count < sizeof slot_counts / sizeof slot_counts[0]; i_count++) {
        for (size_t i_window = 0; i_window < sizeof windows / sizeof windows[0]; i_window++) {
            run(slot_counts[i_count], windows[i_window], 0, false);
        }
    }
}

static void reads_that_fail_do_what_the_model_does(void **state)
{
    (void)state;
    for (size_t i_count = 0; i_count < sizeof slot_counts / sizeof slot_counts[0]; i_count++) {
        for (size_t i_window = 0; i_window < sizeof windows / sizeof windows[0]; i_window++) {
            run(slot_counts[i_count], windows[i_window], 9, false);
        }
    }
}

static void sequences_with_changes_of_size_do_what_the_model_does(void **state)
{
    (void)state;
    for (uint32_t n_slots = 1; n_slots <= 7; n_slots += 3) {
        for (size_t i_window = 0; i_window < sizeof windows / sizeof windows[0]; i_window++) {
            run(n_slots, windows[i_window], 0, true);
            run(n_slots, windows[i_window], 9, true);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_sequences_do_what_the_model_does),
        cmocka_unit_test(reads_that_fail_do_what_the_model_does),
        cmocka_unit_test(sequences_with_changes_of_size_do_what_the_model_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
