/** The partition tables of an image's disks: read on first use, the latest of them kept. */
import { LRUCache } from 'lru-cache';
import { describeError, ImageError, isExpected } from '../errors.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { type PartitionTable, readPartitionTable } from './partitions/table.js';

/** Tables that a thread keeps: an image can have 65,536 snapshots. */
const TABLES_KEPT = 64;

/** As much of a `Disk` as is needed here. */
export interface ReadableDisk {
  readonly size: number;
  read(offset: number, length: number, target: IoBuffer, at: number): void;
}

export interface TableSource {
  /** The disk of a view. May throw. */
  disk(view: number): ReadableDisk;
  /** Told of all that is wrong with a view's table, each time that it is read. */
  warn(view: number, message: string): void;
}

export class PartitionTables {
  readonly #source: TableSource;
  readonly #kept = new LRUCache<number, { readonly table: PartitionTable | null }>({
    max: TABLES_KEPT,
  });

  constructor(source: TableSource) {
    this.#source = source;
  }

  /**
   * The table of a view; null where it has none, or the image is damaged there. Throws where the
   * system failed: that may pass, so the next call tries again.
   */
  get(view: number): PartitionTable | null {
    const kept = this.#kept.get(view);
    if (kept !== undefined) return kept.table;
    const { table, lasting } = this.#read(view);
    if (lasting) this.#kept.set(view, { table });
    return table;
  }

  /** Reads it again the next time. */
  forget(view: number): void {
    this.#kept.delete(view);
  }

  clear(): void {
    this.#kept.clear();
  }

  /** The same; undefined where the system failed. */
  tryGet(view: number): PartitionTable | null | undefined {
    try {
      return this.get(view);
    } catch (error) {
      if (!isExpected(error)) throw error;
      return undefined;
    }
  }

  /** `lasting`: whether reading it again would find the same. */
  #read(view: number): { table: PartitionTable | null; lasting: boolean } {
    let lasting = true;
    try {
      const disk = this.#source.disk(view);
      const read = (offset: number, length: number) => {
        const buffer = new IoBuffer(length);
        try {
          disk.read(offset, length, buffer, 0);
        } catch (error) {
          // Behind the first sector the table's reader makes a warning of it, and goes on.
          if (!(error instanceof ImageError)) lasting = false;
          throw error;
        }
        return buffer.bytes;
      };
      const table = readPartitionTable(read, disk.size);
      for (const warning of table?.warnings ?? []) this.#source.warn(view, warning);
      return { table, lasting };
    } catch (error) {
      if (!isExpected(error)) throw error;
      this.#source.warn(view, `it cannot be read: ${describeError(error)}`);
      if (!(error instanceof ImageError)) throw error;
      return { table: null, lasting };
    }
  }
}
