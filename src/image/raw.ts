/** Raw images: the file is the disk. */
import { alignUp } from '../codec/bits.js';
import type { Storage } from '../storage/storage.js';
import { EXTENT, type Extent, type Mapping, SECTOR_SIZE } from './extent.js';

export class RawMapping implements Mapping {
  readonly size: number;
  readonly unit = 1;
  readonly #storage: Storage;
  readonly #fileSize: number;

  constructor(storage: Storage, fileSize: number) {
    this.#storage = storage;
    this.#fileSize = fileSize;
    this.size = alignUp(fileSize, SECTOR_SIZE);
  }

  map(offset: number, length: number, extent: Extent): void {
    const present = this.#fileSize - offset;
    extent.preallocated = false;
    if (present <= 0) {
      extent.kind = EXTENT.ZERO;
      extent.length = length;
      return;
    }
    extent.kind = EXTENT.DATA;
    extent.length = Math.min(length, present);
    extent.storage = this.#storage;
    extent.hostOffset = offset;
  }

  decompress(): never {
    throw new Error('raw images hold no compressed clusters');
  }
}
