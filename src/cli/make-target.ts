/** New images for the commands that copy into them. */
import { ImageError } from '../errors.js';
import type { WriteOptions } from '../image/write-options.js';
import { type ConvertTarget, openNewTarget } from '../tools/convert-target.js';
import { createImage, type Creation } from '../tools/create.js';
import { NO_PROGRESS } from '../tools/progress.js';

/** Makes the image and opens it. Errors of making it begin with its name and `problem`. */
export async function makeTarget(
  creation: Creation,
  cache: WriteOptions['cache'],
  problem: string,
): Promise<ConvertTarget> {
  try {
    await createImage(creation, NO_PROGRESS, { unfinished: true });
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    const message = `${creation.filename}: ${problem}: ${error.message}`;
    throw new ImageError(error.kind, error.code, message, error.context, error);
  }
  return openNewTarget(creation, cache);
}
