/* fw.h - for the firmware programs: one block of fixed memory, a thousand keys, and a line that says
   how much of the block a module needed at most. The program is linked with the module as library.c
   compiles it: no malloc, no stdio, no files, no threads. */
#ifndef KV_TEST_FW_H
#define KV_TEST_FW_H

#include "../kv_test.h"

#define FW_KEYS 1000u

static unsigned char fw_memory[1u << 20];
static kv_arena      fw_arena;

static TEST_UNUSED kv_allocator fw_start(void) { return kv_arena_init(&fw_arena, fw_memory, sizeof fw_memory); }

/* key i: 12 bytes of text; its value: 8 bytes */
static TEST_UNUSED kv_slice fw_key(uint32_t i, char *text)
{
    (void)snprintf(text, 16, "sensor/%05u", (unsigned)i);
    return kv_cstr(text);
}
static TEST_UNUSED kv_slice fw_value(uint32_t i, unsigned char *bytes)
{
    for (int b = 0; b < 8; b++) bytes[b] = (unsigned char)((uint64_t)i * 2654435761u >> (8 * b));
    return kv_bytes(bytes, 8);
}
/* Everything that a store promises, with a thousand keys, through its handle. */
static TEST_UNUSED void fw_fill(kv_store *s)
{
    char          key[16];
    unsigned char bytes[8];
    for (uint32_t i = 0; i < FW_KEYS; i++)
        if (!CHECK_OK(kv_set(s, fw_key(i * 7 % FW_KEYS, key), fw_value(i * 7 % FW_KEYS, bytes)))) return;
}
static TEST_UNUSED void fw_read(kv_store *s)
{
    char          key[16];
    unsigned char bytes[8], memory[16];
    kv_buf        value = kv_buf_fixed(memory, sizeof memory);
    for (uint32_t i = 0; i < FW_KEYS; i++) {
        if (!CHECK_OK(kv_get(s, fw_key(i, key), &value))) return;
        CHECK_BYTES(kv_buf_slice(&value), fw_value(i, bytes));
    }
    CHECK_STATUS(kv_get(s, fw_key(FW_KEYS, key), &value), KV_NOT_FOUND);
}
/* what lies in the range, counted and summed in one pass; ordered stores must ascend */
typedef struct fw_seen { uint32_t count; bool sorted; char last[32]; size_t last_size; } fw_seen;
static TEST_UNUSED bool fw_see(void *user, kv_slice key, kv_slice value)
{
    fw_seen *seen = (fw_seen *)user;
    (void)value;
    if (seen->count && kv_compare(kv_bytes(seen->last, seen->last_size), key) >= 0) seen->sorted = false;
    seen->count++;
    seen->last_size = key.size < sizeof seen->last ? key.size : sizeof seen->last;
    memcpy(seen->last, key.data, seen->last_size);
    return true;
}
static TEST_UNUSED void fw_ranges(kv_store *s)
{
    kv_range tens;
    fw_seen  seen;
    memset(&tens, 0, sizeof tens);
    memset(&seen, 0, sizeof seen);
    seen.sorted = true;
    CHECK_OK(kv_scan(s, NULL, fw_see, &seen));
    CHECK_EQ(seen.count, FW_KEYS);
    CHECK(seen.sorted);
    memset(&seen, 0, sizeof seen);
    tens.prefix = KV_STR("sensor/0012");
    CHECK_OK(kv_scan(s, &tens, fw_see, &seen));
    CHECK_EQ(seen.count, 10);
}
static TEST_UNUSED void fw_report(const char *module)
{
    printf("RAM %s %lu\n", module, (unsigned long)fw_arena.peak_bytes);
    CHECK_EQ(fw_arena.used_bytes, 0);           /* all of it was given back */
}
#endif
