/* crash_lsm_flip.c
   Goal: whatever byte of whatever file is not what was written: right data or an error, with default
   options; never wrong data, never a crash or a hang. After a clean close nothing is ever silently
   shorter. kv_lsm_check sees it, and kv_lsm_repair saves what it states.
   Method: a small store that has every kind of file and block. Each bit flipped, each byte set to 0 and
   to 255, each file cut at each length, lengthened, its sectors zeroed and swapped with those of all
   files, replaced by an older self, deleted; each time opened and read whole, by scan and by get. At
   scale 1 a tenth of the mutants, at KV_TEST_SCALE=10 (make crash) all: more than 400,000. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define KVI_LSM_WINDOW 8192u         /* small maps of the log: mapped and plain writes of one log take turns */
#define KV_LSM_IMPLEMENTATION
#include "../../kv_lsm.h"
#include "../kv_crash.h"
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(_WIN32)
enum { WORKERS = 1 };               /* no fork there */
#else
enum { WORKERS = 2 };
#endif
enum { FILES_MAX = 40, KINDS = 6 };
static const char *const kind_names[KINDS] = { "CURRENT", "MANIFEST", "log", "table", "LOCK", "other" };

typedef struct tally { uint64_t mutants, right, error, older, torn, shorter, hole, garbage, unseen_by_check, checks; } tally;   /* torn: see count() */
typedef struct shared { tally t[WORKERS][KINDS]; char first[WORKERS][300]; uint64_t repairs[WORKERS], repair_losses[WORKERS]; bool repair_failed[WORKERS]; } shared;

typedef struct subject {
    disk         *d;                /* the store, closed */
    crash_config  config;
    crash_history h;                /* states; begun is the truth */
    size_t        provable;         /* after an unclean end: writes that a later synced record proves durable */
    bool          clean;
    char          files[FILES_MAX][256], last_log[256];
    size_t        file_count;
    disk         *older[4];         /* what the disk was before */
} subject;

static int kind_of(const char *path)
{
    if (order_ends(path, "/CURRENT")) return 0;
    if (strstr(path, "/MANIFEST")) return 1;
    if (order_ends(path, ".log")) return 2;
    if (order_ends(path, ".kvt")) return 3;
    if (order_ends(path, "/LOCK")) return 4;
    return 5;
}
static void write_batch(subject *s, kv_lsm *db, test_rng *rng, bool sync)
{
    crash_state  *next = crash_begin(&s->h, s->d);
    kv_lsm_batch *b = NULL;
    char          value[CRASH_VALUE_MAX];
    CHECK_OK(kv_lsm_batch_open(NULL, &b));
    for (int i = 0; i < 4; i++) {
        uint32_t key = (uint32_t)test_below(rng, CRASH_KEYS);
        next->ids[key] = test_one_in(rng, 5) ? 0 : ++s->h.next_id;
        if (next->ids[key]) CHECK_OK(kv_lsm_batch_put(b, crash_key(key), crash_value(next->ids[key], value)));
        else CHECK_OK(kv_lsm_batch_remove(b, crash_key(key)));
    }
    CHECK_OK(kv_lsm_write(db, b));
    kv_lsm_batch_close(b);
    crash_end(&s->h, s->d, KV_OK, false);
    if (sync) {
        size_t last = s->h.synced;
        CHECK_OK(kv_lsm_sync(db));
        crash_synced(&s->h, s->d);
        s->provable = last;
    }
}
/* Tables of every codec in several levels, two logs where it was not closed. */
static void make_subject(subject *s, bool clean)
{
    static const kv_codec codecs[] = { KV_CODEC_NONE, KV_CODEC_LZ4, KV_CODEC_ZSTD };
    test_rng rng = { 99 + (uint64_t)clean };
    kv_lsm  *db = NULL;
    memset(s, 0, sizeof *s);
    s->d = disk_new();
    s->d->recording = false;
    s->clean = clean;
    s->h.next_id = 1;
    crash_begin(&s->h, s->d);
    s->h.begun = 0;
    crash_options(&s->config, 1);
    s->config.o.style = KV_LSM_LEVELED;
    s->config.o.block_bytes = 256;
    s->config.o.table_bytes = 2048;
    s->config.o.l0_trigger = 3;
    s->config.o.bloom_fp_rate = 0.01;
    s->config.o.cache_bytes = 65536;
    s->config.o.open_files = 64;
    s->config.o.map_tables = false;
    s->config.o.sync = KV_SYNC_NONE;
    for (int c = 0; c < 3; c++) {
        s->config.o.codec = codecs[c];
        if (!CHECK_OK(crash_open(&s->config, s->d, &db))) { fprintf(stderr, "%s\n", s->config.error_text); return; }
        s->older[c] = disk_fork(s->d);
        for (int i = 0; i < 16; i++) write_batch(s, db, &rng, true);
        CHECK_OK(kv_lsm_flush(db));
        if (c == 0) CHECK_OK(kv_lsm_compact(db, NULL, NULL, NULL));
        for (int i = 0; i < 5; i++) write_batch(s, db, &rng, true);
        if (c < 2) CHECK_OK(kv_lsm_close(db));
    }
    s->older[3] = disk_fork(s->d);
    if (clean) {
        CHECK_OK(kv_lsm_close(db));
    } else {
        disk *left;
        for (int i = 0; i < 16; i++) write_batch(s, db, &rng, true);
        CHECK_OK(kv_lsm_set(db, crash_key(9), KV_STR("")));        /* the last, and its own sync */
        crash_begin(&s->h, s->d)->ids[9] = 1;
        crash_end(&s->h, s->d, KV_OK, false);
        CHECK_OK(kv_lsm_sync(db));
        s->provable = s->h.synced;
        crash_synced(&s->h, s->d);
        left = disk_fork(s->d);
        CHECK_OK(kv_lsm_close(db));
        disk_free(s->d);
        s->d = left;
    }
    s->file_count = disk_files(s->d, order_dir, s->files, FILES_MAX);
    for (size_t f = 0; f < s->file_count; f++)
        if (kind_of(s->files[f]) == 2 && (!s->last_log[0] || strtoull(strrchr(s->files[f], '/') + 1, NULL, 10) > strtoull(strrchr(s->last_log, '/') + 1, NULL, 10)))
            memcpy(s->last_log, s->files[f], sizeof s->last_log);
}
static void free_subject(subject *s)
{
    for (int i = 0; i < 4; i++) disk_free(s->older[i]);
    disk_free(s->d);
    crash_history_free(&s->h);
}

typedef enum verdict { RIGHT, ERROR_OPEN, ERROR_READ, OLDER, SHORTER, HOLE, GARBAGE } verdict;

/* Open the changed disk and read everything, twice: by scan, and key by key. */
static verdict judge(subject *s, disk *d)
{
    kv_lsm     *db = NULL;
    crash_state state;
    bool        garbage = false, wrong_get = false;
    const crash_state *truth = &s->h.states[s->h.begun];
    verdict     v = RIGHT;
    size_t      p;
    kv_status   scan;
    if (crash_open(&s->config, d, &db) < 0) { CHECK(db == NULL); return ERROR_OPEN; }
    scan = crash_read(db, &state, &garbage);
    if (garbage) v = GARBAGE;
    else if (scan < 0) v = ERROR_READ;
    else if (!crash_same(&state, truth)) {
        p = crash_find_state(&s->h, &state, 0, s->h.begun);
        v = p == SIZE_MAX ? HOLE : p >= s->provable ? OLDER : SHORTER;
    }
    for (uint32_t key = 0; key < CRASH_KEYS; key++) {
        kv_status g;
        uint32_t  id = crash_get_id(db, key, NULL, &g);
        if (g >= 0 && id != (v == RIGHT || v == ERROR_READ ? truth : &state)->ids[key]) wrong_get = true;
    }
    if (wrong_get && v != GARBAGE) v = HOLE;
    kv_lsm_close(db);
    CHECK_EQ(disk_violations(d), 0);
    return v;
}
/* A byte that was 0 and is set to 0 is no mutant. */
static bool is_unchanged(subject *s, const char *path, disk *d)
{
    const disk_content *was = disk_file(s->d, path), *is = disk_file(d, path);
    return was && is && was->size == is->size && (!was->size || memcmp(was->bytes->data, is->bytes->data, was->size) == 0);
}
/* Who needs 20 seconds of processor time for one mutant hangs, and is ended by SIGVTALRM (where there
   is none, by the limit of the whole test). */
static void begin_watchdog(void)
{
#if defined(ITIMER_VIRTUAL)
    struct itimerval t;
    memset(&t, 0, sizeof t);
    t.it_value.tv_sec = 20;
    setitimer(ITIMER_VIRTUAL, &t, NULL);
#endif
}
/* A cut, and a change of more than a byte, can take away from the last log of a store that was not
   closed what would prove that there was more: that is a torn log then, and any prefix is right. */
static void count(subject *s, shared *all, int worker, const char *path, disk *d, const char *what, size_t at, bool check)
{
    bool    wide = what[0] != 'b' && !s->clean && strcmp(path, s->last_log) == 0;
    tally  *t = &all->t[worker][kind_of(path)];
    disk   *copy;
    verdict v;
    if (is_unchanged(s, path, d)) return;
    begin_watchdog();
    copy = check ? disk_fork(d) : NULL;
    v = judge(s, d);
    t->mutants++;
    if (v == RIGHT) t->right++;
    else if (v == ERROR_OPEN || v == ERROR_READ) t->error++;
    else if (wide && (v == OLDER || v == SHORTER)) { t->torn++; v = OLDER; }
    else if (v == OLDER) t->older++;
    else if (v == SHORTER) t->shorter++;
    else if (v == HOLE) t->hole++;
    else t->garbage++;
    if ((v == SHORTER || v == HOLE || v == GARBAGE || (s->clean && v == OLDER)) && !all->first[worker][0])
        snprintf(all->first[worker], sizeof all->first[worker], "%s store, %.100s, %s at %zu: %s", s->clean ? "closed" : "crashed", path, what, at,
                 v == OLDER ? "silently an older state" : v == SHORTER ? "silently a much older state" : v == HOLE ? "a state that never was" : "bytes that were never written");
    if (check) {                                        /* and kv_lsm_check says so, where opening or reading did */
        s->config.o.io = disk_io(copy);
        t->checks++;
        if (kv_lsm_check(order_dir, &s->config.o, NULL, NULL) >= 0 && v != RIGHT && v != OLDER) {
            t->unseen_by_check++;
            if (!all->first[worker][0]) snprintf(all->first[worker], sizeof all->first[worker], "%.100s, %s at %zu: kv_lsm_check sees nothing", path, what, at);
        }
        disk_free(copy);
    }
}
/* What repair makes of a changed store: it opens, holds nothing that was never written to that key, and
   has lost at most the keys that the damaged place can have held. */
static void repair(subject *s, shared *all, int worker, const char *path, const disk *changed, size_t at)
{
    disk       *d = disk_fork(changed);
    kv_lsm     *db = NULL;
    crash_state state;
    bool        garbage = false;
    size_t      lost = 0;
    const crash_state *truth = &s->h.states[s->h.begun];
    char        text[200] = "";
    kv_status   r, o;
    int         kind = kind_of(path);
    s->config.o.io = disk_io(d);
    r = kv_lsm_repair(order_dir, &s->config.o, crash_report, text);
    o = crash_open(&s->config, d, &db);
    if (r == KV_ERR_VERSION) {                          /* the format number was hit: no business of this version */
        CHECK(o == KV_ERR_VERSION);
    } else if (o < 0 || crash_read(db, &state, &garbage) < 0 || garbage) {
        all->repair_failed[worker] = true;
        if (!all->first[worker][0]) snprintf(all->first[worker], sizeof all->first[worker], "%.40s at %zu: after repair (%s; %.80s): %.80s", path, at, kv_status_text(r), text, o < 0 ? s->config.error_text : "it does not read");
    } else {
        for (int key = 0; key < CRASH_KEYS; key++) lost += state.ids[key] != truth->ids[key];
        if (((kind == 0 || kind == 1 || kind == 4) && lost) || (kind == 3 && lost > 24)) {
            all->repair_failed[worker] = true;
            if (!all->first[worker][0]) snprintf(all->first[worker], sizeof all->first[worker], "%s at %zu: repair lost %zu keys", path, at, lost);
        }
        all->repair_losses[worker] += lost != 0;
    }
    all->repairs[worker]++;
    kv_lsm_close(db);
    disk_free(d);
}

static void sweep(subject *s, shared *all, int worker, uint64_t stride)
{
    test_rng rng = { 5 + (uint64_t)worker };
    uint64_t turn = 0;
#define MINE() (turn++ % (stride * WORKERS) == (uint64_t)worker * stride)
    for (size_t f = 0; f < s->file_count; f++) {
        const char *path = s->files[f];
        size_t      size = disk_file(s->d, path)->size;
        for (size_t i = 0; i < size; i++)
            for (int how = 0; how < 10; how++) {            /* 8 bits, then 0 and 255 */
                disk *d;
                char *byte, was;
                if (!MINE()) continue;
                d = disk_fork(s->d);
                byte = disk_file_open(d, path, i, 1);
                was = *byte;
                *byte = how < 8 ? (char)(was ^ 1 << how) : how == 8 ? 0 : (char)0xFF;
                if (turn / WORKERS / stride % 64 == 0 && *byte != was) repair(s, all, worker, path, d, i);
                count(s, all, worker, path, d, how < 8 ? "bit" : "byte", i, turn / WORKERS / stride % 8 == 0);
                disk_free(d);
            }
        for (size_t i = 0; i < size; i++) {
            disk *d;
            if (!MINE()) continue;
            d = disk_fork(s->d);
            disk_file_cut(d, path, i);
            count(s, all, worker, path, d, "cut", i, false);
            disk_free(d);
        }
        for (size_t i = 1; i <= 64; i++) {
            disk *d;
            char *more;
            if (!MINE()) continue;
            d = disk_fork(s->d);
            more = disk_file_open(d, path, size, i);
            for (size_t k = 0; k < i; k++) more[k] = i % 2 ? 0 : (char)test_random(&rng);
            count(s, all, worker, path, d, "longer", i, false);
            disk_free(d);
        }
        for (size_t at = 0; at < size; at += DISK_SECTOR) {
            size_t n = size - at < DISK_SECTOR ? size - at : DISK_SECTOR;
            disk  *d;
            if (MINE()) {
                d = disk_fork(s->d);
                memset(disk_file_open(d, path, at, n), 0, n);
                count(s, all, worker, path, d, "sector zeroed", at, false);
                disk_free(d);
            }
            for (size_t g = 0; g < s->file_count; g++)
                for (size_t from = 0; from + n <= disk_file(s->d, s->files[g])->size; from += DISK_SECTOR) {
                    if (!MINE()) continue;
                    d = disk_fork(s->d);
                    memcpy(disk_file_open(d, path, at, n), disk_file(s->d, s->files[g])->bytes->data + from, n);
                    count(s, all, worker, path, d, "sector from elsewhere", at, false);
                    disk_free(d);
                }
        }
        for (int older = 0; older < 5; older++) {           /* as it was; the last: deleted */
            disk *d;
            disk_content *c = older < 4 ? disk_file(s->older[older], path) : NULL;
            if ((older < 4 && !c) || worker != (int)(f % WORKERS)) continue;
            d = disk_fork(s->d);
            if (older == 4) disk_file_remove(d, path); else disk_file_set(d, path, c->size ? c->bytes->data : "", c->size);
            if (older == 4) repair(s, all, worker, path, d, 0);
            count(s, all, worker, path, d, older == 4 ? "deleted" : "as it was once", (size_t)older, false);
            disk_free(d);
        }
    }
#undef MINE
}

static uint64_t all_mutants;
static int      all_runs;
static void run(bool clean)
{
    shared  *all = (shared *)mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    double   scale = test_scale();
    uint64_t stride = scale >= 10 ? 1 : (uint64_t)(10 / (scale > 0.1 ? scale : 0.1)), mutants = 0, wrong = 0, unseen = 0, repairs = 0, repair_losses = 0;
    size_t   bytes = 0;
    subject  s;
    if (!CHECK(all != MAP_FAILED)) return;
    make_subject(&s, clean);
    for (size_t f = 0; f < s.file_count; f++) bytes += disk_file(s.d, s.files[f])->size;
    {
        disk *d = disk_fork(s.d);
        CHECK_EQ(judge(&s, d), RIGHT);                  /* the undamaged store */
        disk_free(d);
    }
    fflush(stdout);
    for (int w = 1; w < WORKERS; w++) if (fork() == 0) { sweep(&s, all, w, stride); _exit(0); }
    sweep(&s, all, 0, stride);
    for (int status; wait(&status) > 0;) CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    printf("flip: %s store, %zu files, %zu bytes, every %llu%s mutant\n", clean ? "closed" : "crashed", s.file_count, bytes, (unsigned long long)stride, stride == 1 ? "st" : "th");
    for (int k = 0; k < KINDS; k++) {
        tally t;
        memset(&t, 0, sizeof t);
        for (int w = 0; w < WORKERS; w++) {
            const tally *from = &all->t[w][k];
            t.mutants += from->mutants; t.right += from->right; t.error += from->error; t.older += from->older; t.torn += from->torn; t.shorter += from->shorter; t.hole += from->hole; t.garbage += from->garbage;
            t.unseen_by_check += from->unseen_by_check; t.checks += from->checks;
        }
        if (!t.mutants) continue;
        mutants += t.mutants;
        wrong += t.shorter + t.hole + t.garbage + (clean || k != 2 ? t.older : 0);      /* older: the last sync of a log, the limit of every log */
        unseen += t.unseen_by_check;
        printf("  %-9s mutants=%-7llu right=%-6llu error=%-7llu older=%llu torn=%llu SHORTER=%llu HOLE=%llu GARBAGE=%llu  check: %llu of %llu unseen\n", kind_names[k], (unsigned long long)t.mutants,
               (unsigned long long)t.right, (unsigned long long)t.error, (unsigned long long)t.older, (unsigned long long)t.torn, (unsigned long long)t.shorter, (unsigned long long)t.hole, (unsigned long long)t.garbage,
               (unsigned long long)t.unseen_by_check, (unsigned long long)t.checks);
    }
    for (int w = 0; w < WORKERS; w++) {
        if (all->first[w][0]) fprintf(stderr, "first: %s\n", all->first[w]);
        CHECK(!all->repair_failed[w]);
        repairs += all->repairs[w];
        repair_losses += all->repair_losses[w];
    }
    printf("flip: mutants=%llu silent=%llu repairs=%llu (with losses: %llu)\n", (unsigned long long)mutants, (unsigned long long)wrong, (unsigned long long)repairs, (unsigned long long)repair_losses);
    CHECK_EQ(wrong, 0);
    CHECK_EQ(unseen, 0);
    all_mutants += mutants * stride;
    if (++all_runs == 2) CHECK(all_mutants >= 400000);      /* both stores, in whichever order */
    free_subject(&s);
    munmap(all, sizeof *all);
}

TEST(crash_flip, closed_store_never_shows_wrong_data) { run(true); }
TEST(crash_flip, crashed_store_loses_at_most_its_last_sync) { run(false); }

TEST_MAIN()
