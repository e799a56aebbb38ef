/** Requests that change something, from bytes to bytes: over a disk in memory and a few snapshots. */
import { expect } from 'chai';
import { ERRNO, ImageError } from '#src/errors.js';
import {
  ATTR_OUT,
  ENTRY_OUT,
  FLUSH_IN,
  FOPEN,
  FSYNC_IN,
  GETXATTR_IN,
  IN_HEADER,
  OPEN_IN,
  OPEN_OUT,
  OUT_HEADER,
  READ_IN,
  RELEASE_IN,
} from '#src/fuse/abi.js';
import {
  CREATE_IN,
  FALLOCATE_IN,
  MKNOD_IN,
  RENAME2_IN,
  RENAME_IN,
  SETATTR_IN,
  SETXATTR_IN,
  WRITE_IN,
} from '#src/fuse/abi-write.js';
import { Dispatcher } from '#src/fuse/dispatch.js';
import { OPCODE_NAMES, OPCODES } from '#src/fuse/opcodes.js';
import { SoleSession } from '#src/fuse/sessions.js';
import type { AttachedImage } from '#src/image/attach.js';
import { Changes } from '#src/mount/changes.js';
import type { MountFacts } from '#src/mount/facts.js';
import { nodeId, SLOT } from '#src/mount/node.js';
import { allocateOpenFiles, OpenFiles } from '#src/mount/open-files.js';
import { Operations } from '#src/mount/operations.js';
import { allocateStatus } from '#src/mount/status.js';
import { Tree } from '#src/mount/tree.js';
import { allocateMountState, MountState } from '#src/shared/mount-state.js';
import { allocateToldSizes } from '#src/shared/told-sizes.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { parseMetrics } from '../helpers/prometheus.js';
import { FakeImage, KIB, snapshotNamed, START } from '../helpers/fake-image.js';

const CODE = Object.fromEntries(OPCODES.map(({ name, code }) => [name, code]));
const ROOT = 1;
const RAW = nodeId(0, SLOT.RAW);
const FOLDER = nodeId(0, SLOT.SNAPSHOTS);
const PARTITION = nodeId(0, SLOT.PARTITION + 1);
const O_WRONLY = 1;
const O_DSYNC = 0o10000;

const TIME = { sec: 1, nsec: 2 };
const FACTS = {
  ...{ uid: 3, gid: 4, fileMode: 0o444, directoryMode: 0o555, diskMode: 0o644 },
  ...{ atime: TIME, mtime: TIME, ctime: TIME, btime: TIME, imageBlocks: 0 },
  ...{
    info: '{}',
    imageName: 'vm',
    status: allocateStatus(1, OPCODE_NAMES),
    snapshot: null,
    rootIsFile: false,
    stem: 'vm',
  },
  told: new Uint8Array(16),
  toldSizes: allocateToldSizes(),
} satisfies MountFacts;

function fields<V>(
  layout: { size: number; write(view: DataView, at: number, values: V): void },
  values: V,
  ...texts: (string | Uint8Array)[]
): Buffer {
  const bytes = Buffer.alloc(layout.size);
  layout.write(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 0, values);
  return Buffer.concat([bytes, ...texts.map((text) => Buffer.from(text as string))]);
}

function harness(image = new FakeImage()) {
  const request = new IoBuffer(128 * KIB);
  const reply = new IoBuffer(128 * KIB);
  const files = new OpenFiles(allocateOpenFiles(), image.disk, 1);
  const tree = new Tree(image as unknown as AttachedImage, FACTS, files.windows);
  const state = new MountState(allocateMountState(), 1);
  const changes = new Changes({ tree, disk: image.disk, writer: image.writer, files, state });
  const lines: string[] = [];
  const log = { error: (line: string) => lines.push(line), debug: () => {} };
  const dispatcher = new Dispatcher(
    new SoleSession(new Operations(tree, changes)),
    request,
    reply,
    { log },
  );
  const send = (opcode: string, nodeid: number, payload: Uint8Array = Buffer.alloc(0)) => {
    const len = IN_HEADER.size + payload.length;
    IN_HEADER.write(request.view, 0, { len, opcode: CODE[opcode]!, unique: 6, nodeid });
    request.bytes.set(payload, IN_HEADER.size);
    const size = dispatcher.dispatch(len);
    const { error } = OUT_HEADER.read(reply.view, 0);
    expect(image.entered, 'left').to.equal(0);
    expect(lines).to.deep.equal([]);
    return {
      error: Math.abs(error),
      payload: Buffer.from(reply.bytes.subarray(OUT_HEADER.size, size)),
    };
  };
  const open = (nodeid: number, flags = O_WRONLY) => {
    const { error, payload } = send('OPEN', nodeid, fields(OPEN_IN, { flags }));
    return error === 0
      ? { error, ...OPEN_OUT.read(viewOf(payload), 0) }
      : { error, fh: -1, openFlags: -1 };
  };
  const write = (nodeid: number, fh: number, offset: number, data: Uint8Array, flags = 0) =>
    send('WRITE', nodeid, fields(WRITE_IN, { fh, offset, size: data.length, flags }, data));
  const release = (nodeid: number, fh: number) =>
    send('RELEASE', nodeid, fields(RELEASE_IN, { fh })).error;
  const control = (name: string, value: string, nodeid = ROOT) => {
    const head = { size: Buffer.byteLength(value) };
    return send('SETXATTR', nodeid, fields(SETXATTR_IN, head, `user.qcow2.${name}\0`, value)).error;
  };
  return { image, send, open, write, release, control, state, dispatcher, lines };
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

const DIRECT = FOPEN.DIRECT_IO | FOPEN.PARALLEL_DIRECT_WRITES;

describe('Dispatcher in a mount that can be written to', () => {
  it('opens what can be written without pages, snapshots with them', () => {
    const { open } = harness();
    expect(open(RAW)).to.include({ error: 0, openFlags: DIRECT });
    expect(open(RAW, 0)).to.include({ error: 0, openFlags: DIRECT });
    expect(open(PARTITION)).to.include({ error: 0, openFlags: DIRECT });
    expect(open(nodeId(1, SLOT.RAW), 0)).to.include({ error: 0, openFlags: FOPEN.KEEP_CACHE });
    expect(open(SLOT.INFO, 0).openFlags & FOPEN.DIRECT_IO).to.equal(FOPEN.DIRECT_IO);
  });

  it('refuses to open for writing what cannot be written', () => {
    const { open } = harness();
    for (const id of [nodeId(1, SLOT.RAW), nodeId(1, SLOT.PARTITION + 1), SLOT.INFO]) {
      expect(open(id).error, String(id)).to.equal(ERRNO.EACCES);
    }
    expect(open(FOLDER).error).to.equal(ERRNO.EISDIR);
    expect(open(nodeId(9, SLOT.RAW), 0).error).to.equal(ERRNO.ENOENT);
  });

  it('writes to the disk, and flushes where the file is open for that', () => {
    const { image, open, write } = harness();
    const { fh } = open(RAW);
    const { error, payload } = write(RAW, fh, 1000, Buffer.from('hello'));
    expect([error, payload.readUInt32LE(0), payload.length]).to.deep.equal([0, 5, 8]);
    expect(image.bytes.toString('latin1', 1000, 1005)).to.equal('hello');
    write(RAW, fh, 0, Buffer.from('x'), O_DSYNC);
    expect(image.calls).to.deep.equal([['write', 1000, 5], ['write', 0, 1], ['flush']]);
  });

  it('grows the disk by writing past its end, to whole sectors', () => {
    const { image, open, write } = harness();
    expect(write(RAW, open(RAW).fh, 300 * KIB, Buffer.from('end')).error).to.equal(0);
    expect(image.calls).to.deep.equal([
      ['resize', 300 * KIB + 512],
      ['write', 300 * KIB, 3],
    ]);
    expect(write(RAW, 1, 2 ** 60, Buffer.from('x')).error).to.equal(ERRNO.EFBIG);
  });

  it('refuses a WRITE whose data is not there', () => {
    const { send } = harness();
    const short = fields(WRITE_IN, { fh: 1, size: 100 }, 'few');
    expect(send('WRITE', RAW, short).error).to.equal(ERRNO.EINVAL);
  });

  it('writes to a partition, which ends like a device', () => {
    const { image, open, write } = harness();
    const { fh } = open(PARTITION);
    write(PARTITION, fh, 512, Buffer.from('in'));
    const cut = write(PARTITION, fh, 64 * KIB - 3, Buffer.from('abcdef'));
    expect([cut.error, cut.payload.readUInt32LE(0)]).to.deep.equal([0, 3]);
    expect(write(PARTITION, fh, 64 * KIB, Buffer.from('x')).error).to.equal(ERRNO.ENOSPC);
    expect(image.calls).to.deep.equal([
      ['write', START + 512, 2],
      ['write', START + 64 * KIB - 3, 3],
    ]);
  });

  it('keeps the place of a partition that is open, whatever becomes of the table', () => {
    const { image, open, write, send, release } = harness();
    const { fh } = open(PARTITION);
    image.putPartition(128 * KIB, 32 * KIB);
    image.bytes.write('old', START);
    image.bytes.write('new', 128 * KIB);
    const read = (handle: number) =>
      send('READ', PARTITION, fields(READ_IN, { fh: handle, size: 3 })).payload.toString();
    const later = open(PARTITION, 0).fh;
    expect([read(fh), read(later)]).to.deep.equal(['old', 'new']);
    image.bytes.fill(0, 0, 512);
    expect([read(fh), read(later)]).to.deep.equal(['old', 'new']);
    expect(write(PARTITION, fh, 0, Buffer.from('x')).error).to.equal(0);
    expect(send('GETATTR', PARTITION, Buffer.alloc(16)).error).to.equal(0);
    release(PARTITION, fh);
    release(PARTITION, later);
    expect(send('GETATTR', PARTITION, Buffer.alloc(16)).error).to.equal(ERRNO.ENOENT);
  });

  it('FALLOCATE punches, zeroes and sets aside, within the disk and past it', () => {
    const { image, send, open } = harness();
    const { fh } = open(RAW);
    const fallocate = (mode: number, offset: number, length: number, id = RAW, handle = fh) =>
      send('FALLOCATE', id, fields(FALLOCATE_IN, { fh: handle, mode, offset, length })).error;
    const [keep, punch, zero] = [1, 2, 16];
    expect(fallocate(punch | keep, 100, 1000)).to.equal(0);
    expect(fallocate(punch | keep, 255 * KIB, 9000)).to.equal(0);
    expect(fallocate(punch | keep, 300 * KIB, 1)).to.equal(0);
    expect(fallocate(zero | keep, 255 * KIB, 9000)).to.equal(0);
    expect(fallocate(keep, 0, 2 ** 40)).to.equal(0);
    expect(fallocate(zero, 255 * KIB, 2 * KIB)).to.equal(0);
    expect(fallocate(0, 0, 258 * KIB)).to.equal(0);
    expect(image.calls).to.deep.equal([
      ['discard', 100, 1000],
      ['discard', 255 * KIB, KIB],
      ['zero', 255 * KIB, KIB],
      ['preallocate', 0, 256 * KIB],
      ['resize', 257 * KIB],
      ['zero', 255 * KIB, 2 * KIB],
      ['resize', 258 * KIB],
      ['preallocate', 0, 258 * KIB],
    ]);
    for (const mode of [punch, 8, 32, 64]) {
      expect(fallocate(mode, 0, 512), String(mode)).to.equal(ERRNO.EOPNOTSUPP);
    }
    const { fh: part } = open(PARTITION);
    expect(fallocate(0, 0, 65 * KIB, PARTITION, part)).to.equal(ERRNO.ENOSPC);
    expect(fallocate(punch | keep, 0, 65 * KIB, PARTITION, part)).to.equal(0);
    expect(image.calls.at(-1)).to.deep.equal(['discard', START, 64 * KIB]);
  });

  it('SETATTR sets the size of the disk, and nothing that is not the image’s', () => {
    const { image, send } = harness();
    const [mode, uid, gid, size, mtime] = [1, 2, 4, 8, 32];
    const set = (id: number, valid: number, values: object) =>
      send('SETATTR', id, fields(SETATTR_IN, { valid, ...values }));
    const grown = set(RAW, size, { size: 300 * KIB + 1 });
    expect(grown.error).to.equal(0);
    expect(grown.payload.readUInt32LE(ATTR_OUT.size + 8)).to.equal(300 * KIB + 512);
    expect(set(RAW, size, { size: 0 }).error).to.equal(0);
    expect(set(RAW, size, { size: 0 }).error).to.equal(0);
    expect(image.calls).to.deep.equal([
      ['resize', 300 * KIB + 512],
      ['resize', 0],
    ]);
    expect(set(RAW, mtime | mode | uid | gid, { mode: 0o100644, uid: 3, gid: 4 }).error).to.equal(
      0,
    );
    expect(set(RAW, mode, { mode: 0o100600 }).error).to.equal(ERRNO.EPERM);
    expect(set(RAW, uid, { uid: 0 }).error).to.equal(ERRNO.EPERM);
    expect(set(nodeId(1, SLOT.RAW), mtime, {}).error).to.equal(0);
    expect(set(nodeId(1, SLOT.RAW), size, { size: 0 }).error).to.equal(ERRNO.EACCES);
    expect(set(SLOT.INFO, size, { size: 0 }).error).to.equal(ERRNO.EACCES);
    expect(set(ROOT, size, { size: 0 }).error).to.equal(ERRNO.EISDIR);
  });

  it('SETATTR leaves a partition its size', () => {
    const { send } = harness();
    const set = (bytes: number) =>
      send('SETATTR', PARTITION, fields(SETATTR_IN, { valid: 8, size: bytes })).error;
    expect([set(64 * KIB), set(0), set(65 * KIB)]).to.deep.equal([0, ERRNO.EPERM, ERRNO.EPERM]);
  });

  it('FSYNC flushes; FLUSH does where the file is open for writing', () => {
    const { image, send, open } = harness();
    send('FSYNC', RAW, fields(FSYNC_IN, {}));
    send('FSYNCDIR', ROOT, fields(FSYNC_IN, {}));
    expect(image.calls.splice(0)).to.deep.equal([['flush'], ['flush']]);
    send('FLUSH', RAW, fields(FLUSH_IN, { fh: open(RAW, 0).fh }));
    send('FLUSH', PARTITION, fields(FLUSH_IN, { fh: open(PARTITION, 0).fh }));
    expect(image.calls).to.deep.equal([]);
    send('FLUSH', RAW, fields(FLUSH_IN, { fh: open(RAW).fh }));
    send('FLUSH', PARTITION, fields(FLUSH_IN, { fh: open(PARTITION, 2).fh }));
    expect(image.calls).to.deep.equal([['flush'], ['flush']]);
  });

  it('CREATE and MKNOD take snapshots', () => {
    const { image, send, write, release } = harness();
    const made = send('CREATE', FOLDER, fields(CREATE_IN, { flags: O_WRONLY }, 'x%2Fy.raw\0'));
    expect(made.error).to.equal(0);
    const entry = ENTRY_OUT.read(viewOf(made.payload), 0);
    expect(entry).to.include({ nodeid: nodeId(3, SLOT.RAW), entryValid: 0, attrValid: 3600 });
    const { fh } = OPEN_OUT.read(viewOf(made.payload), made.payload.length - OPEN_OUT.size);
    expect(write(entry.nodeid, fh, 0, Buffer.from('x')).error).to.equal(ERRNO.EPERM);
    expect(send('FLUSH', entry.nodeid, fields(FLUSH_IN, { fh })).error).to.equal(0);
    expect(send('UNLINK', FOLDER, Buffer.from('x%2Fy.raw\0')).error).to.equal(ERRNO.EBUSY);
    release(entry.nodeid, fh);
    expect(send('UNLINK', FOLDER, Buffer.from('x%2Fy.raw\0')).error).to.equal(0);
    const mknod = (mode: number) =>
      send('MKNOD', FOLDER, fields(MKNOD_IN, { mode }, 'z.raw\0')).error;
    expect([mknod(0o100644), mknod(0o010644)]).to.deep.equal([0, ERRNO.EPERM]);
    expect(image.calls).to.deep.equal([
      ['createSnapshot', 'x/y'],
      ['deleteSnapshot', 3],
      ['createSnapshot', 'z'],
    ]);
  });

  it('makes nothing elsewhere, and no file of another name', () => {
    const { image, send } = harness();
    const create = (parent: number, name: string) =>
      send('CREATE', parent, fields(CREATE_IN, {}, `${name}\0`)).error;
    expect(create(ROOT, 'x.raw')).to.equal(ERRNO.EPERM);
    expect(create(nodeId(0, SLOT.PARTITIONS), '2.raw')).to.equal(ERRNO.EPERM);
    expect(create(FOLDER, 'x')).to.equal(ERRNO.EPERM);
    for (const name of ['.raw', '.x.raw', '%41.raw', `${'x'.repeat(250)}.raw`]) {
      expect(create(FOLDER, name), name).to.equal(ERRNO.EINVAL);
    }
    for (const name of ['MKDIR', 'SYMLINK', 'LINK', 'RMDIR']) {
      const size = OPCODES.find((opcode) => opcode.name === name)!.layout?.size ?? 0;
      const payload = Buffer.concat([Buffer.alloc(size), Buffer.from('one.raw\0x\0')]);
      expect(send(name, FOLDER, payload).error, name).to.equal(ERRNO.EPERM);
    }
    expect(image.calls).to.deep.equal([]);
  });

  it('UNLINK deletes a snapshot that is not open, with its partitions', () => {
    const { image, send, open, release } = harness();
    const unlink = (name: string, parent = FOLDER) =>
      send('UNLINK', parent, Buffer.from(`${name}\0`)).error;
    const partition = nodeId(1, SLOT.PARTITION + 1);
    const { fh } = open(partition, 0);
    expect(unlink('one.raw')).to.equal(ERRNO.EBUSY);
    release(partition, fh);
    expect(unlink('one.raw')).to.equal(0);
    expect(unlink('one.raw')).to.equal(ERRNO.ENOENT);
    expect(unlink('a%2Fb.raw')).to.equal(0);
    expect(unlink('disk.raw', ROOT)).to.equal(ERRNO.EPERM);
    expect(unlink('1.raw', nodeId(0, SLOT.PARTITIONS))).to.equal(ERRNO.EPERM);
    expect(image.calls).to.deep.equal([
      ['deleteSnapshot', 1],
      ['deleteSnapshot', 2],
    ]);
  });

  it('RENAME renames a snapshot, and never over another one', () => {
    const { image, send } = harness();
    const rename2 = (from: string, to: string, flags = 0, newdir = FOLDER) =>
      send('RENAME2', FOLDER, fields(RENAME2_IN, { newdir, flags }, `${from}\0${to}\0`)).error;
    const rename = fields(RENAME_IN, { newdir: FOLDER }, 'one.raw\0ä %25.raw\0');
    expect(send('RENAME', FOLDER, rename).error).to.equal(0);
    expect(rename2('ä %25.raw', 'two.raw', 1)).to.equal(0);
    expect(rename2('two.raw', 'two.raw')).to.equal(0);
    expect(rename2('two.raw', 'a%2Fb.raw')).to.equal(ERRNO.EEXIST);
    expect(rename2('two.raw', 'a%2Fb.raw', 1)).to.equal(ERRNO.EEXIST);
    expect(rename2('two.raw', 'three.raw', 2)).to.equal(ERRNO.EINVAL);
    expect(rename2('two.raw', 'three')).to.equal(ERRNO.EPERM);
    expect(rename2('two.raw', 'disk.raw', 0, ROOT)).to.equal(ERRNO.EPERM);
    expect(rename2('none.raw', 'three.raw')).to.equal(ERRNO.ENOENT);
    expect(image.calls).to.deep.equal([
      ['renameSnapshot', 1, 'ä %'],
      ['renameSnapshot', 1, 'two'],
    ]);
  });

  it('controls of the root create, delete and revert, and tell why not', () => {
    const { image, control, send, open, release, dispatcher } = harness();
    const failure = () => {
      const asked = fields(GETXATTR_IN, { size: 1000 }, 'user.qcow2.control.failure\0');
      return send('GETXATTR', ROOT, asked).payload.toString();
    };
    expect(control('control.create', 'new / one')).to.equal(0);
    expect(control('control.delete', 'new / one')).to.equal(0);
    const { fh } = open(PARTITION, 0);
    expect(control('control.revert', 'a/b')).to.equal(ERRNO.EBUSY);
    expect(failure()).to.equal('the disk is in use: files of it are open');
    expect(dispatcher.takeStale()).to.equal(null);
    release(PARTITION, fh);
    expect(control('control.revert', 'a%2Fb')).to.equal(0);
    expect(failure()).to.equal('');
    expect(dispatcher.takeStale()).to.include.members([RAW, PARTITION]).and.have.length(256);
    expect(dispatcher.takeStale()).to.equal(null);
    expect(control('control.revert', 'none')).to.equal(ERRNO.ENOENT);
    expect(control('control.other', 'x')).to.equal(ERRNO.EOPNOTSUPP);
    expect(control('control.revert', '1', RAW)).to.equal(ERRNO.EOPNOTSUPP);
    expect(image.calls).to.deep.equal([
      ['createSnapshot', 'new / one', { allowDuplicateName: true, icount: 0n }],
      ['deleteSnapshot', 3],
      ['revertTo', 2],
    ]);
  });

  it('means a snapshot’s id before its name when it reverts, not when it deletes', () => {
    const { image, control } = harness();
    image.views.push({ view: 3, snapshot: snapshotNamed('9', '1') });
    control('control.revert', '1');
    control('control.delete', '1');
    control('control.delete', '2');
    expect(image.calls).to.deep.equal([
      ['revertTo', 1],
      ['deleteSnapshot', 3],
      ['deleteSnapshot', 2],
    ]);
  });

  it('marks what was changed for the next flush, failed as it may have', () => {
    const { image, open, write, state } = harness();
    const { fh } = open(RAW);
    expect(state.takeChanged()).to.equal(false);
    image.failure = new ImageError('policy', 'ENOSPC', 'the host is full');
    expect(write(RAW, fh, 0, Buffer.from('x')).error).to.equal(ERRNO.ENOSPC);
    expect(state.takeChanged()).to.equal(true);
  });

  it('lists snapshots one after the other though those before are deleted', () => {
    const { send, image } = harness();
    const names: string[] = [];
    for (let offset = 0; ; ) {
      const payload = fields(READ_IN, { offset, size: 48 });
      const listed = send('READDIR', FOLDER, payload).payload;
      if (listed.length === 0) break;
      offset = Number(listed.readBigUInt64LE(8));
      names.push(listed.toString('utf8', 24, 24 + listed.readUInt32LE(16)));
      if (names.at(-1) === 'one.raw') image.writer.deleteSnapshot(1);
    }
    const rest = ['a%2Fb.raw', 'a%2Fb.changed.json', 'a%2Fb.partitions'];
    expect(names).to.deep.equal(['.', '..', 'one.raw', ...rest]);
  });

  it('shows files about the mount in a folder that is not listed, each opening with a text of its own', () => {
    const { send, open, write, release } = harness();
    const find = (parent: number, name: string) => {
      const { error, payload } = send('LOOKUP', parent, Buffer.from(`${name}\0`));
      expect(error, name).to.equal(0);
      return ENTRY_OUT.read(viewOf(payload), 0).nodeid;
    };
    expect(
      send('READDIR', ROOT, fields(READ_IN, { size: 4096 })).payload.includes('qcow2fs'),
    ).to.equal(false);
    const own = find(ROOT, '.qcow2fs');
    const metrics = find(own, 'metrics');
    const listed = send('READDIR', own, fields(READ_IN, { size: 4096 })).payload;
    expect(['metrics', 'status.json'].every((name) => listed.includes(name))).to.equal(true);
    const read = (fh: number, offset: number, size: number) =>
      send('READ', metrics, fields(READ_IN, { fh, offset, size })).payload.toString();
    const { fh } = open(metrics, 0);
    const start = read(fh, 0, 100);
    const whole = start + read(fh, 100, 100 * KIB);
    const disk = open(RAW);
    write(RAW, disk.fh, 0, Buffer.alloc(512));
    expect(read(open(metrics, 0).fh, 0, 100 * KIB)).to.match(/^qcow2fs_image_writes_total.* 1$/m);
    // In the middle it goes on with what it began with; from the start on it is as it is now.
    expect(read(fh, 100, 100 * KIB)).to.equal(whole.slice(100));
    parseMetrics(whole);
    expect(read(fh, 0, 100 * KIB)).to.match(/^qcow2fs_image_written_bytes_total.* 512$/m);
    expect(open(metrics).error).to.equal(ERRNO.EACCES);
    expect(release(metrics, fh)).to.equal(0);
  });

  it('refuses every request once the mount has stopped, but answers none that needs none', () => {
    const { dispatcher } = harness();
    const { buffer } = dispatcher.request;
    IN_HEADER.write(buffer.view, 0, { opcode: CODE.READ!, unique: 1, nodeid: RAW });
    expect(dispatcher.refuse(80, ERRNO.ENOTCONN)).to.equal(16);
    IN_HEADER.write(buffer.view, 0, { opcode: CODE.FORGET!, unique: 1, nodeid: RAW });
    expect(dispatcher.refuse(48, ERRNO.ENOTCONN)).to.equal(0);
  });
});
