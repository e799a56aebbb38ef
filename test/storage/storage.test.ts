import { closeSync, openSync } from 'node:fs';
import { expect } from 'chai';
import { FileStorage } from '#src/storage/file.js';
import { MemoryStorage } from '#src/storage/memory.js';
import type { Storage } from '#src/storage/storage.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { pattern } from '../helpers/random.js';
import { useTempFolder } from '../helpers/temp.js';

const CONTENT = pattern(3, 10_000);

describe('Storage', () => {
  const temp = useTempFolder();
  let storages: Storage[];
  let fd: number;
  beforeEach(() => {
    fd = openSync(temp.write('file', CONTENT), 'r');
    storages = [new FileStorage(fd, 'file'), new MemoryStorage(CONTENT)];
  });
  afterEach(() => closeSync(fd));

  it('read() answers the same from a file and from memory', () => {
    for (const storage of storages) {
      expect(storage.size()).to.equal(CONTENT.length);
      for (const [position, length, present] of [
        [0, 100, 100],
        [9_990, 100, 10],
        [10_000, 100, 0],
        [20_000, 100, 0],
        [5, 0, 0],
      ] as const) {
        const target = new IoBuffer(200);
        target.bytes.fill(0xee);
        expect(storage.read(target, 50, length, position)).to.equal(present);
        const expected = CONTENT.subarray(position, position + present);
        expect(target.bytes.subarray(50, 50 + present).equals(expected)).to.equal(true);
        expect(target.bytes[49]).to.equal(0xee);
        expect(target.bytes[50 + present]).to.equal(0xee);
      }
    }
  });

  it('nextData() and nextHole() find data within the size', () => {
    for (const storage of storages) {
      expect(storage.nextData(100, 200)).to.equal(100);
      expect(storage.nextHole(100, 200)).to.equal(200);
    }
  });
});
