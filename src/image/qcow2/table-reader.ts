/** Tables that are walked from end to end, past the slice cache: few, large reads. */
import { readExactly } from '../read-bytes.js';
import type { Storage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { Qcow2Header } from './header.js';

/** Bytes of one read: no table of an L2 entry's size is cut in two. */
const BLOCK_SIZE = 2 << 20;

export class TableReader {
  /** What was read last. */
  readonly buffer: IoBuffer;
  readonly #storage: Storage;

  constructor(storage: Storage) {
    this.#storage = storage;
    this.buffer = new IoBuffer(BLOCK_SIZE);
  }

  /**
   * Reads `length` bytes at `offset` in blocks of 2 MiB and shows each to `visit`, at the start of
   * `buffer`: its length and its offset in the file. What lies past the end of the file is not shown.
   */
  forEachBlock(
    offset: number,
    length: number,
    visit: (length: number, position: number) => void,
  ): void {
    for (const block of this.blocks(offset, length)) visit(block.length, block.position);
  }

  /** The same blocks one by one: each is in `buffer` until the next one is asked for. */
  *blocks(offset: number, length: number): Generator<{ length: number; position: number }> {
    if (offset > Number.MAX_SAFE_INTEGER) return;
    for (let done = 0; done < length; done += BLOCK_SIZE) {
      const most = Math.min(BLOCK_SIZE, length - done);
      const n = this.#storage.read(this.buffer, 0, most, offset + done);
      if (n > 0) yield { length: n - (n % 8), position: offset + done };
      if (n < most) break;
    }
  }
}

/** The offsets of all refcount blocks by index, 0 where there is none. At most 8 MiB. */
export function readRefcountTable(
  storage: Storage,
  header: Pick<Qcow2Header, 'refcountTableOffset' | 'refcountTableClusters' | 'geometry'>,
): Float64Array {
  const { refcountTableOffset: offset, refcountTableClusters: clusters, geometry } = header;
  const size = clusters * geometry.clusterSize;
  const { view } = readExactly(storage, offset, size, 'refcount table');
  return Float64Array.from({ length: size / 8 }, (_, n) => Number(view.getBigUint64(n * 8)));
}
