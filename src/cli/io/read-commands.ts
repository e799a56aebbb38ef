/** read, readv, aio_read. */
import type { Arguments } from '../getopt.js';
import { letters } from './arguments.js';
import { ANY, type ImageCommand } from './command.js';
import { Complaint, WrongWords } from './complaint.js';
import type { IoImage } from './image.js';
import { parseVector, type Range, refuseUnaligned } from './ranges.js';
import { failureText, type Result, type Session, tell, tellingOf, timed } from './session.js';
import { dumpText, MOST_BYTES, parseNumber, parsePattern } from './words.js';

const STATISTICS = `-C  statistics for programs
-P  hold the bytes against this one
-q  print no statistics`;

export const READ: ImageCommand = {
  name: 'read',
  alias: 'r',
  usage: '[-abCqv] [-P pattern [-s off] [-l len]] off len',
  summary: 'reads a number of bytes at a specified offset',
  help: `Reads LEN bytes of the disk from byte OFF on.

-b  read VM state, not the disk
${STATISTICS}
-l  how many bytes -P looks at
-p  changes nothing
-s  from which byte of the range on -P looks
-v  print the bytes`,
  words: [2, ANY],
  options: letters('bCl:pP:qs:v'),
  onImage: runRead,
};

export const READV: ImageCommand = {
  name: 'readv',
  usage: '[-Cqv] [-P pattern] off len [len..]',
  summary: 'reads a number of bytes at a specified offset',
  help: `Reads the sum of all LEN bytes from byte OFF on, in one request.

${STATISTICS}
-v  print the bytes`,
  words: [2, ANY],
  options: letters('CP:qv'),
  onImage: async (session, args, image) => {
    const pattern = patternOf(args);
    const range = parseVector(args.operands);
    const [seen, result] = await readAll(session, image, range, args, pattern);
    finish(session, 'readv', range, seen, result, args);
  },
};

export const AIO_READ: ImageCommand = {
  name: 'aio_read',
  usage: '[-Ciqv] [-P pattern] off len [len..]',
  summary: 'asynchronously reads a number of bytes',
  help: `Reads as readv does; what came of it is told with the next request that is waited for, and
changes nothing of the exit status.

${STATISTICS}
-i  count a request that is none
-v  print the bytes`,
  words: [2, ANY],
  options: letters('CP:iqv'),
  onImage: async (session, args, image) => {
    const pattern = patternOf(args);
    if (args.has('i')) {
      session.print('injecting invalid read request\n');
      return;
    }
    const range = parseVector(args.operands);
    const seen = new Seen(session, args, pattern, { from: 0, to: range.length }, range.offset);
    const result = await timed(() => image.requests.read(range.offset, range.length, seen.see));
    session.later(() => {
      if ('error' in result) session.print(`${failureText('readv', result.error)}\n`);
      else {
        seen.tell();
        tell(session, 'readv', result, { verb: 'read', ...range }, tellingOf(args));
      }
    });
  },
};

function patternOf(args: Arguments): number | undefined {
  const values = args.all('P').map(parsePattern);
  return values.at(-1);
}

async function runRead(session: Session, args: Arguments, image: IoImage): Promise<void> {
  const limits = new Map<string, number>();
  let pattern: number | undefined;
  for (const { name, value } of args.given) {
    if (name === 'P') pattern = parsePattern(value);
    if (name === 'l' || name === 's') limits.set(name, parseNumber(value));
  }
  if (args.operands.length !== 2) throw new WrongWords();
  const offset = parseNumber(args.operands[0]!);
  const length = parseNumber(args.operands[1]!);
  if (length > MOST_BYTES) {
    throw new Complaint(`length cannot exceed ${MOST_BYTES}, given ${args.operands[1]}`);
  }
  if (pattern === undefined && limits.size > 0) throw new WrongWords();
  const from = limits.get('s') ?? 0;
  const to = from + (limits.get('l') || length - from);
  if (to < from || to > length) {
    throw new Complaint('pattern verification range exceeds end of read data');
  }
  if (args.has('b')) refuseUnaligned(offset, length);
  session.settle();
  const seen = new Seen(session, args, pattern, { from, to }, offset);
  const result = await timed(() => {
    if (args.has('b')) image.requests.readVmState(offset, length, seen.see);
    else image.requests.read(offset, length, seen.see);
  });
  finish(session, 'read', { offset, length }, seen, result, args);
}

async function readAll(
  session: Session,
  image: IoImage,
  range: Range,
  args: Arguments,
  pattern: number | undefined,
) {
  session.settle();
  const seen = new Seen(session, args, pattern, { from: 0, to: range.length }, range.offset);
  const result = await timed(() => image.requests.read(range.offset, range.length, seen.see));
  return [seen, result] as const;
}

function finish(
  session: Session,
  command: string,
  range: Range,
  seen: Seen,
  result: Result,
  args: Arguments,
): void {
  const told = 'error' in result || seen.tell();
  tell(session, command, result, { verb: 'read', ...range }, tellingOf(args));
  // What is wrong is printed already.
  if (!told) throw new Complaint();
}

/** Looks at what is read, and prints it afterwards where that is asked for. */
class Seen {
  readonly #session: Session;
  readonly #args: Arguments;
  readonly #pattern: number | undefined;
  readonly #limits: { readonly from: number; readonly to: number };
  readonly #offset: number;
  readonly #dumps: string[] = [];
  #matches = true;

  constructor(
    session: Session,
    args: Arguments,
    pattern: number | undefined,
    limits: { readonly from: number; readonly to: number },
    offset: number,
  ) {
    this.#session = session;
    this.#args = args;
    this.#pattern = pattern;
    this.#limits = limits;
    this.#offset = offset;
  }

  readonly see = (bytes: Buffer, from: number): void => {
    const pattern = this.#pattern;
    if (pattern !== undefined) {
      const start = Math.max(0, this.#limits.from - from);
      const end = Math.max(start, Math.min(bytes.length, this.#limits.to - from));
      const looked = bytes.subarray(start, end);
      if (looked.some((byte) => byte !== pattern)) this.#matches = false;
    }
    if (this.#args.has('v') && !this.#args.has('q')) {
      this.#dumps.push(dumpText(bytes, this.#offset + from));
    }
  };

  /** Prints the bytes, and whether they are what they should be; false where they are not. */
  tell(): boolean {
    const { from, to } = this.#limits;
    if (!this.#matches) {
      const place = `offset ${this.#offset + from}, ${to - from} bytes`;
      this.#session.print(`Pattern verification failed at ${place}\n`);
    }
    for (const dump of this.#dumps) this.#session.print(dump);
    return this.#matches;
  }
}
