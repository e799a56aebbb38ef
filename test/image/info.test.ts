import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { fullName } from '#src/image/file-names.js';
import { collectInfo, type ImageInfo } from '#src/image/info.js';
import { closeImage, openImage } from '#src/image/open.js';
import { LUKS_HEADER, LUKS_KEY_SLOT, type LuksFacts } from '#src/image/crypto/luks-header.js';

const MAGIC = Buffer.from('LUKS\xba\xbe', 'latin1');
const CLUSTER_SIZE = 65536;

/** The image as if encrypted with LUKS: for looking at, there is no key. */
function withLuksHeader(plain: Buffer): Buffer {
  const headerLength = plain.readUInt32BE(100);
  const at = Math.ceil(plain.length / CLUSTER_SIZE) * CLUSTER_SIZE;
  const image = Buffer.alloc(at + 32 * CLUSTER_SIZE);
  image.set(plain);
  image.writeUInt32BE(2, 32);
  // The extension goes before the others.
  image.set(plain.subarray(headerLength, CLUSTER_SIZE - 24), headerLength + 24);
  image.writeUInt32BE(0x0537be77, headerLength);
  image.writeUInt32BE(16, headerLength + 4);
  image.writeBigUInt64BE(BigInt(at), headerLength + 8);
  image.writeBigUInt64BE(2068480n, headerLength + 16);
  const text = (value: string, size: number) => Buffer.alloc(size, `${value}\0`, 'latin1');
  const view = new DataView(image.buffer, image.byteOffset, image.length);
  LUKS_HEADER.write(view, at, {
    magic: MAGIC,
    version: 1,
    cipherName: text('aes', 32),
    cipherMode: text('xts-plain64', 32),
    hashSpec: text('sha256', 32),
    payloadOffset: 4040,
    keyBytes: 64,
    mkDigestIterations: 11679,
    uuid: text('10cb6c24-facf-4940-bb7e-8e1910d3e9f3', 40),
  });
  for (let index = 0; index < 8; index++) {
    LUKS_KEY_SLOT.write(view, at + LUKS_HEADER.size + index * LUKS_KEY_SLOT.size, {
      active: index === 0 ? 0x00ac71f3 : 0x0000dead,
      iterations: index === 0 ? 45957 : 0,
      keyMaterialOffset: 8 + index * 504,
      stripes: 4000,
    });
  }
  return image;
}

describe('collectInfo()', () => {
  let directory: string;
  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'info-'));
  });
  after(() => rmSync(directory, { recursive: true }));

  function create(name: string, ...words: string[]): string {
    const path = join(directory, name);
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...words, path, '10M']);
    return path;
  }

  function info(path: string): ImageInfo {
    const { description } = openImage(path, { alone: true, allowEncrypted: true });
    try {
      return collectInfo(description.layers[0], path);
    } finally {
      closeImage(description);
    }
  }

  it('counts a raw file in whole sectors', () => {
    const path = join(directory, 'odd.raw');
    writeFileSync(path, Buffer.alloc(1000));
    const facts = info(path);
    expect(facts.virtualSize).to.equal(1024);
    expect(facts.actualSize).to.equal(statSync(path).blocks * 512);
    expect(facts.qcow2).to.equal(null);
  });

  it('leaves a data file out, and does not need it', () => {
    const data = join(directory, 'data.raw');
    const path = create('external.qcow2', '-o', `data_file=${data},data_file_raw=on`);
    rmSync(data);
    const facts = info(path);
    expect(facts.actualSize).to.equal(statSync(path).blocks * 512);
    expect(facts.qcow2).to.include({ dataFile: data, dataFileRaw: true });
  });

  it('resolves the backing name without needing the file', () => {
    const path = create('overlay.qcow2', '-u', '-b', 'none/base', '-F', 'raw');
    expect(info(path).backing).to.deep.equal({
      name: 'none/base',
      fullName: join(directory, 'none/base'),
      format: 'raw',
    });
  });

  describe('with a LUKS header', () => {
    let image: Buffer;
    let header: number;
    before(() => {
      image = withLuksHeader(readFileSync(create('plain.qcow2')));
      header = image.indexOf(MAGIC);
    });

    it('reads what qemu-img reads', () => {
      const path = join(directory, 'luks.qcow2');
      writeFileSync(path, image);
      const text = execFileSync('qemu-img', ['info', '--output=json', path], { encoding: 'utf8' });
      const { encrypt } = JSON.parse(text)['format-specific'].data;
      const facts = info(path).qcow2!.encrypt as LuksFacts;
      expect(facts).to.include({
        cipherAlg: encrypt['cipher-alg'],
        cipherMode: encrypt['cipher-mode'],
        ivgenAlg: encrypt['ivgen-alg'],
        hashAlg: encrypt['hash-alg'],
        uuid: encrypt.uuid,
        payloadOffset: encrypt['payload-offset'],
        masterKeyIterations: encrypt['master-key-iters'],
      });
      expect(facts.slots[0]).to.deep.include({
        active: encrypt.slots[0].active,
        iterations: encrypt.slots[0].iters,
        stripes: encrypt.slots[0].stripes,
        keyOffset: encrypt.slots[0]['key-offset'],
      });
      expect(facts.slots.map((slot) => slot.active)).to.deep.equal(
        encrypt.slots.map((slot: { active: boolean }) => slot.active),
      );
    });

    const { offsets } = LUKS_HEADER;
    const slot = (index: number, field: keyof typeof LUKS_KEY_SLOT.offsets) =>
      LUKS_HEADER.size + index * LUKS_KEY_SLOT.size + LUKS_KEY_SLOT.offsets[field];
    const word = (value: number) => Buffer.from([0, 0, value >> 8, value & 255]);
    const refused: [what: string, at: number, bytes: Buffer | string, message: RegExp][] = [
      ['another magic', offsets.magic, 'X', /not in LUKS format/],
      ['version 2', offsets.version, '\0\x02', /version 2/],
      ['an unknown cipher', offsets.cipherName, 'rot13\0', /'rot13'/],
      ['a cipher without end', offsets.cipherName, 'a'.repeat(32), /not NUL terminated/],
      ['a key size that is none', offsets.keyBytes, word(7), /key size/],
      ['a mode without generator', offsets.cipherMode, 'xts\0', /mode string/],
      ['an unknown generator', offsets.cipherMode, 'xts-zz\0', /'zz'/],
      ['essiv without hash', offsets.cipherMode, 'cbc-essiv\0', /Missing IV generator hash/],
      ['an unknown hash', offsets.hashSpec, 'zz\0', /'zz'/],
      ['no iterations', offsets.mkDigestIterations, word(0), /count is zero/],
      ['a payload over the header', offsets.payloadOffset, word(1), /payload is overlapping/],
      ['a slot of no state', slot(3, 'active'), word(1), /Keyslot 3 state/],
      ['other stripes', slot(3, 'stripes'), word(1), /Keyslot 3 is corrupted/],
      ['no iterations in a slot', slot(0, 'iterations'), word(0), /Keyslot 0 iteration/],
      [
        'a slot over the header',
        slot(0, 'keyMaterialOffset'),
        word(1),
        /0 is overlapping .* header/,
      ],
      ['a slot over another', slot(1, 'keyMaterialOffset'), word(8), /Keyslots 0 and 1/],
      ['a slot over the payload', slot(7, 'keyMaterialOffset'), word(0xffff), /7 is .* payload/],
    ];
    for (const [what, at, bytes, message] of refused) {
      it(`refuses ${what}, as qemu-img does`, () => {
        const path = join(directory, 'bad.qcow2');
        const patched = Buffer.from(image);
        const data = typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes;
        patched.set(data, header + at);
        writeFileSync(path, patched);
        expect(() => info(path)).to.throw(message);
        const run = () => execFileSync('qemu-img', ['info', path], { stdio: 'pipe' });
        expect(run).to.throw();
      });
    }

    it('refuses one that the file is too short for', () => {
      const path = join(directory, 'short.qcow2');
      writeFileSync(path, image.subarray(0, header + 591));
      expect(() => info(path)).to.throw(/past the end of file/);
    });
  });
});

describe('fullName()', () => {
  const cases: [overlay: string, name: string, full: string][] = [
    ['a', 'b', 'b'],
    ['./a', 'b', './b'],
    ['/x/a', '../b', '/x/../b'],
    ['x//../a', 'y/b', 'x//../y/b'],
    ['x/a', '/b', '/b'],
    ['x/a', 'nbd://host/b', 'nbd://host/b'],
    ['x/a', 'y/b:c', 'x/y/b:c'],
  ];
  for (const [overlay, name, full] of cases) {
    it(`makes ${full} of ${name} in ${overlay}`, () => {
      expect(fullName(overlay, name)).to.equal(full);
    });
  }
});

describe('LUKS_HEADER', () => {
  it('has the offsets of the specification', () => {
    expect(LUKS_HEADER.offsets).to.deep.equal({
      magic: 0,
      version: 6,
      cipherName: 8,
      cipherMode: 40,
      hashSpec: 72,
      payloadOffset: 104,
      keyBytes: 108,
      mkDigest: 112,
      mkDigestSalt: 132,
      mkDigestIterations: 164,
      uuid: 168,
    });
    expect(LUKS_HEADER.size).to.equal(208);
    expect(LUKS_KEY_SLOT.offsets).to.deep.equal({
      active: 0,
      iterations: 4,
      salt: 8,
      keyMaterialOffset: 40,
      stripes: 44,
    });
    expect(LUKS_KEY_SLOT.size).to.equal(48);
  });
});
