/* littlefs_io.c - kv_io over littlefs 2, so that kv_lsm.h keeps its store on SPI flash

   How it fits together:

       static lfs_t       lfs;                          // mounted by you
       static littlefs_io flash;
       static unsigned char memory[96 * 1024];
       static kv_arena    arena;

       kv_lsm_options o = kv_lsm_low_memory();
       littlefs_io_init(&flash, &lfs);
       o.io            = &flash.io;
       o.allocator     = kv_arena_init(&arena, memory, sizeof memory);
       o.no_background = true;                          // kv_lsm_step from your main loop
       kv_lsm_open("store", &o, &db);

   What littlefs does otherwise than the files of a large system, and what this file does about it:
   - An open file needs a buffer of cache_size bytes. They lie here, one for each of LITTLEFS_IO_FILES.
   - Others see what was written only after a sync. kv_lsm.h reads a file that it still writes through
     the same handle, or after a sync.
   - A file must not be removed or replaced while it is open. Removing waits for the close.
   - Names are on flash when rename, mkdir or remove returns: sync_dir has nothing to do.
   - There is one process: a lock only refuses a second one.

   Replace lfs.h by littlefs's own. Not for use by several threads at once, as littlefs itself. */
#include "lfs.h"
#include "kv.h"
#include <string.h>

#ifndef LITTLEFS_IO_FILES
#define LITTLEFS_IO_FILES 24        /* files open at once: tables, log, manifest, lock */
#endif
#ifndef LITTLEFS_IO_CACHE
#define LITTLEFS_IO_CACHE 256       /* bytes: at least the cache_size of your lfs_config */
#endif
#ifndef LITTLEFS_IO_PATH
#define LITTLEFS_IO_PATH 64         /* bytes of a path, with its final 0 */
#endif

typedef struct littlefs_io_file {
    lfs_file_t             file;
    struct lfs_file_config config;
    unsigned char          cache[LITTLEFS_IO_CACHE];
    char                   path[LITTLEFS_IO_PATH];
    bool                   open, remove_at_close, locked;
} littlefs_io_file;

typedef struct littlefs_io {
    kv_io            io;
    lfs_t           *lfs;
    int              last_error;
    littlefs_io_file files[LITTLEFS_IO_FILES];
} littlefs_io;

static kv_status littlefs_io_status(littlefs_io *d, int error)
{
    if (error >= 0) return KV_OK;
    d->last_error = error;
    switch (error) {
    case LFS_ERR_NOENT: return KV_NOT_FOUND;
    case LFS_ERR_EXIST: return KV_EXISTS;
    case LFS_ERR_NOSPC: return KV_ERR_NO_SPACE;
    case LFS_ERR_NOMEM: return KV_ERR_NO_MEMORY;
    case LFS_ERR_FBIG:  return KV_ERR_TOO_LARGE;
    default:            return KV_ERR_IO;
    }
}

/* an open handle of the file, of one that still has its name or of one that waits for its removal */
static littlefs_io_file *littlefs_io_find_open(littlefs_io *d, const char *path, bool removed)
{
    for (int i = 0; i < LITTLEFS_IO_FILES; i++) {
        littlefs_io_file *f = &d->files[i];
        if (f->open && f->remove_at_close == removed && strcmp(f->path, path) == 0) return f;
    }
    return NULL;
}

static kv_status littlefs_io_open(void *user, const char *path, uint32_t flags, kv_file **file)
{
    littlefs_io      *d = (littlefs_io *)user;
    littlefs_io_file *f = NULL;
    int               how = flags & KV_OPEN_WRITE ? LFS_O_RDWR : LFS_O_RDONLY;
    kv_status         s;
    if (flags & KV_OPEN_CREATE) how |= LFS_O_CREAT;
    if (flags & KV_OPEN_EXCLUSIVE) how |= LFS_O_EXCL;
    if (flags & KV_OPEN_TRUNCATE) how |= LFS_O_TRUNC;
    for (int i = 0; !f && i < LITTLEFS_IO_FILES; i++) if (!d->files[i].open) f = &d->files[i];
    if (!f || strlen(path) >= LITTLEFS_IO_PATH) return littlefs_io_status(d, LFS_ERR_NOMEM);
    if (littlefs_io_find_open(d, path, true)) return littlefs_io_status(d, flags & KV_OPEN_CREATE ? LFS_ERR_INVAL : LFS_ERR_NOENT);
    memset(f, 0, sizeof *f);
    f->config.buffer = f->cache;
    s = littlefs_io_status(d, lfs_file_opencfg(d->lfs, &f->file, path, how, &f->config));
    if (s != KV_OK) return s;
    memcpy(f->path, path, strlen(path));
    f->open = true;
    *file = (kv_file *)(void *)f;
    return KV_OK;
}
static kv_status littlefs_io_close(void *user, kv_file *file)
{
    littlefs_io      *d = (littlefs_io *)user;
    littlefs_io_file *f = (littlefs_io_file *)(void *)file;
    kv_status         s = littlefs_io_status(d, lfs_file_close(d->lfs, &f->file)), removed = KV_OK;
    f->open = false;
    if (f->remove_at_close && !littlefs_io_find_open(d, f->path, true)) removed = littlefs_io_status(d, lfs_remove(d->lfs, f->path));
    return s != KV_OK ? s : removed;
}
static kv_status littlefs_io_size(void *user, kv_file *file, uint64_t *size)
{
    littlefs_io *d = (littlefs_io *)user;
    lfs_soff_t   bytes = lfs_file_size(d->lfs, &((littlefs_io_file *)(void *)file)->file);
    if (bytes < 0) return littlefs_io_status(d, (int)bytes);
    *size = (uint64_t)bytes;
    return KV_OK;
}
static kv_status littlefs_io_read_at(void *user, kv_file *file, uint64_t offset, void *data, size_t size, size_t *got)
{
    littlefs_io *d = (littlefs_io *)user;
    lfs_file_t  *f = &((littlefs_io_file *)(void *)file)->file;
    lfs_soff_t   bytes = lfs_file_size(d->lfs, f), n;
    *got = 0;
    if (bytes < 0) return littlefs_io_status(d, (int)bytes);
    if (offset >= (uint64_t)bytes) return KV_OK;
    n = lfs_file_seek(d->lfs, f, (lfs_soff_t)offset, LFS_SEEK_SET);
    if (n >= 0) n = lfs_file_read(d->lfs, f, data, (lfs_size_t)size);
    if (n < 0) return littlefs_io_status(d, (int)n);
    *got = (size_t)n;
    return KV_OK;
}
static kv_status littlefs_io_write_from(littlefs_io *d, lfs_file_t *f, lfs_soff_t offset, int whence, const void *data, size_t size)
{
    lfs_soff_t n = lfs_file_seek(d->lfs, f, offset, whence);
    if (n >= 0) n = lfs_file_write(d->lfs, f, data, (lfs_size_t)size);
    if (n < 0) return littlefs_io_status(d, (int)n);
    return (size_t)n == size ? KV_OK : littlefs_io_status(d, LFS_ERR_NOSPC);
}
static kv_status littlefs_io_write_at(void *user, kv_file *file, uint64_t offset, const void *data, size_t size)
{
    if (offset + size > 0x7FFFFFFFu) return littlefs_io_status((littlefs_io *)user, LFS_ERR_FBIG);
    return littlefs_io_write_from((littlefs_io *)user, &((littlefs_io_file *)(void *)file)->file, (lfs_soff_t)offset, LFS_SEEK_SET, data, size);
}
static kv_status littlefs_io_append(void *user, kv_file *file, const void *data, size_t size)
{
    return littlefs_io_write_from((littlefs_io *)user, &((littlefs_io_file *)(void *)file)->file, 0, LFS_SEEK_END, data, size);
}
static kv_status littlefs_io_sync(void *user, kv_file *file)
{
    littlefs_io *d = (littlefs_io *)user;
    return littlefs_io_status(d, lfs_file_sync(d->lfs, &((littlefs_io_file *)(void *)file)->file));
}

static kv_status littlefs_io_rename(void *user, const char *from, const char *to)
{
    littlefs_io *d = (littlefs_io *)user;
    if (littlefs_io_find_open(d, from, true)) return littlefs_io_status(d, LFS_ERR_NOENT);
    if (littlefs_io_find_open(d, from, false) || littlefs_io_find_open(d, to, false) || littlefs_io_find_open(d, to, true))
        return littlefs_io_status(d, LFS_ERR_INVAL);        /* close it first */
    return littlefs_io_status(d, lfs_rename(d->lfs, from, to));
}
static kv_status littlefs_io_remove(void *user, const char *path)
{
    littlefs_io      *d = (littlefs_io *)user;
    littlefs_io_file *f = littlefs_io_find_open(d, path, false);
    if (littlefs_io_find_open(d, path, true)) return littlefs_io_status(d, LFS_ERR_NOENT);
    if (!f) return littlefs_io_status(d, lfs_remove(d->lfs, path));
    do f->remove_at_close = true; while ((f = littlefs_io_find_open(d, path, false)) != NULL);
    return KV_OK;
}
static bool littlefs_io_is_removed(littlefs_io *d, const char *dir, const char *name)
{
    char   path[LITTLEFS_IO_PATH];
    size_t dir_size = strlen(dir), name_size = strlen(name);
    if (dir_size + 1 + name_size >= sizeof path) return false;      /* never opened here */
    memcpy(path, dir, dir_size);
    path[dir_size] = '/';
    memcpy(path + dir_size + 1, name, name_size + 1);
    return littlefs_io_find_open(d, path, true) != NULL;
}
static kv_status littlefs_io_list(void *user, const char *path, void (*each)(void *context, const char *name), void *context)
{
    littlefs_io    *d = (littlefs_io *)user;
    lfs_dir_t       dir;
    struct lfs_info info;
    int             result = lfs_dir_open(d->lfs, &dir, path);
    if (result < 0) return littlefs_io_status(d, result);
    while ((result = lfs_dir_read(d->lfs, &dir, &info)) > 0)
        if (strcmp(info.name, ".") != 0 && strcmp(info.name, "..") != 0 && !littlefs_io_is_removed(d, path, info.name)) each(context, info.name);
    (void)lfs_dir_close(d->lfs, &dir);
    return littlefs_io_status(d, result);
}
static kv_status littlefs_io_make_dir(void *user, const char *path)
{
    littlefs_io *d = (littlefs_io *)user;
    return littlefs_io_status(d, lfs_mkdir(d->lfs, path));
}
static kv_status littlefs_io_sync_dir(void *user, const char *path)
{
    littlefs_io    *d = (littlefs_io *)user;
    struct lfs_info info;
    return littlefs_io_status(d, lfs_stat(d->lfs, path, &info));
}
static kv_status littlefs_io_lock(void *user, const char *path, bool shared, kv_file **lock, uint64_t *holder)
{
    littlefs_io      *d = (littlefs_io *)user;
    littlefs_io_file *f = littlefs_io_find_open(d, path, false);
    kv_status         s;
    *holder = 0;
    if (f && f->locked) return KV_ERR_BUSY;
    s = littlefs_io_open(user, path, shared ? 0 : KV_OPEN_WRITE | KV_OPEN_CREATE, lock);
    if (s == KV_OK) ((littlefs_io_file *)(void *)*lock)->locked = true;
    return s;
}
static int littlefs_io_error(void *user) { return ((littlefs_io *)user)->last_error; }

/* Fill in d->io. `lfs` is mounted and stays so while d is in use. */
void littlefs_io_init(littlefs_io *d, lfs_t *lfs);
void littlefs_io_init(littlefs_io *d, lfs_t *lfs)
{
    memset(d, 0, sizeof *d);
    d->lfs = lfs;
    d->io.user = d;
    d->io.open = littlefs_io_open;         d->io.close = littlefs_io_close;     d->io.size = littlefs_io_size;
    d->io.read_at = littlefs_io_read_at;   d->io.append = littlefs_io_append;   d->io.write_at = littlefs_io_write_at;
    d->io.sync = littlefs_io_sync;         d->io.rename = littlefs_io_rename;   d->io.remove = littlefs_io_remove;
    d->io.list = littlefs_io_list;         d->io.make_dir = littlefs_io_make_dir;
    d->io.sync_dir = littlefs_io_sync_dir; d->io.lock = littlefs_io_lock;       d->io.unlock = littlefs_io_close;
    d->io.os_error = littlefs_io_error;    /* map, unmap and link stay NULL: there is none of it */
}
