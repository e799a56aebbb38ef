/**
 * One record for each opcode: it drives parsing, size checks, dispatch and the trace. A handler
 * reads its request, calls one operation and writes its payload into the reply.
 */
import { constants } from 'node:fs';
import { ImageError, isExpected } from '../errors.js';
import type { Node } from '../mount/node.js';
import type { Operations } from '../mount/operations.js';
import {
  ACCESS_IN,
  BATCH_FORGET_IN,
  FOPEN,
  FORGET_IN,
  GETATTR_IN,
  GETXATTR_IN,
  GETXATTR_OUT,
  INIT_IN,
  INTERRUPT_IN,
  LSEEK_IN,
  LSEEK_OUT,
  OPEN_IN,
  OPEN_OUT,
  READ_IN,
  RELEASE_IN,
  STATFS_OUT,
  STATX_IN,
} from './abi.js';
import { BY_HANDLE, NAMED, type Opcode, opcode, type Serve, UNANSWERED } from './opcode.js';
import { WRITING_OPCODES } from './opcodes-write.js';
import { PAYLOAD, type Reply } from './reply.js';
import type { Request } from './request.js';

const READ = READ_IN.offsets;

const lookup: Serve = (operations, request, reply) => {
  reply.entry(operations.lookup(request.nodeid, request.text(0)));
};

const getattr: Serve = (operations, request, reply) => {
  reply.attr(operations.node(request.nodeid));
};

const statx: Serve = (operations, request, reply) => {
  reply.statx(operations.node(request.nodeid));
};

/**
 * Who opens with O_DIRECT bypasses the page cache; for all others it is kept over opens, where what
 * the file shows does not change. What can be written has more than one name: each would have
 * pages of its own, and show what was written through another too late. So it has none.
 */
const open: Serve = (operations, request, reply) => {
  const { flags } = request.read(OPEN_IN);
  const { handle, lasting } = operations.open(request.nodeid, flags);
  const direct = (flags & constants.O_DIRECT) !== 0;
  const cached = direct ? FOPEN.DIRECT_IO : FOPEN.KEEP_CACHE;
  const openFlags = lasting ? cached : FOPEN.DIRECT_IO | FOPEN.PARALLEL_DIRECT_WRITES;
  OPEN_OUT.write(reply.view, reply.take(OPEN_OUT.size), { fh: handle, openFlags });
};

const release: Serve = (operations, request) => {
  operations.release(request.nodeid, request.u64(RELEASE_IN.offsets.fh));
};

const opendir: Serve = (operations, request, reply) => {
  const lasting = operations.changes === null && operations.lasts(request.nodeid);
  const openFlags = lasting ? FOPEN.CACHE_DIR | FOPEN.KEEP_CACHE : 0;
  OPEN_OUT.write(reply.view, reply.take(OPEN_OUT.size), { openFlags });
};

const read: Serve = (operations, request, reply) => {
  const size = Math.min(request.u32(READ.size), reply.buffer.length - PAYLOAD);
  const offset = request.u64(READ.offset);
  const handle = request.u64(READ.fh);
  reply.length = operations.read(request.nodeid, offset, size, reply.buffer, PAYLOAD, handle);
};

const lseek: Serve = (operations, request, reply) => {
  const { fh, offset, whence } = request.read(LSEEK_IN);
  const found = operations.lseek(request.nodeid, offset, whence, fh);
  LSEEK_OUT.write(reply.view, reply.take(LSEEK_OUT.size), { offset: found });
};

function listing(plus: boolean): Serve {
  return (operations, request, reply) => {
    const self = operations.directory(request.nodeid);
    const room = Math.min(request.u32(READ.size), reply.buffer.length - PAYLOAD);
    const dots = [
      { name: '.', id: self.id, directory: true },
      { name: '..', id: self.parent, directory: true },
    ];
    const from = request.u64(READ.offset);
    for (let at = from; at < dots.length; at++) {
      if (!reply.dirent(room, at + 1, dots[at]!, plus ? null : undefined)) return;
    }
    const entries = operations.readdir(request.nodeid, Math.max(0, from - dots.length));
    for (const entry of entries) {
      const node = plus ? nodeOrNull(operations, entry.id) : undefined;
      if (!reply.dirent(room, entry.next + dots.length, entry, node)) return;
    }
  };
}

/** A file that cannot be looked at is listed all the same. */
function nodeOrNull(operations: Operations, id: number): Node | null {
  try {
    return operations.node(id);
  } catch (error) {
    if (isExpected(error)) return null;
    throw error;
  }
}

const statfs: Serve = (operations, _request, reply) => {
  const { blocks, files, blockSize, nameMax } = operations.statfs();
  STATFS_OUT.write(reply.view, reply.take(STATFS_OUT.size), {
    blocks,
    files,
    bsize: blockSize,
    frsize: blockSize,
    namelen: nameMax,
  });
};

const getxattr: Serve = (operations, request, reply) => {
  const value = operations.getxattr(request.nodeid, request.text(GETXATTR_IN.size));
  sized(request, reply, value);
};

const listxattr: Serve = (operations, request, reply) => {
  const names = operations.listxattr(request.nodeid);
  sized(request, reply, names.map((name) => `${name}\0`).join(''));
};

/** A text for who has room for it; its size for who asks with none. */
function sized(request: Request, reply: Reply, text: string): void {
  const { size } = request.read(GETXATTR_IN);
  const length = Buffer.byteLength(text);
  if (size === 0) GETXATTR_OUT.write(reply.view, reply.take(GETXATTR_OUT.size), { size: length });
  else if (size < length) throw new ImageError('invalid', 'ERANGE', `value of ${length} bytes`);
  else reply.text(text);
}

const access: Serve = (operations, request) => {
  operations.access(request.nodeid, request.read(ACCESS_IN).mask);
};

const nothing: Serve = () => {};
const once: Serve = () => {
  throw new ImageError('invalid', 'ENOSYS', 'a second INIT');
};

const LOOKS = { looks: true };
const LOOKS_BY_HANDLE = { looks: true, byHandle: true };
const OF_FOLDER = { looks: true, ofFolder: true };

/** Answered by the main thread, before there is a dispatcher (init.ts). */
export const INIT = opcode(26, 'INIT', INIT_IN, once);

/** Nodes are made from their numbers: there is nothing to forget, but for who counts them (`Sessions`). */
export const FORGET = opcode(2, 'FORGET', FORGET_IN, nothing, UNANSWERED);
export const BATCH_FORGET = opcode(42, 'BATCH_FORGET', BATCH_FORGET_IN, nothing, UNANSWERED);

export const GETXATTR = opcode(22, 'GETXATTR', GETXATTR_IN, getxattr, { ...NAMED, ...LOOKS });
export const LISTXATTR = opcode(23, 'LISTXATTR', GETXATTR_IN, listxattr, LOOKS);

/** All opcodes that are served; the kernel learns by ENOSYS that it need not send others. */
export const OPCODES: readonly Opcode[] = [
  opcode(1, 'LOOKUP', null, lookup, { ...NAMED, ...LOOKS }),
  FORGET,
  opcode(3, 'GETATTR', GETATTR_IN, getattr, OF_FOLDER),
  opcode(14, 'OPEN', OPEN_IN, open, { files: 1 }),
  opcode(15, 'READ', READ_IN, read, LOOKS_BY_HANDLE),
  opcode(17, 'STATFS', null, statfs, LOOKS),
  opcode(18, 'RELEASE', RELEASE_IN, release, { ...BY_HANDLE, files: -1 }),
  GETXATTR,
  LISTXATTR,
  INIT,
  opcode(27, 'OPENDIR', OPEN_IN, opendir),
  opcode(28, 'READDIR', READ_IN, listing(false), LOOKS_BY_HANDLE),
  opcode(29, 'RELEASEDIR', RELEASE_IN, nothing, { ...BY_HANDLE, ofFolder: true }),
  opcode(34, 'ACCESS', ACCESS_IN, access, OF_FOLDER),
  // The request that is interrupted is finished and answered: none takes long.
  opcode(36, 'INTERRUPT', INTERRUPT_IN, nothing, UNANSWERED),
  opcode(38, 'DESTROY', null, nothing, BY_HANDLE),
  BATCH_FORGET,
  opcode(44, 'READDIRPLUS', READ_IN, listing(true), LOOKS_BY_HANDLE),
  opcode(46, 'LSEEK', LSEEK_IN, lseek, LOOKS_BY_HANDLE),
  opcode(52, 'STATX', STATX_IN, statx, OF_FOLDER),
  ...WRITING_OPCODES,
];

export const OPCODE_NAMES: ReadonlyMap<number, string> = new Map(
  OPCODES.map(({ code, name }) => [code, name]),
);
