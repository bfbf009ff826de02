/* crash_lsm_power.c
   Goal: after a power cut the store opens by itself and holds a prefix of the writes that is not
   shorter than what was promised, batches whole; also after a second cut while it recovers; and it
   goes on working.
   Method: random histories on the simulated disk (kv_disk.h), a cut after every operation of each, in
   every mode, several times in the random ones (kv_crash.h). Two processes share the work. At scale 1
   15,000 images, second cuts not counted; KV_TEST_SCALE=10 (make crash): 150,000 of more than 1,500
   cuts, and 20,000 second cuts. Fewer than that is a failure. */
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

enum { WORKERS = 2, STEPS = 140, VARIANTS = 4 };
typedef struct shared { crash_counts counts[WORKERS]; uint64_t calls[WORKERS][CRASH_STEPS], scripts[WORKERS]; bool failed[WORKERS]; char why[WORKERS][400]; } shared;

static void work(shared *all, int worker, uint64_t images_wanted)
{
    crash_counts *c = &all->counts[worker];
    for (uint64_t n = 0; c->images < images_wanted && !all->failed[worker]; n++) {
        uint64_t seed = test_seed_value % 1000000 * 1000 + n * WORKERS + (uint64_t)worker;
        all->scripts[worker]++;
        if (!crash_cuts(seed, STEPS, VARIANTS, c, all->calls[worker], all->why[worker])) all->failed[worker] = true;
    }
}

TEST(crash_power, every_cut_leaves_a_prefix_that_keeps_what_was_promised)
{
    shared      *all = (shared *)mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const char  *one = getenv("KV_CRASH_SEED");         /* one history, as a failure names it */
    uint64_t     wanted = test_scaled(15000);
    crash_counts sum;
    uint64_t     scripts = 0, calls[CRASH_STEPS];
    memset(&sum, 0, sizeof sum);
    memset(calls, 0, sizeof calls);
    if (!CHECK(all != MAP_FAILED)) return;
    if (one) {
        CHECK(crash_cuts(strtoull(one, NULL, 0), STEPS, VARIANTS, &sum, calls, all->why[0]));
        printf("%s\n", all->why[0]);
        return;
    }
    fflush(stdout);
    for (int w = 1; w < WORKERS; w++)
        if (fork() == 0) { work(all, w, wanted / WORKERS); _exit(0); }
    work(all, 0, wanted / WORKERS);
    for (int status; wait(&status) > 0;) CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (int w = 0; w < WORKERS; w++) {
        if (all->failed[w]) fprintf(stderr, "%s\n", all->why[w]);
        CHECK(!all->failed[w]);
        sum.cuts += all->counts[w].cuts; sum.images += all->counts[w].images; sum.nested += all->counts[w].nested; sum.continued += all->counts[w].continued;
        sum.opens += all->counts[w].opens; sum.checks += all->counts[w].checks; sum.repairs += all->counts[w].repairs; sum.copies += all->counts[w].copies; sum.named += all->counts[w].named;
        scripts += all->scripts[w];
        for (int i = 0; i < CRASH_STEPS; i++) calls[i] += all->calls[w][i];
    }
    printf("power: scripts=%llu cuts=%llu images=%llu nested=%llu continued=%llu opens=%llu checks=%llu repairs=%llu checkpoints=%llu named=%llu\n",
           (unsigned long long)scripts, (unsigned long long)sum.cuts, (unsigned long long)sum.images, (unsigned long long)sum.nested, (unsigned long long)sum.continued,
           (unsigned long long)sum.opens, (unsigned long long)sum.checks, (unsigned long long)sum.repairs, (unsigned long long)sum.copies, (unsigned long long)sum.named);
    CHECK(sum.images >= wanted);
    CHECK(sum.cuts >= wanted / 100);
    CHECK(sum.nested >= wanted / 7);
    CHECK(sum.checks && sum.repairs && sum.copies);
    CHECK(sum.named > sum.cuts);                                 /* the manifests were read that the monitor watches */
    for (int i = 0; i < CRASH_STEPS && scripts >= 4; i++)       /* each kind of call was part of it */
        if (!CHECK(calls[i] > 0)) fprintf(stderr, "%s never ran\n", crash_step_names[i]);
    munmap(all, sizeof *all);
}

TEST(crash_power, cuts_while_the_background_thread_works)
{
    crash_counts counts;
    uint64_t     wanted = test_scaled(1500);
    char         why[400] = "";
    bool         ok = true;
    memset(&counts, 0, sizeof counts);
    for (uint64_t n = 0; counts.images < wanted && ok; n++) ok = crash_cuts_threaded(test_seed_value % 1000000 * 1000 + 500 + n, 60, 1, &counts, why);
    if (!CHECK(ok)) fprintf(stderr, "with a thread: %s\n", why);
    printf("power: with a thread: cuts=%llu images=%llu nested=%llu\n", (unsigned long long)counts.cuts, (unsigned long long)counts.images, (unsigned long long)counts.nested);
}

/* Every history of four steps over six kinds, every cut: at scale 10 all 1,296, at scale 1 a tenth. */
TEST(crash_power, short_histories_without_exception)
{
    enum { LENGTH = 4, ALL = 6 * 6 * 6 * 6 };
    shared      *all = (shared *)mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    double       scale = test_scale();
    uint64_t     stride = scale >= 10 ? 1 : (uint64_t)(20 / (scale > 0.1 ? scale : 0.1)), images = 0, cuts = 0, scripts = 0;
    if (!CHECK(all != MAP_FAILED)) return;
    fflush(stdout);
    for (int w = WORKERS - 1; w >= 0; w--) {
        if (w && fork() != 0) continue;
        for (uint64_t n = test_seed_value % stride + (uint64_t)w * stride; n < ALL && !all->failed[w]; n += stride * WORKERS) {
            all->scripts[w]++;
            all->failed[w] = !crash_cuts_short(n, LENGTH, &all->counts[w], all->why[w]);
        }
        if (w) _exit(0);
    }
    for (int status; wait(&status) > 0;) CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (int w = 0; w < WORKERS; w++) {
        if (all->failed[w]) fprintf(stderr, "short history: %s\n", all->why[w]);
        CHECK(!all->failed[w]);
        images += all->counts[w].images;
        cuts += all->counts[w].cuts;
        scripts += all->scripts[w];
    }
    printf("power: short histories=%llu cuts=%llu images=%llu\n", (unsigned long long)scripts, (unsigned long long)cuts, (unsigned long long)images);
    CHECK(scripts >= ALL / stride && cuts > scripts * 10);
    munmap(all, sizeof *all);
}

TEST_MAIN()
