/* kv_test.h - the test kit: checks, seeds, a model, an allocator that fails on order

   A test program includes the headers it tests, with their implementation, then this, and ends with
   TEST_MAIN(). Each TEST registers itself. The program prints one line for each failure, one for
   each skipped test, and last `N passed, N failed` (and `, N skipped`). It exits with 1 where
   something failed.

       ./unit_mem                 every test
       ./unit_mem ttl             those whose name has "ttl" in it
       KV_TEST_SEED=7 ./unit_mem  the random ones from seed 7 (the seed of a run is printed)
       KV_TEST_SCALE=10 ...       ten times the work; 0.1: a tenth of it (-DTEST_SCALE=0.1 where there is no environment)

   CONTENTS   >>check >>random >>allocator >>model >>keys >>files >>main */
#ifndef KV_TEST_H
#define KV_TEST_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../kv.h"

#if defined(__GNUC__) || defined(__clang__)
#define TEST_UNUSED __attribute__((unused))
#else
#define TEST_UNUSED
#endif
#ifndef TEST_SCALE
#define TEST_SCALE 1.0
#endif

/* ------------------------------------------------------------------------------------------------
   >>check   tests and checks                                                                      */

typedef struct test_case { const char *group, *name; void (*run)(void); struct test_case *next; } test_case;
static test_case *test_first, **test_last = &test_first;
static const test_case *test_current;
static size_t    test_check_count, test_failed_checks, test_passed, test_failed, test_skipped;
static bool      test_skip_now;
static uint64_t  test_seed_value;

static TEST_UNUSED void test_add(test_case *t) { *test_last = t; test_last = &t->next; }

#define TEST(group, name) \
    static void test_run_##group##_##name(void); \
    static test_case test_case_##group##_##name = { #group, #name, test_run_##group##_##name, NULL }; \
    __attribute__((constructor)) static void test_add_##group##_##name(void) { test_add(&test_case_##group##_##name); } \
    static void test_run_##group##_##name(void)

static TEST_UNUSED bool test_check(bool ok, const char *what, const char *file, int line)
{
    test_check_count++;
    if (ok) return true;
    test_failed_checks++;
    if (test_failed_checks < 20)
        fprintf(stderr, "FAIL %s.%s %s:%d: %s\n", test_current ? test_current->group : "", test_current ? test_current->name : "", file, line, what);
    return false;
}
static TEST_UNUSED bool test_check_number(int64_t got, int64_t wanted, const char *what, const char *file, int line)
{
    char text[400];
    if (got == wanted) { test_check_count++; return true; }
    snprintf(text, sizeof text, "%s is %" PRId64 ", wanted %" PRId64, what, got, wanted);
    return test_check(false, text, file, line);
}
static TEST_UNUSED bool test_check_status(kv_status got, kv_status wanted, const char *what, const char *file, int line)
{
    char text[400];
    if (got == wanted) { test_check_count++; return true; }
    snprintf(text, sizeof text, "%s is %d (%s), wanted %d (%s)", what, (int)got, kv_status_text(got), (int)wanted, kv_status_text(wanted));
    return test_check(false, text, file, line);
}
static TEST_UNUSED bool test_check_bytes(kv_slice got, kv_slice wanted, const char *what, const char *file, int line)
{
    char text[400];
    if (kv_equal(got, wanted)) { test_check_count++; return true; }
    snprintf(text, sizeof text, "%s is \"%.*s\" (%zu bytes), wanted \"%.*s\" (%zu bytes)", what,
             (int)(got.size > 60 ? 60 : got.size), got.size ? (const char *)got.data : "", got.size,
             (int)(wanted.size > 60 ? 60 : wanted.size), wanted.size ? (const char *)wanted.data : "", wanted.size);
    return test_check(false, text, file, line);
}

/* Each returns whether it held, so that a test can stop: if (!CHECK(p)) return; */
#define CHECK(condition)              test_check(!!(condition), #condition, __FILE__, __LINE__)
#define CHECK_EQ(got, wanted)         test_check_number((int64_t)(got), (int64_t)(wanted), #got, __FILE__, __LINE__)
#define CHECK_STATUS(got, wanted)     test_check_status((got), (wanted), #got, __FILE__, __LINE__)
#define CHECK_OK(got)                 test_check_status((got), KV_OK, #got, __FILE__, __LINE__)
#define CHECK_BYTES(got, wanted)      test_check_bytes((got), (wanted), #got, __FILE__, __LINE__)
/* Not run, and counted as such: say why. Return after it. */
#define TEST_SKIP(why) (test_skip_now = true, printf("SKIP %s.%s: %s\n", test_current->group, test_current->name, (why)))

/* ------------------------------------------------------------------------------------------------
   >>random   one seed makes one history                                                           */

typedef struct test_rng { uint64_t state; } test_rng;

static TEST_UNUSED uint64_t test_random(test_rng *r)        /* splitmix64 */
{
    uint64_t z = (r->state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}
static TEST_UNUSED uint64_t test_below(test_rng *r, uint64_t n) { return n ? test_random(r) % n : 0; }
static TEST_UNUSED bool test_one_in(test_rng *r, uint64_t n) { return test_below(r, n) == 0; }

/* A generator of its own for each test: the run's seed and the test's name. */
static TEST_UNUSED test_rng test_rng_new(void)
{
    test_rng    r;
    const char *c;
    r.state = test_seed_value;
    for (c = test_current ? test_current->name : ""; *c; c++) r.state = r.state * 31 + (uint8_t)*c;
    return r;
}
static TEST_UNUSED double test_scale(void) { const char *s = getenv("KV_TEST_SCALE"); return s ? atof(s) : TEST_SCALE; }
static TEST_UNUSED size_t test_scaled(size_t count) { double n = (double)count * test_scale(); return n < 1 ? 1 : (size_t)n; }

/* ------------------------------------------------------------------------------------------------
   >>allocator   counts, watches for leaks and wrong sizes, and fails where it is told to          */

typedef struct test_memory {
    size_t live_bytes, live_blocks, peak_bytes, calls;      /* calls: those that could have failed */
    size_t fail_at;                                         /* the n-th such call fails, from 1; 0: none */
    bool   fail_after;                                      /* and all that follow it */
    bool   failed;                                          /* one did */
} test_memory;

#define TEST_MEMORY_MAGIC UINT64_C(0x6B765F7465737421)
typedef struct test_block { uint64_t magic, size; } test_block;      /* 16 bytes, so that the memory behind is aligned as kv.h promises */

static TEST_UNUSED void *test_memory_resize(void *user, void *memory, size_t old_size, size_t new_size)
{
    test_memory *m = (test_memory *)user;
    test_block  *b = memory ? (test_block *)memory - 1 : NULL, *grown;
    size_t       live, peak;
    if (b && (b->magic != TEST_MEMORY_MAGIC || b->size != old_size)) {
        fprintf(stderr, "allocator: block of %zu bytes is given back as %zu\n", (size_t)b->size, old_size);
        abort();
    }
    if (!b && old_size) { fprintf(stderr, "allocator: NULL with an old size of %zu\n", old_size); abort(); }
    if (!new_size) {
        if (b) {
            __atomic_fetch_sub(&m->live_bytes, (size_t)b->size, __ATOMIC_RELAXED);
            __atomic_fetch_sub(&m->live_blocks, 1, __ATOMIC_RELAXED);
            b->magic = 0;
            free(b);
        }
        return NULL;
    }
    if (!b || new_size > old_size) {
        size_t call = __atomic_add_fetch(&m->calls, 1, __ATOMIC_RELAXED);
        if (m->fail_at && (call == m->fail_at || (m->fail_after && call > m->fail_at))) { m->failed = true; return NULL; }
    }
    grown = (test_block *)malloc(sizeof *grown + new_size);     /* always moves, so that a stale pointer shows */
    if (!grown) return NULL;
    grown->magic = TEST_MEMORY_MAGIC;
    grown->size = new_size;
    if (b) {
        memcpy(grown + 1, b + 1, old_size < new_size ? old_size : new_size);
        b->magic = 0;
        free(b);
    }
    __atomic_fetch_add(&m->live_bytes, new_size - (memory ? old_size : 0), __ATOMIC_RELAXED);
    if (!memory) __atomic_fetch_add(&m->live_blocks, 1, __ATOMIC_RELAXED);
    live = __atomic_load_n(&m->live_bytes, __ATOMIC_RELAXED);
    for (peak = __atomic_load_n(&m->peak_bytes, __ATOMIC_RELAXED); live > peak;)        /* threads may share the allocator */
        if (__atomic_compare_exchange_n(&m->peak_bytes, &peak, live, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) break;
    return grown + 1;
}
static TEST_UNUSED kv_allocator test_allocator(test_memory *m)
{
    kv_allocator a;
    a.resize = test_memory_resize;
    a.user = m;
    return a;
}

/* ------------------------------------------------------------------------------------------------
   >>model   the truth: a sorted array of copies                                                   */

typedef struct test_entry { char *key; size_t key_size; char *value; size_t value_size; } test_entry;
typedef struct test_model { test_entry *entries; size_t count, capacity; } test_model;

static TEST_UNUSED kv_slice test_entry_key(const test_entry *e) { return kv_bytes(e->key, e->key_size); }
static TEST_UNUSED kv_slice test_entry_value(const test_entry *e) { return kv_bytes(e->value, e->value_size); }
static TEST_UNUSED size_t test_model_lower(const test_model *m, kv_slice key)   /* the first entry >= key */
{
    size_t low = 0, high = m->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (kv_compare(test_entry_key(&m->entries[middle]), key) < 0) low = middle + 1; else high = middle;
    }
    return low;
}
static TEST_UNUSED const test_entry *test_model_get(const test_model *m, kv_slice key)
{
    size_t i = test_model_lower(m, key);
    return i < m->count && kv_equal(test_entry_key(&m->entries[i]), key) ? &m->entries[i] : NULL;
}
static char *test_copy(kv_slice s)
{
    char *copy = (char *)malloc(s.size + 1);
    if (!copy) abort();
    if (s.size) memcpy(copy, s.data, s.size);
    copy[s.size] = 0;
    return copy;
}
static TEST_UNUSED void test_model_set(test_model *m, kv_slice key, kv_slice value)
{
    size_t i = test_model_lower(m, key);
    if (i == m->count || !kv_equal(test_entry_key(&m->entries[i]), key)) {
        if (m->count == m->capacity) {
            m->capacity = m->capacity ? m->capacity * 2 : 64;
            m->entries = (test_entry *)realloc(m->entries, m->capacity * sizeof *m->entries);
            if (!m->entries) abort();
        }
        memmove(m->entries + i + 1, m->entries + i, (m->count - i) * sizeof *m->entries);
        m->count++;
        m->entries[i].key = test_copy(key);
        m->entries[i].key_size = key.size;
    } else free(m->entries[i].value);
    m->entries[i].value = test_copy(value);
    m->entries[i].value_size = value.size;
}
static TEST_UNUSED bool test_model_delete(test_model *m, kv_slice key)
{
    size_t i = test_model_lower(m, key);
    if (i == m->count || !kv_equal(test_entry_key(&m->entries[i]), key)) return false;
    free(m->entries[i].key);
    free(m->entries[i].value);
    memmove(m->entries + i, m->entries + i + 1, (m->count - i - 1) * sizeof *m->entries);
    m->count--;
    return true;
}
static TEST_UNUSED void test_model_free(test_model *m)
{
    for (size_t i = 0; i < m->count; i++) { free(m->entries[i].key); free(m->entries[i].value); }
    free(m->entries);
    memset(m, 0, sizeof *m);
}

/* The entries of a range, in its order, as positions in the model: what a scan must visit. The
   caller frees the array. */
static TEST_UNUSED size_t *test_model_range(const test_model *m, const kv_range *range, size_t *count)
{
    size_t *list = (size_t *)malloc((m->count + 1) * sizeof *list), n = 0;
    if (!list) abort();
    for (size_t k = 0; k < m->count; k++) {
        size_t i = range && range->reverse ? m->count - 1 - k : k;
        if (!kv_range_has(range, test_entry_key(&m->entries[i]))) continue;
        if (range && range->limit && n == range->limit) break;
        list[n++] = i;
    }
    *count = n;
    return list;
}

/* ------------------------------------------------------------------------------------------------
   >>keys   keys that find mistakes                                                                */

typedef enum test_key_kind {
    TEST_KEYS_TINY,         /* 0 to 3 bytes of few values: every key is a prefix of others */
    TEST_KEYS_BYTES,        /* 0 to 24 random bytes */
    TEST_KEYS_TEXT,         /* words and paths with long common prefixes */
    TEST_KEYS_DENSE,        /* 8-byte big-endian integers in a row */
    TEST_KEYS_INTEGERS,     /* 8-byte big-endian integers anywhere */
    TEST_KEYS_LONG,         /* some of them up to 70 KB minus what does not fit: at most KV_KEY_SIZE_MAX */
    TEST_KEY_KINDS
} test_key_kind;

/* The number-th key of its kind (the same number, the same key), written to `out` of 65,536 bytes. */
static TEST_UNUSED kv_slice test_key(test_key_kind kind, uint64_t number, char *out)
{
    test_rng r = { number * 2654435761u + (uint64_t)kind };
    size_t   size = 0, i;
    switch (kind) {
    case TEST_KEYS_TINY: {
        static const char letters[] = { 0, 1, 'a', (char)0xFE, (char)0xFF };
        size = (size_t)test_below(&r, 4);
        for (i = 0; i < size; i++) out[i] = letters[test_below(&r, sizeof letters)];
        break;
    }
    case TEST_KEYS_TEXT:
        size = (size_t)snprintf(out, 65536, "/usr/share/%s/%s-%u/%s%" PRIu64, test_one_in(&r, 2) ? "doc" : "locale",
                                test_one_in(&r, 2) ? "library" : "lib", (unsigned)test_below(&r, 40), test_one_in(&r, 3) ? "" : "file", number % 977);
        break;
    case TEST_KEYS_DENSE:
    case TEST_KEYS_INTEGERS: {
        uint64_t v = kind == TEST_KEYS_DENSE ? number : test_random(&r);
        size = 8;
        for (i = 0; i < 8; i++) out[i] = (char)(v >> (56 - 8 * i));
        break;
    }
    case TEST_KEYS_LONG:
        size = test_one_in(&r, 4) ? KV_KEY_SIZE_MAX - (size_t)test_below(&r, 3) : (size_t)test_below(&r, 3000);
        memset(out, test_one_in(&r, 2) ? 'x' : 0, size);
        for (i = 0; i < 3 && size; i++) out[test_below(&r, size)] = (char)test_random(&r);
        break;
    case TEST_KEYS_BYTES:
    case TEST_KEY_KINDS:
    default:
        size = (size_t)test_below(&r, 25);
        for (i = 0; i < size; i++) out[i] = (char)test_random(&r);
        break;
    }
    return kv_bytes(out, size);
}

/* ------------------------------------------------------------------------------------------------
   >>files   a directory of this run, below $KV_TEST_DIR, $TMPDIR, $TEMP or /tmp; gone when it ends  */

static char test_root[200];

static TEST_UNUSED bool test_has_files(void) { return kv_io_default() != NULL; }    /* if not, TEST_SKIP */

/* The path of `name` in the directory of this run, which the first call makes. The text lives until
   the eighth call after this one. */
static TEST_UNUSED const char *test_path(const char *name)
{
    static char     paths[8][600];
    static unsigned next;
    static const char *const variables[] = { "KV_TEST_DIR", "TMPDIR", "TEMP" };
    const kv_io *io = kv_io_default();
    const char  *top = NULL;
    if (!test_root[0]) {
        for (size_t i = 0; !top && i < 3; i++) top = getenv(variables[i]);
        if (!top || !io) top = "/tmp";
        for (unsigned number = 1;; number++) {
            kv_status s;
            snprintf(test_root, sizeof test_root, "%.170s/kv_test_%u", top, number);
            s = io ? io->make_dir(io->user, test_root) : KV_OK;
            if (s == KV_OK) break;
            if (s != KV_EXISTS) { fprintf(stderr, "cannot make %s: %s\n", test_root, kv_status_text(s)); abort(); }
        }
    }
    next = (next + 1) % 8;
    snprintf(paths[next], sizeof paths[next], "%s/%.380s", test_root, name);
    return paths[next];
}

typedef struct test_names { char **names; size_t count; } test_names;
static TEST_UNUSED void test_names_add(void *context, const char *name)
{
    test_names *n = (test_names *)context;
    n->names = (char **)realloc(n->names, (n->count + 1) * sizeof *n->names);
    if (!n->names) abort();
    n->names[n->count++] = test_copy(kv_cstr(name));
}
static TEST_UNUSED int test_names_order(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }
/* The names in a directory, sorted; free them with test_names_free. */
static TEST_UNUSED test_names test_list(const char *path)
{
    test_names   n = { NULL, 0 };
    const kv_io *io = kv_io_default();
    if (io && io->list(io->user, path, test_names_add, &n) == KV_OK && n.count) qsort(n.names, n.count, sizeof *n.names, test_names_order);
    return n;
}
static TEST_UNUSED void test_names_free(test_names *n)
{
    for (size_t i = 0; i < n->count; i++) free(n->names[i]);
    free(n->names);
    n->names = NULL;
    n->count = 0;
}
/* Remove a file, or a directory with all that is in it. */
static TEST_UNUSED void test_remove(const char *path)
{
    const kv_io *io = kv_io_default();
    test_names   n;
    if (!io || io->remove(io->user, path) == KV_OK) return;
    n = test_list(path);
    for (size_t i = 0; i < n.count; i++) {
        size_t size = strlen(path) + strlen(n.names[i]) + 2;
        char  *below = (char *)malloc(size);
        if (!below) abort();
        snprintf(below, size, "%s/%s", path, n.names[i]);
        test_remove(below);
        free(below);
    }
    if (n.count) (void)io->remove(io->user, path);
    test_names_free(&n);
}

/* ------------------------------------------------------------------------------------------------
   >>main                                                                                          */

static TEST_UNUSED int test_main(int argc, char **argv)
{
    const char *seed = getenv("KV_TEST_SEED"), *path = argc > 0 && argv[0] ? argv[0] : "test", *program = path;
    for (const char *c = path; *c; c++) if (*c == '/' || *c == '\\') program = c + 1;
    test_seed_value = seed ? strtoull(seed, NULL, 0) : 20261121;
    printf("%s: seed %" PRIu64 "\n", program, test_seed_value);
    for (test_case *t = test_first; t; t = t->next) {
        char   name[300];
        size_t failed_before = test_failed_checks, checks_before = test_check_count;
        snprintf(name, sizeof name, "%s.%s", t->group, t->name);
        if (argc > 1 && !strstr(name, argv[1])) continue;
        test_current = t;
        test_skip_now = false;
        fflush(stdout);
        t->run();
        if (test_failed_checks > failed_before) { test_failed++; continue; }
        if (test_skip_now) { test_skipped++; continue; }
        if (test_check_count == checks_before) { test_check(false, "the test checked nothing", __FILE__, __LINE__); test_failed++; continue; }
        test_passed++;
    }
    if (test_root[0]) test_remove(test_root);
    printf("%s: %zu checks\n", program, test_check_count);
    if (test_skipped) printf("%zu passed, %zu failed, %zu skipped\n", test_passed, test_failed, test_skipped);
    else printf("%zu passed, %zu failed\n", test_passed, test_failed);
    return test_failed || (!test_passed && !test_skipped) ? 1 : 0;
}
#define TEST_MAIN() int main(int argc, char **argv) { return test_main(argc, argv); }

#endif
