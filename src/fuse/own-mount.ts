/**
 * A mount that this process serves, known by its device number: on its path there may be another
 * one by now, which is not ours to unmount.
 */
import { MOUNT_TYPE, unmountDevice } from './device.js';
import { findMount, type MountDevice, setReadAhead } from './mountinfo.js';

export class OwnMount {
  /** Absolute. */
  readonly target: string;
  /** Undefined where the kernel did not show the mount. */
  readonly device: MountDevice | undefined;
  /** Who does it where this process may not. */
  #unmounter: ((lazy: boolean) => boolean) | undefined;

  /** To be made right after mounting on `target`, or with the mount's device. */
  constructor(target: string, device = deviceAt(target)) {
    this.target = target;
    this.device = device;
  }

  /** Lets somebody else unmount from now on, as `unmount` does: this process is about to lose the right to. */
  handOver(unmounter: (lazy: boolean) => boolean): void {
    this.#unmounter = unmounter;
  }

  /**
   * Takes the mount out of the tree; with `lazy` although it is in use. False where it does not lie
   * topmost on its path (any more), and nothing is done. Throws as `unmountDevice` does.
   */
  unmount(lazy: boolean): boolean {
    if (this.#unmounter !== undefined) return this.#unmounter(lazy);
    if (!this.#isTopmost()) return false;
    unmountDevice(this.target, { lazy });
    return true;
  }

  /** Only root may; for others reading is a little slower. */
  readAhead(kib: number): void {
    if (this.device !== undefined) setReadAhead(this.device.major, this.device.minor, kib);
  }

  #isTopmost(): boolean {
    // Where the kernel did not show the mount, the path is all that is known of it.
    if (this.device === undefined) return true;
    const top = findMount(this.target);
    return top?.major === this.device.major && top.minor === this.device.minor;
  }
}

function deviceAt(target: string): MountDevice | undefined {
  const mount = findMount(target);
  if (mount?.type !== MOUNT_TYPE) return undefined;
  return { major: mount.major, minor: mount.minor };
}
