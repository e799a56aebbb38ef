/**
 * Opening an image and the chain of its backing files, under a policy. Everything is read-only but the
 * image itself, where it is asked for; what an image names is checked before it is opened.
 */
import {
  closeSync,
  existsSync,
  constants,
  fstatSync,
  openSync,
  readlinkSync,
  realpathSync,
  type Stats,
  statSync,
} from 'node:fs';
import { describeError, ERRNO, errnoOf, ImageError, invalid, isExpected } from '../errors.js';
import type { MutableStorage, Storage } from '../storage/storage.js';
import { duplicate } from '../sys/file.js';
import type { ImageKey } from './crypto/cipher-key.js';
import { KeyRing } from './crypto/key-ring.js';
import {
  type FileDescription,
  filesOf,
  type ImageDescription,
  type LayerDescription,
  namedBacking,
  type OtherDescription,
  type Qcow2Description,
} from './description.js';
import { fileIdentity, identityOf } from './file-identity.js';
import { extentPath, isInside, resolveName } from './file-names.js';
import { storageOf } from './file-storage.js';
import { type FormatDriver, OTHER_FORMATS } from './format.js';
import { formatDriver } from './formats.js';
import { inUse, type LockKind, lockImage } from './lock.js';
import { opening, type Place, systemError, within } from './open-errors.js';
import { probeFormat } from './probe.js';
import { checkBitmapTables, hasStaleBitmaps, readBitmaps } from './qcow2/bitmaps.js';
import { checkStatedFormat, keyOfImage, passphraseKey } from './qcow2/encryption.js';
import { hasBit } from './qcow2/features.js';
import { checkDataFile, type Qcow2Header, readHeader } from './qcow2/header.js';
import { CRYPT_METHOD, INCOMPATIBLE } from './qcow2/layout.js';
import { prepareForWriting } from './qcow2/prepare-for-writing.js';
import { rebuildRefcounts } from './qcow2/rebuild.js';
import { readSnapshots, type Snapshot } from './qcow2/snapshots.js';
import { checkFeaturesForWriting, checkTablesForWriting } from './qcow2/writable.js';
import { type FileDriver, type FileSpec, type ImageSpec, isFileDriver, specOf } from './spec.js';
import { openForWriting } from './writable-file.js';

/** Layers of a chain at most: deeper ones are taken for an attack. */
export const MAX_LAYERS = 256;

/** Entries of a cache of QEMU's. */
const MOST_CACHED = 2 ** 31 - 1;

/** Formats that QEMU knows, too. */
export const FOREIGN_FORMATS: readonly string[] = [
  'bochs',
  'cloop',
  'dmg',
  'luks',
  'parallels',
  'qcow',
  'qed',
  'vdi',
  'vhdx',
  'vmdk',
  'vpc',
  'vvfat',
];

/** What may be opened. */
export interface OpenPolicy {
  /** The image's format; probed where it is not given. */
  readonly format?: string | undefined;
  /** Refuse images that name another file. */
  readonly noBacking?: boolean | undefined;
  /** A folder: whatever an image names must lie in it, links followed. */
  readonly backingRoot?: string | undefined;
  /** The image has no magic yet: it is being filled. */
  readonly unfinished?: boolean | undefined;
  /** Its files are open and locked already: descriptors of the same open files are used, and their locks. */
  readonly held?: HeldFiles | undefined;
  /** Descriptors by which its own files are read already: they must be those, and are read on with its locks. */
  readonly readBy?: readonly number[] | undefined;
  /** Files that are not opened for writing (`fileIdentity`): what is read without locks. */
  readonly others?: readonly string[] | undefined;
  /** The image is opened as the backing file of the one that has that name in messages. */
  readonly overlay?: string | undefined;
  /** Open the image alone, as if it had no backing file; for looking at its header. */
  readonly alone?: boolean | undefined;
  /**
   * Open the image itself for writing; the files that it names stay read-only. It must be in order:
   * much that is shown with a warning for reading is refused. Asks for locks.
   */
  readonly writable?: boolean | undefined;
  /** Write to an image that is raw by its looks alone. */
  readonly probedRaw?: boolean | undefined;
  /** Read and write past the host's page cache. */
  readonly direct?: boolean | undefined;
  /**
   * QEMU's locks to take on each file of the chain; none where it is not given. Where the image is
   * opened for writing, its own is 'write' and the others' are 'read', whatever is given.
   */
  readonly lock?: LockKind | undefined;
  /** Open encrypted images without their keys; for looking at headers and tables. */
  readonly allowEncrypted?: boolean | undefined;
  /**
   * Open the image for a check of its tables: whatever is wrong with them is no error, and with
   * `writable`, nothing is written on opening.
   */
  readonly check?: boolean | undefined;
  /** Leave external data files closed, there or not; for looking at the headers of a chain. */
  readonly noDataFiles?: boolean | undefined;
}

/** Descriptors of an image's files, open for writing. */
export interface HeldFiles {
  readonly image: number;
  /** Where it has a data file. */
  readonly data?: number | undefined;
}

export interface OpenedImage {
  readonly description: ImageDescription;
  /** What the user should know though the image could be opened. */
  readonly warnings: readonly string[];
  /** Versions of the layers whose bitmaps somebody who knows none has left out of date, from the top. */
  readonly staleBitmaps: readonly number[];
}

/** Opens an image and its chain. Nothing stays open where it throws. */
export function openImage(image: string | ImageSpec, policy: OpenPolicy = {}): OpenedImage {
  const spec = specOf(image);
  const opened = new Opening(spec, policy);
  try {
    return opened.run();
  } catch (error) {
    opened.close();
    throw error;
  }
}

/** Closes the descriptors of an image that no thread uses any more. */
export function closeImage(description: ImageDescription): void {
  for (const layer of description.layers) {
    for (const file of filesOf(layer)) closeFile(file);
  }
}

function closeFile({ fd, directFd }: FileDescription): void {
  closeSync(fd);
  if (directFd !== undefined) closeSync(directFd);
}

/** A layer to be opened. */
interface Wanted {
  readonly spec: ImageSpec;
  readonly place: Place;
}

class Opening {
  readonly #spec: ImageSpec;
  readonly #policy: OpenPolicy;
  readonly #root: string | undefined;
  readonly #fds: number[] = [];
  readonly #warnings: string[] = [];
  readonly #staleBitmaps: number[] = [];
  readonly #seen = new Set<string>();

  constructor(spec: ImageSpec, policy: OpenPolicy) {
    this.#spec = spec;
    this.#policy = policy;
    if (policy.writable === true && policy.lock === undefined && spec.locking !== false) {
      const message = 'force-share can only be used with read-only images';
      throw new ImageError('policy', 'EINVAL', message);
    }
    this.#root = policy.backingRoot === undefined ? undefined : rootOf(policy.backingRoot);
  }

  close(): void {
    for (const fd of this.#fds) closeSync(fd);
  }

  run(): OpenedImage {
    const layers: LayerDescription[] = [];
    const spec = { ...this.#spec, format: this.#spec.format ?? this.#policy.format };
    const depth = this.#policy.overlay === undefined ? 0 : 1;
    let next: Wanted | null = { spec, place: this.#place(spec.path, depth) };
    while (next !== null) {
      const wanted: Wanted = next;
      const layer = within(wanted.place, () => this.#openLayer(wanted));
      layers.push(layer);
      next = this.#policy.alone === true ? null : this.#backingOf(wanted, layer);
    }
    const [top, ...below] = layers;
    const writable = this.#policy.writable === true;
    const prepares = writable && this.#policy.check !== true;
    const first = prepares ? this.#prepareForWriting(top!) : top!;
    const description: ImageDescription = { layers: [first, ...below], writable };
    return { description, warnings: this.#warnings, staleBitmaps: this.#staleBitmaps };
  }

  #place(name: string, depth: number): Place {
    return { name, depth, image: this.#policy.overlay ?? this.#spec.filename };
  }

  /** Last of all: an image that cannot be opened stays as it is. */
  #prepareForWriting(layer: LayerDescription): LayerDescription {
    if (layer.format === 'raw') return layer;
    const { path } = layer.file;
    return within(this.#place(path, 0), () => {
      const storage = storageOf(layer.file);
      if (layer.format !== 'qcow2') {
        const parts = formatDriver(layer.format)!.writing!.prepare(storage, layer);
        return { ...layer, ...parts };
      }
      const repaired = layer.needsRepair ? this.#repair(storage, layer) : layer.header;
      const { header, warnings } = prepareForWriting(storage, repaired);
      this.#warnings.push(...warnings.map((warning) => `${path}: ${warning}`));
      return { ...layer, header, needsRepair: false };
    });
  }

  /** Counts the references of a dirty image anew; answers its header, which that changes. */
  #repair(storage: MutableStorage, { header, snapshots }: Qcow2Description): Qcow2Header {
    const bitmaps = readBitmaps(storage, header);
    const { leaksFixed, corruptionsFixed } = rebuildRefcounts(storage, header, snapshots, bitmaps);
    const fixed = `${leaksFixed} leaks and ${corruptionsFixed} errors in its refcounts are repaired`;
    this.#warnings.push(`${storage.name}: image was not closed cleanly: ${fixed}`);
    return readHeader(storage);
  }

  /** Whether a layer is the one to be written to: which no other names. */
  #writes({ depth }: Place): boolean {
    return depth === 0 && this.#policy.writable === true;
  }

  #openLayer({ spec, place }: Wanted): LayerDescription {
    if (place.depth === MAX_LAYERS) {
      throw new ImageError('invalid', 'ELOOP', 'chain too deep', {
        limit: `at most ${MAX_LAYERS} layers`,
      });
    }
    const writes = this.#writes(place);
    const stated = isFileDriver(spec.format) ? { driver: spec.format } : {};
    const whole = this.#openFile({ ...stated, ...spec }, place, writes);
    const file = spec.window === undefined ? whole : { ...whole, window: spec.window };
    const storage = storageOf(file);
    checkWindow(file);
    const { format } = spec;
    const driver = driverOf(spec);
    const probed = driver !== undefined ? 'raw' : (format ?? probeFormat(storage));
    if (format === undefined && place.depth > 0) {
      this.#warnings.push(
        `${place.image}: backing file '${file.path}' has no stated format; probed as ${probed}`,
      );
    }
    if (format === undefined && probed === 'raw' && writes) {
      if (this.#policy.probedRaw !== true) {
        // A guest could write another format's header into it, with names of the host's files.
        throw new ImageError(
          'policy',
          'EINVAL',
          'raw images are written to only where it is stated',
          { limit: 'format=raw' },
        );
      }
      return { format: 'raw', file, fileSize: storage.size(), probed: true };
    }
    if (probed === 'raw') {
      const shown = driver === undefined ? {} : { driver };
      return { format: 'raw', file, fileSize: storage.size(), ...shown };
    }
    if (probed === 'qcow2') return this.#openQcow2(spec, file, storage, place);
    const other = formatDriver(probed);
    if (other !== undefined) return this.#openOther(other, spec, file, storage, place);
    throw unknownFormat(probed, format === undefined);
  }

  #openOther(
    driver: FormatDriver,
    spec: ImageSpec,
    file: FileDescription,
    storage: MutableStorage,
    place: Place,
  ): OtherDescription {
    const { format } = driver;
    const writes = this.#writes(place);
    const checks = place.depth === 0 && this.#policy.check === true;
    if (writes && !checks && (driver.writing === undefined || !fstatSync(file.fd).isFile())) {
      const message = `Images of format '${format}' are read-only`;
      throw new ImageError('unsupported', 'ENOTSUP', message);
    }
    const { encryption } = spec;
    const key = () => {
      if (this.#policy.allowEncrypted === true) return null;
      return passphraseKey(storage, this.#spec.keys ?? new KeyRing(), encryption?.secret);
    };
    const unfinished = place.depth === 0 && this.#policy.unfinished === true;
    const extents: FileDescription[] = [];
    const openExtent = (name: string) => {
      const path = extentPath(file.path, name);
      let index = extents.findIndex((other) => other.path === path);
      if (index < 0) {
        extents.push(this.#openFile({ path }, place, false, 'extent'));
        index = extents.length - 1;
      }
      return { file: index, storage: storageOf(extents[index]!) };
    };
    const { sizeFrom } = spec;
    const parts = driver.open(storage, { key, unfinished, sizeFrom, openExtent });
    if (parts.facts.dirty && !writes)
      this.#warnings.push(`${file.path}: image was not closed cleanly`);
    const { patches } = parts;
    return { ...parts, format, file: patches ? { ...file, patches } : file, extents };
  }

  #openQcow2(
    spec: ImageSpec,
    file: FileDescription,
    storage: Storage,
    place: Place,
  ): LayerDescription {
    const writes = this.#writes(place);
    const isChecked = place.depth === 0 && this.#policy.check === true;
    const isUnfinished = place.depth === 0 && this.#policy.unfinished === true;
    const header = readHeader(storage, isUnfinished ? 'fill' : isChecked ? 'check' : 'use');
    if (this.#policy.noDataFiles !== true) checkDataFile(header);
    const key = this.#keyOf(spec, storage, header, writes);
    checkCacheSizes(spec, header);
    if (writes && !isChecked) checkFeaturesForWriting(header);
    if (hasStaleBitmaps(header)) this.#staleBitmaps.push(header.version);
    const needsRepair = hasBit(header.incompatibleFeatures, INCOMPATIBLE.DIRTY);
    if (needsRepair && !writes) {
      this.#warnings.push(`${file.path}: image was not closed cleanly; its refcounts may be wrong`);
    }
    if (hasBit(header.incompatibleFeatures, INCOMPATIBLE.CORRUPT)) {
      this.#warnings.push(`${file.path}: image is marked corrupt; what it reads may be wrong`);
    }
    const external = hasBit(header.incompatibleFeatures, INCOMPATIBLE.DATA_FILE);
    const wanted = this.#policy.alone !== true && this.#policy.noDataFiles !== true;
    const data = () =>
      spec.dataFile ?? { path: dataFilePath(file.path, header.extensions.dataFile) };
    const dataFile = external && wanted ? this.#openFile(data(), place, writes, 'data file') : null;
    const parts = { format: 'qcow2', file, dataFile, header, key, needsRepair } as const;
    if (isChecked) {
      const bitmaps = readBitmaps(storage, header);
      return { ...parts, snapshots: [], bitmaps };
    }
    const snapshots = writes
      ? readSnapshots(storage, header)
      : this.#readSnapshots(file, storage, header);
    if (writes) checkTablesForWriting(storage, header, snapshots);
    for (const { name, problem } of snapshots) {
      if (problem !== null) this.#warnings.push(`${file.path}: snapshot '${name}': ${problem}`);
    }
    const bitmaps = readBitmaps(storage, header);
    if (writes) checkBitmapTables(storage, header, bitmaps, true);
    return { ...parts, snapshots, bitmaps };
  }

  /** What the image is encrypted with; null where it is not, or is only looked at. */
  #keyOf(
    { encryption = {} }: ImageSpec,
    storage: Storage,
    header: Qcow2Header,
    writes: boolean,
  ): ImageKey | null {
    checkStatedFormat(header, encryption);
    if (header.cryptMethod === CRYPT_METHOD.NONE) return null;
    const { secret } = encryption;
    const checks = this.#policy.check === true;
    // A check asks for no key, but for the one that is stated to be right.
    const needsKey = checks ? secret !== undefined : writes;
    if (this.#policy.allowEncrypted === true && !needsKey) return null;
    return keyOfImage(storage, header, this.#spec.keys ?? new KeyRing(), secret);
  }

  /** A table that is cut off takes nothing from the disk itself: it is shown without snapshots. */
  #readSnapshots(file: FileDescription, storage: Storage, header: Qcow2Header): Snapshot[] {
    try {
      return readSnapshots(storage, header);
    } catch (error) {
      if (errnoOf(error) !== ERRNO.EIO) throw error;
      this.#warnings.push(`${file.path}: snapshots are not shown: ${describeError(error)}`);
      return [];
    }
  }

  #backingOf({ spec, place }: Wanted, layer: LayerDescription): Wanted | null {
    if (layer.format === 'raw' || spec.backing === null) return null;
    const depth = place.depth + 1;
    const said = spec.backing;
    if (said?.path !== undefined) {
      return { spec: { ...said, path: said.path }, place: this.#place(said.path, depth) };
    }
    const named = namedBacking(layer);
    if (named === null) return null;
    const { name } = named;
    const path = within(this.#place(name, depth), () => resolveName(layer.file.path, name));
    const format = said?.format ?? named.format ?? undefined;
    return { spec: { ...said, path, filename: path, format }, place: this.#place(path, depth) };
  }

  /** Opens a regular file or block device; one that an image names must pass the policy. */
  #openFile(
    { path, driver, nullDisk, faults }: FileSpec,
    { image, depth }: Place,
    writes: boolean,
    data?: string,
  ): FileDescription {
    const limit = writes ? 'opened for writing' : undefined;
    return opening({ name: path, image, depth }, limit, () => {
      const isNamed = depth > 0 || data !== undefined;
      if (isNamed && this.#policy.noBacking === true) {
        const message = `'${path}': other files are not opened ('no-backing')`;
        throw new ImageError('policy', 'EPERM', message);
      }
      if (nullDisk !== undefined) {
        const fd = openSync('/dev/null', constants.O_RDONLY);
        this.#fds.push(fd);
        return { path, fd, nullDisk, ...(faults !== undefined && { faults }) };
      }
      const held = writes ? this.#held(data !== undefined) : undefined;
      // Looked at first: opening a FIFO or a device can block or have effects.
      const looked = held === undefined ? statSync(path) : fstatSync(held);
      // The system itself refuses to open a folder for writing.
      if (!writes || !looked.isDirectory()) checkKind(driver, path, looked);
      const open = () => (writes ? openForWriting(path, looked) : openForReading(path));
      const fd = held === undefined ? open() : duplicate(held);
      this.#fds.push(fd);
      const stat = fstatSync(fd);
      checkKind(driver, path, stat);
      if (isNamed && this.#root !== undefined) this.#checkInside(path, fd);
      const identity = identityOf(stat);
      if (this.#seen.has(identity)) {
        const message = `'${path}': the chain of files comes back to this one`;
        throw new ImageError('invalid', 'ELOOP', message);
      }
      this.#seen.add(identity);
      if (writes && this.#policy.others?.includes(identity) === true) {
        throw inUse(path, '"write"', 'it is what is read');
      }
      if (held === undefined)
        this.#lock(fd, path, writes, writes ? this.#reader(path, fd) : undefined);
      return this.#withDirect({ path, fd, ...(faults !== undefined && { faults }) }, writes);
    });
  }

  #held(isData: boolean): number | undefined {
    const { held } = this.#policy;
    return isData ? held?.data : held?.image;
  }

  #reader(path: string, fd: number): number | undefined {
    const { readBy } = this.#policy;
    const reader = readBy?.find((other) => fileIdentity(other) === fileIdentity(fd));
    if (readBy === undefined || reader !== undefined) return reader;
    throw new ImageError('policy', 'EAGAIN', `'${path}' is another file by now`);
  }

  /** The same file once more, where the policy asks for it. */
  #withDirect(file: FileDescription, writes: boolean): FileDescription {
    if (this.#policy.direct !== true) return file;
    const directFd = openDirect(file.fd, writes);
    this.#fds.push(directFd);
    return { ...file, directFd };
  }

  #lock(fd: number, path: string, writes: boolean, reader?: number): void {
    const { lock, writable } = this.#policy;
    if (lock === undefined || this.#spec.locking === false) return;
    if (writes) lockImage(fd, path, 'write', { instead: reader });
    else if (writable === true) lockImage(fd, path, 'read');
    else {
      const kind = lock === 'write' ? 'read' : lock;
      const advised = this.#spec.forceShare === false;
      lockImage(fd, path, kind, advised ? { advice: 'force-share reads it all the same' } : {});
    }
  }

  /** The file behind the descriptor: a link changed since cannot lead elsewhere. */
  #checkInside(path: string, fd: number): void {
    const real = readlinkSync(`/proc/self/fd/${fd}`);
    if (isInside(real, this.#root!)) return;
    throw new ImageError(
      'policy',
      'EPERM',
      `'${path}' lies outside of backing-root '${this.#root}'`,
    );
  }
}

function openDirect(fd: number, writes: boolean): number {
  try {
    const access = writes ? constants.O_RDWR : constants.O_RDONLY;
    return openSync(`/proc/self/fd/${fd}`, access | constants.O_DIRECT);
  } catch (error) {
    if (errnoOf(error) !== ERRNO.EINVAL) throw error;
    throw new ImageError('unsupported', 'EINVAL', 'its file system has no O_DIRECT (cache=none)');
  }
}

function openForReading(path: string): number {
  return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
}

/**
 * The path of an image's data file. QEMU takes a relative name from where it was started; here the
 * image's own folder comes first, so that an image can be mounted from anywhere.
 */
function dataFilePath(image: string, name: string | null): string {
  if (name === null || name === '') throw invalid("'data-file' is required for this image");
  const beside = resolveName(image, name);
  return existsSync(beside) || !existsSync(name) ? beside : name;
}

function rootOf(path: string): string {
  try {
    const root = realpathSync(path);
    if (statSync(root).isDirectory()) return root;
  } catch (error) {
    if (!isExpected(error)) throw error;
    const { kind, code, message } = systemError(error);
    throw new ImageError(kind, code, `'backing-root' ${path}: ${message}`, {}, error);
  }
  throw new ImageError('invalid', 'ENOTDIR', `'backing-root' ${path} is not a folder`);
}

/** Of character devices only those that are asked for as such are opened. */
function checkKind(driver: FileDriver | undefined, path: string, stat: Stats): void {
  const device = driver === 'host_device' || driver === 'host_cdrom';
  if (device ? stat.isCharacterDevice() : stat.isFile()) return;
  if (driver !== 'file' && stat.isBlockDevice()) return;
  const wanted = device ? 'either a character or block device' : 'a regular file';
  const message = `'${driver ?? 'file'}' driver requires '${path}' to be ${wanted}`;
  throw new ImageError('invalid', stat.isDirectory() ? 'EISDIR' : 'EINVAL', message);
}

function checkWindow({ window, fd, path }: FileDescription): void {
  if (window?.size === undefined) return;
  const { offset, size } = window;
  const actual = storageOf({ fd, path }).size();
  if (offset + size <= actual) return;
  const sum = `The sum of offset (${offset}) and size (${size})`;
  const bound = `has to be smaller or equal to the  actual size of the containing file (${actual})`;
  throw new ImageError('invalid', 'EINVAL', `${sum} ${bound}`);
}

function checkCacheSizes(
  { l2EntrySize, refcountCacheSize = 0 }: ImageSpec,
  { geometry }: Qcow2Header,
): void {
  const { clusterSize } = geometry;
  const size = l2EntrySize ?? clusterSize;
  if (size < 512 || size > clusterSize || !Number.isInteger(Math.log2(size))) {
    const bounds = `must be a power of two between 512 and the cluster size (${clusterSize})`;
    throw new ImageError('invalid', 'EINVAL', `L2 cache entry size ${bounds}`);
  }
  if (Math.floor(refcountCacheSize / clusterSize) > MOST_CACHED) {
    throw new ImageError('invalid', 'EINVAL', 'Refcount cache size too big');
  }
}

/** What stands in the place of a format without being one: a way to a file, whose bytes are the disk. */
function driverOf({ format, nullDisk }: ImageSpec): string | undefined {
  if (format === 'null-co' || format === 'null-aio') {
    if (nullDisk !== undefined) return format;
    const message = `The only allowed filename for this driver is '${format}://'`;
    throw new ImageError('invalid', 'EINVAL', message);
  }
  return isFileDriver(format) ? format : undefined;
}

/** Formats of QEMU's that are none here, and what are none at all. */
function unknownFormat(format: string, isProbed: boolean): ImageError {
  if (!FOREIGN_FORMATS.includes(format)) {
    return new ImageError('invalid', 'EINVAL', `Unknown driver '${format}'`);
  }
  const supported = `supported: qcow2, raw, ${OTHER_FORMATS.join(', ')}`;
  const limit = isProbed ? `${supported}; format=raw takes its bytes as they are` : supported;
  return new ImageError('unsupported', 'ENOTSUP', `Format '${format}' is not supported`, { limit });
}
