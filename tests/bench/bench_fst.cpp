// bench_fst.cpp
// Goal: size and speed of kv_fst.h beside the structures that one would use instead, on the same keys, in the
//   same run: front coding in buckets of 16 (written here, as simple as it is), marisa-trie, a sorted array.
// Method: each measure is taken from all of them in turn, `rounds` times; medians and their ratios are printed.
//   Keys are asked for in a random order and lie one behind the other in that order, so that fetching the
//   question costs nobody anything. Missing keys are real ones with one byte changed.
//   The first check of every structure is that it answers all keys rightly.
//
//   bench_fst [--json] [--rounds N] [SET...]     SET: paths urls words random dense sparse, default all that are there;
//                                                N: 5 by default, less than 3 builds once
//   bench_fst [--json] search                    kv_fst_search on words and paths, each search beside a scan of the
//                                                iterator that asks the same automaton about every key, and for a
//                                                prefix marisa's search for it; "bytes" are those that the automaton saw
//   bench_fst [--json] many                      builds of 7 M keys (the paths, on seven disks) in 4 MiB, 16 MiB and
//                                                the default of 64 MiB; keys are made as they are added
//
//   bench-libs: marisa
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"     // in the AVX-512 intrinsics of gcc 12
#endif
#define KV_FST_IMPLEMENTATION
#include "../../kv_fst.h"
#ifdef HAVE_marisa
#include <marisa.h>
#endif
#include <stdio.h>
#include <time.h>
#include <algorithm>
#include <map>
#include <string>
#include <vector>

static double now() { timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return double(t.tv_sec) + double(t.tv_nsec) * 1e-9; }
static int rounds = 5;

struct Keys {
    std::string text;
    std::vector<uint32_t> at;           // and one behind the last
    size_t size() const { return at.size() - 1; }
    kv_slice operator[](size_t i) const { return kv_bytes(text.data() + at[i], at[i + 1] - at[i]); }
    Keys() : at(1, 0) {}
    void add(kv_slice k) { text.append(static_cast<const char *>(k.data), k.size); at.push_back(uint32_t(text.size())); }
};

static uint64_t random_state = 1;
static uint64_t next_random() { random_state += UINT64_C(0x9E3779B97F4A7C15); return kvi_mix64(random_state); }

// ---- the keys ----

static bool load(const char *command, Keys &keys)
{
    FILE *f = popen(command, "r");
    if (!f) return false;
    std::string all;
    char part[65536];
    for (size_t got; (got = fread(part, 1, sizeof part, f)) > 0;) all.append(part, got);
    pclose(f);
    for (size_t from = 0, to; (to = all.find('\n', from)) != std::string::npos; from = to + 1) keys.add(kv_bytes(all.data() + from, to - from));
    return keys.size() > 1000;
}
static bool make(const std::string &set, Keys &keys)
{
    if (set == "paths") return load("zstd -dqc ../shared/data/paths-1m.sorted.txt.zst 2>/dev/null", keys)
                            || load("find / -xdev 2>/dev/null | head -1000000 | LC_ALL=C sort -u", keys);
    if (set == "urls") return load("zstd -dqc ../shared/data/urls-200k.sorted.txt.zst 2>/dev/null", keys);
    if (set == "words") return load("LC_ALL=C sort -u /usr/share/dict/american-english-insane 2>/dev/null", keys);
    std::vector<uint64_t> n(1000000);
    for (size_t i = 0; i < n.size(); i++) n[i] = set == "dense" ? i : set == "sparse" ? 1000007 + 3 * i : next_random();
    std::sort(n.begin(), n.end());
    for (uint64_t v : n) { uint8_t b[8]; for (int k = 0; k < 8; k++) b[k] = uint8_t(v >> (56 - 8 * k)); keys.add(kv_bytes(b, 8)); }
    return true;
}

// ---- ours ----

static kv_status to_string(void *user, const void *data, size_t size) { static_cast<std::string *>(user)->append(static_cast<const char *>(data), size); return KV_OK; }

struct Sink { uint64_t sum, count; };
static bool consume(void *user, kv_slice key, kv_slice value)
{
    Sink *s = static_cast<Sink *>(user);
    s->sum += key.size + value.size + (key.size ? static_cast<const uint8_t *>(key.data)[key.size - 1] : 0u);
    s->count++;
    return true;
}

static size_t memory_live, memory_peak;
static void *counted(void *, void *memory, size_t old_size, size_t new_size)
{
    if (!new_size) { free(memory); memory_live -= old_size; return NULL; }
    void *p = realloc(memory, new_size);
    if (p) { memory_live += new_size - old_size; memory_peak = std::max(memory_peak, memory_live); }
    return p;
}

struct Ours {
    std::string bytes;
    kv_fst *f = NULL;
    double open_seconds = 0, check_seconds = 0;
    static const char *name() { return "kv_fst"; }
    bool build(const Keys &keys, const std::vector<uint64_t> *values)
    {
        kv_fst_build_options o;
        memset(&o, 0, sizeof o);
        o.values = KV_FST_U64;
        o.allocator.resize = counted;
        memory_live = memory_peak = 0;
        kv_fst_builder *b;
        bytes.clear();
        if (kv_fst_build_begin(&o, to_string, &bytes, &b) < 0) return false;
        for (size_t i = 0; i < keys.size(); i++) if (kv_fst_add(b, keys[i], values ? (*values)[i] : i) < 0) break;
        if (kv_fst_build_finish(b) < 0) return false;
        return true;
    }
    bool open()
    {
        kv_fst_close(f);
        f = NULL;
        double t = now();
        bool ok = kv_fst_open_memory(NULL, kv_bytes(bytes.data(), bytes.size()), &f) == KV_OK;
        open_seconds = now() - t;
        t = now();
        ok = ok && kv_fst_check(f) == KV_OK;
        check_seconds = now() - t;
        return ok;
    }
    ~Ours() { kv_fst_close(f); }
    double size() const { return double(bytes.size()); }
    bool get(kv_slice key, uint64_t &v) const { return kv_fst_get(f, key, &v) == KV_OK; }
    void scan(Sink &s) const { kv_fst_scan(f, NULL, consume, &s); }
    void seek(kv_slice from, size_t count, Sink &s) const { kv_range r; memset(&r, 0, sizeof r); r.from = from; r.limit = count; kv_fst_scan(f, &r, consume, &s); }
};

// ---- front coding, buckets of 16: the first key of a bucket whole, of the others the length that they share ----

struct Front {
    std::string bytes;
    std::vector<uint32_t> bucket;
    size_t count = 0;
    static const char *name() { return "front16"; }
    static void put(std::string &s, size_t n) { for (; n >= 128; n >>= 7) s.push_back(char(n | 128)); s.push_back(char(n)); }
    static size_t take(const uint8_t *&p) { size_t n = *p++; if (n < 128) return n; n &= 127; for (int shift = 7;; shift += 7) { size_t b = *p++; n |= (b & 127) << shift; if (b < 128) return n; } }
    bool build(const Keys &keys, const std::vector<uint64_t> *)
    {
        count = keys.size();
        bytes.clear(); bucket.clear();
        for (size_t i = 0; i < count; i++) {
            kv_slice k = keys[i];
            size_t lcp = 0;
            if (i % 16 == 0) bucket.push_back(uint32_t(bytes.size()));
            else { lcp = kv_common_prefix(keys[i - 1], k); put(bytes, lcp); }
            put(bytes, k.size - lcp);
            bytes.append(static_cast<const char *>(k.data) + lcp, k.size - lcp);
        }
        bytes.append(16, 0);
        return true;
    }
    bool open() { return true; }
    double size() const { return double(bytes.size() + 4 * bucket.size()); }
    const uint8_t *at(size_t b) const { return reinterpret_cast<const uint8_t *>(bytes.data()) + bucket[b]; }
    size_t find(kv_slice key) const         // the last bucket whose first key is not greater
    {
        size_t low = 0, high = bucket.size();
        while (low + 1 < high) {
            size_t middle = (low + high) / 2;
            const uint8_t *p = at(middle);
            size_t n = take(p);
            if (kvi_compare_bytes(p, n, key.data, key.size) <= 0) low = middle; else high = middle;
        }
        return low;
    }
    bool get(kv_slice key, uint64_t &v) const
    {
        size_t b = find(key), end = std::min(count, b * 16 + 16);
        const uint8_t *p = at(b), *q = static_cast<const uint8_t *>(key.data);
        size_t n = take(p), same = kvi_common_prefix(p, q, std::min(n, key.size));
        if (same == n && same == key.size) { v = b * 16; return true; }
        p += n;
        for (size_t i = b * 16 + 1; i < end; i++) {
            size_t lcp = take(p), size = take(p);
            if (lcp < same) return false;
            if (lcp == same) {
                size_t more = kvi_common_prefix(p, q + same, std::min(size, key.size - same));
                if (more == size && same + more == key.size) { v = i; return true; }
                if (more < size && (same + more == key.size || p[more] > q[same + more])) return false;
                same += more;
            }
            p += size;
        }
        return false;
    }
    void walk(size_t b, kv_slice from, size_t limit, Sink &s) const
    {
        char key[65536 + 16];
        bool going = !from.size;
        const uint8_t *p = at(b);
        uint8_t value[8];
        for (size_t i = b * 16; i < count; i++) {
            size_t lcp = i % 16 ? take(p) : 0, size = take(p);
            if (size <= 16) memcpy(key + lcp, p, 16); else memcpy(key + lcp, p, size);
            p += size;
            if (!going && kvi_compare_bytes(key, lcp + size, from.data, from.size) < 0) continue;
            going = true;
            kvi_store_le64(value, i);
            consume(&s, kv_bytes(key, lcp + size), kv_bytes(value, 8));
            if (!--limit) return;
        }
    }
    void scan(Sink &s) const { walk(0, kv_bytes(NULL, 0), SIZE_MAX, s); }
    void seek(kv_slice from, size_t n, Sink &s) const { walk(find(from), from, n, s); }
};

struct Array {
    const Keys *keys = NULL;
    static const char *name() { return "array"; }
    bool build(const Keys &k, const std::vector<uint64_t> *) { keys = &k; return true; }
    bool open() { return true; }
    double size() const { return double(keys->text.size() + 4 * keys->at.size()); }
    size_t lower(kv_slice key) const { size_t low = 0, high = keys->size(); while (low < high) { size_t m = (low + high) / 2; if (kv_compare((*keys)[m], key) < 0) low = m + 1; else high = m; } return low; }
    bool get(kv_slice key, uint64_t &v) const { v = lower(key); return v < keys->size() && kv_equal((*keys)[v], key); }
    void scan(Sink &s) const { for (size_t i = 0; i < keys->size(); i++) consume(&s, (*keys)[i], kv_bytes(NULL, 8)); }
    void seek(kv_slice from, size_t n, Sink &s) const { for (size_t i = lower(from); i < keys->size() && n--; i++) consume(&s, (*keys)[i], kv_bytes(NULL, 8)); }
};

#ifdef HAVE_marisa
struct Marisa {                             // a set: numbers of its own, so a column of 4 bytes maps them to ranks
    marisa::Trie trie;
    std::vector<uint32_t> rank;
    static const char *name() { return "marisa"; }
    bool build(const Keys &keys, const std::vector<uint64_t> *)
    {
        marisa::Keyset set;
        for (size_t i = 0; i < keys.size(); i++) set.push_back(static_cast<const char *>(keys[i].data), keys[i].size);
        trie.build(set);
        rank.resize(keys.size());
        for (size_t i = 0; i < keys.size(); i++) rank[set[i].id()] = uint32_t(i);
        return true;
    }
    bool open() { return true; }
    double size() const { return double(trie.io_size() + 4 * rank.size()); }
    bool get(kv_slice key, uint64_t &v) const
    {
        marisa::Agent a;
        a.set_query(static_cast<const char *>(key.data), key.size);
        if (!trie.lookup(a)) return false;
        v = rank[a.key().id()];
        return true;
    }
    void scan(Sink &s) const { marisa::Agent a; a.set_query("", 0); while (trie.predictive_search(a)) consume(&s, kv_bytes(a.key().ptr(), a.key().length()), kv_bytes(NULL, 8)); }
    void seek(kv_slice, size_t, Sink &) const {}
};
#endif

// ---- measuring ----

typedef std::map<std::string, std::map<std::string, std::vector<double>>> Results;      // measure, structure

struct Questions { Keys hit, miss, seek; std::vector<uint32_t> order; };

template <class T> static void measure(T &t, const Questions &q, Results &r, bool first)
{
    uint64_t v, wrong = 0;
    double start = now();
    for (size_t i = 0; i < q.hit.size(); i++) { v = 0; wrong += !t.get(q.hit[i], v) || v != q.order[i]; }
    r["get ns"][T::name()].push_back((now() - start) / double(q.hit.size()) * 1e9);
    if (wrong && first) fprintf(stderr, "%s: %lu of %zu answers are wrong\n", T::name(), static_cast<unsigned long>(wrong), q.hit.size());
    start = now();
    uint64_t found = 0;
    for (size_t i = 0; i < q.miss.size(); i++) found += t.get(q.miss[i], v);
    r["miss ns"][T::name()].push_back((now() - start) / double(q.miss.size()) * 1e9);
    if (found && first) fprintf(stderr, "%s: found %lu keys that are not there\n", T::name(), static_cast<unsigned long>(found));
    Sink s = { 0, 0 };
    start = now();
    t.scan(s);
    r["scan M keys/s"][T::name()].push_back(double(s.count) / (now() - start) / 1e6);
    if (s.count != q.hit.size() && first) fprintf(stderr, "%s: scanned %lu keys\n", T::name(), static_cast<unsigned long>(s.count));
    if (std::string(T::name()) == "marisa") return;
    start = now();
    for (size_t i = 0; i < q.seek.size(); i++) t.seek(q.seek[i], 50, s);
    r["seek+50 K/s"][T::name()].push_back(double(q.seek.size()) / (now() - start) / 1e3);
}
template <class T> static void build(T &t, const Keys &keys, Results &r)
{
    double start = now();
    if (!t.build(keys, NULL)) fprintf(stderr, "%s: the build failed\n", T::name());
    r["build M keys/s"][T::name()].push_back(double(keys.size()) / (now() - start) / 1e6);
    if (!t.open()) fprintf(stderr, "%s: cannot be opened\n", T::name());
    r["bytes a key"][T::name()].push_back(t.size() / double(keys.size()));
}

static double median(std::vector<double> v) { std::sort(v.begin(), v.end()); return v.empty() ? 0 : v[v.size() / 2]; }

static void run(const std::string &set, bool json)
{
    Keys keys;
    random_state = 20261121;
    if (!make(set, keys)) { fprintf(stderr, "%s: no such keys on this machine; skipped\n", set.c_str()); return; }
    size_t n = keys.size();
    Questions q;
    q.order.resize(n);
    for (size_t i = 0; i < n; i++) q.order[i] = uint32_t(i);
    for (size_t i = n - 1; i; i--) std::swap(q.order[i], q.order[next_random() % (i + 1)]);
    Array truth;
    truth.build(keys, NULL);
    for (size_t i = 0; i < n; i++) {
        kv_slice k = keys[q.order[i]];
        q.hit.add(k);
        std::string other(static_cast<const char *>(k.data), k.size);
        if (k.size) other[next_random() % k.size] = char(next_random());
        uint64_t v;
        if (!truth.get(kv_bytes(other.data(), other.size()), v)) q.miss.add(kv_bytes(other.data(), other.size()));
        if (i % 10 == 0) q.seek.add(k);
    }
    std::vector<uint64_t> random_values(n);
    for (uint64_t &v : random_values) v = uint32_t(next_random());

    Results r;
    Ours ours;
    Front front;
#ifdef HAVE_marisa
    Marisa marisa;
#endif
    for (int i = 0; i < (rounds < 3 ? 1 : 3); i++) {        // builds take longest: three of each, marisa's once
        build(ours, keys, r);
        r["open GB/s"][Ours::name()].push_back(ours.size() / ours.open_seconds / 1e9);
        r["check GB/s"][Ours::name()].push_back(ours.size() / ours.check_seconds / 1e9);
        build(front, keys, r);
#ifdef HAVE_marisa
        if (!i) build(marisa, keys, r);
#endif
        build(truth, keys, r);
    }
    r["build peak MB"][Ours::name()].push_back(double(memory_peak) / 1e6);
    for (int i = 0; i < rounds; i++) {
        measure(ours, q, r, i == 0);
        measure(front, q, r, i == 0);
#ifdef HAVE_marisa
        if (i < 3) measure(marisa, q, r, i == 0);
#endif
        measure(truth, q, r, i == 0);
    }
    double ranked = ours.size();
    ours.build(keys, &random_values);
    r["+ for 32-bit values"][Ours::name()].push_back((ours.size() - ranked) / double(n));

    if (!json) printf("\n%s: %zu keys of %.1f bytes\n%-20s %10s %10s %10s %10s   kv_fst / front16\n", set.c_str(), n, double(keys.text.size()) / double(n), "", "kv_fst", "front16", "marisa", "array");
    for (auto &m : r) {
        static const char *const names[] = { "kv_fst", "front16", "marisa", "array" };
        if (json) {
            for (auto &s : m.second) printf("{\"bench\":\"fst\",\"set\":\"%s\",\"measure\":\"%s\",\"structure\":\"%s\",\"median\":%.4f,\"samples\":%zu}\n", set.c_str(), m.first.c_str(), s.first.c_str(), median(s.second), s.second.size());
            continue;
        }
        printf("%-20s", m.first.c_str());
        for (const char *name : names) { if (m.second.count(name)) printf(" %10.3f", median(m.second[name])); else printf(" %10s", "-"); }
        if (m.second.count("front16")) printf("   %.2f", median(m.second["kv_fst"]) / median(m.second["front16"]));
        printf("\n");
    }
}

// ---- searches ----

struct Search { const char *set, *kind, *text; uint32_t distance; };
static const Search searches[] = {
    { "words", "levenshtein", "definately", 1 }, { "words", "levenshtein", "definately", 2 }, { "words", "levenshtein", "definately", 3 },
    { "words", "levenshtein", "cat", 1 }, { "words", "levenshtein", "uncharacteristicly", 2 },
    { "words", "regex", "un.*able", 0 }, { "words", "regex", ".*ology", 0 }, { "words", "regex", "[aeiou]{3}.*", 0 }, { "words", "regex", "(pre|post)[a-m]+s", 0 },
    { "words", "subsequence", "zqx", 0 }, { "words", "prefix", "inter", 0 },
    { "paths", "levenshtein", "usr/share/doc/bash/copyrihgt", 2 }, { "paths", "levenshtein", "etc/hots", 1 },
    { "paths", "regex", "usr/share/doc/[a-m][^/]*/copyright", 0 }, { "paths", "regex", "usr/(lib|share)/.*/x[a-z]+\\.h", 0 }, { "paths", "regex", ".*\\.so\\.[0-9]+", 0 },
    { "paths", "subsequence", "doc/zsh", 0 }, { "paths", "prefix", "usr/share/doc/python3-", 0 }
};

/* An automaton that counts the bytes that it gives to another one. */
static uint64_t bytes_seen;
static void counting_start(const void *user, void *state) { const kv_automaton *a = static_cast<const kv_automaton *>(user); a->start(a->user, state); }
static void counting_step(const void *user, const void *state, uint8_t byte, void *next) { const kv_automaton *a = static_cast<const kv_automaton *>(user); bytes_seen++; a->step(a->user, state, byte, next); }
static bool counting_match(const void *user, const void *state) { const kv_automaton *a = static_cast<const kv_automaton *>(user); return a->is_match(a->user, state); }
static bool counting_can(const void *user, const void *state) { const kv_automaton *a = static_cast<const kv_automaton *>(user); return !a->can_match || a->can_match(a->user, state); }

static bool count_matches(void *user, kv_slice, kv_slice) { ++*static_cast<uint64_t *>(user); return true; }

/* The same answer from a cursor over all keys. */
static uint64_t matches_of_scan(kv_fst *f, const kv_automaton &a)
{
    uint64_t n = 0, states[2][KV_AUTOMATON_STATE_MAX / 8];
    kv_iter *it;
    if (kv_fst_iter_open(f, NULL, &it) < 0) return 0;
    for (; kv_iter_valid(it); kv_iter_next(it)) {
        kv_slice key = kv_iter_key(it);
        size_t   i = 0;
        a.start(a.user, states[0]);
        while (i < key.size && (!a.can_match || a.can_match(a.user, states[i & 1]))) {
            a.step(a.user, states[i & 1], static_cast<const uint8_t *>(key.data)[i], states[~i & 1]);
            i++;
        }
        n += i == key.size && a.is_match(a.user, states[i & 1]);
    }
    kv_iter_close(it);
    return n;
}

static void run_searches(bool json)
{
    std::string loaded;
    Keys keys;
    Ours ours;
#ifdef HAVE_marisa
    Marisa marisa;
#endif
    if (!json) printf("\n%-6s %-12s %-36s %9s %12s %12s %12s %12s %8s\n", "", "", "", "found", "bytes", "us", "scan us", "marisa us", "scan / us");
    for (const Search &s : searches) {
        if (loaded != s.set) {
            keys = Keys();
            loaded = s.set;
            if (!make(s.set, keys) || !ours.build(keys, NULL) || !ours.open()) { fprintf(stderr, "%s: no such keys on this machine; skipped\n", s.set); keys = Keys(); }
#ifdef HAVE_marisa
            if (keys.size()) marisa.build(keys, NULL);
#endif
        }
        if (!keys.size()) continue;
        kv_automaton a, counting;
        std::string kind = s.kind;
        bool prefix = kind == "prefix";
        memset(&a, 0, sizeof a);
        kv_status status = prefix ? kv_automaton_regex(kv_cstr((std::string(s.text) + ".*").c_str()), &a)
                         : kind == "regex" ? kv_automaton_regex(kv_cstr(s.text), &a)
                         : kind == "subsequence" ? kv_automaton_subsequence(kv_cstr(s.text), &a) : kv_automaton_levenshtein(kv_cstr(s.text), s.distance, &a);
        if (status < 0) { fprintf(stderr, "%s: no automaton\n", s.text); continue; }
        memset(&counting, 0, sizeof counting);
        counting.user = &a;
        counting.state_size = a.state_size;
        counting.start = counting_start; counting.step = counting_step; counting.is_match = counting_match; counting.can_match = counting_can;
        uint64_t found = 0, scanned = 0;
        bytes_seen = 0;
        kv_fst_search(ours.f, &counting, NULL, count_matches, &found);
        std::vector<double> search, scan, peer;
        for (int i = 0; i < rounds; i++) {
            uint64_t n = 0;
            double   t = now();
            kv_fst_search(ours.f, &a, NULL, count_matches, &n);
            search.push_back((now() - t) * 1e6);
            if (i < 3) {
                t = now();
                scanned = matches_of_scan(ours.f, a);
                scan.push_back((now() - t) * 1e6);
                if (n != scanned) fprintf(stderr, "%s: %lu found, %lu by a scan\n", s.text, static_cast<unsigned long>(n), static_cast<unsigned long>(scanned));
            }
#ifdef HAVE_marisa
            if (prefix) {
                t = now();
                marisa::Agent agent;
                agent.set_query(s.text);
                for (n = 0; marisa.trie.predictive_search(agent);) n++;
                peer.push_back((now() - t) * 1e6);
                if (n != found) fprintf(stderr, "%s: marisa finds %lu\n", s.text, static_cast<unsigned long>(n));
            }
#endif
        }
        kv_automaton_free(&a);
        std::string text = s.text;
        if (s.distance) text += " " + std::to_string(s.distance);
        if (json) printf("{\"bench\":\"fst\",\"set\":\"%s\",\"measure\":\"search us\",\"kind\":\"%s\",\"text\":\"%s\",\"distance\":%u,\"found\":%lu,\"bytes\":%lu,\"median\":%.2f,\"scan\":%.2f,\"marisa\":%.2f}\n", s.set, s.kind, kind == "regex" ? "" : s.text, s.distance, static_cast<unsigned long>(found), static_cast<unsigned long>(bytes_seen), median(search), median(scan), median(peer));
        else printf("%-6s %-12s %-36s %9lu %12lu %12.1f %12.1f %12.1f %8.1f\n", s.set, s.kind, text.c_str(), static_cast<unsigned long>(found), static_cast<unsigned long>(bytes_seen), median(search), median(scan), median(peer), median(scan) / median(search));
    }
}

// ---- many keys in little memory ----

static void run_many(bool json)
{
    Keys paths;
    if (!make("paths", paths)) { fprintf(stderr, "many: no such keys on this machine; skipped\n"); return; }
    for (size_t limit = size_t(4) << 20; limit <= size_t(64) << 20; limit *= 4) {
        kv_fst_build_options o;
        memset(&o, 0, sizeof o);
        o.values = KV_FST_U64;
        o.memory_limit_bytes = limit;
        o.allocator.resize = counted;
        memory_live = memory_peak = 0;
        kv_fst_builder *b;
        std::string bytes, key;
        uint64_t n = 0;
        double start = now();
        if (kv_fst_build_begin(&o, to_string, &bytes, &b) < 0) return;
        for (char disk = 'a'; disk <= 'g'; disk++)
            for (size_t i = 0; i < paths.size(); i++) {
                key.assign("/disks/");
                key.push_back(disk);
                key.append(static_cast<const char *>(paths[i].data), paths[i].size);
                kv_fst_add(b, kv_bytes(key.data(), key.size()), n++);
            }
        if (kv_fst_build_finish(b) < 0) { fprintf(stderr, "many: the build failed\n"); return; }
        double seconds = now() - start;
        kv_fst *f;
        if (kv_fst_open_memory(NULL, kv_bytes(bytes.data(), bytes.size()), &f) < 0 || kv_fst_count(f) != n || kv_fst_check(f) < 0) fprintf(stderr, "many: the map is wrong\n");
        kv_fst_close(f);
        if (json) printf("{\"bench\":\"fst\",\"set\":\"many\",\"measure\":\"build M keys/s\",\"limit\":%zu,\"median\":%.4f,\"peak\":%zu,\"bytes_a_key\":%.4f}\n", limit, double(n) / seconds / 1e6, memory_peak, double(bytes.size()) / double(n));
        else printf("many: %lu keys, limit %zu MiB: %.3f M keys/s, peak %.1f MB, %.3f bytes a key\n", static_cast<unsigned long>(n), limit >> 20, double(n) / seconds / 1e6, double(memory_peak) / 1e6, double(bytes.size()) / double(n));
    }
}

int main(int argc, char **argv)
{
    std::vector<std::string> sets;
    bool json = false;
    for (int i = 1; i < argc; i++) { if (std::string(argv[i]) == "--json") json = true; else if (std::string(argv[i]) == "--rounds" && i + 1 < argc) rounds = atoi(argv[++i]); else sets.push_back(argv[i]); }
    if (sets.empty()) sets = { "paths", "urls", "words", "random", "dense", "sparse" };
    for (const std::string &set : sets) { if (set == "many") run_many(json); else if (set == "search") run_searches(json); else run(set, json); }
    return 0;
}
