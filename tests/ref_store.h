/* ref_store.h - a store over test_model, for the tests of what kv.h does around a store

   Slow and plain on purpose. Its cursor gives out copies that are poisoned and freed at the next move,
   so that a stale slice shows. It fails where it is told to: the n-th raw move from now on answers
   `fail_with`. What a test clears in `ops` it lacks. */
#ifndef KV_REF_STORE_H
#define KV_REF_STORE_H
#include "kv_test.h"

typedef struct ref_store {
    kv_store     store;
    kv_store_ops ops;
    test_model   model;
    kv_allocator allocator;         /* of cursors */
    size_t       moves_until_failure;       /* 0: none */
    kv_status    fail_with;
    size_t       cursors;           /* open ones */
    bool         closed;
} ref_store;

typedef struct ref_iter { kv_iter base; size_t at; char *key, *value; } ref_iter;

static char *ref_exact_copy(kv_slice s)     /* no byte more than asked for: a sanitizer sees an overrun */
{
    char *copy = (char *)malloc(s.size ? s.size : 1);
    if (!copy) abort();
    if (s.size) memcpy(copy, s.data, s.size);
    return copy;
}
static void ref_iter_drop(ref_iter *i)
{
    if (i->key) memset(i->key, 0xDD, i->base.key.size);
    if (i->value) memset(i->value, 0xDD, i->base.value.size);
    free(i->key);
    free(i->value);
    i->key = i->value = NULL;
}
static void ref_iter_go(ref_iter *i, size_t at)     /* SIZE_MAX or past the end: nowhere */
{
    ref_store *s = (ref_store *)i->base.store;
    char *key = NULL, *value = NULL;
    bool  there = at < s->model.count;
    if (s->moves_until_failure && --s->moves_until_failure == 0) {
        i->base.valid = false;
        i->base.status = s->fail_with;
        return;
    }
    if (there) {
        key = ref_exact_copy(test_entry_key(&s->model.entries[at]));
        value = ref_exact_copy(test_entry_value(&s->model.entries[at]));
    }
    ref_iter_drop(i);
    i->at = at;
    i->base.valid = there;
    i->base.status = KV_OK;
    if (!there) return;
    i->key = key;
    i->value = value;
    i->base.key = kv_bytes(key, s->model.entries[at].key_size);
    i->base.value = kv_bytes(value, s->model.entries[at].value_size);
}
static test_model *ref_model(kv_iter *i) { return &((ref_store *)i->store)->model; }
static void ref_iter_seek(kv_iter *i, kv_slice key)        { ref_iter_go((ref_iter *)i, test_model_lower(ref_model(i), key)); }
static void ref_iter_seek_before(kv_iter *i, kv_slice key) { ref_iter_go((ref_iter *)i, test_model_lower(ref_model(i), key) - 1); }
static void ref_iter_last(kv_iter *i) { ref_iter_go((ref_iter *)i, ref_model(i)->count - 1); }
static void ref_iter_next(kv_iter *i) { if (CHECK(i->valid)) ref_iter_go((ref_iter *)i, ((ref_iter *)i)->at + 1); }
static void ref_iter_prev(kv_iter *i) { if (CHECK(i->valid)) ref_iter_go((ref_iter *)i, ((ref_iter *)i)->at - 1); }
static kv_slice ref_iter_value(kv_iter *i)
{
    CHECK(i->valid);
    return kv_bytes(((ref_iter *)i)->value, i->value.size);
}
static void ref_iter_close(kv_iter *i)
{
    ref_store   *s = (ref_store *)i->store;
    kv_allocator a = s->allocator;
    s->cursors--;
    ref_iter_drop((ref_iter *)i);
    kvi_free(&a, i, sizeof(ref_iter));
}
static kv_status ref_iter_open(kv_store *store, kv_iter **iter)
{
    static const kv_iter_ops with_value = { ref_iter_seek, ref_iter_seek_before, ref_iter_last, ref_iter_next, ref_iter_prev, ref_iter_value, ref_iter_close };
    static const kv_iter_ops plain      = { ref_iter_seek, ref_iter_seek_before, ref_iter_last, ref_iter_next, ref_iter_prev, NULL, ref_iter_close };
    ref_store *s = (ref_store *)store;
    ref_iter  *i = (ref_iter *)kvi_alloc_zero(&s->allocator, sizeof *i);
    if (!i) return KV_ERR_NO_MEMORY;
    i->base.ops = s->model.count % 2 ? &with_value : &plain;
    i->base.store = store;
    i->base.allocator = s->allocator;
    s->cursors++;
    *iter = &i->base;
    return KV_OK;
}

static kv_status ref_get(kv_store *s, kv_slice key, kv_buf *value)
{
    const test_entry *e = test_model_get(&((ref_store *)s)->model, key);
    return e ? kv_buf_assign(value, test_entry_value(e)) : KV_NOT_FOUND;
}
static kv_status ref_view(kv_store *s, kv_slice key, kv_visit_fn visit, void *user)
{
    const test_entry *e = test_model_get(&((ref_store *)s)->model, key);
    if (!e) return KV_NOT_FOUND;
    (void)visit(user, test_entry_key(e), test_entry_value(e));
    return KV_OK;
}
static kv_status ref_set(kv_store *s, kv_slice key, kv_slice value)
{
    if (kv_check_key(key) < 0) return kv_check_key(key);
    test_model_set(&((ref_store *)s)->model, key, value);
    return KV_OK;
}
static kv_status ref_remove(kv_store *s, kv_slice key)
{
    if (kv_check_key(key) < 0) return kv_check_key(key);
    (void)test_model_delete(&((ref_store *)s)->model, key);
    return KV_OK;
}
static kv_status ref_scan(kv_store *s, const kv_range *range, kv_visit_fn visit, void *user)
{
    test_model *m = &((ref_store *)s)->model;
    size_t      count, *list = test_model_range(m, range, &count);
    for (size_t k = 0; k < count; k++) if (!visit(user, test_entry_key(&m->entries[list[k]]), test_entry_value(&m->entries[list[k]]))) break;
    free(list);
    return KV_OK;
}
static kv_status ref_close(kv_store *s)
{
    test_model_free(&((ref_store *)s)->model);
    ((ref_store *)s)->closed = true;
    return KV_OK;
}

/* A store that has get, set, remove and a cursor; add or clear ops as the test needs. */
static TEST_UNUSED void ref_store_init(ref_store *s)
{
    memset(s, 0, sizeof *s);
    s->store.ops = &s->ops;
    s->store.name = "ref";
    s->store.caps = KV_CAP_ORDERED | KV_CAP_WRITE;
    s->ops.get = ref_get;
    s->ops.set = ref_set;
    s->ops.remove = ref_remove;
    s->ops.iter_open = ref_iter_open;
    s->ops.close = ref_close;
    (void)ref_view; (void)ref_scan;
}
#endif
