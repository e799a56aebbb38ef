/**
 * The guard against damage that is there already: what is to be written must not lie over metadata.
 * QEMU's default checks: the header, the L1 tables (snapshots' too), active L2 tables, the refcount
 * table and blocks, the snapshot table, the bitmap directory; and the LUKS header. On a hit the image is marked
 * corrupt, and writing ends.
 *
 * A bitmap with a bit for each cluster (`metadata-map.ts`) answers most questions; where it says yes, the
 * tables themselves are asked.
 */
import type { ImageError } from '../../errors.js';
import type { ImageState } from '../../shared/image-state.js';
import { MetadataMap } from '../metadata-map.js';
import { hostOffsetOf } from './l2.js';
import type { Place, Tables } from './tables.js';

const ENTRY_SIZE = 8;

export class OverlapGuard {
  readonly #tables: Tables;
  readonly #state: ImageState;
  readonly #map: MetadataMap;
  readonly #clusterSize: number;
  /** Sets the corrupt bit in the file. */
  readonly #mark: () => void;
  /** L1 tables of the snapshots there are. */
  readonly #inactiveL1: () => readonly Place[];
  /** Clusters that the device has room for; Infinity for a file. */
  readonly #limit: number;

  constructor(
    tables: Tables,
    bitmap: SharedArrayBuffer,
    mark: () => void,
    inactiveL1: () => readonly Place[],
    limit: number,
  ) {
    this.#tables = tables;
    this.#state = tables.state;
    this.#map = new MetadataMap(bitmap);
    this.#clusterSize = tables.geometry.clusterSize;
    this.#mark = mark;
    this.#inactiveL1 = inactiveL1;
    this.#limit = limit;
  }

  /**
   * Notes all metadata that the tables name; before the first change. Throws, and ends all writing,
   * where two tables lie over each other: what is written back to one would destroy the other.
   */
  gather(): void {
    const { state } = this.#tables;
    const l1 = { offset: state.l1TableOffset, size: state.l1Size * ENTRY_SIZE };
    const snapshots = { offset: state.snapshotsOffset, size: state.snapshotTableSize };
    const table = this.#refcountTable();
    const header = { offset: 0, size: this.#clusterSize };
    const clusters: number[] = [];
    const note = ({ offset, size }: Place): void => {
      const end = Math.ceil((offset + size) / this.#clusterSize);
      const first = Math.floor(offset / this.#clusterSize);
      for (let cluster = first; cluster < end; cluster++) clusters.push(cluster);
    };
    const { cryptoHeader, bitmapDirectory } = this.#tables;
    const single = [header, cryptoHeader, bitmapDirectory, l1, table, snapshots];
    for (const place of [...single, ...this.#inactiveL1()]) {
      if (place.size > 0) note(place);
    }
    for (const place of [table, l1]) {
      this.#entries(place, (offset) => note({ offset, size: this.#clusterSize }));
    }
    const sorted = Float64Array.from(clusters).sort();
    for (const [at, cluster] of sorted.entries()) {
      if (at > 0 && sorted[at - 1] === cluster) {
        throw this.corrupt('two tables lie over each other', cluster * this.#clusterSize);
      }
      this.#map.add(cluster);
    }
  }

  /** Clusters that the file has, at most. */
  #clusters(): number {
    return Math.min(this.#state.virginFrom, this.#limit);
  }

  /** Throws, and ends all writing, where one of the clusters is metadata. */
  check(first: number, count: number): void {
    for (let cluster = first; cluster < first + count; cluster++) {
      if (this.#map.has(cluster)) this.#checkTables(cluster);
    }
  }

  /** Checks clusters that become metadata, and notes them. */
  claim(first: number, count: number): void {
    this.check(first, count);
    for (let cluster = first; cluster < first + count; cluster++) this.#map.add(cluster);
  }

  /** These clusters are no metadata any more. */
  disclaim(first: number, count: number): void {
    const clusters = this.#clusters();
    for (let cluster = first; cluster < first + count; cluster++) {
      this.#map.delete(cluster, clusters);
    }
  }

  /** Marks the image corrupt, ends all writing, and answers the error to throw. */
  corrupt(problem: string, offset: number): ImageError {
    const error = this.#tables.corrupt(`${problem}: the image is marked corrupt`, offset);
    if (this.#state.failed === 0) {
      this.#state.fail(error.errno);
      this.#mark();
    }
    return error;
  }

  #checkTables(cluster: number): void {
    const offset = cluster * this.#clusterSize;
    const name = this.#metadataAt(offset);
    if (name === null) return;
    throw this.corrupt(`write would overwrite metadata (${name})`, offset);
  }

  #metadataAt(offset: number): string | null {
    const { state } = this.#tables;
    const l1 = { offset: state.l1TableOffset, size: state.l1Size * ENTRY_SIZE };
    const snapshots = { offset: state.snapshotsOffset, size: state.snapshotTableSize };
    if (offset === 0) return 'main header';
    if (this.#within(offset, this.#tables.cryptoHeader)) return 'LUKS header';
    if (this.#within(offset, this.#tables.bitmapDirectory)) return 'bitmap directory';
    if (this.#within(offset, l1)) return 'active L1 table';
    if (this.#within(offset, this.#refcountTable())) return 'refcount table';
    if (this.#within(offset, snapshots)) return 'snapshot table';
    if (this.#inactiveL1().some((place) => this.#within(offset, place))) return 'inactive L1 table';
    let name: string | null = null;
    this.#entries(this.#refcountTable(), (block) => {
      if (block === offset) name = 'refcount block';
    });
    this.#entries(l1, (table) => {
      if (table === offset) name = 'active L2 table';
    });
    return name;
  }

  #refcountTable(): Place {
    const { state } = this.#tables;
    const size = state.refcountTableClusters * this.#clusterSize;
    return { offset: state.refcountTableOffset, size };
  }

  #entries(table: Place, visit: (offset: number) => void): void {
    const tables = this.#tables;
    for (let at = table.offset; at < table.offset + table.size; at += ENTRY_SIZE) {
      tables.read(at);
      const offset = hostOffsetOf(tables.low, tables.high);
      if (offset !== 0) visit(offset);
    }
  }

  #within(offset: number, { offset: start, size }: Place): boolean {
    return size > 0 && offset >= start && offset < start + size;
  }
}
