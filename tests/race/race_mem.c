/* race_mem.c
   Goal: any thread may do anything at any time; what one key was told to be, in which order, makes sense.
   Method: threads do everything at once under ThreadSanitizer, with values that carry their key and a
   checksum, so that a torn one shows. Linearizability: a few keys, operations recorded with the times of
   a common clock, and each key's history searched offline for one order that explains every answer
   (Wing and Gong, 1993, with the states that were seen remembered). */
#define KV_MEM_IMPLEMENTATION
#include "../../kv_mem.h"
#include "../kv_test.h"
#include <pthread.h>

#define THREADS 6

typedef struct job { kv_mem *m; int number; size_t operations; uint64_t *counters; } job;

static void run_threads(void *(*run)(void *), job *jobs, int count)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < count; i++) if (pthread_create(&threads[i], NULL, run, &jobs[i]) != 0) abort();
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
}
static kv_slice key_of(uint64_t n, char *out) { return kv_bytes(out, (size_t)sprintf(out, "key:%" PRIu64, n)); }

/* A value: its key's number, random words of one kind, and their sum; of any size. */
static kv_slice value_of(uint64_t n, test_rng *r, uint64_t *out)
{
    size_t   words = test_one_in(r, 200) ? 5000 : test_one_in(r, 20) ? 200 : 3 + (size_t)test_below(r, 12);
    uint64_t word = test_random(r), sum = n;
    out[0] = n;
    for (size_t i = 1; i + 1 < words; i++) { out[i] = word; sum += word; }
    out[words - 1] = sum;
    return kv_bytes(out, words * 8);
}
static bool value_is_whole(uint64_t n, kv_slice value)
{
    const uint8_t *bytes = (const uint8_t *)value.data;
    uint64_t sum = 0, word = 0;
    size_t   words = value.size / 8;
    if (value.size % 8 || words < 3) return false;
    for (size_t i = 0; i + 1 < words; i++) { memcpy(&word, bytes + i * 8, 8); sum += word; if (i == 0 && word != n) return false; }
    memcpy(&word, bytes + (words - 1) * 8, 8);
    return word == sum;
}
static uint64_t number_of(kv_slice key)
{
    char text[32];
    if (key.size < 5 || key.size > 30) return UINT64_MAX;
    memcpy(text, key.data, key.size);
    text[key.size] = 0;
    return strtoull(text + 4, NULL, 10);
}
static size_t torn;
static bool look(void *user, kv_slice key, kv_slice value)
{
    (void)user;
    if (!value_is_whole(number_of(key), value)) __atomic_fetch_add(&torn, 1, __ATOMIC_RELAXED);
    return true;
}
static kv_status change(void *user, bool found, kv_slice old, kv_buf *value)
{
    test_rng *r = (test_rng *)user;
    if (!found || test_one_in(r, 4)) return KV_NOT_FOUND;
    return kv_buf_assign(value, old);
}
static void watched(void *user, kv_event event, kv_slice key, kv_slice value)
{
    if (event == KV_EVENT_SET) (void)look(NULL, key, value);
    __atomic_fetch_add((uint64_t *)user, 1, __ATOMIC_RELAXED);
}

#define KEYS 400
static void *everything(void *argument)
{
    job     *j = (job *)argument;
    test_rng r = { 1000 + (uint64_t)j->number };
    uint64_t *words = (uint64_t *)malloc(5000 * 8);
    kv_buf   got;
    char     key[32], keys[16][32];
    memset(&got, 0, sizeof got);
    for (size_t i = 0; i < j->operations; i++) {
        uint64_t n = test_below(&r, KEYS);
        kv_slice k = key_of(n, key);
        switch (test_below(&r, 40)) {
        case 0: case 1: case 2: case 3: case 4: case 5: case 6: case 7: (void)kv_mem_set(j->m, k, value_of(n, &r, words)); break;
        case 8: case 9: case 10: (void)kv_mem_delete(j->m, k); break;
        case 11: (void)kv_mem_insert(j->m, k, value_of(n, &r, words)); break;
        case 12: (void)kv_mem_set_ttl(j->m, k, value_of(n, &r, words), 1 + test_below(&r, 3)); break;
        case 13: (void)kv_mem_expire(j->m, k, test_below(&r, 3)); break;
        case 14: (void)kv_mem_update(j->m, k, change, &r); break;
        case 15: (void)kv_mem_view(j->m, k, look, NULL); break;
        case 16: if (test_one_in(&r, 30)) (void)kv_mem_scan(j->m, NULL, look, NULL); break;
        case 17: (void)kv_mem_sweep(j->m, (size_t)test_below(&r, 20)); break;
        case 18: { kv_mem_stats_t stats; if (test_one_in(&r, 10)) (void)kv_mem_stats(j->m, &stats); (void)kv_mem_count(j->m); break; }
        case 19: if (test_one_in(&r, 100)) kv_mem_clear(j->m); break;
        case 20: {
            uint64_t events = 0;
            kv_watch *w;
            if (test_one_in(&r, 20) && kv_mem_subscribe(j->m, KV_STR("key:1"), watched, &events, &w) == KV_OK) {
                (void)kv_mem_set(j->m, k, value_of(n, &r, words));
                kv_mem_unsubscribe(w);
            }
            break;
        }
        case 21: case 22: {
            kv_slice list[16];
            kv_buf   values[16];
            kv_status statuses[16];
            memset(values, 0, sizeof values);
            for (int q = 0; q < 16; q++) list[q] = key_of(test_below(&r, KEYS), keys[q]);
            if (kv_mem_batch_get(j->m, list, 16, values, statuses) == KV_OK)
                for (int q = 0; q < 16; q++) if (statuses[q] == KV_OK) (void)look(NULL, list[q], kv_buf_slice(&values[q]));
            for (int q = 0; q < 16; q++) kv_buf_free(&values[q]);
            break;
        }
        case 23: { uint64_t ttl; (void)kv_mem_ttl(j->m, k, &ttl); (void)kv_mem_exists(j->m, k); break; }
        case 24: if (kv_mem_get(j->m, k, &got) == KV_OK) (void)kv_mem_compare_and_set(j->m, k, kv_buf_slice(&got), value_of(n, &r, words)); break;
        default: if (kv_mem_get(j->m, k, &got) == KV_OK) (void)look(NULL, k, kv_buf_slice(&got)); break;
        }
    }
    kv_buf_free(&got);
    free(words);
    return NULL;
}
static void all_at_once(uint64_t limit, uint32_t shards)
{
    kv_mem_options o;
    kv_mem *m;
    job     jobs[THREADS];
    memset(&o, 0, sizeof o);
    o.shards = shards;
    o.memory_limit_bytes = limit;
    if (!CHECK_OK(kv_mem_open(&o, &m))) return;
    for (int i = 0; i < THREADS; i++) { jobs[i].m = m; jobs[i].number = i; jobs[i].operations = test_scaled(12000); }
    torn = 0;
    run_threads(everything, jobs, THREADS);
    CHECK_OK(kv_mem_scan(m, NULL, look, NULL));
    CHECK_EQ(torn, 0);
    kv_mem_close(m);
}
TEST(mem_race, everything_at_once) { all_at_once(0, 2); }
TEST(mem_race, everything_at_once_in_one_shard) { all_at_once(0, 1); }
TEST(mem_race, everything_at_once_under_a_limit) { all_at_once(400000, 2); }

/* ---- growth: readers of what is there, while writers split segments ---- */

static void *grow(void *argument)
{
    job     *j = (job *)argument;
    test_rng r = { 77 + (uint64_t)j->number };
    uint64_t got = 0;
    kv_buf   value = kv_buf_fixed(&got, sizeof got);
    char     key[32];
    for (uint64_t i = 0; i < j->operations; i++) {
        uint64_t n = i * THREADS + (uint64_t)j->number, old = test_below(&r, i + 1) * THREADS + (uint64_t)j->number;
        if (kv_mem_set(j->m, key_of(n, key), kv_bytes(&n, sizeof n)) != KV_OK) __atomic_fetch_add(&torn, 1, __ATOMIC_RELAXED);
        if (kv_mem_get(j->m, key_of(old, key), &value) != KV_OK || got != old) __atomic_fetch_add(&torn, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}
TEST(mem_race, nothing_is_missed_while_it_grows)
{
    kv_mem *m;
    job     jobs[THREADS];
    size_t  each = test_scaled(8000);
    CHECK_OK(kv_mem_open(NULL, &m));
    for (int i = 0; i < THREADS; i++) { jobs[i].m = m; jobs[i].number = i; jobs[i].operations = each; }
    torn = 0;
    run_threads(grow, jobs, THREADS);
    CHECK_EQ(torn, 0);
    CHECK_EQ(kv_mem_count(m), each * THREADS);
    kv_mem_close(m);
}
static void *count_up(void *argument)
{
    job *j = (job *)argument;
    char key[32];
    for (size_t i = 0; i < j->operations; i++) if (kv_mem_increment(j->m, key_of(i % 7, key), 1, NULL) < 0) __atomic_fetch_add(&torn, 1, __ATOMIC_RELAXED);
    return NULL;
}
TEST(mem_race, increments_add_up)
{
    kv_mem *m;
    job     jobs[THREADS];
    int64_t sum = 0, n = 0;
    char    key[32];
    size_t  each = test_scaled(7000);
    CHECK_OK(kv_mem_open(NULL, &m));
    for (int i = 0; i < THREADS; i++) { jobs[i].m = m; jobs[i].number = i; jobs[i].operations = each; }
    run_threads(count_up, jobs, THREADS);
    for (uint64_t i = 0; i < 7; i++) { CHECK_OK(kv_get_int64(kv_mem_store(m), key_of(i, key), &n)); sum += n; }
    CHECK_EQ(sum, (int64_t)(each * THREADS));
    kv_mem_close(m);
}

/* ---- linearizability ---- */

typedef enum history_kind { H_GET, H_SET, H_DELETE, H_INSERT, H_SWAP } history_kind;
typedef struct history_op { uint64_t call, back; history_kind kind; uint32_t given, expected, seen; kv_status status; } history_op;   /* values are 1, 2, 3...; 0: none */
#define HISTORY_KEYS 4
typedef struct history { history_op *ops[HISTORY_KEYS]; size_t count[HISTORY_KEYS]; } history;
typedef struct history_job { kv_mem *m; int number; size_t operations; history h; } history_job;

static uint64_t history_clock;
static uint32_t history_values;
static uint64_t tick(void) { return __atomic_fetch_add(&history_clock, 1, __ATOMIC_SEQ_CST); }

/* What a value looks like in the map: its number, and padding by which records change their size. */
static kv_slice history_value(uint32_t n, char *out) { memset(out, (int)n, 100); memcpy(out, &n, 4); return kv_bytes(out, 4 + n % 90); }
static void *history_run(void *argument)
{
    history_job *j = (history_job *)argument;
    test_rng r = { 31 * (uint64_t)j->number + test_seed_value };
    kv_buf   got;
    char     key[32], a[100], b[100];
    memset(&got, 0, sizeof got);
    for (int k = 0; k < HISTORY_KEYS; k++) { j->h.ops[k] = (history_op *)calloc(j->operations, sizeof(history_op)); if (!j->h.ops[k]) abort(); }
    for (size_t i = 0; i < j->operations; i++) {
        uint32_t    k = (uint32_t)test_below(&r, HISTORY_KEYS), last = got.size >= 4 ? *(uint32_t *)got.data : 0;
        history_op *op = &j->h.ops[k][j->h.count[k]++];
        kv_slice    name = key_of(k, key);
        op->kind = (history_kind)test_below(&r, 5);
        op->given = __atomic_add_fetch(&history_values, 1, __ATOMIC_RELAXED);
        op->call = tick();
        switch (op->kind) {
        case H_SET: op->status = kv_mem_set(j->m, name, history_value(op->given, a)); break;
        case H_DELETE: op->status = kv_mem_delete(j->m, name); break;
        case H_INSERT: op->status = kv_mem_insert(j->m, name, history_value(op->given, a)); break;
        case H_SWAP:
            op->expected = last ? last : 1;
            op->status = kv_mem_compare_and_set(j->m, name, history_value(op->expected, b), history_value(op->given, a));
            break;
        case H_GET:
        default:
            op->status = kv_mem_get(j->m, name, &got);
            if (op->status == KV_OK) memcpy(&op->seen, got.data, 4);
            break;
        }
        op->back = tick();
    }
    kv_buf_free(&got);
    return NULL;
}
/* Does op make sense while the key holds `value`? Then what it holds afterwards. */
static bool history_step(const history_op *op, uint32_t value, uint32_t *after)
{
    *after = value;
    switch (op->kind) {
    case H_SET: *after = op->given; return op->status == KV_OK;
    case H_DELETE: *after = 0; return op->status == KV_OK;
    case H_INSERT: if (!value) *after = op->given; return op->status == (value ? KV_EXISTS : KV_OK);
    case H_SWAP:
        if (value == op->expected) *after = op->given;
        return op->status == (!value ? KV_NOT_FOUND : value == op->expected ? KV_OK : KV_ERR_CONFLICT);
    case H_GET:
    default: return value ? op->status == KV_OK && op->seen == value : op->status == KV_NOT_FOUND;
    }
}
/* Search for an order. A state is how far each thread's operations are done, and the value; the next one to
   be done is the next of some thread, if none that is not done came back before it was called. */
#define LINEAR_THREADS 4
typedef struct history_state { uint32_t done[LINEAR_THREADS], value; bool used; } history_state;

static bool linearizable(history_job *jobs, int key)
{
    size_t         capacity = 1 << 19, stack_size = 0, seen_count = 0;
    history_state *stack = (history_state *)malloc(capacity * sizeof *stack), *seen = (history_state *)calloc(capacity, sizeof *seen);
    bool           found = false;
    if (!stack || !seen) abort();
    memset(&stack[stack_size++], 0, sizeof *stack);
    while (stack_size && !found) {
        history_state at = stack[--stack_size];
        uint64_t      first_back = UINT64_MAX, mix = at.value;
        size_t        slot;
        at.used = true;
        for (int t = 0; t < LINEAR_THREADS; t++) {
            mix = kvi_mix64(mix + at.done[t]);
            if (at.done[t] < jobs[t].h.count[key] && jobs[t].h.ops[key][at.done[t]].back < first_back) first_back = jobs[t].h.ops[key][at.done[t]].back;
        }
        if (first_back == UINT64_MAX) { found = true; break; }
        for (slot = (size_t)(mix % capacity); seen[slot].used && memcmp(&seen[slot], &at, sizeof at) != 0;) slot = (slot + 1) % capacity;
        if (seen[slot].used) continue;
        seen[slot] = at;
        if (++seen_count * 2 > capacity) { memset(seen, 0, capacity * sizeof *seen); seen_count = 0; }
        for (int t = 0; t < LINEAR_THREADS; t++) {
            history_state     next = at;
            const history_op *op = &jobs[t].h.ops[key][at.done[t]];
            if (at.done[t] >= jobs[t].h.count[key] || op->call > first_back || !history_step(op, at.value, &next.value)) continue;
            next.done[t]++;
            if (stack_size == capacity) abort();
            stack[stack_size++] = next;
        }
    }
    free(stack);
    free(seen);
    return found;
}
static void *noise(void *argument)          /* makes the table grow, and records move */
{
    job *j = (job *)argument;
    char key[40], value[300] = { 0 };
    for (size_t i = 0; i < j->operations; i++) {
        kv_slice k = kv_bytes(key, (size_t)sprintf(key, "noise:%d", (int)(i % 3000)));
        if (i / 3000 % 2) (void)kv_mem_delete(j->m, k); else (void)kv_mem_set(j->m, k, kv_bytes(value, 20 + i % 7 * 40));
    }
    return NULL;
}
static void linearize(uint32_t shards, uint64_t limit)
{
    kv_mem_options o;
    kv_mem     *m;
    history_job jobs[LINEAR_THREADS];
    job         noisy;
    pthread_t   threads[5];
    memset(&o, 0, sizeof o);
    memset(jobs, 0, sizeof jobs);
    o.shards = shards;
    o.memory_limit_bytes = limit;
    if (!CHECK_OK(kv_mem_open(&o, &m))) return;
    noisy.m = m;
    noisy.operations = test_scaled(30000);
    for (int i = 0; i < LINEAR_THREADS; i++) {
        jobs[i].m = m;
        jobs[i].number = i;
        jobs[i].operations = test_scaled(20000);
        if (pthread_create(&threads[i], NULL, history_run, &jobs[i]) != 0) abort();
    }
    if (pthread_create(&threads[4], NULL, noise, &noisy) != 0) abort();
    for (int i = 0; i < 5; i++) pthread_join(threads[i], NULL);
    for (int k = 0; k < HISTORY_KEYS; k++) {
        history *h = &jobs[0].h;
        CHECK(linearizable(jobs, k));
        for (size_t i = h->count[k] / 2; i < h->count[k]; i++) if (h->ops[k][i].kind == H_GET && h->ops[k][i].status == KV_OK) { h->ops[k][i].seen += 1000000; break; }
        CHECK(!linearizable(jobs, k));                                  /* the searcher can say no */
        for (int i = 0; i < LINEAR_THREADS; i++) free(jobs[i].h.ops[k]);
    }
    kv_mem_close(m);
}
TEST(mem_linear, histories_of_single_keys) { linearize(1, 0); }
TEST(mem_linear, histories_under_a_wide_limit) { linearize(2, 1 << 26); }

TEST_MAIN()
