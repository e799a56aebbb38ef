import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { readHeader } from '#src/image/qcow2/header.js';
import {
  setFeatures,
  setL1,
  setRefcountTable,
  setSize,
  setSnapshots,
} from '#src/image/qcow2/header-edit.js';
import { prepareForWriting } from '#src/image/qcow2/prepare-for-writing.js';
import { MemoryStorage } from '#src/storage/memory.js';
import type { IoBuffer } from '#src/sys/io-buffer.js';
import { buildImage } from '../../helpers/image-builder.js';
import type { ImageSpec } from '../../helpers/image-spec.js';
import { qemuImg, tryQemuImg } from '../../helpers/qemu.js';
import { useTempFolder } from '../../helpers/temp.js';

const SIZE = 1 << 20;

/** Memory that tells what was done to it. */
class Recorder extends MemoryStorage {
  readonly calls: string[] = [];

  override write(source: IoBuffer, at: number, length: number, position: number): void {
    const hex = source.bytes.subarray(at, at + length).toString('hex');
    this.calls.push(`write ${position}-${position + length - 1}: ${hex}`);
    super.write(source, at, length, position);
  }

  override flush(): void {
    this.calls.push('flush');
  }
}

function recorder(spec: Partial<ImageSpec> = {}): Recorder {
  return new Recorder(Uint8Array.from(buildImage({ size: SIZE, ...spec }).bytes));
}

describe('header-edit', () => {
  const temp = useTempFolder();
  const edits: [name: string, edit: (storage: Recorder) => void, calls: string[]][] = [
    ['setSize', (s) => setSize(s, 0x1_0000_0200), ['write 24-31: 0000000100000200']],
    [
      'setL1',
      (s) => setL1(s, { l1Size: 0x12, l1TableOffset: 0x34_0000 }),
      ['write 36-47: 000000120000000000340000'],
    ],
    [
      'setRefcountTable',
      (s) => setRefcountTable(s, { refcountTableOffset: 0x56_0000, refcountTableClusters: 7 }),
      ['write 48-59: 000000000056000000000007'],
    ],
    [
      'setSnapshots',
      (s) => setSnapshots(s, { nbSnapshots: 3, snapshotsOffset: 0x78_0000 }),
      ['write 60-71: 000000030000000000780000'],
    ],
    [
      'setFeatures',
      (s) => setFeatures(s, { incompatible: 1n, compatible: 2n, autoclear: 1n << 63n }),
      ['write 72-95: 000000000000000100000000000000028000000000000000'],
    ],
  ];

  for (const [name, edit, calls] of edits) {
    it(`${name}() writes its fields at once, where the specification has them, and nothing else`, () => {
      const storage = recorder();
      const before = Buffer.from(storage.bytes);
      edit(storage);
      expect(storage.calls).to.deep.equal(calls);
      const [, from, to, hex] = /^write (\d+)-(\d+): (.*)$/.exec(calls[0]!)!;
      before.write(hex!, Number(from), 'hex');
      expect(hex!.length / 2).to.equal(Number(to) - Number(from) + 1);
      expect(before.equals(storage.bytes)).to.equal(true);
    });
  }

  it('setFeatures() leaves the masks that are not given', () => {
    const storage = recorder({
      header: { compatibleFeatures: 1n, autoclearFeatures: 4n, incompatibleFeatures: 0n },
    });
    setFeatures(storage, { incompatible: 1n });
    const header = readHeader(storage);
    expect(header.incompatibleFeatures).to.equal(1n);
    expect(header.compatibleFeatures).to.equal(1n);
    expect(header.autoclearFeatures).to.equal(4n);
  });

  it('setFeatures() writes nothing into an image of version 2, which has none', () => {
    const storage = recorder({ version: 2 });
    expect(() => setFeatures(storage, { incompatible: 1n })).to.throw(RangeError, /version 2/);
    expect(storage.calls).to.deep.equal([]);
  });

  describe('prepareForWriting()', () => {
    it('leaves an image alone that has nothing to clear', () => {
      for (const spec of [{}, { version: 2 as const }, { header: { compatibleFeatures: 1n } }]) {
        const storage = recorder(spec);
        const header = readHeader(storage);
        expect(prepareForWriting(storage, header)).to.deep.equal({ header, warnings: [] });
        expect(storage.calls).to.deep.equal([]);
      }
    });

    it('clears autoclear bits that are not known, in one durable write, without a word', () => {
      const storage = recorder({ header: { autoclearFeatures: (1n << 63n) | 4n } });
      const { header, warnings } = prepareForWriting(storage, readHeader(storage));
      expect(warnings).to.deep.equal([]);
      expect(storage.calls).to.deep.equal([`write 72-95: ${'0'.repeat(48)}`, 'flush']);
      expect(header).to.deep.equal(readHeader(storage));
      expect(header.autoclearFeatures).to.equal(0n);
    });

    it('keeps the bit of bitmaps that are there', () => {
      const storage = recorder({ bitmaps: [{ name: 'a' }], header: { autoclearFeatures: 5n } });
      const { header, warnings } = prepareForWriting(storage, readHeader(storage));
      expect(warnings).to.deep.equal([]);
      expect(header).to.deep.equal(readHeader(storage));
      expect(header.autoclearFeatures).to.equal(1n);
      expect(header.extensions.bitmaps?.nbBitmaps).to.equal(1);
    });

    it('clears it where there are none', () => {
      const storage = recorder({ header: { autoclearFeatures: 1n } });
      const { header } = prepareForWriting(storage, readHeader(storage));
      expect(header).to.deep.equal(readHeader(storage));
      expect(header.autoclearFeatures).to.equal(0n);
    });

    it('drops bitmaps that are out of date, as QEMU does, and says so', () => {
      const path = temp.at('image');
      qemuImg('create', '-q', '-f', 'qcow2', path, `${SIZE}`);
      qemuImg('bitmap', '--add', path, 'b0');
      const storage = new Recorder(Uint8Array.from(readFileSync(path)));
      setFeatures(storage, { autoclear: 0n });
      const { header, warnings } = prepareForWriting(storage, readHeader(storage));
      expect(warnings.join()).to.match(/its 1 bitmaps are out of date/);
      expect(header.extensions.bitmaps).to.equal(null);
      expect(header).to.deep.equal(readHeader(storage));
      temp.write('image', storage.bytes);
      const check = tryQemuImg('check', path);
      expect(check.status, 'leaks only').to.equal(3);
      expect(check.stderr).not.to.contain('inconsistent');
      expect(qemuImg('check', '-r', 'leaks', path)).to.contain('No errors were found');
    });
  });
});
