/* fw_littlefs.c
   Goal: examples/firmware/littlefs_io.c is a kv_io, and kv_lsm.h runs over it.
   Method: the answers of a kv_io one by one over a strict stand-in for littlefs; then the program of
   fw_lsm.c over it. */
#include "../../kv_lsm.h"
#include "lfs/lfs_fake.h"
#include "../../examples/firmware/littlefs_io.c"

static unsigned char flash_memory[512u << 10];
static ram_io        flash_disk;
static lfs_t         lfs;
static littlefs_io   flash;
static const kv_io  *flash_start(void)
{
    ram_io_init(&flash_disk, flash_memory, sizeof flash_memory);
    lfs.disk = &flash_disk;
    littlefs_io_init(&flash, &lfs);
    return &flash.io;
}
static void flash_power_cut(void)       /* what was open is forgotten; littlefs keeps what was synced */
{
    for (uint32_t i = 0; i < RAM_IO_FILES; i++) flash_disk.files[i].opened = 0;
    littlefs_io_init(&flash, &lfs);
}
#define FW_LSM_DISK() flash_start()
#define FW_LSM_CUT()  flash_power_cut()
#include "fw_lsm.c"

static void count_name(void *context, const char *name) { (void)name; ++*(int *)context; }

TEST(fw_littlefs, a_removed_file_goes_when_it_is_closed)
{
    const kv_io *io = flash_start();
    kv_file     *f = NULL, *g = NULL, *other = NULL;
    char         text[8];
    size_t       got = 0;
    uint64_t     size = 0, holder = 0;
    int          names = 0;
    CHECK_OK(io->make_dir(io->user, "d"));
    CHECK_STATUS(io->make_dir(io->user, "d"), KV_EXISTS);
    CHECK_STATUS(io->open(io->user, "d/a", 0, &f), KV_NOT_FOUND);
    if (!CHECK_OK(io->open(io->user, "d/a", KV_OPEN_WRITE | KV_OPEN_CREATE, &f))) return;
    CHECK_OK(io->append(io->user, f, "hello", 5));
    CHECK_OK(io->write_at(io->user, f, 0, "J", 1));
    CHECK_OK(io->sync(io->user, f));
    CHECK_OK(io->open(io->user, "d/a", 0, &g));
    CHECK_OK(io->remove(io->user, "d/a"));
    CHECK_STATUS(io->remove(io->user, "d/a"), KV_NOT_FOUND);
    CHECK_STATUS(io->open(io->user, "d/a", 0, &other), KV_NOT_FOUND);
    CHECK_OK(io->list(io->user, "d", count_name, &names));
    CHECK_EQ(names, 0);
    CHECK_OK(io->read_at(io->user, g, 1, text, sizeof text, &got));
    CHECK_BYTES(kv_bytes(text, got), KV_STR("ello"));
    CHECK_OK(io->read_at(io->user, g, 5, text, sizeof text, &got));
    CHECK_EQ(got, 0);
    CHECK_OK(io->close(io->user, f));
    CHECK_OK(io->size(io->user, g, &size));
    CHECK_EQ(size, 5);
    CHECK_OK(io->close(io->user, g));
    if (!CHECK_OK(io->open(io->user, "d/a", KV_OPEN_WRITE | KV_OPEN_CREATE | KV_OPEN_EXCLUSIVE, &f))) return;
    CHECK_OK(io->close(io->user, f));
    CHECK_OK(io->rename(io->user, "d/a", "d/b"));
    CHECK_STATUS(io->rename(io->user, "d/a", "d/b"), KV_NOT_FOUND);
    CHECK_OK(io->lock(io->user, "d/LOCK", false, &f, &holder));
    CHECK_STATUS(io->lock(io->user, "d/LOCK", false, &g, &holder), KV_ERR_BUSY);
    CHECK_OK(io->unlock(io->user, f));
    CHECK_OK(io->sync_dir(io->user, "d"));
    CHECK_STATUS(io->sync_dir(io->user, "e"), KV_NOT_FOUND);
    CHECK(io->remove(io->user, "d") < 0);
    CHECK(io->os_error(io->user) != 0);
}
TEST_MAIN()
