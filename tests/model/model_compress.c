/* model_compress.c
   Goal: a store behind the wrapper answers every call as a sorted array does, whatever codec, filter and
   dictionary, and whatever the store inside can and cannot do.
   Method: a random history of sets, deletes, batches, reads, scans, cursors and counts on the wrapper
   and on the model, compared after every step; now and then the wrapper is closed and opened again with
   other options over the same inner store, as the values say themselves how to read them. */
#define KV_COMPRESS_IMPLEMENTATION
#include "../../kv_compress.h"
#include "../ref_store.h"

static char key_bytes[65536];
static uint8_t value_bytes[40000];

static kv_slice random_key(test_rng *r, char *out) { return test_key(test_one_in(r, 2) ? TEST_KEYS_TINY : TEST_KEYS_TEXT, test_below(r, 300), out); }

/* Text, noise, numbers or runs, of any size. */
static kv_slice random_value(test_rng *r, uint8_t *out)
{
    size_t   size = (size_t)test_below(r, test_one_in(r, 20) ? sizeof value_bytes : test_one_in(r, 3) ? 3000 : 200);
    uint64_t kind = test_below(r, 4), seed = test_random(r);
    for (size_t i = 0; i < size; i++) {
        switch (kind) {
        case 0:  out[i] = (uint8_t)"{\"name\": \"somebody\", \"age\": 42} "[(i + seed) % 32]; break;
        case 1:  out[i] = (uint8_t)test_random(r); break;
        case 2:  out[i] = i % 2 ? (uint8_t)(0x3E + test_below(r, 3)) : (uint8_t)test_random(r); break;
        default: out[i] = (uint8_t)(i / 100 * seed); break;
        }
    }
    return kv_bytes(out, size);
}

typedef struct world {
    ref_store      inner;
    kv_compressed *c;
    kv_store      *s;
    test_model     model;
    kv_buf         dictionary, value;
    test_rng       r;
} world;

static void reopen(world *w)
{
    kv_compress_options o;
    memset(&o, 0, sizeof o);
    o.codec = (kv_codec)test_below(&w->r, 4);
    o.filter = (kv_filter)test_below(&w->r, 7);
    o.element_size = 1u << test_below(&w->r, 4);
    if (test_one_in(&w->r, 3)) o.element_size = 0;
    if (test_one_in(&w->r, 3)) o.size_min = test_one_in(&w->r, 2) ? KV_NONE : 500;
    o.dictionary = kv_buf_slice(&w->dictionary);    /* always: some values were packed with it */
    kv_compressed_close(w->c);
    CHECK_OK(kv_compressed_open(&w->inner.store, &o, &w->c));
    w->s = kv_compressed_store(w->c);
}

/* ---- writing ---- */

static void do_set(world *w)
{
    kv_slice key = random_key(&w->r, key_bytes), value = random_value(&w->r, value_bytes);
    CHECK_OK(kv_set(w->s, key, value));
    test_model_set(&w->model, key, value);
}
static void do_delete(world *w)
{
    kv_slice key = random_key(&w->r, key_bytes);
    CHECK_OK(kv_delete(w->s, key));
    (void)test_model_delete(&w->model, key);
}

#define BATCH 50
static char     batch_keys[BATCH][1024];
static kv_slice batch_key[BATCH];
static void make_batch(world *w, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        kv_slice k = random_key(&w->r, key_bytes);
        memcpy(batch_keys[i], k.data, k.size);
        batch_key[i] = kv_bytes(batch_keys[i], k.size);
    }
}
static void do_batch_set(world *w)
{
    kv_pair pairs[BATCH];
    size_t  count = (size_t)test_below(&w->r, BATCH + 1);
    make_batch(w, count);
    for (size_t i = 0; i < count; i++) {
        kv_slice v = random_value(&w->r, value_bytes);
        if (v.size > sizeof value_bytes / BATCH) v.size = sizeof value_bytes / BATCH;
        pairs[i].key = batch_key[i];
        pairs[i].value = kv_bytes(test_copy(v), v.size);
    }
    CHECK_OK(kv_batch_set(w->s, pairs, count));
    for (size_t i = 0; i < count; i++) { test_model_set(&w->model, pairs[i].key, pairs[i].value); free((void *)(uintptr_t)pairs[i].value.data); }
}
static void do_batch_delete(world *w)
{
    size_t count = (size_t)test_below(&w->r, 6);
    make_batch(w, count);
    CHECK_OK(kv_batch_delete(w->s, batch_key, count));
    for (size_t i = 0; i < count; i++) (void)test_model_delete(&w->model, batch_key[i]);
}

/* ---- reading ---- */

typedef struct seen { kv_slice wanted; size_t calls; bool right; } seen;
static bool see_value(void *user, kv_slice key, kv_slice value)
{
    seen *s = (seen *)user;
    (void)key;
    s->calls++;
    s->right = kv_equal(value, s->wanted);
    return true;
}
static void do_get(world *w)
{
    kv_slice          key = random_key(&w->r, key_bytes);
    const test_entry *e = test_model_get(&w->model, key);
    seen              view;
    memset(&view, 0, sizeof view);
    if (e) view.wanted = test_entry_value(e);
    CHECK_STATUS(kv_get(w->s, key, &w->value), e ? KV_OK : KV_NOT_FOUND);
    if (e) CHECK(kv_equal(kv_buf_slice(&w->value), view.wanted));
    CHECK_STATUS(kv_exists(w->s, key), e ? KV_OK : KV_NOT_FOUND);
    CHECK_STATUS(kv_view(w->s, key, see_value, &view), e ? KV_OK : KV_NOT_FOUND);
    CHECK(!e || (view.right && view.calls == 1));
}
static void do_batch_get(world *w)
{
    kv_buf    values[BATCH];
    kv_status statuses[BATCH];
    size_t    count = (size_t)test_below(&w->r, BATCH + 1);
    bool      with_statuses = test_one_in(&w->r, 2);
    memset(values, 0, sizeof values);
    make_batch(w, count);
    CHECK_OK(kv_batch_get(w->s, batch_key, count, values, with_statuses ? statuses : NULL));
    for (size_t i = 0; i < count; i++) {
        const test_entry *e = test_model_get(&w->model, batch_key[i]);
        if (with_statuses) CHECK_STATUS(statuses[i], e ? KV_OK : KV_NOT_FOUND);
        CHECK(kv_equal(kv_buf_slice(&values[i]), e ? test_entry_value(e) : kv_bytes(NULL, 0)));
        kv_buf_free(&values[i]);
    }
}

typedef struct walk { const world *w; const size_t *list; size_t count, at, stop_at; bool right; } walk;
static bool walk_entry(void *user, kv_slice key, kv_slice value)
{
    walk *k = (walk *)user;
    const test_entry *e;
    if (k->at >= k->count) { k->right = false; return false; }
    e = &k->w->model.entries[k->list[k->at++]];
    if (!kv_equal(key, test_entry_key(e)) || !kv_equal(value, test_entry_value(e))) k->right = false;
    return k->at != k->stop_at;
}
static kv_range random_range(world *w, char *memory)
{
    kv_range range;
    kv_slice k;
    memset(&range, 0, sizeof range);
    if (test_one_in(&w->r, 3)) { k = random_key(&w->r, key_bytes); if (k.size > 3) k.size = (size_t)test_below(&w->r, k.size); memcpy(memory, k.data, k.size); range.prefix = kv_bytes(memory, k.size); }
    if (test_one_in(&w->r, 3)) { k = random_key(&w->r, key_bytes); memcpy(memory + 2000, k.data, k.size); range.from = kv_bytes(memory + 2000, k.size); }
    if (test_one_in(&w->r, 3)) { k = random_key(&w->r, key_bytes); memcpy(memory + 4000, k.data, k.size); range.to = kv_bytes(memory + 4000, k.size); }
    range.limit = test_one_in(&w->r, 2) ? 0 : (size_t)test_below(&w->r, 20);
    range.reverse = test_one_in(&w->r, 2);
    return range;
}
static void do_scan(world *w)
{
    static char memory[6000];
    kv_range range = random_range(w, memory);
    walk     k;
    uint64_t count = 0;
    size_t  *list;
    memset(&k, 0, sizeof k);
    k.w = w;
    k.list = list = test_model_range(&w->model, &range, &k.count);
    k.right = true;
    k.stop_at = test_one_in(&w->r, 4) ? 1 + (size_t)test_below(&w->r, 10) : 0;
    CHECK_OK(kv_scan(w->s, &range, walk_entry, &k));
    CHECK(k.right);
    CHECK_EQ(k.at, k.stop_at && k.stop_at < k.count ? k.stop_at : k.count);
    CHECK_OK(kv_count(w->s, &range, &count));
    CHECK_EQ(count, k.count);
    free(list);
}
static void do_cursor(world *w)
{
    static char memory[6000];
    kv_range range = random_range(w, memory);
    size_t   count, at = 0, *list = test_model_range(&w->model, &range, &count);
    kv_iter *i;
    if (!CHECK_OK(kv_iter_open(w->s, &range, &i))) { free(list); return; }
    for (int step = 0; step < 25; step++) {
        CHECK_EQ(kv_iter_valid(i), at < count);
        if (at >= count) break;
        CHECK(kv_equal(kv_iter_key(i), test_entry_key(&w->model.entries[list[at]])));
        if (test_one_in(&w->r, 2)) CHECK(kv_equal(kv_iter_value(i), test_entry_value(&w->model.entries[list[at]])));
        if (test_one_in(&w->r, 8)) CHECK(kv_equal(kv_iter_value(i), test_entry_value(&w->model.entries[list[at]])));
        switch (test_below(&w->r, 8)) {
        case 0:  kv_iter_last(i); at = count - 1; break;
        case 1:  kv_iter_first(i); at = 0; break;
        case 2:  if (at) { kv_iter_prev(i); at--; } break;
        case 3: {
            size_t to = (size_t)test_below(&w->r, count);
            kv_iter_seek(i, test_entry_key(&w->model.entries[list[to]]));
            at = to;
            break;
        }
        default: kv_iter_next(i); at++; break;
        }
    }
    CHECK_STATUS(kv_iter_status(i), KV_OK);
    kv_iter_close(i);
    free(list);
}

static void train(world *w)
{
    static uint8_t samples[400][200];
    kv_slice       list[400];
    test_rng       r = { 5 };
    for (size_t i = 0; i < 400; i++) {
        for (size_t k = 0; k < 200; k++) samples[i][k] = (uint8_t)"{\"name\": \"somebody\", \"age\": 42} "[(k + i) % 32];
        samples[i][test_below(&r, 200)] = (uint8_t)test_random(&r);
        list[i] = kv_bytes(samples[i], 200);
    }
    CHECK_OK(kv_compress_train(list, 400, 1024, &w->dictionary));
}

static void history(bool view, bool scan)
{
    world  w;
    size_t steps = test_scaled(6000);
    memset(&w, 0, sizeof w);
    w.r = test_rng_new();
    ref_store_init(&w.inner);
    if (view) w.inner.ops.view = ref_view;
    if (scan) w.inner.ops.scan = ref_scan;
    train(&w);
    reopen(&w);
    for (size_t i = 0; i < steps; i++) {
        switch (test_below(&w.r, 16)) {
        case 0: case 1: case 2: case 3: do_set(&w); break;
        case 4:  do_delete(&w); break;
        case 5:  do_batch_set(&w); break;
        case 6:  if (test_one_in(&w.r, 2)) do_batch_delete(&w); break;
        case 7: case 8: case 9: do_get(&w); break;
        case 10: case 11: do_batch_get(&w); break;
        case 12: if (test_one_in(&w.r, 4)) do_scan(&w); break;
        case 13: do_cursor(&w); break;
        case 14: if (test_one_in(&w.r, 30)) reopen(&w); break;
        default: do_get(&w); break;
        }
    }
    CHECK_EQ(w.inner.model.count, w.model.count);
    kv_compressed_close(w.c);
    CHECK_EQ(w.inner.cursors, 0);
    CHECK_OK(kv_close(&w.inner.store));
    test_model_free(&w.model);
    kv_buf_free(&w.dictionary);
    kv_buf_free(&w.value);
}

TEST(model_compress, over_a_store_with_everything) { history(true, true); }
TEST(model_compress, over_a_store_with_get_and_a_cursor_alone) { history(false, false); }

TEST_MAIN()
