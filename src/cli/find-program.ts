/** Programs on the PATH, and where the system has them whatever the PATH says. */
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { HELPER_PATH } from '../fuse/device.js';

/** The path of the program of that name; undefined where there is none. */
export function findProgram(name: string): string | undefined {
  return `${process.env.PATH ?? ''}${delimiter}${HELPER_PATH}`
    .split(delimiter)
    .filter(Boolean)
    .map((folder) => join(folder, name))
    .find(isExecutable);
}

export function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
