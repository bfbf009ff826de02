/* unit_mem_less.c
   Goal: what is left of kv_mem.h where parts of it were left out keeps its promises, and the parts say that they
   are missing.
   Method: the tests of unit_mem.c, compiled with the switches; what needs a part skips itself by name. */
#define KV_MEM_NO_SAVE
#define KV_MEM_NO_WATCH
#define KV_MEM_NO_TTL
#define KV_MEM_NO_LIMIT
#include "unit_mem.c"
