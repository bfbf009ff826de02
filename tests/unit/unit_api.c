/* unit_api.c
   Goal: the public names keep their signatures, struct members and constants; programs are compiled
   against them.
   Method: each function is assigned to a pointer of its documented type and each member is written
   by its name; what does not fit does not compile. Then the constants are checked by value. */
#define KV_IMPLEMENTATION
#include "../../kv.h"
#include "../../kv_simd.h"
#include "../../kv_mem.h"
#include "../../kv_art.h"
#include "../../kv_fst.h"
#include "../../kv_compress.h"
#include "../../kv_lsm.h"
#include "../kv_test.h"

#if defined(__GNUC__) && !defined(__cplusplus)
#pragma GCC diagnostic error "-Wincompatible-pointer-types"
#endif
#define SAME(type, name) do { __typeof__(type) pointer = name; CHECK(pointer != NULL); } while (0)

typedef kv_status get_fn(kv_store *, kv_slice, kv_buf *);
typedef kv_status set_fn(kv_store *, kv_slice, kv_slice);
typedef kv_status key_fn(kv_store *, kv_slice);
typedef kv_status limit_fn(kv_slice);

TEST(api, kv)
{
    SAME(const char *(*)(kv_status), kv_status_text);
    SAME(kv_slice (*)(const void *, size_t), kv_bytes);
    SAME(kv_slice (*)(const char *), kv_cstr);
    SAME(int (*)(kv_slice, kv_slice), kv_compare);
    SAME(bool (*)(kv_slice, kv_slice), kv_equal);
    SAME(bool (*)(kv_slice, kv_slice), kv_has_prefix);
    SAME(limit_fn *, kv_check_key);
    SAME(limit_fn *, kv_check_value);
    SAME(kv_allocator (*)(kv_arena *, void *, size_t), kv_arena_init);
    SAME(kv_buf (*)(void *, size_t), kv_buf_fixed);
    SAME(kv_status (*)(kv_buf *, size_t), kv_buf_reserve);
    SAME(kv_status (*)(kv_buf *, kv_slice), kv_buf_assign);
    SAME(kv_status (*)(kv_buf *, kv_slice), kv_buf_append);
    SAME(kv_slice (*)(const kv_buf *), kv_buf_slice);
    SAME(void (*)(kv_buf *), kv_buf_free);
    SAME(get_fn *, kv_get);
    SAME(set_fn *, kv_set);
    SAME(key_fn *, kv_delete);
    SAME(key_fn *, kv_exists);
    SAME(kv_status (*)(kv_store *, kv_slice, kv_visit_fn, void *), kv_view);
    SAME(kv_status (*)(kv_store *, const kv_slice *, size_t, kv_buf *, kv_status *), kv_batch_get);
    SAME(kv_status (*)(kv_store *, const kv_pair *, size_t), kv_batch_set);
    SAME(kv_status (*)(kv_store *, const kv_slice *, size_t), kv_batch_delete);
    SAME(kv_status (*)(kv_store *, const kv_range *, kv_visit_fn, void *), kv_scan);
    SAME(kv_status (*)(kv_store *, const kv_range *, uint64_t *), kv_count);
    SAME(bool (*)(const kv_range *, kv_slice), kv_range_has);
    SAME(kv_status (*)(kv_iter *, const kv_range *), kv_iter_start);
    SAME(kv_status (*)(kv_store *, const kv_range *, kv_iter **), kv_iter_open);
    SAME(bool (*)(const kv_iter *), kv_iter_valid);
    SAME(void (*)(kv_iter *), kv_iter_next);
    SAME(void (*)(kv_iter *), kv_iter_prev);
    SAME(void (*)(kv_iter *, kv_slice), kv_iter_seek);
    SAME(void (*)(kv_iter *), kv_iter_first);
    SAME(void (*)(kv_iter *), kv_iter_last);
    SAME(kv_slice (*)(const kv_iter *), kv_iter_key);
    SAME(kv_slice (*)(const kv_iter *), kv_iter_value);
    SAME(kv_status (*)(const kv_iter *), kv_iter_status);
    SAME(void (*)(kv_iter *), kv_iter_close);
    SAME(kv_status (*)(kv_store *), kv_flush);
    SAME(kv_status (*)(kv_store *), kv_close);
    SAME(kv_status (*)(kv_store *, kv_stats *), kv_store_stats);
    SAME(const char *(*)(const kv_store *), kv_store_name);
    SAME(const char *(*)(const kv_store *), kv_last_error);
    SAME(uint32_t (*)(const kv_store *), kv_store_caps);
    SAME(const kv_io *(*)(void), kv_io_default);
    SAME(kv_status (*)(const kv_value *, kv_buf *), kv_value_encode);
    SAME(kv_status (*)(kv_slice, kv_value *), kv_value_decode);
    SAME(kv_status (*)(kv_store *, kv_slice, const kv_value *), kv_set_value);
    SAME(kv_status (*)(kv_store *, kv_slice, kv_value *, kv_buf *), kv_get_value);
    SAME(kv_status (*)(kv_store *, kv_slice, int64_t), kv_set_int64);
    SAME(kv_status (*)(kv_store *, kv_slice, int64_t *), kv_get_int64);
    SAME(kv_status (*)(kv_store *, kv_slice, double), kv_set_float64);
    SAME(kv_status (*)(kv_store *, kv_slice, double *), kv_get_float64);
    SAME(kv_status (*)(kv_store *, kv_slice, bool), kv_set_bool);
    SAME(kv_status (*)(kv_store *, kv_slice, bool *), kv_get_bool);
    SAME(set_fn *, kv_set_string);
    SAME(get_fn *, kv_get_string);
    SAME(set_fn *, kv_set_bytes);
    SAME(get_fn *, kv_get_bytes);
}

TEST(api, kv_members_and_constants)
{
    kv_buf       b = { NULL, 1, 2, { NULL, NULL }, true };
    kv_range     r = { { "a", 1 }, { "b", 1 }, { "c", 1 }, 7, true };
    kv_stats     s = { 1, 2, 3, 4, 5 };
    kv_value     v;
    kv_allocator a = { NULL, NULL };
    v.type = KV_INT64;
    v.as.int64 = 1;
    v.as.float64 = 1.5;
    v.as.boolean = true;
    v.as.bytes = KV_STR("x");
    CHECK(b.size == 1 && b.capacity == 2 && b.fixed && !a.resize && !a.user && !b.allocator.user && v.type == KV_INT64);
    CHECK(r.limit == 7 && r.reverse && r.prefix.size == 1 && r.from.size == 1 && r.to.size == 1);
    CHECK(s.keys == 1 && s.key_bytes == 2 && s.value_bytes == 3 && s.memory_bytes == 4 && s.disk_bytes == 5);
    CHECK(KV_OK == 0 && KV_NOT_FOUND == 1 && KV_EXISTS == 2 && KV_END == 3);
    CHECK(KV_ERR_INVALID == -1 && KV_ERR_NO_MEMORY == -2 && KV_ERR_IO == -3 && KV_ERR_CORRUPT == -4 && KV_ERR_NO_SPACE == -5);
    CHECK(KV_ERR_TOO_LARGE == -6 && KV_ERR_BUSY == -7 && KV_ERR_READ_ONLY == -8 && KV_ERR_UNSUPPORTED == -9);
    CHECK(KV_ERR_VERSION == -10 && KV_ERR_ORDER == -11 && KV_ERR_WRONG_TYPE == -12 && KV_ERR_CONFLICT == -13);
    CHECK(KV_INT64 == 1 && KV_FLOAT64 == 2 && KV_BOOL == 3 && KV_STRING == 4 && KV_BYTES == 5);
    CHECK(KV_KEY_SIZE_MAX == 65535 && KV_VALUE_SIZE_MAX == (1u << 30) - 1 && KV_VERSION >= 100);
    CHECK((KV_CAP_ORDERED | KV_CAP_DURABLE | KV_CAP_THREADS | KV_CAP_WRITE) == 15);
    CHECK(!strcmp(kv_status_text(KV_NOT_FOUND), "key not found"));
}

TEST(api, simd)
{
    SAME(uint64_t (*)(kv_slice, uint64_t), kv_hash);
    SAME(void (*)(const kv_slice *, size_t, uint64_t, uint64_t *), kv_hash_batch);
    SAME(uint32_t (*)(uint64_t, uint32_t), kv_shard);
    SAME(size_t (*)(kv_slice, kv_slice), kv_common_prefix);
    SAME(const char *(*)(void), kv_simd_name);
}

TEST(api, mem)
{
    kv_mem_options o;
    kv_mem_stats_t s;
    memset(&o, 0, sizeof o);
    memset(&s, 0, sizeof s);
    CHECK(!o.allocator.resize && !o.capacity && !o.shards && !o.seed && !o.memory_limit_bytes && !o.now_ms && !o.now_user && !o.single_thread);
    CHECK(s.entries + s.capacity + s.memory_bytes + s.hits + s.misses + s.expired + s.evicted == 0);
    SAME(kv_status (*)(const kv_mem_options *, kv_mem **), kv_mem_open);
    SAME(void (*)(kv_mem *), kv_mem_close);
    SAME(kv_store *(*)(kv_mem *), kv_mem_store);
    SAME(kv_status (*)(kv_mem *, kv_slice, kv_buf *), kv_mem_get);
    SAME(kv_status (*)(kv_mem *, kv_slice, kv_slice), kv_mem_set);
    SAME(kv_status (*)(kv_mem *, kv_slice), kv_mem_delete);
    SAME(kv_status (*)(kv_mem *, kv_slice), kv_mem_exists);
    SAME(kv_status (*)(kv_mem *, kv_slice, kv_visit_fn, void *), kv_mem_view);
    SAME(kv_status (*)(kv_mem *, const kv_slice *, size_t, kv_buf *, kv_status *), kv_mem_batch_get);
    SAME(kv_status (*)(kv_mem *, const kv_pair *, size_t), kv_mem_batch_set);
    SAME(kv_status (*)(kv_mem *, const kv_slice *, size_t), kv_mem_batch_delete);
    SAME(kv_status (*)(kv_mem *, const kv_range *, kv_visit_fn, void *), kv_mem_scan);
    SAME(kv_status (*)(kv_mem *, kv_slice, kv_slice *), kv_mem_peek);
    SAME(kv_status (*)(kv_mem *, kv_slice, kv_slice), kv_mem_insert);
    SAME(kv_status (*)(kv_mem *, kv_slice, kv_slice, kv_slice), kv_mem_compare_and_set);
    SAME(kv_status (*)(kv_mem *, kv_slice, int64_t, int64_t *), kv_mem_increment);
    SAME(kv_status (*)(kv_mem *, kv_slice, kv_update_fn, void *), kv_mem_update);
    SAME(kv_status (*)(kv_mem *, kv_slice, kv_slice, uint64_t), kv_mem_set_ttl);
    SAME(kv_status (*)(kv_mem *, kv_slice, uint64_t), kv_mem_expire);
    SAME(kv_status (*)(kv_mem *, kv_slice, uint64_t *), kv_mem_ttl);
    SAME(size_t (*)(kv_mem *, size_t), kv_mem_sweep);
    SAME(kv_status (*)(kv_mem *, kv_slice, kv_watch_fn, void *, kv_watch **), kv_mem_subscribe);
    SAME(void (*)(kv_watch *), kv_mem_unsubscribe);
    SAME(uint64_t (*)(kv_mem *), kv_mem_count);
    SAME(void (*)(kv_mem *), kv_mem_clear);
    SAME(kv_status (*)(kv_mem *, const char *), kv_mem_save);
    SAME(kv_status (*)(kv_mem *, const char *), kv_mem_load);
    SAME(kv_status (*)(kv_mem *, kv_mem_stats_t *), kv_mem_stats);
    CHECK(KV_EVENT_SET == 1 && KV_EVENT_DELETE == 2 && KV_EVENT_EXPIRE == 3 && KV_EVENT_EVICT == 4);
}

TEST(api, art)
{
    kv_art_options o;
    kv_art_stats_t s;
    memset(&o, 0, sizeof o);
    memset(&s, 0, sizeof s);
    CHECK(!o.allocator.resize && !o.concurrent && s.keys + s.memory_bytes + s.free_bytes + s.height == 0);
    SAME(kv_status (*)(const kv_art_options *, kv_art **), kv_art_open);
    SAME(void (*)(kv_art *), kv_art_close);
    SAME(kv_store *(*)(kv_art *), kv_art_store);
    SAME(kv_status (*)(kv_art *, kv_slice, kv_slice *), kv_art_get);
    SAME(kv_status (*)(kv_art *, kv_slice, kv_visit_fn, void *), kv_art_view);
    SAME(kv_status (*)(kv_art *, kv_slice), kv_art_exists);
    SAME(kv_status (*)(kv_art *, const kv_slice *, size_t, kv_buf *, kv_status *), kv_art_batch_get);
    SAME(kv_status (*)(kv_art *, const kv_pair *, size_t), kv_art_batch_set);
    SAME(kv_status (*)(kv_art *, const kv_slice *, size_t), kv_art_batch_delete);
    SAME(kv_status (*)(kv_art *, kv_slice, kv_slice), kv_art_set);
    SAME(kv_status (*)(kv_art *, kv_slice, kv_slice), kv_art_insert);
    SAME(kv_status (*)(kv_art *, kv_slice, uint64_t), kv_art_set_u64);
    SAME(kv_status (*)(kv_art *, kv_slice, uint64_t *), kv_art_get_u64);
    SAME(kv_status (*)(kv_art *, kv_slice), kv_art_delete);
    SAME(kv_status (*)(kv_art *, kv_pair *), kv_art_min);
    SAME(kv_status (*)(kv_art *, kv_pair *), kv_art_max);
    SAME(kv_status (*)(kv_art *, kv_slice, kv_pair *), kv_art_longest_prefix);
    SAME(kv_status (*)(kv_art *, const kv_range *, kv_visit_fn, void *), kv_art_scan);
    SAME(kv_status (*)(kv_art *, const kv_range *, kv_iter **), kv_art_iter_open);
    SAME(kv_status (*)(kv_art *, const kv_range *, uint64_t *), kv_art_delete_range);
    SAME(uint64_t (*)(const kv_art *), kv_art_count);
    SAME(kv_status (*)(kv_art *, const kv_range *, uint64_t *), kv_art_count_range);
    SAME(void (*)(kv_art *), kv_art_clear);
    SAME(kv_status (*)(const kv_art *), kv_art_check);
    SAME(kv_status (*)(const kv_art *, kv_art_stats_t *), kv_art_stats);
}

TEST(api, fst)
{
    kv_fst_build_options b;
    kv_fst_options       o;
    kv_fst_stats_t       s;
    memset(&b, 0, sizeof b);
    memset(&o, 0, sizeof o);
    memset(&s, 0, sizeof s);
    b.values = KV_FST_SET;
    CHECK(!b.allocator.resize && b.values != KV_FST_U64 && b.values != KV_FST_BYTES && !b.memory_limit_bytes && !o.allocator.resize && !o.skip_verify);
    CHECK(s.keys + s.size_bytes + s.states + s.arcs == 0);
    SAME(kv_status (*)(const kv_fst_build_options *, kv_write_fn, void *, kv_fst_builder **), kv_fst_build_begin);
    SAME(kv_status (*)(const kv_fst_build_options *, const char *, kv_fst_builder **), kv_fst_build_begin_file);
    SAME(kv_status (*)(kv_fst_builder *, kv_slice, uint64_t), kv_fst_add);
    SAME(kv_status (*)(kv_fst_builder *, kv_slice, kv_slice), kv_fst_add_bytes);
    SAME(kv_status (*)(kv_fst_builder *), kv_fst_build_finish);
    SAME(void (*)(kv_fst_builder *), kv_fst_build_abandon);
    SAME(const char *(*)(const kv_fst_builder *), kv_fst_build_error);
    SAME(kv_status (*)(const kv_fst_options *, kv_slice, kv_fst **), kv_fst_open_memory);
    SAME(kv_status (*)(const kv_fst_options *, const char *, kv_fst **), kv_fst_open_file);
    SAME(void (*)(kv_fst *), kv_fst_close);
    SAME(kv_store *(*)(kv_fst *), kv_fst_store);
    SAME(kv_status (*)(kv_fst *, kv_slice, uint64_t *), kv_fst_get);
    SAME(kv_status (*)(kv_fst *, kv_slice, kv_buf *), kv_fst_get_bytes);
    SAME(kv_status (*)(kv_fst *, kv_slice, kv_visit_fn, void *), kv_fst_view);
    SAME(kv_status (*)(kv_fst *, kv_slice), kv_fst_exists);
    SAME(kv_fst_values (*)(const kv_fst *), kv_fst_values_of);
    SAME(kv_status (*)(kv_fst *, kv_slice, uint64_t *), kv_fst_rank);
    SAME(kv_status (*)(kv_fst *, uint64_t, kv_buf *), kv_fst_select);
    SAME(kv_status (*)(kv_fst *, const kv_range *, kv_visit_fn, void *), kv_fst_scan);
    SAME(kv_status (*)(kv_fst *, const kv_range *, kv_iter **), kv_fst_iter_open);
    SAME(kv_status (*)(kv_fst *, const kv_automaton *, const kv_range *, kv_visit_fn, void *), kv_fst_search);
    SAME(kv_status (*)(kv_slice, uint32_t, kv_automaton *), kv_automaton_levenshtein);
    SAME(kv_status (*)(kv_slice, kv_automaton *), kv_automaton_subsequence);
    SAME(kv_status (*)(kv_slice, kv_automaton *), kv_automaton_regex);
    SAME(void (*)(kv_automaton *), kv_automaton_free);
    SAME(kv_status (*)(const kv_allocator *, kv_automaton_kind, kv_slice, uint32_t, kv_automaton *), kv_automaton_make);
    SAME(kv_status (*)(kv_fst *const *, size_t, kv_fst_merge_fn, void *, kv_fst_builder *), kv_fst_merge);
    SAME(kv_status (*)(kv_fst *const *, size_t, kv_fst_merge_fn, void *, kv_fst_builder *), kv_fst_intersect);
    SAME(kv_status (*)(kv_fst *const *, size_t, kv_fst_merge_fn, void *, kv_fst_builder *), kv_fst_subtract);
    SAME(kv_status (*)(kv_fst *const *, size_t, kv_fst_merge_fn, void *, kv_fst_builder *), kv_fst_symmetric);
    SAME(kv_status (*)(kv_fst *), kv_fst_check);
    SAME(kv_status (*)(kv_fst *, kv_fst_stats_t *), kv_fst_stats);
    SAME(kv_status (*)(kv_fst *, kv_write_fn, void *), kv_fst_dot);
    SAME(uint64_t (*)(const kv_fst *), kv_fst_count);
}

TEST(api, compress)
{
    kv_compress_options o;
    kv_compress_stats   s;
    memset(&o, 0, sizeof o);
    memset(&s, 0, sizeof s);
    CHECK(!o.allocator.resize && o.codec == KV_CODEC_DEFAULT && !o.level && o.filter == KV_FILTER_NONE && !o.element_size);
    CHECK(!o.dictionary.data && !o.size_min && !o.size_max && s.raw_bytes + s.packed_bytes + s.values + s.values_raw == 0);
    CHECK(KV_CODEC_NONE == 1 && KV_CODEC_LZ4 == 2 && KV_CODEC_ZSTD == 3);
    CHECK(KV_FILTER_SHUFFLE == 1 && KV_FILTER_BITSHUFFLE == 2 && KV_FILTER_BF16 == 3 && KV_FILTER_FP16 == 4 && KV_FILTER_FP32 == 5 && KV_FILTER_AUTO == 6);
    CHECK(!strcmp(kv_codec_name(KV_CODEC_LZ4), "lz4") && !strcmp(kv_codec_name(KV_CODEC_ZSTD), "zstd") && !strcmp(kv_codec_name(KV_CODEC_NONE), "none"));
    SAME(kv_status (*)(const kv_compress_options *, kv_compressor **), kv_compressor_open);
    SAME(void (*)(kv_compressor *), kv_compressor_close);
    SAME(const kv_compress_options *(*)(const kv_compressor *), kv_compressor_options);
    SAME(const char *(*)(const kv_compressor *), kv_compressor_last_error);
    SAME(kv_status (*)(kv_compressor *, kv_slice, kv_buf *), kv_compress);
    SAME(kv_status (*)(kv_compressor *, kv_slice, kv_buf *), kv_decompress);
    SAME(bool (*)(kv_codec), kv_codec_supported);
    SAME(const char *(*)(kv_codec), kv_codec_name);
    SAME(size_t (*)(kv_codec, size_t), kv_codec_bound);
    SAME(kv_status (*)(kv_compressor *, kv_slice, void *, size_t, size_t *), kv_codec_pack);
    SAME(kv_status (*)(kv_compressor *, kv_codec, kv_slice, void *, size_t), kv_codec_unpack);
    SAME(kv_status (*)(const kv_slice *, size_t, size_t, kv_buf *), kv_compress_train);
    SAME(kv_status (*)(kv_store *, const kv_compress_options *, kv_compressed **), kv_compressed_open);
    SAME(void (*)(kv_compressed *), kv_compressed_close);
    SAME(kv_store *(*)(kv_compressed *), kv_compressed_store);
    SAME(kv_store *(*)(kv_compressed *), kv_compressed_inner);
    SAME(kv_compressor *(*)(kv_compressed *), kv_compressed_compressor);
    SAME(kv_codec (*)(kv_compressed *), kv_compressed_codec);
    SAME(kv_status (*)(kv_compressed *, kv_compress_stats *), kv_compressed_stats);
}

TEST(api, lsm)
{
    kv_lsm_options o = kv_lsm_default();
    kv_lsm_stats_t s;
    memset(&s, 0, sizeof s);
    o.allocator.resize = NULL;
    o.memtable_bytes = o.cache_bytes = o.error_text_size = 0;
    o.block_bytes = o.l0_trigger = o.level_ratio = 0;
    o.codec = KV_CODEC_NONE;
    o.level = 0;
    o.bloom_fp_rate = KV_NO_BLOOM;
    o.sync = KV_SYNC_BATCH;
    o.skip_verify = o.read_only = o.create_only = o.must_exist = o.no_background = false;
    o.l1_bytes = 0;
    o.style = KV_LSM_TIERED;
    o.io = NULL;
    o.log = NULL;
    o.log_user = NULL;
    o.error_text = NULL;
    CHECK(KV_LSM_LEVELED == 0 && KV_LSM_TIERED == 1 && KV_NO_BLOOM < -0.5 && o.sync == 2);
    CHECK(KV_SYNC_DEFAULT == 0 && KV_SYNC_NONE == 1 && KV_SYNC_WRITE == 3);
    CHECK(s.memtable_bytes + s.memtable_keys + s.cache_hits + s.cache_misses + s.stall_ms == 0 && s.write_amplification == 0);
    CHECK(s.levels[6].tables + s.levels[6].keys + s.levels[6].bytes + s.levels[6].read_bytes + s.levels[6].written_bytes == 0);
    SAME(kv_lsm_options (*)(void), kv_lsm_default);
    SAME(kv_lsm_options (*)(void), kv_lsm_low_memory);
    SAME(kv_lsm_options (*)(void), kv_lsm_high_performance);
    SAME(kv_status (*)(const char *, const kv_lsm_options *, kv_lsm **), kv_lsm_open);
    SAME(kv_status (*)(kv_lsm *), kv_lsm_close);
    SAME(kv_store *(*)(kv_lsm *), kv_lsm_store);
    SAME(const kv_lsm_options *(*)(const kv_lsm *), kv_lsm_get_options);
    SAME(kv_status (*)(kv_lsm *, kv_slice, kv_buf *), kv_lsm_get);
    SAME(kv_status (*)(kv_lsm *, kv_slice, kv_slice), kv_lsm_set);
    SAME(kv_status (*)(kv_lsm *, kv_slice), kv_lsm_delete);
    SAME(kv_status (*)(kv_lsm *, kv_slice), kv_lsm_exists);
    SAME(kv_status (*)(kv_lsm *, kv_slice, kv_visit_fn, void *), kv_lsm_view);
    SAME(kv_status (*)(kv_lsm *, const kv_slice *, size_t, kv_buf *, kv_status *), kv_lsm_batch_get);
    SAME(kv_status (*)(kv_lsm *, const kv_pair *, size_t), kv_lsm_batch_set);
    SAME(kv_status (*)(kv_lsm *, const kv_slice *, size_t), kv_lsm_batch_delete);
    SAME(kv_status (*)(kv_lsm *, const kv_range *, kv_visit_fn, void *), kv_lsm_scan);
    SAME(kv_status (*)(kv_lsm *, const kv_range *, uint64_t *), kv_lsm_count);
    SAME(kv_status (*)(kv_lsm *, kv_slice, kv_slice), kv_lsm_insert);
    SAME(kv_status (*)(kv_lsm *, kv_slice, kv_slice, kv_slice), kv_lsm_compare_and_set);
    SAME(kv_status (*)(kv_lsm *, kv_slice, int64_t, int64_t *), kv_lsm_increment);
    SAME(kv_status (*)(kv_lsm *, const kv_range *, uint64_t *), kv_lsm_delete_range);
    SAME(kv_status (*)(const kv_allocator *, kv_lsm_batch **), kv_lsm_batch_open);
    SAME(kv_status (*)(kv_lsm_batch *, kv_slice, kv_slice), kv_lsm_batch_put);
    SAME(kv_status (*)(kv_lsm_batch *, kv_slice), kv_lsm_batch_remove);
    SAME(size_t (*)(const kv_lsm_batch *), kv_lsm_batch_count);
    SAME(void (*)(kv_lsm_batch *), kv_lsm_batch_clear);
    SAME(void (*)(kv_lsm_batch *), kv_lsm_batch_close);
    SAME(kv_status (*)(kv_lsm *, const kv_lsm_batch *), kv_lsm_write);
    SAME(kv_status (*)(kv_lsm *, kv_snapshot **), kv_lsm_snapshot);
    SAME(kv_status (*)(kv_lsm *, const kv_snapshot *, kv_slice, kv_buf *), kv_lsm_get_at);
    SAME(void (*)(kv_lsm *, kv_snapshot *), kv_lsm_snapshot_release);
    SAME(kv_status (*)(kv_lsm *, const kv_snapshot *, const kv_range *, kv_iter **), kv_lsm_iter_open);
    SAME(kv_status (*)(kv_lsm *), kv_lsm_sync);
    SAME(kv_status (*)(kv_lsm *), kv_lsm_flush);
    SAME(kv_status (*)(kv_lsm *, const kv_range *, kv_progress_fn, void *), kv_lsm_compact);
    SAME(kv_status (*)(kv_lsm *), kv_lsm_step);
    SAME(kv_status (*)(kv_lsm *), kv_lsm_resume);
    SAME(kv_status (*)(kv_lsm *, const char *), kv_lsm_checkpoint);
    SAME(kv_status (*)(kv_lsm *, kv_iter *), kv_lsm_ingest);
    SAME(kv_status (*)(const char *, const kv_lsm_options *, kv_check_fn, void *), kv_lsm_check);
    SAME(kv_status (*)(const char *, const kv_lsm_options *, kv_check_fn, void *), kv_lsm_repair);
    SAME(kv_status (*)(kv_lsm *, kv_slice, kv_lsm_location *), kv_lsm_locate);
    SAME(kv_status (*)(kv_lsm *, kv_lsm_stats_t *), kv_lsm_stats);
}

TEST_MAIN()
