/** Options of the formats: what they say of a raw or a qcow2 image. */
import { invalid } from '../errors.js';
import { type ImageSpec, VHD_SIZES, type Window } from '../image/spec.js';
import type { Options } from './node-options.js';

const LEAST_CACHE = 1 << 20;
/** Maps a disk of 8 TiB whole: more is of no use. */
const LARGEST_CACHE = 1 << 30;
const MOST_SECONDS = 2n ** 32n - 1n;

export function takeRaw(options: Options): Partial<ImageSpec> {
  const offset = options.takeSize('offset');
  const size = options.takeSize('size');
  if (offset === undefined && size === undefined) return {};
  const window: Window = { offset: offset ?? 0, ...(size !== undefined && { size }) };
  return { window };
}

export function takeVpc(options: Options): Partial<ImageSpec> {
  const problem = "Invalid size calculation mode: '%'";
  const sizeFrom = options.takeWord('force_size_calc', VHD_SIZES, problem);
  return sizeFrom === undefined ? {} : { sizeFrom };
}

const OVERLAP_CLASSES = [
  'main-header',
  'active-l1',
  'active-l2',
  'refcount-table',
  'refcount-block',
  'snapshot-table',
  'inactive-l1',
  'inactive-l2',
  'bitmap-directory',
];
const OVERLAP_PROBLEM =
  "Unsupported value '%' for qcow2 option 'overlap-check'. " +
  'Allowed are any of the following: none, constant, cached, all';

export function takeQcow2(options: Options): Partial<ImageSpec> {
  const lazyRefcounts = options.takeSwitch('lazy-refcounts');
  for (const key of ['request', 'snapshot', 'other']) options.takeSwitch(`pass-discard-${key}`);
  const cache = takeCache(options);
  takeOverlapCheck(options);
  return {
    ...(lazyRefcounts !== undefined && { write: { lazyRefcounts } }),
    ...cache,
  };
}

/** Which classes of overlaps QEMU looks for: here all of them are, but those of inactive L2 tables. */
function takeOverlapCheck(options: Options): void {
  const word = options.take('overlap-check');
  const template = options.take('overlap-check.template');
  if (word !== undefined && template !== undefined && word !== template) {
    const values = `'overlap-check' ('${word}') and 'overlap-check.template' ('${template}')`;
    throw invalid(`Conflicting values for qcow2 options ${values}`);
  }
  const value = word ?? template ?? 'cached';
  if (!['none', 'constant', 'cached', 'all'].includes(value)) {
    throw invalid(OVERLAP_PROBLEM.replace('%', value));
  }
  for (const name of OVERLAP_CLASSES) options.takeSwitch(`overlap-check.${name}`);
}

/** QEMU has caches of their own for L2 tables and refcounts: here it is one. */
function takeCache(options: Options): Partial<ImageSpec> {
  const total = options.takeSize('cache-size');
  const l2 = options.takeSize('l2-cache-size');
  const counts = options.takeSize('refcount-cache-size');
  const l2EntrySize = options.takeSize('l2-cache-entry-size');
  const interval = options.takeNumber('cache-clean-interval') ?? 0n;
  if (total !== undefined && l2 !== undefined && counts !== undefined) {
    const names = 'cache-size, l2-cache-size and refcount-cache-size';
    throw invalid(`${names} may not be set at the same time`);
  }
  if ((l2 ?? 0) > (total ?? Number.POSITIVE_INFINITY)) {
    throw invalid('l2-cache-size may not exceed cache-size');
  }
  if ((counts ?? 0) > (total ?? Number.POSITIVE_INFINITY)) {
    throw invalid('refcount-cache-size may not exceed cache-size');
  }
  if (interval > MOST_SECONDS) throw invalid('Cache clean interval too big');
  const size = total ?? l2;
  const refcountCacheSize = counts ?? (total === undefined ? undefined : total - (l2 ?? 0));
  return {
    ...(size !== undefined && { cacheSize: Math.min(Math.max(size, LEAST_CACHE), LARGEST_CACHE) }),
    ...(l2EntrySize !== undefined && { l2EntrySize }),
    ...(refcountCacheSize !== undefined && { refcountCacheSize }),
  };
}
