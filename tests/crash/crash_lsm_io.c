/* crash_lsm_io.c
   Goal: whatever call to the disk fails, and however: no write is half there, what was acknowledged
   is read on, a failed sync is never believed later, and after the next open everything promised is
   there. A full disk with room again lets the store resume.
   Method: histories of kv_crash.h with the n-th call failing, n = 1, 2, 3, ...: six ways to fail, once,
   five times, for good; then power cuts. The same for the calls of a recovery, and for reads. Every call
   from KV_TEST_SCALE=10 on (make crash), below that each fifth to seventh. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define KVI_LSM_WINDOW 8192u         /* small maps of the log: mapped and plain writes of one log take turns */
#define KV_LSM_IMPLEMENTATION
#include "../../kv_lsm.h"
#include "../kv_crash.h"
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS = 2 };
typedef struct shared { crash_fault_counts counts[WORKERS]; bool failed[WORKERS]; char why[WORKERS][400]; } shared;

TEST(crash_io, every_failing_call_leaves_a_store_that_keeps_its_word)
{
    shared            *all = (shared *)mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    size_t             wanted = test_scaled(1500);
    crash_fault_counts sum;
    memset(&sum, 0, sizeof sum);
    if (!CHECK(all != MAP_FAILED)) return;
    fflush(stdout);
    for (int w = WORKERS - 1; w >= 0; w--) {
        if (w && fork() != 0) continue;
        for (uint64_t n = 0; all->counts[w].points < wanted / WORKERS && !all->failed[w]; n++)
            all->failed[w] = !crash_faults(test_seed_value % 1000000 * 1000 + n * WORKERS + (uint64_t)w, 60, test_scale() >= 10 ? 1 : 5 + n % 3, &all->counts[w], all->why[w]);
        if (w) _exit(0);
    }
    for (int status; wait(&status) > 0;) CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (int w = 0; w < WORKERS; w++) {
        if (all->failed[w]) fprintf(stderr, "%s\n", all->why[w]);
        CHECK(!all->failed[w]);
        sum.points += all->counts[w].points; sum.hits += all->counts[w].hits; sum.images += all->counts[w].images;
    }
    printf("io: points=%llu hits=%llu images=%llu\n", (unsigned long long)sum.points, (unsigned long long)sum.hits, (unsigned long long)sum.images);
    CHECK(sum.points >= wanted && sum.hits > sum.points / 2);
    munmap(all, sizeof *all);
}

/* The disk of a store that was closed, or was not and has a torn tail; and what may be found on it. */
static disk *used_disk(crash_script *script, uint64_t seed, bool closed, test_rng *rng)
{
    disk *d = disk_new(), *image;
    d->recording = false;
    crash_begin_script(script, d, seed);
    crash_run_script(script, 80);
    image = disk_crash(d, DISK_TORN, rng);
    CHECK_OK(kv_lsm_close(script->db));
    script->db = NULL;
    if (closed) { disk_free(image); image = disk_crash(d, DISK_DURABLE, rng); }
    disk_free(d);
    return image;
}

TEST(crash_io, every_failing_call_of_a_recovery_leaves_a_store_that_recovers)
{
    test_rng rng = test_rng_new();
    uint64_t points = 0, failed_opens = 0, wanted = test_scaled(400);
    for (uint64_t seed = test_seed_value % 1000; points < wanted; seed++) {
        crash_script script;
        disk        *base = used_disk(&script, seed, false, &rng);
        bool         hit = true;
        if (!CHECK(!script.why[0])) { fprintf(stderr, "seed %llu: %s\n", (unsigned long long)seed, script.why); crash_end_script(&script); disk_free(base); return; }
        for (uint64_t n = 1; hit; n++)
            for (size_t kind = 0; kind < CRASH_FAULT_KINDS; kind++) {
                disk        *d = disk_fork(base), *cut;
                kv_lsm      *db = NULL;
                crash_counts counts;
                char         why[400] = "";
                kv_status    s;
                disk_fail_at(d, 0, n, kind % 2 ? 1 : UINT64_MAX, crash_fault_kinds[kind]);
                s = crash_open(&script.config, d, &db);
                hit = d->fault.hits != 0;
                points++;
                failed_opens += s < 0;
                CHECK(s == KV_OK || db == NULL);
                if (s == KV_OK) {
                    crash_state state;
                    bool        garbage;
                    CHECK(crash_read(db, &state, &garbage) == KV_OK && !garbage);
                    if (!CHECK(crash_find_state(&script.h, &state, script.h.synced, script.h.begun) != SIZE_MAX)) fprintf(stderr, "seed %llu call %llu kind %zu\n", (unsigned long long)seed, (unsigned long long)n, kind);
                }
                memset(&counts, 0, sizeof counts);
                for (int mode = 0; mode < DISK_MODES && !why[0]; mode++) {
                    crash_image m;
                    memset(&m, 0, sizeof m);
                    cut = disk_crash(d, (disk_mode)mode, &rng);
                    m.d = cut;
                    m.config = &script.config;
                    m.h = &script.h;
                    m.low = m.durable = script.h.synced;
                    m.high = script.h.begun;
                    m.rng = &rng;
                    m.counts = &counts;
                    m.why = why;
                    if (!CHECK(crash_survey(&m, mode ? 0 : CRASH_THOROUGH)))
                        fprintf(stderr, "seed %llu, call %llu of the recovery fails (kind %zu), %s: %s\n", (unsigned long long)seed, (unsigned long long)n, kind, disk_mode_name(mode), why);
                    disk_free(cut);
                }
                kv_lsm_close(db);
                if (!CHECK_EQ(disk_violations(d), 0)) fprintf(stderr, "seed %llu, call %llu of the recovery fails (kind %zu): %s\n", (unsigned long long)seed, (unsigned long long)n, kind, disk_violation(d));
                CHECK_EQ(disk_open_count(d), 0);
                disk_free(d);
                if (why[0]) { hit = false; break; }
            }
        crash_end_script(&script);
        disk_free(base);
        if (test_failed_checks) break;
    }
    printf("io: recovery_points=%llu failed_opens=%llu\n", (unsigned long long)points, (unsigned long long)failed_opens);
    CHECK(failed_opens > points / 4);
}

/* A read that fails is an error, or the right answer from elsewhere; never a shorter store. A read
   that lies by one bit must be noticed; where the store was not closed, it can look like the torn
   end of the log, so that is asked of closed ones. */
TEST(crash_io, every_failing_read_is_an_error_and_never_an_answer)
{
    test_rng rng = test_rng_new();
    uint64_t points = 0, errors = 0, wanted = test_scaled(1200);
    for (uint64_t seed = test_seed_value % 1000 + 50; points < wanted && !test_failed_checks; seed++) {
        crash_script script;
        disk        *base = used_disk(&script, seed, seed % 2 == 0, &rng);
        crash_state  truth;
        bool         garbage, hit = true;
        if (!CHECK(!script.why[0])) { fprintf(stderr, "seed %llu: %s\n", (unsigned long long)seed, script.why); crash_end_script(&script); disk_free(base); return; }
        {
            disk   *d = disk_fork(base);
            kv_lsm *db = NULL;
            CHECK_OK(crash_open(&script.config, d, &db));
            CHECK_OK(crash_read(db, &truth, &garbage));
            kv_lsm_close(db);
            disk_free(d);
        }
        for (uint64_t n = 1; hit && !test_failed_checks; n++)
            for (int how = 0; how < (seed % 2 == 0 ? 3 : 2); how++) {       /* once, for good, one bit wrong */
                disk       *d = disk_fork(base);
                kv_lsm     *db = NULL;
                crash_state state;
                kv_status   s;
                disk_fail_at(d, how == 2 ? (uint32_t)DISK_CALL_READ : (uint32_t)DISK_CALLS_READ, n, how == 1 ? UINT64_MAX : 1, how == 2 ? DISK_FAULT_FLIP : DISK_FAULT_IO);
                s = crash_open(&script.config, d, &db);
                if (s == KV_OK) {
                    s = crash_read(db, &state, &garbage);
                    if (s == KV_OK && !(CHECK(!garbage) && CHECK(crash_same(&state, &truth)))) fprintf(stderr, "seed %llu, read %llu, way %d: wrong data and no error\n", (unsigned long long)seed, (unsigned long long)n, how);
                    for (uint32_t key = 0; key < CRASH_KEYS; key++) {
                        kv_status g;
                        uint32_t  id = crash_get_id(db, key, NULL, &g);
                        if (g >= 0 && !CHECK(id == truth.ids[key])) fprintf(stderr, "seed %llu, read %llu, way %d: get of key %u: %u, not %u\n", (unsigned long long)seed, (unsigned long long)n, how, (unsigned)key, (unsigned)id, (unsigned)truth.ids[key]);
                    }
                }
                hit = d->fault.hits != 0;
                points++;
                errors += s < 0;
                memset(&d->fault, 0, sizeof d->fault);
                if (how != 2) {                             /* the disk is well again: so is the store, after it was opened again */
                    kv_lsm_close(db);
                    db = NULL;
                    CHECK_OK(crash_open(&script.config, d, &db));
                    if (db) CHECK(crash_read(db, &state, &garbage) == KV_OK && crash_same(&state, &truth));
                }
                kv_lsm_close(db);
                CHECK_EQ(disk_open_count(d), 0);
                disk_free(d);
            }
        crash_end_script(&script);
        disk_free(base);
    }
    printf("io: read_points=%llu errors=%llu\n", (unsigned long long)points, (unsigned long long)errors);
    CHECK(errors > points / 4);
}

/* A disk that fills up, at any byte; reads go on; with room again the store resumes and nothing is lost. */
TEST(crash_io, full_disk_with_room_again_lets_the_store_resume)
{
    test_rng rng = test_rng_new();
    size_t   rounds = test_scaled(60), resumed = 0, refused = 0;
    for (size_t round = 0; round < rounds && !test_failed_checks; round++) {
        crash_script script;
        disk        *d = disk_new(), *image;
        uint64_t     seed = test_seed_value % 1000 + round * 3;
        bool         full = false;
        d->recording = false;
        crash_begin_script(&script, d, seed);
        crash_run_script(&script, 20);
        if (!CHECK(!script.why[0])) fprintf(stderr, "seed %llu: %s\n", (unsigned long long)seed, script.why);
        script.faults = true;
        d->watch_user = NULL;
        for (int again = 0; again < 3 && script.db && !script.why[0]; again++) {
            d->capacity_bytes = disk_used_bytes(d) + test_below(&rng, 3000);
            for (int i = 0; i < 60 && script.db && !script.why[0]; i++) {
                crash_one_step(&script);
                if (script.db && !crash_live(&script, "on a full disk")) break;
            }
            full = full || script.h.doubt;
            d->capacity_bytes = 0;
            if (!script.db) {
                CHECK_OK(crash_open(&script.config, d, &script.db));
            } else {
                kv_status s = kv_lsm_resume(script.db);
                if (s == KV_OK) resumed++; else refused++;
                if (!CHECK_OK(s)) fprintf(stderr, "seed %llu: %s\n", (unsigned long long)seed, kv_last_error(kv_lsm_store(script.db)));
            }
            if (script.db) {
                crash_state state;
                bool        garbage;
                CHECK_OK(crash_read(script.db, &state, &garbage));
                CHECK(!garbage);
                crash_settle(&script.h, d, &state);
                CHECK(crash_same(&state, &script.h.states[script.h.acked]));
            }
            script.faults = false;
            for (int i = 0; i < 20 && script.db && !script.why[0]; i++) crash_one_step(&script);
            script.faults = true;
            crash_live(&script, "with room again");
        }
        if (!CHECK(!script.why[0])) fprintf(stderr, "seed %llu: %s\n", (unsigned long long)seed, script.why);
        if (!CHECK_EQ(disk_violations(d), 0)) fprintf(stderr, "seed %llu: %s\n", (unsigned long long)seed, disk_violation(d));
        image = disk_crash(d, DISK_DURABLE, &rng);
        {
            crash_image  m;
            crash_counts counts;
            char         why[400] = "";
            memset(&m, 0, sizeof m);
            memset(&counts, 0, sizeof counts);
            m.d = image;
            m.config = &script.config;
            m.h = &script.h;
            m.low = m.durable = script.h.synced;
            m.high = script.h.begun;
            m.rng = &rng;
            m.counts = &counts;
            m.why = why;
            if (!CHECK(crash_survey(&m, CRASH_THOROUGH))) fprintf(stderr, "seed %llu: %s\n", (unsigned long long)seed, why);
        }
        disk_free(image);
        crash_end_script(&script);
        disk_free(d);
    }
    printf("io: full disks=%zu resumed=%zu refused=%zu\n", rounds, resumed, refused);
    CHECK(resumed >= rounds / 2);
}

TEST_MAIN()
