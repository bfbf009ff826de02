/* lsm_less.h - every part of kv_lsm.h that can be left out, left out: before kv_lsm.h, with its implementation */
#ifndef LSM_LESS_H
#define LSM_LESS_H

#define KV_LSM_NO_REPAIR
#define KV_LSM_NO_INGEST
#define KV_LSM_NO_CHECKPOINT
#define KV_LSM_NO_RESUME
#define KV_LSM_NO_STATS
#define KV_LSM_NO_CACHE
#define KV_LSM_NO_FILTER
#define KV_LSM_NO_TEXT

#endif
