/**
 * Writing single fields of a header in place. Fields that belong together go in one write, which
 * lies in one sector: a crash leaves all of them old or all new. Nothing is flushed but where it is
 * said: what must be durable before and after is the caller's order to keep.
 */
import type { FieldTable, Struct, ValuesOf } from '../../codec/struct.js';
import { ImageError } from '../../errors.js';
import type { MutableStorage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { Qcow2Header } from './header.js';
import { HEADER, HEADER_V3 } from './layout.js';

/** What editing needs of an image's file. */
export type HeaderStorage = Pick<MutableStorage, 'name' | 'size' | 'read' | 'write' | 'flush'>;

/** Masks of feature bits: those given are written, the others stay. */
export interface FeatureMasks {
  readonly incompatible?: bigint;
  readonly compatible?: bigint;
  readonly autoclear?: bigint;
}

/** Room for the fields of fixed length. */
function makeRoom(): IoBuffer {
  return new IoBuffer(HEADER.size + HEADER_V3.size);
}

/**
 * Writes feature masks, bytes 72-95. Only version 3 has them: in a version 2 image other things lie
 * there, so it is asked first.
 */
export function setFeatures(storage: HeaderStorage, masks: FeatureMasks): void {
  const { view } = readFixed(storage);
  const now = HEADER_V3.read(view, HEADER.size);
  writeFields(storage, HEADER_V3, HEADER.size, {
    incompatibleFeatures: masks.incompatible ?? now.incompatibleFeatures,
    compatibleFeatures: masks.compatible ?? now.compatibleFeatures,
    autoclearFeatures: masks.autoclear ?? now.autoclearFeatures,
  });
}

/** The header's fields as they are in the file. Version 3 alone. */
function readFixed(storage: HeaderStorage): IoBuffer {
  const header = makeRoom();
  const { view, length } = header;
  if (storage.read(header, 0, length, 0) < length) throw cutOff(storage);
  const version = HEADER.get(view, 0, 'version');
  if (version < 3) throw new RangeError(`features of a version ${version} image`);
  return header;
}

function cutOff({ name }: HeaderStorage): ImageError {
  return new ImageError('corrupt', 'EIO', `${name}: header is cut off`);
}

/** Writes the disk's size in bytes, bytes 24-31. */
export function setSize(storage: HeaderStorage, size: number): void {
  writeFields(storage, HEADER, 0, { size });
}

/** Writes where the active L1 table lies and how many entries it has, bytes 36-47. */
export function setL1(
  storage: HeaderStorage,
  { l1Size, l1TableOffset }: Pick<Qcow2Header, 'l1Size' | 'l1TableOffset'>,
): void {
  writeFields(storage, HEADER, 0, { l1Size, l1TableOffset });
}

/** Switches to another L1 table and the size of its disk, bytes 24-47 in one write. */
export function setActiveDisk(
  storage: HeaderStorage,
  { size, l1Size, l1TableOffset }: Pick<Qcow2Header, 'size' | 'l1Size' | 'l1TableOffset'>,
): void {
  const header = makeRoom();
  if (storage.read(header, 0, HEADER.size, 0) < HEADER.size) throw cutOff(storage);
  const cryptMethod = HEADER.get(header.view, 0, 'cryptMethod');
  writeFields(storage, HEADER, 0, { size, cryptMethod, l1Size, l1TableOffset });
}

/** Writes where the refcount table lies and how many clusters it has, bytes 48-59. */
export function setRefcountTable(
  storage: HeaderStorage,
  table: Pick<Qcow2Header, 'refcountTableOffset' | 'refcountTableClusters'>,
): void {
  const { refcountTableOffset, refcountTableClusters } = table;
  writeFields(storage, HEADER, 0, { refcountTableOffset, refcountTableClusters });
}

/**
 * Switches to refcounts of another width, bytes 48-99 in one write, which lies in one sector: what is
 * between stays as it is. Version 3 alone.
 */
export function setRefcounts(
  storage: HeaderStorage,
  refcounts: Pick<Qcow2Header, 'refcountTableOffset' | 'refcountTableClusters'> & {
    readonly refcountOrder: number;
  },
): void {
  const header = readFixed(storage);
  const { view } = header;
  const { refcountTableOffset, refcountTableClusters, refcountOrder } = refcounts;
  HEADER.set(view, 0, 'refcountTableOffset', refcountTableOffset);
  HEADER.set(view, 0, 'refcountTableClusters', refcountTableClusters);
  HEADER_V3.set(view, HEADER.size, 'refcountOrder', refcountOrder);
  const from = HEADER.offsets.refcountTableOffset;
  const to = HEADER.size + HEADER_V3.offsets.refcountOrder + HEADER_V3.fields.refcountOrder.size;
  storage.write(header, from, to - from, from);
}

/** Switches to another refcount table and another snapshot table, bytes 48-71 in one write. */
export function setRefcountsAndSnapshots(
  storage: HeaderStorage,
  tables: Pick<
    Qcow2Header,
    'refcountTableOffset' | 'refcountTableClusters' | 'nbSnapshots' | 'snapshotsOffset'
  >,
): void {
  const { refcountTableOffset, refcountTableClusters, nbSnapshots, snapshotsOffset } = tables;
  const refcounts = { refcountTableOffset, refcountTableClusters };
  writeFields(storage, HEADER, 0, { ...refcounts, nbSnapshots, snapshotsOffset });
}

/** Writes how many snapshots there are and where their table lies, bytes 60-71. */
export function setSnapshots(
  storage: HeaderStorage,
  { nbSnapshots, snapshotsOffset }: Pick<Qcow2Header, 'nbSnapshots' | 'snapshotsOffset'>,
): void {
  writeFields(storage, HEADER, 0, { nbSnapshots, snapshotsOffset });
}

/** Writes adjacent fields of `table`, which begins at byte `start` of the file, in one write. */
function writeFields<T extends FieldTable>(
  storage: HeaderStorage,
  table: Struct<T>,
  start: number,
  values: Partial<ValuesOf<T>>,
): void {
  const keys = Object.keys(values) as (keyof T)[];
  const from = Math.min(...keys.map((key) => table.offsets[key]));
  const to = Math.max(...keys.map((key) => table.offsets[key] + table.fields[key]!.size));
  const size = keys.reduce((sum, key) => sum + table.fields[key]!.size, 0);
  if (size !== to - from) throw new RangeError(`${table.name}: fields that are not adjacent`);
  const room = makeRoom();
  table.write(room.view, 0, values);
  storage.write(room, from, size, start + from);
}
