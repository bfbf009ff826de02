/* fuzz_art.c
   Goal: no script of operations makes a kv_art differ from a sorted array, break an invariant, or touch
   memory that is not its own; in fixed memory it refuses cleanly and loses nothing.
   Method: the first byte chooses the kind of map (plain, concurrent, or in an arena of few KB); the rest
   is a script. A key is a run of one byte and then some bytes of the input, so that short inputs make
   long common prefixes, prefixes of each other, and deep trees. Each answer is compared with the model. */
#define KV_ART_IMPLEMENTATION
#include "../../kv_art.h"
#include "../kv_test.h"
#include "fuzz_main.h"

static char fuzz_keys[4][4096];

static kv_slice fuzz_key(fuzz_input *in, int which)
{
    uint8_t        run = fuzz_take(in);
    size_t         size, repeat = run < 128 ? run % 8u : run < 240 ? run : (size_t)run * 12;
    const uint8_t *tail;
    memset(fuzz_keys[which], run & 1 ? 'a' : 0, repeat);
    tail = fuzz_take_slice(in, 12, &size);
    if (size) memcpy(fuzz_keys[which] + repeat, tail, size);
    return kv_bytes(fuzz_keys[which], repeat + size);
}
static kv_slice fuzz_value(fuzz_input *in)
{
    static char value[40000];
    uint8_t     kind = fuzz_take(in);
    size_t      size = kind < 200 ? kind % 20u : kind < 250 ? kind : kind < 254 ? 3000 : 33000;
    memset(value, kind, size);
    return kv_bytes(value, size);
}

typedef struct fuzz_scan { const test_model *model; const size_t *list; size_t seen, count; } fuzz_scan;
static bool fuzz_visit(void *user, kv_slice key, kv_slice value)
{
    fuzz_scan        *s = (fuzz_scan *)user;
    const test_entry *e;
    FUZZ_CHECK(s->seen < s->count);
    e = &s->model->entries[s->list[s->seen++]];
    FUZZ_CHECK(kv_equal(key, test_entry_key(e)) && kv_equal(value, test_entry_value(e)));
    return true;
}

static kv_range fuzz_range(fuzz_input *in)
{
    kv_range r;
    uint8_t  shape = fuzz_take(in);
    memset(&r, 0, sizeof r);
    if (shape & 1) r.from = fuzz_key(in, 1);
    if (shape & 2) r.to = fuzz_key(in, 2);
    if (shape & 4) r.prefix = fuzz_key(in, 3);
    if (shape & 8) r.limit = fuzz_take(in) % 9u;
    r.reverse = (shape & 16) != 0;
    return r;
}

static void fuzz_one_range(kv_art *map, test_model *model, fuzz_input *in, bool remove)
{
    kv_range  r = fuzz_range(in);
    fuzz_scan s;
    size_t   *list;
    uint64_t  n = 0;
    kv_status status;
    s.model = model;
    s.seen = 0;
    s.list = list = test_model_range(model, &r, &s.count);
    status = kv_art_scan(map, &r, fuzz_visit, &s);
    FUZZ_CHECK(status == KV_ERR_NO_MEMORY || (status == KV_OK && s.seen == s.count));
    status = kv_art_count_range(map, &r, &n);
    FUZZ_CHECK(status == KV_ERR_NO_MEMORY || (status == KV_OK && n == s.count));
    if (remove) {
        status = kv_art_delete_range(map, &r, &n);
        FUZZ_CHECK(status == KV_ERR_NO_MEMORY || (status == KV_OK && n == s.count));
        for (size_t i = 0; i < n; i++) {        /* positions stay right from the greatest down */
            size_t     at = list[r.reverse ? i : (size_t)n - 1 - i];
            test_entry gone = model->entries[at];
            model->entries[at].key = (char *)memcpy(malloc(gone.key_size + 1), gone.key, gone.key_size + 1);
            FUZZ_CHECK(test_model_delete(model, kv_bytes(gone.key, gone.key_size)));
            free(gone.key);
        }
    }
    free(list);
}

static void fuzz_cursor(kv_art *map, const test_model *model, fuzz_input *in)
{
    kv_iter *i;
    size_t   at = 0;
    if (kv_art_iter_open(map, NULL, &i) < 0) return;
    for (int step = 0; step < 12 && kv_iter_status(i) == KV_OK; step++) {
        FUZZ_CHECK(kv_iter_valid(i) == (at < model->count));
        if (at < model->count) FUZZ_CHECK(kv_equal(kv_iter_key(i), test_entry_key(&model->entries[at])) && kv_equal(kv_iter_value(i), test_entry_value(&model->entries[at])));
        switch (fuzz_take(in) % 4) {
        case 0: { kv_slice k = fuzz_key(in, 1); kv_iter_seek(i, k); at = test_model_lower(model, k); break; }
        case 1: kv_iter_prev(i); at = at < model->count && at ? at - 1 : SIZE_MAX; break;
        default: kv_iter_next(i); at = at < model->count ? at + 1 : SIZE_MAX; break;
        }
    }
    kv_iter_close(i);
}

static void fuzz_step(kv_art *map, test_model *model, fuzz_input *in)
{
    uint8_t           op = fuzz_take(in);
    kv_slice          key, value, got;
    const test_entry *e;
    kv_pair           entry;
    kv_status         s;
    if (op % 16 == 12) { fuzz_one_range(map, model, in, false); return; }
    if (op % 16 == 13) { fuzz_one_range(map, model, in, true); return; }
    if (op % 16 == 14) { fuzz_cursor(map, model, in); return; }
    key = fuzz_key(in, 0);
    e = test_model_get(model, key);
    if (op % 16 < 7) {
        value = fuzz_value(in);
        s = op & 1 ? kv_art_set(map, key, value) : kv_art_insert(map, key, value);
        if (!(op & 1) && e) FUZZ_CHECK(s == KV_EXISTS || s == KV_ERR_NO_MEMORY);
        else FUZZ_CHECK(s == KV_OK || s == KV_ERR_NO_MEMORY);
        if (s == KV_OK) test_model_set(model, key, value);
    } else if (op % 16 < 11) {
        s = kv_art_delete(map, key);
        FUZZ_CHECK(s == (e ? KV_OK : KV_NOT_FOUND) || (e && s == KV_ERR_NO_MEMORY));
        if (s == KV_OK) test_model_delete(model, key);
    } else if (op & 64) {
        kv_slice probe = key;
        for (;; probe.size--) {
            e = test_model_get(model, probe);
            if (e || !probe.size) break;
        }
        s = kv_art_longest_prefix(map, key, &entry);
        FUZZ_CHECK(s == KV_ERR_NO_MEMORY || (s == (e ? KV_OK : KV_NOT_FOUND) && (!e || (entry.key.size == e->key_size && kv_equal(entry.value, test_entry_value(e))))));
    } else if (kv_art_store(map)->caps & KV_CAP_THREADS) {
        FUZZ_CHECK(kv_art_exists(map, key) == (e ? KV_OK : KV_NOT_FOUND));
    } else {
        s = kv_art_get(map, key, &got);
        FUZZ_CHECK(s == (e ? KV_OK : KV_NOT_FOUND) && (!e || kv_equal(got, test_entry_value(e))));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned char memory[32768];
    fuzz_input     in = { data, size };
    uint8_t        kind = fuzz_take(&in);
    kv_arena       arena;
    kv_art_options o;
    kv_art        *map;
    test_model     model;
    memset(&o, 0, sizeof o);
    memset(&model, 0, sizeof model);
    o.concurrent = (kind & 3) == 1;
    if ((kind & 3) == 2) o.allocator = kv_arena_init(&arena, memory, 4096 + (kind >> 2) * 400u);
    if (kv_art_open(&o, &map) < 0) return 0;
    for (int step = 0; in.size && step < 3000; step++) {
        fuzz_step(map, &model, &in);
        if (step % 8 == 0) { kv_status s = kv_art_check(map); FUZZ_CHECK(s == KV_OK || s == KV_ERR_NO_MEMORY); }
    }
    FUZZ_CHECK(kv_art_count(map) == model.count);
    for (size_t i = 0; i < model.count; i++) FUZZ_CHECK(kv_art_exists(map, test_entry_key(&model.entries[i])) == KV_OK);
    while (model.count) {
        kv_status s = kv_art_delete(map, test_entry_key(&model.entries[model.count / 2]));
        test_entry gone = model.entries[model.count / 2];
        FUZZ_CHECK(s == KV_OK || s == KV_ERR_NO_MEMORY);
        model.entries[model.count / 2].key = (char *)memcpy(malloc(gone.key_size + 1), gone.key, gone.key_size + 1);
        test_model_delete(&model, kv_bytes(gone.key, gone.key_size));
        free(gone.key);
    }
    kv_art_close(map);
    test_model_free(&model);
    if ((kind & 3) == 2) FUZZ_CHECK(arena.used_bytes == 0);
    return 0;
}
