/** Many small qcow2 images that differ in what they hold, made without a process for each. */
import { readFileSync, writeFileSync } from 'node:fs';
import { qemuImg } from './qemu.js';

/** Bytes of each disk. */
export const TINY_SIZE = 64 * 1024;
const MARK_SIZE = 4096;

export class TinyImages {
  readonly #template: Buffer;
  readonly #at: number;

  /** `scratch`: a path whose name is free. */
  constructor(scratch: string) {
    const raw = `${scratch}.raw`;
    writeFileSync(raw, this.disk(0));
    qemuImg('convert', '-O', 'qcow2', '-o', 'cluster_size=4k', raw, scratch);
    this.#template = readFileSync(scratch);
    this.#at = this.#template.indexOf(mark(0));
  }

  /** What the disk of image `number` holds. */
  disk(number: number): Buffer {
    const disk = Buffer.alloc(TINY_SIZE, 0x5a);
    mark(number).copy(disk, 2 * MARK_SIZE);
    return disk;
  }

  write(path: string, number: number): void {
    const image = Buffer.from(this.#template);
    mark(number).copy(image, this.#at);
    writeFileSync(path, image);
  }
}

/** A cluster that tells the number all over. */
function mark(number: number): Buffer {
  return Buffer.alloc(MARK_SIZE, `image ${String(number).padStart(9, '0')}\n`);
}
