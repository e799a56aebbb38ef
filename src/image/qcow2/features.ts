/** The feature bits of a version 3 header. Images of version 2 have none. */
import { ImageError } from '../../errors.js';
import type { FeatureName } from './extensions.js';
import { INCOMPATIBLE } from './layout.js';

const INCOMPATIBLE_TYPE = 0;

const KNOWN_INCOMPATIBLE: bigint = Object.values(INCOMPATIBLE).reduce(
  (mask, bit) => mask | (1n << BigInt(bit)),
  0n,
);

export function hasBit(features: bigint, bit: number): boolean {
  return ((features >> BigInt(bit)) & 1n) === 1n;
}

/**
 * Refuses incompatible features that are not known here, by the names that the image's own feature
 * table gives them, the others as a mask.
 */
export function refuseUnknownFeatures(
  incompatible: bigint,
  featureNames: readonly FeatureName[],
): void {
  let unknown = incompatible & ~KNOWN_INCOMPATIBLE;
  if (unknown === 0n) return;
  const words: string[] = [];
  for (const { type, bit, name } of featureNames) {
    if (type !== INCOMPATIBLE_TYPE || bit > 63 || !hasBit(unknown, bit)) continue;
    words.push(name);
    unknown &= ~(1n << BigInt(bit));
  }
  if (unknown !== 0n) words.push(`Unknown incompatible feature: ${unknown.toString(16)}`);
  throw new ImageError(
    'unsupported',
    'ENOTSUP',
    `Unsupported qcow2 feature(s): ${words.join(', ')}`,
  );
}
