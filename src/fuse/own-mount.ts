/**
 * A mount that this process serves, known by its device number: on its path there may be another
 * one by now, which is not ours to unmount.
 */
import { MOUNT_TYPE, unmountDevice } from './device.js';
import { findMount, type Mount, setReadAhead } from './mountinfo.js';

export class OwnMount {
  /** Absolute. */
  readonly target: string;
  readonly #device: Pick<Mount, 'major' | 'minor'> | undefined;

  /** To be made right after mounting on `target`. */
  constructor(target: string) {
    this.target = target;
    const mount = findMount(target);
    if (mount?.type === MOUNT_TYPE) this.#device = mount;
  }

  /**
   * Takes the mount out of the tree; with `lazy` although it is in use. False where it does not lie
   * topmost on its path (any more), and nothing is done. Throws as `unmountDevice` does.
   */
  unmount(lazy: boolean): boolean {
    if (!this.#isTopmost()) return false;
    unmountDevice(this.target, { lazy });
    return true;
  }

  /** Only root may; for others reading is a little slower. */
  readAhead(kib: number): void {
    if (this.#device !== undefined) setReadAhead(this.#device.major, this.#device.minor, kib);
  }

  #isTopmost(): boolean {
    // Where the kernel did not show the mount, the path is all that is known of it.
    if (this.#device === undefined) return true;
    const top = findMount(this.target);
    return top?.major === this.#device.major && top.minor === this.#device.minor;
  }
}
