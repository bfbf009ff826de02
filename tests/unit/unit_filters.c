/* unit_filters.c
   Goal: the filter kernels of kv_simd.h do at every SIMD level what their scalar loops do, touch nothing
   beyond their buffers, and give back every bit; what kv_compress.h packs with them is the same, byte
   for byte, at every level.
   simd-levels: all
   Method: random bytes of every count up to some vectors and of odd larger ones, in blocks of just that
   size (a sanitizer watches), against the scalar loops; exponents with none, few and only escapes, bases
   that wrap around; packed values against hashes that were made once. */
#define KV_COMPRESS_IMPLEMENTATION
#include "../../kv_compress.h"
#include "../kv_test.h"

#define COUNT_MAX 1003
static size_t next_count(size_t n) { return n < 150 ? n + 1 : n + 97; }

static uint8_t *exact(size_t size)      /* no byte more than asked for */
{
    uint8_t *block = (uint8_t *)malloc(size ? size : 1);
    if (!block) abort();
    return block;
}
static uint8_t *noise(test_rng *r, size_t size)
{
    uint8_t *block = exact(size);
    for (size_t i = 0; i < size; i++) block[i] = (uint8_t)test_random(r);
    return block;
}

TEST(filters, bytes_by_significance)
{
    test_rng r = test_rng_new();
    size_t   wrong = 0;
    for (uint32_t size = 1; size <= 8; size *= 2) {
        for (size_t n = 0; n <= COUNT_MAX; n = next_count(n)) {
            uint8_t *in = noise(&r, n * size), *a = exact(n * size), *b = exact(n * size), *back = exact(n * size);
            kvi_shuffle(in, a, n, size);
            kvi_shuffle_scalar(in, b, n, size, 0);
            wrong += memcmp(a, b, n * size) != 0;
            kvi_unshuffle(a, back, n, size);
            wrong += memcmp(in, back, n * size) != 0;
            kvi_unshuffle_scalar(a, b, n, size, 0);
            wrong += memcmp(in, b, n * size) != 0;
            free(in); free(a); free(b); free(back);
        }
    }
    CHECK_EQ(wrong, 0);
}

TEST(filters, bits_by_significance)
{
    test_rng r = test_rng_new();
    size_t   wrong = 0;
    for (size_t n = 0; n <= COUNT_MAX; n += 8) {
        uint8_t *in = noise(&r, n), *a = exact(n), *b = exact(n), *back = exact(n);
        kvi_bit_rows(in, a, n);
        kvi_bit_rows_scalar(in, b, n, 0);
        wrong += memcmp(a, b, n) != 0;
        kvi_bit_bytes(a, back, n);
        wrong += memcmp(in, back, n) != 0;
        kvi_bit_bytes_scalar(a, b, n, 0);
        wrong += memcmp(in, b, n) != 0;
        free(in); free(a); free(b); free(back);
    }
    CHECK_EQ(wrong, 0);
}

TEST(filters, floats_apart_and_together)
{
    test_rng r = test_rng_new();
    size_t   wrong = 0;
    for (size_t n = 0; n <= COUNT_MAX; n = next_count(n)) {
        uint8_t *in = noise(&r, 4 * n), *back = exact(4 * n), *p[4], *q[4];
        for (int k = 0; k < 4; k++) { p[k] = exact(n); q[k] = exact(n); }
        kvi_bf16_split(in, n, p[0], p[1]);
        kvi_bf16_split_scalar(in, n, q[0], q[1], 0);
        for (int k = 0; k < 2; k++) wrong += memcmp(p[k], q[k], n) != 0;
        kvi_bf16_join(p[0], p[1], n, back);
        wrong += memcmp(in, back, 2 * n) != 0;
        kvi_bf16_join_scalar(p[0], p[1], n, back, 0);
        wrong += memcmp(in, back, 2 * n) != 0;
        kvi_fp16_split(in, n, p[0], p[1], p[2]);
        kvi_fp16_split_scalar(in, n, q[0], q[1], q[2], 0);
        for (int k = 0; k < 3; k++) wrong += memcmp(p[k], q[k], n) != 0;
        kvi_fp16_join(p[0], p[1], p[2], n, back);
        wrong += memcmp(in, back, 2 * n) != 0;
        kvi_fp16_join_scalar(p[0], p[1], p[2], n, back, 0);
        wrong += memcmp(in, back, 2 * n) != 0;
        kvi_fp32_split(in, n, p[0], p[1], p[2], p[3]);
        kvi_fp32_split_scalar(in, n, q[0], q[1], q[2], q[3], 0);
        for (int k = 0; k < 4; k++) wrong += memcmp(p[k], q[k], n) != 0;
        kvi_fp32_join(p[0], p[1], p[2], p[3], n, back);
        wrong += memcmp(in, back, 4 * n) != 0;
        kvi_fp32_join_scalar(p[0], p[1], p[2], p[3], n, back, 0);
        wrong += memcmp(in, back, 4 * n) != 0;
        for (int k = 0; k < 4; k++) { free(p[k]); free(q[k]); }
        free(in); free(back);
    }
    CHECK_EQ(wrong, 0);
}

TEST(filters, exponents_in_three_bits)
{
    test_rng r = test_rng_new();
    size_t   wrong = 0;
    for (int round = 0; round < 5000; round++) {
        uint8_t  exponents[64], rows[24], rows2[24], all[64], back[64], base = (uint8_t)(round % 3 ? test_random(&r) : 250);
        uint64_t spread = 1 + test_below(&r, round % 5 ? 9 : 256);
        uint32_t count, count2;
        uint8_t *escapes;
        for (uint32_t i = 0; i < 64; i++) exponents[i] = (uint8_t)(base + test_below(&r, spread));
        count2 = kvi_exponents_pack_scalar(exponents, base, rows2, all);
        escapes = exact(count2);                    /* just as many as there are */
        count = kvi_exponents_pack(exponents, base, rows, escapes);
        wrong += count != count2 || memcmp(rows, rows2, 24) != 0 || memcmp(escapes, all, count2) != 0;
        wrong += kvi_bit_count64(kvi_exponents_escapes(rows)) != count;
        kvi_exponents_unpack(rows, base, escapes, back);
        wrong += memcmp(back, exponents, 64) != 0;
        kvi_exponents_unpack_scalar(rows, base, escapes, back);
        wrong += memcmp(back, exponents, 64) != 0;
        for (uint32_t i = 0; i < 64; i++) exponents[i] &= 7;
        kvi_pack3(exponents, rows);
        kvi_pack3_scalar(exponents, rows2);
        wrong += memcmp(rows, rows2, 24) != 0;
        kvi_unpack3(rows, back);
        wrong += memcmp(back, exponents, 64) != 0;
        kvi_unpack3_scalar(rows, back);
        wrong += memcmp(back, exponents, 64) != 0;
        free(escapes);
    }
    CHECK_EQ(wrong, 0);
}

#ifdef KVI_GALOIS
/* Whole groups in one pass, against the functions that do one thing after the other. */
TEST(filters, groups_in_one_pass)
{
    test_rng r = test_rng_new();
    size_t   wrong = 0;
    for (int round = 0; round < 3000; round++) {
        size_t   n = 64 * (size_t)test_below(&r, 9), rows_size = n / 64 * 24, count = 0, all = 0;
        bool     half = round & 1;
        uint8_t  base = (uint8_t)(round % 3 ? test_random(&r) & (half ? 31 : 255) : half ? 28 : 252), spread = (uint8_t)(test_below(&r, round % 5 ? 9 : 30));
        uint8_t *in = noise(&r, 2 * n), *back = exact(2 * n), *exponents = exact(n), *rest[2], *low[2], *rest_rows[2], *rows[2], *escapes[2], *few;
        for (int k = 0; k < 2; k++) { rest[k] = exact(n); low[k] = exact(n); rest_rows[k] = exact(rows_size); rows[k] = exact(rows_size); escapes[k] = exact(n + 64); }
        for (size_t i = 0; i < n; i++) {            /* exponents from base on, signs and mantissas as they are */
            uint32_t e = (uint32_t)(base + test_below(&r, (uint64_t)spread + 1));
            if (half) in[2 * i + 1] = (uint8_t)((in[2 * i + 1] & 0x83) | (e & 31) << 2);
            else { in[2 * i] = (uint8_t)((in[2 * i] & 0x7F) | e << 7); in[2 * i + 1] = (uint8_t)((in[2 * i + 1] & 0x80) | (e & 255) >> 1); }
        }
        if (half) kvi_fp16_split_scalar(in, n, exponents, rest[0], low[0], 0); else kvi_bf16_split_scalar(in, n, exponents, rest[0], 0);
        for (size_t i = 0; i < n; i += 64) {
            count += kvi_exponents_pack_scalar(exponents + i, base, rows[0] + i / 64 * 24, escapes[0] + count);
            if (half) kvi_pack3_scalar(rest[0] + i, rest_rows[0] + i / 64 * 24);
        }
        if (half) all = kvi_fp16_pack_groups(in, n, base, low[1], rest_rows[1], rows[1], escapes[1]);
        else      all = kvi_bf16_pack_groups(in, n, base, rest[1], rows[1], escapes[1]);
        wrong += all != count || memcmp(rows[0], rows[1], rows_size) != 0 || memcmp(escapes[0], escapes[1], count) != 0;
        wrong += half ? memcmp(low[0], low[1], n) != 0 || memcmp(rest_rows[0], rest_rows[1], rows_size) != 0 : memcmp(rest[0], rest[1], n) != 0;
        few = exact(count);                         /* just as many as there are, and one less */
        memcpy(few, escapes[0], count);
        if (half) all = kvi_fp16_unpack_groups(low[1], rest_rows[1], rows[1], n, base, few, count, back);
        else      all = kvi_bf16_unpack_groups(rest[1], rows[1], n, base, few, count, back);
        wrong += all != count || memcmp(in, back, 2 * n) != 0;
        if (count) wrong += (half ? kvi_fp16_unpack_groups(low[1], rest_rows[1], rows[1], n, base, few, count - 1, back)
                                  : kvi_bf16_unpack_groups(rest[1], rows[1], n, base, few, count - 1, back)) != KV_NONE;
        for (int k = 0; k < 2; k++) { free(rest[k]); free(low[k]); free(rest_rows[k]); free(rows[k]); free(escapes[k]); }
        free(in); free(back); free(exponents); free(few);
    }
    CHECK_EQ(wrong, 0);
}
#endif

TEST(filters, smallest_and_largest)
{
    test_rng r = test_rng_new();
    size_t   wrong = 0;
    for (size_t n = 1; n <= COUNT_MAX; n = next_count(n)) {
        uint8_t *in = noise(&r, n), low, high, least = 255, most = 0;
        for (size_t i = 0; i < n; i++) in[i] = (uint8_t)(100 + in[i] % 50);
        in[test_below(&r, n)] = (uint8_t)(n % 3 ? 3 : 250);
        for (size_t i = 0; i < n; i++) { if (in[i] < least) least = in[i]; if (in[i] > most) most = in[i]; }
        kvi_min_max(in, n, &low, &high);
        wrong += low != least || high != most;
        free(in);
    }
    CHECK_EQ(wrong, 0);
}

/* ---- the Huffman coder ---- */

TEST(huffman, any_plane_comes_back)
{
    static kvi_huffman h;
    test_rng r = test_rng_new();
    size_t   wrong = 0, packed_count = 0;
    for (int round = 0; round < 600; round++) {
        size_t   n = 1 + (size_t)test_below(&r, round % 10 ? 3000 : 70000), room = 2 * n + 400, wrote;
        uint64_t kind = test_below(&r, 5), spread = 1 + test_below(&r, 255);
        uint8_t *plane = exact(n), *out = exact(room), *back = exact(n), *coded;
        for (size_t i = 0; i < n; i++) {
            uint64_t x = test_random(&r);
            plane[i] = (uint8_t)(kind == 0 ? 77 : kind == 1 ? x % spread : kind == 2 ? 100 + kvi_lowest_bit64(x | UINT64_C(1) << 40) : kind == 3 ? (x % 97 ? 5 : x >> 20) : x & x >> 8 & x >> 16);
        }
        wrote = kvi_huffman_pack(&h, plane, n, out, room);
        if (!CHECK(wrote > 0)) continue;
        packed_count++;
        coded = exact(wrote);
        memcpy(coded, out, wrote);
        wrong += kvi_huffman_unpack(&h, kv_bytes(coded, wrote), back, n) != KV_OK || memcmp(plane, back, n) != 0;
        if (wrote > 2) {            /* a byte less, a symbol more or less, less room: noticed */
            wrong += kvi_huffman_unpack(&h, kv_bytes(coded, wrote - 1), back, n) == KV_OK;
            wrong += kvi_huffman_pack(&h, plane, n, out, wrote - 1) != 0;
        }
        free(plane); free(out); free(back); free(coded);
    }
    CHECK_EQ(wrong, 0);
    CHECK_EQ(packed_count, 600);
}

/* Weights that would make a code of 40 bits: Fibonacci's. The sum of 2^-length stays 1. */
TEST(huffman, lengths_stay_within_the_limit)
{
    static kvi_huffman h;
    uint32_t weights[256], a = 1, b = 1;
    for (uint32_t count = 2; count <= 256; count += count < 40 ? 1 : 24) {
        uint32_t sum = 0, longest = 0;
        memset(weights, 0, sizeof weights);
        a = b = 1;
        for (uint32_t s = 0; s < count; s++) { weights[s] = a; if (s < 30) { uint32_t c = a + b; a = b; b = c; } }
        kvi_huffman_lengths(&h, weights);
        for (uint32_t s = 0; s < count; s++) {
            sum += (1u << KVI_HUFFMAN_BITS) >> h.lengths[s];
            if (h.lengths[s] > longest) longest = h.lengths[s];
        }
        CHECK_EQ(sum, 1u << KVI_HUFFMAN_BITS);
        CHECK(longest <= KVI_HUFFMAN_BITS);
        CHECK(kvi_huffman_codes(&h, 0, count - 1));
    }
    h.lengths[0] = 1;               /* and lengths that are no code are none */
    CHECK(!kvi_huffman_codes(&h, 0, 255));
    memset(h.lengths, 0, sizeof h.lengths);
    h.lengths[3] = 2;
    CHECK(!kvi_huffman_codes(&h, 0, 255));
}

/* ---- the same bytes everywhere ---- */

TEST(filters, packed_values_are_the_same_at_every_level)
{
    static const struct { kv_codec codec; kv_filter filter; uint64_t hash; } wanted[] = {
        { KV_CODEC_NONE, KV_FILTER_BF16, UINT64_C(0xff899d4f29bb4bed) }, { KV_CODEC_NONE, KV_FILTER_FP16, UINT64_C(0x1860c4d4f2d18398) },
        { KV_CODEC_NONE, KV_FILTER_FP32, UINT64_C(0x24d5e5c238a702dd) }, { KV_CODEC_ZSTD, KV_FILTER_BF16, UINT64_C(0x5b7a4be00fd66ab5) },
        { KV_CODEC_ZSTD, KV_FILTER_FP16, UINT64_C(0x6ef4633c27a3af48) }, { KV_CODEC_ZSTD, KV_FILTER_FP32, UINT64_C(0x2fc91d58808331d6) }
    };
    static uint8_t raw[300007];
    test_rng       r = { 2026 };
    kv_buf         packed;
    memset(&packed, 0, sizeof packed);
    for (size_t i = 0; i < sizeof raw; i++) {
        uint64_t x = test_random(&r);
        raw[i] = (uint8_t)(i % 2 ? 0x3F - (x % 16 == 0) - (x % 256 == 1) * 7 + (x >> 20 & 1) * 0x80 : x);
    }
    for (size_t k = 0; k < sizeof wanted / sizeof *wanted; k++) {
        kv_compress_options o;
        kv_compressor      *c;
        uint64_t            hash;
        memset(&o, 0, sizeof o);
        o.codec = wanted[k].codec;
        o.filter = wanted[k].filter;
#if defined(KV_NO_ZSTD)
        if (o.codec == KV_CODEC_ZSTD) continue;
#endif
        CHECK_OK(kv_compressor_open(&o, &c));
        CHECK_OK(kv_compress(c, kv_bytes(raw, sizeof raw), &packed));
        CHECK(packed.size < sizeof raw);
        hash = kv_hash(kv_buf_slice(&packed), 0);
        if (!CHECK(hash == wanted[k].hash)) printf("codec %d filter %d: %016" PRIx64 "\n", (int)o.codec, (int)o.filter, hash);
        kv_compressor_close(c);
    }
    kv_buf_free(&packed);
}

TEST_MAIN()
