/* lsm_batch.c - all or nothing, and a view that stands still

   A transfer between two accounts is one batch: no reader and no crash ever sees half of it. A
   snapshot keeps showing the moment in which it was taken. */
#define KV_LSM_IMPLEMENTATION
#include "../kv_lsm.h"
#include <stdio.h>

static kv_status transfer(kv_lsm *db, kv_slice from, kv_slice to, int64_t amount)
{
    kv_store     *store = kv_lsm_store(db);
    kv_lsm_batch *batch;
    kv_value      value = { KV_INT64, { 0 } };
    kv_buf        bytes = { 0 };
    int64_t       a = 0, b = 0;
    kv_status     s = kv_lsm_batch_open(NULL, &batch);
    if (s < 0) return s;
    s = kv_get_int64(store, from, &a);
    if (s == KV_OK) s = kv_get_int64(store, to, &b);
    value.as.int64 = a - amount;
    if (s == KV_OK) s = kv_value_encode(&value, &bytes);
    if (s == KV_OK) s = kv_lsm_batch_put(batch, from, kv_buf_slice(&bytes));
    value.as.int64 = b + amount;
    if (s == KV_OK) s = kv_value_encode(&value, &bytes);
    if (s == KV_OK) s = kv_lsm_batch_put(batch, to, kv_buf_slice(&bytes));
    if (s == KV_OK) s = kv_lsm_write(db, batch);
    kv_buf_free(&bytes);
    kv_lsm_batch_close(batch);
    return s;
}
static bool print_balance(void *user, kv_slice key, kv_slice value)
{
    kv_value v;
    (void)user;
    if (kv_value_decode(value, &v) == KV_OK) printf("  %.*s %lld\n", (int)key.size, (const char *)key.data, (long long)v.as.int64);
    return true;
}

int main(void)
{
    kv_lsm      *db;
    kv_snapshot *before;
    kv_iter     *i;
    if (kv_lsm_open("bank", NULL, &db) < 0) return 1;
    kv_set_int64(kv_lsm_store(db), KV_STR("ada"), 100);
    kv_set_int64(kv_lsm_store(db), KV_STR("grace"), 20);
    kv_lsm_snapshot(db, &before);
    if (transfer(db, KV_STR("ada"), KV_STR("grace"), 30) < 0) return 1;

    printf("now:\n");
    kv_lsm_scan(db, NULL, print_balance, NULL);
    printf("in the snapshot:\n");
    if (kv_lsm_iter_open(db, before, NULL, &i) < 0) return 1;
    for (; kv_iter_valid(i); kv_iter_next(i)) print_balance(NULL, kv_iter_key(i), kv_iter_value(i));
    kv_iter_close(i);
    kv_lsm_snapshot_release(db, before);
    return kv_lsm_close(db) < 0;
}
