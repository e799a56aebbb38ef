/** `qcow2fs resize` beside `qemu-img resize`: words, exit codes and images. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { BothTools } from '../helpers/both-tools.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

const NAME = 'disk.qcow2';

interface MapExtent {
  readonly start: number;
  readonly length: number;
  readonly present: boolean;
}

describe('qemu-img resize', () => {
  const temp = useTempFolder();
  let tools: BothTools;
  beforeEach(() => {
    tools = new BothTools(temp);
  });

  function make(options: string, size = '1M', ...backing: string[]): void {
    tools.make((folder) => {
      const path = join(folder, NAME);
      const placed = options.replace('data.raw', join(folder, 'data.raw'));
      const words = placed === '' ? [] : ['-o', placed];
      if (backing.length > 0) {
        const base = join(folder, 'base.qcow2');
        qemuImg('create', '-q', '-f', 'qcow2', base, '4M');
        qemuIo(base, 'write -P 7 0 4M');
      }
      qemuImg('create', '-q', '-f', 'qcow2', ...words, ...backing, path, size);
    });
  }

  const BAD: readonly (readonly string[])[] = [
    [],
    [NAME],
    ['-q'],
    [NAME, '-1M'],
    [NAME, '-5M'],
    [NAME, 'foo'],
    [NAME, '+foo'],
    [NAME, '0'],
    [NAME, '+'],
    [NAME, '-'],
    [NAME, ''],
    [NAME, '900k'],
    [NAME, '.5M'],
    [NAME, '1000000'],
    [NAME, '1E'],
    [NAME, '9E'],
    [NAME, '+9E'],
    [NAME, '7777777P'],
    [NAME, '9007199254740993'],
    [NAME, '9223372036854775807'],
    [NAME, '9223372035781033984'],
    [NAME, '9223372035781033985'],
    [NAME, '+9223372036853727231'],
    [NAME, '1M1'],
    [NAME, '+-1M'],
    [NAME, 'more', '2M'],
    [NAME, '--', '-1M'],
    ['--', '-1M'],
    ['--preallocation=foo', NAME, '+1M'],
    ['--preallocation=full', '--shrink', NAME, '-512k'],
    ['--preallocation=metadata', NAME, '+0'],
    ['-f', 'foo', NAME, '3M'],
    ['-f', 'raw', NAME, '-64k'],
    ['nofile', '1M'],
    ['-x', NAME, '3M'],
    ['--image-opts', NAME, '+1M'],
    ['--image-opts', '-f', 'qcow2', `driver=qcow2,file.filename=${NAME}`, '+1M'],
    ['--object', 'foo', NAME, '+1M'],
    ['--image-opts', `driver=qcow2,file.filename=${NAME},read-only=on`, '+1M'],
    ['--shrink', NAME, '1000'],
  ];

  it('refuses what qemu-img refuses, in its words, and changes nothing', () => {
    make('');
    const before = readFileSync(tools.at('ours', NAME));
    for (const words of BAD) {
      expect(tools.same(['resize', ...words]).status, words.join(' ')).to.equal(1);
    }
    expect(readFileSync(tools.at('ours', NAME)).equals(before)).to.equal(true);
  });

  it('refuses version 2 with snapshots', () => {
    make('compat=0.10');
    tools.make((folder) => qemuImg('snapshot', '-c', 'one', join(folder, NAME)));
    for (const size of ['2M', '1M']) tools.same(['resize', '--shrink', NAME, size]);
  });

  for (const options of [
    '',
    'compat=0.10',
    'cluster_size=512',
    'extended_l2=on',
    'lazy_refcounts=on',
  ]) {
    it(`makes disks larger and smaller: ${options}`, () => {
      make(options);
      tools.make((folder) => qemuIo(join(folder, NAME), 'write -P 1 0 1M'));
      const sizes = [['2M'], ['+1M'], ['--shrink', '-1M'], ['+0'], ['-q', '+512'], ['++64k']];
      const further = [['20M'], ['--shrink', '640k'], ['0x100000'], ['--shrink', '512b']];
      for (const words of [...sizes, ...further]) {
        const size = words.at(-1)!;
        const command = ['resize', ...words.slice(0, -1), NAME, size];
        expect(tools.same(command, { disks: [NAME] }).status).to.equal(0);
      }
      const ours = statSync(tools.at('ours', NAME)).size;
      expect(ours).to.be.at.most(statSync(tools.at('qemu', NAME)).size + 64 * 1024);
    });
  }

  it('leaves snapshots as they are', () => {
    make('');
    tools.make((folder) => {
      qemuIo(join(folder, NAME), 'write -P 1 0 1M');
      qemuImg('snapshot', '-c', 'one', join(folder, NAME));
    });
    tools.same(['resize', '--shrink', NAME, '512k'], { disks: [NAME] });
    tools.same(['resize', NAME, '3M'], { disks: [NAME] });
    tools.make((folder) => qemuImg('snapshot', '-a', 'one', join(folder, NAME)));
    tools.same(['resize', NAME, '+0'], { disks: [NAME] });
  });

  for (const mode of ['off', 'metadata', 'falloc', 'full']) {
    for (const options of ['', 'compat=0.10', 'extended_l2=on', 'cluster_size=4k']) {
      it(`gives the new part its space: ${mode} ${options}`, () => {
        make(options, '100k');
        tools.make((folder) => qemuIo(join(folder, NAME), 'write -P 1 0 100k'));
        for (const size of ['1M', '+4608']) {
          tools.same(['resize', `--preallocation=${mode}`, NAME, size], { disks: [NAME] });
          if (!options.startsWith('extended')) sameMap();
        }
      });
    }
    it(`hides what a longer backing file has: ${mode}`, () => {
      make('', '1M', '-b', 'base.qcow2', '-F', 'qcow2');
      tools.same(['resize', `--preallocation=${mode}`, NAME, '5M'], { disks: [NAME] });
      if (mode !== 'off') sameMap();
    });
    for (const raw of ['', ',data_file_raw=on']) {
      it(`keeps an external data file as long as the disk: ${mode}${raw}`, () => {
        make(`data_file=data.raw${raw}`);
        const disks = [NAME, 'data.raw'];
        for (const size of ['2M', '+512']) {
          const words = ['resize', `--preallocation=${mode}`, NAME, size];
          tools.same(words, { disks, withoutInfo: true });
        }
        tools.same(['resize', '--shrink', NAME, '600k'], { disks, withoutInfo: true });
        expect(statSync(tools.at('ours', 'data.raw')).size).to.equal(600 * 1024);
      });
    }
  }

  /** What has a cluster must be the same; whether that is a hole of the file need not. */
  function sameMap(): void {
    const [theirs, ours] = (['qemu', 'ours'] as const).map((side) => {
      const map = JSON.parse(qemuImg('map', '--output=json', tools.at(side, NAME))) as MapExtent[];
      const ends = map.filter(({ present }, n) => map[n + 1]?.present !== present);
      return ends.map(({ start, length, present }) => ({ end: start + length, present }));
    });
    expect(ours).to.deep.equal(theirs);
  }

  it('resizes raw images, by their looks with a warning', () => {
    tools.make((folder) => writeFileSync(join(folder, 'disk.raw'), Buffer.alloc(1 << 20, 5)));
    const disks = ['disk.raw'];
    const lines = [
      ['disk.raw', '2M'],
      ['-q', 'disk.raw', '3M'],
      ['disk.raw', '1M'],
      ['-f', 'raw', 'disk.raw', '1000'],
      ['--shrink', '-f', 'raw', 'disk.raw', '1000'],
      ['-f', 'raw', 'disk.raw', '+1'],
      ['-f', 'raw', '--preallocation=falloc', 'disk.raw', '64k'],
      ['-f', 'raw', '--preallocation=full', 'disk.raw', '128k'],
      ['-f', 'raw', '--preallocation=metadata', 'disk.raw', '256k'],
      ['-f', 'raw', 'disk.raw', '7E'],
      ['-f', 'raw', 'disk.raw', '8E'],
    ];
    for (const words of lines) {
      tools.same(['resize', ...words], { disks });
      const [theirs, ours] = (['qemu', 'ours'] as const).map((side) => {
        const { size, blocks } = statSync(tools.at(side, 'disk.raw'));
        return { size, blocks };
      });
      expect(ours, words.join(' ')).to.deep.equal(theirs);
    }
  });
});
