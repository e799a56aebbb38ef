/** The file that the image builder fills: host clusters, their reference counts, their bytes. */
import { alignDown, alignUp, divCeil } from '#src/codec/bits.js';

const SECTOR_SIZE = 512;

export class HostFile {
  readonly clusterSize: number;
  /** Reference counts, by host cluster. */
  readonly counts: number[] = [];
  readonly #writes: { at: number; bytes: Uint8Array }[] = [];
  readonly #mostReferences: number;
  #compressedEnd = 0;
  #dataEnd = 0;

  constructor(clusterSize: number, refcountBits: number) {
    this.clusterSize = clusterSize;
    this.#mostReferences = 2 ** refcountBits - 1;
  }

  /** Takes whole clusters for `length` bytes at the end. Answers their offset. */
  allocate(length: number): number {
    const at = this.counts.length * this.clusterSize;
    for (let n = divCeil(length, this.clusterSize); n > 0; n--) this.counts.push(1);
    return at;
  }

  write(at: number, bytes: Uint8Array): void {
    this.#writes.push({ at, bytes });
    this.#dataEnd = Math.max(this.#dataEnd, at + bytes.length);
  }

  /** One more reference to the cluster at `offset`. */
  share(offset: number): void {
    const index = offset / this.clusterSize;
    this.counts[index] = (this.counts[index] ?? 0) + 1;
  }

  /**
   * Puts compressed bytes right behind the last ones, across the border of clusters. Answers where
   * they begin and how many sectors they touch.
   */
  writeCompressed(bytes: Uint8Array): { at: number; sectors: number } {
    const last = this.counts.length - 1;
    const continues =
      divCeil(this.#compressedEnd, this.clusterSize) === last + 1 &&
      this.#compressedEnd % this.clusterSize !== 0 &&
      this.counts[last]! < this.#mostReferences;
    const at = continues ? this.#compressedEnd : this.allocate(1);
    if (continues) this.share(last * this.clusterSize);
    const end = at + bytes.length;
    while (this.counts.length * this.clusterSize < alignUp(end, SECTOR_SIZE)) this.allocate(1);
    this.write(at, bytes);
    this.#compressedEnd = end;
    return { at, sectors: (alignUp(end, SECTOR_SIZE) - alignDown(at, SECTOR_SIZE)) / SECTOR_SIZE };
  }

  /** The whole file; `trimmed`: up to the last byte that was written. */
  toBuffer(trimmed: boolean): Buffer {
    const size = this.counts.length * this.clusterSize;
    const bytes = Buffer.alloc(size);
    for (const write of this.#writes) bytes.set(write.bytes, write.at);
    return trimmed ? bytes.subarray(0, this.#dataEnd) : bytes;
  }
}
