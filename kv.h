/* kv.h - v0.1.0 - the common ground of the kv headers: slices, status, memory, any store behind one handle
   SPDX-License-Identifier: MIT (full text at the end of this file)

   In *one* C or C++ file:   #define KV_CORE_IMPLEMENTATION
                             #include "kv.h"
   You rarely write that yourself: every module (kv_mem.h, kv_art.h, ...) brings kv.h with it.

   QUICK START
       kv_buf text = {0};
       if (kv_buf_append(&text, KV_STR("hello, ")) < 0) return 1;
       if (kv_buf_append(&text, kv_cstr("world")) < 0) return 1;
       printf("%.*s\n", (int)text.size, (const char *)text.data);
       kv_buf_free(&text);

   CONTENTS   docs: building, slices and keys, status, memory, ranges, stores, threads
              code: >>public >>config >>platform >>text >>memory >>arena >>slice >>range
                    >>store >>iterate >>typed >>files

   BUILDING
   The headers are C99 and C++11. Without a switch a header only declares. These switches belong in
   the file that holds the implementation, before the include; none of them changes a public struct
   or a byte of a file:
       KV_IMPLEMENTATION    the implementation of every kv header that this file includes
       KV_STATIC            everything is static: a private copy for this file
       KV_NO_THREADS        no lock, no atomic, no thread: bare metal, WebAssembly
       KV_NO_MALLOC         malloc is not referenced; every object must then be given an allocator
       KV_DEFAULT_RESIZE(memory, old_size, new_size)
                            what the allocator {0} does, instead of malloc: see kv_allocator
       KV_NO_STDIO          nothing of stdio.h is referenced (the library never prints; this is a promise)
       KV_NO_FILES          the operating system's files are not referenced; give a kv_io where one is needed
       KV_ASSERT(x)         replaces assert(x)
       KV_API               replaces the linkage of public functions (for a DLL, say)
   Two implementation files that both bring kv.h along link together: what a module brings along is
   weak, what you ask for by its own switch is strong.

   SLICES AND KEYS
   A kv_slice is a pointer and a size; it owns nothing. Keys are 0 to KV_KEY_SIZE_MAX bytes of any
   value, ordered by memcmp and then shorter first. Values are 0 to KV_VALUE_SIZE_MAX bytes. An
   empty value is a value. A slice of size 0 may have a NULL pointer.

   STATUS
   0 is done, a positive status is an ordinary answer (not found), a negative one a failure: test
   `s < 0`. A failure leaves the object as it was before the call, unless the call says otherwise.
   Nothing here exits, prints, or sets errno on purpose.

   MEMORY
   Each object takes a kv_allocator; {0} is malloc. For fixed memory there is kv_arena:

       static unsigned char memory[16384];
       kv_arena arena;
       kv_allocator fixed = kv_arena_init(&arena, memory, sizeof memory);

   kv_buf is where results go. It keeps its memory from one call to the next, so a loop of kv_get
   into one kv_buf stops allocating soon.

   RANGES
   A kv_range intersects a prefix with from <= key < to; {0} is everything. `reverse` turns the order
   around, and `limit` counts from the end that the range starts at.

   STORES
   kv_store is the first member of every store, and of yours: fill a kv_store_ops (see there), and
   kv_get, cursors, typed values and wrappers work on it. What you leave NULL has a default.

   THREADS
   The functions of this file have no state of their own. A kv_buf, a kv_iter and a kv_arena handle
   belong to one thread at a time (the arena's memory may be shared: it has a lock). A store is as
   shareable as its KV_CAP_THREADS says. */

/* ------------------------------------------------------------------------------------------------
   >>public   the interface                                                                        */
#if defined(KV_IMPLEMENTATION) && !defined(KV_CORE_IMPLEMENTATION)
#define KV_CORE_IMPLEMENTATION
#endif

#ifndef KV_CORE_INCLUDED
#define KV_CORE_INCLUDED 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KV_VERSION 100              /* major * 10000 + minor * 100 + patch */
#define KV_VERSION_STRING "0.1.0"

#ifndef KV_API
#if defined(KV_STATIC) && (defined(__GNUC__) || defined(__clang__))
#define KV_API static __attribute__((unused))
#elif defined(KV_STATIC)
#define KV_API static
#else
#define KV_API extern
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define KV_KEY_SIZE_MAX   65535u            /* bytes */
#define KV_VALUE_SIZE_MAX 1073741823u       /* bytes: 1 GiB - 1 */
#define KV_NONE           ((size_t)-1)      /* in a size option: none at all, where 0 means the default */

typedef enum kv_status {
    KV_OK = 0,
    KV_NOT_FOUND = 1,
    KV_EXISTS = 2,
    KV_END = 3,                 /* nothing more: a cursor, a list of work */
    KV_ERR_INVALID = -1,        /* an argument is wrong, or the call does not fit the object's state */
    KV_ERR_NO_MEMORY = -2,
    KV_ERR_IO = -3,             /* the system refused a read, a write, a sync, a rename... */
    KV_ERR_CORRUPT = -4,        /* stored bytes are not what was written */
    KV_ERR_NO_SPACE = -5,       /* the disk is full, fixed memory is used up */
    KV_ERR_TOO_LARGE = -6,      /* key, value or batch over its limit; fixed buffer too small */
    KV_ERR_BUSY = -7,           /* another process has the store, or a bounded queue is full */
    KV_ERR_READ_ONLY = -8,
    KV_ERR_UNSUPPORTED = -9,    /* this store has no such operation, or the codec is not compiled in */
    KV_ERR_VERSION = -10,       /* written by a newer format */
    KV_ERR_ORDER = -11,         /* a builder was given keys out of order, or twice */
    KV_ERR_WRONG_TYPE = -12,    /* a typed get of a value of another type */
    KV_ERR_CONFLICT = -13       /* compare-and-set found another value */
} kv_status;

/* What a status means, in a few words of English ("key not found"). Never NULL, also for a number
   that is no kv_status. The text lives forever. */
KV_API const char *kv_status_text(kv_status s);

/* ---- slices ---- */

/* Some bytes that live elsewhere. The callee reads them during the call, unless it says otherwise. */
typedef struct kv_slice { const void *data; size_t size; } kv_slice;
typedef struct kv_pair { kv_slice key, value; } kv_pair;

/* A slice of a string literal without its final 0: KV_STR("boot"). */
#ifdef __cplusplus
#define KV_STR(literal) (kv_slice{ "" literal, sizeof(literal) - 1 })
#else
#define KV_STR(literal) ((kv_slice){ "" literal, sizeof(literal) - 1 })
#endif

KV_API kv_slice kv_bytes(const void *data, size_t size);
KV_API kv_slice kv_cstr(const char *text);      /* up to its final 0; NULL is the empty slice */

/* < 0, 0, > 0 as a comes before, is, comes after b: the order of every ordered store. */
KV_API int  kv_compare(kv_slice a, kv_slice b);
KV_API bool kv_equal(kv_slice a, kv_slice b);
KV_API bool kv_has_prefix(kv_slice key, kv_slice prefix);

/* KV_OK, KV_ERR_TOO_LARGE over the limit, KV_ERR_INVALID for a NULL pointer with a size. Stores call
   these on what they are given. */
KV_API kv_status kv_check_key(kv_slice key);
KV_API kv_status kv_check_value(kv_slice value);

/* ---- memory ---- */

/* Where an object's memory comes from. {0} is malloc (KV_ERR_NO_MEMORY under KV_NO_MALLOC), or
   KV_DEFAULT_RESIZE.
   resize    old_size 0: allocate (memory is NULL); new_size 0: free, and return NULL; else as realloc.
             old_size is always what was asked for. NULL for "no", the old block then stays as it was.
             Results are aligned for any type up to 16 bytes (8 on machines of 32 bits).
   Threads   an object that may be used by several threads calls it from each of them. */
typedef struct kv_allocator {
    void *(*resize)(void *user, void *memory, size_t old_size, size_t new_size);
    void *user;
} kv_allocator;

/* Fixed memory for firmware: hands out pieces of one block, reuses what is freed, never grows.
   Freed neighbours merge. Treat the members as private. */
typedef struct kv_arena {
    unsigned char *start, *end;     /* the part of the memory that is in use, aligned */
    void    *bins[32];              /* free blocks by size: bin i holds those of 2^i to 2^(i+1)-1 units */
    uint32_t bin_map;               /* bit i: bin i is not empty */
    uint32_t lock;
    size_t   used_bytes, peak_bytes;/* with headers; read them to size the block */
} kv_arena;

/* Start an arena over `memory` (any address) of `size` bytes; both must outlive everything in it.
   Returns   the allocator to give to objects. An arena that is too small refuses every request.
   Cost      an allocation costs one size_t beside what is asked for; finding one is O(1) but for the
             one list of blocks of like size, which is searched first-fit. */
KV_API kv_allocator kv_arena_init(kv_arena *arena, void *memory, size_t size);

/* Bytes that grow. {0} is empty and grows by malloc; kv_buf_fixed uses the caller's memory. */
typedef struct kv_buf {
    void        *data;
    size_t       size, capacity;
    kv_allocator allocator;
    bool         fixed;             /* data is the caller's: never grown, never freed */
} kv_buf;

KV_API kv_buf    kv_buf_fixed(void *memory, size_t capacity);

/* Make room for `capacity` bytes in all; the content stays. All three return KV_OK,
   KV_ERR_NO_MEMORY (nothing changed), KV_ERR_INVALID for NULL, or KV_ERR_TOO_LARGE from a fixed buffer,
   whose size is then the size it would have to have; its content is to be thought of as gone. */
KV_API kv_status kv_buf_reserve(kv_buf *b, size_t capacity);
KV_API kv_status kv_buf_assign(kv_buf *b, kv_slice bytes);      /* bytes may lie in b */
KV_API kv_status kv_buf_append(kv_buf *b, kv_slice bytes);      /* bytes may lie in b; grows by doubling */
KV_API kv_slice  kv_buf_slice(const kv_buf *b);                 /* until the next change */
KV_API void      kv_buf_free(kv_buf *b);                        /* leaves an empty, reusable buffer; NULL is fine */

/* ---- ranges ---- */

typedef struct kv_range {           /* {0}: everything, ascending. prefix, from and to intersect */
    kv_slice prefix;                /* only keys that begin so */
    kv_slice from, to;              /* from <= key < to; each counts where its data is not NULL: an empty `to` means nothing */
    size_t   limit;                 /* entries; 0: no limit; with reverse: the last `limit` entries */
    bool     reverse;               /* descending */
} kv_range;

/* Is key in the range (limit and reverse aside)? NULL is everything. */
KV_API bool kv_range_has(const kv_range *range, kv_slice key);

/* ---- any store behind one handle ---- */

typedef struct kv_store kv_store;
typedef struct kv_iter  kv_iter;

/* Called with each entry. The slices live during the call. false stops. */
typedef bool (*kv_visit_fn)(void *user, kv_slice key, kv_slice value);

typedef struct kv_stats { uint64_t keys, key_bytes, value_bytes, memory_bytes, disk_bytes; } kv_stats;

enum {
    KV_CAP_ORDERED = 1,             /* scans ascend, cursors work */
    KV_CAP_DURABLE = 2,             /* what was written survives the process */
    KV_CAP_THREADS = 4,             /* any thread may call at any time */
    KV_CAP_WRITE   = 8              /* set and delete work */
};

/* What a store does. Write one for a store of your own; `get` or `view` must be there, and `scan` or
   `iter_open` where anyone iterates. NULL elsewhere means the default named on the line. Arguments
   arrive as the caller gave them, but no pointer that a result goes to is NULL, and a count of 0 does
   not arrive at all. */
typedef struct kv_store_ops {
    kv_status (*get)   (kv_store *s, kv_slice key, kv_buf *value);              /* by view */
    kv_status (*set)   (kv_store *s, kv_slice key, kv_slice value);             /* KV_ERR_READ_ONLY */
    kv_status (*remove)(kv_store *s, kv_slice key);                             /* KV_ERR_READ_ONLY; KV_OK also where it was missing */
    kv_status (*exists)(kv_store *s, kv_slice key);                             /* by view */
    kv_status (*view)  (kv_store *s, kv_slice key, kv_visit_fn visit, void *user);   /* by get */
    kv_status (*batch_get)   (kv_store *s, const kv_slice *keys, size_t count, kv_buf *values, kv_status *statuses);   /* by a loop; statuses is never NULL here */
    kv_status (*batch_set)   (kv_store *s, const kv_pair *pairs, size_t count); /* by a loop, to the first failure */
    kv_status (*batch_remove)(kv_store *s, const kv_slice *keys, size_t count); /* by a loop, to the first failure */
    kv_status (*scan)  (kv_store *s, const kv_range *range, kv_visit_fn visit, void *user);   /* by a cursor; range is never NULL here */
    kv_status (*count) (kv_store *s, const kv_range *range, uint64_t *count);   /* by scan */
    kv_status (*iter_open)(kv_store *s, kv_iter **iter);                        /* KV_ERR_UNSUPPORTED; see kv_iter */
    kv_status (*flush) (kv_store *s);                                           /* KV_OK */
    kv_status (*close) (kv_store *s);                                           /* KV_OK; frees the store */
    kv_status (*stats) (kv_store *s, kv_stats *stats);                          /* by scan; stats is zeroed before */
    const char *(*last_error)(const kv_store *s);                               /* "" */
} kv_store_ops;

/* The first member of every store. */
struct kv_store {
    const kv_store_ops *ops;
    const char         *name;       /* "mem", "compressed(mem)"... */
    uint32_t            caps;       /* KV_CAP_... */
};

/* All of these: KV_ERR_INVALID where the handle or a pointer that a result goes to is NULL, and what
   kv_check_key and kv_check_value find, besides what the store itself answers. A bound of a range may be
   longer than any key. Writes are KV_ERR_READ_ONLY where kv_store_caps has no KV_CAP_WRITE.
   Threads   any where it has KV_CAP_THREADS, else one at a time. */

/* Copy the value of `key` into `value`, whose old bytes are replaced on KV_OK and left alone
   otherwise. KV_OK, KV_NOT_FOUND, or a failure. */
KV_API kv_status kv_get(kv_store *s, kv_slice key, kv_buf *value);
KV_API kv_status kv_set(kv_store *s, kv_slice key, kv_slice value);         /* insert or replace */
KV_API kv_status kv_delete(kv_store *s, kv_slice key);                      /* KV_OK also where it was missing */
KV_API kv_status kv_exists(kv_store *s, kv_slice key);                      /* KV_OK or KV_NOT_FOUND */
KV_API kv_status kv_view(kv_store *s, kv_slice key, kv_visit_fn visit, void *user);   /* get without a copy */

/* Many at once; usually faster than a loop. batch_get returns KV_OK when every key has its answer in
   statuses (KV_OK or KV_NOT_FOUND, in the order of keys; may be NULL), or the first failure.
   batch_set applies the pairs in order: of two with one key the later wins. Whether a failed batch
   may be there in part stands at the store. */
KV_API kv_status kv_batch_get(kv_store *s, const kv_slice *keys, size_t count, kv_buf *values, kv_status *statuses);
KV_API kv_status kv_batch_set(kv_store *s, const kv_pair *pairs, size_t count);
KV_API kv_status kv_batch_delete(kv_store *s, const kv_slice *keys, size_t count);

/* Visit every entry of the range (NULL: everything), in order on an ordered store. KV_OK also where
   visit stopped it. The callback may read the store; what it may do besides stands at the store. */
KV_API kv_status kv_scan(kv_store *s, const kv_range *range, kv_visit_fn visit, void *user);
KV_API kv_status kv_count(kv_store *s, const kv_range *range, uint64_t *count);

KV_API kv_status   kv_flush(kv_store *s);
KV_API kv_status   kv_close(kv_store *s);                                   /* NULL is fine */
KV_API kv_status   kv_store_stats(kv_store *s, kv_stats *stats);
KV_API const char *kv_store_name(const kv_store *s);                        /* never NULL */
KV_API const char *kv_last_error(const kv_store *s);                        /* the last failure in words: what, which file, which option. Never NULL; valid until the next failures */
KV_API uint32_t    kv_store_caps(const kv_store *s);

/* ---- cursors ---- */

/* A position in an ordered store. A cursor over a range starts at the range's first entry, in the
   range's own order: under `reverse`, first is the greatest key and next goes down. Moving past
   either end makes it invalid; seek, first and last revive it. NULL is a cursor that is not valid, and
   moves to nowhere. Not to be used after its store is closed; by one thread at a time. */
KV_API kv_status kv_iter_open(kv_store *s, const kv_range *range, kv_iter **iter);   /* KV_ERR_UNSUPPORTED on an unordered store */
KV_API bool      kv_iter_valid(const kv_iter *i);
KV_API void      kv_iter_next(kv_iter *i);
KV_API void      kv_iter_prev(kv_iter *i);
KV_API void      kv_iter_seek(kv_iter *i, kv_slice key);        /* the first entry >= key inside the range (reverse: the first entry <= key, going down); key may be the cursor's own */
KV_API void      kv_iter_first(kv_iter *i);
KV_API void      kv_iter_last(kv_iter *i);
KV_API kv_slice  kv_iter_key(const kv_iter *i);                 /* until the next move; empty where not valid */
KV_API kv_slice  kv_iter_value(const kv_iter *i);               /* likewise */
KV_API kv_status kv_iter_status(const kv_iter *i);              /* why it is not valid: KV_OK (an end), or a failure; of NULL KV_ERR_INVALID */
KV_API void      kv_iter_close(kv_iter *i);                     /* NULL is fine */

/* For those who write a store: iter_open makes an object that begins with a kv_iter, zeroed, with
   ops, store and allocator set. The moves below know nothing of ranges: each goes to an entry of the
   whole store and sets valid, key and value, or clears valid and sets status to why. kv.h keeps the
   range. */
typedef struct kv_iter_ops {
    void (*seek)(kv_iter *i, kv_slice key);                     /* the first entry >= key */
    void (*seek_before)(kv_iter *i, kv_slice key);              /* the last entry < key */
    void (*last)(kv_iter *i);                                   /* the last entry of all */
    void (*next)(kv_iter *i);                                   /* only called while valid */
    void (*prev)(kv_iter *i);                                   /* only called while valid */
    kv_slice (*value)(kv_iter *i);                              /* NULL: i->value. For values that cost something to make */
    void (*close)(kv_iter *i);
} kv_iter_ops;

struct kv_iter {
    const kv_iter_ops *ops;
    kv_store    *store;
    kv_slice     key, value;        /* the current entry, while valid */
    kv_status    status;
    bool         valid;
    kv_allocator allocator;         /* for the bounds below */
    /* kept by kv.h from here on */
    bool         reverse, has_upper, empty, has_window;
    kv_slice     lower, upper;      /* lower <= key, and key < upper where has_upper */
    size_t       limit;             /* entries of the window; 0: all */
    size_t       position;          /* how many entries into the window; KV_NONE: not known */
    kv_buf       bounds;            /* the bytes of lower and upper */
    kv_buf       window;            /* the last key inside the limit, once it is needed */
};

/* Give a cursor that a store made by itself its range, and move it to the first entry. On failure
   the caller closes it. kv_iter_open does this for you. */
KV_API kv_status kv_iter_start(kv_iter *i, const kv_range *range);

/* ---- typed values, on any store ----
   Encoding: one byte of type, then 8 bytes little-endian (integer, or IEEE 754 double), one byte (0
   or 1), or the bytes. A typed get of anything else is KV_ERR_WRONG_TYPE; *v is set on KV_OK alone. */
typedef enum kv_type { KV_INT64 = 1, KV_FLOAT64 = 2, KV_BOOL = 3, KV_STRING = 4, KV_BYTES = 5 } kv_type;
typedef struct kv_value {
    kv_type type;
    union { int64_t int64; double float64; bool boolean; kv_slice bytes; } as;
} kv_value;

KV_API kv_status kv_value_encode(const kv_value *v, kv_buf *out);       /* replaces what out holds; KV_ERR_INVALID for a type that is none, KV_ERR_TOO_LARGE for bytes that leave no room for it */
KV_API kv_status kv_value_decode(kv_slice encoded, kv_value *v);        /* as.bytes points into encoded; KV_ERR_CORRUPT for bytes that are no typed value */
KV_API kv_status kv_set_value(kv_store *s, kv_slice key, const kv_value *v);
KV_API kv_status kv_get_value(kv_store *s, kv_slice key, kv_value *v, kv_buf *storage);   /* as.bytes points into storage */
KV_API kv_status kv_set_int64(kv_store *s, kv_slice key, int64_t v);
KV_API kv_status kv_get_int64(kv_store *s, kv_slice key, int64_t *v);
KV_API kv_status kv_set_float64(kv_store *s, kv_slice key, double v);
KV_API kv_status kv_get_float64(kv_store *s, kv_slice key, double *v);
KV_API kv_status kv_set_bool(kv_store *s, kv_slice key, bool v);
KV_API kv_status kv_get_bool(kv_store *s, kv_slice key, bool *v);
KV_API kv_status kv_set_string(kv_store *s, kv_slice key, kv_slice v);
KV_API kv_status kv_get_string(kv_store *s, kv_slice key, kv_buf *v);
KV_API kv_status kv_set_bytes(kv_store *s, kv_slice key, kv_slice v);
KV_API kv_status kv_get_bytes(kv_store *s, kv_slice key, kv_buf *v);

/* ---- files ---- */

/* The seam to the disk. Three kinds exist: the operating system's (kv_io_default), the simulated disk
   of the tests, and yours over littlefs or a flash driver. Paths use '/'. Every function gets `user`
   first and returns KV_OK or a failure: KV_ERR_NO_SPACE for a full disk, KV_ERR_IO for the rest, and
   the answers named below. Threads: a store with background work calls from several threads, never
   two at once on one file but for read_at. */
typedef struct kv_file kv_file;     /* an open file; what is in it belongs to the kv_io */

enum {                              /* flags of open; 0: an existing file, to read */
    KV_OPEN_WRITE     = 1,          /* to read and write */
    KV_OPEN_CREATE    = 2,          /* make it where it is missing, readable by its owner alone */
    KV_OPEN_EXCLUSIVE = 4,          /* with CREATE: KV_EXISTS where it is there */
    KV_OPEN_TRUNCATE  = 8           /* empty it */
};

typedef struct kv_io {
    void *user;
    kv_status (*open)    (void *user, const char *path, uint32_t flags, kv_file **file);   /* KV_NOT_FOUND, KV_EXISTS */
    kv_status (*close)   (void *user, kv_file *file);                           /* the file is gone whatever this returns */
    kv_status (*size)    (void *user, kv_file *file, uint64_t *size);
    kv_status (*read_at) (void *user, kv_file *file, uint64_t offset, void *data, size_t size, size_t *got);   /* fewer than size only at the end */
    kv_status (*append)  (void *user, kv_file *file, const void *data, size_t size);   /* all, or a failure with any part of it written */
    kv_status (*write_at)(void *user, kv_file *file, uint64_t offset, const void *data, size_t size);
    kv_status (*sync)    (void *user, kv_file *file);                           /* data and size are on stable storage on KV_OK */
    kv_status (*rename)  (void *user, const char *from, const char *to);        /* atomically replaces `to` */
    kv_status (*remove)  (void *user, const char *path);                        /* KV_NOT_FOUND */
    kv_status (*list)    (void *user, const char *path, void (*each)(void *context, const char *name), void *context);   /* names without the path, without . and .. */
    kv_status (*make_dir)(void *user, const char *path);                        /* KV_EXISTS */
    kv_status (*sync_dir)(void *user, const char *path);                        /* the names in it are on stable storage on KV_OK */
    kv_status (*lock)    (void *user, const char *path, bool shared, kv_file **lock, uint64_t *holder);   /* KV_ERR_BUSY, *holder: its process id where known */
    kv_status (*unlock)  (void *user, kv_file *lock);
    /* NULL where the system has none */
    kv_status (*map)     (void *user, kv_file *file, size_t size, const void **data);   /* read-only; stays after close */
    void      (*unmap)   (void *user, const void *data, size_t size);
    kv_status (*link)    (void *user, const char *from, const char *to);        /* a second name; KV_EXISTS */
    int       (*os_error)(void *user);                                          /* the system's number for this thread's last failure */
    kv_status (*map_write)(void *user, kv_file *file, uint64_t offset, size_t size, void **data);   /* to store into: see below */
    kv_status (*truncate)(void *user, kv_file *file, uint64_t size);
    /* map_write makes the file reach to offset + size at least, with zeros where nothing was written and
       room on the disk set aside for all of it, and maps that part. What is stored there counts as
       written: it outlives the process at once, and sync covers it. KV_ERR_UNSUPPORTED where room cannot
       be set aside. offset is a multiple of 65,536. unmap ends it. */
} kv_io;

/* The files of this system, or NULL under KV_NO_FILES and where there are none. */
KV_API const kv_io *kv_io_default(void);

#ifdef __cplusplus
}
#endif
#endif /* KV_CORE_INCLUDED */

#if defined(KV_CORE_IMPLEMENTATION) && !defined(KV_CORE_IMPLEMENTED)
#define KV_CORE_IMPLEMENTED 1

/* ------------------------------------------------------------------------------------------------
   >>config   what the compiler and the switches give us: KVI_ macros, used by every module        */

#include <string.h>
#if !defined(KV_NO_MALLOC)
#include <stdlib.h>
#endif
#ifndef KV_ASSERT
#if defined(KV_NO_STDIO) && (defined(__GNUC__) || defined(__clang__))
#define KV_ASSERT(x) ((x) ? (void)0 : __builtin_trap())      /* assert would print */
#elif defined(KV_NO_STDIO)
#define KV_ASSERT(x) ((void)0)
#else
#include <assert.h>
#define KV_ASSERT(x) assert(x)
#endif
#endif

/* KVI_SMALL: the compiler was told to save code (-Os). Then it alone decides what is inlined, and where
   a module has a short and a fast way to the same result, it takes the short one. */
#if defined(KVI_SMALL)
/* a test asks for the short way */
#elif defined(__OPTIMIZE_SIZE__)
#define KVI_SMALL 1
#else
#define KVI_SMALL 0
#endif
#if (defined(__GNUC__) || defined(__clang__)) && KVI_SMALL
#define KVI_INLINE       static inline __attribute__((unused))
#elif defined(__GNUC__) || defined(__clang__)
#define KVI_INLINE       static inline __attribute__((always_inline, unused))
#endif
#if defined(__GNUC__) || defined(__clang__)
#define KVI_NOINLINE     static __attribute__((noinline, unused))
#define KVI_PRIVATE      static __attribute__((unused))
#define KVI_LIKELY(x)    __builtin_expect(!!(x), 1)
#define KVI_UNLIKELY(x)  __builtin_expect(!!(x), 0)
#define KVI_WEAK         __attribute__((weak))
#else
#define KVI_INLINE       static inline
#define KVI_NOINLINE     static
#define KVI_PRIVATE      static
#define KVI_LIKELY(x)    (x)
#define KVI_UNLIKELY(x)  (x)
#define KVI_WEAK
#endif

/* How a public function is defined. A module that was brought along by another one is weak, so that
   two implementation files may both bring it; KVI_CORE_IMPLIED is set by the one that brings. */
#if defined(KV_STATIC)
#define KVI_DEFINE KV_API
#define KVI_DEFINE_WEAK KV_API
#else
#define KVI_DEFINE
#define KVI_DEFINE_WEAK KVI_WEAK
#endif
#if defined(KVI_CORE_IMPLIED)
#define KVI_CORE KVI_DEFINE_WEAK
#else
#define KVI_CORE KVI_DEFINE
#endif

/* ThreadSanitizer cannot see a sequence lock: the readers of one copy bytes that a writer may be
   changing, and throw the copy away if so. Under it those copies go byte by byte through atomics. */
#if defined(__SANITIZE_THREAD__)
#define KVI_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KVI_TSAN 1
#endif
#endif
#ifndef KVI_TSAN
#define KVI_TSAN 0
#endif

/* One of these is 1: where threads, clock and files come from. */
#if defined(_WIN32)
#define KVI_OS_WINDOWS 1
#elif defined(__wasi__)
#define KVI_OS_WASI 1
#elif defined(__unix__) || defined(__APPLE__) || defined(__linux__)
#define KVI_OS_POSIX 1
#else
#define KVI_OS_NONE 1
#endif
#ifndef KVI_OS_WINDOWS
#define KVI_OS_WINDOWS 0
#endif
#ifndef KVI_OS_WASI
#define KVI_OS_WASI 0
#endif
#ifndef KVI_OS_POSIX
#define KVI_OS_POSIX 0
#endif
#ifndef KVI_OS_NONE
#define KVI_OS_NONE 0
#endif

#if !defined(KV_NO_THREADS) && (KVI_OS_POSIX || KVI_OS_WINDOWS)
#define KVI_THREADS 1
#else
#define KVI_THREADS 0
#endif
#if !defined(KV_NO_FILES) && !KVI_OS_NONE
#define KVI_FILES 1
#else
#define KVI_FILES 0
#endif

/* little-endian bytes, at any address, on any machine */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define KVI_LITTLE_ENDIAN 1     /* one instruction each: compilers do not always see through the shifts below */
#else
#define KVI_LITTLE_ENDIAN 0
#endif
#if KVI_LITTLE_ENDIAN
KVI_INLINE uint16_t kvi_load_le16(const void *p) { uint16_t v; memcpy(&v, p, sizeof v); return v; }
KVI_INLINE uint32_t kvi_load_le32(const void *p) { uint32_t v; memcpy(&v, p, sizeof v); return v; }
KVI_INLINE uint64_t kvi_load_le64(const void *p) { uint64_t v; memcpy(&v, p, sizeof v); return v; }
KVI_INLINE void kvi_store_le16(void *p, uint16_t v) { memcpy(p, &v, sizeof v); }
KVI_INLINE void kvi_store_le32(void *p, uint32_t v) { memcpy(p, &v, sizeof v); }
KVI_INLINE void kvi_store_le64(void *p, uint64_t v) { memcpy(p, &v, sizeof v); }
#else
KVI_INLINE uint16_t kvi_load_le16(const void *p) { const uint8_t *b = (const uint8_t *)p; return (uint16_t)(b[0] | b[1] << 8); }
KVI_INLINE uint32_t kvi_load_le32(const void *p)
{
    const uint8_t *b = (const uint8_t *)p;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}
KVI_INLINE uint64_t kvi_load_le64(const void *p)
{
    return (uint64_t)kvi_load_le32(p) | (uint64_t)kvi_load_le32((const uint8_t *)p + 4) << 32;
}
KVI_INLINE void kvi_store_le16(void *p, uint16_t v) { uint8_t *b = (uint8_t *)p; b[0] = (uint8_t)v; b[1] = (uint8_t)(v >> 8); }
KVI_INLINE void kvi_store_le32(void *p, uint32_t v)
{
    uint8_t *b = (uint8_t *)p;
    b[0] = (uint8_t)v; b[1] = (uint8_t)(v >> 8); b[2] = (uint8_t)(v >> 16); b[3] = (uint8_t)(v >> 24);
}
KVI_INLINE void kvi_store_le64(void *p, uint64_t v)
{
    kvi_store_le32(p, (uint32_t)v);
    kvi_store_le32((uint8_t *)p + 4, (uint32_t)(v >> 32));
}
#endif

/* memcpy and friends that may be given NULL with a size of 0 */
KVI_INLINE void kvi_copy(void *to, const void *from, size_t size) { if (size) memcpy(to, from, size); }
KVI_INLINE void kvi_move(void *to, const void *from, size_t size) { if (size) memmove(to, from, size); }
KVI_INLINE void kvi_zero(void *to, size_t size) { if (size) memset(to, 0, size); }
KVI_INLINE int  kvi_compare_bytes(const void *a, size_t a_size, const void *b, size_t b_size)
{
    size_t both = a_size < b_size ? a_size : b_size;
    int order = both ? memcmp(a, b, both) : 0;
    if (order) return order;
    return a_size < b_size ? -1 : a_size > b_size;
}
KVI_INLINE bool kvi_same_bytes(const void *a, const void *b, size_t size) { return !size || !memcmp(a, b, size); }
KVI_INLINE int  kvi_compare(kv_slice a, kv_slice b) { return kvi_compare_bytes(a.data, a.size, b.data, b.size); }

/* the position of the lowest and of the highest set bit; x is not 0 */
KVI_INLINE uint32_t kvi_lowest_bit32(uint32_t x)
{
#if defined(__GNUC__) || defined(__clang__)
    return (uint32_t)__builtin_ctz(x);
#else
    uint32_t n = 0;
    while (!(x & 1)) { x >>= 1; n++; }
    return n;
#endif
}
KVI_INLINE uint32_t kvi_highest_bit32(uint32_t x)
{
#if defined(__GNUC__) || defined(__clang__)
    return 31u - (uint32_t)__builtin_clz(x);
#else
    uint32_t n = 0;
    while (x >>= 1) n++;
    return n;
#endif
}
/* one instruction where a word has 64 bits; elsewhere the compiler's would be a call */
#if (defined(__GNUC__) || defined(__clang__)) && UINTPTR_MAX > 0xFFFFFFFFu
#define KVI_BITS_64 1
#else
#define KVI_BITS_64 0
#endif
KVI_INLINE uint32_t kvi_lowest_bit64(uint64_t x)
{
#if KVI_BITS_64
    return (uint32_t)__builtin_ctzll(x);
#else
    return (uint32_t)x ? kvi_lowest_bit32((uint32_t)x) : 32 + kvi_lowest_bit32((uint32_t)(x >> 32));
#endif
}
KVI_INLINE uint32_t kvi_highest_bit64(uint64_t x)
{
#if KVI_BITS_64
    return 63u - (uint32_t)__builtin_clzll(x);
#else
    return x >> 32 ? 32 + kvi_highest_bit32((uint32_t)(x >> 32)) : kvi_highest_bit32((uint32_t)x);
#endif
}

/* ------------------------------------------------------------------------------------------------
   >>platform   atomics, locks, threads, clock, randomness: the only place that asks which system
   this is, besides >>files. Under KV_NO_THREADS all of it becomes plain loads and stores.         */

#if KVI_OS_POSIX || KVI_OS_WASI
#include <errno.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>
#endif
#if KVI_OS_POSIX
#include <sched.h>
#include <sys/mman.h>
#if defined(__linux__)
#include <sys/random.h>
#endif
#if KVI_THREADS
#include <pthread.h>
#endif
#endif
#if KVI_OS_WINDOWS
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#define KVI_LEAN_AND_MEAN_SET 1
#endif
#ifndef NOMINMAX
#define NOMINMAX
#define KVI_NOMINMAX_SET 1
#endif
#include <windows.h>
#include <process.h>    /* _beginthreadex: a thread that may use the C library */
#ifdef KVI_LEAN_AND_MEAN_SET
#undef WIN32_LEAN_AND_MEAN
#undef KVI_LEAN_AND_MEAN_SET
#endif
#ifdef KVI_NOMINMAX_SET
#undef NOMINMAX
#undef KVI_NOMINMAX_SET
#endif
#endif

/* Under -std=c99 glibc hides POSIX functions that were there all along, and it is too late to ask for
   them when a user included a system header first. Declared here, they are the same functions. */
#if KVI_OS_POSIX && defined(__GLIBC__) && !defined(__cplusplus) && !defined(__USE_XOPEN2K8)
extern int     clock_gettime(int clock, struct timespec *now);
extern int     nanosleep(const struct timespec *wanted, struct timespec *left);
extern ssize_t pread(int fd, void *data, size_t size, off_t offset);
extern ssize_t pwrite(int fd, const void *data, size_t size, off_t offset);
extern int     fsync(int fd);
extern int     fdatasync(int fd);
extern int     ftruncate(int fd, off_t size);
#endif
#if KVI_OS_POSIX && defined(__GLIBC__) && !defined(__cplusplus) && !defined(__USE_MISC)
extern long    syscall(long number, ...);
extern int     madvise(void *address, size_t size, int advice);
#endif
#if KVI_OS_WASI && !defined(__cplusplus) && defined(__STRICT_ANSI__)
extern int     clock_gettime(clockid_t clock, struct timespec *now);
extern int     getentropy(void *out, size_t size);
#endif
#if KVI_OS_POSIX && defined(__linux__)      /* hidden likewise, and as fixed as an ABI can be */
#ifndef CLOCK_MONOTONIC
#define KVI_CLOCK_MONOTONIC 1
#endif
#ifndef MADV_HUGEPAGE
#define KVI_MADV_HUGEPAGE 14
#else
#define KVI_MADV_HUGEPAGE MADV_HUGEPAGE
#endif
#endif
#ifndef KVI_CLOCK_MONOTONIC
#define KVI_CLOCK_MONOTONIC CLOCK_MONOTONIC
#endif

/* Atomics, by type: kvi_load_u32 (acquire), kvi_peek_u32 (relaxed), kvi_store_u32 (release),
   kvi_poke_u32 (relaxed), kvi_add_u32 and kvi_sub_u32 (return the old value), kvi_or_u32, kvi_and_u32,
   kvi_swap_u32, kvi_cas_u32 (true: it was `expected` and is `desired` now); kvi_load_strict_u32,
   kvi_cas_strict_u32 and kvi_add_strict_u32 are in one order that all threads agree on. The same for
   _u8, _u64, _size and _ptr. 64-bit ones need a machine that has them; modules for small machines avoid them. */
#if !defined(KV_NO_THREADS) && (defined(__GNUC__) || defined(__clang__)) && !defined(KVI_ATOMICS_INTERLOCKED)
#define KVI_ATOMICS(name, type) \
    KVI_INLINE type kvi_load_##name(const type *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); } \
    KVI_INLINE type kvi_peek_##name(const type *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); } \
    KVI_INLINE void kvi_store_##name(type *p, type v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); } \
    KVI_INLINE void kvi_poke_##name(type *p, type v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); } \
    KVI_INLINE type kvi_swap_##name(type *p, type v) { return __atomic_exchange_n(p, v, __ATOMIC_ACQ_REL); } \
    KVI_INLINE bool kvi_cas_##name(type *p, type expected, type desired) \
    { return __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE); } \
    KVI_INLINE type kvi_load_strict_##name(const type *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); } \
    KVI_INLINE bool kvi_cas_strict_##name(type *p, type expected, type desired) \
    { return __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); }
#define KVI_ATOMIC_SUMS(name, type) \
    KVI_INLINE type kvi_add_##name(type *p, type v) { return __atomic_fetch_add(p, v, __ATOMIC_ACQ_REL); } \
    KVI_INLINE type kvi_add_strict_##name(type *p, type v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); } \
    KVI_INLINE type kvi_sub_##name(type *p, type v) { return __atomic_fetch_sub(p, v, __ATOMIC_ACQ_REL); } \
    KVI_INLINE type kvi_or_##name(type *p, type v) { return __atomic_fetch_or(p, v, __ATOMIC_ACQ_REL); } \
    KVI_INLINE type kvi_and_##name(type *p, type v) { return __atomic_fetch_and(p, v, __ATOMIC_ACQ_REL); }
KVI_INLINE void kvi_fence_acquire(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
KVI_INLINE void kvi_fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
KVI_INLINE void kvi_fence_full(void)    { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
#elif !defined(KV_NO_THREADS) && defined(_WIN64)
/* Microsoft's compiler. An aligned load or store of at most 8 bytes is atomic on x64 and ARM64, and
   compare-and-exchange is a full barrier: all else is made of these. */
#include <intrin.h>
#if defined(_M_ARM64) || defined(__aarch64__)
KVI_INLINE void kvi_fence_acquire(void) { MemoryBarrier(); }
KVI_INLINE void kvi_fence_release(void) { MemoryBarrier(); }
#else
KVI_INLINE void kvi_fence_acquire(void) { _ReadWriteBarrier(); }
KVI_INLINE void kvi_fence_release(void) { _ReadWriteBarrier(); }
#endif
KVI_INLINE void kvi_fence_full(void) { MemoryBarrier(); }
KVI_INLINE uint8_t  kvi_interlocked_u8(uint8_t *p, uint8_t expected, uint8_t desired)
{ return (uint8_t)_InterlockedCompareExchange8((volatile char *)p, (char)desired, (char)expected); }
KVI_INLINE uint32_t kvi_interlocked_u32(uint32_t *p, uint32_t expected, uint32_t desired)
{ return (uint32_t)_InterlockedCompareExchange((volatile long *)p, (long)desired, (long)expected); }
KVI_INLINE uint64_t kvi_interlocked_u64(uint64_t *p, uint64_t expected, uint64_t desired)
{ return (uint64_t)_InterlockedCompareExchange64((volatile __int64 *)p, (__int64)desired, (__int64)expected); }
KVI_INLINE size_t   kvi_interlocked_size(size_t *p, size_t expected, size_t desired)
{ return (size_t)_InterlockedCompareExchange64((volatile __int64 *)p, (__int64)desired, (__int64)expected); }
KVI_INLINE void    *kvi_interlocked_ptr(void **p, void *expected, void *desired)
{ return _InterlockedCompareExchangePointer((void *volatile *)p, desired, expected); }
#define KVI_ATOMICS(name, type) \
    KVI_INLINE type kvi_peek_##name(const type *p) { return *(const volatile type *)p; } \
    KVI_INLINE type kvi_load_##name(const type *p) { type v = *(const volatile type *)p; kvi_fence_acquire(); return v; } \
    KVI_INLINE void kvi_poke_##name(type *p, type v) { *(volatile type *)p = v; } \
    KVI_INLINE void kvi_store_##name(type *p, type v) { kvi_fence_release(); *(volatile type *)p = v; } \
    KVI_INLINE bool kvi_cas_##name(type *p, type expected, type desired) \
    { return kvi_interlocked_##name(p, expected, desired) == expected; } \
    KVI_INLINE type kvi_swap_##name(type *p, type v) \
    { type old = kvi_peek_##name(p); while (!kvi_cas_##name(p, old, v)) old = kvi_peek_##name(p); return old; }
#define KVI_ATOMIC_CHANGE(verb, name, type, change) \
    KVI_INLINE type kvi_##verb##_##name(type *p, type v) \
    { type old = kvi_peek_##name(p); while (!kvi_cas_##name(p, old, (type)(change))) old = kvi_peek_##name(p); return old; }
#define KVI_ATOMIC_SUMS(name, type) \
    KVI_ATOMIC_CHANGE(add, name, type, old + v) KVI_ATOMIC_CHANGE(sub, name, type, old - v) \
    KVI_ATOMIC_CHANGE(or, name, type, old | v)  KVI_ATOMIC_CHANGE(and, name, type, old & v)
#elif defined(KV_NO_THREADS)
#define KVI_ATOMICS(name, type) \
    KVI_INLINE type kvi_load_##name(const type *p) { return *p; } \
    KVI_INLINE type kvi_peek_##name(const type *p) { return *p; } \
    KVI_INLINE void kvi_store_##name(type *p, type v) { *p = v; } \
    KVI_INLINE void kvi_poke_##name(type *p, type v) { *p = v; } \
    KVI_INLINE type kvi_swap_##name(type *p, type v) { type old = *p; *p = v; return old; } \
    KVI_INLINE bool kvi_cas_##name(type *p, type expected, type desired) \
    { if (*p != expected) return false; *p = desired; return true; } \
    KVI_INLINE type kvi_load_strict_##name(const type *p) { return *p; } \
    KVI_INLINE bool kvi_cas_strict_##name(type *p, type expected, type desired) { return kvi_cas_##name(p, expected, desired); }
#define KVI_ATOMIC_SUMS(name, type) \
    KVI_INLINE type kvi_add_##name(type *p, type v) { type old = *p; *p = (type)(old + v); return old; } \
    KVI_INLINE type kvi_add_strict_##name(type *p, type v) { return kvi_add_##name(p, v); } \
    KVI_INLINE type kvi_sub_##name(type *p, type v) { type old = *p; *p = (type)(old - v); return old; } \
    KVI_INLINE type kvi_or_##name(type *p, type v) { type old = *p; *p = (type)(old | v); return old; } \
    KVI_INLINE type kvi_and_##name(type *p, type v) { type old = *p; *p = (type)(old & v); return old; }
KVI_INLINE void kvi_fence_acquire(void) {}
KVI_INLINE void kvi_fence_release(void) {}
KVI_INLINE void kvi_fence_full(void) {}
#else
#error "kv.h: no atomics for this compiler; define KV_NO_THREADS for use from one thread"
#endif
/* Before a member of 64 bits that threads share: the ABI of i386 puts one at any multiple of 4, where it may
   cross a cache line, and is neither atomic then nor quick. */
#if defined(__i386__) && (defined(__GNUC__) || defined(__clang__))
#define KVI_ALIGN_64 __attribute__((aligned(8)))
#else
#define KVI_ALIGN_64
#endif
typedef void *kvi_pointer;
KVI_ATOMICS(u8, uint8_t)       KVI_ATOMIC_SUMS(u8, uint8_t)
KVI_ATOMICS(u32, uint32_t)     KVI_ATOMIC_SUMS(u32, uint32_t)
KVI_ATOMICS(u64, uint64_t)     KVI_ATOMIC_SUMS(u64, uint64_t)
KVI_ATOMICS(size, size_t)      KVI_ATOMIC_SUMS(size, size_t)
KVI_ATOMICS(ptr, kvi_pointer)

/* One turn of a spinning wait. */
KVI_INLINE void kvi_pause(void)
{
#if KVI_THREADS && KVI_OS_WINDOWS
    YieldProcessor();
#elif KVI_THREADS && (defined(__x86_64__) || defined(__i386__))
    __builtin_ia32_pause();
#elif KVI_THREADS && defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}
KVI_INLINE void kvi_yield(void)
{
#if KVI_THREADS && KVI_OS_WINDOWS
    SwitchToThread();
#elif KVI_THREADS
    sched_yield();
#endif
}

/* A lock of 4 bytes for a few instructions: 0 is free. It yields after a while, so that a holder that
   was preempted gets its turn. */
KVI_INLINE bool kvi_spin_try(uint32_t *lock) { return kvi_peek_u32(lock) == 0 && kvi_cas_u32(lock, 0, 1); }
KVI_INLINE void kvi_spin_lock(uint32_t *lock)
{
    uint32_t turns = 0;
    while (KVI_THREADS && !kvi_spin_try(lock)) {
        if (++turns < 64) kvi_pause(); else kvi_yield();
    }
}
KVI_INLINE void kvi_spin_unlock(uint32_t *lock) { kvi_store_u32(lock, 0); }

/* Mutex, condition variable, thread. Without threads a mutex is nothing, waiting returns at once, and
   starting a thread is KV_ERR_UNSUPPORTED. */
#if KVI_THREADS && KVI_OS_WINDOWS
typedef SRWLOCK            kvi_mutex;
typedef CONDITION_VARIABLE kvi_cond;
typedef struct kvi_thread { HANDLE handle; void (*run)(void *); void *argument; } kvi_thread;

KVI_PRIVATE bool kvi_mutex_init(kvi_mutex *m)    { InitializeSRWLock(m); return true; }
KVI_PRIVATE void kvi_mutex_destroy(kvi_mutex *m) { (void)m; }
KVI_INLINE  void kvi_mutex_lock(kvi_mutex *m)    { AcquireSRWLockExclusive(m); }
KVI_INLINE  bool kvi_mutex_try(kvi_mutex *m)     { return TryAcquireSRWLockExclusive(m) != 0; }
KVI_INLINE  void kvi_mutex_unlock(kvi_mutex *m)  { ReleaseSRWLockExclusive(m); }
KVI_PRIVATE bool kvi_cond_init(kvi_cond *c)      { InitializeConditionVariable(c); return true; }
KVI_PRIVATE void kvi_cond_destroy(kvi_cond *c)   { (void)c; }
KVI_INLINE  void kvi_cond_wait(kvi_cond *c, kvi_mutex *m) { SleepConditionVariableSRW(c, m, INFINITE, 0); }
KVI_INLINE  void kvi_cond_signal(kvi_cond *c)    { WakeConditionVariable(c); }
KVI_INLINE  void kvi_cond_broadcast(kvi_cond *c) { WakeAllConditionVariable(c); }
KVI_PRIVATE void kvi_cond_wait_ms(kvi_cond *c, kvi_mutex *m, uint32_t ms) { SleepConditionVariableSRW(c, m, ms, 0); }
KVI_PRIVATE unsigned __stdcall kvi_thread_main(void *argument)
{
    kvi_thread *t = (kvi_thread *)argument;
    t->run(t->argument);
    return 0;
}
KVI_PRIVATE kv_status kvi_thread_start(kvi_thread *t, void (*run)(void *), void *argument)   /* t stays put until joined */
{
    t->run = run;
    t->argument = argument;
    t->handle = (HANDLE)_beginthreadex(NULL, 0, kvi_thread_main, t, 0, NULL);
    return t->handle ? KV_OK : KV_ERR_NO_MEMORY;
}
KVI_PRIVATE void kvi_thread_join(kvi_thread *t) { WaitForSingleObject(t->handle, INFINITE); CloseHandle(t->handle); }
KVI_PRIVATE uintptr_t kvi_thread_id(void) { return (uintptr_t)GetCurrentThreadId(); }     /* a number that no other living thread has */
#elif KVI_THREADS
typedef pthread_mutex_t kvi_mutex;
typedef pthread_cond_t  kvi_cond;
typedef struct kvi_thread { pthread_t handle; void (*run)(void *); void *argument; } kvi_thread;

KVI_PRIVATE bool kvi_mutex_init(kvi_mutex *m)    { return pthread_mutex_init(m, NULL) == 0; }
KVI_PRIVATE void kvi_mutex_destroy(kvi_mutex *m) { pthread_mutex_destroy(m); }
KVI_INLINE  void kvi_mutex_lock(kvi_mutex *m)    { pthread_mutex_lock(m); }
KVI_INLINE  bool kvi_mutex_try(kvi_mutex *m)     { return pthread_mutex_trylock(m) == 0; }
KVI_INLINE  void kvi_mutex_unlock(kvi_mutex *m)  { pthread_mutex_unlock(m); }
KVI_PRIVATE bool kvi_cond_init(kvi_cond *c)      { return pthread_cond_init(c, NULL) == 0; }
KVI_PRIVATE void kvi_cond_destroy(kvi_cond *c)   { pthread_cond_destroy(c); }
KVI_INLINE  void kvi_cond_wait(kvi_cond *c, kvi_mutex *m) { pthread_cond_wait(c, m); }
KVI_INLINE  void kvi_cond_signal(kvi_cond *c)    { pthread_cond_signal(c); }
KVI_INLINE  void kvi_cond_broadcast(kvi_cond *c) { pthread_cond_broadcast(c); }
/* May return early, as kvi_cond_wait may: test the condition. The wall clock is what a portable
   condition variable waits by; if somebody sets it back, a wait is longer by as much. */
KVI_PRIVATE void kvi_cond_wait_ms(kvi_cond *c, kvi_mutex *m, uint32_t ms)
{
    struct timespec until;
    clock_gettime(0 /* CLOCK_REALTIME */, &until);
    until.tv_sec += (time_t)(ms / 1000);
    until.tv_nsec += (long)(ms % 1000) * 1000000L;
    if (until.tv_nsec >= 1000000000L) { until.tv_sec++; until.tv_nsec -= 1000000000L; }
    pthread_cond_timedwait(c, m, &until);
}
KVI_PRIVATE void *kvi_thread_main(void *argument)
{
    kvi_thread *t = (kvi_thread *)argument;
    t->run(t->argument);
    return NULL;
}
KVI_PRIVATE kv_status kvi_thread_start(kvi_thread *t, void (*run)(void *), void *argument)   /* t stays put until joined */
{
    t->run = run;
    t->argument = argument;
    return pthread_create(&t->handle, NULL, kvi_thread_main, t) == 0 ? KV_OK : KV_ERR_NO_MEMORY;
}
KVI_PRIVATE void kvi_thread_join(kvi_thread *t) { pthread_join(t->handle, NULL); }
/* A number that no other living thread has. */
KVI_PRIVATE uintptr_t kvi_thread_id(void)
{
    pthread_t self = pthread_self();
    uintptr_t id = 0;
    memcpy(&id, &self, sizeof self < sizeof id ? sizeof self : sizeof id);
    return id;
}
#else
typedef struct kvi_mutex  { char unused; } kvi_mutex;
typedef struct kvi_cond   { char unused; } kvi_cond;
typedef struct kvi_thread { char unused; } kvi_thread;

KVI_PRIVATE bool kvi_mutex_init(kvi_mutex *m)    { (void)m; return true; }
KVI_PRIVATE void kvi_mutex_destroy(kvi_mutex *m) { (void)m; }
KVI_INLINE  void kvi_mutex_lock(kvi_mutex *m)    { (void)m; }
KVI_INLINE  bool kvi_mutex_try(kvi_mutex *m)     { (void)m; return true; }
KVI_INLINE  void kvi_mutex_unlock(kvi_mutex *m)  { (void)m; }
KVI_PRIVATE bool kvi_cond_init(kvi_cond *c)      { (void)c; return true; }
KVI_PRIVATE void kvi_cond_destroy(kvi_cond *c)   { (void)c; }
KVI_INLINE  void kvi_cond_wait(kvi_cond *c, kvi_mutex *m) { (void)c; (void)m; }
KVI_INLINE  void kvi_cond_signal(kvi_cond *c)    { (void)c; }
KVI_INLINE  void kvi_cond_broadcast(kvi_cond *c) { (void)c; }
KVI_PRIVATE void kvi_cond_wait_ms(kvi_cond *c, kvi_mutex *m, uint32_t ms) { (void)c; (void)m; (void)ms; }
KVI_PRIVATE kv_status kvi_thread_start(kvi_thread *t, void (*run)(void *), void *argument)
{
    (void)t; (void)run; (void)argument;
    return KV_ERR_UNSUPPORTED;
}
KVI_PRIVATE void kvi_thread_join(kvi_thread *t) { (void)t; }
KVI_PRIVATE uintptr_t kvi_thread_id(void) { return 0; }
#endif

/* Run a function once in the life of the process: *state starts as 0. */
KVI_PRIVATE void kvi_once(uint32_t *state, void (*run)(void))
{
    if (kvi_load_u32(state) == 2) return;
    if (kvi_cas_u32(state, 0, 1)) { run(); kvi_store_u32(state, 2); return; }
    while (kvi_load_u32(state) != 2) kvi_yield();
}

/* Monotonic time; 0 forever where there is no clock (an object that needs one takes a callback). */
KVI_PRIVATE uint64_t kvi_now_ns(void)
{
#if KVI_OS_POSIX || KVI_OS_WASI
    struct timespec now;
    if (clock_gettime(KVI_CLOCK_MONOTONIC, &now) != 0) return 0;
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
#elif KVI_OS_WINDOWS
    LARGE_INTEGER ticks, per_second;
    uint64_t      n, rate;
    if (!QueryPerformanceFrequency(&per_second) || !QueryPerformanceCounter(&ticks)) return 0;
    n = (uint64_t)ticks.QuadPart;
    rate = (uint64_t)per_second.QuadPart;
    return n / rate * 1000000000u + n % rate * 1000000000u / rate;
#else
    return 0;
#endif
}
KVI_PRIVATE uint64_t kvi_now_ms(void) { return kvi_now_ns() / 1000000u; }

KVI_PRIVATE void kvi_sleep_ms(uint32_t ms)
{
#if KVI_THREADS && KVI_OS_WINDOWS
    Sleep(ms);
#elif KVI_THREADS
    struct timespec wanted;
    wanted.tv_sec = (time_t)(ms / 1000);
    wanted.tv_nsec = (long)(ms % 1000) * 1000000L;
    nanosleep(&wanted, NULL);
#else
    (void)ms;
#endif
}

/* How often this process is the child of a fork, as far back as the first kvi_fork_watch: an object
   that remembers the number notices that it was carried into a child. */
#if KVI_THREADS && KVI_OS_POSIX
static uint32_t kvi_fork_number, kvi_fork_watched;
KVI_PRIVATE void kvi_fork_in_child(void) { kvi_add_u32(&kvi_fork_number, 1); }
KVI_PRIVATE void kvi_fork_register(void) { (void)pthread_atfork(NULL, NULL, kvi_fork_in_child); }
KVI_PRIVATE void kvi_fork_watch(void) { kvi_once(&kvi_fork_watched, kvi_fork_register); }
KVI_INLINE uint32_t kvi_fork_count(void) { return kvi_peek_u32(&kvi_fork_number); }
#else
KVI_PRIVATE void kvi_fork_watch(void) {}
KVI_INLINE uint32_t kvi_fork_count(void)
{
#if KVI_OS_POSIX
    return (uint32_t)getpid();
#else
    return 0;
#endif
}
#endif

KVI_PRIVATE uint32_t kvi_cpu_count(void)
{
#if KVI_THREADS && KVI_OS_WINDOWS
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return info.dwNumberOfProcessors ? (uint32_t)info.dwNumberOfProcessors : 1;
#elif KVI_THREADS && defined(_SC_NPROCESSORS_ONLN)
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (uint32_t)n : 1;
#else
    return 1;
#endif
}

KVI_INLINE uint64_t kvi_mix64(uint64_t x)   /* a bijection that scatters (splitmix64's finaliser) */
{
    x ^= x >> 30; x *= UINT64_C(0xBF58476D1CE4E5B9);
    x ^= x >> 27; x *= UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

/* A number that nobody can guess, from the system. False where the system has none to give; *random
   is then only different from call to call. */
#if KVI_OS_WINDOWS
#ifdef __cplusplus
extern "C"
#endif
BOOLEAN NTAPI SystemFunction036(void *out, ULONG size);     /* the name under which advapi32 has RtlGenRandom */
#endif
KVI_PRIVATE bool kvi_random_u64(uint64_t *random, const void *salt)
{
    static uint32_t calls;
    uint64_t n = kvi_add_u32(&calls, 1);
#if KVI_OS_POSIX && defined(__linux__)
    if (getrandom(random, sizeof *random, 0) == (ssize_t)sizeof *random) return true;
#elif KVI_OS_POSIX && defined(__APPLE__)
    arc4random_buf(random, sizeof *random);
    return true;
#elif KVI_OS_WASI
    if (getentropy(random, sizeof *random) == 0) return true;
#elif KVI_OS_WINDOWS
    if (SystemFunction036(random, sizeof *random)) return true;
#endif
    *random = kvi_mix64(kvi_now_ns() ^ n << 48 ^ (uint64_t)(uintptr_t)salt);
    return false;
}

/* Ask for large pages under a large block; nothing happens where the system has none. */
KVI_PRIVATE void kvi_advise_huge(void *memory, size_t size)
{
#if KVI_OS_POSIX && defined(KVI_MADV_HUGEPAGE)
    uintptr_t from = ((uintptr_t)memory + 4095) & ~(uintptr_t)4095, to = ((uintptr_t)memory + size) & ~(uintptr_t)4095;
    if (from < to) (void)madvise((void *)from, to - from, KVI_MADV_HUGEPAGE);
#else
    (void)memory; (void)size;
#endif
}

/* The content of a large block is not needed any more, its addresses are: the pages that lie wholly
   inside may go back to the system, and then read as 0. For memory that came from malloc. */
KVI_PRIVATE void kvi_discard(void *memory, size_t size)
{
#if KVI_OS_POSIX && defined(__linux__)
    uintptr_t from = ((uintptr_t)memory + 4095) & ~(uintptr_t)4095, to = ((uintptr_t)memory + size) & ~(uintptr_t)4095;
    if (from < to) (void)madvise((void *)from, to - from, 4 /* MADV_DONTNEED */);
#else
    (void)memory; (void)size;
#endif
}

/* Copies between private memory and memory that a sequence lock guards (see KVI_TSAN). `in` is for
   the writer, `out` and `same` for the reader, who must check the sequence before believing them. */
KVI_INLINE void kvi_shared_in(void *shared, const void *from, size_t size)
{
#if KVI_TSAN
    for (size_t i = 0; i < size; i++) kvi_poke_u8((uint8_t *)shared + i, ((const uint8_t *)from)[i]);
#else
    kvi_copy(shared, from, size);
#endif
}
KVI_INLINE void kvi_shared_out(void *to, const void *shared, size_t size)
{
#if KVI_TSAN
    for (size_t i = 0; i < size; i++) ((uint8_t *)to)[i] = kvi_peek_u8((const uint8_t *)shared + i);
#else
    kvi_copy(to, shared, size);
#endif
}
KVI_INLINE bool kvi_shared_same(const void *shared, const void *other, size_t size)
{
#if KVI_TSAN
    for (size_t i = 0; i < size; i++) if (kvi_peek_u8((const uint8_t *)shared + i) != ((const uint8_t *)other)[i]) return false;
    return true;
#else
    return kvi_same_bytes(shared, other, size);
#endif
}

/* ------------------------------------------------------------------------------------------------
   >>text   messages without stdio, and the last error of an object                                */

/* Text that is cut off where it does not fit, and always ends with a 0. */
typedef struct kvi_text { char *out; size_t capacity, size; } kvi_text;

KVI_PRIVATE kvi_text kvi_text_over(char *out, size_t capacity)
{
    kvi_text t;
    t.out = out; t.capacity = capacity; t.size = 0;
    if (capacity) out[0] = 0;
    return t;
}
KVI_PRIVATE void kvi_text_char(kvi_text *t, char c)
{
    if (t->size + 1 < t->capacity) { t->out[t->size++] = c; t->out[t->size] = 0; }
}
KVI_PRIVATE void kvi_text_add(kvi_text *t, const char *s) { while (*s) kvi_text_char(t, *s++); }
KVI_PRIVATE void kvi_text_u64(kvi_text *t, uint64_t n)
{
    char digits[20];
    int  count = 0;
    do { digits[count++] = (char)('0' + n % 10); n /= 10; } while (n);
    while (count) kvi_text_char(t, digits[--count]);
}
KVI_PRIVATE void kvi_text_i64(kvi_text *t, int64_t n)
{
    if (n < 0) kvi_text_char(t, '-');
    kvi_text_u64(t, n < 0 ? 0 - (uint64_t)n : (uint64_t)n);
}
KVI_PRIVATE void kvi_text_hex(kvi_text *t, uint64_t n, uint32_t digits)
{
    while (digits--) kvi_text_char(t, "0123456789abcdef"[n >> (digits * 4) & 15]);
}
/* A key as a person reads it: quoted, \xHH for what is not printable, cut after 48 bytes. */
KVI_PRIVATE void kvi_text_key(kvi_text *t, kv_slice key)
{
    const uint8_t *b = (const uint8_t *)key.data;
    kvi_text_char(t, '"');
    for (size_t i = 0; i < key.size && i < 48; i++) {
        if (b[i] >= 32 && b[i] < 127 && b[i] != '"' && b[i] != '\\') { kvi_text_char(t, (char)b[i]); continue; }
        kvi_text_add(t, "\\x");
        kvi_text_hex(t, b[i], 2);
    }
    kvi_text_char(t, '"');
    if (key.size > 48) { kvi_text_add(t, "... ("); kvi_text_u64(t, key.size); kvi_text_add(t, " bytes)"); }
}

/* The last failure of an object, in words. Texts are written into slots in turn and then published,
   so that a reader's pointer stays whole until KVI_ERROR_SLOTS - 1 more failures. {0} is "". */
#define KVI_ERROR_SLOTS 4
typedef struct kvi_error {
    char     slots[KVI_ERROR_SLOTS][200];
    uint32_t next;          /* the slot to write, modulo */
    uint32_t current;       /* 1 + the slot that was written last; 0: none yet */
    uint32_t lock;
} kvi_error;

KVI_PRIVATE const char *kvi_error_text(const kvi_error *e)
{
    uint32_t current = kvi_load_u32(&e->current);
    return current ? e->slots[current - 1] : "";
}
/* Begin a text; end it with kvi_error_end. In between the error is locked: only add text. */
KVI_PRIVATE kvi_text kvi_error_begin(kvi_error *e)
{
    kvi_spin_lock(&e->lock);
    return kvi_text_over(e->slots[e->next], sizeof e->slots[0]);
}
KVI_PRIVATE kv_status kvi_error_end(kvi_error *e, kv_status s)
{
    kvi_store_u32(&e->current, e->next + 1);
    e->next = (e->next + 1) % KVI_ERROR_SLOTS;
    kvi_spin_unlock(&e->lock);
    return s;
}
/* Keep `what`, or the plain text of s where it is NULL; returns s. */
KVI_PRIVATE kv_status kvi_error_set(kvi_error *e, kv_status s, const char *what)
{
    kvi_text t = kvi_error_begin(e);
    kvi_text_add(&t, what ? what : kv_status_text(s));
    return kvi_error_end(e, s);
}

KVI_CORE const char *kv_status_text(kv_status s)
{
    switch (s) {
    case KV_OK:              return "ok";
    case KV_NOT_FOUND:       return "key not found";
    case KV_EXISTS:          return "key exists";
    case KV_END:             return "nothing more";
    case KV_ERR_INVALID:     return "invalid argument";
    case KV_ERR_NO_MEMORY:   return "out of memory";
    case KV_ERR_IO:          return "input/output error";
    case KV_ERR_CORRUPT:     return "stored data is corrupt";
    case KV_ERR_NO_SPACE:    return "no space left";
    case KV_ERR_TOO_LARGE:   return "too large";
    case KV_ERR_BUSY:        return "busy";
    case KV_ERR_READ_ONLY:   return "store is read-only";
    case KV_ERR_UNSUPPORTED: return "not supported by this store";
    case KV_ERR_VERSION:     return "written by a newer format version";
    case KV_ERR_ORDER:       return "keys out of order";
    case KV_ERR_WRONG_TYPE:  return "value has another type";
    case KV_ERR_CONFLICT:    return "value has changed";
    default:                 return "unknown status";
    }
}

/* ------------------------------------------------------------------------------------------------
   >>memory   allocators and growing buffers                                                       */

KVI_PRIVATE void *kvi_resize(const kv_allocator *a, void *memory, size_t old_size, size_t new_size)
{
    if (a && a->resize) return a->resize(a->user, memory, old_size, new_size);
#if defined(KV_DEFAULT_RESIZE)
    return KV_DEFAULT_RESIZE(memory, old_size, new_size);
#elif !defined(KV_NO_MALLOC)
    if (new_size == 0) { free(memory); return NULL; }
    return realloc(memory, new_size);
#else
    (void)memory; (void)old_size; (void)new_size;
    return NULL;
#endif
}
KVI_INLINE void *kvi_alloc(const kv_allocator *a, size_t size) { return kvi_resize(a, NULL, 0, size); }
KVI_INLINE void  kvi_free(const kv_allocator *a, void *memory, size_t size) { if (memory) (void)kvi_resize(a, memory, size, 0); }
KVI_PRIVATE void *kvi_alloc_zero(const kv_allocator *a, size_t size)
{
    void *memory = kvi_alloc(a, size);
    if (memory) memset(memory, 0, size);
    return memory;
}
/* A large block that is read in no order, so that it should lie on large pages if the system has them.
   Where the allocator is malloc, blocks of at least one large page are mapped by themselves: what malloc
   hands out again has small pages already. Freed by kvi_free_huge, with the same size. */
#define KVI_HUGE_PAGE ((size_t)2 << 20)
#if KVI_OS_POSIX && !defined(KV_NO_MALLOC) && !defined(KV_DEFAULT_RESIZE) && (defined(MAP_ANONYMOUS) || defined(__linux__) || defined(MAP_ANON))
#define KVI_MAP_HUGE 1
#if defined(MAP_ANONYMOUS)
#define KVI_MAP_ANONYMOUS MAP_ANONYMOUS
#elif defined(MAP_ANON)
#define KVI_MAP_ANONYMOUS MAP_ANON
#elif defined(__mips__)
#define KVI_MAP_ANONYMOUS 0x800
#else
#define KVI_MAP_ANONYMOUS 0x20      /* hidden by -std=c99, and as fixed as an ABI can be */
#endif
#else
#define KVI_MAP_HUGE 0
#endif
#if KVI_MAP_HUGE
KVI_PRIVATE void *kvi_map_huge(size_t size)     /* one page more, and then its ends cut off, so that it begins at a multiple */
{
    size_t   whole = size + KVI_HUGE_PAGE, before;
    uint8_t *start;
    void    *memory;
    if (whole < size) return NULL;
    memory = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | KVI_MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    start = (uint8_t *)memory;
    before = (KVI_HUGE_PAGE - ((uintptr_t)start & (KVI_HUGE_PAGE - 1))) & (KVI_HUGE_PAGE - 1);
    if (before) (void)munmap(memory, before);
    if (before < KVI_HUGE_PAGE) (void)munmap(start + before + size, KVI_HUGE_PAGE - before);
    kvi_advise_huge(start + before, size);
    return start + before;
}
#endif
KVI_INLINE bool kvi_is_huge(const kv_allocator *a, size_t size) { return KVI_MAP_HUGE && (!a || !a->resize) && size >= KVI_HUGE_PAGE && size % KVI_HUGE_PAGE == 0; }
KVI_PRIVATE void *kvi_alloc_huge(const kv_allocator *a, size_t size)
{
    void *memory;
#if KVI_MAP_HUGE
    if (kvi_is_huge(a, size)) return kvi_map_huge(size);
#endif
    memory = kvi_alloc(a, size);
    if (memory && size >= KVI_HUGE_PAGE) kvi_advise_huge(memory, size);
    return memory;
}
KVI_PRIVATE void kvi_free_huge(const kv_allocator *a, void *memory, size_t size)
{
#if KVI_MAP_HUGE
    if (kvi_is_huge(a, size)) { if (memory) (void)munmap(memory, size); return; }
#endif
    kvi_free(a, memory, size);
}

KVI_PRIVATE kv_allocator kvi_allocator_or_default(const kv_allocator *a)
{
    kv_allocator none = { NULL, NULL };
    return a ? *a : none;
}

KVI_CORE kv_buf kv_buf_fixed(void *memory, size_t capacity)
{
    kv_buf b;
    memset(&b, 0, sizeof b);
    b.data = memory;
    b.capacity = memory ? capacity : 0;
    b.fixed = true;
    return b;
}

KVI_CORE kv_status kv_buf_reserve(kv_buf *b, size_t capacity)
{
    void *grown;
    if (!b) return KV_ERR_INVALID;
    if (capacity <= b->capacity) return KV_OK;
    if (b->fixed) { b->size = capacity; return KV_ERR_TOO_LARGE; }
    grown = kvi_resize(&b->allocator, b->data, b->capacity, capacity);
    if (!grown) return KV_ERR_NO_MEMORY;
    b->data = grown;
    b->capacity = capacity;
    return KV_OK;
}

/* reserve, where `bytes` may lie in b and must then follow it when it moves */
KVI_PRIVATE kv_status kvi_buf_reserve_keeping(kv_buf *b, size_t capacity, kv_slice *bytes)
{
    uintptr_t start = (uintptr_t)b->data, at = (uintptr_t)bytes->data;
    bool      inside = b->data && bytes->data && at >= start && at < start + b->capacity;
    kv_status s = kv_buf_reserve(b, capacity);
    if (s == KV_OK && inside) bytes->data = (const uint8_t *)b->data + (at - start);
    return s;
}

KVI_CORE kv_status kv_buf_assign(kv_buf *b, kv_slice bytes)
{
    kv_status s;
    if (!b || (!bytes.data && bytes.size)) return KV_ERR_INVALID;
    s = bytes.size > b->capacity ? kvi_buf_reserve_keeping(b, bytes.size, &bytes) : KV_OK;
    if (s < 0) return s;
    kvi_move(b->data, bytes.data, bytes.size);
    b->size = bytes.size;
    return KV_OK;
}

KVI_CORE kv_status kv_buf_append(kv_buf *b, kv_slice bytes)
{
    size_t    needed, capacity;
    kv_status s;
    if (!b || (!bytes.data && bytes.size)) return KV_ERR_INVALID;
    if (bytes.size > SIZE_MAX - b->size) return KV_ERR_NO_MEMORY;
    needed = b->size + bytes.size;
    if (needed > b->capacity) {
        capacity = b->capacity < SIZE_MAX / 2 ? b->capacity * 2 : needed;
        if (capacity < 32) capacity = 32;
        if (capacity < needed || b->fixed) capacity = needed;
        s = kvi_buf_reserve_keeping(b, capacity, &bytes);
        if (s < 0) return s;
    }
    if (bytes.size) memmove((uint8_t *)b->data + b->size, bytes.data, bytes.size);
    b->size = needed;
    return KV_OK;
}

KVI_CORE kv_slice kv_buf_slice(const kv_buf *b)
{
    kv_slice s = { NULL, 0 };
    if (b) { s.data = b->data; s.size = b->size; }
    return s;
}

KVI_CORE void kv_buf_free(kv_buf *b)
{
    if (!b) return;
    b->size = 0;
    if (b->fixed) return;
    kvi_free(&b->allocator, b->data, b->capacity);
    b->data = NULL;
    b->capacity = 0;
}

/* ------------------------------------------------------------------------------------------------
   >>arena   fixed memory

   The memory is a row of blocks that touch. A block is a header word, and then what was asked for;
   a free block keeps two links there, and its size once more in its last word:

       used   | size + FLAGS | payload ...                              |
       free   | size + FLAGS | next | prev | ...              | size    |
       end    | 0 + USED     |                       the sentinel that stops merging

   Sizes count the header and are multiples of KVI_ARENA_UNIT. FLAGS: bit 0, this block is used; bit 1,
   the block before it is used (so a free block before is found by the word in front of the header).
   Invariant A1: no two free blocks touch. A2: a free block of n units is in bin floor(log2(n)).     */

#define KVI_ARENA_UNIT ((size_t)(2 * sizeof(void *)))       /* 16 bytes on machines of 64 bits: also the alignment */
#define KVI_ARENA_WORD sizeof(size_t)
#define KVI_ARENA_USED ((size_t)1)
#define KVI_ARENA_USED_BEFORE ((size_t)2)
#define KVI_ARENA_FLAGS ((size_t)3)
#define KVI_ARENA_SMALLEST (4 * KVI_ARENA_WORD)             /* header, two links, trailing size */

typedef struct kvi_arena_block {
    size_t header;
    struct kvi_arena_block *next, *prev;                    /* in its bin, while free */
} kvi_arena_block;

KVI_INLINE size_t kvi_arena_size(const kvi_arena_block *b) { return b->header & ~KVI_ARENA_FLAGS; }
KVI_INLINE kvi_arena_block *kvi_arena_after(kvi_arena_block *b) { return (kvi_arena_block *)(void *)((unsigned char *)b + kvi_arena_size(b)); }
KVI_INLINE kvi_arena_block *kvi_arena_before(kvi_arena_block *b)   /* only where the block before is free */
{
    size_t size;
    memcpy(&size, (unsigned char *)b - KVI_ARENA_WORD, sizeof size);
    return (kvi_arena_block *)(void *)((unsigned char *)b - size);
}
KVI_INLINE uint32_t kvi_arena_bin(size_t size)
{
    size_t   units = size / KVI_ARENA_UNIT;
    uint32_t bin = kvi_highest_bit64((uint64_t)units);
    return bin < 31 ? bin : 31;
}

KVI_PRIVATE void kvi_arena_put(kv_arena *arena, kvi_arena_block *b, size_t size)   /* b becomes a free block */
{
    uint32_t         bin = kvi_arena_bin(size);
    kvi_arena_block *first = (kvi_arena_block *)arena->bins[bin];
    b->header = size | KVI_ARENA_USED_BEFORE;               /* by A1 the block before is used */
    memcpy((unsigned char *)b + size - KVI_ARENA_WORD, &size, sizeof size);
    b->prev = NULL;
    b->next = first;
    if (first) first->prev = b;
    arena->bins[bin] = b;
    arena->bin_map |= UINT32_C(1) << bin;
    kvi_arena_after(b)->header &= ~KVI_ARENA_USED_BEFORE;
}
KVI_PRIVATE void kvi_arena_take(kv_arena *arena, kvi_arena_block *b)               /* out of its bin */
{
    uint32_t bin = kvi_arena_bin(kvi_arena_size(b));
    if (b->next) b->next->prev = b->prev;
    if (b->prev) b->prev->next = b->next;
    else if ((arena->bins[bin] = b->next) == NULL) arena->bin_map &= ~(UINT32_C(1) << bin);
}
/* b, of `size` bytes and out of every bin, becomes used: `wanted` bytes of it, the rest goes back. */
KVI_PRIVATE void kvi_arena_use(kv_arena *arena, kvi_arena_block *b, size_t size, size_t wanted)
{
    size_t before = b->header & KVI_ARENA_USED_BEFORE;
    size_t rest = size - wanted;
    if (rest < KVI_ARENA_SMALLEST) { wanted = size; rest = 0; }
    b->header = wanted | before | KVI_ARENA_USED;
    if (!rest) { kvi_arena_after(b)->header |= KVI_ARENA_USED_BEFORE; return; }
    b = kvi_arena_after(b);
    kvi_arena_put(arena, b, rest);
}

KVI_PRIVATE size_t kvi_arena_wanted(size_t payload)   /* bytes of a block for it; 0: too much */
{
    size_t size;
    if (payload > SIZE_MAX / 2) return 0;
    size = (payload + KVI_ARENA_WORD + KVI_ARENA_UNIT - 1) / KVI_ARENA_UNIT * KVI_ARENA_UNIT;
    return size < KVI_ARENA_SMALLEST ? KVI_ARENA_SMALLEST : size;
}

/* The bin of the size itself may hold blocks that are too small: search it first-fit. In any bin
   above it the first block fits. */
KVI_PRIVATE kvi_arena_block *kvi_arena_find(kv_arena *arena, size_t wanted)
{
    uint32_t         bin = kvi_arena_bin(wanted), above;
    kvi_arena_block *b = (kvi_arena_block *)arena->bins[bin];
    for (; b; b = b->next) if (kvi_arena_size(b) >= wanted) return b;
    above = bin < 31 ? arena->bin_map & ~((UINT32_C(2) << bin) - 1) : 0;
    return above ? (kvi_arena_block *)arena->bins[kvi_lowest_bit32(above)] : NULL;
}

KVI_PRIVATE void kvi_arena_count(kv_arena *arena, size_t more, size_t less)
{
    arena->used_bytes = arena->used_bytes + more - less;
    if (arena->used_bytes > arena->peak_bytes) arena->peak_bytes = arena->used_bytes;
}

KVI_PRIVATE void *kvi_arena_alloc(kv_arena *arena, size_t payload)
{
    size_t           wanted = kvi_arena_wanted(payload);
    kvi_arena_block *b = wanted && arena->bin_map ? kvi_arena_find(arena, wanted) : NULL;
    if (!b) return NULL;
    kvi_arena_take(arena, b);
    kvi_arena_use(arena, b, kvi_arena_size(b), wanted);
    kvi_arena_count(arena, kvi_arena_size(b), 0);
    return (unsigned char *)b + KVI_ARENA_WORD;
}

KVI_PRIVATE void kvi_arena_release(kv_arena *arena, void *payload)
{
    kvi_arena_block *b = (kvi_arena_block *)(void *)((unsigned char *)payload - KVI_ARENA_WORD), *after = kvi_arena_after(b);
    size_t           size = kvi_arena_size(b);
    KV_ASSERT(b->header & KVI_ARENA_USED);
    kvi_arena_count(arena, 0, size);
    if (!(after->header & KVI_ARENA_USED)) { kvi_arena_take(arena, after); size += kvi_arena_size(after); }
    if (!(b->header & KVI_ARENA_USED_BEFORE)) {
        b = kvi_arena_before(b);
        kvi_arena_take(arena, b);
        size += kvi_arena_size(b);
    }
    kvi_arena_put(arena, b, size);
}

/* Change the size in place where the block, with a free one after it, is large enough; else move. */
KVI_PRIVATE void *kvi_arena_move(kv_arena *arena, void *payload, size_t old_payload, size_t new_payload)
{
    kvi_arena_block *b = (kvi_arena_block *)(void *)((unsigned char *)payload - KVI_ARENA_WORD), *after = kvi_arena_after(b);
    size_t           wanted = kvi_arena_wanted(new_payload), size = kvi_arena_size(b), room = size;
    void            *moved;
    if (!wanted) return NULL;
    if (!(after->header & KVI_ARENA_USED)) room += kvi_arena_size(after);
    if (wanted <= room) {
        if (room > size) kvi_arena_take(arena, after);
        kvi_arena_use(arena, b, room, wanted);
        kvi_arena_count(arena, kvi_arena_size(b), size);
        return payload;
    }
    moved = kvi_arena_alloc(arena, new_payload);
    if (!moved) return NULL;
    memcpy(moved, payload, old_payload < new_payload ? old_payload : new_payload);
    kvi_arena_release(arena, payload);
    return moved;
}

KVI_PRIVATE void *kvi_arena_resize(void *user, void *memory, size_t old_size, size_t new_size)
{
    kv_arena *arena = (kv_arena *)user;
    void     *result = NULL;
    kvi_spin_lock(&arena->lock);
    if (!memory) result = new_size ? kvi_arena_alloc(arena, new_size) : NULL;
    else if (!new_size) kvi_arena_release(arena, memory);
    else result = kvi_arena_move(arena, memory, old_size, new_size);
    kvi_spin_unlock(&arena->lock);
    return result;
}

KVI_CORE kv_allocator kv_arena_init(kv_arena *arena, void *memory, size_t size)
{
    kv_allocator a;
    uintptr_t    start, end;
    a.resize = kvi_arena_resize;
    a.user = arena;
    if (!arena) { a.resize = NULL; return a; }
    memset(arena, 0, sizeof *arena);
    /* headers lie one word before a unit, so that payloads lie on one */
    start = ((uintptr_t)memory + KVI_ARENA_WORD + KVI_ARENA_UNIT - 1) / KVI_ARENA_UNIT * KVI_ARENA_UNIT - KVI_ARENA_WORD;
    end = ((uintptr_t)memory + size) / KVI_ARENA_UNIT * KVI_ARENA_UNIT;
    end = end >= KVI_ARENA_WORD ? end - KVI_ARENA_WORD : 0;                 /* here is the sentinel's header */
    if (!memory || end < start + KVI_ARENA_SMALLEST) return a;
    arena->start = (unsigned char *)memory + (start - (uintptr_t)memory);
    arena->end = (unsigned char *)memory + (end - (uintptr_t)memory);
    ((kvi_arena_block *)(void *)arena->end)->header = KVI_ARENA_USED;
    kvi_arena_put(arena, (kvi_arena_block *)(void *)arena->start, (size_t)(end - start));
    return a;
}

/* ------------------------------------------------------------------------------------------------
   >>slice   comparing and checking                                                                */

KVI_CORE kv_slice kv_bytes(const void *data, size_t size)
{
    kv_slice s;
    s.data = data;
    s.size = size;
    return s;
}
KVI_CORE kv_slice kv_cstr(const char *text) { return kv_bytes(text, text ? strlen(text) : 0); }
KVI_CORE int  kv_compare(kv_slice a, kv_slice b) { return kvi_compare(a, b); }
KVI_CORE bool kv_equal(kv_slice a, kv_slice b) { return a.size == b.size && kvi_same_bytes(a.data, b.data, a.size); }
KVI_CORE bool kv_has_prefix(kv_slice key, kv_slice prefix)
{
    return key.size >= prefix.size && kvi_same_bytes(key.data, prefix.data, prefix.size);
}
KVI_CORE kv_status kv_check_key(kv_slice key)
{
    if (key.size > KV_KEY_SIZE_MAX) return KV_ERR_TOO_LARGE;
    return key.data || !key.size ? KV_OK : KV_ERR_INVALID;
}
KVI_CORE kv_status kv_check_value(kv_slice value)
{
    if (value.size > KV_VALUE_SIZE_MAX) return KV_ERR_TOO_LARGE;
    return value.data || !value.size ? KV_OK : KV_ERR_INVALID;
}

/* ------------------------------------------------------------------------------------------------
   >>range   a kv_range as two bounds, which is how every ordered store works with it

   A prefix is the same as: from the prefix itself, up to the smallest key behind everything that
   begins so, which is the prefix without its trailing 0xFF bytes and with its last byte increased.
   A prefix of nothing but 0xFF has nothing behind it.                                             */

typedef struct kvi_bounds {
    kv_slice lower, upper;      /* lower <= key, and key < upper where has_upper */
    bool     has_upper, empty;  /* empty: no key can be inside */
} kvi_bounds;

/* How many bytes of the prefix its upper bound has; 0: there is none. */
KVI_PRIVATE size_t kvi_prefix_end_size(kv_slice prefix)
{
    const uint8_t *b = (const uint8_t *)prefix.data;
    size_t         size = prefix.size;
    while (size && b[size - 1] == 0xFF) size--;
    return size;
}

/* The bounds of `range`, as slices of it, but for the prefix's end, which is written to `memory`
   (kvi_bounds_memory says how much that takes). */
KVI_PRIVATE size_t kvi_bounds_memory(const kv_range *range) { return range ? kvi_prefix_end_size(range->prefix) : 0; }
KVI_PRIVATE kvi_bounds kvi_bounds_of(const kv_range *range, uint8_t *memory)
{
    kvi_bounds b;
    size_t     end_size;
    memset(&b, 0, sizeof b);
    if (!range) return b;
    b.lower = range->prefix;
    end_size = kvi_prefix_end_size(range->prefix);
    if (end_size) {
        memcpy(memory, range->prefix.data, end_size);
        memory[end_size - 1]++;
        b.upper.data = memory;
        b.upper.size = end_size;
        b.has_upper = true;
    }
    if (range->from.data && kvi_compare(range->from, b.lower) > 0) b.lower = range->from;
    if (range->to.data && (!b.has_upper || kvi_compare(range->to, b.upper) < 0)) { b.upper = range->to; b.has_upper = true; }
    b.empty = b.has_upper && kvi_compare(b.lower, b.upper) >= 0;
    return b;
}

KVI_PRIVATE kv_status kvi_check_range(const kv_range *range)
{
    if (!range) return KV_OK;
    if (!range->prefix.data && range->prefix.size) return KV_ERR_INVALID;
    return KV_OK;
}

KVI_CORE bool kv_range_has(const kv_range *range, kv_slice key)
{
    if (!range) return true;
    if (range->prefix.size && !kv_has_prefix(key, range->prefix)) return false;
    if (range->from.data && kvi_compare(key, range->from) < 0) return false;
    return !range->to.data || kvi_compare(key, range->to) < 0;
}

/* ------------------------------------------------------------------------------------------------
   >>store   the calls on a handle, and what they do where the store has no function of its own    */

typedef struct kvi_copy_visit { kv_buf *to; kv_status status; } kvi_copy_visit;
KVI_PRIVATE bool kvi_visit_copy(void *user, kv_slice key, kv_slice value)
{
    kvi_copy_visit *v = (kvi_copy_visit *)user;
    (void)key;
    v->status = kv_buf_assign(v->to, value);
    return false;
}
KVI_PRIVATE bool kvi_visit_nothing(void *user, kv_slice key, kv_slice value)
{
    (void)user; (void)key; (void)value;
    return false;
}

KVI_CORE kv_status kv_get(kv_store *s, kv_slice key, kv_buf *value)
{
    kvi_copy_visit copy;
    kv_status      status;
    if (!s || !value) return KV_ERR_INVALID;
    if (KVI_LIKELY(s->ops->get != NULL)) return s->ops->get(s, key, value);
    if (!s->ops->view) return KV_ERR_UNSUPPORTED;
    copy.to = value;
    copy.status = KV_OK;
    status = s->ops->view(s, key, kvi_visit_copy, &copy);
    return status == KV_OK ? copy.status : status;
}

KVI_CORE kv_status kv_view(kv_store *s, kv_slice key, kv_visit_fn visit, void *user)
{
    kv_buf    value;
    kv_status status;
    if (!s || !visit) return KV_ERR_INVALID;
    if (s->ops->view) return s->ops->view(s, key, visit, user);
    if (!s->ops->get) return KV_ERR_UNSUPPORTED;
    memset(&value, 0, sizeof value);
    status = s->ops->get(s, key, &value);
    if (status == KV_OK) (void)visit(user, key, kv_buf_slice(&value));
    kv_buf_free(&value);
    return status;
}

KVI_CORE kv_status kv_exists(kv_store *s, kv_slice key)
{
    if (!s) return KV_ERR_INVALID;
    if (s->ops->exists) return s->ops->exists(s, key);
    return kv_view(s, key, kvi_visit_nothing, NULL);
}
KVI_CORE kv_status kv_set(kv_store *s, kv_slice key, kv_slice value)
{
    if (!s) return KV_ERR_INVALID;
    return s->ops->set ? s->ops->set(s, key, value) : KV_ERR_READ_ONLY;
}
KVI_CORE kv_status kv_delete(kv_store *s, kv_slice key)
{
    if (!s) return KV_ERR_INVALID;
    return s->ops->remove ? s->ops->remove(s, key) : KV_ERR_READ_ONLY;
}

/* Where the caller wants no statuses, batches of this many are passed on with an array of ours. */
#define KVI_BATCH_STATUSES 64

KVI_CORE kv_status kv_batch_get(kv_store *s, const kv_slice *keys, size_t count, kv_buf *values, kv_status *statuses)
{
    if (!s || (count && (!keys || !values))) return KV_ERR_INVALID;
    for (size_t done = 0; done < count;) {
        kv_status  own[KVI_BATCH_STATUSES], *to = statuses ? statuses + done : own;
        size_t     n = count - done;
        kv_status  status = KV_OK;
        if (!statuses && n > KVI_BATCH_STATUSES) n = KVI_BATCH_STATUSES;
        if (s->ops->batch_get) status = s->ops->batch_get(s, keys + done, n, values + done, to);
        else for (size_t i = 0; i < n; i++) {
            to[i] = kv_get(s, keys[done + i], &values[done + i]);
            if (to[i] < 0 && status == KV_OK) status = to[i];
        }
        if (status < 0) return status;
        done += n;
    }
    return KV_OK;
}
KVI_CORE kv_status kv_batch_set(kv_store *s, const kv_pair *pairs, size_t count)
{
    if (!s || (count && !pairs)) return KV_ERR_INVALID;
    if (count && s->ops->batch_set) return s->ops->batch_set(s, pairs, count);
    for (size_t i = 0; i < count; i++) {
        kv_status status = kv_set(s, pairs[i].key, pairs[i].value);
        if (status < 0) return status;
    }
    return KV_OK;
}
KVI_CORE kv_status kv_batch_delete(kv_store *s, const kv_slice *keys, size_t count)
{
    if (!s || (count && !keys)) return KV_ERR_INVALID;
    if (count && s->ops->batch_remove) return s->ops->batch_remove(s, keys, count);
    for (size_t i = 0; i < count; i++) {
        kv_status status = kv_delete(s, keys[i]);
        if (status < 0) return status;
    }
    return KV_OK;
}

KVI_PRIVATE kv_status kvi_scan_by_cursor(kv_store *s, const kv_range *range, kv_visit_fn visit, void *user)
{
    kv_iter  *i;
    kv_status status = kv_iter_open(s, range, &i);
    if (status < 0) return status;
    while (kv_iter_valid(i) && visit(user, kv_iter_key(i), kv_iter_value(i))) kv_iter_next(i);
    status = kv_iter_status(i);
    kv_iter_close(i);
    return status;
}
KVI_CORE kv_status kv_scan(kv_store *s, const kv_range *range, kv_visit_fn visit, void *user)
{
    kv_range everything;
    if (!s || !visit || kvi_check_range(range) < 0) return KV_ERR_INVALID;
    memset(&everything, 0, sizeof everything);
    if (s->ops->scan) return s->ops->scan(s, range ? range : &everything, visit, user);
    return kvi_scan_by_cursor(s, range, visit, user);
}

KVI_PRIVATE bool kvi_visit_count(void *user, kv_slice key, kv_slice value)
{
    kv_stats *stats = (kv_stats *)user;
    stats->keys++;
    stats->key_bytes += key.size;
    stats->value_bytes += value.size;
    return true;
}
KVI_CORE kv_status kv_count(kv_store *s, const kv_range *range, uint64_t *count)
{
    kv_stats  counted;
    kv_status status;
    if (!s || !count || kvi_check_range(range) < 0) return KV_ERR_INVALID;
    if (s->ops->count) return s->ops->count(s, range, count);
    memset(&counted, 0, sizeof counted);
    status = kv_scan(s, range, kvi_visit_count, &counted);
    if (status == KV_OK) *count = counted.keys;
    return status;
}

KVI_CORE kv_status kv_flush(kv_store *s)
{
    if (!s) return KV_ERR_INVALID;
    return s->ops->flush ? s->ops->flush(s) : KV_OK;
}
KVI_CORE kv_status kv_close(kv_store *s) { return s && s->ops->close ? s->ops->close(s) : KV_OK; }
KVI_CORE kv_status kv_store_stats(kv_store *s, kv_stats *stats)
{
    kv_stats  result;
    kv_status status;
    if (!s || !stats) return KV_ERR_INVALID;
    memset(&result, 0, sizeof result);
    status = s->ops->stats ? s->ops->stats(s, &result) : kv_scan(s, NULL, kvi_visit_count, &result);
    if (status == KV_OK) *stats = result;
    return status;
}
KVI_CORE const char *kv_store_name(const kv_store *s) { return s && s->name ? s->name : ""; }
KVI_CORE const char *kv_last_error(const kv_store *s)
{
    const char *text = s && s->ops->last_error ? s->ops->last_error(s) : NULL;
    return text ? text : "";
}
KVI_CORE uint32_t kv_store_caps(const kv_store *s) { return s ? s->caps : 0; }

/* ------------------------------------------------------------------------------------------------
   >>iterate   a cursor over a range, from a store's cursor over everything

   The range is kept as bounds, and its limit as a window: the first `limit` entries in the range's
   own order. While the cursor is moved by first and next, counting is enough to stay inside; once
   somebody seeks or asks for the last entry, the window's last key is found (by walking there from
   the first entry, once) and compared.
   Invariant I1: valid means inside bounds and window. I2: position is right, or KV_NONE.          */

KVI_INLINE bool kvi_iter_inside(const kv_iter *i)
{
    if (i->has_upper && kvi_compare(i->key, i->upper) >= 0) return false;
    return kvi_compare(i->key, i->lower) >= 0;
}
/* Order of two keys as the cursor goes. */
KVI_INLINE int kvi_iter_order(const kv_iter *i, kv_slice a, kv_slice b)
{
    return i->reverse ? kvi_compare(b, a) : kvi_compare(a, b);
}
KVI_INLINE void kvi_iter_step(kv_iter *i, bool up)
{
    if (up) i->ops->next(i); else i->ops->prev(i);
    if (i->valid && !kvi_iter_inside(i)) i->valid = false;
}
KVI_PRIVATE void kvi_iter_end(kv_iter *i) { i->valid = false; i->status = KV_OK; }

/* Go to the lowest or highest entry of the bounds, or to the one at or next to `key` on the side that
   `up` leads to. */
KVI_PRIVATE void kvi_iter_to_edge(kv_iter *i, bool lowest)
{
    i->status = KV_OK;
    i->valid = false;
    if (i->empty) return;
    if (lowest) i->ops->seek(i, i->lower);
    else if (i->has_upper) i->ops->seek_before(i, i->upper);
    else i->ops->last(i);
    if (i->valid && !kvi_iter_inside(i)) i->valid = false;
}
KVI_PRIVATE void kvi_iter_to_key(kv_iter *i, kv_slice key, bool up)
{
    i->status = KV_OK;
    i->valid = false;
    if (i->empty) return;
    if (up) {
        if (kvi_compare(key, i->lower) < 0) key = i->lower;
        if (i->has_upper && kvi_compare(key, i->upper) >= 0) return;
        i->ops->seek(i, key);
    } else {
        if (kvi_compare(key, i->lower) < 0) return;
        if (i->has_upper && kvi_compare(key, i->upper) >= 0) { kvi_iter_to_edge(i, false); return; }
        i->ops->seek(i, key);                               /* key itself, or the first one above it */
        if (i->valid && kvi_compare(i->key, key) == 0) return;
        if (i->status < 0) return;
        i->ops->seek_before(i, key);
    }
    if (i->valid && !kvi_iter_inside(i)) i->valid = false;
}

/* Find the window's last key: walk `limit` entries from the first. Leaves the cursor there. */
KVI_PRIVATE void kvi_iter_find_window(kv_iter *i)
{
    size_t seen = 1;
    kvi_iter_to_edge(i, !i->reverse);
    if (!i->valid) return;
    while (seen < i->limit) {
        kvi_iter_step(i, !i->reverse);
        if (!i->valid) {                                    /* fewer than limit: the range's own end */
            if (i->status == KV_OK) kvi_iter_to_edge(i, i->reverse);
            break;
        }
        seen++;
    }
    if (i->valid) {
        kv_status s = kv_buf_assign(&i->window, i->key);
        if (s < 0) { i->valid = false; i->status = s; return; }
        i->has_window = true;
        i->position = seen - 1;
    }
}

KVI_CORE kv_status kv_iter_start(kv_iter *i, const kv_range *range)
{
    kvi_bounds b;
    uint8_t   *memory;
    kv_status  s;
    size_t     end_size;
    if (!i || kvi_check_range(range) < 0) return KV_ERR_INVALID;
    i->bounds.allocator = i->window.allocator = i->allocator;
    if (range) {
        /* lower, upper and the prefix's end, one behind the other: the caller's slices may die */
        end_size = kvi_bounds_memory(range);
        s = kv_buf_reserve(&i->bounds, 2 * end_size + range->prefix.size + (range->from.data ? range->from.size : 0)
                                       + (range->to.data ? range->to.size : 0) + 1);
        if (s < 0) return s;
        memory = (uint8_t *)i->bounds.data;
        b = kvi_bounds_of(range, memory);
        i->lower.data = memory + end_size;
        i->lower.size = b.lower.size;
        kvi_copy(memory + end_size, b.lower.data, b.lower.size);
        i->upper.data = memory + end_size + b.lower.size;
        i->upper.size = b.upper.size;
        kvi_copy(memory + end_size + b.lower.size, b.upper.data, b.upper.size);
        i->has_upper = b.has_upper;
        i->empty = b.empty;
        i->limit = range->limit;
        i->reverse = range->reverse;
    }
    kv_iter_first(i);
    return i->status < 0 ? i->status : KV_OK;
}

KVI_CORE kv_status kv_iter_open(kv_store *s, const kv_range *range, kv_iter **iter)
{
    kv_status status;
    if (!s || !iter) return KV_ERR_INVALID;
    *iter = NULL;
    if (!s->ops->iter_open) return KV_ERR_UNSUPPORTED;
    status = s->ops->iter_open(s, iter);
    if (status < 0) return status;
    status = kv_iter_start(*iter, range);
    if (status < 0) { kv_iter_close(*iter); *iter = NULL; }
    return status;
}

KVI_CORE void kv_iter_first(kv_iter *i)
{
    if (!i) return;
    kvi_iter_to_edge(i, !i->reverse);
    i->position = 0;
}
KVI_CORE void kv_iter_last(kv_iter *i)
{
    if (!i) return;
    i->position = KV_NONE;
    if (!i->limit) { kvi_iter_to_edge(i, i->reverse); return; }
    if (!i->has_window) { kvi_iter_find_window(i); return; }
    kvi_iter_to_key(i, kv_buf_slice(&i->window), i->reverse);   /* it, or what is left before it */
}
KVI_PRIVATE void kvi_iter_seek(kv_iter *i, kv_slice key)
{
    if (i->limit && !i->has_window) {
        kvi_iter_find_window(i);
        if (!i->valid) return;
    }
    kvi_iter_to_key(i, key, !i->reverse);
    i->position = KV_NONE;
    if (i->valid && i->has_window && kvi_iter_order(i, i->key, kv_buf_slice(&i->window)) > 0) kvi_iter_end(i);
}
KVI_CORE void kv_iter_seek(kv_iter *i, kv_slice key)
{
    uintptr_t at = (uintptr_t)key.data, own;
    kv_buf    copy;
    kv_status s;
    if (!i) return;
    own = (uintptr_t)i->key.data;
    if (!i->valid || at < own || at >= own + i->key.size) { kvi_iter_seek(i, key); return; }
    /* a part of the cursor's own key, which the first move would change under us */
    memset(&copy, 0, sizeof copy);
    copy.allocator = i->allocator;
    s = kv_buf_assign(&copy, key);
    if (s == KV_OK) kvi_iter_seek(i, kv_buf_slice(&copy));
    else { i->valid = false; i->status = s; }
    kv_buf_free(&copy);
}
KVI_CORE void kv_iter_next(kv_iter *i)
{
    if (!i || !i->valid) return;
    if (KVI_UNLIKELY(i->limit != 0)) {
        if (i->position != KV_NONE) {
            if (i->position + 1 >= i->limit) { kvi_iter_end(i); return; }
            i->position++;
        }
        kvi_iter_step(i, !i->reverse);
        if (i->valid && i->position == KV_NONE && kvi_iter_order(i, i->key, kv_buf_slice(&i->window)) > 0) kvi_iter_end(i);
        return;
    }
    kvi_iter_step(i, !i->reverse);
}
KVI_CORE void kv_iter_prev(kv_iter *i)
{
    if (!i || !i->valid) return;
    if (i->position != KV_NONE) i->position = i->position ? i->position - 1 : 0;
    kvi_iter_step(i, i->reverse);
}
KVI_CORE bool     kv_iter_valid(const kv_iter *i) { return i && i->valid; }
KVI_CORE kv_slice kv_iter_key(const kv_iter *i) { return i && i->valid ? i->key : kv_bytes(NULL, 0); }
KVI_CORE kv_slice kv_iter_value(const kv_iter *i)
{
    if (!i || !i->valid) return kv_bytes(NULL, 0);
    return i->ops->value ? i->ops->value((kv_iter *)(uintptr_t)i) : i->value;
}
KVI_CORE kv_status kv_iter_status(const kv_iter *i) { return i ? i->status : KV_ERR_INVALID; }
KVI_CORE void kv_iter_close(kv_iter *i)
{
    if (!i) return;
    kv_buf_free(&i->bounds);
    kv_buf_free(&i->window);
    i->ops->close(i);
}

/* ------------------------------------------------------------------------------------------------
   >>typed   one byte of type before the bytes                                                     */

#define KVI_TYPED_SCALAR_MAX 9      /* bytes of an encoded number */

/* Bytes of a number's encoding, written to out; 0 for the types that carry bytes, and for no type. */
KVI_PRIVATE size_t kvi_value_encode_scalar(const kv_value *v, uint8_t *out)
{
    uint64_t bits = 0;
    out[0] = (uint8_t)v->type;
    switch (v->type) {
    case KV_INT64:   bits = (uint64_t)v->as.int64; break;
    case KV_FLOAT64: memcpy(&bits, &v->as.float64, sizeof bits); break;
    case KV_BOOL:    out[1] = v->as.boolean ? 1 : 0; return 2;
    default:         return 0;
    }
    kvi_store_le64(out + 1, bits);
    return KVI_TYPED_SCALAR_MAX;
}

KVI_CORE kv_status kv_value_encode(const kv_value *v, kv_buf *out)
{
    uint8_t   scalar[KVI_TYPED_SCALAR_MAX];
    kv_slice  bytes;
    kv_status s;
    size_t    size;
    if (!v || !out) return KV_ERR_INVALID;
    size = kvi_value_encode_scalar(v, scalar);
    if (size) return kv_buf_assign(out, kv_bytes(scalar, size));
    if (v->type != KV_STRING && v->type != KV_BYTES) return KV_ERR_INVALID;
    bytes = v->as.bytes;
    if (!bytes.data && bytes.size) return KV_ERR_INVALID;
    if (bytes.size > KV_VALUE_SIZE_MAX - 1) return KV_ERR_TOO_LARGE;
    s = kvi_buf_reserve_keeping(out, bytes.size + 1, &bytes);
    if (s < 0) return s;
    kvi_move((uint8_t *)out->data + 1, bytes.data, bytes.size);
    *(uint8_t *)out->data = (uint8_t)v->type;
    out->size = bytes.size + 1;
    return KV_OK;
}

KVI_CORE kv_status kv_value_decode(kv_slice encoded, kv_value *v)
{
    const uint8_t *b = (const uint8_t *)encoded.data;
    kv_value       result;
    uint64_t       bits;
    if (!v || (!b && encoded.size)) return KV_ERR_INVALID;
    if (!encoded.size) return KV_ERR_CORRUPT;
    memset(&result, 0, sizeof result);
    switch (b[0]) {
    case KV_INT64:
    case KV_FLOAT64:
        if (encoded.size != KVI_TYPED_SCALAR_MAX) return KV_ERR_CORRUPT;
        bits = kvi_load_le64(b + 1);
        if (b[0] == KV_INT64) memcpy(&result.as.int64, &bits, sizeof bits);
        else memcpy(&result.as.float64, &bits, sizeof bits);
        break;
    case KV_BOOL:
        if (encoded.size != 2 || b[1] > 1) return KV_ERR_CORRUPT;
        result.as.boolean = b[1] == 1;
        break;
    case KV_STRING:
    case KV_BYTES:
        result.as.bytes = kv_bytes(b + 1, encoded.size - 1);
        break;
    default:
        return KV_ERR_CORRUPT;
    }
    result.type = (kv_type)b[0];
    *v = result;
    return KV_OK;
}

KVI_CORE kv_status kv_set_value(kv_store *s, kv_slice key, const kv_value *v)
{
    uint8_t   scalar[KVI_TYPED_SCALAR_MAX];
    kv_buf    encoded;
    kv_status status;
    size_t    size;
    if (!s || !v) return KV_ERR_INVALID;
    size = kvi_value_encode_scalar(v, scalar);
    if (size) return kv_set(s, key, kv_bytes(scalar, size));
    memset(&encoded, 0, sizeof encoded);
    status = kv_value_encode(v, &encoded);
    if (status == KV_OK) status = kv_set(s, key, kv_buf_slice(&encoded));
    kv_buf_free(&encoded);
    return status;
}

KVI_CORE kv_status kv_get_value(kv_store *s, kv_slice key, kv_value *v, kv_buf *storage)
{
    kv_status status;
    if (!s || !v || !storage) return KV_ERR_INVALID;
    status = kv_get(s, key, storage);
    if (status != KV_OK) return status;
    return kv_value_decode(kv_buf_slice(storage), v) == KV_OK ? KV_OK : KV_ERR_WRONG_TYPE;
}

/* A typed get of one type: a number goes to *v, bytes to *bytes. */
typedef struct kvi_typed_visit { kv_type wanted; kv_value v; kv_buf *bytes; kv_status status; } kvi_typed_visit;
KVI_PRIVATE bool kvi_visit_typed(void *user, kv_slice key, kv_slice value)
{
    kvi_typed_visit *t = (kvi_typed_visit *)user;
    (void)key;
    if (kv_value_decode(value, &t->v) < 0 || t->v.type != t->wanted) t->status = KV_ERR_WRONG_TYPE;
    else if (t->bytes) t->status = kv_buf_assign(t->bytes, t->v.as.bytes);
    return false;
}
KVI_PRIVATE kv_status kvi_get_typed(kv_store *s, kv_slice key, kvi_typed_visit *t)
{
    kv_status status = kv_view(s, key, kvi_visit_typed, t);
    return status == KV_OK ? t->status : status;
}
KVI_PRIVATE kvi_typed_visit kvi_typed_wanted(kv_type wanted, kv_buf *bytes)
{
    kvi_typed_visit t;
    memset(&t, 0, sizeof t);
    t.wanted = wanted;
    t.bytes = bytes;
    return t;
}
KVI_PRIVATE kv_value kvi_value_bytes(kv_type type, kv_slice bytes)
{
    kv_value v;
    memset(&v, 0, sizeof v);
    v.type = type;
    v.as.bytes = bytes;
    return v;
}

KVI_CORE kv_status kv_set_int64(kv_store *s, kv_slice key, int64_t n)
{
    kv_value v;
    v.type = KV_INT64;
    v.as.int64 = n;
    return kv_set_value(s, key, &v);
}
KVI_CORE kv_status kv_get_int64(kv_store *s, kv_slice key, int64_t *n)
{
    kvi_typed_visit t = kvi_typed_wanted(KV_INT64, NULL);
    kv_status       status = n ? kvi_get_typed(s, key, &t) : KV_ERR_INVALID;
    if (status == KV_OK) *n = t.v.as.int64;
    return status;
}
KVI_CORE kv_status kv_set_float64(kv_store *s, kv_slice key, double n)
{
    kv_value v;
    v.type = KV_FLOAT64;
    v.as.float64 = n;
    return kv_set_value(s, key, &v);
}
KVI_CORE kv_status kv_get_float64(kv_store *s, kv_slice key, double *n)
{
    kvi_typed_visit t = kvi_typed_wanted(KV_FLOAT64, NULL);
    kv_status       status = n ? kvi_get_typed(s, key, &t) : KV_ERR_INVALID;
    if (status == KV_OK) *n = t.v.as.float64;
    return status;
}
KVI_CORE kv_status kv_set_bool(kv_store *s, kv_slice key, bool b)
{
    kv_value v;
    v.type = KV_BOOL;
    v.as.boolean = b;
    return kv_set_value(s, key, &v);
}
KVI_CORE kv_status kv_get_bool(kv_store *s, kv_slice key, bool *b)
{
    kvi_typed_visit t = kvi_typed_wanted(KV_BOOL, NULL);
    kv_status       status = b ? kvi_get_typed(s, key, &t) : KV_ERR_INVALID;
    if (status == KV_OK) *b = t.v.as.boolean;
    return status;
}
KVI_CORE kv_status kv_set_string(kv_store *s, kv_slice key, kv_slice text)
{
    kv_value v = kvi_value_bytes(KV_STRING, text);
    return kv_set_value(s, key, &v);
}
KVI_CORE kv_status kv_get_string(kv_store *s, kv_slice key, kv_buf *text)
{
    kvi_typed_visit t = kvi_typed_wanted(KV_STRING, text);
    return text ? kvi_get_typed(s, key, &t) : KV_ERR_INVALID;
}
KVI_CORE kv_status kv_set_bytes(kv_store *s, kv_slice key, kv_slice bytes)
{
    kv_value v = kvi_value_bytes(KV_BYTES, bytes);
    return kv_set_value(s, key, &v);
}
KVI_CORE kv_status kv_get_bytes(kv_store *s, kv_slice key, kv_buf *bytes)
{
    kvi_typed_visit t = kvi_typed_wanted(KV_BYTES, bytes);
    return bytes ? kvi_get_typed(s, key, &t) : KV_ERR_INVALID;
}

/* ------------------------------------------------------------------------------------------------
   >>files   the operating system's files behind a kv_io

   POSIX. Files are made 0600 and directories 0700, opened close-on-exec, and never sit on
   descriptors 0 to 2, where a stray message would land in them. Directories are synced by opening
   them. A lock is an open-file-description lock where the system has them: it holds against a second
   open in the same process too, and closing another descriptor of the file does not drop it. On
   32-bit glibc files end at 2 GiB (KV_ERR_TOO_LARGE) unless you compile with -D_FILE_OFFSET_BITS=64.
   WASI. The same calls, without maps and without locks: a lock is only the file being there.       */

#if KVI_FILES && (KVI_OS_POSIX || KVI_OS_WASI)
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>      /* rename, and nothing else of it */
#include <sys/stat.h>
#if defined(__linux__)
#include <sys/statfs.h>
#include <sys/syscall.h>
#endif
#if defined(__linux__) && defined(__GLIBC__) && defined(__LP64__)      /* an offset is one argument */
#define KVI_RAW_CALLS 1
#else
#define KVI_RAW_CALLS 0
#endif

#ifdef O_CLOEXEC
#define KVI_O_CLOEXEC O_CLOEXEC
#elif defined(__linux__)
#define KVI_O_CLOEXEC 02000000
#else
#define KVI_O_CLOEXEC 0
#endif
#ifdef O_DIRECTORY
#define KVI_O_DIRECTORY O_DIRECTORY
#else
#define KVI_O_DIRECTORY 0
#endif
#ifdef O_NOFOLLOW
#define KVI_O_NOFOLLOW O_NOFOLLOW
#else
#define KVI_O_NOFOLLOW 0
#endif
#ifdef F_OFD_SETLK
#define KVI_F_SETLK F_OFD_SETLK
#elif defined(__linux__)
#define KVI_F_SETLK 37
#else
#define KVI_F_SETLK F_SETLK
#endif

/* A kv_file is its descriptor in a pointer, plus 1 so that it is never NULL. */
KVI_INLINE kv_file *kvi_posix_file(int fd) { return (kv_file *)(uintptr_t)((unsigned)fd + 1u); }
KVI_INLINE int kvi_posix_fd(kv_file *file) { return (int)((uintptr_t)file - 1u); }

KVI_PRIVATE kv_status kvi_posix_status(int error)
{
    switch (error) {
    case ENOENT: return KV_NOT_FOUND;
    case EEXIST: return KV_EXISTS;
    case ENOMEM: return KV_ERR_NO_MEMORY;
    case ENOSPC:
#ifdef EDQUOT
    case EDQUOT:
#endif
        return KV_ERR_NO_SPACE;
    case EFBIG:  return KV_ERR_TOO_LARGE;
    default:     return KV_ERR_IO;
    }
}

#if KVI_OS_WASI
KVI_PRIVATE int kvi_posix_open_fd(const char *path, int flags, unsigned mode) { return open(path, flags, mode); }
#else
/* open that repeats after a signal and moves away from descriptors 0 to 2 */
KVI_PRIVATE int kvi_posix_open_fd(const char *path, int flags, unsigned mode)
{
    int fd, moved, error;
    do fd = open(path, flags | KVI_O_CLOEXEC | O_NOCTTY, mode); while (fd < 0 && errno == EINTR);
    if (fd < 0 || fd > 2) return fd;
#ifdef F_DUPFD_CLOEXEC
    moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
#else
    moved = fcntl(fd, F_DUPFD, 3);
#endif
    error = errno;
    close(fd);
    errno = error;
    return moved;
}
#endif

KVI_PRIVATE kv_status kvi_posix_open(void *user, const char *path, uint32_t flags, kv_file **file)
{
    int         how = flags & KV_OPEN_WRITE ? O_RDWR : O_RDONLY, fd, error;
    struct stat info;
    (void)user;
    if (flags & KV_OPEN_CREATE) how |= O_CREAT;
    if (flags & KV_OPEN_EXCLUSIVE) how |= O_EXCL;
    if (flags & KV_OPEN_TRUNCATE) how |= O_TRUNC;
    fd = kvi_posix_open_fd(path, how | KVI_O_NOFOLLOW | O_NONBLOCK, 0600);   /* O_NONBLOCK: a FIFO must not hang us */
    if (fd < 0) return kvi_posix_status(errno);
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        error = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
        close(fd);
        errno = error;
        return KV_ERR_IO;
    }
    *file = kvi_posix_file(fd);
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_posix_close(void *user, kv_file *file)
{
    (void)user;
    return close(kvi_posix_fd(file)) == 0 || errno == EINTR ? KV_OK : kvi_posix_status(errno);
}
KVI_PRIVATE kv_status kvi_posix_size(void *user, kv_file *file, uint64_t *size)
{
    struct stat info;
    (void)user;
    if (fstat(kvi_posix_fd(file), &info) != 0) return kvi_posix_status(errno);
    *size = (uint64_t)info.st_size;
    return KV_OK;
}
/* Can the system's offsets reach there? Not beyond 2 GiB on 32-bit glibc without -D_FILE_OFFSET_BITS=64. */
KVI_INLINE bool kvi_posix_reaches(uint64_t offset, size_t size)
{
    uint64_t end = offset + size;
    return end >= offset && (off_t)end >= 0 && (uint64_t)(off_t)end == end;
}
KVI_PRIVATE kv_status kvi_posix_read_at(void *user, kv_file *file, uint64_t offset, void *data, size_t size, size_t *got)
{
    size_t done = 0;
    (void)user;
    if (!kvi_posix_reaches(offset, 0)) size = 0;            /* no file that we could open is so large */
    while (done < size) {
        ssize_t n = pread(kvi_posix_fd(file), (char *)data + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return kvi_posix_status(errno);
        if (n == 0) break;
        done += (size_t)n;
    }
    *got = done;
    return KV_OK;
}
/* One write. pwrite is a point where a thread may be cancelled, which costs a store's log some 50 ns a
   record in a process with threads, and would leave its locks held. */
KVI_INLINE ssize_t kvi_posix_pwrite(int fd, const void *data, size_t size, off_t offset)
{
#if KVI_RAW_CALLS
    return (ssize_t)syscall(SYS_pwrite64, fd, data, size, offset);
#else
    return pwrite(fd, data, size, offset);
#endif
}
KVI_PRIVATE kv_status kvi_posix_write_at(void *user, kv_file *file, uint64_t offset, const void *data, size_t size)
{
    (void)user;
    if (!kvi_posix_reaches(offset, size)) { errno = EFBIG; return KV_ERR_TOO_LARGE; }
    for (size_t done = 0; done < size;) {
        ssize_t n = kvi_posix_pwrite(kvi_posix_fd(file), (const char *)data + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return kvi_posix_status(errno);
        if (n == 0) { errno = ENOSPC; return KV_ERR_NO_SPACE; }
        done += (size_t)n;
    }
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_posix_append(void *user, kv_file *file, const void *data, size_t size)
{
    off_t end = (lseek)(kvi_posix_fd(file), 0, SEEK_END);
    return end < 0 ? kvi_posix_status(errno) : kvi_posix_write_at(user, file, (uint64_t)end, data, size);
}
KVI_PRIVATE kv_status kvi_posix_sync(void *user, kv_file *file)
{
    int result;
    (void)user;
#if defined(__APPLE__) && defined(F_FULLFSYNC)
    result = fcntl(kvi_posix_fd(file), F_FULLFSYNC);
#elif defined(__linux__)
    result = fdatasync(kvi_posix_fd(file));
#else
    result = fsync(kvi_posix_fd(file));
#endif
    return result == 0 ? KV_OK : kvi_posix_status(errno);   /* not repeated, whatever the error: see the durability contract */
}
KVI_PRIVATE kv_status kvi_posix_rename(void *user, const char *from, const char *to)
{
    (void)user;
    return rename(from, to) == 0 ? KV_OK : kvi_posix_status(errno);
}
KVI_PRIVATE kv_status kvi_posix_remove(void *user, const char *path)
{
    (void)user;
    if (unlink(path) == 0) return KV_OK;
    if ((errno == EISDIR || errno == EPERM) && rmdir(path) == 0) return KV_OK;
    return kvi_posix_status(errno);
}
KVI_PRIVATE kv_status kvi_posix_list(void *user, const char *path, void (*each)(void *context, const char *name), void *context)
{
    DIR           *dir = opendir(path);
    struct dirent *entry;
    kv_status      s;
    (void)user;
    if (!dir) return kvi_posix_status(errno);
    for (;;) {
        errno = 0;
        entry = readdir(dir);
        if (!entry) break;
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) each(context, entry->d_name);
    }
    s = errno == 0 ? KV_OK : kvi_posix_status(errno);
    closedir(dir);
    return s;
}
KVI_PRIVATE kv_status kvi_posix_make_dir(void *user, const char *path)
{
    (void)user;
    return mkdir(path, 0700) == 0 ? KV_OK : kvi_posix_status(errno);
}
KVI_PRIVATE kv_status kvi_posix_sync_dir(void *user, const char *path)
{
    int       fd = kvi_posix_open_fd(path, O_RDONLY | KVI_O_DIRECTORY, 0);
    kv_status s;
    (void)user;
    if (fd < 0) return kvi_posix_status(errno);
    s = fsync(fd) == 0 || errno == EINVAL ? KV_OK : kvi_posix_status(errno);   /* EINVAL: this file system has no such thing */
    close(fd);
    return s;
}

#if KVI_OS_WASI
KVI_PRIVATE kv_status kvi_posix_lock(void *user, const char *path, bool shared, kv_file **lock, uint64_t *holder)
{
    *holder = 0;
    return kvi_posix_open(user, path, shared ? 0 : KV_OPEN_WRITE | KV_OPEN_CREATE, lock);
}
#else
/* The holder writes its process id into the file, for the message that others get. */
KVI_PRIVATE uint64_t kvi_posix_lock_holder(int fd)
{
    char     digits[24];
    ssize_t  n = pread(fd, digits, sizeof digits, 0);
    uint64_t pid = 0;
    for (ssize_t k = 0; k < n && digits[k] >= '0' && digits[k] <= '9'; k++) pid = pid * 10 + (uint64_t)(digits[k] - '0');
    return pid;
}
KVI_PRIVATE kv_status kvi_posix_lock(void *user, const char *path, bool shared, kv_file **lock, uint64_t *holder)
{
    struct flock how;
    char         digits[24];
    kvi_text     pid = kvi_text_over(digits, sizeof digits);
    int          fd = kvi_posix_open_fd(path, shared ? O_RDONLY | KVI_O_NOFOLLOW : O_RDWR | O_CREAT | KVI_O_NOFOLLOW, 0600), error;
    (void)user;
    *holder = 0;
    if (fd < 0) return kvi_posix_status(errno);
    memset(&how, 0, sizeof how);                            /* also l_pid, which must be 0 here */
    how.l_type = shared ? F_RDLCK : F_WRLCK;
    how.l_whence = SEEK_SET;
    if (fcntl(fd, KVI_F_SETLK, &how) != 0) {
        error = errno;
        if (error == EAGAIN || error == EACCES) *holder = kvi_posix_lock_holder(fd);
        close(fd);
        errno = error;
        return error == EAGAIN || error == EACCES ? KV_ERR_BUSY : kvi_posix_status(error);
    }
    if (!shared) {
        kvi_text_u64(&pid, (uint64_t)getpid());
        kvi_text_char(&pid, '\n');
        if (ftruncate(fd, 0) == 0) (void)kvi_posix_write_at(NULL, kvi_posix_file(fd), 0, digits, pid.size);
    }
    *lock = kvi_posix_file(fd);
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_posix_map(void *user, kv_file *file, size_t size, const void **data)
{
    void *memory;
    (void)user;
    memory = mmap(NULL, size, PROT_READ, MAP_SHARED, kvi_posix_fd(file), 0);
    if (memory == MAP_FAILED) return kvi_posix_status(errno);
    *data = memory;
    return KV_OK;
}
KVI_PRIVATE void kvi_posix_unmap(void *user, const void *data, size_t size)
{
    (void)user;
    munmap((void *)(uintptr_t)data, size);
}
#endif
#if KVI_RAW_CALLS && !KVI_OS_WASI
/* Only where room that was set aside is certain to take what is stored: ext4, XFS, tmpfs. */
KVI_PRIVATE kv_status kvi_posix_map_write(void *user, kv_file *file, uint64_t offset, size_t size, void **data)
{
    struct statfs system;
    void         *memory;
    (void)user;
    if (fstatfs(kvi_posix_fd(file), &system) != 0) return kvi_posix_status(errno);
    if (system.f_type != 0xEF53 && system.f_type != 0x58465342 && system.f_type != 0x01021994) return KV_ERR_UNSUPPORTED;
    if (syscall(SYS_fallocate, kvi_posix_fd(file), 0L, (long)offset, (long)size) != 0) return errno == EOPNOTSUPP ? KV_ERR_UNSUPPORTED : kvi_posix_status(errno);
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, kvi_posix_fd(file), (off_t)offset);
    if (memory == MAP_FAILED) return kvi_posix_status(errno);
    *data = memory;
    return KV_OK;
}
#define KVI_POSIX_MAP_WRITE kvi_posix_map_write
#else
#define KVI_POSIX_MAP_WRITE NULL
#endif
KVI_PRIVATE kv_status kvi_posix_truncate(void *user, kv_file *file, uint64_t size)
{
    (void)user;
    if (!kvi_posix_reaches(size, 0)) return KV_ERR_TOO_LARGE;
    return ftruncate(kvi_posix_fd(file), (off_t)size) == 0 ? KV_OK : kvi_posix_status(errno);
}
KVI_PRIVATE kv_status kvi_posix_link(void *user, const char *from, const char *to)
{
    (void)user;
    return link(from, to) == 0 ? KV_OK : kvi_posix_status(errno);
}
KVI_PRIVATE int kvi_posix_os_error(void *user) { (void)user; return errno; }

/* The current directory with a '/' behind it, so that a relative path stays what it was; its size, or
   0 where it cannot be told or does not fit. */
KVI_PRIVATE size_t kvi_current_directory(char *out, size_t capacity)
{
    size_t size;
    if (KVI_OS_WASI || !getcwd(out, capacity - 1)) return 0;    /* WASI: directories are given, and nobody moves */
    size = strlen(out);
    out[size++] = '/';
    return size;
}

KVI_CORE const kv_io *kv_io_default(void)
{
    static const kv_io io = {
        NULL, kvi_posix_open, kvi_posix_close, kvi_posix_size, kvi_posix_read_at, kvi_posix_append, kvi_posix_write_at,
        kvi_posix_sync, kvi_posix_rename, kvi_posix_remove, kvi_posix_list, kvi_posix_make_dir, kvi_posix_sync_dir,
#if KVI_OS_WASI
        kvi_posix_lock, kvi_posix_close, NULL, NULL, kvi_posix_link, kvi_posix_os_error, KVI_POSIX_MAP_WRITE, kvi_posix_truncate
#else
        kvi_posix_lock, kvi_posix_close, kvi_posix_map, kvi_posix_unmap, kvi_posix_link, kvi_posix_os_error, KVI_POSIX_MAP_WRITE, kvi_posix_truncate
#endif
    };
    return &io;
}

#elif KVI_FILES && KVI_OS_WINDOWS

/* Windows. Paths are UTF-8 with '/' or '\', also longer than 260 characters. Files are opened so that
   others may rename and remove them meanwhile. There is no syncing of directories that a program
   without special rights may ask for; NTFS journals its names, and renames here are written through.
   Locks of Windows forbid reading, so a lock covers one byte far behind the process id in the file. A
   file that somebody has mapped cannot be replaced or removed, one that is open cannot be replaced:
   KV_ERR_IO. An open file that is removed may keep its name until it is closed. */

#define KVI_WINDOWS_PATH 4096       /* UTF-16 units, with the prefix and the final 0 */
#define KVI_WINDOWS_TRIES 6         /* of rename and remove, against virus scanners and indexers that look at new files: 63 ms in all */
#define KVI_WINDOWS_LOCK_HIGH 0x40000000u   /* the upper half of the offset of the byte that is locked */

KVI_INLINE HANDLE kvi_windows_handle(kv_file *file) { return (HANDLE)(void *)file; }

KVI_PRIVATE kv_status kvi_windows_status(DWORD error)
{
    switch (error) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:    return KV_NOT_FOUND;
    case ERROR_FILE_EXISTS:
    case ERROR_ALREADY_EXISTS:    return KV_EXISTS;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:       return KV_ERR_NO_MEMORY;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL:
    case 1295:                    return KV_ERR_NO_SPACE;     /* ERROR_DISK_QUOTA_EXCEEDED, which older headers lack */
    case ERROR_FILE_TOO_LARGE:    return KV_ERR_TOO_LARGE;
    default:                      return KV_ERR_IO;
    }
}
KVI_PRIVATE kv_status kvi_windows_last(void) { return kvi_windows_status(GetLastError()); }

/* A path as Windows wants it: UTF-16, and from 248 characters on absolute behind a prefix that lifts
   the limit of 260. False: it is not UTF-8, or too long. */
KVI_PRIVATE bool kvi_windows_path(const char *path, WCHAR *wide)
{
    static const WCHAR prefix[4] = { '\\', '\\', '?', '\\' };
    WCHAR  full[KVI_WINDOWS_PATH];
    int    size = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, KVI_WINDOWS_PATH);
    DWORD  full_size;
    if (size <= 0) return false;
    if (size < 248 || (wide[0] == '\\' && wide[1] == '\\')) return true;
    full_size = GetFullPathNameW(wide, KVI_WINDOWS_PATH - 4, full, NULL);
    if (full_size == 0 || full_size >= KVI_WINDOWS_PATH - 4) { SetLastError(ERROR_FILENAME_EXCED_RANGE); return false; }
    memcpy(wide, prefix, sizeof prefix);
    memcpy(wide + 4, full, (full_size + 1) * sizeof(WCHAR));
    return true;
}

KVI_PRIVATE HANDLE kvi_windows_open_handle(const char *path, DWORD access, DWORD disposition, DWORD attributes)
{
    WCHAR wide[KVI_WINDOWS_PATH];
    if (!kvi_windows_path(path, wide)) return INVALID_HANDLE_VALUE;
    return CreateFileW(wide, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, disposition, attributes, NULL);
}

KVI_PRIVATE kv_status kvi_windows_open(void *user, const char *path, uint32_t flags, kv_file **file)
{
    DWORD  disposition = OPEN_EXISTING;
    HANDLE handle;
    (void)user;
    if (flags & KV_OPEN_TRUNCATE) disposition = TRUNCATE_EXISTING;
    if (flags & KV_OPEN_CREATE) disposition = flags & KV_OPEN_TRUNCATE ? CREATE_ALWAYS : OPEN_ALWAYS;
    if ((flags & KV_OPEN_CREATE) && (flags & KV_OPEN_EXCLUSIVE)) disposition = CREATE_NEW;
    handle = kvi_windows_open_handle(path, flags & KV_OPEN_WRITE ? GENERIC_READ | GENERIC_WRITE : GENERIC_READ, disposition, FILE_ATTRIBUTE_NORMAL);
    if (handle == INVALID_HANDLE_VALUE) return kvi_windows_last();
    if (GetFileType(handle) != FILE_TYPE_DISK) {            /* NUL, CON, a pipe */
        CloseHandle(handle);
        SetLastError(ERROR_INVALID_NAME);
        return KV_ERR_IO;
    }
    *file = (kv_file *)(void *)handle;
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_windows_close(void *user, kv_file *file)
{
    (void)user;
    return CloseHandle(kvi_windows_handle(file)) ? KV_OK : kvi_windows_last();
}
KVI_PRIVATE kv_status kvi_windows_size(void *user, kv_file *file, uint64_t *size)
{
    LARGE_INTEGER bytes;
    (void)user;
    if (!GetFileSizeEx(kvi_windows_handle(file), &bytes)) return kvi_windows_last();
    *size = (uint64_t)bytes.QuadPart;
    return KV_OK;
}

KVI_INLINE OVERLAPPED kvi_windows_at(uint64_t offset)
{
    OVERLAPPED at;
    memset(&at, 0, sizeof at);
    at.Offset = (DWORD)offset;
    at.OffsetHigh = (DWORD)(offset >> 32);
    return at;
}
KVI_INLINE DWORD kvi_windows_piece(size_t size) { return size > (1u << 30) ? (DWORD)(1u << 30) : (DWORD)size; }

KVI_PRIVATE kv_status kvi_windows_read_at(void *user, kv_file *file, uint64_t offset, void *data, size_t size, size_t *got)
{
    size_t done = 0;
    (void)user;
    while (done < size) {
        OVERLAPPED at = kvi_windows_at(offset + done);
        DWORD      n = 0;
        if (!ReadFile(kvi_windows_handle(file), (char *)data + done, kvi_windows_piece(size - done), &n, &at)) {
            if (GetLastError() == ERROR_HANDLE_EOF) break;
            return kvi_windows_last();
        }
        if (n == 0) break;
        done += n;
    }
    *got = done;
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_windows_write_at(void *user, kv_file *file, uint64_t offset, const void *data, size_t size)
{
    (void)user;
    for (size_t done = 0; done < size;) {
        OVERLAPPED at = kvi_windows_at(offset + done);
        DWORD      n = 0;
        if (!WriteFile(kvi_windows_handle(file), (const char *)data + done, kvi_windows_piece(size - done), &n, &at)) return kvi_windows_last();
        if (n == 0) { SetLastError(ERROR_DISK_FULL); return KV_ERR_NO_SPACE; }
        done += n;
    }
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_windows_append(void *user, kv_file *file, const void *data, size_t size)
{
    uint64_t  end;
    kv_status s = kvi_windows_size(user, file, &end);
    return s < 0 ? s : kvi_windows_write_at(user, file, end, data, size);
}
KVI_PRIVATE kv_status kvi_windows_sync(void *user, kv_file *file)
{
    (void)user;
    return FlushFileBuffers(kvi_windows_handle(file)) ? KV_OK : kvi_windows_last();
}

/* Is this failure one that may go away by itself? Then it has waited, longer each time. */
KVI_PRIVATE bool kvi_windows_again(int tries)
{
    DWORD error = GetLastError();
    if (tries + 1 >= KVI_WINDOWS_TRIES || (error != ERROR_SHARING_VIOLATION && error != ERROR_ACCESS_DENIED)) return false;
    Sleep((DWORD)1 << tries);
    SetLastError(error);
    return true;
}
KVI_PRIVATE kv_status kvi_windows_rename(void *user, const char *from, const char *to)
{
    WCHAR wide_from[KVI_WINDOWS_PATH], wide_to[KVI_WINDOWS_PATH];
    (void)user;
    if (!kvi_windows_path(from, wide_from) || !kvi_windows_path(to, wide_to)) return kvi_windows_last();
    for (int tries = 0; !MoveFileExW(wide_from, wide_to, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH); tries++)
        if (!kvi_windows_again(tries)) return kvi_windows_last();
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_windows_remove(void *user, const char *path)
{
    WCHAR wide[KVI_WINDOWS_PATH];
    DWORD attributes;
    (void)user;
    if (!kvi_windows_path(path, wide)) return kvi_windows_last();
    attributes = GetFileAttributesW(wide);
    if (attributes == INVALID_FILE_ATTRIBUTES) return kvi_windows_last();
    if (attributes & FILE_ATTRIBUTE_DIRECTORY) return RemoveDirectoryW(wide) ? KV_OK : kvi_windows_last();
    for (int tries = 0; !DeleteFileW(wide); tries++)
        if (!kvi_windows_again(tries)) return kvi_windows_last();
    return KV_OK;
}

KVI_PRIVATE kv_status kvi_windows_list(void *user, const char *path, void (*each)(void *context, const char *name), void *context)
{
    WCHAR            pattern[KVI_WINDOWS_PATH + 2];
    WIN32_FIND_DATAW found;
    HANDLE           search;
    char             name[3 * MAX_PATH + 1];
    size_t           size = 0;
    (void)user;
    if (!kvi_windows_path(path, pattern)) return kvi_windows_last();
    while (pattern[size]) size++;
    pattern[size] = '\\'; pattern[size + 1] = '*'; pattern[size + 2] = 0;
    search = FindFirstFileW(pattern, &found);
    if (search == INVALID_HANDLE_VALUE) return kvi_windows_last();
    do {
        if (WideCharToMultiByte(CP_UTF8, 0, found.cFileName, -1, name, (int)sizeof name, NULL, NULL) <= 0) continue;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) each(context, name);
    } while (FindNextFileW(search, &found));
    if (GetLastError() != ERROR_NO_MORE_FILES) {
        kv_status s = kvi_windows_last();
        FindClose(search);
        return s;
    }
    FindClose(search);
    return KV_OK;
}
KVI_PRIVATE kv_status kvi_windows_make_dir(void *user, const char *path)
{
    WCHAR wide[KVI_WINDOWS_PATH];
    (void)user;
    if (!kvi_windows_path(path, wide)) return kvi_windows_last();
    return CreateDirectoryW(wide, NULL) ? KV_OK : kvi_windows_last();
}
KVI_PRIVATE kv_status kvi_windows_sync_dir(void *user, const char *path)
{
    HANDLE handle = kvi_windows_open_handle(path, GENERIC_READ, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS);
    (void)user;
    if (handle == INVALID_HANDLE_VALUE) return kvi_windows_last();
    CloseHandle(handle);
    return KV_OK;
}

KVI_PRIVATE uint64_t kvi_windows_lock_holder(HANDLE handle)
{
    char     digits[24];
    size_t   got = 0;
    uint64_t pid = 0;
    if (kvi_windows_read_at(NULL, (kv_file *)(void *)handle, 0, digits, sizeof digits, &got) < 0) return 0;
    for (size_t k = 0; k < got && digits[k] >= '0' && digits[k] <= '9'; k++) pid = pid * 10 + (uint64_t)(digits[k] - '0');
    return pid;
}
KVI_PRIVATE kv_status kvi_windows_lock(void *user, const char *path, bool shared, kv_file **lock, uint64_t *holder)
{
    char       digits[24];
    kvi_text   pid = kvi_text_over(digits, sizeof digits);
    OVERLAPPED at = kvi_windows_at((uint64_t)KVI_WINDOWS_LOCK_HIGH << 32);
    HANDLE     handle = kvi_windows_open_handle(path, shared ? GENERIC_READ : GENERIC_READ | GENERIC_WRITE,
                                                shared ? OPEN_EXISTING : OPEN_ALWAYS, FILE_ATTRIBUTE_NORMAL);
    *holder = 0;
    if (handle == INVALID_HANDLE_VALUE) return kvi_windows_last();
    if (!LockFileEx(handle, shared ? LOCKFILE_FAIL_IMMEDIATELY : LOCKFILE_FAIL_IMMEDIATELY | LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, &at)) {
        DWORD error = GetLastError();
        bool  busy = error == ERROR_LOCK_VIOLATION || error == ERROR_IO_PENDING;
        if (busy) *holder = kvi_windows_lock_holder(handle);
        CloseHandle(handle);
        SetLastError(error);
        return busy ? KV_ERR_BUSY : kvi_windows_status(error);
    }
    if (!shared) {
        kvi_text_u64(&pid, (uint64_t)GetCurrentProcessId());
        kvi_text_char(&pid, '\n');
        if (SetEndOfFile(handle)) (void)kvi_windows_write_at(user, (kv_file *)(void *)handle, 0, digits, pid.size);   /* at 0: empties it */
    }
    *lock = (kv_file *)(void *)handle;
    return KV_OK;
}

KVI_PRIVATE kv_status kvi_windows_map(void *user, kv_file *file, size_t size, const void **data)
{
    HANDLE mapping = CreateFileMappingW(kvi_windows_handle(file), NULL, PAGE_READONLY, 0, 0, NULL);
    (void)user;
    if (!mapping) return kvi_windows_last();
    *data = MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, size);
    if (!*data) {
        kv_status s = kvi_windows_last();
        CloseHandle(mapping);
        return s;
    }
    CloseHandle(mapping);                                   /* the view keeps it alive */
    return KV_OK;
}
KVI_PRIVATE void kvi_windows_unmap(void *user, const void *data, size_t size)
{
    (void)user; (void)size;
    UnmapViewOfFile(data);
}
KVI_PRIVATE kv_status kvi_windows_link(void *user, const char *from, const char *to)
{
    WCHAR wide_from[KVI_WINDOWS_PATH], wide_to[KVI_WINDOWS_PATH];
    (void)user;
    if (!kvi_windows_path(from, wide_from) || !kvi_windows_path(to, wide_to)) return kvi_windows_last();
    return CreateHardLinkW(wide_to, wide_from, NULL) ? KV_OK : kvi_windows_last();
}
KVI_PRIVATE int kvi_windows_os_error(void *user) { (void)user; return (int)GetLastError(); }

/* See the one of POSIX. A path with a drive or a leading slash or backslash is not relative, which a
   caller who looks for '/' alone cannot see; so relative paths are left to the system. */
KVI_PRIVATE size_t kvi_current_directory(char *out, size_t capacity) { (void)out; (void)capacity; return 0; }

KVI_CORE const kv_io *kv_io_default(void)
{
    static const kv_io io = {
        NULL, kvi_windows_open, kvi_windows_close, kvi_windows_size, kvi_windows_read_at, kvi_windows_append, kvi_windows_write_at,
        kvi_windows_sync, kvi_windows_rename, kvi_windows_remove, kvi_windows_list, kvi_windows_make_dir, kvi_windows_sync_dir,
        kvi_windows_lock, kvi_windows_close, kvi_windows_map, kvi_windows_unmap, kvi_windows_link, kvi_windows_os_error, NULL, NULL
    };
    return &io;
}
#else
KVI_PRIVATE size_t kvi_current_directory(char *out, size_t capacity) { (void)out; (void)capacity; return 0; }
KVI_CORE const kv_io *kv_io_default(void) { return NULL; }
#endif /* KVI_FILES */

#endif /* KV_CORE_IMPLEMENTATION */

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
