/* kv_compress.h - v0.1.0 - compression with LZ4 and zstd: of single values, and around any store
   SPDX-License-Identifier: MIT (full text at the end of this file)

   In *one* C or C++ file:   #define KV_COMPRESS_IMPLEMENTATION
                             #include "kv_compress.h"  (kv.h and kv_simd.h lie beside it; -llz4 -lzstd)
   QUICK START
       kv_compressor *c;
       kv_buf packed = {0}, raw = {0};
       if (kv_compressor_open(NULL, &c) < 0) return 1;
       if (kv_compress(c, KV_STR("tick tock tick tock tick tock tick tock tick tock tick tock tick tock"), &packed) < 0) return 1;
       if (kv_decompress(c, kv_buf_slice(&packed), &raw) < 0) return 1;
       printf("%u bytes, packed %u\n", (unsigned)raw.size, (unsigned)packed.size);
       kv_buf_free(&packed);
       kv_buf_free(&raw);
       kv_compressor_close(c);

   CONTENTS   docs: building, what a packed value is, around a store, codecs, filters, dictionaries,
                    what is attainable without loss, threads, memory
              code: >>public >>config >>format >>huffman >>contexts >>lz4 >>zstd >>codec
                    >>floats >>shuffle >>auto >>pack >>unpack >>train >>compressor >>wrapper >>cursor >>api

   BUILDING
   Switches for the implementation file, besides those of kv.h:
       KV_NO_LZ4, KV_NO_ZSTD   that library is neither included nor linked. What would need it gives
                               KV_ERR_UNSUPPORTED, and kv_last_error / kv_compressor_last_error say so
   Of zstd.h this uses, besides the stable part: custom allocators, digested dictionaries in memory of
   ours, and frames without a magic number. They are in the "static linking only" part of the header,
   and libzstd.so exports them (checked with 1.5.4 of Debian 12). Of lz4 it uses the stable part alone.

   WHAT A PACKED VALUE IS
   A tag, the raw size, what the codec made of it, a checksum over all of that: 7 bytes more than the
   codec's own output for values to 16 KiB. What would not shrink is stored as it is, with 5 bytes
   around it, so no value grows by more. The tag says how to read it back: the options of the reader do
   not matter, except that a value which was packed with a dictionary needs that dictionary. Chapter
   "format" has the grammar.

   AROUND A STORE
   kv_compressed is a kv_store around any other: a kv_mem, a kv_art, a kv_lsm, yours, or another wrapper.

       kv_compressed_open(kv_mem_store(m), &options, &c);
       kv_set(kv_compressed_store(c), KV_STR("page"), text);

   CODECS AND LEVELS
       KV_CODEC_NONE    filters alone, or only a checksum
       KV_CODEC_LZ4     level 0 is LZ4's default; 3 to 12 LZ4 HC, slow to pack, as quick to unpack;
                        below 0 its acceleration, less packed and faster
       KV_CODEC_ZSTD    level 0 is 3; -131072 to 22
   Values of 64 to 4,096 bytes are looked at first: where sampled bytes are spread as evenly as random
   ones, no codec is tried, and the value is stored (some 40 ns instead of 400 to 4,000).

   FILTERS, for arrays of numbers
       SHUFFLE      the first bytes of all numbers, then the second ones...: for integers, dates, ids
       BITSHUFFLE   the same with bits: better for LZ4 with slowly changing integers
       BF16, FP16, FP32   exponents apart from sign and mantissa, which are stored. With NONE or LZ4:
                    "fast", exponents in 3 bits with escapes, as quick as memory. With ZSTD: "dense",
                    Huffman-coded
       AUTO         tries a sample of every value of 512 bytes and more with what fits element_size (0:
                    everything), takes the best. Costs 30 to 100 us a value
   All are exact for all bytes, NaNs and odd sizes included, and the same at every SIMD level.

   DICTIONARIES
   Small values that resemble each other have what they share in a dictionary: train one on samples,
   keep it as long as the values, give it to every compressor that is to read them. On records of 200
   bytes of JSON 16 KiB made 3.0x of 1.2x with zstd, and 2.2x of 1.0x with LZ4.

   WHAT IS ATTAINABLE WITHOUT LOSS
   Of a tensor of floating point numbers only the exponent can be predicted: the mantissa's bits are
   noise, and nothing that gives back every bit makes noise smaller. A bf16 number has 8 bits of sign
   and mantissa, and its exponent carries some 2.7 bits in what language models cache: 16 / 10.7 is
   1.5x, and that is the end of it; for fp16 it is 1.17x, for fp32 1.2x. Where 5x to 10x are promised,
   bits were thrown away: quantisation to 4 bits and less, which is a decision for the model's owner
   and not for a store. examples/kv_cache.c makes such a cache, 12 layers of K and V of 2 MiB, and shows
                          K bf16   V bf16   K fp16   V fp16     time in, out: times memcpy's
       LZ4                 1.00x    1.00x    1.00x    1.00x     1.5           1.05
       zstd 1              1.27x    1.27x    1.08x    1.08x      16             14 to 15
       shuffle, zstd 1     1.45x    1.45x    1.16x    1.17x      12 to 28       8 to 9
       fast                1.39x    1.42x    1.11x    1.12x     1.4 to 1.6    1.2 to 1.45
       dense               1.48x    1.49x    1.16x    1.17x     7.7              4
   (one thread, AVX-512 with GFNI and VBMI, of which fast makes use; make bench-compress). A ramp of bytes that repeats every 256 packs
   250x and 4,500x; no cache looks like it.

   THREADS
   A kv_compressor may be used by any number of threads at once, and so may a kv_compressed as far as
   the store inside may (KV_CAP_THREADS). Each call takes a context (the codecs' tables, scratch
   memory) out of a pool, without waiting.

   MEMORY
   A context takes 20 KB for LZ4 (with a dictionary its last 64 KiB and 4 KiB more), up to 262 KB for
   LZ4 HC, and for zstd 0.1 to some MB for packing, depending on level and size, 0.1 MB for unpacking,
   and 34 KB for dense floats; there are as many as calls that ran at once.
   They come from the compressor's allocator, zstd's memory too, and are kept until the compressor
   closes: after the first calls nothing is allocated. Training a dictionary is the exception: it
   takes zstd's 6 MB from malloc. */

/* ------------------------------------------------------------------------------------------------
   >>public   the interface                                                                        */
#if defined(KV_IMPLEMENTATION) && !defined(KV_COMPRESS_IMPLEMENTATION)
#define KV_COMPRESS_IMPLEMENTATION
#endif
#if defined(KV_COMPRESS_IMPLEMENTATION) && !defined(KV_SIMD_IMPLEMENTATION)
#define KV_SIMD_IMPLEMENTATION
#define KVI_SIMD_IMPLIED 1
#endif
#include "kv_simd.h"
#if KV_VERSION < 100
#error "kv_compress.h 0.1 needs kv.h 0.1 or newer: copy both headers from the same release"
#endif

#ifndef KV_COMPRESS_INCLUDED
#define KV_COMPRESS_INCLUDED 1

#ifdef __cplusplus
extern "C" {
#endif

typedef enum kv_codec {
    KV_CODEC_DEFAULT = 0,       /* LZ4 */
    KV_CODEC_NONE = 1,
    KV_CODEC_LZ4 = 2,
    KV_CODEC_ZSTD = 3
} kv_codec;

/* For arrays of numbers, applied before the codec; exact, bit for bit, for any bytes of any size. */
typedef enum kv_filter {
    KV_FILTER_NONE = 0,
    KV_FILTER_SHUFFLE = 1,      /* the bytes of numbers of element_size by significance */
    KV_FILTER_BITSHUFFLE = 2,   /* the bits likewise */
    KV_FILTER_BF16 = 3,         /* exponents apart: with NONE or LZ4 packed at memory speed, with ZSTD entropy-coded (dense) */
    KV_FILTER_FP16 = 4,
    KV_FILTER_FP32 = 5,
    KV_FILTER_AUTO = 6          /* sampled, value by value */
} kv_filter;

typedef struct kv_compress_options {    /* {0}: LZ4, no filter */
    kv_allocator allocator;
    kv_codec  codec;
    int       level;            /* 0: the codec's default */
    kv_filter filter;
    uint32_t  element_size;     /* bytes of one number: 1, 2, 4, 8; default 4, for AUTO: any. For SHUFFLE, BITSHUFFLE and AUTO */
    kv_slice  dictionary;       /* from kv_compress_train; copied. Used for values up to 128 KiB */
    size_t    size_min;         /* bytes; smaller values are stored as they are; default 64; KV_NONE: all are packed */
    size_t    size_max;         /* bytes; refuse to inflate past this; default KV_VALUE_SIZE_MAX */
    char     *error_text;       /* why opening failed, in words */
    size_t    error_text_size;  /* bytes */
} kv_compress_options;

/* "none", "lz4", "zstd"; "unknown" for another number. kv_codec_supported: is it compiled in? */
KV_API const char *kv_codec_name(kv_codec codec);
KV_API bool        kv_codec_supported(kv_codec codec);

/* ---- values ---- */

typedef struct kv_compressor kv_compressor;

/* options   NULL: the defaults.
   Returns   KV_OK, KV_ERR_NO_MEMORY, KV_ERR_UNSUPPORTED for a codec that is not compiled in,
             KV_ERR_INVALID for an option out of range or a damaged dictionary (see error_text). */
KV_API kv_status kv_compressor_open(const kv_compress_options *options, kv_compressor **c);
KV_API void      kv_compressor_close(kv_compressor *c);         /* NULL is fine */

/* What was asked for, with every default filled in. */
KV_API const kv_compress_options *kv_compressor_options(const kv_compressor *c);
KV_API const char *kv_compressor_last_error(const kv_compressor *c);    /* the last failure in words; never NULL */

/* Pack a value. packed: its old bytes are replaced on KV_OK; raw must not lie in it.
   Never larger than raw + 8 bytes. The same value gives the same bytes with the same options and
   library versions.
   Returns   KV_OK, KV_ERR_NO_MEMORY, KV_ERR_TOO_LARGE (over KV_VALUE_SIZE_MAX, or a fixed buffer that is too small).
   Threads   any. */
KV_API kv_status kv_compress(kv_compressor *c, kv_slice raw, kv_buf *packed);

/* The value again. `packed` may be any bytes: the result is right, or a failure.
   raw       its old bytes are replaced on KV_OK; packed must not lie in it.
   Returns   KV_OK; KV_ERR_CORRUPT for bytes that are no packed value, damaged ones, and ones that were
             packed with a dictionary other than the compressor's; KV_ERR_TOO_LARGE over size_max, or
             for a fixed buffer that is too small; KV_ERR_UNSUPPORTED for a codec that is not compiled in;
             KV_ERR_VERSION for a newer format; KV_ERR_NO_MEMORY. Memory is asked for after the checksum
             and the size were checked. */
KV_API kv_status kv_decompress(kv_compressor *c, kv_slice packed, kv_buf *raw);

/* Make a dictionary out of samples of values: it is worth as much as it resembles the values to come.
   For values of 50 bytes to some KB; train on 100 times the dictionary's size or more.
   dictionary_size   bytes at most; 16 to 64 KiB are usual. LZ4 makes use of the last 64 KiB.
   Returns   KV_OK; KV_ERR_INVALID for too few samples (zstd wants some 10, and more bytes than the
             dictionary is to have); KV_ERR_UNSUPPORTED under KV_NO_ZSTD, whose trainer it is;
             KV_ERR_NO_MEMORY. LZ4 takes any bytes for a dictionary, say a typical value or two. */
KV_API kv_status kv_compress_train(const kv_slice *samples, size_t count, size_t dictionary_size, kv_buf *dictionary);

/* ---- bare blocks, for formats with headers and checksums of their own ---- */

/* Bytes that a packed block of raw_size may take, at most; 0 for a codec that is not compiled in, and
   for a block over KV_VALUE_SIZE_MAX. */
KV_API size_t    kv_codec_bound(kv_codec codec, size_t raw_size);

/* Pack with codec and level of c: no filter, no dictionary, no header.
   *size     the bytes written.
   Returns   KV_OK, KV_ERR_TOO_LARGE where it does not fit in `capacity` (which is how to ask for "only
             if it gets smaller"; out may then hold anything), KV_ERR_NO_MEMORY, KV_ERR_UNSUPPORTED. */
KV_API kv_status kv_codec_pack(kv_compressor *c, kv_slice raw, void *out, size_t capacity, size_t *size);

/* Unpack a block of any codec that is compiled in; c lends its contexts.
   Returns   KV_OK: out holds exactly raw_size bytes; KV_ERR_CORRUPT for everything else that the bytes
             may be; KV_ERR_NO_MEMORY, KV_ERR_UNSUPPORTED. Writes nothing beyond out + raw_size. */
KV_API kv_status kv_codec_unpack(kv_compressor *c, kv_codec codec, kv_slice packed, void *out, size_t raw_size);

/* ---- a wrapper around any store ---- */

typedef struct kv_compressed kv_compressed;
typedef struct kv_compress_stats {      /* of what was written through this wrapper */
    uint64_t raw_bytes, packed_bytes;   /* packed_bytes is what the inner store was given */
    uint64_t values;
    uint64_t values_raw;                /* of these, how many were stored as they are */
} kv_compress_stats;

/* A store whose values are packed on their way into `inner` and unpacked on their way out; keys stay
   as they are. It can do what inner can (kv_store_caps), also in several layers. kv_store_stats counts
   what inner holds: packed bytes. A batch is one batch of inner. View, scan and cursors unpack when the
   value is asked for; a callback may read the store. kv_set refuses values over size_max. A value that
   inner was given by somebody else is KV_ERR_CORRUPT here, or what else kv_decompress says.
   Open returns what kv_compressor_open does, and KV_ERR_INVALID without an inner store.
   Closing, also by kv_close, leaves inner open; inner must outlive the wrapper. */
KV_API kv_status      kv_compressed_open(kv_store *inner, const kv_compress_options *options, kv_compressed **c);
KV_API void           kv_compressed_close(kv_compressed *c);    /* NULL is fine */
KV_API kv_store      *kv_compressed_store(kv_compressed *c);
KV_API kv_store      *kv_compressed_inner(kv_compressed *c);
KV_API kv_codec       kv_compressed_codec(kv_compressed *c);    /* as resolved: never KV_CODEC_DEFAULT */
KV_API kv_compressor *kv_compressed_compressor(kv_compressed *c);
KV_API kv_status      kv_compressed_stats(kv_compressed *c, kv_compress_stats *stats);

#ifdef __cplusplus
}
#endif
#endif /* KV_COMPRESS_INCLUDED */

#if defined(KV_COMPRESS_IMPLEMENTATION) && !defined(KV_COMPRESS_IMPLEMENTED)
#define KV_COMPRESS_IMPLEMENTED 1

#if defined(KVI_COMPRESS_IMPLIED)
#define KVI_COMPRESS_DEFINE KVI_DEFINE_WEAK
#else
#define KVI_COMPRESS_DEFINE KVI_DEFINE
#endif

/* ------------------------------------------------------------------------------------------------
   >>config   the libraries, and the constants of this file                                        */

#if !defined(KV_NO_LZ4)
#include <lz4.h>
#include <lz4hc.h>
#define KVI_LZ4 1
#else
#define KVI_LZ4 0
#endif
#if !defined(KV_NO_ZSTD)
#ifndef ZSTD_STATIC_LINKING_ONLY
#define ZSTD_STATIC_LINKING_ONLY
#define KVI_ZSTD_STATIC_SET 1
#endif
#include <zdict.h>
#include <zstd.h>
#include <zstd_errors.h>
#ifdef KVI_ZSTD_STATIC_SET
#undef ZSTD_STATIC_LINKING_ONLY
#undef KVI_ZSTD_STATIC_SET
#endif
#define KVI_ZSTD 1
#else
#define KVI_ZSTD 0
#endif

#if KVI_THREADS
#define KVI_COMPRESS_CONTEXTS 64        /* kept at most; a call that finds all of them taken makes one for itself */
#else
#define KVI_COMPRESS_CONTEXTS 4         /* calls nest: a visit function may read the store */
#endif
#define KVI_COMPRESS_SIZE_MIN     ((size_t)64)
#define KVI_COMPRESS_ELEMENT_SIZE 4
#define KVI_COMPRESS_DICTIONARY_VALUE ((size_t)128 << 10)   /* bytes: a dictionary does nothing for larger values */
#define KVI_COMPRESS_PROBE_MAX    ((size_t)4096)            /* bytes: larger values are what the codecs skip through themselves */
#define KVI_COMPRESS_KEEP_BYTES   ((size_t)16 << 20)        /* scratch memory over this is given back after the call */
#define KVI_COMPRESS_ANSWERS      32                        /* values of a batch_get that are in memory at once */
#define KVI_LZ4_LEVEL_HC          3
#define KVI_LZ4_LEVEL_MAX         12
#define KVI_LZ4_LEVEL_MIN         (-65537)
#define KVI_LZ4_WINDOW            ((size_t)64 << 10)
#define KVI_LZ4_BEHIND            ((size_t)4096)            /* bytes: values to this size are unpacked behind a copy of the dictionary */
#define KVI_ZSTD_LEVEL_DEFAULT    3
#define KVI_ZSTD_SMALL            ((size_t)16 << 10)        /* bytes: up to here zstd's tables are small */

/* ------------------------------------------------------------------------------------------------
   >>format   a packed value, format 0

       packed    = tag [ raw-size ] payload checksum
       tag       = 1 byte: bit 7 is 0 (a later format sets it), bit 6 is set where a dictionary was
                   used, bits 5 and 4 are the codec (0 none, 1 LZ4, 2 zstd), bits 3 to 0 the filter:
                   0 none; 1, 2, 3 bytes shuffled by 2, 4, 8; 4, 5, 6, 7 bits shuffled by 1, 2, 4, 8;
                   8 bf16, 9 fp16, 10 fp32
       raw-size  = LEB128, as short as it can be; not there where the tag is 0
       payload   = tag 0: the value itself
                   filter 8 to 10: see >>floats; codec 0 goes with these alone, and LZ4 with all others
                   else LZ4: one block; zstd: one frame without its magic number; of the value, or of
                   the shuffled value (>>shuffle)
       checksum  = 4 bytes, little-endian: the low half of XXH3-64 of all bytes before it, with seed 0,
                   or seed XXH3-64(dictionary, 0) where bit 6 of the tag is set

   Every later format keeps tag and checksum where they are: a reader tells "newer" from "damaged".  */

#define KVI_PACKED_TAG_BYTES      ((size_t)1)
#define KVI_PACKED_CHECKSUM_BYTES ((size_t)4)
#define KVI_PACKED_STORED_BYTES   (KVI_PACKED_TAG_BYTES + KVI_PACKED_CHECKSUM_BYTES)
#define KVI_PACKED_NEWER          0x80u
#define KVI_PACKED_DICTIONARY     0x40u
#define KVI_PACKED_SIZE_BYTES     5         /* the longest raw-size: values end at 30 bits */

KVI_INLINE size_t kvi_packed_put_size(uint8_t *out, size_t n)
{
    size_t used = 0;
    for (; n >= 128; n >>= 7) out[used++] = (uint8_t)(n | 128);
    out[used++] = (uint8_t)n;
    return used;
}
KVI_INLINE size_t kvi_packed_size_bytes(size_t n)
{
    size_t used = 1;
    for (; n >= 128; n >>= 7) used++;
    return used;
}
/* Bytes read, or 0 for a number that is cut off, too long for its value, or over the limit of values. */
KVI_INLINE size_t kvi_packed_get_size(const uint8_t *in, size_t available, size_t *n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < available && i < KVI_PACKED_SIZE_BYTES; i++) {
        value |= (uint64_t)(in[i] & 127u) << (7 * i);
        if (in[i] & 128u) continue;
        if ((i && !in[i]) || value > KV_VALUE_SIZE_MAX) return 0;
        *n = (size_t)value;
        return i + 1;
    }
    return 0;
}

/* ------------------------------------------------------------------------------------------------
   >>huffman   bytes of a plane, entropy-coded: quick to read on any processor

   A canonical Huffman code of at most 11 bits (D. Huffman, 1952). What makes it quick: the reader's
   table gives up to four symbols for the next 11 bits, of exponents it is nearly always three or four;
   and the plane is cut into four segments with a stream each, which a processor reads side by side.
   The writer counts a quarter of the bytes, gives codes to what it saw and its neighbours, and starts
   over with exact counts where it comes across another byte; a plane whose bytes lie close together is
   written in pairs.

       coded     = first last lengths size1 size2 size3 stream1 stream2 stream3 stream4
       first, last = 1 byte each: the smallest and the largest byte of the plane; if they are the same,
                   nothing follows
       lengths   = for each byte from first to last 4 bits, the lower half of a byte first: its code's
                   length, 1 to 11, or 0: it does not occur. The code is complete: the sum of 2^-length is 1
       size1 ..  = 3 bytes each, little-endian: bytes of the first three streams; the last has the rest
       stream    = codes, least significant bit first, of n / 4 symbols each, the last also the
                   n modulo 4 that are left; filled up with 0 bits to a byte
   Codes are numbered by length, then by symbol, and written with their first bit lowest.          */

#define KVI_HUFFMAN_BITS    11u
#define KVI_HUFFMAN_TABLE   (1u << KVI_HUFFMAN_BITS)
#define KVI_HUFFMAN_STREAMS 4u
#define KVI_HUFFMAN_PAIRS   64u         /* up to so many different bytes are written in pairs */
#define KVI_HUFFMAN_MISSING (1u << 23)  /* in the writer's tables: no code */
#define KVI_HUFFMAN_SIZES   ((size_t)3 * (KVI_HUFFMAN_STREAMS - 1))

/* Both directions' tables; a context has one. */
typedef struct kvi_huffman {
    uint64_t table[KVI_HUFFMAN_TABLE];      /* reading: byte 0 the bits of up to four symbols, byte 1 how many they are, byte 2
                                               the bits of the first one; from bit 32 on the symbols */
    uint32_t pairs[KVI_HUFFMAN_PAIRS * KVI_HUFFMAN_PAIRS];      /* writing: code in bits 0-23, its bits in 24-31 */
    uint32_t codes[256];                    /* likewise, of one symbol */
    uint8_t  lengths[256];
} kvi_huffman;

/* Lengths of an optimal code for `count` weights, ascending, in place: from weight to length (A. Moffat,
   J. Katajainen, 1995). */
KVI_PRIVATE void kvi_huffman_optimal(uint32_t *weights, int count)
{
    int root = 0, leaf = 2, next, available = 1, used = 0, depth = 0;
    weights[0] += weights[1];
    for (next = 1; next < count - 1; next++) {          /* 1. join the two lightest; a parent's weight becomes a link */
        if (leaf >= count || weights[root] < weights[leaf]) { weights[next] = weights[root]; weights[root++] = (uint32_t)next; }
        else weights[next] = weights[leaf++];
        if (leaf >= count || (root < next && weights[root] < weights[leaf])) { weights[next] += weights[root]; weights[root++] = (uint32_t)next; }
        else weights[next] += weights[leaf++];
    }
    weights[count - 2] = 0;                             /* 2. links become depths of inner nodes */
    for (next = count - 3; next >= 0; next--) weights[next] = weights[weights[next]] + 1;
    for (root = count - 2, next = count - 1; available > 0; depth++) {      /* 3. and those the depths of leaves */
        while (root >= 0 && weights[root] == (uint32_t)depth) { used++; root--; }
        while (available > used) { weights[next--] = (uint32_t)depth; available--; }
        available = 2 * used;
        used = 0;
    }
}

/* From lengths (the longest first) to ones of at most KVI_HUFFMAN_BITS: too long ones are cut, and what
   that overdraws is given back by codes just below the limit. */
KVI_PRIVATE void kvi_huffman_limit(uint32_t *lengths, int count)
{
    uint32_t how_many[KVI_HUFFMAN_BITS + 1], sum = 0, length;
    int      at = 0;
    memset(how_many, 0, sizeof how_many);
    for (int i = 0; i < count; i++) how_many[lengths[i] < KVI_HUFFMAN_BITS ? lengths[i] : KVI_HUFFMAN_BITS]++;
    for (length = 1; length <= KVI_HUFFMAN_BITS; length++) sum += how_many[length] << (KVI_HUFFMAN_BITS - length);
    for (; sum > KVI_HUFFMAN_TABLE; sum--) {
        how_many[KVI_HUFFMAN_BITS]--;
        for (length = KVI_HUFFMAN_BITS - 1; !how_many[length]; length--) {}
        how_many[length]--;
        how_many[length + 1] += 2;
    }
    for (length = KVI_HUFFMAN_BITS; length; length--) for (uint32_t i = 0; i < how_many[length]; i++) lengths[at++] = length;
}

/* Lengths for the bytes whose weights are not 0, two of them at least. */
KVI_PRIVATE void kvi_huffman_lengths(kvi_huffman *h, const uint32_t *weights)
{
    uint32_t sorted[256], order[256];
    int      count = 0, at;
    sorted[0] = sorted[1] = 0;
    for (uint32_t symbol = 0; symbol < 256; symbol++) {
        if (!weights[symbol]) continue;
        for (at = count++; at && weights[order[at - 1]] > weights[symbol]; at--) order[at] = order[at - 1];
        order[at] = symbol;
    }
    for (at = 0; at < count; at++) sorted[at] = weights[order[at]];
    kvi_huffman_optimal(sorted, count);
    kvi_huffman_limit(sorted, count);
    memset(h->lengths, 0, sizeof h->lengths);
    for (at = 0; at < count; at++) h->lengths[order[at]] = (uint8_t)sorted[at];
}

/* The codes of the lengths; false where these are not the lengths of a complete code. */
KVI_PRIVATE bool kvi_huffman_codes(kvi_huffman *h, uint32_t first, uint32_t last)
{
    uint32_t code = 0, reversed;
    for (uint32_t symbol = first; symbol <= last; symbol++) h->codes[symbol] = KVI_HUFFMAN_MISSING;
    for (uint32_t length = 1; length <= KVI_HUFFMAN_BITS; length++, code <<= 1) {
        for (uint32_t symbol = first; symbol <= last; symbol++) {
            if (h->lengths[symbol] != length) continue;
            if (code >> length) return false;
            reversed = 0;
            for (uint32_t b = 0; b < length; b++) reversed |= (code >> b & 1) << (length - 1 - b);
            h->codes[symbol] = reversed | length << 24;
            code++;
        }
    }
    return code == 2u << KVI_HUFFMAN_BITS;          /* it was shifted once more than counted */
}

/* ---- writing ---- */

/* Weights of the bytes, 0 for those that get no code. Exact: all are counted. Else one of every four
   lines of 64 (not always the same one of the four, as tensors have a period), and neighbours of what
   was seen get a code too: at the ends of a distribution there is always one that the sample missed. */
#define KVI_HUFFMAN_NEIGHBOURS 4u
KVI_PRIVATE void kvi_huffman_count(const uint8_t *plane, size_t n, bool exact, uint32_t first, uint32_t last, uint32_t *weights)
{
    uint32_t counts[2][256];
    size_t   lines = exact ? 1 : 4;
    memset(counts, 0, sizeof counts);
    for (size_t line = 0; line * 64 < n; line += lines) {
        size_t i = (line + ((line >> 2) + (line >> 4)) % lines) * 64, end = i + 64 < n ? i + 64 : n;
        for (; i + 2 <= end; i += 2) { counts[0][plane[i]]++; counts[1][plane[i + 1]]++; }
        if (i < end) counts[0][plane[i]]++;
    }
    memset(weights, 0, 256 * sizeof *weights);
    for (uint32_t s = first; s <= last; s++) {
        uint32_t count = counts[0][s] + counts[1][s], from = s > first + KVI_HUFFMAN_NEIGHBOURS ? s - KVI_HUFFMAN_NEIGHBOURS : first;
        if (count) weights[s] = count * 16;
        for (uint32_t beside = from; !exact && count && beside <= last && beside <= s + KVI_HUFFMAN_NEIGHBOURS; beside++) if (!weights[beside]) weights[beside] = 1;
    }
    if (!exact && !weights[first]) weights[first] = 1;
    if (!exact && !weights[last]) weights[last] = 1;
}

/* A stream of n symbols into room bytes; 0: it does not fit. Each turn adds at most 55 bits to at most 7.
   *seen gets KVI_HUFFMAN_MISSING where a symbol without a code was met. */
KVI_PRIVATE size_t kvi_huffman_write(const kvi_huffman *h, const uint8_t *symbols, size_t n, bool pairs, uint32_t first, uint8_t *out, size_t room, uint32_t *seen)
{
    uint64_t bits = 0;
    uint32_t count = 0, a, b, met = 0;
    uint8_t *start = out, *end = out + room;
    size_t   i = 0;
    for (; pairs && i + 4 <= n; i += 4) {
        if ((size_t)(end - out) < 8) return 0;
        a = h->pairs[(uint32_t)(symbols[i] - first) + (uint32_t)(symbols[i + 1] - first) * KVI_HUFFMAN_PAIRS];
        b = h->pairs[(uint32_t)(symbols[i + 2] - first) + (uint32_t)(symbols[i + 3] - first) * KVI_HUFFMAN_PAIRS];
        met |= a | b;
        bits |= (uint64_t)(a & 0xFFFFFFu) << count;
        count += a >> 24;
        bits |= (uint64_t)(b & 0xFFFFFFu) << count;
        count += b >> 24;
        kvi_store_le64(out, bits);
        out += count >> 3;
        bits >>= count & ~7u;
        count &= 7;
    }
    for (; !pairs && i + 5 <= n; i += 5) {
        if ((size_t)(end - out) < 8) return 0;
        for (uint32_t k = 0; k < 5; k++) {
            a = h->codes[symbols[i + k]];
            met |= a;
            bits |= (uint64_t)(a & 0xFFFFFFu) << count;
            count += a >> 24;
        }
        kvi_store_le64(out, bits);
        out += count >> 3;
        bits >>= count & ~7u;
        count &= 7;
    }
    for (; i < n; i++) {
        a = h->codes[symbols[i]];
        met |= a;
        bits |= (uint64_t)(a & 0xFFFFFFu) << count;
        for (count += a >> 24; count >= 8; count -= 8, bits >>= 8) { if (out == end) return 0; *out++ = (uint8_t)bits; }
    }
    if (count) { if (out == end) return 0; *out++ = (uint8_t)bits; }
    *seen |= met;
    return (size_t)(out - start);
}

/* Codes of all pairs of bytes of a plane that has few of them. */
KVI_PRIVATE void kvi_huffman_fill_pairs(kvi_huffman *h, uint32_t first, uint32_t symbols)
{
    for (uint32_t b = 0; b < symbols; b++) {
        for (uint32_t a = 0; a < symbols; a++) {
            uint32_t x = h->codes[first + a], y = h->codes[first + b], pair = x + (y >> 24 << 24) + ((y & 0xFFFFFFu) << (x >> 24));
            h->pairs[a + b * KVI_HUFFMAN_PAIRS] = (x | y) & KVI_HUFFMAN_MISSING ? KVI_HUFFMAN_MISSING : pair;
        }
    }
}

/* One attempt at what kvi_huffman_pack does. *seen as in kvi_huffman_write. */
KVI_PRIVATE size_t kvi_huffman_try(kvi_huffman *h, const uint8_t *plane, size_t n, bool exact, uint32_t first, uint32_t last, uint8_t *out, size_t room, uint32_t *seen)
{
    uint32_t weights[256], symbols = last - first + 1;
    size_t   sizes = 2 + (symbols + 1) / 2, used = sizes + KVI_HUFFMAN_SIZES, part = n / KVI_HUFFMAN_STREAMS, wrote;
    bool     pairs = symbols <= KVI_HUFFMAN_PAIRS && n >= 16384;         /* below that the table costs more than it saves */
    if (room < used) return 0;
    kvi_huffman_count(plane, n, exact, first, last, weights);
    kvi_huffman_lengths(h, weights);
    (void)kvi_huffman_codes(h, first, last);
    if (pairs) kvi_huffman_fill_pairs(h, first, symbols);
    out[0] = (uint8_t)first;
    out[1] = (uint8_t)last;
    for (uint32_t s = 0; s < symbols; s += 2) out[2 + s / 2] = (uint8_t)(h->lengths[first + s] | (s + 1 < symbols ? (uint32_t)h->lengths[first + s + 1] << 4 : 0));
    for (uint32_t s = 0; s < KVI_HUFFMAN_STREAMS; s++) {
        bool   last_one = s == KVI_HUFFMAN_STREAMS - 1;
        size_t count = last_one ? n - s * part : part;
        wrote = kvi_huffman_write(h, plane + s * part, count, pairs, first, out + used, room - used, seen);
        if (*seen & KVI_HUFFMAN_MISSING || (!wrote && count)) return 0;
        used += wrote;
        if (!last_one) { kvi_store_le16(out + sizes + 3 * s, (uint16_t)wrote); out[sizes + 3 * s + 2] = (uint8_t)(wrote >> 16); }
    }
    return used;
}

/* A plane of n > 0 bytes into room bytes; 0: it does not fit. */
KVI_PRIVATE size_t kvi_huffman_pack(kvi_huffman *h, const uint8_t *plane, size_t n, uint8_t *out, size_t room)
{
    uint32_t seen = 0;
    size_t   used;
    uint8_t  first, last;
    if (room < 2) return 0;
    kvi_min_max(plane, n, &first, &last);
    if (first == last) { out[0] = out[1] = first; return 2; }
    used = kvi_huffman_try(h, plane, n, n < 4096, first, last, out, room, &seen);
    if (!(seen & KVI_HUFFMAN_MISSING)) return used;
    seen = 0;
    return kvi_huffman_try(h, plane, n, true, first, last, out, room, &seen);
}

/* ---- reading ---- */

/* What each 11 bits begin with: as many whole codes as fit, up to four. */
KVI_PRIVATE void kvi_huffman_fill(kvi_huffman *h, uint32_t first, uint32_t last)
{
    uint16_t one[KVI_HUFFMAN_TABLE];        /* symbol, and its length above it */
    for (uint32_t symbol = first; symbol <= last; symbol++) {
        uint32_t length = h->lengths[symbol];
        if (!length) continue;
        for (uint32_t at = h->codes[symbol] & 0xFFFFFFu; at < KVI_HUFFMAN_TABLE; at += 1u << length) one[at] = (uint16_t)(symbol | length << 8);
    }
    for (uint32_t at = 0; at < KVI_HUFFMAN_TABLE; at++) {
        uint32_t bits = (uint32_t)one[at] >> 8, count = 1, next;
        uint64_t entry = (uint64_t)(one[at] & 255u) << 32 | (uint64_t)bits << 16;
        for (; count < 4; count++) {
            next = one[at >> bits];
            if (bits + (next >> 8) > KVI_HUFFMAN_BITS) break;
            entry |= (uint64_t)(next & 255u) << (32 + 8 * count);
            bits += next >> 8;
        }
        h->table[at] = entry | (uint64_t)count << 8 | bits;
    }
}

typedef struct kvi_huffman_stream { const uint8_t *in; size_t size; uint64_t at; uint8_t *out, *end; } kvi_huffman_stream;     /* at: in bits */

/* May a stream take KVI_HUFFMAN_STEPS steps without looking? They read 8 bytes, of which at most 7 + 55
   bits are used, and write 20. */
#define KVI_HUFFMAN_STEPS 5
KVI_INLINE bool kvi_huffman_wide(const kvi_huffman_stream *s) { return (size_t)(s->end - s->out) >= 4 * KVI_HUFFMAN_STEPS && (s->at >> 3) + 8 <= s->size; }
KVI_INLINE uint64_t kvi_huffman_window(const kvi_huffman_stream *s) { return kvi_load_le64(s->in + (s->at >> 3)) >> (s->at & 7); }
KVI_INLINE void kvi_huffman_step(const uint64_t *table, kvi_huffman_stream *s, uint64_t *bits)
{
    uint64_t entry = table[*bits & (KVI_HUFFMAN_TABLE - 1)];
    *bits >>= entry & 63;
    s->at += entry & 255;
    kvi_store_le32(s->out, (uint32_t)(entry >> 32));
    s->out += entry >> 8 & 255;
}

/* All four streams side by side while each of them may; returns with the rest to do. */
KVI_PRIVATE void kvi_huffman_read_wide(const kvi_huffman *h, kvi_huffman_stream *streams)
{
    kvi_huffman_stream a = streams[0], b = streams[1], c = streams[2], d = streams[3];
    const uint64_t    *table = h->table;
    while (kvi_huffman_wide(&a) && kvi_huffman_wide(&b) && kvi_huffman_wide(&c) && kvi_huffman_wide(&d)) {
        uint64_t w = kvi_huffman_window(&a), x = kvi_huffman_window(&b), y = kvi_huffman_window(&c), z = kvi_huffman_window(&d);
        for (uint32_t k = 0; k < KVI_HUFFMAN_STEPS; k++) {
            kvi_huffman_step(table, &a, &w);
            kvi_huffman_step(table, &b, &x);
            kvi_huffman_step(table, &c, &y);
            kvi_huffman_step(table, &d, &z);
        }
    }
    streams[0] = a; streams[1] = b; streams[2] = c; streams[3] = d;
}

/* The rest of one stream, symbol by symbol at the end; false where it ends too early or too late. */
KVI_PRIVATE bool kvi_huffman_read_rest(const kvi_huffman *h, kvi_huffman_stream *s)
{
    uint64_t entry, bits;
    while (kvi_huffman_wide(s)) {
        bits = kvi_huffman_window(s);
        for (uint32_t k = 0; k < KVI_HUFFMAN_STEPS; k++) kvi_huffman_step(h->table, s, &bits);
    }
    while (s->out < s->end) {
        size_t from = (size_t)(s->at >> 3);
        bits = 0;
        for (uint32_t k = 0; k < 3 && from + k < s->size; k++) bits |= (uint64_t)s->in[from + k] << (8 * k);
        entry = h->table[bits >> (s->at & 7) & (KVI_HUFFMAN_TABLE - 1)];
        *s->out++ = (uint8_t)(entry >> 32);
        s->at += entry >> 16 & 255;
    }
    return (s->at + 7) >> 3 == s->size;
}

/* n > 0 bytes of a plane out of all of `coded`. */
KVI_PRIVATE kv_status kvi_huffman_unpack(kvi_huffman *h, kv_slice coded, uint8_t *plane, size_t n)
{
    const uint8_t     *in = (const uint8_t *)coded.data;
    kvi_huffman_stream streams[KVI_HUFFMAN_STREAMS];
    size_t             used = 2, header, part = n / KVI_HUFFMAN_STREAMS, left;
    uint32_t           first, last;
    if (coded.size < 2 || in[0] > in[1]) return KV_ERR_CORRUPT;
    first = in[0];
    last = in[1];
    if (first == last) { memset(plane, (int)first, n); return coded.size == used ? KV_OK : KV_ERR_CORRUPT; }
    header = used + (last - first + 2) / 2 + KVI_HUFFMAN_SIZES;
    if (coded.size < header) return KV_ERR_CORRUPT;
    memset(h->lengths, 0, sizeof h->lengths);
    for (uint32_t s = 0; s <= last - first; s++) h->lengths[first + s] = (uint8_t)(in[used + s / 2] >> (s & 1) * 4 & 15);
    for (uint32_t s = first; s <= last; s++) if (h->lengths[s] > KVI_HUFFMAN_BITS) return KV_ERR_CORRUPT;
    if (!kvi_huffman_codes(h, first, last)) return KV_ERR_CORRUPT;
    kvi_huffman_fill(h, first, last);
    left = coded.size - header;
    used = header;
    for (uint32_t s = 0; s < KVI_HUFFMAN_STREAMS; s++) {
        const uint8_t *size = in + header - KVI_HUFFMAN_SIZES + 3 * s;
        bool           last_one = s == KVI_HUFFMAN_STREAMS - 1;
        streams[s].size = last_one ? left : (size_t)kvi_load_le16(size) | (size_t)size[2] << 16;
        if (streams[s].size > left) return KV_ERR_CORRUPT;
        streams[s].in = in + used;
        streams[s].at = 0;
        streams[s].out = plane + s * part;
        streams[s].end = last_one ? plane + n : streams[s].out + part;
        used += streams[s].size;
        left -= streams[s].size;
    }
    kvi_huffman_read_wide(h, streams);
    for (uint32_t s = 0; s < KVI_HUFFMAN_STREAMS; s++) if (!kvi_huffman_read_rest(h, &streams[s])) return KV_ERR_CORRUPT;
    return KV_OK;
}

/* ------------------------------------------------------------------------------------------------
   >>contexts   what one call works with, and the pool of them

   A call starts looking at the place that its stack address points to, so that a thread finds the
   context that it had before, and threads that run side by side start at different ones. It takes the
   first place whose lock is free; an empty place gets a context then. Nobody ever waits: if all places
   are taken the call makes a context that lives as long as itself (waiting would deadlock where the
   waiter holds a lock of the store inside).
   Invariant C1: a context is used by whoever holds its place's lock, and by nobody else. Its counters
   may be read at any time.                                                                        */

typedef struct kvi_compress_context {
#if KVI_LZ4
    LZ4_stream_t lz4;                   /* begun anew for each value: what came before must not show in the bytes */
    void        *lz4_hc;
    uint8_t     *lz4_behind;            /* the dictionary, and room behind it (kvi_lz4_unpack_behind) */
#endif
#if KVI_ZSTD
    ZSTD_CCtx   *zstd[2];               /* with the compressor's level, for small and for large values: one for both
                                           would be shrunk and grown again by zstd, every 128 values */
    bool         zstd_has_dictionary[2];
    ZSTD_DCtx   *zstd_reader;
#endif
    kvi_huffman *huffman;               /* tables of dense floats */
    kv_buf       filtered;              /* between filter and codec */
    kv_buf       packed, raw;           /* values on their way through the wrapper */
    kv_buf       pairs;                 /* kv_pair of a batch */
    kv_buf       answers[KVI_COMPRESS_ANSWERS];
    KVI_ALIGN_64 kv_compress_stats stats;
    uint32_t     place;                 /* KVI_COMPRESS_CONTEXTS: none, it lives for one call */
} kvi_compress_context;

typedef struct kvi_compress_place {
    void                 *context;      /* kvi_compress_context; written once, under the lock */
    uint32_t              lock;
    char                  padding[64 - sizeof(void *) - sizeof(uint32_t)];     /* a cache line each */
} kvi_compress_place;

struct kv_compressor {
    kv_compress_options options;        /* resolved; the dictionary is our copy */
    uint64_t            dictionary_hash;
#if KVI_LZ4
    LZ4_stream_t       *lz4_dictionary; /* streams that have it loaded, to be copied */
    void               *lz4_hc_dictionary;
#endif
#if KVI_ZSTD
    const ZSTD_CDict   *zstd_dictionary;
    const ZSTD_DDict   *zstd_reader_dictionary;
    void               *zstd_memory, *zstd_reader_memory;
    size_t              zstd_memory_size, zstd_reader_memory_size;
#endif
    KVI_ALIGN_64 kv_compress_stats past; /* of contexts that are gone */
    kvi_error           error;
    kvi_compress_place  places[KVI_COMPRESS_CONTEXTS];
};

KVI_PRIVATE kv_status kvi_compress_error(kv_compressor *c, kv_status s, const char *what) { return kvi_error_set(&c->error, s, what); }

#if KVI_LZ4
/* What LZ4 can reach of a dictionary: its end. */
KVI_INLINE size_t kvi_lz4_window(const kv_compressor *c) { return c->options.dictionary.size < KVI_LZ4_WINDOW ? c->options.dictionary.size : KVI_LZ4_WINDOW; }
#endif

KVI_PRIVATE void kvi_compress_context_free(kv_compressor *c, kvi_compress_context *x)
{
    const kv_allocator *a = &c->options.allocator;
#if KVI_LZ4
    kvi_free(a, x->lz4_hc, (size_t)LZ4_sizeofStateHC());
    kvi_free(a, x->lz4_behind, kvi_lz4_window(c) + KVI_LZ4_BEHIND);
#endif
#if KVI_ZSTD
    ZSTD_freeCCtx(x->zstd[0]);
    ZSTD_freeCCtx(x->zstd[1]);
    ZSTD_freeDCtx(x->zstd_reader);
#endif
    kvi_free(a, x->huffman, sizeof *x->huffman);
    kv_buf_free(&x->filtered);
    kv_buf_free(&x->packed);
    kv_buf_free(&x->raw);
    kv_buf_free(&x->pairs);
    for (uint32_t i = 0; i < KVI_COMPRESS_ANSWERS; i++) kv_buf_free(&x->answers[i]);
    kvi_free(a, x, sizeof *x);
}

KVI_NOINLINE kvi_compress_context *kvi_compress_context_new(kv_compressor *c, uint32_t place)
{
    kvi_compress_context *x = (kvi_compress_context *)kvi_alloc_zero(&c->options.allocator, sizeof *x);
    if (!x) return NULL;
    x->place = place;
    x->filtered.allocator = x->packed.allocator = x->raw.allocator = x->pairs.allocator = c->options.allocator;
    for (uint32_t i = 0; i < KVI_COMPRESS_ANSWERS; i++) x->answers[i].allocator = c->options.allocator;
    return x;
}

KVI_INLINE uint32_t kvi_compress_first_place(void)
{
#if KVI_THREADS
    char here;      /* stacks of threads lie at least 128 KiB apart */
    return (uint32_t)(kvi_mix64((uint64_t)((uintptr_t)&here >> 17)) % KVI_COMPRESS_CONTEXTS);
#else
    return 0;
#endif
}

/* NULL: no memory. */
KVI_PRIVATE kvi_compress_context *kvi_compress_acquire(kv_compressor *c)
{
    uint32_t first = kvi_compress_first_place();
    for (uint32_t i = 0; i < KVI_COMPRESS_CONTEXTS; i++) {
        uint32_t              number = (first + i) % KVI_COMPRESS_CONTEXTS;
        kvi_compress_place   *p = &c->places[number];
        kvi_compress_context *x;
        if (!kvi_spin_try(&p->lock)) continue;
        x = (kvi_compress_context *)kvi_peek_ptr(&p->context);
        if (KVI_LIKELY(x != NULL)) return x;
        x = kvi_compress_context_new(c, number);
        if (x) kvi_store_ptr(&p->context, x); else kvi_spin_unlock(&p->lock);
        return x;
    }
    return kvi_compress_context_new(c, KVI_COMPRESS_CONTEXTS);
}

KVI_PRIVATE void kvi_compress_trim(kv_buf *b) { if (b->capacity > KVI_COMPRESS_KEEP_BYTES) kv_buf_free(b); }

KVI_PRIVATE void kvi_compress_release(kv_compressor *c, kvi_compress_context *x)
{
    kvi_compress_trim(&x->filtered);
    kvi_compress_trim(&x->packed);
    kvi_compress_trim(&x->raw);
    if (x->place < KVI_COMPRESS_CONTEXTS) { kvi_spin_unlock(&c->places[x->place].lock); return; }
    (void)kvi_add_u64(&c->past.raw_bytes, x->stats.raw_bytes);
    (void)kvi_add_u64(&c->past.packed_bytes, x->stats.packed_bytes);
    (void)kvi_add_u64(&c->past.values, x->stats.values);
    (void)kvi_add_u64(&c->past.values_raw, x->stats.values_raw);
    kvi_compress_context_free(c, x);
}

/* ------------------------------------------------------------------------------------------------
   >>lz4   blocks. Each function returns the bytes written, 0 where it did not work out            */

#if KVI_LZ4
KVI_INLINE int kvi_lz4_int(size_t n) { return n > LZ4_MAX_INPUT_SIZE ? LZ4_MAX_INPUT_SIZE : (int)n; }

KVI_PRIVATE size_t kvi_lz4_pack_hc(kv_compressor *c, kvi_compress_context *x, kv_slice raw, uint8_t *out, size_t capacity, bool dictionary, kv_status *s)
{
    size_t state_bytes = (size_t)LZ4_sizeofStateHC();
    int    wrote;
    if (!x->lz4_hc) x->lz4_hc = kvi_alloc(&c->options.allocator, state_bytes);
    if (!x->lz4_hc) { *s = KV_ERR_NO_MEMORY; return 0; }
    if (dictionary) {
        memcpy(x->lz4_hc, c->lz4_hc_dictionary, state_bytes);
        wrote = LZ4_compress_HC_continue((LZ4_streamHC_t *)x->lz4_hc, (const char *)raw.data, (char *)out, (int)raw.size, kvi_lz4_int(capacity));
    } else wrote = LZ4_compress_HC_extStateHC(x->lz4_hc, (const char *)raw.data, (char *)out, (int)raw.size, kvi_lz4_int(capacity), c->options.level);
    return wrote > 0 ? (size_t)wrote : 0;
}

KVI_PRIVATE size_t kvi_lz4_pack(kv_compressor *c, kvi_compress_context *x, kv_slice raw, uint8_t *out, size_t capacity, bool dictionary, kv_status *s)
{
    bool own = c->options.codec == KV_CODEC_LZ4;        /* else the level is another codec's, and LZ4 is only asked for an estimate */
    int  acceleration = own && c->options.level < 0 ? -c->options.level : 1, wrote;
    if (own && c->options.level >= KVI_LZ4_LEVEL_HC) return kvi_lz4_pack_hc(c, x, raw, out, capacity, dictionary, s);
    if (dictionary) {
        memcpy(&x->lz4, c->lz4_dictionary, sizeof x->lz4);
        wrote = LZ4_compress_fast_continue(&x->lz4, (const char *)raw.data, (char *)out, (int)raw.size, kvi_lz4_int(capacity), acceleration);
    } else wrote = LZ4_compress_fast_extState(&x->lz4, (const char *)raw.data, (char *)out, (int)raw.size, kvi_lz4_int(capacity), acceleration);
    return wrote > 0 ? (size_t)wrote : 0;
}

/* With the dictionary right before what is written, a match is one copy, wherever it begins: small
   values take 0.6 of the time so, copying them from there included. */
KVI_PRIVATE kv_status kvi_lz4_unpack_behind(const kv_compressor *c, const kvi_compress_context *x, kv_slice packed, uint8_t *out, size_t raw_size)
{
    size_t   window = kvi_lz4_window(c);
    uint8_t *to = x->lz4_behind + window;
    int      got = LZ4_decompress_safe_usingDict((const char *)packed.data, (char *)to, (int)packed.size, (int)raw_size, (const char *)x->lz4_behind, (int)window);
    if (got < 0 || (size_t)got != raw_size) return KV_ERR_CORRUPT;
    memcpy(out, to, raw_size);
    return KV_OK;
}
/* No memory for it: it goes without. */
KVI_NOINLINE void kvi_lz4_new_behind(const kv_compressor *c, kvi_compress_context *x)
{
    size_t window = kvi_lz4_window(c);
    x->lz4_behind = (uint8_t *)kvi_alloc(&c->options.allocator, window + KVI_LZ4_BEHIND);
    if (x->lz4_behind) memcpy(x->lz4_behind, (const uint8_t *)c->options.dictionary.data + (c->options.dictionary.size - window), window);
}

/* x may be NULL. */
KVI_PRIVATE kv_status kvi_lz4_unpack(const kv_compressor *c, kvi_compress_context *x, kv_slice packed, uint8_t *out, size_t raw_size, bool dictionary)
{
    int got;
    if (packed.size > LZ4_MAX_INPUT_SIZE || raw_size > LZ4_MAX_INPUT_SIZE) return KV_ERR_CORRUPT;
    if (dictionary && x && raw_size <= KVI_LZ4_BEHIND) {
        if (KVI_UNLIKELY(!x->lz4_behind)) kvi_lz4_new_behind(c, x);
        if (KVI_LIKELY(x->lz4_behind != NULL)) return kvi_lz4_unpack_behind(c, x, packed, out, raw_size);
    }
    got = dictionary ? LZ4_decompress_safe_usingDict((const char *)packed.data, (char *)out, (int)packed.size, (int)raw_size,
                                                     (const char *)c->options.dictionary.data, kvi_lz4_int(c->options.dictionary.size))
                     : LZ4_decompress_safe((const char *)packed.data, (char *)out, (int)packed.size, (int)raw_size);
    return got >= 0 && (size_t)got == raw_size ? KV_OK : KV_ERR_CORRUPT;
}

/* A stream with the dictionary loaded, whose copy is where packing a value starts: loading takes ten
   times as long as packing. */
KVI_PRIVATE kv_status kvi_lz4_open_dictionary(kv_compressor *c)
{
    kv_slice        d = c->options.dictionary;
    LZ4_streamHC_t *hc;
    c->lz4_dictionary = (LZ4_stream_t *)kvi_alloc(&c->options.allocator, sizeof *c->lz4_dictionary);
    if (!c->lz4_dictionary) return KV_ERR_NO_MEMORY;
    LZ4_initStream(c->lz4_dictionary, sizeof *c->lz4_dictionary);
    LZ4_loadDict(c->lz4_dictionary, (const char *)d.data, kvi_lz4_int(d.size));
    if (c->options.codec != KV_CODEC_LZ4 || c->options.level < KVI_LZ4_LEVEL_HC) return KV_OK;
    c->lz4_hc_dictionary = kvi_alloc(&c->options.allocator, (size_t)LZ4_sizeofStateHC());
    if (!c->lz4_hc_dictionary) return KV_ERR_NO_MEMORY;
    hc = LZ4_initStreamHC(c->lz4_hc_dictionary, (size_t)LZ4_sizeofStateHC());
    LZ4_resetStreamHC_fast(hc, c->options.level);
    LZ4_loadDictHC(hc, (const char *)d.data, kvi_lz4_int(d.size));
    return KV_OK;
}
KVI_PRIVATE void kvi_lz4_close_dictionary(kv_compressor *c)
{
    kvi_free(&c->options.allocator, c->lz4_dictionary, sizeof *c->lz4_dictionary);
    kvi_free(&c->options.allocator, c->lz4_hc_dictionary, (size_t)LZ4_sizeofStateHC());
}
#endif

/* ------------------------------------------------------------------------------------------------
   >>zstd   frames without magic number, content size, checksum and dictionary number, all of which
   are known here. Its memory comes from our allocator, each block behind its size.                */

#if KVI_ZSTD
#define KVI_ZSTD_BLOCK_HEADER ((size_t)16)      /* keeps the alignment */

KVI_PRIVATE void *kvi_zstd_alloc(void *opaque, size_t size)
{
    kv_compressor *c = (kv_compressor *)opaque;
    uint8_t       *block = size <= SIZE_MAX - KVI_ZSTD_BLOCK_HEADER ? (uint8_t *)kvi_alloc(&c->options.allocator, size + KVI_ZSTD_BLOCK_HEADER) : NULL;
    if (!block) return NULL;
    size += KVI_ZSTD_BLOCK_HEADER;
    memcpy(block, &size, sizeof size);
    return block + KVI_ZSTD_BLOCK_HEADER;
}
KVI_PRIVATE void kvi_zstd_free(void *opaque, void *memory)
{
    kv_compressor *c = (kv_compressor *)opaque;
    uint8_t       *block;
    size_t         size;
    if (!memory) return;
    block = (uint8_t *)memory - KVI_ZSTD_BLOCK_HEADER;
    memcpy(&size, block, sizeof size);
    kvi_free(&c->options.allocator, block, size);
}
KVI_PRIVATE ZSTD_customMem kvi_zstd_memory(kv_compressor *c)
{
    ZSTD_customMem m;
    m.customAlloc = kvi_zstd_alloc;
    m.customFree = kvi_zstd_free;
    m.opaque = c;
    return m;
}

KVI_PRIVATE ZSTD_CCtx *kvi_zstd_new_writer(kv_compressor *c, int level)
{
    ZSTD_CCtx *z = ZSTD_createCCtx_advanced(kvi_zstd_memory(c));
    if (!z) return NULL;
    ZSTD_CCtx_setParameter(z, ZSTD_c_format, ZSTD_f_zstd1_magicless);
    ZSTD_CCtx_setParameter(z, ZSTD_c_contentSizeFlag, 0);
    ZSTD_CCtx_setParameter(z, ZSTD_c_dictIDFlag, 0);
    ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, level);
    return z;
}

/* What zstd wrote; 0 where it did not fit, and where there was no memory (*s says that). */
KVI_INLINE size_t kvi_zstd_wrote(size_t result, kv_status *s)
{
    if (!ZSTD_isError(result)) return result;
    if (ZSTD_getErrorCode(result) == ZSTD_error_memory_allocation) *s = KV_ERR_NO_MEMORY;
    return 0;
}
KVI_PRIVATE size_t kvi_zstd_pack(kv_compressor *c, kvi_compress_context *x, kv_slice raw, uint8_t *out, size_t capacity, bool dictionary, kv_status *s)
{
    bool        large = raw.size > KVI_ZSTD_SMALL;
    ZSTD_CCtx **z = &x->zstd[large];
    if (!*z) {
        *z = kvi_zstd_new_writer(c, c->options.level);
        if (!*z) { *s = KV_ERR_NO_MEMORY; return 0; }
    }
    if (c->zstd_dictionary && x->zstd_has_dictionary[large] != dictionary) {
        ZSTD_CCtx_refCDict(*z, dictionary ? c->zstd_dictionary : NULL);
        x->zstd_has_dictionary[large] = dictionary;
    }
    return kvi_zstd_wrote(ZSTD_compress2(*z, out, capacity, raw.data, raw.size), s);
}

KVI_PRIVATE kv_status kvi_zstd_unpack(kv_compressor *c, kvi_compress_context *x, kv_slice packed, uint8_t *out, size_t raw_size, bool dictionary)
{
    size_t got;
    if (!x->zstd_reader) {
        x->zstd_reader = ZSTD_createDCtx_advanced(kvi_zstd_memory(c));
        if (!x->zstd_reader) return KV_ERR_NO_MEMORY;
        ZSTD_DCtx_setParameter(x->zstd_reader, ZSTD_d_format, ZSTD_f_zstd1_magicless);
    }
    got = dictionary ? ZSTD_decompress_usingDDict(x->zstd_reader, out, raw_size, packed.data, packed.size, c->zstd_reader_dictionary)
                     : ZSTD_decompressDCtx(x->zstd_reader, out, raw_size, packed.data, packed.size);
    return !ZSTD_isError(got) && got == raw_size ? KV_OK : KV_ERR_CORRUPT;
}

/* Digested once, in memory of ours (libzstd 1.5.4 crashes when an allocator refuses it a CDict's). They
   refer to our copy of the dictionary. zstd says NULL to one that begins as its own and goes on as none. */
KVI_PRIVATE kv_status kvi_zstd_open_dictionary(kv_compressor *c)
{
    kv_slice               d = c->options.dictionary;
    ZSTD_compressionParameters how = ZSTD_getCParams(c->options.codec == KV_CODEC_ZSTD ? c->options.level : 0, 0, d.size);
    c->zstd_reader_memory_size = ZSTD_estimateDDictSize(d.size, ZSTD_dlm_byRef);
    c->zstd_reader_memory = kvi_alloc(&c->options.allocator, c->zstd_reader_memory_size);
    if (!c->zstd_reader_memory) return KV_ERR_NO_MEMORY;
    c->zstd_reader_dictionary = ZSTD_initStaticDDict(c->zstd_reader_memory, c->zstd_reader_memory_size, d.data, d.size, ZSTD_dlm_byRef, ZSTD_dct_auto);
    if (!c->zstd_reader_dictionary) return KV_ERR_INVALID;
    if (c->options.codec != KV_CODEC_ZSTD) return KV_OK;
    c->zstd_memory_size = ZSTD_estimateCDictSize_advanced(d.size, how, ZSTD_dlm_byRef);
    c->zstd_memory = kvi_alloc(&c->options.allocator, c->zstd_memory_size);
    if (!c->zstd_memory) return KV_ERR_NO_MEMORY;
    c->zstd_dictionary = ZSTD_initStaticCDict(c->zstd_memory, c->zstd_memory_size, d.data, d.size, ZSTD_dlm_byRef, ZSTD_dct_auto, how);
    return c->zstd_dictionary ? KV_OK : KV_ERR_INVALID;
}
KVI_PRIVATE void kvi_zstd_close_dictionary(kv_compressor *c)
{
    kvi_free(&c->options.allocator, c->zstd_memory, c->zstd_memory_size);
    kvi_free(&c->options.allocator, c->zstd_reader_memory, c->zstd_reader_memory_size);
}
#endif

/* ------------------------------------------------------------------------------------------------
   >>codec   the one or the other                                                                  */

KVI_COMPRESS_DEFINE const char *kv_codec_name(kv_codec codec)
{
    switch (codec) {
    case KV_CODEC_NONE:    return "none";
    case KV_CODEC_DEFAULT:
    case KV_CODEC_LZ4:     return "lz4";
    case KV_CODEC_ZSTD:    return "zstd";
    default:               return "unknown";
    }
}

KVI_COMPRESS_DEFINE bool kv_codec_supported(kv_codec codec)
{
    switch (codec) {
    case KV_CODEC_NONE:    return true;
    case KV_CODEC_DEFAULT:
    case KV_CODEC_LZ4:     return KVI_LZ4 != 0;
    case KV_CODEC_ZSTD:    return KVI_ZSTD != 0;
    default:               return false;
    }
}

KVI_COMPRESS_DEFINE size_t kv_codec_bound(kv_codec codec, size_t raw_size)
{
    if (raw_size > KV_VALUE_SIZE_MAX || !kv_codec_supported(codec)) return 0;
#if KVI_LZ4
    if (codec == KV_CODEC_LZ4 || codec == KV_CODEC_DEFAULT) return (size_t)LZ4_compressBound((int)raw_size);
#endif
#if KVI_ZSTD
    if (codec == KV_CODEC_ZSTD) return ZSTD_compressBound(raw_size);
#endif
    return raw_size;
}

/* Bytes written to out, or 0: it does not fit, or no memory (*s says that). raw is not empty. */
KVI_PRIVATE size_t kvi_codec_pack(kv_compressor *c, kvi_compress_context *x, kv_codec codec, kv_slice raw,
                                  uint8_t *out, size_t capacity, bool dictionary, kv_status *s)
{
    (void)c; (void)x; (void)raw; (void)out; (void)capacity; (void)dictionary; (void)codec; (void)s;
#if KVI_LZ4
    if (codec == KV_CODEC_LZ4) return kvi_lz4_pack(c, x, raw, out, capacity, dictionary, s);
#endif
#if KVI_ZSTD
    if (codec == KV_CODEC_ZSTD) return kvi_zstd_pack(c, x, raw, out, capacity, dictionary, s);
#endif
    return 0;
}

KVI_PRIVATE kv_status kvi_codec_unpack(kv_compressor *c, kvi_compress_context *x, kv_codec codec, kv_slice packed,
                                       uint8_t *out, size_t raw_size, bool dictionary)
{
    (void)c; (void)x; (void)codec; (void)packed; (void)out; (void)raw_size; (void)dictionary;
#if KVI_LZ4
    if (codec == KV_CODEC_LZ4) return kvi_lz4_unpack(c, x, packed, out, raw_size, dictionary);
#endif
#if KVI_ZSTD
    if (codec == KV_CODEC_ZSTD) return kvi_zstd_unpack(c, x, packed, out, raw_size, dictionary);
#endif
    return KV_ERR_UNSUPPORTED;
}

/* Why a codec cannot be used, in words. */
KVI_PRIVATE const char *kvi_codec_missing(kv_codec codec)
{
    if (codec == KV_CODEC_LZ4 || codec == KV_CODEC_DEFAULT) return "codec lz4 is not compiled in (KV_NO_LZ4)";
    if (codec == KV_CODEC_ZSTD) return "codec zstd is not compiled in (KV_NO_ZSTD)";
    return "there is no such codec";
}

/* ------------------------------------------------------------------------------------------------
   >>floats   arrays of bf16, fp16 and fp32 numbers

   Of such a number the exponent can be predicted, more or less: neighbours are of a size. Sign and
   mantissa are noise. So the exponents are packed and the rest is stored, plane by plane. Numbers that
   are left over at the end (raw-size modulo the size of one) come last, as they are.

   Fast, without a codec: seven exponents in a row, chosen by sampling, have codes of three bits, the
   eighth code says that the exponent stands among the escapes (kv_simd.h, >>filters).

       fast      = { chunk of 65,536 numbers, the last of as many as are left } remainder
       chunk     = base flags escape-count planes codes escapes
       base      = 1 byte: the exponent of code 0
       flags     = 1 byte: bit 0, 1: fp32's low, middle byte is 0 everywhere and not there; bit 7: the
                   chunk is stored: `planes` are the numbers, nothing follows
       escape-count = 2 bytes, little-endian
       planes    = bf16: rest; fp16: low, rows of rest; fp32: rest, middle, low
       codes     = rows
       rows      = for each 64 numbers three times 64 bits; of the last group as many bytes as it takes

   Dense, where the codec is zstd: the plane of exponents is Huffman-coded, and zstd itself has no part
   in it: there is nothing to find for a search.

       dense     = { chunk of 262,144 numbers, the last of as many as are left } remainder
       chunk     = flags planes [ size ] exponents
       flags     = as above; bit 7: the exponents are stored, and have no size
       planes    = as above
       size      = LEB128, bytes of the coded exponents
       exponents = coded (>>huffman)                                                                 */

#define KVI_FLOAT_CHUNK        ((size_t)65536)
#define KVI_FLOAT_DENSE_CHUNK  ((size_t)262144)     /* numbers that share a Huffman code */
#define KVI_FLOAT_DENSE_MIN    ((size_t)2048)       /* bytes; in smaller values the code's lengths take more than it saves */
#define KVI_FLOAT_CHUNKS       16                   /* unpacked from the last to the first */
#define KVI_FLOAT_STRIP        ((size_t)512)        /* numbers that go through the first cache at a time */
#define KVI_FLOAT_HEADER       ((size_t)4)
#define KVI_FLOAT_SAMPLES      16                   /* groups of so many numbers choose a chunk's base */
#define KVI_FLOAT_SAMPLE       ((size_t)32)
#define KVI_FLOAT_NO_LOW       1u
#define KVI_FLOAT_NO_MIDDLE    2u
#define KVI_FLOAT_STORED       0x80u

KVI_INLINE bool kvi_filter_is_float(kv_filter f) { return f >= KV_FILTER_BF16 && f <= KV_FILTER_FP32; }
KVI_INLINE size_t kvi_float_size(kv_filter f) { return f == KV_FILTER_FP32 ? 4 : 2; }
KVI_INLINE size_t kvi_float_rows(size_t n) { return n / KVI_GROUP * KVI_GROUP_BYTES + (n % KVI_GROUP + 7) / 8 * 3; }

/* Where a chunk's planes are, in packed bytes. A plane that is not there is NULL. */
typedef struct kvi_float_planes { uint8_t *rest, *middle, *low, *rest_rows, *end; } kvi_float_planes;
KVI_PRIVATE kvi_float_planes kvi_float_planes_at(kv_filter f, uint32_t flags, size_t n, uint8_t *at)
{
    kvi_float_planes p;
    memset(&p, 0, sizeof p);
    if (f == KV_FILTER_FP16) {
        p.low = at; at += n;
        p.rest_rows = at; at += kvi_float_rows(n);
    } else {
        p.rest = at; at += n;
        if (f == KV_FILTER_FP32 && !(flags & KVI_FLOAT_NO_MIDDLE)) { p.middle = at; at += n; }
        if (f == KV_FILTER_FP32 && !(flags & KVI_FLOAT_NO_LOW)) { p.low = at; at += n; }
    }
    p.end = at;
    return p;
}
KVI_INLINE size_t kvi_float_planes_size(kv_filter f, uint32_t flags, size_t n)
{
    if (f == KV_FILTER_FP16) return n + kvi_float_rows(n);
    if (f == KV_FILTER_BF16) return n;
    return n * (3u - (flags & KVI_FLOAT_NO_LOW ? 1u : 0u) - (flags & KVI_FLOAT_NO_MIDDLE ? 1u : 0u));
}

/* Which planes of fp32 are 0 everywhere. The first numbers settle it, nearly always. */
KVI_PRIVATE uint32_t kvi_float_flags(kv_filter f, const uint8_t *raw, size_t n)
{
    uint8_t seen[4] = { 0, 0, 0, 0 };
    uint32_t any = 0, number;
    if (f != KV_FILTER_FP32) return 0;
    for (size_t at = 0; at < n && !(seen[0] && seen[1]); at += KVI_FLOAT_STRIP) {
        size_t end = n - at < KVI_FLOAT_STRIP ? n : at + KVI_FLOAT_STRIP;
        for (size_t i = at; i < end; i++) { memcpy(&number, raw + 4 * i, sizeof number); any |= number; }
        memcpy(seen, &any, sizeof seen);            /* as in memory: the low byte first */
    }
    return (seen[0] ? 0 : KVI_FLOAT_NO_LOW) | (seen[1] ? 0 : KVI_FLOAT_NO_MIDDLE);
}

/* Scratch for one strip: what the planes of packed bytes do not take. */
typedef struct kvi_float_strip {
    uint8_t exponents[512], rest[512], unused[512], zeros[512], escapes[512 + 64];
} kvi_float_strip;

KVI_PRIVATE void kvi_float_split(kv_filter f, const uint8_t *from, size_t n, const kvi_float_planes *p, size_t at, kvi_float_strip *t)
{
    if (f == KV_FILTER_BF16) kvi_bf16_split(from, n, t->exponents, p->rest + at);
    else if (f == KV_FILTER_FP16) kvi_fp16_split(from, n, t->exponents, t->rest, p->low + at);
    else kvi_fp32_split(from, n, t->exponents, p->rest + at, p->middle ? p->middle + at : t->unused, p->low ? p->low + at : t->unused);
}
KVI_PRIVATE void kvi_float_join(kv_filter f, const uint8_t *exponents, const kvi_float_planes *p, size_t at, kvi_float_strip *t, size_t n, uint8_t *to)
{
    if (f == KV_FILTER_BF16) kvi_bf16_join(exponents, p->rest + at, n, to);
    else if (f == KV_FILTER_FP16) kvi_fp16_join(exponents, t->rest, p->low + at, n, to);
    else kvi_fp32_join(exponents, p->rest + at, p->middle ? p->middle + at : t->zeros, p->low ? p->low + at : t->zeros, n, to);
}

/* ---- fast ---- */

/* How often each exponent occurs in a sample of n numbers: groups from places without a pattern, as a
   tensor has one channel every so many numbers. The first counts stand once more behind the last one. */
typedef struct kvi_float_counts { uint16_t of[256 + KVI_ESCAPE]; uint32_t total; } kvi_float_counts;
KVI_PRIVATE void kvi_float_count(kv_filter f, const uint8_t *raw, size_t n, kvi_float_counts *counts)
{
    kvi_float_strip  t;
    kvi_float_planes p;
    uint16_t odd[256];
    bool     all = n < KVI_FLOAT_SAMPLES * KVI_FLOAT_SAMPLE;
    uint32_t groups = all ? 1 : KVI_FLOAT_SAMPLES;
    size_t   each = all ? n : KVI_FLOAT_SAMPLE, at;
    memset(counts, 0, sizeof *counts);
    memset(odd, 0, sizeof odd);
    memset(&p, 0, sizeof p);
    p.rest = p.middle = p.low = t.unused;
    for (uint32_t g = 0; g < groups; g++) {
        at = (size_t)((uint64_t)(n - each) * (g * UINT32_C(0x9E3779B1) >> 16) >> 16);
        kvi_float_split(f, raw + at * kvi_float_size(f), each, &p, 0, &t);
        for (size_t i = 0; i + 2 <= each; i += 2) { counts->of[t.exponents[i]]++; odd[t.exponents[i + 1]]++; }
        if (each & 1) counts->of[t.exponents[each - 1]]++;
    }
    for (uint32_t i = 0; i < 256; i++) counts->of[i] = (uint16_t)(counts->of[i] + odd[i]);
    memcpy(counts->of + 256, counts->of, KVI_ESCAPE * sizeof counts->of[0]);
    counts->total = groups * (uint32_t)each;
}

/* The exponent that begins the seven in a row that are most frequent; *inside: how often they are. */
KVI_PRIVATE uint8_t kvi_float_base(const kvi_float_counts *counts, uint32_t *inside)
{
    uint32_t sum = 0, best = 0;
    *inside = 0;
    for (uint32_t i = 0; i < KVI_ESCAPE; i++) sum += counts->of[i];
    for (uint32_t i = 0; i < 256; i++) {
        if (sum > *inside) { *inside = sum; best = i; }
        sum += (uint32_t)counts->of[i + KVI_ESCAPE] - counts->of[i];
    }
    return (uint8_t)best;
}

/* The group at the end of a chunk, of fewer than 64: whole rows on one side, cut ones on the other. */
KVI_PRIVATE void kvi_float_cut_rows(const uint8_t *whole, size_t n, uint8_t *rows)
{
    size_t bytes = (n + 7) / 8;
    for (uint32_t b = 0; b < 3; b++) memcpy(rows + b * bytes, whole + 8 * b, bytes);
}
KVI_PRIVATE void kvi_float_whole_rows(const uint8_t *rows, size_t n, uint8_t *whole)
{
    size_t   bytes = (n + 7) / 8;
    uint64_t row, inside = (UINT64_C(1) << n) - 1;
    for (uint32_t b = 0; b < 3; b++) {
        row = 0;
        for (size_t i = 0; i < bytes; i++) row |= (uint64_t)rows[b * bytes + i] << (8 * i);
        kvi_store_le64(whole + 8 * b, row & inside);
    }
}

/* Exponents of a strip, with room for whole groups, into rows and escapes; returns how many of these. */
KVI_PRIVATE size_t kvi_float_pack_exponents(uint8_t *exponents, size_t n, uint8_t base, uint8_t *rows, uint8_t *escapes)
{
    uint8_t whole[KVI_GROUP_BYTES];
    size_t  escaped = 0, i = 0;
    for (; i + KVI_GROUP <= n; i += KVI_GROUP, rows += KVI_GROUP_BYTES) escaped += kvi_exponents_pack(exponents + i, base, rows, escapes + escaped);
    if (i == n) return escaped;
    memset(exponents + n, base, i + KVI_GROUP - n);
    escaped += kvi_exponents_pack(exponents + i, base, whole, escapes + escaped);
    kvi_float_cut_rows(whole, n - i, rows);
    return escaped;
}
/* fp16's sign and upper bits of mantissa; `rest` has room for whole groups. */
KVI_PRIVATE void kvi_float_pack_rest(uint8_t *rest, size_t n, uint8_t *rows)
{
    uint8_t whole[KVI_GROUP_BYTES];
    size_t  i = 0;
    for (; i + KVI_GROUP <= n; i += KVI_GROUP, rows += KVI_GROUP_BYTES) kvi_pack3(rest + i, rows);
    if (i == n) return;
    memset(rest + n, 0, i + KVI_GROUP - n);
    kvi_pack3(rest + i, whole);
    kvi_float_cut_rows(whole, n - i, rows);
}

/* A strip of n numbers, which is number `at` of its chunk on; returns how many escapes there are. Their
   place has room for KVI_FLOAT_ESCAPES. */
#define KVI_FLOAT_ESCAPES (KVI_FLOAT_STRIP + 64)
KVI_PRIVATE size_t kvi_float_pack_strip(kv_filter f, const uint8_t *from, size_t n, uint8_t base, const kvi_float_planes *p, size_t at, kvi_float_strip *t, uint8_t *escapes)
{
    uint8_t *rows = p->end + kvi_float_rows(at);
#ifdef KVI_GALOIS
    if (n % KVI_GROUP == 0 && f == KV_FILTER_BF16) return kvi_bf16_pack_groups(from, n, base, p->rest + at, rows, escapes);
    if (n % KVI_GROUP == 0 && f == KV_FILTER_FP16) return kvi_fp16_pack_groups(from, n, base, p->low + at, p->rest_rows + kvi_float_rows(at), rows, escapes);
#endif
    kvi_float_split(f, from, n, p, at, t);
    if (f == KV_FILTER_FP16) kvi_float_pack_rest(t->rest, n, p->rest_rows + kvi_float_rows(at));
    return kvi_float_pack_exponents(t->exponents, n, base, rows, escapes);
}

/* One chunk of n numbers into room bytes; 0: it does not fit. */
KVI_PRIVATE size_t kvi_float_pack_chunk(kv_filter f, const uint8_t *raw, size_t n, uint8_t *out, size_t room)
{
    kvi_float_strip  t;
    kvi_float_planes p;
    kvi_float_counts counts;
    uint32_t flags = kvi_float_flags(f, raw, n), inside;
    uint8_t  base, *escapes;
    size_t   fixed = KVI_FLOAT_HEADER + kvi_float_planes_size(f, flags, n) + kvi_float_rows(n), escape_count = 0, more;
    if (fixed > room) return 0;
    kvi_float_count(f, raw, n, &counts);
    base = kvi_float_base(&counts, &inside);
    p = kvi_float_planes_at(f, flags, n, out + KVI_FLOAT_HEADER);
    escapes = p.end + kvi_float_rows(n);
    for (size_t at = 0; at < n; at += KVI_FLOAT_STRIP) {
        size_t strip = n - at < KVI_FLOAT_STRIP ? n - at : KVI_FLOAT_STRIP;
        bool   beside = room - fixed - escape_count < KVI_FLOAT_ESCAPES;
        more = kvi_float_pack_strip(f, raw + at * kvi_float_size(f), strip, base, &p, at, &t, beside ? t.escapes : escapes + escape_count);
        if (more > room - fixed - escape_count || escape_count + more > UINT16_MAX) return 0;
        if (beside) kvi_copy(escapes + escape_count, t.escapes, more);
        escape_count += more;
    }
    out[0] = base;
    out[1] = (uint8_t)flags;
    kvi_store_le16(out + 2, (uint16_t)escape_count);
    return fixed + escape_count;
}

/* Bytes written, or 0: it does not get smaller than room. */
KVI_PRIVATE size_t kvi_float_pack(kv_filter f, kv_slice value, uint8_t *out, size_t room)
{
    const uint8_t *raw = (const uint8_t *)value.data;
    size_t         size = kvi_float_size(f), left = value.size / size, used = 0, n, bytes, limit;
    for (; left; left -= n, raw += n * size, used += bytes) {
        n = left < KVI_FLOAT_CHUNK ? left : KVI_FLOAT_CHUNK;
        limit = room - used < n * size + KVI_FLOAT_HEADER ? room - used : n * size + KVI_FLOAT_HEADER;
        bytes = kvi_float_pack_chunk(f, raw, n, out + used, limit);
        if (bytes) continue;
        bytes = n * size + KVI_FLOAT_HEADER;
        if (bytes > room - used) return 0;
        memset(out + used, 0, KVI_FLOAT_HEADER);
        out[used + 1] = KVI_FLOAT_STORED;
        memcpy(out + used + KVI_FLOAT_HEADER, raw, n * size);
    }
    if (value.size % size > room - used) return 0;
    kvi_copy(out + used, raw, value.size % size);
    return used + value.size % size;
}

/* Exponents of a strip out of rows. Returns the escapes that they took; KV_NONE: more than there are. */
KVI_PRIVATE size_t kvi_float_unpack_exponents(const uint8_t *rows, size_t n, uint8_t base, const uint8_t *escapes, size_t available, uint8_t *exponents)
{
    uint8_t whole[KVI_GROUP_BYTES], padded[KVI_GROUP];
    size_t  used = 0, more;
    for (size_t i = 0; i < n; i += KVI_GROUP, rows += KVI_GROUP_BYTES) {
        bool last = n - i < KVI_GROUP;
        if (last) { kvi_float_whole_rows(rows, n - i, whole); rows = whole; }
        more = kvi_bit_count64(kvi_exponents_escapes(rows));
        if (more > available - used) return KV_NONE;
        kvi_exponents_unpack(rows, base, escapes + used, last ? padded : exponents + i);
        used += more;
        if (last) { memcpy(exponents + i, padded, n - i); break; }
    }
    return used;
}
KVI_PRIVATE void kvi_float_unpack_rest(const uint8_t *rows, size_t n, uint8_t *rest)
{
    uint8_t whole[KVI_GROUP_BYTES];
    size_t  i = 0;
    for (; i + KVI_GROUP <= n; i += KVI_GROUP, rows += KVI_GROUP_BYTES) kvi_unpack3(rows, rest + i);
    if (i == n) return;
    kvi_float_whole_rows(rows, n - i, whole);
    kvi_unpack3(whole, rest + i);       /* which has room for whole groups */
}

/* A strip, as above. Returns the escapes that it took; KV_NONE: more than there are. */
KVI_PRIVATE size_t kvi_float_unpack_strip(kv_filter f, const kvi_float_planes *p, size_t at, size_t n, uint8_t base, const uint8_t *escapes, size_t available, kvi_float_strip *t, uint8_t *raw)
{
    const uint8_t *rows = p->end + kvi_float_rows(at);
    size_t         used;
#ifdef KVI_GALOIS
    if (n % KVI_GROUP == 0 && f == KV_FILTER_BF16) return kvi_bf16_unpack_groups(p->rest + at, rows, n, base, escapes, available, raw);
    if (n % KVI_GROUP == 0 && f == KV_FILTER_FP16) return kvi_fp16_unpack_groups(p->low + at, p->rest_rows + kvi_float_rows(at), rows, n, base, escapes, available, raw);
#endif
    if (f == KV_FILTER_FP16) kvi_float_unpack_rest(p->rest_rows + kvi_float_rows(at), n, t->rest);
    used = kvi_float_unpack_exponents(rows, n, base, escapes, available, t->exponents);
    if (used != KV_NONE) kvi_float_join(f, t->exponents, p, at, t, n, raw);
    return used;
}

/* The bytes that a chunk of n numbers takes; 0: they are none. */
KVI_PRIVATE size_t kvi_float_chunk_size(kv_filter f, const uint8_t *in, size_t available, size_t n)
{
    size_t size;
    if (available < KVI_FLOAT_HEADER) return 0;
    if (in[1] & KVI_FLOAT_STORED) size = KVI_FLOAT_HEADER + n * kvi_float_size(f);
    else size = KVI_FLOAT_HEADER + kvi_float_planes_size(f, in[1], n) + kvi_float_rows(n) + kvi_load_le16(in + 2);
    return size <= available ? size : 0;
}
KVI_PRIVATE bool kvi_float_unpack_chunk(kv_filter f, const uint8_t *in, size_t n, uint8_t *raw)
{
    kvi_float_strip  t;
    kvi_float_planes p;
    const uint8_t   *escapes;
    size_t           escape_count = kvi_load_le16(in + 2), used = 0, more;
    if (in[1] & KVI_FLOAT_STORED) {
        memcpy(raw, in + KVI_FLOAT_HEADER, n * kvi_float_size(f));
        return true;
    }
    p = kvi_float_planes_at(f, in[1], n, (uint8_t *)(uintptr_t)in + KVI_FLOAT_HEADER);
    escapes = p.end + kvi_float_rows(n);
    memset(t.zeros, 0, sizeof t.zeros);
    for (size_t at = 0; at < n; at += KVI_FLOAT_STRIP) {
        size_t strip = n - at < KVI_FLOAT_STRIP ? n - at : KVI_FLOAT_STRIP;
        more = kvi_float_unpack_strip(f, &p, at, strip, in[0], escapes + used, escape_count - used, &t, raw + at * kvi_float_size(f));
        if (more == KV_NONE) return false;
        used += more;
    }
    return used == escape_count;
}

/* Chunks are found from the first to the last, and unpacked from the last to the first: what the
   checksum has read last is still in the second cache. */
KVI_PRIVATE kv_status kvi_float_unpack(kv_filter f, kv_slice packed, uint8_t *raw, size_t raw_size)
{
    const uint8_t *in = (const uint8_t *)packed.data, *chunks[KVI_FLOAT_CHUNKS];
    size_t         size = kvi_float_size(f), left = raw_size / size, available = packed.size, count, n, bytes;
    while (left) {
        for (count = n = 0; count < KVI_FLOAT_CHUNKS && n < left; count++, in += bytes, available -= bytes) {
            size_t numbers = left - n < KVI_FLOAT_CHUNK ? left - n : KVI_FLOAT_CHUNK;
            bytes = kvi_float_chunk_size(f, in, available, numbers);
            if (!bytes) return KV_ERR_CORRUPT;
            chunks[count] = in;
            n += numbers;
        }
        for (size_t last = n; count--; last = count * KVI_FLOAT_CHUNK)
            if (!kvi_float_unpack_chunk(f, chunks[count], last - count * KVI_FLOAT_CHUNK, raw + count * KVI_FLOAT_CHUNK * size)) return KV_ERR_CORRUPT;
        raw += n * size;
        left -= n;
    }
    if (available != raw_size % size) return KV_ERR_CORRUPT;
    kvi_copy(raw, in, available);
    return KV_OK;
}

/* ---- dense ---- */

/* `rest`: fp16's goes on from there into rows; for fp32 a plane that nobody wants, or one of zeros. */
KVI_PRIVATE void kvi_float_split_dense(kv_filter f, const uint8_t *raw, size_t n, const kvi_float_planes *p, uint8_t *exponents, uint8_t *rest)
{
    if (f == KV_FILTER_BF16) kvi_bf16_split(raw, n, exponents, p->rest);
    else if (f == KV_FILTER_FP32) kvi_fp32_split(raw, n, exponents, p->rest, p->middle ? p->middle : rest, p->low ? p->low : rest);
    else for (size_t at = 0; at < n; at += KVI_FLOAT_STRIP) {
        size_t strip = n - at < KVI_FLOAT_STRIP ? n - at : KVI_FLOAT_STRIP;
        kvi_fp16_split(raw + 2 * at, strip, exponents + at, rest, p->low + at);
        kvi_float_pack_rest(rest, strip, p->rest_rows + kvi_float_rows(at));
    }
}
KVI_PRIVATE void kvi_float_join_dense(kv_filter f, const uint8_t *exponents, const kvi_float_planes *p, uint8_t *rest, size_t n, uint8_t *raw)
{
    if (f == KV_FILTER_BF16) kvi_bf16_join(exponents, p->rest, n, raw);
    else if (f == KV_FILTER_FP32) {
        if (!p->middle || !p->low) memset(rest, 0, n);
        kvi_fp32_join(exponents, p->rest, p->middle ? p->middle : rest, p->low ? p->low : rest, n, raw);
    } else for (size_t at = 0; at < n; at += KVI_FLOAT_STRIP) {
        size_t strip = n - at < KVI_FLOAT_STRIP ? n - at : KVI_FLOAT_STRIP;
        kvi_float_unpack_rest(p->rest_rows + kvi_float_rows(at), strip, rest);
        kvi_fp16_join(exponents + at, rest, p->low + at, strip, raw + 2 * at);
    }
}

/* Scratch for chunks of n: exponents, the `rest` above, and Huffman's tables. */
KVI_PRIVATE kv_status kvi_float_dense_scratch(kv_compressor *c, kvi_compress_context *x, size_t numbers)
{
    size_t    n = numbers < KVI_FLOAT_DENSE_CHUNK ? numbers : KVI_FLOAT_DENSE_CHUNK;
    kv_status s = kv_buf_reserve(&x->filtered, 2 * n + KVI_FLOAT_STRIP);
    if (s == KV_OK && !x->huffman) x->huffman = (kvi_huffman *)kvi_alloc(&c->options.allocator, sizeof *x->huffman);
    return s == KV_OK && !x->huffman ? KV_ERR_NO_MEMORY : s;
}

/* One chunk; 0: it does not fit. */
KVI_PRIVATE size_t kvi_float_dense_chunk(kvi_compress_context *x, kv_filter f, const uint8_t *raw, size_t n, uint8_t *out, size_t room)
{
    uint32_t         flags = kvi_float_flags(f, raw, n);
    size_t           fixed = 1 + kvi_float_planes_size(f, flags, n), wrote, size_bytes = kvi_packed_size_bytes(n);
    uint8_t         *scratch = (uint8_t *)x->filtered.data;
    kvi_float_planes p;
    if (fixed + size_bytes > room) return 0;
    p = kvi_float_planes_at(f, flags, n, out + 1);
    kvi_float_split_dense(f, raw, n, &p, scratch, scratch + n);
    wrote = kvi_huffman_pack(x->huffman, scratch, n, p.end + size_bytes, room - fixed - size_bytes);
    if (!wrote || wrote + size_bytes >= n) {
        if (fixed + n > room) return 0;
        out[0] = (uint8_t)(flags | KVI_FLOAT_STORED);
        memcpy(p.end, scratch, n);
        return fixed + n;
    }
    out[0] = (uint8_t)flags;
    if (kvi_packed_size_bytes(wrote) < size_bytes) memmove(p.end + kvi_packed_size_bytes(wrote), p.end + size_bytes, wrote);
    return fixed + kvi_packed_put_size(p.end, wrote) + wrote;
}

KVI_PRIVATE size_t kvi_float_dense(kv_compressor *c, kvi_compress_context *x, kv_filter f, kv_slice value, uint8_t *out, size_t room, kv_status *s)
{
    const uint8_t *raw = (const uint8_t *)value.data;
    size_t         size = kvi_float_size(f), left = value.size / size, used = 0, n, bytes;
    *s = kvi_float_dense_scratch(c, x, left);
    if (*s < 0) return 0;
    for (; left; left -= n, raw += n * size, used += bytes) {
        n = left < KVI_FLOAT_DENSE_CHUNK ? left : KVI_FLOAT_DENSE_CHUNK;
        bytes = kvi_float_dense_chunk(x, f, raw, n, out + used, room - used);
        if (!bytes) return 0;
    }
    if (value.size % size > room - used) return 0;
    kvi_copy(out + used, raw, value.size % size);
    return used + value.size % size;
}

/* One chunk of n numbers; its bytes go to *used. */
KVI_PRIVATE kv_status kvi_float_undense_chunk(kvi_compress_context *x, kv_filter f, kv_slice in, size_t n, uint8_t *raw, size_t *used)
{
    uint8_t         *b = (uint8_t *)(uintptr_t)in.data, *scratch = (uint8_t *)x->filtered.data;
    const uint8_t   *exponents = scratch;
    size_t           fixed, coded, size_bytes;
    kvi_float_planes p;
    if (!in.size) return KV_ERR_CORRUPT;
    fixed = 1 + kvi_float_planes_size(f, b[0], n);
    if (fixed > in.size) return KV_ERR_CORRUPT;
    p = kvi_float_planes_at(f, b[0], n, b + 1);
    if (b[0] & KVI_FLOAT_STORED) {
        if (in.size - fixed < n) return KV_ERR_CORRUPT;
        exponents = p.end;
        *used = fixed + n;
    } else {
        size_bytes = kvi_packed_get_size(p.end, in.size - fixed, &coded);
        if (!size_bytes || coded > in.size - fixed - size_bytes) return KV_ERR_CORRUPT;
        if (kvi_huffman_unpack(x->huffman, kv_bytes(p.end + size_bytes, coded), scratch, n) < 0) return KV_ERR_CORRUPT;
        *used = fixed + size_bytes + coded;
    }
    kvi_float_join_dense(f, exponents, &p, scratch + n, n, raw);
    return KV_OK;
}

KVI_PRIVATE kv_status kvi_float_undense(kv_compressor *c, kvi_compress_context *x, kv_filter f, kv_slice packed, uint8_t *raw, size_t raw_size)
{
    const uint8_t *in = (const uint8_t *)packed.data;
    size_t         size = kvi_float_size(f), left = raw_size / size, available = packed.size, used = 0, n;
    kv_status      s = kvi_float_dense_scratch(c, x, left);
    if (s < 0) return s;
    for (; left; left -= n, raw += n * size, in += used, available -= used) {
        n = left < KVI_FLOAT_DENSE_CHUNK ? left : KVI_FLOAT_DENSE_CHUNK;
        s = kvi_float_undense_chunk(x, f, kv_bytes(in, available), n, raw, &used);
        if (s < 0) return s;
    }
    if (available != raw_size % size) return KV_ERR_CORRUPT;
    kvi_copy(raw, in, available);
    return KV_OK;
}

/* ------------------------------------------------------------------------------------------------
   >>shuffle   bytes and bits by significance, of a whole value; what does not fill an element (eight
   elements, for bits) follows as it is                                                            */

KVI_PRIVATE kv_status kvi_shuffle_value(kvi_compress_context *x, kv_filter f, uint32_t element_size, kv_slice value, kv_slice *shuffled)
{
    const uint8_t *raw = (const uint8_t *)value.data;
    size_t         count = value.size / element_size, whole;
    bool           bits = f == KV_FILTER_BITSHUFFLE;
    uint8_t       *to, *planes;
    kv_status      s;
    if (bits) count -= count % 8;
    whole = count * element_size;
    s = kv_buf_reserve(&x->filtered, bits && element_size > 1 ? value.size + whole : value.size);
    if (s < 0) return s;
    to = (uint8_t *)x->filtered.data;
    planes = bits && element_size > 1 ? to + value.size : to;
    if (element_size > 1) kvi_shuffle(raw, planes, count, element_size);
    for (uint32_t b = 0; bits && b < element_size; b++) kvi_bit_rows(element_size > 1 ? planes + b * count : raw, to + b * count, count);
    kvi_copy(to + whole, raw + whole, value.size - whole);
    *shuffled = kv_bytes(to, value.size);
    return KV_OK;
}

/* From `shuffled` to raw; `planes` is scratch of as many bytes. */
KVI_PRIVATE void kvi_unshuffle_value(kv_filter f, uint32_t element_size, const uint8_t *shuffled, uint8_t *planes, size_t raw_size, uint8_t *raw)
{
    size_t count = raw_size / element_size, whole;
    bool   bits = f == KV_FILTER_BITSHUFFLE;
    if (bits) count -= count % 8;
    whole = count * element_size;
    for (uint32_t b = 0; bits && b < element_size; b++) kvi_bit_bytes(shuffled + b * count, (element_size > 1 ? planes : raw) + b * count, count);
    if (element_size > 1) kvi_unshuffle(bits ? planes : shuffled, raw, count, element_size);
    kvi_copy(raw + whole, shuffled + whole, raw_size - whole);
}

/* ------------------------------------------------------------------------------------------------
   >>auto   KV_FILTER_AUTO: what the filters would make of a sample of the value

   The sample for the codec is one piece of 4 KiB from the middle. Exponents are counted all over the
   value. A filter must beat none by 2 %.                                                          */

#define KVI_AUTO_SAMPLE  ((size_t)4096)
#define KVI_AUTO_MIN     ((size_t)512)      /* bytes; below it a filter is not worth the sampling */

typedef struct kvi_auto { kv_filter filter; uint32_t element_size; uint64_t cost; } kvi_auto;    /* cost: bits of a MiB of such data */

KVI_PRIVATE void kvi_auto_consider(kvi_auto *best, kv_filter filter, uint32_t element_size, uint64_t cost)
{
    if (cost >= best->cost) return;
    best->filter = filter;
    best->element_size = element_size;
    best->cost = cost;
}

/* log2 in 256ths, good to a hundredth; of 0 it is 0 */
KVI_PRIVATE uint32_t kvi_auto_log2(uint32_t n)
{
    uint32_t whole, fraction;
    if (!n) return 0;
    whole = kvi_highest_bit32(n);
    fraction = (uint32_t)(((uint64_t)n << 8 >> whole) & 255);
    return (whole << 8) + fraction + (fraction * (256 - fraction) * 88 >> 16);
}
/* What an entropy coder takes for one of the counted, in 256ths of a bit. */
KVI_PRIVATE uint64_t kvi_auto_entropy(const uint16_t *counts, uint32_t total)
{
    uint64_t bits = (uint64_t)total * kvi_auto_log2(total), less = 0;
    for (uint32_t i = 0; i < 256; i++) less += (uint64_t)counts[i] * kvi_auto_log2(counts[i]);
    return total && bits > less ? (bits - less) / total : 0;
}

KVI_PRIVATE uint64_t kvi_auto_float_cost(kv_filter f, kv_slice raw, bool dense)
{
    kvi_float_counts counts;
    size_t           size = kvi_float_size(f), n = raw.size / size;
    uint64_t         bits;      /* of one number, in 256ths */
    uint32_t         inside;
    kvi_float_count(f, (const uint8_t *)raw.data, n, &counts);
    (void)kvi_float_base(&counts, &inside);
    bits = dense ? kvi_auto_entropy(counts.of, counts.total) : 3 * 256 + (uint64_t)(counts.total - inside) * 8 * 256 / counts.total;
    if (f == KV_FILTER_FP32) bits += (uint64_t)kvi_float_planes_size(f, kvi_float_flags(f, (const uint8_t *)raw.data, n < 4096 ? n : 4096), 1) * 8 * 256;
    else bits += (f == KV_FILTER_FP16 ? 11u : 8u) * 256u;
    return bits * (((uint64_t)1 << 20) / size) / 256;
}

/* The sample through a shuffle and the codec. */
KVI_PRIVATE uint64_t kvi_auto_codec_cost(kv_compressor *c, kvi_compress_context *x, kv_codec codec, kv_filter f, uint32_t element_size, kv_slice sample, kv_status *s)
{
    uint8_t out[4096];
    size_t  wrote, size = sample.size;
    if (f != KV_FILTER_NONE) *s = kvi_shuffle_value(x, f, element_size, sample, &sample);
    wrote = *s < 0 ? 0 : kvi_codec_pack(c, x, codec, sample, out, size, false, s);
    return (uint64_t)(wrote ? wrote : size) * ((uint64_t)8 << 20) / size;
}

/* The best size of element for a shuffle, by the quicker codec that there is. */
KVI_PRIVATE uint32_t kvi_auto_element_size(kv_compressor *c, kvi_compress_context *x, kv_slice sample, kv_status *s)
{
    kv_codec quick = kv_codec_supported(KV_CODEC_LZ4) ? KV_CODEC_LZ4 : c->options.codec;
    uint64_t best_cost = UINT64_MAX, cost;
    uint32_t best = 2;
    if (c->options.element_size) return c->options.element_size;
    for (uint32_t size = 2; size <= 8; size *= 2) {
        cost = kvi_auto_codec_cost(c, x, quick, KV_FILTER_SHUFFLE, size, sample, s);
        if (cost < best_cost) { best_cost = cost; best = size; }
    }
    return best;
}

KVI_PRIVATE kv_status kvi_auto_choose(kv_compressor *c, kvi_compress_context *x, kv_slice raw, kvi_auto *best)
{
    size_t    size = raw.size < KVI_AUTO_SAMPLE ? raw.size : KVI_AUTO_SAMPLE;
    kv_slice  sample = kv_bytes((const uint8_t *)raw.data + (raw.size - size) / 2 / 8 * 8, size);
    kv_codec  codec = c->options.codec;
    bool      dense = codec == KV_CODEC_ZSTD;
    uint32_t  element_size = c->options.element_size;
    uint64_t  none = (uint64_t)8 << 20;
    kv_status s = KV_OK;
    best->filter = KV_FILTER_NONE;
    best->element_size = 1;
    if (codec != KV_CODEC_NONE) none = kvi_auto_codec_cost(c, x, codec, KV_FILTER_NONE, 1, sample, &s);
    best->cost = none - none / 50;
    if (!element_size || element_size == 2) {
        kvi_auto_consider(best, KV_FILTER_BF16, 2, kvi_auto_float_cost(KV_FILTER_BF16, raw, dense));
        kvi_auto_consider(best, KV_FILTER_FP16, 2, kvi_auto_float_cost(KV_FILTER_FP16, raw, dense));
    }
    if (!element_size || element_size == 4) kvi_auto_consider(best, KV_FILTER_FP32, 4, kvi_auto_float_cost(KV_FILTER_FP32, raw, dense));
    if (codec == KV_CODEC_NONE || s < 0) return s;
    element_size = kvi_auto_element_size(c, x, sample, &s);
    if (kvi_filter_is_float(best->filter)) best->cost -= best->cost / 64;      /* they are several times as quick */
    if (element_size > 1) kvi_auto_consider(best, KV_FILTER_SHUFFLE, element_size, kvi_auto_codec_cost(c, x, codec, KV_FILTER_SHUFFLE, element_size, sample, &s));
    if (!dense) kvi_auto_consider(best, KV_FILTER_BITSHUFFLE, element_size, kvi_auto_codec_cost(c, x, codec, KV_FILTER_BITSHUFFLE, element_size, sample, &s));
    return s;
}

/* ------------------------------------------------------------------------------------------------
   >>pack   a value on its way in

   1. choose codec and filter: too small, or looks random: none of either
   2. let them try, with no more room than makes it worth while
   3. they did not: store the value
   The checksum comes last, over everything.                                                       */

/* Would a codec have a chance? 48 bytes, an odd distance apart so that every byte of a number gets its
   turn, are looked at: among 48 random ones 44 are different, give or take 2; base64 has 34, JSON 22. A
   block of noise that occurs twice is taken for random, too; that is the price. */
#define KVI_COMPRESS_PROBES        48
#define KVI_COMPRESS_PROBES_RANDOM 40
KVI_PRIVATE bool kvi_compress_looks_random(kv_slice raw)
{
    const uint8_t *bytes = (const uint8_t *)raw.data;
    size_t         step = (raw.size / KVI_COMPRESS_PROBES - 1) | 1;
    uint8_t        seen[256];
    uint32_t       different = 0;
    memset(seen, 0, sizeof seen);
    if (raw.size < 2 * KVI_COMPRESS_PROBES) step = 1;
    for (uint32_t i = 0; i < KVI_COMPRESS_PROBES; i++, bytes += step) {
        different += 1u - seen[*bytes];
        seen[*bytes] = 1;
    }
    return different >= KVI_COMPRESS_PROBES_RANDOM;
}

KVI_INLINE void kvi_packed_seal(uint8_t *packed, size_t size, uint64_t seed)
{
    kvi_store_le32(packed + size, kvi_checksum(packed, size, seed));
}
KVI_PRIVATE size_t kvi_pack_stored(kv_slice raw, uint8_t *out)
{
    out[0] = 0;
    kvi_copy(out + KVI_PACKED_TAG_BYTES, raw.data, raw.size);
    kvi_packed_seal(out, raw.size + KVI_PACKED_TAG_BYTES, 0);
    return raw.size + KVI_PACKED_STORED_BYTES;
}

/* The largest payload that pays: packing saves at least a 64th. */
KVI_INLINE size_t kvi_pack_room(size_t raw_size) { return raw_size - raw_size / 64 - kvi_packed_size_bytes(raw_size); }

/* How a value is packed: what its tag says. */
typedef struct kvi_packing {
    kv_codec  codec;
    kv_filter filter;
    uint32_t  element_size;     /* of the shuffles */
    bool      dictionary;
} kvi_packing;

/* 0, and 1 to 3, 4 to 7, 8 to 10 for shuffles of 2, 4, 8 bytes, bit shuffles of 1, 2, 4, 8, and floats. */
KVI_PRIVATE uint32_t kvi_packing_filter_id(const kvi_packing *p)
{
    uint32_t log = p->element_size < 2 ? 0 : kvi_highest_bit32(p->element_size);
    if (p->filter == KV_FILTER_SHUFFLE) return log;
    if (p->filter == KV_FILTER_BITSHUFFLE) return 4 + log;
    return kvi_filter_is_float(p->filter) ? 8u + (uint32_t)(p->filter - KV_FILTER_BF16) : 0;
}
KVI_PRIVATE uint8_t kvi_packing_tag(const kvi_packing *p)
{
    return (uint8_t)((p->dictionary ? KVI_PACKED_DICTIONARY : 0) | (uint32_t)(p->codec - KV_CODEC_NONE) << 4 | kvi_packing_filter_id(p));
}
/* False for a tag that this format does not have. */
KVI_PRIVATE bool kvi_packing_of_tag(uint8_t tag, kvi_packing *p)
{
    uint32_t id = tag & 15u, codec = tag >> 4 & 3u;
    if (tag & KVI_PACKED_NEWER || id > 10 || codec > 2) return false;
    p->codec = (kv_codec)(KV_CODEC_NONE + (int)codec);
    p->dictionary = (tag & KVI_PACKED_DICTIONARY) != 0;
    p->element_size = id < 4 ? 1u << id : 1u << (id & 3);
    p->filter = !id ? KV_FILTER_NONE : id < 4 ? KV_FILTER_SHUFFLE : id < 8 ? KV_FILTER_BITSHUFFLE : (kv_filter)(KV_FILTER_BF16 + (int)(id - 8));
    if (p->codec == KV_CODEC_NONE) return !p->dictionary && (!id || id >= 8);
    return p->codec == KV_CODEC_ZSTD || id < 8;
}

/* What the options say for this value. NONE with NONE: it is stored. */
KVI_PRIVATE kv_status kvi_packing_choose(kv_compressor *c, kvi_compress_context *x, kv_slice raw, kvi_packing *p)
{
    const kv_compress_options *o = &c->options;
    kvi_auto  best;
    kv_status s;
    p->codec = KV_CODEC_NONE;
    p->filter = KV_FILTER_NONE;
    p->element_size = o->element_size;
    p->dictionary = false;
    if (raw.size < o->size_min || !raw.size) return KV_OK;

    p->filter = o->filter;
    if (p->filter == KV_FILTER_AUTO) {
        p->filter = KV_FILTER_NONE;
        if (raw.size >= KVI_AUTO_MIN) {
            s = kvi_auto_choose(c, x, raw, &best);
            if (s < 0) return s;
            p->filter = best.filter;
            p->element_size = best.element_size;
        }
    }
    if (p->filter == KV_FILTER_SHUFFLE && p->element_size == 1) p->filter = KV_FILTER_NONE;
    if (kvi_filter_is_float(p->filter)) {
        if (o->codec == KV_CODEC_ZSTD && raw.size >= KVI_FLOAT_DENSE_MIN) p->codec = KV_CODEC_ZSTD;
        return KV_OK;
    }
    if (o->codec == KV_CODEC_NONE) { p->filter = KV_FILTER_NONE; return KV_OK; }
    if (p->filter == KV_FILTER_NONE) {
        p->dictionary = o->dictionary.size && raw.size <= KVI_COMPRESS_DICTIONARY_VALUE;
        if (!p->dictionary && raw.size >= KVI_COMPRESS_SIZE_MIN && raw.size <= KVI_COMPRESS_PROBE_MAX && kvi_compress_looks_random(raw)) return KV_OK;
    }
    p->codec = o->codec;
    return KV_OK;
}

/* The payload; 0: it does not fit, or no memory (*s says that). */
KVI_PRIVATE size_t kvi_pack_payload(kv_compressor *c, kvi_compress_context *x, const kvi_packing *p, kv_slice raw, uint8_t *out, size_t room, kv_status *s)
{
    if (kvi_filter_is_float(p->filter)) {
        if (p->codec == KV_CODEC_ZSTD) return kvi_float_dense(c, x, p->filter, raw, out, room, s);
        return kvi_float_pack(p->filter, raw, out, room);
    }
    if (p->filter != KV_FILTER_NONE) *s = kvi_shuffle_value(x, p->filter, p->element_size, raw, &raw);
    return *s < 0 ? 0 : kvi_codec_pack(c, x, p->codec, raw, out, room, p->dictionary, s);
}

/* Where values are packed to: with room for the codec's worst case it need not look where it writes. */
KVI_PRIVATE size_t kvi_pack_capacity(const kv_compressor *c, size_t raw_size)
{
    size_t stored = raw_size + KVI_PACKED_STORED_BYTES, packed = kv_codec_bound(c->options.codec, raw_size) + KVI_PACKED_STORED_BYTES + KVI_PACKED_SIZE_BYTES;
    return packed > stored ? packed : stored;
}

/* out has room for capacity bytes: kvi_pack_capacity, or less, but raw.size + KVI_PACKED_STORED_BYTES.
   Returns the bytes of the packed value; *s is KV_OK, or KV_ERR_NO_MEMORY. */
KVI_PRIVATE size_t kvi_pack(kv_compressor *c, kvi_compress_context *x, kv_slice raw, uint8_t *out, size_t capacity, kv_status *s)
{
    kvi_packing p;
    size_t      used = KVI_PACKED_TAG_BYTES, wrote;
    *s = kvi_packing_choose(c, x, raw, &p);
    if (*s < 0) return 0;
    if (p.codec == KV_CODEC_NONE && p.filter == KV_FILTER_NONE) return kvi_pack_stored(raw, out);
    used += kvi_packed_put_size(out + used, raw.size);
    wrote = kvi_pack_payload(c, x, &p, raw, out + used, capacity - used - KVI_PACKED_CHECKSUM_BYTES, s);
    if (*s < 0) return 0;
    if (!wrote || wrote > kvi_pack_room(raw.size)) return kvi_pack_stored(raw, out);
    out[0] = kvi_packing_tag(&p);
    used += wrote;
    kvi_packed_seal(out, used, p.dictionary ? c->dictionary_hash : 0);
    return used + KVI_PACKED_CHECKSUM_BYTES;
}

KVI_PRIVATE kv_status kvi_compress_too_large(kv_compressor *c) { return kvi_compress_error(c, KV_ERR_TOO_LARGE, "value is over KV_VALUE_SIZE_MAX bytes"); }

/* ------------------------------------------------------------------------------------------------
   >>unpack   a value on its way out: checksum, tag, size, and only then memory and the codec      */

typedef struct kvi_packed {
    kvi_packing how;
    size_t      raw_size;
    kv_slice    payload;
} kvi_packed;

/* A failure, and why, as text that lives forever: whoever called keeps it, with what else he knows. */
KVI_INLINE kv_status kvi_unpack_fail(const char **why, kv_status s, const char *text)
{
    *why = text;
    return s;
}
KVI_PRIVATE kv_status kvi_unpack_damaged(const char **why) { return kvi_unpack_fail(why, KV_ERR_CORRUPT, "packed value is damaged"); }
KVI_PRIVATE kv_status kvi_unpack_unknown(const kv_compressor *c, bool dictionary, const char **why)
{
    if (!dictionary) return kvi_unpack_damaged(why);
    return kvi_unpack_fail(why, KV_ERR_CORRUPT, c->options.dictionary.size
        ? "packed value is damaged, or was packed with another dictionary"
        : "packed value is damaged, or was packed with a dictionary, which this compressor does not have");
}

/* Could so short a payload inflate to so much? Crafted bytes cannot make us ask for memory that they
   have no way to fill: LZ4 makes 255 bytes of one, zstd a block of 128 KiB of three, the floats four. */
KVI_PRIVATE bool kvi_packed_plausible(const kvi_packed *p)
{
    uint64_t payload = p->payload.size, raw = p->raw_size;
    if (kvi_filter_is_float(p->how.filter)) return raw <= 4 * payload;
    return raw <= (p->how.codec == KV_CODEC_LZ4 ? 255 : (uint64_t)131072) * payload;
}

KVI_PRIVATE kv_status kvi_unpack_header(const kv_compressor *c, kv_slice packed, kvi_packed *p, const char **why)
{
    const uint8_t *b = (const uint8_t *)packed.data;
    size_t         end, at = KVI_PACKED_TAG_BYTES, used;
    bool           dictionary;
    if (!b || packed.size < KVI_PACKED_STORED_BYTES) return kvi_unpack_damaged(why);
    end = packed.size - KVI_PACKED_CHECKSUM_BYTES;
    dictionary = (b[0] & KVI_PACKED_DICTIONARY) != 0;
    if (dictionary && !c->options.dictionary.size) return kvi_unpack_unknown(c, true, why);
    if (kvi_load_le32(b + end) != kvi_checksum(b, end, dictionary ? c->dictionary_hash : 0)) return kvi_unpack_unknown(c, dictionary, why);
    if (!kvi_packing_of_tag(b[0], &p->how)) return kvi_unpack_fail(why, KV_ERR_VERSION, "value was packed by a newer version");
    p->raw_size = end - at;
    if (b[0]) {
        used = kvi_packed_get_size(b + at, end - at, &p->raw_size);
        if (!used || !p->raw_size) return kvi_unpack_damaged(why);
        at += used;
    }
    p->payload = kv_bytes(b + at, end - at);
    if (b[0] && !kvi_packed_plausible(p)) return kvi_unpack_damaged(why);
    if (p->raw_size > c->options.size_max) return kvi_unpack_fail(why, KV_ERR_TOO_LARGE, "packed value inflates past size_max");
    return KV_OK;
}

KVI_PRIVATE kv_status kvi_unpack_shuffled(kv_compressor *c, kvi_compress_context *x, const kvi_packed *p, uint8_t *raw)
{
    bool      two = p->how.filter == KV_FILTER_BITSHUFFLE && p->how.element_size > 1;
    kv_status s = kv_buf_reserve(&x->filtered, two ? 2 * p->raw_size : p->raw_size);
    uint8_t  *shuffled = (uint8_t *)x->filtered.data;
    if (s < 0) return s;
    s = kvi_codec_unpack(c, x, p->how.codec, p->payload, shuffled, p->raw_size, p->how.dictionary);
    if (s == KV_OK) kvi_unshuffle_value(p->how.filter, p->how.element_size, shuffled, shuffled + (two ? p->raw_size : 0), p->raw_size, raw);
    return s;
}

/* raw has room for p->raw_size. */
KVI_PRIVATE kv_status kvi_unpack_payload(kv_compressor *c, kvi_compress_context *x, const kvi_packed *p, uint8_t *raw, const char **why)
{
    kv_status s = KV_ERR_CORRUPT;
    if (kvi_filter_is_float(p->how.filter)) {
        if (p->how.codec == KV_CODEC_NONE) s = kvi_float_unpack(p->how.filter, p->payload, raw, p->raw_size);
        else s = kvi_float_undense(c, x, p->how.filter, p->payload, raw, p->raw_size);
    } else if (!kv_codec_supported(p->how.codec)) {
        return kvi_unpack_fail(why, KV_ERR_UNSUPPORTED, kvi_codec_missing(p->how.codec));
    } else if (p->how.filter != KV_FILTER_NONE) s = kvi_unpack_shuffled(c, x, p, raw);
    else s = kvi_codec_unpack(c, x, p->how.codec, p->payload, raw, p->raw_size, p->how.dictionary);
    if (s == KV_ERR_CORRUPT) return kvi_unpack_damaged(why);
    return s < 0 ? kvi_unpack_fail(why, s, kv_status_text(s)) : s;
}

KVI_INLINE bool kvi_packed_is_stored(kv_slice packed) { return *(const uint8_t *)packed.data == 0; }

/* LZ4 without a dictionary and the fast floats need nothing but their input. */
KVI_INLINE bool kvi_unpack_needs_context(const kvi_packed *p)
{
    return p->how.dictionary || p->how.codec == KV_CODEC_ZSTD || p->how.filter == KV_FILTER_SHUFFLE || p->how.filter == KV_FILTER_BITSHUFFLE;
}

/* Into a buffer, with a context that the caller has (or NULL: one is taken where one is needed). */
KVI_PRIVATE kv_status kvi_unpack(kv_compressor *c, kvi_compress_context *x, kv_slice packed, kv_buf *raw, const char **why)
{
    kvi_compress_context *own = NULL;
    kvi_packed            p;
    kv_status             s = kvi_unpack_header(c, packed, &p, why);
    if (s < 0) return s;
    s = kvi_packed_is_stored(packed) ? kv_buf_assign(raw, p.payload) : kv_buf_reserve(raw, p.raw_size);
    if (s < 0) return kvi_unpack_fail(why, s, kv_status_text(s));
    if (kvi_packed_is_stored(packed)) return KV_OK;
    if (!x && kvi_unpack_needs_context(&p)) {
        x = own = kvi_compress_acquire(c);
        if (!x) return kvi_unpack_fail(why, KV_ERR_NO_MEMORY, kv_status_text(KV_ERR_NO_MEMORY));
    }
    s = kvi_unpack_payload(c, x, &p, (uint8_t *)raw->data, why);
    if (own) kvi_compress_release(c, own);
    if (s == KV_OK) raw->size = p.raw_size;
    return s;
}

/* ------------------------------------------------------------------------------------------------
   >>train   dictionaries                                                                          */

#if KVI_ZSTD
/* The samples, one after the other, and their sizes: what zstd's trainer wants. */
KVI_PRIVATE kv_status kvi_train_gather(const kv_slice *samples, size_t count, kv_buf *bytes, kv_buf *sizes)
{
    for (size_t i = 0; i < count; i++) {
        kv_status s = kv_check_value(samples[i]);
        if (s == KV_OK) s = kv_buf_append(bytes, samples[i]);
        if (s == KV_OK) s = kv_buf_append(sizes, kv_bytes(&samples[i].size, sizeof samples[i].size));
        if (s < 0) return s;
    }
    return KV_OK;
}
#endif

KVI_COMPRESS_DEFINE kv_status kv_compress_train(const kv_slice *samples, size_t count, size_t dictionary_size, kv_buf *dictionary)
{
#if KVI_ZSTD
    kv_buf    bytes, sizes;
    kv_status s;
    if (!dictionary || (!samples && count) || !dictionary_size || count > UINT32_MAX) return KV_ERR_INVALID;
    if (dictionary_size > KV_VALUE_SIZE_MAX) return KV_ERR_TOO_LARGE;
    memset(&bytes, 0, sizeof bytes);
    bytes.allocator = dictionary->fixed ? bytes.allocator : dictionary->allocator;
    sizes = bytes;
    s = kvi_train_gather(samples, count, &bytes, &sizes);
    if (s == KV_OK) s = kv_buf_reserve(dictionary, dictionary_size);
    if (s == KV_OK) {
        size_t made = ZDICT_trainFromBuffer(dictionary->data, dictionary_size, bytes.data, (const size_t *)sizes.data, (unsigned)count);
        if (!ZDICT_isError(made)) dictionary->size = made;
        else s = ZSTD_getErrorCode(made) == ZSTD_error_memory_allocation ? KV_ERR_NO_MEMORY : KV_ERR_INVALID;
    }
    kv_buf_free(&bytes);
    kv_buf_free(&sizes);
    return s;
#else
    (void)samples; (void)count; (void)dictionary_size; (void)dictionary;
    return KV_ERR_UNSUPPORTED;
#endif
}

/* ------------------------------------------------------------------------------------------------
   >>compressor   opening, closing, and the calls for single values                                */

KVI_PRIVATE kv_status kvi_compressor_refuse(const kv_compress_options *o, kv_status s, const char *what)
{
    kvi_text t;
    if (!o || !o->error_text || !o->error_text_size) return s;
    t = kvi_text_over(o->error_text, o->error_text_size);
    kvi_text_add(&t, what ? what : kv_status_text(s));
    return s;
}

/* The defaults, and what is out of range. */
KVI_PRIVATE kv_status kvi_compressor_resolve(const kv_compress_options *o, kv_compress_options *r)
{
    memset(r, 0, sizeof *r);
    if (o) *r = *o;
    r->error_text = NULL;
    r->error_text_size = 0;
    if (r->codec == KV_CODEC_DEFAULT) r->codec = KV_CODEC_LZ4;
    if (r->codec < KV_CODEC_NONE || r->codec > KV_CODEC_ZSTD) return kvi_compressor_refuse(o, KV_ERR_INVALID, "codec: no such codec");
    if (!kv_codec_supported(r->codec)) return kvi_compressor_refuse(o, KV_ERR_UNSUPPORTED, kvi_codec_missing(r->codec));
    if ((uint32_t)r->filter > (uint32_t)KV_FILTER_AUTO) return kvi_compressor_refuse(o, KV_ERR_INVALID, "filter: no such filter");
    if (r->element_size > 8 || (r->element_size & (r->element_size - 1))) return kvi_compressor_refuse(o, KV_ERR_INVALID, "element_size: 1, 2, 4 or 8 bytes");
    if (!r->dictionary.data && r->dictionary.size) return kvi_compressor_refuse(o, KV_ERR_INVALID, "dictionary: NULL with a size");
    if (r->dictionary.size > KV_VALUE_SIZE_MAX) return kvi_compressor_refuse(o, KV_ERR_TOO_LARGE, "dictionary is over KV_VALUE_SIZE_MAX bytes");
    if (r->codec == KV_CODEC_LZ4 && (r->level < KVI_LZ4_LEVEL_MIN || r->level > KVI_LZ4_LEVEL_MAX)) return kvi_compressor_refuse(o, KV_ERR_INVALID, "level: -65537 to 12 for lz4");
#if KVI_ZSTD
    if (r->codec == KV_CODEC_ZSTD && !r->level) r->level = KVI_ZSTD_LEVEL_DEFAULT;
    if (r->codec == KV_CODEC_ZSTD && (r->level < ZSTD_minCLevel() || r->level > ZSTD_maxCLevel())) return kvi_compressor_refuse(o, KV_ERR_INVALID, "level: -131072 to 22 for zstd");
#endif
    if (!r->element_size) r->element_size = r->filter == KV_FILTER_AUTO ? 0 : KVI_COMPRESS_ELEMENT_SIZE;
    if (!r->size_min) r->size_min = KVI_COMPRESS_SIZE_MIN;
    if (r->size_min == KV_NONE) r->size_min = 1;
    if (!r->size_max || r->size_max > KV_VALUE_SIZE_MAX) r->size_max = KV_VALUE_SIZE_MAX;
    return KV_OK;
}

KVI_PRIVATE kv_status kvi_compressor_open_dictionary(kv_compressor *c)
{
    kv_slice  d = c->options.dictionary;
    void     *copy = kvi_alloc(&c->options.allocator, d.size);
    kv_status s = KV_OK;
    c->options.dictionary.data = copy;
    if (!copy) { c->options.dictionary.size = 0; return KV_ERR_NO_MEMORY; }
    memcpy(copy, d.data, d.size);
    c->dictionary_hash = kvi_hash(copy, d.size, 0);
#if KVI_LZ4
    s = kvi_lz4_open_dictionary(c);
#endif
#if KVI_ZSTD
    if (s == KV_OK) s = kvi_zstd_open_dictionary(c);
#endif
    return s;
}

KVI_COMPRESS_DEFINE void kv_compressor_close(kv_compressor *c)
{
    kv_allocator a;
    if (!c) return;
    a = c->options.allocator;
    for (uint32_t i = 0; i < KVI_COMPRESS_CONTEXTS; i++) if (c->places[i].context) kvi_compress_context_free(c, (kvi_compress_context *)c->places[i].context);
#if KVI_LZ4
    kvi_lz4_close_dictionary(c);
#endif
#if KVI_ZSTD
    kvi_zstd_close_dictionary(c);
#endif
    kvi_free(&a, (void *)(uintptr_t)c->options.dictionary.data, c->options.dictionary.size);
    kvi_free(&a, c, sizeof *c);
}

KVI_COMPRESS_DEFINE kv_status kv_compressor_open(const kv_compress_options *options, kv_compressor **compressor)
{
    kv_compress_options resolved;
    kv_compressor      *c;
    kv_status           s;
    if (!compressor) return KV_ERR_INVALID;
    *compressor = NULL;
    s = kvi_compressor_resolve(options, &resolved);
    if (s < 0) return s;
    c = (kv_compressor *)kvi_alloc_zero(&resolved.allocator, sizeof *c);
    if (!c) return kvi_compressor_refuse(options, KV_ERR_NO_MEMORY, NULL);
    c->options = resolved;
    if (resolved.dictionary.size) s = kvi_compressor_open_dictionary(c);
    if (s < 0) {
        kv_compressor_close(c);
        return kvi_compressor_refuse(options, s, s == KV_ERR_INVALID ? "dictionary is damaged" : NULL);
    }
    *compressor = c;
    return KV_OK;
}

/* For a module that only calls kv_codec_pack and kv_codec_unpack, with a codec that is supported: no filter, no
   dictionary. */
KVI_PRIVATE kv_status kvi_compressor_open_plain(const kv_allocator *a, kv_codec codec, int level, kv_compressor **compressor)
{
    kv_compressor *c;
    if (codec == KV_CODEC_LZ4 && (level < KVI_LZ4_LEVEL_MIN || level > KVI_LZ4_LEVEL_MAX)) return KV_ERR_INVALID;
#if KVI_ZSTD
    if (codec == KV_CODEC_ZSTD && (level < ZSTD_minCLevel() || level > ZSTD_maxCLevel())) return KV_ERR_INVALID;
#endif
    *compressor = c = (kv_compressor *)kvi_alloc_zero(a, sizeof *c);
    if (!c) return KV_ERR_NO_MEMORY;
    c->options.allocator = *a;
    c->options.codec = codec;
    c->options.level = level;
    return KV_OK;
}

KVI_COMPRESS_DEFINE const kv_compress_options *kv_compressor_options(const kv_compressor *c) { return c ? &c->options : NULL; }
KVI_COMPRESS_DEFINE const char *kv_compressor_last_error(const kv_compressor *c) { return c ? kvi_error_text(&c->error) : ""; }

/* A fixed buffer that is smaller than the worst case may still be large enough: pack beside it. */
KVI_PRIVATE kv_status kvi_compress_beside(kv_compressor *c, kvi_compress_context *x, kv_slice raw, kv_buf *packed)
{
    kv_status s = kv_buf_reserve(&x->packed, kvi_pack_capacity(c, raw.size));
    if (s < 0) return s;
    x->packed.size = kvi_pack(c, x, raw, (uint8_t *)x->packed.data, x->packed.capacity, &s);
    return s < 0 ? s : kv_buf_assign(packed, kv_buf_slice(&x->packed));
}

KVI_COMPRESS_DEFINE kv_status kv_compress(kv_compressor *c, kv_slice raw, kv_buf *packed)
{
    kvi_compress_context *x;
    kv_status             s = KV_OK;
    size_t                wrote;
    if (!c || !packed || (!raw.data && raw.size)) return KV_ERR_INVALID;
    if (raw.size > KV_VALUE_SIZE_MAX) return kvi_compress_too_large(c);
    x = kvi_compress_acquire(c);
    if (!x) return KV_ERR_NO_MEMORY;
    if (packed->fixed && packed->capacity < raw.size + KVI_PACKED_STORED_BYTES) s = kvi_compress_beside(c, x, raw, packed);
    else {
        if (!packed->fixed) s = kv_buf_reserve(packed, kvi_pack_capacity(c, raw.size));
        if (s == KV_OK) {
            wrote = kvi_pack(c, x, raw, (uint8_t *)packed->data, packed->capacity, &s);
            if (s == KV_OK) packed->size = wrote;
        }
    }
    kvi_compress_release(c, x);
    return s < 0 ? kvi_compress_error(c, s, NULL) : s;
}

KVI_COMPRESS_DEFINE kv_status kv_decompress(kv_compressor *c, kv_slice packed, kv_buf *raw)
{
    const char *why = NULL;
    kv_status   s;
    if (!c || !raw || (!packed.data && packed.size)) return KV_ERR_INVALID;
    s = kvi_unpack(c, NULL, packed, raw, &why);
    return s < 0 ? kvi_compress_error(c, s, why) : s;
}

KVI_COMPRESS_DEFINE kv_status kv_codec_pack(kv_compressor *c, kv_slice raw, void *out, size_t capacity, size_t *size)
{
    kvi_compress_context *x;
    kv_status             s = KV_OK;
    size_t                wrote;
    if (!c || !size || (!raw.data && raw.size) || (!out && capacity)) return KV_ERR_INVALID;
    if (raw.size > KV_VALUE_SIZE_MAX) return kvi_compress_too_large(c);
    if (c->options.codec == KV_CODEC_NONE || !raw.size) {
        if (raw.size > capacity) return KV_ERR_TOO_LARGE;
        kvi_copy(out, raw.data, raw.size);
        *size = raw.size;
        return KV_OK;
    }
    if (!capacity) return KV_ERR_TOO_LARGE;
    x = kvi_compress_acquire(c);
    if (!x) return KV_ERR_NO_MEMORY;
    wrote = kvi_codec_pack(c, x, c->options.codec, raw, (uint8_t *)out, capacity, false, &s);
    kvi_compress_release(c, x);
    if (s < 0) return kvi_compress_error(c, s, NULL);
    if (!wrote) return KV_ERR_TOO_LARGE;
    *size = wrote;
    return KV_OK;
}

KVI_COMPRESS_DEFINE kv_status kv_codec_unpack(kv_compressor *c, kv_codec codec, kv_slice packed, void *out, size_t raw_size)
{
    kvi_compress_context *x;
    kv_status             s;
    if (!c || (!packed.data && packed.size) || (!out && raw_size)) return KV_ERR_INVALID;
    if (codec == KV_CODEC_DEFAULT) codec = KV_CODEC_LZ4;
    if (!kv_codec_supported(codec)) return kvi_compress_error(c, KV_ERR_UNSUPPORTED, kvi_codec_missing(codec));
    if (codec == KV_CODEC_NONE || !raw_size) {
        if (packed.size != raw_size) return kvi_compress_error(c, KV_ERR_CORRUPT, "packed block is damaged");
        kvi_copy(out, packed.data, raw_size);
        return KV_OK;
    }
    x = kvi_compress_acquire(c);
    if (!x) return KV_ERR_NO_MEMORY;
    s = kvi_codec_unpack(c, x, codec, packed, (uint8_t *)out, raw_size, false);
    kvi_compress_release(c, x);
    return s < 0 ? kvi_compress_error(c, s, s == KV_ERR_CORRUPT ? "packed block is damaged" : NULL) : s;
}

/* ------------------------------------------------------------------------------------------------
   >>wrapper   a store around a store

   A set: take a context, pack into its buffer, hand that to inner. A get: inner shows its bytes (view,
   or a copy where it cannot), checksum and header are checked, and the value is unpacked straight into
   the caller's buffer; a value that was stored as it is is never copied in between.
   No lock of ours is held while inner or a callback runs, only a context, which nobody waits for.   */

struct kv_compressed {
    kv_store       store;
    kv_store      *inner;
    kv_compressor *compressor;
    kvi_error      error;
    uint32_t       failed_here;         /* 1: the last failure was ours, 0: it was inner's */
    char           name[128];
};

KVI_INLINE kv_compressed *kvi_compressed_of(kv_store *s) { return (kv_compressed *)(void *)s; }

/* A status of inner's on its way out. */
KVI_INLINE kv_status kvi_compressed_pass(kv_compressed *c, kv_status s)
{
    if (KVI_UNLIKELY(s < 0)) kvi_poke_u32(&c->failed_here, 0);
    return s;
}
/* A failure of ours, about a key (or none where its data is NULL). */
KVI_PRIVATE kv_status kvi_compressed_fail(kv_compressed *c, kv_status s, kv_slice key, const char *what)
{
    kvi_text t = kvi_error_begin(&c->error);
    if (key.data) { kvi_text_add(&t, "key "); kvi_text_key(&t, key); kvi_text_add(&t, ": "); }
    kvi_text_add(&t, what ? what : kv_status_text(s));
    kvi_poke_u32(&c->failed_here, 1);
    return kvi_error_end(&c->error, s);
}
KVI_PRIVATE void kvi_compress_count(kvi_compress_context *x, size_t raw_bytes, size_t packed_bytes, bool stored)
{
    kvi_poke_u64(&x->stats.raw_bytes, x->stats.raw_bytes + raw_bytes);
    kvi_poke_u64(&x->stats.packed_bytes, x->stats.packed_bytes + packed_bytes);
    kvi_poke_u64(&x->stats.values, x->stats.values + 1);
    if (stored) kvi_poke_u64(&x->stats.values_raw, x->stats.values_raw + 1);
}

/* ---- writing ---- */

KVI_PRIVATE kv_status kvi_compressed_check(kv_compressed *c, const kv_pair *pair)
{
    kv_status s = kv_check_value(pair->value);
    if (s == KV_OK && pair->value.size > c->compressor->options.size_max) s = KV_ERR_TOO_LARGE;
    if (KVI_LIKELY(s == KV_OK)) return KV_OK;
    return kvi_compressed_fail(c, s, pair->key.size <= KV_KEY_SIZE_MAX ? pair->key : kv_bytes(NULL, 0),
                               s == KV_ERR_TOO_LARGE ? "value is over size_max, or over KV_VALUE_SIZE_MAX" : NULL);
}

/* Pack behind what x->packed holds. */
KVI_PRIVATE kv_status kvi_compressed_pack(kv_compressed *c, kvi_compress_context *x, kv_slice raw)
{
    size_t    needed = x->packed.size + kvi_pack_capacity(c->compressor, raw.size), capacity = x->packed.capacity * 2;
    kv_status s = KV_OK;
    if (needed > x->packed.capacity) s = kv_buf_reserve(&x->packed, needed > capacity ? needed : capacity);
    if (s == KV_OK) {
        size_t wrote = kvi_pack(c->compressor, x, raw, (uint8_t *)x->packed.data + x->packed.size, x->packed.capacity - x->packed.size, &s);
        if (s == KV_OK) x->packed.size += wrote;
    }
    return s;
}

KVI_PRIVATE kv_status kvi_compressed_set(kv_store *store, kv_slice key, kv_slice value)
{
    kv_compressed        *c = kvi_compressed_of(store);
    kvi_compress_context *x;
    kv_pair               pair;
    kv_status             s;
    pair.key = key;
    pair.value = value;
    s = kvi_compressed_check(c, &pair);
    if (s < 0) return s;
    x = kvi_compress_acquire(c->compressor);
    if (!x) return kvi_compressed_fail(c, KV_ERR_NO_MEMORY, key, NULL);
    x->packed.size = 0;
    s = kvi_compressed_pack(c, x, value);
    if (s < 0) s = kvi_compressed_fail(c, s, key, NULL);
    else {
        s = kvi_compressed_pass(c, kv_set(c->inner, key, kv_buf_slice(&x->packed)));
        if (s >= 0) kvi_compress_count(x, value.size, x->packed.size, kvi_packed_is_stored(kv_buf_slice(&x->packed)));
    }
    kvi_compress_release(c->compressor, x);
    return s;
}

/* All values are packed into one buffer, and then go to inner as one batch, so that a batch is as
   atomic as inner makes it. While the buffer grows the pairs hold sizes alone. */
KVI_PRIVATE kv_status kvi_compressed_pack_batch(kv_compressed *c, kvi_compress_context *x, const kv_pair *pairs, size_t count)
{
    kv_pair   *packed;
    uint8_t   *at;
    kv_status  s = count <= SIZE_MAX / sizeof *pairs ? kv_buf_reserve(&x->pairs, count * sizeof *pairs) : KV_ERR_NO_MEMORY;
    if (s < 0) return kvi_compressed_fail(c, s, kv_bytes(NULL, 0), NULL);
    packed = (kv_pair *)x->pairs.data;
    x->packed.size = 0;
    for (size_t i = 0; i < count; i++) {
        size_t before = x->packed.size;
        s = kvi_compressed_check(c, &pairs[i]);
        if (s < 0) return s;
        s = kvi_compressed_pack(c, x, pairs[i].value);
        if (s < 0) return kvi_compressed_fail(c, s, pairs[i].key, NULL);
        packed[i].key = pairs[i].key;
        packed[i].value.size = x->packed.size - before;
    }
    at = (uint8_t *)x->packed.data;
    for (size_t i = 0; i < count; i++) {
        packed[i].value.data = at;
        at += packed[i].value.size;
    }
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_compressed_batch_set(kv_store *store, const kv_pair *pairs, size_t count)
{
    kv_compressed        *c = kvi_compressed_of(store);
    kvi_compress_context *x = kvi_compress_acquire(c->compressor);
    kv_status             s;
    if (!x) return kvi_compressed_fail(c, KV_ERR_NO_MEMORY, kv_bytes(NULL, 0), NULL);
    s = kvi_compressed_pack_batch(c, x, pairs, count);
    if (s == KV_OK) {
        const kv_pair *packed = (const kv_pair *)x->pairs.data;
        s = kvi_compressed_pass(c, kv_batch_set(c->inner, packed, count));
        for (size_t i = 0; s >= 0 && i < count; i++) kvi_compress_count(x, pairs[i].value.size, packed[i].value.size, kvi_packed_is_stored(packed[i].value));
    }
    kvi_compress_release(c->compressor, x);
    return s;
}

KVI_PRIVATE kv_status kvi_compressed_remove(kv_store *store, kv_slice key)
{
    kv_compressed *c = kvi_compressed_of(store);
    return kvi_compressed_pass(c, kv_delete(c->inner, key));
}
KVI_PRIVATE kv_status kvi_compressed_batch_remove(kv_store *store, const kv_slice *keys, size_t count)
{
    kv_compressed *c = kvi_compressed_of(store);
    return kvi_compressed_pass(c, kv_batch_delete(c->inner, keys, count));
}

/* ---- reading ---- */

typedef struct kvi_compressed_visit {
    kv_compressed *c;
    kv_buf        *value;               /* get: where it goes */
    kv_visit_fn    visit;               /* view and scan: whom to show it to */
    void          *user;
    kv_status      status;
} kvi_compressed_visit;

KVI_PRIVATE kvi_compressed_visit kvi_compressed_visit_of(kv_compressed *c, kv_buf *value, kv_visit_fn visit, void *user)
{
    kvi_compressed_visit v;
    v.c = c; v.value = value; v.visit = visit; v.user = user; v.status = KV_OK;
    return v;
}

KVI_PRIVATE bool kvi_compressed_take(void *user, kv_slice key, kv_slice packed)
{
    kvi_compressed_visit *v = (kvi_compressed_visit *)user;
    const char           *why = NULL;
    v->status = kvi_unpack(v->c->compressor, NULL, packed, v->value, &why);
    if (KVI_UNLIKELY(v->status < 0)) v->status = kvi_compressed_fail(v->c, v->status, key, why);
    return false;
}

/* Unpack into a context's buffer and show it; the context is ours until visit returns. */
KVI_PRIVATE bool kvi_compressed_show_unpacked(kvi_compressed_visit *v, kv_slice key, const kvi_packed *p)
{
    kv_compressor        *c = v->c->compressor;
    kvi_compress_context *x = kvi_compress_acquire(c);
    const char           *why = NULL;
    bool                  more = false;
    if (!x) { v->status = kvi_compressed_fail(v->c, KV_ERR_NO_MEMORY, key, NULL); return false; }
    v->status = kv_buf_reserve(&x->raw, p->raw_size);
    if (v->status < 0) v->status = kvi_compressed_fail(v->c, v->status, key, NULL);
    else {
        v->status = kvi_unpack_payload(c, x, p, (uint8_t *)x->raw.data, &why);
        if (v->status < 0) v->status = kvi_compressed_fail(v->c, v->status, key, why);
        else more = v->visit(v->user, key, kv_bytes(x->raw.data, p->raw_size));
    }
    kvi_compress_release(c, x);
    return more;
}
KVI_PRIVATE bool kvi_compressed_show(void *user, kv_slice key, kv_slice packed)
{
    kvi_compressed_visit *v = (kvi_compressed_visit *)user;
    const char           *why = NULL;
    kvi_packed            p;
    v->status = kvi_unpack_header(v->c->compressor, packed, &p, &why);
    if (KVI_UNLIKELY(v->status < 0)) { v->status = kvi_compressed_fail(v->c, v->status, key, why); return false; }
    if (kvi_packed_is_stored(packed)) return v->visit(v->user, key, p.payload);
    return kvi_compressed_show_unpacked(v, key, &p);
}

/* Let inner show the bytes of a key to fn; where it can only copy, the copy is made in a context. */
KVI_PRIVATE kv_status kvi_compressed_inner_view(kv_compressed *c, kv_slice key, kv_visit_fn fn, kvi_compressed_visit *v)
{
    kvi_compress_context *x;
    kv_status             s;
    if (KVI_LIKELY(c->inner->ops->view != NULL)) s = kvi_compressed_pass(c, kv_view(c->inner, key, fn, v));
    else {
        x = kvi_compress_acquire(c->compressor);
        if (!x) return kvi_compressed_fail(c, KV_ERR_NO_MEMORY, key, NULL);
        s = kvi_compressed_pass(c, kv_get(c->inner, key, &x->packed));
        if (s == KV_OK) (void)fn(v, key, kv_buf_slice(&x->packed));
        kvi_compress_release(c->compressor, x);
    }
    return s == KV_OK ? v->status : s;
}

KVI_PRIVATE kv_status kvi_compressed_get(kv_store *store, kv_slice key, kv_buf *value)
{
    kvi_compressed_visit v = kvi_compressed_visit_of(kvi_compressed_of(store), value, NULL, NULL);
    return kvi_compressed_inner_view(v.c, key, kvi_compressed_take, &v);
}
KVI_PRIVATE kv_status kvi_compressed_view(kv_store *store, kv_slice key, kv_visit_fn visit, void *user)
{
    kvi_compressed_visit v = kvi_compressed_visit_of(kvi_compressed_of(store), NULL, visit, user);
    return kvi_compressed_inner_view(v.c, key, kvi_compressed_show, &v);
}
KVI_PRIVATE kv_status kvi_compressed_exists(kv_store *store, kv_slice key)
{
    kv_compressed *c = kvi_compressed_of(store);
    return kvi_compressed_pass(c, kv_exists(c->inner, key));
}
KVI_PRIVATE kv_status kvi_compressed_scan(kv_store *store, const kv_range *range, kv_visit_fn visit, void *user)
{
    kvi_compressed_visit v = kvi_compressed_visit_of(kvi_compressed_of(store), NULL, visit, user);
    kv_status            s = kvi_compressed_pass(v.c, kv_scan(v.c->inner, range, kvi_compressed_show, &v));
    return s == KV_OK ? v.status : s;
}
KVI_PRIVATE kv_status kvi_compressed_count(kv_store *store, const kv_range *range, uint64_t *count)
{
    kv_compressed *c = kvi_compressed_of(store);
    return kvi_compressed_pass(c, kv_count(c->inner, range, count));
}

/* Some keys of a batch: inner's answers into the context's buffers, and from there to the caller.
   One value that fails does not keep the others from being delivered. */
KVI_PRIVATE kv_status kvi_compressed_get_some(kv_compressed *c, kvi_compress_context *x, const kv_slice *keys, size_t count,
                                              kv_buf *values, kv_status *statuses)
{
    const char *why = NULL;
    kv_status   s, result;
    for (size_t i = 0; i < count; i++) statuses[i] = KV_NOT_FOUND;
    result = kvi_compressed_pass(c, kv_batch_get(c->inner, keys, count, x->answers, statuses));
    for (size_t i = 0; i < count; i++) {
        if (statuses[i] != KV_OK) continue;
        s = kvi_unpack(c->compressor, x, kv_buf_slice(&x->answers[i]), &values[i], &why);
        if (s < 0) statuses[i] = kvi_compressed_fail(c, s, keys[i], why);
        if (s < 0 && result >= 0) result = s;
        if (x->answers[i].capacity > KVI_COMPRESS_KEEP_BYTES / KVI_COMPRESS_ANSWERS) kv_buf_free(&x->answers[i]);
    }
    return result;
}
KVI_PRIVATE kv_status kvi_compressed_batch_get(kv_store *store, const kv_slice *keys, size_t count, kv_buf *values, kv_status *statuses)
{
    kv_compressed        *c = kvi_compressed_of(store);
    kvi_compress_context *x = kvi_compress_acquire(c->compressor);
    kv_status             s, result = KV_OK;
    if (!x) return kvi_compressed_fail(c, KV_ERR_NO_MEMORY, kv_bytes(NULL, 0), NULL);
    for (size_t done = 0; done < count; done += KVI_COMPRESS_ANSWERS) {
        size_t n = count - done < KVI_COMPRESS_ANSWERS ? count - done : KVI_COMPRESS_ANSWERS;
        s = kvi_compressed_get_some(c, x, keys + done, n, values + done, statuses + done);
        if (s < 0 && result >= 0) result = s;
    }
    kvi_compress_release(c->compressor, x);
    return result;
}

/* ---- the rest ---- */

KVI_PRIVATE kv_status kvi_compressed_flush(kv_store *store)
{
    kv_compressed *c = kvi_compressed_of(store);
    return kvi_compressed_pass(c, kv_flush(c->inner));
}
KVI_PRIVATE kv_status kvi_compressed_store_stats(kv_store *store, kv_stats *stats)
{
    kv_compressed *c = kvi_compressed_of(store);
    return kvi_compressed_pass(c, kv_store_stats(c->inner, stats));
}
KVI_PRIVATE kv_status kvi_compressed_close(kv_store *store)
{
    kv_compressed_close(kvi_compressed_of(store));
    return KV_OK;
}
KVI_PRIVATE const char *kvi_compressed_last_error(const kv_store *store)
{
    const kv_compressed *c = (const kv_compressed *)(const void *)store;
    return kvi_peek_u32(&c->failed_here) ? kvi_error_text(&c->error) : kv_last_error(c->inner);
}

/* ------------------------------------------------------------------------------------------------
   >>cursor   inner's cursor, moved by its own raw moves; the value is unpacked when it is asked for

   A value that cannot be unpacked makes the cursor invalid with the reason in its status, so that a
   loop ends and finds out.                                                                        */

typedef struct kvi_compressed_iter {
    kv_iter  base;
    kv_iter *inner;
    kv_buf   raw;
    bool     unpacked;                  /* base.value is the current entry's */
} kvi_compressed_iter;

KVI_INLINE kvi_compressed_iter *kvi_compressed_iter_of(kv_iter *i) { return (kvi_compressed_iter *)(void *)i; }
KVI_INLINE void kvi_compressed_iter_moved(kvi_compressed_iter *i)
{
    i->base.valid = i->inner->valid;
    i->base.status = kvi_compressed_pass(kvi_compressed_of(i->base.store), i->inner->status);
    i->base.key = i->inner->key;
    i->unpacked = false;
}
KVI_INLINE kv_iter *kvi_compressed_iter_before_seek(kvi_compressed_iter *i)
{
    i->inner->valid = false;
    i->inner->status = KV_OK;
    return i->inner;
}
KVI_PRIVATE void kvi_compressed_iter_seek(kv_iter *iter, kv_slice key)
{
    kvi_compressed_iter *i = kvi_compressed_iter_of(iter);
    i->inner->ops->seek(kvi_compressed_iter_before_seek(i), key);
    kvi_compressed_iter_moved(i);
}
KVI_PRIVATE void kvi_compressed_iter_seek_before(kv_iter *iter, kv_slice key)
{
    kvi_compressed_iter *i = kvi_compressed_iter_of(iter);
    i->inner->ops->seek_before(kvi_compressed_iter_before_seek(i), key);
    kvi_compressed_iter_moved(i);
}
KVI_PRIVATE void kvi_compressed_iter_last(kv_iter *iter)
{
    kvi_compressed_iter *i = kvi_compressed_iter_of(iter);
    i->inner->ops->last(kvi_compressed_iter_before_seek(i));
    kvi_compressed_iter_moved(i);
}
KVI_PRIVATE void kvi_compressed_iter_next(kv_iter *iter)
{
    kvi_compressed_iter *i = kvi_compressed_iter_of(iter);
    i->inner->ops->next(i->inner);
    kvi_compressed_iter_moved(i);
}
KVI_PRIVATE void kvi_compressed_iter_prev(kv_iter *iter)
{
    kvi_compressed_iter *i = kvi_compressed_iter_of(iter);
    i->inner->ops->prev(i->inner);
    kvi_compressed_iter_moved(i);
}
KVI_PRIVATE kv_slice kvi_compressed_iter_value(kv_iter *iter)
{
    kvi_compressed_iter *i = kvi_compressed_iter_of(iter);
    kv_compressed       *c = kvi_compressed_of(iter->store);
    const char          *why = NULL;
    kv_slice             packed;
    kv_status            s;
    if (i->unpacked) return i->base.value;
    packed = i->inner->ops->value ? i->inner->ops->value(i->inner) : i->inner->value;
    s = i->inner->status < 0 ? kvi_compressed_pass(c, i->inner->status) : KV_OK;
    if (s == KV_OK) {
        s = kvi_unpack(c->compressor, NULL, packed, &i->raw, &why);
        if (s < 0) s = kvi_compressed_fail(c, s, i->base.key, why);
    }
    if (s < 0) {
        i->base.valid = false;
        i->base.status = s;
        return kv_bytes(NULL, 0);
    }
    i->unpacked = true;
    i->base.value = kv_buf_slice(&i->raw);
    return i->base.value;
}
KVI_PRIVATE void kvi_compressed_iter_close(kv_iter *iter)
{
    kvi_compressed_iter *i = kvi_compressed_iter_of(iter);
    kv_allocator         a = i->base.allocator;
    kv_iter_close(i->inner);
    kv_buf_free(&i->raw);
    kvi_free(&a, i, sizeof *i);
}

KVI_PRIVATE kv_status kvi_compressed_iter_open(kv_store *store, kv_iter **iter)
{
    static const kv_iter_ops ops = {
        kvi_compressed_iter_seek, kvi_compressed_iter_seek_before, kvi_compressed_iter_last,
        kvi_compressed_iter_next, kvi_compressed_iter_prev, kvi_compressed_iter_value, kvi_compressed_iter_close
    };
    kv_compressed       *c = kvi_compressed_of(store);
    const kv_allocator  *a = &c->compressor->options.allocator;
    kvi_compressed_iter *i;
    kv_status            s;
    if (!c->inner->ops->iter_open) return kvi_compressed_fail(c, KV_ERR_UNSUPPORTED, kv_bytes(NULL, 0), NULL);
    i = (kvi_compressed_iter *)kvi_alloc_zero(a, sizeof *i);
    if (!i) return kvi_compressed_fail(c, KV_ERR_NO_MEMORY, kv_bytes(NULL, 0), NULL);
    s = kvi_compressed_pass(c, c->inner->ops->iter_open(c->inner, &i->inner));
    if (s < 0) { kvi_free(a, i, sizeof *i); return s; }
    i->base.ops = &ops;
    i->base.store = store;
    i->base.allocator = i->raw.allocator = *a;
    *iter = &i->base;
    return KV_OK;
}

/* ------------------------------------------------------------------------------------------------
   >>api   the wrapper's own calls                                                                 */

KVI_COMPRESS_DEFINE kv_status kv_compressed_open(kv_store *inner, const kv_compress_options *options, kv_compressed **compressed)
{
    static const kv_store_ops ops = {
        kvi_compressed_get, kvi_compressed_set, kvi_compressed_remove, kvi_compressed_exists, kvi_compressed_view,
        kvi_compressed_batch_get, kvi_compressed_batch_set, kvi_compressed_batch_remove, kvi_compressed_scan, kvi_compressed_count,
        kvi_compressed_iter_open, kvi_compressed_flush, kvi_compressed_close, kvi_compressed_store_stats, kvi_compressed_last_error
    };
    kv_compressor *compressor;
    kv_compressed *c;
    kvi_text       name;
    kv_status      s;
    if (!compressed) return KV_ERR_INVALID;
    *compressed = NULL;
    if (!inner) return kvi_compressor_refuse(options, KV_ERR_INVALID, "inner: there must be a store");
    s = kv_compressor_open(options, &compressor);
    if (s < 0) return s;
    c = (kv_compressed *)kvi_alloc_zero(&compressor->options.allocator, sizeof *c);
    if (!c) {
        kv_compressor_close(compressor);
        return kvi_compressor_refuse(options, KV_ERR_NO_MEMORY, NULL);
    }
    name = kvi_text_over(c->name, sizeof c->name);
    kvi_text_add(&name, "compressed(");
    kvi_text_add(&name, kv_store_name(inner));
    kvi_text_char(&name, ')');
    c->store.ops = &ops;
    c->store.name = c->name;
    c->store.caps = inner->caps;
    c->inner = inner;
    c->compressor = compressor;
    *compressed = c;
    return KV_OK;
}

KVI_COMPRESS_DEFINE void kv_compressed_close(kv_compressed *c)
{
    kv_allocator   a;
    kv_compressor *compressor;
    if (!c) return;
    compressor = c->compressor;
    a = compressor->options.allocator;
    kvi_free(&a, c, sizeof *c);
    kv_compressor_close(compressor);
}

KVI_COMPRESS_DEFINE kv_store      *kv_compressed_store(kv_compressed *c) { return c ? &c->store : NULL; }
KVI_COMPRESS_DEFINE kv_store      *kv_compressed_inner(kv_compressed *c) { return c ? c->inner : NULL; }
KVI_COMPRESS_DEFINE kv_codec       kv_compressed_codec(kv_compressed *c) { return c ? c->compressor->options.codec : KV_CODEC_DEFAULT; }
KVI_COMPRESS_DEFINE kv_compressor *kv_compressed_compressor(kv_compressed *c) { return c ? c->compressor : NULL; }

KVI_PRIVATE void kvi_compress_stats_add(kv_compress_stats *sum, const kv_compress_stats *part)
{
    sum->raw_bytes += kvi_peek_u64(&part->raw_bytes);
    sum->packed_bytes += kvi_peek_u64(&part->packed_bytes);
    sum->values += kvi_peek_u64(&part->values);
    sum->values_raw += kvi_peek_u64(&part->values_raw);
}
KVI_COMPRESS_DEFINE kv_status kv_compressed_stats(kv_compressed *c, kv_compress_stats *stats)
{
    kv_compress_stats sum;
    if (!c || !stats) return KV_ERR_INVALID;
    memset(&sum, 0, sizeof sum);
    kvi_compress_stats_add(&sum, &c->compressor->past);
    for (uint32_t i = 0; i < KVI_COMPRESS_CONTEXTS; i++) {
        kvi_compress_context *x = (kvi_compress_context *)kvi_load_ptr(&c->compressor->places[i].context);
        if (x) kvi_compress_stats_add(&sum, &x->stats);
    }
    *stats = sum;
    return KV_OK;
}

#endif /* KV_COMPRESS_IMPLEMENTATION */

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
