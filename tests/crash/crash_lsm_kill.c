/* crash_lsm_kill.c
   Goal: a process that is killed loses nothing that a write returned KV_OK for, with real files, real
   threads and the default kv_io; batches are whole, and there is no hole.
   Method: a child writes numbered batches and says in shared memory which one begins and which has
   returned; some batches later, or after 2 to 22 ms, it is killed (SIGKILL); the parent opens the store, in turn with a thread
   and without, compares, and lets the next child go on. Some children die while they open or close. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define KV_LSM_IMPLEMENTATION
#include "../../kv_lsm.h"
#include "../kv_test.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct shared { volatile uint64_t begun, acked, opened; } shared;
enum { SLOTS = 400 };       /* batch n writes slot n % SLOTS: keys a, b and c of it, and the counter */

static void options(kv_lsm_options *o, uint64_t cycle)
{
    static const kv_codec codecs[] = { KV_CODEC_NONE, KV_CODEC_LZ4, KV_CODEC_ZSTD };
    *o = kv_lsm_default();
    o->memtable_bytes = 8192;
    o->block_bytes = 512;
    o->table_bytes = 4096;
    o->l1_bytes = 16384;
    o->level_ratio = 3;
    o->l0_trigger = 2;
    o->codec = codecs[cycle / 7 % 3];
    o->sync = cycle % 5 == 4 ? KV_SYNC_WRITE : cycle % 5 == 3 ? KV_SYNC_BATCH : KV_SYNC_NONE;
    o->no_background = cycle % 4 == 3;
    o->map_tables = cycle % 3 == 0;
}
static kv_slice batch_key(char *out, char part, uint64_t n) { return kv_bytes(out, (size_t)snprintf(out, 40, "%c%05llu", part, (unsigned long long)(n % SLOTS))); }
static kv_slice batch_value(char *out, char part, uint64_t n)
{
    size_t size = (size_t)snprintf(out, 400, "%c %llu ", part, (unsigned long long)n), whole = size + (size_t)(n * 7 % 200);
    memset(out + size, 'a' + (int)(n % 26), whole - size);
    return kv_bytes(out, whole);
}
/* The child: go on from `next` until killed. Exits with 3 when the store fails it. */
static void child(const char *path, shared *all, uint64_t cycle, uint64_t next)
{
    kv_lsm_options o;
    kv_lsm        *db = NULL;
    kv_lsm_batch  *b = NULL;
    char           key[40], value[400];
    options(&o, cycle);
    if (kv_lsm_open(path, &o, &db) != KV_OK || kv_lsm_batch_open(NULL, &b) != KV_OK) _exit(3);
    all->opened = cycle;
    for (uint64_t n = next;; n++) {
        kv_status s = KV_OK;
        kv_lsm_batch_clear(b);
        for (char part = 'a'; part <= 'c' && s >= 0; part++) s = kv_lsm_batch_put(b, batch_key(key, part, n), batch_value(value, part, n));
        if (s >= 0 && n % 3 == 0) s = kv_lsm_batch_remove(b, batch_key(key, 'd', n + SLOTS / 2));
        if (s >= 0 && n % 3 != 0) s = kv_lsm_batch_put(b, batch_key(key, 'd', n), batch_value(value, 'd', n));
        if (s >= 0) s = kv_lsm_batch_put(b, KV_STR("~last"), kv_bytes(&n, sizeof n));
        all->begun = n + 1;
        if (s >= 0) s = kv_lsm_write(db, b);
        if (s != KV_OK) _exit(3);
        all->acked = n + 1;
        if (n % 97 == 50 && kv_lsm_flush(db) != KV_OK) _exit(3);
        if (n % 501 == 300 && kv_lsm_compact(db, NULL, NULL, NULL) != KV_OK) _exit(3);
        if (cycle % 6 == 5 && n % 40 == 39) {           /* so that some are killed in the middle of closing and opening */
            if (kv_lsm_close(db) != KV_OK || kv_lsm_open(path, &o, &db) != KV_OK) _exit(3);
        }
    }
}
static bool is(kv_lsm *db, char part, uint64_t slot_batch, bool there)
{
    char      key[40], value[400];
    kv_buf    got;
    kv_status s;
    bool      ok;
    memset(&got, 0, sizeof got);
    s = kv_lsm_get(db, batch_key(key, part, slot_batch), &got);
    ok = there ? s == KV_OK && kv_equal(kv_buf_slice(&got), batch_value(value, part, slot_batch)) : s == KV_NOT_FOUND;
    kv_buf_free(&got);
    return ok;
}
/* The store must be what batches 0 .. n-1 made of it. */
static bool is_state(kv_lsm *db, uint64_t n)
{
    for (uint64_t slot = 0; slot < SLOTS; slot++) {
        uint64_t last = slot, d_set = UINT64_MAX, d_removed = UINT64_MAX;
        if (slot >= n) {
            for (char part = 'a'; part <= 'c'; part++) if (!is(db, part, slot, false)) return false;
        } else {
            last = slot + (n - 1 - slot) / SLOTS * SLOTS;
            for (char part = 'a'; part <= 'c'; part++) if (!is(db, part, last, true)) return false;
        }
        /* d: set by the batches of this slot that are no multiple of 3, removed by those half a round away that are */
        for (uint64_t m = n > 4 * SLOTS ? n - 4 * SLOTS : 0; m < n; m++) {
            if (m % SLOTS == slot && m % 3 != 0) d_set = m;
            if ((m + SLOTS / 2) % SLOTS == slot && m % 3 == 0) d_removed = m;
        }
        if (d_set != UINT64_MAX && (d_removed == UINT64_MAX || d_removed < d_set)) { if (!is(db, 'd', d_set, true)) return false; }
        else if (d_removed != UINT64_MAX && !is(db, 'd', slot, false)) return false;
    }
    return true;
}

TEST(crash_kill, killed_processes_lose_nothing)
{
    char        paths[2][40] = { "/dev/shm/kv_crash_kill_XXXXXX", "/tmp/kv_crash_kill_XXXXXX" }, store[64];
    shared     *all = (shared *)mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    test_rng    rng = test_rng_new();
    uint64_t    cycles = test_scaled(50), done = 0, nexts[2] = { 0, 0 }, before_open = 0;
    if (access("/dev/shm", W_OK) != 0) strcpy(paths[0], "/tmp/kv_crash_kill_XXXXXX");
    if (!CHECK(all != MAP_FAILED) || !CHECK(mkdtemp(paths[0]) != NULL && mkdtemp(paths[1]) != NULL)) return;
    fflush(stdout);
    for (uint64_t cycle = 1; cycle <= cycles; cycle++) {
        kv_lsm_options o;
        kv_lsm        *db = NULL;
        kv_buf         last;
        char           text[300] = "";
        int            status;
        pid_t          pid;
        uint64_t       found = 0, *next = &nexts[cycle % 10 == 0];
        snprintf(store, sizeof store, "%s/db", paths[cycle % 10 == 0]);
        memset(&last, 0, sizeof last);
        all->begun = all->acked = *next;
        pid = fork();
        if (pid == 0) { child(store, all, cycle, *next); _exit(0); }
        if (cycle % 4) {                                        /* most die while they write, some while they open */
            uint64_t  wanted = *next + 10 + test_below(&rng, 100);
            siginfo_t ended;                                    /* by itself */
            memset(&ended, 0, sizeof ended);
            for (int ms = 0; all->acked < wanted && ms < 30000 && !ended.si_pid; ms++) {
                usleep(1000);
                (void)waitid(P_PID, (id_t)pid, &ended, WEXITED | WNOHANG | WNOWAIT);
            }
            CHECK(all->acked >= wanted);                        /* however slow the machine is */
            usleep((useconds_t)test_below(&rng, 5000));
        } else usleep((useconds_t)(2000 + test_below(&rng, 20000)));
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        if (!CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) { fprintf(stderr, "cycle %llu: the child could not write\n", (unsigned long long)cycle); break; }
        before_open += all->opened != cycle;
        options(&o, cycle + 1);
        o.error_text = text;
        o.error_text_size = sizeof text;
        if (!CHECK_OK(kv_lsm_open(store, &o, &db))) { fprintf(stderr, "cycle %llu: %s\n", (unsigned long long)cycle, text); break; }
        if (kv_lsm_get(db, KV_STR("~last"), &last) == KV_OK && last.size == sizeof found) { memcpy(&found, last.data, sizeof found); found++; }
        kv_buf_free(&last);
        if (!CHECK(found >= all->acked && found <= all->begun)) fprintf(stderr, "cycle %llu: %llu batches, of which %llu had returned and %llu had begun\n", (unsigned long long)cycle, (unsigned long long)found, (unsigned long long)all->acked, (unsigned long long)all->begun);
        if (!CHECK(is_state(db, found))) { fprintf(stderr, "cycle %llu: not what %llu batches made\n", (unsigned long long)cycle, (unsigned long long)found); kv_lsm_close(db); break; }
        CHECK_OK(kv_lsm_close(db));
        if (cycle % 10 <= 1 && !CHECK_OK(kv_lsm_check(store, NULL, NULL, NULL))) break;
        *next = found;
        done++;
    }
    CHECK_EQ(done, cycles);                                     /* 500 with make crash */
    printf("kill: cycles=%llu batches=%llu killed_before_open=%llu\n", (unsigned long long)done, (unsigned long long)(nexts[0] + nexts[1]), (unsigned long long)before_open);
    CHECK(nexts[0] + nexts[1] > cycles * 5);
    if (!test_failed_checks) {
        char command[100];
        snprintf(command, sizeof command, "rm -rf %s %s", paths[0], paths[1]);
        CHECK_EQ(system(command), 0);
    } else fprintf(stderr, "the stores are left in %s and %s\n", paths[0], paths[1]);
    munmap(all, sizeof *all);
}

TEST_MAIN()
