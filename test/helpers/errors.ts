/** What a call is expected to throw. */
import { expect } from 'chai';
import { describeError, type ErrnoName, ImageError } from '#src/errors.js';

/** Expects an ImageError of that errno, whose whole line, limit included, fits. */
export function expectImageError(code: ErrnoName, message: RegExp, body: () => unknown): void {
  let result: unknown;
  try {
    result = body();
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    expect(describeError(error)).to.match(message);
    expect(error.code).to.equal(code);
    return;
  }
  throw new Error(`expected ${code} ${message}, but it went well: ${String(result)}`);
}
