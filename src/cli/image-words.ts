/**
 * What users call an image by: a file's name, `json:{…}`, or `driver=…,file.filename=…`. Options that
 * change nothing of what is read and written here (how QEMU does its I/O) are checked and accepted.
 */
import { ImageError } from '../errors.js';
import { parseSize } from '../codec/size-text.js';
import { protocolOf } from '../image/file-names.js';
import type { WriteOptions } from '../image/write-options.js';
import { FOREIGN_FORMATS } from '../image/open.js';
import type { EncryptionSpec, ImageSpec, Window } from '../image/spec.js';
import { type OptionMap, parseJsonOptions } from './json-options.js';
import { parseKeyValues } from './key-values.js';

const JSON_PREFIX = 'json:';
const FILE_DRIVERS = ['file', 'host_device'];
const FORMAT_DRIVERS = ['qcow2', 'raw'];
const LEAST_CACHE = 1 << 20;
/** Maps a disk of 8 TiB whole: more is of no use. */
const LARGEST_CACHE = 1 << 30;

/** A name or `json:{…}`. Throws an ImageError in QEMU's words. */
export function parseImageName(word: string): ImageSpec {
  return explained(word, () => {
    if (word.startsWith(JSON_PREFIX)) {
      return nodeSpec(new Options(parseJsonOptions(word.slice(JSON_PREFIX.length))), word);
    }
    const path = plainPath(word);
    if (path === '') throw invalid("The 'file' block driver requires a file name");
    return { path, filename: word };
  });
}

/** `driver=…,file.filename=…`, as `--image-opts` asks for. */
export function parseImageOptions(word: string): ImageSpec {
  return explained(word, () => {
    const map: OptionMap = new Map();
    for (const [key, value] of parseKeyValues(word, 'file')) {
      if (value !== undefined) map.set(key, value);
      else if (key.startsWith('no')) map.set(key.slice(2), 'off');
      else map.set(key, 'on');
    }
    return nodeSpec(new Options(map), word);
  });
}

function explained(word: string, parse: () => ImageSpec): ImageSpec {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    const message = `Could not open '${word}': ${error.message}`;
    throw new ImageError(error.kind, error.code, message, error.context, error);
  }
}

/** QEMU takes what comes before a colon for a protocol: only `file:` leads to a file. */
function plainPath(name: string): string {
  const protocol = protocolOf(name);
  if (protocol === undefined) return name;
  if (protocol === 'file') {
    const path = name.slice('file:'.length);
    // A name with a colon would be taken for another protocol's.
    return protocolOf(path) === undefined ? path : `./${path}`;
  }
  throw invalid(`Unknown protocol '${protocol}'`);
}

/** Options of one node. What is not taken in the end is unknown. */
class Options {
  readonly #left: OptionMap;

  constructor(map: OptionMap) {
    this.#left = new Map(map);
  }

  /** Undefined where it is not given. */
  take(key: string): string | undefined {
    const value = this.#left.get(key);
    this.#left.delete(key);
    return value ?? undefined;
  }

  takeSwitch(key: string): boolean | undefined {
    const value = this.take(key);
    if (value === undefined) return undefined;
    if (value !== 'on' && value !== 'off') {
      throw invalid(`Parameter '${key}' expects 'on' or 'off'`);
    }
    return value === 'on';
  }

  takeSize(key: string): number | undefined {
    const value = this.take(key);
    if (value === undefined) return undefined;
    const size = parseSize(value);
    if (typeof size === 'number') return size;
    throw invalid(`Parameter '${key}' expects a non-negative number below 2^64`, SIZE_HINT);
  }

  takeWord<T extends string>(key: string, words: readonly T[], problem: string): T | undefined {
    const value = this.take(key);
    if (value === undefined) return undefined;
    const word = words.find((candidate) => candidate === value);
    if (word === undefined) throw invalid(problem.replace('%', value));
    return word;
  }

  /** The child's own options; null where it is not to be; undefined where nothing is said of it. */
  takeChild(name: string): Options | null | undefined {
    if (this.#left.has(name)) {
      const node = this.take(name);
      if (node === undefined) return null;
      throw invalid(`Cannot find device='${node}' nor node-name='${node}'`);
    }
    const inner: OptionMap = new Map();
    for (const [key, value] of [...this.#left]) {
      if (!key.startsWith(`${name}.`)) continue;
      inner.set(key.slice(name.length + 1), value);
      this.#left.delete(key);
    }
    return inner.size === 0 ? undefined : new Options(inner);
  }

  namesFile(): boolean {
    const keys = [...this.#left.keys()];
    return keys.some((key) => key === 'file' || key === 'filename' || key.startsWith('file.'));
  }

  /** Throws where options are left that the driver does not have. */
  end(describe: (key: string) => string): void {
    const [key] = this.#left.keys();
    if (key !== undefined) throw invalid(describe(key));
  }
}

const SIZE_HINT = `Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-
and exabytes, respectively.`;

function nodeSpec(options: Options, filename: string): ImageSpec {
  const driver = options.take('driver');
  if (driver === undefined) return formatNode(options, undefined, filename);
  if (FILE_DRIVERS.includes(driver)) {
    return { ...fileNode(options, driver, filename), format: driver };
  }
  if (FORMAT_DRIVERS.includes(driver)) return formatNode(options, driver, filename);
  throw unknownDriver(driver);
}

function formatNode(options: Options, driver: string | undefined, filename: string): ImageSpec {
  const file = options.takeChild('file');
  if (file === undefined || file === null) {
    if (driver === undefined) throw invalid('Must specify either driver or file');
    throw invalid('A block device must be specified for "file"');
  }
  const common = takeCommon(options);
  const own = driver === 'raw' ? takeRaw(options) : takeQcow2(options);
  options.end((key) => `Block format '${driver ?? 'qcow2'}' does not support the option '${key}'`);
  const below = childSpec(file, filename);
  return {
    ...below,
    ...common,
    ...own,
    window: own.window ?? below.window,
    write: { ...below.write, ...common.write, ...own.write },
    filename,
    format: driver,
  };
}

/** What a format stands on: a file, or a window of one. */
function childSpec(options: Options, filename: string): ImageSpec {
  const driver = options.take('driver');
  if (driver === undefined || FILE_DRIVERS.includes(driver)) {
    return fileNode(options, driver ?? 'file', filename);
  }
  if (driver === 'raw') return formatNode(options, driver, filename);
  if (FORMAT_DRIVERS.includes(driver)) {
    throw new ImageError('unsupported', 'ENOTSUP', `'${driver}' under another format`);
  }
  throw unknownDriver(driver);
}

function fileNode(options: Options, driver: string, filename: string): ImageSpec {
  const name = options.take('filename');
  if (name === undefined) {
    throw invalid(`The '${driver}' block driver requires a file name`);
  }
  const locking = options.takeWord('locking', ['on', 'off', 'auto'], INVALID_VALUE);
  options.takeWord('aio', ['threads', 'native', 'io_uring'], INVALID_VALUE);
  options.take('aio-max-batch');
  options.take('pr-manager');
  options.takeSwitch('x-check-cache-dropped');
  options.takeSwitch('drop-cache');
  const common = takeCommon(options);
  options.end((key) => `Block protocol '${driver}' doesn't support the option '${key}'`);
  return {
    path: plainPath(name),
    filename,
    ...common,
    ...(locking === 'off' && { locking: false }),
  };
}

const INVALID_VALUE = 'invalid parameter value: %';

/** Options that every node has. */
function takeCommon(options: Options): Partial<ImageSpec> {
  options.take('node-name');
  options.takeSwitch('auto-read-only');
  const readOnly = options.takeSwitch('read-only');
  const forceShare = options.takeSwitch('force-share');
  const discard = options.takeWord(
    'discard',
    ['off', 'on', 'ignore', 'unmap'],
    'Invalid discard option',
  );
  const detectZeroes = options.takeWord('detect-zeroes', ['off', 'on', 'unmap'], INVALID_VALUE);
  const direct = options.takeSwitch('cache.direct');
  const noFlush = options.takeSwitch('cache.no-flush');
  const write: Partial<WriteOptions> = {
    ...(discard !== undefined && {
      discard: discard === 'on' || discard === 'unmap' ? ('unmap' as const) : ('ignore' as const),
    }),
    ...(detectZeroes !== undefined && { detectZeroes }),
    ...(direct === true && { cache: 'none' as const }),
    ...(noFlush === true && { cache: 'unsafe' as const }),
  };
  return {
    ...(readOnly !== undefined && { readOnly }),
    ...(forceShare !== undefined && { forceShare }),
    write,
  };
}

function takeRaw(options: Options): Partial<ImageSpec> {
  const offset = options.takeSize('offset');
  const size = options.takeSize('size');
  if (offset === undefined && size === undefined) return {};
  const window: Window = { offset: offset ?? 0, ...(size !== undefined && { size }) };
  return { window };
}

const OVERLAP_CLASSES = [
  'main-header',
  'active-l1',
  'active-l2',
  'refcount-table',
  'refcount-block',
  'snapshot-table',
  'inactive-l1',
  'inactive-l2',
  'bitmap-directory',
];
const OVERLAP_PROBLEM =
  "Unsupported value '%' for qcow2 option 'overlap-check'. " +
  'Allowed are any of the following: none, constant, cached, all';

function takeQcow2(options: Options): Partial<ImageSpec> {
  const lazyRefcounts = options.takeSwitch('lazy-refcounts');
  for (const key of ['request', 'snapshot', 'other']) options.takeSwitch(`pass-discard-${key}`);
  for (const key of ['overlap-check', 'overlap-check.template']) {
    options.takeWord(key, ['none', 'constant', 'cached', 'all'], OVERLAP_PROBLEM);
  }
  for (const name of OVERLAP_CLASSES) options.takeSwitch(`overlap-check.${name}`);
  const cache = takeCache(options);
  const dataFile = options.takeChild('data-file');
  const backing = options.takeChild('backing');
  const encrypt = options.takeChild('encrypt');
  return {
    ...(lazyRefcounts !== undefined && { write: { lazyRefcounts } }),
    ...cache,
    ...(dataFile != null && { dataFile: childSpec(dataFile, '').path }),
    ...backingOf(backing),
    ...(encrypt != null && { encryption: takeEncryption(encrypt) }),
  };
}

function takeEncryption(options: Options): EncryptionSpec {
  const [format, secret] = [options.take('format'), options.take('key-secret')];
  options.end((key) => `Parameter '${key}' is unexpected`);
  return { format, secret };
}

/** QEMU has caches of their own for L2 tables and refcounts: here it is one. */
function takeCache(options: Options): Partial<ImageSpec> {
  const total = options.takeSize('cache-size');
  const l2 = options.takeSize('l2-cache-size');
  const counts = options.takeSize('refcount-cache-size');
  const l2EntrySize = options.takeSize('l2-cache-entry-size');
  options.take('cache-clean-interval');
  if (total !== undefined && l2 !== undefined && counts !== undefined) {
    const names = 'cache-size, l2-cache-size and refcount-cache-size';
    throw invalid(`${names} may not be set at the same time`);
  }
  if ((l2 ?? 0) > (total ?? Number.POSITIVE_INFINITY)) {
    throw invalid('l2-cache-size may not exceed cache-size');
  }
  if ((counts ?? 0) > (total ?? Number.POSITIVE_INFINITY)) {
    throw invalid('refcount-cache-size may not exceed cache-size');
  }
  const size = total ?? l2;
  return {
    ...(size !== undefined && { cacheSize: Math.min(Math.max(size, LEAST_CACHE), LARGEST_CACHE) }),
    ...(l2EntrySize !== undefined && { l2EntrySize }),
  };
}

/** Options of a backing file can leave it open which one it is. */
function backingOf(options: Options | null | undefined): Partial<ImageSpec> {
  if (options === undefined) return {};
  if (options === null) return { backing: null };
  if (options.namesFile()) {
    const spec = nodeSpec(options, '');
    return { backing: { ...spec, filename: spec.path } };
  }
  const driver = options.take('driver');
  if (driver !== undefined && ![...FORMAT_DRIVERS, ...FILE_DRIVERS].includes(driver)) {
    throw unknownDriver(driver);
  }
  const common = takeCommon(options);
  const own = driver === 'raw' ? takeRaw(options) : takeQcow2(options);
  options.end((key) => `Block format '${driver ?? 'qcow2'}' does not support the option '${key}'`);
  return { backing: { ...common, ...own, filename: '', format: driver } };
}

function unknownDriver(driver: string): ImageError {
  if (!FOREIGN_FORMATS.includes(driver)) return invalid(`Unknown driver '${driver}'`);
  return new ImageError('unsupported', 'ENOTSUP', `Format '${driver}' is not supported`, {
    limit: 'supported: qcow2, raw',
  });
}

function invalid(message: string, hint?: string): ImageError {
  return new ImageError('invalid', 'EINVAL', message, hint === undefined ? {} : { hint });
}
