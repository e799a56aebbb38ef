/** The opcodes that change something. In a read-only mount all of them answer EROFS. */
import { constants } from 'node:fs';
import { ImageError } from '../errors.js';
import type { Changes } from '../mount/changes.js';
import { type Operations, readOnly } from '../mount/operations.js';
import { FLUSH_IN, FSYNC_IN, IN_HEADER, OPEN_OUT } from './abi.js';
import {
  COPY_FILE_RANGE_IN,
  CREATE_IN,
  FALLOCATE_IN,
  FATTR,
  LINK_IN,
  MKDIR_IN,
  MKNOD_IN,
  RENAME2_IN,
  RENAME_IN,
  SETATTR_IN,
  SETXATTR_IN,
  WRITE_IN,
  WRITE_OUT,
} from './abi-write.js';
import { BY_HANDLE, NAMED, type Opcode, opcode, type Serve } from './opcode.js';

const WRITE = WRITE_IN.offsets;
/** Where the data of a WRITE lies in the request. */
const WRITE_DATA = IN_HEADER.size + WRITE_IN.size;
/** O_SYNC holds it, too. */
const DURABLE = constants.O_DSYNC;
const S_IFMT = 0o170000;
const S_IFREG = 0o100000;

function changesOf({ changes }: Operations): Changes {
  return changes ?? readOnly();
}

const write: Serve = (operations, request, reply) => {
  const changes = changesOf(operations);
  const size = request.u32(WRITE.size);
  if (WRITE_DATA + size > request.length) {
    throw new ImageError('invalid', 'EINVAL', `WRITE of ${size} bytes without them`);
  }
  const [handle, offset] = [request.u64(WRITE.fh), request.u64(WRITE.offset)];
  const durable = (request.u32(WRITE.flags) & DURABLE) !== 0;
  const { nodeid, buffer } = request;
  const written = changes.write(nodeid, handle, offset, size, buffer, WRITE_DATA, durable);
  WRITE_OUT.write(reply.view, reply.take(WRITE_OUT.size), { size: written });
};

const fallocate: Serve = (operations, request) => {
  const { fh, mode, offset, length } = request.read(FALLOCATE_IN);
  changesOf(operations).fallocate(request.nodeid, fh, mode, offset, length);
};

/** Times are taken and forgotten: those shown are the image's, and change with what is written. */
const setattr: Serve = (operations, request, reply) => {
  const changes = changesOf(operations);
  const { valid, fh, size, mode, uid, gid } = request.read(SETATTR_IN);
  const given = <T>(bit: number, value: T) => ((valid & bit) === 0 ? undefined : value);
  const node = operations.within(() => operations.node(request.nodeid));
  changes.setAttributes(node, given(FATTR.FH, fh) ?? 0, {
    mode: given(FATTR.MODE, mode),
    uid: given(FATTR.UID, uid),
    gid: given(FATTR.GID, gid),
    size: given(FATTR.SIZE, size),
  });
  operations.within(() => reply.attr(operations.node(request.nodeid)));
};

const fsync: Serve = (operations) => {
  // Nothing is held back in a read-only mount.
  operations.changes?.flush();
};

const flush: Serve = (operations, request) => {
  operations.changes?.close(request.u64(FLUSH_IN.offsets.fh));
};

const create: Serve = (operations, request, reply) => {
  const { snapshots } = changesOf(operations);
  const name = request.text(CREATE_IN.size);
  const node = snapshots.create(request.nodeid, name, true);
  reply.entry(node);
  // Writing to it will be refused: nothing needs to be made durable when it is closed.
  OPEN_OUT.write(reply.view, reply.take(OPEN_OUT.size), {});
};

const mknod: Serve = (operations, request, reply) => {
  const { snapshots } = changesOf(operations);
  const { mode } = request.read(MKNOD_IN);
  if ((mode & S_IFMT) !== S_IFREG) forbid();
  reply.entry(snapshots.create(request.nodeid, request.text(MKNOD_IN.size), false));
};

const unlink: Serve = (operations, request) => {
  changesOf(operations).snapshots.remove(request.nodeid, request.text(0));
};

const rename: Serve = (operations, request) => {
  const { snapshots } = changesOf(operations);
  const [from, to] = request.texts(RENAME_IN.size);
  const { newdir } = request.read(RENAME_IN);
  snapshots.rename(request.nodeid, from, newdir - request.base, to, 0);
};

const rename2: Serve = (operations, request) => {
  const { snapshots } = changesOf(operations);
  const { newdir, flags } = request.read(RENAME2_IN);
  const [from, to] = request.texts(RENAME2_IN.size);
  snapshots.rename(request.nodeid, from, newdir - request.base, to, flags);
};

const setxattr: Serve = (operations, request) => {
  const { snapshots } = changesOf(operations);
  const { size } = request.read(SETXATTR_IN);
  const name = request.text(SETXATTR_IN.size);
  const start = SETXATTR_IN.size + Buffer.byteLength(name) + 1;
  const value = request.bytes(start, size);
  if (value === undefined) {
    throw new ImageError('invalid', 'EINVAL', `SETXATTR of ${size} bytes without them`);
  }
  snapshots.control(request.nodeid, name, value.toString(), request.pid);
};

/** What cannot be done even where one can write: only disks and snapshots can be changed. */
const forbidden: Serve = (operations) => {
  changesOf(operations);
  forbid();
};

const unsupported: Serve = (operations) => {
  changesOf(operations);
  throw new ImageError('unsupported', 'EOPNOTSUPP', 'not supported');
};

function forbid(): never {
  throw new ImageError('policy', 'EPERM', 'only snapshots can be made here');
}

export const WRITING_OPCODES: readonly Opcode[] = [
  opcode(4, 'SETATTR', SETATTR_IN, setattr),
  opcode(6, 'SYMLINK', null, forbidden, NAMED),
  opcode(8, 'MKNOD', MKNOD_IN, mknod, NAMED),
  opcode(9, 'MKDIR', MKDIR_IN, forbidden, NAMED),
  opcode(10, 'UNLINK', null, unlink, NAMED),
  opcode(11, 'RMDIR', null, forbidden, NAMED),
  opcode(12, 'RENAME', RENAME_IN, rename, NAMED),
  opcode(13, 'LINK', LINK_IN, forbidden, NAMED),
  opcode(16, 'WRITE', WRITE_IN, write, BY_HANDLE),
  opcode(20, 'FSYNC', FSYNC_IN, fsync, BY_HANDLE),
  opcode(21, 'SETXATTR', SETXATTR_IN, setxattr, NAMED),
  opcode(24, 'REMOVEXATTR', null, unsupported, NAMED),
  opcode(25, 'FLUSH', FLUSH_IN, flush, BY_HANDLE),
  opcode(30, 'FSYNCDIR', FSYNC_IN, fsync, BY_HANDLE),
  opcode(35, 'CREATE', CREATE_IN, create, { ...NAMED, files: 1 }),
  opcode(43, 'FALLOCATE', FALLOCATE_IN, fallocate, BY_HANDLE),
  opcode(45, 'RENAME2', RENAME2_IN, rename2, NAMED),
  // The kernel reads and writes instead.
  opcode(47, 'COPY_FILE_RANGE', COPY_FILE_RANGE_IN, unsupported, BY_HANDLE),
  opcode(51, 'TMPFILE', CREATE_IN, unsupported, NAMED),
];
