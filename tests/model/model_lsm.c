/* model_lsm.c
   Goal: whatever the options, kv_lsm.h answers as a sorted array does, through flushes, merges,
   reopening, snapshots and cursors that live on meanwhile.
   Method: random histories over random option sets on a disk in memory: tiny memtables, blocks and
   tables, so that every level fills. Every answer is compared; now and then all entries are, forward and
   backward. Counters at the end prove that the histories met what they are to meet. */
#define KV_LSM_IMPLEMENTATION
#include "../../kv_lsm.h"
#include "../kv_disk.h"

enum { SNAPSHOTS = 3, CURSORS = 2 };

typedef struct frozen_model { test_model model; kv_snapshot *snapshot; kv_iter *cursor; kv_range range; size_t *order, count, at; bool live; } frozen_model;

typedef struct history {
    test_rng       rng;
    disk          *d;
    kv_lsm_options options;
    kv_lsm        *db;
    test_model     model;
    frozen_model   snapshots[SNAPSHOTS], cursors[CURSORS];
    test_key_kind  keys;
    uint64_t       key_count;
    size_t         value_max;
    size_t         ops, checkpoints;
} history;

/* what all histories met, together */
static struct { uint64_t ops, flushes, merges, moves, tombstones, versions, reopens, deepest, l0_most, tiered_runs, ingests, steps; } met;

static char key_memory[65536], other_memory[65536], value_memory[1 << 17];

static kv_slice some_key(history *h, char *memory) { return test_key(h->keys, test_below(&h->rng, h->key_count), memory); }
static kv_slice some_value(history *h)
{
    size_t   size = test_one_in(&h->rng, 8) ? 0 : (size_t)test_below(&h->rng, h->value_max);
    uint64_t seed = test_random(&h->rng);
    for (size_t i = 0; i < size; i++) value_memory[i] = (char)(i % 16 < 8 ? 'a' + (char)(i % 16) : (char)(seed >> (i % 8 * 8)));
    return kv_bytes(value_memory, size);
}
static kv_range some_range(history *h, char *memory, char *other)
{
    kv_range r;
    memset(&r, 0, sizeof r);
    if (test_one_in(&h->rng, 3)) r.from = some_key(h, memory);
    if (test_one_in(&h->rng, 3)) r.to = some_key(h, other);
    if (test_one_in(&h->rng, 4)) {
        r.from.data = r.to.data = NULL;
        r.prefix = some_key(h, memory);
        r.prefix.size = (size_t)test_below(&h->rng, r.prefix.size + 1);
    }
    if (test_one_in(&h->rng, 3)) r.limit = 1 + (size_t)test_below(&h->rng, 20);
    r.reverse = test_one_in(&h->rng, 2);
    return r;
}
static test_model model_copy(const test_model *m)
{
    test_model copy;
    memset(&copy, 0, sizeof copy);
    copy.entries = (test_entry *)malloc((m->count + 1) * sizeof *copy.entries);
    if (!copy.entries) abort();
    copy.count = copy.capacity = m->count;
    copy.capacity++;
    for (size_t i = 0; i < m->count; i++) {
        copy.entries[i] = m->entries[i];
        copy.entries[i].key = test_copy(test_entry_key(&m->entries[i]));
        copy.entries[i].value = test_copy(test_entry_value(&m->entries[i]));
    }
    return copy;
}

/* ---- comparing ---- */

typedef struct scan_check { const test_model *model; const size_t *order; size_t count, at; bool ok; } scan_check;
static bool visit_check(void *user, kv_slice key, kv_slice value)
{
    scan_check *c = (scan_check *)user;
    if (c->at >= c->count) { c->ok = CHECK(!"the scan goes on too long"); return false; }
    c->ok = CHECK_BYTES(key, test_entry_key(&c->model->entries[c->order[c->at]])) && CHECK_BYTES(value, test_entry_value(&c->model->entries[c->order[c->at]])) && c->ok;
    c->at++;
    return c->ok;
}
static bool check_scan(history *h, const kv_range *range)
{
    scan_check c;
    uint64_t   n = 0;
    size_t    *order = test_model_range(&h->model, range, &c.count);
    c.model = &h->model;
    c.order = order;
    c.at = 0;
    c.ok = true;
    c.ok = CHECK_OK(kv_lsm_scan(h->db, range, visit_check, &c)) && c.ok && CHECK_EQ(c.at, c.count);
    if (test_one_in(&h->rng, 4)) c.ok = CHECK_OK(kv_lsm_count(h->db, range, &n)) && CHECK_EQ(n, c.count) && c.ok;
    free(order);
    return c.ok;
}
static bool check_all(history *h)
{
    kv_range back;
    memset(&back, 0, sizeof back);
    back.reverse = true;
    return check_scan(h, NULL) && check_scan(h, &back);
}
static bool check_get(history *h, const test_model *m, const kv_snapshot *snapshot, kv_slice key)
{
    kv_buf            value;
    const test_entry *e = test_model_get(m, key);
    bool              ok;
    memset(&value, 0, sizeof value);
    ok = CHECK_STATUS(kv_lsm_get_at(h->db, snapshot, key, &value), e ? KV_OK : KV_NOT_FOUND);
    if (ok && e) ok = CHECK_BYTES(kv_buf_slice(&value), test_entry_value(e));
    kv_buf_free(&value);
    if (ok && !snapshot) ok = CHECK_STATUS(kv_lsm_exists(h->db, key), e ? KV_OK : KV_NOT_FOUND);
    if (ok && !snapshot && test_one_in(&h->rng, 8)) {
        kv_lsm_location where;
        ok = CHECK_STATUS(kv_lsm_locate(h->db, key, &where), e ? KV_OK : KV_NOT_FOUND);
    }
    return ok;
}

/* ---- cursors that see one moment ---- */

static void forget(history *h, frozen_model *f)
{
    if (!f->live) return;
    if (f->cursor) kv_iter_close(f->cursor);
    if (f->snapshot) kv_lsm_snapshot_release(h->db, f->snapshot);
    free(f->order);
    test_model_free(&f->model);
    memset(f, 0, sizeof *f);
}
static bool cursor_stands(frozen_model *f)      /* where it stands is entry `at` of the order; count: nowhere */
{
    if (!CHECK_EQ(kv_iter_valid(f->cursor), f->at < f->count)) return false;
    if (f->at >= f->count) return CHECK_OK(kv_iter_status(f->cursor));
    return CHECK_BYTES(kv_iter_key(f->cursor), test_entry_key(&f->model.entries[f->order[f->at]]))
        && CHECK_BYTES(kv_iter_value(f->cursor), test_entry_value(&f->model.entries[f->order[f->at]]));
}
static bool cursor_moves(history *h, frozen_model *f)
{
    for (int moves = 1 + (int)test_below(&h->rng, 12); moves > 0; moves--) {
        switch (test_below(&h->rng, 10)) {
        case 0: kv_iter_first(f->cursor); f->at = 0; break;
        case 1: kv_iter_last(f->cursor); f->at = f->count ? f->count - 1 : 0; break;
        case 2: {
            kv_slice key = some_key(h, key_memory);
            kv_iter_seek(f->cursor, key);
            for (f->at = 0; f->at < f->count; f->at++) {
                int order = kv_compare(test_entry_key(&f->model.entries[f->order[f->at]]), key);
                if (f->range.reverse ? order <= 0 : order >= 0) break;
            }
            break;
        }
        case 3: case 4: case 5:
            if (f->at >= f->count) break;
            kv_iter_prev(f->cursor);
            f->at = f->at ? f->at - 1 : f->count;
            break;
        default:
            if (f->at >= f->count) break;
            kv_iter_next(f->cursor);
            f->at++;
        }
        if (!cursor_stands(f)) return false;
    }
    return true;
}
static bool cursor_begin(history *h, frozen_model *f)
{
    static char from[65536], to[65536];
    kv_snapshot *snapshot = NULL;
    forget(h, f);
    f->range = some_range(h, from, to);
    f->model = model_copy(&h->model);
    f->order = test_model_range(&f->model, &f->range, &f->count);
    f->live = true;
    if (test_one_in(&h->rng, 2) && !CHECK_OK(kv_lsm_snapshot(h->db, &snapshot))) return false;
    if (!CHECK_OK(kv_lsm_iter_open(h->db, snapshot, &f->range, &f->cursor))) return false;
    kv_lsm_snapshot_release(h->db, snapshot);   /* the cursor keeps what it sees */
    f->range.prefix.data = f->range.from.data = f->range.to.data = NULL;
    return cursor_stands(f);
}

/* ---- opening and closing ---- */

static void gather(history *h)
{
    kv_lsm_stats_t s;
    if (!CHECK_OK(kv_lsm_stats(h->db, &s))) return;
    met.flushes += s.flushes;
    met.merges += s.compactions;
    met.moves += s.trivial_moves;
    met.tombstones += s.tombstones_dropped;
    met.versions += s.versions_dropped;
}
static bool reopen(history *h)
{
    char text[300] = "";
    for (int i = 0; i < SNAPSHOTS; i++) forget(h, &h->snapshots[i]);
    for (int i = 0; i < CURSORS; i++) forget(h, &h->cursors[i]);
    if (h->db) {
        gather(h);
        met.reopens++;
        if (!CHECK_OK(kv_lsm_close(h->db))) return false;
        h->db = NULL;
        if (test_one_in(&h->rng, 2)) h->options.codec = (kv_codec)(1 + test_below(&h->rng, 3));
        if (test_one_in(&h->rng, 4)) h->options.style = test_one_in(&h->rng, 2) ? KV_LSM_TIERED : KV_LSM_LEVELED;
        if (!kv_codec_supported(h->options.codec)) h->options.codec = KV_CODEC_NONE;
    }
    h->options.error_text = text;
    h->options.error_text_size = sizeof text;
    if (!CHECK_OK(kv_lsm_open("db", &h->options, &h->db))) { fprintf(stderr, "%s\n", text); return false; }
    return true;
}

/* ---- one operation ---- */

static bool do_batch(history *h)
{
    kv_lsm_batch *b;
    bool          ok = CHECK_OK(kv_lsm_batch_open(NULL, &b));
    for (size_t n = (size_t)test_below(&h->rng, 20); ok && n > 0; n--) {
        kv_slice key = some_key(h, key_memory);
        if (test_one_in(&h->rng, 3)) { ok = CHECK_OK(kv_lsm_batch_remove(b, key)); test_model_delete(&h->model, key); }
        else { kv_slice value = some_value(h); ok = CHECK_OK(kv_lsm_batch_put(b, key, value)); test_model_set(&h->model, key, value); }
    }
    ok = ok && CHECK_OK(kv_lsm_write(h->db, b));
    kv_lsm_batch_close(b);
    return ok;
}
static bool do_conditional(history *h)
{
    kv_slice          key = some_key(h, key_memory), value = some_value(h);
    const test_entry *e = test_model_get(&h->model, key);
    if (test_one_in(&h->rng, 2)) {
        bool ok = CHECK_STATUS(kv_lsm_insert(h->db, key, value), e ? KV_EXISTS : KV_OK);
        if (!e) test_model_set(&h->model, key, value);
        return ok;
    }
    if (!e) return CHECK_STATUS(kv_lsm_compare_and_set(h->db, key, value, value), KV_NOT_FOUND);
    if (test_one_in(&h->rng, 2)) {
        bool ok = CHECK_OK(kv_lsm_compare_and_set(h->db, key, test_entry_value(e), value));
        test_model_set(&h->model, key, value);
        return ok;
    }
    return CHECK_STATUS(kv_lsm_compare_and_set(h->db, key, KV_STR("surely something else"), value), KV_ERR_CONFLICT);
}
static bool do_delete_range(history *h)
{
    kv_range range = some_range(h, key_memory, other_memory);
    size_t   count, *order;
    uint64_t deleted = 0;
    bool     ok;
    if (!range.limit) range.limit = 30;
    order = test_model_range(&h->model, &range, &count);
    ok = CHECK_OK(kv_lsm_delete_range(h->db, &range, &deleted)) && CHECK_EQ(deleted, count);
    for (size_t i = 0; i < count; i++) {            /* from the back, so that positions stay true */
        size_t at = range.reverse ? order[i] : order[count - 1 - i];
        (void)test_model_delete(&h->model, test_entry_key(&h->model.entries[at]));
    }
    free(order);
    return ok;
}
static bool watch_levels(history *h)
{
    kv_lsm_stats_t s;
    uint64_t       levels = 0;
    if (!CHECK_OK(kv_lsm_stats(h->db, &s))) return false;
    for (int i = 0; i < KV_LSM_LEVELS; i++) if (s.levels[i].tables) levels++;
    if (levels > met.deepest) met.deepest = levels;
    if (s.levels[0].tables > met.l0_most) met.l0_most = s.levels[0].tables;
    return true;
}
static bool do_compact(history *h)
{
    kv_range range = some_range(h, key_memory, other_memory);
    kv_stats stats;
    range.limit = 0;
    range.reverse = false;
    if (test_one_in(&h->rng, 2)) return CHECK_OK(kv_lsm_compact(h->db, &range, NULL, NULL));
    if (!CHECK_OK(kv_lsm_compact(h->db, NULL, NULL, NULL))) return false;
    for (int i = 0; i < SNAPSHOTS; i++) if (h->snapshots[i].live) return true;
    return CHECK_OK(kv_store_stats(kv_lsm_store(h->db), &stats)) && CHECK_EQ(stats.keys, h->model.count);
}

static bool one_op(history *h)
{
    uint64_t dice = test_below(&h->rng, 1000);
    kv_slice key, value;
    int      i;
    if (dice < 450) {
        key = some_key(h, key_memory);
        value = some_value(h);
        test_model_set(&h->model, key, value);
        return CHECK_OK(kv_lsm_set(h->db, key, value));
    }
    if (dice < 560) {
        key = some_key(h, key_memory);
        (void)test_model_delete(&h->model, key);
        return CHECK_OK(kv_lsm_delete(h->db, key));
    }
    if (dice < 860) return check_get(h, &h->model, NULL, some_key(h, key_memory));
    if (dice < 880) return do_batch(h);
    if (dice < 900) return do_conditional(h);
    if (dice < 903) return do_delete_range(h);
    if (dice < 925) { kv_range r = some_range(h, key_memory, other_memory); if (!r.limit) r.limit = 50; return check_scan(h, &r); }
    if (dice < 940) { met.steps++; return CHECK(kv_lsm_step(h->db) >= 0); }
    i = (int)test_below(&h->rng, SNAPSHOTS);
    if (dice < 970) return h->snapshots[i].live ? check_get(h, &h->snapshots[i].model, h->snapshots[i].snapshot, some_key(h, key_memory)) : true;
    i = (int)test_below(&h->rng, CURSORS);
    if (dice < 985) return h->cursors[i].live ? cursor_moves(h, &h->cursors[i]) : true;
    /* the dear ones, one in a few hundred */
    dice = test_below(&h->rng, 60);
    if (dice < 6) return cursor_begin(h, &h->cursors[i]);
    if (dice < 9) {
        i = (int)test_below(&h->rng, SNAPSHOTS);
        forget(h, &h->snapshots[i]);
        if (test_one_in(&h->rng, 3)) return true;
        h->snapshots[i].model = model_copy(&h->model);
        h->snapshots[i].live = true;
        return CHECK_OK(kv_lsm_snapshot(h->db, &h->snapshots[i].snapshot));
    }
    if (dice < 13) return CHECK_OK(kv_lsm_flush(h->db)) && watch_levels(h);
    if (dice < 14) return do_compact(h);
    if (dice < 15) return check_all(h);
    if (dice < 16) return reopen(h);
    if (dice < 17) return CHECK_OK(kv_lsm_sync(h->db));
    return watch_levels(h);
}

static kv_lsm_options some_options(test_rng *r, disk *d)
{
    static const uint32_t blocks[] = { 64, 256, 1024, 4096 };
    kv_lsm_options o;
    memset(&o, 0, sizeof o);
    o.io = disk_io(d);
    o.memtable_bytes = 4096u << test_below(r, 4);
    o.block_bytes = blocks[test_below(r, 4)];
    o.table_bytes = 1024u << test_below(r, 4);
    o.l1_bytes = 4096u << test_below(r, 3);
    o.level_ratio = 2 + (uint32_t)test_below(r, 3);
    o.l0_trigger = 2 + (uint32_t)test_below(r, 4);
    o.codec = (kv_codec)(1 + test_below(r, 3));
    if (!kv_codec_supported(o.codec)) o.codec = KV_CODEC_NONE;
    o.bloom_fp_rate = test_one_in(r, 3) ? KV_NO_BLOOM : test_one_in(r, 2) ? 0.3 : 0.01;
    o.cache_bytes = test_one_in(r, 3) ? KV_NONE : test_one_in(r, 2) ? 65536 : 4u << 20;
    o.sync = (kv_sync)test_below(r, 4);
    o.style = test_one_in(r, 4) ? KV_LSM_TIERED : KV_LSM_LEVELED;
    o.no_background = !test_one_in(r, 3);
    o.map_tables = test_one_in(r, 3);
    o.open_files = test_one_in(r, 3) ? 3 : 64;
    o.skip_verify = test_one_in(r, 6);
    return o;
}

static void run_history(uint64_t seed, size_t ops)
{
    history h;
    memset(&h, 0, sizeof h);
    h.rng.state = seed;
    h.d = disk_new();
    h.d->recording = false;
    h.options = some_options(&h.rng, h.d);
    h.keys = (test_key_kind)test_below(&h.rng, TEST_KEYS_LONG);
    h.key_count = 20 + test_below(&h.rng, test_one_in(&h.rng, 2) ? 3000 : 300);
    h.value_max = test_one_in(&h.rng, 6) ? 6000 : 100;
    if (reopen(&h))
        while (h.ops < ops && one_op(&h)) { h.ops++; met.ops++; }
    if (h.ops < ops) fprintf(stderr, "history of seed %" PRIu64 " went wrong at operation %zu: %s\n", seed, h.ops, h.db ? kv_last_error(kv_lsm_store(h.db)) : "");
    else if (check_all(&h)) (void)check_all(&h);
    for (int i = 0; i < SNAPSHOTS; i++) forget(&h, &h.snapshots[i]);
    for (int i = 0; i < CURSORS; i++) forget(&h, &h.cursors[i]);
    if (h.db) { gather(&h); CHECK_OK(kv_lsm_close(h.db)); }
    CHECK_EQ(disk_violations(h.d), 0);
    CHECK_EQ(disk_open_count(h.d), 0);
    test_model_free(&h.model);
    disk_free(h.d);
}

/* How much is merged follows from the options that the seed gave and from when the threads run. */
static bool met_enough(void)
{
    return met.deepest >= 4 && met.l0_most >= 6 && met.tombstones >= 100 && met.moves >= 10 && met.merges >= 1000 && met.reopens >= 30;
}
TEST(lsm_model, random_histories_over_random_options)
{
    test_rng rng = test_rng_new();
    int      least = 40, most = test_scale() < 1 ? least : 10 * least;
    for (int i = 0; (i < least || (i < most && !met_enough())) && !test_failed_checks; i++) run_history(test_random(&rng), test_scaled(5000));     /* KV_TEST_SCALE=5: a million */
    printf("lsm_model: ops=%" PRIu64 " reopens=%" PRIu64 " flushes=%" PRIu64 " merges=%" PRIu64 " moves=%" PRIu64 " tombstones=%" PRIu64
           " versions=%" PRIu64 " levels=%" PRIu64 " l0=%" PRIu64 " steps=%" PRIu64 "\n",
           met.ops, met.reopens, met.flushes, met.merges, met.moves, met.tombstones, met.versions, met.deepest, met.l0_most, met.steps);
    CHECK(met_enough() || test_scale() < 1);
}

TEST_MAIN()
