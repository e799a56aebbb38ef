/** How often a passphrase is to be stretched so that it takes a given time here. */
import { pbkdf2Sync } from 'node:crypto';
import { ImageError } from '../../errors.js';

/** Never fewer, whatever time is given. */
const LEAST_ITERATIONS = 1000;
const MOST_ITERATIONS = 2 ** 32 - 1;
/** CPU time that a measurement takes at least; the ticks of the clock are far below it. */
const MEASURED_MICROS = 20_000;
const FIRST_TRY = 1 << 13;
/** Seconds that trying one passphrase may take. An image may say anything, and a thread does nothing else then. */
const MOST_SECONDS = 600;
/** So few are never counted as time. */
const SOON_DONE = 10_000_000;

/**
 * Throws an ImageError (ENOTSUP) where so many iterations, each of a key of that many bytes, take too long here.
 */
export function checkIterations(
  hash: string,
  stretched: readonly { readonly iterations: number; readonly keyBytes: number }[],
): void {
  const all = stretched.reduce((sum, { iterations }) => sum + iterations, 0);
  if (all <= SOON_DONE) return;
  const keyBytes = Math.max(...stretched.map((one) => one.keyBytes));
  const seconds = all / perSecond(hash, keyBytes);
  if (seconds <= MOST_SECONDS) return;
  throw new ImageError('unsupported', 'ENOTSUP', `${all} iterations of LUKS keys`, {
    limit: `some ${Math.round(seconds)} seconds, at most ${MOST_SECONDS}`,
  });
}

/** Iterations of the hash that a key of `keyBytes` bytes takes in `milliseconds`. */
export function iterationsFor(hash: string, keyBytes: number, milliseconds: number): number {
  return bounded(perSecond(hash, keyBytes), milliseconds, 1000);
}

/** The same for the digest of a master key, which is no passphrase: an eighth, as is the custom. */
export function digestIterations(hash: string, keyBytes: number, milliseconds: number): number {
  return bounded(perSecond(hash, keyBytes), milliseconds, 8000);
}

/** `rate`: per second. A negative time is a huge one, as QEMU takes it: never a weak key. */
function bounded(rate: number, milliseconds: number, divisor: number): number {
  if (milliseconds < 0 || rate * milliseconds >= 2 ** 64) {
    throw outOfRange(`${BigInt(Math.floor(rate))} too large to scale`);
  }
  const iterations = Math.floor((rate * milliseconds) / divisor);
  if (iterations <= MOST_ITERATIONS) return Math.max(LEAST_ITERATIONS, iterations);
  throw outOfRange(`${BigInt(iterations)} larger than ${MOST_ITERATIONS}`);
}

function outOfRange(what: string): ImageError {
  const message = `PBKDF iterations ${what}: Numerical result out of range`;
  return new ImageError('invalid', 'ERANGE', message);
}

function perSecond(hash: string, keyBytes: number): number {
  const bytes = Buffer.alloc(32);
  for (let iterations = FIRST_TRY; ; iterations *= 2) {
    const before = process.cpuUsage();
    pbkdf2Sync(bytes, bytes, iterations, keyBytes, hash);
    const { user, system } = process.cpuUsage(before);
    if (user + system >= MEASURED_MICROS) return (iterations * 1e6) / (user + system);
  }
}
