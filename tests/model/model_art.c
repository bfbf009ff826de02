/* model_art.c
   Goal: whatever is done to a kv_art, it answers as a sorted array would, and its own check agrees.
   Method: random histories of sets, inserts, deletes, ranges and cursors over each kind of keys,
   compared with test_model after every step; long histories over one key family each; all of it also
   in a concurrent map (used by one thread), in fixed memory, and where every allocation may fail. */
#define KV_ART_IMPLEMENTATION
#include "../../kv_art.h"
#include "../kv_test.h"

static char key_memory[65536];

typedef struct world { kv_art *map; test_model model; test_rng rng; uint64_t key_space; test_key_kind kind; } world;

static kv_slice some_key(world *w) { return test_key(w->kind, test_below(&w->rng, w->key_space), key_memory); }
static kv_slice some_value(world *w)
{
    static char value[70000];
    static const size_t sizes[] = { 8, 8, 8, 0, 1, 20, 127, 128, 129, 500 };
    size_t size = sizes[test_below(&w->rng, sizeof sizes / sizeof *sizes)];
    if (test_one_in(&w->rng, 300)) size = 32000 + (size_t)test_below(&w->rng, 2000);
    memset(value, (int)test_below(&w->rng, 256), size);
    if (size) value[0] = (char)test_random(&w->rng);
    return kv_bytes(value, size);
}

static bool same_entry(const test_entry *e, kv_slice key, kv_slice value)
{
    return CHECK_BYTES(key, test_entry_key(e)) && CHECK_BYTES(value, test_entry_value(e));
}

typedef struct expected { const world *w; const size_t *list; size_t count, seen; bool ok; } expected;
static bool expect_next(void *user, kv_slice key, kv_slice value)
{
    expected *x = (expected *)user;
    if (!CHECK(x->seen < x->count)) { x->ok = false; return false; }
    x->ok = same_entry(&x->w->model.entries[x->list[x->seen++]], key, value);
    return x->ok;
}
static kv_range some_range(world *w, kv_buf *memory)
{
    kv_range r;
    kv_slice k;
    memset(&r, 0, sizeof r);
    memory[0].size = memory[1].size = memory[2].size = 0;
    if (test_one_in(&w->rng, 2)) { k = some_key(w); if (!kv_buf_append(&memory[0], k)) r.from = kv_bytes(memory[0].data ? memory[0].data : "", k.size); }
    if (test_one_in(&w->rng, 2)) { k = some_key(w); if (!kv_buf_append(&memory[1], k)) r.to = kv_bytes(memory[1].data ? memory[1].data : "", k.size); }
    if (test_one_in(&w->rng, 3)) {
        k = some_key(w);
        k.size = (size_t)test_below(&w->rng, k.size + 1);
        if (!kv_buf_append(&memory[2], k)) r.prefix = kv_buf_slice(&memory[2]);
    }
    if (test_one_in(&w->rng, 3)) r.limit = (size_t)test_below(&w->rng, 10);
    r.reverse = test_one_in(&w->rng, 2);
    return r;
}

static bool check_range(world *w, kv_buf *memory)
{
    kv_range r = some_range(w, memory);
    expected x;
    size_t   count, *list = test_model_range(&w->model, &r, &count);
    uint64_t counted = 0;
    x.w = w; x.list = list; x.count = count; x.seen = 0; x.ok = true;
    CHECK_OK(kv_art_scan(w->map, &r, expect_next, &x));
    x.ok = CHECK_EQ(x.seen, count) && x.ok;
    CHECK_OK(kv_count(kv_art_store(w->map), &r, &counted));
    x.ok = CHECK_EQ(counted, count) && x.ok;
    free(list);
    return x.ok;
}

/* A cursor that wanders: each step is compared. */
static bool check_cursor(world *w, kv_buf *memory)
{
    kv_range r = some_range(w, memory);
    kv_iter *i;
    size_t   count, *list = test_model_range(&w->model, &r, &count), at = 0;
    bool     ok = CHECK_OK(kv_art_iter_open(w->map, &r, &i));
    for (int step = 0; ok && step < 30; step++) {
        if (at < count) ok = CHECK(kv_iter_valid(i)) && same_entry(&w->model.entries[list[at]], kv_iter_key(i), kv_iter_value(i));
        else ok = CHECK(!kv_iter_valid(i)) && CHECK_OK(kv_iter_status(i));
        if (!ok) break;
        switch (test_below(&w->rng, 6)) {
        case 0: kv_iter_first(i); at = 0; break;
        case 1: kv_iter_last(i); at = count ? count - 1 : 0; break;
        case 2: {
            kv_slice k = some_key(w);
            kv_iter_seek(i, k);
            for (at = 0; at < count; at++) {
                int order = kv_compare(test_entry_key(&w->model.entries[list[at]]), k);
                if (r.reverse ? order <= 0 : order >= 0) break;
            }
            break;
        }
        case 3: kv_iter_prev(i); at = at < count && at ? at - 1 : SIZE_MAX; break;
        default: kv_iter_next(i); at = at < count ? at + 1 : SIZE_MAX; break;
        }
    }
    kv_iter_close(i);
    free(list);
    return ok;
}

static bool check_longest_prefix(world *w)
{
    kv_slice key = some_key(w), probe;
    kv_pair  entry;
    const test_entry *want = NULL;
    probe = key;
    for (probe.size = key.size > 600 ? 600 : key.size, key = probe;; probe.size--) {
        want = test_model_get(&w->model, probe);
        if (want || !probe.size) break;
    }
    if (!want) return CHECK_STATUS(kv_art_longest_prefix(w->map, key, &entry), KV_NOT_FOUND);
    return CHECK_OK(kv_art_longest_prefix(w->map, key, &entry)) && same_entry(want, entry.key, entry.value);
}

static bool check_edges(world *w)
{
    kv_pair entry;
    if (!w->model.count) return CHECK_STATUS(kv_art_min(w->map, &entry), KV_NOT_FOUND) && CHECK_STATUS(kv_art_max(w->map, &entry), KV_NOT_FOUND);
    return CHECK_OK(kv_art_min(w->map, &entry)) && same_entry(&w->model.entries[0], entry.key, entry.value)
        && CHECK_OK(kv_art_max(w->map, &entry)) && same_entry(&w->model.entries[w->model.count - 1], entry.key, entry.value);
}

static bool whole_check(world *w)
{
    kv_status s = kv_art_check(w->map);
    if (s < 0) fprintf(stderr, "check: %s\n", kv_last_error(kv_art_store(w->map)));
    return CHECK_OK(s) && CHECK_EQ(kv_art_count(w->map), w->model.count);
}

static bool one_step(world *w, kv_buf *memory)
{
    kv_slice          k = some_key(w), v;
    const test_entry *e = test_model_get(&w->model, k);
    kv_status         s;
    kv_buf            got;
    bool              ok;
    switch (test_below(&w->rng, 12)) {
    case 0: case 1: case 2: case 3:
        v = some_value(w);
        s = kv_art_set(w->map, k, v);
        if (s == KV_OK) test_model_set(&w->model, k, v);
        return CHECK_OK(s);
    case 4:
        v = some_value(w);
        s = kv_art_insert(w->map, k, v);
        if (s == KV_OK) test_model_set(&w->model, k, v);
        return CHECK_STATUS(s, e ? KV_EXISTS : KV_OK);
    case 5: case 6: case 7:
        s = kv_art_delete(w->map, k);
        return CHECK_STATUS(s, test_model_delete(&w->model, k) ? KV_OK : KV_NOT_FOUND);
    case 8: return check_range(w, memory);
    case 9: return test_one_in(&w->rng, 3) ? check_cursor(w, memory) : check_longest_prefix(w);
    case 10:
        if (test_one_in(&w->rng, 10)) {
            kv_range r = some_range(w, memory);
            uint64_t deleted;
            size_t   count, *list = test_model_range(&w->model, &r, &count);
            ok = CHECK_OK(kv_art_delete_range(w->map, &r, &deleted)) && CHECK_EQ(deleted, count);
            for (size_t j = 0; j < count; j++) {                    /* from the greatest on, so that positions stay */
                kv_slice gone = test_entry_key(&w->model.entries[list[r.reverse ? j : count - 1 - j]]);
                static char copy[65536];
                kvi_copy(copy, gone.data, gone.size);
                test_model_delete(&w->model, kv_bytes(copy, gone.size));
            }
            free(list);
            return ok;
        }
        return check_edges(w);
    default:
        memset(&got, 0, sizeof got);
        s = kv_get(kv_art_store(w->map), k, &got);
        ok = CHECK_STATUS(s, e ? KV_OK : KV_NOT_FOUND) && (!e || CHECK_BYTES(kv_buf_slice(&got), test_entry_value(e)));
        kv_buf_free(&got);
        return ok;
    }
}

static void run_history(test_key_kind kind, uint64_t key_space, size_t steps, size_t check_every, bool concurrent)
{
    world          w;
    kv_art_options o;
    test_memory    heap;
    kv_buf         memory[3];
    bool           ok;
    memset(&w, 0, sizeof w);
    memset(&o, 0, sizeof o);
    memset(&heap, 0, sizeof heap);
    memset(memory, 0, sizeof memory);
    w.kind = kind;
    w.key_space = key_space;
    w.rng = test_rng_new();
    w.rng.state += (uint64_t)kind + concurrent;
    o.allocator = test_allocator(&heap);
    o.concurrent = concurrent;
    ok = CHECK_OK(kv_art_open(&o, &w.map));
    for (size_t i = 0; ok && i < steps; i++) {
        ok = one_step(&w, memory);
        if (ok && i % check_every == 0) ok = whole_check(&w);
        if (!ok) fprintf(stderr, "kind %d, step %zu\n", (int)kind, i);
    }
    if (ok) whole_check(&w);
    while (ok && w.model.count) {                                   /* and down to nothing, one by one */
        size_t   i = (size_t)test_below(&w.rng, w.model.count);
        static char copy[65536];
        kv_slice k = test_entry_key(&w.model.entries[i]);
        kvi_copy(copy, k.data, k.size);
        k.data = copy;
        ok = CHECK_OK(kv_art_delete(w.map, k));
        test_model_delete(&w.model, k);
        if (ok && w.model.count % check_every == 0) ok = whole_check(&w);
    }
    if (ok) check_edges(&w);
    kv_art_close(w.map);
    CHECK_EQ(heap.live_bytes, 0);
    for (int i = 0; i < 3; i++) kv_buf_free(&memory[i]);
    test_model_free(&w.model);
}

TEST(art_model, tiny_keys)        { run_history(TEST_KEYS_TINY, 400, test_scaled(30000), 100, false); }
TEST(art_model, random_bytes)     { run_history(TEST_KEYS_BYTES, 3000, test_scaled(30000), 200, false); }
TEST(art_model, text)             { run_history(TEST_KEYS_TEXT, 4000, test_scaled(30000), 200, false); }
TEST(art_model, dense_integers)   { run_history(TEST_KEYS_DENSE, 3000, test_scaled(30000), 200, false); }
TEST(art_model, random_integers)  { run_history(TEST_KEYS_INTEGERS, 3000, test_scaled(30000), 200, false); }
TEST(art_model, long_keys)        { run_history(TEST_KEYS_LONG, 60, test_scaled(3000), 50, false); }
TEST(art_model, concurrent_tiny)  { run_history(TEST_KEYS_TINY, 400, test_scaled(15000), 100, true); }
TEST(art_model, concurrent_bytes) { run_history(TEST_KEYS_BYTES, 3000, test_scaled(15000), 200, true); }
TEST(art_model, concurrent_text)  { run_history(TEST_KEYS_TEXT, 4000, test_scaled(15000), 200, true); }
TEST(art_model, concurrent_long)  { run_history(TEST_KEYS_LONG, 60, test_scaled(2000), 50, true); }

/* ---- long histories over one family of keys ----
   The truth is an array: the version of the value that key i has, or 0. Real words, URLs and paths come
   from the machine; where they are missing the test is skipped. */

typedef struct family { char *bytes; size_t *offsets, count, capacity, size, size_capacity; } family;

static void family_add(family *f, const char *bytes, size_t size)
{
    if (f->count + 1 >= f->capacity) {
        f->capacity = f->capacity ? f->capacity * 2 : 1024;
        f->offsets = (size_t *)realloc(f->offsets, f->capacity * sizeof *f->offsets);
    }
    if (f->size + size > f->size_capacity) {
        f->size_capacity = (f->size + size) * 2;
        f->bytes = (char *)realloc(f->bytes, f->size_capacity);
    }
    if (!f->offsets || !f->bytes) abort();
    f->offsets[f->count++] = f->size;
    f->offsets[f->count] = f->size + size;
    memcpy(f->bytes + f->size, bytes, size);
    f->size += size;
}
static kv_slice family_key(const family *f, size_t i) { return kv_bytes(f->bytes + f->offsets[i], f->offsets[i + 1] - f->offsets[i]); }
static void family_free(family *f) { free(f->bytes); free(f->offsets); memset(f, 0, sizeof *f); }

static void family_of_lines(family *f, const char *command, size_t most)
{
    FILE *lines = popen(command, "r");
    char  line[70000];
    memset(f, 0, sizeof *f);
    while (lines && f->count < most && fgets(line, sizeof line, lines)) {
        size_t size = strcspn(line, "\n");
        if (size) family_add(f, line, size);
    }
    if (lines) pclose(lines);
}

static bool family_compare(kv_art *map, const family *f, const uint32_t *versions)
{
    bool   ok = true;
    size_t count = 0;
    for (size_t i = 0; ok && i < f->count; i++) {
        uint64_t  v = 0;
        kv_status s = kv_art_get_u64(map, family_key(f, i), &v);
        ok = CHECK_STATUS(s, versions[i] ? KV_OK : KV_NOT_FOUND) && (!versions[i] || CHECK_EQ(v, versions[i]));
        count += versions[i] != 0;
    }
    return ok && CHECK_EQ(kv_art_count(map), count);
}
static void family_history(family *f, size_t operations)
{
    test_rng  rng = test_rng_new();
    uint32_t *versions = (uint32_t *)calloc(f->count + 1, sizeof *versions);
    kv_art   *map;
    bool      ok = versions && CHECK_OK(kv_art_open(NULL, &map));
    for (int phase = 0; ok && phase < 4; phase++) {         /* growing, steady, shrinking, gone */
        static const uint32_t deletes_of_8[4] = { 1, 4, 7, 8 };
        for (size_t n = 0; ok && n < operations / 4; n++) {
            size_t   i = (size_t)test_below(&rng, f->count);
            uint32_t version = (uint32_t)n + 1;
            if (test_below(&rng, 8) < deletes_of_8[phase]) {
                ok = CHECK_STATUS(kv_art_delete(map, family_key(f, i)), versions[i] ? KV_OK : KV_NOT_FOUND);
                versions[i] = 0;
            } else if (test_one_in(&rng, 4)) {
                uint64_t  v = 0;
                kv_status s = kv_art_get_u64(map, family_key(f, i), &v);
                ok = CHECK_STATUS(s, versions[i] ? KV_OK : KV_NOT_FOUND) && CHECK_EQ(v, versions[i]);
            } else {
                ok = CHECK_OK(kv_art_set_u64(map, family_key(f, i), version));
                versions[i] = version;
            }
        }
        if (phase == 3) for (size_t i = 0; ok && i < f->count; i++) {
            ok = CHECK_STATUS(kv_art_delete(map, family_key(f, i)), versions[i] ? KV_OK : KV_NOT_FOUND);
            versions[i] = 0;
        }
        if (ok) ok = CHECK_OK(kv_art_check(map)) && family_compare(map, f, versions);
    }
    kv_art_close(map);
    free(versions);
}
static void family_run(family *f)
{
    if (!f->count) TEST_SKIP("these keys are not on this machine");
    else family_history(f, test_scaled(200000));
    family_free(f);
}
static void family_of_kind(family *f, test_key_kind kind, size_t count, size_t common)
{
    memset(f, 0, sizeof *f);
    for (size_t i = 0; i < count; i++) {
        static char key[65536 + 16];
        kv_slice    k = test_key(kind, i, key);
        if (common) { memmove(key + common, key, k.size); memset(key, 'c', common); }
        if (kind == TEST_KEYS_BYTES) { memcpy(key + k.size, &i, 4); k.size += 4; }      /* no two alike */
        family_add(f, key, k.size + common);
    }
}
TEST(art_family, words) { family f; family_of_lines(&f, "cat /usr/share/dict/american-english-insane /usr/share/dict/words 2>/dev/null | sort -u", 100000); family_run(&f); }
TEST(art_family, urls)  { family f; family_of_lines(&f, "zstd -dc ../shared/data/urls-200k.sorted.txt.zst 2>/dev/null", 50000); family_run(&f); }
TEST(art_family, paths) { family f; family_of_lines(&f, "zstd -dc ../shared/data/paths-1m.sorted.txt.zst 2>/dev/null", 50000); family_run(&f); }
TEST(art_family, dense_integers)  { family f; family_of_kind(&f, TEST_KEYS_DENSE, 30000, 0); family_run(&f); }
TEST(art_family, random_integers) { family f; family_of_kind(&f, TEST_KEYS_INTEGERS, 30000, 0); family_run(&f); }
TEST(art_family, random_bytes)    { family f; family_of_kind(&f, TEST_KEYS_BYTES, 30000, 0); family_run(&f); }
TEST(art_family, common_prefix)   { family f; family_of_kind(&f, TEST_KEYS_DENSE, 1000, 10240); family_run(&f); }

TEST_MAIN()
