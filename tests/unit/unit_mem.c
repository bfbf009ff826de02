/* unit_mem.c
   Goal: every promise of kv_mem.h, one at a time.
   Method: small maps, a clock that the test turns, an allocator that fails on order, fixed memory, a disk
   in memory.
   simd-levels: all */
#define KV_MEM_IMPLEMENTATION
#include "../../kv_mem.h"
#include "../kv_disk.h"
#include "../kv_test.h"

static uint64_t clock_ms;
static uint64_t now_ms(void *user) { (void)user; return clock_ms; }

static kv_mem_options options(bool single_thread)
{
    kv_mem_options o;
    memset(&o, 0, sizeof o);
    o.single_thread = single_thread;
    o.now_ms = now_ms;
    o.seed = single_thread ? 0 : test_seed_value;           /* the two hashes */
    clock_ms = 1000;
    return o;
}
static kv_mem *open_map(bool single_thread)
{
    kv_mem_options o = options(single_thread);
    kv_mem        *m = NULL;
    CHECK_OK(kv_mem_open(&o, &m));
    return m;
}
static kv_slice number_key(uint64_t n, char *out) { return kv_bytes(out, (size_t)sprintf(out, "key:%" PRIu64, n)); }
static void check_value(kv_mem *m, kv_slice key, kv_slice wanted)
{
    kv_buf got;
    memset(&got, 0, sizeof got);
    if (CHECK_OK(kv_mem_get(m, key, &got))) CHECK_BYTES(kv_buf_slice(&got), wanted);
    kv_buf_free(&got);
}
static void watch_events(void *user, kv_event event, kv_slice key, kv_slice value) { (void)key; (void)value; ((uint64_t *)user)[event]++; }
#define NEEDS(part) do { if (!KVI_MEM_##part) { TEST_SKIP("compiled with KV_MEM_NO_" #part); return; } } while (0)
#define EACH_MODE for (int mode = 0; mode < 2; mode++)

#if defined(KV_NO_MALLOC)
enum { LONGEST = 200000 };      /* a board, with fixed memory */
#else
enum { LONGEST = 3000000 };
#endif
TEST(mem_basic, values_of_every_size)
{
    EACH_MODE {
        static const size_t sizes[] = { 0, 1, 7, 8, 100, 1023, 1024, 1025, 4094, 4095, 4096, 32767, 32768, 32769, 100000, LONGEST };
        kv_mem *m = open_map(mode);
        char   *bytes = (char *)malloc(LONGEST), key[32];
        for (size_t i = 0; i < LONGEST; i++) bytes[i] = (char)(i * 7 + i / 1000);
        for (int round = 0; round < 3; round++)
            for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
                CHECK_OK(kv_mem_set(m, number_key(i, key), kv_bytes(bytes + round, sizes[i] > 3 ? sizes[i] - (size_t)round : sizes[i])));
                check_value(m, number_key(i, key), kv_bytes(bytes + round, sizes[i] > 3 ? sizes[i] - (size_t)round : sizes[i]));
            }
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {       /* each key gets every size */
            CHECK_OK(kv_mem_set(m, KV_STR("one"), kv_bytes(bytes, sizes[i])));
            check_value(m, KV_STR("one"), kv_bytes(bytes, sizes[i]));
        }
        CHECK_EQ(kv_mem_count(m), sizeof sizes / sizeof *sizes + 1);
        kv_mem_close(m);
        free(bytes);
    }
}
TEST(mem_basic, keys_of_every_size)
{
    EACH_MODE {
        kv_mem *m = open_map(mode);
        char   *bytes = (char *)calloc(1, KV_KEY_SIZE_MAX + 1);
        CHECK_OK(kv_mem_set(m, kv_bytes(NULL, 0), KV_STR("empty")));
        for (size_t size = 1; size <= 300; size++) CHECK_OK(kv_mem_set(m, kv_bytes(bytes, size), kv_bytes(&size, sizeof size)));
        CHECK_OK(kv_mem_set(m, kv_bytes(bytes, KV_KEY_SIZE_MAX), KV_STR("long")));
        CHECK_STATUS(kv_mem_set(m, kv_bytes(bytes, KV_KEY_SIZE_MAX + 1), KV_STR("")), KV_ERR_TOO_LARGE);
        check_value(m, KV_STR(""), KV_STR("empty"));
        check_value(m, kv_bytes(bytes, KV_KEY_SIZE_MAX), KV_STR("long"));
        for (size_t size = 1; size <= 300; size++) check_value(m, kv_bytes(bytes, size), kv_bytes(&size, sizeof size));
        CHECK_EQ(kv_mem_count(m), 302);
        kv_mem_close(m);
        free(bytes);
    }
}
static bool visit_stop(void *user, kv_slice key, kv_slice value) { (void)key; (void)value; ++*(int *)user; return false; }
static kv_status update_nothing(void *user, bool found, kv_slice old, kv_buf *value) { (void)user; (void)found; (void)old; (void)value; return KV_OK; }
static void watch_nothing(void *user, kv_event event, kv_slice key, kv_slice value) { (void)user; (void)event; (void)key; (void)value; }
TEST(mem_basic, what_was_left_out_says_so)
{
    kv_mem_options o = options(true);
    kv_mem        *m = open_map(true), *limited = NULL;
    kv_watch      *w = NULL;
    uint64_t       ttl = 0, events[5] = { 0 };
    CHECK_STATUS(kv_mem_subscribe(m, KV_STR(""), watch_events, events, &w), KVI_MEM_WATCH ? KV_OK : KV_ERR_UNSUPPORTED);
    kv_mem_unsubscribe(w);
    CHECK_STATUS(kv_mem_set_ttl(m, KV_STR("a"), KV_STR("1"), 5), KVI_MEM_TTL ? KV_OK : KV_ERR_UNSUPPORTED);
    CHECK_OK(kv_mem_set_ttl(m, KV_STR("b"), KV_STR("2"), 0));
    CHECK_STATUS(kv_mem_expire(m, KV_STR("b"), 5), KVI_MEM_TTL ? KV_OK : KV_ERR_UNSUPPORTED);
    CHECK_OK(kv_mem_ttl(m, KV_STR("b"), &ttl));
    CHECK(KVI_MEM_TTL ? ttl == 5 : ttl == UINT64_MAX);
    clock_ms += 5;
    CHECK_EQ(kv_mem_count(m), KVI_MEM_TTL ? 0 : 1);
    CHECK_EQ(kv_mem_sweep(m, 9), KVI_MEM_TTL ? 2 : 0);
    if (!KVI_MEM_SAVE) CHECK_STATUS(kv_mem_save(m, "snapshot"), KV_ERR_UNSUPPORTED);
    if (!KVI_MEM_SAVE) CHECK_STATUS(kv_mem_load(m, "snapshot"), KV_ERR_UNSUPPORTED);
    o.memory_limit_bytes = 100000;
    CHECK_STATUS(kv_mem_open(&o, &limited), KVI_MEM_LIMIT ? KV_OK : KV_ERR_UNSUPPORTED);
    kv_mem_close(limited);
    kv_mem_close(m);
}
TEST(mem_basic, wrong_arguments)
{
    kv_mem  *m = open_map(false);
    kv_slice bad = kv_bytes(NULL, 3), out;
    kv_buf   value;
    kv_watch *w;
    uint64_t ttl;
    int      visits = 0;
    memset(&value, 0, sizeof value);
    CHECK_STATUS(kv_mem_open(NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_set(NULL, KV_STR("a"), KV_STR("b")), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_set(m, bad, KV_STR("b")), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_set(m, KV_STR("a"), bad), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_set(m, KV_STR("a"), kv_bytes("x", (size_t)KV_VALUE_SIZE_MAX + 1)), KV_ERR_TOO_LARGE);
    CHECK(strstr(kv_last_error(kv_mem_store(m)), "too large") != NULL);
    CHECK_STATUS(kv_mem_get(m, bad, &value), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_get(m, KV_STR("a"), NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_exists(m, bad), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_delete(m, bad), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_view(m, bad, visit_stop, &visits), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_view(m, KV_STR("a"), NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_peek(m, KV_STR("a"), NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_peek(m, bad, &out), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_batch_get(m, &bad, 1, &value, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_batch_get(m, NULL, 0, NULL, NULL), KV_OK);
    CHECK_STATUS(kv_mem_batch_set(m, NULL, 0), KV_OK);
    CHECK_STATUS(kv_mem_batch_set(m, NULL, 1), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_batch_delete(m, &bad, 1), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_compare_and_set(m, KV_STR("a"), bad, KV_STR("b")), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_update(m, KV_STR("a"), NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_ttl(m, KV_STR("a"), NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_ttl(m, KV_STR("a"), &ttl), KV_NOT_FOUND);
    CHECK_STATUS(kv_mem_subscribe(m, KV_STR(""), NULL, NULL, &w), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_scan(m, NULL, NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_save(m, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_load(m, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_mem_stats(m, NULL), KV_ERR_INVALID);
    CHECK_EQ(kv_mem_count(m), 0);
    CHECK_EQ(kv_mem_count(NULL), 0);
    kv_mem_unsubscribe(NULL);
    kv_mem_close(NULL);
    kv_mem_close(m);
}
TEST(mem_basic, behind_the_common_handle)
{
    kv_mem   *m = open_map(false);
    kv_store *s = kv_mem_store(m);
    kv_iter  *i;
    kv_stats  stats;
    int64_t   n = 0;
    CHECK(strcmp(kv_store_name(s), "mem") == 0);
    CHECK_EQ(kv_store_caps(s), KVI_THREADS ? KV_CAP_WRITE | KV_CAP_THREADS : KV_CAP_WRITE);
    CHECK_OK(kv_set_int64(s, KV_STR("n"), -5));
    CHECK_OK(kv_get_int64(s, KV_STR("n"), &n));
    CHECK_EQ(n, -5);
    CHECK_OK(kv_set(s, KV_STR("key"), KV_STR("value")));
    CHECK_STATUS(kv_iter_open(s, NULL, &i), KV_ERR_UNSUPPORTED);
    CHECK_OK(kv_store_stats(s, &stats));
    CHECK_EQ(stats.keys, 2);
    CHECK_EQ(stats.key_bytes, 4);
    CHECK_EQ(stats.value_bytes, 14);
    CHECK(stats.memory_bytes > 0);
    CHECK_OK(kv_delete(s, KV_STR("key")));
    CHECK_OK(kv_delete(s, KV_STR("key")));
    CHECK_STATUS(kv_exists(s, KV_STR("key")), KV_NOT_FOUND);
    CHECK_OK(kv_flush(s));
    CHECK_OK(kv_close(s));
}
TEST(mem_basic, found_nothing_leaves_the_buffer_alone)
{
    EACH_MODE {
        kv_mem *m = open_map(mode);
        char    small[4];
        kv_buf  value, fixed = kv_buf_fixed(small, sizeof small);
        memset(&value, 0, sizeof value);
        CHECK_OK(kv_buf_assign(&value, KV_STR("old")));
        CHECK_STATUS(kv_mem_get(m, KV_STR("missing"), &value), KV_NOT_FOUND);
        CHECK_BYTES(kv_buf_slice(&value), KV_STR("old"));
        CHECK_OK(kv_mem_set(m, KV_STR("k"), KV_STR("12345")));
        CHECK_STATUS(kv_mem_get(m, KV_STR("k"), &fixed), KV_ERR_TOO_LARGE);
        CHECK_EQ(fixed.size, 5);
        kv_buf_free(&value);
        kv_mem_close(m);
    }
}

TEST(mem_atomic, insert_and_compare_and_set)
{
    kv_mem *m = open_map(false);
    CHECK_OK(kv_mem_insert(m, KV_STR("k"), KV_STR("1")));
    CHECK_STATUS(kv_mem_insert(m, KV_STR("k"), KV_STR("2")), KV_EXISTS);
    check_value(m, KV_STR("k"), KV_STR("1"));
    CHECK_STATUS(kv_mem_compare_and_set(m, KV_STR("k"), KV_STR("x"), KV_STR("3")), KV_ERR_CONFLICT);
    CHECK_STATUS(kv_mem_compare_and_set(m, KV_STR("none"), KV_STR("x"), KV_STR("3")), KV_NOT_FOUND);
    CHECK_OK(kv_mem_compare_and_set(m, KV_STR("k"), KV_STR("1"), KV_STR("")));
    CHECK_OK(kv_mem_compare_and_set(m, KV_STR("k"), KV_STR(""), KV_STR("4")));
    check_value(m, KV_STR("k"), KV_STR("4"));
    kv_mem_close(m);
}
TEST(mem_atomic, increment)
{
    kv_mem *m = open_map(true);
    int64_t n = 0;
    CHECK_OK(kv_mem_increment(m, KV_STR("n"), 5, &n));
    CHECK_EQ(n, 5);
    CHECK_OK(kv_mem_increment(m, KV_STR("n"), -7, NULL));
    CHECK_OK(kv_get_int64(kv_mem_store(m), KV_STR("n"), &n));
    CHECK_EQ(n, -2);
    CHECK_OK(kv_set_int64(kv_mem_store(m), KV_STR("n"), INT64_MAX - 1));
    CHECK_OK(kv_mem_increment(m, KV_STR("n"), 1, &n));
    CHECK(n == INT64_MAX);
    CHECK_STATUS(kv_mem_increment(m, KV_STR("n"), 1, &n), KV_ERR_INVALID);
    CHECK_OK(kv_get_int64(kv_mem_store(m), KV_STR("n"), &n));
    CHECK(n == INT64_MAX);
    CHECK_OK(kv_set_int64(kv_mem_store(m), KV_STR("n"), INT64_MIN));
    CHECK_STATUS(kv_mem_increment(m, KV_STR("n"), -1, &n), KV_ERR_INVALID);
    CHECK_OK(kv_mem_set(m, KV_STR("text"), KV_STR("123")));
    CHECK_STATUS(kv_mem_increment(m, KV_STR("text"), 1, &n), KV_ERR_WRONG_TYPE);
    check_value(m, KV_STR("text"), KV_STR("123"));
    kv_mem_close(m);
}
typedef struct updating { kv_status answer; kv_slice value; bool found; } updating;
static kv_status update(void *user, bool found, kv_slice old, kv_buf *value)
{
    updating *u = (updating *)user;
    (void)old;
    u->found = found;
    if (u->answer == KV_OK) CHECK_OK(kv_buf_append(value, u->value));
    return u->answer;
}
TEST(mem_atomic, update)
{
    kv_mem  *m = open_map(false);
    updating u = { KV_OK, KV_STR("made"), true };
    CHECK_OK(kv_mem_update(m, KV_STR("k"), update, &u));
    CHECK(!u.found);
    check_value(m, KV_STR("k"), KV_STR("made"));
    u.answer = KV_ERR_BUSY;
    CHECK_STATUS(kv_mem_update(m, KV_STR("k"), update, &u), KV_ERR_BUSY);
    CHECK(u.found);
    check_value(m, KV_STR("k"), KV_STR("made"));
    u.answer = KV_NOT_FOUND;
    CHECK_OK(kv_mem_update(m, KV_STR("k"), update, &u));
    CHECK_STATUS(kv_mem_exists(m, KV_STR("k")), KV_NOT_FOUND);
    CHECK_OK(kv_mem_update(m, KV_STR("k"), update, &u));
    CHECK_OK(kv_mem_update(m, KV_STR("empty"), update_nothing, NULL));
    check_value(m, KV_STR("empty"), KV_STR(""));
    kv_mem_close(m);
}

static bool count_visits(void *user, kv_slice key, kv_slice value) { (void)key; (void)value; ++*(int *)user; return true; }
TEST(mem_ttl, expired_is_missing_for_every_call)
{
    NEEDS(TTL);
    EACH_MODE {
        kv_mem  *m = open_map(mode);
        kv_slice keys[1] = { KV_STR("k") }, peeked;
        kv_buf   values[1];
        kv_status statuses[1];
        uint64_t ttl = 0, counted = 0;
        int64_t  n = 0;
        int      visits = 0;
        updating u = { KV_NOT_FOUND, KV_STR(""), true };
        memset(values, 0, sizeof values);
        CHECK_OK(kv_mem_set_ttl(m, keys[0], KV_STR("v"), 100));
        CHECK_OK(kv_mem_ttl(m, keys[0], &ttl));
        CHECK_EQ(ttl, 100);
        clock_ms += 99;
        CHECK_OK(kv_mem_ttl(m, keys[0], &ttl));
        CHECK_EQ(ttl, 1);
        check_value(m, keys[0], KV_STR("v"));
        clock_ms++;
        CHECK_STATUS(kv_mem_get(m, keys[0], &values[0]), KV_NOT_FOUND);
        CHECK_STATUS(kv_mem_exists(m, keys[0]), KV_NOT_FOUND);
        CHECK_STATUS(kv_mem_view(m, keys[0], count_visits, &visits), KV_NOT_FOUND);
        CHECK_STATUS(kv_mem_peek(m, keys[0], &peeked), KV_NOT_FOUND);
        CHECK_STATUS(kv_mem_ttl(m, keys[0], &ttl), KV_NOT_FOUND);
        CHECK_OK(kv_mem_batch_get(m, keys, 1, values, statuses));
        CHECK_STATUS(statuses[0], KV_NOT_FOUND);
        CHECK_OK(kv_mem_scan(m, NULL, count_visits, &visits));
        CHECK_EQ(visits, 0);
        CHECK_EQ(kv_mem_count(m), 0);
        CHECK_OK(kv_count(kv_mem_store(m), NULL, &counted));
        CHECK_EQ(counted, 0);
        CHECK_EQ(kv_mem_sweep(m, 10), 1);                   /* looking did not take it away */
        CHECK_EQ(kv_mem_sweep(m, 10), 0);
#define EXPIRED() (CHECK_OK(kv_mem_set_ttl(m, keys[0], KV_STR("v"), 10)), clock_ms += 10)
        EXPIRED(); CHECK_STATUS(kv_mem_compare_and_set(m, keys[0], KV_STR("v"), KV_STR("w")), KV_NOT_FOUND);
        EXPIRED(); CHECK_STATUS(kv_mem_expire(m, keys[0], 50), KV_NOT_FOUND);
        EXPIRED(); CHECK_OK(kv_mem_delete(m, keys[0]));
        EXPIRED(); CHECK_OK(kv_mem_update(m, keys[0], update, &u)); CHECK(!u.found);
        EXPIRED(); CHECK_OK(kv_mem_increment(m, keys[0], 3, &n)); CHECK_EQ(n, 3);
        CHECK_OK(kv_mem_ttl(m, keys[0], &ttl)); CHECK(ttl == UINT64_MAX);
        EXPIRED(); CHECK_OK(kv_mem_insert(m, keys[0], KV_STR("x")));
        CHECK_OK(kv_mem_ttl(m, keys[0], &ttl)); CHECK(ttl == UINT64_MAX);
        kv_mem_close(m);
    }
}
TEST(mem_ttl, what_keeps_it_and_what_clears_it)
{
    NEEDS(TTL);
    kv_mem  *m = open_map(true);
    uint64_t ttl = 0;
    updating u = { KV_OK, KV_STR("updated"), true };
    CHECK_OK(kv_mem_set_ttl(m, KV_STR("k"), KV_STR("v"), 100));
    CHECK_OK(kv_mem_compare_and_set(m, KV_STR("k"), KV_STR("v"), KV_STR("longer value")));
    CHECK_OK(kv_mem_update(m, KV_STR("k"), update, &u));
    CHECK_OK(kv_mem_ttl(m, KV_STR("k"), &ttl));
    CHECK_EQ(ttl, 100);
    CHECK_OK(kv_set_int64(kv_mem_store(m), KV_STR("n"), 1));
    CHECK_OK(kv_mem_expire(m, KV_STR("n"), 70));
    CHECK_OK(kv_mem_increment(m, KV_STR("n"), 1, NULL));
    CHECK_OK(kv_mem_ttl(m, KV_STR("n"), &ttl));
    CHECK_EQ(ttl, 70);
    CHECK_OK(kv_mem_expire(m, KV_STR("n"), 0));
    CHECK_OK(kv_mem_ttl(m, KV_STR("n"), &ttl));
    CHECK(ttl == UINT64_MAX);
    CHECK_OK(kv_mem_set(m, KV_STR("k"), KV_STR("w")));
    CHECK_OK(kv_mem_ttl(m, KV_STR("k"), &ttl));
    CHECK(ttl == UINT64_MAX);
    CHECK_OK(kv_mem_set_ttl(m, KV_STR("k"), KV_STR("w"), UINT64_MAX));      /* saturates */
    clock_ms = UINT64_MAX - 1;
    CHECK_OK(kv_mem_exists(m, KV_STR("k")));
    check_value(m, KV_STR("k"), KV_STR("w"));
    kv_mem_close(m);
}
TEST(mem_ttl, sweep_frees_as_many_as_it_may)
{
    NEEDS(TTL);
    EACH_MODE {
        kv_mem *m = open_map(mode);
        char    key[32];
        size_t  swept = 0;
        kv_mem_stats_t stats;
        for (uint64_t i = 0; i < 5000; i++) CHECK_OK(kv_mem_set_ttl(m, number_key(i, key), KV_STR("v"), i % 2 ? 10 : 0));
        CHECK_EQ(kv_mem_sweep(m, SIZE_MAX), 0);
        clock_ms += 10;
        CHECK_EQ(kv_mem_count(m), 2500);
        CHECK_EQ(kv_mem_sweep(m, 0), 0);
        for (size_t n; (n = kv_mem_sweep(m, 7)) > 0; swept += n) CHECK(n <= 7);
        CHECK_EQ(swept, 2500);
        CHECK_OK(kv_mem_stats(m, &stats));
        CHECK_EQ(stats.expired, 2500);
        CHECK_EQ(stats.entries, 2500);
        kv_mem_close(m);
    }
}
TEST(mem_ttl, memory_comes_back_by_writing)
{
    NEEDS(TTL);
    kv_mem *m = open_map(true);
    char    key[32];
    kv_mem_stats_t first, stats;
    for (uint64_t i = 0; i < 20000; i++) CHECK_OK(kv_mem_set_ttl(m, number_key(i, key), KV_STR("value"), 1000));
    CHECK_OK(kv_mem_stats(m, &first));
    for (uint64_t i = 20000; i < 400000; i++) {
        clock_ms += i % 20 == 0;
        CHECK_OK(kv_mem_set_ttl(m, number_key(i, key), KV_STR("value"), 1000));
    }
    CHECK_OK(kv_mem_stats(m, &stats));
    CHECK(stats.entries >= 19000 && stats.entries <= 21000);
    CHECK(stats.memory_bytes < 4 * first.memory_bytes);
    CHECK(stats.expired > 300000);
    kv_mem_close(m);
}

typedef struct watching { kv_mem *m; char log[2000]; kv_watch *own; kv_status written; } watching;
static void watch(void *user, kv_event event, kv_slice key, kv_slice value)
{
    watching *w = (watching *)user;
    size_t    at = strlen(w->log);
    kv_buf    got;
    snprintf(w->log + at, sizeof w->log - at, "%s %.*s=%.*s;", event == KV_EVENT_SET ? "set" : event == KV_EVENT_DELETE ? "delete" : event == KV_EVENT_EXPIRE ? "expire" : "evict",
             (int)key.size, (const char *)key.data, (int)value.size, value.size ? (const char *)value.data : "");
    memset(&got, 0, sizeof got);
    if (event != KV_EVENT_EXPIRE) CHECK_STATUS(kv_mem_get(w->m, key, &got), event == KV_EVENT_SET ? KV_OK : KV_NOT_FOUND);
    else (void)kv_mem_get(w->m, key, &got);                             /* a set may have taken its place */
    if (event == KV_EVENT_SET) CHECK_BYTES(kv_buf_slice(&got), value);
    kv_buf_free(&got);
    w->written = kv_mem_set(w->m, KV_STR("from inside"), KV_STR("1"));
    if (w->own) { kv_mem_unsubscribe(w->own); w->own = NULL; }
}
TEST(mem_watch, tells_of_each_change_before_the_write_returns)
{
    NEEDS(WATCH);
    NEEDS(TTL);
    EACH_MODE {
        watching  a, once;
        kv_watch *w, *other;
        memset(&a, 0, sizeof a);
        memset(&once, 0, sizeof once);
        a.m = once.m = open_map(mode);
        CHECK_OK(kv_mem_subscribe(a.m, KV_STR("u:"), watch, &a, &w));
        CHECK_OK(kv_mem_set(a.m, KV_STR("u:1"), KV_STR("one")));
        CHECK(strcmp(a.log, "set u:1=one;") == 0);
        CHECK_STATUS(a.written, KV_ERR_INVALID);
        CHECK_OK(kv_mem_subscribe(a.m, KV_STR(""), watch, &once, &once.own));
        CHECK_OK(kv_mem_set(a.m, KV_STR("other"), KV_STR("x")));
        CHECK(strcmp(once.log, "set other=x;") == 0);
        CHECK_OK(kv_mem_set(a.m, KV_STR("u:2"), KV_STR("2")));
        CHECK(strcmp(once.log, "set other=x;") == 0);                   /* it left from inside */
        CHECK_OK(kv_mem_delete(a.m, KV_STR("u:missing")));
        CHECK_STATUS(kv_mem_insert(a.m, KV_STR("u:1"), KV_STR("y")), KV_EXISTS);
        CHECK_OK(kv_mem_delete(a.m, KV_STR("u:1")));
        CHECK_OK(kv_mem_set_ttl(a.m, KV_STR("u:3"), KV_STR("3"), 5));
        CHECK_OK(kv_mem_set_ttl(a.m, KV_STR("u:4"), KV_STR("4"), 5));
        clock_ms += 5;
        CHECK_OK(kv_mem_set(a.m, KV_STR("u:4"), KV_STR("44")));
        CHECK_EQ(kv_mem_sweep(a.m, 9), 1);
        CHECK_OK(kv_mem_increment(a.m, KV_STR("n"), 1, NULL));
        kv_mem_clear(a.m);
        CHECK(strstr(a.log, "set u:1=one;set u:2=2;delete u:1=;set u:3=3;set u:4=4;expire u:4=;set u:4=44;expire u:3=;") == a.log);
        CHECK(strstr(a.log, "delete u:2=;") != NULL && strstr(a.log, "delete u:4=;") != NULL);
        a.log[0] = 0;
        CHECK_OK(kv_mem_subscribe(a.m, KV_STR("zz"), watch_nothing, NULL, &other));
        kv_mem_unsubscribe(w);
        CHECK_OK(kv_mem_set(a.m, KV_STR("u:1"), KV_STR("unseen")));
        CHECK(a.log[0] == 0);
        kv_mem_close(a.m);                                              /* with a watch left */
    }
}
TEST(mem_watch, evictions_are_told)
{
    NEEDS(WATCH);
    NEEDS(LIMIT);
    kv_mem_options o = options(false);
    kv_mem_stats_t stats;
    kv_mem   *m;
    kv_watch *w;
    uint64_t  events[5] = { 0 };
    char      key[32], value[100] = { 0 };
    o.memory_limit_bytes = 100000;
    if (!CHECK_OK(kv_mem_open(&o, &m)) || !CHECK_OK(kv_mem_subscribe(m, KV_STR(""), watch_events, events, &w))) return;
    for (uint64_t i = 0; i < 5000; i++) CHECK_OK(kv_mem_set(m, number_key(i, key), kv_bytes(value, sizeof value)));
    CHECK_OK(kv_mem_stats(m, &stats));
    CHECK(stats.evicted > 3000);
    CHECK_EQ(events[KV_EVENT_EVICT], stats.evicted);
    CHECK_EQ(events[KV_EVENT_SET], 5000);
    CHECK_EQ(stats.entries, 5000 - stats.evicted);
    kv_mem_close(m);
}

TEST(mem_limit, stays_within_and_keeps_what_is_used)
{
    NEEDS(LIMIT);
    EACH_MODE {
        kv_mem_options o = options(mode);
        test_memory    memory;
        kv_mem_stats_t stats;
        kv_mem *m;
        char    key[32], *value = (char *)calloc(1, 40000);
        size_t  hot = 0, recent = 0;
        test_rng r = test_rng_new();
        memset(&memory, 0, sizeof memory);
        o.allocator = test_allocator(&memory);
        o.memory_limit_bytes = 1 << 20;
        if (!CHECK_OK(kv_mem_open(&o, &m))) return;
        for (uint64_t i = 0; i < 60000; i++) {
            CHECK_OK(kv_mem_set(m, number_key(i, key), kv_bytes(value, test_below(&r, 200))));
            CHECK_OK(kv_mem_set(m, KV_STR("x"), KV_STR("y")));
            for (uint64_t k = 0; k < 3; k++) (void)kv_mem_exists(m, number_key(test_below(&r, 100), key));
            for (uint64_t k = 0; k < 3; k++) { kv_slice ignored; (void)kv_mem_peek(m, number_key((i * 3 + k) % 100, key), &ignored); }
        }
        CHECK(memory.peak_bytes <= (1 << 20) + 4096);       /* and what was on its way */
        for (uint64_t i = 0; i < 100; i++) hot += kv_mem_exists(m, number_key(i, key)) == KV_OK;
        for (uint64_t i = 59000; i < 60000; i++) recent += kv_mem_exists(m, number_key(i, key)) == KV_OK;
        if (!CHECK(hot >= 98))              /* each is read once in 17 writes, and the clock takes hundreds for a lap */ printf("%d of 100 hot entries are left (one thread: %d)\n", (int)hot, mode);
        CHECK(recent >= 900);
        CHECK_OK(kv_mem_stats(m, &stats));
        CHECK(stats.memory_bytes <= 1 << 20);
        CHECK(stats.entries > 3000);
        CHECK(stats.evicted > 40000);
        /* the sizes change: large ones come in where small ones were */
        for (uint64_t i = 0; i < 3000; i++) CHECK_OK(kv_mem_set(m, number_key(i, key), kv_bytes(value, 1000 + test_below(&r, 39000))));
        for (uint64_t i = 0; i < 20000; i++) CHECK_OK(kv_mem_set(m, number_key(i, key), kv_bytes(value, test_below(&r, 100))));
        CHECK(memory.peak_bytes <= (1 << 20) + 4096);
        CHECK_OK(kv_mem_set(m, KV_STR("half"), kv_bytes(value, 40000)));
        check_value(m, KV_STR("half"), kv_bytes(value, 40000));
        kv_mem_close(m);
        CHECK_EQ(memory.live_bytes, 0);
        free(value);
    }
}
TEST(mem_limit, what_can_never_fit)
{
    NEEDS(LIMIT);
    kv_mem_options o = options(true);
    kv_mem *m;
    char   *value = (char *)calloc(1, 300000);
    o.memory_limit_bytes = 100;
    CHECK_STATUS(kv_mem_open(&o, &m), KV_ERR_NO_SPACE);
    CHECK(m == NULL);
    o.memory_limit_bytes = 200000;
    if (!CHECK_OK(kv_mem_open(&o, &m))) return;
    CHECK_OK(kv_mem_set(m, KV_STR("k"), KV_STR("old")));
    CHECK_STATUS(kv_mem_set(m, KV_STR("k"), kv_bytes(value, 300000)), KV_ERR_TOO_LARGE);
    check_value(m, KV_STR("k"), KV_STR("old"));
    CHECK_OK(kv_mem_set(m, KV_STR("k"), kv_bytes(value, 150000)));
    CHECK_OK(kv_mem_set(m, KV_STR("l"), kv_bytes(value, 150000)));
    CHECK_STATUS(kv_mem_exists(m, KV_STR("k")), KV_NOT_FOUND);
    CHECK_OK(kv_mem_exists(m, KV_STR("l")));
    kv_mem_close(m);
    free(value);
}

TEST(mem_fixed, a_thousand_entries_in_fixed_memory)
{
    static unsigned char memory[49152];
    EACH_MODE {
        kv_mem_options o = options(mode);
        kv_arena arena;
        kv_mem  *m;
        char     key[32];
        o.allocator = kv_arena_init(&arena, memory + mode, sizeof memory - 1);
        if (!CHECK_OK(kv_mem_open(&o, &m))) return;
        for (uint64_t i = 0; i < 1000; i++) CHECK_OK(kv_mem_set(m, number_key(i, key), kv_bytes(&i, sizeof i)));
        for (uint64_t i = 0; i < 1000; i++) check_value(m, number_key(i, key), kv_bytes(&i, sizeof i));
        kv_mem_close(m);
        CHECK_EQ(arena.used_bytes, 0);
    }
}
TEST(mem_fixed, full_is_a_status_and_breaks_nothing)
{
    static unsigned char memory[16384];
    EACH_MODE {
        kv_mem_options o = options(mode);
        kv_arena  arena;
        kv_mem   *m;
        char      key[32];
        uint64_t  count = 0, again = 0;
        kv_status s = KV_OK;
        o.allocator = kv_arena_init(&arena, memory, sizeof memory);
        if (!CHECK_OK(kv_mem_open(&o, &m))) return;
        for (int round = 0; round < 50; round++) {
            for (count = 0; (s = kv_mem_set(m, number_key(count, key), kv_bytes(&count, sizeof count))) == KV_OK; count++) {}
            CHECK_STATUS(s, KV_ERR_NO_MEMORY);
            CHECK(count > 150);
            if (round && !CHECK(count >= again - again / 8)) printf("%d %d %d %d\n", mode, round, (int)count, (int)again);     /* what is freed is used again, all but what the order of sizes costs: 7 of 100 at the most, on MIPS */
            again = count;
            CHECK_EQ(kv_mem_count(m), count);
            for (uint64_t i = 0; i < count; i++) check_value(m, number_key(i, key), kv_bytes(&i, sizeof i));
            if (round % 10 == 9) kv_mem_clear(m);
            else for (uint64_t i = 0; i < count; i++) CHECK_OK(kv_mem_delete(m, number_key(i, key)));
            CHECK_EQ(kv_mem_count(m), 0);
        }
        kv_mem_close(m);
        CHECK_EQ(arena.used_bytes, 0);
    }
}

/* Everything that allocates, in one script; each step's answer is KV_OK or KV_ERR_NO_MEMORY, and after a
   failure the key is as it was. */
static void memory_script(size_t fail_at, bool fail_after, bool *failed)
{
    test_memory    memory;
    kv_mem_options o = options(fail_at % 2);
    kv_mem        *m;
    kv_watch      *w = NULL;
    kv_buf         got;
    char           key[32], *large = (char *)calloc(1, 50000);
    uint64_t       events[5] = { 0 };
    kv_status      s;
    memset(&memory, 0, sizeof memory);
    memset(&got, 0, sizeof got);
    memory.fail_at = fail_at;
    memory.fail_after = fail_after;
    o.allocator = test_allocator(&memory);
    o.shards = 2;
    s = kv_mem_open(&o, &m);
    if (s == KV_OK) {
        for (uint64_t i = 0; i < 1500; i++) {
            size_t   size = i % 50 == 0 ? 50000 : (size_t)(i % 40);
            uint64_t before = kv_mem_count(m);
            if (i == 700 && kv_mem_subscribe(m, KV_STR("key:1"), watch_events, events, &w) < 0) w = NULL;
            switch (i % 7) {
            case 0: s = kv_mem_set_ttl(m, number_key(i, key), kv_bytes(large, size), KVI_MEM_TTL && i % 3 ? 5 : 0); break;
            case 1: s = kv_mem_increment(m, number_key(i, key), 1, NULL); break;
            case 2: s = kv_mem_update(m, number_key(i, key), update_nothing, NULL); break;
            default: s = kv_mem_set(m, number_key(i, key), kv_bytes(large, size)); break;
            }
            CHECK(s == KV_OK || s == KV_ERR_NO_MEMORY);
            CHECK_EQ(kv_mem_count(m), before + (s == KV_OK));
            CHECK_STATUS(kv_mem_exists(m, number_key(i, key)), s == KV_OK ? KV_OK : KV_NOT_FOUND);
            s = kv_mem_set(m, KV_STR("key:0"), kv_bytes(large, size));  /* an old key gets another value, or keeps its own */
            if (s == KV_OK && kv_mem_get(m, KV_STR("key:0"), &got) == KV_OK) CHECK_EQ(got.size, size);
            if (i % 100 == 99) { int visits = 0; s = kv_mem_scan(m, NULL, count_visits, &visits); if (s == KV_OK) CHECK_EQ(visits, kv_mem_count(m)); }
            if (i % 300 == 299) { clock_ms += 5; (void)kv_mem_sweep(m, SIZE_MAX); }
        }
        kv_mem_unsubscribe(w);
        for (uint64_t i = 0; i < 1500; i += 2) CHECK_OK(kv_mem_delete(m, number_key(i, key)));
        kv_mem_close(m);
    } else CHECK_STATUS(s, KV_ERR_NO_MEMORY);
    *failed = memory.failed;
    CHECK_EQ(memory.live_bytes, 0);
    kv_buf_free(&got);
    free(large);
}
TEST(mem_memory, each_allocation_may_fail)
{
    for (int after = 0; after < 2; after++) {
        bool failed = true;
        for (size_t n = 1; failed && n < 2000; n += after ? 3 : 1) memory_script(n, after, &failed);
        CHECK(!failed);
    }
}
/* In each round all but each twentieth of the last values are deleted, and others of another size come, which
   fit no hole of old; together they are never more than at first. If chunks were not emptied, the few that are
   left in each would keep all of them, and six rounds would come to 2.8 times of what there was at first. With
   that, what is taken beside are regions of an eighth each, none or one or two by where the keys fall (1.27). */
TEST(mem_memory, holes_are_filled_again)
{
    EACH_MODE {
        static const size_t sizes[] = { 100, 500, 300, 700, 220, 900, 400 };
        kv_mem_options o = options(mode);
        kv_mem  *m;
        kv_mem_stats_t full, stats;
        char     key[32], value[900] = { 0 };
        uint64_t ends[8] = { 0, 20000 };                /* of each round's keys */
        o.shards = 4;                                   /* not by the number of processors */
        if (!CHECK_OK(kv_mem_open(&o, &m))) return;
        for (uint64_t i = 0; i < ends[1]; i++) CHECK_OK(kv_mem_set(m, number_key(i, key), kv_bytes(value, sizes[0])));
        CHECK_OK(kv_mem_stats(m, &full));
        for (int round = 1; round < 7; round++) {
            for (uint64_t i = ends[round - 1]; i < ends[round]; i++) if (i % 20) CHECK_OK(kv_mem_delete(m, number_key(i, key)));
            ends[round + 1] = ends[round] + 1500000 / sizes[round];
            for (uint64_t i = ends[round]; i < ends[round + 1]; i++) CHECK_OK(kv_mem_set(m, number_key(i, key), kv_bytes(value, sizes[round])));
            CHECK_OK(kv_mem_stats(m, &stats));
            CHECK(stats.memory_bytes < full.memory_bytes * 2);
        }
        for (int round = 0; round < 7; round++)
            for (uint64_t i = (ends[round] + 19) / 20 * 20; i < ends[round + 1]; i += 20) check_value(m, number_key(i, key), kv_bytes(value, sizes[round]));
        kv_mem_close(m);
    }
}
TEST(mem_memory, clear_gives_back)
{
    EACH_MODE {
        kv_mem_options o = options(mode);
        test_memory    memory;
        kv_mem  *m;
        char     key[32];
        size_t   full;
        memset(&memory, 0, sizeof memory);
        o.allocator = test_allocator(&memory);
        if (!CHECK_OK(kv_mem_open(&o, &m))) return;
        for (int round = 0; round < 4; round++) {
            for (uint64_t i = 0; i < 30000; i++) CHECK_OK(kv_mem_set(m, number_key(i, key), KV_STR("some value or other")));
            full = memory.live_bytes;
            kv_mem_clear(m);
            CHECK_EQ(kv_mem_count(m), 0);
            CHECK_STATUS(kv_mem_exists(m, KV_STR("key:7")), KV_NOT_FOUND);
            if (mode) CHECK(memory.live_bytes < full / 4);              /* one thread */
        }
        CHECK(memory.peak_bytes < full + full / 4);
        kv_mem_close(m);
        CHECK_EQ(memory.live_bytes, 0);
    }
}
TEST(mem_memory, a_million_short_keys_cost_less_than_26_bytes_each)
{
    kv_mem  *m = open_map(true);
    kv_mem_stats_t stats;
    uint64_t count = test_scaled(200000);
    char     key[16];
    for (uint64_t i = 0; i < count; i++) {
        uint64_t bits = kvi_mix64(i);
        memcpy(key, &bits, 8);
        memcpy(key + 8, &bits, 8);
        CHECK_OK(kv_mem_set(m, kv_bytes(key, 16), kv_bytes(&i, 8)));
    }
    CHECK_OK(kv_mem_stats(m, &stats));
    CHECK_EQ(stats.entries, count);
    CHECK(stats.capacity >= count / 2);
    CHECK((double)(stats.memory_bytes - stats.key_bytes - stats.value_bytes) / (double)count < 26 + 4000000.0 / (double)count);
    kv_mem_close(m);
}

TEST(mem_flood, keys_that_collide_are_hashed_anew)
{
    kv_mem_options o = options(true);
    kv_mem_stats_t stats;
    kv_mem  *m;
    uint64_t n = 0, count = 0, numbers[600];
    char     key[32];
    o.seed = 4711;                                                      /* somebody knows the seed ... */
    if (!CHECK_OK(kv_mem_open(&o, &m))) return;
    for (; count < 600; n++) {                                          /* ... and chooses keys for one bucket */
        kv_slice k = number_key(n, key);
        if ((kv_hash(k, 4711) >> 8 & 63) != 5) continue;
        CHECK_OK(kv_mem_set(m, k, kv_bytes(&n, sizeof n)));
        numbers[count++] = n;
    }
    CHECK_OK(kv_mem_stats(m, &stats));
    CHECK(stats.rehashes >= 1);
    CHECK_EQ(stats.entries, 600);
    CHECK(stats.capacity < 4000);                                       /* splitting would not have helped */
    for (uint64_t i = 0; i < count; i++) check_value(m, number_key(numbers[i], key), kv_bytes(&numbers[i], sizeof n));
    for (uint64_t i = 0; i < count; i += 2) CHECK_OK(kv_mem_delete(m, number_key(numbers[i], key)));
    CHECK_EQ(kv_mem_count(m), 300);
    kv_mem_close(m);
}
/* The hash of maps that were given no seed: the same for the same bytes wherever they lie, another for any
   other bytes or size, and even in each of the bits that the table takes, also for keys that count up. */
TEST(mem_hash, follows_the_bytes)
{
    kv_mem  *m;
    test_rng r = test_rng_new();
    if (!CHECK_OK(kv_mem_open(NULL, &m))) return;
    for (size_t size = 0; size <= 200; size++) {
        uint8_t *a = (uint8_t *)malloc(size + 1), *b = (uint8_t *)malloc(size + 9) + 8;     /* a[size] is not the key's */
        uint64_t hash;
        for (size_t i = 0; i < size; i++) a[i] = b[i] = (uint8_t)test_below(&r, 256);
        a[size] = 0;
        hash = kvi_mem_hash(m, kv_bytes(a, size));
        CHECK(kvi_mem_hash(m, kv_bytes(b, size)) == hash);
        CHECK(kvi_mem_hash(m, kv_bytes(a, size + 1)) != hash);
        CHECK(kvi_mem_same(a, b, size));
        for (size_t i = 0; i < size; i++) {
            b[i] ^= (uint8_t)(1 << test_below(&r, 8));
            CHECK(kvi_mem_hash(m, kv_bytes(b, size)) != hash);
            CHECK(!kvi_mem_same(a, b, size));
            b[i] = a[i];
        }
        free(a);
        free(b - 8);
    }
    kv_mem_close(m);
}
TEST(mem_hash, is_even)
{
    enum { KEYS = 1 << 16 };
    static const size_t sizes[6] = { 4, 8, 16, 20, 64, 100 };
    kv_mem *m;
    if (!CHECK_OK(kv_mem_open(NULL, &m))) return;
    for (size_t k = 0; k < 12; k++) {
        uint32_t tags[256] = { 0 }, homes[64] = { 0 }, tops[64] = { 0 };
        for (uint32_t i = 0; i < KEYS; i++) {
            uint8_t  key[100] = { 0 };
            uint64_t hash;
            kvi_store_le32(key + (k & 1 ? sizes[k / 2] - 4 : 0), i);
            hash = kvi_mem_hash(m, kv_bytes(key, sizes[k / 2]));
            tags[hash & 255]++;
            homes[hash >> 8 & 63]++;
            tops[hash >> 58]++;
        }
        for (size_t i = 0; i < 256; i++) CHECK(tags[i] > KEYS / 256 / 2 && tags[i] < KEYS / 256 * 2);
        for (size_t i = 0; i < 64; i++) CHECK(homes[i] > KEYS / 64 * 3 / 4 && homes[i] < KEYS / 64 * 5 / 4);
        for (size_t i = 0; i < 64; i++) CHECK(tops[i] > KEYS / 64 * 3 / 4 && tops[i] < KEYS / 64 * 5 / 4);
    }
    kv_mem_close(m);
}
TEST(mem_flood, seeds_differ)
{
    kv_mem *a, *b;
    CHECK_OK(kv_mem_open(NULL, &a));
    CHECK_OK(kv_mem_open(NULL, &b));
    CHECK(a->seed != b->seed);
    kv_mem_close(a);
    kv_mem_close(b);
}

static bool scan_and_read(void *user, kv_slice key, kv_slice value)
{
    kv_mem *m = (kv_mem *)user;
    check_value(m, key, value);
    CHECK_OK(kv_mem_exists(m, key));
    return true;
}
static bool scan_and_write(void *user, kv_slice key, kv_slice value)
{
    (void)value;
    return kv_mem_delete((kv_mem *)user, key) == KV_OK;
}
TEST(mem_scan, callbacks_may_read_and_with_threads_write)
{
    EACH_MODE {
        kv_mem  *m = open_map(mode);
        char     key[32];
        kv_range range;
        int      visits = 0;
        for (uint64_t i = 0; i < 3000; i++) CHECK_OK(kv_mem_set(m, number_key(i, key), kv_bytes(&i, sizeof i)));
        CHECK_OK(kv_mem_scan(m, NULL, scan_and_read, m));
        CHECK_OK(kv_mem_view(m, KV_STR("key:1"), scan_and_read, m));
        CHECK_OK(kv_mem_scan(m, NULL, visit_stop, &visits));
        CHECK_EQ(visits, 1);
        memset(&range, 0, sizeof range);
        range.prefix = KV_STR("key:12");
        visits = 0;
        CHECK_OK(kv_mem_scan(m, &range, count_visits, &visits));
        CHECK_EQ(visits, 111);
        range.limit = 10;
        visits = 0;
        CHECK_OK(kv_mem_scan(m, &range, count_visits, &visits));
        CHECK_EQ(visits, 10);
        CHECK_OK(kv_mem_scan(m, NULL, scan_and_write, m));
        CHECK_EQ(kv_mem_count(m), mode || !KVI_THREADS ? 3000 : 0);                     /* one thread: refused */
        kv_mem_close(m);
    }
}
static TEST_UNUSED bool scan_and_grow(void *user, kv_slice key, kv_slice value)
{
    kv_mem *m = (kv_mem *)user;
    char    text[80];
    int     size = snprintf(text, sizeof text, "new:%.*s", (int)key.size, (const char *)key.data);
    (void)value;
    if (key.size > 4 && memcmp(key.data, "old:", 4) == 0) {
        CHECK_STATUS(kv_mem_insert(m, kv_bytes(text, (size_t)size), KV_STR("x")), KV_OK);      /* EXISTS: it was shown twice */
        for (int i = 0; i < 6; i++) { size = snprintf(text, sizeof text, "more:%d:%.*s", i, (int)key.size, (const char *)key.data); CHECK_OK(kv_mem_set(m, kv_bytes(text, (size_t)size), KV_STR("x"))); }
    }
    return true;
}
#if KVI_THREADS
TEST(mem_scan, shows_each_entry_once_while_segments_split)
{
    kv_mem_options o = options(false);
    kv_mem  *m;
    char     key[32];
    size_t   shown = 0;
    char    *value = (char *)calloc(1, 700);
    o.shards = 1;
    if (!CHECK_OK(kv_mem_open(&o, &m))) return;
    for (uint64_t i = 0; i < 4000; i++) CHECK_OK(kv_mem_set(m, kv_bytes(key, (size_t)sprintf(key, "old:%u", (unsigned)i)), kv_bytes(value, 700)));
    CHECK_OK(kv_mem_scan(m, NULL, scan_and_grow, m));
    for (uint64_t i = 0; i < 4000; i++) shown += kv_mem_exists(m, kv_bytes(key, (size_t)sprintf(key, "new:old:%u", (unsigned)i))) == KV_OK;
    CHECK_EQ(shown, 4000);
    kv_mem_close(m);
    free(value);
}
#endif

TEST(mem_stats, hits_misses_and_parts)
{
    kv_mem  *m = open_map(false);
    kv_mem_stats_t stats;
    kv_slice keys[3] = { KV_STR("a"), KV_STR("b"), KV_STR("c") };
    kv_buf   values[3];
    memset(values, 0, sizeof values);
    CHECK_OK(kv_mem_set(m, keys[0], KV_STR("1")));
    CHECK_OK(kv_mem_set(m, keys[1], KV_STR("2")));
    for (int i = 0; i < 3; i++) (void)kv_mem_get(m, keys[i], &values[i]);
    CHECK_OK(kv_mem_batch_get(m, keys, 3, values, NULL));
    (void)kv_mem_exists(m, keys[0]);
    CHECK_OK(kv_mem_stats(m, &stats));
    CHECK_EQ(stats.hits, 4);
    CHECK_EQ(stats.misses, 2);
    CHECK_EQ(stats.memory_bytes, stats.table_bytes + stats.record_bytes + stats.large_bytes + stats.free_bytes + stats.fixed_bytes);
    for (int i = 0; i < 3; i++) kv_buf_free(&values[i]);
    kv_mem_close(m);
}
TEST(mem_stats, capacity_makes_room_at_once)
{
    kv_mem_options o = options(true);
    kv_mem_stats_t before, after;
    kv_mem *m;
    char    key[32];
    o.capacity = 10000;
    if (!CHECK_OK(kv_mem_open(&o, &m))) return;
    CHECK_OK(kv_mem_stats(m, &before));
    CHECK(before.capacity >= 10000);
    for (uint64_t i = 0; i < 10000; i++) CHECK_OK(kv_mem_set(m, number_key(i, key), KV_STR("v")));
    CHECK_OK(kv_mem_stats(m, &after));
    CHECK(after.capacity <= before.capacity + before.capacity / 4);
    kv_mem_close(m);
}

/* ---- snapshots ---- */

static void fill_some(kv_mem *m, char *large)
{
    char key[32];
    for (uint64_t i = 0; i < 30; i++) CHECK_OK(kv_mem_set_ttl(m, number_key(i, key), kv_bytes(&i, sizeof i), i % 3 == 0 ? 100 + i : 0));
    CHECK_OK(kv_mem_set(m, KV_STR(""), KV_STR("")));
    CHECK_OK(kv_mem_set(m, KV_STR("large"), kv_bytes(large, 40000)));
}
static void check_some(kv_mem *m, const char *large, uint64_t later)
{
    char key[32];
    for (uint64_t i = 0; i < 30; i++) {
        uint64_t ttl = 0;
        check_value(m, number_key(i, key), kv_bytes(&i, sizeof i));
        CHECK_OK(kv_mem_ttl(m, number_key(i, key), &ttl));
        CHECK(ttl == (i % 3 == 0 ? 100 + i - later : UINT64_MAX));
    }
    check_value(m, KV_STR(""), KV_STR(""));
    check_value(m, KV_STR("large"), kv_bytes(large, 40000));
}
TEST(mem_snapshot, comes_back_and_merges)
{
    NEEDS(SAVE);
    NEEDS(WATCH);
    NEEDS(TTL);
    EACH_MODE {
        disk          *d = disk_new();
        kv_mem_options o = options(mode);
        kv_mem *m, *other;
        kv_watch *w;
        uint64_t events[5] = { 0 };
        char   *large = (char *)calloc(1, 40000);
        o.io = disk_io(d);
        large[39999] = 7;
        if (!CHECK_OK(kv_mem_open(&o, &m)) || !CHECK_OK(kv_mem_open(&o, &other))) return;
        CHECK_STATUS(kv_mem_load(m, "none"), KV_NOT_FOUND);
        CHECK(strstr(kv_last_error(kv_mem_store(m)), "none") != NULL);
        fill_some(m, large);
        clock_ms += 10;
        CHECK_OK(kv_mem_save(m, "dir.snap"));
        clock_ms += 5000;                                               /* another process: time goes on elsewhere */
        CHECK_OK(kv_mem_set(other, KV_STR("key:5"), KV_STR("loses")));
        CHECK_OK(kv_mem_set(other, KV_STR("mine"), KV_STR("stays")));
        CHECK_OK(kv_mem_set(other, KV_STR("large"), kv_bytes(large, 35000)));
        CHECK_OK(kv_mem_subscribe(other, KV_STR("key:"), watch_events, events, &w));
        CHECK_OK(kv_mem_load(other, "dir.snap"));
        CHECK_EQ(events[KV_EVENT_SET], 30);
        check_some(other, large, 10);
        check_value(other, KV_STR("mine"), KV_STR("stays"));
        CHECK_EQ(kv_mem_count(other), 33);
        CHECK_EQ(disk_violations(d), 0);
        kv_mem_close(m);
        kv_mem_close(other);
        disk_free(d);
        free(large);
    }
}
/* The content of a file of the disk, and a new file with it. */
static char *slurp(const kv_io *io, const char *path, size_t *size)
{
    kv_file *f;
    uint64_t n = 0;
    char    *bytes;
    CHECK_OK(io->open(io->user, path, 0, &f));
    CHECK_OK(io->size(io->user, f, &n));
    bytes = (char *)malloc((size_t)n + 1);
    CHECK_OK(io->read_at(io->user, f, 0, bytes, (size_t)n, size));
    CHECK_OK(io->close(io->user, f));
    return bytes;
}
static void spill(const kv_io *io, const char *path, const char *bytes, size_t size)
{
    kv_file *f;
    CHECK_OK(io->open(io->user, path, KV_OPEN_WRITE | KV_OPEN_CREATE | KV_OPEN_TRUNCATE, &f));
    CHECK_OK(io->append(io->user, f, bytes, size));
    CHECK_OK(io->close(io->user, f));
}
TEST(mem_snapshot, every_damaged_byte_and_every_cut_is_an_error)
{
    NEEDS(SAVE);
    NEEDS(WATCH);
    NEEDS(TTL);
    disk          *d = disk_new();
    kv_mem_options o = options(true);
    kv_mem *m, *other;
    char   *bytes, key[32];
    size_t  size = 0, cut;
    d->recording = false;
    o.io = disk_io(d);
    if (!CHECK_OK(kv_mem_open(&o, &m)) || !CHECK_OK(kv_mem_open(&o, &other))) return;
    for (uint64_t i = 0; i < 40; i++) CHECK_OK(kv_mem_set_ttl(m, number_key(i, key), kv_bytes(&i, sizeof i), i % 2 ? 50 : 0));
    CHECK_OK(kv_mem_save(m, "snap"));
    bytes = slurp(o.io, "snap", &size);
    CHECK_OK(kv_mem_set(other, KV_STR("key:1"), KV_STR("mine")));
    for (size_t at = 0; at < size; at++) for (int bit = 0; bit < 8; bit += 3) {
        bytes[at] ^= (char)(1 << bit);
        spill(o.io, "bad", bytes, size);
        CHECK_STATUS(kv_mem_load(other, "bad"), KV_ERR_CORRUPT);
        bytes[at] ^= (char)(1 << bit);
    }
    for (cut = 0; cut < size; cut++) { spill(o.io, "bad", bytes, cut); CHECK_STATUS(kv_mem_load(other, "bad"), KV_ERR_CORRUPT); }
    bytes[size] = 0;
    spill(o.io, "bad", bytes, size + 1);
    CHECK_STATUS(kv_mem_load(other, "bad"), KV_ERR_CORRUPT);
    CHECK_EQ(kv_mem_count(other), 1);
    check_value(other, KV_STR("key:1"), KV_STR("mine"));
    /* a newer format, with a right checksum */
    kvi_store_le32(bytes + 8, 2);
    kvi_store_le64(bytes + 24, kvi_hash(bytes, 24, 0));
    spill(o.io, "bad", bytes, size);
    CHECK_STATUS(kv_mem_load(other, "bad"), KV_ERR_VERSION);
    free(bytes);
    kv_mem_close(m);
    kv_mem_close(other);
    disk_free(d);
}
TEST(mem_snapshot, a_load_without_memory_changes_nothing)
{
    NEEDS(SAVE);
    NEEDS(WATCH);
    NEEDS(TTL);
    disk          *d = disk_new();
    kv_mem_options o = options(false);
    kv_mem *m, *other;
    char    key[32], *large = (char *)calloc(1, 40000);
    bool    failed = true;
    int     refused = 0;
    kv_status loaded;
    o.io = disk_io(d);
    o.shards = 2;
    if (!CHECK_OK(kv_mem_open(&o, &m))) return;
    fill_some(m, large);
    for (uint64_t i = 100; i < 1500; i++) CHECK_OK(kv_mem_set(m, number_key(i, key), kv_bytes(large, 60)));
    CHECK_OK(kv_mem_save(m, "snap"));
    for (size_t n = 1; failed; n++) {
        test_memory memory;
        kv_mem_stats_t before, after;
        memset(&memory, 0, sizeof memory);
        o.allocator = test_allocator(&memory);
        if (!CHECK_OK(kv_mem_open(&o, &other))) return;
        for (uint64_t i = 10; i < 400; i++) CHECK_OK(kv_mem_set_ttl(other, number_key(i, key), kv_bytes(large, 30), i % 4 ? 0 : 9));
        CHECK_OK(kv_mem_set(other, KV_STR("large"), kv_bytes(large, 33000)));
        CHECK_OK(kv_mem_stats(other, &before));
        memory.calls = 0;
        memory.fail_at = n;
        loaded = kv_mem_load(other, "snap");
        failed = memory.failed;
        memory.fail_at = 0;
        if (loaded != KV_OK) {
            CHECK_STATUS(loaded, KV_ERR_NO_MEMORY);
            refused++;
            CHECK_OK(kv_mem_stats(other, &after));
            CHECK_EQ(after.entries, before.entries);
            CHECK_EQ(after.key_bytes, before.key_bytes);
            CHECK_EQ(after.value_bytes, before.value_bytes);
            CHECK_EQ(after.record_bytes, before.record_bytes);
            for (uint64_t i = 10; i < 400; i++) check_value(other, number_key(i, key), kv_bytes(large, 30));
            check_value(other, KV_STR("large"), kv_bytes(large, 33000));
            clock_ms += 9;
            CHECK_EQ(kv_mem_sweep(other, SIZE_MAX), 97);
            clock_ms -= 9;
        } else check_some(other, large, 0);
        kv_mem_close(other);
        CHECK_EQ(memory.live_bytes, 0);
    }
    CHECK(refused > 5);
    kv_mem_close(m);
    disk_free(d);
    free(large);
}
TEST(mem_snapshot, after_a_power_cut_the_old_one_or_the_new_one)
{
    NEEDS(SAVE);
    NEEDS(WATCH);
    NEEDS(TTL);
    disk          *d = disk_new(), *cursor;
    kv_mem_options o = options(true);
    kv_mem *m;
    test_rng r = test_rng_new();
    char    key[32];
    o.io = disk_io(d);
    if (!CHECK_OK(kv_mem_open(&o, &m))) return;
    CHECK_OK(kv_mem_set(m, KV_STR("version"), KV_STR("1")));
    CHECK_OK(kv_mem_save(m, "snap"));
    disk_record(d);
    cursor = disk_begin(d);
    CHECK_OK(kv_mem_set(m, KV_STR("version"), KV_STR("2")));
    for (uint64_t i = 0; i < 3000; i++) CHECK_OK(kv_mem_set(m, number_key(i, key), KV_STR("0123456789012345678901234567890123456789")));
    CHECK_OK(kv_mem_save(m, "snap"));
    for (size_t k = 0; k <= disk_op_count(d); k++) {
        disk_advance(cursor, d, k);
        for (int mode = 0; mode < DISK_MODES; mode++) {
            disk   *image = disk_crash(cursor, (disk_mode)mode, &r);
            kv_mem *after;
            o.io = disk_io(image);
            if (!CHECK_OK(kv_mem_open(&o, &after))) return;
            CHECK_OK(kv_mem_load(after, "snap"));
            CHECK(kv_mem_count(after) == 1 || kv_mem_count(after) == 3001);
            if (k == disk_op_count(d)) CHECK_EQ(kv_mem_count(after), 3001);
            kv_mem_close(after);
            disk_free(image);
        }
    }
    disk_free(cursor);
    kv_mem_close(m);
    disk_free(d);
}

TEST_MAIN()
