/**
 * One record for each opcode: it drives parsing, size checks, dispatch and the trace. A handler
 * reads its request, calls one operation and writes its payload into the reply.
 */
import { constants } from 'node:fs';
import { ImageError, isExpected } from '../errors.js';
import type { Node } from '../mount/node.js';
import { type Operations, readOnly } from '../mount/operations.js';
import {
  ACCESS_IN,
  BATCH_FORGET_IN,
  FLUSH_IN,
  FOPEN,
  FORGET_IN,
  FSYNC_IN,
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
import {
  COPY_FILE_RANGE_IN,
  CREATE_IN,
  FALLOCATE_IN,
  LINK_IN,
  MKDIR_IN,
  MKNOD_IN,
  RENAME2_IN,
  RENAME_IN,
  SETATTR_IN,
  SETXATTR_IN,
  WRITE_IN,
} from './abi-write.js';
import { PAYLOAD, type Reply } from './reply.js';
import type { Request } from './request.js';

/** A struct, as far as it is the same for all. */
interface Layout {
  readonly size: number;
  read(view: DataView, at: number): object;
}

export type Serve = (operations: Operations, request: Request, reply: Reply) => void;

export interface Opcode {
  readonly code: number;
  readonly name: string;
  /** What the request must at least hold behind its header. */
  readonly layout: Layout | null;
  /** Whether a name follows the layout. */
  readonly named: boolean;
  /** Whether the kernel waits for an answer. */
  readonly answered: boolean;
  /** Whether it works on an open file, so that opening it was the check of who may. */
  readonly byHandle: boolean;
  readonly serve: Serve;
}

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
 * Who opens with O_DIRECT bypasses the page cache; for all others it is kept over opens, since what
 * a read-only mount shows does not change.
 */
const open: Serve = (operations, request, reply) => {
  const { flags } = request.read(OPEN_IN);
  operations.open(request.nodeid, flags);
  const direct = (flags & constants.O_DIRECT) !== 0;
  const openFlags = direct ? FOPEN.DIRECT_IO : FOPEN.KEEP_CACHE;
  OPEN_OUT.write(reply.view, reply.take(OPEN_OUT.size), { openFlags });
};

const opendir: Serve = (_operations, _request, reply) => {
  const openFlags = FOPEN.CACHE_DIR | FOPEN.KEEP_CACHE;
  OPEN_OUT.write(reply.view, reply.take(OPEN_OUT.size), { openFlags });
};

const read: Serve = (operations, request, reply) => {
  const size = Math.min(request.u32(READ.size), reply.buffer.length - PAYLOAD);
  const offset = request.u64(READ.offset);
  reply.length = operations.read(request.nodeid, offset, size, reply.buffer, PAYLOAD);
};

const lseek: Serve = (operations, request, reply) => {
  const { offset, whence } = request.read(LSEEK_IN);
  const found = operations.lseek(request.nodeid, offset, whence);
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
const refuse: Serve = () => readOnly();
const once: Serve = () => {
  throw new ImageError('invalid', 'ENOSYS', 'a second INIT');
};

type Traits = Partial<Pick<Opcode, 'named' | 'answered' | 'byHandle'>>;

function opcode(
  code: number,
  name: string,
  layout: Layout | null,
  serve: Serve,
  { named = false, answered = true, byHandle = false }: Traits = {},
): Opcode {
  return { code, name, layout, serve, named, answered, byHandle };
}

const NAMED = { named: true };
const UNANSWERED = { answered: false, byHandle: true };
const BY_HANDLE = { byHandle: true };

/** Answered by the main thread, before there is a dispatcher (init.ts). */
export const INIT = opcode(26, 'INIT', INIT_IN, once);

/** All opcodes that are served; the kernel learns by ENOSYS that it need not send others. */
export const OPCODES: readonly Opcode[] = [
  opcode(1, 'LOOKUP', null, lookup, NAMED),
  // Nodes are made from their numbers: there is nothing to forget.
  opcode(2, 'FORGET', FORGET_IN, nothing, UNANSWERED),
  opcode(3, 'GETATTR', GETATTR_IN, getattr),
  opcode(4, 'SETATTR', SETATTR_IN, refuse),
  opcode(6, 'SYMLINK', null, refuse, NAMED),
  opcode(8, 'MKNOD', MKNOD_IN, refuse, NAMED),
  opcode(9, 'MKDIR', MKDIR_IN, refuse, NAMED),
  opcode(10, 'UNLINK', null, refuse, NAMED),
  opcode(11, 'RMDIR', null, refuse, NAMED),
  opcode(12, 'RENAME', RENAME_IN, refuse, NAMED),
  opcode(13, 'LINK', LINK_IN, refuse, NAMED),
  opcode(14, 'OPEN', OPEN_IN, open),
  opcode(15, 'READ', READ_IN, read, BY_HANDLE),
  opcode(16, 'WRITE', WRITE_IN, refuse, BY_HANDLE),
  opcode(17, 'STATFS', null, statfs),
  opcode(18, 'RELEASE', RELEASE_IN, nothing, BY_HANDLE),
  opcode(20, 'FSYNC', FSYNC_IN, nothing, BY_HANDLE),
  opcode(21, 'SETXATTR', SETXATTR_IN, refuse, NAMED),
  opcode(22, 'GETXATTR', GETXATTR_IN, getxattr, NAMED),
  opcode(23, 'LISTXATTR', GETXATTR_IN, listxattr),
  opcode(24, 'REMOVEXATTR', null, refuse, NAMED),
  opcode(25, 'FLUSH', FLUSH_IN, nothing, BY_HANDLE),
  INIT,
  opcode(27, 'OPENDIR', OPEN_IN, opendir),
  opcode(28, 'READDIR', READ_IN, listing(false), BY_HANDLE),
  opcode(29, 'RELEASEDIR', RELEASE_IN, nothing, BY_HANDLE),
  opcode(30, 'FSYNCDIR', FSYNC_IN, nothing, BY_HANDLE),
  opcode(34, 'ACCESS', ACCESS_IN, access),
  opcode(35, 'CREATE', CREATE_IN, refuse, NAMED),
  // The request that is interrupted is finished and answered: none takes long.
  opcode(36, 'INTERRUPT', INTERRUPT_IN, nothing, UNANSWERED),
  opcode(38, 'DESTROY', null, nothing, BY_HANDLE),
  opcode(42, 'BATCH_FORGET', BATCH_FORGET_IN, nothing, UNANSWERED),
  opcode(43, 'FALLOCATE', FALLOCATE_IN, refuse, BY_HANDLE),
  opcode(44, 'READDIRPLUS', READ_IN, listing(true), BY_HANDLE),
  opcode(45, 'RENAME2', RENAME2_IN, refuse, NAMED),
  opcode(46, 'LSEEK', LSEEK_IN, lseek, BY_HANDLE),
  opcode(47, 'COPY_FILE_RANGE', COPY_FILE_RANGE_IN, refuse, BY_HANDLE),
  opcode(51, 'TMPFILE', CREATE_IN, refuse, NAMED),
  opcode(52, 'STATX', STATX_IN, statx),
];
