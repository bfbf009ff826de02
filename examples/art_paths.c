/* art_paths.c - search by prefix: the files of a machine in a kv_art, and what lies below a directory

   Shows kv_art_set_u64, a prefix range with a limit, a reverse scan, counting a range without visiting
   it, and a cursor that jumps from directory to directory. */
#define KV_ART_IMPLEMENTATION
#include "../kv_art.h"
#include <stdio.h>
#include <string.h>

static const struct { const char *path; unsigned size; } files[] = {
    { "/bin/cat", 44016 },            { "/bin/ls", 151344 },           { "/bin/sh", 125688 },
    { "/etc/fstab", 665 },            { "/etc/hosts", 187 },           { "/etc/ssh/ssh_config", 1650 },
    { "/etc/ssh/sshd_config", 3223 }, { "/home/ada/.profile", 807 },   { "/home/ada/notes/engine.txt", 20480 },
    { "/home/ada/notes/todo.txt", 96 }, { "/home/grace/compiler.c", 8192 }, { "/usr/lib/libc.so", 255 },
    { "/usr/share/dict/words", 985084 },
};

/* The map is the callback's `user`: it may read it, here to get the value as a number. */
static bool print_file(void *user, kv_slice path, kv_slice value)
{
    uint64_t size = 0;
    (void)value;
    kv_art_get_u64((kv_art *)user, path, &size);
    printf("  %-28.*s %8llu\n", (int)path.size, (const char *)path.data, (unsigned long long)size);
    return true;
}

/* The next name below `directory` behind the cursor's, as `ls` would print it. */
static void list_directory(kv_art *map, const char *directory)
{
    kv_range below;
    kv_iter *i;
    char     behind[256];
    memset(&below, 0, sizeof below);
    below.prefix = kv_cstr(directory);
    if (kv_art_iter_open(map, &below, &i) < 0) return;
    printf("ls %s\n", directory);
    while (kv_iter_valid(i)) {
        kv_slice    path = kv_iter_key(i);
        const char *name = (const char *)path.data + below.prefix.size;
        size_t      rest = path.size - below.prefix.size;
        const char *slash = (const char *)memchr(name, '/', rest);
        if (!slash) { printf("  %.*s\n", (int)rest, name); kv_iter_next(i); continue; }
        printf("  %.*s\n", (int)(slash - name + 1), name);
        /* everything below that directory begins with its name and '/': go to the first name behind all of it */
        snprintf(behind, sizeof behind, "%s%.*s%c", directory, (int)(slash - name), name, '/' + 1);
        kv_iter_seek(i, kv_cstr(behind));
    }
    kv_iter_close(i);
}

int main(void)
{
    kv_art  *map;
    kv_range r;
    uint64_t count = 0;
    if (kv_art_open(NULL, &map) < 0) return 1;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (kv_art_set_u64(map, kv_cstr(files[i].path), files[i].size) < 0) return 1;

    memset(&r, 0, sizeof r);
    r.prefix = KV_STR("/etc/");
    printf("below /etc/\n");
    kv_art_scan(map, &r, print_file, map);

    r.limit = 1;
    r.reverse = true;
    r.prefix = KV_STR("/home/");
    printf("the last one below /home/\n");
    kv_art_scan(map, &r, print_file, map);

    memset(&r, 0, sizeof r);
    r.prefix = KV_STR("/home/ada");
    kv_art_count_range(map, &r, &count);
    printf("%llu of %llu files belong to ada\n", (unsigned long long)count, (unsigned long long)kv_art_count(map));

    list_directory(map, "/");
    list_directory(map, "/home/ada/");
    kv_art_close(map);
    return 0;
}
