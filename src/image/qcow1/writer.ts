/**
 * Writing to a qcow image of version 1. Compressed data lies behind each other, at any byte, and is never
 * written over: a cluster that replaces it comes to the end of the file, and what it was stays there.
 */
import { ImageError } from '../../errors.js';
import { TWO_32 } from '../../codec/bits.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { SectorCipher } from '../crypto/cipher-key.js';
import type { FormatTarget } from '../format.js';
import { TableWriter, unsupported } from '../table-writer.js';
import {
  COMPRESSED,
  compressedHigh,
  compressedLength,
  compressedOffset,
  HEADER,
  l1BytesOf,
  l2BytesOf,
  type Qcow1Header,
} from './header.js';

export class Qcow1Writer extends TableWriter {
  readonly #header: Qcow1Header;
  readonly #encrypts: boolean;

  constructor(header: Qcow1Header, cipher: SectorCipher | null, target: FormatTarget) {
    const { clusterSize, l1TableOffset } = header;
    const tables = { l2Bytes: l2BytesOf(header), l1TableOffset, l1Bytes: l1BytesOf(header) };
    const headers = [{ offset: 0, length: HEADER.size }, header.backingNamePlace];
    const endOf = (low: number, high: number): number => {
      if (high >= COMPRESSED)
        return compressedOffset(header, low, high) + compressedLength(header, high);
      return low === 0 && high === 0 ? 0 : high * TWO_32 + low + clusterSize;
    };
    const levels = { clusterSize, ...tables, headers, order: 'big', endOf } as const;
    super({ format: 'qcow', levels, zeroEntry: null, cipher }, target);
    this.#header = header;
    this.#encrypts = cipher !== null;
  }

  /** As QEMU: whatever the cluster has is replaced. */
  override writeCompressed(offset: number, data: Uint8Array, length: number): void {
    const { clusterSize } = this.#header;
    if (this.#encrypts) {
      throw unsupported('Compression and encryption not supported at the same time');
    }
    const fits = length > 0 && length < clusterSize && length <= data.length;
    if (!fits || offset % clusterSize !== 0) {
      throw new ImageError('invalid', 'EINVAL', `${length} bytes as the cluster at ${offset}`, {
        limit: `less than ${clusterSize}, at a multiple of that`,
      });
    }
    this.change(() => {
      const host = this.tables.appendBytes(length);
      const buffer = new IoBuffer(length);
      buffer.bytes.set(data.subarray(0, length));
      this.storage.write(buffer, 0, length, host);
      const high = compressedHigh(this.#header, host, length);
      this.tables.linkHalves(offset, host % TWO_32, high);
    });
  }

  override makeEmpty(): void {
    this.reserved(() => {
      this.leaveFlushed();
      this.lock.beAlone();
      try {
        this.tables.dropAll();
      } finally {
        this.lock.letIn();
      }
      this.storage.flush();
    });
  }
}
