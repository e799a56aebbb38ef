/**
 * The mounted tree over one image: nodes made on demand and kept, the same in every thread.
 *
 *   disk.raw  disk.partitions/N.raw  disk.info.json
 *   disk.snapshots/NAME.raw  NAME.vmstate  NAME.partitions/N.raw
 */
import { LRUCache } from 'lru-cache';
import type { AttachedImage } from '../image/attach.js';
import type { Disk } from '../image/disk.js';
import type { Snapshot } from '../image/qcow2/snapshots.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { BytesContent, type Content, WindowContent } from './content.js';
import type { MountFacts } from './facts.js';
import { snapshotFileNames } from './names.js';
import { type Node, nodeId, ROOT_ID, SLOT, slotOf, viewOf } from './node.js';
import { NodeMaker } from './node-maker.js';
import { type PartitionTable, readPartitionTable } from './partitions/table.js';

/** Nodes that a thread keeps: an image can have a hundred thousand. */
const NODES_KEPT = 4096;

/** The name that everything of the disk begins with. */
const DISK = 'disk';

export interface Entry {
  readonly name: string;
  readonly id: number;
  readonly directory: boolean;
}

export class Tree {
  readonly #image: AttachedImage;
  readonly #facts: MountFacts;
  readonly #maker: NodeMaker;
  readonly #snapshots: readonly Snapshot[];
  readonly #names: readonly string[];
  readonly #nodes = new LRUCache<number, Node>({ max: NODES_KEPT });
  readonly #lists = new Map<number, readonly Entry[]>();
  readonly #indexes = new Map<number, ReadonlyMap<string, number>>();
  readonly #tables = new Map<number, PartitionTable | null>();

  constructor(image: AttachedImage, facts: MountFacts) {
    this.#image = image;
    this.#facts = facts;
    this.#maker = new NodeMaker(image.description, facts);
    const top = image.description.layers[0];
    // A snapshot mounted as the disk is all there is to see.
    this.#snapshots = top.format === 'qcow2' && facts.snapshot === null ? top.snapshots : [];
    this.#names = snapshotFileNames(this.#snapshots);
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

  /** The number of the node called `name` in a directory. */
  lookup(directory: number, name: string): number | undefined {
    let index = this.#indexes.get(directory);
    if (index === undefined) {
      index = new Map(this.list(directory).map((entry) => [entry.name, entry.id]));
      this.#indexes.set(directory, index);
    }
    return index.get(name) ?? (directory === ROOT_ID ? this.#lookupStem(index, name) : undefined);
  }

  /** The entries of a directory, without `.` and `..`. */
  list(directory: number): readonly Entry[] {
    let list = this.#lists.get(directory);
    if (list === undefined) {
      list = this.#list(directory);
      this.#lists.set(directory, list);
    }
    return list;
  }

  /** The image's own name works for `disk`, unlisted: `vm.raw` for vm.qcow2. */
  #lookupStem(index: ReadonlyMap<string, number>, name: string): number | undefined {
    const { stem } = this.#facts;
    return name.startsWith(`${stem}.`) ? index.get(DISK + name.slice(stem.length)) : undefined;
  }

  #list(directory: number): Entry[] {
    const view = viewOf(directory);
    switch (slotOf(directory)) {
      case SLOT.ROOT:
        return this.#listRoot();
      case SLOT.SNAPSHOTS:
        return this.#names.flatMap((name, index) => this.#listSnapshot(name, index));
      default:
        return this.#table(view)!.partitions.map(({ number }) =>
          file(`${number}.raw`, nodeId(view, SLOT.PARTITION + number)),
        );
    }
  }

  #listRoot(): Entry[] {
    const entries = [file(`${DISK}.raw`, nodeId(0, SLOT.RAW)), ...this.#partitionsEntry(DISK, 0)];
    if (this.#hasSnapshots()) {
      entries.push(directory(`${DISK}.snapshots`, nodeId(0, SLOT.SNAPSHOTS)));
    }
    entries.push(file(`${DISK}.info.json`, nodeId(0, SLOT.INFO)));
    return entries;
  }

  #listSnapshot(name: string, index: number): Entry[] {
    const view = index + 1;
    const entries = [file(`${name}.raw`, nodeId(view, SLOT.RAW))];
    if (this.#snapshots[index]!.vmStateSize > 0) {
      entries.push(file(`${name}.vmstate`, nodeId(view, SLOT.VMSTATE)));
    }
    return [...entries, ...this.#partitionsEntry(name, view)];
  }

  #partitionsEntry(name: string, view: number): Entry[] {
    const partitions = this.#table(view)?.partitions ?? [];
    if (partitions.length === 0) return [];
    return [directory(`${name}.partitions`, nodeId(view, SLOT.PARTITIONS))];
  }

  /** Formats that can hold snapshots show the folder for them, empty as it may be. */
  #hasSnapshots(): boolean {
    const top = this.#image.description.layers[0];
    return top.format === 'qcow2' && top.dataFile === null && this.#facts.snapshot === null;
  }

  #make(id: number): Node | undefined {
    const view = viewOf(id);
    const slot = slotOf(id);
    if (view > this.#snapshots.length) return undefined;
    if (this.#facts.rootIsFile) return id === ROOT_ID ? this.#makeDisk(id, ROOT_ID, 0) : undefined;
    const folder = view === 0 ? ROOT_ID : nodeId(0, SLOT.SNAPSHOTS);
    if (slot === SLOT.RAW) return this.#makeDisk(id, folder, view);
    if (slot === SLOT.PARTITIONS || slot >= SLOT.PARTITION) return this.#makePartition(id, folder);
    if (slot === SLOT.VMSTATE && view > 0) {
      const snapshot = this.#snapshots[view - 1]!;
      if (snapshot.vmStateSize === 0) return undefined;
      return this.#maker.file(id, folder, this.#image.vmState(view - 1), { snapshot });
    }
    if (view > 0) return undefined;
    if (slot === SLOT.ROOT || slot === SLOT.SNAPSHOTS) return this.#maker.directory(id, ROOT_ID);
    if (slot === SLOT.INFO) {
      const content = new BytesContent(Buffer.from(this.#facts.info));
      return this.#maker.file(id, ROOT_ID, content, {});
    }
    return undefined;
  }

  #makeDisk(id: number, parent: number, view: number): Node {
    const disk = this.#disk(view);
    const snapshot = this.#snapshots[view - 1];
    return this.#maker.file(id, parent, disk, { disk, start: 0, snapshot });
  }

  #makePartition(id: number, folder: number): Node | undefined {
    const view = viewOf(id);
    const snapshot = this.#snapshots[view - 1];
    const table = this.#table(view);
    if (table === null || table.partitions.length === 0) return undefined;
    if (slotOf(id) === SLOT.PARTITIONS) return this.#maker.directory(id, folder, snapshot);
    const number = slotOf(id) - SLOT.PARTITION;
    const partition = table.partitions.find((candidate) => candidate.number === number);
    if (partition === undefined) return undefined;
    const disk = this.#disk(view);
    const content: Content = new WindowContent(disk, partition.offset, partition.size);
    const parent = nodeId(view, SLOT.PARTITIONS);
    const { offset: start } = partition;
    return this.#maker.file(id, parent, content, { disk, start, snapshot, partition });
  }

  /** Files below the root, not counting folders' contents. */
  get rootFiles(): number {
    return this.#facts.rootIsFile ? 1 : this.list(ROOT_ID).length;
  }

  /** The disk that is mounted. */
  get disk(): Disk {
    return this.#disk(0);
  }

  #disk(view: number): Disk {
    const mounted = this.#facts.snapshot;
    if (view > 0) return this.#image.snapshotDisk(view - 1);
    return mounted === null ? this.#image.disk : this.#image.snapshotDisk(mounted);
  }

  /** The partition table of a view; none where its disk cannot be read there. */
  #table(view: number): PartitionTable | null {
    let table = this.#tables.get(view);
    if (table === undefined) {
      table = this.#readTable(view);
      this.#tables.set(view, table);
    }
    return table;
  }

  #readTable(view: number): PartitionTable | null {
    try {
      const disk = this.#disk(view);
      const read = (offset: number, length: number) => {
        const buffer = new IoBuffer(length);
        disk.read(offset, length, buffer, 0);
        return buffer.bytes;
      };
      return readPartitionTable(read, disk.size);
    } catch {
      // Reading the raw file itself tells the user what is wrong.
      return null;
    }
  }
}

function file(name: string, id: number): Entry {
  return { name, id, directory: false };
}

function directory(name: string, id: number): Entry {
  return { name, id, directory: true };
}
