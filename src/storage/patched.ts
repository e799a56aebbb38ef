/** Another storage with changes laid over it, in memory: what a log says that is not written yet. */
import { ImageError } from '../errors.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import type { MutableStorage } from './storage.js';

/** `bytes`: what stands at `position`; null for zeroes. */
export interface FilePatch {
  readonly position: number;
  readonly length: number;
  readonly bytes: Uint8Array | null;
}

/** Later patches lie over earlier ones. */
export interface FilePatches {
  readonly list: readonly FilePatch[];
  /** Bytes of the file with them: it reads as zeroes from its own end on. */
  readonly size: number;
}

export class PatchedStorage implements MutableStorage {
  readonly name: string;
  readonly #whole: MutableStorage;
  readonly #patches: FilePatches;

  constructor(whole: MutableStorage, patches: FilePatches) {
    this.name = whole.name;
    this.#whole = whole;
    this.#patches = patches;
  }

  size(): number {
    return Math.max(this.#whole.size(), this.#patches.size);
  }

  read(target: IoBuffer, at: number, length: number, position: number): number {
    const present = Math.max(0, Math.min(length, this.size() - position));
    const n = this.#whole.read(target, at, present, position);
    target.bytes.fill(0, at + n, at + present);
    const end = position + present;
    for (const patch of this.#patches.list) {
      const from = Math.max(position, patch.position);
      const to = Math.min(end, patch.position + patch.length);
      if (from >= to) continue;
      const start = at + from - position;
      if (patch.bytes === null) target.bytes.fill(0, start, start + to - from);
      else {
        const source = patch.bytes.subarray(from - patch.position, to - patch.position);
        target.bytes.set(source, start);
      }
    }
    return present;
  }

  nextData(position: number, end: number): number {
    return this.#isTouched(position, end) ? position : this.#whole.nextData(position, end);
  }

  nextHole(position: number, end: number): number {
    return this.#isTouched(position, end) ? end : this.#whole.nextHole(position, end);
  }

  /** Whether something of the range is not what the file below says. */
  #isTouched(position: number, end: number): boolean {
    if (end > this.#whole.size()) return true;
    return this.#patches.list.some((patch) => {
      return patch.position < end && patch.position + patch.length > position;
    });
  }

  write(): void {
    throw this.#readOnly();
  }

  flush(): void {}

  punch(): boolean {
    throw this.#readOnly();
  }

  reserve(): boolean {
    throw this.#readOnly();
  }

  truncate(): void {
    throw this.#readOnly();
  }

  #readOnly(): ImageError {
    return new ImageError(
      'unsupported',
      'EROFS',
      `${this.name}: its log is replayed in memory alone`,
    );
  }
}
