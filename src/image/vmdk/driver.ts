/**
 * VMDK: a sparse file with its descriptor in it (monolithicSparse; streamOptimized, whose grains are
 * compressed), or a descriptor that names the files of the disk.
 */
import { invalid } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import { SECTOR_SIZE } from '../extent.js';
import { defineFormat, type FormatFactList, type OpenHow } from '../format.js';
import { checkVmdk } from './check.js';
import {
  createTypeIn,
  EMBEDDED_SIZE,
  extentLines,
  type ExtentLine,
  identityIn,
  MAX_DESCRIPTOR,
  readText,
} from './descriptor.js';
import type { DiskExtent, ExtentBody, VmdkLayout } from './layout.js';
import { vmdkMapping } from './mapping.js';
import { seSparseExtent } from './se-sparse.js';
import {
  checkMagic,
  cowdExtent,
  MAGIC,
  magicOf,
  notVmdk,
  readSparseHeader,
  sparseExtent,
} from './sparse-header.js';

/** Where a sparse file has its descriptor. */
const EMBEDDED_AT = SECTOR_SIZE;

type OpenExtent = OpenHow['openExtent'];

export const VMDK = defineFormat<VmdkLayout>({
  format: 'vmdk',
  tableOrder: 'little',
  open: (storage, { openExtent }) => {
    const { extents, createType, text } = readExtents(storage, openExtent);
    const { cid, parentCid, parent } = identityIn(text);
    const size = extents.reduce((sum, { body }) => sum + body.size, 0);
    if (size > Number.MAX_SAFE_INTEGER) throw invalid('VMDK capacity is too large');
    const facts = {
      size,
      clusterSize: clusterSizeOf(extents),
      backing: parent === null ? null : { name: parent, format: 'vmdk' },
      dirty: false,
      encrypted: false,
      hasHostHoles: extents.every(({ body }) => body.kind === 'flat'),
    };
    return { facts, layout: { size, extents, cid, parentCid, createType } };
  },
  mapping: vmdkMapping,
  check: checkVmdk,
  refusesBacking: ({ parentCid }, below) => {
    const other = below?.layout as VmdkLayout | undefined;
    if (below?.format === 'vmdk' && other?.cid === parentCid) return null;
    const hex = (id: number) => id.toString(16).padStart(8, '0');
    const found = below?.format === 'vmdk' ? `has CID ${hex(other!.cid)}` : 'is no VMDK image';
    return `its parentCID is ${hex(parentCid)}, but its backing file ${found}`;
  },
  specific: factsOf,
});

interface Found {
  readonly extents: readonly DiskExtent[];
  readonly createType: string;
  /** The descriptor. */
  readonly text: string;
}

function readExtents(storage: Storage, openExtent: OpenExtent): Found {
  const magic = magicOf(storage);
  if (magic !== MAGIC.HOSTED && magic !== MAGIC.ESX) {
    const text = readText(storage, 0, MAX_DESCRIPTOR);
    return { ...described(text, openExtent), text };
  }
  const text = readText(storage, EMBEDDED_AT, EMBEDDED_SIZE);
  const own = (body: ExtentBody): DiskExtent[] => [{ body, file: null, type: '' }];
  if (magic === MAGIC.ESX) {
    return { extents: own(cowdExtent(storage)), createType: '', text };
  }
  const header = readSparseHeader(storage);
  checkMagic(header);
  const { capacity, descriptorOffset } = header;
  if (capacity === 0 && descriptorOffset !== 0) {
    const whole = readText(storage, descriptorOffset * SECTOR_SIZE, MAX_DESCRIPTOR);
    return { ...described(whole, openExtent), text };
  }
  const body = sparseExtent(storage, header);
  const createType = body.compressed ? 'streamOptimized' : 'monolithicSparse';
  return { extents: own(body), createType, text };
}

function described(text: string, openExtent: OpenExtent): Omit<Found, 'text'> {
  const createType = createTypeIn(text);
  const extents = extentLines(text).map((line) => {
    const { file, storage } = openExtent(line.name);
    return { body: bodyOf(line, storage), file, type: line.type };
  });
  return { extents, createType };
}

function bodyOf({ type, sectors, start }: ExtentLine, storage: Storage): ExtentBody {
  if (type === 'FLAT' || type === 'VMFS') {
    return { kind: 'flat', size: sectors * SECTOR_SIZE, start: start * SECTOR_SIZE };
  }
  if (type === 'SESPARSE') return seSparseExtent(storage);
  const magic = magicOf(storage);
  if (magic === MAGIC.ESX) return cowdExtent(storage);
  if (magic !== MAGIC.HOSTED) throw notVmdk();
  const header = readSparseHeader(storage);
  checkMagic(header);
  if (header.capacity === 0) throw invalid(`VMDK extent '${storage.name}' holds no disk`);
  return sparseExtent(storage, header);
}

/** Null where extents are of different kinds, or have no grains. */
function clusterSizeOf(extents: readonly DiskExtent[]): number | null {
  const [first, ...others] = extents.map(({ body }) =>
    body.kind === 'flat' ? null : body.grainSize,
  );
  const isCompressed = (extent: DiskExtent) => isPacked(extent.body);
  const alike = extents.every((extent) => isCompressed(extent) === isCompressed(extents[0]!));
  return alike && others.every((size) => size === first) ? (first ?? null) : null;
}

function isPacked(body: ExtentBody): boolean {
  return body.kind === 'sparse' && body.compressed;
}

function factsOf(
  { cid, parentCid, createType, extents }: VmdkLayout,
  filename: string,
  files: readonly string[],
): FormatFactList {
  return {
    cid,
    'parent-cid': parentCid,
    'create-type': createType,
    extents: extents.map(({ body, file, type }) => ({
      compressed: isPacked(body) ? true : undefined,
      'virtual-size': body.size,
      filename: file === null ? filename : files[file]!,
      'cluster-size': body.kind === 'flat' ? undefined : body.grainSize,
      format: type,
    })),
  };
}
