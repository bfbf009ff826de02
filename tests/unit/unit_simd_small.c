/* unit_simd_small.c
   Goal: the short hash of kv_simd.h (-Os) is XXH3, too.
   Method: unit_simd.c, with that way chosen. */
#define KVI_SMALL 1
#include "unit_simd.c"
