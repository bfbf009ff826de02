/* crash_lsm_oom.c
   Goal: out of memory anywhere: KV_ERR_NO_MEMORY, nothing is half done, nothing leaks, the store goes
   on, and the next open finds it whole.
   Method: each kind of call with the n-th allocation failing, once and from then on, n = 1, 2, 3, ...
   until none fails any more. Before and after are compared with the model. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define KVI_LSM_WINDOW 8192u         /* small maps of the log: mapped and plain writes of one log take turns */
#define KV_LSM_IMPLEMENTATION
#include "../../kv_lsm.h"
#include "../kv_crash.h"

typedef struct scene {
    disk         *d;
    crash_config  config;
    test_memory   memory;
    kv_lsm       *db;
    crash_state   before, after;
} scene;
typedef kv_status (*scene_fn)(scene *c);

static kv_status put(scene *c, uint32_t key, uint32_t id)
{
    char value[CRASH_VALUE_MAX];
    return kv_lsm_set(c->db, crash_key(key), crash_value(id, value));
}
static kv_status do_set(scene *c) { c->after.ids[5] = 901; return put(c, 5, 901); }
static kv_status do_delete(scene *c) { c->after.ids[6] = 0; return kv_lsm_delete(c->db, crash_key(6)); }
static kv_status do_batch(scene *c)
{
    kv_lsm_batch *b = NULL;
    kv_allocator  a = test_allocator(&c->memory);
    char          value[CRASH_VALUE_MAX];
    kv_status     s = kv_lsm_batch_open(&a, &b);
    if (s < 0) return s;
    for (uint32_t key = 4; key < 12 && s >= 0; key++) {
        c->after.ids[key] = 900 + key;
        s = kv_lsm_batch_put(b, crash_key(key), crash_value(900 + key, value));
    }
    s = kv_lsm_write(c->db, b);
    kv_lsm_batch_close(b);
    return s;
}
static kv_status do_fill(scene *c)                  /* through several memtables: rotation, flush, merges inside writes */
{
    crash_state whole = c->before;
    for (uint32_t i = 0; i < 60; i++) {
        kv_status s = put(c, 4 + i % 20, 1000 + i);
        if (s < 0) return s;
        whole.ids[4 + i % 20] = 1000 + i;
        c->before = c->after = whole;               /* each of these sets is a step of its own */
    }
    return KV_OK;
}
static kv_status do_insert(scene *c) { char v[CRASH_VALUE_MAX]; kv_status s = kv_lsm_insert(c->db, crash_key(27), crash_value(907, v)); if (!c->before.ids[27]) c->after.ids[27] = 907; return s; }
static kv_status do_increment(scene *c) { c->after.counter = c->before.counter + 5; return kv_lsm_increment(c->db, kv_cstr(crash_counter_key), 5, NULL); }
static kv_status do_cas(scene *c)
{
    char v[CRASH_VALUE_MAX], e[CRASH_VALUE_MAX];
    if (c->before.ids[7]) c->after.ids[7] = 908;
    return kv_lsm_compare_and_set(c->db, crash_key(7), crash_value(c->before.ids[7] ? c->before.ids[7] : 2, e), crash_value(908, v));
}
static kv_status do_delete_range(scene *c)
{
    kv_range r;
    memset(&r, 0, sizeof r);
    r.from = crash_key(8);
    r.to = crash_key(20);
    for (uint32_t i = 4; i < CRASH_KEYS; i++) if (kv_range_has(&r, crash_key(i))) c->after.ids[i] = 0;
    return kv_lsm_delete_range(c->db, &r, NULL);
}
static kv_status do_flush(scene *c) { return kv_lsm_flush(c->db); }
static kv_status do_compact(scene *c) { return kv_lsm_compact(c->db, NULL, NULL, NULL); }
static kv_status do_steps(scene *c)
{
    for (int i = 0; i < 200; i++) {
        kv_status s = kv_lsm_step(c->db);
        if (s == KV_END) return KV_OK;
        if (s < 0) return s;
    }
    return KV_OK;
}
static kv_status do_get(scene *c)
{
    for (uint32_t key = 0; key < CRASH_KEYS; key++) {
        kv_buf    value;
        kv_status s;
        memset(&value, 0, sizeof value);
        value.allocator = test_allocator(&c->memory);
        s = kv_lsm_get(c->db, crash_key(key), &value);
        if (s == KV_OK) CHECK(crash_value_id(kv_buf_slice(&value)) == c->before.ids[key]);
        if (s == KV_NOT_FOUND) CHECK(c->before.ids[key] == 0);
        kv_buf_free(&value);
        if (s < 0) return s;
    }
    return KV_OK;
}
static kv_status do_scan(scene *c)
{
    crash_state state;
    bool        garbage;
    kv_status   s = crash_read(c->db, &state, &garbage);
    if (s == KV_OK) CHECK(!garbage && crash_same(&state, &c->before));
    return s;
}
static kv_status do_cursor(scene *c)
{
    kv_snapshot *snapshot = NULL;
    kv_iter     *i = NULL;
    size_t       forward = 0, backward = 0;
    kv_status    s = kv_lsm_snapshot(c->db, &snapshot);
    if (s >= 0) s = kv_lsm_iter_open(c->db, snapshot, NULL, &i);
    if (s >= 0) {
        for (kv_iter_first(i); kv_iter_valid(i); kv_iter_next(i)) forward++;
        s = kv_iter_status(i);
    }
    if (s >= 0) {
        for (kv_iter_last(i); kv_iter_valid(i); kv_iter_prev(i)) backward++;
        s = kv_iter_status(i);
        if (s >= 0) CHECK_EQ(forward, backward);
    }
    if (i) kv_iter_close(i);
    kv_lsm_snapshot_release(c->db, snapshot);
    return s;
}
static kv_status do_checkpoint(scene *c) { return kv_lsm_checkpoint(c->db, "copy"); }
static kv_status do_stats(scene *c)
{
    kv_lsm_stats_t stats;
    kv_stats       plain;
    kv_lsm_location where;
    kv_status      s = kv_lsm_stats(c->db, &stats);
    if (s >= 0) s = kv_store_stats(kv_lsm_store(c->db), &plain);
    if (s >= 0) s = kv_lsm_locate(c->db, crash_key(9), &where);
    return s;
}
static kv_status do_ingest(scene *c)
{
    crash_config other;
    kv_lsm      *from = NULL;
    kv_iter     *sorted = NULL;
    disk        *d = disk_new();
    char         value[CRASH_VALUE_MAX];
    kv_status    s;
    crash_options(&other, 3);
    CHECK_OK(crash_open(&other, d, &from));
    for (uint32_t key = 10; key < 16; key++) {
        CHECK_OK(kv_lsm_set(from, crash_key(key), crash_value(950 + key, value)));
        c->after.ids[key] = 950 + key;
    }
    CHECK_OK(kv_lsm_iter_open(from, NULL, NULL, &sorted));
    s = kv_lsm_ingest(c->db, sorted);
    kv_iter_close(sorted);
    CHECK_OK(kv_lsm_close(from));
    disk_free(d);
    return s;
}

typedef struct scenario { const char *name; scene_fn run; bool reads; } scenario;
static const scenario scenarios[] = {
    { "set", do_set, false }, { "delete", do_delete, false }, { "batch", do_batch, false }, { "fill", do_fill, false }, { "insert", do_insert, false }, { "increment", do_increment, false },
    { "compare_and_set", do_cas, false }, { "delete_range", do_delete_range, false }, { "ingest", do_ingest, false }, { "flush", do_flush, true }, { "compact", do_compact, true },
    { "step", do_steps, true }, { "get", do_get, true }, { "scan", do_scan, true }, { "cursor", do_cursor, true }, { "checkpoint", do_checkpoint, true }, { "stats", do_stats, true },
};

static uint64_t points;

/* A store with several tables and an unflushed log; closed, or left as a crash leaves it. */
static disk *base_disk(uint64_t seed, bool closed, crash_config *config, crash_state *state)
{
    crash_script script;
    test_rng     rng = { seed };
    disk        *d = disk_new(), *image;
    bool         garbage;
    d->recording = false;
    crash_begin_script(&script, d, seed);
    crash_run_script(&script, 120);
    if (!CHECK(!script.why[0])) fprintf(stderr, "seed %llu: %s\n", (unsigned long long)seed, script.why);
    if (script.db) CHECK_OK(crash_read(script.db, state, &garbage));
    image = disk_crash(d, DISK_KEEP_ALL, &rng);
    CHECK_OK(kv_lsm_close(script.db));
    script.db = NULL;
    if (closed) { disk_free(image); image = disk_fork(d); }
    *config = script.config;
    crash_end_script(&script);
    disk_free(d);
    return image;
}
static void check_state(scene *c, const scenario *what, size_t n, bool after_only, const char *when)
{
    crash_state state;
    bool        garbage = false;
    kv_status   s = crash_read(c->db, &state, &garbage);
    if (!CHECK(s == KV_OK && !garbage && (crash_same(&state, &c->after) || (!after_only && crash_same(&state, &c->before)))))
        fprintf(stderr, "%s, allocation %zu, %s: %s\n", what->name, n, when, s < 0 ? kv_last_error(kv_lsm_store(c->db)) : "neither before nor after");
}
/* One scenario with the n-th allocation failing. False: nothing failed any more. */
static bool one_point(const disk *base, const crash_config *config, const crash_state *state, const scenario *what, size_t n, bool sticky)
{
    scene     c;
    kv_status s;
    bool      failed;
    memset(&c, 0, sizeof c);
    c.d = disk_fork(base);
    c.config = *config;
    c.config.o.allocator = test_allocator(&c.memory);
    c.before = c.after = *state;
    if (!CHECK_OK(crash_open(&c.config, c.d, &c.db))) { disk_free(c.d); return false; }
    c.memory.fail_at = c.memory.calls + n;
    c.memory.fail_after = sticky;
    s = what->run(&c);
    failed = c.memory.failed;
    c.memory.fail_at = 0;
    if (!failed || s >= 0) CHECK(s >= 0);
    else if (!CHECK(s == KV_ERR_NO_MEMORY || s == KV_ERR_READ_ONLY)) fprintf(stderr, "%s, allocation %zu: %s: %s\n", what->name, n, kv_status_text(s), kv_last_error(kv_lsm_store(c.db)));
    if (s == KV_ERR_NO_MEMORY && what->run != do_fill) { crash_state wanted = c.after; c.after = c.before; check_state(&c, what, n, true, "a failed call"); c.after = wanted; }
    else check_state(&c, what, n, s >= 0, "after the call");
    if (s < 0) {                                        /* with memory again it works */
        if (!CHECK_OK(kv_lsm_resume(c.db))) fprintf(stderr, "%s, allocation %zu: %s\n", what->name, n, kv_last_error(kv_lsm_store(c.db)));
        if (what->run == do_checkpoint) { CHECK(kv_lsm_checkpoint(c.db, "another") == KV_OK); }
        else if (what->run != do_fill) {
            s = what->run(&c);
            if (!CHECK(s >= 0)) fprintf(stderr, "%s, allocation %zu, again: %s: %s\n", what->name, n, kv_status_text(s), kv_last_error(kv_lsm_store(c.db)));
            check_state(&c, what, n, true, "again");
        }
    }
    if (!CHECK_OK(kv_lsm_close(c.db))) fprintf(stderr, "%s, allocation %zu: close\n", what->name, n);
    if (!CHECK_EQ(c.memory.live_blocks, 0)) fprintf(stderr, "%s, allocation %zu leaks\n", what->name, n);
    if (!CHECK_EQ(disk_open_count(c.d), 0)) fprintf(stderr, "%s, allocation %zu leaves files open\n", what->name, n);
    CHECK_EQ(disk_violations(c.d), 0);
    if (CHECK_OK(crash_open(&c.config, c.d, &c.db))) {
        check_state(&c, what, n, false, "at the next open");
        CHECK_OK(kv_lsm_close(c.db));
    }
    disk_free(c.d);
    points++;
    return failed;
}

TEST(crash_oom, every_call_fails_whole_and_the_store_goes_on)
{
    size_t seeds = test_scaled(2);
    for (size_t i = 0; i < seeds; i++) {
        crash_config config;
        crash_state  state;
        uint64_t     seed = test_seed_value % 1000 + i * 17;
        disk        *base;
        memset(&state, 0, sizeof state);
        base = base_disk(seed, i % 2 == 0, &config, &state);
        for (size_t k = 0; k < sizeof scenarios / sizeof scenarios[0]; k++)
            for (int sticky = 0; sticky < 2; sticky++) {
                size_t n = 1;
                while (one_point(base, &config, &state, &scenarios[k], n, sticky != 0) && n < 5000 && test_failed_checks < 30) n++;
                if (!CHECK(n < 5000)) fprintf(stderr, "%s: not every allocation was made to fail\n", scenarios[k].name);
            }
        disk_free(base);
    }
    printf("oom: points=%llu\n", (unsigned long long)points);
    CHECK(points >= 100);
}

/* open (new, closed, crashed), check and repair: no handle exists while they fail */
TEST(crash_oom, open_check_and_repair_fail_whole)
{
    uint64_t opened = 0, refused = 0;
    for (int how = 0; how < 5; how++) {                 /* 0 new, 1 closed, 2 crashed, 3 check, 4 repair */
        crash_config config;
        crash_state  truth, state;
        disk        *base;
        memset(&truth, 0, sizeof truth);
        base = how == 0 ? disk_new() : base_disk(test_seed_value % 1000 + (uint64_t)how, how != 2, &config, &truth);
        if (how == 0) crash_options(&config, 5);
        for (int sticky = 0; sticky < 2; sticky++) {
            bool every = false;
            for (size_t n = 1; n < 20000 && test_failed_checks < 30; n++) {
                test_memory memory;
                disk       *d = disk_fork(base);
                kv_lsm     *db = NULL;
                kv_status   s;
                bool        garbage, failed;
                memset(&memory, 0, sizeof memory);
                config.o.allocator = test_allocator(&memory);
                memory.fail_at = n;
                memory.fail_after = sticky != 0;
                config.o.io = disk_io(d);
                s = how == 3 ? kv_lsm_check(order_dir, &config.o, NULL, NULL) : how == 4 ? kv_lsm_repair(order_dir, &config.o, NULL, NULL) : crash_open(&config, d, &db);
                failed = memory.failed;
                memory.fail_at = 0;
                if (failed && s < 0) { CHECK_STATUS(s, KV_ERR_NO_MEMORY); CHECK(db == NULL); refused++; }
                else { CHECK(s >= 0); opened++; }
                if (s >= 0 && how < 3) {
                    CHECK_OK(crash_read(db, &state, &garbage));
                    CHECK(crash_same(&state, &truth));
                    CHECK_OK(kv_lsm_close(db));
                }
                if (!CHECK_EQ(memory.live_blocks, 0)) fprintf(stderr, "way %d, allocation %zu leaks\n", how, n);
                if (!CHECK_EQ(disk_open_count(d), 0)) fprintf(stderr, "way %d, allocation %zu leaves files open\n", how, n);
                db = NULL;
                if (CHECK_OK(crash_open(&config, d, &db))) {    /* and with memory everything is there */
                    CHECK_OK(crash_read(db, &state, &garbage));
                    if (!CHECK(!garbage && crash_same(&state, &truth))) fprintf(stderr, "way %d, allocation %zu: the next open finds something else\n", how, n);
                    CHECK_OK(kv_lsm_close(db));
                } else fprintf(stderr, "way %d, allocation %zu: %s\n", how, n, config.error_text);
                disk_free(d);
                points++;
                every = !failed;
                if (every) break;
            }
            if (!CHECK(every)) fprintf(stderr, "way %d: not every allocation was made to fail\n", how);
        }
        disk_free(base);
    }
    printf("oom: points=%llu opened=%llu refused=%llu\n", (unsigned long long)points, (unsigned long long)opened, (unsigned long long)refused);
    CHECK(refused >= 50);
}

TEST_MAIN()
