/** Compacts an image, kills the command in the middle, and judges what is left: QEMU reads it. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, readFileSync, statSync } from 'node:fs';
import { contentsOf, FRAGMENTED_KINDS, makeFragmented } from './fragmented-images.js';
import { CLI, type Sandbox } from './mount.js';
import { tryQemuImg } from './qemu.js';
import { Random } from './random.js';

/** As many times the size of images that are compacted in less than no time. */
const SCALE = 4;

export interface CompactKill {
  readonly image: string;
  /** Whether the kill met the image with some of its changes made, and not all. */
  readonly middle: boolean;
  /** Calls of write(2) when it was killed, from the first of a whole run to its last. */
  readonly writes: number;
  readonly of: number;
  readonly fault: string | null;
}

/** One run; everything in it follows from `seed`, but for the exact moment. */
export async function killCompact(
  sandbox: Sandbox,
  seed: number,
  scale = SCALE,
): Promise<CompactKill> {
  const random = new Random(seed);
  const kind = random.pick(FRAGMENTED_KINDS);
  const path = sandbox.path(`compact${seed}.qcow2`);
  makeFragmented(path, kind, random, scale);
  const before = contentsOf(path, kind);
  const [original, whole] = [readFileSync(path), `${path}.whole`];
  copyFileSync(path, whole);
  const least = await writesOf(compact('-n', whole), Number.POSITIVE_INFINITY);
  const most = await writesOf(compact(whole), Number.POSITIVE_INFINITY);
  const of = Math.max(1, most - least);
  const wanted = 1 + random.below(of);
  const writes = (await writesOf(compact(path), least + wanted)) - least;
  const changed = !readFileSync(path).equals(original);
  const check = tryQemuImg('check', path);
  const middle = changed && (check.status === 3 || statSync(path).size > statSync(whole).size);
  const outcome = { image: kind.name, middle, writes, of };
  const faultOf = (): string | null => {
    // 3: leaked clusters, no more.
    if (check.status !== 0 && check.status !== 3) return `check: ${check.stdout}${check.stderr}`;
    if (!same(contentsOf(path, kind), before)) return 'other contents after the kill';
    const again = spawnSync(process.execPath, [CLI, 'compact', '-q', path], { encoding: 'utf8' });
    if (again.status !== 0) return `a second run: ${again.stderr}`;
    const last = tryQemuImg('check', path);
    if (last.status !== 0) return `check behind the second run: ${last.stdout}${last.stderr}`;
    if (!same(contentsOf(path, kind), before)) return 'other contents after the second run';
    return null;
  };
  return { ...outcome, fault: faultOf() };
}

function compact(...words: readonly string[]): ChildProcess {
  return spawn(process.execPath, [CLI, 'compact', '-q', ...words], { stdio: 'ignore' });
}

/** Kills it when it has written so often; answers how often it has in the end. */
async function writesOf(child: ChildProcess, limit: number): Promise<number> {
  const closed = once(child, 'close');
  const folder = `/proc/${child.pid}`;
  let writes = 0;
  let killed = false;
  // Nothing is waited for between two looks: all is over in some milliseconds.
  while (!killed && !/^State:\s+Z/m.test(readFileSync(`${folder}/status`, 'utf8'))) {
    writes = Number(/^syscw: (\d+)$/m.exec(readFileSync(`${folder}/io`, 'utf8'))![1]);
    if (writes >= limit) killed = child.kill('SIGKILL');
  }
  await closed;
  return writes;
}

function same(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}
