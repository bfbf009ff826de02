/* crash_lsm_files.c
   Goal: the store and the real file system: locks, other processes, fork, links, modes, descriptors,
   limits, odd paths, files that are not ours, a disk that is full.
   Method: one case after another in a temporary directory, each in the words of its test; those that
   need another process, another user or another limit fork one. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define KV_LSM_IMPLEMENTATION
#include "../../kv_lsm.h"
#include "../kv_test.h"
#include "../lsm_small.h"
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char base[64];           /* a directory of this run */

static const char *in_base(const char *name)
{
    static char paths[8][6000];
    static int  turn;
    char       *out = paths[turn++ % 8];
    snprintf(out, sizeof paths[0], "%s/%s", base, name);
    return out;
}
static void shell(const char *format, const char *argument)
{
    char command[7000], whole[7100];
    snprintf(command, sizeof command, format, argument);
    snprintf(whole, sizeof whole, "cd %s && %s", base, command);
    CHECK_EQ(system(whole), 0);
}
static void begin(void)
{
    strcpy(base, "/tmp/kv_crash_files_XXXXXX");
    CHECK(mkdtemp(base) != NULL);
}
static void end(void)
{
    char command[200];
    snprintf(command, sizeof command, "chmod -R u+rwx %s; rm -rf %s", base, base);
    CHECK_EQ(system(command), 0);
}
static char error_text[500];
static kv_lsm_options small_options(void)
{
    kv_lsm_options o = lsm_small(NULL, error_text, sizeof error_text);
    o.l0_trigger = 2;
    o.sync = KV_SYNC_NONE;
    return o;
}
static kv_status open_with(const char *path, const kv_lsm_options *o, kv_lsm **db) { *db = NULL; error_text[0] = 0; return kv_lsm_open(path, o, db); }
static kv_status open_at(const char *path, kv_lsm **db) { kv_lsm_options o = small_options(); return open_with(path, &o, db); }
static void fill(kv_lsm *db, int from, int to)
{
    char key[32], value[200];
    memset(value, 'v', sizeof value);
    for (int i = from; i < to; i++) CHECK_OK(kv_lsm_set(db, kv_bytes(key, (size_t)snprintf(key, sizeof key, "key%06d", i)), kv_bytes(value, 50 + (size_t)i % 100)));
}
static uint64_t count_of(kv_lsm *db) { uint64_t n = UINT64_MAX; CHECK_OK(kv_lsm_count(db, NULL, &n)); return n; }
static void make_store(const char *path, int entries)
{
    kv_lsm *db;
    if (!CHECK_OK(open_at(path, &db))) { fprintf(stderr, "%s\n", error_text); return; }
    fill(db, 0, entries);
    CHECK_OK(kv_lsm_close(db));
}
static void expect_store(const char *path, uint64_t entries)
{
    kv_lsm *db;
    if (!CHECK_OK(open_at(path, &db))) { fprintf(stderr, "%s\n", error_text); return; }
    CHECK_EQ(count_of(db), entries);
    CHECK_OK(kv_lsm_close(db));
}
static int open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int  n = 0;
    if (!d) return -1;
    while (readdir(d)) n++;
    closedir(d);
    return n;
}
/* Run fn in a child; its answer is the exit status (0 to 100), or -1 where it was killed. */
static int in_child(int (*fn)(void *), void *argument)
{
    int   status;
    pid_t pid;
    fflush(stdout);
    fflush(stderr);
    pid = fork();
    if (pid == 0) { alarm(60); _exit(fn(argument)); }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
static int child_opens(void *path)
{
    kv_lsm *db;
    kv_status s = open_at((const char *)path, &db);
    char    wanted[40];
    snprintf(wanted, sizeof wanted, "%d", (int)getppid());
    if (s == KV_ERR_BUSY) return strstr(error_text, wanted) ? 7 : 8;     /* 7: and the text names the holder */
    if (s < 0) return 9;
    kv_lsm_close(db);
    return 0;
}
static void name_of_first(const char *dir, const char *end_of_name, char *out, size_t size)
{
    DIR *d = opendir(dir);
    out[0] = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        size_t n = strlen(e->d_name), m = strlen(end_of_name);
        if ((n >= m && strcmp(e->d_name + n - m, end_of_name) == 0) || (strncmp(e->d_name, end_of_name, m) == 0)) { snprintf(out, size, "%s/%s", dir, e->d_name); break; }
    }
    if (d) closedir(d);
}

/* ---- locks ---- */

TEST(crash_files, second_open_in_the_same_process_is_busy)
{
    kv_lsm *db, *second;
    char    wanted[40];
    begin();
    CHECK_OK(open_at(in_base("db"), &db));
    CHECK_STATUS(open_at(in_base("db"), &second), KV_ERR_BUSY);
    CHECK(second == NULL);
    snprintf(wanted, sizeof wanted, "%d", (int)getpid());
    if (!CHECK(strstr(error_text, wanted) != NULL)) fprintf(stderr, "%s\n", error_text);
    fill(db, 0, 10);
    CHECK_OK(kv_lsm_close(db));
    expect_store(in_base("db"), 10);
    end();
}
TEST(crash_files, open_in_another_process_is_busy_and_names_the_holder)
{
    kv_lsm *db;
    char    path[100];
    begin();
    snprintf(path, sizeof path, "%s", in_base("db"));
    CHECK_OK(open_at(path, &db));
    CHECK_EQ(in_child(child_opens, path), 7);
    CHECK_OK(kv_lsm_close(db));
    CHECK_EQ(in_child(child_opens, path), 0);
    end();
}
TEST(crash_files, closing_a_stray_descriptor_keeps_the_lock)
{
    kv_lsm *db;
    char    path[100];
    int     fd;
    begin();
    snprintf(path, sizeof path, "%s", in_base("db"));
    CHECK_OK(open_at(path, &db));
    fd = open(in_base("db/LOCK"), O_RDWR);
    CHECK(fd >= 0);
    close(fd);
    CHECK_EQ(in_child(child_opens, path), 7);
    CHECK_OK(kv_lsm_close(db));
    end();
}
static int child_leaves_open(void *path)
{
    kv_lsm *db;
    if (open_at((const char *)path, &db) < 0) return 1;
    fill(db, 0, 30);
    raise(SIGKILL);
    return 2;
}
TEST(crash_files, lock_of_a_killed_process_is_free)
{
    begin();
    CHECK_EQ(in_child(child_leaves_open, (void *)(uintptr_t)in_base("db")), -1);
    expect_store(in_base("db"), 30);
    end();
}

/* ---- a log that is written through a map ---- */

static int child_leaves_mapped(void *path)
{
    kv_lsm_options o = small_options();
    kv_lsm        *db;
    o.map_tables = true;
    o.memtable_bytes = 1 << 20;
    if (open_with((const char *)path, &o, &db) < 0) return 1;
    fill(db, 0, 3000);
    raise(SIGKILL);
    return 2;
}
static uint64_t size_of(const char *path) { struct stat info; return stat(path, &info) == 0 ? (uint64_t)info.st_size : 0; }
static void put_byte(const char *path, uint64_t from_end)
{
    FILE *f = fopen(path, "r+b");
    CHECK(f && fseek(f, -(long)from_end, SEEK_END) == 0 && fputc(1, f) == 1);
    if (f) fclose(f);
}
/* What a killed process stored is there; the zeros behind it are no damage, anything else there is. */
TEST(crash_files, log_written_through_a_map_outlives_its_process)
{
    for (int torn = 0; torn < 2; torn++) {
        kv_lsm        *db;
        kv_lsm_stats_t stats;
        char           log[512];
        begin();
        CHECK_EQ(in_child(child_leaves_mapped, (void *)(uintptr_t)in_base("db")), -1);
        name_of_first(in_base("db"), ".log", log, sizeof log);
        CHECK(size_of(log) > 3000 * 60);
        if (torn) put_byte(log, 9);
        CHECK_OK(kv_lsm_check(in_base("db"), NULL, NULL, NULL));
        if (CHECK_OK(open_at(in_base("db"), &db))) {
            CHECK_OK(kv_lsm_stats(db, &stats));
            CHECK_EQ(stats.recovered_records, 3000);
            CHECK_EQ(count_of(db), 3000);
            if (size_of(log) % 65536 == 0) CHECK_EQ(stats.recovered_dropped_bytes != 0, torn);
            CHECK_OK(kv_lsm_close(db));
        }
        expect_store(in_base("db"), 3000);
        end();
    }
}
/* Closed cleanly, it ends where its records do, also where the memtable needed no flush. */
TEST(crash_files, log_written_through_a_map_is_cut_when_it_is_closed)
{
    kv_lsm_options o = small_options();
    kv_lsm        *db;
    char           log[512];
    begin();
    o.map_tables = true;
    if (CHECK_OK(open_with(in_base("db"), &o, &db))) {
        kv_iter *iter;
        fill(db, 0, 40);
        CHECK_OK(kv_lsm_flush(db));
        CHECK_OK(kv_lsm_iter_open(db, NULL, NULL, &iter));
        CHECK_OK(kv_lsm_ingest(db, iter));              /* a record in the log, and nothing in the memtable */
        kv_iter_close(iter);
        CHECK_OK(kv_lsm_close(db));
    }
    name_of_first(in_base("db"), ".log", log, sizeof log);
    CHECK(size_of(log) >= 64 && size_of(log) < 4096);
    expect_store(in_base("db"), 40);
    end();
}
TEST(crash_files, lock_that_is_a_directory_is_an_error)
{
    kv_lsm *db;
    begin();
    make_store(in_base("db"), 10);
    shell("rm db/LOCK && mkdir db/LOCK%s", "");
    CHECK(open_at(in_base("db"), &db) < 0 && db == NULL);
    shell("rmdir db/LOCK%s", "");
    expect_store(in_base("db"), 10);
    end();
}

/* ---- fork ---- */

static kv_lsm *inherited;
static int child_uses_inherited(void *unused)
{
    kv_buf value;
    uint64_t n;
    kv_lsm_stats_t stats;
    kv_snapshot *snapshot = NULL;
    kv_iter *iter = NULL;
    (void)unused;
    memset(&value, 0, sizeof value);
    if (kv_lsm_set(inherited, KV_STR("child"), KV_STR("x")) != KV_ERR_INVALID) return 1;
    if (kv_lsm_get(inherited, KV_STR("key000001"), &value) != KV_ERR_INVALID) return 2;
    if (kv_lsm_flush(inherited) != KV_ERR_INVALID) return 3;
    if (kv_lsm_compact(inherited, NULL, NULL, NULL) != KV_ERR_INVALID) return 4;
    if (kv_lsm_sync(inherited) != KV_ERR_INVALID) return 5;
    if (kv_lsm_count(inherited, NULL, &n) != KV_ERR_INVALID) return 6;
    if (kv_lsm_snapshot(inherited, &snapshot) != KV_ERR_INVALID) return 7;
    if (kv_lsm_iter_open(inherited, NULL, NULL, &iter) != KV_ERR_INVALID) return 8;
    if (kv_lsm_step(inherited) != KV_ERR_INVALID) return 9;
    if (kv_lsm_delete(inherited, KV_STR("key000001")) != KV_ERR_INVALID) return 10;
    if (kv_lsm_checkpoint(inherited, in_base("from-child")) != KV_ERR_INVALID) return 11;
    (void)kv_lsm_stats(inherited, &stats);
    (void)kv_lsm_close(inherited);
    return 0;
}
/* A thread of the parent does not live in the child: what only its stack pointed to would count as leaked there. */
static bool in_forked_child;
int         __lsan_is_turned_off(void);
int         __lsan_is_turned_off(void) { return in_forked_child; }
static int child_just_exits(void *unused) { (void)unused; in_forked_child = true; exit(0); }
static int child_execs(void *unused) { (void)unused; execl("/bin/true", "true", (char *)NULL); return 1; }
TEST(crash_files, store_after_fork_refuses_and_leaves_the_parent_alone)
{
    begin();
    for (int threads = 0; threads < 2; threads++) {
        kv_lsm_options o = small_options();
        o.no_background = threads == 0;
        CHECK_OK(open_with(in_base(threads ? "db1" : "db0"), &o, &inherited));
        fill(inherited, 0, 100);
        for (int i = 0; i < 5; i++) {
            CHECK_EQ(in_child(child_uses_inherited, NULL), 0);
            CHECK_EQ(in_child(child_just_exits, NULL), 0);
            CHECK_EQ(in_child(child_execs, NULL), 0);
            fill(inherited, 100 + i * 50, 150 + i * 50);
        }
        CHECK_OK(kv_lsm_compact(inherited, NULL, NULL, NULL));
        CHECK_EQ(count_of(inherited), 350);
        CHECK_OK(kv_lsm_close(inherited));
        CHECK_OK(kv_lsm_check(in_base(threads ? "db1" : "db0"), NULL, NULL, NULL));
        expect_store(in_base(threads ? "db1" : "db0"), 350);
    }
    end();
}
/* The child of a fork holds the same open lock; once it has closed the store it must not keep it. */
TEST(crash_files, lock_does_not_live_on_in_a_child_that_closed_the_store)
{
    int     ready[2], go[2];
    char    c;
    pid_t   pid;
    kv_lsm *db;
    begin();
    CHECK(pipe(ready) == 0 && pipe(go) == 0);
    CHECK_OK(open_at(in_base("db"), &inherited));
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        kv_lsm_close(inherited);
        c = write(ready[1], "r", 1) == 1 && read(go[0], &c, 1) == 1 ? 0 : 1;
        _exit(c);
    }
    CHECK(read(ready[0], &c, 1) == 1);
    CHECK_OK(kv_lsm_close(inherited));
    CHECK_OK(open_at(in_base("db"), &db));              /* the child lives, and holds nothing */
    CHECK_OK(kv_lsm_close(db));
    CHECK(write(go[1], "g", 1) == 1);
    waitpid(pid, NULL, 0);
    close(ready[0]); close(ready[1]); close(go[0]); close(go[1]);
    end();
}

/* ---- links and odd files ---- */

TEST(crash_files, symbolic_link_to_the_directory_is_followed)
{
    begin();
    make_store(in_base("db"), 20);
    shell("ln -s db link%s", "");
    expect_store(in_base("link"), 20);
    end();
}
TEST(crash_files, symbolic_link_in_place_of_a_file_is_refused)
{
    static const char *const files[] = { "CURRENT", "MANIFEST", ".kvt", "LOCK" };
    for (int i = 0; i < 4; i++) {
        char    path[300];
        kv_lsm *db;
        uint64_t n = 0;
        begin();
        make_store(in_base("db"), 200);
        name_of_first(in_base("db"), files[i], path, sizeof path);
        if (!CHECK(path[0])) { end(); continue; }
        CHECK_EQ(rename(path, in_base("aside")), 0);
        CHECK_EQ(symlink("../aside", path), 0);
        if (open_at(in_base("db"), &db) >= 0) {         /* a table may be opened only when it is read */
            CHECK(kv_lsm_count(db, NULL, &n) < 0);
            kv_lsm_close(db);
        }
        end();
    }
}
TEST(crash_files, hard_linked_tables_are_fine)
{
    begin();
    make_store(in_base("db"), 300);
    shell("mkdir copy && ln db/*.kvt copy/%s", "");
    expect_store(in_base("db"), 300);
    end();
}
TEST(crash_files, fifo_in_place_of_a_file_does_not_hang)
{
    static const char *const files[] = { "CURRENT", "MANIFEST", ".kvt", "LOCK" };
    for (int i = 0; i < 4; i++) {
        char     path[300];
        kv_lsm  *db;
        uint64_t n;
        begin();
        make_store(in_base("db"), 200);
        name_of_first(in_base("db"), files[i], path, sizeof path);
        shell("rm %s", path);
        CHECK_EQ(mkfifo(path, 0600), 0);
        alarm(60);
        if (open_at(in_base("db"), &db) >= 0) {
            if (i == 2) CHECK(kv_lsm_count(db, NULL, &n) < 0);
            kv_lsm_close(db);
        }
        alarm(0);
        end();
    }
}
TEST(crash_files, files_that_are_not_ours_are_left_alone)
{
    kv_lsm *db;
    begin();
    make_store(in_base("db"), 100);
    shell("cd db && echo mine > notes.txt && mkdir backup && echo mine > backup/000001.kvt && echo mine > table.kvt.bak && echo mine > 12x.log && mkdir lost && echo mine > lost/x%s", "");
    CHECK_OK(open_at(in_base("db"), &db));
    fill(db, 100, 400);
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    CHECK_OK(kv_lsm_close(db));
    CHECK_OK(kv_lsm_repair(in_base("db"), NULL, NULL, NULL));
    expect_store(in_base("db"), 400);
    shell("cd db && grep -q mine notes.txt && grep -q mine backup/000001.kvt && grep -q mine table.kvt.bak && grep -q mine 12x.log && grep -q mine lost/x%s", "");
    end();
}
TEST(crash_files, current_that_points_elsewhere_is_not_believed)
{
    kv_lsm *db;
    begin();
    make_store(in_base("db"), 10);
    make_store(in_base("other"), 20);
    shell("cp other/CURRENT db/CURRENT && printf '../other/' | cat - other/CURRENT > db/CURRENT%s", "");
    CHECK(open_at(in_base("db"), &db) < 0 && db == NULL);
    expect_store(in_base("other"), 20);
    end();
}
TEST(crash_files, manifest_of_another_store_is_not_believed)
{
    kv_lsm *db;
    begin();
    make_store(in_base("db"), 200);
    make_store(in_base("other"), 300);
    shell("rm db/MANIFEST* db/CURRENT && cp other/MANIFEST* other/CURRENT db/%s", "");
    if (open_at(in_base("db"), &db) >= 0) {
        uint64_t n;
        CHECK(kv_lsm_count(db, NULL, &n) < 0);          /* tables of another store under the same numbers */
        kv_lsm_close(db);
    }
    end();
}

/* ---- paths ---- */

TEST(crash_files, odd_paths_work_and_impossible_ones_are_errors)
{
    char   *path = (char *)malloc(9000);
    kv_lsm *db;
    kv_status s;
    begin();
    make_store(in_base("new\nline"), 5);
    make_store(in_base("\xff\xfe not utf-8"), 5);
    make_store(in_base("with space/"), 5);
    expect_store(in_base("with space"), 5);
    s = open_at(in_base("no/such/parent"), &db);
    CHECK(s < 0 && db == NULL && error_text[0]);
    memset(path, 'x', 8999);
    memcpy(path, base, strlen(base));
    path[strlen(base)] = '/';
    path[8999] = 0;
    CHECK(open_at(path, &db) < 0 && db == NULL);
    path[4096] = 0;
    CHECK(open_at(path, &db) < 0 && db == NULL);
    for (size_t i = strlen(base) + 1; i < 4090; i++) path[i] = i % 200 == 0 ? '/' : 'x';
    path[4085] = 0;
    CHECK(open_at(path, &db) < 0 && db == NULL);
    CHECK(open_at("", &db) < 0 && db == NULL);
    free(path);
    shell("echo text > file%s", "");
    CHECK(open_at(in_base("file"), &db) < 0 && db == NULL);
    end();
}
/* Directories below base, then a name that makes the path exactly `size` bytes long. */
static void long_path(char *path, size_t size)
{
    size_t at = strlen(base);
    memcpy(path, base, at);
    while (size - at > 400) {
        path[at] = '/';
        memset(path + at + 1, 'd', 199);
        path[at += 200] = 0;
        CHECK(mkdir(path, 0700) == 0 || errno == EEXIST);
    }
    path[at] = '/';
    memset(path + at + 1, 'd', 150);
    path[at += 151] = 0;
    CHECK(mkdir(path, 0700) == 0 || errno == EEXIST);
    path[at] = '/';
    memset(path + at + 1, 's', size - at - 1);
    path[size] = 0;
}
static int entries_in(const char *path)
{
    DIR *d = opendir(path);
    int  n = 0;
    if (!d) return -1;
    for (struct dirent *e; (e = readdir(d)) != NULL;) n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}
/* The system's paths end at PATH_MAX - 1 bytes, and those of a store's files are longer than its own.
   Where only these are too long, the directory may stay, with no store in it. */
TEST(crash_files, longest_path_works_and_a_longer_one_makes_no_store)
{
    static char path[PATH_MAX + 64], parent[PATH_MAX], text[PATH_MAX + 1000];
    size_t      longest = 0;
    begin();
    for (size_t size = PATH_MAX + 2; size >= PATH_MAX - 60 && (!longest || size + 4 >= longest); size--) {
        kv_lsm_options o = small_options();
        kv_lsm        *db;
        kv_status      s;
        o.error_text = text;
        o.error_text_size = sizeof text;
        text[0] = 0;
        long_path(path, size);
        snprintf(parent, sizeof parent, "%.*s", (int)(strrchr(path, '/') - path), path);
        s = open_with(path, &o, &db);
        if (s == KV_OK) {
            if (!longest) longest = size;
            fill(db, 0, 400);
            CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
            fill(db, 400, 500);
            CHECK_OK(kv_lsm_close(db));
            expect_store(path, 500);
            CHECK_OK(kv_lsm_check(path, NULL, NULL, NULL));
            shell("rm -rf '%s'/s*", parent);
            continue;
        }
        CHECK(!longest);                                /* where it works, a shorter one does too */
        CHECK(db == NULL && s != KV_ERR_CORRUPT && strlen(text) > size + 10);      /* the path, and why */
        if (size >= PATH_MAX) CHECK_EQ(entries_in(parent), 0);
        else if (entries_in(parent)) {
            CHECK(rename(path, in_base("left")) == 0);
            CHECK(access(in_base("left/CURRENT"), F_OK) != 0);
            make_store(in_base("left"), 5);             /* it is in nobody's way */
            expect_store(in_base("left"), 5);
            shell("rm -rf left%s", "");
        }
    }
    if (!CHECK(longest >= PATH_MAX - 40 && longest < PATH_MAX)) fprintf(stderr, "the longest is %zu bytes\n", longest);
    end();
}
static int child_changes_directory(void *unused)
{
    kv_lsm *db;
    int     bad = 0;
    size_t  failed = test_failed_checks;
    (void)unused;
    if (chdir(in_base("here")) != 0 || open_at("db", &db) < 0) return 1;
    if (chdir(in_base("there")) != 0) return 2;
    fill(db, 0, 400);
    if (kv_lsm_compact(db, NULL, NULL, NULL) < 0) bad = 3;
    if (count_of(db) != 400) bad = 4;
    if (kv_lsm_close(db) < 0) bad = 5;
    return bad ? bad : test_failed_checks == failed ? 0 : 6;
}
TEST(crash_files, relative_path_outlives_a_change_of_directory)
{
    begin();
    shell("mkdir here there%s", "");
    make_store(in_base("there/db"), 7);
    CHECK_EQ(in_child(child_changes_directory, NULL), 0);
    expect_store(in_base("here/db"), 400);
    expect_store(in_base("there/db"), 7);
    end();
}

/* ---- modes and descriptors ---- */

TEST(crash_files, directory_is_0700_and_files_are_0600)
{
    kv_lsm     *db;
    struct stat info;
    mode_t      before = umask(0);
    DIR        *d;
    int         files = 0;
    begin();
    CHECK_OK(open_at(in_base("db"), &db));
    fill(db, 0, 300);
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    CHECK_OK(kv_lsm_checkpoint(db, in_base("copy")));
    for (int i = 0; i < 2; i++) {
        const char *dir = in_base(i ? "copy" : "db");
        CHECK(stat(dir, &info) == 0 && (info.st_mode & 0777) == 0700);
        d = opendir(dir);
        for (struct dirent *e; d && (e = readdir(d));) {
            char path[400];
            if (e->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "%.100s/%.250s", dir, e->d_name);
            CHECK(stat(path, &info) == 0);
            if (S_ISREG(info.st_mode) && !CHECK((info.st_mode & 0777) == 0600)) fprintf(stderr, "%s is %o\n", path, (unsigned)(info.st_mode & 0777));
            files++;
        }
        if (d) closedir(d);
    }
    CHECK(files > 4);
    CHECK_OK(kv_lsm_close(db));
    umask(before);
    end();
}
/* Under a mask that takes the owner's own rights away: an error in words, or a store that opens again. */
static int child_under_a_mask(void *octal)
{
    size_t  failed = test_failed_checks;
    mode_t  mask = (mode_t)strtoul((const char *)octal, NULL, 8);
    uint64_t wanted = 200;
    kv_lsm *db;
    kv_status s;
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) return 50;    /* root may read everything */
    make_store(in_base("db"), 200);
    umask(mask);
    s = open_at(in_base("new"), &db);
    if (s == KV_OK) {
        fill(db, 0, 300);
        CHECK_OK(kv_lsm_close(db));
    } else CHECK(s != KV_ERR_CORRUPT && db == NULL && strlen(error_text) > 10);
    umask(077);
    if (s == KV_OK) expect_store(in_base("new"), 300);
    else {
        s = open_at(in_base("new"), &db);
        if (s == KV_OK) CHECK_OK(kv_lsm_close(db));
        else CHECK(s != KV_ERR_CORRUPT && strlen(error_text) > 10);
    }
    umask(mask);                                            /* and a store that is there already */
    s = open_at(in_base("db"), &db);
    if (s == KV_OK) {
        uint64_t n = 0;
        fill(db, 200, 500);
        s = kv_lsm_flush(db);
        CHECK(s == KV_OK || strlen(kv_last_error(kv_lsm_store(db))) > 10);
        s = kv_lsm_count(db, NULL, &n);                     /* a table that it may write, and not read */
        CHECK(s == KV_OK ? n == 500 : s == KV_ERR_IO && strlen(kv_last_error(kv_lsm_store(db))) > 10);
        (void)kv_lsm_close(db);
        wanted = 500;
    } else CHECK(s != KV_ERR_CORRUPT && strlen(error_text) > 10);
    umask(077);
    s = open_at(in_base("db"), &db);
    if (s == KV_OK) { CHECK_EQ(count_of(db), wanted); CHECK_OK(kv_lsm_close(db)); }
    else CHECK(s != KV_ERR_CORRUPT && s != KV_NOT_FOUND && strlen(error_text) > 10);
    shell("chmod -R u+rwx db%s", "");                       /* with the rights back, all of it is there */
    expect_store(in_base("db"), wanted);
    return test_failed_checks == failed ? 0 : 1;
}
TEST(crash_files, mask_that_takes_the_owners_rights_loses_nothing)
{
    static const char *const masks[] = { "0777", "0277", "0477", "0677", "0177" };
    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++) {
        begin();
        if (geteuid() == 0) CHECK_EQ(chown(base, 65534, 65534), 0);
        if (!CHECK_EQ(in_child(child_under_a_mask, (void *)(uintptr_t)masks[i]), 0)) fprintf(stderr, "umask %s\n", masks[i]);
        end();
    }
}
TEST(crash_files, descriptors_close_on_exec)
{
    kv_lsm *db;
    int     before[64];
    begin();
    for (int fd = 0; fd < 64; fd++) before[fd] = fcntl(fd, F_GETFD);
    CHECK_OK(open_at(in_base("db"), &db));
    fill(db, 0, 500);
    CHECK_OK(kv_lsm_flush(db));
    CHECK_EQ(count_of(db), 500);
    for (int fd = 0; fd < 64; fd++)
        if (before[fd] < 0 && fcntl(fd, F_GETFD) >= 0) CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    CHECK_OK(kv_lsm_close(db));
    end();
}
static int child_without_standard_descriptors(void *unused)
{
    kv_lsm *db;
    int     bad = 0;
    (void)unused;
    close(0); close(1); close(2);
    if (open_at(in_base("db"), &db) < 0) return 1;
    fill(db, 0, 300);
    if (kv_lsm_flush(db) < 0) bad = 2;
    for (int fd = 0; fd < 3; fd++) if (fcntl(fd, F_GETFD) >= 0) bad = 10 + fd;
    if (write(1, "a stray message", 15) >= 0 || write(2, "a stray message", 15) >= 0) bad = 20;
    if (kv_lsm_close(db) < 0) bad = 3;
    return bad;
}
TEST(crash_files, descriptors_0_to_2_are_never_used)
{
    begin();
    CHECK_EQ(in_child(child_without_standard_descriptors, NULL), 0);
    expect_store(in_base("db"), 300);
    end();
}
TEST(crash_files, no_descriptor_leaks_whatever_fails)
{
    kv_lsm *db;
    kv_lsm_options o = small_options();
    int     before;
    begin();
    make_store(in_base("db"), 300);
    shell("cp -r db broken && : > broken/CURRENT && cp -r db broken2 && for f in broken2/MANIFEST*; do echo x > $f; done%s", "");
    before = open_descriptors();
    for (int i = 0; i < 5; i++) {
        CHECK(open_at(in_base("broken"), &db) < 0);
        CHECK(open_at(in_base("broken2"), &db) < 0);
        CHECK(open_at(in_base("no/parent"), &db) < 0);
        o = small_options();
        o.create_only = true;
        CHECK_STATUS(open_with(in_base("db"), &o, &db), KV_EXISTS);
        o = small_options();
        o.must_exist = true;
        CHECK_STATUS(open_with(in_base("nothing"), &o, &db), KV_NOT_FOUND);
        CHECK(kv_lsm_check(in_base("broken2"), NULL, NULL, NULL) < 0);
        expect_store(in_base("db"), 300);
        CHECK_EQ(open_descriptors(), before);
    }
    CHECK(access(in_base("nothing"), F_OK) != 0);       /* asking for it did not make it */
    end();
}
static int child_with_few_descriptors(void *unused)
{
    struct rlimit limit = { 20, 20 };
    kv_lsm_options o = small_options();
    kv_lsm  *db;
    uint64_t n = 0;
    (void)unused;
    o.open_files = 4;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return 1;
    if (open_with(in_base("db"), &o, &db) < 0) return 2;
    fill(db, 0, 2000);
    if (kv_lsm_flush(db) < 0) return 3;
    if (kv_lsm_count(db, NULL, &n) < 0 || n != 2000) return 4;
    if (kv_lsm_compact(db, NULL, NULL, NULL) < 0) return 5;
    return kv_lsm_close(db) < 0 ? 6 : 0;
}
static int child_with_no_descriptors(void *unused)
{
    struct rlimit limit = { 6, 6 };
    kv_lsm  *db;
    kv_status s;
    uint64_t n = 0;
    (void)unused;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return 1;
    for (int i = 3; i < 6; i++) close(i);
    s = open_at(in_base("db"), &db);                    /* an error, or a store that says when it cannot read */
    if (s < 0) return 0;
    s = kv_lsm_count(db, NULL, &n);
    kv_lsm_close(db);
    return s < 0 || n == 2000 ? 0 : 2;
}
TEST(crash_files, few_descriptors_are_enough_and_too_few_an_error)
{
    begin();
    CHECK_EQ(in_child(child_with_few_descriptors, NULL), 0);
    CHECK_EQ(in_child(child_with_no_descriptors, NULL), 0);
    expect_store(in_base("db"), 2000);
    end();
}

/* ---- limits and full disks ---- */

static int child_with_a_file_size_limit(void *unused)
{
    struct rlimit limit = { 6000, 6000 };
    kv_lsm   *db;
    kv_status s = KV_OK;
    char      key[32], value[200];
    int       i;
    (void)unused;
    signal(SIGXFSZ, SIG_IGN);
    if (open_at(in_base("db"), &db) < 0) return 1;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
    memset(value, 'v', sizeof value);
    for (i = 0; i < 500 && s >= 0; i++) s = kv_lsm_set(db, kv_bytes(key, (size_t)snprintf(key, sizeof key, "key%06d", i)), kv_bytes(value, sizeof value));
    if (s >= 0) return 3;                               /* a log of 8 KB does not fit */
    for (int k = 0; k < i - 1; k++)                     /* and all that returned KV_OK is still read */
        if (kv_lsm_exists(db, kv_bytes(key, (size_t)snprintf(key, sizeof key, "key%06d", k))) != KV_OK) return 4;
    kv_lsm_close(db);
    return 0;
}
TEST(crash_files, file_size_limit_is_an_error_and_not_a_loss)
{
    kv_lsm *db;
    begin();
    CHECK_EQ(in_child(child_with_a_file_size_limit, NULL), 0);
    CHECK_OK(open_at(in_base("db"), &db));
    CHECK(count_of(db) > 5);
    CHECK_OK(kv_lsm_close(db));
    end();
}
TEST(crash_files, really_full_file_system_reads_on_and_resumes)
{
    char      dir[100], key[32], value[200];
    kv_lsm   *db = NULL;
    kv_status s = KV_OK;
    int       i, stored = 0;
    begin();
    snprintf(dir, sizeof dir, "%s", in_base("small"));
    mkdir(dir, 0700);
    if (mount("tmpfs", dir, "tmpfs", 0, "size=1m") != 0) { end(); TEST_SKIP("mounting a small file system needs root"); return; }
    snprintf(key, sizeof key, "/x");
    if (CHECK_OK(open_at(in_base("small/db"), &db))) {
        memset(value, 'v', sizeof value);
        for (i = 0; i < 40000 && s >= 0; i++) {
            for (size_t k = 0; k < sizeof value; k++) value[k] = (char)(i * 7919 + (int)k * (i + 3));
            s = kv_lsm_set(db, kv_bytes(key, (size_t)snprintf(key, sizeof key, "key%06d", i)), kv_bytes(value, sizeof value));
            if (s >= 0) stored++;
        }
        if (!CHECK(s == KV_ERR_NO_SPACE || s == KV_ERR_READ_ONLY)) fprintf(stderr, "%s\n", kv_status_text(s));
        CHECK_EQ(count_of(db), stored);
        CHECK_EQ(mount("tmpfs", dir, "tmpfs", MS_REMOUNT, "size=16m"), 0);
        if (!CHECK_OK(kv_lsm_resume(db))) fprintf(stderr, "%s\n", kv_last_error(kv_lsm_store(db)));
        CHECK_OK(kv_lsm_set(db, KV_STR("with room again"), KV_STR("1")));
        CHECK_EQ(count_of(db), stored + 1);
        CHECK_OK(kv_lsm_close(db));
        CHECK_OK(kv_lsm_check(in_base("small/db"), NULL, NULL, NULL));
        expect_store(in_base("small/db"), (uint64_t)stored + 1);
    }
    CHECK_EQ(umount(dir), 0);
    end();
}

/* ---- read-only, other users ---- */

static void listing(const char *dir, char *out, size_t size)
{
    char  command[300];
    FILE *p;
    size_t n;
    snprintf(command, sizeof command, "cd %.200s && ls -A | sort | while read f; do echo \"$f $(stat -c '%%s %%y %%i' \"$f\")\"; done", dir);
    p = popen(command, "r");
    n = p ? fread(out, 1, size - 1, p) : 0;
    out[n] = 0;
    if (p) pclose(p);
}
TEST(crash_files, read_only_open_reads_the_log_and_touches_nothing)
{
    static char    before[20000], after[20000];
    kv_lsm_options o = small_options();
    kv_lsm        *db, *second;
    begin();
    CHECK_EQ(in_child(child_leaves_open, (void *)(uintptr_t)in_base("db")), -1);    /* 30 entries, in the log only */
    listing(in_base("db"), before, sizeof before);
    o.read_only = true;
    if (CHECK_OK(open_with(in_base("db"), &o, &db))) {
        CHECK_EQ(count_of(db), 30);
        CHECK_STATUS(kv_lsm_set(db, KV_STR("a"), KV_STR("b")), KV_ERR_READ_ONLY);
        CHECK_STATUS(kv_lsm_compact(db, NULL, NULL, NULL), KV_ERR_READ_ONLY);
        CHECK(!(kv_store_caps(kv_lsm_store(db)) & KV_CAP_WRITE));
        CHECK_OK(open_with(in_base("db"), &o, &second));                            /* readers share */
        CHECK_EQ(count_of(second), 30);
        CHECK_OK(kv_lsm_close(second));
        CHECK_STATUS(open_at(in_base("db"), &second), KV_ERR_BUSY);                 /* but not with a writer */
        CHECK_OK(kv_lsm_close(db));
    } else fprintf(stderr, "%s\n", error_text);
    listing(in_base("db"), after, sizeof after);
    if (!CHECK(strcmp(before, after) == 0)) fprintf(stderr, "before:\n%safter:\n%s", before, after);
    CHECK_OK(open_at(in_base("db"), &db));
    CHECK_STATUS(open_with(in_base("db"), &o, &second), KV_ERR_BUSY);
    CHECK_OK(kv_lsm_close(db));
    CHECK_STATUS(open_with(in_base("nothing"), &o, &db), KV_NOT_FOUND);
    CHECK(access(in_base("nothing"), F_OK) != 0);
    end();
}
/* In a mount namespace of its own, so that nobody else sees the mounts: they go with this process. */
enum { CHILD_MAY_NOT_MOUNT = 99 };
static int child_on_a_read_only_mount(void *unused)
{
    static char    before[20000], after[20000];
    size_t         failed = test_failed_checks;
    kv_lsm_options o = small_options();
    const char    *names[2] = { "disk/closed", "disk/killed" };
    char           dir[100], path[100];
    kv_lsm        *db;
    (void)unused;
    snprintf(dir, sizeof dir, "%s", in_base("disk"));
    if (mkdir(dir, 0700) != 0) return 2;
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return CHILD_MAY_NOT_MOUNT;
    if (mount("tmpfs", dir, "tmpfs", 0, "size=16m") != 0) return CHILD_MAY_NOT_MOUNT;
    make_store(in_base(names[0]), 200);
    snprintf(path, sizeof path, "%s", in_base(names[1]));
    CHECK_EQ(in_child(child_leaves_open, path), -1);        /* 30 entries, in the log only */
    if (mount("tmpfs", dir, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL) != 0) return CHILD_MAY_NOT_MOUNT;
    CHECK(mkdir(in_base("disk/other"), 0700) != 0 && errno == EROFS);
    for (int i = 0; i < 2; i++) {
        uint64_t  entries = i ? 30 : 200;
        kv_status s;
        snprintf(path, sizeof path, "%s", in_base(names[i]));
        listing(path, before, sizeof before);
        CHECK(before[0] != 0);
        s = open_at(path, &db);
        CHECK(s == KV_ERR_READ_ONLY || s == KV_ERR_IO);
        CHECK(db == NULL && strlen(error_text) > 10);
        o.read_only = true;
        if (CHECK_OK(open_with(path, &o, &db))) {
            CHECK_EQ(count_of(db), entries);
            CHECK_STATUS(kv_lsm_set(db, KV_STR("a"), KV_STR("b")), KV_ERR_READ_ONLY);
            CHECK_EQ(count_of(db), entries);
            CHECK_OK(kv_lsm_close(db));
        } else fprintf(stderr, "%s\n", error_text);
        CHECK_OK(kv_lsm_check(path, NULL, NULL, NULL));
        listing(path, after, sizeof after);
        CHECK(strcmp(before, after) == 0);
    }
    CHECK(open_at(in_base("disk/new"), &db) < 0 && db == NULL && strlen(error_text) > 10);
    CHECK(access(in_base("disk/new"), F_OK) != 0);
    o.read_only = true;
    CHECK_STATUS(open_with(in_base("disk/new"), &o, &db), KV_NOT_FOUND);
    if (!CHECK_EQ(mount("tmpfs", dir, "tmpfs", MS_REMOUNT, NULL), 0)) return 3;
    expect_store(in_base(names[0]), 200);
    expect_store(in_base(names[1]), 30);
    return test_failed_checks == failed ? 0 : 1;
}
TEST(crash_files, really_read_only_file_system_reads_and_refuses)
{
    int result;
    begin();
    result = in_child(child_on_a_read_only_mount, NULL);
    end();
    if (result == CHILD_MAY_NOT_MOUNT) { TEST_SKIP("a mount of its own needs root"); return; }
    CHECK_EQ(result, 0);
}
static int child_as_nobody(void *how)
{
    kv_lsm_options o = small_options();
    kv_lsm  *db;
    kv_status s;
    uint64_t n = 0;
    if (setgid(65534) != 0 || setuid(65534) != 0) return 50;
    if (*(const char *)how == 'r') {                    /* may read, not write */
        s = open_at(in_base("db"), &db);
        if (s >= 0) return 1;
        o.read_only = true;
        s = open_with(in_base("db"), &o, &db);
        if (s < 0) return 2;
        if (kv_lsm_count(db, NULL, &n) < 0 || n != 200) return 3;
        return kv_lsm_close(db) < 0 ? 4 : 0;
    }
    s = open_at(in_base("db"), &db);                    /* may do nothing */
    if (s >= 0 || s == KV_NOT_FOUND) return 5;
    o.read_only = true;
    s = open_with(in_base("db"), &o, &db);
    return s < 0 ? 0 : 6;
}
TEST(crash_files, directories_of_others)
{
    begin();
    if (geteuid() != 0) { end(); TEST_SKIP("becoming another user needs root"); return; }
    make_store(in_base("db"), 200);
    shell("chmod 755 . db && chmod 644 db/*%s", "");
    CHECK_EQ(in_child(child_as_nobody, (void *)(uintptr_t)"r"), 0);
    shell("chmod 700 db%s", "");
    CHECK_EQ(in_child(child_as_nobody, (void *)(uintptr_t)"n"), 0);
    expect_store(in_base("db"), 200);
    end();
}

/* ---- while it is open ---- */

TEST(crash_files, directory_that_is_removed_under_the_store_is_an_error)
{
    kv_lsm   *db;
    kv_status s = KV_OK;
    char      key[32];
    begin();
    CHECK_OK(open_at(in_base("db"), &db));
    fill(db, 0, 50);
    shell("rm -rf db%s", "");
    for (int i = 0; i < 2000 && s >= 0; i++) s = kv_lsm_set(db, kv_bytes(key, (size_t)snprintf(key, sizeof key, "key%06d", i)), KV_STR("0123456789012345678901234567890123456789"));
    if (s >= 0) s = kv_lsm_flush(db);
    CHECK(s < 0);
    kv_lsm_close(db);
    CHECK(access(in_base("db"), F_OK) != 0);
    end();
}
TEST(crash_files, directory_that_is_renamed_and_replaced_is_not_mixed_up)
{
    kv_lsm   *db;
    kv_status s = KV_OK;
    char      key[32];
    begin();
    make_store(in_base("other"), 9);
    CHECK_OK(open_at(in_base("db"), &db));
    fill(db, 0, 50);
    shell("mv db old && mv other db%s", "");
    for (int i = 0; i < 2000 && s >= 0; i++) s = kv_lsm_set(db, kv_bytes(key, (size_t)snprintf(key, sizeof key, "key%06d", i)), KV_STR("0123456789012345678901234567890123456789"));
    if (s >= 0) (void)kv_lsm_flush(db);
    kv_lsm_close(db);
    expect_store(in_base("db"), 9);                     /* the other store is what it was */
    end();
}
TEST(crash_files, checkpoint_is_a_store_of_its_own)
{
    kv_lsm *db, *copy;
    begin();
    CHECK_OK(open_at(in_base("db"), &db));
    fill(db, 0, 300);
    CHECK_OK(kv_lsm_checkpoint(db, in_base("copy")));
    CHECK_STATUS(kv_lsm_checkpoint(db, in_base("copy")), KV_EXISTS);
    fill(db, 300, 400);
    CHECK_OK(open_at(in_base("copy"), &copy));          /* beside the one it came from */
    CHECK_EQ(count_of(copy), 300);
    fill(copy, 1000, 1100);
    CHECK_OK(kv_lsm_compact(copy, NULL, NULL, NULL));
    CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
    CHECK_EQ(count_of(db), 400);
    CHECK_OK(kv_lsm_close(db));
    shell("rm -rf db%s", "");
    CHECK_EQ(count_of(copy), 400);
    CHECK_OK(kv_lsm_close(copy));
    expect_store(in_base("copy"), 400);
    end();
}

TEST_MAIN()
