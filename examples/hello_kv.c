/* hello_kv.c - slices, buffers and typed values: what every kv header shares */
#define KV_CORE_IMPLEMENTATION
#include "../kv.h"
#include <stdio.h>

static void print(kv_slice s) { printf("\"%.*s\"", (int)s.size, (const char *)s.data); }

int main(void)
{
    kv_slice a = KV_STR("apple"), b = kv_cstr("apple pie");
    kv_buf   text = {0};
    kv_value v;

    /* keys are bytes, compared as memcmp and then shorter first */
    print(a); printf(kv_compare(a, b) < 0 ? " comes before " : " comes after "); print(b);
    printf(kv_has_prefix(b, a) ? ", which begins with it\n" : "\n");

    /* a kv_buf grows; results of every store go into one */
    if (kv_buf_assign(&text, a) < 0 || kv_buf_append(&text, KV_STR(" and pear")) < 0) return 1;
    print(kv_buf_slice(&text)); printf(" is %zu bytes\n", text.size);

    /* a typed value is one byte of type and then its bytes, so any store can hold it */
    v.type = KV_INT64;
    v.as.int64 = -42;
    if (kv_value_encode(&v, &text) < 0 || kv_value_decode(kv_buf_slice(&text), &v) < 0) return 1;
    printf("%d comes back from %zu bytes\n", (int)v.as.int64, text.size);

    /* every call answers with a status: negative is a failure, and has a text */
    printf("decoding nothing: %s\n", kv_status_text(kv_value_decode(KV_STR(""), &v)));
    kv_buf_free(&text);
    return 0;
}
