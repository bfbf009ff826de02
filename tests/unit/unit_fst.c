/* unit_fst.c
   Goal: the contract of kv_fst.h, call by call: errors and their texts, damaged and truncated files, memory
   and writes that fail at every point, files that appear whole or not at all, values of every size, automata
   against brute force, regular expressions against regexec, set operations, the golden file.
   Method: small maps; where a fault is injected, at every n until nothing fails any more. */
#define KV_FST_IMPLEMENTATION
#include "../../kv_fst.h"
#include "../kv_test.h"
#if KVI_OS_POSIX
#include <regex.h>
#endif

static kv_status to_buf(void *user, const void *data, size_t size) { return kv_buf_append((kv_buf *)user, kv_bytes(data, size)); }

static kv_fst *frozen(const char *const *keys, size_t count, kv_fst_values values, kv_buf *bytes)
{
    kv_fst_build_options o;
    kv_fst_builder      *b;
    kv_fst              *f = NULL;
    memset(&o, 0, sizeof o);
    o.values = values;
    bytes->size = 0;
    CHECK_OK(kv_fst_build_begin(&o, to_buf, bytes, &b));
    for (size_t i = 0; i < count; i++)
        CHECK_OK(values == KV_FST_BYTES ? kv_fst_add_bytes(b, kv_cstr(keys[i]), kv_cstr(keys[i])) : kv_fst_add(b, kv_cstr(keys[i]), 10 * i));
    CHECK_OK(kv_fst_build_finish(b));
    CHECK_OK(kv_fst_open_memory(NULL, kv_buf_slice(bytes), &f));
    return f;
}
static const char *const towns[] = { "aachen", "basel", "berlin", "bern", "bonn", "bremen", "koblenz", "koeln", "konstanz", "zuerich" };
#define TOWNS (sizeof towns / sizeof towns[0])

typedef struct list { char text[8192]; size_t used, count; } list;
static bool collect(void *user, kv_slice key, kv_slice value)
{
    list *l = (list *)user;
    (void)value;
    l->count++;
    if (l->used + key.size + 2 < sizeof l->text) {
        memcpy(l->text + l->used, key.data, key.size);
        memcpy(l->text + l->used + key.size, " ", 2);
        l->used += key.size + 1;
    }
    return true;
}

/* ---- building ---- */

TEST(fst_build, order_names_both_keys_and_stays)
{
    char           text[240];
    kv_fst_build_options o;
    kv_fst_builder *b;
    kv_buf          bytes = kv_buf_fixed(text, 0);
    memset(&bytes, 0, sizeof bytes);
    memset(&o, 0, sizeof o);
    o.error_text = text;
    o.error_text_size = sizeof text;
    CHECK_OK(kv_fst_build_begin(&o, to_buf, &bytes, &b));
    CHECK_OK(kv_fst_add(b, KV_STR("bern"), 1));
    CHECK_STATUS(kv_fst_add(b, KV_STR("basel"), 2), KV_ERR_ORDER);
    CHECK(strstr(kv_fst_build_error(b), "\"basel\"") && strstr(kv_fst_build_error(b), "\"bern\""));
    CHECK_STATUS(kv_fst_add(b, KV_STR("zug"), 2), KV_ERR_ORDER);
    CHECK_STATUS(kv_fst_build_finish(b), KV_ERR_ORDER);
    CHECK(strstr(text, "\"basel\"") && strstr(text, "\"bern\""));
    CHECK_OK(kv_fst_build_begin(NULL, to_buf, &bytes, &b));
    CHECK_OK(kv_fst_add(b, KV_STR(""), 1));
    CHECK_STATUS(kv_fst_add(b, KV_STR(""), 1), KV_ERR_ORDER);
    kv_fst_build_abandon(b);
    kv_buf_free(&bytes);
}

TEST(fst_build, refuses_what_does_not_fit)
{
    static char     large[KV_KEY_SIZE_MAX + 1];
    kv_buf          bytes;
    kv_fst_builder *b;
    kv_fst_build_options o;
    memset(&bytes, 0, sizeof bytes);
    memset(&o, 0, sizeof o);
    CHECK_STATUS(kv_fst_build_begin(NULL, NULL, NULL, &b), KV_ERR_INVALID);
    CHECK(b == NULL);
    CHECK_STATUS(kv_fst_build_begin(NULL, to_buf, &bytes, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_fst_add(NULL, KV_STR("a"), 0), KV_ERR_INVALID);
    CHECK_STATUS(kv_fst_build_finish(NULL), KV_ERR_INVALID);
    kv_fst_build_abandon(NULL);
    CHECK_OK(kv_fst_build_begin(NULL, to_buf, &bytes, &b));
    CHECK_STATUS(kv_fst_add(b, kv_bytes(large, sizeof large), 0), KV_ERR_TOO_LARGE);
    CHECK_STATUS(kv_fst_build_finish(b), KV_ERR_TOO_LARGE);
    o.values = KV_FST_BYTES;
    CHECK_OK(kv_fst_build_begin(&o, to_buf, &bytes, &b));
    CHECK_STATUS(kv_fst_add(b, KV_STR("a"), 0), KV_ERR_INVALID);
    kv_fst_build_abandon(b);
    o.values = KV_FST_U64;
    CHECK_OK(kv_fst_build_begin(&o, to_buf, &bytes, &b));
    CHECK_STATUS(kv_fst_add_bytes(b, KV_STR("a"), KV_STR("x")), KV_ERR_INVALID);
    kv_fst_build_abandon(b);
    kv_buf_free(&bytes);
}

TEST(fst_build, empty_map)
{
    kv_buf   bytes, key;
    kv_fst  *f;
    list     l;
    uint64_t n = 5;
    kv_iter *it;
    memset(&bytes, 0, sizeof bytes);
    memset(&key, 0, sizeof key);
    memset(&l, 0, sizeof l);
    f = frozen(NULL, 0, KV_FST_U64, &bytes);
    if (!f) return;
    CHECK_EQ(kv_fst_count(f), 0);
    CHECK_STATUS(kv_fst_get(f, KV_STR(""), &n), KV_NOT_FOUND);
    CHECK_STATUS(kv_fst_rank(f, KV_STR("x"), &n), KV_NOT_FOUND);
    CHECK_EQ(n, 0);
    CHECK_STATUS(kv_fst_select(f, 0, &key), KV_NOT_FOUND);
    CHECK_OK(kv_fst_scan(f, NULL, collect, &l));
    CHECK_EQ(l.count, 0);
    CHECK_OK(kv_fst_iter_open(f, NULL, &it));
    CHECK(!kv_iter_valid(it));
    kv_iter_last(it);
    CHECK(!kv_iter_valid(it));
    kv_iter_close(it);
    CHECK_OK(kv_fst_check(f));
    kv_fst_close(f);
    kv_buf_free(&bytes);
}

/* ---- values ---- */

TEST(fst_values, numbers_that_follow_the_rank_cost_nothing)
{
    kv_buf               bytes;
    kv_fst_build_options o;
    kv_fst_builder      *b;
    kv_fst              *f;
    size_t               set_size = 0;
    memset(&bytes, 0, sizeof bytes);
    for (int kind = 0; kind < 5; kind++) {
        static const uint64_t slopes[] = { 0, 1, 40, UINT64_C(0x8000000000000001) };
        memset(&o, 0, sizeof o);
        o.values = kind ? KV_FST_U64 : KV_FST_SET;
        bytes.size = 0;
        CHECK_OK(kv_fst_build_begin(&o, to_buf, &bytes, &b));
        for (uint32_t i = 0; i < 5000; i++) {
            uint8_t key[4] = { (uint8_t)(i >> 24), (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i };
            CHECK_OK(kv_fst_add(b, kv_bytes(key, 4), kind ? slopes[kind - 1] * i + 7 : 0));
        }
        CHECK_OK(kv_fst_build_finish(b));
        if (!kind) set_size = bytes.size;
        CHECK(bytes.size < set_size + 4 * 10 * 20);
        CHECK_OK(kv_fst_open_memory(NULL, kv_buf_slice(&bytes), &f));
        for (uint32_t i = 0; i < 5000; i += 7) {
            uint8_t  key[4] = { (uint8_t)(i >> 24), (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i };
            uint64_t n = 1;
            CHECK_OK(kv_fst_get(f, kv_bytes(key, 4), &n));
            CHECK(n == (kind ? slopes[kind - 1] * i + 7 : 0));
        }
        kv_fst_close(f);
    }
    kv_buf_free(&bytes);
}

TEST(fst_values, numbers_of_every_width)
{
    kv_buf               bytes;
    kv_fst_build_options o;
    kv_fst_builder      *b;
    kv_fst              *f;
    test_rng             r = test_rng_new();
    memset(&bytes, 0, sizeof bytes);
    memset(&o, 0, sizeof o);
    o.values = KV_FST_U64;
    for (uint32_t width = 0; width <= 64; width++) {
        uint64_t values[200];
        bytes.size = 0;
        CHECK_OK(kv_fst_build_begin(&o, to_buf, &bytes, &b));
        for (uint32_t i = 0; i < 200; i++) {
            uint8_t key[2] = { (uint8_t)(i >> 8), (uint8_t)i };
            values[i] = width ? test_random(&r) >> (64 - width) : 0;
            if (test_one_in(&r, 20)) values[i] = 0 - values[i];
            CHECK_OK(kv_fst_add(b, kv_bytes(key, 2), values[i]));
        }
        CHECK_OK(kv_fst_build_finish(b));
        CHECK_OK(kv_fst_open_memory(NULL, kv_buf_slice(&bytes), &f));
        for (uint32_t i = 0; i < 200; i++) {
            uint8_t  key[2] = { (uint8_t)(i >> 8), (uint8_t)i };
            uint64_t n = 1;
            CHECK_OK(kv_fst_get(f, kv_bytes(key, 2), &n));
            CHECK(n == values[i]);
        }
        kv_fst_close(f);
    }
    kv_buf_free(&bytes);
}

TEST(fst_values, bytes_from_none_to_large)
{
    static const size_t sizes[] = { 0, 1, 1023, 1024, 1025, 70000, 300000 };
    kv_buf               bytes, got;
    kv_fst_build_options o;
    kv_fst_builder      *b;
    kv_fst              *f;
    char                *value = (char *)malloc(300400), key[16];
    memset(&bytes, 0, sizeof bytes);
    memset(&got, 0, sizeof got);
    memset(&o, 0, sizeof o);
    o.values = KV_FST_BYTES;
    for (size_t i = 0; i < 300400; i++) value[i] = (char)(i * 7 + i / 256);
    CHECK_OK(kv_fst_build_begin(&o, to_buf, &bytes, &b));
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "%05d", i);
        CHECK_OK(kv_fst_add_bytes(b, kv_cstr(key), kv_bytes(value + i, sizes[i % 7] ? sizes[i % 7] - (size_t)(i > 100 ? 1 : 0) : 0)));
        if (i % 7 == 6) i += 21;
    }
    CHECK_OK(kv_fst_build_finish(b));
    CHECK_OK(kv_fst_open_memory(NULL, kv_buf_slice(&bytes), &f));
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "%05d", i);
        CHECK_OK(kv_fst_get_bytes(f, kv_cstr(key), &got));
        CHECK_BYTES(kv_buf_slice(&got), kv_bytes(value + i, sizes[i % 7] ? sizes[i % 7] - (size_t)(i > 100 ? 1 : 0) : 0));
        if (i % 7 == 6) i += 21;
    }
    kv_fst_close(f);
    kv_buf_free(&bytes);
    kv_buf_free(&got);
    free(value);
}

/* ---- reading ---- */

TEST(fst_read, at_any_alignment_and_as_a_store)
{
    kv_buf    bytes, value;
    kv_stats  stats;
    kv_fst_stats_t more;
    uint8_t  *moved;
    kv_fst   *f = NULL;
    uint64_t  n = 0;
    memset(&bytes, 0, sizeof bytes);
    memset(&value, 0, sizeof value);
    kv_fst_close(frozen(towns, TOWNS, KV_FST_U64, &bytes));
    moved = (uint8_t *)malloc(bytes.size + 16);
    for (size_t shift = 0; shift < 16; shift++) {
        memcpy(moved + shift, bytes.data, bytes.size);
        if (!CHECK_OK(kv_fst_open_memory(NULL, kv_bytes(moved + shift, bytes.size), &f))) break;
        CHECK_OK(kv_fst_get(f, KV_STR("bern"), &n));
        CHECK_EQ(n, 30);
        kv_fst_close(f);
    }
    CHECK_OK(kv_fst_open_memory(NULL, kv_buf_slice(&bytes), &f));
    CHECK_BYTES(kv_cstr(kv_store_name(kv_fst_store(f))), KV_STR("fst"));
    CHECK_EQ(kv_store_caps(kv_fst_store(f)), KV_CAP_ORDERED | KV_CAP_THREADS | KV_CAP_DURABLE);
    CHECK_STATUS(kv_set(kv_fst_store(f), KV_STR("x"), KV_STR("y")), KV_ERR_READ_ONLY);
    CHECK_STATUS(kv_delete(kv_fst_store(f), KV_STR("bern")), KV_ERR_READ_ONLY);
    CHECK_OK(kv_store_stats(kv_fst_store(f), &stats));
    CHECK_EQ(stats.keys, TOWNS);
    CHECK_EQ(stats.value_bytes, 8 * TOWNS);
    CHECK_EQ(stats.disk_bytes, bytes.size);
    CHECK_OK(kv_fst_stats(f, &more));
    CHECK_EQ(more.size_bytes, bytes.size);
    CHECK_EQ(more.states, 1);
    CHECK_EQ(more.key_size_max, 8);
    CHECK_OK(kv_get(kv_fst_store(f), KV_STR("koeln"), &value));
    CHECK_EQ(value.size, 8);
    CHECK_STATUS(kv_fst_get(f, kv_bytes(NULL, 3), &n), KV_ERR_INVALID);
    CHECK_STATUS(kv_fst_get(f, kv_bytes(moved, KV_KEY_SIZE_MAX + 1u), &n), KV_ERR_TOO_LARGE);
    CHECK_STATUS(kv_fst_get(NULL, KV_STR("a"), &n), KV_ERR_INVALID);
    kv_close(kv_fst_store(f));
    kv_buf_free(&bytes);
    kv_buf_free(&value);
    free(moved);
}

static void *no_memory(void *user, void *memory, size_t old_size, size_t new_size)
{
    (void)memory; (void)old_size;
    if (new_size) { *(int *)user += 1; return NULL; }
    return NULL;
}
TEST(fst_read, single_lookups_allocate_nothing)
{
    kv_buf   bytes;
    kv_fst  *f = NULL;
    uint64_t n;
    int      asked = 0;
    memset(&bytes, 0, sizeof bytes);
    f = frozen(towns, TOWNS, KV_FST_U64, &bytes);
    if (!f) return;
    kv_fst_close(f);
    {
        test_memory    memory;
        kv_fst_options o;
        memset(&memory, 0, sizeof memory);
        memset(&o, 0, sizeof o);
        o.allocator = test_allocator(&memory);
        CHECK_OK(kv_fst_open_memory(&o, kv_buf_slice(&bytes), &f));
        asked = (int)memory.calls;
        for (size_t i = 0; i < TOWNS; i++) { CHECK_OK(kv_fst_get(f, kv_cstr(towns[i]), &n)); CHECK_OK(kv_fst_rank(f, kv_cstr(towns[i]), &n)); CHECK_OK(kv_fst_exists(f, kv_cstr(towns[i]))); }
        CHECK_STATUS(kv_fst_get(f, KV_STR("berta"), &n), KV_NOT_FOUND);
        CHECK_EQ(memory.calls, asked);
        kv_fst_close(f);
        CHECK_EQ(memory.live_bytes, 0);
    }
    (void)no_memory;
    kv_buf_free(&bytes);
}

/* ---- damage ---- */

/* A map that has everything: dictionary, levels, numbers, a long key. */
static void varied(kv_fst_values values, kv_buf *bytes)
{
    kv_fst_build_options o;
    kv_fst_builder      *b;
    char                 key[400], value[40];
    memset(&o, 0, sizeof o);
    o.values = values;
    bytes->size = 0;
    CHECK_OK(kv_fst_build_begin(&o, to_buf, bytes, &b));
    for (int i = 0; i < 260; i++) {
        snprintf(key, sizeof key, "/usr/share/%s/package-%03d/%s", i < 130 ? "doc" : "licences", i, i % 3 ? "copyright.gz" : "changelog.Debian.gz");
        if (i == 77) { size_t size = strlen(key); memset(key + size, 'y', 300); key[size + 300 > 399 ? 399 : size + 300] = 0; }
        snprintf(value, sizeof value, "%d", i * i);
        CHECK_OK(values == KV_FST_BYTES ? kv_fst_add_bytes(b, kv_cstr(key), kv_cstr(value)) : kv_fst_add(b, kv_cstr(key), (uint64_t)(i * i)));
    }
    CHECK_OK(kv_fst_build_finish(b));
}
/* Ask everything; nothing but memory safety is expected. */
static void ask_all(kv_fst *f)
{
    list         l;
    kv_buf       buf;
    uint64_t     n;
    kv_iter     *it;
    kv_automaton a;
    memset(&l, 0, sizeof l);
    memset(&buf, 0, sizeof buf);
    (void)kv_fst_get(f, KV_STR("/usr/share/doc/package-017/copyright.gz"), &n);
    (void)kv_fst_rank(f, KV_STR("/usr/share/l"), &n);
    (void)kv_fst_get_bytes(f, KV_STR("/usr/share/licences/package-150/changelog.Debian.gz"), &buf);
    (void)kv_fst_select(f, 99, &buf);
    {
        kv_range r;
        memset(&r, 0, sizeof r);
        r.limit = 3000;
        (void)kv_fst_scan(f, &r, collect, &l);
        r.reverse = true;
        if (KVI_SMALL) r.limit = 40;        /* a step back is a jump to a number there, as each step on is */
        (void)kv_fst_scan(f, &r, collect, &l);
    }
    if (kv_fst_iter_open(f, NULL, &it) == KV_OK) {
        kv_iter_seek(it, KV_STR("/usr/share/doc/package-100"));
        for (int i = 0; i < (KVI_SMALL ? 40 : 200) && kv_iter_valid(it); i++) { (void)kv_iter_value(it); kv_iter_prev(it); }
        kv_iter_close(it);
    }
    if (kv_automaton_subsequence(KV_STR("doc17c"), &a) == KV_OK) {
        kv_range r;
        memset(&r, 0, sizeof r);
        r.limit = 1000;
        (void)kv_fst_search(f, &a, &r, collect, &l);
        kv_automaton_free(&a);
    }
    kv_buf_free(&buf);
}

TEST(fst_damage, every_truncation_is_refused)
{
    kv_buf   bytes;
    kv_fst  *f = NULL;
    uint8_t *copy;
    memset(&bytes, 0, sizeof bytes);
    varied(KV_FST_U64, &bytes);
    for (size_t size = 0; size < bytes.size; size++) {
        copy = (uint8_t *)malloc(size ? size : 1);          /* exactly as long, so that reading on is seen */
        memcpy(copy, bytes.data, size);
        CHECK(kv_fst_open_memory(NULL, kv_bytes(copy, size), &f) < 0);
        CHECK(f == NULL);
        free(copy);
    }
    kv_buf_free(&bytes);
}

/* Do the keys ascend, and is each found under its number? */
typedef struct ascent { kv_fst *f; kv_buf last; uint64_t count; bool fell; } ascent;
static bool climb(void *user, kv_slice key, kv_slice value)
{
    ascent  *a = (ascent *)user;
    uint64_t rank = 0;
    (void)value;
    a->fell |= a->count && kv_compare(kv_buf_slice(&a->last), key) >= 0;
    a->fell |= kv_fst_rank(a->f, key, &rank) != KV_OK || rank != a->count;
    a->count++;
    return kv_buf_assign(&a->last, key) == KV_OK;
}

/* Each flip is refused. That such bytes are survived when they are trusted, or have a checksum that fits, is
   tried with all flips; at scales below 0.2 (emulators) with every n-th, from one that the seed chooses. */
static void flip_every_byte(kv_fst_values values)
{
    kv_buf         bytes;
    kv_fst        *f;
    uint8_t       *copy;
    kv_fst_options trust;
    test_rng       r = test_rng_new();
    unsigned       maps = 0, refused = 0;
    size_t         stride = test_scale() >= 0.2 ? 1 : test_scale() >= 0.1 ? 2 : 4, first = (size_t)test_below(&r, stride);
    if (stride > 1) printf("flips: every %zuth is survived too, from byte %zu\n", stride, first);
    memset(&bytes, 0, sizeof bytes);
    memset(&trust, 0, sizeof trust);
    trust.skip_verify = true;
    varied(values, &bytes);
    copy = (uint8_t *)malloc(bytes.size);
    for (size_t i = 0; i < bytes.size; i++) {
        uint64_t sum;
        memcpy(copy, bytes.data, bytes.size);
        copy[i] = (uint8_t)(copy[i] ^ (1u << test_below(&r, 8)));
        CHECK(kv_fst_open_memory(NULL, kv_bytes(copy, bytes.size), &f) < 0);
        if (i % stride != first) continue;
        if (kv_fst_open_memory(&trust, kv_bytes(copy, bytes.size), &f) == KV_OK) { ask_all(f); kv_fst_close(f); }
        if (i + 8 >= bytes.size) continue;
        sum = kvi_fst_checksum(copy, bytes.size - 8);       /* and with the checksum made right */
        kvi_store_le64(copy + bytes.size - 8, sum);
        if (kv_fst_open_memory(NULL, kv_bytes(copy, bytes.size), &f) == KV_OK) {
            ascent a;
            memset(&a, 0, sizeof a);
            a.f = f;
            if (kv_fst_check(f) == KV_OK) {                 /* then it is a map, if another one */
                CHECK_OK(kv_fst_scan(f, NULL, climb, &a));
                CHECK(!a.fell && a.count == kv_fst_count(f));
                kv_buf_free(&a.last);
                maps++;
            } else { CHECK(strstr(kv_last_error(kv_fst_store(f)), KVI_SMALL ? kv_status_text(KV_ERR_CORRUPT) : "damaged") != NULL); refused++; }
            kv_fst_close(f);
        }
    }
    CHECK(maps && refused);
    free(copy);
    kv_buf_free(&bytes);
}
TEST(fst_damage, every_flip_is_refused_and_survived) { flip_every_byte(KV_FST_U64); }
TEST(fst_damage, every_flip_with_bytes_as_values)    { flip_every_byte(KV_FST_BYTES); }

TEST(fst_damage, newer_format_is_named)
{
    kv_buf         bytes;
    kv_fst        *f;
    char           text[240];
    kv_fst_options o;
    memset(&bytes, 0, sizeof bytes);
    memset(&o, 0, sizeof o);
    o.error_text = text;
    o.error_text_size = sizeof text;
    kv_fst_close(frozen(towns, TOWNS, KV_FST_SET, &bytes));
    ((uint8_t *)bytes.data)[6] = 2;
    CHECK_STATUS(kv_fst_open_memory(&o, kv_buf_slice(&bytes), &f), KV_ERR_VERSION);
    CHECK(strstr(text, KVI_SMALL ? kv_status_text(KV_ERR_VERSION) : "newer") != NULL);
    CHECK_STATUS(kv_fst_open_memory(&o, KV_STR("this is no map at all, but it is long enough to be one if only it were one; and as that takes more than one hundred and thirty bytes: here they are"), &f), KV_ERR_CORRUPT);
    CHECK_STATUS(kv_fst_open_memory(&o, kv_bytes(NULL, 0), &f), KV_ERR_CORRUPT);
    kv_buf_free(&bytes);
}

/* ---- faults ---- */

static kv_status build_with(const kv_allocator *a, kv_fst_values values, kv_write_fn write, void *user)
{
    kv_fst_build_options o;
    kv_fst_builder      *b;
    kv_status            s;
    char                 key[64], value[2000];
    memset(&o, 0, sizeof o);
    memset(value, 'v', sizeof value);
    if (a) o.allocator = *a;
    o.values = values;
    o.memory_limit_bytes = 1 << 20;
    s = kv_fst_build_begin(&o, write, user, &b);
    if (s < 0) return s;
    for (int i = 0; i < 400; i++) {
        snprintf(key, sizeof key, "/var/lib/things/%05d/of-some-length", i * 3);
        s = values == KV_FST_BYTES ? kv_fst_add_bytes(b, kv_cstr(key), kv_bytes(value, i % 40 == 7 ? 2000 : 5)) : kv_fst_add(b, kv_cstr(key), (uint64_t)i * 13);
        if (s < 0) break;
    }
    {
        kv_status finished = kv_fst_build_finish(b);
        return s == KV_OK || s == finished ? finished : KV_ERR_CONFLICT;      /* the first failure again */
    }
}
typedef struct failing_write { int left; kv_buf *to; } failing_write;
static kv_status write_or_fail(void *user, const void *data, size_t size)
{
    failing_write *w = (failing_write *)user;
    if (w->left == 0) return KV_ERR_NO_SPACE;
    w->left--;
    return kv_buf_append(w->to, kv_bytes(data, size));
}

static kv_status finish_of(const kv_allocator *a, kv_write_fn write, void *user)
{
    kv_fst_build_options o;
    kv_fst_builder      *b;
    kv_status            s;
    char                 key[64], value[3000];
    memset(&o, 0, sizeof o);
    memset(value, 'v', sizeof value);
    if (a) o.allocator = *a;
    o.values = KV_FST_BYTES;
    o.memory_limit_bytes = 1 << 20;
    s = kv_fst_build_begin(&o, write, user, &b);
    if (s < 0) return s;
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "/var/lib/things/%05d/of-some-length", i * 3);
        (void)kv_fst_add_bytes(b, kv_cstr(key), kv_bytes(value, i % 10 == 7 ? 3000 : 5));
    }
    return kv_fst_build_finish(b);
}

TEST(fst_faults, memory_fails_at_every_point)
{
    kv_buf bytes;
    bool   done = false;
    memset(&bytes, 0, sizeof bytes);
    for (size_t n = 1; !done && n < 500; n++) {
        test_memory  memory;
        kv_allocator a;
        kv_status    s;
        memset(&memory, 0, sizeof memory);
        memory.fail_at = n;
        a = test_allocator(&memory);
        bytes.size = 0;
        s = n % 2 ? build_with(&a, KV_FST_U64, to_buf, &bytes) : finish_of(&a, to_buf, &bytes);
        done = !memory.failed && n > 60;
        if (memory.failed) CHECK_STATUS(s, KV_ERR_NO_MEMORY);
        CHECK_EQ(memory.live_blocks, 0);
    }
    CHECK(done);
    bytes.size = 0;
    CHECK_OK(build_with(NULL, KV_FST_U64, to_buf, &bytes));
    for (size_t n = 1, ended = 0; !ended; n++) {
        test_memory    memory;
        kv_fst_options o;
        kv_fst        *f;
        kv_status      s;
        list           l;
        kv_automaton   au;
        memset(&memory, 0, sizeof memory);
        memset(&o, 0, sizeof o);
        memset(&l, 0, sizeof l);
        memory.fail_at = n;
        o.allocator = test_allocator(&memory);
        s = kv_fst_open_memory(&o, kv_buf_slice(&bytes), &f);
        if (s == KV_OK) {
            s = kv_fst_scan(f, NULL, collect, &l);
            if (s == KV_OK) s = kv_automaton_make(&o.allocator, KV_AUTOMATON_REGEX, KV_STR("/var/.*0[0-3]{2}/.*"), 0, &au);
            if (s == KV_OK) { s = kv_fst_search(f, &au, NULL, collect, &l); kv_automaton_free(&au); }
            kv_fst_close(f);
        }
        if (memory.failed) CHECK_STATUS(s, KV_ERR_NO_MEMORY); else { CHECK_OK(s); ended = 1; }
        CHECK_EQ(memory.live_blocks, 0);
    }
    kv_buf_free(&bytes);
}

static kv_status swallow(void *user, const void *data, size_t size) { (void)data; *(size_t *)user += size; return KV_OK; }
TEST(fst_build, memory_stays_below_the_limit)
{
    static const size_t limits[] = { (size_t)1 << 20, (size_t)3 << 20, (size_t)8 << 20 };
    for (size_t i = 0; i < 3; i++) {
        test_memory          memory;
        kv_fst_build_options o;
        kv_fst_builder      *b;
        test_rng             r = test_rng_new();
        size_t               written = 0;
        char                 key[80];
        memset(&memory, 0, sizeof memory);
        memset(&o, 0, sizeof o);
        o.allocator = test_allocator(&memory);
        o.memory_limit_bytes = limits[i];
        o.values = KV_FST_U64;
        CHECK_OK(kv_fst_build_begin(&o, swallow, &written, &b));
        for (int k = 0; k < 60000; k++) {
            snprintf(key, sizeof key, "/srv/%07d/%x-%s-%x", k, (unsigned)test_below(&r, 65536), k % 3 ? "journal" : "archive", (unsigned)test_below(&r, 1u << 20));
            if (!CHECK_OK(kv_fst_add(b, kv_cstr(key), test_random(&r)))) break;
        }
        CHECK_OK(kv_fst_build_finish(b));
        if (!CHECK(memory.peak_bytes <= limits[i])) fprintf(stderr, "%zu of %zu bytes\n", memory.peak_bytes, limits[i]);
        CHECK_EQ(memory.live_blocks, 0);
        CHECK(written > 0);
    }
}

TEST(fst_faults, writes_fail_at_every_call)
{
    kv_buf        bytes;
    failing_write w;
    kv_status     s = KV_ERR_NO_SPACE;
    memset(&bytes, 0, sizeof bytes);
    w.to = &bytes;
    for (int n = 0; s != KV_OK && n < 100; n++) {
        bytes.size = 0;
        w.left = n;
        s = finish_of(NULL, write_or_fail, &w);
        if (s != KV_OK) CHECK_STATUS(s, KV_ERR_NO_SPACE);
    }
    CHECK_OK(s);
    kv_buf_free(&bytes);
}

/* ---- files ---- */

#if KVI_FILES
static bool is_there(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file) fclose(file);
    return file != NULL;
}
TEST(fst_file, appears_whole_or_not_at_all)
{
    char            path[700], temporary[720];
    kv_fst_builder *b;
    kv_fst         *f = NULL;
    kv_fst_build_options o;
    uint64_t        n;
    memset(&o, 0, sizeof o);
    o.values = KV_FST_U64;
    snprintf(path, sizeof path, "%s", test_path("unit.fst"));
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    CHECK_OK(kv_fst_build_begin_file(&o, path, &b));
    CHECK_OK(kv_fst_add(b, KV_STR("a"), 1));
    CHECK(is_there(temporary) && !is_there(path));
    kv_fst_build_abandon(b);
    CHECK(!is_there(temporary) && !is_there(path));
    CHECK_OK(kv_fst_build_begin_file(&o, path, &b));
    CHECK_OK(kv_fst_add(b, KV_STR("a"), 1));
    CHECK_OK(kv_fst_build_finish(b));
    CHECK(!is_there(temporary) && is_there(path));
    CHECK_OK(kv_fst_build_begin_file(&o, path, &b));        /* a failed second one leaves the first */
    CHECK_OK(kv_fst_add(b, KV_STR("b"), 1));
    CHECK_STATUS(kv_fst_add(b, KV_STR("a"), 1), KV_ERR_ORDER);
    CHECK_STATUS(kv_fst_build_finish(b), KV_ERR_ORDER);
    CHECK(!is_there(temporary));
    if (CHECK_OK(kv_fst_open_file(NULL, path, &f))) {
        CHECK_OK(kv_fst_get(f, KV_STR("a"), &n));
        CHECK_EQ(n, 1);
        kv_fst_close(f);
    }
    remove(path);
    CHECK_STATUS(kv_fst_open_file(NULL, path, &f), KV_NOT_FOUND);
    CHECK_STATUS(kv_fst_open_file(NULL, NULL, &f), KV_ERR_INVALID);
    CHECK(kv_fst_build_begin_file(NULL, "there/is/no/such/directory", &b) != KV_OK);
    CHECK(b == NULL);
}
/* What cannot be opened is named. A directory opens on some systems, and is refused when it is read. */
TEST(fst_file, error_text_names_the_file)
{
    char           path[600], directory[600], text[900] = "";
    kv_fst_options o;
    kv_fst        *f;
    FILE          *file;
    memset(&o, 0, sizeof o);
    o.error_text = text;
    o.error_text_size = sizeof text;
    snprintf(path, sizeof path, "%s", test_path("no map.fst"));
    snprintf(directory, sizeof directory, "%s", path);
    *strrchr(directory, '/') = 0;
    CHECK_STATUS(kv_fst_open_file(&o, path, &f), KV_NOT_FOUND);
    CHECK(KVI_SMALL || strstr(text, path) != NULL);
    CHECK(kv_fst_open_file(&o, directory, &f) < 0);
    CHECK(KVI_SMALL || strstr(text, directory) != NULL);
    file = fopen(path, "wb");
    if (!CHECK(file != NULL)) return;
    for (int i = 0; i < 500; i++) fputc(i & 127, file);
    fclose(file);
    CHECK_STATUS(kv_fst_open_file(&o, path, &f), KV_ERR_CORRUPT);
    CHECK(KVI_SMALL || strstr(text, path) != NULL);
    o.error_text_size = 8;                                  /* as much as there is room for */
    CHECK_STATUS(kv_fst_open_file(&o, path, &f), KV_ERR_CORRUPT);
    CHECK(strlen(text) == 7);
    remove(path);
}

#else
TEST(fst_file, there_are_none)
{
    kv_fst_builder *b = NULL;
    kv_fst         *f = NULL;
    CHECK_STATUS(kv_fst_build_begin_file(NULL, "unit.fst", &b), KV_ERR_UNSUPPORTED);
    CHECK_STATUS(kv_fst_open_file(NULL, "unit.fst", &f), KV_ERR_UNSUPPORTED);
    CHECK(!b && !f);
}
#endif

/* ---- automata ---- */

static size_t distance_of(const uint32_t *a, size_t n, const uint32_t *b, size_t m)
{
    size_t row[80];
    for (size_t k = 0; k <= m; k++) row[k] = k;
    for (size_t i = 1; i <= n; i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t k = 1; k <= m; k++) {
            size_t best = corner + (a[i - 1] != b[k - 1]);
            if (row[k] + 1 < best) best = row[k] + 1;
            if (row[k - 1] + 1 < best) best = row[k - 1] + 1;
            corner = row[k];
            row[k] = best;
        }
    }
    return row[m];
}
/* A word of few letters, some of them of more than one byte, and its characters. */
static size_t some_word(test_rng *r, char *text, uint32_t *chars, size_t *count)
{
    static const struct { const char *text; uint32_t code; } letters[] = { { "a", 'a' }, { "b", 'b' }, { "\xC3\xA9", 0xE9 }, { "\xE2\x82\xAC", 0x20AC }, { "\xF0\x9F\x98\x80", 0x1F600 }, { "\xFF", 0x1100FF } };
    size_t size = 0;
    *count = (size_t)test_below(r, 8);
    for (size_t i = 0; i < *count; i++) {
        size_t k = (size_t)test_below(r, test_one_in(r, 3) ? 6 : 2);
        memcpy(text + size, letters[k].text, strlen(letters[k].text));
        size += strlen(letters[k].text);
        chars[i] = letters[k].code;
    }
    return size;
}
typedef struct fuzzy { test_model *all; const uint32_t *word; size_t word_count, found; uint32_t distance; bool good; char last[64]; size_t last_size; } fuzzy;
static size_t chars_of(kv_slice key, uint32_t *out)
{
    const uint8_t *b = (const uint8_t *)key.data;
    size_t         n = 0;
    for (size_t i = 0; i < key.size; n++) {
        if (b[i] < 0x80) { out[n] = b[i]; i++; }
        else if (b[i] == 0xC3) { out[n] = 0xE9; i += 2; }
        else if (b[i] == 0xE2) { out[n] = 0x20AC; i += 3; }
        else if (b[i] == 0xF0) { out[n] = 0x1F600; i += 4; }
        else { out[n] = 0x110000u + b[i]; i++; }
    }
    return n;
}
static bool visit_fuzzy(void *user, kv_slice key, kv_slice value)
{
    fuzzy   *z = (fuzzy *)user;
    uint32_t chars[40];
    (void)value;
    z->found++;
    if (distance_of(z->word, z->word_count, chars, chars_of(key, chars)) > z->distance) z->good = false;
    if (z->found > 1 && kv_compare(kv_bytes(z->last, z->last_size), key) >= 0) z->good = false;
    memcpy(z->last, key.data, key.size);
    z->last_size = key.size;
    return true;
}
static void levenshtein_in_a_set(test_rng *r)
{
    test_model m;
    kv_buf     bytes;
    kv_fst    *f = NULL;
    kv_fst_builder *b;
    char       text[64];
    uint32_t   word[40], other[40];
    size_t     count, n;
    memset(&m, 0, sizeof m);
    memset(&bytes, 0, sizeof bytes);
    for (int i = 0; i < 2500; i++) test_model_set(&m, kv_bytes(text, some_word(r, text, word, &count)), kv_bytes("", 0));
    CHECK_OK(kv_fst_build_begin(NULL, to_buf, &bytes, &b));
    for (size_t i = 0; i < m.count; i++) CHECK_OK(kv_fst_add(b, test_entry_key(&m.entries[i]), 0));
    CHECK_OK(kv_fst_build_finish(b));
    CHECK_OK(kv_fst_open_memory(NULL, kv_buf_slice(&bytes), &f));
    for (int i = 0; f && i < 60; i++) {
        kv_automaton a;
        fuzzy        z;
        size_t       expected = 0, size = some_word(r, text, word, &count);
        memset(&z, 0, sizeof z);
        z.good = true;
        z.word = word;
        z.word_count = count;
        z.distance = (uint32_t)test_below(r, 5);
        for (size_t k = 0; k < m.count; k++) {
            n = chars_of(test_entry_key(&m.entries[k]), other);
            expected += distance_of(word, count, other, n) <= z.distance;
        }
        CHECK_OK(kv_automaton_levenshtein(kv_bytes(text, size), z.distance, &a));
        CHECK_OK(kv_fst_search(f, &a, NULL, visit_fuzzy, &z));
        CHECK(z.good);
        CHECK_EQ(z.found, expected);
        kv_automaton_free(&a);
    }
    kv_fst_close(f);
    kv_buf_free(&bytes);
    test_model_free(&m);
}
/* Of ten sets most have leaves in whose middle a key lies that a search skips to. */
TEST(fst_automaton, levenshtein_as_brute_force)
{
    test_rng     r = test_rng_new();
    kv_automaton a;
    for (size_t set = 0; set < test_scaled(10); set++) levenshtein_in_a_set(&r);
    CHECK_STATUS(kv_automaton_levenshtein(KV_STR("x"), KV_LEVENSHTEIN_MAX + 1, &a), KV_ERR_INVALID);
    kv_automaton_free(&a);
}

/* An automaton that dies after prefixes that their hash and the search choose, long and short: what is skipped
   then begins anywhere in a leaf or a node and ends anywhere. */
typedef struct mortal { uint32_t salt, one_in; } mortal;
static void     mortal_start(const void *user, void *state) { *(uint32_t *)state = ((const mortal *)user)->salt; }
static void     mortal_step(const void *user, const void *state, uint8_t byte, void *next) { (void)user; *(uint32_t *)next = (*(const uint32_t *)state ^ byte) * 16777619u; }
static bool     mortal_lives(const void *user, const void *state) { return (*(const uint32_t *)state >> 11) % ((const mortal *)user)->one_in != 0; }
static bool     mortal_match(const void *user, const void *state) { (void)user; return (*(const uint32_t *)state >> 7) % 3 != 0; }
static bool     survives(const mortal *m, kv_slice key)
{
    uint32_t state;
    mortal_start(m, &state);
    for (size_t i = 0; i <= key.size; i++) {
        uint32_t next;
        if (!mortal_lives(m, &state)) return false;
        if (i == key.size) break;
        mortal_step(m, &state, ((const uint8_t *)key.data)[i], &next);
        state = next;
    }
    return mortal_match(m, &state);
}
typedef struct course { const test_model *m; const size_t *list; size_t count, at; bool good; } course;
static bool follow(void *user, kv_slice key, kv_slice value)
{
    course *c = (course *)user;
    (void)value;
    c->good = c->good && c->at < c->count && kv_equal(key, test_entry_key(&c->m->entries[c->list[c->at]]));
    c->at++;
    return c->good;
}
static void dying_in_a_set(test_rng *r, const test_model *m, int searches)
{
    kv_buf     bytes;
    kv_fst    *f = NULL;
    kv_fst_builder *b;
    memset(&bytes, 0, sizeof bytes);
    CHECK_OK(kv_fst_build_begin(NULL, to_buf, &bytes, &b));
    for (size_t i = 0; i < m->count; i++) CHECK_OK(kv_fst_add(b, test_entry_key(&m->entries[i]), 0));
    CHECK_OK(kv_fst_build_finish(b));
    CHECK_OK(kv_fst_open_memory(NULL, kv_buf_slice(&bytes), &f));
    for (int i = 0; f && i < searches; i++) {
        mortal       how;
        kv_automaton a;
        kv_range     range;
        course       c;
        size_t      *places, wanted = 0;
        memset(&a, 0, sizeof a);
        memset(&c, 0, sizeof c);
        memset(&range, 0, sizeof range);
        how.salt = (uint32_t)test_random(r);
        how.one_in = 2u + (uint32_t)test_below(r, i % 3 == 0 ? 4 : i % 3 == 1 ? 20 : 200);
        a.user = &how;
        a.state_size = sizeof(uint32_t);
        a.start = mortal_start;
        a.step = mortal_step;
        a.is_match = mortal_match;
        a.can_match = mortal_lives;
        range.reverse = i % 4 == 3;
        if (test_one_in(r, 3)) range.from = test_entry_key(&m->entries[test_below(r, m->count)]);
        if (test_one_in(r, 3)) range.to = test_entry_key(&m->entries[test_below(r, m->count)]);
        places = test_model_range(m, &range, &c.count);
        for (size_t k = 0; k < c.count; k++) if (survives(&how, test_entry_key(&m->entries[places[k]]))) places[wanted++] = places[k];
        c.m = m;
        c.list = places;
        c.count = wanted;
        c.good = true;
        CHECK_OK(kv_fst_search(f, &a, &range, follow, &c));
        CHECK(c.good && c.at == c.count);
        free(places);
    }
    kv_fst_close(f);
    kv_buf_free(&bytes);
}
static void dying_in_keys(test_rng *r, test_key_kind kind, size_t keys)
{
    static char key[65536];
    test_model  m;
    memset(&m, 0, sizeof m);
    for (size_t i = 0; i < keys; i++) test_model_set(&m, test_key(kind, test_below(r, 3 * keys), key), kv_bytes("", 0));
    dying_in_a_set(r, &m, 12);
    test_model_free(&m);
}
/* Of few keys and of many, so that leaves have every size. */
TEST(fst_automaton, that_dies_anywhere)
{
    static const test_key_kind kinds[] = { TEST_KEYS_TINY, TEST_KEYS_BYTES, TEST_KEYS_TEXT, TEST_KEYS_DENSE, TEST_KEYS_INTEGERS };
    test_rng r = test_rng_new();
    for (size_t i = 0; i < 5; i++) {
        for (size_t keys = 1; keys < 200; keys += 1 + (size_t)test_below(&r, 30)) dying_in_keys(&r, kinds[i], keys);
        dying_in_keys(&r, kinds[i], 300 + (size_t)test_below(&r, 3000));
    }
}
/* Eight letters of four, of which two are the greatest bytes, and then some bytes of anything: what begins alike
   fills leaves and nodes, and ends in them. */
TEST(fst_automaton, that_dies_between_levels)
{
    static const uint8_t letters[] = { 'a', 'b', 0xFE, 0xFF };
    test_rng   r = test_rng_new();
    test_model m;
    uint8_t    key[16];
    memset(&m, 0, sizeof m);
    for (uint32_t i = 0; i < 65536; i += 1 + (uint32_t)test_below(&r, 10)) {
        size_t size = 8 + (size_t)test_below(&r, 4);
        for (uint32_t k = 0; k < 8; k++) key[k] = letters[i >> (14 - 2 * k) & 3u];
        for (size_t k = 8; k < size; k++) key[k] = (uint8_t)test_random(&r);
        test_model_set(&m, kv_bytes(key, size), kv_bytes("", 0));
    }
    dying_in_a_set(&r, &m, 100);
    test_model_free(&m);
}

TEST(fst_automaton, ranges_limits_and_directions)
{
    kv_buf       bytes;
    kv_fst      *f;
    kv_automaton a;
    kv_range     range;
    list         l;
    memset(&bytes, 0, sizeof bytes);
    f = frozen(towns, TOWNS, KV_FST_U64, &bytes);
    if (!f) return;
    CHECK_OK(kv_automaton_levenshtein(KV_STR("bern"), 2, &a));
    memset(&l, 0, sizeof l);
    CHECK_OK(kv_fst_search(f, &a, NULL, collect, &l));
    CHECK_BYTES(kv_cstr(l.text), KV_STR("berlin bern bonn "));
    memset(&l, 0, sizeof l);
    memset(&range, 0, sizeof range);
    range.reverse = true;
    range.limit = 2;
    CHECK_OK(kv_fst_search(f, &a, &range, collect, &l));
    CHECK_BYTES(kv_cstr(l.text), KV_STR("bonn bern "));
    memset(&l, 0, sizeof l);
    memset(&range, 0, sizeof range);
    range.from = KV_STR("berlina");
    range.to = KV_STR("bonn");
    CHECK_OK(kv_fst_search(f, &a, &range, collect, &l));
    CHECK_BYTES(kv_cstr(l.text), KV_STR("bern "));
    kv_automaton_free(&a);
    CHECK_OK(kv_automaton_subsequence(KV_STR("bn"), &a));
    memset(&l, 0, sizeof l);
    CHECK_OK(kv_fst_search(f, &a, NULL, collect, &l));
    CHECK_BYTES(kv_cstr(l.text), KV_STR("berlin bern bonn bremen koblenz "));
    kv_automaton_free(&a);
    CHECK_OK(kv_automaton_subsequence(KV_STR(""), &a));
    memset(&l, 0, sizeof l);
    CHECK_OK(kv_fst_search(f, &a, NULL, collect, &l));
    CHECK_EQ(l.count, TOWNS);
    kv_automaton_free(&a);
    CHECK_STATUS(kv_fst_search(f, NULL, NULL, collect, &l), KV_ERR_INVALID);
    kv_fst_close(f);
    kv_buf_free(&bytes);
}

/* ---- regular expressions ---- */

static bool matches(kv_slice pattern, kv_slice key, kv_status *status)
{
    kv_automaton a;
    uint64_t     states[2][KV_AUTOMATON_STATE_MAX / 8];
    bool         yes;
    *status = kv_automaton_regex(pattern, &a);
    if (*status != KV_OK) return false;
    a.start(a.user, states[0]);
    for (size_t i = 0; i < key.size; i++) a.step(a.user, states[i & 1], ((const uint8_t *)key.data)[i], states[(i + 1) & 1]);
    yes = a.is_match(a.user, states[key.size & 1]);
    kv_automaton_free(&a);
    return yes;
}
/* glibc's regexec alone: musl's takes "c.bc.a" for ((c|[^a]{2,}){1,3}[b-c]|\..\.{1,3})?[b-c]{2}.{2,}, which it is not. */
#if defined(__GLIBC__)
/* A random pattern of the syntax that both know. */
static size_t some_pattern(test_rng *r, char *out, int depth)
{
    static const char *const atoms[] = { "a", "b", "c", ".", "[ab]", "[^a]", "[b-c]", "[[:digit:]]", "\\." };
    static const char *const repeats[] = { "*", "+", "?", "{2}", "{1,3}", "{2,}", "{0,1}" };
    size_t size = 0, parts = 1 + (size_t)test_below(r, 3);
    for (size_t i = 0; i < parts; i++) {
        if (depth < 3 && test_one_in(r, 4)) {
            out[size++] = '(';
            size += some_pattern(r, out + size, depth + 1);
            if (test_one_in(r, 2)) { out[size++] = '|'; size += some_pattern(r, out + size, depth + 1); }
            out[size++] = ')';
        } else {
            const char *atom = atoms[test_below(r, 9)];
            memcpy(out + size, atom, strlen(atom));
            size += strlen(atom);
        }
        if (test_one_in(r, 3)) {
            const char *repeat = repeats[test_below(r, 7)];
            memcpy(out + size, repeat, strlen(repeat));
            size += strlen(repeat);
        }
    }
    out[size] = 0;
    return size;
}
TEST(fst_regex, as_regexec)
{
    test_rng r = test_rng_new();
    for (int i = 0; i < 400; i++) {
        char      pattern[2000], anchored[2100], key[16];
        regex_t   system;
        kv_status s;
        size_t    size = some_pattern(&r, pattern, 0);
        snprintf(anchored, sizeof anchored, "^(%s)$", pattern);
        if (!CHECK_EQ(regcomp(&system, anchored, REG_EXTENDED | REG_NOSUB), 0)) continue;
        for (int k = 0; k < 40; k++) {
            size_t n = (size_t)test_below(&r, 9);
            bool   ours;
            for (size_t c = 0; c < n; c++) key[c] = "abc.7"[test_below(&r, 5)];
            key[n] = 0;
            ours = matches(kv_bytes(pattern, size), kv_bytes(key, n), &s);
            if (!CHECK_OK(s) || !CHECK_EQ(ours, regexec(&system, key, 0, NULL, 0) == 0)) { fprintf(stderr, "pattern %s key %s\n", pattern, key); break; }
        }
        regfree(&system);
    }
}
#endif
TEST(fst_regex, syntax)
{
    static const struct { const char *pattern, *key; bool yes; } cases[] = {
        { "", "", true }, { "", "a", false }, { "a|", "", true }, { "()", "", true }, { "^abc$", "abc", true }, { "a.c", "a\xC3\xA9" "c", true },
        { "\xC3\xA9+", "\xC3\xA9\xC3\xA9", true }, { "..", "\xC3\xA9", false }, { ".", "\xFF", true }, { "\\xC3\\xA9", "\xC3\xA9", true }, { "\\xff.", "\xFF" "a", true },
        { "[^a]", "\xE2\x82\xAC", true }, { "[\xC3\xA0-\xC3\xBF]", "\xC3\xA9", true }, { "[]a]+", "]a", true }, { "[a-]+", "-a", true }, { "\\d+-\\w*\\s", "12-x_ ", true },
        { "\\D", "5", false }, { "[\\d.]+", "1.5", true }, { "(?:ab)+", "abab", true }, { "a{0}", "", true }, { "a{0}", "a", false }, { "(a{2}){2}", "aaaa", true },
        { "x\\n", "x\n", true }, { "a\\|b", "a|b", true }, { "(a*)*", "aaa", true }, { "(a|b)*c{2,3}", "abbacc", true }, { "(a|b)*c{2,3}", "abbacccc", false }
    };
    static const char *const wrong[] = { "(", ")", "a)", "[", "[a", "[b-a]", "*a", "a**", "+", "a{", "a{2", "a{3,2}", "a{2000}", "\\", "\\q", "\\x4", "(a{100}){100}", "a^b", "[[:what:]]", "a{,2}" };
    kv_status s;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool yes = matches(kv_cstr(cases[i].pattern), kv_cstr(cases[i].key), &s);
        if (!CHECK_OK(s) || !CHECK_EQ(yes, cases[i].yes)) fprintf(stderr, "pattern %s\n", cases[i].pattern);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        (void)matches(kv_cstr(wrong[i]), KV_STR(""), &s);
        if (!CHECK_STATUS(s, KV_ERR_INVALID)) fprintf(stderr, "pattern %s\n", wrong[i]);
    }
    {
        char deep[200];
        memset(deep, '(', 100);
        memset(deep + 100, ')', 100);
        (void)matches(kv_bytes(deep, 200), KV_STR(""), &s);
        CHECK_STATUS(s, KV_ERR_INVALID);
        (void)matches(KV_STR("(((((((((){900}){900}){900}){900}){900}){900}){900}){900})"), KV_STR(""), &s);
        CHECK_STATUS(s, KV_ERR_INVALID);
    }
}

/* ---- sets ---- */

static kv_status add_up(void *user, kv_slice key, const kv_slice *values, size_t count, kv_buf *result)
{
    uint64_t sum = 0;
    uint8_t  bytes[8];
    (void)user;
    if (kv_equal(key, KV_STR("bern"))) return KV_NOT_FOUND;
    for (size_t i = 0; i < count; i++) if (values[i].data) sum += kvi_load_le64(values[i].data);
    kvi_store_le64(bytes, sum);
    return kv_buf_assign(result, kv_bytes(bytes, 8));
}
TEST(fst_sets, of_three_maps)
{
    static const char *const one[] = { "", "basel", "bern", "bonn", "ulm" }, *const two[] = { "basel", "bern", "chur", "ulm", "zug" }, *const three[] = { "bern", "bonn", "ulm", "zug", "zz" };
    static const struct { int kind; const char *expected; } cases[] = {
        { 0, " basel bern bonn chur ulm zug zz " }, { 1, "bern ulm " }, { 2, " " }, { 3, " bern chur ulm zz " }
    };
    kv_buf  bytes[4];
    kv_fst *maps[3], *f;
    memset(bytes, 0, sizeof bytes);
    maps[0] = frozen(one, 5, KV_FST_U64, &bytes[0]);
    maps[1] = frozen(two, 5, KV_FST_U64, &bytes[1]);
    maps[2] = frozen(three, 5, KV_FST_U64, &bytes[2]);
    for (size_t i = 0; i < 4; i++) {
        kv_fst_build_options o;
        kv_fst_builder      *b;
        list                 l;
        kv_status            s = KV_OK;
        memset(&o, 0, sizeof o);
        memset(&l, 0, sizeof l);
        o.values = KV_FST_U64;
        bytes[3].size = 0;
        CHECK_OK(kv_fst_build_begin(&o, to_buf, &bytes[3], &b));
        switch (cases[i].kind) {
        case 0: s = kv_fst_merge(maps, 3, NULL, NULL, b); break;
        case 1: s = kv_fst_intersect(maps, 3, NULL, NULL, b); break;
        case 2: s = kv_fst_subtract(maps, 3, NULL, NULL, b); break;
        default: s = kv_fst_symmetric(maps, 3, NULL, NULL, b); break;
        }
        CHECK_OK(s);
        CHECK_OK(kv_fst_build_finish(b));
        CHECK_OK(kv_fst_open_memory(NULL, kv_buf_slice(&bytes[3]), &f));
        CHECK_OK(kv_fst_scan(f, NULL, collect, &l));
        CHECK_BYTES(kv_cstr(l.text), kv_cstr(cases[i].expected));
        kv_fst_close(f);
    }
    {
        kv_fst_build_options o;
        kv_fst_builder      *b;
        uint64_t             n = 0;
        memset(&o, 0, sizeof o);
        o.values = KV_FST_U64;
        bytes[3].size = 0;
        CHECK_OK(kv_fst_build_begin(&o, to_buf, &bytes[3], &b));
        CHECK_OK(kv_fst_merge(maps, 3, add_up, NULL, b));
        CHECK_STATUS(kv_fst_merge(maps, 3, add_up, NULL, b), KV_ERR_ORDER);
        kv_fst_build_abandon(b);
        bytes[3].size = 0;
        CHECK_OK(kv_fst_build_begin(&o, to_buf, &bytes[3], &b));
        CHECK_OK(kv_fst_merge(maps, 3, add_up, NULL, b));
        CHECK_OK(kv_fst_build_finish(b));
        CHECK_OK(kv_fst_open_memory(NULL, kv_buf_slice(&bytes[3]), &f));
        CHECK_OK(kv_fst_get(f, KV_STR("ulm"), &n));
        CHECK_EQ(n, 40 + 30 + 20);
        CHECK_STATUS(kv_fst_get(f, KV_STR("bern"), &n), KV_NOT_FOUND);
        CHECK_EQ(kv_fst_count(f), 7);
        kv_fst_close(f);
        CHECK_OK(kv_fst_build_begin(&o, to_buf, &bytes[3], &b));
        CHECK_STATUS(kv_fst_merge(NULL, 2, NULL, NULL, b), KV_ERR_INVALID);
        CHECK_OK(kv_fst_merge(NULL, 0, NULL, NULL, b));
        kv_fst_build_abandon(b);
    }
    for (int i = 0; i < 3; i++) kv_fst_close(maps[i]);
    for (int i = 0; i < 4; i++) kv_buf_free(&bytes[i]);
}

TEST(fst_dot, draws_every_arc_once)
{
    kv_buf  bytes, text;
    kv_fst *f;
    memset(&bytes, 0, sizeof bytes);
    memset(&text, 0, sizeof text);
    varied(KV_FST_SET, &bytes);
    CHECK_OK(kv_fst_open_memory(NULL, kv_buf_slice(&bytes), &f));
    CHECK_OK(kv_fst_dot(f, to_buf, &text));
    CHECK_OK(kv_buf_append(&text, kv_bytes("", 1)));
    CHECK(strncmp((const char *)text.data, "digraph fst {", 13) == 0);
    CHECK(strstr((const char *)text.data, " -> s8 [label=\"") != NULL || strstr((const char *)text.data, " -> s") != NULL);
    CHECK(strstr((const char *)text.data, "}\n") != NULL);
    kv_fst_close(f);
    kv_buf_free(&bytes);
    kv_buf_free(&text);
}

/* ---- sharing, and the golden file ---- */

TEST(fst_share, integers_in_a_row_take_nearly_nothing)
{
    kv_buf          bytes;
    kv_fst_builder *b;
    memset(&bytes, 0, sizeof bytes);
    CHECK_OK(kv_fst_build_begin(NULL, to_buf, &bytes, &b));
    for (uint64_t i = 1000007; i < 1600007; i++) {
        uint8_t key[8];
        for (int k = 0; k < 8; k++) key[k] = (uint8_t)(i >> (56 - 8 * k));
        if (!CHECK_OK(kv_fst_add(b, kv_bytes(key, 8), 0))) break;
    }
    CHECK_OK(kv_fst_build_finish(b));
    if (!CHECK(bytes.size < 16000)) fprintf(stderr, "%zu bytes\n", bytes.size);
    kv_buf_free(&bytes);
}

/* Keys and values of the golden file: 700 of them, with all three kinds of leaf columns. */
TEST(fst_golden, format_1_reads_as_ever)
{
    kv_fst   *f = NULL;
    kv_buf    bytes;
    FILE     *file = fopen("tests/golden/fst-1.fst", "rb");
    uint64_t  n;
    char      key[64];
    if (!file) file = fopen("../golden/fst-1.fst", "rb");
    if (!file) { TEST_SKIP("run from the repository, where tests/golden is"); return; }
    memset(&bytes, 0, sizeof bytes);
    for (char part[4096];;) {
        size_t got = fread(part, 1, sizeof part, file);
        if (!got) break;
        CHECK_OK(kv_buf_append(&bytes, kv_bytes(part, got)));
    }
    fclose(file);
    if (CHECK_OK(kv_fst_open_memory(NULL, kv_buf_slice(&bytes), &f))) {
        CHECK_EQ(kv_fst_count(f), 700);
        for (int i = 0; i < 700; i++) {
            snprintf(key, sizeof key, "/golden/%s/%04d/%s", i < 350 ? "first" : "second", i, i % 5 ? "entry" : "another-entry");
            CHECK_OK(kv_fst_get(f, kv_cstr(key), &n));
            CHECK_EQ(n, (uint64_t)i * (uint64_t)i % 1009);
        }
        kv_fst_close(f);
    }
    kv_buf_free(&bytes);
}

TEST_MAIN()
