/**
 * Snapshots taken, deleted and renamed as files of `disk.snapshots`, and the disk made what one of
 * them is, through the controls: attributes of the root that are set.
 */
import { describeError, ImageError } from '../errors.js';
import type { ImageWriter, VmStateSource } from '../image/writer.js';
import type { MountState } from '../shared/mount-state.js';
import { isOnFuse } from '../sys/file.js';
import { openVmStateFile } from '../tools/vm-state-file.js';
import { decodeName } from './names.js';
import { type Node, nodeId, SLOT } from './node.js';
import type { OpenFiles } from './open-files.js';
import { LAST_PARTITION_NUMBER } from './partitions/disk.js';
import type { Tree } from './tree.js';
import { CONTROL_PREFIX, CONTROLS } from './xattrs.js';

const SUFFIX = '.raw';
const RENAME_NOREPLACE = 1;

export interface SnapshotChangesOptions {
  readonly tree: Tree;
  readonly writer: ImageWriter;
  readonly files: OpenFiles;
  readonly state: MountState;
}

export class SnapshotChanges {
  readonly #options: SnapshotChangesOptions;
  /** Nodes whose pages the kernel may still keep though they show something else now. */
  #stale: readonly number[] = [];

  constructor(options: SnapshotChangesOptions) {
    this.#options = options;
  }

  /** Takes a snapshot of the disk as it is now; answers its file, counted as open if asked for. */
  create(parent: number, fileName: string, open: boolean): Node {
    const name = this.#nameFor(parent, fileName);
    return this.#changing(() => {
      this.#options.writer.createSnapshot(name);
      const id = this.#find(parent, fileName);
      const view = id === undefined ? undefined : this.#options.tree.viewOfSnapshot(id);
      if (id === undefined || view === undefined) throw missing(fileName);
      if (open) this.#options.files.open(view);
      try {
        return this.#node(id, fileName);
      } catch (error) {
        if (open) this.#options.files.close(view);
        throw error;
      }
    });
  }

  /** Deletes the snapshot whose file that is, if no file of it is open. */
  remove(parent: number, fileName: string): void {
    const id = this.#find(parent, fileName);
    if (id === undefined) throw missing(fileName);
    const view = this.#options.tree.viewOfSnapshot(id);
    if (view === undefined) throw new ImageError('policy', 'EPERM', `'${fileName}' stays`);
    this.#delete(view);
  }

  /** Renames the snapshot whose file that is. Another one is never replaced. */
  rename(parent: number, from: string, newParent: number, to: string, flags: number): void {
    if ((flags & ~RENAME_NOREPLACE) !== 0) {
      throw new ImageError('unsupported', 'EINVAL', `rename: flags ${flags}`);
    }
    const id = this.#find(parent, from);
    if (id === undefined) throw missing(from);
    const view = this.#options.tree.viewOfSnapshot(id);
    if (view === undefined || parent !== newParent) {
      // Not EXDEV: mv would copy the file, and delete the snapshot.
      throw new ImageError('policy', 'EPERM', `'${from}' stays where it is`);
    }
    const name = this.#nameFor(newParent, to);
    const target = this.#find(newParent, to);
    if (target === id) return;
    if (target !== undefined) throw new ImageError('policy', 'EEXIST', `'${to}' is there`);
    this.#changing(() => this.#options.writer.renameSnapshot(view, name));
  }

  /**
   * Sets an attribute of the root: what it is called is done with the snapshot that it names. `pid`:
   * the process that asks; 0 where it is not to be seen from here.
   */
  control(id: number, attribute: string, value: string, pid: number): void {
    const { tree, state } = this.#options;
    const control = CONTROLS.find((name) => attribute === `${CONTROL_PREFIX}${name}`);
    if (control === undefined || id !== tree.rootId) {
      throw new ImageError('unsupported', 'EOPNOTSUPP', `attribute '${attribute}'`);
    }
    try {
      if (!tree.hasSnapshots) {
        throw new ImageError('unsupported', 'ENOTSUP', 'the image cannot hold snapshots');
      }
      if (control === 'create') this.#take(value);
      else if (control === 'create-with-vm-state') this.#takeWithVmState(value, pid);
      else if (control === 'delete') this.#delete(this.#meant(value, 'name'));
      else this.#revert(this.#meant(value, 'id'));
      state.failure = '';
    } catch (error) {
      state.failure = describeError(error);
      throw error;
    }
  }

  /**
   * What the kernel is to forget, behind the answer to the request: it may wait for pages that
   * others of our requests hold. Null where there is nothing.
   */
  takeStale(): readonly number[] | null {
    if (this.#stale.length === 0) return null;
    const stale = this.#stale;
    this.#stale = [];
    return stale;
  }

  /** As `qemu-img snapshot -c` does: names may be taken twice, and instructions are counted. */
  #take(name: string, vmState?: VmStateSource): void {
    const options = { allowDuplicateName: true, icount: 0n, ...(vmState && { vmState }) };
    this.#changing(() => this.#options.writer.createSnapshot(name, options));
  }

  #takeWithVmState(value: string, pid: number): void {
    const [, fd, name] = /^(\d+):(.*)$/s.exec(value) ?? [];
    if (fd === undefined || name === undefined) {
      throw new ImageError('invalid', 'EINVAL', `'${value}' is no descriptor and name`);
    }
    const file = openVmStateFile(clientFile(pid, Number(fd)));
    try {
      this.#take(name, file);
    } finally {
      file.close();
    }
  }

  #delete(view: number): void {
    this.#options.files.withoutOpenFiles(view, 'the snapshot', () => {
      this.#changing(() => this.#options.writer.deleteSnapshot(view));
    });
  }

  #revert(view: number): void {
    const { files, state, tree, writer } = this.#options;
    files.withoutOpenFiles(0, 'the disk', () => {
      // Sizes can be set without opening.
      state.lockSize();
      try {
        this.#changing(() => writer.revertTo(view));
      } finally {
        state.unlockSize();
      }
    });
    const partitions = Array.from({ length: LAST_PARTITION_NUMBER }, (_, index) =>
      nodeId(0, SLOT.PARTITION + index + 1),
    );
    this.#stale = [tree.diskId, ...partitions];
  }

  #meant(name: string, first: 'id' | 'name'): number {
    const view = this.#within(() => this.#options.tree.findSnapshot(name, first));
    if (view === undefined) throw new ImageError('missing', 'ENOENT', `no snapshot '${name}'`);
    return view;
  }

  /** The name of a snapshot whose file is to have that name. */
  #nameFor(parent: number, fileName: string): string {
    const name = fileName.endsWith(SUFFIX) ? fileName.slice(0, -SUFFIX.length) : null;
    if (parent !== nodeId(0, SLOT.SNAPSHOTS) || name === null) {
      throw new ImageError('policy', 'EPERM', `no file '${fileName}' can be made here`, {
        limit: `snapshots: NAME${SUFFIX} in their folder`,
      });
    }
    const decoded = decodeName(name);
    if (decoded === null) {
      throw new ImageError('invalid', 'EINVAL', `no snapshot has a file named '${fileName}'`);
    }
    return decoded;
  }

  #find(parent: number, fileName: string): number | undefined {
    return this.#within(() => {
      const { tree } = this.#options;
      return tree.node(parent) === undefined ? undefined : tree.lookup(parent, fileName);
    });
  }

  #node(id: number, fileName: string): Node {
    const node = this.#within(() => this.#options.tree.node(id));
    if (node === undefined) throw missing(fileName);
    return node;
  }

  #within<T>(body: () => T): T {
    const { tree } = this.#options;
    tree.enter();
    try {
      return body();
    } finally {
      tree.leave();
    }
  }

  #changing<T>(body: () => T): T {
    try {
      return body();
    } finally {
      this.#options.state.markChanged();
    }
  }
}

/**
 * A file that another process has open, by that process' leave alone: what it cannot read itself, it
 * does not get to see in a snapshot. None of FUSE's: it could be ours, and wait for the image's lock.
 */
function clientFile(pid: number, fd: number): string {
  const path = `/proc/${pid}/fd/${fd}`;
  if (pid !== 0 && !isOnFuse(path)) return path;
  throw new ImageError(
    'unsupported',
    'EOPNOTSUPP',
    'the VM state is in no file that can be read here',
  );
}

function missing(name: string): ImageError {
  return new ImageError('missing', 'ENOENT', `no file '${name}'`);
}
