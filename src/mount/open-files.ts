/**
 * The open files of a mount that can be written to: how many there are of each view, and for which
 * place each partition was opened. The kernel gives back a file's handle with every request for it:
 * 0 says nothing, its lowest bit that the file is open for writing, and the rest the partition's
 * slot, from 1.
 */
import type { Disk } from '../image/disk.js';
import { ImageError } from '../errors.js';
import { allocateOpenCounts, OpenCounts } from '../shared/open-counts.js';
import {
  allocateOpenWindows,
  OpenWindows,
  type OpenWindowsMemory,
} from '../shared/open-windows.js';
import { WindowContent } from './content.js';

/** How long a view may still be open that a program has just closed. Milliseconds. */
const PATIENCE_MS = 200;

export interface OpenFilesMemory {
  readonly counts: SharedArrayBuffer;
  readonly windows: OpenWindowsMemory;
}

export function allocateOpenFiles(): OpenFilesMemory {
  return { counts: allocateOpenCounts(), windows: allocateOpenWindows() };
}

/** Whether a handle is one of a file that is open for writing. */
export function isForWriting(handle: number): boolean {
  return handle % 2 === 1;
}

function slotOfHandle(handle: number): number {
  return Math.floor(handle / 2) - 1;
}

export class OpenFiles {
  readonly windows: OpenWindows;
  readonly #counts: OpenCounts;
  readonly #disk: Disk;
  readonly #patienceMs: number;
  /** By slot: what this thread has made of it. */
  readonly #contents: WindowContent[] = [];

  /**
   * `disk`: what partitions are parts of. `owner`: this thread's number. `patienceMs`: for how long it waits where a
   * view is open that nobody may have open.
   */
  constructor(memory: OpenFilesMemory, disk: Disk, owner: number, patienceMs = PATIENCE_MS) {
    this.windows = new OpenWindows(memory.windows, owner);
    this.#counts = new OpenCounts(memory.counts, owner);
    this.#disk = disk;
    this.#patienceMs = patienceMs;
  }

  /** Counts a file of the view, before anything is looked up in it. May wait. */
  open(view: number): void {
    this.#counts.open(view);
  }

  /** The handle of a file that was counted. */
  handle(forWriting: boolean): number {
    return forWriting ? 1 : 0;
  }

  /** The same for a partition of the disk. */
  partitionHandle(number: number, content: WindowContent, forWriting: boolean): number {
    const slot = this.windows.open(number, content.start, content.wholeSize);
    if (slot < 0) throw new ImageError('policy', 'ENFILE', 'too many partitions are open');
    return (slot + 1) * 2 + (forWriting ? 1 : 0);
  }

  close(view: number, handle = 0): void {
    const slot = slotOfHandle(handle);
    if (slot >= 0) this.windows.close(slot);
    this.#counts.close(view);
  }

  /** The partition that a handle was made for; undefined where it is of another file. */
  window(handle: number): WindowContent | undefined {
    const slot = slotOfHandle(handle);
    if (slot < 0) return undefined;
    const [start, size] = [this.windows.start(slot), this.windows.size(slot)];
    const kept = this.#contents[slot];
    if (kept !== undefined && kept.start === start && kept.wholeSize === size) return kept;
    const made = new WindowContent(this.#disk, start, size);
    this.#contents[slot] = made;
    return made;
  }

  /**
   * Does what must not meet an open file of the view. Throws EBUSY where there is one. The caller is
   * not within the image: who opens waits for the end of this there.
   */
  withoutOpenFiles(view: number, what: string, body: () => void): void {
    if (!this.#counts.claim(view, this.#patienceMs)) {
      throw new ImageError('policy', 'EBUSY', `${what} is in use: files of it are open`);
    }
    try {
      body();
    } finally {
      this.#counts.release(view);
    }
  }
}

/** Frees what a thread that died held. */
export function recoverOpenFiles(memory: OpenFilesMemory, owner: number): void {
  new OpenCounts(memory.counts, owner).recover(owner);
  new OpenWindows(memory.windows, owner).recover(owner);
}
