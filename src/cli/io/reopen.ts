/** `reopen`: which options of an open image can be changed, and what it is then. */
import { ImageError } from '../../errors.js';
import type { BackingSpec, ImageSpec, NodeNames } from '../../image/spec.js';
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
  const changed = pairs.filter(([key, value]) => isChange(image, key, value));
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

/** An option, and of which node: of which layer, and whether of its file. */
interface NodeOption {
  readonly depth: number;
  readonly ofFile: boolean;
  readonly name: string;
}

function nodeOption(key: string): NodeOption {
  const [, backing, file, name] = /^((?:backing\.)*)(file\.)?(.*)$/s.exec(key)!;
  const depth = backing!.length / 'backing.'.length;
  return { depth, ofFile: file !== undefined, name: name! };
}

/** False of an option that says again what is the case; throws where it cannot be another. */
function isChange({ disk, spec }: IoImage, key: string, value: string | undefined): boolean {
  const { depth, ofFile, name } = nodeOption(key);
  const { layers } = disk.description;
  const layer = layers[depth];
  if (layer === undefined) {
    // The last layer there is has no such child: to it, it is an option.
    throw refused(
      `Cannot change the option '${key.slice('backing.'.length * (layers.length - 1))}'`,
    );
  }
  if (name === 'backing' && !ofFile) {
    throw refused(`Cannot find device='' nor node-name='${value ?? ''}'`);
  }
  const node = specAt(spec, depth);
  const now: Readonly<Record<string, string | undefined>> = {
    driver: ofFile ? (node?.driver ?? 'file') : layer.format,
    'node-name': ofFile ? node?.fileNodeName : node?.nodeName,
    ...(ofFile && { filename: depth === 0 ? spec.path : layer.file.path }),
  };
  if (Object.hasOwn(now, name)) {
    if (now[name] === value) return false;
    throw refused(`Cannot change the option '${name}'`);
  }
  const isTop = depth === 0 && !ofFile;
  if (COMMON.includes(name) || name === 'read-only') return isTop;
  // Nothing is written to a backing file: what is said of it but for its size makes no difference.
  const isKnown = !ofFile && OF_FORMAT[layer.format]?.test(name) === true;
  if (!isKnown || name.startsWith('encrypt.') || (layer.format === 'raw' && !isTop)) {
    throw refused(`Cannot change the option '${name}'`);
  }
  if (!isTop) parse(layer.format, [[name, value]]);
  return isTop;
}

function specAt(
  spec: ImageSpec,
  depth: number,
): (NodeNames & Pick<ImageSpec, 'driver'>) | undefined {
  let node: BackingSpec | null | undefined = spec;
  for (let left = depth; left > 0; left--) node = node?.backing;
  return node ?? undefined;
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
