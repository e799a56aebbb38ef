/** New images for the commands that copy into them. */
import { ImageError } from '../errors.js';
import { closeImage } from '../image/open.js';
import type { WriteOptions } from '../image/write-options.js';
import { type ConvertTarget, openNewTarget } from '../tools/convert-target.js';
import { createUnfinished, type UnfinishedImage } from '../tools/create.js';
import { type Creation, openBacking } from '../tools/creation.js';
import type { CommandProgress } from './command-progress.js';

export interface MakeOptions {
  readonly cache: WriteOptions['cache'];
  /** Said in errors of making it, behind its name. */
  readonly problem: string;
  readonly progress: CommandProgress;
  /** What is read meanwhile, and must not become the image (`fileIdentity`). */
  readonly others: readonly string[];
}

/**
 * Makes the image, unfinished, and opens it. What a file there holds is gone only when its backing file
 * is known to be in order.
 */
export async function makeTarget(
  creation: Creation,
  { cache, problem, progress, others }: MakeOptions,
): Promise<ConvertTarget> {
  // Locked until the target itself has locked it.
  const backing = openBacking(creation);
  try {
    const made = await naming(`${creation.filename}: ${problem}: `, () =>
      createUnfinished(creation, progress.muted, others),
    );
    return await openNewTarget(made, cache);
  } finally {
    if (backing !== null) closeImage(backing);
  }
}

async function naming(
  start: string,
  body: () => Promise<UnfinishedImage>,
): Promise<UnfinishedImage> {
  try {
    return await body();
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    const message = start + error.message;
    throw new ImageError(error.kind, error.code, message, error.context, error);
  }
}
