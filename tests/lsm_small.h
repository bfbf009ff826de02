/* lsm_small.h - the options of a store that is small in everything, so that few entries make many tables

   Include kv_lsm.h first. One block is a few entries, one table a few blocks, and three levels come soon;
   nothing happens behind the test's back. A test changes what it is about. */
#ifndef LSM_SMALL_H
#define LSM_SMALL_H

static kv_lsm_options lsm_small(const kv_io *io, char *error_text, size_t error_text_size)     /* io NULL: real files */
{
    kv_lsm_options o;
    memset(&o, 0, sizeof o);
    o.memtable_bytes = 8192;
    o.block_bytes = 512;
    o.table_bytes = 4096;
    o.l1_bytes = 16384;
    o.level_ratio = 3;
    o.no_background = true;
    o.io = io;
    o.error_text = error_text;
    o.error_text_size = error_text_size;
    return o;
}

#endif
