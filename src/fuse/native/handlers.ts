/**
 * What fuse-native calls. Each request is answered, whatever becomes of it: one that is not holds a thread of libfuse
 * for ever, and who waits for it.
 */
import { ERRNO, errnoName, errnoOf, errorFacts } from '../../errors.js';
import type { MountState } from '../../shared/mount-state.js';
import type { RequestCounters } from '../../shared/request-counters.js';
import type { DispatchLog } from '../dispatch.js';
import { OPCODES } from '../opcodes.js';
import { LineThrottle, textForLog } from '../throttle.js';
import type { Answer, Handlers } from './binding.js';
import type { PathFiles } from './path-files.js';

/** How long a file may still be open that a program has just closed: its release may wait behind this request. */
const PATIENCE_MS = 200;
const AGAIN_MS = 5;
const MS_DIGITS = 3;

/** The kernel's request behind a handler, where it is not called the same. */
const SETATTR = ['chmod', 'chown', 'ftruncate', 'truncate', 'utimens'];

/** Requests that are refused while a file is open, and are tried again so long. */
const PATIENT: readonly string[] = ['setxattr', 'unlink'];

export interface HandlerOptions {
  readonly files: PathFiles;
  readonly state: MountState;
  readonly counters: RequestCounters;
  readonly log: DispatchLog;
  /** Trace each request. */
  readonly trace: boolean;
}

export interface ServedHandlers {
  readonly handlers: Handlers;
  /** There will be no more requests. */
  end(): void;
}

/** What is called back with. */
type Outcome = readonly [result: number, ...values: unknown[]];
type Serve = (...args: never[]) => Outcome;

export function makeHandlers(options: HandlerOptions): ServedHandlers {
  const { files, state, counters, log, trace } = options;
  const errors = new LineThrottle((line, facts) => log.error(line, facts));
  const attempt = (name: string, serve: Serve, args: readonly unknown[]): Outcome => {
    if (state.stopped) return [-ERRNO.ENOTCONN];
    try {
      return serve(...(args as never[]));
    } catch (error) {
      const text = textForLog(error);
      if (text !== null) {
        const facts = { request: name, path: String(args[0]), ...errorFacts(error) };
        errors.put(`${name} '${args[0]}': ${text}`, facts);
      }
      return [-errnoOf(error)];
    }
  };
  const handler = (name: string, serve: Serve) => {
    const patience = PATIENT.includes(name) ? PATIENCE_MS : 0;
    const opcode = SETATTR.includes(name) ? 'SETATTR' : name.toUpperCase();
    const { code } = OPCODES.find((known) => known.name === opcode)!;
    return (...words: unknown[]): void => {
      const answer = words.pop() as Answer;
      const started = performance.now();
      const go = (): void => {
        const outcome = attempt(opcode, serve, words);
        const ms = performance.now() - started;
        if (outcome[0] === -ERRNO.EBUSY && ms < patience) {
          // Others are served meanwhile.
          setTimeout(go, AGAIN_MS);
          return;
        }
        counters.count(code, ms, outcome[0] < 0);
        if (trace) log.debug(traceLine(opcode, words, outcome[0], ms));
        errors.tick();
        answer(...outcome);
      };
      go();
    };
  };
  const handlers = Object.fromEntries(
    servesOf(files).map(([name, serve]) => [name, handler(name, serve)]),
  );
  return { handlers, end: () => errors.flush() };
}

/** Requests that are answered with more than that they were done, by fuse-native's names. */
function askingServes(files: PathFiles): Readonly<Record<string, Serve>> {
  return {
    create: (path: string) => [0, files.create(path)],
    getattr: (path: string) => [0, files.getattr(path)],
    getxattr: (path: string, name: string, target: Buffer) => [files.getxattr(path, name, target)],
    listxattr: (path: string, target: Buffer) => [files.listxattr(path, target)],
    open: (path: string, flags: number) => [0, files.open(path, flags)],
    read: (_path: string, file: number, target: Buffer, length: number, offset: number) => [
      files.read(file, target, length, offset),
    ],
    readdir: (path: string) => {
      const { names, stats } = files.readdir(path);
      return [0, names, stats];
    },
    statfs: () => [0, statfsOf(files)],
    write: (_path: string, file: number, source: Buffer, length: number, offset: number) => [
      files.write(file, source, length, offset),
    ],
  };
}

/** All others; of what is in neither table the kernel learns from libfuse that it does not work. */
function doingServes(files: PathFiles): Readonly<Record<string, (...args: never[]) => void>> {
  return {
    access: (path: string, mask: number) => files.access(path, mask),
    chmod: (path: string, mode: number) => files.chmod(path, mode),
    chown: (path: string, uid: number, gid: number) => files.chown(path, uid, gid),
    flush: (_path: string, file: number) => files.flush(file),
    fsync: () => files.fsync(),
    fsyncdir: () => files.fsync(),
    ftruncate: (path: string, file: number, size: number) => files.ftruncate(path, file, size),
    link: () => files.forbidden(),
    mkdir: () => files.forbidden(),
    mknod: (path: string, mode: number) => files.mknod(path, mode),
    release: (_path: string, file: number) => files.release(file),
    removexattr: () => files.removexattr(),
    rename: (from: string, to: string) => files.rename(from, to),
    rmdir: () => files.forbidden(),
    setxattr: (path: string, name: string, value: Buffer) => files.setxattr(path, name, value),
    symlink: () => files.forbidden(),
    truncate: (path: string, size: number) => files.truncate(path, size),
    unlink: (path: string) => files.unlink(path),
    utimens: (path: string) => files.utimens(path),
  };
}

function servesOf(files: PathFiles): [name: string, serve: Serve][] {
  const doing = Object.entries(doingServes(files)).map(([name, act]): [string, Serve] => [
    name,
    (...args) => {
      act(...args);
      return [0];
    },
  ]);
  return [...Object.entries(askingServes(files)), ...doing];
}

function statfsOf(files: PathFiles) {
  const { blockSize, blocks, files: count, nameMax } = files.statfs();
  return { bsize: blockSize, frsize: blockSize, blocks, files: count, namemax: nameMax };
}

/** `READ "/disk.raw" 3 4096 0 -> 4096, 0.025 ms`. */
function traceLine(name: string, args: readonly unknown[], result: number, ms: number): string {
  const words = args
    .filter((arg) => typeof arg !== 'object')
    .map((arg) => (typeof arg === 'string' ? JSON.stringify(arg) : String(arg)));
  const outcome = result < 0 ? errnoName(-result) : String(result);
  return `${[name, ...words].join(' ')} -> ${outcome}, ${ms.toFixed(MS_DIGITS)} ms`;
}
