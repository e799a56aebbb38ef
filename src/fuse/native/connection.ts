/** libfuse's own descriptor of /dev/fuse: fuse-native tells nobody when the mount has ended. */
import { closeSync, readdirSync, readlinkSync } from 'node:fs';
import { duplicateDescriptor } from '../../sys/process.js';
import { isUnmounted } from '../channel.js';

/** Waiting for it in poll(2) would wake a thread for every request. */
const LOOK_MS = 50;

export class Connection {
  /** Settles when the kernel says that the mount has ended. */
  readonly ended: Promise<void>;
  readonly #before: readonly number[];
  readonly #timer: NodeJS.Timeout;
  /** Of the same connection: it stays true when libfuse closes its own. */
  #fd: number | undefined;

  /** To be made right before mounting. */
  constructor() {
    this.#before = fuseDescriptors();
    let end: () => void = () => {};
    this.ended = new Promise((resolve) => {
      end = resolve;
    });
    this.#timer = setInterval(() => {
      if (!this.find() || !isUnmounted(this.#fd!)) return;
      clearInterval(this.#timer);
      end();
    }, LOOK_MS);
  }

  /** Whether there is a mount, as far as can be seen. */
  find(): boolean {
    if (this.#fd !== undefined) return true;
    const found = fuseDescriptors().find((fd) => !this.#before.includes(fd));
    if (found !== undefined) this.#fd = duplicateDescriptor(found);
    return found !== undefined;
  }

  close(): void {
    clearInterval(this.#timer);
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}

function fuseDescriptors(): number[] {
  return readdirSync('/proc/self/fd').map(Number).filter(isFuse);
}

function isFuse(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).endsWith('/fuse');
  } catch {
    // The descriptor that the folder was read through.
    return false;
  }
}
