import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect } from 'chai';
import {
  allocateSliceCache,
  MIN_CACHE_SIZE,
  NO_ROOM,
  RANK,
  SLICE_SIZE,
  SliceCache,
  type SliceCacheMemory,
} from '#src/shared/slice-cache.js';
import { printSeed, SEED } from '../helpers/random.js';
import type { Order } from './slice-cache.worker.js';

const SLICES = MIN_CACHE_SIZE / SLICE_SIZE;

/** A cache whose slices are filled with their own number, and what it loaded. */
function numberedCache(memory: SliceCacheMemory = allocateSliceCache(0), owner = 1) {
  const loads: number[] = [];
  const cache = new SliceCache(memory, owner, (file, offset, target) => {
    loads.push(offset);
    new Uint32Array(target.buffer, target.byteOffset, SLICE_SIZE / 4).fill(file + offset / 512);
  });
  return { cache, loads };
}

describe('SliceCache', () => {
  printSeed();

  it('allocateSliceCache() keeps to the size, in powers of two above the least', () => {
    expect(allocateSliceCache(0).slices.byteLength).to.equal(MIN_CACHE_SIZE);
    expect(allocateSliceCache(33 << 20).slices.byteLength).to.equal(32 << 20);
    expect(allocateSliceCache(32 << 20).slices.byteLength).to.equal(32 << 20);
  });

  it('find() loads a slice once', () => {
    const { cache, loads } = numberedCache();
    const index = cache.find(0, 8192);
    expect(cache.words[index]).to.equal(16);
    expect(cache.unchanged(index, cache.sequence)).to.equal(true);
    expect(cache.find(0, 8192)).to.equal(index);
    expect(loads).to.deep.equal([8192]);
  });

  it('find() tells files and offsets apart, up to 2^53', () => {
    const { cache, loads } = numberedCache();
    const offsets = [0, 512, 2 ** 32, 2 ** 41, 2 ** 52, 2 ** 53 - 512];
    for (const offset of offsets) {
      for (const file of [0, 1, 255]) {
        const index = cache.find(file, offset);
        expect(cache.words[index]).to.equal((file + offset / 512) % 2 ** 32);
      }
    }
    expect(loads.length).to.equal(offsets.length * 3);
  });

  it('edit() keeps a slice until it is written back, by rank and place', () => {
    const { cache, loads } = numberedCache();
    for (const [offset, rank] of [
      [8192, RANK.L2],
      [0, RANK.L2],
      [4096, RANK.REFCOUNT_BLOCK],
    ] as const) {
      const index = cache.edit(0, offset, rank);
      cache.words[index] = offset + 1;
      cache.endEdit(index);
    }
    for (let n = 3; n <= 20 * SLICES; n++) cache.find(0, n * SLICE_SIZE);
    const loaded = loads.length;
    expect(cache.words[cache.find(0, 8192)]).to.equal(8193);
    expect(loads.length).to.equal(loaded);
    const written: number[] = [];
    const write = (_file: number, offset: number, bytes: Uint8Array) => {
      expect(new Uint32Array(bytes.buffer, bytes.byteOffset, 1)[0]).to.equal(offset + 1);
      written.push(offset);
    };
    cache.writeBack(RANK.REFCOUNT_BLOCK, write);
    expect(written).to.deep.equal([4096]);
    cache.writeBack(RANK.L2, write);
    expect(written).to.deep.equal([4096, 0, 8192]);
    expect(cache.dirtyCount(RANK.L2)).to.equal(0);
  });

  it('edit() says where there is no room for another dirty slice, and find() still has some', () => {
    const { cache } = numberedCache();
    let offset = 0;
    for (; ; offset += SLICE_SIZE) {
      const index = cache.edit(0, offset, RANK.L2);
      if (index === NO_ROOM) break;
      cache.endEdit(index);
    }
    expect(offset).to.be.greaterThan(0);
    expect(cache.words[cache.find(0, offset)]).to.equal(offset / 512);
    cache.writeBack(RANK.L2, () => {});
    const index = cache.edit(0, offset, RANK.L2);
    expect(index).to.not.equal(NO_ROOM);
    cache.endEdit(index);
  });

  it('writeBack() leaves dirty what could not be written', () => {
    const { cache } = numberedCache();
    cache.endEdit(cache.edit(0, 0, RANK.L1));
    const fail = () => {
      throw new Error('no space');
    };
    expect(() => cache.writeBack(RANK.L1, fail)).to.throw('no space');
    expect(cache.dirtyCount(RANK.L1)).to.equal(1);
  });

  it('forget() drops slices, dirty or not', () => {
    const { cache, loads } = numberedCache();
    cache.endEdit(cache.edit(0, 0, RANK.L2));
    cache.find(0, SLICE_SIZE);
    cache.forget(0, 0, 2 * SLICE_SIZE, SLICE_SIZE);
    expect(cache.dirtyCount(RANK.L2)).to.equal(0);
    cache.find(0, 0);
    cache.find(0, SLICE_SIZE);
    expect(loads).to.deep.equal([0, SLICE_SIZE, 0, SLICE_SIZE]);
  });

  it('find() evicts slices, and says so to who still holds one', () => {
    const { cache, loads } = numberedCache();
    const index = cache.find(0, 0);
    const { sequence } = cache;
    for (let n = 1; n <= 20 * SLICES; n++) {
      const at = cache.find(0, n * SLICE_SIZE);
      expect(cache.words[at]).to.equal(n * 8);
    }
    expect(cache.unchanged(index, sequence)).to.equal(false);
    expect(loads.length).to.equal(20 * SLICES + 1);
  });

  it('find() keeps what is in use while others come and go', () => {
    const { cache, loads } = numberedCache();
    for (let n = 1; n <= 20 * SLICES; n++) {
      cache.find(0, 0);
      cache.find(0, n * SLICE_SIZE);
    }
    const again = loads.filter((offset) => offset === 0).length;
    // The set's ways are cleared of their marks now and then.
    expect(again).to.be.lessThan(2 * SLICES);
  });

  it('find() goes on evicting once sequence numbers have wrapped around', () => {
    const memory = allocateSliceCache(0);
    const sequences = new Int32Array(memory.slots);
    for (let slot = 0; slot < SLICES; slot++) sequences[slot * 4 + 2] = 0x7fff_fff0;
    const { cache } = numberedCache(memory);
    for (let n = 0; n <= 100 * SLICES; n++) {
      const at = cache.find(0, n * SLICE_SIZE);
      expect(at).to.be.within(0, cache.words.length - 1);
      expect(cache.words[at]).to.equal(n * 8);
      expect(cache.unchanged(at, cache.sequence)).to.equal(true);
    }
  });

  it('find() throws what the loading throws, and forgets the slice', () => {
    let broken = true;
    const cache = new SliceCache(allocateSliceCache(0), 1, (_file, _offset, target) => {
      target.fill(0xee);
      if (broken) throw new Error('broken');
      target.fill(1);
    });
    expect(() => cache.find(0, 0)).to.throw('broken');
    expect(() => cache.find(0, 0)).to.throw('broken');
    broken = false;
    expect(cache.words[cache.find(0, 0)]).to.equal(0x01010101);
  });

  it('recover() frees what a dead thread held, half-filled slices forgotten', () => {
    const memory = allocateSliceCache(0);
    const { cache } = numberedCache(memory, 2);
    // A set's thread died while it was filling way 3 of set 0, with the key of the slice before it.
    const slots = new Int32Array(memory.slots);
    const locks = new Int32Array(memory.locks);
    const sets = locks.length;
    for (let n = 0; n < 4 * SLICES; n++) cache.find(0, n * SLICE_SIZE);
    for (let set = 0; set < sets; set++) {
      slots[(set * 8 + 3) * 4 + 2]! += 1;
      locks[set] = 7;
    }
    cache.recover(5);
    expect([...locks]).to.deep.equal(new Array(sets).fill(7));
    cache.recover(7);
    expect([...locks]).to.deep.equal(new Array(sets).fill(0));
    for (let set = 0; set < sets; set++) {
      expect([...slots.subarray((set * 8 + 3) * 4, (set * 8 + 3) * 4 + 2)]).to.deep.equal([0, 0]);
      expect(slots[(set * 8 + 3) * 4 + 2]! & 1).to.equal(0);
    }
    for (let n = 0; n < 4 * SLICES; n++) {
      expect(cache.words[cache.find(0, n * SLICE_SIZE)]).to.equal(n * 8);
    }
  });

  it('shows no thread a slice that it did not ask for, however small the cache', async () => {
    const memory = allocateSliceCache(0);
    const script = new URL('./slice-cache.worker.js', import.meta.url);
    const workers = [1, 2, 3, 4].map((owner) => {
      const order: Order = {
        memory,
        owner,
        seed: SEED + owner,
        finds: 200_000,
        slices: 2 * SLICES,
      };
      return once(new Worker(script, { workerData: order }), 'message');
    });
    const results = await Promise.all(workers);
    expect(results.map(([result]) => result)).to.deep.equal(new Array(4).fill({ foreign: 0 }));
    expect([...new Int32Array(memory.locks)].every((word) => word === 0)).to.equal(true);
  });
});
