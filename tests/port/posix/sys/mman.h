/* mman.h - for crash tests where there is no fork: what their workers share is plain memory. */
#ifndef PORT_SYS_MMAN_H
#define PORT_SYS_MMAN_H
#include <stdlib.h>
#define PROT_READ 1
#define PROT_WRITE 2
#define MAP_SHARED 1
#define MAP_ANONYMOUS 32
#define MAP_FAILED ((void *)-1)
#define mmap(address, size, protection, flags, fd, offset) calloc(1, (size) + 0 * ((protection) + (flags) + (fd) + (offset)))
#define munmap(address, size) free(address)
#endif
