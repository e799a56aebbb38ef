/**
 * The guest's data in an image with two levels of tables and no counts: new clusters come to the end of the file,
 * and what has one is written in place. No cluster ever becomes free: it is emptied where it is, or left behind.
 */
import { alignDown, alignUp } from '../codec/bits.js';
import type { MutableStorage } from '../storage/storage.js';
import { IoBuffer } from '../sys/io-buffer.js';
import type { SectorCipher } from './crypto/cipher-key.js';
import { EncryptedWrite } from './crypto/encrypted-write.js';
import type { Disk } from './disk.js';
import type { EntryTables } from './entry-tables.js';
import { EXTENT, Extent, type ExtentKind, SECTOR_SIZE } from './extent.js';

/** Zeroes that are written at once. */
const ZEROES_SIZE = 1 << 20;
/** Bytes of new clusters that are laid out at once, at most. */
const MOST_APPENDED = 64 << 20;

export interface TableDataParts {
  readonly storage: MutableStorage;
  readonly disk: Disk;
  readonly tables: EntryTables;
  readonly clusterSize: number;
  /** The L2 entry of clusters that are zeroes, whatever lies below; null where the format has none. */
  readonly zeroEntry: number | null;
  /** Of guest clusters, whose sectors are numbered as on the disk. */
  readonly cipher: SectorCipher | null;
}

/** Every call needs the image's reservation. Offsets and lengths are bytes of the disk. */
export class TableData {
  readonly #storage: MutableStorage;
  readonly #disk: Disk;
  readonly #tables: EntryTables;
  readonly #clusterSize: number;
  readonly #zeroEntry: number | null;
  readonly #encrypted: EncryptedWrite | null;
  readonly #extent = new Extent();
  #cluster: IoBuffer | undefined;
  #zeroes: IoBuffer | undefined;

  constructor({ storage, disk, tables, clusterSize, zeroEntry, cipher }: TableDataParts) {
    this.#storage = storage;
    this.#disk = disk;
    this.#tables = tables;
    this.#clusterSize = clusterSize;
    this.#zeroEntry = zeroEntry;
    this.#encrypted = cipher === null ? null : new EncryptedWrite(cipher);
  }

  write(offset: number, length: number, source: IoBuffer, at: number): void {
    this.#eachRun(offset, length, (run, most) =>
      this.#writeRun(run, most, source, at + (run - offset)),
    );
  }

  /**
   * `unmap`: the space of clusters is given back. `marks`: also where nothing lies below; something may come
   * there.
   */
  makeZero(offset: number, length: number, unmap: boolean, marks = false): void {
    this.#eachRun(offset, length, (at, most) => this.#zeroRun(at, most, unmap, marks));
  }

  /** Clusters of their own for the range, that read as before. */
  preallocate(offset: number, length: number): void {
    this.#eachRun(offset, length, (at, most) => this.#allocateRun(at, most));
  }

  /** Calls `body` with each run of one kind (`#extent`), of which it answers how much it has done. */
  #eachRun(offset: number, length: number, body: (at: number, most: number) => number): void {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      this.#disk.mapping.map(at, end - at, this.#extent);
      at += body(at, this.#extent.length);
    }
  }

  #writeRun(offset: number, most: number, source: IoBuffer, at: number): number {
    const { kind, hostOffset } = this.#extent;
    if (kind === EXTENT.DATA) {
      this.#putInPlace(source, at, most, hostOffset, offset);
      return most;
    }
    const clusterSize = this.#clusterSize;
    const start = alignDown(offset, clusterSize);
    const whole = offset === start ? alignDown(Math.min(most, MOST_APPENDED), clusterSize) : 0;
    if (whole > 0) {
      const host = this.#tables.append(whole);
      this.#put(source, at, whole, host, offset);
      this.#tables.linkRun(offset, whole, host);
      return whole;
    }
    const length = Math.min(most, start + clusterSize - offset);
    this.#writePart(kind, offset, length, source, at);
    return length;
  }

  /** A new cluster, of which a part is written. */
  #writePart(kind: ExtentKind, offset: number, length: number, source: IoBuffer, at: number): void {
    const start = alignDown(offset, this.#clusterSize);
    if (this.#isBlank(kind, start)) {
      const host = this.#tables.append(this.#clusterSize);
      this.#put(source, at, length, host + (offset - start), offset);
      this.#tables.link(start, host);
      return;
    }
    const cluster = this.#readCluster(start);
    source.bytes.copy(cluster.bytes, offset - start, at, at + length);
    this.#storeCluster(start, cluster);
  }

  #storeCluster(start: number, cluster: IoBuffer): void {
    const host = this.#tables.append(this.#clusterSize);
    this.#put(cluster, 0, this.#clusterSize, host, start);
    this.#tables.link(start, host);
  }

  /** Clusters of their own, that read as before. */
  #allocateRun(offset: number, most: number): number {
    const { kind } = this.#extent;
    if (kind === EXTENT.DATA) return most;
    const clusterSize = this.#clusterSize;
    const start = alignDown(offset, clusterSize);
    const next = Math.min(most, start + clusterSize - offset);
    if (!this.#isBlank(kind, start)) {
      this.#storeCluster(start, this.#readCluster(start));
      return next;
    }
    const isFar = offset === start && this.#bytesBelow(start) === 0;
    const whole = isFar ? alignDown(Math.min(most, MOST_APPENDED), clusterSize) : 0;
    const length = Math.max(clusterSize, whole);
    const host = this.#tables.append(length);
    this.#storage.reserve(host, length);
    this.#tables.linkRun(start, length, host);
    return Math.max(next, whole);
  }

  /** Whether a new cluster, of zeroes as it comes, reads as before: what is encrypted is none. */
  #isBlank(kind: ExtentKind, start: number): boolean {
    if (this.#encrypted !== null) return false;
    return kind === EXTENT.ZERO || (kind === EXTENT.UNALLOCATED && this.#bytesBelow(start) === 0);
  }

  /** Bytes of the backing file in the cluster at `start`. */
  #bytesBelow(start: number): number {
    const size = Math.min(this.#disk.backing?.size ?? 0, this.#disk.size);
    return Math.max(0, Math.min(this.#clusterSize, size - start));
  }

  /** The cluster as it reads; zeroes behind the disk's end. */
  #readCluster(start: number): IoBuffer {
    this.#cluster ??= new IoBuffer(this.#clusterSize);
    const length = Math.min(this.#clusterSize, this.#disk.size - start);
    this.#disk.read(start, length, this.#cluster, 0);
    this.#cluster.bytes.fill(0, length);
    return this.#cluster;
  }

  #zeroRun(offset: number, most: number, unmap: boolean, marks: boolean): number {
    const { kind, hostOffset } = this.#extent;
    if (kind === EXTENT.ZERO) return most;
    if (kind === EXTENT.DATA) {
      this.#zeroInPlace(offset, most, hostOffset, unmap);
      return most;
    }
    const start = alignDown(offset, this.#clusterSize);
    const below = this.#bytesBelow(start);
    if (kind === EXTENT.UNALLOCATED && below === 0 && !marks) return most;
    // The disk is about to become larger where the range ends behind it.
    const end = Math.min(start + this.#clusterSize, Math.max(this.#disk.size, offset + most));
    const length = Math.min(most, end - offset);
    if (offset === start && length === end - start) {
      if (this.#zeroEntry !== null) this.#tables.link(start, this.#zeroEntry);
      else if (below === 0) this.#tables.link(start, 0);
      else return this.#writeRun(offset, Math.min(most, ZEROES_SIZE), this.#zeroBytes(), 0);
      return length;
    }
    this.#writePart(kind, offset, length, this.#zeroBytes(), 0);
    return length;
  }

  #zeroInPlace(offset: number, length: number, host: number, unmap: boolean): void {
    this.#tables.checkData(host, length);
    // A hole of what is encrypted would be something else.
    if (unmap && this.#encrypted === null && this.#storage.punch(host, length)) return;
    const zeroes = this.#zeroBytes();
    for (let done = 0; done < length; done += zeroes.length) {
      const n = Math.min(zeroes.length, length - done);
      this.#putInPlace(zeroes, 0, n, host + done, offset + done);
    }
  }

  #zeroBytes(): IoBuffer {
    this.#zeroes ??= new IoBuffer(Math.max(ZEROES_SIZE, this.#clusterSize));
    return this.#zeroes;
  }

  /** Over what is there. Of sectors that are encrypted, the rest is kept. */
  #putInPlace(source: IoBuffer, at: number, length: number, host: number, guest: number): void {
    this.#tables.checkData(host, length);
    const first = alignDown(guest, SECTOR_SIZE);
    const last = alignUp(guest + length, SECTOR_SIZE);
    if (this.#encrypted === null || last - first === length) {
      this.#put(source, at, length, host, guest);
      return;
    }
    const sectors = new IoBuffer(last - first);
    this.#disk.read(first, last - first, sectors, 0);
    source.bytes.copy(sectors.bytes, guest - first, at, at + length);
    this.#put(sectors, 0, last - first, host - (guest - first), first);
  }

  /** Writes bytes of the guest's at `guest` to `host`: whole sectors where they are encrypted. */
  #put(source: IoBuffer, at: number, length: number, host: number, guest: number): void {
    if (this.#encrypted === null) {
      this.#storage.write(source, at, length, host);
      return;
    }
    this.#encrypted.write(source, at, length, guest / SECTOR_SIZE, (piece, from, n, done) =>
      this.#storage.write(piece, from, n, host + done),
    );
  }
}
