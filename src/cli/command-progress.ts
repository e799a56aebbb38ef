/**
 * How far a command is: a bar for people (`-p`), lines of JSON for programs (`--progress=json`), one
 * line on standard error at each SIGUSR1. SIGINT, SIGTERM and SIGHUP stop the command where it next says so; one that
 * comes later than its last word finds the work done.
 */
import { setImmediate } from 'node:timers/promises';
import { Cancelled, type Progress, STOP_SIGNALS, type StopSignal } from '../tools/progress.js';
import type { Arguments } from './getopt.js';
import { UsageError } from './program.js';
import { answerProgress } from './progress-signal.js';

const LEAST_STEP = 0.01;
/** How often signals are let through. */
const PAUSE_MS = 10;

export interface CommandProgress extends Progress {
  /** Hears signals, and tells nothing: for what comes before the work itself. */
  readonly muted: Progress;
  /** Says that all is done, though that may have been said: some of QEMU's commands do. */
  complete(): void;
  /** To be called in the end, however it ends. */
  finish(): void;
}

/**
 * What the command's `-p` or `--progress` asks for. `quiet`: nothing is to be shown. `leastStep`: a part
 * of the whole below which it is not told anew.
 */
export function commandProgress(
  args: Arguments,
  quiet = false,
  leastStep = LEAST_STEP,
): CommandProgress {
  const asked = args.last('progress');
  if (asked !== undefined && asked !== '' && asked !== 'json') {
    throw new UsageError(`--progress must be used with json as argument`);
  }
  const style = asked === undefined || quiet ? 'none' : asked === 'json' ? 'json' : 'bar';
  return new ShownProgress(style, leastStep);
}

class ShownProgress implements CommandProgress {
  readonly muted: Progress = { advance: (fraction) => this.#hearSignals(fraction) };
  readonly #style: 'none' | 'bar' | 'json';
  readonly #leastStep: number;
  #fraction = 0;
  #shown = 0;
  #paused = Date.now();
  #stopped: StopSignal | undefined;
  readonly #stop = (signal: StopSignal) => {
    this.#stopped = signal;
  };
  readonly #tell = () => {
    if (this.#style === 'none') process.stderr.write(`${this.#text()}\n`);
    else this.#show();
  };

  constructor(style: 'none' | 'bar' | 'json', leastStep: number) {
    this.#style = style;
    this.#leastStep = leastStep;
    answerProgress(this.#tell);
    for (const signal of STOP_SIGNALS) process.on(signal, this.#stop);
    this.#show();
  }

  async advance(fraction: number): Promise<void> {
    this.#fraction = Math.min(1, Math.max(this.#fraction, fraction));
    const far = this.#fraction - this.#shown > this.#leastStep;
    if (far || (this.#fraction === 1 && this.#shown < 1)) this.#show();
    await this.#hearSignals(fraction);
  }

  async #hearSignals(fraction: number): Promise<void> {
    const last = fraction >= 1;
    if (last || Date.now() - this.#paused >= PAUSE_MS) {
      await setImmediate();
      // The first one may come before signals are looked for.
      if (last) await setImmediate();
      this.#paused = Date.now();
    }
    if (this.#stopped !== undefined) throw new Cancelled(this.#stopped);
  }

  complete(): void {
    if (this.#style === 'json' && this.#shown === 1) return;
    this.#fraction = 1;
    this.#show();
  }

  finish(): void {
    answerProgress();
    for (const signal of STOP_SIGNALS) process.off(signal, this.#stop);
    if (this.#style === 'bar') process.stdout.write('\n');
  }

  #show(): void {
    this.#shown = this.#fraction;
    if (this.#style === 'bar') process.stdout.write(`${this.#text()}\r`);
    if (this.#style === 'json') {
      const percent = Number((this.#fraction * 100).toFixed(2));
      process.stdout.write(`${JSON.stringify({ progress: percent })}\n`);
    }
  }

  #text(): string {
    return `    (${(this.#fraction * 100).toFixed(2)}/100%)`;
  }
}
