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

   Around a store, here a kv_mem: everything that takes a kv_store takes the wrapper.
       kv_compressed *c;
       kv_compressed_open(kv_mem_store(m), NULL, &c);
       kv_set(kv_compressed_store(c), KV_STR("page"), text);

   CONTENTS   docs: building, what a packed value is, codecs and levels, filters, dictionaries,
                    what is attainable without loss, threads, memory
              code: >>public >>config >>format >>contexts >>lz4 >>zstd >>codec
                    >>pack >>unpack >>train >>compressor >>wrapper >>cursor >>api

   BUILDING
   Switches for the implementation file, besides those of kv.h:
       KV_NO_LZ4, KV_NO_ZSTD   that library is neither included nor linked. What would need it gives
                               KV_ERR_UNSUPPORTED, and kv_last_error / kv_compressor_last_error say so
   Of zstd.h this uses, besides the stable part: custom allocators, frames without a magic number, and
   the switch that forces literals to be Huffman-coded. They are in the "static linking only" part of
   the header, and libzstd.so exports them (checked with 1.5.4 of Debian 12). Of lz4 it uses the stable
   part alone.

   WHAT A PACKED VALUE IS
   A tag, the raw size, what the codec made of it, a checksum over all of that: 7 bytes more than the
   codec's own output for values to 16 KiB. What would not shrink is stored as it is, with 5 bytes
   around it, so no value grows by more. The tag says how to read it back: the options of the reader do
   not matter, except that a value which was packed with a dictionary needs that dictionary.
   >>format has the grammar.

   CODECS AND LEVELS
       KV_CODEC_NONE    filters alone, or only a checksum
       KV_CODEC_LZ4     level 0 is LZ4's default; 3 to 12 LZ4 HC, slow to pack, as quick to unpack;
                        below 0 its acceleration, less packed and faster
       KV_CODEC_ZSTD    level 0 is 3; -131072 to 22
   Values of 64 to 4,096 bytes are looked at first: where sampled bytes are spread as evenly as random
   ones, no codec is tried, and the value is stored (about 30 ns instead of 300 to 4,000).

   THREADS
   A kv_compressor may be used by any number of threads at once, and so may a kv_compressed as far as
   the store inside may (KV_CAP_THREADS). Each call takes a context (the codecs' tables, scratch
   memory) out of a pool, without waiting.

   MEMORY
   A context takes 20 KB for LZ4, up to 262 KB for LZ4 HC, and for zstd 0.1 to some MB for packing,
   depending on level and size, and 0.1 MB for unpacking; there are as many as calls that ran at once.
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
    uint32_t  element_size;     /* bytes of one number: 1, 2, 4, 8; default 4. For SHUFFLE, BITSHUFFLE, and as a hint to AUTO */
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
   value is asked for; a callback may read the store. kv_set refuses values over size_max.
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
#define KVI_COMPRESS_DICTIONARY_VALUE ((size_t)128 << 10)   /* bytes: a dictionary does nothing for larger values */
#define KVI_COMPRESS_PROBE_MAX    ((size_t)4096)            /* bytes: larger values are what the codecs skip through themselves */
#define KVI_COMPRESS_KEEP_BYTES   ((size_t)16 << 20)        /* scratch memory over this is given back after the call */
#define KVI_COMPRESS_ANSWERS      32                        /* values of a batch_get that are in memory at once */
#define KVI_LZ4_LEVEL_HC          3
#define KVI_LZ4_LEVEL_MAX         12
#define KVI_LZ4_LEVEL_MIN         (-65537)
#define KVI_ZSTD_LEVEL_DEFAULT    3

/* ------------------------------------------------------------------------------------------------
   >>format   a packed value, format 0

       packed    = tag [ raw-size ] payload checksum
       tag       = 1 byte: bit 7 is 0 (a later format sets it), bit 6 is set where a dictionary was
                   used, bits 5 and 4 are the codec (0 none, 1 LZ4, 2 zstd), bits 3 to 0 the filter:
                   0 none; 1, 2, 3 bytes shuffled by 2, 4, 8; 4, 5, 6, 7 bits shuffled by 1, 2, 4, 8;
                   8 bf16, 9 fp16, 10 fp32
       raw-size  = LEB128, as short as it can be; not there where the tag is 0
       payload   = tag 0: the value itself
                   LZ4: one block; zstd: one frame without its magic number, of the filtered value
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
    LZ4_stream_t lz4;
    void        *lz4_hc;
#endif
#if KVI_ZSTD
    ZSTD_CCtx   *zstd;                  /* with the compressor's level */
    ZSTD_DCtx   *zstd_reader;
#endif
    kv_buf       packed, raw;           /* values on their way through the wrapper */
    kv_buf       pairs;                 /* kv_pair of a batch */
    kv_buf       answers[KVI_COMPRESS_ANSWERS];
    kv_compress_stats stats;
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
    ZSTD_CDict         *zstd_dictionary;
    ZSTD_DDict         *zstd_reader_dictionary;
#endif
    kv_compress_stats   past;           /* of contexts that are gone */
    bool                refused;        /* while opening: the allocator said no */
    kvi_error           error;
    kvi_compress_place  places[KVI_COMPRESS_CONTEXTS];
};

KVI_PRIVATE kv_status kvi_compress_error(kv_compressor *c, kv_status s, const char *what) { return kvi_error_set(&c->error, s, what); }

KVI_PRIVATE void kvi_compress_context_free(kv_compressor *c, kvi_compress_context *x)
{
    const kv_allocator *a = &c->options.allocator;
#if KVI_LZ4
    kvi_free(a, x->lz4_hc, (size_t)LZ4_sizeofStateHC());
#endif
#if KVI_ZSTD
    ZSTD_freeCCtx(x->zstd);
    ZSTD_freeDCtx(x->zstd_reader);
#endif
    kv_buf_free(&x->packed);
    kv_buf_free(&x->raw);
    kv_buf_free(&x->pairs);
    for (uint32_t i = 0; i < KVI_COMPRESS_ANSWERS; i++) kv_buf_free(&x->answers[i]);
    kvi_free(a, x, sizeof *x);
}

KVI_NOINLINE kvi_compress_context *kvi_compress_context_new(kv_compressor *c, uint32_t place)
{
    kvi_compress_context *x = (kvi_compress_context *)kvi_alloc_zero(&c->options.allocator, sizeof *x);
    if (!x) { (void)kvi_compress_error(c, KV_ERR_NO_MEMORY, NULL); return NULL; }
    x->place = place;
    x->packed.allocator = x->raw.allocator = x->pairs.allocator = c->options.allocator;
    for (uint32_t i = 0; i < KVI_COMPRESS_ANSWERS; i++) x->answers[i].allocator = c->options.allocator;
#if KVI_LZ4
    LZ4_initStream(&x->lz4, sizeof x->lz4);
#endif
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
    int acceleration = c->options.codec == KV_CODEC_LZ4 && c->options.level < 0 ? -c->options.level : 1, wrote;
    if (c->options.codec == KV_CODEC_LZ4 && c->options.level >= KVI_LZ4_LEVEL_HC) return kvi_lz4_pack_hc(c, x, raw, out, capacity, dictionary, s);
    if (dictionary) memcpy(&x->lz4, c->lz4_dictionary, sizeof x->lz4);
    else LZ4_resetStream_fast(&x->lz4);
    wrote = LZ4_compress_fast_continue(&x->lz4, (const char *)raw.data, (char *)out, (int)raw.size, kvi_lz4_int(capacity), acceleration);
    if (wrote > 0) return (size_t)wrote;
    LZ4_initStream(&x->lz4, sizeof x->lz4);     /* after a failure a fast reset is not enough */
    return 0;
}

KVI_PRIVATE kv_status kvi_lz4_unpack(const kv_compressor *c, kv_slice packed, uint8_t *out, size_t raw_size, bool dictionary)
{
    int got;
    if (packed.size > LZ4_MAX_INPUT_SIZE || raw_size > LZ4_MAX_INPUT_SIZE) return KV_ERR_CORRUPT;
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
    uint8_t       *block = (uint8_t *)memory - KVI_ZSTD_BLOCK_HEADER;
    size_t         size;
    if (!memory) return;
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
    if (!x->zstd) {
        x->zstd = kvi_zstd_new_writer(c, c->options.codec == KV_CODEC_ZSTD ? c->options.level : KVI_ZSTD_LEVEL_DEFAULT);
        if (!x->zstd) { *s = KV_ERR_NO_MEMORY; return 0; }
    }
    if (c->zstd_dictionary) ZSTD_CCtx_refCDict(x->zstd, dictionary ? c->zstd_dictionary : NULL);
    return kvi_zstd_wrote(ZSTD_compress2(x->zstd, out, capacity, raw.data, raw.size), s);
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

/* Our copy of the dictionary is referred to, not copied again. NULL from zstd is either no memory, or a
   dictionary that begins as one of zstd's and goes on as none. */
KVI_PRIVATE void *kvi_zstd_alloc_watched(void *opaque, size_t size)
{
    void *memory = kvi_zstd_alloc(opaque, size);
    if (!memory) ((kv_compressor *)opaque)->refused = true;
    return memory;
}
KVI_PRIVATE kv_status kvi_zstd_open_dictionary(kv_compressor *c)
{
    kv_slice       d = c->options.dictionary;
    ZSTD_customMem m = kvi_zstd_memory(c);
    m.customAlloc = kvi_zstd_alloc_watched;
    if (c->options.codec == KV_CODEC_ZSTD) {
        c->zstd_dictionary = ZSTD_createCDict_advanced(d.data, d.size, ZSTD_dlm_byRef, ZSTD_dct_auto, ZSTD_getCParams(c->options.level, 0, d.size), m);
        if (!c->zstd_dictionary) return c->refused ? KV_ERR_NO_MEMORY : KV_ERR_INVALID;
    }
    c->zstd_reader_dictionary = ZSTD_createDDict_advanced(d.data, d.size, ZSTD_dlm_byRef, ZSTD_dct_auto, m);
    if (!c->zstd_reader_dictionary) return c->refused ? KV_ERR_NO_MEMORY : KV_ERR_INVALID;
    return KV_OK;
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
    (void)c; (void)x; (void)packed; (void)out; (void)raw_size; (void)dictionary;
#if KVI_LZ4
    if (codec == KV_CODEC_LZ4) return kvi_lz4_unpack(c, packed, out, raw_size, dictionary);
#endif
#if KVI_ZSTD
    if (codec == KV_CODEC_ZSTD) return kvi_zstd_unpack(c, x, packed, out, raw_size, dictionary);
#endif
    return KV_ERR_UNSUPPORTED;
}

/* The text for a codec that is not there. */
KVI_PRIVATE kv_status kvi_codec_missing(kvi_error *e, kv_codec codec)
{
    kvi_text t = kvi_error_begin(e);
    kvi_text_add(&t, "codec ");
    kvi_text_add(&t, kv_codec_name(codec));
    kvi_text_add(&t, kv_codec_supported(codec) || (uint32_t)codec > (uint32_t)KV_CODEC_ZSTD ? " does not exist" : " is not compiled in");
    return kvi_error_end(e, KV_ERR_UNSUPPORTED);
}

/* ------------------------------------------------------------------------------------------------
   >>pack   a value on its way in

   1. too small, or looks random: store it          2. let the codec try, with no more room than makes
   it worth while                                   3. it did not fit: store it
   The checksum comes last, over everything.                                                       */

/* Would a codec have a chance? 64 bytes, spread over the value, are looked at: among 64 random ones 57
   are different, give or take 2; base64 has 41, JSON 25. A block of noise that occurs twice is taken
   for random, too; that is the price. */
#define KVI_COMPRESS_PROBES     64
#define KVI_COMPRESS_PROBES_RANDOM 52
KVI_PRIVATE bool kvi_compress_looks_random(kv_slice raw)
{
    const uint8_t *bytes = (const uint8_t *)raw.data;
    size_t         step = raw.size / KVI_COMPRESS_PROBES;
    uint8_t        seen[256];
    uint32_t       different = 0;
    memset(seen, 0, sizeof seen);
    for (uint32_t i = 0; i < KVI_COMPRESS_PROBES; i++) {
        uint8_t b = bytes[i * step + (i & 3) % step];
        different += 1u - seen[b];
        seen[b] = 1;
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

/* Room for the payload, so that packing saves at least a 64th. */
KVI_INLINE size_t kvi_pack_room(size_t raw_size) { return raw_size - raw_size / 64 - kvi_packed_size_bytes(raw_size); }

/* out has room for raw.size + KVI_PACKED_STORED_BYTES. Returns the bytes of the packed value; *s is
   KV_OK, or KV_ERR_NO_MEMORY. */
KVI_PRIVATE size_t kvi_pack(kv_compressor *c, kvi_compress_context *x, kv_slice raw, uint8_t *out, kv_status *s)
{
    const kv_compress_options *o = &c->options;
    bool     dictionary;
    uint8_t *payload;
    size_t   wrote;
    *s = KV_OK;

    /* 1. */
    if (raw.size < o->size_min || !raw.size || o->codec == KV_CODEC_NONE) return kvi_pack_stored(raw, out);
    if (raw.size >= KVI_COMPRESS_SIZE_MIN && raw.size <= KVI_COMPRESS_PROBE_MAX && kvi_compress_looks_random(raw)) return kvi_pack_stored(raw, out);

    /* 2. */
    dictionary = o->dictionary.size && raw.size <= KVI_COMPRESS_DICTIONARY_VALUE;
    payload = out + KVI_PACKED_TAG_BYTES;
    payload += kvi_packed_put_size(payload, raw.size);
    wrote = kvi_codec_pack(c, x, o->codec, raw, payload, kvi_pack_room(raw.size), dictionary, s);
    if (!wrote) return kvi_pack_stored(raw, out);

    out[0] = (uint8_t)((o->codec == KV_CODEC_LZ4 ? 1u : 2u) << 4 | (dictionary ? KVI_PACKED_DICTIONARY : 0));
    payload += wrote;
    kvi_packed_seal(out, (size_t)(payload - out), dictionary ? c->dictionary_hash : 0);
    return (size_t)(payload - out) + KVI_PACKED_CHECKSUM_BYTES;
}

KVI_PRIVATE kv_status kvi_compress_too_large(kv_compressor *c) { return kvi_compress_error(c, KV_ERR_TOO_LARGE, "value is over KV_VALUE_SIZE_MAX bytes"); }

/* ------------------------------------------------------------------------------------------------
   >>unpack   a value on its way out: checksum, tag, size, and only then memory and the codec      */

typedef struct kvi_packed {
    kv_codec codec;
    bool     dictionary;
    size_t   raw_size;
    kv_slice payload;
} kvi_packed;

KVI_PRIVATE kv_status kvi_unpack_damaged(kv_compressor *c, bool dictionary)
{
    return kvi_compress_error(c, KV_ERR_CORRUPT, !dictionary ? "packed value is damaged"
        : c->options.dictionary.size ? "packed value is damaged, or was packed with another dictionary"
                                     : "packed value is damaged, or was packed with a dictionary, which this compressor does not have");
}

KVI_PRIVATE kv_status kvi_unpack_header(kv_compressor *c, kv_slice packed, kvi_packed *p)
{
    static const kv_codec codecs[4] = { KV_CODEC_NONE, KV_CODEC_LZ4, KV_CODEC_ZSTD, KV_CODEC_DEFAULT };
    const uint8_t *b = (const uint8_t *)packed.data;
    size_t         end, at = KVI_PACKED_TAG_BYTES, used;
    if (!b || packed.size < KVI_PACKED_STORED_BYTES) return kvi_unpack_damaged(c, false);
    end = packed.size - KVI_PACKED_CHECKSUM_BYTES;
    p->dictionary = (b[0] & KVI_PACKED_DICTIONARY) != 0;
    if (kvi_load_le32(b + end) != kvi_checksum(b, end, p->dictionary ? c->dictionary_hash : 0)) return kvi_unpack_damaged(c, p->dictionary);
    p->codec = codecs[b[0] >> 4 & 3];
    if (b[0] & KVI_PACKED_NEWER || p->codec == KV_CODEC_DEFAULT || b[0] & 15)
        return kvi_compress_error(c, KV_ERR_VERSION, "value was packed by a newer version");
    p->raw_size = end - at;
    if (b[0]) {
        used = kvi_packed_get_size(b + at, end - at, &p->raw_size);
        if (!used || !p->raw_size || (p->dictionary && !c->options.dictionary.size)) return kvi_unpack_damaged(c, p->dictionary);
        at += used;
    }
    p->payload = kv_bytes(b + at, end - at);
    if (p->raw_size > c->options.size_max) return kvi_compress_error(c, KV_ERR_TOO_LARGE, "packed value inflates past size_max");
    return KV_OK;
}

KVI_PRIVATE kv_status kvi_unpack_payload(kv_compressor *c, kvi_compress_context *x, const kvi_packed *p, uint8_t *raw)
{
    kv_status s = kvi_codec_unpack(c, x, p->codec, p->payload, raw, p->raw_size, p->dictionary);
    if (s == KV_ERR_CORRUPT) return kvi_unpack_damaged(c, false);
    if (s == KV_ERR_UNSUPPORTED) return kvi_codec_missing(&c->error, p->codec);
    return s < 0 ? kvi_compress_error(c, s, NULL) : s;
}

/* Into a buffer, with a context that the caller has (or NULL: one is taken if it takes one). */
KVI_PRIVATE kv_status kvi_unpack(kv_compressor *c, kvi_compress_context *x, kv_slice packed, kv_buf *raw)
{
    kvi_compress_context *own = NULL;
    kvi_packed            p;
    kv_status             s = kvi_unpack_header(c, packed, &p);
    if (s < 0) return s;
    if (p.codec == KV_CODEC_NONE) {
        s = kv_buf_assign(raw, p.payload);
        return s < 0 ? kvi_compress_error(c, s, NULL) : s;
    }
    s = kv_buf_reserve(raw, p.raw_size);
    if (s < 0) return kvi_compress_error(c, s, NULL);
    if (!x) x = own = kvi_compress_acquire(c);
    if (!x) return KV_ERR_NO_MEMORY;
    s = kvi_unpack_payload(c, x, &p, (uint8_t *)raw->data);
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
    if (!kv_codec_supported(r->codec)) {
        return kvi_compressor_refuse(o, KV_ERR_UNSUPPORTED, r->codec == KV_CODEC_LZ4 ? "codec lz4 is not compiled in (KV_NO_LZ4)"
                                                                                    : "codec zstd is not compiled in (KV_NO_ZSTD)");
    }
    if ((uint32_t)r->filter > (uint32_t)KV_FILTER_AUTO) return kvi_compressor_refuse(o, KV_ERR_INVALID, "filter: no such filter");
    if (r->element_size > 8 || (r->element_size & (r->element_size - 1))) return kvi_compressor_refuse(o, KV_ERR_INVALID, "element_size: 1, 2, 4 or 8 bytes");
    if (!r->dictionary.data && r->dictionary.size) return kvi_compressor_refuse(o, KV_ERR_INVALID, "dictionary: NULL with a size");
    if (r->dictionary.size > KV_VALUE_SIZE_MAX) return kvi_compressor_refuse(o, KV_ERR_TOO_LARGE, "dictionary is over KV_VALUE_SIZE_MAX bytes");
    if (r->codec == KV_CODEC_LZ4 && (r->level < KVI_LZ4_LEVEL_MIN || r->level > KVI_LZ4_LEVEL_MAX)) return kvi_compressor_refuse(o, KV_ERR_INVALID, "level: -65537 to 12 for lz4");
#if KVI_ZSTD
    if (r->codec == KV_CODEC_ZSTD && !r->level) r->level = KVI_ZSTD_LEVEL_DEFAULT;
    if (r->codec == KV_CODEC_ZSTD && (r->level < ZSTD_minCLevel() || r->level > ZSTD_maxCLevel())) return kvi_compressor_refuse(o, KV_ERR_INVALID, "level: -131072 to 22 for zstd");
#endif
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
    ZSTD_freeCDict(c->zstd_dictionary);
    ZSTD_freeDDict(c->zstd_reader_dictionary);
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

KVI_COMPRESS_DEFINE const kv_compress_options *kv_compressor_options(const kv_compressor *c) { return c ? &c->options : NULL; }
KVI_COMPRESS_DEFINE const char *kv_compressor_last_error(const kv_compressor *c) { return c ? kvi_error_text(&c->error) : ""; }

/* A fixed buffer that is smaller than the worst case may still be large enough: pack beside it. */
KVI_PRIVATE kv_status kvi_compress_beside(kv_compressor *c, kvi_compress_context *x, kv_slice raw, kv_buf *packed)
{
    kv_status s = kv_buf_reserve(&x->packed, raw.size + KVI_PACKED_STORED_BYTES);
    if (s < 0) return s;
    x->packed.size = kvi_pack(c, x, raw, (uint8_t *)x->packed.data, &s);
    return s < 0 ? s : kv_buf_assign(packed, kv_buf_slice(&x->packed));
}

KVI_COMPRESS_DEFINE kv_status kv_compress(kv_compressor *c, kv_slice raw, kv_buf *packed)
{
    kvi_compress_context *x;
    kv_status             s;
    size_t                wrote;
    if (!c || !packed || (!raw.data && raw.size)) return KV_ERR_INVALID;
    if (raw.size > KV_VALUE_SIZE_MAX) return kvi_compress_too_large(c);
    x = kvi_compress_acquire(c);
    if (!x) return KV_ERR_NO_MEMORY;
    if (packed->fixed && packed->capacity < raw.size + KVI_PACKED_STORED_BYTES) s = kvi_compress_beside(c, x, raw, packed);
    else {
        s = kv_buf_reserve(packed, raw.size + KVI_PACKED_STORED_BYTES);
        if (s == KV_OK) {
            wrote = kvi_pack(c, x, raw, (uint8_t *)packed->data, &s);
            if (s == KV_OK) packed->size = wrote;
        }
    }
    kvi_compress_release(c, x);
    return s < 0 ? kvi_compress_error(c, s, NULL) : s;
}

KVI_COMPRESS_DEFINE kv_status kv_decompress(kv_compressor *c, kv_slice packed, kv_buf *raw)
{
    if (!c || !raw || (!packed.data && packed.size)) return KV_ERR_INVALID;
    return kvi_unpack(c, NULL, packed, raw);
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
    if (!kv_codec_supported(codec)) return kvi_codec_missing(&c->error, codec);
    if (codec == KV_CODEC_NONE || !raw_size) {
        if (packed.size != raw_size) return kvi_unpack_damaged(c, false);
        kvi_copy(out, packed.data, raw_size);
        return KV_OK;
    }
    x = kvi_compress_acquire(c);
    if (!x) return KV_ERR_NO_MEMORY;
    s = kvi_codec_unpack(c, x, codec, packed, (uint8_t *)out, raw_size, false);
    kvi_compress_release(c, x);
    if (s == KV_ERR_CORRUPT) return kvi_unpack_damaged(c, false);
    return s < 0 ? kvi_compress_error(c, s, NULL) : s;
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
/* A failure of ours, about a key (or none where its data is NULL), in the words of the compressor. */
KVI_PRIVATE kv_status kvi_compressed_fail(kv_compressed *c, kv_status s, kv_slice key, const char *what)
{
    kvi_text t = kvi_error_begin(&c->error);
    if (key.data) { kvi_text_add(&t, "key "); kvi_text_key(&t, key); kvi_text_add(&t, ": "); }
    kvi_text_add(&t, what ? what : kv_status_text(s));
    kvi_poke_u32(&c->failed_here, 1);
    return kvi_error_end(&c->error, s);
}
/* A failure of unpacking: the compressor has the words, unless it was the caller's fixed buffer. */
KVI_PRIVATE kv_status kvi_compressed_fail_unpack(kv_compressed *c, kv_status s, kv_slice key)
{
    return kvi_compressed_fail(c, s, key, kvi_error_text(&c->compressor->error));
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
    size_t    needed = x->packed.size + raw.size + KVI_PACKED_STORED_BYTES, capacity = x->packed.capacity * 2;
    kv_status s = KV_OK;
    if (needed > x->packed.capacity) s = kv_buf_reserve(&x->packed, needed > capacity ? needed : capacity);
    if (s == KV_OK) {
        size_t wrote = kvi_pack(c->compressor, x, raw, (uint8_t *)x->packed.data + x->packed.size, &s);
        if (s == KV_OK) x->packed.size += wrote;
    }
    return s;
}
KVI_INLINE bool kvi_packed_is_stored(kv_slice packed) { return *(const uint8_t *)packed.data == 0; }

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
    v->status = kvi_unpack(v->c->compressor, NULL, packed, v->value);
    if (KVI_UNLIKELY(v->status < 0)) v->status = kvi_compressed_fail_unpack(v->c, v->status, key);
    return false;
}

/* Unpack into a context's buffer and show it; the context is ours until visit returns. */
KVI_PRIVATE bool kvi_compressed_show_unpacked(kvi_compressed_visit *v, kv_slice key, const kvi_packed *p)
{
    kv_compressor        *c = v->c->compressor;
    kvi_compress_context *x = kvi_compress_acquire(c);
    bool                  more = false;
    if (!x) { v->status = kvi_compressed_fail(v->c, KV_ERR_NO_MEMORY, key, NULL); return false; }
    v->status = kv_buf_reserve(&x->raw, p->raw_size);
    if (v->status < 0) v->status = kvi_compressed_fail(v->c, v->status, key, NULL);
    else {
        v->status = kvi_unpack_payload(c, x, p, (uint8_t *)x->raw.data);
        if (v->status < 0) v->status = kvi_compressed_fail_unpack(v->c, v->status, key);
        else more = v->visit(v->user, key, kv_bytes(x->raw.data, p->raw_size));
    }
    kvi_compress_release(c, x);
    return more;
}
KVI_PRIVATE bool kvi_compressed_show(void *user, kv_slice key, kv_slice packed)
{
    kvi_compressed_visit *v = (kvi_compressed_visit *)user;
    kvi_packed            p;
    v->status = kvi_unpack_header(v->c->compressor, packed, &p);
    if (KVI_UNLIKELY(v->status < 0)) { v->status = kvi_compressed_fail_unpack(v->c, v->status, key); return false; }
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
    kv_status s, result;
    for (size_t i = 0; i < count; i++) statuses[i] = KV_NOT_FOUND;
    result = kvi_compressed_pass(c, kv_batch_get(c->inner, keys, count, x->answers, statuses));
    for (size_t i = 0; i < count; i++) {
        if (statuses[i] != KV_OK) continue;
        s = kvi_unpack(c->compressor, x, kv_buf_slice(&x->answers[i]), &values[i]);
        if (s < 0) statuses[i] = kvi_compressed_fail_unpack(c, s, keys[i]);
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
    kv_slice             packed;
    kv_status            s;
    if (i->unpacked) return i->base.value;
    packed = i->inner->ops->value ? i->inner->ops->value(i->inner) : i->inner->value;
    s = i->inner->status < 0 ? kvi_compressed_pass(c, i->inner->status) : KV_OK;
    if (s == KV_OK) {
        s = kvi_unpack(c->compressor, NULL, packed, &i->raw);
        if (s < 0) s = kvi_compressed_fail_unpack(c, s, i->base.key);
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
