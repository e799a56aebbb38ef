/**
 * The bytes of guest clusters on their way to the file: into the image, or its data file, encrypted where
 * the image is. The caller's bytes stay as they are.
 */
import { IoBuffer } from '../../sys/io-buffer.js';
import { EncryptedWrite } from '../crypto/encrypted-write.js';
import { SECTOR_SIZE } from '../extent.js';
import type { LayerCipher } from './mapping.js';
import type { Tables } from './tables.js';

export class GuestData {
  readonly #tables: Tables;
  readonly #cipher: LayerCipher | null;
  #encrypted: EncryptedWrite | undefined;

  constructor(tables: Tables, cipher: LayerCipher | null) {
    this.#tables = tables;
    this.#cipher = cipher;
  }

  /** Whether only whole sectors can be written, and zeroes in the file are no zeroes of the disk. */
  get encrypted(): boolean {
    return this.#cipher !== null;
  }

  /** Writes `length` bytes of `source` from byte `at` on to `host`: the guest has them at `guest`. */
  write(host: number, guest: number, length: number, source: IoBuffer, at: number): void {
    if (this.#cipher === null) {
      this.#put(source, at, length, host);
      return;
    }
    const { sectors, byHostOffset } = this.#cipher;
    this.#encrypted ??= new EncryptedWrite(sectors);
    const first = (byHostOffset ? host : guest) / SECTOR_SIZE;
    this.#encrypted.write(source, at, length, first, (piece, from, n, done) =>
      this.#put(piece, from, n, host + done),
    );
  }

  /** Writes zeroes of the disk. */
  writeZeroes(host: number, guest: number, length: number): void {
    if (this.#cipher === null) {
      this.#tables.writeZeroes(host, length);
      return;
    }
    const zeroes = new IoBuffer(length);
    this.write(host, guest, length, zeroes, 0);
  }

  #put(source: IoBuffer, at: number, length: number, host: number): void {
    const { data, storage, state } = this.#tables;
    const file = data ?? storage;
    file.faults?.happens('write_aio');
    file.write(source, at, length, host);
    // Only now: a flush that began before the bytes were there must not count them in.
    state.unflushed = true;
  }
}
