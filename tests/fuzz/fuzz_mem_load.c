/* fuzz_mem_load.c
   Goal: kv_mem_load takes any bytes: it merges them, or says why not and leaves the map as it was.
   Method: the input is the file. Because random bytes do not pass a checksum, the checks are put right first
   in a copy, wherever the structure can be followed, so that what is behind them is reached too (the first
   byte says whether). What loads is saved and loaded again: nothing may be lost on the way. */
#define KV_MEM_IMPLEMENTATION
#include "../../kv_mem.h"
#include "fuzz_main.h"

typedef struct fuzz_file { uint8_t *bytes; size_t size, capacity; } fuzz_file;
static fuzz_file fuzz_disk[3];              /* "in", "out" and "out.tmp" */

static fuzz_file *fuzz_find(const char *path) { return &fuzz_disk[strcmp(path, "in") == 0 ? 0 : strcmp(path, "out") == 0 ? 1 : 2]; }
static kv_status fuzz_open(void *user, const char *path, uint32_t flags, kv_file **file)
{
    (void)user;
    *file = (kv_file *)(void *)fuzz_find(path);
    if (flags & KV_OPEN_TRUNCATE) fuzz_find(path)->size = 0;
    return KV_OK;
}
static kv_status fuzz_close(void *user, kv_file *file) { (void)user; (void)file; return KV_OK; }
static kv_status fuzz_size(void *user, kv_file *file, uint64_t *size) { (void)user; *size = ((fuzz_file *)(void *)file)->size; return KV_OK; }
static kv_status fuzz_read(void *user, kv_file *file, uint64_t offset, void *data, size_t size, size_t *got)
{
    fuzz_file *f = (fuzz_file *)(void *)file;
    (void)user;
    *got = offset > f->size ? 0 : size < f->size - (size_t)offset ? size : f->size - (size_t)offset;
    if (*got) memcpy(data, f->bytes + offset, *got);
    return KV_OK;
}
static kv_status fuzz_append(void *user, kv_file *file, const void *data, size_t size)
{
    fuzz_file *f = (fuzz_file *)(void *)file;
    (void)user;
    if (f->size + size > f->capacity) {
        f->capacity = (f->size + size) * 2;
        f->bytes = (uint8_t *)realloc(f->bytes, f->capacity);
        if (!f->bytes) abort();
    }
    if (size) memcpy(f->bytes + f->size, data, size);
    f->size += size;
    return KV_OK;
}
static kv_status fuzz_sync(void *user, kv_file *file) { (void)user; (void)file; return KV_OK; }
static kv_status fuzz_rename(void *user, const char *from, const char *to)
{
    fuzz_file swap = *fuzz_find(from);
    (void)user;
    *fuzz_find(from) = *fuzz_find(to);
    *fuzz_find(to) = swap;
    return KV_OK;
}
static kv_status fuzz_remove(void *user, const char *path) { (void)user; (void)path; return KV_OK; }
static kv_status fuzz_sync_dir(void *user, const char *path) { (void)user; (void)path; return KV_OK; }

/* Put right what can be put right: magic, format, and every check that can be reached. */
static void fuzz_repair(uint8_t *b, size_t size)
{
    uint64_t id, blocks = 0, entries = 0;
    size_t   at = KVI_MEM_SNAPSHOT_HEAD;
    if (size < KVI_MEM_SNAPSHOT_HEAD) return;
    memcpy(b, kvi_mem_snapshot_magic, 8);
    kvi_store_le32(b + 8, KVI_MEM_SNAPSHOT_FORMAT);
    kvi_store_le32(b + 12, 0);
    kvi_store_le64(b + 24, kvi_hash(b, 24, 0));
    id = kvi_load_le64(b + 16);
    while (size - at >= KVI_MEM_SNAPSHOT_HEAD) {
        uint64_t seed = kvi_mix64(id + blocks), payload = kvi_load_le64(b + at + 8) % 4096;
        bool     last = size - at < 2 * KVI_MEM_SNAPSHOT_HEAD + payload;
        kvi_store_le32(b + at, last ? 2 : 1);
        if (last) {
            kvi_store_le32(b + at + 4, 0);
            kvi_store_le64(b + at + 8, blocks);
            kvi_store_le64(b + at + 16, entries);
        } else {
            kvi_store_le64(b + at + 8, payload);
            kvi_store_le64(b + at + 16, kvi_hash(b + at + KVI_MEM_SNAPSHOT_HEAD, (size_t)payload, seed));
        }
        kvi_store_le64(b + at + 24, kvi_hash(b + at, 24, seed));
        if (last) return;
        entries += kvi_load_le32(b + at + 4);
        blocks++;
        at += KVI_MEM_SNAPSHOT_HEAD + (size_t)payload;
    }
}
static bool fuzz_compare(void *user, kv_slice key, kv_slice value)
{
    kv_buf got;
    memset(&got, 0, sizeof got);
    FUZZ_CHECK(kv_mem_get((kv_mem *)user, key, &got) == KV_OK && kv_equal(kv_buf_slice(&got), value));
    kv_buf_free(&got);
    return true;
}
static uint64_t fuzz_now(void *user) { (void)user; return 1000; }
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kv_io          io;
    kv_mem_options o;
    kv_mem        *m, *again;
    kv_status      s;
    memset(&io, 0, sizeof io);
    memset(&o, 0, sizeof o);
    io.open = fuzz_open; io.close = fuzz_close; io.size = fuzz_size; io.read_at = fuzz_read; io.append = fuzz_append;
    io.sync = fuzz_sync; io.rename = fuzz_rename; io.remove = fuzz_remove; io.sync_dir = fuzz_sync_dir;
    if (!size) return 0;
    fuzz_disk[0].size = 0;
    (void)fuzz_append(NULL, (kv_file *)(void *)&fuzz_disk[0], data + 1, size - 1);
    if (data[0] & 1) fuzz_repair(fuzz_disk[0].bytes, fuzz_disk[0].size);
    o.io = &io;
    o.now_ms = fuzz_now;
    o.single_thread = (data[0] & 2) != 0;
    o.shards = 2;
    if (kv_mem_open(&o, &m) != KV_OK || kv_mem_open(&o, &again) != KV_OK) abort();
    FUZZ_CHECK(kv_mem_set(m, KV_STR("was"), KV_STR("here")) == KV_OK);
    s = kv_mem_load(m, "in");
    FUZZ_CHECK(s <= 0);
    if (s < 0) FUZZ_CHECK(kv_mem_count(m) == 1 && kv_mem_exists(m, KV_STR("was")) == KV_OK);
    else {
        FUZZ_CHECK(kv_mem_save(m, "out") == KV_OK);
        FUZZ_CHECK(kv_mem_load(again, "out") == KV_OK);
        FUZZ_CHECK(kv_mem_count(again) == kv_mem_count(m));
        FUZZ_CHECK(kv_mem_scan(m, NULL, fuzz_compare, again) == KV_OK);
    }
    kv_mem_close(again);
    kv_mem_close(m);
    return 0;
}
