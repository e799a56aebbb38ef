/** What a new image is to be, and the rules for that, in QEMU's words. */
import { ImageError } from '../../errors.js';
import type { Preallocation } from '../writer.js';
import { checkLuksOptions, type LuksOptions } from '../crypto/luks-write.js';
import { LIMIT } from './layout.js';

export interface Qcow2Options {
  /** The disk's size in bytes; rounded up to whole sectors of 512, as QEMU does. */
  readonly size: number;
  /** Of the format; 3 where it is not given. */
  readonly version?: 2 | 3 | undefined;
  /** Bytes, a power of two from 512 to 2 MiB; 64 KiB where it is not given. */
  readonly clusterSize?: number | undefined;
  /** A power of two up to 64; 16 where it is not given. */
  readonly refcountBits?: number | undefined;
  readonly extendedL2?: boolean | undefined;
  /** Keep refcounts loosely, and rebuild them after a crash. */
  readonly lazyRefcounts?: boolean | undefined;
  readonly compressionType?: 'zlib' | 'zstd' | undefined;
  /** The backing file as the image is to name it: from the image's folder, or absolute. */
  readonly backingFile?: string | undefined;
  /** Its format, without which no backing file is taken: probing can be fooled. */
  readonly backingFormat?: string | undefined;
  /** The external data file, as the image is to name it. */
  readonly dataFile?: string | undefined;
  /** It shows the disk to who reads it alone. */
  readonly dataFileRaw?: boolean | undefined;
  readonly preallocation?: Preallocation | undefined;
  readonly encryption?: NewEncryption | undefined;
}

/** How a new image is encrypted. */
export interface NewEncryption {
  /** LUKS; null for the older AES. */
  readonly luks: LuksOptions | null;
  /** The id of its secret. */
  readonly secret: string | undefined;
}

export const DEFAULT_CLUSTER_SIZE = 65536;
const DEFAULT_REFCOUNT_BITS = 16;
const NEWER = '(use version=v3 or greater)';

/** The options with those that were not given. */
export interface CheckedOptions extends Qcow2Options {
  readonly version: 2 | 3;
  readonly clusterSize: number;
  readonly refcountBits: number;
  readonly extendedL2: boolean;
  readonly preallocation: Preallocation;
}

/** Throws an ImageError where the options break a rule, the first one that QEMU names. */
export function checkOptions(options: Qcow2Options): CheckedOptions {
  const {
    version = 3,
    clusterSize = DEFAULT_CLUSTER_SIZE,
    refcountBits = DEFAULT_REFCOUNT_BITS,
    extendedL2 = false,
    dataFileRaw = false,
  } = options;
  checkClusterSize(clusterSize);
  if (!(options.size >= 0)) throw invalid(`Invalid image size ${options.size}`);
  if (extendedL2) checkExtendedL2(version, clusterSize);
  // A raw data file is the disk at any time only if it has a place for all of it.
  const preallocation =
    dataFileRaw && (options.preallocation ?? 'off') === 'off'
      ? 'metadata'
      : (options.preallocation ?? 'off');
  checkBacking(options, extendedL2, preallocation);
  if (version < 3 && options.lazyRefcounts === true) {
    throw invalid(`Lazy refcounts only supported with compatibility level 1.1 and above ${NEWER}`);
  }
  checkRefcountBits(version, refcountBits);
  checkDataFile(options, version);
  if (version < 3 && options.compressionType === 'zstd') {
    throw invalid(
      `Non-zlib compression type is only supported with compatibility level 1.1 and above ${NEWER}`,
    );
  }
  if (options.encryption !== undefined) checkEncryption(options.encryption);
  return { ...options, version, clusterSize, refcountBits, extendedL2, preallocation };
}

function checkEncryption({ secret, luks }: NewEncryption): void {
  if (secret === undefined) throw invalid("Parameter 'encrypt.key-secret' is required for cipher");
  if (luks !== null) checkLuksOptions(luks);
}

export function checkClusterSize(clusterSize: number): void {
  const bits = Math.log2(clusterSize);
  const fits = bits >= LIMIT.MIN_CLUSTER_BITS && bits <= LIMIT.MAX_CLUSTER_BITS;
  if (fits && Number.isInteger(bits)) return;
  throw invalid('Cluster size must be a power of two between 512 and 2048k', `${clusterSize}`);
}

/** `version`: what is asked of the version is not checked where it is not given. */
export function checkExtendedL2(version: 2 | 3 | undefined, clusterSize: number): void {
  if (version === 2) {
    throw invalid(
      `Extended L2 entries are only supported with compatibility level 1.1 and above ${NEWER}`,
    );
  }
  const least = 2 ** LIMIT.MIN_EXTENDED_L2_CLUSTER_BITS;
  if (clusterSize >= least) return;
  throw invalid(
    `Extended L2 entries are only supported with cluster sizes of at least ${least} bytes`,
  );
}

function checkBacking(
  options: Qcow2Options,
  extendedL2: boolean,
  preallocation: Preallocation,
): void {
  const { backingFile, backingFormat, dataFile, dataFileRaw } = options;
  if (dataFileRaw === true && dataFile === undefined) {
    throw invalid('data-file-raw requires data-file');
  }
  if (dataFileRaw === true && backingFile !== undefined) {
    throw invalid('Backing file and data-file-raw cannot be used at the same time');
  }
  if (preallocation !== 'off' && backingFile !== undefined && !extendedL2) {
    throw invalid(
      'Backing file and preallocation can only be used at the same time if extended_l2 is on',
    );
  }
  if (backingFormat !== undefined && backingFile === undefined) {
    throw invalid('Backing format cannot be used without backing file');
  }
  if (backingFile === undefined) return;
  if (backingFile === '' || backingFile.includes('\0')) {
    throw invalid('Backing file name is empty or holds a NUL');
  }
  if (backingFormat === undefined || backingFormat === '') {
    throw invalid('Backing file specified without backing format');
  }
}

/** `newer`: how to ask for a newer version. */
export function checkRefcountBits(version: 2 | 3, bits: number, newer = NEWER): void {
  if (!(bits >= 1 && bits <= 64 && Number.isInteger(Math.log2(bits)))) {
    throw invalid('Refcount width must be a power of two and may not exceed 64 bits');
  }
  if (version < 3 && bits !== DEFAULT_REFCOUNT_BITS) {
    throw invalid(
      `Different refcount widths than 16 bits require compatibility level 1.1 or above ${newer}`,
    );
  }
}

function checkDataFile({ dataFile }: Qcow2Options, version: 2 | 3): void {
  if (dataFile === undefined) return;
  if (version < 3) {
    throw invalid(
      `External data files are only supported with compatibility level 1.1 and above ${NEWER}`,
    );
  }
  if (dataFile === '' || dataFile.includes('\0')) {
    throw invalid('Data file name is empty or holds a NUL');
  }
}

function invalid(message: string, limit?: string): ImageError {
  return new ImageError('invalid', 'EINVAL', message, limit === undefined ? {} : { limit });
}
