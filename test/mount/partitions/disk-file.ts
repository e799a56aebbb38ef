/** Disks as sparse files, partitioned by real tools, and what other programs find on them. */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type PartitionTable, readPartitionTable } from '#src/mount/partitions/table.js';

export const MIB = 1 << 20;

/** A partition as every oracle tells it; in bytes. */
export interface Extent {
  readonly number: number;
  readonly offset: number;
  readonly size: number;
}

/** Runs a program, with `input` on its stdin, and gives its stdout. Throws where it fails. */
export function run(program: string, args: readonly string[], input = ''): string {
  return execFileSync(program, args, { input, encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'] });
}

/** Extents only, for comparison with an oracle. */
export function extentsOf(table: PartitionTable | null): Extent[] {
  return (table?.partitions ?? []).map(({ number, offset, size }) => ({ number, offset, size }));
}

export class DiskFile {
  readonly path: string;
  size: number;
  readonly #folder: string;
  readonly #fd: number;

  constructor(size: number) {
    this.#folder = mkdtempSync(join(tmpdir(), 'qcow2fs-partitions-'));
    this.path = join(this.#folder, 'disk');
    this.size = size;
    this.#fd = openSync(this.path, 'w+');
    truncateSync(this.path, size);
  }

  /** As a disk does it: never past the end, and into a buffer that the next read uses again. */
  readonly read = (offset: number, length: number): Buffer => {
    if (offset < 0 || offset + length > this.size) throw new RangeError('read past the end');
    const buffer = this.#buffer.subarray(0, length);
    if (readSync(this.#fd, buffer, 0, length, offset) !== length) throw new Error('short read');
    return buffer;
  };
  readonly #buffer = Buffer.alloc(MIB);

  write(offset: number, data: Uint8Array): void {
    writeSync(this.#fd, data, 0, data.length, offset);
  }

  zero(offset: number, length: number): void {
    this.write(offset, Buffer.alloc(length));
  }

  resize(size: number): void {
    truncateSync(this.path, size);
    this.size = size;
  }

  table(): PartitionTable | null {
    return readPartitionTable(this.read, this.size);
  }

  sfdisk(script: string): void {
    run('sfdisk', ['--quiet', this.path], script);
  }

  sgdisk(...args: string[]): void {
    run('sgdisk', [...args, this.path]);
  }

  /** What sfdisk finds, but for extended partitions. */
  sfdiskExtents(): Extent[] {
    const { partitiontable } = JSON.parse(run('sfdisk', ['--json', this.path]));
    const { sectorsize, partitions } = partitiontable;
    return partitions
      .filter(({ type }: { type: string }) => !['5', 'f', '85'].includes(type))
      .map(({ node, start, size }: { node: string; start: number; size: number }) => ({
        number: Number(/\d+$/.exec(node)![0]),
        offset: start * sectorsize,
        size: size * sectorsize,
      }));
  }

  /** What libblkid finds, with each field that `Partition` has; but for extended partitions. */
  partx(sectorSize = 512): Record<string, unknown>[] {
    const columns = 'NR,START,SECTORS,TYPE,UUID,NAME';
    const args = ['--pairs', '--output', columns, '--sector-size', `${sectorSize}`];
    const lines = run('partx', [...args, this.path])
      .trim()
      .split('\n');
    return lines
      .map((line) =>
        Object.fromEntries([...line.matchAll(/(\w+)="(.*?)"/g)].map(([, k, v]) => [k, v])),
      )
      .filter(({ TYPE }) => !['0x5', '0xf', '0x85'].includes(TYPE!))
      .map(({ NR, START, SECTORS, TYPE, UUID, NAME }) => ({
        number: Number(NR),
        offset: Number(START) * 512,
        size: Number(SECTORS) * 512,
        type: TYPE!.replace(/^0x(.)$/, '0x0$1'),
        name: unescapeHex(NAME!),
        uuid: UUID,
      }));
  }

  remove(): void {
    closeSync(this.#fd);
    rmSync(this.#folder, { recursive: true });
  }
}

/** partx writes each byte that is not ASCII as `\\xNN`. */
function unescapeHex(text: string): string {
  const bytes = text.replace(/\\x(..)/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)));
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

/** The fields of a table's partitions that `partx()` has too. */
export function fieldsOf(table: PartitionTable | null): Record<string, unknown>[] {
  return (table?.partitions ?? []).map(({ bootable, ...fields }) => fields);
}

/** Partitions the file in sectors of 4096 bytes, through a loop device. Needs root. */
export function partitionIn4k(disk: DiskFile, script: string): void {
  const loop = run('losetup', ['--find', '--show', '--sector-size', '4096', disk.path]).trim();
  try {
    run('sfdisk', ['--quiet', '--no-reread', '--no-tell-kernel', loop], script);
  } finally {
    run('losetup', ['--detach', loop]);
  }
}

/** Why `partitionIn4k()` cannot work here; empty where it can. */
export function whyNo4k(): string {
  const disk = new DiskFile(64 * MIB);
  try {
    partitionIn4k(disk, 'label: gpt\n');
    return '';
  } catch (error) {
    return `no loop device with 4096-byte sectors: ${(error as Error).message}`;
  } finally {
    disk.remove();
  }
}

/** The seed of property tests; to be printed, so that a failure can be repeated. */
export function propertySeed(): number {
  return Number(process.env.QCOW2FS_SEED ?? Date.now() % 2 ** 31);
}
