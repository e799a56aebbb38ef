/** Parallels, Bochs and cloop images, and what is refused by its name: the same as QEMU reads and says. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import type { ErrnoName } from '#src/errors.js';
import { openImage } from '#src/image/open.js';
import { expectImageError } from '../helpers/errors.js';
import { bochs, cloop } from '../helpers/foreign-images.js';
import { runInProcess } from '../helpers/in-process.js';
import { qemuImg, qemuRead, tryQemuImg, tryQemuIo } from '../helpers/qemu.js';
import { pattern } from '../helpers/random.js';
import { readImage } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';

const KIB = 1024;

describe('Parallels, Bochs, cloop and dmg images', () => {
  const temp = useTempFolder();

  /** Expects both tools to say the same of the image. */
  async function same(...words: string[]): Promise<void> {
    const { status, stdout, stderr } = tryQemuImg(...words);
    const ours = await runInProcess(words, temp.path);
    expect(ours, words.join(' ')).to.deep.equal({ status, stdout, stderr });
  }

  async function told(path: string, ...commands: string[]): Promise<void> {
    for (const output of ['human', 'json']) {
      for (const command of commands) await same(command, `--output=${output}`, path);
    }
  }

  /** A disk of 10.5 MiB in blocks of 64 KiB, of which there are some. */
  function parallels(): { path: string; bytes: Buffer } {
    const path = temp.at('disk.hds');
    qemuImg('create', '-q', '-f', 'parallels', '-o', 'cluster_size=64k', path, '10752k');
    const writes = ['write -P 1 0 70k', 'write -P 2 5M 1k', 'write -P 3 10750k 2k'];
    const words = writes.flatMap((write) => ['-c', write]);
    expect(tryQemuIo('-f', 'parallels', ...words, path).status).to.equal(0);
    return { path, bytes: readFileSync(path) };
  }

  it('Parallels: all that is told, and read', async () => {
    const { path } = parallels();
    await told(path, 'info', 'map', 'check');
    await same('measure', '-O', 'qcow2', path);
    expect(readImage(path).equals(qemuRead(path))).to.equal(true);
  });

  it('Parallels: what is wrong with it is what QEMU finds', async () => {
    const { path, bytes } = parallels();
    const damage: ((image: Buffer) => unknown)[] = [
      (image) => image.writeUInt32LE(0x746f6e59, 44),
      (image) => image.writeUInt32LE(0x1000, 64),
      (image) => image.writeUInt32LE(0xffffffff, 68),
      (image) => image.writeUInt32LE(1, 68),
      (image) => image.writeUInt32LE(0, 68),
      (image) => Buffer.concat([image, Buffer.alloc(300_000)]),
      (image) => Buffer.concat([image, Buffer.alloc(100)]),
      (image) => image.subarray(0, 240_000),
      (image) => image.writeUInt32LE(100, 28),
      (image) => image.writeUInt32LE(20, 32),
      // The older magic: entries count sectors.
      (image) => image.write('WithoutFreeSpace'),
    ];
    for (const change of damage) {
      const image = Buffer.from(bytes);
      const changed = change(image);
      writeFileSync(path, Buffer.isBuffer(changed) ? changed : image);
      await told(path, 'info', 'map', 'check');
    }
    expect((await runInProcess(['check', '-r', 'all', path], temp.path)).status).to.equal(63);
  });

  it('Parallels: headers that make no sense are refused in the same words', async () => {
    const { path, bytes } = parallels();
    const fields: [offset: number, value: number][] = [
      [16, 3],
      [28, 0],
      [28, 0x7fffffff],
      [32, 0x7fffffff],
      // A format extension that is none.
      [56, 128],
    ];
    for (const [offset, value] of fields) {
      const image = Buffer.from(bytes);
      image.writeUInt32LE(value, offset);
      writeFileSync(path, image);
      const words = ['info', '-f', 'parallels', path];
      const { status, stderr } = await runInProcess(words, temp.path);
      expect(status).to.equal(1);
      expect(stderr).to.include(tryQemuImg(...words).stderr.trim());
    }
  });

  it('Parallels: a feature without which it cannot be read is refused, another one not', () => {
    const { path, bytes } = parallels();
    for (const [magic, flags, isRead] of [
      [0x20385fae252cb34an, 1n, true],
      [0x1234n, 0n, true],
      [0x1234n, 1n, false],
    ] as const) {
      const image = Buffer.concat([bytes, Buffer.alloc(64 * KIB)]);
      image.writeBigUInt64LE(BigInt(bytes.length / 512), 56);
      image.writeBigUInt64LE(0xab234cef23dcea87n, bytes.length);
      image.writeBigUInt64LE(magic, bytes.length + 24);
      image.writeBigUInt64LE(flags, bytes.length + 32);
      writeFileSync(path, image);
      if (isRead) expect(readImage(path)).to.have.length(10752 * KIB);
      else expectImageError('ENOTSUP', /feature 0x1234 is not known/, () => openImage(path));
    }
  });

  for (const version of [1, 2] as const) {
    it(`Bochs, version ${version}`, async () => {
      const all = [...Array(128).keys()];
      const present = new Map([
        [3, all],
        [0, [0, 1, 31, 32, 33, 64, 127]],
        [7, all.filter((n) => n % 3 === 0)],
      ]);
      const image = bochs(version, 64 * KIB, 9, present, (sector) => pattern(sector, 512));
      const path = temp.write('disk.bochs', image);
      await told(path, 'info');
      const { status, stdout } = await runInProcess(['map', path], temp.path);
      expect({ status, stdout }).to.deep.include({ status: 0 });
      // Sectors 0 and 1 lie behind the second extent's bitmap.
      const first = 512 + 36 + (512 + 64 * KIB) + 512;
      expect(stdout).to.include(`0               0x400           0x${first.toString(16)}`);
      expect(readImage(path).equals(qemuRead(path))).to.equal(true);
    });
  }

  it('cloop', async () => {
    const blocks = [pattern(1, 64 * KIB), Buffer.alloc(64 * KIB), pattern(3, 64 * KIB)];
    const path = temp.write('disk.cloop', cloop(blocks));
    await told(path, 'info');
    expect(readImage(path).equals(Buffer.concat(blocks))).to.equal(true);
    expect(qemuRead(path).equals(Buffer.concat(blocks))).to.equal(true);
  });

  it('Bochs and cloop: headers and tables that make no sense', () => {
    const present = new Map([[0, [0]]]);
    const good = bochs(2, 64 * KIB, 2, present, (sector) => pattern(sector, 512));
    const packed = cloop([pattern(1, 4096), pattern(2, 4096)]);
    const cases: [Buffer, (image: Buffer) => void, ErrnoName, RegExp][] = [
      [good, (image) => image.writeUInt32LE(3, 64), 'EINVAL', /not in Bochs format/],
      [good, (image) => image.writeUInt32LE(0x100001, 72), 'EFBIG', /Catalog size is too large/],
      [good, (image) => image.writeUInt32LE(1, 72), 'EINVAL', /too small for this disk size/],
      [good, (image) => image.writeUInt32LE(1 << 20, 72), 'EINVAL', /past the end of the file/],
      [good, (image) => image.writeUInt32LE(256, 80), 'EINVAL', /at least 512/],
      [good, (image) => image.writeUInt32LE(65537, 80), 'EINVAL', /65537 is not a power of two/],
      [good, (image) => image.writeUInt32LE(1 << 24, 80), 'EINVAL', /16777216 is too large/],
      [good, (image) => image.writeUInt32LE(1, 76), 'EINVAL', /header is invalid/],
      [good, (image) => image.writeUInt32LE(77, 512), 'EIO', /extent 0 lies past the end of file/],
      [packed, (image) => image.writeUInt32BE(0, 128), 'EINVAL', /block_size cannot be zero/],
      [packed, (image) => image.writeUInt32BE(700, 128), 'EINVAL', /multiple of 512/],
      [packed, (image) => image.writeUInt32BE(128 << 20, 128), 'EINVAL', /64 MB or less/],
      [packed, (image) => image.writeUInt32BE(2 ** 31, 132), 'EINVAL', /too many offsets/],
      [packed, (image) => image.writeUInt32BE(4000, 132), 'EINVAL', /past the end of the file/],
      [packed, (image) => image.writeUInt32BE(9, 136), 'EIO', /block 0 lies from byte .* to /],
      [packed, (image) => image.writeUInt32BE(8192, 128), 'EIO', /holds 4096 bytes/],
      [packed, (image) => image.fill(0, 160, 170), 'EIO', /cannot decompress the block at byte/],
    ];
    for (const [base, change, code, message] of cases) {
      const image = Buffer.from(base);
      change(image);
      const path = temp.write('bad', image);
      const format = base === good ? 'bochs' : 'cloop';
      expectImageError(code, message, () => readImage(path, { format }));
    }
  });

  it('dmg, by its name and its end, and LUKS: refused, and raw where that is stated', async () => {
    const dmg = Buffer.alloc(4096);
    dmg.write('koly', 4096 - 512);
    const luks = Buffer.alloc(4096);
    luks.write('LUKS\xba\xbe', 'latin1');
    for (const [name, bytes] of [
      ['disk.dmg', dmg],
      ['disk.luks', luks],
    ] as const) {
      const path = temp.write(name, bytes);
      const refused = /is not supported .*format=raw takes its bytes as they are/;
      expectImageError('ENOTSUP', refused, () => openImage(path));
      expect(readImage(path, { format: 'raw' }).equals(bytes)).to.equal(true);
      expect((await runInProcess(['info', path], temp.path)).status).to.equal(1);
    }
    // As QEMU: by another name, these are the disk's bytes.
    const other = temp.write('disk.img', dmg);
    await same('info', other);
  });
});
