/**
 * The options that images are created with (`-o`), format by format: one table drives parsing, help and
 * what is printed of them. Those of amend and of convert's targets are the same.
 */
import { parseExactSize, SIZE_HINT } from '../codec/size-text.js';
import { ImageError, invalid } from '../errors.js';

export interface OptionSpec {
  readonly name: string;
  readonly type: 'str' | 'bool' | 'num' | 'size';
  readonly help: string;
  /** Its value where none is given, and is shown all the same. */
  readonly initial?: string;
}

/** In the order in which they are shown. */
export type OptionTable = readonly OptionSpec[];

const SIZE: OptionSpec = { name: 'size', type: 'size', help: 'Virtual disk size' };

const QCOW2: OptionTable = [
  {
    name: 'encryption',
    type: 'bool',
    help: "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
  },
  {
    name: 'encrypt.format',
    type: 'str',
    help: "Encrypt the image, format choices: 'aes', 'luks'",
  },
  {
    name: 'encrypt.key-secret',
    type: 'str',
    help: 'ID of secret providing qcow AES key or LUKS passphrase',
  },
  { name: 'encrypt.cipher-alg', type: 'str', help: 'Name of encryption cipher algorithm' },
  { name: 'encrypt.cipher-mode', type: 'str', help: 'Name of encryption cipher mode' },
  { name: 'encrypt.ivgen-alg', type: 'str', help: 'Name of IV generator algorithm' },
  { name: 'encrypt.ivgen-hash-alg', type: 'str', help: 'Name of IV generator hash algorithm' },
  { name: 'encrypt.hash-alg', type: 'str', help: 'Name of encryption hash algorithm' },
  { name: 'encrypt.iter-time', type: 'num', help: 'Time to spend in PBKDF in milliseconds' },
  { name: 'cluster_size', type: 'size', help: 'qcow2 cluster size', initial: '65536' },
  { name: 'extended_l2', type: 'bool', help: 'Extended L2 tables', initial: 'off' },
  {
    name: 'preallocation',
    type: 'str',
    help: 'Preallocation mode (allowed values: off, metadata, falloc, full)',
  },
  {
    name: 'compression_type',
    type: 'str',
    help: 'Compression method used for image cluster compression',
    initial: 'zlib',
  },
  SIZE,
  { name: 'compat', type: 'str', help: 'Compatibility level (v2 [0.10] or v3 [1.1])' },
  { name: 'backing_file', type: 'str', help: 'File name of a base image' },
  { name: 'backing_fmt', type: 'str', help: 'Image format of the base image' },
  { name: 'data_file', type: 'str', help: 'File name of an external data file' },
  {
    name: 'data_file_raw',
    type: 'bool',
    help: 'The external data file must stay valid as a raw image',
  },
  { name: 'lazy_refcounts', type: 'bool', help: 'Postpone refcount updates', initial: 'off' },
  {
    name: 'refcount_bits',
    type: 'num',
    help: 'Width of a reference count entry in bits',
    initial: '16',
  },
];

const QCOW1: OptionTable = [
  SIZE,
  { name: 'backing_file', type: 'str', help: 'File name of a base image' },
  { name: 'backing_fmt', type: 'str', help: 'Format of the backing image' },
  {
    name: 'encryption',
    type: 'bool',
    help: "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
  },
  { name: 'encrypt.format', type: 'str', help: "Encrypt the image, format choices: 'aes'" },
  {
    name: 'encrypt.key-secret',
    type: 'str',
    help: 'ID of the secret that provides the AES encryption key',
  },
];

const QED: OptionTable = [
  SIZE,
  { name: 'backing_file', type: 'str', help: 'File name of a base image' },
  { name: 'backing_fmt', type: 'str', help: 'Image format of the base image' },
  { name: 'cluster_size', type: 'size', help: 'Cluster size (in bytes)', initial: '65536' },
  { name: 'table_size', type: 'size', help: 'L1/L2 table size (in clusters)' },
];

const FILE: OptionTable = [
  SIZE,
  {
    name: 'nocow',
    type: 'bool',
    help: 'Turn off copy-on-write (valid only on btrfs)',
  },
  {
    name: 'preallocation',
    type: 'str',
    help: 'Preallocation mode (allowed values: off, falloc, full)',
  },
  {
    name: 'extent_size_hint',
    type: 'size',
    help: 'Extent size hint for the image file, 0 to disable',
  },
];

const HOST_DEVICE: OptionTable = [
  SIZE,
  { name: 'preallocation', type: 'str', help: 'Preallocation mode (allowed values: off)' },
];

/** What formats have, and the protocols that they stand on. */
const TABLES: ReadonlyMap<string, OptionTable> = new Map([
  ['qcow2', QCOW2],
  ['qed', QED],
  ['qcow', QCOW1],
  ['raw', [SIZE]],
  ['file', FILE],
  ['host_device', HOST_DEVICE],
]);

/** QEMU's other drivers: those that can make images. */
const FOREIGN_CREATABLE = wordSet(
  'gluster host_cdrom iscsi iser luks nbd nfs nvme parallels rbd ssh vdi vhdx vmdk vpc',
);

/** And those that cannot. */
const FOREIGN_OTHERS = wordSet(
  'blkdebug blklogwrites blkverify bochs cloop compress copy-before-write copy-on-read dmg ftp ftps ' +
    'http https null-aio null-co preallocate quorum replication snapshot-access throttle vvfat',
);

function wordSet(words: string): ReadonlySet<string> {
  return new Set(words.split(' '));
}

/** Whether QEMU can make images of that format, be it that we cannot. */
export function isCreatable(format: string): boolean {
  return TABLES.has(format) || FOREIGN_CREATABLE.has(format);
}

/** Whether QEMU has a format or protocol of that name. */
export function isKnownDriver(name: string): boolean {
  return isCreatable(name) || FOREIGN_OTHERS.has(name);
}

/** The options of a format alone. Throws an ImageError where there is none, or no images can be made. */
export function formatOptionTable(format: string): OptionTable {
  const table = TABLES.get(format);
  if (table !== undefined) return table;
  if (!isKnownDriver(format)) throw invalid(`Unknown file format '${format}'`);
  const message = `Format driver '${format}' does not support image creation`;
  throw new ImageError('unsupported', 'ENOTSUP', message, {
    limit: 'supported: qcow2, qed, qcow, raw',
  });
}

/** With those of where it lies, behind its own. */
export function createOptionTable(
  format: string,
  protocol: 'file' | 'host_device' = 'file',
): OptionTable {
  const own = formatOptionTable(format);
  const names = new Set(own.map(({ name }) => name));
  return [...own, ...TABLES.get(protocol)!.filter(({ name }) => !names.has(name))];
}

interface OptionValue {
  /** As it was given, and is shown. */
  readonly text: string;
  /** Of sizes and numbers: below 2^64; not exact above 2^53. */
  readonly number?: number;
  /** Of sizes: the same, exact. */
  readonly exact?: bigint;
  /** Of those that are on or off. */
  readonly flag?: boolean;
}

/** Options by name; those that have an initial value are always there. */
export type OptionValues = ReadonlyMap<string, OptionValue>;

/**
 * The values of `key=value` pairs, the last one of a key. A key without a value is `on`, or `off`
 * with `no` before its name. Throws an ImageError in QEMU's words.
 */
export function parseOptions(
  pairs: readonly (readonly [key: string, value: string | undefined])[],
  table: OptionTable,
): OptionValues {
  const values = new Map<string, OptionValue>();
  for (const option of table) {
    if (option.initial !== undefined) values.set(option.name, parseValue(option, option.initial));
  }
  for (const [key, value] of pairs) {
    const negated = value === undefined && key.startsWith('no');
    const name = negated ? key.slice(2) : key;
    const option = table.find((candidate) => candidate.name === name);
    if (option === undefined) throw invalid(`Invalid parameter '${name}'`);
    values.set(name, parseValue(option, value ?? (negated ? 'off' : 'on')));
  }
  return values;
}

/** The same values with one more. */
export function withOption(
  values: OptionValues,
  table: OptionTable,
  name: string,
  text: string,
): OptionValues {
  const option = table.find((candidate) => candidate.name === name)!;
  return new Map([...values, [name, parseValue(option, text)]]);
}

function parseValue({ name, type }: OptionSpec, text: string): OptionValue {
  switch (type) {
    case 'str':
      return { text };
    case 'bool':
      if (['on', 'yes', 'true', 'y'].includes(text)) return { text, flag: true };
      if (['off', 'no', 'false', 'n'].includes(text)) return { text, flag: false };
      throw invalid(`Parameter '${name}' expects 'on' or 'off'`);
    case 'size': {
      const exact = parseExactSize(text);
      if (exact === 'range') {
        throw invalid(`Value '${text}' is out of range for parameter '${name}'`);
      }
      if (exact === 'invalid') {
        throw invalid(`Parameter '${name}' expects a non-negative number below 2^64`, SIZE_HINT);
      }
      return { text: shown(exact), number: Number(exact), exact };
    }
    case 'num': {
      const number = parseNumber(text);
      if (number === undefined) throw invalid(`Parameter '${name}' expects a number`);
      if (number >= 1n << 64n || number <= -(1n << 64n)) {
        throw invalid(`Value '${text}' is too large for parameter '${name}'`);
      }
      return { text: shown(BigInt.asUintN(64, number)), number: Number(number) };
    }
  }
}

/** As C reads it with base 0. */
function parseNumber(text: string): bigint | undefined {
  const [, sign, digits] = /^\s*([+-]?)(0x[0-9a-f]+|[0-9]+)$/i.exec(text) ?? [];
  if (digits === undefined) return undefined;
  const octal = /^0[0-7]+$/.test(digits);
  if (!octal && /^0[0-9]/.test(digits)) return undefined;
  const value = BigInt(octal ? `0o${digits.slice(1)}` : digits.toLowerCase());
  return sign === '-' ? -value : value;
}

/** QEMU shows numbers with a sign. */
function shown(number: bigint): string {
  return String(BigInt.asIntN(64, number));
}

/** What the `Formatting` line says of them: commas of the values are doubled. */
export function describeOptions(values: OptionValues, table: OptionTable): string {
  return table
    .flatMap(({ name }) => {
      const value = values.get(name);
      return value === undefined ? [] : [`${name}=${value.text.replaceAll(',', ',,')}`];
    })
    .join(' ');
}

const TYPE_WORDS = { str: 'str', bool: 'bool (on/off)', num: 'num', size: 'size' } as const;
const HELP_COLUMN = 22;

/** One line for each option, by name. */
export function optionsHelp(table: OptionTable): string {
  return [...table]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ name, type, help }) => {
      return `  ${`${name}=<${TYPE_WORDS[type]}>`.padEnd(HELP_COLUMN)} - ${help}\n`;
    })
    .join('');
}
