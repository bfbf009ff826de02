/* wait.h - for crash tests where there is no fork: the parent does the work of each child in turn. */
#ifndef PORT_SYS_WAIT_H
#define PORT_SYS_WAIT_H
#include <unistd.h>
#define fork() 0
#define _exit(status) ((void)(status))
#define alarm(seconds) ((void)(seconds))
#define wait(status) (*(status) = 0, -1)
#define WIFEXITED(status) ((status) == 0)
#define WEXITSTATUS(status) (status)
#endif
