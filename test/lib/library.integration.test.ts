/** The library, as other programs import it, against QEMU's tools. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { checkImage, type Extent, ImageError, openImage } from 'qcow2fs';
import { makeLuksImage } from '../helpers/encrypted.js';
import { PASSPHRASE } from '../helpers/image-words.js';
import { qemuImg, qemuIo, qemuRead } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

const KIB = 1 << 10;
const MIB = 1 << 20;

/** What is thrown, or what a promise is rejected with; undefined where nothing is. */
async function thrownBy(body: () => unknown): Promise<Error | undefined> {
  try {
    await body();
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

async function codeOf(body: () => unknown): Promise<string | undefined> {
  const error = await thrownBy(body);
  expect(error).to.be.instanceOf(ImageError);
  return error instanceof ImageError ? error.code : undefined;
}

describe('openImage()', () => {
  const temp = useTempFolder();

  it('takes no option that it does not know', async () => {
    const path = makeImage();
    const open = (options: object) => codeOf(() => openImage(path, options));
    for (const options of [{ writeable: true }, { cache: 'foo' }, { detectZeroes: true }]) {
      expect(await open(options)).to.equal('EINVAL');
    }
    expect(await codeOf(() => checkImage(path, { repair: 'none' as never }))).to.equal('EINVAL');
  });

  function makeImage(...options: string[]): string {
    const path = temp.at('disk.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', ...options, path, '16M');
    qemuIo(path, 'write -P 1 64k 100k', 'write -z 8M 1M', 'write -c -P 2 12M 64k');
    return path;
  }

  it('reads the disk, and tells of its extents as qemu-img map does', async () => {
    for (const options of [[], ['-o', 'compression_type=zstd'], ['-o', 'extended_l2=on']]) {
      const path = makeImage(...options);
      const image = await openImage(path);
      expect(image.size).to.equal(16 * MIB);
      expect(image.writable).to.equal(false);
      expect(Buffer.compare(image.read(0, image.size), qemuRead(path))).to.equal(0);
      const part = new Uint8Array(3000);
      image.readInto(64 * KIB - 1000, part);
      expect(
        Buffer.compare(part, qemuRead(path).subarray(63 * KIB + 24, 63 * KIB + 3024)),
      ).to.equal(0);
      const told = [...image.extents()].map(
        ({ offset, length, host, compressed, ...rest }: Extent) => ({
          ...{ start: offset, length, ...rest },
          ...(compressed && { compressed }),
          ...(host !== null && { offset: host.offset }),
        }),
      );
      const map = JSON.parse(qemuImg('map', '--output=json', path)) as Record<string, unknown>[];
      const expected = map.map((run) =>
        run.start === 12 * MIB ? { ...run, compressed: true } : run,
      );
      expect(told).to.deep.equal(expected);
      expect([...image.extents(65 * KIB, KIB)].map(({ length }) => length)).to.deep.equal([KIB]);
      image.close();
    }
  });

  it('writes, zeroes, discards and resizes, and QEMU reads it', async () => {
    const path = makeImage();
    const expected = Buffer.concat([qemuRead(path), Buffer.alloc(4 * MIB)]);
    const image = await openImage(path, { writable: true });
    const bytes = Buffer.alloc(3 * MIB, 'bytes');
    image.resize(20 * MIB);
    image.write(17 * MIB - 5, bytes);
    bytes.copy(expected, 17 * MIB - 5);
    image.zero(70 * KIB, 10 * KIB);
    image.discard(12 * MIB, MIB);
    image.discard(0, 0);
    expected.fill(0, 70 * KIB, 80 * KIB).fill(0, 12 * MIB, 13 * MIB);
    expect(Buffer.compare(image.read(0, image.size), expected)).to.equal(0);
    image.flush();
    image.close();
    image.close();
    expect(Buffer.compare(qemuRead(path), expected)).to.equal(0);
    qemuImg('check', path);
  });

  it('takes snapshots, reads them, goes back to them, and deletes them', async () => {
    const path = makeImage();
    const before = qemuRead(path);
    const image = await openImage(path, { writable: true });
    const { id, name, size, date } = image.takeSnapshot('first');
    expect({ id, name, size }).to.deep.equal({ id: '1', name: 'first', size: 16 * MIB });
    expect(Date.now() - date.getTime()).to.be.within(0, 60_000);
    expect(await codeOf(() => image.takeSnapshot('first'))).to.equal('EEXIST');
    image.write(0, Buffer.alloc(MIB, 'new'));
    image.resize(17 * MIB);
    const first = image.snapshot('first');
    expect(first.size).to.equal(16 * MIB);
    expect(Buffer.compare(first.read(0, first.size), before)).to.equal(0);
    expect([...first.extents()][0]).to.include({ offset: 0, length: 64 * KIB, data: false });
    image.takeSnapshot('second');
    image.revertTo('1');
    expect(image.size).to.equal(16 * MIB);
    image.deleteSnapshot('first');
    expect(image.snapshots().map((left) => left.name)).to.deep.equal(['second']);
    expect(await codeOf(() => first.read(0, 1))).to.equal('ENOENT');
    expect(await codeOf(() => image.revertTo('first'))).to.equal('ENOENT');
    image.close();
    expect(Buffer.compare(qemuRead(path), before)).to.equal(0);
    expect(qemuRead(path, 'second').subarray(0, 6).toString()).to.equal('newnew');
    qemuImg('check', path);
  });

  it('tells what the header tells, and of a backing file', async () => {
    const base = makeImage('-o', 'compression_type=zstd');
    const path = temp.at('top.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', '-o', 'compat=0.10', path);
    const image = await openImage(path, { format: 'qcow2', backingRoot: temp.path });
    const { format, backing, qcow2, clusterSize, encrypted } = image.info();
    expect({ format, clusterSize, encrypted }).to.deep.equal({
      ...{ format: 'qcow2', clusterSize: 64 * KIB, encrypted: false },
    });
    expect(backing).to.deep.equal({ file: base, format: 'qcow2' });
    expect(qcow2).to.include({ version: 2, refcountBits: 16, corrupt: false });
    expect(Buffer.compare(image.read(0, image.size), qemuRead(base))).to.equal(0);
    expect([...image.extents(64 * KIB, KIB)][0]).to.deep.include({ depth: 1, data: true });
    image.close();
    expect(await codeOf(() => openImage(path, { noBacking: true }))).to.equal('EPERM');
    expect(await codeOf(() => openImage(path, { backingRoot: '/usr' }))).to.equal('EPERM');
  });

  it('opens encrypted images with a passphrase', async () => {
    const path = temp.at('luks.qcow2');
    await makeLuksImage(path, MIB);
    const passphrases = ['wrong', new TextEncoder().encode(PASSPHRASE)];
    const image = await openImage(path, { writable: true, passphrases });
    image.write(500, Buffer.from('secret'));
    expect(Buffer.from(image.read(500, 6)).toString()).to.equal('secret');
    expect(image.info().encrypted).to.equal(true);
    image.close();
    expect(readFileSync(path).includes('secret')).to.equal(false);
    expect(await codeOf(() => openImage(path, { passphrases: ['wrong'] }))).to.equal('EACCES');
    const without = await thrownBy(() => openImage(path));
    expect(without?.message).to.contain('a passphrase is needed');
  });

  it('is locked as QEMU locks, and refuses what it cannot do', async () => {
    const path = makeImage();
    const reader = await openImage(path);
    (await openImage(path)).close();
    expect(await codeOf(() => openImage(path, { writable: true }))).to.equal('EAGAIN');
    expect(await codeOf(() => reader.write(0, new Uint8Array(1)))).to.equal('EBADF');
    expect(await codeOf(() => reader.snapshot('none'))).to.equal('ENOENT');
    for (const [offset, length] of [
      ...[
        [-1, 1],
        [16 * MIB, 1],
        [0, 16 * MIB + 1],
        [0, -1],
        [0.5, 1],
        [Number.NaN, 1],
      ],
    ] as const) {
      const error = await thrownBy(() => reader.read(offset!, length!));
      expect(error, `${offset} ${length}`).to.be.instanceOf(RangeError);
    }
    const extents = reader.extents();
    extents.next();
    reader.close();
    expect(await codeOf(() => reader.read(0, 1))).to.equal('EBADF');
    expect(await codeOf(() => extents.next())).to.equal('EBADF');
    const writer = await openImage(path, { writable: true });
    expect(await codeOf(() => openImage(path))).to.equal('EAGAIN');
    expect(await codeOf(() => checkImage(path))).to.equal('EAGAIN');
    (await openImage(path, { forceShare: true })).close();
    writer[Symbol.dispose]();
    expect(await codeOf(() => openImage(temp.at('missing')))).to.equal('ENOENT');
  });

  it('works with raw images, which have no snapshots', async () => {
    const path = temp.write('disk.raw', Buffer.alloc(MIB, 'raw'));
    const image = await openImage(path, { format: 'raw', writable: true });
    image.write(MIB - 3, Buffer.from('end'));
    expect(image.snapshots()).to.deep.equal([]);
    expect(await codeOf(() => image.takeSnapshot('x'))).to.equal('ENOTSUP');
    image.close();
    expect(readFileSync(path).subarray(-3).toString()).to.equal('end');
    expect(await codeOf(() => checkImage(path, { format: 'raw' }))).to.equal('ENOTSUP');
  });

  it('does what the README shows', async () => {
    const readme = readFileSync(
      fileURLToPath(new URL('../../../README.md', import.meta.url)),
      'utf8',
    );
    const example = /## As a library[\s\S]*?```js\n([\s\S]*?)```/.exec(readme)?.[1];
    const path = makeImage();
    // From this package's own folder, `qcow2fs` is this package.
    const words = ['--input-type=module', '-e', `process.chdir(process.argv[1]);${example}`];
    const cwd = fileURLToPath(new URL('../../..', import.meta.url));
    const said = execFileSync(process.execPath, [...words, temp.path], { cwd, encoding: 'utf8' });
    expect(said.split('\n')).to.deep.equal([
      ...[
        '16777216 bytes, 196608 of them stored',
        'before: 0 bytes stand there',
        '0 corruptions',
        '',
      ],
    ]);
    expect(qemuRead(path).subarray(4096, 4101).toString()).to.equal('hello');
    expect(qemuImg('snapshot', '-l', path)).to.contain('before');
  });
});

describe('checkImage()', () => {
  const temp = useTempFolder();

  it('finds and repairs leaks', () => {
    const path = temp.at('disk.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', path, '1M');
    qemuIo(path, 'write 0 128k');
    // The first entry of the first L2 table, which the header leads to.
    const bytes = readFileSync(path);
    const l2 = Number(
      bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(40))) & 0xff_ffff_ffff_fe00n,
    );
    writeFileSync(path, bytes.fill(0, l2, l2 + 8));
    const { corruptions, leaks, totalClusters, allocatedClusters } = checkImage(path);
    expect([corruptions, leaks, totalClusters, allocatedClusters]).to.deep.equal([0, 1, 16, 1]);
    expect(checkImage(path, { repair: 'leaks' })).to.include({ leaks: 0, leaksFixed: 1 });
    qemuImg('check', path);
  });
});
