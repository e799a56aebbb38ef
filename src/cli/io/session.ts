/** What qemu-io's commands share: the open image, the output, requests that wait to be told of. */
import { errnoOf, isExpected } from '../../errors.js';
import { KeyRing } from '../../image/crypto/key-ring.js';
import { strerror } from '../../sys/libc.js';
import type { Arguments } from '../getopt.js';
import { Complaint } from './complaint.js';
import type { IoImage } from './image.js';
import { Output } from './output.js';
import { reportText } from './words.js';

export class Session {
  readonly output = new Output();
  /** Null: none is open. */
  image: IoImage | null = null;
  /** Whether images are named by `driver=…,file.filename=…`. */
  readonly imageOpts: boolean;
  /** Of the objects on the command line. */
  keys = new KeyRing();
  /** No further command is run. */
  done = false;
  readonly #waiting: (() => void)[] = [];

  constructor(imageOpts: boolean) {
    this.imageOpts = imageOpts;
  }

  print(text: string): void {
    this.output.print(text);
  }

  /** What a request that nobody waited for has to say comes out with the next one that is waited for. */
  later(tell: () => void): void {
    this.#waiting.push(tell);
  }

  settle(): void {
    for (const tell of this.#waiting.splice(0)) tell();
  }

  /** Leaves the image clean. */
  close(): void {
    this.settle();
    const { image } = this;
    this.image = null;
    image?.disk.close();
  }
}

/** How a request is told of. */
export interface Telling {
  readonly quiet: boolean;
  readonly terse: boolean;
}

/** What `-q` and `-C` say. */
export function tellingOf(args: Arguments): Telling {
  return { quiet: args.has('q'), terse: args.has('C') };
}

/** What came of a request. */
export type Result = { readonly seconds: number } | { readonly error: Error };

/** Runs a request; the image's refusal is a result too. */
export async function timed(request: () => void | Promise<void>): Promise<Result> {
  const start = process.hrtime.bigint();
  try {
    await request();
    return { seconds: Math.max(1, Number(process.hrtime.bigint() - start)) / 1e9 };
  } catch (error) {
    if (!isExpected(error)) throw error;
    return { error };
  }
}

/** The line for a request that failed. */
export function failureText(command: string, error: Error): string {
  return `${command} failed: ${strerror(errnoOf(error))}`;
}

/** Prints what came of a request; throws a Complaint where it failed. */
export function tell(
  session: Session,
  command: string,
  result: Result,
  what: { verb: string; offset: number; length: number },
  { quiet, terse }: Telling,
): void {
  if ('error' in result) throw new Complaint(failureText(command, result.error));
  if (quiet) return;
  session.print(reportText({ ...what, seconds: result.seconds, terse }));
}
