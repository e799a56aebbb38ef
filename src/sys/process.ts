/** Processes: ending this one, watching others through /proc, and telling systemd. */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { IoBuffer } from './io-buffer.js';
import { fail, libc } from './libc.js';

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_NOSIGNAL = 0x4000;
const F_DUPFD_CLOEXEC = 1030;

/** sizeof(sockaddr_un.sun_path). */
const SUN_PATH_LENGTH = 108;

/** Milliseconds between two looks at a process: short at first, as most are gone at once. */
const POLL_FIRST_MS = 2;
const POLL_LAST_MS = 50;

/** Ends the process at once, threads that block in a system call included. */
export function exitNow(status: number): never {
  libc.exit(status);
  throw new Error('_exit returned');
}

const SIGABRT = 6;

/** Does to this process what the signal of that number does where nobody handles it; 0: nothing. */
export function raiseSignal(number: number): void {
  // Node has handlers of its own, and ignores SIGPIPE.
  libc.signal(number, 0);
  libc.raise(number);
}

/** Ends the process as C's abort does: nothing is flushed, nobody is asked. */
export function abortNow(): never {
  raiseSignal(SIGABRT);
  throw new Error('SIGABRT came back');
}

/** Makes `fd` mean the same open file as `source`. Throws a SysError. */
export function replaceDescriptor(fd: number, source: number): void {
  if (libc.dup2(source, fd) < 0) fail('dup2', `${source} to ${fd}`);
}

/** Another descriptor of the same open file, closed on exec. Throws a SysError. */
export function duplicateDescriptor(fd: number): number {
  const copy = libc.fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) fail('fcntl', `F_DUPFD_CLOEXEC of ${fd}`);
  return copy;
}

/** The ids of all processes that /proc shows. */
export function processIds(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** The command's name, as `ps` shows it; empty where the process is gone. */
export function processName(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trimEnd();
  } catch {
    return '';
  }
}

/**
 * When a process started, in clock ticks since the machine did: with the id, it names one process
 * for ever. Undefined where there is none, or where it is dead and only waits to be reaped.
 */
export function processStart(pid: number): number | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The name, in parentheses, can hold anything, parentheses too. Behind the last one comes field 3.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state, threads, start] = [fields[0], fields[17], fields[19]];
  if (start === undefined || !/^\d+$/.test(start)) return undefined;
  // A zombie has closed its files only when none of its threads is left but the first.
  if ((state === 'Z' || state === 'X') && Number(threads) <= 1) return undefined;
  return Number(start);
}

/** Waits until the process has gone. False where it still runs after `timeoutMs`. */
export async function waitForExit(pid: number, start: number, timeoutMs: number): Promise<boolean> {
  const end = performance.now() + timeoutMs;
  for (let pause = POLL_FIRST_MS; ; pause = Math.min(pause * 2, POLL_LAST_MS)) {
    if (processStart(pid) !== start) return true;
    const left = end - performance.now();
    if (left <= 0) return false;
    await sleep(Math.min(pause, left));
  }
}

/**
 * Tells systemd (`READY=1`, `STOPPING=1`, `STATUS=…`), where $NOTIFY_SOCKET asks for it: sd_notify(3).
 * True if it was sent; never throws.
 */
export function sdNotify(state: string): boolean {
  const name = process.env.NOTIFY_SOCKET ?? '';
  if (!/^[/@]./.test(name)) return false;
  const address = unixAddress(name);
  if (address === undefined) return false;
  const message = new IoBuffer(Buffer.byteLength(state));
  message.bytes.write(state);
  const fd = libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const { length } = message;
  const sent = libc.sendto(
    fd,
    message.address,
    length,
    MSG_NOSIGNAL,
    address.address,
    address.length,
  );
  libc.close(fd);
  return sent === length;
}

/** struct sockaddr_un. '@' stands for the zero byte that begins an abstract name. */
function unixAddress(name: string): IoBuffer | undefined {
  const path = Buffer.from(name);
  if (path.length >= SUN_PATH_LENGTH) return undefined;
  const abstract = name.startsWith('@');
  // An abstract name has no end but the address's length; a path ends with a zero byte.
  const address = new IoBuffer(2 + path.length + (abstract ? 0 : 1));
  new Uint16Array(address.bytes.buffer, address.bytes.byteOffset, 1)[0] = AF_UNIX;
  path.copy(address.bytes, 2);
  if (abstract) address.bytes[2] = 0;
  return address;
}
