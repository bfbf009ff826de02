/* fst_rom_table.c - a frozen map as a C array, for firmware
   A map is one string of bytes that is queried where it lies, so a table can be built on the desk and
   linked into flash. This program prints the array for a header file, and then reads from the array the
   way firmware would: no files, no heap but for one small object in fixed memory.
   Firmware defines KV_FST_READER_ONLY, KV_NO_MALLOC, KV_NO_FILES and KV_NO_THREADS. */
#define KV_FST_IMPLEMENTATION
#include "../kv_fst.h"
#include <stdio.h>

static kv_status print_array(void *user, const void *data, size_t size)
{
    unsigned *column = (unsigned *)user;
    for (size_t i = 0; i < size; i++) {
        printf("%s0x%02x,", *column % 16 ? " " : "\n    ", ((const unsigned char *)data)[i]);
        ++*column;
    }
    return KV_OK;
}
static kv_status keep(void *user, const void *data, size_t size) { return kv_buf_append((kv_buf *)user, kv_bytes(data, size)); }

static const struct { const char *name; uint64_t number; } registers[] = {
    { "ADC1_CR", 0x40022008 }, { "ADC1_ISR", 0x40022000 }, { "GPIOA_IDR", 0x48000010 }, { "GPIOA_ODR", 0x48000014 },
    { "GPIOB_IDR", 0x48000410 }, { "GPIOB_ODR", 0x48000414 }, { "RCC_AHBENR", 0x40021014 }, { "RCC_CR", 0x40021000 }
};

static kv_status build(kv_write_fn write, void *user)
{
    kv_fst_build_options o = { 0 };
    kv_fst_builder      *b;
    kv_status            s;
    o.values = KV_FST_U64;
    s = kv_fst_build_begin(&o, write, user, &b);
    if (s < 0) return s;
    for (size_t i = 0; i < sizeof registers / sizeof registers[0]; i++) kv_fst_add(b, kv_cstr(registers[i].name), registers[i].number);
    return kv_fst_build_finish(b);
}

int main(void)
{
    static unsigned char memory[4096];
    kv_arena       arena;
    kv_fst_options o = { 0 };
    kv_buf         rom = { 0 };
    kv_fst        *f;
    unsigned       column = 0;
    uint64_t       address;

    printf("static const unsigned char registers_fst[] = {");
    if (build(print_array, &column) < 0) return 1;
    printf("\n};      /* %u bytes */\n\n", column);

    if (build(keep, &rom) < 0) return 1;
    o.allocator = kv_arena_init(&arena, memory, sizeof memory);
    o.skip_verify = true;                       /* the linker put it there: nobody else has written to it */
    if (kv_fst_open_memory(&o, kv_buf_slice(&rom), &f) < 0) return 1;
    if (kv_fst_get(f, KV_STR("GPIOB_ODR"), &address) == KV_OK) printf("GPIOB_ODR is at 0x%08lx\n", (unsigned long)address);
    printf("GPIOZ_ODR: %s\n", kv_status_text(kv_fst_get(f, KV_STR("GPIOZ_ODR"), &address)));
    kv_fst_close(f);
    kv_buf_free(&rom);
    return 0;
}
