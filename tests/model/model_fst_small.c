/* model_fst_small.c
   Goal: what kv_fst.h does to save code (-Os) gives the same answers.
   Method: model_fst.c, with that way chosen. */
#define KVI_SMALL 1
#include "model_fst.c"
