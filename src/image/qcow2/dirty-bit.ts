/**
 * The header's dirty bit (version 3): while it is set, whoever opens the image for writing counts all
 * references anew. It covers states on disk that no order of writes avoids.
 */
import type { ImageState } from '../../shared/image-state.js';
import type { MutableStorage } from '../../storage/storage.js';
import { setFeatures } from './header-edit.js';
import type { Qcow2Header } from './header.js';
import { INCOMPATIBLE } from './layout.js';

const DIRTY = 1n << BigInt(INCOMPATIBLE.DIRTY);
const CORRUPT = 1n << BigInt(INCOMPATIBLE.CORRUPT);

export class DirtyBit {
  readonly #storage: MutableStorage;
  readonly #state: ImageState;
  readonly #incompatible: bigint;
  readonly #version: number;

  /** `header`: as the image was opened. */
  constructor(storage: MutableStorage, state: ImageState, header: Qcow2Header) {
    this.#storage = storage;
    this.#state = state;
    this.#version = header.version;
    this.#incompatible = header.incompatibleFeatures & ~DIRTY;
  }

  get isSet(): boolean {
    return this.#state.dirty;
  }

  /** Durable when it returns. Nothing in version 2, which has no such bit. */
  set(): void {
    if (this.#state.dirty || this.#version < 3) return;
    setFeatures(this.#storage, { incompatible: this.#incompatible | DIRTY });
    this.#storage.flush();
    this.#state.dirty = true;
  }

  /**
   * Runs `body`, during which COPIED flags may contradict the counts. If it fails, they are owed, and
   * the bit stays until they are set anew, or the image is opened again and repaired.
   */
  cover(body: () => void): void {
    this.set();
    this.#state.copiedOwed = true;
    body();
    this.#state.copiedOwed = false;
  }

  /** After all else is durable; durable itself when it returns. */
  clear(): void {
    if (!this.#state.dirty || this.#state.copiedOwed) return;
    setFeatures(this.#storage, { incompatible: this.#incompatible });
    this.#storage.flush();
    this.#state.dirty = false;
  }

  /** Sets the corrupt bit: nobody shall write to the image before it is repaired. */
  markCorrupt(): void {
    if (this.#version < 3) return;
    const dirty = this.#state.dirty ? DIRTY : 0n;
    setFeatures(this.#storage, { incompatible: this.#incompatible | dirty | CORRUPT });
    this.#storage.flush();
  }
}
