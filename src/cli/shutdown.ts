/**
 * How a serving process ends before its mount does: by a signal, or by an error that nobody caught.
 * Whatever fails on the way, it ends, and takes its own mount out of the tree where it can.
 */
import { describeError, ERRNO, errnoOf } from '../errors.js';
import type { ServedMount } from '../fuse/mounting.js';
import { log } from '../sys/log.js';
import { sdNotify } from '../sys/process.js';
import type { Outcome } from './outcome.js';
import { problemText } from './program.js';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export interface Shutdown {
  /** Settles where the process has to end although the mount has not. */
  readonly ended: Promise<Outcome>;
  /** Whether a signal has come. */
  stopping(): boolean;
  /** From now on there is a mount to take down. */
  mounted(mount: ServedMount): void;
}

/**
 * Listens from now on. The first signal unmounts, and the process ends with the mount; the second
 * one ends it at once, as soon as what was written is durable. `onFailure` hears of an error that nobody caught.
 */
export function watchForEnd(onFailure: (words: string) => void): Shutdown {
  let mount: ServedMount | undefined;
  let end: (outcome: Outcome) => void = () => {};
  const ended = new Promise<Outcome>((resolve) => {
    end = resolve;
  });
  let signals = 0;
  const onSignal = (signal: string): void => {
    signals++;
    sdNotify('STOPPING=1');
    let outcome: Outcome | undefined = { status: 1, atOnce: true };
    if (mount !== undefined) {
      outcome = signals > 1 ? detach(mount, signal, 0) : unmountFor(mount, signal);
    }
    if (outcome !== undefined) end(outcome);
  };
  const onError = (error: unknown): void => {
    const words = problemText(error);
    log.error(words);
    onFailure(words);
    end(mount === undefined ? { status: 1, atOnce: true } : detach(mount, 'after an error', 1));
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  process.on('uncaughtException', onError);
  process.on('unhandledRejection', onError);
  return {
    ended,
    stopping: () => signals > 0,
    mounted: (live) => {
      mount = live;
    },
  };
}

/** Unmounts; undefined where the end of the mount is now to be waited for. */
function unmountFor(mount: ServedMount, signal: string): Outcome | undefined {
  try {
    if (mount.unmount(false)) return undefined;
    log.warning(`${signal}: '${mount.target}' is not our mount (any more): it is left as it is`);
    return finish(mount, 0);
  } catch (error) {
    const busy = errnoOf(error) === ERRNO.EBUSY;
    const why = busy
      ? 'the mount is in use; files that are open in it will fail'
      : describeError(error);
    log.warning(`${signal}: ${why}`);
  }
  return detach(mount, signal, 0);
}

/** Takes the mount out of the tree, in use or not; `status` is what to end with if that works. */
function detach(mount: ServedMount, why: string, status: number): Outcome {
  try {
    mount.unmount(true);
  } catch (error) {
    log.error(`${why}: ${describeError(error)}`);
    status = 1;
  }
  return finish(mount, status);
}

/** The end of the process, with what was written made durable before. */
function finish(mount: ServedMount, status: number): Outcome {
  try {
    return { status: mount.finish() ? status : 1, atOnce: true };
  } catch (error) {
    log.error(problemText(error));
    return { status: 1, atOnce: true };
  }
}
