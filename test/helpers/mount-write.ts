/** Writing to files of a mount, and what QEMU finds in the image then. */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { imageWords } from './image-words.js';
import { qemuImg, qemuRead } from './qemu.js';

/** Writes all of `bytes` at `at` of an existing file. */
export function put(path: string, at: number, bytes: Uint8Array): void {
  const fd = openSync(path, 'r+');
  try {
    for (let done = 0; done < bytes.length; ) {
      done += writeSync(fd, bytes, done, bytes.length - done, at + done);
    }
  } finally {
    closeSync(fd);
  }
}

export function get(path: string, at: number, length: number): Buffer {
  const fd = openSync(path, 'r');
  try {
    const bytes = Buffer.alloc(length);
    return bytes.subarray(0, readSync(fd, bytes, 0, length, at));
  } finally {
    closeSync(fd);
  }
}

/** Checked by QEMU, and read. */
export function contentOf(image: string): Buffer {
  qemuImg('check', '-q', ...imageWords(image));
  return qemuRead(image);
}
