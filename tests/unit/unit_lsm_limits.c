/* unit_lsm_limits.c
   Goal: what a store writes it can read back, also where a table's index would come over the limit; and
   sizes that only a made-up file has are refused, where size_t has 32 bits, too.
   Method: the limit of an index lowered to 2 KiB; decoders fed by hand. */
#define KVI_LSM_INDEX_BYTES 2048u
#define KV_LSM_IMPLEMENTATION
#include "../../kv_lsm.h"
#include "../kv_order.h"

/* A key of 300 bytes that no separator shortens. */
static kv_slice long_key(uint32_t n, char out[300])
{
    memset(out, 'k', 300);
    for (int i = 0; i < 8; i++) out[292 + i] = (char)('0' + (n >> (28 - 4 * i)) % 16);
    return kv_bytes(out, 300);
}
static kv_lsm_options tiny_blocks(disk *d, kv_lsm_style style)
{
    kv_lsm_options o;
    memset(&o, 0, sizeof o);
    d->watch = order_watch;
    o.io = disk_io(d);
    o.memtable_bytes = 256u << 10;
    o.block_bytes = 64;
    o.cache_bytes = 1u << 20;                       /* the default would have a bucket for each of a million blocks */
    o.table_bytes = 4u << 20;                       /* only the index cuts */
    o.no_background = true;
    o.style = style;
    return o;
}
static void index_is_cut(kv_lsm_style style)
{
    enum { KEYS = 300 };
    disk          *d = disk_new();
    kv_lsm_options o = tiny_blocks(d, style);
    kv_lsm        *db;
    kv_snapshot   *before;
    kv_lsm_stats_t stats;
    char           key[300];
    uint64_t       n = 0;
    if (!CHECK_OK(kv_lsm_open("db", &o, &db))) return;
    for (uint32_t i = 0; i < KEYS; i++) CHECK_OK(kv_lsm_set(db, long_key(i, key), KV_STR("one")));
    CHECK_OK(kv_lsm_snapshot(db, &before));
    for (uint32_t i = 0; i < KEYS; i += 2) CHECK_OK(kv_lsm_set(db, long_key(i, key), KV_STR("two")));
    CHECK_OK(kv_lsm_flush(db));
    CHECK_OK(kv_lsm_stats(db, &stats));
    CHECK(stats.levels[0].tables > 10);             /* one flush, one run of many tables */
    for (int round = 0; round < 3; round++) {
        kv_buf value;
        memset(&value, 0, sizeof value);
        for (uint32_t i = 0; i < KEYS; i++) {
            CHECK_OK(kv_lsm_get(db, long_key(i, key), &value));
            CHECK_BYTES(kv_buf_slice(&value), i % 2 ? KV_STR("one") : KV_STR("two"));
            if (round == 2) continue;
            CHECK_OK(kv_lsm_get_at(db, before, long_key(i, key), &value));
            CHECK_BYTES(kv_buf_slice(&value), KV_STR("one"));
        }
        kv_buf_free(&value);
        CHECK_OK(kv_lsm_count(db, NULL, &n));
        CHECK_EQ(n, KEYS);
        if (round == 0) CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
        if (round == 1) { CHECK_OK(kv_lsm_close(db)); if (!CHECK_OK(kv_lsm_open("db", &o, &db))) return; }
    }
    CHECK_OK(kv_lsm_stats(db, &stats));
    CHECK_OK(kv_lsm_close(db));
    CHECK_OK(kv_lsm_check("db", &o, NULL, NULL));
    CHECK_EQ(disk_violations(d), 0);
    disk_free(d);
}
TEST(lsm_limits, a_table_ends_before_its_index_is_too_large) { index_is_cut(KV_LSM_LEVELED); }
TEST(lsm_limits, also_in_the_tiered_style) { index_is_cut(KV_LSM_TIERED); }

TEST(lsm_limits, ingest_and_recovery_cut_too)
{
    enum { KEYS = 200 };
    disk          *d = disk_new(), *from = disk_new(), *image;
    kv_lsm_options o = tiny_blocks(d, KV_LSM_LEVELED), of = tiny_blocks(from, KV_LSM_LEVELED);
    test_rng       rng = test_rng_new();
    kv_lsm        *db, *other;
    kv_iter       *sorted;
    char           key[300];
    uint64_t       n = 0;
    if (!CHECK_OK(kv_lsm_open("db", &o, &db)) || !CHECK_OK(kv_lsm_open("db", &of, &other))) return;
    for (uint32_t i = 0; i < KEYS; i++) CHECK_OK(kv_lsm_set(other, long_key(i, key), KV_STR("ingested")));
    CHECK_OK(kv_lsm_iter_open(other, NULL, NULL, &sorted));
    CHECK_OK(kv_lsm_ingest(db, sorted));
    kv_iter_close(sorted);
    CHECK_OK(kv_lsm_close(other));
    for (uint32_t i = KEYS; i < 2 * KEYS; i++) CHECK_OK(kv_lsm_set(db, long_key(i, key), KV_STR("logged")));
    CHECK_OK(kv_lsm_sync(db));
    image = disk_crash(d, DISK_DURABLE, &rng);
    CHECK_OK(kv_lsm_close(db));
    image->watch = order_watch;
    o.io = disk_io(image);
    if (!CHECK_OK(kv_lsm_open("db", &o, &db))) return;
    CHECK_OK(kv_lsm_count(db, NULL, &n));
    CHECK_EQ(n, 2 * KEYS);
    CHECK_OK(kv_lsm_close(db));
    CHECK_OK(kv_lsm_check("db", &o, NULL, NULL));
    CHECK_EQ(disk_violations(d) + disk_violations(image), 0);
    disk_free(image);
    disk_free(from);
    disk_free(d);
}

/* ---- made-up sizes ---- */

TEST(lsm_limits, pages_whose_columns_would_wrap_are_refused)
{
    uint8_t      raw[64];
    kvi_lsm_page p;
    memset(raw, 0, sizeof raw);
    kvi_store_le32(raw, 0x40000001u);               /* entries; four bytes of head for each are 2^32 + 4 */
    raw[14] = KVI_LSM_FIXED_KEYS | KVI_LSM_FIXED_VALUES | KVI_LSM_HEADS;
    CHECK(!kvi_lsm_page_over(&p, raw, KVI_LSM_DATA_SIZE + 4));
    raw[14] = KVI_LSM_FIXED_KEYS | KVI_LSM_FIXED_VALUES;
    CHECK(!kvi_lsm_page_over(&p, raw, KVI_LSM_DATA_SIZE));      /* a billion entries, all the same, in no bytes */
    kvi_store_le32(raw, 1);
    CHECK(kvi_lsm_page_over(&p, raw, KVI_LSM_DATA_SIZE));       /* one empty key with an empty value */
}
TEST(lsm_limits, blocks_that_say_they_are_gigabytes_are_refused)
{
    static const struct { uint32_t packed, raw; bool fine; } sizes[] = {
        { 0xFFFFFFF0u, 100, false }, { 0xFFFFFFF0u, 0xFFFFFFF0u, false }, { 100, 0xFFFFFFF0u, false }, { 101, 100, false }, { 100, 100, true }, { 50, 100, true } };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t              b[KVI_LSM_BLOCK_SIZE];
        kvi_lsm_block_header h;
        memset(b, 0, sizeof b);
        kvi_store_le32(b + 8, sizes[i].packed);
        kvi_store_le32(b + 12, sizes[i].raw);
        b[16] = KVI_LSM_BLOCK_DATA;
        b[17] = KV_CODEC_LZ4;
        kvi_store_le32(b, kvi_checksum(b + 4, KVI_LSM_BLOCK_SIZE - 4, 7));
        CHECK_EQ(kvi_lsm_block_header_decode(b, 7, &h), sizes[i].fine);
    }
}
TEST(lsm_limits, footers_whose_parts_would_wrap_are_refused)
{
    static const struct { uint64_t filter, index; bool fine; } sizes[] = {
        { 0xFFFFFFF0u, 0x30, false }, { 0x80000000u, 0x80000000u, false }, { 0x60000000u, 100, false }, { 100, 0x60000000u, false }, { 100, 100, true }, { 0, 100, true } };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t        b[KVI_LSM_FOOTER_SIZE];
        kvi_lsm_footer f;
        uint64_t       from = 64, index = from + sizes[i].filter, properties = index + sizes[i].index, at = properties + 50;
        memset(b, 0, sizeof b);
        kvi_store_le64(b, properties);
        kvi_store_le64(b + 8, index);
        kvi_store_le64(b + 16, sizes[i].filter ? from : 0);
        kvi_store_le32(b + 24, 50);
        kvi_store_le32(b + 28, (uint32_t)sizes[i].index);
        kvi_store_le32(b + 32, (uint32_t)sizes[i].filter);
        kvi_store_le32(b + 36, KVI_LSM_FORMAT);
        memcpy(b + 40, kvi_lsm_magic[KVI_LSM_TABLE], 8);
        kvi_store_le64(b + 56, kvi_hash(b, 56, 9 + at));
        CHECK_EQ(kvi_lsm_footer_decode(b, 9, at + KVI_LSM_FOOTER_SIZE, &f) == KV_OK, sizes[i].fine);
    }
}
/* A log that says it is 6 GiB long, with a record whose size and header together are 2^32 and a bit. */
TEST(lsm_limits, records_whose_size_would_wrap_are_refused)
{
    disk          *d = disk_new();
    kv_lsm_options o = tiny_blocks(d, KV_LSM_LEVELED);
    kv_lsm        *db;
    kvi_lsm_scan   r;
    uint8_t        b[64];
    uint64_t       next = 0;
    if (!CHECK_OK(kv_lsm_open("db", &o, &db))) return;
    memset(&r, 0, sizeof r);
    memset(b, 0, sizeof b);
    kvi_store_le32(b + 8, 0xFFFFFFF0u);
    kvi_store_le32(b, kvi_checksum(b + 4, KVI_LSM_RECORD_SIZE - 4, 5));
    r.db = db;
    r.kind = KVI_LSM_LOG;
    r.seed = 5;
    r.size = UINT64_C(6) << 30;
    CHECK_OK(kv_buf_assign(&r.window, kv_bytes(b, sizeof b)));
    CHECK_EQ(kvi_lsm_scan_record(&r, 0, &next), KV_NOT_FOUND);
    CHECK_EQ(next, 0);
    kv_buf_free(&r.window);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}

TEST_MAIN()
