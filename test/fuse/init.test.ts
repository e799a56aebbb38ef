import { expect } from 'chai';
import { ERRNO, describeError } from '#src/errors.js';
import { IN_HEADER, INIT_IN, INIT_IN_EXT, INIT_OUT, OUT_HEADER } from '#src/fuse/abi.js';
import {
  COPY_FILE_RANGE_IN,
  CREATE_IN,
  FALLOCATE_IN,
  LINK_IN,
  MKDIR_IN,
  MKNOD_IN,
  RENAME2_IN,
  RENAME_IN,
  SETATTR_IN,
  SETXATTR_IN,
  WRITE_IN,
} from '#src/fuse/abi-write.js';
import { answerInit } from '#src/fuse/init.js';
import { INIT, OPCODES } from '#src/fuse/opcodes.js';
import { Request } from '#src/fuse/request.js';
import { IoBuffer } from '#src/sys/io-buffer.js';

describe('structs of requests that change something', () => {
  it("have the sizes of the kernel's header", () => {
    const sizes = [SETATTR_IN, MKNOD_IN, MKDIR_IN, RENAME_IN, RENAME2_IN, LINK_IN];
    expect(sizes.map(({ size }) => size)).to.deep.equal([88, 16, 8, 8, 16, 8]);
    const more = [WRITE_IN, CREATE_IN, FALLOCATE_IN, COPY_FILE_RANGE_IN, SETXATTR_IN];
    expect(more.map(({ size }) => size)).to.deep.equal([40, 16, 32, 56, 8]);
  });

  it('have their fields where the kernel has them', () => {
    expect(SETATTR_IN.offsets).to.include({ fh: 8, atime: 32, atimensec: 56, mode: 68, uid: 76 });
    expect(WRITE_IN.offsets).to.include({ offset: 8, size: 16, lockOwner: 24, flags: 32 });
    expect(COPY_FILE_RANGE_IN.offsets).to.include({ nodeidOut: 16, len: 40, flags: 48 });
  });

  it('stand in a table without any code twice', () => {
    expect(new Set(OPCODES.map(({ code }) => code)).size).to.equal(OPCODES.length);
  });
});

describe('answerInit()', () => {
  function answer(opcode: number, major: number, minor: number, length = 16, flags2 = 0) {
    const request = new Request(new IoBuffer(4096));
    INIT_IN_EXT.write(request.view, IN_HEADER.size + INIT_IN.size, { flags2 });
    const reply = new IoBuffer(OUT_HEADER.size + INIT_OUT.size);
    request.length = IN_HEADER.size + length;
    IN_HEADER.write(request.view, 0, { len: request.length, opcode, unique: 7 });
    INIT_IN.write(request.view, IN_HEADER.size, { major, minor, flags: 0xffff_ffff });
    const result = answerInit(request, reply);
    const init = INIT_OUT.read(reply.view, OUT_HEADER.size);
    return { ...result, init, header: OUT_HEADER.read(reply.view, 0) };
  }

  it('is done with a kernel of the same major version', () => {
    const { header, done, size } = answer(INIT.code, 7, 28);
    expect({ done, size }).to.deep.equal({ done: true, size: 80 });
    expect(header).to.deep.equal({ len: 80, error: 0, unique: 7 });
  });

  it('asks for mappings of files without pages, where the kernel offers them', () => {
    const mmap = 1 << 4;
    expect(answer(INIT.code, 7, 39, 64, 0xff).init.flags2).to.equal(mmap);
    expect(answer(INIT.code, 7, 39, 64, 0xff & ~mmap).init.flags2).to.equal(0);
    // An older kernel's INIT ends before.
    expect(answer(INIT.code, 7, 31, 16, 0xff).init.flags2).to.equal(0);
  });

  it('asks a kernel of a later major version to come again', () => {
    expect(answer(INIT.code, 8, 0)).to.include({ done: false, error: 0, size: 80 });
  });

  for (const [what, words, reason] of [
    ['an old kernel', [INIT.code, 7, 27], 'the kernel speaks FUSE 7.27 (at least 7.28 is needed)'],
    ['another request', [1, 7, 31], "the kernel's first request is LOOKUP, not INIT"],
    ['an unknown request', [999, 7, 31], "the kernel's first request is opcode 999, not INIT"],
    ['a short one', [INIT.code, 7, 31, 8], "the kernel's INIT has only 48 bytes"],
  ] as const) {
    it(`refuses ${what}, and says what came`, () => {
      const [opcode, major, minor, length] = words;
      const { refusal, header } = answer(opcode, major, minor, length);
      expect(header).to.include({ len: 16, error: -ERRNO.EPROTO });
      expect(describeError(refusal)).to.equal(reason);
    });
  }
});
