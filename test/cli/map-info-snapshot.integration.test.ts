/**
 * `map`, `info` and `snapshot` by our executable, called by a link named qemu-img, and by QEMU's: what
 * they print, their exit codes, and the images that they leave.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { expect } from 'chai';
import { CLI } from '../helpers/mount.js';
import { qemuImg } from '../helpers/qemu.js';

/** Commands that only read run side by side. */
const READERS = 4;

interface Result {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Words of a command line, with blanks between them; `''` is an empty one. */
function wordsOf(line: string): string[] {
  return line.split(' ').map((word) => (word === "''" ? '' : word));
}

describe('map, info, snapshot by the words of qemu-img', () => {
  const directory = mkdtempSync(join(tmpdir(), 'qcow2fs-words-'));
  const [theirs, ours] = ['theirs', 'ours'].map((name) => join(directory, name)) as [
    string,
    string,
  ];
  const link = join(directory, 'qemu-img');

  before(() => {
    symlinkSync(CLI, link);
    for (const folder of [theirs, ours]) {
      mkdirSync(folder);
      makeImages(folder);
    }
  });
  after(() => rmSync(directory, { recursive: true }));

  function run(tool: string, words: readonly string[], cwd: string): Promise<Result> {
    return new Promise((resolve, reject) => {
      const env = { ...process.env, LC_ALL: 'C' };
      const child = spawn(tool, words, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
      const texts = { stdout: '', stderr: '' };
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        texts.stdout += text;
      });
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        texts.stderr += text;
      });
      child.on('error', reject);
      child.on('close', (status) => resolve({ status, ...texts }));
    });
  }

  /** Snapshots are taken at a time of their own, if it is not the same second. */
  function withoutTimes({ status, stdout, stderr }: Result): Result {
    const dates = stdout.replace(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g, 'DATE');
    const json = dates.replace(/"date-n?sec": \d+/g, '"date": 0');
    const sizes = json.replace(/disk size: .*/g, 'disk size').replace(/"actual-size": \d+/g, '""');
    return { status, stdout: sizes, stderr };
  }

  /** Runs each line on both, so many at a time; all that differs is told. */
  async function allSame(lines: string, atOnce = 1): Promise<void> {
    const differences: object[] = [];
    const left = lines.trim().split('\n');
    const runLines = async (): Promise<void> => {
      for (let line = left.shift(); line !== undefined; line = left.shift()) {
        const difference = await differenceIn(wordsOf(line.trim()));
        if (difference !== undefined) differences.push(difference);
      }
    };
    await Promise.all(Array.from({ length: atOnce }, runLines));
    expect(differences, JSON.stringify(differences, null, 2)).to.have.length(0);
  }

  async function differenceIn(words: readonly string[]): Promise<object | undefined> {
    const results = await Promise.all([run('qemu-img', words, theirs), run(link, words, ours)]);
    const [expected, found] = results.map(withoutTimes);
    return isDeepStrictEqual(found, expected) ? undefined : { words, found, expected };
  }

  /** The images hold the same, snapshot by snapshot, and are in order. */
  function sameImages(name: string, snapshots: readonly string[] = []): void {
    const [a, b] = [join(theirs, name), join(ours, name)];
    expect(qemuImg('compare', '-s', a, b)).to.equal('Images are identical.\n');
    for (const snapshot of snapshots) {
      const target = (side: string) => join(directory, `${side}.raw`);
      qemuImg('convert', '-l', snapshot, '-O', 'raw', a, target('a'));
      qemuImg('convert', '-l', snapshot, '-O', 'raw', b, target('b'));
      expect(readFileSync(target('b')).equals(readFileSync(target('a'))), snapshot).to.equal(true);
    }
    qemuImg('check', '-q', b);
  }

  it('map', () =>
    allSame(
      `
      map base.raw
      map -f raw base.raw
      map --format raw base.raw
      map --output=json base.raw
      map --output json base.raw
      map --output=human base.raw
      map --out=json mid.qcow2
      map mid.qcow2
      map --output=json top.qcow2
      map top.qcow2
      map -U --output=json top.qcow2
      map --force-share top.qcow2
      map --output=json metadata.qcow2
      map metadata.qcow2
      map --output=json falloc.qcow2
      map --output=json data.qcow2
      map data.qcow2
      map --output=json subclusters.qcow2
      map subclusters.qcow2
      map --output=json old.qcow2
      map old.qcow2
      map --output=json empty.qcow2
      map empty.qcow2
      map --output=json odd.raw
      map odd.raw
      map --output=json nothing.raw
      map nothing.raw
      map --output=json named.qcow2
      map --output=json snapshots.qcow2
      map ./sub/../top.qcow2
      map sub/relative.qcow2
      map file:base.raw
      map --start-offset=64k mid.qcow2
      map --start-offset=1000 --output=json base.raw
      map --start-offset=100001 --max-length=1 --output=json base.raw
      map --start-offset=100000000 --output=json base.raw
      map --start-offset=1000448 --output=json base.raw
      map --start-offset=1000447 --output=json base.raw
      map --max-length=0 --output=json base.raw
      map --max-length=0 base.raw
      map --max-length=1.5k --output=json base.raw
      map -s 4k -l 0x20000 base.raw
      map -s4k -l200k --output=json mid.qcow2
      map --start 512 --max 10 base.raw
      map --max-length=9223372036854775807 --output=json odd.raw
      map --image-opts driver=raw,file.filename=base.raw
      map --image-opts driver=raw,file.filename=base.raw,offset=512,size=4096 --output=json
      map --image-opts driver=raw,file.filename=base.raw,offset=131072
      map --image-opts driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.file.filename=base.raw
      map --image-opts driver=qcow2,file.driver=file,file.filename=mid.qcow2,file.locking=off
      map --object secret,id=a,data=b base.raw
      map -- base.raw
      map base.raw --output=json
    `,
      READERS,
    ));

  it('map, refused', () =>
    allSame(
      `
      map
      map base.raw mid.qcow2
      map --output=xml base.raw
      map --output= base.raw
      map nofile
      map ''
      map sub
      map --start-offset=-1 base.raw
      map --start-offset=zz base.raw
      map --start-offset= base.raw
      map --start-offset=8E base.raw
      map --start-offset=99999999999999999999 base.raw
      map --max-length=-1 base.raw
      map --max-length=9E base.raw
      map --max-length=1x base.raw
      map -f qcow2 base.raw
      map -f nope base.raw
      map -f
      map --bogus base.raw
      map --out base.raw
      map -q base.raw
      map --image-opts -f raw base.raw
      map --image-opts base.raw
      map --image-opts driver=nope,file.filename=base.raw
      map --image-opts driver=raw
      map --image-opts driver=raw,file.filename=base.raw,bogus=1
      map --object base.raw
      map --object bogus,id=a base.raw
      map compressed.qcow2
      map orphan.qcow2
      map --output=json orphan.qcow2
      map foo:bar
    `,
      READERS,
    ));

  it('info', () =>
    allSame(
      `
      info base.raw
      info -f raw base.raw
      info -f qcow2 mid.qcow2
      info --format qcow2 mid.qcow2
      info -f file mid.qcow2
      info -f raw mid.qcow2
      info --output=json mid.qcow2
      info -U mid.qcow2
      info --backing-chain top.qcow2
      info --backing-chain --output=json top.qcow2
      info --back top.qcow2
      info sub/relative.qcow2
      info --backing-chain sub/relative.qcow2
      info --output=json ./sub/relative.qcow2
      info orphan.qcow2
      info snapshots.qcow2
      info --output=json snapshots.qcow2
      info data.qcow2
      info old.qcow2
      info subclusters.qcow2
      info bitmaps.qcow2
      info --output=json bitmaps.qcow2
      info corrupt.qcow2
      info dirty.qcow2
      info --image-opts driver=qcow2,file.filename=mid.qcow2
      info --image-opts file.filename=mid.qcow2
      info --image-opts driver=qcow2,file.driver=file,file.filename=mid.qcow2,file.locking=off
      info --image-opts driver=qcow2,file.filename=mid.qcow2,lazy-refcounts=on,l2-cache-size=1M
      info --image-opts driver=qcow2,file.filename=mid.qcow2,cache.direct=on,read-only=on
      info --image-opts driver=raw,file.filename=base.raw
      info --image-opts driver=raw,file.filename=base.raw,offset=512,size=4096
      info --image-opts driver=raw,file.filename=base.raw,offset=512
      info --output=json --image-opts driver=raw,file.filename=base.raw,size=4096
      info json:{"driver":"qcow2","file.filename":"mid.qcow2"}
      info json:{"driver":"qcow2","file":{"driver":"file","filename":"mid.qcow2"}}
      info json:{"driver":"raw","offset":512,"size":4096,"file":{"driver":"file","filename":"base.raw"}}
      info json:{"driver":"raw","file":{"driver":"file","filename":"base.raw"}}
      info json:{"driver":"file","filename":"base.raw"}
      info --object secret,id=a,data=x mid.qcow2
      info mid.qcow2 --output=json
    `,
      READERS,
    ));

  it('info, refused', () =>
    allSame(
      `
      info
      info base.raw mid.qcow2
      info --output=x base.raw
      info -f
      info -z
      info -q mid.qcow2
      info -T none mid.qcow2
      info nofile
      info --backing-chain nofile
      info --backing-chain orphan.qcow2
      info --backing-chain --output=json orphan.qcow2
      info --backing-chain itself.qcow2
      info --backing-chain --output=json itself.qcow2
      info -f qcow2 base.raw
      info -f nope base.raw
      info foo:bar
      info ''
      info --object x mid.qcow2
      info --image-opts mid.qcow2
      info --image-opts -f qcow2 file.filename=mid.qcow2
      info json:{}
      info json:{"driver":"qcow2"}
      info json:{"driver":"nope","file.filename":"mid.qcow2"}
      info --image-opts driver=qcow2,file.filename=nofile
    `,
      READERS,
    ));

  it('snapshot', async () => {
    await allSame(`
      snapshot -l work.qcow2
      snapshot -c one work.qcow2
      snapshot -c one work.qcow2
      snapshot -c 1 work.qcow2
      snapshot -c '' work.qcow2
      snapshot -q -c größer/ü work.qcow2
      snapshot -c ${'x'.repeat(300)} work.qcow2
      snapshot -l work.qcow2
      snapshot -lq work.qcow2
      snapshot work.qcow2
      snapshot work.qcow2 -l
      snapshot -U -l work.qcow2
      snapshot -- work.qcow2
      snapshot -d 1 work.qcow2
      snapshot -l work.qcow2
      snapshot -d one work.qcow2
      snapshot -l work.qcow2
      snapshot -d '' work.qcow2
      snapshot -c -d work.qcow2
      snapshot -d -d work.qcow2
      snapshot -c --help work.qcow2
      snapshot -d --help work.qcow2
      snapshot -a 2 work.qcow2
      snapshot -c last work.qcow2
      snapshot --image-opts -l driver=qcow2,file.filename=work.qcow2
      snapshot --image-opts -c opts driver=qcow2,file.filename=work.qcow2
      snapshot -l json:{"driver":"qcow2","file.filename":"work.qcow2"}
      snapshot --object secret,id=a,data=x -l work.qcow2
      snapshot -l base.raw
      snapshot base.raw
      snapshot -l data.qcow2
      snapshot -l corrupt.qcow2
      snapshot -l dirty.qcow2
      snapshot -c repaired dirty.qcow2
      snapshot -l old.qcow2
      snapshot -c o1 old.qcow2
      snapshot -d o1 old.qcow2
      snapshot -c o2 old.qcow2
      snapshot -a o2 old.qcow2
      snapshot -l top.qcow2
      snapshot -c t top.qcow2
      snapshot -a t top.qcow2
      snapshot -l top.qcow2
      info --output=json work.qcow2
      info old.qcow2
    `);
    sameImages('work.qcow2', ['2', 'last']);
    sameImages('old.qcow2', ['o2']);
    sameImages('top.qcow2', ['t']);
    sameImages('dirty.qcow2', ['repaired']);
  });

  it('snapshot of disks of other sizes, with VM state', async () => {
    await allSame(`
      snapshot -l sizes.qcow2
      snapshot -a small sizes.qcow2
      info sizes.qcow2
      snapshot -a large sizes.qcow2
      info sizes.qcow2
      snapshot -c state sizes.qcow2
      snapshot -d small sizes.qcow2
      snapshot -l sizes.qcow2
      snapshot -a 2 sizes.qcow2
      info sizes.qcow2
    `);
    sameImages('sizes.qcow2', ['large', 'state']);
  });

  it('snapshot of a disk of 0 bytes, which has no table', () => {
    const image = join(directory, 'empty.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', image, '0');
    for (const line of [
      'snapshot -c first',
      'resize -q +1M',
      'io -c write_-P_5_0_1M',
      'snapshot -c second',
      'snapshot -a first',
      'snapshot -a second',
      'snapshot -d first',
    ]) {
      const words = line.split(' ').map((word) => word.replaceAll('_', ' '));
      const isSize = words[0] === 'resize';
      const all = isSize ? [...words.slice(0, 2), image, words[2]!] : [...words, image];
      const { status, stderr } = spawnSync(process.execPath, [CLI, ...all], { encoding: 'utf8' });
      expect([line, status, stderr]).to.deep.equal([line, 0, '']);
      qemuImg('check', '-q', image);
    }
    const disk = join(directory, 'empty.raw');
    qemuImg('convert', '-O', 'raw', image, disk);
    expect(readFileSync(disk)).to.deep.equal(Buffer.alloc(1 << 20, 5));
  });

  it('snapshot, refused', async () => {
    await allSame(`
      snapshot
      snapshot a b
      snapshot -a nope work.qcow2
      snapshot -d nope work.qcow2
      snapshot -a '' work.qcow2
      snapshot -l -c x work.qcow2
      snapshot -c x -c y work.qcow2
      snapshot -l -l
      snapshot -c
      snapshot -cfoo
      snapshot -x
      snapshot -f qcow2 -l work.qcow2
      snapshot --output=json -l work.qcow2
      snapshot --force-share=x -l work.qcow2
      snapshot -U -c z work.qcow2
      snapshot -c x base.raw
      snapshot -d x base.raw
      snapshot -c x data.qcow2
      snapshot -a x data.qcow2
      snapshot -d x data.qcow2
      snapshot -l nofile
      snapshot nofile
      snapshot -c x nofile
      snapshot -l sub
      snapshot -l orphan.qcow2
      snapshot -c x orphan.qcow2
      snapshot -c x corrupt.qcow2
      snapshot -a a corrupt.qcow2
      snapshot --image-opts -l work.qcow2
      snapshot --object x -l work.qcow2
      snapshot -l json:{}
      snapshot -d ${'x'.repeat(300)} work.qcow2
      snapshot --image-opts -c x driver=qcow2,file.filename=work.qcow2,read-only=on
      snapshot -l work.qcow2
    `);
    sameImages('work.qcow2');
  });
});

/** One image of each kind. */
function makeImages(folder: string): void {
  const run = (tool: string, ...words: string[]): void => {
    const { status, stdout, stderr } = spawnSync(tool, words, { cwd: folder, encoding: 'utf8' });
    expect(status, `${tool} ${words.join(' ')}: ${stdout}${stderr}`).to.equal(0);
  };
  const image = (name: string, options: string, ...commands: string[]): void => {
    run('qemu-img', 'create', '-q', '-u', '-f', 'qcow2', '-o', options, name);
    if (commands.length > 0) run('qemu-io', ...commands.flatMap((words) => ['-c', words]), name);
  };
  /** A file of that size, with 4 KiB of data at each place. */
  const sparse = (name: string, size: number, ...places: number[]): void => {
    const fd = openSync(join(folder, name), 'w');
    ftruncateSync(fd, size);
    for (const place of places) writeSync(fd, Buffer.alloc(4096, 1), 0, 4096, place);
    closeSync(fd);
  };
  const patch = (name: string, at: number, value: number): void => {
    const bytes = readFileSync(join(folder, name));
    bytes[at] = value;
    writeFileSync(join(folder, name), bytes);
  };
  const onRaw = 'backing_file=base.raw,backing_fmt=raw';
  mkdirSync(join(folder, 'sub'));
  sparse('base.raw', 1_000_000, 0, 131_072);
  sparse('odd.raw', 4097, 0);
  sparse('nothing.raw', 0);
  image(
    'mid.qcow2',
    `size=2M,${onRaw}`,
    'write -P 1 0 64k',
    'write -z 256k 64k',
    'write -z -u 320k 64k',
    'write -c -P 3 512k 64k',
    'write -P 1 1M 128k',
    'write -z 1M 64k',
  );
  image('top.qcow2', 'size=3M,backing_file=mid.qcow2,backing_fmt=qcow2', 'write -P 1 2M 64k');
  image('sub/relative.qcow2', 'size=1M,backing_file=../base.raw,backing_fmt=raw');
  image('metadata.qcow2', 'size=1M,preallocation=metadata', 'write -P 1 100k 64k');
  image('falloc.qcow2', 'size=1M,preallocation=falloc');
  image('data.qcow2', 'size=1M,data_file=data.raw', 'write -P 1 100k 64k');
  image('subclusters.qcow2', 'size=1M,extended_l2=on', 'write 100k 6k', 'write -z 200k 6k');
  image('old.qcow2', 'size=1M,compat=0.10,cluster_size=4k', 'write 12k 4k', 'write 40k 12k');
  image('empty.qcow2', 'size=0');
  image('named.qcow2', `size=1M,${onRaw}`, 'write 64k 64k');
  image('compressed.qcow2', 'size=1M', 'write -c 64k 64k');
  image('orphan.qcow2', 'size=1M,backing_file=gone.raw,backing_fmt=raw');
  image('itself.qcow2', 'size=1M');
  run('qemu-img', 'rebase', '-u', '-b', 'itself.qcow2', '-F', 'qcow2', 'itself.qcow2');
  image('bitmaps.qcow2', 'size=1M');
  run('qemu-img', 'bitmap', '--add', '-g', '4k', 'bitmaps.qcow2', 'b');
  image('snapshots.qcow2', 'size=1M', 'write 0 128k');
  run('qemu-img', 'snapshot', '-c', 'a', 'snapshots.qcow2');
  for (const name of ['corrupt.qcow2', 'dirty.qcow2']) image(name, 'size=1M', 'write 64k 64k');
  patch('corrupt.qcow2', 79, 2);
  patch('dirty.qcow2', 79, 1);
  image('work.qcow2', 'size=1M', 'write -P 1 0 256k');
  image('sizes.qcow2', 'size=1M', 'write -P 1 0 1M', 'write -b -P 7 0 100k');
  run('qemu-img', 'snapshot', '-c', 'small', 'sizes.qcow2');
  run('qemu-img', 'resize', '-q', 'sizes.qcow2', '3M');
  run('qemu-io', '-c', 'write -P 2 2M 1M', 'sizes.qcow2');
  run('qemu-img', 'snapshot', '-c', 'large', 'sizes.qcow2');
}
