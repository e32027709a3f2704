/* A fault injector for the file system, preloaded in front of libc (LD_PRELOAD).
 *
 * It counts the calls that change something below one directory, and at the n-th it kills the process (before the call,
 * after it, or with half of the bytes written) or makes the call fail. It can also write down every call with its data,
 * so that the directory can be rebuilt as a loss of power would have left it. It knows nothing of what is stored.
 *
 *   shim_arm(folder, mode, at, error)   begin; counts from 1
 *   shim_trace(path)                    write calls down from now on (after shim_arm)
 *   shim_note(text)                     put a line of one's own into the trace
 *   shim_calls()                        how many were counted
 *   shim_disarm()                       stop
 *
 * Memory-mapped writes are not seen: of SQLite's files only `-shm` is written that way, and it is rebuilt after a crash.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT = 0, KILL_BEFORE = 1, KILL_AFTER = 2, TORN = 3, FAIL_FROM = 4, FAIL_ONCE = 5 };
enum { CREATE = 1, WRITE, SYNC, RENAME, TRUNCATE, UNLINK, MKDIR, RMDIR, NOTE };

static char folder[PATH_MAX];
static size_t folder_length;
static int mode, error_number, armed, trace = -1;
static long at, calls;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

/* What the wrapper of a call has to do. */
enum { PASS, REFUSE, HALF, DIE_AFTER };

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int is_below(const char *path) {
    return strncmp(path, folder, folder_length) == 0 && (path[folder_length] == '/' || path[folder_length] == 0);
}

static int path_of(int file, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

static int absolute(int base, const char *name, char *path) {
    char start[PATH_MAX];
    if (name[0] == '/') { snprintf(path, PATH_MAX, "%s", name); return 1; }
    if (base == AT_FDCWD) { if (!getcwd(start, sizeof start)) return 0; }
    else if (!path_of(base, start)) return 0;
    return snprintf(path, PATH_MAX, "%s/%s", start, name) < PATH_MAX;
}

static int grows(int kind) { return kind == CREATE || kind == WRITE || kind == MKDIR || kind == RENAME; }

/* Count a call on `path`; kill, or say what is to be done with it. Sync and unlink need no space, so ENOSPC spares them. */
static int decide(int kind) {
    int todo = PASS;
    pthread_mutex_lock(&turn);
    long number = ++calls;
    int due = number == at;
    if (mode == KILL_BEFORE && due) die();
    if (mode == TORN && due) { if (kind == WRITE) todo = HALF; else die(); }
    if (mode == KILL_AFTER && due) todo = DIE_AFTER;
    int concerned = (error_number != ENOSPC && error_number != EDQUOT) || grows(kind);
    if (((mode == FAIL_FROM && number >= at) || (mode == FAIL_ONCE && due)) && concerned) {
        errno = error_number;
        todo = REFUSE;
    }
    pthread_mutex_unlock(&turn);
    return todo;
}

static void put(const void *data, size_t length) {
    const char *from = data;
    while (length) {
        ssize_t done = syscall(SYS_write, trace, from, length);
        if (done <= 0) abort();
        from += done;
        length -= done;
    }
}

/* Trace entry: kind, length of path, length of second path (uint32 each), offset, length of data (int64 each), all. */
static void record(int kind, const char *path, const char *other, int64_t offset, const void *data, int64_t length) {
    if (trace < 0) return;
    int kept = errno;
    pthread_mutex_lock(&turn);
    uint32_t head[3] = {kind, strlen(path), other ? strlen(other) : 0};
    int64_t numbers[2] = {offset, data ? length : 0};
    put(head, sizeof head);
    put(numbers, sizeof numbers);
    put(path, head[1]);
    if (other) put(other, head[2]);
    if (data) put(data, length);
    pthread_mutex_unlock(&turn);
    errno = kept;
}

static void finish(int todo) { if (todo == DIE_AFTER) die(); }

static int concerns_file(int file, char *path) { return armed && path_of(file, path) && is_below(path); }

/* ------------------------------------------------------------------ writing */

static ssize_t written(int file, const char *path, const void *data, size_t length, off_t offset, int positioned) {
    int todo = decide(WRITE);
    if (todo == REFUSE) return -1;
    size_t wanted = todo == HALF ? length / 2 : length;
    ssize_t done = positioned ? syscall(SYS_pwrite64, file, data, wanted, offset) : syscall(SYS_write, file, data, wanted);
    if (todo == HALF) die();
    if (done > 0) {
        off_t where = positioned ? offset : lseek(file, 0, SEEK_CUR) - done;
        record(WRITE, path, NULL, where, data, done);
    }
    finish(todo);
    return done;
}

ssize_t write(int file, const void *data, size_t length) {
    char path[PATH_MAX];
    if (!concerns_file(file, path)) return REAL(write)(file, data, length);
    return written(file, path, data, length, 0, 0);
}

ssize_t pwrite(int file, const void *data, size_t length, off_t offset) {
    char path[PATH_MAX];
    if (!concerns_file(file, path)) return REAL(pwrite)(file, data, length, offset);
    return written(file, path, data, length, offset, 1);
}

ssize_t pwrite64(int file, const void *data, size_t length, off64_t offset) { return pwrite(file, data, length, offset); }

static ssize_t scattered(int file, const char *path, const struct iovec *parts, int count, off_t offset, int positioned) {
    size_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    char *data = malloc(length ? length : 1), *to = data;
    if (!data) abort();
    for (int i = 0; i < count; i++) to = mempcpy(to, parts[i].iov_base, parts[i].iov_len);
    ssize_t done = written(file, path, data, length, offset, positioned);
    free(data);
    return done;
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    char path[PATH_MAX];
    if (!concerns_file(file, path)) return REAL(writev)(file, parts, count);
    return scattered(file, path, parts, count, 0, 0);
}

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t offset) {
    char path[PATH_MAX];
    if (!concerns_file(file, path)) return REAL(pwritev)(file, parts, count, offset);
    return scattered(file, path, parts, count, offset, 1);
}

/* ------------------------------------------------------------------ syncing and truncating */

int fsync(int file) {
    char path[PATH_MAX];
    if (!concerns_file(file, path)) return REAL(fsync)(file);
    int todo = decide(SYNC);
    if (todo == REFUSE) return -1;
    int result = REAL(fsync)(file);
    if (result == 0) record(SYNC, path, NULL, 0, NULL, 0);
    finish(todo);
    return result;
}

int fdatasync(int file) { return fsync(file); }

int ftruncate(int file, off_t length) {
    char path[PATH_MAX];
    if (!concerns_file(file, path)) return REAL(ftruncate)(file, length);
    int todo = decide(TRUNCATE);
    if (todo == REFUSE) return -1;
    int result = REAL(ftruncate)(file, length);
    if (result == 0) record(TRUNCATE, path, NULL, length, NULL, 0);
    finish(todo);
    return result;
}

int ftruncate64(int file, off64_t length) { return ftruncate(file, length); }

/* ------------------------------------------------------------------ names */

static int opened(int base, const char *name, int flags, mode_t permissions) {
    char path[PATH_MAX];
    int writes = flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR);
    if (!armed || !writes || !absolute(base, name, path) || !is_below(path))
        return syscall(SYS_openat, base, name, flags, permissions);
    struct stat status;
    int is_new = stat(path, &status) != 0;
    int changes = (is_new && (flags & O_CREAT)) || (!is_new && (flags & O_TRUNC));
    int refuses_writers = mode == FAIL_FROM && calls + 1 >= at && (error_number == EROFS || error_number == EACCES);
    if (!changes) {
        if (refuses_writers) { errno = error_number; return -1; }
        return syscall(SYS_openat, base, name, flags, permissions);
    }
    int todo = decide(CREATE);
    if (todo == REFUSE) return -1;
    int file = syscall(SYS_openat, base, name, flags, permissions);
    if (file >= 0) record(is_new ? CREATE : TRUNCATE, path, NULL, 0, NULL, 0);
    finish(todo);
    return file;
}

#define PERMISSIONS(flags, last)                                                                                       \
    mode_t permissions = 0;                                                                                            \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list more;                                                                                                  \
        va_start(more, last);                                                                                          \
        permissions = va_arg(more, mode_t);                                                                            \
        va_end(more);                                                                                                  \
    }

int open(const char *name, int flags, ...) { PERMISSIONS(flags, flags) return opened(AT_FDCWD, name, flags, permissions); }
int open64(const char *name, int flags, ...) { PERMISSIONS(flags, flags) return opened(AT_FDCWD, name, flags | O_LARGEFILE, permissions); }
int openat(int base, const char *name, int flags, ...) { PERMISSIONS(flags, flags) return opened(base, name, flags, permissions); }
int openat64(int base, const char *name, int flags, ...) { PERMISSIONS(flags, flags) return opened(base, name, flags | O_LARGEFILE, permissions); }
int creat(const char *name, mode_t permissions) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, permissions); }

static int named(int kind, int base, const char *name, int result_flags, int (*act)(int, const char *, int)) {
    char path[PATH_MAX];
    if (!armed || !absolute(base, name, path) || !is_below(path)) return act(base, name, result_flags);
    struct stat status;
    int is_there = lstat(path, &status) == 0;
    if (is_there == (kind == MKDIR)) return act(base, name, result_flags); /* it will fail and change nothing */
    int todo = decide(kind);
    if (todo == REFUSE) return -1;
    int result = act(base, name, result_flags);
    if (result == 0) record(kind, path, NULL, 0, NULL, 0);
    finish(todo);
    return result;
}

static int do_unlink(int base, const char *name, int flags) { return syscall(SYS_unlinkat, base, name, flags); }
static int do_mkdir(int base, const char *name, int permissions) { return syscall(SYS_mkdirat, base, name, permissions); }

int unlink(const char *name) { return named(UNLINK, AT_FDCWD, name, 0, do_unlink); }
int rmdir(const char *name) { return named(RMDIR, AT_FDCWD, name, AT_REMOVEDIR, do_unlink); }
int unlinkat(int base, const char *name, int flags) { return named(flags & AT_REMOVEDIR ? RMDIR : UNLINK, base, name, flags, do_unlink); }
int mkdir(const char *name, mode_t permissions) { return named(MKDIR, AT_FDCWD, name, permissions, do_mkdir); }
int mkdirat(int base, const char *name, mode_t permissions) { return named(MKDIR, base, name, permissions, do_mkdir); }

int renameat2(int base, const char *name, int other_base, const char *other_name, unsigned flags) {
    char path[PATH_MAX], other[PATH_MAX];
    if (!armed || !absolute(base, name, path) || !absolute(other_base, other_name, other) || !is_below(other))
        return syscall(SYS_renameat2, base, name, other_base, other_name, flags);
    int todo = decide(RENAME);
    if (todo == REFUSE) return -1;
    int result = syscall(SYS_renameat2, base, name, other_base, other_name, flags);
    if (result == 0) record(RENAME, path, other, 0, NULL, 0);
    finish(todo);
    return result;
}

int renameat(int base, const char *name, int other_base, const char *other_name) { return renameat2(base, name, other_base, other_name, 0); }
int rename(const char *name, const char *other_name) { return renameat2(AT_FDCWD, name, AT_FDCWD, other_name, 0); }

/* ------------------------------------------------------------------ steering */

void shim_arm(const char *below, int how, long number, int code) {
    folder_length = snprintf(folder, sizeof folder, "%s", below);
    mode = how;
    at = number;
    error_number = code;
    calls = 0;
    armed = 1;
}

void shim_trace(const char *path) { trace = syscall(SYS_openat, AT_FDCWD, path, O_CREAT | O_TRUNC | O_WRONLY, 0644); }
void shim_note(const char *text) { record(NOTE, text, NULL, 0, NULL, 0); }
long shim_calls(void) { return calls; }
void shim_disarm(void) { armed = 0; if (trace >= 0) close(trace); trace = -1; }
