/** Images of formats that qemu-img reads and does not make. */
import { deflateSync } from 'node:zlib';

const SECTOR = 512;

/** A descriptor as VMware writes it, of these extents. */
export function vmdkDescriptor(createType: string, extents: readonly string[], more = ''): string {
  const head = `version=1\nCID=12345678\nparentCID=ffffffff\ncreateType="${createType}"\n`;
  return `# Disk DescriptorFile\n${head}${more}\n# Extents\n${extents.join('\n')}\n`;
}

/** A sparse extent of ESX: grains of 4 KiB, the second one allocated. */
export function cowd(sectors: number, grain: Buffer): Buffer {
  const file = Buffer.alloc(40 * SECTOR + grain.length);
  file.write('COWD');
  for (const [index, value] of [1, 3, sectors, 8, 4, 1, 0].entries()) {
    file.writeUInt32LE(value, 4 + index * 4);
  }
  file.write('CID=1\nparentCID=ffffffff\n', SECTOR);
  file.writeUInt32LE(5, 4 * SECTOR);
  file.writeUInt32LE(40, 5 * SECTOR + 4);
  grain.copy(file, 40 * SECTOR);
  return file;
}

/** One of ESXi: its first grain is zeroes, its second unmapped, its third allocated. */
export function seSparse(sectors: number, grain: Buffer): Buffer {
  const file = Buffer.alloc(200 * SECTOR + grain.length);
  const fields = [0xcafebabe, 0x200000001, sectors, 8, 64, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0];
  const places = [2, 1, 16, 128, 0, 0, 0, 0, 192, 16];
  for (const [index, value] of [...fields, ...places].entries()) {
    file.writeBigUInt64LE(BigInt(value), index * 8);
  }
  file.writeBigUInt64LE(0xcafecafen, SECTOR);
  file.writeBigUInt64LE(0x1000_0000_0000_0001n, 2 * SECTOR);
  const table = (16 + 64) * SECTOR;
  file.writeBigUInt64LE(0x2000_0000_0000_0000n, table);
  file.writeBigUInt64LE(0x1000_0000_0000_0000n, table + 8);
  file.writeBigUInt64LE(0x3001_0000_0000_0000n, table + 16);
  grain.copy(file, 200 * SECTOR);
  return file;
}

/** Bochs' growing disk of `extents` extents; of each that is named, the sectors that it has. */
export function bochs(
  version: 1 | 2,
  extentSize: number,
  extents: number,
  present: ReadonlyMap<number, readonly number[]>,
  bytesOf: (sector: number) => Buffer,
): Buffer {
  const sectors = extentSize / SECTOR;
  const bitmapSize = Math.ceil(sectors / 8);
  const bitmapSpace = Math.ceil(bitmapSize / SECTOR) * SECTOR;
  const header = Buffer.alloc(SECTOR);
  header.write('Bochs Virtual HD Image');
  header.write('Redolog', 32);
  header.write('Growing', 48);
  for (const [n, field] of [version << 16, SECTOR, extents, bitmapSize, extentSize].entries()) {
    header.writeUInt32LE(field, 64 + n * 4);
  }
  header.writeBigUInt64LE(BigInt(extents * extentSize), version === 1 ? 84 : 88);
  const catalog = Buffer.alloc(extents * 4, 0xff);
  const bodies = [...present].map(([extent, list], n) => {
    catalog.writeUInt32LE(n, extent * 4);
    const body = Buffer.alloc(bitmapSpace + extentSize);
    for (const sector of list) {
      body[sector >> 3]! |= 1 << (sector & 7);
      bytesOf(extent * sectors + sector).copy(body, bitmapSpace + sector * SECTOR);
    }
    return body;
  });
  return Buffer.concat([header, catalog, ...bodies]);
}

/** A compressed loop device's image of blocks that are all of one size. */
export function cloop(blocks: readonly Buffer[]): Buffer {
  const script =
    '#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n';
  const header = Buffer.alloc(136);
  header.write(script);
  header.writeUInt32BE(blocks[0]!.length, 128);
  header.writeUInt32BE(blocks.length, 132);
  const packed = blocks.map((block) => deflateSync(block));
  const table = Buffer.alloc((blocks.length + 1) * 8);
  let place = header.length + table.length;
  for (const [n, { length }] of [...packed, Buffer.alloc(0)].entries()) {
    table.writeBigUInt64BE(BigInt(place), n * 8);
    place += length;
  }
  return Buffer.concat([header, table, ...packed]);
}
