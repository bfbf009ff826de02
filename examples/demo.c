/* demo.c - every store at work on real keys: the paths of this machine's files, or the lines of a file

       demo            paths below /usr, each with its file's size
       demo FILE       the lines of FILE, each with its number; of two equal lines the later counts

   Each store is loaded with all of them, then every key is read back in random order and its value
   checked, one at a time and in batches of 64; ordered stores are also walked from end to end. A
   durable store is closed and opened again before it is read, and once before that its process is
   killed (kill -9) in the middle of the load.
   Exits with 1 where a single value is not what was written.

   The table: bytes/key is what the store takes, in memory or on disk, for a key with its value. */
#define _XOPEN_SOURCE 700
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KV_IMPLEMENTATION
#if __has_include("../kv_mem.h")
#include "../kv_mem.h"
#endif
#if __has_include("../kv_art.h")
#include "../kv_art.h"
#endif
#if __has_include("../kv_fst.h")
#include "../kv_fst.h"
#endif
#if __has_include("../kv_compress.h")
#include "../kv_compress.h"
#endif
#if __has_include("../kv_lsm.h")
#include "../kv_lsm.h"
#endif
#include "../kv_simd.h"

#define DEMO_BATCH 64           /* keys that are read at once */
#define DEMO_LOAD_BATCH 1024    /* and written: a durable store syncs once for each batch */

/* ---- the keys: as they came, and sorted with each key once ---- */

typedef struct demo_key { const char *data; uint32_t size; uint64_t value; } demo_key;

typedef struct demo_keys {
    demo_key *all;      size_t all_count;       /* in the order of the input */
    demo_key *sorted;   size_t count;           /* each key once, with its last value */
    size_t    too_long;                         /* left out: longer than a key may be */
    uint64_t  key_bytes;                        /* of `sorted` */
} demo_keys;

static void demo_die(const char *what, const char *why)
{
    fprintf(stderr, "demo: %s: %s\n", what, why);
    exit(1);
}
static void *demo_memory(void *old, size_t size)
{
    void *memory = realloc(old, size ? size : 1);
    if (!memory) demo_die("keys", "out of memory");
    return memory;
}
static void demo_add(demo_keys *k, const char *data, size_t size, uint64_t value)
{
    if (size > KV_KEY_SIZE_MAX) { k->too_long++; return; }
    if ((k->all_count & (k->all_count - 1)) == 0) k->all = (demo_key *)demo_memory(k->all, (k->all_count ? k->all_count * 2 : 1) * sizeof *k->all);
    k->all[k->all_count].data = data;
    k->all[k->all_count].size = (uint32_t)size;
    k->all[k->all_count++].value = value;
}

static void demo_read_lines(demo_keys *k, const char *path)
{
    FILE  *f = fopen(path, "rb");
    char  *text = NULL;
    size_t size = 0, capacity = 0, got = 1;
    if (!f) demo_die(path, strerror(errno));
    while (got) {
        if (capacity - size < 65536) text = (char *)demo_memory(text, capacity = capacity * 2 + (1u << 20));
        size += got = fread(text + size, 1, capacity - size, f);
    }
    if (ferror(f)) demo_die(path, strerror(errno));
    fclose(f);
    for (size_t start = 0, number = 1; start < size; number++) {
        const char *end = (const char *)memchr(text + start, '\n', size - start);
        size_t      line = end ? (size_t)(end - (text + start)) : size - start;
        demo_add(k, text + start, line, number);
        start += line + 1;
    }
}

static void demo_walk(demo_keys *k, const char *top, void (*progress)(size_t files))
{
    char  **directories = (char **)demo_memory(NULL, sizeof *directories);
    size_t  count = 1, room = 1;
    directories[0] = strdup(top);
    while (count) {
        char          *path = directories[--count];
        DIR           *dir = path ? opendir(path) : NULL;
        struct dirent *entry;
        while (dir && (entry = readdir(dir)) != NULL) {
            size_t      size = strlen(path) + 1 + strlen(entry->d_name);
            char       *name;
            struct stat info;
            if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
            name = (char *)demo_memory(NULL, size + 1);
            snprintf(name, size + 1, "%s/%s", path, entry->d_name);
            if (lstat(name, &info) == 0 && S_ISREG(info.st_mode)) {
                demo_add(k, name, size, (uint64_t)info.st_size);
                if (k->all_count % 1024 == 0) progress(k->all_count);
                continue;                                   /* the key keeps the name */
            }
            if (S_ISDIR(info.st_mode)) {
                if (count == room) directories = (char **)demo_memory(directories, (room *= 2) * sizeof *directories);
                directories[count++] = name;
            } else free(name);
        }
        if (dir) closedir(dir);
        free(path);
    }
    free(directories);
}

static kv_slice demo_slice(const demo_key *k) { return kv_bytes(k->data, k->size); }
static int demo_order(const void *a, const void *b)
{
    const demo_key *x = *(const demo_key *const *)a, *y = *(const demo_key *const *)b;
    int order = kv_compare(demo_slice(x), demo_slice(y));
    return order ? order : x < y ? -1 : x > y;              /* equal keys stay in the order of the input */
}
static void demo_sort(demo_keys *k)
{
    demo_key **order = (demo_key **)demo_memory(NULL, k->all_count * sizeof *order);
    for (size_t i = 0; i < k->all_count; i++) order[i] = &k->all[i];
    qsort(order, k->all_count, sizeof *order, demo_order);
    k->sorted = (demo_key *)demo_memory(NULL, k->all_count * sizeof *k->sorted);
    for (size_t i = 0; i < k->all_count; i++) {
        if (i + 1 < k->all_count && kv_equal(demo_slice(order[i]), demo_slice(order[i + 1]))) continue;
        k->key_bytes += order[i]->size;
        k->sorted[k->count++] = *order[i];
    }
    free(order);
}

/* ---- values: 8 bytes, or a record of text that is worth compressing ---- */

#define DEMO_VALUE_MAX 256
KVI_PRIVATE size_t demo_value_number(const demo_key *k, char *out) { kvi_store_le64(out, k->value); return 8; }
static size_t demo_value_record(const demo_key *k, char *out)   /* made by hand: printf would take longer than a get */
{
    static const char record[] = "{\"size\": \"0x0000000000000000\", \"hash\": \"0x0000000000000000\", \"kind\": \"regular file\", \"owner\": \"root\", \"mode\": \"0644\"}";
    uint64_t hash = kv_hash(demo_slice(k), 0);
    memcpy(out, record, sizeof record - 1);
    for (int i = 0; i < 16; i++) {
        out[12 + i] = "0123456789abcdef"[k->value >> (60 - 4 * i) & 15];
        out[42 + i] = "0123456789abcdef"[hash >> (60 - 4 * i) & 15];
    }
    return sizeof record - 1;
}

/* ---- time and the progress bar ---- */

static double demo_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
static bool   demo_terminal;
static double demo_drawn;
static const char *demo_step;       /* what the bar shows: a new step is drawn at once, then ten times a second */

KVI_PRIVATE void demo_bar(const char *store, const char *what, size_t done, size_t total)
{
    static const char full[] = "##############################";
    double now;
    int    filled = total ? (int)(30.0 * (double)done / (double)total) : 30;
    if (!demo_terminal) return;
    now = demo_now();
    if (now - demo_drawn < 0.1 && demo_step == what) return;
    demo_drawn = now;
    demo_step = what;
    fprintf(stderr, "\r\033[K%-16s %-12s [%.*s%*s] %3d %%", store, what, filled, full, 30 - filled, "", total ? (int)(100.0 * (double)done / (double)total) : 100);
    fflush(stderr);
}
static void demo_bar_end(void) { if (demo_terminal) fprintf(stderr, "\r\033[K"); }
static void demo_bar_files(size_t files)
{
    if (!demo_terminal || demo_now() - demo_drawn < 0.1) return;
    demo_drawn = demo_now();
    fprintf(stderr, "\r\033[Kreading names: %zu files", files);
    fflush(stderr);
}

/* ---- the stores: one entry each ---- */

typedef struct demo_store {
    const char *name;
    size_t    (*value)(const demo_key *k, char *out);
    kv_status (*open)(const demo_keys *k, kv_store **store);    /* empty, unless frozen */
    void      (*close)(void);
    kv_status (*reopen)(kv_store **store);      /* NULL: what it holds dies with it. Close, and open what was kept */
    bool        frozen;                         /* open builds it with all keys in it */
} demo_store;

#if defined(KV_MEM_IMPLEMENTED)
static kv_mem *demo_mem;
static kv_status demo_mem_open(const demo_keys *k, kv_store **store)
{
    kv_status s = kv_mem_open(NULL, &demo_mem);
    (void)k;
    if (s == KV_OK) *store = kv_mem_store(demo_mem);
    return s;
}
static void demo_mem_close(void) { kv_mem_close(demo_mem); demo_mem = NULL; }
#endif

#if defined(KV_ART_IMPLEMENTED)
static kv_art *demo_art;
static kv_status demo_art_open(const demo_keys *k, kv_store **store)
{
    kv_status s = kv_art_open(NULL, &demo_art);
    (void)k;
    if (s == KV_OK) *store = kv_art_store(demo_art);
    return s;
}
static void demo_art_close(void) { kv_art_close(demo_art); demo_art = NULL; }
#endif

#if defined(KV_FST_IMPLEMENTED)
static kv_fst *demo_fst;
static kv_buf  demo_fst_bytes;
static kv_status demo_fst_write(void *user, const void *data, size_t size) { return kv_buf_append((kv_buf *)user, kv_bytes(data, size)); }
static kv_status demo_fst_open(const demo_keys *k, kv_store **store)
{
    kv_fst_build_options options;
    kv_fst_builder      *builder;
    kv_status            s;
    memset(&options, 0, sizeof options);
    options.values = KV_FST_U64;
    s = kv_fst_build_begin(&options, demo_fst_write, &demo_fst_bytes, &builder);
    if (s < 0) return s;
    for (size_t i = 0; i < k->count; i++) {
        (void)kv_fst_add(builder, demo_slice(&k->sorted[i]), k->sorted[i].value);
        if (i % 1024 == 0) demo_bar("fst", "freezing", i, k->count);
    }
    s = kv_fst_build_finish(builder);           /* tells of the first failure of all */
    if (s == KV_OK) s = kv_fst_open_memory(NULL, kv_buf_slice(&demo_fst_bytes), &demo_fst);
    if (s == KV_OK) *store = kv_fst_store(demo_fst);
    return s;
}
static void demo_fst_close(void) { kv_fst_close(demo_fst); demo_fst = NULL; kv_buf_free(&demo_fst_bytes); }
#endif

#if defined(KV_COMPRESS_IMPLEMENTED) && (defined(KV_MEM_IMPLEMENTED) || defined(KV_ART_IMPLEMENTED))
static kv_compressed *demo_compressed;
static kv_buf         demo_dictionary;
/* A dictionary is trained on some of the values, so that short ones shrink too. */
static kv_status demo_compressed_over(const demo_keys *k, kv_store *inner, kv_store **store)
{
    enum { SAMPLES = 2000 };
    static char         samples[SAMPLES][DEMO_VALUE_MAX];
    static kv_slice     slices[SAMPLES];
    kv_compress_options options;
    kv_status           s;
    memset(&options, 0, sizeof options);
    options.codec = KV_CODEC_ZSTD;
    if (k->count >= SAMPLES) {
        for (size_t i = 0; i < SAMPLES; i++) slices[i] = kv_bytes(samples[i], demo_value_record(&k->sorted[i * (k->count / SAMPLES)], samples[i]));
        s = kv_compress_train(slices, SAMPLES, 4096, &demo_dictionary);
        if (s == KV_OK) options.dictionary = kv_buf_slice(&demo_dictionary);
    }
    s = kv_compressed_open(inner, &options, &demo_compressed);
    if (s == KV_OK) *store = kv_compressed_store(demo_compressed);
    return s;
}
static void demo_compressed_close(void) { kv_compressed_close(demo_compressed); demo_compressed = NULL; kv_buf_free(&demo_dictionary); }
#if defined(KV_MEM_IMPLEMENTED)
static kv_status demo_compressed_mem_open(const demo_keys *k, kv_store **store)
{
    kv_store *inner;
    kv_status s = demo_mem_open(k, &inner);
    return s == KV_OK ? demo_compressed_over(k, inner, store) : s;
}
static void demo_compressed_mem_close(void) { demo_compressed_close(); demo_mem_close(); }
#endif
#if defined(KV_ART_IMPLEMENTED)
static kv_status demo_compressed_art_open(const demo_keys *k, kv_store **store)
{
    kv_store *inner;
    kv_status s = demo_art_open(k, &inner);
    return s == KV_OK ? demo_compressed_over(k, inner, store) : s;
}
static void demo_compressed_art_close(void) { demo_compressed_close(); demo_art_close(); }
#endif
#endif

#if defined(KV_LSM_IMPLEMENTED)
static kv_lsm *demo_lsm;
static char    demo_lsm_path[600];
static void demo_remove_directory(const char *path)
{
    DIR           *dir = opendir(path);
    struct dirent *entry;
    char           name[1200];
    while (dir && (entry = readdir(dir)) != NULL) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (unlink(name) != 0) demo_remove_directory(name);
    }
    if (dir) closedir(dir);
    (void)rmdir(path);
}
static kv_status demo_lsm_reopen(kv_store **store)
{
    kv_status s = kv_lsm_close(demo_lsm);
    demo_lsm = NULL;
    if (s == KV_OK) s = kv_lsm_open(demo_lsm_path, NULL, &demo_lsm);
    if (s == KV_OK) *store = kv_lsm_store(demo_lsm);
    return s;
}
/* In a process of its own: load, telling after every 1,000 keys how far it is, until it is killed. */
static void demo_lsm_victim(const demo_keys *k, int tell)
{
    char   value[DEMO_VALUE_MAX];
    size_t told;
    if (kv_lsm_open(demo_lsm_path, NULL, &demo_lsm) != KV_OK) _exit(1);
    for (size_t i = 0; i < k->all_count; i++) {
        if (kv_lsm_set(demo_lsm, demo_slice(&k->all[i]), kv_bytes(value, demo_value_number(&k->all[i], value))) != KV_OK) _exit(1);
        told = i + 1;
        if (told % 1000 == 0 && write(tell, &told, sizeof told) != (ssize_t)sizeof told) _exit(1);
    }
    for (;;) pause();
}
/* Kill a process that is loading, open what it left, and see that it is what it had written: all that
   it told of, in order, and nothing torn. Then throw it away and begin anew. */
static void demo_lsm_kill(const demo_keys *k)
{
    size_t    told = 0, aim = k->all_count / 3000 * 1000, found = 0;
    kv_buf    value;
    char      wanted[DEMO_VALUE_MAX];
    int       ends[2];
    pid_t     child;
    memset(&value, 0, sizeof value);
    if (aim == 0 || pipe(ends) != 0) return;
    fflush(stdout);
    child = fork();
    if (child < 0) return;
    if (child == 0) { close(ends[0]); demo_lsm_victim(k, ends[1]); }
    close(ends[1]);
    while (told < aim && read(ends[0], &told, sizeof told) == (ssize_t)sizeof told) demo_bar("lsm", "until killed", told, aim);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    while (read(ends[0], &found, sizeof found) == (ssize_t)sizeof found) told = found;      /* told before it died */
    close(ends[0]);
    if (told < aim) demo_die("lsm", "the process that was to be killed failed before");
    if (kv_lsm_open(demo_lsm_path, NULL, &demo_lsm) != KV_OK) demo_die("lsm", "does not open after kill -9");
    for (found = 0; found < told; found++) {
        kv_status s = kv_lsm_get(demo_lsm, demo_slice(&k->all[found]), &value);
        if (s != KV_OK) demo_die("lsm after kill -9", kv_status_text(s));
        if (value.size != demo_value_number(&k->all[found], wanted)) demo_die("lsm after kill -9", "a value of the wrong size");
        if (memcmp(value.data, wanted, value.size) == 0) continue;
        /* unless a later line with the same key had been written already */
        if (k->count == k->all_count || kvi_load_le64(value.data) <= k->all[found].value || kvi_load_le64(value.data) > k->all_count) demo_die("lsm after kill -9", "another value than was written");
    }
    kv_buf_free(&value);
    demo_bar_end();
    printf("lsm: killed (kill -9) while loading, opened again: all %zu keys that it had told of are there\n", told);
    if (kv_lsm_close(demo_lsm) < 0) demo_die("lsm", "does not close");
    demo_lsm = NULL;
    demo_remove_directory(demo_lsm_path);
}
static kv_status demo_lsm_open(const demo_keys *k, kv_store **store)
{
    const char *top = getenv("TMPDIR");
    kv_status   s;
    snprintf(demo_lsm_path, sizeof demo_lsm_path, "%.500s/kv_demo_%ld", top ? top : "/tmp", (long)getpid());
    demo_remove_directory(demo_lsm_path);
    demo_lsm_kill(k);
    s = kv_lsm_open(demo_lsm_path, NULL, &demo_lsm);
    if (s == KV_OK) *store = kv_lsm_store(demo_lsm);
    return s;
}
static void demo_lsm_close(void) { (void)kv_lsm_close(demo_lsm); demo_lsm = NULL; demo_remove_directory(demo_lsm_path); }
#endif

static const demo_store demo_stores[] = {
#if defined(KV_MEM_IMPLEMENTED)
    { "mem", demo_value_number, demo_mem_open, demo_mem_close, NULL, false },
#endif
#if defined(KV_ART_IMPLEMENTED)
    { "art", demo_value_number, demo_art_open, demo_art_close, NULL, false },
#endif
#if defined(KV_FST_IMPLEMENTED)
    { "fst", demo_value_number, demo_fst_open, demo_fst_close, NULL, true },
#endif
#if defined(KV_COMPRESS_IMPLEMENTED) && defined(KV_MEM_IMPLEMENTED)
    { "compressed(mem)", demo_value_record, demo_compressed_mem_open, demo_compressed_mem_close, NULL, false },
#endif
#if defined(KV_COMPRESS_IMPLEMENTED) && defined(KV_ART_IMPLEMENTED)
    { "compressed(art)", demo_value_record, demo_compressed_art_open, demo_compressed_art_close, NULL, false },
#endif
#if defined(KV_LSM_IMPLEMENTED)
    { "lsm", demo_value_number, demo_lsm_open, demo_lsm_close, demo_lsm_reopen, false },
#endif
    { NULL, NULL, NULL, NULL, NULL, false }
};

/* ---- one store, from empty to checked ---- */

static void demo_fail(const demo_store *d, kv_store *s, const char *what, kv_status status)
{
    const char *text = kv_last_error(s);
    demo_bar_end();
    fprintf(stderr, "demo: %s: %s: %s%s%s\n", d->name, what, kv_status_text(status), *text ? ": " : "", text);
    d->close();
    exit(1);
}
static void demo_mismatch(const demo_store *d, const demo_key *k, const char *what)
{
    demo_bar_end();
    fprintf(stderr, "demo: %s: %s for key \"%.*s\"\n", d->name, what, (int)(k->size < 200 ? k->size : 200), k->data);
    d->close();
    exit(1);
}
static void demo_check(const demo_store *d, const demo_key *k, kv_status status, kv_slice value)
{
    char   wanted[DEMO_VALUE_MAX];
    size_t size = d->value(k, wanted);
    if (status != KV_OK) demo_mismatch(d, k, kv_status_text(status));
    if (value.size != size || memcmp(value.data, wanted, size) != 0) demo_mismatch(d, k, "another value than was written");
}

static void demo_load(const demo_store *d, kv_store *s, const demo_keys *k)
{
    static char    values[DEMO_LOAD_BATCH][DEMO_VALUE_MAX];
    static kv_pair pairs[DEMO_LOAD_BATCH];
    for (size_t i = 0; i < k->all_count; i += DEMO_LOAD_BATCH) {
        size_t    n = k->all_count - i < DEMO_LOAD_BATCH ? k->all_count - i : DEMO_LOAD_BATCH;
        kv_status status;
        for (size_t j = 0; j < n; j++) {
            pairs[j].key = demo_slice(&k->all[i + j]);
            pairs[j].value = kv_bytes(values[j], d->value(&k->all[i + j], values[j]));
        }
        status = kv_batch_set(s, pairs, n);
        if (status < 0) demo_fail(d, s, "loading", status);
        demo_bar(d->name, "loading", i, k->all_count);
    }
}
static void demo_read(const demo_store *d, kv_store *s, const demo_keys *k, const uint32_t *order)
{
    kv_buf value;
    memset(&value, 0, sizeof value);
    for (size_t i = 0; i < k->count; i++) {
        const demo_key *key = &k->sorted[order[i]];
        kv_status       status = kv_get(s, demo_slice(key), &value);
        if (status < 0) demo_fail(d, s, "reading", status);
        demo_check(d, key, status, kv_buf_slice(&value));
        if (i % 4096 == 0) demo_bar(d->name, "reading", i, k->count);
    }
    kv_buf_free(&value);
}
static void demo_read_batches(const demo_store *d, kv_store *s, const demo_keys *k, const uint32_t *order)
{
    kv_slice  keys[DEMO_BATCH];
    kv_buf    values[DEMO_BATCH];
    kv_status statuses[DEMO_BATCH];
    memset(values, 0, sizeof values);
    for (size_t i = 0; i < k->count; i += DEMO_BATCH) {
        size_t    n = k->count - i < DEMO_BATCH ? k->count - i : DEMO_BATCH;
        kv_status status;
        for (size_t j = 0; j < n; j++) keys[j] = demo_slice(&k->sorted[order[i + j]]);
        status = kv_batch_get(s, keys, n, values, statuses);
        if (status < 0) demo_fail(d, s, "reading in batches", status);
        for (size_t j = 0; j < n; j++) demo_check(d, &k->sorted[order[i + j]], statuses[j], kv_buf_slice(&values[j]));
        demo_bar(d->name, "batches", i, k->count);
    }
    for (size_t j = 0; j < DEMO_BATCH; j++) kv_buf_free(&values[j]);
}

typedef struct demo_scan { const demo_store *d; const demo_keys *k; size_t seen; bool ordered; } demo_scan;
static bool demo_visit(void *user, kv_slice key, kv_slice value)
{
    demo_scan *v = (demo_scan *)user;
    if (v->ordered && v->seen < v->k->count) {
        const demo_key *wanted = &v->k->sorted[v->seen];
        if (!kv_equal(key, demo_slice(wanted))) demo_mismatch(v->d, wanted, "out of order in a scan");
        demo_check(v->d, wanted, KV_OK, value);
    }
    v->seen++;
    return true;
}

static void demo_rate(double count, double seconds)
{
    double rate = seconds > 0 ? count / seconds : 0;
    if (count < 1) printf(" %11s", "-");
    else if (rate >= 1e6) printf(" %8.2f M/s", rate / 1e6);
    else printf(" %8.1f k/s", rate / 1e3);
}

static void demo_run(const demo_store *d, const demo_keys *k, const uint32_t *order)
{
    kv_store *s = NULL;
    kv_stats  stats;
    kv_status status;
    demo_scan scan;
    double    start = demo_now(), load, read, batch;
    if ((status = d->open(k, &s)) < 0) demo_fail(d, s, "opening", status);
    if (!d->frozen) { start = demo_now(); demo_load(d, s, k); }
    if ((status = kv_flush(s)) < 0) demo_fail(d, s, "flushing", status);
    load = demo_now() - start;
    if (d->reopen && (status = d->reopen(&s)) < 0) demo_fail(d, NULL, "opening again", status);

    start = demo_now();
    demo_read(d, s, k, order);
    read = demo_now() - start;
    start = demo_now();
    demo_read_batches(d, s, k, order);
    batch = demo_now() - start;

    memset(&scan, 0, sizeof scan);
    scan.d = d; scan.k = k;
    scan.ordered = (kv_store_caps(s) & KV_CAP_ORDERED) != 0;
    if ((status = kv_scan(s, NULL, demo_visit, &scan)) < 0) demo_fail(d, s, "scanning", status);
    if ((status = kv_store_stats(s, &stats)) < 0) demo_fail(d, s, "counting", status);
    demo_bar_end();
    if (scan.seen != k->count) { fprintf(stderr, "demo: %s: a scan found %zu of %zu keys\n", d->name, scan.seen, k->count); d->close(); exit(1); }

    printf("%-16s %9zu", d->name, k->count);
    if (k->count) printf(" %9.1f", (double)(stats.disk_bytes ? stats.disk_bytes : stats.memory_bytes) / (double)k->count);
    else printf(" %9s", "-");
    demo_rate((double)(d->frozen ? k->count : k->all_count), load);
    demo_rate((double)k->count, read);
    demo_rate((double)k->count, batch);
    printf("\n");
    fflush(stdout);
    d->close();
}

int main(int argc, char **argv)
{
    demo_keys k;
    uint32_t *order;
    uint64_t  random = 20261121, record_bytes = 0;
    memset(&k, 0, sizeof k);
    demo_terminal = isatty(2) == 1;
    if (argc > 2 || (argc == 2 && argv[1][0] == '-' && argv[1][1])) { fprintf(stderr, "usage: demo [FILE]\n"); return 1; }
    if (argc == 2) demo_read_lines(&k, argv[1]); else demo_walk(&k, "/usr", demo_bar_files);
    demo_sort(&k);
    demo_bar_end();
    if (k.count > UINT32_MAX) demo_die("keys", "more than this demo counts");

    order = (uint32_t *)demo_memory(NULL, k.count * sizeof *order);
    for (size_t i = 0; i < k.count; i++) {
        char   record[DEMO_VALUE_MAX];
        size_t j = (size_t)(kvi_mix64(random += UINT64_C(0x9E3779B97F4A7C15)) % (i + 1));
        order[i] = order[j];
        order[j] = (uint32_t)i;
        record_bytes += demo_value_record(&k.sorted[i], record);
    }
    printf("%s: %zu %s, %zu different keys of %.1f bytes; values of 8 bytes, for compressed(...) of %.0f\n", argc == 2 ? argv[1] : "/usr", k.all_count + k.too_long,
           argc == 2 ? "lines" : "files", k.count, k.count ? (double)k.key_bytes / (double)k.count : 0.0, k.count ? (double)record_bytes / (double)k.count : 0.0);
    if (k.too_long) printf("%zu left out: longer than %u bytes\n", k.too_long, KV_KEY_SIZE_MAX);
    printf("\n%-16s %9s %9s %11s %11s %11s\n", "store", "keys", "bytes/key", "load/s", "get/s", "batch get/s");
    for (const demo_store *d = demo_stores; d->name; d++) demo_run(d, &k, order);
    printf("\nevery value was read back twice and was what had been written\n");
    return 0;
}
