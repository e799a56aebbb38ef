/** The words of `-o` as what a new qcow2 image is to be. */
import { ImageError } from '../errors.js';
import { isKnownDriver, type OptionValues } from '../image/create-options.js';
import type { Qcow2Options } from '../image/qcow2/create-options.js';

const VERSIONS = { '0.10': 2, v2: 2, '1.1': 3, v3: 3 } as const;
const PREALLOCATIONS = {
  off: 'off',
  metadata: 'metadata',
  falloc: 'falloc',
  full: 'full',
} as const;
const COMPRESSION_TYPES = { zlib: 'zlib', zstd: 'zstd' } as const;

/** Throws an ImageError where a word is none that the option takes; the options must fit each other yet. */
export function qcow2OptionsOf(values: OptionValues): Qcow2Options {
  const text = (name: string) => values.get(name)?.text;
  const backingFormat = text('backing_fmt');
  const version = wordOf(VERSIONS, 'version', text('compat'));
  if (backingFormat !== undefined && !isKnownDriver(backingFormat)) {
    throw refused('backing-fmt', backingFormat);
  }
  refuseEncryption(values);
  const preallocation = wordOf(PREALLOCATIONS, 'preallocation', text('preallocation'));
  const refcountBits = values.get('refcount_bits')?.number;
  if (refcountBits !== undefined && (refcountBits <= -(2 ** 63) || refcountBits >= 2 ** 63)) {
    throw invalid("Parameter 'refcount-bits' expects integer");
  }
  const compressionType = wordOf(COMPRESSION_TYPES, 'compression-type', text('compression_type'));
  return {
    size: values.get('size')?.number ?? 0,
    version,
    clusterSize: values.get('cluster_size')?.number,
    refcountBits,
    extendedL2: values.get('extended_l2')?.flag,
    lazyRefcounts: values.get('lazy_refcounts')?.flag,
    compressionType,
    backingFile: text('backing_file'),
    backingFormat,
    dataFile: text('data_file'),
    dataFileRaw: values.get('data_file_raw')?.flag,
    preallocation,
  };
}

/** `name`: as QEMU's schema has it, which its errors say. */
function wordOf<T>(
  words: Readonly<Record<string, T>>,
  name: string,
  text: string | undefined,
): T | undefined {
  if (text === undefined) return undefined;
  if (!Object.hasOwn(words, text)) throw refused(name, text);
  return words[text];
}

function refused(name: string, text: string): ImageError {
  return invalid(`Parameter '${name}' does not accept value '${text}'`);
}

/** Images are not encrypted here yet. Mistakes are told first. */
export function refuseEncryption(values: OptionValues): void {
  const legacy = values.get('encryption')?.flag === true;
  const format = values.get('encrypt.format')?.text;
  const names = [...values.keys()].filter((name) => name.startsWith('encrypt.'));
  if (!legacy && names.length === 0) return;
  if (legacy && format !== undefined) {
    throw invalid("'encrypt.format' and its alias 'encryption' can't be used at the same time");
  }
  if (!legacy && format === undefined) throw invalid("Parameter 'encrypt.format' is missing");
  if (format !== undefined && format !== 'aes' && format !== 'luks') {
    throw refused('format', format);
  }
  if (!values.has('encrypt.key-secret')) {
    throw invalid("Parameter 'encrypt.key-secret' is required for cipher");
  }
  throw new ImageError('unsupported', 'ENOTSUP', 'Encrypted images are not supported');
}

function invalid(message: string): ImageError {
  return new ImageError('invalid', 'EINVAL', message);
}
