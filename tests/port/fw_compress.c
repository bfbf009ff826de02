/* fw_compress.c
   Goal: kv_compress.h packs and unpacks in fixed memory on a small core; how much that needs.
   Method: both codecs that exist there and the filters, values up to 4 KiB, through the arena. */
#include "../../kv_compress.h"
#include "fw.h"

static unsigned char raw[4096];

static void both_ways(kv_codec codec, kv_filter filter, uint32_t element_size, const char *name)
{
    kv_compress_options o;
    kv_compressor      *c = NULL;
    kv_buf              packed, back;
    kv_status           s;
    memset(&o, 0, sizeof o);
    memset(&packed, 0, sizeof packed);
    memset(&back, 0, sizeof back);
    o.allocator = packed.allocator = back.allocator = fw_start();
    o.codec = codec;
    o.filter = filter;
    o.element_size = element_size;
    s = kv_compressor_open(&o, &c);
    if (s == KV_ERR_UNSUPPORTED) { CHECK(codec != KV_CODEC_NONE); printf("SKIP codec %s: not compiled in\n", kv_codec_name(codec)); return; }
    if (!CHECK_OK(s)) return;
    for (size_t size = 0; size <= sizeof raw; size = size * 2 + 1) {
        CHECK_OK(kv_compress(c, kv_bytes(raw, size), &packed));
        CHECK(packed.size <= size + 8);
        CHECK_OK(kv_decompress(c, kv_buf_slice(&packed), &back));
        CHECK_BYTES(kv_buf_slice(&back), kv_bytes(raw, size));
        ((unsigned char *)packed.data)[packed.size / 2] ^= 32;
        CHECK_STATUS(kv_decompress(c, kv_buf_slice(&packed), &back), KV_ERR_CORRUPT);
    }
    kv_buf_free(&packed);
    kv_buf_free(&back);
    kv_compressor_close(c);
    fw_report(name);
}
TEST(fw_compress, values_of_4_kib)
{
    for (uint32_t i = 0; i < sizeof raw; i++) raw[i] = (unsigned char)(i % 4 == 0 ? i / 64 : i % 4);
    both_ways(KV_CODEC_NONE, KV_FILTER_NONE, 1, "compress-none");
    both_ways(KV_CODEC_NONE, KV_FILTER_BF16, 2, "compress-bf16");
    both_ways(KV_CODEC_LZ4, KV_FILTER_NONE, 1, "compress-lz4");
    both_ways(KV_CODEC_LZ4, KV_FILTER_SHUFFLE, 4, "compress-lz4-shuffle");
}
TEST_MAIN()
