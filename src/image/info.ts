/** What an image's headers tell of it: the facts that `info` prints. No data is read. */
import { fstatSync } from 'node:fs';
import { ImageError } from '../errors.js';
import {
  filesOf,
  layerClusterSize,
  type LayerDescription,
  layerSize,
  namedBacking,
  type Qcow2Description,
} from './description.js';
import type { Bitmap } from './qcow2/bitmaps.js';
import { storageOf } from './file-storage.js';
import type { FormatFactList } from './format.js';
import { formatDriver } from './formats.js';
import { luksHeaderOf } from './qcow2/encryption.js';
import { hasBit } from './qcow2/features.js';
import {
  AUTOCLEAR,
  COMPATIBLE,
  COMPRESSION_TYPE,
  CRYPT_METHOD,
  INCOMPATIBLE,
} from './qcow2/layout.js';
import type { LuksFacts } from './crypto/luks-header.js';
import type { Snapshot } from './qcow2/snapshots.js';
import { fullName } from './file-names.js';

/** Bytes that QEMU keeps of a snapshot's ID and name; their last is a NUL. */
const ID_SIZE = 128;
const NAME_SIZE = 256;

/** `st_blocks` counts these, whatever the file system's block size. */
const BLOCK_SIZE = 512;

export interface BackingFacts {
  /** As the image names it. */
  readonly name: string;
  /** The same, relative to the working directory instead of the image's. */
  readonly fullName: string;
  readonly format: string | null;
}

export interface Qcow2Facts {
  readonly version: number;
  readonly compressionType: 'zlib' | 'zstd';
  readonly lazyRefcounts: boolean;
  readonly refcountBits: number;
  readonly corrupt: boolean;
  readonly extendedL2: boolean;
  readonly dataFile: string | null;
  /** Null: it has no data file, named or not. */
  readonly dataFileRaw: boolean | null;
  readonly bitmaps: readonly Bitmap[];
  readonly encrypt: { readonly format: 'aes' } | LuksFacts | null;
}

/** Facts of one image file, without those of its backing files. Sizes are bytes. */
export interface ImageInfo {
  /** As the user named it. */
  readonly filename: string;
  readonly format: string;
  readonly virtualSize: number;
  /** What the file takes on the host; neither backing nor data file counts. */
  readonly actualSize: number;
  /** Null where QEMU does not tell it. */
  readonly dirty: boolean | null;
  readonly encrypted: boolean;
  readonly clusterSize: number | null;
  readonly backing: BackingFacts | null;
  readonly snapshots: readonly Snapshot[];
  readonly qcow2: Qcow2Facts | null;
  /** What other formats tell beside. */
  readonly specific: FormatFactList | null;
}

/** Collects the facts of an opened layer. Throws an ImageError where its LUKS header is bad. */
export function collectInfo(layer: LayerDescription, filename: string): ImageInfo {
  // As QEMU counts: extents are a part of the image, a data file is none.
  const files = layer.format === 'qcow2' ? [layer.file] : filesOf(layer);
  const blocks = files.reduce((sum, { fd }) => sum + fstatSync(fd).blocks, 0);
  const common = {
    filename,
    format: (layer.format === 'raw' ? layer.driver : undefined) ?? layer.format,
    virtualSize: layerSize(layer),
    actualSize: blocks * BLOCK_SIZE,
    clusterSize: layerClusterSize(layer),
    backing: backingFacts(layer, filename),
  };
  if (layer.format !== 'qcow2') {
    const facts = layer.format === 'raw' ? undefined : layer.facts;
    const specific = layer.format === 'raw' ? undefined : formatDriver(layer.format)?.specific;
    const own =
      layer.format === 'raw'
        ? undefined
        : specific?.(
            layer,
            filename,
            layer.extents.map(({ path }) => path),
          );
    // QEMU tells of qcow2 alone that it was not closed.
    return {
      ...common,
      dirty: facts?.dirtyUntold === true ? null : false,
      encrypted: facts?.encrypted === true,
      snapshots: [],
      qcow2: null,
      specific: own ?? null,
    };
  }
  const { header } = layer;
  return {
    ...common,
    dirty: hasBit(header.incompatibleFeatures, INCOMPATIBLE.DIRTY),
    encrypted: header.cryptMethod !== CRYPT_METHOD.NONE,
    snapshots: layer.snapshots.map((snapshot) => ({
      ...snapshot,
      id: cString(snapshot.id, ID_SIZE),
      name: cString(snapshot.name, NAME_SIZE),
    })),
    qcow2: qcow2Facts(layer),
    specific: null,
  };
}

function backingFacts(layer: LayerDescription, filename: string): BackingFacts | null {
  const named = namedBacking(layer);
  const name = named === null ? '' : cString(named.name);
  if (named === null || name === '') return null;
  const format = named.format === null ? null : cString(named.format);
  return { name, fullName: fullName(filename, name), format };
}

function qcow2Facts(layer: Qcow2Description): Qcow2Facts {
  const { header, bitmaps } = layer;
  const { incompatibleFeatures, compatibleFeatures, autoclearFeatures, geometry } = header;
  const external = hasBit(incompatibleFeatures, INCOMPATIBLE.DATA_FILE);
  const dataFile = external ? header.extensions.dataFile : null;
  return {
    version: header.version,
    compressionType: header.compressionType === COMPRESSION_TYPE.ZSTD ? 'zstd' : 'zlib',
    lazyRefcounts: hasBit(compatibleFeatures, COMPATIBLE.LAZY_REFCOUNTS),
    refcountBits: geometry.refcountBits,
    corrupt: hasBit(incompatibleFeatures, INCOMPATIBLE.CORRUPT),
    extendedL2: geometry.extendedL2,
    dataFile: dataFile === null ? null : cString(dataFile),
    dataFileRaw: external ? hasBit(autoclearFeatures, AUTOCLEAR.DATA_FILE_RAW) : null,
    bitmaps: bitmaps.map((bitmap) => ({ ...bitmap, name: cString(bitmap.name) })),
    encrypt: encryptFacts(layer),
  };
}

function encryptFacts({ header, file }: Qcow2Description): Qcow2Facts['encrypt'] {
  try {
    const luks = luksHeaderOf(storageOf(file), header);
    if (luks !== null) return luks;
    return header.cryptMethod === CRYPT_METHOD.AES ? { format: 'aes' } : null;
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    const { limit } = error.context;
    const context = { path: file.path, ...(limit === undefined ? {} : { limit }) };
    const message = `Could not open '${file.path}': ${error.message}`;
    throw new ImageError('invalid', 'EINVAL', message, context);
  }
}

/** What C sees of a text: up to the first NUL, and at most `size` bytes with that. */
function cString(text: string, size = Number.POSITIVE_INFINITY): string {
  const end = text.indexOf('\0');
  const whole = end < 0 ? text : text.slice(0, end);
  if (Buffer.byteLength(whole) < size) return whole;
  return Buffer.from(whole)
    .subarray(0, size - 1)
    .toString();
}
