/** Mounts an image for writing, writes to it, kills the daemon, and judges what is left. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { checkImage, type Fault } from './crash-check.js';
import { type ImageKind, makeCrashImage } from './crash-images.js';
import {
  type DiskState,
  Expectation,
  type Note,
  withSectors,
  withSnapshots,
} from './disk-history.js';
import { luksOptions } from './encrypted.js';
import { SECRET } from './image-words.js';
import { CLI, type Sandbox, until } from './mount.js';
import { Random } from './random.js';

const WRITER = fileURLToPath(new URL('./kill-writer.js', import.meta.url));
/** Milliseconds that the daemon lives while it is written to, at most. */
const LONGEST_MS = 1500;

const SECTORS = 32 * 2048;

/** Versions and features of qcow2, and whether there are bitmaps. */
const VERSIONS = [
  ['compat=0.10', false],
  ['compat=1.1', false],
  ['compat=1.1', true],
  ['lazy_refcounts=on', false],
  ['lazy_refcounts=on', true],
] as const;

const CONTENTS = ['empty', 'compressed', 'over backing file'] as const;

const QCOW2: readonly ImageKind[] = VERSIONS.flatMap(([version, bitmaps]) =>
  ['4k', '64k'].flatMap((cluster) =>
    CONTENTS.map((content) => ({
      size: SECTORS,
      options: [version, `cluster_size=${cluster}`],
      bitmaps,
      content,
    })),
  ),
);

const LUKS = luksOptions('encrypt.iter-time=0,encrypt.cipher-alg=aes-128');

/** One run after the other takes one of the next ones: each also where every second seed is for something else. */
const TURNS: readonly (readonly ImageKind[])[] = [
  QCOW2,
  (['empty', 'filled', 'over backing file'] as const).flatMap((content) =>
    ['4k', '64k'].map((cluster) => kindOf('qed', content, `cluster_size=${cluster}`)),
  ),
  QCOW2,
  CONTENTS.map((content) => kindOf('qcow', content)),
  (['empty', 'filled', 'over backing file'] as const).flatMap((content) =>
    ['4k', '64k'].map((cluster) => kindOf('qcow2', content, LUKS, `cluster_size=${cluster}`)),
  ),
];

function kindOf(
  format: ImageKind['format'],
  content: ImageKind['content'],
  ...options: readonly string[]
): ImageKind {
  return { format, content, options, size: SECTORS };
}

/** Why nothing can be written to a mount, or null. */
export function noWriting(): string | null {
  const words = [CLI, '/nowhere', '/nowhere', '-o', 'rw'];
  const { stderr } = spawnSync(process.execPath, words, { encoding: 'utf8' });
  return stderr.includes('writing is not supported') ? stderr.trim() : null;
}

export interface KillResult {
  readonly image: string;
  readonly writes: number;
  readonly flushes: number;
  readonly snapshots: number;
  readonly fault: Fault | null;
}

/** One run; everything in it follows from `seed`, but for the moment of the kill. */
export async function killOnce(sandbox: Sandbox, seed: number): Promise<KillResult> {
  const random = new Random(seed);
  const kind = random.pick(TURNS[seed % TURNS.length]!);
  const path = sandbox.path(`kill${seed}.qcow2`);
  const before = makeCrashImage(path, kind);
  const target = sandbox.folder(`kill${seed}`);
  const isLuks = kind.options.includes(LUKS);
  const key = isLuks ? [...SECRET, '-o', 'key-secret=s'] : [];
  const daemon = sandbox.startCli([path, target, '--foreground', '-o', 'rw', ...key]);
  let ended = false;
  void daemon.ended().then(() => {
    ended = true;
  });
  const file = `${target}/kill${seed}.raw`;
  await until(() => ended || existsSync(file), `${file} is there`);
  if (ended) throw new Error(`the daemon ended: ${daemon.stderr}`);
  const direct = random.pick(['direct', 'buffered']);
  const hasSnapshots = (kind.format ?? 'qcow2') === 'qcow2';
  const snapshots = hasSnapshots ? `${target}/kill${seed}.snapshots` : '';
  const words = [WRITER, file, snapshots, String(kind.size), String(seed), direct];
  const writer = sandbox.start(process.execPath, words);
  await until(() => writer.stdout.includes('write'), 'the first write');
  await new Promise((done) => setTimeout(done, random.below(LONGEST_MS)));
  if (writer.child.exitCode !== null) {
    throw new Error(`seed ${seed}: the writer ended before the daemon: ${writer.stderr}`);
  }
  daemon.kill('SIGKILL');
  await Promise.all([daemon.ended(), writer.ended()]);
  spawnSync('umount', ['-l', target]);
  const { notes, writes, flushes } = notesOf(writer.stdout, before);
  const fault = await checkImage(path, new Expectation(before, notes), true);
  return {
    image: [
      kind.content,
      ...(hasSnapshots ? [] : [kind.format!]),
      ...(isLuks ? ['LUKS', ...kind.options.slice(1)] : kind.options),
      ...(kind.bitmaps === true ? ['bitmaps'] : []),
      direct,
    ].join(', '),
    writes,
    flushes,
    snapshots: writer.stdout.split('\nsnapshot ').length - 1,
    fault,
  };
}

interface Said {
  readonly notes: readonly Note[];
  readonly writes: number;
  readonly flushes: number;
}

function notesOf(said: string, before: DiskState): Said {
  let writes = 0;
  let flushes = 0;
  const notes: Note[] = [];
  let state = before;
  // What follows the last line break was never said in full.
  for (const line of said.split('\n').slice(0, -1)) {
    const next = stateAfter(state, line);
    if (next === null) {
      flushes++;
      // Of what was before only this counts, and there are thousands of states.
      notes.length = 0;
      notes.push({ kind: 'acknowledged', state });
    } else {
      writes++;
      notes.push({ kind: 'change', label: line, after: next });
      state = next;
    }
  }
  return { notes, writes, flushes };
}

/** What the disk becomes; null where it only becomes certain. */
function stateAfter(state: DiskState, line: string): DiskState | null {
  const [what, first, count, generation] = line.split(' ') as [string, string, string, string];
  const { sectors, snapshots, changes } = state;
  switch (what) {
    case 'certain':
      return null;
    case 'write':
      return withSectors(state, Number(first), new Int32Array(Number(count)).fill(+generation));
    case 'snapshot':
      return withSnapshots(state, [...snapshots, { name: first, sectors, takenAt: changes }]);
    case 'delete':
      return withSnapshots(
        state,
        snapshots.filter(({ name }) => name !== first),
      );
    default:
      throw new Error(`'${line}'`);
  }
}
