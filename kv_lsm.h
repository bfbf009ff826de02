/* kv_lsm.h - v0.1.0 - durable ordered key-value store (log-structured merge tree)
   SPDX-License-Identifier: MIT (full text at the end of this file)

   In *one* C or C++ file:   #define KV_LSM_IMPLEMENTATION
                             #include "kv_lsm.h"      (kv.h, kv_simd.h, kv_compress.h lie beside it)
   QUICK START
       kv_lsm *db;
       kv_status s = kv_lsm_open("data", NULL, &db);
       if (s < 0) { puts(kv_status_text(s)); return 1; }
       kv_lsm_set(db, KV_STR("boot"), KV_STR("1"));
       kv_lsm_close(db);

   CONTENTS   docs: the tree, durability, states, threads, memory, files, limits, errors
              code: >>public >>format >>config >>structs >>files >>memtable >>block >>cache >>table
                    >>version >>log >>manifest >>source >>merge >>read >>write >>flush >>compact
                    >>work >>recover >>cursor >>ingest >>check >>repair >>api

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
   closing and opening again helps. No file is deleted in either state.

   THREADS
   Any thread may call anything at any time, but for kv_lsm_close, a kv_lsm_batch and a cursor, which
   belong to one thread at a time. Reads take no lock that a write holds while it works. Callbacks
   run with no lock held and may read the store. A store belongs to the process that opened it: after
   fork every call in the child is KV_ERR_INVALID, and kv_lsm_close there only gives up the files.

   MEMORY
   memtable_bytes for the newest writes, up to twice that again while it is being flushed, cache_bytes
   for blocks, about 10 bits a key for filters, about 40 bytes a block for the index, and for
   background work some 2 MiB or four times block_bytes, whichever is more. kv_lsm_stats tells each.

   FILES
   A directory, mode 0700, of files, mode 0600: CURRENT names the MANIFEST-n, which names the tables
   (n.kvt) and logs (n.log) that make up the store; LOCK holds the process id of who has it open.
   What a crash leaves behind that the store cannot account for is moved to lost/, never deleted.
   The format is written down at >>format.

   LIMITS
   Keys 0 to 65,535 bytes, values 0 to 1 GiB - 1, a batch 2 GiB - 1 in all, block_bytes 64 to 16 MiB.
   kv_lsm_delete_range and kv_lsm_ingest hold other writers back while they run. With map_tables a
   disk error while reading is a signal (SIGBUS), as it is for everyone who maps files.

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
    uint32_t l0_trigger;                    /* tables in level 0 that start a merge; default 4 */
    uint64_t l1_bytes;                      /* the size that level 1 aims at; default 64 MiB */
    uint32_t level_ratio;                   /* how many times larger each next level is; default 10 */
    kv_lsm_style style;                     /* default KV_LSM_LEVELED */
    bool     no_background;                 /* no thread: flush and compaction happen in kv_lsm_step and, when they must, inside writes */
    const kv_io *io;                        /* default: this system's files. Outlives the store */
    void   (*log)(void *user, kv_status s, const char *text);   /* what happens in the background, in words; called from any thread; may be NULL */
    void    *log_user;
    char    *error_text;                    /* where kv_lsm_open puts why it failed, in words; may be NULL */
    size_t   error_text_size;
    size_t   table_bytes;                   /* where a merge cuts its tables; default 8 MiB; at least 1 KiB */
    uint32_t open_files;                    /* table files kept open; default 256 */
    bool     map_tables;                    /* map table files where kv_io can: faster reads; see LIMITS */
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
   Snapshots are freed too; cursors must have been closed. NULL is fine. */
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
KV_API kv_status kv_lsm_increment(kv_lsm *db, kv_slice key, int64_t delta, int64_t *result);   /* a typed int64; missing counts as 0; wraps; result may be NULL; KV_ERR_WRONG_TYPE */
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

/* Read every byte of a closed store and verify all of it. Changes nothing. KV_OK, or the first
   failure; `report` (may be NULL) gets each. options: allocator, io; NULL is fine. */
KV_API kv_status kv_lsm_check(const char *path, const kv_lsm_options *options, kv_check_fn report, void *user);

/* Make a store that opens out of what can still be read of a closed one.
   manifest lost     every table and log found is used; nothing is lost
   table: a block    lost with the keys it held; index, filter, footer: rebuilt, nothing is lost
   table missing     lost; reported with its key range
   log               what comes before the damage is kept, and what was valid behind it is reported
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
