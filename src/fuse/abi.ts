/**
 * The kernel's FUSE protocol, 7.x, as include/uapi/linux/fuse.h lays it out: structs in the host's
 * byte order (little-endian wherever Node's binaries run), opcodes in the opcode table.
 */
import { bits64, bytes, i32, struct, u16, u32, u64 } from '../codec/struct.js';

export const KERNEL_VERSION = 7;
/** The newest minor version that is spoken here: 7.39 brought STATX. */
export const KERNEL_MINOR_VERSION = 39;
/** The oldest: with it came max_pages, for requests of 1 MiB. */
export const OLDEST_MINOR_VERSION = 28;

export const IN_HEADER = struct('fuse_in_header', 'little', {
  len: u32,
  opcode: u32,
  unique: u64,
  nodeid: u64,
  uid: u32,
  gid: u32,
  pid: u32,
  totalExtlen: u16,
  padding: u16,
});

export const OUT_HEADER = struct('fuse_out_header', 'little', {
  len: u32,
  error: i32,
  unique: u64,
});

/** Capabilities of INIT's `flags`. */
export const INIT_FLAG = {
  ASYNC_READ: 1 << 0,
  PARALLEL_DIROPS: 1 << 18,
  DO_READDIRPLUS: 1 << 13,
  READDIRPLUS_AUTO: 1 << 14,
  ASYNC_DIO: 1 << 15,
  MAX_PAGES: 1 << 22,
  /** `flags2` counts, too. */
  INIT_EXT: 1 << 30,
} as const;

/** Capabilities of INIT's `flags2`: bit 32 and up of all of them. */
export const INIT_FLAG2 = {
  /** Files that are opened for direct I/O can be mapped into memory all the same. */
  DIRECT_IO_ALLOW_MMAP: 1 << 4,
} as const;

export const INIT_IN = struct('fuse_init_in', 'little', {
  major: u32,
  minor: u32,
  maxReadahead: u32,
  flags: u32,
});

/** What newer kernels send behind it. */
export const INIT_IN_EXT = struct('fuse_init_in', 'little', { flags2: u32, unused: bytes(44) });

export const INIT_OUT = struct('fuse_init_out', 'little', {
  major: u32,
  minor: u32,
  maxReadahead: u32,
  flags: u32,
  maxBackground: u16,
  congestionThreshold: u16,
  maxWrite: u32,
  timeGran: u32,
  maxPages: u16,
  mapAlignment: u16,
  flags2: u32,
  maxStackDepth: u32,
  requestTimeout: u16,
  unused: bytes(22),
});

const ATTR_FIELDS = {
  ino: u64,
  size: u64,
  blocks: u64,
  atime: u64,
  mtime: u64,
  ctime: u64,
  atimensec: u32,
  mtimensec: u32,
  ctimensec: u32,
  mode: u32,
  nlink: u32,
  uid: u32,
  gid: u32,
  rdev: u32,
  blksize: u32,
  flags: u32,
};

export const ATTR = struct('fuse_attr', 'little', ATTR_FIELDS);

/** A fuse_attr follows. */
export const ENTRY_OUT = struct('fuse_entry_out', 'little', {
  nodeid: u64,
  generation: u64,
  entryValid: u64,
  attrValid: u64,
  entryValidNsec: u32,
  attrValidNsec: u32,
});

/** A fuse_attr follows. */
export const ATTR_OUT = struct('fuse_attr_out', 'little', {
  attrValid: u64,
  attrValidNsec: u32,
  dummy: u32,
});

export const FORGET_IN = struct('fuse_forget_in', 'little', { nlookup: u64 });
export const BATCH_FORGET_IN = struct('fuse_batch_forget_in', 'little', { count: u32, dummy: u32 });
export const GETATTR_IN = struct('fuse_getattr_in', 'little', {
  getattrFlags: u32,
  dummy: u32,
  fh: u64,
});

export const STATX_IN = struct('fuse_statx_in', 'little', {
  getattrFlags: u32,
  reserved: u32,
  fh: u64,
  sxFlags: u32,
  sxMask: u32,
});

/** Bits of statx' mask: what of the answer is filled in. */
export const STATX_MASK = { BASIC_STATS: 0x7ff, BTIME: 0x800 } as const;

export const STATX_OUT = struct('fuse_statx_out', 'little', {
  attrValid: u64,
  attrValidNsec: u32,
  flags: u32,
  spare: bytes(16),
  mask: u32,
  blksize: u32,
  attributes: bits64,
  nlink: u32,
  uid: u32,
  gid: u32,
  mode: u16,
  spare0: u16,
  ino: u64,
  size: u64,
  blocks: u64,
  attributesMask: bits64,
  atime: u64,
  atimensec: u32,
  reserved0: u32,
  btime: u64,
  btimensec: u32,
  reserved1: u32,
  ctime: u64,
  ctimensec: u32,
  reserved2: u32,
  mtime: u64,
  mtimensec: u32,
  reserved3: u32,
  rdevMajor: u32,
  rdevMinor: u32,
  devMajor: u32,
  devMinor: u32,
  spare2: bytes(112),
});

export const OPEN_IN = struct('fuse_open_in', 'little', { flags: u32, openFlags: u32 });
export const OPEN_OUT = struct('fuse_open_out', 'little', {
  fh: u64,
  openFlags: u32,
  backingId: i32,
});

/** Bits of OPEN's answer. */
export const FOPEN = {
  DIRECT_IO: 1 << 0,
  KEEP_CACHE: 1 << 1,
  CACHE_DIR: 1 << 3,
  /** Writes that do not make the file longer may be sent at the same time. */
  PARALLEL_DIRECT_WRITES: 1 << 6,
} as const;

export const READ_IN = struct('fuse_read_in', 'little', {
  fh: u64,
  offset: u64,
  size: u32,
  readFlags: u32,
  lockOwner: bits64,
  flags: u32,
  padding: u32,
});

export const RELEASE_IN = struct('fuse_release_in', 'little', {
  fh: u64,
  flags: u32,
  releaseFlags: u32,
  lockOwner: bits64,
});

export const FLUSH_IN = struct('fuse_flush_in', 'little', {
  fh: u64,
  unused: u32,
  padding: u32,
  lockOwner: bits64,
});

export const FSYNC_IN = struct('fuse_fsync_in', 'little', {
  fh: u64,
  fsyncFlags: u32,
  padding: u32,
});

export const LSEEK_IN = struct('fuse_lseek_in', 'little', {
  fh: u64,
  offset: u64,
  whence: u32,
  padding: u32,
});
export const LSEEK_OUT = struct('fuse_lseek_out', 'little', { offset: u64 });

export const ACCESS_IN = struct('fuse_access_in', 'little', { mask: u32, padding: u32 });
export const INTERRUPT_IN = struct('fuse_interrupt_in', 'little', { unique: u64 });

export const GETXATTR_IN = struct('fuse_getxattr_in', 'little', { size: u32, padding: u32 });
export const GETXATTR_OUT = struct('fuse_getxattr_out', 'little', { size: u32, padding: u32 });

export const STATFS_OUT = struct('fuse_statfs_out', 'little', {
  blocks: u64,
  bfree: u64,
  bavail: u64,
  files: u64,
  ffree: u64,
  bsize: u32,
  namelen: u32,
  frsize: u32,
  padding: u32,
  spare: bytes(24),
});

/** The name follows, padded to a multiple of 8 bytes. */
export const DIRENT = struct('fuse_dirent', 'little', {
  ino: u64,
  off: u64,
  namelen: u32,
  type: u32,
});
/** d_type of a directory entry. */
export const DIRENT_TYPE = { DIRECTORY: 4, FILE: 8 } as const;

/** Messages to the kernel that answer no request. */
export const NOTIFY_CODE = { INVAL_INODE: 2 } as const;

/** `off` below zero: the attributes alone. `len` of 0: up to the end. */
export const NOTIFY_INVAL_INODE_OUT = struct('fuse_notify_inval_inode_out', 'little', {
  ino: u64,
  off: u64,
  len: u64,
});
