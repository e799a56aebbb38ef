/** Errors with advice that takes more to be known than an error's way down. */
import { ImageError } from '../errors.js';

/** The error, or one that says what to do, too. */
export async function advised(error: unknown): Promise<unknown> {
  if (!(error instanceof ImageError) || error.code !== 'EISDIR') return error;
  return (await import('./folder-advice.js')).adviseOnFolder(error);
}
