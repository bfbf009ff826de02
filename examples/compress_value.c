/* compress_value.c - single values: pack, read back, and what happens to a damaged one */
#define KV_COMPRESS_IMPLEMENTATION
#include "../kv_compress.h"
#include <stdio.h>

static void show(kv_compressor *c, const char *what, kv_slice value)
{
    kv_buf packed = {0}, back = {0};
    if (kv_compress(c, value, &packed) < 0 || kv_decompress(c, kv_buf_slice(&packed), &back) < 0) { printf("%s: %s\n", what, kv_compressor_last_error(c)); return; }
    printf("%-18s %6zu bytes, %s, %s\n", what, value.size, packed.size < value.size / 2 ? "less than half of that packed" : "stored as it is",
           kv_equal(kv_buf_slice(&back), value) ? "comes back" : "is lost");

    ((char *)packed.data)[packed.size / 2] ^= 1;    /* a bit flips on the disk */
    if (kv_decompress(c, kv_buf_slice(&packed), &back) < 0) printf("%-18s one bit flipped: %s\n", "", kv_compressor_last_error(c));
    kv_buf_free(&packed);
    kv_buf_free(&back);
}

int main(void)
{
    kv_compress_options options = {0};
    kv_compressor      *c;
    char                text[5000];
    unsigned char       noise[1000];
    unsigned            state = 1;
    for (size_t i = 0; i < sizeof text; i++) text[i] = "All work and no play makes Jack a dull boy. "[i % 44];
    for (size_t i = 0; i < sizeof noise; i++) { state = state * 1664525u + 1013904223u; noise[i] = (unsigned char)(state >> 24); }

    options.codec = KV_CODEC_ZSTD;                  /* the default is LZ4 */
    options.level = 9;
    if (kv_compressor_open(&options, &c) < 0) return 1;
    show(c, "text", kv_bytes(text, sizeof text));
    show(c, "noise", kv_bytes(noise, sizeof noise));
    show(c, "a short value", KV_STR("yes"));
    kv_compressor_close(c);
    return 0;
}
