/* unit_compress_bare.c
   Goal: with neither library compiled in, kv_compress.h still stores, checks and packs floats, and says
   in words what is missing.
   Method: KV_NO_LZ4 and KV_NO_ZSTD; values that LZ4 and zstd packed elsewhere. */
#ifndef KV_NO_LZ4
#define KV_NO_LZ4
#endif
#ifndef KV_NO_ZSTD
#define KV_NO_ZSTD
#endif
#define KV_COMPRESS_IMPLEMENTATION
#include "../../kv_compress.h"
#include "../ref_store.h"

#if KVI_LZ4 || KVI_ZSTD || defined(LZ4_VERSION_MAJOR) || defined(ZSTD_VERSION_MAJOR)
#error "a library was included"
#endif

TEST(bare, codecs_are_refused_in_words)
{
    kv_compress_options o;
    kv_compressor *c;
    char           text[100];
    kv_buf         dictionary;
    memset(&o, 0, sizeof o);
    memset(&dictionary, 0, sizeof dictionary);
    o.error_text = text;
    o.error_text_size = sizeof text;
    CHECK_STATUS(kv_compressor_open(&o, &c), KV_ERR_UNSUPPORTED);
    CHECK(strstr(text, "lz4 is not compiled in") != NULL);
    o.codec = KV_CODEC_ZSTD;
    CHECK_STATUS(kv_compressor_open(&o, &c), KV_ERR_UNSUPPORTED);
    CHECK(strstr(text, "zstd is not compiled in") != NULL);
    CHECK(!kv_codec_supported(KV_CODEC_LZ4) && !kv_codec_supported(KV_CODEC_ZSTD) && !kv_codec_supported(KV_CODEC_DEFAULT));
    CHECK(kv_codec_supported(KV_CODEC_NONE));
    CHECK_EQ(kv_codec_bound(KV_CODEC_LZ4, 100), 0);
    CHECK_EQ(kv_codec_bound(KV_CODEC_ZSTD, 100), 0);
    CHECK_EQ(kv_codec_bound(KV_CODEC_NONE, 100), 100);
    CHECK_STATUS(kv_compress_train(NULL, 0, 100, &dictionary), KV_ERR_UNSUPPORTED);
}

TEST(bare, values_of_a_missing_codec)
{
    static const uint8_t plain[] = "tick tock tick tock tick tock tick tock tick tock tick tock tick tock";
    kv_compress_options o;
    kv_compressor *c;
    kv_compressed *w;
    ref_store      inner;
    kv_buf         back;
    uint8_t        packed[40];
    memset(&o, 0, sizeof o);
    memset(&back, 0, sizeof back);
    o.codec = KV_CODEC_NONE;
    CHECK_OK(kv_compressor_open(&o, &c));
    for (uint32_t tag = 0x10; tag <= 0x20; tag += 0x10) {
        memset(packed, 0, sizeof packed);
        packed[0] = (uint8_t)tag;
        packed[1] = sizeof plain - 1;
        kvi_packed_seal(packed, 20, 0);
        CHECK_STATUS(kv_decompress(c, kv_bytes(packed, 24), &back), KV_ERR_UNSUPPORTED);
        CHECK(strstr(kv_compressor_last_error(c), tag == 0x10 ? "lz4 is not compiled in" : "zstd is not compiled in") != NULL);
        CHECK_STATUS(kv_codec_unpack(c, tag == 0x10 ? KV_CODEC_LZ4 : KV_CODEC_ZSTD, kv_bytes(packed, 20), packed, 5), KV_ERR_UNSUPPORTED);
    }
    kv_compressor_close(c);

    ref_store_init(&inner);
    CHECK_OK(kv_compressed_open(&inner.store, &o, &w));
    packed[0] = 0x10;
    kvi_packed_seal(packed, 20, 0);
    test_model_set(&inner.model, KV_STR("k"), kv_bytes(packed, 24));
    CHECK_STATUS(kv_get(kv_compressed_store(w), KV_STR("k"), &back), KV_ERR_UNSUPPORTED);
    CHECK(strstr(kv_last_error(kv_compressed_store(w)), "key \"k\": codec lz4 is not compiled in") != NULL);
    kv_compressed_close(w);
    CHECK_OK(kv_close(&inner.store));
    kv_buf_free(&back);
}

TEST(bare, stores_and_packs_floats)
{
    static uint8_t raw[9001];
    kv_compress_options o;
    kv_buf packed, back;
    memset(&o, 0, sizeof o);
    memset(&packed, 0, sizeof packed);
    memset(&back, 0, sizeof back);
    o.codec = KV_CODEC_NONE;
    for (size_t i = 0; i < sizeof raw; i++) raw[i] = i % 2 ? (uint8_t)(0x3E + i % 3) : (uint8_t)(i * 77);
    for (int filter = KV_FILTER_NONE; filter <= KV_FILTER_AUTO; filter++) {
        kv_compressor *c;
        size_t         size = 0;
        o.filter = (kv_filter)filter;
        CHECK_OK(kv_compressor_open(&o, &c));
        CHECK_OK(kv_compress(c, kv_bytes(raw, sizeof raw), &packed));
        CHECK_OK(kv_decompress(c, kv_buf_slice(&packed), &back));
        CHECK(kv_equal(kv_buf_slice(&back), kv_bytes(raw, sizeof raw)));
        if (filter == KV_FILTER_BF16 || filter == KV_FILTER_AUTO) CHECK(packed.size < sizeof raw * 3 / 4);
        if (filter <= KV_FILTER_BITSHUFFLE) CHECK_EQ(packed.size, sizeof raw + 5);
        CHECK_OK(kv_codec_pack(c, kv_bytes(raw, 100), packed.data, 100, &size));
        CHECK_EQ(size, 100);
        kv_compressor_close(c);
    }
    kv_buf_free(&packed);
    kv_buf_free(&back);
}

TEST_MAIN()
