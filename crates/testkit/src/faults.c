/* Makes writing fail, for a process that this library is preloaded into (LD_PRELOAD).
 *
 * The calls by which SQLite and the standard library change files are wrapped. They fail for files below the directory in
 * AQUARIUM_FAULTS_DIRECTORY, as told by the first bytes of the file in AQUARIUM_FAULTS_CONTROL, which is mapped: it can
 * be changed while the process runs, and a call that is not to fail costs one look at it.
 *
 *   byte 0   which calls: 1 = write, 2 = fsync, 4 = truncate, added up; 0 = none
 *   byte 1   the errno to fail with
 *   byte 2   every how many of those calls, 0 and 1 meaning each of them
 *   byte 3   1 = a write that fails comes after one that wrote half of what it was asked to
 *   byte 4   set to 1 when the library is in place
 *   8..32    how many writes, fsyncs and truncations failed or were cut short: 64 bits each, in the byte order of the machine
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct control {
    _Atomic uint8_t calls, number, every, partial, present, unused[3];
    _Atomic uint64_t hits[3];
};

enum { WRITE, SYNC, TRUNCATE };

static struct control *control;
static const char *directory;
static _Atomic uint64_t asked;
/* The descriptor whose last write was cut short: the rest of it fails. */
static _Thread_local int cut = -1;

static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pwrite64)(int, const void *, size_t, off64_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_ftruncate)(int, off_t);
static int (*real_ftruncate64)(int, off64_t);

__attribute__((constructor)) static void begin(void) {
    real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    real_pwrite64 = dlsym(RTLD_NEXT, "pwrite64");
    real_write = dlsym(RTLD_NEXT, "write");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
    real_ftruncate64 = dlsym(RTLD_NEXT, "ftruncate64");
    directory = getenv("AQUARIUM_FAULTS_DIRECTORY");
    const char *path = getenv("AQUARIUM_FAULTS_CONTROL");
    if (path == NULL || directory == NULL) return;
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped == MAP_FAILED) return;
    control = mapped;
    control->present = 1;
}

/* Whether a call is one of those that are to fail. */
static int chosen(int call, int file) {
    if (control == NULL || !(control->calls & (1 << call))) return 0;
    char link[32], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, directory, strlen(directory)) != 0) return 0;
    uint8_t every = control->every;
    return every < 2 || atomic_fetch_add(&asked, 1) % every == 0;
}

static int fails(int call) {
    atomic_fetch_add(&control->hits[call], 1);
    errno = control->number ? control->number : EIO;
    return -1;
}

/* A write that fails: all of it, or after the first half. */
#define WRITES(name, parameters, arguments_of)                          \
    ssize_t name parameters {                                           \
        int saved = cut == file;                                        \
        cut = -1;                                                       \
        if (saved && control->calls) return fails(WRITE);               \
        if (!chosen(WRITE, file)) return real_##name arguments_of(size); \
        if (!control->partial || size < 2) return fails(WRITE);         \
        cut = file;                                                     \
        atomic_fetch_add(&control->hits[WRITE], 1);                     \
        return real_##name arguments_of(size / 2);                      \
    }

#define AT_PLACE(count) (file, data, count, place)
#define IN_ORDER(count) (file, data, count)
WRITES(pwrite, (int file, const void *data, size_t size, off_t place), AT_PLACE)
WRITES(pwrite64, (int file, const void *data, size_t size, off64_t place), AT_PLACE)
WRITES(write, (int file, const void *data, size_t size), IN_ORDER)

int fsync(int file) { return chosen(SYNC, file) ? fails(SYNC) : real_fsync(file); }
int fdatasync(int file) { return chosen(SYNC, file) ? fails(SYNC) : real_fdatasync(file); }
int ftruncate(int file, off_t size) { return chosen(TRUNCATE, file) ? fails(TRUNCATE) : real_ftruncate(file, size); }
int ftruncate64(int file, off64_t size) {
    return chosen(TRUNCATE, file) ? fails(TRUNCATE) : real_ftruncate64(file, size);
}
