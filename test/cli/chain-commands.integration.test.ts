/** `qcow2fs rebase` and `qcow2fs commit` beside qemu-img's: words, exit codes and images. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { BothTools } from '../helpers/both-tools.js';
import { qemuImg, qemuIo, qemuRead } from '../helpers/qemu.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { useTempFolder } from '../helpers/temp.js';

const KIB = 1024;
const TOP = 'top.qcow2';

function create(
  folder: string,
  name: string,
  size: number,
  options: string,
  base?: string,
): string {
  const path = join(folder, name);
  const backing = base === undefined ? [] : ['-b', base, '-F', formatOf(base)];
  const words = options === '' ? [] : ['-o', options];
  qemuImg('create', '-q', '-f', formatOf(name), ...words, ...backing, path, String(size));
  return path;
}

function formatOf(name: string): string {
  return name.endsWith('.raw') ? 'raw' : 'qcow2';
}

/** Another process that reads an image, until `end`. */
function hold(path: string): { ready: Promise<unknown>; end: () => void } {
  const child = spawn('qemu-io', ['-r', path], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.write('length\n');
  return { ready: once(child.stdout, 'data'), end: () => child.stdin.end('quit\n') };
}

describe('qemu-img rebase and commit', () => {
  const temp = useTempFolder();
  let tools: BothTools;
  printSeed();
  beforeEach(() => {
    tools = new BothTools(temp);
  });

  /** base (1 MiB, 1) <- mid (2 MiB, 2) <- top (3 MiB, 5), and other (2 MiB, 1 and 9). */
  function makeChain(): void {
    tools.make((folder) => {
      qemuIo(create(folder, 'base.qcow2', 1024 * KIB, ''), 'write -P 1 0 1M');
      qemuIo(create(folder, 'mid.qcow2', 2048 * KIB, '', 'base.qcow2'), 'write -P 2 512k 1M');
      qemuIo(create(folder, TOP, 3072 * KIB, '', 'mid.qcow2'), 'write -P 5 1M 1M');
      const other = create(folder, 'other.qcow2', 2048 * KIB, '');
      qemuIo(other, 'write -P 1 0 300k', 'write -P 9 700k 1M');
    });
  }

  it('rebase -c stores data where clusters are set aside and hold nothing', () => {
    tools.make((folder) => {
      const base = create(folder, 'base.raw', 1024 * KIB, '');
      qemuIo(base, 'write -P 7 0 900k');
      const options = 'extended_l2=on,preallocation=metadata';
      create(folder, TOP, 1024 * KIB, options, 'base.raw');
    });
    expect(tools.run('ours', ['rebase', '-c', '-b', '', TOP])).to.include({
      status: 0,
      stderr: '',
    });
    const words = ['compare', '-F', 'raw', tools.at('ours', TOP), tools.at('ours', 'base.raw')];
    qemuImg(...words);
    qemuImg('check', tools.at('ours', TOP));
  });

  describe('rebase', () => {
    const BAD: readonly (readonly string[])[] = [
      [],
      [TOP],
      ['-b', 'other.qcow2'],
      ['-b'],
      ['-b', 'other.qcow2', TOP],
      ['-u', '-b', 'other.qcow2', TOP],
      ['-u', '-b', 'other.qcow2', '-F', 'bar', TOP],
      ['-b', 'other.qcow2', '-F', 'bar', TOP],
      ['-b', 'nofile', '-F', 'qcow2', TOP],
      ['-b', TOP, '-F', 'qcow2', TOP],
      ['-t', 'foo', '-b', 'other.qcow2', '-F', 'qcow2', TOP],
      ['-T', 'foo', '-b', 'other.qcow2', '-F', 'qcow2', TOP],
      ['-b', 'other.qcow2', '-F', 'qcow2', TOP, 'more'],
      ['-b', 'other.qcow2', '-F', 'qcow2', 'nofile'],
      ['-x', TOP],
      ['-f', 'raw', '-b', 'other.qcow2', '-F', 'qcow2', TOP],
      ['-f', 'raw', '-u', '-b', 'other.qcow2', '-F', 'qcow2', TOP],
      ['-u', '-b', 'n'.repeat(1100), '-F', 'raw', TOP],
      ['--image-opts', '-b', 'other.qcow2', '-F', 'qcow2', 'driver=qcow2'],
      ['-p', '-b', 'nofile', '-F', 'qcow2', TOP],
      ['-b', 'foo:bar', '-F', 'raw', TOP],
      ['-b', 'other.qcow2', '-F', '', TOP],
      ['-b', '.', '-F', 'raw', TOP],
      ['--image-opts', '-u', `driver=qcow2,file.filename=${TOP},read-only=on`],
    ];

    it('refuses what qemu-img refuses, in its words, and changes nothing', () => {
      makeChain();
      const before = readFileSync(tools.at('ours', TOP));
      for (const words of BAD) {
        expect(tools.same(['rebase', ...words]).status, words.join(' ')).to.equal(1);
      }
      expect(readFileSync(tools.at('ours', TOP)).equals(before)).to.equal(true);
    });

    it('refuses names that the header has no room for, and a raw data file', () => {
      tools.make((folder) => {
        create(folder, TOP, KIB * KIB, 'cluster_size=512');
        create(
          folder,
          'data.qcow2',
          KIB * KIB,
          `data_file=${join(folder, 'd.raw')},data_file_raw=on`,
        );
      });
      const name = 'n'.repeat(390);
      expect(tools.same(['rebase', '-u', '-b', name, '-F', 'raw', TOP]).status).to.equal(1);
      expect(tools.same(['rebase', '-u', '-b', 'x', '-F', 'raw', 'data.qcow2']).status).to.equal(1);
      expect(tools.same(['rebase', '-u', '-b', 'n'.repeat(200), '-F', 'raw', TOP]).status).to.equal(
        0,
      );
    });

    it('keeps what is read, over other backing files and none', () => {
      makeChain();
      const bytes = qemuRead(tools.at('ours', TOP));
      const targets = [
        ['-b', 'other.qcow2', '-F', 'qcow2'],
        ['-q', '-b', 'base.qcow2', '-F', 'qcow2'],
        ['-U', '-t', 'writethrough', '-b', './mid.qcow2', '-F', 'qcow2'],
        ['-b', ''],
        ['-b', 'base.qcow2', '-F', 'qcow2'],
      ];
      for (const words of targets) {
        tools.same(['rebase', ...words, TOP], { disks: [TOP] });
        expect(qemuRead(tools.at('ours', TOP)).equals(bytes), words.join(' ')).to.equal(true);
      }
    });

    it('takes nothing when only a layer between goes', () => {
      makeChain();
      tools.same(['rebase', '-b', 'mid.qcow2', '-F', 'qcow2', TOP], { disks: [TOP] });
      tools.same(['rebase', '-b', 'base.qcow2', '-F', 'qcow2', TOP], { disks: [TOP] });
      const map = JSON.parse(qemuImg('map', '--output=json', tools.at('ours', TOP)));
      expect(map[0]).to.include({ start: 0, depth: 1, length: 512 * KIB });
    });

    it('only changes the name with -u, whatever that leads to', () => {
      makeChain();
      const lines = [
        ['-u', '-b', 'nofile', '-F', 'raw'],
        ['-u', '-b', 'json:{"driver":"qcow2"}', '-F', 'qcow2'],
        ['-u', '-b', ''],
        ['-u', '-b', '/absolute/name', '-F', 'qcow2'],
        ['-u'],
        ['-p', '-u', '-b', 'other.qcow2', '-F', 'qcow2'],
      ];
      for (const words of lines) {
        expect(tools.same(['rebase', ...words, TOP]).status, words.join(' ')).to.equal(0);
        const facts = (['qemu', 'ours'] as const).map((side) => {
          const info = JSON.parse(qemuImg('info', '--output=json', tools.at(side, TOP)));
          return [info['backing-filename'], info['backing-filename-format']];
        });
        expect(facts[1]).to.deep.equal(facts[0]);
      }
    });

    it('names files from the image’s own folder', () => {
      makeChain();
      tools.make((folder) => {
        mkdirSync(join(folder, 'sub'));
        for (const name of ['base', 'mid', 'top', 'other']) {
          copyFileSync(join(folder, `${name}.qcow2`), join(folder, 'sub', `${name}.qcow2`));
        }
      });
      const top = `sub/${TOP}`;
      tools.same(['rebase', '-b', 'sub/other.qcow2', '-F', 'qcow2', top]);
      tools.same(['rebase', '-b', 'other.qcow2', '-F', 'qcow2', top], { disks: [top] });
      tools.same(['rebase', '-b', '../mid.qcow2', '-F', 'qcow2', top], { disks: [top] });
    });

    it('stores what it takes compressed with -c', () => {
      makeChain();
      const ours = tools.at('ours', TOP);
      const bytes = qemuRead(ours);
      const { status, stderr } = tools.run('ours', ['rebase', '-c', '-b', '', TOP]);
      expect({ status, stderr }).to.deep.equal({ status: 0, stderr: '' });
      expect(qemuRead(ours).equals(bytes)).to.equal(true);
      const check = JSON.parse(qemuImg('check', '--output=json', ours));
      expect(check['compressed-clusters']).to.be.greaterThan(10);
    });
  });

  describe('commit', () => {
    const BAD: readonly (readonly string[])[] = [
      [],
      ['base.qcow2'],
      ['-b', 'nofile', TOP],
      ['-b', TOP, TOP],
      ['-b', '', TOP],
      ['-p', '-b', 'nofile', TOP],
      ['-t', 'foo', TOP],
      ['-r', 'foo', TOP],
      ['-r', '-1', TOP],
      ['-r', '8E', TOP],
      ['-r', '20E', TOP],
      ['--image-opts', `driver=qcow2,file.filename=${TOP},read-only=on`],
      ['-f', 'raw', TOP],
      ['-x', TOP],
      [TOP, 'more'],
      ['nofile'],
    ];

    it('refuses what qemu-img refuses, in its words, and changes nothing', () => {
      makeChain();
      const before = readFileSync(tools.at('ours', TOP));
      for (const words of BAD) {
        expect(tools.same(['commit', ...words]).status, words.join(' ')).to.equal(1);
      }
      expect(readFileSync(tools.at('ours', TOP)).equals(before)).to.equal(true);
    });

    const GOOD: readonly (readonly string[])[] = [
      [],
      ['-q'],
      ['-d'],
      ['-b', 'mid.qcow2'],
      ['-b', 'base.qcow2'],
      ['-b', './base.qcow2', '-d'],
      ['-r', '100M', '-t', 'writeback', '-q', '-p'],
      ['--image-opts'],
    ];
    for (const words of GOOD) {
      it(`puts the same into the same file: ${words.join(' ')}`, () => {
        makeChain();
        const bytes = qemuRead(tools.at('ours', TOP));
        const name = words.includes('--image-opts') ? `driver=qcow2,file.filename=${TOP}` : TOP;
        const disks = ['base.qcow2', 'mid.qcow2', TOP];
        expect(tools.same(['commit', ...words, name], { disks }).status).to.equal(0);
        expect(qemuRead(tools.at('ours', TOP)).equals(bytes)).to.equal(true);
        const maps = (['qemu', 'ours'] as const).map((side) => {
          const map = JSON.parse(qemuImg('map', '--output=json', tools.at(side, TOP)));
          return (map as { depth: number; start: number }[]).map(({ depth }) => depth);
        });
        expect(new Set(maps[1])).to.deep.equal(new Set(maps[0]));
      });
    }

    it('writes into raw files, which grow, and keeps snapshots', () => {
      tools.make((folder) => {
        writeFileSync(join(folder, 'base.raw'), Buffer.alloc(1000 * KIB, 7));
        const top = create(folder, TOP, 2048 * KIB, '', 'base.raw');
        qemuIo(top, 'write -P 3 100k 200k', 'write -z 400k 200k', 'write -P 4 1900k 100k');
        qemuImg('snapshot', '-c', 'one', top);
        qemuIo(top, 'write -P 8 50k 100k');
      });
      tools.same(['commit', TOP], { disks: ['base.raw', TOP] });
      tools.make((folder) => qemuImg('snapshot', '-a', 'one', join(folder, TOP)));
      tools.same(['commit', '-d', TOP], { disks: ['base.raw', TOP] });
    });

    it('charges no rate for zeroes', () => {
      tools.make((folder) => {
        writeFileSync(join(folder, 'base.raw'), Buffer.alloc(1000 * KIB, 7));
        qemuIo(create(folder, TOP, 1000 * KIB, '', 'base.raw'), 'write -z 0 1000k');
      });
      // Hours, if it did.
      const { status } = tools.run('ours', ['commit', '-r', '64', TOP]);
      expect(status).to.equal(0);
      qemuImg('compare', tools.at('ours', 'base.raw'), tools.at('ours', TOP));
    });

    it('is refused where others use the files, in the same words', async () => {
      makeChain();
      const holders = (['qemu', 'ours'] as const).map((side) => hold(tools.at(side, 'base.qcow2')));
      try {
        await Promise.all(holders.map(({ ready }) => ready));
        const lines = [
          ['commit', '-b', 'base.qcow2', TOP],
          ['resize', 'base.qcow2', '+1M'],
        ];
        for (const words of lines) {
          const { status, stderr } = tools.same(words);
          expect(status).to.equal(1);
          expect(stderr).to.include('Is another process using the image [base.qcow2]?');
        }
        expect(tools.same(['rebase', '-b', 'base.qcow2', '-F', 'qcow2', TOP]).status).to.equal(0);
      } finally {
        for (const { end } of holders) end();
      }
    });
  });

  for (const command of ['rebase', 'commit']) {
    it(`${command}: chains as they come read as qemu-img leaves them`, () => {
      const random = new Random(SEED);
      for (let round = 0; round < 4; round++) {
        const names = makeRandomChain(random, round, command === 'rebase');
        const top = names.at(-1)!;
        const bytes = qemuRead(tools.at('ours', top));
        const base = random.pick(names.slice(0, -1));
        const words =
          command === 'rebase'
            ? random.chance(0.2)
              ? ['rebase', '-b', '']
              : ['rebase', '-b', base, '-F', formatOf(base)]
            : random.chance(0.5)
              ? ['commit', '-b', base]
              : ['commit'];
        tools.same([...words, top], { disks: [...names], withoutInfo: true });
        expect(qemuRead(tools.at('ours', top)).equals(bytes)).to.equal(true);
      }
    });
  }

  /** Images over each other with writes, zeroes, discards and sizes by chance. */
  function makeRandomChain(random: Random, round: number, old: boolean): string[] {
    const names: string[] = [];
    const layers = 2 + random.below(3);
    for (let n = 0; n < layers; n++) {
      const raw = n === 0 && random.chance(0.4);
      const name = `r${round}-${n}.${raw ? 'raw' : 'qcow2'}`;
      const size = (256 + random.below(1024)) * KIB;
      const v3 = ['compat=1.1', 'compat=1.1,extended_l2=on', 'compat=1.1,lazy_refcounts=on'];
      // qemu-img cannot let version 2 grow over a longer backing file.
      const version = random.pick(old ? [...v3, 'compat=0.10'] : v3);
      const options = `${version},cluster_size=${random.pick(['16k', '64k', '128k'])}`;
      const external = !raw && !version.startsWith('compat=0.10') && random.chance(0.2);
      const steps = Array.from({ length: 1 + random.below(5) }, (_, step) => {
        const start = random.below(size / KIB - 8);
        const length = 1 + random.below(size / KIB - start);
        const fill = n * 16 + step + 1;
        if (!external && step === 0 && random.chance(0.3)) {
          return `write -c -P ${fill} ${random.below(Math.floor(size / KIB / 128)) * 128}k 128k`;
        }
        const what = random.pick([`write -P ${fill}`, 'write -z', 'discard']);
        return `${what} ${start}k ${length}k`;
      });
      const snapshot = !raw && !external && random.chance(0.2);
      const base = names.at(-1);
      tools.make((folder) => {
        const data = external ? `,data_file=${join(folder, `${name}.data`)}` : '';
        const path = create(folder, name, size, raw ? '' : options + data, base);
        if (raw) writeFileSync(path, Buffer.alloc(size, 0xee));
        else qemuIo(path, ...steps);
        if (snapshot) {
          qemuImg('snapshot', '-c', 'one', path);
          qemuIo(path, `write -P ${n + 200} 0 100k`);
        }
      });
      names.push(name);
    }
    return names;
  }
});
