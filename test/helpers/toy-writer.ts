/**
 * The least that can write a qcow2 image, one sector at a time, in an order that is given: to see
 * that the crash simulation passes what is right and catches what is wrong. The image has clusters
 * of 512 bytes, one L2 table, and one refcount block of 16-bit counts that covers all of it.
 */
import type { MutableStorage } from '#src/storage/storage.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import type { WriterCalls } from './crash-driver.js';
import { buildImage } from './image-builder.js';
import type { BuiltImage } from './image-spec.js';

export const TOY_CLUSTER_SIZE = 512;
/** What one L2 table maps. */
export const TOY_SECTORS = 64;

export type ToyStep = 'data' | 'refcount' | 'l2' | 'flush';

export interface ToyOrder {
  readonly allocate: readonly ToyStep[];
  readonly free: readonly ToyStep[];
}

export const RIGHT_ORDER: ToyOrder = {
  allocate: ['data', 'refcount', 'flush', 'l2'],
  free: ['l2', 'flush', 'refcount'],
};

/** An image whose disk is empty but for its first sector. */
export function toyImage(first: Uint8Array): BuiltImage {
  return buildImage({
    size: TOY_SECTORS * TOY_CLUSTER_SIZE,
    clusterBits: 9,
    clusters: new Map([[0, { kind: 'data', bytes: first }]]),
  });
}

export class ToyWriter implements WriterCalls {
  readonly #storage: MutableStorage;
  readonly #order: ToyOrder;
  readonly #l2Table: number;
  readonly #refcountBlock: number;
  readonly #entries: number[];
  readonly #counts: number[];
  readonly #scratch = new IoBuffer(8);

  constructor(image: BuiltImage, storage: MutableStorage, order: ToyOrder) {
    this.#storage = storage;
    this.#order = order;
    this.#l2Table = image.places.l2Tables.get(0)!;
    this.#refcountBlock = image.places.refcountBlocks[0]!;
    const entryAt = (index: number) => image.bytes.readUIntBE(this.#l2Table + index * 8 + 2, 6);
    this.#entries = Array.from({ length: TOY_SECTORS }, (_, index) => entryAt(index));
    const countAt = (index: number) => image.bytes.readUInt16BE(this.#refcountBlock + index * 2);
    this.#counts = Array.from({ length: TOY_CLUSTER_SIZE / 2 }, (_, index) => countAt(index));
  }

  write(offset: number, length: number, source: IoBuffer, at: number): void {
    for (let done = 0; done < length; done += TOY_CLUSTER_SIZE) {
      this.#writeCluster((offset + done) / TOY_CLUSTER_SIZE, source, at + done);
    }
  }

  discard(offset: number, length: number): void {
    for (let index = offset / TOY_CLUSTER_SIZE; length > 0; index++, length -= TOY_CLUSTER_SIZE) {
      const host = this.#entries[index]!;
      if (host === 0) continue;
      this.#entries[index] = 0;
      this.#counts[host / TOY_CLUSTER_SIZE] = 0;
      this.#run(this.#order.free, { l2: index, refcount: host / TOY_CLUSTER_SIZE });
    }
  }

  flush(): void {
    this.#storage.flush();
  }

  #writeCluster(index: number, source: IoBuffer, at: number): void {
    const known = this.#entries[index]!;
    if (known !== 0) {
      this.#storage.write(source, at, TOY_CLUSTER_SIZE, known);
      return;
    }
    const free = this.#counts.indexOf(0);
    const host = free * TOY_CLUSTER_SIZE;
    this.#entries[index] = host;
    this.#counts[free] = 1;
    this.#run(this.#order.allocate, { l2: index, refcount: free, data: { source, at, host } });
  }

  #run(
    steps: readonly ToyStep[],
    places: { l2: number; refcount: number; data?: { source: IoBuffer; at: number; host: number } },
  ): void {
    for (const step of steps) {
      if (step === 'flush') this.#storage.flush();
      else if (step === 'l2') this.#writeEntry(places.l2);
      else if (step === 'refcount') this.#writeCount(places.refcount);
      else if (places.data !== undefined) {
        const { source, at, host } = places.data;
        this.#storage.write(source, at, TOY_CLUSTER_SIZE, host);
      }
    }
  }

  #writeEntry(index: number): void {
    const host = this.#entries[index]!;
    this.#scratch.bytes.writeUIntBE(host, 2, 6);
    this.#scratch.bytes.writeUInt16BE(host === 0 ? 0 : 0x8000, 0);
    this.#storage.write(this.#scratch, 0, 8, this.#l2Table + index * 8);
  }

  #writeCount(index: number): void {
    this.#scratch.bytes.writeUInt16BE(this.#counts[index]!, 0);
    this.#storage.write(this.#scratch, 0, 2, this.#refcountBlock + index * 2);
  }
}
