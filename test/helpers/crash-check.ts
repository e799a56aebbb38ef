/**
 * Judges an image that a crash left: QEMU must find no corruption in it, and all that it reads as
 * must be what was made certain or what was written since.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describeError, isExpected } from '#src/errors.js';
import type { AttachedImage } from '#src/image/attach.js';
import type { LayerDescription } from '#src/image/description.js';
import { BITMAP_FLAG } from '#src/image/qcow2/bitmaps.js';
import { hasBit } from '#src/image/qcow2/features.js';
import { AUTOCLEAR, INCOMPATIBLE } from '#src/image/qcow2/layout.js';
import type { Snapshot } from '#src/image/qcow2/snapshots.js';
import { DATA_FILE } from './crash-images.js';
import type { CrashState } from './crash-states.js';
import { type DiskState, Expectation, type Problem } from './disk-history.js';
import { qemuRead } from './qemu.js';
import { CLI } from './mount.js';
import { type CheckResult, qemuCheck } from './qemu-checks.js';
import { readDisk, withImage } from './read.js';
import {
  describeSector,
  readMarks,
  SECTOR_SIZE,
  vmStateGeneration,
  ZEROES,
} from './sector-marks.js';

export type FaultKind =
  | 'corrupt'
  | 'unreadable'
  | 'lost'
  | 'snapshots'
  | 'bitmap'
  | 'readers differ';

/** What is wrong with a state. */
export interface Fault {
  readonly kind: FaultKind;
  readonly what: string;
}

/** How to judge. */
export interface CheckOptions {
  /** Folder of the image's backing file; the states are written there. */
  readonly folder: string;
  /** What was certain when the recording began. */
  readonly before: DiskState;
  /** QEMU reads the state too, and must see the same. */
  readonly compareReaders: boolean;
}

let files = 0;

/** Judges a state; null where it is as it should be. */
export async function checkState(state: CrashState, options: CheckOptions): Promise<Fault | null> {
  const { path, remove } = placeState(state, options.folder);
  try {
    const expectation = new Expectation(options.before, state.notes);
    // QEMU looks for data files where it runs.
    const compareReaders = options.compareReaders && state.data === undefined;
    return await checkImage(path, expectation, compareReaders);
  } finally {
    remove();
  }
}

/** Writes the files of a state to a place of their own in `folder`. */
export function placeState({ bytes, data }: CrashState, folder: string): Placed {
  const place = join(folder, `state${files++}`);
  mkdirSync(place);
  const path = join(place, 'image.qcow2');
  writeFileSync(path, bytes);
  if (data !== undefined) writeFileSync(join(place, DATA_FILE), data);
  return { path, remove: () => rmSync(place, { recursive: true, force: true }) };
}

interface Placed {
  readonly path: string;
  readonly remove: () => void;
}

/** Judges the image at `path`, which stays as it is. */
export async function checkImage(
  path: string,
  expectation: Expectation,
  compareReaders: boolean,
): Promise<Fault | null> {
  const fault = checkReading(path, expectation);
  if (fault !== null) return fault;
  const difference = compareReaders ? differenceOfReaders(path) : null;
  if (difference !== null) return difference;
  const dirty = isDirty(path);
  // The need-check flag of QED excuses nothing.
  const structure = dirty && topOf(path).format === 'qcow2' ? null : await checkStructure(path);
  if (!dirty || structure !== null) return structure;
  const repaired = `${path}.repaired`;
  try {
    copyFileSync(path, repaired);
    return (await repair(repaired)) ?? checkReading(repaired, expectation);
  } finally {
    rmSync(repaired, { force: true });
  }
}

function topOf(path: string): LayerDescription {
  return withImage(path, ({ image }) => image.description.layers[0]);
}

/** Whether the image says itself that its refcounts cannot be trusted, or that it was not closed. */
export function isDirty(path: string): boolean {
  const top = topOf(path);
  if (top.format !== 'qcow2') return top.format !== 'raw' && top.facts.dirty;
  return hasBit(top.header.incompatibleFeatures, INCOMPATIBLE.DIRTY);
}

/** QEMU's judgement of the image alone. */
export async function checkStructure(path: string): Promise<Fault | null> {
  const top = topOf(path);
  // Nobody checks those. A cluster in two places shows in what is read: sectors tell where they belong.
  if (top.format === 'qcow') return null;
  const { status, output } = await qemuCheck('check', path);
  // 3: leaked clusters, no more.
  if (status === 0 || status === 3) return null;
  if (status === 2 && top.format === 'qcow2' && top.header.version === 2) {
    if (hasOnlyStaleFlags(output, top.header.geometry.clusterSize)) return null;
  }
  return { kind: 'corrupt', what: `qemu-img check: status ${status}: ${brief(output)}` };
}

/**
 * Whether all that QEMU finds wrong are COPIED flags that cannot do harm: absent though nobody else
 * has the cluster, or there though only its count is too high. A snapshot cannot change flags and
 * counts at once, and version 2 has no dirty bit to say that they do not agree.
 */
function hasOnlyStaleFlags(output: string, clusterSize: number): boolean {
  const lines = output.split('\n');
  const single = new Set(
    lines.flatMap(
      (line) => /^Leaked cluster (\d+) refcount=\d+ reference=1$/.exec(line)?.[1] ?? [],
    ),
  );
  return lines.every((line) => {
    if (!line.startsWith('ERROR')) return true;
    const entry = /^ERROR OFLAG_COPIED .*_entry=([0-9a-f]+) refcount=(\d+)$/.exec(line);
    if (entry === null) return false;
    const value = BigInt(`0x${entry[1]}`);
    if (value >> 63n === 0n) return entry[2] === '1';
    return single.has(String((value & 0x00ff_ffff_ffff_fe00n) / BigInt(clusterSize)));
  });
}

/** QEMU 7.2 loses the snapshots of an image with bitmaps that it repairs: those are repaired here. */
async function repair(path: string): Promise<Fault | null> {
  const top = topOf(path);
  const isQcow2 = top.format === 'qcow2';
  const hasBitmaps = isQcow2 && top.header.extensions.bitmaps !== null;
  const { status, output } = hasBitmaps ? repairHere(path) : await qemuCheck('repair', path);
  // Leaks of QED stay.
  if (status === 0 || (!isQcow2 && status === 3)) return checkStructure(path);
  return { kind: 'corrupt', what: `qemu-img check -r all: status ${status}: ${brief(output)}` };
}

function repairHere(path: string): CheckResult {
  const words = [CLI, 'check', '-r', 'all', path];
  const { status, stdout, stderr } = spawnSync(process.execPath, words, { encoding: 'utf8' });
  return { status: status ?? -1, output: stdout + stderr };
}

function checkReading(path: string, expectation: Expectation): Fault | null {
  try {
    return withImage(path, ({ image, warnings }) => {
      const disk = readDisk(image.disk);
      const problem = expectation.disk(readMarks(disk));
      if (problem !== null) return lost(problem, disk);
      const apart = checkRawFile(image, expectation) ?? checkBitmaps(image, disk, expectation);
      if (apart !== null) return apart;
      const names = expectation.snapshotNames(
        image.snapshots().map(({ snapshot }) => snapshot.name),
      );
      if (names !== null) return { kind: 'snapshots', what: `${names.what} ${warnings.join()}` };
      for (const { view, snapshot } of image.snapshots()) {
        const bytes = readDisk(image.snapshotDisk(view));
        const wrong = expectation.snapshot(snapshot.name, readMarks(bytes));
        if (wrong !== null) return lost(wrong, bytes);
        const fault = checkVmState(image, view, snapshot);
        if (fault !== null) return fault;
      }
      return null;
    });
  } catch (error) {
    if (!isExpected(error)) throw error;
    return { kind: 'unreadable', what: describeError(error) };
  }
}

/** A raw data file is the disk for whoever reads it alone. */
function checkRawFile({ description, disk }: AttachedImage, expectation: Expectation) {
  const [top] = description.layers;
  if (top.format !== 'qcow2') return null;
  const { header, dataFile } = top;
  if (!hasBit(header.autoclearFeatures, AUTOCLEAR.DATA_FILE_RAW)) return null;
  // What a crash left of its size is no matter.
  const bytes = Buffer.from(new ArrayBuffer(disk.size));
  readFileSync(dataFile!.path).copy(bytes);
  const problem = expectation.disk(readMarks(bytes));
  return problem === null ? null : lost({ ...problem, what: `data file: ${problem.what}` }, bytes);
}

/**
 * What differs from what the disk held at first was written since: a bitmap that is enabled, and not marked
 * as in use, must say so. (Disks with bitmaps are not cut here.)
 */
function checkBitmaps(image: AttachedImage, disk: Buffer, { initial }: Expectation): Fault | null {
  const [top] = image.description.layers;
  const bitmaps = top.format === 'qcow2' ? top.bitmaps : [];
  const marks = readMarks(disk);
  for (const bitmap of bitmaps) {
    const dirty = (bitmap.flags & BITMAP_FLAG.AUTO) === 0 ? null : image.dirtyOf(bitmap);
    if (dirty === null) continue;
    const isDirty = new Uint8Array(marks.length);
    for (const source of dirty.sources) {
      source.forEachDirty(0, disk.length, (start, end) =>
        isDirty.fill(1, start / SECTOR_SIZE, end / SECTOR_SIZE),
      );
    }
    const missed = marks.findIndex(
      (mark, sector) => mark !== (initial.sectors[sector] ?? ZEROES) && isDirty[sector] === 0,
    );
    if (missed < 0) continue;
    return { kind: 'bitmap', what: `bitmap ${bitmap.name} lacks sector ${missed}` };
  }
  return null;
}

/** VM state comes with its snapshot: all of it is there when that is. */
function checkVmState(image: AttachedImage, view: number, { name, vmStateSize }: Snapshot) {
  if (vmStateSize === 0) return null;
  const marks = readMarks(readDisk(image.vmState(view)));
  const wrong = marks.findIndex((mark) => mark !== vmStateGeneration(marks.length));
  if (wrong < 0) return null;
  const what = `VM state of ${name}: sector ${wrong} is of generation ${marks[wrong]}`;
  return { kind: 'lost', what } as const;
}

function lost({ what, sector }: Problem, bytes: Buffer): Fault {
  if (sector === null) return { kind: 'lost', what };
  const found = bytes.subarray(sector * SECTOR_SIZE, (sector + 1) * SECTOR_SIZE);
  return { kind: 'lost', what: `${what} (found ${describeSector(found)})` };
}

function differenceOfReaders(path: string): Fault | null {
  return withImage(path, ({ image }) => {
    if (!readDisk(image.disk).equals(qemuRead(path))) {
      return { kind: 'readers differ', what: 'qemu-img convert reads the disk differently' };
    }
    for (const { view, snapshot } of image.snapshots()) {
      const { name } = snapshot;
      const ours = readDisk(image.snapshotDisk(view));
      const theirs = qemuRead(path, name);
      // QEMU reads as much of a snapshot as the disk has now.
      const common = Math.min(ours.length, theirs.length);
      if (ours.subarray(0, common).equals(theirs.subarray(0, common))) continue;
      return {
        kind: 'readers differ',
        what: `qemu-img convert reads snapshot ${name} differently`,
      };
    }
    return null;
  });
}

function brief(output: string): string {
  return output.trim().split('\n').slice(0, 3).join(' | ');
}
