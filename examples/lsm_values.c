/* lsm_values.c - what to put into a value: typed scalars, packed structs, JSON text

   Typed values carry their type; a struct is packed byte by byte, so that every machine reads it; text
   is text. Keys that are numbers are written big end first, so that they sort as numbers. */
#define KV_LSM_IMPLEMENTATION
#include "../kv_lsm.h"
#include <stdio.h>

typedef struct reading { uint32_t time; int16_t celsius_x100; uint8_t humidity; } reading;
enum { READING_SIZE = 7 };

static void reading_pack(const reading *r, unsigned char out[READING_SIZE])
{
    for (int i = 0; i < 4; i++) out[i] = (unsigned char)(r->time >> (8 * i));
    out[4] = (unsigned char)((uint16_t)r->celsius_x100);
    out[5] = (unsigned char)((uint16_t)r->celsius_x100 >> 8);
    out[6] = r->humidity;
}
static bool reading_unpack(kv_slice bytes, reading *r)
{
    const unsigned char *b = (const unsigned char *)bytes.data;
    if (bytes.size != READING_SIZE) return false;
    r->time = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    r->celsius_x100 = (int16_t)(uint16_t)(b[4] | b[5] << 8);
    r->humidity = b[6];
    return true;
}
static kv_slice time_key(uint32_t time, char out[6])
{
    out[0] = 'r'; out[1] = '/';
    for (int i = 0; i < 4; i++) out[2 + i] = (char)(time >> (24 - 8 * i));
    return kv_bytes(out, 6);
}
static bool print_reading(void *user, kv_slice key, kv_slice value)
{
    reading r;
    (void)user; (void)key;
    if (reading_unpack(value, &r)) printf("  %u: %d.%02d C, %u %%\n", (unsigned)r.time, r.celsius_x100 / 100, r.celsius_x100 % 100, r.humidity);
    return true;
}

int main(void)
{
    kv_lsm   *db;
    kv_store *store;
    kv_buf    text = { 0 };
    kv_range  readings = { 0 };
    double    pi = 0;
    int64_t   boots = 0;
    if (kv_lsm_open("values", NULL, &db) < 0) return 1;
    store = kv_lsm_store(db);

    kv_set_float64(store, KV_STR("pi"), 3.25);
    kv_lsm_increment(db, KV_STR("boots"), 1, &boots);
    kv_set_string(store, KV_STR("config"), KV_STR("{\"name\":\"probe\",\"rate\":10}"));
    for (uint32_t time = 300; time > 0; time -= 100) {
        reading       r = { time, (int16_t)(2000 + time), 40 };
        unsigned char bytes[READING_SIZE];
        char          key[6];
        reading_pack(&r, bytes);
        kv_lsm_set(db, time_key(time, key), kv_bytes(bytes, sizeof bytes));
    }

    kv_get_float64(store, KV_STR("pi"), &pi);
    kv_get_string(store, KV_STR("config"), &text);
    printf("pi %.2f, boots %d, config %.*s\n", pi, (int)boots, (int)text.size, (const char *)text.data);
    printf("config as a number: %s\n", kv_status_text(kv_get_int64(store, KV_STR("config"), &boots)));
    readings.prefix = KV_STR("r/");
    printf("readings, in the order of time:\n");
    kv_lsm_scan(db, &readings, print_reading, NULL);
    kv_buf_free(&text);
    return kv_lsm_close(db) < 0;
}
