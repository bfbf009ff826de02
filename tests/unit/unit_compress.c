/* unit_compress.c
   Goal: what is packed comes back bit for bit, whatever the codec, filter, size and content; no value
   grows by more than 8 bytes; every damaged, cut, crafted or foreign packed value is refused; failing
   allocations leave everything as it was; the wrapper does what a store does.
   Method: every combination over awkward sizes and contents; every bit of small packed values flipped
   and every prefix tried; values with a right checksum around wrong content; golden values of format 0;
   an allocator that fails at each call in turn; a plain store (ref_store.h) inside the wrapper. */
#define KV_COMPRESS_IMPLEMENTATION
#include "../../kv_compress.h"
#include "../ref_store.h"

/* ---- contents ---- */

typedef enum content { ZEROS, NOISE, TEXT, FLOATS, EXTREMES, STEPS, CONTENTS } content;

static void fill(content kind, uint8_t *out, size_t size, uint64_t seed)
{
    static const char words[] = "the quick brown fox jumps over the lazy dog and then {\"id\": 17, \"name\": \"fox\"} ";
    test_rng r = { seed };
    for (size_t i = 0; i < size; i++) {
        switch (kind) {
        case ZEROS:    out[i] = 0; break;
        case NOISE:    out[i] = (uint8_t)test_random(&r); break;
        case TEXT:     out[i] = (uint8_t)words[(i + i / 997) % (sizeof words - 1)]; break;
        case FLOATS:   out[i] = i % 2 ? (uint8_t)(0x3F - test_below(&r, 2) + test_below(&r, 2) * 0x80) : (uint8_t)test_random(&r); break;
        case EXTREMES: out[i] = test_one_in(&r, 3) ? 0xFF : test_one_in(&r, 2) ? 0x7F : (uint8_t)test_random(&r); break;
        case STEPS:    out[i] = i % 4 ? 0 : (uint8_t)(i / 4); break;
        default:       out[i] = (uint8_t)i; break;
        }
    }
}

static kv_compress_options options_of(kv_codec codec, kv_filter filter, uint32_t element_size)
{
    kv_compress_options o;
    memset(&o, 0, sizeof o);
    o.codec = codec;
    o.filter = filter;
    o.element_size = element_size;
    return o;
}

static kv_compressor *open_of(kv_codec codec, kv_filter filter, uint32_t element_size)
{
    kv_compress_options o = options_of(codec, filter, element_size);
    kv_compressor      *c = NULL;
    CHECK_OK(kv_compressor_open(&o, &c));
    return c;
}

/* Every codec with every filter, one after the other; false after the last. */
typedef struct combination { kv_codec codec; kv_filter filter; uint32_t element_size; } combination;
static bool next_combination(combination *k)
{
    if (!k->codec) { k->codec = KV_CODEC_NONE; k->element_size = 1; return true; }
    if (k->filter != KV_FILTER_NONE && k->element_size < 8) { k->element_size *= 2; return true; }
    k->element_size = 1;
    if (k->filter < KV_FILTER_AUTO) { k->filter = (kv_filter)(k->filter + 1); return true; }
    k->filter = KV_FILTER_NONE;
    if (k->codec == KV_CODEC_ZSTD) return false;
    k->codec = (kv_codec)(k->codec + 1);
    return true;
}

/* ---- round trips ---- */

static void round_trip(kv_compressor *c, kv_slice raw, kv_buf *packed, kv_buf *back)
{
    CHECK_OK(kv_compress(c, raw, packed));
    CHECK(packed->size <= raw.size + 8);
    if (!CHECK_OK(kv_decompress(c, kv_buf_slice(packed), back))) return;
    CHECK(kv_equal(kv_buf_slice(back), raw));
}

TEST(compress, every_codec_filter_size_and_content_comes_back)
{
    static uint8_t raw[5000];
    combination    k;
    kv_buf         packed, back;
    memset(&k, 0, sizeof k);
    memset(&packed, 0, sizeof packed);
    memset(&back, 0, sizeof back);
    while (next_combination(&k)) {
        kv_compressor *c = open_of(k.codec, k.filter, k.element_size);
        for (int kind = 0; kind < CONTENTS; kind++) {
            fill((content)kind, raw, sizeof raw, (uint64_t)kind);
            for (size_t size = 0; size < sizeof raw; size += size < 140 ? 1 : size < 700 ? 61 : 1103) round_trip(c, kv_bytes(raw, size), &packed, &back);
        }
        kv_compressor_close(c);
    }
    kv_buf_free(&packed);
    kv_buf_free(&back);
}

/* The chunks of the float filters end at 65,536 and 131,072 numbers. */
TEST(compress, large_values_around_the_ends_of_chunks)
{
    static const size_t numbers[] = { 65535, 65536, 65537, 131071, 131073, 200000 };
    static uint8_t raw[200000 * 4 + 3];
    kv_buf packed, back;
    memset(&packed, 0, sizeof packed);
    memset(&back, 0, sizeof back);
    for (int filter = KV_FILTER_SHUFFLE; filter <= KV_FILTER_AUTO; filter++) {
        for (int codec = KV_CODEC_NONE; codec <= KV_CODEC_ZSTD; codec++) {
            kv_compressor *c = open_of((kv_codec)codec, (kv_filter)filter, filter == KV_FILTER_AUTO ? 0 : 4);
            for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
                fill(i % 3 == 0 ? FLOATS : i % 3 == 1 ? EXTREMES : STEPS, raw, sizeof raw, i);
                round_trip(c, kv_bytes(raw, numbers[i] * (filter == KV_FILTER_FP32 ? 4 : 2) + i % 4), &packed, &back);
            }
            kv_compressor_close(c);
        }
    }
    kv_buf_free(&packed);
    kv_buf_free(&back);
}

/* A tensor whose first chunk packs well and whose second is noise: chunk by chunk is decided. */
TEST(compress, float_chunks_of_noise_are_stored_one_by_one)
{
    static uint8_t raw[65536 * 2 * 3];
    kv_buf packed, back;
    memset(&packed, 0, sizeof packed);
    memset(&back, 0, sizeof back);
    fill(FLOATS, raw, sizeof raw, 1);
    fill(NOISE, raw + 65536 * 2, 65536 * 2, 2);
    for (int codec = KV_CODEC_NONE; codec <= KV_CODEC_ZSTD; codec += 2) {
        kv_compressor *c = open_of((kv_codec)codec, KV_FILTER_BF16, 0);
        round_trip(c, kv_bytes(raw, sizeof raw), &packed, &back);
        CHECK(packed.size < sizeof raw * 5 / 6);
        kv_compressor_close(c);
    }
    kv_buf_free(&packed);
    kv_buf_free(&back);
}

/* bf16 numbers that were widened to fp32: two planes of zeros, which take nothing. */
TEST(compress, fp32_planes_of_zeros_take_nothing)
{
    static uint8_t raw[4 * 10000];
    kv_buf packed, back;
    memset(&packed, 0, sizeof packed);
    memset(&back, 0, sizeof back);
    fill(FLOATS, raw, sizeof raw, 3);
    for (size_t i = 0; i < sizeof raw; i += 4) { raw[i] = raw[i + 1] = 0; }
    for (int codec = KV_CODEC_NONE; codec <= KV_CODEC_ZSTD; codec += 2) {
        kv_compressor *c = open_of((kv_codec)codec, KV_FILTER_FP32, 0);
        round_trip(c, kv_bytes(raw, sizeof raw), &packed, &back);
        CHECK(packed.size < sizeof raw * 2 / 5);
        raw[sizeof raw - 3] = 1;                        /* one middle byte, far back */
        round_trip(c, kv_bytes(raw, sizeof raw), &packed, &back);
        raw[sizeof raw - 3] = 0;
        kv_compressor_close(c);
    }
    kv_buf_free(&packed);
    kv_buf_free(&back);
}

TEST(compress, packs_what_can_be_packed)
{
    static uint8_t text[20000], floats[20000], noise[2000];
    kv_buf packed, back;
    memset(&packed, 0, sizeof packed);
    memset(&back, 0, sizeof back);
    fill(TEXT, text, sizeof text, 0);
    fill(FLOATS, floats, sizeof floats, 4);
    fill(NOISE, noise, sizeof noise, 5);
    for (int codec = KV_CODEC_LZ4; codec <= KV_CODEC_ZSTD; codec++) {
        kv_compressor *c = open_of((kv_codec)codec, KV_FILTER_NONE, 0);
        round_trip(c, kv_bytes(text, sizeof text), &packed, &back);
        CHECK(packed.size < sizeof text / 10);
        round_trip(c, kv_bytes(noise, sizeof noise), &packed, &back);
        CHECK_EQ(packed.size, sizeof noise + 5);
        round_trip(c, kv_bytes(text, 63), &packed, &back);      /* below size_min */
        CHECK_EQ(packed.size, 63 + 5);
        kv_compressor_close(c);
        c = open_of((kv_codec)codec, KV_FILTER_AUTO, 0);
        round_trip(c, kv_bytes(floats, sizeof floats), &packed, &back);
        CHECK(packed.size * 13 < sizeof floats * 10);
        round_trip(c, kv_bytes(text, sizeof text), &packed, &back);
        CHECK(packed.size < sizeof text / 10);
        kv_compressor_close(c);
    }
    kv_buf_free(&packed);
    kv_buf_free(&back);
}

/* The tag says how to read: a reader with other options reads everything. */
TEST(compress, a_reader_needs_no_options)
{
    static uint8_t raw[3001];
    combination    k;
    kv_buf         packed, back;
    kv_compressor *reader = open_of(KV_CODEC_NONE, KV_FILTER_NONE, 0);
    memset(&k, 0, sizeof k);
    memset(&packed, 0, sizeof packed);
    memset(&back, 0, sizeof back);
    while (next_combination(&k)) {
        kv_compressor *writer = open_of(k.codec, k.filter, k.element_size);
        for (int kind = 0; kind < CONTENTS; kind++) {
            fill((content)kind, raw, sizeof raw, 6);
            CHECK_OK(kv_compress(writer, kv_bytes(raw, sizeof raw), &packed));
            if (CHECK_OK(kv_decompress(reader, kv_buf_slice(&packed), &back))) CHECK(kv_equal(kv_buf_slice(&back), kv_bytes(raw, sizeof raw)));
        }
        kv_compressor_close(writer);
    }
    kv_compressor_close(reader);
    kv_buf_free(&packed);
    kv_buf_free(&back);
}

TEST(compress, every_level)
{
    static const int lz4_levels[] = { -65537, -100, -1, 0, 1, 2, 3, 4, 9, 10, 12 }, zstd_levels[] = { -131072, -5, -1, 0, 1, 3, 6, 9, 15, 19, 22 };
    static uint8_t raw[30000];
    kv_buf packed, back;
    memset(&packed, 0, sizeof packed);
    memset(&back, 0, sizeof back);
    fill(TEXT, raw, sizeof raw, 0);
    for (size_t i = 0; i < 22; i++) {
        kv_compress_options o = options_of(i < 11 ? KV_CODEC_LZ4 : KV_CODEC_ZSTD, KV_FILTER_NONE, 0);
        kv_compressor      *c;
        o.level = i < 11 ? lz4_levels[i] : zstd_levels[i - 11];
        if (!CHECK_OK(kv_compressor_open(&o, &c))) continue;
        round_trip(c, kv_bytes(raw, sizeof raw), &packed, &back);
        round_trip(c, kv_bytes(raw, 500), &packed, &back);
        kv_compressor_close(c);
    }
    kv_buf_free(&packed);
    kv_buf_free(&back);
}

/* A context remembers what it packed before; that must not show. */
TEST(compress, the_same_value_gives_the_same_bytes)
{
    static uint8_t raw[9000], other[9000];
    kv_buf first, again;
    combination k;
    memset(&k, 0, sizeof k);
    memset(&first, 0, sizeof first);
    memset(&again, 0, sizeof again);
    fill(TEXT, raw, sizeof raw, 0);
    fill(FLOATS, other, sizeof other, 1);
    while (next_combination(&k)) {
        kv_compressor *c = open_of(k.codec, k.filter, k.element_size);
        for (size_t size = 100; size <= sizeof raw; size += 4450) {
            CHECK_OK(kv_compress(c, kv_bytes(raw, size), &first));
            CHECK_OK(kv_compress(c, kv_bytes(other, sizeof other), &again));
            CHECK_OK(kv_compress(c, kv_bytes(raw, size), &again));
            if (!CHECK(kv_equal(kv_buf_slice(&first), kv_buf_slice(&again)))) fprintf(stderr, "codec %d filter %d element %u size %zu: %zu %zu\n", k.codec, k.filter, k.element_size, size, first.size, again.size);
        }
        kv_compressor_close(c);
    }
    kv_buf_free(&first);
    kv_buf_free(&again);
}

/* ---- damage ---- */

static void check_damage(kv_compressor *c, kv_slice packed)
{
    uint8_t *copy = (uint8_t *)malloc(packed.size + 1);
    kv_buf   back;
    size_t   wrong = 0;
    memset(&back, 0, sizeof back);
    CHECK_OK(kv_buf_assign(&back, KV_STR("as before")));
    if (!copy) abort();
    for (size_t bit = 0; bit < packed.size * 8; bit++) {
        memcpy(copy, packed.data, packed.size);
        copy[bit / 8] = (uint8_t)(copy[bit / 8] ^ 1u << bit % 8);
        wrong += kv_decompress(c, kv_bytes(copy, packed.size), &back) != KV_ERR_CORRUPT;
    }
    for (size_t size = 0; size < packed.size; size++) {         /* a block of just that size: a sanitizer sees an overrun */
        uint8_t *cut = (uint8_t *)malloc(size ? size : 1);
        if (!cut) abort();
        memcpy(cut, packed.data, size);
        wrong += kv_decompress(c, kv_bytes(cut, size), &back) != KV_ERR_CORRUPT;
        free(cut);
    }
    memcpy(copy, packed.data, packed.size);
    for (int byte = 0; byte < 256; byte++) {
        copy[packed.size] = (uint8_t)byte;
        wrong += kv_decompress(c, kv_bytes(copy, packed.size + 1), &back) != KV_ERR_CORRUPT;
    }
    CHECK_EQ(wrong, 0);
    CHECK_BYTES(kv_buf_slice(&back), KV_STR("as before"));
    CHECK(strstr(kv_compressor_last_error(c), "damaged") != NULL);
    kv_buf_free(&back);
    free(copy);
}

TEST(compress, every_bit_flip_cut_and_added_byte_is_refused)
{
    static uint8_t raw[400];
    combination k;
    kv_buf      packed;
    memset(&k, 0, sizeof k);
    memset(&packed, 0, sizeof packed);
    while (next_combination(&k)) {
        kv_compressor *c = open_of(k.codec, k.filter, k.element_size);
        for (int kind = 0; kind < CONTENTS; kind++) {
            fill((content)kind, raw, sizeof raw, 7);
            CHECK_OK(kv_compress(c, kv_bytes(raw, kind == NOISE ? 20 : sizeof raw - (size_t)kind), &packed));
            check_damage(c, kv_buf_slice(&packed));
        }
        kv_compressor_close(c);
    }
    kv_buf_free(&packed);
}

/* Bytes with a right checksum at their end. */
static kv_slice sealed(uint8_t *bytes, size_t size)
{
    kvi_packed_seal(bytes, size, 0);
    return kv_bytes(bytes, size + 4);
}

TEST(compress, crafted_values_with_a_right_checksum)
{
    static uint8_t bytes[4096];
    test_rng       r = test_rng_new();
    test_memory    memory;
    kv_compress_options o = options_of(KV_CODEC_LZ4, KV_FILTER_NONE, 0);
    kv_compressor *c;
    kv_buf         back;
    kv_status      s;
    memset(&memory, 0, sizeof memory);
    memset(&back, 0, sizeof back);
    o.allocator = back.allocator = test_allocator(&memory);
    CHECK_OK(kv_compressor_open(&o, &c));

    bytes[0] = 0x10; bytes[1] = 0x80; bytes[2] = 0x00;                          /* a size of 0 in two bytes */
    CHECK_STATUS(kv_decompress(c, sealed(bytes, 12), &back), KV_ERR_CORRUPT);
    bytes[1] = 0xE4; bytes[2] = 0x80; bytes[3] = 0x00;                          /* 100 in three bytes */
    CHECK_STATUS(kv_decompress(c, sealed(bytes, 12), &back), KV_ERR_CORRUPT);
    bytes[1] = 0;                                                               /* 0: would have been stored */
    CHECK_STATUS(kv_decompress(c, sealed(bytes, 12), &back), KV_ERR_CORRUPT);
    memset(bytes + 1, 0xFF, 10);                                                /* a size that does not end */
    CHECK_STATUS(kv_decompress(c, sealed(bytes, 12), &back), KV_ERR_CORRUPT);
    bytes[1] = 0x80; bytes[2] = 0x80; bytes[3] = 0x80; bytes[4] = 0x80; bytes[5] = 0x04;    /* 1 GiB */
    CHECK_STATUS(kv_decompress(c, sealed(bytes, 40), &back), KV_ERR_CORRUPT);
    bytes[1] = 0xFF; bytes[2] = 0xFF; bytes[3] = 0xFF; bytes[4] = 0xFF; bytes[5] = 0x03;    /* 1 GiB - 1, out of 30 bytes */
    for (uint32_t tag = 0x10; tag < 0x30; tag++) {
        bytes[0] = (uint8_t)tag;
        s = kv_decompress(c, sealed(bytes, 40), &back);
        CHECK(s == KV_ERR_CORRUPT || s == KV_ERR_VERSION);
    }
    CHECK(memory.peak_bytes < 1 << 20);                                         /* nobody asked for a GiB */

    /* tags that format 0 does not have */
    for (uint32_t tag = 0; tag < 256; tag++) {
        bool known = tag == 0 || tag == 8 || tag == 9 || tag == 10 || (tag >= 16 && tag < 24) || (tag >= 32 && tag < 43)
                     || (tag >= 80 && tag < 88) || (tag >= 96 && tag < 107);
        memset(bytes, 0, 40);
        bytes[0] = (uint8_t)tag;
        bytes[1] = 100;
        s = kv_decompress(c, sealed(bytes, 40), &back);
        if (tag >= 64 && tag & 64) CHECK_STATUS(s, KV_ERR_CORRUPT);            /* says it has a dictionary */
        else if (!known) CHECK_STATUS(s, KV_ERR_VERSION);
        else CHECK(tag == 0 ? s == KV_OK : s == KV_ERR_CORRUPT || s == KV_OK);
    }

    /* anything at all behind a right header */
    for (int i = 0; i < 20000; i++) {
        static const uint8_t tags[] = { 8, 9, 10, 16, 17, 20, 22, 32, 35, 38, 40, 41, 42 };
        size_t size = 2 + (size_t)test_below(&r, test_one_in(&r, 10) ? 3000 : 60), raw_size = 1 + (size_t)test_below(&r, 500);
        uint8_t *exact;
        for (size_t k = 0; k < size; k++) bytes[k] = test_one_in(&r, 3) ? 0 : (uint8_t)test_random(&r);
        bytes[0] = tags[test_below(&r, sizeof tags)];
        size = 1 + kvi_packed_put_size(bytes + 1, raw_size) + size;
        exact = (uint8_t *)malloc(size + 4);
        if (!exact) abort();
        memcpy(exact, bytes, size);
        s = kv_decompress(c, sealed(exact, size), &back);
        CHECK(s == KV_ERR_CORRUPT || (s == KV_OK && back.size == raw_size));
        free(exact);
    }
    kv_buf_free(&back);
    kv_compressor_close(c);
    CHECK_EQ(memory.live_bytes, 0);
}

TEST(compress, size_max_is_refused_before_memory_is_asked_for)
{
    static uint8_t zeros[300000];
    kv_compressor *writer = open_of(KV_CODEC_ZSTD, KV_FILTER_NONE, 0), *reader;
    kv_compress_options o = options_of(KV_CODEC_ZSTD, KV_FILTER_NONE, 0);
    test_memory memory;
    kv_buf      packed, back;
    memset(&memory, 0, sizeof memory);
    memset(&packed, 0, sizeof packed);
    memset(&back, 0, sizeof back);
    o.size_max = 200000;
    CHECK_OK(kv_compressor_open(&o, &reader));
    back.allocator = test_allocator(&memory);
    CHECK_OK(kv_compress(writer, kv_bytes(zeros, 200000), &packed));
    CHECK_OK(kv_decompress(reader, kv_buf_slice(&packed), &back));
    kv_buf_free(&back);
    memory.calls = 0;
    CHECK_OK(kv_compress(writer, kv_bytes(zeros, 200001), &packed));
    CHECK_STATUS(kv_decompress(reader, kv_buf_slice(&packed), &back), KV_ERR_TOO_LARGE);
    CHECK_EQ(memory.calls, 0);
    CHECK(strstr(kv_compressor_last_error(reader), "size_max") != NULL);
    kv_buf_free(&packed);
    kv_buf_free(&back);
    kv_compressor_close(writer);
    kv_compressor_close(reader);
}

/* ---- golden values of format 0: every later version reads them ---- */

typedef struct golden { const char *name, *hex; } golden;
#include "../compress_golden.h"

static size_t from_hex(const char *hex, uint8_t *out)
{
    size_t n = 0;
    for (; hex[0] && hex[1]; hex += 2) {
        unsigned byte = 0;
        sscanf(hex, "%2x", &byte);
        out[n++] = (uint8_t)byte;
    }
    return n;
}
static void golden_raw(uint8_t *out)        /* 1,050 numbers and a byte; most of them hold the first 301 bytes */
{
    for (uint32_t i = 0; i < 1050; i++) {
        out[2 * i] = (uint8_t)(i * 37);
        out[2 * i + 1] = (uint8_t)((i % 9 == 4 ? 0x22 : 0x3E + i % 2) | (i % 3 == 0 ? 0x80 : 0));
    }
    out[2100] = 0x5A;
}
TEST(compress, golden_values_of_format_0)
{
    static const char dictionary[] = "a dictionary is any bytes, and these are 50 of them";
    static uint8_t raw[2101], packed[4000];
    char          text[200];
    kv_compress_options o = options_of(KV_CODEC_LZ4, KV_FILTER_NONE, 0);
    kv_compressor *c;
    kv_buf         back;
    memset(&back, 0, sizeof back);
    golden_raw(raw);
    o.dictionary = kv_bytes(dictionary, sizeof dictionary - 1);
    for (size_t i = 0; i < sizeof text; i++) text[i] = "tick tock "[i % 10];
    CHECK_OK(kv_compressor_open(&o, &c));
    for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) {
        size_t   size = from_hex(goldens[i].hex, packed);
        kv_slice wanted = kv_bytes(raw, strstr(goldens[i].name, "dense") ? 2101 : 301);
        if (strstr(goldens[i].name, "dictionary")) wanted = kv_bytes(dictionary, sizeof dictionary - 1);
        if (strstr(goldens[i].name, "text")) wanted = kv_bytes(text, sizeof text);
        if (!CHECK_OK(kv_decompress(c, kv_bytes(packed, size), &back))) fprintf(stderr, "  %s\n", goldens[i].name);
        CHECK_BYTES(kv_buf_slice(&back), wanted);
    }
    kv_buf_free(&back);
    kv_compressor_close(c);
}

/* ---- dictionaries ---- */

#define RECORDS 2000
static kv_slice records[RECORDS];
static char     record_bytes[RECORDS][200];
static void make_records(void)
{
    static const char *const names[] = { "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi" };
    test_rng r = { 11 };
    for (uint32_t i = 0; i < RECORDS; i++) {
        int n = snprintf(record_bytes[i], sizeof record_bytes[i],
                         "{\"user_id\": %u, \"name\": \"%s\", \"email\": \"%s%u@example.com\", \"active\": %s, \"balance\": %u.%02u, \"tags\": [\"new\", \"%s\"]}",
                         (unsigned)test_below(&r, 100000), names[test_below(&r, 8)], names[test_below(&r, 8)], (unsigned)test_below(&r, 1000),
                         test_one_in(&r, 2) ? "true" : "false", (unsigned)test_below(&r, 10000), (unsigned)test_below(&r, 100), names[test_below(&r, 8)]);
        records[i] = kv_bytes(record_bytes[i], (size_t)n);
    }
}
static size_t packed_size_of_records(kv_compressor *c, size_t from)
{
    kv_buf packed, back;
    size_t sum = 0;
    memset(&packed, 0, sizeof packed);
    memset(&back, 0, sizeof back);
    for (size_t i = from; i < RECORDS; i++) { round_trip(c, records[i], &packed, &back); sum += packed.size; }
    kv_buf_free(&packed);
    kv_buf_free(&back);
    return sum;
}

TEST(dictionary, doubles_the_ratio_of_small_records)
{
    kv_buf dictionary;
    memset(&dictionary, 0, sizeof dictionary);
    make_records();
    if (!CHECK_OK(kv_compress_train(records, RECORDS / 2, 8192, &dictionary))) return;
    CHECK(dictionary.size > 256 && dictionary.size <= 8192);
    for (int level = 0; level <= 9; level += 9) {
        for (int codec = KV_CODEC_LZ4; codec <= KV_CODEC_ZSTD; codec++) {
            kv_compress_options o = options_of((kv_codec)codec, KV_FILTER_NONE, 0);
            kv_compressor      *with, *without;
            size_t              plain, small;
            o.level = level;
            CHECK_OK(kv_compressor_open(&o, &without));
            o.dictionary = kv_buf_slice(&dictionary);
            CHECK_OK(kv_compressor_open(&o, &with));
            plain = packed_size_of_records(without, RECORDS / 2);
            small = packed_size_of_records(with, RECORDS / 2);
            CHECK(small * 2 <= plain);
            kv_compressor_close(with);
            kv_compressor_close(without);
        }
    }
    kv_buf_free(&dictionary);
}

TEST(dictionary, is_needed_and_no_other_will_do)
{
    kv_buf dictionary, packed, back;
    make_records();
    memset(&dictionary, 0, sizeof dictionary);
    memset(&packed, 0, sizeof packed);
    memset(&back, 0, sizeof back);
    CHECK_OK(kv_compress_train(records, RECORDS, 4096, &dictionary));
    for (int codec = KV_CODEC_LZ4; codec <= KV_CODEC_ZSTD; codec++) {
        kv_compress_options o = options_of((kv_codec)codec, KV_FILTER_NONE, 0);
        kv_compressor      *with, *without, *other, *other_codec;
        CHECK_OK(kv_compressor_open(&o, &without));
        o.dictionary = kv_buf_slice(&dictionary);
        CHECK_OK(kv_compressor_open(&o, &with));
        o.codec = codec == KV_CODEC_LZ4 ? KV_CODEC_ZSTD : KV_CODEC_LZ4;
        CHECK_OK(kv_compressor_open(&o, &other_codec));
        o.codec = (kv_codec)codec;
        o.dictionary = KV_STR("{\"user_id\": , \"name\": \"\", \"email\": \"@example.com\", \"active\": true, \"balance\": 1.00}");
        CHECK_OK(kv_compressor_open(&o, &other));
        CHECK_OK(kv_compress(with, records[3], &packed));
        CHECK_OK(kv_decompress(with, kv_buf_slice(&packed), &back));
        CHECK_OK(kv_decompress(other_codec, kv_buf_slice(&packed), &back));
        CHECK_BYTES(kv_buf_slice(&back), records[3]);
        CHECK_STATUS(kv_decompress(without, kv_buf_slice(&packed), &back), KV_ERR_CORRUPT);
        CHECK(strstr(kv_compressor_last_error(without), "dictionary") != NULL);
        CHECK_STATUS(kv_decompress(other, kv_buf_slice(&packed), &back), KV_ERR_CORRUPT);
        CHECK(strstr(kv_compressor_last_error(other), "another dictionary") != NULL);
        check_damage(with, kv_buf_slice(&packed));
        CHECK_OK(kv_compress(without, records[3], &packed));        /* and one needs none for values without */
        CHECK_OK(kv_decompress(with, kv_buf_slice(&packed), &back));
        kv_compressor_close(with);
        kv_compressor_close(without);
        kv_compressor_close(other);
        kv_compressor_close(other_codec);
    }
    kv_buf_free(&dictionary);
    kv_buf_free(&packed);
    kv_buf_free(&back);
}

TEST(dictionary, bad_ones_and_too_few_samples)
{
    uint8_t bytes[200];
    char    text[100];
    kv_buf  dictionary;
    kv_compress_options o = options_of(KV_CODEC_ZSTD, KV_FILTER_NONE, 0);
    kv_compressor *c;
    memset(&dictionary, 0, sizeof dictionary);
    fill(NOISE, bytes, sizeof bytes, 1);
    bytes[0] = 0x37; bytes[1] = 0xA4; bytes[2] = 0x30; bytes[3] = 0xEC;     /* zstd's magic number, and then nonsense */
    o.dictionary = kv_bytes(bytes, sizeof bytes);
    o.error_text = text;
    o.error_text_size = sizeof text;
    CHECK_STATUS(kv_compressor_open(&o, &c), KV_ERR_INVALID);
    CHECK(c == NULL);
    CHECK(strstr(text, "dictionary") != NULL);
    make_records();
    CHECK_STATUS(kv_compress_train(records, 2, 4096, &dictionary), KV_ERR_INVALID);
    CHECK_STATUS(kv_compress_train(NULL, 0, 4096, &dictionary), KV_ERR_INVALID);
    CHECK_STATUS(kv_compress_train(records, RECORDS, 0, &dictionary), KV_ERR_INVALID);
    CHECK_EQ(dictionary.size, 0);
    kv_buf_free(&dictionary);
}

/* ---- options, buffers, bare blocks ---- */

TEST(options, are_resolved_and_checked)
{
    kv_compress_options o;
    kv_compressor *c;
    char           text[100];
    memset(&o, 0, sizeof o);
    CHECK_OK(kv_compressor_open(NULL, &c));
    CHECK_EQ(kv_compressor_options(c)->codec, KV_CODEC_LZ4);
    CHECK_EQ(kv_compressor_options(c)->size_min, 64);
    CHECK_EQ(kv_compressor_options(c)->size_max, KV_VALUE_SIZE_MAX);
    CHECK(strcmp(kv_compressor_last_error(c), "") == 0);
    kv_compressor_close(c);
    kv_compressor_close(NULL);
    o.error_text = text;
    o.error_text_size = sizeof text;
    o.codec = (kv_codec)4;
    CHECK_STATUS(kv_compressor_open(&o, &c), KV_ERR_INVALID);
    CHECK(strstr(text, "codec") != NULL);
    o.codec = KV_CODEC_LZ4; o.level = 13;
    CHECK_STATUS(kv_compressor_open(&o, &c), KV_ERR_INVALID);
    CHECK(strstr(text, "level") != NULL);
    o.codec = KV_CODEC_ZSTD; o.level = 23;
    CHECK_STATUS(kv_compressor_open(&o, &c), KV_ERR_INVALID);
    o.level = 0; o.element_size = 3;
    CHECK_STATUS(kv_compressor_open(&o, &c), KV_ERR_INVALID);
    CHECK(strstr(text, "element_size") != NULL);
    o.element_size = 16;
    CHECK_STATUS(kv_compressor_open(&o, &c), KV_ERR_INVALID);
    o.element_size = 0; o.filter = (kv_filter)7;
    CHECK_STATUS(kv_compressor_open(&o, &c), KV_ERR_INVALID);
    o.filter = KV_FILTER_NONE; o.dictionary.size = 3;
    CHECK_STATUS(kv_compressor_open(&o, &c), KV_ERR_INVALID);
    CHECK_STATUS(kv_compressor_open(&o, NULL), KV_ERR_INVALID);
    CHECK(strcmp(kv_codec_name(KV_CODEC_DEFAULT), "lz4") == 0);
    CHECK(strcmp(kv_codec_name(KV_CODEC_LZ4), "lz4") == 0);
    CHECK(strcmp(kv_codec_name(KV_CODEC_ZSTD), "zstd") == 0);
    CHECK(strcmp(kv_codec_name(KV_CODEC_NONE), "none") == 0);
    CHECK(strcmp(kv_codec_name((kv_codec)77), "unknown") == 0);
}

TEST(options, size_min)
{
    static uint8_t raw[4000];
    kv_buf packed, back;
    kv_compress_options o = options_of(KV_CODEC_LZ4, KV_FILTER_NONE, 0);
    kv_compressor *c;
    memset(&packed, 0, sizeof packed);
    memset(&back, 0, sizeof back);
    o.size_min = 1000;
    CHECK_OK(kv_compressor_open(&o, &c));
    round_trip(c, kv_bytes(raw, 999), &packed, &back);
    CHECK_EQ(packed.size, 999 + 5);
    round_trip(c, kv_bytes(raw, 1000), &packed, &back);
    CHECK(packed.size < 50);
    kv_compressor_close(c);
    o.size_min = KV_NONE;
    CHECK_OK(kv_compressor_open(&o, &c));
    round_trip(c, kv_bytes(raw, 40), &packed, &back);
    CHECK(packed.size < 30);
    for (size_t size = 0; size < 40; size++) round_trip(c, kv_bytes(raw, size), &packed, &back);
    kv_compressor_close(c);
    kv_buf_free(&packed);
    kv_buf_free(&back);
}

TEST(buffers, fixed_ones_hold_what_fits)
{
    static uint8_t raw[2000];
    uint8_t memory[3000];
    kv_compressor *c = open_of(KV_CODEC_LZ4, KV_FILTER_NONE, 0);
    kv_buf packed = kv_buf_fixed(memory, 100), back = kv_buf_fixed(memory + 200, 2000), small = kv_buf_fixed(memory + 2300, 500);
    fill(TEXT, raw, sizeof raw, 0);
    memset(raw, 'x', 1900);
    CHECK_OK(kv_compress(c, kv_bytes(raw, 1900), &packed));         /* smaller than the worst case, and large enough */
    CHECK(packed.size < 100);
    CHECK_OK(kv_decompress(c, kv_buf_slice(&packed), &back));
    CHECK_BYTES(kv_buf_slice(&back), kv_bytes(raw, 1900));
    CHECK_STATUS(kv_decompress(c, kv_buf_slice(&packed), &small), KV_ERR_TOO_LARGE);
    CHECK_EQ(small.size, 1900);
    fill(NOISE, raw, sizeof raw, 0);
    CHECK_STATUS(kv_compress(c, kv_bytes(raw, 500), &packed), KV_ERR_TOO_LARGE);
    CHECK_EQ(packed.size, 505);
    CHECK_STATUS(kv_compress(c, kv_bytes(NULL, 5), &packed), KV_ERR_INVALID);
    CHECK_STATUS(kv_compress(c, kv_bytes(raw, (size_t)KV_VALUE_SIZE_MAX + 1), &packed), KV_ERR_TOO_LARGE);
    CHECK_STATUS(kv_decompress(c, kv_bytes(NULL, 5), &back), KV_ERR_INVALID);
    CHECK_STATUS(kv_decompress(c, kv_bytes(NULL, 0), &back), KV_ERR_CORRUPT);
    kv_compressor_close(c);
}

TEST(codec, bare_blocks)
{
    static uint8_t raw[70000], out[80000], back[70001];
    for (int codec = KV_CODEC_NONE; codec <= KV_CODEC_ZSTD; codec++) {
        kv_compressor *c = open_of((kv_codec)codec, KV_FILTER_NONE, 0);
        for (int kind = 0; kind < CONTENTS; kind++) {
            fill((content)kind, raw, sizeof raw, 9);
            for (size_t size = 0; size <= sizeof raw; size = size * 3 + 1) {
                size_t bound = kv_codec_bound((kv_codec)codec, size), packed = 0, before;
                CHECK(bound >= size && bound <= sizeof out);
                if (!CHECK_OK(kv_codec_pack(c, kv_bytes(raw, size), out, bound, &packed))) continue;
                CHECK(packed <= bound);
                memset(back, 0xEE, sizeof back);
                CHECK_OK(kv_codec_unpack(c, (kv_codec)codec, kv_bytes(out, packed), back, size));
                CHECK(!memcmp(back, raw, size) && back[size] == 0xEE);
                if (size) CHECK_STATUS(kv_codec_unpack(c, (kv_codec)codec, kv_bytes(out, packed), back, size - 1), KV_ERR_CORRUPT);
                CHECK_STATUS(kv_codec_unpack(c, (kv_codec)codec, kv_bytes(out, packed), back, size + 1), KV_ERR_CORRUPT);
                if (size) CHECK_STATUS(kv_codec_unpack(c, (kv_codec)codec, kv_bytes(out, packed - 1), back, size), KV_ERR_CORRUPT);
                before = packed;
                if (size) CHECK_STATUS(kv_codec_pack(c, kv_bytes(raw, size), out, packed / 2, &packed), KV_ERR_TOO_LARGE);
                CHECK_EQ(packed, before);
            }
        }
        CHECK_EQ(kv_codec_bound((kv_codec)codec, (size_t)KV_VALUE_SIZE_MAX + 1), 0);
        CHECK(kv_codec_supported((kv_codec)codec));
        kv_compressor_close(c);
    }
    CHECK(!kv_codec_supported((kv_codec)9));
    CHECK_EQ(kv_codec_bound((kv_codec)9, 100), 0);
}

/* ---- memory ---- */

/* Open, pack, unpack and close with the n-th allocation failing, for every n; then with all of them. */
TEST(memory, every_allocation_may_fail)
{
    static uint8_t raw[6000];
    combination    k;
    kv_buf         dictionary;
    memset(&k, 0, sizeof k);
    memset(&dictionary, 0, sizeof dictionary);
    make_records();
    CHECK_OK(kv_compress_train(records, RECORDS, 2048, &dictionary));
    fill(TEXT, raw, sizeof raw, 0);
    while (next_combination(&k)) {
        if (k.element_size != 1 && k.element_size != 4) continue;
        for (size_t fail_at = 1; fail_at < 60; fail_at++) {
            kv_compress_options o = options_of(k.codec, k.filter, k.element_size);
            kv_compressor      *c = NULL;
            test_memory         memory;
            kv_buf              packed, back;
            kv_status           s;
            memset(&memory, 0, sizeof memory);
            memset(&packed, 0, sizeof packed);
            memset(&back, 0, sizeof back);
            o.allocator = packed.allocator = back.allocator = test_allocator(&memory);
            if (k.filter == KV_FILTER_NONE) o.dictionary = kv_buf_slice(&dictionary);
            memory.fail_at = fail_at;
            s = kv_compressor_open(&o, &c);
            CHECK(s == KV_OK || (s == KV_ERR_NO_MEMORY && !c && memory.failed));
            if (s == KV_OK) {
                s = kv_compress(c, kv_bytes(raw, sizeof raw), &packed);
                CHECK(s == KV_OK || (s == KV_ERR_NO_MEMORY && memory.failed));
                if (s < 0) { CHECK_EQ(packed.size, 0); s = kv_compress(c, kv_bytes(raw, sizeof raw), &packed); }
                CHECK_OK(s);
                s = kv_decompress(c, kv_buf_slice(&packed), &back);
                CHECK(s == KV_OK || (s == KV_ERR_NO_MEMORY && memory.failed));
                if (s < 0) { CHECK_EQ(back.size, 0); s = kv_decompress(c, kv_buf_slice(&packed), &back); }
                CHECK_OK(s);
                CHECK(kv_equal(kv_buf_slice(&back), kv_bytes(raw, sizeof raw)));
            }
            kv_buf_free(&packed);
            kv_buf_free(&back);
            kv_compressor_close(c);
            CHECK_EQ(memory.live_bytes, 0);
            if (!memory.failed) break;
        }
    }
    kv_buf_free(&dictionary);
}

TEST(memory, nothing_is_allocated_after_the_first_calls)
{
    static uint8_t raw[50000];
    combination    k;
    memset(&k, 0, sizeof k);
    fill(FLOATS, raw, sizeof raw, 0);
    fill(TEXT, raw, 20000, 0);
    while (next_combination(&k)) {
        kv_compress_options o = options_of(k.codec, k.filter, k.element_size);
        kv_compressor      *c = NULL;
        test_memory         memory;
        kv_buf              packed, back;
        size_t              calls = 0;
        memset(&memory, 0, sizeof memory);
        memset(&packed, 0, sizeof packed);
        memset(&back, 0, sizeof back);
        o.allocator = packed.allocator = back.allocator = test_allocator(&memory);
        CHECK_OK(kv_compressor_open(&o, &c));
        for (int i = 0; i < 40; i++) {
            round_trip(c, kv_bytes(raw, sizeof raw), &packed, &back);
            round_trip(c, kv_bytes(raw, 3000), &packed, &back);
            round_trip(c, kv_bytes(raw + 25000, 3000), &packed, &back);
            if (i == 2) calls = memory.calls;
        }
        CHECK_EQ(memory.calls, calls);
        kv_buf_free(&packed);
        kv_buf_free(&back);
        kv_compressor_close(c);
        CHECK_EQ(memory.live_bytes, 0);
    }
}

/* ---- the wrapper ---- */

static size_t batches_seen, largest_batch;
static kv_status count_batch_set(kv_store *s, const kv_pair *pairs, size_t count)
{
    batches_seen++;
    if (count > largest_batch) largest_batch = count;
    for (size_t i = 0; i < count; i++) if (ref_set(s, pairs[i].key, pairs[i].value) < 0) return KV_ERR_INVALID;
    return KV_OK;
}

typedef struct wrapped { ref_store inner; kv_compressed *c; kv_store *store; } wrapped;
static void wrap(wrapped *w, kv_codec codec)
{
    kv_compress_options o = options_of(codec, KV_FILTER_NONE, 0);
    ref_store_init(&w->inner);
    w->inner.ops.view = ref_view;
    w->inner.ops.scan = ref_scan;
    w->inner.ops.batch_set = count_batch_set;
    CHECK_OK(kv_compressed_open(&w->inner.store, &o, &w->c));
    w->store = kv_compressed_store(w->c);
}
static void unwrap(wrapped *w)
{
    kv_compressed_close(w->c);
    CHECK(!w->inner.closed);
    CHECK_EQ(w->inner.cursors, 0);
    CHECK_OK(kv_close(&w->inner.store));
}

static bool see(void *user, kv_slice key, kv_slice value)
{
    (void)key;
    return kv_buf_assign((kv_buf *)user, value) == KV_OK;
}
/* Looks at key after key from within the visit of the one before. */
static bool see_deeper(void *user, kv_slice key, kv_slice value)
{
    kv_store *s = (kv_store *)user;
    char      next[2];
    CHECK_EQ(value.size, 3000);
    CHECK_EQ(((const char *)value.data)[2999], ((const char *)key.data)[0]);
    next[0] = (char)(((const char *)key.data)[0] + 1);
    if (next[0] <= 'z') CHECK_OK(kv_view(s, kv_bytes(next, 1), see_deeper, s));
    CHECK_EQ(((const char *)value.data)[2999], ((const char *)key.data)[0]);       /* nobody took our buffer */
    return true;
}

TEST(wrapper, is_a_store_around_a_store)
{
    static uint8_t text[5000];
    wrapped  w;
    kv_buf   value;
    kv_stats stats, inner_stats;
    kv_compress_stats mine;
    uint64_t count;
    memset(&value, 0, sizeof value);
    fill(TEXT, text, sizeof text, 0);
    wrap(&w, KV_CODEC_ZSTD);
    CHECK(strcmp(kv_store_name(w.store), "compressed(ref)") == 0);
    CHECK_EQ(kv_store_caps(w.store), kv_store_caps(&w.inner.store));
    CHECK(kv_compressed_inner(w.c) == &w.inner.store);
    CHECK_EQ(kv_compressed_codec(w.c), KV_CODEC_ZSTD);
    CHECK(kv_compressor_options(kv_compressed_compressor(w.c))->codec == KV_CODEC_ZSTD);

    CHECK_STATUS(kv_get(w.store, KV_STR("a"), &value), KV_NOT_FOUND);
    CHECK_STATUS(kv_exists(w.store, KV_STR("a")), KV_NOT_FOUND);
    CHECK_OK(kv_set(w.store, KV_STR("a"), kv_bytes(text, sizeof text)));
    CHECK_OK(kv_set(w.store, KV_STR("b"), KV_STR("tiny")));
    CHECK_OK(kv_set(w.store, KV_STR("c"), kv_bytes(NULL, 0)));
    CHECK_OK(kv_get(w.store, KV_STR("a"), &value));
    CHECK_BYTES(kv_buf_slice(&value), kv_bytes(text, sizeof text));
    CHECK_OK(kv_get(w.store, KV_STR("c"), &value));
    CHECK_EQ(value.size, 0);
    CHECK_OK(kv_view(w.store, KV_STR("b"), see, &value));
    CHECK_BYTES(kv_buf_slice(&value), KV_STR("tiny"));
    CHECK_OK(kv_view(w.store, KV_STR("a"), see, &value));
    CHECK_BYTES(kv_buf_slice(&value), kv_bytes(text, sizeof text));
    CHECK_OK(kv_count(w.store, NULL, &count));
    CHECK_EQ(count, 3);

    CHECK_OK(kv_compressed_stats(w.c, &mine));
    CHECK_EQ(mine.values, 3);
    CHECK_EQ(mine.values_raw, 2);
    CHECK_EQ(mine.raw_bytes, sizeof text + 4);
    CHECK_OK(kv_store_stats(w.store, &stats));
    CHECK_OK(kv_store_stats(&w.inner.store, &inner_stats));
    CHECK_EQ(stats.keys, 3);
    CHECK_EQ(stats.value_bytes, inner_stats.value_bytes);
    CHECK_EQ(stats.value_bytes, mine.packed_bytes);
    CHECK(mine.packed_bytes < 300);

    CHECK_OK(kv_set_int64(w.store, KV_STR("n"), -5));
    { int64_t n = 0; CHECK_OK(kv_get_int64(w.store, KV_STR("n"), &n)); CHECK_EQ(n, -5); }
    CHECK_STATUS(kv_get_string(w.store, KV_STR("n"), &value), KV_ERR_WRONG_TYPE);
    CHECK_OK(kv_delete(w.store, KV_STR("a")));
    CHECK_STATUS(kv_get(w.store, KV_STR("a"), &value), KV_NOT_FOUND);
    CHECK_OK(kv_flush(w.store));
    CHECK_OK(kv_close(w.store));                    /* closes the wrapper, and leaves inner open */
    CHECK(!w.inner.closed);
    CHECK_OK(kv_close(&w.inner.store));
    kv_buf_free(&value);
    CHECK_STATUS(kv_compressed_open(NULL, NULL, &w.c), KV_ERR_INVALID);
    kv_compressed_close(NULL);
}

TEST(wrapper, a_batch_is_one_batch_of_inner)
{
    enum { N = 300 };
    static uint8_t raw[N][500];
    static char    names[N][8];
    kv_pair   pairs[N];
    kv_slice  keys[N + 1];
    kv_buf    values[N + 1];
    kv_status statuses[N + 1];
    wrapped   w;
    size_t    wrong = 0;
    memset(values, 0, sizeof values);
    wrap(&w, KV_CODEC_LZ4);
    for (size_t i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "%04u", (unsigned)(i * 7 % N));
        fill((content)(i % CONTENTS), raw[i], sizeof raw[i], i);
        pairs[i].key = keys[i] = kv_cstr(names[i]);
        pairs[i].value = kv_bytes(raw[i], i);
    }
    keys[N] = KV_STR("missing");
    batches_seen = largest_batch = 0;
    CHECK_OK(kv_batch_set(w.store, pairs, N));
    CHECK_EQ(batches_seen, 1);
    CHECK_EQ(largest_batch, N);
    CHECK_OK(kv_batch_get(w.store, keys, N + 1, values, statuses));
    for (size_t i = 0; i < N; i++) wrong += statuses[i] != KV_OK || !kv_equal(kv_buf_slice(&values[i]), pairs[i].value);
    CHECK_EQ(wrong, 0);
    CHECK_STATUS(statuses[N], KV_NOT_FOUND);
    CHECK_OK(kv_batch_get(w.store, keys, N + 1, values, NULL));
    CHECK_OK(kv_batch_delete(w.store, keys, N / 2));
    CHECK_OK(kv_batch_get(w.store, keys, N, values, statuses));
    for (size_t i = 0; i < N; i++) wrong += statuses[i] != (i < N / 2 ? KV_NOT_FOUND : KV_OK);
    CHECK_EQ(wrong, 0);
    pairs[5].value = kv_bytes(NULL, 9);                     /* one wrong pair: nothing of the batch is written */
    batches_seen = 0;
    CHECK_STATUS(kv_batch_set(w.store, pairs, N), KV_ERR_INVALID);
    CHECK_EQ(batches_seen, 0);
    for (size_t i = 0; i <= N; i++) kv_buf_free(&values[i]);
    unwrap(&w);
}

TEST(wrapper, a_callback_may_read_the_store)
{
    static uint8_t text[3000];
    wrapped w;
    wrap(&w, KV_CODEC_LZ4);
    fill(TEXT, text, sizeof text, 0);
    for (char k = 'a'; k <= 'z'; k++) {
        text[2999] = (uint8_t)k;
        CHECK_OK(kv_set(w.store, kv_bytes(&k, 1), kv_bytes(text, sizeof text)));
    }
    CHECK_OK(kv_view(w.store, KV_STR("a"), see_deeper, w.store));
    unwrap(&w);
}

TEST(wrapper, damage_inside_is_reported_with_its_key)
{
    static uint8_t text[3000];
    wrapped w;
    kv_buf  value, values[2];
    kv_slice keys[2];
    kv_status statuses[2];
    kv_iter *i;
    memset(&value, 0, sizeof value);
    memset(values, 0, sizeof values);
    wrap(&w, KV_CODEC_ZSTD);
    fill(TEXT, text, sizeof text, 0);
    CHECK_OK(kv_set(w.store, KV_STR("bad"), kv_bytes(text, sizeof text)));
    CHECK_OK(kv_set(w.store, KV_STR("good"), kv_bytes(text, sizeof text)));
    w.inner.model.entries[0].value[7] ^= 1;
    CHECK_OK(kv_buf_assign(&value, KV_STR("kept")));
    CHECK_STATUS(kv_get(w.store, KV_STR("bad"), &value), KV_ERR_CORRUPT);
    CHECK_BYTES(kv_buf_slice(&value), KV_STR("kept"));
    CHECK(strstr(kv_last_error(w.store), "\"bad\"") != NULL);
    CHECK_STATUS(kv_view(w.store, KV_STR("bad"), see, &value), KV_ERR_CORRUPT);
    CHECK_STATUS(kv_scan(w.store, NULL, see, &value), KV_ERR_CORRUPT);
    CHECK_OK(kv_exists(w.store, KV_STR("bad")));
    keys[0] = KV_STR("bad");
    keys[1] = KV_STR("good");
    CHECK_STATUS(kv_batch_get(w.store, keys, 2, values, statuses), KV_ERR_CORRUPT);
    CHECK_STATUS(statuses[0], KV_ERR_CORRUPT);
    CHECK_OK(statuses[1]);
    CHECK_EQ(values[1].size, sizeof text);
    CHECK_OK(kv_iter_open(w.store, NULL, &i));
    CHECK(kv_iter_valid(i));
    CHECK_BYTES(kv_iter_key(i), KV_STR("bad"));     /* the value is not looked at before it is asked for */
    kv_iter_next(i);
    CHECK_EQ(kv_iter_value(i).size, sizeof text);
    kv_iter_prev(i);
    CHECK_EQ(kv_iter_value(i).size, 0);
    CHECK(!kv_iter_valid(i));
    CHECK_STATUS(kv_iter_status(i), KV_ERR_CORRUPT);
    kv_iter_last(i);
    CHECK(kv_iter_valid(i));
    CHECK_EQ(kv_iter_value(i).size, sizeof text);
    kv_iter_close(i);
    kv_buf_free(&value);
    kv_buf_free(&values[0]);
    kv_buf_free(&values[1]);
    unwrap(&w);
}

TEST(wrapper, of_a_store_that_can_do_little)
{
    ref_store      inner;
    kv_compressed *c;
    kv_buf         value;
    kv_iter       *i;
    memset(&value, 0, sizeof value);
    ref_store_init(&inner);
    inner.ops.set = NULL;
    inner.ops.iter_open = NULL;
    inner.store.caps = 0;
    CHECK_OK(kv_compressed_open(&inner.store, NULL, &c));
    CHECK_STATUS(kv_set(kv_compressed_store(c), KV_STR("k"), KV_STR("v")), KV_ERR_READ_ONLY);
    CHECK_STATUS(kv_iter_open(kv_compressed_store(c), NULL, &i), KV_ERR_UNSUPPORTED);
    CHECK_STATUS(kv_scan(kv_compressed_store(c), NULL, see, &value), KV_ERR_UNSUPPORTED);
    CHECK_EQ(kv_store_caps(kv_compressed_store(c)), 0);
    test_model_set(&inner.model, KV_STR("short"), KV_STR("abc"));       /* not one of ours */
    CHECK_STATUS(kv_get(kv_compressed_store(c), KV_STR("short"), &value), KV_ERR_CORRUPT);
    kv_compressed_close(c);
    CHECK_OK(kv_close(&inner.store));
    kv_buf_free(&value);
}

TEST(wrapper, around_a_wrapper_and_with_a_limit)
{
    static uint8_t text[3000];
    kv_compress_options o = options_of(KV_CODEC_ZSTD, KV_FILTER_NONE, 0);
    wrapped        w;
    kv_compressed *outer;
    kv_buf         value;
    kv_iter       *i;
    memset(&value, 0, sizeof value);
    fill(TEXT, text, sizeof text, 0);
    wrap(&w, KV_CODEC_LZ4);
    o.size_max = 2999;
    CHECK_OK(kv_compressed_open(w.store, &o, &outer));
    CHECK(strcmp(kv_store_name(kv_compressed_store(outer)), "compressed(compressed(ref))") == 0);
    CHECK_OK(kv_set(kv_compressed_store(outer), KV_STR("k"), kv_bytes(text, 2999)));
    CHECK_STATUS(kv_set(kv_compressed_store(outer), KV_STR("l"), kv_bytes(text, 3000)), KV_ERR_TOO_LARGE);
    CHECK(strstr(kv_last_error(kv_compressed_store(outer)), "size_max") != NULL);
    CHECK_OK(kv_get(kv_compressed_store(outer), KV_STR("k"), &value));
    CHECK_BYTES(kv_buf_slice(&value), kv_bytes(text, 2999));
    CHECK_OK(kv_iter_open(kv_compressed_store(outer), NULL, &i));
    CHECK_BYTES(kv_iter_value(i), kv_bytes(text, 2999));
    kv_iter_close(i);
    kv_compressed_close(outer);
    unwrap(&w);
    kv_buf_free(&value);
}

TEST(wrapper, every_allocation_may_fail)
{
    static uint8_t text[3000];
    fill(TEXT, text, sizeof text, 0);
    for (size_t fail_at = 1; fail_at < 200; fail_at++) {
        kv_compress_options o = options_of(KV_CODEC_ZSTD, KV_FILTER_NONE, 0);
        ref_store      inner;
        kv_compressed *c = NULL;
        kv_store      *s;
        test_memory    memory;
        kv_buf         value;
        kv_iter       *i = NULL;
        kv_pair        pairs[2];
        kv_status      status;
        memset(&memory, 0, sizeof memory);
        memset(&value, 0, sizeof value);
        o.allocator = test_allocator(&memory);
        memory.fail_at = fail_at;
        memory.fail_after = true;
        ref_store_init(&inner);
        status = kv_compressed_open(&inner.store, &o, &c);
        s = kv_compressed_store(c);
        pairs[0].key = KV_STR("p"); pairs[0].value = kv_bytes(text, 1000);
        pairs[1].key = KV_STR("q"); pairs[1].value = kv_bytes(text, 2000);
        if (status == KV_OK) status = kv_set(s, KV_STR("k"), kv_bytes(text, sizeof text));
        if (status == KV_OK) status = kv_batch_set(s, pairs, 2);
        if (status == KV_OK) status = kv_get(s, KV_STR("k"), &value);
        if (status == KV_OK) status = kv_view(s, KV_STR("p"), see, &value);
        if (status == KV_OK) status = kv_iter_open(s, NULL, &i);
        if (status == KV_OK) { (void)kv_iter_value(i); status = kv_iter_status(i); }
        CHECK(status == KV_OK || status == KV_ERR_NO_MEMORY);
        CHECK_EQ(status == KV_ERR_NO_MEMORY, memory.failed);
        kv_iter_close(i);
        kv_compressed_close(c);
        CHECK_EQ(memory.live_bytes, 0);
        CHECK_OK(kv_close(&inner.store));
        kv_buf_free(&value);
        if (!memory.failed) return;
    }
    CHECK(false);
}

TEST_MAIN()
