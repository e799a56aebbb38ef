/** Copies clusters of an image to other places of it: in few, large reads and writes. */
import { IoBuffer } from '../../sys/io-buffer.js';
import { SECTOR_SIZE } from '../extent.js';
import type { Steps } from '../steps.js';
import { isZero } from '../zeroes.js';
import { type Moves, patchL2 } from './compact-references.js';
import type { CompactState } from './compact-state.js';
import type { LayerCipher } from './mapping.js';
import { USE, useIn } from './reference-counts.js';

/** Bytes that are read before they are written. */
const BUFFER_SIZE = 8 << 20;

/** Sectors that go to another place. */
export interface SectorMove {
  readonly from: number;
  readonly to: number;
  readonly count: number;
}

export class ClusterCopier {
  readonly #state: CompactState;
  readonly #cipher: LayerCipher | null;
  readonly #buffer: IoBuffer;

  /** `cipher`: what guest data is encrypted with; null where it is not. */
  constructor(state: CompactState, cipher: LayerCipher | null) {
    this.#state = state;
    this.#cipher = cipher;
    this.#buffer = new IoBuffer(Math.max(BUFFER_SIZE, state.geometry.clusterSize));
  }

  /** Copies `moves.cells`; L2 tables with their entries as they will be. `sources`: in order. */
  *cells(sources: readonly number[], moves: Moves): Steps<void> {
    const { clusterSize } = this.#state.geometry;
    const most = Math.floor(this.#buffer.length / clusterSize);
    for (let done = 0; done < sources.length; done += most) {
      const part = sources.slice(done, done + most);
      this.#read(part);
      for (const [n, cluster] of part.entries()) this.#change(cluster, n * clusterSize, moves);
      this.#write(part.map((cluster) => moves.cells.get(cluster)!));
      yield Math.min(1, (done + most) / sources.length);
    }
  }

  /** The same of sectors with compressed data. */
  sectors(moves: readonly SectorMove[]): void {
    for (const { from, to, count } of moves) {
      this.bytes(from * SECTOR_SIZE, to * SECTOR_SIZE, count * SECTOR_SIZE);
    }
  }

  /** Bytes of a table. */
  bytes(from: number, to: number, size: number): void {
    const { storage } = this.#state;
    for (let done = 0; done < size; ) {
      const n = Math.min(this.#buffer.length, size - done);
      this.#load(0, n, from + done);
      storage.write(this.#buffer, 0, n, to + done);
      done += n;
    }
  }

  /** Where the file ends before, zeroes. */
  #load(at: number, length: number, position: number): void {
    const n = this.#state.storage.read(this.#buffer, at, length, position);
    this.#buffer.bytes.fill(0, at + n, at + length);
  }

  #read(clusters: readonly number[]): void {
    const { clusterSize } = this.#state.geometry;
    for (const { first, length, at } of runsOf(clusters)) {
      this.#load(at * clusterSize, length * clusterSize, first * clusterSize);
    }
  }

  #change(cluster: number, at: number, moves: Moves): void {
    const { geometry, counts } = this.#state;
    const { clusterSize } = geometry;
    const use = useIn(counts.word(cluster));
    if (use === USE.L2_TABLE) {
      const { view } = this.#buffer;
      const part = { view: new DataView(view.buffer, view.byteOffset + at, clusterSize) };
      patchL2(this.#state, part, clusterSize, moves);
    } else if (use === USE.DATA && this.#cipher !== null && this.#cipher.byHostOffset) {
      const { sectors } = this.#cipher;
      const perCluster = clusterSize / SECTOR_SIZE;
      sectors.decrypt(this.#buffer.bytes, at, clusterSize, cluster * perCluster);
      const place = moves.cells.get(cluster)!;
      sectors.encrypt(this.#buffer.bytes, at, clusterSize, place * perCluster);
    }
  }

  /** What is zero becomes a hole of the file, where it is not the file's end. */
  #write(places: readonly number[]): void {
    const { storage, geometry } = this.#state;
    const { clusterSize } = geometry;
    const end = storage.size();
    for (const { first, length, at } of runsOf(places)) {
      for (let n = 0; n < length; ) {
        const zero = isZero(this.#buffer, (at + n) * clusterSize, clusterSize);
        let stop = n + 1;
        while (
          stop < length &&
          isZero(this.#buffer, (at + stop) * clusterSize, clusterSize) === zero
        ) {
          stop++;
        }
        const [position, size] = [(first + n) * clusterSize, (stop - n) * clusterSize];
        const isHole = zero && position + size <= end && storage.punch(position, size);
        if (!isHole) storage.write(this.#buffer, (at + n) * clusterSize, size, position);
        n = stop;
      }
    }
  }
}

/** Clusters in runs of adjacent ones; `at`: which of them the run begins with. */
function* runsOf(
  clusters: readonly number[],
): Generator<{ first: number; length: number; at: number }> {
  for (let at = 0; at < clusters.length; ) {
    const first = clusters[at]!;
    let length = 1;
    while (at + length < clusters.length && clusters[at + length] === first + length) length++;
    yield { first, length, at };
    at += length;
  }
}
