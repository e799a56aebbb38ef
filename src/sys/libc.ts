/**
 * The C library, through koffi. Only this folder knows of it: everything above sees functions that
 * throw a `SysError`. Buffers go down as addresses, not as objects: a call costs half as much.
 */
import koffi from 'koffi';
import { ERRNO, SysError } from '../errors.js';

const lib = koffi.load(null);

type Call = (...args: (number | string | Uint8Array | null)[]) => number;

function declare(signature: string): Call {
  return lib.func(signature) as unknown as Call;
}

/** Raw calls: they answer -1 and leave the errno in `lastErrno()`. */
export const libc = {
  read: declare('long read(int fd, uintptr_t buf, size_t count)'),
  write: declare('long write(int fd, uintptr_t buf, size_t count)'),
  pread: declare('long pread64(int fd, uintptr_t buf, size_t count, int64_t offset)'),
  pwrite: declare('long pwrite64(int fd, uintptr_t buf, size_t count, int64_t offset)'),
  fdatasync: declare('int fdatasync(int fd)'),
  ftruncate: declare('int ftruncate64(int fd, int64_t length)'),
  fallocate: declare('int fallocate64(int fd, int mode, int64_t offset, int64_t length)'),
  lseek: declare('int64_t lseek64(int fd, int64_t offset, int whence)'),
  mount: declare('int mount(str source, str target, str type, ulong flags, str data)'),
  umount2: declare('int umount2(str target, int flags)'),
  socketpair: declare('int socketpair(int domain, int type, int protocol, uintptr_t sv)'),
  recvmsg: declare('long recvmsg(int fd, uintptr_t msg, int flags)'),
  close: declare('int close(int fd)'),
  poll: declare('int poll(uintptr_t fds, ulong count, int timeout)'),
  fcntl: declare('int fcntl(int fd, int cmd, uintptr_t arg)'),
  ioctl: declare('int ioctl(int fd, ulong request, uintptr_t arg)'),
  getxattr: declare('long getxattr(str path, str name, uintptr_t value, size_t size)'),
  setxattr: declare('int setxattr(str path, str name, uintptr_t value, size_t size, int flags)'),
  prctl: declare('int prctl(int option, ulong a, ulong b, ulong c, ulong d)'),
  exit: declare('void _exit(int status)'),
  signal: declare('uintptr_t signal(int number, uintptr_t handler)'),
  raise: declare('int raise(int number)'),
  dup2: declare('int dup2(int from, int to)'),
  socket: declare('int socket(int domain, int type, int protocol)'),
  sendto: declare(
    'long sendto(int fd, uintptr_t buf, size_t count, int flags, uintptr_t addr, uint32_t length)',
  ),
  tcgetattr: declare('int tcgetattr(int fd, uintptr_t termios)'),
  tcsetattr: declare('int tcsetattr(int fd, int when, uintptr_t termios)'),
  strdup: declare('uintptr_t strdup(str s)'),
  openlog: declare('void openlog(uintptr_t ident, int option, int facility)'),
};

/** syslog(3) with the format "%s": the message is never taken for a format. */
export const syslog = lib.func('void syslog(int priority, const char *format, ...)') as unknown as (
  priority: number,
  format: string,
  type: 'str',
  message: string,
) => void;

/** What the C library says of an errno, in words. */
export const strerror = lib.func('str strerror(int errnum)') as unknown as (
  errno: number,
) => string;

/** The address of a buffer's first byte. The buffer must outlive every use of the number. */
const memcpy = lib.func('uintptr_t memcpy(_Inout_ uint8_t *dest, uint8_t *src, size_t n)');
export function addressOf(bytes: Uint8Array): number {
  return Number(memcpy(bytes, bytes, 0));
}

export function lastErrno(): number {
  return koffi.errno();
}

/** Throws what the last call left in errno. */
export function fail(syscall: string, detail = ''): never {
  throw new SysError(syscall, lastErrno(), detail);
}

/** Whether the last call only has to be made again. */
export function interrupted(): boolean {
  return lastErrno() === ERRNO.EINTR;
}
