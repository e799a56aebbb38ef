/** The check of an image, for the library. */
import { check } from '../tools/check.js';
import { checkCheckOptions, openPolicy } from './options.js';
import type { CheckOptions, CheckResult } from './types.js';

/**
 * Checks an image's tables, and repairs them where that is asked for; the thread is blocked until then. Throws an
 * ImageError: ENOTSUP of formats without a check (raw), EAGAIN where somebody writes to the image or, for a
 * repair, has it open.
 */
export function checkImage(path: string, options: CheckOptions = {}): CheckResult {
  checkCheckOptions(options);
  const { forceShare, repair = 'none' } = options;
  const spec = { path, filename: path, forceShare };
  return check(spec, { fix: repair, policy: openPolicy(options) });
}
