/* bench_art.cpp - kv_art.h beside absl::btree_map, std::map, JudySL and JudyL
   Goal: the bars of kv_art.h as ratios to its peers: speed of each operation, and bytes an entry.
   Method: every structure in turn, in each round, in one process, on the same copies of the keys; the
   table shows medians over the rounds, and our ratio to each peer. Values are 8-byte numbers. Keys
   are laid out in the order in which they are asked for, so that fetching the question costs nobody
   anything; inserts are in one random order, gets and deletes in another, and every answer is checked.
   Scans look at each key's last byte, size and value. seek+50 is a lower bound and 50 steps on.

       make bench-art
       build/bench/bench_art --data paths,words,random,dense --rounds 5 --peers kv,absl,map,judy --json out.json

   bench-pkgs: absl_btree absl_strings
   bench-libs: Judy

   Bytes an entry are what malloc says it handed out (mallinfo2), so they include its own heads; of a
   kv_art, which maps large pages past malloc, what it says itself, if that is more. JudySL
   cannot hold keys with zero bytes: integers go to JudyL, as integers. `kv cc` is a concurrent map. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"     /* in the AVX-512 intrinsics of gcc 12 */
#endif
#define KV_ART_IMPLEMENTATION
#include "../../kv_art.h"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <malloc.h>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <vector>
#ifdef HAVE_absl_btree
#include <absl/container/btree_map.h>
#endif
#ifdef HAVE_Judy
#include <Judy.h>
#endif

typedef std::string_view view;

/* ------------------------------------------------------------------------------------------------
   keys */

struct keyset {
    std::string           bytes;
    std::vector<view>     keys;
    void add(view k) { sizes.push_back(k.size()); bytes.append(k); }
    void finish() { size_t at = 0; for (size_t n : sizes) { keys.push_back(view(bytes.data() + at, n)); at += n; } bytes.append(64, '\0'); keys.clear(); at = 0; for (size_t n : sizes) { keys.push_back(view(bytes.data() + at, n)); at += n; } }
    std::vector<size_t> sizes;
};
/* NUL-terminated copies for Judy, at the same places in the order. */
struct data_set { std::string name; keyset inserts, gets, misses, sorted; bool integers; std::vector<uint64_t> insert_numbers, get_numbers, miss_numbers; };

static uint64_t value_of(view k) { return kv_hash(kv_bytes(k.data(), k.size()), 1); }
static uint64_t number_of(view k) { uint64_t n = 0; for (char c : k) n = n << 8 | (uint8_t)c; return n; }

static std::vector<std::string> lines_of(const std::string &path)
{
    std::vector<std::string> lines;
    std::string command = path.size() > 4 && path.substr(path.size() - 4) == ".zst" ? "zstd -dc '" + path + "' 2>/dev/null" : "cat '" + path + "' 2>/dev/null";
    FILE *f = popen(command.c_str(), "r");
    char *line = nullptr;
    size_t capacity = 0;
    ssize_t n;
    if (!f) return lines;
    while ((n = getline(&line, &capacity, f)) > 0) { if (line[n - 1] == '\n') n--; if (n) lines.emplace_back(line, (size_t)n); }
    free(line);
    pclose(f);
    return lines;
}
static std::string big_endian(uint64_t n) { std::string k(8, 0); for (int i = 0; i < 8; i++) k[i] = (char)(n >> (56 - 8 * i)); return k; }

static data_set make_data(const std::string &name, size_t limit)
{
    data_set                 d;
    std::vector<std::string> lines;
    uint64_t                 seed = 7;
    d.name = name;
    d.integers = name == "random" || name == "dense";
    if (name == "paths") lines = lines_of("../shared/data/paths-1m.sorted.txt.zst");
    else if (name == "urls") lines = lines_of("../shared/data/urls-200k.sorted.txt.zst");
    else if (name == "words") lines = lines_of("/usr/share/dict/american-english-insane");
    else for (uint64_t i = 0; i < 1000000; i++) lines.push_back(big_endian(name == "dense" ? i : kvi_mix64(i + 12345)));
    std::sort(lines.begin(), lines.end());
    lines.erase(std::unique(lines.begin(), lines.end()), lines.end());
    auto shuffle = [&] { for (size_t i = lines.size(); i > 1; i--) std::swap(lines[i - 1], lines[kvi_mix64(++seed) % i]); };
    if (limit && lines.size() > limit) { shuffle(); lines.resize(limit); std::sort(lines.begin(), lines.end()); }
    for (auto &l : lines) d.sorted.add(l);
    shuffle();
    for (auto &l : lines) d.inserts.add(l);
    shuffle();
    for (auto &l : lines) d.gets.add(l);
    shuffle();
    for (auto &l : lines) {             /* absent: one byte in the last half is another */
        std::string m = l;
        size_t at = m.size() - 1 - kvi_mix64(++seed) % (m.size() / 2 + 1);
        m[at] = d.integers ? (char)(m[at] + 1 + kvi_mix64(seed) % 255) : m[at] == '~' ? '}' : '~';
        if (d.name == "dense") m = big_endian(number_of(l) + 1000000);
        d.misses.add(m);
    }
    for (keyset *k : { &d.sorted, &d.inserts, &d.gets, &d.misses }) k->finish();
    for (view k : d.inserts.keys) d.insert_numbers.push_back(number_of(k));
    for (view k : d.gets.keys) d.get_numbers.push_back(number_of(k));
    for (view k : d.misses.keys) d.miss_numbers.push_back(number_of(k));
    return d;
}

/* ------------------------------------------------------------------------------------------------
   structures behind one set of functions; each works through a whole list */

static volatile uint64_t sink;
struct total { uint64_t count = 0, sum = 0; };
static bool visit_total(void *user, kv_slice key, kv_slice value)
{
    total *t = (total *)user;
    t->count++;
    t->sum += key.size + ((const uint8_t *)key.data)[key.size - 1] + kvi_load_word(value.data);
    return true;
}

struct structure {
    virtual ~structure() {}
    virtual void     insert(const data_set &d, const keyset &k) = 0;
    virtual uint64_t get(const data_set &d, const keyset &k) = 0;               /* how many are there, with their values added to sink */
    virtual total    scan(bool reverse) { (void)reverse; return total(); }
    virtual total    seek(const std::vector<view> &k) { (void)k; return total(); }
    virtual total    cursor(const std::vector<view> &k) { (void)k; return total(); }
    virtual uint64_t batch(const keyset &k) { (void)k; return 0; }
    virtual double   own_bytes() { return 0; }                                  /* what it says itself, where it maps memory past malloc */
    virtual void     erase(const data_set &d, const keyset &k) = 0;
};

struct kv_structure : structure {
    kv_art *map;
    explicit kv_structure(bool concurrent) { kv_art_options o = {}; o.concurrent = concurrent; if (kv_art_open(&o, &map) < 0) abort(); }
    ~kv_structure() override { kv_art_close(map); }
    static kv_slice s(view k) { return kv_bytes(k.data(), k.size()); }
    void insert(const data_set &, const keyset &list) override { for (view k : list.keys) if (kv_art_set_u64(map, s(k), value_of(k)) < 0) abort(); }
    static uint64_t get_some(kv_art *map, const view *k, size_t count)
    {
        uint64_t found = 0, sum = 0, v = 0;
        for (size_t i = 0; i < count; i++) if (kv_art_get_u64(map, s(k[i]), &v) == KV_OK) { found++; sum += v; }
        sink = sink + sum;
        return found;
    }
    uint64_t get(const data_set &, const keyset &list) override { return get_some(map, list.keys.data(), list.keys.size()); }
    total scan(bool reverse) override { total t; kv_range r = {}; r.reverse = reverse; kv_art_scan(map, &r, visit_total, &t); return t; }
    total seek(const std::vector<view> &list) override
    {
        total t;
        for (view k : list) { kv_range r = {}; r.from = s(k); r.limit = 51; kv_art_scan(map, &r, visit_total, &t); }
        return t;
    }
    total cursor(const std::vector<view> &list) override
    {
        total    t;
        kv_iter *i;
        if (kv_art_iter_open(map, NULL, &i) < 0) abort();
        for (view k : list) {
            kv_iter_seek(i, s(k));
            for (int n = 0; n < 51 && kv_iter_valid(i); n++, kv_iter_next(i)) visit_total(&t, kv_iter_key(i), kv_iter_value(i));
        }
        kv_iter_close(i);
        return t;
    }
    uint64_t batch(const keyset &list) override
    {
        kv_slice  keys[64];
        kv_buf    values[64] = {};
        kv_status statuses[64];
        uint64_t  found = 0;
        for (size_t i = 0; i < list.keys.size(); i += 64) {
            size_t n = std::min<size_t>(64, list.keys.size() - i);
            for (size_t j = 0; j < n; j++) keys[j] = s(list.keys[i + j]);
            kv_art_batch_get(map, keys, n, values, statuses);
            for (size_t j = 0; j < n; j++) found += statuses[j] == KV_OK;
        }
        for (kv_buf &b : values) kv_buf_free(&b);
        return found;
    }
    double own_bytes() override { kv_art_stats_t t; return kv_art_stats(map, &t) < 0 ? 0 : (double)t.memory_bytes; }
    void erase(const data_set &, const keyset &list) override { for (view k : list.keys) if (kv_art_delete(map, s(k)) != KV_OK) abort(); }
};

template <class map_type> struct ordered_structure : structure {
    map_type map;
    void insert(const data_set &, const keyset &list) override { for (view k : list.keys) map.emplace(std::string(k), value_of(k)); }
    uint64_t get(const data_set &, const keyset &list) override
    {
        uint64_t found = 0, sum = 0;
        for (view k : list.keys) { auto i = map.find(k); if (i != map.end()) { found++; sum += i->second; } }
        sink = sink + sum;
        return found;
    }
    template <class iterator> static void add(total &t, iterator i) { t.count++; t.sum += i->first.size() + (uint8_t)i->first.back() + i->second; }
    total scan(bool reverse) override
    {
        total t;
        if (reverse) for (auto i = map.rbegin(); i != map.rend(); ++i) add(t, i);
        else for (auto i = map.begin(); i != map.end(); ++i) add(t, i);
        return t;
    }
    total seek(const std::vector<view> &list) override
    {
        total t;
        for (view k : list) { auto i = map.lower_bound(k); for (int n = 0; n < 51 && i != map.end(); n++, ++i) add(t, i); }
        return t;
    }
    total cursor(const std::vector<view> &list) override { return seek(list); }
    void erase(const data_set &, const keyset &list) override { for (view k : list.keys) { auto i = map.find(k); if (i == map.end()) abort(); map.erase(i); } }
};

#ifdef HAVE_Judy
/* JudySL wants a NUL behind each key: it gets copies that have one, made outside the clock. */
struct judysl_structure : structure {
    Pvoid_t array = NULL;
    static const std::vector<const uint8_t *> &strings(const keyset &k)
    {
        static std::map<const keyset *, std::pair<std::string, std::vector<const uint8_t *>>> all;
        auto &e = all[&k];
        if (e.second.empty()) {
            for (view s : k.keys) { e.first.append(s); e.first.push_back(0); }
            const uint8_t *p = (const uint8_t *)e.first.data();
            for (view s : k.keys) { e.second.push_back(p); p += s.size() + 1; }
        }
        return e.second;
    }
    ~judysl_structure() override { Word_t n; JSLFA(n, array); (void)n; }
    void insert(const data_set &, const keyset &list) override { size_t i = 0; for (const uint8_t *k : strings(list)) { Pvoid_t v; JSLI(v, array, k); *(PWord_t)v = value_of(list.keys[i++]); } }
    uint64_t get(const data_set &, const keyset &list) override
    {
        uint64_t found = 0, sum = 0;
        for (const uint8_t *k : strings(list)) { Pvoid_t v; JSLG(v, array, k); if (v) { found++; sum += *(PWord_t)v; } }
        sink = sink + sum;
        return found;
    }
    total scan(bool reverse) override
    {
        total t;
        std::vector<uint8_t> key(70000);
        Pvoid_t v;
        if (reverse) { memset(key.data(), 0xFF, 69999); JSLL(v, array, key.data()); } else { key[0] = 0; JSLF(v, array, key.data()); }
        while (v) {
            size_t n = strlen((char *)key.data());
            t.count++; t.sum += n + key[n - 1] + *(PWord_t)v;
            if (reverse) { JSLP(v, array, key.data()); } else { JSLN(v, array, key.data()); }
        }
        return t;
    }
    total seek(const std::vector<view> &list) override
    {
        total t;
        std::vector<uint8_t> key(70000);
        for (view k : list) {
            Pvoid_t v;
            memcpy(key.data(), k.data(), k.size());
            key[k.size()] = 0;
            JSLF(v, array, key.data());
            for (int i = 0; i < 51 && v; i++) { size_t n = strlen((char *)key.data()); t.count++; t.sum += n + key[n - 1] + *(PWord_t)v; JSLN(v, array, key.data()); }
        }
        return t;
    }
    total cursor(const std::vector<view> &list) override { return seek(list); }
    void erase(const data_set &, const keyset &list) override { for (const uint8_t *k : strings(list)) { int r; JSLD(r, array, k); if (!r) abort(); } }
};
struct judyl_structure : structure {
    Pvoid_t array = NULL;
    ~judyl_structure() override { Word_t n; JLFA(n, array); (void)n; }
    static const std::vector<uint64_t> &numbers(const data_set &d, const keyset &k)
    {
        return &k == &d.inserts ? d.insert_numbers : &k == &d.gets ? d.get_numbers : &k == &d.misses ? d.miss_numbers : sorted_numbers(k);
    }
    static const std::vector<uint64_t> &sorted_numbers(const keyset &k) { static std::vector<uint64_t> n; if (n.empty()) for (view s : k.keys) n.push_back(number_of(s)); return n; }
    void insert(const data_set &d, const keyset &list) override { size_t i = 0; for (uint64_t k : numbers(d, list)) { Pvoid_t v; JLI(v, array, k); *(PWord_t)v = value_of(list.keys[i++]); } }
    uint64_t get(const data_set &d, const keyset &list) override
    {
        uint64_t found = 0, sum = 0;
        for (uint64_t k : numbers(d, list)) { Pvoid_t v; JLG(v, array, k); if (v) { found++; sum += *(PWord_t)v; } }
        sink = sink + sum;
        return found;
    }
    total scan(bool reverse) override
    {
        total t;
        Word_t k = reverse ? ~(Word_t)0 : 0;
        Pvoid_t v;
        if (reverse) { JLL(v, array, k); } else { JLF(v, array, k); }
        while (v) { t.count++; t.sum += 8 + (uint8_t)k + *(PWord_t)v; if (reverse) { JLP(v, array, k); } else { JLN(v, array, k); } }
        return t;
    }
    total seek(const std::vector<view> &list) override
    {
        total t;
        for (view s : list) { Word_t k = number_of(s); Pvoid_t v; JLF(v, array, k); for (int i = 0; i < 51 && v; i++) { t.count++; t.sum += 8 + (uint8_t)k + *(PWord_t)v; JLN(v, array, k); } }
        return t;
    }
    total cursor(const std::vector<view> &list) override { return seek(list); }
    void erase(const data_set &d, const keyset &list) override { for (uint64_t k : numbers(d, list)) { int r; JLD(r, array, k); if (!r) abort(); } }
};
#endif

/* ------------------------------------------------------------------------------------------------
   measuring */

struct peer { std::string name; std::function<structure *(const data_set &)> make; };
static std::vector<peer> all_peers()
{
    std::vector<peer> p;
    p.push_back({ "kv", [](const data_set &) { return (structure *)new kv_structure(false); } });
    p.push_back({ "kv cc", [](const data_set &) { return (structure *)new kv_structure(true); } });
#ifdef HAVE_absl_btree
    p.push_back({ "absl", [](const data_set &) { return (structure *)new ordered_structure<absl::btree_map<std::string, uint64_t, std::less<>>>; } });
#endif
    p.push_back({ "map", [](const data_set &) { return (structure *)new ordered_structure<std::map<std::string, uint64_t, std::less<>>>; } });
#ifdef HAVE_Judy
    p.push_back({ "judy", [](const data_set &d) { return d.integers ? (structure *)new judyl_structure : (structure *)new judysl_structure; } });
#endif
    return p;
}
static const char *const metrics[] = { "insert", "insert sorted", "get", "get 2 threads", "get batch", "miss", "scan", "scan reverse", "seek+50", "cursor+50", "delete", "bytes" };
enum { INSERT, SORTED, GET, GET2, BATCH, MISS, SCAN, REVERSE, SEEK, CURSOR, DELETE, BYTES, METRICS };

static double clock_us(const std::function<void()> &f) { uint64_t start = kvi_now_ns(); f(); return (double)(kvi_now_ns() - start) / 1000.0; }
static double heap_bytes() { struct mallinfo2 m = mallinfo2(); return (double)m.uordblks + (double)m.hblkhd; }
static bool   wanted[METRICS];

static void check(bool ok, const char *what) { if (!ok) { fprintf(stderr, "wrong answers: %s\n", what); exit(1); } }
static void measure(const data_set &d, const peer &p, double *result)
{
    size_t            n = d.gets.keys.size();
    std::vector<view> some(d.gets.keys.begin(), d.gets.keys.begin() + (long)std::min<size_t>(n, 100000));
    total             t;
    double            before;
    structure        *s;
    for (int i = 0; i < METRICS; i++) result[i] = 0;
    if (p.name == "judy" && !d.integers) for (const keyset *k : { &d.inserts, &d.gets, &d.misses, &d.sorted }) (void)judysl_structure::strings(*k);
    before = heap_bytes();
    s = p.make(d);
    result[INSERT] = (double)n / clock_us([&] { s->insert(d, d.inserts); });
    result[BYTES] = std::max(heap_bytes() - before, s->own_bytes()) / (double)n;
    if (wanted[GET]) result[GET] = (double)n / clock_us([&] { check(s->get(d, d.gets) == n, "get"); });
    if (wanted[BATCH] && p.name.substr(0, 2) == "kv") result[BATCH] = (double)n / clock_us([&] { check(s->batch(d.gets) == n, "batch"); });
    if (wanted[GET2] && p.name.substr(0, 2) == "kv") {
        kv_art *map = ((kv_structure *)s)->map;
        result[GET2] = 2.0 * (double)n / clock_us([&] {
            std::thread other([&] { kv_structure::get_some(map, d.gets.keys.data(), n); });
            kv_structure::get_some(map, d.gets.keys.data(), n);
            other.join();
        });
    }
    if (wanted[MISS]) result[MISS] = (double)n / clock_us([&] { check(s->get(d, d.misses) < n, "miss"); });
    if (wanted[SCAN]) result[SCAN] = (double)n / clock_us([&] { t = s->scan(false); });
    if (wanted[SCAN]) check(t.count == n, "scan");
    if (wanted[REVERSE]) result[REVERSE] = (double)n / clock_us([&] { t = s->scan(true); });
    if (wanted[REVERSE]) check(t.count == n, "scan reverse");
    if (wanted[SEEK]) result[SEEK] = 1000.0 * (double)some.size() / clock_us([&] { t = s->seek(some); });
    if (wanted[CURSOR]) result[CURSOR] = 1000.0 * (double)some.size() / clock_us([&] { t = s->cursor(some); });
    if (wanted[DELETE]) result[DELETE] = (double)n / clock_us([&] { s->erase(d, d.gets); });
    delete s;
    if (wanted[SORTED]) { s = p.make(d); result[SORTED] = (double)n / clock_us([&] { s->insert(d, d.sorted); }); delete s; }
}
static double median(std::vector<double> v) { std::sort(v.begin(), v.end()); return v[v.size() / 2]; }

int main(int argc, char **argv)
{
    std::string       data = "paths,words,random,dense", peers = "kv,kv cc,absl,map,judy", only, json;
    int               rounds = 5;
    size_t            limit = 0;
    FILE             *out = nullptr;
    for (int i = 1; i < argc; i += 2) {
        std::string o = i + 1 < argc ? argv[i] : "";        /* each has a value */
        if (o == "--data") data = argv[i + 1];
        else if (o == "--peers") peers = argv[i + 1];
        else if (o == "--rounds") rounds = atoi(argv[i + 1]);
        else if (o == "--only") only = argv[i + 1];
        else if (o == "--keys") limit = (size_t)atoll(argv[i + 1]);
        else if (o == "--json") json = argv[i + 1];
        else { fprintf(stderr, "%s: no such option, or no value\noptions: --data LIST --peers LIST --only LIST --rounds N --keys N --json FILE\n", argv[i]); return 2; }
    }
    auto listed = [](const std::string &list, const std::string &name) { return ("," + list + ",").find("," + name + ",") != std::string::npos; };
    for (int m = 0; m < METRICS; m++) wanted[m] = only.empty() || listed(only, metrics[m]);
    if (!json.empty()) out = fopen(json.c_str(), "w");
    for (std::string name : { "paths", "urls", "words", "random", "dense" }) {
        if (!listed(data, name)) continue;
        data_set          d = make_data(name, limit);
        std::vector<peer> list;
        if (d.gets.keys.empty()) { printf("%s: no such keys on this machine, skipped\n", name.c_str()); continue; }
        for (peer &p : all_peers()) if (listed(peers, p.name)) list.push_back(p);
        std::vector<std::vector<std::vector<double>>> results(list.size(), std::vector<std::vector<double>>(METRICS));
        for (int round = 0; round < rounds; round++)
            for (size_t i = 0; i < list.size(); i++) {
                double one[METRICS];
                measure(d, list[(i + (size_t)round) % list.size()], one);
                for (int m = 0; m < METRICS; m++) results[(i + (size_t)round) % list.size()][(size_t)m].push_back(one[m]);
            }
        printf("\n%s: %zu keys of %.1f bytes, %d rounds, %s. M/s; seeks K/s; bytes an entry. (x): kv against the peer, more than 1 is better for kv\n%-14s", name.c_str(), d.gets.keys.size(),
               (double)(d.gets.bytes.size() - 64) / (double)d.gets.keys.size(), rounds, kv_simd_name(), "");
        for (peer &p : list) printf(" %16s", p.name.c_str());
        printf("\n");
        for (int m = 0; m < METRICS; m++) {
            if (!wanted[m] && m != BYTES && m != INSERT) continue;
            printf("%-14s", metrics[m]);
            for (size_t i = 0; i < list.size(); i++) {
                double v = median(results[i][(size_t)m]);
                std::vector<double> ratios;
                for (int r = 0; r < rounds; r++) ratios.push_back(m == BYTES ? results[i][(size_t)m][(size_t)r] / results[0][(size_t)m][(size_t)r] : results[0][(size_t)m][(size_t)r] / results[i][(size_t)m][(size_t)r]);
                if (v == 0) printf(" %16s", "-");
                else if (i == 0) printf(" %16.2f", v);
                else printf(" %8.2f (%4.2fx)", v, median(ratios));
                if (out && v > 0) fprintf(out, "{\"bench\":\"art\",\"data\":\"%s\",\"metric\":\"%s\",\"structure\":\"%s\",\"value\":%.4f,\"kv_ratio\":%.4f}\n", name.c_str(), metrics[m], list[i].name.c_str(), v, median(ratios));
            }
            printf("\n");
        }
        fflush(stdout);
    }
    if (out) fclose(out);
    return 0;
}
