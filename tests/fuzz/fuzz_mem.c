/* fuzz_mem.c
   Goal: whatever is done to a map, in whatever order, it answers as a plain list of entries would.
   Method: the input is a script over 48 keys. The first byte chooses one thread or several, the number of
   shards, and fixed memory; every answer is compared with the list, where a failure for want of memory
   must have changed nothing. */
#define KV_MEM_IMPLEMENTATION
#include "../../kv_mem.h"
#include "fuzz_main.h"

#define FUZZ_KEYS 48
typedef struct fuzz_entry { bool there; uint64_t expiry; uint8_t fill; size_t size; } fuzz_entry;
typedef struct fuzz_state { fuzz_entry entries[FUZZ_KEYS]; uint64_t now; kv_mem *m; size_t seen; } fuzz_state;

static uint8_t fuzz_bytes[70000];
static uint64_t fuzz_now(void *user) { return ((fuzz_state *)user)->now; }
/* Keys of many sizes; the number can be read back from the last byte. */
static kv_slice fuzz_key(uint32_t n, uint8_t *out)
{
    size_t size = n == 0 ? 0 : n % 7 == 0 ? n * 60u : n;
    memset(out, 'k', size);
    if (size) out[size - 1] = (uint8_t)n;
    return kv_bytes(out, size);
}
static fuzz_entry *fuzz_get(fuzz_state *f, uint32_t n)
{
    fuzz_entry *e = &f->entries[n];
    if (e->there && e->expiry && f->now >= e->expiry) e->there = false;
    return e;
}
static bool fuzz_same(const fuzz_entry *e, kv_slice value)
{
    if (value.size != e->size) return false;
    for (size_t i = 0; i < value.size; i++) if (((const uint8_t *)value.data)[i] != e->fill) return false;
    return true;
}
static void fuzz_put(fuzz_entry *e, uint8_t fill, size_t size, uint64_t expiry) { e->there = true; e->fill = fill; e->size = size; e->expiry = expiry; }
static bool fuzz_visit(void *user, kv_slice key, kv_slice value)
{
    fuzz_state *f = (fuzz_state *)user;
    uint32_t    n = key.size ? ((const uint8_t *)key.data)[key.size - 1] : 0;
    FUZZ_CHECK(n < FUZZ_KEYS && fuzz_get(f, n)->there && fuzz_same(fuzz_get(f, n), value));
    f->seen++;
    return true;
}
static kv_status fuzz_append(void *user, bool found, kv_slice old, kv_buf *value)
{
    (void)user; (void)found;
    return kv_buf_append(value, old);
}
static void fuzz_check_all(fuzz_state *f)
{
    size_t count = 0;
    for (uint32_t n = 0; n < FUZZ_KEYS; n++) count += fuzz_get(f, n)->there;
    FUZZ_CHECK(kv_mem_count(f->m) == count);
    f->seen = 0;
    if (kv_mem_scan(f->m, NULL, fuzz_visit, f) == KV_OK) FUZZ_CHECK(f->seen == count);
}
static void fuzz_step(fuzz_state *f, fuzz_input *in, kv_buf *got)
{
    static uint8_t key_bytes[8000];
    uint8_t     what = fuzz_take(in), fill = what, wide = fuzz_take(in);
    uint32_t    n = fuzz_take(in) % FUZZ_KEYS;
    size_t      size = wide < 240 ? wide : (size_t)fuzz_take_bits(in, 2);
    fuzz_entry *e = fuzz_get(f, n);
    kv_slice    key = fuzz_key(n, key_bytes), value = kv_bytes(fuzz_bytes, size);
    uint64_t    ttl = wide % 16;
    kv_status   s;
    switch (what % 14) {
    case 0: case 1: case 2: case 3:
        memset(fuzz_bytes, fill, size);
        s = what % 14 == 3 ? kv_mem_set_ttl(f->m, key, value, ttl) : what % 14 == 2 ? kv_mem_insert(f->m, key, value) : kv_mem_set(f->m, key, value);
        FUZZ_CHECK(s == KV_OK || s == KV_ERR_NO_MEMORY || (s == KV_EXISTS && what % 14 == 2 && e->there));
        if (s == KV_OK) fuzz_put(e, fill, size, what % 14 == 3 && ttl ? f->now + ttl : 0);
        break;
    case 4: case 5:
        FUZZ_CHECK(kv_mem_delete(f->m, key) == KV_OK);
        e->there = false;
        break;
    case 6:
        s = kv_mem_expire(f->m, key, ttl);
        FUZZ_CHECK(s == (e->there ? KV_OK : KV_NOT_FOUND) || s == KV_ERR_NO_MEMORY);
        if (s == KV_OK) e->expiry = ttl ? f->now + ttl : 0;
        break;
    case 7: f->now += wide % 8; break;
    case 8: FUZZ_CHECK(kv_mem_sweep(f->m, wide % 8) <= wide % 8u); break;
    case 9:
        s = kv_mem_update(f->m, key, fuzz_append, NULL);
        FUZZ_CHECK(s == KV_OK || s == KV_ERR_NO_MEMORY);
        if (s == KV_OK && !e->there) fuzz_put(e, 0, 0, 0);
        break;
    case 10:
        if (wide < 8) { kv_mem_clear(f->m); memset(f->entries, 0, sizeof f->entries); }
        fuzz_check_all(f);
        break;
    default:
        s = kv_mem_get(f->m, key, got);
        FUZZ_CHECK(s == (e->there ? KV_OK : KV_NOT_FOUND));
        if (s == KV_OK) FUZZ_CHECK(fuzz_same(e, kv_buf_slice(got)));
        break;
    }
}
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint64_t memory[16384];
    fuzz_input     in;
    fuzz_state     f;
    kv_mem_options o;
    kv_arena       arena;
    kv_buf         got;
    uint8_t        how;
    in.data = data;
    in.size = size;
    memset(&f, 0, sizeof f);
    memset(&o, 0, sizeof o);
    memset(&got, 0, sizeof got);
    how = fuzz_take(&in);
    o.single_thread = how & 1;
    o.shards = 1u << (how >> 1 & 3);
    if (how & 8) o.allocator = kv_arena_init(&arena, memory, (size_t)(how >> 4) * 6000 + 9000);
    o.now_ms = fuzz_now;
    o.now_user = &f;
    o.seed = 1;
    f.now = 1;
    if (kv_mem_open(&o, &f.m) != KV_OK) { FUZZ_CHECK(how & 8); return 0; }
    for (int step = 0; in.size && step < 3000; step++) fuzz_step(&f, &in, &got);
    fuzz_check_all(&f);
    kv_buf_free(&got);
    kv_mem_close(f.m);
    if (how & 8) FUZZ_CHECK(arena.used_bytes == 0);
    return 0;
}
