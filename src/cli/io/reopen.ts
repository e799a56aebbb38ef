/** `reopen`: which options of an open image can be changed, and what it is then. */
import { ImageError } from '../../errors.js';
import type { ImageSpec } from '../../image/spec.js';
import type { WriteOptions } from '../../image/write-options.js';
import { parseImageOptions } from '../image-words.js';
import { parseKeyValues } from '../key-values.js';
import type { IoImage, OpenFlags } from './image.js';
import { withoutName } from './opening.js';

export interface Changes {
  /** Undefined: as it is. */
  readonly readOnly: boolean | undefined;
  readonly cache: WriteOptions['cache'] | undefined;
  /** Of `-o`. */
  readonly words: string | undefined;
}

const COMMON = ['auto-read-only', 'cache.direct', 'cache.no-flush', 'detect-zeroes', 'discard'];
const OF_FORMAT: Readonly<Record<string, RegExp>> = {
  raw: /^(offset|size)$/,
  qcow2:
    /^(lazy-refcounts|pass-discard-(request|snapshot|other)|overlap-check(\.[a-z0-9-]+)?|(l2-|refcount-)?cache-size|l2-cache-entry-size|cache-clean-interval|encrypt\.key-secret)$/,
};

/** The image as it is to be opened anew. Throws an ImageError in QEMU's words. */
export function reopenSpec(
  image: IoImage,
  changes: Changes,
): { spec: ImageSpec; flags: OpenFlags } {
  const { readOnly, cache, words } = changes;
  const pairs = parseKeyValues(words ?? '');
  const keys = pairs.map(([key]) => key);
  if (cache !== undefined && keys.some((key) => key.startsWith('cache.'))) {
    throw refused('Cannot set both -c and the cache options');
  }
  if (readOnly !== undefined && keys.includes('read-only')) {
    throw refused("Cannot set both -r/-w and 'read-only'");
  }
  const { format } = image.disk.description.layers[0];
  const changed = pairs.filter(([key, value]) => isChange(image, format, key, value));
  const parsed = parse(format, changed);
  const spec = {
    ...image.spec,
    ...parsed,
    readOnly: readOnly ?? image.spec.readOnly,
    write: {
      ...image.spec.write,
      ...(cache !== undefined && { cache }),
      ...parsed.write,
    },
  };
  checkVersion(image, spec);
  if (parsed.readOnly === true && image.writable) {
    throw refused('Read-only block node cannot support read-write users');
  }
  return { spec, flags: { ...image.flags, readOnly: readOnly ?? image.flags.readOnly } };
}

/** False of an option that says again what is the case; throws where it cannot be another. */
function isChange(
  { spec }: IoImage,
  format: string,
  key: string,
  value: string | undefined,
): boolean {
  if (key === 'driver' && value === format) return false;
  if (key === 'file.driver' && value === 'file') return false;
  if (key === 'file.filename' && value === spec.path) return false;
  const [, child, inner] = /^(file|backing)\.(.*)$/.exec(key) ?? [];
  const own = inner ?? key;
  if (COMMON.includes(own) || own === 'read-only') return child === undefined;
  if (child === 'backing' && own === 'driver') return false;
  if (key === 'backing') throw refused(`Cannot find device='' nor node-name='${value ?? ''}'`);
  if (child === undefined && OF_FORMAT[format]?.test(key) === true) {
    return !key.startsWith('encrypt.');
  }
  throw refused(`Cannot change the option '${child === 'backing' ? key : own}'`);
}

/** What the options say, by the rules for opening. */
function parse(format: string, pairs: readonly (readonly [string, string | undefined])[]) {
  if (pairs.length === 0) return {};
  const words = pairs.map(([key, value]) => `${key}=${(value ?? 'on').replaceAll(',', ',,')}`);
  const whole = [`driver=${format}`, 'file.filename=-', ...words].join(',');
  try {
    const { path: _path, filename: _name, format: _format, ...said } = parseImageOptions(whole);
    return said;
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    throw new ImageError(error.kind, error.code, withoutName(error.message, whole), error.context);
  }
}

function checkVersion({ disk }: IoImage, spec: ImageSpec): void {
  const top = disk.description.layers[0];
  if (top.format !== 'qcow2' || top.header.version >= 3) return;
  if (spec.write?.lazyRefcounts !== true) return;
  throw refused('Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level');
}

function refused(message: string): ImageError {
  return new ImageError('policy', 'EINVAL', message);
}
