/* kv_order.h - what must be durable on a kv_disk before a kv_lsm store does something else

   For every test of a store in the directory "db" of a simulated disk:

       d->watch = order_watch;                      // d->watch_user = d: P4, too
       ... disk_violations(d) must stay 0

   P1   a manifest names a table only when its bytes and its name are durable; CURRENT a manifest likewise
   P2   a log or a table loses its name only when no manifest that a power cut may leave in use needs it
   P3   a manifest loses its name only when CURRENT, durable, names another one
   P4   a log is synced only when every older log that is needed is durable; asked only where
        d->watch_user is set: a crash and a failing disk leave older logs behind that nobody needs
   P6, P7 are in kv_disk.h. P5 (a synced write is durable when it returns) shows in the states that
   images have.

   Every operation is seen before it happens, and one at a time, however many threads the store has: the
   rules speak of the order of operations, not of who does them. Include kv_lsm.h first: a record's
   check is computed as there, to tell a record from a part of one. */
#ifndef KV_ORDER_H
#define KV_ORDER_H

#include "kv_disk.h"

static const char order_dir[] = "db";
static uint64_t   order_named;          /* tables that manifests named; under the disk's mutex */

static bool order_ends(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}
/* The manifest that a CURRENT names, or "" */
static void order_manifest_named(const disk_content *c, char *out, size_t size)
{
    size_t at = 0, n = 0;
    while (c && at + 8 < c->size && memcmp(c->bytes->data + at, "MANIFEST", 8) != 0) at++;
    while (c && at + n < c->size && n + 1 < size && (unsigned char)c->bytes->data[at + n] > ' ') { out[n] = c->bytes->data[at + n]; n++; }
    out[n] = 0;
}
static void order_current(disk *d, char *out, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "%s/CURRENT", order_dir);
    order_manifest_named(disk_file(d, path), out, size);
}
/* ... and the one that it names after a power cut which loses everything that may be lost. */
static void order_safe_current(disk *d, uint32_t dir, char *out, size_t size)
{
    const disk_name *safe = disk_names_find(&d->safe_names, dir, "CURRENT");
    order_manifest_named(safe ? &d->nodes[safe->node]->safe : NULL, out, size);
}

/* ---- records of a manifest: see >>format in kv_lsm.h ---- */

static uint64_t order_varint(const uint8_t **at, const uint8_t *end)
{
    uint64_t v = 0;
    for (int shift = 0; *at < end; shift += 7) {
        uint8_t byte = *(*at)++;
        if (shift < 64) v |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) break;
    }
    return v;
}
/* The next field: its tag, 0 where there is none that is known; its first numbers. */
static uint64_t order_field(const uint8_t **at, const uint8_t *end, uint64_t values[10])
{
    static const int numbers[9] = { 0, 1, 1, 1, 1, 10, 2, 2, 1 };
    while (*at < end) {
        uint64_t tag = order_varint(at, end);
        if (tag == 0 || (tag > 8 && tag < 128)) return 0;
        if (tag >= 128) { uint64_t size = order_varint(at, end); *at = size <= (uint64_t)(end - *at) ? *at + size : end; continue; }
        for (int i = 0; i < numbers[tag]; i++) values[i] = order_varint(at, end);
        for (int i = 0; tag == 5 && i < 2; i++) { uint64_t size = order_varint(at, end); *at = size <= (uint64_t)(end - *at) ? *at + size : end; }
        return tag;
    }
    return 0;
}
/* The size of the record at `offset` of a manifest, or 0: none that is whole. */
static size_t order_record(const disk_content *c, size_t offset)
{
    const uint8_t *file, *at;
    uint64_t       payload, seed;
    if (!c->bytes || c->size < 64 || c->size - offset < 28) return 0;
    file = (const uint8_t *)c->bytes->data;
    at = file + offset;
    payload = kvi_load_le32(at + 8);
    seed = kvi_lsm_seed(file + 16, kvi_load_le64(file + 32), KVI_LSM_MANIFEST);
    if (payload > c->size - offset - 28 || kvi_load_le32(at) != kvi_checksum(at + 4, 24, seed + offset)) return 0;
    return 28 + (size_t)payload;
}
/* P1: the tables that records from `offset` on name. */
static void order_watch_records(disk *d, const disk_content *c, size_t offset)
{
    for (size_t size = order_record(c, offset); size; offset += size, size = order_record(c, offset)) {
        const uint8_t *at = (const uint8_t *)c->bytes->data + offset + 28, *end = at - 28 + size;
        uint64_t       values[10] = { 0 }, tag;
        while ((tag = order_field(&at, end, values)) != 0) {
            char path[100];
            if (tag != 5) continue;
            snprintf(path, sizeof path, "%s/%06llu.kvt", order_dir, (unsigned long long)values[1]);
            order_named++;
            if (!disk_is_durable(d, path)) disk_violate(d, "P1 a manifest names a table that is not durable", path);
        }
    }
}
/* P2: does the manifest need the file, in any of the states that a power cut may leave? Those are what its
   durable records say, and what each one behind them makes of it. */
static bool order_needs(disk *d, const char *manifest, bool log, uint64_t number)
{
    char             path[200];
    disk_name        name;
    const disk_node *m;
    size_t           offset = 64, durable;
    uint64_t         log_from = 0;
    bool             named = false;
    snprintf(path, sizeof path, "%s/%.60s", order_dir, manifest);
    m = manifest[0] ? disk_lookup(d, path, &name) : NULL;
    if (!m) return false;
    durable = m->pending_count ? m->safe.size : m->now.size;
    for (size_t size = order_record(&m->now, offset); size; offset += size, size = order_record(&m->now, offset)) {
        const uint8_t *at = (const uint8_t *)m->now.bytes->data + offset + 28, *end = at - 28 + size;
        uint64_t       values[10] = { 0 }, tag;
        if (offset > 64 && offset + size > durable && (log ? number >= log_from : named)) return true;
        while ((tag = order_field(&at, end, values)) != 0) {
            if (tag == 3) log_from = values[0];
            if (tag == 5 && values[1] == number) named = true;
            if (tag == 6 && values[1] == number) named = false;
        }
    }
    return offset > 64 && (log ? number >= log_from : named);
}

/* ---- operations ---- */

/* An edit counts when it is written to the manifest in use, a new manifest when CURRENT takes it up. */
static void order_watch_manifest(disk *d, const disk_op *op, uint32_t dir)
{
    char current[64], path[200];
    if (op->kind == DISK_RENAME && op->to.dir == dir && strcmp(op->to.text, "CURRENT") == 0) {
        disk_content *c;
        order_manifest_named(&d->nodes[op->node]->now, current, sizeof current);
        snprintf(path, sizeof path, "%s/%.60s", order_dir, current);
        c = disk_file(d, path);
        if (c) order_watch_records(d, c, 64);
        if (!disk_is_durable(d, path)) disk_violate(d, "P1 CURRENT names a manifest that is not durable", path);
    } else if (op->kind == DISK_WRITE) {
        disk_name name;
        order_current(d, current, sizeof current);
        snprintf(path, sizeof path, "%s/%.60s", order_dir, current);
        if (current[0] && disk_lookup(d, path, &name) && name.node == op->node) order_watch_records(d, &d->nodes[op->node]->now, op->offset ? op->offset : 64);
    }
}
static void order_watch_remove(disk *d, const disk_op *op, uint32_t dir)
{
    char        current[64], safe[64], path[200];
    const char *name = op->to.text;
    bool        log = order_ends(name, ".log");
    uint64_t    number = strtoull(name, NULL, 10);
    order_current(d, current, sizeof current);
    order_safe_current(d, dir, safe, sizeof safe);
    if (strncmp(name, "MANIFEST", 8) == 0) {
        snprintf(path, sizeof path, "%s/CURRENT", order_dir);
        if (strcmp(current, name) == 0) disk_violate(d, "P3 removes the manifest that CURRENT names", name);
        else if (current[0] && !disk_is_durable(d, path)) disk_violate(d, "P3 removes a manifest before CURRENT is durable", name);
    } else if (log || order_ends(name, ".kvt")) {
        if (log && d->nodes[op->node]->now.size <= 64) return;      /* a log that was begun, and nothing written to it */
        if (order_needs(d, current, log, number)) disk_violate(d, "P2 removes a file that the manifest needs", name);
        if (strcmp(current, safe) != 0 && order_needs(d, safe, log, number)) disk_violate(d, "P2 removes a file before CURRENT is durable", name);
    }
}
static void order_watch_sync(disk *d, const disk_op *op, uint32_t dir)
{
    char             current[64], path[200];
    const disk_name *log = NULL;
    for (size_t i = 0; i < d->names.count; i++)
        if (d->names.list[i].node == op->node && d->names.list[i].dir == dir && order_ends(d->names.list[i].text, ".log")) log = &d->names.list[i];
    if (!log) return;
    order_current(d, current, sizeof current);
    for (size_t i = 0; i < d->names.count; i++) {
        const disk_name *other = &d->names.list[i];
        uint64_t         number = strtoull(other->text, NULL, 10);
        if (other->dir != dir || !order_ends(other->text, ".log") || number >= strtoull(log->text, NULL, 10)) continue;
        snprintf(path, sizeof path, "%s/%s", order_dir, other->text);
        if (!disk_is_durable(d, path) && order_needs(d, current, true, number)) disk_violate(d, "P4 syncs a log while an older one is not durable", other->text);
    }
}
static TEST_UNUSED void order_watch(void *user, disk *d, const disk_op *op)
{
    disk_name dir;
    if (!disk_walk(d, order_dir, &dir) || dir.node == UINT32_MAX) return;
    if (op->kind == DISK_REMOVE && op->to.dir == dir.node) order_watch_remove(d, op, dir.node);
    order_watch_manifest(d, op, dir.node);
    if (op->kind == DISK_SYNC && user) order_watch_sync(d, op, dir.node);
}

#endif
