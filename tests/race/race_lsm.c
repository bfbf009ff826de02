/* race_lsm.c
   Goal: any thread may read, write, iterate, take snapshots, flush, merge, sync and ask for statistics
   at any time; what a reader sees is some moment of the store, whole. Closing it waits for those who are
   in a call, refuses those who come, and leaves cursors alone.
   Method: accounts whose sum never changes: writers move amounts between them in batches, readers add up
   all accounts through cursors, scans and snapshots. Then every kind of call in flight while the store is
   closed: in loops until they are refused, and one by one, held up inside. Run under ThreadSanitizer. */
#define KV_LSM_IMPLEMENTATION
#include "../../kv_lsm.h"
#include "../kv_order.h"
#include <pthread.h>

enum { ACCOUNTS = 200, EACH = 1000, WRITERS = 2, READERS = 2 };

typedef struct bank { kv_lsm *db; uint32_t stop, wrong; uint64_t moves, sums; uint64_t seed; size_t rounds; } bank;
typedef struct worker { bank *b; uint64_t number; pthread_t thread; } worker;

static kv_slice account_key(uint64_t n, char key[16]) { snprintf(key, 16, "acc%05u", (unsigned)n); return kv_cstr(key); }
static void wrong(bank *b, const char *what, kv_status s)
{
    if (kvi_add_u32(&b->wrong, 1) < 5) fprintf(stderr, "%s: %s (%s)\n", what, kv_status_text(s), kv_last_error(kv_lsm_store(b->db)));
}

/* Writers own halves of the accounts, so that what they read is what they wrote. */
static void *run_writer(void *argument)
{
    worker      *w = (worker *)argument;
    bank        *b = w->b;
    test_rng     r = { b->seed + w->number };
    int64_t      amounts[ACCOUNTS / WRITERS];
    uint64_t     base = w->number * (ACCOUNTS / WRITERS);
    kv_lsm_batch *batch;
    char         key[16], value[16], padding[100];
    kv_status    s = kv_lsm_batch_open(NULL, &batch);
    memset(padding, 'p', sizeof padding);
    for (int i = 0; i < ACCOUNTS / WRITERS; i++) amounts[i] = EACH;
    for (size_t n = 0; n < b->rounds && s == KV_OK; n++) {
        uint64_t from = test_below(&r, ACCOUNTS / WRITERS), to = test_below(&r, ACCOUNTS / WRITERS);
        int64_t  amount = (int64_t)test_below(&r, 50), got;
        kv_lsm_batch_clear(batch);
        amounts[from] -= amount;
        amounts[to] += amount;
        kvi_store_le64(value, (uint64_t)amounts[from]);
        s = kv_lsm_batch_put(batch, account_key(base + from, key), kv_bytes(value, 8));
        kvi_store_le64(value, (uint64_t)amounts[to]);
        if (s == KV_OK) s = kv_lsm_batch_put(batch, account_key(base + to, key), kv_bytes(value, 8));
        if (s == KV_OK) s = kv_lsm_batch_put(batch, kv_bytes(key + 1, 2 + n % 5), kv_bytes(padding, n % 100));
        if (s == KV_OK) s = kv_lsm_write(b->db, batch);
        if (s == KV_OK) s = kv_lsm_increment(b->db, KV_STR("zz counter"), 1, &got);
        if (s == KV_OK && n % 97 == 0) s = kv_lsm_delete(b->db, KV_STR("zz nothing"));
        kvi_add_u64(&b->moves, 1);
    }
    if (s < 0) wrong(b, "writer", s);
    kv_lsm_batch_close(batch);
    return NULL;
}

typedef struct sum { int64_t total; uint64_t accounts; } sum;
static bool add_up(void *user, kv_slice key, kv_slice value)
{
    sum *s = (sum *)user;
    (void)key;
    s->total += (int64_t)kvi_load_le64(value.data);
    s->accounts++;
    return true;
}
static void *run_reader(void *argument)
{
    worker  *w = (worker *)argument;
    bank    *b = w->b;
    test_rng r = { b->seed * 31 + w->number };
    kv_range accounts;
    memset(&accounts, 0, sizeof accounts);
    accounts.prefix = KV_STR("acc");
    do {                                    /* once at least, however late this thread begins */
        kv_snapshot *snapshot = NULL;
        kv_iter     *i = NULL;
        kv_status    s;
        sum          total = { 0, 0 };
        accounts.reverse = test_one_in(&r, 3);
        if (test_one_in(&r, 3)) s = kv_lsm_scan(b->db, &accounts, add_up, &total);
        else {
            s = test_one_in(&r, 2) ? kv_lsm_snapshot(b->db, &snapshot) : KV_OK;
            if (s == KV_OK) s = kv_lsm_iter_open(b->db, snapshot, &accounts, &i);
            for (; s == KV_OK && kv_iter_valid(i); kv_iter_next(i)) (void)add_up(&total, kv_iter_key(i), kv_iter_value(i));
            if (s == KV_OK) s = kv_iter_status(i);
            kv_iter_close(i);
            kv_lsm_snapshot_release(b->db, snapshot);
        }
        if (s < 0) { wrong(b, "reader", s); break; }
        if (total.accounts != ACCOUNTS || total.total != (int64_t)ACCOUNTS * EACH) {
            fprintf(stderr, "%u accounts, sum %ld\n", (unsigned)total.accounts, (long)total.total);
            wrong(b, "a moment that never was", KV_ERR_CORRUPT);
            break;
        }
        { char key[16]; kv_buf v; memset(&v, 0, sizeof v); s = kv_lsm_get(b->db, account_key(test_below(&r, ACCOUNTS), key), &v); if (s != KV_OK) wrong(b, "get", s); kv_buf_free(&v); }
        kvi_add_u64(&b->sums, 1);
    } while (!kvi_load_u32(&b->stop));
    return NULL;
}
static void *run_keeper(void *argument)         /* flush, merge, sync, step, statistics */
{
    worker  *w = (worker *)argument;
    bank    *b = w->b;
    test_rng r = { b->seed * 77 };
    while (!kvi_load_u32(&b->stop)) {
        kv_lsm_stats_t stats;
        kv_status      s;
        switch (test_below(&r, 6)) {
        case 0: s = kv_lsm_flush(b->db); break;
        case 1: s = kv_lsm_compact(b->db, NULL, NULL, NULL); break;
        case 2: s = kv_lsm_sync(b->db); break;
        case 3: s = kv_lsm_resume(b->db); break;
        case 4: s = kv_lsm_stats(b->db, &stats); break;
        default: s = kv_lsm_step(b->db);
        }
        if (s < 0) { wrong(b, "keeper", s); break; }
        kvi_sleep_ms(2);
    }
    return NULL;
}

/* The order of its operations is watched, whichever thread they are of. */
static disk *watched_disk(void)
{
    disk *d = disk_new();
    d->watch = order_watch;
    d->watch_user = d;
    return d;
}
/* Of a store whose tables are half a memtable and whose first level is two, so that all levels are soon in use. */
static kv_lsm_options tiny_options(disk *d, size_t memtable, kv_lsm_style style, kv_sync sync)
{
    kv_lsm_options o;
    memset(&o, 0, sizeof o);
    o.io = disk_io(d);
    o.memtable_bytes = memtable;
    o.block_bytes = 512;
    o.table_bytes = memtable / 2;
    o.l1_bytes = 2 * memtable;
    o.cache_bytes = 65536;
    o.style = style;
    o.sync = sync;
    o.open_files = 4;
    return o;
}
static void run_bank(kv_lsm_style style, kv_sync sync, bool map)
{
    bank           b;
    worker         workers[WRITERS + READERS + 1];
    disk          *d = watched_disk();
    kv_lsm_options o;
    char           key[16], value[8];
    memset(&b, 0, sizeof b);
    o = tiny_options(d, 16384, style, sync);
    d->recording = false;
    o.map_tables = map;
    if (map) o.codec = KV_CODEC_NONE;
    b.seed = test_seed_value;
    b.rounds = test_scaled(1500);
    if (!CHECK_OK(kv_lsm_open("db", &o, &b.db))) return;
    for (uint64_t i = 0; i < ACCOUNTS; i++) { kvi_store_le64(value, EACH); CHECK_OK(kv_lsm_set(b.db, account_key(i, key), kv_bytes(value, 8))); }
    for (uint64_t i = 0; i < WRITERS + READERS + 1; i++) {
        workers[i].b = &b;
        workers[i].number = i;
        CHECK_EQ(pthread_create(&workers[i].thread, NULL, i < WRITERS ? run_writer : i < WRITERS + READERS ? run_reader : run_keeper, &workers[i]), 0);
    }
    for (int i = 0; i < WRITERS; i++) pthread_join(workers[i].thread, NULL);
    kvi_store_u32(&b.stop, 1);
    for (int i = WRITERS; i < WRITERS + READERS + 1; i++) pthread_join(workers[i].thread, NULL);
    CHECK_EQ(b.wrong, 0);
    CHECK(b.sums > 0);
    { int64_t n = 0; CHECK_OK(kv_get_int64(kv_lsm_store(b.db), KV_STR("zz counter"), &n)); CHECK_EQ(n, b.moves); }
    CHECK_OK(kv_lsm_close(b.db));
    CHECK_OK(kv_lsm_check("db", &o, NULL, NULL));
    CHECK_EQ(disk_violations(d), 0);
    CHECK_EQ(disk_open_count(d), 0);
    printf("race_lsm: moves=%u sums=%u\n", (unsigned)b.moves, (unsigned)b.sums);
    disk_free(d);
}

TEST(lsm_race, leveled) { run_bank(KV_LSM_LEVELED, KV_SYNC_BATCH, false); }
TEST(lsm_race, tiered_without_sync) { run_bank(KV_LSM_TIERED, KV_SYNC_NONE, false); }
TEST(lsm_race, mapped_and_synced) { run_bank(KV_LSM_LEVELED, KV_SYNC_WRITE, true); }

/* many writers share appends and syncs */
static void *run_setter(void *argument)
{
    worker *w = (worker *)argument;
    char    key[16];
    for (uint64_t n = 0; n < w->b->rounds; n++) {
        kv_status s = kv_lsm_set(w->b->db, account_key(w->number * 100000 + n, key), KV_STR("value"));
        if (s < 0) { wrong(w->b, "setter", s); break; }
    }
    return NULL;
}
TEST(lsm_race, writers_share_a_group)
{
    bank           b;
    worker         workers[8];
    disk          *d = watched_disk();
    kv_lsm_options o;
    kv_lsm_stats_t stats;
    uint64_t       n = 0;
    memset(&b, 0, sizeof b);
    memset(&o, 0, sizeof o);
    d->recording = false;
    o.io = disk_io(d);
    o.sync = KV_SYNC_WRITE;
    b.rounds = test_scaled(400);
    if (!CHECK_OK(kv_lsm_open("db", &o, &b.db))) return;
    for (uint64_t i = 0; i < 8; i++) {
        workers[i].b = &b;
        workers[i].number = i;
        CHECK_EQ(pthread_create(&workers[i].thread, NULL, run_setter, &workers[i]), 0);
    }
    for (int i = 0; i < 8; i++) pthread_join(workers[i].thread, NULL);
    CHECK_EQ(b.wrong, 0);
    CHECK_OK(kv_lsm_stats(b.db, &stats));
    CHECK_EQ(stats.writes, 8 * b.rounds);
    CHECK(stats.write_groups <= stats.writes);
    CHECK_OK(kv_lsm_count(b.db, NULL, &n));
    CHECK_EQ(n, 8 * b.rounds);
    CHECK_OK(kv_lsm_close(b.db));
    disk_free(d);
}

/* ---- closing while others are in calls ---- */

enum { CLOSERS = 8, EACH_AT_LEAST = 20 };

typedef struct flight { kv_lsm *db; uint32_t inside, go_on, wrong; uint64_t turns[CLOSERS], acked[CLOSERS], seed; } flight;
typedef struct pilot { flight *f; uint32_t number; pthread_t thread; } pilot;

static void astray(flight *f, const char *what, kv_status s)
{
    if (kvi_add_u32(&f->wrong, 1) < 5) fprintf(stderr, "%s: %s\n", what, kv_status_text(s));
}
/* One call, or a few that belong together. KV_ERR_INVALID: the store was closed. */
static kv_status fly(flight *f, uint32_t number, uint64_t turn, test_rng *r)
{
    kv_lsm        *db = f->db;
    kv_lsm_stats_t stats;
    kv_stats       plain;
    kv_iter       *i = NULL;
    kv_snapshot   *snapshot = NULL;
    kv_buf         value;
    kv_pair        pairs[2];
    kv_slice       keys[2];
    kv_buf         values[2];
    kv_range       nothing;
    uint64_t       n = 0, before = kvi_load_u64(&f->acked[0]);
    char           text[2][16];
    kv_status      s;
    memset(&value, 0, sizeof value);
    memset(values, 0, sizeof values);
    memset(&nothing, 0, sizeof nothing);
    nothing.prefix = KV_STR("zz nothing");
    switch (number) {
    case 0:                                                 /* acknowledged: there after the next open */
        s = kv_lsm_set(db, account_key(turn, text[0]), KV_STR("value"));
        if (s == KV_OK) kvi_store_u64(&f->acked[0], turn + 1);
        return s;
    case 1:
        pairs[0].key = account_key(50000 + 2 * turn, text[0]);
        pairs[1].key = account_key(50001 + 2 * turn, text[1]);
        pairs[0].value = pairs[1].value = KV_STR("pair");
        s = kv_lsm_batch_set(db, pairs, 2);
        if (s == KV_OK) kvi_store_u64(&f->acked[1], turn + 1);
        return s;
    case 2:                                                 /* what was acknowledged before is found */
        s = before ? kv_lsm_get(db, account_key(test_below(r, before), text[0]), &value) : KV_OK;
        kv_buf_free(&value);
        if (s != KV_OK) return s;                           /* not found would be wrong, too */
        keys[0] = keys[1] = KV_STR("nothing");
        s = kv_lsm_batch_get(db, keys, 2, values, NULL);
        if (s == KV_OK) s = kv_lsm_exists(db, keys[0]);
        return s == KV_NOT_FOUND ? KV_OK : s;
    case 3:                                                 /* a cursor goes on after the end */
        s = kv_lsm_iter_open(db, NULL, NULL, &i);
        if (s < 0) return s;
        for (; kv_iter_valid(i); kv_iter_next(i)) n++;
        if (kv_iter_status(i) < 0 || n < before) astray(f, "a cursor", kv_iter_status(i));
        kv_iter_last(i);
        for (int k = 0; k < 10; k++) kv_iter_prev(i);
        if (kv_iter_status(i) < 0) astray(f, "a cursor back", kv_iter_status(i));
        kv_iter_close(i);
        return KV_OK;
    case 4:
        s = kv_lsm_snapshot(db, &snapshot);
        if (s < 0) return s;
        s = kv_lsm_get_at(db, snapshot, KV_STR("nothing"), &value);
        if (s != KV_ERR_INVALID) kv_lsm_snapshot_release(db, snapshot);
        return s == KV_NOT_FOUND ? KV_OK : s;
    case 5:
        s = turn % 3 == 0 ? kv_lsm_compact(db, NULL, NULL, NULL) : turn % 3 == 1 ? kv_lsm_flush(db) : kv_lsm_sync(db);
        return s == KV_END ? KV_OK : s;
    case 6:
        s = kv_lsm_increment(db, KV_STR("zz counter"), 1, NULL);
        if (s == KV_OK) kvi_add_u64(&f->acked[6], 1);
        if (s == KV_OK && turn % 8 == 0) s = kv_lsm_delete_range(db, &nothing, NULL);
        return s;
    default:
        s = kv_lsm_stats(db, &stats);
        if (s == KV_OK) s = kv_store_stats(kv_lsm_store(db), &plain);
        if (s == KV_OK) s = kv_lsm_count(db, NULL, &n);
        if (s == KV_OK) s = kv_lsm_resume(db);
        if (s == KV_OK) s = kv_lsm_step(db);
        return s == KV_END ? KV_OK : s;
    }
}
static void *run_pilot(void *argument)
{
    pilot    *p = (pilot *)argument;
    test_rng  r = { p->f->seed + p->number };
    kv_status s = KV_OK;
    for (uint64_t turn = 0; s == KV_OK; turn++) {
        s = fly(p->f, p->number, turn, &r);
        kvi_store_u64(&p->f->turns[p->number], turn + 1);
    }
    if (s != KV_ERR_INVALID) astray(p->f, "a call beside kv_lsm_close", s);
    return NULL;
}
/* Somebody holds a cursor, so whoever comes after the end is refused, and is not lost. */
static void close_in_flight(kv_lsm_style style, kv_sync sync)
{
    flight         f;
    pilot          pilots[CLOSERS];
    disk          *d = watched_disk();
    kv_lsm_options o;
    kv_lsm        *again;
    kv_iter       *pin;
    uint64_t       n = 0;
    int64_t        counter = 0;
    char           key[16];
    memset(&f, 0, sizeof f);
    o = tiny_options(d, 8192, style, sync);
    d->recording = false;
    f.seed = test_seed_value;
    if (!CHECK_OK(kv_lsm_open("db", &o, &f.db))) return;
    CHECK_OK(kv_lsm_set(f.db, KV_STR("a pin"), KV_STR("1")));
    CHECK_OK(kv_lsm_iter_open(f.db, NULL, NULL, &pin));
    for (uint32_t i = 0; i < CLOSERS; i++) {
        pilots[i].f = &f;
        pilots[i].number = i;
        CHECK_EQ(pthread_create(&pilots[i].thread, NULL, run_pilot, &pilots[i]), 0);
    }
    for (uint32_t i = 0; i < CLOSERS; i++) while (kvi_load_u64(&f.turns[i]) < EACH_AT_LEAST && !kvi_load_u32(&f.wrong)) kvi_sleep_ms(1);
    CHECK_OK(kv_lsm_close(f.db));
    CHECK_EQ(kv_lsm_open("db", &o, &again), KV_ERR_BUSY);
    CHECK_EQ(kv_lsm_set(f.db, KV_STR("late"), KV_STR("1")), KV_ERR_INVALID);
    CHECK(strstr(kv_last_error(kv_lsm_store(f.db)), "closed") != NULL);
    for (uint32_t i = 0; i < CLOSERS; i++) pthread_join(pilots[i].thread, NULL);
    CHECK_EQ(f.wrong, 0);
    for (kv_iter_first(pin); kv_iter_valid(pin); kv_iter_next(pin)) n++;
    CHECK_OK(kv_iter_status(pin));
    CHECK_EQ(n, 1);                                         /* its moment */
    kv_iter_close(pin);
    CHECK_EQ(disk_open_count(d), 0);
    CHECK_OK(kv_lsm_check("db", &o, NULL, NULL));
    if (!CHECK_OK(kv_lsm_open("db", &o, &again))) return;
    for (uint64_t i = 0; i < f.acked[0]; i++) CHECK_OK(kv_lsm_exists(again, account_key(i, key)));
    for (uint64_t i = 0; i < 2 * f.acked[1]; i++) CHECK_OK(kv_lsm_exists(again, account_key(50000 + i, key)));
    CHECK_OK(kv_get_int64(kv_lsm_store(again), KV_STR("zz counter"), &counter));
    CHECK_EQ(counter, f.acked[6]);
    CHECK_EQ(kv_lsm_exists(again, KV_STR("late")), KV_NOT_FOUND);
    CHECK_OK(kv_lsm_close(again));
    CHECK_EQ(disk_violations(d), 0);
    CHECK_EQ(disk_open_count(d), 0);
    disk_free(d);
}
TEST(lsm_race, close_in_flight) { for (int i = 0; i < 3; i++) close_in_flight(KV_LSM_LEVELED, KV_SYNC_BATCH); }
TEST(lsm_race, close_in_flight_tiered_and_synced) { for (int i = 0; i < 3; i++) close_in_flight(KV_LSM_TIERED, KV_SYNC_WRITE); }

/* Held up inside one call, until the store is being closed. */
static bool hold_up(flight *f)
{
    kvi_store_u32(&f->inside, 1);
    while (!kvi_load_u32(&f->go_on)) kvi_sleep_ms(1);
    kvi_sleep_ms(20);
    return true;
}
static bool hold_up_visit(void *user, kv_slice key, kv_slice value)
{
    (void)key;
    (void)value;
    return hold_up((flight *)user);
}
static bool hold_up_progress(void *user, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    return hold_up((flight *)user);
}
static void *run_held(void *argument)
{
    pilot *p = (pilot *)argument;
    flight *f = p->f;
    switch (p->number) {
    case 0: f->acked[0] = (uint64_t)kv_lsm_view(f->db, KV_STR("key00001"), hold_up_visit, f); break;
    case 1: { kv_range one; memset(&one, 0, sizeof one); one.limit = 1; f->acked[0] = (uint64_t)kv_lsm_scan(f->db, &one, hold_up_visit, f); break; }
    case 2: f->acked[0] = (uint64_t)kv_lsm_compact(f->db, NULL, hold_up_progress, f); break;
    default: f->acked[0] = (uint64_t)kv_lsm_set(f->db, KV_STR("late"), KV_STR("set"));
    }
    kvi_store_u32(&f->inside, 2);
    return NULL;
}
static flight *held_writer;
static void hold_up_watch(void *user, disk *d, const disk_op *op)
{
    order_watch(user, d, op);
    if (held_writer && op->kind == DISK_SYNC && !kvi_load_u32(&held_writer->inside)) (void)hold_up(held_writer);
}
static void *run_release(void *argument)        /* a moment after main went into kv_lsm_close */
{
    kvi_sleep_ms(20);
    kvi_store_u32(&((flight *)argument)->go_on, 1);
    return NULL;
}
TEST(lsm_race, close_waits_for_who_is_inside)
{
    for (uint32_t number = 0; number < 4; number++) {
        flight         f;
        pilot          p;
        pthread_t      release;
        disk          *d = watched_disk();
        kv_lsm_options o;
        char           key[16], value[2000];
        memset(&f, 0, sizeof f);
        memset(&o, 0, sizeof o);
        memset(value, 'v', sizeof value);
        d->recording = false;
        o.io = disk_io(d);
        o.codec = KV_CODEC_NONE;
        o.sync = KV_SYNC_NONE;
        if (!CHECK_OK(kv_lsm_open("db", &o, &f.db))) return;
        for (int i = 0; i < 2000; i++) { snprintf(key, sizeof key, "key%05d", i); CHECK_OK(kv_lsm_set(f.db, kv_cstr(key), kv_bytes(value, sizeof value))); }
        CHECK_OK(kv_lsm_flush(f.db));
        CHECK_OK(kv_lsm_close(f.db));
        o.sync = KV_SYNC_WRITE;
        if (!CHECK_OK(kv_lsm_open("db", &o, &f.db))) return;
        p.f = &f;
        p.number = number;
        if (number == 3) { held_writer = &f; d->watch = hold_up_watch; }
        CHECK_EQ(pthread_create(&p.thread, NULL, run_held, &p), 0);
        while (!kvi_load_u32(&f.inside)) kvi_sleep_ms(1);
        CHECK_EQ(pthread_create(&release, NULL, run_release, &f), 0);
        CHECK_OK(kv_lsm_close(f.db));
        CHECK(number == 3 || disk_open_count(d) == 0);
        pthread_join(p.thread, NULL);
        pthread_join(release, NULL);
        held_writer = NULL;
        CHECK_EQ((int)f.acked[0], number == 2 ? KV_END : KV_OK);
        CHECK_EQ(disk_open_count(d), 0);
        if (!CHECK_OK(kv_lsm_open("db", &o, &f.db))) return;
        CHECK_EQ(kv_lsm_exists(f.db, KV_STR("late")), number == 3 ? KV_OK : KV_NOT_FOUND);
        CHECK_OK(kv_lsm_exists(f.db, KV_STR("key01999")));
        CHECK_OK(kv_lsm_close(f.db));
        CHECK_EQ(disk_violations(d), 0);
        disk_free(d);
    }
}

/* Tables that overlap nothing move down by an edit alone, while readers open and use their files. */
typedef struct mover { kv_lsm *db; uint32_t stop, wrong, written; } mover;
static void *read_moved(void *argument)
{
    mover   *m = (mover *)argument;
    test_rng r = { test_seed_value };
    kv_buf   v;
    char     key[16];
    memset(&v, 0, sizeof v);
    while (!kvi_load_u32(&m->stop)) {
        uint32_t written = kvi_load_u32(&m->written);
        if (written && kv_lsm_get(m->db, account_key(written - 1 - test_below(&r, written < 150 ? written : 150), key), &v) != KV_OK) kvi_add_u32(&m->wrong, 1);
    }
    kv_buf_free(&v);
    return NULL;
}
TEST(lsm_race, tables_move_down_beside_their_readers)
{
    disk          *d = disk_new();
    kv_lsm_options o;
    kv_lsm_stats_t stats;
    mover          m;
    pthread_t      readers[2];
    char           key[16];
    memset(&m, 0, sizeof m);
    memset(&o, 0, sizeof o);
    d->recording = false;
    o.io = disk_io(d);
    o.sync = KV_SYNC_NONE;
    o.memtable_bytes = 4096;
    o.block_bytes = 256;
    o.table_bytes = 2048;
    o.l0_trigger = 2;
    o.l1_bytes = 8192;
    o.level_ratio = 2;
    o.cache_bytes = KV_NONE;
    o.open_files = 4;
    if (!CHECK_OK(kv_lsm_open("db", &o, &m.db))) return;
    for (int i = 0; i < 2; i++) CHECK_EQ(pthread_create(&readers[i], NULL, read_moved, &m), 0);
    for (uint32_t i = 0; i < (uint32_t)test_scaled(4000); i++) {
        CHECK_OK(kv_lsm_set(m.db, account_key(i, key), KV_STR("a value that fills a table soon")));
        kvi_store_u32(&m.written, i + 1);
    }
    kvi_store_u32(&m.stop, 1);
    for (int i = 0; i < 2; i++) pthread_join(readers[i], NULL);
    CHECK_EQ(m.wrong, 0);
    CHECK_OK(kv_lsm_stats(m.db, &stats));
    CHECK(stats.trivial_moves > 0);
    CHECK_OK(kv_lsm_close(m.db));
    disk_free(d);
}

TEST_MAIN()
