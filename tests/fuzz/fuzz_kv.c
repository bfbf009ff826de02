/* fuzz_kv.c
   Goal: kv_value_decode takes any bytes; kv_arena keeps every live block whole, whatever the order of
   requests.
   Method: the first byte chooses. Decode: what decodes must encode to the same bytes. Arena: the input
   is a script of allocate, resize and free over an arena of any size and start; every live block
   carries a pattern that is checked whenever it is touched, and at the end all of the memory can be
   had again in one piece. */
#define KV_CORE_IMPLEMENTATION
#include "../../kv.h"
#include "fuzz_main.h"

static void fuzz_value(const uint8_t *data, size_t size)
{
    kv_value v;
    kv_buf   again;
    memset(&again, 0, sizeof again);
    if (kv_value_decode(kv_bytes(data, size), &v) == KV_OK) {
        FUZZ_CHECK(kv_value_encode(&v, &again) == KV_OK);
        FUZZ_CHECK(again.size == size && memcmp(again.data, data, size) == 0);
    }
    kv_buf_free(&again);
}

#define FUZZ_BLOCKS 24
typedef struct fuzz_block { uint8_t *at; size_t size; uint8_t pattern; } fuzz_block;

static void fuzz_block_check(const fuzz_block *b, size_t size)
{
    for (size_t i = 0; i < size; i++) FUZZ_CHECK(b->at[i] == (uint8_t)(b->pattern + i));
}
static void fuzz_block_fill(fuzz_block *b) { for (size_t i = 0; i < b->size; i++) b->at[i] = (uint8_t)(b->pattern + i); }

static void fuzz_arena(fuzz_input in)
{
    static uint64_t aligned[1024];
    fuzz_block   blocks[FUZZ_BLOCKS];
    size_t       offset = fuzz_take(&in) % 33, size = (size_t)fuzz_take_bits(&in, 2) % (sizeof aligned - 64), largest = 0, used_empty;
    uint8_t     *memory = (uint8_t *)aligned + offset;
    kv_arena     arena;
    kv_allocator a = kv_arena_init(&arena, memory, size);
    memset(blocks, 0, sizeof blocks);
    used_empty = arena.used_bytes;
    for (size_t n = size; n && !largest; n--) {         /* the largest block that it can give */
        void *p = a.resize(a.user, NULL, 0, n);
        if (p) { a.resize(a.user, p, n, 0); largest = n; }
    }
    for (int step = 0; in.size && step < 400; step++) {
        fuzz_block *b = &blocks[fuzz_take(&in) % FUZZ_BLOCKS];
        size_t      wanted = (size_t)fuzz_take(&in);
        uint8_t    *moved;
        if (wanted > 200) wanted = (size_t)fuzz_take_bits(&in, 2) % 4096;
        if (b->at) fuzz_block_check(b, b->size);
        else if (!wanted) continue;
        moved = (uint8_t *)a.resize(a.user, b->at, b->size, wanted);
        if (!wanted) { FUZZ_CHECK(moved == NULL); memset(b, 0, sizeof *b); continue; }
        if (!moved) { if (b->at) fuzz_block_check(b, b->size); continue; }      /* full: nothing changed */
        FUZZ_CHECK(moved >= memory && moved + wanted <= memory + size && (uintptr_t)moved % (2 * sizeof(void *)) == 0);
        b->at = moved;
        fuzz_block_check(b, b->size < wanted ? b->size : wanted);
        b->size = wanted;
        b->pattern = fuzz_take(&in);
        fuzz_block_fill(b);
    }
    for (int i = 0; i < FUZZ_BLOCKS; i++) {
        if (!blocks[i].at) continue;
        fuzz_block_check(&blocks[i], blocks[i].size);
        a.resize(a.user, blocks[i].at, blocks[i].size, 0);
    }
    FUZZ_CHECK(arena.used_bytes == used_empty);
    if (largest) FUZZ_CHECK(a.resize(a.user, NULL, 0, largest) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in;
    if (!size) return 0;
    in.data = data + 1;
    in.size = size - 1;
    if (data[0] % 2) fuzz_arena(in); else fuzz_value(in.data, in.size);
    return 0;
}
