/**
 * What users call an image by: a file's name, `json:{…}`, or `driver=…,file.filename=…`. Options that
 * change nothing of what is read and written here (how QEMU does its I/O) are checked and accepted.
 */
import { ImageError, invalid } from '../errors.js';
import { protocolOf } from '../image/file-names.js';
import { OTHER_FORMATS } from '../image/format.js';
import { FOREIGN_FORMATS } from '../image/open.js';
import {
  type EncryptionSpec,
  type FileDriver,
  type FileSpec,
  type ImageSpec,
  isFileDriver,
} from '../image/spec.js';
import type { FaultPlan } from '../storage/faults.js';
import { FAULTY, faultyName, type FaultyName, takeFaults, takeLimits } from './fault-options.js';
import { takeQcow2, takeRaw, takeVpc } from './format-options.js';
import { type OptionMap, parseJsonOptions } from './json-options.js';
import { parseKeyValues } from './key-values.js';
import { INVALID_VALUE, Options, takeCommon } from './node-options.js';

const JSON_PREFIX = 'json:';
const FORMAT_DRIVERS: readonly string[] = ['qcow2', 'raw', ...OTHER_FORMATS];
/** Beside qcow2: those that can name a backing file. */
const OVER_BACKING = ['qed', 'qcow', 'vmdk'];
/** Bytes of a null disk of which nothing is said. */
const NULL_SIZE = 1 << 30;

/** A name or `json:{…}`. Throws an ImageError in QEMU's words. */
export function parseImageName(word: string): ImageSpec {
  return explained(word, () => {
    if (word.startsWith(JSON_PREFIX)) {
      return nodeSpec(new Options(parseJsonOptions(word.slice(JSON_PREFIX.length))), word);
    }
    const file = fileNamed(word);
    if (file.path === '') throw invalid("The 'file' block driver requires a file name");
    return { ...file, filename: word };
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
function fileNamed(name: string): FileSpec {
  const protocol = protocolOf(name);
  if (protocol === undefined) return { path: name };
  const faulty = faultyName(name);
  if (faulty !== undefined) return faultyFile(faulty);
  if (protocol === 'file') {
    const path = name.slice('file:'.length);
    // A name with a colon would be taken for another protocol's.
    return { path: protocolOf(path) === undefined ? path : `./${path}` };
  }
  if (!isNullDriver(protocol)) throw invalid(`Unknown protocol '${protocol}'`);
  if (name !== `${protocol}://`) {
    throw invalid(`The only allowed filename for this driver is '${protocol}://'`);
  }
  return { path: name, nullDisk: { size: NULL_SIZE, isHole: false } };
}

/** What lies below faults on purpose, with them. */
function faultyFile({ config, file }: FaultyName): FileSpec {
  const faults = takeFaults(new Options(new Map()), config);
  const below = fileNamed(file);
  if (below.path === '') throw invalid("The 'file' block driver requires a file name");
  return { ...below, ...(faults !== undefined && { faults }) };
}

function nodeSpec(options: Options, filename: string): ImageSpec {
  const driver = options.take('driver');
  if (driver === undefined) return formatNode(options, undefined, filename);
  if (isFileDriver(driver)) return { ...fileNode(options, driver, filename), format: driver };
  if (isNullDriver(driver)) return { ...nullNode(options, driver, filename), format: driver };
  if (FORMAT_DRIVERS.includes(driver)) return formatNode(options, driver, filename);
  if (driver === FAULTY) return faultyDisk(options, filename);
  if (driver === 'copy-on-read')
    return { ...filterNode(options, driver, filename), copyOnRead: true };
  if (driver === 'compress') return { ...filterNode(options, driver, filename), compress: true };
  throw unknownDriver(driver);
}

function formatNode(options: Options, driver: string | undefined, filename: string): ImageSpec {
  const file = options.takeChild('file');
  if (file === undefined || file === null) {
    if (driver === undefined) throw invalid('Must specify either driver or file');
    throw invalid('A block device must be specified for "file"');
  }
  const common = takeCommon(options);
  const own = takeOwn(options, driver);
  const below = childSpec(file, filename);
  return {
    ...below,
    nodeName: undefined,
    fileNodeName: below.nodeName,
    ...common,
    ...own,
    window: own.window ?? below.window,
    write: { ...below.write, ...common.write, ...own.write },
    filename,
    format: driver,
  };
}

function takeKnown(options: Options, driver: string | undefined): Partial<ImageSpec> {
  if (driver === 'raw') return takeRaw(options);
  if (driver === 'vpc') return takeVpc(options);
  // A probed one has what qcow2 has.
  if (driver === undefined || driver === 'qcow2') {
    return { ...takeQcow2(options), ...others(options) };
  }
  const backing = OVER_BACKING.includes(driver) ? options.takeChild('backing') : undefined;
  const encrypt = driver === 'qcow' ? options.takeChild('encrypt') : undefined;
  return {
    ...backingOf(backing),
    ...(encrypt != null && { encryption: takeEncryption(encrypt) }),
  };
}

/** What a format itself can be told. */
function takeOwn(options: Options, driver: string | undefined): Partial<ImageSpec> {
  const own = takeKnown(options, driver);
  options.end((key) => `Block format '${driver ?? 'qcow2'}' does not support the option '${key}'`);
  return own;
}

/** Other files that a qcow2 image has, and what it is encrypted with. */
function others(options: Options): Partial<ImageSpec> {
  const dataFile = options.takeChild('data-file');
  const backing = options.takeChild('backing');
  const encrypt = options.takeChild('encrypt');
  return {
    ...(dataFile != null && { dataFile: childSpec(dataFile, '') }),
    ...backingOf(backing),
    ...(encrypt != null && { encryption: takeEncryption(encrypt) }),
  };
}

function takeEncryption(options: Options): EncryptionSpec {
  const [format, secret] = [options.take('format'), options.take('key-secret')];
  options.end((key) => `Parameter '${key}' is unexpected`);
  return { format, secret };
}

/** What a format stands on: a file, or a window of one. */
function childSpec(options: Options, filename: string): ImageSpec {
  const isFaulty = faultyName(options.peek('filename') ?? '') !== undefined;
  const driver = options.take('driver') ?? (isFaulty ? FAULTY : undefined);
  if (driver === undefined) return fileNode(options, undefined, filename);
  if (isFileDriver(driver)) return fileNode(options, driver, filename);
  if (isNullDriver(driver)) return nullNode(options, driver, filename);
  if (driver === FAULTY) return faultyFileNode(options, filename);
  if (driver === 'raw') return formatNode(options, driver, filename);
  if (FORMAT_DRIVERS.includes(driver)) {
    throw new ImageError('unsupported', 'ENOTSUP', `'${driver}' under another format`);
  }
  throw unknownDriver(driver);
}

function fileNode(options: Options, stated: FileDriver | undefined, filename: string): ImageSpec {
  const driver = stated ?? 'file';
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
    ...fileNamed(name),
    ...(stated !== undefined && { driver: stated }),
    filename,
    ...common,
    ...(locking === 'off' && { locking: false }),
  };
}

/** Faults on purpose: below a format requests to the file fail, above one those to the disk. */
function faultyNode(
  options: Options,
  filename: string,
  child: (options: Options, filename: string) => ImageSpec,
): { below: ImageSpec; faults: FaultPlan | undefined; zeroUnit: number } {
  const { options: image, config } = takeFaultyChild(options);
  const faults = takeFaults(options, config);
  const zeroUnit = takeLimits(options);
  const common = takeCommon(options);
  options.end((key) => `Block protocol '${FAULTY}' doesn't support the option '${key}'`);
  return { below: withCommon(child(image, filename), common), faults, zeroUnit };
}

function faultyFileNode(options: Options, filename: string): ImageSpec {
  const { below, faults } = faultyNode(options, filename, childSpec);
  return faults === undefined ? below : { ...below, faults };
}

function faultyDisk(options: Options, filename: string): ImageSpec {
  const { below, faults, zeroUnit } = faultyNode(options, filename, overFormat);
  return { ...below, filename, zeroUnit, ...(faults && { requestFaults: faults }) };
}

/** The child of a node with faults, and the file with its rules: the node's name can say both. */
function takeFaultyChild(options: Options): { options: Options; config: string | undefined } {
  const config = options.take('config');
  const name = options.take('filename');
  const child = options.takeChild('image');
  if (name === undefined) {
    if (child == null) throw invalid('A block device must be specified for "image"');
    return { options: child, config };
  }
  const named = faultyName(name);
  const map: OptionMap = new Map([['filename', named?.file ?? name]]);
  const whole = child == null ? new Options(map) : child.over(map);
  return { options: whole, config: named?.config ?? config };
}

/** A node that changes what is done with the image below it. */
function filterNode(options: Options, driver: string, filename: string): ImageSpec {
  const file = options.takeChild('file');
  if (file == null) throw invalid('A block device must be specified for "file"');
  const common = takeCommon(options);
  options.end((key) => `Block format '${driver}' does not support the option '${key}'`);
  return { ...withCommon(overFormat(file, filename), common), filename };
}

/** What a node says that changes nothing but what it is told, over what is said below it. */
function withCommon(below: ImageSpec, common: Partial<ImageSpec>): ImageSpec {
  return { ...below, ...common, write: { ...below.write, ...common.write } };
}

/** A whole image as a child: its format may be stated beside the name of its file. */
function overFormat(options: Options, filename: string): ImageSpec {
  const driver = options.peek('driver');
  if (driver !== undefined && !FORMAT_DRIVERS.includes(driver)) return nodeSpec(options, filename);
  const name = options.take('filename');
  const file: OptionMap = new Map(name === undefined ? [] : [['file.filename', name]]);
  return nodeSpec(options.over(file), filename);
}

function nullNode(options: Options, driver: string, filename: string): ImageSpec {
  const size = options.takeSize('size') ?? NULL_SIZE;
  const latency = options.takeNumber('latency-ns') ?? 0n;
  const isHole = options.takeSwitch('read-zeroes') === true;
  if (BigInt.asIntN(64, latency) < 0n) throw invalid('latency-ns is invalid');
  const common = takeCommon(options);
  options.end((key) => `Block protocol '${driver}' doesn't support the option '${key}'`);
  return { path: `${driver}://`, nullDisk: { size, isHole }, filename, ...common };
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
  if (driver !== undefined && !FORMAT_DRIVERS.includes(driver) && !isFileDriver(driver)) {
    throw unknownDriver(driver);
  }
  const common = takeCommon(options);
  const own = takeOwn(options, driver);
  return { backing: { ...common, ...own, filename: '', format: driver } };
}

function isNullDriver(driver: string): boolean {
  return driver === 'null-co' || driver === 'null-aio';
}

function unknownDriver(driver: string): ImageError {
  if (!FOREIGN_FORMATS.includes(driver)) return invalid(`Unknown driver '${driver}'`);
  return new ImageError('unsupported', 'ENOTSUP', `Format '${driver}' is not supported`, {
    limit: `supported: ${FORMAT_DRIVERS.join(', ')}`,
  });
}
