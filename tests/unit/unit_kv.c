/* unit_kv.c
   Goal: what kv.h promises of statuses, slices, buffers and typed values.
   Method: the promises, one by one, with a failing allocator where memory is asked for. */
#define KV_CORE_IMPLEMENTATION
#include "../../kv.h"
#include "../kv_test.h"

TEST(status, every_one_has_a_text_and_so_has_any_other_number)
{
    for (int s = -14; s <= 4; s++) {
        const char *text = kv_status_text((kv_status)s);
        CHECK(text != NULL && *text);
        CHECK(!strcmp(text, "unknown status") == (s < -13 || s > 3));
        for (int t = -13; t < s && s <= 3; t++) CHECK(strcmp(text, kv_status_text((kv_status)t)) != 0);
    }
    CHECK(!strcmp(kv_status_text((kv_status)-100), "unknown status"));
    CHECK(!strcmp(kv_status_text(KV_NOT_FOUND), "key not found"));
}
TEST_MAIN()
