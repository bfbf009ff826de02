/* kv_simd.h - v0.1.0 - hashing, and the small searches that the kv modules share, with SIMD
   SPDX-License-Identifier: MIT (full text at the end of this file)

   In *one* C or C++ file:   #define KV_SIMD_IMPLEMENTATION
                             #include "kv_simd.h"      (kv.h lies beside it, xxhash.h is installed)
   QUICK START
       uint64_t h = kv_hash(KV_STR("user:17"), 0);
       printf("shard %u of 10\n", (unsigned)kv_shard(h, 10));

   CONTENTS   docs: hashing, SIMD levels
              code: >>public >>level >>hash >>prefix >>group >>columns >>filters
                    >>api

   HASHING
   kv_hash is XXH3 with 64 bits and a seed (Y. Collet, xxHash 0.8): the same number on every machine
   and at every SIMD level, so it may reach a file. It is not a cryptographic hash: against people who
   choose keys, keep the seed secret and random.

   SIMD LEVELS
   The level is chosen when you compile, by what the compiler was told it may use (-mavx2,
   -march=native...), or by force in the implementation file:
       #define KV_SIMD KV_SIMD_SCALAR      or _SSE2, _AVX2, _AVX512, _NEON, _WASM
   Results never depend on it. */

/* ------------------------------------------------------------------------------------------------
   >>public   the interface                                                                        */
#if defined(KV_IMPLEMENTATION) && !defined(KV_SIMD_IMPLEMENTATION)
#define KV_SIMD_IMPLEMENTATION
#endif
#if defined(KV_SIMD_IMPLEMENTATION) && !defined(KV_CORE_IMPLEMENTATION)
#define KV_CORE_IMPLEMENTATION
#define KVI_CORE_IMPLIED 1
#endif
#include "kv.h"
#if KV_VERSION < 100
#error "kv_simd.h 0.1 needs kv.h 0.1 or newer: copy both headers from the same release"
#endif

#ifndef KV_SIMD_INCLUDED
#define KV_SIMD_INCLUDED 1

#define KV_SIMD_SCALAR 0
#define KV_SIMD_SSE2   1
#define KV_SIMD_AVX2   2
#define KV_SIMD_AVX512 3        /* F, BW, DQ, VL */
#define KV_SIMD_NEON   4
#define KV_SIMD_WASM   5

#ifdef __cplusplus
extern "C" {
#endif

/* XXH3 of the key. Cost: 1.5-3 ns for a short key that is in the cache. */
KV_API uint64_t kv_hash(kv_slice key, uint64_t seed);

/* hashes[i] = kv_hash(keys[i], seed), for keys that lie in memory rather than in the cache: it fetches
   those behind while it hashes one, and takes 0.54 to 0.86 of the time of a loop (figures: >>hash). */
KV_API void kv_hash_batch(const kv_slice *keys, size_t count, uint64_t seed, uint64_t *hashes);

/* A number in 0 .. shard_count - 1, evenly for any shard_count, from the upper half of the hash
   (tables use the lower half, so keys of one shard still spread there). 0 for a shard_count of 0. */
KV_API uint32_t kv_shard(uint64_t hash, uint32_t shard_count);

/* How many bytes a and b have in common from the front. */
KV_API size_t kv_common_prefix(kv_slice a, kv_slice b);

/* The level that was compiled in: "avx512", "avx2", "sse2", "neon", "wasm", "scalar". */
KV_API const char *kv_simd_name(void);

#ifdef __cplusplus
}
#endif
#endif /* KV_SIMD_INCLUDED */

#if defined(KV_SIMD_IMPLEMENTATION) && !defined(KV_SIMD_IMPLEMENTED)
#define KV_SIMD_IMPLEMENTED 1

#if defined(KVI_SIMD_IMPLIED)
#define KVI_SIMD_DEFINE KVI_DEFINE_WEAK
#else
#define KVI_SIMD_DEFINE KVI_DEFINE
#endif

/* ------------------------------------------------------------------------------------------------
   >>level   which instructions                                                                    */

#ifndef KV_SIMD
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define KV_SIMD KV_SIMD_AVX512
#elif defined(__AVX2__)
#define KV_SIMD KV_SIMD_AVX2
#elif defined(__SSE2__)
#define KV_SIMD KV_SIMD_SSE2
#elif defined(__ARM_NEON) && defined(__aarch64__)
#define KV_SIMD KV_SIMD_NEON
#elif defined(__wasm_simd128__)
#define KV_SIMD KV_SIMD_WASM
#else
#define KV_SIMD KV_SIMD_SCALAR
#endif
#endif

/* A level is a floor for those of its family: KVI_X86 is 0, or 1 for SSE2, 2 for AVX2, 3 for AVX-512. */
#if KV_SIMD == KV_SIMD_AVX512 || KV_SIMD == KV_SIMD_AVX2 || KV_SIMD == KV_SIMD_SSE2
#define KVI_X86 KV_SIMD
#else
#define KVI_X86 0
#endif
#if KVI_X86 >= 2
#include <immintrin.h>
#elif KVI_X86 == 1
#include <emmintrin.h>
#elif KV_SIMD == KV_SIMD_NEON
#include <arm_neon.h>
#elif KV_SIMD == KV_SIMD_WASM
#include <wasm_simd128.h>
#endif

/* Ask for the cache line at p. Any address will do, also one that is not ours. */
KVI_INLINE void kvi_prefetch(const void *p)
{
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(p);
#else
    (void)p;
#endif
}

/* The same for a line that is about to be written. */
KVI_INLINE void kvi_prefetch_write(void *p)
{
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(p, 1);
#else
    (void)p;
#endif
}

/* ------------------------------------------------------------------------------------------------
   >>hash   XXH3, from the xxHash library, compiled into this file under private names             */

#if KV_SIMD == KV_SIMD_SCALAR && !defined(XXH_VECTOR)
#define XXH_VECTOR 0            /* XXH_SCALAR */
#define KVI_XXH_VECTOR_SET 1
#endif
#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#define KVI_XXH_INLINE_SET 1
#endif
#ifndef XXH_NO_STREAM
#define XXH_NO_STREAM
#define KVI_XXH_NO_STREAM_SET 1
#endif
#if (defined(KV_NO_MALLOC) || defined(KV_NO_STDIO)) && !defined(XXH_NO_STDLIB)
#define XXH_NO_STDLIB
#define KVI_XXH_NO_STDLIB_SET 1
#endif
#if defined(KV_NO_MALLOC) && (defined(__GNUC__) || defined(__clang__))
/* xxHash before 0.8.2 has helpers that call malloc; nobody calls them, but without optimisation they
   are compiled all the same */
#include <stdlib.h>
#pragma push_macro("malloc")
#pragma push_macro("free")
#undef malloc
#undef free
#define malloc(size) ((void)(size), (void *)0)
#define free(memory) ((void)(memory))
#include <xxhash.h>
#pragma pop_macro("malloc")
#pragma pop_macro("free")
#else
#include <xxhash.h>
#endif
#ifdef KVI_XXH_VECTOR_SET
#undef XXH_VECTOR
#undef KVI_XXH_VECTOR_SET
#endif
#ifdef KVI_XXH_INLINE_SET
#undef XXH_INLINE_ALL
#undef KVI_XXH_INLINE_SET
#endif
#ifdef KVI_XXH_NO_STREAM_SET
#undef XXH_NO_STREAM
#undef KVI_XXH_NO_STREAM_SET
#endif
#ifdef KVI_XXH_NO_STDLIB_SET
#undef XXH_NO_STDLIB
#undef KVI_XXH_NO_STDLIB_SET
#endif

#if KVI_SMALL
/* The same function in a third of the code, by the description of XXH3 (doc/xxhash_spec.md of xxHash). */
#define KVI_XXH_32_1 UINT64_C(0x9E3779B1)
#define KVI_XXH_32_2 UINT64_C(0x85EBCA77)
#define KVI_XXH_32_3 UINT64_C(0xC2B2AE3D)
#define KVI_XXH_64_1 UINT64_C(0x9E3779B185EBCA87)
#define KVI_XXH_64_2 UINT64_C(0xC2B2AE3D27D4EB4F)
#define KVI_XXH_64_3 UINT64_C(0x165667B19E3779F9)
#define KVI_XXH_64_4 UINT64_C(0x85EBCA77C2B2AE63)
#define KVI_XXH_64_5 UINT64_C(0x27D4EB2F165667C5)

KVI_INLINE uint64_t kvi_xxh_read(const uint8_t *p) { return kvi_load_le64(p); }
KVI_PRIVATE uint64_t kvi_xxh_fold(uint64_t a, uint64_t b)       /* both halves of the product */
{
    uint64_t ll = (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu), hl = (a >> 32) * (b & 0xFFFFFFFFu);
    uint64_t lh = (a & 0xFFFFFFFFu) * (b >> 32), middle = (ll >> 32) + (hl & 0xFFFFFFFFu) + lh;
    return ((hl >> 32) + (middle >> 32) + (a >> 32) * (b >> 32)) ^ (middle << 32 | (ll & 0xFFFFFFFFu));
}
KVI_PRIVATE uint64_t kvi_xxh_mix(const uint8_t *p, uint32_t secret, uint64_t seed)
{
    return kvi_xxh_fold(kvi_xxh_read(p) ^ (kvi_xxh_read(XXH3_kSecret + secret) + seed), kvi_xxh_read(p + 8) ^ (kvi_xxh_read(XXH3_kSecret + secret + 8) - seed));
}
KVI_INLINE uint64_t kvi_xxh_shift(uint64_t h, uint32_t bits) { return h ^ h >> bits; }
KVI_PRIVATE uint64_t kvi_xxh_finish(uint64_t h) { return kvi_xxh_shift(kvi_xxh_shift(h, 37) * UINT64_C(0x165667919E3779F9), 32); }

KVI_NOINLINE uint64_t kvi_xxh_flip(uint32_t secret) { return kvi_xxh_read(XXH3_kSecret + secret) ^ kvi_xxh_read(XXH3_kSecret + secret + 8); }
KVI_NOINLINE uint64_t kvi_xxh_turn(uint64_t n)          /* its bytes the other way round */
{
    uint64_t turned = 0;
    for (uint32_t i = 0; i < 8; i++, n >>= 8) turned = turned << 8 | (n & 255u);
    return turned;
}
KVI_NOINLINE uint64_t kvi_xxh_short(const uint8_t *p, uint32_t size, uint64_t seed)     /* up to 16 bytes */
{
    uint64_t h;
    if (size > 8) {
        uint64_t low = kvi_xxh_read(p) ^ (kvi_xxh_flip(24) + seed), high = kvi_xxh_read(p + size - 8) ^ (kvi_xxh_flip(40) - seed);
        return kvi_xxh_finish(size + kvi_xxh_turn(low) + high + kvi_xxh_fold(low, high));
    }
    if (size > 3) {
        h = kvi_load_le32(p + size - 4) | (uint64_t)kvi_load_le32(p) << 32;
        h ^= kvi_xxh_flip(8) - (seed ^ (kvi_xxh_turn(seed) & UINT64_C(0xFFFFFFFF00000000)));
        h = (h ^ (h << 49 | h >> 15) ^ (h << 24 | h >> 40)) * UINT64_C(0x9FB21C651E98DF25);
        return kvi_xxh_shift((h ^ ((h >> 35) + size)) * UINT64_C(0x9FB21C651E98DF25), 28);
    }
    h = kvi_xxh_read(XXH3_kSecret);
    h = size ? ((uint32_t)(h ^ h >> 32) + seed) ^ ((uint32_t)p[0] << 16 | (uint32_t)p[size >> 1] << 24 | p[size - 1] | size << 8) : seed ^ kvi_xxh_flip(56);
    return kvi_xxh_shift(kvi_xxh_shift(kvi_xxh_shift(h, 33) * KVI_XXH_64_2, 29) * KVI_XXH_64_3, 32);
}
KVI_PRIVATE void kvi_xxh_stripe(uint64_t *acc, const uint8_t *p, const uint8_t *secret)
{
    for (uint32_t i = 0; i < 8; i++) {
        uint64_t data = kvi_xxh_read(p + 8 * i), key = data ^ kvi_xxh_read(secret + 8 * i);
        acc[i ^ 1] += data;
        acc[i] += (key & 0xFFFFFFFFu) * (key >> 32);
    }
}
KVI_NOINLINE uint64_t kvi_xxh_long(const uint8_t *p, size_t size, uint64_t seed)         /* more than 240 */
{
    uint64_t acc[8] = { KVI_XXH_32_3, KVI_XXH_64_1, KVI_XXH_64_2, KVI_XXH_64_3, KVI_XXH_64_4, KVI_XXH_32_2, KVI_XXH_64_5, KVI_XXH_32_1 };
    uint64_t h = size * KVI_XXH_64_1;
    uint8_t  secret[192];
    for (uint32_t i = 0; i < 192; i += 8) kvi_store_le64(secret + i, kvi_xxh_read(XXH3_kSecret + i) + (i & 8 ? 0 - seed : seed));
    for (size_t stripe = 0; stripe < (size - 1) / 64; stripe++) {
        kvi_xxh_stripe(acc, p + 64 * stripe, secret + 8 * (stripe & 15));
        if ((stripe & 15) == 15)
            for (uint32_t i = 0; i < 8; i++) acc[i] = (acc[i] ^ acc[i] >> 47 ^ kvi_xxh_read(secret + 128 + 8 * i)) * KVI_XXH_32_1;
    }
    kvi_xxh_stripe(acc, p + size - 64, secret + 192 - 64 - 7);
    for (uint32_t i = 0; i < 8; i += 2) h += kvi_xxh_fold(acc[i] ^ kvi_xxh_read(secret + 11 + 8 * i), acc[i + 1] ^ kvi_xxh_read(secret + 19 + 8 * i));
    return kvi_xxh_finish(h);
}
KVI_PRIVATE uint64_t kvi_hash(const void *data, size_t size, uint64_t seed)
{
    const uint8_t *p = (const uint8_t *)data;
    uint32_t       n = (uint32_t)size, i;
    uint64_t       h = n * KVI_XXH_64_1;
    if (size <= 16) return kvi_xxh_short(p, n, seed);
    if (size > 240) return kvi_xxh_long(p, size, seed);
    if (size <= 128) {
        for (i = 0; i <= (n - 1) / 32; i++) h += kvi_xxh_mix(p + 16 * i, 32 * i, seed) + kvi_xxh_mix(p + n - 16 * (i + 1), 32 * i + 16, seed);
    } else {
        for (i = 0; i < n / 16; i++) {
            h += kvi_xxh_mix(p + 16 * i, i < 8 ? 16 * i : 16 * (i - 8) + 3, seed);
            if (i == 7) h = kvi_xxh_finish(h);
        }
        h += kvi_xxh_mix(p + n - 16, 136 - 17, seed);
    }
    return kvi_xxh_finish(h);
}
#else
KVI_INLINE uint64_t kvi_hash(const void *data, size_t size, uint64_t seed) { return XXH3_64bits_withSeed(data, size, seed); }
#endif

/* The checksum of every kv file format: the low half of the hash. `seed` says where the bytes belong
   (a file, an offset), so that bytes in the wrong place fail too. */
KVI_INLINE uint32_t kvi_checksum(const void *data, size_t size, uint64_t seed) { return (uint32_t)kvi_hash(data, size, seed); }

/* Unbiased enough for any count (the error is count / 2^32), with no division (D. Lemire, 2019). */
KVI_INLINE uint32_t kvi_shard(uint64_t hash, uint32_t count) { return (uint32_t)(((hash >> 32) * count) >> 32); }

/* A batch hashes one key after the other, as the processor overlaps them by itself (short keys in the
   lanes of a vector were no faster), and fetches the keys behind meanwhile. `make bench-simd`, batches
   of 64, time of the batch / time of a loop of kv_hash, at AVX-512:
       keys of                          8 B    16 B    30-100 B    1000 B
       scattered over 256 MiB          0.83    0.86        0.54      0.81
       in the cache (2-6 ns a key)     1.10    1.15        0.96
   So it wins where keys have to come from memory, and costs 0.2 ns a short key where they need not:
   that is what asking for a line that is there already takes. */
#define KVI_HASH_AHEAD 8        /* keys that are being fetched while one is hashed */

KVI_INLINE void kvi_hash_fetch(kv_slice key)
{
    kvi_prefetch(key.data);
    if (key.size > 64) kvi_prefetch((const uint8_t *)key.data + 64);
}
KVI_PRIVATE void kvi_hash_batch(const kv_slice *keys, size_t count, uint64_t seed, uint64_t *hashes)
{
    size_t fetched = count < KVI_HASH_AHEAD ? count : KVI_HASH_AHEAD, i = 0;
    for (size_t k = 0; k < fetched; k++) kvi_hash_fetch(keys[k]);
    for (; i + KVI_HASH_AHEAD < count; i++) {
        kvi_hash_fetch(keys[i + KVI_HASH_AHEAD]);
        hashes[i] = kvi_hash(keys[i].data, keys[i].size, seed);
    }
    for (; i < count; i++) hashes[i] = kvi_hash(keys[i].data, keys[i].size, seed);
}

/* ------------------------------------------------------------------------------------------------
   >>prefix   how far two strings agree, and whether they are equal                                */

KVI_INLINE uint64_t kvi_load_word(const void *p) { uint64_t w; memcpy(&w, p, sizeof w); return w; }

/* The first byte, in memory order, that is not 0 in the difference of two words. */
KVI_INLINE size_t kvi_first_byte(uint64_t difference)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return (63 - kvi_highest_bit64(difference)) / 8;
#else
    return kvi_lowest_bit64(difference) / 8;
#endif
}

/* Bytes that a and b have in common, of `size`. Reads nothing beyond it. */
KVI_INLINE size_t kvi_common_prefix(const void *a, const void *b, size_t size)
{
    const uint8_t *x = (const uint8_t *)a, *y = (const uint8_t *)b;
    size_t         i = 0;
    if (KVI_SMALL) { while (i < size && x[i] == y[i]) i++; return i; }
#if KVI_X86 >= 3
    for (; i < size; i += 32) {
        __mmask32 valid = size - i < 32 ? ((__mmask32)1 << (size - i)) - 1 : 0xFFFFFFFFu;
        uint32_t  differ = (uint32_t)_mm256_cmpneq_epu8_mask(_mm256_maskz_loadu_epi8(valid, (const void *)(x + i)), _mm256_maskz_loadu_epi8(valid, (const void *)(y + i)));
        if (differ) return i + kvi_lowest_bit32(differ);
    }
    return size;
#endif
#if KVI_X86 >= 2
    for (; i + 32 <= size; i += 32) {
        uint32_t same = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(
            _mm256_loadu_si256((const __m256i *)(const void *)(x + i)), _mm256_loadu_si256((const __m256i *)(const void *)(y + i))));
        if (same != 0xFFFFFFFFu) return i + kvi_lowest_bit32(~same);
    }
#endif
#if KVI_X86 >= 1
    for (; i + 16 <= size; i += 16) {
        uint32_t same = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(
            _mm_loadu_si128((const __m128i *)(const void *)(x + i)), _mm_loadu_si128((const __m128i *)(const void *)(y + i))));
        if (same != 0xFFFFu) return i + kvi_lowest_bit32(~same);
    }
#endif
    for (; i + 8 <= size; i += 8) {
        uint64_t difference = kvi_load_word(x + i) ^ kvi_load_word(y + i);
        if (difference) return i + kvi_first_byte(difference);
    }
    if (i < size && size >= 8) {                /* a last word that overlaps what is known to be equal */
        uint64_t difference = kvi_load_word(x + size - 8) ^ kvi_load_word(y + size - 8);
        return difference ? size - 8 + kvi_first_byte(difference) : size;
    }
    while (i < size && x[i] == y[i]) i++;
    return i;
}

/* Are two strings of the same size equal? For keys: inlined, no call for short ones, and no way out
   before the end, because whoever compares keys has mostly found the right one. */
KVI_INLINE bool kvi_equal(const void *a, const void *b, size_t size)
{
    const uint8_t *x = (const uint8_t *)a, *y = (const uint8_t *)b;
    if (KVI_SMALL || size > 256) return !size || memcmp(a, b, size) == 0;
#if KVI_X86 >= 3
    {
        __mmask64 differ = 0, tail;
        size_t    at = 0;
        for (; at + 64 < size; at += 64) differ |= _mm512_cmpneq_epi8_mask(_mm512_loadu_si512((const void *)(x + at)), _mm512_loadu_si512((const void *)(y + at)));
        tail = size - at < 64 ? ((__mmask64)1 << (size - at)) - 1 : ~(__mmask64)0;
        differ |= _mm512_mask_cmpneq_epi8_mask(tail, _mm512_maskz_loadu_epi8(tail, (const void *)(x + at)), _mm512_maskz_loadu_epi8(tail, (const void *)(y + at)));
        return !differ;
    }
#else
#if KVI_X86 >= 2
    if (size >= 32) {
        __m256i differ = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)(x + size - 32)), _mm256_loadu_si256((const __m256i *)(const void *)(y + size - 32)));
        for (size_t at = 0; at + 32 < size; at += 32)
            differ = _mm256_or_si256(differ, _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)(x + at)), _mm256_loadu_si256((const __m256i *)(const void *)(y + at))));
        return _mm256_testz_si256(differ, differ) != 0;
    }
#endif
    if (size >= 16) {
#if KVI_X86 >= 1
        __m128i alike = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)(x + size - 16)), _mm_loadu_si128((const __m128i *)(const void *)(y + size - 16)));
        for (size_t at = 0; at + 16 < size; at += 16)
            alike = _mm_and_si128(alike, _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)(x + at)), _mm_loadu_si128((const __m128i *)(const void *)(y + at))));
        return _mm_movemask_epi8(alike) == 0xFFFF;
#else
        uint64_t difference = kvi_load_word(x + size - 8) ^ kvi_load_word(y + size - 8);
        for (size_t at = 0; at + 8 < size; at += 8) difference |= kvi_load_word(x + at) ^ kvi_load_word(y + at);
        return difference == 0;
#endif
    }
    if (size >= 8)      /* two words that overlap */
        return ((kvi_load_word(x) ^ kvi_load_word(y)) | (kvi_load_word(x + size - 8) ^ kvi_load_word(y + size - 8))) == 0;
    if (size >= 4) {
        uint32_t p, q, r, s;
        memcpy(&p, x, 4); memcpy(&q, y, 4); memcpy(&r, x + size - 4, 4); memcpy(&s, y + size - 4, 4);
        return ((p ^ q) | (r ^ s)) == 0;
    }
    for (size_t i = 0; i < size; i++) if (x[i] != y[i]) return false;
    return true;
#endif
}

/* ------------------------------------------------------------------------------------------------
   >>group   sixteen bytes at once: bit i of a result speaks of byte i. All sixteen are read       */

/* Without vectors: which bytes of a word are 0, as 8 bits. Exact, unlike the shorter formula that
   lets a borrow run into the next byte. */
KVI_INLINE uint32_t kvi_zero_bytes(uint64_t word)
{
    const uint64_t low7 = UINT64_C(0x7F7F7F7F7F7F7F7F);
    uint64_t       zero = ~(((word & low7) + low7) | word | low7);      /* 0x80 where a byte was 0 */
    return (uint32_t)(((zero >> 7) * UINT64_C(0x0102040810204080)) >> 56);
}

#if KV_SIMD == KV_SIMD_NEON
KVI_INLINE uint32_t kvi_neon_mask(uint8x16_t all_or_nothing)
{
    static const uint8_t weights[16] = { 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128 };
    uint8x16_t bits = vandq_u8(all_or_nothing, vld1q_u8(weights));
    return (uint32_t)vaddv_u8(vget_low_u8(bits)) | (uint32_t)vaddv_u8(vget_high_u8(bits)) << 8;
}
#endif

KVI_INLINE uint32_t kvi_eq16(const uint8_t *p, uint8_t wanted)      /* p[i] == wanted */
{
#if KVI_X86 >= 1
#if KVI_X86 >= 2
    __m128i all = _mm_set1_epi8((char)wanted);
#else       /* a word, as where `wanted` was spilled to the stack a byte would be written and four read, which waits for all stores before it */
    __m128i all = _mm_set1_epi32((int)(UINT32_C(0x01010101) * wanted));
#endif
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)p), all));
#elif KV_SIMD == KV_SIMD_NEON
    return kvi_neon_mask(vceqq_u8(vld1q_u8(p), vdupq_n_u8(wanted)));
#elif KV_SIMD == KV_SIMD_WASM
    return (uint32_t)wasm_i8x16_bitmask(wasm_i8x16_eq(wasm_v128_load(p), wasm_i8x16_splat((int8_t)wanted)));
#else
    uint64_t all = UINT64_C(0x0101010101010101) * wanted;
    return kvi_zero_bytes(kvi_load_le64(p) ^ all) | kvi_zero_bytes(kvi_load_le64(p + 8) ^ all) << 8;
#endif
}
KVI_INLINE uint32_t kvi_le16(const uint8_t *p, uint8_t most)        /* p[i] <= most */
{
#if KVI_X86 >= 1
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8((char)most)), v));
#elif KV_SIMD == KV_SIMD_NEON
    return kvi_neon_mask(vcleq_u8(vld1q_u8(p), vdupq_n_u8(most)));
#elif KV_SIMD == KV_SIMD_WASM
    return (uint32_t)wasm_i8x16_bitmask(wasm_u8x16_le(wasm_v128_load(p), wasm_i8x16_splat((int8_t)most)));
#else
    uint32_t mask = 0;
    for (uint32_t i = 0; i < 16; i++) mask |= (uint32_t)(p[i] <= most) << i;
    return mask;
#endif
}

/* ------------------------------------------------------------------------------------------------
   >>columns   32 and 64 bytes at once, the columns of packed leaves and blocks                    */

KVI_INLINE uint32_t kvi_eq32(const uint8_t *p, uint8_t wanted)
{
#if KVI_X86 >= 2
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *)(const void *)p), _mm256_set1_epi8((char)wanted)));
#else
    return kvi_eq16(p, wanted) | kvi_eq16(p + 16, wanted) << 16;
#endif
}
KVI_INLINE uint32_t kvi_le32(const uint8_t *p, uint8_t most)
{
#if KVI_X86 >= 2
    __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_min_epu8(v, _mm256_set1_epi8((char)most)), v));
#else
    return kvi_le16(p, most) | kvi_le16(p + 16, most) << 16;
#endif
}
KVI_INLINE uint32_t kvi_lt32(const uint8_t *p, uint8_t bound) { return bound ? kvi_le32(p, (uint8_t)(bound - 1)) : 0; }

KVI_INLINE uint64_t kvi_eq64(const uint8_t *p, uint8_t wanted)
{
#if KVI_X86 >= 3
    return (uint64_t)_mm512_cmpeq_epi8_mask(_mm512_loadu_si512((const void *)p), _mm512_set1_epi8((char)wanted));
#else
    return (uint64_t)kvi_eq32(p, wanted) | (uint64_t)kvi_eq32(p + 32, wanted) << 32;
#endif
}
KVI_INLINE uint64_t kvi_le64(const uint8_t *p, uint8_t most)
{
#if KVI_X86 >= 3
    return (uint64_t)_mm512_cmple_epu8_mask(_mm512_loadu_si512((const void *)p), _mm512_set1_epi8((char)most));
#else
    return (uint64_t)kvi_le32(p, most) | (uint64_t)kvi_le32(p + 32, most) << 32;
#endif
}
KVI_INLINE uint64_t kvi_lt64(const uint8_t *p, uint8_t bound)
{
#if KVI_X86 >= 3
    return (uint64_t)_mm512_cmplt_epu8_mask(_mm512_loadu_si512((const void *)p), _mm512_set1_epi8((char)bound));
#else
    return kvi_le64(p, (uint8_t)(bound - (bound != 0))) & (bound ? ~UINT64_C(0) : 0);
#endif
}

/* The sum of the first `count` of 32 bytes; count <= 32. Reads all 32. */
KVI_INLINE uint32_t kvi_sum32(const uint8_t *p, uint32_t count)
{
#if KVI_X86 >= 3
    __m256i v = _mm256_maskz_loadu_epi8(count >= 32 ? 0xFFFFFFFFu : (1u << count) - 1, (const void *)p);
    __m256i s = _mm256_sad_epu8(v, _mm256_setzero_si256());
    __m128i t = _mm_add_epi64(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    return (uint32_t)_mm_cvtsi128_si32(t) + (uint32_t)_mm_extract_epi16(t, 4);
#elif KVI_X86 >= 1
    static const uint8_t keep[64] = {
        255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
        255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255 };
    const uint8_t *mask = keep + 32 - count;
    __m128i a = _mm_and_si128(_mm_loadu_si128((const __m128i *)(const void *)p), _mm_loadu_si128((const __m128i *)(const void *)mask));
    __m128i b = _mm_and_si128(_mm_loadu_si128((const __m128i *)(const void *)(p + 16)), _mm_loadu_si128((const __m128i *)(const void *)(mask + 16)));
    __m128i t = _mm_add_epi64(_mm_sad_epu8(a, _mm_setzero_si128()), _mm_sad_epu8(b, _mm_setzero_si128()));
    return (uint32_t)_mm_cvtsi128_si32(t) + (uint32_t)_mm_extract_epi16(t, 4);
#else
    uint32_t sum = 0;
    for (uint32_t i = 0; i < count; i++) sum += p[i];
    return sum;
#endif
}

/* How many of `count` ascending bytes are <= most. Reads up to the next multiple of 16. */
KVI_INLINE uint32_t kvi_rank(const uint8_t *sorted, uint32_t count, uint8_t most)
{
    uint32_t rank = 0;
    for (;;) {
        uint32_t mask = kvi_le16(sorted + rank, most);
        if (count - rank < 16) mask &= (UINT32_C(1) << (count - rank)) - 1;
        if (mask != 0xFFFFu) return rank + kvi_lowest_bit32(~mask);
        rank += 16;
        if (rank >= count) return rank;
    }
}

/* ------------------------------------------------------------------------------------------------
   >>filters   arrays of numbers taken apart, and put together again, exactly

   All of it is written once, over a vector of 16, 32 or 64 bytes (kvi_v) with a dozen operations; each
   function ends in the scalar loop of the same name, which is also its reference: it takes over at
   element i, and from 0 it does everything.

   Where a result is a row of bits, bit i of it speaks of element i, the lowest bit of the first byte
   first, on every machine.                                                                        */

#if KVI_X86 >= 3
#define KVI_V 64
typedef __m512i kvi_v;
KVI_INLINE kvi_v kvi_v_load(const uint8_t *p) { return _mm512_loadu_si512((const void *)p); }
KVI_INLINE void  kvi_v_store(uint8_t *p, kvi_v a) { _mm512_storeu_si512((void *)p, a); }
KVI_INLINE kvi_v kvi_v_set(uint32_t byte) { return _mm512_set1_epi8((char)byte); }
KVI_INLINE kvi_v kvi_v_and(kvi_v a, kvi_v b) { return _mm512_and_si512(a, b); }
KVI_INLINE kvi_v kvi_v_or(kvi_v a, kvi_v b) { return _mm512_or_si512(a, b); }
KVI_INLINE kvi_v kvi_v_add(kvi_v a, kvi_v b) { return _mm512_add_epi8(a, b); }
KVI_INLINE kvi_v kvi_v_sub(kvi_v a, kvi_v b) { return _mm512_sub_epi8(a, b); }
KVI_INLINE kvi_v kvi_v_min(kvi_v a, kvi_v b) { return _mm512_min_epu8(a, b); }
KVI_INLINE kvi_v kvi_v_right(kvi_v a, uint32_t n) { return _mm512_srl_epi16(a, _mm_cvtsi32_si128((int)n)); }     /* 16 bits at once: mask the result */
KVI_INLINE kvi_v kvi_v_left(kvi_v a, uint32_t n) { return _mm512_sll_epi16(a, _mm_cvtsi32_si128((int)n)); }
KVI_INLINE uint64_t kvi_v_bits(kvi_v a, uint32_t bit) { return (uint64_t)_mm512_test_epi8_mask(a, _mm512_set1_epi8((char)(1u << bit))); }
KVI_INLINE kvi_v kvi_v_from_bits(uint64_t bits) { return _mm512_movm_epi8((__mmask64)bits); }
#if defined(__AVX512VBMI__)
/* Eight words, each larger than the one before by step. */
KVI_INLINE kvi_v kvi_v_ramp(uint64_t first, uint64_t step)
{
    return _mm512_set_epi64((long long)(first + 7 * step), (long long)(first + 6 * step), (long long)(first + 5 * step), (long long)(first + 4 * step),
                            (long long)(first + 3 * step), (long long)(first + 2 * step), (long long)(first + step), (long long)first);
}
/* Byte i is one of a's, at order[i]; where the mask says so it is b's. */
KVI_INLINE kvi_v kvi_v_pick(kvi_v a, kvi_v b, uint64_t from_b, kvi_v order)
{
    return _mm512_mask_permutexvar_epi8(_mm512_permutexvar_epi8(order, a), (__mmask64)from_b, order, b);
}
KVI_INLINE kvi_v kvi_v_even(kvi_v a, kvi_v b) { return kvi_v_pick(a, b, UINT64_C(0xFFFFFFFF00000000), kvi_v_ramp(UINT64_C(0x0E0C0A0806040200), UINT64_C(0x1010101010101010))); }
KVI_INLINE kvi_v kvi_v_odd(kvi_v a, kvi_v b) { return kvi_v_pick(a, b, UINT64_C(0xFFFFFFFF00000000), kvi_v_ramp(UINT64_C(0x0F0D0B0907050301), UINT64_C(0x1010101010101010))); }
KVI_INLINE kvi_v kvi_v_zip_low(kvi_v a, kvi_v b) { return kvi_v_pick(a, b, UINT64_C(0xAAAAAAAAAAAAAAAA), kvi_v_ramp(UINT64_C(0x0303020201010000), UINT64_C(0x0404040404040404))); }
KVI_INLINE kvi_v kvi_v_zip_high(kvi_v a, kvi_v b) { return kvi_v_pick(a, b, UINT64_C(0xAAAAAAAAAAAAAAAA), kvi_v_ramp(UINT64_C(0x2323222221212020), UINT64_C(0x0404040404040404))); }
#else
KVI_INLINE kvi_v kvi_v_even(kvi_v a, kvi_v b)
{
    const kvi_v order = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0), low = _mm512_set1_epi16(0xFF);
    return _mm512_permutexvar_epi64(order, _mm512_packus_epi16(_mm512_and_si512(a, low), _mm512_and_si512(b, low)));
}
KVI_INLINE kvi_v kvi_v_odd(kvi_v a, kvi_v b)
{
    const kvi_v order = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0);
    return _mm512_permutexvar_epi64(order, _mm512_packus_epi16(_mm512_srli_epi16(a, 8), _mm512_srli_epi16(b, 8)));
}
KVI_INLINE kvi_v kvi_v_zip_low(kvi_v a, kvi_v b)
{
    return _mm512_or_si512(_mm512_cvtepu8_epi16(_mm512_castsi512_si256(a)), _mm512_slli_epi16(_mm512_cvtepu8_epi16(_mm512_castsi512_si256(b)), 8));
}
KVI_INLINE kvi_v kvi_v_zip_high(kvi_v a, kvi_v b)
{
    return _mm512_or_si512(_mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(a, 1)), _mm512_slli_epi16(_mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(b, 1)), 8));
}
#endif
#if defined(__AVX512VBMI__) && defined(__AVX512VBMI2__) && defined(__GFNI__)
#define KVI_GALOIS 1            /* a matrix of 8 by 8 bits is one number for this processor */
/* Each byte times a matrix, whose byte 7 - i chooses bit i of the result. */
KVI_INLINE kvi_v kvi_v_affine(kvi_v a, uint64_t matrix) { return _mm512_gf2p8affine_epi64_epi8(a, _mm512_set1_epi64((long long)matrix), 0); }
/* Bit i of word b is bit b of byte i; and back. */
KVI_INLINE kvi_v kvi_v_rows(kvi_v a)
{
    const kvi_v one_bit_each = _mm512_set1_epi64((long long)UINT64_C(0x8040201008040201));
    kvi_v       turned = kvi_v_affine(_mm512_gf2p8affine_epi64_epi8(one_bit_each, a, 0), UINT64_C(0x8040201008040201));
    return _mm512_permutexvar_epi8(kvi_v_ramp(UINT64_C(0x3830282018100800), UINT64_C(0x0101010101010101)), turned);
}
KVI_INLINE kvi_v kvi_v_from_rows(kvi_v rows)
{
    const kvi_v one_bit_each = _mm512_set1_epi64((long long)UINT64_C(0x8040201008040201));
    return _mm512_gf2p8affine_epi64_epi8(one_bit_each, _mm512_permutexvar_epi8(kvi_v_ramp(UINT64_C(0x0008101820283038), UINT64_C(0x0101010101010101)), rows), 0);
}
#endif
#elif KVI_X86 == 2
#define KVI_V 32
typedef __m256i kvi_v;
KVI_INLINE kvi_v kvi_v_load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
KVI_INLINE void  kvi_v_store(uint8_t *p, kvi_v a) { _mm256_storeu_si256((__m256i *)(void *)p, a); }
KVI_INLINE kvi_v kvi_v_set(uint32_t byte) { return _mm256_set1_epi8((char)byte); }
KVI_INLINE kvi_v kvi_v_and(kvi_v a, kvi_v b) { return _mm256_and_si256(a, b); }
KVI_INLINE kvi_v kvi_v_or(kvi_v a, kvi_v b) { return _mm256_or_si256(a, b); }
KVI_INLINE kvi_v kvi_v_add(kvi_v a, kvi_v b) { return _mm256_add_epi8(a, b); }
KVI_INLINE kvi_v kvi_v_sub(kvi_v a, kvi_v b) { return _mm256_sub_epi8(a, b); }
KVI_INLINE kvi_v kvi_v_min(kvi_v a, kvi_v b) { return _mm256_min_epu8(a, b); }
KVI_INLINE kvi_v kvi_v_right(kvi_v a, uint32_t n) { return _mm256_srl_epi16(a, _mm_cvtsi32_si128((int)n)); }
KVI_INLINE kvi_v kvi_v_left(kvi_v a, uint32_t n) { return _mm256_sll_epi16(a, _mm_cvtsi32_si128((int)n)); }
KVI_INLINE uint64_t kvi_v_bits(kvi_v a, uint32_t bit) { return (uint32_t)_mm256_movemask_epi8(kvi_v_left(a, 7 - bit)); }
KVI_INLINE kvi_v kvi_v_from_bits(uint64_t bits)
{
    const kvi_v spread = _mm256_set_epi8(3, 3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    const kvi_v bit = _mm256_set1_epi64x((long long)UINT64_C(0x8040201008040201));
    kvi_v v = _mm256_shuffle_epi8(_mm256_set1_epi32((int)(uint32_t)bits), spread);
    return _mm256_cmpeq_epi8(_mm256_and_si256(v, bit), bit);
}
KVI_INLINE kvi_v kvi_v_even(kvi_v a, kvi_v b)
{
    const kvi_v low = _mm256_set1_epi16(0xFF);
    return _mm256_permute4x64_epi64(_mm256_packus_epi16(_mm256_and_si256(a, low), _mm256_and_si256(b, low)), 0xD8);
}
KVI_INLINE kvi_v kvi_v_odd(kvi_v a, kvi_v b)
{
    return _mm256_permute4x64_epi64(_mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8)), 0xD8);
}
KVI_INLINE kvi_v kvi_v_zip_low(kvi_v a, kvi_v b)
{
    return _mm256_unpacklo_epi8(_mm256_permute4x64_epi64(a, 0xD8), _mm256_permute4x64_epi64(b, 0xD8));
}
KVI_INLINE kvi_v kvi_v_zip_high(kvi_v a, kvi_v b)
{
    return _mm256_unpackhi_epi8(_mm256_permute4x64_epi64(a, 0xD8), _mm256_permute4x64_epi64(b, 0xD8));
}
#elif KVI_X86 == 1
#define KVI_V 16
typedef __m128i kvi_v;
KVI_INLINE kvi_v kvi_v_load(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }
KVI_INLINE void  kvi_v_store(uint8_t *p, kvi_v a) { _mm_storeu_si128((__m128i *)(void *)p, a); }
KVI_INLINE kvi_v kvi_v_set(uint32_t byte) { return _mm_set1_epi8((char)byte); }
KVI_INLINE kvi_v kvi_v_and(kvi_v a, kvi_v b) { return _mm_and_si128(a, b); }
KVI_INLINE kvi_v kvi_v_or(kvi_v a, kvi_v b) { return _mm_or_si128(a, b); }
KVI_INLINE kvi_v kvi_v_add(kvi_v a, kvi_v b) { return _mm_add_epi8(a, b); }
KVI_INLINE kvi_v kvi_v_sub(kvi_v a, kvi_v b) { return _mm_sub_epi8(a, b); }
KVI_INLINE kvi_v kvi_v_min(kvi_v a, kvi_v b) { return _mm_min_epu8(a, b); }
KVI_INLINE kvi_v kvi_v_right(kvi_v a, uint32_t n) { return _mm_srl_epi16(a, _mm_cvtsi32_si128((int)n)); }
KVI_INLINE kvi_v kvi_v_left(kvi_v a, uint32_t n) { return _mm_sll_epi16(a, _mm_cvtsi32_si128((int)n)); }
KVI_INLINE uint64_t kvi_v_bits(kvi_v a, uint32_t bit) { return (uint32_t)_mm_movemask_epi8(kvi_v_left(a, 7 - bit)); }
KVI_INLINE kvi_v kvi_v_from_bits(uint64_t bits)
{
    const kvi_v bit = _mm_set_epi8((char)0x80, 0x40, 0x20, 0x10, 8, 4, 2, 1, (char)0x80, 0x40, 0x20, 0x10, 8, 4, 2, 1);
    kvi_v v = _mm_cvtsi32_si128((int)(uint32_t)(bits & 0xFFFFu));
    v = _mm_unpacklo_epi8(v, v);
    v = _mm_unpacklo_epi16(v, v);
    v = _mm_unpacklo_epi32(v, v);
    return _mm_cmpeq_epi8(_mm_and_si128(v, bit), bit);
}
KVI_INLINE kvi_v kvi_v_even(kvi_v a, kvi_v b)
{
    const kvi_v low = _mm_set1_epi16(0xFF);
    return _mm_packus_epi16(_mm_and_si128(a, low), _mm_and_si128(b, low));
}
KVI_INLINE kvi_v kvi_v_odd(kvi_v a, kvi_v b) { return _mm_packus_epi16(_mm_srli_epi16(a, 8), _mm_srli_epi16(b, 8)); }
KVI_INLINE kvi_v kvi_v_zip_low(kvi_v a, kvi_v b) { return _mm_unpacklo_epi8(a, b); }
KVI_INLINE kvi_v kvi_v_zip_high(kvi_v a, kvi_v b) { return _mm_unpackhi_epi8(a, b); }
#elif KV_SIMD == KV_SIMD_NEON
#define KVI_V 16
typedef uint8x16_t kvi_v;
KVI_INLINE kvi_v kvi_v_load(const uint8_t *p) { return vld1q_u8(p); }
KVI_INLINE void  kvi_v_store(uint8_t *p, kvi_v a) { vst1q_u8(p, a); }
KVI_INLINE kvi_v kvi_v_set(uint32_t byte) { return vdupq_n_u8((uint8_t)byte); }
KVI_INLINE kvi_v kvi_v_and(kvi_v a, kvi_v b) { return vandq_u8(a, b); }
KVI_INLINE kvi_v kvi_v_or(kvi_v a, kvi_v b) { return vorrq_u8(a, b); }
KVI_INLINE kvi_v kvi_v_add(kvi_v a, kvi_v b) { return vaddq_u8(a, b); }
KVI_INLINE kvi_v kvi_v_sub(kvi_v a, kvi_v b) { return vsubq_u8(a, b); }
KVI_INLINE kvi_v kvi_v_min(kvi_v a, kvi_v b) { return vminq_u8(a, b); }
KVI_INLINE kvi_v kvi_v_right(kvi_v a, uint32_t n)
{
    return vreinterpretq_u8_u16(vshlq_u16(vreinterpretq_u16_u8(a), vdupq_n_s16((int16_t)-(int)n)));
}
KVI_INLINE kvi_v kvi_v_left(kvi_v a, uint32_t n)
{
    return vreinterpretq_u8_u16(vshlq_u16(vreinterpretq_u16_u8(a), vdupq_n_s16((int16_t)n)));
}
KVI_INLINE uint64_t kvi_v_bits(kvi_v a, uint32_t bit) { return kvi_neon_mask(vtstq_u8(a, vdupq_n_u8((uint8_t)(1u << bit)))); }
KVI_INLINE kvi_v kvi_v_from_bits(uint64_t bits)
{
    static const uint8_t weights[16] = { 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128 };
    return vtstq_u8(vcombine_u8(vdup_n_u8((uint8_t)bits), vdup_n_u8((uint8_t)(bits >> 8))), vld1q_u8(weights));
}
KVI_INLINE kvi_v kvi_v_even(kvi_v a, kvi_v b) { return vuzp1q_u8(a, b); }
KVI_INLINE kvi_v kvi_v_odd(kvi_v a, kvi_v b) { return vuzp2q_u8(a, b); }
KVI_INLINE kvi_v kvi_v_zip_low(kvi_v a, kvi_v b) { return vzip1q_u8(a, b); }
KVI_INLINE kvi_v kvi_v_zip_high(kvi_v a, kvi_v b) { return vzip2q_u8(a, b); }
#elif KV_SIMD == KV_SIMD_WASM
#define KVI_V 16
typedef v128_t kvi_v;
KVI_INLINE kvi_v kvi_v_load(const uint8_t *p) { return wasm_v128_load(p); }
KVI_INLINE void  kvi_v_store(uint8_t *p, kvi_v a) { wasm_v128_store(p, a); }
KVI_INLINE kvi_v kvi_v_set(uint32_t byte) { return wasm_i8x16_splat((int8_t)byte); }
KVI_INLINE kvi_v kvi_v_and(kvi_v a, kvi_v b) { return wasm_v128_and(a, b); }
KVI_INLINE kvi_v kvi_v_or(kvi_v a, kvi_v b) { return wasm_v128_or(a, b); }
KVI_INLINE kvi_v kvi_v_add(kvi_v a, kvi_v b) { return wasm_i8x16_add(a, b); }
KVI_INLINE kvi_v kvi_v_sub(kvi_v a, kvi_v b) { return wasm_i8x16_sub(a, b); }
KVI_INLINE kvi_v kvi_v_min(kvi_v a, kvi_v b) { return wasm_u8x16_min(a, b); }
KVI_INLINE kvi_v kvi_v_right(kvi_v a, uint32_t n) { return wasm_u16x8_shr(a, n); }
KVI_INLINE kvi_v kvi_v_left(kvi_v a, uint32_t n) { return wasm_i16x8_shl(a, n); }
KVI_INLINE uint64_t kvi_v_bits(kvi_v a, uint32_t bit) { return (uint32_t)wasm_i8x16_bitmask(kvi_v_left(a, 7 - bit)); }
KVI_INLINE kvi_v kvi_v_from_bits(uint64_t bits)
{
    const kvi_v bit = wasm_i64x2_splat((int64_t)UINT64_C(0x8040201008040201));
    kvi_v v = wasm_i8x16_shuffle(wasm_i16x8_splat((int16_t)(uint16_t)bits), bit, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    return wasm_i8x16_eq(wasm_v128_and(v, bit), bit);
}
KVI_INLINE kvi_v kvi_v_even(kvi_v a, kvi_v b) { return wasm_i8x16_shuffle(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30); }
KVI_INLINE kvi_v kvi_v_odd(kvi_v a, kvi_v b) { return wasm_i8x16_shuffle(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31); }
KVI_INLINE kvi_v kvi_v_zip_low(kvi_v a, kvi_v b) { return wasm_i8x16_shuffle(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23); }
KVI_INLINE kvi_v kvi_v_zip_high(kvi_v a, kvi_v b) { return wasm_i8x16_shuffle(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31); }
#else
#define KVI_V 0
#endif

/* ---- bytes by significance: byte b of element i goes to plane b, at to[b * count + i] ---- */

KVI_PRIVATE void kvi_shuffle_scalar(const uint8_t *from, uint8_t *to, size_t count, uint32_t element_size, size_t i)
{
    for (; i < count; i++) for (uint32_t b = 0; b < element_size; b++) to[b * count + i] = from[i * element_size + b];
}
KVI_PRIVATE void kvi_unshuffle_scalar(const uint8_t *from, uint8_t *to, size_t count, uint32_t element_size, size_t i)
{
    for (; i < count; i++) for (uint32_t b = 0; b < element_size; b++) to[i * element_size + b] = from[b * count + i];
}

#if KVI_V
/* KVI_V elements of 2, 4 or 8 bytes: each round separates the even bytes from the odd ones and so
   settles one bit of a byte's place in its element, the lowest first. */
KVI_INLINE void kvi_shuffle_v(const uint8_t *from, kvi_v *planes, uint32_t element_size)
{
    kvi_v v[8], w[8];
    for (uint32_t b = 0; b < element_size; b++) v[b] = kvi_v_load(from + b * KVI_V);
    for (uint32_t half = element_size / 2, groups = 1; half; half /= 2, groups *= 2) {
        for (uint32_t g = 0; g < groups; g++) {
            for (uint32_t k = 0; k < half; k++) {
                w[g * 2 * half + k] = kvi_v_even(v[g * 2 * half + 2 * k], v[g * 2 * half + 2 * k + 1]);
                w[g * 2 * half + half + k] = kvi_v_odd(v[g * 2 * half + 2 * k], v[g * 2 * half + 2 * k + 1]);
            }
        }
        for (uint32_t b = 0; b < element_size; b++) v[b] = w[b];
    }
    /* now v[r] is the plane whose number is r with its bits in reverse */
    for (uint32_t b = 0; b < element_size; b++) {
        uint32_t r = element_size == 2 ? b : element_size == 4 ? (b >> 1 | b << 1) & 3 : (b >> 2 | (b & 2) | b << 2) & 7;
        planes[b] = v[r];
    }
}
KVI_INLINE void kvi_unshuffle_v(const kvi_v *planes, uint8_t *to, uint32_t element_size)
{
    kvi_v v[8], w[8];
    for (uint32_t b = 0; b < element_size; b++) v[b] = planes[b];
    for (uint32_t half = element_size / 2, groups = 1; half; half /= 2, groups *= 2) {
        /* v[k] holds bytes k, k + step, ... where step is 2 * half; pairs k and k + half interleave */
        for (uint32_t k = 0; k < half; k++) {
            for (uint32_t g = 0; g < groups; g++) {
                w[k * 2 * groups + 2 * g] = kvi_v_zip_low(v[k * groups + g], v[(k + half) * groups + g]);
                w[k * 2 * groups + 2 * g + 1] = kvi_v_zip_high(v[k * groups + g], v[(k + half) * groups + g]);
            }
        }
        for (uint32_t b = 0; b < element_size; b++) v[b] = w[b];
    }
    for (uint32_t b = 0; b < element_size; b++) kvi_v_store(to + b * KVI_V, v[b]);
}
#define KVI_SHUFFLE_LOOPS(element_size) \
    for (; i + KVI_V <= count; i += KVI_V) { \
        kvi_v planes[8]; \
        kvi_shuffle_v(from + i * (element_size), planes, (element_size)); \
        for (uint32_t b = 0; b < (element_size); b++) kvi_v_store(to + b * count + i, planes[b]); \
    }
#define KVI_UNSHUFFLE_LOOPS(element_size) \
    for (; i + KVI_V <= count; i += KVI_V) { \
        kvi_v planes[8]; \
        for (uint32_t b = 0; b < (element_size); b++) planes[b] = kvi_v_load(from + b * count + i); \
        kvi_unshuffle_v(planes, to + i * (element_size), (element_size)); \
    }
#endif

KVI_PRIVATE void kvi_shuffle(const uint8_t *from, uint8_t *to, size_t count, uint32_t element_size)
{
    size_t i = 0;
#if KVI_V
    if (element_size == 2) { KVI_SHUFFLE_LOOPS(2) }
    else if (element_size == 4) { KVI_SHUFFLE_LOOPS(4) }
    else if (element_size == 8) { KVI_SHUFFLE_LOOPS(8) }
#endif
    kvi_shuffle_scalar(from, to, count, element_size, i);
}
KVI_PRIVATE void kvi_unshuffle(const uint8_t *from, uint8_t *to, size_t count, uint32_t element_size)
{
    size_t i = 0;
#if KVI_V
    if (element_size == 2) { KVI_UNSHUFFLE_LOOPS(2) }
    else if (element_size == 4) { KVI_UNSHUFFLE_LOOPS(4) }
    else if (element_size == 8) { KVI_UNSHUFFLE_LOOPS(8) }
#endif
    kvi_unshuffle_scalar(from, to, count, element_size, i);
}

/* ---- bits by significance: bit b of byte i goes to row b, which begins at to + b * (count / 8) ----
   count is a multiple of 8. */

KVI_PRIVATE void kvi_bit_rows_scalar(const uint8_t *from, uint8_t *to, size_t count, size_t i)
{
    for (; i < count; i += 8) {
        for (uint32_t b = 0; b < 8; b++) {
            uint32_t row = 0;
            for (uint32_t k = 0; k < 8; k++) row |= (from[i + k] >> b & 1u) << k;
            to[b * (count / 8) + i / 8] = (uint8_t)row;
        }
    }
}
KVI_PRIVATE void kvi_bit_bytes_scalar(const uint8_t *from, uint8_t *to, size_t count, size_t i)
{
    for (; i < count; i++) {
        uint32_t byte = 0;
        for (uint32_t b = 0; b < 8; b++) byte |= ((uint32_t)from[b * (count / 8) + i / 8] >> (i & 7) & 1u) << b;
        to[i] = (uint8_t)byte;
    }
}
#if KVI_V
KVI_INLINE void kvi_v_store_bits(uint8_t *to, uint64_t bits)
{
#if KVI_V == 64
    kvi_store_le64(to, bits);
#elif KVI_V == 32
    kvi_store_le32(to, (uint32_t)bits);
#else
    kvi_store_le16(to, (uint16_t)bits);
#endif
}
KVI_INLINE uint64_t kvi_v_load_bits(const uint8_t *from)
{
#if KVI_V == 64
    return kvi_load_le64(from);
#elif KVI_V == 32
    return kvi_load_le32(from);
#else
    return kvi_load_le16(from);
#endif
}
#endif
KVI_PRIVATE void kvi_bit_rows(const uint8_t *from, uint8_t *to, size_t count)
{
    size_t i = 0;
#if KVI_V
    for (; i + KVI_V <= count; i += KVI_V) {
        kvi_v v = kvi_v_load(from + i);
        for (uint32_t b = 0; b < 8; b++) kvi_v_store_bits(to + b * (count / 8) + i / 8, kvi_v_bits(v, b));
    }
#endif
    kvi_bit_rows_scalar(from, to, count, i);
}
KVI_PRIVATE void kvi_bit_bytes(const uint8_t *from, uint8_t *to, size_t count)
{
    size_t i = 0;
#if KVI_V
    for (; i + KVI_V <= count; i += KVI_V) {
        kvi_v v = kvi_v_set(0);
        for (uint32_t b = 0; b < 8; b++) v = kvi_v_or(v, kvi_v_and(kvi_v_from_bits(kvi_v_load_bits(from + b * (count / 8) + i / 8)), kvi_v_set(1u << b)));
        kvi_v_store(to + i, v);
    }
#endif
    kvi_bit_bytes_scalar(from, to, count, i);
}

#if KVI_V
/* Bytes at p are being written, and more will follow: ask for these in time. The processor's own
   prefetching ends at each page, and a line that is to be written has to come first. */
KVI_INLINE void kvi_v_ahead(uint8_t *p)
{
#if KVI_V == 64
    kvi_prefetch_write(p + 1024);
#else
    (void)p;
#endif
}
#endif

/* ---- floating point numbers: the exponent, which is alike in neighbours, away from sign and
   mantissa, which are noise ----

       bf16   seeeeeee emmmmmmm            exponent eeeeeeee   rest smmmmmmm
       fp16   seeeeemm mmmmmmmm            exponent 000eeeee   rest 00000smm, low mmmmmmmm
       fp32   seeeeeee emmmmmmm 16 bits    exponent eeeeeeee   rest smmmmmmm, middle and low byte
   (most significant byte first here, little-endian in memory) */

KVI_PRIVATE void kvi_bf16_split_scalar(const uint8_t *from, size_t count, uint8_t *exponents, uint8_t *rest, size_t i)
{
    for (; i < count; i++) {
        uint32_t low = from[2 * i], high = from[2 * i + 1];
        exponents[i] = (uint8_t)(high << 1 | low >> 7);
        rest[i] = (uint8_t)((high & 0x80) | (low & 0x7F));
    }
}
KVI_PRIVATE void kvi_bf16_join_scalar(const uint8_t *exponents, const uint8_t *rest, size_t count, uint8_t *to, size_t i)
{
    for (; i < count; i++) {
        uint32_t e = exponents[i], r = rest[i];
        to[2 * i] = (uint8_t)((r & 0x7F) | e << 7);
        to[2 * i + 1] = (uint8_t)((r & 0x80) | e >> 1);
    }
}
KVI_PRIVATE void kvi_fp16_split_scalar(const uint8_t *from, size_t count, uint8_t *exponents, uint8_t *rest, uint8_t *low, size_t i)
{
    for (; i < count; i++) {
        uint32_t high = from[2 * i + 1];
        low[i] = from[2 * i];
        exponents[i] = (uint8_t)(high >> 2 & 31);
        rest[i] = (uint8_t)((high >> 5 & 4) | (high & 3));
    }
}
KVI_PRIVATE void kvi_fp16_join_scalar(const uint8_t *exponents, const uint8_t *rest, const uint8_t *low, size_t count, uint8_t *to, size_t i)
{
    for (; i < count; i++) {
        to[2 * i] = low[i];
        to[2 * i + 1] = (uint8_t)((rest[i] & 4u) << 5 | (exponents[i] & 31u) << 2 | (rest[i] & 3u));
    }
}
KVI_PRIVATE void kvi_fp32_split_scalar(const uint8_t *from, size_t count, uint8_t *exponents, uint8_t *rest, uint8_t *middle, uint8_t *low, size_t i)
{
    for (; i < count; i++) {
        uint32_t b2 = from[4 * i + 2], b3 = from[4 * i + 3];
        low[i] = from[4 * i];
        middle[i] = from[4 * i + 1];
        exponents[i] = (uint8_t)(b3 << 1 | b2 >> 7);
        rest[i] = (uint8_t)((b3 & 0x80) | (b2 & 0x7F));
    }
}
KVI_PRIVATE void kvi_fp32_join_scalar(const uint8_t *exponents, const uint8_t *rest, const uint8_t *middle, const uint8_t *low, size_t count, uint8_t *to, size_t i)
{
    for (; i < count; i++) {
        uint32_t e = exponents[i], r = rest[i];
        to[4 * i] = low[i];
        to[4 * i + 1] = middle[i];
        to[4 * i + 2] = (uint8_t)((r & 0x7F) | e << 7);
        to[4 * i + 3] = (uint8_t)((r & 0x80) | e >> 1);
    }
}

#if KVI_V
/* The two upper bytes of bf16 and fp32 alike. A byte that is negative has e's lowest bit. */
KVI_INLINE kvi_v kvi_v_exponent(kvi_v upper, kvi_v lower)
{
    return kvi_v_or(kvi_v_add(upper, upper), kvi_v_and(kvi_v_right(lower, 7), kvi_v_set(1)));
}
KVI_INLINE kvi_v kvi_v_rest(kvi_v upper, kvi_v lower)
{
    return kvi_v_or(kvi_v_and(upper, kvi_v_set(0x80)), kvi_v_and(lower, kvi_v_set(0x7F)));
}
KVI_INLINE kvi_v kvi_v_upper(kvi_v exponent, kvi_v rest)
{
    return kvi_v_or(kvi_v_and(rest, kvi_v_set(0x80)), kvi_v_and(kvi_v_right(exponent, 1), kvi_v_set(0x7F)));
}
KVI_INLINE kvi_v kvi_v_lower(kvi_v exponent, kvi_v rest)
{
    return kvi_v_or(kvi_v_and(rest, kvi_v_set(0x7F)), kvi_v_and(kvi_v_left(exponent, 7), kvi_v_set(0x80)));
}
#endif

KVI_PRIVATE void kvi_bf16_split(const uint8_t *from, size_t count, uint8_t *exponents, uint8_t *rest)
{
    size_t i = 0;
#if KVI_V
    for (; i + KVI_V <= count; i += KVI_V) {
        kvi_v a = kvi_v_load(from + 2 * i), b = kvi_v_load(from + 2 * i + KVI_V), lower = kvi_v_even(a, b), upper = kvi_v_odd(a, b);
        kvi_v_store(exponents + i, kvi_v_exponent(upper, lower));
        kvi_v_ahead(rest + i);
        kvi_v_store(rest + i, kvi_v_rest(upper, lower));
    }
#endif
    kvi_bf16_split_scalar(from, count, exponents, rest, i);
}
KVI_PRIVATE void kvi_bf16_join(const uint8_t *exponents, const uint8_t *rest, size_t count, uint8_t *to)
{
    size_t i = 0;
#if KVI_V
    for (; i + KVI_V <= count; i += KVI_V) {
        kvi_v e = kvi_v_load(exponents + i), r = kvi_v_load(rest + i), upper = kvi_v_upper(e, r), lower = kvi_v_lower(e, r);
        kvi_v_store(to + 2 * i, kvi_v_zip_low(lower, upper));
        kvi_v_store(to + 2 * i + KVI_V, kvi_v_zip_high(lower, upper));
    }
#endif
    kvi_bf16_join_scalar(exponents, rest, count, to, i);
}
KVI_PRIVATE void kvi_fp16_split(const uint8_t *from, size_t count, uint8_t *exponents, uint8_t *rest, uint8_t *low)
{
    size_t i = 0;
#if KVI_V
    for (; i + KVI_V <= count; i += KVI_V) {
        kvi_v a = kvi_v_load(from + 2 * i), b = kvi_v_load(from + 2 * i + KVI_V), upper = kvi_v_odd(a, b);
        kvi_v_store(low + i, kvi_v_even(a, b));
        kvi_v_store(exponents + i, kvi_v_and(kvi_v_right(upper, 2), kvi_v_set(31)));
        kvi_v_store(rest + i, kvi_v_or(kvi_v_and(kvi_v_right(upper, 5), kvi_v_set(4)), kvi_v_and(upper, kvi_v_set(3))));
    }
#endif
    kvi_fp16_split_scalar(from, count, exponents, rest, low, i);
}
KVI_PRIVATE void kvi_fp16_join(const uint8_t *exponents, const uint8_t *rest, const uint8_t *low, size_t count, uint8_t *to)
{
    size_t i = 0;
#if KVI_V
    for (; i + KVI_V <= count; i += KVI_V) {
        kvi_v e = kvi_v_load(exponents + i), r = kvi_v_load(rest + i), lower = kvi_v_load(low + i);
        kvi_v upper = kvi_v_or(kvi_v_and(kvi_v_left(r, 5), kvi_v_set(0x80)), kvi_v_or(kvi_v_and(kvi_v_left(e, 2), kvi_v_set(0x7C)), kvi_v_and(r, kvi_v_set(3))));
        kvi_v_store(to + 2 * i, kvi_v_zip_low(lower, upper));
        kvi_v_store(to + 2 * i + KVI_V, kvi_v_zip_high(lower, upper));
    }
#endif
    kvi_fp16_join_scalar(exponents, rest, low, count, to, i);
}
KVI_PRIVATE void kvi_fp32_split(const uint8_t *from, size_t count, uint8_t *exponents, uint8_t *rest, uint8_t *middle, uint8_t *low)
{
    size_t i = 0;
#if KVI_V
    for (; i + KVI_V <= count; i += KVI_V) {
        kvi_v planes[8];
        kvi_shuffle_v(from + 4 * i, planes, 4);
        kvi_v_store(low + i, planes[0]);
        kvi_v_store(middle + i, planes[1]);
        kvi_v_store(exponents + i, kvi_v_exponent(planes[3], planes[2]));
        kvi_v_ahead(rest + i);
        kvi_v_store(rest + i, kvi_v_rest(planes[3], planes[2]));
    }
#endif
    kvi_fp32_split_scalar(from, count, exponents, rest, middle, low, i);
}
KVI_PRIVATE void kvi_fp32_join(const uint8_t *exponents, const uint8_t *rest, const uint8_t *middle, const uint8_t *low, size_t count, uint8_t *to)
{
    size_t i = 0;
#if KVI_V
    for (; i + KVI_V <= count; i += KVI_V) {
        kvi_v planes[8], e = kvi_v_load(exponents + i), r = kvi_v_load(rest + i);
        planes[0] = kvi_v_load(low + i);
        planes[1] = kvi_v_load(middle + i);
        planes[2] = kvi_v_lower(e, r);
        planes[3] = kvi_v_upper(e, r);
        for (uint32_t k = 0; k < 4; k++) kvi_v_ahead(to + 4 * i + k * KVI_V);
        kvi_unshuffle_v(planes, to + 4 * i, 4);
    }
#endif
    kvi_fp32_join_scalar(exponents, rest, middle, low, count, to, i);
}

/* The smallest and the largest of n > 0 bytes. */
KVI_PRIVATE void kvi_min_max(const uint8_t *bytes, size_t n, uint8_t *low, uint8_t *high)
{
    uint8_t l = bytes[0], h = bytes[0];
    size_t  i = 0;
#if KVI_V
    uint8_t least[2][KVI_V];
    kvi_v   all = kvi_v_set(255), v = all, w = all;
    for (; i + KVI_V <= n; i += KVI_V) {
        v = kvi_v_min(v, kvi_v_load(bytes + i));
        w = kvi_v_min(w, kvi_v_sub(all, kvi_v_load(bytes + i)));
    }
    kvi_v_store(least[0], v);
    kvi_v_store(least[1], w);
    for (uint32_t k = 0; i && k < KVI_V; k++) {
        if (least[0][k] < l) l = least[0][k];
        if (255 - least[1][k] > h) h = (uint8_t)(255 - least[1][k]);
    }
#endif
    for (; i < n; i++) {
        if (bytes[i] < l) l = bytes[i];
        if (bytes[i] > h) h = bytes[i];
    }
    *low = l;
    *high = h;
}

/* ---- groups of 64 numbers of three bits: three rows of 64 bits, 24 bytes ---- */

#define KVI_GROUP       64u
#define KVI_GROUP_BYTES 24u

KVI_PRIVATE void kvi_pack3_scalar(const uint8_t *codes, uint8_t *rows)
{
    uint64_t row[3] = { 0, 0, 0 };
    for (uint32_t i = 0; i < KVI_GROUP; i++) for (uint32_t b = 0; b < 3; b++) row[b] |= (uint64_t)(codes[i] >> b & 1u) << i;
    for (uint32_t b = 0; b < 3; b++) kvi_store_le64(rows + 8 * b, row[b]);
}
KVI_PRIVATE void kvi_unpack3_scalar(const uint8_t *rows, uint8_t *codes)
{
    uint64_t row[3];
    for (uint32_t b = 0; b < 3; b++) row[b] = kvi_load_le64(rows + 8 * b);
    for (uint32_t i = 0; i < KVI_GROUP; i++) codes[i] = (uint8_t)((row[0] >> i & 1) | (row[1] >> i & 1) << 1 | (row[2] >> i & 1) << 2);
}
KVI_INLINE void kvi_pack3(const uint8_t *codes, uint8_t *rows)
{
#ifdef KVI_GALOIS
    _mm512_mask_storeu_epi64((void *)rows, 7, kvi_v_rows(kvi_v_load(codes)));
#elif KVI_V
    uint64_t row[3] = { 0, 0, 0 };
    for (uint32_t i = 0; i < KVI_GROUP; i += KVI_V) {
        kvi_v v = kvi_v_load(codes + i);
        for (uint32_t b = 0; b < 3; b++) row[b] |= kvi_v_bits(v, b) << i;
    }
    for (uint32_t b = 0; b < 3; b++) kvi_store_le64(rows + 8 * b, row[b]);
#else
    kvi_pack3_scalar(codes, rows);
#endif
}
KVI_INLINE void kvi_unpack3(const uint8_t *rows, uint8_t *codes)
{
#ifdef KVI_GALOIS
    kvi_v_store(codes, kvi_v_from_rows(_mm512_maskz_loadu_epi64(7, (const void *)rows)));
#elif KVI_V
    uint64_t row[3];
    for (uint32_t b = 0; b < 3; b++) row[b] = kvi_load_le64(rows + 8 * b);
    for (uint32_t i = 0; i < KVI_GROUP; i += KVI_V) {
        kvi_v v = kvi_v_set(0);
        for (uint32_t b = 0; b < 3; b++) v = kvi_v_or(v, kvi_v_and(kvi_v_from_bits(row[b] >> i), kvi_v_set(1u << b)));
        kvi_v_store(codes + i, v);
    }
#else
    kvi_unpack3_scalar(rows, codes);
#endif
}

/* ---- a group of 64 exponents in three bits each: 0 to 6 stand for base to base + 6, and 7 says that
   the exponent itself is the next one of `escapes`. base + 6 may wrap around ---- */

#define KVI_ESCAPE 7u

/* Returns how many escapes were written. Writes no byte more than these. */
KVI_PRIVATE uint32_t kvi_exponents_pack_scalar(const uint8_t *exponents, uint8_t base, uint8_t *rows, uint8_t *escapes)
{
    uint8_t  codes[KVI_GROUP];
    uint32_t count = 0;
    for (uint32_t i = 0; i < KVI_GROUP; i++) {
        uint8_t code = (uint8_t)(exponents[i] - base);
        if (code >= KVI_ESCAPE) { escapes[count++] = exponents[i]; code = KVI_ESCAPE; }
        codes[i] = code;
    }
    kvi_pack3_scalar(codes, rows);
    return count;
}
/* The escapes of a group: their number, and where they go. */
KVI_INLINE uint64_t kvi_exponents_escapes(const uint8_t *rows) { return kvi_load_le64(rows) & kvi_load_le64(rows + 8) & kvi_load_le64(rows + 16); }
KVI_INLINE uint32_t kvi_bit_count64(uint64_t x)
{
#if defined(__POPCNT__)
    return (uint32_t)__builtin_popcountll(x);
#else
    x -= x >> 1 & UINT64_C(0x5555555555555555);
    x = (x & UINT64_C(0x3333333333333333)) + (x >> 2 & UINT64_C(0x3333333333333333));
    return (uint32_t)(((x + (x >> 4)) & UINT64_C(0x0F0F0F0F0F0F0F0F)) * UINT64_C(0x0101010101010101) >> 56);
#endif
}
/* The caller has seen to it that there are as many escapes as the rows say. */
KVI_PRIVATE void kvi_exponents_unpack_scalar(const uint8_t *rows, uint8_t base, const uint8_t *escapes, uint8_t *exponents)
{
    kvi_unpack3_scalar(rows, exponents);
    for (uint32_t i = 0; i < KVI_GROUP; i++) exponents[i] = exponents[i] == KVI_ESCAPE ? *escapes++ : (uint8_t)(exponents[i] + base);
}

KVI_INLINE uint32_t kvi_exponents_pack(const uint8_t *exponents, uint8_t base, uint8_t *rows, uint8_t *escapes)
{
#if KVI_V
    uint64_t row[3] = { 0, 0, 0 }, where;
    uint32_t count;
    for (uint32_t i = 0; i < KVI_GROUP; i += KVI_V) {
        kvi_v code = kvi_v_min(kvi_v_sub(kvi_v_load(exponents + i), kvi_v_set(base)), kvi_v_set(KVI_ESCAPE));
        for (uint32_t b = 0; b < 3; b++) row[b] |= kvi_v_bits(code, b) << i;
    }
    for (uint32_t b = 0; b < 3; b++) kvi_store_le64(rows + 8 * b, row[b]);
    where = row[0] & row[1] & row[2];
    count = kvi_bit_count64(where);
#if KVI_X86 >= 3 && defined(__AVX512VBMI2__)
    if (count) _mm512_mask_storeu_epi8(escapes, (__mmask64)(~UINT64_C(0) >> (64 - count)), _mm512_maskz_compress_epi8((__mmask64)where, kvi_v_load(exponents)));
#else
    for (; where; where &= where - 1) *escapes++ = exponents[kvi_lowest_bit64(where)];
#endif
    return count;
#else
    return kvi_exponents_pack_scalar(exponents, base, rows, escapes);
#endif
}
KVI_INLINE void kvi_exponents_unpack(const uint8_t *rows, uint8_t base, const uint8_t *escapes, uint8_t *exponents)
{
#if KVI_X86 >= 3 && defined(__AVX512VBMI2__)
    uint64_t where = kvi_exponents_escapes(rows);
    kvi_v    v = kvi_v_set(base);
    for (uint32_t b = 0; b < 3; b++) v = _mm512_mask_add_epi8(v, (__mmask64)kvi_load_le64(rows + 8 * b), v, kvi_v_set(1u << b));
    if (where) v = _mm512_mask_expandloadu_epi8(v, (__mmask64)where, escapes);
    kvi_v_store(exponents, v);
#elif KVI_V
    uint64_t row[3], where;
    for (uint32_t b = 0; b < 3; b++) row[b] = kvi_load_le64(rows + 8 * b);
    for (uint32_t i = 0; i < KVI_GROUP; i += KVI_V) {
        kvi_v v = kvi_v_set(base);
        for (uint32_t b = 0; b < 3; b++) v = kvi_v_add(v, kvi_v_and(kvi_v_from_bits(row[b] >> i), kvi_v_set(1u << b)));
        kvi_v_store(exponents + i, v);
    }
    for (where = row[0] & row[1] & row[2]; where; where &= where - 1) exponents[kvi_lowest_bit64(where)] = *escapes++;
#else
    kvi_exponents_unpack_scalar(rows, base, escapes, exponents);
#endif
}

/* ---- whole groups of a fast chunk in one pass, where the processor has the instructions. The same
   bytes as by the functions above, one after the other ---- */

#ifdef KVI_GALOIS
/* Codes of exponents, and the escapes among them: writes 64 bytes there, returns how many are meant. */
KVI_INLINE kvi_v kvi_v_codes(kvi_v exponents, uint8_t base, uint8_t *escapes, size_t *count)
{
    kvi_v     code = kvi_v_min(kvi_v_sub(exponents, kvi_v_set(base)), kvi_v_set(KVI_ESCAPE));
    __mmask64 where = _mm512_cmpeq_epi8_mask(code, kvi_v_set(KVI_ESCAPE));
    kvi_v_store(escapes, _mm512_maskz_compress_epi8(where, exponents));
    *count += kvi_bit_count64((uint64_t)where);
    return code;
}
/* The exponents again; false: there are fewer escapes than the codes say. */
KVI_INLINE bool kvi_v_uncodes(kvi_v code, uint8_t base, const uint8_t *escapes, size_t available, size_t *used, kvi_v *exponents)
{
    __mmask64 where = _mm512_cmpeq_epi8_mask(code, kvi_v_set(KVI_ESCAPE)), there = ~(__mmask64)0;
    size_t    left = available - *used, count = kvi_bit_count64((uint64_t)where);
    if (KVI_UNLIKELY(left < 64)) {
        if (count > left) return false;
        there = ((__mmask64)1 << left) - 1;
    }
    *exponents = _mm512_mask_expand_epi8(kvi_v_add(code, kvi_v_set(base)), where, _mm512_maskz_loadu_epi8(there, (const void *)(escapes + *used)));
    *used += count;
    return true;
}

/* count: a multiple of 64 numbers. escapes: with room for count + 64. Returns how many there are. */
KVI_PRIVATE size_t kvi_bf16_pack_groups(const uint8_t *from, size_t count, uint8_t base, uint8_t *rest, uint8_t *rows, uint8_t *escapes)
{
    size_t escaped = 0;
    for (size_t i = 0; i < count; i += KVI_GROUP, from += 2 * KVI_GROUP, rows += KVI_GROUP_BYTES) {
        kvi_v a = kvi_v_load(from), b = kvi_v_load(from + KVI_GROUP), lower = kvi_v_even(a, b), upper = kvi_v_odd(a, b);
        kvi_v_ahead(rest + i);
        kvi_v_store(rest + i, kvi_v_rest(upper, lower));
        _mm512_mask_storeu_epi64((void *)rows, 7, kvi_v_rows(kvi_v_codes(kvi_v_exponent(upper, lower), base, escapes + escaped, &escaped)));
    }
    return escaped;
}
/* Returns how many of the `available` escapes were used; KV_NONE: there are too few. */
KVI_PRIVATE size_t kvi_bf16_unpack_groups(const uint8_t *rest, const uint8_t *rows, size_t count, uint8_t base, const uint8_t *escapes, size_t available, uint8_t *to)
{
    size_t used = 0;
    kvi_v  e;
    for (size_t i = 0; i < count; i += KVI_GROUP, to += 2 * KVI_GROUP, rows += KVI_GROUP_BYTES) {
        kvi_v r = kvi_v_load(rest + i), lower, upper;
        if (!kvi_v_uncodes(kvi_v_from_rows(_mm512_maskz_loadu_epi64(7, (const void *)rows)), base, escapes, available, &used, &e)) return KV_NONE;
        kvi_v_ahead(to);
        kvi_v_ahead(to + KVI_GROUP);
        upper = kvi_v_upper(e, r);
        lower = kvi_v_lower(e, r);
        kvi_v_store(to, kvi_v_zip_low(lower, upper));
        kvi_v_store(to + KVI_GROUP, kvi_v_zip_high(lower, upper));
    }
    return used;
}

/* fp16: code and rest go through one byte, the code in bits 0 to 2, the rest in 3 to 5, so that rows
   of both come out at once. */
KVI_PRIVATE size_t kvi_fp16_pack_groups(const uint8_t *from, size_t count, uint8_t base, uint8_t *low, uint8_t *rest_rows, uint8_t *rows, uint8_t *escapes)
{
    size_t escaped = 0;
    for (size_t i = 0; i < count; i += KVI_GROUP, from += 2 * KVI_GROUP, rows += KVI_GROUP_BYTES, rest_rows += KVI_GROUP_BYTES) {
        kvi_v a = kvi_v_load(from), b = kvi_v_load(from + KVI_GROUP), upper = kvi_v_odd(a, b), code, both;
        kvi_v_ahead(low + i);
        kvi_v_store(low + i, kvi_v_even(a, b));
        code = kvi_v_codes(kvi_v_affine(upper, UINT64_C(0x0408102040000000)), base, escapes + escaped, &escaped);
        both = kvi_v_rows(kvi_v_or(code, kvi_v_affine(upper, UINT64_C(0x0000000102800000))));
        _mm512_mask_storeu_epi64((void *)rows, 7, both);
        _mm512_mask_storeu_epi64((void *)(rest_rows - KVI_GROUP_BYTES), 7 << 3, both);
    }
    return escaped;
}
KVI_PRIVATE size_t kvi_fp16_unpack_groups(const uint8_t *low, const uint8_t *rest_rows, const uint8_t *rows, size_t count, uint8_t base,
                                          const uint8_t *escapes, size_t available, uint8_t *to)
{
    size_t used = 0;
    kvi_v  e;
    for (size_t i = 0; i < count; i += KVI_GROUP, to += 2 * KVI_GROUP, rows += KVI_GROUP_BYTES, rest_rows += KVI_GROUP_BYTES) {
        kvi_v both = kvi_v_from_rows(_mm512_mask_loadu_epi64(_mm512_maskz_loadu_epi64(7, (const void *)rows), 7 << 3, (const void *)(rest_rows - KVI_GROUP_BYTES)));
        kvi_v lower = kvi_v_load(low + i), upper;
        if (!kvi_v_uncodes(kvi_v_and(both, kvi_v_set(7)), base, escapes, available, &used, &e)) return KV_NONE;
        kvi_v_ahead(to);
        kvi_v_ahead(to + KVI_GROUP);
        upper = kvi_v_or(kvi_v_affine(both, UINT64_C(0x0810000000000020)), kvi_v_affine(e, UINT64_C(0x0000010204081000)));
        kvi_v_store(to, kvi_v_zip_low(lower, upper));
        kvi_v_store(to + KVI_GROUP, kvi_v_zip_high(lower, upper));
    }
    return used;
}
#endif

/* ------------------------------------------------------------------------------------------------
   >>api                                                                                           */

KVI_SIMD_DEFINE uint64_t kv_hash(kv_slice key, uint64_t seed) { return kvi_hash(key.data, key.size, seed); }
KVI_SIMD_DEFINE void kv_hash_batch(const kv_slice *keys, size_t count, uint64_t seed, uint64_t *hashes)
{
    kvi_hash_batch(keys, count, seed, hashes);
}
KVI_SIMD_DEFINE uint32_t kv_shard(uint64_t hash, uint32_t shard_count) { return kvi_shard(hash, shard_count); }
KVI_SIMD_DEFINE size_t kv_common_prefix(kv_slice a, kv_slice b)
{
    return kvi_common_prefix(a.data, b.data, a.size < b.size ? a.size : b.size);
}
KVI_SIMD_DEFINE const char *kv_simd_name(void)
{
    static const char *const names[] = { "scalar", "sse2", "avx2", "avx512", "neon", "wasm" };
    return names[KV_SIMD];
}

#endif /* KV_SIMD_IMPLEMENTATION */

/* MIT License

   Copyright (c) 2026 the kv authors

   Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
   associated documentation files (the "Software"), to deal in the Software without restriction,
   including without limitation the rights to use, copy, modify, merge, publish, distribute,
   sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
   furnished to do so, subject to the following conditions:

   The above copyright notice and this permission notice shall be included in all copies or
   substantial portions of the Software.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
   NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
   NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
   DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
   OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE. */
