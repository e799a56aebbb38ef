/**
 * The COPIED flags of the active L1 table and its L2 tables, compared with the counts: set exactly
 * where a cluster has one reference. Those of snapshots mean nothing.
 */
import type { Storage } from '../../storage/storage.js';
import type { Steps } from '../steps.js';
import type { IoBuffer } from '../../sys/io-buffer.js';
import type { CopiedFinding, Report } from './check-findings.js';
import { hasBit } from './features.js';
import type { Geometry } from './geometry.js';
import type { Qcow2Header } from './header.js';
import { entryValue, hostOffsetOf, isAllocated, isCompressed, isZero, withCopied } from './l2.js';
import { INCOMPATIBLE } from './layout.js';
import { TableReader } from './table-reader.js';

/** Writes the part of a table whose flags are right in `buffer` and wrong in the file at `position`. */
export type WriteFlags = (buffer: IoBuffer, at: number, length: number, position: number) => void;

export interface CopiedOptions {
  /** The count of a cluster; null: nobody knows, and its flags stay. */
  countOf(cluster: number): number | null;
  /** Flags of L2 entries without a cluster of their own count, too: they are to be clear. */
  readonly strict: boolean;
  /** Called for each part of a table, at most 2 MiB, with flags to be put right. */
  readonly repair?: WriteFlags | undefined;
  /** Whether the table at this offset can be written to. */
  readonly canRepair?: (table: number) => boolean;
  readonly report?: Report<CopiedFinding>;
}

/** Compares all flags, and answers how many are wrong. */
export function compareCopied(
  storage: Storage,
  header: Qcow2Header,
  options: CopiedOptions,
): Steps<number> {
  return new CopiedWalk(storage, header, options).run();
}

/** Null: the flag stays as it is. */
type CountOfEntry = (low: number, high: number) => number | null;

class CopiedWalk {
  readonly #header: Qcow2Header;
  readonly #geometry: Geometry;
  readonly #externalData: boolean;
  readonly #options: CopiedOptions;
  readonly #l1Reader: TableReader;
  readonly #l2Reader: TableReader;
  #wrong = 0;

  constructor(storage: Storage, header: Qcow2Header, options: CopiedOptions) {
    this.#header = header;
    this.#geometry = header.geometry;
    this.#externalData = hasBit(header.incompatibleFeatures, INCOMPATIBLE.DATA_FILE);
    this.#options = options;
    this.#l1Reader = new TableReader(storage);
    this.#l2Reader = new TableReader(storage);
  }

  *run(): Steps<number> {
    const { l1Size, l1TableOffset } = this.#header;
    const repairs = this.#repairs(l1TableOffset);
    const reader = this.#l1Reader;
    for (const { length, position } of reader.blocks(l1TableOffset, l1Size * 8)) {
      const changed = new ChangedPart(reader.buffer, position);
      const { view } = reader.buffer;
      for (let at = 0; at < length; at += 8) {
        const high = view.getUint32(at);
        const low = view.getUint32(at + 4);
        if (high === 0 && low === 0) continue;
        const host = hostOffsetOf(low, high);
        const count = this.#countOfTable(host);
        if (count !== null && withCopied(high, count === 1) !== high) {
          this.#wrong++;
          const l1Index = (position - l1TableOffset + at) / 8;
          const entry = entryValue(low, high);
          const finding = { kind: 'copied-l2', l1Index, entry, refcount: count } as const;
          this.#options.report?.({ ...finding, repairing: repairs });
          if (repairs) changed.set(at, withCopied(high, count === 1));
        }
        // Before the buffer is written: the table may lie in it.
        if (host !== 0) this.#compareL2(host);
        yield (position - l1TableOffset + at) / (l1Size * 8);
      }
      if (changed.length > 0) changed.write(this.#options.repair!);
    }
    return this.#wrong;
  }

  /** A flag beside no table is wrong. */
  #countOfTable(host: number): number | null {
    if (host === 0) return 0;
    return this.#options.countOf(Math.floor(host / this.#geometry.clusterSize));
  }

  #compareL2(table: number): void {
    const { clusterSize, l2EntrySize } = this.#geometry;
    const repairs = this.#repairs(table);
    const reader = this.#l2Reader;
    const { view } = reader.buffer;
    reader.forEachBlock(table, clusterSize, (length, position) => {
      const changed = new ChangedPart(reader.buffer, position);
      for (let at = 0; at < length; at += l2EntrySize) {
        const high = view.getUint32(at);
        const low = view.getUint32(at + 4);
        if (high === 0 && low === 0) continue;
        const count = this.#countOfData(low, high);
        if (count === null || withCopied(high, count === 1) === high) continue;
        this.#wrong++;
        const entry = entryValue(low, high);
        const finding = { kind: 'copied-data', entry, refcount: count } as const;
        this.#options.report?.({ ...finding, repairing: repairs });
        if (repairs) changed.set(at, withCopied(high, count === 1));
      }
      if (changed.length > 0) changed.write(this.#options.repair!);
    });
  }

  readonly #countOfData: CountOfEntry = (low, high) => {
    const { extendedL2, clusterSize } = this.#geometry;
    const { strict } = this.#options;
    if (isCompressed(high)) return strict ? 0 : null;
    const host = hostOffsetOf(low, high);
    const plainZero = !extendedL2 && isZero(low) && host === 0;
    if (plainZero || !isAllocated(host, high, this.#externalData)) {
      return strict && !this.#externalData ? 0 : null;
    }
    // A data file's clusters count as single; its first has offset 0, and only the flag.
    if (this.#externalData) return 1;
    return this.#options.countOf(Math.floor(host / clusterSize));
  };

  #repairs(table: number): boolean {
    const { repair, canRepair } = this.#options;
    return repair !== undefined && (canRepair === undefined || canRepair(table));
  }
}

/** The entries of a buffer that were changed, from the first to the last. */
class ChangedPart {
  readonly #buffer: IoBuffer;
  readonly #position: number;
  #first = 0;
  length = 0;

  constructor(buffer: IoBuffer, position: number) {
    this.#buffer = buffer;
    this.#position = position;
  }

  set(at: number, high: number): void {
    this.#buffer.view.setUint32(at, high);
    if (this.length === 0) this.#first = at;
    this.length = at + 8 - this.#first;
  }

  write(write: WriteFlags): void {
    write(this.#buffer, this.#first, this.length, this.#position + this.#first);
  }
}
