/* kv_cache.c - what can be had, without loss, of a language model's key/value cache

   Twelve layers, K and V, 2 MiB each (1,024 tokens, 8 heads, 128 channels), go into a kv_mem behind the
   compressing wrapper; printed is how much smaller each codec and filter makes them.

       kv_cache            ratios alone
       kv_cache speed      and GB/s in and out, through the wrapper, one thread

   The numbers follow what is published about such caches. K has a scale for each channel, a few outlier
   channels with large means, rotary position encoding, and moves smoothly from token to token; V is
   near-Gaussian with mild scales (Z. Liu et al., KIVI, 2024; C. Hooper et al., KVQuant, 2024). Mantissas of
   such numbers are noise: nothing without loss gets far below exponent + sign + mantissa, that is 1.5x for
   bf16 and 1.17x for fp16. The 5 to 10 times that are sometimes promised take quantisation, which loses.
   The last line is a ramp of bytes that repeats every 256: it shows what a codec does, and no cache. */
#define KV_IMPLEMENTATION
#include "../kv_mem.h"
#include "../kv_compress.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LAYERS   12
#define TOKENS   1024
#define HEADS    8
#define CHANNELS 128                            /* of a head */
#define WIDTH    (HEADS * CHANNELS)
#define NUMBERS  (TOKENS * WIDTH)

static uint16_t cache[2][LAYERS][NUMBERS];      /* K and V, in the format of the moment */

/* ---- random numbers ---- */

static uint64_t random_state;
static uint64_t random_bits(void)               /* splitmix64 */
{
    uint64_t z = (random_state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}
static double uniform(void) { return (double)(random_bits() >> 11) / 9007199254740992.0; }
static double normal(void)                      /* the sum of eight uniform ones, of mean 0 and deviation 1 */
{
    uint64_t a = random_bits(), b = random_bits();
    int32_t  sum = 0;
    for (int i = 0; i < 64; i += 16) sum += (int32_t)(a >> i & 0xFFFF) + (int32_t)(b >> i & 0xFFFF);
    return ((double)sum - 262140.0) / 53510.0;
}

/* ---- one tensor ---- */

typedef struct channel { double mean, deviation, state; } channel;

static void make_channels(channel *c, int is_key)
{
    for (int head = 0; head < HEADS; head++) {
        double scale = is_key ? exp(0.2 * normal()) : 0.5 * exp(0.25 * normal());
        for (int i = head * CHANNELS; i < (head + 1) * CHANNELS; i++) {
            c[i].deviation = scale * exp((is_key ? 0.35 : 0.25) * normal());
            c[i].mean = c[i].deviation * (is_key ? 0.5 : 0.1) * normal();
            c[i].state = normal();
        }
        for (int k = 0; is_key && k < 3; k++) {     /* outliers, where the rotation is slow */
            int i = head * CHANNELS + CHANNELS / 4 + (int)(uniform() * CHANNELS / 4) + (uniform() < 0.5 ? CHANNELS / 2 : 0);
            c[i].mean = (uniform() < 0.5 ? -1 : 1) * scale * (5 + 9 * uniform());
            c[i].deviation = scale * (1 + uniform());
        }
    }
}

/* Rotary position encoding: channels i and i + CHANNELS / 2 turn by an angle that grows with the token. */
static void rotate(float *head, const double *cosine, const double *sine)
{
    for (int p = 0; p < CHANNELS / 2; p++) {
        double x = head[p], y = head[p + CHANNELS / 2];
        head[p] = (float)(x * cosine[p] - y * sine[p]);
        head[p + CHANNELS / 2] = (float)(y * cosine[p] + x * sine[p]);
    }
}

typedef uint16_t (*narrow_fn)(float);

static void make_tensor(uint16_t *out, int layer, int is_key, narrow_fn narrow)
{
    static channel c[WIDTH];
    static float   token[WIDTH];
    double cosine[CHANNELS / 2], sine[CHANNELS / 2], memory = is_key ? 0.5 : 0.2, fresh = sqrt(1 - memory * memory);
    random_state = (uint64_t)(layer * 2 + is_key + 1) * 1000003;
    make_channels(c, is_key);
    for (int t = 0; t < TOKENS; t++) {
        double size = t == 0 ? (is_key ? 0.4 : 0.03) : exp((is_key ? 0.08 : 0.15) * normal());      /* the first token is special */
        for (int i = 0; i < WIDTH; i++) {
            double step = normal();
            if ((random_bits() & 63) < (is_key ? 3 : 1)) step *= 2.5;                                /* heavy tails */
            c[i].state = memory * c[i].state + fresh * step;
            token[i] = (float)(size * (c[i].mean + c[i].deviation * c[i].state));
        }
        for (int p = 0; is_key && p < CHANNELS / 2; p++) {
            double angle = t * pow(500000.0, -2.0 * p / CHANNELS);
            cosine[p] = cos(angle);
            sine[p] = sin(angle);
        }
        for (int h = 0; is_key && h < HEADS; h++) rotate(token + h * CHANNELS, cosine, sine);
        for (int i = 0; i < WIDTH; i++) out[t * WIDTH + i] = narrow(token[i]);
    }
}

static uint16_t to_bf16(float f)                /* rounded to nearest, ties to even */
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
static uint16_t to_fp16(float f)                /* likewise; these numbers never come near fp16's limits */
{
    uint32_t bits, magnitude;
    memcpy(&bits, &f, sizeof bits);
    magnitude = bits & 0x7FFFFFFF;
    if (magnitude < 0x38800000) {               /* below 2^-14: a multiple of 2^-24 */
        float a;
        memcpy(&a, &magnitude, sizeof a);
        return (uint16_t)((bits >> 16 & 0x8000) | (uint32_t)lrintf(a * 16777216.0f));
    }
    magnitude += 0xFFF + (magnitude >> 13 & 1);
    return (uint16_t)((bits >> 16 & 0x8000) | (magnitude - 0x38000000) >> 13);
}

/* ---- through the wrapper ---- */

typedef struct result { double ratio, in, out; } result;   /* GB/s */

static int fail(const char *what) { fprintf(stderr, "kv_cache: %s\n", what); return 0; }

static double seconds(void) { return (double)clock() / CLOCKS_PER_SEC; }

static const char *key_of(int layer, int is_value)
{
    static char key[40];
    snprintf(key, sizeof key, "layer:%d:%s", layer, is_value ? "v" : "k");
    return key;
}

/* Set and get every layer's K (or V), and compare: 0 where something failed. Best of some rounds; the
   first one has the memory mapped. */
static int rounds(kv_store *s, int is_value, int count, kv_buf *back, result *r)
{
    const size_t size = sizeof cache[0][0];
    for (int round = 0; round < count; round++) {
        double in = 0, out = 0, start;
        for (int layer = 0; layer < LAYERS; layer++) {
            kv_slice value = kv_bytes(cache[is_value][layer], size), key = kv_cstr(key_of(layer, is_value));
            start = seconds();
            if (kv_set(s, key, value) < 0) return 0;
            in += seconds() - start;
            start = seconds();
            if (kv_get(s, key, back) != KV_OK) return 0;
            out += seconds() - start;
            if (!kv_equal(kv_buf_slice(back), value)) return 0;
        }
        if ((double)size * LAYERS / in / 1e9 > r->in) r->in = (double)size * LAYERS / in / 1e9;
        if ((double)size * LAYERS / out / 1e9 > r->out) r->out = (double)size * LAYERS / out / 1e9;
    }
    return 1;
}

static int measure(const kv_compress_options *options, int is_value, int round_count, result *r)
{
    kv_mem           *mem;
    kv_compressed    *c;
    kv_compress_stats stats;
    kv_buf            back = {0};
    int               ok;
    if (kv_mem_open(NULL, &mem) < 0) return fail("no memory");
    if (kv_compressed_open(kv_mem_store(mem), options, &c) < 0) { kv_mem_close(mem); return fail("no such codec"); }
    ok = rounds(kv_compressed_store(c), is_value, round_count, &back, r) && kv_compressed_stats(c, &stats) == KV_OK;
    if (ok) r->ratio = (double)stats.raw_bytes / (double)stats.packed_bytes;
    else fail(kv_last_error(kv_compressed_store(c)));
    kv_buf_free(&back);
    kv_compressed_close(c);
    kv_mem_close(mem);
    return ok;
}

/* "1.39x", "250x": two digits behind the point, or two that count */
static void print_ratio(double ratio)
{
    char   text[32];
    double unit = 1;
    while (ratio / unit >= 100) unit *= 10;
    if (ratio < 10) snprintf(text, sizeof text, "%.2fx", ratio);
    else snprintf(text, sizeof text, "%.0fx", floor(ratio / unit + 0.5) * unit);
    printf(" %7s", text);
}

static int show(const char *name, kv_codec codec, int level, kv_filter filter, int speed, int values)
{
    kv_compress_options o;
    result              r[2];
    memset(&o, 0, sizeof o);
    memset(r, 0, sizeof r);
    o.codec = codec;
    o.level = level;
    o.filter = filter;
    o.element_size = filter == KV_FILTER_AUTO ? 0 : 2;
    printf("  %-24s", name);
    for (int v = 0; v < values; v++) {
        if (!measure(&o, v, speed ? 4 : 1, &r[v])) return 0;
        print_ratio(r[v].ratio);
    }
    for (int v = 0; speed && v < values; v++) printf("   %5.2f in %5.2f out", r[v].in, r[v].out);
    printf("\n");
    return 1;
}

int main(int argc, char **argv)
{
    static const struct { const char *name; narrow_fn narrow; kv_filter filter; } formats[2] = {
        { "bf16", to_bf16, KV_FILTER_BF16 }, { "fp16", to_fp16, KV_FILTER_FP16 }
    };
    int speed = argc > 1 && strcmp(argv[1], "speed") == 0, ok = 1;
    for (int f = 0; f < 2; f++) {
        for (int layer = 0; layer < LAYERS; layer++) {
            make_tensor(cache[0][layer], layer, 1, formats[f].narrow);
            make_tensor(cache[1][layer], layer, 0, formats[f].narrow);
        }
        printf("%s%28s %7s%s\n", formats[f].name, "K", "V", speed ? "   GB/s of K            GB/s of V" : "");
        ok = ok && show("lz4", KV_CODEC_LZ4, 0, KV_FILTER_NONE, speed, 2);
        ok = ok && show("zstd", KV_CODEC_ZSTD, 0, KV_FILTER_NONE, speed, 2);
        ok = ok && show("lz4, shuffle", KV_CODEC_LZ4, 0, KV_FILTER_SHUFFLE, speed, 2);
        ok = ok && show("zstd 1, shuffle", KV_CODEC_ZSTD, 1, KV_FILTER_SHUFFLE, speed, 2);
        ok = ok && show("fast: none, float", KV_CODEC_NONE, 0, formats[f].filter, speed, 2);
        ok = ok && show("dense: zstd, float", KV_CODEC_ZSTD, 0, formats[f].filter, speed, 2);
        ok = ok && show("lz4, auto", KV_CODEC_LZ4, 0, KV_FILTER_AUTO, speed, 2);
        ok = ok && show("zstd, auto", KV_CODEC_ZSTD, 0, KV_FILTER_AUTO, speed, 2);
    }
    for (int layer = 0; layer < LAYERS; layer++) {
        uint8_t *bytes = (uint8_t *)cache[0][layer];
        for (size_t i = 0; i < sizeof cache[0][0]; i++) bytes[i] = (uint8_t)(i + (size_t)layer * 1000);
    }
    printf("a ramp that repeats, which no cache looks like\n");
    ok = ok && show("lz4", KV_CODEC_LZ4, 0, KV_FILTER_NONE, speed, 1);
    ok = ok && show("zstd", KV_CODEC_ZSTD, 0, KV_FILTER_NONE, speed, 1);
    return ok ? 0 : 1;
}
