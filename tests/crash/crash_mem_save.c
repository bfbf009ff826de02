/* crash_mem_save.c
   Goal: kv_mem_save never leaves a mixture: after a power cut, a full disk or a failing call the path
   holds the old snapshot or the new one, whole; and the new one once the call has returned KV_OK.
   Method: save over an older snapshot on the simulated disk, with a cut after every operation in every
   mode, then with every call failing in every way, then with a disk that is full at every byte. */
#define KV_MEM_IMPLEMENTATION
#include "../../kv_mem.h"
#include "../kv_disk.h"

enum { KEYS = 60 };
static char save_path[] = "dir/snapshot";

static kv_mem *open_on(disk *d)
{
    kv_mem_options o;
    kv_mem *m = NULL;
    memset(&o, 0, sizeof o);
    o.io = disk_io(d);
    CHECK_OK(kv_mem_open(&o, &m));
    return m;
}
static kv_slice value_of(int version, int key, char *out)
{
    size_t size = (size_t)snprintf(out, 200, "version %d of %d ", version, key), whole = size + (size_t)(key * 13 + version * 7) % 150;
    memset(out + size, '.', whole - size);
    return kv_bytes(out, whole);
}
static void fill(kv_mem *m, int version)
{
    char key[20], value[200];
    for (int k = 0; k < KEYS; k++)
        CHECK_OK(kv_mem_set(m, kv_bytes(key, (size_t)snprintf(key, sizeof key, "key %d", k)), value_of(version, k, value)));
}
/* Which version a path holds: 0 none, -1 a mixture or damage. */
static int version_at(disk *d, const char *path)
{
    kv_mem   *m = open_on(d);
    kv_status s = kv_mem_load(m, path);
    kv_buf    got;
    int       version = 0;
    char      key[20], value[200];
    memset(&got, 0, sizeof got);
    if (s == KV_OK) {
        if (kv_mem_get(m, KV_STR("key 0"), &got) == KV_OK && got.size > 9) version = ((const char *)got.data)[8] - '0';
        if (kv_mem_count(m) != KEYS || version < 1) version = -1;
        for (int k = 0; k < KEYS && version > 0; k++)
            if (kv_mem_get(m, kv_bytes(key, (size_t)snprintf(key, sizeof key, "key %d", k)), &got) != KV_OK || !kv_equal(kv_buf_slice(&got), value_of(version, k, value))) version = -1;
    } else if (s != KV_NOT_FOUND && s != KV_ERR_IO) version = -1;
    kv_buf_free(&got);
    kv_mem_close(m);
    return version;
}
/* A disk that holds version 1, durable. */
static disk *old_disk(void)
{
    disk         *d = disk_new(), *base;
    const kv_io  *io = disk_io(d);
    kv_mem       *m = open_on(d);
    test_rng      rng = { 1 };
    CHECK_OK(io->make_dir(io->user, "dir"));
    CHECK_OK(io->sync_dir(io->user, "."));
    fill(m, 1);
    CHECK_OK(kv_mem_save(m, save_path));
    kv_mem_close(m);
    base = disk_crash(d, DISK_DURABLE, &rng);
    CHECK_EQ(version_at(base, save_path), 1);
    disk_free(d);
    return base;
}

TEST(crash_mem, snapshot_is_the_old_one_or_the_new_one_after_every_cut)
{
    test_rng rng = test_rng_new();
    disk    *base = old_disk(), *d = disk_fork(base), *cursor;
    kv_mem  *m = open_on(d);
    size_t   images = 0, old_seen = 0, new_seen = 0;
    int      variants = (int)test_scaled(20);
    fill(m, 2);
    disk_record(d);
    CHECK_OK(kv_mem_save(m, save_path));
    kv_mem_close(m);
    CHECK(disk_op_count(d) > 4);
    CHECK_EQ(disk_violations(d), 0);
    CHECK_EQ(disk_open_count(d), 0);
    cursor = disk_begin(d);
    for (size_t k = 0; k <= disk_op_count(d); k++) {
        disk_advance(cursor, d, k);
        for (int v = 0; v < DISK_TORN + 4 * variants; v++) {
            int   mode = v < DISK_TORN ? v : DISK_TORN + v % 4, version;
            disk *image = disk_crash(cursor, (disk_mode)mode, &rng);
            version = version_at(image, save_path);
            if (!CHECK(k == disk_op_count(d) ? version == 2 : version == 1 || version == 2)) fprintf(stderr, "cut after %zu of %zu operations, %s: version %d\n", k, disk_op_count(d), disk_mode_name(mode), version);
            old_seen += version == 1;
            new_seen += version == 2;
            images++;
            disk_free(image);
        }
    }
    printf("mem save: images=%zu old=%zu new=%zu\n", images, old_seen, new_seen);
    CHECK(old_seen && new_seen);
    disk_free(cursor);
    disk_free(d);
    disk_free(base);
}

TEST(crash_mem, failing_call_leaves_the_old_snapshot_and_the_next_save_works)
{
    static const disk_fault_kind kinds[] = { DISK_FAULT_IO, DISK_FAULT_SPACE, DISK_FAULT_SHORT, DISK_FAULT_SHORT_SPACE, DISK_FAULT_SYNC_DROPS, DISK_FAULT_DONE };
    test_rng rng = test_rng_new();
    disk    *base = old_disk();
    size_t   points = 0;
    bool     hit = true;
    for (uint64_t n = 1; hit; n++)
        for (size_t kind = 0; kind < 6; kind++)
            for (int sticky = 0; sticky < 2; sticky++) {
                disk     *d = disk_fork(base), *image;
                kv_mem   *m = open_on(d);
                kv_status s;
                int       version;
                fill(m, 2);
                disk_fail_at(d, DISK_CALLS_CHANGE | DISK_CALL_CLOSE, n, sticky ? UINT64_MAX : 1, kinds[kind]);
                s = kv_mem_save(m, save_path);
                hit = d->fault.hits != 0;
                memset(&d->fault, 0, sizeof d->fault);
                points++;
                for (int mode = 0; mode < DISK_MODES; mode++) {
                    image = disk_crash(d, (disk_mode)mode, &rng);
                    version = version_at(image, save_path);
                    if (!CHECK(version == 2 || (s < 0 && version == 1))) fprintf(stderr, "call %llu fails (kind %zu): %s, then %s: version %d\n", (unsigned long long)n, kind, kv_status_text(s), disk_mode_name(mode), version);
                    disk_free(image);
                }
                CHECK_EQ(kv_mem_count(m), KEYS);
                fill(m, 3);
                CHECK_OK(kv_mem_save(m, save_path));            /* the disk is well again */
                image = disk_crash(d, DISK_DURABLE, &rng);
                CHECK_EQ(version_at(image, save_path), 3);
                disk_free(image);
                if (!CHECK_EQ(disk_violations(d), 0)) fprintf(stderr, "call %llu fails (kind %zu): %s\n", (unsigned long long)n, kind, disk_violation(d));
                CHECK_EQ(disk_open_count(d), 0);
                kv_mem_close(m);
                disk_free(d);
            }
    printf("mem save: failing calls=%zu\n", points);
    CHECK(points > 60);
    disk_free(base);
}

TEST(crash_mem, full_disk_leaves_the_old_snapshot)
{
    disk  *base = old_disk();
    size_t refused = 0, saved = 0;
    for (uint64_t room = 0; room < 20000; room += 37) {
        disk     *d = disk_fork(base);
        kv_mem   *m = open_on(d);
        uint64_t  used = disk_used_bytes(d);
        kv_status s;
        fill(m, 2);
        d->capacity_bytes = used + room;
        s = kv_mem_save(m, save_path);
        if (s < 0) {
            CHECK_STATUS(s, KV_ERR_NO_SPACE);
            CHECK_EQ(version_at(d, save_path), 1);
            CHECK_EQ(disk_used_bytes(d), used);                 /* and what was begun is gone */
            refused++;
        } else {
            CHECK_EQ(version_at(d, save_path), 2);
            saved++;
        }
        kv_mem_close(m);
        disk_free(d);
        if (saved > 3) break;
    }
    CHECK(refused > 20 && saved > 0);
    disk_free(base);
}

TEST_MAIN()
