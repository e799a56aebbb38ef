/** Rewriting a header for another version of the format, or another data file. */
import { featureTable } from './create-header.js';
import type { HeaderStorage } from './header-edit.js';
import { type HeaderParts, readHeaderParts, rewriteHeader } from './header-rewrite.js';
import { EXTENSION_TYPE, HEADER, HEADER_V3, HEADER_V3_LENGTH } from './layout.js';

/** Bytes of a new version 3 header: with the compression type and its padding, zero. */
const NEW_HEADER_LENGTH = HEADER_V3_LENGTH + 8;
/** Version 2 counts in 16 bits. */
const REFCOUNT_ORDER = 4;

/** Makes a version 2 header version 3, with no feature. Durable when it returns. */
export function upgradeHeader(storage: HeaderStorage): void {
  const parts = readHeaderParts(storage);
  const fields = Buffer.alloc(NEW_HEADER_LENGTH);
  fields.set(parts.fields);
  const view = viewOf(fields);
  HEADER.set(view, 0, 'version', 3);
  HEADER_V3.set(view, HEADER.size, 'refcountOrder', REFCOUNT_ORDER);
  HEADER_V3.set(view, HEADER.size, 'headerLength', fields.length);
  const names = { type: EXTENSION_TYPE.FEATURE_TABLE, data: featureTable() };
  rewriteHeader(storage, { ...parts, fields, extensions: [...parts.extensions, names] });
}

/** Makes a version 3 header version 2: its features are gone. Durable when it returns. */
export function downgradeHeader(storage: HeaderStorage): void {
  const parts = readHeaderParts(storage);
  const fields = parts.fields.slice(0, HEADER.size);
  HEADER.set(viewOf(fields), 0, 'version', 2);
  const extensions = without(parts, EXTENSION_TYPE.FEATURE_TABLE);
  rewriteHeader(storage, { ...parts, fields, extensions });
}

/** Lets the image name another data file; none where the name is empty. Durable when it returns. */
export function setDataFileName(storage: HeaderStorage, file: string): void {
  const parts = readHeaderParts(storage);
  const type = EXTENSION_TYPE.DATA_FILE;
  const named = file === '' ? [] : [{ type, data: Buffer.from(file) }];
  rewriteHeader(storage, { ...parts, extensions: [...named, ...without(parts, type)] });
}

function without({ extensions }: HeaderParts, type: number): HeaderParts['extensions'] {
  return extensions.filter((extension) => extension.type !== type);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
