/** The INIT handshake: done once by the main thread, before there is any worker. */
import { ImageError } from '../errors.js';
import { IoBuffer } from '../sys/io-buffer.js';
import {
  IN_HEADER,
  INIT_FLAG,
  INIT_FLAG2,
  INIT_IN,
  INIT_IN_EXT,
  INIT_OUT,
  KERNEL_MINOR_VERSION,
  KERNEL_VERSION,
  OLDEST_MINOR_VERSION,
  OUT_HEADER,
} from './abi.js';
import { readRequest, UNMOUNTED, writeReply } from './channel.js';
import type { DispatchLog } from './dispatch.js';
import type { Opcode } from './opcode.js';
import { INIT, OPCODES } from './opcodes.js';
import { Request } from './request.js';
import { traceLine } from './trace.js';

const PAGE_SIZE = 4096;

/** Bytes of the largest READ; the kernel's own limit (fs.fuse.max_pages_limit) is as much. */
export const MAX_READ = 1 << 20;

/** Requests that may wait at the kernel: read-ahead and asynchronous direct I/O count as such. */
const MAX_BACKGROUND = 64;

const WANTED = Object.values(INIT_FLAG).reduce((mask, flag) => mask | flag, 0);
const WANTED2 = Object.values(INIT_FLAG2).reduce((mask, flag) => mask | flag, 0);

/** What becomes of a request that should be INIT. */
export interface Handshake {
  /** Errno of the answer, 0 where it is one of success. */
  readonly error: number;
  /** Bytes of the reply. */
  readonly size: number;
  /** Whether the mount works now: a kernel of a later major version is asked to come again. */
  readonly done: boolean;
  /** Why there will be no mount. */
  readonly refusal?: ImageError;
}

/** Waits for INIT and answers it. Throws an ImageError where kernel and program do not match. */
export function handshake(fd: number, trace?: Pick<DispatchLog, 'debug'>): void {
  const request = new Request(new IoBuffer(MAX_READ + PAGE_SIZE));
  const reply = new IoBuffer(OUT_HEADER.size + INIT_OUT.size);
  for (;;) {
    request.length = readRequest(fd, request.buffer);
    if (request.length === UNMOUNTED) {
      throw new ImageError('invalid', 'ENODEV', 'unmounted before it was mounted');
    }
    const started = performance.now();
    const { error, size, done, refusal } = answerInit(request, reply);
    writeReply(fd, reply, size);
    const opcode = opcodeOf(request);
    const ms = performance.now() - started;
    trace?.debug(traceLine(opcode, request, error, size - OUT_HEADER.size, ms));
    if (refusal !== undefined) throw refusal;
    if (done) return;
  }
}

/** Lays the answer to a first request into `reply`. */
export function answerInit(request: Request, reply: IoBuffer): Handshake {
  const refusal = refusalOf(request);
  const error = refusal === undefined ? 0 : refusal.errno;
  const size = error === 0 ? reply.length : OUT_HEADER.size;
  const { unique } = IN_HEADER.read(request.view, 0);
  OUT_HEADER.write(reply.view, 0, { len: size, error: -error, unique });
  if (refusal !== undefined) return { error, size, done: false, refusal };
  const init = request.read(INIT_IN);
  INIT_OUT.write(reply.view, OUT_HEADER.size, answer(init, flags2Of(request)));
  return { error, size, done: init.major === KERNEL_VERSION };
}

function refusalOf(request: Request): ImageError | undefined {
  const opcode = opcodeOf(request);
  if (opcode !== INIT) {
    const name = opcode?.name ?? `opcode ${request.opcode}`;
    const found = `the kernel's first request is ${name}, not ${INIT.name}`;
    return new ImageError('invalid', 'EPROTO', found);
  }
  if (request.length < IN_HEADER.size + INIT_IN.size) {
    const found = `the kernel's ${INIT.name} has only ${request.length} bytes`;
    return new ImageError('invalid', 'EPROTO', found);
  }
  const { major, minor } = request.read(INIT_IN);
  if (major > KERNEL_VERSION) return undefined;
  if (major === KERNEL_VERSION && minor >= OLDEST_MINOR_VERSION) return undefined;
  return new ImageError('unsupported', 'EPROTO', `the kernel speaks FUSE ${major}.${minor}`, {
    limit: `at least ${KERNEL_VERSION}.${OLDEST_MINOR_VERSION} is needed`,
  });
}

function opcodeOf(request: Request): Opcode | undefined {
  return OPCODES.find(({ code }) => code === request.opcode);
}

/** The flags that older kernels do not send. */
function flags2Of(request: Request): number {
  const extended = (request.read(INIT_IN).flags & INIT_FLAG.INIT_EXT) !== 0;
  const end = IN_HEADER.size + INIT_IN.size + INIT_IN_EXT.size;
  if (!extended || request.length < end) return 0;
  return request.u32(INIT_IN.size + INIT_IN_EXT.offsets.flags2);
}

function answer(init: { maxReadahead: number; flags: number }, flags2: number) {
  return {
    major: KERNEL_VERSION,
    minor: KERNEL_MINOR_VERSION,
    maxReadahead: init.maxReadahead,
    flags: init.flags & WANTED,
    flags2: flags2 & WANTED2,
    maxBackground: MAX_BACKGROUND,
    congestionThreshold: (MAX_BACKGROUND * 3) / 4,
    maxWrite: MAX_READ,
    timeGran: 1,
    maxPages: MAX_READ / PAGE_SIZE,
  };
}
