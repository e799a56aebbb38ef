/** Walks L2 tables: counts what their entries refer to, and says what is wrong with them. */
import type { Storage } from '../../storage/storage.js';
import type { Report, ScanFinding } from './check-findings.js';
import { hasBit } from './features.js';
import type { Geometry } from './geometry.js';
import type { Qcow2Header } from './header.js';
import {
  entryValue,
  hasUnusedL2Bits,
  hostOffsetOf,
  isAllocated,
  isCompressed,
  isCopied,
  isZero,
  plainMasks,
} from './l2.js';
import { INCOMPATIBLE } from './layout.js';
import { SEEN, type SeenFlag } from './reference-counts.js';
import { TableReader } from './table-reader.js';

/** How the clusters of the active disk lie. */
export interface Fragmentation {
  readonly allocated: number;
  readonly fragmented: number;
  readonly compressed: number;
}

/** An L2 entry at `position` of the file that is to become one without a host cluster. */
export interface EntryRepair {
  readonly position: number;
  /** Of the L2 table. */
  readonly table: number;
  /** The host cluster that it names now. */
  readonly offset: number;
}

/** Where the references go. Both take `n` references at once. */
export interface DataCounter {
  /** Clusters in the file, the last one partial or not. */
  readonly fileClusters: number;
  /** A run of clusters. */
  addData(first: number, length: number, n: number, seen: SeenFlag): void;
  /** The clusters of a range, which can lie anywhere. */
  addDataRange(offset: number, size: number, n: number, seen: SeenFlag, exact?: bigint): void;
}

export class EntryScan {
  /** Entries that are passed over, as they will be repaired. */
  repairs: readonly EntryRepair[] = [];
  /** How many were not passed over in the end. */
  refused = 0;
  /** There are COPIED flags that are wrong whatever the counts are. */
  suspectsFlags = false;
  readonly #geometry: Geometry;
  readonly #externalData: boolean;
  readonly #reader: TableReader;
  /** The reader's buffer by 32-bit words. */
  readonly #words: Uint32Array;
  readonly #counter: DataCounter;
  readonly #report: Report<ScanFinding>;
  readonly #repairsZero: boolean;
  readonly #passedOver: EntryRepair[] = [];
  #findings = 0;
  #allocated = 0;
  #fragmented = 0;
  #compressed = 0;
  /** The cluster that would continue the last one; 0: there was none in this table. */
  #next = 0;

  /** `repairsZero`: unaligned clusters that read as zeroes are listed in `repairs`. */
  constructor(
    storage: Storage,
    header: Qcow2Header,
    counter: DataCounter,
    report: Report<ScanFinding>,
    repairsZero: boolean,
  ) {
    this.#geometry = header.geometry;
    this.#externalData = hasBit(header.incompatibleFeatures, INCOMPATIBLE.DATA_FILE);
    this.#reader = new TableReader(storage);
    const { buffer, byteOffset, length } = this.#reader.buffer.bytes;
    this.#words = new Uint32Array(buffer, byteOffset, length / Uint32Array.BYTES_PER_ELEMENT);
    this.#counter = counter;
    this.#report = report;
    this.#repairsZero = repairsZero;
  }

  /** Of the tables that were scanned as active ones. */
  get fragmentation(): Fragmentation {
    const [allocated, fragmented] = [this.#allocated, this.#fragmented];
    return { allocated, fragmented, compressed: this.#compressed };
  }

  /**
   * Counts each reference of the table `n` times. `active`: it is the active disk's. Answers whether
   * nothing was found in it.
   */
  scan(table: number, n: number, active: boolean): boolean {
    const before = this.#findings;
    this.#next = 0;
    this.#reader.forEachBlock(table, this.#geometry.clusterSize, (length, position) => {
      this.#reader.buffer.bytes.subarray(0, length).swap64();
      this.#scanBlock(length / 4, { position, table, n, active });
    });
    return this.#findings === before;
  }

  /** Takes entries that are in order in runs of clusters, and the others one by one. */
  #scanBlock(end: number, block: TablePart): void {
    const { clusterBits, l2EntrySize, extendedL2 } = this.#geometry;
    const { fileClusters } = this.#counter;
    const { active } = block;
    const plain = plainMasks(this.#geometry);
    const scale = 2 ** (32 - clusterBits);
    const simple = !this.#externalData;
    const words = this.#words;
    let first = 0;
    let length = 0;
    let seen: SeenFlag = SEEN.NOTHING;
    for (let at = 0; at < end; at += l2EntrySize / 4) {
      const low = words[at]!;
      const high = words[at + 1]!;
      if (low === 0 && high === 0 && (!extendedL2 || words[at + 2] === 0)) continue;
      const cluster = (high & 0x00ff_ffff) * scale + (low >>> clusterBits);
      const flag = seenFlag(active, high);
      const isPlain =
        simple &&
        (low & plain.low) === 0 &&
        (high & plain.high) === 0 &&
        (!extendedL2 || (words[at + 2]! & words[at + 3]!) === 0);
      const continues = length > 0 && cluster === first + length && flag === seen;
      if (isPlain && continues && cluster < fileClusters) {
        length++;
        continue;
      }
      if (length > 0) this.#addRun(first, length, block, seen);
      length = 0;
      if (isPlain && cluster !== 0 && cluster < fileClusters) {
        first = cluster;
        length = 1;
        seen = flag;
      } else {
        first = 0;
        this.#entry(at, block);
      }
    }
    if (length > 0) this.#addRun(first, length, block, seen);
  }

  #addRun(first: number, length: number, { n, active }: TablePart, seen: SeenFlag): void {
    if (active) {
      this.#allocate(first);
      this.#allocated += length - 1;
      this.#next += length - 1;
    }
    this.#counter.addData(first, length, n, seen);
  }

  /** Decides at the end what is repaired: entries of tables that are nothing else, too. */
  settleRepairs(isTable: (offset: number) => boolean): void {
    this.repairs = this.#passedOver.filter(({ table }) => isTable(table));
    for (const { table, offset } of this.#passedOver) {
      if (isTable(table)) continue;
      this.refused++;
      this.#counter.addDataRange(offset, this.#geometry.clusterSize, 1, SEEN.NOTHING);
    }
  }

  #allocate(cluster: number): void {
    this.#allocated++;
    if (this.#next !== 0 && this.#next !== cluster) this.#fragmented++;
    this.#next = cluster + 1;
  }

  /** Any entry, with all that can be wrong with it. */
  #entry(at: number, place: TablePart): void {
    const low = this.#words[at]!;
    const high = this.#words[at + 1]!;
    const allocatedMask = this.#geometry.extendedL2 ? this.#words[at + 2]! : 0;
    const zeroMask = this.#geometry.extendedL2 ? this.#words[at + 3]! : 0;
    if (isCompressed(high)) {
      this.#compressedEntry(at, (allocatedMask | zeroMask) !== 0, place);
      return;
    }
    if (hasUnusedL2Bits(low, high)) {
      this.#find({ kind: 'l2-reserved', entry: entryValue(low, high) });
    }
    const host = hostOffsetOf(low, high);
    const zero = !this.#geometry.extendedL2 && isZero(low);
    if (zero && host === 0) return;
    if (!zero && !isAllocated(host, high, this.#externalData)) {
      if (allocatedMask !== 0) this.#find({ kind: 'subclusters-unallocated' });
      return;
    }
    if ((allocatedMask & zeroMask) !== 0) this.#find({ kind: 'subclusters-both', offset: host });
    const hasData = this.#geometry.extendedL2 ? allocatedMask !== 0 : !zero;
    if (host % this.#geometry.clusterSize !== 0) {
      if (this.#unaligned(host, hasData, at, place)) return;
    }
    if (place.active) this.#allocate(host / this.#geometry.clusterSize);
    if (this.#externalData) {
      // Clusters of a data file have one reference: an entry without the flag is wrong.
      if (place.active && !isCopied(high)) this.suspectsFlags = true;
      return;
    }
    const { clusterSize } = this.#geometry;
    const seen = seenFlag(place.active, high);
    this.#counter.addDataRange(host, clusterSize, place.n, seen);
  }

  /** Answers whether the entry will be repaired. */
  #unaligned(offset: number, hasData: boolean, at: number, block: TablePart): boolean {
    const { position, table } = block;
    if (hasData) {
      this.#find({ kind: 'data-unaligned', offset });
      return false;
    }
    const repairing = this.#repairsZero && table % this.#geometry.clusterSize === 0;
    this.#find({ kind: 'zero-unaligned', offset, repairing });
    if (repairing) this.#passedOver.push({ position: position + at * 4, table, offset });
    return repairing;
  }

  #compressedEntry(at: number, hasBitmap: boolean, block: TablePart): void {
    const { position, table, n, active } = block;
    const low = this.#words[at]!;
    const high = this.#words[at + 1]!;
    const index = (position - table + at * 4) / this.#geometry.l2EntrySize;
    const entry = entryValue(low, high);
    const bits = this.#geometry.compressedOffsetBits;
    const offset = entry & ((1n << BigInt(bits)) - 1n);
    if (isCopied(high)) this.#find({ kind: 'compressed-copied', offset });
    const described = entry & ~(1n << 63n);
    if (this.#externalData) {
      this.#find({ kind: 'compressed-external', index, entry: described });
      return;
    }
    if (hasBitmap) {
      this.#find({ kind: 'compressed-bitmap', index, entry: described });
      return;
    }
    if (active) {
      this.#allocated++;
      this.#compressed++;
      // Such clusters lie within each other's: QEMU takes all of them for fragmented.
      this.#fragmented++;
    }
    const sectors = Number((described & ((1n << 62n) - 1n)) >> BigInt(bits)) + 1;
    const size = sectors * 512 - Number(offset % 512n);
    this.#counter.addDataRange(Number(offset), size, n, SEEN.NOTHING, offset);
  }

  #find(finding: ScanFinding): void {
    this.#findings++;
    this.#report(finding);
  }
}

/** A part of a table, as it was read. */
interface TablePart {
  /** In the file. */
  readonly position: number;
  /** The table's own place there. */
  readonly table: number;
  readonly n: number;
  readonly active: boolean;
}

function seenFlag(active: boolean, high: number): SeenFlag {
  if (!active) return SEEN.NOTHING;
  return isCopied(high) ? SEEN.COPIED : SEEN.NOT_COPIED;
}
