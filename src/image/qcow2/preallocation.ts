/** Whether an image's clusters are, in large part, set aside in tables alone. */
import type { Storage } from '../../storage/storage.js';
import type { Qcow2Header } from './header.js';
import { countsPerBlock, readCount } from './refcount-compare.js';
import { readRefcountTable, TableReader } from './table-reader.js';

/**
 * Whether the file has so many fewer blocks on the host than clusters in use that some of those
 * clusters must be holes: as after `preallocation=metadata`. Only then is it worth asking the host for
 * holes inside of clusters. The margin, two clusters and a tenth, is QEMU's. `allocated`: bytes that
 * the host has set aside for the file.
 */
export function hasMetadataPreallocation(
  storage: Storage,
  header: Qcow2Header,
  allocated: number,
): boolean {
  const { clusterSize, refcountBits } = header.geometry;
  const real = Math.floor(allocated / clusterSize);
  const enough = Math.max(Math.floor((real * 10) / 9), real + 2);
  let left = Math.ceil(storage.size() / clusterSize);
  if (left < enough) return false;
  const perBlock = countsPerBlock(header.geometry);
  const reader = new TableReader(storage);
  const { view } = reader.buffer;
  let used = 0;
  for (const offset of readRefcountTable(storage, header)) {
    if (left <= 0 || used >= enough) break;
    const counts = Math.min(perBlock, left);
    left -= counts;
    if (offset === 0) continue;
    reader.forEachBlock(offset, clusterSize, (length) => {
      const present = Math.min(counts, Math.floor((length * 8) / refcountBits));
      for (let n = 0; n < present; n++) if (readCount(view, refcountBits, n) !== 0) used++;
    });
  }
  return used >= enough;
}
