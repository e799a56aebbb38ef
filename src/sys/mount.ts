/** mount(2) and its kin, and taking a descriptor that another process sends. */
import { endianness } from 'node:os';
import { ERRNO, SysError } from '../errors.js';
import { IoBuffer } from './io-buffer.js';
import { callAside, fail, interrupted, lastErrno, libc } from './libc.js';

/** Flags of mount(2), <sys/mount.h>. */
export const MS = {
  RDONLY: 1,
  NOSUID: 2,
  NODEV: 4,
  NOEXEC: 8,
  SYNCHRONOUS: 16,
  DIRSYNC: 128,
  NOATIME: 1024,
  NODIRATIME: 2048,
  RELATIME: 1 << 21,
  STRICTATIME: 1 << 24,
  LAZYTIME: 1 << 25,
} as const;

/** Flag of umount2(2): takes a busy mount out of sight and frees it when its last user goes. */
export const MNT = { DETACH: 2 } as const;

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CMSG_CLOEXEC = 0x40000000;

/** Mounts; `data` is the file system's own option string. Throws a SysError. */
export function mount(
  source: string,
  target: string,
  type: string,
  flags: number,
  data: string,
): void {
  if (libc.mount(source, target, type, flags, data) !== 0) fail('mount', `on '${target}'`);
}

/** Unmounts the topmost mount of `target`. Throws a SysError, EBUSY while something is open in it. */
export function umount(target: string, flags: number): void {
  if (libc.umount2(target, flags) !== 0) fail('umount', `'${target}'`);
}

/** Two connected stream sockets, both closed on exec. */
export function socketPair(): [number, number] {
  const pair = new IoBuffer(8);
  if (libc.socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.address) !== 0) {
    fail('socketpair');
  }
  const numbers = new Int32Array(pair.bytes.buffer, pair.bytes.byteOffset, 2);
  return [numbers[0]!, numbers[1]!];
}

/**
 * Waits for one message on `socket` and answers the descriptor in it, closed on exec; undefined
 * where the other side closed, or sent a message without one.
 *
 * The structs, as every 64-bit Linux lays them out (<bits/socket.h>):
 *   msghdr:  0 name*  8 namelen  16 iov*  24 iovlen  32 control*  40 controllen  48 flags
 *   iovec:   0 base*  8 len
 *   cmsghdr: 0 len    8 level    12 type  16 the descriptor
 */
export function receiveDescriptor(socket: number): number | undefined {
  const little = endianness() === 'LE';
  const message = new IoBuffer(56);
  const iovec = new IoBuffer(16);
  const control = new IoBuffer(24);
  const byte = new IoBuffer(1);
  const word = (buffer: IoBuffer, at: number, value: number): void =>
    buffer.view.setBigUint64(at, BigInt(value), little);
  word(iovec, 0, byte.address);
  word(iovec, 8, byte.length);
  word(message, 16, iovec.address);
  word(message, 24, 1);
  word(message, 32, control.address);
  word(message, 40, control.length);
  let received: number;
  do {
    received = libc.recvmsg(socket, message.address, MSG_CMSG_CLOEXEC);
  } while (received < 0 && interrupted());
  if (received < 0) fail('recvmsg');
  const controlLength = Number(message.view.getBigUint64(40, little));
  if (received === 0 || controlLength < 20) return undefined;
  if (control.view.getInt32(8, little) !== SOL_SOCKET) return undefined;
  if (control.view.getInt32(12, little) !== SCM_RIGHTS) return undefined;
  return control.view.getInt32(16, little);
}

/**
 * An extended attribute as text; undefined where the file has none of that name. At most
 * `limit` bytes. Throws a SysError: ENOTCONN where the file system's server is gone.
 */
export function getxattr(path: string, name: string, limit = 256): string | undefined {
  const value = new IoBuffer(limit);
  const length = libc.getxattr(path, name, value.address, limit);
  if (length >= 0) return value.bytes.toString('utf8', 0, length);
  const errno = lastErrno();
  if (errno === ERRNO.ENODATA || errno === ERRNO.EOPNOTSUPP) return undefined;
  throw new SysError('getxattr', errno, `${name} of '${path}'`);
}

/**
 * The same, while this thread goes on: the file system may hang. The buffer is Node's own until the call comes
 * back, which can be never.
 */
export async function getxattrAside(
  path: string,
  name: string,
  limit: number,
): Promise<string | undefined> {
  const value = new IoBuffer(limit);
  const { length, errno } = await callAside('getxattr', path, name, value.address, limit);
  if (length >= 0) return value.bytes.toString('utf8', 0, length);
  if (errno === ERRNO.ENODATA || errno === ERRNO.EOPNOTSUPP) return undefined;
  throw new SysError('getxattr', errno, `${name} of '${path}'`);
}

/** Sets an extended attribute. Throws a SysError. */
export function setxattr(path: string, name: string, value: string): void {
  const bytes = new IoBuffer(Math.max(1, Buffer.byteLength(value)));
  bytes.bytes.write(value);
  const size = Buffer.byteLength(value);
  if (libc.setxattr(path, name, bytes.address, size, 0) < 0) {
    fail('setxattr', `${name} of '${path}'`);
  }
}
