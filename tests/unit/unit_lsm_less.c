/* unit_lsm_less.c
   Goal: what is left of kv_lsm.h where parts of it were left out keeps its promises, and the parts say that they
   are missing.
   Method: the short ways of -Os and the switches; a store that is filled, merged, closed, opened, read both ways,
   opened after a crash, and asked for what it has not; and the golden store, which was written with all parts. */
#undef KVI_SMALL
#define KVI_SMALL 1
#include "../lsm_less.h"
#define KV_LSM_IMPLEMENTATION
#include "../../kv_lsm.h"
#include "../kv_disk.h"
#include "../lsm_small.h"

enum { KEYS = 3000 };

static kv_slice key_of(uint32_t n, char out[16])
{
    snprintf(out, 16, "k%07u", (unsigned)n);
    return kv_cstr(out);
}
/* Every third key is deleted; the others hold their number and `round`. */
static void fill(kv_lsm *db, uint32_t round)
{
    char key[16], value[32];
    for (uint32_t i = 0; i < KEYS; i++) {
        uint32_t n = i * 1237 % KEYS;
        snprintf(value, sizeof value, "%u in round %u", (unsigned)n, (unsigned)round);
        if (n % 3) CHECK_OK(kv_lsm_set(db, key_of(n, key), kv_cstr(value)));
        else CHECK_OK(kv_lsm_delete(db, key_of(n, key)));
        if (i % 5 == 0) (void)kv_lsm_step(db);
    }
}
static void holds(kv_lsm *db, uint32_t round)
{
    kv_iter *iter;
    kv_buf   value;
    kv_range all;
    char     key[16], wanted[32];
    memset(&value, 0, sizeof value);
    for (uint32_t n = 0; n < KEYS; n++) {
        kv_status s = kv_lsm_get(db, key_of(n, key), &value);
        CHECK_STATUS(s, n % 3 ? KV_OK : KV_NOT_FOUND);
        if (s != KV_OK) continue;
        snprintf(wanted, sizeof wanted, "%u in round %u", (unsigned)n, (unsigned)round);
        CHECK_BYTES(kv_buf_slice(&value), kv_cstr(wanted));
    }
    kv_buf_free(&value);
    for (int up = 0; up < 2; up++) {
        uint32_t n = up ? 0 : KEYS, seen = 0;
        memset(&all, 0, sizeof all);
        all.reverse = !up;
        if (!CHECK_OK(kv_lsm_iter_open(db, NULL, &all, &iter))) return;
        for (; kv_iter_valid(iter); kv_iter_next(iter), seen++) {
            do { if (up) n++; else n--; } while (n % 3 == 0);
            CHECK_BYTES(kv_iter_key(iter), key_of(n, key));
        }
        CHECK_OK(kv_iter_status(iter));
        CHECK_EQ(seen, KEYS - KEYS / 3);
        kv_iter_close(iter);
    }
}

TEST(lsm_less, a_store_without_its_parts_is_a_store)
{
    disk          *d = disk_new();
    kv_lsm_options o = lsm_small(disk_io(d), NULL, 0);
    kv_lsm        *db;
    kv_stats       stats;
    if (!CHECK_OK(kv_lsm_open("db", &o, &db))) return;
    fill(db, 1);
    holds(db, 1);
    fill(db, 2);
    holds(db, 2);
    CHECK_EQ(kv_lsm_get_options(db)->cache_bytes, KV_NONE);
    CHECK_STATUS(kv_store_stats(kv_lsm_store(db), &stats), KV_ERR_UNSUPPORTED);
    CHECK_OK(kv_lsm_close(db));
    if (!CHECK_OK(kv_lsm_open("db", &o, &db))) return;
    holds(db, 2);
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    holds(db, 2);
    fill(db, 3);
    holds(db, 3);
    CHECK_OK(kv_lsm_close(db));
    if (!CHECK_OK(kv_lsm_open("db", &o, &db))) return;
    holds(db, 3);
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}
TEST(lsm_less, what_is_missing_says_so)
{
    disk          *d = disk_new();
    char           text[100] = "";
    kv_lsm_options o = lsm_small(disk_io(d), text, sizeof text);
    kv_lsm        *db;
    kv_lsm_stats_t stats;
    kv_iter       *iter;
    o.block_bytes = 1;
    CHECK_STATUS(kv_lsm_open("db", &o, &db), KV_ERR_INVALID);
    CHECK_BYTES(kv_cstr(text), KV_STR("db: invalid argument"));      /* not which */
    o.block_bytes = 512;
    o.bloom_fp_rate = 2;                                    /* there are no filters: it is not looked at */
    if (!CHECK_OK(kv_lsm_open("db", &o, &db))) return;
    CHECK_OK(kv_lsm_set(db, KV_STR("a"), KV_STR("1")));
    CHECK_STATUS(kv_lsm_stats(db, &stats), KV_ERR_UNSUPPORTED);
    CHECK_STATUS(kv_lsm_checkpoint(db, "copy"), KV_ERR_UNSUPPORTED);
    CHECK_STATUS(kv_lsm_resume(db), KV_ERR_UNSUPPORTED);
    CHECK_OK(kv_lsm_iter_open(db, NULL, NULL, &iter));
    CHECK_STATUS(kv_lsm_ingest(db, iter), KV_ERR_UNSUPPORTED);
    kv_iter_close(iter);
    CHECK_STATUS(kv_lsm_stats(NULL, &stats), KV_ERR_INVALID);
    CHECK_OK(kv_lsm_close(db));
    CHECK_STATUS(kv_lsm_check("db", &o, NULL, NULL), KV_ERR_UNSUPPORTED);
    CHECK_STATUS(kv_lsm_repair("db", &o, NULL, NULL), KV_ERR_UNSUPPORTED);
    disk_free(d);
}
TEST(lsm_less, it_opens_again_after_a_crash_and_reads_what_was_synced)
{
    disk          *d = disk_new(), *image;
    kv_lsm_options o = lsm_small(disk_io(d), NULL, 0);
    kv_lsm        *db;
    test_rng       rng = test_rng_new();
    o.sync = KV_SYNC_WRITE;
    if (!CHECK_OK(kv_lsm_open("db", &o, &db))) return;
    fill(db, 7);
    for (int mode = 0; mode < DISK_MODES; mode++) {
        kv_lsm_options of_image = o;
        kv_lsm        *after;
        image = disk_crash(d, (disk_mode)mode, &rng);
        of_image.io = disk_io(image);
        if (CHECK_OK(kv_lsm_open("db", &of_image, &after))) {
            holds(after, 7);
            CHECK_OK(kv_lsm_close(after));
        }
        disk_free(image);
    }
    CHECK_OK(kv_lsm_close(db));
    disk_free(d);
}
TEST(lsm_less, it_reads_a_store_that_was_written_with_all_parts)
{
    const char    *slash = strrchr(__FILE__, '/');
    char           path[400], key[32], wanted[64];
    kv_lsm_options o;
    kv_lsm        *db;
    kv_buf         value;
    kv_status      s;
    memset(&o, 0, sizeof o);
    memset(&value, 0, sizeof value);
    o.read_only = true;
    snprintf(path, sizeof path, "%.*s../golden/lsm-1", slash ? (int)(slash + 1 - __FILE__) : 0, __FILE__);
    s = kv_lsm_open(path, &o, &db);
    if (!kv_codec_supported(KV_CODEC_ZSTD) || !kv_codec_supported(KV_CODEC_LZ4) || s == KV_NOT_FOUND || s == KV_ERR_UNSUPPORTED) {
        TEST_SKIP("no golden store, no files, or not all codecs");
        if (s == KV_OK) CHECK_OK(kv_lsm_close(db));
        return;
    }
    if (!CHECK_OK(s)) return;
    for (unsigned n = 0; n < 700; n++) {
        snprintf(key, sizeof key, "golden/%s/%05u", n % 3 ? "odd" : "even", n);
        snprintf(wanted, sizeof wanted, "value %u of the golden store, %s", n, n % 5 ? "as written" : "x");
        s = kv_lsm_get(db, kv_cstr(key), &value);
        CHECK_STATUS(s, n % 11 ? KV_OK : KV_NOT_FOUND);
        if (s == KV_OK) CHECK_BYTES(kv_buf_slice(&value), kv_cstr(wanted));
    }
    kv_buf_free(&value);
    CHECK_OK(kv_lsm_close(db));
}
TEST_MAIN()
