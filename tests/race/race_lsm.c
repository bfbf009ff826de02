/* race_lsm.c
   Goal: any thread may read, write, iterate, take snapshots, flush, merge, sync and ask for statistics
   at any time; what a reader sees is some moment of the store, whole.
   Method: accounts whose sum never changes: writers move amounts between them in batches, readers add up
   all accounts through cursors, scans and snapshots. Run under ThreadSanitizer. */
#define KV_LSM_IMPLEMENTATION
#include "../../kv_lsm.h"
#include "../kv_disk.h"
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
    while (!kvi_load_u32(&b->stop)) {
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
    }
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

static void run_bank(kv_lsm_style style, kv_sync sync, bool map)
{
    bank           b;
    worker         workers[WRITERS + READERS + 1];
    disk          *d = disk_new();
    kv_lsm_options o;
    char           key[16], value[8];
    memset(&b, 0, sizeof b);
    memset(&o, 0, sizeof o);
    d->recording = false;
    o.io = disk_io(d);
    o.memtable_bytes = 16384;
    o.block_bytes = 512;
    o.table_bytes = 8192;
    o.l1_bytes = 32768;
    o.cache_bytes = 65536;
    o.style = style;
    o.sync = sync;
    o.map_tables = map;
    if (map) o.codec = KV_CODEC_NONE;
    o.open_files = 4;
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
    disk          *d = disk_new();
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

TEST_MAIN()
