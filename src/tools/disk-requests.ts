/**
 * Single requests to a disk, as a device of a machine makes them, and with what QEMU's block layer makes
 * of them: parts that no entry can call zero are written, parts of clusters are not discarded. Ranges are
 * checked; all throw an ImageError or a SysError, EIO where a range is not on the disk.
 */
import { alignDown, alignUp } from '../codec/bits.js';
import { ImageError } from '../errors.js';
import { layerClusterSize, layerCompression } from '../image/description.js';
import { EXTENT, Extent } from '../image/extent.js';
import { formatOf } from '../image/probe.js';
import { compressCluster, loadZstd } from '../image/qcow2/compression.js';
import { COMPRESSION_TYPE } from '../image/qcow2/layout.js';
import type { WriteOptions } from '../image/write-options.js';
import type { ByteRange } from '../image/writer.js';
import { isZero } from '../image/zeroes.js';
import { type FaultPlan, Faults } from '../storage/faults.js';
import { IoBuffer } from '../sys/io-buffer.js';
import type { OpenDisk } from './open-disk.js';

/** Bytes that go through memory at once; a multiple of every cluster's size. */
const CHUNK_SIZE = 16 << 20;
const SECTOR_SIZE = 512;

export interface RequestOptions {
  /** What is read from below is kept in the image. */
  readonly copyOnRead?: boolean | undefined;
  /** What is written is compressed, in whole clusters, after `preparePacking`. */
  readonly compress?: boolean | undefined;
  /** Zeroes that do not fill as many bytes are written. */
  readonly zeroUnit?: number | undefined;
  /** Where requests fail on purpose. */
  readonly faults?: FaultPlan | undefined;
  readonly detectZeroes?: WriteOptions['detectZeroes'] | undefined;
  /** False: requests to discard do nothing. */
  readonly discards?: boolean | undefined;
  /** The format was guessed to be raw: no other format's header is written to its start. */
  readonly guessedRaw?: boolean | undefined;
}

/** Puts the bytes from `from` on, of all that is written, into `target`. */
export type FillBytes = (target: Buffer, from: number) => void;
/** Sees the bytes from `from` on, of all that is read; they are valid until it returns. */
export type SeeBytes = (bytes: Buffer, from: number) => void;

export interface ZeroOptions {
  /** Space may be given back. */
  readonly unmap: boolean;
  /** ENOTSUP where zeroes would have to be written. */
  readonly noFallback: boolean;
}

export class DiskRequests {
  readonly #disk: OpenDisk;
  readonly #options: RequestOptions;
  readonly #faults: Faults | undefined;
  readonly #extent = new Extent();
  /** The units of entries: of what can be zero, and of what can be let go of. */
  readonly #zeroUnit: number;
  readonly #clusterSize: number;

  constructor(disk: OpenDisk, options: RequestOptions = {}) {
    this.#disk = disk;
    this.#options = options;
    this.#faults = options.faults && new Faults(options.faults);
    const top = disk.description.layers[0];
    const unit = top.format === 'qcow2' ? top.header.geometry.subclusterSize : 1;
    this.#zeroUnit = Math.max(unit, options.zeroUnit ?? 0);
    this.#clusterSize = layerClusterSize(top) ?? 1;
  }

  read(offset: number, length: number, see: SeeBytes): void {
    this.#check(offset, length);
    this.#faults?.check('read', offset, length);
    if (this.#options.copyOnRead === true) this.#copyUp(offset, length);
    this.#eachChunk(offset, length, (at, buffer, n) => {
      this.#disk.read(at, n, buffer, 0);
      see(buffer.bytes.subarray(0, n), at - offset);
    });
  }

  write(offset: number, length: number, fill: FillBytes): void {
    this.#check(offset, length);
    this.#faults?.check('write', offset, length);
    if (this.#options.compress === true) {
      this.#writePacked(offset, length, fill);
      return;
    }
    this.#eachChunk(offset, length, (at, buffer, n) => {
      fill(buffer.bytes.subarray(0, n), at - offset);
      this.#put(at, n, buffer);
    });
  }

  /** Makes the range zero; where the format can say so, by that alone. */
  writeZeroes(offset: number, length: number, options: ZeroOptions): void {
    this.#check(offset, length);
    if (options.noFallback && !this.#knowsZeroes())
      throw unsupported('zeroes without writing them');
    this.#faults?.check('write-zeroes', offset, length);
    const end = offset + length;
    const first = Math.min(end, alignUp(offset, this.#zeroUnit));
    const last = end === this.#disk.size ? end : Math.max(first, alignDown(end, this.#zeroUnit));
    if (first > offset) this.#zeroPart(offset, first, options);
    if (last > first) this.#zeroUnits(first, last, options);
    if (end > last) this.#zeroPart(last, end, options);
  }

  /** Gives whole clusters of the range back. */
  discard(offset: number, length: number): void {
    this.#check(offset, length);
    if (this.#options.discards === false || length === 0) return;
    this.#faults?.check('discard', offset, length);
    this.#disk.writer.discardClusters(offset, length);
  }

  /** Stores whole clusters compressed; the disk may end in the last one. */
  async writeCompressed(offset: number, length: number, fill: FillBytes): Promise<void> {
    this.#check(offset, length);
    const top = this.#disk.description.layers[0];
    const isQcow2 = top.format === 'qcow2' && top.dataFile === null;
    if (!isQcow2 && top.format !== 'qcow') throw unsupported('compressed data');
    await preparePacking(this.#disk);
    const clusterSize = this.#clusterSize;
    const end = offset + length;
    // As QEMU: qcow takes one at a time.
    const isMore = !isQcow2 && length > clusterSize;
    if (
      isMore ||
      offset % clusterSize !== 0 ||
      (end % clusterSize !== 0 && end !== this.#disk.size)
    ) {
      const message = `compressed clusters are written whole: not ${length} bytes at ${offset}`;
      throw new ImageError('invalid', 'EINVAL', message);
    }
    this.#writePacked(offset, length, fill);
  }

  /** Compresses each cluster of the range, with what it does not cover of the first and last. */
  #writePacked(offset: number, length: number, fill: FillBytes): void {
    const clusterSize = this.#clusterSize;
    const cluster = new IoBuffer(clusterSize);
    const type = layerCompression(this.#disk.description.layers[0]);
    const end = offset + length;
    for (let at = alignDown(offset, clusterSize); at < end; at += clusterSize) {
      const n = Math.min(clusterSize, this.#disk.size - at);
      const from = Math.max(at, offset);
      const to = Math.min(at + n, end);
      if (to - from < n) this.#disk.read(at, n, cluster, 0);
      fill(cluster.bytes.subarray(from - at, to - at), from - offset);
      cluster.bytes.fill(0, n);
      const packed = compressCluster(type, cluster.bytes, clusterSize);
      if (packed === null) this.#disk.writer.write(at, n, cluster, 0);
      else this.#disk.writer.writeCompressed(at, packed, packed.length);
    }
  }

  readVmState(offset: number, length: number, see: SeeBytes): void {
    const state = this.#disk.image.activeVmState();
    this.#eachChunk(offset, length, (at, buffer, n) => {
      this.#disk.image.enter();
      try {
        state.read(at, n, buffer, 0);
      } finally {
        this.#disk.image.leave();
      }
      see(buffer.bytes.subarray(0, n), at - offset);
    });
  }

  writeVmState(offset: number, length: number, fill: FillBytes): void {
    this.#eachChunk(offset, length, (at, buffer, n) => {
      fill(buffer.bytes.subarray(0, n), at - offset);
      this.#disk.writer.writeVmState(at, n, buffer, 0);
    });
  }

  /** Up to the next change: whether the image itself has the bytes at `offset`, and how many. */
  allocation(offset: number, length: number): { allocated: boolean; length: number } {
    let allocated: boolean | undefined;
    let at = offset;
    for (const end = offset + length; at < end; at += this.#extent.length) {
      this.#disk.image.enter();
      try {
        this.#disk.disk.mapping.map(at, end - at, this.#extent);
      } finally {
        this.#disk.image.leave();
      }
      const has = this.#extent.kind !== EXTENT.UNALLOCATED;
      allocated ??= has;
      if (has !== allocated) break;
    }
    return { allocated: allocated === true, length: at - offset };
  }

  #check(offset: number, length: number): void {
    const { size } = this.#disk;
    if (offset <= size && length <= size - offset) return;
    throw new ImageError('invalid', 'EIO', `${length} bytes at ${offset} are not on the disk`, {
      limit: `${size} bytes`,
    });
  }

  #eachChunk(
    offset: number,
    length: number,
    use: (at: number, buffer: IoBuffer, length: number) => void,
  ): void {
    const buffer = new IoBuffer(Math.min(length, CHUNK_SIZE));
    const end = offset + length;
    for (let at = offset; at < end; ) {
      // Chunks end where clusters do.
      const n = Math.min(alignDown(at + CHUNK_SIZE, CHUNK_SIZE), end) - at;
      use(at, buffer, n);
      at += n;
    }
  }

  #put(offset: number, length: number, buffer: IoBuffer): void {
    if (this.#options.guessedRaw === true && offset < SECTOR_SIZE) {
      this.#refuseHeader(offset, length, buffer);
    }
    const { detectZeroes = 'off' } = this.#options;
    if (detectZeroes !== 'off' && isZero(buffer, 0, length)) {
      this.writeZeroes(offset, length, { unmap: detectZeroes === 'unmap', noFallback: false });
    } else this.#writeData(offset, length, buffer);
  }

  /** As QEMU: what the write leaves of new clusters has its space in the host's file, too. */
  #writeData(offset: number, length: number, buffer: IoBuffer): void {
    const ends = [offset, offset + length].filter((place) => place % this.#zeroUnit !== 0);
    const units = new Set(ends.map((place) => alignDown(place, this.#zeroUnit)));
    const fresh = [...units].filter((unit) => !this.#isOwnData(unit));
    this.#disk.writer.write(offset, length, buffer, 0);
    for (const unit of fresh) {
      const end = Math.min(unit + this.#zeroUnit, this.#disk.size);
      this.#disk.writer.preallocate(unit, end - unit);
    }
  }

  #isOwnData(offset: number): boolean {
    this.#disk.image.enter();
    try {
      this.#disk.disk.mapping.map(offset, 1, this.#extent);
      return this.#extent.kind === EXTENT.DATA && this.#extent.copied;
    } finally {
      this.#disk.image.leave();
    }
  }

  /** A guest could turn its disk into an image that names the host's files. */
  #refuseHeader(offset: number, length: number, buffer: IoBuffer): void {
    const start = new IoBuffer(SECTOR_SIZE);
    this.#disk.read(0, Math.min(SECTOR_SIZE, this.#disk.size), start, 0);
    buffer.bytes.copy(start.bytes, offset, 0, length);
    const format = formatOf(start.bytes);
    if (format === 'raw') return;
    throw new ImageError('policy', 'EPERM', `the header of a ${format} image is not written`, {
      limit: 'to raw images where that format is stated',
    });
  }

  /** Version 2 and others than qcow2 have no way to say it, or none that is sure. */
  #knowsZeroes(): boolean {
    const top = this.#disk.description.layers[0];
    return top.format === 'qcow2' ? top.header.version >= 3 : top.format !== 'qcow';
  }

  /** Whole units, or up to the disk's end. */
  #zeroUnits(from: number, to: number, options: ZeroOptions, changed?: ByteRange): void {
    const { unmap, noFallback } = options;
    if (this.#disk.writer.markZero(from, to - from, unmap, changed)) return;
    if (noFallback) throw unsupported('zeroes without writing them');
    this.#writeZeroBytes(from, to);
  }

  /** A part of one unit: all of it becomes zero where the rest reads as zeroes and is none's data. */
  #zeroPart(from: number, to: number, options: ZeroOptions): void {
    const unit = alignDown(from, this.#zeroUnit);
    const end = Math.min(unit + this.#zeroUnit, this.#disk.size);
    const changed = { offset: from, length: to - from };
    if (this.#restIsZero(unit, from, to, end)) this.#zeroUnits(unit, end, options, changed);
    else if (options.noFallback) throw unsupported('zeroes without writing them');
    else this.#writeZeroBytes(from, to);
  }

  /** Whether the image holds nothing of [unit, end), and that reads as zeroes but for [from, to). */
  #restIsZero(unit: number, from: number, to: number, end: number): boolean {
    this.#disk.image.enter();
    try {
      const { disk } = this.#disk;
      disk.mapping.map(unit, end - unit, this.#extent);
      const { kind, length } = this.#extent;
      const unheld = kind === EXTENT.ZERO || kind === EXTENT.UNALLOCATED;
      if (!unheld || length < end - unit) return false;
      return disk.seek(unit, false, from) === from && disk.seek(to, false, end) === end;
    } finally {
      this.#disk.image.leave();
    }
  }

  #writeZeroBytes(from: number, to: number): void {
    this.#eachChunk(from, to - from, (at, zeroes, n) => {
      this.#disk.writer.write(at, n, zeroes, 0);
    });
  }

  /** Writes what the range's clusters have below into the image itself. */
  #copyUp(offset: number, length: number): void {
    const end = Math.min(this.#disk.size, alignUp(offset + length, this.#clusterSize));
    for (let at = alignDown(offset, this.#clusterSize); at < end; ) {
      const most = Math.min(CHUNK_SIZE, end - at);
      const { allocated, length: run } = this.allocation(at, most);
      if (!allocated) {
        const buffer = new IoBuffer(run);
        this.#disk.read(at, run, buffer, 0);
        this.#faults?.happens('cor_write');
        this.#faults?.check('write', at, run);
        if (!isZero(buffer, 0, run)) this.#disk.writer.write(at, run, buffer, 0);
        else this.writeZeroes(at, run, { unmap: false, noFallback: false });
      }
      at += run;
    }
  }
}

/** Loads what the disk's clusters are compressed with. */
export async function preparePacking({ description }: OpenDisk): Promise<void> {
  if (layerCompression(description.layers[0]) === COMPRESSION_TYPE.ZSTD) await loadZstd();
}

function unsupported(what: string): ImageError {
  return new ImageError('unsupported', 'ENOTSUP', `${what}: not supported`);
}
