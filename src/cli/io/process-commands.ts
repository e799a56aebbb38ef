/** What concerns the program itself: abort, sigraise, sleep, quit; and breakpoints, which no image has. */
import { setTimeout as pause } from 'node:timers/promises';
import { abortNow, raiseSignal } from '../../sys/process.js';
import { ANY, type ImageCommand, type PlainCommand } from './command.js';
import { Complaint } from './complaint.js';
import { parseInteger, parseNumber } from './words.js';

const LAST_SIGNAL = 64;
/** SIGUSR1, SIGPIPE, SIGALRM, SIGIO: QEMU has its own uses for them. */
const UNHEARD: readonly number[] = [10, 13, 14, 29];
const UNSUPPORTED = 'Operation not supported';

export const ABORT: PlainCommand = {
  name: 'abort',
  summary: 'simulate a program crash using abort(3)',
  words: [0, 0],
  // Nothing is flushed, the output neither.
  run: () => abortNow(),
};

export const SIGRAISE: PlainCommand = {
  name: 'sigraise',
  usage: 'signal',
  summary: 'raises a signal',
  help: 'Sends this process the signal of that number, such as 9 or 15.',
  words: [1, 1],
  run: (session, { operands }) => {
    const signal = parseNumber(operands[0]!);
    if (signal > LAST_SIGNAL + 1) {
      const problem = 'is too large to be a valid signal';
      throw new Complaint(`signal argument '${operands[0]}' ${problem}`);
    }
    session.output.flush();
    if (!UNHEARD.includes(signal)) raiseSignal(signal);
  },
};

export const SLEEP: PlainCommand = {
  name: 'sleep',
  summary: 'waits for the given value in milliseconds',
  words: [1, 1],
  run: async (session, { operands }) => {
    const milliseconds = parseInteger(operands[0]!);
    if (milliseconds === undefined || milliseconds < 0) {
      throw new Complaint(`${operands[0]} is not a valid number`);
    }
    session.settle();
    await pause(milliseconds);
  },
};

export const QUIT: PlainCommand = {
  name: 'quit',
  alias: 'q',
  summary: 'exit the program',
  words: [0, ANY],
  run: (session) => {
    session.done = true;
  },
};

export const BREAK: ImageCommand = {
  name: 'break',
  usage: 'event tag',
  summary: 'sets a breakpoint on event and tags the stopped request as tag',
  words: [2, 2],
  onImage: () => {
    throw new Complaint(`Could not set breakpoint: ${UNSUPPORTED}`);
  },
};

export const REMOVE_BREAK: ImageCommand = {
  name: 'remove_break',
  usage: 'tag',
  summary: 'remove a breakpoint by tag',
  words: [1, 1],
  onImage: (_session, { operands }) => {
    throw new Complaint(`Could not remove breakpoint ${operands[0]}: ${UNSUPPORTED}`);
  },
};

export const RESUME: ImageCommand = {
  name: 'resume',
  usage: 'tag',
  summary: 'resumes the request tagged as tag',
  words: [1, 1],
  onImage: () => {
    throw new Complaint(`Could not resume request: ${UNSUPPORTED}`);
  },
};

export const WAIT_BREAK: ImageCommand = {
  name: 'wait_break',
  usage: 'tag',
  summary: 'waits for the suspension of a request',
  words: [1, 1],
  // No request will ever be suspended: waiting would not end.
  onImage: () => {
    throw new Complaint(`Could not wait for request: ${UNSUPPORTED}`);
  },
};
