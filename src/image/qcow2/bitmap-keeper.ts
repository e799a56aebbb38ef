/**
 * Keeping the bitmaps of an image true while it is written to. Each change of the disk is marked in one
 * map in memory, before it is made; bitmaps that are not enabled stay as they are.
 *
 * Before the first change, each bitmap that is to record it is marked as in use in the file, durably:
 * from then on its bits in the file are out of date, and a crash leaves it so, which everybody takes for
 * inconsistent. Saving makes all data durable, then stores the old bits and the marks in one step
 * (`bitmap-store.ts`), which also says that they are in use no more. What was inconsistent at opening, or
 * has extra data that is not known, stays as it is. When the disk's size changes, all bitmaps do.
 */
import { ChangeMap, type ChangeMapMemory, type Held } from '../../shared/change-map.js';
import type { BitmapPlan, BitmapStore, ListedBitmap } from './bitmap-store.js';
import { BITMAP_FLAG, type Bitmap, isInconsistent, isUsable } from './bitmaps.js';
import { StoredBitmap } from './stored-bitmap.js';
import type { Flusher } from './flush.js';
import type { Tables } from './tables.js';

export interface KeptBitmaps {
  /** Null where there is nothing to be kept. */
  readonly changes: ChangeMapMemory | null;
  /** The bitmaps, as they were when the image was opened. */
  readonly opened: readonly Bitmap[];
}

/** Null where the image has no bitmaps. */
export function keeperOf(
  { changes, opened }: KeptBitmaps,
  tables: Tables,
  store: BitmapStore,
  flusher: Flusher,
): BitmapKeeper | null {
  if (changes === null) return null;
  return new BitmapKeeper(tables, store, flusher, new ChangeMap(changes), opened);
}

export class BitmapKeeper {
  readonly #tables: Tables;
  readonly #store: BitmapStore;
  readonly #flusher: Flusher;
  readonly #changes: ChangeMap;
  /** As they were when the image was opened. */
  readonly #opened: readonly Bitmap[];

  constructor(
    tables: Tables,
    store: BitmapStore,
    flusher: Flusher,
    changes: ChangeMap,
    opened: readonly Bitmap[],
  ) {
    this.#tables = tables;
    this.#store = store;
    this.#flusher = flusher;
    this.#changes = changes;
    this.#opened = opened;
  }

  /** Whether the disk may change: what records that is marked. */
  get isHeld(): boolean {
    return this.#changes.held !== 'none';
  }

  /** Marks bitmaps as in use. Durable when it returns. With the reservation. */
  hold(wanted: Exclude<Held, 'none'>): void {
    const { held } = this.#changes;
    if (held === 'all' || held === wanted) return;
    const changed = this.#store
      .list()
      .filter(({ bitmap }) => !isInconsistent(bitmap) && (wanted === 'all' || isEnabled(bitmap)))
      .map(({ bitmap }) => [bitmap, bitmap.flags | BITMAP_FLAG.IN_USE] as const);
    this.#store.setFlags(changed);
    this.#changes.held = wanted;
  }

  /** Notes that a range changes. Held. */
  mark(offset: number, length: number): void {
    this.#changes.mark(offset, length);
  }

  /** The disk gets another size. Held, all of them; alone. */
  resize(from: number, to: number): void {
    this.#changes.resize(from, to);
  }

  /** Stores what was marked: the bitmaps are true in the file. With the reservation, alone. */
  save(): void {
    const { held } = this.#changes;
    if (held === 'none') return;
    // Data first, and the size that bitmaps are held against.
    this.#flusher.flushCounts();
    const plans = this.#store.list().map((listed) => this.#planOf(listed, held));
    this.#store.replace(plans);
    this.#changes.clear();
    this.#changes.held = 'none';
  }

  #planOf(listed: ListedBitmap, held: Held): BitmapPlan {
    const { bitmap, entry } = listed;
    const { flags, granularity } = bitmap;
    const own = this.#opened.find(({ name }) => name === bitmap.name);
    const isOurs = own !== undefined && isUsable(own) && (held === 'all' || isEnabled(bitmap));
    if (!isOurs) return { entry, flags, bits: null };
    const saved = flags & ~BITMAP_FLAG.IN_USE;
    const { geometry, state, storage } = this.#tables;
    const { keptEnd } = this.#changes;
    const isResized = keptEnd !== Number.POSITIVE_INFINITY;
    if (!isEnabled(bitmap) && !isResized) return { entry, flags: saved, bits: null };
    const end = Math.min(keptEnd, state.size);
    const base = new StoredBitmap(storage, bitmap, geometry.clusterSize, end);
    const added = isEnabled(bitmap) ? [this.#changes] : [];
    const bits = { size: state.size, granularity, base, baseEnd: keptEnd, added };
    return { entry, flags: saved, bits };
  }
}

function isEnabled({ flags }: Bitmap): boolean {
  return (flags & BITMAP_FLAG.AUTO) !== 0;
}
