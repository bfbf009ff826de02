/* kv_mem.h - v0.1.0 - concurrent hash map in memory: batches, TTL, watches, memory limit, snapshots
   SPDX-License-Identifier: MIT (full text at the end of this file)

   In *one* C or C++ file:   #define KV_MEM_IMPLEMENTATION
                             #include "kv_mem.h"       (kv.h and kv_simd.h lie beside it, xxhash.h is installed)
   QUICK START
       kv_mem *m;
       kv_buf  value = {0};
       if (kv_mem_open(NULL, &m) < 0) return 1;
       if (kv_mem_set(m, KV_STR("boot"), KV_STR("1")) < 0) return 1;
       if (kv_mem_get(m, KV_STR("boot"), &value) == KV_OK) printf("boot is %.*s\n", (int)value.size, (const char *)value.data);
       kv_buf_free(&value);
       kv_mem_close(m);

   CONTENTS   docs: options, threads, callbacks, time to live, memory limit, watches, snapshots, memory, limits
              code: >>public >>config >>structs >>locks >>pool >>records >>hash >>table >>moves >>expiry
                    >>evict >>watch >>read >>write >>scan >>snapshot >>api

   OPTIONS
   Zero is the default of every member of kv_mem_options; NULL for the options is all defaults. With
   no option the map takes its memory from malloc, may be used by any thread, hashes under a random
   seed, and grows without a limit.

   Where code is scarce, define beside KV_MEM_IMPLEMENTATION what is not needed; the calls stay, and are
   KV_ERR_UNSUPPORTED:
       KV_MEM_NO_SAVE       kv_mem_save, kv_mem_load
       KV_MEM_NO_WATCH      kv_mem_subscribe
       KV_MEM_NO_TTL        a time to live other than 0 (also one in a snapshot); kv_mem_sweep finds nothing
       KV_MEM_NO_LIMIT      kv_mem_open with memory_limit_bytes
   With -Os the short ways for fast maps are left out, too; KV_NO_THREADS leaves out all that is for
   threads. README has a table of sizes.

   THREADS
   Any thread may call anything at any time, but for kv_mem_open, kv_mem_close, and kv_mem_peek, whose
   result lives until the next write. Readers take no lock: they read under a sequence number of their
   shard, and read again in the rare case that a writer was there. Writers lock one shard of many for
   some hundred nanoseconds. What one thread wrote before another begins a call, that call sees. With
   single_thread there is no lock and no atomic operation at all, and the object is for one thread.
   A map with memory_limit_bytes is for any thread too; its readers count themselves in at their shard
   (one atomic addition; they never wait for each other), because there memory is given back.

   CALLBACKS
   kv_mem_view and kv_mem_scan call you with no lock held. The callback may read the map, and in a map
   for several threads it may write too; with single_thread a write from there is KV_ERR_INVALID (the
   slices point into the map). A scan shows every entry that is there from its start to its end
   exactly once, whatever is written meanwhile, each as it was at some moment between. The function of
   kv_mem_update runs with its shard locked: it must be short, and must not call the map.
   The slices that you give to a write must not lie in the map's own memory (kv_mem_peek, or a
   callback's slices under single_thread): copy them first.

   TIME TO LIVE
   An entry that was given one expires when now >= time set + ttl. From then on it is missing for every
   call. Its memory comes back when a write meets it, when the part of the table that it lies in is about
   to grow, when the memory limit needs room, and by kv_mem_sweep. kv_mem_set takes the time to live away; compare-and-set, increment and
   update keep it; a ttl of 0 means that it lives forever. Only entries that have one pay for it (8 bytes).

   MEMORY LIMIT
   With memory_limit_bytes the map is a cache: what it has asked from its allocator stays within the
   limit, and entries go, the least recently used first (approximately: a clock with two chances, one
   for having been read since it last came by, and one for being new). An entry that would not fit into
   an empty map is KV_ERR_TOO_LARGE. Results on their way to you (the buffer of a scan, a snapshot's
   block) are not counted. Without a limit, fixed memory that is used up gives KV_ERR_NO_MEMORY, and
   the map goes on with what it has.

   WATCHES
   A watch is called before the write returns, in the order of the writes, for SET with the new value,
   and for DELETE, EXPIRE and EVICT with an empty one. kv_mem_clear is a DELETE of each entry. While
   there is a watch, writes run one at a time. The callback may read the map and may unsubscribe (also
   its own watch); a write to the same map from there is KV_ERR_INVALID. An expired entry counts as
   changed when it is reclaimed, not before.

   SNAPSHOTS
   kv_mem_save writes each entry as it was at some moment during the call, with the time that it has
   left. The file replaces an older one in one step, after it was synced. kv_mem_load checks every byte
   first and then merges. The format stands at >>snapshot.

   MEMORY
   An entry costs its key and value, a header of 4 bytes (8 from a value of 4 KiB on), 8 bytes if it can
   expire, 3.5 bytes of rounding, and 7 to 14 bytes of table; some 20 in all (measured figures: README).
   Freed records are used again, and chunks that are mostly holes are emptied into others. Memory goes
   back to the allocator when a large value is freed, at kv_mem_close, and at kv_mem_clear with
   single_thread or a limit; a map that optimistic readers may be inside of keeps the address space until
   it is closed (after a clear its pages are handed back to the system where the allocator is malloc).

   LIMITS
   32 GiB of records a shard (values over 32 KiB do not count). Keys and values as in kv.h. */

/* ------------------------------------------------------------------------------------------------
   >>public   the interface                                                                        */
#if defined(KV_IMPLEMENTATION) && !defined(KV_MEM_IMPLEMENTATION)
#define KV_MEM_IMPLEMENTATION
#endif
#if defined(KV_MEM_IMPLEMENTATION) && !defined(KV_SIMD_IMPLEMENTATION)
#define KV_SIMD_IMPLEMENTATION
#define KVI_SIMD_IMPLIED 1
#endif
#include "kv_simd.h"
#if KV_VERSION < 100
#error "kv_mem.h 0.1 needs kv.h 0.1 or newer: copy both headers from the same release"
#endif

#ifndef KV_MEM_INCLUDED
#define KV_MEM_INCLUDED 1

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kv_mem   kv_mem;
typedef struct kv_watch kv_watch;

typedef struct kv_mem_options {
    kv_allocator allocator;         /* {0}: malloc */
    size_t   capacity;              /* entries to make room for at once; default: starts small and grows */
    uint32_t shards;                /* default: 8 for each CPU, fewer in a small kv_arena or under a small limit, 1 with single_thread; rounded up to a power of two, at most 4096 */
    uint64_t seed;                  /* of the hash, which is then kv_hash; default: random, so that nobody can choose colliding keys */
    uint64_t memory_limit_bytes;    /* default: none; all of its memory counts; over it, the entries least recently used go first */
    uint64_t (*now_ms)(void *user); /* default: the monotonic clock; must not go back, must not call the map */
    void    *now_user;
    bool     single_thread;         /* no locking at all */
    const kv_io *io;                /* files of kv_mem_save and kv_mem_load; default: this system's */
} kv_mem_options;

typedef struct kv_mem_stats_t {
    uint64_t entries;               /* as kv_mem_count */
    uint64_t capacity;              /* entries that the table has room for before it grows, about */
    uint64_t key_bytes, value_bytes;/* of all entries */
    uint64_t hits, misses;          /* of get, batch_get, view and peek. Exact with up to 64 threads */
    uint64_t expired, evicted;      /* entries that went by themselves */
    uint64_t rehashes;              /* shards that were hashed anew under another seed because keys collided */
    uint64_t memory_bytes;          /* all that was asked from the allocator and not given back; the sum of the parts below */
    uint64_t table_bytes;           /* buckets and directories */
    uint64_t record_bytes;          /* keys and values with their headers, rounded */
    uint64_t large_bytes;           /* values over 32 KiB */
    uint64_t free_bytes;            /* ready to be used again, or not yet used */
    uint64_t fixed_bytes;           /* the object itself and its shards */
    uint32_t shards;
} kv_mem_stats_t;

/* Open an empty map; options NULL: the defaults. KV_ERR_NO_MEMORY; KV_ERR_NO_SPACE where the limit is too small for the object itself; KV_ERR_UNSUPPORTED: see OPTIONS.
   *m is NULL on failure. */
KV_API kv_status kv_mem_open(const kv_mem_options *options, kv_mem **m);
KV_API void      kv_mem_close(kv_mem *m);               /* with all watches; no other thread may be inside. NULL is fine */
KV_API kv_store *kv_mem_store(kv_mem *m);               /* the map behind the common handle; lives as long as the map */

/* All calls: KV_ERR_INVALID for a NULL handle or result pointer, KV_ERR_TOO_LARGE and KV_ERR_INVALID as
   kv_check_key and kv_check_value find. All writes besides: KV_ERR_NO_MEMORY; KV_ERR_TOO_LARGE for what
   can never fit under the memory limit; the map is then as it was. Cost: O(1), two cache lines. */

/* Copy the value of `key` into `value`; its old bytes are left alone otherwise. KV_OK, KV_NOT_FOUND. */
KV_API kv_status kv_mem_get(kv_mem *m, kv_slice key, kv_buf *value);
KV_API kv_status kv_mem_set(kv_mem *m, kv_slice key, kv_slice value);       /* insert or replace; takes a time to live away */
KV_API kv_status kv_mem_delete(kv_mem *m, kv_slice key);                    /* KV_OK also where it was missing */
KV_API kv_status kv_mem_exists(kv_mem *m, kv_slice key);                    /* KV_OK, KV_NOT_FOUND */
KV_API kv_status kv_mem_view(kv_mem *m, kv_slice key, kv_visit_fn visit, void *user);   /* visit is called once, or KV_NOT_FOUND */

/* Many at once: table and records are fetched ahead, which about doubles the speed of a large map.
   batch_get fills statuses (may be NULL) with KV_OK or KV_NOT_FOUND and returns KV_OK, or the first failure.
   batch_set and batch_delete go in order and stop at the first failure; what came before stays. */
KV_API kv_status kv_mem_batch_get(kv_mem *m, const kv_slice *keys, size_t count, kv_buf *values, kv_status *statuses);
KV_API kv_status kv_mem_batch_set(kv_mem *m, const kv_pair *pairs, size_t count);
KV_API kv_status kv_mem_batch_delete(kv_mem *m, const kv_slice *keys, size_t count);

/* Visit every entry of the range (NULL: all), in no order; prefix, from, to and limit filter, reverse
   means nothing here. See CALLBACKS. KV_ERR_NO_MEMORY: it could not buffer; some were visited. */
KV_API kv_status kv_mem_scan(kv_mem *m, const kv_range *range, kv_visit_fn visit, void *user);

/* Where the value lies, with no copy. Valid until the next write.
   Threads: single_thread, or while nobody writes. KV_OK, KV_NOT_FOUND. */
KV_API kv_status kv_mem_peek(kv_mem *m, kv_slice key, kv_slice *value);

KV_API kv_status kv_mem_insert(kv_mem *m, kv_slice key, kv_slice value);    /* KV_EXISTS where it is there; nothing changes then */

/* Replace the value if it is `expected`. KV_OK, KV_ERR_CONFLICT (it is another), KV_NOT_FOUND. Keeps the time to live. */
KV_API kv_status kv_mem_compare_and_set(kv_mem *m, kv_slice key, kv_slice expected, kv_slice value);

/* Add to a typed int64 (see kv_set_int64); a missing key counts as 0. Keeps the time to live.
   result    the new value; may be NULL.
   Returns   KV_OK; KV_ERR_WRONG_TYPE where the value is no int64; KV_ERR_INVALID where the sum does not
             fit an int64. Nothing changes on a failure. */
KV_API kv_status kv_mem_increment(kv_mem *m, kv_slice key, int64_t delta, int64_t *result);

/* Read, modify, write, as one step for this key. fn gets the old value (found is false: there is none) and
   an empty buffer; KV_OK stores the buffer, KV_NOT_FOUND deletes the entry (the call returns KV_OK, also
   where there was none), a negative status changes nothing and is returned, and another one is
   KV_ERR_INVALID. fn runs with the shard locked and must not call the map;
   under a memory limit it may run again when room had to be made in between. Keeps the time to live. */
typedef kv_status (*kv_update_fn)(void *user, bool found, kv_slice old, kv_buf *value);
KV_API kv_status kv_mem_update(kv_mem *m, kv_slice key, kv_update_fn fn, void *user);

/* Time to live, in milliseconds; see TIME TO LIVE. 0 lives forever. Times saturate: what is left of the
   longest is UINT64_MAX less the time that it is. */
KV_API kv_status kv_mem_set_ttl(kv_mem *m, kv_slice key, kv_slice value, uint64_t ttl_ms);
KV_API kv_status kv_mem_expire(kv_mem *m, kv_slice key, uint64_t ttl_ms);   /* from now on; KV_NOT_FOUND */
KV_API kv_status kv_mem_ttl(kv_mem *m, kv_slice key, uint64_t *ttl_ms);     /* what is left; UINT64_MAX: lives forever. KV_NOT_FOUND */
KV_API size_t    kv_mem_sweep(kv_mem *m, size_t entries_max);               /* frees expired entries, at most so many; how many. Cheap where nothing is due */

typedef enum kv_event { KV_EVENT_SET = 1, KV_EVENT_DELETE = 2, KV_EVENT_EXPIRE = 3, KV_EVENT_EVICT = 4 } kv_event;
typedef void (*kv_watch_fn)(void *user, kv_event event, kv_slice key, kv_slice value);

/* Call fn for every change of a key that begins with prefix (empty: every key). See WATCHES. Deleting a
   missing key is no event. KV_OK, KV_ERR_NO_MEMORY, KV_ERR_INVALID (a prefix over the limit of keys);
   KV_ERR_UNSUPPORTED: see OPTIONS. prefix is copied. */
KV_API kv_status kv_mem_subscribe(kv_mem *m, kv_slice prefix, kv_watch_fn fn, void *user, kv_watch **w);
/* fn is not running and will not run after this returns; from inside fn itself: will not be called again. NULL is fine. */
KV_API void      kv_mem_unsubscribe(kv_watch *w);

/* Entries, without those that expired. Cost: O(shards); O(table) where some have expired and are still there. */
KV_API uint64_t  kv_mem_count(kv_mem *m);
KV_API void      kv_mem_clear(kv_mem *m);

/* Write a snapshot, which appears at `path` whole or not at all ("path.tmp" is used on the way).
   KV_ERR_IO, KV_ERR_NO_SPACE, KV_ERR_NO_MEMORY; KV_ERR_UNSUPPORTED where there are no files. */
KV_API kv_status kv_mem_save(kv_mem *m, const char *path);

/* Merge a snapshot into the map: what it holds wins. Writers wait meanwhile. KV_NOT_FOUND: no such file;
   KV_ERR_CORRUPT, KV_ERR_VERSION, KV_ERR_IO, KV_ERR_NO_MEMORY: the map is as it was. Under a memory limit entries
   are evicted as by writes, and a file that changes between its check and its reading may be there in part. */
KV_API kv_status kv_mem_load(kv_mem *m, const char *path);

KV_API kv_status kv_mem_stats(kv_mem *m, kv_mem_stats_t *stats);            /* KV_OK */

#ifdef __cplusplus
}
#endif
#endif /* KV_MEM_INCLUDED */

#if defined(KV_MEM_IMPLEMENTATION) && !defined(KV_MEM_IMPLEMENTED)
#define KV_MEM_IMPLEMENTED 1

/* ------------------------------------------------------------------------------------------------
   Three walks through it.

   A get hashes the key. The top bits of the hash choose a shard, the next ones an entry of the shard's
   directory, which points to a segment of 64 buckets; bits 8 to 13 choose the bucket, a cache line, and
   the low byte is the tag that is compared with the bucket's twelve. Where one agrees, the 32-bit
   reference beside it leads to the record, where the key is compared and the value copied. If nothing
   agrees, and entries had to move on from this bucket for want of room (its overflow count), the next
   bucket is searched.

   Where the first agreeing tag of the home bucket is right, or none agrees and none went past, that is seen in
   a few dozen instructions (kvi_mem_glance_at); gets, sets and deletes of small entries try this short way first,
   and go the long one, with all its cases, where it does not lead to an answer.

   A set looks without a lock, so that it waits for memory outside of it, then locks the shard, and goes on if the
   sequence number is still the same; the long way locks first. A new record is written where no reader can
   reach it; then the sequence number turns odd, reference and tag are stored, and it turns even again. Where
   the entry would lie more than three buckets from home, the segment is split in two first.

   An expired entry is missing to everyone who looks at its expiry. Its memory is found by the bits that
   each bucket keeps of which of its entries can expire: a segment that is about to be split looks there
   first, kv_mem_sweep goes through the table, and neither touches a record that lives forever.

   ------------------------------------------------------------------------------------------------
   >>config   sizes                                                                                */

#if defined(KVI_MEM_IMPLIED)
#define KVI_MEM_DEFINE KVI_DEFINE_WEAK
#else
#define KVI_MEM_DEFINE KVI_DEFINE
#endif

/* What was not left out. */
#ifdef KV_MEM_NO_SAVE
#define KVI_MEM_SAVE 0
#else
#define KVI_MEM_SAVE 1
#endif
#ifdef KV_MEM_NO_WATCH
#define KVI_MEM_WATCH 0
#else
#define KVI_MEM_WATCH 1
#endif
#ifdef KV_MEM_NO_TTL
#define KVI_MEM_TTL 0
#else
#define KVI_MEM_TTL 1
#endif
#ifdef KV_MEM_NO_LIMIT
#define KVI_MEM_LIMIT 0
#else
#define KVI_MEM_LIMIT 1
#endif

/* Everything that a function calls becomes part of it, the hash too. */
#if defined(__GNUC__) || defined(__clang__)
#define KVI_MEM_FLATTEN __attribute__((flatten))
#else
#define KVI_MEM_FLATTEN
#endif

/* Short keys are hashed and compared in vectors: see >>hash. */
#if KVI_X86 && !KVI_SMALL
#define KVI_MEM_LANES          1
#define KVI_MEM_LANES_MIN      (KVI_X86 >= 3 ? 1u : 16u)    /* bytes */
#define KVI_MEM_LANES_MAX      128u
#else
#define KVI_MEM_LANES          0
#endif

#define KVI_MEM_SLOTS          12u          /* entries of a bucket */
#define KVI_MEM_ALL_SLOTS      0xFFFu
#define KVI_MEM_SEGMENT        (KVI_SMALL ? 16u : 64u)  /* buckets of a full-grown segment */
#define KVI_MEM_PROBE_MAX      3u           /* buckets from home before a segment is split: at 79 % of its slots, on average */
#define KVI_MEM_DEPTH_MAX      24u          /* bits of a directory */
#define KVI_MEM_GRANULE        8u           /* bytes; records begin at multiples of it */
#define KVI_MEM_BLOCK_MIN      2u           /* granules: a free block holds four words */
#define KVI_MEM_OFFSET_BITS    15u          /* of a reference: granules of a chunk. The rest is the chunk's number */
#define KVI_MEM_CHUNK_LOG2_MIN 9u           /* 512 bytes */
#define KVI_MEM_CHUNK_LOG2_MAX 18u          /* 256 KiB = 2^15 granules */
#define KVI_MEM_CHUNKS_MAX     ((1u << (32 - KVI_MEM_OFFSET_BITS)) - 1)
#define KVI_MEM_NOWHERE        0xFFFFFFFFu  /* no reference */
#define KVI_MEM_INLINE_MAX     32768u       /* bytes; larger values have a block of their own */
#define KVI_MEM_EXACT          32u          /* granules up to which each block size has its own list of free blocks */
#define KVI_MEM_LISTS          55u
#define KVI_MEM_LIST_STEPS     8u           /* blocks looked at in a list of unlike sizes */
#define KVI_MEM_PIECE_LOG2_MIN 6u           /* the pool hands out 64 bytes ... */
#define KVI_MEM_PIECE_LOG2_MAX KVI_MEM_CHUNK_LOG2_MAX
#define KVI_MEM_PIECE_LISTS    (KVI_MEM_PIECE_LOG2_MAX + 1u)
#define KVI_MEM_LINE           64u
#define KVI_MEM_REGION_MIN     1024u        /* bytes */
#define KVI_MEM_SHARDS_MAX     4096u
#define KVI_MEM_STRIPES        64u          /* counters of hits and misses, one for each thread */
#define KVI_MEM_TRIES          16u          /* optimistic reads before a reader takes the lock */
#define KVI_MEM_TEMP           1536u        /* bytes: larger values are copied under the lock */
#define KVI_MEM_BATCH          64u          /* keys that are fetched ahead together */
#define KVI_MEM_AHEAD          16u          /* keys from one step of it to the next */
#define KVI_MEM_AIM            8u           /* the same with one thread */
#define KVI_MEM_MIN(a, b)      ((a) < (b) ? (a) : (b))
#define KVI_MEM_COMPACT_CHUNKS 4u           /* that one write empties at most, */
#define KVI_MEM_COMPACT_MOVES  8192u        /* and granules after which it begins no further one */
#define KVI_MEM_CLOCK_SLOTS    256u         /* entries that one eviction looks at */
#define KVI_MEM_EVICT_TRIES    16u          /* evictions in its own shard before a write looks for room elsewhere */
#define KVI_MEM_SCAN_AHEAD     768u         /* bytes that a scan with one thread fetches ahead */
#define KVI_MEM_SCAN_BYTES     65536u       /* buffer of a scan, aimed at */

/* ------------------------------------------------------------------------------------------------
   >>structs   what lies where

   bucket (64 bytes)   | 12 tags | state | 12 references |
       tag             0: the slot is empty; else the low byte of the hash (1 for 0)
       state           bits 0-7    overflow: how many entries went past this bucket for want of room,
                                   255: that many or more, which stays until the segment is rebuilt
                       bits 8-19   with a memory limit: the slot's entry was read since the clock came by
                       bits 8-15   without one: which entries went past, by three bits of their hash
                                   (kvi_mem_past): what has none of its kind there need not be searched further
                       bits 20-31  the slot's entry can expire

   record (8-aligned)  | head | [value size] | [expiry, 8 bytes] | key | value, or a pointer to it |
       head            bits 0-15   key size
                       bit 16      has an expiry       bit 17   the value lies in a block of its own
                       bit 18      a free block        bit 19   new: the clock has not come by yet
                       bits 20-31  value size; 0xFFF: it stands in the next word
   free block          | head | granules | next | previous (of the first in its list: nothing) |

   directory           2^depth pointers; a segment of less depth is pointed to by a run of them.
                       A shard with few entries has one segment of 1 to 32 buckets (mask + 1).
   chunk               records and free blocks, without gaps, up to `used`; at most 256 KiB.
   pool                what buckets and chunks are made of: pieces of 2^n bytes, cut from regions.

   Invariant M1: a reader follows a reference, or believes a size, only after it saw the sequence number
                 unchanged since before it loaded it. So what it follows was true at that moment.
   Invariant M2: in an optimistic map memory that was ever reachable stays mapped until kv_mem_close:
                 pieces go back to the pool, never to the allocator; directories and chunk tables that
                 were replaced are kept (their sizes double, so they sum up to less than the newest one).
                 A reader that comes late reads stale bytes, sees the sequence changed, and throws them away.
   Invariant M3: everything in pieces that a reader might be looking at is written through atomics or
                 kvi_shared_in.                                                                    */

typedef struct kvi_mem_bucket {
    uint8_t  tags[KVI_MEM_SLOTS];
    uint32_t state;
    uint32_t refs[KVI_MEM_SLOTS];
} kvi_mem_bucket;

#define KVI_MEM_STATE_OVERFLOW 0xFFu
#define KVI_MEM_STATE_PAST     0xFF00u
#define KVI_MEM_STATE_READ(slot)    (UINT32_C(1) << (8u + (slot)))
#define KVI_MEM_STATE_EXPIRES(slot) (KVI_MEM_TTL ? UINT32_C(1) << (20u + (slot)) : 0u)

#define KVI_MEM_HEAD_KEY     0xFFFFu
#define KVI_MEM_HEAD_EXPIRES (KVI_MEM_TTL ? 0x10000u : 0u)
#define KVI_MEM_HEAD_LARGE   0x20000u
#define KVI_MEM_HEAD_FREE    0x40000u
#define KVI_MEM_HEAD_NEW     0x80000u
#define KVI_MEM_HEAD_LONG    0xFFFu         /* in the bits of the value size */

typedef struct kvi_mem_directory {
    struct kvi_mem_directory *retired;      /* the one that this one replaced */
    size_t   bytes;
    uint32_t depth;
    uint32_t mask;                          /* buckets of a segment - 1 */
    uint32_t shift, lines;                  /* the way from a hash to its home bucket: see kvi_mem_bucket_of */
    size_t   last;                          /* 2^depth - 1 */
} kvi_mem_directory;                        /* and then the pointers */

typedef struct kvi_mem_chunk { uint16_t used, live; uint8_t size_log2, unused[3]; } kvi_mem_chunk;   /* granules; size_log2 0: no chunk has this number */

typedef struct kvi_mem_chunks {             /* the chunk table */
    struct kvi_mem_chunks *retired;
    size_t   bytes;
    uint32_t capacity, unused;
} kvi_mem_chunks;                           /* and then the pointers, and then the kvi_mem_chunk of each */

typedef struct kvi_mem_large {              /* a value over KVI_MEM_INLINE_MAX; never changed, shared with those who are reading it */
    uint32_t holders, unused;
    size_t   size;
} kvi_mem_large;                            /* and then the bytes, 16-aligned on machines of 64 bits */

typedef struct kvi_mem_shard {
    /* where things are: rarely written */
    kvi_pointer directory;                  /* kvi_mem_directory */
    kvi_pointer chunks;                     /* kvi_mem_chunks */
    KVI_ALIGN_64 uint64_t seed;           /* its own, if reseeded */
    uint32_t    reseeded;
    uint32_t    scanners;                   /* scans inside; they keep it from being reseeded */
    uint8_t     gap[KVI_MEM_LINE - 2 * 8 - 2 * sizeof(kvi_pointer)];
    /* written by every writer, and so in a line of its own */
    uint32_t    lock, sequence;
    /* under the lock */
    size_t      count, expiring;            /* entries; those that can expire */
    uint64_t    key_bytes, value_bytes;
    uint64_t    next_expiry;                /* no entry expires before */
    uint64_t    sweep_at, sweep_next;       /* where a sweep goes on, and the first expiry that it left behind */
    uint64_t    clock_at;                   /* where the clock stands: a position, a bucket there, a slot in it */
    uint32_t    clock_bucket, clock_slot;
    uint32_t    bump;                       /* number of the chunk that new records come from, or KVI_MEM_NOWHERE */
    uint32_t    chunk_count;                /* numbers in use, with holes */
    uint32_t    segment_count;
    size_t      chunk_bytes, live_granules, free_granules;   /* free: in free blocks */
    size_t      large_bytes;
    size_t      reseed_at;                  /* entries that it must have before it may be reseeded */
    uint64_t    expired, evicted, rehashes;
    uint64_t    list_map;                   /* bit i: list i is not empty */
    uint32_t    lists[KVI_MEM_LISTS];
} kvi_mem_shard;

typedef struct kvi_mem_region { struct kvi_mem_region *next; size_t bytes; } kvi_mem_region;

typedef struct kvi_mem_pool {
    uint32_t        lock;
    uint8_t        *cursor, *end;           /* what is left of the newest region */
    kvi_mem_region *regions;
    size_t          region_bytes;
    void           *pieces[KVI_MEM_PIECE_LISTS];   /* free ones; each begins with a pointer to the next */
} kvi_mem_pool;

typedef struct kvi_mem_stripe { KVI_ALIGN_64 uint64_t hits, misses; uint8_t gap[KVI_MEM_LINE - 16]; } kvi_mem_stripe;

struct kv_watch {
    kv_mem      *m;
    kv_watch    *next;
    kv_watch_fn  fn;
    void        *user;
    size_t       prefix_size;               /* the bytes lie behind */
    bool         dead;                      /* unsubscribed while watches were being called */
};

struct kv_mem {
    kv_store        store;
    kv_allocator    allocator;
    const kv_io    *io;
    uint64_t      (*now_ms)(void *user);
    void           *now_user;
    uint64_t        seed;
#if KVI_MEM_LANES
    size_t          brief;                  /* direct, and lanes: so many sizes of keys, from KVI_MEM_LANES_MIN on, take the shortest way of all; else 0 */
    bool            lanes;                  /* hashes short keys by kvi_mem_lanes_hash, under these secrets */
    uint64_t        secrets[16];
#endif
    size_t          limit;                  /* bytes; SIZE_MAX: none */
    uint32_t        shard_bits, shard_count;
    uint32_t        shard_shift;            /* 63 - shard_bits */
    bool            concurrent;             /* else: one thread */
    bool            limited;                /* has a memory limit; pieces come from the allocator and go back to it */
    bool            optimistic;             /* concurrent and not limited: readers take no lock */
    bool            direct;                 /* neither concurrent nor limited */
    bool            loading;                /* nothing may move or vanish: see kvi_mem_load_begin */
    kvi_mem_shard  *shards;
    kvi_mem_stripe *stripes;
    uint32_t        stripe_mask;
    void           *base;                   /* the memory of shards and stripes */
    size_t          base_bytes;
    size_t          memory_bytes;           /* asked from the allocator, all in all */
    kvi_mem_pool    pool;
    uint32_t        busy;                   /* single thread: callbacks that are looking into records */
    uint32_t        sweep_shard, evict_shard;
    kv_watch       *watches;
    uint32_t        watch_count;
    uint32_t        watch_owner;            /* the thread that is calling watches */
    bool            watch_dead;
    kv_buf          pending;                /* events that wait until no shard is locked; see kvi_mem_pend */
    kvi_mutex       watch_mutex;            /* held around a write and its watches */
    kvi_mutex       save_mutex;             /* one save at a time */
    kvi_error       error;
};

/* What kind of map it is; what this program has no code for is known at compile time. */
KVI_INLINE bool kvi_mem_concurrent(const kv_mem *m) { return KVI_THREADS && m->concurrent; }
KVI_INLINE bool kvi_mem_limited(const kv_mem *m) { return KVI_MEM_LIMIT && m->limited; }
KVI_INLINE bool kvi_mem_optimistic(const kv_mem *m) { return KVI_THREADS && m->optimistic; }
KVI_INLINE bool kvi_mem_direct(const kv_mem *m) { return m->direct; }

/* Which thread this is: 1, 2, 3... in the order in which they come. */
#if KVI_THREADS
static __thread uint32_t kvi_mem_thread;
static uint32_t kvi_mem_threads;
KVI_INLINE uint32_t kvi_mem_thread_number(void)
{
    if (KVI_UNLIKELY(!kvi_mem_thread)) kvi_mem_thread = kvi_add_u32(&kvi_mem_threads, 1) + 1;
    return kvi_mem_thread;
}
#else
KVI_INLINE uint32_t kvi_mem_thread_number(void) { return 1; }
#endif

KVI_INLINE size_t kvi_mem_expiring(const kvi_mem_shard *s) { return KVI_MEM_TTL ? kvi_peek_size(&s->expiring) : 0; }
KVI_INLINE kvi_pointer *kvi_mem_segments(const kvi_mem_directory *d) { return (kvi_pointer *)(void *)((uint8_t *)(uintptr_t)d + sizeof *d); }
KVI_INLINE kvi_pointer *kvi_mem_chunk_pointers(const kvi_mem_chunks *c) { return (kvi_pointer *)(void *)((uint8_t *)(uintptr_t)c + sizeof *c); }
KVI_INLINE kvi_mem_chunk *kvi_mem_chunk_infos(const kvi_mem_chunks *c)
{
    return (kvi_mem_chunk *)(void *)((uint8_t *)(uintptr_t)c + sizeof *c + c->capacity * sizeof(kvi_pointer));
}
KVI_INLINE kvi_mem_chunk *kvi_mem_chunk_info(const kvi_mem_shard *s, uint32_t chunk) { return kvi_mem_chunk_infos((const kvi_mem_chunks *)s->chunks) + chunk; }
KVI_INLINE uint8_t *kvi_mem_large_bytes(const kvi_mem_large *large) { return (uint8_t *)(uintptr_t)large + sizeof *large; }

/* Where in its shard a hash lies: its bits below those that chose the shard, left-aligned. The
   directory is indexed by the top ones. */
KVI_INLINE uint64_t kvi_mem_position(const kv_mem *m, uint64_t hash) { return hash << m->shard_bits; }
KVI_INLINE size_t kvi_mem_directory_index(const kvi_mem_directory *d, uint64_t position) { return (size_t)(position >> 1 >> (63 - d->depth)); }
KVI_INLINE kvi_mem_shard *kvi_mem_shard_of(const kv_mem *m, uint64_t hash)
{
    if (!m->shard_bits) return m->shards;           /* so that what lies there need not wait for the hash */
    return m->shards + (hash >> 1 >> m->shard_shift);
}
KVI_INLINE uint8_t kvi_mem_tag(uint64_t hash) { return (uint8_t)((uint8_t)hash + !(uint8_t)hash); }
KVI_INLINE uint32_t kvi_mem_past(uint64_t hash) { return 0x100u << (hash >> 14 & 7); }
KVI_INLINE uint32_t kvi_mem_home(uint64_t hash) { return (uint32_t)(hash >> 8) & (KVI_MEM_SEGMENT - 1); }
/* The home bucket of a hash in one step: of the segment that kvi_mem_directory_index names, the bucket that kvi_mem_home does. */
KVI_INLINE kvi_mem_bucket *kvi_mem_bucket_of(const kvi_mem_directory *d, uint64_t hash)
{
    size_t index = (size_t)(hash >> d->shift) & d->last;
    return (kvi_mem_bucket *)(void *)((uint8_t *)kvi_load_ptr(kvi_mem_segments(d) + index) + ((uint32_t)(hash >> 2) & d->lines));
}

/* Others may be reading at the same time, and set bits of it. */
KVI_INLINE uint32_t kvi_mem_state(const kvi_mem_bucket *b) { return kvi_peek_u32(&b->state); }

/* Slots of b whose tag is `tag`, as bits. */
KVI_INLINE uint32_t kvi_mem_match(const kvi_mem_bucket *b, uint8_t tag)
{
#if KVI_TSAN
    uint64_t words[2];
    words[0] = kvi_peek_u64((const uint64_t *)(const void *)b);
    words[1] = kvi_peek_u64((const uint64_t *)(const void *)b + 1);
    return kvi_eq16((const uint8_t *)words, tag) & KVI_MEM_ALL_SLOTS;
#elif KVI_SMALL && !KVI_X86
    uint32_t bits = 0;
    for (uint32_t slot = KVI_MEM_SLOTS; slot--;) bits = bits << 1 | (b->tags[slot] == tag);
    return bits;
#else
    return kvi_eq16((const uint8_t *)(const void *)b, tag) & KVI_MEM_ALL_SLOTS;
#endif
}

/* ------------------------------------------------------------------------------------------------
   >>locks   the lock of a shard, and its sequence number

   The lock is for many readers or one writer: bits 0-29 count readers, the top bit is a writer inside,
   the bit below it a writer that waits, which keeps new readers out. Optimistic readers do not look at
   it. A writer turns the sequence odd around each change that they could see.                     */

#define KVI_MEM_LOCK_WRITER  0x80000000u
#define KVI_MEM_LOCK_WAITING 0x40000000u

KVI_INLINE void kvi_mem_wait(uint32_t *turns) { if (++*turns < 64) kvi_pause(); else kvi_yield(); }

KVI_INLINE void kvi_mem_lock(const kv_mem *m, kvi_mem_shard *s)
{
    uint32_t turns = 0;
    if (!kvi_mem_concurrent(m) || kvi_cas_u32(&s->lock, 0, KVI_MEM_LOCK_WRITER)) return;
    for (;;) {
        uint32_t now = kvi_peek_u32(&s->lock);
        if (!(now & ~KVI_MEM_LOCK_WAITING)) { if (kvi_cas_u32(&s->lock, now, KVI_MEM_LOCK_WRITER)) return; }
        else if (!(now & KVI_MEM_LOCK_WAITING)) (void)kvi_or_u32(&s->lock, KVI_MEM_LOCK_WAITING);
        kvi_mem_wait(&turns);
    }
}
/* A plain store: while a writer is inside there are no readers, and who waits says so again. */
KVI_INLINE void kvi_mem_unlock(const kv_mem *m, kvi_mem_shard *s) { if (kvi_mem_concurrent(m)) kvi_store_u32(&s->lock, 0); }

KVI_INLINE void kvi_mem_read_lock(const kv_mem *m, kvi_mem_shard *s)
{
    uint32_t turns = 0;
    if (!kvi_mem_concurrent(m)) return;
    for (;;) {
        uint32_t now = kvi_peek_u32(&s->lock);
        if (!(now & (KVI_MEM_LOCK_WRITER | KVI_MEM_LOCK_WAITING)) && kvi_cas_u32(&s->lock, now, now + 1)) return;
        kvi_mem_wait(&turns);
    }
}
KVI_INLINE void kvi_mem_read_unlock(const kv_mem *m, kvi_mem_shard *s) { if (kvi_mem_concurrent(m)) (void)kvi_sub_u32(&s->lock, 1); }

KVI_INLINE void kvi_mem_begin(const kv_mem *m, kvi_mem_shard *s)     /* optimistic readers turn back from here ... */
{
    if (!kvi_mem_optimistic(m)) return;
    kvi_poke_u32(&s->sequence, s->sequence + 1);
    kvi_fence_release();
}
KVI_INLINE void kvi_mem_end(const kv_mem *m, kvi_mem_shard *s)       /* ... to here */
{
    if (kvi_mem_optimistic(m)) kvi_store_u32(&s->sequence, s->sequence + 1);
}
KVI_INLINE bool kvi_mem_unchanged(const kvi_mem_shard *s, uint32_t sequence)
{
    kvi_fence_acquire();
    return kvi_peek_u32(&s->sequence) == sequence;
}

/* Zeros over memory that a late reader may be looking at. */
KVI_INLINE void kvi_mem_zero(void *memory, size_t size)
{
#if KVI_TSAN
    for (size_t i = 0; i < size / 8; i++) kvi_poke_u64((uint64_t *)memory + i, 0);
#else
    memset(memory, 0, size);
#endif
}

/* ------------------------------------------------------------------------------------------------
   >>pool   memory: what the allocator gave, cut into pieces of 2^n bytes

   Without a limit, pieces are cut from regions that grow with the map (an eighth, later a sixteenth of
   what there is) and lie on large pages; what is given back is handed out again, halved where only
   larger pieces are there. Under a memory limit each piece is asked from the allocator by itself, so
   that it can go back there. Pieces are aligned to a cache line.                                  */

/* Ask the allocator, within the limit. */
KVI_PRIVATE bool kvi_mem_charge(kv_mem *m, size_t size)
{
    size_t before = kvi_add_size(&m->memory_bytes, size);
    if (before <= m->limit && size <= m->limit - before) return true;
    (void)kvi_sub_size(&m->memory_bytes, size);
    return false;
}
KVI_PRIVATE void *kvi_mem_alloc(kv_mem *m, size_t size)
{
    void *memory;
    if (!kvi_mem_charge(m, size)) return NULL;
    memory = kvi_alloc_huge(&m->allocator, size);
    if (!memory) (void)kvi_sub_size(&m->memory_bytes, size);
    return memory;
}
KVI_PRIVATE void kvi_mem_free(kv_mem *m, void *memory, size_t size)
{
    if (!memory) return;
    (void)kvi_sub_size(&m->memory_bytes, size);
    kvi_free_huge(&m->allocator, memory, size);
}

/* A piece of a limited map: a line more than asked for, and in the byte before it how far it was moved. */
KVI_PRIVATE void *kvi_mem_piece_alloc(kv_mem *m, uint32_t size_log2)
{
    uint8_t *raw = (uint8_t *)kvi_mem_alloc(m, ((size_t)1 << size_log2) + KVI_MEM_LINE);
    size_t   shift;
    if (!raw) return NULL;
    shift = KVI_MEM_LINE - ((uintptr_t)raw & (KVI_MEM_LINE - 1));
    raw[shift - 1] = (uint8_t)shift;
    return raw + shift;
}
KVI_PRIVATE void kvi_mem_piece_free(kv_mem *m, void *piece, uint32_t size_log2)
{
    uint8_t *p = (uint8_t *)piece;
    kvi_mem_free(m, p - p[-1], ((size_t)1 << size_log2) + KVI_MEM_LINE);
}

KVI_INLINE void kvi_mem_piece_push(kvi_mem_pool *pool, void *piece, uint32_t size_log2)
{
    kvi_poke_ptr((kvi_pointer *)piece, pool->pieces[size_log2]);    /* atomic: M3 */
    pool->pieces[size_log2] = piece;
}
KVI_INLINE void *kvi_mem_piece_pop(kvi_mem_pool *pool, uint32_t size_log2)
{
    void *piece = pool->pieces[size_log2];
    if (piece) pool->pieces[size_log2] = kvi_peek_ptr((const kvi_pointer *)piece);
    return piece;
}
/* All of start .. end, from line to line, as free pieces. */
KVI_PRIVATE void kvi_mem_piece_push_range(kvi_mem_pool *pool, uint8_t *start, uint8_t *end)
{
    while ((size_t)(end - start) >= KVI_MEM_LINE) {
        uint32_t size_log2 = kvi_highest_bit64((uint64_t)(end - start));
        if (size_log2 > KVI_MEM_PIECE_LOG2_MAX) size_log2 = KVI_MEM_PIECE_LOG2_MAX;
        kvi_mem_piece_push(pool, start, size_log2);
        start += (size_t)1 << size_log2;
    }
}

/* Another region, with room for a piece of `size` bytes at least. What is left of the one before
   becomes free pieces. */
KVI_PRIVATE bool kvi_mem_region_add(kv_mem *m, size_t size)
{
    kvi_mem_pool   *pool = &m->pool;
    size_t          least = sizeof(kvi_mem_region) + size + KVI_MEM_LINE;
    size_t          bytes = pool->region_bytes / (pool->region_bytes < 16 * KVI_HUGE_PAGE ? 8 : 16);
    kvi_mem_region *region;
    if (bytes > 32 * KVI_HUGE_PAGE) bytes = 32 * KVI_HUGE_PAGE;
    if (bytes < least) bytes = least;
    if (bytes < KVI_MEM_REGION_MIN) bytes = KVI_MEM_REGION_MIN;
    if (bytes >= KVI_HUGE_PAGE / 2 || pool->region_bytes >= 2 * KVI_HUGE_PAGE) bytes = (bytes + KVI_HUGE_PAGE - 1) / KVI_HUGE_PAGE * KVI_HUGE_PAGE;
    for (;;) {
        region = (kvi_mem_region *)kvi_mem_alloc(m, bytes);
        if (region) break;
        if (bytes == least) return false;
        bytes = bytes / 2 > least ? bytes / 2 : least;
    }
    if (pool->cursor) kvi_mem_piece_push_range(pool, pool->cursor, pool->end);
    region->next = pool->regions;
    region->bytes = bytes;
    pool->regions = region;
    pool->region_bytes += bytes;
    pool->cursor = (uint8_t *)region + sizeof *region;
    pool->cursor += (KVI_MEM_LINE - ((uintptr_t)pool->cursor & (KVI_MEM_LINE - 1))) & (KVI_MEM_LINE - 1);
    pool->end = (uint8_t *)region + bytes;
    return true;
}
KVI_INLINE void *kvi_mem_region_cut(kvi_mem_pool *pool, size_t size)
{
    uint8_t *at = pool->cursor;
    if (!at || (size_t)(pool->end - at) < size) return NULL;
    pool->cursor = at + size;
    return at;
}

/* `fresh`: also from memory that was never used. */
KVI_PRIVATE void *kvi_mem_piece_take_from(kv_mem *m, uint32_t size_log2, bool fresh)
{
    kvi_mem_pool *pool = &m->pool;
    uint32_t      larger = size_log2;
    void         *piece;
    if (kvi_mem_limited(m)) return fresh ? kvi_mem_piece_alloc(m, size_log2) : NULL;
    if (kvi_mem_concurrent(m)) kvi_spin_lock(&pool->lock);
    while (larger < KVI_MEM_PIECE_LOG2_MAX && !pool->pieces[larger]) larger++;
    piece = kvi_mem_piece_pop(pool, larger);
    if (piece) while (larger > size_log2) {                         /* keep the front half, again and again */
        larger--;
        kvi_mem_piece_push(pool, (uint8_t *)piece + ((size_t)1 << larger), larger);
    }
    if (!piece && fresh) piece = kvi_mem_region_cut(pool, (size_t)1 << size_log2);
    if (!piece && fresh && kvi_mem_region_add(m, (size_t)1 << size_log2)) piece = kvi_mem_region_cut(pool, (size_t)1 << size_log2);
    if (kvi_mem_concurrent(m)) kvi_spin_unlock(&pool->lock);
    return piece;
}
KVI_INLINE void *kvi_mem_piece_take(kv_mem *m, uint32_t size_log2) { return kvi_mem_piece_take_from(m, size_log2, true); }
KVI_PRIVATE void kvi_mem_piece_give(kv_mem *m, void *piece, uint32_t size_log2)
{
    if (kvi_mem_limited(m)) { kvi_mem_piece_free(m, piece, size_log2); return; }
    if (kvi_mem_concurrent(m)) kvi_spin_lock(&m->pool.lock);
    kvi_mem_piece_push(&m->pool, piece, size_log2);
    if (kvi_mem_concurrent(m)) kvi_spin_unlock(&m->pool.lock);
}
KVI_PRIVATE void kvi_mem_pool_drop(kv_mem *m)       /* all regions; nothing may be in them any more */
{
    kvi_mem_pool *pool = &m->pool;
    while (pool->regions) {
        kvi_mem_region *region = pool->regions;
        pool->regions = region->next;
        kvi_mem_free(m, region, region->bytes);
    }
    memset(pool, 0, sizeof *pool);
}

/* ------------------------------------------------------------------------------------------------
   >>records   blocks in chunks: allocation, reading, freeing. All under the shard's lock

   A new record takes a free block of just its size, or the next bytes of the bump chunk, or a part of
   a larger free block, or (where much is free, but in pieces) what emptying a chunk brings, or a new chunk.
   Invariant R1: from the start of a chunk up to `used` blocks follow each other, live or free.
   Invariant R2: every free block is in the list of its size; live + free + never used = all.        */

KVI_INLINE uint32_t kvi_mem_ref(uint32_t chunk, uint32_t offset) { return chunk << KVI_MEM_OFFSET_BITS | offset; }
KVI_INLINE uint32_t kvi_mem_ref_chunk(uint32_t ref) { return ref >> KVI_MEM_OFFSET_BITS; }
KVI_INLINE uint32_t kvi_mem_ref_offset(uint32_t ref) { return ref & ((1u << KVI_MEM_OFFSET_BITS) - 1); }
KVI_INLINE uint8_t *kvi_mem_at(const kvi_mem_shard *s, uint32_t ref)
{
    const kvi_mem_chunks *chunks = (const kvi_mem_chunks *)s->chunks;
    return (uint8_t *)kvi_mem_chunk_pointers(chunks)[kvi_mem_ref_chunk(ref)] + (size_t)kvi_mem_ref_offset(ref) * KVI_MEM_GRANULE;
}
KVI_INLINE uint32_t kvi_mem_word(const uint8_t *record, uint32_t index) { return kvi_peek_u32((const uint32_t *)(const void *)record + index); }
KVI_INLINE void kvi_mem_word_set(uint8_t *record, uint32_t index, uint32_t word) { kvi_poke_u32((uint32_t *)(void *)record + index, word); }

/* What a head says. */
KVI_INLINE bool     kvi_mem_head_long(uint32_t head) { return head >> 20 == KVI_MEM_HEAD_LONG; }
KVI_INLINE uint32_t kvi_mem_head_expiry_at(uint32_t head) { return kvi_mem_head_long(head) ? 8 : 4; }
KVI_INLINE uint32_t kvi_mem_head_key_at(uint32_t head) { return kvi_mem_head_expiry_at(head) + (head & KVI_MEM_HEAD_EXPIRES ? 8 : 0); }
KVI_INLINE uint32_t kvi_mem_head_make(size_t key_size, size_t value_size, bool expires)
{
    return (uint32_t)key_size | (expires ? KVI_MEM_HEAD_EXPIRES : 0) | (value_size > KVI_MEM_INLINE_MAX ? KVI_MEM_HEAD_LARGE : 0)
         | (uint32_t)(value_size < KVI_MEM_HEAD_LONG ? value_size : KVI_MEM_HEAD_LONG) << 20;
}
KVI_INLINE uint32_t kvi_mem_head_granules(uint32_t head, size_t value_size)
{
    size_t   bytes = kvi_mem_head_key_at(head) + (head & KVI_MEM_HEAD_KEY) + (head & KVI_MEM_HEAD_LARGE ? sizeof(void *) : value_size);
    uint32_t granules = (uint32_t)((bytes + KVI_MEM_GRANULE - 1) / KVI_MEM_GRANULE);
    return granules < KVI_MEM_BLOCK_MIN ? KVI_MEM_BLOCK_MIN : granules;
}
/* The same of a plain record: no expiry, and a value that is shorter than KVI_MEM_HEAD_LONG. */
KVI_INLINE uint32_t kvi_mem_plain_head(size_t key_size, size_t value_size) { return (uint32_t)key_size | (uint32_t)value_size << 20; }
KVI_INLINE uint32_t kvi_mem_plain_granules(size_t key_size, size_t value_size)
{
    uint32_t granules = (uint32_t)((4 + key_size + value_size + KVI_MEM_GRANULE - 1) / KVI_MEM_GRANULE);
    return granules < KVI_MEM_BLOCK_MIN ? KVI_MEM_BLOCK_MIN : granules;
}

/* A record, taken apart. */
typedef struct kvi_mem_record {
    uint8_t       *at;
    uint32_t       head, granules;
    size_t         key_size, value_size;
    uint8_t       *key, *inline_value;      /* inline_value: or the pointer to the large one */
    kvi_mem_large *large;
    uint64_t       expiry;                  /* 0: lives forever */
} kvi_mem_record;

KVI_INLINE kvi_mem_record kvi_mem_record_at(uint8_t *at)
{
    kvi_mem_record r;
    r.at = at;
    r.head = kvi_mem_word(at, 0);
    r.key_size = r.head & KVI_MEM_HEAD_KEY;
    r.value_size = kvi_mem_head_long(r.head) ? kvi_mem_word(at, 1) : r.head >> 20;
    r.key = at + kvi_mem_head_key_at(r.head);
    r.inline_value = r.key + r.key_size;
    r.granules = kvi_mem_head_granules(r.head, r.value_size);
    r.large = NULL;
    r.expiry = 0;
    if (r.head & KVI_MEM_HEAD_LARGE) memcpy(&r.large, r.inline_value, sizeof r.large);
    if (r.head & KVI_MEM_HEAD_EXPIRES) memcpy(&r.expiry, at + kvi_mem_head_expiry_at(r.head), sizeof r.expiry);
    return r;
}
KVI_INLINE kv_slice kvi_mem_record_key(const kvi_mem_record *r) { kv_slice s; s.data = r->key; s.size = r->key_size; return s; }
KVI_INLINE kv_slice kvi_mem_record_value(const kvi_mem_record *r)
{
    kv_slice s;
    s.data = r->large ? kvi_mem_large_bytes(r->large) : r->inline_value;
    s.size = r->value_size;
    return s;
}

/* ---- large values ---- */

KVI_PRIVATE kvi_mem_large *kvi_mem_large_new(kv_mem *m, kvi_mem_shard *s, kv_slice value)
{
    kvi_mem_large *large = (kvi_mem_large *)kvi_mem_alloc(m, sizeof *large + value.size);
    if (!large) return NULL;
    large->holders = 1;
    large->unused = 0;
    large->size = value.size;
    memcpy(kvi_mem_large_bytes(large), value.data, value.size);
    s->large_bytes += sizeof *large + value.size;
    return large;
}
KVI_INLINE void kvi_mem_large_hold(kvi_mem_large *large) { (void)kvi_add_u32(&large->holders, 1); }
KVI_PRIVATE void kvi_mem_large_release(kv_mem *m, kvi_mem_large *large)     /* by a reader; no lock needed */
{
    if (kvi_sub_u32(&large->holders, 1) == 1) kvi_mem_free(m, large, sizeof *large + large->size);
}
KVI_PRIVATE void kvi_mem_large_drop(kv_mem *m, kvi_mem_shard *s, kvi_mem_large *large)
{
    s->large_bytes -= sizeof *large + large->size;
    kvi_mem_large_release(m, large);
}

/* ---- free blocks ---- */

KVI_INLINE uint32_t kvi_mem_list_of(uint32_t granules)
{
    uint32_t high;
    if (granules <= KVI_MEM_EXACT) return granules;
    high = kvi_highest_bit32(granules);                             /* two lists for each power of two */
    return KVI_MEM_EXACT + 1 + (high - 5) * 2 + (granules >> (high - 1) & 1);
}
KVI_INLINE void kvi_mem_block_push(kvi_mem_shard *s, uint32_t ref, uint32_t granules)
{
    uint8_t *block = kvi_mem_at(s, ref);
    uint32_t list = kvi_mem_list_of(granules), next = s->lists[list];
    kvi_mem_word_set(block, 0, KVI_MEM_HEAD_FREE);
    kvi_mem_word_set(block, 1, granules);
    kvi_mem_word_set(block, 2, next);
    if (next != KVI_MEM_NOWHERE) kvi_mem_word_set(kvi_mem_at(s, next), 3, ref);
    s->lists[list] = ref;
    s->list_map |= UINT64_C(1) << list;
    s->free_granules += granules;
}
KVI_PRIVATE void kvi_mem_block_unlink(kvi_mem_shard *s, uint32_t ref)
{
    uint8_t *block = kvi_mem_at(s, ref);
    uint32_t granules = kvi_mem_word(block, 1), next = kvi_mem_word(block, 2), previous = kvi_mem_word(block, 3);
    uint32_t list = kvi_mem_list_of(granules);
    if (next != KVI_MEM_NOWHERE) kvi_mem_word_set(kvi_mem_at(s, next), 3, previous);
    if (s->lists[list] != ref) kvi_mem_word_set(kvi_mem_at(s, previous), 2, next);
    else if ((s->lists[list] = next) == KVI_MEM_NOWHERE) s->list_map &= ~(UINT64_C(1) << list);
    s->free_granules -= granules;
}
/* The first block of a list of one size. */
KVI_INLINE uint32_t kvi_mem_block_pop(kvi_mem_shard *s, uint32_t granules)
{
    uint32_t ref = s->lists[granules], next = kvi_mem_word(kvi_mem_at(s, ref), 2);
    s->lists[granules] = next;
    if (KVI_UNLIKELY(next == KVI_MEM_NOWHERE)) s->list_map &= ~(UINT64_C(1) << granules);
    s->free_granules -= granules;
    return ref;
}
/* Take a free block for `granules`: unlink it, and give back what is too much. */
KVI_PRIVATE uint32_t kvi_mem_block_use(kvi_mem_shard *s, uint32_t ref, uint32_t granules)
{
    uint32_t size = kvi_mem_word(kvi_mem_at(s, ref), 1);
    kvi_mem_block_unlink(s, ref);
    if (size > granules) kvi_mem_block_push(s, ref + granules, size - granules);
    return ref;
}
KVI_INLINE bool kvi_mem_block_fits(const kvi_mem_shard *s, uint32_t ref, uint32_t granules)
{
    uint32_t size = kvi_mem_word(kvi_mem_at(s, ref), 1);
    return size == granules || size >= granules + KVI_MEM_BLOCK_MIN;
}
/* A part of a free block that is larger, or in a list of unlike sizes. */
KVI_PRIVATE uint32_t kvi_mem_block_find(kvi_mem_shard *s, uint32_t granules)
{
    uint32_t list = kvi_mem_list_of(granules);
    uint64_t map = s->list_map >> list << list;
    for (; map; map &= map - 1) {
        uint32_t ref = s->lists[kvi_lowest_bit64(map)];
        for (uint32_t step = 0; ref != KVI_MEM_NOWHERE && step < KVI_MEM_LIST_STEPS; step++, ref = kvi_mem_word(kvi_mem_at(s, ref), 2))
            if (kvi_mem_block_fits(s, ref, granules)) return kvi_mem_block_use(s, ref, granules);
    }
    return KVI_MEM_NOWHERE;
}

/* ---- chunks ---- */

KVI_INLINE uint32_t kvi_mem_chunk_granules(const kvi_mem_chunk *c) { return 1u << (c->size_log2 - 3u); }

/* A number for a chunk: one that is not in use, or a new one, for which the table may have to grow. */
KVI_PRIVATE kv_status kvi_mem_chunk_number(kv_mem *m, kvi_mem_shard *s, uint32_t *number)
{
    kvi_mem_chunks *old = (kvi_mem_chunks *)s->chunks, *grown;
    uint32_t        capacity = old ? old->capacity : 0;
    size_t          bytes;
    for (uint32_t i = 0; i < s->chunk_count; i++) if (!kvi_mem_chunk_info(s, i)->size_log2) { *number = i; return KV_OK; }
    *number = s->chunk_count;
    if (s->chunk_count < capacity) return KV_OK;
    if (s->chunk_count >= KVI_MEM_CHUNKS_MAX) return KV_ERR_NO_MEMORY;
    capacity = capacity ? capacity * 2 : 8;
    bytes = sizeof *grown + capacity * (sizeof(kvi_pointer) + sizeof(kvi_mem_chunk));
    grown = (kvi_mem_chunks *)kvi_mem_alloc(m, bytes);
    if (!grown) return KV_ERR_NO_MEMORY;
    memset(grown, 0, bytes);
    grown->bytes = bytes;
    grown->capacity = capacity;
    if (old) {
        memcpy(kvi_mem_chunk_pointers(grown), kvi_mem_chunk_pointers(old), old->capacity * sizeof(kvi_pointer));
        memcpy(kvi_mem_chunk_infos(grown), kvi_mem_chunk_infos(old), old->capacity * sizeof(kvi_mem_chunk));
    }
    kvi_mem_begin(m, s);
    kvi_store_ptr(&s->chunks, grown);
    kvi_mem_end(m, s);
    if (kvi_mem_concurrent(m)) grown->retired = old;                        /* M2 */
    else if (old) kvi_mem_free(m, old, old->bytes);
    return KV_OK;
}

/* What is left of the bump chunk becomes a free block, and nothing is the bump chunk. */
KVI_PRIVATE void kvi_mem_bump_end(kvi_mem_shard *s)
{
    kvi_mem_chunk *c;
    uint32_t       used, rest;
    if (s->bump == KVI_MEM_NOWHERE) return;
    c = kvi_mem_chunk_info(s, s->bump);
    used = c->used;
    rest = kvi_mem_chunk_granules(c) - used;
    if (rest >= KVI_MEM_BLOCK_MIN) {
        c->used = (uint16_t)(used + rest);
        kvi_mem_block_push(s, kvi_mem_ref(s->bump, used), rest);
    }
    s->bump = KVI_MEM_NOWHERE;
}

/* A new bump chunk that has room for `granules`: an eighth of what there is, or less if that can be had from
   what was used before, or where memory is short. */
KVI_PRIVATE kv_status kvi_mem_chunk_add(kv_mem *m, kvi_mem_shard *s, uint32_t granules)
{
    uint32_t       least = kvi_highest_bit32(granules * KVI_MEM_GRANULE - 1) + 1, size_log2, number;
    void          *memory = NULL;
    kvi_mem_chunk *c;
    kv_status      status;
    if (least < KVI_MEM_CHUNK_LOG2_MIN) least = KVI_MEM_CHUNK_LOG2_MIN;
    size_log2 = s->chunk_bytes >= 8 ? kvi_highest_bit64(s->chunk_bytes / 8) : 0;
    if (size_log2 > KVI_MEM_CHUNK_LOG2_MAX) size_log2 = KVI_MEM_CHUNK_LOG2_MAX;
    if (size_log2 < least) size_log2 = least;
    status = kvi_mem_chunk_number(m, s, &number);
    if (status < 0) return status;
    for (uint32_t smaller = size_log2; smaller >= least && !memory; smaller--) {
        memory = kvi_mem_piece_take_from(m, smaller, false);
        if (memory) size_log2 = smaller;
    }
    while (!memory) {
        memory = kvi_mem_piece_take(m, size_log2);
        if (!memory && size_log2-- == least) return KV_ERR_NO_MEMORY;
    }
    kvi_mem_bump_end(s);
    kvi_store_ptr(kvi_mem_chunk_pointers((kvi_mem_chunks *)s->chunks) + number, memory);
    c = kvi_mem_chunk_info(s, number);
    c->used = c->live = 0;
    c->size_log2 = (uint8_t)size_log2;
    if (number == s->chunk_count) s->chunk_count++;
    s->chunk_bytes += (size_t)1 << size_log2;
    s->bump = number;
    return KV_OK;
}

/* A chunk in which nothing lives: take its free blocks out of the lists; start it again if it is the
   bump chunk, else give it back. */
KVI_PRIVATE void kvi_mem_chunk_empty(kv_mem *m, kvi_mem_shard *s, uint32_t number)
{
    kvi_mem_chunk *c = kvi_mem_chunk_info(s, number);
    for (uint32_t at = 0; at + KVI_MEM_BLOCK_MIN <= c->used;) {
        uint32_t ref = kvi_mem_ref(number, at);
        at += kvi_mem_word(kvi_mem_at(s, ref), 1);
        kvi_mem_block_unlink(s, ref);
    }
    c->used = 0;
    if (number == s->bump) return;
    s->chunk_bytes -= (size_t)1 << c->size_log2;
    kvi_mem_piece_give(m, kvi_mem_chunk_pointers((kvi_mem_chunks *)s->chunks)[number], c->size_log2);
    c->size_log2 = 0;
}

KVI_INLINE uint32_t kvi_mem_block_live(kvi_mem_shard *s, uint32_t ref, uint32_t granules)
{
    kvi_mem_chunk *c = kvi_mem_chunk_info(s, kvi_mem_ref_chunk(ref));
    c->live = (uint16_t)(c->live + granules);
    s->live_granules += granules;
    return ref;
}
/* A block for a record, without asking anyone for memory; KVI_MEM_NOWHERE where there is none. */
KVI_INLINE uint32_t kvi_mem_block_quick(kvi_mem_shard *s, uint32_t granules)
{
    if (granules <= KVI_MEM_EXACT && s->lists[granules] != KVI_MEM_NOWHERE) return kvi_mem_block_live(s, kvi_mem_block_pop(s, granules), granules);
    if (s->bump != KVI_MEM_NOWHERE) {
        kvi_mem_chunk *c = kvi_mem_chunk_info(s, s->bump);
        uint32_t       at = c->used;
        if (at + granules <= kvi_mem_chunk_granules(c)) {
            c->used = (uint16_t)(at + granules);
            return kvi_mem_block_live(s, kvi_mem_ref(s->bump, at), granules);
        }
    }
    return KVI_MEM_NOWHERE;
}
/* Is its chunk empty now? */
KVI_INLINE bool kvi_mem_block_drop(kvi_mem_shard *s, uint32_t ref, uint32_t granules)
{
    kvi_mem_chunk *c = kvi_mem_chunk_info(s, kvi_mem_ref_chunk(ref));
    c->live = (uint16_t)(c->live - granules);
    s->live_granules -= granules;
    kvi_mem_block_push(s, ref, granules);
    return !c->live;
}
KVI_PRIVATE void kvi_mem_block_free(kv_mem *m, kvi_mem_shard *s, uint32_t ref, uint32_t granules)
{
    if (kvi_mem_block_drop(s, ref, granules) && !m->loading) kvi_mem_chunk_empty(m, s, kvi_mem_ref_chunk(ref));
}

/* ------------------------------------------------------------------------------------------------
   >>hash   keys up to 128 bytes, hashed and compared without a branch

   What a get costs is waiting: for its bucket, and for its record. The processor waits for several gets at
   once as long as it guesses every branch right, and the length of a key is what it cannot guess. So a short
   key (on AVX-512 from 1 byte on, on AVX2 and SSE2 from 16) is the same loads, whatever its length.

   The hash (kvi_mem_lanes_hash) is NH (Black, Halevi, Krawczyk, Krovetz, Rogaway: UMAC, 1999) over 32-bit words under random
   secrets, plus the length, and then mixed. What it hashes are the vectors that the key was loaded into: they are
   as many for every key, and two keys of one length differ in them. So two keys share all 64 bits in at most 2^-32
   of all choices of secrets, whoever chose the keys. A map whose seed was given hashes by kv_hash under it
   instead, so that its table is the same on every machine; so do all maps on other processors.

   `make bench-mem` with MACHINE=haswell (AVX2) and MACHINE=x86-64 (SSE2): see README.              */

#if KVI_MEM_LANES
/* The two halves of NH's sum, and the length, as a hash. */
KVI_INLINE uint64_t kvi_mem_lanes_mix(__m128i sum, size_t size)
{
    uint64_t h;
    _mm_storel_epi64((__m128i *)(void *)&h, _mm_add_epi64(sum, _mm_unpackhi_epi64(sum, sum)));
    h += (uint64_t)size * UINT64_C(0x9E3779B185EBCA87);
    h = (h ^ h >> 37) * UINT64_C(0x165667919E3779F9);
    return h ^ h >> 32;
}
#endif
#if KVI_MEM_LANES && KVI_X86 >= 3
/* The lowest `count` bits; all of them from 64 on. count <= 128 */
KVI_INLINE __mmask64 kvi_mem_low_bits(size_t count)
{
#if defined(__BMI2__) && defined(__x86_64__)
    return _bzhi_u64(~UINT64_C(0), count);
#else
    return count < 64 ? (UINT64_C(1) << count) - 1 : ~UINT64_C(0);
#endif
}
/* Up to KVI_MEM_LANES_MAX bytes in two registers: the first 64 and the last 64 of them; of fewer than 64 both
   are all of them with zeros behind. So no line is touched that the bytes do not lie in, but for the one behind
   a short key. */
typedef struct kvi_mem_lanes { __m512i a, b; __mmask64 mask; size_t at; } kvi_mem_lanes;

KVI_INLINE kvi_mem_lanes kvi_mem_lanes_load(const void *bytes, size_t size)
{
    uintptr_t     p = (uintptr_t)bytes;         /* a number: NULL for no bytes is fine */
    kvi_mem_lanes k;
    k.at = size > 64 ? size - 64 : 0;
    k.mask = kvi_mem_low_bits(size);
    k.a = _mm512_maskz_loadu_epi8(k.mask, (const void *)p);
    k.b = _mm512_maskz_loadu_epi8(k.mask, (const void *)(p + k.at));
    return k;
}
KVI_INLINE void kvi_mem_lanes_store(uint8_t *to, const kvi_mem_lanes *k)
{
    _mm512_mask_storeu_epi8(to, k->mask, k->a);
    _mm512_mask_storeu_epi8(to + k->at, k->mask, k->b);
}
KVI_INLINE bool kvi_mem_lanes_same(const uint8_t *record_key, const kvi_mem_lanes *k)
{
    return !(_mm512_mask_cmpneq_epi8_mask(k->mask, _mm512_maskz_loadu_epi8(k->mask, record_key), k->a)
           | _mm512_mask_cmpneq_epi8_mask(k->mask, _mm512_maskz_loadu_epi8(k->mask, record_key + k->at), k->b));
}
KVI_INLINE uint64_t kvi_mem_lanes_hash(const uint64_t *secrets, const kvi_mem_lanes *k, size_t size)
{
    __m512i a = _mm512_add_epi32(k->a, _mm512_loadu_si512(secrets)), b = _mm512_add_epi32(k->b, _mm512_loadu_si512(secrets + 8));
    __m256i half;
    a = _mm512_maskz_mul_epu32(0xFF, a, _mm512_maskz_srli_epi64(0xFF, a, 32));
    b = _mm512_maskz_mul_epu32(0xFF, b, _mm512_maskz_srli_epi64(0xFF, b, 32));
    a = _mm512_add_epi64(a, b);
    half = _mm256_add_epi64(_mm512_maskz_extracti64x4_epi64(0xFF, a, 0), _mm512_maskz_extracti64x4_epi64(0xFF, a, 1));
    return kvi_mem_lanes_mix(_mm_add_epi64(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)), size);
}
#elif KVI_MEM_LANES
/* 16 to KVI_MEM_LANES_MAX bytes as 8 blocks of 16, each at its place, or at the end where its place is beyond it;
   two of them in a vector with AVX2. */
#if KVI_X86 >= 2
#define KVI_MEM_BLOCKS 4u
typedef __m256i kvi_mem_block;
#else
#define KVI_MEM_BLOCKS 8u
typedef __m128i kvi_mem_block;
#endif
typedef struct kvi_mem_lanes { kvi_mem_block blocks[KVI_MEM_BLOCKS]; size_t last; } kvi_mem_lanes;   /* last: where the last 16 bytes begin */

KVI_INLINE size_t kvi_mem_block_place(size_t number, size_t last) { return 16 * number < last ? 16 * number : last; }
#if KVI_X86 >= 2
KVI_INLINE kvi_mem_block kvi_mem_block_load(const uint8_t *from, size_t i, size_t last)
{
    __m128i low = _mm_loadu_si128((const __m128i *)(const void *)(from + kvi_mem_block_place(2 * i, last)));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), _mm_loadu_si128((const __m128i *)(const void *)(from + kvi_mem_block_place(2 * i + 1, last))), 1);
}
KVI_INLINE void kvi_mem_block_store(uint8_t *to, size_t i, size_t last, kvi_mem_block b)
{
    _mm_storeu_si128((__m128i *)(void *)(to + kvi_mem_block_place(2 * i, last)), _mm256_castsi256_si128(b));
    _mm_storeu_si128((__m128i *)(void *)(to + kvi_mem_block_place(2 * i + 1, last)), _mm256_extracti128_si256(b, 1));
}
KVI_INLINE kvi_mem_block kvi_mem_block_differ(kvi_mem_block all, kvi_mem_block a, kvi_mem_block b) { return _mm256_or_si256(all, _mm256_xor_si256(a, b)); }
KVI_INLINE bool          kvi_mem_block_zero(kvi_mem_block a) { return _mm256_testz_si256(a, a) != 0; }
KVI_INLINE kvi_mem_block kvi_mem_block_nh(kvi_mem_block sum, kvi_mem_block b, const uint64_t *secrets)
{
    b = _mm256_add_epi32(b, _mm256_loadu_si256((const __m256i *)(const void *)secrets));
    return _mm256_add_epi64(sum, _mm256_mul_epu32(b, _mm256_srli_epi64(b, 32)));
}
KVI_INLINE __m128i kvi_mem_block_fold(kvi_mem_block a) { return _mm_add_epi64(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)); }
KVI_INLINE kvi_mem_block kvi_mem_block_none(void) { return _mm256_setzero_si256(); }
#else
KVI_INLINE kvi_mem_block kvi_mem_block_load(const uint8_t *from, size_t i, size_t last) { return _mm_loadu_si128((const __m128i *)(const void *)(from + kvi_mem_block_place(i, last))); }
KVI_INLINE void          kvi_mem_block_store(uint8_t *to, size_t i, size_t last, kvi_mem_block b) { _mm_storeu_si128((__m128i *)(void *)(to + kvi_mem_block_place(i, last)), b); }
KVI_INLINE kvi_mem_block kvi_mem_block_differ(kvi_mem_block all, kvi_mem_block a, kvi_mem_block b) { return _mm_or_si128(all, _mm_xor_si128(a, b)); }
KVI_INLINE bool          kvi_mem_block_zero(kvi_mem_block a) { return _mm_movemask_epi8(_mm_cmpeq_epi8(a, _mm_setzero_si128())) == 0xFFFF; }
KVI_INLINE kvi_mem_block kvi_mem_block_nh(kvi_mem_block sum, kvi_mem_block b, const uint64_t *secrets)
{
    b = _mm_add_epi32(b, _mm_loadu_si128((const __m128i *)(const void *)secrets));
    return _mm_add_epi64(sum, _mm_mul_epu32(b, _mm_srli_epi64(b, 32)));
}
KVI_INLINE __m128i kvi_mem_block_fold(kvi_mem_block a) { return a; }
KVI_INLINE kvi_mem_block kvi_mem_block_none(void) { return _mm_setzero_si128(); }
#endif

KVI_INLINE kvi_mem_lanes kvi_mem_lanes_load(const void *bytes, size_t size)
{
    kvi_mem_lanes k;
    k.last = size - 16;
    for (size_t i = 0; i < KVI_MEM_BLOCKS; i++) k.blocks[i] = kvi_mem_block_load((const uint8_t *)bytes, i, k.last);
    return k;
}
KVI_INLINE void kvi_mem_lanes_store(uint8_t *to, const kvi_mem_lanes *k)
{
    for (size_t i = 0; i < KVI_MEM_BLOCKS; i++) kvi_mem_block_store(to, i, k->last, k->blocks[i]);
}
KVI_INLINE bool kvi_mem_lanes_same(const uint8_t *record_key, const kvi_mem_lanes *k)
{
    kvi_mem_block differ = kvi_mem_block_none();
    for (size_t i = 0; i < KVI_MEM_BLOCKS; i++) differ = kvi_mem_block_differ(differ, kvi_mem_block_load(record_key, i, k->last), k->blocks[i]);
    return kvi_mem_block_zero(differ);
}
KVI_INLINE uint64_t kvi_mem_lanes_hash(const uint64_t *secrets, const kvi_mem_lanes *k, size_t size)
{
    kvi_mem_block sum = kvi_mem_block_none();
    for (size_t i = 0; i < KVI_MEM_BLOCKS; i++) sum = kvi_mem_block_nh(sum, k->blocks[i], secrets + i * 16 / KVI_MEM_BLOCKS);
    return kvi_mem_lanes_mix(kvi_mem_block_fold(sum), size);
}
#endif

#if KVI_MEM_LANES
KVI_NOINLINE uint64_t kvi_mem_hash_long(const kv_mem *m, kv_slice key) { return kvi_hash(key.data, key.size, m->seed); }
KVI_PRIVATE void kvi_mem_secrets(kv_mem *m)         /* from now on by lanes, under secrets that follow from the seed */
{
    m->lanes = true;
    m->brief = kvi_mem_direct(m) ? KVI_MEM_LANES_MAX - KVI_MEM_LANES_MIN + 1 : 0;
    for (size_t i = 0; i < sizeof m->secrets / sizeof *m->secrets; i++) m->secrets[i] = kvi_mix64(m->seed + (i + 1) * UINT64_C(0x9E3779B97F4A7C15));
}
#else
typedef struct kvi_mem_lanes { uint8_t none; } kvi_mem_lanes;
#endif

/* ------------------------------------------------------------------------------------------------
   >>table   finding and placing; splitting segments

   Invariant T1: an entry lies in its home bucket, or in a later one (around the segment's end), and every
                 bucket before it has counted it in its overflow.
   Invariant T2: the pointers to one segment are a run of 2^k directory entries, starting at a multiple of 2^k.
                 A segment of less than 64 buckets is the only one of its shard.                     */

#if KVI_MEM_LANES
/* Can it be hashed, compared and copied without a call? */
KVI_INLINE bool kvi_mem_in_lanes(size_t size) { return size - KVI_MEM_LANES_MIN <= KVI_MEM_LANES_MAX - KVI_MEM_LANES_MIN; }
KVI_INLINE bool kvi_mem_brief(const kv_mem *m, size_t size) { return kvi_mem_in_lanes(size) && m->lanes; }
/* And in a map for one thread? */
KVI_INLINE bool kvi_mem_briefest(const kv_mem *m, kv_slice key) { return key.size - KVI_MEM_LANES_MIN < m->brief && key.data; }
#endif
KVI_INLINE uint64_t kvi_mem_hash(const kv_mem *m, kv_slice key)
{
#if KVI_MEM_LANES
    if (KVI_LIKELY(kvi_mem_brief(m, key.size))) {
        kvi_mem_lanes k = kvi_mem_lanes_load(key.data, key.size);
        return kvi_mem_lanes_hash(m->secrets, &k, key.size);
    }
    return kvi_mem_hash_long(m, key);
#else
    return kvi_hash(key.data, key.size, m->seed);
#endif
}
/* The hash that the shard's table goes by; `hash` is that of the map's seed. */
KVI_INLINE uint64_t kvi_mem_rehash(const kvi_mem_shard *s, kv_slice key, uint64_t hash)
{
    return KVI_UNLIKELY(s->reseeded != 0) ? kvi_hash(key.data, key.size, s->seed) : hash;
}
KVI_INLINE uint64_t kvi_mem_record_hash(const kv_mem *m, const kvi_mem_shard *s, const kvi_mem_record *r)
{
    kv_slice key;
    key.data = r->key;
    key.size = r->key_size;
    return KVI_UNLIKELY(s->reseeded != 0) ? kvi_hash(r->key, r->key_size, s->seed) : kvi_mem_hash(m, key);
}

KVI_INLINE bool kvi_mem_is_key(kv_slice key) { return key.size <= KV_KEY_SIZE_MAX && (key.data || !key.size); }

KVI_INLINE bool kvi_mem_same(const void *record_key, const void *key, size_t size)
{
#if KVI_TSAN
    return kvi_shared_same(record_key, key, size);
#else
#if KVI_MEM_LANES
    if (KVI_LIKELY(kvi_mem_in_lanes(size))) {
        kvi_mem_lanes k = kvi_mem_lanes_load(key, size);
        return kvi_mem_lanes_same((const uint8_t *)record_key, &k);
    }
#endif
    return kvi_equal(record_key, key, size);
#endif
}

/* Where an entry is, or could be. */
typedef struct kvi_mem_spot {
    kvi_mem_bucket *segment, *bucket;
    uint32_t        mask, slot;
} kvi_mem_spot;

KVI_INLINE kvi_mem_spot kvi_mem_spot_home(const kv_mem *m, const kvi_mem_shard *s, uint64_t hash)
{
    const kvi_mem_directory *d = (const kvi_mem_directory *)s->directory;
    kvi_mem_spot spot;
    spot.segment = (kvi_mem_bucket *)kvi_mem_segments(d)[kvi_mem_directory_index(d, kvi_mem_position(m, hash))];
    spot.mask = d->mask;
    spot.bucket = spot.segment + (kvi_mem_home(hash) & spot.mask);
    spot.slot = 0;
    return spot;
}
KVI_INLINE uint32_t kvi_mem_spot_ref(const kvi_mem_spot *spot) { return spot->bucket->refs[spot->slot]; }

/* May an entry of this hash lie beyond bucket b? */
KVI_INLINE bool kvi_mem_went_past(const kv_mem *m, const kvi_mem_bucket *b, uint64_t hash)
{
    return (kvi_mem_state(b) & (kvi_mem_limited(m) ? KVI_MEM_STATE_OVERFLOW : kvi_mem_past(hash))) != 0;
}
/* Find key. False leaves the spot at home. */
KVI_INLINE bool kvi_mem_find(const kv_mem *m, const kvi_mem_shard *s, kv_slice key, uint64_t hash, kvi_mem_spot *spot, uint8_t **record)
{
    kvi_mem_spot home = kvi_mem_spot_home(m, s, hash);
    uint32_t     first = kvi_mem_home(hash);
    uint8_t      tag = kvi_mem_tag(hash);
    for (uint32_t distance = 0; distance <= home.mask; distance++) {
        kvi_mem_bucket *b = home.segment + ((first + distance) & home.mask);
        uint32_t        match = kvi_mem_match(b, tag);
        for (; match; match &= match - 1) {
            uint32_t slot = kvi_lowest_bit32(match), head;
            uint8_t *at = kvi_mem_at(s, b->refs[slot]);
            head = kvi_mem_word(at, 0);
            if ((head & KVI_MEM_HEAD_KEY) != key.size || !kvi_mem_same(at + kvi_mem_head_key_at(head), key.data, key.size)) continue;
            *spot = home;
            spot->bucket = b;
            spot->slot = slot;
            *record = at;
            return true;
        }
        if (!kvi_mem_went_past(m, b, hash)) break;
    }
    *spot = home;
    return false;
}

/* The nearest free slot, at most `most` buckets from home. */
KVI_INLINE bool kvi_mem_spot_free(kvi_mem_spot *spot, uint64_t hash, uint32_t most)
{
    uint32_t first = kvi_mem_home(hash);
    if (most > spot->mask) most = spot->mask;
    for (uint32_t distance = 0; distance <= most; distance++) {
        kvi_mem_bucket *b = spot->segment + ((first + distance) & spot->mask);
        uint32_t        empty = kvi_mem_match(b, 0);
        if (!empty) continue;
        spot->bucket = b;
        spot->slot = kvi_lowest_bit32(empty);
        return true;
    }
    return false;
}
/* An entry goes past bucket b, or does so no longer. */
KVI_INLINE void kvi_mem_past_add(const kv_mem *m, kvi_mem_bucket *b, uint64_t hash)
{
    uint32_t state = b->state;
    if ((state & KVI_MEM_STATE_OVERFLOW) != KVI_MEM_STATE_OVERFLOW) state++;
    if (!kvi_mem_limited(m)) state |= kvi_mem_past(hash);
    kvi_poke_u32(&b->state, state);
}
KVI_INLINE void kvi_mem_past_remove(const kv_mem *m, kvi_mem_bucket *b)
{
    uint32_t state = b->state;
    if ((state & KVI_MEM_STATE_OVERFLOW) == KVI_MEM_STATE_OVERFLOW) return;
    state--;
    if (!kvi_mem_limited(m) && !(state & KVI_MEM_STATE_OVERFLOW)) state &= ~KVI_MEM_STATE_PAST;
    kvi_poke_u32(&b->state, state);
}
/* The bits of a slot's entry, for another slot that it moves to. */
KVI_INLINE uint32_t kvi_mem_spot_state(const kv_mem *m, const kvi_mem_bucket *from, uint32_t slot, uint32_t to)
{
    uint32_t state = from->state & KVI_MEM_STATE_EXPIRES(slot) ? KVI_MEM_STATE_EXPIRES(to) : 0;
    return kvi_mem_limited(m) && (from->state & KVI_MEM_STATE_READ(slot)) ? state | KVI_MEM_STATE_READ(to) : state;
}
/* Put an entry there: T1. `state` is the bits to set for it. */
KVI_INLINE void kvi_mem_spot_fill(const kv_mem *m, const kvi_mem_spot *spot, uint64_t hash, uint32_t ref, uint32_t state)
{
    kvi_mem_bucket *b = spot->segment + (kvi_mem_home(hash) & spot->mask);
    for (; b != spot->bucket; b = spot->segment + ((uint32_t)(b - spot->segment + 1) & spot->mask)) kvi_mem_past_add(m, b, hash);
    kvi_poke_u32(&spot->bucket->refs[spot->slot], ref);
    if (state) kvi_poke_u32(&spot->bucket->state, spot->bucket->state | state);
    kvi_poke_u8(&spot->bucket->tags[spot->slot], kvi_mem_tag(hash));
}
KVI_INLINE void kvi_mem_spot_clear(const kv_mem *m, const kvi_mem_spot *spot, uint64_t hash)
{
    kvi_mem_bucket *b = spot->segment + (kvi_mem_home(hash) & spot->mask);
    uint32_t        gone = KVI_MEM_STATE_EXPIRES(spot->slot) | (kvi_mem_limited(m) ? KVI_MEM_STATE_READ(spot->slot) : 0);
    for (; b != spot->bucket; b = spot->segment + ((uint32_t)(b - spot->segment + 1) & spot->mask)) kvi_mem_past_remove(m, b);
    kvi_poke_u8(&spot->bucket->tags[spot->slot], 0);
    kvi_poke_u32(&spot->bucket->state, spot->bucket->state & ~gone);
}

/* ---- the short way ----

   Most calls are about a small entry without an expiry that lies where the first agreeing tag of its home
   bucket says, or about a key of which the home bucket shows that it is missing. That much can be seen in
   few instructions, and the fewer they are, the more calls the processor has under way at once: waiting
   for memory is what a map does. All else goes the long way, which asks everything anew.           */

typedef enum kvi_mem_seen { KVI_MEM_SEEN, KVI_MEM_SEEN_NOT, KVI_MEM_UNSEEN } kvi_mem_seen;

typedef struct kvi_mem_glance {
    kvi_mem_bucket *bucket;                 /* the home bucket, */
    uint32_t        slot;                   /* and where in it the entry is */
    uint32_t        head;                   /* its record's: it has no expiry and is not large */
    uint8_t        *at;
    uint32_t        sequence;               /* optimistic: all this was true at a moment when it was this */
} kvi_mem_glance;

/* `brief`: the key in registers, or NULL. */
KVI_INLINE kvi_mem_seen kvi_mem_glance_at(const kvi_mem_shard *s, kv_slice key, uint64_t hash, bool optimistic, const kvi_mem_lanes *brief, kvi_mem_glance *g)
{
    const kvi_mem_directory *d;
    const kvi_mem_chunks    *chunks;
    uint32_t                 match, ref;
    g->sequence = optimistic ? kvi_load_u32(&s->sequence) : 0;
    if (KVI_UNLIKELY((g->sequence & 1) | kvi_peek_u32(&s->reseeded))) return KVI_MEM_UNSEEN;
    d = (const kvi_mem_directory *)kvi_load_ptr(&s->directory);
    g->bucket = kvi_mem_bucket_of(d, hash);
    match = kvi_mem_match(g->bucket, kvi_mem_tag(hash));
    if (!match) {
        if (KVI_UNLIKELY(kvi_mem_state(g->bucket) & kvi_mem_past(hash))) return KVI_MEM_UNSEEN;
        return !optimistic || kvi_mem_unchanged(s, g->sequence) ? KVI_MEM_SEEN_NOT : KVI_MEM_UNSEEN;
    }
    g->slot = kvi_lowest_bit32(match);
    ref = kvi_peek_u32(&g->bucket->refs[g->slot]);
    chunks = (const kvi_mem_chunks *)kvi_load_ptr(&s->chunks);
    if (optimistic && KVI_UNLIKELY(!kvi_mem_unchanged(s, g->sequence))) return KVI_MEM_UNSEEN;      /* M1: the reference is true */
    g->at = (uint8_t *)kvi_load_ptr(kvi_mem_chunk_pointers(chunks) + kvi_mem_ref_chunk(ref)) + (size_t)kvi_mem_ref_offset(ref) * KVI_MEM_GRANULE;
    g->head = kvi_mem_word(g->at, 0);
    if (optimistic && KVI_UNLIKELY(!kvi_mem_unchanged(s, g->sequence))) return KVI_MEM_UNSEEN;      /* M1: the sizes are true */
    if (KVI_UNLIKELY((g->head & (KVI_MEM_HEAD_KEY | KVI_MEM_HEAD_EXPIRES | KVI_MEM_HEAD_LARGE)) != key.size)) return KVI_MEM_UNSEEN;
#if KVI_MEM_LANES && !KVI_TSAN
    if (brief) return KVI_LIKELY(kvi_mem_lanes_same(g->at + 4, brief)) ? KVI_MEM_SEEN : KVI_MEM_UNSEEN;
#endif
    (void)brief;
    return KVI_LIKELY(kvi_mem_same(g->at + 4, key.data, key.size)) ? KVI_MEM_SEEN : KVI_MEM_UNSEEN;
}

/* ---- segments and directories ---- */

KVI_INLINE uint32_t kvi_mem_segment_log2(uint32_t mask) { return KVI_MEM_PIECE_LOG2_MIN + kvi_highest_bit32(mask + 1); }
KVI_PRIVATE kvi_mem_bucket *kvi_mem_segment_new(kv_mem *m, uint32_t mask)
{
    kvi_mem_bucket *segment = (kvi_mem_bucket *)kvi_mem_piece_take(m, kvi_mem_segment_log2(mask));
    if (segment) kvi_mem_zero(segment, (size_t)(mask + 1) * sizeof *segment);
    return segment;
}
KVI_INLINE void kvi_mem_segment_give(kv_mem *m, kvi_mem_bucket *segment, uint32_t mask) { kvi_mem_piece_give(m, segment, kvi_mem_segment_log2(mask)); }

KVI_PRIVATE kvi_mem_directory *kvi_mem_directory_new(kv_mem *m, uint32_t depth, uint32_t mask)
{
    size_t             bytes = sizeof(kvi_mem_directory) + ((size_t)1 << depth) * sizeof(kvi_pointer);
    kvi_mem_directory *d = (kvi_mem_directory *)kvi_mem_alloc(m, bytes);
    if (!d) return NULL;
    memset(d, 0, bytes);
    d->bytes = bytes;
    d->depth = depth;
    d->mask = mask;
    d->shift = m->shard_bits + depth ? 64 - m->shard_bits - depth : 63;
    d->lines = mask * KVI_MEM_LINE;
    d->last = ((size_t)1 << depth) - 1;
    return d;
}
KVI_PRIVATE void kvi_mem_directory_swap(kv_mem *m, kvi_mem_shard *s, kvi_mem_directory *d)
{
    kvi_mem_directory *old = (kvi_mem_directory *)s->directory;
    kvi_store_ptr(&s->directory, d);
    if (kvi_mem_concurrent(m)) d->retired = old;                            /* M2 */
    else if (old) kvi_mem_free(m, old, old->bytes);
}
/* The run of pointers to one segment: *first and the count. */
KVI_PRIVATE size_t kvi_mem_segment_run(const kvi_mem_directory *d, size_t index, size_t *first)
{
    kvi_pointer *segments = kvi_mem_segments(d);
    size_t       run = 1;
    while (run < (size_t)1 << d->depth) {
        size_t start = index & ~(2 * run - 1);
        if (segments[start] != segments[index] || segments[start + 2 * run - 1] != segments[index]) break;
        run *= 2;
    }
    *first = index & ~(run - 1);
    return run;
}
KVI_INLINE uint64_t kvi_mem_run_position(const kvi_mem_directory *d, size_t index) { return d->depth ? (uint64_t)index << (64 - d->depth) : 0; }

/* A walk through the segments of a shard, each once; also while segments are split between two steps. */
KVI_PRIVATE kvi_mem_bucket *kvi_mem_segment_at(const kvi_mem_shard *s, uint64_t position, uint64_t *next)
{
    const kvi_mem_directory *d = (const kvi_mem_directory *)s->directory;
    size_t first, index = kvi_mem_directory_index(d, position), run = kvi_mem_segment_run(d, index, &first);
    *next = first + run == (size_t)1 << d->depth ? 0 : kvi_mem_run_position(d, first + run);    /* 0: that was the last */
    return (kvi_mem_bucket *)kvi_mem_segments(d)[index];
}

KVI_PRIVATE uint32_t kvi_mem_segment_count(const kvi_mem_bucket *segment, uint32_t mask)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i <= mask; i++) {
        uint32_t used = ~kvi_mem_match(segment + i, 0) & KVI_MEM_ALL_SLOTS;
        for (; used; used &= used - 1) count++;
    }
    return count;
}

KVI_INLINE void kvi_mem_prefetch_records(const kvi_mem_shard *s, const kvi_mem_bucket *b)
{
    uint32_t used = ~kvi_mem_match(b, 0) & KVI_MEM_ALL_SLOTS;
    for (; used; used &= used - 1) {
        const uint8_t *record = kvi_mem_at(s, b->refs[kvi_lowest_bit32(used)]);
        kvi_prefetch(record);
        kvi_prefetch(record + KVI_MEM_LINE);
    }
}

/* Move the entries of `from` into one of two new segments, by the hash bit `bit` of their position; into
   the first where second is NULL. They fit: neither gets more entries than `from` had. */
KVI_PRIVATE void kvi_mem_segment_move(const kv_mem *m, const kvi_mem_shard *s, const kvi_mem_bucket *from, uint32_t from_mask,
                                      kvi_mem_bucket *first, kvi_mem_bucket *second, uint32_t mask, uint32_t bit)
{
    kvi_mem_spot spot;
    memset(&spot, 0, sizeof spot);
    spot.mask = mask;
    for (uint32_t i = 0; i <= from_mask; i++) {
        uint32_t used = ~kvi_mem_match(from + i, 0) & KVI_MEM_ALL_SLOTS;
        if (i + 4 <= from_mask) kvi_mem_prefetch_records(s, from + i + 4);
        for (; used; used &= used - 1) {
            uint32_t       slot = kvi_lowest_bit32(used), ref = from[i].refs[slot];
            kvi_mem_record r = kvi_mem_record_at(kvi_mem_at(s, ref));
            uint64_t       hash = kvi_mem_record_hash(m, s, &r);
            spot.segment = second && kvi_mem_position(m, hash) >> bit & 1 ? second : first;
            if (!kvi_mem_spot_free(&spot, hash, mask)) KV_ASSERT(false);
            kvi_mem_spot_fill(m, &spot, hash, ref, kvi_mem_spot_state(m, from + i, slot, spot.slot));
        }
    }
}

/* Twice as many buckets for the one small segment of a shard. */
KVI_PRIVATE kv_status kvi_mem_segment_double(kv_mem *m, kvi_mem_shard *s)
{
    kvi_mem_directory *old = (kvi_mem_directory *)s->directory, *d;
    kvi_mem_bucket    *from = (kvi_mem_bucket *)kvi_mem_segments(old)[0], *to;
    uint32_t           old_mask = old->mask, mask = old->mask * 2 + 1;
    d = kvi_mem_directory_new(m, 0, mask);
    to = d ? kvi_mem_segment_new(m, mask) : NULL;
    if (!to) { if (d) kvi_mem_free(m, d, d->bytes); return KV_ERR_NO_MEMORY; }
    kvi_mem_segment_move(m, s, from, old_mask, to, NULL, mask, 0);
    kvi_mem_segments(d)[0] = to;
    kvi_mem_begin(m, s);
    kvi_mem_directory_swap(m, s, d);
    kvi_mem_end(m, s);
    kvi_mem_segment_give(m, from, old_mask);
    return KV_OK;
}

/* Twice as many pointers, each segment's run twice as long. */
KVI_PRIVATE kv_status kvi_mem_directory_double(kv_mem *m, kvi_mem_shard *s)
{
    kvi_mem_directory *old = (kvi_mem_directory *)s->directory, *d;
    if (old->depth >= KVI_MEM_DEPTH_MAX) return KV_ERR_NO_MEMORY;
    d = kvi_mem_directory_new(m, old->depth + 1, old->mask);
    if (!d) return KV_ERR_NO_MEMORY;
    for (size_t i = 0; i < (size_t)1 << d->depth; i++) kvi_mem_segments(d)[i] = kvi_mem_segments(old)[i >> 1];
    kvi_mem_begin(m, s);
    kvi_mem_directory_swap(m, s, d);
    kvi_mem_end(m, s);
    return KV_OK;
}

/* Move the upper half of a segment's entries into a new one; what stays is put in order again where it is.
   Readers have to wait meanwhile: this is for when there is no memory for two new ones. */
KVI_NOINLINE void kvi_mem_segment_halve(kv_mem *m, kvi_mem_shard *s, kvi_mem_bucket *from, kvi_mem_bucket *upper, uint32_t mask, uint32_t bit)
{
    kvi_mem_bucket copy[KVI_MEM_SEGMENT];
    memcpy(copy, from, (size_t)(mask + 1) * sizeof *copy);
    kvi_mem_begin(m, s);
    kvi_mem_zero(from, (size_t)(mask + 1) * sizeof *from);
    kvi_mem_segment_move(m, s, copy, mask, from, upper, mask, bit);
    kvi_mem_end(m, s);
}

/* Two segments for the one that `hash` lies in (of 64 buckets). They are filled aside, so that readers
   only have to turn back for the few stores that publish them. */
KVI_PRIVATE kv_status kvi_mem_segment_split(kv_mem *m, kvi_mem_shard *s, uint64_t hash)
{
    kvi_mem_directory *d = (kvi_mem_directory *)s->directory;
    kvi_mem_bucket    *from, *first, *second;
    size_t             index = kvi_mem_directory_index(d, kvi_mem_position(m, hash)), start, run;
    uint32_t           bit;
    kv_status          status;
    run = kvi_mem_segment_run(d, index, &start);
    if (run == 1) {
        status = kvi_mem_directory_double(m, s);
        if (status < 0) return status;
        d = (kvi_mem_directory *)s->directory;
        start *= 2;
        run = 2;
    }
    from = (kvi_mem_bucket *)kvi_mem_segments(d)[start];
    bit = 64 - d->depth + kvi_highest_bit64(run) - 1;
    first = kvi_mem_segment_new(m, d->mask);
    if (!first) return KV_ERR_NO_MEMORY;
    second = kvi_mem_segment_new(m, d->mask);
    if (!second) {
        kvi_mem_segment_halve(m, s, from, first, d->mask, bit);
        kvi_mem_begin(m, s);
        for (size_t i = run / 2; i < run; i++) kvi_store_ptr(kvi_mem_segments(d) + start + i, first);
        kvi_mem_end(m, s);
        s->segment_count++;
        return KV_OK;
    }
    kvi_mem_segment_move(m, s, from, d->mask, first, second, d->mask, bit);
    kvi_mem_begin(m, s);
    for (size_t i = 0; i < run; i++) kvi_store_ptr(kvi_mem_segments(d) + start + i, i < run / 2 ? first : second);
    kvi_mem_end(m, s);
    s->segment_count++;
    kvi_mem_segment_give(m, from, d->mask);
    return KV_OK;
}

/* Hash a whole shard anew, under a seed that nobody knows: its keys collide. Everything is built aside. */
KVI_PRIVATE void kvi_mem_segments_give(kv_mem *m, const kvi_mem_directory *d)
{
    for (size_t i = 0; i < (size_t)1 << d->depth; i++)
        if (kvi_mem_segments(d)[i] && (i == 0 || kvi_mem_segments(d)[i] != kvi_mem_segments(d)[i - 1]))
            kvi_mem_segment_give(m, (kvi_mem_bucket *)kvi_mem_segments(d)[i], d->mask);
}
KVI_PRIVATE bool kvi_mem_reseed_fill(const kv_mem *m, const kvi_mem_shard *s, kvi_mem_directory *d, uint64_t seed)
{
    uint64_t next = 0;
    do {
        const kvi_mem_directory *old = (const kvi_mem_directory *)s->directory;
        const kvi_mem_bucket    *from = kvi_mem_segment_at(s, next, &next);
        for (uint32_t i = 0; i <= old->mask; i++) {
            uint32_t used = ~kvi_mem_match(from + i, 0) & KVI_MEM_ALL_SLOTS;
            for (; used; used &= used - 1) {
                uint32_t       slot = kvi_lowest_bit32(used), ref = from[i].refs[slot];
                kvi_mem_record r = kvi_mem_record_at(kvi_mem_at(s, ref));
                uint64_t       hash = kvi_hash(r.key, r.key_size, seed);
                kvi_mem_spot   spot;
                spot.segment = (kvi_mem_bucket *)kvi_mem_segments(d)[kvi_mem_directory_index(d, kvi_mem_position(m, hash))];
                spot.mask = d->mask;
                if (!kvi_mem_spot_free(&spot, hash, KVI_MEM_PROBE_MAX)) return false;
                kvi_mem_spot_fill(m, &spot, hash, ref, kvi_mem_spot_state(m, from + i, slot, spot.slot));
            }
        }
    } while (next);
    return true;
}
KVI_PRIVATE kv_status kvi_mem_reseed(kv_mem *m, kvi_mem_shard *s)
{
    kvi_mem_directory *old = (kvi_mem_directory *)s->directory, *d;
    uint32_t           depth = 0;
    uint64_t           seed;
    bool               filled = true;
    s->reseed_at = s->count + s->count / 2 + KVI_MEM_SLOTS;         /* whatever comes of it: not again at once */
    while (((size_t)(old->mask + 1) * KVI_MEM_SLOTS << depth) / 2 < s->count) depth++;
    if (depth > KVI_MEM_DEPTH_MAX) return KV_ERR_NO_MEMORY;
    (void)kvi_random_u64(&seed, s);
    d = kvi_mem_directory_new(m, depth, old->mask);
    if (!d) return KV_ERR_NO_MEMORY;
    for (size_t i = 0; filled && i < (size_t)1 << depth; i++)
        filled = (kvi_mem_segments(d)[i] = kvi_mem_segment_new(m, d->mask)) != NULL;
    if (!filled || !kvi_mem_reseed_fill(m, s, d, seed)) {
        kvi_mem_segments_give(m, d);
        kvi_mem_free(m, d, d->bytes);
        return KV_ERR_NO_MEMORY;
    }
    kvi_mem_begin(m, s);
    kvi_poke_u64(&s->seed, seed);
    kvi_poke_u32(&s->reseeded, 1);
    kvi_store_ptr(&s->directory, d);
    kvi_mem_end(m, s);
    kvi_mem_segments_give(m, old);
    if (kvi_mem_concurrent(m)) d->retired = old;
    else kvi_mem_free(m, old, old->bytes);
    s->segment_count = 1u << depth;
    s->rehashes++;
    return KV_OK;
}

/* ------------------------------------------------------------------------------------------------
   >>moves   what a write has in hand; taking entries out; emptying chunks

   All of it under the shard's lock.                                                               */

typedef struct kvi_mem_work {
    kv_mem        *m;
    kvi_mem_shard *s;
    uint64_t       now;                     /* 0: not asked yet */
    bool           watched;                 /* it holds the watch mutex: what it changes goes to m->pending */
} kvi_mem_work;

KVI_PRIVATE uint64_t kvi_mem_clock(const kv_mem *m) { return m->now_ms ? m->now_ms(m->now_user) : kvi_now_ms(); }
KVI_INLINE uint64_t kvi_mem_now(kvi_mem_work *w)
{
    if (!w->now) w->now = kvi_mem_clock(w->m);
    return w->now;
}
KVI_INLINE bool kvi_mem_expired(kvi_mem_work *w, const kvi_mem_record *r) { return (r->head & KVI_MEM_HEAD_EXPIRES) && kvi_mem_now(w) >= r->expiry; }

/* Keep an event for the watches, until no shard is locked. False: no memory for it. */
KVI_PRIVATE bool kvi_mem_pend(kvi_mem_work *w, kv_event event, kv_slice key)
{
    uint8_t head[8];
    kv_buf *pending = &w->m->pending;
    size_t  size;
    if (!KVI_MEM_WATCH || !w->watched) return true; /* and pending is another's */
    size = pending->size + sizeof head + key.size;
    if (size > pending->capacity && kv_buf_reserve(pending, size + size / 2) < 0) return false;
    kvi_store_le32(head, (uint32_t)event);
    kvi_store_le32(head + 4, (uint32_t)key.size);
    (void)kv_buf_append(pending, kv_bytes(head, sizeof head));      /* there is room: neither can fail */
    (void)kv_buf_append(pending, key);
    return true;
}

/* The walk from a record to its slot. */
KVI_PRIVATE kvi_mem_spot kvi_mem_spot_of(const kv_mem *m, const kvi_mem_shard *s, uint64_t hash, uint32_t ref)
{
    kvi_mem_spot spot = kvi_mem_spot_home(m, s, hash);
    uint32_t     first = kvi_mem_home(hash);
    for (uint32_t distance = 0; distance <= spot.mask; distance++) {
        uint32_t match;
        spot.bucket = spot.segment + ((first + distance) & spot.mask);
        for (match = kvi_mem_match(spot.bucket, kvi_mem_tag(hash)); match; match &= match - 1) {
            spot.slot = kvi_lowest_bit32(match);
            if (kvi_mem_spot_ref(&spot) == ref) return spot;
        }
    }
    KV_ASSERT(false);
    return spot;
}

/* Count an entry in (+) or out (-). */
KVI_INLINE void kvi_mem_count_in(kvi_mem_shard *s, const kvi_mem_record *r)
{
    kvi_poke_size(&s->count, s->count + 1);
    s->key_bytes += r->key_size;
    s->value_bytes += r->value_size;
    if (!(r->head & KVI_MEM_HEAD_EXPIRES)) return;
    kvi_poke_size(&s->expiring, s->expiring + 1);
    if (r->expiry < s->next_expiry) s->next_expiry = r->expiry;
    if (r->expiry < s->sweep_next) s->sweep_next = r->expiry;
}
KVI_INLINE void kvi_mem_count_out(kvi_mem_shard *s, const kvi_mem_record *r)
{
    kvi_poke_size(&s->count, s->count - 1);
    s->key_bytes -= r->key_size;
    s->value_bytes -= r->value_size;
    if (r->head & KVI_MEM_HEAD_EXPIRES) kvi_poke_size(&s->expiring, s->expiring - 1);
}

/* Take an entry out and free its record. */
KVI_PRIVATE void kvi_mem_remove(kv_mem *m, kvi_mem_shard *s, const kvi_mem_spot *spot, const kvi_mem_record *r, uint64_t hash)
{
    uint32_t ref = kvi_mem_spot_ref(spot);
    kvi_mem_begin(m, s);
    kvi_mem_spot_clear(m, spot, hash);
    kvi_mem_end(m, s);
    kvi_mem_count_out(s, r);
    if (r->large) kvi_mem_large_drop(m, s, r->large);
    kvi_mem_block_free(m, s, ref, r->granules);
}

/* Move the records of one chunk elsewhere, where there is room without asking anyone, and give the chunk
   back. False where that room is not there; what is then left of the chunk's space are free blocks
   that are as large as can be.
   1. take its free blocks out of the lists, so that nothing moves within it
   2. move record by record, each reference at once     3. give the chunk back, or list its free blocks */
KVI_PRIVATE void kvi_mem_chunk_relist(kvi_mem_shard *s, uint32_t number)
{
    kvi_mem_chunk *c = kvi_mem_chunk_info(s, number);
    uint32_t       at = 0, hole = 0;                                /* hole .. at is free */
    while (at + KVI_MEM_BLOCK_MIN <= c->used) {
        uint8_t *block = kvi_mem_at(s, kvi_mem_ref(number, at));
        if (kvi_mem_word(block, 0) & KVI_MEM_HEAD_FREE) { at += kvi_mem_word(block, 1); continue; }
        if (at > hole) kvi_mem_block_push(s, kvi_mem_ref(number, hole), at - hole);
        at += kvi_mem_record_at(block).granules;
        hole = at;
    }
    if (at > hole) kvi_mem_block_push(s, kvi_mem_ref(number, hole), at - hole);
}
KVI_PRIVATE bool kvi_mem_record_move(kv_mem *m, kvi_mem_shard *s, uint32_t ref)
{
    kvi_mem_record r = kvi_mem_record_at(kvi_mem_at(s, ref));
    uint32_t       to = kvi_mem_block_quick(s, r.granules);
    kvi_mem_spot   spot;
    if (to == KVI_MEM_NOWHERE) {
        to = kvi_mem_block_find(s, r.granules);
        if (to == KVI_MEM_NOWHERE) return false;
        (void)kvi_mem_block_live(s, to, r.granules);
    }
    kvi_shared_in(kvi_mem_at(s, to), r.at, (size_t)r.granules * KVI_MEM_GRANULE);
    spot = kvi_mem_spot_of(m, s, kvi_mem_record_hash(m, s, &r), ref);
    kvi_mem_begin(m, s);
    kvi_poke_u32(&spot.bucket->refs[spot.slot], to);
    kvi_mem_end(m, s);
    kvi_mem_chunk_info(s, kvi_mem_ref_chunk(ref))->live = (uint16_t)(kvi_mem_chunk_info(s, kvi_mem_ref_chunk(ref))->live - r.granules);
    s->live_granules -= r.granules;
    kvi_mem_word_set(r.at, 0, KVI_MEM_HEAD_FREE);
    kvi_mem_word_set(r.at, 1, r.granules);
    return true;
}
KVI_PRIVATE bool kvi_mem_chunk_evacuate(kv_mem *m, kvi_mem_shard *s, uint32_t number)
{
    kvi_mem_chunk *c = kvi_mem_chunk_info(s, number);
    bool           moved = true;
    uint32_t       at;
    /* 1. */
    for (at = 0; at + KVI_MEM_BLOCK_MIN <= c->used;) {
        uint32_t ref = kvi_mem_ref(number, at);
        uint8_t *block = kvi_mem_at(s, ref);
        if (kvi_mem_word(block, 0) & KVI_MEM_HEAD_FREE) { at += kvi_mem_word(block, 1); kvi_mem_block_unlink(s, ref); }
        else at += kvi_mem_record_at(block).granules;
    }
    /* 2. */
    for (at = 0; moved && at + KVI_MEM_BLOCK_MIN <= c->used;) {
        uint8_t *block = kvi_mem_at(s, kvi_mem_ref(number, at));
        bool     is_free = (kvi_mem_word(block, 0) & KVI_MEM_HEAD_FREE) != 0;
        uint32_t granules = is_free ? kvi_mem_word(block, 1) : kvi_mem_record_at(block).granules;
        if (!is_free) moved = kvi_mem_record_move(m, s, kvi_mem_ref(number, at));
        at += granules;
    }
    /* 3. */
    if (!moved) { kvi_mem_chunk_relist(s, number); return false; }
    c->used = 0;
    kvi_mem_chunk_empty(m, s, number);
    return true;
}

/* Empty the chunk in which least lives, if that is worth it: at most three quarters of it, and no more
   than what is free elsewhere. Granules that were moved, and one more; 0: nothing was emptied. */
KVI_PRIVATE uint32_t kvi_mem_compact(kv_mem *m, kvi_mem_shard *s)
{
    uint32_t best = KVI_MEM_NOWHERE, best_live = 0, best_size = 1;
    for (uint32_t i = 0; i < s->chunk_count; i++) {
        const kvi_mem_chunk *c = kvi_mem_chunk_info(s, i);
        uint32_t size;
        if (!c->size_log2 || i == s->bump) continue;
        size = kvi_mem_chunk_granules(c);
        if (c->live > size - size / 4) continue;
        if (best != KVI_MEM_NOWHERE && (uint64_t)c->live * best_size >= (uint64_t)best_live * size) continue;
        best = i;
        best_live = c->live;
        best_size = size;
    }
    if (best == KVI_MEM_NOWHERE || s->free_granules < best_size) return 0;
    return kvi_mem_chunk_evacuate(m, s, best) ? best_live + 1 : 0;
}
/* Where more than a quarter is holes: so many chunks that new records of any size find room in them, and yet not
   more work than one write may wait for. */
KVI_PRIVATE void kvi_mem_compact_some(kv_mem *m, kvi_mem_shard *s)
{
    uint32_t moved = 0;
    for (uint32_t i = 0; i < KVI_MEM_COMPACT_CHUNKS && moved < KVI_MEM_COMPACT_MOVES && s->free_granules > s->live_granules / 3; i++) {
        uint32_t now = kvi_mem_compact(m, s);
        if (!now) return;
        moved += now;
    }
}

/* ------------------------------------------------------------------------------------------------
   >>expiry   taking out what has expired

   Invariant E1: a slot's expires bit is set exactly where its record has an expiry.
   Invariant E2: no entry of a shard expires before next_expiry.                                   */

/* Take the expired entries of one bucket out, at most `most`; how many. An event that cannot be kept for
   want of memory leaves its entry for later. *next is lowered to the first expiry that stays. */
KVI_PRIVATE uint32_t kvi_mem_purge_bucket(kvi_mem_work *w, kvi_mem_spot spot, size_t most, uint64_t *next)
{
    uint32_t bits = spot.bucket->state >> 20, count = 0;
    for (; bits; bits &= bits - 1) {
        kvi_mem_record r;
        spot.slot = kvi_lowest_bit32(bits);
        r = kvi_mem_record_at(kvi_mem_at(w->s, kvi_mem_spot_ref(&spot)));
        if (count < most && kvi_mem_expired(w, &r) && kvi_mem_pend(w, KV_EVENT_EXPIRE, kvi_mem_record_key(&r))) {
            kvi_mem_remove(w->m, w->s, &spot, &r, kvi_mem_record_hash(w->m, w->s, &r));
            count++;
        } else if (r.expiry < *next) *next = r.expiry;
    }
    w->s->expired += count;
    return count;
}
KVI_PRIVATE size_t kvi_mem_purge_segment(kvi_mem_work *w, kvi_mem_bucket *segment, uint32_t mask, size_t most, uint64_t *next)
{
    kvi_mem_spot spot;
    size_t       count = 0;
    spot.segment = segment;
    spot.mask = mask;
    spot.slot = 0;
    for (uint32_t i = 0; i <= mask; i++) {
        spot.bucket = segment + i;
        if (spot.bucket->state >> 20) count += kvi_mem_purge_bucket(w, spot, most - count, next);
    }
    return count;
}

/* All of a shard at once: for a write that finds no memory. */
KVI_PRIVATE bool kvi_mem_purge_shard(kvi_mem_work *w)
{
    uint64_t next = 0, ignored = UINT64_MAX;
    size_t   count = 0;
    if (!kvi_mem_expiring(w->s) || w->s->next_expiry > kvi_mem_now(w)) return false;
    do {
        kvi_mem_bucket *segment = kvi_mem_segment_at(w->s, next, &next);
        count += kvi_mem_purge_segment(w, segment, ((const kvi_mem_directory *)w->s->directory)->mask, SIZE_MAX, &ignored);
    } while (next);
    return count != 0;
}

/* One step of a sweep: a segment. *done: the shard was gone through to its end. */
KVI_PRIVATE size_t kvi_mem_sweep_step(kvi_mem_work *w, size_t most, bool *done)
{
    kvi_mem_shard  *s = w->s;
    uint64_t        next;
    kvi_mem_bucket *segment = kvi_mem_segment_at(s, s->sweep_at, &next);
    size_t          count = kvi_mem_purge_segment(w, segment, ((const kvi_mem_directory *)s->directory)->mask, most, &s->sweep_next);
    *done = false;
    if (count == most) return count;                                /* there may be more in it */
    s->sweep_at = next;
    if (next) return count;
    s->next_expiry = s->sweep_next;
    s->sweep_next = UINT64_MAX;
    *done = true;
    return count;
}

/* ------------------------------------------------------------------------------------------------
   >>evict   making room under a memory limit

   The clock goes through the buckets of a shard. An entry that was read since it last came by, and then one
   that is new to it, is let go once; the next is evicted. One eviction looks at a bounded number of entries;
   if all of them had a chance left, the first one that had only been new goes, or else the first.  */

/* Evict an entry, but not the one at `keep`. False: nothing there. */
KVI_PRIVATE bool kvi_mem_evict_at(kvi_mem_work *w, const kvi_mem_spot *spot)
{
    kvi_mem_record r = kvi_mem_record_at(kvi_mem_at(w->s, kvi_mem_spot_ref(spot)));
    bool           expired = kvi_mem_expired(w, &r);
    if (!kvi_mem_pend(w, expired ? KV_EVENT_EXPIRE : KV_EVENT_EVICT, kvi_mem_record_key(&r))) return false;
    kvi_mem_remove(w->m, w->s, spot, &r, kvi_mem_record_hash(w->m, w->s, &r));
    if (expired) w->s->expired++; else w->s->evicted++;
    return true;
}
/* 2: it was read, 1: it is new, 0: neither. */
KVI_INLINE uint32_t kvi_mem_chance(const kvi_mem_shard *s, const kvi_mem_spot *spot)
{
    if (kvi_peek_u32(&spot->bucket->state) & KVI_MEM_STATE_READ(spot->slot)) return 2;
    return kvi_mem_word(kvi_mem_at(s, kvi_mem_spot_ref(spot)), 0) & KVI_MEM_HEAD_NEW ? 1 : 0;
}
/* The clock comes by: the chance that an entry has, which it loses. */
KVI_PRIVATE uint32_t kvi_mem_clock_slot(kvi_mem_shard *s, const kvi_mem_spot *spot)
{
    uint32_t chance = kvi_mem_chance(s, spot);
    uint8_t *at = kvi_mem_at(s, kvi_mem_spot_ref(spot));
    if (chance == 2) kvi_poke_u32(&spot->bucket->state, kvi_peek_u32(&spot->bucket->state) & ~KVI_MEM_STATE_READ(spot->slot));
    if (chance == 1) kvi_mem_word_set(at, 0, kvi_mem_word(at, 0) & ~KVI_MEM_HEAD_NEW);
    return chance;
}
/* A slot for `hash` in a full segment that cannot grow: of the entries of its home bucket the one with the least chance goes. */
KVI_PRIVATE bool kvi_mem_evict_home(kvi_mem_work *w, kvi_mem_spot *spot, uint64_t hash)
{
    kvi_mem_spot best;
    uint32_t     best_chance = 3;
    spot->bucket = spot->segment + (kvi_mem_home(hash) & spot->mask);
    best = *spot;
    for (spot->slot = 0; spot->slot < KVI_MEM_SLOTS; spot->slot++) {
        uint32_t chance = kvi_mem_chance(w->s, spot);
        if (chance >= best_chance) continue;
        best_chance = chance;
        best.slot = spot->slot;
    }
    spot->slot = best.slot;
    return kvi_mem_evict_at(w, spot);
}
KVI_PRIVATE bool kvi_mem_evict(kvi_mem_work *w, const kvi_mem_spot *keep)
{
    kvi_mem_shard *s = w->s;
    kvi_mem_spot   spot, best;
    uint32_t       looked = 0, best_chance = 3, laps = 0;
    uint64_t       next;
    spot.mask = ((const kvi_mem_directory *)s->directory)->mask;
    best.bucket = NULL;
    while (s->count && looked < KVI_MEM_CLOCK_SLOTS && laps < 3) {
        uint32_t used;
        spot.segment = kvi_mem_segment_at(s, s->clock_at, &next);
        spot.bucket = spot.segment + s->clock_bucket;
        used = ~kvi_mem_match(spot.bucket, 0) & KVI_MEM_ALL_SLOTS >> s->clock_slot << s->clock_slot;
        for (; used; used &= used - 1) {
            uint32_t chance;
            spot.slot = kvi_lowest_bit32(used);
            s->clock_slot = spot.slot + 1;
            if (keep && keep->bucket == spot.bucket && keep->slot == spot.slot) continue;
            looked++;
            chance = kvi_mem_clock_slot(s, &spot);
            if (!chance) return kvi_mem_evict_at(w, &spot);
            if (chance < best_chance) { best = spot; best_chance = chance; }
        }
        s->clock_slot = 0;
        if (++s->clock_bucket > spot.mask) { s->clock_bucket = 0; s->clock_at = next; laps += !next; }
    }
    return best.bucket && kvi_mem_evict_at(w, &best);
}

/* ---- a block for a record, by any means ---- */

KVI_INLINE uint32_t kvi_mem_block_again(kvi_mem_shard *s, uint32_t granules)
{
    uint32_t ref = kvi_mem_block_quick(s, granules);
    if (ref != KVI_MEM_NOWHERE) return ref;
    ref = kvi_mem_block_find(s, granules);
    return ref == KVI_MEM_NOWHERE ? ref : kvi_mem_block_live(s, ref, granules);
}
KVI_NOINLINE uint32_t kvi_mem_block_slow(kvi_mem_work *w, uint32_t granules, const kvi_mem_spot *keep)
{
    kv_mem        *m = w->m;
    kvi_mem_shard *s = w->s;
    uint32_t       ref = kvi_mem_block_again(s, granules);
    if (ref != KVI_MEM_NOWHERE) return ref;
    if (!m->loading) kvi_mem_compact_some(m, s);                    /* its chunks come back with the next call */
    if (kvi_mem_chunk_add(m, s, granules) == KV_OK) return kvi_mem_block_quick(s, granules);
    if (m->loading) return KVI_MEM_NOWHERE;
    (void)kvi_mem_purge_shard(w);
    kvi_mem_bump_end(s);                                            /* fixed memory: make do with what there is */
    for (uint32_t tries = 0; tries < KVI_MEM_EVICT_TRIES; tries++) {
        ref = kvi_mem_block_again(s, granules);
        if (ref != KVI_MEM_NOWHERE) return ref;
        if (s->free_granules >= granules && kvi_mem_compact(m, s) && kvi_mem_chunk_add(m, s, granules) == KV_OK) return kvi_mem_block_quick(s, granules);
        if (!kvi_mem_limited(m) || !kvi_mem_evict(w, keep)) break;
    }
    return kvi_mem_block_again(s, granules);
}
KVI_INLINE uint32_t kvi_mem_block_new(kvi_mem_work *w, uint32_t granules, const kvi_mem_spot *keep)
{
    uint32_t ref = kvi_mem_block_quick(w->s, granules);
    return KVI_LIKELY(ref != KVI_MEM_NOWHERE) ? ref : kvi_mem_block_slow(w, granules, keep);
}

/* Room in all of a limited map: evict and compact, shard after shard, until `need` bytes could be asked for.
   No lock is held on entry. False: nothing is left to evict. */
KVI_PRIVATE bool kvi_mem_make_room(kvi_mem_work *w, size_t need)
{
    kv_mem  *m = w->m;
    uint32_t idle = 0;
    while (idle < m->shard_count) {
        kvi_mem_work other = *w;
        bool         did = false;
        other.s = m->shards + (kvi_add_u32(&m->evict_shard, 1) & (m->shard_count - 1));
        kvi_mem_lock(m, other.s);
        kvi_mem_bump_end(other.s);
        for (uint32_t i = 0; i < KVI_MEM_EVICT_TRIES && kvi_mem_evict(&other, NULL); i++) did = true;
        while (kvi_mem_compact(m, other.s)) did = true;
        kvi_mem_unlock(m, other.s);
        if (did && kvi_peek_size(&m->memory_bytes) + need <= m->limit) return true;
        idle = did ? 0 : idle + 1;
    }
    return false;
}

/* ------------------------------------------------------------------------------------------------
   >>watch   who wants to know

   While there are watches, a write holds the watch mutex from before it locks its shard until its watches
   were called: so the order of the calls is the order of the writes, and no shard is locked meanwhile.
   What it takes out besides its own key (expired, evicted) waits in `pending`.
   Invariant W1: watches, pending and watch_dead are touched only under the mutex.                  */

KVI_INLINE bool kvi_mem_in_watch(const kv_mem *m)
{
    uint32_t owner = kvi_peek_u32(&m->watch_owner);
    return KVI_MEM_WATCH && KVI_UNLIKELY(owner != 0) && owner == kvi_mem_thread_number();
}
KVI_INLINE bool kvi_mem_watched(const kv_mem *m) { return KVI_MEM_WATCH && KVI_UNLIKELY(kvi_load_u32(&m->watch_count) != 0); }

KVI_PRIVATE void kvi_mem_watch_call(kv_mem *m, kv_event event, kv_slice key, kv_slice value)
{
    kvi_poke_u32(&m->watch_owner, kvi_mem_thread_number());
    for (kv_watch *w = m->watches; w; w = w->next) {
        kv_slice prefix = kv_bytes((const uint8_t *)w + sizeof *w, w->prefix_size);
        if (!w->dead && kv_has_prefix(key, prefix)) w->fn(w->user, event, key, value);
    }
    kvi_poke_u32(&m->watch_owner, 0);
}
KVI_PRIVATE void kvi_mem_watch_bury(kv_mem *m)      /* free what was unsubscribed meanwhile */
{
    for (kv_watch **at = &m->watches; *at;) {
        kv_watch *w = *at;
        if (!w->dead) { at = &w->next; continue; }
        *at = w->next;
        kvi_mem_free(m, w, sizeof *w + w->prefix_size);
    }
    m->watch_dead = false;
}
/* Tell of what is pending. */
KVI_PRIVATE void kvi_mem_watch_tell(kv_mem *m)
{
    for (size_t at = 0; at < m->pending.size;) {
        const uint8_t *entry = (const uint8_t *)m->pending.data + at;
        size_t         key_size = kvi_load_le32(entry + 4);
        kvi_mem_watch_call(m, (kv_event)kvi_load_le32(entry), kv_bytes(entry + 8, key_size), kv_bytes(NULL, 0));
        at += 8 + key_size;
    }
    m->pending.size = 0;
}
KVI_PRIVATE void kvi_mem_watch_leave(kv_mem *m)
{
    kvi_mem_watch_tell(m);
    if (m->watch_dead) kvi_mem_watch_bury(m);
    if (!m->watches) kv_buf_free(&m->pending);
    kvi_mutex_unlock(&m->watch_mutex);
}

/* May this thread write now? Not from inside a callback whose slices point into the map, nor from a watch. */
KVI_INLINE bool kvi_mem_may_write(const kv_mem *m) { return !m->busy && !kvi_mem_in_watch(m); }

/* ------------------------------------------------------------------------------------------------
   >>read   get and its kin

   An optimistic read copies what it finds into memory of its own before it believes it, so values
   over KVI_MEM_TEMP bytes, and readers that had to turn back many times, take the shard's lock
   (shared with other readers). A large value is held, not copied, while the lock is held.          */

KVI_INLINE void kvi_mem_count_read(kv_mem *m, bool hit)
{
    kvi_mem_stripe *stripe = m->stripes + (kvi_mem_concurrent(m) ? kvi_mem_thread_number() & m->stripe_mask : 0);
    uint64_t       *counter = hit ? &stripe->hits : &stripe->misses;
    kvi_poke_u64(counter, kvi_peek_u64(counter) + 1);
}

/* Up to 16 bytes, in registers. */
typedef struct kvi_mem_small { uint64_t first, last; } kvi_mem_small;

#define KVI_MEM_SMALL 16u

KVI_INLINE kvi_mem_small kvi_mem_small_load(const uint8_t *from, size_t size)
{
    kvi_mem_small v;
    v.first = v.last = 0;
#if KVI_TSAN
    kvi_shared_out(&v, from, size);
#else
    if (KVI_LIKELY(size >= 8)) { memcpy(&v.first, from, 8); memcpy(&v.last, from + size - 8, 8); }
    else if (size >= 4) { memcpy(&v.first, from, 4); memcpy(&v.last, from + size - 4, 4); }
    else if (size) { memcpy(&v.first, from, 1); memcpy(&v.last, from + size / 2, 1); memcpy((uint8_t *)&v.last + 1, from + size - 1, 1); }
#endif
    return v;
}
KVI_INLINE void kvi_mem_small_store(uint8_t *to, kvi_mem_small v, size_t size)
{
#if KVI_TSAN
    memcpy(to, &v, size);
#else
    if (KVI_LIKELY(size >= 8)) { memcpy(to, &v.first, 8); memcpy(to + size - 8, &v.last, 8); }
    else if (size >= 4) { memcpy(to, &v.first, 4); memcpy(to + size - 4, &v.last, 4); }
    else if (size) { memcpy(to, &v.first, 1); memcpy(to + size / 2, &v.last, 1); memcpy(to + size - 1, (uint8_t *)&v.last + 1, 1); }
#endif
}
KVI_NOINLINE kv_status kvi_mem_assign_far(kv_buf *value, const uint8_t *data, size_t size)
{
    if (size > value->capacity) return kv_buf_assign(value, kv_bytes(data, size));
    kvi_shared_out(value->data, data, size);
    value->size = size;
    return KV_OK;
}
KVI_INLINE kv_status kvi_mem_assign(kv_buf *value, const uint8_t *data, size_t size)
{
    if (KVI_SMALL || KVI_UNLIKELY(size > KVI_MEM_SMALL || size > value->capacity)) return kvi_mem_assign_far(value, data, size);
    kvi_mem_small_store((uint8_t *)value->data, kvi_mem_small_load(data, size), size);
    value->size = size;
    return KV_OK;
}

typedef enum kvi_mem_answer { KVI_MEM_HERE, KVI_MEM_MISSING, KVI_MEM_AGAIN, KVI_MEM_LOCKED } kvi_mem_answer;   /* LOCKED: only under the lock */

/* One optimistic read. The value goes to `temp`, unless that is NULL. */
KVI_INLINE kvi_mem_answer kvi_mem_try(const kv_mem *m, const kvi_mem_shard *s, kv_slice key, uint64_t hash, uint8_t *temp, size_t *size, uint64_t *expiry)
{
    uint32_t                 sequence = kvi_load_u32(&s->sequence), first;
    const kvi_mem_directory *d;
    const kvi_mem_chunks    *chunks;
    const kvi_mem_bucket    *segment, *b;
    if (KVI_UNLIKELY(sequence & 1)) return KVI_MEM_AGAIN;
    if (KVI_UNLIKELY(kvi_peek_u32(&s->reseeded) != 0)) hash = kvi_hash(key.data, key.size, kvi_peek_u64(&s->seed));
    d = (const kvi_mem_directory *)kvi_load_ptr(&s->directory);
    chunks = (const kvi_mem_chunks *)kvi_load_ptr(&s->chunks);
    segment = (const kvi_mem_bucket *)kvi_load_ptr(kvi_mem_segments(d) + kvi_mem_directory_index(d, kvi_mem_position(m, hash)));
    first = kvi_mem_home(hash);
    for (uint32_t distance = 0; distance <= d->mask; distance++) {
        uint32_t match;
        b = segment + ((first + distance) & d->mask);
        for (match = kvi_mem_match(b, kvi_mem_tag(hash)); match; match &= match - 1) {
            uint32_t       ref = kvi_peek_u32(&b->refs[kvi_lowest_bit32(match)]), head;
            const uint8_t *record, *value;
            if (!kvi_mem_unchanged(s, sequence)) return KVI_MEM_AGAIN;              /* M1: the reference is true */
            record = (const uint8_t *)kvi_load_ptr(kvi_mem_chunk_pointers(chunks) + kvi_mem_ref_chunk(ref)) + (size_t)kvi_mem_ref_offset(ref) * KVI_MEM_GRANULE;
            head = kvi_mem_word(record, 0);
            *size = kvi_mem_head_long(head) ? kvi_mem_word(record, 1) : head >> 20;
            if (!kvi_mem_unchanged(s, sequence)) return KVI_MEM_AGAIN;              /* M1: the sizes are true */
            if ((head & KVI_MEM_HEAD_KEY) != key.size || !kvi_mem_same(record + kvi_mem_head_key_at(head), key.data, key.size)) continue;
            value = record + kvi_mem_head_key_at(head) + key.size;
            *expiry = 0;
            if (head & KVI_MEM_HEAD_EXPIRES) kvi_shared_out(expiry, record + kvi_mem_head_expiry_at(head), sizeof *expiry);
            if (temp) {
                if (*size > KVI_MEM_TEMP) return KVI_MEM_LOCKED;
                kvi_shared_out(temp, value, *size);
            }
            return kvi_mem_unchanged(s, sequence) ? KVI_MEM_HERE : KVI_MEM_AGAIN;
        }
        if (!(kvi_mem_state(b) & kvi_mem_past(hash))) break;
    }
    return kvi_mem_unchanged(s, sequence) ? KVI_MEM_MISSING : KVI_MEM_AGAIN;
}
KVI_INLINE kvi_mem_answer kvi_mem_read(const kv_mem *m, kv_slice key, uint64_t hash, uint8_t *temp, size_t *size, uint64_t *expiry)
{
    const kvi_mem_shard *s = kvi_mem_shard_of(m, hash);
    uint32_t turns = 0;
    if (!kvi_mem_optimistic(m)) return KVI_MEM_LOCKED;
    while (turns < KVI_MEM_TRIES) {
        kvi_mem_answer answer = kvi_mem_try(m, s, key, hash, temp, size, expiry);
        if (answer != KVI_MEM_AGAIN) return answer;
        kvi_mem_wait(&turns);
    }
    return KVI_MEM_LOCKED;
}

/* Under the shared lock (none with one thread): find an entry that has not expired. True leaves the
   lock held. */
KVI_INLINE bool kvi_mem_read_begin(kv_mem *m, kvi_mem_shard *s, kv_slice key, uint64_t hash, kvi_mem_record *r)
{
    kvi_mem_spot spot;
    uint8_t     *at;
    kvi_mem_read_lock(m, s);
    if (kvi_mem_find(m, s, key, kvi_mem_rehash(s, key, hash), &spot, &at)) {
        *r = kvi_mem_record_at(at);
        if (!(r->head & KVI_MEM_HEAD_EXPIRES) || kvi_mem_clock(m) < r->expiry) {
            if (kvi_mem_limited(m) && !(kvi_peek_u32(&spot.bucket->state) & KVI_MEM_STATE_READ(spot.slot)))
                (void)kvi_or_u32(&spot.bucket->state, KVI_MEM_STATE_READ(spot.slot));
            return true;
        }
    }
    kvi_mem_read_unlock(m, s);
    return false;
}
KVI_NOINLINE kv_status kvi_mem_get_locked(kv_mem *m, kv_slice key, uint64_t hash, kv_buf *value)
{
    kvi_mem_shard *s = kvi_mem_shard_of(m, hash);
    kvi_mem_record r;
    kv_status      status;
    if (!kvi_mem_read_begin(m, s, key, hash, &r)) return KV_NOT_FOUND;
    if (r.large) {
        kvi_mem_large_hold(r.large);
        kvi_mem_read_unlock(m, s);
        status = kv_buf_assign(value, kvi_mem_record_value(&r));
        kvi_mem_large_release(m, r.large);
        return status;
    }
    status = kvi_mem_assign(value, r.inline_value, r.value_size);
    kvi_mem_read_unlock(m, s);
    return status;
}
KVI_NOINLINE kv_status kvi_mem_get_shared(kv_mem *m, kv_slice key, uint64_t hash, kv_buf *value)
{
    uint8_t   temp[KVI_MEM_TEMP];
    size_t    size = 0;
    uint64_t  expiry = 0;
    kv_status status = KV_NOT_FOUND;
    switch (kvi_mem_read(m, key, hash, temp, &size, &expiry)) {
    case KVI_MEM_HERE:
        if (!expiry || kvi_mem_clock(m) < expiry) status = kvi_mem_assign(value, temp, size);
        break;
    case KVI_MEM_MISSING: break;
    case KVI_MEM_AGAIN:
    case KVI_MEM_LOCKED:
    default: status = kvi_mem_get_locked(m, key, hash, value); break;
    }
    kvi_mem_count_read(m, status != KV_NOT_FOUND);
    return status;
}
KVI_NOINLINE kv_status kvi_mem_get_counted(kv_mem *m, kv_slice key, uint64_t hash, kv_buf *value)
{
    kv_status status = kvi_mem_get_locked(m, key, hash, value);
    kvi_mem_count_read(m, status != KV_NOT_FOUND);
    return status;
}
KVI_INLINE kv_status kvi_mem_get_optimistic(kv_mem *m, kv_slice key, uint64_t hash, kv_buf *value, const kvi_mem_lanes *brief)
{
    const kvi_mem_shard *s = kvi_mem_shard_of(m, hash);
    kvi_mem_glance       g;
    kvi_mem_seen         seen = kvi_mem_glance_at(s, key, hash, true, brief, &g);
    if (KVI_LIKELY(seen == KVI_MEM_SEEN)) {
        size_t size = g.head >> 20;
        if (KVI_LIKELY(size <= KVI_MEM_SMALL && size <= value->capacity)) {
            kvi_mem_small small = kvi_mem_small_load(g.at + 4 + key.size, size);
            if (KVI_LIKELY(kvi_mem_unchanged(s, g.sequence))) {
                kvi_mem_small_store((uint8_t *)value->data, small, size);
                value->size = size;
                kvi_mem_count_read(m, true);
                return KV_OK;
            }
        }
    } else if (KVI_LIKELY(seen == KVI_MEM_SEEN_NOT)) { kvi_mem_count_read(m, false); return KV_NOT_FOUND; }
    return kvi_mem_get_shared(m, key, hash, value);
}
KVI_INLINE kv_status kvi_mem_get_direct(kv_mem *m, kv_slice key, uint64_t hash, kv_buf *value, const kvi_mem_lanes *brief)
{
    kvi_mem_glance g;
    kvi_mem_seen   seen = kvi_mem_glance_at(kvi_mem_shard_of(m, hash), key, hash, false, brief, &g);
    if (KVI_LIKELY(seen == KVI_MEM_SEEN)) {
        size_t size = g.head >> 20;
        if (KVI_LIKELY(size <= KVI_MEM_SMALL && size <= value->capacity)) {
            kvi_mem_small_store((uint8_t *)value->data, kvi_mem_small_load(g.at + 4 + key.size, size), size);
            value->size = size;
            m->stripes->hits++;
            return KV_OK;
        }
        if (!kvi_mem_head_long(g.head)) { m->stripes->hits++; return kvi_mem_assign_far(value, g.at + 4 + key.size, size); }
    } else if (KVI_LIKELY(seen == KVI_MEM_SEEN_NOT)) { m->stripes->misses++; return KV_NOT_FOUND; }
    return kvi_mem_get_counted(m, key, hash, value);
}
/* By the map's kind. */
KVI_INLINE kv_status kvi_mem_get_hashed(kv_mem *m, kv_slice key, uint64_t hash, kv_buf *value)
{
#if KVI_MEM_LANES
    if (KVI_LIKELY(kvi_mem_in_lanes(key.size) && kvi_mem_direct(m))) {
        kvi_mem_lanes brief = kvi_mem_lanes_load(key.data, key.size);
        return kvi_mem_get_direct(m, key, hash, value, &brief);
    }
#endif
    if (!KVI_SMALL && kvi_mem_direct(m)) return kvi_mem_get_direct(m, key, hash, value, NULL);
    if (!KVI_SMALL && kvi_mem_optimistic(m)) return kvi_mem_get_optimistic(m, key, hash, value, NULL);
    return kvi_mem_concurrent(m) ? kvi_mem_get_shared(m, key, hash, value) : kvi_mem_get_counted(m, key, hash, value);
}
KVI_NOINLINE kv_status kvi_mem_get_far(kv_mem *m, kv_slice key, kv_buf *value) { return kvi_mem_get_hashed(m, key, kvi_mem_hash(m, key), value); }
#if KVI_MEM_LANES
KVI_NOINLINE kv_status kvi_mem_get_brief(kv_mem *m, kv_slice key, kv_buf *value)    /* several threads, a short key */
{
    kvi_mem_lanes brief = kvi_mem_lanes_load(key.data, key.size);
    return kvi_mem_get_optimistic(m, key, kvi_mem_lanes_hash(m->secrets, &brief, key.size), value, &brief);
}
#endif

/* The entry as a callback's slices: they point into the map (one thread), to a large value that is held, or
   into `copy`. End it with kvi_mem_look_end. */
typedef struct kvi_mem_look { kv_slice value; kvi_mem_large *held; kv_buf copy; uint64_t expiry; } kvi_mem_look;

KVI_PRIVATE kv_status kvi_mem_look_begin(kv_mem *m, kv_slice key, uint64_t hash, bool want_value, kvi_mem_look *look)
{
    kvi_mem_shard *s = kvi_mem_shard_of(m, hash);
    kvi_mem_record r;
    kv_status      status = KV_OK;
    memset(look, 0, sizeof *look);
    look->copy.allocator = m->allocator;
    if (!kvi_mem_read_begin(m, s, key, hash, &r)) return KV_NOT_FOUND;
    look->expiry = r.expiry;
    if (!want_value) { kvi_mem_read_unlock(m, s); return KV_OK; }
    look->value = kvi_mem_record_value(&r);
    if (!kvi_mem_concurrent(m)) { m->busy++; return KV_OK; }
    if (r.large) { look->held = r.large; kvi_mem_large_hold(r.large); }
    else {
        status = kv_buf_assign(&look->copy, look->value);
        look->value = kv_buf_slice(&look->copy);
    }
    kvi_mem_read_unlock(m, s);
    return status;
}
KVI_PRIVATE void kvi_mem_look_end(kv_mem *m, kvi_mem_look *look)
{
    if (!kvi_mem_concurrent(m)) m->busy--;
    if (look->held) kvi_mem_large_release(m, look->held);
    kv_buf_free(&look->copy);
}

KVI_PRIVATE kv_status kvi_mem_view(kv_mem *m, kv_slice key, kv_visit_fn visit, void *user)
{
    uint8_t      temp[KVI_MEM_TEMP];
    size_t       size = 0;
    uint64_t     expiry = 0, hash = kvi_mem_hash(m, key);
    kv_status    status = KV_NOT_FOUND;
    kvi_mem_look look;
    switch (kvi_mem_read(m, key, hash, temp, &size, &expiry)) {
    case KVI_MEM_HERE:
        if (expiry && kvi_mem_clock(m) >= expiry) break;
        kvi_mem_count_read(m, true);
        (void)visit(user, key, kv_bytes(temp, size));
        return KV_OK;
    case KVI_MEM_MISSING: break;
    case KVI_MEM_AGAIN:
    case KVI_MEM_LOCKED:
    default:
        status = kvi_mem_look_begin(m, key, hash, true, &look);
        if (status != KV_OK) break;
        kvi_mem_count_read(m, true);
        (void)visit(user, key, look.value);
        kvi_mem_look_end(m, &look);
        return KV_OK;
    }
    if (status == KV_NOT_FOUND) kvi_mem_count_read(m, false);
    return status;
}

/* Is it there, and when does it expire? (0: never) */
KVI_PRIVATE kv_status kvi_mem_expiry_of(kv_mem *m, kv_slice key, uint64_t *expiry)
{
    uint64_t     hash = kvi_mem_hash(m, key);
    size_t       size;
    kv_status    status;
    kvi_mem_look look;
    *expiry = 0;
    switch (kvi_mem_read(m, key, hash, NULL, &size, expiry)) {
    case KVI_MEM_HERE:
        return !*expiry || kvi_mem_clock(m) < *expiry ? KV_OK : KV_NOT_FOUND;
    case KVI_MEM_MISSING: return KV_NOT_FOUND;
    case KVI_MEM_AGAIN:
    case KVI_MEM_LOCKED:
    default: break;
    }
    status = kvi_mem_look_begin(m, key, hash, false, &look);
    *expiry = look.expiry;
    return status;
}

/* Fetching ahead in a group of keys, as three steps that follow each other at a distance: hash a key and fetch its
   bucket; find its record's place there and fetch it; do what is to be done with it. So the memory works while
   the processor hashes. All of it is a guess: nothing here is believed. */
typedef struct kvi_mem_ahead { uint64_t hashes[KVI_MEM_BATCH]; const kvi_mem_bucket *buckets[KVI_MEM_BATCH]; } kvi_mem_ahead;

#define KVI_MEM_AHEAD_ALL (2 * KVI_MEM_AHEAD)       /* how far the first step is before the last */

/* The lines of a record, up to 192 bytes of it, whose value has up to 8; without a branch, as sizes are not to be guessed. */
KVI_INLINE void kvi_mem_prefetch_record(const uint8_t *record, size_t key_size)
{
    size_t last = 4 + key_size + 7, middle = last < KVI_MEM_LINE ? last : KVI_MEM_LINE;
    kvi_prefetch(record);
    kvi_prefetch((const void *)((uintptr_t)record + middle));
    kvi_prefetch((const void *)((uintptr_t)record + last));
}
KVI_INLINE const kvi_mem_bucket *kvi_mem_ahead_bucket(const kv_mem *m, uint64_t hash)
{
    return kvi_mem_bucket_of((const kvi_mem_directory *)kvi_load_ptr(&kvi_mem_shard_of(m, hash)->directory), hash);
}
KVI_INLINE void kvi_mem_ahead_record(const kvi_mem_shard *s, const kvi_mem_bucket *b, uint64_t hash, size_t key_size)
{
    uint32_t              match = kvi_mem_match(b, kvi_mem_tag(hash)), ref;
    const kvi_mem_chunks *chunks = (const kvi_mem_chunks *)kvi_load_ptr(&s->chunks);
    uintptr_t             record;
    if (!match) return;
    ref = kvi_peek_u32(&b->refs[kvi_lowest_bit32(match)]);
    if (!chunks || kvi_mem_ref_chunk(ref) >= chunks->capacity) return;
    record = (uintptr_t)kvi_load_ptr(kvi_mem_chunk_pointers(chunks) + kvi_mem_ref_chunk(ref)) + (size_t)kvi_mem_ref_offset(ref) * KVI_MEM_GRANULE;
    kvi_mem_prefetch_record((const uint8_t *)record, key_size);
}
/* The first step for key i of `count`, the second for the one that is KVI_MEM_AHEAD before it. */
KVI_INLINE void kvi_mem_ahead_step(kv_mem *m, kvi_mem_ahead *a, const kv_slice *keys, size_t key_stride, size_t count, size_t i)
{
    size_t then = i - KVI_MEM_AHEAD;
    if (i < count) {
        const kv_slice *key = (const kv_slice *)(const void *)((const uint8_t *)keys + i * key_stride);
        a->hashes[i] = kvi_mem_hash(m, *key);
        a->buckets[i] = kvi_mem_ahead_bucket(m, a->hashes[i]);
        kvi_prefetch(a->buckets[i]);
    }
    if (i >= KVI_MEM_AHEAD && then < count) {
        const kv_slice *key = (const kv_slice *)(const void *)((const uint8_t *)keys + then * key_stride);
        kvi_mem_shard  *s = kvi_mem_shard_of(m, a->hashes[then]);
        if (!kvi_mem_limited(m)) { kvi_mem_ahead_record(s, a->buckets[then], a->hashes[then], key->size); return; }
        kvi_mem_read_lock(m, s);                                    /* there, buckets do not stay */
        kvi_mem_ahead_record(s, kvi_mem_ahead_bucket(m, a->hashes[then]), a->hashes[then], key->size);
        kvi_mem_read_unlock(m, s);
    }
}

/* How many of the next keys are keys, up to a group. If it is the first that is none: *status. */
KVI_INLINE size_t kvi_mem_group(const kv_slice *keys, size_t key_stride, size_t count, kv_status *status)
{
    size_t n = 0;
    if (count > KVI_MEM_BATCH) count = KVI_MEM_BATCH;
    for (; n < count; n++) {
        kv_slice key = *(const kv_slice *)(const void *)((const uint8_t *)keys + n * key_stride);
        if (!kvi_mem_is_key(key)) { *status = kv_check_key(key); break; }
    }
    return n;
}

/* ---- the same with one thread ----

   Nothing moves between the steps, so the record that the second one finds need only be compared. Each step
   does a handful of keys in a row: so what it needs stays in registers.                              */

typedef struct kvi_mem_aim { uint64_t hash; const kvi_mem_bucket *bucket; const uint8_t *record; } kvi_mem_aim;

KVI_INLINE void kvi_mem_aim_buckets(const kv_mem *m, kvi_mem_aim *aims, const kv_slice *keys, size_t from, size_t count)
{
    for (size_t i = from, to = KVI_MEM_MIN(from + KVI_MEM_AIM, count); i < to; i++) {
        if (i + 2 * KVI_MEM_AIM < count) kvi_prefetch(keys[i + 2 * KVI_MEM_AIM].data);
        aims[i].hash = kvi_mem_hash(m, keys[i]);
        aims[i].bucket = kvi_mem_ahead_bucket(m, aims[i].hash);
        kvi_prefetch(aims[i].bucket);
    }
}
KVI_INLINE void kvi_mem_aim_records(const kv_mem *m, kvi_mem_aim *aims, const kv_slice *keys, size_t from, size_t count)
{
    for (size_t i = from, to = KVI_MEM_MIN(from + KVI_MEM_AIM, count); i < to; i++) {
        uint32_t match = kvi_mem_match(aims[i].bucket, kvi_mem_tag(aims[i].hash));
        aims[i].record = NULL;
        if (KVI_UNLIKELY(!match)) continue;
        aims[i].record = kvi_mem_at(kvi_mem_shard_of(m, aims[i].hash), aims[i].bucket->refs[kvi_lowest_bit32(match)]);
        kvi_mem_prefetch_record(aims[i].record, keys[i].size);
    }
}
KVI_INLINE kv_status kvi_mem_aim_get(kv_mem *m, const kvi_mem_aim *aim, kv_slice key, kv_buf *value)
{
    if (KVI_LIKELY(aim->record != NULL)) {
        uint32_t head = kvi_mem_word(aim->record, 0);
        size_t   size = head >> 20;
        if (KVI_LIKELY((head & (KVI_MEM_HEAD_KEY | KVI_MEM_HEAD_EXPIRES | KVI_MEM_HEAD_LARGE)) == key.size && !kvi_mem_head_long(head)
            && kvi_mem_same(aim->record + 4, key.data, key.size))) {
            m->stripes->hits++;
            return kvi_mem_assign(value, aim->record + 4 + key.size, size);
        }
    } else if (KVI_LIKELY(!(aim->bucket->state & kvi_mem_past(aim->hash)) && !kvi_mem_shard_of(m, aim->hash)->reseeded)) {
        m->stripes->misses++;
        return KV_NOT_FOUND;
    }
    return kvi_mem_get_counted(m, key, aim->hash, value);
}
KVI_NOINLINE kv_status kvi_mem_batch_get_direct(kv_mem *m, const kv_slice *keys, size_t count, kv_buf *values, kv_status *statuses)
{
    kvi_mem_aim aims[KVI_MEM_BATCH];
    kv_status   first = KV_OK;
    for (size_t at = 0; at < count + 2 * KVI_MEM_AIM; at += KVI_MEM_AIM) {
        kvi_mem_aim_buckets(m, aims, keys, at, count);
        if (at >= KVI_MEM_AIM) kvi_mem_aim_records(m, aims, keys, at - KVI_MEM_AIM, count);
        if (at < 2 * KVI_MEM_AIM) continue;
        for (size_t i = at - 2 * KVI_MEM_AIM, to = KVI_MEM_MIN(i + KVI_MEM_AIM, count); i < to; i++) {
            kv_status status = kvi_mem_aim_get(m, aims + i, keys[i], values + i);
            if (statuses) statuses[i] = status;
            if (KVI_UNLIKELY(status < 0) && first == KV_OK) first = status;
        }
    }
    return first;
}

KVI_PRIVATE kv_status kvi_mem_batch_get_each(kv_mem *m, const kv_slice *keys, size_t count, kv_buf *values, kv_status *statuses)
{
    kv_status first = KV_OK;
    for (size_t i = 0; i < count; i++) {
        kv_status status = kv_mem_get(m, keys[i], values + i);
        if (statuses) statuses[i] = status;
        if (status < 0 && first == KV_OK) first = status;
    }
    return first;
}
KVI_PRIVATE kv_status kvi_mem_batch_get(kv_mem *m, const kv_slice *keys, size_t count, kv_buf *values, kv_status *statuses)
{
    kvi_mem_ahead a;
    kv_status     first = KV_OK, bad = KV_OK;
    if (KVI_SMALL) return kvi_mem_batch_get_each(m, keys, count, values, statuses);
    for (size_t done = 0; done < count;) {
        size_t n = kvi_mem_group(keys + done, sizeof *keys, count - done, &bad);
        if (!n) {
            if (statuses) statuses[done] = bad;
            if (first == KV_OK) first = kvi_error_set(&m->error, bad, NULL);
            done++;
            continue;
        }
        if (!KVI_SMALL && kvi_mem_direct(m)) {
            kv_status status = kvi_mem_batch_get_direct(m, keys + done, n, values + done, statuses ? statuses + done : NULL);
            if (status < 0 && first == KV_OK) first = status;
            done += n;
            continue;
        }
        for (size_t step = 0; step < n + KVI_MEM_AHEAD_ALL; step++) {
            size_t    i = step - KVI_MEM_AHEAD_ALL;
            kv_status status;
            kvi_mem_ahead_step(m, &a, keys + done, sizeof *keys, n, step);
            if (step < KVI_MEM_AHEAD_ALL) continue;
            status = kvi_mem_get_hashed(m, keys[done + i], a.hashes[i], &values[done + i]);
            if (statuses) statuses[done + i] = status;
            if (status < 0 && first == KV_OK) first = status;
        }
        done += n;
    }
    return first;
}

/* ------------------------------------------------------------------------------------------------
   >>write   set and its kin: one request, made under the shard's lock                             */

typedef enum kvi_mem_verdict { KVI_MEM_LEAVE, KVI_MEM_STORE, KVI_MEM_DROP, KVI_MEM_RENEW } kvi_mem_verdict;   /* RENEW: only the expiry is stored */
struct kvi_mem_request;

/* What a request makes of the entry as it is (old: found). It changes the verdict where that is not STORE; so a
   program has the code only of those kinds of writes that it calls. */
typedef kv_status (*kvi_mem_decide_fn)(struct kvi_mem_request *r, bool found, const kvi_mem_record *old, kvi_mem_verdict *verdict);

typedef struct kvi_mem_request {
    kvi_mem_decide_fn decide;               /* NULL: set */
    bool         keeps;                     /* the time to live that there is */
    kv_slice     key, value, expected;
    uint64_t     ttl_ms;                    /* 0: none */
    int64_t      delta, result;
    kv_update_fn fn;
    void        *user;
    kv_buf       made;                      /* by fn */
    uint8_t      number[KVI_TYPED_SCALAR_MAX];
    size_t       need;                      /* bytes that it could not get */
    kv_event     event;                     /* what it did; 0: nothing to tell */
} kvi_mem_request;

KVI_INLINE void kvi_mem_request_new(kvi_mem_request *r, kvi_mem_decide_fn decide, bool keeps, kv_slice key)
{
    r->decide = decide;
    r->keeps = keeps;
    r->key = key;
    r->value = r->expected = kv_bytes(NULL, 0);
    r->ttl_ms = 0;
    r->need = 0;
    r->event = (kv_event)0;
}

/* Make sure of a free slot for hash: near home if memory allows it, else anywhere in its segment. */
KVI_NOINLINE kv_status kvi_mem_slot_grow(kvi_mem_work *w, uint64_t *hash, kv_slice key, kvi_mem_spot *spot)
{
    kv_mem        *m = w->m;
    kvi_mem_shard *s = w->s;
    for (;;) {
        uint64_t  ignored = UINT64_MAX;
        kv_status status;
        *spot = kvi_mem_spot_home(m, s, *hash);
        if (kvi_mem_spot_free(spot, *hash, KVI_MEM_PROBE_MAX)) return KV_OK;
        if (kvi_mem_expiring(s) && !m->loading && kvi_mem_purge_segment(w, spot->segment, spot->mask, SIZE_MAX, &ignored)) continue;
        if (spot->mask > 4 * KVI_MEM_PROBE_MAX && kvi_mem_segment_count(spot->segment, spot->mask) < (spot->mask + 1) * KVI_MEM_SLOTS * 3 / 8) {
            /* so full around here, and yet so empty: keys collide */
            if (s->scanners || m->loading || s->count < s->reseed_at || kvi_mem_reseed(m, s) < 0) break;
            *hash = kvi_mem_rehash(s, key, *hash);
            continue;
        }
        status = spot->mask + 1 < KVI_MEM_SEGMENT ? kvi_mem_segment_double(m, s) : kvi_mem_segment_split(m, s, *hash);
        if (status < 0) break;
    }
    if (kvi_mem_spot_free(spot, *hash, spot->mask)) return KV_OK;
    if (!kvi_mem_limited(m) || m->loading) return KV_ERR_NO_MEMORY;
    return kvi_mem_evict_home(w, spot, *hash) ? KV_OK : KV_ERR_NO_MEMORY;
}
KVI_INLINE kv_status kvi_mem_slot(kvi_mem_work *w, uint64_t *hash, kv_slice key, kvi_mem_spot *spot)
{
    return KVI_LIKELY(kvi_mem_spot_free(spot, *hash, KVI_MEM_PROBE_MAX)) ? KV_OK : kvi_mem_slot_grow(w, hash, key, spot);
}

/* As kvi_shared_in; `brief`: at most KVI_MEM_LANES_MAX bytes, and these without a call. */
KVI_INLINE void kvi_mem_copy_in(uint8_t *to, const void *from, size_t size, bool brief)
{
#if KVI_MEM_LANES && !KVI_TSAN
    if (brief && size <= KVI_MEM_SMALL) { kvi_mem_small_store(to, kvi_mem_small_load((const uint8_t *)from, size), size); return; }
    if (brief) {
        kvi_mem_lanes bytes = kvi_mem_lanes_load(from, size);
        kvi_mem_lanes_store(to, &bytes);
        return;
    }
#endif
    (void)brief;
    kvi_shared_in(to, from, size);
}
KVI_INLINE void kvi_mem_record_write(const kvi_mem_shard *s, uint32_t ref, uint32_t head, kv_slice key, kv_slice value, const kvi_mem_large *large, uint64_t expiry)
{
    uint8_t *at = kvi_mem_at(s, ref), *bytes = at + kvi_mem_head_key_at(head);
    kvi_mem_word_set(at, 0, head);
    if (kvi_mem_head_long(head)) kvi_mem_word_set(at, 1, (uint32_t)value.size);
    if (head & KVI_MEM_HEAD_EXPIRES) kvi_shared_in(at + kvi_mem_head_expiry_at(head), &expiry, sizeof expiry);
    kvi_shared_in(bytes, key.data, key.size);
    if (large) kvi_shared_in(bytes + key.size, &large, sizeof large);
    else kvi_shared_in(bytes + key.size, value.data, value.size);
}

/* The new value has the old one's layout: write it in place. */
KVI_INLINE void kvi_mem_overwrite(kvi_mem_work *w, const kvi_mem_spot *spot, const kvi_mem_record *old, kv_slice value, uint64_t expiry, uint32_t head)
{
    kvi_mem_shard *s = w->s;
    kvi_mem_begin(w->m, s);
    kvi_mem_word_set(old->at, 0, head | (old->head & KVI_MEM_HEAD_NEW));
    if (kvi_mem_head_long(head)) kvi_mem_word_set(old->at, 1, (uint32_t)value.size);
    if (expiry) kvi_shared_in(old->at + kvi_mem_head_expiry_at(head), &expiry, sizeof expiry);
    kvi_shared_in(old->inline_value, value.data, value.size);
    kvi_mem_end(w->m, s);
    s->value_bytes += value.size;
    s->value_bytes -= old->value_size;
    if (expiry && expiry < s->next_expiry) s->next_expiry = expiry;
    if (expiry && expiry < s->sweep_next) s->sweep_next = expiry;
    if (kvi_mem_limited(w->m)) kvi_poke_u32(&spot->bucket->state, spot->bucket->state | KVI_MEM_STATE_READ(spot->slot));
}

/* Make value (NULL: the one that it has) and expiry those of key. `found`: it is at spot.
   1. in place, where nothing else changes     2. get all memory: a large block, a slot, a record
   3. write the record, which nobody sees      4. publish it     5. free what it replaces            */
KVI_PRIVATE kv_status kvi_mem_store(kvi_mem_work *w, kvi_mem_spot *spot, bool found, kv_slice key, uint64_t hash, const kv_slice *value, uint64_t expiry, size_t *need)
{
    kv_mem        *m = w->m;
    kvi_mem_shard *s = w->s;
    kvi_mem_record old, made;
    kvi_mem_large *large = NULL;
    kv_slice       bytes;
    size_t         value_size;
    uint32_t       head, granules, ref, old_ref = KVI_MEM_NOWHERE, state;
    if (found) old = kvi_mem_record_at(kvi_mem_at(s, kvi_mem_spot_ref(spot)));
    else memset(&old, 0, sizeof old);
    value_size = value ? value->size : old.value_size;
    head = kvi_mem_head_make(key.size, value_size, expiry != 0);
    granules = kvi_mem_head_granules(head, value_size);
    /* 1. */
    if (found && value && granules == old.granules && !((head | old.head) & KVI_MEM_HEAD_LARGE)
        && kvi_mem_head_long(head) == kvi_mem_head_long(old.head) && !((head ^ old.head) & KVI_MEM_HEAD_EXPIRES)) {
        kvi_mem_overwrite(w, spot, &old, *value, expiry, head);
        return KV_OK;
    }
    /* 2. */
    *need = (size_t)granules * KVI_MEM_GRANULE * 2 + 1024 + (value && (head & KVI_MEM_HEAD_LARGE) ? value_size : 0);
    if (head & KVI_MEM_HEAD_LARGE) {
        large = value ? kvi_mem_large_new(m, s, *value) : old.large;
        if (!large) return KV_ERR_NO_MEMORY;
    }
    ref = KVI_MEM_NOWHERE;
    if (found || kvi_mem_slot(w, &hash, key, spot) == KV_OK) ref = kvi_mem_block_new(w, granules, spot);
    if (ref == KVI_MEM_NOWHERE) {
        if (large && value) kvi_mem_large_drop(m, s, large);
        return KV_ERR_NO_MEMORY;
    }
    /* 3. */
    if (found) {
        old_ref = kvi_mem_spot_ref(spot);                           /* it may have moved */
        old = kvi_mem_record_at(kvi_mem_at(s, old_ref));
    }
    bytes = value ? *value : kvi_mem_record_value(&old);
    kvi_mem_record_write(s, ref, head | (kvi_mem_limited(m) ? KVI_MEM_HEAD_NEW : 0), key, bytes, large, expiry);
    /* 4. */
    made = kvi_mem_record_at(kvi_mem_at(s, ref));
    state = expiry ? KVI_MEM_STATE_EXPIRES(spot->slot) : 0;
    kvi_mem_begin(m, s);
    if (found) {
        kvi_poke_u32(&spot->bucket->refs[spot->slot], ref);
        kvi_poke_u32(&spot->bucket->state, (spot->bucket->state & ~KVI_MEM_STATE_EXPIRES(spot->slot)) | state);
    } else kvi_mem_spot_fill(m, spot, hash, ref, state);
    kvi_mem_end(m, s);
    kvi_mem_count_in(s, &made);
    /* 5. */
    if (found) {
        kvi_mem_count_out(s, &old);
        if (old.large && old.large != large) kvi_mem_large_drop(m, s, old.large);
        kvi_mem_block_free(m, s, old_ref, old.granules);
    }
    return KV_OK;
}

KVI_PRIVATE uint64_t kvi_mem_expiry_from(kvi_mem_work *w, uint64_t ttl_ms)
{
    uint64_t now;
    if (!KVI_MEM_TTL || !ttl_ms) return 0;
    now = kvi_mem_now(w);
    return ttl_ms > UINT64_MAX - now ? UINT64_MAX : now + ttl_ms;
}

/* ---- the kinds ---- */

KVI_PRIVATE kv_status kvi_mem_decide_insert(kvi_mem_request *r, bool found, const kvi_mem_record *old, kvi_mem_verdict *verdict)
{
    (void)r; (void)old;
    if (found) *verdict = KVI_MEM_LEAVE;
    return found ? KV_EXISTS : KV_OK;
}
KVI_PRIVATE kv_status kvi_mem_decide_compare(kvi_mem_request *r, bool found, const kvi_mem_record *old, kvi_mem_verdict *verdict)
{
    if (found && kv_equal(kvi_mem_record_value(old), r->expected)) return KV_OK;
    *verdict = KVI_MEM_LEAVE;
    return found ? KV_ERR_CONFLICT : KV_NOT_FOUND;
}
/* The new value's encoding, in r->number. */
KVI_PRIVATE kv_status kvi_mem_decide_increment(kvi_mem_request *r, bool found, const kvi_mem_record *old, kvi_mem_verdict *verdict)
{
    kv_value v;
    memset(&v, 0, sizeof v);
    v.type = KV_INT64;
    *verdict = KVI_MEM_LEAVE;
    if (found && (kv_value_decode(kvi_mem_record_value(old), &v) < 0 || v.type != KV_INT64)) return KV_ERR_WRONG_TYPE;
    if (r->delta > 0 ? v.as.int64 > INT64_MAX - r->delta : v.as.int64 < INT64_MIN - r->delta) return KV_ERR_INVALID;
    v.as.int64 += r->delta;
    r->result = v.as.int64;
    r->value = kv_bytes(r->number, kvi_value_encode_scalar(&v, r->number));
    *verdict = KVI_MEM_STORE;
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_mem_decide_update(kvi_mem_request *r, bool found, const kvi_mem_record *old, kvi_mem_verdict *verdict)
{
    kv_status status;
    r->made.size = 0;
    status = r->fn(r->user, found, found ? kvi_mem_record_value(old) : kv_bytes(NULL, 0), &r->made);
    r->value = kv_buf_slice(&r->made);
    if (status == KV_OK) status = kv_check_value(r->value);
    if (status == KV_OK) return KV_OK;
    *verdict = status == KV_NOT_FOUND && found ? KVI_MEM_DROP : KVI_MEM_LEAVE;
    if (status == KV_NOT_FOUND) return KV_OK;
    return status > 0 ? KV_ERR_INVALID : status;
}
KVI_PRIVATE kv_status kvi_mem_decide_remove(kvi_mem_request *r, bool found, const kvi_mem_record *old, kvi_mem_verdict *verdict)
{
    (void)r; (void)old;
    *verdict = found ? KVI_MEM_DROP : KVI_MEM_LEAVE;
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_mem_decide_expire(kvi_mem_request *r, bool found, const kvi_mem_record *old, kvi_mem_verdict *verdict)
{
    (void)r; (void)old;
    *verdict = found ? KVI_MEM_RENEW : KVI_MEM_LEAVE;
    return found ? KV_OK : KV_NOT_FOUND;
}

/* 1. lock, and find what has not expired     2. decide     3. store or remove                     */
KVI_INLINE kv_status kvi_mem_write_once(kvi_mem_work *w, kvi_mem_request *r, uint64_t hash)
{
    kvi_mem_shard  *s = w->s;
    kvi_mem_spot    spot;
    kvi_mem_record  old;
    kvi_mem_verdict verdict = KVI_MEM_STORE;
    uint64_t        expiry = 0;
    uint8_t        *at;
    bool            found;
    kv_status       status = KV_OK;
    /* 1. */
    kvi_mem_lock(w->m, s);
    hash = kvi_mem_rehash(s, r->key, hash);
    found = kvi_mem_find(w->m, s, r->key, hash, &spot, &at);
    if (found) {
        old = kvi_mem_record_at(at);
        if (KVI_UNLIKELY(kvi_mem_expired(w, &old))) {
            if (!kvi_mem_pend(w, KV_EVENT_EXPIRE, r->key)) { kvi_mem_unlock(w->m, s); return KV_ERR_NO_MEMORY; }
            kvi_mem_remove(w->m, s, &spot, &old, hash);
            s->expired++;
            found = kvi_mem_find(w->m, s, r->key, hash, &spot, &at);
        }
    }
    /* 2. */
    if (r->decide) status = r->decide(r, found, &old, &verdict);
    /* 3. */
    if (verdict == KVI_MEM_DROP) {
        kvi_mem_remove(w->m, s, &spot, &old, hash);
        r->event = KV_EVENT_DELETE;
    } else if (verdict != KVI_MEM_LEAVE) {
        expiry = r->keeps ? (found ? old.expiry : 0) : kvi_mem_expiry_from(w, r->ttl_ms);
        status = kvi_mem_store(w, &spot, found, r->key, hash, verdict == KVI_MEM_RENEW ? NULL : &r->value, expiry, &r->need);
        if (status == KV_OK && verdict == KVI_MEM_STORE) r->event = KV_EVENT_SET;
    }
    kvi_mem_unlock(w->m, s);
    return status;
}

/* A write in a limited map that found no room: make some, and try again. */
KVI_NOINLINE kv_status kvi_mem_write_again(kvi_mem_work *w, kvi_mem_request *r, uint64_t hash)
{
    kv_mem   *m = w->m;
    kv_status status = KV_ERR_NO_MEMORY;
    for (uint32_t tries = 0; tries < 16 + 4 * m->shard_count && status == KV_ERR_NO_MEMORY; tries++) {
        if (r->need > m->limit || r->need > m->limit - m->base_bytes) return KV_ERR_TOO_LARGE;
        if (!kvi_mem_make_room(w, r->need)) return KV_ERR_NO_MEMORY;
        status = kvi_mem_write_once(w, r, hash);
    }
    return status;
}
KVI_NOINLINE kv_status kvi_mem_write_watched(kvi_mem_work *w, kvi_mem_request *r, uint64_t hash)
{
    kv_status status;
    kvi_mutex_lock(&w->m->watch_mutex);
    w->watched = true;
    status = kvi_mem_write_once(w, r, hash);
    if (KVI_UNLIKELY(status == KV_ERR_NO_MEMORY) && kvi_mem_limited(w->m)) status = kvi_mem_write_again(w, r, hash);
    kvi_mem_watch_tell(w->m);
    if (r->event) kvi_mem_watch_call(w->m, r->event, r->key, r->event == KV_EVENT_SET ? r->value : kv_bytes(NULL, 0));
    kvi_mem_watch_leave(w->m);
    return status;
}
KVI_INLINE kv_status kvi_mem_write(kv_mem *m, kvi_mem_request *r, uint64_t hash)
{
    kvi_mem_work w;
    kv_status    status;
    w.m = m;
    w.s = kvi_mem_shard_of(m, hash);
    w.now = 0;
    w.watched = false;
    if (KVI_UNLIKELY(!kvi_mem_may_write(m))) return kvi_error_set(&m->error, KV_ERR_INVALID, "write from inside a callback of this map");
    if (kvi_mem_watched(m)) return kvi_mem_write_watched(&w, r, hash);
    status = kvi_mem_write_once(&w, r, hash);
    if (KVI_UNLIKELY(status == KV_ERR_NO_MEMORY) && kvi_mem_limited(m)) status = kvi_mem_write_again(&w, r, hash);
    return status;
}

/* ---- the short way: see kvi_mem_glance ----

   1. look, with no lock: what there is to wait for is waited for outside of it     2. lock; if nothing
   changed since, what was seen is so     3. do it, if it needs nothing but what is at hand; false: the long
   way, nothing was done                                                                             */

/* May a write of this map take it? */
KVI_INLINE bool kvi_mem_short(const kv_mem *m) { return !KVI_SMALL && !m->busy && !kvi_mem_watched(m); }

KVI_INLINE void kvi_mem_short_begin(kvi_mem_shard *s, bool optimistic)
{
    if (!optimistic) return;
    kvi_poke_u32(&s->sequence, s->sequence + 1);
    kvi_fence_release();
}
KVI_INLINE void kvi_mem_short_end(kvi_mem_shard *s, bool optimistic) { if (optimistic) kvi_store_u32(&s->sequence, s->sequence + 1); }
KVI_INLINE void kvi_mem_short_unlock(kvi_mem_shard *s, bool optimistic) { if (optimistic) kvi_store_u32(&s->lock, 0); }
KVI_INLINE kvi_mem_seen kvi_mem_glance_locked(kvi_mem_shard *s, kv_slice key, uint64_t hash, bool optimistic, const kvi_mem_lanes *brief, kvi_mem_glance *g)
{
    kvi_mem_seen seen = kvi_mem_glance_at(s, key, hash, optimistic, brief, g);
    if (!optimistic || KVI_UNLIKELY(seen == KVI_MEM_UNSEEN)) return seen;
    if (KVI_UNLIKELY(!kvi_cas_u32(&s->lock, 0, KVI_MEM_LOCK_WRITER))) return KVI_MEM_UNSEEN;
    if (KVI_LIKELY(s->sequence == g->sequence)) return seen;
    kvi_mem_short_unlock(s, optimistic);
    return KVI_MEM_UNSEEN;
}
/* The same size in granules: over the old value. Else the new entry, into its home bucket. */
KVI_INLINE bool kvi_mem_set_here(kvi_mem_shard *s, bool optimistic, const kvi_mem_glance *g, kv_slice key, kv_slice value, const kvi_mem_lanes *brief)
{
    uint32_t head = kvi_mem_plain_head(key.size, value.size);
    if (kvi_mem_head_long(g->head)) return false;
    if (kvi_mem_plain_granules(key.size, value.size) != kvi_mem_plain_granules(key.size, g->head >> 20)) return false;
    kvi_mem_short_begin(s, optimistic);
    if (head != g->head) {
        kvi_mem_word_set(g->at, 0, head);
        s->value_bytes += value.size;
        s->value_bytes -= g->head >> 20;
    }
    kvi_mem_copy_in(g->at + 4 + key.size, value.data, value.size, brief != NULL);
    kvi_mem_short_end(s, optimistic);
    return true;
}
KVI_INLINE bool kvi_mem_set_new(kvi_mem_shard *s, bool optimistic, const kvi_mem_glance *g, uint64_t hash, kv_slice key, kv_slice value, const kvi_mem_lanes *brief)
{
    uint32_t empty = kvi_mem_match(g->bucket, 0), ref, slot;
    uint8_t *at;
    if (KVI_UNLIKELY(!empty)) return false;
    ref = kvi_mem_block_quick(s, kvi_mem_plain_granules(key.size, value.size));
    if (KVI_UNLIKELY(ref == KVI_MEM_NOWHERE)) return false;
    at = kvi_mem_at(s, ref);
    kvi_mem_word_set(at, 0, kvi_mem_plain_head(key.size, value.size));
#if KVI_MEM_LANES && !KVI_TSAN
    if (brief) kvi_mem_lanes_store(at + 4, brief);
    else
#endif
    kvi_mem_copy_in(at + 4, key.data, key.size, false);
    kvi_mem_copy_in(at + 4 + key.size, value.data, value.size, brief != NULL);
    slot = kvi_lowest_bit32(empty);
    kvi_mem_short_begin(s, optimistic);
    kvi_poke_u32(&g->bucket->refs[slot], ref);
    kvi_poke_u8(&g->bucket->tags[slot], kvi_mem_tag(hash));
    kvi_mem_short_end(s, optimistic);
    kvi_poke_size(&s->count, s->count + 1);
    s->key_bytes += key.size;
    s->value_bytes += value.size;
    return true;
}
KVI_INLINE bool kvi_mem_set_short(kv_mem *m, kv_slice key, kv_slice value, uint64_t hash, bool optimistic, const kvi_mem_lanes *brief)
{
    kvi_mem_shard *s = kvi_mem_shard_of(m, hash);
    kvi_mem_glance g;
    kvi_mem_seen   seen;
    bool           done;
    if (!kvi_mem_short(m) || value.size >= KVI_MEM_HEAD_LONG) return false;
    seen = kvi_mem_glance_locked(s, key, hash, optimistic, brief, &g);
    if (KVI_UNLIKELY(seen == KVI_MEM_UNSEEN)) return false;
    done = seen == KVI_MEM_SEEN ? kvi_mem_set_here(s, optimistic, &g, key, value, brief) : kvi_mem_set_new(s, optimistic, &g, hash, key, value, brief);
    kvi_mem_short_unlock(s, optimistic);
    return done;
}
KVI_NOINLINE bool kvi_mem_remove_chunk(kv_mem *m, kvi_mem_shard *s, uint32_t chunk)     /* its last entry went */
{
    kvi_mem_chunk_empty(m, s, chunk);
    kvi_mem_unlock(m, s);
    return true;
}
KVI_INLINE bool kvi_mem_remove_short(kv_mem *m, kv_slice key, uint64_t hash, bool optimistic, const kvi_mem_lanes *brief)
{
    kvi_mem_shard *s = kvi_mem_shard_of(m, hash);
    kvi_mem_glance g;
    kvi_mem_seen   seen;
    if (!kvi_mem_short(m)) return false;
    seen = kvi_mem_glance_locked(s, key, hash, optimistic, brief, &g);
    if (KVI_UNLIKELY(seen == KVI_MEM_UNSEEN)) return false;
    if (KVI_UNLIKELY(seen == KVI_MEM_SEEN && kvi_mem_head_long(g.head))) { kvi_mem_short_unlock(s, optimistic); return false; }
    if (KVI_LIKELY(seen == KVI_MEM_SEEN)) {
        uint32_t ref = g.bucket->refs[g.slot];
        kvi_mem_short_begin(s, optimistic);
        kvi_poke_u8(&g.bucket->tags[g.slot], 0);
        kvi_mem_short_end(s, optimistic);
        kvi_poke_size(&s->count, s->count - 1);
        s->key_bytes -= key.size;
        s->value_bytes -= g.head >> 20;
        if (KVI_UNLIKELY(kvi_mem_block_drop(s, ref, kvi_mem_plain_granules(key.size, g.head >> 20)))) return kvi_mem_remove_chunk(m, s, kvi_mem_ref_chunk(ref));
    }
    kvi_mem_short_unlock(s, optimistic);
    return true;
}

/* By the map's kind. */
KVI_INLINE bool kvi_mem_set_hashed(kv_mem *m, kv_slice key, kv_slice value, uint64_t hash)
{
    if (kvi_mem_direct(m)) return kvi_mem_set_short(m, key, value, hash, false, NULL);
    return kvi_mem_optimistic(m) && kvi_mem_set_short(m, key, value, hash, true, NULL);
}
KVI_INLINE bool kvi_mem_remove_hashed(kv_mem *m, kv_slice key, uint64_t hash)
{
    if (kvi_mem_direct(m)) return kvi_mem_remove_short(m, key, hash, false, NULL);
    return kvi_mem_optimistic(m) && kvi_mem_remove_short(m, key, hash, true, NULL);
}

KVI_NOINLINE kv_status kvi_mem_write_checked(kv_mem *m, kvi_mem_request *r)
{
    kv_status status;
    if (!KVI_MEM_TTL && r->ttl_ms) return kvi_error_set(&m->error, KV_ERR_UNSUPPORTED, "time to live: compiled without (KV_MEM_NO_TTL)");
    if (KVI_UNLIKELY(!kvi_mem_is_key(r->key))) status = kv_check_key(r->key);
    else if (KVI_UNLIKELY(r->value.size > KV_VALUE_SIZE_MAX || (!r->value.data && r->value.size))) status = kv_check_value(r->value);
    else status = kvi_mem_write(m, r, kvi_mem_hash(m, r->key));
    if (KVI_SMALL && status < 0) return kvi_error_set(&m->error, status, NULL);
    if (status < 0 && status != KV_ERR_CONFLICT) {
        kvi_text t = kvi_error_begin(&m->error);
        kvi_text_add(&t, kv_status_text(status));
        kvi_text_add(&t, ": key ");
        kvi_text_key(&t, r->key.data ? r->key : kv_bytes(NULL, 0));
        (void)kvi_error_end(&m->error, status);
    }
    return status;
}
KVI_PRIVATE kv_status kvi_mem_batch_set(kv_mem *m, const kv_pair *pairs, size_t count)
{
    kvi_mem_ahead a;
    kv_status     each = KV_OK;
    if (KVI_SMALL) {
        for (size_t i = 0; i < count && each == KV_OK; i++) each = kv_mem_set(m, pairs[i].key, pairs[i].value);
        return each;
    }
    for (size_t done = 0; done < count;) {
        kv_status bad = KV_OK;
        size_t    n = kvi_mem_group(&pairs[done].key, sizeof *pairs, count - done, &bad);
        if (!n) return kvi_error_set(&m->error, bad, NULL);
        for (size_t step = 0; step < n + KVI_MEM_AHEAD_ALL; step++) {
            size_t          i = step - KVI_MEM_AHEAD_ALL;
            kvi_mem_request r;
            kv_status       status;
            kvi_mem_ahead_step(m, &a, &pairs[done].key, sizeof *pairs, n, step);
            if (step < KVI_MEM_AHEAD_ALL) continue;
            status = kv_check_value(pairs[done + i].value);
            if (status == KV_OK && kvi_mem_set_hashed(m, pairs[done + i].key, pairs[done + i].value, a.hashes[i])) continue;
            kvi_mem_request_new(&r, NULL, false, pairs[done + i].key);
            r.value = pairs[done + i].value;
            if (status == KV_OK) status = kvi_mem_write(m, &r, a.hashes[i]);
            if (status < 0) return kvi_error_set(&m->error, status, NULL);
        }
        done += n;
    }
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_mem_batch_delete(kv_mem *m, const kv_slice *keys, size_t count)
{
    kvi_mem_ahead a;
    kv_status     each = KV_OK;
    if (KVI_SMALL) {
        for (size_t i = 0; i < count && each == KV_OK; i++) each = kv_mem_delete(m, keys[i]);
        return each;
    }
    for (size_t done = 0; done < count;) {
        kv_status bad = KV_OK;
        size_t    n = kvi_mem_group(keys + done, sizeof *keys, count - done, &bad);
        if (!n) return kvi_error_set(&m->error, bad, NULL);
        for (size_t step = 0; step < n + KVI_MEM_AHEAD_ALL; step++) {
            size_t          i = step - KVI_MEM_AHEAD_ALL;
            kvi_mem_request r;
            kv_status       status;
            kvi_mem_ahead_step(m, &a, keys + done, sizeof *keys, n, step);
            if (step < KVI_MEM_AHEAD_ALL || kvi_mem_remove_hashed(m, keys[done + i], a.hashes[i])) continue;
            kvi_mem_request_new(&r, kvi_mem_decide_remove, false, keys[done + i]);
            status = kvi_mem_write(m, &r, a.hashes[i]);
            if (status < 0) return kvi_error_set(&m->error, status, NULL);
        }
        done += n;
    }
    return KV_OK;
}

/* ------------------------------------------------------------------------------------------------
   >>scan   every entry once

   With one thread a scan walks through the chunks and shows records where they lie: memory in its order.

   With several, entries move to other buckets while it goes on, because segments are split. What does
   not change is an entry's home bucket (0 to 63) and its position; so a scan goes through the
   positions that a segment had when it came to it, and through the home buckets there, a group at a
   time: under the lock it copies the entries whose home is in the group, from all the segments that lie
   there by now, and shows them afterwards, without it. A shard with a scan inside is not reseeded.

   Invariant S1: every entry belongs to one span of positions and one group of homes, as long as it lives. */

typedef struct kvi_mem_scan {
    const kv_range *range;
    kv_visit_fn     visit;
    void           *user;
    size_t          left;                   /* entries to show */
    uint64_t        now;                    /* 0: not asked yet */
    uint64_t        expiry;                 /* of the entry that is being shown */
    bool            stopped;
} kvi_mem_scan;

/* Show an entry, if it is one to show. */
KVI_INLINE void kvi_mem_show(kv_mem *m, kvi_mem_scan *scan, kv_slice key, kv_slice value, uint64_t expiry)
{
    if (scan->range && !kv_range_has(scan->range, key)) return;
    if (KVI_UNLIKELY(expiry != 0)) {
        if (!scan->now) scan->now = kvi_mem_clock(m);
        if (scan->now >= expiry) return;
    }
    scan->expiry = expiry;
    if (!scan->visit(scan->user, key, value) || !--scan->left) scan->stopped = true;
}

/* ---- one thread ---- */

KVI_PRIVATE void kvi_mem_scan_direct(kv_mem *m, const kvi_mem_shard *s, kvi_mem_scan *scan)
{
    m->busy++;
    for (uint32_t number = 0; number < s->chunk_count && !scan->stopped; number++) {
        const kvi_mem_chunk *c = kvi_mem_chunk_info(s, number);
        scan->now = 0;
        for (uint32_t at = 0; c->size_log2 && at + KVI_MEM_BLOCK_MIN <= c->used && !scan->stopped;) {
            uint8_t       *block = kvi_mem_at(s, kvi_mem_ref(number, at));
            kvi_mem_record r;
            if (kvi_mem_word(block, 0) & KVI_MEM_HEAD_FREE) { at += kvi_mem_word(block, 1); continue; }
            kvi_prefetch(block + KVI_MEM_SCAN_AHEAD);
            r = kvi_mem_record_at(block);
            kvi_mem_show(m, scan, kvi_mem_record_key(&r), kvi_mem_record_value(&r), r.expiry);
            at += r.granules;
        }
    }
    m->busy--;
}

/* ---- several threads ---- */

typedef struct kvi_mem_span { uint64_t start, end; uint32_t home_from, home_to; } kvi_mem_span;   /* end 0: to the last position */

typedef struct kvi_mem_packed { uint64_t expiry; kvi_mem_large *large; size_t key_size, value_size; } kvi_mem_packed;   /* and then key and value (not a large one), up to a multiple of 8 */

KVI_INLINE size_t kvi_mem_packed_size(const kvi_mem_packed *p)
{
    return (sizeof *p + p->key_size + (p->large ? 0 : p->value_size) + 7) & ~(size_t)7;
}
KVI_PRIVATE kv_status kvi_mem_pack(kv_buf *to, const kvi_mem_record *r)
{
    kvi_mem_packed p;
    uint8_t       *at;
    kv_status      status = KV_OK;
    size_t         size;
    p.expiry = r->expiry;
    p.large = r->large;
    p.key_size = r->key_size;
    p.value_size = r->value_size;
    size = kvi_mem_packed_size(&p);
    if (to->size + size > to->capacity) status = kv_buf_reserve(to, (to->size + size) * 2);
    if (status < 0) return status;
    at = (uint8_t *)to->data + to->size;
    memcpy(at, &p, sizeof p);
    kvi_copy(at + sizeof p, r->key, r->key_size);
    if (!r->large) kvi_copy(at + sizeof p + r->key_size, r->inline_value, r->value_size);
    else kvi_mem_large_hold(r->large);
    to->size += size;
    return KV_OK;
}
/* Show what was packed; in any case let go of it. */
KVI_PRIVATE void kvi_mem_unpack(kv_mem *m, kvi_mem_scan *scan, kv_buf *from)
{
    scan->now = 0;
    for (size_t at = 0; at < from->size;) {
        const uint8_t *bytes = (const uint8_t *)from->data + at;
        kvi_mem_packed p;
        kv_slice       key, value;
        memcpy(&p, bytes, sizeof p);
        key = kv_bytes(bytes + sizeof p, p.key_size);
        value = kv_bytes(p.large ? kvi_mem_large_bytes(p.large) : bytes + sizeof p + p.key_size, p.value_size);
        if (!scan->stopped) kvi_mem_show(m, scan, key, value, p.expiry);
        if (p.large) kvi_mem_large_release(m, p.large);
        at += kvi_mem_packed_size(&p);
    }
    from->size = 0;
}

KVI_INLINE bool kvi_mem_span_has(const kv_mem *m, const kvi_mem_span *span, uint64_t hash)
{
    uint64_t position = kvi_mem_position(m, hash);
    uint32_t home = kvi_mem_home(hash);
    return home >= span->home_from && home < span->home_to && position >= span->start && (!span->end || position < span->end);
}
/* Copy the entries of one bucket; with `check` only those that belong to the span. */
KVI_PRIVATE kv_status kvi_mem_collect_bucket(kv_mem *m, kvi_mem_shard *s, const kvi_mem_bucket *b, const kvi_mem_span *span, bool check, kv_buf *to)
{
    uint32_t  used = ~kvi_mem_match(b, 0) & KVI_MEM_ALL_SLOTS;
    kv_status status = KV_OK;
    for (; used && status == KV_OK; used &= used - 1) {
        kvi_mem_record r = kvi_mem_record_at(kvi_mem_at(s, b->refs[kvi_lowest_bit32(used)]));
        if (!check || kvi_mem_span_has(m, span, kvi_mem_record_hash(m, s, &r))) status = kvi_mem_pack(to, &r);
    }
    return status;
}
/* Those of one segment. In a full-grown segment that lies inside the span they are in the buckets of
   the group, mixed with entries that overflowed into it, and in the buckets that it overflowed into. */
KVI_PRIVATE kv_status kvi_mem_collect_segment(kv_mem *m, kvi_mem_shard *s, const kvi_mem_bucket *segment, const kvi_mem_span *span, bool inside, kv_buf *to)
{
    uint32_t  mask = ((const kvi_mem_directory *)s->directory)->mask, from = span->home_from, count = span->home_to - span->home_from;
    bool      all = count == KVI_MEM_SEGMENT, check;
    kv_status status = KV_OK;
    if (mask + 1 < KVI_MEM_SEGMENT || !inside) { from = 0; count = mask + 1; all = inside && all; check = !all; }
    else check = !all && (kvi_mem_state(segment + ((from - 1) & mask)) & KVI_MEM_STATE_OVERFLOW);
    for (uint32_t i = 0; i <= mask && status == KV_OK; i++) {
        const kvi_mem_bucket *b = segment + ((from + i) & mask);
        if (i >= count) {
            if (all || count > mask || !(kvi_mem_state(segment + ((from + i - 1) & mask)) & KVI_MEM_STATE_OVERFLOW)) break;
            check = true;
        }
        if (i + 3 < count) kvi_mem_prefetch_records(s, segment + ((from + i + 3) & mask));
        status = kvi_mem_collect_bucket(m, s, b, span, check, to);
        if (i + 1 < count && inside && mask + 1 == KVI_MEM_SEGMENT && !(kvi_mem_state(b) & KVI_MEM_STATE_OVERFLOW)) check = false;
    }
    return status;
}
KVI_PRIVATE kv_status kvi_mem_collect(kv_mem *m, kvi_mem_shard *s, const kvi_mem_span *span, kv_buf *to)
{
    uint64_t  position = span->start, next;
    kv_status status;
    do {
        const kvi_mem_directory *d = (const kvi_mem_directory *)s->directory;
        const kvi_mem_bucket    *segment = kvi_mem_segment_at(s, position, &next);
        size_t first;
        bool   inside;
        (void)kvi_mem_segment_run(d, kvi_mem_directory_index(d, position), &first);
        inside = kvi_mem_run_position(d, first) >= span->start && (!span->end || (next && next <= span->end));
        status = kvi_mem_collect_segment(m, s, segment, span, inside, to);
        position = next;
    } while (status == KV_OK && next && (!span->end || next < span->end));
    return status;
}

/* How many homes at a time: all where a segment's entries are few bytes, down to one. */
KVI_PRIVATE uint32_t kvi_mem_scan_group(const kvi_mem_shard *s)
{
    size_t   bytes = s->live_granules * KVI_MEM_GRANULE / s->segment_count;
    uint32_t homes = KVI_MEM_SEGMENT;
    while (homes > 1 && bytes > KVI_MEM_SCAN_BYTES) { homes /= 2; bytes /= 2; }
    return homes;
}
KVI_PRIVATE kv_status kvi_mem_scan_shared(kv_mem *m, kvi_mem_shard *s, kvi_mem_scan *scan, kv_buf *buffer)
{
    kvi_mem_span span;
    kv_status    status = KV_OK;
    uint32_t     homes = KVI_MEM_SEGMENT;
    memset(&span, 0, sizeof span);
    (void)kvi_add_u32(&s->scanners, 1);
    do {
        for (uint32_t from = 0; from < KVI_MEM_SEGMENT && status == KV_OK && !scan->stopped; from += homes) {
            kvi_mem_read_lock(m, s);
            if (!from) {
                (void)kvi_mem_segment_at(s, span.start, &span.end);
                homes = kvi_mem_scan_group(s);
            }
            span.home_from = from;
            span.home_to = from + homes;
            status = kvi_mem_collect(m, s, &span, buffer);
            kvi_mem_read_unlock(m, s);
            if (status < 0) scan->stopped = true;
            kvi_mem_unpack(m, scan, buffer);
        }
        span.start = span.end;
    } while (span.start && status == KV_OK && !scan->stopped);
    (void)kvi_sub_u32(&s->scanners, 1);
    return status;
}

KVI_PRIVATE kv_status kvi_mem_scan_all(kv_mem *m, kvi_mem_scan *scan)
{
    kv_buf    buffer;
    kv_status status = KV_OK;
    memset(&buffer, 0, sizeof buffer);
    buffer.allocator = m->allocator;
    for (uint32_t i = 0; i < m->shard_count && status == KV_OK && !scan->stopped; i++) {
        if (kvi_mem_concurrent(m)) status = kvi_mem_scan_shared(m, m->shards + i, scan, &buffer);
        else kvi_mem_scan_direct(m, m->shards + i, scan);
    }
    kv_buf_free(&buffer);
    return status;
}

#if KVI_MEM_SAVE
/* ------------------------------------------------------------------------------------------------
   >>snapshot   the map in a file

   Format 1. Numbers are little-endian; checksums are XXH3 (64 bits) with the seed that is named.

       file    = header block* end
       header  = "kvmemsnp"  format:u32 (1)  0:u32  id:u64 (random)  check:u64 (of the 24 bytes before; seed 0)
       block   = 1:u32  entries:u32  size:u64  check:u64 (of the payload)  check:u64 (of the 24 bytes before)  payload
       payload = entry*                                      size bytes in all
       entry   = key_size:u16  flags:u8  0:u8  value_size:u32  [ttl_ms:u64]  key  value
       flags   = 1: ttl_ms is there: what the entry had left to live, not 0
       end     = 2:u32  0:u32  blocks:u64  entries:u64  check:u64 (of the 24 bytes before)

   The seed of a block's checks, and the end's, is kvi_mix64(id + number), the number counting from 0: a block
   of another file, or in another place, does not pass. Nothing follows the end.                     */

#define KVI_MEM_SNAPSHOT_FORMAT 1u
#define KVI_MEM_SNAPSHOT_HEAD   32u         /* bytes of header, of a block's head, of the end */
#define KVI_MEM_SNAPSHOT_BLOCK  65536u      /* bytes of payload after which a block is written */
#define KVI_MEM_SNAPSHOT_TTL    1u
static const char kvi_mem_snapshot_magic[8] = { 'k', 'v', 'm', 'e', 'm', 's', 'n', 'p' };

KVI_PRIVATE kv_status kvi_mem_file_error(kv_mem *m, kv_status status, const char *what, const char *path)
{
    kvi_text t = kvi_error_begin(&m->error);
    kvi_text_add(&t, "snapshot: ");
    kvi_text_add(&t, what);
    kvi_text_add(&t, " ");
    kvi_text_add(&t, path);
    kvi_text_add(&t, ": ");
    kvi_text_add(&t, kv_status_text(status));
    return kvi_error_end(&m->error, status);
}

/* ---- saving ---- */

typedef struct kvi_mem_save {
    kv_mem      *m;
    kvi_mem_scan scan;
    kv_file     *file;
    kv_buf       payload;
    uint64_t     id, blocks, entries;
    uint32_t     block_entries;
    kv_status    status;
} kvi_mem_save;

KVI_PRIVATE void kvi_mem_save_head(uint8_t *head, uint32_t kind, uint32_t count, uint64_t a, uint64_t b, uint64_t seed)
{
    kvi_store_le32(head, kind);
    kvi_store_le32(head + 4, count);
    kvi_store_le64(head + 8, a);
    kvi_store_le64(head + 16, b);
    kvi_store_le64(head + 24, kvi_hash(head, 24, seed));
}
KVI_PRIVATE void kvi_mem_save_block(kvi_mem_save *save)
{
    const kv_io *io = save->m->io;
    uint8_t      head[KVI_MEM_SNAPSHOT_HEAD];
    uint64_t     seed = kvi_mix64(save->id + save->blocks);
    if (save->status < 0 || !save->block_entries) return;
    kvi_mem_save_head(head, 1, save->block_entries, save->payload.size, kvi_hash(save->payload.data, save->payload.size, seed), seed);
    save->status = io->append(io->user, save->file, head, sizeof head);
    if (save->status == KV_OK) save->status = io->append(io->user, save->file, save->payload.data, save->payload.size);
    save->blocks++;
    save->entries += save->block_entries;
    save->block_entries = 0;
    save->payload.size = 0;
}
KVI_PRIVATE bool kvi_mem_save_entry(void *user, kv_slice key, kv_slice value)
{
    kvi_mem_save *save = (kvi_mem_save *)user;
    uint8_t       head[16];
    size_t        head_size = 8;
    memset(head, 0, sizeof head);
    kvi_store_le16(head, (uint16_t)key.size);
    kvi_store_le32(head + 4, (uint32_t)value.size);
    if (save->scan.expiry) {
        head[2] = KVI_MEM_SNAPSHOT_TTL;
        kvi_store_le64(head + 8, save->scan.expiry - save->scan.now);   /* it was shown, so this is over 0 */
        head_size = 16;
    }
    save->status = kv_buf_append(&save->payload, kv_bytes(head, head_size));
    if (save->status == KV_OK) save->status = kv_buf_append(&save->payload, key);
    if (save->status == KV_OK) save->status = kv_buf_append(&save->payload, value);
    if (save->status == KV_OK) save->block_entries++;
    if (save->payload.size >= KVI_MEM_SNAPSHOT_BLOCK) kvi_mem_save_block(save);
    return save->status == KV_OK;
}
KVI_PRIVATE kv_status kvi_mem_save_write(kvi_mem_save *save)
{
    kv_mem      *m = save->m;
    const kv_io *io = m->io;
    uint8_t      head[KVI_MEM_SNAPSHOT_HEAD];
    kv_status    status;
    (void)kvi_random_u64(&save->id, save);
    memset(head, 0, sizeof head);
    memcpy(head, kvi_mem_snapshot_magic, sizeof kvi_mem_snapshot_magic);
    kvi_store_le32(head + 8, KVI_MEM_SNAPSHOT_FORMAT);
    kvi_store_le64(head + 16, save->id);
    kvi_store_le64(head + 24, kvi_hash(head, 24, 0));
    save->status = io->append(io->user, save->file, head, sizeof head);
    if (save->status < 0) return save->status;
    save->scan.visit = kvi_mem_save_entry;
    save->scan.user = save;
    save->scan.left = SIZE_MAX;
    status = kvi_mem_scan_all(m, &save->scan);
    if (status < 0) return status;
    kvi_mem_save_block(save);
    if (save->status < 0) return save->status;
    kvi_mem_save_head(head, 2, 0, save->blocks, save->entries, kvi_mix64(save->id + save->blocks));
    status = io->append(io->user, save->file, head, sizeof head);
    return status < 0 ? status : io->sync(io->user, save->file);
}

/* The directory that a path lies in, in `to`. */
KVI_PRIVATE kv_status kvi_mem_path_parent(kv_buf *to, const char *path)
{
    size_t size = strlen(path);
    while (size && path[size - 1] != '/') size--;
    if (size > 1) size--;
    to->size = 0;
    if (kv_buf_append(to, size ? kv_bytes(path, size) : kv_bytes(".", 1)) < 0) return KV_ERR_NO_MEMORY;
    return kv_buf_append(to, kv_bytes("", 1));
}

/* 1. write path.tmp, and sync it     2. rename it  <- commit     3. sync the directory
   Crash before 2: an unused path.tmp, overwritten by the next save. Before 3: the old file or the new one. */
KVI_PRIVATE kv_status kvi_mem_save_file(kvi_mem_save *save, const char *path, kv_buf *name)
{
    const kv_io *io = save->m->io;
    const char  *temp;
    kv_status    status, closed;
    /* 1. */
    if (kv_buf_append(name, kv_cstr(path)) < 0 || kv_buf_append(name, kv_bytes(".tmp", 5)) < 0) return kvi_error_set(&save->m->error, KV_ERR_NO_MEMORY, NULL);
    temp = (const char *)name->data;
    status = io->open(io->user, temp, KV_OPEN_WRITE | KV_OPEN_CREATE | KV_OPEN_TRUNCATE, &save->file);
    if (status != KV_OK) return kvi_mem_file_error(save->m, status == KV_NOT_FOUND ? KV_ERR_IO : status, "cannot create", temp);
    status = kvi_mem_save_write(save);
    closed = io->close(io->user, save->file);
    if (status == KV_OK) status = closed;
    if (status < 0) {
        (void)io->remove(io->user, temp);
        return kvi_mem_file_error(save->m, status, "cannot write", temp);
    }
    /* 2. */
    status = io->rename(io->user, temp, path);
    if (status != KV_OK) {
        (void)io->remove(io->user, temp);
        return kvi_mem_file_error(save->m, status < 0 ? status : KV_ERR_IO, "cannot rename to", path);
    }
    /* 3. */
    status = kvi_mem_path_parent(name, path);
    if (status == KV_OK) status = io->sync_dir(io->user, (const char *)name->data);
    return status == KV_OK ? KV_OK : kvi_mem_file_error(save->m, status < 0 ? status : KV_ERR_IO, "cannot sync the directory of", path);
}
KVI_PRIVATE kv_status kvi_mem_save_as(kv_mem *m, const char *path)
{
    kvi_mem_save save;
    kv_buf       name;
    kv_status    status;
    memset(&save, 0, sizeof save);
    memset(&name, 0, sizeof name);
    save.m = m;
    save.payload.allocator = name.allocator = m->allocator;
    kvi_mutex_lock(&m->save_mutex);
    status = kvi_mem_save_file(&save, path, &name);
    kvi_mutex_unlock(&m->save_mutex);
    kv_buf_free(&save.payload);
    kv_buf_free(&name);
    return status;
}

/* ---- loading ---- */

typedef kv_status (*kvi_mem_entry_fn)(void *user, kv_slice key, kv_slice value, uint64_t ttl_ms);

typedef struct kvi_mem_source {
    kv_mem     *m;
    kv_file    *file;
    uint64_t    size, at;
    uint64_t    id, blocks, entries;
    kv_buf      payload;
} kvi_mem_source;

KVI_PRIVATE kv_status kvi_mem_source_read(kvi_mem_source *in, void *to, size_t size)
{
    const kv_io *io = in->m->io;
    size_t       got = 0;
    kv_status    status;
    if (size > in->size - in->at) return KV_ERR_CORRUPT;
    status = io->read_at(io->user, in->file, in->at, to, size, &got);
    if (status != KV_OK) return status < 0 ? status : KV_ERR_IO;
    in->at += size;
    return got == size ? KV_OK : KV_ERR_CORRUPT;
}
/* The entries of one payload, each checked against its end. */
KVI_PRIVATE kv_status kvi_mem_source_entries(const uint8_t *at, size_t size, uint32_t count, kvi_mem_entry_fn each, void *user)
{
    for (; count; count--) {
        size_t    key_size, value_size, head_size;
        uint64_t  ttl_ms = 0;
        kv_status status;
        if (size < 8) return KV_ERR_CORRUPT;
        key_size = kvi_load_le16(at);
        value_size = kvi_load_le32(at + 4);
        if (at[2] > KVI_MEM_SNAPSHOT_TTL || at[3] || value_size > KV_VALUE_SIZE_MAX) return KV_ERR_CORRUPT;
        if (!KVI_MEM_TTL && at[2]) return KV_ERR_UNSUPPORTED;
        head_size = at[2] ? 16 : 8;
        if (size < head_size || size - head_size < key_size || size - head_size - key_size < value_size) return KV_ERR_CORRUPT;
        if (at[2] && (ttl_ms = kvi_load_le64(at + 8)) == 0) return KV_ERR_CORRUPT;
        if (each) {
            status = each(user, kv_bytes(at + head_size, key_size), kv_bytes(at + head_size + key_size, value_size), ttl_ms);
            if (status < 0) return status;
        }
        at += head_size + key_size + value_size;
        size -= head_size + key_size + value_size;
    }
    return size ? KV_ERR_CORRUPT : KV_OK;
}
KVI_PRIVATE kv_status kvi_mem_source_block(kvi_mem_source *in, const uint8_t *head, uint64_t seed, kvi_mem_entry_fn each, void *user)
{
    uint64_t  size = kvi_load_le64(head + 8);
    uint32_t  count = kvi_load_le32(head + 4);
    kv_status status;
    if (!count || size > in->size - in->at || size > SIZE_MAX) return KV_ERR_CORRUPT;
    if (size > in->payload.capacity) {
        status = kv_buf_reserve(&in->payload, (size_t)size);
        if (status < 0) return status;
    }
    status = kvi_mem_source_read(in, in->payload.data, (size_t)size);
    if (status < 0) return status;
    if (kvi_hash(in->payload.data, (size_t)size, seed) != kvi_load_le64(head + 16)) return KV_ERR_CORRUPT;
    in->blocks++;
    in->entries += count;
    return kvi_mem_source_entries((const uint8_t *)in->payload.data, (size_t)size, count, each, user);
}
KVI_PRIVATE kv_status kvi_mem_source_header(kvi_mem_source *in)
{
    uint8_t   head[KVI_MEM_SNAPSHOT_HEAD];
    kv_status status = kvi_mem_source_read(in, head, sizeof head);
    if (status < 0) return status;
    if (memcmp(head, kvi_mem_snapshot_magic, sizeof kvi_mem_snapshot_magic) != 0 || kvi_hash(head, 24, 0) != kvi_load_le64(head + 24)) return KV_ERR_CORRUPT;
    if (kvi_load_le32(head + 8) > KVI_MEM_SNAPSHOT_FORMAT) return KV_ERR_VERSION;
    if (kvi_load_le32(head + 8) != KVI_MEM_SNAPSHOT_FORMAT || kvi_load_le32(head + 12)) return KV_ERR_CORRUPT;
    in->id = kvi_load_le64(head + 16);
    return KV_OK;
}
/* Go through the file once. All of it is checked, whatever `each` does with the entries (NULL: nothing). */
KVI_PRIVATE kv_status kvi_mem_source_pass(kvi_mem_source *in, kvi_mem_entry_fn each, void *user)
{
    kv_status status;
    in->at = in->blocks = in->entries = 0;
    status = kvi_mem_source_header(in);
    while (status == KV_OK) {
        uint8_t  head[KVI_MEM_SNAPSHOT_HEAD];
        uint64_t seed = kvi_mix64(in->id + in->blocks);
        status = kvi_mem_source_read(in, head, sizeof head);
        if (status < 0) return status;
        if (kvi_hash(head, 24, seed) != kvi_load_le64(head + 24)) return KV_ERR_CORRUPT;
        if (kvi_load_le32(head) == 2) {
            bool right = !kvi_load_le32(head + 4) && kvi_load_le64(head + 8) == in->blocks && kvi_load_le64(head + 16) == in->entries && in->at == in->size;
            return right ? KV_OK : KV_ERR_CORRUPT;
        }
        if (kvi_load_le32(head) != 1) return KV_ERR_CORRUPT;
        status = kvi_mem_source_block(in, head, seed, each, user);
    }
    return status;
}

/* Merging, so that it can be undone: while it runs, every shard is locked, and `loading` keeps records where
   they are. The log says of each entry which record is new and which one it replaced; that one is freed only
   when all is done. */
typedef struct kvi_mem_load_step { uint32_t shard, made, replaced; } kvi_mem_load_step;
typedef struct kvi_mem_load { kvi_mem_work work; kv_buf log; } kvi_mem_load;

/* 1. get all memory     2. write the record     3. publish it                                       */
KVI_PRIVATE kv_status kvi_mem_load_entry(void *user, kv_slice key, kv_slice value, uint64_t ttl_ms)
{
    kvi_mem_load     *load = (kvi_mem_load *)user;
    kvi_mem_work     *w = &load->work;
    kv_mem           *m = w->m;
    uint64_t          hash = kvi_mem_hash(m, key), expiry = kvi_mem_expiry_from(w, ttl_ms);
    uint32_t          head = kvi_mem_head_make(key.size, value.size, expiry != 0);
    kvi_mem_large    *large = NULL;
    kvi_mem_load_step step;
    kvi_mem_record    made, old;
    kvi_mem_spot      spot;
    uint8_t          *at = NULL;
    bool              found;
    /* 1. */
    w->s = kvi_mem_shard_of(m, hash);
    hash = kvi_mem_rehash(w->s, key, hash);
    if (load->log.size + sizeof step > load->log.capacity && kv_buf_reserve(&load->log, load->log.capacity * 2 + 64 * sizeof step) < 0) return KV_ERR_NO_MEMORY;
    found = kvi_mem_find(m, w->s, key, hash, &spot, &at);
    if (!found && kvi_mem_slot(w, &hash, key, &spot) < 0) return KV_ERR_NO_MEMORY;
    if ((head & KVI_MEM_HEAD_LARGE) && (large = kvi_mem_large_new(m, w->s, value)) == NULL) return KV_ERR_NO_MEMORY;
    step.made = kvi_mem_block_new(w, kvi_mem_head_granules(head, value.size), &spot);
    if (step.made == KVI_MEM_NOWHERE) {
        if (large) kvi_mem_large_drop(m, w->s, large);
        return KV_ERR_NO_MEMORY;
    }
    /* 2. */
    step.shard = (uint32_t)(w->s - m->shards);
    step.replaced = found ? kvi_mem_spot_ref(&spot) : KVI_MEM_NOWHERE;
    kvi_mem_record_write(w->s, step.made, head, key, value, large, expiry);
    made = kvi_mem_record_at(kvi_mem_at(w->s, step.made));
    if (found) { old = kvi_mem_record_at(at); kvi_mem_count_out(w->s, &old); }
    /* 3. */
    kvi_mem_begin(m, w->s);
    if (found) {
        kvi_poke_u32(&spot.bucket->refs[spot.slot], step.made);
        kvi_poke_u32(&spot.bucket->state, (spot.bucket->state & ~KVI_MEM_STATE_EXPIRES(spot.slot)) | (expiry ? KVI_MEM_STATE_EXPIRES(spot.slot) : 0));
    } else kvi_mem_spot_fill(m, &spot, hash, step.made, expiry ? KVI_MEM_STATE_EXPIRES(spot.slot) : 0);
    kvi_mem_end(m, w->s);
    kvi_mem_count_in(w->s, &made);
    return kv_buf_append(&load->log, kv_bytes(&step, sizeof step));
}
KVI_PRIVATE void kvi_mem_load_undo_step(kv_mem *m, const kvi_mem_load_step *step)
{
    kvi_mem_shard *s = m->shards + step->shard;
    kvi_mem_record made = kvi_mem_record_at(kvi_mem_at(s, step->made)), old;
    uint64_t       hash = kvi_mem_record_hash(m, s, &made);
    kvi_mem_spot   spot = kvi_mem_spot_of(m, s, hash, step->made);
    if (step->replaced == KVI_MEM_NOWHERE) { kvi_mem_remove(m, s, &spot, &made, hash); return; }
    old = kvi_mem_record_at(kvi_mem_at(s, step->replaced));
    kvi_mem_begin(m, s);
    kvi_poke_u32(&spot.bucket->refs[spot.slot], step->replaced);
    kvi_poke_u32(&spot.bucket->state, (spot.bucket->state & ~KVI_MEM_STATE_EXPIRES(spot.slot)) | (old.expiry ? KVI_MEM_STATE_EXPIRES(spot.slot) : 0));
    kvi_mem_end(m, s);
    kvi_mem_count_in(s, &old);
    kvi_mem_count_out(s, &made);
    if (made.large) kvi_mem_large_drop(m, s, made.large);
    kvi_mem_block_free(m, s, step->made, made.granules);
}
KVI_PRIVATE void kvi_mem_load_commit_step(kv_mem *m, const kvi_mem_load_step *step)
{
    kvi_mem_shard *s = m->shards + step->shard;
    kvi_mem_record old;
    if (step->replaced == KVI_MEM_NOWHERE) return;
    old = kvi_mem_record_at(kvi_mem_at(s, step->replaced));
    if (old.large) kvi_mem_large_drop(m, s, old.large);
    kvi_mem_block_free(m, s, step->replaced, old.granules);
}
KVI_PRIVATE kv_status kvi_mem_load_merge(kv_mem *m, kvi_mem_source *in)
{
    kvi_mem_load      load;
    kvi_mem_load_step step;
    kv_status         status;
    size_t            count;
    memset(&load, 0, sizeof load);
    load.work.m = m;
    load.log.allocator = m->allocator;
    for (uint32_t i = 0; i < m->shard_count; i++) kvi_mem_lock(m, m->shards + i);
    m->loading = true;
    status = kvi_mem_source_pass(in, kvi_mem_load_entry, &load);
    count = load.log.size / sizeof step;
    for (size_t i = 0; i < count; i++) {
        size_t at = status == KV_OK ? i : count - 1 - i;
        memcpy(&step, (const uint8_t *)load.log.data + at * sizeof step, sizeof step);
        if (status == KV_OK) kvi_mem_load_commit_step(m, &step);
        else kvi_mem_load_undo_step(m, &step);
    }
    m->loading = false;
    for (uint32_t i = 0; i < m->shard_count; i++) kvi_mem_unlock(m, m->shards + i);
    kv_buf_free(&load.log);
    return status;
}

KVI_PRIVATE kv_status kvi_mem_load_tell(void *user, kv_slice key, kv_slice value, uint64_t ttl_ms)
{
    (void)ttl_ms;
    kvi_mem_watch_call((kv_mem *)user, KV_EVENT_SET, key, value);
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_mem_load_set(void *user, kv_slice key, kv_slice value, uint64_t ttl_ms)
{
    kv_mem         *m = (kv_mem *)user;
    kvi_mem_request r;
    kvi_mem_request_new(&r, NULL, false, key);
    r.value = value;
    r.ttl_ms = ttl_ms;
    return kvi_mem_write(m, &r, kvi_mem_hash(m, key));
}
/* 1. check every byte     2. merge     3. tell the watches, reading the file once more              */
KVI_PRIVATE kv_status kvi_mem_load_source(kv_mem *m, kvi_mem_source *in)
{
    kv_status status = kvi_mem_source_pass(in, NULL, NULL);
    if (status < 0) return status;
    if (kvi_mem_limited(m)) return kvi_mem_source_pass(in, kvi_mem_load_set, m);
    if (!kvi_mem_watched(m)) return kvi_mem_load_merge(m, in);
    kvi_mutex_lock(&m->watch_mutex);
    status = kvi_mem_load_merge(m, in);
    if (status == KV_OK) (void)kvi_mem_source_pass(in, kvi_mem_load_tell, m);
    kvi_mem_watch_leave(m);
    return status;
}
KVI_PRIVATE kv_status kvi_mem_load_from(kv_mem *m, const char *path)
{
    const kv_io   *io = m->io;
    kvi_mem_source in;
    kv_status      status;
    memset(&in, 0, sizeof in);
    in.m = m;
    in.payload.allocator = m->allocator;
    status = io->open(io->user, path, 0, &in.file);
    if (status != KV_OK) return kvi_mem_file_error(m, status == KV_EXISTS ? KV_ERR_IO : status, "cannot open", path);
    status = io->size(io->user, in.file, &in.size);
    if (status == KV_OK) status = kvi_mem_load_source(m, &in);
    (void)io->close(io->user, in.file);
    kv_buf_free(&in.payload);
    return status == KV_OK ? KV_OK : kvi_mem_file_error(m, status, "cannot load", path);
}

#endif /* KVI_MEM_SAVE */

/* ------------------------------------------------------------------------------------------------
   >>api   opening, clearing, closing, and the thin public functions                               */

/* ---- the common handle ---- */

KVI_PRIVATE kv_status kvi_mem_op_get(kv_store *s, kv_slice key, kv_buf *value) { return kv_mem_get((kv_mem *)s, key, value); }
KVI_PRIVATE kv_status kvi_mem_op_set(kv_store *s, kv_slice key, kv_slice value) { return kv_mem_set((kv_mem *)s, key, value); }
KVI_PRIVATE kv_status kvi_mem_op_remove(kv_store *s, kv_slice key) { return kv_mem_delete((kv_mem *)s, key); }
KVI_PRIVATE kv_status kvi_mem_op_exists(kv_store *s, kv_slice key) { return kv_mem_exists((kv_mem *)s, key); }
KVI_PRIVATE kv_status kvi_mem_op_view(kv_store *s, kv_slice key, kv_visit_fn visit, void *user) { return kv_mem_view((kv_mem *)s, key, visit, user); }
KVI_PRIVATE kv_status kvi_mem_op_batch_get(kv_store *s, const kv_slice *keys, size_t count, kv_buf *values, kv_status *statuses) { return kv_mem_batch_get((kv_mem *)s, keys, count, values, statuses); }
KVI_PRIVATE kv_status kvi_mem_op_batch_set(kv_store *s, const kv_pair *pairs, size_t count) { return kv_mem_batch_set((kv_mem *)s, pairs, count); }
KVI_PRIVATE kv_status kvi_mem_op_batch_remove(kv_store *s, const kv_slice *keys, size_t count) { return kv_mem_batch_delete((kv_mem *)s, keys, count); }
KVI_PRIVATE kv_status kvi_mem_op_scan(kv_store *s, const kv_range *range, kv_visit_fn visit, void *user) { return kv_mem_scan((kv_mem *)s, range, visit, user); }
KVI_PRIVATE bool kvi_mem_visit_count(void *user, kv_slice key, kv_slice value)
{
    (void)key; (void)value;
    ++*(uint64_t *)user;
    return true;
}
KVI_PRIVATE kv_status kvi_mem_op_count(kv_store *s, const kv_range *range, uint64_t *count)
{
    uint64_t  n = 0;
    kv_status status;
    if (!range || (!range->prefix.size && !range->from.data && !range->to.data && !range->limit)) { *count = kv_mem_count((kv_mem *)s); return KV_OK; }
    status = kv_mem_scan((kv_mem *)s, range, kvi_mem_visit_count, &n);
    if (status == KV_OK) *count = n;
    return status;
}
KVI_PRIVATE kv_status kvi_mem_op_close(kv_store *s) { kv_mem_close((kv_mem *)s); return KV_OK; }
KVI_PRIVATE kv_status kvi_mem_op_stats(kv_store *s, kv_stats *stats)
{
    kv_mem_stats_t all;
    kv_status      status;
    memset(&all, 0, sizeof all);
    status = kv_mem_stats((kv_mem *)s, &all);
    stats->keys = all.entries;
    stats->key_bytes = all.key_bytes;
    stats->value_bytes = all.value_bytes;
    stats->memory_bytes = all.memory_bytes;
    return status;
}
KVI_PRIVATE const char *kvi_mem_op_last_error(const kv_store *s) { return kvi_error_text(&((const kv_mem *)s)->error); }

static const kv_store_ops kvi_mem_ops = {
    kvi_mem_op_get, kvi_mem_op_set, kvi_mem_op_remove, kvi_mem_op_exists, kvi_mem_op_view, kvi_mem_op_batch_get, kvi_mem_op_batch_set,
    kvi_mem_op_batch_remove, kvi_mem_op_scan, kvi_mem_op_count, NULL, NULL, kvi_mem_op_close, kvi_mem_op_stats, kvi_mem_op_last_error
};

/* ---- opening and closing ---- */

KVI_PRIVATE uint32_t kvi_mem_power_of_two(uint32_t n)               /* the next one; n is 1 to 2^31 */
{
    return n <= 1 ? 1 : UINT32_C(2) << kvi_highest_bit32(n - 1);
}

/* How many shards by default: 8 for each processor; one for each 16 KiB of a kv_arena, one for each 256 KiB
   of a limit. */
KVI_PRIVATE uint32_t kvi_mem_shards_default(const kv_mem_options *o, bool concurrent)
{
    uint64_t     count = 8 * (uint64_t)kvi_cpu_count();
    kv_arena     probe;
    kv_allocator arena;
    if (!KVI_THREADS || !concurrent) return 1;
    arena = kv_arena_init(&probe, NULL, 0);
    if (o->allocator.resize == arena.resize && o->allocator.user) {
        const kv_arena *a = (const kv_arena *)o->allocator.user;
        uint64_t        room = (uint64_t)(a->end - a->start) / 16384;
        if (room < count) count = room;
    }
    if (o->memory_limit_bytes && o->memory_limit_bytes / 262144 < count) count = o->memory_limit_bytes / 262144;
    return count < 1 ? 1 : count > 1024 ? 1024 : (uint32_t)count;
}

/* The options with their defaults put in. */
KVI_PRIVATE kv_mem_options kvi_mem_options_resolve(const kv_mem_options *given)
{
    kv_mem_options o;
    if (given) o = *given;
    else memset(&o, 0, sizeof o);
#if !KVI_THREADS
    o.single_thread = true;
#endif
    if (!o.shards) o.shards = kvi_mem_shards_default(&o, !o.single_thread);
    if (o.shards > KVI_MEM_SHARDS_MAX) o.shards = KVI_MEM_SHARDS_MAX;
    o.shards = kvi_mem_power_of_two(o.shards);
    if (!o.io) o.io = kv_io_default();
    return o;
}

/* The directory and segments that a shard starts with, for `capacity` entries. */
KVI_PRIVATE kv_status kvi_mem_shard_open(kv_mem *m, kvi_mem_shard *s, size_t capacity)
{
    size_t             buckets = capacity / (KVI_MEM_SLOTS * 2 / 3) + 1;
    uint32_t           depth = 0, mask = 0;
    kvi_mem_directory *d;
    while (mask + 1 < buckets && mask + 1 < KVI_MEM_SEGMENT) mask = mask * 2 + 1;
    while (((size_t)KVI_MEM_SEGMENT << depth) < buckets && depth < KVI_MEM_DEPTH_MAX) depth++;
    s->bump = KVI_MEM_NOWHERE;
    s->next_expiry = s->sweep_next = UINT64_MAX;
    for (uint32_t i = 0; i < KVI_MEM_LISTS; i++) s->lists[i] = KVI_MEM_NOWHERE;
    d = kvi_mem_directory_new(m, depth, mask);
    if (!d) return KV_ERR_NO_MEMORY;
    s->directory = d;
    for (size_t i = 0; i < (size_t)1 << depth; i++) {
        kvi_mem_segments(d)[i] = kvi_mem_segment_new(m, mask);
        if (!kvi_mem_segments(d)[i]) return KV_ERR_NO_MEMORY;
        s->segment_count++;
    }
    return KV_OK;
}

/* Give every large value and every chunk back; `pieces` is false where all regions go anyway. */
KVI_PRIVATE void kvi_mem_chunk_larges_drop(kv_mem *m, kvi_mem_shard *s, uint32_t number)
{
    const kvi_mem_chunk *c = kvi_mem_chunk_info(s, number);
    for (uint32_t at = 0; at + KVI_MEM_BLOCK_MIN <= c->used;) {
        uint8_t       *block = kvi_mem_at(s, kvi_mem_ref(number, at));
        kvi_mem_record r;
        if (kvi_mem_word(block, 0) & KVI_MEM_HEAD_FREE) { at += kvi_mem_word(block, 1); continue; }
        r = kvi_mem_record_at(block);
        if (r.large) kvi_mem_large_drop(m, s, r.large);
        at += r.granules;
    }
}
KVI_PRIVATE void kvi_mem_chunks_drop(kv_mem *m, kvi_mem_shard *s, bool pieces)
{
    for (uint32_t i = 0; i < s->chunk_count; i++) {
        kvi_mem_chunk *c = kvi_mem_chunk_info(s, i);
        void          *memory = kvi_mem_chunk_pointers((kvi_mem_chunks *)s->chunks)[i];
        if (!c->size_log2) continue;
        if (s->large_bytes) kvi_mem_chunk_larges_drop(m, s, i);
        if (kvi_mem_optimistic(m) && !m->allocator.resize) kvi_discard(memory, (size_t)1 << c->size_log2);
        if (pieces) kvi_mem_piece_give(m, memory, c->size_log2);
        c->size_log2 = 0;
        c->used = c->live = 0;
    }
    s->chunk_count = 0;
    s->chunk_bytes = s->live_granules = s->free_granules = 0;
    s->bump = KVI_MEM_NOWHERE;
    s->list_map = 0;
    for (uint32_t i = 0; i < KVI_MEM_LISTS; i++) s->lists[i] = KVI_MEM_NOWHERE;
}
KVI_PRIVATE void kvi_mem_shard_close(kv_mem *m, kvi_mem_shard *s)
{
    kvi_mem_directory *d = (kvi_mem_directory *)s->directory;
    kvi_mem_chunks    *c = (kvi_mem_chunks *)s->chunks;
    kvi_mem_chunks_drop(m, s, kvi_mem_limited(m));
    if (d && kvi_mem_limited(m)) kvi_mem_segments_give(m, d);
    while (d) { kvi_mem_directory *older = d->retired; kvi_mem_free(m, d, d->bytes); d = older; }
    while (c) { kvi_mem_chunks *older = c->retired; kvi_mem_free(m, c, c->bytes); c = older; }
}

KVI_PRIVATE kv_status kvi_mem_open_shards(kv_mem *m, size_t capacity)
{
    size_t each = capacity / m->shard_count + (capacity % m->shard_count != 0);
    for (uint32_t i = 0; i < m->shard_count; i++) {
        kv_status status = kvi_mem_shard_open(m, m->shards + i, each);
        if (status < 0) return status;
    }
    return KV_OK;
}

KVI_PRIVATE void kvi_mem_free_all(kv_mem *m)
{
    kv_allocator a = m->allocator;
    while (KVI_MEM_WATCH && m->watches) {
        kv_watch *w = m->watches;
        m->watches = w->next;
        kvi_mem_free(m, w, sizeof *w + w->prefix_size);
    }
    kv_buf_free(&m->pending);
    for (uint32_t i = 0; i < m->shard_count; i++) kvi_mem_shard_close(m, m->shards + i);
    kvi_mem_pool_drop(m);
    kvi_mutex_destroy(&m->watch_mutex);
    kvi_mutex_destroy(&m->save_mutex);
    kvi_free(&a, m, m->base_bytes);
}

KVI_MEM_DEFINE kv_status kv_mem_open(const kv_mem_options *options, kv_mem **result)
{
    kv_mem_options o = kvi_mem_options_resolve(options);
    uint32_t       stripes = o.single_thread ? 1 : KVI_MEM_STRIPES;
    size_t         bytes;
    uint8_t       *at;
    kv_mem        *m;
    kv_status      status;
    if (!result) return KV_ERR_INVALID;
    *result = NULL;
    if (!KVI_MEM_LIMIT && o.memory_limit_bytes) return KV_ERR_UNSUPPORTED;
    if (!o.single_thread && stripes > 4 * o.shards) stripes = kvi_mem_power_of_two(4 * o.shards);
    bytes = sizeof *m + KVI_MEM_LINE + o.shards * sizeof(kvi_mem_shard) + stripes * sizeof(kvi_mem_stripe);
    if (o.memory_limit_bytes && o.memory_limit_bytes < bytes) return KV_ERR_NO_SPACE;
    m = (kv_mem *)kvi_alloc_zero(&o.allocator, bytes);
    if (!m) return KV_ERR_NO_MEMORY;
    at = (uint8_t *)m + sizeof *m;
    at += (KVI_MEM_LINE - ((uintptr_t)at & (KVI_MEM_LINE - 1))) & (KVI_MEM_LINE - 1);
    m->shards = (kvi_mem_shard *)(void *)at;
    m->stripes = (kvi_mem_stripe *)(void *)(at + o.shards * sizeof(kvi_mem_shard));
    m->stripe_mask = stripes - 1;
    m->base_bytes = m->memory_bytes = bytes;
    if (KVI_THREADS) m->store.ops = &kvi_mem_ops;       /* else kv_mem_store does: who does not call it need not have all that is behind it */
    m->store.name = "mem";
    m->store.caps = KV_CAP_WRITE | (o.single_thread ? 0u : (uint32_t)KV_CAP_THREADS);
    m->allocator = m->pending.allocator = o.allocator;
    m->io = o.io;
    m->now_ms = o.now_ms;
    m->now_user = o.now_user;
    m->seed = o.seed;
    if (!m->seed) (void)kvi_random_u64(&m->seed, m);
    m->limit = o.memory_limit_bytes && o.memory_limit_bytes < SIZE_MAX ? (size_t)o.memory_limit_bytes : SIZE_MAX;
    m->concurrent = !o.single_thread;
    m->limited = o.memory_limit_bytes != 0;
    m->optimistic = m->concurrent && !m->limited;
    m->direct = !m->concurrent && !m->limited;
#if KVI_MEM_LANES
    if (!o.seed) kvi_mem_secrets(m);
#endif
    m->shard_count = o.shards;
    m->shard_bits = kvi_highest_bit32(o.shards);
    m->shard_shift = 63 - m->shard_bits;
    if (!kvi_mutex_init(&m->watch_mutex)) { kvi_free(&o.allocator, m, bytes); return KV_ERR_NO_MEMORY; }
    if (!kvi_mutex_init(&m->save_mutex)) { kvi_mutex_destroy(&m->watch_mutex); kvi_free(&o.allocator, m, bytes); return KV_ERR_NO_MEMORY; }
    status = kvi_mem_open_shards(m, o.capacity);
    if (status < 0) {
        kvi_mem_free_all(m);
        return o.memory_limit_bytes ? KV_ERR_NO_SPACE : status;
    }
    *result = m;
    return KV_OK;
}
KVI_MEM_DEFINE void      kv_mem_close(kv_mem *m) { if (m) kvi_mem_free_all(m); }
KVI_MEM_DEFINE kv_store *kv_mem_store(kv_mem *m)
{
    if (m && !KVI_THREADS) m->store.ops = &kvi_mem_ops;
    return m ? &m->store : NULL;
}

/* ---- reading ---- */

/* Calls are kept out of kv_mem_get, kv_mem_set and kv_mem_delete, but as their last act: so they need no frame. */
KVI_NOINLINE kv_status kvi_mem_no_key(kv_mem *m, kv_slice key) { return kvi_error_set(&m->error, kv_check_key(key), NULL); }
KVI_MEM_FLATTEN KVI_MEM_DEFINE kv_status kv_mem_get(kv_mem *m, kv_slice key, kv_buf *value)
{
    if (!m || !value) return KV_ERR_INVALID;
#if KVI_MEM_LANES
    if (KVI_LIKELY(kvi_mem_briefest(m, key))) {
        kvi_mem_lanes brief = kvi_mem_lanes_load(key.data, key.size);
        return kvi_mem_get_direct(m, key, kvi_mem_lanes_hash(m->secrets, &brief, key.size), value, &brief);
    }
    if (KVI_LIKELY(kvi_mem_optimistic(m) && kvi_mem_brief(m, key.size) && key.data)) return kvi_mem_get_brief(m, key, value);
#endif
    if (KVI_UNLIKELY(!kvi_mem_is_key(key))) return kvi_mem_no_key(m, key);
    return kvi_mem_get_far(m, key, value);
}
KVI_MEM_DEFINE kv_status kv_mem_exists(kv_mem *m, kv_slice key)
{
    uint64_t  expiry;
    kv_status status;
    if (!m) return KV_ERR_INVALID;
    status = kv_check_key(key);
    return status == KV_OK ? kvi_mem_expiry_of(m, key, &expiry) : kvi_error_set(&m->error, status, NULL);
}
KVI_MEM_DEFINE kv_status kv_mem_view(kv_mem *m, kv_slice key, kv_visit_fn visit, void *user)
{
    kv_status status;
    if (!m || !visit) return KV_ERR_INVALID;
    status = kv_check_key(key);
    return status == KV_OK ? kvi_mem_view(m, key, visit, user) : kvi_error_set(&m->error, status, NULL);
}
KVI_MEM_DEFINE kv_status kv_mem_peek(kv_mem *m, kv_slice key, kv_slice *value)
{
    kvi_mem_record r;
    uint64_t       hash;
    bool           found;
    kv_status      status;
    if (!m || !value) return KV_ERR_INVALID;
    status = kv_check_key(key);
    if (status < 0) return kvi_error_set(&m->error, status, NULL);
    hash = kvi_mem_hash(m, key);
    found = kvi_mem_read_begin(m, kvi_mem_shard_of(m, hash), key, hash, &r);
    if (found) {
        *value = kvi_mem_record_value(&r);
        kvi_mem_read_unlock(m, kvi_mem_shard_of(m, hash));
    }
    kvi_mem_count_read(m, found);
    return found ? KV_OK : KV_NOT_FOUND;
}
KVI_MEM_DEFINE kv_status kv_mem_ttl(kv_mem *m, kv_slice key, uint64_t *ttl_ms)
{
    uint64_t  expiry, now;
    kv_status status;
    if (!m || !ttl_ms) return KV_ERR_INVALID;
    status = kv_check_key(key);
    if (status < 0) return kvi_error_set(&m->error, status, NULL);
    status = kvi_mem_expiry_of(m, key, &expiry);
    if (status != KV_OK) return status;
    if (!expiry) { *ttl_ms = UINT64_MAX; return KV_OK; }
    now = kvi_mem_clock(m);
    if (now >= expiry) return KV_NOT_FOUND;
    *ttl_ms = expiry - now;
    return KV_OK;
}
KVI_MEM_DEFINE kv_status kv_mem_batch_get(kv_mem *m, const kv_slice *keys, size_t count, kv_buf *values, kv_status *statuses)
{
    if (!m || (count && (!keys || !values))) return KV_ERR_INVALID;
    return kvi_mem_batch_get(m, keys, count, values, statuses);
}
KVI_MEM_DEFINE kv_status kv_mem_scan(kv_mem *m, const kv_range *range, kv_visit_fn visit, void *user)
{
    kvi_mem_scan scan;
    if (!m || !visit || kvi_check_range(range) < 0) return KV_ERR_INVALID;
    memset(&scan, 0, sizeof scan);
    if (range && (range->prefix.size || range->from.data || range->to.data)) scan.range = range;
    scan.visit = visit;
    scan.user = user;
    scan.left = range && range->limit ? range->limit : SIZE_MAX;
    return kvi_mem_scan_all(m, &scan);
}

/* ---- writing ---- */

KVI_NOINLINE kv_status kvi_mem_set_long(kv_mem *m, kv_slice key, kv_slice value, uint64_t ttl_ms)
{
    kvi_mem_request r;
    kvi_mem_request_new(&r, NULL, false, key);
    r.value = value;
    r.ttl_ms = ttl_ms;
    return kvi_mem_write_checked(m, &r);
}
KVI_NOINLINE kv_status kvi_mem_remove_long(kv_mem *m, kv_slice key)
{
    kvi_mem_request r;
    kvi_mem_request_new(&r, kvi_mem_decide_remove, false, key);
    return kvi_mem_write_checked(m, &r);
}
KVI_NOINLINE kv_status kvi_mem_set_far(kv_mem *m, kv_slice key, kv_slice value)
{
    if (kvi_mem_is_key(key) && (value.data || !value.size) && kvi_mem_set_hashed(m, key, value, kvi_mem_hash(m, key))) return KV_OK;
    return kvi_mem_set_long(m, key, value, 0);
}
KVI_NOINLINE kv_status kvi_mem_remove_far(kv_mem *m, kv_slice key)
{
    if (kvi_mem_is_key(key) && kvi_mem_remove_hashed(m, key, kvi_mem_hash(m, key))) return KV_OK;
    return kvi_mem_remove_long(m, key);
}
#if KVI_MEM_LANES
KVI_NOINLINE kv_status kvi_mem_set_brief(kv_mem *m, kv_slice key, kv_slice value)   /* several threads, a short key */
{
    kvi_mem_lanes brief = kvi_mem_lanes_load(key.data, key.size);
    if (KVI_LIKELY(kvi_mem_set_short(m, key, value, kvi_mem_lanes_hash(m->secrets, &brief, key.size), true, &brief))) return KV_OK;
    return kvi_mem_set_long(m, key, value, 0);
}
KVI_NOINLINE kv_status kvi_mem_remove_brief(kv_mem *m, kv_slice key)
{
    kvi_mem_lanes brief = kvi_mem_lanes_load(key.data, key.size);
    if (KVI_LIKELY(kvi_mem_remove_short(m, key, kvi_mem_lanes_hash(m->secrets, &brief, key.size), true, &brief))) return KV_OK;
    return kvi_mem_remove_long(m, key);
}
#endif
KVI_MEM_FLATTEN KVI_MEM_DEFINE kv_status kv_mem_set(kv_mem *m, kv_slice key, kv_slice value)
{
    if (!m) return KV_ERR_INVALID;
#if KVI_MEM_LANES
    if (KVI_LIKELY(kvi_mem_briefest(m, key) && value.size <= KVI_MEM_LANES_MAX && (value.data || !value.size))) {
        kvi_mem_lanes brief = kvi_mem_lanes_load(key.data, key.size);
        if (KVI_LIKELY(kvi_mem_set_short(m, key, value, kvi_mem_lanes_hash(m->secrets, &brief, key.size), false, &brief))) return KV_OK;
        return kvi_mem_set_long(m, key, value, 0);
    }
    if (KVI_LIKELY(kvi_mem_optimistic(m) && kvi_mem_brief(m, key.size) && value.size <= KVI_MEM_LANES_MAX && key.data && (value.data || !value.size))) return kvi_mem_set_brief(m, key, value);
#endif
    return kvi_mem_set_far(m, key, value);
}
KVI_MEM_DEFINE kv_status kv_mem_set_ttl(kv_mem *m, kv_slice key, kv_slice value, uint64_t ttl_ms)
{
    return m ? kvi_mem_set_long(m, key, value, ttl_ms) : KV_ERR_INVALID;
}
KVI_MEM_DEFINE kv_status kv_mem_insert(kv_mem *m, kv_slice key, kv_slice value)
{
    kvi_mem_request r;
    if (!m) return KV_ERR_INVALID;
    kvi_mem_request_new(&r, kvi_mem_decide_insert, false, key);
    r.value = value;
    return kvi_mem_write_checked(m, &r);
}
KVI_MEM_FLATTEN KVI_MEM_DEFINE kv_status kv_mem_delete(kv_mem *m, kv_slice key)
{
    if (!m) return KV_ERR_INVALID;
#if KVI_MEM_LANES
    if (KVI_LIKELY(kvi_mem_briefest(m, key))) {
        kvi_mem_lanes brief = kvi_mem_lanes_load(key.data, key.size);
        if (KVI_LIKELY(kvi_mem_remove_short(m, key, kvi_mem_lanes_hash(m->secrets, &brief, key.size), false, &brief))) return KV_OK;
        return kvi_mem_remove_long(m, key);
    }
    if (KVI_LIKELY(kvi_mem_optimistic(m) && kvi_mem_brief(m, key.size) && key.data)) return kvi_mem_remove_brief(m, key);
#endif
    return kvi_mem_remove_far(m, key);
}
KVI_MEM_DEFINE kv_status kv_mem_compare_and_set(kv_mem *m, kv_slice key, kv_slice expected, kv_slice value)
{
    kvi_mem_request r;
    if (!m || (!expected.data && expected.size)) return KV_ERR_INVALID;
    kvi_mem_request_new(&r, kvi_mem_decide_compare, true, key);
    r.expected = expected;
    r.value = value;
    return kvi_mem_write_checked(m, &r);
}
KVI_MEM_DEFINE kv_status kv_mem_increment(kv_mem *m, kv_slice key, int64_t delta, int64_t *result)
{
    kvi_mem_request r;
    kv_status       status;
    if (!m) return KV_ERR_INVALID;
    kvi_mem_request_new(&r, kvi_mem_decide_increment, true, key);
    r.delta = delta;
    status = kvi_mem_write_checked(m, &r);
    if (status == KV_OK && result) *result = r.result;
    return status;
}
KVI_MEM_DEFINE kv_status kv_mem_update(kv_mem *m, kv_slice key, kv_update_fn fn, void *user)
{
    kvi_mem_request r;
    kv_status       status;
    if (!m || !fn) return KV_ERR_INVALID;
    kvi_mem_request_new(&r, kvi_mem_decide_update, true, key);
    r.fn = fn;
    r.user = user;
    memset(&r.made, 0, sizeof r.made);
    r.made.allocator = m->allocator;
    status = kvi_mem_write_checked(m, &r);
    kv_buf_free(&r.made);
    return status;
}
KVI_MEM_DEFINE kv_status kv_mem_expire(kv_mem *m, kv_slice key, uint64_t ttl_ms)
{
    kvi_mem_request r;
    if (!m) return KV_ERR_INVALID;
    kvi_mem_request_new(&r, kvi_mem_decide_expire, false, key);
    r.ttl_ms = ttl_ms;
    return kvi_mem_write_checked(m, &r);
}
KVI_MEM_DEFINE kv_status kv_mem_batch_set(kv_mem *m, const kv_pair *pairs, size_t count)
{
    if (!m || (count && !pairs)) return KV_ERR_INVALID;
    return kvi_mem_batch_set(m, pairs, count);
}
KVI_MEM_DEFINE kv_status kv_mem_batch_delete(kv_mem *m, const kv_slice *keys, size_t count)
{
    if (!m || (count && !keys)) return KV_ERR_INVALID;
    return kvi_mem_batch_delete(m, keys, count);
}

/* ---- all of it ---- */

/* Sweep the shards in which something is due, one segment under the lock at a time. */
KVI_PRIVATE size_t kvi_mem_sweep_all(kvi_mem_work *w, size_t most)
{
    kv_mem *m = w->m;
    size_t  count = 0;
    for (uint32_t i = 0; i < m->shard_count && count < most; i++) {
        uint32_t ends = 0;                  /* of the table; the first may be that of an older sweep, so there are two */
        w->s = m->shards + (kvi_add_u32(&m->sweep_shard, 1) & (m->shard_count - 1));
        if (!kvi_mem_expiring(w->s)) continue;
        while (ends < 2 && count < most) {
            bool end = false;
            kvi_mem_lock(m, w->s);
            if (w->s->next_expiry > kvi_mem_now(w)) ends = 2;
            else count += kvi_mem_sweep_step(w, most - count, &end);
            kvi_mem_unlock(m, w->s);
            ends += end;
        }
    }
    return count;
}
KVI_MEM_DEFINE size_t kv_mem_sweep(kv_mem *m, size_t entries_max)
{
    kvi_mem_work w;
    size_t       count;
    if (!KVI_MEM_TTL || !m || !kvi_mem_may_write(m)) return 0;
    memset(&w, 0, sizeof w);
    w.m = m;
    if (!kvi_mem_watched(m)) return kvi_mem_sweep_all(&w, entries_max);
    kvi_mutex_lock(&m->watch_mutex);
    w.watched = true;
    count = kvi_mem_sweep_all(&w, entries_max);
    kvi_mem_watch_leave(m);
    return count;
}

/* What a shard holds, without what has expired and is still there. Under its lock. */
typedef struct kvi_mem_tally { uint64_t count, key_bytes, value_bytes; } kvi_mem_tally;

KVI_PRIVATE kvi_mem_tally kvi_mem_shard_tally(kvi_mem_work *w)
{
    kvi_mem_shard *s = w->s;
    kvi_mem_tally  t;
    uint64_t       next = 0;
    t.count = s->count;
    t.key_bytes = s->key_bytes;
    t.value_bytes = s->value_bytes;
    if (!kvi_mem_expiring(s) || s->next_expiry > kvi_mem_now(w)) return t;
    do {
        const kvi_mem_bucket *segment = kvi_mem_segment_at(s, next, &next);
        uint32_t              mask = ((const kvi_mem_directory *)s->directory)->mask;
        for (uint32_t i = 0; i <= mask; i++) {
            uint32_t bits = kvi_mem_state(segment + i) >> 20;
            for (; bits; bits &= bits - 1) {
                kvi_mem_record r = kvi_mem_record_at(kvi_mem_at(s, segment[i].refs[kvi_lowest_bit32(bits)]));
                if (!kvi_mem_expired(w, &r)) continue;
                t.count--;
                t.key_bytes -= r.key_size;
                t.value_bytes -= r.value_size;
            }
        }
    } while (next);
    return t;
}
KVI_MEM_DEFINE uint64_t kv_mem_count(kv_mem *m)
{
    kvi_mem_work w;
    uint64_t     count = 0;
    if (!m) return 0;
    memset(&w, 0, sizeof w);
    w.m = m;
    for (uint32_t i = 0; i < m->shard_count; i++) {
        w.s = m->shards + i;
        if (!kvi_mem_expiring(w.s)) { count += kvi_peek_size(&w.s->count); continue; }
        kvi_mem_read_lock(m, w.s);
        count += kvi_mem_shard_tally(&w).count;
        kvi_mem_read_unlock(m, w.s);
    }
    return count;
}

/* Empty a shard under its lock: one segment stays, with every pointer of the directory leading to it. */
KVI_PRIVATE void kvi_mem_shard_clear(kv_mem *m, kvi_mem_shard *s, kvi_mem_bucket *segment, bool pieces)
{
    kvi_mem_directory *d = (kvi_mem_directory *)s->directory;
    kvi_mem_begin(m, s);
    for (size_t i = 1; pieces && i < (size_t)1 << d->depth; i++)
        if (kvi_mem_segments(d)[i] != kvi_mem_segments(d)[i - 1]) kvi_mem_segment_give(m, (kvi_mem_bucket *)kvi_mem_segments(d)[i], d->mask);
    kvi_mem_zero(segment, (size_t)(d->mask + 1) * sizeof *segment);
    for (size_t i = 0; i < (size_t)1 << d->depth; i++) kvi_store_ptr(kvi_mem_segments(d) + i, segment);
    kvi_mem_end(m, s);
    kvi_mem_chunks_drop(m, s, pieces);
    s->segment_count = 1;
    kvi_poke_size(&s->count, 0);
    kvi_poke_size(&s->expiring, 0);
    s->key_bytes = s->value_bytes = 0;
    s->next_expiry = s->sweep_next = UINT64_MAX;
    s->sweep_at = s->clock_at = 0;
    s->clock_bucket = s->clock_slot = 0;
    s->reseed_at = 0;
}

/* One thread and no limit: give all regions back but the smallest that holds a segment for each shard.
   False: there is no such region. */
KVI_PRIVATE bool kvi_mem_clear_regions(kv_mem *m)
{
    kvi_mem_pool   *pool = &m->pool;
    size_t          needed = sizeof(kvi_mem_region) + KVI_MEM_LINE;
    kvi_mem_region *kept = NULL;
    for (uint32_t i = 0; i < m->shard_count; i++) needed += (((const kvi_mem_directory *)m->shards[i].directory)->mask + 1) * sizeof(kvi_mem_bucket);
    for (kvi_mem_region *r = pool->regions; r; r = r->next) if (r->bytes >= needed && (!kept || r->bytes < kept->bytes)) kept = r;
    if (!kept) return false;
    for (uint32_t i = 0; i < m->shard_count; i++) kvi_mem_chunks_drop(m, m->shards + i, false);
    while (pool->regions) {
        kvi_mem_region *r = pool->regions;
        pool->regions = r->next;
        if (r != kept) kvi_mem_free(m, r, r->bytes);
    }
    memset(pool, 0, sizeof *pool);
    kept->next = NULL;
    pool->regions = kept;
    pool->region_bytes = kept->bytes;
    pool->cursor = (uint8_t *)kept + sizeof *kept;
    pool->cursor += (KVI_MEM_LINE - ((uintptr_t)pool->cursor & (KVI_MEM_LINE - 1))) & (KVI_MEM_LINE - 1);
    pool->end = (uint8_t *)kept + kept->bytes;
    for (uint32_t i = 0; i < m->shard_count; i++) {
        uint32_t mask = ((const kvi_mem_directory *)m->shards[i].directory)->mask;
        kvi_mem_shard_clear(m, m->shards + i, (kvi_mem_bucket *)kvi_mem_piece_take(m, kvi_mem_segment_log2(mask)), false);
    }
    return true;
}

/* Keep a DELETE for every entry of a shard. */
KVI_PRIVATE void kvi_mem_clear_pend(kvi_mem_work *w)
{
    uint64_t next = 0;
    do {
        const kvi_mem_bucket *segment = kvi_mem_segment_at(w->s, next, &next);
        uint32_t              mask = ((const kvi_mem_directory *)w->s->directory)->mask;
        for (uint32_t i = 0; i <= mask; i++) {
            uint32_t used = ~kvi_mem_match(segment + i, 0) & KVI_MEM_ALL_SLOTS;
            for (; used; used &= used - 1) {
                kvi_mem_record r = kvi_mem_record_at(kvi_mem_at(w->s, segment[i].refs[kvi_lowest_bit32(used)]));
                if (!kvi_mem_pend(w, KV_EVENT_DELETE, kvi_mem_record_key(&r))) return;
            }
        }
    } while (next);
}
KVI_MEM_DEFINE void kv_mem_clear(kv_mem *m)
{
    kvi_mem_work w;
    bool         watched;
    if (!m || !kvi_mem_may_write(m)) return;
    memset(&w, 0, sizeof w);
    w.m = m;
    w.watched = watched = kvi_mem_watched(m);
    if (watched) kvi_mutex_lock(&m->watch_mutex);
    if (kvi_mem_concurrent(m) || kvi_mem_limited(m) || watched || !kvi_mem_clear_regions(m)) for (uint32_t i = 0; i < m->shard_count; i++) {
        w.s = m->shards + i;
        kvi_mem_lock(m, w.s);
        if (watched) kvi_mem_clear_pend(&w);
        kvi_mem_shard_clear(m, w.s, (kvi_mem_bucket *)kvi_mem_segments((const kvi_mem_directory *)w.s->directory)[0], true);
        kvi_mem_unlock(m, w.s);
        if (watched) kvi_mem_watch_tell(m);
    }
    if (watched) kvi_mem_watch_leave(m);
}

/* ---- watches ---- */

KVI_MEM_DEFINE kv_status kv_mem_subscribe(kv_mem *m, kv_slice prefix, kv_watch_fn fn, void *user, kv_watch **result)
{
    kv_watch *w;
    bool      inside;
    if (!m || !fn || !result) return KV_ERR_INVALID;
    *result = NULL;
    if (!KVI_MEM_WATCH) return kvi_error_set(&m->error, KV_ERR_UNSUPPORTED, "watch: compiled without (KV_MEM_NO_WATCH)");
    if (kv_check_key(prefix) < 0) return kvi_error_set(&m->error, KV_ERR_INVALID, "watch: the prefix is no key");
    w = (kv_watch *)kvi_mem_alloc(m, sizeof *w + prefix.size);
    if (!w) return kvi_error_set(&m->error, KV_ERR_NO_MEMORY, NULL);
    memset(w, 0, sizeof *w);
    w->m = m;
    w->fn = fn;
    w->user = user;
    w->prefix_size = prefix.size;
    kvi_copy((uint8_t *)w + sizeof *w, prefix.data, prefix.size);
    inside = kvi_mem_in_watch(m);
    if (!inside) kvi_mutex_lock(&m->watch_mutex);
    w->next = m->watches;
    m->watches = w;
    (void)kvi_add_u32(&m->watch_count, 1);
    if (!inside) kvi_mutex_unlock(&m->watch_mutex);
    *result = w;
    return KV_OK;
}
KVI_MEM_DEFINE void kv_mem_unsubscribe(kv_watch *w)
{
    kv_mem *m;
    bool    inside;
    if (!KVI_MEM_WATCH || !w) return;
    m = w->m;
    inside = kvi_mem_in_watch(m);
    if (!inside) kvi_mutex_lock(&m->watch_mutex);
    w->dead = true;
    m->watch_dead = true;
    (void)kvi_sub_u32(&m->watch_count, 1);
    if (!inside) kvi_mem_watch_leave(m);
}

/* ---- snapshots, statistics ---- */

KVI_MEM_DEFINE kv_status kv_mem_save(kv_mem *m, const char *path)
{
    if (!m || !path) return KV_ERR_INVALID;
#if KVI_MEM_SAVE
    return m->io ? kvi_mem_save_as(m, path) : kvi_error_set(&m->error, KV_ERR_UNSUPPORTED, "snapshot: there are no files here, and no kv_io was given");
#else
    return kvi_error_set(&m->error, KV_ERR_UNSUPPORTED, "snapshot: compiled without (KV_MEM_NO_SAVE)");
#endif
}
KVI_MEM_DEFINE kv_status kv_mem_load(kv_mem *m, const char *path)
{
    if (!m || !path) return KV_ERR_INVALID;
    if (!kvi_mem_may_write(m)) return kvi_error_set(&m->error, KV_ERR_INVALID, "load from inside a callback of this map");
#if KVI_MEM_SAVE
    return m->io ? kvi_mem_load_from(m, path) : kvi_error_set(&m->error, KV_ERR_UNSUPPORTED, "snapshot: there are no files here, and no kv_io was given");
#else
    return kvi_error_set(&m->error, KV_ERR_UNSUPPORTED, "snapshot: compiled without (KV_MEM_NO_SAVE)");
#endif
}

KVI_PRIVATE void kvi_mem_shard_stats(kv_mem *m, kvi_mem_work *w, kv_mem_stats_t *stats)
{
    kvi_mem_shard           *s = w->s;
    kvi_mem_tally            tally;
    const kvi_mem_directory *d;
    const kvi_mem_chunks    *c;
    kvi_mem_read_lock(m, s);
    d = (const kvi_mem_directory *)s->directory;
    tally = kvi_mem_shard_tally(w);
    stats->entries += tally.count;
    stats->key_bytes += tally.key_bytes;
    stats->value_bytes += tally.value_bytes;
    stats->expired += s->expired;
    stats->evicted += s->evicted;
    stats->rehashes += s->rehashes;
    stats->capacity += (uint64_t)s->segment_count * (d->mask + 1) * KVI_MEM_SLOTS * 3 / 4;
    stats->table_bytes += (uint64_t)s->segment_count * (d->mask + 1) * sizeof(kvi_mem_bucket);
    stats->record_bytes += s->live_granules * KVI_MEM_GRANULE;
    stats->large_bytes += s->large_bytes;
    for (; d; d = d->retired) stats->table_bytes += d->bytes;
    for (c = (const kvi_mem_chunks *)s->chunks; c; c = c->retired) stats->table_bytes += c->bytes;
    kvi_mem_read_unlock(m, s);
}
KVI_MEM_DEFINE kv_status kv_mem_stats(kv_mem *m, kv_mem_stats_t *stats)
{
    kvi_mem_work w;
    uint64_t     parts;
    if (!m || !stats) return KV_ERR_INVALID;
    memset(&w, 0, sizeof w);
    memset(stats, 0, sizeof *stats);
    w.m = m;
    for (uint32_t i = 0; i < m->shard_count; i++) {
        w.s = m->shards + i;
        kvi_mem_shard_stats(m, &w, stats);
    }
    for (uint32_t i = 0; i <= m->stripe_mask; i++) {
        stats->hits += kvi_peek_u64(&m->stripes[i].hits);
        stats->misses += kvi_peek_u64(&m->stripes[i].misses);
    }
    stats->shards = m->shard_count;
    stats->fixed_bytes = m->base_bytes;
    stats->memory_bytes = kvi_peek_size(&m->memory_bytes);
    parts = stats->table_bytes + stats->record_bytes + stats->large_bytes + stats->fixed_bytes;
    stats->free_bytes = stats->memory_bytes > parts ? stats->memory_bytes - parts : 0;
    return KV_OK;
}

#endif /* KV_MEM_IMPLEMENTATION */

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
