/* unit_store.c
   Goal: whatever a store leaves out of its kv_store_ops, the calls on its handle do what kv.h says.
   Method: one reference store (ref_store.h) in several minimal forms; the same questions to each. */
#define KV_CORE_IMPLEMENTATION
#include "../../kv.h"
#include "../kv_test.h"
#include "../ref_store.h"

typedef enum form { GET_AND_SCAN, VIEW_AND_CURSOR, GET_AND_CURSOR, VIEW_AND_SCAN, FORMS } form;
static const char *const form_names[] = { "get and scan", "view and iter_open", "get and iter_open", "view and scan" };

static void store_of(ref_store *s, form f)
{
    ref_store_init(s);
    memset(&s->ops, 0, sizeof s->ops);
    if (f == GET_AND_SCAN || f == GET_AND_CURSOR) s->ops.get = ref_get; else s->ops.view = ref_view;
    if (f == GET_AND_SCAN || f == VIEW_AND_SCAN) s->ops.scan = ref_scan; else s->ops.iter_open = ref_iter_open;
    test_model_set(&s->model, KV_STR("apple"), KV_STR("red"));
    test_model_set(&s->model, KV_STR("apricot"), KV_STR(""));
    test_model_set(&s->model, KV_STR("banana"), KV_STR("yellow"));
    test_model_set(&s->model, KV_STR(""), KV_STR("the empty key"));
}

typedef struct seen { size_t calls; char text[200]; } seen;
static bool see(void *user, kv_slice key, kv_slice value)
{
    seen  *v = (seen *)user;
    size_t at = strlen(v->text);
    v->calls++;
    snprintf(v->text + at, sizeof v->text - at, "%.*s=%.*s;", (int)key.size, key.size ? (const char *)key.data : "", (int)value.size, value.size ? (const char *)value.data : "");
    return true;
}
static bool see_one(void *user, kv_slice key, kv_slice value) { (void)see(user, key, value); return false; }

TEST(store, minimal_forms_answer_every_read)
{
    for (int f = 0; f < FORMS; f++) {
        ref_store s;
        kv_buf    value, values[3];
        kv_slice  keys[3];
        kv_status statuses[3];
        uint64_t  n = 0;
        kv_range  r;
        seen      v;
        kv_stats  stats;
        store_of(&s, (form)f);
        memset(&value, 0, sizeof value);
        memset(values, 0, sizeof values);
        memset(&r, 0, sizeof r);

        CHECK_OK(kv_get(&s.store, KV_STR("apple"), &value));
        CHECK_BYTES(kv_buf_slice(&value), KV_STR("red"));
        CHECK_STATUS(kv_get(&s.store, KV_STR("cherry"), &value), KV_NOT_FOUND);
        CHECK_BYTES(kv_buf_slice(&value), KV_STR("red"));               /* left as it was */
        CHECK_OK(kv_get(&s.store, KV_STR("apricot"), &value));
        CHECK_EQ(value.size, 0);                                        /* an empty value is a value */
        CHECK_OK(kv_get(&s.store, kv_bytes(NULL, 0), &value));
        CHECK_BYTES(kv_buf_slice(&value), KV_STR("the empty key"));
        CHECK_OK(kv_exists(&s.store, KV_STR("apricot")));
        CHECK_STATUS(kv_exists(&s.store, KV_STR("apric")), KV_NOT_FOUND);

        memset(&v, 0, sizeof v);
        CHECK_OK(kv_view(&s.store, KV_STR("banana"), see, &v));
        CHECK(v.calls == 1 && !strcmp(v.text, "banana=yellow;"));
        CHECK_OK(kv_view(&s.store, KV_STR("banana"), see_one, &v));     /* false from visit is no failure */
        CHECK_STATUS(kv_view(&s.store, KV_STR("x"), see, &v), KV_NOT_FOUND);
        CHECK_EQ(v.calls, 2);

        keys[0] = KV_STR("banana"); keys[1] = KV_STR("none"); keys[2] = KV_STR("apple");
        CHECK_OK(kv_buf_assign(&values[1], KV_STR("kept")));
        CHECK_OK(kv_batch_get(&s.store, keys, 3, values, statuses));
        CHECK(statuses[0] == KV_OK && statuses[1] == KV_NOT_FOUND && statuses[2] == KV_OK);
        CHECK_BYTES(kv_buf_slice(&values[0]), KV_STR("yellow"));
        CHECK_BYTES(kv_buf_slice(&values[1]), KV_STR("kept"));
        CHECK_BYTES(kv_buf_slice(&values[2]), KV_STR("red"));
        CHECK_OK(kv_batch_get(&s.store, keys, 3, values, NULL));

        memset(&v, 0, sizeof v);
        CHECK_OK(kv_scan(&s.store, NULL, see, &v));
        CHECK(!strcmp(v.text, "=the empty key;apple=red;apricot=;banana=yellow;"));
        r.prefix = KV_STR("ap");
        memset(&v, 0, sizeof v);
        CHECK_OK(kv_scan(&s.store, &r, see_one, &v));
        CHECK_EQ(v.calls, 1);
        CHECK_OK(kv_count(&s.store, &r, &n));
        CHECK_EQ(n, 2);
        CHECK_OK(kv_count(&s.store, NULL, &n));
        CHECK_EQ(n, 4);
        CHECK_OK(kv_store_stats(&s.store, &stats));
        CHECK(stats.keys == 4 && stats.key_bytes == 18 && stats.value_bytes == 22 && !stats.memory_bytes && !stats.disk_bytes);

        CHECK_STATUS(kv_set(&s.store, KV_STR("a"), KV_STR("b")), KV_ERR_READ_ONLY);
        CHECK_STATUS(kv_delete(&s.store, KV_STR("a")), KV_ERR_READ_ONLY);
        CHECK_STATUS(kv_batch_delete(&s.store, keys, 3), KV_ERR_READ_ONLY);
        CHECK_OK(kv_flush(&s.store));
        CHECK(!strcmp(kv_last_error(&s.store), ""));
        CHECK(!strcmp(kv_store_name(&s.store), "ref"));
        if (!s.ops.iter_open) { kv_iter *i; CHECK_STATUS(kv_iter_open(&s.store, NULL, &i), KV_ERR_UNSUPPORTED); }
        CHECK_OK(kv_close(&s.store));                                   /* no close of its own: nothing happens */
        CHECK(!s.closed);

        for (int k = 0; k < 3; k++) kv_buf_free(&values[k]);
        kv_buf_free(&value);
        test_model_free(&s.model);
        if (test_failed_checks) { fprintf(stderr, "in the form: %s\n", form_names[f]); return; }
    }
}

TEST(store, with_nothing_at_all_says_unsupported)
{
    ref_store s;
    kv_buf    value;
    uint64_t  n = 5;
    kv_stats  stats;
    seen      v;
    kv_slice  key = KV_STR("k");
    kv_status status;
    ref_store_init(&s);
    memset(&s.ops, 0, sizeof s.ops);
    memset(&value, 0, sizeof value);
    memset(&v, 0, sizeof v);
    CHECK_STATUS(kv_get(&s.store, key, &value), KV_ERR_UNSUPPORTED);
    CHECK_STATUS(kv_view(&s.store, key, see, &v), KV_ERR_UNSUPPORTED);
    CHECK_STATUS(kv_exists(&s.store, key), KV_ERR_UNSUPPORTED);
    CHECK_STATUS(kv_batch_get(&s.store, &key, 1, &value, &status), KV_ERR_UNSUPPORTED);
    CHECK_STATUS(kv_scan(&s.store, NULL, see, &v), KV_ERR_UNSUPPORTED);
    CHECK_STATUS(kv_count(&s.store, NULL, &n), KV_ERR_UNSUPPORTED);
    CHECK_EQ(n, 5);
    CHECK_STATUS(kv_store_stats(&s.store, &stats), KV_ERR_UNSUPPORTED);
    CHECK_STATUS(kv_batch_set(&s.store, NULL, 0), KV_OK);
    s.store.name = NULL;
    CHECK(!strcmp(kv_store_name(&s.store), ""));
}

TEST(store, batches_go_on_or_stop_as_promised)
{
    enum { MANY = 200 };
    static char digits[MANY][8];
    ref_store s;
    kv_pair   pairs[MANY];
    kv_slice  keys[MANY];
    kv_buf    values[MANY];
    kv_status statuses[MANY];
    ref_store_init(&s);
    memset(values, 0, sizeof values);
    for (int i = 0; i < MANY; i++) {
        snprintf(digits[i], sizeof digits[i], "%d", i % 150);           /* the last 50 are the first 50 again */
        keys[i] = pairs[i].key = kv_cstr(digits[i]);
        pairs[i].value = i < 150 ? KV_STR("old") : KV_STR("new");
    }
    CHECK_OK(kv_batch_set(&s.store, pairs, MANY));
    CHECK_EQ(s.model.count, 150);
    CHECK_OK(kv_batch_get(&s.store, keys, MANY, values, NULL));         /* more than fit an array of ours */
    CHECK_BYTES(kv_buf_slice(&values[3]), KV_STR("new"));
    CHECK_BYTES(kv_buf_slice(&values[149]), KV_STR("old"));
    CHECK_BYTES(kv_buf_slice(&values[199]), KV_STR("new"));
    pairs[2].key = kv_bytes(digits, KV_KEY_SIZE_MAX + 1u);              /* refused */
    pairs[0].value = pairs[1].value = pairs[3].value = KV_STR("newest");
    CHECK_STATUS(kv_batch_set(&s.store, pairs, MANY), KV_ERR_TOO_LARGE);
    CHECK_OK(kv_get(&s.store, keys[1], &values[0]));
    CHECK_BYTES(kv_buf_slice(&values[0]), KV_STR("newest"));
    CHECK_OK(kv_get(&s.store, keys[3], &values[0]));
    CHECK_BYTES(kv_buf_slice(&values[0]), KV_STR("new"));
    CHECK_OK(kv_batch_delete(&s.store, keys, MANY));                    /* also keys that are gone by then */
    CHECK_EQ(s.model.count, 0);
    CHECK_OK(kv_batch_get(&s.store, keys, MANY, values, statuses));
    for (int i = 0; i < MANY; i++) CHECK(statuses[i] == KV_NOT_FOUND);
    CHECK_OK(kv_batch_get(&s.store, NULL, 0, NULL, NULL));
    CHECK_OK(kv_batch_delete(&s.store, NULL, 0));
    CHECK_STATUS(kv_batch_get(&s.store, NULL, 1, values, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_batch_get(&s.store, keys, 1, NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_batch_set(&s.store, NULL, 1), KV_ERR_INVALID);
    CHECK_STATUS(kv_batch_delete(&s.store, NULL, 1), KV_ERR_INVALID);
    for (int i = 0; i < MANY; i++) kv_buf_free(&values[i]);
    CHECK_OK(kv_close(&s.store));
    CHECK(s.closed);
}

TEST(store, a_batch_get_answers_the_keys_behind_a_failure_too)
{
    ref_store   s;
    test_memory m;
    kv_buf      values[3];
    kv_slice    keys[3];
    kv_status   statuses[3];
    ref_store_init(&s);
    memset(&m, 0, sizeof m);
    memset(values, 0, sizeof values);
    test_model_set(&s.model, KV_STR("a"), KV_STR("1"));
    for (int i = 0; i < 3; i++) { keys[i] = KV_STR("a"); values[i].allocator = test_allocator(&m); }
    m.fail_at = 2;
    CHECK_STATUS(kv_batch_get(&s.store, keys, 3, values, statuses), KV_ERR_NO_MEMORY);
    CHECK(statuses[0] == KV_OK && statuses[1] == KV_ERR_NO_MEMORY && statuses[2] == KV_OK);
    for (int i = 0; i < 3; i++) kv_buf_free(&values[i]);
    CHECK_EQ(m.live_bytes, 0);
    test_model_free(&s.model);
}

TEST(store, no_handle_and_no_place_for_a_result_are_invalid)
{
    ref_store s;
    kv_buf    value;
    uint64_t  n;
    kv_stats  stats;
    kv_slice  key = KV_STR("k");
    ref_store_init(&s);
    memset(&value, 0, sizeof value);
    CHECK_STATUS(kv_get(NULL, key, &value), KV_ERR_INVALID);
    CHECK_STATUS(kv_get(&s.store, key, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_set(NULL, key, key), KV_ERR_INVALID);
    CHECK_STATUS(kv_delete(NULL, key), KV_ERR_INVALID);
    CHECK_STATUS(kv_exists(NULL, key), KV_ERR_INVALID);
    CHECK_STATUS(kv_view(NULL, key, see, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_view(&s.store, key, NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_scan(NULL, NULL, see, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_scan(&s.store, NULL, NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_count(NULL, NULL, &n), KV_ERR_INVALID);
    CHECK_STATUS(kv_count(&s.store, NULL, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_batch_get(NULL, &key, 1, &value, NULL), KV_ERR_INVALID);
    CHECK_STATUS(kv_batch_set(NULL, NULL, 0), KV_ERR_INVALID);
    CHECK_STATUS(kv_batch_delete(NULL, NULL, 0), KV_ERR_INVALID);
    CHECK_STATUS(kv_flush(NULL), KV_ERR_INVALID);
    CHECK_OK(kv_close(NULL));
    CHECK_STATUS(kv_store_stats(NULL, &stats), KV_ERR_INVALID);
    CHECK_STATUS(kv_store_stats(&s.store, NULL), KV_ERR_INVALID);
    CHECK(!strcmp(kv_store_name(NULL), "") && !strcmp(kv_last_error(NULL), "") && kv_store_caps(NULL) == 0);
    CHECK_EQ(kv_store_caps(&s.store), KV_CAP_ORDERED | KV_CAP_WRITE);
}

/* ---- typed values on a store ---- */

TEST(store, typed_values_by_get_and_by_view)
{
    for (int form = 0; form < 2; form++) {
        ref_store s;
        kv_buf    b;
        kv_value  v;
        int64_t   n = 0;
        double    d = 0;
        bool      t = false;
        ref_store_init(&s);
        if (form) { s.ops.get = NULL; s.ops.view = ref_view; }
        memset(&b, 0, sizeof b);
        memset(&v, 0, sizeof v);
        CHECK_OK(kv_set_int64(&s.store, KV_STR("i"), INT64_MIN));
        CHECK_OK(kv_set_float64(&s.store, KV_STR("f"), -0.5));
        CHECK_OK(kv_set_bool(&s.store, KV_STR("b"), true));
        CHECK_OK(kv_set_string(&s.store, KV_STR("s"), KV_STR("text")));
        CHECK_OK(kv_set_bytes(&s.store, KV_STR("y"), KV_STR("\0\1")));
        CHECK_OK(kv_set(&s.store, KV_STR("raw"), KV_STR("no type")));
        CHECK_OK(kv_set(&s.store, KV_STR("empty"), KV_STR("")));
        CHECK_OK(kv_get_int64(&s.store, KV_STR("i"), &n));
        CHECK(n == INT64_MIN);
        CHECK_OK(kv_get_float64(&s.store, KV_STR("f"), &d));
        CHECK(d < -0.4 && d > -0.6);
        CHECK_OK(kv_get_bool(&s.store, KV_STR("b"), &t));
        CHECK(t);
        CHECK_OK(kv_get_string(&s.store, KV_STR("s"), &b));
        CHECK_BYTES(kv_buf_slice(&b), KV_STR("text"));
        CHECK_OK(kv_get_bytes(&s.store, KV_STR("y"), &b));
        CHECK_BYTES(kv_buf_slice(&b), KV_STR("\0\1"));

        for (int k = 0; k < 7; k++) {               /* each key asked for every type */
            static const char *const keys[] = { "i", "f", "b", "s", "y", "raw", "empty" };
            kv_slice key = kv_cstr(keys[k]);
            n = 7; d = 7; t = false;
            CHECK_OK(kv_buf_assign(&b, KV_STR("kept")));
            CHECK_STATUS(kv_get_int64(&s.store, key, &n), k == 0 ? KV_OK : KV_ERR_WRONG_TYPE);
            CHECK(k == 0 || n == 7);
            CHECK_STATUS(kv_get_float64(&s.store, key, &d), k == 1 ? KV_OK : KV_ERR_WRONG_TYPE);
            CHECK_STATUS(kv_get_bool(&s.store, key, &t), k == 2 ? KV_OK : KV_ERR_WRONG_TYPE);
            if (k != 3) { CHECK_STATUS(kv_get_string(&s.store, key, &b), KV_ERR_WRONG_TYPE); CHECK_BYTES(kv_buf_slice(&b), KV_STR("kept")); }
            if (k != 4) { CHECK_STATUS(kv_get_bytes(&s.store, key, &b), KV_ERR_WRONG_TYPE); CHECK_BYTES(kv_buf_slice(&b), KV_STR("kept")); }
            CHECK_STATUS(kv_get_value(&s.store, key, &v, &b), k < 5 ? KV_OK : KV_ERR_WRONG_TYPE);
            if (k < 5) CHECK_EQ(v.type, k + 1);
        }
        CHECK_STATUS(kv_get_int64(&s.store, KV_STR("none"), &n), KV_NOT_FOUND);
        CHECK_STATUS(kv_get_value(&s.store, KV_STR("none"), &v, &b), KV_NOT_FOUND);
        CHECK_STATUS(kv_get_int64(&s.store, KV_STR("i"), NULL), KV_ERR_INVALID);
        CHECK_STATUS(kv_get_string(&s.store, KV_STR("s"), NULL), KV_ERR_INVALID);
        CHECK_STATUS(kv_get_value(&s.store, KV_STR("s"), &v, NULL), KV_ERR_INVALID);
        CHECK_STATUS(kv_set_value(&s.store, KV_STR("s"), NULL), KV_ERR_INVALID);
        CHECK_STATUS(kv_set_int64(NULL, KV_STR("s"), 1), KV_ERR_INVALID);
        v.type = (kv_type)9;
        CHECK_STATUS(kv_set_value(&s.store, KV_STR("i"), &v), KV_ERR_INVALID);
        CHECK_STATUS(kv_set_bytes(&s.store, KV_STR("i"), kv_bytes(NULL, 4)), KV_ERR_INVALID);
        CHECK_OK(kv_get_int64(&s.store, KV_STR("i"), &n));
        kv_buf_free(&b);
        test_model_free(&s.model);
    }
}

TEST_MAIN()
