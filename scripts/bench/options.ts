/** The command line of the benchmark. */
import { parseArgs } from 'node:util';
import { MIB } from './images.js';
import { type CommandSuiteName, isCommandSuite } from './command-suites.js';
import { type SuiteName, suites } from './workloads.js';

export const usage = `usage: npm run bench -- [OPTION ...]
  --suite NAME       what is measured: read, write or crypto (reading encrypted images), of mounts
                     (read); tools or convert, of commands
  --quick            a smoke run: one round, short fio runs, small images
  --peers A,B        only these (this project is qcow2fs)
  --workloads X,Y    only these of the suite
  --rounds N         rounds over all workloads and peers (5; 3 for writing)
  --seconds N        length of a timed fio run (3)
  --size SIZE        virtual size of the plain image, with M or G (2G; 1G for writing, 4G for converting,
                     with a quarter of it where that is compressed); the chain and encrypted
                     images have half of it, the compressed images a quarter; the images that are grown have
                     all of it, and get a scattered write for each of its clusters
  --image-dir DIR    keep the images there, and take those of an earlier run
  --keep             keep the images of a temporary directory, and print where they are
  --workers N        passed to this project as -o workers=N
  --name NAME        part of the record's name (that of the suite)
  --out FILE         the record (scripts/bench/results/DATE-NAME.json)
  --no-save          write no record
  --list             print the peers and workloads, and end
  --help`;

export interface BenchOptions {
  suite: SuiteName | CommandSuiteName;
  peers: string[] | undefined;
  workloads: string[] | undefined;
  rounds: number;
  seconds: number;
  /** In bytes. */
  size: number;
  imageDir: string | undefined;
  keep: boolean;
  workers: number | undefined;
  name: string;
  out: string | undefined;
  save: boolean;
  list: boolean;
  help: boolean;
}

function positiveInteger(name: string, text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw new Error(`--${name}: '${text}' is not a positive integer`);
  return Number(text);
}

/** Bytes of a size such as 512M or 2G; a multiple of 64 MiB, so that all layers are equal. */
function parseSize(text: string): number {
  const match = /^([1-9]\d{0,5})([MG])$/.exec(text);
  if (!match) throw new Error(`--size: '${text}' is not a number with M or G`);
  const size = Number(match[1]) * (match[2] === 'G' ? 1024 : 1) * MIB;
  if (size % (64 * MIB) !== 0) throw new Error(`--size: ${text} is not a multiple of 64M`);
  return size;
}

const list = (text: string | undefined): string[] | undefined =>
  text?.split(',').filter((name) => name !== '');

function parseSuite(text: string): BenchOptions['suite'] {
  if (isCommandSuite(text)) return text;
  if (!Object.hasOwn(suites, text)) throw new Error(`--suite: there is none named '${text}'`);
  return text as SuiteName;
}

/** What holds where the command line says nothing. */
function defaultsFor(suite: BenchOptions['suite'], isQuick: boolean) {
  if (isQuick) return { rounds: '1', seconds: '1', size: '256M' };
  // Writing takes twice the time: disks are made and removed, and written data goes to the host's.
  if (suite === 'write') return { rounds: '3', seconds: '3', size: '1G' };
  return { rounds: '5', seconds: '3', size: suite === 'convert' ? '4G' : '2G' };
}

export function parseOptions(argv: string[]): BenchOptions {
  const { values } = parseArgs({
    args: argv,
    options: {
      suite: { type: 'string', default: 'read' },
      quick: { type: 'boolean', default: false },
      peers: { type: 'string' },
      workloads: { type: 'string' },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      size: { type: 'string' },
      'image-dir': { type: 'string' },
      keep: { type: 'boolean', default: false },
      workers: { type: 'string' },
      name: { type: 'string' },
      out: { type: 'string' },
      'no-save': { type: 'boolean', default: false },
      list: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  const suite = parseSuite(values.suite);
  const defaults = defaultsFor(suite, values.quick);
  const name = values.name ?? suite;
  if (!/^[\w.-]+$/.test(name)) throw new Error(`--name: '${name}' has odd characters`);
  return {
    suite,
    peers: list(values.peers),
    workloads: list(values.workloads),
    rounds: positiveInteger('rounds', values.rounds ?? defaults.rounds),
    seconds: positiveInteger('seconds', values.seconds ?? defaults.seconds),
    size: parseSize(values.size ?? defaults.size),
    imageDir: values['image-dir'],
    keep: values.keep,
    workers: values.workers === undefined ? undefined : positiveInteger('workers', values.workers),
    name,
    out: values.out,
    save: !values['no-save'],
    list: values.list,
    help: values.help,
  };
}

/** The entries of those names, in the table's own order; all where none is named. */
export function select<T extends { name: string }>(
  what: string,
  table: T[],
  names: string[] | undefined,
): T[] {
  const unknown = names?.find((name) => !table.some((entry) => entry.name === name));
  if (unknown !== undefined) {
    const known = table.map((entry) => entry.name).join(', ');
    throw new Error(`--${what}: '${unknown}' is none of ${known}`);
  }
  return table.filter((entry) => !names || names.includes(entry.name));
}
