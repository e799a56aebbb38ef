/**
 * Rewriting what the first cluster holds: the header, its extensions and the backing file's name, which
 * change their places together. The sector with the header's fields is the switch: what the new header
 * refers to outside of it is durable before, and what the old one refers to there changes only after.
 * So a crash leaves the old header or the new one. (But for extensions that reach into the second
 * sector and change there, which take names of data files longer than a name ought to be.)
 */
import { alignUp } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import { SECTOR_SIZE } from '../extent.js';
import type { BackingName } from '../writer.js';
import type { BitmapsExtension } from './extensions.js';
import type { HeaderStorage } from './header-edit.js';
import {
  AUTOCLEAR,
  BITMAPS_EXTENSION,
  EXTENSION_TYPE,
  HEADER,
  HEADER_EXTENSION,
  HEADER_V3,
  LIMIT,
} from './layout.js';

export interface HeaderExtension {
  readonly type: number;
  readonly data: Uint8Array;
}

/** What the first cluster holds, unknown extensions too. */
export interface HeaderParts {
  /** The fields, `headerLength` bytes: 72 in version 2. */
  readonly fields: Uint8Array;
  /** In their order, without the end mark. */
  readonly extensions: readonly HeaderExtension[];
  /** The backing file's name; empty where there is none. */
  readonly backingFile: Uint8Array;
}

/** Bytes of the first cluster, [start, end). */
interface Range {
  readonly start: number;
  readonly end: number;
}

/** A first cluster: its bytes up to the last one that counts, and where its two variable parts lie. */
interface Layout {
  readonly bytes: Buffer;
  readonly extensions: Range;
  readonly name: Range;
}

/** Lets the image name another backing file, or none (null). Durable when it returns. */
export function changeBackingFile(storage: HeaderStorage, backing: BackingName | null): void {
  const parts = readHeaderParts(storage);
  const others = parts.extensions.filter(({ type }) => type !== EXTENSION_TYPE.BACKING_FORMAT);
  const format = backing?.format || null;
  const extension = { type: EXTENSION_TYPE.BACKING_FORMAT, data: Buffer.from(format ?? '') };
  rewriteHeader(storage, {
    ...parts,
    extensions: format === null ? others : [extension, ...others],
    backingFile: Buffer.from(backing?.file ?? ''),
  });
}

/**
 * Lets the image have the bitmaps of that directory, or none (null), and says by the autoclear bit that
 * they are true. Version 3 alone. Durable when it returns.
 */
export function setBitmapsExtension(
  storage: HeaderStorage,
  directory: BitmapsExtension | null,
): void {
  const parts = readHeaderParts(storage);
  const others = parts.extensions.filter(({ type }) => type !== EXTENSION_TYPE.BITMAPS);
  if (directory === null) {
    rewriteHeader(storage, { ...parts, fields: withBitmapsBit(parts, false), extensions: others });
    return;
  }
  const data = Buffer.alloc(BITMAPS_EXTENSION.size);
  BITMAPS_EXTENSION.write(viewOf(data), 0, { ...directory, reserved: 0 });
  const extension = { type: EXTENSION_TYPE.BITMAPS, data };
  const place = parts.extensions.findIndex(({ type }) => type === EXTENSION_TYPE.BITMAPS);
  const extensions = place < 0 ? [...others, extension] : parts.extensions.with(place, extension);
  if (place >= 0 && liesInTwoSectors(parts, place)) {
    // Half of the old one and half of the new one could be there after a crash: without the bit, none is.
    rewriteHeader(storage, { ...parts, fields: withBitmapsBit(parts, false) });
    storage.flush();
  }
  rewriteHeader(storage, { ...parts, fields: withBitmapsBit(parts, true), extensions });
}

/** Whether the data of the extension at that place of the list do. */
function liesInTwoSectors({ fields, extensions }: HeaderParts, place: number): boolean {
  let at = fields.length + HEADER_EXTENSION.size;
  for (const { data } of extensions.slice(0, place)) {
    at += HEADER_EXTENSION.size + alignUp(data.length, 8);
  }
  const last = at + extensions[place]!.data.length - 1;
  return Math.floor(at / SECTOR_SIZE) !== Math.floor(last / SECTOR_SIZE);
}

function withBitmapsBit({ fields }: HeaderParts, on: boolean): Uint8Array {
  const changed = Uint8Array.from(fields);
  if (fields.length === HEADER.size) return changed;
  const view = viewOf(changed);
  const bit = 1n << BigInt(AUTOCLEAR.BITMAPS);
  const now = HEADER_V3.get(view, HEADER.size, 'autoclearFeatures');
  HEADER_V3.set(view, HEADER.size, 'autoclearFeatures', on ? now | bit : now & ~bit);
  return changed;
}

/** The parts of a header that is valid. */
export function readHeaderParts(storage: HeaderStorage): HeaderParts {
  const { bytes, extensions, name } = readLayout(storage);
  const view = viewOf(bytes);
  const list: HeaderExtension[] = [];
  for (let at = extensions.start; at + HEADER_EXTENSION.size < extensions.end; ) {
    const { type, length } = HEADER_EXTENSION.read(view, at);
    at += HEADER_EXTENSION.size;
    list.push({ type, data: bytes.subarray(at, at + length) });
    at += alignUp(length, 8);
  }
  return {
    fields: bytes.subarray(0, extensions.start),
    extensions: list,
    backingFile: bytes.subarray(name.start, name.end),
  };
}

/**
 * Writes the parts of a header; the fields that tell where the backing file's name lies are set here.
 * The table of the features' names is left out where there is no room for it. Throws with nothing
 * changed: EINVAL where the name is too long, ENOSPC where the cluster has no room.
 */
export function rewriteHeader(storage: HeaderStorage, parts: HeaderParts): void {
  if (parts.backingFile.length > LIMIT.MAX_BACKING_NAME) {
    throw new ImageError('invalid', 'EINVAL', 'Backing file name too long', {
      limit: `${parts.backingFile.length} bytes, at most ${LIMIT.MAX_BACKING_NAME}`,
    });
  }
  const old = readLayout(storage);
  const clusterSize = clusterSizeOf(old.bytes);
  const far = alignUp(Math.max(SECTOR_SIZE, old.name.end, old.extensions.end), 8);
  const fits = ({ bytes }: Layout) => bytes.length <= clusterSize;
  const next = [
    layOut(parts),
    layOut({ ...parts, extensions: withoutNames(parts.extensions) }),
  ].find(fits);
  if (next === undefined) {
    throw new ImageError('unsupported', 'ENOSPC', `${storage.name}: no room in the header`, {
      limit: `a cluster of ${clusterSize} bytes`,
    });
  }
  if (!disturbs(next, old)) {
    replace(storage, old, next);
    return;
  }
  const elsewhere = layOut(parts, far);
  if (fits(elsewhere) && !disturbs(elsewhere, old)) {
    replace(storage, old, elsewhere);
    return;
  }
  // The old name lies where the new extensions will: it makes way first.
  const away = layOut(readHeaderParts(storage), alignUp(Math.max(far, next.bytes.length), 8));
  if (fits(away) && !disturbs(away, old) && !disturbs(next, away)) {
    replace(storage, old, away);
    replace(storage, away, next);
  } else replace(storage, old, next);
}

function withoutNames(extensions: readonly HeaderExtension[]): HeaderExtension[] {
  return extensions.filter(({ type }) => type !== EXTENSION_TYPE.FEATURE_TABLE);
}

/** Whether `next` changes bytes outside the first sector that `old` refers to. */
function disturbs(next: Layout, old: Layout): boolean {
  return [old.extensions, old.name].some(({ start, end }) =>
    [next.extensions, next.name].some((range) => {
      const from = Math.max(start, range.start, SECTOR_SIZE);
      const to = Math.min(end, range.end);
      return from < to && !old.bytes.subarray(from, to).equals(next.bytes.subarray(from, to));
    }),
  );
}

function replace(storage: HeaderStorage, old: Layout, next: Layout): void {
  const end = Math.max(old.bytes.length, next.bytes.length);
  const bytes = new IoBuffer(end);
  next.bytes.copy(bytes.bytes);
  for (const { start, end: stop } of [next.extensions, next.name]) {
    const from = Math.max(start, SECTOR_SIZE);
    if (from < stop) storage.write(bytes, from, stop - from, from);
  }
  storage.flush();
  storage.write(bytes, 0, Math.min(end, SECTOR_SIZE), 0);
  storage.flush();
  // What the old one had there, nobody refers to any more.
  if (end > SECTOR_SIZE) storage.write(bytes, SECTOR_SIZE, end - SECTOR_SIZE, SECTOR_SIZE);
}

/** The bytes of a new first cluster, up to the last one that counts. */
export function headerBytes(parts: HeaderParts): Buffer {
  return layOut(parts).bytes;
}

/** `nameAt`: where the name begins; behind the extensions where it is not given. */
function layOut({ fields, extensions, backingFile }: HeaderParts, nameAt?: number): Layout {
  const list = Buffer.concat([
    ...extensions.map(({ type, data }) => {
      const whole = Buffer.alloc(HEADER_EXTENSION.size + alignUp(data.length, 8));
      HEADER_EXTENSION.write(viewOf(whole), 0, { type, length: data.length });
      whole.set(data, HEADER_EXTENSION.size);
      return whole;
    }),
    Buffer.alloc(HEADER_EXTENSION.size),
  ]);
  const end = fields.length + list.length;
  const start = Math.max(end, nameAt ?? 0);
  const bytes = Buffer.alloc(start + backingFile.length);
  bytes.set(fields);
  bytes.set(list, fields.length);
  bytes.set(backingFile, start);
  const view = viewOf(bytes);
  HEADER.set(view, 0, 'backingFileOffset', backingFile.length === 0 ? 0 : start);
  HEADER.set(view, 0, 'backingFileSize', backingFile.length);
  return {
    bytes,
    extensions: { start: fields.length, end },
    name: { start, end: bytes.length },
  };
}

/** Reads a first cluster that is valid, up to the last byte that counts. */
function readLayout(storage: HeaderStorage): Layout {
  const head = readBytes(storage, HEADER.size + HEADER_V3.size);
  const view = viewOf(head);
  const { version, backingFileOffset, backingFileSize } = HEADER.read(view, 0);
  const start = version < 3 ? HEADER.size : HEADER_V3.get(view, HEADER.size, 'headerLength');
  const named = backingFileOffset !== 0;
  const clusterSize = clusterSizeOf(head);
  const cluster = readBytes(storage, clusterSize);
  const end = endOfExtensions(viewOf(cluster), start, named ? backingFileOffset : clusterSize);
  const name = named
    ? { start: backingFileOffset, end: backingFileOffset + backingFileSize }
    : { start: end, end };
  const bytes = cluster.subarray(0, Math.max(end, name.end));
  return { bytes, extensions: { start, end }, name };
}

/** Behind the end mark; where there is none, as if there was one, though bytes may lie there. */
function endOfExtensions(view: DataView, start: number, limit: number): number {
  let at = start;
  while (at + HEADER_EXTENSION.size <= limit) {
    const { type, length } = HEADER_EXTENSION.read(view, at);
    if (type === EXTENSION_TYPE.END) break;
    at += HEADER_EXTENSION.size + alignUp(length, 8);
  }
  return Math.min(at + HEADER_EXTENSION.size, view.byteLength);
}

/** The file's first bytes; zeroes where it ends earlier. */
function readBytes(storage: HeaderStorage, length: number): Buffer {
  const buffer = new IoBuffer(length);
  storage.read(buffer, 0, length, 0);
  return buffer.bytes;
}

function clusterSizeOf(bytes: Uint8Array): number {
  return 2 ** HEADER.get(viewOf(bytes), 0, 'clusterBits');
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
