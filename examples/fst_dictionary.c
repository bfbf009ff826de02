/* fst_dictionary.c - a dictionary that forgives: exact, fuzzy and pattern search in a frozen map
   A frozen map holds words in a few bytes each, in order, and can be searched by an automaton: here by edit
   distance, by a regular expression, and by the letters that somebody typed in a hurry. */
#define KV_FST_IMPLEMENTATION
#include "../kv_fst.h"
#include <stdio.h>

static kv_status keep(void *user, const void *data, size_t size) { return kv_buf_append((kv_buf *)user, kv_bytes(data, size)); }

static bool print(void *user, kv_slice word, kv_slice value)
{
    (void)user; (void)value;
    printf(" %.*s", (int)word.size, (const char *)word.data);
    return true;
}
static void search(kv_fst *words, const char *title, kv_automaton *a)
{
    printf("%-22s:", title);
    kv_fst_search(words, a, NULL, print, NULL);
    printf("\n");
    kv_automaton_free(a);
}

int main(void)
{
    static const char *const words[] = { "caf\xC3\xA9", "carrot", "cat", "catalogue", "category", "chart", "coat", "concat", "cot", "cut", "goat", "kart", "kat" };
    kv_buf          bytes = { 0 };
    kv_fst_builder *b;
    kv_fst         *f;
    kv_automaton    a;
    uint64_t        rank;

    if (kv_fst_build_begin(NULL, keep, &bytes, &b) < 0) return 1;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) kv_fst_add(b, kv_cstr(words[i]), 0);
    if (kv_fst_build_finish(b) < 0) return 1;       /* the first failure of all the adds */
    if (kv_fst_open_memory(NULL, kv_buf_slice(&bytes), &f) < 0) return 1;

    if (kv_fst_rank(f, KV_STR("category"), &rank) == KV_OK) printf("category is word %u of %u\n", (unsigned)rank, (unsigned)kv_fst_count(f));
    if (kv_automaton_levenshtein(KV_STR("cat"), 1, &a) == KV_OK) search(f, "one edit from cat", &a);
    if (kv_automaton_levenshtein(KV_STR("cafe"), 1, &a) == KV_OK) search(f, "one edit from cafe", &a);
    if (kv_automaton_subsequence(KV_STR("ctg"), &a) == KV_OK) search(f, "c..t..g.. typed", &a);
    if (kv_automaton_regex(KV_STR("(c|k)[aou]t|.*log.*"), &a) == KV_OK) search(f, "(c|k)[aou]t|.*log.*", &a);

    kv_fst_close(f);
    kv_buf_free(&bytes);
    return 0;
}
