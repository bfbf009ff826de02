/* model_fst.c
   Goal: a frozen map answers every question as a sorted array does: get, rank, select, scans and cursors
   both ways, ranges, prefixes and counts, for keys of every kind, in all three kinds of values.
   Method: build from a random model, or one of real words, URLs or paths, then ask random questions of both.
   Small memory limits make the builder drain and retrain in the middle. Set operations on three maps are
   compared with what counting, key by key, says that they are. */
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

/* A value that is short mostly, sometimes long, sometimes all zeros. */
static kv_slice some_value(test_rng *r, char *out, size_t most)
{
    size_t size = test_one_in(r, 50) ? (size_t)test_below(r, most) : (size_t)test_below(r, 12);
    for (size_t k = 0; k < size; k++) out[k] = (char)test_random(r);
    if (test_one_in(r, 3)) memset(out, 0, size);
    return kv_bytes(out, size);
}

#define RANGES (KVI_SMALL ? 15 : 60)        /* a step back spells half a leaf there */
static void ask_everything(const test_model *m, test_key_kind kind, kv_fst_values values, size_t limit)
{
    static char key[65536], other[65536];
    test_rng    r = test_rng_new();
    kv_buf      bytes, again, buf;
    kv_fst     *f;
    memset(&bytes, 0, sizeof bytes);
    memset(&again, 0, sizeof again);
    memset(&buf, 0, sizeof buf);
    f = build(m, values, limit, &bytes);
    if (f) {
        CHECK_OK(kv_fst_check(f));
        CHECK_EQ(kv_fst_count(f), m->count);
        for (size_t i = 0; i < 400; i++) ask_key(f, m, values, some_key(&r, m, kind, key), &buf);
        for (size_t i = 0; i < m->count; i += 1 + m->count / 500) {
            CHECK_OK(kv_fst_select(f, i, &buf));
            CHECK_BYTES(kv_buf_slice(&buf), test_entry_key(&m->entries[i]));
            ask_key(f, m, values, test_entry_key(&m->entries[i]), &buf);
        }
        CHECK_STATUS(kv_fst_select(f, m->count, &buf), KV_NOT_FOUND);
        ask_range(f, m, values, NULL);
        for (size_t i = 0; i < RANGES; i++) {
            kv_range range;
            memset(&range, 0, sizeof range);
            if (test_one_in(&r, 2)) range.from = some_key(&r, m, kind, key);
            if (test_one_in(&r, 2)) range.to = some_key(&r, m, kind, other);
            if (test_one_in(&r, 3)) { range.prefix = range.from; range.prefix.size /= 2; range.from = kv_bytes(NULL, 0); }
            if (test_one_in(&r, 2)) range.limit = (size_t)test_below(&r, 100);
            range.reverse = test_one_in(&r, 2);
            ask_range(f, m, values, &range);
        }
        kv_fst_close(f);
        f = build(m, values, limit, &again);
        CHECK_BYTES(kv_buf_slice(&again), kv_buf_slice(&bytes));        /* the same input, the same bytes */
        kv_fst_close(f);
    }
    kv_buf_free(&bytes);
    kv_buf_free(&again);
    kv_buf_free(&buf);
}

static void run(test_key_kind kind, size_t count, uint64_t space, kv_fst_values values, size_t limit)
{
    static char key[65536], value[4000];
    test_rng    r = test_rng_new();
    test_model  m;
    memset(&m, 0, sizeof m);
    for (size_t i = 0; i < count; i++) {
        kv_slice v = some_value(&r, value, sizeof value);
        test_model_set(&m, test_key(kind, test_below(&r, space), key), v);
    }
    ask_everything(&m, kind, values, limit);
    test_model_free(&m);
}

/* ---- families of real keys, from the machine; where they are missing the test is skipped ---- */

static void run_lines(const char *command, size_t most, kv_fst_values values, size_t limit)
{
    static char line[70000], value[200];
    FILE       *lines = popen(command, "r");
    test_rng    r = test_rng_new();
    test_model  m;
    memset(&m, 0, sizeof m);
    while (lines && m.count < most && fgets(line, sizeof line, lines)) {
        kv_slice v = some_value(&r, value, sizeof value);
        test_model_set(&m, kv_bytes(line, strcspn(line, "\n")), v);
    }
    if (lines) pclose(lines);
    if (!m.count) TEST_SKIP("these keys are not on this machine");
    else ask_everything(&m, TEST_KEYS_TEXT, values, limit);
    test_model_free(&m);
}
#define WORDS "cat /usr/share/dict/american-english-insane /usr/share/dict/words 2>/dev/null | LC_ALL=C sort -u"
#define URLS  "zstd -dc ../shared/data/urls-200k.sorted.txt.zst 2>/dev/null"
#define PATHS "zstd -dc ../shared/data/paths-1m.sorted.txt.zst 2>/dev/null"
TEST(fst_family, words)                 { run_lines(WORDS, test_scaled(50000), KV_FST_U64, 0); }
TEST(fst_family, urls)                  { run_lines(URLS, test_scaled(30000), KV_FST_SET, 0); }
TEST(fst_family, urls_in_little_memory) { run_lines(URLS, test_scaled(30000), KV_FST_BYTES, 1 << 20); }
TEST(fst_family, paths)                 { run_lines(PATHS, test_scaled(50000), KV_FST_U64, 0); }

/* ---- set operations: three maps from one space of keys, against what counting says ---- */

#define MAPS 3
enum { MERGE, INTERSECT, SUBTRACT, SYMMETRIC, OPERATIONS };

/* The values that there are, one behind the other; of numbers their sum. Keys whose last byte is 1 modulo 8
   are dropped. */
typedef struct resolver { kv_fst_values values; } resolver;
static kv_status resolve(void *user, kv_slice key, const kv_slice *values, size_t count, kv_buf *result)
{
    const resolver *r = (const resolver *)user;
    uint64_t        sum = 0;
    uint8_t         bytes[8];
    if (key.size && (((const uint8_t *)key.data)[key.size - 1] & 7u) == 1) return KV_NOT_FOUND;
    for (size_t i = 0; i < count; i++) {
        if (!values[i].data) continue;
        if (r->values == KV_FST_BYTES) { if (kv_buf_append(result, values[i]) < 0) return KV_ERR_NO_MEMORY; }
        else if (r->values == KV_FST_U64) sum += number_of(values[i]);
    }
    if (r->values != KV_FST_U64) return KV_OK;
    for (int k = 0; k < 8; k++) bytes[k] = (uint8_t)(sum >> (8 * k));
    return kv_buf_assign(result, kv_bytes(bytes, 8));
}

/* What an operation gives, by its definition. */
static void expect(const test_model *maps, int operation, bool resolved, kv_fst_values values, test_model *out)
{
    test_model all;
    resolver   how = { values };
    kv_buf     value;
    memset(&all, 0, sizeof all);
    memset(&value, 0, sizeof value);
    for (size_t i = 0; i < MAPS; i++) for (size_t k = 0; k < maps[i].count; k++) test_model_set(&all, test_entry_key(&maps[i].entries[k]), kv_bytes("", 0));
    for (size_t k = 0; k < all.count; k++) {
        kv_slice key = test_entry_key(&all.entries[k]), having[MAPS], winner = kv_bytes(NULL, 0);
        uint8_t  scratch[MAPS][8];
        size_t   count = 0;
        for (size_t i = MAPS; i-- > 0;) {
            size_t at = test_model_lower(&maps[i], key);
            having[i] = kv_bytes(NULL, 0);
            if (at == maps[i].count || !kv_equal(test_entry_key(&maps[i].entries[at]), key)) continue;
            winner = having[i] = expected_value(&maps[i], at, values, scratch[i]);
            count++;
        }
        if (operation == INTERSECT ? count < MAPS : operation == SUBTRACT ? count > 1 || !having[0].data : operation == SYMMETRIC && count % 2 == 0) continue;
        if (resolved && count > 1) {
            value.size = 0;
            if (resolve(&how, key, having, MAPS, &value) != KV_OK) continue;
            winner = kv_buf_slice(&value);
        }
        test_model_set(out, key, winner);
    }
    test_model_free(&all);
    kv_buf_free(&value);
}

static void operate(kv_fst *const *maps, const test_model *models, int operation, bool resolved, kv_fst_values values)
{
    kv_fst_build_options o;
    kv_fst_builder      *b;
    kv_fst              *f = NULL;
    kv_buf               bytes;
    test_model           m;
    resolver             how = { values };
    kv_fst_merge_fn      fn = resolved ? resolve : NULL;
    memset(&o, 0, sizeof o);
    memset(&bytes, 0, sizeof bytes);
    memset(&m, 0, sizeof m);
    o.values = values;
    if (!CHECK_OK(kv_fst_build_begin(&o, to_buf, &bytes, &b))) return;
    CHECK_OK(operation == MERGE ? kv_fst_merge(maps, MAPS, fn, &how, b) : operation == INTERSECT ? kv_fst_intersect(maps, MAPS, fn, &how, b)
             : operation == SUBTRACT ? kv_fst_subtract(maps, MAPS, fn, &how, b) : kv_fst_symmetric(maps, MAPS, fn, &how, b));
    CHECK_OK(kv_fst_build_finish(b));
    expect(models, operation, resolved, values, &m);
    if (CHECK_OK(kv_fst_open_memory(NULL, kv_buf_slice(&bytes), &f))) {
        CHECK_EQ(kv_fst_count(f), m.count);
        CHECK_OK(kv_fst_check(f));
        ask_range(f, &m, values, NULL);
    }
    kv_fst_close(f);
    kv_buf_free(&bytes);
    test_model_free(&m);
}

/* Sizes differ, so that one map is stepped through while another is sought in. */
static void combine(test_key_kind kind, uint64_t space, size_t first, size_t second, size_t third, kv_fst_values values)
{
    static char key[65536], value[300];
    test_rng    r = test_rng_new();
    test_model  models[MAPS];
    kv_buf      bytes[MAPS];
    kv_fst     *maps[MAPS];
    size_t      counts[MAPS];
    bool        good = true;
    memset(models, 0, sizeof models);
    memset(bytes, 0, sizeof bytes);
    counts[0] = first;
    counts[1] = second;
    counts[2] = third;
    for (size_t i = 0; i < MAPS; i++) {
        for (size_t k = 0; k < counts[i]; k++) {
            kv_slice v = some_value(&r, value, sizeof value);
            test_model_set(&models[i], test_key(kind, test_below(&r, space), key), v);
        }
        maps[i] = build(&models[i], values, 0, &bytes[i]);
        good = good && maps[i];
    }
    for (int operation = 0; good && operation < OPERATIONS; operation++)
        for (int resolved = 0; resolved < 2; resolved++) operate(maps, models, operation, resolved != 0, values);
    for (size_t i = 0; i < MAPS; i++) { kv_fst_close(maps[i]); kv_buf_free(&bytes[i]); test_model_free(&models[i]); }
}
TEST(fst_sets, of_tiny_keys)
{
    combine(TEST_KEYS_TINY, 1000, 60, 60, 60, KV_FST_U64);
    combine(TEST_KEYS_TINY, 1000, 100, 0, 100, KV_FST_BYTES);
    combine(TEST_KEYS_TINY, 10, 30, 30, 30, KV_FST_SET);
}
TEST(fst_sets, of_text)
{
    combine(TEST_KEYS_TEXT, 3000, 2000, 2000, 2000, KV_FST_U64);
    combine(TEST_KEYS_TEXT, 3000, 50, 3000, 700, KV_FST_BYTES);
    combine(TEST_KEYS_TEXT, 3000, 3000, 50, 700, KV_FST_SET);
}
TEST(fst_sets, of_bytes_and_integers)
{
    combine(TEST_KEYS_BYTES, 2000, 1500, 800, 20, KV_FST_BYTES);
    combine(TEST_KEYS_DENSE, 5000, 4000, 4000, 4000, KV_FST_U64);
    combine(TEST_KEYS_LONG, 60, 30, 30, 30, KV_FST_SET);
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
