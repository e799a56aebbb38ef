/** Bytes on their way to a file, encrypted piece by piece: the caller's stay as they are. */
import { IoBuffer } from '../../sys/io-buffer.js';
import { SECTOR_SIZE } from '../extent.js';
import type { SectorCipher } from './cipher-key.js';

/** Bytes that are encrypted, and written, at once. */
const CHUNK_SIZE = 256 << 10;

/** Writes `length` bytes of `source` from byte `at` on, to where the first one goes plus `done`. */
export type PutPiece = (source: IoBuffer, at: number, length: number, done: number) => void;

export class EncryptedWrite {
  readonly #cipher: SectorCipher;
  readonly #scratch = new IoBuffer(CHUNK_SIZE);

  constructor(cipher: SectorCipher) {
    this.#cipher = cipher;
  }

  /** Whole sectors, of which the first has number `sector`. */
  write(source: IoBuffer, at: number, length: number, sector: number, put: PutPiece): void {
    const scratch = this.#scratch;
    for (let done = 0; done < length; ) {
      const n = Math.min(length - done, scratch.length);
      source.bytes.copy(scratch.bytes, 0, at + done, at + done + n);
      this.#cipher.encrypt(scratch.bytes, 0, n, sector + done / SECTOR_SIZE);
      put(scratch, 0, n, done);
      done += n;
    }
  }
}
