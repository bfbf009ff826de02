/* lfs.h - the names of littlefs 2 that examples/firmware/littlefs_io.c uses, declared anew so that it
   can be compiled and run here without littlefs; lfs_fake.c has them over a disk in RAM. The values of
   flags and errors are those of littlefs 2.5; the structures are not its own. */
#ifndef LFS_H
#define LFS_H

#include <stdbool.h>
#include <stdint.h>

typedef uint32_t lfs_size_t;
typedef int32_t  lfs_ssize_t;
typedef uint32_t lfs_off_t;
typedef int32_t  lfs_soff_t;

enum lfs_error {
    LFS_ERR_OK = 0, LFS_ERR_IO = -5, LFS_ERR_CORRUPT = -84, LFS_ERR_NOENT = -2, LFS_ERR_EXIST = -17, LFS_ERR_NOTDIR = -20,
    LFS_ERR_ISDIR = -21, LFS_ERR_NOTEMPTY = -39, LFS_ERR_BADF = -9, LFS_ERR_FBIG = -27, LFS_ERR_INVAL = -22,
    LFS_ERR_NOSPC = -28, LFS_ERR_NOMEM = -12, LFS_ERR_NOATTR = -61, LFS_ERR_NAMETOOLONG = -36
};
enum lfs_open_flags { LFS_O_RDONLY = 1, LFS_O_WRONLY = 2, LFS_O_RDWR = 3, LFS_O_CREAT = 0x0100, LFS_O_EXCL = 0x0200, LFS_O_TRUNC = 0x0400 };
enum lfs_whence_flags { LFS_SEEK_SET = 0, LFS_SEEK_CUR = 1, LFS_SEEK_END = 2 };
enum lfs_type { LFS_TYPE_REG = 1, LFS_TYPE_DIR = 2 };

typedef struct lfs { void *disk; } lfs_t;
typedef struct lfs_file { void *handle; uint32_t position; bool open; } lfs_file_t;
typedef struct lfs_dir { void *names; uint32_t next; } lfs_dir_t;
struct lfs_file_config { void *buffer; void *attrs; lfs_size_t attr_count; };
struct lfs_info { uint8_t type; lfs_size_t size; char name[256]; };

int lfs_file_opencfg(lfs_t *lfs, lfs_file_t *file, const char *path, int flags, const struct lfs_file_config *config);
int lfs_file_close(lfs_t *lfs, lfs_file_t *file);
int lfs_file_sync(lfs_t *lfs, lfs_file_t *file);
lfs_ssize_t lfs_file_read(lfs_t *lfs, lfs_file_t *file, void *buffer, lfs_size_t size);
lfs_ssize_t lfs_file_write(lfs_t *lfs, lfs_file_t *file, const void *buffer, lfs_size_t size);
lfs_soff_t lfs_file_seek(lfs_t *lfs, lfs_file_t *file, lfs_soff_t off, int whence);
lfs_soff_t lfs_file_size(lfs_t *lfs, lfs_file_t *file);
int lfs_rename(lfs_t *lfs, const char *oldpath, const char *newpath);
int lfs_remove(lfs_t *lfs, const char *path);
int lfs_stat(lfs_t *lfs, const char *path, struct lfs_info *info);
int lfs_mkdir(lfs_t *lfs, const char *path);
int lfs_dir_open(lfs_t *lfs, lfs_dir_t *dir, const char *path);
int lfs_dir_read(lfs_t *lfs, lfs_dir_t *dir, struct lfs_info *info);
int lfs_dir_close(lfs_t *lfs, lfs_dir_t *dir);

#endif
