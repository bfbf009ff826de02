/* kv_simd.h - v0.1.0 - hashing, and the small searches that the kv modules share, with SIMD
   SPDX-License-Identifier: MIT (full text at the end of this file)

   In *one* C or C++ file:   #define KV_SIMD_IMPLEMENTATION
                             #include "kv_simd.h"      (kv.h lies beside it, xxhash.h is installed)
   QUICK START
       uint64_t h = kv_hash(KV_STR("user:17"), 0);
       printf("shard %u of 10\n", (unsigned)kv_shard(h, 10));

   CONTENTS   docs: hashing, SIMD levels
              code: >>public >>level >>hash >>prefix >>group >>columns >>api

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

/* hashes[i] = kv_hash(keys[i], seed). Faster than a loop because it fetches the keys behind while it
   hashes one; how much depends on where the keys lie (see >>hash for figures). */
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

KVI_INLINE uint64_t kvi_hash(const void *data, size_t size, uint64_t seed) { return XXH3_64bits_withSeed(data, size, seed); }

/* The checksum of every kv file format: the low half of the hash. `seed` says where the bytes belong
   (a file, an offset), so that bytes in the wrong place fail too. */
KVI_INLINE uint32_t kvi_checksum(const void *data, size_t size, uint64_t seed) { return (uint32_t)kvi_hash(data, size, seed); }

/* Unbiased enough for any count (the error is count / 2^32), with no division (D. Lemire, 2019). */
KVI_INLINE uint32_t kvi_shard(uint64_t hash, uint32_t count) { return (uint32_t)(((hash >> 32) * count) >> 32); }

#define KVI_HASH_AHEAD 8        /* keys that are being fetched while one is hashed */

KVI_PRIVATE void kvi_hash_batch(const kv_slice *keys, size_t count, uint64_t seed, uint64_t *hashes)
{
    for (size_t i = 0; i < count; i++) {
        if (i + KVI_HASH_AHEAD < count) {
            const uint8_t *ahead = (const uint8_t *)keys[i + KVI_HASH_AHEAD].data;
            kvi_prefetch(ahead);
            if (keys[i + KVI_HASH_AHEAD].size > 64) kvi_prefetch(ahead + 64);
        }
        hashes[i] = kvi_hash(keys[i].data, keys[i].size, seed);
    }
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
    while (i < size && x[i] == y[i]) i++;
    return i;
}

/* Are two strings of the same size equal? For keys: inlined, no call for short ones. */
KVI_INLINE bool kvi_equal(const void *a, const void *b, size_t size)
{
    const uint8_t *x = (const uint8_t *)a, *y = (const uint8_t *)b;
    if (size >= 16) {
        uint64_t difference = 0;
        size_t   i = 0;
        if (size > 256) return memcmp(a, b, size) == 0;
#if KVI_X86 >= 1
        for (; i + 16 < size; i += 16) {
            __m128i same = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)(x + i)), _mm_loadu_si128((const __m128i *)(const void *)(y + i)));
            if (_mm_movemask_epi8(same) != 0xFFFF) return false;
        }
        return _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)(x + size - 16)),
                                                _mm_loadu_si128((const __m128i *)(const void *)(y + size - 16)))) == 0xFFFF;
#endif
        for (; i + 8 < size; i += 8) difference |= kvi_load_word(x + i) ^ kvi_load_word(y + i);
        return (difference | (kvi_load_word(x + size - 8) ^ kvi_load_word(y + size - 8))) == 0;
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
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)p), _mm_set1_epi8((char)wanted)));
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
KVI_INLINE uint64_t kvi_lt64(const uint8_t *p, uint8_t bound) { return bound ? kvi_le64(p, (uint8_t)(bound - 1)) : 0; }

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
