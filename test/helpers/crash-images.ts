/**
 * The images that crash workloads begin with, every sector telling what it is. Made by QEMU, but for those
 * with LUKS (that takes it seconds each, to time its keys) and of qcow (QEMU 7.2 fails where it compresses).
 */
import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type DiskState, emptyState } from './disk-history.js';
import { SECRET } from './image-words.js';
import { CLI } from './mount.js';
import { markSectors, SECTOR_SIZE, ZEROES } from './sector-marks.js';

/** Generation of what is there before the workload. */
const FIRST = 1;

/** The name of an image's data file: beside it, for whoever opens it from there. */
export const DATA_FILE = 'data.raw';

export interface ImageKind {
  /** qcow2 where it is not given. */
  readonly format?: 'qcow2' | 'qed' | 'qcow' | undefined;
  /** Sectors. */
  readonly size: number;
  /** Options of `qemu-img create -o`. */
  readonly options: readonly string[];
  /** It has bitmaps: one that is enabled, fine, and one that is not. */
  readonly bitmaps?: boolean;
  readonly content: 'empty' | 'filled' | 'compressed' | 'over backing file';
}

/** Makes the image at `path`, its backing file beside it; answers what its disk holds. */
export function makeCrashImage(path: string, kind: ImageKind): DiskState {
  const state = makeDisk(path, kind);
  if (kind.bitmaps === true) {
    const add = (...words: string[]) => execFileSync('qemu-img', ['bitmap', '--add', ...words]);
    add('-g', '512', path, 'on');
    add('--disable', path, 'off');
  }
  return state;
}

function makeDisk(path: string, { format = 'qcow2', size, options, content }: ImageKind) {
  const all = options.join(',');
  const ours = format === 'qcow' || all.includes('luks');
  // QEMU takes the name of a data file from where it runs.
  const [tool, ...first] = ours ? [process.execPath, CLI] : ['qemu-img'];
  const how = all === '' ? [] : ['-o', all];
  const make = (command: string, ...words: string[]) =>
    execFileSync(tool!, [...first, command, ...SECRET, ...words], { cwd: dirname(path) });
  const bytes = size * SECTOR_SIZE;
  if (content === 'empty') {
    make('create', '-q', '-f', format, ...how, path, String(bytes));
    return emptyState(new Int32Array(size).fill(ZEROES));
  }
  // A backing file that ends before the disk does: what lies behind its end reads as zeroes.
  const length = content === 'over backing file' ? size - Math.floor(size / 8) - 1 : size;
  const sectors = partlyFilled(length);
  const raw = join(path, '..', 'base.raw');
  writeFileSync(raw, bytesOf(sectors));
  const disk = new Int32Array(size).fill(ZEROES);
  disk.set(sectors);
  if (content === 'over backing file') {
    const backing = ['-b', raw, '-F', 'raw'];
    make('create', '-q', '-f', format, ...how, ...backing, path, String(bytes));
    return emptyState(disk);
  }
  const compress = content === 'compressed' ? ['-c'] : [];
  make('convert', '-q', ...compress, '-f', 'raw', '-O', format, ...how, raw, path);
  rmSync(raw);
  return emptyState(disk);
}

/** Filled but for a run of zeroes in each quarter. */
function partlyFilled(length: number): Int32Array {
  const sectors = new Int32Array(length).fill(FIRST);
  const quarter = Math.ceil(length / 4);
  for (let start = 0; start < length; start += quarter) {
    sectors.fill(ZEROES, start + (quarter >> 2), start + (quarter >> 1));
  }
  return sectors;
}

function bytesOf(sectors: Int32Array): Buffer {
  const parts = Array.from(sectors, (generation, sector) => markSectors(sector, 1, generation));
  return Buffer.concat(parts);
}
