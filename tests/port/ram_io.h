/* ram_io.h - a kv_io over one array: files and directories in fixed memory, for firmware tests

   The memory is cut into blocks of RAM_IO_BLOCK bytes. A file is a chain of blocks; `next` holds for
   each block the one after it in its file, or in the list of free ones. A file that is removed while
   it is open goes when it is closed. Nothing is allocated.

       static unsigned char memory[262144];
       static ram_io disk;
       ram_io_init(&disk, memory, sizeof memory);
       options.io = &disk.io;                                                                    */
#ifndef RAM_IO_H
#define RAM_IO_H

#include <string.h>
#include "../../kv.h"

#define RAM_IO_BLOCK  256u
#define RAM_IO_FILES  48u           /* names and open files together */
#define RAM_IO_PATH   64u           /* bytes of a path, with its final 0 */
#define RAM_IO_NONE   0xFFFFu

typedef struct ram_file {           /* a name and its bytes */
    char     path[RAM_IO_PATH];     /* "": removed */
    uint32_t size, opened;
    uint16_t first, last;           /* its first and its last block */
    uint16_t near_block;            /* a block that was reached before, so that going on is short */
    uint32_t near_index;
    bool     used, is_dir, locked;
} ram_file;

typedef struct ram_io {
    kv_io          io;
    unsigned char *blocks;
    uint16_t      *next;
    uint32_t       block_count, free_count, free_count_least;
    uint16_t       first_free;
    ram_file       files[RAM_IO_FILES];
} ram_io;

static ram_file *ram_io_find(ram_io *d, const char *path)
{
    for (uint32_t i = 0; i < RAM_IO_FILES; i++) if (d->files[i].used && strcmp(d->files[i].path, path) == 0) return &d->files[i];
    return NULL;
}
static bool ram_io_has_parent(ram_io *d, const char *path)
{
    const char *slash = strrchr(path, '/');
    char        parent[RAM_IO_PATH];
    ram_file   *f;
    if (!slash || slash == path) return true;
    memcpy(parent, path, (size_t)(slash - path));
    parent[slash - path] = 0;
    f = ram_io_find(d, parent);
    return f && f->is_dir;
}
static kv_status ram_io_make(ram_io *d, const char *path, bool is_dir, ram_file **made)
{
    if (strlen(path) >= RAM_IO_PATH) return KV_ERR_IO;
    if (!ram_io_has_parent(d, path)) return KV_NOT_FOUND;
    for (uint32_t i = 0; i < RAM_IO_FILES; i++) {
        ram_file *f = &d->files[i];
        if (f->used) continue;
        memset(f, 0, sizeof *f);
        memcpy(f->path, path, strlen(path));
        f->first = f->last = f->near_block = RAM_IO_NONE;
        f->used = true;
        f->is_dir = is_dir;
        *made = f;
        return KV_OK;
    }
    return KV_ERR_NO_SPACE;
}
static void ram_io_empty(ram_io *d, ram_file *f)
{
    while (f->first != RAM_IO_NONE) {
        uint16_t block = f->first;
        f->first = d->next[block];
        d->next[block] = d->first_free;
        d->first_free = block;
        d->free_count++;
    }
    f->last = f->near_block = RAM_IO_NONE;
    f->size = 0;
}
static void ram_io_drop(ram_io *d, ram_file *f)     /* the name goes; the bytes too where nobody has it open */
{
    f->path[0] = 0;
    if (f->opened) return;
    ram_io_empty(d, f);
    f->used = false;
}
/* The block that holds byte index * RAM_IO_BLOCK of the file, which has it. */
static uint16_t ram_io_block(ram_io *d, ram_file *f, uint32_t index)
{
    uint16_t block = f->first;
    uint32_t at = 0;
    if (f->near_block != RAM_IO_NONE && f->near_index <= index) { block = f->near_block; at = f->near_index; }
    for (; at < index; at++) block = d->next[block];
    f->near_block = block;
    f->near_index = index;
    return block;
}

static kv_status ram_io_open(void *user, const char *path, uint32_t flags, kv_file **file)
{
    ram_io   *d = (ram_io *)user;
    ram_file *f = ram_io_find(d, path);
    if (f && f->is_dir) return KV_ERR_IO;
    if (f && (flags & KV_OPEN_CREATE) && (flags & KV_OPEN_EXCLUSIVE)) return KV_EXISTS;
    if (!f && !(flags & KV_OPEN_CREATE)) return KV_NOT_FOUND;
    if (!f) {
        kv_status s = ram_io_make(d, path, false, &f);
        if (s != KV_OK) return s;
    }
    if (flags & KV_OPEN_TRUNCATE) ram_io_empty(d, f);
    f->opened++;
    *file = (kv_file *)(void *)f;
    return KV_OK;
}
static kv_status ram_io_close(void *user, kv_file *file)
{
    ram_file *f = (ram_file *)(void *)file;
    if (--f->opened == 0 && !f->path[0]) ram_io_drop((ram_io *)user, f);
    return KV_OK;
}
static kv_status ram_io_size(void *user, kv_file *file, uint64_t *size)
{
    (void)user;
    *size = ((ram_file *)(void *)file)->size;
    return KV_OK;
}
static kv_status ram_io_read_at(void *user, kv_file *file, uint64_t offset, void *data, size_t size, size_t *got)
{
    ram_io   *d = (ram_io *)user;
    ram_file *f = (ram_file *)(void *)file;
    size_t    done = 0;
    if (offset >= f->size) size = 0;
    else if (size > f->size - (uint32_t)offset) size = f->size - (uint32_t)offset;
    while (done < size) {
        uint32_t at = (uint32_t)offset + (uint32_t)done, inside = at % RAM_IO_BLOCK;
        size_t   piece = RAM_IO_BLOCK - inside < size - done ? RAM_IO_BLOCK - inside : size - done;
        memcpy((char *)data + done, d->blocks + (size_t)ram_io_block(d, f, at / RAM_IO_BLOCK) * RAM_IO_BLOCK + inside, piece);
        done += piece;
    }
    *got = size;
    return KV_OK;
}
/* Make the file `size` bytes long, the new ones 0. */
static kv_status ram_io_grow(ram_io *d, ram_file *f, uint64_t size)
{
    uint64_t have = (f->size + RAM_IO_BLOCK - 1) / RAM_IO_BLOCK, need = (size + RAM_IO_BLOCK - 1) / RAM_IO_BLOCK;
    if (need > have && need - have > d->free_count) return KV_ERR_NO_SPACE;
    for (; have < need; have++) {
        uint16_t block = d->first_free;
        d->first_free = d->next[block];
        d->free_count--;
        d->next[block] = RAM_IO_NONE;
        memset(d->blocks + (size_t)block * RAM_IO_BLOCK, 0, RAM_IO_BLOCK);
        if (f->last == RAM_IO_NONE) f->first = block; else d->next[f->last] = block;
        f->last = block;
    }
    if (d->free_count < d->free_count_least) d->free_count_least = d->free_count;
    if (size > f->size) f->size = (uint32_t)size;
    return KV_OK;
}
static kv_status ram_io_write_at(void *user, kv_file *file, uint64_t offset, const void *data, size_t size)
{
    ram_io   *d = (ram_io *)user;
    ram_file *f = (ram_file *)(void *)file;
    kv_status s = size ? ram_io_grow(d, f, offset + size) : KV_OK;
    if (s != KV_OK) return s;
    for (size_t done = 0; done < size;) {
        uint32_t at = (uint32_t)offset + (uint32_t)done, inside = at % RAM_IO_BLOCK;
        size_t   piece = RAM_IO_BLOCK - inside < size - done ? RAM_IO_BLOCK - inside : size - done;
        memcpy(d->blocks + (size_t)ram_io_block(d, f, at / RAM_IO_BLOCK) * RAM_IO_BLOCK + inside, (const char *)data + done, piece);
        done += piece;
    }
    return KV_OK;
}
static kv_status ram_io_append(void *user, kv_file *file, const void *data, size_t size)
{
    return ram_io_write_at(user, file, ((ram_file *)(void *)file)->size, data, size);
}
static kv_status ram_io_sync(void *user, kv_file *file) { (void)user; (void)file; return KV_OK; }
static kv_status ram_io_rename(void *user, const char *from, const char *to)
{
    ram_io   *d = (ram_io *)user;
    ram_file *f = ram_io_find(d, from), *old = ram_io_find(d, to);
    size_t    size = strlen(from);
    if (!f || !ram_io_has_parent(d, to)) return KV_NOT_FOUND;
    if (f == old) return KV_OK;
    if (strlen(to) >= RAM_IO_PATH || (old && old->is_dir)) return KV_ERR_IO;
    if (old) ram_io_drop(d, old);
    memset(f->path, 0, sizeof f->path);
    memcpy(f->path, to, strlen(to));
    for (uint32_t i = 0; f->is_dir && i < RAM_IO_FILES; i++) {          /* what lies below moves along */
        ram_file *below = &d->files[i];
        char      path[RAM_IO_PATH];
        if (!below->used || strncmp(below->path, from, size) != 0 || below->path[size] != '/') continue;
        if (strlen(to) + strlen(below->path + size) >= RAM_IO_PATH) return KV_ERR_IO;
        memset(path, 0, sizeof path);
        memcpy(path, to, strlen(to));
        memcpy(path + strlen(to), below->path + size, strlen(below->path + size));
        memcpy(below->path, path, sizeof path);
    }
    return KV_OK;
}
/* The name of a file in the directory, or NULL */
static const char *ram_io_name_in(const ram_file *f, const char *dir)
{
    size_t size = strlen(dir);
    if (!f->used || strncmp(f->path, dir, size) != 0 || f->path[size] != '/' || strchr(f->path + size + 1, '/')) return NULL;
    return f->path + size + 1;
}
static kv_status ram_io_remove(void *user, const char *path)
{
    ram_io   *d = (ram_io *)user;
    ram_file *f = ram_io_find(d, path);
    if (!f) return KV_NOT_FOUND;
    for (uint32_t i = 0; f->is_dir && i < RAM_IO_FILES; i++) if (ram_io_name_in(&d->files[i], path)) return KV_ERR_IO;
    ram_io_drop(d, f);
    return KV_OK;
}
static kv_status ram_io_list(void *user, const char *path, void (*each)(void *context, const char *name), void *context)
{
    ram_io   *d = (ram_io *)user;
    ram_file *dir = ram_io_find(d, path);
    if (!dir) return KV_NOT_FOUND;
    if (!dir->is_dir) return KV_ERR_IO;
    for (uint32_t i = 0; i < RAM_IO_FILES; i++) {
        const char *name = ram_io_name_in(&d->files[i], path);
        if (name) each(context, name);
    }
    return KV_OK;
}
static kv_status ram_io_make_dir(void *user, const char *path)
{
    ram_io   *d = (ram_io *)user;
    ram_file *f;
    return ram_io_find(d, path) ? KV_EXISTS : ram_io_make(d, path, true, &f);
}
static kv_status ram_io_sync_dir(void *user, const char *path) { return ram_io_find((ram_io *)user, path) ? KV_OK : KV_NOT_FOUND; }
static kv_status ram_io_lock(void *user, const char *path, bool shared, kv_file **lock, uint64_t *holder)
{
    kv_status s = ram_io_open(user, path, shared ? 0 : KV_OPEN_WRITE | KV_OPEN_CREATE, lock);
    *holder = 0;
    if (s != KV_OK) return s;
    if (((ram_file *)(void *)*lock)->locked) { (void)ram_io_close(user, *lock); return KV_ERR_BUSY; }
    ((ram_file *)(void *)*lock)->locked = true;
    return KV_OK;
}
static kv_status ram_io_unlock(void *user, kv_file *lock)
{
    ((ram_file *)(void *)lock)->locked = false;
    return ram_io_close(user, lock);
}
static int ram_io_error(void *user) { (void)user; return 0; }

/* Start an empty disk over `memory` of `size` bytes (two of each 258 are for the chains). */
static void ram_io_init(ram_io *d, void *memory, size_t size)
{
    memset(d, 0, sizeof *d);
    d->block_count = (uint32_t)(size / (RAM_IO_BLOCK + sizeof *d->next));
    if (d->block_count >= RAM_IO_NONE) d->block_count = RAM_IO_NONE - 1;
    d->next = (uint16_t *)memory;
    d->blocks = (unsigned char *)memory + d->block_count * sizeof *d->next;
    d->free_count = d->free_count_least = d->block_count;
    for (uint32_t i = 0; i < d->block_count; i++) d->next[i] = (uint16_t)(i + 1 < d->block_count ? i + 1 : RAM_IO_NONE);
    d->first_free = d->block_count ? 0 : (uint16_t)RAM_IO_NONE;
    d->io.user = d;
    d->io.open = ram_io_open;         d->io.close = ram_io_close;     d->io.size = ram_io_size;
    d->io.read_at = ram_io_read_at;   d->io.append = ram_io_append;   d->io.write_at = ram_io_write_at;
    d->io.sync = ram_io_sync;         d->io.rename = ram_io_rename;   d->io.remove = ram_io_remove;
    d->io.list = ram_io_list;         d->io.make_dir = ram_io_make_dir;   d->io.sync_dir = ram_io_sync_dir;
    d->io.lock = ram_io_lock;         d->io.unlock = ram_io_unlock;   d->io.os_error = ram_io_error;
}
#endif
