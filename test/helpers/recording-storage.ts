/**
 * A file in memory that remembers, in order, all that was done to it, with notes in between of what
 * the workload did then. What a power failure leaves of it is made from that record.
 */
import { MemoryStorage } from '#src/storage/memory.js';
import type { IoBuffer } from '#src/sys/io-buffer.js';
import type { Note } from './disk-history.js';

export type Operation =
  | { readonly kind: 'write'; readonly position: number; readonly bytes: Uint8Array }
  | { readonly kind: 'punch'; readonly position: number; readonly length: number }
  | { readonly kind: 'truncate'; readonly size: number }
  | { readonly kind: 'flush' }
  | { readonly kind: 'note'; readonly note: Note };

/** What a workload did to an image, and the image before. */
export interface Recording {
  readonly initial: Uint8Array;
  readonly operations: readonly Operation[];
  /** When each was done, by the clock of all recordings that were made at once. */
  readonly times?: readonly number[];
}

/** Numbers the operations of several files in one order. */
export interface Clock {
  now: number;
}

export class RecordingStorage extends MemoryStorage {
  readonly operations: Operation[] = [];
  readonly #times: number[] = [];
  readonly #clock: Clock;
  readonly #initial: Uint8Array;
  /** Larger than the file, so that growing it does not copy it each time. */
  #room: Uint8Array;

  constructor(bytes: Uint8Array, name: string, clock: Clock = { now: 0 }) {
    super(bytes, name);
    this.#clock = clock;
    // No slices: those of a Buffer are the same bytes.
    this.#initial = Uint8Array.from(bytes);
    this.#room = Uint8Array.from(bytes);
    this.bytes = this.#room.subarray(0, bytes.length);
  }

  get recording(): Recording {
    return { initial: this.#initial, operations: this.operations, times: this.#times };
  }

  #record(operation: Operation): void {
    this.operations.push(operation);
    this.#times.push(this.#clock.now++);
  }

  note(note: Note): void {
    this.#record({ kind: 'note', note });
  }

  override write(source: IoBuffer, at: number, length: number, position: number): void {
    const bytes = source.bytes.subarray(at, at + length);
    if (bytes.length !== length) throw new RangeError(`write of ${length} bytes: buffer too short`);
    this.#record({ kind: 'write', position, bytes: Uint8Array.from(bytes) });
    if (position + length > this.size()) this.#resize(position + length);
    this.bytes.set(bytes, position);
  }

  override flush(): void {
    this.#record({ kind: 'flush' });
  }

  /** As hosts do: what lies past the end is no matter. */
  override punch(position: number, length: number): boolean {
    this.#record({ kind: 'punch', position, length });
    this.bytes.fill(0, position, position + length);
    return true;
  }

  /** Of what is read afterwards only the file's size can differ. */
  override reserve(position: number, length: number): boolean {
    if (position + length > this.size()) this.truncate(position + length);
    return true;
  }

  override truncate(size: number): void {
    this.#record({ kind: 'truncate', size });
    this.#resize(size);
  }

  #resize(size: number): void {
    if (size > this.#room.length) {
      const room = new Uint8Array(Math.max(size, 2 * this.#room.length));
      room.set(this.bytes);
      this.#room = room;
    } else if (size > this.bytes.length) {
      this.#room.fill(0, this.bytes.length, size);
    }
    this.bytes = this.#room.subarray(0, size);
  }
}
