import { expect } from 'chai';
import type { ErrnoName } from '#src/errors.js';
import { readHeader } from '#src/image/qcow2/header.js';
import { HEADER } from '#src/image/qcow2/layout.js';
import { MemoryStorage } from '#src/storage/memory.js';
import { expectImageError } from '../../helpers/errors.js';
import { buildImage } from '../../helpers/image-builder.js';
import type { ImageSpec } from '../../helpers/image-spec.js';

const MIB = 1 << 20;

function headerOf(spec: Partial<ImageSpec>) {
  return readHeader(new MemoryStorage(buildImage({ size: MIB, ...spec }).bytes));
}

/** Every limit of QEMU's on opening (interop, section 1). `size` is 1 MiB where not given. */
const REFUSED: [what: string, spec: Partial<ImageSpec>, code: ErrnoName, message: RegExp][] = [
  ['another magic', { header: { magic: 0x514649fa } }, 'EINVAL', /not in qcow2 format/],
  ['version 1', { header: { version: 1 } }, 'ENOTSUP', /version 1 \(known: 2 and 3\)/],
  ['version 4', { header: { version: 4 } }, 'ENOTSUP', /version 4 /],
  ['clusters of 2^8', { header: { clusterBits: 8 } }, 'EINVAL', /size: 2\^8 \(at least 2\^9/],
  ['clusters of 2^22', { header: { clusterBits: 22 } }, 'EINVAL', /2\^22 .*at most 2\^21/],
  ['clusters of 2^200', { header: { clusterBits: 200 } }, 'EINVAL', /2\^200 /],
  ['a header of 103 bytes', { header: { headerLength: 103 } }, 'EINVAL', /too short .*104/],
  ['no header length', { header: { headerLength: 0 } }, 'EINVAL', /too short/],
  [
    'a header longer than a cluster',
    { clusterBits: 9, header: { headerLength: 513 } },
    'EINVAL',
    /exceeds cluster size \(513 > 512/,
  ],
  [
    'a backing name past the first cluster',
    { header: { backingFileOffset: 65537, backingFileSize: 1 } },
    'EINVAL',
    /Invalid backing file offset \(65537, at most 65536/,
  ],
  [
    'a backing name at 2^63',
    { header: { backingFileOffset: 2 ** 63 } },
    'EINVAL',
    /Invalid backing file offset/,
  ],
  [
    'a backing name of 1024 bytes',
    { header: { backingFileOffset: 512, backingFileSize: 1024 } },
    'EINVAL',
    /name too long \(1024 bytes, at most 1023/,
  ],
  [
    'a backing name across the end of the cluster',
    { header: { backingFileOffset: 65530, backingFileSize: 7 } },
    'EINVAL',
    /name too long \(7 bytes, at most 6/,
  ],
  [
    'an incompatible bit without a name',
    { header: { incompatibleFeatures: 1n << 63n } },
    'ENOTSUP',
    /Unknown incompatible feature: 8000000000000000/,
  ],
  [
    'an incompatible bit that the image names',
    {
      featureNames: [
        { type: 1, bit: 33, name: 'wrong kind' },
        { type: 0, bit: 33, name: 'time travel' },
      ],
      header: { incompatibleFeatures: (1n << 33n) | (1n << 34n) },
    },
    'ENOTSUP',
    /feature\(s\): time travel, Unknown incompatible feature: 400000000$/,
  ],
  [
    'zstd without its bit',
    { header: { compressionType: 1 } },
    'EINVAL',
    /bit must be set \(compression_type 1\)/,
  ],
  [
    'zlib with the bit',
    { header: { incompatibleFeatures: 8n } },
    'EINVAL',
    /bit must not be set \(compression_type 0\)/,
  ],
  [
    'an unknown compression',
    { header: { compressionType: 2, incompatibleFeatures: 8n } },
    'ENOTSUP',
    /unknown compression type: 2/,
  ],
  [
    'the compression bit and a header without the field',
    { header: { headerLength: 104, compressionType: 1, incompatibleFeatures: 8n } },
    'EINVAL',
    /bit must not be set/,
  ],
  [
    'extended L2 entries with clusters of 8 KiB',
    { clusterBits: 13, header: { incompatibleFeatures: 16n } },
    'EINVAL',
    /too small for extended L2 entries \(2\^13, at least 2\^14/,
  ],
  [
    'refcounts of 128 bits',
    { header: { refcountOrder: 7 } },
    'EINVAL',
    /may not exceed 64 bits \(refcount_order 7/,
  ],
  [
    'no refcount table',
    { header: { refcountTableClusters: 0 } },
    'EINVAL',
    /does not contain a reference count table/,
  ],
  [
    'a refcount table above 8 MiB',
    { header: { refcountTableClusters: 129 } },
    'EFBIG',
    /Reference count table too large \(8454144 bytes, at most 8388608/,
  ],
  [
    'a refcount table of 2^32 - 1 clusters',
    { clusterBits: 21, header: { refcountTableClusters: 0xffff_ffff } },
    'EFBIG',
    /Reference count table too large/,
  ],
  [
    'a refcount table off its cluster',
    { header: { refcountTableOffset: 65536 + 512 } },
    'EINVAL',
    /Reference count table offset invalid \(0x10200/,
  ],
  [
    'a refcount table over the header',
    { header: { refcountTableOffset: 0 } },
    'EINVAL',
    /Reference count table offset invalid/,
  ],
  [
    'a refcount table near 2^64',
    { header: { refcountTableOffset: 2 ** 64 - 2 ** 16 } },
    'EINVAL',
    /Reference count table offset invalid/,
  ],
  [
    '65,537 snapshots',
    { header: { nbSnapshots: 65537, snapshotsOffset: 65536 } },
    'EFBIG',
    /Snapshot table too large/,
  ],
  [
    'a snapshot table off its cluster',
    { header: { nbSnapshots: 1, snapshotsOffset: 65537 } },
    'EINVAL',
    /Snapshot table offset invalid/,
  ],
  [
    'snapshots without a table',
    { header: { nbSnapshots: 1, snapshotsOffset: 0 } },
    'EINVAL',
    /Snapshot table offset invalid/,
  ],
  [
    'a snapshot table at 2^63',
    { header: { nbSnapshots: 1, snapshotsOffset: 2 ** 63 } },
    'EINVAL',
    /Snapshot table offset invalid/,
  ],
  [
    'an L1 table above 32 MiB',
    { header: { l1Size: (32 << 20) / 8 + 1 } },
    'EFBIG',
    /Active L1 table too large \(33554440 bytes, at most 33554432/,
  ],
  [
    'an L1 table off its cluster',
    { header: { l1TableOffset: 65544 } },
    'EINVAL',
    /L1 table offset/,
  ],
  ['an L1 table over the header', { header: { l1TableOffset: 0 } }, 'EINVAL', /L1 table offset/],
  ['an L1 table at 2^63', { header: { l1TableOffset: 2 ** 63 } }, 'EINVAL', /L1 table offset/],
  [
    'an L1 table that ends past 2^53',
    { header: { l1TableOffset: 2 ** 53 - 65536, l1Size: 8193 } },
    'EINVAL',
    /L1 table offset/,
  ],
  [
    'an L1 table too small for the size',
    { header: { size: 2 ** 29 + 512, l1Size: 1 } },
    'EINVAL',
    /L1 table is too small \(1 entries, 2 needed/,
  ],
  ['no L1 table for a disk', { header: { l1Size: 0 } }, 'EINVAL', /too small \(0 entries/],
  ['a size of 2^53', { header: { size: 2 ** 53 } }, 'EFBIG', /too big \(9007199254740992/],
  ['a size of 2^63', { header: { size: 2 ** 63 } }, 'EFBIG', /too big/],
  ['encryption method 3', { header: { cryptMethod: 3 } }, 'EINVAL', /encryption method 3/],
];

describe('readHeader()', () => {
  for (const [what, spec, code, message] of REFUSED) {
    it(`refuses ${what}`, () => {
      expectImageError(code, message, () => headerOf(spec));
    });
  }

  it('refuses a file that ends within the header, wherever', () => {
    const { bytes } = buildImage({ size: MIB });
    for (let length = 0; length < 112; length++) {
      const storage = new MemoryStorage(bytes.subarray(0, length));
      expectImageError('EINVAL', /not in qcow2 format|too short|past the end/, () =>
        readHeader(storage),
      );
    }
  });

  it('refuses a backing name that lies past the end of the file', () => {
    const { bytes } = buildImage({ size: MIB, backing: { name: 'base' } });
    const end = HEADER.read(new DataView(bytes.buffer), 0).backingFileOffset + 3;
    const storage = new MemoryStorage(bytes.subarray(0, end));
    expectImageError('EINVAL', /past the end/, () => readHeader(storage));
  });

  it('reads what the builder wrote', () => {
    const header = headerOf({
      version: 3,
      clusterBits: 14,
      extendedL2: true,
      refcountOrder: 6,
      compression: 'zstd',
      backing: { name: 'base.img', format: 'raw' },
      headerTail: Buffer.alloc(40, 0xff),
      extensions: [{ type: 0x1234, data: Buffer.alloc(5) }],
    });
    expect(header).to.include({
      version: 3,
      size: MIB,
      headerLength: 152,
      compressionType: 1,
      backingFile: 'base.img',
      incompatibleFeatures: 24n,
    });
    expect(header.geometry).to.include({
      clusterSize: 16384,
      subclusterSize: 512,
      l2EntrySize: 16,
      l2Entries: 1024,
      refcountBits: 64,
    });
    expect(header.extensions.backingFormat).to.equal('raw');
    expect(header.extensions.unknown).to.deep.equal([0x1234]);
  });

  it('takes 16-bit refcounts, no features and 72 bytes for version 2, whatever follows', () => {
    const header = headerOf({ version: 2, backing: { name: 'base' } });
    expect(header).to.include({ headerLength: 72, incompatibleFeatures: 0n, compressionType: 0 });
    expect(header.geometry.refcountBits).to.equal(16);
    expect(header.backingFile).to.equal('base');
  });

  it('drops a partial last sector of the size', () => {
    expect(headerOf({ size: MIB + 511 }).size).to.equal(MIB);
  });

  it('takes the limits themselves', () => {
    const name = 'x'.repeat(1023);
    expect(headerOf({ backing: { name } }).backingFile).to.equal(name);
    expect(headerOf({ header: { refcountTableClusters: 128 } }).refcountTableClusters).to.equal(
      128,
    );
    expect(headerOf({ header: { l1Size: (32 << 20) / 8 } }).l1Size).to.equal(4 << 20);
    expect(headerOf({ clusterBits: 21 }).geometry.clusterSize).to.equal(2 << 20);
    expect(headerOf({ clusterBits: 9 }).geometry.clusterSize).to.equal(512);
    expect(headerOf({ size: 0 }).l1Size).to.equal(0);
    expect(headerOf({ header: { headerLength: 104 } }).headerLength).to.equal(104);
  });

  it('leaves the dirty and corrupt bits, and unknown other bits, alone', () => {
    const header = headerOf({
      header: {
        incompatibleFeatures: 3n,
        compatibleFeatures: 0xffff_ffff_ffff_ffffn,
        autoclearFeatures: 1n << 40n,
      },
    });
    expect(header.incompatibleFeatures).to.equal(3n);
    expect(header.autoclearFeatures).to.equal(1n << 40n);
  });
});
