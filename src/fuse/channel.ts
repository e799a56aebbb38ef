/** The open /dev/fuse of one mount: one request a read, one reply a write. */
import { ERRNO, errnoName } from '../errors.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { fail, lastErrno, libc } from '../sys/libc.js';

/** struct pollfd, <poll.h>: 0 fd, 4 events, 6 revents. */
const POLLFD_SIZE = 8;
const REVENTS = 6;
const POLLERR = 8;

/** What a read for the next request can come to: its length, or the end of the mount. */
export const UNMOUNTED = -1;

/**
 * Reads the next request; answers its length, or UNMOUNTED. A request that was interrupted before
 * it could be read (ENOENT), a signal, a spurious wake-up: all mean to read again.
 */
export function readRequest(fd: number, buffer: IoBuffer): number {
  for (;;) {
    const n = libc.read(fd, buffer.address, buffer.length);
    if (n >= 0) return n;
    const errno = lastErrno();
    if (errno === ERRNO.ENODEV) return UNMOUNTED;
    if (errno !== ERRNO.ENOENT && errno !== ERRNO.EINTR && errno !== ERRNO.EAGAIN) {
      fail('read', 'of /dev/fuse');
    }
  }
}

/** Whether the mount of this descriptor has ended, with nothing read from it. */
export function isUnmounted(fd: number): boolean {
  const poll = new IoBuffer(POLLFD_SIZE);
  poll.view.setInt32(0, fd, true);
  return libc.poll(poll.address, 1, 0) > 0 && (poll.view.getInt16(REVENTS, true) & POLLERR) !== 0;
}

/**
 * Writes a reply of `size` bytes. Answers an errno's name where the kernel refused it, null where
 * it went well or nobody waits for it any more.
 */
export function writeReply(fd: number, buffer: IoBuffer, size: number): string | null {
  for (;;) {
    if (libc.write(fd, buffer.address, size) >= 0) return null;
    const errno = lastErrno();
    if (errno === ERRNO.EINTR) continue;
    // ENOENT: the request was aborted meanwhile; ENODEV: the mount is gone.
    return errno === ERRNO.ENOENT || errno === ERRNO.ENODEV ? null : errnoName(errno);
  }
}
