/** What is wrong with VDI, VHD, VHDX, VMDK and QED images: found, and refused, as QEMU does it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { crc32c } from '#src/codec/crc32c.js';
import { closeImage, openImage } from '#src/image/open.js';
import { check } from '#src/tools/check.js';
import { expectImageError } from '../helpers/errors.js';
import { vmdkDescriptor } from '../helpers/foreign-images.js';
import { runInProcess } from '../helpers/in-process.js';
import { qemuImg, qemuIo, tryQemuImg, tryQemuIo } from '../helpers/qemu.js';
import { readImage } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';

const MIB = 1 << 20;

describe('damaged VDI, VHD, VHDX, VMDK and QED images', () => {
  const temp = useTempFolder();

  async function same(...words: string[]): Promise<void> {
    const { status, stdout, stderr } = tryQemuImg(...words);
    const ours = await runInProcess(words, temp.path);
    expect(ours, words.join(' ')).to.deep.equal({ status, stdout, stderr });
  }

  async function sameCheck(path: string, bytes: Buffer): Promise<void> {
    writeFileSync(path, bytes);
    await same('check', path);
    await same('check', '--output=json', path);
  }

  it('VDI: blocks that are none, that two entries name, that are counted wrongly', async () => {
    const path = temp.at('disk.vdi');
    qemuImg('create', '-q', '-f', 'vdi', path, '8M');
    qemuIo(path, 'write -P 1 0 1k', 'write -P 2 3M 1k', 'write -P 3 5M 1k');
    const base = readFileSync(path);
    const map = base.readUInt32LE(340);
    const damage: ((image: Buffer) => void)[] = [
      () => {},
      (image) => image.writeUInt32LE(8, map),
      (image) => image.writeUInt32LE(0xfffffffd, map + 4),
      (image) => image.writeUInt32LE(1, map),
      (image) => image.writeUInt32LE(0xfffffffe, map),
      (image) => image.writeUInt32LE(7, 388),
      (image) => {
        for (let block = 0; block < 8; block++) image.writeUInt32LE(block % 3, map + block * 4);
      },
    ];
    for (const change of damage) {
      const image = Buffer.from(base);
      change(image);
      await sameCheck(path, image);
    }
    await same('check', '-r', 'all', path);
  });

  /** A footer or header whose checksum, which stands at `at`, fits it. */
  function summed(image: Buffer, [start, size]: readonly [number, number], at: number): void {
    image.writeUInt32BE(0, start + at);
    const sum = image.subarray(start, start + size).reduce((total, byte) => total + byte, 0);
    image.writeUInt32BE(~sum >>> 0, start + at);
  }

  function vhd(): { path: string; base: Buffer } {
    const path = temp.at('disk.vhd');
    qemuImg('create', '-q', '-f', 'vpc', path, '5M');
    expect(tryQemuIo('-f', 'vpc', '-c', 'write -P 7 0 1M', path).status).to.equal(0);
    return { path, base: readFileSync(path) };
  }

  it('VHD: which of its footers count', async () => {
    const { path, base } = vhd();
    const first = (image: Buffer) => summed(image, [0, 512], 64);
    const damage: ((image: Buffer) => unknown)[] = [
      (image) => image.writeUInt8(0, 0),
      (image) => image.writeUInt8(1, 100),
      (image) => image.writeUInt8(1, image.length - 412),
      (image) => image.writeUInt8(0, image.length - 512),
      (image) => image.subarray(0, image.length - 512),
      (image) => {
        image.writeBigUInt64BE(4n << 20n, 48);
        first(image);
      },
      (image) => {
        image.write('win ', 28);
        image.writeBigUInt64BE(4n << 20n, 48);
        first(image);
      },
      (image) => {
        image.writeUInt32BE(2, 512 + 28);
        summed(image, [512, 1024], 36);
      },
    ];
    for (const change of damage) {
      const image = Buffer.from(base);
      const changed = change(image);
      writeFileSync(path, Buffer.isBuffer(changed) ? changed : image);
      await same('info', '-f', 'vpc', path);
    }
  });

  it('VHD: whether its size is that of its geometry can be said', async () => {
    const { path, base } = vhd();
    const image = Buffer.from(base);
    image.writeBigUInt64BE(4n << 20n, 48);
    summed(image, [0, 512], 64);
    for (const app of ['qem2', 'qemu']) {
      image.write(app, 28);
      summed(image, [0, 512], 64);
      writeFileSync(path, image);
      for (const size of ['chs', 'current_size', 'auto', '']) {
        const words = `driver=vpc,file.filename=${path},force_size_calc=${size}`;
        await same('info', '--image-opts', words);
        await same('map', '--image-opts', words);
      }
    }
    const json = {
      driver: 'vpc',
      file: { driver: 'file', filename: path },
      force_size_calc: 'chs',
    };
    await same('measure', '-O', 'qcow2', `json:${JSON.stringify(json)}`);
  });

  interface Region {
    readonly guid: Buffer;
    readonly offset: number;
  }

  /** A VHDX image of two blocks with data, and its regions: of blocks, and of metadata. */
  function vhdx(): { path: string; base: Buffer; blocks: Region; metadata: Region } {
    const path = temp.at('disk.vhdx');
    qemuImg('create', '-q', '-f', 'vhdx', '-o', 'block_size=1M,log_size=1M', path, '8M');
    qemuIo(path, 'write -P 1 0 9k', 'write -P 2 3M 1k');
    const base = readFileSync(path);
    const [blocks, metadata] = [0, 1].map((n) => {
      const at = (192 << 10) + 16 + n * 32;
      const guid = Buffer.from(base.subarray(at, at + 16));
      return { guid, offset: Number(base.readBigUInt64LE(at + 16)) };
    });
    return { path, base, blocks: blocks!, metadata: metadata! };
  }

  function withRegions(base: Buffer, regions: readonly Region[]): Buffer {
    const image = Buffer.from(base);
    const table = Buffer.alloc(64 << 10);
    table.write('regi');
    table.writeUInt32LE(regions.length, 8);
    for (const [n, { guid, offset }] of regions.entries()) {
      guid.copy(table, 16 + n * 32);
      table.writeBigUInt64LE(BigInt(offset), 32 + n * 32);
      table.writeUInt32LE(MIB, 40 + n * 32);
    }
    table.writeUInt32LE(crc32c(table), 4);
    for (const place of [192 << 10, 256 << 10]) table.copy(image, place);
    return image;
  }

  it('VHDX: regions that lie over each other, the log, or the headers', () => {
    const { path, base, blocks, metadata } = vhdx();
    const log = Number(base.readBigUInt64LE((64 << 10) + 72));
    const other = { guid: Buffer.alloc(16, 'x'), offset: metadata.offset };
    const cases: (readonly Region[])[] = [
      [{ ...blocks, offset: metadata.offset }, metadata],
      [{ ...blocks, offset: log }, metadata],
      [blocks, { ...metadata, offset: 0 }],
      [blocks, metadata, other],
    ];
    for (const regions of cases) {
      writeFileSync(path, withRegions(base, regions));
      expectImageError('EINVAL', /VHDX region \d+-\d+ overlaps with region \d+-\d+$/, () =>
        openImage(path),
      );
      expect(tryQemuImg('info', path).status).to.equal(1);
    }
    writeFileSync(path, withRegions(base, [metadata, blocks, { ...other, offset: 20 * MIB }]));
    expectImageError('EINVAL', /region 78787878-.* is invalid/, () => openImage(path));
    writeFileSync(path, withRegions(base, [metadata, blocks]));
    expect(readImage(path).subarray(0, 9 << 10)).to.deep.equal(Buffer.alloc(9 << 10, 1));
  });

  it('VHDX: a block that lies over a table', async () => {
    const { path, base, blocks, metadata } = vhdx();
    const image = Buffer.from(base);
    image.writeBigUInt64LE(BigInt(metadata.offset) | 6n, blocks.offset + 8);
    await sameCheck(path, image);
    expectImageError('EIO', /block 1 lies over a table: VHDX region .*entry at 0x200008/, () =>
      readImage(path),
    );
  });

  it('VHDX with a parent is refused by the name of that', () => {
    const { path, base, metadata } = vhdx();
    const image = Buffer.from(base);
    // The flag stands behind the block size, the first item.
    const flags = metadata.offset + (64 << 10) + 4;
    image.writeUInt32LE(image.readUInt32LE(flags) | 2, flags);
    writeFileSync(path, image);
    expectImageError('ENOTSUP', /with a parent \(no name\) are not/, () => openImage(path));
    const item = Buffer.alloc(512);
    const pairs = [
      ['absolute_win32_path', 'C:\\base.vhdx'],
      ['relative_path', '.\\base.vhdx'],
    ] as const;
    item.writeUInt16LE(pairs.length, 18);
    let place = 100;
    for (const [n, pair] of pairs.entries()) {
      for (const [which, text] of pair.entries()) {
        const length = item.write(text, place, 'utf16le');
        item.writeUInt32LE(place, 20 + n * 12 + which * 4);
        item.writeUInt16LE(length, 28 + n * 12 + which * 2);
        place += length;
      }
    }
    const at = metadata.offset + 32 + image.readUInt16LE(metadata.offset + 10) * 32;
    image.writeUInt16LE(image.readUInt16LE(metadata.offset + 10) + 1, metadata.offset + 10);
    Buffer.from('2d5fd3a80bb34d45abf7d3d84834ab0c', 'hex').copy(image, at);
    image.writeUInt32LE(128 << 10, at + 16);
    image.writeUInt32LE(item.length, at + 20);
    item.copy(image, metadata.offset + (128 << 10));
    writeFileSync(path, image);
    const refused = /with a parent \('\.\\base\.vhdx'\) are not/;
    expectImageError('ENOTSUP', refused, () => openImage(path));
    for (const far of [0, 20, 24, 28]) {
      const odd = Buffer.from(image);
      odd.fill(0xff, metadata.offset + (128 << 10) + far, metadata.offset + (128 << 10) + far + 4);
      writeFileSync(path, odd);
      expectImageError('ENOTSUP', /with a parent/, () => openImage(path));
    }
  });

  it('VMDK whose directory names one table a million times is checked at once', () => {
    const tables = 1 << 20;
    const directory = 30;
    const table = directory + (tables * 4) / 512;
    const image = Buffer.alloc(table * 512 + 2048);
    image.write('KDMV');
    image.writeUInt32LE(1, 4);
    for (const [at, value] of [
      [12, tables * 512 * 128],
      [20, 128],
      [28, 1],
      [36, 20],
      [56, directory],
    ] as const) {
      image.writeBigUInt64LE(BigInt(value), at);
    }
    image.writeUInt32LE(512, 44);
    image.write(vmdkDescriptor('monolithicSparse', []), 512);
    for (let n = 0; n < tables; n++) image.writeUInt32LE(table, directory * 512 + n * 4);
    // Every other grain is there, so that none continues another.
    for (let n = 0; n < 512; n += 2) image.writeUInt32LE(1, table * 512 + n * 4);
    const path = temp.write('disk.vmdk', image);
    expect(check(path).corruptions).to.equal(0);
    // Another one at the very end, and what is wrong with it.
    image.writeUInt32LE(table + 1000, directory * 512 + (tables - 1) * 4);
    writeFileSync(path, image);
    const found: unknown[] = [];
    expectImageError('EPERM', /./, () => check(path, { report: (one) => found.push(one) }));
    const sector = (tables - 1) * 512 * 128;
    expect(found).to.deep.equal([{ kind: 'grain-unknown', sector }]);
  });

  it('QED: features that are to be cleared by who does not know them', () => {
    const path = temp.at('disk.qed');
    const AUTOCLEAR_AT = 32;
    qemuImg('create', '-q', '-f', 'qed', path, '1M');
    const image = readFileSync(path);
    image.writeBigUInt64LE(0x8000_0000_0000_0005n, AUTOCLEAR_AT);
    writeFileSync(path, image);
    closeImage(openImage(path).description);
    expect(readFileSync(path).equals(image), 'read').to.equal(true);
    closeImage(openImage(path, { writable: true, lock: 'write' }).description);
    image.fill(0, AUTOCLEAR_AT, AUTOCLEAR_AT + 8);
    expect(readFileSync(path).equals(image), 'opened for writing').to.equal(true);
  });
});
