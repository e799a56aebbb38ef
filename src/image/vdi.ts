/** VDI, VirtualBox's format: one table of blocks of 1 MiB. */
import { alignUp, isAligned } from '../codec/bits.js';
import { bytes, struct, u32, u64 } from '../codec/struct.js';
import { ImageError, invalid } from '../errors.js';
import type { Storage } from '../storage/storage.js';
import { BlockMapping } from './block-mapping.js';
import { type CheckResult, NOTHING_FOUND, type ReportFormat } from './check-result.js';
import { ClusterSet } from './cluster-set.js';
import { EXTENT, SECTOR_SIZE } from './extent.js';
import { defineFormat, PLAIN_FACTS } from './format.js';
import { eachWord, readExactly } from './read-bytes.js';
import { TableSlices } from './table-slices.js';

const HEADER = struct('VDI header', 'little', {
  text: bytes(64),
  signature: u32,
  version: u32,
  headerSize: u32,
  imageType: u32,
  flags: u32,
  description: bytes(256),
  mapOffset: u32,
  dataOffset: u32,
  cylinders: u32,
  heads: u32,
  sectors: u32,
  sectorSize: u32,
  unused: u32,
  diskSize: u64,
  blockSize: u32,
  blockExtra: u32,
  blocks: u32,
  blocksAllocated: u32,
  uuid: bytes(16),
  lastSnapshotUuid: bytes(16),
  linkUuid: bytes(16),
  parentUuid: bytes(16),
});

const SIGNATURE = 0xbeda107f;
const VERSION = 0x00010001;
const BLOCK_SIZE = 1 << 20;
const STATIC = 2;
const ENTRY_SIZE = 4;
/** Entries from this one on name no block. */
const NO_BLOCK = 0xffff_fffe;
const MAX_BLOCKS = 0x2000_0000;

interface Layout {
  readonly mapOffset: number;
  readonly dataOffset: number;
  readonly size: number;
  readonly blocks: number;
  readonly blocksAllocated: number;
}

export const VDI = defineFormat<Layout>({
  format: 'vdi',
  tableOrder: 'little',
  open: (storage) => {
    const { layout, isStatic } = readLayout(storage);
    const { size } = layout;
    const facts = { ...PLAIN_FACTS, size, clusterSize: BLOCK_SIZE, hasHostHoles: isStatic };
    return { facts, layout };
  },
  mapping: (layout, { storage, cache, file }) => {
    const tables = new TableSlices(cache, file);
    return new BlockMapping({
      storage,
      disk: layout,
      blockSize: BLOCK_SIZE,
      unit: SECTOR_SIZE,
      find: (block, found) => {
        const entry = tables.look32(layout.mapOffset + block * ENTRY_SIZE);
        found.run = 1;
        found.kind = entry >= NO_BLOCK ? EXTENT.ZERO : EXTENT.DATA;
        found.hostOffset = layout.dataOffset + entry * BLOCK_SIZE;
      },
    });
  },
  check: (layout, { storage }, report) => checkVdi(storage, layout, report),
});

function readLayout(storage: Storage): { layout: Layout; isStatic: boolean } {
  const raw = HEADER.read(readExactly(storage, 0, HEADER.size, 'VDI header').view, 0);
  if (raw.signature !== SIGNATURE) {
    const signature = raw.signature.toString(16).padStart(8, '0');
    throw invalid(`Image not in VDI format (bad signature ${signature})`);
  }
  if (raw.version !== VERSION) {
    throw unsupported(`version ${raw.version >>> 16}.${raw.version & 0xffff}`);
  }
  const { mapOffset, dataOffset, sectorSize, blockSize, blocks, diskSize } = raw;
  const hex = (value: number) => `0x${value.toString(16)}`;
  if (!isAligned(mapOffset, SECTOR_SIZE)) {
    throw unsupported(`unaligned block map offset ${hex(mapOffset)}`);
  }
  if (!isAligned(dataOffset, SECTOR_SIZE)) {
    throw unsupported(`unaligned data offset ${hex(dataOffset)}`);
  }
  if (sectorSize !== SECTOR_SIZE) throw unsupported(`sector size ${sectorSize} is not 512`);
  if (blockSize !== BLOCK_SIZE) throw unsupported(`block size ${blockSize} is not ${BLOCK_SIZE}`);
  const size = alignUp(diskSize, SECTOR_SIZE);
  if (size > blocks * BLOCK_SIZE) {
    throw unsupported(`disk size ${diskSize}, image bitmap has room for ${blocks * BLOCK_SIZE}`);
  }
  if (raw.linkUuid.some((byte) => byte !== 0)) throw unsupported('non-NULL link UUID');
  if (raw.parentUuid.some((byte) => byte !== 0)) throw unsupported('non-NULL parent UUID');
  if (blocks > MAX_BLOCKS) throw unsupported(`too many blocks ${blocks}, max is ${MAX_BLOCKS}`);
  if (mapOffset + blocks * ENTRY_SIZE > storage.size()) {
    throw invalid('VDI block map lies past the end of the file');
  }
  const { blocksAllocated } = raw;
  const layout = { mapOffset, dataOffset, size, blocks, blocksAllocated };
  return { layout, isStatic: raw.imageType === STATIC };
}

/** Blocks that lie nowhere, or that two entries name, and a wrong count of them are errors. */
function checkVdi(storage: Storage, layout: Layout, report: ReportFormat): CheckResult {
  const { mapOffset, blocks, blocksAllocated } = layout;
  const used = new ClusterSet();
  let corruptions = 0;
  const wrong: ReportFormat = (finding) => {
    corruptions++;
    report(finding);
  };
  let allocated = 0;
  eachWord(storage, mapOffset, blocks, 'block map', (entry, block) => {
    if (entry >= NO_BLOCK) return;
    if (entry >= blocks) {
      wrong({ kind: 'vdi-outside', block, entry });
      return;
    }
    allocated++;
    if (!used.add(entry)) wrong({ kind: 'vdi-twice', entry });
  });
  if (allocated !== blocksAllocated)
    wrong({ kind: 'vdi-count', allocated, stated: blocksAllocated });
  return { ...NOTHING_FOUND, corruptions };
}

function unsupported(what: string): ImageError {
  return new ImageError('unsupported', 'ENOTSUP', `unsupported VDI image (${what})`);
}
