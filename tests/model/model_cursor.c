/* model_cursor.c
   Goal: whatever the range, its limit and direction, a cursor of kv.h stands where the contract says
   after any sequence of first, last, next, prev and seek; a scan and a count agree; a failing move and
   a failing allocation are reported and leave a cursor that can be moved again.
   Method: the range's entries as a list of positions in a sorted array; random moves on the cursor
   and on an index into that list. The store below (ref_store.h) poisons what a move made stale. */
#define KV_CORE_IMPLEMENTATION
#include "../../kv.h"
#include "../kv_test.h"
#include "../ref_store.h"

static char key_memory[65536];

/* A key of the kind, an existing one, or one cut short or made longer. */
static kv_slice some_key(test_rng *r, const test_model *m, test_key_kind kind)
{
    kv_slice k = test_key(kind, test_below(r, 300), key_memory);
    if (m->count && test_one_in(r, 2)) {
        const test_entry *e = &m->entries[test_below(r, m->count)];
        memcpy(key_memory, e->key, e->key_size);
        k = kv_bytes(key_memory, e->key_size);
    }
    if (k.size && test_one_in(r, 3)) k.size = (size_t)test_below(r, k.size + 1);
    if (k.size < sizeof key_memory - 1 && test_one_in(r, 6)) { key_memory[k.size] = (char)(test_one_in(r, 2) ? 0 : 0xFF); k.size++; }
    return k;
}

/* A random range in memory of its own, so that it can be taken away after the open. */
typedef struct own_range { kv_range range; char *parts[3]; } own_range;
static own_range random_range(test_rng *r, const test_model *m, test_key_kind kind)
{
    own_range o;
    memset(&o, 0, sizeof o);
    for (int part = 0; part < 3; part++) {
        kv_slice k = some_key(r, m, kind), *to = part == 0 ? &o.range.prefix : part == 1 ? &o.range.from : &o.range.to;
        if (!test_one_in(r, 3)) continue;
        if (part == 0 && k.size > 3) k.size = (size_t)test_below(r, 4);
        o.parts[part] = ref_exact_copy(k);
        *to = kv_bytes(o.parts[part], k.size);
    }
    if (test_one_in(r, 2)) o.range.limit = 1 + (size_t)test_below(r, m->count + 2);
    if (test_one_in(r, 20)) o.range.limit = SIZE_MAX - (size_t)test_below(r, 2);
    o.range.reverse = test_one_in(r, 2);
    return o;
}
static void free_range(own_range *o)
{
    const kv_slice *sizes[3];
    sizes[0] = &o->range.prefix; sizes[1] = &o->range.from; sizes[2] = &o->range.to;
    for (int part = 0; part < 3; part++) {
        if (o->parts[part]) memset(o->parts[part], 0xEE, sizes[part]->size);
        free(o->parts[part]);
        o->parts[part] = NULL;
    }
}

static void fill_store(ref_store *s, test_rng *r, test_key_kind kind, size_t count)
{
    for (size_t n = 0; n < count; n++) {
        char     text[32];
        kv_slice k = test_key(kind, test_below(r, 300), key_memory);
        test_model_set(&s->model, k, kv_bytes(text, (size_t)snprintf(text, sizeof text, "value %d", (int)n)));
    }
}

/* Where the contract puts a cursor that seeks `key`: the first of the list that is not before it. */
static size_t model_seek(const test_model *m, const size_t *list, size_t count, bool reverse, kv_slice key)
{
    for (size_t j = 0; j < count; j++) {
        int order = kv_compare(test_entry_key(&m->entries[list[j]]), key);
        if (reverse ? order <= 0 : order >= 0) return j;
    }
    return count;
}

static bool same_place(const kv_iter *i, const test_model *m, const size_t *list, size_t count, size_t at)
{
    if (!CHECK_EQ(kv_iter_valid(i), at < count) || !CHECK_STATUS(kv_iter_status(i), KV_OK)) return false;
    if (at >= count) return CHECK(kv_iter_key(i).size == 0 && kv_iter_value(i).size == 0);
    return CHECK_BYTES(kv_iter_key(i), test_entry_key(&m->entries[list[at]])) && CHECK_BYTES(kv_iter_value(i), test_entry_value(&m->entries[list[at]]));
}

static bool random_moves(test_rng *r, ref_store *s, test_key_kind kind, size_t moves)
{
    own_range o = random_range(r, &s->model, kind);
    kv_range  range = o.range;
    kv_iter  *i = NULL;
    size_t    count, *list = test_model_range(&s->model, &range, &count), at = 0;
    bool      ok = CHECK_OK(kv_iter_open(&s->store, test_one_in(r, 30) && !range.prefix.data && !range.from.data && !range.to.data && !range.limit && !range.reverse ? NULL : &o.range, &i));
    free_range(&o);
    if (!ok) { free(list); return false; }
    ok = same_place(i, &s->model, list, count, at);
    while (ok && moves--) {
        switch (test_below(r, 8)) {
        case 0: kv_iter_first(i); at = 0; break;
        case 1: kv_iter_last(i); at = count ? count - 1 : 0; break;
        case 2: case 3: kv_iter_next(i); if (at < count) at++; break;
        case 4: case 5: kv_iter_prev(i); if (at < count) at = at ? at - 1 : count; break;
        case 6:
            if (kv_iter_valid(i) && test_one_in(r, 4)) { kv_iter_seek(i, kv_iter_key(i)); break; }  /* its own key: it stays */
            /* fall through */
        default: {
            kv_slice key = some_key(r, &s->model, kind);
            at = model_seek(&s->model, list, count, range.reverse, key);
            kv_iter_seek(i, key);
            break;
        }
        }
        ok = same_place(i, &s->model, list, count, at);
    }
    kv_iter_close(i);
    free(list);
    return ok && CHECK_EQ(s->cursors, 0);
}

TEST(cursor, random_moves_on_random_ranges)
{
    test_rng r = test_rng_new();
    static const test_key_kind kinds[] = { TEST_KEYS_TINY, TEST_KEYS_TINY, TEST_KEYS_BYTES, TEST_KEYS_TEXT, TEST_KEYS_DENSE };
    size_t stores = test_scaled(400);
    for (size_t n = 0; n < stores; n++) {
        ref_store     s;
        test_key_kind kind = kinds[test_below(&r, sizeof kinds / sizeof *kinds)];
        bool          ok = true;
        ref_store_init(&s);
        fill_store(&s, &r, kind, (size_t)test_below(&r, test_one_in(&r, 4) ? 4 : 50));
        for (int k = 0; ok && k < 40; k++) ok = random_moves(&r, &s, kind, 30);
        test_model_free(&s.model);
        if (!ok) { fprintf(stderr, "in store %d\n", (int)n); return; }
    }
}

/* ---- scan and count by the cursor, and by a scan of the store's own ---- */

typedef struct visited { const test_model *m; const size_t *list; size_t count, seen, stop_at; bool ok; } visited;
static bool visit_in_order(void *user, kv_slice key, kv_slice value)
{
    visited *v = (visited *)user;
    if (v->seen >= v->count || !kv_equal(key, test_entry_key(&v->m->entries[v->list[v->seen]])) || !kv_equal(value, test_entry_value(&v->m->entries[v->list[v->seen]]))) v->ok = false;
    return ++v->seen != v->stop_at;
}
TEST(cursor, scan_and_count_agree_with_the_range)
{
    test_rng r = test_rng_new();
    size_t   rounds = test_scaled(4000);
    for (size_t n = 0; n < rounds; n++) {
        ref_store s;
        own_range o;
        visited   v;
        uint64_t  counted = 77;
        size_t   *list;
        memset(&v, 0, sizeof v);
        ref_store_init(&s);
        fill_store(&s, &r, TEST_KEYS_TINY, (size_t)test_below(&r, 30));
        if (test_one_in(&r, 2)) { s.ops.scan = ref_scan; if (test_one_in(&r, 2)) s.ops.iter_open = NULL; }
        o = random_range(&r, &s.model, TEST_KEYS_TINY);
        list = test_model_range(&s.model, &o.range, &v.count);
        v.m = &s.model; v.list = list; v.ok = true;
        CHECK_OK(kv_scan(&s.store, &o.range, visit_in_order, &v));
        CHECK(v.ok && v.seen == v.count);
        CHECK_OK(kv_count(&s.store, &o.range, &counted));
        CHECK_EQ(counted, v.count);
        if (v.count) {
            v.seen = 0;
            v.stop_at = 1 + (size_t)test_below(&r, v.count);
            CHECK_OK(kv_scan(&s.store, &o.range, visit_in_order, &v));
            CHECK_EQ(v.seen, v.stop_at);
        }
        free(list);
        free_range(&o);
        CHECK_EQ(s.cursors, 0);
        test_model_free(&s.model);
    }
}

TEST(cursor, a_scan_may_read_the_store_and_open_cursors)
{
    ref_store s;
    kv_iter  *outer, *inner;
    uint64_t  pairs = 0, n;
    ref_store_init(&s);
    for (int k = 0; k < 20; k++) { char c = (char)('a' + k); test_model_set(&s.model, kv_bytes(&c, 1), kv_bytes(&c, 1)); }
    CHECK_OK(kv_iter_open(&s.store, NULL, &outer));
    for (; kv_iter_valid(outer); kv_iter_next(outer)) {
        kv_range r;
        memset(&r, 0, sizeof r);
        r.from = kv_iter_key(outer);                /* the range is copied, so the outer one may go on */
        CHECK_OK(kv_iter_open(&s.store, &r, &inner));
        for (; kv_iter_valid(inner); kv_iter_next(inner)) pairs++;
        kv_iter_close(inner);
        CHECK_OK(kv_count(&s.store, &r, &n));
    }
    kv_iter_close(outer);
    CHECK_EQ(pairs, 20 * 21 / 2);
    test_model_free(&s.model);
}

/* ---- failures ---- */

TEST(cursor, a_failing_move_is_reported_and_the_cursor_can_be_revived)
{
    test_rng r = test_rng_new();
    size_t   rounds = test_scaled(3000), failures = 0;
    for (size_t n = 0; n < rounds; n++) {
        ref_store s;
        own_range o;
        kv_iter  *i = NULL;
        kv_status opened;
        size_t    count, *list, at = 0;
        uint64_t  counted;
        ref_store_init(&s);
        fill_store(&s, &r, TEST_KEYS_TINY, (size_t)test_below(&r, 12));
        o = random_range(&r, &s.model, TEST_KEYS_TINY);
        list = test_model_range(&s.model, &o.range, &count);
        s.fail_with = test_one_in(&r, 2) ? KV_ERR_IO : KV_ERR_CORRUPT;
        s.moves_until_failure = 1 + (size_t)test_below(&r, 8);
        opened = kv_iter_open(&s.store, &o.range, &i);
        if (opened < 0) {
            CHECK_STATUS(opened, s.fail_with);
            CHECK(i == NULL);
            failures++;
        } else {
            for (int move = 0; move < 12; move++) {
                bool pending = s.moves_until_failure != 0;
                size_t before = at;
                switch (test_below(&r, 5)) {
                case 0: kv_iter_last(i); at = count ? count - 1 : 0; break;
                case 1: { kv_slice key = some_key(&r, &s.model, TEST_KEYS_TINY); at = model_seek(&s.model, list, count, o.range.reverse, key); kv_iter_seek(i, key); break; }
                case 2: kv_iter_prev(i); if (at < count) at = at ? at - 1 : count; break;
                case 3: kv_iter_first(i); at = 0; break;
                default: kv_iter_next(i); if (at < count) at++; break;
                }
                if (pending && !s.moves_until_failure) {
                    CHECK(!kv_iter_valid(i));
                    CHECK_STATUS(kv_iter_status(i), s.fail_with);
                    failures++;
                    if (test_one_in(&r, 3)) { kv_slice key = some_key(&r, &s.model, TEST_KEYS_TINY); at = model_seek(&s.model, list, count, o.range.reverse, key); kv_iter_seek(i, key); }
                    else if (test_one_in(&r, 2)) { kv_iter_last(i); at = count ? count - 1 : 0; }
                    else { kv_iter_first(i); at = 0; }
                }
                (void)before;
                if (!same_place(i, &s.model, list, count, at)) break;
            }
            kv_iter_close(i);
        }
        s.moves_until_failure = 1;                  /* scan and count pass the failure on */
        if (count || o.range.limit == 0) {
            kv_status status = kv_count(&s.store, &o.range, &counted);
            if (s.moves_until_failure == 0) CHECK_STATUS(status, s.fail_with); else CHECK_OK(status);
        }
        CHECK_EQ(s.cursors, 0);
        free(list);
        free_range(&o);
        test_model_free(&s.model);
    }
    CHECK(failures > rounds / 4);
}

TEST(cursor, without_memory_it_says_so_and_leaks_nothing)
{
    test_rng r = test_rng_new();
    size_t   rounds = test_scaled(300);
    for (size_t n = 0; n < rounds; n++) {
        ref_store   s;
        own_range   o;
        test_memory m;
        size_t      count, *list;
        memset(&m, 0, sizeof m);
        ref_store_init(&s);
        fill_store(&s, &r, TEST_KEYS_BYTES, 12);
        s.allocator = test_allocator(&m);
        o = random_range(&r, &s.model, TEST_KEYS_BYTES);
        if (o.range.limit > 12) o.range.limit = 3;
        list = test_model_range(&s.model, &o.range, &count);
        for (size_t fail = 1; fail < 40; fail++) {
            kv_iter  *i = NULL;
            kv_status opened;
            m.calls = 0;
            m.fail_at = fail;
            m.failed = false;
            opened = kv_iter_open(&s.store, &o.range, &i);
            if (opened < 0) {
                CHECK_STATUS(opened, KV_ERR_NO_MEMORY);
                CHECK(i == NULL && m.failed);
            } else {
                kv_iter_last(i);
                if (kv_iter_status(i) < 0) {
                    CHECK_STATUS(kv_iter_status(i), KV_ERR_NO_MEMORY);
                    CHECK(!kv_iter_valid(i) && m.failed);
                    kv_iter_last(i);                /* there is memory again */
                }
                same_place(i, &s.model, list, count, count ? count - 1 : 0);
                kv_iter_first(i);
                same_place(i, &s.model, list, count, 0);
                kv_iter_close(i);
            }
            CHECK_EQ(m.live_bytes, 0);
            CHECK_EQ(s.cursors, 0);
            if (!m.failed) break;
        }
        CHECK(!m.failed);
        free(list);
        free_range(&o);
        test_model_free(&s.model);
    }
}

TEST(cursor, seeking_its_own_key_takes_memory_from_its_own_allocator)
{
    ref_store   s;
    test_memory m;
    kv_iter    *i;
    memset(&m, 0, sizeof m);
    ref_store_init(&s);
    s.allocator = test_allocator(&m);
    test_model_set(&s.model, KV_STR("a"), KV_STR("1"));
    test_model_set(&s.model, KV_STR("ab"), KV_STR("2"));
    CHECK_OK(kv_iter_open(&s.store, NULL, &i));
    kv_iter_next(i);
    kv_iter_seek(i, kv_bytes(kv_iter_key(i).data, 1));      /* the beginning of it */
    CHECK_BYTES(kv_iter_key(i), KV_STR("a"));
    m.fail_at = m.calls + 1;
    kv_iter_seek(i, kv_iter_key(i));
    CHECK(m.failed && !kv_iter_valid(i));
    CHECK_STATUS(kv_iter_status(i), KV_ERR_NO_MEMORY);
    kv_iter_seek(i, KV_STR("aa"));
    CHECK_BYTES(kv_iter_key(i), KV_STR("ab"));
    kv_iter_close(i);
    CHECK_EQ(m.live_bytes, 0);
    test_model_free(&s.model);
}

TEST(cursor, arguments_that_are_wrong)
{
    ref_store s;
    kv_iter  *i = (kv_iter *)&s;
    kv_range  r;
    uint64_t  n;
    ref_store_init(&s);
    memset(&r, 0, sizeof r);
    r.prefix = kv_bytes(NULL, 3);
    CHECK_STATUS(kv_iter_open(&s.store, &r, &i), KV_ERR_INVALID);
    CHECK(i == NULL);
    CHECK_STATUS(kv_scan(&s.store, &r, visit_in_order, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_count(&s.store, &r, &n), KV_ERR_INVALID);
    CHECK_STATUS(kv_iter_open(NULL, NULL, &i), KV_ERR_INVALID);
    CHECK_STATUS(kv_iter_open(&s.store, NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_iter_start(NULL, NULL), KV_ERR_INVALID);
    CHECK(!kv_iter_valid(NULL) && kv_iter_key(NULL).size == 0 && kv_iter_value(NULL).size == 0);
    CHECK_STATUS(kv_iter_status(NULL), KV_ERR_INVALID);
    kv_iter_next(NULL); kv_iter_prev(NULL); kv_iter_first(NULL); kv_iter_last(NULL); kv_iter_seek(NULL, KV_STR("x")); kv_iter_close(NULL);
    memset(&r, 0, sizeof r);
    r.from = r.to = kv_bytes(NULL, 5);              /* a bound without data does not count, whatever its size */
    CHECK_OK(kv_iter_open(&s.store, &r, &i));
    kv_iter_close(i);
    CHECK_EQ(s.cursors, 0);
}

TEST_MAIN()
