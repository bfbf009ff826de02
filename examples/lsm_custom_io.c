/* lsm_custom_io.c - a kv_io of your own: here one that counts what reaches the system's files

   Firmware puts its flash file system behind these functions. A wrapper like this one starts from
   kv_io_default and replaces what it wants to see. */
#define KV_LSM_IMPLEMENTATION
#include "../kv_lsm.h"
#include <stdio.h>

static struct { unsigned appends, syncs, renames; } counted;

static kv_status count_append(void *user, kv_file *file, const void *data, size_t size)
{
    counted.appends++;
    (void)user;
    return kv_io_default()->append(kv_io_default()->user, file, data, size);
}
static kv_status count_sync(void *user, kv_file *file)
{
    counted.syncs++;
    (void)user;
    return kv_io_default()->sync(kv_io_default()->user, file);
}
static kv_status count_rename(void *user, const char *from, const char *to)
{
    counted.renames++;
    (void)user;
    return kv_io_default()->rename(kv_io_default()->user, from, to);
}

int main(void)
{
    kv_io          io = *kv_io_default();
    kv_lsm_options options = kv_lsm_default();
    kv_lsm        *db;
    kv_pair        pairs[3] = { { { "a", 1 }, { "1", 1 } }, { { "b", 1 }, { "2", 1 } }, { { "c", 1 }, { "3", 1 } } };
    io.append = count_append;
    io.sync = count_sync;
    io.rename = count_rename;
    options.io = &io;
    options.sync = KV_SYNC_WRITE;
    options.no_background = true;
    if (kv_lsm_open("counted", &options, &db) < 0) return 1;
    printf("opening renames CURRENT: %u\n", counted.renames);
    counted.appends = counted.syncs = 0;
    kv_lsm_set(db, KV_STR("x"), KV_STR("y"));
    printf("a synced set: %u append, %u sync\n", counted.appends, counted.syncs);
    counted.appends = counted.syncs = 0;
    kv_lsm_batch_set(db, pairs, 3);
    printf("a batch of three: %u append, %u sync\n", counted.appends, counted.syncs);
    return kv_lsm_close(db) < 0;
}
