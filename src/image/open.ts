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
import { sep } from 'node:path';
import { describeError, ERRNO, errnoOf, ImageError, isExpected } from '../errors.js';
import { FileStorage } from '../storage/file.js';
import type { Storage } from '../storage/storage.js';
import type {
  FileDescription,
  ImageDescription,
  LayerDescription,
  Qcow2Description,
} from './description.js';
import { resolveName } from './file-names.js';
import { type LockKind, lockImage } from './lock.js';
import { systemError, within } from './open-errors.js';
import { probeFormat } from './probe.js';
import { readBitmaps } from './qcow2/bitmaps.js';
import { hasBit } from './qcow2/features.js';
import { prepareForWriting } from './qcow2/header-edit.js';
import { type Qcow2Header, readHeader } from './qcow2/header.js';
import { CRYPT_METHOD, INCOMPATIBLE } from './qcow2/layout.js';
import { rebuildRefcounts } from './qcow2/rebuild.js';
import { readSnapshots, type Snapshot } from './qcow2/snapshots.js';
import { checkFeaturesForWriting, checkTablesForWriting } from './qcow2/writable.js';

/** Layers of a chain at most: deeper ones are taken for an attack. */
export const MAX_LAYERS = 256;

/** What may be opened. */
export interface OpenPolicy {
  /** The image's format; probed where it is not given. */
  readonly format?: string | undefined;
  /** Refuse images that name another file. */
  readonly noBacking?: boolean | undefined;
  /** A folder: whatever an image names must lie in it, links followed. */
  readonly backingRoot?: string | undefined;
  /** Open the image alone, as if it had no backing file; for looking at its header. */
  readonly alone?: boolean | undefined;
  /**
   * Open the image itself for writing; the files that it names stay read-only. It must be in order:
   * much that is shown with a warning for reading is refused. Asks for locks.
   */
  readonly writable?: boolean | undefined;
  /** Read and write past the host's page cache. */
  readonly direct?: boolean | undefined;
  /**
   * QEMU's locks to take on each file of the chain; none where it is not given. Where the image is
   * opened for writing, its own is 'write' and the others' are 'read', whatever is given.
   */
  readonly lock?: LockKind | undefined;
  /** Allow encrypted images; for looking at the header. */
  readonly allowEncrypted?: boolean | undefined;
  /** Leave external data files closed, there or not; for looking at the headers of a chain. */
  readonly noDataFiles?: boolean | undefined;
}

export interface OpenedImage {
  readonly description: ImageDescription;
  /** What the user should know though the image could be opened. */
  readonly warnings: readonly string[];
}

/** Opens the image at `path` and its chain. Nothing stays open where it throws. */
export function openImage(path: string, policy: OpenPolicy = {}): OpenedImage {
  const opening = new Opening(policy);
  try {
    return opening.run(path);
  } catch (error) {
    opening.close();
    throw error;
  }
}

/** Closes the descriptors of an image that no thread uses any more. */
export function closeImage(description: ImageDescription): void {
  for (const layer of description.layers) {
    closeFile(layer.file);
    if (layer.format === 'qcow2' && layer.dataFile !== null) closeFile(layer.dataFile);
  }
}

function closeFile({ fd, directFd }: FileDescription): void {
  closeSync(fd);
  if (directFd !== undefined) closeSync(directFd);
}

class Opening {
  readonly #policy: OpenPolicy;
  readonly #root: string | undefined;
  readonly #fds: number[] = [];
  readonly #warnings: string[] = [];
  readonly #seen = new Set<string>();

  constructor(policy: OpenPolicy) {
    this.#policy = policy;
    if (policy.writable === true && policy.lock === undefined) {
      const message = 'force-share can only be used with read-only images';
      throw new ImageError('policy', 'EINVAL', message);
    }
    this.#root = policy.backingRoot === undefined ? undefined : rootOf(policy.backingRoot);
  }

  close(): void {
    for (const fd of this.#fds) closeSync(fd);
  }

  run(path: string): OpenedImage {
    const layers: LayerDescription[] = [];
    let next: { path: string; format: string | null } | null = {
      path,
      format: this.#policy.format ?? null,
    };
    while (next !== null) {
      if (layers.length === MAX_LAYERS) {
        throw new ImageError('invalid', 'ELOOP', `Could not open '${next.path}': chain too deep`, {
          path: next.path,
          limit: `at most ${MAX_LAYERS} layers`,
        });
      }
      const overlay = layers.at(-1)?.file.path;
      const file = this.#openFile(next.path, overlay);
      const open = () => this.#openLayer(file, next!.format, overlay);
      const layer = within(file.path, overlay, open);
      layers.push(layer);
      next = this.#policy.alone === true ? null : this.#backingOf(layer);
    }
    const [top, ...below] = layers;
    const writable = this.#policy.writable === true;
    const first = writable ? this.#prepareForWriting(top!) : top!;
    return { description: { layers: [first, ...below], writable }, warnings: this.#warnings };
  }

  /** Last of all: an image that cannot be opened stays as it is. */
  #prepareForWriting(layer: LayerDescription): LayerDescription {
    if (layer.format !== 'qcow2') return layer;
    const { fd, path } = layer.file;
    return within(path, undefined, () => {
      const storage = new FileStorage(fd, path);
      const repaired = layer.needsRepair ? this.#repair(storage, layer) : layer.header;
      const { header, warnings } = prepareForWriting(storage, repaired);
      this.#warnings.push(...warnings.map((warning) => `${path}: ${warning}`));
      return { ...layer, header, needsRepair: false };
    });
  }

  /** Counts the references of a dirty image anew; answers its header, which that changes. */
  #repair(storage: FileStorage, { header, snapshots }: Qcow2Description): Qcow2Header {
    const bitmaps = readBitmaps(storage, header);
    const { leaksFixed, corruptionsFixed } = rebuildRefcounts(storage, header, snapshots, bitmaps);
    const fixed = `${leaksFixed} leaks and ${corruptionsFixed} errors in its refcounts are repaired`;
    this.#warnings.push(`${storage.name}: image was not closed cleanly: ${fixed}`);
    return readHeader(storage);
  }

  /** Whether an image is the one to be written to: which no other names. */
  #writes(by: string | undefined): boolean {
    return by === undefined && this.#policy.writable === true;
  }

  #openLayer(
    file: FileDescription,
    format: string | null,
    overlay: string | undefined,
  ): LayerDescription {
    const storage = new FileStorage(file.fd, file.path);
    const known = format === 'host_device' || format === 'file' ? 'raw' : format;
    const probed = known ?? probeFormat(storage);
    if (format === null && overlay !== undefined) {
      this.#warnings.push(
        `${overlay}: backing file '${file.path}' has no stated format; probed as ${probed}`,
      );
    }
    if (format === null && probed === 'raw' && this.#writes(overlay)) {
      // A guest could write another format's header into it, with names of the host's files.
      throw new ImageError(
        'policy',
        'EINVAL',
        'raw images are written to only where it is stated',
        {
          path: file.path,
          limit: 'format=raw',
        },
      );
    }
    if (probed === 'raw') return { format: 'raw', file, fileSize: storage.size() };
    if (probed === 'qcow2') return this.#openQcow2(file, storage, this.#writes(overlay));
    throw new ImageError('unsupported', 'ENOTSUP', `Format '${probed}' is not supported`, {
      path: file.path,
      limit: 'supported: qcow2, raw',
    });
  }

  #openQcow2(file: FileDescription, storage: Storage, writes: boolean): LayerDescription {
    const header = readHeader(storage);
    if (header.cryptMethod !== CRYPT_METHOD.NONE && this.#policy.allowEncrypted !== true) {
      const method = header.cryptMethod === CRYPT_METHOD.LUKS ? 'LUKS' : 'AES';
      throw new ImageError(
        'unsupported',
        'ENOTSUP',
        `Encrypted images (${method}) are not supported`,
      );
    }
    if (writes) checkFeaturesForWriting(header);
    const needsRepair = hasBit(header.incompatibleFeatures, INCOMPATIBLE.DIRTY);
    if (needsRepair && !writes) {
      this.#warnings.push(`${file.path}: image was not closed cleanly; its refcounts may be wrong`);
    }
    if (hasBit(header.incompatibleFeatures, INCOMPATIBLE.CORRUPT)) {
      this.#warnings.push(`${file.path}: image is marked corrupt; what it reads may be wrong`);
    }
    const external = hasBit(header.incompatibleFeatures, INCOMPATIBLE.DATA_FILE);
    const wanted = this.#policy.alone !== true && this.#policy.noDataFiles !== true;
    const dataFile =
      external && wanted
        ? this.#openFile(dataFilePath(file.path, header.extensions.dataFile!), file.path, writes)
        : null;
    const snapshots = writes
      ? readSnapshots(storage, header)
      : this.#readSnapshots(file, storage, header);
    if (writes) checkTablesForWriting(storage, header, snapshots);
    for (const { name, problem } of snapshots) {
      if (problem !== null) this.#warnings.push(`${file.path}: snapshot '${name}': ${problem}`);
    }
    const bitmaps = writes ? [] : readBitmaps(storage, header);
    return { format: 'qcow2', file, dataFile, header, snapshots, bitmaps, needsRepair };
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

  #backingOf(layer: LayerDescription): { path: string; format: string | null } | null {
    if (layer.format !== 'qcow2' || layer.header.backingFile === null) return null;
    const { header, file } = layer;
    const path = within(file.path, undefined, () => resolveName(file.path, header.backingFile!));
    // As QEMU: an empty name states no format.
    return { path, format: header.extensions.backingFormat || null };
  }

  /** Opens a regular file or block device; named by the image `by`, it must pass the policy. */
  #openFile(path: string, by: string | undefined, writes = this.#writes(by)): FileDescription {
    return within(path, by, () => {
      if (by !== undefined && this.#policy.noBacking === true) {
        throw new ImageError('policy', 'EPERM', "other files are not opened ('no-backing')");
      }
      // Looked at first: opening a FIFO or a device can block or have effects.
      const looked = statSync(path);
      checkKind(looked);
      const fd = writes ? openForWriting(path, looked) : openForReading(path);
      this.#fds.push(fd);
      const stat = fstatSync(fd);
      checkKind(stat);
      if (by !== undefined && this.#root !== undefined) this.#checkInside(fd);
      // By what they are, not by name: links make many names of one file.
      const identity = stat.isBlockDevice() ? `block ${stat.rdev}` : `${stat.dev}:${stat.ino}`;
      if (this.#seen.has(identity)) {
        throw new ImageError('invalid', 'ELOOP', 'the chain of files comes back to this one');
      }
      this.#seen.add(identity);
      this.#lock(fd, path, writes);
      return this.#withDirect({ path, fd }, writes);
    });
  }

  /** The same file once more, where the policy asks for it. */
  #withDirect(file: FileDescription, writes: boolean): FileDescription {
    if (this.#policy.direct !== true) return file;
    const directFd = openDirect(file.fd, writes);
    this.#fds.push(directFd);
    return { ...file, directFd };
  }

  #lock(fd: number, path: string, writes: boolean): void {
    const { lock, writable } = this.#policy;
    if (lock === undefined) return;
    if (writes) lockImage(fd, path, 'write');
    else if (writable === true) lockImage(fd, path, 'read');
    else {
      const kind = lock === 'write' ? 'read' : lock;
      lockImage(fd, path, kind, 'force-share reads it all the same');
    }
  }

  /** The file behind the descriptor: a link changed since cannot lead elsewhere. */
  #checkInside(fd: number): void {
    const real = readlinkSync(`/proc/self/fd/${fd}`);
    if (real.startsWith(this.#root === sep ? sep : `${this.#root}${sep}`)) return;
    throw new ImageError('policy', 'EPERM', `lies outside of backing-root '${this.#root}'`);
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

function openForWriting(path: string, looked: Stats): number {
  const { O_RDWR, O_NONBLOCK, O_EXCL } = constants;
  // A block device that is mounted, or part of another one, is the kernel's: O_EXCL asks.
  const exclusive = looked.isBlockDevice() ? O_EXCL : 0;
  try {
    return openSync(path, O_RDWR | O_NONBLOCK | exclusive);
  } catch (error) {
    if (!isExpected(error)) throw error;
    const { kind, code, message } = systemError(error);
    throw new ImageError(kind, code, message, { limit: 'opened for writing' }, error);
  }
}

/**
 * The path of an image's data file. QEMU takes a relative name from where it was started; here the
 * image's own folder comes first, so that an image can be mounted from anywhere.
 */
function dataFilePath(image: string, name: string): string {
  const beside = resolveName(image, name);
  return existsSync(beside) || !existsSync(name) ? beside : name;
}

function rootOf(path: string): string {
  return within(path, undefined, () => {
    const root = realpathSync(path);
    if (!statSync(root).isDirectory()) {
      throw new ImageError('invalid', 'ENOTDIR', "'backing-root' is not a folder");
    }
    return root;
  });
}

function checkKind(stat: Stats): void {
  if (stat.isFile() || stat.isBlockDevice()) return;
  const code = stat.isDirectory() ? 'EISDIR' : 'EINVAL';
  throw new ImageError('invalid', code, 'not a regular file or block device');
}
