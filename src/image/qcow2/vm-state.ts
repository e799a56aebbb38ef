/**
 * The place of VM state: behind the disk, in the active L1 table, from the first L2 table on that maps
 * none of the disk. What lies there is no part of the disk, and nobody reads it but whoever asks for it;
 * a snapshot that is taken has it, too. With the reservation, alone: the L1 table may move.
 *
 * Writes there are ordered as those to the disk are. A crash before the snapshot is taken leaves VM
 * state that belongs to none, as if it had been written by itself.
 */
import { ImageError } from '../../errors.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { VmStateSource } from '../writer.js';
import { l1EntriesFor, vmStateStart } from './geometry.js';
import { LIMIT } from './layout.js';
import type { Resizer } from './resize.js';
import type { Tables } from './tables.js';
import type { ClusterWriter } from './write.js';

const L1_ENTRY_SIZE = 8;
const CHUNK_SIZE = 1 << 20;

export class VmStateArea {
  readonly #tables: Tables;
  readonly #resizer: Resizer;
  readonly #clusters: ClusterWriter;

  /** `clusters`: over all that the L1 table maps, with nothing below. */
  constructor(tables: Tables, resizer: Resizer, clusters: ClusterWriter) {
    this.#tables = tables;
    this.#resizer = resizer;
    this.#clusters = clusters;
  }

  /** Writes `length` bytes to byte `offset` of the VM state. */
  write(offset: number, length: number, source: IoBuffer, at: number): void {
    const { l1Size } = this.#tables.state;
    const needed = this.#entriesFor(offset + length);
    // Who goes on writing shall not move the table each time.
    const roomy = Math.min(Math.ceil(l1Size * 1.5), LIMIT.MAX_L1_SIZE / L1_ENTRY_SIZE);
    if (needed > l1Size) this.#resizer.growL1(Math.max(needed, roomy));
    this.#clusters.write(this.#start + offset, length, source, at);
  }

  /** Makes all of `source` the VM state, and nothing else. */
  fill(source: VmStateSource): void {
    this.clear();
    this.#resizer.growL1(this.#entriesFor(source.size));
    const chunk = new IoBuffer(Math.min(source.size, CHUNK_SIZE));
    for (let done = 0; done < source.size; ) {
      const n = Math.min(chunk.length, source.size - done);
      source.read(done, n, chunk, 0);
      this.#clusters.write(this.#start + done, n, chunk, 0);
      done += n;
    }
  }

  /** Gives all of the place back. */
  clear(): void {
    const { geometry, state } = this.#tables;
    this.#resizer.freeTables(l1EntriesFor(geometry, state.size), state.l1Size);
  }

  get #start(): number {
    const { geometry, state } = this.#tables;
    return vmStateStart(geometry, state.size);
  }

  #entriesFor(size: number): number {
    const end = this.#start + size;
    if (end <= Number.MAX_SAFE_INTEGER) return l1EntriesFor(this.#tables.geometry, end);
    throw new ImageError('unsupported', 'EFBIG', `${size} bytes of VM state are too many`, {
      limit: `disk and VM state have at most ${Number.MAX_SAFE_INTEGER} bytes`,
    });
  }
}
