/** The INIT handshake: done once by the main thread, before there is any worker. */
import { ERRNO, ImageError } from '../errors.js';
import { IoBuffer } from '../sys/io-buffer.js';
import {
  IN_HEADER,
  INIT_FLAG,
  INIT_IN,
  INIT_OUT,
  KERNEL_MINOR_VERSION,
  KERNEL_VERSION,
  OLDEST_MINOR_VERSION,
  OUT_HEADER,
} from './abi.js';
import { readRequest, UNMOUNTED, writeReply } from './channel.js';

const INIT_OPCODE = 26;
const PAGE_SIZE = 4096;

/** Bytes of the largest READ; the kernel's own limit (fs.fuse.max_pages_limit) is as much. */
export const MAX_READ = 1 << 20;

/** Requests that may wait at the kernel: read-ahead and asynchronous direct I/O count as such. */
const MAX_BACKGROUND = 64;

const WANTED = Object.values(INIT_FLAG).reduce((mask, flag) => mask | flag, 0);

export interface Negotiated {
  readonly minor: number;
  /** Bytes. */
  readonly maxReadahead: number;
}

/** Waits for INIT and answers it. A kernel of a later major version is asked to come again. */
export function handshake(fd: number): Negotiated {
  const request = new IoBuffer(MAX_READ + PAGE_SIZE);
  const reply = new IoBuffer(OUT_HEADER.size + INIT_OUT.size);
  for (;;) {
    if (readRequest(fd, request) === UNMOUNTED) {
      throw new ImageError('invalid', 'ENODEV', 'unmounted before it was mounted');
    }
    const header = IN_HEADER.read(request.view, 0);
    const init = INIT_IN.read(request.view, IN_HEADER.size);
    const tooOld = init.major < KERNEL_VERSION || init.minor < OLDEST_MINOR_VERSION;
    const error = header.opcode !== INIT_OPCODE ? ERRNO.EIO : tooOld ? ERRNO.EPROTO : 0;
    OUT_HEADER.write(reply.view, 0, {
      len: error === 0 ? reply.length : OUT_HEADER.size,
      error: -error,
      unique: header.unique,
    });
    INIT_OUT.write(reply.view, OUT_HEADER.size, answer(init));
    writeReply(fd, reply, error === 0 ? reply.length : OUT_HEADER.size);
    if (error !== 0) {
      throw new ImageError(
        'unsupported',
        'EPROTO',
        `the kernel speaks FUSE ${init.major}.${init.minor}`,
        { limit: `at least ${KERNEL_VERSION}.${OLDEST_MINOR_VERSION} is needed` },
      );
    }
    if (init.major === KERNEL_VERSION) {
      return { minor: init.minor, maxReadahead: init.maxReadahead };
    }
  }
}

function answer(init: { minor: number; maxReadahead: number; flags: number }) {
  return {
    major: KERNEL_VERSION,
    minor: KERNEL_MINOR_VERSION,
    maxReadahead: init.maxReadahead,
    flags: init.flags & WANTED,
    maxBackground: MAX_BACKGROUND,
    congestionThreshold: (MAX_BACKGROUND * 3) / 4,
    maxWrite: MAX_READ,
    timeGran: 1,
    maxPages: MAX_READ / PAGE_SIZE,
  };
}
