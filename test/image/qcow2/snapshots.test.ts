import { expect } from 'chai';
import { readHeader } from '#src/image/qcow2/header.js';
import { SNAPSHOT_HEADER } from '#src/image/qcow2/layout.js';
import { readSnapshots } from '#src/image/qcow2/snapshots.js';
import { MemoryStorage } from '#src/storage/memory.js';
import { expectImageError } from '../../helpers/errors.js';
import { buildImage } from '../../helpers/image-builder.js';
import type { SnapshotSpec } from '../../helpers/image-spec.js';

const MIB = 1 << 20;

function build(...snapshots: SnapshotSpec[]) {
  return buildImage({ size: MIB, snapshots });
}

function read(bytes: Buffer) {
  const storage = new MemoryStorage(bytes);
  return readSnapshots(storage, readHeader(storage));
}

describe('readSnapshots()', () => {
  it('reads names of any kind, one entry behind the other on 8 bytes', () => {
    const names = ['', 'a', 'ab/c', 'same', 'same', 'é\n', 'x'.repeat(65535)];
    const found = read(build(...names.map((name, n) => ({ id: `${n}`, name }))).bytes);
    expect(found.map(({ name }) => name)).to.deep.equal(names);
    expect(found.map(({ id }) => id)).to.deep.equal(names.map((_, n) => `${n}`));
    expect(found.every(({ problem }) => problem === null)).to.equal(true);
  });

  it('takes from the extra data what is there', () => {
    const spec = { id: '1', name: 'a', diskSize: 2 * MIB, vmStateSize: 70_000, icount: 99n };
    const sizes = [0, 8, 16, 24, 1024];
    const found = read(build(...sizes.map((extraDataSize) => ({ ...spec, extraDataSize }))).bytes);
    expect(found.map(({ diskSize }) => diskSize / MIB)).to.deep.equal([1, 1, 2, 2, 2]);
    expect(found.map(({ vmStateSize }) => vmStateSize)).to.deep.equal(new Array(5).fill(70_000));
    expect(found.map(({ icount }) => icount)).to.deep.equal([null, null, null, 99n, 99n]);
  });

  it('prefers the 64-bit size of the VM state', () => {
    const spec = { id: '1', name: 'a', fields: { vmStateSize: 5 } };
    const found = read(
      build({ ...spec, vmStateSize: 2 ** 33 }, { ...spec, extraDataSize: 0 }).bytes,
    );
    expect(found.map(({ vmStateSize }) => vmStateSize)).to.deep.equal([2 ** 33, 5]);
  });

  it('keeps times exact', () => {
    const fields = { dateSec: 0xffff_ffff, dateNsec: 999_999_999, vmClockNsec: (1n << 63n) + 1n };
    const [found] = read(build({ id: '1', name: 'a', fields }).bytes);
    expect(found).to.include({
      dateSec: fields.dateSec,
      dateNsec: fields.dateNsec,
      vmClock: fields.vmClockNsec,
    });
  });

  it('refuses more than 1024 bytes of extra data', () => {
    const { bytes } = build({ id: '1', name: 'a', extraDataSize: 1025 });
    expectImageError('EFBIG', /extra metadata .*\(1025 bytes, at most 1024\)/, () => read(bytes));
  });

  it('refuses a table that runs past the end of the file', () => {
    const { bytes, places } = build({ id: '1', name: 'a' }, { id: '2', name: 'b' });
    const last = places.snapshotEntries[1]!;
    for (const end of [last, last + 39, last + SNAPSHOT_HEADER.size + 17]) {
      const cut = bytes.subarray(0, end);
      expectImageError('EIO', /snapshot table entry .* past the end/, () => read(cut));
    }
  });

  it('refuses a table above 64 MiB', () => {
    const { bytes, places } = build({ id: '1', name: 'a' });
    // Entries of the largest size, each of them its names' bytes: 512 fit, one more does not.
    const entrySize = SNAPSHOT_HEADER.size + 1024 + 65_535 + 65_535;
    const most = Math.floor((64 << 20) / (Math.ceil(entrySize / 8) * 8));
    const whole = Buffer.alloc(places.snapshotTable + (65 << 20));
    bytes.copy(whole);
    const view = new DataView(whole.buffer, whole.byteOffset, whole.length);
    for (let n = 0; n <= most; n++) {
      const at = places.snapshotTable + n * Math.ceil(entrySize / 8) * 8;
      SNAPSHOT_HEADER.write(view, at, { idStrSize: 65_535, nameSize: 65_535, extraDataSize: 1024 });
    }
    whole.writeUInt32BE(most, 60);
    expect(read(whole).length).to.equal(most);
    whole.writeUInt32BE(most + 1, 60);
    expectImageError('EFBIG', /Snapshot table is too big .*at most 67108864/, () => read(whole));
  });

  it('finds no problem with a disk, or one and its VM state, of less than 2^53 bytes', () => {
    const sizes = { vmStateSize: 40, diskSize: 48 };
    const problem = (vmStateSize: bigint, diskSize: bigint) => {
      const { bytes, places } = build({ id: '1', name: 'a' });
      const [at] = places.snapshotEntries as [number];
      bytes.writeBigUInt64BE(vmStateSize, at + sizes.vmStateSize);
      bytes.writeBigUInt64BE(diskSize, at + sizes.diskSize);
      return read(bytes)[0]!.problem;
    };
    const most = 1n << 53n;
    expect([problem(0n, most - 512n), problem(most / 2n - 1n, most / 2n)]).to.deep.equal([
      null,
      null,
    ]);
    for (const [state, disk] of [
      [1n, most - 512n],
      [0n, most],
      [most / 2n, most / 2n],
    ] as const) {
      expect(problem(state, disk)).to.match(/Snapshot 'a' is too big/);
    }
  });

  const problems: [what: string, spec: Partial<SnapshotSpec>, problem: RegExp][] = [
    ['an L1 table above 32 MiB', { fields: { l1Size: 4 * MIB + 1 } }, /L1 table too large/],
    ['an unaligned L1 table', { fields: { l1TableOffset: 512 } }, /L1 table offset invalid/],
    ['an L1 table over the header', { fields: { l1TableOffset: 0 } }, /L1 table offset invalid/],
    ['an L1 table at 2^63', { fields: { l1TableOffset: 2 ** 63 } }, /L1 table offset invalid/],
    ['a disk of 2^63 bytes', { diskSize: 2 ** 63, fields: { l1Size: 1 } }, /too big/],
    ['a VM state of 2^63 bytes', { vmStateSize: 2 ** 63, fields: { l1Size: 1 } }, /too big/],
  ];
  for (const [what, spec, problem] of problems) {
    it(`notes ${what} as the problem of that snapshot, and reads the others`, () => {
      // The builder would make tables for those sizes: they are put in afterwards.
      const { bytes, places } = build({ id: '1', name: 'a' }, { id: '2', name: 'b' });
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      const at = places.snapshotEntries[0]!;
      const fields = SNAPSHOT_HEADER.read(view, at);
      SNAPSHOT_HEADER.write(view, at, { ...fields, ...spec.fields });
      if (spec.vmStateSize !== undefined) bytes.writeBigUInt64BE(1n << 63n, at + 40);
      if (spec.diskSize !== undefined) bytes.writeBigUInt64BE(1n << 63n, at + 48);
      const [first, second] = read(bytes);
      expect(first!.problem).to.match(problem);
      expect(second!.problem).to.equal(null);
    });
  }
});
