/** Encrypted images of QEMU's, read here; wrong keys and damage. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { KeyRing } from '#src/image/crypto/key-ring.js';
import { LUKS_HEADER, LUKS_KEY_SLOT } from '#src/image/crypto/luks-header.js';
import type { ImageSpec } from '#src/image/spec.js';
import { type OpenDisk, openDisk } from '#src/tools/open-disk.js';
import { AES_OPTIONS, encryptedSpec, luksOptions, qemuIoOn } from '../helpers/encrypted.js';
import { encryptedName, PASSPHRASE, SECRET } from '../helpers/image-words.js';
import { qemuImg } from '../helpers/qemu.js';
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
      [slot('iterations'), 0xff, /iterations of a LUKS key/],
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
