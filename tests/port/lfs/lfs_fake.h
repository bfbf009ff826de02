/* lfs_fake.h - the functions of lfs.h over ram_io.h, as strict as littlefs: a file that is open must
   not be removed, renamed or replaced (the program ends), and a handle without a buffer is refused. */
#ifndef LFS_FAKE_H
#define LFS_FAKE_H

#include "lfs.h"
#include "../ram_io.h"
#include <stdio.h>
#include <stdlib.h>

static int lfs_fake_error(kv_status s)
{
    switch (s) {
    case KV_OK:           return 0;
    case KV_NOT_FOUND:    return LFS_ERR_NOENT;
    case KV_EXISTS:       return LFS_ERR_EXIST;
    case KV_ERR_NO_SPACE: return LFS_ERR_NOSPC;
    default:              return LFS_ERR_IO;
    }
}
static ram_io *lfs_fake_disk(lfs_t *lfs) { return (ram_io *)lfs->disk; }
static void lfs_fake_must_be_closed(lfs_t *lfs, const char *path)
{
    ram_file *f = ram_io_find(lfs_fake_disk(lfs), path);
    if (f && f->opened) { printf("FAIL littlefs: %s is open and is removed, renamed or replaced\n", path); abort(); }
}
int lfs_file_opencfg(lfs_t *lfs, lfs_file_t *file, const char *path, int flags, const struct lfs_file_config *config)
{
    uint32_t how = flags & LFS_O_WRONLY ? KV_OPEN_WRITE : 0;
    kv_file *f;
    int      error;
    if (!config->buffer) return LFS_ERR_NOMEM;
    if (flags & LFS_O_CREAT) how |= KV_OPEN_CREATE;
    if (flags & LFS_O_EXCL) how |= KV_OPEN_EXCLUSIVE;
    if (flags & LFS_O_TRUNC) how |= KV_OPEN_TRUNCATE;
    error = lfs_fake_error(ram_io_open(lfs->disk, path, how, &f));
    if (error) return error;
    file->handle = f;
    file->position = 0;
    file->open = true;
    return 0;
}
int lfs_file_close(lfs_t *lfs, lfs_file_t *file)
{
    if (!file->open) return LFS_ERR_BADF;
    file->open = false;
    return lfs_fake_error(ram_io_close(lfs->disk, (kv_file *)file->handle));
}
int lfs_file_sync(lfs_t *lfs, lfs_file_t *file) { (void)lfs; return file->open ? 0 : LFS_ERR_BADF; }
lfs_ssize_t lfs_file_read(lfs_t *lfs, lfs_file_t *file, void *buffer, lfs_size_t size)
{
    size_t got = 0;
    int    error = lfs_fake_error(ram_io_read_at(lfs->disk, (kv_file *)file->handle, file->position, buffer, size, &got));
    file->position += (uint32_t)got;
    return error ? error : (lfs_ssize_t)got;
}
lfs_ssize_t lfs_file_write(lfs_t *lfs, lfs_file_t *file, const void *buffer, lfs_size_t size)
{
    int error = lfs_fake_error(ram_io_write_at(lfs->disk, (kv_file *)file->handle, file->position, buffer, size));
    if (error) return error;
    file->position += size;
    return (lfs_ssize_t)size;
}
lfs_soff_t lfs_file_size(lfs_t *lfs, lfs_file_t *file) { (void)lfs; return (lfs_soff_t)((ram_file *)file->handle)->size; }
lfs_soff_t lfs_file_seek(lfs_t *lfs, lfs_file_t *file, lfs_soff_t off, int whence)
{
    file->position = (uint32_t)(whence == LFS_SEEK_END ? lfs_file_size(lfs, file) + off : off);
    return (lfs_soff_t)file->position;
}
int lfs_rename(lfs_t *lfs, const char *oldpath, const char *newpath)
{
    lfs_fake_must_be_closed(lfs, oldpath);
    lfs_fake_must_be_closed(lfs, newpath);
    return lfs_fake_error(ram_io_rename(lfs->disk, oldpath, newpath));
}
int lfs_remove(lfs_t *lfs, const char *path)
{
    lfs_fake_must_be_closed(lfs, path);
    return lfs_fake_error(ram_io_remove(lfs->disk, path));
}
int lfs_stat(lfs_t *lfs, const char *path, struct lfs_info *info)
{
    ram_file *f = ram_io_find(lfs_fake_disk(lfs), path);
    if (!f) return LFS_ERR_NOENT;
    memset(info, 0, sizeof *info);
    info->type = f->is_dir ? LFS_TYPE_DIR : LFS_TYPE_REG;
    info->size = f->size;
    return 0;
}
int lfs_mkdir(lfs_t *lfs, const char *path) { return lfs_fake_error(ram_io_make_dir(lfs->disk, path)); }
int lfs_dir_open(lfs_t *lfs, lfs_dir_t *dir, const char *path)
{
    ram_file *f = ram_io_find(lfs_fake_disk(lfs), path);
    if (!f) return LFS_ERR_NOENT;
    if (!f->is_dir) return LFS_ERR_NOTDIR;
    dir->names = f;
    dir->next = 0;
    return 0;
}
int lfs_dir_read(lfs_t *lfs, lfs_dir_t *dir, struct lfs_info *info)
{
    const char *name = NULL;
    memset(info, 0, sizeof *info);
    if (dir->next < 2) { memcpy(info->name, "..", ++dir->next); return 1; }        /* littlefs lists . and .. */
    while (!name && dir->next - 2 < RAM_IO_FILES) name = ram_io_name_in(&lfs_fake_disk(lfs)->files[dir->next++ - 2], ((ram_file *)dir->names)->path);
    if (!name) return 0;
    memcpy(info->name, name, strlen(name));
    return 1;
}
int lfs_dir_close(lfs_t *lfs, lfs_dir_t *dir) { (void)lfs; (void)dir; return 0; }
#endif
