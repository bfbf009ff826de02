/* kv_lsm.h - v0.1.0 - durable ordered key-value store (log-structured merge tree)
   SPDX-License-Identifier: MIT (full text at the end of this file)

   In *one* C or C++ file:   #define KV_LSM_IMPLEMENTATION
                             #include "kv_lsm.h"      (kv.h, kv_simd.h, kv_compress.h lie beside it; -llz4 -lzstd)
   QUICK START
       kv_lsm *db;
       kv_status s = kv_lsm_open("data", NULL, &db);
       if (s < 0) { puts(kv_status_text(s)); return 1; }
       kv_lsm_set(db, KV_STR("boot"), KV_STR("1"));
       kv_lsm_close(db);

   CONTENTS   docs: the tree, durability, states, threads, memory, files, limits, options at compile time, errors
              code: >>public >>format >>config >>structs >>files >>memtable >>block >>cache >>table
                    >>version >>log >>manifest >>source >>merge >>read >>write >>flush >>compact
                    >>work >>recover >>cursor >>open >>ingest >>check >>repair >>api

   THE TREE
   A write goes to a log file and into a sorted table in memory, the memtable. A full memtable is
   frozen and written to a table file in level 0. When level 0 has collected a few tables, they are
   merged into level 1, whose tables do not overlap; a level that outgrows its share is merged into
   the next, each ten times larger. A read asks the memtables, then level 0 from new to old, then one
   table in each level; a filter in memory answers "surely not here" for most of them.

       set -> log file          get -> memtable -> frozen -> L0 newest .. oldest -> L1 -> .. -> L6
           -> memtable -> frozen -> L0 -> L1 -> ... -> L6

   DURABILITY                     a write that returned KV_OK survives
       KV_SYNC_NONE               the process dying; not the machine losing power
       KV_SYNC_BATCH (default)    the process dying; power loss: every kv_lsm_write, kv_batch_set and
                                  kv_batch_delete, and single sets after the next sync, flush or
                                  batch, or 100 ms (with no_background: the next kv_lsm_step)
       KV_SYNC_WRITE              power loss, from the moment it returned; concurrent writers share
                                  one sync
   After any crash the store opens by itself and holds a prefix of the writes, in the order in which
   they were made, each batch whole. Assumed: what a successful sync covered is on stable storage;
   anything else may be lost, kept, torn at any byte or kept out of order; a rename is atomic, and
   durable after its directory was synced. Detected and reported, never silently believed: changed,
   misplaced or missing bytes and files. After a clean kv_lsm_close this holds for every byte; after a
   crash, damage to the very last writes that were synced cannot be told from a torn write.
   A write that failed with KV_ERR_IO or KV_ERR_NO_SPACE is not visible, and after the next open it
   is there wholly or not at all. Any other failure means that it did not happen.

   STATES
   A failed append, a full disk or a failed background job make the store read-only: writes return
   KV_ERR_READ_ONLY, reads go on, kv_last_error keeps the first cause. kv_lsm_resume continues in new
   files once the cause is gone. After a failed sync nobody knows what is on the disk: then only
   closing and opening again helps. No file is deleted in either state. What was acknowledged before is
   still synced when it is due, by kv_lsm_sync and by kv_lsm_close, as long as the log itself is sound.

   THREADS
   Any thread may call anything at any time, but for a kv_lsm_batch and a cursor, which belong to one
   thread at a time. Reads take no lock that a write holds while it works. Callbacks run with no lock
   held and may read the store. kv_lsm_close waits for the calls that other threads are in, and leaves
   their cursors alone: see there. A store belongs to the process that opened it: after fork every
   call in the child is KV_ERR_INVALID, and kv_lsm_close there only gives up the files.

   MEMORY
   memtable_bytes for the newest writes, up to twice that again while it is being flushed, some 25 bytes
   an entry of the newest memtable for the guide that inserts by (none with -Os), cache_bytes
   for blocks, about 10 bits a key for filters, about 40 bytes a block for the index, and for
   background work some 2 MiB or four times block_bytes, whichever is more. kv_lsm_stats tells each.

   FILES
   A directory, mode 0700, of files, mode 0600: CURRENT names the MANIFEST-n, which names the tables
   (n.kvt) and logs (n.log) that make up the store; LOCK holds the process id of who has it open.
   What a crash leaves behind that the store cannot account for is moved to lost/, never deleted.
   The format is written down at >>format.

   LIMITS
   Keys 0 to 65,535 bytes, values 0 to 1 GiB - 1, a batch 2 GiB - 1 in all, block_bytes 64 to 16 MiB.
   A value is written and read whole. Of one that is large the store holds, beside the caller's: while
   it is set 2 times its size (record, memtable), while it is flushed or merged 3 times, for a get 2
   times (packed and unpacked, then unpacked and the caller's copy), in a cursor once, and once more
   while it is unpacked. A batch, and the keys that kv_lsm_delete_range deletes (2 GiB - 1 in all, and
   some 100 bytes a key), likewise while they are written.
   kv_lsm_delete_range and kv_lsm_ingest hold other writers back while they run. With map_tables a
   disk error is a signal (SIGBUS), as it is for everyone who maps files; a full disk is none.

   OPTIONS AT COMPILE TIME
   Where code is scarce, define beside KV_LSM_IMPLEMENTATION what is not needed. The files are the same,
   and the calls stay; these are KV_ERR_UNSUPPORTED:
       KV_LSM_NO_REPAIR     kv_lsm_check, kv_lsm_repair
       KV_LSM_NO_INGEST     kv_lsm_ingest
       KV_LSM_NO_CHECKPOINT kv_lsm_checkpoint
       KV_LSM_NO_RESUME     kv_lsm_resume: a store that became read-only is closed and opened again
       KV_LSM_NO_STATS      kv_lsm_stats, kv_store_stats; nothing is counted
   and these go without saying:
       KV_LSM_NO_CACHE      no block cache, whatever cache_bytes says
       KV_LSM_NO_FILTER     no filters, whatever bloom_fp_rate says; those in tables are not used
       KV_LSM_NO_TEXT       an error is its status: kv_last_error and error_text do not tell file and cause
   KV_NO_LZ4 and KV_NO_ZSTD leave the codecs out (see kv_compress.h), KV_NO_THREADS all that is for threads.
   With -Os what only makes reads and writes faster is left out, too, and with KV_NO_FILES then map_tables.
   README has a table of sizes.

   ERRORS
   Failures are statuses; kv_last_error(kv_lsm_store(db)) tells the last one in words, with the file. */

/* ------------------------------------------------------------------------------------------------
   >>public   the interface                                                                        */
#if defined(KV_IMPLEMENTATION) && !defined(KV_LSM_IMPLEMENTATION)
#define KV_LSM_IMPLEMENTATION
#endif
#if defined(KV_LSM_IMPLEMENTATION) && !defined(KV_COMPRESS_IMPLEMENTATION)
#define KV_COMPRESS_IMPLEMENTATION
#define KVI_COMPRESS_IMPLIED 1
#endif
#if defined(KV_LSM_IMPLEMENTATION) && !defined(KV_SIMD_IMPLEMENTATION)
#define KV_SIMD_IMPLEMENTATION
#define KVI_SIMD_IMPLIED 1
#endif
#if defined(KV_LSM_IMPLEMENTATION) && !defined(KV_CORE_IMPLEMENTATION)
#define KV_CORE_IMPLEMENTATION
#define KVI_CORE_IMPLIED 1
#endif
#include "kv_simd.h"
#include "kv_compress.h"
#if KV_VERSION < 100
#error "kv_lsm.h 0.1 needs kv.h 0.1 or newer: copy all headers from the same release"
#endif

#ifndef KV_LSM_INCLUDED
#define KV_LSM_INCLUDED 1

#ifdef __cplusplus
extern "C" {
#endif

#define KV_LSM_LEVELS 7                     /* L0 .. L6 */
#define KV_LSM_BATCH_SIZE_MAX 2147483647u   /* bytes of a batch, keys and values and about 12 bytes an entry */
#define KV_NO_BLOOM (-1.0)                  /* in bloom_fp_rate: no filters */

typedef struct kv_lsm       kv_lsm;
typedef struct kv_lsm_batch kv_lsm_batch;
typedef struct kv_snapshot  kv_snapshot;

typedef enum kv_sync {                      /* what survives a power cut: see DURABILITY */
    KV_SYNC_DEFAULT = 0,                    /* KV_SYNC_BATCH */
    KV_SYNC_NONE = 1,
    KV_SYNC_BATCH = 2,
    KV_SYNC_WRITE = 3
} kv_sync;

typedef enum kv_lsm_style {
    KV_LSM_LEVELED = 0,                     /* each level one sorted run: reads and space first */
    KV_LSM_TIERED = 1                       /* several runs of like size before they are merged: writes first */
} kv_lsm_style;

/* {0} is every default. What was resolved: kv_lsm_get_options. */
typedef struct kv_lsm_options {
    kv_allocator allocator;                 /* {0}: malloc */
    size_t   memtable_bytes;                /* default 4 MiB; at least 4 KiB */
    size_t   cache_bytes;                   /* blocks kept in memory, unpacked; default 64 MiB; KV_NONE: no block cache */
    uint32_t block_bytes;                   /* default 16 KiB, before compression; 64 bytes to 16 MiB */
    kv_codec codec;                         /* default zstd, or lz4 or none where that is not compiled in */
    int      level;                         /* of the codec; default zstd 1 */
    double   bloom_fp_rate;                 /* how often a filter says "perhaps" for nothing; default 0.01; KV_NO_BLOOM: none */
    kv_sync  sync;                          /* default KV_SYNC_BATCH */
    bool     skip_verify;                   /* do not verify the payload checks of blocks on reads; default: verified when a block enters memory */
    bool     read_only;                     /* touch no file; several readers may have it open at once */
    bool     create_only;                   /* KV_EXISTS where there is a store */
    bool     must_exist;                    /* KV_NOT_FOUND where there is none */
    uint32_t l0_trigger;                    /* tables in level 0 that start a merge, three times as many while a thread sees writes come fast; default 4 */
    uint64_t l1_bytes;                      /* the size that level 1 aims at; default 64 MiB */
    uint32_t level_ratio;                   /* how many times larger each next level is; default 10 */
    kv_lsm_style style;                     /* default KV_LSM_LEVELED */
    bool     no_background;                 /* no threads (else one, and with KV_SYNC_BATCH one that syncs): flush and compaction happen in kv_lsm_step and, when they must, inside writes */
    const kv_io *io;                        /* default: this system's files. Outlives the store */
    void   (*log)(void *user, kv_status s, const char *text);   /* what happens in the background, in words; called from any thread; may be NULL */
    void    *log_user;
    char    *error_text;                    /* where kv_lsm_open puts why it failed, in words; may be NULL */
    size_t   error_text_size;
    size_t   table_bytes;                   /* where a merge cuts its tables; default 8 MiB; at least 1 KiB */
    uint32_t open_files;                    /* table files kept open; default 256 */
    bool     map_tables;                    /* map table files, and the log but with KV_SYNC_WRITE, where kv_io can: faster; see LIMITS */
} kv_lsm_options;

/* The three presets: {0} written out; little memory (1 MiB memtable, no cache, no filters, lz4 or
   none); speed from memory (64 MiB memtable, 512 MiB cache, lz4). Change what you like. */
KV_API kv_lsm_options kv_lsm_default(void);
KV_API kv_lsm_options kv_lsm_low_memory(void);
KV_API kv_lsm_options kv_lsm_high_performance(void);

/* Open the store in the directory `path`, making it where it is missing.
   Returns   KV_OK; KV_NOT_FOUND (must_exist or read_only and no store is there), KV_EXISTS
             (create_only), KV_ERR_BUSY (somebody has it open; the text says who), KV_ERR_CORRUPT
             (damage that no crash explains; nothing was changed: see kv_lsm_repair), KV_ERR_VERSION,
             KV_ERR_INVALID (an option), KV_ERR_UNSUPPORTED (no files, no such codec), KV_ERR_IO,
             KV_ERR_NO_MEMORY, KV_ERR_NO_SPACE. error_text says which and why.
   Cost      the logs of a store that was not closed are replayed: up to about three memtables. */
KV_API kv_status kv_lsm_open(const char *path, const kv_lsm_options *options, kv_lsm **db);

/* Flush, mark the store as cleanly closed, free everything. The handle is gone whatever this returns;
   the status is the first failure (what was acknowledged under its contract is not affected by it).
   Snapshots are freed too. NULL is fine.
   Threads   calls of other threads that have begun are waited for (of kv_lsm_compact: for its next
             block, and it returns KV_END). A call that comes while this one works is answered, or is
             KV_ERR_INVALID and did nothing. Not from a callback, which it would wait for for ever.
   Cursors   that are open go on: they see their moment, and keep the files, the LOCK and the handle
             until the last of them is closed. As long as one is, other calls are KV_ERR_INVALID. */
KV_API kv_status kv_lsm_close(kv_lsm *db);

KV_API kv_store *kv_lsm_store(kv_lsm *db);                          /* for the kv_ functions */
KV_API const kv_lsm_options *kv_lsm_get_options(const kv_lsm *db);  /* with every default filled in */

/* As kv_get, kv_set... in kv.h, without the indirection. Writes follow the durability contract above.
   KV_ERR_TOO_LARGE over a limit, KV_ERR_READ_ONLY (see STATES), KV_ERR_IO, KV_ERR_NO_SPACE; reads:
   KV_ERR_CORRUPT and KV_ERR_IO where a block that may hold the key cannot be read: never "not found".
   batch_set and batch_delete are one atomic batch. A value given to a visitor is not a copy: it is
   pinned in the cache or the memtable while the visitor runs. */
KV_API kv_status kv_lsm_get(kv_lsm *db, kv_slice key, kv_buf *value);
KV_API kv_status kv_lsm_set(kv_lsm *db, kv_slice key, kv_slice value);
KV_API kv_status kv_lsm_delete(kv_lsm *db, kv_slice key);
KV_API kv_status kv_lsm_exists(kv_lsm *db, kv_slice key);
KV_API kv_status kv_lsm_view(kv_lsm *db, kv_slice key, kv_visit_fn visit, void *user);
KV_API kv_status kv_lsm_batch_get(kv_lsm *db, const kv_slice *keys, size_t count, kv_buf *values, kv_status *statuses);
KV_API kv_status kv_lsm_batch_set(kv_lsm *db, const kv_pair *pairs, size_t count);
KV_API kv_status kv_lsm_batch_delete(kv_lsm *db, const kv_slice *keys, size_t count);
KV_API kv_status kv_lsm_scan(kv_lsm *db, const kv_range *range, kv_visit_fn visit, void *user);
KV_API kv_status kv_lsm_count(kv_lsm *db, const kv_range *range, uint64_t *count);

/* Read and write as one step that nobody comes between. */
KV_API kv_status kv_lsm_insert(kv_lsm *db, kv_slice key, kv_slice value);   /* KV_EXISTS where it is there */
KV_API kv_status kv_lsm_compare_and_set(kv_lsm *db, kv_slice key, kv_slice expected, kv_slice value);   /* KV_ERR_CONFLICT, KV_NOT_FOUND */
KV_API kv_status kv_lsm_increment(kv_lsm *db, kv_slice key, int64_t delta, int64_t *result);   /* a typed int64; missing counts as 0; result may be NULL; KV_ERR_WRONG_TYPE; KV_ERR_INVALID: it would not fit, and stays */
/* Delete every entry of the range (limit and reverse count too) in one atomic batch; *deleted, which
   may be NULL, is how many there were. KV_ERR_TOO_LARGE where their keys are more than a batch holds. */
KV_API kv_status kv_lsm_delete_range(kv_lsm *db, const kv_range *range, uint64_t *deleted);

/* A batch: all of it or none of it, also after a crash. Of two changes to one key the later wins.
   `put` and `remove` copy what they are given. The first failure sticks: kv_lsm_write returns it. */
KV_API kv_status kv_lsm_batch_open(const kv_allocator *allocator, kv_lsm_batch **batch);    /* NULL: malloc */
KV_API kv_status kv_lsm_batch_put(kv_lsm_batch *batch, kv_slice key, kv_slice value);
KV_API kv_status kv_lsm_batch_remove(kv_lsm_batch *batch, kv_slice key);
KV_API size_t    kv_lsm_batch_count(const kv_lsm_batch *batch);
KV_API void      kv_lsm_batch_clear(kv_lsm_batch *batch);           /* keeps its memory */
KV_API void      kv_lsm_batch_close(kv_lsm_batch *batch);           /* NULL is fine */
KV_API kv_status kv_lsm_write(kv_lsm *db, const kv_lsm_batch *batch);   /* the batch stays as it is */

/* The store as it is now, for later. What a snapshot can see is kept until it is released. */
KV_API kv_status kv_lsm_snapshot(kv_lsm *db, kv_snapshot **snapshot);
KV_API kv_status kv_lsm_get_at(kv_lsm *db, const kv_snapshot *snapshot, kv_slice key, kv_buf *value);   /* snapshot NULL: now */
KV_API void      kv_lsm_snapshot_release(kv_lsm *db, kv_snapshot *snapshot);    /* NULL is fine */

/* A cursor that sees one moment, that of the snapshot or (NULL) of this call, whatever is written
   meanwhile. Both directions; see kv_iter in kv.h. It keeps the files and memory that it reads. */
KV_API kv_status kv_lsm_iter_open(kv_lsm *db, const kv_snapshot *snapshot, const kv_range *range, kv_iter **iter);

KV_API kv_status kv_lsm_sync(kv_lsm *db);       /* everything written before is on stable storage */
KV_API kv_status kv_lsm_flush(kv_lsm *db);      /* and in tables: the next open replays nothing of it */

/* Called as a merge goes on, with bytes read of bytes to read. false stops: KV_END. */
typedef bool (*kv_progress_fn)(void *user, uint64_t done_bytes, uint64_t total_bytes);

/* Flush, then merge every table that overlaps the range (NULL: all) down to the lowest level, until
   one sorted run is left. Overwritten values go, and deletes that hide nothing, but for what a
   snapshot needs. KV_END where progress stopped it; what was merged stays merged. */
KV_API kv_status kv_lsm_compact(kv_lsm *db, const kv_range *range, kv_progress_fn progress, void *user);

/* One bounded piece of background work: a block of a flush or merge, or a sync that is due. KV_OK:
   something was done. KV_END: none is due. For stores without a thread; harmless beside one. */
KV_API kv_status kv_lsm_step(kv_lsm *db);

/* Leave the read-only state in new files, once its cause is gone. KV_OK also where the store is not
   read-only. KV_ERR_READ_ONLY: it cannot be left (a sync failed, or it was opened so). */
KV_API kv_status kv_lsm_resume(kv_lsm *db);

/* A consistent copy in the new directory `path`, which opens by itself. Tables are hard links where
   the file system has them. KV_EXISTS where path is there. Durable when it returns. */
KV_API kv_status kv_lsm_checkpoint(kv_lsm *db, const char *path);

/* Bulk load: everything the cursor has, from its first entry, becomes tables directly; newer than
   what is there, all at once. The cursor may be of any store, also of this one. KV_ERR_ORDER where
   it does not ascend (a reverse one, say). The cursor is not closed. */
KV_API kv_status kv_lsm_ingest(kv_lsm *db, kv_iter *sorted);

/* Told what was found, in words: the status, then file, offset and what is wrong or was done. KV_OK
   is a remark. */
typedef void (*kv_check_fn)(void *user, kv_status s, const char *text);

/* Read every byte of a closed store and verify all of it. Changes nothing. KV_OK, KV_NOT_FOUND where
   there is none (or its making was cut off), or the first failure; `report` (may be NULL) gets each.
   options: allocator, io; NULL is fine. */
KV_API kv_status kv_lsm_check(const char *path, const kv_lsm_options *options, kv_check_fn report, void *user);

/* Make a store that opens out of what can still be read of a closed one.
   manifest lost     every table and log found is used; nothing is lost. The same where its end is torn, or
                     where the logs begin behind it
   a sector that     is taken for zeros, so what lies in it counts as damaged, whatever file it is of
   cannot be read
   table: a block    lost with the keys it held; index, filter, footer: rebuilt, nothing is lost
   table missing     lost; reported with its key range
   log               what comes before the damage is kept, and what was valid behind it is reported
   never finished    nothing to do: kv_lsm_open makes it anew. KV_NOT_FOUND where there is nothing at all
   Nothing that could not be read is deleted: it goes to lost/. Repeating it changes nothing. */
KV_API kv_status kv_lsm_repair(const char *path, const kv_lsm_options *options, kv_check_fn report, void *user);

typedef struct kv_lsm_location {
    bool     memtable;          /* in memory, active or frozen */
    int      level;             /* -1 for a memtable */
    uint64_t table;             /* file number; 0 for a memtable */
    uint64_t sequence;          /* of the write */
} kv_lsm_location;

/* Where the newest value of key is. KV_NOT_FOUND for a missing or deleted key. */
KV_API kv_status kv_lsm_locate(kv_lsm *db, kv_slice key, kv_lsm_location *where);

typedef struct kv_lsm_level_stats {
    uint64_t tables, keys, bytes;           /* now; keys with tombstones and old versions */
    uint64_t read_bytes, written_bytes;     /* by merges into this level, since open; L0: written by flushes */
} kv_lsm_level_stats;

typedef struct kv_lsm_stats_t {
    uint64_t memtable_bytes, memtable_keys; /* active and frozen */
    uint64_t frozen_memtables;
    uint64_t cache_hits, cache_misses, cache_bytes;
    kv_lsm_level_stats levels[KV_LSM_LEVELS];
    double   write_amplification;           /* bytes written to tables and logs, by bytes of keys and values written */
    uint64_t stall_ms;                      /* time that writers were made to wait */
    uint64_t index_bytes, filter_bytes;     /* memory of the tables that are open */
    uint64_t memory_bytes;                  /* all of it */
    uint64_t log_bytes, disk_bytes;
    uint64_t user_bytes, written_bytes;     /* keys and values given; bytes written to any file; both since open */
    uint64_t filter_hits, filter_misses;    /* a filter said "surely not here"; said "perhaps" */
    uint64_t flushes, compactions, trivial_moves, tombstones_dropped, versions_dropped;
    uint64_t syncs, write_groups, writes;   /* writes / write_groups: how many writers shared one append */
    uint64_t recovered_records, recovered_dropped_bytes;    /* by this open: replayed; torn off */
    uint64_t sequence;                      /* of the last write */
    bool     read_only, resumable;          /* see STATES */
} kv_lsm_stats_t;

KV_API kv_status kv_lsm_stats(kv_lsm *db, kv_lsm_stats_t *stats);

#ifdef __cplusplus
}
#endif
#endif /* KV_LSM_INCLUDED */

#if defined(KV_LSM_IMPLEMENTATION) && !defined(KV_LSM_IMPLEMENTED)
#define KV_LSM_IMPLEMENTED 1

/* THREE WALKS
   One set. kvi_lsm_commit puts the writer in a queue; the first in the queue leads. The leader makes
   room (kvi_lsm_make_room: rotate to a new memtable and log, wait while too much is pending), takes
   the writers behind it along, encodes all of them as one record, appends it to the log with one
   call, syncs if anybody needs that, inserts the entries into the memtable and publishes the new
   sequence number: from here on readers see them. A crash before the append is complete leaves
   nothing of the record, after it all of it, because the record has one check.

   One get. kvi_lsm_find takes a reference to the current view (active memtable, frozen ones, table
   version), reads the visible sequence number, and asks each part from new to old; the first entry
   of the key at or below the sequence decides. A table is asked through its filter, then its index,
   then one block, found in the cache or read, verified and put there; in the block a hash bucket
   names the entry.

   One crash. kvi_lsm_recover reads CURRENT and the manifest, replays the logs behind the flushed
   sequence up to the first record that is torn, checks that a crash explains the tear (nothing
   behind it says that it had been durable), writes what it replayed to new tables, starts a new log
   and a new manifest, and only then switches CURRENT. A crash during that leaves the old CURRENT.

   WHAT THEY COST   measured on one 2-core x86-64 virtual machine: 500,000 entries of 16 + 100 bytes,
   default sizes, no codec, one caller; shares of the caller's time, with the loop that calls
   A set, 0.84 us. One system call (the write of the log, 43 %), no clock and no wake; two copies of
   key and value (record, memtable; 9 %, with the wait for the caller's, which are fetched early); two
   rounds of a free mutex (6 %); its place by the guide, a word of the filter and the links (22 %, half of
   it waiting for memory); a record with two checksums (6 %). Cache misses were not counted. Right behind
   the key before, nothing is searched: 0.57 us. The thread works for a third of that time meanwhile.
   With map_tables the write is a copy, and a page fault each 4 KiB.
   A get, mostly from cached blocks, 0.51 us. No lock of a writer; two counts (view, 5 %, and block); a
   filter word for a memtable and a line for every table asked (19 %); a search of the index' heads
   (7 %), the block in the cache (19 %), one bucket and one key in it (9 %), the copy of the value (20 %).
   A block of 16 KiB that is not cached costs a read of 1.8 us and a checksum of 0.4; it is not copied.
   A packed one costs its unpacking too (LZ4 3 us, zstd 14 to 20), the heads, and buckets, 2 us, where it is
   likely to be read often.
   A get of a key that is not there, 0.22 us: filters only. A seek to a key that is there is such a get.
   With KV_SYNC_WRITE a set is a sync; eight threads share them, and reach 4.5 times one's speed.
   A scan step, 0.03 us. No lock, count or copy of the value; 8-byte comparisons against the second
   source only; each block is decoded once.                                                         */

/* ------------------------------------------------------------------------------------------------
   >>format   what is on the disk. Numbers are little-endian and lie at any address; `varint` is
   LEB128, at most 10 bytes and never longer than it must be. hash(bytes, seed) is XXH3 with 64 bits,
   check(bytes, seed) its low half.

   store      = CURRENT MANIFEST-n *(n.log) *(n.kvt) LOCK [lost/]
   CURRENT    = "kv_lsm 1\n" "MANIFEST-" number "\n" id-as-32-hex "\n" hash-as-16-hex "\n"
                hash(what comes before it, 0). Replaced by rename, never written in place
   number     = at least six decimal digits. No number is used twice in the life of a store

   Every other file begins with 64 bytes, whose layout is that of every format number:
   header     = magic:8 format:u32 flags:u32 id:16 number:u64 a:u64 b:u64 hash:u64
                magic  "KVLSMlog", "KVLSMkvt", "KVLSMman"
                id     of the store, random
                flags  log: 1 where the log before it was synced whole when this one began
                a      log: the last sequence number before it; table: its first level
                b      log: the number of the log before it, or 0
                hash   (the 56 bytes before it, 0)
   seed       = hash(id number magic, 0) + the offset of what is checked, in its file

   log        = header *record *zero-byte         zeros: room for more, where it was written through a map
   manifest   = header snapshot-record *edit-record
   record     = header-check:u32 payload-check:u32 payload-size:u32 sequence:u64 durable:u64 payload
                header-check  check(the 24 bytes behind it, seed), payload-check check(payload, seed)
                sequence      log: of its first entry; manifest: the last one of the store
                durable       how many bytes of this file were known to be on stable storage when
                              the record was written. A bad record at offset B is a torn write if
                              no later record says durable > B, and damage otherwise

   log payload      = 1 count:u32 *entry             one group of writes, sequence numbers in a row
                    | 2                              one sequence number, used by tables that were ingested
   entry            = 1 key-size:varint value-size:varint key value
                    | 2 key-size:varint key          a delete
   manifest payload = *field                         a snapshot describes all, an edit changes it
   field            = 1 last-sequence:varint         2 next-number:varint
                    | 3 number:varint                logs below it are not needed
                    | 4 sequence:varint              up to here everything is in tables
                    | 5 level number age size entries tombstones key-bytes value-bytes
                        first-sequence last-sequence (varints) smallest largest (varint size, bytes)
                    | 6 level number                 this table is gone
                    | 7 number length (varints)      closed cleanly with this log, so long
                    | 8 number:varint                this log is on stable storage, if only its header
                    | 128 and more: size:varint bytes, may be skipped; other tags are a newer format
   Tables of one level with one age are a run: sorted, without overlap. Greater ages are newer; in a
   leveled store everything below level 0 has age 0 and is one run a level.

   table      = header *data-block [filter-block] index-block properties-block footer
   block      = header-check:u32 payload-check:u32 packed-size:u32 raw-size:u32 type:u8 codec:u8 count:u16 payload
                header-check check(the 16 bytes behind it, seed), payload-check check(payload, seed)
                type  1 data, 2 index, 3 filter, 4 properties; codec as in kv_codec
                count entries of a data block; 0 for over 65,535, and in other blocks
   footer     = properties:u64 index:u64 filter:u64 (offsets; filter 0: none) properties-size:u32
                index-size:u32 filter-size:u32 (with their headers) format:u32 magic:8 number:u64
                hash:u64 (the 56 bytes before it, seed)
   data       = count:u32 key-bytes:u32 value-bytes:u32 prefix-size:u16 flags:u8 sequence-width:u8
                sequence-base:u64 prefix key-ends value-ends sequences deleted key-tails [heads buckets] values
                Entries ascend by key, then descend by sequence. A key is the prefix and its tail.
                flags  1: `deleted` is there, one bit an entry  2: ends are u32, else u16
                       4: all tails have one size, key-ends is left out  8: likewise values
                       16: heads and buckets are there (see >>block)
                       32: some key is there more than once
                sequence = base + sequence-width bytes
   index      = count:u32 key-bytes:u32 prefix-size:u32 prefix key-ends:u32[count] sizes:u32[count] key-tails
                one key a data block, not below its last and below the first of the next; sizes with headers
   filter     = probes:u32 lines:u32 64-byte-lines   a blocked Bloom filter (F. Putze et al., 2007)
   properties = *field, as field 5 of the manifest, and
                9 count *number count *number        in the last table of a merge: the tables that it
                                                     replaced, and all that it made                 */

#define KVI_LSM_FORMAT 1u
#define KVI_LSM_SECTOR         ((size_t)512)    /* what a disk reads or fails to read as one */
#define KVI_LSM_HEADER_SIZE 64u
#define KVI_LSM_RECORD_SIZE 28u             /* a record's header */
#define KVI_LSM_BLOCK_SIZE 20u              /* a block's header */
#define KVI_LSM_FOOTER_SIZE 64u
#define KVI_LSM_DATA_SIZE 24u               /* a data block's fixed part */
#define KVI_LSM_RECORD_MAX (KV_LSM_BATCH_SIZE_MAX + 64u)                /* payload of a record */
#define KVI_LSM_BLOCK_MAX (KV_VALUE_SIZE_MAX + (64u << 20))             /* a block, unpacked */

enum { KVI_LSM_SET = 1, KVI_LSM_DELETE = 2 };                       /* entries of a log, and of the memtable */
enum { KVI_LSM_LOG_GROUP = 1, KVI_LSM_LOG_INGEST = 2 };
enum { KVI_LSM_BLOCK_DATA = 1, KVI_LSM_BLOCK_INDEX = 2, KVI_LSM_BLOCK_FILTER = 3, KVI_LSM_BLOCK_PROPERTIES = 4 };
enum { KVI_LSM_DELETED = 1, KVI_LSM_WIDE = 2, KVI_LSM_FIXED_KEYS = 4, KVI_LSM_FIXED_VALUES = 8, KVI_LSM_HEADS = 16, KVI_LSM_REPEATS = 32 };
enum {
    KVI_LSM_FIELD_SEQUENCE = 1, KVI_LSM_FIELD_NEXT = 2, KVI_LSM_FIELD_LOG = 3, KVI_LSM_FIELD_FLUSHED = 4, KVI_LSM_FIELD_ADD = 5,
    KVI_LSM_FIELD_REMOVE = 6, KVI_LSM_FIELD_CLEAN = 7, KVI_LSM_FIELD_DURABLE_LOG = 8, KVI_LSM_FIELD_MERGE = 9
};
enum { KVI_LSM_LOG = 0, KVI_LSM_TABLE = 1, KVI_LSM_MANIFEST = 2 };  /* kinds of files */

/* ------------------------------------------------------------------------------------------------
   >>config   limits, and the bugs that the tests put in to see whether they find them             */

#define KVI_LSM_FROZEN_MAX 2                /* memtables that wait for their flush before writers wait for it */
#define KVI_LSM_GROUP_BYTES (1u << 20)      /* of writers that share one record */
#define KVI_LSM_SYNC_MS 90u                 /* a single set is synced so long after it, under KV_SYNC_BATCH */
#define KVI_LSM_RETRY_MS 100u               /* before background work that ran out of memory is tried again */
#ifndef KVI_LSM_WINDOW
#define KVI_LSM_WINDOW (1u << 20)           /* of the log, mapped at a time; a multiple of 64 KiB */
#endif
#ifndef KVI_LSM_INDEX_BYTES
#define KVI_LSM_INDEX_BYTES (256u << 20)    /* of a table's index: where it comes so far the table ends; far below KVI_LSM_BLOCK_MAX */
#endif
#define KVI_LSM_OUT_BYTES (256u << 10)      /* of a table, collected before they are written */
#define KVI_LSM_BUSY_TIMES 3                /* a merge waits for so many times l0_trigger tables in level 0 while writes come fast: */
#define KVI_LSM_BUSY_MS 50u                 /* a memtable was filled so lately */
#define KVI_LSM_SLOW_TIMES 7                /* writers are slowed at so many times l0_trigger tables in level 0, */
#define KVI_LSM_STOP_TIMES 11               /* and stopped at so many */
#define KVI_LSM_HUGE_FROM ((size_t)16 << 20)    /* memtables so large lie in huge pages, where the system has them */
#define KVI_LSM_HEIGHT_MAX 12
#define KVI_LSM_GUIDE_WIDTH 64u             /* entries or nodes in a node of a memtable's guide, */
#define KVI_LSM_GUIDE_DEPTH 8u              /* and nodes from its root to a leaf, at most: more than memory holds */
#define KVI_LSM_GUIDE_GAIN 4u               /* bytes that a node must save in its heads to make them anew */
#define KVI_LSM_GUIDE_OPEN UINT32_MAX       /* its heads are those of the entries */
#ifndef KVI_LSM_GUIDE_LATE
#define KVI_LSM_GUIDE_LATE (1u << 20)       /* entries in order, after which there is one in any case: to make it later takes some 40 ns each */
#endif
#define KVI_LSM_REVIEW_FIRST 1024           /* entries, after which a memtable looks whether its heads tell keys apart, */
#define KVI_LSM_REVIEW_LAST 16384           /* and again; in steps of 16 times */
#define KVI_LSM_REVIEW_BYTES ((size_t)4 << 20)  /* a larger one is left as it is */
#define KVI_LSM_ROOT_SIZE 1024              /* of the current directory, where a path is relative to it; longer ones stay relative */
#define KVI_LSM_SHARDS (KVI_SMALL && !KVI_THREADS ? 1u : 16u)   /* of the block cache */
#define KVI_LSM_MAPS (KVI_FILES || !KVI_SMALL)  /* may tables and logs be mapped? */
#define KVI_LSM_CODECS (KVI_LZ4 || KVI_ZSTD)    /* is there any to pack blocks with? */
#define KVI_LSM_QUICK (!KVI_SMALL)          /* are there heads and filters in memory beside what the files need? */
#define KVI_LSM_NO_SEQUENCE UINT64_MAX
#define KVI_LSM_NO_VALUE kv_bytes(NULL, 0)

/* Compiled with KV_MUTANT=n, one known mistake is made, for the crash tests to find; they must. */
#if defined(KV_MUTANT)
#define KVI_MUTANT(n) (KV_MUTANT == (n))
#else
#define KVI_MUTANT(n) 0
#endif
enum {
    KVI_MUTANT_CURRENT_NAME = 1,        /* CURRENT: the directory is not synced after the rename */
    KVI_MUTANT_CURRENT_DATA = 2,        /* CURRENT: the file is not synced before the rename */
    KVI_MUTANT_TABLE_DATA = 3,          /* a table is not synced before the manifest names it */
    KVI_MUTANT_TABLE_NAME = 4,          /* nor its directory */
    KVI_MUTANT_MANIFEST_DATA = 5,       /* the manifest is not synced */
    KVI_MUTANT_LOG_NAME = 6,            /* a new log's directory is not synced */
    KVI_MUTANT_OLD_LOG = 7,             /* the log before is not synced when the new one is */
    KVI_MUTANT_NO_SYNC = 8,             /* a synced write is acknowledged without one */
    KVI_MUTANT_TAIL_REUSE = 9,          /* recovery appends to the log that it found */
    KVI_MUTANT_SKIP_BAD = 10,           /* replay goes on behind a bad record */
    KVI_MUTANT_NO_PAYLOAD_CHECK = 11,   /* a log record's payload is not checked */
    KVI_MUTANT_EARLY_REMOVE = 12,       /* the old manifest is removed before the new CURRENT is durable */
    KVI_MUTANT_NUMBER_REUSE = 13,       /* file numbers are used again after recovery */
    KVI_MUTANT_SEQUENCE_LOST = 14,      /* the sequence number starts again at 0 */
    KVI_MUTANT_TOMBSTONE = 15,          /* every merge drops tombstones */
    KVI_MUTANT_BATCH_SPLIT = 16,        /* a batch is logged entry by entry */
    KVI_MUTANT_LOG_REMOVE = 17,         /* recovery removes logs before the manifest is durable */
    KVI_MUTANT_SYNC_RETRY = 18,         /* a failed sync is repeated, and believed */
    KVI_MUTANT_APPEND_ERROR = 19,       /* a failed append to the log is ignored */
    KVI_MUTANT_MANIFEST_ERROR = 20,     /* a failed append to the manifest is ignored, and it is appended to */
    KVI_MUTANT_PAGE_CACHE = 21          /* recovery trusts logs that may only be in the page cache */
};

#if defined(KVI_LSM_IMPLIED)
#define KVI_LSM_DEFINE KVI_DEFINE_WEAK
#else
#define KVI_LSM_DEFINE KVI_DEFINE
#endif

/* What was not left out. */
#ifdef KV_LSM_NO_REPAIR
#define KVI_LSM_REPAIR 0
#else
#define KVI_LSM_REPAIR 1
#endif
#ifdef KV_LSM_NO_INGEST
#define KVI_LSM_INGEST 0
#else
#define KVI_LSM_INGEST 1
#endif
#ifdef KV_LSM_NO_CHECKPOINT
#define KVI_LSM_CHECKPOINT 0
#else
#define KVI_LSM_CHECKPOINT 1
#endif
#ifdef KV_LSM_NO_RESUME
#define KVI_LSM_RESUME 0
#else
#define KVI_LSM_RESUME 1
#endif
#ifdef KV_LSM_NO_STATS
#define KVI_LSM_STATS 0
#else
#define KVI_LSM_STATS 1
#endif
#ifdef KV_LSM_NO_CACHE
#define KVI_LSM_CACHE 0
#else
#define KVI_LSM_CACHE 1
#endif
#ifdef KV_LSM_NO_FILTER
#define KVI_LSM_FILTER 0
#else
#define KVI_LSM_FILTER 1
#endif
#ifdef KV_LSM_NO_TEXT
#define KVI_LSM_TEXT 0
#else
#define KVI_LSM_TEXT 1
#endif

/* Count what only kv_lsm_stats tells. */
#define KVI_LSM_COUNT(counter, n) do { if (KVI_LSM_STATS) kvi_add_u64(counter, n); } while (0)
/* Words of an error, or none. */
#define KVI_LSM_WORDS(text) (KVI_LSM_TEXT ? (text) : "?")

/* ---- varints ---- */

KVI_INLINE size_t kvi_lsm_varint_size(uint64_t n) { return kvi_highest_bit64(n | 1) / 7 + 1; }
KVI_INLINE uint8_t *kvi_lsm_put_varint(uint8_t *to, uint64_t n)
{
    while (n >= 128) { *to++ = (uint8_t)(n | 128); n >>= 7; }
    *to++ = (uint8_t)n;
    return to;
}
/* A bounded reader of bytes that may be anything: after the first failure everything reads as 0. */
typedef struct kvi_lsm_reader { const uint8_t *at, *end; bool bad; } kvi_lsm_reader;

KVI_PRIVATE kvi_lsm_reader kvi_lsm_read_over(const void *data, size_t size)
{
    kvi_lsm_reader r;
    r.at = (const uint8_t *)data;
    r.end = size ? r.at + size : r.at;                      /* data may be NULL then */
    r.bad = false;
    return r;
}
KVI_PRIVATE uint64_t kvi_lsm_read_varint_slow(kvi_lsm_reader *r)
{
    uint64_t n = 0;
    for (uint32_t shift = 0; shift < 64 && r->at < r->end; shift += 7) {
        uint8_t b = *r->at++;
        if (shift == 63 && b > 1) break;
        n |= (uint64_t)(b & 127) << shift;
        if (b < 128) {
            if (b == 0 && shift) break;                     /* longer than it must be */
            return n;
        }
    }
    r->bad = true;
    r->at = r->end;
    return 0;
}
KVI_INLINE uint64_t kvi_lsm_read_varint(kvi_lsm_reader *r)
{
    if (KVI_LIKELY(r->at < r->end && *r->at < 128)) return *r->at++;
    return kvi_lsm_read_varint_slow(r);
}
KVI_INLINE kv_slice kvi_lsm_read_bytes(kvi_lsm_reader *r, uint64_t size)
{
    kv_slice s = { NULL, 0 };
    if (size > (uint64_t)(r->end - r->at)) { r->bad = true; r->at = r->end; return s; }
    s.data = r->at;
    s.size = (size_t)size;
    r->at += size;
    return s;
}

/* The first eight bytes of a key as a number that orders as they do; missing ones count as 0. */
KVI_INLINE uint64_t kvi_lsm_head(const void *key, size_t size)
{
    const uint8_t *b = (const uint8_t *)key;
    uint64_t       head = 0;
    if (KVI_LIKELY(size >= 8)) {
#if defined(__GNUC__) || defined(__clang__)
        return __builtin_bswap64(kvi_load_le64(b));
#else
        size = 8;
#endif
    }
    for (size_t i = 0; i < size; i++) head |= (uint64_t)b[i] << (56 - 8 * i);
    return head;
}
/* How many of `size` bytes a and b share. For keys of a caller: it loads nothing beyond them, which
   would be another line, and not in the cache. */
KVI_INLINE size_t kvi_lsm_shared(const void *a, const void *b, size_t size)
{
    const uint8_t *x = (const uint8_t *)a, *y = (const uint8_t *)b;
    size_t         i = 0;
    while (KVI_LSM_QUICK && i + 8 <= size && kvi_load_word(x + i) == kvi_load_word(y + i)) i += 8;
    while (i < size && x[i] == y[i]) i++;
    return i;
}
/* The head of what follows `prefix` in the key; keys without the prefix are below or above all others. */
KVI_INLINE uint64_t kvi_lsm_head_after(kv_slice prefix, const void *key, size_t size)
{
    int order;
    if (!prefix.size) return kvi_lsm_head(key, size);
    if (size >= prefix.size && kvi_lsm_shared(key, prefix.data, prefix.size) == prefix.size)
        return kvi_lsm_head((const uint8_t *)key + prefix.size, size - prefix.size);
    order = kvi_compare_bytes(key, size, prefix.data, prefix.size);
    return order < 0 ? 0 : UINT64_MAX;
}

/* ------------------------------------------------------------------------------------------------
   >>structs   who holds what

       kv_lsm -- view --+-- memtable (active) -- log
                 (refs) +-- memtable (frozen) .. log
                        +-- version -- levels -- runs -- table .. table
       cache  -- shards -- blocks                         |
                                                          +-- index, filter (once it was used)
   A view is what a reader needs, whole: it takes one reference and works without a lock. A view, a
   version, a table, a memtable and a block never change while somebody can see them, but for the
   active memtable (see >>memtable), reference counts, and what a table loads when it is first used.

   Locks, in the order in which they are taken:
       work     who does background work; guards flush and merge jobs
       mutex    queue of writers, frozen memtables, view switch, snapshots, state, statistics
       files    names of files, which table files are open
       a spin lock for the view pointer, one for each cache shard                                  */

typedef struct kvi_lsm_entry {              /* in a memtable; links follow */
#if KVI_LSM_QUICK
    KVI_ALIGN_64 uint64_t head;             /* of the key, behind the memtable's prefix */
#endif
    KVI_ALIGN_64 uint64_t sequence;
    const uint8_t *bytes;                   /* the key, then the value */
    uint32_t value_size;
    uint16_t key_size;
    uint8_t  op, height;
} kvi_lsm_entry;

#if KVI_LSM_QUICK
typedef struct kvi_lsm_link { KVI_ALIGN_64 uint64_t head; kvi_pointer to; } kvi_lsm_link;   /* head: of where it leads to; atomic both */
#else
typedef struct kvi_lsm_link { kvi_pointer to; } kvi_lsm_link;
#endif

typedef struct kvi_lsm_chunk { struct kvi_lsm_chunk *next; size_t size; } kvi_lsm_chunk;

/* A log file. Appended to and synced by the leader of the writers alone. */
typedef struct kvi_lsm_log {
    uint32_t refs;
    kv_file *file;
    KVI_ALIGN_64 uint64_t number, size;
    uint64_t durable;                       /* bytes known to be on stable storage; 0: not even its name is */
    uint8_t *window;                        /* a part of it that is mapped, or NULL */
    uint64_t window_at;
    size_t   window_size;
    bool     mapped, longer;                /* mapped: write through windows; longer: the file goes on behind size, with zeros */
    bool     failed;                        /* an append or sync failed: never touched again; written under mutex */
    bool     obsolete;                      /* flushed: removed with the last reference */
} kvi_lsm_log;

typedef struct kvi_lsm_memtable {
    uint32_t       refs;
    uint32_t       height;                  /* of the highest tower; atomic */
    kvi_lsm_log   *log;
    uint64_t       last_sequence;           /* of the newest entry, once frozen */
    size_t         used_bytes, allocated_bytes; /* atomic */
    KVI_ALIGN_64 uint64_t count, deletes, key_bytes, value_bytes;
    kvi_lsm_chunk *chunks;
    uint8_t       *free_at, *free_end;      /* of the first chunk: entries from below, keys and values from above */
    uint64_t       random;                  /* for heights */
    size_t         links_left;              /* of the room reserved: links beyond one an entry */
    uint64_t      *filter;                  /* words, each four bits a key that is here; atomic */
    uint32_t       filter_words;
    uint64_t       hash_seed;
    uint8_t        prefix[KVI_LSM_QUICK ? 64 : 1];  /* what the heads leave out */
    size_t         prefix_size, shared_size;/* shared_size: what all keys share so far, for the next memtable */
    uint64_t       review_at;               /* so many entries: see kvi_lsm_reorder; 0: no more */
    kvi_lsm_entry *head;                    /* a tower with no key, before all */
    kvi_lsm_entry *finger[KVI_LSM_HEIGHT_MAX];  /* the newest entry, and what comes before it at higher levels; the writer's */
#if KVI_LSM_QUICK                           /* the writer's as well: */
    uint32_t       fingers;                 /* so many of them are in place */
    uint32_t       guide_depth, leaf_at;    /* leaf, leaf_at: where the newest entry is */
    bool           unguided;                /* there was no memory for it */
    struct kvi_lsm_guide *guide, *leaf;
    struct kvi_lsm_guide *guides, *spare;   /* all nodes, and those of the memtable before, for those to come */
#endif
} kvi_lsm_memtable;

#if KVI_LSM_QUICK
/* A node of the tree that tells the writer of a memtable where an entry belongs. */
typedef struct kvi_lsm_guide {
    struct kvi_lsm_guide *next;             /* in the list of all nodes */
    const kvi_lsm_entry  *low;              /* what it begins with; NULL: it is the first one of its depth */
    uint32_t count;
    uint32_t skip;                          /* bytes that all keys share which can come here: heads are of what follows */
    uint64_t heads[KVI_LSM_GUIDE_WIDTH];
    void    *to[KVI_LSM_GUIDE_WIDTH];       /* entries; above the leaves nodes */
    uint8_t  heights[KVI_LSM_GUIDE_WIDTH];  /* of the entries' towers */
} kvi_lsm_guide;
#endif

/* What the index of a table says, and its filter. One allocation. */
typedef struct kvi_lsm_index {
    size_t          memory_bytes, filter_bytes;
    uint32_t        count;                  /* data blocks */
    kv_slice        prefix;                 /* of all index keys */
    const uint64_t *heads;                  /* behind the prefix */
    const uint64_t *offsets;                /* count + 1: the last is where the data ends */
    const uint32_t *key_ends;
    const uint8_t  *keys;                   /* tails */
    const uint8_t  *filter;                 /* lines, or NULL */
    uint32_t        filter_lines, filter_probes;
    uint32_t       *verified;               /* mapped tables: one bit a block */
    const uint8_t  *map;
} kvi_lsm_index;

typedef struct kvi_lsm_table {
    struct kvi_lsm_table *home;             /* who holds file and index: itself, or the table that it was moved from */
    uint32_t refs;
    bool     obsolete;                      /* removed from disk with the last reference */
    bool     merging;                       /* an input of the running merge; under work */
    uint8_t  level;
    uint64_t number, size, age, entries, tombstones, key_bytes, value_bytes, first_sequence, last_sequence;
    kv_slice smallest, largest;             /* in this allocation */
    uint64_t smallest_head, largest_head;
    size_t   memory_bytes;
    kvi_lsm_index *index;                   /* atomic; NULL until the table is used */
    kv_file *file;                          /* these under files */
    uint32_t file_users;
    bool     file_recent, file_extra;       /* file_extra: beyond open_files, closed by its last user */
} kvi_lsm_table;

typedef struct kvi_lsm_run { uint64_t age; uint32_t count, first; } kvi_lsm_run;     /* version->tables[first ..] */
typedef struct kvi_lsm_level { uint32_t runs, first_run, tables; uint64_t bytes; } kvi_lsm_level;

typedef struct kvi_lsm_version {            /* one allocation; tables ordered by level, age descending, key */
    uint32_t        refs;
    uint32_t        count, run_count;
    size_t          memory_bytes;
    kvi_lsm_level   levels[KV_LSM_LEVELS];
    kvi_lsm_run    *runs;
    kvi_lsm_table **tables;
} kvi_lsm_version;

typedef struct kvi_lsm_view {
    uint32_t          refs;
    uint32_t          cursors;              /* how many of the references are of a user's cursor; under view_lock */
    uint32_t          frozen_count;
    struct kvi_lsm_view *next;              /* of all that there are; under view_lock */
    kvi_lsm_memtable *active;
    kvi_lsm_memtable *frozen[KVI_LSM_FROZEN_MAX + 1];       /* newest first */
    kvi_lsm_version  *version;
} kvi_lsm_view;

/* A data block as it is searched: pointers into its bytes. */
typedef struct kvi_lsm_page {
    uint32_t       count, key_bytes, value_bytes, prefix_size;
    uint32_t       key_fixed, value_fixed;  /* with the flags: the size of each */
    uint8_t        flags, sequence_width;
    uint8_t        bucket_bits;             /* 0: no buckets */
    uint64_t       sequence_base;
    const uint8_t *prefix, *key_ends, *value_ends, *sequences, *deleted, *tails, *heads, *buckets, *values;
} kvi_lsm_page;

typedef struct kvi_lsm_block {              /* bytes and what was made for the search follow in one allocation */
    uint32_t refs;                          /* the cache's own is one of them */
    uint32_t recent;                        /* CLOCK's bit */
    uint64_t file, offset;
    size_t   memory_bytes;
    struct kvi_lsm_block *next;             /* in its bucket */
    struct kvi_lsm_block *clock_next, *clock_prev;
    kvi_lsm_page page;
} kvi_lsm_block;

typedef struct kvi_lsm_shard {
    uint32_t        lock;
    uint32_t        bucket_count;
    kvi_lsm_block **buckets;
    uint32_t       *asked;                  /* bucket_count / 2 hashes of blocks that were missed lately */
    kvi_lsm_block  *hand;
    size_t          used_bytes, limit_bytes, count;
    uint64_t        hits, misses;
    char            padding[64];
} kvi_lsm_shard;

typedef struct kvi_lsm_manifest {
    kv_file *file;
    uint64_t number, size;
    uint64_t snapshot_size;                 /* of the first record: when edits are many times that, start anew */
    bool     failed;
} kvi_lsm_manifest;

/* What a writer wants; it lies on the writer's stack while it waits in the queue. */
typedef struct kvi_lsm_writer {
    struct kvi_lsm_writer *next;
    uint32_t  count;                        /* entries; 0: only a sync */
    uint8_t   op;                           /* of a single entry; 0: `ops` holds them encoded */
    bool      sync, done, waiting, alone;   /* alone: with nobody else in its group */
    bool      begun;                        /* a part of a call that kv_lsm_close waits for: never refused */
    kv_slice  key, value, ops;
    size_t    key_bytes, value_bytes;
    kv_status status;
    kvi_cond  cond;
} kvi_lsm_writer;

struct kv_snapshot { uint64_t sequence; struct kv_snapshot *next, *prev; };

struct kv_lsm_batch {
    kv_allocator allocator;
    kv_buf       ops;
    uint32_t     count;
    size_t       key_bytes, value_bytes;
    kv_status    status;
};

struct kvi_lsm_job;

struct kv_lsm {
    kv_store       store;
    kv_lsm_options options;
    kvi_error      error;
    char          *path;                    /* of the directory */
    size_t         path_size;
    char          *names[2];                /* room for a file's path; under files */
    size_t         names_size;
    const kv_io   *io;
    kv_file       *lock;
    uint32_t       fork_count;
    uint8_t        id[16];
    uint64_t       hash_seed;
    kv_compressor *compressor;
    uint32_t       filter_bits_x16, filter_probes;          /* a key; 0: no filters */

    kvi_mutex      work, mutex, files;
    kvi_cond       work_wanted, work_done, sync_soon;
    kvi_thread     thread, sync_thread;     /* background work; syncs that are due */
    bool           has_thread, has_sync_thread, stopping;
    uint32_t       taken_over;              /* somebody does background work alone; set under mutex, atomic */

    /* under mutex */
    kvi_lsm_writer *writers, **writers_end;
    kvi_lsm_memtable *active, *frozen[KVI_LSM_FROZEN_MAX + 1];  /* newest first */
    uint32_t       frozen_count;
    kv_snapshot    snapshots;               /* a ring; oldest first */
    kv_status      broken;                  /* KV_OK, or why the store is read-only */
    bool           poisoned;                /* a sync failed: no way back */
    bool           salvages;                /* a repair: sectors that cannot be read are zeros, and fail the checks of what they belong to */
    char           broken_text[KVI_LSM_TEXT ? 240 : 1];
    kv_status      background;              /* the last failure of background work that changed nothing */
    uint32_t       keep_files;              /* atomic; 1: nothing is removed any more */
    uint64_t       unsynced_since_ms;       /* 0: nothing waits for a sync */
    bool           sync_wanted;             /* it is due, and a leader who may be waiting is to do it */
    uint32_t       queued;                  /* writers; atomic */
    uint32_t       company, alone_groups;   /* how many writers came together lately; for how many groups not to wait for that many */
    uint64_t       sync_ns;                 /* what a synced group takes */
    uint64_t       retry_at_ms;
    uint64_t       rotated_ms;              /* when a memtable was full; atomic */
    bool           work_pending;            /* there may be background work */
    uint32_t       closing;                 /* atomic; 1: new calls are refused */
    uint32_t       inside;                  /* calls that have begun, see kvi_lsm_call_begin */
    uint32_t       woken;                   /* writers that were taken along and have not left yet */
    size_t         slow_bytes;              /* written since a writer was slowed last */

    /* of the leading writer */
    uint64_t       sequence;                /* of the last entry logged */
    kv_buf         record;
    kvi_lsm_log   *log;                     /* of the active memtable */

    KVI_ALIGN_64 uint64_t visible;          /* atomic: readers see entries up to here */
    kvi_lsm_view  *view;                    /* under view_lock; NULL: closed */
    kvi_lsm_view  *views;                   /* all that somebody holds */
    uint32_t       view_lock;
    bool           closed;                  /* who lets go of the last view frees the store; under view_lock */
    kvi_lsm_version *version;               /* the newest; changed under work and mutex */

    /* under work */
    struct kvi_lsm_job *flush_job, *merge_job;
    kvi_lsm_manifest manifest;
    uint64_t       flushed_sequence;
    uint64_t       log_number;              /* logs below it are not needed */
    kv_buf         edit;
    KVI_ALIGN_64 uint64_t next_number;      /* atomic */
    KVI_ALIGN_64 uint64_t durable_log;      /* atomic: newest log whose header is known durable */

    kvi_lsm_shard *shards;                  /* NULL: no cache */
    uint32_t       open_files;              /* under files */
    kvi_lsm_table **open_tables;            /* options.open_files of them; a clock */
    uint32_t       open_hand;

    /* statistics; atomic, or under mutex */
    KVI_ALIGN_64 uint64_t memory_bytes_tables, index_bytes, filter_bytes, filter_hits, filter_misses;
    KVI_ALIGN_64 uint64_t stall_ns, user_bytes, log_written, written, flushes, merges, moves, tombstones_dropped, versions_dropped;
    KVI_ALIGN_64 uint64_t syncs, groups, writes, recovered_records, recovered_dropped;
    KVI_ALIGN_64 uint64_t level_read[KV_LSM_LEVELS], level_written[KV_LSM_LEVELS];
};

KVI_PRIVATE void kvi_lsm_poison(kv_lsm *db, kv_status s);
KVI_PRIVATE void kvi_lsm_free(kv_lsm *db);

/* ------------------------------------------------------------------------------------------------
   >>files   names, headers, and errors that say which file it was                                 */

KVI_PRIVATE const char *const kvi_lsm_magic[3] = { "KVLSMlog", "KVLSMkvt", "KVLSMman" };

/* Write the path of a file into names[which]. The caller holds `files`. */
KVI_PRIVATE kvi_text kvi_lsm_path(kv_lsm *db, int which)
{
    kvi_text t = kvi_text_over(db->names[which], db->names_size);
    kvi_text_add(&t, db->path);
    kvi_text_char(&t, '/');
    return t;
}
KVI_PRIVATE void kvi_lsm_text_number(kvi_text *t, uint64_t number)
{
    for (uint64_t place = 100000; place > 1 && number < place; place /= 10) kvi_text_char(t, '0');
    kvi_text_u64(t, number);
}
KVI_PRIVATE void kvi_lsm_text_file(kvi_text *t, int kind, uint64_t number)
{
    if (kind == KVI_LSM_MANIFEST) kvi_text_add(t, "MANIFEST-");
    kvi_lsm_text_number(t, number);
    if (kind != KVI_LSM_MANIFEST) kvi_text_add(t, kind == KVI_LSM_LOG ? ".log" : ".kvt");
}

KVI_INLINE kv_status kvi_lsm_error(kv_lsm *db, kv_status s, const char *text) { return kvi_error_set(&db->error, s, KVI_LSM_TEXT ? text : NULL); }
/* Keep an error: what happened, to which file, and the system's number for it. */
KVI_PRIVATE kv_status kvi_lsm_fail_file(kv_lsm *db, kv_status s, const char *what, int kind, uint64_t number, uint64_t offset)
{
    int      os_error = KVI_LSM_TEXT && s == KV_ERR_IO && db->io->os_error ? db->io->os_error(db->io->user) : 0;
    kvi_text t;
    if (!KVI_LSM_TEXT) return kvi_lsm_error(db, s, NULL);
    t = kvi_error_begin(&db->error);
    kvi_lsm_text_file(&t, kind, number);
    if (offset != KVI_LSM_NO_SEQUENCE) { kvi_text_add(&t, " at "); kvi_text_u64(&t, offset); }
    kvi_text_add(&t, ": ");
    kvi_text_add(&t, what);
    kvi_text_add(&t, ": ");
    kvi_text_add(&t, kv_status_text(s));
    if (os_error) { kvi_text_add(&t, " (system error "); kvi_text_i64(&t, os_error); kvi_text_char(&t, ')'); }
    return kvi_error_end(&db->error, s);
}
KVI_PRIVATE kv_status kvi_lsm_fail(kv_lsm *db, kv_status s, const char *what, kv_slice where)
{
    kvi_text t;
    if (!KVI_LSM_TEXT) return kvi_lsm_error(db, s, NULL);
    t = kvi_error_begin(&db->error);
    kvi_text_add(&t, what);
    if (where.data) { kvi_text_char(&t, ' '); kvi_text_key(&t, where); }
    return kvi_error_end(&db->error, s);
}
KVI_PRIVATE kv_status kvi_lsm_no_memory(kv_lsm *db) { return kvi_lsm_error(db, KV_ERR_NO_MEMORY, NULL); }
KVI_PRIVATE void kvi_lsm_note(kv_lsm *db, kv_status s, const char *text)
{
    if (db->options.log) db->options.log(db->options.log_user, s, text);
}

KVI_PRIVATE uint64_t kvi_lsm_seed(const uint8_t *id, uint64_t number, int kind)
{
    uint8_t bytes[32];
    memcpy(bytes, id, 16);
    kvi_store_le64(bytes + 16, number);
    memcpy(bytes + 24, kvi_lsm_magic[kind], 8);
    return kvi_hash(bytes, sizeof bytes, 0);
}
KVI_INLINE uint64_t kvi_lsm_new_number(kv_lsm *db) { return kvi_add_u64(&db->next_number, 1); }

typedef struct kvi_lsm_header { uint32_t format, flags; uint8_t id[16]; uint64_t number, a, b; } kvi_lsm_header;

KVI_PRIVATE void kvi_lsm_header_encode(uint8_t *out, int kind, uint32_t flags, const uint8_t *id, uint64_t number, uint64_t a, uint64_t b)
{
    memcpy(out, kvi_lsm_magic[kind], 8);
    kvi_store_le32(out + 8, KVI_LSM_FORMAT);
    kvi_store_le32(out + 12, flags);
    memcpy(out + 16, id, 16);
    kvi_store_le64(out + 32, number);
    kvi_store_le64(out + 40, a);
    kvi_store_le64(out + 48, b);
    kvi_store_le64(out + 56, kvi_hash(out, 56, 0));
}
KVI_PRIVATE kv_status kvi_lsm_header_decode(const uint8_t *in, int kind, kvi_lsm_header *h)
{
    if (memcmp(in, kvi_lsm_magic[kind], 8) != 0 || kvi_load_le64(in + 56) != kvi_hash(in, 56, 0)) return KV_ERR_CORRUPT;
    h->format = kvi_load_le32(in + 8);
    h->flags = kvi_load_le32(in + 12);
    memcpy(h->id, in + 16, 16);
    h->number = kvi_load_le64(in + 32);
    h->a = kvi_load_le64(in + 40);
    h->b = kvi_load_le64(in + 48);
    return h->format > KVI_LSM_FORMAT ? KV_ERR_VERSION : KV_OK;
}

/* The calls of kv_io by file kind and number. A KV_NOT_FOUND stays one: the caller decides. */
KVI_PRIVATE kv_status kvi_lsm_open_file(kv_lsm *db, int kind, uint64_t number, uint32_t flags, kv_file **file)
{
    kv_status s;
    kvi_text  t;
    kvi_mutex_lock(&db->files);
    t = kvi_lsm_path(db, 0);
    kvi_lsm_text_file(&t, kind, number);
    s = db->io->open(db->io->user, db->names[0], flags, file);
    kvi_mutex_unlock(&db->files);
    if (s == KV_EXISTS) s = KV_ERR_IO;                      /* numbers are not used twice: somebody else is at work here */
    return s < 0 ? kvi_lsm_fail_file(db, s, "cannot open", kind, number, KVI_LSM_NO_SEQUENCE) : s;
}
KVI_PRIVATE kv_status kvi_lsm_create_file(kv_lsm *db, int kind, uint64_t number, kv_file **file)
{
    uint32_t flags = KVI_MUTANT(KVI_MUTANT_NUMBER_REUSE) ? KV_OPEN_WRITE | KV_OPEN_CREATE | KV_OPEN_TRUNCATE
                                                         : KV_OPEN_WRITE | KV_OPEN_CREATE | KV_OPEN_EXCLUSIVE;
    kv_status s = kvi_lsm_open_file(db, kind, number, flags, file);
    return s == KV_NOT_FOUND ? kvi_lsm_fail_file(db, KV_ERR_IO, "cannot create: the directory is gone", kind, number, KVI_LSM_NO_SEQUENCE) : s;
}
KVI_PRIVATE kv_status kvi_lsm_remove_named(kv_lsm *db, const char *name)
{
    kv_status s;
    kvi_text  t;
    kvi_mutex_lock(&db->files);
    t = kvi_lsm_path(db, 0);
    kvi_text_add(&t, name);
    s = db->io->remove(db->io->user, db->names[0]);
    kvi_mutex_unlock(&db->files);
    return s;
}
KVI_PRIVATE void kvi_lsm_remove_file(kv_lsm *db, int kind, uint64_t number)
{
    char     name[40];
    kvi_text t = kvi_text_over(name, sizeof name);
    if (kvi_load_u32(&db->keep_files)) return;
    kvi_lsm_text_file(&t, kind, number);
    (void)kvi_lsm_remove_named(db, name);                   /* what stays is removed by the next open */
}
KVI_PRIVATE kv_status kvi_lsm_sync_dir(kv_lsm *db)
{
    kv_status s = db->io->sync_dir(db->io->user, db->path);
    KVI_LSM_COUNT(&db->syncs, 1);
    return s < 0 ? kvi_lsm_error(db, s, "cannot sync the directory") : KV_OK;
}
KVI_PRIVATE kv_status kvi_lsm_sync_file(kv_lsm *db, kv_file *file)
{
    kv_status s = db->io->sync(db->io->user, file);
    if (KVI_MUTANT(KVI_MUTANT_SYNC_RETRY) && s < 0) s = db->io->sync(db->io->user, file);
    KVI_LSM_COUNT(&db->syncs, 1);
    return s;
}
/* Read sector by sector; those that cannot be read are zeros. */
KVI_PRIVATE kv_status kvi_lsm_salvage_at(kv_lsm *db, kv_file *file, uint64_t offset, void *data, size_t size)
{
    uint8_t  *out = (uint8_t *)data;
    size_t    part, got;
    kv_status s;
    for (size_t at = 0; at < size; at += part) {
        part = KVI_LSM_SECTOR - (size_t)((offset + at) % KVI_LSM_SECTOR);
        if (part > size - at) part = size - at;
        got = 0;
        s = db->io->read_at(db->io->user, file, offset + at, out + at, part, &got);
        if (s < 0 && s != KV_ERR_IO) return s;
        if (s < 0 || got < part) memset(out + at, 0, part);
    }
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_lsm_read_at(kv_lsm *db, kv_file *file, uint64_t offset, void *data, size_t size)
{
    size_t    got = 0;
    kv_status s = db->io->read_at(db->io->user, file, offset, data, size, &got);
    if (KVI_LSM_REPAIR && s == KV_ERR_IO && db->salvages) return kvi_lsm_salvage_at(db, file, offset, data, size);
    if (s < 0) return s;
    return got == size ? KV_OK : KV_ERR_CORRUPT;            /* the file is shorter than it was */
}

/* ------------------------------------------------------------------------------------------------
   >>memtable   the newest writes, sorted, in memory; every entry is already in the log

   A skip list (W. Pugh, 1990) in an arena, with several versions of a key, newest first. One thread
   inserts at a time; any number read. Each entry carries its head, eight bytes of the key behind the
   prefix that the keys of the memtable before shared, so that most comparisons touch no key. Entries
   and bytes fill a chunk from its two ends: what a search walks over lies close together. A filter
   (as in >>table, of single words) spares most searches for keys that are not here.

   A walk down a skip list waits for memory at every step. The writer, who alone knows where nobody
   else is, keeps a guide beside it: a B+-tree (R. Bayer, 1972) over the entries, whose nodes hold the
   heads in one piece. It finds the entry before a new one in three or four steps, and the towers before
   it in the same leaf, mostly; where not, there is a walk. Nodes leave out what all their keys share, so
   that their heads tell keys apart where many begin alike. Without memory for it there is no guide.
   Invariant M1: entries never move and are never freed before the whole memtable is, and a link is
                 stored (release) after what it leads to is complete: readers need no lock.
   Invariant M2: room is reserved before the log is written, so inserting cannot fail.
   Invariant M3: a link carries the head of where it leads to, stored first: an entry is looked at only
                 where the walk goes there, or where its head is that of the key.
   Invariant M4: the filter knows an entry before it is visible.                                    */

KVI_INLINE kvi_lsm_link *kvi_lsm_links(const kvi_lsm_entry *e) { return (kvi_lsm_link *)(uintptr_t)(e + 1); }
KVI_INLINE kv_slice kvi_lsm_entry_key(const kvi_lsm_entry *e) { return kv_bytes(e->bytes, e->key_size); }
KVI_INLINE kv_slice kvi_lsm_entry_value(const kvi_lsm_entry *e) { return kv_bytes(e->bytes + e->key_size, e->value_size); }
KVI_INLINE kvi_lsm_entry *kvi_lsm_next(const kvi_lsm_entry *e, uint32_t level) { return (kvi_lsm_entry *)kvi_load_ptr(&kvi_lsm_links(e)[level].to); }
KVI_INLINE kv_slice kvi_lsm_memtable_prefix(const kvi_lsm_memtable *m) { return kv_bytes(m->prefix, m->prefix_size); }

#if KVI_LSM_QUICK
KVI_INLINE uint64_t kvi_lsm_entry_head(const kvi_lsm_entry *e) { return e->head; }
#else
KVI_INLINE uint64_t kvi_lsm_entry_head(const kvi_lsm_entry *e) { (void)e; return 0; }      /* all are alike, and the keys decide */
#endif

/* < 0 where e comes before (key, sequence). */
KVI_INLINE int kvi_lsm_entry_order(const kvi_lsm_entry *e, uint64_t head, kv_slice key, uint64_t sequence)
{
    int order;
    if (kvi_lsm_entry_head(e) != head) return kvi_lsm_entry_head(e) < head ? -1 : 1;
    order = kvi_compare(kvi_lsm_entry_key(e), key);
    if (order) return order;
    return e->sequence > sequence ? -1 : e->sequence < sequence;
}

KVI_INLINE size_t kvi_lsm_entry_size(uint32_t height)       /* without key and value */
{
    return (sizeof(kvi_lsm_entry) + height * sizeof(kvi_lsm_link) + 7) & ~(size_t)7;
}
/* Room for `count` entries; SIZE_MAX where that is more than there can be. They share what is over a
   tower of one for each: on average a third of a link is used, and two are there. */
KVI_INLINE size_t kvi_lsm_entries_bound(size_t count, size_t key_bytes, size_t value_bytes)
{
    uint64_t bytes = (uint64_t)count * kvi_lsm_entry_size(3) + kvi_lsm_entry_size(KVI_LSM_HEIGHT_MAX) + key_bytes + value_bytes;
    return bytes > SIZE_MAX ? SIZE_MAX : (size_t)bytes;
}

/* Make sure of `bytes` in one piece. */
KVI_PRIVATE bool kvi_lsm_memtable_reserve(kv_lsm *db, kvi_lsm_memtable *m, size_t bytes)
{
    kvi_lsm_chunk *chunk;
    size_t         size = db->options.memtable_bytes / 8;
    if (KVI_LIKELY((size_t)(m->free_end - m->free_at) >= bytes)) return true;
    if (size > 1u << 20) size = 1u << 20;
    if (size < 4096) size = 4096;
    if (db->options.memtable_bytes >= KVI_LSM_HUGE_FROM) size = (size_t)2 << 20;
    if (bytes > SIZE_MAX - 64) return false;
    if (size < bytes + sizeof *chunk + 16) size = bytes + sizeof *chunk + 16;
    chunk = (kvi_lsm_chunk *)kvi_alloc_huge(&db->options.allocator, size);
    if (!chunk) return false;
    chunk->next = m->chunks;
    chunk->size = size;
    m->chunks = chunk;
    m->free_at = (uint8_t *)chunk + ((sizeof *chunk + 15) & ~(size_t)15);
    m->free_end = (uint8_t *)chunk + size;
    kvi_poke_size(&m->allocated_bytes, m->allocated_bytes + size);
    return true;
}

KVI_PRIVATE uint32_t kvi_lsm_random_height(kvi_lsm_memtable *m)     /* each higher level holds a quarter */
{
    uint32_t height = 1, bits;
    m->random = m->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    bits = (uint32_t)(m->random >> 32);
    for (; height < KVI_LSM_HEIGHT_MAX && height <= m->links_left && (bits & 3) == 0; bits >>= 2) height++;
    m->links_left -= height - 1;
    return height;
}

/* The word of the filter and its four bits, of a key with this hash. */
KVI_INLINE uint64_t *kvi_lsm_memtable_word(const kvi_lsm_memtable *m, uint64_t hash, uint64_t *bits)
{
    *bits = UINT64_C(1) << (hash & 63) | UINT64_C(1) << (hash >> 6 & 63) | UINT64_C(1) << (hash >> 12 & 63) | UINT64_C(1) << (hash >> 18 & 63);
    return &m->filter[kvi_shard(hash, m->filter_words)];
}
KVI_INLINE bool kvi_lsm_memtable_perhaps(const kvi_lsm_memtable *m, uint64_t hash)
{
    uint64_t bits, *word;
    if (!KVI_LSM_QUICK) return true;
    word = kvi_lsm_memtable_word(m, hash, &bits);
    return (kvi_peek_u64(word) & bits) == bits;
}

#if KVI_LSM_QUICK
KVI_PRIVATE void kvi_lsm_guide_free(kv_lsm *db, kvi_lsm_memtable *m)
{
    size_t freed = 0;
    while (m->guides || m->spare) {
        kvi_lsm_guide **list = m->guides ? &m->guides : &m->spare, *g = *list;
        *list = g->next;
        kvi_free(&db->options.allocator, g, sizeof *g);
        freed += sizeof *g;
    }
    kvi_poke_size(&m->allocated_bytes, m->allocated_bytes - freed);
    m->guide = m->leaf = NULL;
}
/* A full memtable needs no guide any more, and the next one the memory. */
KVI_PRIVATE void kvi_lsm_guide_pass(kvi_lsm_memtable *from, kvi_lsm_memtable *to)
{
    size_t passed = 0;
    for (const kvi_lsm_guide *g = from->guides; g; g = g->next) passed += sizeof *g;
    kvi_poke_size(&from->allocated_bytes, from->allocated_bytes - passed);
    kvi_poke_size(&to->allocated_bytes, to->allocated_bytes + passed);
    to->spare = from->guides;
    from->guides = from->guide = from->leaf = NULL;
}
#endif
KVI_PRIVATE void kvi_lsm_memtable_free(kv_lsm *db, kvi_lsm_memtable *m)
{
#if KVI_LSM_QUICK
    kvi_lsm_guide_free(db, m);
#endif
    while (m->chunks) {
        kvi_lsm_chunk *next = m->chunks->next;
        kvi_free_huge(&db->options.allocator, m->chunks, m->chunks->size);
        m->chunks = next;
    }
    if (KVI_LSM_QUICK) kvi_free(&db->options.allocator, m->filter, m->filter_words * sizeof *m->filter);
    kvi_free(&db->options.allocator, m, sizeof *m);
}
/* A byte for each 128 of the memtable: eight to ten bits an entry of moderate size. */
KVI_PRIVATE size_t kvi_lsm_memtable_filter_words(size_t memtable_bytes)
{
    size_t words = memtable_bytes / 128 / sizeof(uint64_t);
    return words < 4 ? 4 : words < 1u << 20 ? words : 1u << 20;
}
KVI_PRIVATE kvi_lsm_memtable *kvi_lsm_memtable_new(kv_lsm *db, const kvi_lsm_memtable *before)
{
    kvi_lsm_memtable *m = (kvi_lsm_memtable *)kvi_alloc_zero(&db->options.allocator, sizeof *m);
    kvi_lsm_entry    *head;
    if (!m) return NULL;
    if (KVI_LSM_QUICK) {
        m->filter_words = (uint32_t)kvi_lsm_memtable_filter_words(db->options.memtable_bytes);
        m->filter = (uint64_t *)kvi_alloc_zero(&db->options.allocator, m->filter_words * sizeof *m->filter);
    }
    if ((KVI_LSM_QUICK && !m->filter) || !kvi_lsm_memtable_reserve(db, m, kvi_lsm_entry_size(KVI_LSM_HEIGHT_MAX))) { kvi_lsm_memtable_free(db, m); return NULL; }
    kvi_poke_size(&m->allocated_bytes, m->allocated_bytes + m->filter_words * sizeof *m->filter);
    m->hash_seed = db->hash_seed;
    m->review_at = KVI_LSM_REVIEW_FIRST;
    m->refs = 1;
    m->height = 1;
    m->random = db->sequence * 2 + 1;
    head = (kvi_lsm_entry *)(void *)m->free_at;
    m->free_at += kvi_lsm_entry_size(KVI_LSM_HEIGHT_MAX);
    memset(head, 0, kvi_lsm_entry_size(KVI_LSM_HEIGHT_MAX));
    head->height = KVI_LSM_HEIGHT_MAX;
    m->head = head;
    for (uint32_t i = 0; i < KVI_LSM_HEIGHT_MAX; i++) m->finger[i] = head;
    if (KVI_LSM_QUICK && before && before->count) {
        m->prefix_size = before->shared_size < sizeof m->prefix ? before->shared_size : sizeof m->prefix;
        memcpy(m->prefix, before->finger[0]->bytes, m->prefix_size);
    }
    return m;
}

/* The first entry at or behind (head, key, sequence); where `before` is given, what comes before it at
   each level. A link's head is stored before the link: who reads beside the writer may find the head
   of an entry that it cannot reach yet, which is never below the key where the entry's is not, so
   only to go on takes a look at the entry itself (M3). */
KVI_INLINE kvi_lsm_entry *kvi_lsm_memtable_walk(const kvi_lsm_memtable *m, uint64_t head, kv_slice key, uint64_t sequence, bool writer, kvi_lsm_entry **before)
{
    kvi_lsm_entry *at = m->head, *beyond = NULL;
    uint32_t       level = kvi_load_u32(&m->height) - 1;
    for (;;) {
        const kvi_lsm_link *link = &kvi_lsm_links(at)[level];
        kvi_lsm_entry      *next = (kvi_lsm_entry *)kvi_load_ptr(&link->to);
#if !KVI_LSM_QUICK
        (void)writer;
        if (next && next != beyond && kvi_lsm_entry_order(next, head, key, sequence) < 0) { at = next; continue; }
#else
        if (next && next != beyond) {
            uint64_t there = kvi_peek_u64(&link->head);
            if (there < head ? writer || kvi_lsm_entry_order(next, head, key, sequence) < 0
                             : there == head && kvi_lsm_entry_order(next, head, key, sequence) < 0) { at = next; continue; }
        }
#endif
        if (before) before[level] = at;
        if (level == 0) return next;
        beyond = next;
        level--;
    }
}
KVI_PRIVATE kvi_lsm_entry *kvi_lsm_memtable_seek(const kvi_lsm_memtable *m, kv_slice key, uint64_t sequence, kvi_lsm_entry **before)
{
    return kvi_lsm_memtable_walk(m, KVI_LSM_QUICK ? kvi_lsm_head_after(kvi_lsm_memtable_prefix(m), key.data, key.size) : 0, key, sequence, false, before);
}
KVI_PRIVATE kvi_lsm_entry *kvi_lsm_memtable_before(const kvi_lsm_memtable *m, kv_slice key, uint64_t sequence)  /* the last one before it, or NULL */
{
    kvi_lsm_entry *before[KVI_LSM_HEIGHT_MAX];
    (void)kvi_lsm_memtable_seek(m, key, sequence, before);
    return before[0] == m->head ? NULL : before[0];
}
KVI_PRIVATE kvi_lsm_entry *kvi_lsm_memtable_last(const kvi_lsm_memtable *m)
{
    kvi_lsm_entry *at = m->head;
    uint32_t       level = kvi_load_u32(&m->height) - 1;
    for (;;) {
        kvi_lsm_entry *next = kvi_lsm_next(at, level);
        if (next) { at = next; continue; }
        if (level == 0) return at == m->head ? NULL : at;
        level--;
    }
}

/* Room for what comes next, all of it: see kvi_lsm_entries_bound. */
KVI_PRIVATE bool kvi_lsm_memtable_reserve_entries(kv_lsm *db, kvi_lsm_memtable *m, size_t count, size_t key_bytes, size_t value_bytes)
{
    if (!kvi_lsm_memtable_reserve(db, m, kvi_lsm_entries_bound(count, key_bytes, value_bytes))) return false;
    m->links_left = count * 2 + KVI_LSM_HEIGHT_MAX - 1;
    return true;
}

/* Keep what all keys share; their order makes it what the first and the last one share, but only an
   insert knows cheaply whether it changed. */
KVI_INLINE void kvi_lsm_memtable_share(kvi_lsm_memtable *m, kv_slice key)
{
    if (m->count == 0) m->shared_size = key.size;
    else if (m->shared_size) m->shared_size = kvi_lsm_shared(m->finger[0]->bytes, key.data, key.size < m->shared_size ? key.size : m->shared_size);
}

#if KVI_LSM_QUICK
/* Does (head, key, sequence) come right behind the newest entry? Then the finger is in place. */
KVI_INLINE bool kvi_lsm_memtable_follows(const kvi_lsm_memtable *m, uint64_t head, kv_slice key, uint64_t sequence)
{
    const kvi_lsm_entry *last = m->finger[0], *next = (const kvi_lsm_entry *)kvi_peek_ptr(&kvi_lsm_links(last)->to);
    uint64_t             there = kvi_peek_u64(&kvi_lsm_links(last)->head);
    if (last != m->head && kvi_lsm_entry_order(last, head, key, sequence) >= 0) return false;
    return !next || there > head || (there == head && kvi_lsm_entry_order(next, head, key, sequence) > 0);
}

/* ---- the guide ---- */

/* From the root to a leaf; [0] is the leaf. */
typedef struct kvi_lsm_guide_path {
    kvi_lsm_guide       *node[KVI_LSM_GUIDE_DEPTH];
    const kvi_lsm_entry *high[KVI_LSM_GUIDE_DEPTH];     /* what the node behind begins with, or NULL */
    uint32_t             at[KVI_LSM_GUIDE_DEPTH];       /* so many of the node come before the entry */
} kvi_lsm_guide_path;

KVI_INLINE uint64_t kvi_lsm_guide_head(const kvi_lsm_guide *g, const kvi_lsm_entry *e)
{
    return g->skip == KVI_LSM_GUIDE_OPEN ? e->head : kvi_lsm_head(e->bytes + g->skip, e->key_size - g->skip);
}
KVI_INLINE const kvi_lsm_entry *kvi_lsm_guide_entry(const kvi_lsm_guide *g, uint32_t depth, uint32_t i)
{
    return depth ? ((const kvi_lsm_guide *)g->to[i])->low : (const kvi_lsm_entry *)g->to[i];
}
KVI_PRIVATE kvi_lsm_guide *kvi_lsm_guide_new(kv_lsm *db, kvi_lsm_memtable *m)
{
    kvi_lsm_guide *g = m->spare;
    if (g) m->spare = g->next;
    else {
        g = (kvi_lsm_guide *)kvi_alloc(&db->options.allocator, sizeof *g);
        if (!g) return NULL;
        kvi_poke_size(&m->allocated_bytes, m->allocated_bytes + sizeof *g);
    }
    g->next = m->guides;
    m->guides = g;
    g->low = NULL;
    g->count = 0;
    g->skip = KVI_LSM_GUIDE_OPEN;
    return g;
}

/* How many of the node come before e. The first node of a node does, or the way would not lead here. */
KVI_INLINE uint32_t kvi_lsm_guide_lower(const kvi_lsm_guide *g, uint32_t depth, const kvi_lsm_entry *e)
{
    uint64_t head = kvi_lsm_guide_head(g, e);
    uint32_t low = depth ? 1 : 0, rest = g->count - low, high;
    for (; rest > 1; rest -= rest / 2) low += rest / 2 & (0u - (uint32_t)(g->heads[low + rest / 2 - 1] < head));     /* no branch: nobody could foretell it */
    if (rest) low += g->heads[low] < head;
    for (high = low; high < g->count && g->heads[high] == head; high++) {}
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (kvi_lsm_entry_order(kvi_lsm_guide_entry(g, depth, middle), e->head, kvi_lsm_entry_key(e), e->sequence) < 0) low = middle + 1; else high = middle;
    }
    return low;
}
KVI_INLINE void kvi_lsm_guide_descend(const kvi_lsm_memtable *m, const kvi_lsm_entry *e, kvi_lsm_guide_path *path)
{
    kvi_lsm_guide       *g = m->guide;
    const kvi_lsm_entry *high = NULL;
    for (uint32_t depth = m->guide_depth - 1;; depth--) {
        uint32_t at = kvi_lsm_guide_lower(g, depth, e);
        path->node[depth] = g;
        path->high[depth] = high;
        path->at[depth] = at;
        if (!depth) return;
        if (at < g->count) high = ((const kvi_lsm_guide *)g->to[at])->low;
        g = (kvi_lsm_guide *)g->to[at - 1];
        if (depth == 1) for (uint32_t i = 0; i < KVI_LSM_GUIDE_WIDTH; i += 8) kvi_prefetch(&g->heads[i]);
    }
}

KVI_INLINE void kvi_lsm_guide_put(kvi_lsm_guide *g, uint32_t at, const kvi_lsm_entry *e, void *to)
{
    size_t behind = g->count++ - at;
    if (behind) {                                           /* none, where keys ascend */
        memmove(g->heads + at + 1, g->heads + at, behind * sizeof *g->heads);
        memmove(g->to + at + 1, g->to + at, behind * sizeof *g->to);
        memmove(g->heights + at + 1, g->heights + at, behind);
    }
    g->heads[at] = kvi_lsm_guide_head(g, e);
    g->to[at] = to;
    g->heights[at] = e->height;
}
/* A node holds less than before, and ends where `high` begins: perhaps its keys share more. */
KVI_PRIVATE void kvi_lsm_guide_narrow(const kvi_lsm_memtable *m, kvi_lsm_guide *g, uint32_t depth, const kvi_lsm_entry *high)
{
    kv_slice low, prefix = kvi_lsm_memtable_prefix(m);
    size_t   shared, known = g->skip;
    if (!g->low || !high) return;
    low = kvi_lsm_entry_key(g->low);
    shared = kvi_common_prefix(low.data, high->bytes, low.size < high->key_size ? low.size : high->key_size);
    if (g->skip == KVI_LSM_GUIDE_OPEN) known = low.size >= prefix.size && kvi_same_bytes(low.data, prefix.data, prefix.size) ? prefix.size : 0;
    if (shared < known + KVI_LSM_GUIDE_GAIN) return;
    g->skip = (uint32_t)shared;
    for (uint32_t i = 0; i < g->count; i++) g->heads[i] = kvi_lsm_guide_head(g, kvi_lsm_guide_entry(g, depth, i));
}
/* Give a new node the upper half of a full one (nothing, where keys ascend), and let the path end in that
   of both where `e` goes. NULL: no memory. */
KVI_PRIVATE kvi_lsm_guide *kvi_lsm_guide_split(kv_lsm *db, kvi_lsm_memtable *m, kvi_lsm_guide_path *path, uint32_t depth, const kvi_lsm_entry *e)
{
    kvi_lsm_guide *g = path->node[depth], *right = kvi_lsm_guide_new(db, m);
    uint32_t       at = path->at[depth], from = at == g->count ? at : g->count / 2;
    if (!right) return NULL;
    right->count = g->count - from;
    right->skip = g->skip;
    right->low = right->count ? kvi_lsm_guide_entry(g, depth, from) : e;
    memcpy(right->heads, g->heads + from, right->count * sizeof *g->heads);
    memcpy(right->to, g->to + from, right->count * sizeof *g->to);
    memcpy(right->heights, g->heights + from, right->count);
    if (at > from || !right->count) { path->node[depth] = right; path->at[depth] = at - from; }
    g->count = from;
    kvi_lsm_guide_narrow(m, g, depth, right->low);
    kvi_lsm_guide_narrow(m, right, depth, path->high[depth]);
    return right;
}
/* Put e where the path ends, and split what is full. False: no memory, the guide is not whole. */
KVI_PRIVATE bool kvi_lsm_guide_add(kv_lsm *db, kvi_lsm_memtable *m, kvi_lsm_guide_path *path, kvi_lsm_entry *e)
{
    const kvi_lsm_entry *first = e;
    void                *to = e;
    for (uint32_t depth = 0;; depth++) {
        kvi_lsm_guide *right = NULL;
        if (depth == KVI_LSM_GUIDE_DEPTH) return false;
        if (depth == m->guide_depth) {                      /* a new root over the old one, or the first leaf */
            kvi_lsm_guide *root = kvi_lsm_guide_new(db, m);
            if (!root) return false;
            if (depth) { root->to[0] = m->guide; root->heads[0] = 0; root->count = 1; }
            path->node[depth] = root;
            path->high[depth] = NULL;
            path->at[depth] = root->count;
            m->guide = root;
            m->guide_depth++;
        } else if (path->node[depth]->count == KVI_LSM_GUIDE_WIDTH) {
            right = kvi_lsm_guide_split(db, m, path, depth, first);
            if (!right) return false;
        }
        kvi_lsm_guide_put(path->node[depth], path->at[depth], first, to);
        if (!right) break;
        first = right->low;
        to = right;
    }
    m->leaf = path->node[0];
    m->leaf_at = path->at[0];
    return true;
}

/* The guide of a memtable whose entries came in order until now. False: no memory. */
KVI_PRIVATE bool kvi_lsm_guide_make(kv_lsm *db, kvi_lsm_memtable *m)
{
    for (kvi_lsm_entry *e = kvi_lsm_next(m->head, 0); e; e = kvi_lsm_next(e, 0)) {
        kvi_lsm_guide_path path;
        path.node[0] = m->leaf;
        path.at[0] = m->leaf ? m->leaf->count : 0;
        if (m->leaf && m->leaf->count == KVI_LSM_GUIDE_WIDTH) kvi_lsm_guide_descend(m, e, &path);
        if (!kvi_lsm_guide_add(db, m, &path, e)) return false;
    }
    return true;
}

/* Let the fingers point to what comes before e, at each level of its tower, and the guide know it. As long
   as each entry comes right behind the one before, there is nothing to search, and no guide. */
KVI_PRIVATE void kvi_lsm_memtable_place(kv_lsm *db, kvi_lsm_memtable *m, kvi_lsm_entry *e)
{
    kvi_lsm_guide_path path;
    bool     follows = kvi_lsm_memtable_follows(m, e->head, kvi_lsm_entry_key(e), e->sequence), walk = m->unguided;
    uint32_t level = follows ? m->fingers : 0;
    if (!m->guide && !m->unguided) {
        if (follows && m->count < KVI_LSM_GUIDE_LATE) {
            while (level < e->height) m->finger[level++] = m->head;         /* no tower was as high */
            m->fingers = level;
            return;
        }
        m->unguided = walk = !kvi_lsm_guide_make(db, m);
        if (walk) kvi_lsm_guide_free(db, m);
    }
    path.node[0] = NULL;
    path.at[0] = 0;
    if (m->guide && follows && m->leaf->count < KVI_LSM_GUIDE_WIDTH) { path.node[0] = m->leaf; path.at[0] = m->leaf_at + 1; }
    else if (m->guide) kvi_lsm_guide_descend(m, e, &path);
    for (uint32_t i = path.at[0]; level < e->height && i-- > 0;)
        for (; level < e->height && level < path.node[0]->heights[i]; level++) m->finger[level] = (kvi_lsm_entry *)path.node[0]->to[i];
    if (level < e->height) {
        if (path.node[0] && path.node[0]->low) walk = true;
        else if (!walk) while (level < e->height) m->finger[level++] = m->head;
    } else walk = false;
    if (walk) {
        (void)kvi_lsm_memtable_walk(m, e->head, kvi_lsm_entry_key(e), e->sequence, true, m->finger);
        level = KVI_LSM_HEIGHT_MAX;
    }
    m->fingers = level;
    if (m->unguided || kvi_lsm_guide_add(db, m, &path, e)) return;
    kvi_lsm_guide_free(db, m);
    m->unguided = true;
}
#endif

/* Insert; the room is reserved, and the sequence is greater than all before. */
KVI_PRIVATE void kvi_lsm_memtable_insert(kv_lsm *db, kvi_lsm_memtable *m, uint8_t op, kv_slice key, kv_slice value, uint64_t sequence)
{
    kvi_lsm_entry *e = (kvi_lsm_entry *)(void *)m->free_at;
    uint32_t       height = kvi_lsm_random_height(m), known = m->height;
    size_t         size = kvi_lsm_entry_size(height) + key.size + value.size;
    uint8_t       *bytes = m->free_end - (key.size + value.size);
    uint64_t       bits = 0, *word = KVI_LSM_QUICK ? kvi_lsm_memtable_word(m, kvi_hash(key.data, key.size, m->hash_seed), &bits) : NULL;
    KV_ASSERT((size_t)(m->free_end - m->free_at) >= size);
    m->free_at += kvi_lsm_entry_size(height);
    m->free_end = bytes;
    if (KVI_LSM_QUICK) {
        kvi_lsm_memtable_share(m, key);
        kvi_poke_u64(word, kvi_peek_u64(word) | bits);
    }

    /* 1. the entry itself */
#if KVI_LSM_QUICK
    e->head = kvi_lsm_head_after(kvi_lsm_memtable_prefix(m), key.data, key.size);
#endif
    e->sequence = sequence;
    e->bytes = bytes;
    e->key_size = (uint16_t)key.size;
    e->value_size = (uint32_t)value.size;
    e->op = op;
    e->height = (uint8_t)height;
    kvi_copy(bytes, key.data, key.size);

    /* 2. its place: right behind the newest one, as in a load in order, or searched */
#if KVI_LSM_QUICK
    kvi_lsm_memtable_place(db, m, e);
#else
    (void)db;
    (void)kvi_lsm_memtable_walk(m, kvi_lsm_entry_head(e), key, sequence, true, m->finger);
#endif

    /* 3. while what comes before it arrives from memory, its value */
    if (KVI_LSM_QUICK) kvi_prefetch(kvi_lsm_links(m->finger[0]));
    kvi_copy(bytes + key.size, value.data, value.size);

    /* 4. linked from below, so that whoever finds it high up finds it everywhere below */
    for (uint32_t i = 0; i < height; i++) {
        kvi_lsm_link *from = &kvi_lsm_links(m->finger[i])[i], *to = &kvi_lsm_links(e)[i];
#if KVI_LSM_QUICK
        kvi_poke_u64(&to->head, kvi_peek_u64(&from->head));
#endif
        kvi_poke_ptr(&to->to, kvi_peek_ptr(&from->to));
#if KVI_LSM_QUICK
        kvi_poke_u64(&from->head, e->head);
#endif
        kvi_store_ptr(&from->to, e);
        m->finger[i] = e;
    }
    if (height > known) kvi_store_u32(&m->height, height);
    kvi_poke_u64(&m->count, m->count + 1);
    if (op == KVI_LSM_DELETE) kvi_store_u64(&m->deletes, m->deletes + 1);     /* release: whoever reads it reads no smaller count */
    kvi_poke_u64(&m->key_bytes, m->key_bytes + key.size);
    kvi_poke_u64(&m->value_bytes, m->value_bytes + value.size);
    kvi_poke_size(&m->used_bytes, m->used_bytes + size);
}

/* ------------------------------------------------------------------------------------------------
   >>block   data blocks: how they are made, checked and searched

   Keys, values and sequence numbers stand in columns, so that a search touches keys only, columns of
   equal sizes vanish, and any entry can be read without the ones before it. What all keys of a block
   share is written once. Two things help the search and are made when a block enters the cache (or
   stored with it where tables are not compressed and may be mapped):
       heads    u32 a key: the first four bytes of its tail, big end first, for the binary search
       buckets  u8 each: 0 no key, 255 several, else 1 + the entry; 1.3 to 2.7 buckets a key
   Buckets cost a hash of each key: a packed block has them where a get brings it in that is likely to be
   followed by many (kvi_lsm_cache_find), and says "several" throughout otherwise.
   Invariant B1: a page was checked once, all of it, before anything else looks at it.              */

KVI_INLINE uint32_t kvi_lsm_bucket_bits(uint32_t count)
{
    if (count < 4 || count > 254) return 0;
    return kvi_highest_bit32(count * 4 / 3) + 1;
}
KVI_INLINE uint32_t kvi_lsm_bucket(uint64_t hash, uint32_t bits) { return (uint32_t)(hash >> 12) & ((1u << bits) - 1); }
KVI_INLINE size_t kvi_lsm_buckets_size(uint32_t count) { return kvi_lsm_bucket_bits(count) ? (size_t)1 << kvi_lsm_bucket_bits(count) : 0; }
KVI_INLINE size_t kvi_lsm_heads_size(uint32_t count) { return (size_t)count * 4 + kvi_lsm_buckets_size(count); }

KVI_INLINE uint32_t kvi_lsm_end(const kvi_lsm_page *p, const uint8_t *ends, uint32_t i)
{
    return p->flags & KVI_LSM_WIDE ? kvi_load_le32(ends + (size_t)i * 4) : kvi_load_le16(ends + (size_t)i * 2);
}
KVI_INLINE kv_slice kvi_lsm_page_tail(const kvi_lsm_page *p, uint32_t i)
{
    uint32_t from, to;
    if (p->flags & KVI_LSM_FIXED_KEYS) { from = i * p->key_fixed; to = from + p->key_fixed; }
    else { from = i ? kvi_lsm_end(p, p->key_ends, i - 1) : 0; to = kvi_lsm_end(p, p->key_ends, i); }
    return kv_bytes(p->tails + from, to - from);
}
KVI_INLINE kv_slice kvi_lsm_page_value(const kvi_lsm_page *p, uint32_t i)
{
    uint32_t from, to;
    if (p->flags & KVI_LSM_FIXED_VALUES) { from = i * p->value_fixed; to = from + p->value_fixed; }
    else { from = i ? kvi_lsm_end(p, p->value_ends, i - 1) : 0; to = kvi_lsm_end(p, p->value_ends, i); }
    return kv_bytes(p->values + from, to - from);
}
KVI_INLINE uint64_t kvi_lsm_page_sequence(const kvi_lsm_page *p, uint32_t i)
{
    const uint8_t *b = p->sequences + (size_t)i * p->sequence_width;
    uint64_t       n = 0;
    if (KVI_LSM_QUICK && p->sequence_width == 3) return p->sequence_base + kvi_load_le16(b) + ((uint32_t)b[2] << 16);   /* most are */
    for (uint32_t k = 0; k < p->sequence_width; k++) n |= (uint64_t)b[k] << (8 * k);
    return p->sequence_base + n;
}
KVI_INLINE bool kvi_lsm_page_deleted(const kvi_lsm_page *p, uint32_t i)
{
    return (p->flags & KVI_LSM_DELETED) && (p->deleted[i / 8] >> (i % 8) & 1);
}
KVI_INLINE uint32_t kvi_lsm_head32(kv_slice tail)
{
    const uint8_t *b = (const uint8_t *)tail.data;
    uint32_t       head = 0;
    if (KVI_LIKELY(tail.size >= 4)) return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
    for (size_t i = 0; i < tail.size; i++) head |= (uint32_t)b[i] << (24 - 8 * i);
    return head;
}

/* Lay the pointers over a block's bytes. False: they do not add up. */
KVI_PRIVATE bool kvi_lsm_page_over(kvi_lsm_page *p, const uint8_t *raw, size_t size)
{
    size_t   width, at = KVI_LSM_DATA_SIZE;
    uint64_t total;
    if (size < KVI_LSM_DATA_SIZE) return false;
    memset(p, 0, sizeof *p);
    p->count = kvi_load_le32(raw);
    p->key_bytes = kvi_load_le32(raw + 4);
    p->value_bytes = kvi_load_le32(raw + 8);
    p->prefix_size = kvi_load_le16(raw + 12);
    p->flags = raw[14];
    p->sequence_width = raw[15];
    p->sequence_base = kvi_load_le64(raw + 16);
    if (p->count == 0 || p->sequence_width > 8 || p->flags > 63) return false;
    if (p->count - 1 > p->key_bytes + (uint64_t)p->count * p->sequence_width) return false;     /* entries that nothing tells apart */
    width = p->flags & KVI_LSM_WIDE ? 4 : 2;
    total = (uint64_t)KVI_LSM_DATA_SIZE + p->prefix_size + p->key_bytes + p->value_bytes + (uint64_t)p->count * p->sequence_width
          + (p->flags & KVI_LSM_FIXED_KEYS ? 0 : (uint64_t)p->count * width) + (p->flags & KVI_LSM_FIXED_VALUES ? 0 : (uint64_t)p->count * width)
          + (p->flags & KVI_LSM_DELETED ? ((uint64_t)p->count + 7) / 8 : 0) + (p->flags & KVI_LSM_HEADS ? (uint64_t)p->count * 4 + kvi_lsm_buckets_size(p->count) : 0);
    if (total != size) return false;
    p->prefix = raw + at;      at += p->prefix_size;
    p->key_ends = raw + at;    if (!(p->flags & KVI_LSM_FIXED_KEYS)) at += p->count * width;
    p->value_ends = raw + at;  if (!(p->flags & KVI_LSM_FIXED_VALUES)) at += p->count * width;
    p->sequences = raw + at;   at += (size_t)p->count * p->sequence_width;
    p->deleted = raw + at;     if (p->flags & KVI_LSM_DELETED) at += ((size_t)p->count + 7) / 8;
    p->tails = raw + at;       at += p->key_bytes;
    if (p->flags & KVI_LSM_HEADS) {
        p->heads = raw + at;
        p->buckets = p->heads + (size_t)p->count * 4;
        p->bucket_bits = (uint8_t)kvi_lsm_bucket_bits(p->count);
        at += kvi_lsm_heads_size(p->count);
    }
    p->values = raw + at;
    if (p->flags & KVI_LSM_FIXED_KEYS) p->key_fixed = p->key_bytes / p->count;
    if (p->flags & KVI_LSM_FIXED_VALUES) p->value_fixed = p->value_bytes / p->count;
    return true;
}
/* Are the columns what the page says? Order is left to kvi_lsm_check: a wrong one gives wrong
   answers, but no wrong reads. */
KVI_PRIVATE bool kvi_lsm_page_valid(const kvi_lsm_page *p)
{
    uint32_t before = 0, longest = KV_KEY_SIZE_MAX - p->prefix_size;
    if (p->flags & KVI_LSM_FIXED_KEYS) {
        if ((uint64_t)p->key_fixed * p->count != p->key_bytes || p->key_fixed > longest) return false;
    } else {
        for (uint32_t i = 0; i < p->count; i++) {
            uint32_t end = kvi_lsm_end(p, p->key_ends, i);
            if (end < before || end - before > longest) return false;
            before = end;
        }
        if (before != p->key_bytes) return false;
    }
    if (p->flags & KVI_LSM_FIXED_VALUES) {
        if ((uint64_t)p->value_fixed * p->count != p->value_bytes) return false;
    } else {
        before = 0;
        for (uint32_t i = 0; i < p->count; i++) {
            uint32_t end = kvi_lsm_end(p, p->value_ends, i);
            if (end < before) return false;
            before = end;
        }
        if (before != p->value_bytes) return false;
    }
    if (p->bucket_bits) {
        uint8_t most = 0;                                   /* 255 counts as 0: without branches, many at once */
        for (uint32_t i = 0; i < 1u << p->bucket_bits; i++) { uint8_t b = (uint8_t)(p->buckets[i] + 1u); most = b > most ? b : most; }
        if (most > p->count + 1) return false;
    }
    return true;
}

KVI_PRIVATE bool kvi_lsm_page_same_key(const kvi_lsm_page *p, uint32_t i, uint32_t k)
{
    kv_slice a = kvi_lsm_page_tail(p, i), b = kvi_lsm_page_tail(p, k);
    return a.size == b.size && kvi_equal(a.data, b.data, a.size);
}

/* Does what the page has for the search lead to entry `i`, whose key has this hash? For kvi_lsm_check. */
KVI_PRIVATE bool kvi_lsm_page_leads(const kvi_lsm_page *p, uint32_t i, uint64_t hash)
{
    uint8_t bucket;
    if (i && kvi_lsm_page_same_key(p, i, i - 1)) return (p->flags & KVI_LSM_REPEATS) != 0;
    if (!p->heads) return true;
    if (kvi_load_le32(p->heads + (size_t)i * 4) != kvi_lsm_head32(kvi_lsm_page_tail(p, i))) return false;
    bucket = p->bucket_bits ? p->buckets[kvi_lsm_bucket(hash, p->bucket_bits)] : 255;
    return bucket == 255 || bucket == i + 1;
}

/* Write heads and, where wanted, buckets for the page to `out` (kvi_lsm_heads_size bytes). */
KVI_PRIVATE void kvi_lsm_page_make_heads(kvi_lsm_page *p, uint8_t *out, uint64_t hash_seed, bool buckets)
{
    uint32_t bits = kvi_lsm_bucket_bits(p->count);
    uint8_t *table = out + (size_t)p->count * 4, key[512];
    for (uint32_t i = 0; i < p->count; i++) kvi_store_le32(out + (size_t)i * 4, kvi_lsm_head32(kvi_lsm_page_tail(p, i)));
    p->heads = out;
    if (!bits) return;
    if (!buckets || p->prefix_size > sizeof key / 2) { memset(table, 255, (size_t)1 << bits); }
    else {
        memset(table, 0, (size_t)1 << bits);
        memcpy(key, p->prefix, p->prefix_size);
        for (uint32_t i = 0; i < p->count; i++) {
            kv_slice tail = kvi_lsm_page_tail(p, i);
            uint8_t *bucket;
            if (tail.size > sizeof key - p->prefix_size) { memset(table, 255, (size_t)1 << bits); break; }
            if (i && (p->flags & KVI_LSM_REPEATS) && kvi_lsm_page_same_key(p, i, i - 1)) continue;
            kvi_copy(key + p->prefix_size, tail.data, tail.size);
            bucket = table + kvi_lsm_bucket(kvi_hash(key, p->prefix_size + tail.size, hash_seed), bits);
            *bucket = (uint8_t)(*bucket ? 255 : i + 1);
        }
    }
    p->buckets = table;
    p->bucket_bits = (uint8_t)bits;
}

/* What is left of s behind its first `size` bytes; s.data may be NULL where that is all of it. */
KVI_INLINE kv_slice kvi_lsm_slice_from(kv_slice s, size_t size)
{
    return kv_bytes(size ? (const uint8_t *)s.data + size : s.data, s.size - size);
}

/* Fetch what a search in the page looks at. */
KVI_PRIVATE void kvi_lsm_page_ahead(const kvi_lsm_page *p)
{
    size_t size = p->heads ? (size_t)p->count * 4 : 0;
    kvi_prefetch(p->prefix);
    for (size_t at = 0; at < size && at < 1024; at += 64) kvi_prefetch(p->heads + at);
}
/* The first entry whose key is not below `key`; count where there is none. */
KVI_PRIVATE uint32_t kvi_lsm_page_lower(const kvi_lsm_page *p, kv_slice key)
{
    uint32_t low = 0, high = p->count, head;
    size_t   both = key.size < p->prefix_size ? key.size : p->prefix_size;
    kv_slice tail;
    int      order = kvi_same_bytes(key.data, p->prefix, both) ? 0 : memcmp(key.data, p->prefix, both);
    if (order < 0 || (order == 0 && key.size < p->prefix_size)) return 0;
    if (order > 0) return p->count;
    tail = kvi_lsm_slice_from(key, both);
    if (KVI_LSM_QUICK && p->heads) {
        head = kvi_lsm_head32(tail);
        while (low < high) {                                /* the first head that is not below */
            uint32_t middle = (low + high) / 2;
            if (kvi_load_le32(p->heads + (size_t)middle * 4) < head) low = middle + 1; else high = middle;
        }
        high = p->count;
        while (low < high) {                                /* few share a head, as a rule */
            if (kvi_load_le32(p->heads + (size_t)low * 4) != head) return low;
            if (kvi_compare(kvi_lsm_page_tail(p, low), tail) >= 0) return low;
            if (low + 8 < high && kvi_load_le32(p->heads + (size_t)(low + 8) * 4) == head) break;
            low++;
        }
        if (low == high) return low;
    }
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (kvi_compare(kvi_lsm_page_tail(p, middle), tail) < 0) low = middle + 1; else high = middle;
    }
    return low;
}

/* The newest entry of `key` at or below the sequence; count where there is none in this block. Where
   it stops at the block's end with the key still the same, *more is set. */
KVI_PRIVATE uint32_t kvi_lsm_page_find(const kvi_lsm_page *p, kv_slice key, uint64_t hash, uint64_t sequence, bool *more)
{
    uint32_t i;
    kv_slice tail;
    *more = false;
    if (KVI_LSM_QUICK && p->bucket_bits) {
        uint32_t bucket = p->buckets[kvi_lsm_bucket(hash, p->bucket_bits)];
        if (bucket == 0) return p->count;
        i = bucket < 255 ? bucket - 1 : kvi_lsm_page_lower(p, key);
    } else i = kvi_lsm_page_lower(p, key);
    if (i == p->count) return i;
    tail = kvi_lsm_page_tail(p, i);
    if (key.size != p->prefix_size + tail.size || !kvi_equal(kvi_lsm_slice_from(key, p->prefix_size).data, tail.data, tail.size)
        || !kvi_equal(key.data, p->prefix, p->prefix_size)) return p->count;
    while (kvi_lsm_page_sequence(p, i) > sequence) {
        if (i + 1 == p->count) { *more = true; return p->count; }
        if (!kvi_lsm_page_same_key(p, i, i + 1)) return p->count;
        i++;
    }
    return i;
}

/* ---- making one ---- */

typedef struct kvi_lsm_column { uint64_t sequence; uint32_t key_end, value_end; uint8_t deleted; } kvi_lsm_column;

typedef struct kvi_lsm_page_builder {
    kv_buf   keys, values, columns;         /* whole keys; kvi_lsm_column each */
    uint32_t count;
    bool     repeats;
} kvi_lsm_page_builder;

KVI_INLINE const kvi_lsm_column *kvi_lsm_columns(const kvi_lsm_page_builder *b) { return (const kvi_lsm_column *)b->columns.data; }
KVI_INLINE kv_slice kvi_lsm_builder_key(const kvi_lsm_page_builder *b, uint32_t i)
{
    uint32_t from = i ? kvi_lsm_columns(b)[i - 1].key_end : 0;
    return kv_bytes((const uint8_t *)b->keys.data + from, kvi_lsm_columns(b)[i].key_end - from);
}
KVI_PRIVATE size_t kvi_lsm_builder_size(const kvi_lsm_page_builder *b) { return b->keys.size + b->values.size + (size_t)b->count * 8; }

KVI_INLINE kv_status kvi_lsm_builder_more(kv_buf *b, size_t size)     /* room for size more bytes; data is not NULL then, also for none */
{
    size_t wanted = b->size + size + 1;
    if (KVI_LIKELY(wanted <= b->capacity)) return KV_OK;
    if (b->capacity < 1u << 20) return kv_buf_reserve(b, wanted < b->capacity * 2 ? b->capacity * 2 : wanted);
    return kv_buf_reserve(b, wanted + (wanted < 64u << 20 ? wanted / 4 : 0));       /* no second copy of a huge value's size */
}
KVI_PRIVATE kv_status kvi_lsm_builder_add(kvi_lsm_page_builder *b, kv_slice key, uint64_t sequence, bool deleted, kv_slice value)
{
    kvi_lsm_column *column;
    if (kvi_lsm_builder_more(&b->keys, key.size) < 0 || kvi_lsm_builder_more(&b->values, value.size) < 0
        || kvi_lsm_builder_more(&b->columns, sizeof *column) < 0) return KV_ERR_NO_MEMORY;
    kvi_copy((uint8_t *)b->keys.data + b->keys.size, key.data, key.size);
    b->keys.size += key.size;
    kvi_copy((uint8_t *)b->values.data + b->values.size, value.data, value.size);
    b->values.size += value.size;
    column = (kvi_lsm_column *)(void *)((uint8_t *)b->columns.data + b->columns.size);
    b->columns.size += sizeof *column;
    column->sequence = sequence;
    column->key_end = (uint32_t)b->keys.size;
    column->value_end = (uint32_t)b->values.size;
    column->deleted = deleted;
    b->count++;
    return KV_OK;
}
KVI_PRIVATE void kvi_lsm_builder_trim(kvi_lsm_page_builder *b)      /* one value may be a gigabyte */
{
    if (b->values.capacity > 8u << 20) kv_buf_free(&b->values);
}
KVI_PRIVATE void kvi_lsm_builder_clear(kvi_lsm_page_builder *b)
{
    b->keys.size = b->values.size = b->columns.size = 0;
    b->count = 0;
    b->repeats = false;
    kvi_lsm_builder_trim(b);
}

typedef struct kvi_lsm_shape { uint64_t base, widest; uint32_t key_fixed, value_fixed; bool deleted, keys_fixed, values_fixed; } kvi_lsm_shape;

KVI_PRIVATE kvi_lsm_shape kvi_lsm_builder_shape(const kvi_lsm_page_builder *b)
{
    const kvi_lsm_column *c = kvi_lsm_columns(b);
    kvi_lsm_shape         shape;
    memset(&shape, 0, sizeof shape);
    shape.base = c[0].sequence;
    shape.key_fixed = c[0].key_end;
    shape.value_fixed = c[0].value_end;
    shape.keys_fixed = shape.values_fixed = true;
    for (uint32_t i = 0; i < b->count; i++) {
        if (c[i].sequence < shape.base) shape.base = c[i].sequence;
        if (c[i].sequence > shape.widest) shape.widest = c[i].sequence;
        if (c[i].deleted) shape.deleted = true;
        if (i && c[i].key_end - c[i - 1].key_end != shape.key_fixed) shape.keys_fixed = false;
        if (i && c[i].value_end - c[i - 1].value_end != shape.value_fixed) shape.values_fixed = false;
    }
    shape.widest -= shape.base;
    return shape;
}
KVI_PRIVATE uint8_t *kvi_lsm_put_ends(uint8_t *to, const kvi_lsm_page_builder *b, bool keys, uint32_t prefix_size, bool wide)
{
    const kvi_lsm_column *c = kvi_lsm_columns(b);
    for (uint32_t i = 0; i < b->count; i++) {
        uint32_t end = keys ? c[i].key_end - (i + 1) * prefix_size : c[i].value_end;
        if (wide) kvi_store_le32(to, end); else kvi_store_le16(to, (uint16_t)end);
        to += wide ? 4 : 2;
    }
    return to;
}

/* The block's bytes, to `raw`, which is replaced. */
KVI_PRIVATE kv_status kvi_lsm_builder_finish(kvi_lsm_page_builder *b, bool with_heads, uint64_t hash_seed, kv_buf *raw)
{
    kvi_lsm_shape shape = kvi_lsm_builder_shape(b);
    kv_slice      first = kvi_lsm_builder_key(b, 0), last = kvi_lsm_builder_key(b, b->count - 1);
    uint32_t      prefix = (uint32_t)kvi_common_prefix(first.data, last.data, first.size < last.size ? first.size : last.size);
    uint32_t      key_bytes = (uint32_t)(b->keys.size - (size_t)prefix * b->count), width = shape.widest ? kvi_highest_bit64(shape.widest) / 8 + 1 : 0;
    bool          wide = key_bytes > 65535 || b->values.size > 65535;
    size_t        ends = (size_t)b->count * (wide ? 4 : 2), heads = with_heads ? kvi_lsm_heads_size(b->count) : 0;
    size_t        size = KVI_LSM_DATA_SIZE + prefix + (shape.keys_fixed ? 0 : ends) + (shape.values_fixed ? 0 : ends) + (size_t)b->count * width
                       + (shape.deleted ? ((size_t)b->count + 7) / 8 : 0) + key_bytes + heads + b->values.size;
    uint8_t      *at;
    raw->size = 0;
    if (kv_buf_reserve(raw, size) < 0) return KV_ERR_NO_MEMORY;
    raw->size = size;
    at = (uint8_t *)raw->data;
    kvi_store_le32(at, b->count);
    kvi_store_le32(at + 4, key_bytes);
    kvi_store_le32(at + 8, (uint32_t)b->values.size);
    kvi_store_le16(at + 12, (uint16_t)prefix);
    at[14] = (uint8_t)((shape.deleted ? KVI_LSM_DELETED : 0) | (wide ? KVI_LSM_WIDE : 0) | (shape.keys_fixed ? KVI_LSM_FIXED_KEYS : 0)
                       | (shape.values_fixed ? KVI_LSM_FIXED_VALUES : 0) | (with_heads ? KVI_LSM_HEADS : 0) | (b->repeats ? KVI_LSM_REPEATS : 0));
    at[15] = (uint8_t)width;
    kvi_store_le64(at + 16, shape.base);
    at += KVI_LSM_DATA_SIZE;
    kvi_copy(at, first.data, prefix);
    at += prefix;
    if (!shape.keys_fixed) at = kvi_lsm_put_ends(at, b, true, prefix, wide);
    if (!shape.values_fixed) at = kvi_lsm_put_ends(at, b, false, 0, wide);
    for (uint32_t i = 0; width && i < b->count; i++) {
        uint64_t n = kvi_lsm_columns(b)[i].sequence - shape.base;
        for (uint32_t k = 0; k < width; k++) *at++ = (uint8_t)(n >> (8 * k));
    }
    if (shape.deleted) {
        memset(at, 0, ((size_t)b->count + 7) / 8);
        for (uint32_t i = 0; i < b->count; i++) if (kvi_lsm_columns(b)[i].deleted) at[i / 8] = (uint8_t)(at[i / 8] | 1u << (i % 8));
        at += ((size_t)b->count + 7) / 8;
    }
    for (uint32_t i = 0; i < b->count; i++) {
        kv_slice key = kvi_lsm_builder_key(b, i);
        kvi_copy(at, (const uint8_t *)key.data + prefix, key.size - prefix);
        at += key.size - prefix;
    }

    kvi_copy(at + heads, b->values.data, b->values.size);
    if (with_heads) {
        kvi_lsm_page page;
        memset(at, 0, heads);
        (void)kvi_lsm_page_over(&page, (const uint8_t *)raw->data, size);
        kvi_lsm_page_make_heads(&page, at, hash_seed, true);
    }
    return KV_OK;
}

/* ------------------------------------------------------------------------------------------------
   >>cache   blocks in memory, ready to search: sharded, CLOCK, counted

   A block is found by (file, offset); files' numbers are never used again, so an entry can be old
   but never wrong. Whoever holds a reference may look at the block after it was thrown out. In a full
   cache a block that cost no unpacking takes the place of another only when it was missed before, not
   long ago: what is read once leaves the cache as it is, and lies in memory that is still near.
   Invariant C1: a shard holds at most its share of the limit, but for blocks that are being read.  */

KVI_PRIVATE void kvi_lsm_block_release(kv_lsm *db, kvi_lsm_block *b)
{
    if (b && kvi_sub_u32(&b->refs, 1) == 1) kvi_free(&db->options.allocator, b, b->memory_bytes);
}

KVI_INLINE uint64_t kvi_lsm_cache_hash(uint64_t file, uint64_t offset) { return kvi_mix64(file * UINT64_C(0x9E3779B97F4A7C15) + offset); }
KVI_INLINE kvi_lsm_shard *kvi_lsm_cache_shard(kv_lsm *db, uint64_t hash) { return &db->shards[hash >> 60 & (KVI_LSM_SHARDS - 1)]; }

/* Was the block with this hash asked for lately? Now it was. */
KVI_INLINE bool kvi_lsm_cache_asked(kvi_lsm_shard *shard, uint64_t hash)
{
    uint32_t *slot = &shard->asked[hash & (shard->bucket_count / 2 - 1)];
    bool      again = *slot == (uint32_t)(hash >> 28);
    *slot = (uint32_t)(hash >> 28);
    return again;
}
/* The block, or NULL, and then *stays, which may be NULL: is it likely to be asked for often? Where
   there is room for all, and where it was missed before, not long ago. */
KVI_PRIVATE kvi_lsm_block *kvi_lsm_cache_find(kv_lsm *db, uint64_t file, uint64_t offset, bool *stays)
{
    uint64_t       hash = kvi_lsm_cache_hash(file, offset);
    kvi_lsm_shard *shard;
    kvi_lsm_block *b;
    if (!KVI_LSM_CACHE || !db->shards) return NULL;
    shard = kvi_lsm_cache_shard(db, hash);
    kvi_spin_lock(&shard->lock);
    for (b = shard->buckets[hash & (shard->bucket_count - 1)]; b; b = b->next) if (b->offset == offset && b->file == file) break;
    if (b) { kvi_add_u32(&b->refs, 1); b->recent = 1; shard->hits++; }
    else {
        shard->misses++;
        if (stays) *stays = db->options.codec == KV_CODEC_NONE || shard->used_bytes + 2 * db->options.block_bytes < shard->limit_bytes || kvi_lsm_cache_asked(shard, hash);
    }
    kvi_spin_unlock(&shard->lock);
    return b;
}

/* Fetch what will be looked at to find a block: the head of its bucket. */
KVI_PRIVATE void kvi_lsm_cache_ahead(kv_lsm *db, uint64_t file, uint64_t offset)
{
    uint64_t       hash = kvi_lsm_cache_hash(file, offset);
    kvi_lsm_shard *shard;
    const kvi_lsm_block *b;
    if (!KVI_LSM_CACHE || !db->shards) return;
    shard = kvi_lsm_cache_shard(db, hash);
    kvi_spin_lock(&shard->lock);
    b = shard->buckets[hash & (shard->bucket_count - 1)];
    kvi_spin_unlock(&shard->lock);
    if (!b) return;
    kvi_prefetch(b);                                        /* it may be gone by then, which harms nobody */
    kvi_prefetch((const uint8_t *)b + 64);
    kvi_prefetch((const uint8_t *)b + 128);
}

KVI_PRIVATE void kvi_lsm_cache_unlink(kvi_lsm_shard *shard, kvi_lsm_block *b)
{
    kvi_lsm_block **from = &shard->buckets[kvi_lsm_cache_hash(b->file, b->offset) & (shard->bucket_count - 1)];
    while (*from != b) from = &(*from)->next;
    *from = b->next;
    if (b->clock_next == b) shard->hand = NULL;
    else {
        b->clock_next->clock_prev = b->clock_prev;
        b->clock_prev->clock_next = b->clock_next;
        if (shard->hand == b) shard->hand = b->clock_next;
    }
    shard->used_bytes -= b->memory_bytes;
    shard->count--;
}
/* Take blocks out until `bytes` more fit, or all that can go are gone; they are chained by `next`. */
KVI_PRIVATE kvi_lsm_block *kvi_lsm_cache_evict(kvi_lsm_shard *shard, size_t bytes)
{
    kvi_lsm_block *out = NULL;
    size_t         turns = shard->count * 2;
    while (shard->hand && shard->used_bytes + bytes > shard->limit_bytes && turns--) {
        kvi_lsm_block *b = shard->hand;
        shard->hand = b->clock_next;
        if (b->recent) { b->recent = 0; continue; }
        if (kvi_load_u32(&b->refs) > 1) continue;
        kvi_lsm_cache_unlink(shard, b);
        b->next = out;
        out = b;
    }
    return out;
}
/* Put a block in; the caller keeps its own reference. */
KVI_PRIVATE void kvi_lsm_cache_put(kv_lsm *db, kvi_lsm_block *b)
{
    uint64_t        hash = kvi_lsm_cache_hash(b->file, b->offset);
    kvi_lsm_shard  *shard;
    kvi_lsm_block **bucket, *same, *out;
    if (!KVI_LSM_CACHE || !db->shards) return;
    shard = kvi_lsm_cache_shard(db, hash);
    if (b->memory_bytes > shard->limit_bytes) return;
    kvi_spin_lock(&shard->lock);
    bucket = &shard->buckets[hash & (shard->bucket_count - 1)];
    for (same = *bucket; same; same = same->next) if (same->offset == b->offset && same->file == b->file) break;
    if (same || (shard->used_bytes + b->memory_bytes > shard->limit_bytes && db->options.codec == KV_CODEC_NONE && !kvi_lsm_cache_asked(shard, hash))) {
        kvi_spin_unlock(&shard->lock);
        return;
    }
    out = kvi_lsm_cache_evict(shard, b->memory_bytes);
    if (shard->used_bytes + b->memory_bytes <= shard->limit_bytes) {
        kvi_add_u32(&b->refs, 1);
        b->recent = 0;
        b->next = *bucket;
        *bucket = b;
        if (!shard->hand) { shard->hand = b; b->clock_next = b->clock_prev = b; }
        else {                                              /* behind the hand: the last to be looked at */
            b->clock_next = shard->hand;
            b->clock_prev = shard->hand->clock_prev;
            b->clock_prev->clock_next = b;
            b->clock_next->clock_prev = b;
        }
        shard->used_bytes += b->memory_bytes;
        shard->count++;
    }
    kvi_spin_unlock(&shard->lock);
    while (out) { kvi_lsm_block *next = out->next; kvi_lsm_block_release(db, out); out = next; }
}

KVI_PRIVATE void kvi_lsm_cache_close(kv_lsm *db)
{
    if (!KVI_LSM_CACHE || !db->shards) return;
    for (uint32_t i = 0; i < KVI_LSM_SHARDS; i++) {
        kvi_lsm_shard *shard = &db->shards[i];
        while (shard->hand) {
            kvi_lsm_block *b = shard->hand;
            kvi_lsm_cache_unlink(shard, b);
            kvi_lsm_block_release(db, b);
        }
        kvi_free(&db->options.allocator, shard->buckets, shard->bucket_count * sizeof *shard->buckets);
        kvi_free(&db->options.allocator, shard->asked, shard->bucket_count / 2 * sizeof *shard->asked);
    }
    kvi_free(&db->options.allocator, db->shards, KVI_LSM_SHARDS * sizeof *db->shards);
    db->shards = NULL;
}
KVI_PRIVATE kv_status kvi_lsm_cache_open(kv_lsm *db)
{
    size_t share = db->options.cache_bytes / KVI_LSM_SHARDS, wanted = share / db->options.block_bytes;
    if (!KVI_LSM_CACHE || db->options.cache_bytes == KV_NONE) return KV_OK;
    db->shards = (kvi_lsm_shard *)kvi_alloc_zero(&db->options.allocator, KVI_LSM_SHARDS * sizeof *db->shards);
    if (!db->shards) return KV_ERR_NO_MEMORY;
    for (uint32_t i = 0; i < KVI_LSM_SHARDS; i++) {
        kvi_lsm_shard *shard = &db->shards[i];
        shard->limit_bytes = share;
        shard->bucket_count = 16;
        while (shard->bucket_count < wanted && shard->bucket_count < 1u << 20) shard->bucket_count *= 2;
        shard->buckets = (kvi_lsm_block **)kvi_alloc_zero(&db->options.allocator, shard->bucket_count * sizeof *shard->buckets);
        shard->asked = (uint32_t *)kvi_alloc_zero(&db->options.allocator, shard->bucket_count / 2 * sizeof *shard->asked);
        if (!shard->buckets || !shard->asked) { kvi_lsm_cache_close(db); return KV_ERR_NO_MEMORY; }
    }
    return KV_OK;
}

/* ------------------------------------------------------------------------------------------------
   >>table   table files: building one, loading its index and filter, and its blocks

   Invariant T1: bytes of a table are believed only after their check held, which includes where they
                 lie: a block of another file or place fails.
   Invariant T2: a table that cannot be read is an error for every key that it may hold.            */

/* ---- open files, no more than options.open_files of them where it can be helped ---- */

KVI_PRIVATE bool kvi_lsm_close_idle_file(kv_lsm *db)        /* under files */
{
    for (uint32_t turn = 0; turn < 2 * db->options.open_files; turn++) {
        kvi_lsm_table *t;
        if (db->open_hand >= db->open_files) db->open_hand = 0;
        if (!db->open_files) return false;
        t = db->open_tables[db->open_hand];
        if (t->file_users || t->file_recent) { t->file_recent = false; db->open_hand++; continue; }
        (void)db->io->close(db->io->user, t->file);
        t->file = NULL;
        db->open_tables[db->open_hand] = db->open_tables[--db->open_files];
        return true;
    }
    return false;
}
KVI_PRIVATE kv_status kvi_lsm_table_file(kv_lsm *db, kvi_lsm_table *t, kv_file **file)
{
    kv_status s = KV_OK;
    kvi_text  name;
    kvi_mutex_lock(&db->files);
    if (!t->file) {
        t->file_extra = db->open_files == db->options.open_files && !kvi_lsm_close_idle_file(db);     /* all of them in use */
        name = kvi_lsm_path(db, 0);
        kvi_lsm_text_file(&name, KVI_LSM_TABLE, t->number);
        s = db->io->open(db->io->user, db->names[0], 0, &t->file);
        if (s == KV_ERR_IO && kvi_lsm_close_idle_file(db)) s = db->io->open(db->io->user, db->names[0], 0, &t->file);  /* out of descriptors, perhaps */
        if (s != KV_OK) t->file = NULL;
        else if (!t->file_extra) db->open_tables[db->open_files++] = t;
    }
    if (s == KV_OK) { t->file_users++; t->file_recent = true; *file = t->file; }
    kvi_mutex_unlock(&db->files);
    if (s == KV_OK) return KV_OK;
    if (s == KV_NOT_FOUND) return kvi_lsm_fail_file(db, KV_ERR_CORRUPT, "the file is missing", KVI_LSM_TABLE, t->number, KVI_LSM_NO_SEQUENCE);
    return kvi_lsm_fail_file(db, s, "cannot open", KVI_LSM_TABLE, t->number, KVI_LSM_NO_SEQUENCE);
}
KVI_PRIVATE void kvi_lsm_table_file_done(kv_lsm *db, kvi_lsm_table *t)
{
    kvi_mutex_lock(&db->files);
    if (--t->file_users == 0 && t->file_extra) {
        (void)db->io->close(db->io->user, t->file);
        t->file = NULL;
    }
    kvi_mutex_unlock(&db->files);
}

/* ---- blocks ---- */

typedef struct kvi_lsm_block_header { uint32_t payload_check, packed_size, raw_size, count; uint8_t type, codec; } kvi_lsm_block_header;

/* Is there a block header at `in`, which lies at `seed`'s offset? Its own check covers the sizes. */
KVI_PRIVATE bool kvi_lsm_block_header_decode(const uint8_t *in, uint64_t seed, kvi_lsm_block_header *h)
{
    if (kvi_load_le32(in) != kvi_checksum(in + 4, KVI_LSM_BLOCK_SIZE - 4, seed)) return false;
    h->payload_check = kvi_load_le32(in + 4);
    h->packed_size = kvi_load_le32(in + 8);
    h->raw_size = kvi_load_le32(in + 12);
    h->type = in[16];
    h->codec = in[17];
    h->count = kvi_load_le16(in + 18);
    /* no codec makes more of a byte than zstd, which repeats one 128 KiB with four: no memory for what cannot be */
    return h->codec >= KV_CODEC_NONE && h->codec <= KV_CODEC_ZSTD && (h->codec != KV_CODEC_NONE || h->packed_size == h->raw_size)
        && h->packed_size <= h->raw_size && h->raw_size <= KVI_LSM_BLOCK_MAX && h->raw_size >> 15 <= h->packed_size;
}
/* Check a block in memory, header and payload, of exactly `size` bytes. */
KVI_PRIVATE bool kvi_lsm_block_verify(const uint8_t *in, size_t size, uint64_t seed, uint8_t type, bool payload_too, kvi_lsm_block_header *h)
{
    if (size < KVI_LSM_BLOCK_SIZE || !kvi_lsm_block_header_decode(in, seed, h)) return false;
    if (h->type != type || size != (size_t)h->packed_size + KVI_LSM_BLOCK_SIZE) return false;
    return !payload_too || h->payload_check == kvi_checksum(in + KVI_LSM_BLOCK_SIZE, h->packed_size, seed);
}

/* ---- index and filter ---- */

KVI_PRIVATE void kvi_lsm_index_free(kv_lsm *db, kvi_lsm_index *x, size_t map_size)
{
    if (!x) return;
    if (KVI_LSM_MAPS && x->map) db->io->unmap(db->io->user, x->map, map_size);
    if (KVI_LSM_STATS) kvi_sub_u64(&db->index_bytes, x->memory_bytes - x->filter_bytes);
    if (KVI_LSM_STATS) kvi_sub_u64(&db->filter_bytes, x->filter_bytes);
    kvi_free(&db->options.allocator, x, x->memory_bytes);
}

typedef struct kvi_lsm_footer { uint64_t properties, index, filter; uint32_t properties_size, index_size, filter_size, format; } kvi_lsm_footer;

KVI_PRIVATE kv_status kvi_lsm_footer_decode(const uint8_t *in, uint64_t seed, uint64_t file_size, kvi_lsm_footer *f)
{
    uint64_t at = file_size - KVI_LSM_FOOTER_SIZE;
    if (kvi_load_le64(in + 56) != kvi_hash(in, 56, seed + at) || memcmp(in + 40, kvi_lsm_magic[KVI_LSM_TABLE], 8) != 0) return KV_ERR_CORRUPT;
    f->properties = kvi_load_le64(in);
    f->index = kvi_load_le64(in + 8);
    f->filter = kvi_load_le64(in + 16);
    f->properties_size = kvi_load_le32(in + 24);
    f->index_size = kvi_load_le32(in + 28);
    f->filter_size = kvi_load_le32(in + 32);
    f->format = kvi_load_le32(in + 36);
    if (f->format > KVI_LSM_FORMAT) return KV_ERR_VERSION;
    /* filter, index, properties, footer: one behind the other */
    if (f->properties > at || f->properties_size != at - f->properties || f->index < KVI_LSM_HEADER_SIZE || f->index > f->properties
        || f->index_size != f->properties - f->index || (f->filter ? f->filter < KVI_LSM_HEADER_SIZE || f->filter > f->index
        || f->filter_size != f->index - f->filter : f->filter_size != 0)) return KV_ERR_CORRUPT;
    return f->index_size - KVI_LSM_BLOCK_SIZE <= KVI_LSM_BLOCK_MAX && (!f->filter_size || f->filter_size - KVI_LSM_BLOCK_SIZE <= KVI_LSM_BLOCK_MAX) ? KV_OK : KV_ERR_CORRUPT;
}

/* What an index block says before anything is allocated for it. */
typedef struct kvi_lsm_index_raw { uint32_t count, key_bytes, prefix_size; const uint8_t *prefix, *ends, *sizes, *keys; } kvi_lsm_index_raw;

KVI_PRIVATE bool kvi_lsm_index_over(kvi_lsm_index_raw *x, const uint8_t *raw, size_t size, uint64_t data_bytes)
{
    uint64_t total;
    uint32_t before = 0;
    if (size < 12) return false;
    x->count = kvi_load_le32(raw);
    x->key_bytes = kvi_load_le32(raw + 4);
    x->prefix_size = kvi_load_le32(raw + 8);
    total = 12 + (uint64_t)x->prefix_size + (uint64_t)x->count * 8 + x->key_bytes;
    if (x->count == 0 || x->prefix_size > KV_KEY_SIZE_MAX || total != size) return false;
    x->prefix = raw + 12;
    x->ends = x->prefix + x->prefix_size;
    x->sizes = x->ends + (size_t)x->count * 4;
    x->keys = x->sizes + (size_t)x->count * 4;
    for (uint32_t i = 0; i < x->count; i++) {
        uint32_t end = kvi_load_le32(x->ends + (size_t)i * 4), block = kvi_load_le32(x->sizes + (size_t)i * 4);
        if (end < before || end > x->key_bytes || block < KVI_LSM_BLOCK_SIZE || block > data_bytes) return false;
        before = end;
        data_bytes -= block;
    }
    return before == x->key_bytes && data_bytes == 0;
}

/* Index and filter in memory, from their blocks. filter is the whole block, or NULL. */
KVI_PRIVATE kvi_lsm_index *kvi_lsm_index_new(kv_lsm *db, const kvi_lsm_index_raw *raw, const uint8_t *filter, size_t filter_size, bool mapped)
{
    size_t         bits = mapped ? ((size_t)raw->count + 31) / 32 * 4 : 0, lines = filter ? filter_size - 8 : 0;
    size_t         fixed = sizeof(kvi_lsm_index) + 64 + lines, columns = (size_t)raw->count * (KVI_LSM_QUICK ? 20 : 12) + 8 + bits;
    size_t         size = fixed + columns + raw->prefix_size + raw->key_bytes;
    uint8_t       *at = (uint8_t *)kvi_alloc(&db->options.allocator, size);
    kvi_lsm_index *x = (kvi_lsm_index *)(void *)at;
    uint64_t      *heads, *offsets, offset = KVI_LSM_HEADER_SIZE;
    uint32_t      *ends, from = 0;
    if (!at) return NULL;
    memset(x, 0, sizeof *x);
    x->memory_bytes = size;
    x->filter_bytes = lines;
    x->count = raw->count;
    at += sizeof *x;
    at += (64 - ((uintptr_t)at & 63)) & 63;                 /* a line of the filter is a line of the processor's cache */
    if (lines) {
        memcpy(at, filter + 8, lines);
        x->filter = at;
        x->filter_probes = kvi_load_le32(filter);
        x->filter_lines = kvi_load_le32(filter + 4);
        at += lines;
    } else at = (uint8_t *)x + ((sizeof *x + 7) & ~(size_t)7);
    heads = (uint64_t *)(void *)at;       if (KVI_LSM_QUICK) at += (size_t)raw->count * 8;
    offsets = (uint64_t *)(void *)at;     at += ((size_t)raw->count + 1) * 8;
    ends = (uint32_t *)(void *)at;        at += (size_t)raw->count * 4;
    if (mapped) { x->verified = (uint32_t *)(void *)at; memset(at, 0, bits); at += bits; }
    kvi_copy(at, raw->prefix, raw->prefix_size);
    kvi_copy(at + raw->prefix_size, raw->keys, raw->key_bytes);
    x->prefix = kv_bytes(at, raw->prefix_size);
    x->keys = at + raw->prefix_size;
    for (uint32_t i = 0; i < raw->count; i++) {
        ends[i] = kvi_load_le32(raw->ends + (size_t)i * 4);
        if (KVI_LSM_QUICK) heads[i] = kvi_lsm_head(x->keys + from, ends[i] - from);
        from = ends[i];
        offsets[i] = offset;
        offset += kvi_load_le32(raw->sizes + (size_t)i * 4);
    }
    offsets[raw->count] = offset;
    x->heads = KVI_LSM_QUICK ? heads : NULL;
    x->offsets = offsets;
    x->key_ends = ends;
    KVI_LSM_COUNT(&db->index_bytes, x->memory_bytes - x->filter_bytes);
    KVI_LSM_COUNT(&db->filter_bytes, x->filter_bytes);
    return x;
}

/* The first block whose index key is not below `key`; count: the key is behind the table. */
KVI_PRIVATE uint32_t kvi_lsm_index_find(const kvi_lsm_index *x, kv_slice key)
{
    uint32_t low = 0, high;
    kv_slice tail;
    if (KVI_LSM_QUICK) {
        uint64_t head = kvi_lsm_head_after(x->prefix, key.data, key.size);
        uint32_t count = x->count;
        while (count > 1) {                                 /* the first head that is not below, without branches */
            uint32_t half = count / 2;
            low += x->heads[low + half - 1] < head ? half : 0;
            count -= half;
        }
        if (x->heads[low] < head) return low + 1;
        if (x->heads[low] > head) return low;
    }
    if (!kv_has_prefix(key, x->prefix)) return kvi_compare(key, x->prefix) < 0 ? 0 : x->count;
    tail = kvi_lsm_slice_from(key, x->prefix.size);
    high = x->count;
    while (low < high) {                                    /* heads that are equal: by the whole key */
        uint32_t middle = low + (high - low) / 2, from;
        from = middle ? x->key_ends[middle - 1] : 0;
        if (kvi_compare_bytes(x->keys + from, x->key_ends[middle] - from, tail.data, tail.size) < 0) low = middle + 1; else high = middle;
    }
    return low;
}

/* What a blocked Bloom filter says; hash is that of the key. Each probe is one bit of one line. */
KVI_INLINE bool kvi_lsm_filter_has(const uint8_t *lines, uint32_t line_count, uint32_t probes, uint64_t hash)
{
    const uint8_t *line = lines + (size_t)kvi_shard(hash, line_count) * 64;
    uint32_t       h = (uint32_t)hash;
    for (uint32_t i = 0; i < probes; i++) {
        uint32_t bit = h >> 23;                             /* 0 .. 511 */
        if (!(line[bit / 8] >> (bit % 8) & 1)) return false;
        h *= 0x9E3779B9u;
    }
    return true;
}
KVI_INLINE void kvi_lsm_filter_add(uint8_t *lines, uint32_t line_count, uint32_t probes, uint64_t hash)
{
    uint8_t *line = lines + (size_t)kvi_shard(hash, line_count) * 64;
    uint32_t h = (uint32_t)hash;
    for (uint32_t i = 0; i < probes; i++) {
        uint32_t bit = h >> 23;
        line[bit / 8] = (uint8_t)(line[bit / 8] | 1u << (bit % 8));
        h *= 0x9E3779B9u;
    }
}

/* May a key with this hash be in the table? Counted, but not to the last one: no reader waits for another. */
KVI_INLINE bool kvi_lsm_index_perhaps(kv_lsm *db, const kvi_lsm_index *x, uint64_t hash)
{
    bool      perhaps = !KVI_LSM_FILTER || !x->filter || kvi_lsm_filter_has(x->filter, x->filter_lines, x->filter_probes, hash);
    uint64_t *count = perhaps ? &db->filter_misses : &db->filter_hits;
    if (KVI_LSM_STATS && x->filter) kvi_poke_u64(count, kvi_peek_u64(count) + 1);
    return perhaps;
}

/* Read footer, filter and index and check them. A filter that fails its check is left out: without
   it reads are right, only slower. */
KVI_PRIVATE kv_status kvi_lsm_table_read_index(kv_lsm *db, kvi_lsm_table *t, kv_file *file, uint64_t file_size, kvi_lsm_index **index)
{
    uint64_t             seed = kvi_lsm_seed(db->id, t->number, KVI_LSM_TABLE), start;
    uint8_t              footer[KVI_LSM_FOOTER_SIZE], *memory;
    kvi_lsm_footer       f;
    kvi_lsm_block_header h;
    kvi_lsm_index_raw    raw;
    const uint8_t       *filter = NULL, *block;
    size_t               size, filter_size = 0;
    kv_status            s;
    memset(&f, 0, sizeof f);
    if (file_size < KVI_LSM_HEADER_SIZE + KVI_LSM_FOOTER_SIZE) return KV_ERR_CORRUPT;
    s = kvi_lsm_read_at(db, file, file_size - sizeof footer, footer, sizeof footer);
    if (s == KV_OK) s = kvi_lsm_footer_decode(footer, seed, file_size, &f);
    if (s < 0) return s;
    start = f.filter ? f.filter : f.index;
    size = (size_t)(f.properties - start);
    memory = (uint8_t *)kvi_alloc(&db->options.allocator, size);
    if (!memory) return KV_ERR_NO_MEMORY;
    s = kvi_lsm_read_at(db, file, start, memory, size);
    if (KVI_LSM_FILTER && s == KV_OK && f.filter && kvi_lsm_block_verify(memory, f.filter_size, seed + f.filter, KVI_LSM_BLOCK_FILTER, true, &h) && h.raw_size >= 8 + 64) {
        filter = memory + KVI_LSM_BLOCK_SIZE;
        filter_size = h.raw_size;
        if (kvi_load_le32(filter) > 32 || (uint64_t)kvi_load_le32(filter + 4) * 64 + 8 != filter_size) filter = NULL;
    }
    if (KVI_LSM_FILTER && s == KV_OK && f.filter && !filter) kvi_lsm_note(db, KV_ERR_CORRUPT, "a table's filter is damaged and is not used");
    block = memory + f.filter_size;
    if (s == KV_OK && !kvi_lsm_block_verify(block, f.index_size, seed + f.index, KVI_LSM_BLOCK_INDEX, true, &h)) s = KV_ERR_CORRUPT;
    if (s == KV_OK && !kvi_lsm_index_over(&raw, block + KVI_LSM_BLOCK_SIZE, h.raw_size, start - KVI_LSM_HEADER_SIZE)) s = KV_ERR_CORRUPT;
    if (s == KV_OK) {
        *index = kvi_lsm_index_new(db, &raw, filter, filter_size, KVI_LSM_MAPS && db->options.map_tables && db->io->map);
        if (!*index) s = KV_ERR_NO_MEMORY;
    }
    kvi_free(&db->options.allocator, memory, size);
    return s;
}

/* The index, loaded by whoever needs it first. */
KVI_PRIVATE kv_status kvi_lsm_table_load(kv_lsm *db, kvi_lsm_table *t, const kvi_lsm_index **index)     /* t: its home */
{
    kvi_lsm_index *x = NULL;
    kv_file       *file;
    uint64_t       size = 0;
    kv_status      s = kvi_lsm_table_file(db, t, &file);
    if (s < 0) return s;
    s = db->io->size(db->io->user, file, &size);
    if (s == KV_OK && size != t->size) s = KV_ERR_CORRUPT;
    if (s == KV_OK) s = kvi_lsm_table_read_index(db, t, file, size, &x);
    if (KVI_LSM_MAPS && s == KV_OK && x->verified) {
        const void *map;
        if (size <= SIZE_MAX && db->io->map(db->io->user, file, (size_t)size, &map) == KV_OK) x->map = (const uint8_t *)map;
        else x->verified = NULL;                            /* read, then */
    }
    kvi_lsm_table_file_done(db, t);
    if (s < 0) return s == KV_ERR_NO_MEMORY ? kvi_lsm_no_memory(db) : kvi_lsm_fail_file(db, s, "cannot read the table's index", KVI_LSM_TABLE, t->number, KVI_LSM_NO_SEQUENCE);
    if (!kvi_cas_ptr((kvi_pointer *)(void *)&t->index, NULL, x)) kvi_lsm_index_free(db, x, (size_t)t->size);
    *index = (const kvi_lsm_index *)kvi_load_ptr((const kvi_pointer *)(void *)&t->index);
    return KV_OK;
}
KVI_INLINE kv_status kvi_lsm_table_index(kv_lsm *db, kvi_lsm_table *t, const kvi_lsm_index **index)
{
    t = t->home;
    *index = (const kvi_lsm_index *)kvi_load_ptr((const kvi_pointer *)(void *)&t->index);
    return KVI_LIKELY(*index != NULL) ? KV_OK : kvi_lsm_table_load(db, t, index);
}

KVI_PRIVATE kv_status kvi_lsm_block_bad(kv_lsm *db, const kvi_lsm_table *t, uint64_t offset)
{
    return kvi_lsm_fail_file(db, KV_ERR_CORRUPT, "a block is damaged", KVI_LSM_TABLE, t->number, offset);
}

enum { KVI_LSM_PLAIN = 0, KVI_LSM_WITH_HEADS = 1, KVI_LSM_WITH_BUCKETS = 2 };     /* what to make for the search */

/* Lay out the block whose bytes lie at `raw`, behind it, with room for heads where `help` wants them. */
KVI_PRIVATE bool kvi_lsm_block_lay_out(const kv_lsm *db, const kvi_lsm_table *t, uint64_t offset, const kvi_lsm_block_header *h, uint8_t *raw, size_t memory, int help, kvi_lsm_block *b)
{
    if (!kvi_lsm_page_over(&b->page, raw, h->raw_size) || (b->page.count > 65535 ? 0 : b->page.count) != h->count || !kvi_lsm_page_valid(&b->page)) return false;
    if (help && h->count) kvi_lsm_page_make_heads(&b->page, raw + h->raw_size, db->hash_seed, help == KVI_LSM_WITH_BUCKETS);
    b->memory_bytes = memory;
    b->refs = 1;
    b->recent = 0;
    b->file = t->number;
    b->offset = offset;
    return true;
}
/* A block from its packed bytes: checked, unpacked and laid out. */
KVI_PRIVATE kv_status kvi_lsm_block_make(kv_lsm *db, const kvi_lsm_table *t, uint64_t offset, const uint8_t *packed, size_t size, int help, kvi_lsm_block **block)
{
    uint64_t             seed = kvi_lsm_seed(db->id, t->number, KVI_LSM_TABLE) + offset;
    kvi_lsm_block_header h;
    kvi_lsm_block       *b;
    uint8_t             *raw;
    size_t               memory;
    kv_status            s;
    if (!kvi_lsm_block_verify(packed, size, seed, KVI_LSM_BLOCK_DATA, !db->options.skip_verify, &h)) return kvi_lsm_block_bad(db, t, offset);
    if (h.codec == KV_CODEC_NONE && h.raw_size > 14 && (packed[KVI_LSM_BLOCK_SIZE + 14] & KVI_LSM_HEADS)) help = KVI_LSM_PLAIN;
    memory = sizeof *b + h.raw_size + (help ? kvi_lsm_heads_size(h.count) : 0);
    b = (kvi_lsm_block *)kvi_alloc(&db->options.allocator, memory);
    if (!b) return kvi_lsm_no_memory(db);
    raw = (uint8_t *)(b + 1);
    if (KVI_LSM_CODECS) s = kv_codec_unpack(db->compressor, (kv_codec)h.codec, kv_bytes(packed + KVI_LSM_BLOCK_SIZE, h.packed_size), raw, h.raw_size);
    else {
        s = h.codec == KV_CODEC_NONE ? KV_OK : KV_ERR_UNSUPPORTED;
        if (s == KV_OK) kvi_copy(raw, packed + KVI_LSM_BLOCK_SIZE, h.raw_size);     /* packed_size is the same */
    }
    if (s == KV_OK && kvi_lsm_block_lay_out(db, t, offset, &h, raw, memory, help, b)) { *block = b; return KV_OK; }
    kvi_free(&db->options.allocator, b, memory);
    if (s == KV_ERR_NO_MEMORY) return kvi_lsm_no_memory(db);
    if (s == KV_ERR_UNSUPPORTED) return kvi_lsm_fail_file(db, s, kv_codec_name((kv_codec)h.codec), KVI_LSM_TABLE, t->number, offset);
    return kvi_lsm_block_bad(db, t, offset);
}
/* A block that was read to where it may stay: behind `b`, which is kept where nothing has to be unpacked
   or made, and is given up otherwise, and on a failure. */
KVI_PRIVATE kv_status kvi_lsm_block_keep(kv_lsm *db, const kvi_lsm_table *t, uint64_t offset, kvi_lsm_block *b, size_t size, int help, kvi_lsm_block **block)
{
    uint8_t             *packed = (uint8_t *)(b + 1);
    kvi_lsm_block_header h;
    kv_status            s = KV_OK;
    if (size > KVI_LSM_BLOCK_SIZE + 14 && packed[17] == KV_CODEC_NONE && (!help || (packed[KVI_LSM_BLOCK_SIZE + 14] & KVI_LSM_HEADS))) {
        uint64_t seed = kvi_lsm_seed(db->id, t->number, KVI_LSM_TABLE) + offset;
        if (kvi_lsm_block_verify(packed, size, seed, KVI_LSM_BLOCK_DATA, !db->options.skip_verify, &h)
            && kvi_lsm_block_lay_out(db, t, offset, &h, packed + KVI_LSM_BLOCK_SIZE, sizeof *b + size, KVI_LSM_PLAIN, b)) { *block = b; return KV_OK; }
        s = kvi_lsm_block_bad(db, t, offset);
    } else s = kvi_lsm_block_make(db, t, offset, packed, size, help, block);
    kvi_free(&db->options.allocator, b, sizeof *b + size);
    return s;
}

#define KVI_LSM_SCRATCH (KVI_SMALL ? 1u : 4096u)    /* packed blocks up to this are read to the stack; where code is to be small, so is that: none */

/* Read block `i` of the table from its file: to the stack where it is small and is to be unpacked, else
   straight to where it stays. */
KVI_PRIVATE kv_status kvi_lsm_block_read(kv_lsm *db, kvi_lsm_table *t, const kvi_lsm_index *x, uint32_t i, int help, kvi_lsm_block **block)
{
    uint64_t       offset = x->offsets[i];
    size_t         size = (size_t)(x->offsets[i + 1] - offset);
    uint8_t        scratch[KVI_LSM_SCRATCH], *memory = scratch;
    kvi_lsm_block *b = NULL;
    kv_file       *file = NULL;
    kv_status      s;
    if (KVI_LSM_MAPS && x->map) return kvi_lsm_block_make(db, t, offset, x->map + offset, size, help, block);
    if (KVI_SMALL || size > sizeof scratch || db->options.codec == KV_CODEC_NONE) {
        b = (kvi_lsm_block *)kvi_alloc(&db->options.allocator, sizeof *b + size);
        if (!b) return kvi_lsm_no_memory(db);
        memory = (uint8_t *)(b + 1);
    }
    s = kvi_lsm_table_file(db, t->home, &file);
    if (s == KV_OK) {
        s = kvi_lsm_read_at(db, file, offset, memory, size);
        if (s < 0) (void)kvi_lsm_fail_file(db, s, "cannot read a block", KVI_LSM_TABLE, t->number, offset);
        kvi_lsm_table_file_done(db, t->home);
    }
    if (s < 0) { if (b) kvi_free(&db->options.allocator, b, sizeof *b + size); return s; }
    return KVI_SMALL || b ? kvi_lsm_block_keep(db, t, offset, b, size, help, block) : kvi_lsm_block_make(db, t, offset, memory, size, help, block);
}

/* A block to look at: from the map where it lies there as it is searched, from the cache, or read.
   *block is the reference to give back, or NULL; *page is it, or `own`, filled in. */
KVI_PRIVATE kv_status kvi_lsm_page_get(kv_lsm *db, kvi_lsm_table *t, const kvi_lsm_index *x, uint32_t i, int help, bool keep,
                                       kvi_lsm_page *own, kvi_lsm_block **block, const kvi_lsm_page **page)
{
    uint64_t  offset = x->offsets[i];
    kv_status s;
    bool      stays = false;
    *block = NULL;
    if (!KVI_LSM_QUICK) help = KVI_LSM_PLAIN;
    if (KVI_LSM_MAPS && x->map && x->map[offset + 17] == KV_CODEC_NONE) {
        const uint8_t *at = x->map + offset;
        size_t         size = (size_t)(x->offsets[i + 1] - offset);
        *page = own;
        if (KVI_LIKELY(kvi_peek_u32(&x->verified[i / 32]) >> (i % 32) & 1)) { (void)kvi_lsm_page_over(own, at + KVI_LSM_BLOCK_SIZE, size - KVI_LSM_BLOCK_SIZE); return KV_OK; }
        {
            kvi_lsm_block_header h;
            uint64_t             seed = kvi_lsm_seed(db->id, t->number, KVI_LSM_TABLE) + offset;
            if (!kvi_lsm_block_verify(at, size, seed, KVI_LSM_BLOCK_DATA, !db->options.skip_verify, &h)
                || !kvi_lsm_page_over(own, at + KVI_LSM_BLOCK_SIZE, h.raw_size) || !kvi_lsm_page_valid(own)) return kvi_lsm_block_bad(db, t, offset);
            kvi_or_u32(&x->verified[i / 32], UINT32_C(1) << (i % 32));
        }
        return KV_OK;
    }
    *block = kvi_lsm_cache_find(db, t->number, offset, help == KVI_LSM_WITH_BUCKETS ? &stays : NULL);
    if (!*block) {
        if (help == KVI_LSM_WITH_BUCKETS && !stays) help = db->shards ? KVI_LSM_WITH_HEADS : KVI_LSM_PLAIN;
        s = kvi_lsm_block_read(db, t, x, i, help, block);
        if (s < 0) return s;
        if (keep) kvi_lsm_cache_put(db, *block);
    }
    *page = &(*block)->page;
    return KV_OK;
}

/* ---- the life of a table in memory ---- */

KVI_PRIVATE void kvi_lsm_table_release(kv_lsm *db, kvi_lsm_table *t)
{
    if (kvi_sub_u32(&t->refs, 1) != 1) return;
    if (t->home != t) {                                     /* moved: what became of it becomes of its home, which goes next */
        kvi_lsm_table *home = t->home;
        if (t->obsolete) home->obsolete = true;
        if (KVI_LSM_STATS) kvi_sub_u64(&db->memory_bytes_tables, t->memory_bytes);
        kvi_free(&db->options.allocator, t, t->memory_bytes);
        if (kvi_sub_u32(&home->refs, 1) != 1) return;
        t = home;
    }
    kvi_mutex_lock(&db->files);
    if (t->file) {
        for (uint32_t i = 0; i < db->open_files; i++)
            if (db->open_tables[i] == t) { db->open_tables[i] = db->open_tables[--db->open_files]; break; }
        (void)db->io->close(db->io->user, t->file);
    }
    kvi_mutex_unlock(&db->files);
    kvi_lsm_index_free(db, t->index, (size_t)t->size);
    if (t->obsolete) kvi_lsm_remove_file(db, KVI_LSM_TABLE, t->number);
    if (KVI_LSM_STATS) kvi_sub_u64(&db->memory_bytes_tables, t->memory_bytes);
    kvi_free(&db->options.allocator, t, t->memory_bytes);
}
KVI_PRIVATE kvi_lsm_table *kvi_lsm_table_new(kv_lsm *db, const kvi_lsm_table *like, kv_slice smallest, kv_slice largest)
{
    size_t         size = sizeof(kvi_lsm_table) + smallest.size + largest.size;
    kvi_lsm_table *t = (kvi_lsm_table *)kvi_alloc(&db->options.allocator, size);
    uint8_t       *keys;
    if (!t) return NULL;
    keys = (uint8_t *)(t + 1);
    *t = *like;
    t->refs = 1;
    t->home = t;
    t->memory_bytes = size;
    kvi_copy(keys, smallest.data, smallest.size);
    kvi_copy(keys + smallest.size, largest.data, largest.size);
    t->smallest = kv_bytes(keys, smallest.size);
    t->largest = kv_bytes(keys + smallest.size, largest.size);
    if (KVI_LSM_QUICK) {
        t->smallest_head = kvi_lsm_head(smallest.data, smallest.size);
        t->largest_head = kvi_lsm_head(largest.data, largest.size);
    }
    KVI_LSM_COUNT(&db->memory_bytes_tables, size);
    return t;
}

/* ---- building a table ---- */

typedef struct kvi_lsm_builder {
    kv_lsm  *db;
    kv_file *file;
    uint64_t number, seed, offset;          /* offset: of the next block, what is in `out` included */
    kvi_lsm_page_builder page;
    kv_buf   raw, out;                      /* a block's bytes; what waits to be written */
    kv_buf   index_keys, index_columns;     /* key end and block size, u32 each */
    uint32_t index_count;
    kv_buf   hashes;                        /* u64 a key, for the filter */
    kv_buf   smallest, largest;             /* largest: the last key added */
    kvi_lsm_table made;                     /* its figures */
    bool     any;
} kvi_lsm_builder;

KVI_PRIVATE void kvi_lsm_builder_free(kvi_lsm_builder *b)
{
    kv_buf_free(&b->page.keys);    kv_buf_free(&b->page.values);   kv_buf_free(&b->page.columns);
    kv_buf_free(&b->raw);          kv_buf_free(&b->out);           kv_buf_free(&b->index_keys);
    kv_buf_free(&b->index_columns); kv_buf_free(&b->hashes);       kv_buf_free(&b->smallest);      kv_buf_free(&b->largest);
}
KVI_PRIVATE void kvi_lsm_builder_init(kvi_lsm_builder *b, kv_lsm *db)
{
    memset(b, 0, sizeof *b);
    b->db = db;
    b->page.keys.allocator = b->page.values.allocator = b->page.columns.allocator = b->raw.allocator = b->out.allocator
        = b->index_keys.allocator = b->index_columns.allocator = b->hashes.allocator = b->smallest.allocator = b->largest.allocator
        = db->options.allocator;
}

KVI_PRIVATE kv_status kvi_lsm_builder_write(kvi_lsm_builder *b)     /* what waits in `out` */
{
    kv_status s = b->out.size ? b->db->io->append(b->db->io->user, b->file, b->out.data, b->out.size) : KV_OK;
    if (s < 0) return kvi_lsm_fail_file(b->db, s, "cannot write", KVI_LSM_TABLE, b->number, b->offset - b->out.size);
    KVI_LSM_COUNT(&b->db->written, b->out.size);
    b->out.size = 0;
    if (b->out.capacity > 4u << 20) kv_buf_free(&b->out);
    return KV_OK;
}

/* Begin the file. On failure nothing of it is left. */
KVI_PRIVATE kv_status kvi_lsm_builder_begin(kvi_lsm_builder *b, uint32_t level, uint64_t age)
{
    kv_lsm   *db = b->db;
    uint8_t   header[KVI_LSM_HEADER_SIZE];
    kv_status s;
    b->number = kvi_lsm_new_number(db);
    b->seed = kvi_lsm_seed(db->id, b->number, KVI_LSM_TABLE);
    b->index_keys.size = b->index_columns.size = b->hashes.size = b->out.size = 0;
    b->index_count = 0;
    b->any = false;
    kvi_lsm_builder_clear(&b->page);
    memset(&b->made, 0, sizeof b->made);
    b->made.number = b->number;
    b->made.level = (uint8_t)level;
    b->made.age = age;
    b->made.first_sequence = UINT64_MAX;
    kvi_lsm_header_encode(header, KVI_LSM_TABLE, 0, db->id, b->number, level, 0);
    if (kv_buf_append(&b->out, kv_bytes(header, sizeof header)) < 0) return kvi_lsm_no_memory(db);
    s = kvi_lsm_create_file(db, KVI_LSM_TABLE, b->number, &b->file);
    if (s < 0) { b->file = NULL; return s; }
    b->offset = sizeof header;
    return KV_OK;
}

/* Append a block to `out`: packed, if that makes it smaller, and with its checks. */
KVI_PRIVATE kv_status kvi_lsm_builder_block(kvi_lsm_builder *b, uint8_t type, kv_slice raw, uint32_t count, uint32_t *size)
{
    kv_lsm   *db = b->db;
    uint8_t  *at;
    size_t    packed = 0;
    kv_codec  codec = KV_CODEC_NONE;
    kv_status s;
    if (b->out.size && b->out.size + raw.size + KVI_LSM_BLOCK_SIZE > KVI_LSM_OUT_BYTES) {
        s = kvi_lsm_builder_write(b);
        if (s < 0) return s;
    }
    if (kvi_lsm_builder_more(&b->out, KVI_LSM_BLOCK_SIZE + raw.size) < 0) return kvi_lsm_no_memory(db);
    at = (uint8_t *)b->out.data + b->out.size;
    if (KVI_LSM_CODECS && type == KVI_LSM_BLOCK_DATA && db->options.codec != KV_CODEC_NONE && raw.size > 64 && raw.size <= KV_VALUE_SIZE_MAX) {
        s = kv_codec_pack(db->compressor, raw, at + KVI_LSM_BLOCK_SIZE, raw.size - raw.size / 16, &packed);
        if (s == KV_OK) codec = db->options.codec;
        else if (s != KV_ERR_TOO_LARGE) return kvi_lsm_error(db, s, NULL);
    }
    if (codec == KV_CODEC_NONE) { kvi_copy(at + KVI_LSM_BLOCK_SIZE, raw.data, raw.size); packed = raw.size; }
    kvi_store_le32(at + 4, kvi_checksum(at + KVI_LSM_BLOCK_SIZE, packed, b->seed + b->offset));
    kvi_store_le32(at + 8, (uint32_t)packed);
    kvi_store_le32(at + 12, (uint32_t)raw.size);
    at[16] = type;
    at[17] = (uint8_t)codec;
    kvi_store_le16(at + 18, (uint16_t)(count > 65535 ? 0 : count));
    kvi_store_le32(at, kvi_checksum(at + 4, KVI_LSM_BLOCK_SIZE - 4, b->seed + b->offset));
    *size = (uint32_t)packed + KVI_LSM_BLOCK_SIZE;
    b->out.size += *size;
    b->offset += *size;
    return KV_OK;
}

/* The shortest key that is not below `low` and below `high`; its size, as a prefix of low, with its
   last byte raised where *raise is set. low < high. */
KVI_PRIVATE size_t kvi_lsm_separator(kv_slice low, kv_slice high, bool *raise)
{
    size_t         both = low.size < high.size ? low.size : high.size, same = kvi_common_prefix(low.data, high.data, both);
    const uint8_t *a = (const uint8_t *)low.data, *c = (const uint8_t *)high.data;
    *raise = false;
    if (same < both && a[same] < 255 && a[same] + 1 < c[same]) { *raise = true; return same + 1; }
    return low.size;
}

/* End the data block; `next` is the key behind it, or NULL at the end of the table. */
KVI_PRIVATE kv_status kvi_lsm_builder_end_block(kvi_lsm_builder *b, const kv_slice *next)
{
    kv_lsm   *db = b->db;
    kv_slice  last = kvi_lsm_builder_key(&b->page, b->page.count - 1);
    uint32_t  size, column[2];
    bool      raise = false;
    size_t    key_size = last.size;
    kv_status s;
    if (next) {
        if (kvi_compare(last, *next) == 0) b->page.repeats = true;
        else key_size = kvi_lsm_separator(last, *next, &raise);
    }
    if (b->index_keys.size + key_size + b->index_columns.size > KVI_LSM_BLOCK_MAX - KV_KEY_SIZE_MAX - 64)
        return kvi_lsm_error(db, KV_ERR_TOO_LARGE, "a table's index is over its limit");     /* it could not be read back */
    if (kvi_lsm_builder_more(&b->index_keys, key_size) < 0 || kvi_lsm_builder_more(&b->index_columns, sizeof column) < 0) return kvi_lsm_no_memory(db);
    if (kvi_lsm_builder_finish(&b->page, db->options.codec == KV_CODEC_NONE, db->hash_seed, &b->raw) < 0) return kvi_lsm_no_memory(db);
    kvi_lsm_builder_trim(&b->page);
    s = kvi_lsm_builder_block(b, KVI_LSM_BLOCK_DATA, kv_buf_slice(&b->raw), b->page.count, &size);
    if (s < 0) return s;
    kvi_copy((uint8_t *)b->index_keys.data + b->index_keys.size, last.data, key_size);
    b->index_keys.size += key_size;
    if (raise) ((uint8_t *)b->index_keys.data)[b->index_keys.size - 1]++;
    column[0] = (uint32_t)b->index_keys.size;
    column[1] = size;
    memcpy((uint8_t *)b->index_columns.data + b->index_columns.size, column, sizeof column);
    b->index_columns.size += sizeof column;
    b->index_count++;
    if (b->raw.capacity > 8u << 20) kv_buf_free(&b->raw);
    kvi_lsm_builder_clear(&b->page);
    return KV_OK;
}

/* Add an entry. They come in order: those of a table whose checks are right and whose entries are not,
   or that nobody verified, end here. written_sequence: what the file says (0 where nothing older can be
   anywhere), sequence: what it was. */
KVI_PRIVATE kv_status kvi_lsm_builder_put(kvi_lsm_builder *b, kv_slice key, uint64_t sequence, uint64_t written_sequence, bool deleted, kv_slice value)
{
    kv_lsm   *db = b->db;
    int       order = b->any ? kvi_compare(kv_buf_slice(&b->largest), key) : -1;
    bool      repeat = order == 0;
    kv_status s;
    if (order > 0) return kvi_lsm_fail(db, KV_ERR_CORRUPT, "the entries of a table are out of order: behind a greater one comes", key);
    if (b->page.count && kvi_lsm_builder_size(&b->page) + key.size + value.size > db->options.block_bytes) {
        s = kvi_lsm_builder_end_block(b, &key);
        if (s < 0) return s;
    }
    if (b->page.count && repeat) b->page.repeats = true;
    if (kvi_lsm_builder_add(&b->page, key, written_sequence, deleted, value) < 0) return kvi_lsm_no_memory(db);
    if (!b->any && kv_buf_assign(&b->smallest, key) < 0) return kvi_lsm_no_memory(db);
    if (!repeat) {
        if (kv_buf_assign(&b->largest, key) < 0) return kvi_lsm_no_memory(db);
        if (KVI_LSM_FILTER && db->filter_bits_x16) {
            uint64_t hash = kvi_hash(key.data, key.size, db->hash_seed);
            if (kvi_lsm_builder_more(&b->hashes, sizeof hash) < 0) return kvi_lsm_no_memory(db);
            memcpy((uint8_t *)b->hashes.data + b->hashes.size, &hash, sizeof hash);
            b->hashes.size += sizeof hash;
        }
    }
    b->any = true;
    b->made.entries++;
    if (deleted) b->made.tombstones++;
    b->made.key_bytes += key.size;
    b->made.value_bytes += value.size;
    if (sequence < b->made.first_sequence) b->made.first_sequence = sequence;
    if (sequence > b->made.last_sequence) b->made.last_sequence = sequence;
    return KV_OK;
}
/* Is the table as large as it may be? In bytes of the file, where `cut` is not 0, and of its index. */
KVI_PRIVATE bool kvi_lsm_builder_full(const kvi_lsm_builder *b, uint64_t cut)
{
    if (cut && b->offset + kvi_lsm_builder_size(&b->page) / 2 >= cut) return true;      /* if it ended here: half of what waits is left by the codec */
    return b->index_keys.size + b->index_columns.size >= KVI_LSM_INDEX_BYTES;
}

KVI_PRIVATE kv_status kvi_lsm_builder_filter(kvi_lsm_builder *b, uint32_t *size)
{
    kv_lsm  *db = b->db;
    uint64_t count = b->hashes.size / sizeof(uint64_t), lines = (count * db->filter_bits_x16 / 16 + 511) / 512;
    size_t   bytes = (size_t)lines * 64 + 8;
    *size = 0;
    if (!KVI_LSM_FILTER || !db->filter_bits_x16 || lines > 8u << 20) return KV_OK;
    b->raw.size = 0;
    if (kv_buf_reserve(&b->raw, bytes) < 0) return kvi_lsm_no_memory(db);
    memset(b->raw.data, 0, bytes);
    kvi_store_le32(b->raw.data, db->filter_probes);
    kvi_store_le32((uint8_t *)b->raw.data + 4, (uint32_t)lines);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t hash;
        memcpy(&hash, (const uint8_t *)b->hashes.data + i * sizeof hash, sizeof hash);
        kvi_lsm_filter_add((uint8_t *)b->raw.data + 8, (uint32_t)lines, db->filter_probes, hash);
    }
    return kvi_lsm_builder_block(b, KVI_LSM_BLOCK_FILTER, kv_bytes(b->raw.data, bytes), 0, size);
}
KVI_PRIVATE kv_status kvi_lsm_builder_index(kvi_lsm_builder *b, uint32_t *size)
{
    const uint8_t *keys = (const uint8_t *)b->index_keys.data;
    uint32_t       columns[2], before = 0, prefix, first_size, last_from = 0;
    size_t         bytes;
    uint8_t       *at, *sizes, *tails;
    memcpy(columns, b->index_columns.data, sizeof columns);
    first_size = columns[0];
    if (b->index_count > 1) { memcpy(columns, (const uint8_t *)b->index_columns.data + (b->index_count - 2) * sizeof columns, sizeof columns); last_from = columns[0]; }
    prefix = (uint32_t)b->index_keys.size - last_from;
    prefix = (uint32_t)kvi_common_prefix(keys, keys + last_from, first_size < prefix ? first_size : prefix);
    bytes = 12 + (size_t)prefix + (size_t)b->index_count * 8 + b->index_keys.size - (size_t)prefix * b->index_count;
    b->raw.size = 0;
    if (kv_buf_reserve(&b->raw, bytes) < 0) return kvi_lsm_no_memory(b->db);
    at = (uint8_t *)b->raw.data;
    kvi_store_le32(at, b->index_count);
    kvi_store_le32(at + 4, (uint32_t)(b->index_keys.size - (size_t)prefix * b->index_count));
    kvi_store_le32(at + 8, prefix);
    kvi_copy(at + 12, keys, prefix);
    at += 12 + prefix;
    sizes = at + (size_t)b->index_count * 4;
    tails = sizes + (size_t)b->index_count * 4;
    for (uint32_t i = 0; i < b->index_count; i++) {
        memcpy(columns, (const uint8_t *)b->index_columns.data + i * sizeof columns, sizeof columns);
        kvi_copy(tails, keys + before + prefix, columns[0] - before - prefix);
        tails += columns[0] - before - prefix;
        before = columns[0];
        kvi_store_le32(at + (size_t)i * 4, columns[0] - (i + 1) * prefix);
        kvi_store_le32(sizes + (size_t)i * 4, columns[1]);
    }
    return kvi_lsm_builder_block(b, KVI_LSM_BLOCK_INDEX, kv_bytes(b->raw.data, bytes), 0, size);
}

KVI_PRIVATE kv_status kvi_lsm_put_table(kv_lsm *db, kv_buf *out, const kvi_lsm_table *t);

/* End the file: last block, filter, index, properties, footer; sync it. `extra`: more properties. */
KVI_PRIVATE kv_status kvi_lsm_builder_end(kvi_lsm_builder *b, kv_slice extra, kvi_lsm_table **table)
{
    kv_lsm   *db = b->db;
    uint8_t   footer[KVI_LSM_FOOTER_SIZE];
    uint64_t  filter_at, index_at, properties_at;
    uint32_t  filter_size, index_size, properties_size;
    kv_status s = KV_OK;
    KV_ASSERT(b->any);
    if (b->page.count) s = kvi_lsm_builder_end_block(b, NULL);
    filter_at = b->offset;
    if (s == KV_OK) s = kvi_lsm_builder_filter(b, &filter_size);
    index_at = b->offset;
    if (s == KV_OK) s = kvi_lsm_builder_index(b, &index_size);
    properties_at = b->offset;
    if (s < 0) return s;
    b->made.smallest = kv_buf_slice(&b->smallest);
    b->made.largest = kv_buf_slice(&b->largest);
    b->raw.size = 0;
    if (kvi_lsm_put_table(db, &b->raw, &b->made) < 0 || kv_buf_append(&b->raw, extra) < 0) return kvi_lsm_no_memory(db);
    s = kvi_lsm_builder_block(b, KVI_LSM_BLOCK_PROPERTIES, kv_buf_slice(&b->raw), 0, &properties_size);
    if (s < 0) return s;
    memset(footer, 0, sizeof footer);
    kvi_store_le64(footer, properties_at);
    kvi_store_le64(footer + 8, index_at);
    kvi_store_le64(footer + 16, filter_size ? filter_at : 0);
    kvi_store_le32(footer + 24, properties_size);
    kvi_store_le32(footer + 28, index_size);
    kvi_store_le32(footer + 32, filter_size);
    kvi_store_le32(footer + 36, KVI_LSM_FORMAT);
    memcpy(footer + 40, kvi_lsm_magic[KVI_LSM_TABLE], 8);
    kvi_store_le64(footer + 48, b->number);
    kvi_store_le64(footer + 56, kvi_hash(footer, 56, b->seed + b->offset));
    if (kv_buf_append(&b->out, kv_bytes(footer, sizeof footer)) < 0) return kvi_lsm_no_memory(db);
    b->offset += sizeof footer;
    s = kvi_lsm_builder_write(b);
    if (s < 0) return s;
    if (!KVI_MUTANT(KVI_MUTANT_TABLE_DATA)) {
        s = kvi_lsm_sync_file(db, b->file);
        if (s < 0) { kvi_lsm_poison(db, kvi_lsm_fail_file(db, s, "cannot sync", KVI_LSM_TABLE, b->number, KVI_LSM_NO_SEQUENCE)); return s; }
    }
    b->made.size = b->offset;
    *table = kvi_lsm_table_new(db, &b->made, b->made.smallest, b->made.largest);
    if (!*table) return kvi_lsm_no_memory(db);
    (void)db->io->close(db->io->user, b->file);
    b->file = NULL;
    return KV_OK;
}
/* Give up the file that was begun, if one was. */
KVI_PRIVATE void kvi_lsm_builder_abandon(kvi_lsm_builder *b)
{
    if (!b->file) return;
    (void)b->db->io->close(b->db->io->user, b->file);
    b->file = NULL;
    kvi_lsm_remove_file(b->db, KVI_LSM_TABLE, b->number);
}

/* ------------------------------------------------------------------------------------------------
   >>version   which tables there are, as one value that never changes; views; the read-only states

   Invariant V1: in a run keys ascend over its tables and no key is in two of them.
   Invariant V2: for one key, what is in an earlier run of a level, or in an earlier level, is newer. */

KVI_PRIVATE void kvi_lsm_version_release(kv_lsm *db, kvi_lsm_version *v)
{
    if (!v || kvi_sub_u32(&v->refs, 1) != 1) return;
    for (uint32_t i = 0; i < v->count; i++) kvi_lsm_table_release(db, v->tables[i]);
    kvi_free(&db->options.allocator, v, v->memory_bytes);
}

KVI_PRIVATE int kvi_lsm_table_order(const kvi_lsm_table *a, const kvi_lsm_table *b)
{
    if (a->level != b->level) return a->level < b->level ? -1 : 1;
    if (a->age != b->age) return a->age > b->age ? -1 : 1;
    return kvi_compare(a->smallest, b->smallest);
}
/* Sort table pointers: heap sort, no recursion, no memory. */
KVI_PRIVATE void kvi_lsm_sift(kvi_lsm_table **t, size_t i, size_t count)
{
    for (;;) {
        size_t child = 2 * i + 1;
        kvi_lsm_table *swap;
        if (child >= count) return;
        if (child + 1 < count && kvi_lsm_table_order(t[child], t[child + 1]) < 0) child++;
        if (kvi_lsm_table_order(t[i], t[child]) >= 0) return;
        swap = t[i]; t[i] = t[child]; t[child] = swap;
        i = child;
    }
}
KVI_PRIVATE void kvi_lsm_sort_tables(kvi_lsm_table **t, size_t count)
{
    for (size_t i = count / 2; i-- > 0;) kvi_lsm_sift(t, i, count);
    for (size_t i = count; i-- > 1;) {
        kvi_lsm_table *swap = t[0];
        t[0] = t[i]; t[i] = swap;
        kvi_lsm_sift(t, 0, i);
    }
}

/* A version of these tables; takes a reference to each. NULL: no memory. */
KVI_PRIVATE kvi_lsm_version *kvi_lsm_version_new(kv_lsm *db, kvi_lsm_table *const *tables, uint32_t count)
{
    size_t           size = sizeof(kvi_lsm_version) + (size_t)count * (sizeof(kvi_lsm_table *) + sizeof(kvi_lsm_run));
    kvi_lsm_version *v = (kvi_lsm_version *)kvi_alloc_zero(&db->options.allocator, size);
    kvi_lsm_run     *run = NULL;
    if (!v) return NULL;
    v->refs = 1;
    v->memory_bytes = size;
    v->count = count;
    v->tables = (kvi_lsm_table **)(void *)(v + 1);
    v->runs = (kvi_lsm_run *)(void *)(v->tables + count);
    if (count) memcpy(v->tables, tables, count * sizeof *tables);
    kvi_lsm_sort_tables(v->tables, count);
    for (uint32_t i = 0; i < count; i++) {
        kvi_lsm_table *t = v->tables[i];
        kvi_lsm_level *level = &v->levels[t->level];
        kvi_add_u32(&t->refs, 1);
        if (!run || v->tables[i - 1]->level != t->level || run->age != t->age) {
            run = &v->runs[v->run_count++];
            run->age = t->age;
            run->first = i;
            if (level->runs++ == 0) level->first_run = v->run_count - 1;
        }
        run->count++;
        level->tables++;
        level->bytes += t->size;
    }
    return v;
}

/* The first table of a run whose largest key is not below `key`; count where there is none. */
KVI_PRIVATE uint32_t kvi_lsm_tables_find(kvi_lsm_table *const *tables, uint32_t count, kv_slice key)
{
    uint64_t head = KVI_LSM_QUICK ? kvi_lsm_head(key.data, key.size) : 0;
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t             middle = low + (high - low) / 2;
        const kvi_lsm_table *t = tables[middle];
        bool below = KVI_LSM_QUICK && t->largest_head != head ? t->largest_head < head : kvi_compare(t->largest, key) < 0;
        if (below) low = middle + 1; else high = middle;
    }
    return low;
}

KVI_PRIVATE bool kvi_lsm_table_overlaps(const kvi_lsm_table *t, kv_slice smallest, kv_slice largest)
{
    return kvi_compare(t->largest, smallest) >= 0 && kvi_compare(t->smallest, largest) <= 0;
}

/* ---- views ---- */

KVI_PRIVATE void kvi_lsm_log_unmap(kv_lsm *db, kvi_lsm_log *log)
{
    if (KVI_LSM_MAPS && log->window) db->io->unmap(db->io->user, log->window, log->window_size);
    log->window = NULL;
}
KVI_PRIVATE void kvi_lsm_log_release(kv_lsm *db, kvi_lsm_log *log)
{
    if (!log || kvi_sub_u32(&log->refs, 1) != 1) return;
    kvi_lsm_log_unmap(db, log);
    if (log->file) (void)db->io->close(db->io->user, log->file);
    if (log->obsolete) kvi_lsm_remove_file(db, KVI_LSM_LOG, log->number);
    kvi_free(&db->options.allocator, log, sizeof *log);
}
KVI_PRIVATE void kvi_lsm_memtable_release(kv_lsm *db, kvi_lsm_memtable *m)
{
    if (m && kvi_sub_u32(&m->refs, 1) == 1) { kvi_lsm_log_release(db, m->log);  kvi_lsm_memtable_free(db, m); }
}
KVI_PRIVATE void kvi_lsm_view_empty(kv_lsm *db, kvi_lsm_view *v)    /* give up what it holds */
{
    kvi_lsm_memtable_release(db, v->active);
    for (uint32_t i = 0; i < v->frozen_count; i++) kvi_lsm_memtable_release(db, v->frozen[i]);
    kvi_lsm_version_release(db, v->version);
}
/* The last reference is gone. A view pins the store: what follows the unlock may be beside its end. */
KVI_PRIVATE void kvi_lsm_view_free(kv_lsm *db, kvi_lsm_view *v)
{
    kv_allocator   a = db->options.allocator;
    kvi_lsm_view **from = &db->views;
    bool           last;
    kvi_lsm_view_empty(db, v);
    kvi_spin_lock(&db->view_lock);
    while (*from != v) from = &(*from)->next;
    *from = v->next;
    last = db->closed && !db->views;
    kvi_spin_unlock(&db->view_lock);
    kvi_free(&a, v, sizeof *v);
    if (last) kvi_lsm_free(db);
}
KVI_INLINE void kvi_lsm_view_release(kv_lsm *db, kvi_lsm_view *v)
{
    if (v && kvi_sub_u32(&v->refs, 1) == 1) kvi_lsm_view_free(db, v);
}
/* The newest view, held. NULL: the store is closed. */
KVI_INLINE kvi_lsm_view *kvi_lsm_view_get(kv_lsm *db)
{
    kvi_lsm_view *v;
    kvi_spin_lock(&db->view_lock);
    v = db->view;
    if (KVI_LIKELY(v != NULL)) kvi_add_u32(&v->refs, 1);
    kvi_spin_unlock(&db->view_lock);
    return v;
}
/* The reference of a cursor that its user holds: kv_lsm_close does not wait for it. */
KVI_PRIVATE void kvi_lsm_view_mark_cursor(kv_lsm *db, kvi_lsm_view *v, bool open)
{
    kvi_spin_lock(&db->view_lock);
    if (open) v->cursors++; else v->cursors--;
    kvi_spin_unlock(&db->view_lock);
}
/* Fill `fresh` (allocated before anything was changed) from the store's members and make it the view.
   Under mutex. The old view is returned: release it without the mutex. */
KVI_PRIVATE kvi_lsm_view *kvi_lsm_view_switch(kv_lsm *db, kvi_lsm_view *fresh)
{
    kvi_lsm_view *old;
    fresh->refs = 1;
    fresh->active = db->active;
    kvi_add_u32(&db->active->refs, 1);
    fresh->frozen_count = db->frozen_count;
    for (uint32_t i = 0; i < db->frozen_count; i++) { fresh->frozen[i] = db->frozen[i]; kvi_add_u32(&db->frozen[i]->refs, 1); }
    fresh->version = db->version;
    kvi_add_u32(&db->version->refs, 1);
    fresh->cursors = 0;
    kvi_spin_lock(&db->view_lock);
    old = db->view;
    db->view = fresh;
    fresh->next = db->views;
    db->views = fresh;
    kvi_spin_unlock(&db->view_lock);
    return old;
}
/* Nobody gets a view any more; wait until none is held but those of cursors. True: the store is the
   caller's to free; false: the last cursor does. */
KVI_PRIVATE bool kvi_lsm_views_close(kv_lsm *db)
{
    kvi_lsm_view *last;
    bool          busy = true, mine = false;
    kvi_spin_lock(&db->view_lock);
    last = db->view;
    db->view = NULL;
    kvi_spin_unlock(&db->view_lock);
    kvi_lsm_view_release(db, last);
    while (busy) {
        busy = false;
        kvi_spin_lock(&db->view_lock);
        for (const kvi_lsm_view *v = db->views; v && !busy; v = v->next) busy = !v->cursors || kvi_load_u32(&v->refs) != v->cursors;
        if (!busy) { mine = !db->views; db->closed = true; }
        kvi_spin_unlock(&db->view_lock);
        if (busy) kvi_sleep_ms(1);
    }
    return mine;
}

/* ---- states ---- */

KVI_PRIVATE void kvi_lsm_log_fail(kv_lsm *db, kvi_lsm_log *log)
{
    kvi_mutex_lock(&db->mutex);
    log->failed = true;
    kvi_mutex_unlock(&db->mutex);
}

/* Writes fail from here on; the first cause is kept. Not under mutex. */
KVI_PRIVATE void kvi_lsm_break(kv_lsm *db, kv_status s, bool poisoned)
{
    char     text[sizeof db->broken_text];
    kvi_text t = kvi_text_over(text, sizeof text);
    bool     first;
    kvi_mutex_lock(&db->mutex);
    first = db->broken == KV_OK;
    if (first) db->broken = s;
    if (poisoned) { db->poisoned = true; kvi_store_u32(&db->keep_files, 1); }
    if (KVI_LSM_TEXT && first) {
        kvi_text_add(&t, "the store is read-only since: ");
        kvi_text_add(&t, kvi_error_text(&db->error));
        kvi_text_over(db->broken_text, sizeof db->broken_text);
        memcpy(db->broken_text, text, t.size + 1);
    }
    kvi_cond_broadcast(&db->work_done);
    kvi_mutex_unlock(&db->mutex);
    if (first) kvi_lsm_note(db, s, KVI_LSM_TEXT ? text : kv_status_text(s));
}
KVI_PRIVATE void kvi_lsm_poison(kv_lsm *db, kv_status s) { kvi_lsm_break(db, s, true); }
KVI_PRIVATE kv_status kvi_lsm_is_broken(kv_lsm *db)        /* under mutex */
{
    if (db->broken == KV_OK) return KV_OK;
    return kvi_lsm_error(db, KV_ERR_READ_ONLY, db->broken_text);
}

/* ---- calls that kv_lsm_close waits for: a read by its view, a writer by its place in the queue, and
   what is neither, or both in turn, by these two. After the second the store may be gone. ---- */

KVI_PRIVATE kv_status kvi_lsm_is_closed(kv_lsm *db) { return kvi_lsm_error(db, KV_ERR_INVALID, "the store is closed"); }
KVI_PRIVATE kv_status kvi_lsm_call_begin(kv_lsm *db)
{
    kv_status s = KV_OK;
    kvi_mutex_lock(&db->mutex);
    if (db->closing) s = kvi_lsm_is_closed(db); else db->inside++;
    kvi_mutex_unlock(&db->mutex);
    return s;
}
KVI_PRIVATE kv_status kvi_lsm_call_end(kv_lsm *db, kv_status s)
{
    kvi_mutex_lock(&db->mutex);
    db->inside--;
    kvi_mutex_unlock(&db->mutex);
    return s;
}

/* ------------------------------------------------------------------------------------------------
   >>log   records, in logs and manifests: made, read, and judged

   Invariant L1: a file whose append or sync failed is never appended to again.
   Invariant L2: logs are synced from old to new: a log with durable > 0 follows logs that are durable
                 whole.                                                                            */

KVI_PRIVATE void kvi_lsm_record_header(uint8_t *record, uint64_t seed, size_t payload_size, uint64_t sequence, uint64_t durable)
{
    kvi_store_le32(record + 4, kvi_checksum(record + KVI_LSM_RECORD_SIZE, payload_size, seed));
    kvi_store_le32(record + 8, (uint32_t)payload_size);
    kvi_store_le64(record + 12, sequence);
    kvi_store_le64(record + 20, durable);
    kvi_store_le32(record, kvi_checksum(record + 4, KVI_LSM_RECORD_SIZE - 4, seed));
}

/* A file that is read from front to back through a window. */
typedef struct kvi_lsm_scan {
    kv_lsm  *db;
    kv_file *file;
    int      kind;
    uint64_t number, size, seed, at;        /* at: of the next record */
    kv_buf   window;                        /* bytes window_at .. */
    uint64_t window_at;
    kvi_lsm_header header;
    uint64_t sequence, durable;             /* of the record that was read last */
    kv_slice payload;
    uint64_t durable_seen;                  /* the greatest `durable` so far */
} kvi_lsm_scan;

/* Have `size` bytes at `offset` in the window. KV_END: the file has not so many. */
KVI_PRIVATE kv_status kvi_lsm_scan_need(kvi_lsm_scan *r, uint64_t offset, size_t size, const uint8_t **bytes)
{
    size_t    wanted;
    kv_status s;
    if (offset > r->size || size > r->size - offset) return KV_END;
    if (offset < r->window_at || offset + size > r->window_at + r->window.size) {
        wanted = size < 65536 ? 65536 : size;
        if (wanted > r->size - offset) wanted = (size_t)(r->size - offset);
        r->window.size = 0;
        if (kv_buf_reserve(&r->window, wanted) < 0) return kvi_lsm_no_memory(r->db);
        s = kvi_lsm_read_at(r->db, r->file, offset, r->window.data, wanted);
        if (s < 0) return kvi_lsm_fail_file(r->db, s, "cannot read", r->kind, r->number, offset);
        r->window.size = wanted;
        r->window_at = offset;
    }
    *bytes = (const uint8_t *)r->window.data + (offset - r->window_at);
    return KV_OK;
}

/* The record at `offset`. KV_END: the file ends exactly here; KV_NOT_FOUND: what is here is no
   record; a failure: it could not be read. */
KVI_PRIVATE kv_status kvi_lsm_scan_record(kvi_lsm_scan *r, uint64_t offset, uint64_t *next)
{
    const uint8_t *b = NULL;
    uint32_t       size, payload_check;
    kv_status      s;
    if (offset == r->size) return KV_END;
    s = kvi_lsm_scan_need(r, offset, KVI_LSM_RECORD_SIZE, &b);
    if (s < 0) return s;
    if (s == KV_END) return KV_NOT_FOUND;
    size = kvi_load_le32(b + 8);
    if (size > KVI_LSM_RECORD_MAX || size > r->size - offset - KVI_LSM_RECORD_SIZE || kvi_load_le64(b + 20) > offset) return KV_NOT_FOUND;
    if (kvi_load_le32(b) != kvi_checksum(b + 4, KVI_LSM_RECORD_SIZE - 4, r->seed + offset)) return KV_NOT_FOUND;
    s = kvi_lsm_scan_need(r, offset, KVI_LSM_RECORD_SIZE + (size_t)size, &b);
    if (s < 0) return s;
    payload_check = kvi_load_le32(b + 4);
    r->sequence = kvi_load_le64(b + 12);
    r->durable = kvi_load_le64(b + 20);
    r->payload = kv_bytes(b + KVI_LSM_RECORD_SIZE, size);
    *next = offset + KVI_LSM_RECORD_SIZE + size;
    if (payload_check != kvi_checksum(r->payload.data, size, r->seed + offset) && !KVI_MUTANT(KVI_MUTANT_NO_PAYLOAD_CHECK)) return KV_NOT_FOUND;
    return KV_OK;
}
/* Are there only zeros from `at` on? KV_OK, KV_NOT_FOUND or a failure to read. */
KVI_PRIVATE kv_status kvi_lsm_scan_zeros(kvi_lsm_scan *r, uint64_t at)
{
    while (at < r->size) {
        size_t         size = r->size - at < 4096 ? (size_t)(r->size - at) : 4096;
        const uint8_t *b;
        kv_status      s = kvi_lsm_scan_need(r, at, size, &b);
        if (s < 0) return s;
        for (size_t i = 0; i < size; i++) if (b[i]) return KV_NOT_FOUND;
        at += size;
    }
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_lsm_scan_next(kvi_lsm_scan *r)
{
    uint64_t  next = r->at;
    kv_status s = kvi_lsm_scan_record(r, r->at, &next);
    if (KVI_MUTANT(KVI_MUTANT_SKIP_BAD) && s == KV_NOT_FOUND && next > r->at && r->kind == KVI_LSM_LOG) { r->at = next; return kvi_lsm_scan_next(r); }
    if (s == KV_NOT_FOUND && r->kind == KVI_LSM_LOG) {      /* room that was never used is an end like any other */
        s = kvi_lsm_scan_zeros(r, r->at);
        if (s == KV_OK) return KV_END;
    }
    if (s != KV_OK) return s;
    if (r->durable > r->durable_seen) r->durable_seen = r->durable;
    r->at = next;
    return KV_OK;
}
/* Is there a whole record behind `bad` which says that the file was durable beyond it? Then what is at
   `bad` was damaged, not torn. *found: how far the last such record says. KV_OK or a failure. */
KVI_PRIVATE kv_status kvi_lsm_scan_proof(kvi_lsm_scan *r, uint64_t bad, uint64_t *found)
{
    uint64_t offset = bad + 1;
    *found = 0;
    while (offset + KVI_LSM_RECORD_SIZE <= r->size) {
        const uint8_t *b;
        uint64_t       next = offset, limit;
        kv_status      s = kvi_lsm_scan_need(r, offset, KVI_LSM_RECORD_SIZE, &b);
        if (s < 0) return s;
        limit = r->window_at + r->window.size - KVI_LSM_RECORD_SIZE;
        /* most positions fall to the two plain tests, before anything is hashed */
        while (offset <= limit && (kvi_load_le64(b + 20) > offset || kvi_load_le64(b + 20) <= bad
                                   || kvi_load_le32(b + 8) > r->size - offset - KVI_LSM_RECORD_SIZE)) { offset++; b++; }
        if (offset > limit) continue;
        s = kvi_lsm_scan_record(r, offset, &next);
        if (s < 0) return s;
        if (s == KV_OK) { *found = r->durable; return KV_OK; }
        offset++;
    }
    return KV_OK;
}

/* Open a log or manifest and read its header. KV_OK; KV_NOT_FOUND: no such file; KV_END: its header is
   not there or damaged; KV_ERR_VERSION; or a failure to read. */
KVI_PRIVATE kv_status kvi_lsm_scan_open(kvi_lsm_scan *r, kv_lsm *db, int kind, uint64_t number)
{
    const uint8_t *b;
    kv_status      s;
    memset(r, 0, sizeof *r);
    r->db = db;
    r->kind = kind;
    r->number = number;
    r->window.allocator = db->options.allocator;
    r->seed = kvi_lsm_seed(db->id, number, kind);
    r->at = KVI_LSM_HEADER_SIZE;
    s = kvi_lsm_open_file(db, kind, number, 0, &r->file);
    if (s != KV_OK) { r->file = NULL; return s; }
    s = db->io->size(db->io->user, r->file, &r->size);
    if (s < 0) return kvi_lsm_fail_file(db, s, "cannot tell the size", kind, number, KVI_LSM_NO_SEQUENCE);
    s = kvi_lsm_scan_need(r, 0, KVI_LSM_HEADER_SIZE, &b);
    if (s != KV_OK) return s;
    s = kvi_lsm_header_decode(b, kind, &r->header);
    if (s == KV_ERR_VERSION) return kvi_lsm_fail_file(db, s, "the file", kind, number, KVI_LSM_NO_SEQUENCE);
    if (s < 0 || r->header.number != number || memcmp(r->header.id, db->id, 16) != 0) return KV_END;
    return KV_OK;
}
KVI_PRIVATE void kvi_lsm_scan_close(kvi_lsm_scan *r)
{
    if (r->file) (void)r->db->io->close(r->db->io->user, r->file);
    r->file = NULL;
    kv_buf_free(&r->window);
}

/* A new log file with its header. Not yet synced, nor is its name. */
KVI_PRIVATE kv_status kvi_lsm_log_new(kv_lsm *db, uint64_t chain, uint64_t before, bool before_durable, kvi_lsm_log **out)
{
    uint8_t      header[KVI_LSM_HEADER_SIZE];
    kvi_lsm_log *log = (kvi_lsm_log *)kvi_alloc_zero(&db->options.allocator, sizeof *log);
    kv_status    s;
    if (!log) return kvi_lsm_no_memory(db);
    log->refs = 1;
    log->number = kvi_lsm_new_number(db);
    s = kvi_lsm_create_file(db, KVI_LSM_LOG, log->number, &log->file);
    if (s < 0) { kvi_free(&db->options.allocator, log, sizeof *log); return s; }
    kvi_lsm_header_encode(header, KVI_LSM_LOG, before_durable ? 1 : 0, db->id, log->number, chain, before);
    s = db->io->append(db->io->user, log->file, header, sizeof header);
    if (s < 0) {
        (void)kvi_lsm_fail_file(db, s, "cannot write", KVI_LSM_LOG, log->number, 0);
        log->obsolete = true;
        kvi_lsm_log_release(db, log);
        return s;
    }
    log->size = sizeof header;
    log->mapped = KVI_LSM_MAPS && db->options.map_tables && db->options.sync != KV_SYNC_WRITE && db->io->map_write && db->io->truncate && db->io->unmap;
    KVI_LSM_COUNT(&db->written, sizeof header);
    *out = log;
    return KV_OK;
}

/* Where the next `size` bytes of the log are mapped, or NULL: then write them. By the leader. */
KVI_PRIVATE uint8_t *kvi_lsm_log_window(kv_lsm *db, kvi_lsm_log *log, size_t size)
{
    void *data;
    if (log->window && size <= log->window_at + log->window_size - log->size) return log->window + (log->size - log->window_at);
    kvi_lsm_log_unmap(db, log);
    if (size > KVI_LSM_WINDOW / 2) return NULL;
    log->longer = true;
    log->window_at = log->size & ~(uint64_t)65535;
    log->window_size = db->options.memtable_bytes < KVI_LSM_WINDOW ? KVI_LSM_WINDOW / 2 + 65536 : KVI_LSM_WINDOW;
    if (db->io->map_write(db->io->user, log->file, log->window_at, log->window_size, &data) != KV_OK) { log->mapped = false; return NULL; }
    log->window = (uint8_t *)data;
    return log->window + (log->size - log->window_at);
}
/* Let the file end where the log does, on stable storage. */
KVI_PRIVATE kv_status kvi_lsm_log_cut(kv_lsm *db, kvi_lsm_log *log)
{
    kv_status s;
    if (!KVI_LSM_MAPS || !log->longer) return KV_OK;
    kvi_lsm_log_unmap(db, log);
    s = db->io->truncate(db->io->user, log->file, log->size);
    if (s == KV_OK) s = kvi_lsm_sync_file(db, log->file);
    if (s < 0) { kvi_lsm_log_fail(db, log); return kvi_lsm_fail_file(db, s, "cannot cut and sync", KVI_LSM_LOG, log->number, log->size); }
    log->longer = false;
    return KV_OK;
}
/* Sync one log, and its name the first time. */
KVI_PRIVATE kv_status kvi_lsm_log_sync(kv_lsm *db, kvi_lsm_log *log)
{
    uint64_t  size = log->size;
    kv_status s;
    if (log->durable == size) return KV_OK;
    if (log->failed) return KV_ERR_IO;
    s = kvi_lsm_sync_file(db, log->file);
    if (s < 0) { kvi_lsm_log_fail(db, log); return kvi_lsm_fail_file(db, s, "cannot sync", KVI_LSM_LOG, log->number, KVI_LSM_NO_SEQUENCE); }
    if (!log->durable && !KVI_MUTANT(KVI_MUTANT_LOG_NAME)) {
        s = kvi_lsm_sync_dir(db);
        if (s < 0) { kvi_lsm_log_fail(db, log); return s; }
    }
    log->durable = size;
    if (log->number > kvi_load_u64(&db->durable_log)) kvi_store_u64(&db->durable_log, log->number);
    return KV_OK;
}

/* ------------------------------------------------------------------------------------------------
   >>manifest   which tables and logs are the store; the one place where a change becomes true

   Invariant N1: a manifest names only files whose bytes and names are on stable storage.
   Invariant N2: nothing that a manifest on the disk may need is removed before the edit, or the new
                 manifest, that does without it is on stable storage.                               */

KVI_PRIVATE kv_status kvi_lsm_put_number(kv_buf *out, uint64_t n)
{
    uint8_t b[10];
    return kv_buf_append(out, kv_bytes(b, (size_t)(kvi_lsm_put_varint(b, n) - b)));
}
KVI_PRIVATE kv_status kvi_lsm_put_field(kv_buf *out, uint8_t tag, uint64_t n)
{
    kv_status s = kv_buf_append(out, kv_bytes(&tag, 1));
    return s < 0 ? s : kvi_lsm_put_number(out, n);
}
#if KVI_SMALL
/* Where the numbers of an ADD field lie, from `number` to `last_sequence`. */
static const uint8_t kvi_lsm_table_numbers[9] = {
    offsetof(kvi_lsm_table, number), offsetof(kvi_lsm_table, age), offsetof(kvi_lsm_table, size), offsetof(kvi_lsm_table, entries), offsetof(kvi_lsm_table, tombstones),
    offsetof(kvi_lsm_table, key_bytes), offsetof(kvi_lsm_table, value_bytes), offsetof(kvi_lsm_table, first_sequence), offsetof(kvi_lsm_table, last_sequence)
};
#endif
KVI_PRIVATE kv_status kvi_lsm_put_table(kv_lsm *db, kv_buf *out, const kvi_lsm_table *t)
{
    kv_status s = kvi_lsm_put_field(out, KVI_LSM_FIELD_ADD, t->level);
    (void)db;
#if KVI_SMALL
    for (size_t i = 0; s == KV_OK && i < sizeof kvi_lsm_table_numbers; i++) s = kvi_lsm_put_number(out, *(const uint64_t *)(const void *)((const uint8_t *)t + kvi_lsm_table_numbers[i]));
#else
    if (s == KV_OK) s = kvi_lsm_put_number(out, t->number);
    if (s == KV_OK) s = kvi_lsm_put_number(out, t->age);
    if (s == KV_OK) s = kvi_lsm_put_number(out, t->size);
    if (s == KV_OK) s = kvi_lsm_put_number(out, t->entries);
    if (s == KV_OK) s = kvi_lsm_put_number(out, t->tombstones);
    if (s == KV_OK) s = kvi_lsm_put_number(out, t->key_bytes);
    if (s == KV_OK) s = kvi_lsm_put_number(out, t->value_bytes);
    if (s == KV_OK) s = kvi_lsm_put_number(out, t->first_sequence);
    if (s == KV_OK) s = kvi_lsm_put_number(out, t->last_sequence);
#endif
    if (s == KV_OK) s = kvi_lsm_put_number(out, t->smallest.size);
    if (s == KV_OK) s = kv_buf_append(out, t->smallest);
    if (s == KV_OK) s = kvi_lsm_put_number(out, t->largest.size);
    return s == KV_OK ? kv_buf_append(out, t->largest) : s;
}
/* What an ADD field says, without its tag. The keys point into the bytes that are read. */
KVI_PRIVATE bool kvi_lsm_read_table(kvi_lsm_reader *r, kvi_lsm_table *t)
{
    uint64_t level = kvi_lsm_read_varint(r);
    memset(t, 0, sizeof *t);
    t->level = (uint8_t)level;
#if KVI_SMALL
    for (size_t i = 0; i < sizeof kvi_lsm_table_numbers; i++) *(uint64_t *)(void *)((uint8_t *)t + kvi_lsm_table_numbers[i]) = kvi_lsm_read_varint(r);
#else
    t->number = kvi_lsm_read_varint(r);
    t->age = kvi_lsm_read_varint(r);
    t->size = kvi_lsm_read_varint(r);
    t->entries = kvi_lsm_read_varint(r);
    t->tombstones = kvi_lsm_read_varint(r);
    t->key_bytes = kvi_lsm_read_varint(r);
    t->value_bytes = kvi_lsm_read_varint(r);
    t->first_sequence = kvi_lsm_read_varint(r);
    t->last_sequence = kvi_lsm_read_varint(r);
#endif
    t->smallest = kvi_lsm_read_bytes(r, kvi_lsm_read_varint(r));
    t->largest = kvi_lsm_read_bytes(r, kvi_lsm_read_varint(r));
    return !r->bad && level < KV_LSM_LEVELS && t->smallest.size <= KV_KEY_SIZE_MAX && t->largest.size <= KV_KEY_SIZE_MAX
        && kvi_compare(t->smallest, t->largest) <= 0;
}

/* Fields that every record ends with. */
KVI_PRIVATE kv_status kvi_lsm_put_counters(kv_lsm *db, kv_buf *out)
{
    kv_status s = kvi_lsm_put_field(out, KVI_LSM_FIELD_SEQUENCE, kvi_load_u64(&db->visible));
    if (s == KV_OK) s = kvi_lsm_put_field(out, KVI_LSM_FIELD_NEXT, kvi_load_u64(&db->next_number));
    if (s == KV_OK) s = kvi_lsm_put_field(out, KVI_LSM_FIELD_LOG, db->log_number);
    if (s == KV_OK) s = kvi_lsm_put_field(out, KVI_LSM_FIELD_FLUSHED, db->flushed_sequence);
    if (s == KV_OK && kvi_load_u64(&db->durable_log)) s = kvi_lsm_put_field(out, KVI_LSM_FIELD_DURABLE_LOG, kvi_load_u64(&db->durable_log));
    return s;
}

/* Begin the record in db->edit; fields follow. */
KVI_PRIVATE kv_status kvi_lsm_edit_begin(kv_lsm *db)
{
    static const uint8_t zeros[KVI_LSM_RECORD_SIZE] = { 0 };
    db->edit.size = 0;
    return kv_buf_append(&db->edit, kv_bytes(zeros, sizeof zeros));
}

/* Append db->edit to the manifest and sync it. On a failure nobody knows whether the edit is there:
   every file that it names or drops must stay. */
KVI_PRIVATE kv_status kvi_lsm_edit_commit(kv_lsm *db)
{
    kvi_lsm_manifest *m = &db->manifest;
    size_t            payload = db->edit.size - KVI_LSM_RECORD_SIZE;
    kv_status         s;
    if (m->failed) return kvi_lsm_error(db, KV_ERR_READ_ONLY, "the manifest could not be written before");
    if (payload > KV_LSM_BATCH_SIZE_MAX) return kvi_lsm_error(db, KV_ERR_TOO_LARGE, "the manifest record is too large");
    kvi_lsm_record_header((uint8_t *)db->edit.data, kvi_lsm_seed(db->id, m->number, KVI_LSM_MANIFEST) + m->size, payload, kvi_load_u64(&db->visible), m->size);
    s = db->io->append(db->io->user, m->file, db->edit.data, db->edit.size);
    if (KVI_MUTANT(KVI_MUTANT_MANIFEST_ERROR) && s < 0) return KV_OK;
    if (s < 0) {
        m->failed = true;
        kvi_lsm_break(db, kvi_lsm_fail_file(db, s, "cannot write", KVI_LSM_MANIFEST, m->number, m->size), false);
        return s;
    }
    KVI_LSM_COUNT(&db->written, db->edit.size);
    if (!KVI_MUTANT(KVI_MUTANT_MANIFEST_DATA)) {
        s = kvi_lsm_sync_file(db, m->file);
        if (KVI_MUTANT(KVI_MUTANT_MANIFEST_ERROR) && s < 0) s = KV_OK;
        if (s < 0) {
            m->failed = true;
            kvi_lsm_poison(db, kvi_lsm_fail_file(db, s, "cannot sync", KVI_LSM_MANIFEST, m->number, KVI_LSM_NO_SEQUENCE));
            return s;
        }
    }
    m->size += db->edit.size;
    return KV_OK;
}

/* CURRENT's text for a manifest. */
KVI_PRIVATE size_t kvi_lsm_current_text(const uint8_t *id, uint64_t number, char *out, size_t capacity)
{
    kvi_text t = kvi_text_over(out, capacity);
    kvi_text_add(&t, "kv_lsm 1\n");
    kvi_lsm_text_file(&t, KVI_LSM_MANIFEST, number);
    kvi_text_char(&t, '\n');
    for (int i = 0; i < 16; i++) kvi_text_hex(&t, id[i], 2);
    kvi_text_char(&t, '\n');
    kvi_text_hex(&t, kvi_hash(out, t.size, 0), 16);
    kvi_text_char(&t, '\n');
    return t.size;
}
/* Parse it back: by making it again. KV_ERR_VERSION for the text of a newer format. */
KVI_PRIVATE kv_status kvi_lsm_current_parse(const char *text, size_t size, uint8_t *id, uint64_t *number)
{
    static const char start[] = "kv_lsm 1\nMANIFEST-";
    char     again[160];
    size_t   at = sizeof start - 1;
    uint64_t n = 0;
    if (size > 9 && memcmp(text, "kv_lsm ", 7) == 0 && text[7] >= '1' && text[7] <= '9' && memcmp(text, start, 9) != 0) return KV_ERR_VERSION;
    if (size < at || size >= sizeof again || memcmp(text, start, at) != 0) return KV_ERR_CORRUPT;
    for (; at < size && text[at] >= '0' && text[at] <= '9' && n < UINT64_MAX / 20; at++) n = n * 10 + (uint64_t)(text[at] - '0');
    if (size < at + 1 + 32) return KV_ERR_CORRUPT;
    at++;
    for (int i = 0; i < 32; i++) {
        char c = text[at + (size_t)i];
        int  digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) return KV_ERR_CORRUPT;
        id[i / 2] = (uint8_t)(i % 2 ? id[i / 2] | digit : digit << 4);
    }
    *number = n;
    return kvi_lsm_current_text(id, n, again, sizeof again) == size && memcmp(text, again, size) == 0 ? KV_OK : KV_ERR_CORRUPT;
}

/* Make CURRENT name manifest `number`, whose bytes and name are durable:
   1. write and sync a temporary file    2. rename it    3. sync the directory
   After a failure of 2 or 3 nobody knows which of the two manifests counts, and a failed sync is final
   everywhere: *harmless is then false. */
KVI_PRIVATE kv_status kvi_lsm_current_switch(kv_lsm *db, uint64_t number, uint64_t old_number, bool *harmless)
{
    char      text[160];
    size_t    size = kvi_lsm_current_text(db->id, number, text, sizeof text);
    kv_file  *file = NULL;
    kvi_text  name;
    kv_status s;

    kvi_mutex_lock(&db->files);
    name = kvi_lsm_path(db, 0);
    kvi_text_add(&name, "CURRENT.tmp");
    name = kvi_lsm_path(db, 1);
    kvi_text_add(&name, "CURRENT");
    s = db->io->open(db->io->user, db->names[0], KV_OPEN_WRITE | KV_OPEN_CREATE | KV_OPEN_TRUNCATE, &file);
    if (s == KV_OK) {
        s = db->io->append(db->io->user, file, text, size);
        *harmless = s < 0;
        if (s == KV_OK && !KVI_MUTANT(KVI_MUTANT_CURRENT_DATA)) s = kvi_lsm_sync_file(db, file);
        (void)db->io->close(db->io->user, file);
    } else {
        *harmless = true;
        if (s > 0) s = KV_ERR_IO;
    }
    kvi_mutex_unlock(&db->files);
    if (s < 0) return kvi_lsm_error(db, s, "cannot write CURRENT.tmp");
    if (KVI_MUTANT(KVI_MUTANT_EARLY_REMOVE) && old_number) kvi_lsm_remove_file(db, KVI_LSM_MANIFEST, old_number);

    kvi_mutex_lock(&db->files);
    name = kvi_lsm_path(db, 0);
    kvi_text_add(&name, "CURRENT.tmp");
    name = kvi_lsm_path(db, 1);
    kvi_text_add(&name, "CURRENT");
    s = db->io->rename(db->io->user, db->names[0], db->names[1]);
    kvi_mutex_unlock(&db->files);
    if (s != KV_OK) return kvi_lsm_error(db, s < 0 ? s : KV_ERR_IO, "cannot rename CURRENT.tmp to CURRENT");
    if (KVI_MUTANT(KVI_MUTANT_CURRENT_NAME) || KVI_MUTANT(KVI_MUTANT_EARLY_REMOVE)) return KV_OK;
    return kvi_lsm_sync_dir(db);
}

/* Write a manifest that describes the store as its members say, and switch to it:
   1. a new file with a snapshot    2. sync it and the directory (which makes new logs and tables
   durable names too)    3. CURRENT    4. drop the old manifest
   Crash before 3: the old one counts, the new file is unknown. After: the new one counts. */
KVI_PRIVATE kv_status kvi_lsm_manifest_new(kv_lsm *db)
{
    kvi_lsm_manifest m;
    uint8_t          header[KVI_LSM_HEADER_SIZE];
    bool             harmless = false;
    kv_status        s;
    memset(&m, 0, sizeof m);

    /* 1. */
    m.number = kvi_lsm_new_number(db);
    kvi_lsm_header_encode(header, KVI_LSM_MANIFEST, 0, db->id, m.number, 0, 0);
    db->edit.size = 0;
    s = kv_buf_append(&db->edit, kv_bytes(header, sizeof header));
    if (s == KV_OK) s = kv_buf_append(&db->edit, kv_bytes(header, KVI_LSM_RECORD_SIZE));     /* room */
    if (s == KV_OK) s = kvi_lsm_put_counters(db, &db->edit);
    for (uint32_t i = 0; s == KV_OK && i < db->version->count; i++) s = kvi_lsm_put_table(db, &db->edit, db->version->tables[i]);
    if (s < 0) return kvi_lsm_no_memory(db);
    kvi_lsm_record_header((uint8_t *)db->edit.data + sizeof header, kvi_lsm_seed(db->id, m.number, KVI_LSM_MANIFEST) + sizeof header,
                          db->edit.size - sizeof header - KVI_LSM_RECORD_SIZE, kvi_load_u64(&db->visible), 0);
    s = kvi_lsm_create_file(db, KVI_LSM_MANIFEST, m.number, &m.file);
    if (s < 0) return s;
    s = db->io->append(db->io->user, m.file, db->edit.data, db->edit.size);
    if (s < 0) {
        (void)kvi_lsm_fail_file(db, s, "cannot write", KVI_LSM_MANIFEST, m.number, 0);
        (void)db->io->close(db->io->user, m.file);
        kvi_lsm_remove_file(db, KVI_LSM_MANIFEST, m.number);
        return s;
    }
    KVI_LSM_COUNT(&db->written, db->edit.size);

    /* 2. and 3.; most failures here are final, see kvi_lsm_current_switch */
    if (!KVI_MUTANT(KVI_MUTANT_MANIFEST_DATA)) {
        s = kvi_lsm_sync_file(db, m.file);
        if (s < 0) (void)kvi_lsm_fail_file(db, s, "cannot sync", KVI_LSM_MANIFEST, m.number, KVI_LSM_NO_SEQUENCE);
    }
    if (s == KV_OK) s = kvi_lsm_sync_dir(db);
    if (s == KV_OK) s = kvi_lsm_current_switch(db, m.number, db->manifest.number, &harmless);
    if (s < 0) {
        if (!harmless) kvi_lsm_poison(db, s);
        (void)db->io->close(db->io->user, m.file);
        if (harmless) kvi_lsm_remove_file(db, KVI_LSM_MANIFEST, m.number);
        return s;
    }

    /* 4. */
    m.size = m.snapshot_size = db->edit.size;
    if (db->manifest.file) {
        (void)db->io->close(db->io->user, db->manifest.file);
        kvi_lsm_remove_file(db, KVI_LSM_MANIFEST, db->manifest.number);
    }
    db->manifest = m;
    if (db->edit.capacity > 1u << 20) kv_buf_free(&db->edit);
    return KV_OK;
}

/* ------------------------------------------------------------------------------------------------
   >>source   a position in one sorted thing: a memtable, or a run of tables

   Both have all versions of a key, newest first. A source holds the block that it stands in; nothing
   but the memtable, table and view must be kept alive by its user.
   Invariant S1: `valid` means that key, sequence, deleted are of the entry it stands on. Not valid
                 and status KV_OK is an end; a failure is never taken for one.                      */

typedef struct kvi_lsm_source {
    kv_lsm    *db;
    kv_slice   key;                         /* until the next move */
    uint64_t   sequence;
    bool       valid, deleted;
    bool       merging;                     /* reads for a merge: leaves the cache alone */
    kv_status  status;
    const kvi_lsm_memtable *memtable;       /* or NULL, and then: */
    const kvi_lsm_entry    *at;
    kvi_lsm_table *const   *tables;
    uint32_t   table_count, table_index, block_index, entry;
    const kvi_lsm_index    *index;          /* of the table */
    kvi_lsm_block          *block;          /* held; NULL for a mapped one */
    const kvi_lsm_page     *page;
    kvi_lsm_page            own_page;
    kv_buf     buffer;                      /* prefix and tail of the key */
    uint64_t   read_bytes;
    struct kvi_lsm_source  *after;          /* in a merge: who comes next, and has it the same key? */
    bool       same, aimed;
    uint32_t   aim_table, aim_block;        /* of a seek, which goes in steps: see kvi_lsm_merge_seek */
} kvi_lsm_source;

KVI_PRIVATE void kvi_lsm_source_memtable(kvi_lsm_source *s, kv_lsm *db, const kvi_lsm_memtable *m)
{
    memset(s, 0, sizeof *s);
    s->db = db;
    s->memtable = m;
}
KVI_PRIVATE void kvi_lsm_source_tables(kvi_lsm_source *s, kv_lsm *db, kvi_lsm_table *const *tables, uint32_t count, bool merging)
{
    memset(s, 0, sizeof *s);
    s->db = db;
    s->tables = tables;
    s->table_count = count;
    s->merging = merging;
    s->buffer.allocator = db->options.allocator;
}
KVI_PRIVATE void kvi_lsm_source_close(kvi_lsm_source *s)
{
    kvi_lsm_block_release(s->db, s->block);
    s->block = NULL;
    s->page = NULL;
    kv_buf_free(&s->buffer);
}
KVI_INLINE kv_slice kvi_lsm_source_value(const kvi_lsm_source *s)
{
    return s->memtable ? kvi_lsm_entry_value(s->at) : kvi_lsm_page_value(s->page, s->entry);
}

/* ---- memtable ---- */

KVI_INLINE void kvi_lsm_source_at(kvi_lsm_source *s, const kvi_lsm_entry *e)
{
    s->at = e;
    s->valid = e != NULL;
    if (!e) return;
    s->key = kvi_lsm_entry_key(e);
    s->sequence = e->sequence;
    s->deleted = e->op == KVI_LSM_DELETE;
}

/* ---- tables ---- */

KVI_PRIVATE void kvi_lsm_source_fail(kvi_lsm_source *s, kv_status status) { s->valid = false; s->status = status; }

/* Stand on entry i of the page. */
KVI_INLINE void kvi_lsm_source_take(kvi_lsm_source *s, uint32_t i)
{
    const kvi_lsm_page *p = s->page;
    kv_slice            tail = kvi_lsm_page_tail(p, i);
    if (p->prefix_size) {
        kvi_copy((uint8_t *)s->buffer.data + p->prefix_size, tail.data, tail.size);
        s->key.data = s->buffer.data;
    } else s->key.data = tail.data;
    s->key.size = p->prefix_size + tail.size;
    s->sequence = kvi_lsm_page_sequence(p, i);
    s->deleted = kvi_lsm_page_deleted(p, i);
    s->entry = i;
    s->valid = true;
}
/* Have block `i` of the current table as the page. */
KVI_PRIVATE bool kvi_lsm_source_block(kvi_lsm_source *s, uint32_t i)
{
    kvi_lsm_table *t = s->tables[s->table_index];
    kv_status      status;
    uint32_t       longest = 0;
    kvi_lsm_block_release(s->db, s->block);
    s->block = NULL;
    s->page = NULL;
    status = kvi_lsm_page_get(s->db, t, s->index, i, s->merging ? KVI_LSM_PLAIN : KVI_LSM_WITH_HEADS, !s->merging, &s->own_page, &s->block, &s->page);
    if (status < 0) { s->page = NULL; kvi_lsm_source_fail(s, status); return false; }
    s->block_index = i;
    s->read_bytes += s->index->offsets[i + 1] - s->index->offsets[i];
    if (!s->page->prefix_size) return true;
    if (s->page->flags & KVI_LSM_FIXED_KEYS) longest = s->page->key_fixed;
    else longest = s->page->key_bytes < KV_KEY_SIZE_MAX ? s->page->key_bytes : KV_KEY_SIZE_MAX;
    s->buffer.size = 0;
    if (kv_buf_reserve(&s->buffer, (size_t)s->page->prefix_size + longest) < 0) {
        s->page = NULL;                                     /* the next seek does not find it in place */
        kvi_lsm_source_fail(s, kvi_lsm_no_memory(s->db));
        return false;
    }
    memcpy(s->buffer.data, s->page->prefix, s->page->prefix_size);
    return true;
}
KVI_PRIVATE bool kvi_lsm_source_table(kvi_lsm_source *s, uint32_t i)
{
    kv_status status;
    s->table_index = i;
    status = kvi_lsm_table_index(s->db, s->tables[i], &s->index);
    if (status < 0) { s->page = NULL; kvi_lsm_source_fail(s, status); return false; }     /* the page was of the table before */
    return true;
}
KVI_PRIVATE void kvi_lsm_source_next_block(kvi_lsm_source *s)
{
    s->valid = false;
    if (s->block_index + 1 < s->index->count) { if (kvi_lsm_source_block(s, s->block_index + 1)) kvi_lsm_source_take(s, 0); return; }
    if (s->table_index + 1 == s->table_count) return;
    if (kvi_lsm_source_table(s, s->table_index + 1) && kvi_lsm_source_block(s, 0)) kvi_lsm_source_take(s, 0);
}
KVI_PRIVATE void kvi_lsm_source_prev_block(kvi_lsm_source *s)
{
    s->valid = false;
    if (s->block_index == 0) {
        if (s->table_index == 0) return;
        if (!kvi_lsm_source_table(s, s->table_index - 1)) return;
        s->block_index = s->index->count;
    }
    if (kvi_lsm_source_block(s, s->block_index - 1)) kvi_lsm_source_take(s, s->page->count - 1);
}

/* ---- both ---- */

KVI_INLINE void kvi_lsm_entry_ahead(const kvi_lsm_entry *e)     /* fetch what a walk needs after it */
{
    const kvi_lsm_entry *next = kvi_lsm_next(e, 0);
    if (!next) return;
    kvi_prefetch(next->bytes);
    if (next->key_size + next->value_size > 64u) kvi_prefetch(next->bytes + 64);
    kvi_prefetch(kvi_lsm_next(next, 0));
}
KVI_INLINE void kvi_lsm_source_next(kvi_lsm_source *s)
{
    if (s->memtable) {
        kvi_lsm_source_at(s, kvi_lsm_next(s->at, 0));
        if (KVI_LSM_QUICK && s->at) kvi_lsm_entry_ahead(s->at);
    } else if (KVI_LIKELY(s->entry + 1 < s->page->count)) kvi_lsm_source_take(s, s->entry + 1);
    else kvi_lsm_source_next_block(s);
}
KVI_INLINE void kvi_lsm_source_prev(kvi_lsm_source *s)
{
    if (s->memtable) kvi_lsm_source_at(s, kvi_lsm_memtable_before(s->memtable, s->key, s->sequence));
    else if (KVI_LIKELY(s->entry > 0)) kvi_lsm_source_take(s, s->entry - 1);
    else kvi_lsm_source_prev_block(s);
}
KVI_PRIVATE void kvi_lsm_source_first(kvi_lsm_source *s)
{
    s->valid = false;
    s->status = KV_OK;
    if (s->memtable) { kvi_lsm_source_at(s, kvi_lsm_next(s->memtable->head, 0)); return; }
    if (s->table_count && kvi_lsm_source_table(s, 0) && kvi_lsm_source_block(s, 0)) kvi_lsm_source_take(s, 0);
}
KVI_PRIVATE void kvi_lsm_source_last(kvi_lsm_source *s)
{
    s->valid = false;
    s->status = KV_OK;
    if (s->memtable) { kvi_lsm_source_at(s, kvi_lsm_memtable_last(s->memtable)); return; }
    if (s->table_count && kvi_lsm_source_table(s, s->table_count - 1) && kvi_lsm_source_block(s, s->index->count - 1))
        kvi_lsm_source_take(s, s->page->count - 1);
}
/* Which block the first entry that is not below the key is in, or right behind; `low` is the first table
   whose largest key is not below it. False: at the end, or a failure. */
KVI_PRIVATE bool kvi_lsm_source_aim(kvi_lsm_source *s, uint32_t low, kv_slice key)
{
    const kvi_lsm_index *x;
    kv_status            status;
    s->valid = false;
    s->status = KV_OK;
    s->aim_table = low;
    if (low == s->table_count) return false;
    status = kvi_lsm_table_index(s->db, s->tables[low], &x);
    if (status < 0) { s->page = NULL; kvi_lsm_source_fail(s, status); return false; }
    s->aim_block = kvi_lsm_index_find(x, key);
    if (s->aim_block < x->count) return true;
    s->page = NULL;                                         /* only where the index contradicts the table's range */
    kvi_lsm_source_fail(s, kvi_lsm_block_bad(s->db, s->tables[low], x->offsets[0]));
    return false;
}
/* Fetch what kvi_lsm_source_reach looks at first. */
KVI_PRIVATE void kvi_lsm_source_ahead(const kvi_lsm_source *s)
{
    const kvi_lsm_table *t = s->tables[s->aim_table];
    const kvi_lsm_index *x = (const kvi_lsm_index *)kvi_load_ptr((const kvi_pointer *)(void *)&t->home->index);
    if (s->page && s->table_index == s->aim_table && s->block_index == s->aim_block) return;
    if (KVI_LSM_MAPS && x->map) kvi_prefetch(x->map + x->offsets[s->aim_block] + KVI_LSM_BLOCK_SIZE);
    else kvi_lsm_cache_ahead(s->db, t->number, x->offsets[s->aim_block]);
}
/* Have that block as the page: often it is the one that it stands in already. */
KVI_PRIVATE bool kvi_lsm_source_reach(kvi_lsm_source *s)
{
    if (s->page && s->table_index == s->aim_table && s->block_index == s->aim_block) return true;
    s->page = NULL;
    return kvi_lsm_source_table(s, s->aim_table) && kvi_lsm_source_block(s, s->aim_block);
}
/* Stand on the first entry from there on that is not below the key. */
KVI_PRIVATE void kvi_lsm_source_land(kvi_lsm_source *s, kv_slice key)
{
    uint32_t i = kvi_lsm_page_lower(s->page, key);
    if (i < s->page->count) kvi_lsm_source_take(s, i); else kvi_lsm_source_next_block(s);
}
KVI_PRIVATE void kvi_lsm_source_seek_table(kvi_lsm_source *s, uint32_t low, kv_slice key)
{
    if (kvi_lsm_source_aim(s, low, key) && kvi_lsm_source_reach(s)) kvi_lsm_source_land(s, key);
}
/* The first entry that is not below the key. */
KVI_PRIVATE void kvi_lsm_source_seek(kvi_lsm_source *s, kv_slice key)
{
    if (!s->memtable) { kvi_lsm_source_seek_table(s, kvi_lsm_tables_find(s->tables, s->table_count, key), key); return; }
    s->status = KV_OK;
    kvi_lsm_source_at(s, kvi_lsm_memtable_seek(s->memtable, key, UINT64_MAX, NULL));
}
/* The same, but only where the key may be there, by the filters; else false, and it stands nowhere. */
KVI_PRIVATE bool kvi_lsm_source_seek_perhaps(kvi_lsm_source *s, kv_slice key, uint64_t hash)
{
    const kvi_lsm_index *x;
    uint32_t             i;
    s->valid = false;
    s->status = KV_OK;
    if (s->memtable) {
        if (!kvi_lsm_memtable_perhaps(s->memtable, hash)) return false;
        kvi_lsm_source_at(s, kvi_lsm_memtable_seek(s->memtable, key, UINT64_MAX, NULL));
        return true;
    }
    i = kvi_lsm_tables_find(s->tables, s->table_count, key);
    if (i == s->table_count || kvi_compare(s->tables[i]->smallest, key) > 0) return false;
    if (kvi_lsm_table_index(s->db, s->tables[i], &x) == KV_OK && !kvi_lsm_index_perhaps(s->db, x, hash)) return false;
    kvi_lsm_source_seek_table(s, i, key);
    return true;
}
/* The last entry below the key. */
KVI_PRIVATE void kvi_lsm_source_seek_before(kvi_lsm_source *s, kv_slice key)
{
    if (s->memtable) {
        s->status = KV_OK;
        kvi_lsm_source_at(s, kvi_lsm_memtable_before(s->memtable, key, UINT64_MAX));
        return;
    }
    kvi_lsm_source_seek(s, key);
    if (s->valid) kvi_lsm_source_prev(s);
    else if (s->status == KV_OK) kvi_lsm_source_last(s);
}

/* ------------------------------------------------------------------------------------------------
   >>merge   several sources as one, ascending by key and then from new to old

   The sources that are not at their end stand in a list, ordered by the entries they stand on: a step
   costs one comparison while the first stays below the second, and one for each that it falls behind.
   Invariant G1: every source stands on its first entry at or behind the merge's position.          */

typedef struct kvi_lsm_merge {
    kvi_lsm_source *sources;
    uint32_t        count;
    kvi_lsm_source *least;                  /* the first in the list; NULL at the end, and after a failure */
    kv_status       status;
} kvi_lsm_merge;

KVI_INLINE int kvi_lsm_compare_keys(kv_slice a, kv_slice b)     /* eight bytes at a time: keys of a merge are short and alike */
{
    const uint8_t *x = (const uint8_t *)a.data, *y = (const uint8_t *)b.data;
    size_t         both = a.size < b.size ? a.size : b.size, i = 0;
    for (; i + 8 <= both && i < 64; i += 8)
        if (kvi_load_le64(x + i) != kvi_load_le64(y + i)) return kvi_lsm_head(x + i, 8) < kvi_lsm_head(y + i, 8) ? -1 : 1;
    if (i == both) return a.size == b.size ? 0 : a.size < b.size ? -1 : 1;
    return kvi_compare_bytes(x + i, a.size - i, y + i, b.size - i);
}
/* Does a's entry come before b's, where their keys compare so? Sources stand from new to old, which
   decides between equals. */
KVI_INLINE int kvi_lsm_source_order(const kvi_lsm_source *a, const kvi_lsm_source *b)
{
    return KVI_LSM_QUICK ? kvi_lsm_compare_keys(a->key, b->key) : kvi_compare(a->key, b->key);
}
KVI_INLINE bool kvi_lsm_source_before(const kvi_lsm_source *a, const kvi_lsm_source *b, int order)
{
    if (order) return order < 0;
    return a->sequence != b->sequence ? a->sequence > b->sequence : a < b;
}
/* Put s into the list, somewhere behind `low`, whose key it has or not; low NULL: anywhere. */
KVI_PRIVATE void kvi_lsm_merge_place(kvi_lsm_merge *m, kvi_lsm_source *s, kvi_lsm_source *low, bool same)
{
    kvi_lsm_source *high = low ? low->after : m->least;
    s->same = false;
    for (; high; low = high, high = high->after) {
        int order = kvi_lsm_source_order(s, high);
        if (kvi_lsm_source_before(s, high, order)) { s->same = order == 0; break; }
        same = order == 0;
    }
    s->after = high;
    if (low) { low->after = s; low->same = same; } else m->least = s;
}
KVI_PRIVATE void kvi_lsm_merge_fail(kvi_lsm_merge *m, kv_status s) { m->status = s; m->least = NULL; }
KVI_PRIVATE void kvi_lsm_merge_order(kvi_lsm_merge *m)      /* all of them anew */
{
    m->least = NULL;
    for (uint32_t i = 0; i < m->count; i++) {
        kvi_lsm_source *s = &m->sources[i];
        if (s->valid) kvi_lsm_merge_place(m, s, NULL, false);
        else if (s->status < 0) { kvi_lsm_merge_fail(m, s->status); return; }
    }
}
/* `least` has moved on: to where it belongs now. */
KVI_INLINE void kvi_lsm_merge_moved(kvi_lsm_merge *m)
{
    kvi_lsm_source *s = m->least, *next = s->after;
    int             order;
    if (KVI_UNLIKELY(!s->valid)) {
        m->least = next;
        if (s->status < 0) kvi_lsm_merge_fail(m, s->status);
        return;
    }
    if (!next) return;
    order = kvi_lsm_source_order(s, next);
    if (KVI_LIKELY(kvi_lsm_source_before(s, next, order))) { s->same = order == 0; return; }
    m->least = next;
    kvi_lsm_merge_place(m, s, next, order == 0);
}
/* Step to the next entry. */
KVI_INLINE void kvi_lsm_merge_next(kvi_lsm_merge *m)
{
    kvi_lsm_source_next(m->least);
    kvi_lsm_merge_moved(m);
}
KVI_PRIVATE void kvi_lsm_merge_first(kvi_lsm_merge *m)
{
    m->status = KV_OK;
    for (uint32_t i = 0; i < m->count; i++) kvi_lsm_source_first(&m->sources[i]);
    kvi_lsm_merge_order(m);
}
/* All of them to the key, but for `except`, which is there or NULL. Each goes the same way of a few steps,
   and each step waits for memory: so they take it together, and what the next step of one looks at is
   fetched while the others do theirs. */
KVI_PRIVATE void kvi_lsm_merge_seek(kvi_lsm_merge *m, kv_slice key, const kvi_lsm_source *except)
{
    uint32_t i;
    m->status = KV_OK;
    for (i = 0; KVI_LSM_QUICK && i < m->count; i++) {
        kvi_lsm_source *s = &m->sources[i];
        if (s == except || s->memtable) continue;
        s->aimed = kvi_lsm_source_aim(s, kvi_lsm_tables_find(s->tables, s->table_count, key), key);
        if (s->aimed) kvi_lsm_source_ahead(s);
    }
    for (i = 0; KVI_LSM_QUICK && i < m->count; i++) {
        kvi_lsm_source *s = &m->sources[i];
        if (s == except || s->memtable || !s->aimed) continue;
        s->aimed = kvi_lsm_source_reach(s);
        if (s->aimed) kvi_lsm_page_ahead(s->page);
    }
    for (i = 0; i < m->count; i++) {
        kvi_lsm_source *s = &m->sources[i];
        if (s == except) continue;
        if (!KVI_LSM_QUICK || s->memtable) kvi_lsm_source_seek(s, key);
        else if (s->aimed) kvi_lsm_source_land(s, key);
    }
    kvi_lsm_merge_order(m);
}
KVI_PRIVATE void kvi_lsm_merge_close(kv_lsm *db, kvi_lsm_merge *m)
{
    for (uint32_t i = 0; i < m->count; i++) kvi_lsm_source_close(&m->sources[i]);
    kvi_free(&db->options.allocator, m->sources, m->count * sizeof *m->sources);
    m->sources = NULL;
    m->count = 0;
}

/* ------------------------------------------------------------------------------------------------
   >>read   one key: memtables, then level by level

   What a get costs: two atomic additions for the view, one filter word for each memtable, one filter
   line for each run that may hold the key, and then one block: index search, cache, bucket, one
   comparison.                                                                                      */

typedef struct kvi_lsm_found {
    kv_slice       value;
    bool           deleted;
    uint64_t       sequence;
    kvi_lsm_block *block;                   /* to be released */
    const kvi_lsm_table *table;             /* NULL: a memtable */
} kvi_lsm_found;

KVI_PRIVATE bool kvi_lsm_find_memtable(const kvi_lsm_memtable *m, kv_slice key, uint64_t hash, uint64_t sequence, kvi_lsm_found *found)
{
    const kvi_lsm_entry *e = kvi_lsm_memtable_perhaps(m, hash) ? kvi_lsm_memtable_seek(m, key, sequence, NULL) : NULL;
    if (!e || e->key_size != key.size || !kvi_equal(e->bytes, key.data, key.size)) return false;
    found->deleted = e->op == KVI_LSM_DELETE;
    found->sequence = e->sequence;
    found->value = kvi_lsm_entry_value(e);
    return true;
}

/* KV_OK: found; KV_NOT_FOUND: not in this table. */
KVI_PRIVATE kv_status kvi_lsm_find_table(kv_lsm *db, kvi_lsm_table *t, kv_slice key, uint64_t hash, uint64_t sequence, kvi_lsm_found *found)
{
    const kvi_lsm_index *x;
    const kvi_lsm_page  *page;
    kvi_lsm_page         own;
    kvi_lsm_block       *block;
    bool                 more;
    kv_status            s = kvi_lsm_table_index(db, t, &x);
    if (s < 0) return s;
    if (!kvi_lsm_index_perhaps(db, x, hash)) return KV_NOT_FOUND;
    for (uint32_t b = kvi_lsm_index_find(x, key); b < x->count; b++) {
        uint32_t i;
        s = kvi_lsm_page_get(db, t, x, b, KVI_LSM_WITH_BUCKETS, true, &own, &block, &page);
        if (s < 0) return s;
        i = kvi_lsm_page_find(page, key, hash, sequence, &more);
        if (i < page->count) {
            found->deleted = kvi_lsm_page_deleted(page, i);
            found->sequence = kvi_lsm_page_sequence(page, i);
            found->value = kvi_lsm_page_value(page, i);
            found->block = block;
            found->table = t;
            return KV_OK;
        }
        kvi_lsm_block_release(db, block);
        if (!more) break;                                   /* older versions of the key may go on in the next block */
    }
    return KV_NOT_FOUND;
}

/* The newest entry of the key at or below the sequence. KV_OK (also for a delete: see found),
   KV_NOT_FOUND, or why it is not known. */
KVI_PRIVATE kv_status kvi_lsm_find(kv_lsm *db, const kvi_lsm_view *view, kv_slice key, uint64_t sequence, kvi_lsm_found *found)
{
    const kvi_lsm_version *v = view->version;
    uint64_t               hash = kvi_hash(key.data, key.size, db->hash_seed);
    found->block = NULL;
    found->table = NULL;
    if (kvi_lsm_find_memtable(view->active, key, hash, sequence, found)) return KV_OK;
    for (uint32_t i = 0; i < view->frozen_count; i++) if (kvi_lsm_find_memtable(view->frozen[i], key, hash, sequence, found)) return KV_OK;
    for (uint32_t r = 0; r < v->run_count; r++) {
        const kvi_lsm_run *run = &v->runs[r];
        kvi_lsm_table     *t;
        kv_status          s;
        uint32_t           i = run->count == 1 ? 0 : kvi_lsm_tables_find(v->tables + run->first, run->count, key);
        if (i == run->count) continue;
        t = v->tables[run->first + i];
        if (kvi_compare(t->smallest, key) > 0 || (run->count == 1 && kvi_compare(t->largest, key) < 0)) continue;
        s = kvi_lsm_find_table(db, t, key, hash, sequence, found);
        if (s != KV_NOT_FOUND) return s;
    }
    return KV_NOT_FOUND;
}

/* What `visit` is shown is pinned: the view holds the memtable, the block is held. */
KVI_PRIVATE kv_status kvi_lsm_view_key(kv_lsm *db, const kv_snapshot *snapshot, kv_slice key, kv_visit_fn visit, void *user, kv_buf *copy)
{
    kvi_lsm_view *view = kvi_lsm_view_get(db);
    kvi_lsm_found found;
    kv_status     s;
    if (KVI_UNLIKELY(!view)) return kvi_lsm_is_closed(db);
    s = kvi_lsm_find(db, view, key, snapshot ? snapshot->sequence : kvi_load_u64(&db->visible), &found);
    if (s == KV_OK && found.deleted) s = KV_NOT_FOUND;
    if (s == KV_OK && copy) { s = kv_buf_assign(copy, found.value); if (s < 0) (void)kvi_lsm_error(db, s, NULL); }
    else if (s == KV_OK && visit) (void)visit(user, key, found.value);
    kvi_lsm_block_release(db, found.block);
    kvi_lsm_view_release(db, view);
    return s;
}

/* ------------------------------------------------------------------------------------------------
   >>write   writers in a queue; the first one leads and takes those behind it along

   Invariant W1: only the leader appends to logs, syncs them, inserts into the memtable and rotates.
   Invariant W2: an entry becomes visible after it is in the log (and durable, where that was asked
                 for), and all entries of a group at once.                                          */

KVI_PRIVATE kv_status kvi_lsm_work_step(kv_lsm *db);

KVI_PRIVATE void kvi_lsm_wake(kv_lsm *db)                   /* under mutex: there is work */
{
    db->work_pending = true;
    kvi_cond_signal(&db->work_wanted);
}

/* Wait in the queue until this writer leads (true), or was taken along (false: w->status). Takes the
   mutex, and holds it where the answer is true. */
KVI_PRIVATE bool kvi_lsm_enter(kv_lsm *db, kvi_lsm_writer *w)
{
    bool done;
    kvi_mutex_lock(&db->mutex);
    if (KVI_UNLIKELY(db->closing && !w->begun)) {
        w->status = kvi_lsm_is_closed(db);
        kvi_mutex_unlock(&db->mutex);
        return false;
    }
    if (!KVI_THREADS) return true;
    w->next = NULL;
    *db->writers_end = w;
    db->writers_end = &w->next;
    kvi_poke_u32(&db->queued, db->queued + 1);
    if (db->writers == w) return true;
    if (kvi_cond_init(&w->cond)) {
        w->waiting = true;
        while (!w->done && db->writers != w) kvi_cond_wait(&w->cond, &db->mutex);
        w->waiting = false;
        kvi_cond_destroy(&w->cond);
    } else while (!w->done && db->writers != w) {           /* no condition to be had: look again and again */
        kvi_mutex_unlock(&db->mutex);
        kvi_yield();
        kvi_mutex_lock(&db->mutex);
    }
    done = w->done;
    if (done) { db->woken--; kvi_mutex_unlock(&db->mutex); }
    return !done;
}
/* End the group that ends with `last`; the leader's mutex is given up. */
KVI_PRIVATE void kvi_lsm_leave(kv_lsm *db, kvi_lsm_writer *leader, kvi_lsm_writer *last, kv_status status)
{
    while (KVI_THREADS) {
        kvi_lsm_writer *w = db->writers;
        db->writers = w->next;
        if (!db->writers) db->writers_end = &db->writers;
        kvi_poke_u32(&db->queued, db->queued - 1);
        w->status = status;
        w->done = true;
        if (w != leader) { db->woken++; if (w->waiting) kvi_cond_signal(&w->cond); }
        if (w == last) break;
    }
    if (KVI_THREADS && db->writers && db->writers->waiting) kvi_cond_signal(&db->writers->cond);
    kvi_mutex_unlock(&db->mutex);
}

/* A new memtable with a new log; the full one waits for its flush. By the leader, without the mutex.
   A failure changes nothing. */
KVI_PRIVATE kv_status kvi_lsm_rotate(kv_lsm *db)
{
    kvi_lsm_memtable *fresh = kvi_lsm_memtable_new(db, db->active);
    kvi_lsm_view     *view = (kvi_lsm_view *)kvi_alloc(&db->options.allocator, sizeof *view), *old;
    kvi_lsm_log      *log = NULL;
    kv_status         s = fresh && view ? KV_OK : kvi_lsm_no_memory(db);
    if (s == KV_OK) s = kvi_lsm_log_new(db, db->sequence, db->log->number, db->log->durable == db->log->size, &log);
    if (s < 0) {
        if (fresh) kvi_lsm_memtable_free(db, fresh);
        kvi_free(&db->options.allocator, view, sizeof *view);
        return s;
    }
    kvi_lsm_log_unmap(db, db->log);
    fresh->log = log;
#if KVI_LSM_QUICK
    kvi_lsm_guide_pass(db->active, fresh);
#endif
    kvi_mutex_lock(&db->mutex);
    db->active->last_sequence = db->sequence;
    kvi_poke_u64(&db->rotated_ms, kvi_now_ms());
    for (uint32_t i = db->frozen_count++; i > 0; i--) db->frozen[i] = db->frozen[i - 1];
    db->frozen[0] = db->active;
    db->active = fresh;
    db->log = log;
    old = kvi_lsm_view_switch(db, view);
    kvi_lsm_wake(db);
    kvi_mutex_unlock(&db->mutex);
    kvi_lsm_view_release(db, old);
    return KV_OK;
}

/* The same entries in a new memtable, whose heads leave out what the keys share by now: the first one of
   a store knows no prefix, and keys that are alike in their first eight bytes would all be compared whole.
   By the leader, without the mutex. Where there is no memory, all stays as it is. */
KVI_PRIVATE void kvi_lsm_reorder(kv_lsm *db)
{
    kvi_lsm_memtable *m = db->active, *fresh = kvi_lsm_memtable_new(db, m);
    kvi_lsm_view     *view = (kvi_lsm_view *)kvi_alloc(&db->options.allocator, sizeof *view), *old;
    if (!fresh || !view || !kvi_lsm_memtable_reserve_entries(db, fresh, (size_t)m->count, (size_t)m->key_bytes, (size_t)m->value_bytes)) {
        if (fresh) kvi_lsm_memtable_free(db, fresh);
        kvi_free(&db->options.allocator, view, sizeof *view);
        return;
    }
    for (const kvi_lsm_entry *e = kvi_lsm_next(m->head, 0); e; e = kvi_lsm_next(e, 0))
        kvi_lsm_memtable_insert(db, fresh, e->op, kvi_lsm_entry_key(e), kvi_lsm_entry_value(e), e->sequence);
    fresh->review_at = m->review_at;
    fresh->log = m->log;
    kvi_add_u32(&fresh->log->refs, 1);
    kvi_mutex_lock(&db->mutex);
    db->active = fresh;
    old = kvi_lsm_view_switch(db, view);
    kvi_mutex_unlock(&db->mutex);
    kvi_lsm_view_release(db, old);
    kvi_lsm_memtable_release(db, m);
}
/* Is it worth that? Asked after a few entries, and after some more. */
KVI_PRIVATE void kvi_lsm_review(kv_lsm *db)
{
    kvi_lsm_memtable *m = db->active;
    size_t            shared = m->shared_size < sizeof m->prefix ? m->shared_size : sizeof m->prefix;
    m->review_at = m->review_at < KVI_LSM_REVIEW_LAST ? m->review_at * 16 : 0;
    if ((shared < m->prefix_size || shared >= m->prefix_size + 3) && m->used_bytes <= KVI_LSM_REVIEW_BYTES) kvi_lsm_reorder(db);
}

/* Everything logged is on stable storage when this returns KV_OK: older logs first (L2). By the leader. */
KVI_PRIVATE kv_status kvi_lsm_sync_logs(kv_lsm *db)
{
    kvi_lsm_log *logs[KVI_LSM_FROZEN_MAX + 2];
    uint32_t     count = 0;
    kv_status    s = KV_OK;
    if (KVI_MUTANT(KVI_MUTANT_NO_SYNC)) return KV_OK;
    kvi_mutex_lock(&db->mutex);
    for (uint32_t i = db->frozen_count; i-- > 0;) { logs[count++] = db->frozen[i]->log; kvi_add_u32(&db->frozen[i]->log->refs, 1); }
    kvi_mutex_unlock(&db->mutex);
    for (uint32_t i = 0; i < count; i++) {
        if (s == KV_OK && !KVI_MUTANT(KVI_MUTANT_OLD_LOG)) s = kvi_lsm_log_sync(db, logs[i]);
        kvi_lsm_log_release(db, logs[i]);
    }
    if (s == KV_OK) s = kvi_lsm_log_sync(db, db->log);
    if (s < 0) kvi_lsm_poison(db, s);
    return s;
}

/* May the logs still be synced? Also in a read-only store, whose acknowledged writes are promised to be:
   but not after a failed sync, nor a log to which an append failed. Under mutex. */
KVI_PRIVATE bool kvi_lsm_can_sync(const kv_lsm *db) { return !db->poisoned && !db->options.read_only && !db->log->failed; }

/* Everything written so far is on stable storage, as far as it can be, before a leader does what takes
   long. With the mutex, which is given up meanwhile. */
KVI_PRIVATE kv_status kvi_lsm_settle(kv_lsm *db)
{
    kv_status s;
    if (!kvi_lsm_can_sync(db)) return kvi_lsm_is_broken(db);
    if (!db->unsynced_since_ms && !db->sync_wanted) return KV_OK;
    kvi_mutex_unlock(&db->mutex);
    s = kvi_lsm_sync_logs(db);
    kvi_mutex_lock(&db->mutex);
    if (s == KV_OK) { db->unsynced_since_ms = 0; db->sync_wanted = false; }
    return s;
}
/* Let background work go on until something changes. By the leader, with the mutex, which is given up
   meanwhile. */
KVI_PRIVATE kv_status kvi_lsm_wait_work(kv_lsm *db)
{
    uint64_t  start = kvi_now_ns();
    kv_status s = KV_OK;
    if (KVI_THREADS && db->sync_wanted) s = kvi_lsm_settle(db);            /* the sync thread waits for no leader, who may wait for long */
    else if (KVI_THREADS && db->has_thread) {
        kvi_lsm_wake(db);
        kvi_cond_wait_ms(&db->work_done, &db->mutex, 1000);
        if (db->background < 0) s = kvi_lsm_error(db, db->background, NULL);
    } else {
        kvi_mutex_unlock(&db->mutex);
        s = kvi_lsm_work_step(db);
        if (s == KV_END) s = KV_OK;
        kvi_mutex_lock(&db->mutex);
    }
    if (KVI_LSM_STATS) db->stall_ns += kvi_now_ns() - start;
    return s;
}
/* Level 0 grows faster than it is merged: slow down, the more the nearer it is to the stop. */
KVI_PRIVATE void kvi_lsm_slow_down(kv_lsm *db, uint32_t tables, size_t bytes)
{
    uint32_t slow = db->options.l0_trigger * KVI_LSM_SLOW_TIMES, stop = db->options.l0_trigger * KVI_LSM_STOP_TIMES;
    size_t   allowed = (size_t)(stop - tables) * 65536 / (stop - slow) + 1024;
    uint64_t start;
    db->slow_bytes += bytes;
    if (db->slow_bytes < allowed) return;
    db->slow_bytes = 0;
    start = kvi_now_ns();
    kvi_lsm_wake(db);
    kvi_mutex_unlock(&db->mutex);
    if (KVI_THREADS && db->has_thread) kvi_sleep_ms(1); else (void)kvi_lsm_work_step(db);
    kvi_mutex_lock(&db->mutex);
    if (KVI_LSM_STATS) db->stall_ns += kvi_now_ns() - start;
}

/* Room in the active memtable for a write of so many bytes. By the leader, with the mutex. */
KVI_PRIVATE kv_status kvi_lsm_make_room(kv_lsm *db, size_t bytes)
{
    bool slowed = false;
    for (;;) {
        uint32_t  l0 = db->version->levels[0].runs;
        kv_status s = kvi_lsm_is_broken(db);
        if (s < 0) return s;
        if (db->active->count == 0 || kvi_peek_size(&db->active->used_bytes) + bytes <= db->options.memtable_bytes) {
            if (KVI_UNLIKELY(l0 >= db->options.l0_trigger * KVI_LSM_SLOW_TIMES && l0 < db->options.l0_trigger * KVI_LSM_STOP_TIMES && !slowed)) {
                slowed = true;
                kvi_lsm_slow_down(db, l0, bytes);
                continue;
            }
            return KV_OK;
        }
        if (db->frozen_count >= KVI_LSM_FROZEN_MAX || l0 >= db->options.l0_trigger * KVI_LSM_STOP_TIMES) s = kvi_lsm_wait_work(db);
        else {
            kvi_mutex_unlock(&db->mutex);
            s = kvi_lsm_rotate(db);
            if (s < 0 && s != KV_ERR_NO_MEMORY) kvi_lsm_break(db, s, false);
            kvi_mutex_lock(&db->mutex);
        }
        if (s < 0) return s;
    }
}

/* ---- one record for a group ---- */

KVI_INLINE size_t kvi_lsm_op_size(uint8_t op, kv_slice key, kv_slice value)
{
    return 1 + kvi_lsm_varint_size(key.size) + key.size + (op == KVI_LSM_SET ? kvi_lsm_varint_size(value.size) + value.size : 0);
}
KVI_INLINE uint8_t *kvi_lsm_put_op(uint8_t *to, uint8_t op, kv_slice key, kv_slice value)
{
    *to++ = op;
    to = kvi_lsm_put_varint(to, key.size);
    if (op == KVI_LSM_SET) to = kvi_lsm_put_varint(to, value.size);
    kvi_copy(to, key.data, key.size);
    to += key.size;
    if (op != KVI_LSM_SET) return to;
    kvi_copy(to, value.data, value.size);
    return to + value.size;
}
/* The next entry of a log payload or batch. False: these bytes are none. */
KVI_INLINE bool kvi_lsm_read_op(kvi_lsm_reader *r, uint8_t *op, kv_slice *key, kv_slice *value)
{
    uint64_t key_size, value_size = 0;
    if (r->at == r->end) return false;
    *op = *r->at++;
    if (*op != KVI_LSM_SET && *op != KVI_LSM_DELETE) return false;
    key_size = kvi_lsm_read_varint(r);
    if (*op == KVI_LSM_SET) value_size = kvi_lsm_read_varint(r);
    if (key_size > KV_KEY_SIZE_MAX || value_size > KV_VALUE_SIZE_MAX) return false;
    *key = kvi_lsm_read_bytes(r, key_size);
    *value = kvi_lsm_read_bytes(r, value_size);
    return !r->bad;
}
KVI_INLINE size_t kvi_lsm_writer_size(const kvi_lsm_writer *w) { return w->op ? kvi_lsm_op_size(w->op, w->key, w->value) : w->ops.size; }

typedef struct kvi_lsm_group { kvi_lsm_writer *first, *last; uint32_t count, writers; size_t size, key_bytes, value_bytes; bool sync; } kvi_lsm_group;

KVI_PRIVATE kvi_lsm_group kvi_lsm_gather_one(kvi_lsm_writer *w)
{
    kvi_lsm_group g;
    memset(&g, 0, sizeof g);
    g.first = g.last = w;
    g.writers = 1;
    g.count = w->count;
    g.size = w->count ? kvi_lsm_writer_size(w) : 0;
    g.key_bytes = w->key_bytes;
    g.value_bytes = w->value_bytes;
    g.sync = w->sync;
    return g;
}
/* Who comes along: those behind the leader, as long as the record stays of moderate size. */
KVI_PRIVATE kvi_lsm_group kvi_lsm_gather(kvi_lsm_writer *leader)
{
    kvi_lsm_group g = kvi_lsm_gather_one(leader);
    for (kvi_lsm_writer *w = leader->next; w; w = w->next) {
        size_t size = w->count ? kvi_lsm_writer_size(w) : 0;
        if (w->alone || leader->alone || g.size + size > KVI_LSM_GROUP_BYTES) break;
        g.last = w;
        g.writers++;
        g.count += w->count;
        g.size += size;
        g.key_bytes += w->key_bytes;
        g.value_bytes += w->value_bytes;
        if (w->sync) g.sync = true;
    }
    return g;
}

/* Append db->record, whose payload is complete, to the log. */
KVI_PRIVATE kv_status kvi_lsm_append_record(kv_lsm *db, uint64_t sequence)
{
    kvi_lsm_log *log = db->log;
    uint8_t     *window = NULL;
    kv_status    s = KV_OK;
    kvi_lsm_record_header((uint8_t *)db->record.data, kvi_lsm_seed(db->id, log->number, KVI_LSM_LOG) + log->size,
                          db->record.size - KVI_LSM_RECORD_SIZE, sequence, log->durable);
    if (KVI_LSM_MAPS && log->mapped) window = kvi_lsm_log_window(db, log, db->record.size);
    if (window) memcpy(window, db->record.data, db->record.size);
    else if ((KVI_LSM_MAPS && log->longer) || (KVI_FILES && db->io == kv_io_default())) s = db->io->write_at(db->io->user, log->file, log->size, db->record.data, db->record.size);
    else s = db->io->append(db->io->user, log->file, db->record.data, db->record.size);   /* the system's own would ask where the end is */
    if (KVI_MUTANT(KVI_MUTANT_APPEND_ERROR) && s < 0) s = KV_OK;
    if (s < 0) {
        kvi_lsm_log_fail(db, log);
        kvi_lsm_break(db, kvi_lsm_fail_file(db, s, "cannot write", KVI_LSM_LOG, log->number, log->size), false);
        return s;
    }
    kvi_poke_u64(&log->size, log->size + db->record.size);
    if (KVI_LSM_STATS) kvi_poke_u64(&db->log_written, db->log_written + db->record.size);
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_lsm_append_split(kv_lsm *db, const kvi_lsm_group *g)      /* a mutant: see KVI_MUTANT_BATCH_SPLIT */
{
    kv_buf         whole;
    kvi_lsm_reader r;
    uint64_t       sequence = db->sequence;
    uint8_t        op;
    kv_slice       key, value;
    kv_status      s = KV_OK;
    memset(&whole, 0, sizeof whole);
    if (kv_buf_assign(&whole, kv_buf_slice(&db->record)) < 0) return KV_ERR_NO_MEMORY;
    r = kvi_lsm_read_over((const uint8_t *)whole.data + KVI_LSM_RECORD_SIZE + 5, whole.size - KVI_LSM_RECORD_SIZE - 5);
    for (uint32_t i = 0; s == KV_OK && i < g->count && kvi_lsm_read_op(&r, &op, &key, &value); i++) {
        kvi_store_le32((uint8_t *)db->record.data + KVI_LSM_RECORD_SIZE + 1, 1);
        db->record.size = (size_t)(kvi_lsm_put_op((uint8_t *)db->record.data + KVI_LSM_RECORD_SIZE + 5, op, key, value) - (uint8_t *)db->record.data);
        s = kvi_lsm_append_record(db, ++sequence);
    }
    kv_buf_free(&whole);
    return s;
}

/* Log the group. */
KVI_PRIVATE kv_status kvi_lsm_log_group(kv_lsm *db, const kvi_lsm_group *g)
{
    size_t   size = KVI_LSM_RECORD_SIZE + 5 + g->size;
    uint8_t *at;
    db->record.size = 0;
    if (g->size > KV_LSM_BATCH_SIZE_MAX) return kvi_lsm_error(db, KV_ERR_TOO_LARGE, "the batch is over its limit");
    if (db->record.capacity < size && kv_buf_reserve(&db->record, size < 4096 ? 4096 : size < 4u << 20 ? size + size / 4 : size) < 0) return kvi_lsm_no_memory(db);
    at = (uint8_t *)db->record.data + KVI_LSM_RECORD_SIZE;
    *at++ = KVI_LSM_LOG_GROUP;
    kvi_store_le32(at, g->count);
    at += 4;
    for (const kvi_lsm_writer *w = g->first;; w = w->next) {
        if (w->op) at = kvi_lsm_put_op(at, w->op, w->key, w->value);
        else { kvi_copy(at, w->ops.data, w->ops.size); at += w->ops.size; }
        if (!KVI_THREADS || w == g->last) break;
    }
    db->record.size = size;
    if (KVI_MUTANT(KVI_MUTANT_BATCH_SPLIT) && g->count > 1) return kvi_lsm_append_split(db, g);
    return kvi_lsm_append_record(db, db->sequence + 1);
}

KVI_PRIVATE void kvi_lsm_insert_group(kv_lsm *db, const kvi_lsm_group *g)
{
    uint64_t sequence = db->sequence;
    for (const kvi_lsm_writer *w = g->first;; w = w->next) {
        if (w->op) kvi_lsm_memtable_insert(db, db->active, w->op, w->key, w->value, ++sequence);
        else {
            kvi_lsm_reader r = kvi_lsm_read_over(w->ops.data, w->ops.size);
            uint8_t        op;
            kv_slice       key, value;
            while (kvi_lsm_read_op(&r, &op, &key, &value)) kvi_lsm_memtable_insert(db, db->active, op, key, value, ++sequence);
        }
        if (!KVI_THREADS || w == g->last) break;
    }
    db->sequence = sequence;
}

/* Do what the group wants. By the leader, without the mutex. */
KVI_PRIVATE kv_status kvi_lsm_write_group(kv_lsm *db, const kvi_lsm_group *g)
{
    kv_status s;
    if (g->count) {
        if (!kvi_lsm_memtable_reserve_entries(db, db->active, g->count, g->key_bytes, g->value_bytes)) return kvi_lsm_no_memory(db);
        s = kvi_lsm_log_group(db, g);
        if (s < 0) return s;
    }
    if (g->sync) {
        s = kvi_lsm_sync_logs(db);
        if (s < 0) return s;
    }
    if (g->count) {
        kvi_lsm_insert_group(db, g);
        kvi_store_u64(&db->visible, db->sequence);
        if (KVI_LSM_STATS) kvi_poke_u64(&db->user_bytes, db->user_bytes + g->key_bytes + g->value_bytes);
        if (KVI_LSM_QUICK && KVI_UNLIKELY(db->active->review_at && db->active->count >= db->active->review_at)) kvi_lsm_review(db);
    }
    if (db->record.capacity > 4u << 20) kv_buf_free(&db->record);
    return KV_OK;
}

/* Writers whose group was synced just now come back while the next leader would already sync for those
   who came meanwhile: the two halves would take turns for ever. So it waits for them, for a part of what
   it saves; where they do not come, the next leaders do not wait. With the mutex, which is given up. */
KVI_PRIVATE void kvi_lsm_await_company(kv_lsm *db)
{
    uint32_t company = db->company, before = db->queued;
    uint64_t limit = db->sync_ns / 2 < 1000000 ? db->sync_ns / 2 : 1000000, start;
    if (before >= company) return;
    if (db->alone_groups) { db->alone_groups--; return; }
    kvi_mutex_unlock(&db->mutex);
    start = kvi_now_ns();
    while (kvi_peek_u32(&db->queued) < company && kvi_now_ns() - start < limit) kvi_yield();
    kvi_mutex_lock(&db->mutex);
    if (db->queued == before) db->alone_groups = 15;
}

/* The leader's turn: room, group, write. With the mutex, which is given up. */
KVI_PRIVATE kv_status kvi_lsm_lead(kv_lsm *db, kvi_lsm_writer *w)
{
    kvi_lsm_group g;
    uint64_t      start = 0;
    kv_status     s;
    if (KVI_THREADS && w->sync) kvi_lsm_await_company(db);
    if (w->count) s = kvi_lsm_make_room(db, kvi_lsm_entries_bound(w->count, w->key_bytes, w->value_bytes));
    else s = kvi_lsm_can_sync(db) ? KV_OK : kvi_lsm_is_broken(db);
    if (s < 0) { kvi_lsm_leave(db, w, w, s); return s; }
    g = KVI_THREADS ? kvi_lsm_gather(w) : kvi_lsm_gather_one(w);
    if (KVI_THREADS && db->broken < 0) g = kvi_lsm_gather_one(w);          /* only a sync may go on: those behind learn why they may not */
    if (KVI_THREADS && db->sync_wanted) g.sync = true;
    kvi_mutex_unlock(&db->mutex);
    if (KVI_THREADS && g.sync) start = kvi_now_ns();
    s = kvi_lsm_write_group(db, &g);
    if (KVI_THREADS && g.sync) start = kvi_now_ns() - start;
    kvi_mutex_lock(&db->mutex);
    if (KVI_LSM_STATS) { db->groups++; db->writes += g.writers; }
    if (KVI_THREADS && g.sync) { db->sync_ns = db->sync_ns - db->sync_ns / 8 + start / 8; db->company = db->queued; }
    if (g.sync && s == KV_OK) { db->unsynced_since_ms = 0; db->sync_wanted = false; }
    else if (g.count && s == KV_OK && db->options.sync == KV_SYNC_BATCH && !db->unsynced_since_ms) {
        db->unsynced_since_ms = kvi_now_ms() + 1;
        kvi_cond_signal(&db->sync_soon);
    }
    kvi_lsm_leave(db, w, g.last, s);
    return s;
}
KVI_PRIVATE kv_status kvi_lsm_commit(kv_lsm *db, kvi_lsm_writer *w)
{
    return kvi_lsm_enter(db, w) ? kvi_lsm_lead(db, w) : w->status;
}
/* Lead alone, without the mutex, to read or change what only a leader may; end it with
   kvi_lsm_lead_alone_end, or with kvi_lsm_lead (mutex taken) to write as well. */
KVI_PRIVATE kv_status kvi_lsm_lead_alone(kv_lsm *db, kvi_lsm_writer *w)
{
    w->alone = true;                                        /* so nobody takes it along: not to lead is to be refused */
    if (!kvi_lsm_enter(db, w)) return w->status;
    kvi_mutex_unlock(&db->mutex);
    return KV_OK;
}
/* The same for what takes long, or waits: nobody syncs meanwhile, so nothing is left that would have to
   be. Of a call that has begun. */
KVI_PRIVATE kv_status kvi_lsm_lead_long(kv_lsm *db, kvi_lsm_writer *w)
{
    kv_status s;
    w->alone = w->begun = true;
    (void)kvi_lsm_enter(db, w);
    s = kvi_lsm_settle(db);
    kvi_mutex_unlock(&db->mutex);
    return s;
}
KVI_PRIVATE void kvi_lsm_lead_alone_end(kv_lsm *db, kvi_lsm_writer *w)
{
    kvi_mutex_lock(&db->mutex);
    kvi_lsm_leave(db, w, w, KV_OK);
}

KVI_PRIVATE void kvi_lsm_writer_init(kv_lsm *db, kvi_lsm_writer *w, uint8_t op, kv_slice key, kv_slice value)
{
    w->next = NULL;
    w->count = op ? 1 : 0;
    w->op = op;
    w->sync = db->options.sync == KV_SYNC_WRITE;
    w->done = w->waiting = w->alone = w->begun = false;
    w->key = key;
    w->value = value;
    w->ops = kv_bytes(NULL, 0);
    w->key_bytes = key.size;
    w->value_bytes = value.size;
    w->status = KV_OK;
}
KVI_PRIVATE kv_status kvi_lsm_write_one(kv_lsm *db, uint8_t op, kv_slice key, kv_slice value)
{
    kvi_lsm_writer w;
    if (KVI_LSM_QUICK) {                                    /* they arrive while the writer enters the queue */
        kvi_prefetch(key.data);
        if (key.size > 64) kvi_prefetch((const uint8_t *)key.data + 64);
        if (value.size) kvi_prefetch(value.data);           /* NULL would be looked up in vain each time */
        if (value.size > 64) kvi_prefetch((const uint8_t *)value.data + 64);
    }
    kvi_lsm_writer_init(db, &w, op, key, value);
    return kvi_lsm_commit(db, &w);
}
KVI_PRIVATE kv_status kvi_lsm_write_batch(kv_lsm *db, const kv_lsm_batch *b)
{
    kvi_lsm_writer w;
    if (b->count == 0) return KV_OK;
    kvi_lsm_writer_init(db, &w, 0, kv_bytes(NULL, 0), kv_bytes(NULL, 0));
    w.count = b->count;
    w.ops = kv_buf_slice(&b->ops);
    w.key_bytes = b->key_bytes;
    w.value_bytes = b->value_bytes;
    if (db->options.sync != KV_SYNC_NONE) w.sync = true;
    return kvi_lsm_commit(db, &w);
}
/* Of a call that has begun, or of the store itself. */
KVI_PRIVATE kv_status kvi_lsm_sync_now(kv_lsm *db)
{
    kvi_lsm_writer w;
    kvi_lsm_writer_init(db, &w, 0, kv_bytes(NULL, 0), kv_bytes(NULL, 0));
    w.sync = w.begun = true;
    return kvi_lsm_commit(db, &w);
}

/* ------------------------------------------------------------------------------------------------
   >>flush   jobs: a flush turns the oldest frozen memtable into a run of level 0 (one table, but where
   its index would become too large), a merge turns tables into tables. Both are a merge of sources into a builder, in pieces.

   Which entries are written. Snapshots cut the sequence numbers into stripes; of one key only the
   newest entry of each stripe can ever be read. A delete in the lowest stripe, with nothing older of
   its key below the merge, hides nothing any more. And what is the oldest of its key everywhere, in
   the lowest stripe, needs no sequence number: 0 will do, and packs better.
   Invariant F1: entries read = entries written + versions dropped + tombstones dropped.           */

typedef struct kvi_lsm_job {
    bool              flush, building;
    bool              committed;            /* the outputs are the store's */
    bool              moves;                /* the outputs are the inputs' files, in another level: see kvi_lsm_move */
    kvi_lsm_memtable *memtable;             /* of a flush */
    kvi_lsm_version  *base;                 /* the version that it was planned with */
    kvi_lsm_table   **inputs;               /* of a merge; the base holds them */
    uint32_t          input_count;
    kvi_lsm_table   **outputs;
    uint32_t          output_count, output_capacity;
    uint32_t          level;                /* of the outputs */
    uint64_t          age;
    uint64_t         *snapshots;            /* ascending */
    uint32_t          snapshot_count;
    kvi_lsm_merge     merge;
    kvi_lsm_builder   builder;
    kv_buf            key;                  /* of the entry before */
    bool              has_key;
    uint32_t          stripe;               /* of the entry before */
    uint32_t         *below;                /* for each run of the base: the first table that may hold a key to come */
    uint64_t          entries_in, entries_out, versions_dropped, tombstones_dropped, input_bytes, input_entries;
} kvi_lsm_job;

KVI_PRIVATE void kvi_lsm_job_free(kv_lsm *db, kvi_lsm_job *j, bool keep_files)
{
    const kv_allocator *a = &db->options.allocator;
    if (!j) return;
    if (j->building) {
        if (keep_files && j->builder.file) { (void)db->io->close(db->io->user, j->builder.file); j->builder.file = NULL; }
        kvi_lsm_builder_abandon(&j->builder);
    }
    kvi_lsm_builder_free(&j->builder);
    kvi_lsm_merge_close(db, &j->merge);
    for (uint32_t i = 0; i < j->output_count; i++) {
        if (!keep_files && !j->committed && !(KVI_SMALL && j->moves)) j->outputs[i]->obsolete = true;
        kvi_lsm_table_release(db, j->outputs[i]);
    }
    for (uint32_t i = 0; i < j->input_count; i++) j->inputs[i]->merging = false;
    kvi_free(a, j->outputs, j->output_capacity * sizeof *j->outputs);
    kvi_free(a, j->inputs, j->input_count * sizeof *j->inputs);
    kvi_free(a, j->snapshots, j->snapshot_count * sizeof *j->snapshots);
    kvi_free(a, j->below, j->base ? j->base->run_count * sizeof *j->below : 0);
    kv_buf_free(&j->key);
    kvi_lsm_memtable_release(db, j->memtable);
    kvi_lsm_version_release(db, j->base);
    kvi_free(a, j, sizeof *j);
}

/* A job without sources. */
KVI_PRIVATE kvi_lsm_job *kvi_lsm_job_new(kv_lsm *db, uint32_t level, uint64_t age)
{
    kvi_lsm_job *j = (kvi_lsm_job *)kvi_alloc_zero(&db->options.allocator, sizeof *j);
    kv_snapshot *snapshot;
    uint32_t     i = 0;
    if (!j) return NULL;
    j->level = level;
    j->age = age;
    j->key.allocator = db->options.allocator;
    kvi_lsm_builder_init(&j->builder, db);
    kvi_mutex_lock(&db->mutex);
    j->base = db->version;
    kvi_add_u32(&j->base->refs, 1);
    for (snapshot = db->snapshots.next; snapshot != &db->snapshots; snapshot = snapshot->next) j->snapshot_count++;
    if (j->snapshot_count) {
        j->snapshots = (uint64_t *)kvi_alloc(&db->options.allocator, j->snapshot_count * sizeof *j->snapshots);
        if (j->snapshots) for (snapshot = db->snapshots.next; snapshot != &db->snapshots; snapshot = snapshot->next) j->snapshots[i++] = snapshot->sequence;
    }
    kvi_mutex_unlock(&db->mutex);
    if (j->base->run_count) j->below = (uint32_t *)kvi_alloc_zero(&db->options.allocator, j->base->run_count * sizeof *j->below);
    if ((j->snapshot_count && !j->snapshots) || (j->base->run_count && !j->below)) {
        if (!j->snapshots) j->snapshot_count = 0;
        kvi_lsm_job_free(db, j, false);
        return NULL;
    }
    return j;
}
KVI_PRIVATE bool kvi_lsm_job_sources(kv_lsm *db, kvi_lsm_job *j, uint32_t count)
{
    j->merge.sources = (kvi_lsm_source *)kvi_alloc_zero(&db->options.allocator, count * sizeof *j->merge.sources);
    if (!j->merge.sources) return false;
    j->merge.count = count;
    for (uint32_t i = 0; i < count; i++) j->merge.sources[i].db = db;
    return true;
}

/* How many snapshots cannot see an entry with this number: equal numbers, equal readers. */
KVI_PRIVATE uint32_t kvi_lsm_stripe(const kvi_lsm_job *j, uint64_t sequence)
{
    uint32_t low = 0, high = j->snapshot_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (j->snapshots[middle] < sequence) low = middle + 1; else high = middle;
    }
    return low;
}
/* May an older entry of the key be in a table that is not merged? Keys come in order. */
KVI_PRIVATE bool kvi_lsm_older_below(kvi_lsm_job *j, kv_slice key)
{
    const kvi_lsm_version *v = j->base;
    if (KVI_MUTANT(KVI_MUTANT_TOMBSTONE) && !j->flush) return false;
    for (uint32_t r = v->levels[j->level].runs ? v->levels[j->level].first_run : 0; r < v->run_count; r++) {
        const kvi_lsm_run *run = &v->runs[r];
        uint32_t          *at = &j->below[r];
        if (v->tables[run->first]->level < j->level) continue;
        while (*at < run->count && kvi_compare(v->tables[run->first + *at]->largest, key) < 0) ++*at;
        if (*at < run->count && (j->flush || !v->tables[run->first + *at]->merging) && kvi_compare(v->tables[run->first + *at]->smallest, key) <= 0) return true;
    }
    return false;
}

KVI_PRIVATE kv_status kvi_lsm_job_output(kv_lsm *db, kvi_lsm_job *j, kv_slice extra)      /* end the table that is being built */
{
    kvi_lsm_table *t;
    kv_status      s;
    if (j->output_count == j->output_capacity) {
        uint32_t        wanted = j->output_capacity ? j->output_capacity * 2 : 8;
        kvi_lsm_table **grown = (kvi_lsm_table **)kvi_resize(&db->options.allocator, j->outputs, j->output_capacity * sizeof *j->outputs, wanted * sizeof *j->outputs);
        if (!grown) return kvi_lsm_no_memory(db);
        j->outputs = grown;
        j->output_capacity = wanted;
    }
    s = kvi_lsm_builder_end(&j->builder, extra, &t);
    if (s < 0) return s;
    j->building = false;
    j->outputs[j->output_count++] = t;
    KVI_LSM_COUNT(&db->level_written[j->level], t->size);
    return KV_OK;
}

/* In the last table of a merge: which tables all of it replaces, and all that it made. */
KVI_PRIVATE kv_status kvi_lsm_job_extra(kvi_lsm_job *j, kv_buf *extra)
{
    kv_status s = KV_OK;
    extra->size = 0;
    if (j->flush) return KV_OK;
    s = kvi_lsm_put_field(extra, KVI_LSM_FIELD_MERGE, j->input_count);
    for (uint32_t i = 0; s == KV_OK && i < j->input_count; i++) s = kvi_lsm_put_number(extra, j->inputs[i]->number);
    if (s == KV_OK) s = kvi_lsm_put_number(extra, (uint64_t)j->output_count + 1);
    for (uint32_t i = 0; s == KV_OK && i < j->output_count; i++) s = kvi_lsm_put_number(extra, j->outputs[i]->number);
    if (s == KV_OK) s = kvi_lsm_put_number(extra, j->builder.number);
    return s;
}

/* One entry of the merge: drop it or write it. */
KVI_PRIVATE kv_status kvi_lsm_job_entry(kv_lsm *db, kvi_lsm_job *j, const kvi_lsm_source *from)
{
    uint64_t  sequence = from->sequence, written = sequence;
    uint32_t  stripe = j->snapshot_count ? kvi_lsm_stripe(j, sequence) : 0;
    bool      same = j->has_key && from->key.size == j->key.size && kvi_equal(from->key.data, j->key.data, j->key.size), oldest;
    kv_status s;
    j->entries_in++;
    if (same && stripe == j->stripe) { j->versions_dropped++; return KV_OK; }
    j->stripe = stripe;
    if (!same) {
        if (kv_buf_assign(&j->key, from->key) < 0) return kvi_lsm_no_memory(db);
        j->has_key = true;
    }
    oldest = stripe == 0 && !kvi_lsm_older_below(j, from->key);
    if (oldest && from->deleted) { j->tombstones_dropped++; return KV_OK; }
    if (oldest) written = 0;
    if (j->building && !same && kvi_lsm_builder_full(&j->builder, j->flush ? 0 : db->options.table_bytes)) {
        s = kvi_lsm_job_output(db, j, kv_bytes(NULL, 0));
        if (s < 0) return s;
    }
    if (!j->building) {
        s = kvi_lsm_builder_begin(&j->builder, j->level, j->age);
        if (s < 0) return s;
        j->building = true;
    }
    j->entries_out++;
    return kvi_lsm_builder_put(&j->builder, from->key, sequence, written, from->deleted, kvi_lsm_source_value(from));
}

/* A bounded piece: until a block was written, or as much was read as some blocks hold. KV_END: all
   outputs are complete, their files synced. */
KVI_PRIVATE kv_status kvi_lsm_job_step(kv_lsm *db, kvi_lsm_job *j)
{
    uint64_t  start = j->builder.offset, bytes = 0;
    uint32_t  tables = j->output_count;
    kv_status s;
    while (j->merge.least) {
        const kvi_lsm_source *from = j->merge.least;
        bytes += from->key.size + kvi_lsm_source_value(from).size;
        s = kvi_lsm_job_entry(db, j, from);
        if (s < 0) return s;
        kvi_lsm_merge_next(&j->merge);
        if (j->output_count != tables || j->builder.offset > start + db->options.block_bytes || bytes > 4u * (uint64_t)db->options.block_bytes) return KV_OK;
    }
    if (j->merge.status < 0) return j->merge.status;        /* an input that cannot be read to its end: nothing of this merge counts */
    if (j->building) {
        kv_buf extra;
        memset(&extra, 0, sizeof extra);
        extra.allocator = db->options.allocator;
        s = kvi_lsm_job_extra(j, &extra) < 0 ? kvi_lsm_no_memory(db) : kvi_lsm_job_output(db, j, kv_buf_slice(&extra));
        kv_buf_free(&extra);
        return s < 0 ? s : KV_OK;
    }
    if (j->input_entries && j->entries_in != j->input_entries) return kvi_lsm_error(db, KV_ERR_CORRUPT, "a merge read another number of entries than its tables hold");
    KV_ASSERT(j->entries_in == j->entries_out + j->versions_dropped + j->tombstones_dropped);
    return KV_END;
}

/* The version after the job: the newest one without the inputs, with the outputs. */
KVI_PRIVATE kvi_lsm_version *kvi_lsm_job_version(kv_lsm *db, const kvi_lsm_job *j)
{
    uint32_t         count = 0, room = db->version->count + j->output_count;
    kvi_lsm_table  **tables = (kvi_lsm_table **)kvi_alloc(&db->options.allocator, (room + 1) * sizeof *tables);
    kvi_lsm_version *v;
    if (!tables) return NULL;
    for (uint32_t i = 0; i < db->version->count; i++) {
        bool input = false;
        if (!j->flush && db->version->tables[i]->merging)
            for (uint32_t k = 0; k < j->input_count; k++) if (j->inputs[k] == db->version->tables[i]) { input = true; break; }
        if (!input) tables[count++] = db->version->tables[i];
    }
    for (uint32_t i = 0; i < j->output_count; i++) tables[count++] = j->outputs[i];
    v = kvi_lsm_version_new(db, tables, count);
    kvi_free(&db->options.allocator, tables, (room + 1) * sizeof *tables);
    return v;
}

/* Make the job's result the store:
   1. everything that can fail without trace    2. sync the directory: the outputs' names
   3. the manifest  <- commit                   4. show it to readers    5. what is replaced goes when
   nobody reads it any more. Crash before 3: unknown tables, set aside or removed by the next open. */
KVI_PRIVATE kv_status kvi_lsm_job_commit(kv_lsm *db, kvi_lsm_job *j)
{
    kvi_lsm_version *version = kvi_lsm_job_version(db, j), *old_version;
    kvi_lsm_view    *view = (kvi_lsm_view *)kvi_alloc(&db->options.allocator, sizeof *view), *old_view;
    uint64_t         old_log = db->log_number, old_flushed = db->flushed_sequence;
    kv_status        s = version && view ? KV_OK : KV_ERR_NO_MEMORY;

    /* 1. */
    if (s == KV_OK) s = kvi_lsm_edit_begin(db);
    for (uint32_t i = 0; s == KV_OK && i < j->input_count; i++) {
        s = kvi_lsm_put_field(&db->edit, KVI_LSM_FIELD_REMOVE, j->inputs[i]->level);
        if (s == KV_OK) s = kvi_lsm_put_number(&db->edit, j->inputs[i]->number);
    }
    for (uint32_t i = 0; s == KV_OK && i < j->output_count; i++) s = kvi_lsm_put_table(db, &db->edit, j->outputs[i]);
    if (j->flush) { db->log_number = j->memtable->log->number + 1; db->flushed_sequence = j->memtable->last_sequence; }
    if (s == KV_OK) s = kvi_lsm_put_counters(db, &db->edit);
    if (s < 0) (void)kvi_lsm_no_memory(db);

    /* 2. and 3. */
    if (s == KV_OK && j->output_count && !(KVI_SMALL && j->moves) && !KVI_MUTANT(KVI_MUTANT_TABLE_NAME)) {
        s = kvi_lsm_sync_dir(db);
        if (s < 0) kvi_lsm_poison(db, s);
    }
    if (s == KV_OK) s = kvi_lsm_edit_commit(db);
    if (s < 0) {
        db->log_number = old_log;
        db->flushed_sequence = old_flushed;
        kvi_lsm_version_release(db, version);
        kvi_free(&db->options.allocator, view, sizeof *view);
        return s;
    }

    /* 4. */
    j->committed = true;
    kvi_mutex_lock(&db->mutex);
    old_version = db->version;
    db->version = version;
    if (j->flush) db->frozen_count--;                       /* the oldest one is the last */
    old_view = kvi_lsm_view_switch(db, view);
    if (j->flush) { if (KVI_LSM_STATS) db->flushes++; if (db->frozen_count == 0 && kvi_peek_u64(&db->active->count) == 0) db->unsynced_since_ms = 0; }
    else if (KVI_SMALL && j->moves) db->moves += j->output_count;
    else if (KVI_LSM_STATS) db->merges++;
    if (KVI_LSM_STATS) { db->versions_dropped += j->versions_dropped; db->tombstones_dropped += j->tombstones_dropped; }
    kvi_lsm_wake(db);
    kvi_cond_broadcast(&db->work_done);
    kvi_mutex_unlock(&db->mutex);

    /* 5. */
    if (j->flush) { j->memtable->log->obsolete = true; kvi_lsm_memtable_release(db, j->memtable); }     /* the list's reference; the job has its own */
    for (uint32_t i = 0; !(KVI_SMALL && j->moves) && i < j->input_count; i++) j->inputs[i]->obsolete = true;
    kvi_lsm_version_release(db, old_version);
    kvi_lsm_view_release(db, old_view);
    return KV_OK;
}

/* When edits outweigh the snapshot many times, begin a new manifest. A failure that harmed nothing is
   none: the old one goes on. */
KVI_PRIVATE kv_status kvi_lsm_manifest_trim(kv_lsm *db)
{
    kv_status s;
    if (db->manifest.size < (64u << 10) + 8 * db->manifest.snapshot_size) return KV_OK;
    s = kvi_lsm_manifest_new(db);
    return s < 0 && !kvi_load_u32(&db->keep_files) ? KV_OK : s;
}

KVI_PRIVATE kvi_lsm_job *kvi_lsm_flush_plan(kv_lsm *db, kvi_lsm_memtable *m)
{
    kvi_lsm_job *j = kvi_lsm_job_new(db, 0, m->last_sequence);
    if (!j) return NULL;
    j->flush = true;
    j->memtable = m;
    kvi_add_u32(&m->refs, 1);
    if (!kvi_lsm_job_sources(db, j, 1)) { kvi_lsm_job_free(db, j, false); return NULL; }
    kvi_lsm_source_memtable(&j->merge.sources[0], db, m);
    kvi_lsm_merge_first(&j->merge);
    return j;
}

/* ------------------------------------------------------------------------------------------------
   >>compact   what to merge next

   Leveled: the level that is most over its share; of level 0 all tables, of another the table that
   drags the least of the next level along, and everything of the next level that overlaps. A table
   that overlaps nothing there is moved by an edit alone, unless it holds tombstones that a rewrite
   would get rid of. Tiered: a level with l0_trigger runs becomes one run of the next level.
   Invariant P1: inputs are closed: no table that is older or as old and overlaps them is left out
                 above or in the level that the outputs go to.                                      */

KVI_PRIVATE uint64_t kvi_lsm_level_target(const kv_lsm *db, uint32_t level)
{
    uint64_t target = db->options.l1_bytes;
    for (uint32_t i = 1; i < level; i++) target = target > UINT64_MAX / 4 / db->options.level_ratio ? UINT64_MAX / 4 : target * db->options.level_ratio;
    return target;
}

/* How full a level is. Where code is to be small, without floating point: in 1/64. */
#if KVI_SMALL
#define KVI_LSM_FULL 64u
typedef uint64_t kvi_lsm_fill;
KVI_INLINE kvi_lsm_fill kvi_lsm_fill_of(uint64_t bytes, uint64_t target) { return bytes / (target / KVI_LSM_FULL + 1); }
#else
#define KVI_LSM_FULL 1
typedef double kvi_lsm_fill;
KVI_INLINE kvi_lsm_fill kvi_lsm_fill_of(uint64_t bytes, uint64_t target) { return (double)bytes / (double)target; }
#endif

typedef struct kvi_lsm_plan { uint32_t level, output, count; kvi_lsm_table **inputs; kv_slice smallest, largest; } kvi_lsm_plan;

KVI_PRIVATE bool kvi_lsm_plan_add(kvi_lsm_plan *p, kvi_lsm_table *t)     /* false: it is there already */
{
    for (uint32_t i = 0; i < p->count; i++) if (p->inputs[i] == t) return false;
    if (!p->count || kvi_compare(t->smallest, p->smallest) < 0) p->smallest = t->smallest;
    if (!p->count || kvi_compare(t->largest, p->largest) > 0) p->largest = t->largest;
    p->inputs[p->count++] = t;
    return true;
}
/* Add the tables of a level that overlap what is planned, until none is left that does. */
KVI_PRIVATE void kvi_lsm_plan_close(const kvi_lsm_version *v, kvi_lsm_plan *p, uint32_t level, bool all)
{
    bool more = true;
    while (more) {
        more = false;
        for (uint32_t i = 0; i < v->count; i++)
            if (v->tables[i]->level == level && (all || kvi_lsm_table_overlaps(v->tables[i], p->smallest, p->largest)) && kvi_lsm_plan_add(p, v->tables[i])) more = true;
        if (all) return;
    }
}
KVI_PRIVATE uint64_t kvi_lsm_overlap_bytes(const kvi_lsm_version *v, uint32_t level, const kvi_lsm_table *t)
{
    uint64_t bytes = 0;
    for (uint32_t r = 0; r < v->levels[level].runs; r++) {
        const kvi_lsm_run *run = &v->runs[v->levels[level].first_run + r];
        for (uint32_t i = kvi_lsm_tables_find(v->tables + run->first, run->count, t->smallest); i < run->count; i++) {
            const kvi_lsm_table *other = v->tables[run->first + i];
            if (kvi_compare(other->smallest, t->largest) > 0) break;
            bytes += other->size;
        }
    }
    return bytes;
}

/* The table of a level below 0 to merge: the one with the least to drag along for its size. */
KVI_PRIVATE kvi_lsm_table *kvi_lsm_pick_table(const kvi_lsm_version *v, uint32_t level)
{
    const kvi_lsm_run *run = &v->runs[v->levels[level].first_run];
    kvi_lsm_table     *best = NULL;
#if KVI_SMALL
    kvi_lsm_fill       least = 0;                           /* one with tombstones costs nothing */
    for (uint32_t i = 0; i < run->count; i++) {
        kvi_lsm_table *t = v->tables[run->first + i];
        kvi_lsm_fill   cost = t->tombstones ? 0 : kvi_lsm_fill_of(kvi_lsm_overlap_bytes(v, level + 1, t), t->size);
        if (!best || cost < least) { best = t; least = cost; }
    }
#else
    double             best_cost = 0;
    for (uint32_t i = 0; i < run->count; i++) {
        kvi_lsm_table *t = v->tables[run->first + i];
        double         cost = (double)kvi_lsm_overlap_bytes(v, level + 1, t) / (double)(t->size + 1);
        if (t->tombstones) cost -= (double)t->tombstones / (double)t->entries;
        if (!best || cost < best_cost) { best = t; best_cost = cost; }
    }
#endif
    return best;
}

/* Do writes come fast? Then level 0 collects more before it is merged, so that what lies in level 1 is
   written anew less often. It looks again in a moment: only a thread can. */
KVI_PRIVATE bool kvi_lsm_busy(const kv_lsm *db)
{
    return KVI_THREADS && !db->options.no_background && kvi_now_ms() - kvi_peek_u64(&db->rotated_ms) < KVI_LSM_BUSY_MS;
}

/* Fill the plan (inputs: room for every table). False: nothing is due. */
KVI_PRIVATE bool kvi_lsm_pick(const kv_lsm *db, const kvi_lsm_version *v, kvi_lsm_plan *p)
{
    kvi_lsm_fill best = 0;
    uint32_t     level = 0;
    p->count = 0;
    if (db->options.style == KV_LSM_TIERED) {
        for (uint32_t i = 0; i < KV_LSM_LEVELS; i++) {
            if (v->levels[i].runs < db->options.l0_trigger) continue;
            p->level = i;
            p->output = i + 1 < KV_LSM_LEVELS ? i + 1 : i;
            kvi_lsm_plan_close(v, p, i, true);
            return true;
        }
        return false;
    }
    for (uint32_t i = 0; i < KV_LSM_LEVELS; i++) {
        kvi_lsm_fill score = i == 0 ? (kvi_lsm_fill)v->levels[0].runs * KVI_LSM_FULL / (db->options.l0_trigger * (kvi_lsm_busy(db) ? KVI_LSM_BUSY_TIMES : 1u)) : kvi_lsm_fill_of(v->levels[i].bytes, kvi_lsm_level_target(db, i));
        if (i + 1 == KV_LSM_LEVELS) score = 0;
        if (i && v->levels[i].runs > 1) score = KVI_LSM_FULL * (1 + v->levels[i].runs);      /* left over from the tiered style */
        if (score > best) { best = score; level = i; }
    }
    if (best < KVI_LSM_FULL) return false;
    p->level = level;
    p->output = level + 1 < KV_LSM_LEVELS ? level + 1 : level;
    if (level == 0 || v->levels[level].runs > 1) kvi_lsm_plan_close(v, p, level, true);
    else (void)kvi_lsm_plan_add(p, kvi_lsm_pick_table(v, level));
    if (p->output != level) kvi_lsm_plan_close(v, p, p->output, v->levels[p->output].runs > 1);
    return true;
}

/* The inputs of the plan that may go down by an edit alone: those that overlap no other table of
   their level or the next. They are moved to the front; how many there are is returned. */
KVI_PRIVATE uint32_t kvi_lsm_plan_moves(const kvi_lsm_version *v, kvi_lsm_plan *p)
{
    uint32_t moves = 0;
    if (p->output == p->level || v->levels[p->output].runs > 1) return 0;
    for (uint32_t i = 0; i < p->count; i++) {
        kvi_lsm_table *t = p->inputs[i];
        bool           alone = t->level == p->level, deeper = false;
        for (uint32_t k = 0; alone && k < v->count; k++) {
            const kvi_lsm_table *other = v->tables[k];
            if (other == t || other->level < p->level || !kvi_lsm_table_overlaps(other, t->smallest, t->largest)) continue;
            if (other->level <= p->output) alone = false; else deeper = true;
        }
        if (!alone || (t->tombstones && !deeper)) continue;
        p->inputs[i] = p->inputs[moves];
        p->inputs[moves++] = t;
    }
    return moves;
}

/* A merge of the plan's inputs: one source for each run among them, from new to old. */
KVI_PRIVATE kvi_lsm_job *kvi_lsm_merge_plan(kv_lsm *db, kvi_lsm_plan *p, uint64_t age)
{
    kvi_lsm_job *j = kvi_lsm_job_new(db, p->output, age);
    uint32_t     sources = 0, from;
    if (!j) return NULL;
    j->inputs = (kvi_lsm_table **)kvi_alloc(&db->options.allocator, p->count * sizeof *j->inputs);
    if (!j->inputs) { kvi_lsm_job_free(db, j, false); return NULL; }
    memcpy(j->inputs, p->inputs, p->count * sizeof *j->inputs);
    kvi_lsm_sort_tables(j->inputs, p->count);
    j->input_count = p->count;
    for (uint32_t i = 0; i < p->count; i++) {
        kvi_lsm_table *t = j->inputs[i];
        if (i == 0 || t->level != j->inputs[i - 1]->level || t->age != j->inputs[i - 1]->age) sources++;
        j->input_bytes += t->size;
        j->input_entries += t->entries;
    }
    if (!kvi_lsm_job_sources(db, j, sources)) { kvi_lsm_job_free(db, j, false); return NULL; }
    sources = 0;
    for (uint32_t i = 0; i < p->count; i = from) {
        for (from = i + 1; from < p->count && j->inputs[from]->level == j->inputs[i]->level && j->inputs[from]->age == j->inputs[i]->age; from++) {}
        kvi_lsm_source_tables(&j->merge.sources[sources++], db, j->inputs + i, from - i, true);
    }
    for (uint32_t i = 0; i < p->count; i++) { j->inputs[i]->merging = true; KVI_LSM_COUNT(&db->level_read[p->output], j->inputs[i]->size); }
    kvi_lsm_merge_first(&j->merge);
    return j;
}
KVI_PRIVATE uint64_t kvi_lsm_plan_age(const kv_lsm *db, const kvi_lsm_plan *p)
{
    uint64_t age = 0;
    if (db->options.style != KV_LSM_TIERED) return 0;
    for (uint32_t i = 0; i < p->count; i++) if (p->inputs[i]->age > age) age = p->inputs[i]->age;
    return age;
}

/* A table's place is part of it, and readers may be looking: the moved one is a new object that shares
   file and index with its home. NULL: no memory. */
KVI_PRIVATE kvi_lsm_table *kvi_lsm_table_moved(kv_lsm *db, kvi_lsm_table *from, uint32_t level)
{
    kvi_lsm_table like, *t;
    memset(&like, 0, sizeof like);                          /* field by field: readers change some of them just now */
    like.level = (uint8_t)level;
    like.number = from->number;
    like.size = from->size;
    like.entries = from->entries;
    like.tombstones = from->tombstones;
    like.key_bytes = from->key_bytes;
    like.value_bytes = from->value_bytes;
    like.first_sequence = from->first_sequence;
    like.last_sequence = from->last_sequence;
    t = kvi_lsm_table_new(db, &like, from->smallest, from->largest);
    if (!t) return NULL;
    t->home = from->home;
    kvi_add_u32(&t->home->refs, 1);
    return t;
}
/* Move tables down by an edit alone. */
#if KVI_SMALL
KVI_PRIVATE kv_status kvi_lsm_move(kv_lsm *db, const kvi_lsm_plan *p, uint32_t count)      /* as a job that is done already */
{
    kvi_lsm_job *j = kvi_lsm_job_new(db, p->output, 0);
    kv_status    s = KV_OK;
    if (!j) return kvi_lsm_no_memory(db);
    j->moves = true;
    j->inputs = (kvi_lsm_table **)kvi_alloc(&db->options.allocator, count * sizeof *j->inputs);
    j->outputs = (kvi_lsm_table **)kvi_alloc(&db->options.allocator, count * sizeof *j->outputs);
    if (j->inputs) j->input_count = count;
    if (j->outputs) j->output_capacity = count;
    if (!j->inputs || !j->outputs) s = kvi_lsm_no_memory(db);
    if (j->inputs) memcpy(j->inputs, p->inputs, count * sizeof *j->inputs);
    for (uint32_t i = 0; s == KV_OK && i < count; i++) {
        kvi_lsm_table *t = kvi_lsm_table_moved(db, p->inputs[i], p->output);
        if (!t) s = kvi_lsm_no_memory(db);
        else j->outputs[j->output_count++] = t;
        p->inputs[i]->merging = true;
    }
    if (s == KV_OK) s = kvi_lsm_job_commit(db, j);
    kvi_lsm_job_free(db, j, true);
    return s;
}
#else
KVI_PRIVATE kv_status kvi_lsm_move(kv_lsm *db, const kvi_lsm_plan *p, uint32_t count)
{
    uint32_t         n = db->version->count;
    kvi_lsm_table  **tables = (kvi_lsm_table **)kvi_alloc(&db->options.allocator, n * sizeof *tables), **moved;
    kvi_lsm_version *version = NULL, *old_version;
    kvi_lsm_view    *view = (kvi_lsm_view *)kvi_alloc(&db->options.allocator, sizeof *view), *old_view = NULL;
    uint32_t         made = 0;
    kv_status        s = tables && view ? kvi_lsm_edit_begin(db) : KV_ERR_NO_MEMORY;
    moved = (kvi_lsm_table **)kvi_alloc_zero(&db->options.allocator, count * sizeof *moved);
    if (!moved) s = KV_ERR_NO_MEMORY;
    for (uint32_t i = 0; s == KV_OK && i < count; i++) {
        moved[i] = kvi_lsm_table_moved(db, p->inputs[i], p->output);
        if (!moved[i]) { s = KV_ERR_NO_MEMORY; break; }
        made++;
        s = kvi_lsm_put_field(&db->edit, KVI_LSM_FIELD_REMOVE, p->inputs[i]->level);
        if (s == KV_OK) s = kvi_lsm_put_number(&db->edit, p->inputs[i]->number);
        if (s == KV_OK) s = kvi_lsm_put_table(db, &db->edit, moved[i]);
    }
    if (s == KV_OK) s = kvi_lsm_put_counters(db, &db->edit);
    if (s == KV_OK) {
        for (uint32_t i = 0; i < n; i++) {
            tables[i] = db->version->tables[i];
            for (uint32_t k = 0; k < count; k++) if (p->inputs[k] == tables[i]) tables[i] = moved[k];
        }
        version = kvi_lsm_version_new(db, tables, n);
        if (!version) s = KV_ERR_NO_MEMORY;
    }
    if (s < 0) (void)kvi_lsm_no_memory(db);
    if (s == KV_OK) s = kvi_lsm_edit_commit(db);
    if (s == KV_OK) {
        kvi_mutex_lock(&db->mutex);
        old_version = db->version;
        db->version = version;
        old_view = kvi_lsm_view_switch(db, view);
        db->moves += count;
        kvi_lsm_wake(db);
        kvi_cond_broadcast(&db->work_done);
        kvi_mutex_unlock(&db->mutex);
        kvi_lsm_version_release(db, old_version);
        kvi_lsm_view_release(db, old_view);
    } else {
        kvi_lsm_version_release(db, version);
        kvi_free(&db->options.allocator, view, sizeof *view);
    }
    for (uint32_t i = 0; i < made; i++) kvi_lsm_table_release(db, moved[i]);
    kvi_free(&db->options.allocator, moved, count * sizeof *moved);
    kvi_free(&db->options.allocator, tables, n * sizeof *tables);
    return s;
}
#endif

/* Plan the next merge, or move tables. KV_END: nothing is due. Under work. */
KVI_PRIVATE kv_status kvi_lsm_merge_begin(kv_lsm *db)
{
    size_t       size = (size_t)db->version->count * sizeof(kvi_lsm_table *);
    kvi_lsm_plan p;
    uint32_t     moves;
    kv_status    s = KV_END;
    if (!db->version->count) return KV_END;
    memset(&p, 0, sizeof p);
    p.inputs = (kvi_lsm_table **)kvi_alloc(&db->options.allocator, size);
    if (!p.inputs) return kvi_lsm_no_memory(db);
    if (kvi_lsm_pick(db, db->version, &p)) {
        moves = db->options.style == KV_LSM_LEVELED ? kvi_lsm_plan_moves(db->version, &p) : 0;
        if (moves) s = kvi_lsm_move(db, &p, moves);
        else {
            db->merge_job = kvi_lsm_merge_plan(db, &p, kvi_lsm_plan_age(db, &p));
            s = db->merge_job ? KV_OK : kvi_lsm_no_memory(db);
        }
    }
    kvi_free(&db->options.allocator, p.inputs, size);
    return s;
}

/* ------------------------------------------------------------------------------------------------
   >>work   background work in pieces, done by the thread, by kv_lsm_step, or by who waits for it

   A flush comes before a merge, also in the middle of one: writers never wait for a long merge.     */

KVI_PRIVATE void kvi_lsm_job_end(kv_lsm *db, kvi_lsm_job **job, kv_status s)
{
    kvi_lsm_job_free(db, *job, s < 0 && (db->manifest.failed || kvi_load_u32(&db->keep_files)));
    *job = NULL;
}
KVI_PRIVATE kv_status kvi_lsm_job_turn(kv_lsm *db, kvi_lsm_job **job)
{
    kv_status s = kvi_lsm_job_step(db, *job);
    if (s == KV_OK) return KV_OK;
    if (s == KV_END) s = kvi_lsm_job_commit(db, *job);
    kvi_lsm_job_end(db, job, s);
    if (s == KV_OK) s = kvi_lsm_manifest_trim(db);
    return s;
}
/* A piece of the flush of the oldest frozen memtable. KV_END: none waits. Under work. */
KVI_PRIVATE kv_status kvi_lsm_flush_turn(kv_lsm *db)
{
    kvi_lsm_memtable *oldest;
    if (!db->flush_job) {
        kvi_mutex_lock(&db->mutex);
        oldest = db->frozen_count ? db->frozen[db->frozen_count - 1] : NULL;
        kvi_mutex_unlock(&db->mutex);
        if (!oldest) return KV_END;
        db->flush_job = kvi_lsm_flush_plan(db, oldest);
        if (!db->flush_job) return kvi_lsm_no_memory(db);
    }
    return kvi_lsm_job_turn(db, &db->flush_job);
}
KVI_PRIVATE kv_status kvi_lsm_merge_turn(kv_lsm *db)
{
    if (db->merge_job) return kvi_lsm_job_turn(db, &db->merge_job);
    return kvi_lsm_merge_begin(db);
}
/* After a failure: what kind of trouble is it? Not under mutex. */
KVI_PRIVATE void kvi_lsm_work_failed(kv_lsm *db, kv_status s)
{
    if (s != KV_ERR_NO_MEMORY) { kvi_lsm_break(db, s, false); return; }
    kvi_mutex_lock(&db->mutex);
    db->background = s;
    db->retry_at_ms = kvi_now_ms() + KVI_LSM_RETRY_MS;
    kvi_cond_broadcast(&db->work_done);
    kvi_mutex_unlock(&db->mutex);
}
/* One piece, under work. KV_END: nothing is due. */
KVI_PRIVATE kv_status kvi_lsm_work_turn(kv_lsm *db)
{
    kv_status s;
    kvi_mutex_lock(&db->mutex);
    s = kvi_lsm_is_broken(db);
    db->work_pending = false;
    kvi_mutex_unlock(&db->mutex);
    if (s < 0) return s;
    s = kvi_lsm_flush_turn(db);
    if (s == KV_END) s = kvi_lsm_merge_turn(db);
    if (s < 0) { kvi_lsm_work_failed(db, s); return s; }
    kvi_mutex_lock(&db->mutex);
    db->background = KV_OK;
    if (s == KV_OK) db->work_pending = true;
    kvi_mutex_unlock(&db->mutex);
    return s;
}
/* A piece, or KV_END where none is due or somebody does all of it just now. */
KVI_PRIVATE kv_status kvi_lsm_work_step(kv_lsm *db)
{
    kv_status s = KV_END;
    kvi_mutex_lock(&db->work);
    if (!kvi_load_u32(&db->taken_over)) s = kvi_lsm_work_turn(db);
    kvi_mutex_unlock(&db->work);
    return s;
}

/* ---- the two threads ---- */

KVI_PRIVATE void kvi_lsm_work_thread(void *argument)
{
    kv_lsm *db = (kv_lsm *)argument;
    kvi_mutex_lock(&db->mutex);
    while (!db->stopping) {
        bool retry = db->background == KV_OK || kvi_now_ms() >= db->retry_at_ms;
        if (db->work_pending && db->broken == KV_OK && !db->taken_over && retry) {
            kvi_mutex_unlock(&db->mutex);
            (void)kvi_lsm_work_step(db);
            kvi_mutex_lock(&db->mutex);
        } else if (!retry) kvi_cond_wait_ms(&db->work_wanted, &db->mutex, 10);
        else if (!db->work_pending && db->broken == KV_OK && !db->taken_over && db->version->levels[0].runs >= db->options.l0_trigger) {     /* see kvi_lsm_busy */
            kvi_cond_wait_ms(&db->work_wanted, &db->mutex, KVI_LSM_BUSY_MS);
            db->work_pending = true;
        } else kvi_cond_wait(&db->work_wanted, &db->mutex);
    }
    kvi_mutex_unlock(&db->mutex);
}
/* Sees to it that single sets are synced in time, whatever the other thread and the writers do. Where
   somebody leads, that one syncs: now, or as soon as it waits for something. */
KVI_PRIVATE void kvi_lsm_sync_thread(void *argument)
{
    kv_lsm *db = (kv_lsm *)argument;
    kvi_mutex_lock(&db->mutex);
    while (!db->stopping) {
        uint64_t now, due = db->unsynced_since_ms + KVI_LSM_SYNC_MS;
        if (!db->unsynced_since_ms || !kvi_lsm_can_sync(db)) { kvi_cond_wait(&db->sync_soon, &db->mutex); continue; }
        now = kvi_now_ms();
        if (now < due) kvi_cond_wait_ms(&db->sync_soon, &db->mutex, (uint32_t)(due - now));
        else if (db->writers) {
            if (!db->sync_wanted) { db->sync_wanted = true; kvi_cond_broadcast(&db->work_done); }
            kvi_cond_wait_ms(&db->sync_soon, &db->mutex, 5);
        } else {
            db->unsynced_since_ms = 0;
            kvi_mutex_unlock(&db->mutex);
            (void)kvi_lsm_sync_now(db);                     /* a failure makes the store read-only: the next write tells */
            kvi_mutex_lock(&db->mutex);
        }
    }
    kvi_mutex_unlock(&db->mutex);
}
KVI_PRIVATE void kvi_lsm_threads_stop(kv_lsm *db)
{
    if (!KVI_THREADS) return;
    kvi_mutex_lock(&db->mutex);
    db->stopping = true;
    kvi_cond_broadcast(&db->work_wanted);
    kvi_cond_broadcast(&db->sync_soon);
    kvi_mutex_unlock(&db->mutex);
    if (db->has_thread) kvi_thread_join(&db->thread);
    if (db->has_sync_thread) kvi_thread_join(&db->sync_thread);
    db->has_thread = db->has_sync_thread = false;
}
KVI_PRIVATE kv_status kvi_lsm_threads_start(kv_lsm *db)
{
    kv_status s;
    if (!KVI_THREADS || db->options.no_background) return KV_OK;
    s = kvi_thread_start(&db->thread, kvi_lsm_work_thread, db);
    db->has_thread = s == KV_OK;
    if (s == KV_OK && db->options.sync == KV_SYNC_BATCH) {
        s = kvi_thread_start(&db->sync_thread, kvi_lsm_sync_thread, db);
        db->has_sync_thread = s == KV_OK;
    }
    if (s == KV_OK) return KV_OK;
    kvi_lsm_threads_stop(db);
    return kvi_lsm_error(db, s, "cannot start a background thread");
}

/* Wait until nobody has taken background work over. */
KVI_PRIVATE void kvi_lsm_work_wait(kv_lsm *db)
{
    kvi_mutex_lock(&db->mutex);
    while (db->taken_over) kvi_cond_wait_ms(&db->work_done, &db->mutex, 1000);
    kvi_mutex_unlock(&db->mutex);
}
KVI_PRIVATE bool kvi_lsm_work_taken(kv_lsm *db)
{
    bool taken;
    kvi_mutex_lock(&db->mutex);
    taken = db->taken_over != 0;
    kvi_mutex_unlock(&db->mutex);
    return taken;
}
/* Take background work over: nobody else does any until kvi_lsm_work_give. */
KVI_PRIVATE void kvi_lsm_work_take(kv_lsm *db)
{
    kvi_mutex_lock(&db->mutex);
    while (db->taken_over) kvi_cond_wait_ms(&db->work_done, &db->mutex, 1000);
    kvi_store_u32(&db->taken_over, 1);
    kvi_mutex_unlock(&db->mutex);
    kvi_mutex_lock(&db->work);                              /* whoever is in a step ends it */
}
KVI_PRIVATE void kvi_lsm_work_give(kv_lsm *db)
{
    kvi_mutex_unlock(&db->work);
    kvi_mutex_lock(&db->mutex);
    kvi_store_u32(&db->taken_over, 0);
    kvi_lsm_wake(db);
    kvi_cond_broadcast(&db->work_done);
    kvi_mutex_unlock(&db->mutex);
}

/* Freeze what is in the memtable and see it into tables. Of a call that has begun, or of kv_lsm_close. */
KVI_PRIVATE kv_status kvi_lsm_flush_now(kv_lsm *db)
{
    kvi_lsm_writer w;
    kv_status      s;
    uint64_t       target;
    kvi_lsm_writer_init(db, &w, 0, kv_bytes(NULL, 0), kv_bytes(NULL, 0));
    w.begun = true;
    (void)kvi_lsm_lead_alone(db, &w);
    kvi_mutex_lock(&db->mutex);
    s = kvi_lsm_is_broken(db);
    while (s == KV_OK && db->active->count && db->frozen_count >= KVI_LSM_FROZEN_MAX) {
        s = kvi_lsm_wait_work(db);
        if (s == KV_OK) s = kvi_lsm_is_broken(db);
    }
    kvi_mutex_unlock(&db->mutex);
    if (s == KV_OK && db->active->count) {
        s = kvi_lsm_rotate(db);
        if (s < 0 && s != KV_ERR_NO_MEMORY) kvi_lsm_break(db, s, false);
    }
    target = db->sequence;
    kvi_lsm_lead_alone_end(db, &w);
    if (s < 0) return s;
    kvi_mutex_lock(&db->mutex);
    while (s == KV_OK && db->frozen_count && db->frozen[db->frozen_count - 1]->last_sequence <= target) {
        s = db->broken < 0 ? kvi_lsm_error(db, db->broken, db->broken_text) : kvi_lsm_wait_work(db);
    }
    kvi_mutex_unlock(&db->mutex);
    return s;
}

/* Add what overlaps the plan in any level, until nothing more does. A tiered merge keeps an age, which
   must not be in two levels: it takes runs whole. */
KVI_PRIVATE void kvi_lsm_plan_close_all(const kv_lsm *db, kvi_lsm_plan *p)
{
    const kvi_lsm_version *v = db->version;
    for (uint32_t before = 0; before != p->count;) {
        before = p->count;
        for (uint32_t level = 0; level < KV_LSM_LEVELS; level++) kvi_lsm_plan_close(v, p, level, false);
        for (uint32_t r = 0; db->options.style == KV_LSM_TIERED && r < v->run_count; r++) {
            const kvi_lsm_run   *run = &v->runs[r];
            const kvi_lsm_table *first = v->tables[run->first];
            bool                 some = false;
            for (uint32_t i = 0; i < p->count && !some; i++) some = p->inputs[i]->level == first->level && p->inputs[i]->age == first->age;
            for (uint32_t i = 0; i < run->count && some; i++) (void)kvi_lsm_plan_add(p, v->tables[run->first + i]);
        }
    }
}

/* Merge everything that overlaps the range into one run. Under work, taken over; given up around
   each call of progress. */
KVI_PRIVATE kv_status kvi_lsm_merge_range(kv_lsm *db, const kv_range *range, kv_progress_fn progress, void *user)
{
    kvi_bounds   bounds;
    kvi_lsm_plan p;
    kvi_lsm_job *job;
    size_t       size = ((size_t)db->version->count + 1) * sizeof(kvi_lsm_table *), end_size = kvi_bounds_memory(range);
    uint8_t     *end = (uint8_t *)kvi_alloc(&db->options.allocator, end_size + 1);
    uint64_t     bytes = 0, done = 0, told = 0;
    uint32_t     deepest = 0;
    kv_status    s = KV_OK;

    memset(&p, 0, sizeof p);
    p.inputs = (kvi_lsm_table **)kvi_alloc(&db->options.allocator, size);
    if (!p.inputs || !end) s = kvi_lsm_no_memory(db);
    if (s == KV_OK) {
        bounds = kvi_bounds_of(range, end);
        for (uint32_t i = 0; i < db->version->count; i++) {
            kvi_lsm_table *t = db->version->tables[i];
            if (t->level > deepest) deepest = t->level;
            if (bounds.empty || kvi_compare(t->largest, bounds.lower) < 0 || (bounds.has_upper && kvi_compare(t->smallest, bounds.upper) >= 0)) continue;
            (void)kvi_lsm_plan_add(&p, t);
        }
        kvi_lsm_plan_close_all(db, &p);
        for (uint32_t i = 0; i < p.count; i++) bytes += p.inputs[i]->size;
        p.output = deepest ? deepest : 1;
        while (p.output + 1 < KV_LSM_LEVELS && kvi_lsm_level_target(db, p.output) < bytes) p.output++;
    }
    if (s == KV_OK && p.count) {
        /* in a level with several runs the result must be the oldest of them or take them all along: take them */
        if (db->version->levels[p.output].runs > 1) {
            kvi_lsm_plan_close(db->version, &p, p.output, true);
            kvi_lsm_plan_close_all(db, &p);
        }
        db->merge_job = job = kvi_lsm_merge_plan(db, &p, kvi_lsm_plan_age(db, &p));
        if (!job) s = kvi_lsm_no_memory(db);
        while (s == KV_OK && db->merge_job == job) {
            s = kvi_lsm_flush_turn(db);
            if (s < 0) { kvi_lsm_work_failed(db, s); break; }
            if (s == KV_END) s = kvi_lsm_merge_turn(db);
            if (s == KV_OK && db->merge_job == job && kvi_load_u32(&db->closing)) { s = KV_END; kvi_lsm_job_end(db, &db->merge_job, KV_OK); }
            if (s != KV_OK || !progress || db->merge_job != job) continue;
            done = 0;
            for (uint32_t i = 0; i < job->merge.count; i++) done += job->merge.sources[i].read_bytes;
            if (done - told < 1u << 20) continue;
            told = done;
            kvi_mutex_unlock(&db->work);
            if (!progress(user, done < bytes ? done : bytes, bytes)) s = KV_END;
            kvi_mutex_lock(&db->work);
            if (s == KV_END) kvi_lsm_job_end(db, &db->merge_job, KV_OK);
        }
        if (s == KV_OK && progress) {
            kvi_mutex_unlock(&db->work);
            (void)progress(user, bytes, bytes);
            kvi_mutex_lock(&db->work);
        }
    }
    kvi_free(&db->options.allocator, p.inputs, size);
    kvi_free(&db->options.allocator, end, end_size + 1);
    return s;
}

/* ------------------------------------------------------------------------------------------------
   >>recover   from files to a store

   Invariant R1: until CURRENT is switched, nothing that was found is changed or removed; repeating a
                 recovery that was cut off gives the same store.
   Invariant R2: a found file is never appended to, and no number is used again.
   Invariant R3: a tear is believed only where a crash explains it: see `durable` in >>format.      */

typedef struct kvi_lsm_name { uint64_t number; int kind; bool torn; } kvi_lsm_name;

typedef struct kvi_lsm_recovery {
    kv_lsm   *db;
    kv_buf    names;                        /* kvi_lsm_name of every file that has one of ours */
    kv_buf    tables;                       /* kvi_lsm_table * that the manifest names */
    bool      has_current, torn, clean;
    uint64_t  greatest_number, log_number, flushed, last_sequence, next_number, durable_log, clean_log, clean_length, manifest;
    uint64_t  sequence, last_log;           /* replayed up to here; the last log that was */
    kv_status status;                       /* of the listing */
} kvi_lsm_recovery;

KVI_INLINE size_t kvi_lsm_name_count(const kvi_lsm_recovery *r) { return r->names.size / sizeof(kvi_lsm_name); }
KVI_INLINE kvi_lsm_name *kvi_lsm_names(const kvi_lsm_recovery *r) { return (kvi_lsm_name *)r->names.data; }
KVI_INLINE size_t kvi_lsm_found_count(const kvi_lsm_recovery *r) { return r->tables.size / sizeof(kvi_lsm_table *); }
KVI_INLINE kvi_lsm_table **kvi_lsm_found_tables(const kvi_lsm_recovery *r) { return (kvi_lsm_table **)r->tables.data; }

/* Is it the name of a file of ours? Only names that we would write count. */
KVI_PRIVATE bool kvi_lsm_parse_name(const char *name, kvi_lsm_name *out)
{
    char        again[48];
    kvi_text    t = kvi_text_over(again, sizeof again);
    const char *digits = strncmp(name, "MANIFEST-", 9) == 0 ? name + 9 : name, *end = digits;
    uint64_t    n = 0;
    for (; *end >= '0' && *end <= '9' && n < UINT64_MAX / 20; end++) n = n * 10 + (uint64_t)(*end - '0');
    memset(out, 0, sizeof *out);
    out->number = n;
    out->kind = digits != name ? KVI_LSM_MANIFEST : strcmp(end, ".log") == 0 ? KVI_LSM_LOG : KVI_LSM_TABLE;
    kvi_lsm_text_file(&t, out->kind, n);
    return strcmp(again, name) == 0;
}
KVI_PRIVATE void kvi_lsm_each_name(void *context, const char *name)
{
    kvi_lsm_recovery *r = (kvi_lsm_recovery *)context;
    kvi_lsm_name      n;
    if (strcmp(name, "CURRENT") == 0) r->has_current = true;
    if (!kvi_lsm_parse_name(name, &n)) return;
    if (n.number > r->greatest_number) r->greatest_number = n.number;
    if (r->status == KV_OK) r->status = kv_buf_append(&r->names, kv_bytes(&n, sizeof n));
}
KVI_PRIVATE void kvi_lsm_each_lost(void *context, const char *name)
{
    kvi_lsm_recovery *r = (kvi_lsm_recovery *)context;
    kvi_lsm_name      n;
    if (kvi_lsm_parse_name(name, &n) && n.number > r->greatest_number) r->greatest_number = n.number;
}
/* All files, in the order of their numbers. KV_NOT_FOUND: no such directory. */
KVI_PRIVATE kv_status kvi_lsm_list(kvi_lsm_recovery *r)
{
    kv_lsm       *db = r->db;
    kvi_lsm_name *names;
    kvi_text      t;
    kv_status     s;
    size_t        count;
    r->names.size = 0;
    s = db->io->list(db->io->user, db->path, kvi_lsm_each_name, r);
    if (s == KV_OK) s = r->status;
    if (s != KV_OK) return s < 0 ? kvi_lsm_error(db, s, "cannot list the directory") : s;
    kvi_mutex_lock(&db->files);
    t = kvi_lsm_path(db, 0);
    kvi_text_add(&t, "lost");
    (void)db->io->list(db->io->user, db->names[0], kvi_lsm_each_lost, r);     /* there may be none */
    kvi_mutex_unlock(&db->files);
    names = kvi_lsm_names(r);
    count = kvi_lsm_name_count(r);
    for (size_t gap = count / 2; gap > 0; gap /= 2)         /* Shell sort */
        for (size_t i = gap; i < count; i++) {
            kvi_lsm_name n = names[i];
            size_t       k = i;
            for (; k >= gap && names[k - gap].number > n.number; k -= gap) names[k] = names[k - gap];
            names[k] = n;
        }
    return KV_OK;
}

/* ---- the manifest ---- */

KVI_PRIVATE kv_status kvi_lsm_corrupt(kv_lsm *db, const char *what, int kind, uint64_t number)
{
    return kvi_lsm_fail_file(db, KV_ERR_CORRUPT, what, kind, number, KVI_LSM_NO_SEQUENCE);
}

KVI_PRIVATE kv_status kvi_lsm_apply_add(kvi_lsm_recovery *r, kvi_lsm_reader *in)
{
    kvi_lsm_table like, *t;
    if (!kvi_lsm_read_table(in, &like)) return KV_ERR_CORRUPT;
    t = kvi_lsm_table_new(r->db, &like, like.smallest, like.largest);
    if (!t) return kvi_lsm_no_memory(r->db);
    if (kv_buf_append(&r->tables, kv_bytes(&t, sizeof t)) < 0) { kvi_lsm_table_release(r->db, t); return kvi_lsm_no_memory(r->db); }
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_lsm_apply_remove(kvi_lsm_recovery *r, kvi_lsm_reader *in)
{
    uint64_t        level = kvi_lsm_read_varint(in), number = kvi_lsm_read_varint(in);
    size_t          count = kvi_lsm_found_count(r);
    kvi_lsm_table **tables = kvi_lsm_found_tables(r);
    for (size_t i = 0; i < count; i++) {
        if (tables[i]->number != number || tables[i]->level != level) continue;
        kvi_lsm_table_release(r->db, tables[i]);
        tables[i] = tables[count - 1];
        r->tables.size -= sizeof *tables;
        return KV_OK;
    }
    return KV_ERR_CORRUPT;
}
/* Take one record in. */
KVI_PRIVATE kv_status kvi_lsm_apply(kvi_lsm_recovery *r, kv_slice payload)
{
    kvi_lsm_reader in = kvi_lsm_read_over(payload.data, payload.size);
    kv_status      s = KV_OK;
    r->clean = false;
    while (s == KV_OK && in.at < in.end) {
        uint8_t tag = *in.at++;
        switch (tag) {
        case KVI_LSM_FIELD_SEQUENCE:    r->last_sequence = kvi_lsm_read_varint(&in); break;
        case KVI_LSM_FIELD_NEXT:        r->next_number = kvi_lsm_read_varint(&in); break;
        case KVI_LSM_FIELD_LOG:         r->log_number = kvi_lsm_read_varint(&in); break;
        case KVI_LSM_FIELD_FLUSHED:     r->flushed = kvi_lsm_read_varint(&in); break;
        case KVI_LSM_FIELD_DURABLE_LOG: r->durable_log = kvi_lsm_read_varint(&in); break;
        case KVI_LSM_FIELD_ADD:         s = kvi_lsm_apply_add(r, &in); break;
        case KVI_LSM_FIELD_REMOVE:      s = kvi_lsm_apply_remove(r, &in); break;
        case KVI_LSM_FIELD_CLEAN:
            r->clean = true;
            r->clean_log = kvi_lsm_read_varint(&in);
            r->clean_length = kvi_lsm_read_varint(&in);
            break;
        default:
            if (tag < 128) return KV_ERR_VERSION;
            (void)kvi_lsm_read_bytes(&in, kvi_lsm_read_varint(&in));
        }
    }
    return s < 0 ? s : in.bad ? KV_ERR_CORRUPT : KV_OK;
}
/* Are the runs what V1 says? */
KVI_PRIVATE bool kvi_lsm_version_valid(const kvi_lsm_version *v)
{
    for (uint32_t i = 1; i < v->count; i++) {
        const kvi_lsm_table *a = v->tables[i - 1], *b = v->tables[i];
        if (a->level == b->level && a->age == b->age && kvi_compare(a->largest, b->smallest) >= 0) return false;
    }
    return true;
}
/* Read the manifest and make the version of it; whether the tables are there is another question. */
KVI_PRIVATE kv_status kvi_lsm_read_manifest_only(kvi_lsm_recovery *r)
{
    kv_lsm      *db = r->db;
    kvi_lsm_scan scan;
    uint64_t     proof = 0;
    kv_status    s = kvi_lsm_scan_open(&scan, db, KVI_LSM_MANIFEST, r->manifest);
    if (s == KV_NOT_FOUND) s = kvi_lsm_corrupt(db, "CURRENT names it, but it is missing", KVI_LSM_MANIFEST, r->manifest);
    if (s == KV_END) s = kvi_lsm_corrupt(db, "the header is damaged", KVI_LSM_MANIFEST, r->manifest);
    for (uint32_t records = 0; s == KV_OK; records++) {
        s = kvi_lsm_scan_next(&scan);
        if (s == KV_OK) {
            s = kvi_lsm_apply(r, scan.payload);
            if (s == KV_ERR_CORRUPT || s == KV_ERR_VERSION) s = kvi_lsm_fail_file(db, s, "a record", KVI_LSM_MANIFEST, r->manifest, scan.at);
        } else if (s == KV_END && records == 0) s = kvi_lsm_corrupt(db, "it is empty", KVI_LSM_MANIFEST, r->manifest);
        else if (s == KV_NOT_FOUND) {
            s = kvi_lsm_scan_proof(&scan, scan.at, &proof);
            if (s == KV_OK && (records == 0 || proof > scan.at)) s = kvi_lsm_fail_file(db, KV_ERR_CORRUPT, "a record is damaged", KVI_LSM_MANIFEST, r->manifest, scan.at);
            if (s == KV_OK) { r->torn = true; r->clean = false; db->recovered_dropped += scan.size - scan.at; s = KV_END; }
        }
    }
    kvi_lsm_scan_close(&scan);
    if (s < 0) return s;
    db->version = kvi_lsm_version_new(db, kvi_lsm_found_tables(r), (uint32_t)kvi_lsm_found_count(r));
    if (!db->version) return kvi_lsm_no_memory(db);
    return kvi_lsm_version_valid(db->version) ? KV_OK : kvi_lsm_corrupt(db, "its tables overlap", KVI_LSM_MANIFEST, r->manifest);
}
/* And are they all there? What is in them is checked when it is read. */
KVI_PRIVATE kv_status kvi_lsm_read_manifest(kvi_lsm_recovery *r)
{
    kv_lsm   *db = r->db;
    kv_status s = kvi_lsm_read_manifest_only(r);
    if (s < 0) return s;
    for (size_t i = 0; i < kvi_lsm_found_count(r); i++) {
        uint64_t number = kvi_lsm_found_tables(r)[i]->number;
        size_t   low = 0, high = kvi_lsm_name_count(r);
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (kvi_lsm_names(r)[middle].number < number) low = middle + 1; else high = middle;
        }
        while (low < kvi_lsm_name_count(r) && kvi_lsm_names(r)[low].number == number && kvi_lsm_names(r)[low].kind != KVI_LSM_TABLE) low++;
        if (low == kvi_lsm_name_count(r) || kvi_lsm_names(r)[low].number != number) return kvi_lsm_corrupt(db, "the manifest names it, but it is missing", KVI_LSM_TABLE, number);
    }
    return KV_OK;
}
KVI_PRIVATE void kvi_lsm_forget_tables(kvi_lsm_recovery *r)
{
    for (size_t i = 0; i < kvi_lsm_found_count(r); i++) kvi_lsm_table_release(r->db, kvi_lsm_found_tables(r)[i]);
    r->tables.size = 0;
    kvi_lsm_version_release(r->db, r->db->version);
    r->db->version = NULL;
}

/* ---- the logs ---- */

/* Write a memtable to tables without telling the manifest: the caller does, with a new one. The
   version of the store is changed; `old` is the one before, with its reference. */
KVI_PRIVATE kv_status kvi_lsm_flush_aside(kv_lsm *db, kvi_lsm_memtable *m, kvi_lsm_version **old)
{
    kvi_lsm_job     *j = kvi_lsm_flush_plan(db, m);
    kvi_lsm_version *version = NULL;
    kv_status        s = KV_OK;
    if (!j) return kvi_lsm_no_memory(db);
    while (s == KV_OK) s = kvi_lsm_job_step(db, j);
    if (s == KV_END) {
        version = kvi_lsm_job_version(db, j);
        s = version ? KV_OK : kvi_lsm_no_memory(db);
    }
    j->committed = s == KV_OK;
    kvi_lsm_job_free(db, j, kvi_load_u32(&db->keep_files) != 0);
    if (s < 0) return s;
    kvi_mutex_lock(&db->mutex);
    *old = db->version;
    db->version = version;
    db->flushes++;
    kvi_mutex_unlock(&db->mutex);
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_lsm_recover_flush(kv_lsm *db)
{
    kvi_lsm_version  *old = NULL;
    kvi_lsm_memtable *fresh = kvi_lsm_memtable_new(db, db->active);
    kv_status         s = fresh ? KV_OK : kvi_lsm_no_memory(db);
    if (s == KV_OK) s = kvi_lsm_flush_aside(db, db->active, &old);
    if (s < 0) { if (fresh) kvi_lsm_memtable_free(db, fresh); return s; }
    kvi_lsm_version_release(db, old);
    kvi_lsm_memtable_release(db, db->active);
    db->active = fresh;
    return KV_OK;
}

/* Put one record of a log into the memtable. */
KVI_PRIVATE kv_status kvi_lsm_replay_record(kvi_lsm_recovery *r, const kvi_lsm_scan *scan)
{
    kv_lsm        *db = r->db;
    kvi_lsm_reader in = kvi_lsm_read_over(scan->payload.data, scan->payload.size);
    uint64_t       sequence = scan->sequence;
    uint32_t       count, i = 0;
    uint8_t        op;
    kv_slice       key, value;
    if (scan->payload.size == 1 && in.at[0] == KVI_LSM_LOG_INGEST) {
        if (sequence != r->sequence + 1) return KV_ERR_CORRUPT;
        r->sequence = sequence;
        return KV_OK;
    }
    if (scan->payload.size < 5 || in.at[0] != KVI_LSM_LOG_GROUP) return scan->payload.size && in.at[0] > KVI_LSM_LOG_INGEST ? KV_ERR_VERSION : KV_ERR_CORRUPT;
    count = kvi_load_le32(in.at + 1);
    in.at += 5;
    if (sequence != r->sequence + 1) return KV_ERR_CORRUPT;
    if (!kvi_lsm_memtable_reserve_entries(db, db->active, count < scan->payload.size ? count : scan->payload.size, scan->payload.size, 0)) return kvi_lsm_no_memory(db);
    for (; i < count && kvi_lsm_read_op(&in, &op, &key, &value); i++) kvi_lsm_memtable_insert(db, db->active, op, key, value, sequence++);
    if (i != count || in.at != in.end || count == 0) return KV_ERR_CORRUPT;
    r->sequence = sequence - 1;
    db->recovered_records++;
    db->active->last_sequence = r->sequence;
    return KV_OK;
}

/* Is there a sign in the logs from `i` on that what comes before them was on stable storage whole? */
KVI_PRIVATE kv_status kvi_lsm_later_proof(kvi_lsm_recovery *r, size_t i, bool *proof)
{
    const kvi_lsm_name *names = kvi_lsm_names(r);
    bool                first = true;
    *proof = false;
    for (; i < kvi_lsm_name_count(r) && !*proof; i++) {
        kvi_lsm_scan scan;
        kv_status    s;
        if (names[i].kind != KVI_LSM_LOG) continue;
        if (names[i].number <= r->durable_log) { *proof = true; break; }
        s = kvi_lsm_scan_open(&scan, r->db, KVI_LSM_LOG, names[i].number);
        if (s == KV_OK) {
            if (first && (scan.header.flags & 1)) *proof = true;
            while ((s = kvi_lsm_scan_next(&scan)) == KV_OK) {}
            if (scan.durable_seen) *proof = true;
            if (s == KV_NOT_FOUND) { uint64_t found; s = kvi_lsm_scan_proof(&scan, scan.at, &found); if (s == KV_OK && found) *proof = true; }
        }
        kvi_lsm_scan_close(&scan);
        if (s < 0) return s;
        first = false;
    }
    return KV_OK;
}

/* Replay one log. KV_OK: whole; KV_END: it is torn at a place where a crash may tear, or does not
   follow on what was replayed. */
KVI_PRIVATE kv_status kvi_lsm_replay_log(kvi_lsm_recovery *r, kvi_lsm_name *name)
{
    kv_lsm      *db = r->db;
    kvi_lsm_scan scan;
    uint64_t     proof = 0;
    bool         before_durable = false;
    kv_status    s = kvi_lsm_scan_open(&scan, db, KVI_LSM_LOG, name->number);
    if (s == KV_OK && ((r->last_log && scan.header.b != r->last_log) || scan.header.a != r->sequence)) {
        before_durable = scan.header.flags & 1;
        s = KV_END;
    }
    if (s == KV_END || s == KV_NOT_FOUND) {                 /* nothing of it can be used */
        s = before_durable || name->number <= r->durable_log ? kvi_lsm_corrupt(db, "the header is damaged, or a log before it is missing", KVI_LSM_LOG, name->number) : KV_OK;
        if (s == KV_OK) s = kvi_lsm_scan_proof(&scan, 0, &proof);
        if (s == KV_OK && proof) s = kvi_lsm_corrupt(db, "the header is damaged, or a log before it is missing", KVI_LSM_LOG, name->number);
        if (s == KV_OK) { db->recovered_dropped += scan.size; s = KV_END; }
        kvi_lsm_scan_close(&scan);
        return s;
    }
    while (s == KV_OK) {
        s = kvi_lsm_scan_next(&scan);
        if (s == KV_OK) {
            s = kvi_lsm_replay_record(r, &scan);
            if (s == KV_ERR_CORRUPT || s == KV_ERR_VERSION) s = kvi_lsm_fail_file(db, s, "a record does not follow on the one before", KVI_LSM_LOG, name->number, scan.at);
        }
        if (s == KV_OK && !db->options.read_only && !KVI_MUTANT(KVI_MUTANT_TAIL_REUSE) && !KVI_MUTANT(KVI_MUTANT_PAGE_CACHE)
            && kvi_peek_size(&db->active->used_bytes) >= db->options.memtable_bytes) s = kvi_lsm_recover_flush(db);
    }
    if (s == KV_NOT_FOUND) {
        s = kvi_lsm_scan_proof(&scan, scan.at, &proof);
        if (s == KV_OK && proof > scan.at) s = kvi_lsm_fail_file(db, KV_ERR_CORRUPT, "a record is damaged", KVI_LSM_LOG, name->number, scan.at);
        if (s == KV_OK) {
            db->recovered_dropped += scan.size - scan.at;
            r->last_log = name->number;
            s = KV_END;
        }
    } else if (s == KV_END) { r->last_log = name->number; s = KV_OK; }
    if (s == KV_OK && r->clean && scan.size != r->clean_length) s = kvi_lsm_corrupt(db, "it is not as long as when it was closed", KVI_LSM_LOG, name->number);
    kvi_lsm_scan_close(&scan);
    return s;
}
KVI_PRIVATE kv_status kvi_lsm_replay(kvi_lsm_recovery *r)
{
    kv_lsm       *db = r->db;
    kvi_lsm_name *names = kvi_lsm_names(r);
    size_t        i, count = kvi_lsm_name_count(r);
    bool          proof, seen_durable = false;
    kv_status     s = KV_OK;
    r->sequence = r->flushed;
    for (i = 0; i < count && s == KV_OK; i++) {
        if (names[i].kind != KVI_LSM_LOG || names[i].number < r->log_number) continue;
        if (r->clean && names[i].number > r->clean_log) break;
        if (names[i].number >= r->durable_log) seen_durable = true;
        s = kvi_lsm_replay_log(r, &names[i]);
        if (s != KV_END) continue;
        /* torn here: what is behind it cannot be used, and must not say that this was durable */
        names[i].torn = r->torn = true;
        s = kvi_lsm_later_proof(r, i + 1, &proof);
        if (s == KV_OK && proof) s = kvi_lsm_corrupt(db, "it is damaged: later logs were written after it was on stable storage", KVI_LSM_LOG, names[i].number);
        if (s < 0) return s;
        for (i++; i < count; i++) if (names[i].kind == KVI_LSM_LOG) { names[i].torn = true; }
        break;
    }
    if (s < 0) return s;
    if (r->durable_log >= r->log_number && !seen_durable) return kvi_lsm_corrupt(db, "it is missing", KVI_LSM_LOG, r->durable_log);
    if (r->clean && (r->torn || r->last_log != r->clean_log || r->sequence != r->last_sequence))
        return kvi_lsm_corrupt(db, "it was closed cleanly, but does not hold what it did then", KVI_LSM_LOG, r->clean_log);
    return KV_OK;
}

/* ---- the new state on the disk ---- */

/* Move a file to lost/. What cannot be moved stays where it is, which harms nothing. */
KVI_PRIVATE void kvi_lsm_set_aside(kv_lsm *db, int kind, uint64_t number)
{
    kvi_text  from, to;
    kv_status s;
    kvi_mutex_lock(&db->files);
    to = kvi_lsm_path(db, 1);
    kvi_text_add(&to, "lost");
    (void)db->io->make_dir(db->io->user, db->names[1]);
    kvi_text_char(&to, '/');
    kvi_lsm_text_file(&to, kind, number);
    from = kvi_lsm_path(db, 0);
    kvi_lsm_text_file(&from, kind, number);
    s = db->io->rename(db->io->user, db->names[0], db->names[1]);
    if (s == KV_OK) kvi_lsm_note(db, KV_OK, db->names[1]);
    kvi_mutex_unlock(&db->files);
}
/* Files that are no longer of the store: removed where everything is accounted for, else set aside. */
KVI_PRIVATE void kvi_lsm_tidy(kvi_lsm_recovery *r)
{
    kv_lsm *db = r->db;
    for (size_t i = 0; i < kvi_lsm_name_count(r); i++) {
        const kvi_lsm_name *n = &kvi_lsm_names(r)[i];
        bool                aside = r->torn || n->torn;
        if (n->kind == KVI_LSM_TABLE) {
            bool live = false;
            for (uint32_t k = 0; k < db->version->count && !live; k++) live = db->version->tables[k]->number == n->number;
            if (live) continue;
        } else if (n->kind == KVI_LSM_LOG) {
            if (n->number >= db->log_number) continue;      /* ours, or a mutant's */
            aside = n->torn;
        } else if (n->number == db->manifest.number) continue;
        if (aside) kvi_lsm_set_aside(db, n->kind, n->number); else kvi_lsm_remove_file(db, n->kind, n->number);
    }
    (void)kvi_lsm_remove_named(db, "CURRENT.tmp");
}
/* The mutant that goes on appending to the last log it found. */
KVI_PRIVATE kv_status kvi_lsm_reuse_log(kv_lsm *db, uint64_t number)
{
    kvi_lsm_log *log = (kvi_lsm_log *)kvi_alloc_zero(&db->options.allocator, sizeof *log);
    if (!log) return KV_ERR_NO_MEMORY;
    log->refs = 1;
    log->number = number;
    db->active->log = db->log = log;
    if (kvi_lsm_open_file(db, KVI_LSM_LOG, number, KV_OPEN_WRITE, &log->file) != KV_OK) return KV_ERR_IO;
    return db->io->size(db->io->user, log->file, &log->size);
}

/* Everything found goes into new files:
   1. what was replayed into tables    2. a new log, its header on stable storage
   3. a new manifest and CURRENT       4. the old files go, or to lost/
   Crash before 3: the old store, and some unknown files. After: the new one, and some old files. */
KVI_PRIVATE kv_status kvi_lsm_renew(kvi_lsm_recovery *r)
{
    kv_lsm      *db = r->db;
    kvi_lsm_log *log;
    bool         keep_logs = false;
    kv_status    s = KV_OK;

    /* 1. */
    if (KVI_MUTANT(KVI_MUTANT_TAIL_REUSE) && r->last_log) keep_logs = true;
    if (KVI_MUTANT(KVI_MUTANT_PAGE_CACHE) && !r->torn && r->last_log) keep_logs = true;
    if (db->active->count && !keep_logs) s = kvi_lsm_recover_flush(db);
    if (s < 0) return s;
    if (KVI_MUTANT(KVI_MUTANT_LOG_REMOVE))
        for (size_t i = 0; i < kvi_lsm_name_count(r); i++) if (kvi_lsm_names(r)[i].kind == KVI_LSM_LOG) kvi_lsm_remove_file(db, KVI_LSM_LOG, kvi_lsm_names(r)[i].number);

    /* 2. */
    if (KVI_MUTANT(KVI_MUTANT_TAIL_REUSE) && r->last_log) s = kvi_lsm_reuse_log(db, r->last_log);
    else {
        s = kvi_lsm_log_new(db, r->sequence, r->last_log, false, &log);
        if (s < 0) return s;
        db->active->log = db->log = log;
        s = kvi_lsm_sync_file(db, log->file);
        if (s < 0) return kvi_lsm_fail_file(db, s, "cannot sync", KVI_LSM_LOG, log->number, KVI_LSM_NO_SEQUENCE);
    }
    if (s < 0) return s;
    if (!keep_logs) {
        db->log_number = db->log->number;
        db->flushed_sequence = r->sequence;
        kvi_store_u64(&db->durable_log, db->log->number);
    } else { db->log_number = r->log_number; db->flushed_sequence = r->flushed; }

    db->manifest.number = r->manifest;
    /* 3.; the directory is synced in it, after which the log's name is durable too */
    s = kvi_lsm_manifest_new(db);
    if (s < 0) return s;
    db->log->durable = db->log->size;

    /* 4. */
    kvi_lsm_tidy(r);
    return KV_OK;
}

KVI_PRIVATE void kvi_lsm_recovery_free(kvi_lsm_recovery *r)
{
    for (size_t i = 0; i < kvi_lsm_found_count(r); i++) kvi_lsm_table_release(r->db, kvi_lsm_found_tables(r)[i]);
    kv_buf_free(&r->tables);
    kv_buf_free(&r->names);
}

/* CURRENT, whole. KV_NOT_FOUND: there is none. */
KVI_PRIVATE kv_status kvi_lsm_read_current(kv_lsm *db, uint64_t *manifest)
{
    char      text[256];
    uint64_t  size = 0;
    kv_file  *file = NULL;
    kvi_text  t;
    kv_status s;
    kvi_mutex_lock(&db->files);
    t = kvi_lsm_path(db, 0);
    kvi_text_add(&t, "CURRENT");
    s = db->io->open(db->io->user, db->names[0], 0, &file);
    kvi_mutex_unlock(&db->files);
    if (s != KV_OK) return s < 0 ? kvi_lsm_error(db, s, "cannot open CURRENT") : s;
    s = db->io->size(db->io->user, file, &size);
    if (s == KV_OK && size > sizeof text) s = KV_ERR_CORRUPT;
    if (s == KV_OK) s = kvi_lsm_read_at(db, file, 0, text, (size_t)size);
    (void)db->io->close(db->io->user, file);
    if (s == KV_OK) s = kvi_lsm_current_parse(text, (size_t)size, db->id, manifest);
    return s < 0 ? kvi_lsm_error(db, s, s == KV_ERR_VERSION ? "CURRENT is of a newer format" : s == KV_ERR_CORRUPT ? "CURRENT is damaged" : "cannot read CURRENT") : s;
}

/* Without CURRENT: is it a store that lost it (a table, or a log with records), or what is left of one
   that was never complete? */
KVI_PRIVATE kv_status kvi_lsm_check_leftovers(kvi_lsm_recovery *r)
{
    for (size_t i = 0; i < kvi_lsm_name_count(r); i++) {
        const kvi_lsm_name *n = &kvi_lsm_names(r)[i];
        kv_file            *file;
        uint64_t            size = 0;
        kv_status           s;
        if (n->kind == KVI_LSM_MANIFEST) continue;
        if (n->kind == KVI_LSM_LOG) {
            s = kvi_lsm_open_file(r->db, KVI_LSM_LOG, n->number, 0, &file);
            if (s == KV_OK) { s = r->db->io->size(r->db->io->user, file, &size); (void)r->db->io->close(r->db->io->user, file); }
            if (s < 0) return s;
            if (size <= KVI_LSM_HEADER_SIZE) continue;
        }
        return kvi_lsm_error(r->db, KV_ERR_CORRUPT, "CURRENT is missing, but there are tables or logs: kv_lsm_repair makes a store of them");
    }
    return KV_OK;
}

/* Sync the directory that the store's directory lies in, so that its name is durable. */
KVI_PRIVATE kv_status kvi_lsm_sync_parent(kv_lsm *db)
{
    size_t    size = strlen(db->path);
    kv_status s;
    while (size > 1 && db->path[size - 1] == '/') size--;
    while (size > 0 && db->path[size - 1] != '/') size--;
    while (size > 1 && db->path[size - 1] == '/') size--;
    kvi_mutex_lock(&db->files);
    if (size) memcpy(db->names[0], db->path, size); else db->names[0][size++] = '.';
    db->names[0][size] = 0;
    s = db->io->sync_dir(db->io->user, db->names[0]);
    kvi_mutex_unlock(&db->files);
    return s < 0 && s != KV_ERR_UNSUPPORTED ? kvi_lsm_error(db, s, "cannot sync the parent directory") : KV_OK;
}

/* Open the store's files; the directory is there and locked. */
KVI_PRIVATE kv_status kvi_lsm_recover(kv_lsm *db)
{
    kvi_lsm_recovery r;
    uint64_t         random[2];
    kv_status        s;
    memset(&r, 0, sizeof r);
    r.db = db;
    r.names.allocator = r.tables.allocator = db->options.allocator;
    s = kvi_lsm_list(&r);
    if (s == KV_OK) s = kvi_lsm_read_current(db, &r.manifest);
    if (s == KV_OK && db->options.create_only) s = KV_EXISTS;
    if (s == KV_NOT_FOUND) {
        s = kvi_lsm_check_leftovers(&r);
        if (s == KV_OK && (db->options.must_exist || db->options.read_only)) s = KV_NOT_FOUND;
        (void)kvi_random_u64(&random[0], db);
        (void)kvi_random_u64(&random[1], &r);
        memcpy(db->id, random, 16);
        if (s == KV_OK) s = kvi_lsm_sync_parent(db);        /* whoever made the directory may have died before that */
        if (s == KV_OK && !(db->version = kvi_lsm_version_new(db, NULL, 0))) s = kvi_lsm_no_memory(db);
    } else if (s == KV_OK) s = kvi_lsm_read_manifest(&r);
    db->hash_seed = kvi_load_le64(db->id) ^ kvi_load_le64(db->id + 8);
    db->next_number = r.greatest_number + 1 > r.next_number ? r.greatest_number + 1 : r.next_number;
    if (db->next_number == 0) db->next_number = 1;
    if (KVI_MUTANT(KVI_MUTANT_NUMBER_REUSE)) db->next_number = 1;
    if (s == KV_OK) {
        db->visible = r.last_sequence;
        db->active = kvi_lsm_memtable_new(db, NULL);
        s = db->active ? KV_OK : kvi_lsm_no_memory(db);
    }
    if (s == KV_OK && r.manifest) s = kvi_lsm_replay(&r);
    for (uint32_t i = 0; s == KV_OK && i < db->version->count; i++)        /* ingested, and the log that says so was damaged */
        if (db->version->tables[i]->last_sequence > r.sequence) r.sequence = db->version->tables[i]->last_sequence;
    if (s == KV_OK) {
        db->sequence = r.sequence;
        if (KVI_MUTANT(KVI_MUTANT_SEQUENCE_LOST)) db->sequence = 0;
        kvi_store_u64(&db->visible, db->sequence);
        if (!db->options.read_only) s = kvi_lsm_renew(&r);
        else { db->log_number = r.log_number; db->flushed_sequence = r.flushed; }
    }
    kvi_lsm_recovery_free(&r);
    return s;
}

/* ------------------------------------------------------------------------------------------------
   >>cursor   the entries of one moment, in both directions

   Forward, the sources stand on or behind the current key, and the entry is shown where it lies. After
   a seek to a key that is there, only the source that has it need stand anywhere: the filters of the
   newer ones said that they do not have it, and a step is not yet wanted (`parked`).
   Backward, all of them stand before the current key, because the versions of a key come oldest
   first and the newest visible one has to be found; its key is copied, its block held.              */

typedef struct kvi_lsm_cursor {
    kv_iter        iter;
    kv_lsm        *db;
    kvi_lsm_view  *view;
    uint64_t       sequence;
    bool           backward;
    bool           walks;                   /* the last seek missed its key, or a step came after it: the next one asks no filters */
    bool           users;                   /* given to the user, who may hold it while the store is closed */
    kvi_lsm_merge  merge;
    kvi_lsm_source *parked;                 /* the only source that stands anywhere, or NULL: all do */
    kv_buf         key;                     /* what was sought, while parked */
    kvi_lsm_block *value_block;             /* backward: what the value lies in */
} kvi_lsm_cursor;

KVI_PRIVATE void kvi_lsm_cursor_stop(kvi_lsm_cursor *c, kv_status s) { c->iter.valid = false; c->iter.status = s; }

/* All sources behind the key that `least` stands on. */
KVI_INLINE void kvi_lsm_cursor_skip(kvi_lsm_cursor *c)
{
    kvi_lsm_merge  *m = &c->merge;
    kvi_lsm_source *s = m->least;
    while (KVI_UNLIKELY(s->same)) {                         /* those that have it, too, first */
        kvi_lsm_source *t = s->after;
        s->after = t->after;
        s->same = t->same;
        do kvi_lsm_source_next(t); while (t->valid && kv_equal(t->key, s->key));
        if (t->valid) kvi_lsm_merge_place(m, t, s, false);
        else if (t->status < 0) { kvi_lsm_merge_fail(m, t->status); return; }
    }
    if (s->memtable) {
        kv_slice key = s->key;                              /* of the entry, which stays */
        do kvi_lsm_source_next(s); while (s->valid && kv_equal(s->key, key));
    } else if (KVI_UNLIKELY(s->page->flags & KVI_LSM_REPEATS)) {
        if (kv_buf_assign(&c->key, s->key) < 0) { s->valid = false; s->status = kvi_lsm_no_memory(c->db); }
        else do kvi_lsm_source_next(s); while (s->valid && kv_equal(s->key, kv_buf_slice(&c->key)));
    } else kvi_lsm_source_next(s);
    kvi_lsm_merge_moved(m);
}
/* The first visible entry from where the merge stands. */
KVI_INLINE void kvi_lsm_cursor_settle(kvi_lsm_cursor *c)
{
    kvi_lsm_merge *m = &c->merge;
    while (m->least) {
        kvi_lsm_source *s = m->least;
        if (KVI_UNLIKELY(s->sequence > c->sequence)) { kvi_lsm_merge_next(m); continue; }
        if (KVI_LIKELY(!s->deleted)) {
            c->iter.key = s->key;
            c->iter.value = kvi_lsm_source_value(s);
            c->iter.valid = true;
            return;
        }
        kvi_lsm_cursor_skip(c);
    }
    kvi_lsm_cursor_stop(c, m->status);
}
/* The last visible entry before where the sources stand, which is before the current key. */
KVI_PRIVATE void kvi_lsm_cursor_settle_back(kvi_lsm_cursor *c)
{
    kvi_lsm_merge *m = &c->merge;
    for (;;) {
        kvi_lsm_source *last = NULL;
        uint64_t        newest = 0;
        bool            found = false, deleted = false;
        for (uint32_t i = 0; i < m->count; i++) {
            kvi_lsm_source *s = &m->sources[i];
            if (!s->valid && s->status < 0) { kvi_lsm_cursor_stop(c, s->status); return; }
            if (s->valid && (!last || kvi_compare(s->key, last->key) > 0)) last = s;
        }
        if (!last) { kvi_lsm_cursor_stop(c, KV_OK); return; }
        if (kv_buf_assign(&c->key, last->key) < 0) { kvi_lsm_cursor_stop(c, kvi_lsm_no_memory(c->db)); return; }
        for (uint32_t i = 0; i < m->count; i++) {
            kvi_lsm_source *s = &m->sources[i];
            for (; s->valid && kv_equal(s->key, kv_buf_slice(&c->key)); kvi_lsm_source_prev(s)) {
                if (s->sequence > c->sequence || (found && s->sequence < newest)) continue;
                found = true;
                newest = s->sequence;
                deleted = s->deleted;
                c->iter.value = kvi_lsm_source_value(s);
                kvi_lsm_block_release(c->db, c->value_block);
                c->value_block = s->memtable ? NULL : s->block;
                if (c->value_block) kvi_add_u32(&c->value_block->refs, 1);
            }
            if (!s->valid && s->status < 0) { kvi_lsm_cursor_stop(c, s->status); return; }      /* a newer version may lie there */
        }
        if (!found || deleted) continue;
        c->iter.key = kv_buf_slice(&c->key);
        c->iter.valid = true;
        return;
    }
}

KVI_PRIVATE bool kvi_lsm_cursor_forked(kvi_lsm_cursor *c)
{
    if (KVI_LIKELY(c->db->fork_count == kvi_fork_count())) return false;
    kvi_lsm_cursor_stop(c, KV_ERR_INVALID);
    return true;
}
/* Stand on the newest visible entry of the key that was sought, and only there; NULL where the filters
   do not lead to it. */
KVI_PRIVATE kvi_lsm_source *kvi_lsm_cursor_seek_exact(kvi_lsm_cursor *c)
{
    kv_slice key = kv_buf_slice(&c->key);
    uint64_t hash = kvi_hash(key.data, key.size, c->db->hash_seed);
    for (uint32_t k = 0; k < c->merge.count; k++) {
        kvi_lsm_source *s = &c->merge.sources[k];
        if (!kvi_lsm_source_seek_perhaps(s, key, hash)) continue;
        if (!s->valid && s->status < 0) return NULL;
        if (!s->valid || !kv_equal(s->key, key)) continue;
        if (s->sequence > c->sequence || s->deleted) return NULL;
        c->iter.key = s->key;
        c->iter.value = kvi_lsm_source_value(s);
        c->iter.valid = true;
        return s;
    }
    return NULL;
}
/* A step is wanted: all the others where the parked one stands. */
KVI_PRIVATE void kvi_lsm_cursor_unpark(kvi_lsm_cursor *c)
{
    kvi_lsm_merge_seek(&c->merge, kv_buf_slice(&c->key), c->parked);
    c->parked = NULL;
}
KVI_PRIVATE void kvi_lsm_cursor_seek(kv_iter *i, kv_slice key)
{
    kvi_lsm_cursor *c = (kvi_lsm_cursor *)i;
    if (kvi_lsm_cursor_forked(c)) return;
    if (kv_buf_assign(&c->key, key) < 0) { kvi_lsm_cursor_stop(c, kvi_lsm_no_memory(c->db)); return; }    /* it may lie in a block that goes */
    c->backward = false;
    c->parked = KVI_LSM_QUICK && !c->walks ? kvi_lsm_cursor_seek_exact(c) : NULL;
    if (c->parked) return;
    kvi_lsm_merge_seek(&c->merge, kv_buf_slice(&c->key), NULL);
    kvi_lsm_cursor_settle(c);
    c->walks = !c->iter.valid || !kv_equal(c->iter.key, kv_buf_slice(&c->key));
}
KVI_PRIVATE void kvi_lsm_cursor_seek_before(kv_iter *i, kv_slice key)
{
    kvi_lsm_cursor *c = (kvi_lsm_cursor *)i;
    if (kvi_lsm_cursor_forked(c)) return;
    if (kv_buf_assign(&c->key, key) < 0) { kvi_lsm_cursor_stop(c, kvi_lsm_no_memory(c->db)); return; }
    c->backward = true;
    c->parked = NULL;
    for (uint32_t k = 0; k < c->merge.count; k++) kvi_lsm_source_seek_before(&c->merge.sources[k], kv_buf_slice(&c->key));
    kvi_lsm_cursor_settle_back(c);
}
KVI_PRIVATE void kvi_lsm_cursor_last(kv_iter *i)
{
    kvi_lsm_cursor *c = (kvi_lsm_cursor *)i;
    if (kvi_lsm_cursor_forked(c)) return;
    c->backward = true;
    c->parked = NULL;
    for (uint32_t k = 0; k < c->merge.count; k++) kvi_lsm_source_last(&c->merge.sources[k]);
    kvi_lsm_cursor_settle_back(c);
}
KVI_PRIVATE void kvi_lsm_cursor_next(kv_iter *i)
{
    kvi_lsm_cursor *c = (kvi_lsm_cursor *)i;
    if (kvi_lsm_cursor_forked(c)) return;
    c->walks = true;
    if (KVI_UNLIKELY(c->backward)) {                        /* all sources back to the current key */
        c->backward = false;
        kvi_lsm_merge_seek(&c->merge, kv_buf_slice(&c->key), NULL);
        while (c->merge.least && kv_equal(c->merge.least->key, kv_buf_slice(&c->key))) kvi_lsm_merge_next(&c->merge);
    } else {
        if (KVI_LSM_QUICK && c->parked) kvi_lsm_cursor_unpark(c);
        if (c->merge.least) kvi_lsm_cursor_skip(c);
    }
    kvi_lsm_cursor_settle(c);
}
KVI_PRIVATE void kvi_lsm_cursor_prev(kv_iter *i)
{
    kvi_lsm_cursor *c = (kvi_lsm_cursor *)i;
    if (kvi_lsm_cursor_forked(c)) return;
    if (!c->backward) { kvi_lsm_cursor_seek_before(i, c->iter.key); return; }
    kvi_lsm_cursor_settle_back(c);
}
KVI_PRIVATE void kvi_lsm_cursor_close(kv_iter *i)
{
    kvi_lsm_cursor *c = (kvi_lsm_cursor *)i;
    kv_lsm         *db = c->db;
    kvi_lsm_view   *view = c->view;
    if (db->fork_count != kvi_fork_count()) return;         /* the memory goes with the process */
    kvi_lsm_merge_close(db, &c->merge);
    kvi_lsm_block_release(db, c->value_block);
    kv_buf_free(&c->key);
    if (c->users) kvi_lsm_view_mark_cursor(db, view, false);
    kvi_free(&db->options.allocator, c, sizeof *c);
    kvi_lsm_view_release(db, view);                         /* and perhaps the store, which was closed */
}
static const kv_iter_ops kvi_lsm_cursor_ops = {
    kvi_lsm_cursor_seek, kvi_lsm_cursor_seek_before, kvi_lsm_cursor_last, kvi_lsm_cursor_next, kvi_lsm_cursor_prev, NULL, kvi_lsm_cursor_close
};

/* `sequence`: its moment, that of a snapshot or of a leader; NULL: now. `users`: see kvi_lsm_cursor. */
KVI_PRIVATE kv_status kvi_lsm_cursor_new(kv_lsm *db, const uint64_t *sequence, bool users, kv_iter **iter)
{
    kvi_lsm_view   *view = kvi_lsm_view_get(db);            /* first: it pins the store, and holds all that the sequence shows */
    kvi_lsm_cursor *c;
    uint32_t        k = 0;
    if (!view) return kvi_lsm_is_closed(db);
    c = (kvi_lsm_cursor *)kvi_alloc_zero(&db->options.allocator, sizeof *c);
    if (!c) {
        (void)kvi_lsm_no_memory(db);
        kvi_lsm_view_release(db, view);
        return KV_ERR_NO_MEMORY;
    }
    c->view = view;
    c->sequence = sequence ? *sequence : kvi_load_u64(&db->visible);
    c->db = db;
    c->iter.ops = &kvi_lsm_cursor_ops;
    c->iter.store = &db->store;
    c->iter.allocator = c->key.allocator = db->options.allocator;
    c->merge.sources = (kvi_lsm_source *)kvi_alloc(&db->options.allocator, (1 + view->frozen_count + view->version->run_count) * sizeof *c->merge.sources);
    if (!c->merge.sources) {
        (void)kvi_lsm_no_memory(db);
        kvi_lsm_cursor_close(&c->iter);
        return KV_ERR_NO_MEMORY;
    }
    kvi_lsm_source_memtable(&c->merge.sources[k++], db, view->active);
    for (uint32_t i = 0; i < view->frozen_count; i++) kvi_lsm_source_memtable(&c->merge.sources[k++], db, view->frozen[i]);
    for (uint32_t r = 0; r < view->version->run_count; r++) {
        const kvi_lsm_run *run = &view->version->runs[r];
        kvi_lsm_source_tables(&c->merge.sources[k++], db, view->version->tables + run->first, run->count, false);
    }
    c->merge.count = k;
    c->users = users;
    if (users) kvi_lsm_view_mark_cursor(db, view, true);
    *iter = &c->iter;
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_lsm_cursor_open(kv_lsm *db, const uint64_t *sequence, bool users, const kv_range *range, kv_iter **iter)
{
    kv_status s = kvi_lsm_cursor_new(db, sequence, users, iter);
    if (s < 0) return s;
    s = kv_iter_start(*iter, range);
    if (s < 0) { kv_iter_close(*iter); *iter = NULL; }
    return s;
}

/* ------------------------------------------------------------------------------------------------
   >>open   options with their defaults, the object, its directory                                  */

KVI_LSM_DEFINE kv_lsm_options kv_lsm_default(void)
{
    kv_lsm_options o;
    memset(&o, 0, sizeof o);
    o.memtable_bytes = 4u << 20;
    o.cache_bytes = 64u << 20;
    o.block_bytes = 16u << 10;
    o.codec = kv_codec_supported(KV_CODEC_ZSTD) ? KV_CODEC_ZSTD : kv_codec_supported(KV_CODEC_LZ4) ? KV_CODEC_LZ4 : KV_CODEC_NONE;
    o.level = o.codec == KV_CODEC_ZSTD ? 1 : 0;
    o.bloom_fp_rate = 0.01;
    o.sync = KV_SYNC_BATCH;
    o.l0_trigger = 4;
    o.l1_bytes = 64u << 20;
    o.level_ratio = 10;
    o.table_bytes = 8u << 20;
    o.open_files = 256;
    o.io = kv_io_default();
    return o;
}
KVI_LSM_DEFINE kv_lsm_options kv_lsm_low_memory(void)
{
    kv_lsm_options o = kv_lsm_default();
    o.memtable_bytes = 1u << 20;
    o.cache_bytes = KV_NONE;
    o.bloom_fp_rate = KV_NO_BLOOM;
    o.codec = kv_codec_supported(KV_CODEC_LZ4) ? KV_CODEC_LZ4 : KV_CODEC_NONE;
    o.level = 0;
    o.table_bytes = 4u << 20;
    o.open_files = 32;
    return o;
}
KVI_LSM_DEFINE kv_lsm_options kv_lsm_high_performance(void)
{
    kv_lsm_options o = kv_lsm_default();
    o.memtable_bytes = 64u << 20;
    o.cache_bytes = (size_t)512 << 20;
    o.codec = kv_codec_supported(KV_CODEC_LZ4) ? KV_CODEC_LZ4 : o.codec;
    o.level = 0;
    o.l1_bytes = UINT64_C(256) << 20;
    o.table_bytes = 32u << 20;
    return o;
}

/* Fill in what is 0; *what names an option that is wrong. */
KVI_PRIVATE kv_status kvi_lsm_resolve(const kv_lsm_options *given, kv_lsm_options *o, const char **what)
{
    kv_lsm_options d = kv_lsm_default();
    bool           fixed_level = given && given->codec != KV_CODEC_DEFAULT;
    *what = "";
    if (!given) { *o = d; }
    else {
        *o = *given;
        if (!o->memtable_bytes) o->memtable_bytes = d.memtable_bytes;
        if (!o->cache_bytes) o->cache_bytes = d.cache_bytes;
        if (!o->block_bytes) o->block_bytes = d.block_bytes;
        if (o->codec == KV_CODEC_DEFAULT) o->codec = d.codec;
        if (!fixed_level && !o->level) o->level = d.level;
        if (o->codec == KV_CODEC_ZSTD && !o->level) o->level = 1;
        if (KVI_LSM_FILTER && !(o->bloom_fp_rate < 0) && !(o->bloom_fp_rate > 0)) o->bloom_fp_rate = d.bloom_fp_rate;
        if (o->sync == KV_SYNC_DEFAULT) o->sync = d.sync;
        if (!o->l0_trigger) o->l0_trigger = d.l0_trigger;
        if (!o->l1_bytes) o->l1_bytes = d.l1_bytes;
        if (!o->level_ratio) o->level_ratio = d.level_ratio;
        if (!o->table_bytes) o->table_bytes = d.table_bytes;
        if (!o->open_files) o->open_files = d.open_files;
        if (!o->io) o->io = d.io;
    }
    if (!KVI_THREADS) o->no_background = true;
    if (!KVI_LSM_MAPS) o->map_tables = false;
    if (!KVI_LSM_CACHE) o->cache_bytes = KV_NONE;
    if (!KVI_LSM_FILTER) o->bloom_fp_rate = KV_NO_BLOOM;
    if (o->memtable_bytes < 4096 || (uint64_t)o->memtable_bytes > UINT64_C(2) << 30) *what = KVI_LSM_WORDS("memtable_bytes is not 4 KiB to 2 GiB");
    else if (o->block_bytes < 64 || o->block_bytes > 16u << 20) *what = KVI_LSM_WORDS("block_bytes is not 64 bytes to 16 MiB");
    else if (o->codec < KV_CODEC_NONE || o->codec > KV_CODEC_ZSTD) *what = KVI_LSM_WORDS("codec is none that there is");
    else if (KVI_LSM_FILTER && (o->bloom_fp_rate >= 1 || (o->bloom_fp_rate < 0 && o->bloom_fp_rate != KV_NO_BLOOM))) *what = KVI_LSM_WORDS("bloom_fp_rate is not between 0 and 1, nor KV_NO_BLOOM");
    else if (o->sync < KV_SYNC_NONE || o->sync > KV_SYNC_WRITE) *what = KVI_LSM_WORDS("sync is none that there is");
    else if (o->style != KV_LSM_LEVELED && o->style != KV_LSM_TIERED) *what = KVI_LSM_WORDS("style is none that there is");
    else if (o->l0_trigger < 2 || o->l0_trigger > 1000) *what = KVI_LSM_WORDS("l0_trigger is not 2 to 1,000");
    else if (o->level_ratio < 2 || o->level_ratio > 1000) *what = KVI_LSM_WORDS("level_ratio is not 2 to 1,000");
    else if (o->table_bytes < 1024) *what = KVI_LSM_WORDS("table_bytes is less than 1 KiB");
    else if (o->create_only && (o->must_exist || o->read_only)) *what = KVI_LSM_WORDS("create_only together with must_exist or read_only");
    if (**what) return KV_ERR_INVALID;
    if (!o->io) { *what = KVI_LSM_WORDS("there are no files on this system: give an io"); return KV_ERR_UNSUPPORTED; }
    if (!kv_codec_supported(o->codec)) { *what = KVI_LSM_WORDS("the codec is not compiled in"); return KV_ERR_UNSUPPORTED; }
    return KV_OK;
}

/* Bits a key and probes for a rate of false answers. A line of 512 bits costs some 10 % more bits than
   one large filter would, and the rate is exp(-bits * ln 2 ^ 2) in the ideal. */
KVI_PRIVATE void kvi_lsm_filter_size(kv_lsm *db)
{
    double   rate = db->options.bloom_fp_rate, bits = 0, left = 1;
    uint32_t probes;
    if (!KVI_LSM_FILTER || rate < 0) return;
    while (left > rate && bits < 32) { bits += 0.125; left *= 0.941712; }   /* e ^ (-ln 2 ^ 2 / 8) */
    bits *= 1.05 + bits / 200;
    probes = (uint32_t)(bits * 0.62 + 0.5);
    db->filter_bits_x16 = (uint32_t)(bits * 16);
    db->filter_probes = probes < 1 ? 1 : probes > 12 ? 12 : probes;
}

KVI_PRIVATE const kv_store_ops *kvi_lsm_store_ops(void);

KVI_PRIVATE void kvi_lsm_free(kv_lsm *db)
{
    kv_allocator a = db->options.allocator;
    kvi_lsm_job_free(db, db->flush_job, true);
    kvi_lsm_job_free(db, db->merge_job, true);
    if (db->view) {                                         /* of an open that failed at its end; else it is closed before */
        kvi_lsm_view_empty(db, db->view);
        kvi_free(&a, db->view, sizeof *db->view);
    }
    kvi_lsm_memtable_release(db, db->active);
    for (uint32_t i = 0; i < db->frozen_count; i++) kvi_lsm_memtable_release(db, db->frozen[i]);
    kvi_lsm_version_release(db, db->version);
    kvi_lsm_cache_close(db);
    if (KVI_LSM_CODECS) kv_compressor_close(db->compressor);
    while (db->snapshots.next && db->snapshots.next != &db->snapshots) {
        kv_snapshot *s = db->snapshots.next;
        db->snapshots.next = s->next;
        kvi_free(&a, s, sizeof *s);
    }
    kv_buf_free(&db->edit);
    kv_buf_free(&db->record);
    if (db->manifest.file) (void)db->io->close(db->io->user, db->manifest.file);
    if (db->lock) (void)db->io->unlock(db->io->user, db->lock);
    kvi_free(&a, db->open_tables, db->options.open_files * sizeof *db->open_tables);
    kvi_free(&a, db->path, db->path_size);
    kvi_free(&a, db->names[0], db->names_size);
    kvi_free(&a, db->names[1], db->names_size);
    kvi_mutex_destroy(&db->work);
    kvi_mutex_destroy(&db->mutex);
    kvi_mutex_destroy(&db->files);
    kvi_cond_destroy(&db->work_wanted);
    kvi_cond_destroy(&db->sync_soon);
    kvi_cond_destroy(&db->work_done);
    kvi_free(&a, db, sizeof *db);
}

KVI_PRIVATE kv_status kvi_lsm_codec_open(kv_lsm *db)
{
    kv_compress_options o;
    if (!KVI_LSM_CODECS) return KV_OK;
    if (KVI_SMALL) return kvi_compressor_open_plain(&db->options.allocator, db->options.codec, db->options.level, &db->compressor);
    memset(&o, 0, sizeof o);
    o.allocator = db->options.allocator;
    o.codec = db->options.codec;
    o.level = db->options.level;
    return kv_compressor_open(&o, &db->compressor);
}

/* The object, without files. NULL: no memory. */
KVI_PRIVATE kv_lsm *kvi_lsm_new(const char *path, const kv_lsm_options *o)
{
    kv_lsm *db = (kv_lsm *)kvi_alloc_zero(&o->allocator, sizeof *db);
    char   root[KVI_LSM_ROOT_SIZE];
    size_t root_size;
    if (!db) return NULL;
    if (!kvi_mutex_init(&db->work) || !kvi_mutex_init(&db->mutex) || !kvi_mutex_init(&db->files) || !kvi_cond_init(&db->work_wanted) || !kvi_cond_init(&db->work_done)
        || !kvi_cond_init(&db->sync_soon)) {
        kvi_free(&o->allocator, db, sizeof *db);            /* six of them failing one by one is not worth six labels: nothing was taken from memory */
        return NULL;
    }
    db->options = *o;
    db->options.error_text = NULL;
    db->io = o->io;
    if (KVI_THREADS) db->store.ops = kvi_lsm_store_ops();   /* else kv_lsm_store does: who does not call it need not have all that is behind it */
    db->store.name = "lsm";
    db->store.caps = KV_CAP_ORDERED | KV_CAP_DURABLE | KV_CAP_THREADS | (o->read_only ? 0u : (uint32_t)KV_CAP_WRITE);
    db->fork_count = kvi_fork_count();
    db->writers_end = &db->writers;
    db->snapshots.next = db->snapshots.prev = &db->snapshots;
    db->edit.allocator = db->record.allocator = o->allocator;
    root_size = KVI_FILES && o->io == kv_io_default() && path[0] != '/' ? kvi_current_directory(root, sizeof root) : 0;     /* where it is now, not where the process may go */
    db->path_size = root_size + strlen(path) + 1;
    db->names_size = db->path_size + 48;
    db->path = (char *)kvi_alloc(&o->allocator, db->path_size);
    db->names[0] = (char *)kvi_alloc(&o->allocator, db->names_size);
    db->names[1] = (char *)kvi_alloc(&o->allocator, db->names_size);
    db->open_tables = (kvi_lsm_table **)kvi_alloc(&o->allocator, o->open_files * sizeof *db->open_tables);
    if (db->path) { kvi_copy(db->path, root, root_size); memcpy(db->path + root_size, path, db->path_size - root_size); }
    if (!db->path || !db->names[0] || !db->names[1] || !db->open_tables || kvi_lsm_cache_open(db) < 0 || kvi_lsm_codec_open(db) < 0) {
        kvi_lsm_free(db);
        return NULL;
    }
    kvi_lsm_filter_size(db);
    return db;
}

KVI_PRIVATE kv_status kvi_lsm_lock(kv_lsm *db)
{
    uint64_t  holder = 0;
    kvi_text  t;
    kv_status s;
    kvi_mutex_lock(&db->files);
    t = kvi_lsm_path(db, 0);
    kvi_text_add(&t, "LOCK");
    s = db->io->lock(db->io->user, db->names[0], db->options.read_only, &db->lock, &holder);
    kvi_mutex_unlock(&db->files);
    if (s != KV_OK) db->lock = NULL;
    if (s == KV_NOT_FOUND && db->options.read_only) return KV_OK;       /* a copy without its LOCK */
    if (KVI_LSM_TEXT && s == KV_ERR_BUSY) {
        t = kvi_error_begin(&db->error);
        kvi_text_add(&t, "the store is open");
        if (holder) { kvi_text_add(&t, " in process "); kvi_text_u64(&t, holder); }
        return kvi_error_end(&db->error, s);
    }
    return s == KV_OK ? KV_OK : kvi_lsm_error(db, s < 0 ? s : KV_ERR_IO, "cannot make or lock the store's LOCK file: is its path a directory that may be written?");
}

/* The directory, there and locked. */
KVI_PRIVATE kv_status kvi_lsm_enter_directory(kv_lsm *db)
{
    kvi_lsm_recovery r;
    kv_status        s;
    if (db->options.read_only || db->options.must_exist) {  /* touch nothing where there is nothing */
        memset(&r, 0, sizeof r);
        r.db = db;
        r.names.allocator = db->options.allocator;
        s = kvi_lsm_list(&r);
        if (s == KV_OK && !r.has_current && kvi_lsm_name_count(&r) == 0) s = KV_NOT_FOUND;
        kv_buf_free(&r.names);
        if (s == KV_NOT_FOUND) return kvi_lsm_error(db, s, "there is no store");
        if (s < 0) return s;
    } else {
        s = db->io->make_dir(db->io->user, db->path);
        if (s < 0) return kvi_lsm_error(db, s, "cannot make the directory");
        if (s == KV_NOT_FOUND) return kvi_lsm_error(db, KV_ERR_IO, "cannot make the directory: its parent is missing");
    }
    return kvi_lsm_lock(db);
}

/* ------------------------------------------------------------------------------------------------
   >>ingest   tables made from somebody else's cursor, and a copy of the whole store                */

/* Where tables with this range may go at once: above everything that overlaps them, also above what a
   merge that is under way will put there, and not below the first level that has room. */
KVI_PRIVATE uint32_t kvi_lsm_ingest_level(const kv_lsm *db, kv_slice smallest, kv_slice largest, uint64_t bytes)
{
    const kvi_lsm_version *v = db->version;
    uint32_t               above = KV_LSM_LEVELS, level = 1;
    if (db->options.style == KV_LSM_TIERED) return 0;
    for (uint32_t i = 0; i < v->count; i++)
        if (v->tables[i]->level < above && kvi_lsm_table_overlaps(v->tables[i], smallest, largest)) above = v->tables[i]->level;
    if (db->merge_job) {                                    /* its outputs may span what lies between its inputs */
        const kvi_lsm_job *j = db->merge_job;
        kv_slice           from = j->inputs[0]->smallest, to = j->inputs[0]->largest;
        for (uint32_t i = 1; i < j->input_count; i++) {
            if (kvi_compare(j->inputs[i]->smallest, from) < 0) from = j->inputs[i]->smallest;
            if (kvi_compare(j->inputs[i]->largest, to) > 0) to = j->inputs[i]->largest;
        }
        if (j->level < above && kvi_compare(to, smallest) >= 0 && kvi_compare(from, largest) <= 0) above = j->level;
    }
    for (uint32_t i = 1; i < above && i < KV_LSM_LEVELS; i++) if (v->levels[i].runs > 1) above = i;
    while (level + 1 < KV_LSM_LEVELS && v->levels[level].bytes + bytes > kvi_lsm_level_target(db, level)) level++;
    if (above == 0) return 0;
    return level < above ? level : above - 1;
}

/* Tables with everything the cursor has, under one sequence number; they are the job's outputs. */
KVI_PRIVATE kv_status kvi_lsm_ingest_build(kv_lsm *db, kvi_lsm_job *j, kv_iter *sorted, uint64_t sequence)
{
    kv_status s = KV_OK;
    for (kv_iter_first(sorted); s == KV_OK && kv_iter_valid(sorted); kv_iter_next(sorted)) {
        kv_slice key = kv_iter_key(sorted), value = kv_iter_value(sorted);
        s = kv_check_key(key);
        if (s == KV_OK) s = kv_check_value(value);
        if (s < 0) return kvi_lsm_error(db, s, "the cursor has an entry over a limit");
        if (j->has_key && kvi_compare(kv_buf_slice(&j->key), key) >= 0) return kvi_lsm_fail(db, KV_ERR_ORDER, "not behind the key before it:", key);
        if (kv_buf_assign(&j->key, key) < 0) return kvi_lsm_no_memory(db);
        j->has_key = true;
        if (j->building && kvi_lsm_builder_full(&j->builder, db->options.table_bytes)) s = kvi_lsm_job_output(db, j, KVI_LSM_NO_VALUE);
        if (s == KV_OK && !j->building) {
            s = kvi_lsm_builder_begin(&j->builder, 0, sequence);
            if (s == KV_OK) j->building = true;
        }
        if (s == KV_OK) s = kvi_lsm_builder_put(&j->builder, key, sequence, sequence, false, value);
    }
    if (s == KV_OK) s = kv_iter_status(sorted);
    if (s == KV_OK && j->building) s = kvi_lsm_job_output(db, j, KVI_LSM_NO_VALUE);
    return s;
}
/* A sequence number of its own for the ingest, in the log. By the leader. */
KVI_PRIVATE kv_status kvi_lsm_ingest_sequence(kv_lsm *db)
{
    kv_status s;
    db->record.size = 0;
    if (kv_buf_reserve(&db->record, KVI_LSM_RECORD_SIZE + 1) < 0) return kvi_lsm_no_memory(db);
    ((uint8_t *)db->record.data)[KVI_LSM_RECORD_SIZE] = KVI_LSM_LOG_INGEST;
    db->record.size = KVI_LSM_RECORD_SIZE + 1;
    s = kvi_lsm_append_record(db, db->sequence + 1);
    if (s < 0) return s;
    db->sequence++;
    return kvi_lsm_sync_logs(db);                           /* tables with this number will be: so must it */
}
/* Everything that is older must be in tables, which are searched after memtables. By the leader, with
   work taken. */
KVI_PRIVATE kv_status kvi_lsm_ingest_flush(kv_lsm *db)
{
    kv_status s = KV_OK;
    while (s == KV_OK) s = kvi_lsm_flush_turn(db);
    if (s == KV_END && db->active->count) {
        s = kvi_lsm_rotate(db);
        while (s == KV_OK) s = kvi_lsm_flush_turn(db);
    }
    if (s < 0) kvi_lsm_work_failed(db, s);
    return s == KV_END ? KV_OK : s;
}
/* 1. what is older goes to tables    2. a sequence number    3. tables of it, in files nobody knows
   4. their level, and the manifest <- commit. A crash before 4 leaves unknown files and a number that
   is not used. */
KVI_PRIVATE kv_status kvi_lsm_ingest(kv_lsm *db, kv_iter *sorted)
{
    kvi_lsm_job *j = NULL;
    uint64_t     bytes = 0;
    kv_status    s;
    kvi_mutex_lock(&db->mutex);
    s = kvi_lsm_is_broken(db);
    kvi_mutex_unlock(&db->mutex);

    /* 1. */
    if (s < 0) return s;
    kvi_lsm_work_take(db);
    s = kvi_lsm_ingest_flush(db);
    if (s == KV_OK) s = kvi_lsm_ingest_sequence(db);
    if (s < 0) { kvi_lsm_work_give(db); return s; }

    /* 2. and 3.; the memtable stays empty, since we lead, and nobody begins a long merge meanwhile, for which we would wait */
    kvi_mutex_unlock(&db->work);
    j = kvi_lsm_job_new(db, 0, db->sequence);
    s = j ? kvi_lsm_ingest_build(db, j, sorted, db->sequence) : kvi_lsm_no_memory(db);
    kvi_mutex_lock(&db->work);

    /* 4. */
    if (s == KV_OK && j->output_count) {
        uint32_t level;
        for (uint32_t i = 0; i < j->output_count; i++) bytes += j->outputs[i]->size;
        level = kvi_lsm_ingest_level(db, j->outputs[0]->smallest, j->outputs[j->output_count - 1]->largest, bytes);
        for (uint32_t i = 0; i < j->output_count; i++) {
            j->outputs[i]->level = (uint8_t)level;
            if (level) j->outputs[i]->age = 0;
        }
        s = kvi_lsm_job_commit(db, j);
    }
    kvi_store_u64(&db->visible, db->sequence);
    kvi_lsm_job_free(db, j, s < 0 && (db->manifest.failed || kvi_load_u32(&db->keep_files)));
    kvi_lsm_work_give(db);
    return s;
}

/* ---- checkpoint ---- */

/* One table under the same name in the copy's directory: a link, or else its bytes. */
KVI_PRIVATE kv_status kvi_lsm_checkpoint_table(kv_lsm *db, kv_lsm *copy, kvi_lsm_table *t)
{
    kvi_text  from, to;
    kv_file  *in, *out = NULL;
    uint8_t  *memory;
    kv_status s = KV_ERR_UNSUPPORTED;
    kvi_mutex_lock(&db->files);
    from = kvi_lsm_path(db, 0);
    kvi_lsm_text_file(&from, KVI_LSM_TABLE, t->number);
    to = kvi_lsm_path(copy, 0);
    kvi_lsm_text_file(&to, KVI_LSM_TABLE, t->number);
    if (db->io->link) s = db->io->link(db->io->user, db->names[0], copy->names[0]);
    kvi_mutex_unlock(&db->files);
    if (s == KV_OK) return KV_OK;
    memory = (uint8_t *)kvi_alloc(&db->options.allocator, KVI_LSM_OUT_BYTES);
    if (!memory) return kvi_lsm_no_memory(db);
    s = kvi_lsm_table_file(db, t->home, &in);
    if (s == KV_OK) {
        s = kvi_lsm_create_file(copy, KVI_LSM_TABLE, t->number, &out);
        for (uint64_t at = 0; s == KV_OK && at < t->size;) {
            size_t n = t->size - at < KVI_LSM_OUT_BYTES ? (size_t)(t->size - at) : KVI_LSM_OUT_BYTES;
            s = kvi_lsm_read_at(db, in, at, memory, n);
            if (s == KV_OK) s = db->io->append(db->io->user, out, memory, n);
            at += n;
        }
        if (s == KV_OK) s = db->io->sync(db->io->user, out);
        if (out) (void)db->io->close(db->io->user, out);
        kvi_lsm_table_file_done(db, t->home);
        if (s < 0) (void)kvi_lsm_fail_file(db, s, "cannot copy", KVI_LSM_TABLE, t->number, KVI_LSM_NO_SEQUENCE);
    }
    kvi_free(&db->options.allocator, memory, KVI_LSM_OUT_BYTES);
    return s;
}
/* Fill the copy's directory, which was just made. `unflushed`: what a read-only store has of its logs. */
KVI_PRIVATE kv_status kvi_lsm_checkpoint_fill(kv_lsm *db, kv_lsm *copy, const kvi_lsm_version *v, kvi_lsm_memtable *unflushed)
{
    kvi_lsm_version *old;
    kv_status        s = KV_OK;
    for (uint32_t i = 0; s == KV_OK && i < v->count; i++) s = kvi_lsm_checkpoint_table(db, copy, v->tables[i]);
    if (s == KV_OK && unflushed) {
        s = kvi_lsm_flush_aside(copy, unflushed, &old);
        if (s == KV_OK) kvi_lsm_version_release(db, old);
        else (void)kvi_lsm_error(db, s, kvi_error_text(&copy->error));
    }
    if (s == KV_OK) {
        s = kvi_lsm_manifest_new(copy);
        if (s < 0) (void)kvi_lsm_error(db, s, kvi_error_text(&copy->error));
    }
    if (s == KV_OK) s = kvi_lsm_sync_parent(copy);
    return s;
}
KVI_PRIVATE void kvi_lsm_checkpoint_undo(kv_lsm *copy, const kvi_lsm_version *v)
{
    kvi_store_u32(&copy->keep_files, 0);
    (void)kvi_lsm_remove_named(copy, "CURRENT");
    (void)kvi_lsm_remove_named(copy, "CURRENT.tmp");
    for (uint32_t i = 0; i < v->count; i++) kvi_lsm_remove_file(copy, KVI_LSM_TABLE, v->tables[i]->number);
    for (uint64_t n = copy->next_number; n-- > copy->log_number;) {
        kvi_lsm_remove_file(copy, KVI_LSM_TABLE, n);
        kvi_lsm_remove_file(copy, KVI_LSM_MANIFEST, n);
    }
    (void)copy->io->remove(copy->io->user, copy->path);
}

/* ------------------------------------------------------------------------------------------------
   >>check   every byte of every file, read and verified

   Table by table, from front to back: each block by its own checks, the entries in order, and then
   what index, filter, properties and manifest say about them.                                     */

typedef struct kvi_lsm_report { kv_check_fn fn; void *user; kv_status first; uint64_t count; } kvi_lsm_report;

KVI_PRIVATE kv_status kvi_lsm_say(kvi_lsm_report *r, kv_status s, int kind, uint64_t number, uint64_t offset, const char *what)
{
    char     text[240];
    kvi_text t = kvi_text_over(text, sizeof text);
    kvi_lsm_text_file(&t, kind, number);
    if (offset != KVI_LSM_NO_SEQUENCE) { kvi_text_add(&t, " at "); kvi_text_u64(&t, offset); }
    kvi_text_add(&t, ": ");
    kvi_text_add(&t, what);
    if (s < 0) { r->count++; if (r->first == KV_OK) r->first = s; }
    if (r->fn) r->fn(r->user, s, text);
    return s;
}
KVI_PRIVATE void kvi_lsm_say_text(kvi_lsm_report *r, kv_status s, const char *text)
{
    if (s < 0) { r->count++; if (r->first == KV_OK) r->first = s; }
    if (r->fn) r->fn(r->user, s, text);
}

/* What a walk over a table's bytes found. */
typedef struct kvi_lsm_survey {
    kv_lsm         *db;
    kvi_lsm_report *report;
    kvi_lsm_scan    scan;                   /* its window is the buffer */
    const kvi_lsm_index *index;             /* NULL: it could not be read */
    const kvi_lsm_table *bounds;            /* the keys and sequence numbers that it may have, or NULL */
    kvi_lsm_builder *salvage;               /* where good entries go, or NULL */
    kvi_lsm_table   properties;             /* what the table says of itself; keys in `kept` */
    kv_buf          kept, merged;           /* properties, whole; the MERGE field */
    bool            has_properties, damaged, newer;
    uint32_t        blocks;
    uint64_t        entries, tombstones, key_bytes, value_bytes;
    kv_buf          last;                   /* the key before */
    uint64_t        last_sequence;
    bool            any;
} kvi_lsm_survey;

KVI_PRIVATE void kvi_lsm_survey_bad(kvi_lsm_survey *v, uint64_t offset, const char *what)
{
    v->damaged = true;
    (void)kvi_lsm_say(v->report, KV_ERR_CORRUPT, KVI_LSM_TABLE, v->scan.number, offset, what);
}
/* Is this key above the index key of block `i`? */
KVI_PRIVATE bool kvi_lsm_survey_above(const kvi_lsm_survey *v, kv_slice key, uint32_t i)
{
    const kvi_lsm_index *x = v->index;
    uint32_t             from = i ? x->key_ends[i - 1] : 0;
    if (!kv_has_prefix(key, x->prefix)) return kvi_compare(key, x->prefix) > 0;
    return kvi_compare(kvi_lsm_slice_from(key, x->prefix.size), kv_bytes(x->keys + from, x->key_ends[i] - from)) > 0;
}
/* What is wrong with an entry that is in order, or NULL. order: of the key before and this one. */
KVI_PRIVATE const char *kvi_lsm_survey_entry(const kvi_lsm_survey *v, const kvi_lsm_page *p, uint32_t i, kv_slice key, int order)
{
    uint64_t hash = kvi_hash(key.data, key.size, v->db->hash_seed);
    if (v->salvage) return NULL;                            /* what helps the search is made anew */
    if (v->index && v->index->filter && !kvi_lsm_filter_has(v->index->filter, v->index->filter_lines, v->index->filter_probes, hash)) return "the filter denies a key of the block";
    if (!kvi_lsm_page_leads(p, i, hash)) return "the block's heads or buckets do not lead to a key of it";
    if (v->index && i == 0 && order < 0 && v->blocks && v->blocks <= v->index->count && !kvi_lsm_survey_above(v, key, v->blocks - 1)) return "the index key of the block before is not below its first key";
    return NULL;
}
/* The entries of one block. A failure is no memory, or that salvage could not write. */
KVI_PRIVATE kv_status kvi_lsm_survey_entries(kvi_lsm_survey *v, uint64_t offset, const kvi_lsm_page *p)
{
    kv_buf      key;
    kv_status   s = KV_OK;
    bool        told = false;
    const char *wrong;
    memset(&key, 0, sizeof key);
    key.allocator = v->db->options.allocator;
    for (uint32_t i = 0; s == KV_OK && i < p->count; i++) {
        kv_slice tail = kvi_lsm_page_tail(p, i), value = kvi_lsm_page_value(p, i);
        uint64_t sequence = kvi_lsm_page_sequence(p, i);
        int      order;
        key.size = 0;
        if (kv_buf_reserve(&key, p->prefix_size + tail.size + 1) < 0) { s = kvi_lsm_no_memory(v->db); break; }
        kvi_copy(key.data, p->prefix, p->prefix_size);
        kvi_copy((uint8_t *)key.data + p->prefix_size, tail.data, tail.size);
        key.size = p->prefix_size + tail.size;
        order = v->any ? kvi_compare(kv_buf_slice(&v->last), kv_buf_slice(&key)) : -1;
        if (order > 0 || (order == 0 && v->last_sequence <= sequence)) {
            if (!told) kvi_lsm_survey_bad(v, offset, "the entries of the block are out of order");
            told = true;
            continue;
        }
        if (v->bounds && (kvi_compare(kv_buf_slice(&key), v->bounds->smallest) < 0 || kvi_compare(v->bounds->largest, kv_buf_slice(&key)) < 0 || sequence > v->bounds->last_sequence)) {
            if (!told) kvi_lsm_survey_bad(v, offset, "the block has an entry outside of the table's range");
            told = true;
            continue;
        }
        wrong = told ? NULL : kvi_lsm_survey_entry(v, p, i, kv_buf_slice(&key), order);
        if (wrong) {
            kvi_lsm_survey_bad(v, offset, wrong);
            told = true;
        }
        v->entries++;
        if (kvi_lsm_page_deleted(p, i)) v->tombstones++;
        v->key_bytes += key.size;
        v->value_bytes += value.size;
        if (v->salvage) s = kvi_lsm_builder_put(v->salvage, kv_buf_slice(&key), sequence, sequence, kvi_lsm_page_deleted(p, i), value);
        if (s == KV_OK && kv_buf_assign(&v->last, kv_buf_slice(&key)) < 0) s = kvi_lsm_no_memory(v->db);
        v->last_sequence = sequence;
        v->any = true;
    }
    kv_buf_free(&key);
    return s;
}
/* Remember what the properties block says. */
KVI_PRIVATE kv_status kvi_lsm_survey_properties(kvi_lsm_survey *v, kv_slice payload)
{
    kvi_lsm_reader in;
    if (kv_buf_assign(&v->kept, payload) < 0) return kvi_lsm_no_memory(v->db);
    in = kvi_lsm_read_over(v->kept.data, v->kept.size);
    if (in.at == in.end || *in.at++ != KVI_LSM_FIELD_ADD || !kvi_lsm_read_table(&in, &v->properties) || v->properties.number != v->scan.number) return KV_OK;
    v->has_properties = true;
    if (in.at < in.end && *in.at == KVI_LSM_FIELD_MERGE && kv_buf_assign(&v->merged, kv_bytes(in.at + 1, (size_t)(in.end - in.at) - 1)) < 0) return kvi_lsm_no_memory(v->db);
    return KV_OK;
}
/* One block that has a valid header at `offset`; *next is where it ends. */
KVI_PRIVATE kv_status kvi_lsm_survey_block(kvi_lsm_survey *v, uint64_t offset, uint64_t *next)
{
    kvi_lsm_block_header h;
    kvi_lsm_table        like;
    kvi_lsm_block       *block;
    const uint8_t       *bytes = NULL;
    size_t               size;
    kv_status            s = kvi_lsm_scan_need(&v->scan, offset, KVI_LSM_BLOCK_SIZE, &bytes);
    if (s != KV_OK) return s;
    if (!kvi_lsm_block_header_decode(bytes, v->scan.seed + offset, &h)) return KV_NOT_FOUND;
    size = (size_t)h.packed_size + KVI_LSM_BLOCK_SIZE;
    s = kvi_lsm_scan_need(&v->scan, offset, size, &bytes);
    if (s < 0) return s;
    if (s == KV_END) return KV_NOT_FOUND;
    *next = offset + size;
    if (h.payload_check != kvi_checksum(bytes + KVI_LSM_BLOCK_SIZE, h.packed_size, v->scan.seed + offset)) {
        kvi_lsm_survey_bad(v, offset, h.type == KVI_LSM_BLOCK_DATA ? "a data block is damaged" : "a block of the index, filter or properties is damaged");
        v->blocks++;
        return KV_OK;
    }
    if (h.type == KVI_LSM_BLOCK_PROPERTIES) return kvi_lsm_survey_properties(v, kv_bytes(bytes + KVI_LSM_BLOCK_SIZE, h.packed_size));
    if (h.type != KVI_LSM_BLOCK_DATA) return KV_OK;
    if (v->index && (v->blocks >= v->index->count || v->index->offsets[v->blocks] != offset)) kvi_lsm_survey_bad(v, offset, "the index does not know the block");
    memset(&like, 0, sizeof like);
    like.number = v->scan.number;
    s = kvi_lsm_block_make(v->db, &like, offset, bytes, size, KVI_LSM_PLAIN, &block);
    if (s == KV_ERR_CORRUPT) { kvi_lsm_survey_bad(v, offset, "a data block does not unpack"); v->blocks++; return KV_OK; }
    if (s < 0) return s;
    s = kvi_lsm_survey_entries(v, offset, &block->page);
    if (s == KV_OK && v->index && v->blocks < v->index->count && kvi_lsm_survey_above(v, kv_buf_slice(&v->last), v->blocks))
        kvi_lsm_survey_bad(v, offset, "the index key of the block is below its last key");
    v->blocks++;
    kvi_lsm_block_release(v->db, block);
    return s;
}
/* Walk over the file. Failures are those of the machine; what is wrong with the bytes is reported. */
KVI_PRIVATE kv_status kvi_lsm_survey_walk(kvi_lsm_survey *v)
{
    const uint8_t *bytes;
    kvi_lsm_header header;
    kvi_lsm_footer footer;
    uint64_t       offset = KVI_LSM_HEADER_SIZE, next, end = v->scan.size;
    kv_status      s = kvi_lsm_scan_need(&v->scan, 0, KVI_LSM_HEADER_SIZE, &bytes);
    if (s < 0) return s;
    s = s == KV_OK ? kvi_lsm_header_decode(bytes, KVI_LSM_TABLE, &header) : KV_ERR_CORRUPT;
    if (s == KV_ERR_VERSION) { v->newer = true; return kvi_lsm_say(v->report, s, KVI_LSM_TABLE, v->scan.number, 0, "of a newer format"); }
    if (s < 0 || header.number != v->scan.number || memcmp(header.id, v->db->id, 16) != 0) kvi_lsm_survey_bad(v, 0, "the file's header is damaged, or of another store or file");
    if (end >= KVI_LSM_HEADER_SIZE + KVI_LSM_FOOTER_SIZE) {
        s = kvi_lsm_scan_need(&v->scan, end - KVI_LSM_FOOTER_SIZE, KVI_LSM_FOOTER_SIZE, &bytes);
        if (s < 0) return s;
        if (kvi_lsm_footer_decode(bytes, v->scan.seed, end, &footer) == KV_OK) end -= KVI_LSM_FOOTER_SIZE;
        else kvi_lsm_survey_bad(v, end - KVI_LSM_FOOTER_SIZE, "the footer is damaged");
    } else kvi_lsm_survey_bad(v, end, "the file is too short for a table");
    while (offset < end) {
        s = kvi_lsm_survey_block(v, offset, &next);
        if (s < 0) return s;
        if (s == KV_OK) { offset = next; continue; }
        kvi_lsm_survey_bad(v, offset, "here should be a block");
        while (s != KV_OK && ++offset < end) {              /* look for the next one */
            kvi_lsm_block_header h;
            s = kvi_lsm_scan_need(&v->scan, offset, KVI_LSM_BLOCK_SIZE, &bytes);
            if (s < 0) return s;
            if (s == KV_END) break;
            s = bytes[16] >= 1 && bytes[16] <= 4 && kvi_lsm_block_header_decode(bytes, v->scan.seed + offset, &h) ? KV_OK : KV_NOT_FOUND;
        }
        if (s == KV_END) break;
    }
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_lsm_survey_open(kvi_lsm_survey *v, kv_lsm *db, kvi_lsm_report *report, uint64_t number)
{
    kv_status s;
    memset(v, 0, sizeof *v);
    v->db = db;
    v->report = report;
    v->kept.allocator = v->merged.allocator = v->last.allocator = v->scan.window.allocator = db->options.allocator;
    v->scan.db = db;
    v->scan.kind = KVI_LSM_TABLE;
    v->scan.number = number;
    v->scan.seed = kvi_lsm_seed(db->id, number, KVI_LSM_TABLE);
    s = kvi_lsm_open_file(db, KVI_LSM_TABLE, number, 0, &v->scan.file);
    if (s != KV_OK) { v->scan.file = NULL; return s; }
    return db->io->size(db->io->user, v->scan.file, &v->scan.size);
}
KVI_PRIVATE void kvi_lsm_survey_close(kvi_lsm_survey *v)
{
    kvi_lsm_scan_close(&v->scan);
    kv_buf_free(&v->kept);
    kv_buf_free(&v->merged);
    kv_buf_free(&v->last);
}

/* Compare what was found with what the manifest (t) and the table itself say. */
KVI_PRIVATE void kvi_lsm_survey_compare(kvi_lsm_survey *v, const kvi_lsm_table *t)
{
    if (v->damaged) return;
    if (!v->has_properties) { kvi_lsm_survey_bad(v, v->scan.size, "the properties are damaged"); return; }
    if (v->scan.size != t->size) kvi_lsm_survey_bad(v, v->scan.size, "the file has another size than the manifest says");
    if (v->entries != t->entries || v->tombstones != t->tombstones || v->key_bytes != t->key_bytes || v->value_bytes != t->value_bytes
        || v->entries != v->properties.entries) kvi_lsm_survey_bad(v, KVI_LSM_NO_SEQUENCE, "it holds another number of entries or bytes than the manifest says");
    if (v->index && v->index->count != v->blocks) kvi_lsm_survey_bad(v, KVI_LSM_NO_SEQUENCE, "the index has another number of blocks");
    if (!kv_equal(kv_buf_slice(&v->last), t->largest) || !kv_equal(v->properties.smallest, t->smallest)) kvi_lsm_survey_bad(v, KVI_LSM_NO_SEQUENCE, "its keys are not those that the manifest says");
}
KVI_PRIVATE kv_status kvi_lsm_check_table(kv_lsm *db, kvi_lsm_report *report, kvi_lsm_table *t, bool *damaged)
{
    kvi_lsm_survey v;
    kv_status      s = kvi_lsm_survey_open(&v, db, report, t->number);
    v.bounds = t;
    if (s == KV_OK && v.scan.size == t->size) {
        kvi_lsm_index *x = NULL;
        kv_status      read = kvi_lsm_table_read_index(db, t, v.scan.file, v.scan.size, &x);
        if (read == KV_ERR_CORRUPT) kvi_lsm_survey_bad(&v, KVI_LSM_NO_SEQUENCE, "footer or index are damaged");
        else if (read < 0) s = read;
        else v.index = x;
    }
    if (s == KV_OK) s = kvi_lsm_survey_walk(&v);
    if (s == KV_OK) kvi_lsm_survey_compare(&v, t);
    *damaged = v.damaged;
    if (s < 0 && !v.newer) (void)kvi_lsm_say(report, s, KVI_LSM_TABLE, t->number, KVI_LSM_NO_SEQUENCE, "cannot be read");
    if (s == KV_NOT_FOUND) { *damaged = true; (void)kvi_lsm_say(report, KV_ERR_CORRUPT, KVI_LSM_TABLE, t->number, KVI_LSM_NO_SEQUENCE, "is missing"); }
    kvi_lsm_index_free(db, (kvi_lsm_index *)(uintptr_t)v.index, 0);
    kvi_lsm_survey_close(&v);
    return s < 0 ? s : KV_OK;
}

/* An object for offline work on a store's files. */
KVI_PRIVATE kv_status kvi_lsm_offline(const char *path, const kv_lsm_options *options, bool read_only, kvi_lsm_report *report, kv_lsm **db)
{
    kv_lsm_options o;
    const char    *what;
    kv_status      s = path && *path ? kvi_lsm_resolve(options, &o, &what) : KV_ERR_INVALID;
    if (!path || !*path) what = KVI_LSM_WORDS("the path is empty");
    if (s < 0) { kvi_lsm_say_text(report, s, what); return s; }
    o.read_only = read_only;
    o.create_only = false;
    o.must_exist = true;
    o.skip_verify = o.map_tables = false;
    o.no_background = true;
    o.cache_bytes = KV_NONE;
    *db = kvi_lsm_new(path, &o);
    if (!*db) { kvi_lsm_say_text(report, KV_ERR_NO_MEMORY, kv_status_text(KV_ERR_NO_MEMORY)); return KV_ERR_NO_MEMORY; }
    (*db)->salvages = !read_only;
    s = kvi_lsm_enter_directory(*db);
    if (s == KV_OK) return KV_OK;
    kvi_lsm_say_text(report, s < 0 ? s : KV_ERR_INVALID, kvi_error_text(&(*db)->error));
    kvi_lsm_free(*db);
    *db = NULL;
    return s;
}

/* Manifest, logs and tables of the store that `db` looks at, read-only. */
KVI_PRIVATE kv_status kvi_lsm_check_all(kv_lsm *db, kvi_lsm_report *report)
{
    bool      damaged;
    kv_status s = kvi_lsm_recover(db);
    if (s < 0) kvi_lsm_say_text(report, s, kvi_error_text(&db->error));
    if (s == KV_NOT_FOUND) kvi_lsm_say_text(report, KV_OK, "the making of the store was cut off: there is nothing in it yet");
    for (uint32_t i = 0; db->version && i < db->version->count; i++) {
        kv_status t = kvi_lsm_check_table(db, report, db->version->tables[i], &damaged);
        if (t == KV_ERR_NO_MEMORY) return t;
    }
    return s;
}

/* ------------------------------------------------------------------------------------------------
   >>repair   a store out of what can be read

   1. which tables: those of the manifest, where it is whole and the logs follow on it (what it does not
      name goes to lost/); else all there are but those that a complete merge replaced
   2. a table with damage is written anew from its good blocks; the damaged file goes to lost/
   3. logs are replayed up to their first damage
   4. without a manifest nobody knows which table was above which, so all are merged into one run
   5. a new log, manifest and CURRENT, as at the end of every recovery
   Until 5 the old files are as they were.                                                         */

typedef struct kvi_lsm_repairer {
    kv_lsm          *db;
    kvi_lsm_report  *report;
    kvi_lsm_recovery r;
    kv_buf           tables;                /* kvi_lsm_table *: what the store will have */
    kv_buf           replaced;              /* u64: numbers that a complete merge replaced */
    bool             has_manifest, changed;
} kvi_lsm_repairer;

KVI_PRIVATE void kvi_lsm_repair_mark(kvi_lsm_repairer *p, int kind, uint64_t number)      /* this file goes to lost/ */
{
    for (size_t i = 0; i < kvi_lsm_name_count(&p->r); i++) {
        kvi_lsm_name *n = &kvi_lsm_names(&p->r)[i];
        if (n->kind == kind && n->number == number) n->torn = true;
    }
    p->changed = true;
}
KVI_PRIVATE kv_status kvi_lsm_repair_keep(kvi_lsm_repairer *p, const kvi_lsm_table *like, kv_slice smallest, kv_slice largest)
{
    kvi_lsm_table *t = kvi_lsm_table_new(p->db, like, smallest, largest);
    if (!t) return kvi_lsm_no_memory(p->db);
    if (kv_buf_append(&p->tables, kv_bytes(&t, sizeof t)) < 0) { kvi_lsm_table_release(p->db, t); return kvi_lsm_no_memory(p->db); }
    return KV_OK;
}
/* Write the good entries of a table to a new one. t: where it stands in the tree. */
KVI_PRIVATE kv_status kvi_lsm_repair_rewrite(kvi_lsm_repairer *p, const kvi_lsm_table *t)
{
    kvi_lsm_survey  v;
    kvi_lsm_builder b;
    kvi_lsm_report  silent;
    kvi_lsm_table  *made = NULL;
    uint64_t        last = t->last_sequence;
    kv_status       s;
    memset(&silent, 0, sizeof silent);
    kvi_lsm_builder_init(&b, p->db);
    s = kvi_lsm_survey_open(&v, p->db, &silent, t->number);
    if (s == KV_OK) s = kvi_lsm_builder_begin(&b, t->level, t->age);
    v.salvage = &b;
    if (p->has_manifest) v.bounds = t;                      /* beyond it are the entries of its neighbours */
    if (s == KV_OK) s = kvi_lsm_survey_walk(&v);
    if (s == KV_OK && b.any) {
        if (b.made.last_sequence < last) b.made.last_sequence = last;
        s = kvi_lsm_builder_end(&b, KVI_LSM_NO_VALUE, &made);
        if (s == KV_OK && kv_buf_append(&p->tables, kv_bytes(&made, sizeof made)) < 0) { kvi_lsm_table_release(p->db, made); s = kvi_lsm_no_memory(p->db); }
    }
    if (b.file) kvi_lsm_builder_abandon(&b);
    if (s == KV_OK) {
        char     text[160];
        kvi_text out = kvi_text_over(text, sizeof text);
        kvi_text_add(&out, made ? "rewritten with " : "nothing of it could be read: ");
        kvi_text_u64(&out, v.entries);
        kvi_text_add(&out, " entries");
        if (t->entries) { kvi_text_add(&out, " of "); kvi_text_u64(&out, t->entries); }
        (void)kvi_lsm_say(p->report, KV_OK, KVI_LSM_TABLE, t->number, KVI_LSM_NO_SEQUENCE, text);
        kvi_lsm_repair_mark(p, KVI_LSM_TABLE, t->number);
    }
    kvi_lsm_builder_free(&b);
    kvi_lsm_survey_close(&v);
    return s;
}

/* 2. for the tables of a manifest. */
KVI_PRIVATE kv_status kvi_lsm_repair_known(kvi_lsm_repairer *p)
{
    kv_lsm *db = p->db;
    for (uint32_t i = 0; i < db->version->count; i++) {
        kvi_lsm_table *t = db->version->tables[i];
        bool           damaged = false, missing;
        kv_file       *file;
        kv_status      s = kvi_lsm_open_file(db, KVI_LSM_TABLE, t->number, 0, &file);
        missing = s == KV_NOT_FOUND;
        if (s == KV_OK) { (void)db->io->close(db->io->user, file); s = kvi_lsm_check_table(db, p->report, t, &damaged); }
        if (missing) {
            char     text[200];
            kvi_text out = kvi_text_over(text, sizeof text);
            kvi_text_add(&out, "is missing; lost are its entries from ");
            kvi_text_key(&out, t->smallest);
            kvi_text_add(&out, " to ");
            kvi_text_key(&out, t->largest);
            (void)kvi_lsm_say(p->report, KV_ERR_CORRUPT, KVI_LSM_TABLE, t->number, KVI_LSM_NO_SEQUENCE, text);
            p->changed = true;
            continue;
        }
        if (s < 0) return s;
        s = damaged ? kvi_lsm_repair_rewrite(p, t) : kvi_lsm_repair_keep(p, t, t->smallest, t->largest);
        if (s < 0) return s;
    }
    return KV_OK;
}

KVI_PRIVATE bool kvi_lsm_repair_has(const kv_buf *numbers, uint64_t number)
{
    for (size_t i = 0; i < numbers->size; i += sizeof number) {
        uint64_t n;
        memcpy(&n, (const uint8_t *)numbers->data + i, sizeof n);
        if (n == number) return true;
    }
    return false;
}
/* A merge whose tables are all whole: what it replaced is not needed. */
KVI_PRIVATE kv_status kvi_lsm_repair_merged(kvi_lsm_repairer *p, kv_slice merged, const kv_buf *whole)
{
    kvi_lsm_reader in = kvi_lsm_read_over(merged.data, merged.size), outputs;
    uint64_t       count = kvi_lsm_read_varint(&in);
    outputs = in;
    for (uint64_t i = 0; i < count && !outputs.bad; i++) (void)kvi_lsm_read_varint(&outputs);
    for (uint64_t i = kvi_lsm_read_varint(&outputs); i > 0 && !outputs.bad; i--) if (!kvi_lsm_repair_has(whole, kvi_lsm_read_varint(&outputs))) return KV_OK;
    if (outputs.bad) return KV_OK;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t number = kvi_lsm_read_varint(&in);
        if (kv_buf_append(&p->replaced, kv_bytes(&number, sizeof number)) < 0) return kvi_lsm_no_memory(p->db);
    }
    return KV_OK;
}
/* 1. and 2. without a manifest: every table that is there. Two passes: which are whole and what they
   replaced; then keep or rewrite. */
KVI_PRIVATE kv_status kvi_lsm_repair_found(kvi_lsm_repairer *p)
{
    kv_lsm   *db = p->db;
    kv_buf    whole;
    kv_status s = KV_OK;
    memset(&whole, 0, sizeof whole);
    whole.allocator = db->options.allocator;
    for (int pass = 0; pass < 3 && s == KV_OK; pass++) {
        kvi_lsm_report silent;
        memset(&silent, 0, sizeof silent);
        for (size_t i = 0; s == KV_OK && i < kvi_lsm_name_count(&p->r); i++) {
            const kvi_lsm_name *n = &kvi_lsm_names(&p->r)[i];
            kvi_lsm_survey      v;
            bool                sound;
            uint64_t            number = n->number;
            if (n->kind != KVI_LSM_TABLE || (pass == 2 && kvi_lsm_repair_has(&p->replaced, number))) continue;
            s = kvi_lsm_survey_open(&v, db, pass == 2 ? p->report : &silent, number);
            if (s == KV_OK) s = kvi_lsm_survey_walk(&v);
            if (v.newer) s = KV_ERR_VERSION;
            sound = s == KV_OK && !v.damaged && v.has_properties;
            if (pass == 0 && sound && kv_buf_append(&whole, kv_bytes(&number, sizeof number)) < 0) s = kvi_lsm_no_memory(db);
            if (pass == 1 && sound && v.merged.size) s = kvi_lsm_repair_merged(p, kv_buf_slice(&v.merged), &whole);
            if (pass == 2 && s == KV_OK) {
                kvi_lsm_table like = v.properties;
                like.number = number;
                like.level = 0;
                like.age = number;
                like.size = v.scan.size;
                if (sound) s = kvi_lsm_repair_keep(p, &like, like.smallest, like.largest);
                else { if (!v.has_properties) like.entries = like.last_sequence = 0; s = kvi_lsm_repair_rewrite(p, &like); }
            }
            kvi_lsm_survey_close(&v);
        }
    }
    kv_buf_free(&whole);
    return s;
}

/* 3. Logs from `from` on, up to the first damage. */
KVI_PRIVATE kv_status kvi_lsm_repair_log(kvi_lsm_repairer *p, kvi_lsm_name *n, bool *stop)
{
    kv_lsm      *db = p->db;
    kvi_lsm_scan scan;
    uint64_t     behind = 0;
    kv_status    s = kvi_lsm_scan_open(&scan, db, KVI_LSM_LOG, n->number);
    bool         header = s == KV_OK;
    if (s == KV_END || s == KV_NOT_FOUND) {
        if (scan.size > KVI_LSM_HEADER_SIZE) (void)kvi_lsm_say(p->report, KV_ERR_CORRUPT, KVI_LSM_LOG, n->number, 0, "the header is damaged");
        s = KV_OK;
    }
    while (s == KV_OK) {
        s = kvi_lsm_scan_next(&scan);
        if (s != KV_OK) break;
        if (scan.sequence <= p->r.sequence) continue;       /* it is in a table already */
        p->r.sequence = scan.sequence - 1;                  /* what is missing before it was lost with a table or log */
        s = kvi_lsm_replay_record(&p->r, &scan);
        if (s == KV_ERR_CORRUPT) s = KV_NOT_FOUND;
        if (s == KV_OK && kvi_peek_size(&db->active->used_bytes) >= db->options.memtable_bytes) s = kvi_lsm_recover_flush(db);
    }
    if (s == KV_NOT_FOUND || !header) {
        uint64_t at = scan.at, next = at;
        for (uint64_t offset = at + 1; offset + KVI_LSM_RECORD_SIZE <= scan.size; offset++) {
            kv_status found = kvi_lsm_scan_record(&scan, offset, &next);
            if (found < 0) { s = found; break; }
            if (found == KV_OK) { behind++; offset = next - 1; }
        }
        if (s >= 0 && (at < scan.size || behind)) {
            char     text[120];
            kvi_text t = kvi_text_over(text, sizeof text);
            kvi_text_add(&t, "torn or damaged from here; ");
            kvi_text_u64(&t, behind);
            kvi_text_add(&t, " whole records behind it are not used");
            (void)kvi_lsm_say(p->report, behind ? KV_ERR_CORRUPT : KV_OK, KVI_LSM_LOG, n->number, at, text);
            n->torn = true;
            *stop = true;
        }
        if (s >= 0) s = KV_END;
    }
    p->r.last_log = n->number;
    kvi_lsm_scan_close(&scan);
    return s < 0 ? s : KV_OK;
}

/* 4. All tables into one run. Each is a run of its own by now. */
KVI_PRIVATE kv_status kvi_lsm_repair_merge(kvi_lsm_repairer *p)
{
    kv_lsm          *db = p->db;
    kvi_lsm_plan     plan;
    kvi_lsm_job     *j;
    kvi_lsm_version *version;
    uint64_t         bytes = 0;
    kv_status        s = KV_OK;
    memset(&plan, 0, sizeof plan);
    plan.inputs = db->version->tables;
    plan.count = db->version->count;
    for (uint32_t i = 0; i < plan.count; i++) { bytes += plan.inputs[i]->size; plan.inputs[i]->age = plan.inputs[i]->number; plan.inputs[i]->level = 0; }
    plan.output = 1;
    while (plan.output + 1 < KV_LSM_LEVELS && kvi_lsm_level_target(db, plan.output) < bytes) plan.output++;
    kvi_lsm_sort_tables(db->version->tables, db->version->count);
    version = kvi_lsm_version_new(db, db->version->tables, db->version->count);     /* with the runs that they are now */
    if (!version) return kvi_lsm_no_memory(db);
    kvi_lsm_version_release(db, db->version);
    db->version = version;
    plan.inputs = version->tables;
    j = kvi_lsm_merge_plan(db, &plan, 0);
    if (!j) return kvi_lsm_no_memory(db);
    while (s == KV_OK) s = kvi_lsm_job_step(db, j);
    if (s == KV_END) {
        version = kvi_lsm_job_version(db, j);
        s = version ? KV_OK : kvi_lsm_no_memory(db);
    }
    j->committed = s == KV_OK;
    kvi_lsm_job_free(db, j, false);
    if (s < 0) return s;
    kvi_lsm_version_release(db, db->version);
    db->version = version;
    return KV_OK;
}

/* Do the logs begin behind the end of the tables that the manifest names? Then an edit is missing at
   its end, and with it a table, whose log is gone. */
KVI_PRIVATE kv_status kvi_lsm_repair_gap(kvi_lsm_repairer *p, bool *gap)
{
    kv_status s = KV_OK;
    *gap = false;
    for (size_t i = 0; s == KV_OK && i < kvi_lsm_name_count(&p->r); i++) {
        const kvi_lsm_name *n = &kvi_lsm_names(&p->r)[i];
        kvi_lsm_scan        scan;
        if (n->kind != KVI_LSM_LOG || n->number < p->r.log_number) continue;
        s = kvi_lsm_scan_open(&scan, p->db, KVI_LSM_LOG, n->number);
        *gap = s == KV_OK && scan.header.a > p->r.flushed;
        if (s == KV_OK) s = KV_END;                         /* the first one tells */
        else if (s == KV_END || s == KV_NOT_FOUND) s = KV_OK;
        kvi_lsm_scan_close(&scan);
    }
    return s < 0 ? s : KV_OK;
}
/* The store's id, and its newest manifest that can be read: that of CURRENT, else any. */
KVI_PRIVATE kv_status kvi_lsm_repair_manifest(kvi_lsm_repairer *p)
{
    kv_lsm   *db = p->db;
    bool      has_id = false, gap;
    kv_status s = kvi_lsm_read_current(db, &p->r.manifest);
    if (s == KV_ERR_NO_MEMORY || s == KV_ERR_IO || s == KV_ERR_VERSION) return s;
    if (s != KV_OK) { kvi_lsm_say_text(p->report, KV_ERR_CORRUPT, s == KV_NOT_FOUND ? "CURRENT: is missing" : "CURRENT: is damaged"); p->changed = true; p->r.manifest = 0; }
    else has_id = true;
    for (size_t i = kvi_lsm_name_count(&p->r); i-- > 0 && !has_id;) {       /* any file's header tells the id */
        const kvi_lsm_name *n = &kvi_lsm_names(&p->r)[i];
        uint8_t             bytes[KVI_LSM_HEADER_SIZE];
        kvi_lsm_header      h;
        kv_file            *file;
        if (kvi_lsm_open_file(db, n->kind, n->number, 0, &file) != KV_OK) continue;
        if (kvi_lsm_read_at(db, file, 0, bytes, sizeof bytes) == KV_OK && kvi_lsm_header_decode(bytes, n->kind, &h) == KV_OK && h.number == n->number) {
            memcpy(db->id, h.id, 16);
            has_id = true;
        }
        (void)db->io->close(db->io->user, file);
    }
    if (!has_id) return kvi_lsm_error(db, KV_ERR_CORRUPT, "no file of the store has a readable header");
    db->hash_seed = kvi_load_le64(db->id) ^ kvi_load_le64(db->id + 8);
    for (size_t i = kvi_lsm_name_count(&p->r); i-- > 0 && !p->has_manifest;) {
        const kvi_lsm_name *n = &kvi_lsm_names(&p->r)[i];
        if (n->kind != KVI_LSM_MANIFEST || (p->r.manifest && n->number != p->r.manifest)) continue;
        p->r.manifest = n->number;
        p->r.torn = false;
        s = kvi_lsm_read_manifest_only(&p->r);
        if (s == KV_ERR_NO_MEMORY || s == KV_ERR_IO || s == KV_ERR_VERSION) return s;
        gap = false;
        if (s == KV_OK && !p->r.torn) {
            s = kvi_lsm_repair_gap(p, &gap);
            if (s < 0) return s;
            if (!gap) { p->has_manifest = true; break; }
        }
        /* in a store that needs repair, a bad end may have been the edit that named the newest table */
        (void)kvi_lsm_say(p->report, KV_ERR_CORRUPT, KVI_LSM_MANIFEST, n->number, KVI_LSM_NO_SEQUENCE,
                          gap ? "its end is missing: the logs begin later" : s == KV_OK ? "its end is torn or damaged" : kvi_error_text(&db->error));
        kvi_lsm_repair_mark(p, KVI_LSM_MANIFEST, n->number);
        kvi_lsm_forget_tables(&p->r);
    }
    if (!p->has_manifest && p->r.manifest) (void)kvi_lsm_say(p->report, KV_ERR_CORRUPT, KVI_LSM_MANIFEST, p->r.manifest, KVI_LSM_NO_SEQUENCE, "cannot be used: every table and log is taken");
    return KV_OK;
}

KVI_PRIVATE kv_status kvi_lsm_repair_all(kvi_lsm_repairer *p)
{
    kv_lsm   *db = p->db;
    uint64_t  greatest = 0, from;
    bool      stop = false;
    kv_status s;

    /* 1. and 2. */
    s = kvi_lsm_list(&p->r);
    if (s == KV_OK) s = kvi_lsm_repair_manifest(p);
    if (s < 0) return s;
    db->next_number = (p->r.greatest_number > p->r.next_number ? p->r.greatest_number : p->r.next_number) + 1;
    db->active = kvi_lsm_memtable_new(db, NULL);
    if (!db->active) return kvi_lsm_no_memory(db);
    s = p->has_manifest ? kvi_lsm_repair_known(p) : kvi_lsm_repair_found(p);
    if (s < 0) return s;
    kvi_lsm_version_release(db, db->version);
    db->version = kvi_lsm_version_new(db, (kvi_lsm_table *const *)p->tables.data, (uint32_t)(p->tables.size / sizeof(kvi_lsm_table *)));
    if (!db->version) return kvi_lsm_no_memory(db);

    /* 3. */
    for (uint32_t i = 0; i < db->version->count; i++) if (db->version->tables[i]->last_sequence > greatest) greatest = db->version->tables[i]->last_sequence;
    p->r.sequence = p->has_manifest && p->r.flushed > greatest ? p->r.flushed : greatest;
    from = p->has_manifest ? p->r.log_number : 0;
    for (size_t i = 0; i < kvi_lsm_name_count(&p->r) && s == KV_OK; i++) {
        kvi_lsm_name *n = &kvi_lsm_names(&p->r)[i];
        if (n->kind != KVI_LSM_LOG || n->number < from) continue;
        if (stop) { n->torn = true; (void)kvi_lsm_say(p->report, KV_ERR_CORRUPT, KVI_LSM_LOG, n->number, KVI_LSM_NO_SEQUENCE, "is not used: a log before it is damaged"); continue; }
        s = kvi_lsm_repair_log(p, n, &stop);
    }
    if (s == KV_OK && db->active->count) s = kvi_lsm_recover_flush(db);

    /* 4. */
    if (s == KV_OK && !p->has_manifest && db->version->count) s = kvi_lsm_repair_merge(p);
    if (s < 0) return s;

    /* 5. */
    db->sequence = p->r.sequence;
    kvi_store_u64(&db->visible, db->sequence);
    p->r.torn = false;
    if (p->has_manifest)                                    /* a table that the manifest does not name may be one that it should */
        for (size_t i = 0; i < kvi_lsm_name_count(&p->r); i++) if (kvi_lsm_names(&p->r)[i].kind == KVI_LSM_TABLE) kvi_lsm_names(&p->r)[i].torn = true;
    return kvi_lsm_renew(&p->r);
}
KVI_PRIVATE kv_status kvi_lsm_repair(const char *path, const kv_lsm_options *options, kvi_lsm_report *report)
{
    kvi_lsm_repairer p;
    kvi_lsm_report   found;
    kv_lsm          *db = NULL;
    kv_status        s;

    /* is there anything to do? */
    memset(&found, 0, sizeof found);
    s = kvi_lsm_offline(path, options, true, &found, &db);
    if (s == KV_OK) {
        s = kvi_lsm_check_all(db, &found);
        kvi_store_u32(&db->keep_files, 1);
        kvi_lsm_free(db);
        if (s >= 0 && found.count == 0) {
            kvi_lsm_say_text(report, KV_OK, s == KV_OK ? "the store is sound: nothing to do"
                                                       : "the making of the store was cut off: nothing to do, kv_lsm_open makes it anew");
            return KV_OK;
        }
        if (s == KV_ERR_NO_MEMORY || s == KV_ERR_VERSION) { kvi_lsm_say_text(report, s, kv_status_text(s)); return s; }
    }
    s = kvi_lsm_offline(path, options, false, report, &db);
    if (s != KV_OK) return s;
    memset(&p, 0, sizeof p);
    p.db = db;
    p.report = report;
    p.r.db = db;
    p.r.names.allocator = p.r.tables.allocator = p.tables.allocator = p.replaced.allocator = db->options.allocator;
    s = kvi_lsm_repair_all(&p);
    if (s < 0) { kvi_lsm_say_text(report, s, kvi_error_text(&db->error)); kvi_store_u32(&db->keep_files, 1); }
    for (size_t i = 0; i < p.tables.size / sizeof(kvi_lsm_table *); i++) kvi_lsm_table_release(db, ((kvi_lsm_table **)p.tables.data)[i]);
    kv_buf_free(&p.tables);
    kv_buf_free(&p.replaced);
    kvi_lsm_recovery_free(&p.r);
    kvi_lsm_free(db);
    return s < 0 ? s : KV_OK;
}

/* ------------------------------------------------------------------------------------------------
   >>api   public functions: check arguments, call what is above                                   */

KVI_PRIVATE kv_status kvi_lsm_start(kv_lsm *db)
{
    kvi_lsm_view *view = (kvi_lsm_view *)kvi_alloc(&db->options.allocator, sizeof *view);
    if (!view) return kvi_lsm_no_memory(db);
    kvi_mutex_lock(&db->mutex);
    (void)kvi_lsm_view_switch(db, view);
    db->work_pending = true;
    kvi_mutex_unlock(&db->mutex);
    if (db->options.read_only) {
        kvi_mutex_lock(&db->mutex);
        db->broken = KV_ERR_READ_ONLY;
        if (KVI_LSM_TEXT) memcpy(db->broken_text, "the store was opened read-only", 31);
        kvi_mutex_unlock(&db->mutex);
        kvi_store_u32(&db->keep_files, 1);
        return KV_OK;
    }
    return kvi_lsm_threads_start(db);
}

KVI_PRIVATE void kvi_lsm_tell(const kv_lsm_options *o, const char *path, const char *why, kv_status s)
{
    kvi_text t;
    if (!o || !o->error_text || !o->error_text_size) return;
    t = kvi_text_over(o->error_text, o->error_text_size);
    if (s == KV_OK) return;
    kvi_text_add(&t, path ? path : "(no path)");
    kvi_text_add(&t, ": ");
    kvi_text_add(&t, KVI_LSM_TEXT && *why ? why : kv_status_text(s));
}

KVI_LSM_DEFINE kv_status kv_lsm_open(const char *path, const kv_lsm_options *options, kv_lsm **out)
{
    kv_lsm_options o;
    const char    *what;
    kv_lsm        *db;
    kv_status      s;
    if (!out) return KV_ERR_INVALID;
    *out = NULL;
    s = path && *path ? kvi_lsm_resolve(options, &o, &what) : KV_ERR_INVALID;
    if (!path || !*path) what = KVI_LSM_WORDS("the path is empty");
    if (s < 0) { kvi_lsm_tell(options, path, what, s); return s; }
    kvi_fork_watch();
    db = kvi_lsm_new(path, &o);
    if (!db) { kvi_lsm_tell(options, path, "", KV_ERR_NO_MEMORY); return KV_ERR_NO_MEMORY; }
    s = kvi_lsm_enter_directory(db);
    if (s == KV_OK) s = kvi_lsm_recover(db);
    if (s == KV_OK) s = kvi_lsm_start(db);
    kvi_lsm_tell(options, path, s == KV_EXISTS ? "there is a store already" : s == KV_NOT_FOUND ? "there is no store" : kvi_error_text(&db->error), s);
    if (s != KV_OK) { kvi_store_u32(&db->keep_files, 1); kvi_lsm_free(db); return s; }
    *out = db;
    return KV_OK;
}

/* Say in the manifest that the store is closed, with the log's length. */
KVI_PRIVATE kv_status kvi_lsm_mark_clean(kv_lsm *db)
{
    kv_status s = kvi_lsm_sync_logs(db);
    if (s == KV_OK) s = kvi_lsm_log_cut(db, db->log);
    if (s == KV_OK) s = kvi_lsm_edit_begin(db);
    if (s == KV_OK) s = kvi_lsm_put_counters(db, &db->edit);
    if (s == KV_OK) s = kvi_lsm_put_field(&db->edit, KVI_LSM_FIELD_CLEAN, db->log->number);
    if (s == KV_OK) s = kvi_lsm_put_number(&db->edit, db->log->size);
    return s < 0 ? s : kvi_lsm_edit_commit(db);
}

/* 1. no new calls; those that write or wait end    2. everything to tables, the mark    3. no new reads;
   those that there are end, and the last cursor takes the store along, where there is one. */
KVI_LSM_DEFINE kv_status kv_lsm_close(kv_lsm *db)
{
    kv_status s = KV_OK;
    if (!db) return KV_OK;
    if (db->fork_count != kvi_fork_count()) {               /* a child: its parent goes on with the files */
        if (db->lock) (void)db->io->unlock(db->io->user, db->lock);
        return KV_OK;
    }

    /* 1. */
    kvi_mutex_lock(&db->mutex);
    kvi_store_u32(&db->closing, 1);
    while (db->writers || db->woken || db->inside) kvi_cond_wait_ms(&db->work_done, &db->mutex, 2);
    kvi_mutex_unlock(&db->mutex);

    /* 2. */
    if (!db->options.read_only) s = kvi_lsm_flush_now(db);
    kvi_lsm_threads_stop(db);
    if (db->options.sync == KV_SYNC_BATCH) (void)kvi_lsm_sync_now(db);     /* what was acknowledged, also where the flush failed */
    if (db->broken < 0 && s == KV_OK && !db->options.read_only) s = db->broken;
    if (s == KV_OK && !db->options.read_only) {
        kvi_lsm_job_end(db, &db->merge_job, KV_OK);         /* what it made goes; its inputs stay */
        s = kvi_lsm_mark_clean(db);
    }

    /* 3. */
    if (kvi_lsm_views_close(db)) kvi_lsm_free(db);
    return s;
}

KVI_LSM_DEFINE kv_store *kv_lsm_store(kv_lsm *db)
{
    if (db && !KVI_THREADS) db->store.ops = kvi_lsm_store_ops();
    return db ? &db->store : NULL;
}
KVI_LSM_DEFINE const kv_lsm_options *kv_lsm_get_options(const kv_lsm *db) { return db ? &db->options : NULL; }

/* ---- reads ---- */

KVI_INLINE bool kvi_lsm_usable(const kv_lsm *db) { return db && KVI_LIKELY(db->fork_count == kvi_fork_count()); }
KVI_PRIVATE kv_status kvi_lsm_bad_argument(kv_lsm *db, kv_status s, const char *what)
{
    if (!kvi_lsm_usable(db)) return KV_ERR_INVALID;         /* NULL, or in a child of the process that opened it */
    return kvi_lsm_error(db, s, what);
}
KVI_PRIVATE kv_status kvi_lsm_check_entry(kv_lsm *db, kv_slice key, kv_slice value)
{
    kv_status s = kv_check_key(key);
    if (!kvi_lsm_usable(db)) return KV_ERR_INVALID;
    if (s < 0) return kvi_lsm_error(db, s, s == KV_ERR_TOO_LARGE ? "the key is over 65,535 bytes" : "the key is NULL with a size");
    s = kv_check_value(value);
    return s < 0 ? kvi_lsm_error(db, s, s == KV_ERR_TOO_LARGE ? "the value is over 1 GiB - 1" : "the value is NULL with a size") : KV_OK;
}

KVI_LSM_DEFINE kv_status kv_lsm_get(kv_lsm *db, kv_slice key, kv_buf *value)
{
    kv_status s = kvi_lsm_check_entry(db, key, KVI_LSM_NO_VALUE);
    if (s < 0) return s;
    if (!value) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "value is NULL");
    return kvi_lsm_view_key(db, NULL, key, NULL, NULL, value);
}
KVI_LSM_DEFINE kv_status kv_lsm_exists(kv_lsm *db, kv_slice key)
{
    kv_status s = kvi_lsm_check_entry(db, key, KVI_LSM_NO_VALUE);
    return s < 0 ? s : kvi_lsm_view_key(db, NULL, key, NULL, NULL, NULL);
}
KVI_LSM_DEFINE kv_status kv_lsm_view(kv_lsm *db, kv_slice key, kv_visit_fn visit, void *user)
{
    kv_status s = kvi_lsm_check_entry(db, key, KVI_LSM_NO_VALUE);
    if (s < 0) return s;
    if (!visit) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "visit is NULL");
    return kvi_lsm_view_key(db, NULL, key, visit, user, NULL);
}
KVI_LSM_DEFINE kv_status kv_lsm_get_at(kv_lsm *db, const kv_snapshot *snapshot, kv_slice key, kv_buf *value)
{
    kv_status s = kvi_lsm_check_entry(db, key, KVI_LSM_NO_VALUE);
    if (s < 0) return s;
    if (!value) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "value is NULL");
    return kvi_lsm_view_key(db, snapshot, key, NULL, NULL, value);
}
KVI_LSM_DEFINE kv_status kv_lsm_batch_get(kv_lsm *db, const kv_slice *keys, size_t count, kv_buf *values, kv_status *statuses)
{
    kvi_lsm_view *view;                                     /* pins the store between two gets */
    kv_status     first = KV_OK;
    if (!kvi_lsm_usable(db) || (count && (!keys || !values))) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "keys or values is NULL");
    view = kvi_lsm_view_get(db);
    if (!view) return kvi_lsm_is_closed(db);
    for (size_t i = 0; i < count; i++) {
        kv_status s = kv_lsm_get(db, keys[i], &values[i]);
        if (statuses) statuses[i] = s;
        if (s < 0 && first == KV_OK) first = s;
    }
    kvi_lsm_view_release(db, view);
    return first;
}
KVI_LSM_DEFINE kv_status kv_lsm_iter_open(kv_lsm *db, const kv_snapshot *snapshot, const kv_range *range, kv_iter **iter)
{
    if (!kvi_lsm_usable(db) || !iter || kvi_check_range(range) < 0) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "iter is NULL, or the range is none");
    *iter = NULL;
    return kvi_lsm_cursor_open(db, snapshot ? &snapshot->sequence : NULL, true, range, iter);
}
KVI_LSM_DEFINE kv_status kv_lsm_scan(kv_lsm *db, const kv_range *range, kv_visit_fn visit, void *user)
{
    kv_iter  *i;
    kv_status s;
    if (!visit) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "visit is NULL");
    if (!kvi_lsm_usable(db) || kvi_check_range(range) < 0) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "the range is none");
    s = kvi_lsm_cursor_open(db, NULL, false, range, &i);
    if (s < 0) return s;
    while (kv_iter_valid(i) && visit(user, kv_iter_key(i), kv_iter_value(i))) kv_iter_next(i);
    s = kv_iter_status(i);
    kv_iter_close(i);
    return s;
}
KVI_LSM_DEFINE kv_status kv_lsm_count(kv_lsm *db, const kv_range *range, uint64_t *count)
{
    kv_stats  counted;
    kv_status s;
    if (!count) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "count is NULL");
    memset(&counted, 0, sizeof counted);
    s = kv_lsm_scan(db, range, kvi_visit_count, &counted);
    if (s == KV_OK) *count = counted.keys;
    return s;
}

/* ---- writes ---- */

KVI_LSM_DEFINE kv_status kv_lsm_set(kv_lsm *db, kv_slice key, kv_slice value)
{
    kv_status s = kvi_lsm_check_entry(db, key, value);
    return s < 0 ? s : kvi_lsm_write_one(db, KVI_LSM_SET, key, value);
}
KVI_LSM_DEFINE kv_status kv_lsm_delete(kv_lsm *db, kv_slice key)
{
    kv_status s = kvi_lsm_check_entry(db, key, KVI_LSM_NO_VALUE);
    return s < 0 ? s : kvi_lsm_write_one(db, KVI_LSM_DELETE, key, KVI_LSM_NO_VALUE);
}

KVI_LSM_DEFINE kv_status kv_lsm_batch_open(const kv_allocator *allocator, kv_lsm_batch **batch)
{
    kv_allocator  a = kvi_allocator_or_default(allocator);
    kv_lsm_batch *b;
    if (!batch) return KV_ERR_INVALID;
    *batch = b = (kv_lsm_batch *)kvi_alloc_zero(&a, sizeof *b);
    if (!b) return KV_ERR_NO_MEMORY;
    b->allocator = b->ops.allocator = a;
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_lsm_batch_add(kv_lsm_batch *b, uint8_t op, kv_slice key, kv_slice value)
{
    size_t    size = kvi_lsm_op_size(op, key, value);
    kv_status s = kv_check_key(key);
    if (s == KV_OK) s = kv_check_value(value);
    if (s == KV_OK && (b->ops.size + size > KV_LSM_BATCH_SIZE_MAX || b->count == UINT32_MAX)) s = KV_ERR_TOO_LARGE;
    if (s == KV_OK && b->ops.size + size > b->ops.capacity) s = kv_buf_reserve(&b->ops, b->ops.size + size < b->ops.capacity * 2 ? b->ops.capacity * 2 : b->ops.size + size + 64);
    if (s < 0) { if (b->status == KV_OK) b->status = s; return s; }
    (void)kvi_lsm_put_op((uint8_t *)b->ops.data + b->ops.size, op, key, value);
    b->ops.size += size;
    b->count++;
    b->key_bytes += key.size;
    b->value_bytes += value.size;
    return KV_OK;
}
KVI_LSM_DEFINE kv_status kv_lsm_batch_put(kv_lsm_batch *b, kv_slice key, kv_slice value) { return b ? kvi_lsm_batch_add(b, KVI_LSM_SET, key, value) : KV_ERR_INVALID; }
KVI_LSM_DEFINE kv_status kv_lsm_batch_remove(kv_lsm_batch *b, kv_slice key) { return b ? kvi_lsm_batch_add(b, KVI_LSM_DELETE, key, KVI_LSM_NO_VALUE) : KV_ERR_INVALID; }
KVI_LSM_DEFINE size_t kv_lsm_batch_count(const kv_lsm_batch *b) { return b ? b->count : 0; }
KVI_LSM_DEFINE void kv_lsm_batch_clear(kv_lsm_batch *b)
{
    if (!b) return;
    b->ops.size = b->key_bytes = b->value_bytes = 0;
    b->count = 0;
    b->status = KV_OK;
}
KVI_LSM_DEFINE void kv_lsm_batch_close(kv_lsm_batch *b)
{
    kv_allocator a;
    if (!b) return;
    a = b->allocator;
    kv_buf_free(&b->ops);
    kvi_free(&a, b, sizeof *b);
}
KVI_LSM_DEFINE kv_status kv_lsm_write(kv_lsm *db, const kv_lsm_batch *b)
{
    if (!kvi_lsm_usable(db) || !b) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "the batch is NULL");
    if (b->status < 0) return kvi_lsm_error(db, b->status, "an entry could not be put into the batch");
    return kvi_lsm_write_batch(db, b);
}
/* A batch of the pairs (or, without pairs, of deletes of the keys), written. */
KVI_PRIVATE kv_status kvi_lsm_write_many(kv_lsm *db, const kv_pair *pairs, const kv_slice *keys, size_t count)
{
    kv_lsm_batch b;
    kv_status    s = KV_OK;
    memset(&b, 0, sizeof b);
    b.allocator = b.ops.allocator = db->options.allocator;
    for (size_t i = 0; s == KV_OK && i < count; i++) {
        s = kvi_lsm_check_entry(db, pairs ? pairs[i].key : keys[i], pairs ? pairs[i].value : KVI_LSM_NO_VALUE);
        if (s < 0) break;
        s = kvi_lsm_batch_add(&b, pairs ? KVI_LSM_SET : KVI_LSM_DELETE, pairs ? pairs[i].key : keys[i], pairs ? pairs[i].value : KVI_LSM_NO_VALUE);
        if (s < 0) (void)kvi_lsm_error(db, s, NULL);
    }
    if (s == KV_OK) s = kvi_lsm_write_batch(db, &b);
    kv_buf_free(&b.ops);
    return s;
}
KVI_LSM_DEFINE kv_status kv_lsm_batch_set(kv_lsm *db, const kv_pair *pairs, size_t count)
{
    if (!kvi_lsm_usable(db) || (count && !pairs)) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "pairs is NULL");
    return kvi_lsm_write_many(db, pairs, NULL, count);
}
KVI_LSM_DEFINE kv_status kv_lsm_batch_delete(kv_lsm *db, const kv_slice *keys, size_t count)
{
    if (!kvi_lsm_usable(db) || (count && !keys)) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "keys is NULL");
    return kvi_lsm_write_many(db, NULL, keys, count);
}

/* ---- read and write as one step: by a leader who is alone ---- */

typedef struct kvi_lsm_change { kv_slice expected, value; int64_t delta, result; int kind; uint8_t typed[9]; } kvi_lsm_change;
enum { KVI_LSM_INSERT, KVI_LSM_COMPARE, KVI_LSM_INCREMENT };

KVI_PRIVATE kv_status kvi_lsm_decide(kvi_lsm_change *c, bool found, kv_slice old)
{
    kv_value v;
    switch (c->kind) {
    case KVI_LSM_INSERT:
        return found ? KV_EXISTS : KV_OK;
    case KVI_LSM_COMPARE:
        return !found ? KV_NOT_FOUND : kv_equal(old, c->expected) ? KV_OK : KV_ERR_CONFLICT;
    default:
        v.as.int64 = 0;
        if (found && (kv_value_decode(old, &v) < 0 || v.type != KV_INT64)) return KV_ERR_WRONG_TYPE;
        if (c->delta > 0 ? v.as.int64 > INT64_MAX - c->delta : v.as.int64 < INT64_MIN - c->delta) return KV_ERR_INVALID;
        c->result = v.as.int64 + c->delta;
        c->typed[0] = KV_INT64;
        kvi_store_le64(c->typed + 1, (uint64_t)c->result);
        c->value = kv_bytes(c->typed, sizeof c->typed);
        return KV_OK;
    }
}
KVI_PRIVATE kv_status kvi_lsm_change_key(kv_lsm *db, kv_slice key, kvi_lsm_change *c)
{
    kvi_lsm_writer w;
    kvi_lsm_view  *view;
    kvi_lsm_found  found;
    kv_status      s;
    kvi_lsm_writer_init(db, &w, KVI_LSM_SET, key, KVI_LSM_NO_VALUE);
    s = kvi_lsm_lead_alone(db, &w);
    if (s < 0) return s;
    view = kvi_lsm_view_get(db);                            /* there is one as long as somebody leads */
    s = kvi_lsm_find(db, view, key, db->sequence, &found);
    if (s >= 0) s = kvi_lsm_decide(c, s == KV_OK && !found.deleted, found.value);
    kvi_lsm_block_release(db, found.block);
    kvi_lsm_view_release(db, view);
    if (s != KV_OK) {
        if (s == KV_ERR_CONFLICT || s == KV_ERR_WRONG_TYPE || s == KV_ERR_INVALID) (void)kvi_lsm_fail(db, s, kv_status_text(s), key);
        kvi_lsm_lead_alone_end(db, &w);
        return s;
    }
    w.value = c->value;
    w.value_bytes = c->value.size;
    kvi_mutex_lock(&db->mutex);
    return kvi_lsm_lead(db, &w);
}
KVI_LSM_DEFINE kv_status kv_lsm_insert(kv_lsm *db, kv_slice key, kv_slice value)
{
    kvi_lsm_change c;
    kv_status      s = kvi_lsm_check_entry(db, key, value);
    if (s < 0) return s;
    memset(&c, 0, sizeof c);
    c.kind = KVI_LSM_INSERT;
    c.value = value;
    return kvi_lsm_change_key(db, key, &c);
}
KVI_LSM_DEFINE kv_status kv_lsm_compare_and_set(kv_lsm *db, kv_slice key, kv_slice expected, kv_slice value)
{
    kvi_lsm_change c;
    kv_status      s = kvi_lsm_check_entry(db, key, value);
    if (s < 0) return s;
    if (!expected.data && expected.size) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "expected is NULL with a size");
    memset(&c, 0, sizeof c);
    c.kind = KVI_LSM_COMPARE;
    c.value = value;
    c.expected = expected;
    return kvi_lsm_change_key(db, key, &c);
}
KVI_LSM_DEFINE kv_status kv_lsm_increment(kv_lsm *db, kv_slice key, int64_t delta, int64_t *result)
{
    kvi_lsm_change c;
    kv_status      s = kvi_lsm_check_entry(db, key, KVI_LSM_NO_VALUE);
    if (s < 0) return s;
    memset(&c, 0, sizeof c);
    c.kind = KVI_LSM_INCREMENT;
    c.delta = delta;
    s = kvi_lsm_change_key(db, key, &c);
    if (s == KV_OK && result) *result = c.result;
    return s;
}
KVI_LSM_DEFINE kv_status kv_lsm_delete_range(kv_lsm *db, const kv_range *range, uint64_t *deleted)
{
    kv_lsm_batch   b;
    kvi_lsm_writer w;
    kv_iter       *i = NULL;
    kv_status      s;
    if (!kvi_lsm_usable(db) || kvi_check_range(range) < 0) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "the range is none");
    memset(&b, 0, sizeof b);
    b.allocator = b.ops.allocator = db->options.allocator;
    s = kvi_lsm_call_begin(db);
    if (s < 0) return s;
    kvi_lsm_writer_init(db, &w, 0, KVI_LSM_NO_VALUE, KVI_LSM_NO_VALUE);
    s = kvi_lsm_lead_long(db, &w);
    if (s == KV_OK) s = kvi_lsm_cursor_open(db, &db->sequence, false, range, &i);
    for (; s == KV_OK && kv_iter_valid(i); kv_iter_next(i)) {
        s = kvi_lsm_batch_add(&b, KVI_LSM_DELETE, kv_iter_key(i), KVI_LSM_NO_VALUE);
        if (s < 0) (void)kvi_lsm_error(db, s, s == KV_ERR_TOO_LARGE ? "the range has more keys than a batch holds" : NULL);
    }
    if (s == KV_OK) s = kv_iter_status(i);
    kv_iter_close(i);
    if (s == KV_OK && b.count) {
        w.count = b.count;
        w.ops = kv_buf_slice(&b.ops);
        w.key_bytes = b.key_bytes;
        w.sync = db->options.sync != KV_SYNC_NONE;
        kvi_mutex_lock(&db->mutex);
        s = kvi_lsm_lead(db, &w);
    } else {
        kvi_mutex_lock(&db->mutex);
        if (s == KV_OK) s = kvi_lsm_is_broken(db);
        kvi_lsm_leave(db, &w, &w, s);
    }
    if (s == KV_OK && deleted) *deleted = b.count;
    kv_buf_free(&b.ops);
    return kvi_lsm_call_end(db, s);
}

/* ---- snapshots ---- */

KVI_LSM_DEFINE kv_status kv_lsm_snapshot(kv_lsm *db, kv_snapshot **snapshot)
{
    kv_snapshot *s;
    if (!kvi_lsm_usable(db) || !snapshot) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "snapshot is NULL");
    *snapshot = s = (kv_snapshot *)kvi_alloc(&db->options.allocator, sizeof *s);
    if (!s) return kvi_lsm_no_memory(db);
    kvi_mutex_lock(&db->mutex);
    if (db->closing) {
        kvi_free(&db->options.allocator, s, sizeof *s);
        *snapshot = NULL;
        (void)kvi_lsm_is_closed(db);
        kvi_mutex_unlock(&db->mutex);
        return KV_ERR_INVALID;
    }
    s->sequence = kvi_load_u64(&db->visible);
    s->prev = db->snapshots.prev;
    s->next = &db->snapshots;
    s->prev->next = s->next->prev = s;
    kvi_mutex_unlock(&db->mutex);
    return KV_OK;
}
KVI_LSM_DEFINE void kv_lsm_snapshot_release(kv_lsm *db, kv_snapshot *s)
{
    kv_allocator a;
    if (!kvi_lsm_usable(db) || !s) return;
    a = db->options.allocator;
    kvi_mutex_lock(&db->mutex);
    s->prev->next = s->next;
    s->next->prev = s->prev;
    kvi_mutex_unlock(&db->mutex);
    kvi_free(&a, s, sizeof *s);
}

/* ---- maintenance ---- */

KVI_LSM_DEFINE kv_status kv_lsm_sync(kv_lsm *db)
{
    kv_status s;
    if (!kvi_lsm_usable(db)) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, NULL);
    if (db->options.read_only) return KV_OK;
    s = kvi_lsm_call_begin(db);
    return s < 0 ? s : kvi_lsm_call_end(db, kvi_lsm_sync_now(db));
}
KVI_LSM_DEFINE kv_status kv_lsm_flush(kv_lsm *db)
{
    kv_status s;
    if (!kvi_lsm_usable(db)) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, NULL);
    if (db->options.read_only) return kvi_lsm_error(db, KV_ERR_READ_ONLY, "the store was opened read-only");
    s = kvi_lsm_call_begin(db);
    return s < 0 ? s : kvi_lsm_call_end(db, kvi_lsm_flush_now(db));
}
KVI_PRIVATE kv_status kvi_lsm_step(kv_lsm *db)
{
    bool      sync;
    kv_status s;
    kvi_mutex_lock(&db->mutex);
    s = db->broken;
    sync = db->unsynced_since_ms && !db->has_sync_thread && kvi_lsm_can_sync(db);
    if (sync) db->unsynced_since_ms = 0;
    kvi_mutex_unlock(&db->mutex);
    if (s < 0 && !sync) return db->options.read_only ? KV_END : kvi_lsm_error(db, KV_ERR_READ_ONLY, db->broken_text);
    return sync ? kvi_lsm_sync_now(db) : kvi_lsm_work_step(db);
}
KVI_LSM_DEFINE kv_status kv_lsm_step(kv_lsm *db)
{
    kv_status s;
    if (!kvi_lsm_usable(db)) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, NULL);
    s = kvi_lsm_call_begin(db);
    return s < 0 ? s : kvi_lsm_call_end(db, kvi_lsm_step(db));
}
KVI_LSM_DEFINE kv_status kv_lsm_compact(kv_lsm *db, const kv_range *range, kv_progress_fn progress, void *user)
{
    kv_status s;
    if (!kvi_lsm_usable(db) || kvi_check_range(range) < 0) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "the range is none");
    if (db->options.read_only) return kvi_lsm_error(db, KV_ERR_READ_ONLY, "the store was opened read-only");
    s = kvi_lsm_call_begin(db);
    if (s < 0) return s;
    s = kvi_lsm_flush_now(db);
    if (s < 0) return kvi_lsm_call_end(db, s);
    kvi_lsm_work_take(db);
    while (s == KV_OK && (db->merge_job || db->flush_job)) s = kvi_load_u32(&db->closing) ? KV_END : kvi_lsm_work_turn(db);
    if (s == KV_OK) s = kvi_lsm_merge_range(db, range, progress, user);
    kvi_lsm_work_give(db);
    return kvi_lsm_call_end(db, s);
}

/* Leave the read-only state:
   1. memtables into new tables    2. a new log    3. a new manifest that knows both, and no old log
   4. show it. What failed before is never touched again; until 3 the old files count. */
KVI_PRIVATE kv_status kvi_lsm_resume(kv_lsm *db)
{
    kvi_lsm_version  *before = db->version, *old;
    kvi_lsm_memtable *fresh = kvi_lsm_memtable_new(db, db->active), *memtables[KVI_LSM_FROZEN_MAX + 2];
    kvi_lsm_view     *view = (kvi_lsm_view *)kvi_alloc(&db->options.allocator, sizeof *view), *old_view;
    uint64_t          log_number = db->log_number, flushed = db->flushed_sequence;
    uint32_t          count = 0;
    kvi_lsm_log      *log = NULL;
    kv_status         s = fresh && view ? KV_OK : kvi_lsm_no_memory(db);

    /* 1. jobs that were cut off begin anew later */
    kvi_lsm_job_end(db, &db->flush_job, KV_ERR_IO);
    kvi_lsm_job_end(db, &db->merge_job, KV_ERR_IO);
    for (uint32_t i = db->frozen_count; i-- > 0;) memtables[count++] = db->frozen[i];
    db->active->last_sequence = db->sequence;
    if (db->active->count) memtables[count++] = db->active;
    kvi_add_u32(&before->refs, 1);
    for (uint32_t i = 0; s == KV_OK && i < count; i++) {
        s = kvi_lsm_flush_aside(db, memtables[i], &old);
        if (s == KV_OK) kvi_lsm_version_release(db, old);
    }

    /* 2. */
    if (s == KV_OK) s = kvi_lsm_log_new(db, db->sequence, db->log->number, false, &log);
    if (s == KV_OK) {
        s = kvi_lsm_sync_file(db, log->file);
        if (s < 0) kvi_lsm_poison(db, kvi_lsm_fail_file(db, s, "cannot sync", KVI_LSM_LOG, log->number, KVI_LSM_NO_SEQUENCE));
    }

    /* 3. */
    if (s == KV_OK) {
        db->log_number = log->number;
        db->flushed_sequence = db->sequence;
        s = kvi_lsm_manifest_new(db);
    }
    if (s < 0) {
        kvi_mutex_lock(&db->mutex);
        old = db->version;
        db->version = before;
        kvi_mutex_unlock(&db->mutex);
        if (old != before && !kvi_load_u32(&db->keep_files))
            for (uint32_t i = 0; i < old->count; i++) {
                bool known = false;
                for (uint32_t k = 0; k < before->count && !known; k++) known = before->tables[k] == old->tables[i];
                if (!known) old->tables[i]->obsolete = true;
            }
        kvi_lsm_version_release(db, old);
        db->log_number = log_number;
        db->flushed_sequence = flushed;
        if (log) { log->obsolete = true; kvi_lsm_log_release(db, log); }
        if (fresh) kvi_lsm_memtable_free(db, fresh);
        kvi_free(&db->options.allocator, view, sizeof *view);
        return s;
    }

    /* 4. */
    fresh->log = log;
    log->durable = log->size;
    if (!db->active->count) memtables[count++] = db->active;
    kvi_mutex_lock(&db->mutex);
    kvi_store_u64(&db->durable_log, log->number);
    db->active = fresh;
    db->log = log;
    db->frozen_count = 0;
    db->broken = KV_OK;
    db->background = KV_OK;
    db->unsynced_since_ms = 0;
    old_view = kvi_lsm_view_switch(db, view);
    kvi_lsm_wake(db);
    kvi_cond_broadcast(&db->work_done);
    kvi_mutex_unlock(&db->mutex);
    kvi_lsm_version_release(db, before);
    for (uint32_t i = 0; i < count; i++) { memtables[i]->log->obsolete = true; kvi_lsm_memtable_release(db, memtables[i]); }
    kvi_lsm_view_release(db, old_view);
    return KV_OK;
}
KVI_LSM_DEFINE kv_status kv_lsm_resume(kv_lsm *db)
{
    kvi_lsm_writer w;
    kv_status      s;
    bool           broken, poisoned;
    if (!KVI_LSM_RESUME) return kvi_lsm_bad_argument(db, KV_ERR_UNSUPPORTED, "compiled without (KV_LSM_NO_RESUME)");
    if (!kvi_lsm_usable(db)) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, NULL);
    s = kvi_lsm_call_begin(db);
    if (s < 0) return s;
    kvi_lsm_writer_init(db, &w, 0, KVI_LSM_NO_VALUE, KVI_LSM_NO_VALUE);
    (void)kvi_lsm_lead_long(db, &w);
    kvi_lsm_work_take(db);
    kvi_mutex_lock(&db->mutex);
    broken = db->broken < 0;
    poisoned = db->poisoned || db->options.read_only;
    kvi_mutex_unlock(&db->mutex);
    if (!broken) s = KV_OK;
    else if (poisoned) s = kvi_lsm_error(db, KV_ERR_READ_ONLY, db->broken_text);
    else s = kvi_lsm_resume(db);
    kvi_lsm_work_give(db);
    kvi_lsm_lead_alone_end(db, &w);
    return kvi_lsm_call_end(db, s);
}

KVI_LSM_DEFINE kv_status kv_lsm_locate(kv_lsm *db, kv_slice key, kv_lsm_location *where)
{
    kvi_lsm_view *view;
    kvi_lsm_found found;
    kv_status     s = kvi_lsm_check_entry(db, key, KVI_LSM_NO_VALUE);
    if (s < 0) return s;
    if (!where) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "where is NULL");
    view = kvi_lsm_view_get(db);
    if (!view) return kvi_lsm_is_closed(db);
    s = kvi_lsm_find(db, view, key, kvi_load_u64(&db->visible), &found);
    if (s == KV_OK && found.deleted) s = KV_NOT_FOUND;
    if (s == KV_OK) {
        where->memtable = !found.table;
        where->level = found.table ? found.table->level : -1;
        where->table = found.table ? found.table->number : 0;
        where->sequence = found.sequence;
    }
    kvi_lsm_block_release(db, found.block);
    kvi_lsm_view_release(db, view);
    return s;
}

/* ---- bulk load, copy, check, repair ---- */

KVI_LSM_DEFINE kv_status kv_lsm_ingest(kv_lsm *db, kv_iter *sorted)
{
    kvi_lsm_writer w;
    kv_status      s;
    if (!KVI_LSM_INGEST) return kvi_lsm_bad_argument(db, KV_ERR_UNSUPPORTED, "compiled without (KV_LSM_NO_INGEST)");
    if (!kvi_lsm_usable(db) || !sorted) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "the cursor is NULL");
    s = kvi_lsm_call_begin(db);
    if (s < 0) return s;
    for (int turn = 0; turn < 10; turn++) {                 /* others go on writing while we wait for a long kv_lsm_compact */
        if (turn) kvi_lsm_lead_alone_end(db, &w);
        kvi_lsm_work_wait(db);
        kvi_lsm_writer_init(db, &w, 0, KVI_LSM_NO_VALUE, KVI_LSM_NO_VALUE);
        s = kvi_lsm_lead_long(db, &w);
        if (s < 0 || !kvi_lsm_work_taken(db)) break;        /* nobody came in between */
    }
    if (s == KV_OK) s = kvi_lsm_ingest(db, sorted);
    kvi_lsm_lead_alone_end(db, &w);
    return kvi_lsm_call_end(db, s);
}
KVI_PRIVATE kv_status kvi_lsm_checkpoint(kv_lsm *db, const char *path)
{
    kv_lsm_options o;
    kv_lsm        *copy;
    kvi_lsm_view  *view;
    kvi_lsm_memtable *unflushed;
    kv_status      s;
    if (!db->options.read_only) {
        s = kvi_lsm_flush_now(db);
        if (s < 0) return s;
    }
    o = db->options;
    o.read_only = false;
    o.cache_bytes = KV_NONE;
    copy = kvi_lsm_new(path, &o);
    if (!copy) return kvi_lsm_no_memory(db);
    s = db->io->make_dir(db->io->user, path);
    if (s == KV_OK) {
        kvi_lsm_work_take(db);
        view = kvi_lsm_view_get(db);
        unflushed = db->options.read_only && view->active->count ? view->active : NULL;
        memcpy(copy->id, db->id, 16);
        copy->hash_seed = db->hash_seed;
        copy->next_number = copy->log_number = kvi_load_u64(&db->next_number);
        copy->flushed_sequence = db->flushed_sequence;
        kvi_lsm_work_give(db);
        for (uint32_t i = 0; i < view->version->count; i++)
            if (view->version->tables[i]->last_sequence > copy->flushed_sequence) copy->flushed_sequence = view->version->tables[i]->last_sequence;
        if (unflushed) copy->flushed_sequence = db->sequence;
        copy->visible = copy->sequence = copy->flushed_sequence;
        copy->version = view->version;
        kvi_add_u32(&view->version->refs, 1);
        s = kvi_lsm_checkpoint_fill(db, copy, view->version, unflushed);
        if (s < 0) kvi_lsm_checkpoint_undo(copy, view->version);
        kvi_lsm_version_release(copy, copy->version);       /* before the view, which holds the tables that both have */
        copy->version = NULL;
        kvi_lsm_view_release(db, view);
    } else if (s == KV_NOT_FOUND) s = kvi_lsm_error(db, KV_ERR_IO, "the parent directory of the copy is missing");
    else if (s < 0) (void)kvi_lsm_error(db, s, "cannot make the directory of the copy");
    else if (s == KV_EXISTS) (void)kvi_lsm_error(db, s, "the path of the copy is there already");
    kvi_store_u32(&copy->keep_files, 1);
    kvi_lsm_free(copy);
    return s;
}
KVI_LSM_DEFINE kv_status kv_lsm_checkpoint(kv_lsm *db, const char *path)
{
    kv_status s;
    if (!KVI_LSM_CHECKPOINT) return kvi_lsm_bad_argument(db, KV_ERR_UNSUPPORTED, "compiled without (KV_LSM_NO_CHECKPOINT)");
    if (!kvi_lsm_usable(db) || !path || !*path) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "the path is empty");
    s = kvi_lsm_call_begin(db);
    return s < 0 ? s : kvi_lsm_call_end(db, kvi_lsm_checkpoint(db, path));
}
KVI_LSM_DEFINE kv_status kv_lsm_check(const char *path, const kv_lsm_options *options, kv_check_fn report, void *user)
{
    kvi_lsm_report r;
    kv_lsm        *db;
    kv_status      s;
    if (!KVI_LSM_REPAIR) return KV_ERR_UNSUPPORTED;
    memset(&r, 0, sizeof r);
    r.fn = report;
    r.user = user;
    s = kvi_lsm_offline(path, options, true, &r, &db);
    if (s != KV_OK) return s;
    s = kvi_lsm_check_all(db, &r);
    kvi_store_u32(&db->keep_files, 1);
    kvi_lsm_free(db);
    return r.first < 0 ? r.first : s;
}
KVI_LSM_DEFINE kv_status kv_lsm_repair(const char *path, const kv_lsm_options *options, kv_check_fn report, void *user)
{
    kvi_lsm_report r;
    if (!KVI_LSM_REPAIR) return KV_ERR_UNSUPPORTED;
    memset(&r, 0, sizeof r);
    r.fn = report;
    r.user = user;
    return kvi_lsm_repair(path, options, &r);
}

/* ---- statistics ---- */

KVI_PRIVATE void kvi_lsm_stats_memtable(kv_lsm_stats_t *stats, const kvi_lsm_memtable *m)
{
    stats->memtable_bytes += kvi_peek_size(&m->allocated_bytes);
    stats->memtable_keys += kvi_peek_u64(&m->count);
    if (m->log) stats->log_bytes += kvi_peek_u64(&m->log->size);
}
KVI_PRIVATE void kvi_lsm_stats_version(kv_lsm *db, kv_lsm_stats_t *stats, const kvi_lsm_version *v)
{
    for (uint32_t i = 0; i < v->count; i++) {
        const kvi_lsm_table *t = v->tables[i];
        stats->levels[t->level].tables++;
        stats->levels[t->level].keys += t->entries;
        stats->levels[t->level].bytes += t->size;
        stats->disk_bytes += t->size;
    }
    for (uint32_t i = 0; i < KV_LSM_LEVELS; i++) {
        stats->levels[i].read_bytes = kvi_load_u64(&db->level_read[i]);
        stats->levels[i].written_bytes = kvi_load_u64(&db->level_written[i]);
    }
}
KVI_PRIVATE void kvi_lsm_stats(kv_lsm *db, const kvi_lsm_view *view, kv_lsm_stats_t *stats)
{
    memset(stats, 0, sizeof *stats);
    kvi_lsm_stats_memtable(stats, view->active);
    for (uint32_t i = 0; i < view->frozen_count; i++) kvi_lsm_stats_memtable(stats, view->frozen[i]);
    stats->frozen_memtables = view->frozen_count;
    kvi_lsm_stats_version(db, stats, view->version);
    for (uint32_t i = 0; KVI_LSM_CACHE && db->shards && i < KVI_LSM_SHARDS; i++) {
        kvi_lsm_shard *shard = &db->shards[i];
        kvi_spin_lock(&shard->lock);
        stats->cache_hits += shard->hits;
        stats->cache_misses += shard->misses;
        stats->cache_bytes += shard->used_bytes;
        kvi_spin_unlock(&shard->lock);
    }
    kvi_mutex_lock(&db->mutex);
    stats->stall_ms = db->stall_ns / 1000000;
    stats->flushes = db->flushes;
    stats->compactions = db->merges;
    stats->trivial_moves = db->moves;
    stats->tombstones_dropped = db->tombstones_dropped;
    stats->versions_dropped = db->versions_dropped;
    stats->write_groups = db->groups;
    stats->writes = db->writes;
    stats->read_only = db->broken < 0;
    stats->resumable = db->broken < 0 && !db->poisoned && !db->options.read_only;
    kvi_mutex_unlock(&db->mutex);
    stats->syncs = kvi_load_u64(&db->syncs);
    stats->index_bytes = kvi_load_u64(&db->index_bytes);
    stats->filter_bytes = kvi_load_u64(&db->filter_bytes);
    stats->filter_hits = kvi_load_u64(&db->filter_hits);
    stats->filter_misses = kvi_load_u64(&db->filter_misses);
    stats->user_bytes = kvi_load_u64(&db->user_bytes);
    stats->written_bytes = kvi_load_u64(&db->written) + kvi_load_u64(&db->log_written);
    stats->recovered_records = db->recovered_records;
    stats->recovered_dropped_bytes = db->recovered_dropped;
    stats->sequence = kvi_load_u64(&db->visible);
    stats->disk_bytes += stats->log_bytes;
    stats->memory_bytes = sizeof *db + stats->memtable_bytes + stats->cache_bytes + stats->index_bytes + stats->filter_bytes + kvi_load_u64(&db->memory_bytes_tables);
    if (stats->user_bytes) stats->write_amplification = (double)stats->written_bytes / (double)stats->user_bytes;
}
KVI_LSM_DEFINE kv_status kv_lsm_stats(kv_lsm *db, kv_lsm_stats_t *stats)
{
    kvi_lsm_view *view;
    if (!KVI_LSM_STATS) return kvi_lsm_bad_argument(db, KV_ERR_UNSUPPORTED, "compiled without (KV_LSM_NO_STATS)");
    if (!kvi_lsm_usable(db) || !stats) return kvi_lsm_bad_argument(db, KV_ERR_INVALID, "stats is NULL");
    view = kvi_lsm_view_get(db);
    if (!view) return kvi_lsm_is_closed(db);
    kvi_lsm_stats(db, view, stats);
    kvi_lsm_view_release(db, view);
    return KV_OK;
}

/* ---- behind a kv_store ---- */

KVI_PRIVATE kv_status kvi_lsm_store_get(kv_store *s, kv_slice key, kv_buf *value) { return kv_lsm_get((kv_lsm *)s, key, value); }
KVI_PRIVATE kv_status kvi_lsm_store_set(kv_store *s, kv_slice key, kv_slice value) { return kv_lsm_set((kv_lsm *)s, key, value); }
KVI_PRIVATE kv_status kvi_lsm_store_remove(kv_store *s, kv_slice key) { return kv_lsm_delete((kv_lsm *)s, key); }
KVI_PRIVATE kv_status kvi_lsm_store_exists(kv_store *s, kv_slice key) { return kv_lsm_exists((kv_lsm *)s, key); }
KVI_PRIVATE kv_status kvi_lsm_store_view(kv_store *s, kv_slice key, kv_visit_fn visit, void *user) { return kv_lsm_view((kv_lsm *)s, key, visit, user); }
KVI_PRIVATE kv_status kvi_lsm_store_batch_get(kv_store *s, const kv_slice *keys, size_t count, kv_buf *values, kv_status *statuses) { return kv_lsm_batch_get((kv_lsm *)s, keys, count, values, statuses); }
KVI_PRIVATE kv_status kvi_lsm_store_batch_set(kv_store *s, const kv_pair *pairs, size_t count) { return kv_lsm_batch_set((kv_lsm *)s, pairs, count); }
KVI_PRIVATE kv_status kvi_lsm_store_batch_remove(kv_store *s, const kv_slice *keys, size_t count) { return kv_lsm_batch_delete((kv_lsm *)s, keys, count); }
KVI_PRIVATE kv_status kvi_lsm_store_scan(kv_store *s, const kv_range *range, kv_visit_fn visit, void *user) { return kv_lsm_scan((kv_lsm *)s, range, visit, user); }
KVI_PRIVATE kv_status kvi_lsm_store_count(kv_store *s, const kv_range *range, uint64_t *count) { return kv_lsm_count((kv_lsm *)s, range, count); }
KVI_PRIVATE kv_status kvi_lsm_store_iter(kv_store *s, kv_iter **iter)
{
    kv_lsm *db = (kv_lsm *)s;
    return kvi_lsm_usable(db) ? kvi_lsm_cursor_new(db, NULL, true, iter) : KV_ERR_INVALID;
}
KVI_PRIVATE kv_status kvi_lsm_store_flush(kv_store *s) { return kv_lsm_flush((kv_lsm *)s); }
KVI_PRIVATE kv_status kvi_lsm_store_close(kv_store *s) { return kv_lsm_close((kv_lsm *)s); }
KVI_PRIVATE kv_status kvi_lsm_store_stats(kv_store *s, kv_stats *stats)
{
    kv_lsm        *db = (kv_lsm *)s;
    kvi_lsm_view  *view;
    kv_lsm_stats_t all;
    if (!kvi_lsm_usable(db)) return KV_ERR_INVALID;
    if (!KVI_LSM_STATS) return kvi_lsm_error(db, KV_ERR_UNSUPPORTED, "compiled without (KV_LSM_NO_STATS)");
    view = kvi_lsm_view_get(db);
    if (!view) return kvi_lsm_is_closed(db);
    kvi_lsm_stats(db, view, &all);
    for (uint32_t i = 0; i < view->version->count; i++) {
        const kvi_lsm_table *t = view->version->tables[i];
        stats->keys += t->entries - t->tombstones;
        stats->key_bytes += t->key_bytes;
        stats->value_bytes += t->value_bytes;
    }
    for (uint32_t i = 0; i <= view->frozen_count; i++) {
        const kvi_lsm_memtable *m = i ? view->frozen[i - 1] : view->active;
        uint64_t                deletes = kvi_load_u64(&m->deletes);      /* first: a writer raises the count before it */
        stats->keys += kvi_load_u64(&m->count) - deletes;
        stats->key_bytes += kvi_peek_u64(&m->key_bytes);
        stats->value_bytes += kvi_peek_u64(&m->value_bytes);
    }
    kvi_lsm_view_release(db, view);
    stats->memory_bytes = all.memory_bytes;
    stats->disk_bytes = all.disk_bytes;
    return KV_OK;
}
KVI_PRIVATE const char *kvi_lsm_store_error(const kv_store *s) { return kvi_error_text(&((const kv_lsm *)s)->error); }

KVI_PRIVATE const kv_store_ops *kvi_lsm_store_ops(void)
{
    static const kv_store_ops ops = {
        kvi_lsm_store_get, kvi_lsm_store_set, kvi_lsm_store_remove, kvi_lsm_store_exists, kvi_lsm_store_view, kvi_lsm_store_batch_get,
        kvi_lsm_store_batch_set, kvi_lsm_store_batch_remove, kvi_lsm_store_scan, kvi_lsm_store_count, kvi_lsm_store_iter, kvi_lsm_store_flush,
        kvi_lsm_store_close, kvi_lsm_store_stats, kvi_lsm_store_error
    };
    return &ops;
}

#endif /* KV_LSM_IMPLEMENTATION */

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
