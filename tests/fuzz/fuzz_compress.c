/* fuzz_compress.c
   Goal: kv_decompress and kv_codec_unpack take any bytes: right, or refused, and never a byte beyond the
   buffers; kv_compress packs any bytes with any options so that they come back, in at most 8 bytes more.
   Method: the first byte chooses. Unpack: the input as it is; the input behind each tag with a right
   checksum, with and without the dictionary; the input as a bare block; pieces of it, written to a store,
   through a wrapper around it. Pack: the input tells codec, filter, level, element size and value, which
   is repeated to reach the sizes where chunks end; what was packed is read back by the same compressor and
   by one with other options, and refused after a flip. */
#define KV_COMPRESS_IMPLEMENTATION
#include "../../kv_compress.h"
#include "../ref_store.h"
#include "fuzz_main.h"

static const char fuzz_dictionary[] = "{\"id\": , \"name\": \"\", \"tags\": [\"new\"], \"at\": \"2026-01-01T00:00:00Z\"} GET /index.html HTTP/1.1";
#define FUZZ_SIZE_MAX ((size_t)1 << 20)

static kv_compressor *fuzz_open(kv_codec codec, kv_filter filter, uint32_t element_size, int level, bool dictionary)
{
    kv_compress_options o;
    kv_compressor      *c = NULL;
    memset(&o, 0, sizeof o);
    o.codec = codec;
    o.filter = filter;
    o.element_size = element_size;
    o.level = level;
    o.size_max = FUZZ_SIZE_MAX;
    o.size_min = KV_NONE;
    if (dictionary) o.dictionary = kv_bytes(fuzz_dictionary, sizeof fuzz_dictionary - 1);
    FUZZ_CHECK(kv_compressor_open(&o, &c) == KV_OK);
    return c;
}

/* These two are open for good: opening costs more than unpacking. */
static kv_compressor *fuzz_reader(bool dictionary)
{
    static kv_compressor *readers[2];
    if (!readers[dictionary]) readers[dictionary] = fuzz_open(KV_CODEC_ZSTD, KV_FILTER_NONE, 1, 0, dictionary);
    return readers[dictionary];
}

static void fuzz_unpack(kv_compressor *c, kv_slice packed)
{
    kv_buf    raw;
    kv_status s;
    memset(&raw, 0, sizeof raw);
    s = kv_decompress(c, packed, &raw);
    FUZZ_CHECK(s == KV_OK || s == KV_ERR_CORRUPT || s == KV_ERR_TOO_LARGE || s == KV_ERR_VERSION);
    FUZZ_CHECK(s == KV_OK ? raw.size <= FUZZ_SIZE_MAX : raw.size == 0);
    kv_buf_free(&raw);
}

/* A tag, a size, then the input, and a checksum that is right. To be freed. */
static kv_slice fuzz_seal(fuzz_input in, bool *with_dictionary)
{
    uint8_t  tag = fuzz_take(&in), header[8];
    size_t   raw_size = (size_t)fuzz_take_bits(&in, 3) % (FUZZ_SIZE_MAX + 2), size = 1;
    bool     dictionary = *with_dictionary = (tag & KVI_PACKED_DICTIONARY) != 0;
    uint8_t *packed;
    header[0] = tag;
    if (tag) size += kvi_packed_put_size(header + 1, raw_size);
    packed = (uint8_t *)malloc(size + in.size + KVI_PACKED_CHECKSUM_BYTES);
    if (!packed) abort();
    memcpy(packed, header, size);
    kvi_copy(packed + size, in.data, in.size);
    size += in.size;
    kvi_packed_seal(packed, size, dictionary ? kv_hash(kv_bytes(fuzz_dictionary, sizeof fuzz_dictionary - 1), 0) : 0);
    return kv_bytes(packed, size + KVI_PACKED_CHECKSUM_BYTES);
}
static void fuzz_unpack_sealed(fuzz_input in)
{
    bool     dictionary;
    kv_slice packed = fuzz_seal(in, &dictionary);
    fuzz_unpack(fuzz_reader(dictionary), packed);
    free((void *)(uintptr_t)packed.data);
}

/* A wrapper over a store whose values somebody else wrote: all of the calls that unpack. */
static volatile uint8_t fuzz_sink;
static bool fuzz_entry(void *user, kv_slice key, kv_slice value)
{
    uint8_t all = 0;
    for (size_t i = 0; i < value.size; i++) all = (uint8_t)(all ^ ((const uint8_t *)value.data)[i]);     /* each byte is there */
    FUZZ_CHECK(key.size == 1 && value.size <= FUZZ_SIZE_MAX);
    fuzz_sink = all;
    ++*(size_t *)user;
    return true;
}
static bool fuzz_clean(kv_status s) { return s == KV_OK || s == KV_ERR_CORRUPT || s == KV_ERR_TOO_LARGE || s == KV_ERR_VERSION; }
/* Entry `k`: given through the wrapper, or to the store inside, as it is or with a right checksum. */
static void fuzz_store_entry(kv_store *inner, kv_store *s, kv_slice key, fuzz_input *in)
{
    uint8_t    how = fuzz_take(in);
    bool       dictionary;
    fuzz_input part;
    kv_slice   sealed, bytes;
    kv_buf     raw;
    memset(&raw, 0, sizeof raw);
    part.data = fuzz_take_slice(in, 2000, &part.size);
    bytes = kv_bytes(part.data, part.size);
    sealed = fuzz_seal(part, &dictionary);
    if (how % 4) FUZZ_CHECK(kv_set(inner, key, how % 4 == 1 ? bytes : sealed) == KV_OK);
    else {
        FUZZ_CHECK(kv_set(s, key, bytes) == KV_OK);
        FUZZ_CHECK(kv_get(s, key, &raw) == KV_OK && kv_equal(kv_buf_slice(&raw), bytes));
    }
    free((void *)(uintptr_t)sealed.data);
    kv_buf_free(&raw);
}
static void fuzz_store(fuzz_input in)
{
    ref_store           inner;
    kv_compress_options o;
    kv_compressed      *c;
    kv_store           *s;
    kv_iter            *i;
    kv_buf              values[4];
    kv_slice            keys[4];
    kv_status           statuses[4];
    uint64_t            count;
    size_t              seen = 0, good = 0;
    memset(&o, 0, sizeof o);
    memset(values, 0, sizeof values);
    o.size_max = FUZZ_SIZE_MAX;
    ref_store_init(&inner);
    FUZZ_CHECK(kv_compressed_open(&inner.store, &o, &c) == KV_OK);
    s = kv_compressed_store(c);
    for (size_t k = 0; k < 4; k++) {
        keys[k] = kv_bytes(&"abcd"[k], 1);
        fuzz_store_entry(&inner.store, s, keys[k], &in);
        statuses[k] = kv_get(s, keys[k], &values[k]);
        FUZZ_CHECK(fuzz_clean(statuses[k]) && kv_exists(s, keys[k]) == KV_OK && kv_view(s, keys[k], fuzz_entry, &seen) == statuses[k]);
        good += statuses[k] == KV_OK;
    }
    FUZZ_CHECK(seen == good && kv_count(s, NULL, &count) == KV_OK && count == 4);
    seen = 0;
    FUZZ_CHECK((kv_scan(s, NULL, fuzz_entry, &seen) == KV_OK) == (good == 4) && seen <= good);
    FUZZ_CHECK((kv_batch_get(s, keys, 4, values, statuses) == KV_OK) == (good == 4));
    FUZZ_CHECK(kv_iter_open(s, NULL, &i) == KV_OK);
    for (kv_iter_last(i); kv_iter_valid(i); kv_iter_prev(i)) FUZZ_CHECK(kv_iter_value(i).size <= FUZZ_SIZE_MAX);
    FUZZ_CHECK(fuzz_clean(kv_iter_status(i)));
    kv_iter_close(i);
    kv_compressed_close(c);
    FUZZ_CHECK(kv_close(&inner.store) == KV_OK && test_failed_checks == 0);
    for (size_t k = 0; k < 4; k++) kv_buf_free(&values[k]);
}

static void fuzz_unpack_block(fuzz_input in)
{
    kv_codec  codec = (kv_codec)(KV_CODEC_NONE + fuzz_take(&in) % 3);
    size_t    raw_size = (size_t)fuzz_take_bits(&in, 3) % 100000;
    uint8_t  *out = (uint8_t *)malloc(raw_size + 1);
    kv_status s;
    if (!out) abort();
    out[raw_size] = 0xA7;
    s = kv_codec_unpack(fuzz_reader(false), codec, kv_bytes(in.data, in.size), out, raw_size);
    FUZZ_CHECK(s == KV_OK || s == KV_ERR_CORRUPT);
    FUZZ_CHECK(out[raw_size] == 0xA7);
    free(out);
}

static void fuzz_pack(fuzz_input in)
{
    kv_codec  codec = (kv_codec)(KV_CODEC_NONE + fuzz_take(&in) % 3);
    kv_filter filter = (kv_filter)(fuzz_take(&in) % 7);
    uint32_t  element_size = 1u << fuzz_take(&in) % 4;
    int       level = (int)(fuzz_take(&in) % 20) - 7;
    bool      dictionary = fuzz_take(&in) % 4 == 0;
    size_t    size = in.size + (fuzz_take(&in) % 16 == 0 && in.size ? (size_t)fuzz_take_bits(&in, 3) % 600000 : 0), flip;
    uint8_t  *value = (uint8_t *)malloc(size + 1);
    kv_compressor *c = fuzz_open(codec, filter, filter == KV_FILTER_AUTO && element_size == 1 ? 0 : element_size, codec == KV_CODEC_NONE ? 0 : level, dictionary);
    kv_buf    packed, raw;
    if (!value) abort();
    memset(&packed, 0, sizeof packed);
    memset(&raw, 0, sizeof raw);
    for (size_t i = 0; i < size; i++) value[i] = in.size ? (uint8_t)(in.data[i % in.size] + i / in.size) : 0;
    FUZZ_CHECK(kv_compress(c, kv_bytes(value, size), &packed) == KV_OK);
    FUZZ_CHECK(packed.size <= size + 8);
    FUZZ_CHECK(kv_decompress(c, kv_buf_slice(&packed), &raw) == KV_OK);
    FUZZ_CHECK(kv_equal(kv_buf_slice(&raw), kv_bytes(value, size)));
    raw.size = 0;
    FUZZ_CHECK(kv_decompress(fuzz_reader(dictionary), kv_buf_slice(&packed), &raw) == KV_OK);
    FUZZ_CHECK(kv_equal(kv_buf_slice(&raw), kv_bytes(value, size)));
    flip = packed.size * (size_t)(size % 97) / 97;
    ((uint8_t *)packed.data)[flip] ^= (uint8_t)(1u << size % 8);
    FUZZ_CHECK(kv_decompress(c, kv_buf_slice(&packed), &raw) == KV_ERR_CORRUPT);
    kv_buf_free(&packed);
    kv_buf_free(&raw);
    kv_compressor_close(c);
    free(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in;
    in.data = data;
    in.size = size;
    switch (fuzz_take(&in) % 8) {
    case 0:  fuzz_unpack(fuzz_reader(false), kv_bytes(in.data, in.size)); break;
    case 1:  fuzz_unpack_block(in); break;
    case 2: case 3: fuzz_pack(in); break;
    case 4:  fuzz_store(in); break;
    default: fuzz_unpack_sealed(in); break;
    }
    return 0;
}
