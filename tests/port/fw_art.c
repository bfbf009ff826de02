/* fw_art.c
   Goal: kv_art.h works in fixed memory on a small core; how much a thousand keys need.
   Method: fill, read, scan both ways, delete, close; the arena must be empty at the end. */
#include "../../kv_art.h"
#include "fw.h"

TEST(fw_art, a_thousand_keys)
{
    kv_art        *a = NULL;
    kv_art_options o;
    kv_iter       *cursor = NULL;
    kv_range       down;
    kv_pair        entry;
    char           key[16];
    uint32_t       i = FW_KEYS;
    memset(&o, 0, sizeof o);
    memset(&down, 0, sizeof down);
    o.allocator = fw_start();
    if (!CHECK_OK(kv_art_open(&o, &a))) return;
    fw_fill(kv_art_store(a));
    fw_read(kv_art_store(a));
    fw_ranges(kv_art_store(a));
    down.reverse = true;
    if (CHECK_OK(kv_art_iter_open(a, &down, &cursor))) {
        for (; kv_iter_valid(cursor); kv_iter_next(cursor)) CHECK_BYTES(kv_iter_key(cursor), fw_key(--i, key));
        CHECK_EQ(i, 0);
        kv_iter_close(cursor);
    }
    CHECK_OK(kv_art_longest_prefix(a, KV_STR("sensor/00123/high"), &entry));
    CHECK_BYTES(entry.key, KV_STR("sensor/00123"));
    CHECK_OK(kv_art_check(a));
    for (i = 0; i < FW_KEYS; i += 2) CHECK_OK(kv_art_delete(a, fw_key(i, key)));
    CHECK_EQ(kv_art_count(a), FW_KEYS / 2);
    CHECK_OK(kv_art_check(a));
    kv_art_close(a);
    fw_report("art");
}
TEST(fw_art, memory_that_is_used_up_is_a_status)
{
    kv_art        *a = NULL;
    kv_art_options o;
    kv_arena       small;
    char           key[16];
    unsigned char  bytes[8];
    kv_slice       value;
    uint32_t       i = 0, k;
    memset(&o, 0, sizeof o);
    o.allocator = kv_arena_init(&small, fw_memory + 1, 12000);
    if (!CHECK_OK(kv_art_open(&o, &a))) return;
    while (i < 100000 && kv_art_set(a, fw_key(i, key), fw_value(i, bytes)) == KV_OK) i++;
    CHECK(i > 20 && i < 1000);
    for (k = 0; k < i; k++) CHECK_OK(kv_art_get(a, fw_key(k, key), &value));
    CHECK_OK(kv_art_check(a));
    kv_art_close(a);
    CHECK_EQ(small.used_bytes, 0);
}
TEST_MAIN()
