/* fuzz_fst_open.c
   Goal: any bytes at all may be opened, with and without verification, and asked everything: no crash, no
   endless loop, nothing read outside. What opens with verification has as many keys as it says; what
   kv_fst_check passes is a map: it ascends, and each key is found, with its rank.
   Method: the input is the file, but its last byte, which says what is put right first: the frame (so that
   damage inside is reached), and the checksum. The rest of the input may also be changed by copying. */
#define KV_FST_IMPLEMENTATION
#include "../../kv_fst.h"
#include "fuzz_main.h"

typedef struct seen { kv_fst *f; uint64_t count; bool in_order; kv_buf last; } seen;

#define MOST_KEYS 2000u         /* looked at; a small file may spell very many */

static bool visit(void *user, kv_slice key, kv_slice value)
{
    seen    *s = (seen *)user;
    uint64_t rank = 0;
    (void)value;
    if (s->in_order) {
        FUZZ_CHECK(!s->count || kv_compare(kv_buf_slice(&s->last), key) < 0);
        FUZZ_CHECK(kv_fst_rank(s->f, key, &rank) == KV_OK && rank == s->count);
    }
    FUZZ_CHECK(key.size <= KV_KEY_SIZE_MAX);
    FUZZ_CHECK(kv_buf_assign(&s->last, key) == KV_OK);
    return ++s->count < MOST_KEYS;
}

static kv_status nowhere(void *user, const void *data, size_t size) { (void)user; (void)data; (void)size; return KV_OK; }

/* All set operations of the map with itself, and with nothing kept, so that no builder sees that it is out of order. */
static kv_status drop(void *user, kv_slice key, const kv_slice *values, size_t count, kv_buf *result) { (void)user; (void)key; (void)values; (void)count; (void)result; return KV_NOT_FOUND; }
static void combine(kv_fst *f)
{
    kv_fst         *twice[2];
    kv_fst_builder *b;
    twice[0] = twice[1] = f;
    for (int kind = 0; kind < 5; kind++) {
        FUZZ_CHECK(kv_fst_build_begin(NULL, nowhere, NULL, &b) == KV_OK);
        (void)(kind == 0 ? kv_fst_merge(twice, 2, NULL, NULL, b) : kind == 1 ? kv_fst_intersect(twice, 2, NULL, NULL, b)
               : kind == 2 ? kv_fst_subtract(twice, 2, NULL, NULL, b) : kind == 3 ? kv_fst_symmetric(twice, 2, NULL, NULL, b)
               : kv_fst_intersect(twice, 2, drop, NULL, b));
        kv_fst_build_abandon(b);
    }
}

static void ask(kv_fst *f, bool verified, bool in_order, kv_slice question)
{
    seen         s;
    kv_buf       buf;
    kv_range     range;
    kv_iter     *it;
    kv_automaton a;
    uint64_t     n;
    kv_fst_stats_t stats;
    memset(&s, 0, sizeof s);
    memset(&buf, 0, sizeof buf);
    memset(&range, 0, sizeof range);
    s.f = f;
    s.in_order = in_order;
    if (kv_fst_scan(f, NULL, visit, &s) == KV_OK && verified) FUZZ_CHECK(s.count == kv_fst_count(f) || s.count == MOST_KEYS);
    if (in_order) FUZZ_CHECK(s.count || !kv_fst_count(f));
    if (verified && kv_fst_count(f) <= MOST_KEYS) combine(f);
    (void)kv_fst_get(f, question, &n);
    (void)kv_fst_get_bytes(f, question, &buf);
    s.in_order = false;
    s.count = 0;
    FUZZ_CHECK((kv_fst_view(f, question, visit, &s) == KV_OK) == (s.count == 1));
    (void)kv_fst_exists(f, question);
    FUZZ_CHECK(kv_fst_stats(f, &stats) == KV_OK);
    (void)kv_fst_dot(f, nowhere, NULL);
    (void)kv_fst_rank(f, question, &n);
    (void)kv_fst_select(f, kv_fst_count(f) / 2, &buf);
    range.from = kv_bytes("", 0);
    range.from = question;
    range.reverse = true;
    range.limit = 100;
    s.in_order = false;
    (void)kv_fst_scan(f, &range, visit, &s);
    (void)kv_count(kv_fst_store(f), &range, &n);
    if (kv_fst_iter_open(f, NULL, &it) == KV_OK) {
        kv_iter_seek(it, question);
        for (int i = 0; i < 100 && kv_iter_valid(it); i++) { (void)kv_iter_value(it); if (i % 3) kv_iter_prev(it); else kv_iter_next(it); }
        kv_iter_last(it);
        for (int i = 0; i < 100 && kv_iter_valid(it); i++) kv_iter_prev(it);
        kv_iter_close(it);
    }
    range.reverse = false;
    range.from = kv_bytes(NULL, 0);
    if (kv_automaton_levenshtein(question.size < 64 ? question : kv_bytes(question.data, 64), 1, &a) == KV_OK) {
        s.count = 0;
        (void)kv_fst_search(f, &a, &range, visit, &s);
        range.reverse = true;
        (void)kv_fst_search(f, &a, &range, visit, &s);
        kv_automaton_free(&a);
    }
    for (int kind = KV_AUTOMATON_SUBSEQUENCE; kind <= KV_AUTOMATON_REGEX; kind++)
        if (kv_automaton_make(NULL, (kv_automaton_kind)kind, kv_bytes(question.data, question.size < 3 ? question.size : 3), 0, &a) == KV_OK) {
            s.count = 0;
            (void)kv_fst_search(f, &a, NULL, visit, &s);
            kv_automaton_free(&a);
        }
    kv_buf_free(&s.last);
    kv_buf_free(&buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kv_fst_options o;
    kv_fst        *f;
    uint8_t       *bytes;
    uint8_t        how;
    if (size < 1) return 0;
    how = data[--size];
    bytes = (uint8_t *)malloc(size ? size : 1);             /* exactly so long: the sanitizer sees one byte more */
    memcpy(bytes, data, size);
    if ((how & 1) && size >= KVI_FST_HEADER + KVI_FST_FOOTER) {
        memcpy(bytes, kvi_fst_magic, 8);
        memcpy(bytes + size - KVI_FST_FOOTER + KVI_FST_AT_MAGIC, kvi_fst_end_magic, 8);
        kvi_store_le64(bytes + size - KVI_FST_FOOTER + KVI_FST_AT_SIZE, size);
        memset(bytes + size - KVI_FST_FOOTER + KVI_FST_AT_ZERO, 0, KVI_FST_AT_MAGIC - KVI_FST_AT_ZERO);
    }
    if ((how & 6) && size >= 8) kvi_store_le64(bytes + size - 8, kvi_fst_checksum(bytes, size - 8));
    memset(&o, 0, sizeof o);
    if (kv_fst_open_memory(&o, kv_bytes(bytes, size), &f) == KV_OK) { ask(f, true, kv_fst_check(f) == KV_OK, kv_bytes(data, size < 40 ? size : 40)); kv_fst_close(f); }
    o.skip_verify = true;
    if (kv_fst_open_memory(&o, kv_bytes(bytes, size), &f) == KV_OK) { ask(f, false, false, kv_bytes(data, size < 40 ? size : 40)); kv_fst_close(f); }
    free(bytes);
    return 0;
}
