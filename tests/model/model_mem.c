/* model_mem.c
   Goal: a map holds what a sorted array would, whatever was done to it, in every configuration.
   Method: random operations of every kind against the model, with a clock that the test turns; every
   answer is compared, and now and then all of the content, by scans and by reading it back. */
#define KV_MEM_IMPLEMENTATION
#include "../../kv_mem.h"
#include "../kv_test.h"

typedef struct setup { const char *name; bool single_thread; uint32_t shards; uint64_t limit; size_t capacity; test_key_kind keys; uint64_t key_count; size_t value_max; size_t operations; bool ttl; } setup;

/* The truth: values in the model, and beside it, by the model's key, when each expires. */
typedef struct truth {
    test_model values, expiries;            /* expiry: 8 bytes; missing: forever */
    uint64_t   now;
} truth;

static uint64_t truth_clock(void *user) { return ((truth *)user)->now; }
static uint64_t truth_expiry(const truth *t, kv_slice key)
{
    const test_entry *e = test_model_get(&t->expiries, key);
    uint64_t          expiry = 0;
    if (e) memcpy(&expiry, e->value, 8);
    return expiry;
}
static const test_entry *truth_get(truth *t, kv_slice key)          /* what has expired is taken out here */
{
    uint64_t expiry = truth_expiry(t, key);
    if (expiry && t->now >= expiry) { test_model_delete(&t->values, key); test_model_delete(&t->expiries, key); }
    return test_model_get(&t->values, key);
}
static void truth_set(truth *t, kv_slice key, kv_slice value, uint64_t expiry)
{
    test_model_set(&t->values, key, value);
    if (expiry) test_model_set(&t->expiries, key, kv_bytes(&expiry, 8)); else test_model_delete(&t->expiries, key);
}
static void truth_delete(truth *t, kv_slice key) { test_model_delete(&t->values, key); test_model_delete(&t->expiries, key); }
static void truth_purge(truth *t)
{
    for (size_t i = 0; i < t->expiries.count;) {
        const test_entry *e = &t->expiries.entries[i];
        kv_slice          key = test_entry_key(e);
        uint64_t          expiry;
        memcpy(&expiry, e->value, 8);
        if (t->now < expiry) { i++; continue; }
        key.data = test_copy(key);
        truth_delete(t, key);
        free((void *)(uintptr_t)key.data);
    }
}

typedef struct seen { truth *t; test_model found; const kv_range *range; } seen;
static bool see(void *user, kv_slice key, kv_slice value)
{
    seen *s = (seen *)user;
    const test_entry *e = test_model_get(&s->t->values, key);
    if (CHECK(e != NULL)) CHECK_BYTES(value, test_entry_value(e));
    CHECK(test_model_get(&s->found, key) == NULL);
    CHECK(kv_range_has(s->range, key));
    test_model_set(&s->found, key, KV_STR(""));
    return true;
}
static void check_all(kv_mem *m, truth *t, const kv_range *range)
{
    seen     s;
    size_t   count, *wanted;
    uint64_t counted = 0;
    kv_mem_stats_t stats;
    truth_purge(t);
    memset(&s, 0, sizeof s);
    s.t = t;
    s.range = range;
    wanted = test_model_range(&t->values, range, &count);
    CHECK_OK(kv_mem_scan(m, range, see, &s));
    CHECK_EQ(s.found.count, count);
    CHECK_OK(kv_count(kv_mem_store(m), range, &counted));
    CHECK_EQ(counted, count);
    CHECK_EQ(kv_mem_count(m), t->values.count);
    CHECK_OK(kv_mem_stats(m, &stats));
    CHECK_EQ(stats.entries, t->values.count);
    CHECK_EQ(stats.memory_bytes, stats.table_bytes + stats.record_bytes + stats.large_bytes + stats.free_bytes + stats.fixed_bytes);
    test_model_free(&s.found);
    free(wanted);
}

typedef struct update_plan { int what; const test_entry *old; kv_slice value; } update_plan;
static kv_status update(void *user, bool found, kv_slice old, kv_buf *value)
{
    update_plan *p = (update_plan *)user;
    CHECK_EQ(found, p->old != NULL);
    if (found) CHECK_BYTES(old, test_entry_value(p->old));
    CHECK_EQ(value->size, 0);
    switch (p->what) {
    case 0: return KV_NOT_FOUND;
    case 1: return KV_ERR_IO;
    default:
        CHECK_OK(kv_buf_append(value, old));
        return kv_buf_append(value, p->value);
    }
}
static bool view(void *user, kv_slice key, kv_slice value)
{
    (void)key;
    CHECK_OK(kv_buf_assign((kv_buf *)user, value));
    return true;
}

static size_t value_size(test_rng *r, const setup *s) { return (size_t)test_below(r, test_one_in(r, 20) ? s->value_max + 1 : 20); }

static void one_write(kv_mem *m, truth *t, test_rng *r, const setup *s, kv_slice key, char *bytes)
{
    const test_entry *old = truth_get(t, key);
    uint64_t          expiry = truth_expiry(t, key), ttl = test_one_in(r, 3) && s->ttl ? 1 + test_below(r, 50) : 0, left;
    kv_slice          value = kv_bytes(bytes, value_size(r, s));
    int64_t           n = 0, delta = (int64_t)test_below(r, 100) - 50;
    kv_value          v;
    update_plan       p;
    memset(bytes, (int)test_below(r, 256), value.size);
    switch (test_below(r, 14)) {
    case 0: case 1: case 2:
        CHECK_OK(kv_mem_set(m, key, value));
        truth_set(t, key, value, 0);
        break;
    case 3:
        CHECK_OK(kv_mem_set_ttl(m, key, value, ttl));
        truth_set(t, key, value, ttl ? t->now + ttl : 0);
        break;
    case 4:
        CHECK_STATUS(kv_mem_insert(m, key, value), old ? KV_EXISTS : KV_OK);
        if (!old) truth_set(t, key, value, 0);
        break;
    case 5:
        if (old && test_one_in(r, 2)) {
            char *copy = test_copy(test_entry_value(old));
            CHECK_OK(kv_mem_compare_and_set(m, key, kv_bytes(copy, old->value_size), value));
            free(copy);
            truth_set(t, key, value, expiry);
        } else {
            bool same = old && kv_equal(test_entry_value(old), KV_STR("no"));
            CHECK_STATUS(kv_mem_compare_and_set(m, key, KV_STR("no"), value), same ? KV_OK : old ? KV_ERR_CONFLICT : KV_NOT_FOUND);
            if (same) truth_set(t, key, value, expiry);
        }
        break;
    case 6:
        if (!old || (kv_value_decode(test_entry_value(old), &v) == KV_OK && v.type == KV_INT64)) {
            uint8_t encoded[9] = { KV_INT64 };
            int64_t wanted = (old ? v.as.int64 : 0);
            if (delta > 0 ? wanted > INT64_MAX - delta : wanted < INT64_MIN - delta) { CHECK_STATUS(kv_mem_increment(m, key, delta, &n), KV_ERR_INVALID); break; }
            wanted += delta;
            CHECK_OK(kv_mem_increment(m, key, delta, &n));
            CHECK_EQ(n, wanted);
            for (int i = 0; i < 8; i++) encoded[1 + i] = (uint8_t)((uint64_t)wanted >> (8 * i));
            truth_set(t, key, kv_bytes(encoded, 9), expiry);
        } else CHECK_STATUS(kv_mem_increment(m, key, delta, &n), KV_ERR_WRONG_TYPE);
        break;
    case 7:
        p.what = (int)test_below(r, 5);
        p.old = old;
        p.value = kv_bytes(bytes, value.size % 10);
        CHECK_STATUS(kv_mem_update(m, key, update, &p), p.what == 1 ? KV_ERR_IO : KV_OK);
        if (p.what == 0) truth_delete(t, key);
        else if (p.what > 1) {
            size_t size = (old ? old->value_size : 0) + p.value.size;
            char  *sum = (char *)malloc(size + 1);
            if (old) memcpy(sum, old->value, old->value_size);
            memcpy(sum + size - p.value.size, bytes, p.value.size);
            truth_set(t, key, kv_bytes(sum, size), expiry);
            free(sum);
        }
        break;
    case 8:
        CHECK_STATUS(kv_mem_expire(m, key, ttl), old ? KV_OK : KV_NOT_FOUND);
        if (old) {
            uint64_t at = t->now + ttl;
            if (ttl) test_model_set(&t->expiries, key, kv_bytes(&at, 8)); else test_model_delete(&t->expiries, key);
        }
        break;
    case 9:
        CHECK_STATUS(kv_mem_ttl(m, key, &left), old ? KV_OK : KV_NOT_FOUND);
        if (old) CHECK(left == (expiry ? expiry - t->now : UINT64_MAX));
        break;
    default:
        CHECK_OK(kv_mem_delete(m, key));
        truth_delete(t, key);
        break;
    }
}

static void one_read(kv_mem *m, truth *t, test_rng *r, kv_slice key, kv_buf *got)
{
    const test_entry *e = truth_get(t, key);
    kv_status         wanted = e ? KV_OK : KV_NOT_FOUND;
    kv_slice          peeked;
    switch (test_below(r, 4)) {
    case 0: CHECK_STATUS(kv_mem_exists(m, key), wanted); return;
    case 1: CHECK_STATUS(kv_mem_view(m, key, view, got), wanted); break;
    case 2:
        CHECK_STATUS(kv_mem_peek(m, key, &peeked), wanted);
        if (e) CHECK_BYTES(peeked, test_entry_value(e));
        return;
    default: CHECK_STATUS(kv_mem_get(m, key, got), wanted); break;
    }
    if (e) CHECK_BYTES(kv_buf_slice(got), test_entry_value(e));
}

static void batches(kv_mem *m, truth *t, test_rng *r, const setup *s, char *memory, char *bytes)
{
    kv_slice  keys[150];
    kv_pair   pairs[150] = { { { NULL, 0 }, { NULL, 0 } } };
    kv_buf    values[150];
    kv_status statuses[150];
    size_t    n = (size_t)test_below(r, 150), at = 0;
    memset(values, 0, sizeof values);
    for (size_t i = 0; i < n; i++) {
        char     key[65536];
        kv_slice k = test_key(s->keys == TEST_KEYS_LONG ? TEST_KEYS_BYTES : s->keys, test_below(r, s->key_count), key);
        memcpy(memory + at, k.data, k.size);
        keys[i] = pairs[i].key = kv_bytes(memory + at, k.size);
        at += k.size;
        pairs[i].value = kv_bytes(bytes, test_below(r, 40));
    }
    memset(bytes, (int)test_below(r, 256), 40);
    if (test_one_in(r, 3)) {
        CHECK_OK(kv_mem_batch_set(m, pairs, n));
        for (size_t i = 0; i < n; i++) { (void)truth_get(t, keys[i]); truth_set(t, keys[i], pairs[i].value, 0); }
    } else if (test_one_in(r, 2)) {
        CHECK_OK(kv_mem_batch_delete(m, keys, n));
        for (size_t i = 0; i < n; i++) truth_delete(t, keys[i]);
    }
    CHECK_OK(kv_mem_batch_get(m, keys, n, values, test_one_in(r, 4) ? NULL : statuses));
    CHECK_OK(kv_mem_batch_get(m, keys, n, values, statuses));
    for (size_t i = 0; i < n; i++) {
        const test_entry *e = truth_get(t, keys[i]);
        CHECK_STATUS(statuses[i], e ? KV_OK : KV_NOT_FOUND);
        if (e) CHECK_BYTES(kv_buf_slice(&values[i]), test_entry_value(e));
        kv_buf_free(&values[i]);
    }
}

/* Any key. Long ones are made once and kept: to write them would be most of what an operation costs. */
static kv_slice any_key(const setup *s, kv_slice *kept, test_rng *r, char *out)
{
    uint64_t number = test_below(r, s->key_count);
    if (!kept) return test_key(s->keys, number, out);
    if (!kept[number].data) {
        kept[number] = test_key(s->keys, number, out);
        kept[number].data = test_copy(kept[number]);
    }
    return kept[number];
}

static void run(const setup *s)
{
    static char    key[65536], prefix[65536], memory[150 * 65536];
    char          *bytes = (char *)malloc(s->value_max + 64);
    test_rng       r = test_rng_new();
    test_memory    mem;
    truth          t;
    kv_mem_options o;
    kv_mem        *m;
    kv_buf         got;
    kv_slice      *kept = s->keys == TEST_KEYS_LONG ? (kv_slice *)calloc((size_t)s->key_count, sizeof *kept) : NULL;
    size_t         operations = test_scaled(s->operations);
    memset(&mem, 0, sizeof mem);
    memset(&t, 0, sizeof t);
    memset(&o, 0, sizeof o);
    memset(&got, 0, sizeof got);
    t.now = 1000;
    o.allocator = test_allocator(&mem);
    o.single_thread = s->single_thread;
    o.shards = s->shards;
    o.memory_limit_bytes = s->limit;
    o.capacity = s->capacity;
    o.now_ms = truth_clock;
    o.now_user = &t;
    o.seed = s->capacity + 1;
    if (!CHECK_OK(kv_mem_open(&o, &m))) return;
#if KVI_MEM_LANES
    if (test_one_in(&r, 2)) kvi_mem_secrets(m);             /* the hash of maps that were given no seed */
#endif
    for (size_t i = 0; i < operations && !test_failed_checks; i++) {
        kv_slice k = any_key(s, kept, &r, key);
        uint64_t dice = test_below(&r, 8000);
        if (dice < 1) {
            kv_range range;
            memset(&range, 0, sizeof range);
            if (test_one_in(&r, 2)) { range.prefix = any_key(s, kept, &r, prefix); range.prefix.size /= 2; }
            if (test_one_in(&r, 3)) range.from = k;
            check_all(m, &t, test_one_in(&r, 4) ? NULL : &range);
        } else if (dice < 17) {
            if (s->ttl) t.now += test_below(&r, 20);
        } else if (dice < 21) {
            size_t most = (size_t)test_below(&r, 50), swept = kv_mem_sweep(m, most);
            CHECK(swept <= most);
        } else if (dice < 25) {
            if (test_one_in(&r, 20)) { kv_mem_clear(m); test_model_free(&t.values); test_model_free(&t.expiries); CHECK_EQ(kv_mem_count(m), 0); }
        } else if (test_one_in(&r, 100)) batches(m, &t, &r, s, memory, bytes);
        else if (test_one_in(&r, 3)) one_write(m, &t, &r, s, k, bytes);
        else one_read(m, &t, &r, k, &got);
    }
    check_all(m, &t, NULL);
    kv_mem_close(m);
    kv_buf_free(&got);
    free(bytes);
    for (uint64_t i = 0; kept && i < s->key_count; i++) free((void *)(uintptr_t)kept[i].data);
    free(kept);
    test_model_free(&t.values);
    test_model_free(&t.expiries);
    CHECK_EQ(mem.live_bytes, 0);
    CHECK_EQ(mem.live_blocks, 0);
}

#define MODEL(name, ...) TEST(mem_model, name) { setup s = { #name, __VA_ARGS__ }; run(&s); }
/*                  one thread  shards  limit    capacity  keys             how many  values up to  operations  ttl */
MODEL(one_thread,       true,   0,      0,       0,     TEST_KEYS_TEXT,     1200,     600,       1000000,  false)
MODEL(one_thread_ttl,   true,   0,      0,       0,     TEST_KEYS_BYTES,    3000,     200,       1000000,  true)
MODEL(shared,           false,  4,      0,       0,     TEST_KEYS_TEXT,     1200,     5000,      1000000,  true)
MODEL(default_shards,   false,  0,      0,       0,     TEST_KEYS_INTEGERS, 3000,     100,       1000000,  true)
MODEL(tiny_keys,        false,  2,      0,       0,     TEST_KEYS_TINY,     500,      70000,     1000000,  true)
MODEL(dense_keys,       true,   2,      0,       5000,  TEST_KEYS_DENSE,    6000,     30,        1000000,  false)
MODEL(long_keys,        false,  1,      0,       0,     TEST_KEYS_LONG,     32,       40000,     1000000,  true)
MODEL(large_values,     true,   0,      0,       0,     TEST_KEYS_BYTES,    200,      200000,    1000000,  true)
MODEL(wide_limit,       false,  2, 1 << 30,      0,     TEST_KEYS_BYTES,    1000,     40000,     1000000,  true)
MODEL(wide_limit_one,   true,   0, 1 << 30,      100,   TEST_KEYS_TEXT,     1200,     300,       1000000,  true)

TEST_MAIN()
