/* race_kv.c
   Goal: what of kv.h several threads may share: an arena's memory, the last error of an object, once,
   the platform's locks.
   Method: a few threads do all of it at once, under ThreadSanitizer; sums and texts are checked. */
#define KV_CORE_IMPLEMENTATION
#include "../../kv.h"
#include "../kv_test.h"

#define THREADS 4
#define ROUNDS 3000

static struct shared {
    kv_arena     arena;
    kv_allocator allocator;
    kvi_error    error;
    kvi_mutex    mutex;
    uint32_t     once, spin, ran;
    uint64_t     under_mutex, under_spin;
} all;
static uint8_t arena_memory[32768];

static void run_once(void) { all.ran++; }
static void work(void *argument)
{
    test_rng r = { (uint64_t)(uintptr_t)argument };
    uint8_t *blocks[8];
    size_t   sizes[8];
    memset(blocks, 0, sizeof blocks);
    memset(sizes, 0, sizeof sizes);
    for (int round = 0; round < ROUNDS; round++) {
        size_t   b = (size_t)test_below(&r, 8), wanted = (size_t)test_below(&r, 700);
        uint8_t *moved;
        const char *text;
        kvi_once(&all.once, run_once);
        if (blocks[b] || wanted) {
            for (size_t i = 0; i < sizes[b]; i++) if (blocks[b][i] != (uint8_t)sizes[b]) abort();
            moved = (uint8_t *)all.allocator.resize(all.allocator.user, blocks[b], sizes[b], wanted);
            if (moved || !wanted) { blocks[b] = moved; sizes[b] = wanted; if (moved) memset(moved, (uint8_t)wanted, wanted); }
        }
        if (round % 64 == 0) (void)kvi_error_set(&all.error, KV_ERR_IO, "some text that is not short");
        text = kvi_error_text(&all.error);
        if (!text) abort();
        kvi_mutex_lock(&all.mutex);
        all.under_mutex++;
        kvi_mutex_unlock(&all.mutex);
        kvi_spin_lock(&all.spin);
        all.under_spin++;
        kvi_spin_unlock(&all.spin);
    }
    for (int b = 0; b < 8; b++) if (blocks[b]) all.allocator.resize(all.allocator.user, blocks[b], sizes[b], 0);
}

TEST(race, arena_error_once_and_locks)
{
    kvi_thread threads[THREADS];
    int        started = 0;
    all.allocator = kv_arena_init(&all.arena, arena_memory, sizeof arena_memory);
    CHECK(kvi_mutex_init(&all.mutex));
    while (started < THREADS && CHECK_OK(kvi_thread_start(&threads[started], work, (void *)(uintptr_t)(started + 1)))) started++;
    for (int i = 0; i < started; i++) kvi_thread_join(&threads[i]);
    CHECK_EQ(all.ran, 1);
    CHECK_EQ(all.under_mutex, THREADS * ROUNDS);
    CHECK_EQ(all.under_spin, THREADS * ROUNDS);
    CHECK_EQ(all.arena.used_bytes, 0);
    CHECK(!strcmp(kvi_error_text(&all.error), "some text that is not short"));
    kvi_mutex_destroy(&all.mutex);
}
TEST_MAIN()
