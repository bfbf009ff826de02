/* fw_fst.c
   Goal: kv_fst.h builds and reads in fixed memory on a small core; how much a reader of a thousand
   keys needs besides the bytes themselves, which may lie in flash.
   Method: build into an array, read it at every misalignment, damage it; the arena must be empty. */
#include "../../kv_fst.h"
#include "fw.h"

static unsigned char flash[65536];
static size_t        flash_size;

#ifndef KV_FST_READER_ONLY
static kv_status to_flash(void *user, const void *data, size_t size)
{
    (void)user;
    if (flash_size + size > sizeof flash - 8) return KV_ERR_NO_SPACE;
    memcpy(flash + flash_size, data, size);
    flash_size += size;
    return KV_OK;
}
TEST(fw_fst, builds_into_an_array)
{
    kv_fst_builder      *b = NULL;
    kv_fst_build_options o;
    char                 key[16];
    memset(&o, 0, sizeof o);
    o.allocator = fw_start();
    o.values = KV_FST_U64;
    o.memory_limit_bytes = 256 * 1024;
    flash_size = 0;
    if (!CHECK_OK(kv_fst_build_begin(&o, to_flash, NULL, &b))) return;
    for (uint32_t i = 0; i < FW_KEYS; i++) CHECK_OK(kv_fst_add(b, fw_key(i, key), i * 3u));
    CHECK_STATUS(kv_fst_add(b, KV_STR("a"), 0), KV_ERR_ORDER);
    CHECK_STATUS(kv_fst_build_finish(b), KV_ERR_ORDER);
    flash_size = 0;
    if (!CHECK_OK(kv_fst_build_begin(&o, to_flash, NULL, &b))) return;
    for (uint32_t i = 0; i < FW_KEYS; i++) CHECK_OK(kv_fst_add(b, fw_key(i, key), i * 3u));
    CHECK_OK(kv_fst_build_finish(b));
    fw_report("fst-builder");
    printf("SIZE fst %lu bytes for %u keys\n", (unsigned long)flash_size, FW_KEYS);
}
#endif
TEST(fw_fst, reads_a_thousand_keys_in_place)
{
    kv_fst_options o;
    kv_fst        *f = NULL;
    char           key[16];
    uint64_t       n = 0;
    memset(&o, 0, sizeof o);
    for (size_t shift = 0; shift < 8; shift++) {
        memmove(flash + shift, flash + (shift ? shift - 1 : 0), flash_size);
        o.allocator = fw_start();
        if (!CHECK_OK(kv_fst_open_memory(&o, kv_bytes(flash + shift, flash_size), &f))) return;
        for (uint32_t i = 0; i < FW_KEYS; i++) {
            CHECK_OK(kv_fst_get(f, fw_key(i, key), &n));
            CHECK_EQ(n, i * 3u);
        }
        CHECK_STATUS(kv_fst_get(f, KV_STR("sensor/0"), &n), KV_NOT_FOUND);
        CHECK_OK(kv_fst_rank(f, fw_key(500, key), &n));
        CHECK_EQ(n, 500);
        CHECK_EQ(kv_fst_count(f), FW_KEYS);
        fw_ranges(kv_fst_store(f));
        kv_fst_close(f);
    }
    memmove(flash, flash + 7, flash_size);
    fw_report("fst-reader");
    flash[flash_size / 2] ^= 4;
    CHECK_STATUS(kv_fst_open_memory(&o, kv_bytes(flash, flash_size), &f), KV_ERR_CORRUPT);
    flash[flash_size / 2] ^= 4;
}
TEST_MAIN()
