/* compress_dictionary.c - small records that resemble each other: a dictionary holds what they share */
#define KV_COMPRESS_IMPLEMENTATION
#include "../kv_compress.h"
#include <stdio.h>

#define RECORDS 2000
static char     bytes[RECORDS][160];
static kv_slice records[RECORDS];

static size_t packed_bytes(kv_compressor *c, size_t from)
{
    kv_buf packed = {0};
    size_t sum = 0;
    for (size_t i = from; i < RECORDS; i++) if (kv_compress(c, records[i], &packed) == KV_OK) sum += packed.size;
    kv_buf_free(&packed);
    return sum;
}

int main(void)
{
    kv_compress_options options = {0};
    kv_compressor      *plain, *with;
    kv_buf              dictionary = {0}, packed = {0}, back = {0};
    size_t              raw = 0, alone, shared;
    for (size_t i = 0; i < RECORDS; i++) {
        unsigned n = (unsigned)i * 2654435761u;
        int size = snprintf(bytes[i], sizeof bytes[i], "{\"order\": %u, \"customer\": \"c%u\", \"status\": \"%s\", \"currency\": \"EUR\", \"total\": %u.%02u}",
                            n % 100000, n >> 20, n & 1024 ? "shipped" : "open", (n >> 8) % 500, (n >> 4) % 100);
        records[i] = kv_bytes(bytes[i], (size_t)size);
    }

    /* train on one half, measure on the other */
    if (kv_compress_train(records, RECORDS / 2, 4096, &dictionary) < 0) return 1;
    options.codec = KV_CODEC_ZSTD;
    if (kv_compressor_open(&options, &plain) < 0) return 1;
    options.dictionary = kv_buf_slice(&dictionary);
    if (kv_compressor_open(&options, &with) < 0) return 1;
    for (size_t i = RECORDS / 2; i < RECORDS; i++) raw += records[i].size;
    alone = packed_bytes(plain, RECORDS / 2);
    shared = packed_bytes(with, RECORDS / 2);
    printf("a dictionary of at most 4096 bytes packs the records to less than half of what zstd alone makes: %s\n", shared * 2 < alone ? "yes" : "no");
    printf("and to less than half of their size: %s\n", shared * 2 < raw ? "yes" : "no");

    /* keep the dictionary as long as the values */
    if (kv_compress(with, records[0], &packed) < 0) return 1;
    if (kv_decompress(with, kv_buf_slice(&packed), &back) == KV_OK) printf("read with it: %.*s\n", (int)back.size, (const char *)back.data);
    if (kv_decompress(plain, kv_buf_slice(&packed), &back) < 0) printf("read without it: %s\n", kv_compressor_last_error(plain));

    kv_buf_free(&dictionary);
    kv_buf_free(&packed);
    kv_buf_free(&back);
    kv_compressor_close(plain);
    kv_compressor_close(with);
    return 0;
}
