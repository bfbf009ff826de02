/* fuzz_fst_build.c
   Goal: whatever sorted keys and values a builder is given, the map answers as they are, and verification
   agrees; two builds of the same are the same bytes.
   Method: the input is cut into keys, which are sorted and made unique, the way a model would; values come
   from the input too. */
#define KV_FST_IMPLEMENTATION
#include "../../kv_fst.h"
#include "fuzz_main.h"

#define MOST 600u

typedef struct entry { const uint8_t *key; size_t size; uint64_t value; } entry;

static int by_key(const void *a, const void *b)
{
    return kvi_compare_bytes(((const entry *)a)->key, ((const entry *)a)->size, ((const entry *)b)->key, ((const entry *)b)->size);
}
static kv_status to_buf(void *user, const void *data, size_t size) { return kv_buf_append((kv_buf *)user, kv_bytes(data, size)); }

static void build(const entry *list, size_t count, kv_fst_values values, kv_buf *bytes)
{
    kv_fst_build_options o;
    kv_fst_builder      *b;
    memset(&o, 0, sizeof o);
    o.values = values;
    o.memory_limit_bytes = 1 << 20;
    bytes->size = 0;
    FUZZ_CHECK(kv_fst_build_begin(&o, to_buf, bytes, &b) == KV_OK);
    for (size_t i = 0; i < count; i++) {
        if (values == KV_FST_BYTES) FUZZ_CHECK(kv_fst_add_bytes(b, kv_bytes(list[i].key, list[i].size), kv_bytes(list[i].key, (size_t)list[i].value % (list[i].size + 1))) == KV_OK);
        else FUZZ_CHECK(kv_fst_add(b, kv_bytes(list[i].key, list[i].size), list[i].value) == KV_OK);
    }
    FUZZ_CHECK(kv_fst_build_finish(b) == KV_OK);
}

typedef struct walk { const entry *list; size_t at; } walk;
static bool visit(void *user, kv_slice key, kv_slice value)
{
    walk *w = (walk *)user;
    (void)value;
    FUZZ_CHECK(kv_equal(key, kv_bytes(w->list[w->at].key, w->list[w->at].size)));
    w->at++;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static entry  list[MOST];
    fuzz_input    in;
    size_t        count = 0, kept = 0;
    kv_fst_values values;
    kv_buf        bytes, again, buf;
    kv_fst       *f;
    walk          w;
    in.data = data;
    in.size = size;
    values = (kv_fst_values)(fuzz_take(&in) % 3);
    while (in.size && count < MOST) {
        list[count].value = fuzz_take_bits(&in, 1 + (unsigned)(fuzz_take(&in) & 7u));
        list[count].key = fuzz_take_slice(&in, 300, &list[count].size);
        count++;
    }
    qsort(list, count, sizeof *list, by_key);
    for (size_t i = 0; i < count; i++) if (!i || by_key(&list[i], &list[kept - 1])) list[kept++] = list[i];
    memset(&bytes, 0, sizeof bytes);
    memset(&again, 0, sizeof again);
    memset(&buf, 0, sizeof buf);
    build(list, kept, values, &bytes);
    build(list, kept, values, &again);
    FUZZ_CHECK(kv_equal(kv_buf_slice(&bytes), kv_buf_slice(&again)));
    FUZZ_CHECK(kv_fst_open_memory(NULL, kv_buf_slice(&bytes), &f) == KV_OK);
    FUZZ_CHECK(kv_fst_count(f) == kept);
    for (size_t i = 0; i < kept; i++) {
        kv_slice key = kv_bytes(list[i].key, list[i].size);
        uint64_t n = 0;
        FUZZ_CHECK(kv_fst_rank(f, key, &n) == KV_OK && n == i);
        if (values == KV_FST_U64) FUZZ_CHECK(kv_fst_get(f, key, &n) == KV_OK && n == list[i].value);
        FUZZ_CHECK(kv_fst_get_bytes(f, key, &buf) == KV_OK);
        if (values == KV_FST_BYTES) FUZZ_CHECK(kv_equal(kv_buf_slice(&buf), kv_bytes(list[i].key, (size_t)list[i].value % (list[i].size + 1))));
        FUZZ_CHECK(kv_fst_select(f, i, &buf) == KV_OK && kv_equal(kv_buf_slice(&buf), key));
    }
    w.list = list;
    w.at = 0;
    FUZZ_CHECK(kv_fst_scan(f, NULL, visit, &w) == KV_OK && w.at == kept);
    kv_fst_close(f);
    kv_buf_free(&bytes);
    kv_buf_free(&again);
    kv_buf_free(&buf);
    return 0;
}
