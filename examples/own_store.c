/* own_store.c - a store of your own behind the handle of all kv stores: a few settings in fixed memory.
   Three functions are enough; kv.h does the rest (exists, view, batches, count, typed values...). */
#define KV_CORE_IMPLEMENTATION
#include "../kv.h"
#include <stdio.h>

typedef struct setting { char name[16]; size_t size; unsigned char value[16]; } setting;
typedef struct settings { kv_store store; size_t count; setting entries[8]; } settings;     /* the kv_store comes first */

static setting *settings_find(settings *s, kv_slice name)
{
    for (size_t i = 0; i < s->count; i++) if (kv_equal(kv_cstr(s->entries[i].name), name)) return &s->entries[i];
    return NULL;
}
static kv_status settings_get(kv_store *store, kv_slice name, kv_buf *value)
{
    setting *e = settings_find((settings *)store, name);
    return e ? kv_buf_assign(value, kv_bytes(e->value, e->size)) : KV_NOT_FOUND;
}
static kv_status settings_set(kv_store *store, kv_slice name, kv_slice value)
{
    settings *s = (settings *)store;
    setting  *e = settings_find(s, name);
    if (name.size >= sizeof e->name || value.size > sizeof e->value) return KV_ERR_TOO_LARGE;
    if (!e && s->count == 8) return KV_ERR_NO_SPACE;
    if (!e) { e = &s->entries[s->count++]; memcpy(e->name, name.data, name.size); e->name[name.size] = 0; }
    memcpy(e->value, value.data, e->size = value.size);
    return KV_OK;
}
static kv_status settings_scan(kv_store *store, const kv_range *range, kv_visit_fn visit, void *user)
{
    settings *s = (settings *)store;
    size_t    seen = 0;
    for (setting *e = s->entries; e < s->entries + s->count; e++) {
        if (!kv_range_has(range, kv_cstr(e->name))) continue;
        if (!visit(user, kv_cstr(e->name), kv_bytes(e->value, e->size)) || ++seen == range->limit) break;
    }
    return KV_OK;
}

int main(void)
{
    kv_store_ops ops = {0};
    settings     s = { { &ops, "settings", KV_CAP_WRITE }, 0, { { "", 0, { 0 } } } };
    kv_range     lamps = {0};
    uint64_t     count;
    int64_t      level;

    ops.get = settings_get; ops.set = settings_set; ops.scan = settings_scan;
    if (kv_set_int64(&s.store, KV_STR("lamp.level"), 70) < 0 || kv_set(&s.store, KV_STR("lamp.colour"), KV_STR("green")) < 0) return 1;
    if (kv_set_bool(&s.store, KV_STR("door.locked"), true) < 0 || kv_get_int64(&s.store, KV_STR("lamp.level"), &level) < 0) return 1;
    lamps.prefix = KV_STR("lamp.");
    if (kv_count(&s.store, &lamps, &count) < 0) return 1;
    printf("%s: %d about lamps, level %d\n", kv_store_name(&s.store), (int)count, (int)level);
    printf("window: %s; deleting: %s\n", kv_status_text(kv_exists(&s.store, KV_STR("window"))), kv_status_text(kv_delete(&s.store, KV_STR("door"))));
    return 0;
}
