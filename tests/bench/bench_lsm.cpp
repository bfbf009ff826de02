/* bench_lsm.cpp - kv_lsm.h beside LevelDB, RocksDB and LMDB
   Goal: the same work at the same settings, in one process, interleaved; ratios, not moods.
   Method: every engine stands behind one table of functions. For each setting and codec, in each
   round, each workload runs on each engine in turn, after that engine's background work came to rest;
   the table shows medians over the rounds and our ratio to the best peer.

       make bench-lsm                                       200,000 entries, settings D, every codec
       BENCH_ARGS="--entries 2000000 --settings D,HP,P" make bench-lsm
       --only readrandom,seek      workloads (the fill that they need always runs)
       --codecs none,fast,zstd     fast: snappy for LevelDB, lz4 for the others
       --engines kv,leveldb        ...   --rounds 3   --reads N   --dir DIR   --json FILE   --svg FILE   --paths FILE

   bench-libs: leveldb rocksdb lmdb

   Settings: D 4 MB memtable, 64 MB cache; HP 64 MB, 512 MB; P: real paths as keys, D. All: 16 KB
   blocks, 10 bits of filter a key, checksums verified on reads, zstd level 1, sync off but where a
   workload says fsync. 16-byte keys; values of 100 bytes, half compressible. LMDB knows no memtable,
   codec or filter: it runs with MDB_NOSYNC, its fills in transactions of 1,000. LevelDB maps its
   tables (it always does); `kv map` is ours with map_tables, and is the one to compare with it and LMDB. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"     /* in the AVX-512 intrinsics of gcc 12 */
#endif
#define KV_LSM_IMPLEMENTATION
#include "../../kv_lsm.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>
#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#ifdef HAVE_leveldb
#include <leveldb/cache.h>
#include <leveldb/db.h>
#include <leveldb/filter_policy.h>
#include <leveldb/write_batch.h>
#endif
#ifdef HAVE_rocksdb
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#endif
#ifdef HAVE_lmdb
#include <lmdb.h>
#endif

/* ------------------------------------------------------------------------------------------------
   one small table of functions */

enum codec_kind { NONE, FAST, ZSTD };
static const char *const codec_names[] = { "none", "fast", "zstd" };

struct config {
    std::string path;
    codec_kind  codec;
    size_t      memtable, cache;
    bool        sync, low_memory;
};
struct entry { kv_slice key, value; };

struct engine {
    const char *name;
    bool lsm, ours;
    bool (*has)(codec_kind c);
    void *(*open)(const config &c);
    void (*close)(void *db);
    void (*put)(void *db, kv_slice key, kv_slice value);
    void (*fill)(void *db, const entry *e, size_t count);       /* 1,000 at a time: single puts, or what the engine needs */
    void (*remove)(void *db, kv_slice key);
    bool (*get)(void *db, kv_slice key);                        /* reads the value's bytes */
    void *(*cursor)(void *db);
    bool (*seek)(void *cursor, kv_slice key);
    bool (*next)(void *cursor);
    kv_slice (*key)(void *cursor);
    kv_slice (*value)(void *cursor);
    void (*cursor_close)(void *cursor);
};

[[noreturn]] static void die(const char *what, const std::string &why)
{
    fprintf(stderr, "bench_lsm: %s: %s\n", what, why.c_str());
    exit(1);
}
static std::atomic<uint64_t> value_sum;         /* so that no read is optimised away */
static void use(kv_slice v) { value_sum.fetch_add(v.size ? (uint64_t)((const unsigned char *)v.data)[v.size - 1] + v.size : 0, std::memory_order_relaxed); }

/* ---- ours ---- */
#ifdef KV_LSM_IMPLEMENTED
struct our_db { kv_lsm *db; kv_buf value; };
static thread_local kv_buf our_value;
static void our_check(kv_lsm *db, const char *what, kv_status s) { if (s < 0) die(what, db ? kv_last_error(kv_lsm_store(db)) : kv_status_text(s)); }
static bool our_has(codec_kind) { return true; }
static void *our_open_mapped(const config &c, bool map)
{
    kv_lsm_options o = c.low_memory ? kv_lsm_low_memory() : kv_lsm_default();
    char text[400] = "";
    o.memtable_bytes = c.memtable;
    o.cache_bytes = c.cache ? c.cache : KV_NONE;
    o.block_bytes = 16384;
    o.codec = c.codec == NONE ? KV_CODEC_NONE : c.codec == FAST ? KV_CODEC_LZ4 : KV_CODEC_ZSTD;
    o.level = c.codec == ZSTD ? 1 : 0;
    o.bloom_fp_rate = c.low_memory ? KV_NO_BLOOM : 0.01;
    o.sync = c.sync ? KV_SYNC_WRITE : KV_SYNC_NONE;
    o.map_tables = map;
    o.error_text = text;
    o.error_text_size = sizeof text;
    kv_lsm *db = NULL;
    if (kv_lsm_open(c.path.c_str(), &o, &db) < 0) die("kv_lsm_open", text);
    return db;
}
static void *our_open(const config &c) { return our_open_mapped(c, false); }
static void *our_open_map(const config &c) { return our_open_mapped(c, true); }
static void our_close(void *db) { our_check(NULL, "kv_lsm_close", kv_lsm_close((kv_lsm *)db)); }
static void our_put(void *db, kv_slice k, kv_slice v) { our_check((kv_lsm *)db, "kv_lsm_set", kv_lsm_set((kv_lsm *)db, k, v)); }
static void our_fill(void *db, const entry *e, size_t n) { for (size_t i = 0; i < n; i++) our_put(db, e[i].key, e[i].value); }
static void our_remove(void *db, kv_slice k) { our_check((kv_lsm *)db, "kv_lsm_delete", kv_lsm_delete((kv_lsm *)db, k)); }
static bool our_get(void *db, kv_slice k)
{
    kv_status s = kv_lsm_get((kv_lsm *)db, k, &our_value);
    our_check((kv_lsm *)db, "kv_lsm_get", s);
    if (s == KV_OK) use(kv_buf_slice(&our_value));
    return s == KV_OK;
}
static void *our_cursor(void *db)
{
    kv_iter *i = NULL;
    our_check((kv_lsm *)db, "kv_lsm_iter_open", kv_lsm_iter_open((kv_lsm *)db, NULL, NULL, &i));
    return i;
}
static bool our_valid(kv_iter *i)
{
    if (kv_iter_valid(i)) return true;
    if (kv_iter_status(i) < 0) die("kv_iter", kv_status_text(kv_iter_status(i)));
    return false;
}
static bool our_seek(void *i, kv_slice k) { if (k.size) kv_iter_seek((kv_iter *)i, k); else kv_iter_first((kv_iter *)i); return our_valid((kv_iter *)i); }
static bool our_next(void *i) { kv_iter_next((kv_iter *)i); return our_valid((kv_iter *)i); }
static kv_slice our_key(void *i) { return kv_iter_key((kv_iter *)i); }
static kv_slice our_iter_value(void *i) { return kv_iter_value((kv_iter *)i); }
static void our_cursor_close(void *i) { kv_iter_close((kv_iter *)i); }
#endif

/* ---- LevelDB ---- */
#ifdef HAVE_leveldb
struct level_db { leveldb::DB *db; leveldb::Cache *cache; const leveldb::FilterPolicy *filter; leveldb::WriteOptions write; };
static void level_check(const leveldb::Status &s) { if (!s.ok()) die("leveldb", s.ToString()); }
static leveldb::Slice level_slice(kv_slice s) { return leveldb::Slice((const char *)s.data, s.size); }
static bool level_has(codec_kind c) { return c != ZSTD; }
static leveldb::ReadOptions level_read() { leveldb::ReadOptions r; r.verify_checksums = true; return r; }
static void *level_open(const config &c)
{
    level_db *l = new level_db();
    leveldb::Options o;
    o.create_if_missing = true;
    o.write_buffer_size = c.memtable;
    o.block_size = 16384;
    o.compression = c.codec == NONE ? leveldb::kNoCompression : leveldb::kSnappyCompression;
    o.block_cache = l->cache = leveldb::NewLRUCache(c.cache);
    o.filter_policy = l->filter = c.low_memory ? NULL : leveldb::NewBloomFilterPolicy(10);
    l->write.sync = c.sync;
    level_check(leveldb::DB::Open(o, c.path, &l->db));
    return l;
}
static void level_close(void *db) { level_db *l = (level_db *)db; delete l->db; delete l->cache; delete l->filter; delete l; }
static void level_put(void *db, kv_slice k, kv_slice v) { level_db *l = (level_db *)db; level_check(l->db->Put(l->write, level_slice(k), level_slice(v))); }
static void level_fill(void *db, const entry *e, size_t n) { for (size_t i = 0; i < n; i++) level_put(db, e[i].key, e[i].value); }
static void level_remove(void *db, kv_slice k) { level_db *l = (level_db *)db; level_check(l->db->Delete(l->write, level_slice(k))); }
static bool level_get(void *db, kv_slice k)
{
    static thread_local std::string value;
    leveldb::Status s = ((level_db *)db)->db->Get(level_read(), level_slice(k), &value);
    if (s.IsNotFound()) return false;
    level_check(s);
    use(kv_bytes(value.data(), value.size()));
    return true;
}
static void *level_cursor(void *db) { return ((level_db *)db)->db->NewIterator(level_read()); }
static bool level_valid(leveldb::Iterator *i) { if (i->Valid()) return true; level_check(i->status()); return false; }
static bool level_seek(void *c, kv_slice k) { leveldb::Iterator *i = (leveldb::Iterator *)c; if (k.size) i->Seek(level_slice(k)); else i->SeekToFirst(); return level_valid(i); }
static bool level_next(void *c) { ((leveldb::Iterator *)c)->Next(); return level_valid((leveldb::Iterator *)c); }
static kv_slice level_key(void *c) { leveldb::Slice s = ((leveldb::Iterator *)c)->key(); return kv_bytes(s.data(), s.size()); }
static kv_slice level_value(void *c) { leveldb::Slice s = ((leveldb::Iterator *)c)->value(); return kv_bytes(s.data(), s.size()); }
static void level_cursor_close(void *c) { delete (leveldb::Iterator *)c; }
#endif

/* ---- RocksDB ---- */
#ifdef HAVE_rocksdb
struct rocks_db { rocksdb::DB *db; rocksdb::WriteOptions write; };
static void rocks_check(const rocksdb::Status &s) { if (!s.ok()) die("rocksdb", s.ToString()); }
static rocksdb::Slice rocks_slice(kv_slice s) { return rocksdb::Slice((const char *)s.data, s.size); }
static bool rocks_has(codec_kind) { return true; }
static void *rocks_open(const config &c)
{
    rocks_db *r = new rocks_db();
    rocksdb::Options o;
    rocksdb::BlockBasedTableOptions t;
    o.create_if_missing = true;
    o.write_buffer_size = c.memtable;
    o.compression = c.codec == NONE ? rocksdb::kNoCompression : c.codec == FAST ? rocksdb::kLZ4Compression : rocksdb::kZSTD;
    if (c.codec == ZSTD) o.compression_opts.level = 1;
    t.block_size = 16384;
    if (c.cache) t.block_cache = rocksdb::NewLRUCache(c.cache); else t.no_block_cache = true;
    if (!c.low_memory) t.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10, false));
    o.table_factory.reset(rocksdb::NewBlockBasedTableFactory(t));
    r->write.sync = c.sync;
    rocks_check(rocksdb::DB::Open(o, c.path, &r->db));
    return r;
}
static void rocks_close(void *db) { rocks_db *r = (rocks_db *)db; rocks_check(r->db->Close()); delete r->db; delete r; }
static void rocks_put(void *db, kv_slice k, kv_slice v) { rocks_db *r = (rocks_db *)db; rocks_check(r->db->Put(r->write, rocks_slice(k), rocks_slice(v))); }
static void rocks_fill(void *db, const entry *e, size_t n) { for (size_t i = 0; i < n; i++) rocks_put(db, e[i].key, e[i].value); }
static void rocks_remove(void *db, kv_slice k) { rocks_db *r = (rocks_db *)db; rocks_check(r->db->Delete(r->write, rocks_slice(k))); }
static bool rocks_get(void *db, kv_slice k)
{
    rocks_db *r = (rocks_db *)db;
    static thread_local std::string value;
    rocksdb::Status s = r->db->Get(rocksdb::ReadOptions(), rocks_slice(k), &value);
    if (s.IsNotFound()) return false;
    rocks_check(s);
    use(kv_bytes(value.data(), value.size()));
    return true;
}
static void *rocks_cursor(void *db) { return ((rocks_db *)db)->db->NewIterator(rocksdb::ReadOptions()); }
static bool rocks_valid(rocksdb::Iterator *i) { if (i->Valid()) return true; rocks_check(i->status()); return false; }
static bool rocks_seek(void *c, kv_slice k) { rocksdb::Iterator *i = (rocksdb::Iterator *)c; if (k.size) i->Seek(rocks_slice(k)); else i->SeekToFirst(); return rocks_valid(i); }
static bool rocks_next(void *c) { ((rocksdb::Iterator *)c)->Next(); return rocks_valid((rocksdb::Iterator *)c); }
static kv_slice rocks_key(void *c) { rocksdb::Slice s = ((rocksdb::Iterator *)c)->key(); return kv_bytes(s.data(), s.size()); }
static kv_slice rocks_value(void *c) { rocksdb::Slice s = ((rocksdb::Iterator *)c)->value(); return kv_bytes(s.data(), s.size()); }
static void rocks_cursor_close(void *c) { delete (rocksdb::Iterator *)c; }
#endif

/* ---- LMDB ---- */
#ifdef HAVE_lmdb
struct lm_db { MDB_env *env; MDB_dbi dbi; MDB_txn *read; };     /* read: the reading thread's transaction, reset and renewed: its fast way */
struct lm_cursor { MDB_txn *txn; MDB_cursor *cursor; MDB_val key, value; };
static void lm_check(int r) { if (r) die("lmdb", mdb_strerror(r)); }
static MDB_val lm_val(kv_slice s) { MDB_val v; v.mv_size = s.size; v.mv_data = (void *)(uintptr_t)s.data; return v; }
static bool lm_has(codec_kind c) { return c == NONE; }
static void *lm_open(const config &c)
{
    lm_db *l = new lm_db();
    MDB_txn *txn;
    mkdir(c.path.c_str(), 0700);
    lm_check(mdb_env_create(&l->env));
    lm_check(mdb_env_set_mapsize(l->env, (size_t)8 << 30));
    lm_check(mdb_env_set_maxreaders(l->env, 64));
    lm_check(mdb_env_open(l->env, c.path.c_str(), MDB_NOTLS | (c.sync ? 0 : MDB_NOSYNC), 0600));
    lm_check(mdb_txn_begin(l->env, NULL, 0, &txn));
    lm_check(mdb_dbi_open(txn, NULL, 0, &l->dbi));
    lm_check(mdb_txn_commit(txn));
    return l;
}
static void lm_close(void *db) { lm_db *l = (lm_db *)db; if (l->read) mdb_txn_abort(l->read); mdb_env_close(l->env); delete l; }
static void lm_fill(void *db, const entry *e, size_t n)
{
    lm_db *l = (lm_db *)db;
    MDB_txn *txn;
    lm_check(mdb_txn_begin(l->env, NULL, 0, &txn));
    for (size_t i = 0; i < n; i++) {
        MDB_val k = lm_val(e[i].key), v = lm_val(e[i].value);
        lm_check(mdb_put(txn, l->dbi, &k, &v, 0));
    }
    lm_check(mdb_txn_commit(txn));
}
static void lm_put(void *db, kv_slice k, kv_slice v) { entry e = { k, v }; lm_fill(db, &e, 1); }
static void lm_remove(void *db, kv_slice key)
{
    lm_db *l = (lm_db *)db;
    MDB_txn *txn;
    MDB_val k = lm_val(key);
    lm_check(mdb_txn_begin(l->env, NULL, 0, &txn));
    int r = mdb_del(txn, l->dbi, &k, NULL);
    if (r != MDB_NOTFOUND) lm_check(r);
    lm_check(mdb_txn_commit(txn));
}
static bool lm_get(void *db, kv_slice key)
{
    lm_db *l = (lm_db *)db;
    MDB_val k = lm_val(key), v;
    if (l->read) lm_check(mdb_txn_renew(l->read)); else lm_check(mdb_txn_begin(l->env, NULL, MDB_RDONLY, &l->read));
    int r = mdb_get(l->read, l->dbi, &k, &v);
    if (r == 0) {
        static thread_local std::string copy;
        copy.assign((const char *)v.mv_data, v.mv_size);
        use(kv_bytes(copy.data(), copy.size()));
    } else if (r != MDB_NOTFOUND) lm_check(r);
    mdb_txn_reset(l->read);
    return r == 0;
}
static void *lm_cursor_open(void *db)
{
    lm_db *l = (lm_db *)db;
    lm_cursor *c = new lm_cursor();
    lm_check(mdb_txn_begin(l->env, NULL, MDB_RDONLY, &c->txn));
    lm_check(mdb_cursor_open(c->txn, l->dbi, &c->cursor));
    return c;
}
static bool lm_move(lm_cursor *c, MDB_cursor_op op)
{
    int r = mdb_cursor_get(c->cursor, &c->key, &c->value, op);
    if (r != MDB_NOTFOUND) lm_check(r);
    return r == 0;
}
static bool lm_seek(void *c, kv_slice k) { lm_cursor *l = (lm_cursor *)c; l->key = lm_val(k); return lm_move(l, k.size ? MDB_SET_RANGE : MDB_FIRST); }
static bool lm_next(void *c) { return lm_move((lm_cursor *)c, MDB_NEXT); }
static kv_slice lm_key(void *c) { return kv_bytes(((lm_cursor *)c)->key.mv_data, ((lm_cursor *)c)->key.mv_size); }
static kv_slice lm_value(void *c) { return kv_bytes(((lm_cursor *)c)->value.mv_data, ((lm_cursor *)c)->value.mv_size); }
static void lm_cursor_close(void *c) { lm_cursor *l = (lm_cursor *)c; mdb_cursor_close(l->cursor); mdb_txn_abort(l->txn); delete l; }
#endif

static const engine engines[] = {
#ifdef KV_LSM_IMPLEMENTED
    { "kv", true, true, our_has, our_open, our_close, our_put, our_fill, our_remove, our_get, our_cursor, our_seek, our_next, our_key, our_iter_value, our_cursor_close },
    { "kv map", true, true, our_has, our_open_map, our_close, our_put, our_fill, our_remove, our_get, our_cursor, our_seek, our_next, our_key, our_iter_value, our_cursor_close },
#endif
#ifdef HAVE_leveldb
    { "leveldb", true, false, level_has, level_open, level_close, level_put, level_fill, level_remove, level_get, level_cursor, level_seek, level_next, level_key, level_value, level_cursor_close },
#endif
#ifdef HAVE_rocksdb
    { "rocksdb", true, false, rocks_has, rocks_open, rocks_close, rocks_put, rocks_fill, rocks_remove, rocks_get, rocks_cursor, rocks_seek, rocks_next, rocks_key, rocks_value, rocks_cursor_close },
#endif
#ifdef HAVE_lmdb
    { "lmdb", false, false, lm_has, lm_open, lm_close, lm_put, lm_fill, lm_remove, lm_get, lm_cursor_open, lm_seek, lm_next, lm_key, lm_value, lm_cursor_close },
#endif
};
static const size_t engine_count = sizeof engines / sizeof engines[0];

/* ------------------------------------------------------------------------------------------------
   machine */

static double now_seconds() { timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return (double)t.tv_sec + (double)t.tv_nsec * 1e-9; }
static double cpu_seconds()
{
    rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}
/* Until no background thread of any engine works: a tenth of a second with no processor time used. */
static void settle()
{
    for (double begin = now_seconds(); now_seconds() - begin < 120;) {
        double before = cpu_seconds();
        usleep(100000);
        if (cpu_seconds() - before < 0.004) return;
    }
}
static uint64_t bytes_written()         /* by write calls of this process */
{
    FILE *f = fopen("/proc/self/io", "r");
    unsigned long long n = 0;
    char line[100];
    while (f && fgets(line, sizeof line, f)) if (sscanf(line, "wchar: %llu", &n) == 1) break;
    if (f) fclose(f);
    return n;
}
static void each_file(const std::string &dir, void (*fn)(void *, const std::string &), void *user)
{
    DIR *d = opendir(dir.c_str());
    while (dirent *e = d ? readdir(d) : NULL) {
        std::string name = e->d_name, path = dir + "/" + name;
        struct stat s;
        if (name == "." || name == ".." || lstat(path.c_str(), &s)) continue;
        if (S_ISDIR(s.st_mode)) each_file(path, fn, user);
        fn(user, path);
    }
    if (d) closedir(d);
}
static void remove_tree(const std::string &dir)
{
    each_file(dir, [](void *, const std::string &p) { remove(p.c_str()); }, NULL);
    rmdir(dir.c_str());
}
static double disk_megabytes(const std::string &dir)
{
    double total = 0;
    each_file(dir, [](void *user, const std::string &p) {
        struct stat s;
        if (!stat(p.c_str(), &s) && S_ISREG(s.st_mode)) *(double *)user += (double)s.st_blocks * 512;
    }, &total);
    return total / 1e6;
}
struct random_source {
    uint64_t s;
    uint64_t next() { uint64_t z = (s += 0x9E3779B97F4A7C15ull); z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull; z = (z ^ z >> 27) * 0x94D049BB133111EBull; return z ^ z >> 31; }
    size_t below(size_t n) { return (size_t)(next() % n); }
};

/* ------------------------------------------------------------------------------------------------
   keys, values, settings */

struct keys {
    std::string text;
    std::vector<uint32_t> at;           /* where each begins; one more: the end */
    size_t count() const { return at.size() - 1; }
    kv_slice key(size_t i) const { return kv_bytes(text.data() + at[i], at[i + 1] - at[i]); }
    void add(const char *p, size_t n) { text.append(p, n); at.push_back((uint32_t)text.size()); }
};
static keys numbers, paths;             /* ascending */
static std::string noise;               /* half compressible */

static kv_slice value_at(size_t i) { return kv_bytes(noise.data() + i * 104729 % (noise.size() - 100), 100); }
static void make_values()
{
    random_source r = { 42 };
    while (noise.size() < 1 << 20) {
        std::string half;
        for (int i = 0; i < 50; i++) half += (char)(' ' + r.below(95));
        noise += half + half;
    }
}
static void make_numbers(size_t count)
{
    char text[32];
    numbers.at.push_back(0);
    for (size_t i = 0; i < count; i++) numbers.add(text, (size_t)snprintf(text, sizeof text, "%016llu", (unsigned long long)i * 4));   /* gaps, for keys that miss */
}
static bool make_paths(const std::string &file, size_t count)
{
    FILE *f = popen(("zstd -dcq '" + file + "' 2>/dev/null").c_str(), "r");
    char line[70000];
    std::vector<std::string> all;
    while (f && fgets(line, sizeof line, f)) {
        size_t n = strlen(line);
        if (n && line[n - 1] == '\n') n--;
        if (n) all.push_back(std::string(line, n));
    }
    if (f) pclose(f);
    if (all.size() > count) {                           /* every n-th, so that they stay spread */
        std::vector<std::string> some;
        for (size_t i = 0; i < count; i++) some.push_back(all[i * all.size() / count]);
        all.swap(some);
    }
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    paths.at.push_back(0);
    for (const std::string &p : all) paths.add(p.data(), p.size());
    return !all.empty();
}

struct setting { const char *name; size_t memtable, cache; const keys *k; };

/* ------------------------------------------------------------------------------------------------
   workloads: each returns thousands of operations a second, or what its unit says */

struct run {
    const engine *e;
    config c;
    const keys *k;
    const std::vector<uint32_t> *order;
    void *db;
    size_t reads;
    uint64_t seed;
    double write_amplification;
};

static void open_fresh(run &r)
{
    if (r.db) r.e->close(r.db);
    r.db = NULL;
    remove_tree(r.c.path);
    r.db = r.e->open(r.c);
}
static double rate(size_t count, double begin) { return (double)count / (now_seconds() - begin) / 1000; }

static void put_all(run &r, bool in_order, uint64_t salt)
{
    std::vector<entry> group(1000);
    size_t n = r.k->count();
    for (size_t i = 0; i < n; i += group.size()) {
        size_t some = std::min(group.size(), n - i);
        for (size_t j = 0; j < some; j++) {
            size_t at = in_order ? i + j : (*r.order)[i + j];
            group[j].key = r.k->key(at);
            group[j].value = value_at(at + salt);
        }
        r.e->fill(r.db, group.data(), some);
    }
}
static double user_bytes(const run &r) { return (double)r.k->text.size() + 100.0 * (double)r.k->count(); }
static double fillrandom(run &r)
{
    open_fresh(r);
    uint64_t before = bytes_written();
    double begin = now_seconds();
    put_all(r, false, 0);
    double speed = rate(r.k->count(), begin);
    settle();
    r.write_amplification = (double)(bytes_written() - before) / user_bytes(r);
    return speed;
}
static double fillseq(run &r) { open_fresh(r); double begin = now_seconds(); put_all(r, true, 0); return rate(r.k->count(), begin); }
static double overwrite(run &r) { double begin = now_seconds(); put_all(r, false, r.seed + 7); return rate(r.k->count(), begin); }
static double size_on_disk(run &r) { settle(); return disk_megabytes(r.c.path); }
static double amplification(run &r) { return r.write_amplification; }
static void warm(run &r)
{
    random_source q = { r.seed + 99 };
    for (size_t i = 0; i < r.reads / 4; i++) r.e->get(r.db, r.k->key(q.below(r.k->count())));
}
static double readrandom(run &r)
{
    random_source q = { r.seed };
    size_t found = 0;
    warm(r);
    double begin = now_seconds();
    for (size_t i = 0; i < r.reads; i++) found += r.e->get(r.db, r.k->key(q.below(r.k->count())));
    double speed = rate(r.reads, begin);
    if (found != r.reads) die(r.e->name, "a key is missing");
    return speed;
}
static double readmissing(run &r)
{
    random_source q = { r.seed + 1 };
    size_t found = 0;
    std::string key;
    double begin = now_seconds();
    for (size_t i = 0; i < r.reads; i++) {
        kv_slice k = r.k->key(q.below(r.k->count()));
        key.assign((const char *)k.data, k.size);
        key.back() = (char)(key.back() + 1);                /* numbers are multiples of 4: surely missing */
        if (r.k != &numbers) key += '\x01';
        found += r.e->get(r.db, kv_bytes(key.data(), key.size()));
    }
    double speed = rate(r.reads, begin);
    if (found) die(r.e->name, "a key is there that was never written");
    return speed;
}
static double readseq(run &r)
{
    size_t count = 0;
    double begin = now_seconds();
    for (int pass = 0; pass < 2; pass++) {
        void *c = r.e->cursor(r.db);
        if (pass == 1) begin = now_seconds(), count = 0;
        for (bool more = r.e->seek(c, kv_bytes("", 0)); more; more = r.e->next(c)) { use(r.e->value(c)); count++; }
        r.e->cursor_close(c);
    }
    double speed = rate(count, begin);
    if (count != r.k->count()) die(r.e->name, "a scan shows " + std::to_string(count) + " entries");
    return speed;
}
static double seeks(run &r, size_t steps, bool prefix)
{
    random_source q = { r.seed + 2 + steps };
    size_t count = r.reads / (steps > 1 ? 4 : 1) + 1;
    void *c = r.e->cursor(r.db);
    double begin = now_seconds();
    for (size_t i = 0; i < count; i++) {
        kv_slice k = r.k->key(q.below(r.k->count()));
        if (prefix) k.size -= k.size > 3 ? 3 : 0;
        bool more = r.e->seek(c, k);
        for (size_t n = 0; more && n < steps; n++) {
            kv_slice at = r.e->key(c);
            if (prefix && !kv_has_prefix(at, k)) break;
            if (steps == 1 && !kv_equal(at, k)) die(r.e->name, "a seek went astray");
            use(r.e->value(c));
            if (n + 1 < steps) more = r.e->next(c);
        }
    }
    double speed = rate(count, begin);
    r.e->cursor_close(c);
    return speed;
}
static double seek(run &r) { return seeks(r, 1, false); }
static double seek50(run &r) { return seeks(r, 50, false); }
static double prefix50(run &r) { return seeks(r, 50, true); }
static double readwhilewriting(run &r)
{
    std::atomic<bool> stop(false);
    std::thread writer([&] {
        random_source q = { r.seed + 3 };
        while (!stop.load(std::memory_order_relaxed)) { size_t at = q.below(r.k->count()); r.e->put(r.db, r.k->key(at), value_at(at + q.next() % 1000)); }
    });
    random_source q = { r.seed + 4 };
    size_t count = r.reads / 2 + 1, found = 0;
    double begin = now_seconds();
    for (size_t i = 0; i < count; i++) found += r.e->get(r.db, r.k->key(q.below(r.k->count())));
    double speed = rate(count, begin);
    stop = true;
    writer.join();
    if (found != count) die(r.e->name, "a key is missing");
    return speed;
}
static double mixed(run &r)
{
    random_source q = { r.seed + 5 };
    size_t count = r.reads;
    double begin = now_seconds();
    for (size_t i = 0; i < count; i++) {
        size_t at = q.below(r.k->count());
        if (q.below(5) == 0) r.e->put(r.db, r.k->key(at), value_at(at + i)); else r.e->get(r.db, r.k->key(at));
    }
    return rate(count, begin);
}
static double reopen(run &r)
{
    settle();
    r.e->close(r.db);
    r.db = NULL;
    double begin = now_seconds();
    r.db = r.e->open(r.c);
    r.e->get(r.db, r.k->key(r.k->count() / 2));
    return (now_seconds() - begin) * 1000;
}
static double deleteall(run &r)
{
    double begin = now_seconds();
    for (size_t i = 0; i < r.k->count(); i++) r.e->remove(r.db, r.k->key(i));
    return rate(r.k->count(), begin);
}
static double fillsync_threads(run &r, int threads)
{
    r.c.sync = true;
    open_fresh(r);
    std::atomic<size_t> count(0);
    double begin = now_seconds(), seconds = 1.5;
    std::vector<std::thread> list;
    for (int t = 0; t < threads; t++)
        list.push_back(std::thread([&, t] {
            random_source q = { r.seed + (uint64_t)t * 1000 };
            while (now_seconds() - begin < seconds) { size_t at = q.below(r.k->count()); r.e->put(r.db, r.k->key(at), value_at(at)); count++; }
        }));
    for (std::thread &t : list) t.join();
    double speed = rate(count, begin);
    r.c.sync = false;
    r.e->close(r.db);
    r.db = NULL;
    return speed;
}
static double fillsync(run &r) { return fillsync_threads(r, 1); }
static double fillsync8(run &r) { return fillsync_threads(r, 8); }

/* bar_lsm: our ratio to the best LSM; bar_all: to the best of all that have this codec */
struct workload { const char *name, *unit; double (*fn)(run &); bool settle_first, less_is_better; double bar_lsm; };
static const workload workloads[] = {
    { "fillrandom", "K/s", fillrandom, true, false, 1.6 },
    { "size", "MB", size_on_disk, false, true, 0.95 },
    { "writeamp", "x", amplification, false, true, 1.0 },
    { "readseq", "K/s", readseq, true, false, 2 },
    { "readrandom", "K/s", readrandom, true, false, 2 },
    { "readmissing", "K/s", readmissing, true, false, 2 },
    { "seek", "K/s", seek, true, false, 2 },
    { "seek50", "K/s", seek50, true, false, 2 },
    { "prefix50", "K/s", prefix50, true, false, 2 },
    { "rww", "K/s", readwhilewriting, true, false, 2 },
    { "mixed", "K/s", mixed, true, false, 2 },
    { "overwrite", "K/s", overwrite, true, false, 1.6 },
    { "reopen", "ms", reopen, true, true, 0 },
    { "deleteall", "K/s", deleteall, true, false, 1.6 },
    { "fillseq", "K/s", fillseq, true, false, 1.6 },
    { "fillsync", "K/s", fillsync, true, false, 1 },
    { "fillsync8", "K/s", fillsync8, true, false, 1 },
};

/* ------------------------------------------------------------------------------------------------
   results */

struct result { std::string setting, codec, workload, engine; std::vector<double> values; };
static std::vector<result> results;
static double median(std::vector<double> v) { std::sort(v.begin(), v.end()); return v.empty() ? 0 : v.size() % 2 ? v[v.size() / 2] : (v[v.size() / 2 - 1] + v[v.size() / 2]) / 2; }
static void note(const std::string &s, const std::string &c, const std::string &w, const std::string &e, double value)
{
    for (result &r : results) if (r.setting == s && r.codec == c && r.workload == w && r.engine == e) { r.values.push_back(value); return; }
    results.push_back({ s, c, w, e, { value } });
}
static double found(const std::string &s, const std::string &c, const std::string &w, const std::string &e)
{
    for (const result &r : results) if (r.setting == s && r.codec == c && r.workload == w && r.engine == e) return median(r.values);
    return 0;
}
/* ours to the best peer; above 1 is better for us, whatever the unit. 0: nothing to compare with */
static double ratio(const std::string &s, const std::string &c, const workload &w, const std::string &our, bool lsm_only)
{
    double mine = found(s, c, w.name, our), best = 0;
    for (const engine &e : engines) {
        double v = e.ours || (lsm_only && !e.lsm) ? 0 : found(s, c, w.name, e.name);
        if (v > 0 && (best == 0 || (w.less_is_better ? v < best : v > best))) best = v;
    }
    return mine > 0 && best > 0 ? (w.less_is_better ? best / mine : mine / best) : 0;
}
static double bar(const workload &w) { return w.less_is_better && w.bar_lsm > 0 ? 1 / w.bar_lsm : w.bar_lsm; }
/* Each of our two ways of reading is judged by itself. */
static void verdict(const char *name, double reached, double wanted)
{
    if (reached > 0 && wanted > 0) printf("  %s %s", name, reached >= wanted ? "ok" : "BELOW");
}
static void print_table(const std::string &s, const std::string &c, const std::vector<const engine *> &list)
{
    printf("\n%s, codec %s\n%-12s %-4s", s.c_str(), c.c_str(), "workload", "unit");
    for (const engine *e : list) printf(" %10s", e->name);
    printf("   kv/LSM  map/LSM  map/lmdb   bar\n");
    for (const workload &w : workloads) {
        bool any = false;
        for (const engine *e : list) any = any || found(s, c, w.name, e->name) > 0;
        if (!any) continue;
        printf("%-12s %-4s", w.name, w.unit);
        for (const engine *e : list) {
            double v = found(s, c, w.name, e->name);
            if (v > 0) printf(v < 100 ? " %10.2f" : " %10.0f", v); else printf(" %10s", "-");
        }
        double a = ratio(s, c, w, "kv", true), b = ratio(s, c, w, "kv map", true);
        double lm = found(s, c, w.name, "lmdb"), m = found(s, c, w.name, "kv map");
        if (a > 0) printf(" %8.2f", a); else printf(" %8s", "-");
        if (b > 0) printf(" %8.2f", b); else printf(" %8s", "-");
        if (lm > 0 && m > 0) printf("  %8.2f", w.less_is_better ? lm / m : m / lm); else printf("  %8s", "-");
        printf("  %4.2f", bar(w));
        verdict("kv", a, bar(w));
        verdict("map", b, bar(w));
        printf("\n");
    }
    fflush(stdout);
}
static void write_json(const char *file)
{
    FILE *f = strcmp(file, "-") ? fopen(file, "w") : stdout;
    if (!f) return;
    for (const result &r : results) {
        fprintf(f, "{\"setting\":\"%s\",\"codec\":\"%s\",\"workload\":\"%s\",\"engine\":\"%s\",\"median\":%.3f,\"values\":[", r.setting.c_str(), r.codec.c_str(), r.workload.c_str(), r.engine.c_str(), median(r.values));
        for (size_t i = 0; i < r.values.size(); i++) fprintf(f, "%s%.3f", i ? "," : "", r.values[i]);
        fprintf(f, "]}\n");
    }
    if (f != stdout) fclose(f);
}
/* Horizontal bars, one group a workload, of what each engine reaches relative to the best peer. */
static void write_svg(const char *file, const std::string &of, const std::string &s, const std::string &c, const std::vector<const engine *> &list)
{
    static const char *const colours[] = { "#1f77b4", "#6baed6", "#7f7f7f", "#bcbd22", "#d6a77a" };
    FILE *f = fopen(file, "w");
    if (!f) return;
    int y = 60, bar = 12, left = 130, width = 760;
    size_t shown = 0;
    for (const workload &w : workloads) for (const engine *e : list) if (found(s, c, w.name, e->name) > 0) { shown++; break; }
    int height = y + (int)shown * ((int)list.size() * bar + 12) + 20;
    fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n", width, height);
    fprintf(f, "<text x=\"10\" y=\"18\" font-size=\"14\">%s, codec %s, %s: speed relative to the best peer (longer is better)</text>\n", s.c_str(), c.c_str(), of.c_str());
    for (size_t i = 0; i < list.size(); i++)
        fprintf(f, "<rect x=\"%zu\" y=\"30\" width=\"10\" height=\"10\" fill=\"%s\"/><text x=\"%zu\" y=\"39\">%s</text>\n", 10 + i * 90, colours[i % 5], 24 + i * 90, list[i]->name);
    double most = 1;
    for (const workload &w : workloads) for (const engine *e : list) {
        double best = 0, v = found(s, c, w.name, e->name);
        for (const engine *p : list) { double q = p->ours ? 0 : found(s, c, w.name, p->name); if (q > 0 && (best == 0 || (w.less_is_better ? q < best : q > best))) best = q; }
        if (v > 0 && best > 0) most = std::max(most, w.less_is_better ? best / v : v / best);
    }
    if (most > 8) most = 8;
    for (const workload &w : workloads) {
        double best = 0;
        for (const engine *p : list) { double q = p->ours ? 0 : found(s, c, w.name, p->name); if (q > 0 && (best == 0 || (w.less_is_better ? q < best : q > best))) best = q; }
        if (best == 0) continue;
        fprintf(f, "<text x=\"10\" y=\"%d\">%s</text>\n", y + bar, w.name);
        for (size_t i = 0; i < list.size(); i++, y += bar) {
            double v = found(s, c, w.name, list[i]->name), x = v > 0 ? (w.less_is_better ? best / v : v / best) : 0;
            if (v <= 0) continue;
            double shown_width = std::min(x, most) / most * (width - left - 130);
            fprintf(f, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/><text x=\"%.1f\" y=\"%d\" font-size=\"9\">%.2f (%.4g %s)</text>\n", left, y, shown_width, bar - 2, colours[i % 5], left + shown_width + 4, y + bar - 3, x, v, w.unit);
        }
        y += 12;
    }
    fprintf(f, "</svg>\n");
    fclose(f);
}

/* ------------------------------------------------------------------------------------------------
   low memory: sequential records through 1 MiB of memtable, no cache, no filter, in a process of its own */

static double line_of_status(const char *name)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[200];
    double n = 0;
    while (f && fgets(line, sizeof line, f)) if (!strncmp(line, name, strlen(name))) n = atof(line + strlen(name));
    if (f) fclose(f);
    return n / 1024;
}
static void low_memory(const engine &e, const std::string &dir, size_t count, codec_kind codec)
{
    int p[2];
    double out[2] = { 0, 0 };
    if (pipe(p)) die("pipe", "");
    pid_t child = fork();
    if (child == 0) {
        config c = { dir + "/low", codec, (size_t)1 << 20, 0, false, true };
        char key[32];
        remove_tree(c.path);
        noise.shrink_to_fit();
        double base = line_of_status("VmRSS:");
        void *db = e.open(c);
        double begin = now_seconds();
        for (size_t i = 0; i < count; i++) e.put(db, kv_bytes(key, (size_t)snprintf(key, sizeof key, "%016llu", (unsigned long long)i)), value_at(i));
        out[0] = rate(count, begin);
        e.close(db);
        out[1] = line_of_status("VmHWM:") - base;
        remove_tree(c.path);
        if (write(p[1], out, sizeof out) != (ssize_t)sizeof out) _exit(1);
        _exit(0);
    }
    close(p[1]);
    if (read(p[0], out, sizeof out) == (ssize_t)sizeof out)
        printf("%-10s %-5s %10.0f K/s  peak memory %6.1f MB above an empty process\n", e.name, codec_names[codec], out[0], out[1]);
    close(p[0]);
    waitpid(child, NULL, 0);
}

/* ------------------------------------------------------------------------------------------------
   main */

static bool listed(const std::string &list, const std::string &name)
{
    return list.empty() || ("," + list + ",").find("," + name + ",") != std::string::npos;
}
static const char *argument(int argc, char **argv, const char *name, const char *otherwise)
{
    for (int i = 1; i + 1 < argc; i++) if (!strcmp(argv[i], name)) return argv[i + 1];
    return otherwise;
}
static const char usage[] = "options, each with a value: --entries --reads --rounds --settings --codecs --only --engines --dir --json --svg --paths\n"
                            "(what they mean stands at the top of tests/bench/bench_lsm.cpp)\n";

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2)
        if (i + 1 == argc || !strstr(usage, (std::string(argv[i]) + (strcmp(argv[i], "--paths") ? " " : "\n")).c_str())) { fprintf(stderr, "%s: no such option, or no value\n%s", argv[i], usage); return 2; }
    size_t entries = (size_t)atof(argument(argc, argv, "--entries", "200000"));
    size_t reads = (size_t)atof(argument(argc, argv, "--reads", std::to_string(std::max<size_t>(entries / 4, 50000)).c_str()));
    int rounds = atoi(argument(argc, argv, "--rounds", "3"));
    std::string settings = argument(argc, argv, "--settings", "D"), codecs = argument(argc, argv, "--codecs", ""), only = argument(argc, argv, "--only", "");
    std::string chosen = argument(argc, argv, "--engines", ""), dir = argument(argc, argv, "--dir", "build/bench-lsm.tmp");
    const char *json = argument(argc, argv, "--json", NULL), *svg = argument(argc, argv, "--svg", "build/bench-lsm.svg");

    mkdir("build", 0700);
    mkdir(dir.c_str(), 0700);
    make_values();
    if (!only.empty() && listed(only, "lowmemory")) {
        size_t count = (size_t)atof(argument(argc, argv, "--entries", "20000000"));
        printf("%zu sequential records of 16 + 100 bytes, 1 MiB memtable, no cache, no filter\n", count);
        for (const engine &e : engines)
            for (int c = 0; c < 3; c++)
                if (e.lsm && listed(chosen, e.name) && e.has((codec_kind)c) && c != NONE && listed(codecs, codec_names[c])) low_memory(e, dir, count, (codec_kind)c);
        rmdir(dir.c_str());
        return 0;
    }
    make_numbers(entries);
    if (listed(settings, "P") && !make_paths(argument(argc, argv, "--paths", "../shared/data/paths-1m.sorted.txt.zst"), entries)) {
        printf("SKIP setting P: no file of paths (give one with --paths)\n");
    }
    const setting all[] = { { "D", 4 << 20, 64 << 20, &numbers }, { "HP", 64 << 20, (size_t)512 << 20, &numbers }, { "P", 4 << 20, 64 << 20, &paths } };
    printf("%zu entries of 16 + 100 bytes, %zu reads, %d rounds\n", entries, reads, rounds);
    fflush(stdout);

    bool drawn = false;
    for (const setting &s : all) {
        if (!listed(settings, s.name) || s.k->at.size() < 2) continue;
        std::vector<uint32_t> order(s.k->count());
        random_source shuffle = { 1 };
        for (size_t i = 0; i < order.size(); i++) order[i] = (uint32_t)i;
        for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[shuffle.below(i)]);
        for (int codec = 0; codec < 3; codec++) {
            std::vector<const engine *> list;
            if (!listed(codecs, codec_names[codec])) continue;
            for (const engine &e : engines) if (e.has((codec_kind)codec) && listed(chosen, e.name)) list.push_back(&e);
            if (list.empty()) continue;
            for (int round = 0; round < rounds; round++) {
                std::vector<run> runs;
                for (const engine *e : list) {
                    std::string name = e->name;
                    std::replace(name.begin(), name.end(), ' ', '-');
                    run r = { e, { dir + "/" + name, (codec_kind)codec, s.memtable, s.cache, false, false }, s.k, &order, NULL, reads, (uint64_t)round * 1000 + 17, 0 };
                    runs.push_back(r);
                }
                for (const workload &w : workloads) {
                    bool wanted = listed(only, w.name);
                    bool later = false;         /* something after it needs the filled store */
                    for (const workload *n = &w; n < workloads + sizeof workloads / sizeof workloads[0]; n++)
                        if (listed(only, n->name) && n->fn != fillseq && n->fn != fillsync && n->fn != fillsync8) later = true;
                    if (!wanted && !(w.fn == fillrandom && later)) continue;
                    for (size_t i = 0; i < runs.size(); i++) {
                        run &r = runs[round % 2 ? runs.size() - 1 - i : i];
                        if (w.settle_first) settle();
                        double v = w.fn(r);
                        if (wanted) note(s.name, codec_names[codec], w.name, r.e->name, v);
                        if (isatty(2)) fprintf(stderr, "\r%s %s round %d: %-12s %-10s %10.2f %s   ", s.name, codec_names[codec], round + 1, w.name, r.e->name, v, w.unit);
                    }
                }
                for (run &r : runs) {
                    if (r.db) r.e->close(r.db);
                    remove_tree(r.c.path);
                }
            }
            if (isatty(2)) fprintf(stderr, "\r%70s\r", "");
            print_table(s.name, codec_names[codec], list);
            if (!drawn) { write_svg(svg, std::to_string(entries) + " entries, median of " + std::to_string(rounds), s.name, codec_names[codec], list); drawn = true; }
        }
    }
    if (json) write_json(json);
    remove_tree(dir);
    return 0;
}
