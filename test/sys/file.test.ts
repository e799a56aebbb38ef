import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { expect } from 'chai';
import { ERRNO, SysError } from '#src/errors.js';
import { pread, seekExtent, sizeOf } from '#src/sys/file.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { useTempFolder } from '../helpers/temp.js';

describe('file', () => {
  const temp = useTempFolder();
  let fd: number;
  beforeEach(() => {
    fd = openSync(temp.at('file'), 'w+');
  });
  afterEach(() => closeSync(fd));

  it('pread() reads to the place asked for, and no more', () => {
    writeSync(fd, 'abcdefgh');
    const buffer = new IoBuffer(8);
    expect(pread(fd, buffer, 2, 3, 4)).to.equal(3);
    expect(buffer.bytes.toString('latin1')).to.equal('\0\0efg\0\0\0');
  });

  it('pread() ends with the file', () => {
    writeSync(fd, 'abc');
    const buffer = new IoBuffer(8);
    expect(pread(fd, buffer, 0, 8, 1)).to.equal(2);
    expect(pread(fd, buffer, 0, 8, 3)).to.equal(0);
    expect(pread(fd, buffer, 0, 8, 2 ** 52)).to.equal(0);
  });

  it('pread() never writes past the buffer', () => {
    const buffer = new IoBuffer(8);
    expect(() => pread(fd, buffer, 1, 8, 0)).to.throw(RangeError);
    expect(() => pread(fd, buffer, -1, 2, 0)).to.throw(RangeError);
    expect(() => pread(fd, buffer, 0, -1, 0)).to.throw(RangeError);
  });

  it('pread() throws a SysError with the errno', () => {
    const folder = openSync(temp.path, 'r');
    try {
      pread(folder, new IoBuffer(8), 0, 8, 0);
      expect.fail('read a folder');
    } catch (error) {
      expect(error).to.be.instanceOf(SysError);
      expect((error as SysError).errno).to.equal(ERRNO.EISDIR);
    } finally {
      closeSync(folder);
    }
  });

  it('sizeOf() tells the size', () => {
    ftruncateSync(fd, 2 ** 33 + 1);
    expect(sizeOf(fd)).to.equal(2 ** 33 + 1);
  });

  it('seekExtent() finds data and holes, no further than the end', () => {
    ftruncateSync(fd, 1 << 20);
    writeSync(fd, 'x', 1 << 18);
    const start = seekExtent(fd, 0, false, 1 << 20);
    const stop = seekExtent(fd, start, true, 1 << 20);
    expect(start).to.be.at.most(1 << 18);
    expect(stop).to.be.greaterThan(1 << 18);
    expect(seekExtent(fd, stop, false, 1 << 20)).to.equal(1 << 20);
    expect(seekExtent(fd, 0, false, 100)).to.equal(100);
    expect(seekExtent(fd, start, true, start + 1)).to.equal(start + 1);
  });

  it('seekExtent() takes what lies behind the file for a hole', () => {
    expect(seekExtent(fd, 512, true, 1024)).to.equal(512);
    expect(seekExtent(fd, 512, false, 1024)).to.equal(1024);
  });
});
