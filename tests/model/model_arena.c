/* model_arena.c
   Goal: kv_arena hands out memory that nobody else has, aligned, inside its block; it merges what is
   freed, so that everything can be had again in one piece; full means NULL and nothing changed; the
   counters are true.
   Method: random histories of allocate, resize and free against an array of live blocks, each filled
   with a pattern of its own that is checked whenever it is touched; after every step the chain of
   headers is walked. */
#define KV_CORE_IMPLEMENTATION
#include "../../kv.h"
#include "../kv_test.h"

#define UNIT (2 * sizeof(void *))

typedef struct live { uint8_t *at; size_t size; uint64_t pattern; } live;

static uint8_t pattern_byte(const live *b, size_t i) { return (uint8_t)(b->pattern >> (i % 8 * 8)) ^ (uint8_t)i; }
static void    fill(live *b) { for (size_t i = 0; i < b->size; i++) b->at[i] = pattern_byte(b, i); }
static bool    intact(const live *b, size_t size)
{
    for (size_t i = 0; i < size; i++) if (b->at[i] != pattern_byte(b, i)) return false;
    return true;
}

/* Walk the row of blocks: sizes add up, no two free ones touch, the flags agree, the bins hold
   exactly the free ones. Returns the bytes in use, or SIZE_MAX. */
static size_t walk(const kv_arena *arena)
{
    size_t used = 0, free_count = 0, binned = 0;
    bool   before_used = true;
    kvi_arena_block *b;
    if (!arena->start) return 0;
    for (b = (kvi_arena_block *)(void *)arena->start; (unsigned char *)b < arena->end; b = kvi_arena_after(b)) {
        bool is_used = (b->header & KVI_ARENA_USED) != 0;
        if (kvi_arena_size(b) < KVI_ARENA_SMALLEST || kvi_arena_size(b) % KVI_ARENA_UNIT) return SIZE_MAX;
        if (((b->header & KVI_ARENA_USED_BEFORE) != 0) != before_used) return SIZE_MAX;
        if (!is_used && !before_used) return SIZE_MAX;
        if (is_used) used += kvi_arena_size(b); else free_count++;
        before_used = is_used;
    }
    if ((unsigned char *)b != arena->end || ((b->header & KVI_ARENA_USED_BEFORE) != 0) != before_used) return SIZE_MAX;
    for (uint32_t bin = 0; bin < 32; bin++) {
        const kvi_arena_block *f = (const kvi_arena_block *)arena->bins[bin], *prev = NULL;
        if ((f != NULL) != ((arena->bin_map >> bin & 1) != 0)) return SIZE_MAX;
        for (; f; prev = f, f = f->next) {
            binned++;
            if (f->prev != prev || f->header & KVI_ARENA_USED || kvi_arena_bin(kvi_arena_size(f)) != bin) return SIZE_MAX;
        }
    }
    return binned == free_count ? used : SIZE_MAX;
}

static void history(test_rng *r, size_t arena_size, size_t offset, size_t largest, size_t steps)
{
    enum { BLOCKS = 200 };
    live         blocks[BLOCKS];
    uint8_t     *memory = (uint8_t *)malloc(arena_size + offset + 1);
    kv_arena     arena;
    kv_allocator a;
    size_t       peak = 0, refused = 0;
    if (!memory) abort();
    memset(blocks, 0, sizeof blocks);
    memory[offset + arena_size] = 0xA7;                     /* the byte behind is not ours */
    if (offset) memory[offset - 1] = 0xA7;
    a = kv_arena_init(&arena, memory + offset, arena_size);
    for (size_t step = 0; step < steps; step++) {
        live   *b = &blocks[test_below(r, BLOCKS)];
        size_t  used_before = arena.used_bytes, wanted = 0, block = b->at ? kvi_arena_size((kvi_arena_block *)(void *)(b->at - KVI_ARENA_WORD)) : 0, both;
        uint8_t *moved;
        if (b->at && !CHECK(intact(b, b->size))) break;
        if (!test_one_in(r, 3)) wanted = 1 + (size_t)test_below(r, test_one_in(r, 10) ? largest : 64);
        if (test_one_in(r, 500)) wanted = test_one_in(r, 2) ? SIZE_MAX - (size_t)test_below(r, 100) : SIZE_MAX / 2 + (size_t)test_below(r, 3);
        moved = (uint8_t *)a.resize(a.user, b->at, b->size, wanted);
        if (!wanted) { if (!CHECK(moved == NULL)) break; memset(b, 0, sizeof *b); }
        else if (!moved) {                                  /* nothing changed */
            refused++;
            if (b->at && !CHECK(intact(b, b->size))) break;
            if (!CHECK_EQ(arena.used_bytes, used_before)) break;
        } else {
            both = arena.used_bytes + (b->at && moved != b->at ? block : 0);     /* while it moved, it was there twice */
            if (both > peak) peak = both;
            if (!CHECK(moved >= memory + offset && moved + wanted <= memory + offset + arena_size)) break;
            if (!CHECK((uintptr_t)moved % UNIT == 0)) break;
            b->at = moved;
            if (!CHECK(intact(b, b->size < wanted ? b->size : wanted))) break;
            b->size = wanted;
            b->pattern = test_random(r);
            fill(b);
        }
        if (step % 8 == 0) {
            size_t used = walk(&arena);
            if (!CHECK_EQ(used, arena.used_bytes)) break;
        }
        if (!CHECK_EQ(arena.peak_bytes, peak)) break;
    }
    for (size_t i = 0; i < BLOCKS; i++) if (blocks[i].at) {
        CHECK(intact(&blocks[i], blocks[i].size));
        a.resize(a.user, blocks[i].at, blocks[i].size, 0);
    }
    CHECK_EQ(arena.used_bytes, 0);
    CHECK_EQ(walk(&arena), 0);
    if (arena.start) {                                      /* all of it again, in one piece */
        size_t all = (size_t)(arena.end - arena.start) - sizeof(size_t);
        void  *whole = a.resize(a.user, NULL, 0, all);
        CHECK(whole != NULL);
        CHECK(a.resize(a.user, NULL, 0, 1) == NULL);
        CHECK_EQ(arena.used_bytes, arena.end - arena.start);
        a.resize(a.user, whole, all, 0);
    }
    CHECK_EQ(memory[offset + arena_size], 0xA7);
    if (offset) CHECK_EQ(memory[offset - 1], 0xA7);
    CHECK(refused < steps);
    free(memory);
}

TEST(arena, random_histories_in_arenas_that_are_often_full)
{
    test_rng r = test_rng_new();
    for (size_t offset = 0; offset < 2 * UNIT + 1; offset++) history(&r, 6000 + (size_t)test_below(&r, 3000), offset, 1500, test_scaled(8000));
}
TEST(arena, random_histories_in_arenas_with_room)
{
    test_rng r = test_rng_new();
    for (size_t i = 0; i < 4; i++) history(&r, 1 << 20, i, 30000, test_scaled(20000));
}
TEST(arena, every_small_size_at_every_start)
{
    test_rng r = test_rng_new();
    for (size_t size = 0; size < 200; size++) for (size_t offset = 0; offset < UNIT; offset += 3) history(&r, size, offset, 100, 30);
}

TEST(arena, resizes_in_place_where_it_can)
{
    static uint8_t memory[4096];
    kv_arena     arena;
    kv_allocator a = kv_arena_init(&arena, memory, sizeof memory);
    uint8_t     *one = (uint8_t *)a.resize(a.user, NULL, 0, 100), *two, *grown;
    memset(one, 'x', 100);
    grown = (uint8_t *)a.resize(a.user, one, 100, 1000);
    CHECK(grown == one);                                    /* nothing follows it */
    CHECK(a.resize(a.user, one, 1000, 200) == one);
    two = (uint8_t *)a.resize(a.user, NULL, 0, 64);
    CHECK(two > one && two < one + 1000);                   /* what was cut off is used again */
    grown = (uint8_t *)a.resize(a.user, one, 200, 2000);
    CHECK(grown != NULL && grown != one);                   /* `two` is in the way */
    for (int i = 0; i < 100; i++) if (grown[i] != 'x') { CHECK(!"moved with its bytes"); break; }
    CHECK(a.resize(a.user, grown, 2000, 100000) == NULL);
    CHECK(grown[99] == 'x');
    a.resize(a.user, grown, 2000, 0);
    a.resize(a.user, two, 64, 0);
    CHECK_EQ(arena.used_bytes, 0);
    CHECK(arena.peak_bytes >= 2064 && arena.peak_bytes <= sizeof memory);
}

TEST(arena, too_small_or_none_refuses_everything)
{
    static uint8_t memory[64];
    kv_arena     arena;
    kv_allocator a;
    for (size_t size = 0; size < KVI_ARENA_SMALLEST; size++) {
        a = kv_arena_init(&arena, memory + 1, size);
        CHECK(a.resize(a.user, NULL, 0, 1) == NULL);
    }
    a = kv_arena_init(&arena, NULL, 1000);
    CHECK(a.resize(a.user, NULL, 0, 1) == NULL);
    CHECK(a.resize(a.user, NULL, 0, 0) == NULL);
    a = kv_arena_init(&arena, memory, sizeof memory);
    CHECK(a.resize(a.user, NULL, 0, SIZE_MAX) == NULL && a.resize(a.user, NULL, 0, SIZE_MAX - 7) == NULL);
    CHECK(a.resize(a.user, NULL, 0, 1) != NULL);
}

TEST(arena, serves_a_buffer)
{
    static uint8_t memory[1024];
    kv_arena  arena;
    kv_buf    b;
    kv_status s = KV_OK;
    memset(&b, 0, sizeof b);
    b.allocator = kv_arena_init(&arena, memory, sizeof memory);
    while (s == KV_OK) s = kv_buf_append(&b, KV_STR("0123456789"));
    CHECK_STATUS(s, KV_ERR_NO_MEMORY);
    CHECK(b.size >= 500 && b.size % 10 == 0);               /* doubling ends at half of it at worst */
    kv_buf_free(&b);
    CHECK_EQ(arena.used_bytes, 0);
}

#define ARENA_THREADS 3
typedef struct arena_worker { kv_allocator a; uint64_t seed; bool ok; } arena_worker;
static void arena_work(void *argument)
{
    arena_worker *w = (arena_worker *)argument;
    test_rng      r = { w->seed };
    live          blocks[16];
    memset(blocks, 0, sizeof blocks);
    w->ok = true;
    for (int step = 0; step < 4000; step++) {
        live    *b = &blocks[test_below(&r, 16)];
        size_t   wanted = (size_t)test_below(&r, 100);
        uint8_t *moved;
        if (!b->at && !wanted) continue;
        if (b->at && !intact(b, b->size)) w->ok = false;
        moved = (uint8_t *)w->a.resize(w->a.user, b->at, b->size, wanted);
        if (!wanted) { memset(b, 0, sizeof *b); continue; }
        if (!moved) continue;
        b->at = moved;
        b->size = wanted;
        b->pattern = test_random(&r);
        fill(b);
    }
    for (int i = 0; i < 16; i++) if (blocks[i].at) w->a.resize(w->a.user, blocks[i].at, blocks[i].size, 0);
}
TEST(arena, several_threads_share_one)
{
    static uint8_t memory[8192];
    kv_arena     arena;
    kv_allocator a = kv_arena_init(&arena, memory, sizeof memory);
    arena_worker workers[ARENA_THREADS];
    kvi_thread   threads[ARENA_THREADS];
    int          started = 0;
    if (!KVI_THREADS) { TEST_SKIP("no threads here"); return; }
    for (int i = 0; i < ARENA_THREADS; i++) { workers[i].a = a; workers[i].seed = (uint64_t)i + 1; workers[i].ok = false; }
    while (started < ARENA_THREADS && CHECK_OK(kvi_thread_start(&threads[started], arena_work, &workers[started]))) started++;
    for (int i = 0; i < started; i++) { kvi_thread_join(&threads[i]); CHECK(workers[i].ok); }
    CHECK_EQ(arena.used_bytes, 0);
    CHECK_EQ(walk(&arena), 0);
}

TEST_MAIN()
