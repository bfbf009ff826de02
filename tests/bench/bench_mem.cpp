/* bench_mem.cpp - kv_mem.h beside the hash maps that C++ programs use
   Goal: the same keys, the same operations, in one process, interleaved; ratios, not moods.
   Method: in each round every map is built from empty, read, missed, scanned, churned and dropped, one
   map after the other; the table shows medians over the rounds and the ratio to absl (threads: to tbb).
   Single-threaded times are processor time of the thread. Memory is measured in a process of its own
   for each map: the growth of its resident set, less keys and values.

       make bench-mem                                  1 M paths of ../shared/data, else paths of /usr
       BENCH_ARGS="--rounds 7 --json mem.jsonl" make bench-mem
       --keys FILE     lines (.zst too)        --only get,insert     workloads
       --grow [N]      only: the longest single insert while growing from 0 to N (default 10 M)
       --threads N     threads of the concurrent part (default 2)       --no-threads   leaves it out

   bench-pkgs: absl_flat_hash_map tbb

   Keys are distinct lines, values 8 bytes. Maps of C++ hold std::string and uint64_t and hash with XXH3;
   a get compares the key and reads the value. Queries are copies of the keys in random order. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"     /* in the AVX-512 intrinsics of gcc 12 */
#endif
#define KV_MEM_IMPLEMENTATION
#include "../../kv_mem.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>
#include <malloc.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef HAVE_absl_flat_hash_map
#include <absl/container/flat_hash_map.h>
#endif
#ifdef HAVE_tbb
#include <tbb/concurrent_hash_map.h>
#endif

/* ------------------------------------------------------------------------------------------------
   keys */

struct keyset { std::vector<char> bytes; std::vector<kv_slice> keys; };     /* keys point into bytes */

static uint64_t random_state = 88172645463325252u;
static uint64_t next_random() { return kvi_mix64(random_state += UINT64_C(0x9E3779B97F4A7C15)); }

static std::vector<std::string> read_lines(const std::string &command, size_t most)
{
    std::vector<std::string> lines;
    FILE  *in = popen(command.c_str(), "r");
    char  *line = nullptr;
    size_t capacity = 0;
    ssize_t size;
    while (in && lines.size() < most && (size = getline(&line, &capacity, in)) > 0) {
        if (line[size - 1] == '\n') size--;
        lines.emplace_back(line, (size_t)size);
    }
    free(line);
    if (in) pclose(in);
    return lines;
}
static std::vector<std::string> load_keys(const std::string &file)
{
    std::vector<std::string> lines;
    if (!file.empty()) lines = read_lines((file.size() > 4 && file.substr(file.size() - 4) == ".zst" ? "zstdcat '" : "cat '") + file + "'", SIZE_MAX);
    else lines = read_lines("zstdcat ../shared/data/paths-1m.sorted.txt.zst 2>/dev/null", SIZE_MAX);
    if (lines.empty()) lines = read_lines("find /usr /lib /var /opt 2>/dev/null", 1000000);
    if (lines.size() < 1000) for (unsigned i = 0; i < 1000000; i++) lines.push_back("/generated/key/of/some/length/" + std::to_string(i * 2654435761u));
    std::sort(lines.begin(), lines.end());
    lines.erase(std::unique(lines.begin(), lines.end()), lines.end());
    return lines;
}
static keyset shuffled(const std::vector<std::string> &lines, const char *suffix)
{
    keyset                set;
    std::vector<uint32_t> order(lines.size());
    size_t                total = 0, at = 0;
    for (size_t i = 0; i < lines.size(); i++) { order[i] = (uint32_t)i; total += lines[i].size() + strlen(suffix); }
    for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[next_random() % i]);
    set.bytes.resize(total + 64);
    for (uint32_t i : order) {
        size_t size = lines[i].size();
        memcpy(&set.bytes[at], lines[i].data(), size);
        memcpy(&set.bytes[at + size], suffix, strlen(suffix));
        size += strlen(suffix);
        set.keys.push_back(kv_bytes(&set.bytes[at], size));
        at += size;
    }
    return set;
}

/* ------------------------------------------------------------------------------------------------
   maps, each behind the same few functions (as templates: no indirect calls are measured) */

struct xxh3 {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return (size_t)kvi_hash(s.data(), s.size(), 0); }
};
struct same {
    using is_transparent = void;
    bool operator()(std::string_view a, std::string_view b) const { return a == b; }
};
static inline std::string_view view(kv_slice s) { return { (const char *)s.data, s.size }; }

template <bool THREADS> struct ours {
    static const char *name() { return THREADS ? "kv_mem threads" : "kv_mem"; }
    static const bool concurrent = THREADS;
    kv_mem *m;
    ours()
    {
        kv_mem_options o;
        memset(&o, 0, sizeof o);
        o.single_thread = !THREADS;
        if (kv_mem_open(&o, &m) < 0) abort();
    }
    ~ours() { kv_mem_close(m); }
    void set(kv_slice key, uint64_t value) { kv_mem_set(m, key, kv_bytes(&value, sizeof value)); }
    struct reader {
        uint64_t value = 0;
        kv_buf   buf = kv_buf_fixed(&value, sizeof value);
    };
    bool get(kv_slice key, reader &r) { return kv_mem_get(m, key, &r.buf) == KV_OK; }
    void erase(kv_slice key) { kv_mem_delete(m, key); }
    static bool visit(void *user, kv_slice key, kv_slice value) { *(uint64_t *)user += *(const uint8_t *)key.data + *(const uint8_t *)value.data; return true; }
    uint64_t scan() { uint64_t sum = 0; kv_mem_scan(m, nullptr, visit, &sum); return sum; }
    double stated(double raw, size_t count) { kv_mem_stats_t s; kv_mem_stats(m, &s); return ((double)s.memory_bytes - raw) / (double)count; }
    static const bool batches = true;
    size_t batch(const kv_slice *keys, size_t n, kv_buf *values, kv_status *statuses)
    {
        size_t found = 0;
        kv_mem_batch_get(m, keys, n, values, statuses);
        for (size_t i = 0; i < n; i++) found += statuses[i] == KV_OK;
        return found;
    }
};
template <class MAP> struct standard {
    static const bool concurrent = false, batches = false;
    MAP m;
    void set(kv_slice key, uint64_t value) { m[std::string(view(key))] = value; }
    struct reader { uint64_t value = 0; };
    void erase(kv_slice key)
    {
        auto at = m.find(std::string(view(key)));
        if (at != m.end()) m.erase(at);
    }
    uint64_t scan() { uint64_t sum = 0; for (auto &e : m) sum += (uint8_t)e.first[0] + (uint8_t)e.second; return sum; }
    double stated(double, size_t) { return 0; }
    size_t batch(const kv_slice *, size_t, kv_buf *, kv_status *) { return 0; }
};
struct std_map : standard<std::unordered_map<std::string, uint64_t, xxh3>> {
    static const char *name() { return "std"; }
    bool get(kv_slice key, reader &r)
    {
        auto at = m.find(std::string(view(key)));
        if (at == m.end()) return false;
        r.value = at->second;
        return true;
    }
};
#ifdef HAVE_absl_flat_hash_map
struct absl_map : standard<absl::flat_hash_map<std::string, uint64_t, xxh3, same>> {
    static const char *name() { return "absl"; }
    void set(kv_slice key, uint64_t value) { m[view(key)] = value; }
    void erase(kv_slice key) { m.erase(view(key)); }
    bool get(kv_slice key, reader &r)
    {
        auto at = m.find(view(key));
        if (at == m.end()) return false;
        r.value = at->second;
        return true;
    }
};
#endif
#ifdef HAVE_tbb
struct tbb_map {
    static const char *name() { return "tbb"; }
    static const bool concurrent = true, batches = false;
    struct compare {
        size_t hash(const std::string &s) const { return (size_t)kvi_hash(s.data(), s.size(), 0); }
        bool equal(const std::string &a, const std::string &b) const { return a == b; }
    };
    using map = tbb::concurrent_hash_map<std::string, uint64_t, compare>;
    map m;
    struct reader { uint64_t value = 0; std::string key; };
    void set(kv_slice key, uint64_t value)
    {
        map::accessor a;
        m.insert(a, std::string(view(key)));
        a->second = value;
    }
    bool get(kv_slice key, reader &r)
    {
        map::const_accessor a;
        r.key.assign((const char *)key.data, key.size);         /* its memory is kept from get to get */
        if (!m.find(a, r.key)) return false;
        r.value = a->second;
        return true;
    }
    void erase(kv_slice key) { m.erase(std::string(view(key))); }
    uint64_t scan() { uint64_t sum = 0; for (auto &e : m) sum += (uint8_t)e.first[0] + (uint8_t)e.second; return sum; }
    double stated(double, size_t) { return 0; }
    size_t batch(const kv_slice *, size_t, kv_buf *, kv_status *) { return 0; }
};
#endif

/* ------------------------------------------------------------------------------------------------
   measuring */

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}
static size_t resident()
{
    long  size = 0, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%ld %ld", &size, &pages) != 2) pages = 0;
    if (f) fclose(f);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

static std::map<std::string, std::map<std::string, std::vector<double>>> results;     /* workload, map */
static std::vector<std::string> workloads;
static std::string only;
static volatile uint64_t sink;

static bool wanted(const std::string &workload) { return only.empty() || ("," + only + ",").find("," + workload + ",") != std::string::npos; }
static void note(const std::string &workload, const char *map, double value)
{
    if (std::find(workloads.begin(), workloads.end(), workload) == workloads.end()) workloads.push_back(workload);
    results[workload][map].push_back(value);
}
static double median(std::vector<double> v)
{
    if (v.empty()) return 0;
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
}
static void must(bool ok, const char *what, const char *map) { if (!ok) { fprintf(stderr, "%s: wrong answer in %s\n", map, what); exit(1); } }

struct data { keyset insert, uniform, missing, churn; double raw; };

template <class MAP> static void fill(MAP &m, const keyset &keys)
{
    uint64_t i = 0;
    for (const kv_slice &key : keys.keys) m.set(key, i++);
}
#define TIMED(workload, count, code) do { \
        double start_ = now(CLOCK_THREAD_CPUTIME_ID); \
        code; \
        note(workload, MAP::name(), (now(CLOCK_THREAD_CPUTIME_ID) - start_) / (double)(count)); } while (0)

template <class MAP> static void one_round(const data &d)
{
    MAP    *m = nullptr;
    size_t  n = d.insert.keys.size(), found = 0;
    typename MAP::reader r;
    TIMED("insert", n, m = new MAP(); fill(*m, d.insert));
    if (wanted("get")) {
        TIMED("get", n, for (const kv_slice &key : d.uniform.keys) found += m->get(key, r));
        must(found == n, "get", MAP::name());
    }
    if (MAP::batches && wanted("batch")) {
        uint64_t  values[64];
        kv_buf    bufs[64];
        kv_status statuses[64];
        size_t    hits = 0;
        for (int i = 0; i < 64; i++) bufs[i] = kv_buf_fixed(&values[i], 8);
        TIMED("batch", n / 64 * 64, for (size_t i = 0; i + 64 <= n; i += 64) hits += m->batch(&d.uniform.keys[i], 64, bufs, statuses));
        must(hits == n / 64 * 64, "batch", MAP::name());
    }
    if (wanted("miss")) {
        found = 0;
        TIMED("miss", n, for (const kv_slice &key : d.missing.keys) found += m->get(key, r));
        must(found == 0, "miss", MAP::name());
    }
    if (wanted("scan")) TIMED("scan", n, sink = sink + m->scan());
    if (wanted("churn")) {
        const size_t behind = 1000;
        TIMED("churn", n, for (size_t i = 0; i < n + behind; i++) {
            if (i < n) m->erase(d.churn.keys[i]);
            if (i >= behind) m->set(d.churn.keys[i - behind], i);
        });
        found = 0;
        for (const kv_slice &key : d.uniform.keys) found += m->get(key, r);
        must(found == n, "churn", MAP::name());
    }
    delete m;
}

/* In a process of its own: what one map adds to the resident set. */
template <class MAP> static void memory(const data &d)
{
    int    ends[2];
    double answer[2] = { 0, 0 };
    if (!wanted("memory") || pipe(ends) != 0) return;
    fflush(stdout);
    if (fork() == 0) {
        malloc_trim(0);
        size_t before = resident();
        MAP   *m = new MAP();
        fill(*m, d.insert);
        answer[0] = ((double)resident() - (double)before - d.raw) / (double)d.insert.keys.size();
        answer[1] = m->stated(d.raw, d.insert.keys.size());
        if (write(ends[1], answer, sizeof answer) != (ssize_t)sizeof answer) _exit(1);
        _exit(0);
    }
    if (read(ends[0], answer, sizeof answer) == (ssize_t)sizeof answer) {
        note("memory (rss)", MAP::name(), answer[0]);
        if (answer[1] > 0) note("memory (stats)", MAP::name(), answer[1]);
    }
    close(ends[0]);
    close(ends[1]);
    (void)wait(nullptr);
}

template <class MAP> static double threads_run(MAP &m, const keyset &keys, unsigned threads, unsigned read_percent, double seconds)
{
    std::atomic<bool>        stop(false);
    std::atomic<uint64_t>    total(0);
    std::vector<std::thread> running;
    double start = now(CLOCK_MONOTONIC);
    for (unsigned t = 0; t < threads; t++) running.emplace_back([&, t] {
        uint64_t state = t * 7919u + 1, done = 0;
        size_t   at = keys.keys.size() / threads * t;           /* each its own part of the random order */
        typename MAP::reader r;
        while (!stop.load(std::memory_order_relaxed)) for (int i = 0; i < 256; i++, done++) {
            uint64_t        x = kvi_mix64(state += UINT64_C(0x9E3779B97F4A7C15));
            const kv_slice &key = keys.keys[at];
            at = at + 1 < keys.keys.size() ? at + 1 : 0;
            if ((x >> 32) % 100 < read_percent) { if (!m.get(key, r)) abort(); }
            else m.set(key, x);
        }
        total += done;
    });
    usleep((useconds_t)(seconds * 1e6));
    stop = true;
    for (auto &t : running) t.join();
    return (double)total.load() / (now(CLOCK_MONOTONIC) - start) * 1e3;        /* M operations a second */
}
template <class MAP> static void threads_round(const data &d, unsigned threads)
{
    MAP m;
    fill(m, d.insert);
    for (unsigned percent : { 100u, 95u, 50u }) note(std::to_string(threads) + " threads, " + std::to_string(percent) + " % reads", MAP::name(), threads_run(m, d.uniform, threads, percent, 0.5));
    note("1 thread, 100 % reads", MAP::name(), threads_run(m, d.uniform, 1, 100, 0.5));
}

/* The longest single insert while a map grows, by the wall clock; and the insert at which all but one of
   10,000 are shorter. Preemption counts too: the best of three runs is shown. */
template <class MAP> static void grow(size_t count)
{
    double best = 1e18, best_tail = 0, best_mean = 0;
    for (int round = 0; round < 3; round++) {
        MAP                  *m = new MAP();
        std::vector<uint32_t> times;
        char                  key[32];
        double                start = now(CLOCK_MONOTONIC), before = start, longest = 0;
        times.reserve(count);
        for (size_t i = 0; i < count; i++) {
            uint64_t bits = kvi_mix64(i);
            memcpy(key, "key:", 4);
            memcpy(key + 4, &bits, 8);
            memcpy(key + 12, &i, 4);
            before = now(CLOCK_MONOTONIC);
            m->set(kv_bytes(key, 16), i);
            double took = now(CLOCK_MONOTONIC) - before;
            times.push_back((uint32_t)std::min(took, 4e9));
            if (took > longest) longest = took;
        }
        double mean = (now(CLOCK_MONOTONIC) - start) / (double)count;
        std::nth_element(times.begin(), times.begin() + (long)(count - count / 10000), times.end());
        if (longest < best) { best = longest; best_tail = times[count - count / 10000]; best_mean = mean; }
        delete m;
    }
    note("grow: longest insert, us", MAP::name(), best / 1e3);
    note("grow: 99.99 % of inserts, us", MAP::name(), best_tail / 1e3);
    note("grow: mean insert, ns", MAP::name(), best_mean);
}

/* ------------------------------------------------------------------------------------------------
   the table */

static const std::vector<std::string> maps = { "kv_mem", "kv_mem threads", "absl", "std", "tbb" };

static void print_table(const char *json)
{
    FILE *lines = json ? fopen(json, "a") : nullptr;
    printf("%-30s", "");
    for (auto &map : maps) printf("%16s", map.c_str());
    printf("%18s\n", "ratio");
    for (auto &workload : workloads) {
        bool        threads = workload.find("reads") != std::string::npos;
        const char *us = threads ? "kv_mem threads" : "kv_mem", *peer = threads ? "tbb" : "absl";
        double      mine = median(results[workload][us]), theirs = median(results[workload][peer]);
        printf("%-30s", workload.c_str());
        for (auto &map : maps) {
            double value = median(results[workload][map]);
            if (results[workload][map].empty()) printf("%16s", "-"); else printf("%16.1f", value);
            if (lines && !results[workload][map].empty())
                fprintf(lines, "{\"bench\":\"mem\",\"workload\":\"%s\",\"map\":\"%s\",\"value\":%.4f,\"rounds\":%zu}\n", workload.c_str(), map.c_str(), value, results[workload][map].size());
        }
        if (workload == "batch") { peer = "own get"; theirs = median(results["get"][us]); }
        if (theirs > 0) printf("   %5.2f x %s", mine / theirs, peer);
        printf("\n");
    }
    if (!results["1 thread, 100 % reads"].empty() && !results["2 threads, 100 % reads"].empty())
        printf("kv_mem: 2 threads read %.2f times what one does\n", median(results["2 threads, 100 % reads"]["kv_mem threads"]) / median(results["1 thread, 100 % reads"]["kv_mem threads"]));
    if (lines) fclose(lines);
}

int main(int argc, char **argv)
{
    std::string file;
    const char *json = nullptr;
    int         rounds = 5;
    unsigned    threads = 2;
    size_t      growing = 0;
    for (int i = 1; i < argc; i++) {
        std::string a = argv[i];
        bool        more = i + 1 < argc;
        if (a == "--keys" && more) file = argv[++i];
        else if (a == "--only" && more) only = argv[++i];
        else if (a == "--rounds" && more) rounds = atoi(argv[++i]);
        else if (a == "--threads" && more) threads = (unsigned)atoi(argv[++i]);
        else if (a == "--json" && more) json = argv[++i];
        else if (a == "--no-threads") threads = 0;
        else if (a == "--grow") growing = more && argv[i + 1][0] != '-' ? strtoull(argv[++i], nullptr, 10) : 10000000;
        else { fprintf(stderr, "%s: no such option, or no value\noptions: --keys FILE --only NAME --rounds N --threads N --no-threads --grow [N] --json FILE\n", argv[i]); return 2; }
    }
    if (growing) {
        grow<ours<false>>(growing);
        grow<ours<true>>(growing);
#ifdef HAVE_absl_flat_hash_map
        grow<absl_map>(growing);
#endif
        print_table(json);
        return 0;
    }
    data d;
    {
        std::vector<std::string> lines = load_keys(file);
        d.insert = shuffled(lines, "");
        d.uniform = shuffled(lines, "");
        d.missing = shuffled(lines, "?");
        d.churn = shuffled(lines, "");
        d.raw = 0;
        for (auto &line : lines) d.raw += (double)line.size() + 8;
        printf("%zu keys of %.1f bytes, values of 8 bytes, %d rounds, SIMD level %s; ns an operation, memory in bytes an entry\nbeyond key and value, threads in M operations a second\n",
               lines.size(), d.raw / (double)lines.size() - 8, rounds, kv_simd_name());
    }
    malloc_trim(0);
    memory<ours<false>>(d);
    memory<ours<true>>(d);
    memory<std_map>(d);
#ifdef HAVE_absl_flat_hash_map
    memory<absl_map>(d);
#endif
#ifdef HAVE_tbb
    memory<tbb_map>(d);
#endif
    bool single = only.empty() || wanted("insert") || wanted("get") || wanted("batch") || wanted("miss") || wanted("scan") || wanted("churn");
    for (int round = 0; round < rounds && single; round++) {
        one_round<ours<false>>(d);
#ifdef HAVE_absl_flat_hash_map
        one_round<absl_map>(d);
#endif
        if (round < 3) one_round<ours<true>>(d);
        if (round < 3 && only.empty()) one_round<std_map>(d);
#ifdef HAVE_tbb
        if (round < 3 && only.empty()) one_round<tbb_map>(d);
#endif
    }
    for (int round = 0; round < rounds && threads && wanted("threads"); round++) {
        threads_round<ours<true>>(d, threads);
#ifdef HAVE_tbb
        threads_round<tbb_map>(d, threads);
#endif
    }
    print_table(json);
    return 0;
}
