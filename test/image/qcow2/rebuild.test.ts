/** What rebuilding refuses, and what a crash in its middle leaves behind. */
import { expect } from 'chai';
import type { ErrnoName } from '#src/errors.js';
import { readBitmaps } from '#src/image/qcow2/bitmaps.js';
import { rebuildRefcounts } from '#src/image/qcow2/rebuild.js';
import { readSnapshots } from '#src/image/qcow2/snapshots.js';
import { MemoryStorage } from '#src/storage/memory.js';
import type { IoBuffer } from '#src/sys/io-buffer.js';
import { expectImageError } from '../../helpers/errors.js';
import { buildImage } from '../../helpers/image-builder.js';
import type { Clusters, ClusterSpec, ImageSpec, Places } from '../../helpers/image-spec.js';
import { qemuRead, tryQemuImg } from '../../helpers/qemu.js';
import { pattern, printSeed, Random, SEED } from '../../helpers/random.js';
import {
  damageCopied,
  damageRefcounts,
  dropBlocks,
  headerOf,
  isDirty,
  markDirty,
  rebuild,
} from '../../helpers/refcount-damage.js';
import { useTempFolder } from '../../helpers/temp.js';

const KIB = 1 << 10;
const CLUSTER = 64 * KIB;

function data(seed: number, length = 4 * KIB): ClusterSpec {
  return { kind: 'data', bytes: pattern(seed, length) };
}

function build(clusters: Clusters, spec: Partial<ImageSpec> = {}) {
  const image = buildImage({ size: 16 * CLUSTER, clusters, ...spec });
  markDirty(image.bytes);
  return image;
}

const plain: Clusters = new Map([
  [0, data(1)],
  [5, data(2)],
]);

/** Loses power at a given operation: of what was not flushed, a random part is kept. */
class FailingStorage extends MemoryStorage {
  readonly #random: Random;
  #left: number;
  #durable: Buffer;
  #pending: { at: number; bytes: Buffer }[] = [];

  constructor(bytes: Uint8Array, operations: number, random: Random) {
    super(Buffer.from(bytes));
    this.#durable = Buffer.from(bytes);
    this.#left = operations;
    this.#random = random;
  }

  override write(source: IoBuffer, at: number, length: number, position: number): void {
    this.#spend();
    // Sectors are written whole, whatever else is lost.
    for (let done = 0; done < length; ) {
      const n = Math.min(length - done, 512 - ((position + done) % 512));
      const bytes = Buffer.from(source.bytes.subarray(at + done, at + done + n));
      this.#pending.push({ at: position + done, bytes });
      done += n;
    }
    super.write(source, at, length, position);
  }

  override flush(): void {
    this.#spend();
    this.#durable = Buffer.from(this.bytes);
    this.#pending = [];
  }

  /** What is on the disk after the power failed. */
  afterCrash(): Buffer<ArrayBuffer> {
    let bytes = Buffer.from(this.#durable);
    for (const write of this.#pending) {
      if (this.#random.chance(0.5)) continue;
      const end = write.at + write.bytes.length;
      if (end > bytes.length) bytes = Buffer.concat([bytes, Buffer.alloc(end - bytes.length)]);
      write.bytes.copy(bytes, write.at);
    }
    return bytes;
  }

  #spend(): void {
    if (this.#left-- === 0) throw new Error('power failure');
  }
}

describe('rebuildRefcounts()', () => {
  const temp = useTempFolder();
  printSeed();

  function check(bytes: Uint8Array): void {
    const path = temp.write('checked', bytes);
    const { status, stdout, stderr } = tryQemuImg('check', path);
    expect(status, stdout + stderr).to.equal(0);
    expect(isDirty(bytes)).to.equal(false);
  }

  /** Writes entries over those of a good image, as [offset, entry]. */
  type Overwrites = (places: Places) => readonly [number, bigint][];
  const pastEnd = 1n << 40n;
  const copied = 1n << 63n;
  const refused: [what: string, overwrites: Overwrites, message: RegExp][] = [
    ['data past the end', (p) => [[p.l2Tables.get(0)! + 8, pastEnd]], /past the end of file/],
    ['data that is unaligned', (p) => [[p.l2Tables.get(0)! + 8, 0x8200n]], /at unaligned offset/],
    ['data over the header', (p) => [[p.l2Tables.get(0)! + 8, 1n << 62n]], /is also header/],
    [
      'data over the L1 table',
      (p) => [[p.l2Tables.get(0)! + 8, BigInt(p.l1Table)]],
      /data cluster at offset 0x10000 is also L1 table/,
    ],
    [
      'data over its own L2 table',
      (p) => [[p.l2Tables.get(0)! + 8, BigInt(p.l2Tables.get(0)!)]],
      /data cluster .* is also L2 table/,
    ],
    [
      'data over a refcount block',
      (p) => [[p.l2Tables.get(0)! + 8, BigInt(p.refcountBlocks[0]!)]],
      /refcount structure .* is also data cluster/,
    ],
    ['reserved bits of L2', (p) => [[p.l2Tables.get(0)! + 8, 2n]], /reserved bits/],
    ['reserved bits of L1', (p) => [[p.l1Table, copied | 1n]], /reserved bits/],
    ['an L2 table past the end', (p) => [[p.l1Table, pastEnd]], /L2 table .* past the end/],
    ['an unaligned L2 table', (p) => [[p.l1Table, 0x10200n]], /L2 table at/],
    ['a block past the end', (p) => [[p.refcountTable, pastEnd]], /refcount block .* past the/],
    ['a block at 2^63', (p) => [[p.refcountTable, 1n << 63n]], /refcount block .* past the/],
    ['an unaligned block', (p) => [[p.refcountTable, 0x10200n]], /refcount block . at unaligned/],
    [
      'one block twice',
      (p) => [[p.refcountTable + 8, BigInt(p.refcountBlocks[0]!)]],
      /refcount structure at .* is also refcount structure/,
    ],
    ['an L1 table past the end', () => [[40, pastEnd]], /L1 table .* past the end/],
    ['a refcount table past the end', () => [[48, pastEnd]], /refcount structure .* past the end/],
  ];
  for (const [what, overwrites, message] of refused) {
    it(`refuses ${what}, and changes nothing`, () => {
      const { bytes, places } = build(plain);
      for (const [at, entry] of overwrites(places)) bytes.writeBigUInt64BE(entry, at);
      const storage = new MemoryStorage(Buffer.from(bytes));
      expectImageError('EIO', message, () => rebuild(storage));
      expect(bytes.equals(storage.bytes)).to.equal(true);
    });
  }

  const tooLarge: [refcountOrder: number, references: number, code: ErrnoName | null][] = [
    [0, 1, null],
    [0, 2, 'EFBIG'],
    [1, 3, null],
    [1, 4, 'EFBIG'],
    [2, 15, null],
    [2, 16, 'EFBIG'],
    [3, 255, null],
    [3, 256, 'EFBIG'],
    [4, 300, null],
    [5, 300, null],
    [6, 300, null],
  ];
  for (const [refcountOrder, references, code] of tooLarge) {
    const fate = code === null ? 'takes' : `refuses, with ${code},`;
    it(`${fate} ${references} references in ${2 ** refcountOrder} bits`, () => {
      const shared = data(3);
      const clusters = new Map(Array.from({ length: references }, (_, n) => [n, shared]));
      const { bytes } = build(clusters, { refcountOrder, size: 512 * CLUSTER });
      const { refcountTableOffset } = headerOf(bytes);
      const block = Number(bytes.readBigUInt64BE(refcountTableOffset));
      bytes.fill(0x5a, block, block + CLUSTER);
      const storage = new MemoryStorage(Buffer.from(bytes));
      if (code === null) {
        rebuild(storage);
        check(storage.bytes);
        return;
      }
      expectImageError(code, /too many references/, () => rebuild(storage));
      expect(bytes.equals(storage.bytes)).to.equal(true);
    });
  }

  it('counts bitmaps and snapshots, and refuses where they are not all known', () => {
    const snapshots = [{ id: '1', name: 's', clusters: new Map([[3, data(4)]]) }];
    const { bytes } = build(plain, { bitmaps: [{ name: 'b' }], snapshots });
    const storage = new MemoryStorage(Buffer.from(bytes));
    const header = headerOf(bytes);
    const known = readSnapshots(storage, header);
    const bitmaps = readBitmaps(storage, header);
    const missing = /bitmap directory: 0 of 1|snapshot table: 0 of 1/;
    expectImageError('EIO', missing, () => rebuildRefcounts(storage, header, [], bitmaps));
    expectImageError('EIO', missing, () => rebuildRefcounts(storage, header, known, []));
    expect(bytes.equals(storage.bytes)).to.equal(true);
    expect(rebuild(storage)).to.deep.equal({ leaksFixed: 0, corruptionsFixed: 0 });
    check(storage.bytes);
  });

  it('takes the clusters of bitmaps that are out of date for leaks', () => {
    const { bytes } = build(plain, {
      bitmaps: [{ name: 'b' }],
      header: { autoclearFeatures: 0n, incompatibleFeatures: 1n },
    });
    const storage = new MemoryStorage(bytes);
    expect(rebuild(storage)).to.deep.equal({ leaksFixed: 2, corruptionsFixed: 0 });
    check(storage.bytes);
  });

  it('clears COPIED where there is nothing, and of compressed clusters', () => {
    const compressed: ClusterSpec = { kind: 'compressed', bytes: pattern(1, 4 * KIB) };
    const { bytes, places } = build(new Map([[0, compressed]]), { size: 2 ** 31 });
    const l2 = places.l2Tables.get(0)!;
    bytes[l2]! |= 0x80;
    bytes[l2 + 8]! |= 0x80;
    bytes[places.l1Table + 8]! |= 0x80;
    const storage = new MemoryStorage(bytes);
    expect(rebuild(storage).corruptionsFixed).to.equal(3);
    check(storage.bytes);
    expect(bytes[l2 + 8]).to.equal(0);
    expect(bytes[places.l1Table + 8]).to.equal(0);
  });

  const crashes: [what: string, clusters: number, stride: number, most: number][] = [
    ['of a small image', 120, 1, 15],
    ['when the refcount table moves', 4200, 7, 160],
  ];
  for (const [what, count, stride, most] of crashes) {
    it(`is repeated after a crash at any of its steps ${what}`, () => {
      const random = new Random(SEED);
      const clusters = new Map(Array.from({ length: count }, (_, n) => [n, data(n + 1, 512)]));
      const base = build(clusters, { clusterBits: 9, refcountOrder: 6, size: count * 512 });
      const truth = qemuRead(temp.write('truth', base.bytes));
      const { refcountTableClusters } = headerOf(base.bytes);
      for (let operations = 0; operations < most; operations += 1 + random.below(stride)) {
        const bytes = Buffer.from(base.bytes);
        damageRefcounts(bytes, random);
        damageCopied(bytes, random);
        if (random.chance(0.7)) dropBlocks(bytes, random);
        if (refcountTableClusters > 1 && random.chance(0.7)) bytes.writeUInt32BE(1, 56);
        const found = rebuildWithCrash(bytes, operations, random);
        check(found);
        expect(qemuRead(temp.write('found', found)).equals(truth)).to.equal(true);
      }
    });
  }
});

/** Rebuilds with a crash after so many operations, if it lasts so long, and then once more. */
function rebuildWithCrash(bytes: Buffer, operations: number, random: Random): Uint8Array {
  const storage = new FailingStorage(bytes, operations, random);
  try {
    rebuild(storage);
    return storage.bytes;
  } catch (error) {
    expect((error as Error).message).to.equal('power failure');
    const again = new MemoryStorage(storage.afterCrash());
    // A clear bit says that nothing needs to be done.
    if (isDirty(again.bytes)) rebuild(again);
    return again.bytes;
  }
}
