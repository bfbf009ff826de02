/* firmware.h - what every firmware test is compiled with (gcc -include): the switches of bare metal,
   and the fixed memory of firmware.c in place of malloc. */
#ifndef KV_TEST_FIRMWARE_H
#define KV_TEST_FIRMWARE_H

#define KV_NO_THREADS
#define KV_NO_MALLOC
#define KV_NO_STDIO
#define KV_NO_FILES
#define KV_DEFAULT_RESIZE(memory, old_size, new_size) firmware_resize(memory, old_size, new_size)

#include <stddef.h>
#ifdef __cplusplus
extern "C"
#endif
void *firmware_resize(void *memory, size_t old_size, size_t new_size);

#endif
