/** How the files of an image are read and written: the one place that says it. */
import { DirectStorage } from '../storage/direct.js';
import { FileStorage } from '../storage/file.js';
import type { MutableStorage } from '../storage/storage.js';
import { WindowStorage } from '../storage/window.js';
import type { FileDescription } from './description.js';

export function storageOf({ fd, directFd, path, window }: FileDescription): MutableStorage {
  const file =
    directFd === undefined ? new FileStorage(fd, path) : new DirectStorage(fd, directFd, path);
  return window === undefined ? file : new WindowStorage(file, window.offset, window.size);
}
