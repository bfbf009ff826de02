/* fw_lsm.c
   Goal: kv_lsm.h works in fixed memory, without threads, over files in RAM; how much it needs.
   Method: a thousand keys, flushed and compacted by kv_lsm_step, closed, opened again, read; then the
   power fails (the objects are forgotten) and it opens once more. */
#include "../../kv_lsm.h"
#include "fw.h"
#include "ram_io.h"

#ifndef FW_LSM_DISK                     /* fw_littlefs.c brings its own */
static unsigned char disk_memory[512u << 10];
static ram_io        disk;
static const kv_io  *disk_start(void) { ram_io_init(&disk, disk_memory, sizeof disk_memory); return &disk.io; }
static void disk_power_cut(void) { for (uint32_t i = 0; i < RAM_IO_FILES; i++) { disk.files[i].opened = 0; disk.files[i].locked = false; } }
#define FW_LSM_DISK() disk_start()
#define FW_LSM_CUT()  disk_power_cut()
#endif
static const kv_io *disk_io;

static kv_lsm_options small_options(void)
{
    kv_lsm_options o = kv_lsm_default();
    o.allocator = fw_start();
    o.io = disk_io;
    o.no_background = true;
    o.memtable_bytes = 16 << 10;
    o.cache_bytes = KV_NONE;
    o.block_bytes = 1 << 10;
    o.codec = KV_CODEC_NONE;
    o.sync = KV_SYNC_WRITE;
    return o;
}
TEST(fw_lsm, a_thousand_keys)
{
    kv_lsm_options o;
    kv_lsm        *db = NULL;
    char           key[16];
    kv_buf         value;
    unsigned char  bytes[8];
    disk_io = FW_LSM_DISK();
    o = small_options();
    if (!CHECK_OK(kv_lsm_open("data", &o, &db))) return;
    fw_fill(kv_lsm_store(db));
    while (kv_lsm_step(db) == KV_OK) {}
    fw_read(kv_lsm_store(db));
    fw_ranges(kv_lsm_store(db));
    CHECK_OK(kv_lsm_close(db));
    fw_report("lsm");

    o = small_options();
    if (!CHECK_OK(kv_lsm_open("data", &o, &db))) return;
    fw_read(kv_lsm_store(db));
    CHECK_OK(kv_lsm_set(db, KV_STR("after"), fw_value(77, bytes)));
    for (uint32_t i = 0; i < 100; i++) CHECK_OK(kv_lsm_delete(db, fw_key(i, key)));
    FW_LSM_CUT();

    o = small_options();                        /* the arena starts anew: nothing of db is left */
    memset(&value, 0, sizeof value);
    value.allocator = o.allocator;
    if (!CHECK_OK(kv_lsm_open("data", &o, &db))) return;
    CHECK_OK(kv_lsm_get(db, KV_STR("after"), &value));
    CHECK_BYTES(kv_buf_slice(&value), fw_value(77, bytes));
    for (uint32_t i = 0; i < 100; i++) CHECK_STATUS(kv_lsm_get(db, fw_key(i, key), &value), KV_NOT_FOUND);
    CHECK_OK(kv_lsm_get(db, fw_key(100, key), &value));
    kv_buf_free(&value);
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    CHECK_OK(kv_lsm_close(db));
    CHECK_EQ(fw_arena.used_bytes, 0);
}
#ifndef LFS_H
TEST_MAIN()
#endif
