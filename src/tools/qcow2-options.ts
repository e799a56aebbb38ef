/** The words of `-o` as what a new qcow2 image is to be. */
import { type ImageError, invalid } from '../errors.js';
import { isKnownDriver, type OptionValues } from '../image/create-options.js';
import type { LuksOptions } from '../image/crypto/luks-write.js';
import { preallocationNamed } from '../image/writer.js';
import type { NewEncryption, Qcow2Options } from '../image/qcow2/create-options.js';

const VERSIONS = { '0.10': 2, v2: 2, '1.1': 3, v3: 3 } as const;
const COMPRESSION_TYPES = { zlib: 'zlib', zstd: 'zstd' } as const;

/** Throws an ImageError where a word is none that the option takes; the options must fit each other yet. */
export function qcow2OptionsOf(values: OptionValues): Qcow2Options {
  const text = (name: string) => values.get(name)?.text;
  const backingFormat = text('backing_fmt');
  const version = wordOf(VERSIONS, 'version', text('compat'));
  if (backingFormat !== undefined && !isKnownDriver(backingFormat)) {
    throw refused('backing-fmt', backingFormat);
  }
  const encryption = encryptionOf(values);
  const mode = text('preallocation');
  const preallocation = mode === undefined ? undefined : preallocationNamed(mode);
  if (mode !== undefined && preallocation === undefined) throw refused('preallocation', mode);
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
    encryption,
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

/** Undefined where the image is not to be encrypted. */
export function encryptionOf(values: OptionValues): NewEncryption | undefined {
  const legacy = values.get('encryption')?.flag === true;
  const stated = values.get('encrypt.format')?.text;
  const names = [...values.keys()].filter((name) => name.startsWith('encrypt.'));
  if (!legacy && names.length === 0) return undefined;
  if (legacy && stated !== undefined) {
    throw invalid("'encrypt.format' and its alias 'encryption' can't be used at the same time");
  }
  const format = legacy ? 'aes' : stated;
  if (format === undefined) throw invalid("Parameter 'encrypt.format' is missing");
  if (format !== 'aes' && format !== 'luks') throw refused('format', format);
  const secret = values.get('encrypt.key-secret')?.text;
  if (format === 'luks') return { luks: luksOptionsOf(values), secret };
  const unexpected = LUKS_NAMES.find((name) => values.has(name));
  if (unexpected !== undefined) throw invalid(`Parameter '${unexpected}' is unexpected`);
  return { luks: null, secret };
}

const LUKS_NAMES = [
  'cipher-alg',
  'cipher-mode',
  'ivgen-alg',
  'ivgen-hash-alg',
  'hash-alg',
  'iter-time',
].map((name) => `encrypt.${name}`);
const CIPHERS = words(
  'aes-128 aes-192 aes-256 des 3des cast5-128 serpent-128 serpent-192 serpent-256 ' +
    'twofish-128 twofish-192 twofish-256',
);
const MODES = { ecb: 'ecb', cbc: 'cbc', xts: 'xts', ctr: 'ctr' } as const;
const GENERATORS = { plain: 'plain', plain64: 'plain64', essiv: 'essiv' } as const;
const HASH_WORDS = words('md5 sha1 sha224 sha256 sha384 sha512 ripemd160');
/** QEMU's. Milliseconds. */
const ITER_TIME = 2000;

function words(text: string): Readonly<Record<string, string>> {
  return Object.fromEntries(text.split(' ').map((word) => [word, word]));
}

function luksOptionsOf(values: OptionValues): LuksOptions {
  const word = <T>(known: Readonly<Record<string, T>>, name: string) =>
    wordOf(known, name, values.get(`encrypt.${name}`)?.text);
  const options = {
    cipherAlg: word(CIPHERS, 'cipher-alg') ?? 'aes-256',
    mode: word(MODES, 'cipher-mode') ?? 'xts',
    ivGenerator: word(GENERATORS, 'ivgen-alg') ?? 'plain64',
    ivHash: word(HASH_WORDS, 'ivgen-hash-alg') ?? 'sha256',
    hash: word(HASH_WORDS, 'hash-alg') ?? 'sha256',
  };
  const iterTime = iterTimeOf(values) ?? ITER_TIME;
  return { ...options, iterTime };
}

/** Milliseconds. */
export function iterTimeOf(values: OptionValues): number | undefined {
  const time = values.get('encrypt.iter-time')?.number;
  if (time === undefined || Math.abs(time) < 2 ** 63) return time;
  throw invalid("Parameter 'encrypt.iter-time' expects integer");
}
