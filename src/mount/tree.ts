/**
 * The mounted tree over one image: nodes made on demand, the same in every thread.
 *
 *   disk.raw  disk.partitions/N.raw  disk.info.json
 *   disk.snapshots/NAME.raw  NAME.vmstate  NAME.partitions/N.raw
 *
 * An image can have 65,536 snapshots. So a name is found without reading any disk, a folder is
 * listed from any place on without a list of it, and a partition table is read only for who looks
 * for it. Where there are many snapshots, listing them leaves out their folders of partitions,
 * which are found by name all the same.
 */
import { LRUCache } from 'lru-cache';
import type { AttachedImage } from '../image/attach.js';
import type { Disk } from '../image/disk.js';
import type { Snapshot } from '../image/qcow2/snapshots.js';
import { BytesContent, type Origin, WindowContent } from './content.js';
import type { MountFacts } from './facts.js';
import { type Node, nodeId, ROOT_ID, SLOT, slotOf, viewOf } from './node.js';
import { NodeMaker } from './node-maker.js';
import { PartitionTables } from './partition-tables.js';
import type { Partition } from './partitions/table.js';
import { SnapshotFolder } from './snapshot-folder.js';
import { warnOnce } from './warn-once.js';

/** Nodes that a thread keeps. */
const NODES_KEPT = 4096;
/** Up to so many snapshots, listing them reads their partition tables. */
const MOST_TABLES_LISTED = 256;
/** Places in the listing of `disk.snapshots` for each snapshot: disk, VM state, partitions. */
const PLACES = 3;

/** The name that everything of the disk begins with. */
const DISK = 'disk';
/** Slots in the root, by what is put behind `disk`. */
const ROOT_SLOTS: ReadonlyMap<string, number> = new Map([
  ['.raw', SLOT.RAW],
  ['.partitions', SLOT.PARTITIONS],
  ['.snapshots', SLOT.SNAPSHOTS],
  ['.info.json', SLOT.INFO],
]);
const PARTITION_FILE = /^([1-9]\d*)\.raw$/;

export interface Entry {
  readonly name: string;
  readonly id: number;
  readonly directory: boolean;
  /** The place in the listing behind this entry. */
  readonly next: number;
}

export class Tree {
  readonly #image: AttachedImage;
  readonly #facts: MountFacts;
  readonly #maker: NodeMaker;
  /** Those in `disk.snapshots`. */
  readonly #snapshots: readonly Snapshot[];
  /** The one that is mounted as the disk. */
  readonly #mounted: Snapshot | undefined;
  readonly #folder: SnapshotFolder;
  readonly #nodes = new LRUCache<number, Node>({ max: NODES_KEPT });
  readonly #tables: PartitionTables;

  constructor(image: AttachedImage, facts: MountFacts) {
    this.#image = image;
    this.#facts = facts;
    this.#maker = new NodeMaker(image.description, facts);
    const top = image.description.layers[0];
    const snapshots = top.format === 'qcow2' ? top.snapshots : [];
    // A snapshot mounted as the disk is all there is to see.
    this.#snapshots = facts.snapshot === null ? snapshots : [];
    this.#mounted = facts.snapshot === null ? undefined : snapshots[facts.snapshot];
    this.#folder = new SnapshotFolder(this.#snapshots);
    this.#tables = new PartitionTables({
      disk: (view) => this.#disk(view),
      warn: (view, message) => this.#warn(view, message),
    });
  }

  /** The node of that number; undefined where there is none. Throws where it cannot be read. */
  node(id: number): Node | undefined {
    let node = this.#nodes.get(id);
    if (node === undefined) {
      node = this.#make(id);
      if (node !== undefined) this.#nodes.set(id, node);
    }
    return node;
  }

  /** The extended attributes of a node that there is. */
  xattrs(id: number): ReadonlyMap<string, string> {
    return this.#maker.xattrs(id, this.#origin(id) ?? {});
  }

  /** The number that a node called `name` in a directory has; there need not be one. */
  lookup(directory: number, name: string): number | undefined {
    switch (slotOf(directory)) {
      case SLOT.ROOT:
        return this.#lookupRoot(name);
      case SLOT.SNAPSHOTS:
        return this.#folder.find(name);
      default: {
        const number = PARTITION_FILE.exec(name)?.[1];
        if (number === undefined) return undefined;
        return this.#find(viewOf(directory), (found) => String(found.number) === number)?.id;
      }
    }
  }

  /** The entries of a directory from place `from` on, 0 or an entry's `next`. */
  list(directory: number, from: number): Iterable<Entry> {
    switch (slotOf(directory)) {
      case SLOT.ROOT:
        return this.#rootEntries().filter(({ next }) => next > from);
      case SLOT.SNAPSHOTS:
        return this.#listSnapshots(from);
      default:
        return this.#listPartitions(viewOf(directory), from);
    }
  }

  /** Files below the root, not counting folders' contents. */
  get rootFiles(): number {
    return this.#facts.rootIsFile ? 1 : this.#rootEntries().length;
  }

  /** The disk that is mounted. */
  get disk(): Disk {
    return this.#disk(0);
  }

  #lookupRoot(name: string): number | undefined {
    // The image's own name works for `disk`, unlisted: `vm.raw` for vm.qcow2.
    for (const start of [DISK, this.#facts.stem]) {
      const slot = name.startsWith(start) ? ROOT_SLOTS.get(name.slice(start.length)) : undefined;
      if (slot !== undefined) return nodeId(0, slot);
    }
    return undefined;
  }

  #rootEntries(): Entry[] {
    const entries = [file(`${DISK}.raw`, nodeId(0, SLOT.RAW), 1)];
    if (this.#showsPartitions(0)) {
      entries.push(directory(`${DISK}.partitions`, nodeId(0, SLOT.PARTITIONS), 2));
    }
    if (this.#hasSnapshots()) {
      entries.push(directory(`${DISK}.snapshots`, nodeId(0, SLOT.SNAPSHOTS), 3));
    }
    return [...entries, file(`${DISK}.info.json`, nodeId(0, SLOT.INFO), 4)];
  }

  *#listSnapshots(from: number): Generator<Entry> {
    const withTables = this.#snapshots.length <= MOST_TABLES_LISTED;
    for (let at = from; at < this.#snapshots.length * PLACES; at++) {
      const index = Math.floor(at / PLACES);
      const [name, view, next] = [this.#folder.nameOf(index), index + 1, at + 1];
      const place = at % PLACES;
      if (place === 0) yield file(`${name}.raw`, nodeId(view, SLOT.RAW), next);
      else if (place === 1) {
        if (this.#snapshots[index]!.vmStateSize === 0) continue;
        yield file(`${name}.vmstate`, nodeId(view, SLOT.VMSTATE), next);
      } else if (withTables && this.#showsPartitions(view)) {
        yield directory(`${name}.partitions`, nodeId(view, SLOT.PARTITIONS), next);
      }
    }
  }

  *#listPartitions(view: number, from: number): Generator<Entry> {
    for (const { number } of this.#tables.get(view)?.partitions ?? []) {
      const entry = file(`${number}.raw`, nodeId(view, SLOT.PARTITION + number), number);
      if (number > from) yield entry;
    }
  }

  #showsPartitions(view: number): boolean {
    return (this.#tables.tryGet(view)?.partitions.length ?? 0) > 0;
  }

  #find(view: number, wanted: (partition: Partition) => boolean) {
    const partition = this.#tables.get(view)?.partitions.find(wanted);
    return partition && { partition, id: nodeId(view, SLOT.PARTITION + partition.number) };
  }

  /** Formats that can hold snapshots show the folder for them, empty as it may be. */
  #hasSnapshots(): boolean {
    const top = this.#image.description.layers[0];
    return top.format === 'qcow2' && top.dataFile === null && this.#facts.snapshot === null;
  }

  /** What a node shows; undefined where there is no such node. */
  #origin(id: number): Origin | undefined {
    const view = viewOf(id);
    const slot = slotOf(id);
    if (view > this.#snapshots.length) return undefined;
    if (this.#facts.rootIsFile && id !== ROOT_ID) return undefined;
    const snapshot = view === 0 ? this.#mounted : this.#snapshots[view - 1];
    if (slot === SLOT.RAW || this.#facts.rootIsFile) {
      return { disk: this.#disk(view), start: 0, snapshot };
    }
    if (slot === SLOT.PARTITIONS) {
      const table = this.#tables.get(view);
      return table === null || table.partitions.length === 0 ? undefined : { snapshot, table };
    }
    if (slot >= SLOT.PARTITION) {
      const found = this.#find(view, ({ number }) => number === slot - SLOT.PARTITION);
      if (found === undefined) return undefined;
      const { partition } = found;
      return { disk: this.#disk(view), start: partition.offset, snapshot, partition };
    }
    if (slot === SLOT.VMSTATE)
      return view > 0 && snapshot!.vmStateSize > 0 ? { snapshot } : undefined;
    if (view > 0) return undefined;
    if (slot === SLOT.ROOT) return { snapshot };
    const there = slot === SLOT.INFO || (slot === SLOT.SNAPSHOTS && this.#hasSnapshots());
    return there ? {} : undefined;
  }

  #make(id: number): Node | undefined {
    const origin = this.#origin(id);
    if (origin === undefined) return undefined;
    const view = viewOf(id);
    const folder = view === 0 ? ROOT_ID : nodeId(0, SLOT.SNAPSHOTS);
    const { disk, partition } = origin;
    if (partition !== undefined) {
      const content = new WindowContent(disk!, partition.offset, partition.size);
      return this.#maker.file(id, nodeId(view, SLOT.PARTITIONS), content, origin);
    }
    if (disk !== undefined) return this.#maker.file(id, folder, disk, origin);
    switch (slotOf(id)) {
      case SLOT.VMSTATE:
        return this.#maker.file(id, folder, this.#image.vmState(view), origin);
      case SLOT.INFO: {
        const content = new BytesContent(Buffer.from(this.#facts.info));
        return this.#maker.file(id, folder, content, origin);
      }
      default:
        return this.#maker.directory(id, folder, origin, this.#subfolders(slotOf(id)));
    }
  }

  /** How many folders a folder holds; undefined where finding out is not cheap, or failed. */
  #subfolders(slot: number): number | undefined {
    if (slot === SLOT.PARTITIONS) return 0;
    if (slot === SLOT.SNAPSHOTS) return this.#snapshots.length === 0 ? 0 : undefined;
    if (this.#tables.tryGet(0) === undefined) return undefined;
    return this.#rootEntries().filter((entry) => entry.directory).length;
  }

  #disk(view: number): Disk {
    const mounted = this.#facts.snapshot;
    if (view > 0) return this.#image.snapshotDisk(view);
    return mounted === null ? this.#image.disk : this.#image.snapshotDisk(mounted + 1);
  }

  #warn(view: number, message: string): void {
    const snapshot = view === 0 ? this.#mounted : this.#snapshots[view - 1];
    const whose = snapshot === undefined ? '' : ` of snapshot '${snapshot.name}'`;
    const { path } = this.#image.description.layers[0].file;
    warnOnce(this.#facts.told, `${path}: partition table${whose}: ${message}`);
  }
}

function file(name: string, id: number, next: number): Entry {
  return { name, id, directory: false, next };
}

function directory(name: string, id: number, next: number): Entry {
  return { name, id, directory: true, next };
}
