import { expect } from 'chai';
import { IN_HEADER, LSEEK_IN, OPEN_IN, OUT_HEADER, READ_IN } from '#src/fuse/abi.js';
import { Dispatcher } from '#src/fuse/dispatch.js';
import { OPCODES } from '#src/fuse/opcodes.js';
import { SoleSession } from '#src/fuse/sessions.js';
import { ERRNO, ImageError } from '#src/errors.js';
import type { FileNode, Node } from '#src/mount/node.js';
import { Operations } from '#src/mount/operations.js';
import type { Tree } from '#src/mount/tree.js';
import { allocateImageCounters, ImageCounters } from '#src/shared/image-counters.js';
import { IoBuffer } from '#src/sys/io-buffer.js';

const CODE = Object.fromEntries(OPCODES.map(({ name, code }) => [name, code]));
const TIME = { sec: 1, nsec: 2 };
const CONTENT = Buffer.from('0123456789abcdef');

function attributes(ino: number, mode: number, size: number) {
  const times = { atime: TIME, mtime: TIME, ctime: TIME, btime: TIME };
  return { ino, size, blocks: 1, mode, nlink: 1, uid: 0, gid: 0, blksize: 4096, ...times };
}

const LASTING = { name: true, attributes: true };

const ROOT: Node = {
  kind: 'directory',
  id: 1,
  parent: 1,
  lasting: LASTING,
  attributes: attributes(1, 0o40555, 0),
};

const FILE: FileNode = {
  kind: 'file',
  id: 8,
  parent: 1,
  lasting: LASTING,
  attributes: attributes(8, 0o100444, CONTENT.length),
  content: {
    size: CONTENT.length,
    read(offset, length, target, at) {
      if (offset === 13) throw new Error('a bug');
      if (offset === 14) throw new ImageError('corrupt', 'EIO', 'bad cluster');
      target.bytes.set(CONTENT.subarray(offset, offset + length), at);
    },
    seek: (offset, hole) => (hole ? CONTENT.length : offset),
  },
};

/** A tree of one file, as far as the operations ask. */
const TREE = {
  enter() {},
  leave() {},
  isOfView: (id: number) => id === 8,
  lasts: () => true,
  node: (id: number) => [ROOT, FILE].find((node) => node.id === id),
  content: (id: number) => (id === 8 ? FILE.content : undefined),
  lookup: (_directory: number, name: string) => (name === 'disk.raw' ? 8 : undefined),
  list: (_directory: number, from: number) =>
    from === 0 ? [{ name: 'disk.raw', id: 8, directory: false, next: 1 }] : [],
  xattrs: (id: number) => new Map(id === 1 ? [['user.qcow2.format', 'qcow2']] : []),
  disk: { size: CONTENT.length },
  rootFiles: 1,
  counters: new ImageCounters(allocateImageCounters(1), 1),
} as unknown as Tree;

function harness(options: { onlyUser?: number; trace?: boolean; now?: () => number } = {}) {
  const request = new IoBuffer(8192);
  const reply = new IoBuffer(8192);
  const lines: string[] = [];
  const log = {
    error: (line: string) => lines.push(line),
    debug: (line: string) => lines.push(line),
  };
  const dispatcher = new Dispatcher(new SoleSession(new Operations(TREE)), request, reply, {
    log,
    ...options,
  });
  const send = (opcode: number, nodeid: number, payload: Uint8Array = Buffer.alloc(0), uid = 0) => {
    const len = IN_HEADER.size + payload.length;
    IN_HEADER.write(request.view, 0, { len, opcode, unique: 2 ** 40 + 6, nodeid, uid });
    request.bytes.set(payload, IN_HEADER.size);
    const size = dispatcher.dispatch(len);
    const header = OUT_HEADER.read(reply.view, 0);
    return { size, header, payload: Buffer.from(reply.bytes.subarray(OUT_HEADER.size, size)) };
  };
  return { send, lines };
}

function fields<T extends { size: number; write(view: DataView, at: number, values: V): void }, V>(
  layout: T,
  values: V,
): Buffer {
  const bytes = Buffer.alloc(layout.size);
  layout.write(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 0, values);
  return bytes;
}

describe('Dispatcher', () => {
  it('dispatch() answers LOOKUP with the entry, the unique number unchanged', () => {
    const { header, payload } = harness().send(CODE.LOOKUP!, 1, Buffer.from('disk.raw\0'));
    expect(header).to.include({ error: 0, unique: 2 ** 40 + 6, len: 16 + 128 });
    expect(payload.readUInt32LE(0)).to.equal(8);
  });

  it('dispatch() answers ENOENT for a name that is not there, and logs nothing', () => {
    const { send, lines } = harness();
    expect(send(CODE.LOOKUP!, 1, Buffer.from('x\0')).header.error).to.equal(-ERRNO.ENOENT);
    expect(lines).to.deep.equal([]);
  });

  it('dispatch() reads, short at the end, nothing past it', () => {
    const { send } = harness();
    const read = (offset: number, size: number) =>
      send(CODE.READ!, 8, fields(READ_IN, { offset, size })).payload.toString();
    expect(read(2, 4)).to.equal('2345');
    expect(read(10, 4000)).to.equal('abcdef');
    expect(read(16, 10)).to.equal('');
    expect(read(2 ** 60, 10)).to.equal('');
  });

  it('dispatch() turns a bug in a handler into EIO, logs its stack, and goes on', () => {
    const { send, lines } = harness();
    const bad = send(CODE.READ!, 8, fields(READ_IN, { offset: 13, size: 1 }));
    expect(bad.header).to.include({ error: -ERRNO.EIO, len: 16 });
    expect(lines[0]).to.match(/internal error: Error: a bug/);
    expect(send(CODE.READ!, 8, fields(READ_IN, { offset: 0, size: 1 })).header.error).to.equal(0);
  });

  it('dispatch() logs a repeated I/O error once', () => {
    const { send, lines } = harness();
    for (let i = 0; i < 3; i++) send(CODE.READ!, 8, fields(READ_IN, { offset: 14, size: 1 }));
    expect(lines).to.deep.equal(['READ node 8: bad cluster']);
  });

  it('dispatch() limits how many errors it logs, and tells how many are left out', () => {
    let now = 5;
    const { send, lines } = harness({ now: () => now });
    // Names take turns, so that no line is the one before it again.
    const fail = (node: number) =>
      send(CODE.READ!, 8, fields(READ_IN, { offset: 13 + (node % 2), size: 1 }));
    for (let i = 0; i < 50; i++) fail(i);
    expect(lines).to.have.length(20);
    now += 10_000;
    send(CODE.READ!, 8, fields(READ_IN, { offset: 0, size: 1 }));
    expect(lines.slice(20)).to.deep.equal(['30 more errors not shown']);
    fail(0);
    expect(lines).to.have.length(22);
  });

  it('dispatch() answers EROFS to everything that would write', () => {
    const { send } = harness();
    const writing =
      'SETATTR SYMLINK MKNOD MKDIR UNLINK RMDIR RENAME LINK WRITE SETXATTR REMOVEXATTR';
    for (const name of `${writing} CREATE FALLOCATE RENAME2 COPY_FILE_RANGE TMPFILE`.split(' ')) {
      const { code, layout } = OPCODES.find((opcode) => opcode.name === name)!;
      const payload = Buffer.alloc((layout?.size ?? 0) + 2);
      expect(send(code, 8, payload).header.error, name).to.equal(-ERRNO.EROFS);
    }
    const open = send(CODE.OPEN!, 8, fields(OPEN_IN, { flags: 1 }));
    expect(open.header.error).to.equal(-ERRNO.EROFS);
  });

  it('dispatch() answers ENOSYS to unknown opcodes and EINVAL to requests cut short', () => {
    const { send } = harness();
    expect(send(4711, 1).header.error).to.equal(-ERRNO.ENOSYS);
    for (const { code, name, layout } of OPCODES) {
      if (layout === null || ['FORGET', 'INTERRUPT', 'BATCH_FORGET'].includes(name)) continue;
      const short = send(code, 8, Buffer.alloc(layout.size - 1));
      expect(short.header.error, name).to.equal(-ERRNO.EINVAL);
    }
  });

  it('dispatch() answers nothing to FORGET and INTERRUPT', () => {
    const { send } = harness();
    expect(send(CODE.FORGET!, 8, Buffer.alloc(8)).size).to.equal(0);
    expect(send(CODE.INTERRUPT!, 0, Buffer.alloc(8)).size).to.equal(0);
  });

  it('dispatch() tells the size of an extended attribute, its value, or ERANGE', () => {
    const { send } = harness();
    const get = (size: number, name: string) => {
      const head = Buffer.alloc(8);
      head.writeUInt32LE(size);
      return send(CODE.GETXATTR!, 1, Buffer.concat([head, Buffer.from(`${name}\0`)]));
    };
    expect(get(0, 'user.qcow2.format').payload.readUInt32LE()).to.equal(5);
    expect(get(100, 'user.qcow2.format').payload.toString()).to.equal('qcow2');
    expect(get(3, 'user.qcow2.format').header.error).to.equal(-ERRNO.ERANGE);
    expect(get(3, 'security.capability').header.error).to.equal(-ERRNO.ENODATA);
  });

  it('dispatch() lists with and without attributes, page by page', () => {
    const { send } = harness();
    const list = (code: number, offset: number, size: number) =>
      send(code, 1, fields(READ_IN, { offset, size })).payload;
    expect(list(CODE.READDIR!, 0, 4096).toString('latin1')).to.match(/disk\.raw/);
    expect(list(CODE.READDIR!, 0, 40)).to.have.length(32);
    expect(list(CODE.READDIR!, 3, 4096)).to.have.length(0);
    const plus = list(CODE.READDIRPLUS!, 2, 4096);
    expect(plus.readUInt32LE(0)).to.equal(8);
    expect(plus.length).to.equal(128 + 32);
  });

  it('dispatch() seeks data and holes, ENXIO past the end', () => {
    const { send } = harness();
    const seek = (offset: number, whence: number) =>
      send(CODE.LSEEK!, 8, fields(LSEEK_IN, { offset, whence }));
    expect(seek(3, 3).payload.readUInt32LE()).to.equal(3);
    expect(seek(3, 4).payload.readUInt32LE()).to.equal(16);
    expect(seek(16, 4).header.error).to.equal(-ERRNO.ENXIO);
  });

  it('dispatch() lets only root and one user in with onlyUser', () => {
    const { send } = harness({ onlyUser: 1000 });
    const error = (uid: number) => send(CODE.GETATTR!, 8, Buffer.alloc(16), uid).header.error;
    expect([error(0), error(1000), error(1001)]).to.deep.equal([0, 0, -ERRNO.EACCES]);
  });

  it('dispatch() traces each request from the table', () => {
    const { send, lines } = harness({ trace: true });
    send(CODE.READ!, 8, fields(READ_IN, { offset: 2, size: 4 }));
    expect(lines[0]).to.match(/^READ #1099511627782 node 8 \{.*offset: 2, size: 4.*\} -> 4 bytes/);
  });
});
