/** Checks a QED image: its tables are walked once, and what they refer to is counted. */
import { alignDown, isAligned, TWO_32 } from '../../codec/bits.js';
import type { MutableStorage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import { type CheckResult, NOTHING_FOUND } from '../check-result.js';
import { ClusterSet } from '../cluster-set.js';
import { ENTRY_SIZE, type QedHeader, setNeedCheck, ZERO_CLUSTER } from './header.js';

/** Bytes of a table that are read at once. */
const CHUNK_SIZE = 1 << 20;

/**
 * What is wrong: offsets that are none, clusters that are used twice, clusters of the file that nothing
 * refers to. Tables that cannot be read count as errors of the check. `fix`: offsets that are none become 0, and
 * the need-check flag is cleared where nothing is wrong any more.
 */
export function checkQed(storage: MutableStorage, header: QedHeader, fix: boolean): CheckResult {
  const result = new Check(storage, header, fix).run();
  if (!fix || result.corruptions + result.checkErrors > 0) return result;
  // What was put right is durable before the image says that it is in order.
  storage.flush();
  setNeedCheck(storage, false);
  storage.flush();
  return result;
}

class Check {
  readonly #storage: MutableStorage;
  readonly #fix: boolean;
  readonly #header: QedHeader;
  readonly #used = new ClusterSet();
  /** Where the file's last whole cluster ends. */
  readonly #end: number;
  #corruptions = 0;
  #corruptionsFixed = 0;
  #checkErrors = 0;
  #allocated = 0;
  #fragmented = 0;
  #last = 0;

  constructor(storage: MutableStorage, header: QedHeader, fix: boolean) {
    this.#fix = fix;
    this.#storage = storage;
    this.#header = header;
    this.#end = alignDown(storage.size(), header.clusterSize);
  }

  run(): CheckResult {
    const { size, clusterSize, tableBytes, headerBytes, l1TableOffset } = this.#header;
    this.#use(l1TableOffset, tableBytes);
    const [l1, l2] = [this.#chunk(), this.#chunk()];
    this.#eachEntry(l1TableOffset, l1, (table) => {
      if (!this.#isCluster(table) || !this.#isCluster(table + tableBytes - clusterSize)) {
        return false;
      }
      this.#use(table, tableBytes);
      // As QEMU: what follows the end of another table breaks nothing off.
      this.#last = 0;
      this.#eachEntry(table, l2, (offset) => this.#checkCluster(offset));
      return true;
    });
    const clusters = (this.#end - headerBytes) / clusterSize;
    return {
      ...NOTHING_FOUND,
      corruptions: this.#corruptions,
      corruptionsFixed: this.#corruptionsFixed,
      checkErrors: this.#checkErrors,
      leaks: Math.max(0, clusters - this.#used.size),
      totalClusters: Math.ceil(size / clusterSize),
      allocatedClusters: this.#allocated,
      fragmentedClusters: this.#fragmented,
    };
  }

  #checkCluster(offset: number): boolean {
    if (offset === ZERO_CLUSTER) return true;
    const { clusterSize } = this.#header;
    this.#allocated++;
    if (this.#last !== 0 && offset !== this.#last + clusterSize) this.#fragmented++;
    this.#last = offset;
    if (!this.#isCluster(offset)) return false;
    this.#use(offset, clusterSize);
    return true;
  }

  #isCluster(offset: number): boolean {
    const { headerBytes, clusterSize } = this.#header;
    return offset >= headerBytes && offset < this.#end && isAligned(offset, clusterSize);
  }

  #use(offset: number, length: number): void {
    const { clusterSize } = this.#header;
    for (let at = offset; at < offset + length; at += clusterSize) {
      if (!this.#used.add(at / clusterSize)) this.#corruptions++;
    }
  }

  #clear(position: number): void {
    this.#storage.write(new IoBuffer(ENTRY_SIZE), 0, ENTRY_SIZE, position);
    this.#corruptionsFixed++;
  }

  #chunk(): IoBuffer {
    return new IoBuffer(Math.min(CHUNK_SIZE, this.#header.tableBytes));
  }

  /** The entries of the table at `offset` that are not 0: whether each is right. */
  #eachEntry(offset: number, chunk: IoBuffer, isRight: (entry: number) => boolean): void {
    for (let done = 0; done < this.#header.tableBytes; done += chunk.length) {
      if (this.#storage.read(chunk, 0, chunk.length, offset + done) < chunk.length) {
        this.#checkErrors++;
        return;
      }
      for (let at = 0; at < chunk.length; at += ENTRY_SIZE) {
        const entry = entryAt(chunk, at);
        if (entry === 0 || isRight(entry)) continue;
        if (this.#fix) this.#clear(offset + done + at);
        else this.#corruptions++;
      }
    }
  }
}

function entryAt({ view }: IoBuffer, at: number): number {
  return view.getUint32(at + 4, true) * TWO_32 + view.getUint32(at, true);
}
