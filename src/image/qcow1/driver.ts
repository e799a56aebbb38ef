/** qcow, version 1: two levels of tables; clusters may be compressed, or all of them encrypted. */
import { TWO_32 } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import { BlockMapping, type FindBlock } from '../block-mapping.js';
import type { ImageKey } from '../crypto/cipher-key.js';
import { sectorCipher } from '../crypto/sector-cipher.js';
import { EXTENT } from '../extent.js';
import { defineFormat, type FormatSource } from '../format.js';
import { ClusterDecompressor } from '../qcow2/compression.js';
import { COMPRESSION_TYPE } from '../qcow2/layout.js';
import type { MutableStorage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import { TableSlices } from '../table-slices.js';
import { isZero } from '../zeroes.js';
import {
  COMPRESSED,
  compressedLength,
  compressedOffset,
  ENTRY_SIZE,
  l1BytesOf,
  MAGIC,
  type Qcow1Header,
  readHeader,
} from './header.js';
import { Qcow1Writer } from './writer.js';

/** Bytes of the L1 table that are looked at at once. */
const CHUNK_SIZE = 1 << 20;

interface Layout {
  readonly header: Qcow1Header;
  readonly key: ImageKey | null;
}

export const QCOW1 = defineFormat<Layout>({
  format: 'qcow',
  tableOrder: 'big64',
  open: (storage, how) => {
    const header = readHeader(storage, how.unfinished);
    const { size, clusterSize, encrypted, backingName } = header;
    const backing = backingName === null ? null : { name: backingName, format: null };
    const facts = { size, clusterSize, backing, dirty: false, encrypted };
    return { facts, layout: { header, key: encrypted ? how.key() : null } };
  },
  mapping: ({ header, key }, source) => {
    const { clusterSize } = header;
    const { storage, file, disk } = source;
    const decompressor = new ClusterDecompressor(() => disk?.compressedEpoch ?? 0);
    const packed = { storage, file, compressionType: COMPRESSION_TYPE.ZLIB, clusterSize };
    return new BlockMapping({
      storage,
      disk: disk ?? header,
      blockSize: clusterSize,
      unit: clusterSize,
      find: finder(header, source),
      cipher: key === null ? null : sectorCipher(key),
      decompress: (offset, length) => decompressor.cluster(packed, offset, length),
    });
  },
  prepare: (storage, parts) => {
    completeL1(storage, parts.layout.header);
    return parts;
  },
  writer: ({ header, key }, target) =>
    new Qcow1Writer(header, key === null ? null : sectorCipher(key), target),
  magic: MAGIC,
});

/**
 * Nothing new may come to where the L1 table would lie: a file that lacks its end gets it. Throws EIO where that is
 * of no image that was only just made, but of one that was cut, or says to be larger than it is.
 */
function completeL1(storage: MutableStorage, header: Qcow1Header): void {
  const { l1TableOffset } = header;
  const [size, end] = [storage.size(), l1TableOffset + l1BytesOf(header)];
  if (size >= end) return;
  const chunk = new IoBuffer(CHUNK_SIZE);
  let isEmpty = size >= l1TableOffset;
  for (let at = l1TableOffset; at < size && isEmpty; at += chunk.length) {
    const n = storage.read(chunk, 0, Math.min(chunk.length, size - at), at);
    isEmpty = isZero(chunk, 0, n);
  }
  if (isEmpty) storage.truncate(end);
  else {
    const message = `${storage.name}: the L1 table lies behind the end of the file`;
    throw new ImageError('corrupt', 'EIO', message, { path: storage.name, offset: size });
  }
}

function finder(header: Qcow1Header, { storage, cache, file }: FormatSource): FindBlock {
  const { l1TableOffset, l2Entries } = header;
  const tables = new TableSlices(cache, file);
  const check = (offset: number, what: string, position: number, unit = 1): void => {
    if (offset <= Number.MAX_SAFE_INTEGER && offset % unit === 0) return;
    const place = `entry at 0x${position.toString(16)}`;
    const message = `${storage.name}: ${what} offset 0x${offset.toString(16)} is invalid (${place})`;
    throw new ImageError('corrupt', 'EIO', message, { path: storage.name, offset: position });
  };
  return (block, found) => {
    const l1Index = Math.floor(block / l2Entries);
    const index = block - l1Index * l2Entries;
    const l1Position = l1TableOffset + l1Index * ENTRY_SIZE;
    tables.look64(l1Position, l1TableOffset);
    const l2Table = tables.high * TWO_32 + tables.low;
    found.kind = EXTENT.UNALLOCATED;
    found.run = l2Entries - index;
    if (l2Table === 0) return;
    check(l2Table, 'L2 table', l1Position, ENTRY_SIZE);
    const position = l2Table + index * ENTRY_SIZE;
    tables.look64(position, l2Table);
    const { low, high } = tables;
    found.run = 1;
    if ((low | high) === 0) return;
    if (high < COMPRESSED) {
      found.kind = EXTENT.DATA;
      found.hostOffset = high * TWO_32 + low;
      check(found.hostOffset, 'cluster', position);
      return;
    }
    found.kind = EXTENT.COMPRESSED;
    found.hostOffset = compressedOffset(header, low, high);
    found.hostLength = compressedLength(header, high);
    check(found.hostOffset, 'cluster', position);
  };
}
