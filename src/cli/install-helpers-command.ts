/** `install-helpers`: links by which mount(8) and umount(8) find the program. */
import { lstatSync, mkdirSync, readlinkSync, realpathSync, symlinkSync, unlinkSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { ERRNO, errnoOf, ImageError } from '../errors.js';
import { OPTIONS } from './command-options.js';
import { getopt } from './getopt.js';
import { HELPER_FOLDER, HELPER_NAMES } from './mount-helper.js';
import type { Outcome } from './outcome.js';
import { UsageError } from './program.js';

export async function runInstallHelpers(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS['install-helpers']);
  const [extra] = args.operands;
  if (extra !== undefined) throw new UsageError(`unexpected '${extra}'`);
  const program = realpathSync(process.argv[1]!);
  const paths = HELPER_NAMES.map((name) =>
    join(resolve(args.last('prefix') ?? '/', `.${HELPER_FOLDER}`), name),
  );
  // All are looked at before any is touched.
  const there = paths.filter((path) => isLinkTo(path, program));
  if (args.has('remove')) {
    for (const path of there) unlinkSync(path);
    return { status: 0 };
  }
  for (const path of paths) {
    if (there.includes(path)) continue;
    mkdirSync(dirname(path), { recursive: true });
    symlinkSync(program, path);
  }
  return { status: 0 };
}

/** False where nothing has that name. Throws an ImageError where something else has. */
function isLinkTo(path: string, program: string): boolean {
  try {
    if (lstatSync(path).isSymbolicLink() && readlinkSync(path) === program) return true;
  } catch (error) {
    if (errnoOf(error) === ERRNO.ENOENT) return false;
    throw error;
  }
  throw new ImageError('policy', 'EEXIST', `'${path}' is not a link to this program`, {
    limit: 'it is left as it is',
  });
}
