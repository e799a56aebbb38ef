/** Images of other formats to be damaged: how each is made, and where its structures lie. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bochs, cloop, cowd, seSparse, vmdkDescriptor } from './foreign-images.js';
import { qemuImg, tryQemuIo } from './qemu.js';
import { pattern } from './random.js';
import { logEntry, logPlace, metadataPlace, moveToLog, sumVhdx } from './vhdx-images.js';

/** A start, and how far it goes. */
export type Place = readonly [start: number, length: number];

export interface ForeignBase {
  readonly name: string;
  readonly format: string;
  /** The file that is damaged: the image itself where nothing else is said. */
  readonly file?: string;
  /** Makes it in the folder, and answers the path to be opened. */
  readonly make: (folder: string) => string;
  readonly places: (bytes: Buffer) => readonly Place[];
  /** It is lines of text. */
  readonly isText?: boolean;
  /** Makes checksums fit again; `base`: the image as it was. */
  readonly sum?: (bytes: Buffer, base: Buffer) => void;
}

const SECTOR = 512;
const WRITES = ['write -P 1 0 9k', 'write -z 64k 8k', 'write -P 2 2M 5k', 'write 3M 4k'];

function made(format: string, options: string, folder: string): string {
  const path = join(folder, `image.${format}`);
  const how = options === '' ? [] : ['-o', options];
  qemuImg('create', '-q', '-f', format, ...how, path, '4M');
  tryQemuIo('-f', format, ...WRITES.flatMap((write) => ['-c', write]), path);
  return path;
}

function byQemu(format: string, options: string, places: readonly Place[]): ForeignBase {
  return {
    name: `${format} ${options}`,
    format,
    make: (folder) => made(format, options, folder),
    places: () => places,
  };
}

function written(folder: string, name: string, bytes: Buffer | string): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

/** A stream of compressed grains; with `footer`, its header says that the one behind all counts. */
function streamed(footer: boolean): ForeignBase {
  return {
    name: `vmdk streamOptimized${footer ? ', with a footer' : ''}`,
    format: 'vmdk',
    make: (folder) => {
      const source = made('qcow2', '', folder);
      const path = join(folder, 'stream.vmdk');
      const how = ['-O', 'vmdk', '-o', 'subformat=streamOptimized'];
      qemuImg('convert', '-f', 'qcow2', ...how, source, path);
      if (!footer) return path;
      const bytes = readFileSync(path);
      const start = Buffer.concat([bytes, Buffer.alloc(-bytes.length & (SECTOR - 1))]);
      const end = Buffer.alloc(3 * SECTOR);
      end.writeUInt32LE(1, 0);
      end.writeUInt32LE(3, 12);
      start.copy(end, SECTOR, 0, SECTOR);
      start.fill(0xff, 56, 64);
      return written(folder, 'stream.vmdk', Buffer.concat([start, end]));
    },
    places: (bytes) => {
      const header = footer ? bytes.length - 2 * SECTOR : 0;
      const directory = Number(bytes.readBigUInt64LE(header + 56)) * SECTOR;
      const table = bytes.readUInt32LE(directory) * SECTOR;
      const grain = bytes.readUInt32LE(table) * SECTOR;
      return [
        [0, 80],
        [header, 80],
        [bytes.length - 3 * SECTOR, 3 * SECTOR],
        [SECTOR, 400],
        [directory, 16],
        [table, 256],
        [grain, 64],
      ];
    },
  };
}

/** A descriptor of some extents, of which the file named is damaged: itself where none is. */
function described(
  name: string,
  createType: string,
  extents: readonly (readonly [line: string, file: string, bytes: Buffer])[],
  file?: string,
  places: readonly Place[] = [],
): ForeignBase {
  return {
    name: `vmdk ${name}`,
    format: 'vmdk',
    make: (folder) => {
      for (const [, extent, bytes] of extents) written(folder, extent, bytes);
      const lines = extents.map(([line, extent]) => line.replace('%', extent));
      return written(folder, 'image.vmdk', vmdkDescriptor(createType, lines));
    },
    ...(file === undefined
      ? { isText: true, places: () => [[0, 400]] }
      : { file, places: () => places }),
  };
}

const GRAIN = pattern(7, 4096);
const COWD_FILE = ['RW 4096 VMFSSPARSE "%"', 'esx.vmdk', cowd(4096, GRAIN)] as const;
const SE_FILE = ['RW 8192 SESPARSE "%"', 'se.vmdk', seSparse(8192, GRAIN)] as const;
const FLAT_FILE = ['RW 64 FLAT "%" 0', 'flat.bin', pattern(3, 128 * SECTOR)] as const;

/** A disk of blocks; `child`: it says that it lies over another one. */
function vhd(child: boolean): ForeignBase {
  return {
    name: `vpc${child ? ' over a parent' : ', summed'}`,
    format: 'vpc',
    make: (folder) => {
      const path = made('vpc', '', folder);
      if (!child) return path;
      const bytes = readFileSync(path);
      bytes.writeUInt32BE(4, 60);
      bytes.write('\0b\0a\0s\0e', 512 + 64, 'latin1');
      sumVhd(bytes);
      return written(folder, 'child.vpc', bytes);
    },
    places: () => [
      [0, 90],
      [512, 100],
      [1536, 16],
    ],
    sum: sumVhd,
  };
}

function sumVhd(bytes: Buffer): void {
  for (const [start, size, at] of [
    [0, 512, 64],
    [512, 1024, 36],
  ] as const) {
    if (bytes.length < start + size) continue;
    bytes.writeUInt32BE(0, start + at);
    const sum = bytes.subarray(start, start + size).reduce((total, byte) => total + byte, 0);
    bytes.writeUInt32BE(~sum >>> 0, start + at);
  }
}

const LOG_ENTRIES = [8 * 4096, 10 * 4096];

/** A VHDX image whose table stands in its log. */
const LOGGED: ForeignBase = {
  name: 'vhdx with a log',
  format: 'vhdx',
  make: (folder) => {
    const bytes = readFileSync(made('vhdx', 'block_size=1M,log_size=1M', folder));
    moveToLog(bytes, (table, sector, size) => {
      const [first, second] = LOG_ENTRIES as [number, number];
      const wrong = Buffer.alloc(4096, 0xff);
      const both = [{ position: table + 4096 }, { position: table, sector }];
      return [
        [first, logEntry(8, first, size, [{ position: table, sector: wrong }])],
        [second, logEntry(9, first, size, both)],
      ];
    });
    return written(folder, 'logged.vhdx', bytes);
  },
  places: (bytes) => [
    [(64 << 10) + 8, 80],
    [(192 << 10) + 8, 80],
    [metadataPlace(bytes), 200],
    [metadataPlace(bytes) + (64 << 10), 64],
    ...LOG_ENTRIES.map((at): Place => [logPlace(bytes) + at + 8, 130]),
    ...LOG_ENTRIES.map((at): Place => [logPlace(bytes) + at + 4096, 80]),
  ],
  sum: (bytes, base) => {
    const entries = LOG_ENTRIES.map((at) => logPlace(base) + at);
    if (bytes.length >= base.length) sumVhdx(bytes, entries);
  },
};

function crafted(
  format: string,
  name: string,
  bytes: Buffer,
  places: readonly Place[],
): ForeignBase {
  return {
    name,
    format,
    make: (folder) => written(folder, `image.${format}`, bytes),
    places: () => places,
  };
}

function bochsImage(version: 1 | 2): ForeignBase {
  const present = new Map([
    [2, [0, 1, 31, 32, 127]],
    [0, [5, 6, 7]],
  ]);
  const bytes = bochs(version, 64 << 10, 8, present, (sector) => pattern(sector, SECTOR));
  return crafted('bochs', `bochs ${version}`, bytes, [
    [60, 40],
    [512, 80],
  ]);
}

const CLOOP = crafted('cloop', 'cloop', cloop([1, 2, 3].map((n) => pattern(n, 8192))), [
  [128, 8],
  [136, 32],
  [168, 60],
]);

/** Parallels' with an extension behind its blocks. */
const PARALLELS: ForeignBase = {
  name: 'parallels',
  format: 'parallels',
  make: (folder) => {
    const bytes = readFileSync(made('parallels', 'cluster_size=64k', folder));
    const extension = Buffer.alloc(64 << 10);
    extension.writeBigUInt64LE(0xab234cef23dcea87n);
    extension.writeBigUInt64LE(0x20385fae252cb34an, 24);
    extension.writeUInt32LE(100, 40);
    bytes.writeBigUInt64LE(BigInt(Math.ceil(bytes.length / SECTOR)), 56);
    const padding = Buffer.alloc(-bytes.length & (SECTOR - 1));
    return written(folder, 'image.parallels', Buffer.concat([bytes, padding, extension]));
  },
  places: (bytes) => [
    [0, 64],
    [64, 64],
    [bytes.length - (64 << 10), 200],
  ],
};

export const FOREIGN_BASES: readonly ForeignBase[] = [
  byQemu('qed', 'cluster_size=4k,table_size=1', [
    [0, 64],
    [4096, 64],
    [8192, 256],
  ]),
  byQemu('qcow', '', [
    [0, 64],
    [48, 64],
    [4096, 256],
  ]),
  byQemu('vdi', '', [
    [64, 64],
    [340, 80],
    [512, 16],
  ]),
  byQemu('vpc', '', [
    [0, 90],
    [512, 64],
    [1536, 16],
  ]),
  byQemu('vpc', 'subformat=fixed,force_size=on', [[4 << 20, 90]]),
  vhd(false),
  vhd(true),
  byQemu('vmdk', '', [
    [0, 80],
    [512, 400],
    [10752, 64],
    [13312, 16],
    [13824, 256],
  ]),
  { ...byQemu('vmdk', 'subformat=twoGbMaxExtentSparse', [[0, 440]]), isText: true },
  { ...byQemu('vmdk', 'subformat=monolithicFlat', [[0, 360]]), isText: true },
  streamed(false),
  streamed(true),
  crafted('vmdk', 'vmdk COWD', cowd(4096, GRAIN), [
    [0, 32],
    [SECTOR, 32],
    [4 * SECTOR, 8],
    [5 * SECTOR, 16],
  ]),
  described('of ESX', 'vmfsSparse', [COWD_FILE], 'esx.vmdk', [
    [0, 32],
    [4 * SECTOR, 8],
    [5 * SECTOR, 16],
  ]),
  described('of ESXi', 'seSparse', [SE_FILE], 'se.vmdk', [
    [0, 210],
    [SECTOR, 32],
    [2 * SECTOR, 16],
    [80 * SECTOR, 64],
  ]),
  described('of many kinds', 'monolithicFlat', [COWD_FILE, SE_FILE, FLAT_FILE]),
  byQemu('vhdx', 'block_size=1M,log_size=1M', [
    [196608, 96],
    [2 << 20, 256],
    [(2 << 20) + 65536, 64],
    [3 << 20, 64],
  ]),
  LOGGED,
  PARALLELS,
  bochsImage(1),
  bochsImage(2),
  CLOOP,
];
