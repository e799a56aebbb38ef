/** Maps of formats whose disk lies in blocks of one size, each found in a table. */
import { isExpected } from '../errors.js';
import type { Storage } from '../storage/storage.js';
import type { SectorCipher } from './crypto/cipher-key.js';
import { EXTENT, type Extent, type ExtentKind, type Mapping } from './extent.js';

/** Entries that one look joins at most: it takes as long as one of a long table's. */
const MOST_JOINED = 1024;

/** What a table tells of a block. Used again and again. */
export class FoundBlock {
  kind: ExtentKind = EXTENT.UNALLOCATED;
  /** DATA, COMPRESSED: where it begins in the file. */
  hostOffset = 0;
  /** COMPRESSED: its bytes at most. */
  hostLength = 0;
  /** How many blocks from this one on are so, as far as one entry tells; of DATA they lie one behind the other. */
  run = 1;
}

/** Tells of a block. Throws an ImageError where its entry is wrong. */
export type FindBlock = (block: number, found: FoundBlock) => void;

export interface BlockParts {
  readonly storage: Storage;
  /** Bytes of the disk. It may change. */
  readonly disk: { readonly size: number };
  readonly blockSize: number;
  /** See `Mapping`. */
  readonly unit: number;
  readonly find: FindBlock;
  /** Of DATA; its sectors are numbered as on the disk. */
  readonly cipher?: SectorCipher | null;
  readonly decompress?: (offset: number, length: number) => Uint8Array;
}

export class BlockMapping implements Mapping {
  readonly unit: number;
  readonly #parts: BlockParts;
  readonly #found = new FoundBlock();

  constructor(parts: BlockParts) {
    this.unit = parts.unit;
    this.#parts = parts;
  }

  get size(): number {
    return this.#parts.disk.size;
  }

  get storage(): Storage {
    return this.#parts.storage;
  }

  map(offset: number, length: number, extent: Extent): void {
    const { blockSize, storage, find, cipher = null } = this.#parts;
    const found = this.#found;
    const block = Math.floor(offset / blockSize);
    const within = offset - block * blockSize;
    find(block, found);
    const { kind, hostOffset } = found;
    extent.kind = kind;
    extent.preallocated = false;
    extent.copied = kind === EXTENT.DATA;
    extent.storage = storage;
    extent.hostOffset = kind === EXTENT.COMPRESSED ? hostOffset : hostOffset + within;
    extent.hostLength = found.hostLength;
    extent.skip = within;
    extent.cipher = cipher;
    extent.cipherOffset = offset;
    const end = within + length;
    let mapped = found.run * blockSize;
    if (kind !== EXTENT.COMPRESSED) {
      for (let joined = 0; mapped < end && joined < MOST_JOINED; joined++) {
        const next = kind === EXTENT.DATA ? hostOffset + mapped : null;
        if (!this.#continues(block + mapped / blockSize, kind, next)) break;
        mapped += found.run * blockSize;
      }
    }
    extent.length = Math.min(mapped, end) - within;
  }

  /** Whether a block is of that kind, and lies at `hostOffset`. What is wrong with it is its own. */
  #continues(block: number, kind: ExtentKind, hostOffset: number | null): boolean {
    const found = this.#found;
    try {
      this.#parts.find(block, found);
    } catch (error) {
      if (!isExpected(error)) throw error;
      return false;
    }
    return found.kind === kind && (hostOffset === null || found.hostOffset === hostOffset);
  }

  decompress(extent: Extent): Uint8Array {
    const { decompress } = this.#parts;
    if (decompress === undefined) throw new Error('this format holds no compressed clusters');
    return decompress(extent.hostOffset, extent.hostLength);
  }
}
