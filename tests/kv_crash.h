/* kv_crash.h - one random history of a kv_lsm store, and what a power cut may leave of it

   For tests/crash. Include kv_lsm.h with its implementation first. Keys come from a fixed table, and
   each value says which write made it, so the whole state of a store is a small array, and what is
   found after a cut can be held against every state that the store has been in:

       crash_script  one seed makes one history on one disk: sets, deletes, batches, ranges, ingest,
                     flush, compact, steps, snapshots, checkpoints, reopening; the options too
       crash_survey  opens an image of the disk: it must open, hold a prefix of the writes that is not
                     shorter than what was promised, and go on working: write, flush, compact, cut, reopen
       crash_cuts    a cut after every operation of a script, in every mode
       crash_faults  every call of a script fails, once, some times or for good; then a cut
   The rules that the order of operations must follow (P1 to P7, kv_order.h) are watched all the time.

   CONTENTS  >>state >>options >>script >>survey >>cuts >>faults */
#ifndef KV_CRASH_H
#define KV_CRASH_H

#include "kv_disk.h"
#include "kv_order.h"

/* ------------------------------------------------------------------------------------------------
   >>state   keys, values, states                                                                   */

enum { CRASH_KEYS = 28, CRASH_BATCH_MAX = 6, CRASH_VALUE_MAX = 2600 };

typedef struct crash_state { uint32_t ids[CRASH_KEYS]; int64_t counter; } crash_state;   /* 0: missing; counter 0: missing */

/* The key of a number: some are prefixes of others, one is empty, one has zeros in it. */
static kv_slice crash_key(uint32_t i)
{
    static char text[CRASH_KEYS][24];
    if (i == 0) return kv_bytes("", 0);
    if (i == 1) return kv_bytes("\0\0", 2);
    if (i == 2) return KV_STR("k");
    if (i == 3) return KV_STR("k\xFF\xFF");
    if (!text[i][0]) snprintf(text[i], sizeof text[i], "k%03u%s", (unsigned)i, i % 5 == 0 ? "/long" : "");
    return kv_cstr(text[i]);
}
static int crash_key_number(kv_slice key)
{
    for (uint32_t i = 0; i < CRASH_KEYS; i++) if (kv_equal(key, crash_key(i))) return (int)i;
    return -1;
}
/* The value that write `id` writes: id 1 is the empty value; others begin with their number. */
static kv_slice crash_value(uint32_t id, char *out)
{
    uint32_t h = id * 2654435761u;
    size_t   size = id == 1 ? 0 : 4 + (h >> 8) % 40;
    if (id > 1 && (h >> 16) % 4 == 0) size += (h >> 4) % 500;
    if (id > 1 && (h >> 20) % 64 == 0) size = CRASH_VALUE_MAX;
    for (size_t i = 0; i < size; i++) out[i] = (char)(h >> (i % 4) * 8 ^ (i % 16 < 8 ? i * 31 : 0));
    for (size_t i = 0; i < 4 && i < size; i++) out[i] = (char)(id >> 8 * i);
    return kv_bytes(out, size);
}
/* 0: no write ever wrote these bytes */
static uint32_t crash_value_id(kv_slice value)
{
    char     wanted[CRASH_VALUE_MAX];
    uint32_t id = 0;
    if (!value.size) return 1;
    if (value.size < 4) return 0;
    for (size_t i = 0; i < 4; i++) id |= (uint32_t)((const uint8_t *)value.data)[i] << 8 * i;
    return id > 1 && kv_equal(crash_value(id, wanted), value) ? id : 0;
}
static const char crash_counter_key[] = "~counter";

typedef struct crash_reading { crash_state state; bool garbage, disorder; size_t count; kv_buf last; } crash_reading;
static bool crash_read_entry(void *user, kv_slice key, kv_slice value)
{
    crash_reading *r = (crash_reading *)user;
    int number = crash_key_number(key);
    if (r->count++ && kv_compare(kv_buf_slice(&r->last), key) >= 0) r->disorder = true;
    if (kv_buf_assign(&r->last, key) < 0) abort();
    if (number >= 0) {
        r->state.ids[number] = crash_value_id(value);
        if (!r->state.ids[number]) r->garbage = true;
    } else if (kv_equal(key, kv_cstr(crash_counter_key))) {
        kv_value v;
        if (kv_value_decode(value, &v) < 0 || v.type != KV_INT64) r->garbage = true; else r->state.counter = v.as.int64;
    } else r->garbage = true;
    return true;
}
/* What a store holds. A failure of the scan is returned; garbage is bytes that were never written. */
static kv_status crash_read(kv_lsm *db, crash_state *state, bool *garbage)
{
    crash_reading r;
    kv_status     s;
    memset(&r, 0, sizeof r);
    s = kv_lsm_scan(db, NULL, crash_read_entry, &r);
    kv_buf_free(&r.last);
    *state = r.state;
    *garbage = r.garbage || r.disorder;
    return s;
}
static bool crash_same(const crash_state *a, const crash_state *b) { return memcmp(a, b, sizeof *a) == 0; }
static uint32_t crash_get_id(kv_lsm *db, uint32_t key, const kv_snapshot *snapshot, kv_status *s)
{
    kv_buf   value;
    uint32_t id = 0;
    memset(&value, 0, sizeof value);
    *s = snapshot ? kv_lsm_get_at(db, snapshot, crash_key(key), &value) : kv_lsm_get(db, crash_key(key), &value);
    if (*s == KV_OK) { id = crash_value_id(kv_buf_slice(&value)); if (!id) id = UINT32_MAX; }
    kv_buf_free(&value);
    return id;
}

/* Every state the store has been in: states[0] is empty, states[p] what p writes made of it. */
typedef struct crash_copy { char path[32]; size_t p; } crash_copy;
typedef struct crash_history {
    crash_state *states;
    size_t   capacity, begun, acked, synced;    /* acked: the state that reads see */
    size_t   doubt;                             /* a write that the disk failed: the next open may find it, whole. 0: none */
    uint32_t next_id;
    crash_copy copies[16];
    size_t   copy_count;
    uint64_t calls[24];                         /* how often each kind of step ran, so that none is forgotten */
} crash_history;

static void crash_history_free(crash_history *h) { free(h->states); memset(h, 0, sizeof *h); }
/* A write begins: the state that it makes, to be filled in. */
static crash_state *crash_begin(crash_history *h, disk *d)
{
    if (h->begun + 2 >= h->capacity) {
        h->capacity = h->capacity ? h->capacity * 2 : 256;
        h->states = (crash_state *)disk_alloc(h->states, h->capacity * sizeof *h->states);
        if (h->begun == 0) memset(&h->states[0], 0, sizeof h->states[0]);
    }
    h->states[h->begun + 1] = h->states[h->acked];
    d->mark[0] = ++h->begun;
    return &h->states[h->begun];
}
/* ... and ends. A failure of the disk leaves open whether it will be there; any other means that it did not happen. */
static void crash_end(crash_history *h, disk *d, kv_status s, bool synced)
{
    disk_look(d);                                   /* what was stored through a map is there before the write has returned */
    if (s >= 0) h->acked = h->begun;
    else if (s == KV_ERR_IO || s == KV_ERR_NO_SPACE) h->doubt = h->begun;
    else d->mark[0] = --h->begun;
    if (s == KV_OK && synced) h->synced = h->acked;
    d->mark[1] = h->acked;
    d->mark[2] = h->synced;
}
/* What a new open found of the write that is in doubt. */
static void crash_settle(crash_history *h, disk *d, const crash_state *found)
{
    if (h->doubt && !crash_same(found, &h->states[h->acked]) && crash_same(found, &h->states[h->doubt])) {
        *crash_begin(h, d) = *found;
        crash_end(h, d, KV_OK, false);
    }
    h->doubt = 0;
}
static void crash_synced(crash_history *h, disk *d) { d->mark[2] = h->synced = h->acked; }

/* ------------------------------------------------------------------------------------------------
   >>options   tiny stores that reach every level                                                   */

typedef struct crash_config { kv_lsm_options o; char error_text[300]; } crash_config;

static void crash_options(crash_config *c, uint64_t seed)
{
    static const uint32_t block_sizes[] = { 64, 128, 256, 512, 1024 };
    static const kv_sync  syncs[] = { KV_SYNC_NONE, KV_SYNC_BATCH, KV_SYNC_BATCH, KV_SYNC_WRITE };
    test_rng r = { seed ^ 0x5bd1e995u };
    memset(c, 0, sizeof *c);
    c->o.memtable_bytes = 4096;
    c->o.block_bytes = block_sizes[test_below(&r, 5)];
    c->o.codec = (kv_codec)(KV_CODEC_NONE + test_below(&r, 3));
    c->o.bloom_fp_rate = test_one_in(&r, 3) ? KV_NO_BLOOM : 0.01;
    c->o.cache_bytes = test_one_in(&r, 2) ? KV_NONE : 16384;
    c->o.sync = syncs[test_below(&r, 4)];
    c->o.style = test_one_in(&r, 4) ? KV_LSM_TIERED : KV_LSM_LEVELED;
    c->o.l0_trigger = 2 + (uint32_t)test_below(&r, 2);
    c->o.l1_bytes = 256u << test_below(&r, 4);
    c->o.level_ratio = 2 + (uint32_t)test_below(&r, 2);
    c->o.table_bytes = 1024 << test_below(&r, 3);
    c->o.open_files = test_one_in(&r, 3) ? 2 : 64;
    c->o.map_tables = test_one_in(&r, 2);       /* the log, too */
    c->o.no_background = true;
}
/* The orders are watched on every disk (kv_order.h). */
static kv_status crash_open(crash_config *c, disk *d, kv_lsm **db)
{
    if (!d->watch) d->watch = order_watch;
    c->o.io = disk_io(d);
    c->o.error_text = c->error_text;
    c->o.error_text_size = sizeof c->error_text;
    c->error_text[0] = 0;
    *db = NULL;
    return kv_lsm_open(order_dir, &c->o, db);
}

/* ------------------------------------------------------------------------------------------------
   >>script   one history                                                                           */

enum crash_step {
    CRASH_SET, CRASH_DELETE, CRASH_BATCH, CRASH_BATCH_SET, CRASH_BATCH_DELETE, CRASH_INSERT, CRASH_CAS, CRASH_INCREMENT, CRASH_DELETE_RANGE, CRASH_INGEST,
    CRASH_SYNC, CRASH_FLUSH, CRASH_COMPACT, CRASH_COMPACT_RANGE, CRASH_STEP, CRASH_SNAPSHOT, CRASH_CHECKPOINT, CRASH_REOPEN, CRASH_READ, CRASH_STEPS
};
static const char *const crash_step_names[CRASH_STEPS] = {
    "set", "delete", "batch", "batch_set", "batch_delete", "insert", "compare_and_set", "increment", "delete_range", "ingest",
    "sync", "flush", "compact", "compact_range", "step", "snapshot", "checkpoint", "reopen", "read" };
static const uint8_t crash_weights[CRASH_STEPS] = { 26, 8, 14, 4, 2, 3, 3, 3, 2, 1, 5, 9, 1, 2, 16, 3, 1, 2, 3 };

typedef struct crash_script {
    disk         *d;
    crash_config  config;
    crash_history h;
    test_rng      rng;
    kv_lsm       *db;
    kv_snapshot  *snapshot;
    crash_state   snapshot_state;
    bool          faults;           /* failures are expected */
    char          why[400];         /* what went wrong: empty if nothing */
} crash_script;

static bool crash_wrong(crash_script *c, const char *what, kv_status s)
{
    if (!c->why[0]) snprintf(c->why, sizeof c->why, "%s: %s; %s", what, kv_status_text(s), c->db ? kv_last_error(kv_lsm_store(c->db)) : c->config.error_text);
    return false;
}
/* A call must work, or fail where failures are expected. */
static bool crash_expect(crash_script *c, kv_status s, const char *what)
{
    if (s >= 0) return true;
    return c->faults ? false : crash_wrong(c, what, s);
}
static bool crash_live(crash_script *c, const char *when)
{
    crash_state state;
    bool        garbage;
    kv_status   s;
    if (!c->db) return true;
    s = crash_read(c->db, &state, &garbage);
    if (s < 0) return c->d->fault.calls & DISK_CALLS_READ && s == KV_ERR_IO ? true : crash_wrong(c, "a scan fails", s);
    if (garbage) return crash_wrong(c, "a scan shows what was never written", s);
    if (crash_same(&state, &c->h.states[c->h.acked])) return true;
    if (!c->why[0]) {
        int bad = -1;
        for (int i = 0; i < CRASH_KEYS && bad < 0; i++) if (state.ids[i] != c->h.states[c->h.acked].ids[i]) bad = i;
        snprintf(c->why, sizeof c->why, "%s: reads do not see the state of write %zu: key %d has value %u, wanted %u", when, c->h.acked, bad,
                 bad < 0 ? 0u : (unsigned)state.ids[bad], bad < 0 ? 0u : (unsigned)c->h.states[c->h.acked].ids[bad]);
    }
    return false;
}
static uint32_t crash_new_id(crash_script *c) { return test_one_in(&c->rng, 40) ? 1 : ++c->h.next_id; }
static uint32_t crash_any_key(crash_script *c) { return (uint32_t)test_below(&c->rng, CRASH_KEYS); }

static void crash_do_batch(crash_script *c, bool removes_only, bool sets_only, enum crash_step how)
{
    crash_state  *next = crash_begin(&c->h, c->d);
    kv_lsm_batch *b = NULL;
    char          values[CRASH_BATCH_MAX][CRASH_VALUE_MAX];
    kv_pair       pairs[CRASH_BATCH_MAX];
    kv_slice      keys[CRASH_BATCH_MAX];
    size_t        count = 1 + test_below(&c->rng, CRASH_BATCH_MAX);
    kv_status     s = kv_lsm_batch_open(NULL, &b);
    for (size_t i = 0; i < count; i++) {
        uint32_t key = crash_any_key(c);
        if (removes_only || (!sets_only && test_one_in(&c->rng, 4))) {
            next->ids[key] = 0;
            keys[i] = crash_key(key);
            if (s >= 0) s = kv_lsm_batch_remove(b, keys[i]);
        } else {
            next->ids[key] = crash_new_id(c);
            pairs[i].key = crash_key(key);
            pairs[i].value = crash_value(next->ids[key], values[i]);
            if (s >= 0) s = kv_lsm_batch_put(b, pairs[i].key, pairs[i].value);
        }
    }
    if (s >= 0) s = how == CRASH_BATCH_SET ? kv_lsm_batch_set(c->db, pairs, count) : how == CRASH_BATCH_DELETE ? kv_lsm_batch_delete(c->db, keys, count) : kv_lsm_write(c->db, b);
    kv_lsm_batch_close(b);
    crash_end(&c->h, c->d, s, c->config.o.sync != KV_SYNC_NONE);
    crash_expect(c, s, crash_step_names[how]);
}
static void crash_do_write(crash_script *c, enum crash_step step)
{
    crash_state *next;
    char         value[CRASH_VALUE_MAX], expected[CRASH_VALUE_MAX];
    uint32_t     key = crash_any_key(c), id;
    uint64_t     deleted;
    kv_range     range;
    kv_status    s = KV_OK;
    next = crash_begin(&c->h, c->d);
    id = next->ids[key];
    memset(&range, 0, sizeof range);
    switch (step) {
    case CRASH_SET:
        next->ids[key] = crash_new_id(c);
        s = kv_lsm_set(c->db, crash_key(key), crash_value(next->ids[key], value));
        break;
    case CRASH_DELETE:
        next->ids[key] = 0;
        s = kv_lsm_delete(c->db, crash_key(key));
        break;
    case CRASH_INSERT:
        if (!id) next->ids[key] = crash_new_id(c);
        s = kv_lsm_insert(c->db, crash_key(key), crash_value(id ? ++c->h.next_id : next->ids[key], value));
        if (s >= 0 && (s == KV_EXISTS) != (id != 0)) crash_wrong(c, "insert has the wrong answer", s);
        break;
    case CRASH_CAS:
        next->ids[key] = id ? crash_new_id(c) : 0;
        s = kv_lsm_compare_and_set(c->db, crash_key(key), crash_value(id ? id : 2, expected), crash_value(id ? next->ids[key] : 2, value));
        if (s >= 0 && (s == KV_NOT_FOUND) != (id == 0)) crash_wrong(c, "compare_and_set has the wrong answer", s);
        break;
    case CRASH_INCREMENT:
        next->counter += 1 + (int64_t)test_below(&c->rng, 9);
        s = kv_lsm_increment(c->db, kv_cstr(crash_counter_key), next->counter - c->h.states[c->h.acked].counter, NULL);
        break;
    default:
        range.from = crash_key(4 + (uint32_t)test_below(&c->rng, CRASH_KEYS - 4));
        range.to = crash_key(4 + (uint32_t)test_below(&c->rng, CRASH_KEYS - 4));
        range.limit = test_one_in(&c->rng, 2) ? 3 : 0;
        {
            size_t left = range.limit ? range.limit : CRASH_KEYS;
            for (uint32_t i = 4; i < CRASH_KEYS && left; i++)     /* numbers from 4 on are in the order of their keys */
                if (next->ids[i] && kv_range_has(&range, crash_key(i))) { next->ids[i] = 0; left--; }
        }
        s = kv_lsm_delete_range(c->db, &range, &deleted);
        break;
    }
    crash_end(&c->h, c->d, s, c->config.o.sync == KV_SYNC_WRITE);
    crash_expect(c, s, crash_step_names[step]);
}
/* Entries from another store, in order, become tables at once. */
static void crash_do_ingest(crash_script *c)
{
    crash_state   *next;
    crash_config   config;
    disk          *other_disk = disk_new();
    kv_lsm        *other = NULL;
    kv_iter       *sorted = NULL;
    char           value[CRASH_VALUE_MAX];
    uint32_t       ids[CRASH_KEYS];
    kv_status      s;
    memset(ids, 0, sizeof ids);
    crash_options(&config, 7);
    s = crash_open(&config, other_disk, &other);
    for (int i = 0; i < 8 && s >= 0; i++) {
        uint32_t key = crash_any_key(c);
        ids[key] = crash_new_id(c);
        s = kv_lsm_set(other, crash_key(key), crash_value(ids[key], value));
    }
    if (s >= 0) s = kv_lsm_iter_open(other, NULL, NULL, &sorted);
    if (s < 0) crash_wrong(c, "a store to ingest from", s);
    else {
        next = crash_begin(&c->h, c->d);
        for (uint32_t i = 0; i < CRASH_KEYS; i++) if (ids[i]) next->ids[i] = ids[i];
        s = kv_lsm_ingest(c->db, sorted);
        crash_end(&c->h, c->d, s, false);
        crash_expect(c, s, "ingest");
    }
    if (sorted) kv_iter_close(sorted);
    kv_lsm_close(other);
    disk_free(other_disk);
}
static void crash_do_snapshot(crash_script *c)
{
    if (c->snapshot) {
        for (int i = 0; i < 6; i++) {
            uint32_t  key = crash_any_key(c);
            kv_status s;
            uint32_t  id = crash_get_id(c->db, key, c->snapshot, &s);
            if (s >= 0 && id != c->snapshot_state.ids[key]) crash_wrong(c, "a snapshot changed", s);
            if (s < 0 && !c->faults) crash_wrong(c, "get_at", s);
        }
        kv_lsm_snapshot_release(c->db, c->snapshot);
        c->snapshot = NULL;
    } else if (crash_expect(c, kv_lsm_snapshot(c->db, &c->snapshot), "snapshot")) c->snapshot_state = c->h.states[c->h.acked];
}
static void crash_do_checkpoint(crash_script *c)
{
    crash_copy *copy = &c->h.copies[c->h.copy_count];
    kv_status   s;
    if (c->h.copy_count == sizeof c->h.copies / sizeof c->h.copies[0]) return;
    snprintf(copy->path, sizeof copy->path, "copy%zu", c->h.copy_count);
    copy->p = c->h.acked;
    s = kv_lsm_checkpoint(c->db, copy->path);
    if (crash_expect(c, s, "checkpoint") && s == KV_OK) c->d->mark[3] = ++c->h.copy_count;
}
static void crash_do_reopen(crash_script *c)
{
    kv_status s;
    c->snapshot = NULL;                             /* closing frees it */
    s = kv_lsm_close(c->db);
    c->db = NULL;
    if (s >= 0) crash_synced(&c->h, c->d);
    if (!crash_expect(c, s, "close") && !c->faults) return;
    s = crash_open(&c->config, c->d, &c->db);
    if (s < 0) { c->db = NULL; crash_expect(c, s, "open after close"); }
    else if (c->h.doubt) {
        crash_state state;
        bool        garbage;
        if (crash_read(c->db, &state, &garbage) >= 0 && !garbage) crash_settle(&c->h, c->d, &state);
    }
}
static enum crash_step crash_pick(test_rng *rng)
{
    uint32_t total = 0, at;
    for (int i = 0; i < CRASH_STEPS; i++) total += crash_weights[i];
    at = (uint32_t)test_below(rng, total);
    for (int i = 0;; i++) { if (at < crash_weights[i]) return (enum crash_step)i; at -= crash_weights[i]; }
}
static void crash_one_step(crash_script *c)
{
    enum crash_step step = crash_pick(&c->rng);
    kv_status s;
    kv_range  range;
    c->h.calls[step]++;
    switch (step) {
    case CRASH_SET: case CRASH_DELETE: case CRASH_INSERT: case CRASH_CAS: case CRASH_INCREMENT: case CRASH_DELETE_RANGE:
        crash_do_write(c, step);
        break;
    case CRASH_BATCH:        crash_do_batch(c, false, false, step); break;
    case CRASH_BATCH_SET:    crash_do_batch(c, false, true, step); break;
    case CRASH_BATCH_DELETE: crash_do_batch(c, true, false, step); break;
    case CRASH_INGEST:       crash_do_ingest(c); break;
    case CRASH_SYNC:
        if (crash_expect(c, kv_lsm_sync(c->db), "sync")) crash_synced(&c->h, c->d);
        break;
    case CRASH_FLUSH:
        if (crash_expect(c, kv_lsm_flush(c->db), "flush")) crash_synced(&c->h, c->d);
        break;
    case CRASH_COMPACT:
        if (crash_expect(c, kv_lsm_compact(c->db, NULL, NULL, NULL), "compact")) crash_synced(&c->h, c->d);
        break;
    case CRASH_COMPACT_RANGE:
        memset(&range, 0, sizeof range);
        range.from = crash_key(4 + (uint32_t)test_below(&c->rng, 12));
        range.to = crash_key(16 + (uint32_t)test_below(&c->rng, 12));
        crash_expect(c, kv_lsm_compact(c->db, &range, NULL, NULL), "compact of a range");
        break;
    case CRASH_STEP:
        for (size_t n = 1 + test_below(&c->rng, 20); n--;) {
            s = kv_lsm_step(c->db);
            if (s == KV_END || !crash_expect(c, s, "step")) break;
        }
        break;
    case CRASH_SNAPSHOT:   crash_do_snapshot(c); break;
    case CRASH_CHECKPOINT: crash_do_checkpoint(c); break;
    case CRASH_REOPEN:     crash_do_reopen(c); break;
    default:               crash_live(c, "while it runs"); break;
    }
}

/* Open a store on `d` and run `steps` steps of history `seed`. The store stays open. */
static void crash_begin_script(crash_script *c, disk *d, uint64_t seed)
{
    memset(c, 0, sizeof *c);
    c->d = d;
    d->map_writes = true;
    c->rng.state = seed * 7919 + 13;
    c->h.next_id = 1;
    crash_options(&c->config, seed);
    d->watch = order_watch;
    d->watch_user = d;
    memset(d->mark, 0, sizeof d->mark);
    crash_begin(&c->h, d);                          /* makes states[0] */
    c->h.begun = 0;
    d->mark[0] = 0;
}
static void crash_run_script(crash_script *c, size_t steps)
{
    kv_status s = crash_open(&c->config, c->d, &c->db);
    if (!crash_expect(c, s, "the first open")) return;
    for (size_t i = 0; i < steps && c->db && !c->why[0]; i++) {
        crash_one_step(c);
        if (c->faults && c->db && test_one_in(&c->rng, 6) && kv_lsm_resume(c->db) == KV_OK) c->h.doubt = 0;     /* in new files, without it */
    }
    if (c->db && !c->why[0]) crash_live(c, "at the end");
}
static void crash_end_script(crash_script *c)
{
    if (c->db) kv_lsm_close(c->db);
    c->db = NULL;
    crash_history_free(&c->h);
}

/* ------------------------------------------------------------------------------------------------
   >>survey   what an image must be                                                                 */

typedef struct crash_counts { uint64_t cuts, images, nested, continued, opens, checks, repairs, copies, named; } crash_counts;

typedef struct crash_image {
    disk *d;
    crash_config *config;
    const crash_history *h;
    size_t low, high, copies;           /* which states are allowed; how many checkpoints must be whole */
    size_t durable;                     /* the lowest state that is allowed after another cut, one of the power */
    test_rng *rng;
    crash_counts *counts;
    char *why;                          /* 400 bytes */
} crash_image;

static bool crash_blame(const crash_image *m, const char *what, kv_status s, const char *text)
{
    if (!m->why[0]) snprintf(m->why, 400, "%.120s: %s %.200s", what, kv_status_text(s), text);
    return false;
}
/* The number of the state that `state` is, between low and high, or of the one in doubt; else SIZE_MAX. */
static size_t crash_find_state(const crash_history *h, const crash_state *state, size_t low, size_t high)
{
    for (size_t p = high + 1; p-- > low;) if (crash_same(&h->states[p], state)) return p;
    return h->doubt && crash_same(&h->states[h->doubt], state) ? h->doubt : SIZE_MAX;
}
static bool crash_open_and_find(crash_image *m, kv_lsm **db, size_t *p, const char *when)
{
    crash_state state;
    bool        garbage = false;
    kv_status   s = crash_open(m->config, m->d, db);
    m->counts->opens++;
    if (s < 0) return crash_blame(m, when, s, m->config->error_text);
    s = crash_read(*db, &state, &garbage);
    if (s < 0) return crash_blame(m, "a scan fails after recovery", s, kv_last_error(kv_lsm_store(*db)));
    if (garbage) return crash_blame(m, "bytes that were never written, or out of order", s, when);
    *p = crash_find_state(m->h, &state, m->low, m->high);
    if (*p == SIZE_MAX) {
        char text[100];
        size_t anywhere = crash_find_state(m->h, &state, 0, m->h->begun);
        if (anywhere == SIZE_MAX) snprintf(text, sizeof text, "no prefix of the writes (allowed: %zu to %zu)", m->low, m->high);
        else snprintf(text, sizeof text, "the state after write %zu (allowed: %zu to %zu)", anywhere, m->low, m->high);
        return crash_blame(m, when, s, text);
    }
    return true;
}
static void crash_report(void *user, kv_status s, const char *text)
{
    char *out = (char *)user;
    if (s < 0 && !out[0]) snprintf(out, 200, "%.199s", text);
}
/* kv_lsm_check on a closed store, and no violated order while the image was used. */
static bool crash_check_clean(crash_image *m, disk *d, const char *when)
{
    char      text[200] = "";
    kv_status s = kv_lsm_check(order_dir, &m->config->o, crash_report, text);
    m->counts->checks++;
    if (s < 0) return crash_blame(m, when, s, text);
    if (disk_violations(d)) return crash_blame(m, "order", KV_OK, disk_violation(d));
    return true;
}
/* The recovered store goes on: writes, perhaps flush and compact, a cut that keeps only what is
   durable, and all of it must be there. */
static bool crash_continue(crash_image *m, kv_lsm *db, size_t p, bool thorough)
{
    crash_state  wanted = m->h->states[p], state;
    char         value[CRASH_VALUE_MAX];
    kv_lsm      *again = NULL;
    kv_lsm_batch *b = NULL;
    disk        *cut;
    kv_status    s;
    bool         garbage = false, ok = false;
    m->counts->continued++;
    s = kv_lsm_batch_open(NULL, &b);
    for (uint32_t i = 0; i < 3 && s >= 0; i++) {
        uint32_t key = (uint32_t)test_below(m->rng, CRASH_KEYS), id = 0x40000000u + (uint32_t)test_below(m->rng, 1000);
        wanted.ids[key] = test_one_in(m->rng, 4) ? 0 : id;
        s = wanted.ids[key] ? kv_lsm_batch_put(b, crash_key(key), crash_value(id, value)) : kv_lsm_batch_remove(b, crash_key(key));
    }
    if (s >= 0) s = kv_lsm_write(db, b);
    kv_lsm_batch_close(b);
    if (s >= 0) s = kv_lsm_sync(db);
    if (s >= 0 && thorough) s = kv_lsm_flush(db);
    if (s >= 0 && thorough) s = kv_lsm_compact(db, NULL, NULL, NULL);
    if (s < 0) return crash_blame(m, "write, flush or compact after recovery", s, kv_last_error(kv_lsm_store(db)));
    cut = disk_crash(m->d, DISK_DURABLE, m->rng);
    s = crash_open(m->config, cut, &again);
    m->counts->opens++;
    if (s < 0) crash_blame(m, "the second open", s, m->config->error_text);
    else {
        s = crash_read(again, &state, &garbage);
        if (s < 0) crash_blame(m, "a scan after the second open", s, kv_last_error(kv_lsm_store(again)));
        else if (garbage || !crash_same(&state, &wanted)) {
            char text[120] = "";
            for (int key = 0; key < CRASH_KEYS && !text[0]; key++)
                if (state.ids[key] != wanted.ids[key]) snprintf(text, sizeof text, "key %d has value %u, wanted %u, before %u%s", key, (unsigned)state.ids[key], (unsigned)wanted.ids[key], (unsigned)m->h->states[p].ids[key], garbage ? "; garbage" : "");
            crash_blame(m, "a synced write after recovery is lost", s, text);
        }
        else ok = true;
    }
    kv_lsm_close(again);
    if (ok && thorough) ok = crash_check_clean(m, cut, "check after a close");
    disk_free(cut);
    return ok;
}
/* Checkpoints that had been made must open and be what they were. */
static bool crash_check_copies(crash_image *m)
{
    const crash_copy *copy;
    crash_state  state;
    kv_lsm      *db = NULL;
    kv_status    s;
    bool         garbage = false, ok = false;
    if (!m->copies) return true;
    copy = &m->h->copies[test_below(m->rng, m->copies)];
    m->counts->copies++;
    m->config->o.io = disk_io(m->d);
    m->config->o.must_exist = true;
    s = kv_lsm_open(copy->path, &m->config->o, &db);
    m->config->o.must_exist = false;
    if (s < 0) crash_blame(m, "a checkpoint does not open", s, m->config->error_text);
    else {
        s = crash_read(db, &state, &garbage);
        ok = s >= 0 && !garbage && crash_same(&state, &m->h->states[copy->p]);
        if (!ok) crash_blame(m, "a checkpoint is not what it was", s, copy->path);
    }
    kv_lsm_close(db);
    return ok;
}
/* Repair must bring a state that a cut explains, too, and what was promised. */
static bool crash_check_repair(crash_image *m)
{
    crash_image  repaired = *m;
    char         text[200] = "";
    kv_lsm      *db = NULL;
    size_t       p = 0;
    kv_status    s;
    bool         ok;
    m->counts->repairs++;
    repaired.d = disk_fork(m->d);
    m->config->o.io = disk_io(repaired.d);
    s = kv_lsm_repair(order_dir, &m->config->o, crash_report, text);
    if (s < 0) ok = crash_blame(m, "repair", s, text);
    else ok = crash_open_and_find(&repaired, &db, &p, "open after repair");
    kv_lsm_close(db);
    disk_free(repaired.d);
    return ok;
}

enum { CRASH_THOROUGH = 1, CRASH_NESTED = 2, CRASH_COPIES = 4, CRASH_REPAIR = 8, CRASH_LIGHT = 16 };

/* Everything that must hold of one image. It is used up. */
static bool crash_survey(crash_image *m, unsigned how)
{
    kv_lsm *db = NULL;
    size_t  p = 0, recovery_ops;
    bool    ok;
    disk   *before = NULL;
    m->d->watch = order_watch;
    if (how & CRASH_REPAIR && !crash_check_repair(m)) return false;
    if (how & CRASH_COPIES && !crash_check_copies(m)) return false;
    if (how & CRASH_NESTED) { before = disk_fork(m->d); disk_record(m->d); }
    ok = crash_open_and_find(m, &db, &p, "open after a cut");
    recovery_ops = disk_op_count(m->d);
    if (how & CRASH_NESTED) m->d->recording = false;
    if (ok && !(how & CRASH_LIGHT)) ok = crash_continue(m, db, p, (how & CRASH_THOROUGH) != 0);
    kv_lsm_close(db);
    if (ok && disk_violations(m->d)) ok = crash_blame(m, "order after recovery", KV_OK, disk_violation(m->d));
    if (ok && how & CRASH_NESTED) {
        static const disk_mode modes[] = { DISK_KEEP_ALL, DISK_DURABLE, DISK_SECTORS, DISK_CHAOS };
        disk *cursor = disk_begin(m->d);
        for (size_t k = 0; k <= recovery_ops && ok; k++) {
            disk_advance(cursor, m->d, k);
            for (size_t i = 0; i < 4 && ok; i++) {
                crash_image nested = *m;
                nested.d = disk_crash(cursor, modes[i], m->rng);
                if (modes[i] != DISK_KEEP_ALL) nested.low = m->durable;
                m->counts->nested++;
                ok = crash_survey(&nested, CRASH_LIGHT);
                if (!ok) { char text[400]; snprintf(text, sizeof text, "%s", m->why); snprintf(m->why, 400, "second cut after %zu of %zu operations of the recovery, %.40s: %.280s", k, recovery_ops, disk_mode_name(modes[i]), text); }
                disk_free(nested.d);
            }
        }
        disk_free(cursor);
    }
    disk_free(before);
    return ok;
}

/* ------------------------------------------------------------------------------------------------
   >>cuts   a cut after every operation of one script                                               */

/* Cut the history that ran on `d` after every operation, in the modes that keep their order once, and
   `variants` times in those that choose at random. False: `why` (400 bytes) says what is wrong. */
static bool crash_cut_everywhere(crash_script *script, disk *d, uint64_t seed, int variants, crash_counts *counts, char *why)
{
    test_rng rng = { seed * 31 + 7 };
    disk    *cursor;
    char     text[400];
    bool     ok = !script->why[0] && !disk_violations(d);
    why[0] = 0;
    if (script->why[0]) snprintf(why, 400, "seed %llu: %.350s", (unsigned long long)seed, script->why);
    else if (!ok) snprintf(why, 400, "seed %llu: order: %.350s", (unsigned long long)seed, disk_violation(d));
    cursor = disk_begin(d);
    for (size_t k = 0, n = disk_op_count(d); k <= n && ok; k++) {
        const uint64_t *mark = k < n ? d->ops[k].mark : d->mark;
        disk_advance(cursor, d, k);
        counts->cuts++;
        for (int v = 0; v < DISK_TORN + 4 * variants && ok; v++) {
            int         mode = v < DISK_TORN ? v : DISK_TORN + (v - DISK_TORN) % 4;
            crash_image m;
            unsigned    how = 0;
            if (test_one_in(&rng, 4)) how |= CRASH_THOROUGH;
            if (test_one_in(&rng, 40)) how |= CRASH_NESTED;
            if (test_one_in(&rng, 8)) how |= CRASH_COPIES;
            if (test_one_in(&rng, 32)) how |= CRASH_REPAIR;
            memset(&m, 0, sizeof m);
            m.d = disk_crash(cursor, (disk_mode)mode, &rng);
            counts->images++;
            m.config = &script->config;
            m.h = &script->h;
            m.low = (size_t)mark[mode == DISK_KEEP_ALL ? 1 : 2];
            m.durable = (size_t)mark[2];
            m.high = (size_t)mark[0];
            m.copies = (size_t)mark[3];
            m.rng = &rng;
            m.counts = counts;
            m.why = text;
            text[0] = 0;
            ok = crash_survey(&m, how);
            if (!ok) snprintf(why, 400, "seed %llu, cut after %zu of %zu operations, %s, variant %d: %.280s", (unsigned long long)seed, k, n, disk_mode_name(mode), v, text);
            disk_free(m.d);
        }
    }
    disk_free(cursor);
    counts->named += order_named;
    order_named = 0;
    return ok;
}
/* Run history `seed`, and cut it. */
static TEST_UNUSED bool crash_cuts(uint64_t seed, size_t steps, int variants, crash_counts *counts, uint64_t *calls, char *why)
{
    crash_script script;
    disk        *d = disk_new();
    bool         ok;
    crash_begin_script(&script, d, seed);
    crash_run_script(&script, steps);
    for (int i = 0; i < CRASH_STEPS; i++) calls[i] += script.h.calls[i];
    ok = crash_cut_everywhere(&script, d, seed, variants, counts, why);
    crash_end_script(&script);
    disk_free(d);
    return ok;
}
/* The same with the store's own thread at work, which makes each run another one. */
static TEST_UNUSED bool crash_cuts_threaded(uint64_t seed, size_t steps, int variants, crash_counts *counts, char *why)
{
    crash_script script;
    disk        *d = disk_new();
    bool         ok;
    crash_begin_script(&script, d, seed);
    script.config.o.no_background = false;
    crash_run_script(&script, steps);
    if (script.db && crash_expect(&script, kv_lsm_close(script.db), "close")) crash_synced(&script.h, d);
    script.db = NULL;
    script.config.o.no_background = true;           /* recoveries repeat themselves exactly */
    ok = crash_cut_everywhere(&script, d, seed, variants, counts, why);
    crash_end_script(&script);
    disk_free(d);
    return ok;
}
/* The number-th of all short histories of `length` steps over set, synced set, delete, flush, compact and
   reopen: everything that can happen, in a small world. */
static TEST_UNUSED bool crash_cuts_short(uint64_t number, int length, crash_counts *counts, char *why)
{
    crash_script script;
    disk        *d = disk_new();
    char         value[CRASH_VALUE_MAX];
    uint64_t     left = number;
    bool         ok;
    kv_status    s;
    crash_begin_script(&script, d, 1 + number % 5);
    script.config.o.sync = KV_SYNC_NONE;
    crash_expect(&script, crash_open(&script.config, d, &script.db), "the first open");
    for (int i = 0; i < length && script.db && !script.why[0]; i++, left /= 6) {
        crash_state *next;
        switch (left % 6) {
        case 0: case 1: case 2:
            next = crash_begin(&script.h, d);
            next->ids[4 + i % 2] = left % 6 == 2 ? 0 : ++script.h.next_id;
            s = left % 6 == 2 ? kv_lsm_delete(script.db, crash_key(4 + (uint32_t)i % 2)) : kv_lsm_set(script.db, crash_key(4 + (uint32_t)i % 2), crash_value(script.h.next_id, value));
            crash_end(&script.h, d, s, false);
            if (crash_expect(&script, s, "a write") && left % 6 == 1 && crash_expect(&script, kv_lsm_sync(script.db), "sync")) crash_synced(&script.h, d);
            break;
        case 3: if (crash_expect(&script, kv_lsm_flush(script.db), "flush")) crash_synced(&script.h, d); break;
        case 4: if (crash_expect(&script, kv_lsm_compact(script.db, NULL, NULL, NULL), "compact")) crash_synced(&script.h, d); break;
        default: crash_do_reopen(&script); break;
        }
    }
    if (script.db && !script.why[0]) crash_live(&script, "at the end");
    ok = crash_cut_everywhere(&script, d, number, 1, counts, why);
    crash_end_script(&script);
    disk_free(d);
    return ok;
}

/* ------------------------------------------------------------------------------------------------
   >>faults   every call of a script fails                                                          */

typedef struct crash_fault_counts { uint64_t points, recovery_points, images, hits, resumed; } crash_fault_counts;

static const disk_fault_kind crash_fault_kinds[] = { DISK_FAULT_IO, DISK_FAULT_SPACE, DISK_FAULT_SHORT, DISK_FAULT_SHORT_SPACE, DISK_FAULT_SYNC_DROPS, DISK_FAULT_DONE };
enum { CRASH_FAULT_KINDS = sizeof crash_fault_kinds / sizeof crash_fault_kinds[0] };

/* History `seed` with the n-th call failing in one way; then a cut in several modes. *hit: the script
   is long enough for that call. */
static TEST_UNUSED bool crash_fault(uint64_t seed, size_t steps, uint64_t n, disk_fault_kind kind, uint64_t in_a_row, crash_fault_counts *counts, bool *hit, char *why)
{
    static const disk_mode modes[] = { DISK_KEEP_ALL, DISK_DURABLE, DISK_TORN, DISK_SECTORS, DISK_CHAOS, DISK_STALE };
    crash_script script;
    crash_counts survey;
    test_rng     rng = { seed * 131 + n };
    disk        *d = disk_new();
    char         text[400];
    bool         ok;
    why[0] = 0;
    memset(&survey, 0, sizeof survey);
    d->recording = false;
    crash_begin_script(&script, d, seed);
    script.faults = true;
    d->watch_user = NULL;
    disk_fail_at(d, 0, n, in_a_row, kind);
    crash_run_script(&script, steps);
    *hit = d->fault.hits != 0;
    counts->points++;
    counts->hits += d->fault.hits;
    ok = !script.why[0] && !disk_violations(d);
    snprintf(text, sizeof text, "%s", script.why[0] ? script.why : disk_violation(d));
    for (size_t i = 0; i < sizeof modes / sizeof modes[0] && ok; i++) {
        crash_image m;
        memset(&m, 0, sizeof m);
        m.d = disk_crash(d, modes[i], &rng);
        m.config = &script.config;
        m.h = &script.h;
        m.low = modes[i] == DISK_KEEP_ALL ? script.h.acked : script.h.synced;
        m.durable = script.h.synced;
        m.high = script.h.begun;
        m.rng = &rng;
        m.counts = &survey;
        m.why = text;
        text[0] = 0;
        ok = crash_survey(&m, i == 0 ? CRASH_THOROUGH : 0);
        counts->images++;
        disk_free(m.d);
    }
    if (!ok) snprintf(why, 400, "seed %llu, call %llu fails (kind %d, %llu in a row): %.300s", (unsigned long long)seed, (unsigned long long)n, (int)kind, (unsigned long long)in_a_row, text);
    crash_end_script(&script);
    disk_free(d);
    return ok;
}
static TEST_UNUSED bool crash_faults(uint64_t seed, size_t steps, uint64_t stride, crash_fault_counts *counts, char *why)
{
    static const uint64_t rows[] = { 1, 5, UINT64_MAX };
    bool ok = true, hit = true;
    for (uint64_t n = 1; ok && hit; n += stride)
        for (size_t kind = 0; kind < CRASH_FAULT_KINDS && ok; kind++)
            for (size_t row = 0; row < 3 && ok; row++)
                ok = crash_fault(seed, steps, n, crash_fault_kinds[kind], rows[row], counts, &hit, why);
    return ok;
}

#endif
