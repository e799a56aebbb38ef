/**
 * Writing to a QED image. The need-check flag is set, durably, before the first change of tables, and cleared
 * when the image is left clean: a crash between the two leaves clusters that nothing refers to, and the flag.
 */
import { TWO_32 } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import { SECTOR_SIZE } from '../extent.js';
import type { FormatTarget } from '../format.js';
import { TableWriter, unsupported } from '../table-writer.js';
import type { BackingName, Preallocation } from '../writer.js';
import {
  largestDisk,
  type QedHeader,
  setNeedCheck,
  writeBacking,
  writeSize,
  ZERO_CLUSTER,
} from './header.js';

export class QedWriter extends TableWriter {
  readonly #header: QedHeader;

  constructor(header: QedHeader, target: FormatTarget) {
    const { clusterSize, tableBytes, l1TableOffset, headerBytes } = header;
    const tables = { l2Bytes: tableBytes, l1TableOffset, l1Bytes: tableBytes };
    const headers = [{ offset: 0, length: headerBytes }];
    const endOf = (low: number, high: number): number => {
      const offset = high * TWO_32 + low;
      return offset === ZERO_CLUSTER || offset === 0 ? 0 : offset + clusterSize;
    };
    const levels = { clusterSize, ...tables, headers, order: 'little', endOf } as const;
    super({ format: 'QED', levels, zeroEntry: ZERO_CLUSTER, cipher: null }, target);
    this.#header = header;
  }

  protected override beforeChange(): void {
    if (this.state.dirty) return;
    setNeedCheck(this.storage, true);
    this.storage.flush();
    this.state.dirty = true;
  }

  protected override leaveClean(): void {
    if (!this.state.dirty) return;
    setNeedCheck(this.storage, false);
    this.storage.flush();
    this.state.dirty = false;
  }

  override resize(size: number, preallocation: Preallocation = 'off'): void {
    const { state, storage, lock } = this;
    const old = state.size;
    if (preallocation !== 'off')
      throw unsupported(`Unsupported preallocation mode '${preallocation}'`);
    if (size < old) throw unsupported('Shrinking images is currently not supported');
    if (size % SECTOR_SIZE !== 0 || size > largestDisk(this.#header)) {
      throw new ImageError('invalid', 'EINVAL', 'Invalid image size specified');
    }
    this.change(() => {
      // What lies below the disk's old end only now would show through.
      const below = Math.min(size, this.disk.backing?.size ?? 0);
      if (below > old) {
        this.makeZero(old, below - old, false, true);
        this.tables.flush();
      }
      writeSize(storage, size);
      lock.beAlone();
      try {
        state.size = size;
        state.bumpGeneration();
      } finally {
        lock.letIn();
      }
    });
  }

  override changeBackingFile(backing: BackingName | null): void {
    this.reserved(() => {
      this.leaveFlushed();
      writeBacking(this.storage, backing);
      this.storage.flush();
    });
  }
}
