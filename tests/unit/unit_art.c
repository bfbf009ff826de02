/* unit_art.c
   Goal: each promise of kv_art.h on its own: arguments and statuses, every size of node crossed both
   ways, keys that are prefixes of others, values of every size, memory that is reused and given back,
   fixed memory that fills up, failures that change nothing, cursors over a map that is written.
   Method: small deterministic cases, kv_art_check after every phase; an allocator that counts and
   fails on order. The comparison with a model over random histories is in model_art.c. */
#define KV_ART_IMPLEMENTATION
#include "../../kv_art.h"
#include "../kv_test.h"

static kv_art *open_map(void)
{
    kv_art *map = NULL;
    CHECK_OK(kv_art_open(NULL, &map));
    return map;
}
static bool sound(kv_art *map)
{
    kv_status s = kv_art_check(map);
    if (s < 0) fprintf(stderr, "check: %s\n", kv_last_error(kv_art_store(map)));
    return CHECK_OK(s);
}
static kv_slice number_key(uint32_t n, char *out)
{
    for (int i = 0; i < 4; i++) out[i] = (char)(n >> (24 - 8 * i));
    return kv_bytes(out, 4);
}
static bool has_u64(kv_art *map, kv_slice key, uint64_t wanted)
{
    uint64_t v = ~wanted;
    return CHECK_OK(kv_art_get_u64(map, key, &v)) && CHECK_EQ(v, wanted);
}

TEST(art_open, arguments)
{
    kv_art        *map;
    kv_art_options o;
    kv_slice       v;
    kv_pair        e;
    kv_art_stats_t stats;
    static char    long_key[65537];
    CHECK_STATUS(kv_art_open(NULL, NULL), KV_ERR_INVALID);
    kv_art_close(NULL);
    CHECK(kv_art_store(NULL) == NULL);
    CHECK_EQ(kv_art_count(NULL), 0);
    CHECK_STATUS(kv_art_get(NULL, KV_STR("a"), &v), KV_ERR_INVALID);
    memset(&o, 0, sizeof o);
    CHECK_OK(kv_art_open(&o, &map));
    CHECK_STATUS(kv_art_get(map, KV_STR("a"), NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_art_get(map, kv_bytes(NULL, 3), &v), KV_ERR_INVALID);
    CHECK_STATUS(kv_art_get(map, kv_bytes(long_key, 65536), &v), KV_ERR_TOO_LARGE);
    CHECK(kv_last_error(kv_art_store(map))[0] != 0);
    CHECK_STATUS(kv_art_set(map, kv_bytes(long_key, 65536), KV_STR("")), KV_ERR_TOO_LARGE);
    CHECK_STATUS(kv_art_set(map, KV_STR("a"), kv_bytes(long_key, (size_t)KV_VALUE_SIZE_MAX + 1)), KV_ERR_TOO_LARGE);
    CHECK_STATUS(kv_art_set(map, KV_STR("a"), kv_bytes(NULL, 1)), KV_ERR_INVALID);
    CHECK_STATUS(kv_art_delete(map, KV_STR("a")), KV_NOT_FOUND);
    CHECK_OK(kv_delete(kv_art_store(map), KV_STR("a")));
    CHECK_STATUS(kv_art_view(map, KV_STR("a"), NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_art_scan(map, NULL, NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_art_min(map, &e), KV_NOT_FOUND);
    CHECK_STATUS(kv_art_max(map, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_art_longest_prefix(map, KV_STR("x"), &e), KV_NOT_FOUND);
    CHECK_STATUS(kv_art_iter_open(map, NULL, NULL), KV_ERR_INVALID);
    CHECK_OK(kv_art_stats(map, &stats));
    CHECK_EQ(stats.keys, 0);
    CHECK(strcmp(kv_store_name(kv_art_store(map)), "art") == 0);
    CHECK_EQ(kv_store_caps(kv_art_store(map)), KV_CAP_ORDERED | KV_CAP_WRITE);
    sound(map);
    kv_art_close(map);
}

TEST(art_get, u64_and_bytes_are_the_same)
{
    kv_art  *map = open_map();
    kv_slice v;
    uint64_t n;
    CHECK_OK(kv_art_set_u64(map, KV_STR("n"), UINT64_C(0x0102030405060708)));
    CHECK_OK(kv_art_get(map, KV_STR("n"), &v));
    CHECK_BYTES(v, KV_STR("\10\7\6\5\4\3\2\1"));
    CHECK_OK(kv_art_set(map, KV_STR("s"), KV_STR("seven..")));
    CHECK_STATUS(kv_art_get_u64(map, KV_STR("s"), &n), KV_ERR_WRONG_TYPE);
    CHECK_STATUS(kv_art_get_u64(map, KV_STR("t"), &n), KV_NOT_FOUND);
    CHECK_STATUS(kv_art_insert(map, KV_STR("s"), KV_STR("other")), KV_EXISTS);
    CHECK_OK(kv_art_get(map, KV_STR("s"), &v));
    CHECK_BYTES(v, KV_STR("seven.."));
    CHECK_OK(kv_art_exists(map, KV_STR("s")));
    CHECK_STATUS(kv_art_exists(map, KV_STR("")), KV_NOT_FOUND);
    CHECK_OK(kv_art_set(map, kv_bytes(NULL, 0), kv_bytes(NULL, 0)));
    CHECK_OK(kv_art_get(map, kv_bytes(NULL, 0), &v));
    CHECK_EQ(v.size, 0);
    sound(map);
    kv_art_close(map);
}

TEST(art_nodes, all_one_byte_keys)
{
    kv_art *map = open_map();
    char    k;
    for (int i = 0; i < 256; i++) {
        k = (char)(i * 37);
        CHECK_OK(kv_art_set_u64(map, kv_bytes(&k, 1), (uint8_t)k));
        sound(map);
    }
    CHECK_OK(kv_art_set_u64(map, KV_STR(""), 1000));
    for (int i = 0; i < 256; i++) { k = (char)i; has_u64(map, kv_bytes(&k, 1), (uint64_t)i); }
    has_u64(map, KV_STR(""), 1000);
    CHECK_EQ(kv_art_count(map), 257);
    for (int i = 0; i < 256; i++) {
        k = (char)(i * 91);
        CHECK_OK(kv_art_delete(map, kv_bytes(&k, 1)));
        sound(map);
    }
    has_u64(map, KV_STR(""), 1000);
    CHECK_EQ(kv_art_count(map), 1);
    kv_art_close(map);
}

/* Below each first byte more keys than a leaf holds, so that every edge ends in an inner node: the root
   goes from 2 edges to 256 and back, through every kind. */
TEST(art_nodes, every_size_both_ways)
{
    kv_art        *map = open_map();
    kv_art_stats_t stats;
    char           k[4];
    bool           seen[4] = { false, false, false, false };
    uint32_t       often = test_scale() < 0.1 ? 16 : 1;
    for (uint32_t first = 0; first < 256; first++) {
        for (uint32_t i = 0; i < 40; i++) CHECK_OK(kv_art_set_u64(map, number_key(first * 113 << 24 | i << 8, k), i));
        if (first % often == 0) sound(map);
        CHECK_OK(kv_art_stats(map, &stats));
        for (int kind = 0; kind < 4; kind++) if (stats.inner_nodes[kind]) seen[kind] = true;
    }
    for (int kind = 0; kind < 4; kind++) CHECK(seen[kind]);
    CHECK_OK(kv_art_set_u64(map, KV_STR(""), 7));           /* the key that ends at the root, before an edge with key 0 */
    has_u64(map, KV_STR(""), 7);
    sound(map);
    for (uint32_t first = 0; first < 256; first++) for (uint32_t i = 0; i < 40; i++) has_u64(map, number_key(first << 24 | i << 8, k), i);
    for (uint32_t first = 0; first < 256; first++) {
        for (uint32_t i = 0; i < 40; i++) CHECK_OK(kv_art_delete(map, number_key(first * 57 << 24 | i << 8, k)));
        if (first % often == 0) sound(map);
    }
    has_u64(map, KV_STR(""), 7);
    CHECK_OK(kv_art_stats(map, &stats));
    CHECK_EQ(stats.inner_nodes[0] + stats.inner_nodes[1] + stats.inner_nodes[2] + stats.inner_nodes[3], 0);
    CHECK_EQ(stats.leaves, 1);
    kv_art_close(map);
}

/* Keys of 10 KB and of 64 KB that differ late: inner nodes with long prefixes. */
TEST(art_keys, long_common_prefixes)
{
    static char key[65536];
    kv_art     *map = open_map();
    kv_slice    v;
    memset(key, 'p', sizeof key);
    for (uint32_t i = 0; i < 300; i++) {
        number_key(i * 7919u, key + 10240);
        CHECK_OK(kv_art_set_u64(map, kv_bytes(key, 10244), i));
    }
    sound(map);
    for (uint32_t i = 0; i < 300; i++) {
        number_key(i * 7919u, key + 10240);
        has_u64(map, kv_bytes(key, 10244), i);
    }
    memset(key, 0, sizeof key);
    for (uint32_t i = 0; i < 40; i++) { key[65534] = (char)i; CHECK_OK(kv_art_set(map, kv_bytes(key, 65535), kv_bytes(key + 65534, 1))); }
    sound(map);
    for (uint32_t i = 0; i < 40; i++) {
        key[65534] = (char)i;
        CHECK_OK(kv_art_get(map, kv_bytes(key, 65535), &v));
        CHECK_BYTES(v, kv_bytes(key + 65534, 1));
    }
    CHECK_STATUS(kv_art_get(map, kv_bytes(key, 65534), &v), KV_NOT_FOUND);
    kv_art_close(map);
}

static bool count_visit(void *user, kv_slice key, kv_slice value)
{
    (void)key; (void)value;
    ++*(size_t *)user;
    return true;
}
typedef struct order_visit { char last[65536]; size_t last_size, count; bool ok, down; } order_visit;
static bool visit_in_order(void *user, kv_slice key, kv_slice value)
{
    order_visit *o = (order_visit *)user;
    (void)value;
    if (o->count) {
        int order = kv_compare(kv_bytes(o->last, o->last_size), key);
        if (o->down ? order <= 0 : order >= 0) o->ok = false;
    }
    kvi_copy(o->last, key.data, key.size);
    o->last_size = key.size;
    o->count++;
    return true;
}
static order_visit in_order;

/* Each key is a prefix of the next: one inner node for each, deeper than a walk remembers. */
TEST(art_keys, as_deep_as_it_gets)
{
    static char key[65536];
    kv_art     *map = open_map();
    kv_art_stats_t stats;
    kv_pair     e;
    kv_range    r;
    uint32_t    deep = test_scale() < 0.1 ? 600 : 3000, high = deep - 200;
    memset(key, 'a', sizeof key);
    for (uint32_t i = 0; i <= deep; i++) CHECK_OK(kv_art_set_u64(map, kv_bytes(key, i), i));
    sound(map);
    CHECK_OK(kv_art_stats(map, &stats));
    CHECK(stats.height > 100);
    for (uint32_t i = 0; i <= deep; i += 7) has_u64(map, kv_bytes(key, i), i);
    for (int down = 0; down < 2; down++) {
        memset(&in_order, 0, sizeof in_order);
        memset(&r, 0, sizeof r);
        in_order.ok = true;
        r.reverse = in_order.down = down == 1;
        CHECK_OK(kv_art_scan(map, &r, visit_in_order, &in_order));
        CHECK(in_order.ok);
        CHECK_EQ(in_order.count, deep + 1);
    }
    CHECK_OK(kv_art_longest_prefix(map, kv_bytes(key, 65535), &e));
    CHECK_EQ(e.key.size, deep);
    key[high] = 'b';
    CHECK_OK(kv_art_longest_prefix(map, kv_bytes(key, 9000), &e));
    CHECK_EQ(e.key.size, high);
    key[high] = 'a';
    for (uint32_t i = 0; i <= deep; i++) CHECK_OK(kv_art_delete(map, kv_bytes(key, i * 7919u % (deep + 1))));
    CHECK_EQ(kv_art_count(map), 0);
    sound(map);
    kv_art_close(map);
}

/* Keys that part at and around bytes 16 and 32, where shortcuts begin: reached by any way, all the time.
   Number i has each of its digits to the base of 3 at one of the places, and one of the sizes. */
static const uint32_t way_places[] = { 3, 15, 16, 17, 24, 31, 32, 33 };
static const uint32_t way_sizes[] = { 40, 15, 16, 17, 31, 32, 33, 34, 600 };
static kv_slice way_key(uint32_t i, char *out)
{
    uint32_t digits = i % 6561, size = way_sizes[i / 6561];
    memset(out, 'p', size < 40 ? 40 : size);
    for (size_t p = 0; p < sizeof way_places / sizeof *way_places; p++, digits /= 3) out[way_places[p]] = (char)('o' + digits % 3);
    return kv_bytes(out, size);
}
static void ways(bool concurrent)
{
    enum { COUNT = 6561 * 9, STEP = 7919 };     /* the step and the count have no factor in common */
    kv_art_options o;
    kv_art        *map;
    kv_iter       *c;
    char           k[600];
    uint32_t       keys = 0, seen = 0;
    memset(&o, 0, sizeof o);
    o.concurrent = concurrent;
    CHECK_OK(kv_art_open(&o, &map));
    for (uint32_t i = 0, n = 0; i < COUNT; i++, n = (n + STEP) % COUNT) {
        kv_status s = kv_art_insert(map, way_key(n, k), kv_bytes(&n, 4));
        CHECK(s == KV_OK || s == KV_EXISTS);        /* short keys leave digits out, so some are the same */
        keys += s == KV_OK;
        if (i % 4096 == 0) sound(map);
    }
    CHECK_EQ(kv_art_count(map), keys);
    sound(map);
    CHECK_OK(kv_art_iter_open(map, NULL, &c));
    for (uint32_t n = 0; n < COUNT; n += 5) {
        kv_slice key = way_key(n, k);
        CHECK_OK(kv_art_exists(map, key));
        kv_iter_seek(c, key);
        CHECK_BYTES(kv_iter_key(c), key);
        kv_iter_prev(c);
        if (!kv_iter_valid(c)) continue;
        CHECK(kv_compare(kv_iter_key(c), key) < 0);
        kv_iter_next(c);
        CHECK_BYTES(kv_iter_key(c), key);
    }
    for (kv_iter_last(c); kv_iter_valid(c); kv_iter_prev(c)) seen++;
    CHECK_EQ(seen, keys);
    kv_iter_close(c);
    for (uint32_t i = 0, n = 0; i < COUNT; i++, n = (n + 2 * STEP) % COUNT) {
        kv_status s = kv_art_delete(map, way_key(n, k));
        CHECK(s == KV_OK || s == KV_NOT_FOUND);
        keys -= s == KV_OK;
        if (i % 4096 == 0) sound(map);
    }
    CHECK_EQ(keys, 0);
    sound(map);
    kv_art_close(map);
}
TEST(art_keys, part_where_shortcuts_begin) { ways(false); }
TEST(art_keys, part_where_shortcuts_begin_concurrent)
{
#if KVI_THREADS
    ways(true);
#else
    kv_art_options o;
    kv_art        *map;
    memset(&o, 0, sizeof o);
    o.concurrent = true;
    CHECK_EQ(kv_art_open(&o, &map), KV_ERR_UNSUPPORTED);
#endif
}

TEST(art_values, every_size_and_back)
{
    static const size_t sizes[] = { 0, 1, 8, 127, 128, 129, 255, 4000, 32767, 32768, 32769, 200000, 1 };
    static char         value[200000];
    kv_art_options      o;
    test_memory         heap;
    kv_art             *map;
    kv_slice            v;
    kv_stats            stats;
    char                k[4];
    memset(&heap, 0, sizeof heap);
    memset(&o, 0, sizeof o);
    o.allocator = test_allocator(&heap);
    CHECK_OK(kv_art_open(&o, &map));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (uint32_t n = 0; n < 50; n++) {
            memset(value, (int)(n + i), sizes[i]);
            CHECK_OK(kv_art_set(map, number_key(n, k), kv_bytes(value, n % 3 ? sizes[i] : sizes[i] / 2)));
        }
        sound(map);
        for (uint32_t n = 0; n < 50; n++) {
            memset(value, (int)(n + i), sizes[i]);
            CHECK_OK(kv_art_get(map, number_key(n, k), &v));
            CHECK_BYTES(v, kv_bytes(value, n % 3 ? sizes[i] : sizes[i] / 2));
        }
        CHECK_OK(kv_store_stats(kv_art_store(map), &stats));
        CHECK_EQ(stats.keys, 50);
        CHECK_EQ(stats.key_bytes, 200);
        CHECK_EQ(stats.value_bytes, 33 * sizes[i] + 17 * (sizes[i] / 2));
        CHECK(stats.memory_bytes <= heap.live_bytes && stats.memory_bytes + 4096 > heap.live_bytes);
    }
    kv_art_clear(map);
    CHECK_EQ(kv_art_count(map), 0);
    CHECK_OK(kv_store_stats(kv_art_store(map), &stats));
    CHECK(stats.memory_bytes < 8192);
    CHECK_OK(kv_art_set(map, KV_STR("a"), kv_bytes(value, 100000)));
    kv_art_close(map);
    CHECK_EQ(heap.live_bytes, 0);
}

/* A value may be a slice of the map itself, also when the leaf it lies in splits on the way. */
TEST(art_values, may_come_from_the_map)
{
    kv_art  *map = open_map();
    kv_slice v;
    char     k[4];
    CHECK_OK(kv_art_set(map, number_key(0, k), KV_STR("a value of some size, not a number")));
    for (uint32_t n = 1; n < 500; n++) {
        CHECK_OK(kv_art_get(map, number_key((n * 7) % n, k), &v));
        CHECK_OK(kv_art_set(map, number_key(n, k), v));
    }
    for (uint32_t n = 0; n < 500; n++) {
        CHECK_OK(kv_art_get(map, number_key(n, k), &v));
        CHECK_BYTES(v, KV_STR("a value of some size, not a number"));
    }
    sound(map);
    kv_art_close(map);
}

/* A key may lie in the leaf that it is put into, whose bytes move for it. */
TEST(art_values, may_become_keys)
{
    kv_art  *map = open_map();
    kv_slice v;
    char     text[32];
    for (uint32_t n = 0; n < 2000; n++) {
        int size = snprintf(text, sizeof text, "key %u", n);
        CHECK_OK(kv_art_set(map, kv_bytes("key", 3), kv_bytes(text, (size_t)size)));
        CHECK_OK(kv_art_get(map, kv_bytes("key", 3), &v));
        CHECK_OK(kv_art_insert(map, v, KV_STR("x")));
        CHECK_OK(kv_art_exists(map, kv_bytes(text, (size_t)size)));
    }
    CHECK_EQ(kv_art_count(map), 2001);
    sound(map);
    for (uint32_t n = 0; n < 2000; n++) {
        int size = snprintf(text, sizeof text, "key %u", (unsigned)n);
        CHECK_OK(kv_art_set(map, kv_bytes("key", 3), kv_bytes(text, (size_t)size)));
        CHECK_OK(kv_art_get(map, kv_bytes("key", 3), &v));
        CHECK_OK(kv_art_delete(map, v));
        CHECK_EQ(kv_art_exists(map, kv_bytes(text, (size_t)size)), KV_NOT_FOUND);
    }
    CHECK_EQ(kv_art_count(map), 1);
    sound(map);
    kv_art_close(map);
}

/* Some megabytes: what is special about large maps, and that an emptied part of one is used again. */
TEST(art_memory, large_maps)
{
    enum { COUNT = 200000 };
    kv_art        *map;
    kv_art_stats_t full, again;
    char           k[16];
#if defined(KV_NO_MALLOC)
    TEST_SKIP("a board has no such memory");
    return;
#endif
    map = open_map();
    for (int round = 0; round < 3; round++) {
        for (uint64_t n = 0; n < COUNT; n++) {
            kvi_store_le64(k, kvi_mix64(n));
            kvi_store_le64(k + 8, n);
            CHECK_OK(kv_art_set(map, kv_bytes(k, 16), kv_bytes("a value of some more bytes than eight", 10 + (size_t)n % 20)));
        }
        CHECK_EQ(kv_art_count(map), COUNT);
        sound(map);
        CHECK_OK(kv_art_stats(map, round ? &again : &full));
        for (uint64_t n = 0; n < COUNT; n++) {
            kvi_store_le64(k, kvi_mix64(n));
            kvi_store_le64(k + 8, n);
            if (n % 8) CHECK_OK(kv_art_delete(map, kv_bytes(k, 16)));
        }
        CHECK_EQ(kv_art_count(map), COUNT / 8);
        sound(map);
    }
    CHECK(full.memory_bytes > 6000000);
    CHECK(again.memory_bytes <= full.memory_bytes + full.memory_bytes / 4);
    kv_art_clear(map);
    sound(map);
    CHECK_OK(kv_art_stats(map, &again));
    CHECK(again.memory_bytes < 100000);
    kv_art_close(map);
}

TEST(art_memory, rounds_do_not_grow)
{
    test_memory    heap;
    kv_art_options o;
    kv_art        *map;
    static char    key[65536];
    size_t         after_first = 0, empty = 0;
    memset(&heap, 0, sizeof heap);
    memset(&o, 0, sizeof o);
    o.allocator = test_allocator(&heap);
    CHECK_OK(kv_art_open(&o, &map));
    empty = heap.live_bytes;
    for (int round = 0; round < (test_scale() < 0.1 ? 3 : 20); round++) {
        for (uint64_t i = 0; i < 5000; i++) CHECK_OK(kv_art_set_u64(map, test_key(TEST_KEYS_TEXT, i, key), i));
        for (uint64_t i = 0; i < 5000; i++) CHECK_OK(kv_art_set(map, test_key(TEST_KEYS_BYTES, i, key), kv_bytes(key, (size_t)(i % 300))));
        if (round == 0) { sound(map); after_first = heap.live_bytes; }
        CHECK(heap.live_bytes <= after_first + after_first / 10);
        for (uint64_t i = 0; i < 5000; i++) {
            kv_status s = kv_art_delete(map, test_key(TEST_KEYS_TEXT, (i * 977) % 5000, key));
            CHECK(s == KV_OK || s == KV_NOT_FOUND);
            s = kv_art_delete(map, test_key(TEST_KEYS_BYTES, (i * 1013) % 5000, key));
            CHECK(s == KV_OK || s == KV_NOT_FOUND);
        }
        CHECK_EQ(kv_art_count(map), 0);
        CHECK(heap.live_bytes <= empty + 4096);
    }
    kv_art_close(map);
    CHECK_EQ(heap.live_bytes, 0);
}

/* 64 KB that fill up: refused cleanly, all readable, deletes work while full, and it goes on. */
TEST(art_memory, fixed_memory_fills_up)
{
    static unsigned char memory[65536];
    static char    key[65536];
    kv_arena       arena;
    kv_art_options o;
    kv_art        *map;
    kv_pair        e;
    uint64_t       count = 0, first_count = 0;
    kv_status      s;
    memset(&o, 0, sizeof o);
    o.allocator = kv_arena_init(&arena, memory, sizeof memory);
    if (!CHECK_OK(kv_art_open(&o, &map))) return;
    for (int round = 0; round < 5; round++) {
        for (count = 0; (s = kv_art_set_u64(map, test_key(TEST_KEYS_INTEGERS, count, key), count)) == KV_OK; count++) {}
        CHECK_STATUS(s, KV_ERR_NO_MEMORY);
        if (round == 0) first_count = count;
        CHECK(count >= first_count * 9 / 10);
        CHECK_EQ(kv_art_count(map), count);
        sound(map);
        for (uint64_t i = 0; i < count; i++) has_u64(map, test_key(TEST_KEYS_INTEGERS, i, key), i);
        for (uint64_t i = 0; i < count; i += 2) CHECK_OK(kv_art_delete(map, test_key(TEST_KEYS_INTEGERS, i, key)));
        sound(map);
        CHECK_OK(kv_art_set_u64(map, KV_STR("one more"), 1));
        CHECK_OK(kv_art_min(map, &e));
        CHECK_OK(kv_art_delete(map, KV_STR("one more")));
        for (uint64_t i = 1; i < count; i += 2) CHECK_OK(kv_art_delete(map, test_key(TEST_KEYS_INTEGERS, i, key)));
        CHECK_EQ(kv_art_count(map), 0);
    }
    printf("    64 KB hold %u entries of 16 bytes\n", (unsigned)first_count);
    CHECK(first_count > 2000);
    kv_art_close(map);
    CHECK_EQ(arena.used_bytes, 0);
}

/* One history, with the n-th allocation failing, n = 1, 2, 3...: the call says so, and the map holds
   what it held. */
static bool failing_history(kv_art *map, size_t steps, bool *failed)
{
    static char key[65536], value[40000];
    memset(value, 'v', sizeof value);
    for (uint64_t i = 0; i < steps; i++) {
        test_key_kind kind = i % 3 == 0 ? TEST_KEYS_TINY : i % 3 == 1 ? TEST_KEYS_TEXT : TEST_KEYS_INTEGERS;
        kv_slice      k = test_key(kind, i * 7 % steps, key);
        uint64_t      before = kv_art_count(map);
        bool          was = kv_art_exists(map, k) == KV_OK;
        kv_status     s;
        if (i % 5 == 4) {
            s = kv_art_delete(map, k);
            if (s == KV_NOT_FOUND) s = KV_OK;
        } else s = kv_art_set(map, k, kv_bytes(value, i % 11 == 0 ? 300 : i % 101 == 0 ? 33000 : 8));
        if (s == KV_OK) continue;
        *failed = true;
        return CHECK_STATUS(s, KV_ERR_NO_MEMORY) && CHECK_EQ(kv_art_count(map), before) && CHECK_EQ(kv_art_exists(map, k) == KV_OK, was) && sound(map);
    }
    return true;
}
TEST(art_memory, every_allocation_may_fail)
{
    size_t stride = test_scale() < 0.1 ? 41 : 1;
    for (int concurrent = 0; concurrent <= KVI_THREADS; concurrent++)
        for (size_t n = 1; n < 3000; n += stride) {
            test_memory    heap;
            kv_art_options o;
            kv_art        *map;
            bool           failed = false;
            kv_status      s;
            memset(&heap, 0, sizeof heap);
            memset(&o, 0, sizeof o);
            o.allocator = test_allocator(&heap);
            o.concurrent = concurrent == 1;
            heap.fail_at = n;
            heap.fail_after = n % 2 == 0;
            s = kv_art_open(&o, &map);
            if (s == KV_OK) {
                if (!failing_history(map, 3000, &failed)) { fprintf(stderr, "at allocation %zu\n", n); kv_art_close(map); return; }
                heap.fail_at = 0;
                CHECK_OK(kv_art_set(map, KV_STR("after"), KV_STR("it works again")));
                if (n % 16 == 0) sound(map);
                kv_art_close(map);
            } else CHECK_STATUS(s, KV_ERR_NO_MEMORY);
            CHECK_EQ(heap.live_bytes, 0);
            if (!failed && !heap.failed) break;
        }
}

/* A set that finds no memory may have split a leaf before: a cursor that stands in that leaf notices. */
TEST(art_memory, cursors_outlive_failing_sets)
{
    static unsigned char memory[30000];
    kv_arena       arena;
    kv_art_options o;
    kv_art        *map;
    kv_iter       *i;
    static char    long_key[8000];
    char           value[60], k[4], other[4];
    uint32_t       count = 0, failed = 0;
    memset(&o, 0, sizeof o);
    memset(value, 'v', sizeof value);
    o.allocator = kv_arena_init(&arena, memory, sizeof memory);
    if (!CHECK_OK(kv_art_open(&o, &map)) || !CHECK_OK(kv_art_iter_open(map, NULL, &i))) return;
    while (kv_art_set(map, number_key(count * 10, k), kv_bytes(value, count % 60)) == KV_OK) count++;
    for (uint32_t n = 0; n + 1 < count; n++) {
        kv_iter_seek(i, number_key(n * 10, k));
        (void)number_key(n * 10 + 5, long_key);
        failed += kv_art_set(map, kv_bytes(long_key, sizeof long_key), KV_STR("")) == KV_ERR_NO_MEMORY;
        kv_iter_next(i);
        if (!CHECK(kv_iter_valid(i)) || !CHECK_BYTES(kv_iter_key(i), number_key(n * 10 + 10, other))) break;
        CHECK_EQ(kv_iter_value(i).size, (n + 1) % 60);
    }
    CHECK_EQ(failed, count - 1);
    sound(map);
    kv_iter_close(i);
    kv_art_close(map);
    CHECK_EQ(arena.used_bytes, 0);
}

/* ---- keys in order, and tails of one size, beside the model ---- */

static bool as_modelled(kv_art *map, const test_model *m)
{
    kv_iter *i;
    size_t   n = 0;
    bool     ok = sound(map) && CHECK_EQ(kv_art_count(map), m->count) && CHECK_OK(kv_art_iter_open(map, NULL, &i));
    if (!ok) return false;
    for (; ok && kv_iter_valid(i); kv_iter_next(i), n++)
        ok = CHECK(n < m->count) && CHECK_BYTES(kv_iter_key(i), test_entry_key(&m->entries[n])) && CHECK_BYTES(kv_iter_value(i), test_entry_value(&m->entries[n]));
    ok = ok && CHECK_EQ(n, m->count);
    kv_iter_close(i);
    return ok;
}
/* A key of `size` bytes of which each is one of `letters`; the smaller n, the smaller the key. */
static kv_slice lettered_key(uint64_t n, uint32_t size, uint32_t letters, char *out)
{
    for (uint32_t at = size; at-- > 0; n /= letters) out[at] = (char)(n % letters * (255 / letters));
    return kv_bytes(out, size);
}

/* Keys come in order, and now and then something else: one before, a longer one of which the last is the
   beginning, one that is there already, one that lies in the map, a delete of the last, a long one. */
TEST(art_order, keys_in_order_and_out_of_it)
{
    static const uint32_t letters[] = { 2, 16, 200 }, sizes[] = { 12, 5, 3 };
    test_rng rng = test_rng_new();
    for (int family = 0; family < 3; family++)
        for (int concurrent = 0; concurrent <= KVI_THREADS; concurrent++) {
            static char    key[400];
            kv_art_options o;
            kv_art        *map;
            test_model     m;
            uint64_t       n = 0;
            kv_slice       k, v;
            kv_pair        last;
            memset(&m, 0, sizeof m);
            memset(&o, 0, sizeof o);
            o.concurrent = concurrent == 1;
            if (!CHECK_OK(kv_art_open(&o, &map))) return;
            while (m.count < 3000) {
                uint64_t value = test_random(&rng);
                uint32_t what = (uint32_t)test_below(&rng, 40);
                n += 1 + (what == 39 ? test_below(&rng, 300) : 0);
                k = lettered_key(what == 0 ? test_below(&rng, n) : n, sizes[family], letters[family], key);
                if (what == 1) k.size += test_below(&rng, 3);
                if (what == 2) k.size = 200 + test_below(&rng, 100);
                if (what == 3 && m.count) {                         /* the last value is the key */
                    v = test_entry_value(&m.entries[m.count - 1]);
                    if (!concurrent) CHECK_OK(kv_art_max(map, &last));
                    CHECK_OK(kv_art_set(map, concurrent ? v : last.value, KV_STR("aliased")));
                    test_model_set(&m, v, KV_STR("aliased"));
                    continue;
                }
                if (what == 4 && m.count) {
                    kv_slice gone = test_entry_key(&m.entries[m.count - 1]);
                    CHECK_OK(kv_art_delete(map, gone));
                    test_model_delete(&m, gone);
                    continue;
                }
                if (what == 5) CHECK_STATUS(kv_art_insert(map, k, KV_STR("no")), test_model_get(&m, k) ? KV_EXISTS : KV_OK);
                v = kv_bytes(&value, what == 6 ? test_below(&rng, 8) : 8);
                CHECK_OK(kv_art_set(map, k, v));
                test_model_set(&m, k, v);
                if (what == 7 && !as_modelled(map, &m)) return;
            }
            if (!as_modelled(map, &m)) return;
            kv_art_close(map);
            test_model_free(&m);
        }
}
/* Tails of 1 to 10 bytes, with much and with little in common, so that leaves take either form, and pass
   from one to the other. */
TEST(art_order, tails_of_one_size)
{
    test_rng rng = test_rng_new();
    for (uint32_t size = 1; size <= 10; size++)
        for (uint32_t letters = 2; letters <= 250; letters = letters * 5) {
            char       key[16], probe[16];
            kv_art    *map = open_map();
            test_model m;
            uint64_t   space = 1, step;
            kv_slice   k, v;
            memset(&m, 0, sizeof m);
            for (uint32_t i = 0; i < size && space < 1000000; i++) space *= letters;
            for (step = 0; step < 1500; step++) {
                uint64_t value = test_random(&rng);
                k = lettered_key(test_below(&rng, space), size, letters, key);
                if (test_one_in(&rng, 3)) CHECK_STATUS(kv_art_delete(map, k), test_model_delete(&m, k) ? KV_OK : KV_NOT_FOUND);
                else {
                    v = kv_bytes(&value, letters == 50 ? (size_t)(value % 3) : 8);
                    CHECK_OK(kv_art_set(map, k, v));
                    test_model_set(&m, k, v);
                }
                if (step % 4 == 0) {                                /* a key that is shorter, longer, or another */
                    kv_slice  other = lettered_key(test_below(&rng, space), size, letters, probe);
                    kv_range  r;
                    uint64_t  counted = 0;
                    size_t    count, *list;
                    other.size = size - 1 + test_below(&rng, 3);
                    probe[size] = (char)test_below(&rng, 2);
                    CHECK_STATUS(kv_art_exists(map, other), test_model_get(&m, other) ? KV_OK : KV_NOT_FOUND);
                    memset(&r, 0, sizeof r);
                    r.from = other;
                    list = test_model_range(&m, &r, &count);
                    CHECK_OK(kv_art_count_range(map, &r, &counted));
                    CHECK_EQ(counted, count);
                    free(list);
                }
                if (step % 250 == 0 && !as_modelled(map, &m)) return;
            }
            if (!as_modelled(map, &m)) return;
            kv_art_close(map);
            test_model_free(&m);
        }
}

TEST(art_range, scan_limits_and_callbacks)
{
    kv_art  *map = open_map();
    kv_range r;
    size_t   seen = 0;
    uint64_t n = 0;
    char     k[4];
    for (uint32_t i = 0; i < 1000; i++) CHECK_OK(kv_art_set_u64(map, number_key(i, k), i));
    CHECK_OK(kv_art_scan(map, NULL, count_visit, &seen));
    CHECK_EQ(seen, 1000);
    memset(&r, 0, sizeof r);
    r.prefix = kv_bytes("\0\0\1", 3);
    seen = 0;
    CHECK_OK(kv_art_scan(map, &r, count_visit, &seen));
    CHECK_EQ(seen, 256);
    CHECK_OK(kv_art_count_range(map, &r, &n));
    CHECK_EQ(n, 256);
    r.limit = 10;
    CHECK_OK(kv_art_count_range(map, &r, &n));
    CHECK_EQ(n, 10);
    r.limit = 0;
    r.to = kv_bytes("", 0);                     /* empty, but there: nothing */
    CHECK_OK(kv_art_count_range(map, &r, &n));
    CHECK_EQ(n, 0);
    memset(&r, 0, sizeof r);
    r.from = number_key(990, k);
    CHECK_OK(kv_art_delete_range(map, &r, &n));
    CHECK_EQ(n, 10);
    memset(&r, 0, sizeof r);
    r.limit = 90;
    r.reverse = true;
    CHECK_OK(kv_art_delete_range(map, &r, NULL));
    CHECK_EQ(kv_art_count(map), 900);
    CHECK_STATUS(kv_art_exists(map, number_key(900, k)), KV_NOT_FOUND);
    CHECK_OK(kv_art_exists(map, number_key(899, k)));
    sound(map);
    CHECK_OK(kv_art_delete_range(map, NULL, &n));
    CHECK_EQ(n, 900);
    CHECK_EQ(kv_art_count(map), 0);
    sound(map);
    kv_art_close(map);
}

/* A scan whose callback deletes the entry it was given, and one that inserts behind itself. */
typedef struct writing { kv_art *map; size_t seen; } writing;
static bool delete_visit(void *user, kv_slice key, kv_slice value)
{
    writing *w = (writing *)user;
    char     k[8];
    (void)value;
    memcpy(k, key.data, key.size);
    w->seen++;
    return CHECK_OK(kv_art_delete(w->map, kv_bytes(k, key.size)));
}
TEST(art_range, callback_may_write)
{
    kv_art  *map = open_map();
    writing  w;
    kv_range r;
    char     k[4];
    for (int reverse = 0; reverse < 2; reverse++) {
        for (uint32_t i = 0; i < 1000; i++) CHECK_OK(kv_art_set_u64(map, number_key(i * 3, k), i));
        w.map = map;
        w.seen = 0;
        memset(&r, 0, sizeof r);
        r.reverse = reverse == 1;
        CHECK_OK(kv_art_scan(map, &r, delete_visit, &w));
        CHECK_EQ(w.seen, 1000);
        CHECK_EQ(kv_art_count(map), 0);
    }
    kv_art_close(map);
}

TEST(art_cursor, stays_open_while_the_map_is_written)
{
    kv_art  *map = open_map();
    kv_iter *i;
    char     k[4];
    for (uint32_t n = 0; n < 100; n++) CHECK_OK(kv_art_set_u64(map, number_key(n * 10, k), n));
    CHECK_OK(kv_art_iter_open(map, NULL, &i));
    kv_iter_seek(i, number_key(500, k));
    CHECK_BYTES(kv_iter_key(i), number_key(500, k));
    CHECK_OK(kv_art_delete(map, number_key(500, k)));
    CHECK_OK(kv_art_set_u64(map, number_key(505, k), 1));
    for (uint32_t n = 2000; n < 3000; n++) CHECK_OK(kv_art_set_u64(map, number_key(n, k), n));
    CHECK_BYTES(kv_iter_key(i), number_key(500, k));
    kv_iter_next(i);
    CHECK_BYTES(kv_iter_key(i), number_key(505, k));
    kv_iter_prev(i);
    CHECK_BYTES(kv_iter_key(i), number_key(490, k));
    kv_art_clear(map);
    kv_iter_next(i);
    CHECK(!kv_iter_valid(i));
    CHECK_OK(kv_iter_status(i));
    kv_iter_close(i);
    kv_art_close(map);
}

TEST(art_batch, answers_in_order)
{
    kv_art   *map = open_map();
    kv_store *s = kv_art_store(map);
    char      keys[100][4];
    kv_slice  slices[100];
    kv_pair   pairs[100];
    kv_buf    values[100];
    kv_status statuses[100];
    memset(values, 0, sizeof values);
    for (uint32_t i = 0; i < 100; i++) {
        slices[i] = pairs[i].key = number_key(i * 1001, keys[i]);
        pairs[i].value = kv_bytes(keys[i], i % 5);
    }
    CHECK_OK(kv_batch_set(s, pairs, 50));
    CHECK_OK(kv_batch_get(s, slices, 100, values, statuses));
    for (uint32_t i = 0; i < 100; i++) {
        CHECK_STATUS(statuses[i], i < 50 ? KV_OK : KV_NOT_FOUND);
        if (i < 50) CHECK_BYTES(kv_buf_slice(&values[i]), pairs[i].value);
    }
    CHECK_OK(kv_batch_get(s, slices, 100, values, NULL));
    CHECK_OK(kv_batch_get(s, NULL, 0, NULL, NULL));
    CHECK_OK(kv_batch_delete(s, slices, 100));
    CHECK_EQ(kv_art_count(map), 0);
    for (uint32_t i = 0; i < 100; i++) kv_buf_free(&values[i]);
    kv_art_close(map);
}

/* Sorted input leaves full leaves behind. */
TEST(art_memory, sorted_input_packs_well)
{
    kv_art        *map = open_map();
    kv_art_stats_t stats;
    char           k[4];
    for (uint32_t i = 0; i < 20000; i++) CHECK_OK(kv_art_set_u64(map, number_key(i, k), i));
    CHECK_OK(kv_art_stats(map, &stats));
    CHECK(stats.leaves < 20000 / 28);
    sound(map);
    kv_art_close(map);
}

#if KVI_THREADS
TEST(art_concurrent, one_thread)
{
    kv_art_options o;
    kv_art        *map;
    kv_slice       v;
    kv_pair        e;
    uint64_t       n;
    char           k[4];
    memset(&o, 0, sizeof o);
    o.concurrent = true;
    CHECK_OK(kv_art_open(&o, &map));
    CHECK(kv_store_caps(kv_art_store(map)) & KV_CAP_THREADS);
    for (uint32_t i = 0; i < 5000; i++) CHECK_OK(kv_art_set_u64(map, number_key(i * 2654435761u, k), i));
    CHECK_STATUS(kv_art_get(map, k[0] ? kv_bytes(k, 4) : kv_bytes(k, 4), &v), KV_ERR_INVALID);
    for (uint32_t i = 0; i < 5000; i++) has_u64(map, number_key(i * 2654435761u, k), i);
    CHECK_OK(kv_art_min(map, &e));
    CHECK_BYTES(e.key, number_key(0, k));
    CHECK_OK(kv_art_longest_prefix(map, kv_bytes("\0\0\0\0x", 5), &e));
    CHECK_EQ(e.key.size, 4);
    CHECK_EQ(e.value.size, 8);
    sound(map);
    kv_art_clear(map);
    CHECK_EQ(kv_art_count(map), 0);
    CHECK_OK(kv_art_count_range(map, NULL, &n));
    CHECK_EQ(n, 0);
    sound(map);
    kv_art_close(map);
}
#endif

TEST_MAIN()
