/** The header extensions: between the header and the backing file's name, in the first cluster. */
import { alignUp } from '../../codec/bits.js';
import { ImageError, invalid } from '../../errors.js';
import {
  BITMAPS_EXTENSION,
  CRYPTO_HEADER_EXTENSION,
  EXTENSION_TYPE,
  FEATURE_NAME,
  HEADER_EXTENSION,
} from './layout.js';

export interface FeatureName {
  /** 0: incompatible, 1: compatible, 2: autoclear. */
  readonly type: number;
  readonly bit: number;
  readonly name: string;
}

export interface BitmapsExtension {
  readonly nbBitmaps: number;
  readonly bitmapDirectorySize: number;
  readonly bitmapDirectoryOffset: number;
}

export interface CryptoHeaderExtension {
  readonly offset: number;
  readonly length: number;
}

export interface Extensions {
  readonly backingFormat: string | null;
  readonly dataFile: string | null;
  readonly featureNames: readonly FeatureName[];
  readonly bitmaps: BitmapsExtension | null;
  readonly cryptoHeader: CryptoHeaderExtension | null;
  /** Types of those not known here; they are ignored. */
  readonly unknown: readonly number[];
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/**
 * Reads the extensions in `cluster` (the file's first bytes) from `start` up to `end`. A file that
 * ends earlier is read as if zeroes followed, which end the list.
 */
export function readExtensions(cluster: DataView, start: number, end: number): Extensions {
  const found: Mutable<Extensions> = {
    backingFormat: null,
    dataFile: null,
    featureNames: [],
    bitmaps: null,
    cryptoHeader: null,
    unknown: [],
  };
  const stop = Math.min(end, cluster.byteLength);
  let at = start;
  // As QEMU: one that begins before the end is read, though it lies over the backing file's name.
  while (at < stop && at + HEADER_EXTENSION.size <= cluster.byteLength) {
    const { type, length } = HEADER_EXTENSION.read(cluster, at);
    if (type === EXTENSION_TYPE.END) break;
    at += HEADER_EXTENSION.size;
    if (length > stop - at) {
      throw new ImageError('invalid', 'EINVAL', 'Header extension too large', {
        offset: at,
        limit: `type 0x${type.toString(16)}, ${length} bytes, at most ${Math.max(0, stop - at)}`,
      });
    }
    const data = new DataView(cluster.buffer, cluster.byteOffset + at, length);
    takeExtension(found, type, data);
    at += alignUp(length, 8);
  }
  return found;
}

function takeExtension(found: Mutable<Extensions>, type: number, data: DataView): void {
  switch (type) {
    case EXTENSION_TYPE.BACKING_FORMAT:
      // QEMU reads it as a C string: a NUL ends it.
      found.backingFormat = textOf(data).replace(/\0.*$/s, '');
      break;
    case EXTENSION_TYPE.DATA_FILE:
      found.dataFile = textOf(data);
      break;
    case EXTENSION_TYPE.FEATURE_TABLE:
      found.featureNames = featureNamesOf(data);
      break;
    case EXTENSION_TYPE.BITMAPS:
      found.bitmaps = bitmapsOf(data);
      break;
    case EXTENSION_TYPE.CRYPTO_HEADER:
      found.cryptoHeader = cryptoHeaderOf(data);
      break;
    default:
      found.unknown = [...found.unknown, type];
  }
}

function textOf(data: DataView): string {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString();
}

function featureNamesOf(data: DataView): FeatureName[] {
  const names: FeatureName[] = [];
  // As QEMU: an entry that is cut off goes on with zeroes.
  const whole = new Uint8Array(alignUp(data.byteLength, FEATURE_NAME.size));
  whole.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  const view = new DataView(whole.buffer);
  for (let at = 0; at < whole.length; at += FEATURE_NAME.size) {
    const { type, bit, name } = FEATURE_NAME.read(view, at);
    names.push({ type, bit, name: Buffer.from(name).toString().replace(/\0.*$/s, '') });
  }
  return names;
}

function bitmapsOf(data: DataView): BitmapsExtension {
  if (data.byteLength !== BITMAPS_EXTENSION.size) {
    throw invalid(`bitmaps_ext: Invalid extension length: ${data.byteLength}`);
  }
  const { reserved, ...bitmaps } = BITMAPS_EXTENSION.read(data, 0);
  if (reserved !== 0) throw invalid('bitmaps_ext: Reserved field is not zero');
  return bitmaps;
}

function cryptoHeaderOf(data: DataView): CryptoHeaderExtension {
  if (data.byteLength !== CRYPTO_HEADER_EXTENSION.size) {
    throw invalid(`CRYPTO header extension size ${data.byteLength}, but expected size 16`);
  }
  return CRYPTO_HEADER_EXTENSION.read(data, 0);
}
