/* Records what a process does to the files of one directory, in order, for a process that this library is preloaded into
 * (LD_PRELOAD). See recorder.rs, which reads it.
 *
 * The calls by which SQLite and the standard library change files are wrapped. What they do to files in the directory in
 * AQUARIUM_RECORDER_DIRECTORY is appended to the file in AQUARIUM_RECORDER_LOG, which is somewhere else and is there
 * already. Paths have to be absolute. What goes through a memory mapping is not seen. Nothing is appended beyond LIMIT
 * bytes, but one record that says so.
 *
 * One lock is held from before such a call until its record is written, so that the order of the records is the order of
 * the calls. A sync takes time and is not to keep others waiting: it has a record before it begins and one after it has
 * ended, and what was recorded before the first is what it covers.
 *
 * An answer to an HTTP request, of status 202, is recorded before it is sent: from then on its reader may count on it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PRESENT = 1, CREATE, WRITE, TRUNCATE, SYNC_BEGIN, SYNC_END, RENAME, UNLINK, ANSWER, OVERFLOW };

#define LIMIT (768L << 20)
/* Of an answer. */
#define MOST_OF_AN_ANSWER 65536
#define LIBRARY __attribute__((visibility("default")))

/* Before the data of each record, in the byte order of the machine. */
struct record {
    uint32_t kind, length;
    /* The inode of the file. */
    uint64_t file;
    /* WRITE: the place. TRUNCATE: the size. SYNC_*: a number that the two have in common. */
    uint64_t place;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_file = -1;
static const char *directory;
static size_t directory_length;
static uint64_t logged, syncs;
static int overflowed;

#define REAL(result, name, ...) static result (*real_##name)(__VA_ARGS__)
REAL(int, open, const char *, int, ...);
REAL(int, open64, const char *, int, ...);
REAL(int, openat, int, const char *, int, ...);
REAL(int, openat64, int, const char *, int, ...);
REAL(ssize_t, write, int, const void *, size_t);
REAL(ssize_t, writev, int, const struct iovec *, int);
REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
REAL(ssize_t, send, int, const void *, size_t, int);
REAL(ssize_t, sendmsg, int, const struct msghdr *, int);
REAL(int, ftruncate, int, off_t);
REAL(int, ftruncate64, int, off64_t);
REAL(int, fsync, int);
REAL(int, fdatasync, int);
REAL(int, rename, const char *, const char *);
REAL(int, unlink, const char *);

static void append(uint32_t kind, uint64_t file, uint64_t place, const void *data, size_t length) {
    if (overflowed) return;
    if (logged + sizeof(struct record) + length > LIMIT) {
        overflowed = 1;
        kind = OVERFLOW, length = 0;
    }
    struct record record = { kind, (uint32_t)length, file, place };
    struct iovec parts[2] = { { &record, sizeof record }, { (void *)data, length } };
    size_t size = sizeof record + length;
    /* A record that is not whole is as good as an overflow: its reader would miss something. */
    if (real_writev(log_file, parts, 2) != (ssize_t)size) overflowed = 1;
    logged += size;
}

__attribute__((constructor)) static void begin(void) {
#define FIND(name) real_##name = dlsym(RTLD_NEXT, #name)
    FIND(open), FIND(open64), FIND(openat), FIND(openat64), FIND(write), FIND(writev), FIND(pwrite), FIND(pwrite64);
    FIND(send), FIND(sendmsg), FIND(ftruncate), FIND(ftruncate64), FIND(fsync), FIND(fdatasync), FIND(rename);
    FIND(unlink);
    directory = getenv("AQUARIUM_RECORDER_DIRECTORY");
    const char *path = getenv("AQUARIUM_RECORDER_LOG");
    if (path == NULL || directory == NULL) return;
    directory_length = strlen(directory);
    log_file = real_open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (log_file < 0) return;
    struct stat status;
    if (fstat(log_file, &status) == 0) logged = (uint64_t)status.st_size;
    append(PRESENT, 0, 0, NULL, 0);
}

/* The name of a file in the directory, "" for the directory itself, NULL for what is elsewhere or deeper. */
static const char *name_in_directory(const char *path) {
    if (log_file < 0 || path == NULL || strncmp(path, directory, directory_length) != 0) return NULL;
    path += directory_length;
    if (*path == 0) return path;
    if (*path != '/' || strchr(path + 1, '/') != NULL) return NULL;
    return path + 1;
}

/* The inode of an open file that is in the directory, or was; 0 for any other. */
static uint64_t inode(int file) {
    if (log_file < 0 || file == log_file) return 0;
    char link[32], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    struct stat status;
    if (name_in_directory(path) == NULL || fstat(file, &status) != 0) return 0;
    return status.st_ino;
}

static int is_socket(int file) {
    struct stat status;
    return log_file >= 0 && fstat(file, &status) == 0 && S_ISSOCK(status.st_mode);
}

static void keep_lock(void) { pthread_mutex_lock(&lock); }

/* Gives the lock back, and keeps what the call left in errno. */
static void give_lock(void) {
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
}

/* Records an answer of status 202 that is about to be sent. */
static void answer(int file, const struct iovec *parts, size_t count) {
    static const char beginning[] = "HTTP/1.1 202";
    size_t length = sizeof beginning - 1;
    if (count == 0 || parts[0].iov_len < length || memcmp(parts[0].iov_base, beginning, length) != 0) return;
    int error = errno;
    if (is_socket(file)) {
        static char whole[MOST_OF_AN_ANSWER];
        size_t size = 0;
        pthread_mutex_lock(&lock);
        for (size_t part = 0; part < count; part++) {
            size_t room = sizeof whole - size, taken = parts[part].iov_len < room ? parts[part].iov_len : room;
            memcpy(whole + size, parts[part].iov_base, taken);
            size += taken;
        }
        append(ANSWER, 0, 0, whole, size);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
}

/* A call that makes a file if there is none. */
#define OPENS(name, parameters, ...)                                           \
    LIBRARY int name parameters {                                              \
        mode_t mode = 0;                                                       \
        if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) {             \
            va_list rest;                                                      \
            va_start(rest, flags);                                             \
            mode = va_arg(rest, mode_t);                                       \
            va_end(rest);                                                      \
        }                                                                      \
        const char *found = name_in_directory(path);                           \
        if (found == NULL || *found == 0 || !(flags & (O_CREAT | O_TRUNC)))    \
            return real_##name(__VA_ARGS__, mode);                             \
        keep_lock();                                                           \
        struct stat status;                                                    \
        int there = stat(path, &status) == 0;                                  \
        int file = real_##name(__VA_ARGS__, mode);                             \
        if (file >= 0 && fstat(file, &status) == 0) {                          \
            if (!there) append(CREATE, status.st_ino, 0, found, strlen(found)); \
            else if (flags & O_TRUNC) append(TRUNCATE, status.st_ino, 0, NULL, 0); \
        }                                                                      \
        give_lock();                                                           \
        return file;                                                           \
    }

OPENS(open, (const char *path, int flags, ...), path, flags)
OPENS(open64, (const char *path, int flags, ...), path, flags)
OPENS(openat, (int at, const char *path, int flags, ...), at, path, flags)
OPENS(openat64, (int at, const char *path, int flags, ...), at, path, flags)

#define WRITES_AT(name, offset)                                                        \
    LIBRARY ssize_t name(int file, const void *data, size_t size, offset place) {      \
        uint64_t node = inode(file);                                                   \
        if (node == 0) return real_##name(file, data, size, place);                    \
        keep_lock();                                                                   \
        ssize_t written = real_##name(file, data, size, place);                        \
        if (written > 0) append(WRITE, node, (uint64_t)place, data, (size_t)written);  \
        give_lock();                                                                   \
        return written;                                                                \
    }

WRITES_AT(pwrite, off_t)
WRITES_AT(pwrite64, off64_t)

LIBRARY ssize_t write(int file, const void *data, size_t size) {
    struct iovec part = { (void *)data, size };
    answer(file, &part, 1);
    uint64_t node = inode(file);
    if (node == 0) return real_write(file, data, size);
    keep_lock();
    ssize_t written = real_write(file, data, size);
    /* Where that was is known afterwards, also of a file that is appended to. */
    off_t end = written > 0 ? lseek(file, 0, SEEK_CUR) : -1;
    if (end >= written) append(WRITE, node, (uint64_t)(end - written), data, (size_t)written);
    give_lock();
    return written;
}

LIBRARY ssize_t writev(int file, const struct iovec *parts, int count) {
    answer(file, parts, count > 0 ? (size_t)count : 0);
    uint64_t node = inode(file);
    if (node == 0) return real_writev(file, parts, count);
    /* As several writes, which the caller has to be prepared for. */
    for (int part = 0; part < count; part++)
        if (parts[part].iov_len > 0) return write(file, parts[part].iov_base, parts[part].iov_len);
    return 0;
}

LIBRARY ssize_t send(int file, const void *data, size_t size, int flags) {
    struct iovec part = { (void *)data, size };
    answer(file, &part, 1);
    return real_send(file, data, size, flags);
}

LIBRARY ssize_t sendmsg(int file, const struct msghdr *message, int flags) {
    answer(file, message->msg_iov, message->msg_iovlen);
    return real_sendmsg(file, message, flags);
}

#define TRUNCATES(name, offset)                                               \
    LIBRARY int name(int file, offset size) {                                 \
        uint64_t node = inode(file);                                          \
        if (node == 0) return real_##name(file, size);                        \
        keep_lock();                                                          \
        int result = real_##name(file, size);                                 \
        if (result == 0) append(TRUNCATE, node, (uint64_t)size, NULL, 0);     \
        give_lock();                                                          \
        return result;                                                        \
    }

TRUNCATES(ftruncate, off_t)
TRUNCATES(ftruncate64, off64_t)

/* Of metadata, fdatasync(2) leaves out only what is not needed to read the data: it counts as much. */
#define SYNCS(name)                                               \
    LIBRARY int name(int file) {                                  \
        uint64_t node = inode(file);                              \
        if (node == 0) return real_##name(file);                  \
        keep_lock();                                              \
        uint64_t number = ++syncs;                                \
        append(SYNC_BEGIN, node, number, NULL, 0);                \
        give_lock();                                              \
        int result = real_##name(file);                           \
        keep_lock();                                              \
        if (result == 0) append(SYNC_END, node, number, NULL, 0); \
        give_lock();                                              \
        return result;                                            \
    }

SYNCS(fsync)
SYNCS(fdatasync)

LIBRARY int rename(const char *from, const char *to) {
    const char *old = name_in_directory(from), *new = name_in_directory(to);
    if (old == NULL && new == NULL) return real_rename(from, to);
    keep_lock();
    int result = real_rename(from, to);
    if (result == 0) {
        struct stat status;
        char names[2 * NAME_MAX + 2];
        /* The old name, a zero byte, the new one; "" for one that is elsewhere. */
        int length = snprintf(names, sizeof names, "%s%c%s", old ? old : "", 0, new ? new : "");
        append(RENAME, stat(to, &status) == 0 ? status.st_ino : 0, 0, names, (size_t)length);
    }
    give_lock();
    return result;
}

LIBRARY int unlink(const char *path) {
    const char *name = name_in_directory(path);
    if (name == NULL) return real_unlink(path);
    keep_lock();
    int result = real_unlink(path);
    if (result == 0) append(UNLINK, 0, 0, name, strlen(name));
    give_lock();
    return result;
}
