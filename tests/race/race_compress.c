/* race_compress.c
   Goal: one compressor, and one wrapper around a store that threads may share, serve any number of
   threads at once: every value comes back, and no byte is shared that should not be.
   Method: threads pack and unpack with one compressor of each kind; threads set, get, view, scan and
   batch through one wrapper over a locked map, each on keys of its own; more calls at once than there
   are contexts. Run under ThreadSanitizer. */
#define KV_COMPRESS_IMPLEMENTATION
#include "../../kv_compress.h"
#include "../ref_store.h"

#define THREADS 8

static uint8_t corpus[4][20000];
static void make_corpus(void)
{
    test_rng r = { 3 };
    for (size_t i = 0; i < sizeof corpus[0]; i++) {
        corpus[0][i] = (uint8_t)"one value of many, and another one "[i % 35];
        corpus[1][i] = (uint8_t)test_random(&r);
        corpus[2][i] = i % 2 ? (uint8_t)(0x3E + test_below(&r, 2)) : (uint8_t)test_random(&r);
        corpus[3][i] = (uint8_t)(i >> 6);
    }
}

/* ---- one compressor ---- */

typedef struct worker { kv_compressor *c; kv_store *s; uint32_t number; size_t wrong; kvi_thread thread; } worker;

static void pack_and_unpack(void *argument)
{
    worker  *w = (worker *)argument;
    test_rng r = { w->number };
    kv_buf   packed, back;
    memset(&packed, 0, sizeof packed);
    memset(&back, 0, sizeof back);
    for (size_t i = 0; i < test_scaled(150); i++) {
        kv_slice raw = kv_bytes(corpus[test_below(&r, 4)], (size_t)test_below(&r, test_one_in(&r, 3) ? sizeof corpus[0] : 1000));
        if (kv_compress(w->c, raw, &packed) != KV_OK || kv_decompress(w->c, kv_buf_slice(&packed), &back) != KV_OK) { w->wrong++; continue; }
        if (!kv_equal(kv_buf_slice(&back), raw)) w->wrong++;
        if (packed.size > 9) {      /* failures, too: they write a text into the compressor */
            ((uint8_t *)packed.data)[packed.size / 2] ^= 4;
            w->wrong += kv_decompress(w->c, kv_buf_slice(&packed), &back) != KV_ERR_CORRUPT;
        }
    }
    kv_buf_free(&packed);
    kv_buf_free(&back);
}

static void run_workers(worker *w, size_t count, void (*run)(void *))
{
    size_t wrong = 0;
    for (size_t i = 0; i < count; i++) CHECK_OK(kvi_thread_start(&w[i].thread, run, &w[i]));
    for (size_t i = 0; i < count; i++) { kvi_thread_join(&w[i].thread); wrong += w[i].wrong; }
    CHECK_EQ(wrong, 0);
}

TEST(race_compress, threads_share_one_compressor)
{
    static worker w[THREADS];
    make_corpus();
    for (int codec = KV_CODEC_NONE; codec <= KV_CODEC_ZSTD; codec++) {
        for (int filter = KV_FILTER_NONE; filter <= KV_FILTER_AUTO; filter += 3) {
            kv_compress_options o;
            kv_compressor      *c;
            memset(&o, 0, sizeof o);
            o.codec = (kv_codec)codec;
            o.filter = (kv_filter)filter;
            if (filter == KV_FILTER_NONE) o.dictionary = kv_bytes(corpus[0], 500);
            CHECK_OK(kv_compressor_open(&o, &c));
            for (uint32_t i = 0; i < THREADS; i++) { w[i].c = c; w[i].number = i; w[i].wrong = 0; }
            run_workers(w, THREADS, pack_and_unpack);
            CHECK(strstr(kv_compressor_last_error(c), "damaged") != NULL);
            kv_compressor_close(c);
        }
    }
}

/* ---- one wrapper ---- */

/* A ref_store behind a lock; callbacks run under it, as those of a store with reader locks may. */
typedef struct locked_store { ref_store ref; pthread_mutex_t lock; } locked_store;
static locked_store *locked_of(kv_store *s) { return (locked_store *)(void *)s; }
static kv_status locked_get(kv_store *s, kv_slice key, kv_buf *value)
{
    kv_status status;
    pthread_mutex_lock(&locked_of(s)->lock);
    status = ref_get(s, key, value);
    pthread_mutex_unlock(&locked_of(s)->lock);
    return status;
}
static kv_status locked_view(kv_store *s, kv_slice key, kv_visit_fn visit, void *user)
{
    kv_status status;
    pthread_mutex_lock(&locked_of(s)->lock);
    status = ref_view(s, key, visit, user);
    pthread_mutex_unlock(&locked_of(s)->lock);
    return status;
}
static kv_status locked_set(kv_store *s, kv_slice key, kv_slice value)
{
    kv_status status;
    pthread_mutex_lock(&locked_of(s)->lock);
    status = ref_set(s, key, value);
    pthread_mutex_unlock(&locked_of(s)->lock);
    return status;
}
static kv_status locked_scan(kv_store *s, const kv_range *range, kv_visit_fn visit, void *user)
{
    kv_status status;
    pthread_mutex_lock(&locked_of(s)->lock);
    status = ref_scan(s, range, visit, user);
    pthread_mutex_unlock(&locked_of(s)->lock);
    return status;
}
static void locked_init(locked_store *l)
{
    ref_store_init(&l->ref);
    pthread_mutex_init(&l->lock, NULL);
    l->ref.ops.get = locked_get;
    l->ref.ops.view = locked_view;
    l->ref.ops.set = locked_set;
    l->ref.ops.scan = locked_scan;
    l->ref.ops.remove = NULL;
    l->ref.store.caps |= KV_CAP_THREADS;
}

static bool see_own(void *user, kv_slice key, kv_slice value)
{
    worker *w = (worker *)user;
    if (!key.size || ((const uint8_t *)key.data)[0] != w->number) return true;
    w->wrong += value.size < 1 || ((const uint8_t *)value.data)[value.size - 1] != w->number;
    return true;
}
static void use_wrapper(void *argument)
{
    worker  *w = (worker *)argument;
    test_rng r = { w->number * 77 };
    uint8_t  key[2], value[3000];
    kv_buf   got;
    memset(&got, 0, sizeof got);
    for (size_t i = 0; i < test_scaled(300); i++) {
        size_t   size = 1 + (size_t)test_below(&r, sizeof value);
        kv_slice k = kv_bytes(key, 2);
        kv_pair  pair;
        key[0] = (uint8_t)w->number;
        key[1] = (uint8_t)test_below(&r, 20);
        memcpy(value, corpus[test_below(&r, 4)], size);
        value[size - 1] = (uint8_t)w->number;
        pair.key = k;
        pair.value = kv_bytes(value, size);
        if (test_one_in(&r, 2)) {
            w->wrong += (test_one_in(&r, 2) ? kv_set(w->s, k, pair.value) : kv_batch_set(w->s, &pair, 1)) != KV_OK;
            w->wrong += kv_get(w->s, k, &got) != KV_OK || !kv_equal(kv_buf_slice(&got), pair.value);
        } else if (test_one_in(&r, 10)) w->wrong += kv_scan(w->s, NULL, see_own, w) != KV_OK;
        else w->wrong += kv_view(w->s, k, see_own, w) < 0;
    }
    kv_buf_free(&got);
}

TEST(race_compress, threads_share_one_wrapper)
{
    static worker     w[THREADS];
    locked_store      inner;
    kv_compressed    *c;
    kv_compress_stats stats;
    make_corpus();
    for (int codec = KV_CODEC_LZ4; codec <= KV_CODEC_ZSTD; codec++) {
        kv_compress_options o;
        memset(&o, 0, sizeof o);
        o.codec = (kv_codec)codec;
        locked_init(&inner);
        CHECK_OK(kv_compressed_open(&inner.ref.store, &o, &c));
        CHECK(kv_store_caps(kv_compressed_store(c)) & KV_CAP_THREADS);
        memset(w, 0, sizeof w);
        for (uint32_t i = 0; i < THREADS; i++) { w[i].s = kv_compressed_store(c); w[i].number = i; }
        run_workers(w, THREADS, use_wrapper);
        CHECK_OK(kv_compressed_stats(c, &stats));
        CHECK(stats.values > 0 && stats.packed_bytes < stats.raw_bytes);
        kv_compressed_close(c);
        CHECK_OK(kv_close(&inner.ref.store));
        pthread_mutex_destroy(&inner.lock);
    }
}

/* ---- more calls at once than contexts ---- */

#define CROWD (KVI_COMPRESS_CONTEXTS + 20)
static uint32_t crowd_waiting;

/* Holds a context until all the others hold theirs. */
static bool wait_for_all(void *user, kv_slice key, kv_slice value)
{
    worker *w = (worker *)user;
    (void)key;
    (void)kvi_add_u32(&crowd_waiting, 1);
    while (kvi_load_u32(&crowd_waiting) < CROWD) kvi_yield();
    w->wrong += value.size != 3000;
    return true;
}
static kv_status set_nothing(kv_store *s, kv_slice key, kv_slice value)
{
    (void)s; (void)key; (void)value;
    return KV_OK;
}
static void hold_one(void *argument)
{
    worker *w = (worker *)argument;
    w->wrong += kv_view(w->s, KV_STR("k"), wait_for_all, w) != KV_OK;
    w->wrong += kv_set(w->s, KV_STR("other"), kv_bytes(corpus[0], 3000)) != KV_OK;
}

TEST(race_compress, more_calls_at_once_than_contexts)
{
    static worker       w[CROWD];
    ref_store           inner;
    kv_compressed      *c;
    kv_compress_options o;
    kv_compress_stats   stats;
    test_memory         memory;
    make_corpus();
    memset(&o, 0, sizeof o);
    memset(&memory, 0, sizeof memory);
    o.allocator = test_allocator(&memory);
    ref_store_init(&inner);
    CHECK_OK(kv_compressed_open(&inner.store, &o, &c));
    CHECK_OK(kv_set(kv_compressed_store(c), KV_STR("k"), kv_bytes(corpus[0], 3000)));
    inner.ops.view = ref_view;                      /* without a lock: nobody writes from here on */
    inner.ops.set = set_nothing;
    for (uint32_t i = 0; i < CROWD; i++) { w[i].s = kv_compressed_store(c); w[i].wrong = 0; }
    run_workers(w, CROWD, hold_one);
    CHECK_OK(kv_compressed_stats(c, &stats));
    CHECK_EQ(stats.values, CROWD + 1);              /* also what was counted in contexts that are gone */
    kv_compressed_close(c);
    CHECK_EQ(memory.live_bytes, 0);
    CHECK_OK(kv_close(&inner.store));
}

TEST_MAIN()
