/* unit_disk.c
   Goal: the simulated disk behaves as a disk does, and finds the mistakes that stores make.
   Method: the same list of calls on the system's files and on the simulated disk, with the same
   answers; each kind of power cut and of fault against what it promises; and a small log store
   with switchable mistakes, each of which the kit must find while the right store passes. */
#define KV_CORE_IMPLEMENTATION
#include "../../kv.h"
#include "../kv_disk.h"

/* ---- the same behaviour as the system's files ---- */

typedef struct name_list { size_t count; char names[16][64]; } name_list;
static void name_list_add(void *context, const char *name)
{
    name_list *l = (name_list *)context;
    if (l->count < 16) snprintf(l->names[l->count++], 64, "%s", name);
}
static bool name_list_has(const name_list *l, const char *name)
{
    for (size_t i = 0; i < l->count; i++) if (strcmp(l->names[i], name) == 0) return true;
    return false;
}

static void check_files(const kv_io *io, const char *base)
{
    char        dir[200], a[220], b[220], text[64];
    kv_file    *f = NULL, *g = NULL, *lock = NULL, *second = NULL;
    uint64_t    size = 99, holder;
    size_t      got;
    const void *mapped = NULL;
    name_list   list;

    snprintf(dir, sizeof dir, "%s/dir", base);
    snprintf(a, sizeof a, "%s/a", dir);
    snprintf(b, sizeof b, "%s/b", dir);
    CHECK_STATUS(io->open(io->user, a, KV_OPEN_WRITE | KV_OPEN_CREATE, &f), KV_NOT_FOUND);          /* no directory */
    CHECK_OK(io->make_dir(io->user, dir));
    CHECK_STATUS(io->make_dir(io->user, dir), KV_EXISTS);
    CHECK_STATUS(io->open(io->user, a, 0, &f), KV_NOT_FOUND);
    if (!CHECK_OK(io->open(io->user, a, KV_OPEN_WRITE | KV_OPEN_CREATE | KV_OPEN_EXCLUSIVE, &f))) return;
    CHECK_STATUS(io->open(io->user, a, KV_OPEN_WRITE | KV_OPEN_CREATE | KV_OPEN_EXCLUSIVE, &g), KV_EXISTS);
    CHECK(io->open(io->user, dir, 0, &g) < 0);                                                      /* a directory is no file */
    CHECK_OK(io->size(io->user, f, &size));
    CHECK_EQ(size, 0);
    CHECK_OK(io->append(io->user, f, "hello ", 6));
    CHECK_OK(io->append(io->user, f, "world", 5));
    CHECK_OK(io->append(io->user, f, "", 0));
    CHECK_OK(io->write_at(io->user, f, 0, "J", 1));
    CHECK_OK(io->write_at(io->user, f, 13, "!", 1));                                                /* past the end: a gap of zeros */
    CHECK_OK(io->sync(io->user, f));
    CHECK_OK(io->size(io->user, f, &size));
    CHECK_EQ(size, 14);
    CHECK_OK(io->read_at(io->user, f, 0, text, sizeof text, &got));
    CHECK_BYTES(kv_bytes(text, got), kv_bytes("Jello world\0\0!", 14));
    CHECK_OK(io->read_at(io->user, f, 13, text, 1, &got));
    CHECK_EQ(got, 1);
    CHECK_OK(io->read_at(io->user, f, 14, text, 1, &got));
    CHECK_EQ(got, 0);
    CHECK_OK(io->read_at(io->user, f, 1000, text, 1, &got));
    CHECK_EQ(got, 0);
    if (io->map) {
        CHECK_OK(io->map(io->user, f, 14, &mapped));
        CHECK_BYTES(kv_bytes(mapped, 5), KV_STR("Jello"));
    }

    /* a file that has no name any more lives while it is open */
    CHECK_OK(io->open(io->user, a, 0, &g));
    CHECK_OK(io->rename(io->user, a, b));
    CHECK_STATUS(io->open(io->user, a, 0, &second), KV_NOT_FOUND);
    CHECK_STATUS(io->rename(io->user, a, b), KV_NOT_FOUND);
    CHECK_OK(io->remove(io->user, b));
    if (!KVI_OS_WINDOWS || io != kv_io_default()) CHECK_STATUS(io->remove(io->user, b), KV_NOT_FOUND);   /* there the name goes when the file is closed */
    CHECK_OK(io->read_at(io->user, g, 0, text, 5, &got));
    CHECK_BYTES(kv_bytes(text, got), KV_STR("Jello"));
    CHECK_OK(io->close(io->user, g));
    CHECK_OK(io->close(io->user, f));
    if (io->map) {
        CHECK_BYTES(kv_bytes(mapped, 5), KV_STR("Jello"));                                          /* stays after close */
        io->unmap(io->user, mapped, 14);
    }

    /* rename replaces, truncate empties, link is a second name */
    CHECK_OK(io->open(io->user, a, KV_OPEN_WRITE | KV_OPEN_CREATE, &f));
    CHECK_OK(io->append(io->user, f, "old", 3));
    CHECK_OK(io->close(io->user, f));
    CHECK_OK(io->open(io->user, b, KV_OPEN_WRITE | KV_OPEN_CREATE, &f));
    CHECK_OK(io->append(io->user, f, "newer", 5));
    CHECK_OK(io->close(io->user, f));
    CHECK_OK(io->rename(io->user, b, a));
    CHECK_OK(io->open(io->user, a, 0, &f));
    CHECK_OK(io->read_at(io->user, f, 0, text, sizeof text, &got));
    CHECK_BYTES(kv_bytes(text, got), KV_STR("newer"));
    CHECK_OK(io->close(io->user, f));
    if (io->link) {
        CHECK_OK(io->link(io->user, a, b));
        CHECK_STATUS(io->link(io->user, a, b), KV_EXISTS);
        CHECK_OK(io->remove(io->user, a));
        CHECK_OK(io->open(io->user, b, 0, &f));
        CHECK_OK(io->read_at(io->user, f, 0, text, sizeof text, &got));
        CHECK_BYTES(kv_bytes(text, got), KV_STR("newer"));
        CHECK_OK(io->close(io->user, f));
        CHECK_OK(io->rename(io->user, b, a));
    }
    CHECK_OK(io->open(io->user, a, KV_OPEN_WRITE | KV_OPEN_TRUNCATE, &f));
    CHECK_OK(io->size(io->user, f, &size));
    CHECK_EQ(size, 0);
    CHECK_OK(io->close(io->user, f));

    CHECK_OK(io->sync_dir(io->user, dir));
    memset(&list, 0, sizeof list);
    CHECK_OK(io->list(io->user, dir, name_list_add, &list));
    CHECK_EQ(list.count, 1);
    CHECK(name_list_has(&list, "a"));
    CHECK(io->list(io->user, a, name_list_add, &list) != KV_OK);
    CHECK_STATUS(io->list(io->user, b, name_list_add, &list), KV_NOT_FOUND);
    CHECK(io->remove(io->user, dir) < 0);                                                           /* it is not empty */
    CHECK_OK(io->remove(io->user, a));

    /* a lock holds against the same process too, and can be shared */
    if (KVI_OS_WASI && io == kv_io_default()) { CHECK_OK(io->remove(io->user, dir)); return; }      /* WASI has none */
    CHECK_STATUS(io->lock(io->user, a, true, &lock, &holder), KV_NOT_FOUND);
    CHECK_OK(io->lock(io->user, a, false, &lock, &holder));
    CHECK_STATUS(io->lock(io->user, a, false, &second, &holder), KV_ERR_BUSY);
    CHECK(holder != 0);
    CHECK_STATUS(io->lock(io->user, a, true, &second, &holder), KV_ERR_BUSY);
    CHECK_OK(io->unlock(io->user, lock));
    CHECK_OK(io->lock(io->user, a, true, &lock, &holder));
    CHECK_OK(io->lock(io->user, a, true, &second, &holder));
    CHECK_STATUS(io->lock(io->user, a, false, &f, &holder), KV_ERR_BUSY);
    CHECK_OK(io->unlock(io->user, second));
    CHECK_OK(io->unlock(io->user, lock));
    CHECK_OK(io->remove(io->user, a));
    CHECK_OK(io->remove(io->user, dir));
    CHECK_STATUS(io->list(io->user, dir, name_list_add, &list), KV_NOT_FOUND);
}

TEST(disk, behaves_as_the_files_of_the_system)
{
    disk       *d = disk_new();
    const char *base = test_path("base");
    CHECK_OK(disk_io(d)->make_dir(d, "base"));
    check_files(disk_io(d), "base");
    CHECK_EQ(disk_violations(d), 0);
    CHECK_EQ(disk_open_count(d), 0);
    disk_free(d);
    if (!test_has_files()) return;
    CHECK_OK(kv_io_default()->make_dir(NULL, base));
    check_files(kv_io_default(), base);
    CHECK_OK(kv_io_default()->remove(NULL, base));
}

/* ---- power cuts ---- */

static kv_file *open_new(const kv_io *io, const char *path)
{
    kv_file *f = NULL;
    CHECK_OK(io->open(io->user, path, KV_OPEN_WRITE | KV_OPEN_CREATE, &f));
    return f;
}
static void write_file(const kv_io *io, const char *path, const char *text, bool sync)
{
    kv_file *f = open_new(io, path);
    CHECK_OK(io->append(io->user, f, text, strlen(text)));
    if (sync) CHECK_OK(io->sync(io->user, f));
    CHECK_OK(io->close(io->user, f));
}
static bool file_is(disk *d, const char *path, const char *text)        /* NULL: is missing */
{
    const disk_content *c = disk_file(d, path);
    if (!c || !text) return !c && !text;
    return c->size == strlen(text) && !memcmp(c->bytes ? c->bytes->data : "", text, c->size);
}

TEST(disk, keeps_after_each_kind_of_cut_what_it_promises)
{
    test_rng     rng = test_rng_new();
    disk        *d = disk_new(), *image;
    const kv_io *io = disk_io(d);
    CHECK_OK(io->make_dir(d, "s"));
    CHECK_OK(io->sync_dir(d, "."));
    write_file(io, "s/both", "durable", true);
    CHECK_OK(io->sync_dir(d, "s"));
    write_file(io, "s/both", "+more", false);                /* appended, not synced */
    write_file(io, "s/nameless", "data", true);              /* its name is not synced */
    write_file(io, "s/neither", "xy", false);

    image = disk_crash(d, DISK_KEEP_ALL, &rng);
    CHECK(file_is(image, "s/both", "durable+more") && file_is(image, "s/nameless", "data") && file_is(image, "s/neither", "xy"));
    CHECK(!disk_is_durable(image, "s/both"));
    disk_free(image);

    image = disk_crash(d, DISK_DURABLE, &rng);
    CHECK(file_is(image, "s/both", "durable") && file_is(image, "s/nameless", NULL) && file_is(image, "s/neither", NULL));
    CHECK(disk_is_durable(image, "s/both"));
    disk_free(image);

    image = disk_crash(d, DISK_NAMES, &rng);
    CHECK(disk_file(image, "s/both")->size == 12 && !memcmp(disk_file(image, "s/both")->bytes->data, "durable\0\0\0\0", 12));
    CHECK(file_is(image, "s/nameless", "data") && disk_file(image, "s/neither")->size == 2 && disk_file(image, "s/neither")->bytes->data[0] == 0);
    disk_free(image);

    image = disk_crash(d, DISK_DATA, &rng);
    CHECK(file_is(image, "s/both", "durable+more") && file_is(image, "s/nameless", NULL) && file_is(image, "s/neither", NULL));
    disk_free(image);

    {
        bool torn[3] = { false, false, false }, lost_name = false, kept_name = false;
        for (int i = 0; i < 100; i++) {
            size_t size;
            image = disk_crash(d, DISK_TORN, &rng);
            CHECK(file_is(image, "s/both", "durable+more"));
            size = disk_file(image, "s/neither")->size;
            if (CHECK(size <= 2)) torn[size] = true;
            disk_free(image);
            image = disk_crash(d, (disk_mode)(DISK_SECTORS + i % 3), &rng);
            CHECK(disk_file(image, "s/both")->size == 7 || disk_file(image, "s/both")->size == 12);
            CHECK(!memcmp(disk_file(image, "s/both")->bytes->data, "durable", 7));
            if (disk_file(image, "s/nameless")) { kept_name = true; CHECK(file_is(image, "s/nameless", "data")); } else lost_name = true;
            if (i % 3 == 0 && disk_file(image, "s/neither")) CHECK(disk_file(image, "s/nameless") != NULL);    /* names in order */
            disk_free(image);
        }
        CHECK(torn[0] && torn[1] && torn[2] && lost_name && kept_name);
    }
    CHECK_EQ(disk_violations(d), 0);
    disk_free(d);
}

TEST(disk, loses_and_reorders_single_sectors)
{
    test_rng     rng = test_rng_new();
    disk        *d = disk_new(), *image;
    const kv_io *io = disk_io(d);
    kv_file     *f = open_new(io, "f");
    char         block[4096];
    int          hole = 0;
    CHECK_OK(io->sync_dir(d, ""));
    memset(block, 'x', sizeof block);
    CHECK_OK(io->append(d, f, block, sizeof block));
    for (int i = 0; i < 64; i++) {
        const disk_content *c;
        bool seen_lost = false;
        image = disk_crash(d, DISK_SECTORS, &rng);
        c = disk_file(image, "f");
        CHECK(c && c->size <= sizeof block);
        for (size_t s = 0; c && s < c->size; s += DISK_SECTOR) {
            CHECK(c->bytes->data[s] == c->bytes->data[s + DISK_SECTOR - 1]);        /* a sector is whole or lost */
            if (!c->bytes->data[s]) seen_lost = true; else if (seen_lost) hole++;
        }
        disk_free(image);
    }
    CHECK(hole > 20);
    CHECK_OK(io->close(d, f));
    disk_free(d);
}

TEST(disk, replays_to_every_operation)
{
    test_rng     rng = test_rng_new();
    disk        *d = disk_new(), *cursor, *image, *nested;
    const kv_io *io = disk_io(d);
    size_t       at;
    write_file(io, "a", "one", true);                                   /* create, write, sync */
    d->mark[0] = 7;
    CHECK_OK(io->sync_dir(d, "."));
    CHECK_OK(io->rename(d, "a", "b"));
    CHECK_OK(io->sync_dir(d, "."));
    CHECK_OK(io->remove(d, "b"));
    CHECK_EQ(disk_op_count(d), 7);
    CHECK_EQ(d->ops[2].mark[0], 0);
    CHECK_EQ(d->ops[3].mark[0], 7);
    cursor = disk_begin(d);
    for (at = 0; at <= 7; at++) {
        static const char *const durable_name[8] = { NULL, NULL, NULL, NULL, "a", "a", "b", "b" };
        disk_advance(cursor, d, at);
        image = disk_crash(cursor, DISK_DURABLE, &rng);
        CHECK(file_is(image, "a", durable_name[at] && *durable_name[at] == 'a' ? "one" : NULL));
        CHECK(file_is(image, "b", durable_name[at] && *durable_name[at] == 'b' ? "one" : NULL));
        /* what is done on an image is recorded from its own start */
        disk_record(image);
        write_file(disk_io(image), "c", "two", true);
        CHECK_OK(disk_io(image)->sync_dir(image, "."));
        CHECK_EQ(disk_op_count(image), 4);
        nested = disk_begin(image);
        disk_advance(nested, image, 3);
        CHECK(file_is(nested, "c", "two"));
        CHECK(file_is(nested, "a", durable_name[at] && *durable_name[at] == 'a' ? "one" : NULL));
        disk_free(image);
        image = disk_crash(nested, DISK_DURABLE, &rng);
        CHECK(file_is(image, "c", NULL));
        disk_free(image);
        disk_free(nested);
        CHECK(file_is(cursor, "c", NULL));                              /* nothing leaked back */
    }
    disk_free(cursor);
    disk_free(d);
}

TEST(disk, loses_a_new_directory_with_all_that_is_in_it)
{
    test_rng     rng = test_rng_new();
    disk        *d = disk_new(), *image;
    const kv_io *io = disk_io(d);
    CHECK_OK(io->make_dir(d, "x"));
    CHECK_OK(io->make_dir(d, "x/y"));
    write_file(io, "x/y/f", "deep", true);
    CHECK_OK(io->sync_dir(d, "x/y"));
    CHECK_OK(io->sync_dir(d, "x"));
    CHECK(!disk_is_durable(d, "x/y/f"));
    image = disk_crash(d, DISK_DURABLE, &rng);
    CHECK(disk_file(image, "x/y/f") == NULL);
    CHECK_STATUS(disk_io(image)->sync_dir(image, "x"), KV_NOT_FOUND);
    disk_free(image);
    CHECK_OK(io->sync_dir(d, "."));
    CHECK(disk_is_durable(d, "x/y/f"));
    CHECK_OK(io->rename(d, "x/y", "z"));                                /* a directory moves with what is in it */
    image = disk_crash(d, DISK_DURABLE, &rng);
    CHECK(file_is(image, "x/y/f", "deep") && file_is(image, "z/f", NULL));
    disk_free(image);
    CHECK_OK(io->sync_dir(d, "."));
    image = disk_crash(d, DISK_DURABLE, &rng);
    CHECK(file_is(image, "z/f", "deep") && file_is(image, "x/y/f", NULL));
    disk_free(image);
    disk_free(d);
}

/* ---- faults ---- */

TEST(disk, fails_the_call_that_was_ordered)
{
    static const kv_status wanted[DISK_FAULT_KINDS] = { KV_ERR_IO, KV_ERR_NO_SPACE, KV_ERR_IO, KV_ERR_NO_SPACE, KV_ERR_IO, KV_ERR_IO, KV_ERR_IO };
    static const char *const left[DISK_FAULT_KINDS] = { "", "", "ab", "ab", "", "abcd", "" };
    for (int kind = 0; kind < DISK_FAULT_KINDS; kind++) {
        disk        *d = disk_new();
        const kv_io *io = disk_io(d);
        kv_file     *f = open_new(io, "f");
        disk_fail_at(d, DISK_CALL_APPEND, 2, 2, (disk_fault_kind)kind);
        CHECK_OK(io->append(d, f, "", 0));
        CHECK_STATUS(io->append(d, f, "abcd", 4), wanted[kind]);
        CHECK(file_is(d, "f", left[kind]));
        CHECK_EQ(disk_violations(d), 0);
        CHECK_STATUS(io->append(d, f, "abcd", 4), wanted[kind]);
        CHECK_EQ(disk_violations(d), 1);                                /* P7: appended after a failure */
        CHECK_OK(io->append(d, f, "", 0));
        CHECK_EQ(d->fault.hits, 2);
        CHECK_OK(io->close(d, f));
        disk_free(d);
    }
}

TEST(disk, sync_that_drops_makes_a_later_sync_lie)
{
    test_rng     rng = test_rng_new();
    disk        *d = disk_new(), *image;
    const kv_io *io = disk_io(d);
    kv_file     *f = open_new(io, "f");
    CHECK_OK(io->sync_dir(d, "."));
    CHECK_OK(io->append(d, f, "abc", 3));
    disk_fail_at(d, DISK_CALL_SYNC, 1, 1, DISK_FAULT_SYNC_DROPS);
    CHECK_STATUS(io->sync(d, f), KV_ERR_IO);
    CHECK(file_is(d, "f", "abc"));                                      /* still what reads see */
    CHECK_OK(io->append(d, f, "def", 3));
    CHECK_OK(io->sync(d, f));                                           /* "succeeds" */
    CHECK(disk_violations(d) >= 1);
    image = disk_crash(d, DISK_DURABLE, &rng);
    CHECK(disk_file(image, "f")->size == 6 && !memcmp(disk_file(image, "f")->bytes->data, "\0\0\0def", 6));
    disk_free(image);
    CHECK_OK(io->close(d, f));
    disk_free(d);
}

TEST(disk, sync_and_rename_may_work_and_still_report_failure)
{
    test_rng     rng = test_rng_new();
    disk        *d = disk_new(), *image;
    const kv_io *io = disk_io(d);
    kv_file     *f = open_new(io, "f");
    CHECK_OK(io->append(d, f, "abc", 3));
    disk_fail_at(d, DISK_CALL_SYNC | DISK_CALL_RENAME | DISK_CALL_SYNC_DIR, 1, UINT64_MAX, DISK_FAULT_DONE);
    CHECK_STATUS(io->sync(d, f), KV_ERR_IO);
    CHECK_STATUS(io->rename(d, "f", "g"), KV_ERR_IO);
    CHECK_STATUS(io->sync_dir(d, "."), KV_ERR_IO);
    image = disk_crash(d, DISK_DURABLE, &rng);
    CHECK(file_is(image, "g", "abc") && file_is(image, "f", NULL));
    disk_free(image);
    CHECK_OK(io->close(d, f));
    disk_free(d);
}

TEST(disk, is_full_and_has_room_again)
{
    disk        *d = disk_new();
    const kv_io *io = disk_io(d);
    kv_file     *f = open_new(io, "f"), *g;
    d->capacity_bytes = 10;
    CHECK_OK(io->append(d, f, "12345678", 8));
    CHECK_OK(io->write_at(d, f, 0, "x", 1));                            /* takes no more room */
    CHECK_STATUS(io->append(d, f, "9abc", 4), KV_ERR_NO_SPACE);
    CHECK(file_is(d, "f", "x23456789a"));
    g = open_new(io, "g");
    CHECK_STATUS(io->append(d, g, "1", 1), KV_ERR_NO_SPACE);
    CHECK_OK(io->close(d, g));
    CHECK_OK(io->remove(d, "f"));
    g = open_new(io, "h");
    CHECK_STATUS(io->append(d, g, "1", 1), KV_ERR_NO_SPACE);            /* still open */
    CHECK_OK(io->close(d, f));
    CHECK_EQ(disk_used_bytes(d), 0);
    CHECK_OK(io->close(d, g));
    g = open_new(io, "i");
    CHECK_OK(io->append(d, g, "1", 1));
    CHECK_OK(io->close(d, g));
    CHECK_EQ(disk_violations(d), 0);
    disk_free(d);
}

TEST(disk, reads_fail_or_lie_on_order)
{
    disk        *d = disk_new();
    const kv_io *io = disk_io(d);
    kv_file     *f;
    char         text[8];
    size_t       got;
    write_file(io, "f", "abcdef", true);
    CHECK_OK(io->open(d, "f", 0, &f));
    disk_fail_at(d, DISK_CALLS_READ, 1, 1, DISK_FAULT_IO);
    CHECK_STATUS(io->read_at(d, f, 0, text, 6, &got), KV_ERR_IO);
    CHECK_OK(io->read_at(d, f, 0, text, 6, &got));
    disk_fail_at(d, DISK_CALL_READ, 1, 1, DISK_FAULT_FLIP);
    CHECK_OK(io->read_at(d, f, 0, text, 6, &got));
    CHECK(got == 6 && memcmp(text, "abcdef", 6) != 0);
    CHECK_OK(io->read_at(d, f, 0, text, 6, &got));
    CHECK(got == 6 && memcmp(text, "abcdef", 6) == 0);
    CHECK_OK(io->close(d, f));
    disk_free(d);
}

TEST(disk, monitor_sees_closed_handles)
{
    disk        *d = disk_new();
    const kv_io *io = disk_io(d);
    kv_file     *f = open_new(io, "f");
    CHECK_OK(io->close(d, f));
    CHECK_EQ(disk_violations(d), 0);
    CHECK(io->sync(d, f) < 0);
    CHECK_EQ(disk_violations(d), 1);
    CHECK(strstr(disk_violation(d), "P6") != NULL);
    disk_free(d);
}

TEST(disk, test_hand_changes_only_this_disk)
{
    disk        *d = disk_new(), *image;
    test_rng     rng = test_rng_new();
    write_file(disk_io(d), "f", "abcdef", true);
    CHECK_OK(disk_io(d)->sync_dir(d, "."));
    image = disk_crash(d, DISK_DURABLE, &rng);
    *disk_file_open(image, "f", 2, 1) ^= 1;
    CHECK(file_is(image, "f", "abbdef") && file_is(d, "f", "abcdef"));
    disk_file_cut(image, "f", 3);
    CHECK(file_is(image, "f", "abb") && file_is(d, "f", "abcdef"));
    disk_file_set(image, "g", "new", 3);
    CHECK(file_is(image, "g", "new") && file_is(d, "g", NULL) && disk_is_durable(image, "g"));
    disk_file_remove(image, "f");
    CHECK(file_is(image, "f", NULL) && file_is(d, "f", "abcdef"));
    disk_free(image);
    disk_free(d);
}

/* ---- the kit must be able to fail ----
   A store of TOY_KEYS numbers: a log of records, folded into a new file from time to time; CURRENT
   names file and log. Each mistake is one that a real store made. */

enum { TOY_KEYS = 8, TOY_BATCH = 3 };
typedef enum toy_mistake {
    TOY_RIGHT, TOY_NO_LOG_SYNC, TOY_NO_BASE_SYNC, TOY_NO_DIR_SYNC, TOY_CURRENT_NO_SYNC, TOY_CURRENT_NO_DIR_SYNC, TOY_NO_CHECKSUM, TOY_APPENDS_TO_TORN_TAIL,
    TOY_SKIPS_BAD_RECORD, TOY_SPLITS_BATCH, TOY_REMOVES_EARLY, TOY_RETRIES_SYNC, TOY_IGNORES_WRITE_ERROR, TOY_TRUSTS_CACHE, TOY_UNBOUND_RECORDS, TOY_MISTAKES
} toy_mistake;
static const char *const toy_names[TOY_MISTAKES] = {
    "right", "log is not synced", "base file is not synced", "directory is not synced", "CURRENT is not synced before the rename", "nor the directory after it",
    "no checksum", "appends behind a torn record", "skips a bad record and goes on", "logs a batch as single records", "removes the old files before CURRENT is durable",
    "retries a failed sync", "ignores a failed write", "trusts a log that is only in the cache",
    "records do not say which log they belong to" };
typedef struct toy_record { uint32_t check, generation, count, key[TOY_BATCH], value[TOY_BATCH], padding[191]; } toy_record;
typedef struct toy { const kv_io *io; toy_mistake mistake; uint32_t values[TOY_KEYS], generation; kv_file *log; bool broken; } toy;

static uint32_t toy_sum(const void *data, size_t size)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < size; i++) h = (h ^ ((const uint8_t *)data)[i]) * 16777619u;
    return h ? h : 1;
}
static void toy_name(char *out, const char *kind, uint32_t generation) { snprintf(out, 64, "toy/%s%u", kind, (unsigned)generation); }
static kv_status toy_sync(toy *t, kv_file *f)
{
    kv_status s = t->io->sync(t->io->user, f);
    if (s < 0 && t->mistake == TOY_RETRIES_SYNC) s = t->io->sync(t->io->user, f);
    return s;
}
/* Write the values as base file g and an empty log g, then let CURRENT name them. */
static kv_status toy_fold(toy *t)
{
    const kv_io *io = t->io;
    uint32_t     g = t->generation + 1, content[TOY_KEYS + 1], current[2], old = t->generation;
    char         name[64];
    kv_file     *f;
    kv_status    s;
    memcpy(content + 1, t->values, sizeof t->values);
    content[0] = toy_sum(t->values, sizeof t->values);
    toy_name(name, "base", g);
    s = io->open(io->user, name, KV_OPEN_WRITE | KV_OPEN_CREATE | KV_OPEN_TRUNCATE, &f);
    if (s < 0) return s;
    s = io->append(io->user, f, content, sizeof content);
    if (s == KV_OK && t->mistake != TOY_NO_BASE_SYNC) s = toy_sync(t, f);
    io->close(io->user, f);
    if (s < 0) return s;
    if (t->log) io->close(io->user, t->log);
    t->log = NULL;
    toy_name(name, "log", g);
    s = io->open(io->user, name, KV_OPEN_WRITE | KV_OPEN_CREATE | KV_OPEN_TRUNCATE, &t->log);
    if (s < 0) return s;
    if (t->mistake != TOY_NO_DIR_SYNC) s = io->sync_dir(io->user, "toy");
    if (s < 0) return s;
    current[0] = g;
    current[1] = toy_sum(&g, sizeof g);
    s = io->open(io->user, "toy/NEXT", KV_OPEN_WRITE | KV_OPEN_CREATE | KV_OPEN_TRUNCATE, &f);
    if (s < 0) return s;
    s = io->append(io->user, f, current, sizeof current);
    if (s == KV_OK && t->mistake != TOY_CURRENT_NO_SYNC) s = toy_sync(t, f);
    io->close(io->user, f);
    if (s == KV_OK) s = io->rename(io->user, "toy/NEXT", "toy/CURRENT");
    if (s == KV_OK && t->mistake != TOY_CURRENT_NO_DIR_SYNC && t->mistake != TOY_REMOVES_EARLY) s = io->sync_dir(io->user, "toy");
    if (s < 0) return s;
    if (old) {
        toy_name(name, "base", old);
        io->remove(io->user, name);
        toy_name(name, "log", old);
        io->remove(io->user, name);
    }
    t->generation = g;
    return t->mistake == TOY_REMOVES_EARLY ? io->sync_dir(io->user, "toy") : KV_OK;
}
static kv_status toy_apply(toy *t, const toy_record *r)
{
    for (uint32_t i = 0; i < r->count && i < TOY_BATCH; i++) if (r->key[i] < TOY_KEYS) t->values[r->key[i]] = r->value[i];
    return KV_OK;
}
static kv_status toy_write(toy *t, const toy_record *batch, bool sync)
{
    kv_status s = KV_OK;
    if (t->broken) return KV_ERR_READ_ONLY;
    for (uint32_t i = 0; s == KV_OK && i < (t->mistake == TOY_SPLITS_BATCH ? batch->count : 1); i++) {
        toy_record r = *batch;
        if (t->mistake == TOY_SPLITS_BATCH) { r.count = 1; r.key[0] = batch->key[i]; r.value[0] = batch->value[i]; }
        r.generation = t->mistake == TOY_UNBOUND_RECORDS ? 0 : t->generation;
        r.check = toy_sum(&r.generation, sizeof r - sizeof r.check);
        s = t->io->append(t->io->user, t->log, &r, sizeof r);
        if (t->mistake == TOY_IGNORES_WRITE_ERROR) s = KV_OK;
    }
    if (s == KV_OK && sync && t->mistake != TOY_NO_LOG_SYNC) s = toy_sync(t, t->log);
    if (s < 0) { t->broken = true; return s; }
    return toy_apply(t, batch);
}
static kv_status toy_replay(toy *t, kv_file *log)
{
    toy_record r;
    uint64_t   at = 0;
    size_t     got;
    kv_status  s;
    for (;; at += sizeof r) {
        s = t->io->read_at(t->io->user, log, at, &r, sizeof r, &got);
        if (s < 0) return s;
        if (got < sizeof r) return KV_OK;
        if (t->mistake != TOY_NO_CHECKSUM && (r.check != toy_sum(&r.generation, sizeof r - sizeof r.check) || (t->mistake != TOY_UNBOUND_RECORDS && r.generation != t->generation))) {
            if (t->mistake == TOY_SKIPS_BAD_RECORD) continue;
            return KV_OK;
        }
        toy_apply(t, &r);
    }
}
static kv_status toy_open(toy *t, const kv_io *io, toy_mistake mistake)
{
    char      name[64];
    uint32_t  current[2], content[TOY_KEYS + 1];
    kv_file  *f;
    size_t    got = 0;
    kv_status s;
    memset(t, 0, sizeof *t);
    t->io = io;
    t->mistake = mistake;
    s = io->make_dir(io->user, "toy");
    if (s == KV_OK && mistake != TOY_NO_DIR_SYNC) s = io->sync_dir(io->user, ".");
    if (s < 0) return s;
    s = io->open(io->user, "toy/CURRENT", 0, &f);
    if (s < 0) return s;
    if (s == KV_NOT_FOUND) {
        if (io->sync_dir(io->user, ".") < 0) return KV_ERR_IO;
        return toy_fold(t);
    }
    s = io->read_at(io->user, f, 0, current, sizeof current, &got);
    io->close(io->user, f);
    if (s < 0) return s;
    if (got < sizeof current || current[1] != toy_sum(current, sizeof current[0])) return KV_ERR_CORRUPT;
    t->generation = current[0];
    toy_name(name, "base", t->generation);
    s = io->open(io->user, name, 0, &f);
    if (s != KV_OK) return KV_ERR_CORRUPT;
    s = io->read_at(io->user, f, 0, content, sizeof content, &got);
    io->close(io->user, f);
    if (s < 0) return s;
    if (got < sizeof content || content[0] != toy_sum(content + 1, sizeof t->values)) return KV_ERR_CORRUPT;
    memcpy(t->values, content + 1, sizeof t->values);
    toy_name(name, "log", t->generation);
    s = io->open(io->user, name, KV_OPEN_WRITE, &f);
    if (s != KV_OK) return KV_ERR_CORRUPT;
    s = toy_replay(t, f);
    if (mistake == TOY_APPENDS_TO_TORN_TAIL || mistake == TOY_TRUSTS_CACHE) { t->log = f; return s; }
    io->close(io->user, f);
    return s < 0 ? s : toy_fold(t);
}
static void toy_close(toy *t) { if (t->log) t->io->close(t->io->user, t->log); t->log = NULL; }

enum { TOY_STEPS = 60 };
typedef struct toy_history { uint32_t states[TOY_STEPS + 1][TOY_KEYS]; size_t count, synced; } toy_history;

static void toy_batch(toy_record *r, test_rng *rng)
{
    memset(r, 0, sizeof *r);
    r->count = 1 + (uint32_t)test_below(rng, TOY_BATCH);
    for (uint32_t i = 0; i < r->count; i++) { r->key[i] = (uint32_t)(test_below(rng, 2) + 2 * i); r->value[i] = (uint32_t)test_random(rng); }
    memset(r->padding, 'p', sizeof r->padding);
}
static void toy_run(disk *d, toy_mistake mistake, toy_history *h, uint64_t seed)
{
    test_rng rng = { seed };
    toy      t;
    memset(h, 0, sizeof *h);
    d->mark[0] = d->mark[1] = 0;
    if (toy_open(&t, disk_io(d), mistake) < 0) { toy_close(&t); return; }
    for (int i = 0; i < TOY_STEPS; i++) {
        toy_record r;
        bool       sync = test_one_in(&rng, 3);
        if (test_one_in(&rng, 12)) {
            if (toy_fold(&t) < 0) break;
            d->mark[1] = h->synced = h->count;
            continue;
        }
        toy_batch(&r, &rng);
        memcpy(h->states[h->count + 1], h->states[h->count], sizeof h->states[0]);
        for (uint32_t k = 0; k < r.count; k++) h->states[h->count + 1][r.key[k]] = r.value[k];
        d->mark[0] = ++h->count;
        if (toy_write(&t, &r, sync) < 0) break;
        if (sync) d->mark[1] = h->synced = h->count;
    }
    toy_close(&t);
}
/* What a cut left must be one of the states [low, high]; then a synced write must outlive the next cut. */
static bool toy_survives(disk *image, toy_mistake mistake, const toy_history *h, size_t low, size_t high, test_rng *rng)
{
    toy        t, again;
    toy_record r;
    disk      *cut;
    bool       found = false, ok = false;
    uint32_t   wanted[TOY_KEYS];
    if (toy_open(&t, disk_io(image), mistake) < 0) { toy_close(&t); return false; }
    for (size_t p = low; p <= high && !found; p++) found = !memcmp(t.values, h->states[p], sizeof t.values);
    toy_batch(&r, rng);
    if (found && toy_write(&t, &r, true) == KV_OK) {
        memcpy(wanted, t.values, sizeof wanted);
        cut = disk_crash(image, DISK_DURABLE, rng);
        ok = toy_open(&again, disk_io(cut), mistake) >= 0 && !memcmp(wanted, again.values, sizeof wanted);
        toy_close(&again);
        disk_free(cut);
    }
    toy_close(&t);
    return ok;
}
static bool toy_passes_power_cuts(toy_mistake mistake, uint64_t seed, size_t *images)
{
    test_rng    rng = { seed + 1 };
    disk       *d = disk_new(), *cursor, *image;
    toy_history h;
    bool        ok = true;
    toy_run(d, mistake, &h, seed);
    ok = disk_violations(d) == 0;
    cursor = disk_begin(d);
    for (size_t k = 0; k <= disk_op_count(d) && ok; k++) {
        size_t low = k < disk_op_count(d) ? d->ops[k].mark[1] : h.synced, high = k < disk_op_count(d) ? d->ops[k].mark[0] : h.count;
        disk_advance(cursor, d, k);
        for (int variant = 0; variant < 14 && ok; variant++) {
            image = disk_crash(cursor, (disk_mode)(variant < DISK_MODES ? variant : DISK_TORN + variant % 4), &rng);
            ok = toy_survives(image, mistake, &h, low, high, &rng);
            disk_free(image);
            ++*images;
        }
    }
    disk_free(cursor);
    disk_free(d);
    return ok;
}
static bool toy_passes_faults(toy_mistake mistake, uint64_t seed, size_t *faults)
{
    static const disk_fault_kind kinds[] = { DISK_FAULT_IO, DISK_FAULT_SHORT, DISK_FAULT_SYNC_DROPS, DISK_FAULT_DONE };
    test_rng    rng = { seed + 2 };
    toy_history h;
    bool        ok = true, hit = true;
    for (uint64_t n = 1; ok && hit; n++)
        for (size_t kind = 0; kind < 4 && ok; kind++)
            for (int sticky = 0; sticky < 2 && ok; sticky++) {
                disk *d = disk_new(), *image;
                disk_fail_at(d, 0, n, sticky ? UINT64_MAX : 1, kinds[kind]);
                toy_run(d, mistake, &h, seed);
                hit = d->fault.hits > 0;
                for (int mode = 0; mode < DISK_MODES && ok; mode++) {
                    image = disk_crash(d, (disk_mode)mode, &rng);
                    ok = toy_survives(image, mistake, &h, h.synced, h.count, &rng);
                    disk_free(image);
                }
                ok = ok && disk_violations(d) == 0;
                disk_free(d);
                ++*faults;
            }
    return ok;
}

TEST(kit, finds_every_mistake_and_accuses_nobody_else)
{
    size_t images = 0, faults = 0, right_images = 0;
    for (int m = TOY_RIGHT; m < TOY_MISTAKES; m++) {
        bool passes = true;
        for (uint64_t seed = 1; seed <= 6 && passes; seed++) {
            passes = toy_passes_power_cuts((toy_mistake)m, test_seed_value + seed, m == TOY_RIGHT ? &right_images : &images);
            passes = passes && toy_passes_faults((toy_mistake)m, test_seed_value + seed, &faults);
            if (m == TOY_RIGHT && seed >= 3) break;
        }
        if (passes != (m == TOY_RIGHT)) fprintf(stderr, "toy store, %s: %s\n", toy_names[m], passes ? "not found" : "accused");
        CHECK_EQ(passes, m == TOY_RIGHT);
    }
    printf("right store: %zu images; the others: %zu images; %zu faults in all\n", right_images, images, faults);
    CHECK(right_images > 3000);
}

TEST_MAIN()
