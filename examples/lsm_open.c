/* lsm_open.c - a durable store: open a directory, put, get, scan a prefix, close, open again

   Everything that kv_lsm_open needs is a path; NULL for the options is every default. */
#define KV_LSM_IMPLEMENTATION
#include "../kv_lsm.h"
#include <stdio.h>

static int fail(kv_lsm *db, kv_status s)
{
    fprintf(stderr, "%s: %s\n", kv_status_text(s), kv_last_error(kv_lsm_store(db)));
    return 1;
}
static bool print_entry(void *user, kv_slice key, kv_slice value)
{
    (void)user;
    printf("  %.*s = %.*s\n", (int)key.size, (const char *)key.data, (int)value.size, (const char *)value.data);
    return true;
}

int main(void)
{
    kv_lsm   *db;
    kv_buf    value = { 0 };
    kv_range  users = { 0 };
    kv_status s = kv_lsm_open("store", NULL, &db);
    if (s < 0) { fprintf(stderr, "%s\n", kv_status_text(s)); return 1; }
    kv_lsm_set(db, KV_STR("user:ada"), KV_STR("engine"));
    kv_lsm_set(db, KV_STR("user:grace"), KV_STR("compiler"));
    kv_lsm_set(db, KV_STR("user:alan"), KV_STR("machine"));
    kv_lsm_set(db, KV_STR("version"), KV_STR("1"));
    kv_lsm_delete(db, KV_STR("user:alan"));
    s = kv_lsm_close(db);                       /* flushed, and marked as closed cleanly */
    if (s < 0) { fprintf(stderr, "%s\n", kv_status_text(s)); return 1; }

    s = kv_lsm_open("store", NULL, &db);
    if (s < 0) { fprintf(stderr, "%s\n", kv_status_text(s)); return 1; }
    s = kv_lsm_get(db, KV_STR("user:grace"), &value);
    if (s < 0) return fail(db, s);
    printf("grace: %.*s\n", (int)value.size, (const char *)value.data);
    printf("alan: %s\n", kv_status_text(kv_lsm_get(db, KV_STR("user:alan"), &value)));
    users.prefix = KV_STR("user:");
    printf("users:\n");
    s = kv_lsm_scan(db, &users, print_entry, NULL);
    if (s < 0) return fail(db, s);
    kv_buf_free(&value);
    return kv_lsm_close(db) < 0;
}
