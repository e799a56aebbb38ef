/**
 * What of a header is not known here: compatible and autoclear bits, extensions, further fields. Each
 * command that writes to an image must keep or clear them as the specification says, and as QEMU does.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { readHeader } from '#src/image/qcow2/header.js';
import { readHeaderParts } from '#src/image/qcow2/header-rewrite.js';
import { EXTENSION_TYPE } from '#src/image/qcow2/layout.js';
import { MemoryStorage } from '#src/storage/memory.js';
import { BothTools } from '../helpers/both-tools.js';
import { buildImage } from '../helpers/image-builder.js';
import { runInProcess } from '../helpers/in-process.js';
import { CLI, noMounts, Sandbox } from '../helpers/mount.js';
import { put } from '../helpers/mount-write.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

const SIZE = 1 << 20;
const KNOWN: readonly number[] = Object.values(EXTENSION_TYPE);
const COMPATIBLE = (1n << 63n) | (1n << 5n) | 1n;
const AUTOCLEAR = (1n << 63n) | (1n << 9n);
const TAIL = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
const EXTENSIONS = [
  { type: 0x12345678, data: Buffer.from('an extension') },
  { type: 0xdeadbeef, data: Buffer.alloc(0) },
  { type: 0x00c0ffee, data: Buffer.alloc(17, 7) },
];

/** All of a header that a program may not know. */
function unknownParts(path: string) {
  const storage = new MemoryStorage(readFileSync(path));
  const { version, compatibleFeatures, autoclearFeatures } = readHeader(storage);
  const { fields, extensions } = readHeaderParts(storage);
  return {
    version,
    compatible: compatibleFeatures,
    autoclear: autoclearFeatures,
    tail: Buffer.from(fields.subarray(112)).toString('hex'),
    extensions: extensions
      .filter(({ type }) => !KNOWN.includes(type))
      .map(({ type, data }) => `${type.toString(16)} ${Buffer.from(data).toString('hex')}`)
      // QEMU turns their order round each time that it writes them.
      .sort(),
  };
}

/** What they are as long as nothing is written. */
const UNTOUCHED = {
  version: 3,
  compatible: COMPATIBLE,
  autoclear: AUTOCLEAR,
  tail: TAIL.toString('hex'),
  extensions: EXTENSIONS.map(
    ({ type, data }) => `${type.toString(16)} ${data.toString('hex')}`,
  ).sort(),
};
const WRITTEN = { ...UNTOUCHED, autoclear: 0n };

describe('features that are not known', () => {
  const temp = useTempFolder();
  let tools: BothTools;

  beforeEach(() => {
    tools = new BothTools(temp);
    const { bytes } = buildImage({
      size: SIZE,
      backing: { name: 'base', format: 'qcow2' },
      snapshots: [{ id: '1', name: 's' }],
      extensions: EXTENSIONS,
      headerTail: TAIL,
      header: { compatibleFeatures: COMPATIBLE, autoclearFeatures: AUTOCLEAR },
    });
    const base = buildImage({
      size: SIZE,
      extensions: EXTENSIONS,
      headerTail: TAIL,
      header: { compatibleFeatures: COMPATIBLE, autoclearFeatures: AUTOCLEAR },
    });
    tools.make((folder) => {
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, 'image'), bytes);
      writeFileSync(join(folder, 'base'), base.bytes);
      qemuImg('create', '-q', '-f', 'qcow2', join(folder, 'other'), `${SIZE}`);
      qemuIo(join(folder, 'other'), 'write -P 1 0 64k');
    });
  });

  /** Runs it on both; what is left of the image must be the same, and is answered. */
  async function leaves(words: string[], image = 'image') {
    const theirs = tools.run('qemu', words);
    const ours = await runInProcess(words, tools.folder('ours'));
    expect(ours.status, `${words.join(' ')}: ${ours.stderr}`).to.equal(0);
    expect(theirs.status, `${words.join(' ')}: ${theirs.stderr}`).to.equal(0);
    return both(image);
  }

  function both(image: string) {
    const parts = unknownParts(tools.at('ours', image));
    expect(parts).to.deep.equal(unknownParts(tools.at('qemu', image)));
    return parts;
  }

  it('are left alone by who only reads', async () => {
    const before = readFileSync(tools.at('ours', 'image'));
    for (const words of [
      ['info', 'image'],
      ['check', 'image'],
      ['map', 'image'],
      ['measure', '-O', 'qcow2', 'image'],
      ['snapshot', '-l', 'image'],
      ['compare', 'image', 'image'],
      ['convert', '-O', 'raw', 'image', 'raw'],
    ]) {
      expect(await leaves(words)).to.deep.equal(UNTOUCHED);
    }
    expect(readFileSync(tools.at('ours', 'image')).equals(before)).to.equal(true);
    expect(unknownParts(tools.at('ours', 'base'))).to.deep.equal(UNTOUCHED);
  });

  const WRITERS: readonly (readonly string[])[] = [
    ['amend', '-o', 'lazy_refcounts=on', 'image'],
    ['amend', '-o', 'refcount_bits=64', 'image'],
    ['amend', '-o', `size=${2 * SIZE}`, 'image'],
    ['bitmap', '--add', 'image', 'b'],
    ['check', '-q', '-r', 'all', 'image'],
    ['rebase', '-u', '-b', 'another-name-that-is-longer', '-F', 'raw', 'image'],
    ['rebase', '-u', '-b', '', 'image'],
    ['rebase', '-b', 'other', '-F', 'qcow2', 'image'],
    ['resize', 'image', '2M'],
    ['resize', '--shrink', 'image', '512k'],
    ['snapshot', '-c', 'new', 'image'],
    ['snapshot', '-a', 's', 'image'],
    ['snapshot', '-d', 's', 'image'],
    ['convert', '-n', '-O', 'qcow2', 'other', 'image'],
  ];
  for (const words of WRITERS) {
    it(`are kept, but for autoclear bits, by ${words.join(' ')}`, async () => {
      const wanted = words.includes('bitmap') ? { ...WRITTEN, autoclear: 1n } : WRITTEN;
      expect(await leaves([...words])).to.deep.equal(wanted);
      if (words[0] !== 'bitmap') return;
      expect(await leaves(['bitmap', '--remove', 'image', 'b'])).to.deep.equal(WRITTEN);
    });
  }

  it('are kept by qemu-io, which opens for writing whatever it does then', () => {
    const io = (...words: string[]) => {
      const [theirs, ours] = (['qemu', 'ours'] as const).map((side) =>
        tools.runIo(side, [...words, 'image']),
      );
      expect([ours!.status, ours!.stderr]).to.deep.equal([0, '']);
      expect(theirs!.status).to.equal(0);
      return both('image');
    };
    expect(io('-r', '-c', 'read 0 1k')).to.deep.equal(UNTOUCHED);
    expect(io('-c', 'read 0 1k')).to.deep.equal(WRITTEN);
    expect(io('-c', 'write 0 1k', '-c', 'discard 0 64k')).to.deep.equal(WRITTEN);
  });

  it('are kept by a mount that is written to, and left alone by another', async function () {
    if (noMounts() !== null) this.skip();
    const sandbox = new Sandbox();
    try {
      const image = tools.at('ours', 'image');
      await sandbox.unmount(await sandbox.mount(image));
      expect(unknownParts(image)).to.deep.equal(UNTOUCHED);
      const target = await sandbox.mount(image, { options: ['-o', 'rw'] });
      put(`${target}/image.raw`, 5000, Buffer.alloc(3000, 1));
      writeFileSync(`${target}/image.snapshots/new.raw`, '', { flag: 'a' });
      await sandbox.unmount(target);
      expect(unknownParts(image)).to.deep.equal(WRITTEN);
      expect(unknownParts(tools.at('ours', 'base'))).to.deep.equal(UNTOUCHED);
      qemuImg('check', image);
    } finally {
      sandbox.clean();
    }
  });

  it('are kept by who commits, in both images', async () => {
    qemuIo(tools.at('qemu', 'image'), 'write 0 1k');
    tools.io(tools.at('ours', 'image'), 'write 0 1k');
    expect(both('image')).to.deep.equal(WRITTEN);
    expect(await leaves(['commit', 'image'])).to.deep.equal(WRITTEN);
    // QEMU 7.2 leaves autoclear bits set in a backing file that it writes to.
    expect(unknownParts(tools.at('ours', 'base'))).to.deep.equal(WRITTEN);
  });

  it('are gone with version 2, but for extensions', async () => {
    await leaves(['snapshot', '-d', 's', 'image']);
    // QEMU 7.2 leaves the further fields there, where extensions begin, and cannot open it any more.
    const image = tools.at('ours', 'image');
    const amend = (option: string) =>
      runInProcess(['amend', '-o', option, 'image'], tools.folder('ours'));
    const { extensions } = UNTOUCHED;
    const old = { version: 2, compatible: 0n, autoclear: 0n, tail: '', extensions };
    for (const [option, version] of [
      ['compat=0.10', 2],
      ['compat=1.1', 3],
    ] as const) {
      expect((await amend(option)).status).to.equal(0);
      expect(unknownParts(image)).to.deep.equal({ ...old, version });
      qemuImg('check', image);
    }
  });

  it('are refused where they are incompatible, with nothing changed', async () => {
    const { bytes } = buildImage({
      size: SIZE,
      featureNames: [{ type: 0, bit: 40, name: 'time travel' }],
      header: { incompatibleFeatures: (1n << 40n) | (1n << 62n) },
    });
    tools.make((folder) => writeFileSync(join(folder, 'image'), bytes));
    for (const words of [...WRITERS, ['info', 'image'], ['check', 'image']]) {
      const theirs = tools.run('qemu', words);
      const ours = await runInProcess(words, tools.folder('ours'));
      expect(ours.stderr).to.match(/time travel, Unknown incompatible feature: 4000000000000000/);
      expect(ours, words.join(' ')).to.deep.equal(theirs);
    }
    const io = ['-c', 'read 0 512', 'image'];
    const [theirs, ours] = (['qemu', 'ours'] as const).map((side) => tools.runIo(side, io));
    expect(ours).to.deep.equal(theirs);
    for (const words of [
      ['image', 'mnt', '-o', 'rw'],
      ['image', 'mnt'],
      ['compact', 'image'],
    ]) {
      mkdirSync(tools.at('ours', 'mnt'), { recursive: true });
      const { status, stderr } = spawnSync(process.execPath, [CLI, ...words], {
        cwd: tools.folder('ours'),
        encoding: 'utf8',
      });
      expect(status, words.join(' ')).to.equal(1);
      expect(stderr).to.match(/time travel, Unknown incompatible feature: 4000000000000000/);
    }
    expect(readFileSync(tools.at('ours', 'image')).equals(bytes)).to.equal(true);
  });

  it('are told of by info alone where they say what cannot be', async () => {
    const headers = {
      raw: { autoclearFeatures: 2n },
      zlib: { incompatibleFeatures: 8n },
      zstd: { compressionType: 1 },
      unknown: { compressionType: 7 },
    };
    tools.make((folder) => {
      for (const [name, header] of Object.entries(headers)) {
        writeFileSync(join(folder, name), buildImage({ size: SIZE, header }).bytes);
      }
    });
    for (const name of Object.keys(headers)) {
      for (const words of [
        ['info', name],
        ['check', name],
        ['map', name],
        ['snapshot', '-c', 's', name],
      ]) {
        const theirs = tools.run('qemu', words);
        const ours = await runInProcess(words, tools.folder('ours'));
        if (theirs.status === 0) expect(ours.status, words.join(' ')).to.equal(0);
        else expect(ours, words.join(' ')).to.deep.equal(theirs);
      }
    }
  });
});
