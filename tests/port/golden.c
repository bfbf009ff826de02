/* golden.c
   Goal: a file does not depend on the machine that wrote it: little- and big-endian, 32 and 64 bits,
   every one reads the others' and, where that is promised (fst, packed values without a library),
   writes the same bytes. (LZ4 and ZSTD choose matches by the machine's word; a snapshot has a date.)
   Method: `golden write DIR` makes one file, or store, of each format; `golden read DIR` opens them
   and compares every entry. golden.sh runs it on each machine and compares the bytes. */
#if __has_include("../../kv_mem.h")
#define HAS_MEM 1
#define KV_MEM_IMPLEMENTATION
#include "../../kv_mem.h"
#endif
#if __has_include("../../kv_fst.h")
#define HAS_FST 1
#define KV_FST_IMPLEMENTATION
#include "../../kv_fst.h"
#endif
#if __has_include("../../kv_compress.h")
#define HAS_COMPRESS 1
#define KV_COMPRESS_IMPLEMENTATION
#include "../../kv_compress.h"
#endif
#if __has_include("../../kv_lsm.h")
#define HAS_LSM 1
#define KV_LSM_IMPLEMENTATION
#include "../../kv_lsm.h"
#endif
#include "../kv_test.h"

#define ENTRIES 3000u
static const char *top;

static const char *path_of(const char *name)
{
    static char path[4][400];
    static int  next;
    next = (next + 1) % 4;
    (void)snprintf(path[next], sizeof path[next], "%s/%s", top, name);
    return path[next];
}
static kv_slice key_of(uint32_t i, char *text)
{
    (void)snprintf(text, 40, "k%06u/%s", (unsigned)i * 7u, i % 3 ? "gr\xC3\xBC\xC3\x9F" "e" : "a");
    return kv_cstr(text);
}
static kv_slice value_of(uint32_t i, char *bytes)       /* 0 to 299 bytes, some of them well compressible */
{
    test_rng r;
    size_t   size = i * 31 % 300;
    r.state = i;
    for (size_t k = 0; k < size; k++) bytes[k] = (char)(i % 2 ? test_random(&r) : k / 8);
    return kv_bytes(bytes, size);
}

#if HAS_MEM
static uint64_t fixed_clock(void *user) { (void)user; return 1000; }
static kv_mem *mem_new(void)
{
    kv_mem_options o;
    kv_mem        *m = NULL;
    memset(&o, 0, sizeof o);
    o.seed = 42;
    o.shards = 1;
    o.now_ms = fixed_clock;
    CHECK_OK(kv_mem_open(&o, &m));
    return m;
}
static void mem_write(void)
{
    kv_mem *m = mem_new();
    char    key[40], bytes[300];
    for (uint32_t i = 0; m && i < ENTRIES; i++) CHECK_OK(kv_mem_set(m, key_of(i, key), value_of(i, bytes)));
    CHECK_OK(kv_mem_set_ttl(m, KV_STR("short-lived"), KV_STR("x"), 5000));
    CHECK_OK(kv_mem_save(m, path_of("mem")));
    kv_mem_close(m);
}
static void mem_read(void)
{
    kv_mem  *m = mem_new();
    char     key[40], bytes[300];
    kv_buf   value;
    uint64_t ttl = 0;
    memset(&value, 0, sizeof value);
    CHECK_OK(kv_mem_load(m, path_of("mem")));
    CHECK_EQ(kv_mem_count(m), ENTRIES + 1);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        if (!CHECK_OK(kv_mem_get(m, key_of(i, key), &value))) break;
        CHECK_BYTES(kv_buf_slice(&value), value_of(i, bytes));
    }
    CHECK_OK(kv_mem_ttl(m, KV_STR("short-lived"), &ttl));
    CHECK(ttl > 0 && ttl <= 5000);
    kv_buf_free(&value);
    kv_mem_close(m);
}
#endif

#if HAS_FST
static void fst_write(void)
{
    static const char *const names[] = { "fst.set", "fst.u64", "fst.bytes" };
    char key[40], bytes[300];
    for (int kind = 0; kind < 3; kind++) {
        kv_fst_build_options o;
        kv_fst_builder      *b = NULL;
        memset(&o, 0, sizeof o);
        o.values = kind == 0 ? KV_FST_SET : kind == 1 ? KV_FST_U64 : KV_FST_BYTES;
        if (!CHECK_OK(kv_fst_build_begin_file(&o, path_of(names[kind]), &b))) return;
        for (uint32_t i = 0; i < ENTRIES; i++)
            CHECK_OK(kind == 2 ? kv_fst_add_bytes(b, key_of(i, key), value_of(i, bytes)) : kv_fst_add(b, key_of(i, key), kind ? (uint64_t)i << i % 40 : 0));
        CHECK_OK(kv_fst_build_finish(b));
    }
}
static void fst_read(void)
{
    kv_fst  *set = NULL, *numbers = NULL, *texts = NULL;
    char     key[40], bytes[300];
    kv_buf   value;
    uint64_t n = 0;
    memset(&value, 0, sizeof value);
    CHECK_OK(kv_fst_open_file(NULL, path_of("fst.set"), &set));
    CHECK_OK(kv_fst_open_file(NULL, path_of("fst.u64"), &numbers));
    CHECK_OK(kv_fst_open_file(NULL, path_of("fst.bytes"), &texts));
    for (uint32_t i = 0; set && numbers && texts && i < ENTRIES; i++) {
        CHECK_OK(kv_fst_rank(set, key_of(i, key), &n));
        CHECK_EQ(n, i);
        CHECK_OK(kv_fst_get(numbers, key_of(i, key), &n));
        CHECK(n == (uint64_t)i << i % 40);
        CHECK_OK(kv_fst_get_bytes(texts, key_of(i, key), &value));
        CHECK_BYTES(kv_buf_slice(&value), value_of(i, bytes));
    }
    kv_fst_close(set);
    kv_fst_close(numbers);
    kv_fst_close(texts);
    kv_buf_free(&value);
}
#endif

#if HAS_COMPRESS
/* one packed value of each codec and filter, one after the other, each behind its size */
static void compress_both(const char *name, const kv_codec *codecs, size_t codec_count, bool write)
{
    static unsigned char raw[6000];
    kv_filter    filters[] = { KV_FILTER_NONE, KV_FILTER_SHUFFLE, KV_FILTER_BITSHUFFLE, KV_FILTER_BF16, KV_FILTER_FP16, KV_FILTER_FP32 };
    const kv_io *io = kv_io_default();
    kv_file     *f = NULL;
    uint64_t     offset = 0;
    kv_buf       packed, back;
    memset(&packed, 0, sizeof packed);
    memset(&back, 0, sizeof back);
    for (uint32_t i = 0; i < sizeof raw; i++) raw[i] = (unsigned char)(i % 4 == 3 ? 0x3F + i / 4 % 2 : i % 4 == 2 ? i / 64 : i * 2654435761u >> 24);
    if (!CHECK_OK(io->open(io->user, path_of(name), write ? KV_OPEN_WRITE | KV_OPEN_CREATE | KV_OPEN_TRUNCATE : 0, &f))) return;
    for (size_t c = 0; c < codec_count; c++) for (size_t k = 0; k < 6; k++) {
        kv_compress_options o;
        kv_compressor      *compressor = NULL;
        unsigned char       size[4];
        size_t              got = 0;
        kv_status           s;
        memset(&o, 0, sizeof o);
        o.codec = codecs[c];
        o.filter = filters[k];
        o.element_size = k == 5 || k == 1 || k == 2 ? 4 : k == 0 ? 1 : 2;
        s = kv_compressor_open(&o, &compressor);
        if (s == KV_ERR_UNSUPPORTED) continue;
        if (!CHECK_OK(s)) continue;
        if (write) {
            CHECK_OK(kv_compress(compressor, kv_bytes(raw, sizeof raw), &packed));
            for (int b = 0; b < 4; b++) size[b] = (unsigned char)(packed.size >> 8 * b);
            CHECK_OK(io->append(io->user, f, size, 4));
            CHECK_OK(io->append(io->user, f, packed.data, packed.size));
        } else {
            CHECK_OK(io->read_at(io->user, f, offset, size, 4, &got));
            CHECK_OK(kv_buf_reserve(&packed, 10000));
            packed.size = (size_t)size[0] | (size_t)size[1] << 8;
            if (!CHECK(packed.size <= 10000)) break;
            CHECK_OK(io->read_at(io->user, f, offset + 4, packed.data, packed.size, &got));
            CHECK_OK(kv_decompress(compressor, kv_buf_slice(&packed), &back));
            CHECK_BYTES(kv_buf_slice(&back), kv_bytes(raw, sizeof raw));
            offset += 4 + packed.size;
        }
        kv_compressor_close(compressor);
    }
    CHECK_OK(io->close(io->user, f));
    kv_buf_free(&packed);
    kv_buf_free(&back);
}
#endif

#if HAS_LSM
static kv_lsm_options lsm_options(void)
{
    kv_lsm_options o = kv_lsm_default();
    o.no_background = true;
    o.memtable_bytes = 64 << 10;
    o.block_bytes = 2 << 10;
    o.codec = KV_CODEC_NONE;        /* so that every machine has it */
    return o;
}
static void lsm_write(void)
{
    kv_lsm_options o = lsm_options();
    kv_lsm        *db = NULL;
    char           key[40], bytes[300];
    if (!CHECK_OK(kv_lsm_open(path_of("lsm"), &o, &db))) return;
    for (uint32_t i = 0; i < ENTRIES; i++) CHECK_OK(kv_lsm_set(db, key_of(i * 17 % ENTRIES, key), value_of(i * 17 % ENTRIES, bytes)));
    for (uint32_t i = 0; i < ENTRIES; i += 10) CHECK_OK(kv_lsm_delete(db, key_of(i, key)));
    CHECK_OK(kv_lsm_close(db));     /* with a log that holds the last of them */
}
static void lsm_read(void)
{
    kv_lsm_options o = lsm_options();
    kv_lsm        *db = NULL;
    char           key[40], bytes[300];
    kv_buf         value;
    uint32_t       i = 0;
    kv_iter       *cursor = NULL;
    memset(&value, 0, sizeof value);
    o.read_only = true;
    CHECK_OK(kv_lsm_check(path_of("lsm"), NULL, NULL, NULL));
    if (!CHECK_OK(kv_lsm_open(path_of("lsm"), &o, &db))) return;
    for (i = 0; i < ENTRIES; i++) {
        if (i % 10 == 0) { CHECK_STATUS(kv_lsm_get(db, key_of(i, key), &value), KV_NOT_FOUND); continue; }
        if (!CHECK_OK(kv_lsm_get(db, key_of(i, key), &value))) break;
        CHECK_BYTES(kv_buf_slice(&value), value_of(i, bytes));
    }
    i = 0;
    if (CHECK_OK(kv_lsm_iter_open(db, NULL, NULL, &cursor))) {
        for (; kv_iter_valid(cursor); kv_iter_next(cursor), i++) {
            if (i % 10 == 0) i++;
            if (!CHECK_BYTES(kv_iter_key(cursor), key_of(i, key))) break;
        }
        CHECK_EQ(i, ENTRIES);
        kv_iter_close(cursor);
    }
    kv_buf_free(&value);
    CHECK_OK(kv_lsm_close(db));
}
#endif

int main(int argc, char **argv)
{
    static const kv_codec packers[] = { KV_CODEC_NONE, KV_CODEC_LZ4, KV_CODEC_ZSTD };
    bool write = argc == 3 && !strcmp(argv[1], "write");
    if (argc != 3) { fprintf(stderr, "golden write|read DIRECTORY\n"); return 2; }
    top = argv[2];
#if HAS_MEM
    if (write) mem_write(); else mem_read();
#endif
#if HAS_FST
    if (write) fst_write(); else fst_read();
#endif
#if HAS_COMPRESS
    compress_both("compress.none", packers, 1, write);
    compress_both("compress.libraries", packers + 1, 2, write);
#endif
#if HAS_LSM
    if (write) lsm_write(); else lsm_read();
#endif
    printf("%lu checks, %lu failed\n", (unsigned long)test_check_count, (unsigned long)test_failed_checks);
    return test_failed_checks != 0;
}
