/* race_art.c
   Goal: any thread may use a concurrent kv_art at any time: no lost or torn entry, no key seen twice or
   out of order by a scan or a cursor, no memory freed under a reader, no deadlock.
   Method: threads that own some of the keys write and delete them, so each knows what it must find;
   others read, scan and move cursors over everything, and look at the values, each of which spells its
   own key. Keys that are never touched must be in every scan exactly once. Run under ThreadSanitizer;
   kv_art_check at the end of each. */
#define KV_ART_IMPLEMENTATION
#include "../../kv_art.h"
#include "../kv_test.h"

#define WRITERS 3
#define READERS 3

typedef struct shared {
    kv_art       *map;
    test_key_kind kind;
    uint32_t      key_space;
    size_t        steps;
    uint32_t      stop;
    size_t        wrong;
    uint64_t      fixed;            /* keys that nobody touches */
} shared;
typedef struct worker { shared *s; uint32_t number; uint64_t seed; kvi_thread thread; char key[65536], value[600]; } worker;

static void wrong(shared *s, const char *what)
{
    if (kvi_add_size(&s->wrong, 1) < 5) fprintf(stderr, "wrong: %s\n", what);
}

/* Numbers n with n % (WRITERS + 1) == w belong to writer w; those of the last residue are never
   touched. The writer's number is the key's last byte, so no two of them share a key. */
static kv_slice key_of(const shared *s, uint64_t number, char *out)
{
    kv_slice k = test_key(s->kind, number, out);
    if (k.size > 2000) k.size = 2000;
    out[k.size++] = (char)('0' + number % (WRITERS + 1));
    return kv_bytes(out, k.size);
}
/* A value: a sum over the key, a version, then the version again to the end. */
static uint32_t key_sum(kv_slice key) { return (uint32_t)kvi_hash(key.data, key.size, 3); }
static kv_slice value_of(kv_slice key, uint32_t version, char *out)
{
    uint32_t sum = key_sum(key), words = 2 + version % 5 + (version % 17 == 0 ? 60 : 0);
    memcpy(out, &sum, 4);
    for (uint32_t i = 1; i < words; i++) memcpy(out + 4 * i, &version, 4);
    return kv_bytes(out, words * 4);
}
static bool value_fits(kv_slice key, kv_slice value)
{
    uint32_t sum, version, again;
    if (value.size < 8 || value.size % 4) return false;
    memcpy(&sum, value.data, 4);
    memcpy(&version, (const char *)value.data + 4, 4);
    for (size_t i = 8; i < value.size; i += 4) {
        memcpy(&again, (const char *)value.data + i, 4);
        if (again != version) return false;
    }
    return sum == key_sum(key) && value.size == 4 * (2 + version % 5 + (version % 17 == 0 ? 60u : 0u));
}

typedef struct seen_value { kv_slice key; bool ok; uint32_t version; } seen_value;
static bool look(void *user, kv_slice key, kv_slice value)
{
    seen_value *v = (seen_value *)user;
    (void)key;
    v->ok = value_fits(v->key, value);
    memcpy(&v->version, (const char *)value.data + 4, 4);
    return true;
}

static void write_mine(void *argument)
{
    worker   *w = (worker *)argument;
    shared   *s = w->s;
    test_rng  rng = { w->seed };
    uint32_t *versions = (uint32_t *)calloc(s->key_space, sizeof *versions);    /* 0: not there */
    if (!versions) abort();
    for (size_t step = 0; step < s->steps; step++) {
        uint32_t   slot = (uint32_t)test_below(&rng, s->key_space);
        kv_slice   key = key_of(s, (uint64_t)slot * (WRITERS + 1) + w->number, w->key);
        seen_value v = { key, false, 0 };
        kv_status  st;
        switch (test_below(&rng, 4)) {
        case 0: case 1:
            st = kv_art_set(s->map, key, value_of(key, (uint32_t)step + 1, w->value));
            if (st != KV_OK) wrong(s, "a set failed");
            versions[slot] = (uint32_t)step + 1;
            break;
        case 2:
            st = kv_art_delete(s->map, key);
            if (st != (versions[slot] ? KV_OK : KV_NOT_FOUND)) wrong(s, "a delete found something else");
            versions[slot] = 0;
            break;
        default:
            st = kv_art_view(s->map, key, look, &v);
            if (st != (versions[slot] ? KV_OK : KV_NOT_FOUND)) wrong(s, "a key of mine is gone, or back");
            else if (st == KV_OK && (!v.ok || v.version != versions[slot])) wrong(s, "a value of mine is another");
        }
    }
    for (uint32_t slot = 0; slot < s->key_space; slot++) {
        kv_slice   key = key_of(s, (uint64_t)slot * (WRITERS + 1) + w->number, w->key);
        seen_value v = { key, false, 0 };
        kv_status  st = kv_art_view(s->map, key, look, &v);
        if (st != (versions[slot] ? KV_OK : KV_NOT_FOUND) || (st == KV_OK && (!v.ok || v.version != versions[slot]))) wrong(s, "at the end, a key of mine is wrong");
    }
    free(versions);
}

typedef struct scan_state { shared *s; char last[2048]; size_t last_size, count, fixed; bool down; } scan_state;
static bool scan_visit(void *user, kv_slice key, kv_slice value)
{
    scan_state *x = (scan_state *)user;
    int         order = x->count ? kv_compare(kv_bytes(x->last, x->last_size), key) : x->down ? 1 : -1;
    if (x->down ? order <= 0 : order >= 0) wrong(x->s, "a scan goes back");
    if (!value_fits(key, value)) wrong(x->s, "a scan sees a torn entry");
    if (((const char *)key.data)[key.size - 1] == (char)('0' + WRITERS)) x->fixed++;
    memcpy(x->last, key.data, key.size);
    x->last_size = key.size;
    x->count++;
    return true;
}
static void read_all(void *argument)
{
    worker    *w = (worker *)argument;
    shared    *s = w->s;
    test_rng   rng = { w->seed };
    scan_state x;
    kv_range   r;
    kv_pair    e;
    while (!kvi_load_u32(&s->stop)) {
        memset(&x, 0, sizeof x);
        memset(&r, 0, sizeof r);
        x.s = s;
        x.down = r.reverse = test_one_in(&rng, 2);
        if (test_one_in(&rng, 2)) {
            if (kv_art_scan(s->map, &r, scan_visit, &x) != KV_OK) wrong(s, "a scan failed");
        } else {
            kv_iter *i;
            if (kv_art_iter_open(s->map, &r, &i) != KV_OK) { wrong(s, "a cursor failed"); return; }
            for (; kv_iter_valid(i); kv_iter_next(i)) scan_visit(&x, kv_iter_key(i), kv_iter_value(i));
            if (kv_iter_status(i) != KV_OK) wrong(s, "a cursor ended with a failure");
            kv_iter_close(i);
        }
        if (x.fixed != s->fixed) wrong(s, "a scan missed a key that was there all the time, or saw one twice");
        for (int n = 0; n < 200; n++) {
            kv_slice   key = key_of(s, test_below(&rng, (uint64_t)s->key_space * (WRITERS + 1)), w->key);
            seen_value v = { key, true, 0 };
            kv_status  st = kv_art_view(s->map, key, look, &v);
            bool       fixed = ((const char *)key.data)[key.size - 1] == (char)('0' + WRITERS);
            if (!v.ok || (fixed && st != KV_OK)) wrong(s, "a reader sees a torn value, or misses a key");
        }
        if (kv_art_min(s->map, &e) == KV_OK && !value_fits(e.key, e.value)) wrong(s, "the first entry is torn");
        (void)kv_art_longest_prefix(s->map, key_of(s, test_below(&rng, s->key_space), w->key), &e);
        (void)kv_art_count(s->map);
    }
}

static void race(test_key_kind kind, uint32_t key_space, size_t steps)
{
    static worker  writers[WRITERS], readers[READERS];
    kv_art_options o;
    test_memory    heap;
    shared         s;
    test_rng       rng = test_rng_new();
    uint64_t       deleted;
    memset(&o, 0, sizeof o);
    memset(&s, 0, sizeof s);
    memset(&heap, 0, sizeof heap);
    o.concurrent = true;
    if (!CHECK_OK(kv_art_open(&o, &s.map))) return;
    s.kind = kind;
    s.key_space = key_space;
    s.steps = steps;
    for (uint32_t i = 0; i < key_space; i++) {
        kv_slice key = key_of(&s, (uint64_t)i * (WRITERS + 1) + WRITERS, writers[0].key);
        kv_status st = kv_art_insert(s.map, key, value_of(key, i + 1, writers[0].value));
        CHECK(st == KV_OK || st == KV_EXISTS);
        if (st == KV_OK) s.fixed++;
    }
    for (uint32_t i = 0; i < WRITERS; i++) { writers[i].s = &s; writers[i].number = i; writers[i].seed = test_random(&rng); CHECK_OK(kvi_thread_start(&writers[i].thread, write_mine, &writers[i])); }
    for (uint32_t i = 0; i < READERS; i++) { readers[i].s = &s; readers[i].number = i; readers[i].seed = test_random(&rng); CHECK_OK(kvi_thread_start(&readers[i].thread, read_all, &readers[i])); }
    for (uint32_t i = 0; i < WRITERS; i++) kvi_thread_join(&writers[i].thread);
    kvi_store_u32(&s.stop, 1);
    for (uint32_t i = 0; i < READERS; i++) kvi_thread_join(&readers[i].thread);
    CHECK_EQ(s.wrong, 0);
    if (!CHECK_OK(kv_art_check(s.map))) fprintf(stderr, "check: %s\n", kv_last_error(kv_art_store(s.map)));
    CHECK_OK(kv_art_delete_range(s.map, NULL, &deleted));
    CHECK_EQ(kv_art_count(s.map), 0);
    CHECK_OK(kv_art_check(s.map));
    kv_art_close(s.map);
}

/* Numbers of a kind may give one key twice: writers would then not own theirs. These kinds do not. */
TEST(art_race, dense_integers)  { race(TEST_KEYS_DENSE, 500, test_scaled(20000)); }
TEST(art_race, random_integers) { race(TEST_KEYS_INTEGERS, 2000, test_scaled(20000)); }
TEST(art_race, few_keys)        { race(TEST_KEYS_DENSE, 20, test_scaled(20000)); }

/* Inserts and delete_range against each other: what remains is counted right. */
static void fill(void *argument)
{
    worker *w = (worker *)argument;
    for (uint32_t i = 0; i < w->s->steps; i++) {
        kv_slice key = key_of(w->s, (uint64_t)i * (WRITERS + 1) + w->number, w->key);
        if (kv_art_set(w->s->map, key, value_of(key, i, w->value)) != KV_OK) wrong(w->s, "a set failed");
    }
}
static void empty(void *argument)
{
    worker  *w = (worker *)argument;
    uint64_t deleted;
    while (!kvi_load_u32(&w->s->stop)) if (kv_art_delete_range(w->s->map, NULL, &deleted) != KV_OK) wrong(w->s, "delete_range failed");
}
TEST(art_race, delete_range_while_others_insert)
{
    static worker  writers[WRITERS], cleaner;
    kv_art_options o;
    shared         s;
    size_t         counted = 0;
    uint64_t       n;
    memset(&o, 0, sizeof o);
    memset(&s, 0, sizeof s);
    o.concurrent = true;
    if (!CHECK_OK(kv_art_open(&o, &s.map))) return;
    s.kind = TEST_KEYS_DENSE;
    s.steps = test_scaled(10000);
    for (uint32_t i = 0; i < WRITERS; i++) { writers[i].s = &s; writers[i].number = i; CHECK_OK(kvi_thread_start(&writers[i].thread, fill, &writers[i])); }
    cleaner.s = &s;
    CHECK_OK(kvi_thread_start(&cleaner.thread, empty, &cleaner));
    for (uint32_t i = 0; i < WRITERS; i++) kvi_thread_join(&writers[i].thread);
    kvi_store_u32(&s.stop, 1);
    kvi_thread_join(&cleaner.thread);
    CHECK_EQ(s.wrong, 0);
    CHECK_OK(kv_art_count_range(s.map, NULL, &n));
    counted = (size_t)n;
    CHECK_EQ(kv_art_count(s.map), counted);
    if (!CHECK_OK(kv_art_check(s.map))) fprintf(stderr, "check: %s\n", kv_last_error(kv_art_store(s.map)));
    kv_art_close(s.map);
}

TEST_MAIN()
