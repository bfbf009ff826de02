/* kv_disk.h - a disk in memory, behind kv_io, that loses power when a test wants it

   What is written to a file survives a power cut only after sync(file), and a name in a directory
   (a new file, a rename, a removal) only after sync_dir(directory). Until then it may be lost, kept,
   torn, or kept out of order. The disk records every operation, so one run of a program gives an
   image of the disk for a cut after each of them:

       disk      *d = disk_new(), *cursor, *image;
       test_rng   rng = test_rng_new();
       run_the_script(disk_io(d));                          // any code that takes a kv_io
       cursor = disk_begin(d);                              // the disk before the first operation
       for (size_t k = 0; k <= disk_op_count(d); k++) {
           disk_advance(cursor, d, k);                      // ... after k operations
           for (int mode = 0; mode < DISK_MODES; mode++) {
               image = disk_crash(cursor, (disk_mode)mode, &rng);
               check_what_survived(disk_io(image));         // disk_record(image) first: to crash the recovery too
               disk_free(image);
           }
       }
       disk_free(cursor);
       disk_free(d);

   Modes 0 to 6 are the power cuts of the durability contract; 7 adds what some file systems do.

   d->mark[] is the test's own: four numbers stamped on every operation (writes begun, writes known
   durable), so that for each cut the test knows what must be there and what may be.

   FAULTS   d->fault: the n-th call of some kinds fails, once, k times or from then on, in one of the
   ways that real disks fail in. d->capacity_bytes: a full disk.

   ORDER MONITOR   always on: use of a closed handle or of one of another disk (P6), a write or sync
   of a file that a write or sync failed on (P7), a name that is removed while locked. d->watch sees each
   operation before it happens and may ask disk_is_durable(), for the rules that a store has.
   disk_violations() counts, disk_violation() is the first one in words.

   THREADS   any may call the kv_io; the disk_ functions belong to one thread while no other calls.
   COST      images share bytes with the disk they come from; only what differs is copied.
   WINDOWS   what is stored through map_write becomes one write when the next call comes, or disk_look().

   CONTENTS  >>bytes >>state >>operations >>crash >>faults >>io >>files */
#ifndef KV_DISK_H
#define KV_DISK_H

#include "kv_test.h"
#include <errno.h>

#define DISK_NAME_MAX 63
#define DISK_SECTOR   512u

typedef enum disk_mode {        /* what a power cut leaves of what was not synced */
    DISK_KEEP_ALL = 0,          /* all of it, and it is still unsynced: only the process died */
    DISK_DURABLE = 1,           /* nothing */
    DISK_NAMES = 2,             /* names, and file sizes; the data reads as zeros */
    DISK_DATA = 3,              /* data; no names */
    DISK_TORN = 4,              /* everything but a part of the last write */
    DISK_SECTORS = 5,           /* any sectors, in no order; names in order up to somewhere */
    DISK_CHAOS = 6,             /* any sectors, any names */
    DISK_STALE = 7,             /* as CHAOS; a lost sector may show bytes of removed files, or any */
    DISK_MODES = 8
} disk_mode;

typedef enum disk_op_kind {
    DISK_CREATE, DISK_MAKE_DIR, DISK_LINK, DISK_RENAME, DISK_REMOVE,    /* names */
    DISK_WRITE, DISK_TRUNCATE, DISK_SYNC,                               /* data */
    DISK_DROP,                                                          /* a failed sync: what it should have written is lost */
    DISK_SYNC_DIR
} disk_op_kind;

/* the calls of kv_io, as bits */
enum {
    DISK_CALL_CREATE = 1, DISK_CALL_APPEND = 2, DISK_CALL_WRITE_AT = 4, DISK_CALL_SYNC = 8, DISK_CALL_RENAME = 16, DISK_CALL_REMOVE = 32,
    DISK_CALL_MAKE_DIR = 64, DISK_CALL_SYNC_DIR = 128, DISK_CALL_LINK = 256, DISK_CALL_CLOSE = 512, DISK_CALL_LOCK = 1024,
    DISK_CALL_OPEN = 2048, DISK_CALL_READ = 4096, DISK_CALL_SIZE = 8192, DISK_CALL_LIST = 16384, DISK_CALL_MAP = 32768,
    DISK_CALL_MAP_WRITE = 65536, DISK_CALL_TRUNCATE = 131072,
    DISK_CALLS_CHANGE = 511 | 65536 | 131072, DISK_CALLS_READ = 2048 | 4096 | 8192 | 16384 | 32768, DISK_CALLS_ALL = 262143
};

typedef enum disk_fault_kind {
    DISK_FAULT_IO,              /* KV_ERR_IO, and nothing happened */
    DISK_FAULT_SPACE,           /* KV_ERR_NO_SPACE, and nothing happened */
    DISK_FAULT_SHORT,           /* a write did a part, then KV_ERR_IO */
    DISK_FAULT_SHORT_SPACE,     /* a write did a part, then KV_ERR_NO_SPACE */
    DISK_FAULT_SYNC_DROPS,      /* a failed sync threw the data away and calls it clean: a second sync succeeds and lies */
    DISK_FAULT_DONE,            /* it took effect, all of it, and reports KV_ERR_IO: sync, rename, anything */
    DISK_FAULT_FLIP,            /* a read succeeds with one bit wrong */
    DISK_FAULT_KINDS
} disk_fault_kind;

typedef struct disk_fault {
    uint32_t        calls;      /* which calls count: DISK_CALL_ bits; 0: DISK_CALLS_CHANGE */
    uint64_t        at;         /* the at-th of them fails, counted from 1; 0: none does */
    uint64_t        count;      /* and so many in a row; 0: one; UINT64_MAX: all from then on */
    disk_fault_kind kind;
    const char     *name;       /* only calls on names that contain this; NULL: any */
    uint64_t        seen, hits; /* calls counted, calls failed */
} disk_fault;

/* ------------------------------------------------------------------------------------------------
   >>bytes   file contents, shared by all disks that have them
   Invariant B1: bytes below `used` never change while refs > 1; an append claims what follows `used`. */

typedef struct disk_bytes { size_t refs, used, capacity; char *data; } disk_bytes;

static void *disk_alloc(void *old, size_t size)
{
    void *p = realloc(old, size ? size : 1);
    if (!p) { fprintf(stderr, "kv_disk: out of memory\n"); abort(); }
    return p;
}
static disk_bytes *disk_bytes_new(size_t capacity)
{
    disk_bytes *b = (disk_bytes *)disk_alloc(NULL, sizeof *b);
    b->refs = 1;
    b->used = 0;
    b->capacity = capacity;
    b->data = (char *)disk_alloc(NULL, capacity);
    return b;
}
static disk_bytes *disk_bytes_share(disk_bytes *b) { if (b) b->refs++; return b; }
static void disk_bytes_release(disk_bytes *b)
{
    if (!b || --b->refs) return;
    free(b->data);
    free(b);
}

typedef struct disk_content { disk_bytes *bytes; size_t size; } disk_content;   /* bytes may be longer: another's */

static void disk_content_copy(disk_content *to, const disk_content *from)
{
    disk_bytes *shared = disk_bytes_share(from->bytes);
    disk_bytes_release(to->bytes);
    to->bytes = shared;
    to->size = from->size;
}
/* Make bytes [offset, offset + size) of the content writable and part of it; a gap becomes zeros. */
static char *disk_content_open(disk_content *c, size_t offset, size_t size)
{
    size_t end = offset + size > c->size ? offset + size : c->size;
    bool   append = c->bytes && offset >= c->size && c->size == c->bytes->used;
    if (!c->bytes || end > c->bytes->capacity || (!append && c->bytes->refs > 1)) {
        disk_bytes *grown = disk_bytes_new(end <= 64 ? 64 : end + end / 2);
        if (c->size) memcpy(grown->data, c->bytes->data, c->size);
        disk_bytes_release(c->bytes);
        c->bytes = grown;
    }
    if (offset > c->size) memset(c->bytes->data + c->size, 0, offset - c->size);
    if (end > c->bytes->used || c->bytes->refs == 1) c->bytes->used = end;
    c->size = end;
    return c->bytes->data + offset;
}
static void disk_content_put(disk_content *c, size_t offset, const char *data, size_t size)   /* NULL: zeros, only past the end */
{
    if (!size) return;
    if (data) { memcpy(disk_content_open(c, offset, size), data, size); return; }
    if (offset + size > c->size) {
        size_t from = offset > c->size ? offset : c->size;
        memset(disk_content_open(c, from, offset + size - from), 0, offset + size - from);
    }
}
static void disk_content_cut(disk_content *c, size_t size)
{
    if (size < c->size) c->size = size;
}

/* ------------------------------------------------------------------------------------------------
   >>state   nodes (files and directories), the names that lead to them, and what is not durable yet */

typedef struct disk_write { size_t op, offset, size; disk_bytes *bytes; bool truncate, lost; } disk_write;
typedef struct disk_node {
    bool         is_dir, failed;        /* failed: a write or sync failed on it */
    uint32_t     opened;
    size_t       born;                  /* the number of the operation that made it */
    disk_content now, safe;             /* what reads see; what a power cut leaves for sure */
    disk_write  *pending;               /* the way from safe to now */
    size_t       pending_count, pending_capacity;
} disk_node;
typedef struct disk_name { uint32_t dir, node; char text[DISK_NAME_MAX + 1]; } disk_name;
typedef struct disk_names { disk_name *list; size_t count, capacity; } disk_names;

typedef struct disk_op {
    disk_op_kind kind;
    uint32_t     node;                  /* what it is about; of a SYNC_DIR the directory */
    disk_name    from, to;              /* RENAME: both; the other names: to */
    size_t       offset, size;          /* WRITE; TRUNCATE: size */
    disk_bytes  *bytes;                 /* WRITE: the data begins at offset of them */
    uint64_t     mark[4];               /* the test's marks when it was issued */
} disk_op;

struct disk;
typedef void (*disk_watch_fn)(void *user, struct disk *d, const disk_op *op);

typedef struct disk_lock { char path[256]; uint32_t shared, exclusive; } disk_lock;
typedef struct disk_mapping { const void *data; disk_bytes *bytes; } disk_mapping;
typedef struct disk_window { char *data; uint32_t node; size_t offset, size; } disk_window;      /* map_write: what is stored in data is not written yet */

typedef struct disk {
    /* for the test to set */
    uint64_t      mark[4];
    disk_fault    fault;
    const char   *bad_file;     /* reads of its bytes bad_at .. bad_end fail, for good; NULL: there is none */
    uint64_t      bad_at, bad_end;
    uint64_t      capacity_bytes;       /* 0: no limit. Files that have no name but are open count too */
    bool          no_map, no_link;      /* disk_io() without them */
    bool          map_writes;           /* ... with map_write; one thread at a time may store then, as far as a sanitizer sees */
    disk_watch_fn watch;  void *watch_user;
    uint64_t      calls;                /* of the kv_io, in all */
    uint64_t      bytes_written, bytes_read, syncs, dir_syncs;

    /* its own */
    disk_node   **nodes;  size_t node_count, node_capacity;
    disk_names    names, safe_names;
    disk_op      *pending_names;  size_t pending_name_count, pending_name_capacity;
    disk_op      *ops;  size_t op_count, op_capacity;
    struct disk  *start;                /* the state before ops[0]; NULL: an empty disk */
    size_t        sequence;             /* the number of the next operation; of a cursor: where it stands */
    bool          recording;
    struct disk_handle *handles;
    disk_lock    *locks;  size_t lock_count;
    disk_mapping *mappings;  size_t mapping_count;
    disk_window  *windows;  size_t window_count;
    size_t        violations;
    char          violation[400];
    kv_io         io;
    kvi_mutex     mutex;
} disk;

typedef struct disk_handle { disk *owner; uint32_t node; bool writable, closed, is_lock; char path[256]; struct disk_handle *next; } disk_handle;

static void disk_violate(disk *d, const char *rule, const char *what)
{
    if (!d->violations++) snprintf(d->violation, sizeof d->violation, "%s: %s", rule, what);
}
static TEST_UNUSED size_t disk_violations(const disk *d) { return d->violations; }
static TEST_UNUSED const char *disk_violation(const disk *d) { return d->violation; }
static TEST_UNUSED size_t disk_op_count(const disk *d) { return d->op_count; }

#define DISK_GROW(list, count, capacity) \
    do { if ((count) == (capacity)) { (capacity) = (capacity) ? (capacity) * 2 : 16; *(void **)&(list) = disk_alloc((list), (capacity) * sizeof *(list)); } } while (0)

static void disk_number_nodes(disk *d, size_t count)       /* numbers below count are taken, and not given to new nodes */
{
    if (count > d->node_capacity) {
        d->node_capacity = count + count / 2 + 16;
        d->nodes = (disk_node **)disk_alloc(d->nodes, d->node_capacity * sizeof *d->nodes);
    }
    while (d->node_count < count) d->nodes[d->node_count++] = NULL;
}
static disk_node *disk_node_at(disk *d, uint32_t id)
{
    disk_number_nodes(d, (size_t)id + 1);
    if (!d->nodes[id]) {
        d->nodes[id] = (disk_node *)disk_alloc(NULL, sizeof **d->nodes);
        memset(d->nodes[id], 0, sizeof **d->nodes);
    }
    return d->nodes[id];
}
static void disk_node_forget_pending(disk_node *n)
{
    for (size_t i = 0; i < n->pending_count; i++) disk_bytes_release(n->pending[i].bytes);
    n->pending_count = 0;
}
static void disk_node_free(disk_node *n)
{
    if (!n) return;
    disk_node_forget_pending(n);
    free(n->pending);
    disk_bytes_release(n->now.bytes);
    disk_bytes_release(n->safe.bytes);
    free(n);
}
static void disk_node_pend(disk_node *n, disk_write w)
{
    if (n->pending_count == n->pending_capacity) {
        n->pending_capacity = n->pending_capacity ? n->pending_capacity * 2 : 8;
        n->pending = (disk_write *)disk_alloc(n->pending, n->pending_capacity * sizeof *n->pending);
    }
    disk_bytes_share(w.bytes);
    n->pending[n->pending_count++] = w;
}

static disk_name *disk_names_find(const disk_names *names, uint32_t dir, const char *text)
{
    for (size_t i = 0; i < names->count; i++)
        if (names->list[i].dir == dir && strcmp(names->list[i].text, text) == 0) return &names->list[i];
    return NULL;
}
static void disk_names_set(disk_names *names, const disk_name *name)
{
    disk_name *old = disk_names_find(names, name->dir, name->text);
    if (old) { old->node = name->node; return; }
    if (names->count == names->capacity) {
        names->capacity = names->capacity ? names->capacity * 2 : 16;
        names->list = (disk_name *)disk_alloc(names->list, names->capacity * sizeof *names->list);
    }
    names->list[names->count++] = *name;
}
static void disk_names_drop(disk_names *names, const disk_name *name)   /* only where it still leads to that node */
{
    disk_name *old = disk_names_find(names, name->dir, name->text);
    if (old && old->node == name->node) *old = names->list[--names->count];
}
static void disk_names_copy(disk_names *to, const disk_names *from)
{
    to->count = to->capacity = from->count;
    to->list = (disk_name *)disk_alloc(NULL, from->count * sizeof *from->list);
    if (from->count) memcpy(to->list, from->list, from->count * sizeof *from->list);
}
static void disk_names_apply(disk_names *names, const disk_op *op)
{
    if (op->kind == DISK_REMOVE) disk_names_drop(names, &op->to);
    else if (op->kind == DISK_RENAME) { disk_names_drop(names, &op->from); disk_names_set(names, &op->to); }
    else disk_names_set(names, &op->to);
}

/* Whether every byte of the file is durable; of a path: also every name on the way to it. */
static TEST_UNUSED bool disk_node_is_durable(const disk *d, uint32_t node) { return node < d->node_count && d->nodes[node] && !d->nodes[node]->pending_count; }

/* ------------------------------------------------------------------------------------------------
   >>operations   one operation takes a state to the next; the same code runs live and in a replay  */

static void disk_apply(disk *d, const disk_op *op, size_t op_index)
{
    disk_node *n = disk_node_at(d, op->node);
    disk_write w;
    memset(&w, 0, sizeof w);
    w.op = op_index;
    switch (op->kind) {
    case DISK_MAKE_DIR:
        n->is_dir = true;
        /* fall through */
    case DISK_CREATE:
        n->born = op_index;
        /* fall through */
    case DISK_LINK: case DISK_RENAME: case DISK_REMOVE:
        disk_names_apply(&d->names, op);
        DISK_GROW(d->pending_names, d->pending_name_count, d->pending_name_capacity);
        d->pending_names[d->pending_name_count++] = *op;
        break;
    case DISK_WRITE:
        w.offset = op->offset;
        w.size = op->size;
        w.bytes = op->bytes;
        disk_content_put(&n->now, op->offset, op->bytes->data + op->offset, op->size);
        disk_node_pend(n, w);
        break;
    case DISK_TRUNCATE:
        w.size = op->size;
        w.truncate = true;
        if (!op->size) n->failed = false;           /* a fresh start */
        disk_content_cut(&n->now, op->size);
        disk_node_pend(n, w);
        break;
    case DISK_SYNC:
        for (size_t i = 0; i < n->pending_count; i++) {
            const disk_write *p = &n->pending[i];
            if (!p->lost) continue;                             /* something was dropped: what is safe is not what reads see */
            for (i = 0; i < n->pending_count; i++) {
                p = &n->pending[i];
                if (p->truncate) { if (!p->lost) disk_content_cut(&n->safe, p->size); }
                else disk_content_put(&n->safe, p->offset, p->lost ? NULL : p->bytes->data + p->offset, p->size);
            }
            disk_node_forget_pending(n);
            return;
        }
        disk_content_copy(&n->safe, &n->now);
        disk_node_forget_pending(n);
        break;
    case DISK_DROP:
        for (size_t i = 0; i < n->pending_count; i++) n->pending[i].lost = true;
        break;
    case DISK_SYNC_DIR: {
        size_t kept = 0;
        for (size_t i = 0; i < d->pending_name_count; i++) {
            if (d->pending_names[i].to.dir == op->node) disk_names_apply(&d->safe_names, &d->pending_names[i]);
            else d->pending_names[kept++] = d->pending_names[i];
        }
        d->pending_name_count = kept;
        break;
    }
    }
}

static void disk_note(disk *d, const disk_op *op)
{
    d->sequence++;
    if (!d->recording) return;
    DISK_GROW(d->ops, d->op_count, d->op_capacity);
    disk_bytes_share(op->bytes);
    d->ops[d->op_count++] = *op;
}
/* Live: show it to the watcher, do it, record it. */
static void disk_do(disk *d, disk_op *op)
{
    memcpy(op->mark, d->mark, sizeof op->mark);
    if (d->watch) d->watch(d->watch_user, d, op);
    disk_apply(d, op, d->sequence);
    disk_note(d, op);
}

static disk *disk_new_state(void)
{
    disk *d = (disk *)disk_alloc(NULL, sizeof *d);
    memset(d, 0, sizeof *d);
    disk_node_at(d, 0)->is_dir = true;          /* node 0: the root */
    d->recording = true;
    (void)kvi_mutex_init(&d->mutex);
    return d;
}
static TEST_UNUSED void disk_free(disk *d)
{
    if (!d) return;
    while (d->handles) { disk_handle *h = d->handles; d->handles = h->next; free(h); }
    for (size_t i = 0; i < d->mapping_count; i++) disk_bytes_release(d->mappings[i].bytes);
    for (size_t i = 0; i < d->window_count; i++) free(d->windows[i].data);
    free(d->windows);
    for (size_t i = 0; i < d->node_count; i++) disk_node_free(d->nodes[i]);
    for (size_t i = 0; i < d->op_count; i++) disk_bytes_release(d->ops[i].bytes);
    free(d->nodes);
    free(d->names.list);
    free(d->safe_names.list);
    free(d->pending_names);
    free(d->ops);
    free(d->locks);
    free(d->mappings);
    disk_free(d->start);
    kvi_mutex_destroy(&d->mutex);
    free(d);
}

/* ------------------------------------------------------------------------------------------------
   >>crash   copies of a state, and what a power cut makes of one                                   */

static void disk_copy_node(disk *to, const disk *from, uint32_t id, bool pending)
{
    const disk_node *source = from->nodes[id];
    disk_node *n;
    if (!source || (id < to->node_count && to->nodes[id] && (to->nodes[id]->is_dir || to->nodes[id]->now.bytes || to->nodes[id]->safe.bytes))) return;
    n = disk_node_at(to, id);
    n->is_dir = source->is_dir;
    n->born = source->born;
    disk_content_copy(&n->safe, &source->safe);
    disk_content_copy(&n->now, pending ? &source->now : &source->safe);
    if (pending && !n->pending_count) for (size_t i = 0; i < source->pending_count; i++) disk_node_pend(n, source->pending[i]);
}
/* The same state, nothing recorded, no handle or lock. Only nodes that some name leads to. */
static TEST_UNUSED disk *disk_fork(const disk *d)
{
    disk *copy = disk_new_state();
    free(copy->names.list);
    disk_names_copy(&copy->names, &d->names);
    disk_names_copy(&copy->safe_names, &d->safe_names);
    disk_number_nodes(copy, d->node_count);
    for (size_t i = 0; i < d->names.count; i++) disk_copy_node(copy, d, d->names.list[i].node, true);
    for (size_t i = 0; i < d->safe_names.count; i++) disk_copy_node(copy, d, d->safe_names.list[i].node, true);
    for (size_t i = 0; i < d->pending_name_count; i++) {
        disk_copy_node(copy, d, d->pending_names[i].node, true);
        DISK_GROW(copy->pending_names, copy->pending_name_count, copy->pending_name_capacity);
        copy->pending_names[copy->pending_name_count++] = d->pending_names[i];
    }
    copy->no_map = d->no_map;
    copy->no_link = d->no_link;
    copy->map_writes = d->map_writes;
    copy->sequence = d->sequence;
    copy->recording = false;
    return copy;
}

/* Begin a record: operations are counted from here. */
static TEST_UNUSED void disk_record(disk *d)
{
    for (size_t i = 0; i < d->op_count; i++) disk_bytes_release(d->ops[i].bytes);
    d->op_count = 0;
    disk_free(d->start);
    d->start = disk_fork(d);
    d->recording = true;
}

/* The state in which the record of `d` begins: a cursor that disk_advance moves forward. */
static TEST_UNUSED disk *disk_begin(const disk *d)
{
    disk *cursor = d->start ? disk_fork(d->start) : disk_new_state();
    cursor->recording = false;
    cursor->no_map = d->no_map;
    cursor->no_link = d->no_link;
    cursor->map_writes = d->map_writes;
    return cursor;
}
/* Take it on to where `op_count` operations are done; only forward. */
static TEST_UNUSED void disk_advance(disk *cursor, const disk *d, size_t op_count)
{
    size_t base = d->start ? d->start->sequence : 0;
    for (; cursor->sequence < base + op_count && cursor->sequence < base + d->op_count; cursor->sequence++)
        disk_apply(cursor, &d->ops[cursor->sequence - base], cursor->sequence);
}

/* What a file system shows that extends a file before it writes it: a piece of a file that was
   removed, or anything. */
static void disk_stale_fill(const disk *d, char *to, size_t size, test_rng *rng)
{
    for (int attempt = 0; attempt < 8; attempt++) {
        uint32_t         id = (uint32_t)test_below(rng, d->node_count);
        const disk_node *n = d->nodes[id];
        size_t           k = 0;
        while (k < d->names.count && d->names.list[k].node != id) k++;
        if (!n || k < d->names.count || n->now.size < size || !size) continue;
        memcpy(to, n->now.bytes->data + test_below(rng, (n->now.size - size) / DISK_SECTOR + 1) * DISK_SECTOR, size);
        return;
    }
    for (size_t i = 0; i < size; i++) to[i] = (char)test_random(rng);
}
/* One unsynced write: some of its sectors came through, in any order. */
static void disk_crash_sectors(const disk *d, disk_content *c, const disk_write *w, disk_mode mode, test_rng *rng)
{
    bool extend = test_one_in(rng, 2);
    for (size_t at = 0; at < w->size;) {
        size_t sector_end = ((w->offset + at) / DISK_SECTOR + 1) * DISK_SECTOR - w->offset;
        size_t end = sector_end < w->size ? sector_end : w->size;
        if (test_one_in(rng, 2)) disk_content_put(c, w->offset + at, w->lost ? NULL : w->bytes->data + w->offset + at, end - at);
        else if (extend && w->offset + at >= c->size) {
            disk_content_put(c, w->offset + at, NULL, end - at);
            if (mode == DISK_STALE && test_one_in(rng, 2)) disk_stale_fill(d, disk_content_open(c, w->offset + at, end - at), end - at, rng);
        }
        at = end;
    }
}
static void disk_crash_node(const disk *d, disk_node *to, const disk_node *from, disk_mode mode, size_t last_op, test_rng *rng)
{
    disk_content *c = &to->safe;
    for (size_t i = 0; i < from->pending_count && mode != DISK_DURABLE; i++) {
        const disk_write *w = &from->pending[i];
        if (w->truncate) {
            if (mode == DISK_DATA || mode == DISK_TORN || (mode >= DISK_SECTORS && test_one_in(rng, 2))) disk_content_cut(c, w->size);
        } else if (mode >= DISK_SECTORS) disk_crash_sectors(d, c, w, mode, rng);
        else {
            size_t size = mode == DISK_TORN && w->op == last_op ? (size_t)test_below(rng, w->size + 1) : w->size;
            disk_content_put(c, w->offset, mode == DISK_NAMES || w->lost ? NULL : w->bytes->data + w->offset, size);
        }
    }
    disk_content_copy(&to->now, c);
}
static void disk_crash_names(disk *image, const disk *d, disk_mode mode, test_rng *rng)
{
    size_t keep = 0;
    disk_names_copy(&image->safe_names, &d->safe_names);
    if (mode == DISK_NAMES || mode == DISK_TORN) keep = d->pending_name_count;
    if (mode == DISK_SECTORS) keep = (size_t)test_below(rng, d->pending_name_count + 1);
    for (size_t i = 0; i < d->pending_name_count; i++)
        if (i < keep || (mode >= DISK_CHAOS && test_one_in(rng, 2))) disk_names_apply(&image->safe_names, &d->pending_names[i]);
    for (bool changed = true; changed;) {                       /* a lost directory takes what is in it along */
        changed = false;
        for (size_t i = 0; i < image->safe_names.count; i++) {
            uint32_t dir = image->safe_names.list[i].dir;
            bool     found = dir == 0;
            for (size_t k = 0; k < image->safe_names.count && !found; k++) found = image->safe_names.list[k].node == dir;
            if (found) continue;
            image->safe_names.list[i] = image->safe_names.list[--image->safe_names.count];
            changed = true;
            break;
        }
    }
    disk_names_copy(&image->names, &image->safe_names);
}
/* The disk after the power is back: everything on it is durable. After DISK_KEEP_ALL what was
   unsynced is still unsynced. Nothing is recorded on it before disk_record(). */
static TEST_UNUSED disk *disk_crash(const disk *d, disk_mode mode, test_rng *rng)
{
    disk  *image;
    size_t last_op = 0;
    if (mode == DISK_KEEP_ALL) image = disk_fork(d);
    else {
        image = disk_new_state();
        disk_crash_names(image, d, mode, rng);
        disk_number_nodes(image, d->node_count);
        for (size_t i = 0; i < d->node_count; i++)
            for (size_t k = 0; d->nodes[i] && k < d->nodes[i]->pending_count; k++)
                if (!d->nodes[i]->pending[k].truncate && d->nodes[i]->pending[k].op > last_op) last_op = d->nodes[i]->pending[k].op;
        for (size_t i = 0; i < image->names.count; i++) {
            uint32_t id = image->names.list[i].node;
            if (image->nodes[id] || !d->nodes[id]) continue;
            disk_copy_node(image, d, id, false);
            disk_crash_node(d, disk_node_at(image, id), d->nodes[id], mode, last_op, rng);
        }
    }
    image->no_map = d->no_map;
    image->no_link = d->no_link;
    image->map_writes = d->map_writes;
    image->recording = false;
    image->sequence = d->sequence;
    return image;
}
static TEST_UNUSED const char *disk_mode_name(int mode)
{
    static const char *const names[DISK_MODES] = { "all kept", "only durable", "names without data", "data without names", "last write torn",
                                                   "any sectors, names in order", "any sectors, any names", "stale sectors" };
    return mode >= 0 && mode < DISK_MODES ? names[mode] : "?";
}

/* ------------------------------------------------------------------------------------------------
   >>faults   which call fails, and how                                                             */

static __thread int disk_errno;

static kv_status disk_fail(int error)
{
    disk_errno = error;
    switch (error) {
    case ENOENT: return KV_NOT_FOUND;
    case EEXIST: return KV_EXISTS;
    case ENOSPC: return KV_ERR_NO_SPACE;
    case EAGAIN: return KV_ERR_BUSY;
    default:     return KV_ERR_IO;
    }
}
/* From here on count the `calls` (DISK_CALL_ bits; 0: those that change something), and let the
   at-th and `count` in a row fail. `at` 0 only counts. */
static TEST_UNUSED void disk_fail_at(disk *d, uint32_t calls, uint64_t at, uint64_t count, disk_fault_kind kind)
{
    memset(&d->fault, 0, sizeof d->fault);
    d->fault.calls = calls;
    d->fault.at = at;
    d->fault.count = count;
    d->fault.kind = kind;
}
/* Counts the call; true: it must fail, in the way of d->fault.kind. */
static bool disk_faulty(disk *d, uint32_t call, const char *name)
{
    disk_fault *f = &d->fault;
    uint32_t    mask = f->calls ? f->calls : (uint32_t)DISK_CALLS_CHANGE;
    uint64_t    count = f->count ? f->count : 1;
    d->calls++;
    if (!(mask & call) || (f->name && !strstr(name, f->name))) return false;
    f->seen++;
    if (!f->at || f->seen < f->at || f->seen - f->at >= count) return false;
    f->hits++;
    return true;
}
static bool disk_fault_takes_effect(const disk *d) { return d->fault.kind == DISK_FAULT_DONE; }
static kv_status disk_fault_status(const disk *d)
{
    return disk_fail(d->fault.kind == DISK_FAULT_SPACE || d->fault.kind == DISK_FAULT_SHORT_SPACE ? ENOSPC : EIO);
}
static uint64_t disk_used_bytes_locked(const disk *d)
{
    uint64_t total = 0;
    for (size_t i = 0; i < d->node_count; i++) {
        bool named = false;
        if (!d->nodes[i] || d->nodes[i]->is_dir) continue;
        for (size_t k = 0; k < d->names.count && !named; k++) named = d->names.list[k].node == i;
        if (named || d->nodes[i]->opened) total += d->nodes[i]->now.size;
    }
    return total;
}
/* Bytes that files take, by name or by an open handle. */
static TEST_UNUSED uint64_t disk_used_bytes(disk *d)
{
    uint64_t total;
    kvi_mutex_lock(&d->mutex);
    total = disk_used_bytes_locked(d);
    kvi_mutex_unlock(&d->mutex);
    return total;
}

/* ------------------------------------------------------------------------------------------------
   >>io   the functions of kv_io                                                                    */

/* The directory and last name of a path. False: no such directory. "." and "" are the root. */
static bool disk_walk(const disk *d, const char *path, disk_name *last)
{
    uint32_t dir = 0;
    memset(last, 0, sizeof *last);
    for (;;) {
        size_t     size = 0;
        disk_name *found;
        while (*path == '/' || (path[0] == '.' && (path[1] == '/' || path[1] == 0))) path++;
        while (path[size] && path[size] != '/') size++;
        if (!size) { last->dir = dir; last->node = dir; return true; }
        if (size > DISK_NAME_MAX) return false;
        memset(last->text, 0, sizeof last->text);
        memcpy(last->text, path, size);
        last->dir = dir;
        path += size;
        found = disk_names_find(&d->names, dir, last->text);
        last->node = found ? found->node : UINT32_MAX;
        while (*path == '/') path++;
        if (!*path) return true;
        if (!found || !d->nodes[found->node]->is_dir) return false;
        dir = found->node;
        last->text[0] = 0;
    }
}
static disk_node *disk_lookup(disk *d, const char *path, disk_name *name)
{
    return disk_walk(d, path, name) && name->node != UINT32_MAX ? d->nodes[name->node] : NULL;
}
/* A write that happens: to the file, to the windows that show it, into the record. */
static void disk_put(disk *d, uint32_t node, size_t offset, const void *data, size_t size)
{
    disk_node *n = d->nodes[node];
    disk_op    op;
    disk_write w;
    memset(&op, 0, sizeof op);
    op.kind = DISK_WRITE;
    op.node = node;
    op.offset = offset;
    op.size = size;
    /* the bytes go to the file first; operation and pending write share them from there */
    memcpy(disk_content_open(&n->now, offset, size), data, size);
    op.bytes = n->now.bytes;
    memcpy(op.mark, d->mark, sizeof op.mark);
    for (size_t i = 0; i < d->window_count; i++) {
        disk_window *v = &d->windows[i];
        size_t from = offset > v->offset ? offset : v->offset, end = offset + size < v->offset + v->size ? offset + size : v->offset + v->size;
        if (v->node == node && from < end) memcpy(v->data + (from - v->offset), n->now.bytes->data + from, end - from);
    }
    if (d->watch) d->watch(d->watch_user, d, &op);
    memset(&w, 0, sizeof w);
    w.op = d->sequence;
    w.offset = offset;
    w.size = size;
    w.bytes = op.bytes;
    disk_node_pend(n, w);
    disk_note(d, &op);
    d->bytes_written += size;
}
/* What was stored in windows since the last call is one write for each of them. */
static void disk_look_at_windows(disk *d)
{
    for (size_t i = 0; i < d->window_count; i++) {
        disk_window *v = &d->windows[i];
        const char  *was = d->nodes[v->node]->now.bytes->data + v->offset;
        size_t       from = 0, end = v->size, step = 4096;
        while (end - from >= step && memcmp(v->data + from, was + from, step) == 0) from += step;
        while (from < end && v->data[from] == was[from]) from++;
        while (end - from >= step && memcmp(v->data + end - step, was + end - step, step) == 0) end -= step;
        while (end > from && v->data[end - 1] == was[end - 1]) end--;
        if (from < end) disk_put(d, v->node, v->offset + from, v->data + from, end - from);
    }
}
/* The same, for a test that wants it now: before it says that a write has returned. */
static TEST_UNUSED void disk_look(disk *d)
{
    kvi_mutex_lock(&d->mutex);
    disk_look_at_windows(d);
    kvi_mutex_unlock(&d->mutex);
}
static disk *disk_enter(void *user)
{
    disk *d = (disk *)user;
    kvi_mutex_lock(&d->mutex);
    if (d->window_count) disk_look_at_windows(d);
    return d;
}
static kv_status disk_leave(disk *d, kv_status s) { kvi_mutex_unlock(&d->mutex); return s; }

static disk_handle *disk_handle_new(disk *d, uint32_t node, bool writable, const char *path)
{
    disk_handle *h = (disk_handle *)disk_alloc(NULL, sizeof *h);
    memset(h, 0, sizeof *h);
    h->owner = d;
    h->node = node;
    h->writable = writable;
    snprintf(h->path, sizeof h->path, "%s", path);
    h->next = d->handles;
    d->handles = h;
    disk_node_at(d, node)->opened++;
    return h;
}
/* P6: the handle must be open, and of this disk. NULL where it is not. */
static disk_node *disk_handle_node(disk *d, kv_file *file, const char *what)
{
    disk_handle *h;
    for (h = d->handles; h && h != (disk_handle *)file; h = h->next) { }
    if (!h) { disk_violate(d, "P6 no handle of this disk", what); return NULL; }
    if (h->closed) { disk_violate(d, "P6 call on a closed handle", h->path); return NULL; }
    return d->nodes[h->node];
}

static kv_status disk_io_open(void *user, const char *path, uint32_t flags, kv_file **file)
{
    disk      *d = disk_enter(user);
    disk_name  name;
    disk_op    op;
    disk_node *n;
    bool       known = disk_walk(d, path, &name), missing, fault;
    if (!known) return disk_leave(d, disk_fail(ENOENT));
    missing = name.node == UINT32_MAX;
    fault = disk_faulty(d, missing && flags & KV_OPEN_CREATE ? DISK_CALL_CREATE : flags & KV_OPEN_TRUNCATE ? DISK_CALL_CREATE : DISK_CALL_OPEN, path);
    if (fault && !disk_fault_takes_effect(d)) return disk_leave(d, disk_fault_status(d));
    if (missing && !(flags & KV_OPEN_CREATE)) return disk_leave(d, disk_fail(ENOENT));
    if (!missing && flags & KV_OPEN_CREATE && flags & KV_OPEN_EXCLUSIVE) return disk_leave(d, disk_fail(EEXIST));
    memset(&op, 0, sizeof op);
    if (missing) {
        name.node = (uint32_t)d->node_count;
        op.kind = DISK_CREATE;
        op.node = name.node;
        op.to = name;
        disk_do(d, &op);
    }
    n = disk_node_at(d, name.node);
    if (n->is_dir) return disk_leave(d, disk_fail(EISDIR));
    if (flags & KV_OPEN_TRUNCATE && (n->now.size || n->failed)) {
        op.kind = DISK_TRUNCATE;
        op.node = name.node;
        disk_do(d, &op);
    }
    if (fault) return disk_leave(d, disk_fault_status(d));
    *file = (kv_file *)disk_handle_new(d, name.node, (flags & KV_OPEN_WRITE) != 0, path);
    return disk_leave(d, KV_OK);
}
static kv_status disk_io_close(void *user, kv_file *file)
{
    disk        *d = disk_enter(user);
    disk_handle *h = (disk_handle *)file;
    disk_node   *n = disk_handle_node(d, file, "close");
    if (!n) return disk_leave(d, disk_fail(EBADF));
    n->opened--;
    h->closed = true;
    return disk_leave(d, disk_faulty(d, DISK_CALL_CLOSE, h->path) ? disk_fault_status(d) : KV_OK);
}
static kv_status disk_io_size(void *user, kv_file *file, uint64_t *size)
{
    disk      *d = disk_enter(user);
    disk_node *n = disk_handle_node(d, file, "size");
    if (!n) return disk_leave(d, disk_fail(EBADF));
    if (disk_faulty(d, DISK_CALL_SIZE, ((disk_handle *)file)->path)) return disk_leave(d, disk_fault_status(d));
    *size = n->now.size;
    return disk_leave(d, KV_OK);
}
static kv_status disk_io_read_at(void *user, kv_file *file, uint64_t offset, void *data, size_t size, size_t *got)
{
    disk      *d = disk_enter(user);
    disk_node *n = disk_handle_node(d, file, "read");
    bool       fault;
    if (!n) return disk_leave(d, disk_fail(EBADF));
    fault = disk_faulty(d, DISK_CALL_READ, ((disk_handle *)file)->path);
    if (fault && d->fault.kind != DISK_FAULT_FLIP) return disk_leave(d, disk_fault_status(d));
    if (d->bad_file && strstr(((disk_handle *)file)->path, d->bad_file) && offset < d->bad_end && offset + size > d->bad_at) return disk_leave(d, disk_fail(EIO));
    *got = offset >= n->now.size ? 0 : n->now.size - (size_t)offset < size ? n->now.size - (size_t)offset : size;
    if (*got) memcpy(data, n->now.bytes->data + (size_t)offset, *got);
    if (fault && *got) ((char *)data)[(offset * 7 + d->calls) % *got] ^= (char)(1 << d->calls % 8);
    d->bytes_read += *got;
    return disk_leave(d, KV_OK);
}
/* P7: no write or sync on a file that one failed on: what it holds is no longer known. */
static void disk_check_failed(disk *d, const disk_node *n, const disk_handle *h, const char *what)
{
    char text[180];
    if (!n->failed) return;
    snprintf(text, sizeof text, "%.40s %.120s", what, h->path);
    disk_violate(d, "P7 after a failed write or sync of this file", text);
}
static kv_status disk_write_locked(disk *d, kv_file *file, uint32_t call, uint64_t offset, const void *data, size_t size)
{
    disk_handle *h = (disk_handle *)file;
    disk_node   *n = disk_handle_node(d, file, "write");
    size_t       done = size;
    kv_status    s = KV_OK;
    if (!n) return disk_fail(EBADF);
    if (!h->writable) { disk_violate(d, "write on a handle opened to read", h->path); return disk_fail(EBADF); }
    disk_check_failed(d, n, h, "write to");
    if (call == DISK_CALL_APPEND) offset = n->now.size;
    if (disk_faulty(d, call, h->path)) {
        disk_fault_kind kind = d->fault.kind;
        s = disk_fault_status(d);
        done = kind == DISK_FAULT_DONE ? size : kind == DISK_FAULT_SHORT || kind == DISK_FAULT_SHORT_SPACE ? size / 2 : 0;
    } else if (d->capacity_bytes) {
        uint64_t used = disk_used_bytes_locked(d), end = offset + size, more = end > n->now.size ? end - n->now.size : 0;
        uint64_t room = used < d->capacity_bytes ? d->capacity_bytes - used : 0;
        if (more > room) {
            s = disk_fail(ENOSPC);
            done = size - (size_t)(more - room < size ? more - room : size);
        }
    }
    if (done) disk_put(d, h->node, (size_t)offset, data, done);
    if (s < 0) n->failed = true;
    return s;
}
static kv_status disk_io_append(void *user, kv_file *file, const void *data, size_t size)
{
    disk *d = disk_enter(user);
    return disk_leave(d, disk_write_locked(d, file, DISK_CALL_APPEND, 0, data, size));
}
static kv_status disk_io_write_at(void *user, kv_file *file, uint64_t offset, const void *data, size_t size)
{
    disk *d = disk_enter(user);
    return disk_leave(d, disk_write_locked(d, file, DISK_CALL_WRITE_AT, offset, data, size));
}
static kv_status disk_io_sync(void *user, kv_file *file)
{
    disk        *d = disk_enter(user);
    disk_handle *h = (disk_handle *)file;
    disk_node   *n = disk_handle_node(d, file, "sync");
    disk_op      op;
    bool         fault;
    if (!n) return disk_leave(d, disk_fail(EBADF));
    disk_check_failed(d, n, h, "sync of");
    fault = disk_faulty(d, DISK_CALL_SYNC, h->path);
    memset(&op, 0, sizeof op);
    op.node = h->node;
    op.kind = fault && d->fault.kind == DISK_FAULT_SYNC_DROPS ? DISK_DROP : DISK_SYNC;
    if (!fault || d->fault.kind == DISK_FAULT_SYNC_DROPS || d->fault.kind == DISK_FAULT_DONE) disk_do(d, &op);
    if (fault) { n->failed = true; return disk_leave(d, disk_fault_status(d)); }
    d->syncs++;
    return disk_leave(d, KV_OK);
}
static disk_lock *disk_lock_find(disk *d, const char *path)
{
    for (size_t i = 0; i < d->lock_count; i++) if (strcmp(d->locks[i].path, path) == 0) return &d->locks[i];
    return NULL;
}
static kv_status disk_io_rename(void *user, const char *from, const char *to)
{
    disk      *d = disk_enter(user);
    disk_op    op;
    disk_node *n, *target;
    bool       fault = disk_faulty(d, DISK_CALL_RENAME, from);
    if (fault && !disk_fault_takes_effect(d)) return disk_leave(d, disk_fault_status(d));
    memset(&op, 0, sizeof op);
    n = disk_lookup(d, from, &op.from);
    if (!n || !disk_walk(d, to, &op.to)) return disk_leave(d, disk_fail(ENOENT));
    target = op.to.node == UINT32_MAX ? NULL : d->nodes[op.to.node];
    if (target && target->is_dir) return disk_leave(d, disk_fail(EISDIR));
    op.kind = DISK_RENAME;
    op.node = op.to.node = op.from.node;
    if (target != n) disk_do(d, &op);               /* two names of one file: POSIX does nothing */
    return disk_leave(d, fault ? disk_fault_status(d) : KV_OK);
}
static kv_status disk_io_remove(void *user, const char *path)
{
    disk      *d = disk_enter(user);
    disk_op    op;
    disk_node *n;
    disk_lock *held;
    bool       fault = disk_faulty(d, DISK_CALL_REMOVE, path);
    if (fault && !disk_fault_takes_effect(d)) return disk_leave(d, disk_fault_status(d));
    memset(&op, 0, sizeof op);
    n = disk_lookup(d, path, &op.to);
    if (!n) return disk_leave(d, disk_fail(ENOENT));
    for (size_t i = 0; n->is_dir && i < d->names.count; i++)
        if (d->names.list[i].dir == op.to.node) return disk_leave(d, disk_fail(ENOTEMPTY));
    held = disk_lock_find(d, path);
    if (held && (held->shared || held->exclusive)) disk_violate(d, "removes a file that is locked", path);
    op.kind = DISK_REMOVE;
    op.node = op.to.node;
    disk_do(d, &op);
    return disk_leave(d, fault ? disk_fault_status(d) : KV_OK);
}
static kv_status disk_io_list(void *user, const char *path, void (*each)(void *context, const char *name), void *context)
{
    disk      *d = disk_enter(user);
    disk_name  name, *copy;
    size_t     count = 0;
    disk_node *n = disk_lookup(d, path, &name);
    if (disk_faulty(d, DISK_CALL_LIST, path)) return disk_leave(d, disk_fault_status(d));
    if (!n) return disk_leave(d, disk_fail(ENOENT));
    if (!n->is_dir) return disk_leave(d, disk_fail(ENOTDIR));
    copy = (disk_name *)disk_alloc(NULL, d->names.count * sizeof *copy);
    for (size_t i = 0; i < d->names.count; i++) if (d->names.list[i].dir == name.node) copy[count++] = d->names.list[i];
    disk_leave(d, KV_OK);
    for (size_t i = 0; i < count; i++) each(context, copy[i].text);
    free(copy);
    return KV_OK;
}
static kv_status disk_io_make_dir(void *user, const char *path)
{
    disk   *d = disk_enter(user);
    disk_op op;
    bool    fault = disk_faulty(d, DISK_CALL_MAKE_DIR, path);
    if (fault && !disk_fault_takes_effect(d)) return disk_leave(d, disk_fault_status(d));
    memset(&op, 0, sizeof op);
    if (!disk_walk(d, path, &op.to)) return disk_leave(d, disk_fail(ENOENT));
    if (op.to.node != UINT32_MAX) return disk_leave(d, disk_fail(EEXIST));
    op.kind = DISK_MAKE_DIR;
    op.node = op.to.node = (uint32_t)d->node_count;
    disk_do(d, &op);
    return disk_leave(d, fault ? disk_fault_status(d) : KV_OK);
}
static kv_status disk_io_sync_dir(void *user, const char *path)
{
    disk      *d = disk_enter(user);
    disk_op    op;
    disk_name  name;
    disk_node *n = disk_lookup(d, path, &name);
    bool       fault = disk_faulty(d, DISK_CALL_SYNC_DIR, path);
    if (fault && !disk_fault_takes_effect(d)) return disk_leave(d, disk_fault_status(d));
    if (!n) return disk_leave(d, disk_fail(ENOENT));
    if (!n->is_dir) return disk_leave(d, disk_fail(ENOTDIR));
    memset(&op, 0, sizeof op);
    op.kind = DISK_SYNC_DIR;
    op.node = name.node;
    disk_do(d, &op);
    if (fault) return disk_leave(d, disk_fault_status(d));
    d->dir_syncs++;
    return disk_leave(d, KV_OK);
}
static kv_status disk_io_lock(void *user, const char *path, bool shared, kv_file **lock, uint64_t *holder)
{
    disk        *d = disk_enter(user);
    disk_name    name;
    disk_lock   *held;
    disk_handle *h;
    *holder = 0;
    if (disk_faulty(d, DISK_CALL_LOCK, path)) return disk_leave(d, disk_fault_status(d));
    if (!disk_walk(d, path, &name)) return disk_leave(d, disk_fail(ENOENT));
    if (name.node == UINT32_MAX) {
        disk_op op;
        if (shared) return disk_leave(d, disk_fail(ENOENT));
        memset(&op, 0, sizeof op);
        op.kind = DISK_CREATE;
        op.node = name.node = (uint32_t)d->node_count;
        op.to = name;
        disk_do(d, &op);
    }
    held = disk_lock_find(d, path);
    if (!held) {
        d->locks = (disk_lock *)disk_alloc(d->locks, (d->lock_count + 1) * sizeof *d->locks);
        held = &d->locks[d->lock_count++];
        memset(held, 0, sizeof *held);
        snprintf(held->path, sizeof held->path, "%s", path);
    }
    if (held->exclusive || (held->shared && !shared)) { *holder = 4711; return disk_leave(d, disk_fail(EAGAIN)); }
    if (shared) held->shared++; else held->exclusive++;
    h = disk_handle_new(d, name.node, !shared, path);
    h->is_lock = true;
    *lock = (kv_file *)h;
    return disk_leave(d, KV_OK);
}
static kv_status disk_io_unlock(void *user, kv_file *lock)
{
    disk        *d = disk_enter(user);
    disk_handle *h = (disk_handle *)lock;
    disk_node   *n = disk_handle_node(d, lock, "unlock");
    disk_lock   *held;
    if (!n) return disk_leave(d, disk_fail(EBADF));
    if (!h->is_lock) disk_violate(d, "P6 unlock of what is no lock", h->path);
    held = disk_lock_find(d, h->path);
    if (held) { if (h->writable) held->exclusive--; else held->shared--; }
    n->opened--;
    h->closed = true;
    return disk_leave(d, KV_OK);
}
static kv_status disk_io_map(void *user, kv_file *file, size_t size, const void **data)
{
    disk      *d = disk_enter(user);
    disk_node *n = disk_handle_node(d, file, "map");
    if (!n) return disk_leave(d, disk_fail(EBADF));
    if (disk_faulty(d, DISK_CALL_MAP, ((disk_handle *)file)->path)) return disk_leave(d, disk_fault_status(d));
    if (!size || size > n->now.size) return disk_leave(d, disk_fail(EINVAL));
    d->mappings = (disk_mapping *)disk_alloc(d->mappings, (d->mapping_count + 1) * sizeof *d->mappings);
    d->mappings[d->mapping_count].data = n->now.bytes->data;
    d->mappings[d->mapping_count++].bytes = disk_bytes_share(n->now.bytes);
    *data = n->now.bytes->data;
    return disk_leave(d, KV_OK);
}
static void disk_io_unmap(void *user, const void *data, size_t size)
{
    disk  *d = disk_enter(user);
    size_t i;
    (void)size;
    for (i = 0; i < d->window_count && d->windows[i].data != data; i++) { }
    if (i < d->window_count) {
        free(d->windows[i].data);
        d->windows[i] = d->windows[--d->window_count];
        disk_leave(d, KV_OK);
        return;
    }
    for (i = 0; i < d->mapping_count && d->mappings[i].data != data; i++) { }
    if (i == d->mapping_count) disk_violate(d, "P6 unmap of what is not mapped", "");
    else {
        disk_bytes_release(d->mappings[i].bytes);
        d->mappings[i] = d->mappings[--d->mapping_count];
    }
    disk_leave(d, KV_OK);
}
/* The file grows by zeros, as by a write of them; then a copy of that part, looked at again and again. */
static kv_status disk_io_map_write(void *user, kv_file *file, uint64_t offset, size_t size, void **data)
{
    disk        *d = disk_enter(user);
    disk_handle *h = (disk_handle *)file;
    disk_node   *n = disk_handle_node(d, file, "map_write");
    size_t       end = (size_t)offset + size, more;
    disk_window *v;
    bool         fault;
    if (!n) return disk_leave(d, disk_fail(EBADF));
    if (!h->writable || offset % 65536) { disk_violate(d, "map_write on a handle opened to read, or of an odd place", h->path); return disk_leave(d, disk_fail(EINVAL)); }
    disk_check_failed(d, n, h, "map_write of");
    fault = disk_faulty(d, DISK_CALL_MAP_WRITE, h->path);
    if (fault && !disk_fault_takes_effect(d)) return disk_leave(d, disk_fault_status(d));
    more = end > n->now.size ? end - n->now.size : 0;
    if (d->capacity_bytes && disk_used_bytes_locked(d) + more > d->capacity_bytes) return disk_leave(d, disk_fail(ENOSPC));
    if (more) {
        char *zeros = (char *)disk_alloc(NULL, more);
        memset(zeros, 0, more);
        disk_put(d, h->node, n->now.size, zeros, more);
        free(zeros);
    }
    if (fault) return disk_leave(d, disk_fault_status(d));
    d->windows = (disk_window *)disk_alloc(d->windows, (d->window_count + 1) * sizeof *d->windows);
    v = &d->windows[d->window_count++];
    v->node = h->node;
    v->offset = (size_t)offset;
    v->size = size;
    v->data = (char *)disk_alloc(NULL, size);
    memcpy(v->data, n->now.bytes->data + offset, size);
    *data = v->data;
    return disk_leave(d, KV_OK);
}
static kv_status disk_io_truncate(void *user, kv_file *file, uint64_t size)
{
    disk        *d = disk_enter(user);
    disk_handle *h = (disk_handle *)file;
    disk_node   *n = disk_handle_node(d, file, "truncate");
    disk_op      op;
    bool         fault;
    if (!n) return disk_leave(d, disk_fail(EBADF));
    disk_check_failed(d, n, h, "truncate of");
    if (!h->writable || size > n->now.size) { disk_violate(d, "truncate on a handle opened to read, or to more", h->path); return disk_leave(d, disk_fail(EINVAL)); }
    for (size_t i = 0; i < d->window_count; i++)
        if (d->windows[i].node == h->node && d->windows[i].offset + d->windows[i].size > size) disk_violate(d, "P6 truncate of what is mapped", h->path);
    fault = disk_faulty(d, DISK_CALL_TRUNCATE, h->path);
    if (fault && !disk_fault_takes_effect(d)) return disk_leave(d, disk_fault_status(d));
    memset(&op, 0, sizeof op);
    op.kind = DISK_TRUNCATE;
    op.node = h->node;
    op.size = (size_t)size;
    disk_do(d, &op);
    return disk_leave(d, fault ? disk_fault_status(d) : KV_OK);
}
static kv_status disk_io_link(void *user, const char *from, const char *to)
{
    disk      *d = disk_enter(user);
    disk_op    op;
    disk_name  source;
    disk_node *n;
    bool       fault = disk_faulty(d, DISK_CALL_LINK, to);
    if (fault && !disk_fault_takes_effect(d)) return disk_leave(d, disk_fault_status(d));
    memset(&op, 0, sizeof op);
    n = disk_lookup(d, from, &source);
    if (!n || n->is_dir || !disk_walk(d, to, &op.to)) return disk_leave(d, disk_fail(ENOENT));
    if (op.to.node != UINT32_MAX) return disk_leave(d, disk_fail(EEXIST));
    op.kind = DISK_LINK;
    op.node = op.to.node = source.node;
    disk_do(d, &op);
    return disk_leave(d, fault ? disk_fault_status(d) : KV_OK);
}
static int disk_io_os_error(void *user) { (void)user; return disk_errno; }

/* The kv_io of this disk; it lives as long as the disk. */
static TEST_UNUSED const kv_io *disk_io(disk *d)
{
    d->io.user = d;
    d->io.open = disk_io_open;
    d->io.close = disk_io_close;
    d->io.size = disk_io_size;
    d->io.read_at = disk_io_read_at;
    d->io.append = disk_io_append;
    d->io.write_at = disk_io_write_at;
    d->io.sync = disk_io_sync;
    d->io.rename = disk_io_rename;
    d->io.remove = disk_io_remove;
    d->io.list = disk_io_list;
    d->io.make_dir = disk_io_make_dir;
    d->io.sync_dir = disk_io_sync_dir;
    d->io.lock = disk_io_lock;
    d->io.unlock = disk_io_unlock;
    d->io.map = d->no_map ? NULL : disk_io_map;
    d->io.unmap = d->no_map ? NULL : disk_io_unmap;
    d->io.link = d->no_link ? NULL : disk_io_link;
    d->io.os_error = disk_io_os_error;
    d->io.map_write = d->map_writes ? disk_io_map_write : NULL;
    d->io.truncate = disk_io_truncate;
    return &d->io;
}
static TEST_UNUSED disk *disk_new(void) { return disk_new_state(); }

/* Handles, locks and mappings that nobody gave back. */
static TEST_UNUSED size_t disk_open_count(const disk *d)
{
    size_t count = d->mapping_count + d->window_count;
    for (const disk_handle *h = d->handles; h; h = h->next) count += !h->closed;
    return count;
}

/* ------------------------------------------------------------------------------------------------
   >>files   a test's own hand on the files: not recorded, and durable at once                      */

static TEST_UNUSED disk_content *disk_file(disk *d, const char *path)
{
    disk_name  name;
    disk_node *n = disk_lookup(d, path, &name);
    return n && !n->is_dir ? &n->now : NULL;
}
/* Data and every name on the way are safe; for d->watch and for tests. */
static TEST_UNUSED bool disk_is_durable(const disk *d, const char *path)
{
    disk_name name, *safe;
    if (!disk_walk(d, path, &name) || name.node == UINT32_MAX || !disk_node_is_durable(d, name.node)) return false;
    for (;;) {
        if (!name.text[0]) return true;
        safe = disk_names_find(&d->safe_names, name.dir, name.text);
        if (!safe || safe->node != name.node) return false;
        if (name.dir == 0) return true;
        for (size_t i = 0; i < d->names.count; i++)
            if (d->names.list[i].node == name.dir) { name = d->names.list[i]; break; }
    }
}
static void disk_settle(disk *d, const char *path)
{
    disk_name  name;
    disk_node *n = disk_lookup(d, path, &name);
    disk_content_copy(&n->safe, &n->now);
    disk_node_forget_pending(n);
    disk_names_set(&d->safe_names, &name);
}
/* A file with these bytes, whatever was there. Its directory must exist. */
static TEST_UNUSED void disk_file_set(disk *d, const char *path, const void *data, size_t size)
{
    disk_name  name;
    disk_node *n;
    if (!disk_walk(d, path, &name)) abort();
    if (name.node == UINT32_MAX) { name.node = (uint32_t)d->node_count; disk_names_set(&d->names, &name); }
    n = disk_node_at(d, name.node);
    disk_bytes_release(n->now.bytes);
    n->now.bytes = NULL;
    n->now.size = 0;
    disk_content_put(&n->now, 0, (const char *)data, size);
    disk_settle(d, path);
}
static TEST_UNUSED void disk_file_remove(disk *d, const char *path)
{
    disk_name name;
    if (!disk_lookup(d, path, &name)) return;
    disk_names_drop(&d->names, &name);
    disk_names_drop(&d->safe_names, &name);
}
static TEST_UNUSED void disk_file_cut(disk *d, const char *path, size_t size)
{
    disk_content *c = disk_file(d, path);
    if (!c) return;
    disk_content_cut(c, size);
    disk_settle(d, path);
}
/* Bytes of a file, to be changed: this disk's alone. */
static TEST_UNUSED char *disk_file_open(disk *d, const char *path, size_t offset, size_t size)
{
    disk_content *c = disk_file(d, path);
    disk_name     name;
    disk_node    *n = disk_lookup(d, path, &name);
    char         *data;
    disk_bytes_release(n->safe.bytes);
    n->safe.bytes = NULL;
    n->safe.size = 0;
    disk_node_forget_pending(n);
    data = disk_content_open(c, offset, size);
    disk_settle(d, path);
    return data;
}
/* Visit the files of a directory (not its directories), in no order. */
static TEST_UNUSED size_t disk_files(disk *d, const char *dir, char paths[][256], size_t max)
{
    disk_name name;
    size_t    count = 0;
    if (!disk_lookup(d, dir, &name)) return 0;
    for (size_t i = 0; i < d->names.count && count < max; i++)
        if (d->names.list[i].dir == name.node && !d->nodes[d->names.list[i].node]->is_dir)
            snprintf(paths[count++], 256, "%.180s/%s", dir, d->names.list[i].text);
    return count;
}

#endif
