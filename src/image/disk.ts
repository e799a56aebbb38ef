/**
 * A flat disk: a mapping over the disk below it. This is where a READ becomes preads: adjacent
 * extents of a file are joined into one, zeroes are filled in, and what a layer does not have comes
 * from the one below.
 */
import { alignDown, alignUp } from '../codec/bits.js';
import { ImageError } from '../errors.js';
import type { Storage } from '../storage/storage.js';
import { IoBuffer } from '../sys/io-buffer.js';
import type { SectorCipher } from './crypto/cipher-key.js';
import { EXTENT, Extent, type Mapping, SECTOR_SIZE } from './extent.js';

/**
 * Looks at maps that one `seek` may take: an image can map endless zeroes with a few tables. Where
 * they are spent, what follows counts as data, as it does where nobody knows of holes; asked again
 * from there, `seek` goes on.
 */
const MAX_LOOKS = 1 << 17;

/** A run of bytes of one file that is still to be read. */
class PendingRead {
  #storage: Storage | null = null;
  #cipher: SectorCipher | null = null;
  #cipherOffset = 0;
  #position = 0;
  #unit = 1;
  #at = 0;
  #length = 0;
  #sector: IoBuffer | undefined;

  /** Joins the run to what is pending, or reads that first. */
  add(extent: Extent, length: number, unit: number, target: IoBuffer, at: number): void {
    const continues =
      this.#storage === extent.storage &&
      this.#position + this.#length === extent.hostOffset &&
      this.#at + this.#length === at;
    if (continues) {
      this.#length += length;
      return;
    }
    this.flush(target);
    this.#storage = extent.storage;
    this.#cipher = extent.cipher;
    this.#cipherOffset = extent.cipherOffset;
    this.#position = extent.hostOffset;
    this.#unit = unit;
    this.#at = at;
    this.#length = length;
  }

  flush(target: IoBuffer): void {
    const storage = this.#storage;
    if (storage === null) return;
    this.#storage = null;
    if (this.#cipher === null) {
      this.#read(storage, this.#position, this.#length, target, this.#at);
    } else this.#readEncrypted(storage, this.#cipher, target);
  }

  /** Sectors are decrypted where they are to be; of one that is asked for in part, elsewhere. */
  #readEncrypted(storage: Storage, cipher: SectorCipher, target: IoBuffer): void {
    const length = this.#length;
    for (let done = 0; done < length; ) {
      const [position, at] = [this.#position + done, this.#at + done];
      const skip = position % SECTOR_SIZE;
      const sector = (this.#cipherOffset + done - skip) / SECTOR_SIZE;
      const whole = skip === 0 ? alignDown(length - done, SECTOR_SIZE) : 0;
      if (whole > 0) {
        this.#read(storage, position, whole, target, at);
        cipher.decrypt(target.bytes, at, whole, sector);
        done += whole;
        continue;
      }
      const part = Math.min(length - done, SECTOR_SIZE - skip);
      this.#sector ??= new IoBuffer(SECTOR_SIZE);
      this.#read(storage, position - skip, SECTOR_SIZE, this.#sector, 0);
      cipher.decrypt(this.#sector.bytes, 0, SECTOR_SIZE, sector);
      this.#sector.bytes.copy(target.bytes, at, skip, skip + part);
      done += part;
    }
  }

  #read(storage: Storage, position: number, length: number, target: IoBuffer, at: number): void {
    storage.faults?.happens('read_aio');
    const n = storage.read(target, at, length, position);
    if (n < length) this.#fillTail(storage, position, length, target, at, n);
  }

  /** Forgets what is pending, after an error. */
  clear(): void {
    this.#storage = null;
  }

  /** The file ended: its last, partial cluster ends in zeroes; anything beyond is missing data. */
  #fillTail(
    storage: Storage,
    position: number,
    length: number,
    target: IoBuffer,
    at: number,
    done: number,
  ): void {
    const end = storage.size();
    if (position + length > alignUp(end, this.#unit)) {
      throw new ImageError(
        'corrupt',
        'EIO',
        `${storage.name}: data at offset ${position + done} lies past the end of the file`,
        { path: storage.name, offset: position + done, limit: `file size ${end}` },
      );
    }
    target.bytes.fill(0, at + done, at + length);
  }
}

export class Disk {
  readonly mapping: Mapping;
  readonly backing: Disk | null;
  readonly #refusal: string | null;
  readonly #extent = new Extent();
  readonly #pending: PendingRead;

  /** `refusal`: why nothing can be read from `backing`, though it is there. */
  constructor(mapping: Mapping, backing: Disk | null, refusal: string | null = null) {
    this.mapping = mapping;
    this.backing = backing;
    this.#refusal = refusal;
    // Layers share one pending run: runs of a base that alternate with others still join there.
    this.#pending = backing === null ? new PendingRead() : backing.#pending;
  }

  get size(): number {
    return this.mapping.size;
  }

  /**
   * Reads `length` bytes at `offset` into `target` from byte `at` on. The range must lie within the
   * disk. Throws a SysError or an ImageError; what the target then holds means nothing.
   */
  read(offset: number, length: number, target: IoBuffer, at: number): void {
    try {
      this.#gather(offset, length, target, at);
      this.#pending.flush(target);
    } catch (error) {
      this.#pending.clear();
      throw error;
    }
  }

  #gather(offset: number, length: number, target: IoBuffer, at: number): void {
    const extent = this.#extent;
    const end = offset + length;
    while (offset < end) {
      this.mapping.map(offset, end - offset, extent);
      const n = extent.length;
      switch (extent.kind) {
        case EXTENT.DATA:
          this.#pending.add(extent, n, this.mapping.unit, target, at);
          break;
        case EXTENT.ZERO:
          target.bytes.fill(0, at, at + n);
          break;
        case EXTENT.UNALLOCATED:
          this.#gatherBelow(offset, n, target, at);
          break;
        case EXTENT.COMPRESSED: {
          const cluster = this.mapping.decompress(extent);
          target.bytes.set(cluster.subarray(extent.skip, extent.skip + n), at);
          break;
        }
      }
      offset += n;
      at += n;
    }
  }

  /** What this layer does not have: the layer below, and zeroes past its end. */
  #gatherBelow(offset: number, length: number, target: IoBuffer, at: number): void {
    const below = this.backing;
    if (this.#refusal !== null) throw new ImageError('corrupt', 'EINVAL', this.#refusal);
    const present = below === null ? 0 : Math.max(0, Math.min(length, below.size - offset));
    if (present > 0) below!.#gather(offset, present, target, at);
    if (present < length) target.bytes.fill(0, at + present, at + length);
  }

  /**
   * The first byte at or after `offset` that is data (`hole` false) or a hole (`hole` true); `end`
   * where there is none before it. A hole reads as zeroes over the whole chain.
   */
  seek(offset: number, hole: boolean, end = this.size): number {
    return this.#seekWithin(offset, end, hole, { looks: MAX_LOOKS });
  }

  /**
   * How many bytes of [start, end) this layer holds itself; undefined where that would take more
   * than `budget` looks at its map.
   */
  allocatedWithin(start: number, end: number, budget: number): number | undefined {
    const extent = new Extent();
    let allocated = 0;
    for (let offset = start; offset < end; offset += extent.length) {
      if (budget-- === 0) return undefined;
      this.mapping.map(offset, end - offset, extent);
      const held = extent.kind === EXTENT.DATA || extent.kind === EXTENT.COMPRESSED;
      if (held || extent.preallocated) allocated += extent.length;
    }
    return allocated;
  }

  #seekWithin(offset: number, end: number, hole: boolean, budget: { looks: number }): number {
    const extent = new Extent();
    while (offset < end) {
      if (budget.looks-- <= 0) return hole ? end : offset;
      this.mapping.map(offset, end - offset, extent);
      const stop = offset + extent.length;
      const found = this.#seekInExtent(extent, offset, stop, hole, budget);
      if (found < stop) return found;
      offset = stop;
    }
    return end;
  }

  #seekInExtent(
    extent: Extent,
    offset: number,
    stop: number,
    hole: boolean,
    budget: { looks: number },
  ): number {
    switch (extent.kind) {
      case EXTENT.DATA: {
        const position = extent.hostOffset;
        const last = position + (stop - offset);
        const storage = extent.storage!;
        // Zeroes in the file are something else on the disk.
        if (extent.cipher !== null) return hole ? stop : offset;
        // What is missing is no hole: whoever copies it must see that it cannot be read.
        if (last > alignUp(storage.size(), this.mapping.unit)) return hole ? stop : offset;
        // A cluster may be allocated and its file still have a hole there.
        const found = hole ? storage.nextHole(position, last) : storage.nextData(position, last);
        return offset + (found - position);
      }
      case EXTENT.ZERO:
        return hole ? offset : stop;
      case EXTENT.COMPRESSED:
        return hole ? stop : offset;
      case EXTENT.UNALLOCATED: {
        const below = this.backing;
        const present = below === null ? offset : Math.min(stop, below.size);
        if (below === null || present <= offset) return hole ? offset : stop;
        const found = below.#seekWithin(offset, present, hole, budget);
        if (found < present) return found;
        return hole ? present : stop;
      }
    }
  }
}
