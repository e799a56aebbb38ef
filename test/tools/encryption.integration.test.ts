/** Encrypted images of QEMU's, read here; wrong keys and damage. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { KeyRing } from '#src/image/crypto/key-ring.js';
import { LUKS_HEADER, LUKS_KEY_SLOT } from '#src/image/crypto/luks-header.js';
import type { ImageSpec } from '#src/image/spec.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { type OpenDisk, openDisk } from '#src/tools/open-disk.js';
import {
  AES_OPTIONS,
  encryptedSpec,
  luksOptions,
  makeLuksImage,
  qemuIoOn,
} from '../helpers/encrypted.js';
import { encryptedName, imageWords, PASSPHRASE, SECRET } from '../helpers/image-words.js';
import { runInProcess } from '../helpers/in-process.js';
import { qemuImg, qemuIo, qemuRead } from '../helpers/qemu.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { readDisk } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';

const SIZE = 300 * 1024;

async function withDisk<T>(image: ImageSpec, body: (disk: OpenDisk) => T): Promise<T> {
  const disk = await openDisk(image);
  try {
    return body(disk);
  } finally {
    disk.close();
  }
}

async function refused(image: ImageSpec, message: RegExp): Promise<void> {
  const before = readFileSync(image.path);
  try {
    await withDisk(image, () => {});
  } catch (error) {
    expect((error as Error).message).to.match(message);
    expect((error as Error).message).not.to.contain(PASSPHRASE);
    expect(readFileSync(image.path).equals(before)).to.equal(true);
    return;
  }
  expect.fail(`${image.path} was opened`);
}

describe('encrypted images of QEMU', () => {
  const temp = useTempFolder();
  printSeed();
  /** Made once, to be copied: it takes QEMU seconds to time its keys. */
  let luks: Buffer;

  before(() => {
    const folder = mkdtempSync(join(tmpdir(), 'qcow2fs-test-'));
    const path = join(folder, 'image');
    const options = `${luksOptions()},extended_l2=on,cluster_size=16k`;
    qemuImg('create', ...SECRET, '-f', 'qcow2', '-o', options, path, `${SIZE}`);
    luks = readFileSync(path);
    rmSync(folder, { recursive: true });
  });

  /** Random bytes, and a hole at the end. */
  function content(): Buffer {
    const raw = Buffer.alloc(SIZE);
    new Random(SEED).bytes(SIZE - 100 * 1024).copy(raw);
    return raw;
  }

  function fill(path: string, raw: Buffer): void {
    const source = temp.write('source', raw);
    const words = ['-n', '-f', 'raw', '--target-image-opts', source, encryptedName(path)];
    qemuImg('convert', ...SECRET, ...words);
  }

  function makeLuks(name: string): { path: string; raw: Buffer } {
    const path = temp.write(name, luks);
    const raw = content();
    fill(path, raw);
    return { path, raw };
  }

  function makeAes(name: string, options = 'cluster_size=4k'): { path: string; raw: Buffer } {
    const path = temp.at(name);
    const raw = content();
    const how = ['-f', 'qcow2', '-o', `${AES_OPTIONS},${options}`];
    qemuImg('create', ...SECRET, ...how, path, `${SIZE}`);
    fill(path, raw);
    return { path, raw };
  }

  it('are read whole and in parts', async () => {
    for (const { path, raw } of [makeLuks('luks'), makeAes('aes')]) {
      const random = new Random(SEED);
      await withDisk(encryptedSpec(path), ({ disk }) => {
        expect(readDisk(disk).equals(raw)).to.equal(true);
        for (let n = 0; n < 50; n++) {
          const offset = random.below(SIZE - 1);
          const length = 1 + random.below(Math.min(SIZE - offset, random.pick([700, 20_000])));
          const part = readDisk(disk, offset, length);
          expect(part.equals(raw.subarray(offset, offset + length)), `${offset}`).to.equal(true);
        }
      });
    }
  });

  it('are read with subclusters and snapshots, over layers of other keys', async () => {
    const base = makeAes('base');
    const over = temp.write('over', luks);
    const objects = [...SECRET, '--object', 'secret,id=b,data=other'];
    qemuImg(
      'convert',
      ...objects,
      '-O',
      'qcow2',
      '-o',
      'encrypt.format=aes,encrypt.key-secret=b',
      '--image-opts',
      encryptedName(base.path),
      temp.at('below'),
    );
    qemuImg(
      'rebase',
      ...SECRET,
      '-u',
      '-F',
      'qcow2',
      '-b',
      temp.at('below'),
      '--image-opts',
      encryptedName(over),
    );
    const name = `${encryptedName(over)},backing.encrypt.key-secret=b`;
    const write = (...commands: string[]) => qemuIoOn(name, objects, ...commands);
    // The last but one is VM state.
    write('write -P 1 5k 3k', 'write -P 2 100k 512', 'write -z 210k 8k', 'write -b -P 3 4k 9k');
    qemuImg('snapshot', ...objects, '-c', 'one', '--image-opts', name);
    write('write -P 4 6k 9k');
    const raw = Buffer.from(base.raw);
    raw
      .fill(1, 5 * 1024, 8 * 1024)
      .fill(2, 100 * 1024, 100.5 * 1024)
      .fill(0, 210 * 1024, 218 * 1024);
    const secrets = new Map([
      ['s', Buffer.from(PASSPHRASE)],
      ['b', Buffer.from('other')],
    ]);
    const spec: ImageSpec = {
      ...encryptedSpec(over),
      keys: new KeyRing({ secrets }),
      backing: { filename: '', encryption: { secret: 'b' } },
    };
    await withDisk(spec, (disk) => {
      const { view } = disk.findSnapshot('one')!;
      expect(readDisk(disk.image.snapshotDisk(view)).equals(raw)).to.equal(true);
      const state = readDisk(disk.image.vmState(view), 4 * 1024, 9 * 1024);
      expect(state.equals(Buffer.alloc(9 * 1024, 3))).to.equal(true);
      raw.fill(4, 6 * 1024, 15 * 1024);
      expect(readDisk(disk.disk).equals(raw)).to.equal(true);
    });
    const none = { ...spec, backing: { filename: '', encryption: { secret: 'c' } } };
    await refused(none, /backing file: .*No secret with id 'c'/);
  });

  it('are read with their data in another file', async () => {
    const { path, raw } = makeAes('image', `data_file=${temp.at('data')}`);
    await withDisk(encryptedSpec(path), (disk) => {
      expect(readDisk(disk.disk).equals(raw)).to.equal(true);
    });
  });

  it('say what is wrong with their keys, and are not changed', async () => {
    const { path } = makeLuks('image');
    const spec = encryptedSpec(path);
    await refused({ ...spec, keys: new KeyRing() }, /No secret with id 's'/);
    await refused({ ...spec, encryption: {} }, /'encrypt.key-secret' is required/);
    await refused(encryptedSpec(path, 'wrong'), /Invalid password, cannot unlock any keyslot/);
    const aes = { ...spec, encryption: { format: 'aes', secret: 's' } };
    await refused(aes, /Header reported 'luks' .* options specify 'aes'/);
    const binary = new KeyRing({ secrets: new Map([['s', Buffer.from([0xff])]]) });
    await refused({ ...spec, keys: binary }, /Data from secret s is not valid UTF-8/);
    const bytes = readFileSync(path);
    const at = bytes.indexOf('LUKS\xba\xbe', 0, 'latin1');
    const slot = (field: keyof typeof LUKS_KEY_SLOT.offsets) =>
      at + LUKS_HEADER.size + LUKS_KEY_SLOT.offsets[field];
    const damages: [at: number, byte: number, message: RegExp][] = [
      [at, 0, /not in LUKS format/],
      [at + LUKS_HEADER.offsets.mkDigest, 1, /Invalid password/],
      [slot('salt'), 1, /Invalid password/],
      [at + 4096 + 5000, 1, /Invalid password/],
      [slot('active'), 1, /Keyslot 0 state/],
      [slot('iterations'), 0xff, /iterations of LUKS keys/],
      [
        at + LUKS_HEADER.offsets.cipherName,
        'a'.charCodeAt(0) ^ 'x'.charCodeAt(0),
        /'xes' with key/,
      ],
    ];
    for (const [offset, flip, message] of damages) {
      const damaged = Buffer.from(bytes);
      damaged[offset]! ^= flip === 0 ? 0xff : flip;
      const name = temp.write('damaged', damaged);
      await refused(encryptedSpec(name), message);
    }
  });

  it('have their passphrases tried in turn where none is stated', async () => {
    const { path, raw } = makeLuks('image');
    const asked: string[] = [];
    const keys = new KeyRing({
      passphrases: [Buffer.from('no')],
      ask: (name) => Buffer.from(asked.push(name) === 2 ? PASSPHRASE : 'wrong'),
    });
    const spec = { path, filename: path, keys };
    for (let n = 0; n < 2; n++) {
      await withDisk(spec, (disk) => expect(readDisk(disk.disk).equals(raw)).to.equal(true));
      expect(asked).to.deep.equal([path, path]);
    }
    const never = new KeyRing({ ask: () => null, missing: 'no key at all' });
    await refused({ ...spec, keys: never }, /no key at all/);
  });
});

/** Each cipher, mode, generator and hash at least once. */
const KINDS = [
  'compat=0.10',
  'encrypt.cipher-alg=aes-128,encrypt.hash-alg=sha1,cluster_size=512',
  'encrypt.cipher-alg=aes-192,encrypt.hash-alg=sha512,preallocation=metadata',
  'encrypt.cipher-mode=cbc,encrypt.ivgen-alg=plain,encrypt.hash-alg=ripemd160,preallocation=full',
  'encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,extended_l2=on,preallocation=metadata',
  'encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=md5,encrypt.hash-alg=sha384',
  'encrypt.cipher-mode=ecb,encrypt.hash-alg=sha224,data_file=@',
  'encrypt.cipher-alg=aes-128,encrypt.cipher-mode=ctr,encrypt.hash-alg=md5',
];

describe('encrypted images made here', () => {
  const temp = useTempFolder();
  printSeed();

  for (const kind of KINDS) {
    it(`are zeroes, and read and written to by QEMU and us: ${kind}`, async () => {
      const path = temp.at('image');
      await makeLuksImage(path, SIZE, kind.replace('@', temp.at('data')));
      expect(qemuRead(path).equals(Buffer.alloc(SIZE))).to.equal(true);
      qemuIo(path, 'write -P 5 3k 70k', 'write -P 6 299k 1k');
      const disk = Buffer.alloc(SIZE)
        .fill(5, 3072, 73 * 1024)
        .fill(6, 299 * 1024);
      const written = await openDisk(encryptedSpec(path), { writable: true });
      expect(readDisk(written.disk).equals(disk)).to.equal(true);
      const bytes = new IoBuffer(50_001);
      new Random(SEED).bytes(bytes.length).copy(bytes.bytes);
      const before = Buffer.from(bytes.bytes);
      written.writer.write(60_000, bytes.length, bytes, 0);
      // Who writes keeps its bytes.
      expect(bytes.bytes.equals(before)).to.equal(true);
      written.close();
      before.copy(disk, 60_000);
      qemuImg('check', ...imageWords(path));
      expect(qemuRead(path).equals(disk)).to.equal(true);
    });
  }

  it('are what is converted into one, from one, and from one to another', async () => {
    const raw = new Random(SEED).bytes(SIZE);
    const source = temp.write('source', raw);
    const run = async (...words: string[]) => {
      const result = await runInProcess(['convert', ...SECRET, ...words], temp.path);
      expect(result).to.deep.equal({ status: 0, stdout: '', stderr: '' });
    };
    const options = ['-O', 'qcow2', '-o', luksOptions('encrypt.cipher-mode=cbc')];
    await run('-f', 'raw', ...options, source, 'one');
    expect(qemuRead(temp.at('one')).equals(raw)).to.equal(true);
    const second = ['-O', 'qcow2', '-o', `${AES_OPTIONS},compat=0.10,preallocation=metadata`];
    await run(...second, '--image-opts', encryptedName('one'), 'two');
    expect(qemuRead(temp.at('two')).equals(raw)).to.equal(true);
    await run('-O', 'raw', '--image-opts', encryptedName('two'), 'three');
    expect(readFileSync(temp.at('three')).equals(raw)).to.equal(true);
  });

  it('take the time that is asked for, and say nothing of their keys', async () => {
    const words = ['create', ...SECRET, '-f', 'qcow2', '-o', luksOptions('encrypt.iter-time=0')];
    const { stdout, stderr } = await runInProcess([...words, 'image', '1M'], temp.path);
    expect(stdout + stderr).not.to.contain(PASSPHRASE);
    const { encrypt } = JSON.parse(qemuImg('info', '--output=json', temp.at('image')))[
      'format-specific'
    ].data;
    expect(encrypt['master-key-iters']).to.equal(1000);
    expect(encrypt.slots[0].iters).to.equal(1000);
    for (const [time, problem] of [
      ['1000000000000', 'larger than 4294967295'],
      ['10000000000000000', 'too large to scale'],
      // No key that is opened in no time.
      ['-5', 'too large to scale'],
    ] as const) {
      const large = luksOptions(`encrypt.iter-time=${time}`);
      const refused = ['create', ...SECRET, '-f', 'qcow2', '-o', large, 'other', '1M'];
      const result = await runInProcess(refused, temp.path);
      expect(result.stderr).to.match(new RegExp(`PBKDF iterations \\d+ ${problem}`));
      expect(existsSync(temp.at('other'))).to.equal(false);
    }
  });
});
