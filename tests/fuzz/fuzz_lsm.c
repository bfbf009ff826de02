/* fuzz_lsm.c
   Goal: a store whose files hold any bytes at all, with right checks, opens or says why not. No crash, nothing
   read outside, no endless loop, no memory for a size that the bytes make up; what kv_lsm_check passes is a map:
   it ascends, as many in both directions, and reads without a failure; where no table lies above another (whose
   entries would have to be newer, which no check tells) each key that a scan shows is found, with its value;
   what kv_lsm_repair mends passes. Without a change everything is there.
   Method: the input is a script. It picks one of five small stores (made once: every codec, both styles,
   closed and not, with deletes, old versions, ingested tables, room at the end of a log), and changes its
   files: they are taken apart into header, blocks (unpacked, if the script says so), records and footer,
   bytes of which are overwritten, put in, cut out, copied from elsewhere; whole parts are dropped, doubled,
   swapped. Then they are put together again: sizes, places and checks are made to fit, where the script has
   not changed those themselves, in the index, the footer and the manifest too. So every decoder behind a
   check is reached. All of it is done on a disk in memory (kv_disk.h) with an allocator that has a limit. */
#define KV_LSM_IMPLEMENTATION
#include "../../kv_lsm.h"
#include "../kv_disk.h"
#include "fuzz_main.h"

enum {
    BASES = 5, FILES_MAX = 24, PARTS_MAX = 96, KEYS = 40,
    CALLS_MAX = 200000,                     /* of the kv_io for one input; an endless loop has more */
    MEMORY_MAX = 48 << 20,                  /* for all of one store */
    REQUEST_MAX = 24 << 20                  /* at once: the files are some kilobytes, of which zstd may make 32 KiB a byte */
};
enum { ONE_RUN = 4 };                       /* the base whose tables do not lie above each other */
static const char dir[] = "db";

/* ---- memory with a limit ---- */

static size_t memory_live;
static void *memory_resize(void *user, void *memory, size_t old_size, size_t new_size)
{
    void *p;
    (void)user;
    FUZZ_CHECK(new_size <= REQUEST_MAX);
    if (!new_size) { free(memory); memory_live -= old_size; return NULL; }
    if (memory_live - old_size + new_size > MEMORY_MAX) return NULL;
    p = realloc(memory, new_size);
    if (p) memory_live += new_size - old_size;
    return p;
}

/* ---- files in parts ---- */

typedef enum part_kind { PLAIN, BLOCK, RECORD, FOOTER, HEADER } part_kind;
typedef struct part {
    part_kind kind;
    uint8_t   head[KVI_LSM_RECORD_SIZE];    /* of a block or record */
    const uint8_t *data, *raw;              /* raw: a packed block, unpacked */
    size_t    size, raw_size;
    bool      kept;                         /* its head or, of others, its bytes were changed: only the check is made to fit */
} part;
typedef struct file { char path[256]; int kind; uint64_t number; size_t count; bool changed; part parts[PARTS_MAX]; } file;
enum { CURRENT_FILE = 3 };                  /* a kind, after KVI_LSM_LOG, _TABLE, _MANIFEST */

typedef struct base {
    disk    *d;
    uint8_t  id[16];
    size_t   count;
    file     files[FILES_MAX];
    kv_buf   truth;                         /* what a scan shows: sizes, keys, values */
} base;
static base bases[BASES];
static file work[FILES_MAX];                /* of this input */

#define POOL (8u << 20)
static uint8_t *pool;                       /* changed bytes */
static size_t   pool_used, pool_floor;      /* below the floor: of the bases */
static uint8_t *pool_take(size_t size)
{
    uint8_t *p = pool + pool_used;
    FUZZ_CHECK(size <= POOL - pool_used);
    pool_used += size;
    return p;
}

static part *add_part(file *f, part_kind kind, const uint8_t *bytes, size_t head, size_t size)
{
    part *p = &f->parts[f->count];
    FUZZ_CHECK(f->count < PARTS_MAX);
    f->count++;
    memset(p, 0, sizeof *p);
    p->kind = kind;
    if (head) memcpy(p->head, bytes, head);
    p->data = bytes + head;
    p->size = size;
    return p;
}
static void take_apart(file *f, const uint8_t *bytes, size_t size, kv_compressor *c)
{
    size_t at = 0, end = size;
    if (f->kind == CURRENT_FILE) { add_part(f, PLAIN, bytes, 0, size); return; }
    add_part(f, HEADER, bytes, 0, KVI_LSM_HEADER_SIZE);
    at = KVI_LSM_HEADER_SIZE;
    if (f->kind == KVI_LSM_TABLE) {
        for (end -= KVI_LSM_FOOTER_SIZE; at < end;) {
            size_t n = kvi_load_le32(bytes + at + 8);
            part  *p = add_part(f, BLOCK, bytes + at, KVI_LSM_BLOCK_SIZE, n);
            if (p->head[17] != KV_CODEC_NONE) {
                uint8_t *raw;
                p->raw_size = kvi_load_le32(p->head + 12);
                raw = pool_take(p->raw_size);
                FUZZ_CHECK(kv_codec_unpack(c, (kv_codec)p->head[17], kv_bytes(p->data, n), raw, p->raw_size) == KV_OK);
                p->raw = raw;
            }
            at += KVI_LSM_BLOCK_SIZE + n;
        }
        add_part(f, FOOTER, bytes + at, 0, KVI_LSM_FOOTER_SIZE);
        return;
    }
    while (at < end && kvi_load_le32(bytes + at)) {
        size_t n = kvi_load_le32(bytes + at + 8);
        add_part(f, RECORD, bytes + at, KVI_LSM_RECORD_SIZE, n);
        at += KVI_LSM_RECORD_SIZE + n;
    }
    if (at < end) add_part(f, PLAIN, bytes + at, 0, end - at);
}

/* ---- the stores ---- */

static kv_lsm_options options_of(disk *d, int which)
{
    static const kv_codec codecs[BASES] = { KV_CODEC_NONE, KV_CODEC_LZ4, KV_CODEC_ZSTD, KV_CODEC_NONE, KV_CODEC_NONE };
    kv_lsm_options o;
    memset(&o, 0, sizeof o);
    o.allocator.resize = memory_resize;
    o.memtable_bytes = 4096;
    o.block_bytes = which == 3 ? 64 : 192;
    o.codec = codecs[which];
    o.bloom_fp_rate = which == 3 ? KV_NO_BLOOM : 0.01;
    o.cache_bytes = which == 1 ? KV_NONE : 65536;
    o.style = which == 1 ? KV_LSM_TIERED : KV_LSM_LEVELED;
    o.sync = KV_SYNC_NONE;
    o.l0_trigger = 3;
    o.l1_bytes = 1024;
    o.level_ratio = 2;
    o.table_bytes = 1024;
    o.open_files = 2;
    o.map_tables = which == 0;
    o.no_background = true;
    o.io = disk_io(d);
    return o;
}
static kv_slice key_of(uint32_t i)
{
    static char text[24];
    if (i == 0) return kv_bytes("", 0);
    if (i == 1) return kv_bytes("\0\0", 2);
    if (i == 2) return KV_STR("k\xFF\xFF");
    snprintf(text, sizeof text, "k%03u%s", (unsigned)i, i % 5 ? "" : "/long");
    return kv_cstr(text);
}
static kv_slice value_of(uint32_t i, uint32_t round)
{
    static char text[400];
    size_t size = i % 7 == 0 ? 300 : i % 3 * 8;
    for (size_t k = 0; k < size; k++) text[k] = (char)('a' + (k % 11 + round) % 26);
    return kv_bytes(text, size);
}
static bool keep_entry(void *user, kv_slice key, kv_slice value)
{
    kv_buf  *b = (kv_buf *)user;
    uint64_t sizes[2];
    sizes[0] = key.size;
    sizes[1] = value.size;
    FUZZ_CHECK(kv_buf_append(b, kv_bytes(sizes, sizeof sizes)) == KV_OK && kv_buf_append(b, key) == KV_OK && kv_buf_append(b, value) == KV_OK);
    return b->size < 4u << 20;
}
static void ingest_some(kv_lsm *db, int which)
{
    disk          *d = disk_new();
    kv_lsm_options o = options_of(d, which);
    kv_lsm        *other;
    kv_iter       *i;
    FUZZ_CHECK(kv_lsm_open(dir, &o, &other) == KV_OK);
    for (uint32_t k = 3; k < KEYS; k += 3) FUZZ_CHECK(kv_lsm_set(other, key_of(k), value_of(k, 9)) == KV_OK);
    FUZZ_CHECK(kv_lsm_iter_open(other, NULL, NULL, &i) == KV_OK && kv_lsm_ingest(db, i) == KV_OK);
    kv_iter_close(i);
    FUZZ_CHECK(kv_lsm_close(other) == KV_OK);
    disk_free(d);
}
static void make_base(base *b, int which)
{
    char           paths[FILES_MAX][256];
    disk          *d = disk_new();
    kv_lsm_options o;
    kv_lsm        *db;
    kv_snapshot   *old;
    kv_compressor *c;
    uint64_t       number;
    disk_content  *current;
    d->recording = false;
    d->map_writes = which == 0;
    o = options_of(d, which);
    FUZZ_CHECK(kv_compressor_open(NULL, &c) == KV_OK && kv_lsm_open(dir, &o, &db) == KV_OK);
    for (uint32_t round = 0; round < 4; round++) {
        if (round == 1) FUZZ_CHECK(kv_lsm_snapshot(db, &old) == KV_OK);
        for (uint32_t i = round; i < KEYS; i += 1 + round % 3)
            FUZZ_CHECK((i % 9 == round ? kv_lsm_delete(db, key_of(i)) : kv_lsm_set(db, key_of(i), value_of(i, round))) == KV_OK);
        if (round < 3) FUZZ_CHECK(kv_lsm_flush(db) == KV_OK);
        if (round == 1 || which == 3) FUZZ_CHECK(kv_lsm_compact(db, NULL, NULL, NULL) == KV_OK);
        if (round == 2 && which >= 2) ingest_some(db, which);
    }
    if (which == ONE_RUN) { kv_lsm_snapshot_release(db, old); FUZZ_CHECK(kv_lsm_compact(db, NULL, NULL, NULL) == KV_OK); }
    FUZZ_CHECK(kv_lsm_sync(db) == KV_OK && kv_lsm_scan(db, NULL, keep_entry, &b->truth) == KV_OK);
    if (which == 0 || which == ONE_RUN) { FUZZ_CHECK(kv_lsm_close(db) == KV_OK); b->d = d; }
    else {
        b->d = disk_fork(d);
        FUZZ_CHECK(kv_lsm_close(db) == KV_OK);
        disk_free(d);
    }
    current = disk_file(b->d, "db/CURRENT");
    FUZZ_CHECK(kvi_lsm_current_parse(current->bytes->data, current->size, b->id, &number) == KV_OK);
    for (size_t n = disk_files(b->d, dir, paths, FILES_MAX), i = 0; i < n; i++) {
        file         *f = &b->files[b->count];
        const char   *name = strrchr(paths[i], '/') + 1;
        disk_content *content = disk_file(b->d, paths[i]);
        f->kind = strcmp(name, "CURRENT") == 0 ? CURRENT_FILE : strstr(name, ".log") ? KVI_LSM_LOG : strstr(name, ".kvt") ? KVI_LSM_TABLE : strstr(name, "MANIFEST-") ? KVI_LSM_MANIFEST : -1;
        if (f->kind < 0) continue;                          /* LOCK */
        memcpy(f->path, paths[i], sizeof f->path);
        f->number = strtoull(f->kind == KVI_LSM_MANIFEST ? name + 9 : name, NULL, 10);
        take_apart(f, (const uint8_t *)content->bytes->data, content->size, c);
        b->count++;
    }
    kv_compressor_close(c);
}

/* ---- changes ---- */

static size_t any_place(fuzz_input *in, size_t size)    /* 0 .. size: near the front, near the end, anywhere */
{
    size_t n = fuzz_take(in);
    if (n < 64) return n % (size + 1);
    if (n < 96) return size - (n - 64) % (size + 1);
    return (n << 8 | fuzz_take(in)) % (size + 1);
}
/* The bytes of a part with `cut` of them at `at` replaced by `size` new ones; NULL: zeros. */
static uint8_t *splice(part *p, size_t at, size_t cut, const uint8_t *bytes, size_t size)
{
    uint8_t *out;
    if (cut > p->size - at) cut = p->size - at;
    out = pool_take(p->size - cut + size);
    if (at) memcpy(out, p->data, at);
    if (size && bytes) memcpy(out + at, bytes, size); else if (size) memset(out + at, 0, size);
    if (p->size - at - cut) memcpy(out + at + size, p->data + at + cut, p->size - at - cut);
    p->data = out;
    p->size = p->size - cut + size;
    return out;
}
static void change_bytes(fuzz_input *in, part *p, const part *other)
{
    static const uint64_t numbers[] = { 0, 1, 2, 255, 256, 65535, 65536, 0x7FFFFFFF, 0x80000000u, 0xFFFFFFFFu, UINT64_C(0x7FFFFFFFFFFFFFFF), UINT64_MAX };
    uint8_t  what = fuzz_take(in), bytes[64];
    size_t   at = any_place(in, p->size), size = 1 + fuzz_take(in) % 64, from;
    if (p->kind != BLOCK && p->kind != RECORD) p->kept = true;
    switch (what % 7) {
    case 0: bytes[0] = fuzz_take(in); splice(p, at, 1, bytes, at < p->size); break;
    case 1:
        size = (size_t)1 << size % 4;
        kvi_store_le64(bytes, numbers[fuzz_take(in) % 12] - (what & 0x80 ? 1 : 0));
        splice(p, at, size, bytes, p->size - at < size ? p->size - at : size);
        break;
    case 2: for (size_t i = 0; i < size; i++) bytes[i] = fuzz_take(in); splice(p, at, what & 0x80 ? size : 0, bytes, size); break;
    case 3: splice(p, at, what & 0x80 ? size : 1, NULL, 0); break;
    case 4: splice(p, at, what & 0x80 ? SIZE_MAX : 0, NULL, what & 0x80 ? 0 : (size_t)fuzz_take(in) << 3); break;
    case 5:
        from = any_place(in, other->size);
        if (size > other->size - from) size = other->size - from;
        splice(p, at, what & 0x80 ? size : 0, other->data + from, size);
        break;
    default: if (at < p->size) splice(p, at, 0, NULL, 0)[at] ^= (uint8_t)(1 << size % 8); break;
    }
}
static void change(fuzz_input *in, base *b)
{
    uint8_t what = fuzz_take(in);
    file   *f = &work[fuzz_take(in) % b->count], *g = &work[fuzz_take(in) % b->count];
    part   *p, *q, swap;
    if (!f->count || !g->count) return;
    p = &f->parts[fuzz_take(in) % f->count];
    q = &g->parts[fuzz_take(in) % g->count];
    f->changed = true;
    if (p->raw && (what & 0x40)) {                          /* from now on it is not packed */
        p->data = p->raw;
        p->size = p->raw_size;
        p->head[17] = KV_CODEC_NONE;
        p->raw = NULL;
    }
    switch (what & 15) {
    default: change_bytes(in, p, q); break;
    case 10:                                                /* a size or a number of the head itself */
        if (p->kind == BLOCK || p->kind == RECORD) {
            size_t at = 8 + fuzz_take(in) % 20;
            p->kept = !(what & 0x80);
            if (at < (p->kind == BLOCK ? KVI_LSM_BLOCK_SIZE : KVI_LSM_RECORD_SIZE)) p->head[at] = fuzz_take(in);
        }
        break;
    case 11: memmove(p, p + 1, (size_t)(f->parts + --f->count - p) * sizeof *p); break;
    case 12: if (f->count < PARTS_MAX) { memmove(p + 1, p, (size_t)(f->parts + f->count++ - p) * sizeof *p); } break;
    case 13: swap = *p; *p = *q; *q = swap; g->changed = true; break;
    case 14: *p = *q; break;
    case 15:                                                /* a file goes, becomes like another, or has no parts any more */
        if (what & 0x80) { memcpy(f->parts, g->parts, sizeof f->parts); f->count = g->count; }
        else f->count = 0;
        break;
    }
}

/* ---- putting together ---- */

static uint64_t seed_of(const base *b, const file *f) { return kvi_lsm_seed(b->id, f->number, f->kind); }

/* A field 5 of a manifest with what the table says of itself now, and its size. */
static void append_table(kv_buf *out, const base *b, kvi_lsm_table *t, const size_t *sizes)
{
    for (size_t i = 0; i < b->count; i++) {
        kvi_lsm_table own;
        const file   *f = &work[i];
        if (f->kind != KVI_LSM_TABLE || f->number != t->number || !f->changed) continue;
        for (size_t k = 0; k < f->count; k++) {
            kvi_lsm_reader r = kvi_lsm_read_over(f->parts[k].data, f->parts[k].size);
            if (f->parts[k].kind != BLOCK || f->parts[k].head[16] != KVI_LSM_BLOCK_PROPERTIES || r.at == r.end || *r.at++ != KVI_LSM_FIELD_ADD) continue;
            if (kvi_lsm_read_table(&r, &own) && own.number == t->number) { uint8_t level = t->level; *t = own; t->level = level; }
        }
        t->size = sizes[i];
    }
    FUZZ_CHECK(kvi_lsm_put_table(NULL, out, t) == KV_OK);
}
/* A payload of the manifest, with what became of the tables. */
static void follow_tables(const base *b, part *p, const size_t *sizes)
{
    kv_buf         out;
    kvi_lsm_reader r = kvi_lsm_read_over(p->data, p->size);
    uint8_t       *bytes;
    memset(&out, 0, sizeof out);
    while (r.at < r.end && !r.bad) {
        const uint8_t *from = r.at;
        uint8_t        tag = *r.at++;
        kvi_lsm_table  t;
        if (tag == KVI_LSM_FIELD_ADD) {
            if (!kvi_lsm_read_table(&r, &t)) r.bad = true; else append_table(&out, b, &t, sizes);
            continue;
        }
        if (tag == 0 || tag > KVI_LSM_FIELD_DURABLE_LOG) { r.bad = true; break; }
        (void)kvi_lsm_read_varint(&r);
        if (tag == KVI_LSM_FIELD_REMOVE || tag == KVI_LSM_FIELD_CLEAN) (void)kvi_lsm_read_varint(&r);
        FUZZ_CHECK(kv_buf_append(&out, kv_bytes(from, (size_t)(r.at - from))) == KV_OK);
    }
    if (!r.bad && out.size) {
        bytes = pool_take(out.size);
        memcpy(bytes, out.data, out.size);
        p->data = bytes;
        p->size = out.size;
    }
    kv_buf_free(&out);
}
/* The sizes of the data blocks in an index that was not changed itself. */
static void follow_blocks(const file *f, part *index)
{
    uint32_t count = index->size >= 12 ? kvi_load_le32(index->data) : 0, data = 0;
    uint64_t at = index->size >= 12 ? 12 + (uint64_t)kvi_load_le32(index->data + 8) + (uint64_t)count * 4 : 0;
    uint8_t *bytes;
    for (size_t i = 0; i < f->count; i++) data += f->parts[i].kind == BLOCK && f->parts[i].head[16] == KVI_LSM_BLOCK_DATA;
    if (!count || count != data || index->head[17] != KV_CODEC_NONE || at + (uint64_t)count * 4 > index->size) return;
    bytes = splice(index, 0, 0, NULL, 0) + at;
    for (size_t i = 0; i < f->count; i++)
        if (f->parts[i].kind == BLOCK && f->parts[i].head[16] == KVI_LSM_BLOCK_DATA) {
            kvi_store_le32(bytes, (uint32_t)f->parts[i].size + KVI_LSM_BLOCK_SIZE);
            bytes += 4;
        }
}
static void put_block(uint8_t *to, part *p, uint64_t seed)
{
    if (!p->kept) {
        kvi_store_le32(p->head + 8, (uint32_t)p->size);
        if (p->head[17] == KV_CODEC_NONE) {
            kvi_store_le32(p->head + 12, (uint32_t)p->size);
            if (p->head[16] == KVI_LSM_BLOCK_DATA && p->size >= 4) kvi_store_le16(p->head + 18, (uint16_t)(kvi_load_le32(p->data) > 65535 ? 0 : kvi_load_le32(p->data)));
        }
    }
    kvi_store_le32(p->head + 4, kvi_checksum(p->data, p->size, seed));
    kvi_store_le32(p->head, kvi_checksum(p->head + 4, KVI_LSM_BLOCK_SIZE - 4, seed));
    memcpy(to, p->head, KVI_LSM_BLOCK_SIZE);
    if (p->size) memcpy(to + KVI_LSM_BLOCK_SIZE, p->data, p->size);
}
static void put_record(uint8_t *to, part *p, uint64_t seed, uint64_t offset)
{
    if (!p->kept) {
        kvi_store_le32(p->head + 8, (uint32_t)p->size);
        if (kvi_load_le64(p->head + 20) > offset) kvi_store_le64(p->head + 20, offset);
    }
    kvi_store_le32(p->head + 4, kvi_checksum(p->data, p->size, seed));
    kvi_store_le32(p->head, kvi_checksum(p->head + 4, KVI_LSM_RECORD_SIZE - 4, seed));
    memcpy(to, p->head, KVI_LSM_RECORD_SIZE);
    if (p->size) memcpy(to + KVI_LSM_RECORD_SIZE, p->data, p->size);
}
static void put_footer(uint8_t *to, const part *p, uint64_t seed, const uint64_t *at, uint64_t offset)
{
    if (p->size) memcpy(to, p->data, p->size);
    if (p->size < KVI_LSM_FOOTER_SIZE) return;
    if (!p->kept) {
        kvi_store_le64(to, at[KVI_LSM_BLOCK_PROPERTIES]);
        kvi_store_le64(to + 8, at[KVI_LSM_BLOCK_INDEX]);
        kvi_store_le64(to + 16, at[KVI_LSM_BLOCK_FILTER]);
        kvi_store_le32(to + 24, (uint32_t)(offset - at[KVI_LSM_BLOCK_PROPERTIES]));
        kvi_store_le32(to + 28, (uint32_t)(at[KVI_LSM_BLOCK_PROPERTIES] - at[KVI_LSM_BLOCK_INDEX]));
        kvi_store_le32(to + 32, at[KVI_LSM_BLOCK_FILTER] ? (uint32_t)(at[KVI_LSM_BLOCK_INDEX] - at[KVI_LSM_BLOCK_FILTER]) : 0);
    }
    kvi_store_le64(to + 56, kvi_hash(to, 56, seed + offset));
}
/* The text of CURRENT with the hash that it must have. */
static void put_current(uint8_t *to, const part *p)
{
    kvi_text t;
    if (p->size) memcpy(to, p->data, p->size);
    if (p->size < 18) return;
    t = kvi_text_over((char *)to + p->size - 17, 17);
    kvi_text_hex(&t, kvi_hash(to, p->size - 17, 0), 16);
    to[p->size - 1] = '\n';
}
static size_t put_together(disk *d, const base *b, file *f)
{
    uint64_t seed = f->kind == CURRENT_FILE ? 0 : seed_of(b, f), places[5] = { 0, 0, 0, 0, 0 };
    size_t   size = 0, at = 0;
    uint8_t *to;
    for (size_t i = 0; i < f->count; i++) {
        part *p = &f->parts[i];
        if (p->kind == BLOCK && p->head[16] == KVI_LSM_BLOCK_INDEX && !p->kept) follow_blocks(f, p);
        size += p->size + (p->kind == BLOCK ? KVI_LSM_BLOCK_SIZE : p->kind == RECORD ? KVI_LSM_RECORD_SIZE : 0);
    }
    to = pool_take(size);
    for (size_t i = 0; i < f->count; i++) {
        part *p = &f->parts[i];
        if (p->kind == BLOCK) {
            if (p->head[16] >= 1 && p->head[16] <= 4) places[p->head[16]] = at;
            put_block(to + at, p, seed + at);
            at += KVI_LSM_BLOCK_SIZE;
        } else if (p->kind == RECORD) {
            put_record(to + at, p, seed + at, at);
            at += KVI_LSM_RECORD_SIZE;
        } else if (p->kind == FOOTER) put_footer(to + at, p, seed, places, at);
        else if (f->kind == CURRENT_FILE) put_current(to + at, p);
        else if (p->size) memcpy(to + at, p->data, p->size);
        if (p->kind == HEADER && p->size >= KVI_LSM_HEADER_SIZE) kvi_store_le64(to + at + 56, kvi_hash(to + at, 56, 0));
        at += p->size;
    }
    disk_file_set(d, f->path, to, size);
    return size;
}
static void put_all(disk *d, const base *b)
{
    size_t sizes[FILES_MAX];
    bool   tables = false;
    for (size_t i = 0; i < b->count; i++)
        if (work[i].kind == KVI_LSM_TABLE && work[i].changed) {
            tables = true;
            sizes[i] = put_together(d, b, &work[i]);
            if (!work[i].count) disk_file_remove(d, work[i].path);
        }
    for (size_t i = 0; i < b->count; i++) {
        file *f = &work[i];
        if (f->kind == KVI_LSM_TABLE) continue;
        if (f->kind == KVI_LSM_MANIFEST && tables) {
            for (size_t k = 0; k < f->count; k++) if (f->parts[k].kind == RECORD) follow_tables(b, &f->parts[k], sizes);
            f->changed = true;
        }
        if (f->changed) (void)put_together(d, b, f);
        if (f->changed && !f->count) disk_file_remove(d, f->path);
    }
}

/* ---- questions ---- */

typedef enum trust { ANY, SOUND, EXACT } trust;    /* nothing; what kv_lsm_check passed; and get and scan must agree */
typedef struct asked { kv_lsm *db; trust sound; uint64_t count; kv_buf last, value, seen; } asked;

static bool ask_entry(void *user, kv_slice key, kv_slice value)
{
    asked    *a = (asked *)user;
    kv_status s = kv_lsm_get(a->db, key, &a->value);
    FUZZ_CHECK(key.size <= KV_KEY_SIZE_MAX && value.size <= KV_VALUE_SIZE_MAX);
    if (a->sound) FUZZ_CHECK(s >= 0 && (!a->count || kv_compare(kv_buf_slice(&a->last), key) < 0));
    if (a->sound == EXACT) FUZZ_CHECK(s == KV_OK && kv_equal(kv_buf_slice(&a->value), value));
    FUZZ_CHECK(kv_buf_assign(&a->last, key) == KV_OK);
    a->count++;
    return keep_entry(&a->seen, key, value);
}
/* Both directions are the same entries; a few steps to and fro. */
static void ask_cursor(asked *a, kv_slice question)
{
    kv_iter *i;
    uint64_t count = 0;
    if (kv_lsm_iter_open(a->db, NULL, NULL, &i) < 0) { FUZZ_CHECK(!a->sound); return; }
    for (kv_iter_last(i); kv_iter_valid(i) && count < 100000; kv_iter_prev(i)) {
        kv_slice key = kv_iter_key(i);
        if (a->sound && count) FUZZ_CHECK(kv_compare(key, kv_buf_slice(&a->last)) < 0);
        FUZZ_CHECK(kv_buf_assign(&a->last, key) == KV_OK && kv_buf_assign(&a->value, kv_iter_value(i)) == KV_OK);
        count++;
    }
    if (a->sound) FUZZ_CHECK(kv_iter_status(i) == KV_OK && count == a->count);
    kv_iter_seek(i, question);
    if (a->sound && kv_iter_valid(i)) FUZZ_CHECK(kv_compare(kv_iter_key(i), question) >= 0);
    for (int step = 0; step < 12 && kv_iter_valid(i); step++) { (void)kv_iter_value(i); if (step % 3) kv_iter_next(i); else kv_iter_prev(i); }
    kv_iter_close(i);
}
static void ask(kv_lsm *db, trust sound, const base *unchanged, kv_slice question)
{
    asked           a;
    kv_range        range;
    kv_lsm_location where;
    kv_status       s;
    uint64_t        n = 0;
    memset(&a, 0, sizeof a);
    memset(&range, 0, sizeof range);
    a.db = db;
    a.sound = sound;
    s = kv_lsm_scan(db, NULL, ask_entry, &a);
    if (sound) FUZZ_CHECK(s == KV_OK);
    if (unchanged) FUZZ_CHECK(kv_equal(kv_buf_slice(&unchanged->truth), kv_buf_slice(&a.seen)));
    s = kv_lsm_count(db, NULL, &n);
    if (sound) FUZZ_CHECK(s == KV_OK && n == a.count);
    ask_cursor(&a, question);
    for (uint32_t i = 0; i < KEYS; i += 3) {
        s = kv_lsm_get(db, key_of(i), &a.value);
        if (sound) FUZZ_CHECK(s >= 0 && kv_lsm_locate(db, key_of(i), &where) == s);
    }
    range.prefix = question.size ? kv_bytes(question.data, 1) : question;
    range.reverse = true;
    range.limit = 5;
    (void)kv_lsm_count(db, &range, &n);
    kv_buf_free(&a.last);
    kv_buf_free(&a.value);
    kv_buf_free(&a.seen);
}
/* What check and repair say, where somebody wants to know: FUZZ_TELL=1. */
static void tell(void *user, kv_status s, const char *text)
{
    static int wanted = -1;
    if (wanted < 0) wanted = getenv("FUZZ_TELL") != NULL;
    if (wanted) fprintf(stderr, "%s: %d %s\n", (const char *)user, (int)s, text);
}
static kv_status check(disk *d, int which)
{
    kv_lsm_options o = options_of(d, which);
    kv_status      s;
    uint64_t       written = d->bytes_written;
    s = kv_lsm_check(dir, &o, tell, (void *)(uintptr_t)"check");
    FUZZ_CHECK(d->bytes_written == written && memory_live == 0);
    return s;
}
/* Writes go on, and what a flush and a merge make of the tables is as sound as they were. */
static void go_on(kv_lsm *db, trust sound, kv_slice question)
{
    for (uint32_t i = 1; i < KEYS; i += 7) {
        kv_status s = kv_lsm_set(db, key_of(i), value_of(i, 20));
        if (sound) FUZZ_CHECK(s == KV_OK);
    }
    for (int i = 0; i < 20 && kv_lsm_step(db) == KV_OK; i++) continue;
    (void)kv_lsm_flush(db);
    if (kv_lsm_compact(db, NULL, NULL, NULL) == KV_OK && sound) ask(db, EXACT, NULL, question);
}
static void use(const disk *changed, int which, uint8_t how, trust sound, const base *unchanged, kv_slice question)
{
    disk          *d = disk_fork(changed);
    kv_lsm_options o = options_of(d, which);
    kv_lsm        *db = NULL;
    kv_status      s;
    o.skip_verify = how & 1;
    o.read_only = how & 2;
    o.map_tables = how & 4;
    o.cache_bytes = how & 8 ? KV_NONE : 65536;
    s = kv_lsm_open(dir, &o, &db);
    if (sound) FUZZ_CHECK(s == KV_OK);
    FUZZ_CHECK((s == KV_OK) == (db != NULL));
    if (db) {
        ask(db, sound, unchanged, question);
        if (!o.read_only) go_on(db, sound, question);
        s = kv_lsm_close(db);
        FUZZ_CHECK(memory_live == 0);
        if (sound && !o.read_only) FUZZ_CHECK(s == KV_OK && check(d, which) == KV_OK);
        if (!o.read_only && kv_lsm_open(dir, &o, &db) == KV_OK) { ask(db, sound ? EXACT : ANY, NULL, question); (void)kv_lsm_close(db); }
    }
    FUZZ_CHECK(memory_live == 0 && d->calls < CALLS_MAX && disk_open_count(d) == 0);
    disk_free(d);
}
static void mend(const disk *changed, int which, kv_slice question)
{
    disk          *d = disk_fork(changed);
    kv_lsm_options o = options_of(d, which);
    kv_lsm        *db = NULL;
    kv_status      s = kv_lsm_repair(dir, &o, tell, (void *)(uintptr_t)"repair");
    FUZZ_CHECK(memory_live == 0);
    if (s == KV_OK) {
        s = check(d, which);
        FUZZ_CHECK(s == KV_OK || s == KV_NOT_FOUND);
        FUZZ_CHECK(kv_lsm_open(dir, &o, &db) == KV_OK);
        ask(db, SOUND, NULL, question);
        FUZZ_CHECK(kv_lsm_close(db) == KV_OK);
    }
    FUZZ_CHECK(memory_live == 0 && d->calls < CALLS_MAX && disk_open_count(d) == 0);
    disk_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = { data, size };
    uint8_t    first = fuzz_take(&in), how = fuzz_take(&in);
    int        which = first % BASES;
    base      *b = &bases[which];
    disk      *d;
    kv_status  s;
    kv_slice   question = kv_bytes(data, size < 12 ? size : 12);
    bool       unchanged = in.size == 0, one_run = which == ONE_RUN;
    if (!pool) { pool = (uint8_t *)malloc(POOL); FUZZ_CHECK(pool); }
    if (!b->d) { pool_used = pool_floor; make_base(b, which); pool_floor = pool_used; FUZZ_CHECK(memory_live == 0); }
    pool_used = pool_floor;
    memcpy(work, b->files, sizeof work);
    for (int i = 0; i < 6 && in.size; i++) change(&in, b);
    d = disk_fork(b->d);
    d->map_writes = first & 0x40;
    for (size_t i = 0; i < b->count; i++) if (work[i].changed && work[i].kind != KVI_LSM_TABLE) one_run = false;
    put_all(d, b);
    s = check(d, which);
    if (unchanged) FUZZ_CHECK(s == KV_OK);
    use(d, which, how, s != KV_OK ? ANY : one_run || unchanged ? EXACT : SOUND, unchanged ? b : NULL, question);
    if (first & 0x80) mend(d, which, question);
    disk_free(d);
    return 0;
}
