/** What some file systems can be told about a new file: btrfs not to copy on write, XFS how to allocate. */
import { struct, u32, bytes } from '../codec/struct.js';
import { IoBuffer } from './io-buffer.js';
import { libc } from './libc.js';

const FS_IOC_GETFLAGS = 0x80086601;
const FS_IOC_SETFLAGS = 0x40086602;
const FS_NOCOW_FL = 0x0080_0000;

const FS_IOC_FSGETXATTR = 0x801c581f;
const FS_IOC_FSSETXATTR = 0x401c5820;
const FS_XFLAG_EXTSIZE = 0x800;

/** struct fsxattr of Linux. */
const FSXATTR = struct('fsxattr', 'little', {
  xflags: u32,
  extsize: u32,
  nextents: u32,
  projid: u32,
  cowextsize: u32,
  padding: bytes(8),
});

/** The file, which is empty, is to be written in place. False where the file system knows no such thing. */
export function setNoCopyOnWrite(fd: number): boolean {
  const flags = new IoBuffer(8);
  if (libc.ioctl(fd, FS_IOC_GETFLAGS, flags.address) < 0) return false;
  flags.view.setUint32(0, (flags.view.getUint32(0, true) | FS_NOCOW_FL) >>> 0, true);
  return libc.ioctl(fd, FS_IOC_SETFLAGS, flags.address) >= 0;
}

/** Space for the file, which is empty, comes in so many bytes. False as above. */
export function setExtentSizeHint(fd: number, size: number): boolean {
  const attributes = new IoBuffer(FSXATTR.size);
  if (libc.ioctl(fd, FS_IOC_FSGETXATTR, attributes.address) < 0) return false;
  const { view } = attributes;
  FSXATTR.set(view, 0, 'xflags', (FSXATTR.get(view, 0, 'xflags') | FS_XFLAG_EXTSIZE) >>> 0);
  FSXATTR.set(view, 0, 'extsize', size);
  return libc.ioctl(fd, FS_IOC_FSSETXATTR, attributes.address) >= 0;
}
