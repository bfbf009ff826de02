/* fuzz_main.h - what every fuzz target includes

   A target is a file tests/fuzz/fuzz_X.c of this form; `make fuzz` finds it by its name:

       #define KV_X_IMPLEMENTATION
       #include "../../kv_x.h"
       #include "fuzz_main.h"

       int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
       {
           FUZZ_CHECK(kv_x_decode(data, size) != MISTAKE);
           return 0;
       }

   Inputs that once found something, or that lead into deep code, lie in tests/fuzz/corpus/X/.
   Built by clang with -fsanitize=fuzzer (and -DKV_LIBFUZZER) this header adds no main: libFuzzer has
   one. Built otherwise it has a main of its own:

       fuzz_X FILE-OR-DIRECTORY...   runs those inputs, then, where FUZZ_SECONDS is set, random
                                     changes of them and random bytes for so long
       KV_TEST_SEED=n                the seed of the random ones (it is printed)
       FUZZ_FOUND=directory          where the input that was running is left behind after a crash

   To read an input as a script of operations, take from it with fuzz_take and fuzz_take_slice: they
   give zeros once it is used up. */
#ifndef KV_FUZZ_MAIN_H
#define KV_FUZZ_MAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C"
#endif
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold for every input. */
#define FUZZ_CHECK(condition) \
    ((condition) ? (void)0 : (fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition), abort()))

typedef struct fuzz_input { const uint8_t *data; size_t size; } fuzz_input;

static inline uint8_t fuzz_take(fuzz_input *in)
{
    if (!in->size) return 0;
    in->size--;
    return *in->data++;
}
static inline uint64_t fuzz_take_bits(fuzz_input *in, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++) v |= (uint64_t)fuzz_take(in) << (8 * i);
    return v;
}
/* Up to `most` bytes: a length byte or two, and then the bytes themselves. */
static inline const uint8_t *fuzz_take_slice(fuzz_input *in, size_t most, size_t *size)
{
    const uint8_t *start;
    size_t wanted = most < 256 ? fuzz_take(in) : (size_t)fuzz_take_bits(in, 2);
    wanted = most == SIZE_MAX ? wanted : wanted % (most + 1);
    *size = wanted < in->size ? wanted : in->size;
    start = in->data;
    in->data += *size;
    in->size -= *size;
    return start;
}

#if !defined(KV_LIBFUZZER)
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

#define FUZZ_INPUT_MAX 65536

typedef struct fuzz_corpus { uint8_t **inputs; size_t *sizes; size_t count; } fuzz_corpus;
static fuzz_corpus fuzz_seeds;
static uint8_t     fuzz_current[FUZZ_INPUT_MAX];
static size_t      fuzz_current_size;
static char        fuzz_found_path[1200];

static inline uint64_t fuzz_random(uint64_t *state)     /* splitmix64 */
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

/* After a crash: leave the input behind, then die of the same signal. */
static void fuzz_on_crash(int number)
{
    int fd = open(fuzz_found_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd >= 0) { (void)!write(fd, fuzz_current, fuzz_current_size); close(fd); }
    signal(number, SIG_DFL);
    raise(number);
}

static void fuzz_run(const uint8_t *data, size_t size)
{
    uint8_t *exact = (uint8_t *)malloc(size ? size : 1);    /* its own block, so that a sanitizer sees every overrun */
    if (!exact) abort();
    if (size) memcpy(exact, data, size);
    fuzz_current_size = size < FUZZ_INPUT_MAX ? size : FUZZ_INPUT_MAX;
    if (exact != fuzz_current && size) memmove(fuzz_current, data, fuzz_current_size);
    (void)LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

static void fuzz_load(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0) { fprintf(stderr, "cannot read %s\n", path); exit(2); }
    if (S_ISDIR(info.st_mode)) {
        DIR           *dir = opendir(path);
        struct dirent *entry;
        char           name[1200];
        while (dir && (entry = readdir(dir)) != NULL) {
            if (entry->d_name[0] == '.') continue;
            snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
            fuzz_load(name);
        }
        if (dir) closedir(dir);
        return;
    }
    {
        FILE    *f = fopen(path, "rb");
        uint8_t *bytes = (uint8_t *)malloc((size_t)info.st_size + 1);
        size_t   size = f && bytes ? fread(bytes, 1, (size_t)info.st_size, f) : 0, n = fuzz_seeds.count;
        if (f) fclose(f);
        fuzz_seeds.inputs = (uint8_t **)realloc(fuzz_seeds.inputs, (n + 1) * sizeof *fuzz_seeds.inputs);
        fuzz_seeds.sizes = (size_t *)realloc(fuzz_seeds.sizes, (n + 1) * sizeof *fuzz_seeds.sizes);
        if (!bytes || !fuzz_seeds.inputs || !fuzz_seeds.sizes) abort();
        fuzz_seeds.inputs[n] = bytes;
        fuzz_seeds.sizes[n] = size;
        fuzz_seeds.count = n + 1;
        fuzz_run(bytes, size);
    }
}

/* A stored input with a few changes, or bytes from nothing. */
static size_t fuzz_make(uint64_t *state, uint8_t *out)
{
    size_t size, changes, i;
    if (fuzz_seeds.count && fuzz_random(state) % 4 != 0) {
        size_t n = (size_t)(fuzz_random(state) % fuzz_seeds.count);
        size = fuzz_seeds.sizes[n] < FUZZ_INPUT_MAX / 2 ? fuzz_seeds.sizes[n] : FUZZ_INPUT_MAX / 2;
        memcpy(out, fuzz_seeds.inputs[n], size);
    } else {
        uint8_t mask = fuzz_random(state) % 3 ? 0xFF : 0x0F;
        size = (size_t)(fuzz_random(state) % (fuzz_random(state) % 8 ? 64 : 4096));
        for (i = 0; i < size; i++) out[i] = (uint8_t)fuzz_random(state) & mask;
    }
    changes = (size_t)(fuzz_random(state) % 6);
    while (changes-- && size) {
        size_t at = (size_t)(fuzz_random(state) % size);
        switch (fuzz_random(state) % 6) {
        case 0: out[at] = (uint8_t)fuzz_random(state); break;
        case 1: out[at] ^= (uint8_t)(1u << fuzz_random(state) % 8); break;
        case 2: out[at] = fuzz_random(state) % 2 ? 0xFF : 0; break;
        case 3: size = at; break;
        case 4: memmove(out + at, out + at + 1, size - at - 1); size--; break;
        default: if (size < FUZZ_INPUT_MAX / 2) { memmove(out + at + 1, out + at, size - at); size++; } break;
        }
    }
    return size;
}

int main(int argc, char **argv)
{
    static uint8_t input[FUZZ_INPUT_MAX];
    const char    *seconds = getenv("FUZZ_SECONDS"), *seed = getenv("KV_TEST_SEED"), *found = getenv("FUZZ_FOUND");
    uint64_t       state = seed ? strtoull(seed, NULL, 0) : 20261121, runs = 0;
    time_t         end = time(NULL) + (seconds ? atoi(seconds) : argc > 1 ? 0 : 5);
    static const int signals[] = { SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL };
    snprintf(fuzz_found_path, sizeof fuzz_found_path, "%s/crash", found ? found : ".");
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], fuzz_on_crash);
    printf("%s: seed %llu\n", argv[0], (unsigned long long)state);
    fflush(stdout);
    for (int i = 1; i < argc; i++) if (argv[i][0] != '-') fuzz_load(argv[i]);
    while (time(NULL) < end) {
        for (int i = 0; i < 64; i++, runs++) fuzz_run(input, fuzz_make(&state, input));
    }
    printf("%s: %zu stored inputs, %llu random ones\n", argv[0], fuzz_seeds.count, (unsigned long long)runs);
    for (size_t i = 0; i < fuzz_seeds.count; i++) free(fuzz_seeds.inputs[i]);
    free(fuzz_seeds.inputs);
    free(fuzz_seeds.sizes);
    return 0;
}
#endif /* KV_LIBFUZZER */

#endif
