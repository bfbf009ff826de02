/* bench_compress.c
   Goal: how much smaller and how fast: the float filters on an honest key/value cache against Blosc and
   the bare libraries; what the wrapper adds to a library call; small records with a dictionary; values
   that nothing can pack; threads.
   Method: all methods of a table in turns, round after round, on the same bytes; medians of the thread's
   processor time, so that other programs count less; also as times that of the first method in the same
   round. One thread, 2 MiB values, buffers reused. The cache is that of
   examples/kv_cache.c, whose generator is compiled in.
   bench-libs: blosc

       bench_compress [--json] [tensors|json|records|noise|threads]  */
#define _GNU_SOURCE 1       /* before any system header, for the bench's own use of them */
#define main kv_cache_main
#include "../../examples/kv_cache.c"
#undef main
#include <stdlib.h>
#if defined(HAVE_blosc)
#include <blosc.h>
#endif

static bool json;
static double now_ns(void)              /* of this thread */
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}
static int    ascending(const void *a, const void *b) { double x = *(const double *)a, y = *(const double *)b; return (x > y) - (x < y); }
static double median(double *list, int count) { qsort(list, (size_t)count, sizeof *list, ascending); return list[count / 2]; }

/* ---- methods: one way to pack and to unpack a value ---- */

typedef struct method {
    const char *name;
    size_t    (*pack)(struct method *m, kv_slice raw, uint8_t *out, size_t capacity);
    void      (*unpack)(struct method *m, kv_slice packed, uint8_t *out, size_t raw_size);
    kv_compressor *c;
    kv_codec  codec;
    int       level, shuffle;
    size_t    element_size;
} method;

static size_t pack_copy(method *m, kv_slice raw, uint8_t *out, size_t capacity) { (void)m; (void)capacity; memcpy(out, raw.data, raw.size); return raw.size; }
static void   unpack_copy(method *m, kv_slice packed, uint8_t *out, size_t raw_size) { (void)m; memcpy(out, packed.data, raw_size); }

static size_t pack_kv(method *m, kv_slice raw, uint8_t *out, size_t capacity)
{
    kv_buf b = kv_buf_fixed(out, capacity);
    if (kv_compress(m->c, raw, &b) < 0) exit(1);
    return b.size;
}
static void unpack_kv(method *m, kv_slice packed, uint8_t *out, size_t raw_size)
{
    kv_buf b = kv_buf_fixed(out, raw_size);
    if (kv_decompress(m->c, packed, &b) < 0 || b.size != raw_size) exit(1);
}
static method kv_of(const char *name, kv_codec codec, int level, kv_filter filter, uint32_t element_size, kv_slice dictionary)
{
    kv_compress_options o;
    method              m;
    memset(&o, 0, sizeof o);
    memset(&m, 0, sizeof m);
    o.codec = codec;
    o.level = level;
    o.filter = filter;
    o.element_size = element_size;
    o.dictionary = dictionary;
    m.name = name;
    m.pack = pack_kv;
    m.unpack = unpack_kv;
    if (kv_compressor_open(&o, &m.c) < 0) exit(1);
    return m;
}

/* The libraries themselves, with contexts that are kept. */
static size_t pack_lz4(method *m, kv_slice raw, uint8_t *out, size_t capacity)
{
    (void)m;
    return (size_t)LZ4_compress_default((const char *)raw.data, (char *)out, (int)raw.size, (int)capacity);
}
static void unpack_lz4(method *m, kv_slice packed, uint8_t *out, size_t raw_size)
{
    (void)m;
    if (LZ4_decompress_safe((const char *)packed.data, (char *)out, (int)packed.size, (int)raw_size) != (int)raw_size) exit(1);
}
static ZSTD_CCtx *bare_in;
static ZSTD_DCtx *bare_out;
static size_t pack_zstd(method *m, kv_slice raw, uint8_t *out, size_t capacity)
{
    size_t n;
    if (!bare_in) bare_in = ZSTD_createCCtx();
    n = ZSTD_compressCCtx(bare_in, out, capacity, raw.data, raw.size, m->level);
    if (ZSTD_isError(n)) exit(1);
    return n;
}
static void unpack_zstd(method *m, kv_slice packed, uint8_t *out, size_t raw_size)
{
    (void)m;
    if (!bare_out) bare_out = ZSTD_createDCtx();
    if (ZSTD_decompressDCtx(bare_out, out, raw_size, packed.data, packed.size) != raw_size) exit(1);
}
static method bare_of(const char *name, kv_codec codec, int level)
{
    method m;
    memset(&m, 0, sizeof m);
    m.name = name;
    m.level = level;
    m.pack = codec == KV_CODEC_NONE ? pack_copy : codec == KV_CODEC_LZ4 ? pack_lz4 : pack_zstd;
    m.unpack = codec == KV_CODEC_NONE ? unpack_copy : codec == KV_CODEC_LZ4 ? unpack_lz4 : unpack_zstd;
    return m;
}
#if defined(HAVE_blosc)
static size_t pack_blosc(method *m, kv_slice raw, uint8_t *out, size_t capacity)
{
    int n = blosc_compress_ctx(m->level, m->shuffle, m->element_size, raw.size, raw.data, out, capacity, m->codec == KV_CODEC_LZ4 ? "lz4" : "zstd", 0, 1);
    if (n <= 0) exit(1);
    return (size_t)n;
}
static void unpack_blosc(method *m, kv_slice packed, uint8_t *out, size_t raw_size)
{
    (void)m;
    if (blosc_decompress_ctx(packed.data, out, raw_size, 1) != (int)raw_size) exit(1);
}
static method blosc_of(const char *name, kv_codec codec, int level, int shuffle, size_t element_size)
{
    method m;
    memset(&m, 0, sizeof m);
    m.name = name;
    m.codec = codec;
    m.level = level;
    m.shuffle = shuffle;
    m.element_size = element_size;
    m.pack = pack_blosc;
    m.unpack = unpack_blosc;
    return m;
}
#endif

#define METHODS_MAX 16
#define ROUNDS_MAX  41

/* All methods on `count` values, in turns; the first method is what the others are compared with. */
static void table(const char *title, method *m, int methods, const kv_slice *values, size_t count, int round_count)
{
    static double in[METHODS_MAX][ROUNDS_MAX], out[METHODS_MAX][ROUNDS_MAX], in_part[METHODS_MAX][ROUNDS_MAX], out_part[METHODS_MAX][ROUNDS_MAX];
    size_t   raw = 0, packed[METHODS_MAX], largest = 0, at;
    uint8_t *bytes, *back;
    size_t  *sizes = (size_t *)malloc(count * sizeof *sizes);
    for (size_t i = 0; i < count; i++) { raw += values[i].size; if (values[i].size > largest) largest = values[i].size; }
    bytes = (uint8_t *)malloc(raw * 2 + count * 256 + 4096);
    back = (uint8_t *)malloc(largest + 64);
    if (!sizes || !bytes || !back) exit(1);
    for (int round = -1; round < round_count; round++) {        /* round -1 warms up */
        for (int k = 0; k < methods; k++) {
            int    w = (k + round + methods) % methods;
            double start = now_ns(), middle, end;
            at = 0;
            for (size_t i = 0; i < count; i++) { sizes[i] = m[w].pack(&m[w], values[i], bytes + at, values[i].size * 2 + 256); at += sizes[i]; }
            middle = now_ns();
            packed[w] = at;
            at = 0;
            for (size_t i = 0; i < count; i++) { m[w].unpack(&m[w], kv_bytes(bytes + at, sizes[i]), back, values[i].size); at += sizes[i]; }
            end = now_ns();
            if (memcmp(back, values[count - 1].data, values[count - 1].size)) { fprintf(stderr, "%s: wrong\n", m[w].name); exit(1); }
            if (round < 0) continue;
            in[w][round] = middle - start;
            out[w][round] = end - middle;
        }
        for (int k = 0; round >= 0 && k < methods; k++) { in_part[k][round] = in[k][round] / in[0][round]; out_part[k][round] = out[k][round] / out[0][round]; }
    }
    if (!json) printf("%s: %zu values, %zu bytes\n  %-26s %8s %10s %10s %9s %9s %9s %9s\n", title, count, raw, "", "ratio", "GB/s in", "GB/s out", "ns in", "ns out", "time in", "time out");
    for (int k = 0; k < methods; k++) {
        double i = median(in[k], round_count), o = median(out[k], round_count), ip = median(in_part[k], round_count), op = median(out_part[k], round_count);
        if (json) printf("{\"bench\":\"compress\",\"data\":\"%s\",\"method\":\"%s\",\"ratio\":%.4f,\"in_gbs\":%.3f,\"out_gbs\":%.3f,\"in_ns\":%.1f,\"out_ns\":%.1f,\"in_time_to_first\":%.4f,\"out_time_to_first\":%.4f}\n",
                         title, m[k].name, (double)raw / (double)packed[k], (double)raw / i, (double)raw / o, i / (double)count, o / (double)count, ip, op);
        else printf("  %-26s %7.3fx %10.2f %10.2f %9.0f %9.0f %8.2fx %8.2fx\n", m[k].name, (double)raw / (double)packed[k], (double)raw / i, (double)raw / o, i / (double)count, o / (double)count, ip, op);
        fflush(stdout);
        kv_compressor_close(m[k].c);
    }
    free(sizes); free(bytes); free(back);
}

/* ---- tensors ---- */

static void tensors(void)
{
    static const char *const names[4] = { "bf16 K", "bf16 V", "fp16 K", "fp16 V" };
    const kv_slice none = { NULL, 0 };
    for (int d = 0; d < 4; d++) {
        kv_slice values[2];
        method   m[METHODS_MAX];
        int      n = 0;
        bool     bf16 = d < 2;
        kv_filter f = bf16 ? KV_FILTER_BF16 : KV_FILTER_FP16;
        for (int layer = 0; layer < 2; layer++) {
            make_tensor(cache[0][layer], layer, d % 2 == 0, bf16 ? to_bf16 : to_fp16);
            values[layer] = kv_bytes(cache[0][layer], sizeof cache[0][0]);
        }
        m[n++] = bare_of("memcpy", KV_CODEC_NONE, 0);
        m[n++] = kv_of("kv fast", KV_CODEC_NONE, 0, f, 2, none);
        m[n++] = kv_of("kv dense", KV_CODEC_ZSTD, 0, f, 2, none);
        m[n++] = kv_of("kv lz4 auto", KV_CODEC_LZ4, 0, KV_FILTER_AUTO, 0, none);
        m[n++] = kv_of("kv zstd auto", KV_CODEC_ZSTD, 0, KV_FILTER_AUTO, 0, none);
        m[n++] = kv_of("kv shuffle + zstd 1", KV_CODEC_ZSTD, 1, KV_FILTER_SHUFFLE, 2, none);
        m[n++] = bare_of("lz4", KV_CODEC_LZ4, 0);
        m[n++] = bare_of("zstd 1", KV_CODEC_ZSTD, 1);
#if defined(HAVE_blosc)
        m[n++] = blosc_of("blosc shuffle + zstd 1", KV_CODEC_ZSTD, 1, BLOSC_SHUFFLE, 2);
        m[n++] = blosc_of("blosc shuffle + lz4 5", KV_CODEC_LZ4, 5, BLOSC_SHUFFLE, 2);
        m[n++] = blosc_of("blosc bitshuffle + lz4 5", KV_CODEC_LZ4, 5, BLOSC_BITSHUFFLE, 2);
#endif
        table(names[d], m, n, values, 2, 11);
    }
}

/* ---- JSON ---- */

static const char *const first_names[] = { "Anna", "Boris", "Chloe", "Dmitri", "Elif", "Farid", "Greta", "Hiro", "Ines", "Jonas", "Kofi", "Lena", "Mateo", "Nadia", "Oskar", "Priya" };
static const char *const cities[] = { "Lagos", "Lima", "Oslo", "Pune", "Quito", "Rome", "Seoul", "Tunis", "Utrecht", "Vienna", "Warsaw", "Zagreb" };

static size_t make_record(char *out, size_t size, uint64_t number)
{
    uint64_t a = kvi_mix64(number * 3 + 1), b = kvi_mix64(number * 3 + 2), c = kvi_mix64(number * 3 + 3);
    return (size_t)snprintf(out, size,
        "{\"id\":\"%08x-%04x\",\"name\":\"%s %s\",\"age\":%u,\"email\":\"%s.%u@example.org\",\"city\":\"%s\",\"balance\":%u.%02u,"
        "\"active\":%s,\"created\":\"20%02u-%02u-%02uT%02u:%02u:%02uZ\",\"tags\":[\"%s\",\"%s\"],\"score\":0.%06u}",
        (unsigned)a, (unsigned)(a >> 48), first_names[b & 15], first_names[b >> 4 & 15], (unsigned)(18 + (b >> 8) % 70), first_names[b & 15], (unsigned)(b >> 20 & 0xFFFF),
        cities[(b >> 36) % 12], (unsigned)(c % 100000), (unsigned)(c >> 20 & 63), c >> 30 & 1 ? "true" : "false", (unsigned)(10 + (c >> 32) % 16), (unsigned)(1 + (c >> 36) % 12),
        (unsigned)(1 + (c >> 40) % 28), (unsigned)((c >> 45) % 24), (unsigned)((c >> 50) % 60), (unsigned)((c >> 56) % 60), cities[a % 12], first_names[a >> 8 & 15], (unsigned)(a >> 20) % 1000000);
}

static void text(void)
{
    static char    bytes[2000000 + 1000];
    const kv_slice none = { NULL, 0 };
    size_t         used = 0;
    kv_slice       value;
    method         m[4];
    for (uint64_t i = 0; used < 2000000; i++) { used += make_record(bytes + used, 1000, i); bytes[used++] = '\n'; }
    value = kv_bytes(bytes, 2000000);
    m[0] = bare_of("lz4", KV_CODEC_LZ4, 0);
    m[1] = kv_of("kv lz4", KV_CODEC_LZ4, 0, KV_FILTER_NONE, 1, none);
    table("json 2 MB, lz4", m, 2, &value, 1, 25);
    m[0] = bare_of("zstd 1", KV_CODEC_ZSTD, 1);
    m[1] = kv_of("kv zstd 1", KV_CODEC_ZSTD, 1, KV_FILTER_NONE, 1, none);
    table("json 2 MB, zstd 1", m, 2, &value, 1, 25);
}

/* ---- small records ---- */

static kv_buf           dictionary;
static ZSTD_CDict      *bare_cdict;
static ZSTD_DDict      *bare_ddict;
static LZ4_stream_t     bare_stream, bare_loaded;
static size_t pack_zstd_dictionary(method *m, kv_slice raw, uint8_t *out, size_t capacity)
{
    (void)m;
    if (!bare_in) bare_in = ZSTD_createCCtx();
    return ZSTD_compress_usingCDict(bare_in, out, capacity, raw.data, raw.size, bare_cdict);
}
static void unpack_zstd_dictionary(method *m, kv_slice packed, uint8_t *out, size_t raw_size)
{
    (void)m;
    if (!bare_out) bare_out = ZSTD_createDCtx();
    if (ZSTD_decompress_usingDDict(bare_out, out, raw_size, packed.data, packed.size, bare_ddict) != raw_size) exit(1);
}
static size_t pack_lz4_dictionary(method *m, kv_slice raw, uint8_t *out, size_t capacity)
{
    (void)m;
    bare_stream = bare_loaded;
    return (size_t)LZ4_compress_fast_continue(&bare_stream, (const char *)raw.data, (char *)out, (int)raw.size, (int)capacity, 1);
}
static void unpack_lz4_dictionary(method *m, kv_slice packed, uint8_t *out, size_t raw_size)
{
    (void)m;
    if (LZ4_decompress_safe_usingDict((const char *)packed.data, (char *)out, (int)packed.size, (int)raw_size, (const char *)dictionary.data, (int)dictionary.size) != (int)raw_size) exit(1);
}

static void records(void)
{
    enum { TRAIN = 10000, TEST_COUNT = 2000 };
    static char    bytes[TRAIN + TEST_COUNT][400];
    static kv_slice all[TRAIN + TEST_COUNT];
    const kv_slice none = { NULL, 0 };
    method         m[METHODS_MAX];
    for (size_t i = 0; i < TRAIN + TEST_COUNT; i++) all[i] = kv_bytes(bytes[i], make_record(bytes[i], sizeof bytes[i], i));
    if (kv_compress_train(all, TRAIN, 16384, &dictionary) < 0) exit(1);
    bare_cdict = ZSTD_createCDict(dictionary.data, dictionary.size, 3);
    bare_ddict = ZSTD_createDDict(dictionary.data, dictionary.size);
    LZ4_initStream(&bare_loaded, sizeof bare_loaded);
    LZ4_loadDict(&bare_loaded, (const char *)dictionary.data, (int)dictionary.size);
    m[0] = bare_of("zstd 3, CDict", KV_CODEC_ZSTD, 3);
    m[0].pack = pack_zstd_dictionary;
    m[0].unpack = unpack_zstd_dictionary;
    m[1] = kv_of("kv zstd 3, dictionary", KV_CODEC_ZSTD, 3, KV_FILTER_NONE, 1, kv_buf_slice(&dictionary));
    m[2] = kv_of("kv zstd 3", KV_CODEC_ZSTD, 3, KV_FILTER_NONE, 1, none);
    table("records of 300 bytes, zstd", m, 3, all + TRAIN, TEST_COUNT, 25);
    m[0] = bare_of("lz4, loaded stream", KV_CODEC_LZ4, 0);
    m[0].pack = pack_lz4_dictionary;
    m[0].unpack = unpack_lz4_dictionary;
    m[1] = kv_of("kv lz4, dictionary", KV_CODEC_LZ4, 0, KV_FILTER_NONE, 1, kv_buf_slice(&dictionary));
    m[2] = kv_of("kv lz4", KV_CODEC_LZ4, 0, KV_FILTER_NONE, 1, none);
    table("records of 300 bytes, lz4", m, 3, all + TRAIN, TEST_COUNT, 25);
}

/* ---- 1 KB of noise: what the wrapper adds to the store inside ---- */

static void noise(void)
{
    enum { KEYS = 1000, REPEATS = 20 };
    static uint8_t bytes[KEYS][1024];
    uint8_t       *all = &bytes[0][0];
    kv_mem        *mem[2];
    kv_compressed *c;
    kv_store      *s[2];
    kv_buf         back = {0};
    double         in[2][ROUNDS_MAX], out[2][ROUNDS_MAX], added_in[ROUNDS_MAX], added_out[ROUNDS_MAX];
    for (size_t i = 0; i < sizeof bytes; i++) all[i] = (uint8_t)kvi_mix64(i);
    if (kv_mem_open(NULL, &mem[0]) < 0 || kv_mem_open(NULL, &mem[1]) < 0 || kv_compressed_open(kv_mem_store(mem[1]), NULL, &c) < 0) exit(1);
    s[0] = kv_mem_store(mem[0]);
    s[1] = kv_compressed_store(c);
    for (int round = -1; round < 31; round++) {
        for (int k = 0; k < 2; k++) {
            int    w = (k + round + 2) % 2;
            double start = now_ns(), middle, end;
            for (int r = 0; r < REPEATS; r++) for (uint32_t i = 0; i < KEYS; i++) if (kv_set(s[w], kv_bytes(&i, sizeof i), kv_bytes(bytes[i], 1024)) < 0) exit(1);
            middle = now_ns();
            for (int r = 0; r < REPEATS; r++) for (uint32_t i = 0; i < KEYS; i++) if (kv_get(s[w], kv_bytes(&i, sizeof i), &back) != KV_OK) exit(1);
            end = now_ns();
            if (round < 0) continue;
            in[w][round] = (middle - start) / (KEYS * REPEATS);
            out[w][round] = (end - middle) / (KEYS * REPEATS);
        }
        if (round >= 0) { added_in[round] = in[1][round] - in[0][round]; added_out[round] = out[1][round] - out[0][round]; }
    }
    {
        double i0 = median(in[0], 31), o0 = median(out[0], 31), ai = median(added_in, 31), ao = median(added_out, 31);
        if (json) printf("{\"bench\":\"compress\",\"data\":\"noise 1 KB in kv_mem\",\"inner_set_ns\":%.1f,\"inner_get_ns\":%.1f,\"added_set_ns\":%.1f,\"added_get_ns\":%.1f}\n", i0, o0, ai, ao);
        else printf("noise of 1 KB in a kv_mem: set %.0f ns, get %.0f ns; the wrapper adds %.0f and %.0f ns\n", i0, o0, ai, ao);
    }
    kv_buf_free(&back);
    kv_compressed_close(c);
    kv_mem_close(mem[0]);
    kv_mem_close(mem[1]);
}

/* ---- threads ---- */

typedef struct packer { kv_compressor *c; kvi_thread thread; size_t rounds; uint64_t bytes; const uint8_t *value; } packer;
static void pack_much(void *argument)
{
    packer *p = (packer *)argument;
    kv_buf  packed = {0}, back = {0};
    for (size_t i = 0; i < p->rounds; i++) {
        if (kv_compress(p->c, kv_bytes(p->value, 3000), &packed) < 0 || kv_decompress(p->c, kv_buf_slice(&packed), &back) < 0) exit(1);
        p->bytes += 3000;
    }
    kv_buf_free(&packed);
    kv_buf_free(&back);
}
static void threads(void)
{
    static packer  p[8];
    static uint8_t value[8][3000];
    double         alone = 0;
    kv_compressor *c;
    for (int i = 0; i < 8; i++) for (size_t at = 0; at + 400 < sizeof value[0];) at += make_record((char *)value[i] + at, 400, at + (size_t)i * 1000);
    if (kv_compressor_open(NULL, &c) < 0) exit(1);
    if (!json) printf("threads on one compressor (lz4, 3,000 bytes in and out), %u processors\n", (unsigned)kvi_cpu_count());
    for (int count = 1; count <= 8; count *= 2) {
        double   rates[7];
        for (int round = 0; round < 7; round++) {
            double   start = (double)kvi_now_ns();
            uint64_t bytes = 0;
            for (int i = 0; i < count; i++) { p[i].c = c; p[i].rounds = 20000 / (size_t)count; p[i].bytes = 0; p[i].value = value[i]; (void)kvi_thread_start(&p[i].thread, pack_much, &p[i]); }
            for (int i = 0; i < count; i++) { kvi_thread_join(&p[i].thread); bytes += p[i].bytes; }
            rates[round] = (double)bytes / ((double)kvi_now_ns() - start);
        }
        if (count == 1) alone = median(rates, 7);
        if (json) printf("{\"bench\":\"compress\",\"data\":\"threads\",\"threads\":%d,\"gbs\":%.3f,\"to_one\":%.3f}\n", count, median(rates, 7), median(rates, 7) / alone);
        else printf("  %d: %6.2f GB/s, %.2f times one\n", count, median(rates, 7), median(rates, 7) / alone);
    }
    kv_compressor_close(c);
}

int main(int argc, char **argv)
{
    const char *only = NULL;
    for (int i = 1; i < argc; i++) {
        static const char *const parts[] = { "tensors", "json", "records", "noise", "threads" };
        bool known = false;
        for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) known = known || !strcmp(argv[i], parts[k]);
        if (!strcmp(argv[i], "--json")) json = true;
        else if (known) only = argv[i];
        else { fprintf(stderr, "%s: what is this? options: --json; or one of tensors json records noise threads\n", argv[i]); return 2; }
    }
    if (!json) printf("level %s\n", kv_simd_name());
    if (!only || !strcmp(only, "tensors")) tensors();
    if (!only || !strcmp(only, "json")) text();
    if (!only || !strcmp(only, "records")) records();
    if (!only || !strcmp(only, "noise")) noise();
    if (!only || !strcmp(only, "threads")) threads();
    (void)kv_cache_main;
    return 0;
}
