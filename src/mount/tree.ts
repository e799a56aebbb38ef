/**
 * The mounted tree over one image: nodes made on demand, the same in every thread.
 *
 *   disk.raw  disk.partitions/N.raw  disk.info.json  disk.bitmaps/NAME.json  .qcow2fs/
 *   disk.snapshots/NAME.raw  NAME.vmstate  NAME.changed.json  NAME.partitions/N.raw
 *
 * An image can have 65,536 snapshots. So a name is found without reading any disk, a folder is
 * listed from any place on without a list of it, and a partition table is read only for who looks
 * for it. Where there are many snapshots, listing them leaves out their folders of partitions,
 * which are found by name all the same.
 */
import { LRUCache } from 'lru-cache';
import type { AttachedImage, SnapshotView } from '../image/attach.js';
import type { Disk } from '../image/disk.js';
import type { Snapshot } from '../image/qcow2/snapshots.js';
import type { ImageCounters } from '../shared/image-counters.js';
import { BitmapFolder } from './bitmap-folder.js';
import { ChangedExtents } from './changed-extents.js';
import { BytesContent, type Content, type Origin, WindowContent } from './content.js';
import { directoryEntry, type Entry, fileEntry } from './entry.js';
import type { MountFacts } from './facts.js';
import type { FileTree, MadeFiles } from './file-tree.js';
import { liveInfo } from './info-json.js';
import { metricsText } from './metrics.js';
import {
  isMadeOnReading,
  isOwnFile,
  isPartition,
  type Node,
  nodeId,
  ROOT_ID,
  SLOT,
  slotOf,
  viewOf,
} from './node.js';
import { NodeMaker } from './node-maker.js';
import { OWN_FOLDER, OwnFolder } from './own-folder.js';
import { PartitionTables } from './partition-tables.js';
import type { Partition } from './partitions/table.js';
import type { OpenWindows } from '../shared/open-windows.js';
import { SnapshotFolder } from './snapshot-folder.js';
import { imageStatus, mountStatus } from './status.js';
import { warnOnce } from './warn-once.js';

/** Nodes that a thread keeps: room for all of them is set aside. */
const NODES_KEPT = 4096;
/** The same of each image of many. */
const FEW_NODES_KEPT = 128;

/** The name that everything of the disk begins with. */
const DISK = 'disk';
/** Slots in the root, by what is put behind `disk`. */
const ROOT_SLOTS: ReadonlyMap<string, number> = new Map([
  ['.raw', SLOT.RAW],
  ['.partitions', SLOT.PARTITIONS],
  ['.snapshots', SLOT.SNAPSHOTS],
  ['.info.json', SLOT.INFO],
  ['.bitmaps', SLOT.BITMAPS],
]);
const PARTITION_FILE = /^([1-9]\d*)\.raw$/;

export class Tree implements FileTree {
  readonly #image: AttachedImage;
  readonly #facts: MountFacts;
  /** The files about the mount itself. */
  readonly own: OwnFolder;
  /** Where this thread counts what is read and written. */
  readonly counters: ImageCounters;
  readonly #bitmaps: BitmapFolder;
  readonly #changed: ChangedExtents;
  readonly #maker: NodeMaker;
  readonly #writable: boolean;
  readonly #windows: OpenWindows | null;
  /** What all below is made from: where it is another one, they are made again. */
  #generation = Number.NaN;
  #folder = new SnapshotFolder([]);
  /** The snapshot that is mounted as the disk. */
  #mounted: SnapshotView | undefined;
  /** Those that stay as they are until the generation changes. */
  readonly #nodes: LRUCache<number, Node>;
  readonly #tables: PartitionTables;

  /** `windows`: the partitions that are open, of a mount that can be written to. */
  constructor(image: AttachedImage, facts: MountFacts, windows: OpenWindows | null = null) {
    this.#image = image;
    this.#facts = facts;
    this.#windows = windows;
    this.#nodes = new LRUCache({ max: facts.oneOfMany === true ? FEW_NODES_KEPT : NODES_KEPT });
    this.counters = image.counters;
    this.own = new OwnFolder(facts.status.texts, [
      { name: 'metrics', make: () => metricsText(this.#status()) },
      { name: 'status.json', make: () => this.status() },
    ]);
    this.#bitmaps = new BitmapFolder(image);
    this.#changed = new ChangedExtents(image, facts.status.texts, facts.toldSizes);
    this.#maker = new NodeMaker(image.description, facts);
    this.#writable = image.description.writable;
    this.#tables = new PartitionTables({
      disk: (view) => this.#disk(view),
      warn: (view, message) => this.#warn(view, message),
    });
  }

  /**
   * Must surround everything else here, and be left before anything is changed: what is found in the
   * image meanwhile stays what it is. Does not nest.
   */
  enter(): void {
    this.#image.enter();
    try {
      if (this.#image.generation !== this.#generation) this.#refresh();
      // Whoever writes to the disk may change its table: it is read anew, once for each request.
      if (this.#writable) this.#tables.forget(0);
    } catch (error) {
      this.#image.leave();
      throw error;
    }
  }

  leave(): void {
    this.#image.leave();
  }

  #refresh(): void {
    const generation = this.#image.generation;
    const snapshots = this.#image.snapshots();
    const { snapshot: mounted } = this.#facts;
    // A snapshot mounted as the disk is all there is to see.
    this.#folder = new SnapshotFolder(mounted === null ? snapshots : []);
    this.#mounted = mounted === null ? undefined : snapshots[mounted];
    this.#nodes.clear();
    this.#tables.clear();
    this.#generation = generation;
  }

  /** The node of that number; undefined where there is none. Throws where it cannot be read. */
  node(id: number): Node | undefined {
    if ((this.#writable && viewOf(id) === 0) || isMadeOnReading(id)) return this.#make(id);
    let node = this.#nodes.get(id);
    if (node === undefined) {
      node = this.#make(id);
      if (node !== undefined) this.#nodes.set(id, node);
    }
    return node;
  }

  /** What the file of that number holds; undefined where there is none, or it is no file. */
  content(id: number): Content | undefined {
    // The way of every READ: without asking what stat would tell.
    if (this.#writable && this.isDisk(id)) return this.#image.disk;
    const node = this.node(id);
    return node?.kind === 'file' ? node.content : undefined;
  }

  madeFiles(id: number): MadeFiles {
    return isOwnFile(id) ? this.own : this.#changed;
  }

  readonly rootId: number = ROOT_ID;

  /** The file that is the disk itself. */
  get diskId(): number {
    return this.#facts.rootIsFile ? ROOT_ID : SLOT.RAW;
  }

  isDisk(id: number): boolean {
    return id === this.diskId;
  }

  /** The view of the snapshot whose disk the file is; undefined where it is another file. */
  viewOfSnapshot(id: number): number | undefined {
    return slotOf(id) === SLOT.RAW && viewOf(id) > 0 ? viewOf(id) : undefined;
  }

  /** Whether the file shows bytes of a disk, or of a VM state: those of `viewOf(id)`. */
  isOfView(id: number): boolean {
    const slot = slotOf(id);
    if (this.isDisk(id) || isPartition(slot)) return true;
    return viewOf(id) > 0 && (slot === SLOT.RAW || slot === SLOT.VMSTATE);
  }

  lasts(id: number): boolean {
    return !isMadeOnReading(id);
  }

  /** The view of the snapshot that a user means: by its name, its id, or its files' name. */
  findSnapshot(wanted: string, first: 'id' | 'name'): number | undefined {
    return this.#folder.meant(wanted, first);
  }

  /** The extended attributes of a node that there is. */
  xattrs(id: number): ReadonlyMap<string, string> {
    const live = { diskSize: this.#image.disk.size, snapshots: this.#image.snapshots().length };
    return this.#maker.xattrs(id, this.#origin(id) ?? {}, live);
  }

  /** What the mount has done so far, as JSON. */
  status(): string {
    return `${JSON.stringify(this.#status())}\n`;
  }

  #status() {
    return mountStatus(this.#facts.status, [imageStatus(this.#image)]);
  }

  /** The number that a node called `name` in a directory has; there need not be one. */
  lookup(directory: number, name: string): number | undefined {
    switch (slotOf(directory)) {
      case SLOT.ROOT:
        return this.#lookupRoot(name);
      case SLOT.SNAPSHOTS:
        return this.#folder.find(name);
      case SLOT.BITMAPS:
        return this.#bitmaps.find(name);
      case SLOT.OWN:
        return this.own.find(name);
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
        return this.#folder.list(from, (view) => this.#showsPartitions(view));
      case SLOT.BITMAPS:
        return this.#bitmaps.list(from);
      case SLOT.OWN:
        return this.own.list(from);
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
    if (name === OWN_FOLDER) return nodeId(0, SLOT.OWN);
    // The image's own name works for `disk`, unlisted: `vm.raw` for vm.qcow2.
    for (const start of [DISK, this.#facts.stem]) {
      const slot = name.startsWith(start) ? ROOT_SLOTS.get(name.slice(start.length)) : undefined;
      if (slot !== undefined) return nodeId(0, slot);
    }
    return undefined;
  }

  #rootEntries(): Entry[] {
    const entries = [fileEntry(`${DISK}.raw`, nodeId(0, SLOT.RAW), 1)];
    if (this.#showsPartitions(0)) {
      entries.push(directoryEntry(`${DISK}.partitions`, nodeId(0, SLOT.PARTITIONS), 2));
    }
    if (this.hasSnapshots) {
      entries.push(directoryEntry(`${DISK}.snapshots`, nodeId(0, SLOT.SNAPSHOTS), 3));
    }
    entries.push(fileEntry(`${DISK}.info.json`, nodeId(0, SLOT.INFO), 4));
    if (this.#hasBitmaps) {
      entries.push(directoryEntry(`${DISK}.bitmaps`, nodeId(0, SLOT.BITMAPS), 5));
    }
    return entries;
  }

  *#listPartitions(view: number, from: number): Generator<Entry> {
    for (const { number } of this.#tables.get(view)?.partitions ?? []) {
      const entry = fileEntry(`${number}.raw`, nodeId(view, SLOT.PARTITION + number), number);
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
  get hasSnapshots(): boolean {
    const top = this.#image.description.layers[0];
    return top.format === 'qcow2' && top.dataFile === null && this.#facts.snapshot === null;
  }

  /** They are of the disk as it is now. */
  get #hasBitmaps(): boolean {
    return !this.#bitmaps.isEmpty && this.#facts.snapshot === null;
  }

  /** What a node shows; undefined where there is no such node. */
  #origin(id: number): Origin | undefined {
    const view = viewOf(id);
    const slot = slotOf(id);
    const snapshot = this.#snapshotOf(view);
    if (view > 0 && snapshot === undefined) return undefined;
    if (this.#facts.rootIsFile && id !== ROOT_ID) return undefined;
    if (slot === SLOT.RAW || this.#facts.rootIsFile) {
      return { disk: this.#disk(view), start: 0, snapshot };
    }
    if (slot === SLOT.PARTITIONS) {
      const table = this.#tables.get(view);
      return table === null || table.partitions.length === 0 ? undefined : { snapshot, table };
    }
    if (isPartition(slot)) {
      const number = slot - SLOT.PARTITION;
      const found = this.#find(view, (candidate) => candidate.number === number);
      const partition = found?.partition ?? (view === 0 ? this.#openPartition(number) : undefined);
      if (partition === undefined) return undefined;
      return { disk: this.#disk(view), start: partition.offset, snapshot, partition };
    }
    if (slot === SLOT.VMSTATE)
      return view > 0 && snapshot!.vmStateSize > 0 ? { snapshot } : undefined;
    if (slot === SLOT.CHANGED) return view > 0 ? { snapshot } : undefined;
    if (view > 0) return undefined;
    if (slot === SLOT.ROOT) return { snapshot };
    const bitmap = this.#hasBitmaps ? this.#bitmaps.bitmap(slot) : undefined;
    if (bitmap !== undefined) return { bitmap };
    const there =
      slot === SLOT.INFO ||
      slot === SLOT.OWN ||
      this.own.has(id) ||
      (slot === SLOT.SNAPSHOTS && this.hasSnapshots) ||
      (slot === SLOT.BITMAPS && this.#hasBitmaps);
    return there ? {} : undefined;
  }

  /** A partition that is open, though the table has none of that number any more. */
  #openPartition(number: number): Partition | undefined {
    const windows = this.#windows;
    const slot = windows === null ? -1 : windows.find(number);
    if (slot < 0) return undefined;
    const [offset, size] = [windows!.start(slot), windows!.size(slot)];
    return { number, offset, size, type: '', name: '' };
  }

  #make(id: number): Node | undefined {
    const origin = this.#origin(id);
    if (origin === undefined) return undefined;
    const view = viewOf(id);
    const folder = view === 0 ? ROOT_ID : nodeId(0, SLOT.SNAPSHOTS);
    const { bitmap, disk, partition } = origin;
    if (bitmap !== undefined) {
      const content = this.#bitmaps.content(slotOf(id));
      return this.#maker.file(id, nodeId(0, SLOT.BITMAPS), content, origin);
    }
    if (partition !== undefined) {
      const content = new WindowContent(disk!, partition.offset, partition.size);
      return this.#maker.file(id, nodeId(view, SLOT.PARTITIONS), content, origin);
    }
    if (disk !== undefined) return this.#maker.file(id, folder, disk, origin);
    if (this.own.has(id)) return this.#maker.made(id, SLOT.OWN, 0, origin);
    switch (slotOf(id)) {
      case SLOT.VMSTATE:
        return this.#maker.file(id, folder, this.#image.vmState(view), origin);
      case SLOT.CHANGED:
        return this.#maker.made(id, folder, this.#changed.size(view), origin);
      case SLOT.INFO: {
        const content = new BytesContent(Buffer.from(this.#info()));
        return this.#maker.file(id, folder, content, origin);
      }
      default:
        return this.#maker.directory(id, folder, origin, this.#subfolders(slotOf(id)));
    }
  }

  /** How many folders a folder holds; undefined where finding out is not cheap, or failed. */
  #subfolders(slot: number): number | undefined {
    if (slot === SLOT.PARTITIONS || slot === SLOT.BITMAPS || slot === SLOT.OWN) return 0;
    if (slot === SLOT.SNAPSHOTS) return this.#folder.isEmpty ? 0 : undefined;
    if (this.#tables.tryGet(0) === undefined) return undefined;
    return this.#rootEntries().filter((entry) => entry.directory).length;
  }

  #info(): string {
    const { info, imageName } = this.#facts;
    if (!this.#writable) return info;
    const { description, disk } = this.#image;
    const snapshots = this.#image.snapshots().map(({ snapshot }) => snapshot);
    return liveInfo({ description, disk, snapshots }, imageName);
  }

  #disk(view: number): Disk {
    const shown = view === 0 ? this.#mounted?.view : view;
    return shown === undefined ? this.#image.disk : this.#image.snapshotDisk(shown);
  }

  #snapshotOf(view: number): Snapshot | undefined {
    return view === 0 ? this.#mounted?.snapshot : this.#folder.snapshot(view);
  }

  #warn(view: number, message: string): void {
    const snapshot = this.#snapshotOf(view);
    const whose = snapshot === undefined ? '' : ` of snapshot '${snapshot.name}'`;
    const { path } = this.#image.description.layers[0].file;
    warnOnce(this.#facts.told, `${path}: partition table${whose}: ${message}`);
  }
}
