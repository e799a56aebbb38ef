/** What \`convert\` makes, held against qemu-img: bytes, consistency, space. */
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { BothTools } from '../helpers/both-tools.js';
import { makeConvertImages, writeMixedDisk } from '../helpers/convert-images.js';
import { qemuImg } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

const MAIN = fileURLToPath(import.meta.resolve('#src/cli/main.js'));

/** Sources by their format. */
const SOURCES = {
  'mixed.raw': 'raw',
  'plain.qcow2': 'qcow2',
  'packed.qcow2': 'qcow2',
  'fine.qcow2': 'qcow2',
  'subclusters.qcow2': 'qcow2',
  'over.qcow2': 'qcow2',
} as const;
type Source = keyof typeof SOURCES;

const QCOW2 = ['-O', 'qcow2'];
const OVER_BASE = [...QCOW2, '-B', 'base.raw', '-F', 'raw'];

const KINDS = [
  'cluster_size=512',
  'cluster_size=2M',
  'compat=0.10',
  'compat=0.10,cluster_size=512',
  'extended_l2=on,cluster_size=16k',
  'refcount_bits=1',
  'refcount_bits=64,cluster_size=512',
  'lazy_refcounts=on',
  'compression_type=zstd',
];
const SPACES = [
  'preallocation=metadata',
  'preallocation=falloc',
  'preallocation=full',
  'data_file=data',
  'data_file=data,data_file_raw=on',
];

/** Words, and what is converted. */
const CASES: readonly (readonly [Source, ...string[]])[] = [
  ...(Object.keys(SOURCES) as Source[]).flatMap(
    (source) => [[source], [source, ...QCOW2], [source, ...QCOW2, '-c']] as const,
  ),
  ...KINDS.map((kind) => ['mixed.raw', ...QCOW2, '-o', kind] as const),
  ...KINDS.map((kind) => ['over.qcow2', ...QCOW2, '-c', '-o', kind] as const),
  ...SPACES.map((kind) => ['mixed.raw', ...QCOW2, '-o', kind] as const),
  ['mixed.raw', '-S', '0'],
  ['mixed.raw', '-S', '64k'],
  ['packed.qcow2', '-S', '512'],
  ['mixed.raw', ...QCOW2, '-S', '0', '-c'],
  ['mixed.raw', '-o', 'preallocation=full'],
  ['mixed.raw', ...QCOW2, '-t', 'none', '-T', 'none', '-W', '-m', '1'],
  ['over.qcow2', ...OVER_BASE],
  ['over.qcow2', ...OVER_BASE, '-c'],
  ['over.qcow2', ...OVER_BASE, '-o', 'cluster_size=4k'],
  ['over.qcow2', ...OVER_BASE, '-o', 'extended_l2=on'],
  ['over.qcow2', ...OVER_BASE, '-c', '-o', 'cluster_size=2M'],
];

/** File systems differ by some blocks. */
const SPACE_MARGIN = 256 << 10;

/** qemu-img where our images are: names of data files hang on that. */
function inOurs(tools: BothTools, ...words: string[]) {
  return spawnSync('qemu-img', words, { cwd: tools.folder('ours'), encoding: 'utf8' });
}

describe('convert', () => {
  const temp = useTempFolder();

  it('makes what qemu-img makes, in no more space', () => {
    const tools = new BothTools(temp);
    tools.make(makeConvertImages);
    for (const [source, ...words] of CASES) {
      const line = ['convert', '-f', SOURCES[source], ...words, source, 'out'];
      tools.same(line);
      const said = line.join(' ');
      const format = words.includes('qcow2') ? 'qcow2' : 'raw';
      const [ours, theirs] = [tools.at('ours', 'out'), tools.at('qemu', 'out')];
      const formats = ['-f', SOURCES[source], '-F', format];
      const compared = inOurs(tools, 'compare', ...formats, source, 'out');
      expect(compared.stdout + compared.stderr, said).to.equal('Images are identical.\n');
      if (format === 'qcow2') {
        const check = inOurs(tools, 'check', 'out');
        expect(check.status, `${said}: ${check.stdout}${check.stderr}`).to.equal(0);
      }
      const space = (path: string) => statSync(path).blocks * 512;
      expect(space(ours), said).to.be.at.most(space(theirs) + SPACE_MARGIN);
      tools.make((folder) => {
        for (const name of ['out', 'data']) rmSync(join(folder, name), { force: true });
      });
    }
  });

  it('writes several disks behind each other', () => {
    const tools = new BothTools(temp);
    tools.make(makeConvertImages);
    for (const words of [[], QCOW2, [...QCOW2, '-c', '-o', 'cluster_size=2M']]) {
      tools.same(['convert', ...words, 'small.qcow2', 'packed.qcow2', 'kept.qcow2', 'out']);
      const same = qemuImg('compare', tools.at('ours', 'out'), tools.at('qemu', 'out'));
      expect(same).to.equal('Images are identical.\n');
    }
  });

  it('makes the same file in one thread, in several, and where workers take over', () => {
    writeMixedDisk(temp.at('source.raw'), 5, 24 << 20);
    // What is limited is copied by workers alone, what is compressed by whoever has started.
    const ways = [[], ['-m', '3'], ['-r', '100G', '-m', '3']];
    for (const kind of [[], QCOW2, [...QCOW2, '-c']]) {
      const made = ways.map((way) => {
        const words = [
          'convert',
          '-f',
          'raw',
          ...kind,
          ...way,
          temp.at('source.raw'),
          temp.at('out'),
        ];
        const { status, stderr } = spawnSync(process.execPath, [MAIN, ...words], {
          encoding: 'utf8',
        });
        expect(status, stderr).to.equal(0);
        return readFileSync(temp.at('out'));
      });
      for (const other of made.slice(1))
        expect(other.equals(made[0]!), kind.join(' ')).to.equal(true);
    }
  });

  it('writes over what an image holds, with -n', () => {
    const tools = new BothTools(temp);
    tools.make(makeConvertImages);
    tools.make((folder) => {
      const at = (name: string) => join(folder, name);
      qemuImg('convert', '-O', 'qcow2', at('mixed.raw'), at('old.qcow2'));
      qemuImg('convert', at('mixed.raw'), at('old.raw'));
      qemuImg('snapshot', '-c', 'before', at('old.qcow2'));
      const over = ['-b', 'mixed.raw', '-F', 'raw'];
      qemuImg('create', '-q', '-f', 'qcow2', ...over, at('old-over.qcow2'));
    });
    const image = 'driver=qcow2,file.filename=old.qcow2';
    for (const words of [
      [...QCOW2, '-n', 'over.qcow2', 'old.qcow2'],
      [...QCOW2, '-n', 'over.qcow2', 'old-over.qcow2'],
      ['-n', 'over.qcow2', 'old.raw'],
      ['-n', '--target-is-zero', 'kept.qcow2', 'old.raw'],
      ['-n', '--target-image-opts', 'kept.qcow2', image],
      [...QCOW2, '-n', '-c', 'kept.qcow2', 'old.qcow2'],
    ]) {
      tools.same(['convert', ...words]);
    }
    for (const name of ['old.qcow2', 'old.raw', 'old-over.qcow2']) {
      const [ours, theirs] = [tools.at('ours', name), tools.at('qemu', name)];
      expect(qemuImg('compare', ours, theirs), name).to.equal('Images are identical.\n');
      if (name !== 'old.raw') qemuImg('check', ours);
    }
  });

  it('takes snapshots by id, by name and by both', () => {
    const tools = new BothTools(temp);
    tools.make(makeConvertImages);
    for (const choice of ['one', '1', 'snapshot.id=1', 'snapshot.name=one,snapshot.id=1']) {
      tools.same(['convert', '-l', choice, 'kept.qcow2', 'out'], { disks: [] });
      const same = qemuImg('compare', tools.at('ours', 'out'), tools.at('qemu', 'out'));
      expect(same).to.equal('Images are identical.\n');
    }
  });
});
