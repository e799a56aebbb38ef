/** How the files of an image are read and written: the one place that says it. */
import { DirectStorage } from '../storage/direct.js';
import { FaultyStorage } from '../storage/faulty.js';
import { FileStorage } from '../storage/file.js';
import { NullStorage } from '../storage/null.js';
import type { MutableStorage } from '../storage/storage.js';
import { PatchedStorage } from '../storage/patched.js';
import { WindowStorage } from '../storage/window.js';
import type { FileDescription } from './description.js';

export function storageOf(description: FileDescription): MutableStorage {
  const { window, patches, faults } = description;
  const whole =
    faults === undefined ? wholeOf(description) : new FaultyStorage(wholeOf(description), faults);
  const file = window === undefined ? whole : new WindowStorage(whole, window.offset, window.size);
  return patches === undefined ? file : new PatchedStorage(file, patches);
}

function wholeOf({ fd, directFd, path, nullDisk }: FileDescription): MutableStorage {
  if (nullDisk !== undefined) return new NullStorage(path, nullDisk);
  return directFd === undefined ? new FileStorage(fd, path) : new DirectStorage(fd, directFd, path);
}
