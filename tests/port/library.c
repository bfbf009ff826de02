/* library.c - one module as firmware compiles it, alone in its object: -DLIBRARY_MEM, _MEM_LESS, _ART, _FST,
   _FST_READER, _FST_LOOKUP, _COMPRESS, _LSM, _LSM_LESS or _SIMD. The strong symbols of the object are the module's public
   functions; what it brings along of the headers below is weak. */
#define KV_NO_THREADS
#define KV_NO_MALLOC
#define KV_NO_STDIO
#define KV_NO_FILES
#if defined(LIBRARY_SIMD)
#define KV_SIMD_IMPLEMENTATION
#include "../../kv_simd.h"
#elif defined(LIBRARY_MEM)
#define KV_MEM_IMPLEMENTATION
#include "../../kv_mem.h"
#elif defined(LIBRARY_MEM_LESS)
#define KV_MEM_NO_SAVE
#define KV_MEM_NO_WATCH
#define KV_MEM_NO_TTL
#define KV_MEM_NO_LIMIT
#define KV_MEM_IMPLEMENTATION
#include "../../kv_mem.h"
#elif defined(LIBRARY_ART)
#define KV_ART_IMPLEMENTATION
#include "../../kv_art.h"
#elif defined(LIBRARY_FST)
#define KV_FST_IMPLEMENTATION
#include "../../kv_fst.h"
#elif defined(LIBRARY_FST_LOOKUP)
#define KV_FST_LOOKUP_ONLY
#define KV_FST_IMPLEMENTATION
#include "../../kv_fst.h"
#elif defined(LIBRARY_FST_READER)
#define KV_FST_READER_ONLY
#define KV_FST_IMPLEMENTATION
#include "../../kv_fst.h"
#elif defined(LIBRARY_COMPRESS)
#define KV_COMPRESS_IMPLEMENTATION
#include "../../kv_compress.h"
#elif defined(LIBRARY_LSM)
#define KV_LSM_IMPLEMENTATION
#include "../../kv_lsm.h"
#elif defined(LIBRARY_LSM_LESS)
#include "../lsm_less.h"
#ifndef KV_NO_LZ4
#define KV_NO_LZ4
#endif
#define KV_LSM_IMPLEMENTATION
#include "../../kv_lsm.h"
#else
#error "which module? -DLIBRARY_..."
#endif
