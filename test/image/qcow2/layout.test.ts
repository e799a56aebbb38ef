import { expect } from 'chai';
import type { FieldTable, Struct } from '#src/codec/struct.js';
import * as layout from '#src/image/qcow2/layout.js';

/** Offsets as docs/interop/qcow2.txt gives them: in bytes from the header's or entry's start. */
const SPECIFICATION: [struct: Struct<FieldTable>, start: number, offsets: object, end: number][] = [
  [
    layout.HEADER as never,
    0,
    {
      magic: 0,
      version: 4,
      backingFileOffset: 8,
      backingFileSize: 16,
      clusterBits: 20,
      size: 24,
      cryptMethod: 32,
      l1Size: 36,
      l1TableOffset: 40,
      refcountTableOffset: 48,
      refcountTableClusters: 56,
      nbSnapshots: 60,
      snapshotsOffset: 64,
    },
    72,
  ],
  [
    layout.HEADER_V3 as never,
    72,
    {
      incompatibleFeatures: 72,
      compatibleFeatures: 80,
      autoclearFeatures: 88,
      refcountOrder: 96,
      headerLength: 100,
    },
    104,
  ],
  [layout.HEADER_EXTENSION as never, 0, { type: 0, length: 4 }, 8],
  [layout.FEATURE_NAME as never, 0, { type: 0, bit: 1, name: 2 }, 48],
  [
    layout.BITMAPS_EXTENSION as never,
    0,
    { nbBitmaps: 0, reserved: 4, bitmapDirectorySize: 8, bitmapDirectoryOffset: 16 },
    24,
  ],
  [
    layout.BITMAP_DIRECTORY_ENTRY as never,
    0,
    {
      bitmapTableOffset: 0,
      bitmapTableSize: 8,
      flags: 12,
      type: 16,
      granularityBits: 17,
      nameSize: 18,
      extraDataSize: 20,
    },
    24,
  ],
  [
    layout.SNAPSHOT_HEADER as never,
    0,
    {
      l1TableOffset: 0,
      l1Size: 8,
      idStrSize: 12,
      nameSize: 14,
      dateSec: 16,
      dateNsec: 20,
      vmClockNsec: 24,
      vmStateSize: 32,
      extraDataSize: 36,
    },
    40,
  ],
  [layout.SNAPSHOT_EXTRA as never, 40, { vmStateSizeLarge: 40, diskSize: 48, icount: 56 }, 64],
];

describe('layout', () => {
  for (const [struct, start, offsets, end] of SPECIFICATION) {
    it(`${struct.name} has the offsets of the specification`, () => {
      const found = Object.entries(struct.offsets).map(([name, at]) => [name, start + at]);
      expect(Object.fromEntries(found)).to.deep.equal(offsets);
      expect(start + struct.size).to.equal(end);
    });
  }

  it('names the extensions by the numbers of the specification', () => {
    expect(layout.EXTENSION_TYPE).to.deep.equal({
      END: 0,
      BACKING_FORMAT: 0xe2792aca,
      FEATURE_TABLE: 0x6803f857,
      BITMAPS: 0x23852875,
      CRYPTO_HEADER: 0x0537be77,
      DATA_FILE: 0x44415441,
    });
    expect(layout.COMPRESSION_TYPE_OFFSET).to.equal(104);
  });

  it('numbers the feature bits as the specification does', () => {
    expect(Object.values(layout.INCOMPATIBLE)).to.deep.equal([0, 1, 2, 3, 4]);
    expect(layout.COMPATIBLE.LAZY_REFCOUNTS).to.equal(0);
    expect(layout.AUTOCLEAR).to.deep.equal({ BITMAPS: 0, DATA_FILE_RAW: 1 });
  });
});
