/**
 * The C library, through koffi. Only this folder knows of it: everything above sees functions that
 * throw a `SysError`. Buffers go down as addresses, not as objects: a call costs half as much.
 *
 * koffi is its native part alone: the package `koffi` around it, which is for types here, costs 10 ms more. It is
 * loaded by the first call, and not by who makes none: the help, the completion.
 */
import { createRequire } from 'node:module';
import type koffi from 'koffi';
import { ERRNO, ImageError, SysError } from '../errors.js';

type Koffi = typeof koffi;
type Call = (...args: (number | string | Uint8Array | null)[]) => number;

const NATIVE = `@koromix/koffi-linux-${process.arch}`;

let native: Koffi | undefined;
let library: ReturnType<Koffi['load']>;
/** Those that stay loaded. */
const libraries: ReturnType<Koffi['load']>[] = [];

function load(): Koffi {
  if (native !== undefined) return native;
  try {
    native = createRequire(import.meta.url)(NATIVE) as Koffi;
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n')[0] : String(error);
    const message = `${NATIVE} (optional) cannot be loaded: ${reason}`;
    const here = `${process.version}, linux-${process.arch}`;
    const limit = `install it again, as npm leaves out what it cannot fetch; for Node.js 20 or later, this is ${here}`;
    throw new ImageError('missing', 'ENOSYS', message, { limit }, error);
  }
  library = native.load(null);
  return native;
}

/** Loads a library for good. What is loaded later and names it by its soname gets this one. */
export function loadLibrary(path: string): void {
  libraries.push(load().load(path));
}

/** Whether anything has been called yet. */
export function isLoaded(): boolean {
  return native !== undefined;
}

function declare<F>(signature: string): F {
  load();
  return library.func(signature) as unknown as F;
}

const SIGNATURES = {
  read: 'long read(int fd, uintptr_t buf, size_t count)',
  write: 'long write(int fd, uintptr_t buf, size_t count)',
  pread: 'long pread64(int fd, uintptr_t buf, size_t count, int64_t offset)',
  pwrite: 'long pwrite64(int fd, uintptr_t buf, size_t count, int64_t offset)',
  fdatasync: 'int fdatasync(int fd)',
  ftruncate: 'int ftruncate64(int fd, int64_t length)',
  fallocate: 'int fallocate64(int fd, int mode, int64_t offset, int64_t length)',
  lseek: 'int64_t lseek64(int fd, int64_t offset, int whence)',
  mount: 'int mount(str source, str target, str type, ulong flags, str data)',
  umount2: 'int umount2(str target, int flags)',
  socketpair: 'int socketpair(int domain, int type, int protocol, uintptr_t sv)',
  recvmsg: 'long recvmsg(int fd, uintptr_t msg, int flags)',
  close: 'int close(int fd)',
  poll: 'int poll(uintptr_t fds, ulong count, int timeout)',
  fcntl: 'int fcntl(int fd, int cmd, uintptr_t arg)',
  ioctl: 'int ioctl(int fd, ulong request, uintptr_t arg)',
  getxattr: 'long getxattr(str path, str name, uintptr_t value, size_t size)',
  setxattr: 'int setxattr(str path, str name, uintptr_t value, size_t size, int flags)',
  prctl: 'int prctl(int option, ulong a, ulong b, ulong c, ulong d)',
  execve: 'int execve(str path, uintptr_t argv, uintptr_t envp)',
  getpwnam:
    'int getpwnam_r(str name, uintptr_t entry, uintptr_t buf, size_t size, uintptr_t found)',
  getpwuid:
    'int getpwuid_r(uint32_t uid, uintptr_t entry, uintptr_t buf, size_t size, uintptr_t found)',
  initgroups: 'int initgroups(str user, uint32_t group)',
  exit: 'void _exit(int status)',
  signal: 'uintptr_t signal(int number, uintptr_t handler)',
  raise: 'int raise(int number)',
  dup2: 'int dup2(int from, int to)',
  socket: 'int socket(int domain, int type, int protocol)',
  sendto:
    'long sendto(int fd, uintptr_t buf, size_t count, int flags, uintptr_t addr, uint32_t length)',
  tcgetattr: 'int tcgetattr(int fd, uintptr_t termios)',
  tcsetattr: 'int tcsetattr(int fd, int when, uintptr_t termios)',
  strdup: 'uintptr_t strdup(str s)',
  openlog: 'void openlog(uintptr_t ident, int option, int facility)',
};

type CallName = keyof typeof SIGNATURES;

/** Raw calls: they answer -1 and leave the errno in `lastErrno()`. Each is declared when it is first made. */
export const libc = Object.fromEntries(
  (Object.keys(SIGNATURES) as CallName[]).map((name) => [
    name,
    (...args: Parameters<Call>) => {
      libc[name] = declare(SIGNATURES[name]);
      return libc[name](...args);
    },
  ]),
) as Record<CallName, Call>;

interface AsideCall {
  async(...args: [...Parameters<Call>, (error: Error | null, answer: number) => void]): void;
}

/** The same call on one of Node's other threads, with what it left in errno. */
export function callAside(
  name: CallName,
  ...args: Parameters<Call>
): Promise<{ readonly length: number; readonly errno: number }> {
  const call = declare<AsideCall>(SIGNATURES[name]);
  return new Promise((resolve, reject) => {
    call.async(...args, (error, length) => {
      if (error === null) resolve({ length, errno: lastErrno() });
      else reject(error);
    });
  });
}

type Syslog = (priority: number, format: string, type: 'str', message: string) => void;
let putSyslog: Syslog | undefined;

/** syslog(3) with the format "%s": the message is never taken for a format. */
export function syslog(priority: number, message: string): void {
  putSyslog ??= declare<Syslog>('void syslog(int priority, const char *format, ...)');
  putSyslog(priority, '%s', 'str', message);
}

let errorText: ((errno: number) => string) | undefined;

/** What the C library says of an errno, in words. */
export function strerror(errno: number): string {
  errorText ??= declare<(errno: number) => string>('str strerror(int errnum)');
  return errorText(errno);
}

let memcpy: Call | undefined;

/** The address of a buffer's first byte. The buffer must outlive every use of the number. */
export function addressOf(bytes: Uint8Array): number {
  memcpy ??= declare<Call>('uintptr_t memcpy(_Inout_ uint8_t *dest, uint8_t *src, size_t n)');
  return Number(memcpy(bytes, bytes, 0));
}

/** What the last call of this thread left. */
export function lastErrno(): number {
  return native!.errno();
}

/** Throws what the last call left in errno. */
export function fail(syscall: string, detail = ''): never {
  throw new SysError(syscall, lastErrno(), detail);
}

/** Whether the last call only has to be made again. */
export function interrupted(): boolean {
  return lastErrno() === ERRNO.EINTR;
}
