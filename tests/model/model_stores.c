/* model_stores.c
   Goal: every store keeps the same contract: what one takes, all take, and all give the same answers.
   Method: one list of stores behind kv_store (each module, each wrapped by compression, a wrapper in a
   wrapper), and for each the same edge cases and the same random history against a sorted array. */
#define KV_IMPLEMENTATION
#include "../../kv_mem.h"
#include "../../kv_art.h"
#include "../../kv_compress.h"
#include "../../kv_lsm.h"
#include "../kv_test.h"
#include "../kv_disk.h"

/* ---- the stores ---- */

typedef struct world {
    kv_mem        *mem;
    kv_art        *art;
    kv_lsm        *lsm;
    kv_compressed *outer[2];
    disk          *disk;
    kv_store      *store;
} world;

enum { IN_MEM, IN_MEM_ALONE, IN_ART, IN_ART_CONCURRENT, IN_LSM, STORES_INSIDE };
static const char *const inside_names[STORES_INSIDE] = { "mem", "mem single_thread", "art", "art concurrent", "lsm" };

static bool world_open(world *w, int inside, int layers)
{
    kv_mem_options      mem;
    kv_art_options      art;
    kv_lsm_options      lsm = kv_lsm_default();
    kv_compress_options pack;
    memset(w, 0, sizeof *w);
    memset(&mem, 0, sizeof mem);
    memset(&art, 0, sizeof art);
    memset(&pack, 0, sizeof pack);
    switch (inside) {
    case IN_MEM:
    case IN_MEM_ALONE:
        mem.single_thread = inside == IN_MEM_ALONE;
        if (!CHECK_OK(kv_mem_open(&mem, &w->mem))) return false;
        w->store = kv_mem_store(w->mem);
        break;
    case IN_ART:
    case IN_ART_CONCURRENT:
        art.concurrent = inside == IN_ART_CONCURRENT;
        if (!CHECK_OK(kv_art_open(&art, &w->art))) return false;
        w->store = kv_art_store(w->art);
        break;
    default:
        w->disk = disk_new();
        lsm.io = disk_io(w->disk);
        lsm.memtable_bytes = 64 << 10;
        lsm.block_bytes = 1024;
        lsm.cache_bytes = 1 << 20;
        lsm.no_background = true;
        if (!CHECK_OK(kv_lsm_open("db", &lsm, &w->lsm))) return false;
        w->store = kv_lsm_store(w->lsm);
        break;
    }
    for (int i = 0; i < layers; i++) {
        pack.codec = i ? KV_CODEC_LZ4 : KV_CODEC_ZSTD;
        if (!CHECK_OK(kv_compressed_open(w->store, &pack, &w->outer[i]))) return false;
        w->store = kv_compressed_store(w->outer[i]);
    }
    return true;
}
static void world_close(world *w)
{
    for (int i = 1; i >= 0; i--) kv_compressed_close(w->outer[i]);
    kv_mem_close(w->mem);
    kv_art_close(w->art);
    if (w->lsm) CHECK_OK(kv_lsm_close(w->lsm));
    if (w->disk) disk_free(w->disk);
}

/* Run `body` on every store, and say which one it was that failed. */
static void on_every_store(void (*body)(world *w))
{
    for (int inside = 0; inside < STORES_INSIDE; inside++)
        for (int layers = 0; layers < 3; layers++) {
            world  w;
            size_t failed = test_failed_checks;
            if (world_open(&w, inside, layers)) body(&w);
            world_close(&w);
            if (test_failed_checks > failed) printf("  ... in %s, under %d layers of compression\n", inside_names[inside], layers);
        }
}

/* ---- edge cases ---- */

static bool count_visit(void *user, kv_slice key, kv_slice value)
{
    (void)key; (void)value;
    ++*(size_t *)user;
    return true;
}
static bool stop_visit(void *user, kv_slice key, kv_slice value)
{
    (void)key; (void)value;
    ++*(size_t *)user;
    return false;
}

static void edges_of_keys(world *w)
{
    static char big[KV_KEY_SIZE_MAX + 1];
    kv_store   *s = w->store;
    kv_buf      v = { NULL, 0, 0, { NULL, NULL }, false };
    kv_slice    nothing = { NULL, 0 }, wrong = { NULL, 3 };
    memset(big, 'k', sizeof big);

    CHECK_STATUS(kv_get(s, nothing, &v), KV_NOT_FOUND);
    CHECK_OK(kv_set(s, nothing, KV_STR("empty key")));
    CHECK_OK(kv_get(s, KV_STR(""), &v));
    CHECK_BYTES(kv_buf_slice(&v), KV_STR("empty key"));
    CHECK_OK(kv_set(s, KV_STR("empty value"), nothing));
    CHECK_OK(kv_get(s, KV_STR("empty value"), &v));
    CHECK_EQ(v.size, 0);
    CHECK_OK(kv_exists(s, KV_STR("empty value")));
    CHECK_OK(kv_set(s, KV_STR("a\0b"), KV_STR("nul")));
    CHECK_STATUS(kv_exists(s, KV_STR("a")), KV_NOT_FOUND);
    CHECK_OK(kv_get(s, KV_STR("a\0b"), &v));
    CHECK_BYTES(kv_buf_slice(&v), KV_STR("nul"));
    CHECK_OK(kv_set(s, kv_bytes(big, KV_KEY_SIZE_MAX), KV_STR("longest")));
    CHECK_OK(kv_get(s, kv_bytes(big, KV_KEY_SIZE_MAX), &v));
    CHECK_BYTES(kv_buf_slice(&v), KV_STR("longest"));
    CHECK_STATUS(kv_exists(s, kv_bytes(big, KV_KEY_SIZE_MAX - 1)), KV_NOT_FOUND);

    CHECK_STATUS(kv_set(s, kv_bytes(big, sizeof big), KV_STR("x")), KV_ERR_TOO_LARGE);
    CHECK(kv_last_error(s)[0] != 0);
    CHECK_STATUS(kv_get(s, kv_bytes(big, sizeof big), &v), KV_ERR_TOO_LARGE);
    CHECK_STATUS(kv_delete(s, kv_bytes(big, sizeof big)), KV_ERR_TOO_LARGE);
    CHECK_STATUS(kv_set(s, KV_STR("value"), kv_bytes(big, (size_t)KV_VALUE_SIZE_MAX + 1)), KV_ERR_TOO_LARGE);
    CHECK_STATUS(kv_exists(s, KV_STR("value")), KV_NOT_FOUND);
    CHECK_STATUS(kv_set(s, wrong, KV_STR("x")), KV_ERR_INVALID);
    CHECK_STATUS(kv_set(s, KV_STR("x"), wrong), KV_ERR_INVALID);
    CHECK_STATUS(kv_get(s, wrong, &v), KV_ERR_INVALID);
    CHECK_STATUS(kv_get(s, KV_STR("x"), NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_get(NULL, KV_STR("x"), &v), KV_ERR_INVALID);
    CHECK_STATUS(kv_scan(s, NULL, NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_count(s, NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_view(s, KV_STR("x"), NULL, NULL), KV_ERR_INVALID);

    CHECK_OK(kv_delete(s, nothing));
    CHECK_STATUS(kv_exists(s, nothing), KV_NOT_FOUND);
    CHECK_OK(kv_delete(s, nothing));
    kv_buf_free(&v);
}
TEST(stores, edges_of_keys_and_values) { on_every_store(edges_of_keys); }

static void buffers(world *w)
{
    kv_store *s = w->store;
    char      memory[8];
    kv_buf    fixed = kv_buf_fixed(memory, sizeof memory), v = { NULL, 0, 0, { NULL, NULL }, false };
    size_t    n = 0;
    CHECK_OK(kv_set(s, KV_STR("k"), KV_STR("twelve bytes")));
    CHECK_OK(kv_buf_assign(&v, KV_STR("before")));
    CHECK_STATUS(kv_get(s, KV_STR("missing"), &v), KV_NOT_FOUND);
    CHECK_BYTES(kv_buf_slice(&v), KV_STR("before"));
    CHECK_STATUS(kv_get(s, KV_STR("k"), &fixed), KV_ERR_TOO_LARGE);
    CHECK_EQ(fixed.size, 12);
    CHECK_OK(kv_view(s, KV_STR("k"), count_visit, &n));
    CHECK_EQ(n, 1);
    CHECK_STATUS(kv_view(s, KV_STR("missing"), count_visit, &n), KV_NOT_FOUND);
    CHECK_EQ(n, 1);
    /* a key that lies in the buffer which the value goes to */
    CHECK_OK(kv_buf_assign(&v, KV_STR("k")));
    CHECK_OK(kv_get(s, kv_buf_slice(&v), &v));
    CHECK_BYTES(kv_buf_slice(&v), KV_STR("twelve bytes"));
    kv_buf_free(&v);
}
TEST(stores, buffers) { on_every_store(buffers); }

static void batches(world *w)
{
    kv_store *s = w->store;
    kv_pair   pairs[4];
    kv_slice  keys[4];
    kv_buf    values[4];
    kv_status statuses[4];
    memset(values, 0, sizeof values);
    pairs[0].key = KV_STR("a"); pairs[0].value = KV_STR("1");
    pairs[1].key = KV_STR("b"); pairs[1].value = KV_STR("2");
    pairs[2].key = KV_STR("a"); pairs[2].value = KV_STR("3");
    pairs[3].key = KV_STR("");  pairs[3].value = KV_STR("");
    CHECK_OK(kv_batch_set(s, pairs, 4));
    keys[0] = KV_STR("a"); keys[1] = KV_STR("missing"); keys[2] = KV_STR("a"); keys[3] = KV_STR("");
    CHECK_OK(kv_batch_get(s, keys, 4, values, statuses));
    CHECK(statuses[0] == KV_OK && statuses[1] == KV_NOT_FOUND && statuses[2] == KV_OK && statuses[3] == KV_OK);
    CHECK_BYTES(kv_buf_slice(&values[0]), KV_STR("3"));
    CHECK_BYTES(kv_buf_slice(&values[2]), KV_STR("3"));
    CHECK_EQ(values[3].size, 0);
    CHECK_OK(kv_batch_get(s, keys, 4, values, NULL));
    CHECK_OK(kv_batch_delete(s, keys, 2));
    CHECK_STATUS(kv_exists(s, KV_STR("a")), KV_NOT_FOUND);
    CHECK_OK(kv_exists(s, KV_STR("b")));
    CHECK_OK(kv_batch_set(s, NULL, 0));
    CHECK_OK(kv_batch_get(s, NULL, 0, NULL, NULL));
    CHECK_OK(kv_batch_delete(s, NULL, 0));
    for (int i = 0; i < 4; i++) kv_buf_free(&values[i]);
}
TEST(stores, batches) { on_every_store(batches); }

static void typed(world *w)
{
    kv_store *s = w->store;
    int64_t   n = 0;
    double    f = 0;
    bool      b = false;
    kv_buf    text = { NULL, 0, 0, { NULL, NULL }, false };
    kv_value  v;
    CHECK_OK(kv_set_int64(s, KV_STR("n"), INT64_MIN));
    CHECK_OK(kv_get_int64(s, KV_STR("n"), &n));
    CHECK(n == INT64_MIN);
    CHECK_OK(kv_set_float64(s, KV_STR("f"), -0.5));
    CHECK_OK(kv_get_float64(s, KV_STR("f"), &f));
    CHECK(f == -0.5);
    CHECK_OK(kv_set_bool(s, KV_STR("b"), true));
    CHECK_OK(kv_get_bool(s, KV_STR("b"), &b));
    CHECK(b);
    CHECK_OK(kv_set_string(s, KV_STR("s"), KV_STR("")));
    CHECK_OK(kv_get_string(s, KV_STR("s"), &text));
    CHECK_EQ(text.size, 0);
    CHECK_STATUS(kv_get_int64(s, KV_STR("f"), &n), KV_ERR_WRONG_TYPE);
    CHECK_STATUS(kv_get_string(s, KV_STR("n"), &text), KV_ERR_WRONG_TYPE);
    CHECK_STATUS(kv_get_bytes(s, KV_STR("s"), &text), KV_ERR_WRONG_TYPE);
    CHECK_STATUS(kv_get_int64(s, KV_STR("missing"), &n), KV_NOT_FOUND);
    CHECK_OK(kv_get_value(s, KV_STR("n"), &v, &text));
    CHECK(v.type == KV_INT64 && v.as.int64 == INT64_MIN);
    kv_buf_free(&text);
}
TEST(stores, typed_values) { on_every_store(typed); }

/* A sum that no int64 holds is refused, by every store alike, and changes nothing. */
static kv_status increment_in(world *w, int64_t delta, int64_t *result)
{
    return w->mem ? kv_mem_increment(w->mem, KV_STR("n"), delta, result) : kv_lsm_increment(w->lsm, KV_STR("n"), delta, result);
}
static void increments(world *w)
{
    int64_t n = 0;
    if (w->art || w->outer[0]) return;                          /* art has no increment; a wrapper hides the store's own calls */
    CHECK_OK(increment_in(w, INT64_MAX - 1, &n));
    CHECK_OK(increment_in(w, 1, &n));
    CHECK(n == INT64_MAX);
    CHECK_STATUS(increment_in(w, 1, &n), KV_ERR_INVALID);
    CHECK_STATUS(increment_in(w, INT64_MAX, &n), KV_ERR_INVALID);
    CHECK_OK(kv_get_int64(w->store, KV_STR("n"), &n));
    CHECK(n == INT64_MAX);
    CHECK_OK(kv_set_int64(w->store, KV_STR("n"), INT64_MIN + 1));
    CHECK_OK(increment_in(w, -1, &n));
    CHECK(n == INT64_MIN);
    CHECK_STATUS(increment_in(w, -1, &n), KV_ERR_INVALID);
    CHECK_STATUS(increment_in(w, INT64_MIN, NULL), KV_ERR_INVALID);
    CHECK_OK(kv_get_int64(w->store, KV_STR("n"), &n));
    CHECK(n == INT64_MIN);
}
TEST(stores, increments_that_do_not_fit) { on_every_store(increments); }

/* ---- a random history ---- */

typedef struct seen { world *w; const test_model *model; const size_t *wanted; size_t count, at; bool ordered, right; test_model got; } seen;

static bool compare_visit(void *user, kv_slice key, kv_slice value)
{
    seen             *v = (seen *)user;
    const test_entry *e;
    if (v->at >= v->count) { v->right = false; return false; }
    if (v->ordered) e = &v->model->entries[v->wanted[v->at]];
    else e = test_model_get(v->model, key);
    if (!e || !kv_equal(test_entry_key(e), key) || !kv_equal(test_entry_value(e), value)) v->right = false;
    if (!v->ordered) test_model_set(&v->got, key, value);      /* each once: counted at the end */
    if (v->at % 37 == 0 && kv_exists(v->w->store, key) != KV_OK) v->right = false;   /* a callback may read */
    v->at++;
    return v->right;
}
static void check_range(world *w, const test_model *m, const kv_range *range)
{
    seen      v;
    uint64_t  count = 0;
    memset(&v, 0, sizeof v);
    v.w = w;
    v.model = m;
    v.ordered = (kv_store_caps(w->store) & KV_CAP_ORDERED) != 0;
    v.right = true;
    v.wanted = test_model_range(m, range, &v.count);
    CHECK_OK(kv_scan(w->store, range, compare_visit, &v));
    CHECK(v.right);
    CHECK_EQ(v.at, v.count);
    if (!v.ordered) CHECK_EQ(v.got.count, v.count);
    CHECK_OK(kv_count(w->store, range, &count));
    CHECK_EQ(count, v.count);
    free((void *)(uintptr_t)v.wanted);
    test_model_free(&v.got);
}
/* Walk a cursor at random beside positions in the model's list. */
static void check_cursor(world *w, const test_model *m, const kv_range *range, test_rng *r)
{
    kv_iter *i;
    size_t   count, *wanted = test_model_range(m, range, &count);
    long     at = 0;
    if (!(kv_store_caps(w->store) & KV_CAP_ORDERED)) {
        CHECK_STATUS(kv_iter_open(w->store, range, &i), KV_ERR_UNSUPPORTED);
        free(wanted);
        return;
    }
    if (!CHECK_OK(kv_iter_open(w->store, range, &i))) { free(wanted); return; }
    for (int move = 0; move < 40; move++) {
        bool inside = at >= 0 && at < (long)count;
        if (!CHECK_EQ(kv_iter_valid(i), inside)) break;
        if (inside) {
            const test_entry *e = &m->entries[wanted[at]];
            CHECK_BYTES(kv_iter_key(i), test_entry_key(e));
            CHECK_BYTES(kv_iter_value(i), test_entry_value(e));
        }
        CHECK_OK(kv_iter_status(i));
        switch (inside ? test_below(r, 6) : test_below(r, 3)) {
        case 0: kv_iter_first(i); at = 0; break;
        case 1: kv_iter_last(i); at = (long)count - 1; break;
        case 2: {                                           /* to a key that is there, or just after one */
            size_t   k = m->count ? (size_t)test_below(r, m->count) : 0;
            kv_buf   key = { NULL, 0, 0, { NULL, NULL }, false };
            if (m->count) CHECK_OK(kv_buf_assign(&key, test_entry_key(&m->entries[k])));
            if (test_one_in(r, 3) && key.size < KV_KEY_SIZE_MAX) CHECK_OK(kv_buf_append(&key, KV_STR("\0")));
            kv_iter_seek(i, kv_buf_slice(&key));
            for (at = 0; at < (long)count; at++) {
                int order = kv_compare(test_entry_key(&m->entries[wanted[at]]), kv_buf_slice(&key));
                if (range && range->reverse ? order <= 0 : order >= 0) break;
            }
            kv_buf_free(&key);
            break;
        }
        case 3: kv_iter_prev(i); at--; break;
        default: kv_iter_next(i); at++; break;
        }
    }
    kv_iter_close(i);
    free(wanted);
}
static kv_range random_range(test_rng *r, test_key_kind kind, char *a, char *b, char *c)
{
    kv_range range;
    memset(&range, 0, sizeof range);
    if (test_one_in(r, 3)) {
        range.prefix = test_key(kind, test_below(r, 600), a);
        range.prefix.size = (size_t)test_below(r, range.prefix.size + 1);
    }
    if (test_one_in(r, 2)) range.from = test_key(kind, test_below(r, 600), b);
    if (test_one_in(r, 2)) range.to = test_key(kind, test_below(r, 600), c);
    if (test_one_in(r, 3)) range.limit = (size_t)test_below(r, 20);
    range.reverse = test_one_in(r, 2);
    return range;
}

static void history(world *w)
{
    test_rng   r = test_rng_new();
    test_model m = { NULL, 0, 0 };
    kv_buf     v = { NULL, 0, 0, { NULL, NULL }, false };
    char      *a = (char *)malloc(65536), *b = (char *)malloc(65536), *c = (char *)malloc(65536), *value = (char *)malloc(5000);
    size_t     stopped = 0;
    for (int kind = 0; kind < TEST_KEY_KINDS; kind++) {
        size_t steps = test_scaled(kind == TEST_KEYS_LONG ? 150 : 1500);
        for (size_t step = 0; step < steps; step++) {
            kv_slice          key = test_key((test_key_kind)kind, test_below(&r, 600), a), val;
            const test_entry *e = test_model_get(&m, key);
            kv_status         got;
            size_t            n;
            switch (test_below(&r, 8)) {
            case 0: case 1: case 2:
                n = (size_t)(test_one_in(&r, 20) ? test_below(&r, 5000) : test_below(&r, 40));
                memset(value, (int)test_below(&r, 256), n);
                val = kv_bytes(value, n);
                if (!CHECK_OK(kv_set(w->store, key, val))) break;
                test_model_set(&m, key, val);
                break;
            case 3:
                CHECK_OK(kv_delete(w->store, key));
                test_model_delete(&m, key);
                break;
            case 4: case 5:
                got = kv_get(w->store, key, &v);
                if (!CHECK_STATUS(got, e ? KV_OK : KV_NOT_FOUND)) break;
                if (e) CHECK_BYTES(kv_buf_slice(&v), test_entry_value(e));
                break;
            case 6:
                CHECK_STATUS(kv_exists(w->store, key), e ? KV_OK : KV_NOT_FOUND);
                break;
            default:
                if (test_one_in(&r, 10)) {
                    kv_range range = random_range(&r, (test_key_kind)kind, a, b, c);
                    check_range(w, &m, &range);
                    check_cursor(w, &m, &range, &r);
                }
                break;
            }
            if (w->lsm && test_one_in(&r, 400)) CHECK_OK(kv_lsm_flush(w->lsm));
            if (w->lsm && test_one_in(&r, 100)) CHECK(kv_lsm_step(w->lsm) >= 0);
        }
    }
    check_range(w, &m, NULL);
    check_cursor(w, &m, NULL, &r);
    if (m.count) {
        CHECK_OK(kv_scan(w->store, NULL, stop_visit, &stopped));
        CHECK_EQ(stopped, 1);
    }
    test_model_free(&m);
    kv_buf_free(&v);
    free(a); free(b); free(c); free(value);
}
TEST(stores, the_same_history) { on_every_store(history); }

TEST_MAIN()
