/* win_interlocked.c
   Goal: the atomics made of Interlocked functions, for Microsoft's compiler, are right.
   Method: the tests of the platform layer, compiled by mingw-w64 with that branch forced. */
#define KVI_ATOMICS_INTERLOCKED
static char _InterlockedCompareExchange8(volatile char *p, char desired, char expected)     /* an intrinsic there; mingw-w64 has none */
{
    __atomic_compare_exchange_n(p, &expected, desired, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return expected;
}
#include "../unit/unit_platform.c"
