/* model_fst.c
   Goal: a frozen map answers every question as a sorted array does: get, rank, select, scans and cursors
   both ways, ranges, prefixes and counts, for keys of every kind, in all three kinds of values.
   Method: build from a random model, then ask random questions of both. Small memory limits make the
   builder drain and retrain in the middle. Set operations are compared with unions of the models. */
#define KV_FST_IMPLEMENTATION
#include "../../kv_fst.h"
#include "../kv_test.h"

static kv_status to_buf(void *user, const void *data, size_t size) { return kv_buf_append((kv_buf *)user, kv_bytes(data, size)); }

/* The value of a model's entry as a number: what its first bytes say. */
static uint64_t number_of(kv_slice value)
{
    uint64_t n = 0;
    for (size_t i = 0; i < value.size && i < 8; i++) n |= (uint64_t)((const uint8_t *)value.data)[i] << (8 * i);
    return n;
}

static kv_fst *build(const test_model *m, kv_fst_values values, size_t limit, kv_buf *bytes)
{
    kv_fst_build_options o;
    kv_fst_builder      *b;
    kv_fst              *f = NULL;
    kv_status            s;
    memset(&o, 0, sizeof o);
    o.values = values;
    o.memory_limit_bytes = limit;
    bytes->size = 0;
    if (!CHECK_OK(kv_fst_build_begin(&o, to_buf, bytes, &b))) return NULL;
    for (size_t i = 0; i < m->count; i++) {
        const test_entry *e = &m->entries[i];
        s = values == KV_FST_BYTES ? kv_fst_add_bytes(b, test_entry_key(e), test_entry_value(e))
                                   : kv_fst_add(b, test_entry_key(e), number_of(test_entry_value(e)));
        if (!CHECK_OK(s)) break;
    }
    CHECK_OK(kv_fst_build_finish(b));
    CHECK_OK(kv_fst_open_memory(NULL, kv_buf_slice(bytes), &f));
    return f;
}

static kv_slice expected_value(const test_model *m, size_t i, kv_fst_values values, uint8_t *scratch)
{
    uint64_t n;
    if (values == KV_FST_SET) return kv_bytes("", 0);
    if (values == KV_FST_BYTES) return test_entry_value(&m->entries[i]);
    n = number_of(test_entry_value(&m->entries[i]));
    for (int k = 0; k < 8; k++) scratch[k] = (uint8_t)(n >> (8 * k));
    return kv_bytes(scratch, 8);
}

typedef struct walk { const test_model *m; kv_fst_values values; const size_t *list; size_t count, at; bool good; } walk;
static bool visit(void *user, kv_slice key, kv_slice value)
{
    walk   *w = (walk *)user;
    uint8_t scratch[8];
    if (w->at >= w->count || !kv_equal(key, test_entry_key(&w->m->entries[w->list[w->at]]))
        || !kv_equal(value, expected_value(w->m, w->list[w->at], w->values, scratch))) { w->good = false; return false; }
    w->at++;
    return true;
}

static void ask_key(kv_fst *f, const test_model *m, kv_fst_values values, kv_slice key, kv_buf *buf)
{
    size_t   i = test_model_lower(m, key);
    bool     there = i < m->count && kv_equal(test_entry_key(&m->entries[i]), key);
    uint64_t n = 77;
    uint8_t  scratch[8];
    kv_status wanted = there ? KV_OK : KV_NOT_FOUND;
    CHECK_STATUS(kv_fst_rank(f, key, &n), wanted);
    CHECK_EQ(n, i);
    CHECK_STATUS(kv_fst_exists(f, key), wanted);
    CHECK_STATUS(kv_get(kv_fst_store(f), key, buf), wanted);
    if (there) CHECK_BYTES(kv_buf_slice(buf), expected_value(m, i, values, scratch));
    if (values != KV_FST_BYTES) {
        CHECK_STATUS(kv_fst_get(f, key, &n), wanted);
        if (there) CHECK(n == (values == KV_FST_SET ? 0 : number_of(test_entry_value(&m->entries[i]))));
    } else CHECK_STATUS(kv_fst_get(f, key, &n), KV_ERR_WRONG_TYPE);
}

static void ask_range(kv_fst *f, const test_model *m, kv_fst_values values, const kv_range *r)
{
    walk     w;
    size_t  *list;
    uint64_t n = 0;
    kv_iter *it;
    memset(&w, 0, sizeof w);
    w.list = list = test_model_range(m, r, &w.count);
    w.m = m;
    w.values = values;
    w.good = true;
    CHECK_OK(kv_fst_scan(f, r, visit, &w));
    CHECK(w.good && w.at == w.count);
    CHECK_OK(kv_count(kv_fst_store(f), r, &n));
    CHECK_EQ(n, w.count);
    if (CHECK_OK(kv_fst_iter_open(f, r, &it))) {
        w.at = 0;
        for (; kv_iter_valid(it); kv_iter_next(it)) if (!CHECK(visit(&w, kv_iter_key(it), kv_iter_value(it)))) break;
        CHECK_EQ(w.at, w.count);
        kv_iter_last(it);
        for (size_t i = w.count; i-- > 0 && CHECK(kv_iter_valid(it)); kv_iter_prev(it)) { w.at = i; if (!CHECK(visit(&w, kv_iter_key(it), kv_iter_value(it)))) break; }
        CHECK(!kv_iter_valid(it));
        CHECK_OK(kv_iter_status(it));
        kv_iter_close(it);
    }
    free(list);
}

static kv_slice some_key(test_rng *r, const test_model *m, test_key_kind kind, char *out)
{
    kv_slice key;
    if (m->count && test_one_in(r, 2)) {
        const test_entry *e = &m->entries[test_below(r, m->count)];
        size_t            size = e->key_size;
        memcpy(out, e->key, size);
        if (test_one_in(r, 2)) return kv_bytes(out, size);
        if (size && test_one_in(r, 2)) size = (size_t)test_below(r, size);
        else if (size < 65000 && test_one_in(r, 2)) out[size++] = (char)test_random(r);
        else if (size) out[test_below(r, size)] = (char)test_random(r);
        return kv_bytes(out, size);
    }
    key = test_key(kind, test_below(r, 100000), out);
    return key;
}

static void run(test_key_kind kind, size_t count, uint64_t space, kv_fst_values values, size_t limit)
{
    static char key[65536], other[65536], value[4000];
    test_rng    r = test_rng_new();
    test_model  m;
    kv_buf      bytes, again, buf;
    kv_fst     *f;
    memset(&m, 0, sizeof m);
    memset(&bytes, 0, sizeof bytes);
    memset(&again, 0, sizeof again);
    memset(&buf, 0, sizeof buf);
    for (size_t i = 0; i < count; i++) {
        size_t size = test_one_in(&r, 50) ? (size_t)test_below(&r, sizeof value) : (size_t)test_below(&r, 12);
        for (size_t k = 0; k < size; k++) value[k] = (char)test_random(&r);
        if (test_one_in(&r, 3)) memset(value, 0, size);
        test_model_set(&m, test_key(kind, test_below(&r, space), key), kv_bytes(value, size));
    }
    f = build(&m, values, limit, &bytes);
    if (f) {
        CHECK_EQ(kv_fst_count(f), m.count);
        for (size_t i = 0; i < 400; i++) ask_key(f, &m, values, some_key(&r, &m, kind, key), &buf);
        for (size_t i = 0; i < m.count; i += 1 + m.count / 500) {
            CHECK_OK(kv_fst_select(f, i, &buf));
            CHECK_BYTES(kv_buf_slice(&buf), test_entry_key(&m.entries[i]));
            ask_key(f, &m, values, test_entry_key(&m.entries[i]), &buf);
        }
        CHECK_STATUS(kv_fst_select(f, m.count, &buf), KV_NOT_FOUND);
        ask_range(f, &m, values, NULL);
        for (size_t i = 0; i < 60; i++) {
            kv_range range;
            memset(&range, 0, sizeof range);
            if (test_one_in(&r, 2)) range.from = some_key(&r, &m, kind, key);
            if (test_one_in(&r, 2)) range.to = some_key(&r, &m, kind, other);
            if (test_one_in(&r, 3)) { range.prefix = range.from; range.prefix.size /= 2; range.from = kv_bytes(NULL, 0); }
            if (test_one_in(&r, 2)) range.limit = (size_t)test_below(&r, 100);
            range.reverse = test_one_in(&r, 2);
            ask_range(f, &m, values, &range);
        }
        kv_fst_close(f);
        f = build(&m, values, limit, &again);
        CHECK_BYTES(kv_buf_slice(&again), kv_buf_slice(&bytes));        /* the same input, the same bytes */
        kv_fst_close(f);
    }
    kv_buf_free(&bytes);
    kv_buf_free(&again);
    kv_buf_free(&buf);
    test_model_free(&m);
}

TEST(fst_model, tiny_keys_that_are_prefixes_of_each_other)
{
    run(TEST_KEYS_TINY, 3, 100, KV_FST_U64, 0);
    run(TEST_KEYS_TINY, 400, 1000, KV_FST_U64, 0);
    run(TEST_KEYS_TINY, 400, 1000, KV_FST_BYTES, 0);
}
TEST(fst_model, random_bytes)
{
    run(TEST_KEYS_BYTES, 0, 10, KV_FST_U64, 0);
    run(TEST_KEYS_BYTES, 1, 10, KV_FST_BYTES, 0);
    run(TEST_KEYS_BYTES, 65, 100000, KV_FST_SET, 0);
    run(TEST_KEYS_BYTES, 3000, 1000000, KV_FST_U64, 0);
    run(TEST_KEYS_BYTES, 3000, 1000000, KV_FST_BYTES, 0);
}
TEST(fst_model, text)
{
    run(TEST_KEYS_TEXT, 3000, 1000000, KV_FST_SET, 0);
    run(TEST_KEYS_TEXT, 6000, 1000000, KV_FST_U64, 0);
    run(TEST_KEYS_TEXT, 4000, 1000000, KV_FST_BYTES, 0);
}
TEST(fst_model, integers)
{
    run(TEST_KEYS_DENSE, 6000, 5000, KV_FST_SET, 0);
    run(TEST_KEYS_DENSE, 6000, 20000, KV_FST_U64, 0);
    run(TEST_KEYS_INTEGERS, 6000, 20000, KV_FST_U64, 0);
}
TEST(fst_model, long_keys)
{
    run(TEST_KEYS_LONG, 60, 100000, KV_FST_U64, 0);
    run(TEST_KEYS_LONG, 150, 100000, KV_FST_BYTES, 1 << 20);
}
TEST(fst_model, small_memory_drains_in_the_middle)
{
    run(TEST_KEYS_TEXT, test_scaled(12000), 10000000, KV_FST_BYTES, 1 << 20);
    run(TEST_KEYS_BYTES, test_scaled(25000), 10000000, KV_FST_U64, 1 << 20);
}

TEST_MAIN()
