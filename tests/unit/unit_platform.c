/* unit_platform.c
   Goal: the platform layer of kv.h does the same on every system: atomics, locks, threads, clock,
   randomness, and every function of the system's kv_io.
   Method: each promise at the declarations, one by one. Where there are no threads or no files, the
   promises are those of not having them. */
#define KV_CORE_IMPLEMENTATION
#include "../../kv.h"
#include "../kv_test.h"

/* ---- atomics ---- */

#define ATOMIC_CASES(name, type) \
    TEST(platform_atomics, name) \
    { \
        type v = 5; \
        CHECK_EQ(kvi_load_##name(&v), 5); \
        CHECK_EQ(kvi_add_##name(&v, 3), 5); \
        CHECK_EQ(kvi_sub_##name(&v, 1), 8); \
        CHECK_EQ(kvi_or_##name(&v, 24), 7); \
        CHECK_EQ(kvi_and_##name(&v, 28), 31); \
        CHECK_EQ(kvi_swap_##name(&v, 9), 28); \
        CHECK(!kvi_cas_##name(&v, 8, 1)); \
        CHECK_EQ(kvi_peek_##name(&v), 9); \
        CHECK(kvi_cas_##name(&v, 9, (type)-1)); \
        CHECK(kvi_load_##name(&v) == (type)-1); \
        CHECK(kvi_add_##name(&v, 2) == (type)-1);       /* wraps around */ \
        CHECK_EQ(v, 1); \
        kvi_store_##name(&v, 77); \
        CHECK_EQ(v, 77); \
        kvi_poke_##name(&v, 78); \
        CHECK_EQ(v, 78); \
    }
ATOMIC_CASES(u8, uint8_t)
ATOMIC_CASES(u32, uint32_t)
ATOMIC_CASES(u64, uint64_t)
ATOMIC_CASES(size, size_t)

TEST(platform_atomics, ptr)
{
    int   a, b;
    void *p = &a;
    CHECK(kvi_load_ptr(&p) == &a);
    CHECK(kvi_swap_ptr(&p, &b) == &a);
    CHECK(!kvi_cas_ptr(&p, &a, NULL));
    CHECK(kvi_cas_ptr(&p, &b, &a) && p == &a);
    kvi_store_ptr(&p, NULL);
    CHECK(kvi_peek_ptr(&p) == NULL);
}

/* ---- threads ---- */

#if KVI_THREADS
#define THREADS 4
typedef struct shared {
    kvi_mutex mutex;
    kvi_cond  cond;
    uint32_t  spin, atomic, turn, once, ran;
    uint64_t  atomic64, under_mutex, under_spin;
    uint8_t   atomic8;
} shared;
static shared all;

static void count_up(void *argument)
{
    uint32_t rounds = *(uint32_t *)argument;
    for (uint32_t i = 0; i < rounds; i++) {
        kvi_mutex_lock(&all.mutex);
        all.under_mutex++;
        kvi_mutex_unlock(&all.mutex);
        kvi_spin_lock(&all.spin);
        all.under_spin++;
        kvi_spin_unlock(&all.spin);
        kvi_add_u32(&all.atomic, 1);
        kvi_add_u64(&all.atomic64, UINT64_C(1) << 32 | 1);
        kvi_add_u8(&all.atomic8, 1);
    }
}
TEST(platform_threads, four_of_them_count_to_the_same_sum)
{
    kvi_thread threads[THREADS];
    uint32_t   rounds = 5000;
    int        started = 0;
    memset(&all, 0, sizeof all);
    CHECK(kvi_mutex_init(&all.mutex));
    while (started < THREADS && CHECK_OK(kvi_thread_start(&threads[started], count_up, &rounds))) started++;
    for (int i = 0; i < started; i++) kvi_thread_join(&threads[i]);
    CHECK_EQ(all.under_mutex, THREADS * rounds);
    CHECK_EQ(all.under_spin, THREADS * rounds);
    CHECK_EQ(all.atomic, THREADS * rounds);
    CHECK(all.atomic64 == THREADS * (uint64_t)rounds * (UINT64_C(1) << 32 | 1));
    CHECK_EQ(all.atomic8, (uint8_t)(THREADS * rounds));
    kvi_mutex_destroy(&all.mutex);
}

static void take_turns(void *argument)      /* odd turns */
{
    (void)argument;
    kvi_mutex_lock(&all.mutex);
    for (int i = 0; i < 200; i++) {
        while (all.turn % 2 == 0) kvi_cond_wait(&all.cond, &all.mutex);
        all.turn++;
        kvi_cond_signal(&all.cond);
    }
    kvi_mutex_unlock(&all.mutex);
}
TEST(platform_threads, two_take_turns_by_a_condition)
{
    kvi_thread other;
    memset(&all, 0, sizeof all);
    CHECK(kvi_mutex_init(&all.mutex));
    CHECK(kvi_cond_init(&all.cond));
    if (!CHECK_OK(kvi_thread_start(&other, take_turns, NULL))) return;
    kvi_mutex_lock(&all.mutex);
    for (int i = 0; i < 200; i++) {         /* even turns */
        while (all.turn % 2 == 1) kvi_cond_wait(&all.cond, &all.mutex);
        all.turn++;
        kvi_cond_broadcast(&all.cond);
    }
    kvi_mutex_unlock(&all.mutex);
    kvi_thread_join(&other);
    CHECK_EQ(all.turn, 400);
    kvi_cond_destroy(&all.cond);
    kvi_mutex_destroy(&all.mutex);
}

static void run_once(void) { kvi_sleep_ms(2); kvi_add_u32(&all.ran, 1); }
static void go_once(void *argument) { (void)argument; kvi_once(&all.once, run_once); if (kvi_load_u32(&all.ran) != 1) kvi_add_u32(&all.ran, 100); }
TEST(platform_threads, once_is_once_and_everybody_waits_for_it)
{
    kvi_thread threads[THREADS];
    int        started = 0;
    memset(&all, 0, sizeof all);
    while (started < THREADS && CHECK_OK(kvi_thread_start(&threads[started], go_once, NULL))) started++;
    go_once(NULL);
    for (int i = 0; i < started; i++) kvi_thread_join(&threads[i]);
    CHECK_EQ(all.ran, 1);
}

static void try_it(void *argument) { *(bool *)argument = kvi_mutex_try(&all.mutex); }
TEST(platform_threads, try_fails_while_another_thread_has_the_mutex)
{
    kvi_thread other;
    bool       got = true;
    CHECK(kvi_mutex_init(&all.mutex));
    CHECK(kvi_mutex_try(&all.mutex));
    if (!CHECK_OK(kvi_thread_start(&other, try_it, &got))) return;
    kvi_thread_join(&other);
    CHECK(!got);
    kvi_mutex_unlock(&all.mutex);
    kvi_mutex_destroy(&all.mutex);
}

TEST(platform_threads, a_wait_with_a_limit_ends)
{
    uint64_t begin = kvi_now_ms(), waited;
    CHECK(kvi_mutex_init(&all.mutex));
    CHECK(kvi_cond_init(&all.cond));
    kvi_mutex_lock(&all.mutex);
    do kvi_cond_wait_ms(&all.cond, &all.mutex, 1030); while ((waited = kvi_now_ms() - begin) < 1000);
    kvi_mutex_unlock(&all.mutex);
    CHECK(waited < 20000);
    kvi_cond_destroy(&all.cond);
    kvi_mutex_destroy(&all.mutex);
}

TEST(platform_clock, sleep_takes_its_time)
{
    uint64_t before = kvi_now_ns(), slept;
    kvi_sleep_ms(30);
    slept = kvi_now_ns() - before;
    CHECK(slept >= 25000000u && slept < UINT64_C(20000000000));
}
#else
static void never(void *argument) { (void)argument; CHECK(!"a thread was started"); }
TEST(platform_threads, there_are_none)
{
    kvi_thread t;
    kvi_mutex  m;
    kvi_cond   c;
    CHECK_STATUS(kvi_thread_start(&t, never, NULL), KV_ERR_UNSUPPORTED);
    CHECK(kvi_mutex_init(&m) && kvi_mutex_try(&m) && kvi_mutex_try(&m));     /* locks are nothing */
    CHECK(kvi_cond_init(&c));
    kvi_cond_wait(&c, &m);                                                  /* and waits return */
    kvi_cond_wait_ms(&c, &m, 1000);
}
static int  once_runs;
static void run_once(void) { once_runs++; }
TEST(platform_threads, once_is_once)
{
    uint32_t state = 0;
    for (int i = 0; i < 3; i++) kvi_once(&state, run_once);
    CHECK_EQ(once_runs, 1);
}
#endif

/* ---- clock, randomness, processors ---- */

TEST(platform_clock, it_goes_on_and_never_back)
{
    uint64_t last = kvi_now_ns(), first = last;
    if (KVI_OS_NONE) { CHECK_EQ(last, 0); return; }
    for (int i = 0; i < 20000 || last == first; i++) {
        uint64_t now = kvi_now_ns();
        if (now < last) { CHECK(now >= last); return; }
        last = now;
    }
    CHECK(last > first);
    CHECK(last - first < UINT64_C(60000000000));
}
TEST(platform_random, two_numbers_differ)
{
    uint64_t seen[64];
    bool     real = true;
    for (int i = 0; i < 64; i++) {
        real = kvi_random_u64(&seen[i], seen);
        for (int k = 0; k < i; k++) CHECK(seen[i] != seen[k]);
    }
    CHECK(real == !KVI_OS_NONE);
}
TEST(platform_random, there_is_a_processor) { CHECK(kvi_cpu_count() >= 1); }

/* ---- files ---- */

#if KVI_FILES
#define NEED_FILES() const kv_io *io = kv_io_default(); if (!CHECK(io != NULL)) return

static kv_status put(const char *path, const char *text)        /* a file with this text, new or not */
{
    const kv_io *io = kv_io_default();
    kv_file     *f;
    kv_status    s = io->open(io->user, path, KV_OPEN_WRITE | KV_OPEN_CREATE | KV_OPEN_TRUNCATE, &f);
    if (s < 0) return s;
    s = io->append(io->user, f, text, strlen(text));
    (void)io->close(io->user, f);
    return s;
}
static bool holds(const char *path, const char *text)           /* is this what the file holds? */
{
    const kv_io *io = kv_io_default();
    kv_file     *f;
    char         data[300];
    size_t       got = 0;
    if (io->open(io->user, path, 0, &f) != KV_OK) return false;
    if (io->read_at(io->user, f, 0, data, sizeof data, &got) != KV_OK) got = sizeof data + 1;
    (void)io->close(io->user, f);
    return got == strlen(text) && !memcmp(data, text, got);
}

TEST(platform_files, append_write_at_and_read_at)
{
    kv_file    *f;
    const char *path = test_path("one");
    char        data[64];
    size_t      got = 0;
    uint64_t    size = 99;
    NEED_FILES();
    if (!CHECK_OK(io->open(io->user, path, KV_OPEN_WRITE | KV_OPEN_CREATE, &f))) return;
    CHECK_OK(io->size(io->user, f, &size));
    CHECK_EQ(size, 0);
    CHECK_OK(io->append(io->user, f, "hello ", 6));
    CHECK_OK(io->append(io->user, f, "world", 5));
    CHECK_OK(io->append(io->user, f, NULL, 0));
    CHECK_OK(io->write_at(io->user, f, 0, "J", 1));
    CHECK_OK(io->append(io->user, f, "!", 1));                  /* still at the end */
    CHECK_OK(io->size(io->user, f, &size));
    CHECK_EQ(size, 12);
    CHECK_OK(io->read_at(io->user, f, 0, data, sizeof data, &got));
    CHECK_BYTES(kv_bytes(data, got), KV_STR("Jello world!"));
    CHECK_OK(io->read_at(io->user, f, 6, data, 5, &got));
    CHECK_BYTES(kv_bytes(data, got), KV_STR("world"));
    CHECK_OK(io->read_at(io->user, f, 12, data, 5, &got));
    CHECK_EQ(got, 0);
    CHECK_OK(io->read_at(io->user, f, 4000000000u, data, 5, &got));
    CHECK_EQ(got, 0);
    CHECK_OK(io->write_at(io->user, f, 20, "gap", 3));          /* what lies between reads as 0 */
    CHECK_OK(io->read_at(io->user, f, 11, data, sizeof data, &got));
    CHECK_BYTES(kv_bytes(data, got), KV_STR("!\0\0\0\0\0\0\0\0gap"));
    CHECK_OK(io->sync(io->user, f));
    CHECK_OK(io->close(io->user, f));
}

TEST(platform_files, the_flags_of_open)
{
    kv_file    *f;
    const char *path = test_path("flags"), *missing = test_path("missing"), *deep = test_path("no/such/dir");
    NEED_FILES();
    CHECK_STATUS(io->open(io->user, missing, 0, &f), KV_NOT_FOUND);
    CHECK_STATUS(io->open(io->user, missing, KV_OPEN_WRITE, &f), KV_NOT_FOUND);
    CHECK_STATUS(io->open(io->user, missing, KV_OPEN_WRITE | KV_OPEN_TRUNCATE, &f), KV_NOT_FOUND);
    CHECK_STATUS(io->open(io->user, deep, KV_OPEN_WRITE | KV_OPEN_CREATE, &f), KV_NOT_FOUND);
    CHECK_OK(put(path, "first"));
    CHECK_STATUS(io->open(io->user, path, KV_OPEN_WRITE | KV_OPEN_CREATE | KV_OPEN_EXCLUSIVE, &f), KV_EXISTS);
    CHECK(holds(path, "first"));
    if (CHECK_OK(io->open(io->user, path, KV_OPEN_WRITE | KV_OPEN_CREATE, &f))) CHECK_OK(io->close(io->user, f));
    CHECK(holds(path, "first"));
    if (CHECK_OK(io->open(io->user, path, 0, &f))) {            /* reading only */
        CHECK(io->append(io->user, f, "x", 1) < 0);
        CHECK(io->os_error(io->user) != 0);
        CHECK_OK(io->close(io->user, f));
    }
    if (CHECK_OK(io->open(io->user, path, KV_OPEN_WRITE | KV_OPEN_TRUNCATE, &f))) CHECK_OK(io->close(io->user, f));
    CHECK(holds(path, ""));
    if (CHECK_OK(io->open(io->user, missing, KV_OPEN_WRITE | KV_OPEN_CREATE | KV_OPEN_EXCLUSIVE, &f))) CHECK_OK(io->close(io->user, f));
    CHECK_STATUS(io->open(io->user, test_path("."), 0, &f), KV_ERR_IO);     /* a directory is no file */
}

TEST(platform_files, rename_replaces_also_what_is_open)
{
    const char *from = test_path("from"), *to = test_path("to");
    NEED_FILES();
    CHECK_STATUS(io->rename(io->user, from, to), KV_NOT_FOUND);
    CHECK_OK(put(from, "new"));
    CHECK_OK(io->rename(io->user, from, to));
    CHECK(holds(to, "new"));
    CHECK(!holds(from, "new"));
    CHECK_OK(put(from, "newer"));
    CHECK_OK(io->rename(io->user, from, to));
    CHECK(holds(to, "newer"));
    CHECK_OK(io->sync_dir(io->user, test_path(".")));
    CHECK_OK(io->remove(io->user, to));
}

TEST(platform_files, an_open_file_may_be_renamed_and_removed)
{
    kv_file    *f;
    const char *path = test_path("open"), *moved = test_path("moved");
    char        data[8];
    size_t      got = 0;
    NEED_FILES();
    CHECK_OK(put(path, "text"));
    if (!CHECK_OK(io->open(io->user, path, KV_OPEN_WRITE, &f))) return;
    CHECK_OK(io->rename(io->user, path, moved));
    CHECK_OK(io->append(io->user, f, "!", 1));
    CHECK_OK(io->remove(io->user, moved));
    CHECK_OK(io->read_at(io->user, f, 0, data, sizeof data, &got));
    CHECK_BYTES(kv_bytes(data, got), KV_STR("text!"));
    CHECK_OK(io->close(io->user, f));
    CHECK_STATUS(io->open(io->user, moved, 0, &f), KV_NOT_FOUND);
}

TEST(platform_files, directories_are_made_listed_and_removed)
{
    const char *dir = test_path("dir");
    test_names  names;
    NEED_FILES();
    CHECK_OK(io->make_dir(io->user, dir));
    CHECK_STATUS(io->make_dir(io->user, dir), KV_EXISTS);
    CHECK_STATUS(io->make_dir(io->user, test_path("none/dir")), KV_NOT_FOUND);
    names = test_list(dir);
    CHECK_EQ(names.count, 0);
    test_names_free(&names);
    CHECK_OK(put(test_path("dir/b"), ""));
    CHECK_OK(put(test_path("dir/a.kv"), "1"));
    CHECK_OK(put(test_path("dir/gr\xC3\xBC\xC3\x9F" "e"), "2"));        /* names are UTF-8 */
    CHECK_OK(io->make_dir(io->user, test_path("dir/below")));
    CHECK_OK(io->sync_dir(io->user, dir));
    names = test_list(dir);
    if (CHECK_EQ(names.count, 4)) {
        CHECK(!strcmp(names.names[0], "a.kv") && !strcmp(names.names[1], "b") && !strcmp(names.names[2], "below"));
        CHECK(!strcmp(names.names[3], "gr\xC3\xBC\xC3\x9F" "e"));
    }
    test_names_free(&names);
    CHECK(io->remove(io->user, dir) < 0);                       /* not empty */
    CHECK_OK(io->remove(io->user, test_path("dir/below")));
    CHECK_STATUS(io->remove(io->user, test_path("dir/below")), KV_NOT_FOUND);
    test_remove(dir);
    CHECK_STATUS(io->list(io->user, dir, test_names_add, &names), KV_NOT_FOUND);
    CHECK_STATUS(io->sync_dir(io->user, dir), KV_NOT_FOUND);
}

TEST(platform_files, long_paths_work)
{
    char    path[700];
    int     levels = 0;
    size_t  size;
    NEED_FILES();
    snprintf(path, sizeof path, "%s", test_path("long"));
    CHECK_OK(io->make_dir(io->user, path));
    for (size = strlen(path); size < 400 && levels < 12; levels++) {
        size += (size_t)snprintf(path + size, sizeof path - size, "/%040d", levels);
        if (!CHECK_OK(io->make_dir(io->user, path))) return;
    }
    snprintf(path + size, sizeof path - size, "/file");
    CHECK_OK(put(path, "deep"));
    CHECK(holds(path, "deep"));
    CHECK_OK(io->remove(io->user, path));
    test_remove(test_path("long"));
    CHECK_STATUS(io->open(io->user, path, 0, (kv_file **)&size), KV_NOT_FOUND);
}

/* An offset beyond 4 GiB works, or is refused; it never lands elsewhere. */
TEST(platform_files, offsets_beyond_4_gib)
{
    kv_file        *f;
    const char     *path = test_path("large");
    const uint64_t  far_offset = UINT64_C(5) << 30;
    kv_status       s;
    char            data[16];
    size_t          got = 0;
    uint64_t        size = 0;
    NEED_FILES();
    if (!CHECK_OK(io->open(io->user, path, KV_OPEN_WRITE | KV_OPEN_CREATE, &f))) return;
    CHECK_OK(io->append(io->user, f, "0123456789", 10));
    s = io->write_at(io->user, f, far_offset, "far", 3);
    if (s == KV_OK) {
        CHECK_OK(io->size(io->user, f, &size));
        CHECK(size == far_offset + 3);
        CHECK_OK(io->read_at(io->user, f, far_offset, data, sizeof data, &got));
        CHECK_BYTES(kv_bytes(data, got), KV_STR("far"));
    } else {
        CHECK(s == KV_ERR_TOO_LARGE || s == KV_ERR_NO_SPACE || s == KV_ERR_IO);
        CHECK(io->read_at(io->user, f, far_offset, data, sizeof data, &got) < 0 || got == 0);
    }
    CHECK_OK(io->read_at(io->user, f, 0, data, 10, &got));
    CHECK_BYTES(kv_bytes(data, got), KV_STR("0123456789"));
    CHECK_OK(io->close(io->user, f));
    CHECK_OK(io->remove(io->user, path));
}

TEST(platform_files, a_lock_holds_against_a_second_one)
{
    kv_file    *lock = NULL, *second = NULL, *third = NULL;
    uint64_t    holder = 7;
    const char *path = test_path("LOCK");
    NEED_FILES();
    CHECK_STATUS(io->lock(io->user, path, true, &lock, &holder), KV_NOT_FOUND);     /* a shared lock makes nothing */
    if (!CHECK_OK(io->lock(io->user, path, false, &lock, &holder))) return;
    if (KVI_OS_WASI) { CHECK_OK(io->unlock(io->user, lock)); return; }              /* WASI has no locks */
    CHECK_STATUS(io->lock(io->user, path, false, &second, &holder), KV_ERR_BUSY);
#if KVI_OS_POSIX
    CHECK_EQ(holder, getpid());
#elif KVI_OS_WINDOWS
    CHECK_EQ(holder, GetCurrentProcessId());
#endif
    CHECK_STATUS(io->lock(io->user, path, true, &second, &holder), KV_ERR_BUSY);
    CHECK_OK(io->unlock(io->user, lock));
    CHECK_OK(io->lock(io->user, path, true, &lock, &holder));
    CHECK_OK(io->lock(io->user, path, true, &second, &holder));                     /* readers share */
    CHECK_STATUS(io->lock(io->user, path, false, &third, &holder), KV_ERR_BUSY);
    CHECK_OK(io->unlock(io->user, lock));
    CHECK_STATUS(io->lock(io->user, path, false, &third, &holder), KV_ERR_BUSY);
    CHECK_OK(io->unlock(io->user, second));
    CHECK_OK(io->lock(io->user, path, false, &third, &holder));
    CHECK_OK(io->unlock(io->user, third));
}

TEST(platform_files, a_map_outlives_its_file)
{
    kv_file    *f;
    const void *data = NULL;
    const char *path = test_path("map");
    NEED_FILES();
    if (KVI_OS_WASI) { CHECK(!io->map && !io->unmap); return; }
    CHECK_OK(put(path, "mapped bytes"));
    if (!CHECK_OK(io->open(io->user, path, 0, &f))) return;
    if (CHECK_OK(io->map(io->user, f, 12, &data))) {
        CHECK_OK(io->close(io->user, f));
        CHECK_BYTES(kv_bytes(data, 12), KV_STR("mapped bytes"));
        io->unmap(io->user, data, 12);
    }
    CHECK_OK(io->remove(io->user, path));
}

TEST(platform_files, a_link_is_a_second_name)
{
    const char *one = test_path("one"), *two = test_path("two");
    NEED_FILES();
    CHECK_OK(put(one, "same"));
    CHECK_OK(io->link(io->user, one, two));
    CHECK_STATUS(io->link(io->user, one, two), KV_EXISTS);
    CHECK_STATUS(io->link(io->user, test_path("none"), test_path("three")), KV_NOT_FOUND);
    CHECK_OK(io->remove(io->user, one));
    CHECK(holds(two, "same"));
    CHECK_OK(io->remove(io->user, two));
}

#else
TEST(platform_files, there_are_none) { CHECK(kv_io_default() == NULL); }
#endif

TEST_MAIN()
