/**
 * Editing the bitmaps of an image: they are listed, changed in memory, and stored in one step. What else
 * is done to the image meanwhile does not change them.
 */
import { ImageError } from '../../errors.js';
import { newBitmapEntry } from './bitmap-entries.js';
import type { BitmapPlan, BitmapStore, ListedBitmap } from './bitmap-store.js';
import {
  BITMAP_FLAG,
  type Bitmap,
  isBitmapTooLarge,
  isInconsistent,
  isUsable,
  MAX_BITMAP_NAME_SIZE,
} from './bitmaps.js';
import { type DirtySource, StoredBitmap } from './stored-bitmap.js';
import type { Tables } from './tables.js';
import { LIMIT } from './layout.js';

/** A bitmap that is being edited. */
export interface BitmapDraft {
  readonly name: string;
  /** Bytes. */
  readonly granularity: number;
  /** As it is stored; null of a new one. */
  readonly listed: ListedBitmap | null;
  /** Whether writes are recorded in it. */
  enabled: boolean;
  /** Whether the bits that are stored count. */
  keepsBits: boolean;
  /** What is dirty besides. */
  added: DirtySource[];
}

const MIN_GRANULARITY = 512;
const MAX_GRANULARITY = 2 ** 31;

export class BitmapEditor {
  readonly drafts: BitmapDraft[];
  readonly #tables: Tables;
  readonly #store: BitmapStore;
  readonly #alone: (body: () => void) => void;
  #changed = false;

  /** `alone`: runs what changes metadata while nobody reads or writes. */
  constructor(tables: Tables, store: BitmapStore, alone: (body: () => void) => void) {
    this.#tables = tables;
    this.#store = store;
    this.#alone = alone;
    this.drafts = store.list().map((listed) => draftOf(listed));
  }

  /** Bytes of the disk. */
  get size(): number {
    return this.#tables.state.size;
  }

  /** Throws ENOENT where there is none and, but for `any`, EINVAL where it cannot be used. */
  find(name: string, which: 'usable' | 'any' = 'usable'): BitmapDraft {
    const found = this.drafts.find((draft) => draft.name === name);
    if (found === undefined) {
      throw new ImageError('missing', 'ENOENT', `Dirty bitmap '${name}' not found`);
    }
    if (which === 'usable' && found.listed !== null) refuseUnusable(found.listed.bitmap);
    return found;
  }

  /** Adds an empty bitmap. `granularity`: as it is usual for the image where it is not given. */
  add(name: string, granularity = this.#usualGranularity(), enabled = true): BitmapDraft {
    this.#checkNew(name, granularity);
    const draft = { name, granularity, listed: null, enabled, keepsBits: false, added: [] };
    this.drafts.push(draft);
    this.#changed = true;
    return draft;
  }

  remove(draft: BitmapDraft): void {
    this.drafts.splice(this.drafts.indexOf(draft), 1);
    this.#changed = true;
  }

  clear(draft: BitmapDraft): void {
    draft.keepsBits = false;
    draft.added = [];
    this.#changed = true;
  }

  enable(draft: BitmapDraft, enabled: boolean): void {
    draft.enabled = enabled;
    this.#changed = true;
  }

  /** What is dirty in `sources` is dirty in the bitmap, too. */
  merge(draft: BitmapDraft, sources: readonly DirtySource[]): void {
    draft.added.push(...sources);
    this.#changed = true;
  }

  /** What is dirty in a bitmap as it is edited. */
  sourcesOf(draft: BitmapDraft): DirtySource[] {
    const stored = draft.listed !== null && draft.keepsBits ? [this.#stored(draft.listed)] : [];
    return [...stored, ...draft.added];
  }

  /** Stores what was changed. Durable when it returns; until then the image has the bitmaps it had. */
  store(): void {
    if (!this.#changed) return;
    this.#alone(() => this.#store.replace(this.drafts.map((draft) => this.#planOf(draft))));
    this.#changed = false;
  }

  #planOf(draft: BitmapDraft): BitmapPlan {
    const { name, granularity, listed, enabled, keepsBits, added } = draft;
    const before = listed?.bitmap.flags ?? 0;
    const flags = enabled ? before | BITMAP_FLAG.AUTO : before & ~BITMAP_FLAG.AUTO;
    const entry = listed?.entry ?? newBitmapEntry(name, granularity);
    // What can be used gets a new table, changed or not: so things lie where QEMU has them.
    if (listed !== null && !isUsable(listed.bitmap)) return { entry, flags: before, bits: null };
    const base = listed !== null && keepsBits ? this.#stored(listed) : null;
    const baseEnd = Number.POSITIVE_INFINITY;
    return { entry, flags, bits: { size: this.size, granularity, base, baseEnd, added } };
  }

  #stored({ bitmap }: ListedBitmap): StoredBitmap {
    const { geometry, storage } = this.#tables;
    return new StoredBitmap(storage, bitmap, geometry.clusterSize, this.size);
  }

  /** As QEMU: a cluster, between 4 and 64 KiB. */
  #usualGranularity(): number {
    return Math.min(Math.max(4096, this.#tables.geometry.clusterSize), 65536);
  }

  #checkNew(name: string, granularity: number): void {
    const nameSize = Buffer.byteLength(name);
    if (nameSize === 0) throw invalid('Bitmap name cannot be empty');
    if (granularity < MIN_GRANULARITY || !Number.isInteger(Math.log2(granularity))) {
      throw invalid('Granularity must be power of 2 and at least 512');
    }
    if (this.drafts.some((draft) => draft.name === name)) {
      throw invalid(`Bitmap already exists: ${name}`, 'EEXIST');
    }
    const refuse = (why: string): void => {
      const path = this.#tables.storage.name;
      throw invalid(`Can't make bitmap '${name}' persistent in '${path}': ${why}`);
    };
    if (this.#tables.geometry.version < 3) refuse('Cannot store dirty bitmaps in qcow2 v2 files');
    if (nameSize > MAX_BITMAP_NAME_SIZE) {
      refuse(`Name length exceeds maximum (${MAX_BITMAP_NAME_SIZE} characters)`);
    }
    if (granularity > MAX_GRANULARITY) {
      refuse(`Granularity exceeds maximum (${MAX_GRANULARITY} bytes)`);
    }
    if (isBitmapTooLarge(this.size, granularity)) {
      refuse('Too much space will be occupied by the bitmap. Use larger granularity');
    }
    if (this.drafts.length >= LIMIT.MAX_BITMAPS) {
      refuse('Maximum number of persistent bitmaps is already reached');
    }
  }
}

function draftOf(listed: ListedBitmap): BitmapDraft {
  const { name, granularity, flags } = listed.bitmap;
  const enabled = (flags & BITMAP_FLAG.AUTO) !== 0;
  return { name, granularity, listed, enabled, keepsBits: true, added: [] };
}

/** Throws EINVAL where the bits of a bitmap cannot be used. */
export function refuseUnusable(bitmap: Bitmap): void {
  if (isUsable(bitmap)) return;
  if (!isInconsistent(bitmap)) throw invalid(`Bitmap '${bitmap.name}' has unknown extra data`);
  throw new ImageError(
    'invalid',
    'EINVAL',
    `Bitmap '${bitmap.name}' is inconsistent and cannot be used`,
    {
      hint: 'Try block-dirty-bitmap-remove to delete this bitmap from disk',
      limit: "'bitmap --remove' deletes it",
    },
  );
}

function invalid(message: string, code: 'EINVAL' | 'EEXIST' = 'EINVAL'): ImageError {
  return new ImageError('invalid', code, message);
}
