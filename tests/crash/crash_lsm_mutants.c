/* crash_lsm_mutants.c
   Goal: the crash tests can fail. Each mistake below was made by a real store.
   Method: kv_lsm.h has the mistakes built in as KV_MUTANT, here a variable. For each one the power
   cuts and the failing calls of kv_crash.h run until one of them finds it. At scale 1 a sample of three;
   from scale 10 (make crash) on, all 21 must be found. Those that break an order must be found by the
   order monitor alone, without a cut; and where nothing is wrong it must be silent.
       crash_lsm_mutants            KV_CRASH_MUTANT=7: only that one */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
static int crash_mutant;
#define KV_MUTANT crash_mutant
#define KVI_LSM_WINDOW 8192u         /* small maps of the log: mapped and plain writes of one log take turns */
#define KV_LSM_IMPLEMENTATION
#include "../../kv_lsm.h"
#include "../kv_crash.h"
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MUTANTS = 21, WORKERS = 2, STEPS = 110 };
static const char *const mutants[MUTANTS + 1] = {
    "none", "CURRENT: no sync of the directory after the rename", "CURRENT: no sync of the file before the rename", "table not synced before the manifest names it",
    "directory not synced before the manifest names a table", "manifest not synced", "new log: directory not synced", "the old log is not synced when a new one begins",
    "a synced write returns without a sync", "recovery goes on writing behind a torn log tail", "replay skips a bad record and goes on", "log payloads are not checked",
    "the old manifest is removed before CURRENT is durable", "the next file number is not recovered", "the last sequence number is not recovered",
    "a tombstone is dropped above older versions", "a batch is logged as separate records", "recovery removes logs before the new manifest is durable",
    "a failed sync is repeated and then believed", "a failed append to the log is ignored", "the manifest is appended to after an append failed", "recovery trusts logs that are only in the page cache" };

typedef struct shared { bool found[MUTANTS + 1]; char why[MUTANTS + 1][500]; } shared;

static bool survives(int mutant, char *why)
{
    crash_counts       counts;
    crash_fault_counts faults;
    uint64_t           calls[CRASH_STEPS];
    memset(&counts, 0, sizeof counts);
    memset(&faults, 0, sizeof faults);
    memset(calls, 0, sizeof calls);
    crash_mutant = mutant;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        if (!crash_cuts(seed, STEPS, 2, &counts, calls, why)) return false;
        if (seed % 2 == 0 && !crash_faults(seed, 40, 3, &faults, why)) return false;
    }
    return true;
}
static void work(shared *all, int worker, int only, int every)
{
    for (int m = 1; m <= MUTANTS; m++) {
        if (m % WORKERS != worker || (only && m != only) || (!only && m % every != (int)(test_seed_value % (uint64_t)every))) continue;
        all->found[m] = !survives(m, all->why[m]);
    }
}

TEST(crash_mutants, every_seeded_mistake_is_found)
{
    shared     *all = (shared *)mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const char *one = getenv("KV_CRASH_MUTANT");
    int         only = one ? atoi(one) : 0, every = test_scale() >= 10 ? 1 : 7, found = 0, tried = 0;
    if (!CHECK(all != MAP_FAILED)) return;
    fflush(stdout);
    for (int w = 1; w < WORKERS; w++)
        if (fork() == 0) { work(all, w, only, every); _exit(0); }
    work(all, 0, only, every);
    for (int status; wait(&status) > 0;) { }           /* a mutant may crash: that is being found, too */
    for (int m = 1; m <= MUTANTS; m++) {
        if ((only && m != only) || (!only && m % every != (int)(test_seed_value % (uint64_t)every))) continue;
        tried++;
        found += all->found[m];
        printf("%2d %-62s %s  %s\n", m, mutants[m], all->found[m] ? "FOUND" : "not found", all->why[m]);
        CHECK(all->found[m]);
    }
    printf("mutants: found=%d/%d\n", found, tried);
    munmap(all, sizeof *all);
}

/* Histories and their recoveries, then failing calls of them: what the monitor says first, or "". */
static void listen(int mutant, char *said)
{
    said[0] = 0;
    crash_mutant = mutant;
    for (uint64_t seed = 1; seed <= (mutant ? 60u : 6u) && !said[0]; seed++)
        for (uint64_t n = 0; n < 160 && !said[0]; n += n ? 7 : 1) {     /* 0: no call fails */
            crash_script script;
            test_rng     rng = { seed + n };
            disk        *d = disk_new(), *image;
            kv_lsm      *db = NULL;
            d->recording = false;
            crash_begin_script(&script, d, seed);
            script.faults = n != 0;
            if (n) d->watch_user = NULL;
            disk_fail_at(d, 0, n, 1, DISK_FAULT_IO);
            crash_run_script(&script, STEPS);
            image = disk_crash(d, DISK_TORN, &rng);
            (void)crash_open(&script.config, image, &db);
            kv_lsm_close(db);
            crash_end_script(&script);
            if (disk_violations(d) || disk_violations(image)) snprintf(said, 200, "%.199s", disk_violation(disk_violations(d) ? d : image));
            disk_free(image);
            disk_free(d);
        }
    crash_mutant = 0;
}
TEST(crash_mutants, order_monitor_alone_finds_those_that_break_an_order)
{
    static const struct { int mutant; const char *rule; } rules[] = {
        { 0, "" }, { 1, "P3" }, { 2, "P3" }, { 3, "P1" }, { 4, "P1" }, { 5, "P1" }, { 7, "P4" }, { 8, "P4" }, { 12, "P3" }, { 17, "P2" }, { 18, "P7" }, { 20, "P2" } };
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        char said[200];
        listen(rules[i].mutant, said);
        printf("monitor: %2d %-62s %s\n", rules[i].mutant, mutants[rules[i].mutant], said);
        CHECK(rules[i].rule[0] ? strncmp(said, rules[i].rule, 2) == 0 : !said[0]);
    }
}

TEST_MAIN()
