/* crash_fst_build.c
   Goal: a file built by kv_fst_build_begin_file appears whole or not at all, and replaces an older one
   whole or not at all, whatever happens to the machine or the disk; an abandoned build leaves nothing.
   Method: build over an older file on the simulated disk, with a cut after every operation in every
   mode, with every call failing in every way, and with a disk that is full at every byte. */
#define KV_FST_IMPLEMENTATION
#include "../../kv_fst.h"
#include "../kv_disk.h"

enum { KEYS = 300 };
static char build_path[] = "dir/map.fst";

static kv_status build(disk *d, int version, bool abandon)
{
    kv_fst_build_options o;
    kv_fst_builder *b = NULL;
    kv_status s;
    char      key[30];
    memset(&o, 0, sizeof o);
    o.values = KV_FST_U64;
    o.io = disk_io(d);
    s = kv_fst_build_begin_file(&o, build_path, &b);
    if (s < 0) return s;
    for (int k = 0; k < KEYS; k++) (void)kv_fst_add(b, kv_bytes(key, (size_t)snprintf(key, sizeof key, "key %05d of %d", k * version, version)), (uint64_t)k * 1000 + (uint64_t)version);
    if (abandon) { kv_fst_build_abandon(b); return KV_OK; }
    return kv_fst_build_finish(b);
}
/* Which version the file is: 0 none, -1 something that is neither. */
static int version_at(disk *d)
{
    disk_content *c = disk_file(d, build_path);
    kv_fst       *f = NULL;
    int           version = -1;
    if (!c) return 0;
    if (kv_fst_open_memory(NULL, kv_bytes(c->bytes ? c->bytes->data : "", c->size), &f) != KV_OK) return -1;
    for (int v = 1; v <= 3 && version < 0; v++) {
        uint64_t value;
        char     key[30];
        bool     all = kv_fst_count(f) == KEYS;
        for (int k = 0; k < KEYS && all; k++)
            all = kv_fst_get(f, kv_bytes(key, (size_t)snprintf(key, sizeof key, "key %05d of %d", k * v, v)), &value) == KV_OK && value == (uint64_t)k * 1000 + (uint64_t)v;
        if (all) version = v;
    }
    kv_fst_close(f);
    return version;
}
static size_t files_in(disk *d) { char paths[8][256]; return disk_files(d, "dir", paths, 8); }
static disk *old_disk(bool with_file)
{
    disk        *d = disk_new(), *base;
    const kv_io *io = disk_io(d);
    test_rng     rng = { 1 };
    CHECK_OK(io->make_dir(io->user, "dir"));
    CHECK_OK(io->sync_dir(io->user, "."));
    if (with_file) CHECK_OK(build(d, 1, false));
    base = disk_crash(d, DISK_DURABLE, &rng);
    CHECK_EQ(version_at(base), with_file ? 1 : 0);
    disk_free(d);
    return base;
}

TEST(crash_fst, file_is_whole_or_not_there_after_every_cut)
{
    test_rng rng = test_rng_new();
    size_t   images = 0, seen[3] = { 0, 0, 0 };
    for (int with_file = 0; with_file < 2; with_file++) {
        disk *base = old_disk(with_file != 0), *d = disk_fork(base), *cursor;
        int   variants = (int)test_scaled(20);
        disk_record(d);
        CHECK_OK(build(d, 2, false));
        CHECK_EQ(disk_violations(d), 0);
        CHECK_EQ(disk_open_count(d), 0);
        cursor = disk_begin(d);
        for (size_t k = 0; k <= disk_op_count(d); k++) {
            disk_advance(cursor, d, k);
            for (int v = 0; v < DISK_TORN + 4 * variants; v++) {
                int   mode = v < DISK_TORN ? v : DISK_TORN + v % 4, version;
                disk *image = disk_crash(cursor, (disk_mode)mode, &rng);
                version = version_at(image);
                if (!CHECK(version == 2 || (k < disk_op_count(d) && version == with_file))) fprintf(stderr, "cut after %zu of %zu operations, %s: version %d\n", k, disk_op_count(d), disk_mode_name(mode), version);
                if (version >= 0) seen[version]++;
                images++;
                disk_free(image);
            }
        }
        disk_free(cursor);
        disk_free(d);
        disk_free(base);
    }
    printf("fst build: images=%zu none=%zu old=%zu new=%zu\n", images, seen[0], seen[1], seen[2]);
    CHECK(seen[0] && seen[1] && seen[2]);
}

TEST(crash_fst, failing_call_leaves_the_old_file_and_the_next_build_works)
{
    static const disk_fault_kind kinds[] = { DISK_FAULT_IO, DISK_FAULT_SPACE, DISK_FAULT_SHORT, DISK_FAULT_SHORT_SPACE, DISK_FAULT_SYNC_DROPS, DISK_FAULT_DONE };
    test_rng rng = test_rng_new();
    disk    *base = old_disk(true);
    size_t   points = 0;
    bool     hit = true;
    for (uint64_t n = 1; hit; n++)
        for (size_t kind = 0; kind < 6; kind++)
            for (int sticky = 0; sticky < 2; sticky++) {
                disk     *d = disk_fork(base), *image;
                kv_status s;
                int       version;
                disk_fail_at(d, DISK_CALLS_CHANGE | DISK_CALL_CLOSE, n, sticky ? UINT64_MAX : 1, kinds[kind]);
                s = build(d, 2, false);
                hit = d->fault.hits != 0;
                memset(&d->fault, 0, sizeof d->fault);
                points++;
                for (int mode = 0; mode < DISK_MODES; mode++) {
                    image = disk_crash(d, (disk_mode)mode, &rng);
                    version = version_at(image);
                    if (!CHECK(version == 2 || (s < 0 && version == 1))) fprintf(stderr, "call %llu fails (kind %zu): %s, then %s: version %d\n", (unsigned long long)n, kind, kv_status_text(s), disk_mode_name(mode), version);
                    disk_free(image);
                }
                CHECK_OK(build(d, 3, false));
                image = disk_crash(d, DISK_DURABLE, &rng);
                CHECK_EQ(version_at(image), 3);
                disk_free(image);
                if (!CHECK_EQ(disk_violations(d), 0)) fprintf(stderr, "call %llu fails (kind %zu): %s\n", (unsigned long long)n, kind, disk_violation(d));
                CHECK_EQ(disk_open_count(d), 0);
                disk_free(d);
            }
    printf("fst build: failing calls=%zu\n", points);
    CHECK(points > 60);
    disk_free(base);
}

TEST(crash_fst, full_disk_and_abandoned_build_leave_the_old_file_alone)
{
    disk  *base = old_disk(true), *d = disk_fork(base);
    size_t refused = 0, built = 0;
    CHECK_OK(build(d, 2, true));
    CHECK_EQ(version_at(d), 1);
    CHECK_EQ(files_in(d), 1);
    disk_free(d);
    for (uint64_t room = 0; room < 20000 && built < 3; room += 13) {
        uint64_t  used;
        kv_status s;
        d = disk_fork(base);
        used = disk_used_bytes(d);
        d->capacity_bytes = used + room;
        s = build(d, 2, false);
        if (s < 0) {
            CHECK_STATUS(s, KV_ERR_NO_SPACE);
            CHECK_EQ(version_at(d), 1);
            CHECK_EQ(disk_used_bytes(d), used);                 /* and what was begun is gone */
            CHECK_EQ(files_in(d), 1);
            refused++;
        } else {
            CHECK_EQ(version_at(d), 2);
            built++;
        }
        CHECK_EQ(disk_open_count(d), 0);
        disk_free(d);
    }
    CHECK(refused > 20 && built > 0);
    disk_free(base);
}

TEST_MAIN()
