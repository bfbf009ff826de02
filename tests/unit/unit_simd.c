/* unit_simd.c
   Goal: every kernel of kv_simd.h gives, at every SIMD level, what a plain loop gives; kv_hash is XXH3;
   kv_shard spreads evenly.
   simd-levels: all
   Method: built once for each level that the processor has. Random bytes of few and of many values, at
   every alignment, against loops; kernels that may read only so far get memory that ends there (a
   sanitizer watches). The hash is compared with the xxhash library of the system where the Makefile
   links it (KV_TEST_LIBXXHASH), and everywhere with constants that were made there. */
#define KV_SIMD_IMPLEMENTATION
#include "../../kv_simd.h"
#include "../kv_test.h"

#if defined(KV_TEST_LIBXXHASH)
#undef XXH3_64bits_withSeed
#ifdef __cplusplus
extern "C"
#endif
uint64_t XXH3_64bits_withSeed(const void *data, size_t size, uint64_t seed);    /* the library's own */
#endif

/* ---- hash ---- */

/* One number out of the hashes of every length up to 2,048 under five seeds. */
TEST(hash, every_length_and_several_seeds)
{
    static const uint64_t seeds[] = { 0, 1, 2654435761u, UINT64_C(0x9E3779B97F4A7C15), UINT64_MAX };
    uint64_t state = 17, all = 0;
    for (size_t size = 0; size <= 2048; size++) {
        uint8_t *data = (uint8_t *)malloc(size ? size : 1);
        size_t   different = 0;
        if (!data) abort();
        for (size_t i = 0; i < size; i++) { state = state * UINT64_C(6364136223846793005) + 1442695040888963407u; data[i] = (uint8_t)(state >> 56); }
        for (size_t s = 0; s < 5; s++) {
            uint64_t h = kv_hash(kv_bytes(data, size), seeds[s]);
            all = (all << 7 | all >> 57) ^ h;
#if defined(KV_TEST_LIBXXHASH)
            different += h != XXH3_64bits_withSeed(data, size, seeds[s]);
#endif
        }
        CHECK_EQ(different, 0);
        free(data);
    }
    CHECK(all == UINT64_C(0xF3388F83CDC9098A));
}

/* The numbers that files hold: they may never change, on any machine. */
TEST(hash, known_numbers)
{
    uint8_t sanity[2400];
    uint64_t generator = 2654435761u;
    for (size_t i = 0; i < sizeof sanity; i++) { sanity[i] = (uint8_t)(generator >> 56); generator *= UINT64_C(11400714785074694797); }
    /* from the self-test of xxHash 0.8 */
    CHECK(kv_hash(kv_bytes(NULL, 0), 0) == UINT64_C(0x2D06800538D394C2));
    CHECK(kv_hash(kv_bytes(sanity, 1), 0) == UINT64_C(0xC44BDFF4074EECDB));
    CHECK(kv_hash(kv_bytes(sanity, 6), 0) == UINT64_C(0x27B56A84CD2D7325));
    CHECK(kv_hash(kv_bytes(sanity, 12), 0) == UINT64_C(0xA713DAF0DFBB77E7));
    CHECK(kv_hash(kv_bytes(sanity, 24), 0) == UINT64_C(0xA3FE70BF9D3510EB));
    CHECK(kv_hash(kv_bytes(sanity, 48), 0) == UINT64_C(0x397DA259ECBA1F11));
    CHECK(kv_hash(kv_bytes(sanity, 80), 0) == UINT64_C(0xBCDEFBBB2C47C90A));
    CHECK(kv_hash(kv_bytes(sanity, 195), 0) == UINT64_C(0xCD94217EE362EC3A));
    CHECK(kv_hash(kv_bytes(sanity, 403), 0) == UINT64_C(0xCDEB804D65C6DEA4));
    CHECK(kv_hash(kv_bytes(sanity, 2240), 0) == UINT64_C(0x6E73A90539CF2948));
    CHECK(kvi_checksum(sanity, 24, 0) == 0x9D3510EBu);
}

TEST(hash, a_batch_equals_one_at_a_time)
{
    enum { KEYS = 300 };
    test_rng  r = test_rng_new();
    kv_slice  keys[KEYS];
    uint64_t  hashes[KEYS];
    for (size_t count = 0; count < KEYS; count += 1 + count / 8) {
        uint64_t seed = test_random(&r);
        size_t   wrong = 0;
        for (size_t i = 0; i < count; i++) {
            size_t   size = test_one_in(&r, 20) ? (size_t)test_below(&r, 2000) : (size_t)test_below(&r, 40);
            uint8_t *data = size ? (uint8_t *)malloc(size) : NULL;
            for (size_t b = 0; b < size; b++) data[b] = (uint8_t)test_random(&r);
            keys[i] = kv_bytes(data, size);
        }
        kv_hash_batch(keys, count, seed, hashes);
        for (size_t i = 0; i < count; i++) { wrong += hashes[i] != kv_hash(keys[i], seed); free((void *)(uintptr_t)keys[i].data); }
        CHECK_EQ(wrong, 0);
    }
    kv_hash_batch(NULL, 0, 0, NULL);
}

/* ---- shard ---- */

/* The chi-square statistic of a fair spread has a mean of n - 1 and a deviation of sqrt(2 (n - 1)):
   six deviations away is a bad hash, not bad luck. */
static void spread(const char *what, uint32_t shards, size_t keys, size_t (*make)(uint64_t number, char *out))
{
    uint32_t *counts = (uint32_t *)calloc(shards, sizeof *counts);
    double    chi = 0, expected = (double)keys / shards, limit = shards - 1;
    char      key[64], text[200];
    if (!counts) abort();
    for (uint64_t n = 0; n < keys; n++) {
        size_t   size = make(n, key);
        uint32_t shard = kv_shard(kv_hash(kv_bytes(key, size), 0), shards);
        if (shard >= shards) { CHECK(!"a shard beyond the count"); break; }
        counts[shard]++;
    }
    for (uint32_t i = 0; i < shards; i++) chi += ((double)counts[i] - expected) * ((double)counts[i] - expected) / expected;
    { double deviation = 0, v = 2 * limit; while (deviation * deviation < v) deviation += 0.5; limit += 6 * deviation; }
    snprintf(text, sizeof text, "%s over %u shards: chi-square %.1f, at most %.1f", what, (unsigned)shards, chi, limit);
    test_check(chi <= limit, text, __FILE__, __LINE__);
    free(counts);
}
static size_t key_user(uint64_t n, char *out)       { return (size_t)snprintf(out, 64, "user%04d", (int)n); }
static size_t key_decimal(uint64_t n, char *out)    { return (size_t)snprintf(out, 64, "%d", (int)n); }
static size_t key_be64(uint64_t n, char *out)       { for (int i = 0; i < 8; i++) out[i] = (char)(n >> (56 - 8 * i)); return 8; }
static size_t key_le64(uint64_t n, char *out)       { memcpy(out, &n, 8); return 8; }
static size_t key_16(uint64_t n, char *out)         { memset(out, 0, 8); key_be64(n, out + 8); return 16; }
static size_t key_spaced(uint64_t n, char *out)     { return key_le64(n * 4096, out); }

TEST(shard, spreads_evenly)
{
    static const uint32_t shards[] = { 2, 3, 4, 10, 16, 64, 1000 };
    for (size_t i = 0; i < sizeof shards / sizeof *shards; i++) {
        size_t keys = shards[i] < 100 ? 10000 : 100000;
        spread("user%04d", shards[i], keys, key_user);
        spread("decimal numbers", shards[i], keys, key_decimal);
        spread("8 bytes, big-endian", shards[i], keys, key_be64);
        spread("8 bytes, little-endian", shards[i], keys, key_le64);
        spread("16 bytes", shards[i], keys, key_16);
        spread("multiples of 4096", shards[i], keys, key_spaced);
    }
}
TEST(shard, stays_in_its_bounds)
{
    static const uint64_t hashes[] = { 0, 1, UINT64_C(0xFFFFFFFF), UINT64_C(1) << 32, UINT64_MAX, UINT64_MAX << 32 };
    for (size_t i = 0; i < 6; i++) {
        for (uint32_t n = 1; n < 70; n++) CHECK(kv_shard(hashes[i], n) < n);
        CHECK(kv_shard(hashes[i], UINT32_MAX) < UINT32_MAX);
        CHECK_EQ(kv_shard(hashes[i], 0), 0);
        CHECK_EQ(kv_shard(hashes[i], 1), 0);
    }
    CHECK_EQ(kv_shard(UINT64_MAX, 10), 9);
    CHECK_EQ(kv_shard(0, 10), 0);
}

/* ---- kernels ---- */

static void random_bytes(test_rng *r, uint8_t *out, size_t size)
{
    uint64_t values = test_one_in(r, 3) ? 256 : 2 + test_below(r, 3), base = test_one_in(r, 2) ? 0 : test_below(r, 256);
    for (size_t i = 0; i < size; i++) out[i] = (uint8_t)(base + test_below(r, values));
}
static uint8_t random_byte(test_rng *r, const uint8_t *from, size_t size)
{
    switch (test_below(r, 5)) {
    case 0: return 0;
    case 1: return 255;
    case 2: return (uint8_t)test_random(r);
    default: return from[test_below(r, size)];
    }
}

TEST(group, sixteen_thirty_two_and_sixty_four_bytes_at_once)
{
    test_rng r = test_rng_new();
    size_t   rounds = test_scaled(20000);
    for (size_t n = 0; n < rounds; n++) {
        size_t   start = n % 64;
        uint8_t *memory = (uint8_t *)malloc(start + 64), *p = memory + start, byte;
        uint64_t eq = 0, le = 0, lt = 0;
        bool     ok = true;
        if (!memory) abort();
        random_bytes(&r, p, 64);
        byte = random_byte(&r, p, 64);
        for (int i = 0; i < 64; i++) {
            eq |= (uint64_t)(p[i] == byte) << i;
            le |= (uint64_t)(p[i] <= byte) << i;
            lt |= (uint64_t)(p[i] < byte) << i;
        }
        ok &= kvi_eq64(p, byte) == eq && kvi_le64(p, byte) == le && kvi_lt64(p, byte) == lt;
        ok &= kvi_eq32(p + 32, byte) == (uint32_t)(eq >> 32) && kvi_le32(p + 32, byte) == (uint32_t)(le >> 32) && kvi_lt32(p + 32, byte) == (uint32_t)(lt >> 32);
        ok &= kvi_eq16(p + 48, byte) == (uint32_t)(eq >> 48) && kvi_le16(p + 48, byte) == (uint32_t)(le >> 48);
        free(memory);
        if (!CHECK(ok)) return;
    }
}
TEST(group, every_byte_against_every_byte)
{
    uint8_t group[16];
    for (int have = 0; have < 256; have++)
        for (int asked = 0; asked < 256; asked++) {
            memset(group, have, 16);
            group[5] = (uint8_t)(have + 1);                 /* a borrow from here must not reach its neighbour */
            if (kvi_eq16(group, (uint8_t)asked) != (have == asked ? 0xFFDFu : (uint8_t)(have + 1) == asked ? 0x20u : 0u)
                || kvi_le16(group, (uint8_t)asked) != ((have <= asked ? 0xFFDFu : 0u) | ((uint8_t)(have + 1) <= asked ? 0x20u : 0u))) {
                CHECK(!"wrong mask");
                return;
            }
        }
    CHECK(true);
}

TEST(columns, the_sum_of_the_first_bytes)
{
    test_rng r = test_rng_new();
    for (uint32_t n = 0; n < 3300; n++) {
        size_t   start = n % 32;
        uint8_t *memory = (uint8_t *)malloc(start + 32), *p = memory + start;
        uint32_t count = n % 33, sum = 0;
        if (!memory) abort();
        random_bytes(&r, p, 32);
        if (n % 7 == 0) memset(p, 255, 32);
        for (uint32_t i = 0; i < count; i++) sum += p[i];
        CHECK_EQ(kvi_sum32(p, count), sum);
        free(memory);
    }
}

static int byte_order(const void *a, const void *b) { return *(const uint8_t *)a - *(const uint8_t *)b; }
TEST(columns, rank_among_ascending_bytes)
{
    test_rng r = test_rng_new();
    for (uint32_t n = 0; n < 6000; n++) {
        uint32_t count = n % 257, room = (count + 15) / 16 * 16, wanted = 0;
        uint8_t *memory, *p, byte;
        if (!room) room = 16;
        memory = (uint8_t *)malloc(n % 16 + room);
        if (!memory) abort();
        p = memory + n % 16;
        random_bytes(&r, p, room);                          /* what lies behind the count is noise */
        qsort(p, count, 1, byte_order);
        byte = random_byte(&r, p, room);
        while (wanted < count && p[wanted] <= byte) wanted++;
        CHECK_EQ(kvi_rank(p, count, byte), wanted);
        free(memory);
    }
}

/* Two strings in blocks that end where they end, alike up to `same`. */
TEST(prefix, of_two_strings_and_equality)
{
    test_rng r = test_rng_new();
    size_t   rounds = test_scaled(30000);
    for (size_t n = 0; n < rounds; n++) {
        size_t   a_size = (size_t)test_below(&r, test_one_in(&r, 10) ? 600 : 80), b_size = test_one_in(&r, 3) ? (size_t)test_below(&r, 80) : a_size;
        size_t   a_start = (size_t)test_below(&r, 17), b_start = (size_t)test_below(&r, 17), both = a_size < b_size ? a_size : b_size, same;
        uint8_t *a_memory = (uint8_t *)malloc(a_start + a_size + 1), *b_memory = (uint8_t *)malloc(b_start + b_size + 1);
        uint8_t *a, *b;
        if (!a_memory || !b_memory) abort();
        a_memory = (uint8_t *)realloc(a_memory, a_start + a_size ? a_start + a_size : 1);
        b_memory = (uint8_t *)realloc(b_memory, b_start + b_size ? b_start + b_size : 1);
        if (!a_memory || !b_memory) abort();
        a = a_memory + a_start; b = b_memory + b_start;
        random_bytes(&r, a, a_size);
        for (size_t i = 0; i < b_size; i++) b[i] = i < a_size ? a[i] : (uint8_t)test_random(&r);
        if (both && !test_one_in(&r, 4)) { size_t at = (size_t)test_below(&r, both); b[at] ^= (uint8_t)(1u << test_below(&r, 8)); }
        for (same = 0; same < both && a[same] == b[same]; same++) {}
        CHECK_EQ(kvi_common_prefix(a, b, both), same);
        CHECK_EQ(kv_common_prefix(kv_bytes(a, a_size), kv_bytes(b, b_size)), same);
        CHECK_EQ(kvi_equal(a, b, both), same == both);
        free(a_memory);
        free(b_memory);
    }
    CHECK_EQ(kv_common_prefix(kv_bytes(NULL, 0), kv_bytes("x", 1)), 0);
    CHECK(kvi_equal("", "", 0));
}

TEST(level, is_the_one_that_was_asked_for)
{
    static const char *const names[] = { "scalar", "sse2", "avx2", "avx512", "neon", "wasm" };
    CHECK(!strcmp(kv_simd_name(), names[KV_SIMD]));
    printf("level %s\n", kv_simd_name());
}

TEST_MAIN()
