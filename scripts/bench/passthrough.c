/*
 * The limit that the benchmark compares with: one raw file, served by libfuse3's own multi-threaded
 * loop. It does the least that a FUSE server can do for a READ: one pread into a buffer that the
 * thread keeps, one reply; and for a WRITE: one pwrite of what libfuse received. Request sizes, the
 * thread limit and, with -w, the open flags are libfuse's own.
 *
 * usage: passthrough -f|-w RAW-FILE MOUNT-POINT (-f: read-only, -w: writable)
 */
#define _GNU_SOURCE
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_INODE = 2, BUFFER_SIZE = 1 << 20 };
static const char fileName[] = "disk.raw";
static const double cacheSeconds = 86400.0;
static int rawFd = -1;
static int isWritable;
/* Kept per thread: malloc would map and unmap a fresh MiB, and fault it in, for each request. */
static __thread char *buffer;

static int attributesOf(fuse_ino_t inode, struct stat *st)
{
    memset(st, 0, sizeof(*st));
    if (inode == FILE_INODE) {
        if (fstat(rawFd, st) < 0) return -1;
        st->st_mode = S_IFREG | (isWritable ? 0644 : 0444);
    } else {
        st->st_mode = S_IFDIR | 0555;
    }
    st->st_ino = inode;
    st->st_nlink = inode == FILE_INODE ? 1 : 2;
    return 0;
}

static void lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param entry = { .ino = FILE_INODE, .attr_timeout = cacheSeconds,
                                      .entry_timeout = cacheSeconds };
    if (parent != FUSE_ROOT_ID || strcmp(name, fileName) != 0) fuse_reply_err(req, ENOENT);
    else if (attributesOf(FILE_INODE, &entry.attr) < 0) fuse_reply_err(req, errno);
    else fuse_reply_entry(req, &entry);
}

static void getattr(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info)
{
    struct stat st;
    (void) info;
    if (attributesOf(inode, &st) < 0) fuse_reply_err(req, errno);
    else fuse_reply_attr(req, &st, cacheSeconds);
}

static void openFile(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info)
{
    (void) inode;
    if (!isWritable && (info->flags & O_ACCMODE) != O_RDONLY) {
        fuse_reply_err(req, EROFS);
        return;
    }
    /* A file that never changes: a second open may use cached pages. */
    if (!isWritable) info->keep_cache = 1;
    fuse_reply_open(req, info);
}

static void readFile(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset,
                     struct fuse_file_info *info)
{
    ssize_t done;
    (void) inode;
    (void) info;
    if (buffer == NULL && posix_memalign((void **) &buffer, 4096, BUFFER_SIZE) != 0) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    done = pread(rawFd, buffer, size < BUFFER_SIZE ? size : BUFFER_SIZE, offset);
    if (done < 0) fuse_reply_err(req, errno);
    else fuse_reply_buf(req, buffer, (size_t) done);
}

static void writeFile(fuse_req_t req, fuse_ino_t inode, const char *data, size_t size, off_t offset,
                      struct fuse_file_info *info)
{
    ssize_t done = pwrite(rawFd, data, size, offset);
    (void) inode;
    (void) info;
    if (done < 0) fuse_reply_err(req, errno);
    else fuse_reply_write(req, (size_t) done);
}

/* Always fdatasync: of the raw file's metadata a guest knows the size alone. */
static void syncFile(fuse_req_t req, fuse_ino_t inode, int isDataOnly, struct fuse_file_info *info)
{
    (void) inode;
    (void) isDataOnly;
    (void) info;
    fuse_reply_err(req, fdatasync(rawFd) < 0 ? errno : 0);
}

static void allocateFile(fuse_req_t req, fuse_ino_t inode, int mode, off_t offset, off_t length,
                         struct fuse_file_info *info)
{
    (void) inode;
    (void) info;
    fuse_reply_err(req, fallocate(rawFd, mode, offset, length) < 0 ? errno : 0);
}

/* The size can be set; times and modes are accepted and forgotten. */
static void setattrFile(fuse_req_t req, fuse_ino_t inode, struct stat *st, int what,
                        struct fuse_file_info *info)
{
    if (!isWritable || inode != FILE_INODE) fuse_reply_err(req, EROFS);
    else if ((what & FUSE_SET_ATTR_SIZE) && ftruncate(rawFd, st->st_size) < 0)
        fuse_reply_err(req, errno);
    else getattr(req, inode, info);
}

static const struct fuse_lowlevel_ops operations = {
    .lookup = lookup, .getattr = getattr, .setattr = setattrFile, .open = openFile,
    .read = readFile, .write = writeFile, .fsync = syncFile, .fallocate = allocateFile,
};

int main(int argc, char **argv)
{
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);
    struct fuse_session *session;
    int status;
    if (argc != 4 || (strcmp(argv[1], "-f") != 0 && strcmp(argv[1], "-w") != 0)) {
        fprintf(stderr, "usage: %s -f|-w RAW-FILE MOUNT-POINT\n", argv[0]);
        return 2;
    }
    isWritable = strcmp(argv[1], "-w") == 0;
    rawFd = open(argv[2], (isWritable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (rawFd < 0) {
        perror(argv[2]);
        return 1;
    }
    session = fuse_session_new(&args, &operations, sizeof(operations), NULL);
    if (session == NULL || fuse_set_signal_handlers(session) != 0) return 1;
    if (fuse_session_mount(session, argv[3]) != 0) return 1;
    status = fuse_session_loop_mt(session, NULL);
    fuse_session_unmount(session);
    fuse_remove_signal_handlers(session);
    fuse_session_destroy(session);
    return status == 0 ? 0 : 1;
}
