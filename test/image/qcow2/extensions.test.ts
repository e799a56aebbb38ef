import { expect } from 'chai';
import { readExtensions } from '#src/image/qcow2/extensions.js';
import { EXTENSION_TYPE } from '#src/image/qcow2/layout.js';
import { expectImageError } from '../../helpers/errors.js';

/** Extensions one behind the other, from byte 8 of a view of 4096 bytes. */
function viewOf(...extensions: [type: number, data: Buffer, length?: number][]): DataView {
  const bytes = Buffer.alloc(4096);
  let at = 8;
  for (const [type, data, length = data.length] of extensions) {
    bytes.writeUInt32BE(type, at);
    bytes.writeUInt32BE(length, at + 4);
    data.copy(bytes, at + 8);
    at += 8 + Math.ceil(data.length / 8) * 8;
  }
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

const read = (view: DataView, end = 4096) => readExtensions(view, 8, end);
const feature = (type: number, bit: number, name: string) => {
  const entry = Buffer.alloc(48);
  entry.set([type, bit]);
  entry.write(name, 2);
  return entry;
};

describe('readExtensions()', () => {
  it('reads each kind, padded to 8 bytes, up to the end mark', () => {
    const bitmaps = Buffer.alloc(24);
    bitmaps.writeUInt32BE(2, 0);
    bitmaps.writeBigUInt64BE(64n, 8);
    bitmaps.writeBigUInt64BE(0x30000n, 16);
    const crypto = Buffer.alloc(16);
    crypto.writeBigUInt64BE(0x50000n, 0);
    crypto.writeBigUInt64BE(1000n, 8);
    const view = viewOf(
      [EXTENSION_TYPE.BACKING_FORMAT, Buffer.from('qcow2')],
      [EXTENSION_TYPE.DATA_FILE, Buffer.from('data file')],
      [0xabcdef01, Buffer.alloc(3)],
      [EXTENSION_TYPE.FEATURE_TABLE, Buffer.concat([feature(0, 5, 'a'), feature(2, 63, 'b')])],
      [EXTENSION_TYPE.BITMAPS, bitmaps],
      [EXTENSION_TYPE.CRYPTO_HEADER, crypto],
      [EXTENSION_TYPE.END, Buffer.alloc(0)],
      [EXTENSION_TYPE.BACKING_FORMAT, Buffer.from('behind the end')],
    );
    expect(read(view)).to.deep.equal({
      backingFormat: 'qcow2',
      dataFile: 'data file',
      featureNames: [
        { type: 0, bit: 5, name: 'a' },
        { type: 2, bit: 63, name: 'b' },
      ],
      bitmaps: { nbBitmaps: 2, bitmapDirectorySize: 64, bitmapDirectoryOffset: 0x30000 },
      cryptoHeader: { offset: 0x50000, length: 1000 },
      unknown: [0xabcdef01],
    });
  });

  it('reads a feature name of full length, and an entry that is cut off', () => {
    const cut = feature(0, 63, 'cut').subarray(0, 5);
    const table = Buffer.concat([feature(0, 7, 'n'.repeat(46)), cut]);
    const { featureNames } = read(viewOf([EXTENSION_TYPE.FEATURE_TABLE, table]));
    expect(featureNames).to.deep.equal([
      { type: 0, bit: 7, name: 'n'.repeat(46) },
      { type: 0, bit: 63, name: 'cut' },
    ]);
  });

  it('refuses one that does not end before the backing name or the cluster', () => {
    const view = viewOf([0x1234, Buffer.alloc(16), 17]);
    expectImageError('EINVAL', /too large \(type 0x1234, 17 bytes, at most 16\)/, () =>
      read(view, 32),
    );
    const huge = viewOf([0x1234, Buffer.alloc(16), 0xffff_ffff]);
    expectImageError('EINVAL', /too large/, () => read(huge));
  });

  it('ends quietly where less than an extension is left', () => {
    expect(read(viewOf([0x1234, Buffer.alloc(8)]), 31).unknown).to.deep.equal([0x1234]);
    expect(read(viewOf([0x1234, Buffer.alloc(8)]), 4).unknown).to.deep.equal([]);
  });

  it('refuses a bitmaps extension of another length or with its reserved field set', () => {
    expectImageError('EINVAL', /Invalid extension length: 23/, () =>
      read(viewOf([EXTENSION_TYPE.BITMAPS, Buffer.alloc(23)])),
    );
    expectImageError('EINVAL', /Reserved field/, () =>
      read(viewOf([EXTENSION_TYPE.BITMAPS, Buffer.alloc(24, 1)])),
    );
  });

  it('refuses a crypto header of another length', () => {
    expectImageError('EINVAL', /size 15, but expected size 16/, () =>
      read(viewOf([EXTENSION_TYPE.CRYPTO_HEADER, Buffer.alloc(15)])),
    );
  });
});
