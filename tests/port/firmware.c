/* firmware.c - the board under the firmware tests: fixed memory for the library, and faults that end
   the run instead of hanging it. The test kit itself may use malloc and printf; they are picolibc's. */
#define KV_NO_THREADS
#define KV_NO_MALLOC
#define KV_NO_STDIO
#define KV_NO_FILES
#define KV_STATIC
#define KV_CORE_IMPLEMENTATION
#include "../../kv.h"
#include "firmware.h"
#include <stdio.h>
#include <stdlib.h>

#ifndef FIRMWARE_MEMORY
#define FIRMWARE_MEMORY (6u << 20)      /* bytes for all objects of the library together */
#endif

static unsigned char memory[FIRMWARE_MEMORY];
static kv_arena      arena;
static kv_allocator  fixed;

void *firmware_resize(void *block, size_t old_size, size_t new_size)
{
    if (!fixed.resize) fixed = kv_arena_init(&arena, memory, sizeof memory);
    return fixed.resize(fixed.user, block, old_size, new_size);
}

#if defined(__ARM_ARCH_6M__)
/* A Cortex-M0 faults on every unaligned access; the larger core that the tests run on does so too once
   this bit is set (ARMv7-M manual, B3.2.8: CCR.UNALIGN_TRP). */
__attribute__((constructor(101))) static void trap_unaligned(void)
{
    *(volatile uint32_t *)0xE000ED14u |= 8u;
}
/* The test kit counts with atomics, which this core has not; there is one thread. (That the library
   needs none of these is what test_symbols.sh shows.) */
uint32_t firmware_fetch_add(uint32_t *p, uint32_t v, int order) __asm__("__atomic_fetch_add_4");
uint32_t firmware_fetch_add(uint32_t *p, uint32_t v, int order) { uint32_t old = *p; (void)order; *p = old + v; return old; }
uint32_t firmware_fetch_sub(uint32_t *p, uint32_t v, int order) __asm__("__atomic_fetch_sub_4");
uint32_t firmware_fetch_sub(uint32_t *p, uint32_t v, int order) { uint32_t old = *p; (void)order; *p = old - v; return old; }
bool firmware_compare_exchange(uint32_t *p, uint32_t *expected, uint32_t desired, int good, int bad) __asm__("__atomic_compare_exchange_4");
bool firmware_compare_exchange(uint32_t *p, uint32_t *expected, uint32_t desired, int good, int bad)
{
    (void)good; (void)bad;
    if (*p == *expected) { *p = desired; return true; }
    *expected = *p;
    return false;
}
uint32_t firmware_load(const uint32_t *p, int order) __asm__("__atomic_load_4");
uint32_t firmware_load(const uint32_t *p, int order) { (void)order; return *p; }
#endif
#if defined(__arm__)
void arm_hardfault_isr(void);
void arm_hardfault_isr(void)
{
    printf("FAIL hard fault\n");
    _Exit(3);
}
void arm_usagefault_isr(void);
void arm_usagefault_isr(void) { arm_hardfault_isr(); }
void arm_busfault_isr(void);
void arm_busfault_isr(void) { arm_hardfault_isr(); }
#endif
