/* unit_lsm.c
   Goal: every call of kv_lsm.h does what its comment says, every status it names, and what was found
   broken elsewhere stays right here (the tests named after a story).
   Method: small stores on a disk in memory, which shows every file and can fail; a few on real files.
   The store's milliseconds are this test's, which stops them where the time must not matter. */
#define KVI_LSM_GUIDE_LATE 5000             /* so that loads in order meet it */
#define KV_LSM_IMPLEMENTATION
#define KV_CORE_IMPLEMENTATION
#include "../../kv.h"
static uint64_t stopped_ms;                     /* atomic; 0: the clock runs */
static uint64_t clock_ms(void)
{
    uint64_t now = kvi_load_u64(&stopped_ms);
    return now ? now : kvi_now_ms();
}
#define kvi_now_ms() clock_ms()
#include "../../kv_lsm.h"
#undef kvi_now_ms
#include "../kv_disk.h"
#include "../lsm_small.h"
#if KVI_OS_POSIX
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

/* ---- helpers ---- */

static char open_text[400];

static kv_lsm_options small(disk *d)
{
    kv_lsm_options o = lsm_small(disk_io(d), open_text, sizeof open_text);
    o.memtable_bytes = 16384;
    o.cache_bytes = 1u << 20;
    o.codec = KV_CODEC_NONE;
    return o;
}
static kv_lsm *must_open(const kv_lsm_options *o)
{
    kv_lsm *db = NULL;
    if (!CHECK_OK(kv_lsm_open("db", o, &db))) { fprintf(stderr, "%s\n", o->error_text ? o->error_text : ""); abort(); }
    return db;
}
static kv_slice number_key(uint64_t n)
{
    static char keys[4][24];
    static int  turn;
    char       *k = keys[turn++ % 4];
    snprintf(k, 24, "key%08" PRIu64, n);
    return kv_cstr(k);
}
static void fill(kv_lsm *db, uint64_t from, uint64_t to, const char *value)
{
    for (uint64_t i = from; i < to; i++) if (!CHECK_OK(kv_lsm_set(db, number_key(i), kv_cstr(value)))) return;
}
static uint64_t count_all(kv_lsm *db)
{
    uint64_t n = 0;
    CHECK_OK(kv_lsm_count(db, NULL, &n));
    return n;
}
static bool value_is(kv_lsm *db, kv_slice key, const char *wanted)      /* NULL: not there */
{
    kv_buf    value;
    kv_status s;
    bool      ok;
    memset(&value, 0, sizeof value);
    s = kv_lsm_get(db, key, &value);
    ok = CHECK_STATUS(s, wanted ? KV_OK : KV_NOT_FOUND) && (!wanted || CHECK_BYTES(kv_buf_slice(&value), kv_cstr(wanted)));
    kv_buf_free(&value);
    return ok;
}
static kv_lsm_stats_t stats_of(kv_lsm *db)
{
    kv_lsm_stats_t s;
    CHECK_OK(kv_lsm_stats(db, &s));
    return s;
}
static size_t files_with(disk *d, const char *part, char found[256])
{
    static char paths[512][256];
    size_t      n = disk_files(d, "db", paths, 512), count = 0;
    for (size_t i = 0; i < n; i++) if (strstr(paths[i], part)) { count++; if (found) memcpy(found, paths[i], 256); }
    return count;
}
static bool visit_count(void *user, kv_slice key, kv_slice value) { (void)key; (void)value; ++*(size_t *)user; return true; }
static bool visit_one(void *user, kv_slice key, kv_slice value) { (void)key; (void)value; ++*(size_t *)user; return false; }

/* ---- options and opening ---- */

TEST(lsm_options, zero_is_every_default)
{
    disk           *d = disk_new();
    kv_lsm_options  o, defaults = kv_lsm_default();
    kv_lsm         *db;
    const kv_lsm_options *r;
    memset(&o, 0, sizeof o);
    o.io = disk_io(d);
    db = must_open(&o);
    r = kv_lsm_get_options(db);
    CHECK_EQ(r->memtable_bytes, 4 << 20);
    CHECK_EQ(r->cache_bytes, 64 << 20);
    CHECK_EQ(r->block_bytes, 16384);
    CHECK_EQ(r->codec, defaults.codec);
    CHECK_EQ(r->sync, KV_SYNC_BATCH);
    CHECK_EQ(r->l0_trigger, 4);
    CHECK_EQ(r->l1_bytes, 64 << 20);
    CHECK_EQ(r->level_ratio, 10);
    CHECK(r->bloom_fp_rate > 0.009 && r->bloom_fp_rate < 0.011);
    CHECK_OK(kv_lsm_close(db));
    CHECK_EQ(disk_open_count(d), 0);
    disk_free(d);
}

TEST(lsm_options, wrong_ones_are_refused_with_a_text)
{
    disk *d = disk_new();
    for (int i = 0; i < 10; i++) {
        kv_lsm_options o = small(d);
        kv_lsm        *db = (kv_lsm *)&o;
        switch (i) {
        case 0: o.block_bytes = 3; break;
        case 1: o.memtable_bytes = 10; break;
        case 2: o.codec = (kv_codec)77; break;
        case 3: o.bloom_fp_rate = 1.5; break;
        case 4: o.sync = (kv_sync)9; break;
        case 5: o.style = (kv_lsm_style)5; break;
        case 6: o.level_ratio = 1; break;
        case 7: o.l0_trigger = 1; break;
        case 8: o.table_bytes = 5; break;
        default: o.create_only = o.must_exist = true;
        }
        CHECK_STATUS(kv_lsm_open("db", &o, &db), KV_ERR_INVALID);
        CHECK(db == NULL);
        CHECK(strlen(open_text) > 5);
    }
    CHECK_EQ(files_with(d, "", NULL), 0);
    CHECK_STATUS(kv_lsm_open(NULL, NULL, NULL), KV_ERR_INVALID);
    { kv_lsm *db; CHECK_STATUS(kv_lsm_open("", NULL, &db), KV_ERR_INVALID); CHECK_STATUS(kv_lsm_open(NULL, NULL, &db), KV_ERR_INVALID); }
    disk_free(d);
}

TEST(lsm_open, create_only_must_exist_and_busy)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db, *other;
    o.must_exist = true;
    CHECK_STATUS(kv_lsm_open("db", &o, &db), KV_NOT_FOUND);
    o.must_exist = false;
    o.read_only = true;
    CHECK_STATUS(kv_lsm_open("db", &o, &db), KV_NOT_FOUND);
    CHECK_EQ(files_with(d, "", NULL), 0);
    o.read_only = false;
    o.create_only = true;
    db = must_open(&o);
    CHECK_STATUS(kv_lsm_open("db", &o, &other), KV_ERR_BUSY);
    CHECK(strstr(open_text, "open") != NULL);
    CHECK_OK(kv_lsm_close(db));
    CHECK_STATUS(kv_lsm_open("db", &o, &other), KV_EXISTS);
    o.create_only = false;
    o.must_exist = true;
    db = must_open(&o);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

TEST(lsm_open, read_only_reads_the_log_and_touches_nothing)
{
    disk          *d = disk_new(), *cut;
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o), *second;
    test_rng       rng = test_rng_new();
    uint64_t       ops;
    fill(db, 0, 300, "flushed");
    CHECK_OK(kv_lsm_flush(db));
    fill(db, 300, 350, "in the log");
    cut = disk_crash(d, DISK_KEEP_ALL, &rng);       /* as after kill -9 */
    CHECK_OK(kv_lsm_close(db));
    o.io = disk_io(cut);
    o.read_only = true;
    disk_record(cut);
    ops = disk_op_count(cut);
    db = must_open(&o);
    CHECK_OK(kv_lsm_open("db", &o, &second));       /* several readers at once */
    CHECK_EQ(count_all(db), 350);
    CHECK(value_is(second, number_key(320), "in the log"));
    CHECK_STATUS(kv_lsm_set(db, KV_STR("x"), KV_STR("y")), KV_ERR_READ_ONLY);
    CHECK_STATUS(kv_lsm_delete(db, KV_STR("x")), KV_ERR_READ_ONLY);
    CHECK_STATUS(kv_lsm_flush(db), KV_ERR_READ_ONLY);
    CHECK_STATUS(kv_lsm_compact(db, NULL, NULL, NULL), KV_ERR_READ_ONLY);
    CHECK_STATUS(kv_lsm_resume(db), KV_ERR_READ_ONLY);
    CHECK_STATUS(kv_lsm_step(db), KV_END);
    CHECK_OK(kv_lsm_sync(db));
    CHECK(!(kv_store_caps(kv_lsm_store(db)) & KV_CAP_WRITE));
    CHECK(strstr(kv_last_error(kv_lsm_store(db)), "read-only") != NULL);
    CHECK_OK(kv_lsm_close(db));
    CHECK_OK(kv_lsm_close(second));
    CHECK_EQ(disk_op_count(cut), ops);
    disk_free(cut);
    disk_free(d);
}

/* ---- entries ---- */

TEST(lsm_entries, edges_of_keys_and_values)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    static char    big_key[65536], big[3 << 20];
    kv_buf         value;
    kv_slice       null_key = { NULL, 3 };
    memset(&value, 0, sizeof value);
    memset(big_key, 'k', sizeof big_key);
    for (size_t i = 0; i < sizeof big; i++) big[i] = (char)(i * 7 + i / 251);
    for (int round = 0; round < 3; round++) {
        CHECK_OK(kv_lsm_set(db, kv_bytes(NULL, 0), KV_STR("empty key")));
        CHECK_OK(kv_lsm_set(db, KV_STR("empty value"), kv_bytes(NULL, 0)));
        CHECK_OK(kv_lsm_set(db, kv_bytes("\0\0", 2), KV_STR("zeros")));
        CHECK_OK(kv_lsm_set(db, kv_bytes(big_key, KV_KEY_SIZE_MAX), KV_STR("longest key")));
        CHECK_OK(kv_lsm_set(db, KV_STR("big"), kv_bytes(big, sizeof big - (size_t)round)));
        CHECK_STATUS(kv_lsm_set(db, kv_bytes(big_key, KV_KEY_SIZE_MAX + 1u), KV_STR("x")), KV_ERR_TOO_LARGE);
        CHECK_STATUS(kv_lsm_set(db, null_key, KV_STR("x")), KV_ERR_INVALID);
        CHECK_STATUS(kv_lsm_set(db, KV_STR("x"), kv_bytes(NULL, 3)), KV_ERR_INVALID);
        CHECK_STATUS(kv_lsm_set(db, KV_STR("x"), kv_bytes(big, (size_t)KV_VALUE_SIZE_MAX + 1u)), KV_ERR_TOO_LARGE);
        if (round == 1) CHECK_OK(kv_lsm_flush(db));
        if (round == 2) { CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL)); CHECK_OK(kv_lsm_close(db)); db = must_open(&o); }
        CHECK(value_is(db, kv_bytes(NULL, 0), "empty key"));
        CHECK(value_is(db, KV_STR("empty value"), ""));
        CHECK(value_is(db, kv_bytes("\0\0", 2), "zeros"));
        CHECK(value_is(db, kv_bytes("\0", 1), NULL));
        CHECK(value_is(db, kv_bytes(big_key, KV_KEY_SIZE_MAX), "longest key"));
        CHECK_OK(kv_lsm_get(db, KV_STR("big"), &value));
        CHECK_BYTES(kv_buf_slice(&value), kv_bytes(big, sizeof big - (size_t)round));
        CHECK_EQ(count_all(db), 5);
    }
    kv_buf_free(&value);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

TEST(lsm_entries, callers_memory_is_not_kept)      /* a seed kept the caller's key slice */
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    char           key[2] = "a", value[2] = "0";
    for (int i = 0; i < 5; i++) {
        key[0] = (char)('a' + i);
        value[0] = (char)('0' + i);
        CHECK_OK(kv_lsm_set(db, kv_bytes(key, 1), kv_bytes(value, 1)));
    }
    for (int i = 0; i < 5; i++) { char k[2] = { (char)('a' + i), 0 }, v[2] = { (char)('0' + i), 0 }; CHECK(value_is(db, kv_cstr(k), v)); }
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

TEST(lsm_entries, more_than_65535_in_a_block)      /* a seed's counter wrapped */
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db;
    char           key[8];
    o.memtable_bytes = 64u << 20;
    o.block_bytes = 4u << 20;
    o.table_bytes = 64u << 20;
    o.bloom_fp_rate = KV_NO_BLOOM;
    db = must_open(&o);
    for (uint32_t i = 0; i < 70000; i++) {
        kvi_store_le32(key, i * 2654435761u);
        CHECK_OK(kv_lsm_set(db, kv_bytes(key, 4), kv_bytes(NULL, 0)));
    }
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    CHECK_EQ(count_all(db), 70000);
    for (uint32_t i = 0; i < 70000; i += 997) { kvi_store_le32(key, i * 2654435761u); CHECK_OK(kv_lsm_exists(db, kv_bytes(key, 4))); }
    CHECK_OK(kv_lsm_close(db));
    CHECK_OK(kv_lsm_check("db", &o, NULL, NULL));
    disk_free(d);
}

TEST(lsm_entries, null_arguments)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    kv_lsm_batch  *b;
    CHECK_STATUS(kv_lsm_get(NULL, KV_STR("a"), NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_lsm_get(db, KV_STR("a"), NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_lsm_set(NULL, KV_STR("a"), KV_STR("b")), KV_ERR_INVALID);
    CHECK_STATUS(kv_lsm_view(db, KV_STR("a"), NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_lsm_scan(db, NULL, NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_lsm_count(db, NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_lsm_write(db, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_lsm_snapshot(db, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_lsm_iter_open(db, NULL, NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_lsm_locate(db, KV_STR("a"), NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_lsm_stats(db, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_lsm_checkpoint(db, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_lsm_ingest(db, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_lsm_batch_open(NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_lsm_batch_set(db, NULL, 1), KV_ERR_INVALID);
    CHECK_OK(kv_lsm_batch_set(db, NULL, 0));
    CHECK_OK(kv_lsm_batch_get(db, NULL, 0, NULL, NULL));
    CHECK_OK(kv_lsm_batch_open(NULL, &b));
    CHECK_STATUS(kv_lsm_batch_put(b, kv_bytes(NULL, 1), KV_STR("x")), KV_ERR_INVALID);
    CHECK_STATUS(kv_lsm_write(db, b), KV_ERR_INVALID);                  /* the first failure sticks */
    kv_lsm_batch_clear(b);
    CHECK_OK(kv_lsm_write(db, b));
    kv_lsm_batch_close(b);
    kv_lsm_batch_close(NULL);
    kv_lsm_snapshot_release(db, NULL);
    CHECK_OK(kv_lsm_close(NULL));
    CHECK(kv_lsm_store(NULL) == NULL);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

TEST(lsm_entries, through_the_store_handle)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    kv_store      *s = kv_lsm_store(db);
    kv_slice       keys[3] = { KV_STR("a"), KV_STR("b"), KV_STR("zz") };
    kv_pair        pairs[2];
    kv_buf         values[3];
    kv_status      statuses[3];
    int64_t        n = 0;
    size_t         seen = 0;
    kv_iter       *i;
    memset(values, 0, sizeof values);
    pairs[0].key = keys[0]; pairs[0].value = KV_STR("1");
    pairs[1].key = keys[1]; pairs[1].value = KV_STR("2");
    CHECK(strcmp(kv_store_name(s), "lsm") == 0);
    CHECK_EQ(kv_store_caps(s), KV_CAP_ORDERED | KV_CAP_DURABLE | KV_CAP_THREADS | KV_CAP_WRITE);
    CHECK_OK(kv_batch_set(s, pairs, 2));
    CHECK_OK(kv_batch_get(s, keys, 3, values, statuses));
    CHECK_STATUS(statuses[1], KV_OK);
    CHECK_STATUS(statuses[2], KV_NOT_FOUND);
    CHECK_BYTES(kv_buf_slice(&values[1]), KV_STR("2"));
    CHECK_OK(kv_set_int64(s, KV_STR("n"), 41));
    CHECK_OK(kv_lsm_increment(db, KV_STR("n"), 1, &n));
    CHECK_EQ(n, 42);
    CHECK_OK(kv_get_int64(s, KV_STR("n"), &n));
    CHECK_EQ(n, 42);
    CHECK_OK(kv_scan(s, NULL, visit_count, &seen));
    CHECK_EQ(seen, 3);
    seen = 0;
    CHECK_OK(kv_scan(s, NULL, visit_one, &seen));
    CHECK_EQ(seen, 1);
    CHECK_OK(kv_iter_open(s, NULL, &i));
    CHECK_BYTES(kv_iter_key(i), keys[0]);
    kv_iter_close(i);
    CHECK_OK(kv_delete(s, keys[0]));
    CHECK_OK(kv_delete(s, keys[0]));                                    /* also where it is missing */
    CHECK_OK(kv_batch_delete(s, keys, 3));
    CHECK_OK(kv_flush(s));
    for (int k = 0; k < 3; k++) kv_buf_free(&values[k]);
    CHECK_OK(kv_close(s));
    disk_free(d);
}

TEST(lsm_change, insert_compare_and_increment)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    int64_t        n = -1;
    for (int round = 0; round < 2; round++) {
        CHECK_OK(kv_lsm_insert(db, KV_STR("i"), KV_STR("1")));
        CHECK_STATUS(kv_lsm_insert(db, KV_STR("i"), KV_STR("2")), KV_EXISTS);
        CHECK(value_is(db, KV_STR("i"), "1"));
        CHECK_STATUS(kv_lsm_compare_and_set(db, KV_STR("none"), KV_STR("a"), KV_STR("b")), KV_NOT_FOUND);
        CHECK_STATUS(kv_lsm_compare_and_set(db, KV_STR("i"), KV_STR("a"), KV_STR("b")), KV_ERR_CONFLICT);
        CHECK_OK(kv_lsm_compare_and_set(db, KV_STR("i"), KV_STR("1"), KV_STR("b")));
        CHECK(value_is(db, KV_STR("i"), "b"));
        CHECK_STATUS(kv_lsm_increment(db, KV_STR("i"), 1, &n), KV_ERR_WRONG_TYPE);
        CHECK_OK(kv_lsm_increment(db, KV_STR("c"), 5, &n));
        CHECK_EQ(n, 5);
        CHECK_OK(kv_lsm_increment(db, KV_STR("c"), -7, NULL));
        CHECK_OK(kv_lsm_increment(db, KV_STR("c"), 0, &n));
        CHECK_EQ(n, -2);
        CHECK_OK(kv_lsm_delete(db, KV_STR("i")));
        CHECK_OK(kv_lsm_delete(db, KV_STR("c")));
        CHECK_OK(kv_lsm_flush(db));
    }
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

TEST(lsm_change, delete_range_counts_what_it_deletes)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    kv_range       r;
    uint64_t       n = 99;
    fill(db, 0, 1000, "v");
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    fill(db, 500, 600, "newer");
    memset(&r, 0, sizeof r);
    r.prefix = KV_STR("key000005");
    CHECK_OK(kv_lsm_delete_range(db, &r, &n));
    CHECK_EQ(n, 100);
    CHECK_OK(kv_lsm_delete_range(db, &r, &n));
    CHECK_EQ(n, 0);
    memset(&r, 0, sizeof r);
    r.reverse = true;
    r.limit = 10;
    CHECK_OK(kv_lsm_delete_range(db, &r, &n));
    CHECK_EQ(n, 10);
    CHECK(value_is(db, number_key(999), NULL));
    CHECK(value_is(db, number_key(989), "v"));
    CHECK_EQ(count_all(db), 890);
    CHECK_OK(kv_lsm_delete_range(db, NULL, NULL));
    CHECK_EQ(count_all(db), 0);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

/* ---- flush and merge ---- */

TEST(lsm_compact, deleting_everything_leaves_nearly_nothing)    /* a seed dropped tombstones at the last level only */
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    kv_stats       s;
    uint64_t       full;
    fill(db, 0, 10000, "some value that takes room");
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    CHECK_OK(kv_store_stats(kv_lsm_store(db), &s));
    CHECK_EQ(s.keys, 10000);
    CHECK_EQ(s.key_bytes, 110000);
    CHECK_EQ(s.value_bytes, 260000);
    full = disk_used_bytes(d);
    for (uint64_t i = 0; i < 10000; i++) CHECK_OK(kv_lsm_delete(db, number_key(i)));
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    CHECK_OK(kv_store_stats(kv_lsm_store(db), &s));
    CHECK_EQ(s.keys, 0);
    CHECK_EQ(files_with(d, ".kvt", NULL), 0);
    CHECK(disk_used_bytes(d) < full / 10);
    CHECK_OK(kv_lsm_close(db));
    CHECK_EQ(files_with(d, ".kvt", NULL), 0);
    disk_free(d);
}

TEST(lsm_compact, deleted_keys_stay_deleted_over_levels)       /* a seed's prefix scan brought them back with data in L1 and L2 */
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    kv_range       r;
    uint64_t       n;
    for (int round = 0; round < 6; round++) {
        fill(db, 0, 2000, round % 2 ? "odd" : "even");
        for (uint64_t i = 0; i < 2000; i += 3) CHECK_OK(kv_lsm_delete(db, number_key(i)));
        while (kv_lsm_step(db) == KV_OK) {}
    }
    CHECK(stats_of(db).levels[2].tables > 0);
    memset(&r, 0, sizeof r);
    r.prefix = KV_STR("key0000");
    CHECK_OK(kv_lsm_count(db, &r, &n));
    CHECK_EQ(n, 2000 - 667);
    CHECK(value_is(db, number_key(999), NULL));
    CHECK(value_is(db, number_key(1000), "odd"));
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

TEST(lsm_compact, bounds_shorter_than_the_prefix)              /* a seed skipped tables whose largest key was shorter */
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    kv_range       r;
    uint64_t       n;
    CHECK_OK(kv_lsm_set(db, KV_STR("a"), KV_STR("1")));
    CHECK_OK(kv_lsm_set(db, KV_STR("b"), KV_STR("2")));
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    CHECK_OK(kv_lsm_set(db, KV_STR("zzz1"), KV_STR("3")));
    CHECK_OK(kv_lsm_set(db, KV_STR("zzz2"), KV_STR("4")));
    CHECK_OK(kv_lsm_flush(db));
    memset(&r, 0, sizeof r);
    r.prefix = KV_STR("zzz");
    CHECK_OK(kv_lsm_count(db, &r, &n));
    CHECK_EQ(n, 2);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

TEST(lsm_compact, sorted_loads_move_without_rewriting)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    kv_lsm_stats_t s;
    fill(db, 0, 20000, "in order");
    while (kv_lsm_step(db) == KV_OK) {}
    s = stats_of(db);
    CHECK(s.trivial_moves > 10);
    CHECK(s.levels[1].written_bytes + s.levels[2].written_bytes + s.levels[3].written_bytes < s.levels[0].written_bytes / 4);
    CHECK_EQ(count_all(db), 20000);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

static bool stop_soon(void *user, uint64_t done, uint64_t total) { CHECK(done <= total); return ++*(int *)user < 2; }
static bool go_on(void *user, uint64_t done, uint64_t total) { CHECK(done <= total); ++*(int *)user; return true; }
TEST(lsm_compact, progress_can_stop_it)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db;
    int            calls = 0;
    static char    value[2000];
    o.memtable_bytes = 1u << 20;
    o.table_bytes = 1u << 20;
    o.l0_trigger = 100;
    o.l1_bytes = 100u << 20;
    db = must_open(&o);
    for (uint64_t i = 0; i < 4000; i++) { memset(value, (int)i, sizeof value); CHECK_OK(kv_lsm_set(db, number_key(i * 7919 % 4001), kv_bytes(value, sizeof value))); }
    CHECK_STATUS(kv_lsm_compact(db, NULL, stop_soon, &calls), KV_END);
    CHECK_EQ(calls, 2);
    CHECK_EQ(count_all(db), 4000);
    calls = 0;
    CHECK_OK(kv_lsm_compact(db, NULL, go_on, &calls));
    CHECK(calls >= 4);
    CHECK_EQ(count_all(db), 4000);
    CHECK_EQ(stats_of(db).levels[0].tables, 0);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

TEST(lsm_compact, tiered_style_keeps_several_runs)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db;
    kv_lsm_stats_t tiered, leveled;
    o.style = KV_LSM_TIERED;
    db = must_open(&o);
    for (int i = 0; i < 40; i++) for (uint64_t k = 0; k < 300; k++) CHECK_OK(kv_lsm_set(db, number_key(k * 7919 % 5003), KV_STR("tiered")));
    while (kv_lsm_step(db) == KV_OK) {}
    tiered = stats_of(db);
    CHECK(tiered.levels[1].tables > 0);
    CHECK_OK(kv_lsm_close(db));
    o.style = KV_LSM_LEVELED;                       /* and the other style takes it over */
    db = must_open(&o);
    while (kv_lsm_step(db) == KV_OK) {}
    leveled = stats_of(db);
    CHECK(leveled.levels[0].tables < 4);
    CHECK_EQ(count_all(db), 300);
    CHECK(value_is(db, number_key(7919 % 5003), "tiered"));
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

TEST(lsm_compact, a_range_of_a_tiered_store_takes_runs_whole)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db, *from;
    kv_iter       *i;
    kv_range       r;
    memset(&r, 0, sizeof r);
    o.style = KV_LSM_TIERED;
    o.l0_trigger = 3;
    o.table_bytes = 1024;
    db = must_open(&o);
    CHECK_OK(kv_lsm_open("from", &o, &from));
    fill(db, 0, 1, "first");
    CHECK_OK(kv_lsm_flush(db));
    fill(db, 9000, 9001, "last");
    CHECK_OK(kv_lsm_flush(db));
    fill(from, 100, 400, "in several tables of one run");
    CHECK_OK(kv_lsm_iter_open(from, NULL, NULL, &i));
    CHECK_OK(kv_lsm_ingest(db, i));
    kv_iter_close(i);
    CHECK_OK(kv_lsm_close(from));
    r.from = number_key(100);
    r.to = number_key(110);
    CHECK_OK(kv_lsm_compact(db, &r, NULL, NULL));       /* a part of the newest run goes down, */
    while (kv_lsm_step(db) == KV_OK) {}                 /* and what is left of it follows with its neighbours */
    for (uint64_t n = 100; n < 400; n++) if (!value_is(db, number_key(n), "in several tables of one run")) break;
    CHECK_EQ(count_all(db), 302);
    CHECK_OK(kv_lsm_close(db));
    db = must_open(&o);
    CHECK_EQ(count_all(db), 302);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

TEST(lsm_step, is_bounded)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db;
    size_t         steps = 0;
    uint64_t       before, most = 0;
    o.memtable_bytes = 256u << 10;
    db = must_open(&o);
    CHECK_STATUS(kv_lsm_step(db), KV_END);
    fill(db, 0, 6000, "some value");
    (void)kv_lsm_sync(db);
    before = disk_op_count(d);
    while (kv_lsm_step(db) == KV_OK) {
        uint64_t now = disk_op_count(d);
        if (now - before > most) most = now - before;
        before = now;
        steps++;
    }
    CHECK(steps > 20);
    CHECK(most <= 16);                              /* operations of the disk in one step */
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

/* ---- snapshots and cursors ---- */

TEST(lsm_snapshot, sees_what_was_through_flush_and_merge)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    kv_snapshot   *s1, *s2;
    kv_buf         v;
    kv_iter       *i;
    uint64_t       n = 0;
    memset(&v, 0, sizeof v);
    fill(db, 0, 500, "one");
    CHECK_OK(kv_lsm_snapshot(db, &s1));
    fill(db, 0, 500, "two");
    CHECK_OK(kv_lsm_snapshot(db, &s2));
    for (uint64_t k = 0; k < 500; k++) CHECK_OK(kv_lsm_delete(db, number_key(k)));
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    CHECK_EQ(count_all(db), 0);
    CHECK_OK(kv_lsm_get_at(db, s1, number_key(77), &v));
    CHECK_BYTES(kv_buf_slice(&v), KV_STR("one"));
    CHECK_OK(kv_lsm_get_at(db, s2, number_key(77), &v));
    CHECK_BYTES(kv_buf_slice(&v), KV_STR("two"));
    CHECK_STATUS(kv_lsm_get_at(db, NULL, number_key(77), &v), KV_NOT_FOUND);
    CHECK_OK(kv_lsm_iter_open(db, s1, NULL, &i));
    for (; kv_iter_valid(i); kv_iter_next(i)) { n++; CHECK_BYTES(kv_iter_value(i), KV_STR("one")); }
    CHECK_EQ(n, 500);
    for (kv_iter_last(i); kv_iter_valid(i); kv_iter_prev(i)) { n--; CHECK_BYTES(kv_iter_value(i), KV_STR("one")); }
    CHECK_EQ(n, 0);
    kv_iter_close(i);
    kv_lsm_snapshot_release(db, s1);
    CHECK_OK(kv_lsm_get_at(db, s2, number_key(400), &v));
    kv_lsm_snapshot_release(db, s2);
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    CHECK_EQ(files_with(d, ".kvt", NULL), 0);
    kv_buf_free(&v);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

TEST(lsm_snapshot, many_versions_of_one_key_span_blocks)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    kv_snapshot   *s[60];
    kv_buf         v;
    char           value[100];
    memset(&v, 0, sizeof v);
    memset(value, '.', sizeof value);
    for (int k = 0; k < 60; k++) {
        value[0] = (char)('A' + k);
        CHECK_OK(kv_lsm_set(db, KV_STR("a"), KV_STR("before")));
        CHECK_OK(kv_lsm_set(db, KV_STR("hot"), kv_bytes(value, sizeof value)));
        CHECK_OK(kv_lsm_set(db, KV_STR("z"), KV_STR("behind")));
        CHECK_OK(kv_lsm_snapshot(db, &s[k]));
    }
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    for (int k = 0; k < 60; k++) {
        kv_iter *i;
        int      n = 0;
        value[0] = (char)('A' + k);
        CHECK_OK(kv_lsm_get_at(db, s[k], KV_STR("hot"), &v));
        CHECK_BYTES(kv_buf_slice(&v), kv_bytes(value, sizeof value));
        CHECK_OK(kv_lsm_iter_open(db, s[k], NULL, &i));
        kv_iter_next(i);
        CHECK_BYTES(kv_iter_value(i), kv_bytes(value, sizeof value));
        for (kv_iter_last(i); kv_iter_valid(i); kv_iter_prev(i)) n++;
        CHECK_EQ(n, 3);
        kv_iter_close(i);
    }
    for (int k = 0; k < 60; k++) kv_lsm_snapshot_release(db, s[k]);
    kv_buf_free(&v);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

/* ---- durability, in small; the crash tests do it in large ---- */

static uint64_t count_after_cut(disk *d, kv_lsm_options o, disk_mode mode)
{
    test_rng rng = test_rng_new();
    disk    *image;
    kv_lsm  *db = NULL;
    uint64_t n = UINT64_MAX;
    kvi_mutex_lock(&d->mutex);                      /* of a store whose threads may be at work */
    image = disk_crash(d, mode, &rng);
    kvi_mutex_unlock(&d->mutex);
    o.io = disk_io(image);
    if (CHECK_OK(kv_lsm_open("db", &o, &db))) {
        n = count_all(db);
        CHECK_OK(kv_lsm_close(db));
    }
    disk_free(image);
    return n;
}
static void cut_and_count(disk *d, kv_lsm_options o, disk_mode mode, uint64_t least, uint64_t most)
{
    uint64_t n = count_after_cut(d, o, mode);
    CHECK(n >= least);
    CHECK(n <= most);
}
#if KVI_THREADS
/* The thread syncs after 100 ms, or when a busy machine lets it: wait until it did. */
static void synced_soon(disk *d, kv_lsm_options o, uint64_t wanted)
{
    uint64_t begin = kvi_now_ms(), n;
    while ((n = count_after_cut(d, o, DISK_DURABLE)) < wanted && kvi_now_ms() - begin < 30000) kvi_sleep_ms(20);
    CHECK_EQ(n, wanted);
}
#endif

TEST(lsm_durable, synced_writes_survive_a_power_cut)           /* a seed lost 2,256 of 3,000 fsynced puts */
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db;
    o.sync = KV_SYNC_WRITE;
    db = must_open(&o);
    fill(db, 0, 3000, "synced");
    cut_and_count(d, o, DISK_DURABLE, 3000, 3000);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}
TEST(lsm_durable, nothing_acknowledged_is_in_user_memory)      /* a seed kept 32 KB there and called it durable */
{
    for (int sync = KV_SYNC_NONE; sync <= KV_SYNC_WRITE; sync++) {
        disk          *d = disk_new();
        kv_lsm_options o = small(d);
        kv_lsm        *db;
        o.sync = (kv_sync)sync;
        db = must_open(&o);
        fill(db, 0, 100, "acknowledged");
        cut_and_count(d, o, DISK_KEEP_ALL, 100, 100);
        CHECK_OK(kv_lsm_close(db));
        disk_free(d);
    }
}
TEST(lsm_durable, batches_sync_themselves_and_singles_soon)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    kv_lsm_batch  *b;
    CHECK_OK(kv_lsm_batch_open(NULL, &b));
    for (uint64_t i = 0; i < 50; i++) CHECK_OK(kv_lsm_batch_put(b, number_key(i), KV_STR("batch")));
    CHECK_EQ(kv_lsm_batch_count(b), 50);
    CHECK_OK(kv_lsm_write(db, b));
    kv_lsm_batch_close(b);
    cut_and_count(d, o, DISK_DURABLE, 50, 50);
    fill(db, 50, 60, "single");
    CHECK_OK(kv_lsm_step(db));                                  /* without a thread: the next step */
    cut_and_count(d, o, DISK_DURABLE, 60, 60);
    fill(db, 60, 70, "single");
    CHECK_OK(kv_lsm_sync(db));
    cut_and_count(d, o, DISK_DURABLE, 70, 70);
    CHECK_OK(kv_lsm_close(db));

#if KVI_THREADS
    o.no_background = false;                                    /* with one: 100 ms */
    db = must_open(&o);
    fill(db, 70, 80, "single");
    synced_soon(d, o, 80);
    CHECK_OK(kv_lsm_close(db));
#endif
    disk_free(d);
}
/* A table that cannot be made for want of space makes the store read-only, but its log is sound: what was
   acknowledged shortly before is synced all the same, by whoever syncs. */
TEST(lsm_durable, a_sound_log_of_a_read_only_store_is_synced)
{
    for (int who = 0; who < 4; who++) {                         /* kv_lsm_sync, kv_lsm_step, kv_lsm_close, the thread */
        disk          *d = disk_new();
        kv_lsm_options o = small(d);
        kv_lsm        *db;
        uint64_t       n = 0;
        if (who == 3 && !KVI_THREADS) { disk_free(d); continue; }
        o.no_background = who != 3;
        db = must_open(&o);
        disk_fail_at(d, DISK_CALL_CREATE, 1, UINT64_MAX, DISK_FAULT_SPACE);
        d->fault.name = ".kvt";
        while (stats_of(db).frozen_memtables == 0 && !stats_of(db).read_only && n < 10000) {
            kv_status s = kv_lsm_set(db, number_key(n), KV_STR("a value for the log"));
            if (s == KV_OK) n++; else CHECK(who == 3 && s == KV_ERR_READ_ONLY);
        }
        if (who != 3) CHECK_STATUS(kv_lsm_step(db), KV_OK);     /* syncs */
        if (who != 3) { CHECK_OK(kv_lsm_set(db, number_key(n), KV_STR("acknowledged"))); n++; }
        if (who != 3) CHECK_STATUS(kv_lsm_flush(db), KV_ERR_NO_SPACE);
        for (int wait = 0; who == 3 && wait < 30000 && !stats_of(db).read_only; wait++) kvi_sleep_ms(1);
        CHECK(stats_of(db).read_only);
        CHECK_STATUS(kv_lsm_set(db, KV_STR("x"), KV_STR("y")), KV_ERR_READ_ONLY);
        if (who == 0) CHECK_OK(kv_lsm_sync(db));
        if (who == 1) CHECK_OK(kv_lsm_step(db));
        if (who == 2) CHECK(kv_lsm_close(db) < 0);
        o.no_background = true;
#if KVI_THREADS
        if (who == 3) synced_soon(d, o, n);
#endif
        cut_and_count(d, o, DISK_DURABLE, n, n);
        CHECK(who == 2 || kv_lsm_close(db) < 0);
        CHECK_EQ(disk_violations(d), 0);
        disk_free(d);
    }
}

#if KVI_THREADS
/* A disk whose tables take as long to sync as the test likes, and other ways to hold something up. */
typedef struct slow { kv_lsm *db; uint32_t held, waiting, written; kv_iter *sorted; kv_status status; kv_status (*sync)(void *user, kv_file *file); } slow;
static slow *slow_now;
static void slow_hold(slow *t)
{
    kvi_store_u32(&t->waiting, 1);
    while (kvi_load_u32(&t->held)) kvi_sleep_ms(1);
}
static kv_status slow_sync(void *user, kv_file *file)
{
    if (strstr(((disk_handle *)file)->path, ".kvt") && kvi_load_u32(&slow_now->held)) slow_hold(slow_now);
    return slow_now->sync(user, file);
}
static bool slow_progress(void *user, uint64_t done, uint64_t total) { (void)done; (void)total; slow_hold((slow *)user); return true; }
static void slow_compact(void *user) { slow *t = (slow *)user; t->status = kv_lsm_compact(t->db, NULL, slow_progress, t); }
static void slow_ingest(void *user) { slow *t = (slow *)user; t->status = kv_lsm_ingest(t->db, t->sorted); }
static void slow_set(void *user)
{
    slow *t = (slow *)user;
    for (uint64_t i = 0; i < 10; i++) { t->status = kv_lsm_set(t->db, number_key(9000000 + i), KV_STR("single")); kvi_store_u32(&t->written, (uint32_t)i + 1); }
}
static bool slow_wait(const uint32_t *what, uint32_t value)
{
    for (int i = 0; i < 60000 && kvi_load_u32((uint32_t *)(uintptr_t)what) != value; i++) kvi_sleep_ms(1);
    return CHECK_EQ(kvi_load_u32((uint32_t *)(uintptr_t)what), value);
}

TEST(lsm_durable, singles_are_synced_while_a_table_is)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_io          io = *o.io;
    slow           t;
    kv_lsm        *db;
    uint64_t       n = 0;
    memset(&t, 0, sizeof t);
    t.sync = io.sync;
    t.held = 1;
    slow_now = &t;
    io.sync = slow_sync;
    o.io = &io;
    o.no_background = false;
    db = must_open(&o);
    while (stats_of(db).frozen_memtables == 0 && n < 5000) CHECK_OK(kv_lsm_set(db, number_key(n++), KV_STR("a value that fills the memtable up until it is frozen")));    /* not on: writers would wait for the thread, too */
    CHECK_OK(kv_lsm_set(db, number_key(n++), KV_STR("the last before nobody writes for long")));
    (void)slow_wait(&t.waiting, 1);
    o.no_background = true;
    synced_soon(d, o, n);
    kvi_store_u32(&t.held, 0);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}
TEST(lsm_durable, an_ingest_that_waits_for_a_merge_holds_nobody_back)
{
    disk          *d = disk_new(), *d2 = disk_new();
    kv_lsm_options o = small(d), o2 = small(d2);
    slow           compact, ingest, set;
    kvi_thread     threads[3];
    kv_lsm        *other = must_open(&o2);
    char           value[1000];
    memset(&compact, 0, sizeof compact);
    memset(value, 'v', sizeof value);
    d->recording = false;
    o.no_background = false;
    o.memtable_bytes = 256 << 10;
    o.table_bytes = 256 << 10;
    compact.db = must_open(&o);
    for (uint64_t i = 0; i < 3000; i++) CHECK_OK(kv_lsm_set(compact.db, number_key(i), kv_bytes(value, sizeof value)));
    fill(other, 5000, 5100, "ingested");
    ingest = set = compact;
    CHECK_OK(kv_iter_open(kv_lsm_store(other), NULL, &ingest.sorted));
    compact.held = 1;
    CHECK_OK(kvi_thread_start(&threads[0], slow_compact, &compact));
    (void)slow_wait(&compact.waiting, 1);
    CHECK_OK(kvi_thread_start(&threads[1], slow_ingest, &ingest));
    kvi_sleep_ms(100);
    CHECK_OK(kvi_thread_start(&threads[2], slow_set, &set));
    (void)slow_wait(&set.written, 10);
    if (kvi_load_u32(&set.written) == 10) synced_soon(d, o, 3010);
    kvi_store_u32(&compact.held, 0);
    for (int i = 0; i < 3; i++) kvi_thread_join(&threads[i]);
    CHECK_OK(compact.status);
    CHECK_OK(ingest.status);
    CHECK_OK(set.status);
    CHECK_EQ(count_all(compact.db), 3110);
    kv_iter_close(ingest.sorted);
    CHECK_OK(kv_lsm_close(other));
    CHECK_OK(kv_lsm_close(compact.db));
    disk_free(d);
    disk_free(d2);
}
#endif
TEST(lsm_durable, a_flush_keeps_the_log_of_the_live_memtable)  /* a seed cut it: 5 fsynced writes, 0 recovered */
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db;
    o.sync = KV_SYNC_WRITE;
    db = must_open(&o);
    fill(db, 0, 150, "some value that fills the memtable up until it is frozen and flushed");
    fill(db, 1000, 1005, "live");
    while (kv_lsm_step(db) == KV_OK) {}
    cut_and_count(d, o, DISK_DURABLE, 155, 155);
    cut_and_count(d, o, DISK_KEEP_ALL, 155, 155);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}
TEST(lsm_durable, a_batch_is_whole_or_not_there)               /* a seed tore them */
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db;
    disk          *image, *cursor;
    test_rng       rng = test_rng_new();
    kv_lsm_batch  *b;
    o.sync = KV_SYNC_NONE;
    db = must_open(&o);
    CHECK_OK(kv_lsm_batch_open(NULL, &b));
    for (uint64_t i = 0; i < 200; i++) CHECK_OK(kv_lsm_batch_put(b, number_key(i), KV_STR("all of it")));
    CHECK_OK(kv_lsm_write(db, b));
    kv_lsm_batch_close(b);
    cursor = disk_begin(d);
    for (size_t k = 0; k <= disk_op_count(d); k++) {
        disk_advance(cursor, d, k);
        for (int mode = 0; mode < DISK_MODES; mode++) {
            kv_lsm  *again;
            uint64_t n;
            image = disk_crash(cursor, (disk_mode)mode, &rng);
            o.io = disk_io(image);
            if (CHECK_OK(kv_lsm_open("db", &o, &again))) {
                n = count_all(again);
                CHECK(n == 0 || n == 200);
                CHECK_OK(kv_lsm_close(again));
            }
            disk_free(image);
        }
    }
    disk_free(cursor);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

/* ---- failing disks ---- */

TEST(lsm_fail, a_failed_sync_is_final)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db;
    o.sync = KV_SYNC_WRITE;
    db = must_open(&o);
    fill(db, 0, 10, "good");
    disk_fail_at(d, DISK_CALL_SYNC, 1, 1, DISK_FAULT_SYNC_DROPS);
    CHECK_STATUS(kv_lsm_set(db, KV_STR("x"), KV_STR("y")), KV_ERR_IO);
    disk_fail_at(d, 0, 0, 0, DISK_FAULT_IO);
    CHECK_STATUS(kv_lsm_set(db, KV_STR("x"), KV_STR("y")), KV_ERR_READ_ONLY);
    CHECK(strstr(kv_last_error(kv_lsm_store(db)), "sync") != NULL);
    CHECK(value_is(db, KV_STR("x"), NULL));
    CHECK(value_is(db, number_key(3), "good"));
    CHECK_STATUS(kv_lsm_resume(db), KV_ERR_READ_ONLY);
    CHECK(stats_of(db).read_only);
    CHECK(!stats_of(db).resumable);
    CHECK(kv_lsm_close(db) < 0);
    db = must_open(&o);                             /* the write that failed may be there, or not */
    CHECK(count_all(db) == 10 || count_all(db) == 11);
    CHECK_OK(kv_lsm_close(db));
    CHECK_EQ(disk_violations(d), 0);
    disk_free(d);
}
TEST(lsm_fail, a_full_disk_reads_and_resumes)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    uint64_t       n = 0;
    kv_status      s = KV_OK;
    d->capacity_bytes = 60000;
    while (s == KV_OK && n < 10000) { s = kv_lsm_set(db, number_key(n), KV_STR("a value until the disk is full")); if (s == KV_OK) n++; }
    CHECK_STATUS(s, KV_ERR_NO_SPACE);
    CHECK_EQ(count_all(db), n);
    CHECK_STATUS(kv_lsm_set(db, KV_STR("x"), KV_STR("y")), KV_ERR_READ_ONLY);
    CHECK(stats_of(db).resumable);
    CHECK(kv_lsm_resume(db) < 0);                                       /* still full */
    CHECK_EQ(count_all(db), n);
    d->capacity_bytes = 0;
    CHECK_OK(kv_lsm_resume(db));
    CHECK_OK(kv_lsm_resume(db));                                        /* nothing to leave any more */
    CHECK_OK(kv_lsm_set(db, KV_STR("x"), KV_STR("y")));
    CHECK_EQ(count_all(db), n + 1);
    CHECK_OK(kv_lsm_close(db));
    db = must_open(&o);
    CHECK_EQ(count_all(db), n + 1);
    CHECK_OK(kv_lsm_close(db));
    CHECK_OK(kv_lsm_check("db", &o, NULL, NULL));
    CHECK_EQ(disk_violations(d), 0);
    disk_free(d);
}
TEST(lsm_fail, a_full_disk_while_resuming_is_not_final)
{
    bool resumed = false;
    for (uint64_t at = 1; !resumed; at++) {
        disk          *d = disk_new();
        kv_lsm_options o = small(d);
        kv_lsm        *db = must_open(&o);
        CHECK_OK(kv_lsm_set(db, KV_STR("a"), KV_STR("b")));
        disk_fail_at(d, DISK_CALL_APPEND, 1, 1, DISK_FAULT_SPACE);
        CHECK_STATUS(kv_lsm_set(db, KV_STR("c"), KV_STR("d")), KV_ERR_NO_SPACE);
        disk_fail_at(d, DISK_CALL_APPEND | DISK_CALL_CREATE, at, 1, DISK_FAULT_SPACE);
        resumed = kv_lsm_resume(db) == KV_OK;
        disk_fail_at(d, DISK_CALL_APPEND, UINT64_MAX, 1, DISK_FAULT_SPACE);
        CHECK_OK(kv_lsm_resume(db));
        CHECK_OK(kv_lsm_set(db, KV_STR("e"), KV_STR("f")));
        CHECK(value_is(db, KV_STR("a"), "b"));
        CHECK_OK(kv_lsm_close(db));
        db = must_open(&o);
        CHECK(value_is(db, KV_STR("a"), "b"));
        CHECK(value_is(db, KV_STR("e"), "f"));
        CHECK_OK(kv_lsm_close(db));
        disk_free(d);
        if (!CHECK(at < 20)) break;
    }
}

TEST(lsm_fail, a_bad_block_is_an_error_and_stops_the_merge)    /* seeds took it for the end of the table, and lost the rest */
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db;
    char           path[256];
    size_t         tables;
    kv_buf         v;
    uint64_t       n, errors = 0;
    memset(&v, 0, sizeof v);
    o.cache_bytes = KV_NONE;
    db = must_open(&o);
    fill(db, 0, 2000, "value");
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    tables = files_with(d, ".kvt", path);
    CHECK(tables > 3);
    disk_file_open(d, path, 1000, 1)[0] ^= 16;
    CHECK_STATUS(kv_lsm_count(db, NULL, &n), KV_ERR_CORRUPT);
    for (uint64_t i = 0; i < 2000; i++) {
        kv_status s = kv_lsm_get(db, number_key(i), &v);
        if (s == KV_ERR_CORRUPT) errors++;
        else CHECK_OK(s);
    }
    CHECK(errors > 0 && errors < 100);
    CHECK(strstr(kv_last_error(kv_lsm_store(db)), ".kvt") != NULL);
    CHECK_STATUS(kv_lsm_compact(db, NULL, NULL, NULL), KV_ERR_CORRUPT);
    CHECK_EQ(files_with(d, ".kvt", NULL), tables);                      /* its inputs stay */
    disk_file_open(d, path, 1000, 1)[0] ^= 16;
    CHECK_EQ(count_all(db), 2000);
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    kv_buf_free(&v);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

TEST(lsm_fail, going_back_over_a_bad_block_shows_nothing_older)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db;
    kv_snapshot   *s[20];
    kv_iter       *i;
    kv_range       back;
    char           path[256], value[100];
    memset(value, '.', sizeof value);
    memset(&back, 0, sizeof back);
    o.cache_bytes = KV_NONE;
    db = must_open(&o);
    for (int k = 0; k < 20; k++) {                      /* the versions of one key fill several blocks, newest first */
        value[0] = (char)('A' + k);
        CHECK_OK(kv_lsm_set(db, KV_STR("hot"), kv_bytes(value, sizeof value)));
        CHECK_OK(kv_lsm_snapshot(db, &s[k]));
    }
    CHECK_OK(kv_lsm_flush(db));
    CHECK_EQ(files_with(d, ".kvt", path), 1);
    disk_file_open(d, path, 64 + 40, 1)[0] ^= 16;       /* in the first block */
    back.reverse = true;
    CHECK_STATUS(kv_lsm_iter_open(db, NULL, &back, &i), KV_ERR_CORRUPT);
    for (int k = 0; k < 20; k++) kv_lsm_snapshot_release(db, s[k]);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

TEST(lsm_fail, a_cursor_goes_on_after_a_table_without_index)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db;
    kv_iter       *i;
    char           paths[64][256], *bad = NULL;
    kv_lsm_location where;
    uint64_t       seen = 0;
    o.cache_bytes = KV_NONE;
    db = must_open(&o);
    fill(db, 0, 1000, "value");
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    CHECK_OK(kv_lsm_locate(db, number_key(999), &where));
    CHECK_OK(kv_lsm_close(db));
    {
        char   name[32];
        size_t n = disk_files(d, "db", paths, 64);
        snprintf(name, sizeof name, "%06" PRIu64 ".kvt", where.table);
        for (size_t k = 0; k < n; k++) if (strstr(paths[k], name)) bad = paths[k];
    }
    if (CHECK(bad != NULL)) {
        disk_file_open(d, bad, disk_file(d, bad)->size - 30, 1)[0] ^= 16;       /* in the footer */
        db = must_open(&o);
        CHECK_OK(kv_lsm_iter_open(db, NULL, NULL, &i));
        for (; kv_iter_valid(i); kv_iter_next(i)) seen++;
        CHECK(seen > 0 && seen < 1000);
        CHECK_STATUS(kv_iter_status(i), KV_ERR_CORRUPT);
        kv_iter_seek(i, number_key(999));
        CHECK(!kv_iter_valid(i));
        CHECK_STATUS(kv_iter_status(i), KV_ERR_CORRUPT);
        kv_iter_seek(i, number_key(5));
        CHECK(kv_iter_valid(i));
        kv_iter_close(i);
        CHECK_OK(kv_lsm_close(db));
    }
    disk_free(d);
}

/* A disk that, in the middle of a read, reads another key: what another thread may do just then. */
static struct { const kv_io *disk; kv_lsm *db; int asked; kv_status status; } meanwhile;
static kv_status read_meanwhile(void *user, kv_file *file, uint64_t offset, void *data, size_t size, size_t *got)
{
    if (meanwhile.db && meanwhile.asked++ == 0) {
        kv_buf v;
        memset(&v, 0, sizeof v);
        meanwhile.status = kv_lsm_get(meanwhile.db, number_key(990), &v);
        kv_buf_free(&v);
    }
    return meanwhile.disk->read_at(user, file, offset, data, size, got);
}
TEST(lsm_files, more_tables_read_at_once_than_open_files)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_io          io = *o.io;
    kv_lsm        *db;
    memset(&meanwhile, 0, sizeof meanwhile);
    meanwhile.disk = o.io;
    meanwhile.status = KV_ERR_INVALID;
    io.read_at = read_meanwhile;
    o.io = &io;
    o.cache_bytes = KV_NONE;
    o.open_files = 1;
    db = must_open(&o);
    fill(db, 0, 1000, "value");
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    meanwhile.db = db;
    CHECK(value_is(db, number_key(5), "value"));
    CHECK_OK(meanwhile.status);
    CHECK_EQ(count_all(db), 1000);
    CHECK(disk_open_count(d) <= 4);                     /* lock, log, manifest, one table */
    CHECK_OK(kv_lsm_close(db));
    CHECK_EQ(disk_open_count(d), 0);
    disk_free(d);
}

/* ---- damage at rest, check and repair ---- */

typedef struct told { int errors, remarks; char all[20000]; } told;
static void tell(void *user, kv_status s, const char *text)
{
    told *t = (told *)user;
    if (s < 0) t->errors++; else t->remarks++;
    if (strlen(t->all) + strlen(text) + 2 < sizeof t->all) { strcat(t->all, text); strcat(t->all, "\n"); }
}

TEST(lsm_check, names_file_and_block)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    char           path[256];
    static told    t;
    fill(db, 0, 3000, "value");
    CHECK_STATUS(kv_lsm_check("db", &o, NULL, NULL), KV_ERR_BUSY);
    CHECK_OK(kv_lsm_close(db));
    memset(&t, 0, sizeof t);
    CHECK_OK(kv_lsm_check("db", &o, tell, &t));
    CHECK_EQ(t.errors, 0);
    CHECK(files_with(d, ".kvt", path) > 0);
    disk_file_open(d, path, 700, 1)[0] ^= 1;
    CHECK_STATUS(kv_lsm_check("db", &o, tell, &t), KV_ERR_CORRUPT);
    CHECK(t.errors >= 1);
    CHECK(strstr(t.all, strrchr(path, '/') + 1) != NULL);
    CHECK(strstr(t.all, " at ") != NULL);
    disk_free(d);
}

TEST(lsm_repair, without_manifest_nothing_is_lost)             /* a seed's repair deleted everything */
{
    for (int what = 0; what < 3; what++) {
        disk          *d = disk_new();
        kv_lsm_options o = small(d);
        kv_lsm        *db = must_open(&o);
        test_model     model;
        test_rng       rng = test_rng_new();
        char           path[256];
        disk          *image;
        static told    t;
        memset(&model, 0, sizeof model);
        memset(&t, 0, sizeof t);
        for (int i = 0; i < 6000; i++) {
            kv_slice key = number_key(test_below(&rng, 1500));
            if (test_one_in(&rng, 4)) { CHECK_OK(kv_lsm_delete(db, key)); test_model_delete(&model, key); }
            else { char v[20]; snprintf(v, sizeof v, "%d", i); CHECK_OK(kv_lsm_set(db, key, kv_cstr(v))); test_model_set(&model, key, kv_cstr(v)); }
            if (i % 50 == 0) (void)kv_lsm_step(db);
        }
        image = disk_crash(d, DISK_KEEP_ALL, &rng);
        o.io = disk_io(image);
        if (what != 1) disk_file_remove(image, "db/CURRENT");
        if (what != 0) { CHECK(files_with(image, "MANIFEST", path) > 0); disk_file_remove(image, path); }
        { kv_lsm *broken; CHECK_STATUS(kv_lsm_open("db", &o, &broken), KV_ERR_CORRUPT); }
        if (!CHECK_OK(kv_lsm_repair("db", &o, tell, &t))) fprintf(stderr, "%s", t.all);
        { kv_lsm *again = must_open(&o); CHECK_EQ(count_all(again), model.count);
          for (size_t i = 0; i < model.count; i++) value_is(again, test_entry_key(&model.entries[i]), model.entries[i].value);
          CHECK_OK(kv_lsm_close(again)); }
        CHECK_OK(kv_lsm_check("db", &o, NULL, NULL));
        CHECK_OK(kv_lsm_repair("db", &o, NULL, NULL));                  /* repeating it changes nothing */
        test_model_free(&model);
        CHECK_OK(kv_lsm_close(db));
        disk_free(image);
        disk_free(d);
    }
}

/* What a block stores to lead a search is wrong, and its checks are right: a get would miss the key. */
TEST(lsm_check, reads_what_leads_a_search)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    char           table[256];
    uint8_t        id[16];
    uint64_t       manifest, seed;
    d->recording = false;
    fill(db, 0, 20, "v");
    CHECK_OK(kv_lsm_flush(db));
    CHECK_OK(kv_lsm_close(db));
    CHECK_EQ(files_with(d, ".kvt", table), 1);
    CHECK_OK(kvi_lsm_current_parse(disk_file(d, "db/CURRENT")->bytes->data, disk_file(d, "db/CURRENT")->size, id, &manifest));
    seed = kvi_lsm_seed(id, strtoull(strrchr(table, '/') + 1, NULL, 10), KVI_LSM_TABLE) + KVI_LSM_HEADER_SIZE;
    for (int kind = 0; kind < 2; kind++) {
        disk        *changed = disk_fork(d);
        size_t       size = kvi_load_le32(disk_file(d, table)->bytes->data + KVI_LSM_HEADER_SIZE + 8), at;
        uint8_t     *block = (uint8_t *)disk_file_open(changed, table, KVI_LSM_HEADER_SIZE, KVI_LSM_BLOCK_SIZE + size);
        kvi_lsm_page page;
        o.io = disk_io(changed);
        CHECK_OK(kv_lsm_check("db", &o, NULL, NULL));
        if (!CHECK(kvi_lsm_page_over(&page, block + KVI_LSM_BLOCK_SIZE, size) && page.heads && page.bucket_bits)) return;
        at = (size_t)((kind ? page.buckets : page.heads) - block);
        if (kind) at += kvi_lsm_bucket(kvi_hash("key00000000", 11, kvi_load_le64(id) ^ kvi_load_le64(id + 8)), page.bucket_bits);     /* the first key's */
        block[at] = (uint8_t)(kind ? 0 : block[at] ^ 1);
        kvi_store_le32(block + 4, kvi_checksum(block + KVI_LSM_BLOCK_SIZE, size, seed));
        kvi_store_le32(block, kvi_checksum(block + 4, KVI_LSM_BLOCK_SIZE - 4, seed));
        CHECK_STATUS(kv_lsm_check("db", &o, NULL, NULL), KV_ERR_CORRUPT);
        CHECK_OK(kv_lsm_repair("db", &o, NULL, NULL));
        CHECK_OK(kv_lsm_check("db", &o, NULL, NULL));
        db = must_open(&o);
        for (uint64_t i = 0; i < 20; i++) value_is(db, number_key(i), "v");
        CHECK_OK(kv_lsm_close(db));
        disk_free(changed);
    }
    disk_free(d);
}
/* Entries out of order, which nobody verified, made a merge write past its buffers: a prefix of the first
   and the last key is one of all keys only where they ascend. */
TEST(lsm_verify, unverified_damage_ends_a_merge)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db;
    char           table[256];
    size_t         ended = 0;
    d->recording = false;
    o.skip_verify = true;
    o.bloom_fp_rate = KV_NO_BLOOM;
    o.l0_trigger = 100;
    o.block_bytes = 128;
    db = must_open(&o);
    fill(db, 0, 60, "one");
    CHECK_OK(kv_lsm_flush(db));
    fill(db, 30, 90, "two");
    CHECK_OK(kv_lsm_close(db));
    CHECK(files_with(d, ".kvt", table) >= 2);
    for (size_t at = 64 + 20; at + 300 < disk_file(d, table)->size; at++) {
        disk      *damaged = disk_fork(d);
        size_t     n = 0;
        kv_status  s;
        *disk_file_open(damaged, table, at, 1) ^= (char)(at % 2 ? 0x81 : 0x10);
        o.io = disk_io(damaged);
        if (kv_lsm_open("db", &o, &db) == KV_OK) {
            (void)kv_lsm_scan(db, NULL, visit_count, &n);
            s = kv_lsm_compact(db, NULL, NULL, NULL);
            CHECK(s == KV_OK || s == KV_ERR_CORRUPT);
            if (s == KV_ERR_CORRUPT) { ended++; CHECK(files_with(damaged, table, NULL) == 1); }    /* it keeps its inputs */
            (void)kv_lsm_close(db);
        }
        disk_free(damaged);
    }
    CHECK(ended > 0);
    disk_free(d);
}
TEST(lsm_repair, one_bad_block_costs_that_block)
{
    for (int manifest = 0; manifest < 2; manifest++) {
        disk          *d = disk_new();
        kv_lsm_options o = small(d);
        kv_lsm        *db = must_open(&o);
        char           path[256];
        static told    t;
        uint64_t       n;
        memset(&t, 0, sizeof t);
        fill(db, 0, 3000, "value");
        CHECK_OK(kv_lsm_close(db));
        CHECK(files_with(d, ".kvt", path) > 1);
        disk_file_open(d, path, 700, 1)[0] ^= 1;
        if (!manifest) { disk_file_remove(d, "db/CURRENT"); while (files_with(d, "MANIFEST", path)) disk_file_remove(d, path); }
        CHECK_OK(kv_lsm_repair("db", &o, tell, &t));
        CHECK(t.errors >= 1);
        db = must_open(&o);
        n = count_all(db);
        CHECK(n < 3000 && n > 2900);
        CHECK_OK(kv_lsm_close(db));
        { char kept[8][256]; CHECK_EQ(disk_files(d, "db/lost", kept, 8), 1); }     /* the damaged file is kept */
        CHECK_OK(kv_lsm_check("db", &o, NULL, NULL));
        disk_free(d);
    }
}

/* A bad sector gives EIO each time it is read: what lies in it is lost, the rest is not. */
TEST(lsm_repair, a_bad_sector_costs_what_it_holds)
{
    static const struct { const char *name; uint64_t at; uint64_t lost; } sectors[] = {
        { ".kvt", 512, 100 }, { ".log", 512, 3000 }, { "MANIFEST", 0, 0 }, { "CURRENT", 0, 0 } };
    for (size_t i = 0; i < sizeof sectors / sizeof sectors[0]; i++) {
        disk          *d = disk_new();
        kv_lsm_options o = small(d);
        kv_lsm        *db = must_open(&o);
        char           path[256];
        static told    t;
        uint64_t       n;
        test_rng       rng = test_rng_new();
        disk          *image;
        memset(&t, 0, sizeof t);
        fill(db, 0, 3000, "value");
        if (i) CHECK_OK(kv_lsm_set(db, KV_STR("behind"), KV_STR("the tables")));
        image = disk_crash(d, DISK_KEEP_ALL, &rng);
        o.io = disk_io(image);
        CHECK(files_with(image, sectors[i].name, path) > 0);
        image->bad_file = path;
        image->bad_at = sectors[i].at;
        image->bad_end = sectors[i].at + 512;
        if (!CHECK_OK(kv_lsm_repair("db", &o, tell, &t))) fprintf(stderr, "%s", t.all);
        CHECK(t.errors >= 1);
        image->bad_file = "lost/";                          /* the file lies there now, with its bad sector */
        CHECK_OK(kv_lsm_check("db", &o, NULL, NULL));
        { kv_lsm *again = must_open(&o); n = count_all(again); CHECK_OK(kv_lsm_close(again)); }
        CHECK(n <= 3001 && n + sectors[i].lost >= 3000);
        CHECK_OK(kv_lsm_close(db));
        disk_free(image);
        disk_free(d);
    }
}

/* The last edit of the manifest is gone, cut at the end of a record, so that nothing looks torn: the
   table that it named must not be lost, nor any file removed. */
TEST(lsm_repair, a_manifest_without_its_last_edits_loses_no_table)
{
    for (int cut = 1; cut <= 3; cut++) {
        disk          *d = disk_new();
        kv_lsm_options o = small(d);
        kv_lsm        *db = must_open(&o), *again;
        test_rng       rng = test_rng_new();
        disk          *image;
        char           path[256];
        uint64_t       ends[512];
        size_t         records = 0;
        kvi_lsm_scan   scan;
        static told    t;
        memset(&t, 0, sizeof t);
        fill(db, 0, 1500, "value");
        CHECK_OK(kv_lsm_flush(db));
        for (uint64_t i = 1500; i < 1503; i++) { fill(db, i, i + 1, "value"); CHECK_OK(kv_lsm_sync(db)); }
        image = disk_crash(d, DISK_KEEP_ALL, &rng);
        CHECK_OK(kvi_lsm_scan_open(&scan, db, KVI_LSM_MANIFEST, db->manifest.number));
        while (kvi_lsm_scan_next(&scan) == KV_OK && records < 512) ends[records++] = scan.at;
        kvi_lsm_scan_close(&scan);
        CHECK(records > 3);
        o.io = disk_io(image);
        CHECK_EQ(files_with(image, "MANIFEST", path), 1);
        disk_file_cut(image, path, (size_t)ends[records - 1 - (size_t)cut]);
        CHECK_STATUS(kv_lsm_open("db", &o, &again), KV_ERR_CORRUPT);
        CHECK_OK(kv_lsm_repair("db", &o, tell, &t));
        again = must_open(&o);
        if (!CHECK_EQ(count_all(again), 1503)) fprintf(stderr, "%s", t.all);
        CHECK_OK(kv_lsm_close(again));
        CHECK_OK(kv_lsm_close(db));
        disk_free(image);
        disk_free(d);
    }
}

/* What a power cut leaves of an open that was never finished is no store yet, and no damage. */
TEST(lsm_repair, a_store_that_was_never_finished_needs_none)
{
    disk          *d = disk_new(), *cursor;
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    test_rng       rng = test_rng_new();
    size_t         unfinished = 0;
    CHECK_OK(kv_lsm_close(db));
    cursor = disk_begin(d);
    for (size_t k = 0; k <= disk_op_count(d); k++)
        for (int mode = 0; mode < DISK_MODES; mode++) {
            disk     *image;
            kv_status s;
            disk_advance(cursor, d, k);
            image = disk_crash(cursor, (disk_mode)mode, &rng);
            o.io = disk_io(image);
            s = kv_lsm_check("db", &o, NULL, NULL);
            CHECK(s == KV_OK || s == KV_NOT_FOUND);
            if (s == KV_NOT_FOUND) unfinished++;
            s = kv_lsm_repair("db", &o, NULL, NULL);
            if (!CHECK(s == KV_OK || s == KV_NOT_FOUND)) fprintf(stderr, "cut after %zu operations, %s: %s\n", k, disk_mode_name(mode), kv_status_text(s));
            db = must_open(&o);
            CHECK_EQ(count_all(db), 0);
            CHECK_OK(kv_lsm_close(db));
            disk_free(image);
        }
    CHECK(unfinished > 10);
    disk_free(cursor);
    disk_free(d);
}
TEST(lsm_repair, index_filter_and_footer_cost_nothing)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    char           path[256];
    size_t         size;
    fill(db, 0, 3000, "value");
    CHECK_OK(kv_lsm_close(db));
    CHECK(files_with(d, ".kvt", path) > 1);
    size = disk_file(d, path)->size;
    disk_file_open(d, path, size - 10, 1)[0] ^= 1;
    CHECK_OK(kv_lsm_repair("db", &o, NULL, NULL));
    db = must_open(&o);
    CHECK_EQ(count_all(db), 3000);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

TEST(lsm_format, a_newer_one_is_refused)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    char           path[256], *header;
    fill(db, 0, 10, "value");
    CHECK_OK(kv_lsm_close(db));
    CHECK(files_with(d, "MANIFEST", path) == 1);
    header = disk_file_open(d, path, 0, 64);
    kvi_store_le32(header + 8, KVI_LSM_FORMAT + 1);
    kvi_store_le64(header + 56, kvi_hash(header, 56, 0));
    CHECK_STATUS(kv_lsm_open("db", &o, &db), KV_ERR_VERSION);
    disk_free(d);
}

TEST(lsm_files, unknown_ones_are_left_alone)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o);
    disk_file_set(d, "db/notes.txt", "mine", 4);
    disk_file_set(d, "db/12.log", "not a name of ours", 18);
    fill(db, 0, 3000, "value");
    CHECK_OK(kv_lsm_close(db));
    db = must_open(&o);
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    CHECK_OK(kv_lsm_close(db));
    CHECK(disk_file(d, "db/notes.txt") != NULL);
    CHECK(disk_file(d, "db/12.log") != NULL);
    CHECK_EQ(files_with(d, "MANIFEST", NULL), 1);
    CHECK_EQ(files_with(d, ".log", NULL), 2);
    disk_free(d);
}

/* ---- checkpoint, ingest, locate ---- */

TEST(lsm_checkpoint, opens_by_itself_and_stays_as_it_was)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o), *copy;
    fill(db, 0, 2000, "then");
    CHECK_OK(kv_lsm_checkpoint(db, "copy"));
    CHECK_STATUS(kv_lsm_checkpoint(db, "copy"), KV_EXISTS);
    fill(db, 0, 3000, "now");
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    CHECK_OK(kv_lsm_open("copy", &o, &copy));
    CHECK_EQ(count_all(copy), 2000);
    CHECK(value_is(copy, number_key(1234), "then"));
    fill(copy, 2000, 2100, "of its own");
    CHECK_OK(kv_lsm_close(copy));
    CHECK_EQ(count_all(db), 3000);
    CHECK_OK(kv_lsm_close(db));
    CHECK_OK(kv_lsm_check("copy", &o, NULL, NULL));
    CHECK_OK(kv_lsm_check("db", &o, NULL, NULL));
    disk_free(d);
}

TEST(lsm_checkpoint, of_a_read_only_store_has_its_logs)
{
    disk          *d = disk_new(), *cut;
    kv_lsm_options o = small(d);
    kv_lsm        *db = must_open(&o), *copy;
    test_rng       rng = test_rng_new();
    fill(db, 0, 300, "flushed");
    CHECK_OK(kv_lsm_flush(db));
    fill(db, 300, 350, "in the log");
    CHECK_OK(kv_lsm_delete(db, number_key(7)));
    cut = disk_crash(d, DISK_KEEP_ALL, &rng);           /* as after kill -9 */
    CHECK_OK(kv_lsm_close(db));
    o.io = disk_io(cut);
    o.read_only = true;
    db = must_open(&o);
    CHECK_OK(kv_lsm_checkpoint(db, "copy"));
    CHECK_EQ(count_all(db), 349);
    CHECK_OK(kv_lsm_close(db));
    o.read_only = false;
    CHECK_OK(kv_lsm_check("copy", &o, NULL, NULL));
    CHECK_OK(kv_lsm_open("copy", &o, &copy));
    CHECK_EQ(count_all(copy), 349);
    CHECK(value_is(copy, number_key(320), "in the log"));
    CHECK(value_is(copy, number_key(7), NULL));
    fill(copy, 320, 321, "of its own");
    CHECK(value_is(copy, number_key(320), "of its own"));
    CHECK_OK(kv_lsm_close(copy));
    db = must_open(&o);
    CHECK_EQ(count_all(db), 349);
    CHECK_OK(kv_lsm_close(db));
    CHECK_EQ(disk_open_count(cut), 0);
    disk_free(cut);
    disk_free(d);
}

TEST(lsm_ingest, is_newer_and_all_at_once)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d), o2 = small(d);
    kv_lsm        *db = must_open(&o), *from;
    kv_iter       *i;
    kv_range       back;
    kv_snapshot   *before;
    kv_buf         v;
    memset(&v, 0, sizeof v);
    memset(&back, 0, sizeof back);
    CHECK_OK(kv_lsm_open("from", &o2, &from));
    fill(from, 500, 2500, "ingested");
    fill(db, 0, 1000, "old");
    CHECK_OK(kv_lsm_snapshot(db, &before));
    CHECK_OK(kv_lsm_iter_open(from, NULL, NULL, &i));
    CHECK_OK(kv_lsm_ingest(db, i));
    CHECK_EQ(count_all(db), 2500);
    CHECK(value_is(db, number_key(499), "old"));
    CHECK(value_is(db, number_key(500), "ingested"));
    CHECK_OK(kv_lsm_get_at(db, before, number_key(500), &v));
    CHECK_BYTES(kv_buf_slice(&v), KV_STR("old"));
    kv_lsm_snapshot_release(db, before);
    fill(db, 600, 601, "newest");
    CHECK(value_is(db, number_key(600), "newest"));
    CHECK_OK(kv_lsm_ingest(db, i));                                     /* from its first entry again */
    CHECK(value_is(db, number_key(600), "ingested"));
    kv_iter_close(i);
    back.reverse = true;
    CHECK_OK(kv_lsm_iter_open(from, NULL, &back, &i));
    CHECK_STATUS(kv_lsm_ingest(db, i), KV_ERR_ORDER);
    kv_iter_close(i);
    back.reverse = false;
    back.prefix = KV_STR("nothing");
    CHECK_OK(kv_lsm_iter_open(from, NULL, &back, &i));
    CHECK_OK(kv_lsm_ingest(db, i));
    kv_iter_close(i);
    CHECK_OK(kv_lsm_close(from));
    CHECK_OK(kv_lsm_close(db));
    db = must_open(&o);
    CHECK_EQ(count_all(db), 2500);
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    CHECK_EQ(count_all(db), 2500);
    kv_buf_free(&v);
    CHECK_OK(kv_lsm_close(db));
    CHECK_OK(kv_lsm_check("db", &o, NULL, NULL));
    disk_free(d);
}

TEST(lsm_ingest, into_a_gap_that_a_merge_is_about_to_close)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d), o2 = small(d);
    kv_lsm        *db, *from;
    kv_iter       *i;
    o.l0_trigger = 2;
    o.table_bytes = 1u << 20;                           /* one table: it spans the gap */
    db = must_open(&o);
    CHECK_OK(kv_lsm_open("from", &o2, &from));
    fill(from, 500, 510, "ingested");
    for (int round = 0; round < 2; round++) {           /* two tables of level 0 that overlap, both without 400 .. 600 */
        fill(db, 0, 20, "old");
        CHECK_OK(kv_lsm_flush(db));
        fill(db, 900, 920, "old");
        CHECK_OK(kv_lsm_flush(db));
    }
    CHECK_OK(kv_lsm_step(db));                          /* the merge has begun */
    CHECK_EQ(stats_of(db).compactions, 0);
    CHECK_OK(kv_lsm_iter_open(from, NULL, NULL, &i));
    CHECK_OK(kv_lsm_ingest(db, i));
    kv_iter_close(i);
    while (kv_lsm_step(db) == KV_OK) {}
    CHECK(stats_of(db).compactions > 0);
    for (uint64_t k = 500; k < 510; k++) CHECK(value_is(db, number_key(k), "ingested"));
    CHECK(value_is(db, number_key(910), "old"));
    CHECK_EQ(count_all(db), 50);
    CHECK_OK(kv_lsm_close(db));
    db = must_open(&o);
    CHECK_EQ(count_all(db), 50);
    CHECK_OK(kv_lsm_close(db));
    CHECK_OK(kv_lsm_close(from));
    disk_free(d);
}

TEST(lsm_locate, memtable_or_level)
{
    disk           *d = disk_new();
    kv_lsm_options  o = small(d);
    kv_lsm         *db = must_open(&o);
    kv_lsm_location where;
    CHECK_OK(kv_lsm_set(db, KV_STR("a"), KV_STR("1")));
    CHECK_OK(kv_lsm_locate(db, KV_STR("a"), &where));
    CHECK(where.memtable);
    CHECK_EQ(where.level, -1);
    CHECK_OK(kv_lsm_flush(db));
    CHECK_OK(kv_lsm_locate(db, KV_STR("a"), &where));
    CHECK(!where.memtable);
    CHECK_EQ(where.level, 0);
    CHECK(where.table > 0);
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    CHECK_OK(kv_lsm_locate(db, KV_STR("a"), &where));
    CHECK_EQ(where.level, 1);
    CHECK_OK(kv_lsm_delete(db, KV_STR("a")));
    CHECK_STATUS(kv_lsm_locate(db, KV_STR("a"), &where), KV_NOT_FOUND);
    CHECK_STATUS(kv_lsm_locate(db, KV_STR("b"), &where), KV_NOT_FOUND);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

/* ---- level 0 while writes come fast ---- */

/* With the clock stopped, every memtable was filled "just now" until the test says that time went by. */
static void stop_clock(void) { kvi_store_u64(&stopped_ms, kvi_now_ms() + 1); }
static TEST_UNUSED void pass_ms(uint64_t ms) { kvi_store_u64(&stopped_ms, kvi_load_u64(&stopped_ms) + ms); }
static void start_clock(void) { kvi_store_u64(&stopped_ms, 0); }

static kv_lsm_options level_0_options(disk *d)      /* one flush is one table; level 1 is never too large */
{
    kv_lsm_options o = small(d);
    o.table_bytes = 1u << 20;
    o.memtable_bytes = 64u << 10;
    o.l1_bytes = 64u << 20;
    o.l0_trigger = 3;
    return o;
}
static const char *round_value(uint64_t n, char out[32]) { snprintf(out, 32, "of round %" PRIu64, n); return out; }
/* One more table in level 0, over all keys: 40 keys each round writes anew, and one that only it has. */
static void level_0_round(kv_lsm *db, uint64_t n)
{
    char text[32];
    fill(db, 0, 40, round_value(n, text));
    fill(db, 1000 + n, 1001 + n, text);
    CHECK_OK(kv_lsm_flush(db));
}
static void level_0_reads(kv_lsm *db, uint64_t last)
{
    char text[32];
    for (uint64_t i = 0; i < 40; i += 13) CHECK(value_is(db, number_key(i), round_value(last, text)));
    for (uint64_t n = 0; n <= last; n++) CHECK(value_is(db, number_key(1000 + n), round_value(n, text)));
    CHECK(value_is(db, number_key(1001 + last), NULL));
    CHECK_EQ(count_all(db), 41 + last);
}
static void step_all(kv_lsm *db)                    /* beside the thread: what it might have done is done after this */
{
    kv_status s = KV_OK;
    while (s == KV_OK) s = kv_lsm_step(db);
    CHECK_STATUS(s, KV_END);
}
static uint64_t level_0_tables(kv_lsm *db) { return stats_of(db).levels[0].tables; }

TEST(lsm_level_0, without_a_thread_merges_at_its_trigger)
{
    disk          *d = disk_new();
    kv_lsm_options o = level_0_options(d);
    kv_lsm        *db;
    d->recording = false;
    stop_clock();
    db = must_open(&o);
    for (uint64_t n = 0; n < 12; n++) {
        level_0_round(db, n);
        step_all(db);
        CHECK_EQ(level_0_tables(db), (n + 1) % o.l0_trigger);
        CHECK_EQ(stats_of(db).compactions, (n + 1) / o.l0_trigger);
        level_0_reads(db, n);
    }
    CHECK_OK(kv_lsm_close(db));
    start_clock();
    disk_free(d);
}
TEST(lsm_level_0, with_a_thread_collects_three_times_as_many_while_writes_come_fast)
{
#if KVI_THREADS
    disk          *d = disk_new();
    kv_lsm_options o = level_0_options(d);
    kv_lsm        *db;
    uint64_t       most = o.l0_trigger * KVI_LSM_BUSY_TIMES, n = 0;
    CHECK_EQ(KVI_LSM_BUSY_TIMES, 3);
    d->recording = false;
    o.no_background = false;
    stop_clock();
    db = must_open(&o);
    for (int burst = 0; burst < 3; burst++) {
        for (uint64_t tables = 1; tables <= most; tables++) {
            level_0_round(db, n);
            step_all(db);
            CHECK_EQ(level_0_tables(db), tables == most ? 0 : tables);
            level_0_reads(db, n++);
        }
        CHECK_EQ(stats_of(db).compactions, 2 * burst + 1);
        for (uint64_t tables = 1; tables <= o.l0_trigger + 1; tables++) level_0_round(db, n++);      /* some are left when the writer stops */
        pass_ms(KVI_LSM_BUSY_MS - 1);
        step_all(db);
        CHECK_EQ(level_0_tables(db), o.l0_trigger + 1);
        pass_ms(1);
        for (int i = 0; i < 60000 && level_0_tables(db); i++) kvi_sleep_ms(1);      /* nobody calls: the thread looks again by itself */
        CHECK_EQ(level_0_tables(db), 0);
        step_all(db);
        CHECK_EQ(stats_of(db).compactions, 2 * burst + 2);
        level_0_reads(db, n - 1);
    }
    CHECK_OK(kv_lsm_close(db));
    start_clock();
    disk_free(d);
#else
    TEST_SKIP("no threads here");
#endif
}
TEST(lsm_level_0, a_burst_stays_below_the_stop_reads_right_and_is_merged_after)
{
#if KVI_THREADS
    enum { KEYS = 500, WRITES = 40000 };
    static uint32_t written[KEYS];                  /* how often; the value tells it */
    disk          *d = disk_new();
    kv_lsm_options o = level_0_options(d);
    test_rng       rng = test_rng_new();
    kv_lsm        *db;
    uint64_t       most = 0, keys = 0;
    char           text[120];
    d->recording = false;
    memset(written, 0, sizeof written);
    o.no_background = false;
    o.memtable_bytes = 16384;
    o.l0_trigger = 2;
    o.sync = KV_SYNC_NONE;
    db = must_open(&o);
    for (size_t i = 0, n = test_scaled(WRITES); i < n; i++) {
        uint64_t k = test_below(&rng, KEYS), tables;
        snprintf(text, sizeof text, "%090u", ++written[k]);
        if (!CHECK_OK(kv_lsm_set(db, number_key(k), kv_cstr(text)))) break;
        if (i % 16) continue;
        k = test_below(&rng, KEYS);
        snprintf(text, sizeof text, "%090u", written[k]);
        if (!CHECK(value_is(db, number_key(k), written[k] ? text : NULL))) break;
        tables = level_0_tables(db);
        if (tables > most) most = tables;
    }
    CHECK(most <= (uint64_t)o.l0_trigger * KVI_LSM_STOP_TIMES + KVI_LSM_FROZEN_MAX);
    for (int i = 0; i < 60000 && (stats_of(db).frozen_memtables || level_0_tables(db) >= o.l0_trigger); i++) kvi_sleep_ms(1);
    CHECK(level_0_tables(db) < o.l0_trigger);
    for (uint64_t k = 0; k < KEYS; k++) {
        snprintf(text, sizeof text, "%090u", written[k]);
        CHECK(value_is(db, number_key(k), written[k] ? text : NULL));
        keys += written[k] != 0;
    }
    CHECK_EQ(count_all(db), keys);
    CHECK_OK(kv_lsm_close(db));
    CHECK_OK(kv_lsm_check("db", &o, NULL, NULL));
    disk_free(d);
#else
    TEST_SKIP("no threads here");
#endif
}

/* ---- the block cache ---- */

enum { CACHE_KEYS = 4000, CACHE_VALUE = 600, CACHE_HOT = 100 };     /* a value is larger than a block: a block for each key */
static const char *cache_value(uint64_t n)
{
    static char value[CACHE_VALUE + 1];
    snprintf(value, sizeof value, "%0*" PRIu64, CACHE_VALUE, n * n);
    return value;
}
/* Every key in one level, so that a read looks at one block; a cache with room for about a tenth. */
static kv_lsm *cache_store(disk *d, kv_codec codec)
{
    kv_lsm_options o = small(d);
    kv_lsm        *db;
    d->recording = false;
    o.cache_bytes = 320u << 10;
    o.codec = codec;
    o.table_bytes = 1u << 20;
    o.l1_bytes = 64u << 20;
    db = must_open(&o);
    for (uint64_t i = 0; i < CACHE_KEYS; i++) CHECK_OK(kv_lsm_set(db, number_key(i), kv_cstr(cache_value(i))));
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    CHECK_OK(kv_lsm_close(db));
    return must_open(&o);                           /* with an empty cache */
}
/* Read key n; was its block in the cache? */
static bool cache_read(kv_lsm *db, uint64_t n)
{
    kv_lsm_stats_t before = stats_of(db), after;
    CHECK(value_is(db, number_key(n), cache_value(n)));
    after = stats_of(db);
    CHECK_EQ(after.cache_hits + after.cache_misses, before.cache_hits + before.cache_misses + 1);
    CHECK(after.cache_bytes <= kv_lsm_get_options(db)->cache_bytes);
    return after.cache_hits > before.cache_hits;
}
static uint64_t hot_key(uint64_t i) { return i * 37 % CACHE_KEYS; }
static bool is_hot(uint64_t n) { for (uint64_t i = 0; i < CACHE_HOT; i++) if (hot_key(i) == n) return true; return false; }

/* The hot blocks fill a third of the cache, what is read once would fill it ten times between two reads
   of them: where all went in, none of them would ever be found. A cold block is let in by mistake only
   where its mark outlived the marks of all others that share its place, some sixteen a sweep. */
TEST(lsm_cache, what_is_read_once_does_not_drive_out_what_is_read_again)
{
    disk    *d = disk_new();
    kv_lsm  *db = cache_store(d, KV_CODEC_NONE);
    uint64_t hits = 0, full;
    for (uint64_t i = 0; i < CACHE_HOT; i++) CHECK(!cache_read(db, hot_key(i)));
    for (uint64_t i = 0; i < CACHE_HOT; i++) CHECK(cache_read(db, hot_key(i)));      /* there was room */
    for (int round = 0; round < 3; round++) {
        for (uint64_t n = 0; n < CACHE_KEYS; n++) if (!is_hot(n)) (void)cache_read(db, n);
        for (uint64_t i = 0; i < CACHE_HOT; i++) hits += cache_read(db, hot_key(i));
    }
    if (!CHECK(hits >= 3 * CACHE_HOT * 9 / 10)) fprintf(stderr, "%" PRIu64 " hits of %d\n", hits, 3 * CACHE_HOT);
    full = stats_of(db).cache_bytes;
    CHECK(full > kv_lsm_get_options(db)->cache_bytes / 2);
    { uint64_t n = 0; CHECK_OK(kv_lsm_count(db, NULL, &n)); CHECK_EQ(n, CACHE_KEYS); }       /* a scan is no different */
    for (uint64_t i = 0; i < CACHE_HOT; i++) hits += cache_read(db, hot_key(i));
    CHECK(hits >= 4 * CACHE_HOT * 9 / 10);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}
/* A full cache: how many of the blocks read for the first time in long are found at their second and third read? */
static void cache_admission(kv_lsm *db, uint64_t *cold, uint64_t *second, uint64_t *third)
{
    *cold = *second = *third = 0;
    for (uint64_t n = 0; n < CACHE_KEYS; n++) (void)cache_read(db, n);
    for (uint64_t n = 0; n < CACHE_KEYS / 2; n += 7) {
        if (cache_read(db, n)) continue;            /* the sweep filled the cache with it */
        ++*cold;
        *second += cache_read(db, n);
        *third += cache_read(db, n);
    }
}
TEST(lsm_cache, a_full_one_takes_a_block_in_when_it_is_missed_again)
{
    disk    *d = disk_new();
    kv_lsm  *db = cache_store(d, KV_CODEC_NONE);
    uint64_t cold, second, third;
    cache_admission(db, &cold, &second, &third);
    CHECK(cold >= 200);
    if (!CHECK(second <= cold / 20 && third >= cold - cold / 20)) fprintf(stderr, "%" PRIu64 " cold, found then %" PRIu64 ", %" PRIu64 "\n", cold, second, third);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}
TEST(lsm_cache, a_block_that_was_unpacked_goes_in_at_once)
{
    disk    *d;
    kv_lsm  *db;
    uint64_t cold, second, third;
    if (!kv_codec_supported(KV_CODEC_LZ4)) { TEST_SKIP("LZ4 is not here"); return; }
    d = disk_new();
    db = cache_store(d, KV_CODEC_LZ4);
    cache_admission(db, &cold, &second, &third);
    CHECK(cold >= 200);
    CHECK_EQ(second, cold);
    CHECK_EQ(third, cold);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

/* Blocks in the cache; *plain: how many of them have no buckets, so that every key is searched for. */
static uint64_t cache_blocks(kv_lsm *db, uint64_t *plain)
{
    uint64_t count = 0;
    *plain = 0;
    for (uint32_t i = 0; db->shards && i < KVI_LSM_SHARDS; i++) {
        const kvi_lsm_block *b = db->shards[i].hand;
        for (size_t k = 0; k < db->shards[i].count; k++, b = b->clock_next) {
            bool none = true;
            for (uint32_t n = 0; b->page.bucket_bits && n < 1u << b->page.bucket_bits; n++) if (b->page.buckets[n] != 255) none = false;
            *plain += none;
            count++;
        }
    }
    return count;
}
/* A sweep reads every block's keys one behind the other: each block is missed once. */
TEST(lsm_cache, a_packed_block_has_buckets_where_there_is_room_or_it_was_missed_before)
{
    disk          *d;
    kv_lsm        *db;
    kv_lsm_options o;
    uint64_t       count, plain;
    bool           stays = true;
    if (!kv_codec_supported(KV_CODEC_LZ4)) { TEST_SKIP("LZ4 is not here"); return; }
    if (!KVI_LSM_CACHE || !KVI_LSM_QUICK) { TEST_SKIP("no cache or no buckets here"); return; }
    d = disk_new();
    o = small(d);
    d->recording = false;
    o.cache_bytes = 320u << 10;
    o.codec = KV_CODEC_LZ4;
    db = must_open(&o);
    for (uint64_t i = 0; i < 8 * CACHE_KEYS; i++) CHECK_OK(kv_lsm_set(db, number_key(i * 2), kv_cstr(cache_value(i) + CACHE_VALUE - 40)));
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    CHECK_OK(kv_lsm_close(db));
    db = must_open(&o);
    for (uint64_t i = 0; i < 8; i++) CHECK(value_is(db, number_key(i * CACHE_KEYS * 2), cache_value(i * CACHE_KEYS) + CACHE_VALUE - 40));
    count = cache_blocks(db, &plain);
    CHECK(count >= 8);
    CHECK_EQ(plain, 0);
    for (uint64_t i = 0; i < 8 * CACHE_KEYS; i++) {
        CHECK(value_is(db, number_key(i * 2), cache_value(i) + CACHE_VALUE - 40));
        CHECK(value_is(db, number_key(i * 2 + 1), NULL));
    }
    count = cache_blocks(db, &plain);
    CHECK(count >= 64);
    if (!CHECK(plain > count / 2)) fprintf(stderr, "%" PRIu64 " of %" PRIu64 " blocks without buckets\n", plain, count);
    CHECK(!kvi_lsm_cache_find(db, 0, 4711, &stays));        /* no table has this number */
    CHECK(!stays);
    CHECK(!kvi_lsm_cache_find(db, 0, 4711, &stays));
    CHECK(stays);
    CHECK_OK(kv_lsm_close(db));
    o.cache_bytes = KV_NONE;                        /* no cache: neither heads nor buckets are worth their making */
    db = must_open(&o);
    for (uint64_t i = 0; i < 8 * CACHE_KEYS; i += 17) {
        CHECK(value_is(db, number_key(i * 2), cache_value(i) + CACHE_VALUE - 40));
        CHECK(value_is(db, number_key(i * 2 + 1), NULL));
    }
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

/* ---- real files ---- */

#if KVI_FILES
TEST(lsm_files, on_the_files_of_this_system)
{
    char           path[600], copy[600];
    kv_lsm        *db, *other;
    kv_lsm_options o;
    memset(&o, 0, sizeof o);
    o.memtable_bytes = 16384;
    o.block_bytes = 1024;
    o.table_bytes = 16384;
    o.l1_bytes = 65536;
    o.codec = KV_CODEC_NONE;
    snprintf(path, sizeof path, "%s", test_path("store"));
    snprintf(copy, sizeof copy, "%s", test_path("copy"));
    for (uint64_t round = 0; round < 3; round++) {          /* with a thread behind, where there are threads */
        char value[40];
        o.no_background = KVI_THREADS ? round == 1 : true;
        if (!CHECK_OK(kv_lsm_open(path, &o, &db))) return;
        CHECK_EQ(count_all(db), round ? 2000 : 0);
        if (!KVI_OS_WASI) CHECK_STATUS(kv_lsm_open(path, &o, &other), KV_ERR_BUSY);
        snprintf(value, sizeof value, "value %d", (int)round);
        fill(db, 0, 2000, value);
        if (round == 1) CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
        for (uint64_t i = 0; i < 2000; i += 97) CHECK(value_is(db, number_key(i), value));
        if (round == 2) CHECK_OK(kv_lsm_checkpoint(db, copy));
        CHECK_OK(kv_lsm_close(db));
        CHECK_OK(kv_lsm_check(path, NULL, NULL, NULL));
    }
    if (!CHECK_OK(kv_lsm_open(copy, &o, &db))) return;
    CHECK_EQ(count_all(db), 2000);
    CHECK(value_is(db, number_key(1999), "value 2"));
    CHECK_OK(kv_lsm_close(db));
    CHECK_OK(kv_lsm_repair(path, NULL, NULL, NULL));
    CHECK_OK(kv_lsm_open(path, &o, &db));
    CHECK_EQ(count_all(db), 2000);
    CHECK_OK(kv_lsm_close(db));
}
#endif

#if KVI_OS_POSIX
static void remove_store(const char *path)
{
    char command[400];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    if (system(command) != 0) fprintf(stderr, "cannot remove %s\n", path);
}
TEST(lsm_files, modes_names_and_a_second_opener)
{
    char        path[] = "/tmp/kv_lsm_unit_XXXXXX", file[300];
    struct stat info;
    kv_lsm     *db, *other;
    kv_lsm_options o;
    memset(&o, 0, sizeof o);
    o.error_text = open_text;
    o.error_text_size = sizeof open_text;
    if (!CHECK(mkdtemp(path) != NULL)) return;
    snprintf(file, sizeof file, "%s/store", path);
    CHECK_OK(kv_lsm_open(file, &o, &db));
    CHECK_OK(kv_lsm_set(db, KV_STR("a"), KV_STR("b")));
    CHECK_EQ(stat(file, &info), 0);
    CHECK_EQ(info.st_mode & 0777, 0700);
    snprintf(file, sizeof file, "%s/store/CURRENT", path);
    CHECK_EQ(stat(file, &info), 0);
    CHECK_EQ(info.st_mode & 0777, 0600);
    snprintf(file, sizeof file, "%s/store", path);
    CHECK_STATUS(kv_lsm_open(file, &o, &other), KV_ERR_BUSY);
    { char pid[30]; snprintf(pid, sizeof pid, "%d", (int)getpid()); CHECK(strstr(open_text, pid) != NULL); }
    CHECK_OK(kv_lsm_close(db));
    CHECK_OK(kv_lsm_open(file, &o, &db));
    CHECK(value_is(db, KV_STR("a"), "b"));
    CHECK_OK(kv_lsm_close(db));
    remove_store(path);
}
TEST(lsm_fork, the_child_is_refused)
{
    char    path[] = "/tmp/kv_lsm_unit_XXXXXX", file[300];
    kv_lsm *db;
    pid_t   child;
    int     result = 1;
    if (!CHECK(mkdtemp(path) != NULL)) return;
    snprintf(file, sizeof file, "%s/store", path);
    CHECK_OK(kv_lsm_open(file, NULL, &db));
    CHECK_OK(kv_lsm_set(db, KV_STR("a"), KV_STR("b")));
    child = fork();
    if (child == 0) {
        kv_buf v;
        bool   ok;
        memset(&v, 0, sizeof v);
        ok = kv_lsm_set(db, KV_STR("x"), KV_STR("y")) == KV_ERR_INVALID && kv_lsm_get(db, KV_STR("a"), &v) == KV_ERR_INVALID
          && kv_lsm_flush(db) == KV_ERR_INVALID && kv_lsm_sync(db) == KV_ERR_INVALID;
        ok = kv_lsm_close(db) == KV_OK && ok;
        _exit(ok ? 0 : 1);
    }
    CHECK(waitpid(child, &result, 0) == child);
    CHECK_EQ(result, 0);
    CHECK_OK(kv_lsm_set(db, KV_STR("c"), KV_STR("d")));
    { kv_lsm *other; CHECK_STATUS(kv_lsm_open(file, NULL, &other), KV_ERR_BUSY); }     /* the lock is still ours */
    CHECK_OK(kv_lsm_close(db));
    CHECK_OK(kv_lsm_open(file, NULL, &db));
    CHECK(value_is(db, KV_STR("c"), "d"));
    CHECK_OK(kv_lsm_close(db));
    remove_store(path);
}

#endif

/* ---- golden files: a store of format 1, with every codec, tombstones, and a log that was not closed ---- */

static void golden_path(char out[400])          /* beside this file, wherever the test is run from */
{
    const char *slash = strrchr(__FILE__, '/');
    snprintf(out, 400, "%.*s../golden/lsm-1", slash ? (int)(slash + 1 - __FILE__) : 0, __FILE__);
}
static void golden_key(uint64_t n, char out[32]) { snprintf(out, 32, "golden/%s/%05" PRIu64, n % 3 ? "odd" : "even", n); }
static const char *golden_value(uint64_t n, char out[64])
{
    snprintf(out, 64, "value %" PRIu64 " of the golden store, %s", n, n % 5 ? "as written" : "x");
    return out;
}
static bool golden_deleted(uint64_t n) { return n % 11 == 0; }
typedef struct golden_list { char names[64][64]; size_t count; } golden_list;
enum { GOLDEN_FLUSHED = 600, GOLDEN_ALL = 700 };

#if KVI_OS_POSIX
/* KV_LSM_GOLDEN=directory: write the store there, to be committed when a format is released. */
static void golden_write(const char *path)
{
    kv_lsm_options o;
    kv_lsm        *db;
    char           key[32], value[64];
    memset(&o, 0, sizeof o);
    o.block_bytes = 1024;
    o.no_background = true;
    for (int codec = KV_CODEC_NONE; codec <= KV_CODEC_ZSTD; codec++) {
        o.codec = (kv_codec)codec;
        if (!CHECK_OK(kv_lsm_open(path, &o, &db))) return;
        for (uint64_t n = (uint64_t)(codec - 1) * 200; n < (uint64_t)codec * 200; n++) { golden_key(n, key); CHECK_OK(kv_lsm_set(db, kv_cstr(key), kv_cstr(golden_value(n, value)))); }
        if (codec == KV_CODEC_LZ4) CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
        if (codec < KV_CODEC_ZSTD) CHECK_OK(kv_lsm_close(db));
    }
    CHECK_OK(kv_lsm_flush(db));
    for (uint64_t n = 0; n < GOLDEN_ALL; n++) {
        golden_key(n, key);
        if (n >= GOLDEN_FLUSHED) CHECK_OK(kv_lsm_set(db, kv_cstr(key), kv_cstr(golden_value(n, value))));
        if (golden_deleted(n)) CHECK_OK(kv_lsm_delete(db, kv_cstr(key)));
    }
    CHECK_OK(kv_lsm_sync(db));
    printf("copy %s now and remove its LOCK: the store is still open\n", path);
    { char command[900]; snprintf(command, sizeof command, "cp -r '%s' '%s.copy' && rm -f '%s.copy/LOCK'", path, path, path); if (system(command) != 0) CHECK(!"copied"); }
    CHECK_OK(kv_lsm_close(db));
}
#endif
static bool golden_is(kv_lsm *db)
{
    char     key[32], value[64];
    uint64_t n, live = 0;
    for (n = 0; n < GOLDEN_ALL; n++) {
        golden_key(n, key);
        if (!value_is(db, kv_cstr(key), golden_deleted(n) ? NULL : golden_value(n, value))) return false;
        if (!golden_deleted(n)) live++;
    }
    return CHECK_EQ(count_all(db), live);
}
static void golden_name(void *context, const char *name)
{
    golden_list *l = (golden_list *)context;
    if (l->count < 64) snprintf(l->names[l->count++], 64, "%.60s", name);
}
static void golden_load(disk *d, const char *path)      /* every file of a directory into the disk in memory */
{
    const kv_io *io = kv_io_default();
    kv_io        memory = *disk_io(d);
    static golden_list list;
    list.count = 0;
    (void)memory.make_dir(memory.user, "db");
    CHECK_OK(io->list(io->user, path, golden_name, &list));
    for (size_t i = 0; i < list.count; i++) {
        char     from[500], to[100];
        kv_file *file;
        uint64_t size = 0;
        size_t   got;
        char    *bytes;
        snprintf(from, sizeof from, "%s/%s", path, list.names[i]);
        snprintf(to, sizeof to, "db/%s", list.names[i]);
        if (!CHECK_OK(io->open(io->user, from, 0, &file)) || !CHECK_OK(io->size(io->user, file, &size))) return;
        bytes = (char *)malloc((size_t)size + 1);
        CHECK_OK(io->read_at(io->user, file, 0, bytes, (size_t)size, &got));
        disk_file_set(d, to, bytes, got);
        free(bytes);
        CHECK_OK(io->close(io->user, file));
    }
}
TEST(lsm_golden, a_store_of_format_1_opens_reads_and_is_upgraded)
{
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db;
    char           path[400];
#if KVI_OS_POSIX
    if (getenv("KV_LSM_GOLDEN")) { golden_write(getenv("KV_LSM_GOLDEN")); disk_free(d); return; }
#endif
#if defined(KV_NO_LZ4) || defined(KV_NO_ZSTD)
    { disk_free(d); TEST_SKIP("its blocks are packed by LZ4 and ZSTD, and one of them is not here"); return; }
#endif
    golden_path(path);
    golden_load(d, path);
    CHECK_OK(kv_lsm_check("db", &o, NULL, NULL));
    o.read_only = true;
    db = must_open(&o);
    (void)golden_is(db);
    CHECK_OK(kv_lsm_close(db));
    o.read_only = false;
    db = must_open(&o);
    (void)golden_is(db);
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    (void)golden_is(db);
    CHECK_OK(kv_lsm_close(db));
    CHECK_OK(kv_lsm_check("db", &o, NULL, NULL));
    disk_free(d);
}

/* i386 puts a uint64_t at any multiple of 4: across a cache line it was not atomic, and a sum of bytes written
   took so long, where the kernel watches for locks of the bus, that a flush did not end. */
TEST(lsm_memory, shared_64_bit_members_do_not_cross_lines)
{
    const struct kv_lsm *db = NULL;
    CHECK_EQ(offsetof(struct kv_lsm, visible) % 8, 0);
    CHECK_EQ(offsetof(struct kv_lsm, next_number) % 8, 0);
    CHECK_EQ(offsetof(struct kv_lsm, durable_log) % 8, 0);
    CHECK_EQ(offsetof(struct kv_lsm, written) % 8, 0);
    CHECK_EQ(offsetof(struct kv_lsm, syncs) % 8, 0);
    CHECK_EQ(offsetof(struct kv_lsm, level_written) % 8, 0);
    CHECK_EQ(offsetof(kvi_lsm_memtable, count) % 8, 0);
    CHECK_EQ(offsetof(kvi_lsm_log, size) % 8, 0);
    CHECK_EQ((sizeof(kvi_lsm_entry) | (KVI_LSM_QUICK ? sizeof(kvi_lsm_link) : 0) | sizeof(db->level_read[0])) % 8, 0);
}
/* Beside the caller's copy, in values; see LIMITS. */
TEST(lsm_memory, a_large_value_takes_as_often_its_size_as_the_limits_say)
{
    enum { SIZE = 48 << 20, SLACK = 6 << 20 };
    static const kv_codec codecs[] = { KV_CODEC_NONE, KV_CODEC_LZ4, KV_CODEC_ZSTD };
    char *value = (char *)malloc(SIZE);
    if (!CHECK(value != NULL)) return;
    for (size_t i = 0; i < SIZE; i++) value[i] = (char)(i * 2654435761u >> 13 ^ i >> 7);
    for (size_t c = 0; c < sizeof codecs / sizeof codecs[0]; c++) {
        test_memory    m;
        disk          *d = disk_new();
        kv_lsm_options o = small(d);
        kv_lsm        *db;
        kv_iter       *i = NULL;
        kv_buf         got;
        size_t         base;
        if (!kv_codec_supported(codecs[c])) { disk_free(d); continue; }
        d->recording = false;
        memset(&m, 0, sizeof m);
        memset(&got, 0, sizeof got);
        o.allocator = got.allocator = test_allocator(&m);
        o.codec = codecs[c];
        db = must_open(&o);
        base = m.live_bytes + SLACK;
        m.peak_bytes = 0;
        CHECK_OK(kv_lsm_set(db, KV_STR("large"), kv_bytes(value, SIZE)));
        CHECK(m.peak_bytes < base + 2u * SIZE);
        m.peak_bytes = 0;
        CHECK_OK(kv_lsm_flush(db));
        CHECK(m.peak_bytes < base + 3u * SIZE);
        m.peak_bytes = 0;
        CHECK_OK(kv_lsm_get(db, KV_STR("large"), &got));
        CHECK(m.peak_bytes < base + 2u * SIZE);
        CHECK_BYTES(kv_buf_slice(&got), kv_bytes(value, SIZE));
        kv_buf_free(&got);
        m.peak_bytes = 0;
        CHECK_OK(kv_lsm_set(db, KV_STR("a"), KV_STR("small")));
        CHECK_OK(kv_lsm_set(db, KV_STR("z"), KV_STR("small")));
        CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
        CHECK(m.peak_bytes < base + 3u * SIZE);
        m.peak_bytes = 0;
        CHECK_OK(kv_lsm_iter_open(db, NULL, NULL, &i));
        for (; kv_iter_valid(i); kv_iter_next(i)) CHECK(kv_iter_value(i).size == SIZE || kv_iter_value(i).size == 5);
        CHECK_OK(kv_iter_status(i));
        kv_iter_close(i);
        CHECK(m.peak_bytes < base + 2u * SIZE);
        CHECK_OK(kv_lsm_close(db));
        CHECK_EQ(m.live_blocks, 0);
        disk_free(d);
    }
    free(value);
}
/* Gives nothing larger than a mebibyte, and remembers what was asked for. */
typedef struct modest { test_memory memory; size_t most, refused; } modest;
static void *modest_resize(void *user, void *memory, size_t old_size, size_t new_size)
{
    modest *m = (modest *)user;
    if (new_size > m->most) m->most = new_size;
    if (new_size > 1u << 20) { m->refused++; return NULL; }
    return test_memory_resize(&m->memory, memory, old_size, new_size);
}
TEST(lsm_memory, a_value_over_the_limit_is_refused_before_anything_is_copied)
{
    static const size_t over = (size_t)KV_VALUE_SIZE_MAX + 1u;
    char           bytes[16] = "not so many";       /* nobody may look at what lies behind them */
    kv_slice       largest = kv_bytes(bytes, KV_VALUE_SIZE_MAX), larger = kv_bytes(bytes, over), most = kv_bytes(bytes, SIZE_MAX), large[3];
    modest         m;
    disk          *d = disk_new();
    kv_lsm_options o = small(d);
    kv_lsm        *db;
    kv_lsm_batch  *batch;
    kv_pair        pair;
    size_t         calls;
    memset(&m, 0, sizeof m);
    o.allocator.resize = modest_resize;
    o.allocator.user = &m;
    o.cache_bytes = 64u << 10;
    CHECK_EQ(KV_VALUE_SIZE_MAX, (1u << 30) - 1);
    CHECK_OK(kv_check_value(largest));
    CHECK_STATUS(kv_check_value(larger), KV_ERR_TOO_LARGE);
    CHECK_STATUS(kv_check_value(most), KV_ERR_TOO_LARGE);
    db = must_open(&o);
    CHECK_OK(kv_lsm_set(db, KV_STR("k"), KV_STR("before")));
    CHECK_EQ(m.refused, 0);

    /* too large: no memory is asked for at all */
    large[0] = larger; large[1] = most; large[2] = larger;
    CHECK_OK(kv_lsm_batch_open(&o.allocator, &batch));
    calls = m.memory.calls;
    for (int i = 0; i < 3; i++) {
        CHECK_STATUS(kv_lsm_set(db, KV_STR("k"), large[i]), KV_ERR_TOO_LARGE);
        CHECK_STATUS(kv_set(kv_lsm_store(db), KV_STR("k"), large[i]), KV_ERR_TOO_LARGE);
        CHECK_STATUS(kv_lsm_insert(db, KV_STR("new"), large[i]), KV_ERR_TOO_LARGE);
        CHECK_STATUS(kv_lsm_compare_and_set(db, KV_STR("k"), KV_STR("before"), large[i]), KV_ERR_TOO_LARGE);
        pair.key = KV_STR("k");
        pair.value = large[i];
        CHECK_STATUS(kv_lsm_batch_set(db, &pair, 1), KV_ERR_TOO_LARGE);
        CHECK_STATUS(kv_lsm_batch_put(batch, KV_STR("k"), large[i]), KV_ERR_TOO_LARGE);
        kv_lsm_batch_clear(batch);
    }
    CHECK(m.most < 1u << 20);
    CHECK_EQ(m.refused, 0);
    CHECK(m.memory.calls <= calls + 3);             /* none of it for a value */

    /* the largest: memory for all of it is asked for first, and there is none */
    CHECK_STATUS(kv_lsm_set(db, KV_STR("k"), largest), KV_ERR_NO_MEMORY);
    CHECK(m.refused >= 1 && m.most >= KV_VALUE_SIZE_MAX);
    CHECK_STATUS(kv_lsm_batch_put(batch, KV_STR("k"), largest), KV_ERR_NO_MEMORY);
    kv_lsm_batch_close(batch);
    CHECK(value_is(db, KV_STR("k"), "before"));
    CHECK_EQ(count_all(db), 1);
    CHECK_OK(kv_lsm_set(db, KV_STR("k"), KV_STR("after")));
    CHECK_OK(kv_lsm_close(db));
    CHECK_EQ(m.memory.live_blocks, 0);
    db = must_open(&o);
    CHECK(value_is(db, KV_STR("k"), "after"));
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}
/* Every level of the skip list is the entries whose towers reach it, in order. */
static void check_towers(const kvi_lsm_memtable *m, uint64_t count)
{
    const kvi_lsm_entry *at[KVI_LSM_HEIGHT_MAX], *before = NULL;
    size_t               wrong = 0;
    for (uint32_t i = 0; i < KVI_LSM_HEIGHT_MAX; i++) at[i] = m->head;
    for (const kvi_lsm_entry *e = kvi_lsm_next(m->head, 0); e; before = e, e = kvi_lsm_next(e, 0)) {
        int order = before ? kvi_compare(kvi_lsm_entry_key(before), kvi_lsm_entry_key(e)) : -1;
        if (order > 0 || (order == 0 && before->sequence <= e->sequence)) wrong++;
        for (uint32_t i = 0; i < e->height; i++) {
            if (kvi_lsm_next(at[i], i) != e) wrong++;
            at[i] = e;
        }
        count--;
    }
    for (uint32_t i = 0; i < KVI_LSM_HEIGHT_MAX; i++) if (kvi_lsm_next(at[i], i)) wrong++;
    CHECK_EQ(wrong, 0);
    CHECK_EQ(count, 0);
}
/* Keys whose order is hard on whoever goes by their first bytes. */
static kv_slice shaped_key(test_rng *r, int shape, uint64_t i, uint64_t count, char *room)
{
    uint64_t n = test_random(r) % (count * 4);
    size_t   size;
    switch (shape) {
    case 0: snprintf(room, 100, "%016" PRIu64, n); break;
    case 1: snprintf(room, 100, "/a/path/that/many/keys/share/%" PRIu64 "/and/more/of/it/%" PRIu64, n % 40, n / 40); break;
    case 2: snprintf(room, 100, "k%" PRIu64, n % 5); break;                            /* many versions of few keys */
    case 3: snprintf(room, 100, "%08" PRIu64, i); break;
    case 4: snprintf(room, 100, "%08" PRIu64, count - i); break;
    case 5: snprintf(room, 100, "%08" PRIu64, i % 50 * 1000 + i / 50); break;          /* several loads in order, by turns */
    case 6: snprintf(room, 100, "%08" PRIu64, i < count / 3 ? i : n); break;           /* in order, until it is not */
    default:                                                                            /* zeros and 255s, of every length from 0 */
        size = (size_t)test_below(r, 20);
        for (size_t k = 0; k < size; k++) room[k] = (char)(test_one_in(r, 2) ? 255 : test_below(r, 2));
        return kv_bytes(room, size);
    }
    return kv_cstr(room);
}
TEST(lsm_memtable, keys_of_any_shape_are_in_order_with_and_without_memory_for_the_guide)
{
    const uint64_t count = 9000;
    test_rng       rng = test_rng_new();
    char           room[100];
    for (int shape = 0; shape < 8; shape++)
        for (int fail = 0; fail < 3; fail++) {
            test_memory    m;
            disk          *d = disk_new();
            kv_lsm_options o = small(d);
            kv_lsm        *db;
            uint64_t       written = 0;
            d->recording = false;
            memset(&m, 0, sizeof m);
            o.allocator = test_allocator(&m);
            o.memtable_bytes = 8u << 20;
            db = must_open(&o);
            if (fail == 1) CHECK_OK(kv_lsm_set(db, KV_STR("first"), KV_STR("v"))), written++;     /* so that what fails is a node */
            for (uint64_t i = 0; i < count; i++) {
                if (fail && i == (fail == 1 ? 1u : count / 2)) m.fail_at = m.calls + 1;
                if (kv_lsm_set(db, shaped_key(&rng, shape, i, count, room), KV_STR("v")) == KV_OK) written++;
            }
            CHECK(written + 1 >= count);
            check_towers(db->active, written);
            CHECK_OK(kv_lsm_flush(db));
            CHECK_OK(kv_lsm_set(db, KV_STR("the next"), KV_STR("v")));
            check_towers(db->active, 1);
            CHECK_OK(kv_lsm_close(db));
            CHECK_EQ(m.live_blocks, 0);
            disk_free(d);
        }
}
TEST(lsm_memory, every_failing_allocation_leaves_a_store_that_works)
{
    size_t points = 0;
    for (int after = 0; after < 2; after++)
        for (size_t at = 1;; at += after ? 7 : 3) {
            test_memory    m;
            disk          *d = disk_new();
            kv_lsm_options o = small(d);
            kv_lsm        *db = NULL;
            uint64_t       acknowledged = 0, n;
            kv_iter       *i = NULL;
            d->recording = false;
            memset(&m, 0, sizeof m);
            m.fail_at = at;
            m.fail_after = after == 1;
            o.allocator = test_allocator(&m);
            o.memtable_bytes = 4096;
            if (kv_lsm_open("db", &o, &db) == KV_OK) {
                for (uint64_t k = 0; k < 200; k++) {
                    if (kv_lsm_set(db, number_key(acknowledged), KV_STR("some value or other, to fill memtables")) == KV_OK) acknowledged++;
                    if (k % 20 == 0) (void)kv_lsm_step(db);
                    if (k == 100 && kv_lsm_iter_open(db, NULL, NULL, &i) == KV_OK) { while (kv_iter_valid(i)) kv_iter_next(i); kv_iter_close(i); }
                }
                (void)kv_lsm_compact(db, NULL, NULL, NULL);
                m.fail_at = 0;
                m.fail_after = false;
                CHECK(!stats_of(db).read_only);
                if (!CHECK_EQ(count_all(db), acknowledged)) fprintf(stderr, "allocation %zu\n", at);
                CHECK_OK(kv_lsm_set(db, KV_STR("zz"), KV_STR("y")));
                CHECK_OK(kv_lsm_close(db));
            }
            m.fail_at = 0;
            CHECK_EQ(m.live_blocks, 0);
            CHECK_OK(kv_lsm_open("db", &o, &db));
            if (db) { n = count_all(db); CHECK(n >= acknowledged); CHECK_OK(kv_lsm_close(db)); }
            CHECK_EQ(m.live_blocks, 0);
            disk_free(d);
            points++;
            if (!m.failed || test_failed_checks) break;
        }
    printf("lsm_memory: points=%zu\n", points);
}

TEST_MAIN()
