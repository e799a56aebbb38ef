/** The smaller structs of an image that is built: extensions, snapshot and bitmap entries. */
import { alignUp } from '#src/codec/bits.js';
import {
  AUTOCLEAR,
  BITMAP_DIRECTORY_ENTRY,
  BITMAPS_EXTENSION,
  EXTENSION_TYPE,
  FEATURE_NAME,
  HEADER_EXTENSION,
  INCOMPATIBLE,
  SNAPSHOT_EXTRA,
  SNAPSHOT_HEADER,
} from '#src/image/qcow2/layout.js';
import type { BitmapSpec, ImageSpec, SnapshotSpec } from './image-spec.js';

/** All header extensions and the mark of their end. */
export function headerExtensions(spec: ImageSpec, directory: { at: number; size: number }): Buffer {
  const parts: Buffer[] = [];
  if (spec.backing?.format !== undefined) {
    parts.push(extension(EXTENSION_TYPE.BACKING_FORMAT, Buffer.from(spec.backing.format)));
  }
  if (spec.dataFile !== undefined) {
    parts.push(extension(EXTENSION_TYPE.DATA_FILE, Buffer.from(spec.dataFile.name)));
  }
  if (spec.featureNames !== undefined) {
    const table = Buffer.alloc(spec.featureNames.length * FEATURE_NAME.size);
    for (const [n, { type, bit, name }] of spec.featureNames.entries()) {
      const text = Buffer.alloc(FEATURE_NAME.size - 2);
      text.write(name);
      FEATURE_NAME.write(viewOf(table), n * FEATURE_NAME.size, { type, bit, name: text });
    }
    parts.push(extension(EXTENSION_TYPE.FEATURE_TABLE, table));
  }
  if (spec.bitmaps !== undefined) {
    const data = Buffer.alloc(BITMAPS_EXTENSION.size);
    BITMAPS_EXTENSION.write(viewOf(data), 0, {
      nbBitmaps: spec.bitmaps.length,
      bitmapDirectorySize: directory.size,
      bitmapDirectoryOffset: directory.at,
    });
    parts.push(extension(EXTENSION_TYPE.BITMAPS, data));
  }
  for (const { type, data } of spec.extensions ?? []) parts.push(extension(type, data));
  return Buffer.concat([...parts, Buffer.alloc(HEADER_EXTENSION.size)]);
}

/** The feature masks that follow from what the image holds. */
export function featuresOf(spec: ImageSpec) {
  const incompatible =
    (spec.dataFile === undefined ? 0n : 1n << BigInt(INCOMPATIBLE.DATA_FILE)) |
    (spec.compression === 'zstd' ? 1n << BigInt(INCOMPATIBLE.COMPRESSION) : 0n) |
    (spec.extendedL2 === true ? 1n << BigInt(INCOMPATIBLE.EXTENDED_L2) : 0n);
  const autoclear =
    (spec.bitmaps === undefined ? 0n : 1n << BigInt(AUTOCLEAR.BITMAPS)) |
    (spec.dataFile?.raw === true ? 1n << BigInt(AUTOCLEAR.DATA_FILE_RAW) : 0n);
  return {
    incompatibleFeatures: incompatible,
    compatibleFeatures: 0n,
    autoclearFeatures: autoclear,
  };
}

/** An entry of the snapshot table. */
export function snapshotEntry(
  snapshot: SnapshotSpec,
  tree: { readonly l1Table: number; readonly l1Size: number },
  spec: ImageSpec,
): Buffer {
  const id = Buffer.from(snapshot.id);
  const name = Buffer.from(snapshot.name);
  const extraDataSize = snapshot.extraDataSize ?? 16;
  const extra = Buffer.alloc(Math.max(SNAPSHOT_EXTRA.size, extraDataSize));
  const vmStateSize = snapshot.vmStateSize ?? 0;
  SNAPSHOT_EXTRA.write(viewOf(extra), 0, {
    vmStateSizeLarge: vmStateSize,
    diskSize: snapshot.diskSize ?? spec.size,
    icount: snapshot.icount ?? 0n,
  });
  const fixed = Buffer.alloc(SNAPSHOT_HEADER.size);
  SNAPSHOT_HEADER.write(viewOf(fixed), 0, {
    l1TableOffset: tree.l1Table,
    l1Size: tree.l1Size,
    idStrSize: id.length,
    nameSize: name.length,
    vmStateSize: vmStateSize > 0xffff_ffff ? 0 : vmStateSize,
    extraDataSize,
    ...snapshot.fields,
  });
  return padded(Buffer.concat([fixed, extra.subarray(0, extraDataSize), id, name]));
}

/** An entry of the bitmap directory; `table`: offset of its table, of `tableSize` entries. */
export function bitmapEntry(bitmap: BitmapSpec, table: number, tableSize: number): Buffer {
  const name = Buffer.from(bitmap.name);
  const extra = bitmap.extraData ?? new Uint8Array();
  const fixed = Buffer.alloc(BITMAP_DIRECTORY_ENTRY.size);
  BITMAP_DIRECTORY_ENTRY.write(viewOf(fixed), 0, {
    bitmapTableOffset: table,
    bitmapTableSize: tableSize,
    type: 1,
    granularityBits: bitmap.granularityBits ?? 16,
    nameSize: name.length,
    extraDataSize: extra.length,
    ...bitmap.fields,
  });
  return padded(Buffer.concat([fixed, extra, name]));
}

function extension(type: number, data: Uint8Array): Buffer {
  const head = Buffer.alloc(HEADER_EXTENSION.size);
  HEADER_EXTENSION.write(viewOf(head), 0, { type, length: data.length });
  return padded(Buffer.concat([head, data]));
}

/** Filled up with zeroes to a multiple of 8 bytes. */
function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(alignUp(bytes.length, 8) - bytes.length)]);
}

export function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
