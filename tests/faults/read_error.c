/* read() and its kin answer EIO beyond the first 2 KB of files whose name ends in $FAULT_FILE. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#define GOOD_BYTES 2048

static int is_faulty(int fd) {
    const char *name = getenv("FAULT_FILE");
    char link[64], path[PATH_MAX];
    if (!name) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    size_t n = strlen(name);
    return (size_t)length >= n && strcmp(path + length - n, name) == 0;
}

ssize_t read(int fd, void *buffer, size_t count) {
    static ssize_t (*real)(int, void *, size_t);
    if (!real) real = (ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    if (is_faulty(fd)) {
        off_t at = lseek(fd, 0, SEEK_CUR);
        if (at >= GOOD_BYTES) { errno = EIO; return -1; }
        if (count > (size_t)(GOOD_BYTES - at)) count = GOOD_BYTES - at;
    }
    return real(fd, buffer, count);
}

ssize_t pread64(int fd, void *buffer, size_t count, off_t at) {
    static ssize_t (*real)(int, void *, size_t, off_t);
    if (!real) real = (ssize_t(*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread64");
    if (is_faulty(fd) && at + (off_t)count > GOOD_BYTES) { errno = EIO; return -1; }
    return real(fd, buffer, count, at);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    static void *(*real)(void *, size_t, int, int, int, off_t);
    if (!real) real = (void *(*)(void *, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap64");
    if (fd >= 0 && is_faulty(fd)) { errno = EIO; return MAP_FAILED; }
    return real(address, length, protection, flags, fd, offset);
}
