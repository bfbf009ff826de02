/* model_fst_small.c
   Goal: what kv_fst.h does to save code (-Os) gives the same answers.
   Method: model_fst.c, with that way chosen, and less of it: it is slower. */
#define KVI_SMALL 1
#ifndef TEST_SCALE
#define TEST_SCALE 0.3
#endif
#include "model_fst.c"
