/** write, writev, aio_write, discard. */
import { readFileSync } from 'node:fs';
import { errnoOf, isExpected } from '../../errors.js';
import { strerror } from '../../sys/libc.js';
import type { FillBytes } from '../../tools/disk-requests.js';
import type { Arguments } from '../getopt.js';
import { letters } from './arguments.js';
import { ANY, type ImageCommand } from './command.js';
import { Complaint, PlainError, WrongWords } from './complaint.js';
import type { IoImage } from './image.js';
import { parseVector, refuseUnaligned } from './ranges.js';
import { failureText, type Session, tell, tellingOf, timed } from './session.js';
import { MOST_BYTES, parseNumber, parsePattern } from './words.js';

/** What is written where nothing else is said. */
const DEFAULT_PATTERN = 0xcd;

const STATISTICS = `-C  statistics for programs
-f  durable before it is told of
-q  print no statistics`;

export const WRITE: ImageCommand = {
  name: 'write',
  alias: 'w',
  usage: '[-bcCfnquz] [-P pattern | -s source_file] off len',
  summary: 'writes a number of bytes at a specified offset',
  help: `Writes LEN bytes to the disk from byte OFF on: 0xcd, where nothing else is said.

-b  write VM state, not the disk
-c  store whole clusters compressed
${STATISTICS}
-n  with -z: fail where zeroes would have to be written
-p  changes nothing
-P  write this byte
-s  write the bytes of this file, again and again
-u  with -z: space may be given back
-z  make the range zero`,
  words: [2, ANY],
  writes: true,
  options: letters('bcCfnpP:qs:uz'),
  onImage: runWrite,
};

export const WRITEV: ImageCommand = {
  name: 'writev',
  usage: '[-Cfq] [-P pattern] off len [len..]',
  summary: 'writes a number of bytes at a specified offset',
  help: `Writes the sum of all LEN bytes from byte OFF on, in one request: 0xcd, or what -P says.

${STATISTICS}
-P  write this byte`,
  words: [2, ANY],
  writes: true,
  options: letters('CfqP:'),
  onImage: async (session, args, image) => {
    const fill = fillWith(patternOf(args));
    const { offset, length } = parseVector(args.operands);
    session.settle();
    const result = await timed(() => {
      image.requests.write(offset, length, fill);
      if (args.has('f')) image.disk.writer.flush();
    });
    tell(session, 'writev', result, { verb: 'wrote', offset, length }, tellingOf(args));
  },
};

export const AIO_WRITE: ImageCommand = {
  name: 'aio_write',
  usage: '[-Cfiquz] [-P pattern] off len [len..]',
  summary: 'asynchronously writes a number of bytes',
  help: `Writes as writev does; what came of it is told with the next request that is waited for, and
changes nothing of the exit status.

${STATISTICS}
-i  count a request that is none
-P  write this byte
-u  with -z: space may be given back
-z  make the range zero`,
  words: [2, ANY],
  writes: true,
  options: letters('CfiP:quz'),
  onImage: runAioWrite,
};

export const DISCARD: ImageCommand = {
  name: 'discard',
  alias: 'd',
  usage: '[-Cq] off len',
  summary: 'discards a number of bytes at a specified offset',
  help: `Gives back the space of LEN bytes from byte OFF on, as far as they are whole clusters.

-C  statistics for programs
-q  print no statistics`,
  words: [2, ANY],
  writes: true,
  options: letters('Cq'),
  onImage: async (session, args, image) => {
    if (args.operands.length !== 2) throw new WrongWords();
    const offset = parseNumber(args.operands[0]!);
    const length = parseNumber(args.operands[1]!);
    if (length > MOST_BYTES) {
      throw new Complaint(`length cannot exceed ${MOST_BYTES}, given ${args.operands[1]}`);
    }
    session.settle();
    const result = await timed(() => image.requests.discard(offset, length));
    tell(session, 'discard', result, { verb: 'discard', offset, length }, tellingOf(args));
  },
};

function patternOf(args: Arguments): number {
  const values = args.all('P').map(parsePattern);
  return values.at(-1) ?? DEFAULT_PATTERN;
}

function fillWith(pattern: number): FillBytes {
  return (target) => void target.fill(pattern);
}

/** The bytes of a file, again and again. */
function fillFrom(path: string, most: number): FillBytes {
  const bytes = readSource(path).subarray(0, Math.max(1, most));
  if (bytes.length === 0) throw new PlainError(`${path}: file is empty`);
  return (target, from) => {
    const skip = from % bytes.length;
    const head = bytes.copy(target, 0, skip);
    for (let at = head; at < target.length; at += bytes.length) bytes.copy(target, at);
  };
}

function readSource(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    if (!isExpected(error)) throw error;
    throw new PlainError(`${path}: ${strerror(errnoOf(error))}`);
  }
}

/** Throws where options do not go together. */
function checkOptions(args: Arguments): void {
  const refuse = (wrong: boolean, problem: string): void => {
    if (wrong) throw new Complaint(problem);
  };
  refuse(args.has('b') && args.has('z'), '-b and -z cannot be specified at the same time');
  const flushes = args.has('f') && (args.has('b') || args.has('c'));
  refuse(flushes, '-f and -b or -c cannot be specified at the same time');
  refuse(args.has('n') && !args.has('z'), '-n requires -z to be specified');
  refuse(args.has('u') && !args.has('z'), '-u requires -z to be specified');
  const sources = ['z', 'P', 's'].filter((name) => args.has(name));
  const problem = 'Only one of -z, -P, and -s can be specified at the same time';
  refuse(sources.length > 1, problem);
}

async function runWrite(session: Session, args: Arguments, image: IoImage): Promise<void> {
  const pattern = patternOf(args);
  if (args.operands.length !== 2) throw new WrongWords();
  checkOptions(args);
  const offset = parseNumber(args.operands[0]!);
  const length = parseNumber(args.operands[1]!);
  if (length > MOST_BYTES && !args.has('n')) {
    const most = `length cannot exceed ${MOST_BYTES} without -n`;
    throw new Complaint(`${most}, given ${args.operands[1]}`);
  }
  if (args.has('b') || args.has('c')) refuseUnaligned(offset, length);
  const source = args.last('s');
  const fill = source === undefined ? fillWith(pattern) : fillFrom(source, length);
  session.settle();
  const result = await timed(async () => {
    const { requests } = image;
    if (args.has('b')) requests.writeVmState(offset, length, fill);
    else if (args.has('z')) {
      const options = { unmap: args.has('u'), noFallback: args.has('n') };
      requests.writeZeroes(offset, length, options);
    } else if (args.has('c')) await requests.writeCompressed(offset, length, fill);
    else requests.write(offset, length, fill);
    if (args.has('f')) image.disk.writer.flush();
  });
  tell(session, 'write', result, { verb: 'wrote', offset, length }, tellingOf(args));
}

async function runAioWrite(session: Session, args: Arguments, image: IoImage): Promise<void> {
  const fill = fillWith(patternOf(args));
  if (args.has('z') && args.operands.length !== 2) {
    throw new Complaint('-z supports only a single length parameter');
  }
  if (args.has('u') && !args.has('z')) throw new Complaint('-u requires -z to be specified');
  if (args.has('i')) {
    session.print('injecting invalid write request\n');
    return;
  }
  const { offset, length } = args.has('z')
    ? { offset: parseNumber(args.operands[0]!), length: parseNumber(args.operands[1]!) }
    : parseVector(args.operands);
  const result = await timed(() => {
    const zeroes = { unmap: args.has('u'), noFallback: false };
    if (args.has('z')) image.requests.writeZeroes(offset, length, zeroes);
    else image.requests.write(offset, length, fill);
    if (args.has('f')) image.disk.writer.flush();
  });
  session.later(() => {
    if ('error' in result) session.print(`${failureText('aio_write', result.error)}\n`);
    else tell(session, 'aio_write', result, { verb: 'wrote', offset, length }, tellingOf(args));
  });
}
