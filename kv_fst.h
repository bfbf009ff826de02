/* kv_fst.h - v0.1.0 - frozen map: sorted keys in, one small string of bytes out, queried where it lies
   SPDX-License-Identifier: MIT (full text at the end of this file)

   In *one* C or C++ file:   #define KV_FST_IMPLEMENTATION
                             #include "kv_fst.h"      (kv.h, kv_simd.h lie beside it, xxhash.h is installed)
   QUICK START
       kv_fst_builder *b;
       kv_fst         *f;
       uint64_t        population;
       if (kv_fst_build_begin_file(NULL, "towns.fst", &b) < 0) return 1;
       kv_fst_add(b, KV_STR("bern"), 134000);
       kv_fst_add(b, KV_STR("bonn"), 336000);               // strictly ascending
       if (kv_fst_build_finish(b) < 0) return 1;            // the first error of all the adds
       if (kv_fst_open_file(NULL, "towns.fst", &f) != KV_OK) return 1;
       if (kv_fst_get(f, KV_STR("bonn"), &population) == KV_OK) printf("%u\n", (unsigned)population);
       kv_fst_close(f);

   CONTENTS   docs: options, building, reading, automata, regular expressions, set operations, threads,
                    memory, safety, limits, errors
              code: >>public >>config >>format >>blocks >>search >>values >>cursor >>check >>open
                    >>query >>store >>output >>train >>encode >>build >>automaton >>levenshtein
                    >>subsequence >>regex >>walk >>sets >>dot

   OPTIONS (implementation file)
       KV_FST_READER_ONLY   open, get, rank, select, scan and cursors alone: no builder, no automata, no
                            set operations. For firmware that reads an array in flash.
       KV_FST_LOOKUP_ONLY   of those, open with skip_verify and single keys alone (get, view, exists, rank): open
                            without skip_verify, kv_fst_check, select, scans and cursors are KV_ERR_UNSUPPORTED
                            and are not in the program.
       -Os                  the short way to the same answers: entries one by one instead of in vectors. Slower,
                            and a failure's text is that of its status.
       and those of kv.h: KV_STATIC, KV_NO_THREADS, KV_NO_MALLOC, KV_NO_STDIO, KV_NO_FILES, KV_ASSERT

   BUILDING
   Keys arrive strictly ascending and leave as a stream of bytes: to a function of yours, or to a file
   that appears under its name whole or not at all. The builder remembers its first failure: every
   later add returns it again, and so does finish. The same input and options give the same bytes.
   A value is nothing (KV_FST_SET), 64 bits (KV_FST_U64, the default is KV_FST_SET) or bytes. Values
   that follow the key's number (its rank, a line number, the offset of a record of fixed size) cost
   nothing; others cost the bits they need within their leaf.

   READING
   Nothing is unpacked at open: queries run on the bytes themselves, in ROM, in a mapped file, at any
   alignment. get, rank and exists allocate nothing. Scans and cursors hold one key.

   AUTOMATA
   kv_fst_search walks keys and automaton together and skips at once everything that begins like a
   prefix on which the automaton died. Three are built in; kv_automaton is public, so write your own.

   REGULAR EXPRESSIONS (kv_automaton_regex)
   The whole key must match. Characters are UTF-8 code points; where a pattern or a key holds bytes that
   are no UTF-8, each of them counts as a character of its own in classes and literals, and . matches
   it too.
       x        itself              .          any character            \x41  the byte 0x41
       [a-z_]   one of these        [^a-z]     any other character      \d \w \s \D \W \S  as usual, in ASCII
       xy x|y (x)   in a row, either, grouped (also (?:x))              \. \\ \n \t ...    escapes
       x* x+ x? x{3} x{3,} x{3,7}   repeated
   Limits: KV_REGEX_SIZE_MAX positions after the repetitions are written out, groups nested
   KV_REGEX_DEPTH_MAX deep. What is over them, or is not a pattern, is KV_ERR_INVALID. There is no
   backtracking: time is proportional to the bytes that are looked at.

   SET OPERATIONS
   kv_fst_merge, _intersect, _subtract and _symmetric stream any number of maps into a builder.

   THREADS
   A kv_fst may be read by any number of threads at once. A builder, a cursor and a search belong to one
   thread at a time; a kv_automaton may be shared once it is made.

   MEMORY
   A builder stays below memory_limit_bytes, whatever the input, but for keys of many kilobytes (64 of
   them are held at each level of the index). An open map is some 1.5 KB and 32 bytes a dictionary; a
   cursor is 13 KB and the longest key (with -Os 200 bytes and that key). Checking at open takes 48 bytes a
   state (one state is some 50 keys; with -Os 24) and gives them back.

   SAFETY
   Opening verifies a checksum over every byte, and then the structure: counts, extents, that references
   lead backwards. So damage is found, and the bytes are those that a builder wrote, which are in order. A
   checksum keeps nobody from making a file by hand, though: whoever must know that such keys are in order
   too asks kv_fst_check, which spells them all. With skip_verify open verifies nothing and costs nothing.
   In any case any bytes at all cannot crash, loop, or read outside, also while they change under the map:
   answers may be wrong, or KV_ERR_CORRUPT. The bytes of a key are never trusted to fit a buffer.

   LIMITS
   Keys of KV_KEY_SIZE_MAX bytes, values of KV_VALUE_SIZE_MAX, files of 2^48 bytes.

   ERRORS
   KV_ERR_CORRUPT for what fails verification, KV_ERR_VERSION for a newer format, KV_ERR_ORDER with a
   text that names both keys. Texts: kv_last_error(kv_fst_store(f)), kv_fst_build_error(b), and
   error_text in the options for what has no object left to ask. */

/* ------------------------------------------------------------------------------------------------
   >>public   the interface                                                                        */
#if defined(KV_IMPLEMENTATION) && !defined(KV_FST_IMPLEMENTATION)
#define KV_FST_IMPLEMENTATION
#endif
#if defined(KV_FST_IMPLEMENTATION) && !defined(KV_SIMD_IMPLEMENTATION)
#define KV_SIMD_IMPLEMENTATION
#define KVI_SIMD_IMPLIED 1
#endif
#include "kv_simd.h"
#if KV_VERSION < 100
#error "kv_fst.h 0.1 needs kv.h 0.1 or newer: copy both headers from the same release"
#endif

#ifndef KV_FST_INCLUDED
#define KV_FST_INCLUDED 1

#ifdef __cplusplus
extern "C" {
#endif

#define KV_REGEX_SIZE_MAX      1024u    /* positions of a regular expression, repetitions written out */
#define KV_REGEX_DEPTH_MAX     32u      /* nested groups */
#define KV_LEVENSHTEIN_MAX     64u      /* the greatest distance */
#define KV_AUTOMATON_STATE_MAX 256u     /* bytes of a state */

typedef struct kv_fst kv_fst;                   /* an open map; begins with a kv_store */
typedef struct kv_fst_builder kv_fst_builder;

/* ---- building ---- */

typedef enum kv_fst_values {    /* what each key carries */
    KV_FST_SET = 0,             /* nothing; reads as an empty value */
    KV_FST_U64 = 1,             /* 64 bits; reads as 8 bytes little-endian */
    KV_FST_BYTES = 2            /* 0 to KV_VALUE_SIZE_MAX bytes */
} kv_fst_values;

typedef struct kv_fst_build_options {
    kv_allocator  allocator;            /* {0}: malloc */
    kv_fst_values values;
    size_t        memory_limit_bytes;   /* default 64 MiB, at least 1 MiB. More lets the dictionary see more */
    const kv_io  *io;                   /* for begin_file; default: this system's files */
    char         *error_text;           /* the first failure in words is written here; NULL: nowhere */
    size_t        error_text_size;      /* bytes of it; 240 hold every text */
} kv_fst_build_options;

/* Takes the next bytes of the file; anything but KV_OK stops the build and is what finish returns.
   Called with at most 64 KiB at a time, never with nothing. */
typedef kv_status (*kv_write_fn)(void *user, const void *data, size_t size);

/* Start a build whose bytes go to `write`, in order, from the first add to finish.
   Returns   KV_OK, KV_ERR_NO_MEMORY, KV_ERR_INVALID. Ended by kv_fst_build_finish or _abandon. */
KV_API kv_status kv_fst_build_begin(const kv_fst_build_options *o, kv_write_fn write, void *user, kv_fst_builder **b);

/* Start a build into a file. The bytes go to `path` + ".tmp", which finish syncs and renames, and then
   it syncs the directory; until then, and after a failure or abandon, whatever was at `path` is still
   there and the temporary file is gone. A .tmp left by a crash is written over. One build a path at a time.
   Besides the above KV_ERR_IO, KV_ERR_NO_SPACE, KV_ERR_UNSUPPORTED where there are no files. */
KV_API kv_status kv_fst_build_begin_file(const kv_fst_build_options *o, const char *path, kv_fst_builder **b);

/* Add the next key, greater than all before.
   value     ignored in a set. In a map of bytes this is KV_ERR_INVALID (and kv_fst_add_bytes in a map of
             numbers; in a set it takes an empty value).
   Returns   KV_OK, KV_ERR_ORDER, KV_ERR_TOO_LARGE, or what write or memory said; the first failure of the
             builder is returned from then on. Cost: about 1 us, in bursts. */
KV_API kv_status kv_fst_add(kv_fst_builder *b, kv_slice key, uint64_t value);
KV_API kv_status kv_fst_add_bytes(kv_fst_builder *b, kv_slice key, kv_slice value);

/* End the build. Returns the first failure of all, or KV_OK: then every byte was taken by write, or the
   file is in place. The builder is gone in any case. */
KV_API kv_status kv_fst_build_finish(kv_fst_builder *b);
KV_API void      kv_fst_build_abandon(kv_fst_builder *b);                /* NULL is fine */
KV_API const char *kv_fst_build_error(const kv_fst_builder *b);         /* the first failure in words, or "" */

/* ---- reading ---- */

typedef struct kv_fst_options {
    kv_allocator allocator;             /* {0}: malloc */
    bool         skip_verify;           /* trust the bytes: open in no time (see SAFETY) */
    const kv_io *io;                    /* for open_file; default: this system's files */
    char        *error_text;            /* why open failed, in words, and behind them the file; NULL: nowhere */
    size_t       error_text_size;
} kv_fst_options;

/* Open a map that lies in memory. `bytes` is borrowed until close: ROM, an array, a mapping of yours.
   Returns   KV_OK, KV_ERR_CORRUPT, KV_ERR_VERSION, KV_ERR_NO_MEMORY, KV_ERR_INVALID.
   Cost      with verification about 0.2 ns a byte; without, some reads. */
KV_API kv_status kv_fst_open_memory(const kv_fst_options *o, kv_slice bytes, kv_fst **f);

/* Open a file: memory-mapped where the system can, read into memory elsewhere. Besides the above
   KV_NOT_FOUND, KV_ERR_IO, KV_ERR_UNSUPPORTED where there are no files, KV_ERR_TOO_LARGE where it is
   larger than the address space. */
KV_API kv_status kv_fst_open_file(const kv_fst_options *o, const char *path, kv_fst **f);
KV_API void      kv_fst_close(kv_fst *f);                                /* NULL is fine */

/* The map as a store: values are nothing, 8 bytes little-endian, or the bytes. Writes are
   KV_ERR_READ_ONLY. kv_count of a range costs two lookups. */
KV_API kv_store *kv_fst_store(kv_fst *f);

/* KV_OK and the value; KV_NOT_FOUND. A set gives 0; a map of bytes KV_ERR_WRONG_TYPE. No allocation. */
KV_API kv_status kv_fst_get(kv_fst *f, kv_slice key, uint64_t *value);
/* Copies the value, as the store has it. kv_fst_view shows it where it lies, without a copy. */
KV_API kv_status kv_fst_get_bytes(kv_fst *f, kv_slice key, kv_buf *value);
KV_API kv_status kv_fst_view(kv_fst *f, kv_slice key, kv_visit_fn visit, void *user);
KV_API kv_status kv_fst_exists(kv_fst *f, kv_slice key);

/* How many keys are smaller than `key`: set with KV_OK (it is a key, and this is its number from 0) and
   with KV_NOT_FOUND. No allocation. */
KV_API kv_status kv_fst_rank(kv_fst *f, kv_slice key, uint64_t *rank);
/* The key of that number; KV_NOT_FOUND past the end. */
KV_API kv_status kv_fst_select(kv_fst *f, uint64_t rank, kv_buf *key);

/* Visit a range (NULL: everything) in its order. KV_OK also where visit stopped it. visit may read the map. */
KV_API kv_status kv_fst_scan(kv_fst *f, const kv_range *range, kv_visit_fn visit, void *user);
KV_API kv_status kv_fst_iter_open(kv_fst *f, const kv_range *range, kv_iter **iter);
KV_API uint64_t  kv_fst_count(const kv_fst *f);                          /* keys; 0 for NULL */
KV_API kv_fst_values kv_fst_values_of(const kv_fst *f);

typedef struct kv_fst_stats_t {
    uint64_t keys, key_bytes, value_bytes;      /* as they were added; value_bytes of a map of numbers is 8 a key */
    uint64_t size_bytes;                        /* the whole file */
    uint64_t states, arcs;                      /* states stored, and the arcs that lead out of them */
    uint64_t shared;                            /* states that were not stored because an equal one was there */
    uint64_t dictionary_bytes;                  /* of size_bytes */
    uint32_t dictionaries, levels;              /* levels of states above the leaves */
    uint32_t key_size_max;                      /* bytes of the longest key */
} kv_fst_stats_t;
KV_API kv_status kv_fst_stats(kv_fst *f, kv_fst_stats_t *stats);

/* Verify checksum and structure now, whatever open did, and that the keys ascend, are found where they
   lie, and are as long as is said. KV_OK or KV_ERR_CORRUPT (text: kv_last_error). Cost: some 12 ns a key. */
KV_API kv_status kv_fst_check(kv_fst *f);

/* ---- automata ---- */

/* Decides about keys byte by byte. A state is state_size bytes that the search keeps for you, one for
   each byte of the key it is at; they are moved with memcpy and aligned for any type up to 8 bytes.
   start      writes the state before the first byte.
   step       reads `state`, writes `next`, the state after one more byte. They never overlap.
   is_match   would a key that ends here match?
   can_match  may a key that goes on from here (or ends here) match? Answer true when in doubt; false
              makes the search skip every key that begins so. NULL: always true.
   free       NULL where there is nothing to free.
   None of them may fail, and all are called from the thread that searches. */
typedef struct kv_automaton {
    void   *user;                       /* given to each */
    size_t  state_size;                 /* 1 to KV_AUTOMATON_STATE_MAX */
    void  (*start)(const void *user, void *state);
    void  (*step)(const void *user, const void *state, uint8_t byte, void *next);
    bool  (*is_match)(const void *user, const void *state);
    bool  (*can_match)(const void *user, const void *state);
    void  (*free)(void *user);
    kv_allocator allocator;             /* kept for free by the built-in ones */
} kv_automaton;

/* All keys of the range that the automaton accepts, in the range's order (NULL: everything).
   Returns KV_OK, also where visit stopped it; KV_ERR_NO_MEMORY, KV_ERR_CORRUPT, KV_ERR_INVALID where a
   function is missing or state_size is out of its bounds. */
KV_API kv_status kv_fst_search(kv_fst *f, const kv_automaton *a, const kv_range *range, kv_visit_fn visit, void *user);

/* The three below fill *a, whatever it held; free it with kv_automaton_free. The text is not needed
   afterwards. KV_OK, KV_ERR_INVALID, KV_ERR_NO_MEMORY; on failure *a is safe to free. They use malloc;
   kv_automaton_make takes an allocator (NULL: malloc).

   levenshtein   keys that at most `distance` insertions, deletions and substitutions of a character
                 turn into `word` (V. Levenshtein, 1965); swapping two neighbours counts as two. Characters
                 are UTF-8 code points; a byte that is no part of valid UTF-8 counts as one.
   subsequence   keys that hold the characters of `letters` in this order, anything between them.
   regex         see REGULAR EXPRESSIONS (V. Glushkov, 1961). */
KV_API kv_status kv_automaton_levenshtein(kv_slice word, uint32_t distance, kv_automaton *a);
KV_API kv_status kv_automaton_subsequence(kv_slice letters, kv_automaton *a);
KV_API kv_status kv_automaton_regex(kv_slice pattern, kv_automaton *a);
typedef enum kv_automaton_kind { KV_AUTOMATON_LEVENSHTEIN = 1, KV_AUTOMATON_SUBSEQUENCE = 2, KV_AUTOMATON_REGEX = 3 } kv_automaton_kind;
KV_API kv_status kv_automaton_make(const kv_allocator *allocator, kv_automaton_kind kind, kv_slice text, uint32_t distance, kv_automaton *a);
KV_API void      kv_automaton_free(kv_automaton *a);                     /* leaves {0}; NULL is fine, and a user's own without free */

/* ---- set operations ---- */

/* Decides about a key that several inputs have.
   values    one for each input, as the store has it; data is NULL where that input has no such key (an
             empty value has data).
   result    what the key shall have. Empty before the call.
   Returns   KV_OK keeps `result`, KV_NOT_FOUND leaves the key out, a failure ends the operation. */
typedef kv_status (*kv_fst_merge_fn)(void *user, kv_slice key, const kv_slice *values, size_t count, kv_buf *result);

/* Add to `out`, ascending: merge the keys of any input, intersect those of all, subtract those of the
   first that no other has, symmetric those that an odd number has. Where several inputs have the key,
   resolve is asked; NULL: the first input that has it wins. Values become what `out` takes: into a set
   none, into numbers 8 bytes (a set's count as 0), else KV_ERR_WRONG_TYPE. None finishes `out`, which may
   have smaller keys from before (else KV_ERR_ORDER) and get greater ones after. Besides: what resolve and
   kv_fst_add return, KV_ERR_NO_MEMORY, KV_ERR_CORRUPT. Memory: a cursor for each input. */
KV_API kv_status kv_fst_merge    (kv_fst *const *inputs, size_t count, kv_fst_merge_fn resolve, void *user, kv_fst_builder *out);
KV_API kv_status kv_fst_intersect(kv_fst *const *inputs, size_t count, kv_fst_merge_fn resolve, void *user, kv_fst_builder *out);
KV_API kv_status kv_fst_subtract (kv_fst *const *inputs, size_t count, kv_fst_merge_fn resolve, void *user, kv_fst_builder *out);
KV_API kv_status kv_fst_symmetric(kv_fst *const *inputs, size_t count, kv_fst_merge_fn resolve, void *user, kv_fst_builder *out);

/* The states and arcs as a Graphviz drawing, text through `w`. For small maps. */
KV_API kv_status kv_fst_dot(kv_fst *f, kv_write_fn w, void *user);

#ifdef __cplusplus
}
#endif
#endif /* KV_FST_INCLUDED */

#if defined(KV_FST_IMPLEMENTATION) && !defined(KV_FST_IMPLEMENTED)
#define KV_FST_IMPLEMENTED 1

#if defined(KVI_FST_IMPLIED)
#define KVI_FST_DEFINE KVI_DEFINE_WEAK
#else
#define KVI_FST_DEFINE KVI_DEFINE
#endif

/* ------------------------------------------------------------------------------------------------
   >>config   sizes of the format, and the few bit tricks it leans on                              */

#define KVI_FST_VERSION      1u
#define KVI_FST_HEADER       8u         /* bytes */
#define KVI_FST_FOOTER       128u       /* bytes; also the slack that lets columns be read in whole vectors */
#define KVI_FST_ENTRIES      64u        /* of one state */
#define KVI_FST_LEVELS       16u        /* of states above the leaves; each has at least two arcs but for the last */
#define KVI_FST_TOKEN_BYTES  16u        /* the longest token */
#define KVI_FST_TOKENS_MAX   65000u
#define KVI_FST_DICTIONARIES 255u
#define KVI_FST_PIECE        65536u     /* bytes under one link of the checksum's chain */
#define KVI_FST_INLINE_MAX   1024u      /* a longer value lies outside its leaf */

KVI_INLINE uint32_t kvi_fst_popcount(uint64_t x)
{
#if defined(__POPCNT__) || defined(__aarch64__) || defined(__wasm__)
    return (uint32_t)__builtin_popcountll(x);
#else
    x -= (x >> 1) & UINT64_C(0x5555555555555555);
    x = (x & UINT64_C(0x3333333333333333)) + ((x >> 2) & UINT64_C(0x3333333333333333));
    x = (x + (x >> 4)) & UINT64_C(0x0F0F0F0F0F0F0F0F);
    return (uint32_t)((x * UINT64_C(0x0101010101010101)) >> 56);
#endif
}
/* KVI_SMALL (-Os): the reader goes over the entries of a state one by one, where it otherwise asks columns
   as a whole, and its cursor is a key's number. The answers are the same. */

#if KVI_SMALL
#define KVI_FST_TEXT(text) ((const char *)NULL)     /* then the status has to say it */
#else
#define KVI_FST_TEXT(text) text
#endif

/* the lowest `count` bits; count <= 64 */
KVI_INLINE uint64_t kvi_fst_low_bits(uint32_t count) { return count >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << count) - 1; }
/* bits that a number takes; 0 takes none */
KVI_INLINE uint32_t kvi_fst_width(uint64_t n) { return n ? kvi_highest_bit64(n) + 1 : 0; }

/* How many of 16 bytes agree, from the front. Reads 16 of each. */
KVI_INLINE uint32_t kvi_fst_common16(const uint8_t *a, const uint8_t *b)
{
#if KVI_X86 >= 1
    uint32_t same = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)a), _mm_loadu_si128((const __m128i *)(const void *)b)));
    return kvi_lowest_bit32(~same);         /* bit 16 of ~same is set */
#else
    uint64_t difference = kvi_load_word(a) ^ kvi_load_word(b);
    if (difference) return (uint32_t)kvi_first_byte(difference);
    difference = kvi_load_word(a + 8) ^ kvi_load_word(b + 8);
    return difference ? 8 + (uint32_t)kvi_first_byte(difference) : 16;
#endif
}

/* Which of 64 little-endian 16-bit numbers are >= bound, among those that `among` has a bit for.
   Reads 128 bytes. Where there are no vectors, the lowest such bit alone. */
KVI_INLINE uint64_t kvi_fst_at_least_16(const uint8_t *p, uint32_t bound, uint64_t among)
{
#if KVI_X86 >= 3
    __m512i least = _mm512_set1_epi16((short)bound);
    uint64_t low = _mm512_cmpge_epu16_mask(_mm512_loadu_si512((const void *)p), least);
    return (low | (uint64_t)_mm512_cmpge_epu16_mask(_mm512_loadu_si512((const void *)(p + 64)), least) << 32) & among;
#elif KVI_X86 >= 1
    __m128i  least = _mm_set1_epi16((short)bound), zero = _mm_setzero_si128();
    uint64_t result = 0;
    for (uint32_t i = 0; i < 4 && (among >> (16 * i)) != 0; i++) {
        __m128i a = _mm_cmpeq_epi16(_mm_subs_epu16(least, _mm_loadu_si128((const __m128i *)(const void *)(p + 32 * i))), zero);
        __m128i b = _mm_cmpeq_epi16(_mm_subs_epu16(least, _mm_loadu_si128((const __m128i *)(const void *)(p + 32 * i + 16))), zero);
        result |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_packs_epi16(a, b)) << (16 * i);
    }
    return result & among;
#else
    for (; among; among &= among - 1)
        if (kvi_load_le16(p + 2 * kvi_lowest_bit64(among)) >= bound) return among & (0 - among);
    return 0;
#endif
}
KVI_INLINE uint64_t kvi_fst_at_least_8(const uint8_t *p, uint32_t bound, uint64_t among)
{
#if KV_SIMD != KV_SIMD_SCALAR
    return ~kvi_lt64(p, (uint8_t)bound) & among;
#else
    for (; among; among &= among - 1) if (p[kvi_lowest_bit64(among)] >= bound) return among & (0 - among);
    return 0;
#endif
}

/* ------------------------------------------------------------------------------------------------
   >>format   the grammar. All numbers are little-endian; nothing is aligned

       file       = header { state | data } footer
       header     = "kvfst" 0 version:u8 0
       data       = 0xC0 size:u48 byte*size                 dictionaries, their table, large values
       state      = head columns ( arcs | values )

   A state is a sorted set of 1 to 64 strings, its entries. They are kept as columns. Entry 0 is whole;
   of the others the part that they share with the entry before is only counted (lcp), and what follows
   is the tail: its first symbol, and the rest. A symbol is a byte, or a token: the number of a string
   of up to 16 bytes in a dictionary that is sorted, so that tokens order as their first bytes do.

       head       = kind:2 count-1:6                        0 leaf of bytes, 1 leaf of tokens, 2 node, 3 data
                    lcp_width:4 rest_width:4                0 to 14; 15 stands for 16
                    skip:varint                             least lcp
                    rest0:varint                            symbols of entry 0
                    [ dictionary:u8 ]                       leaf of tokens
       columns    = lcp_width planes                        lcp - skip of entries 1 to count-1, bit by bit:
                    rest_width planes                       a plane is one bit of each entry, in (count+6)/8 bytes;
                    first*(count-1)                         symbols after the first likewise
                    rest*rest0 { rest*rests }               entry 0's symbols, then the others' rests

   The entries of a leaf are what is left of its keys; those of a node are separators: each is greater
   than all keys below the arc before it, and not greater than any key below its own. A node's arc i leads
   to a state that was written before, whose entries go on after the separator's first keep_i bytes: all
   of them, or some less where that state's keys spread over siblings of the separator's last byte. So a
   state's content does not depend on the way to it, and equal states are stored once: that makes it a
   transducer, with as many bytes on an arc as are kept, and its outputs are the counts of keys:

       arcs       = end_width-1:3 keep_width-1:1 ref_width:4
                    lowest:u48                              the lowest child's offset
                    end*count                               keys below arcs 0 to i
                    keep*count
                    ref*count                               child's offset - lowest

   Both encodings of a leaf, measured (numbers as values, AVX-512): a builder takes the smaller one leaf by leaf.
                                    tokens                                bytes alone
       bytes a key          8.62 paths  11.95 URLs  3.17 words     18.62 paths  22.68 URLs  3.69 words
       get, ns               608         444         340            548          413         327
       scan, M keys/s         73          58         118             79           76         150
       build, M keys/s      0.79        0.24        1.24            7.2          6.9         9.5

   Worked example, keys ape, apple, apply in one leaf, bytes as symbols:
       entry 0 "ape", entry 1 lcp 2 "p" + "le", entry 2 lcp 4 "y"
       02 (count 3)  22 (lcp - skip fits 2 bits, rests too)  02 skip  03 rest0
       planes of lcp - skip = 0, 2:  00 02    planes of rests = 2, 0:  00 01    70 79  "ape" "le"

   Values by the number (rank) of the key in the whole map, so that a state does not know it either:
       values     = slope:varint offset:zigzag width:u8 bits         u64: slope * rank + offset + bits
                  | width:5 zero:2 large:1 end:width*count [ mask ] blob   bytes: ends within the blob, bit by
                                                            bit; a large value's place holds offset:u48 size:u32

       dictionary = count:u32 pool:u32 start:u16*256 (place:20 size-1:4)*count byte*pool
                    start: the first token >= that byte; the pool's strings overlap
       footer     = root:u64 keys:u64 table:u64 states:u64 arcs:u64 key_bytes:u64 value_bytes:u64 shared:u64
                    dictionary_bytes:u64 size:u64 key_size_max:u32 levels:u8 values:u8 dictionaries:u8 0*25
                    "kvfst end" without its last letter, checksum:u64
       table      = offset:u64 of each dictionary
   checksum: of the pieces of 64 KiB in turn, each seeded with the one before; all of the file but itself. */

enum { KVI_FST_LEAF_BYTES = 0, KVI_FST_LEAF_TOKENS = 1, KVI_FST_NODE = 2, KVI_FST_DATA = 3 };

static const uint8_t kvi_fst_magic[8] = { 'k', 'v', 'f', 's', 't', 0, KVI_FST_VERSION, 0 };
static const uint8_t kvi_fst_end_magic[8] = { 'k', 'v', 'f', 's', 't', ' ', 'e', 'n' };

/* places in the footer */
enum {
    KVI_FST_AT_ROOT = 0, KVI_FST_AT_KEYS = 8, KVI_FST_AT_TABLE = 16, KVI_FST_AT_STATES = 24, KVI_FST_AT_ARCS = 32,
    KVI_FST_AT_KEY_BYTES = 40, KVI_FST_AT_VALUE_BYTES = 48, KVI_FST_AT_SHARED = 56, KVI_FST_AT_DICTIONARY_BYTES = 64,
    KVI_FST_AT_SIZE = 72, KVI_FST_AT_KEY_SIZE_MAX = 80, KVI_FST_AT_LEVELS = 84, KVI_FST_AT_VALUES = 85,
    KVI_FST_AT_DICTIONARIES = 86, KVI_FST_AT_ZERO = 87, KVI_FST_AT_MAGIC = 112, KVI_FST_AT_CHECKSUM = 120
};

/* A dictionary in place. */
typedef struct kvi_fst_dictionary {
    const uint8_t *starts, *places, *pool;
    uint32_t       count, pool_size;
} kvi_fst_dictionary;

struct kv_fst {
    kv_store       store;
    const uint8_t *bytes;
    size_t         data_end;            /* where the footer begins: everything else lies before */
    size_t         root;
    uint64_t       keys;
    uint32_t       levels, key_size_max, dictionary_count;
    kv_fst_values  values;
    const kvi_fst_dictionary *dictionaries;
    kv_allocator   allocator;
    const kv_io   *io;                  /* the bytes are a mapping of it, or, with owned, our copy */
    size_t         size, owned;
    kvi_error      error;
};

/* A number of `width` bytes. */
KVI_INLINE uint64_t kvi_fst_load(const uint8_t *p, uint32_t width)
{
#if KVI_SMALL
    uint64_t n = 0;
    while (width--) n = n << 8 | p[width];
    return n;
#else
    return kvi_load_le64(p) & kvi_fst_low_bits(8 * width);
#endif
}
KVI_INLINE uint64_t kvi_fst_load48(const uint8_t *p) { return kvi_fst_load(p, 6); }

/* 7 bits a byte, the lowest first. At most 10 bytes are read; a longer one is cut. */
KVI_INLINE uint64_t kvi_fst_varint(const uint8_t **p)
{
    uint64_t n = 0;
    uint32_t shift = 0;
    for (;;) {
        uint8_t b = *(*p)++;
        n |= (uint64_t)(b & 127u) << shift;
        shift += 7;
        if (b < 128 || shift > 63) return n;
    }
}
/* The `index`-th of numbers of `width` bits, width <= 56 or 64. */
KVI_INLINE uint64_t kvi_fst_bits(const uint8_t *p, uint32_t width, uint32_t index)
{
#if KVI_SMALL
    uint64_t n = 0;
    for (uint32_t at = width * index + width, left = width; left--;) { at--; n = n << 1 | (p[at / 8] >> (at & 7) & 1u); }
    return n;
#else
    uint64_t at = (uint64_t)width * index;
    return width == 64 ? kvi_load_le64(p + 8 * (size_t)index) : kvi_load_le64(p + at / 8) >> (at & 7) & kvi_fst_low_bits(width);
#endif
}

/* The bytes of a token, and how many, or NULL for what is none. 16 can be read. */
KVI_INLINE const uint8_t *kvi_fst_token(const kvi_fst_dictionary *d, uint32_t token, uint32_t *size)
{
    uint32_t place;
    if (KVI_UNLIKELY(token >= d->count)) return NULL;
    place = kvi_load_le32(d->places + 3 * (size_t)token);
    *size = (place >> 20 & 15u) + 1;
    place &= 0xFFFFFu;
    return KVI_LIKELY(place < d->pool_size) ? d->pool + place : NULL;
}

/* ------------------------------------------------------------------------------------------------
   >>blocks   a state in place: where its columns are, and what they say of one entry
   Invariant B1: kvi_fst_parse checked that all columns end before data_end, by widths that it keeps;
                 so whatever is read by these widths later lies inside, even if the bytes change.    */

typedef struct kvi_fst_block {
    const uint8_t *lcps, *counts, *firsts, *rests;
    const kvi_fst_dictionary *dictionary;       /* NULL: symbols are bytes */
#if !KVI_SMALL
    uint64_t mask;                              /* a bit for each column */
#endif
    uint32_t columns;                           /* entries but entry 0: column c is entry c + 1 */
    uint32_t plane_bytes, lcp_width, rest_width;
    uint32_t skip, rest0, rests_count;          /* rests_count: entry 0's too */
    const uint8_t *after;                       /* the arcs or values */
    size_t left;                                /* bytes from there to data_end */
    /* of a node */
    const uint8_t *ends, *keeps, *refs;
    uint64_t lowest;
    uint32_t end_width, keep_width, ref_width;
} kvi_fst_block;

KVI_INLINE uint32_t kvi_fst_plane_width(uint32_t nibble) { return nibble == 15 ? 16 : nibble; }
/* What the planes say of one column. */
KVI_INLINE uint32_t kvi_fst_column(const kvi_fst_block *b, const uint8_t *planes, uint32_t width, uint32_t column)
{
    uint32_t n = 0;
#if KVI_SMALL
    planes += column / 8;
    for (uint32_t k = 0; k < width; k++, planes += b->plane_bytes) n |= (*planes >> (column & 7) & 1u) << k;
#else
    for (uint32_t k = 0; k < width; k++) n |= (uint32_t)(kvi_load_le64(planes + (size_t)k * b->plane_bytes) >> column & 1u) << k;
#endif
    return n;
}
#if !KVI_SMALL
/* Their sum over the columns of `among`. */
KVI_INLINE uint32_t kvi_fst_sum(const kvi_fst_block *b, const uint8_t *planes, uint32_t width, uint64_t among)
{
    uint32_t sum = 0;
    for (uint32_t k = 0; k < width; k++) sum += kvi_fst_popcount(kvi_load_le64(planes + (size_t)k * b->plane_bytes) & among) << k;
    return sum;
}
#endif
/* How many symbols the rests are, but for entry 0's. */
KVI_INLINE uint32_t kvi_fst_rests(const kvi_fst_block *b)
{
#if KVI_SMALL
    uint32_t       sum = 0;
    const uint8_t *p = b->counts;
    for (uint32_t k = 0; k < b->rest_width; k++)
        for (uint32_t from = 0; from < b->columns; from += 8) {
            uint32_t byte = *p++;
            if (b->columns - from < 8) byte &= (1u << (b->columns - from)) - 1;
            for (; byte; byte &= byte - 1) sum += 1u << k;
        }
    return sum;
#else
    return kvi_fst_sum(b, b->counts, b->rest_width, b->mask);
#endif
}

KVI_INLINE uint32_t kvi_fst_entries(const kvi_fst_block *b) { return b->columns + 1; }
KVI_INLINE uint32_t kvi_fst_lcp(const kvi_fst_block *b, uint32_t entry)
{
    return entry ? b->skip + kvi_fst_column(b, b->lcps, b->lcp_width, entry - 1) : 0;
}
/* Symbols of an entry behind its first; of entry 0, all. */
KVI_INLINE uint32_t kvi_fst_rest_count(const kvi_fst_block *b, uint32_t entry)
{
    return entry ? kvi_fst_column(b, b->counts, b->rest_width, entry - 1) : b->rest0;
}
#if KVI_SMALL
/* The symbol at *p, which is moved on: its bytes and how many, or NULL for what is none. */
KVI_PRIVATE const uint8_t *kvi_fst_symbol(const kvi_fst_block *b, const uint8_t **p, uint32_t *size)
{
    const uint8_t *here = *p;
    *size = 1;
    *p += b->dictionary ? 2 : 1;
    return b->dictionary ? kvi_fst_token(b->dictionary, kvi_load_le16(here), size) : here;
}
#else
/* Where its rest begins among the rests, and how long it is; inside them even if the planes change. */
KVI_INLINE uint32_t kvi_fst_rest_at(const kvi_fst_block *b, uint32_t entry, uint32_t *count)
{
    uint32_t at = entry ? b->rest0 + kvi_fst_sum(b, b->counts, b->rest_width, kvi_fst_low_bits(entry - 1) & b->mask) : 0;
    *count = kvi_fst_rest_count(b, entry);
    if (KVI_LIKELY(at + *count <= b->rests_count)) return at;
    *count = 0;
    return 0;
}
/* Which columns have an lcp below `depth`, and which have just that one. */
KVI_INLINE uint64_t kvi_fst_below(const kvi_fst_block *b, uint32_t depth, uint64_t *same)
{
    uint64_t less = 0, equal = b->mask;
    if (depth < b->skip) { *same = 0; return 0; }
    depth -= b->skip;
    if (depth >> b->lcp_width) { *same = 0; return b->mask; }
    for (uint32_t k = b->lcp_width; k-- > 0;) {
        uint64_t plane = kvi_load_le64(b->lcps + (size_t)k * b->plane_bytes), one = 0 - (uint64_t)(depth >> k & 1u);
        less |= equal & ~plane & one;
        equal &= ~(plane ^ one);
    }
    *same = equal;
    return less;
}
#endif

/* The arcs behind a node's columns. */
KVI_INLINE bool kvi_fst_parse_arcs(kvi_fst_block *b)
{
    const uint8_t *p = b->after;
    uint32_t       entries = kvi_fst_entries(b);
    if (b->left < 7) return false;
    b->end_width = (p[0] & 7u) + 1;
    b->keep_width = (p[0] >> 3 & 1u) + 1;
    b->ref_width = p[0] >> 4;
    b->lowest = kvi_fst_load48(p + 1);
    if (b->ref_width > 6 || (size_t)entries * (b->end_width + b->keep_width + b->ref_width) > b->left - 7) return false;
    b->ends = p + 7;
    b->keeps = b->ends + (size_t)entries * b->end_width;
    b->refs = b->keeps + (size_t)entries * b->keep_width;
    return true;
}

/* Find the columns of the state at `offset`: a leaf, or a node. False: there is none. */
KVI_INLINE bool kvi_fst_parse_here(const kv_fst *f, size_t offset, bool leaf, kvi_fst_block *b)
{
    const uint8_t *p;
    uint64_t       skip, rest0;
    size_t         left, symbols;
    uint32_t       kind, symbol_size;
    if (offset < KVI_FST_HEADER || offset >= f->data_end) return false;
    p = f->bytes + offset;
    kind = p[0] >> 6;
    if (leaf ? kind > KVI_FST_LEAF_TOKENS : kind != KVI_FST_NODE) return false;
    b->columns = p[0] & 63u;
    b->lcp_width = kvi_fst_plane_width(p[1] & 15u);
    b->rest_width = kvi_fst_plane_width(p[1] >> 4);
    p += 2;
    skip = !KVI_SMALL && *p < 128 ? *p++ : kvi_fst_varint(&p);
    rest0 = !KVI_SMALL && *p < 128 ? *p++ : kvi_fst_varint(&p);
    if (skip > KV_KEY_SIZE_MAX || rest0 > KV_KEY_SIZE_MAX) return false;
    b->skip = (uint32_t)skip;
    b->rest0 = (uint32_t)rest0;
    b->dictionary = NULL;
    symbol_size = 1;
    if (kind == KVI_FST_LEAF_TOKENS) {
        if (*p >= f->dictionary_count) return false;
        b->dictionary = &f->dictionaries[*p++];
        symbol_size = 2;
    }
    b->plane_bytes = (b->columns + 7) / 8;
#if !KVI_SMALL
    b->mask = kvi_fst_low_bits(b->columns);
#endif
    left = (size_t)(b->lcp_width + b->rest_width) * b->plane_bytes;             /* until here: what is needed */
    b->lcps = p;
    b->counts = p + (size_t)b->lcp_width * b->plane_bytes;
    if ((size_t)(p - f->bytes) + left > f->data_end) return false;
    p += left;
    b->rests_count = b->rest0 + kvi_fst_rests(b);
    symbols = ((size_t)b->columns + b->rests_count) * symbol_size;
    left = f->data_end - (size_t)(p - f->bytes);                                /* and now what is there */
    if (symbols > left) return false;
    b->firsts = p;
    b->rests = p + (size_t)b->columns * symbol_size;
    b->after = p + symbols;
    b->left = left - symbols;
    return leaf || kvi_fst_parse_arcs(b);
}
KVI_PRIVATE bool kvi_fst_parse(const kv_fst *f, size_t offset, bool leaf, kvi_fst_block *b) { return kvi_fst_parse_here(f, offset, leaf, b); }

KVI_INLINE uint64_t kvi_fst_end(const kvi_fst_block *b, uint32_t entry) { return kvi_fst_load(b->ends + (size_t)entry * b->end_width, b->end_width); }
/* Keys below the arcs before this one. */
KVI_INLINE uint64_t kvi_fst_start(const kvi_fst_block *b, uint32_t entry) { return entry ? kvi_fst_end(b, entry - 1) : 0; }
/* Where an arc leads: the child's offset and how many bytes of key lie before its entries. */
KVI_INLINE bool kvi_fst_arc(const kvi_fst_block *b, size_t offset, uint32_t base, uint32_t entry, size_t *child, uint32_t *child_base)
{
    uint64_t at = b->lowest + (b->ref_width ? kvi_fst_load(b->refs + (size_t)entry * b->ref_width, b->ref_width) : 0);
    *child_base = base + (uint32_t)kvi_fst_load(b->keeps + (size_t)entry * b->keep_width, b->keep_width);
    *child = (size_t)at;
    return at < offset && *child_base <= KV_KEY_SIZE_MAX;
}

/* ------------------------------------------------------------------------------------------------
   >>search   a key against a state: one comparison of columns for each byte where siblings branch

   `at` is how many bytes of the key agree with the entry that we stand on. Entries that share more than
   `at` with their predecessor lie on the same side of the key as it does, so only those with lcp <= at
   matter: one with a smaller lcp is greater than the key, one with the same lcp is decided by its first
   symbol, and only where that begins with the key's next byte the tail is looked at.               */

/* What a search in a state found: the last entry that is not greater than the key. */
typedef struct kvi_fst_found {
    uint32_t entry;
    uint32_t at;            /* bytes of the key that agree with it */
    bool     whole;         /* the key begins with it; equal to it where at is the key's size */
    bool     before;        /* there is none: the key is less than entry 0 */
} kvi_fst_found;

enum { KVI_FST_LESS, KVI_FST_GREATER, KVI_FST_WHOLE, KVI_FST_BROKEN };     /* the key is less; greater; begins with all of it */

/* Where a key is, or would be. */
typedef struct kvi_fst_place {
    kvi_fst_block leaf;
    uint32_t      entry;
    uint64_t      rank;     /* keys that are less */
} kvi_fst_place;

#if KVI_SMALL
/* Compare symbols with the key from *at on; moves it over what agrees. */
KVI_PRIVATE int kvi_fst_meet(const kvi_fst_block *b, const uint8_t *symbols, uint32_t count, kv_slice key, uint32_t *at)
{
    for (; count; count--) {
        uint32_t       size;
        const uint8_t *text = kvi_fst_symbol(b, &symbols, &size);
        if (!text) return KVI_FST_BROKEN;
        for (; size; size--, text++, ++*at) {
            int difference = *at < key.size ? *text - ((const uint8_t *)key.data)[*at] : 1;
            if (difference) return difference > 0 ? KVI_FST_LESS : KVI_FST_GREATER;
        }
    }
    return KVI_FST_WHOLE;
}

/* Search the state whose entries begin after `base` bytes of the key, and which found->at and found->whole
   led to: whole, the key agrees with all that led here, so that entry 0 must be looked at; else it is
   greater. */
KVI_PRIVATE bool kvi_fst_search(const kvi_fst_block *b, uint32_t base, kv_slice key, kvi_fst_found *found)
{
    uint32_t entry, rest = 0, size = b->dictionary ? 2 : 1, here = 0;
    for (entry = 0; entry <= b->columns; entry++) {
        uint32_t lcp = base + kvi_fst_lcp(b, entry), count = kvi_fst_rest_count(b, entry);
        if (entry && lcp < found->at) break;
        if (entry ? lcp == found->at : found->whole) {
            uint32_t at = lcp;
            int      order = entry ? kvi_fst_meet(b, b->firsts + (size_t)(entry - 1) * size, 1, key, &at) : KVI_FST_WHOLE;
            if (rest + count > b->rests_count) return false;        /* the planes have changed */
            if (order == KVI_FST_WHOLE) order = kvi_fst_meet(b, b->rests + (size_t)rest * size, count, key, &at);
            if (order == KVI_FST_BROKEN) return false;
            if (order == KVI_FST_LESS) break;
            found->at = at;
            found->whole = order == KVI_FST_WHOLE;
            here = entry;
        }
        rest += count;
    }
    found->before = !entry;
    found->entry = entry - 1;
    if (here != found->entry) found->whole = false;
    return true;
}

/* KV_OK: `place` is the key's. KV_NOT_FOUND: only its rank counts. */
KVI_PRIVATE kv_status kvi_fst_find(const kv_fst *f, kv_slice key, kvi_fst_place *place)
{
    kvi_fst_found found = { 0, 0, true, false };
    size_t        offset = f->root;
    uint32_t      base = 0;
    place->rank = 0;
    if (!f->keys) return KV_NOT_FOUND;
    for (uint32_t level = f->levels;; level--) {
        kvi_fst_block *b = &place->leaf;
        if (!kvi_fst_parse(f, offset, level == 0, b) || !kvi_fst_search(b, base, key, &found)) return KV_ERR_CORRUPT;
        if (found.before) return KV_NOT_FOUND;
        if (!level) break;
        if (!kvi_fst_arc(b, offset, base, found.entry, &offset, &base)) return KV_ERR_CORRUPT;
        if (found.at < base) { place->rank += kvi_fst_end(b, found.entry); return KV_NOT_FOUND; }     /* greater than all below */
        place->rank += kvi_fst_start(b, found.entry);
    }
    place->entry = found.entry;
    place->rank += found.entry;
    if (found.whole && found.at == key.size) return KV_OK;
    place->rank++;
    return KV_NOT_FOUND;
}
#else
typedef struct kvi_fst_query {
    const uint8_t *data;
    uint32_t       size;
    uint8_t        pad[32];         /* the last 16 bytes again, and then room to read on */
} kvi_fst_query;

KVI_INLINE void kvi_fst_ask(kvi_fst_query *q, kv_slice key)
{
    uint32_t last = key.size < 16 ? (uint32_t)key.size : 16;
    q->data = key.size ? (const uint8_t *)key.data : q->pad;
    q->size = (uint32_t)key.size;
    memset(q->pad, 0, sizeof q->pad);
    kvi_copy(q->pad + 16 - last, q->data + key.size - last, last);
}
/* The key from `at` on; 16 bytes can be read. */
KVI_INLINE const uint8_t *kvi_fst_key_at(const kvi_fst_query *q, uint32_t at)
{
    uint32_t left = q->size - at;
    return left >= 16 ? q->data + at : q->pad + 16 - left;
}

KVI_INLINE int kvi_fst_meet_tokens(const kvi_fst_dictionary *d, const uint8_t *tokens, uint32_t count, const kvi_fst_query *q, uint32_t *at)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t       size, same, left = q->size - *at;
        const uint8_t *text = kvi_fst_token(d, kvi_load_le16(tokens + 2 * (size_t)i), &size);
        if (KVI_UNLIKELY(!text)) return KVI_FST_BROKEN;
        same = kvi_fst_common16(text, kvi_fst_key_at(q, *at));
        if (same > left) same = left;
        if (same < size) {
            *at += same;
            return same == left || text[same] > q->data[*at] ? KVI_FST_LESS : KVI_FST_GREATER;
        }
        *at += size;
    }
    return KVI_FST_WHOLE;
}
KVI_INLINE int kvi_fst_meet_bytes(const uint8_t *text, uint32_t size, const kvi_fst_query *q, uint32_t *at)
{
    for (;;) {
        uint32_t left = q->size - *at, same = kvi_fst_common16(text, kvi_fst_key_at(q, *at)), most = size < 16 ? size : 16;
        if (same > left) same = left;
        if (same < most) {
            *at += same;
            return same == left || text[same] > q->data[*at] ? KVI_FST_LESS : KVI_FST_GREATER;
        }
        *at += most;
        if (size <= 16) return KVI_FST_WHOLE;
        text += 16;
        size -= 16;
    }
}
KVI_INLINE int kvi_fst_meet(const kvi_fst_block *b, bool tokens, const uint8_t *symbols, uint32_t count, const kvi_fst_query *q, uint32_t *at)
{
    return tokens ? kvi_fst_meet_tokens(b->dictionary, symbols, count, q, at) : kvi_fst_meet_bytes(symbols, count, q, at);
}

/* The lcps of a state, ready to be compared many times: as a vector, or as the planes that they are. */
#if KVI_X86 >= 3
typedef struct kvi_fst_depths { __m512i bytes; } kvi_fst_depths;
KVI_INLINE kvi_fst_depths kvi_fst_depths_of(const kvi_fst_block *b)
{
    kvi_fst_depths d;
    d.bytes = _mm512_setzero_si512();
    for (uint32_t k = 0; k < b->lcp_width; k++)         /* of wide ones the low byte, and it is not used */
        d.bytes = _mm512_mask_add_epi8(d.bytes, (__mmask64)kvi_load_le64(b->lcps + (size_t)k * b->plane_bytes), d.bytes, _mm512_set1_epi8((char)(1u << (k & 7))));
    return d;
}
KVI_INLINE uint64_t kvi_fst_depths_below(const kvi_fst_depths *d, const kvi_fst_block *b, uint32_t depth, uint64_t *same)
{
    __m512i wanted = _mm512_set1_epi8((char)(depth - b->skip));
    if (KVI_UNLIKELY(b->lcp_width > 8)) return kvi_fst_below(b, depth, same);
    if (depth - b->skip > 255) { *same = 0; return depth < b->skip ? 0 : b->mask; }
    *same = _mm512_mask_cmpeq_epi8_mask(b->mask, d->bytes, wanted);
    return _mm512_mask_cmplt_epu8_mask(b->mask, d->bytes, wanted);
}
#else
typedef struct kvi_fst_depths { char unused; } kvi_fst_depths;
KVI_INLINE kvi_fst_depths kvi_fst_depths_of(const kvi_fst_block *b) { kvi_fst_depths d; (void)b; d.unused = 0; return d; }
KVI_INLINE uint64_t kvi_fst_depths_below(const kvi_fst_depths *d, const kvi_fst_block *b, uint32_t depth, uint64_t *same)
{
    (void)d;
    return kvi_fst_below(b, depth, same);
}
#endif

/* Search the state whose entries begin after `base` bytes of the key. `whole`: the key agrees with all
   that led here, so that entry 0 must be looked at; else it is greater and agrees for `at` >= base. */
KVI_INLINE bool kvi_fst_search_symbols(const kvi_fst_block *b, bool tokens, uint32_t base, const kvi_fst_query *q, uint32_t at, bool whole, kvi_fst_found *found)
{
    uint32_t       symbol_size = tokens ? 2 : 1, here = 0, column;
    uint64_t       live = b->mask;
    kvi_fst_depths depths = kvi_fst_depths_of(b);
    int            order;
    found->before = false;
    if (whole) {
        at = base;
        order = kvi_fst_meet(b, tokens, b->rests, b->rest0, q, &at);
        if (order == KVI_FST_BROKEN) return false;
        whole = order == KVI_FST_WHOLE;
        if (order == KVI_FST_LESS) { found->entry = 0; found->before = true; found->at = at; found->whole = false; return true; }
    }
    for (;;) {
        uint64_t same, stop = kvi_fst_depths_below(&depths, b, at - base, &same) & live;
        uint32_t next_at;
        same &= live;
        if (same && at < q->size) {
            same = tokens ? kvi_fst_at_least_16(b->firsts, kvi_load_le16(b->dictionary->starts + 2 * (size_t)q->data[at]), same)
                          : kvi_fst_at_least_8(b->firsts, q->data[at], same);
        }
        stop |= same;
        if (!stop) { column = b->columns; break; }
        column = kvi_lowest_bit64(stop);
        if (at == q->size || !(same >> column & 1)) break;
        next_at = at;
        if (tokens) order = kvi_fst_meet_tokens(b->dictionary, b->firsts + 2 * (size_t)column, 1, q, &next_at);
        else order = b->firsts[column] > q->data[next_at++] ? KVI_FST_LESS : KVI_FST_WHOLE;
        if (order == KVI_FST_WHOLE) {
            uint32_t count, rest = kvi_fst_rest_at(b, column + 1, &count);
            order = kvi_fst_meet(b, tokens, b->rests + (size_t)rest * symbol_size, count, q, &next_at);
        }
        if (order == KVI_FST_BROKEN) return false;
        if (order == KVI_FST_LESS) break;
        here = column + 1;
        at = next_at;
        whole = order == KVI_FST_WHOLE;
        if (whole && at == q->size) { column = here; break; }       /* it is the key: all behind it are greater */
        live &= ~kvi_fst_low_bits(here);
    }
    found->entry = column;              /* the entry before column `column` */
    found->at = at;
    found->whole = whole && column == here;
    return true;
}
KVI_INLINE bool kvi_fst_search_bytes(const kvi_fst_block *b, uint32_t base, const kvi_fst_query *q, uint32_t at, bool whole, kvi_fst_found *found)
{
    return kvi_fst_search_symbols(b, false, base, q, at, whole, found);
}
KVI_INLINE bool kvi_fst_search_leaf(const kvi_fst_block *b, uint32_t base, const kvi_fst_query *q, uint32_t at, bool whole, kvi_fst_found *found)
{
    return b->dictionary ? kvi_fst_search_symbols(b, true, base, q, at, whole, found) : kvi_fst_search_bytes(b, base, q, at, whole, found);
}

/* KV_OK: `place` is the key's. KV_NOT_FOUND: only its rank counts. */
KVI_PRIVATE kv_status kvi_fst_find(const kv_fst *f, kv_slice key, kvi_fst_place *place)
{
    kvi_fst_query q;
    kvi_fst_found found;
    size_t        offset = f->root;
    uint32_t      base = 0;
    kvi_fst_ask(&q, key);
    place->rank = 0;
    if (!f->keys) return KV_NOT_FOUND;
    found.at = 0;
    found.whole = true;
    for (uint32_t level = f->levels; level > 0; level--) {
        kvi_fst_block *b = &place->leaf;
        size_t         child;
        uint32_t       child_base;
        if (!kvi_fst_parse_here(f, offset, false, b)) return KV_ERR_CORRUPT;
        if (!kvi_fst_search_bytes(b, base, &q, found.at, found.whole, &found)) return KV_ERR_CORRUPT;
        if (found.before) return KV_NOT_FOUND;
        if (!kvi_fst_arc(b, offset, base, found.entry, &child, &child_base)) return KV_ERR_CORRUPT;
        if (found.at < child_base) { place->rank += kvi_fst_end(b, found.entry); return KV_NOT_FOUND; }   /* greater than all below */
        kvi_prefetch(f->bytes + child);
        kvi_prefetch(f->bytes + child + 64);
        if (level == 1) {                       /* a leaf is longer */
            const uint8_t *leaf = f->bytes + child;
            kvi_prefetch(leaf + 128); kvi_prefetch(leaf + 192); kvi_prefetch(leaf + 256);
            kvi_prefetch(leaf + 320); kvi_prefetch(leaf + 384); kvi_prefetch(leaf + 448);
        }
        place->rank += kvi_fst_start(b, found.entry);
        offset = child;
        base = child_base;
    }
    if (!kvi_fst_parse_here(f, offset, true, &place->leaf)) return KV_ERR_CORRUPT;
    if (!kvi_fst_search_leaf(&place->leaf, base, &q, found.at, found.whole, &found)) return KV_ERR_CORRUPT;
    if (found.before) return KV_NOT_FOUND;
    place->entry = found.entry;
    place->rank += found.entry;
    if (found.whole && found.at == q.size) return KV_OK;
    place->rank++;
    return KV_NOT_FOUND;
}
#endif

/* ------------------------------------------------------------------------------------------------
   >>values   of one entry of a leaf. Every offset is checked against data_end                     */

/* Of a leaf of numbers: slope * rank + offset + what the bits say of the entry. */
typedef struct kvi_fst_numbers { const uint8_t *bits; uint64_t slope, offset; uint32_t width; } kvi_fst_numbers;

KVI_INLINE bool kvi_fst_parse_numbers(const kvi_fst_block *b, kvi_fst_numbers *n)
{
    const uint8_t *p = b->after;
    uint64_t       offset;
    n->slope = kvi_fst_varint(&p);
    offset = kvi_fst_varint(&p);
    n->offset = offset >> 1 ^ (0 - (offset & 1));
    n->width = *p++;
    n->bits = p;
    if (n->width > 56 && n->width != 64) return false;
    return (size_t)(p - b->after) + ((size_t)kvi_fst_entries(b) * n->width + 7) / 8 <= b->left;
}
KVI_INLINE uint64_t kvi_fst_number(const kvi_fst_numbers *n, uint32_t entry, uint64_t rank)
{
    return n->slope * rank + n->offset + (n->width ? kvi_fst_bits(n->bits, n->width, entry) : 0);
}

/* Bytes in place. */
KVI_PRIVATE bool kvi_fst_value_bytes(const kv_fst *f, const kvi_fst_block *b, uint32_t entry, kv_slice *value)
{
    uint32_t       entries = kvi_fst_entries(b), width;
    bool           large;
    const uint8_t *ends, *mask, *blob;
    size_t         left = b->left, start, end, needed;
    if (!left) return false;
    width = b->after[0] & 31u;
    large = b->after[0] >> 7 != 0;
    ends = b->after + 1;
    mask = ends + ((size_t)entries * width + 7) / 8;
    blob = mask + (large ? (entries + 7) / 8 : 0);
    needed = (size_t)(blob - b->after);
    if (needed > left) return false;
    start = entry ? (size_t)kvi_fst_bits(ends, width, entry - 1) : 0;       /* of at most 31 bits */
    end = (size_t)kvi_fst_bits(ends, width, entry);
    if (end < start || end > left - needed) return false;
    if (large && (mask[entry / 8] >> (entry & 7) & 1)) {
        uint64_t at, size;
        if (end - start != 10) return false;
        at = kvi_fst_load48(blob + start);
        size = kvi_load_le32(blob + start + 6);
        if (at >= f->data_end || size > f->data_end - at || size > KV_VALUE_SIZE_MAX) return false;
        *value = kv_bytes(f->bytes + at, (size_t)size);
        return true;
    }
    *value = kv_bytes(blob + start, end - start);
    return true;
}

/* The value as the store shows it; `scratch` of 8 bytes holds it if it is a number. */
KVI_PRIVATE bool kvi_fst_value(const kv_fst *f, const kvi_fst_block *b, uint32_t entry, uint64_t rank, uint8_t *scratch, kv_slice *value)
{
    kvi_fst_numbers n;
    *value = kv_bytes(scratch, 0);
    if (f->values == KV_FST_SET) return true;
    if (f->values == KV_FST_BYTES) return kvi_fst_value_bytes(f, b, entry, value);
    if (!kvi_fst_parse_numbers(b, &n)) return false;
    kvi_store_le64(scratch, kvi_fst_number(&n, entry, rank));
    value->size = 8;
    return true;
}

/* ------------------------------------------------------------------------------------------------
   >>cursor   a position: the way from the root to a leaf, and the key that it spells (with -Os: a number and
              a leaf)

   Invariant C1: the key's first `base` bytes of each step are right, and while the cursor is on an entry
   all of them are. Two neighbours agree in lcp bytes, so a step forward writes only the tail; a step
   back, or a jump, collects the entries that supply the missing bytes (kvi_fst_spell).             */

#if KVI_SMALL
typedef struct kvi_fst_cursor {
    const kv_fst *f;
    uint8_t      *key;                  /* key_size_max bytes */
    uint32_t      key_size;
    kvi_fst_block leaf;
    uint32_t      base;
    bool          inside;               /* `leaf` is one, and the key is its entry next - 1: */
    uint64_t      first;                /* the number of its entry 0 */
    uint32_t      next, rest;           /* the entry to be spelt next, and where its rest begins */
} kvi_fst_cursor;

KVI_PRIVATE kvi_fst_cursor *kvi_fst_cursor_new(const kv_fst *f)
{
    kvi_fst_cursor *c = (kvi_fst_cursor *)kvi_alloc_zero(&f->allocator, sizeof *c + f->key_size_max);
    if (!c) return NULL;
    c->f = f;
    c->key = (uint8_t *)(c + 1);
    return c;
}
KVI_PRIVATE void kvi_fst_cursor_free(kvi_fst_cursor *c)
{
    if (c) kvi_free(&c->f->allocator, c, sizeof *c + c->f->key_size_max);
}

/* Append symbols, which are moved over, to the key. False: a token is none, or the key gets longer than any. */
KVI_PRIVATE bool kvi_fst_write(kvi_fst_cursor *c, const uint8_t *symbols, uint32_t count)
{
    for (; count; count--) {
        uint32_t       size;
        const uint8_t *text = kvi_fst_symbol(&c->leaf, &symbols, &size);
        if (!text || size > c->f->key_size_max - c->key_size) return false;
        memcpy(c->key + c->key_size, text, size);
        c->key_size += size;
    }
    return true;
}
/* Spell entries up to this one, each over the one before; from entry 0 on where it lies behind. */
KVI_PRIVATE bool kvi_fst_spell(kvi_fst_cursor *c, uint32_t entry)
{
    const kvi_fst_block *b = &c->leaf;
    uint32_t             size = b->dictionary ? 2 : 1;
    if (c->next > entry) c->next = c->rest = 0;
    for (; c->next <= entry; c->next++) {
        uint32_t count = kvi_fst_rest_count(b, c->next);
        c->key_size = c->base + kvi_fst_lcp(b, c->next);
        if (c->key_size > c->f->key_size_max || c->rest + count > b->rests_count) return false;
        if (c->next && !kvi_fst_write(c, b->firsts + (size_t)(c->next - 1) * size, 1)) return false;
        if (!kvi_fst_write(c, b->rests + (size_t)c->rest * size, count)) return false;
        c->rest += count;
    }
    return true;
}

/* To the key of that number; KV_END: there is none. On failures the cursor is nowhere. */
KVI_PRIVATE kv_status kvi_fst_to_rank(kvi_fst_cursor *c, uint64_t rank)
{
    const kv_fst  *f = c->f;
    kvi_fst_block *b = &c->leaf;
    size_t         offset = f->root;
    uint32_t       level = f->levels, entry = 0;
    bool           inside = c->inside && rank - c->first <= b->columns;
    c->inside = false;
    if (rank >= f->keys) return KV_END;
    if (!inside) {
        c->base = 0;
        c->first = rank;                /* until the leaf: how many keys below the state lie before it */
        for (;; level--) {
            if (!kvi_fst_parse(f, offset, level == 0, b)) return KV_ERR_CORRUPT;
            c->next = c->rest = 0;
            if (!level) break;
            for (entry = 0; entry < b->columns && kvi_fst_end(b, entry) <= c->first;) entry++;
            if (!kvi_fst_spell(c, entry)) return KV_ERR_CORRUPT;
            c->first -= kvi_fst_start(b, entry);
            if (!kvi_fst_arc(b, offset, c->base, entry, &offset, &c->base)) return KV_ERR_CORRUPT;
        }
        c->first = rank - c->first;
    }
    if (rank - c->first > b->columns || !kvi_fst_spell(c, (uint32_t)(rank - c->first))) return KV_ERR_CORRUPT;
    c->inside = true;
    return KV_OK;
}

KVI_INLINE kv_slice kvi_fst_key(const kvi_fst_cursor *c) { return kv_bytes(c->key, c->key_size); }
KVI_INLINE uint64_t kvi_fst_rank_here(const kvi_fst_cursor *c) { return c->first + c->next - 1; }
KVI_INLINE kv_status kvi_fst_next(kvi_fst_cursor *c) { return kvi_fst_to_rank(c, kvi_fst_rank_here(c) + 1); }
KVI_INLINE kv_status kvi_fst_prev(kvi_fst_cursor *c) { return kvi_fst_to_rank(c, kvi_fst_rank_here(c) - 1); }
KVI_INLINE kv_status kvi_fst_first(kvi_fst_cursor *c) { return kvi_fst_to_rank(c, 0); }
KVI_INLINE kv_status kvi_fst_last(kvi_fst_cursor *c) { return kvi_fst_to_rank(c, c->f->keys - 1); }
KVI_INLINE bool kvi_fst_value_here(const kvi_fst_cursor *c, uint8_t *scratch, kv_slice *value)
{
    return kvi_fst_value(c->f, &c->leaf, c->next - 1, kvi_fst_rank_here(c), scratch, value);
}

/* How many keys are less than a bound, which may be longer than any key. */
KVI_PRIVATE kv_status kvi_fst_find_bound(const kv_fst *f, kv_slice key, uint64_t *rank)
{
    kvi_fst_place place;
    kv_status     s = kvi_fst_find(f, key, &place);
    *rank = place.rank;
    return s < 0 ? s : KV_OK;
}
/* To the first key that is not less. */
KVI_PRIVATE kv_status kvi_fst_seek(kvi_fst_cursor *c, kv_slice key)
{
    uint64_t  rank;
    kv_status s = kvi_fst_find_bound(c->f, key, &rank);
    return s < 0 ? s : kvi_fst_to_rank(c, rank);
}
#else
typedef struct kvi_fst_step {
    kvi_fst_block block;
    size_t        offset;
    uint64_t      rank;                 /* of the first key below */
    uint32_t      base, entry;
} kvi_fst_step;

typedef struct kvi_fst_cursor {
    const kv_fst *f;
    uint8_t      *key;                  /* key_size_max bytes, and room for 16 more behind */
    uint32_t      key_size;
    kvi_fst_step  path[KVI_FST_LEVELS + 1];     /* path[0]: the leaf, path[levels]: the root */
    uint32_t      rest;                 /* where the rest of the next entry begins */
    uint32_t      run;                  /* steps forward since the last jump */
    bool          unpacked;             /* the leaf's columns are in here: */
    bool          numbers_right;
    bool          spelt;                /* and its rests from `spelt_from` on in `text`: */
    uint32_t      spelt_from;
    uint16_t     *ends;                 /* where each ends; of KVI_FST_SPELT + 1 */
    uint8_t      *text;
    uint16_t      lcps[KVI_FST_ENTRIES], counts[KVI_FST_ENTRIES];      /* by column */
    kvi_fst_numbers numbers;
} kvi_fst_cursor;

#define KVI_FST_KEY_SLACK  64u          /* bytes behind the longest key */
#define KVI_FST_SPELT      512u         /* a leaf with more tokens is not spelt as a whole */
#define KVI_FST_SPELT_TEXT (KVI_FST_SPELT * KVI_FST_TOKEN_BYTES + 32u)
#define KVI_FST_RUN        3u           /* steps one by one before the rest of the leaf is spelt */

#if KVI_X86 < 3
/* 8 bytes of 8 planes to 8 numbers of 8 bits: a transposition of 8 x 8 bits (Hacker's Delight, 7-3). */
KVI_INLINE uint64_t kvi_fst_transpose(uint64_t x)
{
    uint64_t t;
    t = (x ^ x >> 7) & UINT64_C(0x00AA00AA00AA00AA);  x ^= t ^ t << 7;
    t = (x ^ x >> 14) & UINT64_C(0x0000CCCC0000CCCC); x ^= t ^ t << 14;
    t = (x ^ x >> 28) & UINT64_C(0x00000000F0F0F0F0); x ^= t ^ t << 28;
    return x;
}
#endif
/* All columns of some planes at once, plus `plus`. */
KVI_PRIVATE void kvi_fst_unpack(const kvi_fst_block *b, const uint8_t *planes, uint32_t width, uint32_t plus, uint16_t *out)
{
#if KVI_X86 >= 3
    __m512i low = _mm512_set1_epi16((short)plus), high = low;
    for (uint32_t k = 0; k < width; k++) {
        uint64_t plane = kvi_load_le64(planes + (size_t)k * b->plane_bytes);
        __m512i  bit = _mm512_set1_epi16((short)(1u << k));
        low = _mm512_mask_add_epi16(low, (__mmask32)plane, low, bit);
        high = _mm512_mask_add_epi16(high, (__mmask32)(plane >> 32), high, bit);
    }
    _mm512_storeu_si512((void *)out, low);
    _mm512_storeu_si512((void *)(out + 32), high);
#else
    for (uint32_t group = 0; group < b->plane_bytes; group++) {
        uint64_t low = 0, high = 0;
        for (uint32_t k = 0; k < width && k < 8; k++) low |= (uint64_t)planes[(size_t)k * b->plane_bytes + group] << (8 * k);
        for (uint32_t k = 8; k < width; k++) high |= (uint64_t)planes[(size_t)k * b->plane_bytes + group] << (8 * (k - 8));
        low = kvi_fst_transpose(low);
        if (high) high = kvi_fst_transpose(high);
        for (uint32_t i = 0; i < 8; i++)
            out[group * 8 + i] = (uint16_t)(plus + ((uint32_t)(low >> (8 * i)) & 255u) + (((uint32_t)(high >> (8 * i)) & 255u) << 8));
    }
#endif
}

/* Append symbols to the key at `at`. False: a token is none, or the key gets longer than any of this map. */
KVI_INLINE bool kvi_fst_write(kvi_fst_cursor *c, const kvi_fst_block *b, const uint8_t *symbols, uint32_t count, uint32_t *at)
{
    uint32_t end = *at;
    if (!b->dictionary) {
        if (KVI_UNLIKELY(count > c->f->key_size_max || end > c->f->key_size_max - count)) return false;
        kvi_copy(c->key + end, symbols, count);
        *at = end + count;
        return true;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t       size;
        const uint8_t *text = kvi_fst_token(b->dictionary, kvi_load_le16(symbols + 2 * (size_t)i), &size);
        if (KVI_UNLIKELY(!text || end > c->f->key_size_max)) return false;
        memcpy(c->key + end, text, KVI_FST_TOKEN_BYTES);
        end += size;
    }
    *at = end;
    return end <= c->f->key_size_max;
}
/* Write the tail of an entry. */
KVI_INLINE bool kvi_fst_write_entry(kvi_fst_cursor *c, const kvi_fst_block *b, uint32_t base, uint32_t entry)
{
    uint32_t at = base + kvi_fst_lcp(b, entry), size = b->dictionary ? 2 : 1, rest, count;
    if (at > c->f->key_size_max) return false;
    if (entry && !kvi_fst_write(c, b, b->firsts + (size_t)(entry - 1) * size, 1, &at)) return false;
    rest = kvi_fst_rest_at(b, entry, &count);
    if (!kvi_fst_write(c, b, b->rests + (size_t)rest * size, count, &at)) return false;
    c->key_size = at;
    return true;
}
/* Write all of an entry behind base + right, which are there already: the entry's tail, before it the tail
   of the last entry above it with a smaller lcp, and so on. */
KVI_PRIVATE bool kvi_fst_spell(kvi_fst_cursor *c, const kvi_fst_block *b, uint32_t base, uint32_t entry, uint32_t right)
{
    uint8_t  chain[KVI_FST_ENTRIES];
    uint32_t links = 0, lcp;
    for (;;) {
        uint64_t same, above;
        chain[links++] = (uint8_t)entry;
        lcp = kvi_fst_lcp(b, entry);
        if (!entry || lcp <= right) break;
        above = kvi_fst_below(b, lcp, &same) & kvi_fst_low_bits(entry - 1);
        entry = above ? kvi_highest_bit64(above) + 1 : 0;
    }
    while (links) if (!kvi_fst_write_entry(c, b, base, chain[--links])) return false;
    return true;
}

/* Let path[level] be the state at `offset`. */
KVI_PRIVATE bool kvi_fst_enter(kvi_fst_cursor *c, uint32_t level, size_t offset, uint32_t base, uint64_t rank)
{
    kvi_fst_step *step = &c->path[level];
    step->offset = offset;
    step->base = base;
    step->rank = rank;
    step->entry = 0;
    if (level == c->f->levels) c->run = 0;
    if (level == 0) c->unpacked = c->spelt = false;
    return base <= c->f->key_size_max && kvi_fst_parse(c->f, offset, level == 0, &step->block);
}
/* Let path[level - 1] be the state that the arc of path[level] leads to. */
KVI_PRIVATE bool kvi_fst_descend(kvi_fst_cursor *c, uint32_t level)
{
    const kvi_fst_step *step = &c->path[level];
    size_t              child;
    uint32_t            base;
    if (!kvi_fst_arc(&step->block, step->offset, step->base, step->entry, &child, &base)) return false;
    return kvi_fst_enter(c, level - 1, child, base, step->rank + kvi_fst_start(&step->block, step->entry));
}

/* The numbers of the leaf's columns, for going on from the entry it is at. */
KVI_INLINE void kvi_fst_ready(kvi_fst_cursor *c)
{
    const kvi_fst_step *leaf = &c->path[0];
    uint32_t            count;
    if (!c->unpacked) {
        kvi_fst_unpack(&leaf->block, leaf->block.lcps, leaf->block.lcp_width, leaf->block.skip, c->lcps);
        kvi_fst_unpack(&leaf->block, leaf->block.counts, leaf->block.rest_width, 0, c->counts);
        c->numbers_right = c->f->values == KV_FST_U64 && kvi_fst_parse_numbers(&leaf->block, &c->numbers);
        c->unpacked = true;
    }
    c->rest = kvi_fst_rest_at(&leaf->block, leaf->entry, &count) + count;
    if (c->rest < c->spelt_from) c->spelt = false;
}

/* From path[level], whose entry is set and spelt: down to the first key below. */
KVI_PRIVATE bool kvi_fst_to_first(kvi_fst_cursor *c, uint32_t level)
{
    for (; level > 0; level--) if (!kvi_fst_descend(c, level)) return false;
    if (!kvi_fst_write_entry(c, &c->path[0].block, c->path[0].base, 0)) return false;
    kvi_fst_ready(c);
    return true;
}
/* From path[level], whose base is spelt: down to the last key below. */
KVI_PRIVATE bool kvi_fst_to_last(kvi_fst_cursor *c, uint32_t level)
{
    for (;; level--) {
        kvi_fst_step *step = &c->path[level];
        step->entry = step->block.columns;
        if (!kvi_fst_spell(c, &step->block, step->base, step->entry, 0)) return false;
        if (!level) break;
        if (!kvi_fst_descend(c, level)) return false;
    }
    kvi_fst_ready(c);
    return true;
}

/* Go to the next arc at `level` or above and to the first key below it. KV_END: there is none. */
KVI_PRIVATE kv_status kvi_fst_next_leaf(kvi_fst_cursor *c, uint32_t level)
{
    for (; level <= c->f->levels; level++) {
        kvi_fst_step *step = &c->path[level];
        if (step->entry >= step->block.columns) continue;
        step->entry++;
        if (!kvi_fst_write_entry(c, &step->block, step->base, step->entry)) return KV_ERR_CORRUPT;
        return kvi_fst_to_first(c, level) ? KV_OK : KV_ERR_CORRUPT;
    }
    return KV_END;
}

/* Spell the leaf's rests from the next entry's on, all in one loop: so no branch depends on how many tokens
   an entry has. A token that is none is spelt as the first one. */
KVI_PRIVATE void kvi_fst_spell_rests(kvi_fst_cursor *c)
{
    const kvi_fst_block      *b = &c->path[0].block;
    const kvi_fst_dictionary *d = b->dictionary;
    const uint8_t            *symbols = b->rests + 2 * (size_t)c->rest, *places = d->places, *pool = d->pool;
    uint8_t                  *text = c->text;
    uint16_t                 *ends = c->ends;
    uint32_t                  tokens = b->rests_count - c->rest, count = d->count, pool_size = d->pool_size, at = 0;
    if (tokens > KVI_FST_SPELT) return;
    for (uint32_t i = 0; i < tokens; i++) {
        uint32_t token = kvi_load_le16(symbols + 2 * (size_t)i), place;
        token = token < count ? token : 0;
        place = kvi_load_le32(places + 3 * (size_t)token);
        ends[i] = (uint16_t)at;
        memcpy(text + at, pool + ((place & 0xFFFFFu) < pool_size ? place & 0xFFFFFu : 0), KVI_FST_TOKEN_BYTES);
        at += (place >> 20 & 15u) + 1;
    }
    ends[tokens] = (uint16_t)at;
    c->spelt_from = c->rest;
    c->spelt = true;
}

/* The next entry of a leaf of bytes, or of tokens one by one. The columns were unpacked. */
KVI_PRIVATE kv_status kvi_fst_next_entry(kvi_fst_cursor *c)
{
    kvi_fst_step  *leaf = &c->path[0];
    uint32_t       column = leaf->entry, at = leaf->base + c->lcps[column], count = c->counts[column], size = leaf->block.dictionary ? 2 : 1;
    const uint8_t *rest = leaf->block.rests + (size_t)c->rest * size;
    if (KVI_UNLIKELY(at > c->f->key_size_max || c->rest + count > leaf->block.rests_count)) return KV_ERR_CORRUPT;
    if (!kvi_fst_write(c, &leaf->block, leaf->block.firsts + (size_t)column * size, 1, &at)) return KV_ERR_CORRUPT;
    if (!kvi_fst_write(c, &leaf->block, rest, count, &at)) return KV_ERR_CORRUPT;
    leaf->entry = column + 1;
    c->rest += count;
    c->key_size = at;
    if (leaf->block.dictionary && ++c->run >= KVI_FST_RUN) kvi_fst_spell_rests(c);
    return KV_OK;
}
/* And where the rests were spelt. */
KVI_INLINE kv_status kvi_fst_next_spelt(kvi_fst_cursor *c)
{
    kvi_fst_step             *leaf = &c->path[0];
    const kvi_fst_dictionary *d = leaf->block.dictionary;
    uint32_t       column = leaf->entry, at = leaf->base + c->lcps[column], rest = c->rest - c->spelt_from, count = c->counts[column], from, size, first_size, token;
    const uint8_t *first;
    if (KVI_UNLIKELY(c->rest + count > leaf->block.rests_count)) return KV_ERR_CORRUPT;
    from = c->ends[rest];
    size = c->ends[rest + count] - from;
    token = kvi_load_le16(leaf->block.firsts + 2 * (size_t)column);
    first = kvi_fst_token(d, token, &first_size);
    if (KVI_UNLIKELY(!first || at + first_size + size > c->f->key_size_max)) return KV_ERR_CORRUPT;
    memcpy(c->key + at, first, KVI_FST_TOKEN_BYTES);
    at += first_size;
    memcpy(c->key + at, c->text + from, 32);
    if (KVI_UNLIKELY(size > 32)) memcpy(c->key + at + 32, c->text + from + 32, size - 32);
    leaf->entry = column + 1;
    c->rest += count;
    c->key_size = at + size;
    return KV_OK;
}

/* One key on. On KV_END and failures the cursor is nowhere. */
KVI_INLINE kv_status kvi_fst_next(kvi_fst_cursor *c)
{
    kvi_fst_step *leaf = &c->path[0];
    uint32_t      column = leaf->entry, at, count;
    if (column >= leaf->block.columns) return kvi_fst_next_leaf(c, 1);
    if (c->spelt) return kvi_fst_next_spelt(c);
    count = c->counts[column];
    if (leaf->block.dictionary || count > 16) return kvi_fst_next_entry(c);
    at = leaf->base + c->lcps[column];
    if (KVI_UNLIKELY(at + count >= c->f->key_size_max || c->rest + count > leaf->block.rests_count)) return KV_ERR_CORRUPT;
    c->key[at] = leaf->block.firsts[column];
    memcpy(c->key + at + 1, leaf->block.rests + c->rest, 16);       /* there is room for more than is meant, here and there */
    leaf->entry = column + 1;
    c->rest += count;
    c->key_size = at + 1 + count;
    return KV_OK;
}
/* One key back. */
KVI_PRIVATE kv_status kvi_fst_prev(kvi_fst_cursor *c)
{
    for (uint32_t level = 0; level <= c->f->levels; level++) {
        kvi_fst_step *step = &c->path[level];
        uint32_t      right;
        if (!step->entry) continue;
        right = kvi_fst_lcp(&step->block, step->entry);
        step->entry--;
        if (level) {
            if (!kvi_fst_spell(c, &step->block, step->base, step->entry, right)) return KV_ERR_CORRUPT;
            return kvi_fst_descend(c, level) && kvi_fst_to_last(c, level - 1) ? KV_OK : KV_ERR_CORRUPT;
        }
        if (!kvi_fst_spell(c, &step->block, step->base, step->entry, right)) return KV_ERR_CORRUPT;
        kvi_fst_ready(c);
        return KV_OK;
    }
    return KV_END;
}
/* To the leaf's next key that differs from this one within its first `depth` bytes. KV_NOT_FOUND: it has none. */
KVI_PRIVATE kv_status kvi_fst_skip_here(kvi_fst_cursor *c, uint32_t depth)
{
    kvi_fst_step *leaf = &c->path[0];
    uint64_t      same, later;
    if (depth <= leaf->base) return KV_NOT_FOUND;
    later = kvi_fst_below(&leaf->block, depth - leaf->base, &same) & ~kvi_fst_low_bits(leaf->entry);
    if (!later) return KV_NOT_FOUND;
    leaf->entry = kvi_lowest_bit64(later) + 1;
    if (!kvi_fst_write_entry(c, &leaf->block, leaf->base, leaf->entry)) return KV_ERR_CORRUPT;
    kvi_fst_ready(c);
    return KV_OK;
}

KVI_PRIVATE kv_status kvi_fst_first(kvi_fst_cursor *c)
{
    if (!c->f->keys) return KV_END;
    return kvi_fst_enter(c, c->f->levels, c->f->root, 0, 0) && kvi_fst_to_first(c, c->f->levels) ? KV_OK : KV_ERR_CORRUPT;
}
KVI_PRIVATE kv_status kvi_fst_last(kvi_fst_cursor *c)
{
    if (!c->f->keys) return KV_END;
    return kvi_fst_enter(c, c->f->levels, c->f->root, 0, 0) && kvi_fst_to_last(c, c->f->levels) ? KV_OK : KV_ERR_CORRUPT;
}

/* To the first key that is not less, among those below path[level], whose base is spelt and is how the key
   begins; or to the first behind them all. The bytes of the key that agree with the way down need no
   spelling: they are in c->key. `longer`: what is sought is greater than q says. */
KVI_PRIVATE kv_status kvi_fst_seek_below(kvi_fst_cursor *c, uint32_t level, const kvi_fst_query *q, bool longer)
{
    kvi_fst_found found;
    kvi_fst_step *leaf = &c->path[0];
    found.at = 0;
    found.whole = true;
    for (; level > 0; level--) {
        kvi_fst_step *step = &c->path[level];
        if (!kvi_fst_search_bytes(&step->block, step->base, q, found.at, found.whole, &found)) return KV_ERR_CORRUPT;
        step->entry = found.entry;
        if (found.before) return kvi_fst_to_first(c, level) ? KV_OK : KV_ERR_CORRUPT;
        if (!kvi_fst_descend(c, level)) return KV_ERR_CORRUPT;
        if (found.at >= c->path[level - 1].base) continue;
        return kvi_fst_next_leaf(c, level);       /* greater than all below */
    }
    if (!kvi_fst_search_leaf(&leaf->block, leaf->base, q, found.at, found.whole, &found)) return KV_ERR_CORRUPT;
    leaf->entry = found.entry;
    if (found.before) {
        if (!kvi_fst_write_entry(c, &leaf->block, leaf->base, 0)) return KV_ERR_CORRUPT;
        kvi_fst_ready(c);
        return KV_OK;
    }
    kvi_fst_ready(c);
    if (!(found.whole && found.at == q->size) || longer) return kvi_fst_next(c);
    if (q->size > c->f->key_size_max) return KV_ERR_CORRUPT;
    c->key_size = q->size;
    return KV_OK;
}
/* To the first key that is not less. */
KVI_PRIVATE kv_status kvi_fst_seek(kvi_fst_cursor *c, kv_slice key)
{
    kvi_fst_query q;
    bool          longer = key.size > KV_KEY_SIZE_MAX;          /* than any key: the key that it is cut to is less */
    if (!c->f->keys) return KV_END;
    if (longer) key.size = KV_KEY_SIZE_MAX;
    kvi_fst_ask(&q, key);
    kvi_copy(c->key, key.data, key.size < c->f->key_size_max ? key.size : c->f->key_size_max);
    if (!kvi_fst_enter(c, c->f->levels, c->f->root, 0, 0)) return KV_ERR_CORRUPT;
    return kvi_fst_seek_below(c, c->f->levels, &q, longer);
}

/* To the next key that differs from this one within its first `depth` bytes: in this leaf; else one looks up the
   path for an arc whose next separator does so too: it parts from the key where it parts from the separator
   before, with another byte than the key's. Below that arc the end of what begins alike is sought, if not all
   of it does; else the next leaf is the one. */
KVI_PRIVATE kv_status kvi_fst_skip(kvi_fst_cursor *c, uint32_t depth)
{
    kvi_fst_query q;
    kv_slice      after;
    uint32_t      level = 1, size = depth;
    kv_status     s = kvi_fst_skip_here(c, depth);
    if (s != KV_NOT_FOUND) return s;
    c->run = 0;
    for (; level <= c->f->levels; level++) {
        const kvi_fst_step *step = &c->path[level];
        uint32_t            at;
        if (step->entry >= step->block.columns) continue;
        at = step->base + kvi_fst_lcp(&step->block, step->entry + 1);
        if (at < depth && step->block.firsts[step->entry] != c->key[at]) break;
    }
    if (level == 1 || c->path[level - 1].base >= depth) return kvi_fst_next_leaf(c, level);
    while (size && c->key[size - 1] == 255) size--;             /* the first string behind: that is sought */
    if (!size) return KV_END;
    level = size > c->path[level - 1].base ? level - 1 : c->f->levels;
    c->key[size - 1]++;
    after.data = c->key;
    after.size = size;
    kvi_fst_ask(&q, after);
    return kvi_fst_seek_below(c, level, &q, false);
}

/* To the key of that number; rank < keys. */
KVI_PRIVATE kv_status kvi_fst_to_rank(kvi_fst_cursor *c, uint64_t rank)
{
    uint32_t level = c->f->levels;
    if (!kvi_fst_enter(c, level, c->f->root, 0, 0)) return KV_ERR_CORRUPT;
    for (;; level--) {
        kvi_fst_step *step = &c->path[level];
        uint64_t      inside = rank - step->rank;
        if (level) {
            uint32_t low = 0, high = step->block.columns;      /* the first arc that ends behind it */
            while (low < high) {
                uint32_t middle = (low + high) / 2;
                if (kvi_fst_end(&step->block, middle) <= inside) low = middle + 1; else high = middle;
            }
            step->entry = low;
        } else {
            if (inside > step->block.columns) return KV_ERR_CORRUPT;
            step->entry = (uint32_t)inside;
        }
        if (!kvi_fst_spell(c, &step->block, step->base, step->entry, 0)) return KV_ERR_CORRUPT;
        if (!level) break;
        if (!kvi_fst_descend(c, level)) return KV_ERR_CORRUPT;
    }
    kvi_fst_ready(c);
    return KV_OK;
}

KVI_INLINE kv_slice kvi_fst_key(const kvi_fst_cursor *c) { kv_slice key; key.data = c->key; key.size = c->key_size; return key; }
KVI_INLINE uint64_t kvi_fst_rank_here(const kvi_fst_cursor *c) { return c->path[0].rank + c->path[0].entry; }
KVI_INLINE bool kvi_fst_value_here(const kvi_fst_cursor *c, uint8_t *scratch, kv_slice *value)
{
    const kvi_fst_step *leaf = &c->path[0];
    value->data = scratch;
    value->size = 0;
    if (c->f->values == KV_FST_SET) return true;
    if (c->f->values == KV_FST_BYTES) return kvi_fst_value_bytes(c->f, &leaf->block, leaf->entry, value);
    if (!c->numbers_right) return false;
    kvi_store_le64(scratch, kvi_fst_number(&c->numbers, leaf->entry, leaf->rank + leaf->entry));
    value->size = 8;
    return true;
}

KVI_PRIVATE size_t kvi_fst_spelt_room(const kv_fst *f) { return !f->dictionary_count ? 0 : (KVI_FST_SPELT + 1) * sizeof(uint16_t) + KVI_FST_SPELT_TEXT; }
KVI_PRIVATE size_t kvi_fst_key_room(const kv_fst *f) { return (size_t)f->key_size_max + KVI_FST_KEY_SLACK + kvi_fst_spelt_room(f); }
KVI_PRIVATE kvi_fst_cursor *kvi_fst_cursor_new(const kv_fst *f)
{
    kvi_fst_cursor *c = (kvi_fst_cursor *)kvi_alloc(&f->allocator, sizeof *c + kvi_fst_key_room(f));
    if (!c) return NULL;
    c->f = f;
    c->ends = (uint16_t *)(void *)(c + 1);
    c->text = (uint8_t *)(c->ends + KVI_FST_SPELT + 1);
    c->key = (uint8_t *)(c + 1) + kvi_fst_spelt_room(f);
    c->key_size = 0;
    c->spelt_from = c->run = 0;
    return c;
}
KVI_PRIVATE void kvi_fst_cursor_free(kvi_fst_cursor *c)
{
    if (c) kvi_free(&c->f->allocator, c, sizeof *c + kvi_fst_key_room(c->f));
}

/* How many keys are less than a bound, which may be longer than any key. */
KVI_PRIVATE kv_status kvi_fst_find_bound(const kv_fst *f, kv_slice key, uint64_t *rank)
{
    kvi_fst_place place;
    bool          longer = key.size > KV_KEY_SIZE_MAX;
    kv_status     s;
    if (longer) key.size = KV_KEY_SIZE_MAX;
    s = kvi_fst_find(f, key, &place);
    if (s < 0) return s;
    *rank = place.rank + (longer && s == KV_OK ? 1 : 0);        /* the key that it was cut to is less */
    return KV_OK;
}
#endif

/* ------------------------------------------------------------------------------------------------
   >>check   the structure, in one pass over the file: every state in the order it was written

   A state is judged by itself and by what was noted of the states it leads to, so that the work follows
   the size of the file and not the number of keys that it spells. Open looks at the columns: whether they
   end inside, tokens are tokens, arcs lead to states that were written before and are one level lower, the
   counts of keys add up, values lie inside. kv_fst_check spells the entries too: that they ascend, go on
   where separators say, and are as long as the footer says.                                        */

typedef struct kvi_fst_note {
    size_t   offset;
    uint64_t count;                 /* keys below */
    uint32_t level;
#if !KVI_SMALL
    uint32_t longest, first_size;   /* bytes: of the longest string below, of entry 0 */
    uint64_t first, last;           /* the first 8 bytes of entry 0, and of the last string below */
#endif
} kvi_fst_note;

typedef struct kvi_fst_checker {
    kv_fst         *f;
    kvi_fst_note   *notes;
    size_t          count, capacity;
#if KVI_SMALL
    kvi_fst_block   block;
#else
    bool            spelling;       /* look at the strings too */
    kvi_fst_cursor *c;              /* path[0] is the state at hand, node or leaf; its key the strings of it */
    kv_buf          text;           /* a node's separators, one behind the other */
    uint32_t        sizes[KVI_FST_ENTRIES];
#endif
} kvi_fst_checker;

/* The note of the state at `offset`, by guess (children lie next to each other) or by bisection. */
KVI_PRIVATE const kvi_fst_note *kvi_fst_noted(const kvi_fst_checker *k, size_t offset, size_t *guess)
{
    size_t low = 0, high = k->count;
    if (!KVI_SMALL && *guess < k->count && k->notes[*guess].offset == offset) return &k->notes[(*guess)++];
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (k->notes[middle].offset < offset) low = middle + 1; else high = middle;
    }
    *guess = low + 1;
    return low < k->count && k->notes[low].offset == offset ? &k->notes[low] : NULL;
}

/* Are all tokens of a leaf in the dictionary? */
KVI_PRIVATE bool kvi_fst_check_tokens(const kvi_fst_block *b)
{
    uint32_t tokens = b->columns + b->rests_count, i = 0;
    if (!KVI_SMALL) for (; i + 64 <= tokens; i += 64) if (kvi_fst_at_least_16(b->firsts + 2 * (size_t)i, b->dictionary->count, ~UINT64_C(0))) return false;
    if (!KVI_SMALL) return i == tokens || !kvi_fst_at_least_16(b->firsts + 2 * (size_t)i, b->dictionary->count, kvi_fst_low_bits(tokens - i));
    for (; i < tokens; i++) if (kvi_load_le16(b->firsts + 2 * (size_t)i) >= b->dictionary->count) return false;
    return true;
}

#if !KVI_SMALL
/* The first 8 bytes as a number that orders like them. */
KVI_INLINE uint64_t kvi_fst_eight(const uint8_t *p, uint32_t size)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < 8; i++) n = n << 8 | (i < size ? p[i] : 0u);
    return n;
}

/* The entries behind entry 0 of a leaf of tokens whose rests were spelt: each must branch off the one before
   it upwards. All of them are looked at, and then whether one was wrong, so that there is no branch to guess:
   the sign bit of `wrong` is set by an lcp beyond the entry before, or a first byte that is not greater. */
KVI_PRIVATE bool kvi_fst_check_spelt(kvi_fst_cursor *c, kvi_fst_note *note)
{
    const kvi_fst_block      *b = &c->path[0].block;
    const kvi_fst_dictionary *d = b->dictionary;
    const uint8_t  *firsts = b->firsts, *places = d->places, *pool = d->pool, *text = c->text;
    const uint16_t *lcps = c->lcps, *counts = c->counts, *end = c->ends;
    uint8_t        *key = c->key;
    uint32_t        columns = b->columns, size = c->key_size, longest = size, most = c->f->key_size_max, from = 0, wrong = 0;
    for (uint32_t column = 0; column < columns; column++) {
        uint32_t       place = kvi_load_le32(places + 3 * (size_t)kvi_load_le16(firsts + 2 * (size_t)column));
        uint32_t       lcp = lcps[column], first_size = (place >> 20 & 15u) + 1, rest_size;
        const uint8_t *first = pool + (place & 0xFFFFFu), *rest = text + from;
        end += counts[column];
        rest_size = *end - from;
        from = *end;
        if (KVI_UNLIKELY(lcp + first_size + rest_size > most)) return false;
        wrong |= (size - lcp) | ((lcp - size) & ~((uint32_t)key[lcp] - *first));
        memcpy(key + lcp, first, KVI_FST_TOKEN_BYTES);
        memcpy(key + lcp + first_size, rest, 32);
        if (KVI_UNLIKELY(rest_size > 32)) memcpy(key + lcp + first_size + 32, rest + 32, rest_size - 32);
        size = lcp + first_size + rest_size;
        longest = size > longest ? size : longest;
    }
    c->key_size = size;
    note->longest = longest;
    note->last = kvi_fst_eight(key, size);
    return !(wrong >> 31);
}

/* Spell all entries in turn: each must branch off the one before it upwards. Fills in the note, and for a
   node keeps the entries. */
KVI_PRIVATE kv_status kvi_fst_check_entries(kvi_fst_checker *k, bool leaf, kvi_fst_note *note)
{
    kvi_fst_cursor *c = k->c;
    kvi_fst_step   *step = &c->path[0];
    uint8_t        *key = c->key;
    if (!kvi_fst_write_entry(c, &step->block, 0, 0)) return KV_ERR_CORRUPT;
    kvi_fst_ready(c);
    note->first = kvi_fst_eight(key, c->key_size);
    note->first_size = note->longest = c->key_size;
    if (step->block.dictionary) kvi_fst_spell_rests(c);
    if (c->spelt) return kvi_fst_check_spelt(c, note) ? KV_OK : KV_ERR_CORRUPT;
    for (;;) {
        uint32_t lcp, size = c->key_size;
        int      before;
        if (size > note->longest) note->longest = size;
        if (!leaf) {
            kv_status s = kv_buf_append(&k->text, kvi_fst_key(c));
            if (s < 0) return s;
            k->sizes[step->entry] = size;
        }
        if (step->entry == step->block.columns) break;
        lcp = c->lcps[step->entry];
        before = lcp < size ? key[lcp] : -1;
        if (lcp > size || kvi_fst_next(c) != KV_OK || (int)key[lcp] <= before) return KV_ERR_CORRUPT;
    }
    note->last = kvi_fst_eight(key, c->key_size);
    return KV_OK;
}

/* The last string below a state, into the cursor's key. */
KVI_PRIVATE bool kvi_fst_check_last(kvi_fst_cursor *c, size_t offset, uint32_t level)
{
    uint32_t base = 0;
    for (;; level--) {
        kvi_fst_block b;
        if (!kvi_fst_parse(c->f, offset, level == 0, &b) || !kvi_fst_spell(c, &b, base, b.columns, 0)) return false;
        if (!level) return true;
        if (!kvi_fst_arc(&b, offset, base, b.columns, &offset, &base)) return false;
    }
}

/* One arc: its separator leads to `child`, whose strings continue it after `keep` bytes. The child's
   entry 0 must go on like the separator, and its last string must stay below the next separator (data
   is NULL: there is none). */
KVI_PRIVATE bool kvi_fst_check_arc(kvi_fst_cursor *c, const kvi_fst_note *child, kv_slice separator, uint32_t keep, kv_slice next)
{
    const uint8_t *s = (const uint8_t *)separator.data, *n = (const uint8_t *)next.data;
    uint32_t       back = (uint32_t)separator.size - keep, common = back < 8 ? back : 8;
    uint64_t       beyond;
    kvi_fst_block  b;
    if (child->first_size < back) return false;
    if (common && (child->first ^ kvi_fst_eight(s + keep, back)) >> (64 - 8 * common)) return false;
    if (back > 8) {
        if (!kvi_fst_parse(c->f, child->offset, child->level == 0, &b) || !kvi_fst_write_entry(c, &b, 0, 0)) return false;
        if (c->key_size < back || !kvi_same_bytes(c->key, s + keep, back)) return false;
    }
    if (!n || next.size < keep || !kvi_same_bytes(s, n, keep)) return true;     /* they part earlier, and upwards: the entries were checked */
    beyond = kvi_fst_eight(n + keep, (uint32_t)next.size - keep);
    if (child->last != beyond) return child->last < beyond;
    if (!kvi_fst_check_last(c, child->offset, child->level)) return false;
    return kvi_compare(kvi_fst_key(c), kv_bytes(n + keep, next.size - keep)) < 0;
}

/* The strings below a node: where its arcs go on. The entries are in k->text. */
KVI_PRIVATE bool kvi_fst_check_below(kvi_fst_checker *k, kvi_fst_note *note)
{
    const kvi_fst_block *b = &k->c->path[0].block;
    const uint8_t       *text = (const uint8_t *)k->text.data;
    uint32_t entries = kvi_fst_entries(b), base;
    size_t   child, guess = k->count;
    note->longest = 0;
    for (uint32_t i = 0; i < entries; i++) {
        const kvi_fst_note *n;
        kv_slice            separator = kv_bytes(text, k->sizes[i]), next = kv_bytes(NULL, 0);
        if (k->sizes[i]) text += k->sizes[i];               /* the first separator of all is empty */
        if (i + 1 < entries) next = kv_bytes(text, k->sizes[i + 1]);
        if (!kvi_fst_arc(b, note->offset, 0, i, &child, &base) || base > separator.size) return false;
        n = kvi_fst_noted(k, child, &guess);
        if (!n || !kvi_fst_check_arc(k->c, n, separator, base, next)) return false;
        if (base + n->longest > note->longest) note->longest = base + n->longest;
    }
    if (note->longest > k->f->key_size_max || !kvi_fst_check_last(k->c, note->offset, note->level)) return false;
    note->last = kvi_fst_eight(k->c->key, k->c->key_size);
    return true;
}
#endif

/* The arcs of a node: its level, and the keys below. */
KVI_PRIVATE bool kvi_fst_check_arcs(const kvi_fst_checker *k, const kvi_fst_block *b, kvi_fst_note *note)
{
    uint32_t entries = kvi_fst_entries(b), base;
    size_t   child, guess = k->count;
    for (uint32_t i = 0; i < entries; i++) {
        const kvi_fst_note *n;
        if (!kvi_fst_arc(b, note->offset, 0, i, &child, &base)) return false;
        n = kvi_fst_noted(k, child, &guess);
        if (!n || n->level >= KVI_FST_LEVELS || (i && n->level + 1 != note->level)) return false;
        note->level = n->level + 1;
        if (n->count > UINT64_MAX - note->count || kvi_fst_end(b, i) != note->count + n->count) return false;
        note->count += n->count;
    }
    return true;
}

/* The values of a leaf, and where they end. */
KVI_PRIVATE bool kvi_fst_check_values(const kv_fst *f, const kvi_fst_block *b, const uint8_t **end)
{
    kvi_fst_numbers n;
    kv_slice        value;
    uint32_t        entries = kvi_fst_entries(b), width;
    *end = b->after;
    if (f->values == KV_FST_SET) return true;
    if (f->values == KV_FST_U64) {
        if (!kvi_fst_parse_numbers(b, &n)) return false;
        *end = n.bits + ((size_t)entries * n.width + 7) / 8;
        return true;
    }
    for (uint32_t i = 0; i < entries; i++) if (!kvi_fst_value_bytes(f, b, i, &value)) return false;
    width = b->after[0] & 31u;
    *end = b->after + 1 + ((size_t)entries * width + 7) / 8 + (b->after[0] >> 7 ? (entries + 7) / 8 : 0) + kvi_fst_bits(b->after + 1, width, entries - 1);
    return true;
}

KVI_PRIVATE bool kvi_fst_check_note(kvi_fst_checker *k, const kvi_fst_note *note)
{
    if (k->count == k->capacity) {
        size_t        capacity = k->capacity ? k->capacity * 2 : 64;
        kvi_fst_note *grown = (kvi_fst_note *)kvi_resize(&k->f->allocator, k->notes, k->capacity * sizeof *note, capacity * sizeof *note);
        if (!grown) return false;
        k->notes = grown;
        k->capacity = capacity;
    }
    k->notes[k->count++] = *note;
    return true;
}

/* The state at *at; moves *at to what follows it. */
KVI_PRIVATE kv_status kvi_fst_check_state(kvi_fst_checker *k, size_t *at)
{
    const kv_fst  *f = k->f;
    kvi_fst_note   note;
    bool           leaf = f->bytes[*at] >> 6 != KVI_FST_NODE;
    const uint8_t *end = NULL;
#if KVI_SMALL
    kvi_fst_block *b = &k->block;
#else
    kvi_fst_step  *step = &k->c->path[0];
    kvi_fst_block *b = &step->block;
    kv_status      s;
    step->offset = *at;
    step->base = step->entry = 0;
    step->rank = 0;
    k->c->unpacked = k->c->spelt = false;
    k->c->run = 0;
    k->text.size = 0;
#endif
    memset(&note, 0, sizeof note);
    note.offset = *at;
    if (!kvi_fst_parse(f, *at, leaf, b)) return KV_ERR_CORRUPT;
    note.count = leaf ? kvi_fst_entries(b) : 0;
    if (b->dictionary && !kvi_fst_check_tokens(b)) return KV_ERR_CORRUPT;
    if (!(leaf ? kvi_fst_check_values(f, b, &end) : kvi_fst_check_arcs(k, b, &note))) return KV_ERR_CORRUPT;
    if (!leaf) end = b->refs + (size_t)kvi_fst_entries(b) * b->ref_width;
#if !KVI_SMALL
    if (k->spelling) {
        s = kvi_fst_check_entries(k, leaf, &note);
        if (s < 0) return s;
        if (!leaf && !kvi_fst_check_below(k, &note)) return KV_ERR_CORRUPT;
    }
#endif
    if (!kvi_fst_check_note(k, &note)) return KV_ERR_NO_MEMORY;
    *at = (size_t)(end - f->bytes);
    return *at <= f->data_end ? KV_OK : KV_ERR_CORRUPT;
}

KVI_PRIVATE kv_status kvi_fst_check_states(kvi_fst_checker *k)
{
    const kv_fst *f = k->f;
    size_t        at = KVI_FST_HEADER, guess = 0;
    const kvi_fst_note *root;
    while (at < f->data_end) {
        if (f->bytes[at] == KVI_FST_DATA << 6) {
            uint64_t size = kvi_fst_load48(f->bytes + at + 1);
            if (f->data_end - at < 7 || size > f->data_end - at - 7) return KV_ERR_CORRUPT;
            at += 7 + (size_t)size;
        } else {
            kv_status s = kvi_fst_check_state(k, &at);
            if (s < 0) return s;
        }
    }
    if (!f->keys) return f->root || f->levels || f->key_size_max ? KV_ERR_CORRUPT : KV_OK;
    root = kvi_fst_noted(k, f->root, &guess);
    if (!root || root->level != f->levels || root->count != f->keys) return KV_ERR_CORRUPT;
#if !KVI_SMALL
    if (k->spelling && root->longest != f->key_size_max) return KV_ERR_CORRUPT;
#endif
    return KV_OK;
}

#if KVI_SMALL
/* Spell every key: each greater than the one before, found where it lies, none longer than is said. */
KVI_PRIVATE kv_status kvi_fst_check_keys(kv_fst *f)
{
    kvi_fst_cursor *c = kvi_fst_cursor_new(f);
    kv_buf          last;
    uint32_t        longest = 0;
    kv_status       s = c ? KV_OK : KV_ERR_NO_MEMORY;
    memset(&last, 0, sizeof last);
    last.allocator = f->allocator;
    for (uint64_t rank = 0; rank < f->keys && s == KV_OK; rank++) {
        kvi_fst_place place;
        s = kvi_fst_to_rank(c, rank);
        if (s < 0) break;
        if (rank && kvi_compare(kv_buf_slice(&last), kvi_fst_key(c)) >= 0) s = KV_ERR_CORRUPT;
        if (kvi_fst_find(f, kvi_fst_key(c), &place) != KV_OK || place.rank != rank) s = KV_ERR_CORRUPT;
        if (c->key_size > longest) longest = c->key_size;
        if (s == KV_OK) s = kv_buf_assign(&last, kvi_fst_key(c));
    }
    kvi_fst_cursor_free(c);
    kv_buf_free(&last);
    return s == KV_OK && longest != f->key_size_max ? KV_ERR_CORRUPT : s;
}
#endif

KVI_PRIVATE kv_status kvi_fst_check_structure(kv_fst *f, bool spelling)
{
    kvi_fst_checker k;
    kv_status       s = KV_OK;
    memset(&k, 0, sizeof k);
    k.f = f;
#if !KVI_SMALL
    k.text.allocator = f->allocator;
    k.spelling = spelling;
    k.c = kvi_fst_cursor_new(f);
    if (!k.c) s = KV_ERR_NO_MEMORY;
#endif
    if (s == KV_OK) s = kvi_fst_check_states(&k);
    kvi_free(&f->allocator, k.notes, k.capacity * sizeof *k.notes);
#if KVI_SMALL
    if (spelling && s == KV_OK) s = kvi_fst_check_keys(f);
#else
    kvi_fst_cursor_free(k.c);
    kv_buf_free(&k.text);
#endif
    return s;
}

/* The tokens ascend by first byte, and the starts agree. What else they are is of no consequence. */
KVI_PRIVATE bool kvi_fst_check_dictionary(const kvi_fst_dictionary *d)
{
    uint32_t token = 0, size;
    for (uint32_t byte = 0; byte < 256; byte++) {
        if (kvi_load_le16(d->starts + 2 * byte) != token) return false;
        for (; token < d->count; token++) {
            const uint8_t *text = kvi_fst_token(d, token, &size);
            if (!text || *text < byte) return false;
            if (*text > byte) break;
        }
    }
    return token == d->count;
}

KVI_PRIVATE uint64_t kvi_fst_checksum(const uint8_t *bytes, size_t size)
{
    uint64_t sum = 0;
    while (size) {
        size_t piece = size < KVI_FST_PIECE ? size : KVI_FST_PIECE;
        sum = kvi_hash(bytes, piece, sum);
        bytes += piece;
        size -= piece;
    }
    return sum;
}

KVI_PRIVATE kv_status kvi_fst_verify(kv_fst *f, bool spelling)
{
#if defined(KV_FST_LOOKUP_ONLY)
    (void)spelling;
    return kvi_error_set(&f->error, KV_ERR_UNSUPPORTED, KVI_FST_TEXT("fst: KV_FST_LOOKUP_ONLY opens with skip_verify alone"));
#else
    size_t    covered = f->size - 8;
    kv_status s;
    if (kvi_fst_checksum(f->bytes, covered) != kvi_load_le64(f->bytes + covered))
        return kvi_error_set(&f->error, KV_ERR_CORRUPT, KVI_FST_TEXT("fst: the checksum does not match: the bytes are not what was written"));
    for (uint32_t i = 0; i < f->dictionary_count; i++)
        if (!kvi_fst_check_dictionary(&f->dictionaries[i])) return kvi_error_set(&f->error, KV_ERR_CORRUPT, KVI_FST_TEXT("fst: a dictionary is not in order"));
    s = kvi_fst_check_structure(f, spelling);
    return s < 0 ? kvi_error_set(&f->error, s, s == KV_ERR_CORRUPT ? KVI_FST_TEXT("fst: the structure is damaged") : NULL) : KV_OK;
#endif
}

/* ------------------------------------------------------------------------------------------------
   >>open   header, footer, dictionaries, and the way to the bytes of a file                       */

KVI_PRIVATE const kv_store_ops *kvi_fst_store_ops(void);        /* in >>store */
/* With -Os and no threads the handle's functions come into a program only where it asks for the handle. */
#define KVI_FST_OPS_LATE (KVI_SMALL && !KVI_THREADS)

KVI_PRIVATE kv_status kvi_fst_open_fail(const kv_fst_options *o, kv_status s, const char *what)
{
    if (o && o->error_text && o->error_text_size) {
        kvi_text t = kvi_text_over(o->error_text, o->error_text_size);
        kvi_text_add(&t, what ? what : kv_status_text(s));
    }
    return s;
}
/* Behind what was said, the file that it is about. */
KVI_PRIVATE kv_status kvi_fst_open_name(const kv_fst_options *o, kv_status s, const char *path)
{
    if (!KVI_SMALL && o && o->error_text && o->error_text_size) {
        kvi_text t;
        t.out = o->error_text;
        t.capacity = o->error_text_size;
        t.size = strlen(o->error_text);
        kvi_text_add(&t, ": ");
        kvi_text_add(&t, path);
    }
    return s;
}

/* Are the bytes framed as a map? Their footer, or NULL; *what: why not. */
KVI_PRIVATE const uint8_t *kvi_fst_open_frame(kv_slice bytes, kv_status *s, const char **what)
{
    const uint8_t *b = (const uint8_t *)bytes.data, *footer;
    *s = KV_ERR_CORRUPT;
    *what = KVI_FST_TEXT("fst: too few bytes");
    if (bytes.size < KVI_FST_HEADER + KVI_FST_FOOTER) return NULL;
    *what = KVI_FST_TEXT("fst: this is no kv_fst file");
    if (memcmp(b, kvi_fst_magic, 6) != 0 || kvi_load_le16(b + 6) == 0) return NULL;
    if (kvi_load_le16(b + 6) > KVI_FST_VERSION) { *s = KV_ERR_VERSION; *what = KVI_FST_TEXT("fst: written in a newer format"); return NULL; }
    *what = KVI_FST_TEXT("fst: the end is missing or damaged");
    footer = b + bytes.size - KVI_FST_FOOTER;
    if (memcmp(footer + KVI_FST_AT_MAGIC, kvi_fst_end_magic, 8) != 0) return NULL;
    *what = KVI_FST_TEXT("fst: it has not the size that it was written with");
    if (kvi_load_le64(footer + KVI_FST_AT_SIZE) != bytes.size) return NULL;
    *what = KVI_FST_TEXT("fst: the footer is damaged");
    for (uint32_t i = KVI_FST_AT_ZERO; i < KVI_FST_AT_MAGIC; i++) if (footer[i]) return NULL;
    *s = KV_OK;
    return footer;
}

KVI_PRIVATE bool kvi_fst_open_dictionary(const kv_fst *f, uint64_t at, kvi_fst_dictionary *d)
{
    if (at >= f->data_end || f->data_end - at < 520) return false;
    d->count = kvi_load_le32(f->bytes + at);
    d->pool_size = kvi_load_le32(f->bytes + at + 4);
    if (d->count > 65536 || 520 + 3 * (uint64_t)d->count + d->pool_size > f->data_end - at) return false;
    d->starts = f->bytes + at + 8;
    d->places = d->starts + 512;
    d->pool = d->places + 3 * (size_t)d->count;
    return true;
}
KVI_PRIVATE bool kvi_fst_open_footer(kv_fst *f, kvi_fst_dictionary *dictionaries)
{
    const uint8_t *footer = f->bytes + f->data_end;
    uint64_t       table = kvi_load_le64(footer + KVI_FST_AT_TABLE);
    f->root = kvi_load_le64(footer + KVI_FST_AT_ROOT) < f->data_end ? (size_t)kvi_load_le64(footer + KVI_FST_AT_ROOT) : f->data_end;
    f->keys = kvi_load_le64(footer + KVI_FST_AT_KEYS);
    f->key_size_max = kvi_load_le32(footer + KVI_FST_AT_KEY_SIZE_MAX);
    f->levels = footer[KVI_FST_AT_LEVELS];
    if (f->key_size_max > KV_KEY_SIZE_MAX || f->levels > KVI_FST_LEVELS || footer[KVI_FST_AT_VALUES] > KV_FST_BYTES) return false;
    f->values = (kv_fst_values)footer[KVI_FST_AT_VALUES];
    f->dictionaries = dictionaries;
    if (f->dictionary_count && (table > f->data_end || f->data_end - table < 8 * (uint64_t)f->dictionary_count)) return false;
    for (uint32_t i = 0; i < f->dictionary_count; i++)
        if (!kvi_fst_open_dictionary(f, kvi_load_le64(f->bytes + table + 8 * i), &dictionaries[i])) return false;
    return true;
}

KVI_INLINE size_t kvi_fst_object_size(uint32_t dictionaries) { return sizeof(kv_fst) + dictionaries * sizeof(kvi_fst_dictionary); }

KVI_FST_DEFINE kv_status kv_fst_open_memory(const kv_fst_options *o, kv_slice bytes, kv_fst **fst)
{
    kv_allocator allocator = kvi_allocator_or_default(o ? &o->allocator : NULL);
    kv_fst      *f;
    kv_status    s;
    const char  *what;
    uint32_t     dictionaries;
    const uint8_t *footer;
    if (!fst) return KV_ERR_INVALID;
    *fst = NULL;
    if (!bytes.data) return kvi_fst_open_fail(o, bytes.size ? KV_ERR_INVALID : KV_ERR_CORRUPT, NULL);
    footer = kvi_fst_open_frame(bytes, &s, &what);
    if (!footer) return kvi_fst_open_fail(o, s, what);
    dictionaries = footer[KVI_FST_AT_DICTIONARIES];
    f = (kv_fst *)kvi_alloc_zero(&allocator, kvi_fst_object_size(dictionaries));
    if (!f) return kvi_fst_open_fail(o, KV_ERR_NO_MEMORY, NULL);
#if !KVI_FST_OPS_LATE
    f->store.ops = kvi_fst_store_ops();
#endif
    f->store.name = "fst";
    f->store.caps = KV_CAP_ORDERED | KV_CAP_THREADS | KV_CAP_DURABLE;
    f->allocator = allocator;
    f->bytes = (const uint8_t *)bytes.data;
    f->size = bytes.size;
    f->data_end = bytes.size - KVI_FST_FOOTER;
    f->dictionary_count = dictionaries;
    if (!kvi_fst_open_footer(f, (kvi_fst_dictionary *)(void *)(f + 1))) s = kvi_error_set(&f->error, KV_ERR_CORRUPT, KVI_FST_TEXT("fst: the footer is damaged"));
    else if (!o || !o->skip_verify) s = kvi_fst_verify(f, false);
    if (s < 0) {
        s = kvi_fst_open_fail(o, s, kvi_error_text(&f->error));
        kvi_free(&allocator, f, kvi_fst_object_size(dictionaries));
        return s;
    }
    *fst = f;
    return KV_OK;
}

/* The whole file, mapped, or else read into memory: then *owned is its size. */
KVI_PRIVATE kv_status kvi_fst_fetch(const kv_io *io, kv_file *file, const kv_allocator *allocator, kv_slice *bytes, size_t *owned)
{
    uint64_t  size;
    size_t    got = 0;
    void     *memory;
    kv_status s = io->size(io->user, file, &size);
    if (s < 0) return s;
    if (size < KVI_FST_HEADER + KVI_FST_FOOTER) return KV_ERR_CORRUPT;
    if (size > SIZE_MAX / 2) return KV_ERR_TOO_LARGE;
    bytes->size = (size_t)size;
    *owned = 0;
    if (io->map && io->unmap && io->map(io->user, file, bytes->size, &bytes->data) == KV_OK) return KV_OK;
    memory = kvi_alloc(allocator, bytes->size);
    if (!memory) return KV_ERR_NO_MEMORY;
    s = io->read_at(io->user, file, 0, memory, bytes->size, &got);
    if (s == KV_OK && got != bytes->size) s = KV_ERR_CORRUPT;
    if (s < 0) { kvi_free(allocator, memory, bytes->size); return s; }
    bytes->data = memory;
    *owned = bytes->size;
    return KV_OK;
}
KVI_PRIVATE void kvi_fst_unload(const kv_io *io, const kv_allocator *allocator, kv_slice bytes, size_t owned)
{
    if (owned) kvi_free(allocator, (void *)(uintptr_t)bytes.data, owned);
    else io->unmap(io->user, bytes.data, bytes.size);
}

KVI_FST_DEFINE kv_status kv_fst_open_file(const kv_fst_options *o, const char *path, kv_fst **fst)
{
    kv_allocator allocator = kvi_allocator_or_default(o ? &o->allocator : NULL);
    const kv_io *io = o && o->io ? o->io : kv_io_default();
    kv_file     *file;
    kv_slice     bytes = { NULL, 0 };
    size_t       owned = 0;
    kv_status    s;
    if (!fst) return KV_ERR_INVALID;
    *fst = NULL;
    if (!path) return kvi_fst_open_fail(o, KV_ERR_INVALID, KVI_FST_TEXT("fst: no path"));
    if (!io) return kvi_fst_open_fail(o, KV_ERR_UNSUPPORTED, KVI_FST_TEXT("fst: no files here: give a kv_io"));
    s = io->open(io->user, path, 0, &file);
    if (s == KV_OK) {
        s = kvi_fst_fetch(io, file, &allocator, &bytes, &owned);
        (void)io->close(io->user, file);
    }
    if (s != KV_OK) {
        (void)kvi_fst_open_fail(o, s, s == KV_NOT_FOUND ? KVI_FST_TEXT("fst: no such file") : s == KV_ERR_CORRUPT ? KVI_FST_TEXT("fst: too few bytes") : NULL);
        return kvi_fst_open_name(o, s, path);
    }
    s = kv_fst_open_memory(o, bytes, fst);
    if (s < 0) { kvi_fst_unload(io, &allocator, bytes, owned); return kvi_fst_open_name(o, s, path); }
    (*fst)->io = io;
    (*fst)->owned = owned;
    return KV_OK;
}

KVI_FST_DEFINE void kv_fst_close(kv_fst *f)
{
    kv_allocator allocator;
    if (!f) return;
    allocator = f->allocator;
    if (f->io) kvi_fst_unload(f->io, &allocator, kv_bytes(f->bytes, f->size), f->owned);
    kvi_free(&allocator, f, kvi_fst_object_size(f->dictionary_count));
}

/* ------------------------------------------------------------------------------------------------
   >>query   single keys, ranks and ranges                                                         */

KVI_PRIVATE kv_status kvi_fst_corrupt(kv_fst *f)
{
    return kvi_error_set(&f->error, KV_ERR_CORRUPT, KVI_FST_TEXT("fst: a state is damaged (opened with skip_verify, or changed since)"));
}
/* A failure with its text; answers pass through. */
KVI_PRIVATE kv_status kvi_fst_fail(kv_fst *f, kv_status s)
{
    if (s >= 0) return s;
    return s == KV_ERR_CORRUPT ? kvi_fst_corrupt(f) : kvi_error_set(&f->error, s, NULL);
}
KVI_INLINE kv_status kvi_fst_lookup(kv_fst *f, kv_slice key, kvi_fst_place *place)
{
    kv_status s = kv_check_key(key);
    if (KVI_LIKELY(s == KV_OK)) s = kvi_fst_find(f, key, place);
    return KVI_UNLIKELY(s < 0) ? kvi_fst_fail(f, s) : s;
}

KVI_FST_DEFINE kv_status kv_fst_get(kv_fst *f, kv_slice key, uint64_t *value)
{
    kvi_fst_place   place;
    kvi_fst_numbers n;
    kv_status       s;
    if (!f || !value) return KV_ERR_INVALID;
    if (f->values == KV_FST_BYTES) return kvi_error_set(&f->error, KV_ERR_WRONG_TYPE, KVI_FST_TEXT("fst: this map holds bytes: use kv_fst_get_bytes"));
    s = kvi_fst_lookup(f, key, &place);
    if (s != KV_OK) return s;
    if (f->values == KV_FST_SET) { *value = 0; return KV_OK; }
    if (!kvi_fst_parse_numbers(&place.leaf, &n)) return kvi_fst_corrupt(f);
    *value = kvi_fst_number(&n, place.entry, place.rank);
    return KV_OK;
}
KVI_FST_DEFINE kv_status kv_fst_get_bytes(kv_fst *f, kv_slice key, kv_buf *value)
{
    kvi_fst_place place;
    uint8_t       scratch[8];
    kv_slice      found;
    kv_status     s;
    if (!f || !value) return KV_ERR_INVALID;
    s = kvi_fst_lookup(f, key, &place);
    if (s != KV_OK) return s;
    if (!kvi_fst_value(f, &place.leaf, place.entry, place.rank, scratch, &found)) return kvi_fst_corrupt(f);
    return kvi_fst_fail(f, kv_buf_assign(value, found));
}
KVI_FST_DEFINE kv_status kv_fst_view(kv_fst *f, kv_slice key, kv_visit_fn visit, void *user)
{
    kvi_fst_place place;
    uint8_t       scratch[8];
    kv_slice      value;
    kv_status     s;
    if (!f || !visit) return KV_ERR_INVALID;
    s = kvi_fst_lookup(f, key, &place);
    if (s != KV_OK) return s;
    if (!kvi_fst_value(f, &place.leaf, place.entry, place.rank, scratch, &value)) return kvi_fst_corrupt(f);
    (void)visit(user, key, value);
    return KV_OK;
}
KVI_FST_DEFINE kv_status kv_fst_exists(kv_fst *f, kv_slice key)
{
    kvi_fst_place place;
    return f ? kvi_fst_lookup(f, key, &place) : KV_ERR_INVALID;
}
KVI_FST_DEFINE kv_status kv_fst_rank(kv_fst *f, kv_slice key, uint64_t *rank)
{
    kvi_fst_place place;
    kv_status     s;
    if (!f || !rank) return KV_ERR_INVALID;
    s = kvi_fst_lookup(f, key, &place);
    if (s >= 0) *rank = place.rank;
    return s;
}
KVI_FST_DEFINE kv_status kv_fst_select(kv_fst *f, uint64_t rank, kv_buf *key)
{
#if defined(KV_FST_LOOKUP_ONLY)
    (void)rank;
    return f && key ? KV_ERR_UNSUPPORTED : KV_ERR_INVALID;
#else
    kvi_fst_cursor *c;
    kv_status       s;
    if (!f || !key) return KV_ERR_INVALID;
    if (rank >= f->keys) return KV_NOT_FOUND;
    c = kvi_fst_cursor_new(f);
    s = c ? kvi_fst_to_rank(c, rank) : KV_ERR_NO_MEMORY;
    if (s == KV_OK) s = kv_buf_assign(key, kvi_fst_key(c));
    kvi_fst_cursor_free(c);
    return kvi_fst_fail(f, s);
#endif
}

/* A range's bounds, with memory for the end of its prefix. */
typedef struct kvi_fst_bounds { kvi_bounds b; uint8_t small[64], *memory; size_t size; } kvi_fst_bounds;

KVI_PRIVATE kv_status kvi_fst_bounds_make(kv_fst *f, const kv_range *range, kvi_fst_bounds *r)
{
    kv_status s = kvi_check_range(range);
    if (s < 0) return s;
    r->size = kvi_bounds_memory(range);
    r->memory = r->size <= sizeof r->small ? r->small : (uint8_t *)kvi_alloc(&f->allocator, r->size);
    if (!r->memory) return KV_ERR_NO_MEMORY;
    r->b = kvi_bounds_of(range, r->memory);
    return KV_OK;
}
KVI_PRIVATE void kvi_fst_bounds_free(kv_fst *f, kvi_fst_bounds *r) { if (r->memory != r->small) kvi_free(&f->allocator, r->memory, r->size); }

/* The rank behind the last key of some bounds. */
KVI_PRIVATE kv_status kvi_fst_upper(const kv_fst *f, const kvi_bounds *b, uint64_t *to)
{
    *to = b->empty ? 0 : f->keys;
    return b->has_upper && !b->empty ? kvi_fst_find_bound(f, b->upper, to) : KV_OK;
}
/* The ranks of a range: of its first key, and behind its last. */
KVI_PRIVATE kv_status kvi_fst_span(kv_fst *f, const kv_range *range, uint64_t *from, uint64_t *to)
{
    kvi_fst_bounds r;
    kv_status      s = kvi_fst_bounds_make(f, range, &r);
    if (s < 0) return kvi_fst_fail(f, s);
    *from = 0;
    s = kvi_fst_upper(f, &r.b, to);
    if (s >= 0 && r.b.lower.size && !r.b.empty) s = kvi_fst_find_bound(f, r.b.lower, from);
    if (*from > *to) *from = *to;
    kvi_fst_bounds_free(f, &r);
    return s < 0 ? kvi_fst_fail(f, s) : KV_OK;
}

#if defined(KV_FST_LOOKUP_ONLY)
KVI_FST_DEFINE kv_status kv_fst_scan(kv_fst *f, const kv_range *range, kv_visit_fn visit, void *user)
{
    (void)range;
    (void)user;
    return f && visit ? KV_ERR_UNSUPPORTED : KV_ERR_INVALID;
}
#elif KVI_SMALL
KVI_FST_DEFINE kv_status kv_fst_scan(kv_fst *f, const kv_range *range, kv_visit_fn visit, void *user)
{
    kvi_fst_cursor *c;
    uint64_t        from = 0, to = 0, left;
    uint8_t         scratch[8];
    kv_slice        value;
    kv_status       s;
    if (!f || !visit) return KV_ERR_INVALID;
    s = kvi_fst_span(f, range, &from, &to);
    if (s < 0) return s;
    left = range && range->limit && range->limit < to - from ? range->limit : to - from;
    c = kvi_fst_cursor_new(f);
    if (!c) s = KV_ERR_NO_MEMORY;
    for (; s == KV_OK && left; left--) {
        s = kvi_fst_to_rank(c, range && range->reverse ? --to : from++);
        if (s == KV_OK && !kvi_fst_value_here(c, scratch, &value)) s = KV_ERR_CORRUPT;
        if (s == KV_OK && !visit(user, kvi_fst_key(c), value)) break;
    }
    kvi_fst_cursor_free(c);
    return kvi_fst_fail(f, s);
}
#else
/* To the first key that a scan visits; *left: how many there are. */
KVI_PRIVATE kv_status kvi_fst_scan_start(kvi_fst_cursor *c, const kvi_bounds *b, bool reverse, uint64_t *left)
{
    const kv_fst *f = c->f;
    uint64_t      from = 0, to;
    kv_status     s = kvi_fst_upper(f, b, &to);
    *left = 0;
    if (s < 0 || !to) return s < 0 ? s : KV_END;
    if (!reverse) {
        s = b->lower.size ? kvi_fst_seek(c, b->lower) : kvi_fst_first(c);
        if (s == KV_OK) from = kvi_fst_rank_here(c);
    } else {
        s = b->lower.size ? kvi_fst_find_bound(f, b->lower, &from) : KV_OK;
        if (s >= 0 && from < to) s = kvi_fst_to_rank(c, to - 1);
    }
    if (s < 0 || s == KV_END) return s;
    if (from >= to) return KV_END;
    *left = to - from;
    return KV_OK;
}

KVI_FST_DEFINE kv_status kv_fst_scan(kv_fst *f, const kv_range *range, kv_visit_fn visit, void *user)
{
    kvi_fst_cursor *c;
    kvi_fst_bounds  r;
    uint64_t        left = 0;
    uint8_t         scratch[8];
    kv_slice        value;
    kv_status       s;
    bool            reverse = range && range->reverse;
    if (!f || !visit) return KV_ERR_INVALID;
    s = kvi_fst_bounds_make(f, range, &r);
    if (s < 0) return kvi_fst_fail(f, s);
    c = kvi_fst_cursor_new(f);
    s = c ? kvi_fst_scan_start(c, &r.b, reverse, &left) : KV_ERR_NO_MEMORY;
    if (range && range->limit && range->limit < left) left = range->limit;
    while (s == KV_OK) {
        if (!kvi_fst_value_here(c, scratch, &value)) { s = KV_ERR_CORRUPT; break; }
        if (!visit(user, kvi_fst_key(c), value) || !--left) break;
        s = reverse ? kvi_fst_prev(c) : kvi_fst_next(c);
    }
    kvi_fst_cursor_free(c);
    kvi_fst_bounds_free(f, &r);
    return s < 0 ? kvi_fst_fail(f, s) : KV_OK;
}
#endif

KVI_FST_DEFINE kv_store *kv_fst_store(kv_fst *f)
{
#if KVI_FST_OPS_LATE
    if (f) f->store.ops = kvi_fst_store_ops();
#endif
    return f ? &f->store : NULL;
}
KVI_FST_DEFINE uint64_t  kv_fst_count(const kv_fst *f) { return f ? f->keys : 0; }
KVI_FST_DEFINE kv_fst_values kv_fst_values_of(const kv_fst *f) { return f ? f->values : KV_FST_SET; }
KVI_FST_DEFINE kv_status kv_fst_iter_open(kv_fst *f, const kv_range *range, kv_iter **iter) { return kv_iter_open(kv_fst_store(f), range, iter); }
KVI_FST_DEFINE kv_status kv_fst_check(kv_fst *f) { return f ? kvi_fst_verify(f, true) : KV_ERR_INVALID; }
KVI_FST_DEFINE kv_status kv_fst_stats(kv_fst *f, kv_fst_stats_t *stats)
{
    const uint8_t *footer;
    if (!f || !stats) return KV_ERR_INVALID;
    footer = f->bytes + f->data_end;
    memset(stats, 0, sizeof *stats);
    stats->keys = f->keys;
    stats->key_bytes = kvi_load_le64(footer + KVI_FST_AT_KEY_BYTES);
    stats->value_bytes = kvi_load_le64(footer + KVI_FST_AT_VALUE_BYTES);
    stats->size_bytes = f->size;
    stats->states = kvi_load_le64(footer + KVI_FST_AT_STATES);
    stats->arcs = kvi_load_le64(footer + KVI_FST_AT_ARCS);
    stats->shared = kvi_load_le64(footer + KVI_FST_AT_SHARED);
    stats->dictionary_bytes = kvi_load_le64(footer + KVI_FST_AT_DICTIONARY_BYTES);
    stats->dictionaries = f->dictionary_count;
    stats->levels = f->levels;
    stats->key_size_max = f->key_size_max;
    return KV_OK;
}

/* ------------------------------------------------------------------------------------------------
   >>store   the map as a kv_store, and its cursors                                                */

KVI_INLINE kv_fst *kvi_fst_of(kv_store *s) { return (kv_fst *)(void *)s; }
KVI_PRIVATE kv_status kvi_fst_store_get(kv_store *s, kv_slice key, kv_buf *value) { return kv_fst_get_bytes(kvi_fst_of(s), key, value); }
KVI_PRIVATE kv_status kvi_fst_store_view(kv_store *s, kv_slice key, kv_visit_fn visit, void *user) { return kv_fst_view(kvi_fst_of(s), key, visit, user); }
KVI_PRIVATE kv_status kvi_fst_store_exists(kv_store *s, kv_slice key) { return kv_fst_exists(kvi_fst_of(s), key); }
KVI_PRIVATE kv_status kvi_fst_store_scan(kv_store *s, const kv_range *range, kv_visit_fn visit, void *user) { return kv_fst_scan(kvi_fst_of(s), range, visit, user); }
KVI_PRIVATE kv_status kvi_fst_store_count(kv_store *s, const kv_range *range, uint64_t *count)
{
    uint64_t  from = 0, to = 0;
    kv_status status = kvi_fst_span(kvi_fst_of(s), range, &from, &to);
    if (status < 0) return status;
    *count = to - from;
    if (range && range->limit && range->limit < *count) *count = range->limit;
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_fst_store_close(kv_store *s) { kv_fst_close(kvi_fst_of(s)); return KV_OK; }
KVI_PRIVATE const char *kvi_fst_store_error(const kv_store *s) { return kvi_error_text(&((const kv_fst *)(const void *)s)->error); }
KVI_PRIVATE kv_status kvi_fst_store_stats(kv_store *s, kv_stats *stats)
{
    const kv_fst  *f = kvi_fst_of(s);
    const uint8_t *footer = f->bytes + f->data_end;
    stats->keys = f->keys;
    stats->key_bytes = kvi_load_le64(footer + KVI_FST_AT_KEY_BYTES);
    stats->value_bytes = kvi_load_le64(footer + KVI_FST_AT_VALUE_BYTES);
    stats->memory_bytes = kvi_fst_object_size(f->dictionary_count) + f->owned;
    stats->disk_bytes = f->size;
    return KV_OK;
}

#if !KVI_SMALL
#define KVI_FST_BATCH_AHEAD 4           /* keys fetched before their turn */

KVI_PRIVATE kv_status kvi_fst_store_batch_get(kv_store *s, const kv_slice *keys, size_t count, kv_buf *values, kv_status *statuses)
{
    kv_status first = KV_OK;
    for (size_t i = 0; i < count; i++) {
        if (i + KVI_FST_BATCH_AHEAD < count) kvi_prefetch(keys[i + KVI_FST_BATCH_AHEAD].data);
        statuses[i] = kvi_fst_store_get(s, keys[i], &values[i]);
        if (statuses[i] < 0 && first == KV_OK) first = statuses[i];
    }
    return first;
}
#else
#define kvi_fst_store_batch_get NULL    /* kv.h asks one by one */
#endif

typedef struct kvi_fst_iter { kv_iter iter; kvi_fst_cursor *c; uint8_t scratch[8]; } kvi_fst_iter;

KVI_INLINE kvi_fst_cursor *kvi_fst_iter_cursor(kv_iter *i) { return ((kvi_fst_iter *)(void *)i)->c; }
KVI_INLINE void kvi_fst_iter_at(kv_iter *i, kv_status s)
{
    i->valid = s == KV_OK;
    i->status = s < 0 ? kvi_fst_fail(kvi_fst_of(i->store), s) : KV_OK;
    if (i->valid) i->key = kvi_fst_key(kvi_fst_iter_cursor(i));
}
KVI_PRIVATE void kvi_fst_iter_seek(kv_iter *i, kv_slice key) { kvi_fst_iter_at(i, kvi_fst_seek(kvi_fst_iter_cursor(i), key)); }
KVI_PRIVATE void kvi_fst_iter_seek_before(kv_iter *i, kv_slice key)
{
    kvi_fst_cursor *c = kvi_fst_iter_cursor(i);
    kv_status       s = kvi_fst_seek(c, key);
    kvi_fst_iter_at(i, s == KV_END ? kvi_fst_last(c) : s == KV_OK ? kvi_fst_prev(c) : s);
}
KVI_PRIVATE void kvi_fst_iter_last(kv_iter *i) { kvi_fst_iter_at(i, kvi_fst_last(kvi_fst_iter_cursor(i))); }
KVI_PRIVATE void kvi_fst_iter_next(kv_iter *i) { kvi_fst_iter_at(i, kvi_fst_next(kvi_fst_iter_cursor(i))); }
KVI_PRIVATE void kvi_fst_iter_prev(kv_iter *i) { kvi_fst_iter_at(i, kvi_fst_prev(kvi_fst_iter_cursor(i))); }
KVI_PRIVATE kv_slice kvi_fst_iter_value(kv_iter *i)
{
    kvi_fst_iter *it = (kvi_fst_iter *)(void *)i;
    kv_slice      value;
    if (KVI_LIKELY(kvi_fst_value_here(it->c, it->scratch, &value))) return value;
    kvi_fst_iter_at(i, KV_ERR_CORRUPT);
    return kv_bytes(NULL, 0);
}
KVI_PRIVATE void kvi_fst_iter_close(kv_iter *i)
{
    kv_allocator allocator = i->allocator;
    kvi_fst_cursor_free(kvi_fst_iter_cursor(i));
    kvi_free(&allocator, i, sizeof(kvi_fst_iter));
}
static const kv_iter_ops kvi_fst_iter_ops = {
    kvi_fst_iter_seek, kvi_fst_iter_seek_before, kvi_fst_iter_last, kvi_fst_iter_next, kvi_fst_iter_prev, kvi_fst_iter_value, kvi_fst_iter_close
};
KVI_PRIVATE kv_status kvi_fst_store_iter_open(kv_store *s, kv_iter **iter)
{
    kv_fst       *f = kvi_fst_of(s);
    kvi_fst_iter *it = (kvi_fst_iter *)kvi_alloc_zero(&f->allocator, sizeof *it);
    if (!it) return kvi_fst_fail(f, KV_ERR_NO_MEMORY);
    it->iter.ops = &kvi_fst_iter_ops;
    it->iter.store = s;
    it->iter.allocator = f->allocator;
    it->c = kvi_fst_cursor_new(f);
    if (!it->c) { kvi_free(&f->allocator, it, sizeof *it); return kvi_fst_fail(f, KV_ERR_NO_MEMORY); }
    *iter = &it->iter;
    return KV_OK;
}

#if defined(KV_FST_LOOKUP_ONLY)
static const kv_store_ops kvi_fst_ops = {
    kvi_fst_store_get, NULL, NULL, kvi_fst_store_exists, kvi_fst_store_view,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, kvi_fst_store_close, kvi_fst_store_stats, kvi_fst_store_error
};
#else
static const kv_store_ops kvi_fst_ops = {
    kvi_fst_store_get, NULL, NULL, kvi_fst_store_exists, kvi_fst_store_view,
    kvi_fst_store_batch_get, NULL, NULL, kvi_fst_store_scan, kvi_fst_store_count, kvi_fst_store_iter_open,
    NULL, kvi_fst_store_close, kvi_fst_store_stats, kvi_fst_store_error
};
#endif
KVI_PRIVATE const kv_store_ops *kvi_fst_store_ops(void) { return &kvi_fst_ops; }

#if !defined(KV_FST_READER_ONLY) && !defined(KV_FST_LOOKUP_ONLY)

/* ------------------------------------------------------------------------------------------------
   >>output   where the builder's bytes go, and the builder itself

   A key's way through the builder:
       kv_fst_add    checks it and keeps what differs from the last key in `chunks`        >>build
       drain         once they are full: a dictionary is trained on a sample of the tails  >>train
       push          each key goes to the leaf's window, and when that is full the window
                     is cut where its keys have least in common                            >>build
       encode        the cut part becomes a state; one that was written before is found    >>encode
       push          the state's separator goes to the window of the level above, ...
   A failure is kept, and nothing more is done but to tidy up.                                     */

#define KVI_FST_MEMORY_DEFAULT  ((size_t)64 << 20)
#define KVI_FST_MEMORY_LEAST    ((size_t)1 << 20)
#define KVI_FST_CHUNK           131072u         /* bytes; holds any record */
#define KVI_FST_SAMPLE_MOST     ((size_t)2 << 20)
#define KVI_FST_REGISTRY_SLOTS  8192u
#define KVI_FST_REGISTERED_MOST 4096u           /* a larger state is never shared */

typedef struct kvi_fst_chunk { struct kvi_fst_chunk *next; size_t size; uint8_t bytes[KVI_FST_CHUNK]; } kvi_fst_chunk;

/* Up to 64 entries that are to become a state, and one more. Entry 0 is whole in `first`; of the others
   the tails lie one behind the other. */
typedef struct kvi_fst_window {
    uint32_t count;
    uint32_t gap[KVI_FST_ENTRIES + 1];      /* bytes that the keys on both sides of this entry's start have in common */
    uint32_t lcp[KVI_FST_ENTRIES + 1];      /* with the entry before; of entry 0: unused */
    uint32_t tail[KVI_FST_ENTRIES + 2];     /* where its tail begins in tails; tail[count] is their end */
    kv_buf   first, tails, last;            /* last: the whole last entry (of nodes) */
    uint64_t value[KVI_FST_ENTRIES + 1];    /* leaf: number, or where the value ends in `values` */
    kv_buf   values;
    bool     large[KVI_FST_ENTRIES + 1];
    uint64_t child[KVI_FST_ENTRIES + 1], keys[KVI_FST_ENTRIES + 1];     /* node */
    uint32_t common[KVI_FST_ENTRIES + 1], base[KVI_FST_ENTRIES + 1];    /* node: bytes that all keys below have in common; of them before the child */
} kvi_fst_window;

/* A trie of tokens, to find those that a text begins with: each node has a place of its own in `units`, and
   its child by a byte lies that many units further on (a double array; J. Aoe, 1989). A unit is
   place of its children << 32 | token << 16 | 256 | byte; it is 0 where none is, and so is a place where
   no children are. Nodes of one byte are no units: only where their children lie is kept. */
typedef struct kvi_fst_matcher {
    uint64_t *units, *taken, *based;        /* bits: units that are in use, and places */
    uint32_t  unit_count, first_free;       /* 0 units: there is no dictionary */
    uint16_t  single[256];                  /* tokens of one byte */
    uint32_t  children[256];                /* and where their children lie */
    uint16_t *least;                        /* fewest tokens of a text's first n bytes, */
    uint16_t *via;                          /* the last of them, */
    uint8_t  *via_size;                     /* and its bytes */
    uint32_t  text_capacity;
    struct kvi_fst_matches *matches;
} kvi_fst_matcher;

#define KVI_FST_MATCHED 1024u               /* places of a text that are matched at once */

/* Of each place of a text the two longest tokens (the same where there is one), as
   bytes until the text ends, or 16 << 48 | size << 40 | token << 24 | size << 16 | token: the longest lowest. */
typedef struct kvi_fst_matches {
    uint64_t at[KVI_FST_MATCHED];
    uint32_t unit[KVI_FST_MATCHED];         /* that a place which is still going on looks at next */
    uint16_t place[KVI_FST_MATCHED];        /* which are these */
} kvi_fst_matches;
#define KVI_FST_NO_TOKEN 0xFFFFu            /* a node that is only a way to others */

typedef struct kvi_fst_slot { uint64_t hash, offset, place; uint32_t size; } kvi_fst_slot;

struct kv_fst_builder {
    kv_allocator  allocator;
    kv_fst_values values;
    size_t        memory_limit;
    char         *error_text;
    size_t        error_text_size;
    kv_status     failed;                   /* the first failure */
    kvi_error     error;
    kv_write_fn   write;
    void         *user;
    const kv_io  *io;                       /* of a build into a file */
    kv_file      *file;
    char         *paths;                    /* path, 0, path.tmp, 0 */
    size_t        path_size;
    uint8_t      *piece;                    /* KVI_FST_PIECE bytes to be written */
    uint32_t      piece_size;
    uint64_t      offset, checksum;         /* bytes so far; of the whole pieces */
    kv_buf        last;                     /* the last key */
    uint64_t      last_value;
    uint64_t      keys, key_bytes, value_bytes, states, arcs, shared, dictionary_bytes;
    uint32_t      key_size_max;
    kvi_fst_chunk *chunks, *chunk;          /* all of them, and the one being filled */
    size_t        buffered, buffer_limit, tail_bytes;
    kv_buf        key;                      /* the key that is being pushed */
    uint64_t      rank;                     /* of the leaf window's entry 0 */
    uint64_t      pushed;
    kvi_fst_window *windows[KVI_FST_LEVELS + 1];
    kv_buf        block, symbols, text;     /* text: what is written with tokens, one tail behind the other */
    kvi_fst_slot *slots;                    /* states written, by hash, with copies in a ring */
    size_t        slot_count;
    uint8_t      *ring;
    size_t        ring_size;
    uint64_t      ring_head;
    kvi_fst_matcher matcher;                /* of the current dictionary; no nodes: none */
    uint64_t      dictionaries[KVI_FST_DICTIONARIES];
    uint32_t      dictionary_count;
    double        ratio;                    /* symbol bytes a tail byte, in the sample of the current dictionary */
};

/* Keep the first failure, with a text for it. */
KVI_PRIVATE kv_status kvi_fst_build_fail(kv_fst_builder *b, kv_status s, const char *what)
{
    if (b->failed) return b->failed;
    b->failed = s;
    (void)kvi_error_set(&b->error, s, what);
    if (b->error_text && b->error_text_size) {
        kvi_text t = kvi_text_over(b->error_text, b->error_text_size);
        kvi_text_add(&t, kvi_error_text(&b->error));
    }
    return s;
}
KVI_PRIVATE kv_status kvi_fst_build_order(kv_fst_builder *b, kv_slice key)
{
    kvi_text t = kvi_error_begin(&b->error);
    bool     twice = kv_equal(key, kv_buf_slice(&b->last));
    kvi_text_add(&t, "fst: key ");
    kvi_text_key(&t, key);
    kvi_text_add(&t, twice ? " was given twice, after " : " comes after ");
    kvi_text_key(&t, kv_buf_slice(&b->last));
    b->failed = kvi_error_end(&b->error, KV_ERR_ORDER);
    if (b->error_text && b->error_text_size) {
        t = kvi_text_over(b->error_text, b->error_text_size);
        kvi_text_add(&t, kvi_error_text(&b->error));
    }
    return b->failed;
}
KVI_PRIVATE kv_status kvi_fst_build_memory(kv_fst_builder *b) { return kvi_fst_build_fail(b, KV_ERR_NO_MEMORY, NULL); }
KVI_PRIVATE bool kvi_fst_keep(kv_fst_builder *b, kv_status s) { if (s < 0) (void)kvi_fst_build_fail(b, s, NULL); return s >= 0; }

KVI_PRIVATE kv_status kvi_fst_write_out(kv_fst_builder *b, const uint8_t *data, size_t size)
{
    kv_status s = b->write(b->user, data, size);
    return s == KV_OK ? KV_OK : kvi_fst_build_fail(b, s, b->file ? NULL : "fst: the caller's write failed");
}
KVI_PRIVATE kv_status kvi_fst_emit(kv_fst_builder *b, const void *data, size_t size)
{
    const uint8_t *p = (const uint8_t *)data;
    while (size && !b->failed) {
        size_t part = KVI_FST_PIECE - b->piece_size;
        if (part > size) part = size;
        memcpy(b->piece + b->piece_size, p, part);
        p += part;
        size -= part;
        b->piece_size += (uint32_t)part;
        b->offset += part;
        if (b->piece_size < KVI_FST_PIECE) break;
        b->checksum = kvi_hash(b->piece, KVI_FST_PIECE, b->checksum);
        b->piece_size = 0;
        (void)kvi_fst_write_out(b, b->piece, KVI_FST_PIECE);
    }
    return b->failed;
}
/* The frame around what is no state. *at: where its bytes will lie. */
KVI_PRIVATE kv_status kvi_fst_emit_frame(kv_fst_builder *b, uint64_t size, uint64_t *at)
{
    uint8_t head[9];
    head[0] = KVI_FST_DATA << 6;
    kvi_store_le64(head + 1, size);
    *at = b->offset + 7;
    return kvi_fst_emit(b, head, 7);
}

/* ------------------------------------------------------------------------------------------------
   >>train   a dictionary of tokens for the tails

   Byte-pair encoding (P. Gage, 1994) on a sample that is spread evenly over the keys at hand: count the
   pairs of neighbouring tokens, let the frequent ones be tokens, write the sample with them, and again.
   A round takes all pairs that are at least half as frequent as the most frequent one, so that some
   thirty rounds do the work of sixty thousand. Then the sample is written with the fewest tokens
   possible, and tokens that this hardly uses are dropped.

   Invariant T1: everything here depends on the keys and the options alone; ties break by content.  */

#define KVI_FST_END_SYMBOL 0xFFFFu          /* between two tails of the sample */
#define KVI_FST_NO_PAIR    UINT32_MAX

typedef struct kvi_fst_string { uint8_t bytes[KVI_FST_TOKEN_BYTES]; } kvi_fst_string;
typedef struct kvi_fst_pair { uint32_t key, count; } kvi_fst_pair;     /* count 0: free; KVI_FST_CHOSEN + token: it becomes that */
#define KVI_FST_CHOSEN 0x80000000u

typedef struct kvi_fst_trainer {
    kv_fst_builder *b;
    uint16_t       *symbols;                /* the sample */
    uint32_t       *place;                  /* of each symbol: its pair with the next one, or KVI_FST_NO_PAIR */
    uint32_t        size, capacity;
    kvi_fst_pair   *pairs;
    uint32_t        pair_slots, pair_mask, pair_count;      /* slots there are, and the round uses */
    kvi_fst_string *strings;
    uint8_t        *sizes;
    uint32_t       *uses;
    uint32_t        count, most;            /* tokens */
    uint32_t       *named;                  /* tokens by hash of their string, + 1 */
    uint32_t        named_mask;
    uint64_t       *chosen;                 /* candidates of a round: count << 32 | place in pairs */
    uint32_t        chosen_capacity;
} kvi_fst_trainer;

/* Sort numbers upwards, in place. */
KVI_PRIVATE void kvi_fst_sort(uint64_t *a, size_t count)
{
    for (size_t start = count / 2, end = count; end > 1;) {
        size_t   root;
        uint64_t moved;
        if (start) moved = a[--start]; else { moved = a[--end]; a[end] = a[0]; }
        root = start;
        for (;;) {
            size_t child = 2 * root + 1;
            if (child >= end) break;
            if (child + 1 < end && a[child + 1] > a[child]) child++;
            if (a[child] <= moved) break;
            a[root] = a[child];
            root = child;
        }
        a[root] = moved;
    }
}

/* ---- records: what add kept of the keys ---- */

typedef struct kvi_fst_record { uint32_t lcp, size; const uint8_t *tail, *bytes; uint64_t value; bool large; } kvi_fst_record;   /* value: the number, or how many bytes */
typedef struct kvi_fst_reader { const kvi_fst_chunk *chunk; size_t at; uint64_t number; } kvi_fst_reader;

KVI_PRIVATE bool kvi_fst_read(const kv_fst_builder *b, kvi_fst_reader *r, kvi_fst_record *record)
{
    const uint8_t *p, *start;
    uint64_t       n;
    while (r->chunk && r->at == r->chunk->size) { r->chunk = r->chunk->next; r->at = 0; }
    if (!r->chunk) return false;
    start = p = r->chunk->bytes + r->at;
    record->lcp = (uint32_t)kvi_fst_varint(&p);
    record->size = (uint32_t)kvi_fst_varint(&p);
    record->tail = p;
    p += record->size;
    record->bytes = NULL;
    record->value = 0;
    record->large = false;
    if (b->values == KV_FST_U64) {
        n = kvi_fst_varint(&p);
        record->value = r->number += (n >> 1 ^ (0 - (n & 1))) + 1;
    } else if (b->values == KV_FST_BYTES) {
        n = kvi_fst_varint(&p);
        record->large = (n & 1) != 0;
        record->value = n >> 1;
        record->bytes = p;
        p += n >> 1;
    }
    r->at += (size_t)(p - start);
    return true;
}

/* An even choice of tails: about `wanted` of `total` bytes. */
typedef struct kvi_fst_sampler { kvi_fst_reader reader; uint64_t wanted, total, sum; } kvi_fst_sampler;
KVI_PRIVATE bool kvi_fst_sample(const kv_fst_builder *b, kvi_fst_sampler *s, kvi_fst_record *record)
{
    while (kvi_fst_read(b, &s->reader, record)) {
        s->sum += s->wanted;                    /* for each record alike: long tails are not preferred */
        if (s->sum < s->total) continue;
        s->sum -= s->total;
        return true;
    }
    return false;
}
KVI_PRIVATE kvi_fst_sampler kvi_fst_sampler_of(const kv_fst_builder *b, size_t wanted)
{
    kvi_fst_sampler s;
    memset(&s, 0, sizeof s);
    s.reader.chunk = b->chunks;
    s.total = b->tail_bytes ? b->tail_bytes : 1;
    s.wanted = wanted < s.total ? wanted : s.total;
    return s;
}

/* ---- the matcher ---- */

KVI_PRIVATE void kvi_fst_matcher_free(kv_fst_builder *b)
{
    kvi_fst_matcher *m = &b->matcher;
    kvi_free(&b->allocator, m->units, m->unit_count * sizeof *m->units);
    kvi_free(&b->allocator, m->taken, m->unit_count / 8);
    kvi_free(&b->allocator, m->based, m->unit_count / 8);
    m->units = m->taken = m->based = NULL;
    m->unit_count = 0;
}
KVI_PRIVATE void kvi_fst_matcher_free_text(kv_fst_builder *b)
{
    kvi_fst_matcher *m = &b->matcher;
    kvi_free(&b->allocator, m->least, m->text_capacity * sizeof *m->least);
    kvi_free(&b->allocator, m->via, m->text_capacity * sizeof *m->via);
    kvi_free(&b->allocator, m->via_size, m->text_capacity);
    kvi_free(&b->allocator, m->matches, sizeof *m->matches);
    m->least = m->via = NULL;
    m->via_size = NULL;
    m->matches = NULL;
    m->text_capacity = 0;
}
KVI_INLINE bool kvi_fst_bit(const uint64_t *bits, uint32_t i) { return bits[i / 64] >> (i & 63) & 1; }
KVI_INLINE void kvi_fst_set_bit(uint64_t *bits, uint32_t i) { bits[i / 64] |= UINT64_C(1) << (i & 63); }

/* Room for so many units. */
KVI_PRIVATE bool kvi_fst_matcher_grow(kv_fst_builder *b, uint32_t units)
{
    kvi_fst_matcher *m = &b->matcher;
    uint32_t         count = (units + 511) / 512 * 512, old = m->unit_count;
    uint64_t        *grown = (uint64_t *)kvi_alloc_zero(&b->allocator, count * sizeof *grown);
    uint64_t        *taken = (uint64_t *)kvi_alloc_zero(&b->allocator, count / 8), *based = (uint64_t *)kvi_alloc_zero(&b->allocator, count / 8);
    if (!grown || !taken || !based) {
        kvi_free(&b->allocator, grown, count * sizeof *grown);
        kvi_free(&b->allocator, taken, count / 8);
        kvi_free(&b->allocator, based, count / 8);
        return false;
    }
    kvi_copy(grown, m->units, old * sizeof *grown);
    kvi_copy(taken, m->taken, old / 8);
    kvi_copy(based, m->based, old / 8);
    kvi_fst_matcher_free(b);
    m->units = grown;
    m->taken = taken;
    m->based = based;
    m->unit_count = count;
    return true;
}

#define KVI_FST_TRIED 16u                  /* free units that are tried before the end is taken */

/* A place for children by these bytes, which ascend; 0: no memory. */
KVI_PRIVATE uint32_t kvi_fst_matcher_place(kv_fst_builder *b, const uint8_t *bytes, uint32_t count, uint32_t *end)
{
    kvi_fst_matcher *m = &b->matcher;
    uint32_t         tried = 0;
    for (uint32_t word = m->first_free; word < m->unit_count / 64 && word * 64 < *end && tried < KVI_FST_TRIED; word++) {
        uint64_t left = ~m->taken[word];
        if (!left && word == m->first_free) m->first_free++;
        for (; left && tried < KVI_FST_TRIED; left &= left - 1) {
            uint32_t place = word * 64 + kvi_lowest_bit64(left) - bytes[0], i = 1;
            tried++;
            if (place + 256 > m->unit_count || kvi_fst_bit(m->based, place)) continue;
            while (i < count && !kvi_fst_bit(m->taken, place + bytes[i])) i++;
            if (i == count) return place;
        }
    }
    if (tried >= KVI_FST_TRIED) m->first_free++;                    /* hardly anything fits there */
    if (*end + 256 > m->unit_count && !kvi_fst_matcher_grow(b, *end + 256 + *end / 4)) return 0;
    return *end;
}

typedef struct kvi_fst_branch { uint32_t from, to, parent; uint8_t depth; } kvi_fst_branch;     /* strings with `depth` bytes in common; parent: a unit, or a byte */
#define KVI_FST_BRANCHES (255u * KVI_FST_TOKEN_BYTES + 2)

/* The children of a branch: their units, and those that have children again onto the stack. */
KVI_PRIVATE bool kvi_fst_matcher_branch(kv_fst_builder *b, const kvi_fst_string *strings, const uint8_t *sizes, kvi_fst_branch now, kvi_fst_branch *stack, uint32_t *top, uint32_t *end)
{
    kvi_fst_matcher *m = &b->matcher;
    uint8_t          bytes[256];
    uint32_t         count = 0, place, from = now.from;
    for (uint32_t i = from; i < now.to; i++) if (!count || bytes[count - 1] != strings[i].bytes[now.depth]) bytes[count++] = strings[i].bytes[now.depth];
    place = kvi_fst_matcher_place(b, bytes, count, end);
    if (!place) return false;
    kvi_fst_set_bit(m->based, place);
    if (place + bytes[count - 1] >= *end) *end = place + bytes[count - 1] + 1u;
    if (now.depth == 1) m->children[now.parent] = place; else m->units[now.parent] |= (uint64_t)place << 32;
    for (uint32_t k = 0; k < count; k++) {
        uint32_t unit = place + bytes[k], to = from, token = KVI_FST_NO_TOKEN;
        while (to < now.to && strings[to].bytes[now.depth] == bytes[k]) to++;
        if (sizes[from] == now.depth + 1u) token = from++;
        m->units[unit] = token << 16 | 256u | bytes[k];
        kvi_fst_set_bit(m->taken, unit);
        if (from < to) {
            kvi_fst_branch *next = &stack[(*top)++];
            next->from = from;
            next->to = to;
            next->parent = unit;
            next->depth = (uint8_t)(now.depth + 1);
        }
        from = to;
    }
    return true;
}

/* Of tokens that are in order and hold all single bytes. */
KVI_PRIVATE bool kvi_fst_matcher_make(kv_fst_builder *b, const kvi_fst_string *strings, const uint8_t *sizes, uint32_t count)
{
    kvi_fst_matcher *m = &b->matcher;
    kvi_fst_branch  *stack;
    uint32_t         units = 1024, end = 256;       /* so that no place is 0 */
    bool             good = true;
    kvi_fst_matcher_free(b);
    for (uint32_t i = 1; i < count; i++) {          /* what each adds to the one before */
        uint32_t both = sizes[i] < sizes[i - 1] ? sizes[i] : sizes[i - 1];
        units += sizes[i] - (uint32_t)kvi_common_prefix(strings[i].bytes, strings[i - 1].bytes, both);
    }
    stack = (kvi_fst_branch *)kvi_alloc(&b->allocator, KVI_FST_BRANCHES * sizeof *stack);
    if (!stack || !kvi_fst_matcher_grow(b, units + units / 16)) { kvi_free(&b->allocator, stack, KVI_FST_BRANCHES * sizeof *stack); return false; }
    m->first_free = 256 / 64;
    for (uint32_t i = 0; i < count && good;) {
        uint32_t byte = strings[i].bytes[0], top = 0;
        m->single[byte] = (uint16_t)i;
        m->children[byte] = 0;
        stack[0].from = ++i;
        while (i < count && strings[i].bytes[0] == byte) i++;
        stack[0].to = i;
        stack[0].parent = byte;
        stack[0].depth = 1;
        if (stack[0].from < i) top = 1;
        while (top && good) { top--; good = kvi_fst_matcher_branch(b, strings, sizes, stack[top], stack, &top, &end); }
    }
    kvi_free(&b->allocator, stack, KVI_FST_BRANCHES * sizeof *stack);
    if (!good) kvi_fst_matcher_free(b);
    return good;
}

/* Room for texts of so many bytes. */
KVI_PRIVATE bool kvi_fst_matcher_room(kv_fst_builder *b, uint32_t size)
{
    kvi_fst_matcher *m = &b->matcher;
    uint32_t         capacity = 1024;
    if (size + 1 <= m->text_capacity) return true;
    while (capacity < size + 1) capacity *= 2;
    kvi_fst_matcher_free_text(b);
    m->least = (uint16_t *)kvi_alloc(&b->allocator, capacity * sizeof *m->least);
    m->via = (uint16_t *)kvi_alloc(&b->allocator, capacity * sizeof *m->via);
    m->via_size = (uint8_t *)kvi_alloc(&b->allocator, capacity);
    m->matches = (kvi_fst_matches *)kvi_alloc(&b->allocator, sizeof *m->matches);
    m->text_capacity = capacity;
    if (m->least && m->via && m->via_size && m->matches) return true;
    kvi_fst_matcher_free_text(b);
    return false;
}

/* What the matcher needs for tails that lie one behind the other: text, with a byte of room behind it, and
   where each tail ends. */
typedef struct kvi_fst_tails { const uint8_t *text; uint32_t ends[KVI_FST_ENTRIES], count; } kvi_fst_tails;

/* Match `count` places of the tails from `from` on, which is in tail `tail`: a byte further at all of them in
   turn, so that the many reads of the trie do not wait for each other, and no branch depends on what they find. */
KVI_PRIVATE void kvi_fst_match_places(const kvi_fst_matcher *m, const kvi_fst_tails *tails, uint32_t tail, uint32_t from, uint32_t count)
{
    kvi_fst_matches *w = m->matches;
    const uint8_t   *text = tails->text + from;
    const uint64_t  *units = m->units;
    uint32_t         going = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t left;
        uint64_t alone = m->single[text[i]] | UINT64_C(1) << 16;
        while (from + i >= tails->ends[tail]) tail++;
        left = tails->ends[tail] - from - i;
        w->at[i] = alone | alone << 24 | (uint64_t)(left < KVI_FST_TOKEN_BYTES ? left : KVI_FST_TOKEN_BYTES) << 48;
        w->place[going] = (uint16_t)i;
        w->unit[going] = m->children[text[i]] + text[i + 1];            /* there is a byte behind the last tail */
        kvi_prefetch(&units[w->unit[going]]);
        going += left > 1 && m->children[text[i]] ? 1 : 0;
    }
    for (uint32_t length = 2; going; length++) {
        uint32_t kept = 0;
        for (uint32_t i = 0; i < going; i++) {
            uint32_t place = w->place[i], left = (uint32_t)(w->at[place] >> 48), next;
            uint64_t unit = units[w->unit[i]], old = w->at[place];
            uint64_t wrong = (unit & 511u) ^ (256u | text[place + length - 1]), longer;
            unit = wrong ? KVI_FST_NO_TOKEN << 16 : unit;
            longer = (uint64_t)left << 48 | (old & 0xFFFFFFu) << 24 | length << 16 | (unit >> 16 & 0xFFFFu);
            w->at[place] = (~unit >> 16 & 0xFFFFu) ? longer : old;      /* it is a token */
            next = (uint32_t)(unit >> 32);
            w->place[kept] = (uint16_t)place;
            w->unit[kept] = next + text[place + (length < left ? length : 0)];
            kvi_prefetch(&units[w->unit[kept]]);
            kept += (next ? 1u : 0u) & (length < left ? 1u : 0u);
        }
        going = kept;
    }
}

/* Few tokens that spell each tail, to `out` (room for one a byte), and to `counts` how many; returns their
   sum. From every place that is reached the two longest tokens go on: that is as good as all of them within
   a percent, and a third of the work. The matcher has room for the longest tail. */
KVI_PRIVATE uint32_t kvi_fst_tokenise(const kvi_fst_matcher *m, const kvi_fst_tails *tails, uint16_t *out, uint32_t *counts)
{
    uint16_t *least = m->least, *via = m->via, *start = out;
    uint8_t  *via_size = m->via_size;
    uint32_t  all = tails->count ? tails->ends[tails->count - 1] : 0, from = 0, to = 0, begin = 0;
    for (uint32_t t = 0; t < tails->count; begin = tails->ends[t], t++) {
        uint32_t size = tails->ends[t] - begin, count;
        memset(least, 0xFF, ((size_t)size + 1) * sizeof *least);
        least[0] = 0;
        for (uint32_t i = 0; i < size; i++) {
            uint16_t reached = (uint16_t)(least[i] + 1);
            uint64_t match;
            uint32_t best, second;
            if (begin + i == to) {
                from = to;
                to = all - from < KVI_FST_MATCHED ? all : from + KVI_FST_MATCHED;
                kvi_fst_match_places(m, tails, t, from, to - from);
            }
            if (least[i] == 0xFFFF) continue;
            match = m->matches->at[begin + i - from];
            best = (uint32_t)(match >> 16) & 255u;
            second = (uint32_t)(match >> 40) & 255u;
            if (reached < least[i + second]) { least[i + second] = reached; via[i + second] = (uint16_t)(match >> 24); via_size[i + second] = (uint8_t)second; }
            if (reached < least[i + best]) { least[i + best] = reached; via[i + best] = (uint16_t)match; via_size[i + best] = (uint8_t)best; }
        }
        counts[t] = count = least[size];
        for (uint32_t at = size; at; at -= via_size[at]) out[--count] = via[at];
        out += counts[t];
    }
    return (uint32_t)(out - start);
}

/* ---- rounds ---- */

/* The token of a string, made if it is new; 0 where there is no room for another (0 is a single byte). */
KVI_PRIVATE uint32_t kvi_fst_name(kvi_fst_trainer *t, const kvi_fst_string *string, uint32_t size)
{
    uint32_t slot = (uint32_t)kvi_hash(string->bytes, size, size) & t->named_mask;
    for (; t->named[slot]; slot = (slot + 1) & t->named_mask) {
        uint32_t token = t->named[slot] - 1;
        if (t->sizes[token] == size && kvi_same_bytes(t->strings[token].bytes, string->bytes, size)) return token;
    }
    if (t->count == t->most) return 0;
    t->strings[t->count] = *string;
    t->sizes[t->count] = (uint8_t)size;
    t->named[slot] = ++t->count;
    return t->count - 1;
}

#define KVI_FST_AHEAD 32u                   /* pairs fetched before they are looked at */
KVI_INLINE uint32_t kvi_fst_pair_slot(const kvi_fst_trainer *t, uint32_t key) { return (uint32_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & t->pair_mask; }

/* The table for a round has room for four times the pairs of the round before; if they are still too
   many for it, the rarer ones of the late part of the sample go uncounted. */
KVI_PRIVATE uint32_t kvi_fst_count_pairs(kvi_fst_trainer *t)
{
    uint32_t most = 0, slots = 1024;
    while (slots < 4 * t->pair_count) slots *= 2;
    if (slots > t->pair_slots) slots = t->pair_slots;
    t->pair_mask = slots - 1;
    memset(t->pairs, 0, slots * sizeof *t->pairs);
    t->pair_count = 0;
    for (uint32_t from = 0; from < t->size; from += KVI_FST_AHEAD) {
        uint32_t to = t->size - from < KVI_FST_AHEAD ? t->size : from + KVI_FST_AHEAD;
        for (uint32_t i = from; i < to; i++) {              /* where they are, so that the memory is on its way */
            uint32_t a = t->symbols[i], next = i + 1 < t->size ? t->symbols[i + 1] : KVI_FST_END_SYMBOL;
            t->place[i] = KVI_FST_NO_PAIR;
            if (a == KVI_FST_END_SYMBOL || next == KVI_FST_END_SYMBOL || (uint32_t)t->sizes[a] + t->sizes[next] > KVI_FST_TOKEN_BYTES) continue;
            t->place[i] = kvi_fst_pair_slot(t, a << 16 | next);
            kvi_prefetch(&t->pairs[t->place[i]]);
        }
        for (uint32_t i = from; i < to; i++) {
            uint32_t slot = t->place[i], key;
            if (slot == KVI_FST_NO_PAIR) continue;
            key = (uint32_t)t->symbols[i] << 16 | t->symbols[i + 1];
            while (t->pairs[slot].count && t->pairs[slot].key != key) slot = (slot + 1) & t->pair_mask;
            t->place[i] = KVI_FST_NO_PAIR;
            if (!t->pairs[slot].count) {
                if (t->pair_count > t->pair_mask / 4 * 3) continue;
                t->pair_count++;
                t->pairs[slot].key = key;
            }
            t->place[i] = slot;
            if (++t->pairs[slot].count > most) most = t->pairs[slot].count;
        }
    }
    return most;
}

/* Make tokens of the pairs that occur `least` times or more, the most frequent first. */
KVI_PRIVATE bool kvi_fst_choose_pairs(kvi_fst_trainer *t, uint32_t least)
{
    uint32_t chosen = 0, before = t->count;
    for (uint32_t slot = 0; slot <= t->pair_mask && chosen < t->chosen_capacity; slot++)
        if (t->pairs[slot].count >= least) t->chosen[chosen++] = (uint64_t)(UINT32_MAX - t->pairs[slot].count) << 32 | t->pairs[slot].key;
    kvi_fst_sort(t->chosen, chosen);
    for (uint32_t i = 0; i < chosen && t->count < t->most; i++) {
        uint32_t       key = (uint32_t)t->chosen[i], a = key >> 16, z = key & 0xFFFFu, slot, token;
        kvi_fst_string string = t->strings[a];
        memcpy(string.bytes + t->sizes[a], t->strings[z].bytes, t->sizes[z]);
        token = kvi_fst_name(t, &string, (uint32_t)t->sizes[a] + t->sizes[z]);
        if (!token) break;
        for (slot = kvi_fst_pair_slot(t, key); t->pairs[slot].key != key || !t->pairs[slot].count;) slot = (slot + 1) & t->pair_mask;
        t->pairs[slot].count = KVI_FST_CHOSEN | token;
    }
    return t->count > before;
}

/* Write the sample with the new tokens. Where two pairs overlap, the more frequent one has it: its token
   is the lower. */
KVI_PRIVATE void kvi_fst_merge_pairs(kvi_fst_trainer *t)
{
    uint32_t out = 0;
    for (uint32_t i = 0; i < t->size; i++) {
        uint32_t here = t->place[i] == KVI_FST_NO_PAIR ? 0 : t->pairs[t->place[i]].count, next;
        if (i + KVI_FST_AHEAD < t->size && t->place[i + KVI_FST_AHEAD] != KVI_FST_NO_PAIR) kvi_prefetch(&t->pairs[t->place[i + KVI_FST_AHEAD]]);
        if (here >= KVI_FST_CHOSEN) {
            next = t->place[i + 1] == KVI_FST_NO_PAIR ? 0 : t->pairs[t->place[i + 1]].count;
            if (next < KVI_FST_CHOSEN || next >= here) { t->symbols[out++] = (uint16_t)here; i++; continue; }
        }
        t->symbols[out++] = t->symbols[i];
    }
    t->size = out;
}

/* ---- the result ---- */

KVI_INLINE int kvi_fst_string_order(const kvi_fst_string *a, uint32_t a_size, const kvi_fst_string *b, uint32_t b_size)
{
    return kvi_compare_bytes(a->bytes, a_size, b->bytes, b_size);
}
/* Put the tokens in order; `chosen` serves as scratch. */
KVI_PRIVATE bool kvi_fst_sort_tokens(kvi_fst_trainer *t)
{
    kvi_fst_string *strings = (kvi_fst_string *)kvi_alloc(&t->b->allocator, t->count * sizeof *strings);
    uint32_t       *heap = t->uses, n = t->count;
    if (!strings) return false;
    for (uint32_t i = 0; i < n; i++) heap[i] = i;
    for (uint32_t start = n / 2, end = n; end > 1;) {       /* heapsort of their numbers */
        uint32_t root, moved;
        if (start) moved = heap[--start]; else { moved = heap[--end]; heap[end] = heap[0]; }
        root = start;
        for (;;) {
            uint32_t child = 2 * root + 1;
            if (child >= end) break;
            if (child + 1 < end && kvi_fst_string_order(&t->strings[heap[child + 1]], t->sizes[heap[child + 1]], &t->strings[heap[child]], t->sizes[heap[child]]) > 0) child++;
            if (kvi_fst_string_order(&t->strings[heap[child]], t->sizes[heap[child]], &t->strings[moved], t->sizes[moved]) <= 0) break;
            heap[root] = heap[child];
            root = child;
        }
        heap[root] = moved;
    }
    for (uint32_t i = 0; i < n; i++) { strings[i] = t->strings[heap[i]]; t->chosen[i] = t->sizes[heap[i]]; }
    for (uint32_t i = 0; i < n; i++) t->sizes[i] = (uint8_t)t->chosen[i];
    memcpy(t->strings, strings, n * sizeof *strings);
    kvi_free(&t->b->allocator, strings, n * sizeof *strings);
    return true;
}

/* Write tails with the matcher, and count how often each token is used. */
KVI_PRIVATE uint64_t kvi_fst_measure_tails(kv_fst_builder *b, kvi_fst_tails *tails, uint32_t *uses)
{
    uint32_t counts[KVI_FST_ENTRIES], count;
    if (kv_buf_reserve(&b->symbols, 2 * b->text.size) < 0 || kv_buf_append(&b->text, kv_bytes("", 1)) < 0) { (void)kvi_fst_build_memory(b); return 0; }
    tails->text = (const uint8_t *)b->text.data;
    count = kvi_fst_tokenise(&b->matcher, tails, (uint16_t *)b->symbols.data, counts);
    if (uses) for (uint32_t i = 0; i < count; i++) uses[((uint16_t *)b->symbols.data)[i]]++;
    tails->count = 0;
    b->text.size = 0;
    return count;
}
/* So the sample. *bytes: of the sample. */
KVI_PRIVATE uint64_t kvi_fst_measure(kv_fst_builder *b, size_t wanted, uint32_t *uses, uint64_t *bytes)
{
    kvi_fst_sampler sampler = kvi_fst_sampler_of(b, wanted);
    kvi_fst_record  record;
    kvi_fst_tails   tails;
    uint64_t        tokens = 0;
    tails.count = 0;
    b->text.size = 0;
    *bytes = 0;
    while (!b->failed && kvi_fst_sample(b, &sampler, &record)) {
        if (!kvi_fst_matcher_room(b, record.size) || kv_buf_append(&b->text, kv_bytes(record.tail, record.size)) < 0) { (void)kvi_fst_build_memory(b); return 0; }
        tails.ends[tails.count++] = (uint32_t)b->text.size;
        *bytes += record.size;
        if (tails.count == KVI_FST_ENTRIES) tokens += kvi_fst_measure_tails(b, &tails, uses);
    }
    return tails.count && !b->failed ? tokens + kvi_fst_measure_tails(b, &tails, uses) : tokens;
}

/* Drop tokens that the sample uses less than `least` times. */
KVI_PRIVATE void kvi_fst_drop_tokens(kvi_fst_trainer *t, uint32_t least)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < t->count; i++) {
        if (t->sizes[i] > 1 && t->uses[i] < least) continue;
        t->strings[kept] = t->strings[i];
        t->sizes[kept++] = t->sizes[i];
    }
    t->count = kept;
}

/* Lay the strings out so that one that is part of another has no bytes of its own. Returns their bytes in
   `pool`, whose places go to `uses`. The longest go first, in their order. */
KVI_PRIVATE uint32_t kvi_fst_lay_pool(kvi_fst_trainer *t, uint8_t *pool)
{
    uint32_t size = 0;
    memset(t->named, 0, ((size_t)t->named_mask + 1) * sizeof *t->named);
    for (uint32_t i = 0; i < t->count; i++) {
        uint32_t slot = (uint32_t)kvi_hash(t->strings[i].bytes, t->sizes[i], t->sizes[i]) & t->named_mask;
        while (t->named[slot]) slot = (slot + 1) & t->named_mask;
        t->named[slot] = i + 1;
        t->uses[i] = UINT32_MAX;
    }
    for (uint32_t length = KVI_FST_TOKEN_BYTES; length; length--) {
        for (uint32_t i = 0; i < t->count; i++) {
            if (t->sizes[i] != length || t->uses[i] != UINT32_MAX) continue;
            memcpy(pool + size, t->strings[i].bytes, length);
            for (uint32_t from = 0; from < length; from++)
                for (uint32_t part = length - from; part; part--) {
                    uint32_t slot = (uint32_t)kvi_hash(pool + size + from, part, part) & t->named_mask;
                    for (; t->named[slot]; slot = (slot + 1) & t->named_mask) {
                        uint32_t token = t->named[slot] - 1;
                        if (t->sizes[token] != part || !kvi_same_bytes(t->strings[token].bytes, pool + size + from, part)) continue;
                        if (t->uses[token] == UINT32_MAX) t->uses[token] = size + from;
                        break;
                    }
                }
            size += length;
        }
    }
    return size;
}

/* The dictionary's bytes, to b->block. */
KVI_PRIVATE bool kvi_fst_lay_dictionary(kvi_fst_trainer *t)
{
    kv_fst_builder *b = t->b;
    uint8_t        *p, *places;
    uint32_t        pool_size, token = 0;
    if (kv_buf_reserve(&b->block, 520 + (size_t)t->count * (3 + KVI_FST_TOKEN_BYTES)) < 0) return false;
    p = (uint8_t *)b->block.data;
    places = p + 520;
    pool_size = kvi_fst_lay_pool(t, places + 3 * (size_t)t->count);
    kvi_store_le32(p, t->count);
    kvi_store_le32(p + 4, pool_size);
    for (uint32_t byte = 0; byte < 256; byte++) {
        while (token < t->count && t->strings[token].bytes[0] < byte) token++;
        kvi_store_le16(p + 8 + 2 * byte, (uint16_t)token);
    }
    for (uint32_t i = 0; i < t->count; i++) {
        uint32_t place = t->uses[i] | (uint32_t)(t->sizes[i] - 1u) << 20;
        kvi_store_le16(places + 3 * (size_t)i, (uint16_t)place);
        places[3 * (size_t)i + 2] = (uint8_t)(place >> 16);
    }
    b->block.size = 520 + 3 * (size_t)t->count + pool_size;
    return true;
}

KVI_PRIVATE void kvi_fst_trainer_free(kvi_fst_trainer *t)
{
    const kv_allocator *a = &t->b->allocator;
    kvi_free(a, t->symbols, t->capacity * sizeof *t->symbols);
    kvi_free(a, t->place, t->capacity * sizeof *t->place);
    kvi_free(a, t->pairs, t->pair_slots * sizeof *t->pairs);
    kvi_free(a, t->strings, t->most * sizeof *t->strings);
    kvi_free(a, t->sizes, t->most);
    kvi_free(a, t->uses, t->most * sizeof *t->uses);
    if (t->named) kvi_free(a, t->named, ((size_t)t->named_mask + 1) * sizeof *t->named);
    kvi_free(a, t->chosen, t->chosen_capacity * sizeof *t->chosen);
}
/* Sizes for a sample of `wanted` bytes. */
KVI_PRIVATE bool kvi_fst_trainer_make(kvi_fst_trainer *t, kv_fst_builder *b, size_t wanted)
{
    const kv_allocator *a = &b->allocator;
    kvi_fst_sampler     sampler = kvi_fst_sampler_of(b, wanted);
    kvi_fst_record      record;
    uint32_t            pairs = 1024, named = 1024;
    memset(t, 0, sizeof *t);
    t->b = b;
    t->capacity = 1;                            /* of a few long tails the sample may have none */
    while (kvi_fst_sample(b, &sampler, &record)) t->capacity += record.size + 1;
    t->most = wanted / 16 > KVI_FST_TOKENS_MAX ? KVI_FST_TOKENS_MAX : 512 + (uint32_t)(wanted / 16);
    if (t->most > KVI_FST_TOKENS_MAX) t->most = KVI_FST_TOKENS_MAX;
    t->chosen_capacity = t->most;
    while (pairs < wanted / 2) pairs *= 2;
    while (named < 2 * t->most) named *= 2;
    t->symbols = (uint16_t *)kvi_alloc(a, t->capacity * sizeof *t->symbols);
    t->place = (uint32_t *)kvi_alloc(a, t->capacity * sizeof *t->place);
    t->pair_slots = pairs;
    t->pair_count = pairs;
    t->pairs = (kvi_fst_pair *)kvi_alloc(a, pairs * sizeof *t->pairs);
    t->strings = (kvi_fst_string *)kvi_alloc_zero(a, t->most * sizeof *t->strings);
    t->sizes = (uint8_t *)kvi_alloc(a, t->most);
    t->uses = (uint32_t *)kvi_alloc(a, t->most * sizeof *t->uses);
    t->named_mask = named - 1;
    t->named = (uint32_t *)kvi_alloc_zero(a, named * sizeof *t->named);
    t->chosen = (uint64_t *)kvi_alloc(a, t->chosen_capacity * sizeof *t->chosen);
    return t->symbols && t->place && t->pairs && t->strings && t->sizes && t->uses && t->named && t->chosen;
}

/* Learn tokens from the sample: single bytes, and then rounds of pairs. */
KVI_PRIVATE void kvi_fst_learn(kvi_fst_trainer *t, size_t wanted, uint32_t least)
{
    kvi_fst_sampler sampler = kvi_fst_sampler_of(t->b, wanted);
    kvi_fst_record  record;
    uint32_t        most;
    while (kvi_fst_sample(t->b, &sampler, &record)) {
        for (uint32_t i = 0; i < record.size; i++) t->symbols[t->size++] = record.tail[i];
        t->symbols[t->size++] = KVI_FST_END_SYMBOL;
    }
    for (uint32_t byte = 0; byte < 256; byte++) {
        kvi_fst_string single;
        memset(&single, 0, sizeof single);
        single.bytes[0] = (uint8_t)byte;
        (void)kvi_fst_name(t, &single, 1);
    }
    while (t->count < t->most && (most = kvi_fst_count_pairs(t)) >= least) {
        if (!kvi_fst_choose_pairs(t, most / 2 > least ? most / 2 : least)) break;
        kvi_fst_merge_pairs(t);
    }
}

/* Train a dictionary on the keys at hand and write it, if it saves more than it takes. On KV_OK the
   matcher is its matcher, or empty. */
KVI_PRIVATE kv_status kvi_fst_train(kv_fst_builder *b)
{
    kvi_fst_trainer t;
    size_t          wanted = b->memory_limit / 32 < KVI_FST_SAMPLE_MOST ? b->memory_limit / 32 : KVI_FST_SAMPLE_MOST;
    uint64_t        tokens, bytes, at, scale;
    uint32_t        least;
    bool            made = false;
    kvi_fst_matcher_free(b);
    if (wanted > b->tail_bytes) wanted = b->tail_bytes;
    if (wanted < 1024 || b->dictionary_count == KVI_FST_DICTIONARIES) return KV_OK;
    scale = b->tail_bytes / wanted;
    least = scale >= 2 ? 2 : 4;                 /* uses in the sample that pay for the token's 6 or so bytes */
    if (!kvi_fst_trainer_make(&t, b, wanted)) goto memory;
    kvi_fst_learn(&t, wanted, least);
    if (!kvi_fst_sort_tokens(&t) || !kvi_fst_matcher_make(b, t.strings, t.sizes, t.count)) goto memory;
    memset(t.uses, 0, t.most * sizeof *t.uses);
    (void)kvi_fst_measure(b, wanted, t.uses, &bytes);
    kvi_fst_drop_tokens(&t, least);
    if (b->failed || !kvi_fst_matcher_make(b, t.strings, t.sizes, t.count)) goto memory;
    tokens = kvi_fst_measure(b, wanted, NULL, &bytes);
    if (b->failed || !kvi_fst_lay_dictionary(&t)) goto memory;
    if (2 * tokens < bytes && (bytes - 2 * tokens) * scale > b->block.size) {
        b->ratio = 2.0 * (double)tokens / (double)bytes;
        if (kvi_fst_emit_frame(b, b->block.size, &at) == KV_OK && kvi_fst_emit(b, b->block.data, b->block.size) == KV_OK) {
            b->dictionaries[b->dictionary_count++] = at;
            b->dictionary_bytes += b->block.size + 7;
            made = true;
        }
    }
    if (!made) kvi_fst_matcher_free(b);
    kvi_fst_trainer_free(&t);
    return b->failed;
memory:
    kvi_fst_trainer_free(&t);
    return kvi_fst_build_memory(b);
}

/* ------------------------------------------------------------------------------------------------
   >>encode   the first entries of a window as a state (see >>format), and states written before    */

KVI_INLINE void kvi_fst_put_varint(uint8_t **p, uint64_t n)
{
    for (; n >= 128; n >>= 7) *(*p)++ = (uint8_t)(n | 128u);
    *(*p)++ = (uint8_t)n;
}
KVI_INLINE uint32_t kvi_fst_varint_size(uint64_t n) { uint32_t size = 1; while (n >>= 7) size++; return size; }
KVI_INLINE void kvi_fst_put(uint8_t **p, uint64_t n, uint32_t width) { for (; width--; n >>= 8) *(*p)++ = (uint8_t)n; }
KVI_INLINE uint64_t kvi_fst_zigzag(uint64_t n) { return n << 1 ^ (0 - (n >> 63)); }
/* `count` numbers of `width` bits, one behind the other. */
KVI_PRIVATE void kvi_fst_put_bits(uint8_t **p, const uint64_t *numbers, uint32_t count, uint32_t width)
{
    size_t bytes = ((size_t)count * width + 7) / 8;
    memset(*p, 0, bytes);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t bit = 0; bit < width;) {
            size_t   at = (size_t)i * width + bit;
            uint32_t room = 8 - (uint32_t)(at & 7), part = width - bit < room ? width - bit : room;
            (*p)[at / 8] = (uint8_t)((*p)[at / 8] | (numbers[i] >> bit & kvi_fst_low_bits(part)) << (at & 7));
            bit += part;
        }
    }
    *p += bytes;
}
/* 0 to 14 and 16, as 4 bits */
KVI_INLINE uint32_t kvi_fst_width_nibble(uint32_t width) { return width > 14 ? 15 : width; }
KVI_PRIVATE void kvi_fst_put_planes(uint8_t **p, const uint32_t *numbers, uint32_t columns, uint32_t nibble)
{
    uint32_t planes = kvi_fst_plane_width(nibble), bytes = (columns + 7) / 8;
    memset(*p, 0, (size_t)planes * bytes);
    for (uint32_t column = 0; column < columns; column++)
        for (uint32_t k = 0; k < planes; k++)
            (*p)[k * bytes + column / 8] = (uint8_t)((*p)[k * bytes + column / 8] | (numbers[column] >> k & 1u) << (column & 7));
    *p += (size_t)planes * bytes;
}

/* What the columns of a state will be. */
typedef struct kvi_fst_shape {
    uint32_t count, base, skip, lcp_nibble, rest_nibble;
    uint32_t lcps[KVI_FST_ENTRIES], rests[KVI_FST_ENTRIES];     /* by column; lcps less skip */
    uint32_t rest0, symbols;                                    /* symbols: of all entries */
    bool     tokens;
} kvi_fst_shape;

KVI_INLINE const uint8_t *kvi_fst_tail(const kvi_fst_window *w, uint32_t entry) { return (const uint8_t *)w->tails.data + w->tail[entry]; }      /* entry > 0 */
KVI_INLINE uint32_t kvi_fst_tail_size(const kvi_fst_window *w, uint32_t entry) { return w->tail[entry + 1] - w->tail[entry]; }

KVI_PRIVATE void kvi_fst_shape_lcps(const kvi_fst_window *w, uint32_t count, uint32_t base, kvi_fst_shape *shape)
{
    uint32_t most = 0;
    shape->count = count;
    shape->base = base;
    shape->skip = count > 1 ? UINT32_MAX : 0;
    for (uint32_t i = 1; i < count; i++) {
        uint32_t lcp = w->lcp[i] - base;
        shape->lcps[i - 1] = lcp;
        if (lcp < shape->skip) shape->skip = lcp;
        if (lcp > most) most = lcp;
    }
    for (uint32_t i = 1; i < count; i++) shape->lcps[i - 1] -= shape->skip;
    shape->lcp_nibble = kvi_fst_width_nibble(kvi_fst_width(count > 1 ? most - shape->skip : 0));
}
/* The rests' numbers from the symbols of each entry. */
KVI_PRIVATE void kvi_fst_shape_rests(kvi_fst_shape *shape, const uint32_t *symbols)
{
    uint32_t most = 0;
    shape->rest0 = shape->symbols = symbols[0];
    for (uint32_t i = 1; i < shape->count; i++) {
        shape->rests[i - 1] = symbols[i] - 1;
        shape->symbols += symbols[i];
        if (symbols[i] - 1 > most) most = symbols[i] - 1;
    }
    shape->rest_nibble = kvi_fst_width_nibble(kvi_fst_width(most));
}
KVI_PRIVATE size_t kvi_fst_shape_size(const kvi_fst_shape *shape)
{
    return (size_t)kvi_fst_plane_width(shape->rest_nibble) * ((shape->count + 6) / 8) + (size_t)shape->symbols * (shape->tokens ? 2 : 1);
}

/* Bytes or tokens, whichever is smaller. The tokens are left in b->symbols. */
KVI_PRIVATE bool kvi_fst_shape_symbols(kv_fst_builder *b, const kvi_fst_window *w, bool leaf, kvi_fst_shape *shape)
{
    uint32_t       sizes[KVI_FST_ENTRIES], tokens[KVI_FST_ENTRIES], total = 0, longest = 0;
    kvi_fst_tails  tails;
    kvi_fst_shape  other;
    sizes[0] = (uint32_t)w->first.size - shape->base;
    for (uint32_t i = 1; i < shape->count; i++) sizes[i] = kvi_fst_tail_size(w, i);
    for (uint32_t i = 0; i < shape->count; i++) { tails.ends[i] = total += sizes[i]; if (sizes[i] > longest) longest = sizes[i]; }
    shape->tokens = false;
    kvi_fst_shape_rests(shape, sizes);
    if (!leaf || !b->matcher.unit_count) return true;
    b->text.size = 0;
    if (!kvi_fst_matcher_room(b, longest) || kv_buf_reserve(&b->symbols, 2 * (size_t)total + 2) < 0
        || kv_buf_append(&b->text, w->first.size ? kv_bytes((const uint8_t *)w->first.data + shape->base, sizes[0]) : kv_bytes(NULL, 0)) < 0
        || kv_buf_append(&b->text, kv_bytes(w->tails.data, total - sizes[0])) < 0 || kv_buf_append(&b->text, kv_bytes("", 1)) < 0) { (void)kvi_fst_build_memory(b); return false; }
    tails.text = (const uint8_t *)b->text.data;
    tails.count = shape->count;
    (void)kvi_fst_tokenise(&b->matcher, &tails, (uint16_t *)b->symbols.data, tokens);
    other = *shape;
    other.tokens = true;
    kvi_fst_shape_rests(&other, tokens);
    if (kvi_fst_shape_size(&other) + 1 < kvi_fst_shape_size(shape)) *shape = other;
    return true;
}

/* Head and columns. */
KVI_PRIVATE void kvi_fst_put_shape(kv_fst_builder *b, const kvi_fst_window *w, bool leaf, const kvi_fst_shape *shape, uint8_t **p)
{
    const uint16_t *tokens = (const uint16_t *)b->symbols.data;
    uint32_t        kind = !leaf ? KVI_FST_NODE : shape->tokens ? KVI_FST_LEAF_TOKENS : KVI_FST_LEAF_BYTES, at;
    *(*p)++ = (uint8_t)(kind << 6 | (shape->count - 1));
    *(*p)++ = (uint8_t)(shape->lcp_nibble | shape->rest_nibble << 4);
    kvi_fst_put_varint(p, shape->skip);
    kvi_fst_put_varint(p, shape->rest0);
    if (shape->tokens) *(*p)++ = (uint8_t)(b->dictionary_count - 1);
    kvi_fst_put_planes(p, shape->lcps, shape->count - 1, shape->lcp_nibble);
    kvi_fst_put_planes(p, shape->rests, shape->count - 1, shape->rest_nibble);
    if (!shape->tokens) {
        for (uint32_t i = 1; i < shape->count; i++) *(*p)++ = *kvi_fst_tail(w, i);
        if (shape->rest0) memcpy(*p, (const uint8_t *)w->first.data + shape->base, shape->rest0);
        *p += shape->rest0;
        for (uint32_t i = 1; i < shape->count; i++) {
            kvi_copy(*p, kvi_fst_tail(w, i) + 1, shape->rests[i - 1]);
            *p += shape->rests[i - 1];
        }
        return;
    }
    at = shape->rest0;
    for (uint32_t i = 1; i < shape->count; at += shape->rests[i - 1] + 1, i++) kvi_fst_put(p, tokens[at], 2);
    for (at = 0; at < shape->rest0; at++) kvi_fst_put(p, tokens[at], 2);
    for (uint32_t i = 1; i < shape->count; i++) {
        at++;
        for (uint32_t k = 0; k < shape->rests[i - 1]; k++) kvi_fst_put(p, tokens[at++], 2);
    }
}

/* The numbers of a leaf by one slope: the offset that makes the least of them 0, and the bits of the most. */
KVI_PRIVATE uint32_t kvi_fst_fit(const uint64_t *values, uint32_t count, uint64_t rank, uint64_t slope, uint64_t *offset)
{
    uint64_t start = values[0] - slope * rank;
    int64_t  least = 0, most = 0;
    for (uint32_t i = 1; i < count; i++) {
        int64_t d = (int64_t)(values[i] - slope * (rank + i) - start);
        if (d < least) least = d;
        if (d > most) most = d;
    }
    *offset = start + (uint64_t)least;
    return kvi_fst_width((uint64_t)most - (uint64_t)least);
}
KVI_PRIVATE void kvi_fst_put_numbers(const uint64_t *values, uint32_t count, uint64_t rank, uint8_t **p)
{
    uint64_t slopes[4] = { 0, 1, 0, 0 }, offset, best_offset = 0, best_slope = 0, bits[KVI_FST_ENTRIES];
    uint32_t best_width = 0, tried = 2;
    size_t   size, best_size = SIZE_MAX;
    if (count > 1) slopes[tried++] = values[1] - values[0];
    if (count > 2 && values[count - 1] > values[0]) slopes[tried++] = (values[count - 1] - values[0]) / (count - 1);
    for (uint32_t i = 0; i < tried; i++) {
        uint32_t width = kvi_fst_fit(values, count, rank, slopes[i], &offset);
        if (width > 56) width = 64;
        size = kvi_fst_varint_size(slopes[i]) + kvi_fst_varint_size(kvi_fst_zigzag(offset)) + ((size_t)count * width + 7) / 8;
        if (size >= best_size) continue;
        best_size = size;
        best_slope = slopes[i];
        best_offset = offset;
        best_width = width;
    }
    kvi_fst_put_varint(p, best_slope);
    kvi_fst_put_varint(p, kvi_fst_zigzag(best_offset));
    *(*p)++ = (uint8_t)best_width;
    for (uint32_t i = 0; i < count; i++) bits[i] = values[i] - best_slope * (rank + i) - best_offset;
    kvi_fst_put_bits(p, bits, count, best_width);
}
KVI_PRIVATE void kvi_fst_put_blob(const kvi_fst_window *w, uint32_t count, uint8_t **p)
{
    uint32_t width = kvi_fst_width(w->value[count - 1]);
    uint8_t  mask[KVI_FST_ENTRIES / 8] = { 0 };
    bool     large = false;
    for (uint32_t i = 0; i < count; i++) if (w->large[i]) { large = true; mask[i / 8] = (uint8_t)(mask[i / 8] | 1u << (i & 7)); }
    *(*p)++ = (uint8_t)(width | (large ? 128u : 0u));
    kvi_fst_put_bits(p, w->value, count, width);
    if (large) { memcpy(*p, mask, (count + 7) / 8); *p += (count + 7) / 8; }
    kvi_copy(*p, w->values.data, (size_t)w->value[count - 1]);
    *p += w->value[count - 1];
}
KVI_PRIVATE void kvi_fst_put_arcs(const kvi_fst_window *w, uint32_t count, uint32_t base, uint8_t **p)
{
    uint64_t lowest = UINT64_MAX, highest = 0, keys = 0;
    uint32_t keep = 0, end_width, keep_width, ref_width;
    for (uint32_t i = 0; i < count; i++) {
        if (w->base[i] - base > keep) keep = w->base[i] - base;
        if (w->child[i] < lowest) lowest = w->child[i];
        if (w->child[i] > highest) highest = w->child[i];
        keys += w->keys[i];
    }
    end_width = (kvi_fst_width(keys) + 7) / 8;
    keep_width = keep > 255 ? 2 : 1;
    ref_width = (kvi_fst_width(highest - lowest) + 7) / 8;
    *(*p)++ = (uint8_t)((end_width - 1) | (keep_width - 1) << 3 | ref_width << 4);
    kvi_fst_put(p, lowest, 6);
    keys = 0;
    for (uint32_t i = 0; i < count; i++) kvi_fst_put(p, keys += w->keys[i], end_width);
    for (uint32_t i = 0; i < count; i++) kvi_fst_put(p, w->base[i] - base, keep_width);
    for (uint32_t i = 0; i < count; i++) kvi_fst_put(p, w->child[i] - lowest, ref_width);
}

/* Write the state in b->block, or find that it was written: *offset. Copies of what was written lie in a
   ring; they are compared, so that states share by content and not by hash. */
KVI_PRIVATE kv_status kvi_fst_store_state(kv_fst_builder *b, uint32_t entries, uint64_t *offset)
{
    const uint8_t *bytes = (const uint8_t *)b->block.data;
    uint32_t       size = (uint32_t)b->block.size;
    uint64_t       hash = 0;
    kvi_fst_slot  *slot = NULL;
    if (b->block.size <= KVI_FST_REGISTERED_MOST) {
        hash = kvi_hash(bytes, size, 0);
        slot = &b->slots[hash & (b->slot_count - 1)];
        if (slot->size == size && slot->hash == hash && b->ring_head - slot->place <= b->ring_size
            && memcmp(b->ring + slot->place % b->ring_size, bytes, size) == 0) {
            *offset = slot->offset;
            b->shared++;
            return KV_OK;
        }
    }
    *offset = b->offset;
    b->states++;
    b->arcs += entries;
    if (kvi_fst_emit(b, bytes, b->block.size) != KV_OK || !slot) return b->failed;
    if (b->ring_head % b->ring_size + size > b->ring_size) b->ring_head += b->ring_size - b->ring_head % b->ring_size;     /* not around the corner */
    slot->hash = hash;
    slot->offset = *offset;
    slot->place = b->ring_head;
    slot->size = size;
    memcpy(b->ring + b->ring_head % b->ring_size, bytes, size);
    b->ring_head += size;
    return KV_OK;
}

/* The first `count` entries of a window, whose strings begin after `base` bytes, as a state. */
KVI_PRIVATE kv_status kvi_fst_encode(kv_fst_builder *b, const kvi_fst_window *w, bool leaf, uint32_t count, uint32_t base, uint64_t *offset)
{
    kvi_fst_shape shape;
    uint8_t      *p;
    size_t        room;
    kvi_fst_shape_lcps(w, count, base, &shape);
    if (!kvi_fst_shape_symbols(b, w, leaf, &shape)) return b->failed;
    room = 1024 + 2 * (size_t)shape.symbols + (size_t)count * 24;
    if (leaf && b->values == KV_FST_BYTES) room += (size_t)w->value[count - 1];
    if (kv_buf_reserve(&b->block, room) < 0) return kvi_fst_build_memory(b);
    p = (uint8_t *)b->block.data;
    kvi_fst_put_shape(b, w, leaf, &shape, &p);
    if (!leaf) kvi_fst_put_arcs(w, count, base, &p);
    else if (b->values == KV_FST_U64) kvi_fst_put_numbers(w->value, count, b->rank, &p);
    else if (b->values == KV_FST_BYTES) kvi_fst_put_blob(w, count, &p);
    b->block.size = (size_t)(p - (uint8_t *)b->block.data);
    return kvi_fst_store_state(b, count, offset);
}

/* ------------------------------------------------------------------------------------------------
   >>build   windows, and the builder's public functions

   A full window is cut between its 32nd and 64th entry, where the keys on both sides have least in
   common, and there as late as possible. So separators are short, states begin where tries branch, and in
   regular sets (integers in a row, products of sets) equal pieces are cut alike and become one state. */

#define KVI_FST_CUT_FROM 32u

KVI_PRIVATE void kvi_fst_window_free(kv_fst_builder *b, kvi_fst_window *w)
{
    if (!w) return;
    kv_buf_free(&w->first);
    kv_buf_free(&w->tails);
    kv_buf_free(&w->last);
    kv_buf_free(&w->values);
    kvi_free(&b->allocator, w, sizeof *w);
}
KVI_PRIVATE kvi_fst_window *kvi_fst_window_at(kv_fst_builder *b, uint32_t level)
{
    kvi_fst_window *w;
    if (level > KVI_FST_LEVELS) { (void)kvi_fst_build_fail(b, KV_ERR_TOO_LARGE, "fst: too many keys"); return NULL; }
    if (b->windows[level]) return b->windows[level];
    w = (kvi_fst_window *)kvi_alloc_zero(&b->allocator, sizeof *w);
    if (!w) { (void)kvi_fst_build_memory(b); return NULL; }
    w->first.allocator = w->tails.allocator = w->last.allocator = w->values.allocator = b->allocator;
    return b->windows[level] = w;
}

/* Drop the first `count` entries. */
KVI_PRIVATE void kvi_fst_window_shift(kvi_fst_window *w, bool bytes, uint32_t count, kv_fst_builder *b)
{
    uint32_t left = w->count - count, cut;
    uint64_t gone = bytes && count ? w->value[count - 1] : 0;
    if (!left) { w->count = 0; w->tails.size = 0; w->tail[0] = 0; w->values.size = 0; return; }
    for (uint32_t i = 1; i <= count; i++) {                     /* entry 0 becomes entry `count` */
        w->first.size = w->lcp[i];
        if (!kvi_fst_keep(b, kv_buf_append(&w->first, kv_bytes(kvi_fst_tail(w, i), kvi_fst_tail_size(w, i))))) return;
    }
    cut = w->tail[count + 1];                                   /* and needs no tail */
    w->tails.size -= cut;
    if (w->tails.size) kvi_move(w->tails.data, (const uint8_t *)w->tails.data + cut, w->tails.size);
    for (uint32_t i = 0; i < left; i++) {
        w->gap[i] = w->gap[i + count];
        w->lcp[i] = w->lcp[i + count];
        w->tail[i + 1] = w->tail[i + count + 1] - cut;
        w->value[i] = w->value[i + count] - gone;
        w->large[i] = w->large[i + count];
        w->child[i] = w->child[i + count];
        w->keys[i] = w->keys[i + count];
        w->common[i] = w->common[i + count];
        w->base[i] = w->base[i + count];
    }
    w->tail[0] = 0;
    w->count = left;
    w->values.size -= (size_t)gone;
    if (w->values.size) kvi_move(w->values.data, (const uint8_t *)w->values.data + gone, w->values.size);
}

/* How many entries to cut off, given the gap before the entry that is about to come. */
KVI_PRIVATE uint32_t kvi_fst_window_cut(const kvi_fst_window *w, uint32_t gap)
{
    uint32_t best = KVI_FST_ENTRIES;
    for (uint32_t i = KVI_FST_ENTRIES; i-- > KVI_FST_CUT_FROM;) if (w->gap[i] < gap) { gap = w->gap[i]; best = i; }
    return best;
}

/* What a separator stands for in the level above. */
typedef struct kvi_fst_arc_made { uint64_t child, keys; uint32_t common, base, gap; } kvi_fst_arc_made;

KVI_PRIVATE kv_status kvi_fst_close(kv_fst_builder *b, uint32_t level, uint32_t count);

/* Make room for one more entry, which has `gap` bytes in common with the one before. */
KVI_PRIVATE kv_status kvi_fst_window_room(kv_fst_builder *b, uint32_t level, uint32_t gap)
{
    kvi_fst_window *w = b->windows[level];
    return w->count < KVI_FST_ENTRIES ? KV_OK : kvi_fst_close(b, level, kvi_fst_window_cut(w, gap));
}

/* Append a separator to the window of a level of nodes. */
KVI_PRIVATE kv_status kvi_fst_push_arc(kv_fst_builder *b, uint32_t level, kv_slice separator, const kvi_fst_arc_made *arc)
{
    kvi_fst_window *w = kvi_fst_window_at(b, level);
    uint32_t        i, lcp;
    if (!w || kvi_fst_window_room(b, level, arc->gap) < 0) return b->failed;
    i = w->count;
    lcp = i ? (uint32_t)kvi_common_prefix(w->last.data, separator.data, w->last.size < separator.size ? w->last.size : separator.size) : 0;
    if (!i && !kvi_fst_keep(b, kv_buf_assign(&w->first, separator))) return b->failed;
    if (i && !kvi_fst_keep(b, kv_buf_append(&w->tails, kv_bytes((const uint8_t *)separator.data + lcp, separator.size - lcp)))) return b->failed;
    if (!kvi_fst_keep(b, kv_buf_assign(&w->last, separator))) return b->failed;
    w->gap[i] = arc->gap;
    w->lcp[i] = lcp;
    w->tail[i + 1] = (uint32_t)w->tails.size;
    w->child[i] = arc->child;
    w->keys[i] = arc->keys;
    w->common[i] = arc->common;
    w->base[i] = arc->base;
    w->count = i + 1;
    return KV_OK;
}

/* Write the first `count` entries of a window as a state and hand its separator upwards. */
KVI_PRIVATE kv_status kvi_fst_close(kv_fst_builder *b, uint32_t level, uint32_t count)
{
    kvi_fst_window  *w = b->windows[level];
    kvi_fst_arc_made arc;
    kv_slice         separator;
    uint32_t         limit;
    arc.gap = w->gap[0];
    arc.common = level ? w->common[0] : (uint32_t)w->first.size;
    arc.keys = level ? 0 : count;
    for (uint32_t i = 0; level && i < count; i++) { arc.keys += w->keys[i]; if (w->common[i] < arc.common) arc.common = w->common[i]; }
    for (uint32_t i = 1; i < count; i++) {
        limit = level ? w->gap[i] : w->lcp[i];
        if (limit < arc.common) arc.common = limit;
    }
    separator = kv_buf_slice(&w->first);
    if (!level) separator.size = b->rank ? w->gap[0] + 1u : 0;     /* just enough to be greater than the last key */
    arc.base = arc.common < separator.size ? arc.common : (uint32_t)separator.size;
    if (kvi_fst_encode(b, w, level == 0, count, arc.base, &arc.child) < 0) return b->failed;
    if (kvi_fst_push_arc(b, level + 1, separator, &arc) < 0) return b->failed;
    if (!level) b->rank += count;
    kvi_fst_window_shift(w, !level && b->values == KV_FST_BYTES, count, b);
    return b->failed;
}

/* Append the key in b->key to the leaf's window. */
KVI_PRIVATE kv_status kvi_fst_push(kv_fst_builder *b, const kvi_fst_record *record)
{
    kvi_fst_window *w = kvi_fst_window_at(b, 0);
    uint32_t        i;
    if (!w || kvi_fst_window_room(b, 0, record->lcp) < 0) return b->failed;
    i = w->count;
    if (!i && !kvi_fst_keep(b, kv_buf_assign(&w->first, kv_buf_slice(&b->key)))) return b->failed;
    if (i && !kvi_fst_keep(b, kv_buf_append(&w->tails, kv_bytes(record->tail, record->size)))) return b->failed;
    w->gap[i] = w->lcp[i] = record->lcp;
    w->tail[i + 1] = (uint32_t)w->tails.size;
    w->value[i] = record->value;
    w->large[i] = record->large;
    if (b->values == KV_FST_BYTES) {
        if (!kvi_fst_keep(b, kv_buf_append(&w->values, kv_bytes(record->bytes, (size_t)record->value)))) return b->failed;
        w->value[i] = w->values.size;
    }
    w->count = i + 1;
    return KV_OK;
}

/* Is another dictionary due? The current one may fit what comes now worse than what it was made for. */
KVI_PRIVATE bool kvi_fst_drifted(kv_fst_builder *b)
{
    uint64_t tokens, bytes;
    if (!b->matcher.unit_count) return true;
    tokens = kvi_fst_measure(b, 65536, NULL, &bytes);
    return 2.0 * (double)tokens > 1.1 * b->ratio * (double)bytes;
}

/* Push all keys at hand. */
KVI_PRIVATE kv_status kvi_fst_drain(kv_fst_builder *b)
{
    kvi_fst_reader reader;
    kvi_fst_record record;
    memset(&reader, 0, sizeof reader);
    reader.chunk = b->chunks;
    reader.number = UINT64_MAX;
    if (kvi_fst_drifted(b) && !b->failed) (void)kvi_fst_train(b);
    while (!b->failed && kvi_fst_read(b, &reader, &record)) {
        b->key.size = record.lcp;
        if (!kvi_fst_keep(b, kv_buf_append(&b->key, kv_bytes(record.tail, record.size)))) break;
        (void)kvi_fst_push(b, &record);
    }
    for (kvi_fst_chunk *c = b->chunks; c; c = c->next) c->size = 0;
    b->chunk = b->chunks;
    b->buffered = b->tail_bytes = 0;
    b->last_value = UINT64_MAX;
    return b->failed;
}

/* `size` bytes for a record. */
KVI_PRIVATE uint8_t *kvi_fst_record_room(kv_fst_builder *b, size_t size)
{
    kvi_fst_chunk *c = b->chunk;
    if (c && KVI_FST_CHUNK - c->size < size) c = b->chunk = c->next ? c->next : NULL;
    if (!c) {
        kvi_fst_chunk **end = &b->chunks;
        while (*end) end = &(*end)->next;
        c = (kvi_fst_chunk *)kvi_alloc(&b->allocator, sizeof *c);
        if (!c) { (void)kvi_fst_build_memory(b); return NULL; }
        c->next = NULL;
        c->size = 0;
        *end = b->chunk = c;
    }
    c->size += size;
    b->buffered += size;
    return c->bytes + c->size - size;
}

/* Order and size of a key, and how much of it is new; then it is the last one. */
KVI_PRIVATE kv_status kvi_fst_accept(kv_fst_builder *b, kv_slice key, uint32_t *lcp)
{
    kv_slice  last = kv_buf_slice(&b->last);
    kv_status s = kv_check_key(key);
    if (s < 0) return kvi_fst_build_fail(b, s, s == KV_ERR_TOO_LARGE ? "fst: a key is too large" : NULL);
    *lcp = (uint32_t)kvi_common_prefix(last.data, key.data, last.size < key.size ? last.size : key.size);
    if (b->keys && (*lcp == key.size || (*lcp < last.size && ((const uint8_t *)last.data)[*lcp] > ((const uint8_t *)key.data)[*lcp])))
        return kvi_fst_build_order(b, key);
    if (!kvi_fst_keep(b, kv_buf_reserve(&b->last, key.size < 256 ? 256 : key.size))) return b->failed;
    if (key.size > *lcp) memcpy((uint8_t *)b->last.data + *lcp, (const uint8_t *)key.data + *lcp, key.size - *lcp);
    b->last.size = key.size;
    b->keys++;
    b->key_bytes += key.size;
    b->tail_bytes += key.size - *lcp;
    if (key.size > b->key_size_max) b->key_size_max = (uint32_t)key.size;
    return KV_OK;
}
/* Keep a key that was accepted, with its value already in the form that records have. */
KVI_PRIVATE kv_status kvi_fst_store_record(kv_fst_builder *b, kv_slice key, uint32_t lcp, uint64_t value, kv_slice bytes)
{
    size_t   tail = key.size - lcp;
    bool     has_value = b->values != KV_FST_SET;
    uint8_t *p = kvi_fst_record_room(b, kvi_fst_varint_size(lcp) + kvi_fst_varint_size(tail) + tail
                                        + (has_value ? kvi_fst_varint_size(value) : 0) + bytes.size);
    if (!p) return b->failed;
    kvi_fst_put_varint(&p, lcp);
    kvi_fst_put_varint(&p, tail);
    if (tail) memcpy(p, (const uint8_t *)key.data + lcp, tail);
    p += tail;
    if (has_value) kvi_fst_put_varint(&p, value);
    kvi_copy(p, bytes.data, bytes.size);
    return b->buffered >= b->buffer_limit ? kvi_fst_drain(b) : KV_OK;
}

KVI_FST_DEFINE kv_status kv_fst_add(kv_fst_builder *b, kv_slice key, uint64_t value)
{
    uint64_t step;
    uint32_t lcp;
    if (!b) return KV_ERR_INVALID;
    if (b->failed) return b->failed;
    if (b->values == KV_FST_BYTES) return kvi_fst_build_fail(b, KV_ERR_INVALID, "fst: kv_fst_add on a map of bytes");
    if (kvi_fst_accept(b, key, &lcp) < 0) return b->failed;
    step = kvi_fst_zigzag(value - b->last_value - 1);
    b->last_value = value;
    if (b->values == KV_FST_U64) b->value_bytes += 8;
    return kvi_fst_store_record(b, key, lcp, step, kv_bytes(NULL, 0));
}

KVI_FST_DEFINE kv_status kv_fst_add_bytes(kv_fst_builder *b, kv_slice key, kv_slice value)
{
    uint8_t   place[10];
    uint64_t  at;
    uint32_t  lcp;
    kv_status s;
    if (!b) return KV_ERR_INVALID;
    if (b->failed) return b->failed;
    if (b->values == KV_FST_SET && !value.size) return kv_fst_add(b, key, 0);
    if (b->values != KV_FST_BYTES) return kvi_fst_build_fail(b, KV_ERR_INVALID, "fst: kv_fst_add_bytes on a map without bytes");
    s = kv_check_value(value);
    if (s < 0) return kvi_fst_build_fail(b, s, s == KV_ERR_TOO_LARGE ? "fst: a value is too large" : NULL);
    if (kvi_fst_accept(b, key, &lcp) < 0) return b->failed;
    b->value_bytes += value.size;
    if (value.size <= KVI_FST_INLINE_MAX) return kvi_fst_store_record(b, key, lcp, (uint64_t)value.size << 1, value);
    if (kvi_fst_emit_frame(b, value.size, &at) < 0 || kvi_fst_emit(b, value.data, value.size) < 0) return b->failed;
    kvi_store_le64(place, at);
    kvi_store_le32(place + 6, (uint32_t)value.size);
    return kvi_fst_store_record(b, key, lcp, (uint64_t)sizeof place << 1 | 1, kv_bytes(place, sizeof place));
}

/* ---- begin and end ---- */

KVI_PRIVATE void kvi_fst_build_free(kv_fst_builder *b)
{
    kv_allocator a = b->allocator;
    while (b->chunks) {
        kvi_fst_chunk *next = b->chunks->next;
        kvi_free(&a, b->chunks, sizeof *b->chunks);
        b->chunks = next;
    }
    for (uint32_t level = 0; level <= KVI_FST_LEVELS; level++) kvi_fst_window_free(b, b->windows[level]);
    kvi_fst_matcher_free(b);
    kvi_fst_matcher_free_text(b);
    kv_buf_free(&b->last);
    kv_buf_free(&b->key);
    kv_buf_free(&b->block);
    kv_buf_free(&b->symbols);
    kv_buf_free(&b->text);
    kvi_free(&a, b->slots, b->slot_count * sizeof *b->slots);
    kvi_free(&a, b->ring, b->ring_size);
    kvi_free(&a, b->piece, KVI_FST_PIECE);
    kvi_free(&a, b->paths, 2 * b->path_size + 6);
    kvi_free(&a, b, sizeof *b);
}

KVI_PRIVATE kv_status kvi_fst_build_new(const kv_fst_build_options *o, kv_fst_builder **builder)
{
    kv_allocator    a = kvi_allocator_or_default(o ? &o->allocator : NULL);
    size_t          limit = o && o->memory_limit_bytes ? o->memory_limit_bytes : KVI_FST_MEMORY_DEFAULT;
    kv_fst_builder *b;
    *builder = NULL;
    if (o && (unsigned)o->values > KV_FST_BYTES) return KV_ERR_INVALID;
    b = (kv_fst_builder *)kvi_alloc_zero(&a, sizeof *b);
    if (!b) return KV_ERR_NO_MEMORY;
    b->allocator = b->last.allocator = b->key.allocator = b->block.allocator = b->symbols.allocator = b->text.allocator = a;
    if (o) { b->values = o->values; b->error_text = o->error_text; b->error_text_size = o->error_text_size; }
    if (b->error_text && b->error_text_size) b->error_text[0] = 0;
    if (limit < KVI_FST_MEMORY_LEAST) limit = KVI_FST_MEMORY_LEAST;
    if (limit > SIZE_MAX / 4) limit = SIZE_MAX / 4;
    b->memory_limit = limit;
    b->buffer_limit = limit / 8 * (limit < KVI_FST_MEMORY_DEFAULT ? 2 : 3) - KVI_FST_CHUNK;     /* training takes half of a small limit, less of a large one */
    b->slot_count = KVI_FST_REGISTRY_SLOTS;
    while (b->slot_count > 256 && b->slot_count > limit / 8192) b->slot_count /= 2;
    b->ring_size = limit / 32 < ((size_t)2 << 20) ? limit / 32 : (size_t)2 << 20;
    b->last_value = UINT64_MAX;
    b->piece = (uint8_t *)kvi_alloc(&a, KVI_FST_PIECE);
    b->slots = (kvi_fst_slot *)kvi_alloc_zero(&a, b->slot_count * sizeof *b->slots);
    b->ring = (uint8_t *)kvi_alloc(&a, b->ring_size);
    if (!b->piece || !b->slots || !b->ring) { kvi_fst_build_free(b); return KV_ERR_NO_MEMORY; }
    (void)kvi_fst_emit(b, kvi_fst_magic, sizeof kvi_fst_magic);
    *builder = b;
    return KV_OK;
}

KVI_FST_DEFINE kv_status kv_fst_build_begin(const kv_fst_build_options *o, kv_write_fn write, void *user, kv_fst_builder **b)
{
    kv_status s;
    if (!b) return KV_ERR_INVALID;
    *b = NULL;
    if (!write) return KV_ERR_INVALID;
    s = kvi_fst_build_new(o, b);
    if (s < 0) return s;
    (*b)->write = write;
    (*b)->user = user;
    return KV_OK;
}

KVI_PRIVATE kv_status kvi_fst_write_file(void *user, const void *data, size_t size)
{
    kv_fst_builder *b = (kv_fst_builder *)user;
    return b->io->append(b->io->user, b->file, data, size);
}

KVI_FST_DEFINE kv_status kv_fst_build_begin_file(const kv_fst_build_options *o, const char *path, kv_fst_builder **builder)
{
    const kv_io    *io = o && o->io ? o->io : kv_io_default();
    kv_fst_builder *b;
    kv_status       s;
    size_t          size;
    if (!builder) return KV_ERR_INVALID;
    *builder = NULL;
    if (!path || !*path) return KV_ERR_INVALID;
    if (!io) return KV_ERR_UNSUPPORTED;
    s = kvi_fst_build_new(o, &b);
    if (s < 0) return s;
    size = strlen(path);
    b->paths = (char *)kvi_alloc(&b->allocator, 2 * size + 6);
    if (!b->paths) { kvi_fst_build_free(b); return KV_ERR_NO_MEMORY; }
    b->path_size = size;
    memcpy(b->paths, path, size + 1);
    memcpy(b->paths + size + 1, path, size);
    memcpy(b->paths + 2 * size + 1, ".tmp", 5);
    b->io = io;
    b->write = kvi_fst_write_file;
    b->user = b;
    s = io->open(io->user, b->paths + size + 1, KV_OPEN_WRITE | KV_OPEN_CREATE | KV_OPEN_TRUNCATE, &b->file);
    if (s != KV_OK) {
        (void)kvi_fst_build_fail(b, s, "fst: the temporary file cannot be made");
        kvi_fst_build_free(b);
        return s > 0 ? KV_ERR_IO : s;
    }
    *builder = b;
    return KV_OK;
}

/* The rest of all windows, upwards; *root and *levels are what the last one led to. */
KVI_PRIVATE kv_status kvi_fst_build_root(kv_fst_builder *b, uint64_t *root, uint32_t *levels)
{
    *root = 0;
    *levels = 0;
    for (uint32_t level = 0; level <= KVI_FST_LEVELS && b->windows[level]; level++) {
        kvi_fst_window *w = b->windows[level];
        bool            top = level == KVI_FST_LEVELS || !b->windows[level + 1];
        if (level && top && w->count == 1) {
            *root = w->child[0];
            *levels = level - 1;
            return KV_OK;
        }
        if (w->count && kvi_fst_close(b, level, w->count) < 0) return b->failed;
    }
    return b->failed;
}

KVI_PRIVATE kv_status kvi_fst_build_footer(kv_fst_builder *b, uint64_t root, uint32_t levels)
{
    uint8_t  footer[KVI_FST_FOOTER], number[8];
    uint64_t table = 0;
    memset(footer, 0, sizeof footer);
    if (b->dictionary_count) (void)kvi_fst_emit_frame(b, 8 * (uint64_t)b->dictionary_count, &table);
    for (uint32_t i = 0; i < b->dictionary_count; i++) { kvi_store_le64(number, b->dictionaries[i]); (void)kvi_fst_emit(b, number, 8); }
    kvi_store_le64(footer + KVI_FST_AT_ROOT, root);
    kvi_store_le64(footer + KVI_FST_AT_KEYS, b->keys);
    kvi_store_le64(footer + KVI_FST_AT_TABLE, table);
    kvi_store_le64(footer + KVI_FST_AT_STATES, b->states);
    kvi_store_le64(footer + KVI_FST_AT_ARCS, b->arcs);
    kvi_store_le64(footer + KVI_FST_AT_KEY_BYTES, b->key_bytes);
    kvi_store_le64(footer + KVI_FST_AT_VALUE_BYTES, b->value_bytes);
    kvi_store_le64(footer + KVI_FST_AT_SHARED, b->shared);
    kvi_store_le64(footer + KVI_FST_AT_DICTIONARY_BYTES, b->dictionary_bytes);
    kvi_store_le64(footer + KVI_FST_AT_SIZE, b->offset + KVI_FST_FOOTER);
    kvi_store_le32(footer + KVI_FST_AT_KEY_SIZE_MAX, b->key_size_max);
    footer[KVI_FST_AT_LEVELS] = (uint8_t)levels;
    footer[KVI_FST_AT_VALUES] = (uint8_t)b->values;
    footer[KVI_FST_AT_DICTIONARIES] = (uint8_t)b->dictionary_count;
    memcpy(footer + KVI_FST_AT_MAGIC, kvi_fst_end_magic, 8);
    if (kvi_fst_emit(b, footer, KVI_FST_AT_CHECKSUM) < 0) return b->failed;
    if (b->piece_size) {
        b->checksum = kvi_hash(b->piece, b->piece_size, b->checksum);
        if (kvi_fst_write_out(b, b->piece, b->piece_size) < 0) return b->failed;
    }
    kvi_store_le64(number, b->checksum);
    return kvi_fst_write_out(b, number, 8);
}

/* Let the finished file appear: sync it, name it, sync its directory. Where only the last fails, the new
   file is there and whole, but a power cut may still bring back what was there before; the failure says so. */
KVI_PRIVATE kv_status kvi_fst_build_name(kv_fst_builder *b)
{
    const kv_io *io = b->io;
    char        *path = b->paths, *temporary = b->paths + b->path_size + 1, *slash = strrchr(path, '/');
    char         kept;
    kv_status    s = io->sync(io->user, b->file), closed = io->close(io->user, b->file);
    b->file = NULL;
    if (s == KV_OK) s = closed;
    if (s == KV_OK) s = io->rename(io->user, temporary, path);
    if (s != KV_OK) return kvi_fst_build_fail(b, s, "fst: the finished file could not be put in place");
    if (!slash) return io->sync_dir(io->user, ".") == KV_OK ? KV_OK : kvi_fst_build_fail(b, KV_ERR_IO, "fst: the directory could not be synced");
    if (slash == path) slash++;                     /* the root */
    kept = *slash;
    *slash = 0;
    s = io->sync_dir(io->user, path);
    *slash = kept;
    return s == KV_OK ? KV_OK : kvi_fst_build_fail(b, s, "fst: the directory could not be synced");
}

KVI_PRIVATE void kvi_fst_build_discard(kv_fst_builder *b)
{
    if (b->io && b->file) {
        (void)b->io->close(b->io->user, b->file);
        b->file = NULL;
    }
    if (b->io) (void)b->io->remove(b->io->user, b->paths + b->path_size + 1);
}

KVI_FST_DEFINE kv_status kv_fst_build_finish(kv_fst_builder *b)
{
    kv_status s;
    uint64_t  root;
    uint32_t  levels;
    if (!b) return KV_ERR_INVALID;
    if (!b->failed) (void)kvi_fst_drain(b);
    if (!b->failed && kvi_fst_build_root(b, &root, &levels) == KV_OK) (void)kvi_fst_build_footer(b, root, levels);
    if (!b->failed && b->file) (void)kvi_fst_build_name(b);
    s = b->failed;
    if (s) kvi_fst_build_discard(b);
    kvi_fst_build_free(b);
    return s;
}
KVI_FST_DEFINE void kv_fst_build_abandon(kv_fst_builder *b)
{
    if (!b) return;
    kvi_fst_build_discard(b);
    kvi_fst_build_free(b);
}
KVI_FST_DEFINE const char *kv_fst_build_error(const kv_fst_builder *b) { return b ? kvi_error_text(&b->error) : ""; }

/* ------------------------------------------------------------------------------------------------
   >>automaton   what the built-in automata share: bytes become characters

   A state that has begun a character keeps its bytes until it is whole. What turns out to be no UTF-8
   (overlong forms and surrogates too) counts byte by byte, as characters beyond all code points.   */

#define KVI_FST_RAW 0x110000u           /* + byte: a byte that is no part of UTF-8 */

typedef struct kvi_fst_chars { uint8_t bytes[4], have, need; } kvi_fst_chars;

KVI_INLINE bool kvi_fst_continues(const kvi_fst_chars *c, uint8_t byte)
{
    uint8_t least = 0x80, most = 0xBF;
    if (c->have == 1) {
        if (c->bytes[0] == 0xE0) least = 0xA0;
        if (c->bytes[0] == 0xED) most = 0x9F;
        if (c->bytes[0] == 0xF0) least = 0x90;
        if (c->bytes[0] == 0xF4) most = 0x8F;
    }
    return byte >= least && byte <= most;
}
/* The bytes of a character that will not be whole. */
KVI_PRIVATE uint32_t kvi_fst_chars_flush(kvi_fst_chars *c, uint32_t *out)
{
    uint32_t count = c->have;
    for (uint32_t i = 0; i < count; i++) out[i] = KVI_FST_RAW + c->bytes[i];
    c->have = 0;
    return count;
}
/* One byte more: up to 4 characters come out of it. */
KVI_PRIVATE uint32_t kvi_fst_chars_feed(kvi_fst_chars *c, uint8_t byte, uint32_t *out)
{
    uint32_t count = 0, code;
    if (c->have) {
        if (kvi_fst_continues(c, byte)) {
            c->bytes[c->have++] = byte;
            if (c->have < c->need) return 0;
            code = c->need == 2 ? c->bytes[0] & 0x1Fu : c->need == 3 ? c->bytes[0] & 0x0Fu : c->bytes[0] & 0x07u;
            for (uint32_t i = 1; i < c->need; i++) code = code << 6 | (c->bytes[i] & 0x3Fu);
            c->have = 0;
            out[0] = code;
            return 1;
        }
        count = kvi_fst_chars_flush(c, out);
    }
    if (byte >= 0xC2 && byte <= 0xF4) {
        c->bytes[0] = byte;
        c->have = 1;
        c->need = byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
        return count;
    }
    out[count] = byte < 0x80 ? byte : KVI_FST_RAW + byte;
    return count + 1;
}

/* All characters of a text, behind a header of `head` bytes in one block of memory. *count: how many. */
KVI_PRIVATE void *kvi_fst_chars_of(const kv_allocator *a, kv_slice text, size_t head, uint32_t *count)
{
    kvi_fst_chars c;
    uint8_t      *memory = (uint8_t *)kvi_alloc(a, head + text.size * sizeof(uint32_t));
    uint32_t     *chars, out[4], n;
    if (!memory) return NULL;
    chars = (uint32_t *)(void *)(memory + head);
    memset(&c, 0, sizeof c);
    *count = 0;
    for (size_t i = 0; i < text.size; i++) {
        n = kvi_fst_chars_feed(&c, ((const uint8_t *)text.data)[i], out);
        for (uint32_t k = 0; k < n; k++) chars[(*count)++] = out[k];
    }
    n = kvi_fst_chars_flush(&c, out);
    for (uint32_t k = 0; k < n; k++) chars[(*count)++] = out[k];
    return memory;
}

/* What `user` of each built-in automaton begins with. */
typedef struct kvi_fst_machine { kv_allocator allocator; size_t size; } kvi_fst_machine;

KVI_PRIVATE void kvi_fst_machine_free(void *user)
{
    kvi_fst_machine *m = (kvi_fst_machine *)user;
    kv_allocator     a = m->allocator;
    kvi_free(&a, m, m->size);
}

/* ------------------------------------------------------------------------------------------------
   >>levenshtein   one row of the table of distances, of which only the 2 * distance + 1 fields around the
   diagonal can still count; band[i] is the distance of what was read to the word's first row + i - distance
   characters, and distance + 1 stands for more                                                     */

typedef struct kvi_fst_word { kvi_fst_machine machine; uint32_t count, distance; } kvi_fst_word;      /* and then the characters */
typedef struct kvi_fst_row { uint32_t row; kvi_fst_chars chars; uint8_t band[2 * KV_LEVENSHTEIN_MAX + 1]; } kvi_fst_row;

KVI_INLINE const uint32_t *kvi_fst_word_chars(const kvi_fst_word *w) { return (const uint32_t *)(const void *)(w + 1); }

KVI_PRIVATE void kvi_fst_row_start(const void *user, void *state)
{
    const kvi_fst_word *w = (const kvi_fst_word *)user;
    kvi_fst_row        *r = (kvi_fst_row *)state;
    uint32_t            d = w->distance;
    r->row = 0;
    memset(&r->chars, 0, sizeof r->chars);
    for (uint32_t i = 0; i <= 2 * d; i++) r->band[i] = (uint8_t)(i < d || i - d > w->count ? d + 1 : i - d);
}
KVI_PRIVATE void kvi_fst_row_read(const kvi_fst_word *w, kvi_fst_row *r, uint32_t c)
{
    uint32_t d = w->distance, left = d + 1;         /* left: the field before, in the new row */
    r->row++;
    for (uint32_t i = 0; i <= 2 * d; i++) {
        uint32_t best = d + 1, at = r->row + i;     /* the field's place in the word, + d */
        if (at >= d && at - d <= w->count) {
            best = i < 2 * d ? r->band[i + 1] + 1u : d + 1;
            if (left + 1 < best) best = left + 1;
            if (at > d) {
                uint32_t changed = r->band[i] + (kvi_fst_word_chars(w)[at - d - 1] != c ? 1u : 0u);
                if (changed < best) best = changed;
            }
            if (best > d + 1) best = d + 1;
        }
        r->band[i] = (uint8_t)best;
        left = best;
    }
}
KVI_PRIVATE void kvi_fst_row_step(const void *user, const void *state, uint8_t byte, void *next)
{
    const kvi_fst_word *w = (const kvi_fst_word *)user;
    kvi_fst_row        *r = (kvi_fst_row *)next;
    uint32_t            out[4], count;
    memcpy(next, state, offsetof(kvi_fst_row, band) + 2 * w->distance + 1);
    count = kvi_fst_chars_feed(&r->chars, byte, out);
    for (uint32_t i = 0; i < count; i++) kvi_fst_row_read(w, r, out[i]);
}
KVI_PRIVATE bool kvi_fst_row_match(const void *user, const void *state)
{
    const kvi_fst_word *w = (const kvi_fst_word *)user;
    kvi_fst_row         r;
    uint32_t            out[4], count, at;
    memcpy(&r, state, offsetof(kvi_fst_row, band) + 2 * w->distance + 1);
    count = kvi_fst_chars_flush(&r.chars, out);
    for (uint32_t i = 0; i < count; i++) kvi_fst_row_read(w, &r, out[i]);
    at = w->count + w->distance;
    return at >= r.row && at - r.row <= 2 * w->distance && r.band[at - r.row] <= w->distance;
}
KVI_PRIVATE bool kvi_fst_row_can(const void *user, const void *state)
{
    const kvi_fst_word *w = (const kvi_fst_word *)user;
    const kvi_fst_row  *r = (const kvi_fst_row *)state;
    for (uint32_t i = 0; i <= 2 * w->distance; i++) if (r->band[i] <= w->distance) return true;
    return false;
}

KVI_PRIVATE kv_status kvi_fst_make_levenshtein(const kv_allocator *a, kv_slice word, uint32_t distance, kv_automaton *out)
{
    uint32_t      count;
    kvi_fst_word *w;
    if (distance > KV_LEVENSHTEIN_MAX || kv_check_key(word) < 0) return KV_ERR_INVALID;
    w = (kvi_fst_word *)kvi_fst_chars_of(a, word, sizeof *w, &count);
    if (!w) return KV_ERR_NO_MEMORY;
    w->machine.allocator = *a;
    w->machine.size = sizeof *w + word.size * sizeof(uint32_t);
    w->count = count;
    w->distance = distance;
    out->user = w;
    out->state_size = (offsetof(kvi_fst_row, band) + 2 * (size_t)distance + 1 + 7) / 8 * 8;
    out->start = kvi_fst_row_start;
    out->step = kvi_fst_row_step;
    out->is_match = kvi_fst_row_match;
    out->can_match = kvi_fst_row_can;
    out->free = kvi_fst_machine_free;
    return KV_OK;
}

/* ------------------------------------------------------------------------------------------------
   >>subsequence   how many of the letters were seen                                               */

typedef struct kvi_fst_letters { kvi_fst_machine machine; uint32_t count; } kvi_fst_letters;           /* and then they */
typedef struct kvi_fst_seen { uint32_t seen; kvi_fst_chars chars; } kvi_fst_seen;

KVI_PRIVATE void kvi_fst_seen_start(const void *user, void *state) { (void)user; memset(state, 0, sizeof(kvi_fst_seen)); }
KVI_PRIVATE void kvi_fst_seen_read(const kvi_fst_letters *l, kvi_fst_seen *s, const uint32_t *chars, uint32_t count)
{
    const uint32_t *letters = (const uint32_t *)(const void *)(l + 1);
    for (uint32_t i = 0; i < count; i++) if (s->seen < l->count && letters[s->seen] == chars[i]) s->seen++;
}
KVI_PRIVATE void kvi_fst_seen_step(const void *user, const void *state, uint8_t byte, void *next)
{
    kvi_fst_seen *s = (kvi_fst_seen *)next;
    uint32_t      out[4];
    memcpy(next, state, sizeof *s);
    kvi_fst_seen_read((const kvi_fst_letters *)user, s, out, kvi_fst_chars_feed(&s->chars, byte, out));
}
KVI_PRIVATE bool kvi_fst_seen_match(const void *user, const void *state)
{
    const kvi_fst_letters *l = (const kvi_fst_letters *)user;
    kvi_fst_seen           s = *(const kvi_fst_seen *)state;
    uint32_t               out[4];
    kvi_fst_seen_read(l, &s, out, kvi_fst_chars_flush(&s.chars, out));
    return s.seen == l->count;
}

KVI_PRIVATE kv_status kvi_fst_make_subsequence(const kv_allocator *a, kv_slice letters, kv_automaton *out)
{
    uint32_t         count;
    kvi_fst_letters *l;
    if (kv_check_key(letters) < 0) return KV_ERR_INVALID;
    l = (kvi_fst_letters *)kvi_fst_chars_of(a, letters, sizeof *l, &count);
    if (!l) return KV_ERR_NO_MEMORY;
    l->machine.allocator = *a;
    l->machine.size = sizeof *l + letters.size * sizeof(uint32_t);
    l->count = count;
    out->user = l;
    out->state_size = (sizeof(kvi_fst_seen) + 7) / 8 * 8;
    out->start = kvi_fst_seen_start;
    out->step = kvi_fst_seen_step;
    out->is_match = kvi_fst_seen_match;
    out->can_match = NULL;
    out->free = kvi_fst_machine_free;
    return KV_OK;
}

/* ------------------------------------------------------------------------------------------------
   >>regex   Glushkov's construction: a state for each character of the pattern, and from each the set of
   those that may come next. A state of the search is a set of them, as bits; bit 0 is the start.

   There is no tree: a piece of the pattern becomes a fragment at once, and what is repeated three times
   is parsed three times. Invariant X1: the work is bounded by KVI_FST_REGEX_STEPS, the depth by
   KV_REGEX_DEPTH_MAX, positions by KV_REGEX_SIZE_MAX.                                              */

#define KVI_FST_REGEX_WORDS  (KV_REGEX_SIZE_MAX / 64u)
#define KVI_FST_REGEX_STEPS  65536u         /* atoms parsed, with repetition */
#define KVI_FST_REGEX_RANGES 4096u

typedef struct kvi_fst_set { uint64_t words[KVI_FST_REGEX_WORDS]; } kvi_fst_set;
typedef struct kvi_fst_range { uint32_t from, to; } kvi_fst_range;
typedef struct kvi_fst_class { uint16_t first, count; bool negated; } kvi_fst_class;     /* ranges of characters */
typedef struct kvi_fst_piece { kvi_fst_set first, last; bool nullable; } kvi_fst_piece;  /* a fragment */

typedef struct kvi_fst_regex {
    kvi_fst_machine machine;
    uint32_t        positions, words, range_count;      /* positions: with the start */
    kvi_fst_set     accept;
    kvi_fst_set     ascii[128];                         /* positions that take the character */
    kvi_fst_class   classes[KV_REGEX_SIZE_MAX];
    kvi_fst_range   ranges[KVI_FST_REGEX_RANGES];
    kvi_fst_set     follow[KV_REGEX_SIZE_MAX];
} kvi_fst_regex;

typedef struct kvi_fst_parser {
    kvi_fst_regex *r;
    const uint8_t *p, *start, *end;
    uint32_t       depth, steps;
    bool           failed;
} kvi_fst_parser;

KVI_INLINE void kvi_fst_set_add(kvi_fst_set *s, uint32_t bit) { s->words[bit / 64] |= UINT64_C(1) << (bit & 63); }
KVI_INLINE void kvi_fst_set_join(kvi_fst_set *s, const kvi_fst_set *other) { for (uint32_t i = 0; i < KVI_FST_REGEX_WORDS; i++) s->words[i] |= other->words[i]; }

/* ---- pieces ---- */

KVI_PRIVATE void kvi_fst_piece_empty(kvi_fst_piece *f) { memset(f, 0, sizeof *f); f->nullable = true; }
/* Whatever ends `from` may be followed by `to`. */
KVI_PRIVATE void kvi_fst_piece_link(kvi_fst_regex *r, const kvi_fst_set *from, const kvi_fst_set *to)
{
    for (uint32_t i = 0; i < KVI_FST_REGEX_WORDS; i++)
        for (uint64_t bits = from->words[i]; bits; bits &= bits - 1) kvi_fst_set_join(&r->follow[i * 64 + kvi_lowest_bit64(bits)], to);
}
KVI_PRIVATE void kvi_fst_piece_append(kvi_fst_regex *r, kvi_fst_piece *a, const kvi_fst_piece *b)
{
    kvi_fst_set last = b->last;
    kvi_fst_piece_link(r, &a->last, &b->first);
    if (a->nullable) kvi_fst_set_join(&a->first, &b->first);
    if (b->nullable) kvi_fst_set_join(&last, &a->last);
    a->last = last;
    a->nullable = a->nullable && b->nullable;
}

/* A position that takes the characters of the last `count` ranges. */
KVI_PRIVATE void kvi_fst_piece_class(kvi_fst_parser *p, uint32_t count, bool negated, kvi_fst_piece *f)
{
    kvi_fst_regex *r = p->r;
    kvi_fst_class *c;
    memset(f, 0, sizeof *f);
    if (p->failed || r->positions == KV_REGEX_SIZE_MAX) { p->failed = true; return; }
    c = &r->classes[r->positions];
    c->first = (uint16_t)(r->range_count - count);
    c->count = (uint16_t)count;
    c->negated = negated;
    kvi_fst_set_add(&f->first, r->positions);
    kvi_fst_set_add(&f->last, r->positions);
    r->positions++;
}
KVI_PRIVATE bool kvi_fst_class_has(const kvi_fst_regex *r, const kvi_fst_class *c, uint32_t code)
{
    for (uint32_t i = 0; i < c->count; i++)
        if (code >= r->ranges[c->first + i].from && code <= r->ranges[c->first + i].to) return !c->negated;
    return c->negated;
}
KVI_PRIVATE void kvi_fst_regex_range(kvi_fst_parser *p, uint32_t from, uint32_t to)
{
    if (p->r->range_count == KVI_FST_REGEX_RANGES || from > to) { p->failed = true; return; }
    p->r->ranges[p->r->range_count].from = from;
    p->r->ranges[p->r->range_count++].to = to;
}

/* ---- characters ---- */

KVI_INLINE bool kvi_fst_regex_at(const kvi_fst_parser *p, char c) { return p->p < p->end && *p->p == (uint8_t)c; }
KVI_PRIVATE int kvi_fst_hex(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}
/* The next byte, plain or as \xHH. False: there is none. */
KVI_PRIVATE bool kvi_fst_regex_byte(kvi_fst_parser *p, uint8_t *byte)
{
    int high, low;
    if (p->p == p->end) return false;
    if (*p->p != '\\') { *byte = *p->p++; return true; }
    if (p->end - p->p < 4 || p->p[1] != 'x') return false;
    high = kvi_fst_hex(p->p[2]);
    low = kvi_fst_hex(p->p[3]);
    if (high < 0 || low < 0) return false;
    *byte = (uint8_t)(high * 16 + low);
    p->p += 4;
    return true;
}
/* A literal character: bytes that are UTF-8 together, or a byte. */
KVI_PRIVATE uint32_t kvi_fst_regex_char(kvi_fst_parser *p)
{
    kvi_fst_chars  c;
    uint32_t       out[4];
    const uint8_t *after_first;
    uint8_t        byte, first;
    memset(&c, 0, sizeof c);
    if (!kvi_fst_regex_byte(p, &first)) { p->failed = true; return 0; }
    if (kvi_fst_chars_feed(&c, first, out)) return out[0];
    after_first = p->p;
    while (kvi_fst_regex_byte(p, &byte) && kvi_fst_continues(&c, byte)) if (kvi_fst_chars_feed(&c, byte, out)) return out[0];
    p->p = after_first;
    return KVI_FST_RAW + first;
}

/* \d and its like: adds ranges, of the complement too. False: it is another letter. */
KVI_PRIVATE bool kvi_fst_regex_shorthand(kvi_fst_parser *p, uint8_t letter)
{
    static const uint8_t digit[] = { '0', '9' }, word[] = { '0', '9', 'A', 'Z', '_', '_', 'a', 'z' }, space[] = { '\t', '\r', ' ', ' ' };
    uint8_t        kind = (uint8_t)(letter | 0x20);
    const uint8_t *ranges = kind == 'd' ? digit : kind == 'w' ? word : space;
    uint32_t       count = kind == 'd' ? 1 : kind == 'w' ? 4 : 2, from = 0;
    if (kind != 'd' && kind != 'w' && kind != 's') return false;
    for (uint32_t i = 0; i < count; i++) {
        if (letter == kind) kvi_fst_regex_range(p, ranges[2 * i], ranges[2 * i + 1]);
        else if (ranges[2 * i] > from) kvi_fst_regex_range(p, from, ranges[2 * i] - 1u);
        from = ranges[2 * i + 1] + 1u;
    }
    if (letter != kind) kvi_fst_regex_range(p, from, KVI_FST_RAW + 255);
    return true;
}
/* What \letter stands for, or -1. */
KVI_PRIVATE int kvi_fst_regex_escape(uint8_t letter)
{
    switch (letter) {
    case 'n': return '\n';
    case 't': return '\t';
    case 'r': return '\r';
    case 'f': return '\f';
    case 'v': return '\v';
    default: break;
    }
    if (letter >= 128 || (letter >= '0' && letter <= '9') || ((letter | 0x20) >= 'a' && (letter | 0x20) <= 'z')) return -1;
    return letter;
}
/* One character of a class or outside, with escapes. */
KVI_PRIVATE uint32_t kvi_fst_regex_one(kvi_fst_parser *p)
{
    int c;
    if (!kvi_fst_regex_at(p, '\\') || (p->end - p->p > 1 && p->p[1] == 'x')) return kvi_fst_regex_char(p);
    c = p->end - p->p > 1 ? kvi_fst_regex_escape(p->p[1]) : -1;
    if (c < 0) { p->failed = true; return 0; }
    p->p += 2;
    return (uint32_t)c;
}

KVI_PRIVATE bool kvi_fst_regex_named(kvi_fst_parser *p)       /* [:alpha:] inside a class */
{
    static const struct { const char *name; uint8_t ranges[8]; uint8_t count; } names[] = {
        { "alpha", { 'A', 'Z', 'a', 'z' }, 2 }, { "digit", { '0', '9' }, 1 }, { "alnum", { '0', '9', 'A', 'Z', 'a', 'z' }, 3 },
        { "upper", { 'A', 'Z' }, 1 }, { "lower", { 'a', 'z' }, 1 }, { "space", { '\t', '\r', ' ', ' ' }, 2 },
        { "blank", { '\t', '\t', ' ', ' ' }, 2 }, { "xdigit", { '0', '9', 'A', 'F', 'a', 'f' }, 3 },
        { "punct", { '!', '/', ':', '@', '[', '`', '{', '~' }, 4 }, { "print", { ' ', '~' }, 1 }, { "graph", { '!', '~' }, 1 }, { "cntrl", { 0, 31, 127, 127 }, 2 }
    };
    if (p->end - p->p < 2 || p->p[0] != '[' || p->p[1] != ':') return false;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t size = strlen(names[i].name);
        if ((size_t)(p->end - p->p) < size + 4 || memcmp(p->p + 2, names[i].name, size) != 0 || p->p[2 + size] != ':' || p->p[3 + size] != ']') continue;
        for (uint32_t k = 0; k < names[i].count; k++) kvi_fst_regex_range(p, names[i].ranges[2 * k], names[i].ranges[2 * k + 1]);
        p->p += size + 4;
        return true;
    }
    p->failed = true;
    return true;
}
KVI_PRIVATE void kvi_fst_regex_brackets(kvi_fst_parser *p, kvi_fst_piece *f)
{
    uint32_t before = p->r->range_count, from, to;
    bool     negated, first = true;
    p->p++;
    negated = kvi_fst_regex_at(p, '^');
    if (negated) p->p++;
    for (; !p->failed && !(kvi_fst_regex_at(p, ']') && !first); first = false) {
        if (p->p == p->end) { p->failed = true; break; }
        if (kvi_fst_regex_named(p)) continue;
        if (p->end - p->p > 1 && *p->p == '\\' && kvi_fst_regex_shorthand(p, p->p[1])) { p->p += 2; continue; }
        from = to = kvi_fst_regex_one(p);
        if (p->end - p->p > 1 && p->p[0] == '-' && p->p[1] != ']') { p->p++; to = kvi_fst_regex_one(p); }
        if (!p->failed) kvi_fst_regex_range(p, from, to);
    }
    if (!p->failed) p->p++;
    kvi_fst_piece_class(p, p->r->range_count - before, negated, f);
}

/* ---- grammar: either = row { '|' row }, row = { atom [ repetition ] } ---- */

KVI_PRIVATE void kvi_fst_regex_either(kvi_fst_parser *p, kvi_fst_piece *f);

KVI_PRIVATE void kvi_fst_regex_atom(kvi_fst_parser *p, kvi_fst_piece *f)
{
    uint32_t before = p->r->range_count, code;
    kvi_fst_piece_empty(f);
    if (p->failed || ++p->steps > KVI_FST_REGEX_STEPS) { p->failed = true; return; }
    switch (*p->p) {
    case '(':
        p->p++;
        if (p->end - p->p > 1 && p->p[0] == '?' && p->p[1] == ':') p->p += 2;
        if (++p->depth > KV_REGEX_DEPTH_MAX) { p->failed = true; return; }
        kvi_fst_regex_either(p, f);
        p->depth--;
        if (!kvi_fst_regex_at(p, ')')) { p->failed = true; return; }
        p->p++;
        return;
    case '[': kvi_fst_regex_brackets(p, f); return;
    case '*': case '+': case '?': case '{': p->failed = true; return;
    case '^': if (p->p != p->start) p->failed = true; p->p++; return;              /* the whole key is meant anyway */
    case '$': if (p->p + 1 != p->end) p->failed = true; p->p++; return;
    case '.':
        p->p++;
        kvi_fst_regex_range(p, 0, KVI_FST_RAW + 255);
        break;
    case '\\':
        if (p->end - p->p > 1 && kvi_fst_regex_shorthand(p, p->p[1])) { p->p += 2; break; }
        code = kvi_fst_regex_one(p);
        kvi_fst_regex_range(p, code, code);
        break;
    default:
        code = kvi_fst_regex_char(p);
        kvi_fst_regex_range(p, code, code);
        break;
    }
    kvi_fst_piece_class(p, p->r->range_count - before, false, f);
}

/* {3} {3,} {3,7}; UINT32_MAX: no end */
KVI_PRIVATE void kvi_fst_regex_bounds(kvi_fst_parser *p, uint32_t *least, uint32_t *most)
{
    uint32_t n[2] = { 0, 0 }, which = 0, digits = 0;
    p->p++;
    for (; p->p < p->end && *p->p != '}'; p->p++) {
        if (*p->p == ',' && which == 0 && digits) { which = 1; digits = 0; continue; }
        if (*p->p < '0' || *p->p > '9' || n[which] > KV_REGEX_SIZE_MAX) { p->failed = true; return; }
        n[which] = n[which] * 10 + (uint32_t)(*p->p - '0');
        digits++;
    }
    if (p->p == p->end || (which == 0 && !digits)) { p->failed = true; return; }
    p->p++;
    *least = n[0];
    *most = which == 0 ? n[0] : digits ? n[1] : UINT32_MAX;
    if (*least > *most || *least > KV_REGEX_SIZE_MAX || (*most != UINT32_MAX && *most > KV_REGEX_SIZE_MAX)) p->failed = true;
}
KVI_PRIVATE void kvi_fst_regex_repeated(kvi_fst_parser *p, kvi_fst_piece *f)
{
    const uint8_t *atom = p->p, *after;
    uint32_t       least = 1, most = 1;
    kvi_fst_piece  once;
    kvi_fst_regex_atom(p, &once);
    if (p->failed) return;
    if (kvi_fst_regex_at(p, '*')) { least = 0; most = UINT32_MAX; p->p++; }
    else if (kvi_fst_regex_at(p, '+')) { most = UINT32_MAX; p->p++; }
    else if (kvi_fst_regex_at(p, '?')) { least = 0; p->p++; }
    else if (kvi_fst_regex_at(p, '{')) kvi_fst_regex_bounds(p, &least, &most);
    else { kvi_fst_piece_append(p->r, f, &once); return; }
    after = p->p;
    if (p->failed || most == 0) return;                 /* x{0}: its positions stay, and nothing leads to them */
    for (uint32_t n = 1;; n++) {
        bool endless = most == UINT32_MAX && n >= least;
        if (endless) kvi_fst_piece_link(p->r, &once.last, &once.first);
        if (n > least || least == 0) once.nullable = true;
        kvi_fst_piece_append(p->r, f, &once);
        if (endless || n >= most) break;
        p->p = atom;
        kvi_fst_regex_atom(p, &once);
        if (p->failed) return;
    }
    p->p = after;
}
KVI_PRIVATE void kvi_fst_regex_row(kvi_fst_parser *p, kvi_fst_piece *f)
{
    kvi_fst_piece_empty(f);
    while (!p->failed && p->p < p->end && *p->p != '|' && *p->p != ')') kvi_fst_regex_repeated(p, f);
}
KVI_PRIVATE void kvi_fst_regex_either(kvi_fst_parser *p, kvi_fst_piece *f)
{
    kvi_fst_piece other;
    kvi_fst_regex_row(p, f);
    while (!p->failed && kvi_fst_regex_at(p, '|')) {
        p->p++;
        kvi_fst_regex_row(p, &other);
        kvi_fst_set_join(&f->first, &other.first);
        kvi_fst_set_join(&f->last, &other.last);
        f->nullable = f->nullable || other.nullable;
    }
}

/* ---- running ---- */

typedef struct kvi_fst_at { kvi_fst_chars chars; uint8_t pad[2]; uint64_t words[KVI_FST_REGEX_WORDS]; } kvi_fst_at;

KVI_PRIVATE size_t kvi_fst_at_size(const kvi_fst_regex *r) { return offsetof(kvi_fst_at, words) + r->words * sizeof(uint64_t); }
KVI_PRIVATE void kvi_fst_at_start(const void *user, void *state)
{
    memset(state, 0, kvi_fst_at_size((const kvi_fst_regex *)user));
    ((kvi_fst_at *)state)->words[0] = 1;
}
KVI_PRIVATE void kvi_fst_at_read(const kvi_fst_regex *r, kvi_fst_at *at, uint32_t code)
{
    uint64_t reached[KVI_FST_REGEX_WORDS];
    memset(reached, 0, r->words * sizeof *reached);
    for (uint32_t i = 0; i < r->words; i++)
        for (uint64_t bits = at->words[i]; bits; bits &= bits - 1) {
            const kvi_fst_set *follow = &r->follow[i * 64 + kvi_lowest_bit64(bits)];
            for (uint32_t k = 0; k < r->words; k++) reached[k] |= follow->words[k];
        }
    for (uint32_t i = 0; i < r->words; i++) {
        if (code < 128) { at->words[i] = reached[i] & r->ascii[code].words[i]; continue; }
        at->words[i] = 0;
        for (uint64_t bits = reached[i]; bits; bits &= bits - 1)
            if (kvi_fst_class_has(r, &r->classes[i * 64 + kvi_lowest_bit64(bits)], code)) at->words[i] |= bits & (0 - bits);
    }
}
KVI_PRIVATE void kvi_fst_at_step(const void *user, const void *state, uint8_t byte, void *next)
{
    const kvi_fst_regex *r = (const kvi_fst_regex *)user;
    kvi_fst_at          *at = (kvi_fst_at *)next;
    uint32_t             out[4], count;
    memcpy(next, state, kvi_fst_at_size(r));
    count = kvi_fst_chars_feed(&at->chars, byte, out);
    for (uint32_t i = 0; i < count; i++) kvi_fst_at_read(r, at, out[i]);
}
KVI_PRIVATE bool kvi_fst_at_match(const void *user, const void *state)
{
    const kvi_fst_regex *r = (const kvi_fst_regex *)user;
    kvi_fst_at           at;
    uint32_t             out[4], count;
    memcpy(&at, state, kvi_fst_at_size(r));
    count = kvi_fst_chars_flush(&at.chars, out);
    for (uint32_t i = 0; i < count; i++) kvi_fst_at_read(r, &at, out[i]);
    for (uint32_t i = 0; i < r->words; i++) if (at.words[i] & r->accept.words[i]) return true;
    return false;
}
KVI_PRIVATE bool kvi_fst_at_can(const void *user, const void *state)
{
    const kvi_fst_regex *r = (const kvi_fst_regex *)user;
    for (uint32_t i = 0; i < r->words; i++) if (((const kvi_fst_at *)state)->words[i]) return true;
    return false;
}

KVI_PRIVATE kv_status kvi_fst_make_regex(const kv_allocator *a, kv_slice pattern, kv_automaton *out)
{
    kvi_fst_regex *r;
    kvi_fst_parser p;
    kvi_fst_piece  whole;
    if (kv_check_key(pattern) < 0) return KV_ERR_INVALID;
    r = (kvi_fst_regex *)kvi_alloc_zero(a, sizeof *r);
    if (!r) return KV_ERR_NO_MEMORY;
    r->machine.allocator = *a;
    r->machine.size = sizeof *r;
    r->positions = 1;
    memset(&p, 0, sizeof p);
    p.r = r;
    p.p = p.start = pattern.size ? (const uint8_t *)pattern.data : (const uint8_t *)"";
    p.end = p.p + pattern.size;
    kvi_fst_regex_either(&p, &whole);
    if (p.failed || p.p != p.end) { kvi_fst_machine_free(r); return KV_ERR_INVALID; }
    r->follow[0] = whole.first;
    r->accept = whole.last;
    if (whole.nullable) kvi_fst_set_add(&r->accept, 0);
    r->words = (r->positions + 63) / 64;
    for (uint32_t i = 1; i < r->positions; i++)
        for (uint32_t code = 0; code < 128; code++) if (kvi_fst_class_has(r, &r->classes[i], code)) kvi_fst_set_add(&r->ascii[code], i);
    out->user = r;
    out->state_size = kvi_fst_at_size(r);
    out->start = kvi_fst_at_start;
    out->step = kvi_fst_at_step;
    out->is_match = kvi_fst_at_match;
    out->can_match = kvi_fst_at_can;
    out->free = kvi_fst_machine_free;
    return KV_OK;
}

KVI_FST_DEFINE kv_status kv_automaton_make(const kv_allocator *allocator, kv_automaton_kind kind, kv_slice text, uint32_t distance, kv_automaton *a)
{
    kv_allocator own = kvi_allocator_or_default(allocator);
    if (!a) return KV_ERR_INVALID;
    memset(a, 0, sizeof *a);
    a->allocator = own;
    switch (kind) {
    case KV_AUTOMATON_LEVENSHTEIN: return kvi_fst_make_levenshtein(&own, text, distance, a);
    case KV_AUTOMATON_SUBSEQUENCE: return kvi_fst_make_subsequence(&own, text, a);
    case KV_AUTOMATON_REGEX:       return kvi_fst_make_regex(&own, text, a);
    default:                       return KV_ERR_INVALID;
    }
}
KVI_FST_DEFINE kv_status kv_automaton_levenshtein(kv_slice word, uint32_t distance, kv_automaton *a) { return kv_automaton_make(NULL, KV_AUTOMATON_LEVENSHTEIN, word, distance, a); }
KVI_FST_DEFINE kv_status kv_automaton_subsequence(kv_slice letters, kv_automaton *a) { return kv_automaton_make(NULL, KV_AUTOMATON_SUBSEQUENCE, letters, 0, a); }
KVI_FST_DEFINE kv_status kv_automaton_regex(kv_slice pattern, kv_automaton *a) { return kv_automaton_make(NULL, KV_AUTOMATON_REGEX, pattern, 0, a); }
KVI_FST_DEFINE void kv_automaton_free(kv_automaton *a)
{
    if (!a) return;
    if (a->free && a->user) a->free(a->user);
    memset(a, 0, sizeof *a);
}

/* ------------------------------------------------------------------------------------------------
   >>walk   keys and an automaton together

   states[d] is the automaton after the first d bytes of `walked`. The next key keeps the states of what it
   shares; where the automaton dies after d bytes, the keys that share those are skipped together.   */

typedef struct kvi_fst_walk {
    kv_fst             *f;
    const kv_automaton *a;
    kvi_fst_cursor     *c;
    size_t              stride;         /* bytes of a state here */
    uint64_t           *states;
    uint8_t            *walked;
    uint32_t            depth, state_capacity, walked_capacity;
} kvi_fst_walk;

KVI_INLINE void *kvi_fst_walk_state(const kvi_fst_walk *w, uint32_t depth) { return w->states + depth * (w->stride / sizeof(uint64_t)); }
KVI_INLINE bool kvi_fst_walk_alive(const kvi_fst_walk *w, uint32_t depth) { return !w->a->can_match || w->a->can_match(w->a->user, kvi_fst_walk_state(w, depth)); }

/* Room for states of keys of `size` bytes. */
KVI_PRIVATE bool kvi_fst_walk_room(kvi_fst_walk *w, uint32_t size)
{
    uint32_t capacity = 64;
    void    *grown;
    while (capacity <= size) capacity *= 2;
    if (capacity > w->state_capacity) {
        grown = kvi_resize(&w->f->allocator, w->states, w->state_capacity * w->stride, capacity * w->stride);
        if (!grown) return false;
        w->states = (uint64_t *)grown;
        w->state_capacity = capacity;
    }
    if (capacity > w->walked_capacity) {
        grown = kvi_resize(&w->f->allocator, w->walked, w->walked_capacity, capacity);
        if (!grown) return false;
        w->walked = (uint8_t *)grown;
        w->walked_capacity = capacity;
    }
    return true;
}

/* Step through the cursor's key. *dead: after so many bytes the automaton died; 0: it did not. */
KVI_PRIVATE bool kvi_fst_walk_key(kvi_fst_walk *w, uint32_t *dead)
{
    const uint8_t *key = w->c->key;
    uint32_t       size = w->c->key_size, depth = size < w->depth ? size : w->depth;
    if (!kvi_fst_walk_room(w, size)) return false;
    depth = (uint32_t)kvi_common_prefix(key, w->walked, depth);
    *dead = 0;
    while (depth < size) {
        w->a->step(w->a->user, kvi_fst_walk_state(w, depth), key[depth], kvi_fst_walk_state(w, depth + 1));
        w->walked[depth] = key[depth];
        depth++;
        if (!kvi_fst_walk_alive(w, depth)) { *dead = depth; break; }
    }
    w->depth = *dead ? depth - 1 : depth;
    return true;
}

/* To the key before all that begin with the first `depth` bytes of this one. */
KVI_PRIVATE kv_status kvi_fst_skip_back(kvi_fst_walk *w, uint32_t depth)
{
    kv_status s = kvi_fst_seek(w->c, kv_bytes(w->walked, depth));
    return s == KV_OK ? kvi_fst_prev(w->c) : s;
}
/* To the key after all that do. It may lie in the middle of a leaf whose first key still does. */
KVI_PRIVATE kv_status kvi_fst_skip_on(kvi_fst_walk *w, uint32_t depth)
{
#if KVI_SMALL
    kv_status s;
    while (depth && w->walked[depth - 1] == 255) depth--;
    if (!depth) return KV_END;
    w->walked[depth - 1]++;
    s = kvi_fst_seek(w->c, kv_bytes(w->walked, depth));
    w->walked[depth - 1]--;
    return s;
#else
    return kvi_fst_skip(w->c, depth);
#endif
}

KVI_PRIVATE kv_status kvi_fst_walk_all(kvi_fst_walk *w, const kv_range *range, uint64_t from, uint64_t to, kv_visit_fn visit, void *user)
{
    bool      reverse = range && range->reverse;
    uint64_t  left = range && range->limit ? range->limit : UINT64_MAX, last = reverse ? UINT64_MAX : 0;
    kv_status s;
    if (!kvi_fst_walk_room(w, 0)) return KV_ERR_NO_MEMORY;
    w->a->start(w->a->user, kvi_fst_walk_state(w, 0));
    if (!kvi_fst_walk_alive(w, 0)) return KV_OK;
    s = kvi_fst_to_rank(w->c, reverse ? to - 1 : from);
    while (s == KV_OK) {
        uint64_t rank = kvi_fst_rank_here(w->c);
        uint32_t dead;
        if (reverse ? rank < from : rank >= to) break;
        if (reverse ? rank >= last : rank < last) return KV_ERR_CORRUPT;        /* not in order: it might go in circles */
        last = reverse ? rank : rank + 1;
        if (!kvi_fst_walk_key(w, &dead)) return KV_ERR_NO_MEMORY;
        if (dead) { s = reverse ? kvi_fst_skip_back(w, dead) : kvi_fst_skip_on(w, dead); continue; }
        if (w->a->is_match(w->a->user, kvi_fst_walk_state(w, w->depth))) {
            uint8_t  scratch[8];
            kv_slice value;
            if (!kvi_fst_value_here(w->c, scratch, &value)) return KV_ERR_CORRUPT;
            if (!visit(user, kvi_fst_key(w->c), value) || !--left) break;
        }
        s = reverse ? kvi_fst_prev(w->c) : kvi_fst_next(w->c);
    }
    return s < 0 ? s : KV_OK;
}

KVI_FST_DEFINE kv_status kv_fst_search(kv_fst *f, const kv_automaton *a, const kv_range *range, kv_visit_fn visit, void *user)
{
    kvi_fst_walk w;
    uint64_t     from = 0, to = 0;
    kv_status    s;
    if (!f || !a || !visit || !a->start || !a->step || !a->is_match || !a->state_size || a->state_size > KV_AUTOMATON_STATE_MAX) return KV_ERR_INVALID;
    s = kvi_fst_span(f, range, &from, &to);
    if (s < 0 || from >= to) return s;
    memset(&w, 0, sizeof w);
    w.f = f;
    w.a = a;
    w.stride = (a->state_size + 7) / 8 * 8;
    w.c = kvi_fst_cursor_new(f);
    s = w.c ? kvi_fst_walk_all(&w, range, from, to, visit, user) : KV_ERR_NO_MEMORY;
    kvi_free(&f->allocator, w.states, w.state_capacity * w.stride);
    kvi_free(&f->allocator, w.walked, w.walked_capacity);
    kvi_fst_cursor_free(w.c);
    return s < 0 ? kvi_fst_fail(f, s) : KV_OK;
}

/* ------------------------------------------------------------------------------------------------
   >>sets   several maps in step                                                                   */

enum { KVI_FST_MERGE, KVI_FST_INTERSECT, KVI_FST_SUBTRACT, KVI_FST_SYMMETRIC };

#define KVI_FST_STRIDE 8u       /* steps towards a key before it is sought */

typedef struct kvi_fst_input { kvi_fst_cursor *c; uint64_t onward; bool ended; uint8_t scratch[8]; } kvi_fst_input;     /* onward: the least rank to go to */
typedef struct kvi_fst_sets {
    int             kind;
    kv_fst *const  *maps;
    kvi_fst_input  *inputs;
    kv_slice       *values;
    size_t          count;
    kv_fst_merge_fn resolve;
    void           *user;
    kv_fst_builder *out;
    kv_buf          result;
} kvi_fst_sets;

KVI_INLINE kv_slice kvi_fst_input_key(const kvi_fst_input *i) { return kvi_fst_key(i->c); }
KVI_PRIVATE kv_status kvi_fst_input_at(kvi_fst_input *i, kv_status s)
{
    i->ended = s != KV_OK;
    if (s != KV_OK) return s < 0 ? s : KV_OK;
    if (kvi_fst_rank_here(i->c) < i->onward) return KV_ERR_CORRUPT;             /* not in order: it might go in circles */
    i->onward = kvi_fst_rank_here(i->c) + 1;
    return KV_OK;
}

/* Forward to the first key that is not less than `key`. */
KVI_PRIVATE kv_status kvi_fst_input_to(kvi_fst_input *i, kv_slice key)
{
    for (uint32_t steps = 0; !i->ended && kvi_compare(kvi_fst_input_key(i), key) < 0; steps++) {
        kv_status s = kvi_fst_input_at(i, steps < KVI_FST_STRIDE ? kvi_fst_next(i->c) : kvi_fst_seek(i->c, key));
        if (s < 0) return s;
    }
    return KV_OK;
}

/* The key that is looked at next: the least of all; for an intersection the greatest, to which all others
   are moved; for a difference the first input's. False: the end. */
KVI_PRIVATE bool kvi_fst_sets_target(const kvi_fst_sets *m, size_t *target)
{
    bool found = false;
    if (m->kind == KVI_FST_SUBTRACT) { *target = 0; return m->count && !m->inputs[0].ended; }
    for (size_t i = 0; i < m->count; i++) {
        int order;
        if (m->inputs[i].ended && m->kind == KVI_FST_INTERSECT) return false;
        if (m->inputs[i].ended) continue;
        order = found ? kvi_compare(kvi_fst_input_key(&m->inputs[i]), kvi_fst_input_key(&m->inputs[*target])) : 0;
        if (!found || (m->kind == KVI_FST_INTERSECT ? order > 0 : order < 0)) *target = i;
        found = true;
    }
    return found;
}

KVI_PRIVATE kv_status kvi_fst_sets_add(kvi_fst_sets *m, kv_slice key, kv_slice value, bool set)
{
    kv_fst_builder *out = m->out;
    if (out->values == KV_FST_BYTES) return kv_fst_add_bytes(out, key, value);
    if (out->values == KV_FST_SET) return kv_fst_add(out, key, 0);
    if (set) return kv_fst_add(out, key, 0);
    return value.size == 8 ? kv_fst_add(out, key, kvi_load_le64(value.data)) : KV_ERR_WRONG_TYPE;
}

/* The key of inputs[target], which `having` inputs have. */
KVI_PRIVATE kv_status kvi_fst_sets_key(kvi_fst_sets *m, size_t target, size_t having)
{
    kv_slice  key = kvi_fst_input_key(&m->inputs[target]), value = kv_bytes(NULL, 0);
    bool      set = true;
    kv_status s;
    if ((m->kind == KVI_FST_INTERSECT && having < m->count) || (m->kind == KVI_FST_SUBTRACT && having > 1) || (m->kind == KVI_FST_SYMMETRIC && !(having & 1))) return KV_OK;
    for (size_t i = m->count; i-- > 0;) {
        if (!m->values[i].data) continue;
        value = m->values[i];
        set = m->maps[i]->values == KV_FST_SET;
    }
    if (m->resolve && having > 1) {
        m->result.size = 0;
        s = m->resolve(m->user, key, m->values, m->count, &m->result);
        if (s == KV_NOT_FOUND) return KV_OK;
        if (s != KV_OK) return s < 0 ? s : KV_ERR_INVALID;
        value = kv_buf_slice(&m->result);
        set = false;
    }
    return kvi_fst_sets_add(m, key, value, set);
}

KVI_PRIVATE kv_status kvi_fst_sets_run(kvi_fst_sets *m)
{
    size_t    target = 0, having;
    kv_status s;
    for (size_t i = 0; i < m->count; i++) {
        m->inputs[i].c = kvi_fst_cursor_new(m->maps[i]);
        if (!m->inputs[i].c) return KV_ERR_NO_MEMORY;
        s = kvi_fst_input_at(&m->inputs[i], kvi_fst_first(m->inputs[i].c));
        if (s < 0) return s;
    }
    while (kvi_fst_sets_target(m, &target)) {
        kv_slice key = kvi_fst_input_key(&m->inputs[target]);
        having = 0;
        for (size_t i = 0; i < m->count; i++) {
            kvi_fst_input *in = &m->inputs[i];
            m->values[i] = kv_bytes(NULL, 0);
            if (m->kind == KVI_FST_INTERSECT || m->kind == KVI_FST_SUBTRACT) {
                s = kvi_fst_input_to(in, key);
                if (s < 0) return s;
            }
            if (in->ended || !kv_equal(kvi_fst_input_key(in), key)) continue;
            if (!kvi_fst_value_here(in->c, in->scratch, &m->values[i])) return KV_ERR_CORRUPT;
            having++;
        }
        s = kvi_fst_sets_key(m, target, having);
        if (s < 0) return s;
        if (m->kind == KVI_FST_INTERSECT && having < m->count) continue;      /* the others are beyond it: the next target is greater */
        for (size_t i = 0; i < m->count; i++) {
            if (!m->values[i].data) continue;
            s = kvi_fst_input_at(&m->inputs[i], kvi_fst_next(m->inputs[i].c));
            if (s < 0) return s;
        }
    }
    return KV_OK;
}

KVI_PRIVATE kv_status kvi_fst_sets_do(int kind, kv_fst *const *inputs, size_t count, kv_fst_merge_fn resolve, void *user, kv_fst_builder *out)
{
    kvi_fst_sets m;
    kv_status    s;
    if (!out || (count && !inputs)) return KV_ERR_INVALID;
    for (size_t i = 0; i < count; i++) if (!inputs[i]) return KV_ERR_INVALID;
    if (out->failed) return out->failed;
    if (!count) return KV_OK;
    memset(&m, 0, sizeof m);
    m.kind = kind;
    m.maps = inputs;
    m.count = count;
    m.resolve = resolve;
    m.user = user;
    m.out = out;
    m.result.allocator = out->allocator;
    m.inputs = (kvi_fst_input *)kvi_alloc_zero(&out->allocator, count * sizeof *m.inputs);
    m.values = (kv_slice *)kvi_alloc_zero(&out->allocator, count * sizeof *m.values);
    s = m.inputs && m.values ? kvi_fst_sets_run(&m) : KV_ERR_NO_MEMORY;
    if (m.inputs) for (size_t i = 0; i < count; i++) kvi_fst_cursor_free(m.inputs[i].c);
    kvi_free(&out->allocator, m.inputs, count * sizeof *m.inputs);
    kvi_free(&out->allocator, m.values, count * sizeof *m.values);
    kv_buf_free(&m.result);
    return s;
}
KVI_FST_DEFINE kv_status kv_fst_merge(kv_fst *const *inputs, size_t count, kv_fst_merge_fn resolve, void *user, kv_fst_builder *out)
{
    return kvi_fst_sets_do(KVI_FST_MERGE, inputs, count, resolve, user, out);
}
KVI_FST_DEFINE kv_status kv_fst_intersect(kv_fst *const *inputs, size_t count, kv_fst_merge_fn resolve, void *user, kv_fst_builder *out)
{
    return kvi_fst_sets_do(KVI_FST_INTERSECT, inputs, count, resolve, user, out);
}
KVI_FST_DEFINE kv_status kv_fst_subtract(kv_fst *const *inputs, size_t count, kv_fst_merge_fn resolve, void *user, kv_fst_builder *out)
{
    return kvi_fst_sets_do(KVI_FST_SUBTRACT, inputs, count, resolve, user, out);
}
KVI_FST_DEFINE kv_status kv_fst_symmetric(kv_fst *const *inputs, size_t count, kv_fst_merge_fn resolve, void *user, kv_fst_builder *out)
{
    return kvi_fst_sets_do(KVI_FST_SYMMETRIC, inputs, count, resolve, user, out);
}

/* ------------------------------------------------------------------------------------------------
   >>dot   every state once, in the order of the file                                              */

typedef struct kvi_fst_drawing { kv_fst *f; kvi_fst_cursor *c; kv_write_fn write; void *user; char line[1024]; kvi_text text; kv_status failed; } kvi_fst_drawing;

KVI_PRIVATE void kvi_fst_draw_flush(kvi_fst_drawing *d)
{
    kv_status s = d->failed ? KV_OK : d->write(d->user, d->line, d->text.size);
    if (s != KV_OK) d->failed = s;
    d->text = kvi_text_over(d->line, sizeof d->line);
}
/* Bytes inside a quoted label, the first 40 of them. */
KVI_PRIVATE void kvi_fst_draw_label(kvi_fst_drawing *d, const uint8_t *bytes, uint32_t size)
{
    for (uint32_t i = 0; i < size && i < 40; i++) {
        if (bytes[i] >= 32 && bytes[i] < 127 && bytes[i] != '"' && bytes[i] != '\\') { kvi_text_char(&d->text, (char)bytes[i]); continue; }
        kvi_text_add(&d->text, "\\\\x");
        kvi_text_hex(&d->text, bytes[i], 2);
    }
    if (size > 40) kvi_text_add(&d->text, "...");
}
KVI_PRIVATE bool kvi_fst_draw_state(kvi_fst_drawing *d, size_t *at)
{
    kvi_fst_block  b;
    bool           leaf = d->f->bytes[*at] >> 6 != KVI_FST_NODE;
    const uint8_t *end;
    size_t         child;
    uint32_t       base;
    if (!kvi_fst_parse(d->f, *at, leaf, &b)) return false;
    if (leaf ? !kvi_fst_check_values(d->f, &b, &end) : (end = b.refs + (size_t)kvi_fst_entries(&b) * b.ref_width, false)) return false;
    kvi_text_add(&d->text, "  s"); kvi_text_u64(&d->text, *at);
    kvi_text_add(&d->text, leaf ? " [shape=box,label=\"" : " [label=\"\"];\n");
    for (uint32_t i = 0; i <= b.columns && !d->failed; i++) {
#if KVI_SMALL
        d->c->leaf = b;
        if (!kvi_fst_spell(d->c, i)) return false;
#else
        if (!kvi_fst_spell(d->c, &b, 0, i, 0)) return false;
#endif
        if (!leaf) {
            if (!kvi_fst_arc(&b, *at, 0, i, &child, &base)) return false;
            kvi_text_add(&d->text, "  s"); kvi_text_u64(&d->text, *at);
            kvi_text_add(&d->text, " -> s"); kvi_text_u64(&d->text, child);
            kvi_text_add(&d->text, " [label=\"");
        }
        kvi_fst_draw_label(d, d->c->key, d->c->key_size);
        if (!leaf) { kvi_text_add(&d->text, " / +"); kvi_text_u64(&d->text, kvi_fst_start(&b, i)); }
        kvi_text_add(&d->text, leaf ? "\\l" : "\"];\n");
        kvi_fst_draw_flush(d);
    }
    if (leaf) { kvi_text_add(&d->text, "\"];\n"); kvi_fst_draw_flush(d); }
    *at = (size_t)(end - d->f->bytes);
    return true;
}
KVI_FST_DEFINE kv_status kv_fst_dot(kv_fst *f, kv_write_fn w, void *user)
{
    kvi_fst_drawing d;
    size_t          at = KVI_FST_HEADER;
    if (!f || !w) return KV_ERR_INVALID;
    memset(&d, 0, sizeof d);
    d.f = f;
    d.write = w;
    d.user = user;
    d.c = kvi_fst_cursor_new(f);
    if (!d.c) return kvi_fst_fail(f, KV_ERR_NO_MEMORY);
    d.text = kvi_text_over(d.line, sizeof d.line);
    kvi_text_add(&d.text, "digraph fst {\n  rankdir=LR;\n  node [shape=circle];\n");
    kvi_fst_draw_flush(&d);
    while (!d.failed && at < f->data_end) {
        if (f->bytes[at] == KVI_FST_DATA << 6) {
            uint64_t size = kvi_fst_load48(f->bytes + at + 1);
            at = size < f->data_end - at ? at + 7 + (size_t)size : f->data_end;
        } else if (!kvi_fst_draw_state(&d, &at)) d.failed = KV_ERR_CORRUPT;
    }
    kvi_text_add(&d.text, "}\n");
    kvi_fst_draw_flush(&d);
    kvi_fst_cursor_free(d.c);
    return d.failed < 0 ? kvi_fst_fail(f, d.failed) : d.failed;
}

#endif /* KV_FST_READER_ONLY */
#endif /* KV_FST_IMPLEMENTATION */

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
