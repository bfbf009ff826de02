/* unit_posix.c
   Goal: what kv_io promises on POSIX beyond unit_platform.c: files are private, keep off descriptors
   0 to 2, are closed on exec; links and FIFOs neither lead away nor hang; a lock is refused to another
   process, names its holder, and dies with it.
   Method: each in a directory of the run; other processes by fork. */
#define KV_CORE_IMPLEMENTATION
#include "../../kv.h"
#include "../kv_test.h"

#if KVI_OS_POSIX && !defined(__wasi__)
#include <signal.h>
#include <sys/wait.h>

TEST(posix, files_and_directories_belong_to_their_owner_alone)
{
    const kv_io *io = kv_io_default();
    kv_file     *f, *lock;
    uint64_t     holder;
    struct stat  info;
    mode_t       old = umask(0);
    CHECK_OK(io->open(io->user, test_path("private"), KV_OPEN_WRITE | KV_OPEN_CREATE, &f));
    CHECK_OK(io->lock(io->user, test_path("lock"), false, &lock, &holder));
    CHECK_OK(io->make_dir(io->user, test_path("dir")));
    umask(old);
    CHECK(stat(test_path("private"), &info) == 0);
    CHECK_EQ(info.st_mode & 07777, 0600);
    CHECK(stat(test_path("lock"), &info) == 0);
    CHECK_EQ(info.st_mode & 07777, 0600);
    CHECK(stat(test_path("dir"), &info) == 0);
    CHECK_EQ(info.st_mode & 07777, 0700);
    CHECK(fcntl(kvi_posix_fd(f), F_GETFD) & FD_CLOEXEC);
    CHECK(fcntl(kvi_posix_fd(lock), F_GETFD) & FD_CLOEXEC);
    CHECK_OK(io->close(io->user, f));
    CHECK_OK(io->unlock(io->user, lock));
}

/* A program that was started with its standard descriptors closed must not find its database behind
   stderr, where the next message would go. */
TEST(posix, descriptors_0_to_2_are_never_used)
{
    const kv_io *io = kv_io_default();
    const char  *path = test_path("standard"), *lock_path = test_path("standard.lock");
    pid_t        child;
    int          status = -1;
    fflush(stdout);
    child = fork();
    if (child == 0) {
        kv_file *f[3], *lock;
        uint64_t holder;
        int      code = 0;
        close(0); close(1); close(2);
        for (int i = 0; i < 3; i++) {
            if (io->open(io->user, path, KV_OPEN_WRITE | KV_OPEN_CREATE, &f[i]) != KV_OK) _exit(50);
            if (kvi_posix_fd(f[i]) <= 2) code = 51;
        }
        if (io->lock(io->user, lock_path, false, &lock, &holder) != KV_OK || kvi_posix_fd(lock) <= 2) code = 52;
        if (io->sync_dir(io->user, test_path(".")) != KV_OK) code = 53;
        if (fcntl(0, F_GETFD) >= 0 || fcntl(1, F_GETFD) >= 0 || fcntl(2, F_GETFD) >= 0) code = 54;
        _exit(code);
    }
    if (!CHECK(child > 0)) return;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
}

TEST(posix, symbolic_links_are_refused)
{
    const kv_io *io = kv_io_default();
    kv_file     *f = NULL;
    uint64_t     holder;
    const char  *real = test_path("real"), *link = test_path("link"), *dangling = test_path("dangling");
    struct stat  info;
    CHECK_OK(io->open(io->user, real, KV_OPEN_WRITE | KV_OPEN_CREATE, &f));
    CHECK_OK(io->append(io->user, f, "text", 4));
    CHECK_OK(io->close(io->user, f));
    if (symlink(real, link) != 0 || symlink(test_path("nowhere"), dangling) != 0) { TEST_SKIP("no symbolic links here"); return; }
    CHECK_STATUS(io->open(io->user, link, 0, &f), KV_ERR_IO);
    CHECK_STATUS(io->open(io->user, link, KV_OPEN_WRITE | KV_OPEN_CREATE | KV_OPEN_TRUNCATE, &f), KV_ERR_IO);
    CHECK(io->open(io->user, dangling, KV_OPEN_WRITE | KV_OPEN_CREATE, &f) < 0);
    CHECK_STATUS(io->lock(io->user, link, false, &f, &holder), KV_ERR_IO);
    CHECK(stat(real, &info) == 0 && info.st_size == 4);
    CHECK(stat(test_path("nowhere"), &info) != 0);
    CHECK_OK(io->remove(io->user, link));                   /* the link, not what it leads to */
    CHECK(stat(real, &info) == 0);
}

TEST(posix, a_fifo_or_device_is_refused_and_does_not_hang)
{
    const kv_io *io = kv_io_default();
    kv_file     *f;
    const char  *fifo = test_path("fifo");
    if (mkfifo(fifo, 0600) != 0) { TEST_SKIP("no FIFOs here"); return; }
    alarm(20);                                              /* a hang ends the test */
    CHECK_STATUS(io->open(io->user, fifo, 0, &f), KV_ERR_IO);
    CHECK_STATUS(io->open(io->user, fifo, KV_OPEN_WRITE, &f), KV_ERR_IO);
    CHECK_STATUS(io->open(io->user, "/dev/null", KV_OPEN_WRITE, &f), KV_ERR_IO);
    alarm(0);
}

/* ---- locks between processes ---- */

/* In a child: try to lock; exit with 0 for KV_OK, 1 for KV_ERR_BUSY by `holder`, 2 for anything else. */
static int lock_elsewhere(const char *path, bool shared, pid_t holder)
{
    int   status = -1;
    pid_t child;
    fflush(stdout);
    child = fork();
    if (child == 0) {
        const kv_io *io = kv_io_default();
        kv_file     *lock;
        uint64_t     who = 0;
        kv_status    s = io->lock(io->user, path, shared, &lock, &who);
        _exit(s == KV_OK ? 0 : s == KV_ERR_BUSY && who == (uint64_t)holder ? 1 : 2);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
}

TEST(posix, a_lock_is_refused_to_another_process_and_names_the_holder)
{
    const kv_io *io = kv_io_default();
    kv_file     *lock = NULL, *second = NULL;
    uint64_t     holder = 0;
    const char  *path = test_path("LOCK");
    if (!CHECK_OK(io->lock(io->user, path, false, &lock, &holder))) return;
    CHECK_EQ(lock_elsewhere(path, false, getpid()), 1);
    CHECK_EQ(lock_elsewhere(path, true, getpid()), 1);
    CHECK_STATUS(io->lock(io->user, path, false, &second, &holder), KV_ERR_BUSY);
    CHECK_EQ(holder, getpid());
    {   /* closing some other descriptor of the file must not drop the lock, as old POSIX locks did */
        int fd = open(path, O_RDWR);
        CHECK(fd >= 0);
        close(fd);
        CHECK_EQ(lock_elsewhere(path, false, getpid()), 1);
    }
    CHECK_OK(io->unlock(io->user, lock));
    CHECK_EQ(lock_elsewhere(path, false, 0), 0);
    CHECK_OK(io->lock(io->user, path, true, &lock, &holder));
    CHECK_EQ(lock_elsewhere(path, true, 0), 0);             /* readers share */
    CHECK_EQ(lock_elsewhere(path, false, getpid()) == 0, false);
    CHECK_OK(io->unlock(io->user, lock));
}

TEST(posix, a_lock_dies_with_its_process)
{
    const kv_io *io = kv_io_default();
    kv_file     *lock = NULL;
    uint64_t     holder = 0;
    const char  *path = test_path("LOCK2");
    int          ready[2], status;
    char         c;
    pid_t        child;
    if (!CHECK(pipe(ready) == 0)) return;
    fflush(stdout);
    child = fork();
    if (child == 0) {
        kv_file *mine;
        if (io->lock(io->user, path, false, &mine, &holder) != KV_OK) _exit(1);
        (void)!write(ready[1], "x", 1);
        for (;;) pause();
    }
    if (!CHECK(child > 0)) return;
    CHECK(read(ready[0], &c, 1) == 1);
    CHECK_STATUS(io->lock(io->user, path, false, &lock, &holder), KV_ERR_BUSY);
    CHECK_EQ(holder, child);
    kill(child, SIGKILL);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_OK(io->lock(io->user, path, false, &lock, &holder));      /* the file is still there, and still says the dead one's number */
    CHECK_STATUS(io->lock(io->user, path, false, &lock, &holder), KV_ERR_BUSY);
    CHECK_EQ(holder, getpid());
    CHECK_OK(io->unlock(io->user, lock));
    close(ready[0]);
    close(ready[1]);
}

TEST(posix, a_directory_or_file_that_may_not_be_read_is_an_error_of_the_system)
{
    const kv_io *io = kv_io_default();
    kv_file     *f;
    const char  *path = test_path("closed");
    int          status = -1;
    pid_t        child;
    CHECK_OK(io->open(io->user, path, KV_OPEN_WRITE | KV_OPEN_CREATE, &f));
    CHECK_OK(io->close(io->user, f));
    CHECK(chmod(path, 0) == 0);
    fflush(stdout);
    child = fork();
    if (child == 0) {                               /* root may read everything: be somebody else */
        if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(3);
        _exit(io->open(io->user, path, 0, &f) != KV_ERR_IO ? 1 : io->os_error(io->user) != EACCES ? 2 : 0);
    }
    if (!CHECK(child > 0)) return;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    if (WEXITSTATUS(status) == 3) { TEST_SKIP("cannot stop being root here"); return; }
    CHECK_EQ(WEXITSTATUS(status), 0);
}
#else
TEST(posix, is_not_this_system) { TEST_SKIP("not a POSIX system"); }
#endif

TEST_MAIN()
