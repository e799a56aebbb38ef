/** Raw images: the file is the disk. */
import { alignUp } from '../codec/bits.js';
import type { Storage } from '../storage/storage.js';
import { EXTENT, type Extent, type Mapping, SECTOR_SIZE } from './extent.js';

export class RawMapping implements Mapping {
  readonly unit = 1;
  readonly #storage: Storage;
  readonly #file: { readonly size: number };

  /** `file`: its size in bytes, which may change. */
  constructor(storage: Storage, file: { readonly size: number }) {
    this.#storage = storage;
    this.#file = file;
  }

  get size(): number {
    return alignUp(this.#file.size, SECTOR_SIZE);
  }

  map(offset: number, length: number, extent: Extent): void {
    const present = this.#file.size - offset;
    extent.preallocated = false;
    extent.copied = true;
    extent.storage = this.#storage;
    extent.hostOffset = offset;
    extent.cipher = null;
    if (present <= 0) {
      extent.kind = EXTENT.ZERO;
      extent.length = length;
      return;
    }
    extent.kind = EXTENT.DATA;
    extent.length = Math.min(length, present);
  }

  decompress(): never {
    throw new Error('raw images hold no compressed clusters');
  }
}
