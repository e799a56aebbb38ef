/** Options of a node of QEMU's block layer: each is taken once, by who knows what it means. */
import { parseSize, SIZE_HINT } from '../codec/size-text.js';
import { invalid } from '../errors.js';
import type { ImageSpec } from '../image/spec.js';
import type { WriteOptions } from '../image/write-options.js';
import type { OptionMap } from './json-options.js';

/** Options of one node. What is not taken in the end is unknown. */
export class Options {
  readonly #left: OptionMap;

  constructor(map: OptionMap) {
    this.#left = new Map(map);
  }

  /** Undefined where it is not given. */
  take(key: string): string | undefined {
    const value = this.#left.get(key);
    this.#left.delete(key);
    return value ?? undefined;
  }

  /** As `take`, and leaves it there. */
  peek(key: string): string | undefined {
    return this.#left.get(key) ?? undefined;
  }

  /** These, over others. */
  over(others: OptionMap): Options {
    return new Options(new Map([...others, ...this.#left]));
  }

  takeSwitch(key: string): boolean | undefined {
    const value = this.take(key);
    if (value === undefined) return undefined;
    if (value !== 'on' && value !== 'off') {
      throw invalid(`Parameter '${key}' expects 'on' or 'off'`);
    }
    return value === 'on';
  }

  takeSize(key: string): number | undefined {
    const value = this.take(key);
    if (value === undefined) return undefined;
    const size = parseSize(value);
    if (typeof size === 'number') return size;
    throw invalid(`Parameter '${key}' expects a non-negative number below 2^64`, SIZE_HINT);
  }

  /** A number without a suffix; below 0 it counts from 2^64 down, as C has it. */
  takeNumber(key: string): bigint | undefined {
    const value = this.take(key);
    if (value === undefined) return undefined;
    if (/^-?\d+$/.test(value)) return BigInt.asUintN(64, BigInt(value));
    throw invalid(`Parameter '${key}' expects a number`);
  }

  takeWord<T extends string>(key: string, words: readonly T[], problem: string): T | undefined {
    const value = this.take(key);
    if (value === undefined) return undefined;
    const word = words.find((candidate) => candidate === value);
    if (word === undefined) throw invalid(problem.replace('%', value));
    return word;
  }

  /** The child's own options; null where it is not to be; undefined where nothing is said of it. */
  takeChild(name: string): Options | null | undefined {
    if (this.#left.has(name)) {
      const node = this.take(name);
      if (node === undefined) return null;
      throw invalid(`Cannot find device='${node}' nor node-name='${node}'`);
    }
    const inner: OptionMap = new Map();
    for (const [key, value] of [...this.#left]) {
      if (!key.startsWith(`${name}.`)) continue;
      inner.set(key.slice(name.length + 1), value);
      this.#left.delete(key);
    }
    return inner.size === 0 ? undefined : new Options(inner);
  }

  namesFile(): boolean {
    const keys = [...this.#left.keys()];
    return keys.some((key) => key === 'file' || key === 'filename' || key.startsWith('file.'));
  }

  /** Throws where options are left that the driver does not have. */
  end(describe: (key: string) => string): void {
    const [key] = this.#left.keys();
    if (key !== undefined) throw invalid(describe(key));
  }
}

export const INVALID_VALUE = 'invalid parameter value: %';

/** Options that every node has. */
export function takeCommon(options: Options): Partial<ImageSpec> {
  const nodeName = options.take('node-name');
  options.takeSwitch('auto-read-only');
  const readOnly = options.takeSwitch('read-only');
  const forceShare = options.takeSwitch('force-share');
  const discard = options.takeWord(
    'discard',
    ['off', 'on', 'ignore', 'unmap'],
    'Invalid discard option',
  );
  const detectZeroes = options.takeWord('detect-zeroes', ['off', 'on', 'unmap'], INVALID_VALUE);
  const direct = options.takeSwitch('cache.direct');
  const noFlush = options.takeSwitch('cache.no-flush');
  const write: Partial<WriteOptions> = {
    ...(discard !== undefined && {
      discard: discard === 'on' || discard === 'unmap' ? ('unmap' as const) : ('ignore' as const),
    }),
    ...(detectZeroes !== undefined && { detectZeroes }),
    ...(direct === true && { cache: 'none' as const }),
    ...(noFlush === true && { cache: 'unsafe' as const }),
  };
  return {
    ...(readOnly !== undefined && { readOnly }),
    ...(forceShare !== undefined && { forceShare }),
    ...(nodeName !== undefined && { nodeName }),
    write,
  };
}
