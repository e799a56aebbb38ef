/** What the header must no longer promise once an image is written to. */
import { hasBit } from './features.js';
import type { Qcow2Header } from './header.js';
import { type HeaderStorage, setFeatures } from './header-edit.js';
import { setBitmapsExtension } from './header-rewrite.js';
import { AUTOCLEAR } from './layout.js';

/** What `prepareForWriting` did. */
export interface Prepared {
  /** The header as it is now. */
  readonly header: Qcow2Header;
  /** What the user should know of it. */
  readonly warnings: readonly string[];
}

/** Autoclear bits that stay true though clusters are written: the others promise what is not known. */
const KEPT_AUTOCLEAR = 1n << BigInt(AUTOCLEAR.DATA_FILE_RAW);
/** The same of an image that has bitmaps. */
const KEPT_WITH_BITMAPS = KEPT_AUTOCLEAR | (1n << BigInt(AUTOCLEAR.BITMAPS));

/**
 * Clears the autoclear bits that are not known here, and flushes: on return the image may be written to.
 * Bitmaps that somebody else has left out of date are dropped, as QEMU does it; their clusters leak.
 */
export function prepareForWriting(storage: HeaderStorage, header: Qcow2Header): Prepared {
  const { extensions } = header;
  const hasBitmaps = hasBit(header.autoclearFeatures, AUTOCLEAR.BITMAPS);
  const warnings: string[] = [];
  if (extensions.bitmaps !== null && !hasBitmaps) {
    setBitmapsExtension(storage, null);
    warnings.push(`its ${extensions.bitmaps.nbBitmaps} bitmaps are out of date: they are dropped`);
  }
  const known = extensions.bitmaps === null ? KEPT_AUTOCLEAR : KEPT_WITH_BITMAPS;
  const autoclearFeatures = header.autoclearFeatures & known;
  if (header.autoclearFeatures !== autoclearFeatures) {
    setFeatures(storage, { autoclear: autoclearFeatures });
    // Were a cluster to be durable before the bit is, what it promises would be believed.
    storage.flush();
  }
  const kept = hasBitmaps ? extensions : { ...extensions, bitmaps: null };
  return { header: { ...header, autoclearFeatures, extensions: kept }, warnings };
}
