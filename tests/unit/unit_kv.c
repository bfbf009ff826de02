/* unit_kv.c
   Goal: what kv.h promises of statuses, slices, buffers, ranges, typed values and texts.
   Method: the promises, one by one, with a failing allocator where memory is asked for. */
#define KV_CORE_IMPLEMENTATION
#include "../../kv.h"
#include "../kv_test.h"

/* ---- statuses, versions, slices ---- */

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

TEST(status, the_numbers_and_the_version_are_those_of_the_contract)
{
    char text[32];
    CHECK(KV_OK == 0 && KV_NOT_FOUND == 1 && KV_EXISTS == 2 && KV_END == 3 && KV_ERR_INVALID == -1 && KV_ERR_NO_MEMORY == -2);
    CHECK(KV_ERR_IO == -3 && KV_ERR_CORRUPT == -4 && KV_ERR_NO_SPACE == -5 && KV_ERR_TOO_LARGE == -6 && KV_ERR_BUSY == -7);
    CHECK(KV_ERR_READ_ONLY == -8 && KV_ERR_UNSUPPORTED == -9 && KV_ERR_VERSION == -10 && KV_ERR_ORDER == -11);
    CHECK(KV_ERR_WRONG_TYPE == -12 && KV_ERR_CONFLICT == -13);
    CHECK(KV_INT64 == 1 && KV_FLOAT64 == 2 && KV_BOOL == 3 && KV_STRING == 4 && KV_BYTES == 5);
    snprintf(text, sizeof text, "%d.%d.%d", KV_VERSION / 10000, KV_VERSION / 100 % 100, KV_VERSION % 100);
    CHECK(!strcmp(text, KV_VERSION_STRING));
    CHECK(KV_KEY_SIZE_MAX == 65535u && KV_VALUE_SIZE_MAX == (1u << 30) - 1);
}

TEST(slice, made_of_bytes_text_and_literals)
{
    static const char text[] = "a\0b";
    CHECK(kv_bytes(text, 3).data == text && kv_bytes(text, 3).size == 3);
    CHECK_EQ(kv_cstr(text).size, 1);
    CHECK_EQ(kv_cstr("").size, 0);
    CHECK_EQ(kv_cstr(NULL).size, 0);
    CHECK_EQ(KV_STR("a\0b").size, 3);
    CHECK_EQ(KV_STR("").size, 0);
    CHECK_BYTES(KV_STR("a\0b"), kv_bytes(text, 3));
}

static int sign(int n) { return (n > 0) - (n < 0); }

TEST(slice, compared_as_unsigned_bytes_and_then_shorter_first)
{
    static const struct { const char *a; size_t a_size; const char *b; size_t b_size; int order; } cases[] = {
        { NULL, 0, NULL, 0, 0 }, { NULL, 0, "", 0, 0 }, { NULL, 0, "\0", 1, -1 }, { "a", 1, "a", 1, 0 }, { "a", 1, "b", 1, -1 },
        { "a", 1, "a\0", 2, -1 }, { "ab", 2, "b", 1, -1 }, { "\x7F", 1, "\x80", 1, -1 }, { "\xFF", 1, "\xFF\xFF", 2, -1 }, { "\xFF", 1, "a", 1, 1 },
        { "a\0c", 3, "a\0b", 3, 1 }
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kv_slice a = kv_bytes(cases[i].a, cases[i].a_size), b = kv_bytes(cases[i].b, cases[i].b_size);
        CHECK_EQ(sign(kv_compare(a, b)), cases[i].order);
        CHECK_EQ(sign(kv_compare(b, a)), -cases[i].order);
        CHECK(kv_equal(a, b) == (cases[i].order == 0));
        CHECK(kv_has_prefix(b, a) == (a.size <= b.size && (a.size == 0 || !memcmp(a.data, b.data, a.size))));
    }
    CHECK(kv_has_prefix(KV_STR("abc"), KV_STR("")) && kv_has_prefix(kv_bytes(NULL, 0), kv_bytes(NULL, 0)));
    CHECK(!kv_has_prefix(KV_STR("ab"), KV_STR("abc")) && !kv_has_prefix(KV_STR("abd"), KV_STR("abc")));
}

TEST(slice, keys_and_values_are_checked_for_size_and_null)
{
    static char key[KV_KEY_SIZE_MAX];
    CHECK_OK(kv_check_key(kv_bytes(NULL, 0)));
    CHECK_OK(kv_check_key(kv_bytes(key, KV_KEY_SIZE_MAX)));
    CHECK_STATUS(kv_check_key(kv_bytes(key, KV_KEY_SIZE_MAX + 1u)), KV_ERR_TOO_LARGE);
    CHECK_STATUS(kv_check_key(kv_bytes(NULL, 1)), KV_ERR_INVALID);
    CHECK_OK(kv_check_value(kv_bytes(NULL, 0)));
    CHECK_OK(kv_check_value(kv_bytes(key, KV_VALUE_SIZE_MAX)));
    CHECK_STATUS(kv_check_value(kv_bytes(key, KV_VALUE_SIZE_MAX + 1u)), KV_ERR_TOO_LARGE);
    CHECK_STATUS(kv_check_value(kv_bytes(NULL, 1)), KV_ERR_INVALID);
}

/* ---- buffers ---- */

TEST(buf, grows_and_keeps_its_memory)
{
    kv_buf b;
    void  *kept;
    memset(&b, 0, sizeof b);
    CHECK_EQ(kv_buf_slice(&b).size, 0);
    CHECK_OK(kv_buf_append(&b, KV_STR("")));
    CHECK_OK(kv_buf_assign(&b, kv_bytes(NULL, 0)));
    CHECK_EQ(b.size, 0);
    for (int i = 0; i < 5000; i++) { char c = (char)('a' + i % 26); CHECK_OK(kv_buf_append(&b, kv_bytes(&c, 1))); }
    CHECK_EQ(b.size, 5000);
    for (int i = 0; i < 5000; i++) if (((const char *)b.data)[i] != (char)('a' + i % 26)) { CHECK(false); break; }
    kept = b.data;
    CHECK_OK(kv_buf_assign(&b, KV_STR("short")));
    CHECK(b.data == kept && b.size == 5 && b.capacity >= 5000);
    CHECK_OK(kv_buf_reserve(&b, 10));
    CHECK_BYTES(kv_buf_slice(&b), KV_STR("short"));
    kv_buf_free(&b);
    CHECK(b.data == NULL && b.size == 0 && b.capacity == 0);
    kv_buf_free(&b);
    CHECK_OK(kv_buf_assign(&b, KV_STR("again")));
    CHECK_BYTES(kv_buf_slice(&b), KV_STR("again"));
    {   /* by more than doubling */
        static char large[10000];
        memset(large, 'L', sizeof large);
        CHECK_OK(kv_buf_append(&b, kv_bytes(large, sizeof large)));
        CHECK(b.size == 10005 && b.capacity >= b.size && ((char *)b.data)[10004] == 'L' && ((char *)b.data)[4] == 'n');
    }
    kv_buf_free(&b);
    kv_buf_free(NULL);
    CHECK_EQ(kv_buf_slice(NULL).size, 0);
}

TEST(buf, takes_bytes_that_lie_in_itself)
{
    test_memory  m;
    kv_buf       b;
    memset(&m, 0, sizeof m);
    memset(&b, 0, sizeof b);
    b.allocator = test_allocator(&m);               /* moves at every growth */
    CHECK_OK(kv_buf_assign(&b, KV_STR("0123456789")));
    CHECK_OK(kv_buf_append(&b, kv_buf_slice(&b)));
    CHECK_BYTES(kv_buf_slice(&b), KV_STR("01234567890123456789"));
    for (int i = 0; i < 6; i++) CHECK_OK(kv_buf_append(&b, kv_buf_slice(&b)));
    CHECK_EQ(b.size, 20 * 64);
    CHECK_OK(kv_buf_assign(&b, kv_bytes((char *)b.data + 3, 4)));
    CHECK_BYTES(kv_buf_slice(&b), KV_STR("3456"));
    CHECK_OK(kv_buf_assign(&b, kv_buf_slice(&b)));
    CHECK_BYTES(kv_buf_slice(&b), KV_STR("3456"));
    memset(b.data, 'x', b.capacity);
    b.size = 4;
    CHECK_OK(kv_buf_append(&b, kv_bytes((char *)b.data + 1, b.capacity - 1)));      /* longer than what counts */
    kv_buf_free(&b);
    CHECK_EQ(m.live_blocks, 0);
}

TEST(buf, fixed_ones_say_what_they_would_need)
{
    char   memory[8];
    kv_buf b = kv_buf_fixed(memory, sizeof memory), none = kv_buf_fixed(NULL, 5);
    CHECK_OK(kv_buf_assign(&b, KV_STR("12345678")));
    CHECK(b.data == memory);
    CHECK_STATUS(kv_buf_assign(&b, KV_STR("123456789")), KV_ERR_TOO_LARGE);
    CHECK_EQ(b.size, 9);
    CHECK(b.data == memory && b.capacity == 8);
    CHECK_OK(kv_buf_assign(&b, KV_STR("123456")));
    CHECK_STATUS(kv_buf_append(&b, KV_STR("abc")), KV_ERR_TOO_LARGE);
    CHECK_EQ(b.size, 9);
    CHECK_STATUS(kv_buf_reserve(&b, 100), KV_ERR_TOO_LARGE);
    CHECK_EQ(b.size, 100);
    kv_buf_free(&b);
    CHECK(b.data == memory && b.size == 0 && b.capacity == 8 && b.fixed);
    CHECK_OK(kv_buf_append(&b, KV_STR("ok")));
    CHECK_BYTES(kv_buf_slice(&b), KV_STR("ok"));
    CHECK_OK(kv_buf_assign(&none, KV_STR("")));
    CHECK_STATUS(kv_buf_assign(&none, KV_STR("x")), KV_ERR_TOO_LARGE);
    CHECK_EQ(none.size, 1);
}

TEST(buf, without_memory_it_stays_as_it_was)
{
    test_memory m;
    kv_buf      b;
    char        large[300];
    memset(&m, 0, sizeof m);
    memset(&b, 0, sizeof b);
    memset(large, 'x', sizeof large);
    b.allocator = test_allocator(&m);
    m.fail_at = 1;
    CHECK_STATUS(kv_buf_assign(&b, KV_STR("x")), KV_ERR_NO_MEMORY);
    CHECK(b.data == NULL && b.size == 0 && b.capacity == 0);
    CHECK_OK(kv_buf_assign(&b, KV_STR("kept")));
    m.fail_at = m.calls + 1;
    CHECK_STATUS(kv_buf_append(&b, kv_bytes(large, sizeof large)), KV_ERR_NO_MEMORY);
    CHECK_BYTES(kv_buf_slice(&b), KV_STR("kept"));
    m.fail_at = m.calls + 1;
    CHECK_STATUS(kv_buf_assign(&b, kv_bytes(large, sizeof large)), KV_ERR_NO_MEMORY);
    CHECK_BYTES(kv_buf_slice(&b), KV_STR("kept"));
    m.fail_at = m.calls + 1;
    CHECK_STATUS(kv_buf_reserve(&b, 1000), KV_ERR_NO_MEMORY);
    CHECK_BYTES(kv_buf_slice(&b), KV_STR("kept"));
    m.fail_at = 0;
    CHECK_STATUS(kv_buf_append(&b, kv_bytes(large, SIZE_MAX - 2)), KV_ERR_NO_MEMORY);      /* the sum overflows */
    CHECK_STATUS(kv_buf_append(&b, kv_bytes(NULL, 1)), KV_ERR_INVALID);
    CHECK_STATUS(kv_buf_assign(&b, kv_bytes(NULL, 1)), KV_ERR_INVALID);
    CHECK_STATUS(kv_buf_append(NULL, KV_STR("x")), KV_ERR_INVALID);
    CHECK_STATUS(kv_buf_assign(NULL, KV_STR("x")), KV_ERR_INVALID);
    CHECK_STATUS(kv_buf_reserve(NULL, 1), KV_ERR_INVALID);
    CHECK_BYTES(kv_buf_slice(&b), KV_STR("kept"));
    kv_buf_free(&b);
    CHECK_EQ(m.live_bytes, 0);
}

/* ---- ranges ---- */

TEST(range, has_what_prefix_from_and_to_leave)
{
    static const char *const keys[] = { "", "a", "a\xFF", "ab", "abc", "abd", "b", "\xFF", "\xFF\xFF", "\xFF\xFFz" };
    static const char *const ends[] = { NULL, "", "a", "ab", "abc", "b", "\xFF", "\xFF\xFF" };
    const size_t end_count = sizeof ends / sizeof *ends;
    uint8_t memory[8];
    CHECK(kv_range_has(NULL, KV_STR("any")));
    for (size_t p = 0; p < end_count; p++)
        for (size_t f = 0; f < end_count; f++)
            for (size_t t = 0; t < end_count; t++) {
                kv_range   r;
                kvi_bounds bounds;
                memset(&r, 0, sizeof r);
                r.prefix = kv_cstr(ends[p]); r.from = kv_cstr(ends[f]); r.to = kv_cstr(ends[t]);
                CHECK(kvi_bounds_memory(&r) <= sizeof memory);
                bounds = kvi_bounds_of(&r, memory);
                for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
                    kv_slice key = kv_cstr(keys[k]);
                    bool wanted = (!ends[p] || kv_has_prefix(key, r.prefix)) && (!ends[f] || strcmp(keys[k], ends[f]) >= 0) && (!ends[t] || strcmp(keys[k], ends[t]) < 0);
                    bool inside = !bounds.empty && kv_compare(bounds.lower, key) <= 0 && (!bounds.has_upper || kv_compare(key, bounds.upper) < 0);
                    CHECK_EQ(kv_range_has(&r, key), wanted);
                    CHECK_EQ(inside, wanted);
                }
            }
}

/* ---- typed values ---- */

static kv_value value_of(kv_type type) { kv_value v; memset(&v, 0, sizeof v); v.type = type; return v; }

TEST(typed, numbers_come_back_bit_for_bit)
{
    static const int64_t  integers[] = { 0, 1, -1, 255, 256, INT64_MAX, INT64_MIN, INT64_C(0x0102030405060708) };
    static const uint64_t doubles[] = { 0, UINT64_C(0x8000000000000000), UINT64_C(0x3FF0000000000000), UINT64_C(0x7FF0000000000000),
                                        UINT64_C(0xFFF0000000000000), UINT64_C(0x7FF8000000000001), 1, UINT64_C(0x7FEFFFFFFFFFFFFF) };
    kv_buf   b;
    kv_value v, back;
    memset(&b, 0, sizeof b);
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        v = value_of(KV_INT64);
        v.as.int64 = integers[i];
        CHECK_OK(kv_value_encode(&v, &b));
        CHECK_EQ(b.size, 9);
        CHECK_OK(kv_value_decode(kv_buf_slice(&b), &back));
        CHECK(back.type == KV_INT64 && back.as.int64 == integers[i]);
    }
    CHECK_BYTES(kv_buf_slice(&b), KV_STR("\1\x08\7\6\5\4\3\2\1"));          /* little-endian, whatever the machine */
    for (size_t i = 0; i < sizeof doubles / sizeof *doubles; i++) {
        uint64_t bits;
        v = value_of(KV_FLOAT64);
        memcpy(&v.as.float64, &doubles[i], 8);
        CHECK_OK(kv_value_encode(&v, &b));
        CHECK_EQ(b.size, 9);
        CHECK_OK(kv_value_decode(kv_buf_slice(&b), &back));
        memcpy(&bits, &back.as.float64, 8);
        CHECK(back.type == KV_FLOAT64 && bits == doubles[i]);
    }
    for (int truth = 0; truth < 2; truth++) {
        v = value_of(KV_BOOL);
        v.as.boolean = truth != 0;
        CHECK_OK(kv_value_encode(&v, &b));
        CHECK_BYTES(kv_buf_slice(&b), truth ? KV_STR("\3\1") : KV_STR("\3\0"));
        CHECK_OK(kv_value_decode(kv_buf_slice(&b), &back));
        CHECK(back.type == KV_BOOL && back.as.boolean == (truth != 0));
    }
    kv_buf_free(&b);
}

TEST(typed, bytes_come_back_and_point_into_the_encoding)
{
    static const kv_type types[] = { KV_STRING, KV_BYTES };
    kv_buf   b;
    kv_value v, back;
    memset(&b, 0, sizeof b);
    for (size_t i = 0; i < 2; i++) {
        v = value_of(types[i]);
        v.as.bytes = KV_STR("x\0y");
        CHECK_OK(kv_value_encode(&v, &b));
        CHECK_EQ(b.size, 4);
        CHECK_OK(kv_value_decode(kv_buf_slice(&b), &back));
        CHECK(back.type == types[i] && back.as.bytes.data == (char *)b.data + 1);
        CHECK_BYTES(back.as.bytes, KV_STR("x\0y"));
        v.as.bytes = kv_bytes(NULL, 0);
        CHECK_OK(kv_value_encode(&v, &b));
        CHECK_EQ(b.size, 1);
        CHECK_OK(kv_value_decode(kv_buf_slice(&b), &back));
        CHECK_EQ(back.as.bytes.size, 0);
    }
    v = value_of(KV_STRING);                        /* the bytes may lie in the output */
    CHECK_OK(kv_buf_assign(&b, KV_STR("0123456789")));
    v.as.bytes = kv_bytes((char *)b.data + 2, 5);
    CHECK_OK(kv_value_encode(&v, &b));
    CHECK_BYTES(kv_buf_slice(&b), KV_STR("\4" "23456"));
    kv_buf_free(&b);
}

TEST(typed, everything_else_is_corrupt)
{
    uint8_t  bytes[12];
    kv_value v;
    memset(bytes, 0, sizeof bytes);
    for (int type = 0; type < 256; type++)
        for (size_t size = 0; size <= sizeof bytes; size++) {
            bool good = size && (((type == 1 || type == 2) && size == 9) || (type == 3 && size == 2) || ((type == 4 || type == 5) && size >= 1));
            bytes[0] = (uint8_t)type;
            memset(&v, 0x5A, sizeof v);
            CHECK_STATUS(kv_value_decode(kv_bytes(bytes, size), &v), good ? KV_OK : KV_ERR_CORRUPT);
            if (!good) for (size_t i = 0; i < sizeof v; i++) if (((uint8_t *)&v)[i] != 0x5A) { CHECK(!"v was changed"); break; }
        }
    for (int truth = 2; truth < 256; truth++) {
        bytes[0] = 3; bytes[1] = (uint8_t)truth;
        CHECK_STATUS(kv_value_decode(kv_bytes(bytes, 2), &v), KV_ERR_CORRUPT);
    }
    CHECK_STATUS(kv_value_decode(kv_bytes(NULL, 3), &v), KV_ERR_INVALID);
    CHECK_STATUS(kv_value_decode(kv_bytes(bytes, 2), NULL), KV_ERR_INVALID);
}

TEST(typed, encode_refuses_what_it_cannot_say)
{
    kv_buf      b;
    kv_value    v = value_of((kv_type)0);
    test_memory m;
    memset(&m, 0, sizeof m);
    memset(&b, 0, sizeof b);
    b.allocator = test_allocator(&m);
    CHECK_OK(kv_buf_assign(&b, KV_STR("kept")));
    CHECK_STATUS(kv_value_encode(&v, &b), KV_ERR_INVALID);
    v.type = (kv_type)6;
    CHECK_STATUS(kv_value_encode(&v, &b), KV_ERR_INVALID);
    v = value_of(KV_BYTES);
    v.as.bytes = kv_bytes(NULL, 1);
    CHECK_STATUS(kv_value_encode(&v, &b), KV_ERR_INVALID);
    v.as.bytes = kv_bytes("x", KV_VALUE_SIZE_MAX);
    CHECK_STATUS(kv_value_encode(&v, &b), KV_ERR_TOO_LARGE);
    v.as.bytes = kv_bytes(b.data, 4);
    CHECK_STATUS(kv_value_encode(NULL, &b), KV_ERR_INVALID);
    CHECK_STATUS(kv_value_encode(&v, NULL), KV_ERR_INVALID);
    m.fail_at = m.calls + 1;
    m.fail_after = true;
    CHECK_STATUS(kv_value_encode(&v, &b), KV_ERR_NO_MEMORY);
    CHECK_BYTES(kv_buf_slice(&b), KV_STR("kept"));
    kv_buf_free(&b);
    CHECK_EQ(m.live_bytes, 0);
}

/* ---- texts ---- */

TEST(text, is_cut_off_and_always_ends)
{
    char     out[8];
    kvi_text t = kvi_text_over(out, sizeof out);
    memset(out + 1, '?', sizeof out - 1);
    CHECK(!strcmp(out, ""));
    kvi_text_add(&t, "abc");
    kvi_text_u64(&t, 1234567890);
    CHECK(!strcmp(out, "abc1234"));
    t = kvi_text_over(out, 0);
    kvi_text_add(&t, "x");
    CHECK(!strcmp(out, "abc1234"));
}
TEST(text, numbers_and_keys)
{
    char     out[400];
    kvi_text t = kvi_text_over(out, sizeof out);
    char     longest[60];
    kvi_text_u64(&t, 0); kvi_text_char(&t, ' '); kvi_text_u64(&t, UINT64_MAX); kvi_text_char(&t, ' ');
    kvi_text_i64(&t, INT64_MIN); kvi_text_char(&t, ' '); kvi_text_i64(&t, 17); kvi_text_char(&t, ' '); kvi_text_hex(&t, 0xBEEF, 6);
    CHECK(!strcmp(out, "0 18446744073709551615 -9223372036854775808 17 00beef"));
    t = kvi_text_over(out, sizeof out);
    kvi_text_key(&t, KV_STR("a \"b\\\0\x7F\xFF~"));
    CHECK(!strcmp(out, "\"a \\x22b\\x5c\\x00\\x7f\\xff~\""));
    memset(longest, 'k', sizeof longest);
    t = kvi_text_over(out, sizeof out);
    kvi_text_key(&t, kv_bytes(longest, 49));
    CHECK_EQ(t.size, 48 + 2 + strlen("... (49 bytes)"));
    t = kvi_text_over(out, sizeof out);
    kvi_text_key(&t, kv_bytes(NULL, 0));
    CHECK(!strcmp(out, "\"\""));
}
TEST(text, last_error_keeps_the_newest_and_a_reader_keeps_his)
{
    kvi_error   e;
    const char *first;
    memset(&e, 0, sizeof e);
    CHECK(!strcmp(kvi_error_text(&e), ""));
    CHECK_STATUS(kvi_error_set(&e, KV_ERR_IO, "disk 1"), KV_ERR_IO);
    first = kvi_error_text(&e);
    CHECK(!strcmp(first, "disk 1"));
    CHECK_STATUS(kvi_error_set(&e, KV_ERR_CORRUPT, NULL), KV_ERR_CORRUPT);
    CHECK(!strcmp(kvi_error_text(&e), kv_status_text(KV_ERR_CORRUPT)));
    kvi_error_set(&e, KV_ERR_IO, "disk 3");
    CHECK(!strcmp(first, "disk 1"));                /* three more may come before it is written over */
    CHECK(!strcmp(kvi_error_text(&e), "disk 3"));
}

/* ---- small things that everybody leans on ---- */

TEST(bits, loads_stores_and_bit_positions)
{
    uint8_t bytes[9] = { 0xEE, 1, 2, 3, 4, 5, 6, 7, 0x88 };
    CHECK_EQ(kvi_load_le16(bytes + 1), 0x0201);
    CHECK_EQ(kvi_load_le32(bytes + 1), 0x04030201);
    CHECK(kvi_load_le64(bytes + 1) == UINT64_C(0x8807060504030201));
    kvi_store_le64(bytes + 1, UINT64_C(0x1122334455667788));
    CHECK(bytes[1] == 0x88 && bytes[8] == 0x11 && bytes[0] == 0xEE);
    kvi_store_le32(bytes + 3, 0xA0B0C0D0u);
    CHECK(bytes[3] == 0xD0 && bytes[6] == 0xA0 && bytes[7] == 0x22);
    kvi_store_le16(bytes, 0x1234);
    CHECK(bytes[0] == 0x34 && bytes[1] == 0x12 && bytes[2] == 0x77);
    for (uint32_t bit = 0; bit < 64; bit++) {
        uint64_t one = UINT64_C(1) << bit;
        CHECK_EQ(kvi_lowest_bit64(one), bit);
        CHECK_EQ(kvi_highest_bit64(one), bit);
        CHECK_EQ(kvi_lowest_bit64(~UINT64_C(0) << bit), bit);
        CHECK_EQ(kvi_highest_bit64(one | 1), bit);
        if (bit < 32) { CHECK_EQ(kvi_lowest_bit32((uint32_t)one), bit); CHECK_EQ(kvi_highest_bit32((uint32_t)one | 1), bit); }
    }
}

TEST_MAIN()
