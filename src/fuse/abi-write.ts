/** Structs of the requests that change something. */
import { bits64, struct, u32, u64 } from '../codec/struct.js';

export const SETATTR_IN = struct('fuse_setattr_in', 'little', {
  valid: u32,
  padding: u32,
  fh: u64,
  size: u64,
  lockOwner: bits64,
  atime: u64,
  mtime: u64,
  ctime: u64,
  atimensec: u32,
  mtimensec: u32,
  ctimensec: u32,
  mode: u32,
  unused4: u32,
  uid: u32,
  gid: u32,
  unused5: u32,
});

/** Bits of its `valid`: what is to be set. Times have others. */
export const FATTR = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  FH: 1 << 6,
} as const;

export const MKNOD_IN = struct('fuse_mknod_in', 'little', {
  mode: u32,
  rdev: u32,
  umask: u32,
  padding: u32,
});
export const MKDIR_IN = struct('fuse_mkdir_in', 'little', { mode: u32, umask: u32 });

/** Two names follow, as behind the next one. */
export const RENAME_IN = struct('fuse_rename_in', 'little', { newdir: u64 });
export const RENAME2_IN = struct('fuse_rename2_in', 'little', {
  newdir: u64,
  flags: u32,
  padding: u32,
});
export const LINK_IN = struct('fuse_link_in', 'little', { oldnodeid: u64 });

/** `size` bytes of data follow. */
export const WRITE_IN = struct('fuse_write_in', 'little', {
  fh: u64,
  offset: u64,
  size: u32,
  writeFlags: u32,
  lockOwner: bits64,
  flags: u32,
  padding: u32,
});

export const WRITE_OUT = struct('fuse_write_out', 'little', { size: u32, padding: u32 });

/** TMPFILE's, too. */
export const CREATE_IN = struct('fuse_create_in', 'little', {
  flags: u32,
  mode: u32,
  umask: u32,
  openFlags: u32,
});

export const FALLOCATE_IN = struct('fuse_fallocate_in', 'little', {
  fh: u64,
  offset: u64,
  length: u64,
  mode: u32,
  padding: u32,
});

export const COPY_FILE_RANGE_IN = struct('fuse_copy_file_range_in', 'little', {
  fhIn: u64,
  offIn: u64,
  nodeidOut: u64,
  fhOut: u64,
  offOut: u64,
  len: u64,
  flags: bits64,
});

/** Without FUSE_SETXATTR_EXT, which is not asked for. The name follows, and the value. */
export const SETXATTR_IN = struct('fuse_setxattr_in', 'little', { size: u32, flags: u32 });
