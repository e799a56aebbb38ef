/** `info` held against qemu-img: the same text, byte for byte, for people and as JSON. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { parseImageName } from '#src/cli/image-words.js';
import { type InfoOptions, runInfo as run } from '#src/cli/info.js';
import { infoJson } from '#src/mount/info-json.js';
import { isExpected } from '#src/errors.js';
import { closeImage, openImage } from '#src/image/open.js';
import { SNAPSHOT_HEADER } from '#src/image/qcow2/layout.js';
import { LUKS_HEADER } from '#src/image/crypto/luks-header.js';

const SECRET = ['--object', 'secret,id=s,data=abc'];

/** Bytes to put at an offset. */
type Change = [at: number, bytes: number[]];

interface Options extends Omit<InfoOptions, 'spec'> {
  readonly path: string;
  readonly format?: string | undefined;
}

function runInfo({ path, format, ...options }: Options): string {
  return run({ ...options, spec: { ...parseImageName(path), ...(format && { format }) } });
}

describe('runInfo() and qemu-img info', () => {
  let directory: string;
  let home: string;
  before(() => {
    home = process.cwd();
    directory = mkdtempSync(join(tmpdir(), 'info-'));
    process.chdir(directory);
  });
  after(() => {
    process.chdir(home);
    rmSync(directory, { recursive: true });
  });

  function qemuImg(...words: string[]): string {
    const { status, stdout, stderr } = spawnSync('qemu-img', words, { encoding: 'utf8' });
    expect(status, `qemu-img ${words.join(' ')}: ${stderr}`).to.equal(0);
    return stdout;
  }

  /** `words`: further options, with the size in them. */
  function create(name: string, options: string, ...words: string[]): string {
    const given = options === '' ? words : ['-o', options, ...words];
    qemuImg('create', '-q', '-f', 'qcow2', ...given, name);
    return name;
  }

  /** Compares all four texts, or that both refuse. */
  function compare(path: string, format?: string): void {
    for (const json of [false, true]) {
      for (const backingChain of [false, true]) {
        const words = ['info', `--output=${json ? 'json' : 'human'}`];
        if (backingChain) words.push('--backing-chain');
        if (format !== undefined) words.push('-f', format);
        const { status, stdout } = spawnSync('qemu-img', [...words, path], { encoding: 'utf8' });
        const ours = () => runInfo({ path, format, json, backingChain });
        if (status === 0) expect(ours(), words.join(' ')).to.equal(stdout);
        else
          expect(ours, `${words.join(' ')} exits ${status}`)
            .to.throw()
            .that.satisfies(isExpected);
      }
    }
  }

  function refused(path: string): void {
    expect(spawnSync('qemu-img', ['info', path]).status, 'qemu-img').to.not.equal(0);
    compare(path);
  }

  /** Copies an image and changes bytes of the copy. */
  function patched(from: string, to: string, changes: Change[]): string {
    const image = readFileSync(from);
    for (const [at, bytes] of changes) image.set(bytes, at);
    writeFileSync(to, image);
    return to;
  }

  describe('options of create', () => {
    const sets = [
      '',
      'compat=0.10',
      'compat=0.10,cluster_size=512',
      'cluster_size=512,refcount_bits=1',
      'cluster_size=4k,refcount_bits=64',
      'cluster_size=2M,refcount_bits=8,preallocation=metadata',
      'compression_type=zstd',
      'compression_type=zstd,lazy_refcounts=on,extended_l2=on,cluster_size=128k',
      'lazy_refcounts=on,preallocation=falloc',
      'extended_l2=on',
      'data_file=data1.raw',
      'data_file=data2.raw,data_file_raw=on,cluster_size=1M',
      'data_file=../data3.raw,data_file_raw=on',
      'encrypt.format=aes,encrypt.key-secret=s',
      'compat=0.10,encrypt.format=aes,encrypt.key-secret=s',
    ];
    for (const [index, options] of sets.entries()) {
      it(options === '' ? 'none' : options, () => {
        const size = options === '' ? 'size=3M' : `${options},size=3M`;
        compare(create(`options${index}.qcow2`, size, ...SECRET));
      });
    }
  });

  it('LUKS, with all that its header can name', function () {
    const name = 'luks.qcow2';
    const options = 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,size=3M';
    const words = ['create', '-q', '-f', 'qcow2', ...SECRET, '-o', options, name];
    // QEMU times its hashes before it makes a key, and gives up where the clock is too coarse.
    let made = spawnSync('qemu-img', words, { encoding: 'utf8' });
    for (let tries = 1; tries < 5 && made.status !== 0; tries++) {
      made = spawnSync('qemu-img', words, { encoding: 'utf8' });
    }
    if (made.status !== 0) {
      console.log(`      skipped: qemu-img cannot make it here: ${made.stderr.trim()}`);
      this.skip();
    }
    compare(name);
    const at = readFileSync(name).indexOf(Buffer.from('LUKS\xba\xbe', 'latin1'));
    const text = (field: 'cipherName' | 'cipherMode' | 'hashSpec', value: string): Change => [
      at + LUKS_HEADER.offsets[field],
      [...Buffer.from(`${value}\0`)],
    ];
    const ciphers = ['aes 16', 'aes 24', 'aes 32', 'serpent 24', 'twofish 32', 'cast5 16'];
    const modes = [
      'cbc-plain',
      'cbc-essiv:sha1',
      'cbc-essiv:sha256',
      'ctr-plain64',
      'ecb-plain',
      'cbc-plain:sha1',
      'cbc-essiv:md5',
    ];
    for (const [cipher, mode] of ciphers.flatMap((c) => modes.map((m) => [c, m] as const))) {
      const [algorithm, bytes] = cipher.split(' ');
      const size: Change = [at + LUKS_HEADER.offsets.keyBytes + 3, [Number(bytes)]];
      const changes = [text('cipherName', algorithm!), text('cipherMode', mode), size];
      compare(patched(name, 'cipher.qcow2', changes));
    }
    for (const hash of ['md5', 'sha1', 'sha224', 'sha256', 'sha384', 'sha512', 'ripemd160']) {
      compare(patched(name, 'hash.qcow2', [text('hashSpec', hash)]));
    }
    compare(patched(name, 'uuid.qcow2', [[at + LUKS_HEADER.offsets.uuid, Array(40).fill(65)]]));
    refused(patched(name, 'method.qcow2', [[35, [0]]]));
    refused(patched(name, 'aes.qcow2', [[35, [1]]]));
  });

  it('sizes, with every form of a number', () => {
    const sizes = [0, 1, 511, 512, 1000, 1023, 1024, 1152, 99 * 1024 + 512, 999 * 1024];
    for (let size = 1536; size < 2 ** 42; size = Math.ceil((size * 2.37) / 512) * 512) {
      sizes.push(size, size + 1, size - 1);
    }
    for (let unit = 2 ** 20; unit < 2 ** 33; unit *= 1024) {
      sizes.push(unit - 1, unit + 1, unit * 1.125, unit * 1.375, unit * 999.5, unit * 1000 - 512);
    }
    writeFileSync('size.raw', '');
    for (const size of sizes) {
      truncateSync('size.raw', size);
      const ours = runInfo({ path: 'size.raw', json: false, backingChain: false });
      expect(ours).to.equal(qemuImg('info', '-f', 'raw', 'size.raw'), `${size} bytes`);
    }
    compare('size.raw');
  });

  it('names of files', () => {
    mkdirSync('sub');
    const base = create('base.qcow2', 'size=1M');
    create('sub/é b".qcow2', 'size=1M', '-b', `../${base}`, '-F', 'qcow2');
    qemuImg('convert', '-O', 'qcow2', '-f', 'raw', 'size.raw', './a:b.qcow2');
    for (const dots of ['', './', `${directory}/`, 'sub/../', 'sub//..//', 'file:', 'file:./']) {
      compare(`${dots}base.qcow2`);
      compare(`${dots}sub/é b".qcow2`);
    }
    compare('./a:b.qcow2');
    refused('a:b.qcow2');
    refused('nothing');
    refused('sub');
  });

  it('formats that are stated', () => {
    compare('base.qcow2', 'qcow2');
    compare('base.qcow2', 'raw');
    compare('base.qcow2', 'file');
    compare('size.raw', 'qcow2');
  });

  it('backing files', () => {
    for (const name of ['nbd://host/x', 'json:{"driver":"null-co"}', 'file:x', '/a/b', 'c/d']) {
      create('backed.qcow2', 'size=1M', '-u', '-b', name, '-F', 'qcow2');
      const words = ['info', '--output=json', './backed.qcow2'];
      const ours = runInfo({ path: './backed.qcow2', json: true, backingChain: false });
      expect(ours).to.equal(qemuImg(...words));
      expect(() => runInfo({ path: 'backed.qcow2', json: true, backingChain: true }))
        .to.throw()
        .that.satisfies(isExpected);
    }
    writeFileSync('bottom.raw', Buffer.alloc(4096));
    create('middle.qcow2', 'size=1M', '-b', 'bottom.raw', '-F', 'raw');
    create('upper.qcow2', 'compat=0.10', '-b', './middle.qcow2', '-F', 'qcow2');
    create('top.qcow2', 'data_file=gone.raw', '-b', `${directory}/upper.qcow2`, '-F', 'qcow2');
    rmSync('gone.raw');
    compare('top.qcow2');
    compare('sub/../top.qcow2');
    // Without a format: it is probed.
    const format = readFileSync('middle.qcow2').indexOf(Buffer.from([0xe2, 0x79, 0x2a, 0xca]));
    compare(patched('middle.qcow2', 'unstated.qcow2', [[format, [1, 2, 3, 4]]]));
  });

  it('chains that never end', () => {
    create('loop1.qcow2', 'size=1M', '-u', '-b', 'loop2.qcow2', '-F', 'qcow2');
    create('loop2.qcow2', 'size=1M', '-u', '-b', 'loop1.qcow2', '-F', 'qcow2');
    compare('loop1.qcow2');
    create('itself.qcow2', 'size=1M');
    qemuImg('rebase', '-u', '-b', 'itself.qcow2', '-F', 'qcow2', 'itself.qcow2');
    compare('itself.qcow2');
  });

  it('the policy holds for the chain', () => {
    const options = { path: 'top.qcow2', json: false, backingChain: true };
    expect(() => runInfo({ ...options, policy: { noBacking: true } })).to.throw(/no-backing/);
    expect(() => runInfo({ ...options, policy: { backingRoot: 'sub' } })).to.throw(/backing-root/);
    const root = { backingRoot: directory };
    expect(runInfo({ ...options, policy: root })).to.equal(runInfo(options));
  });

  it('bitmaps', () => {
    create('bitmaps.qcow2', 'size=10M');
    compare('bitmaps.qcow2');
    qemuImg('bitmap', '--add', '-g', '512', 'bitmaps.qcow2', 'fine');
    qemuImg('bitmap', '--add', '-g', '2M', 'bitmaps.qcow2', 'coarse é\n"');
    qemuImg('bitmap', '--add', '--disable', 'bitmaps.qcow2', 'disabled');
    compare('bitmaps.qcow2');
    const image = readFileSync('bitmaps.qcow2');
    const extension = image.indexOf(Buffer.from([0x23, 0x85, 0x28, 0x75]));
    const directoryAt = Number(image.readBigUInt64BE(extension + 24));
    for (const flags of [1, 3]) {
      compare(patched('bitmaps.qcow2', 'in-use.qcow2', [[directoryAt + 15, [flags]]]));
    }
    // The autoclear bit is gone: a program that knows no bitmaps has written.
    compare(patched('bitmaps.qcow2', 'cleared.qcow2', [[95, [0]]]));
  });

  it('snapshots as qemu-img takes them', () => {
    create('snapshots.qcow2', 'size=1M');
    qemuImg('snapshot', '-c', 'one', 'snapshots.qcow2');
    qemuImg('snapshot', '-c', 'größer/ a', 'snapshots.qcow2');
    qemuImg('snapshot', '-c', 'one', 'snapshots.qcow2');
    compare('snapshots.qcow2');
    create('old.qcow2', 'compat=0.10,size=1M');
    qemuImg('snapshot', '-c', 'one', 'old.qcow2');
    compare('old.qcow2');
  });

  /** A snapshot table behind the image's last cluster. */
  function withSnapshots(to: string, entries: SnapshotFields[]): string {
    const image = readFileSync('bitmaps.qcow2');
    const at = Math.ceil(image.length / 65536) * 65536;
    const parts = entries.map(snapshotEntry);
    const whole = Buffer.concat([image, Buffer.alloc(at - image.length), ...parts]);
    whole.writeUInt32BE(entries.length, 60);
    whole.writeBigUInt64BE(BigInt(at), 64);
    writeFileSync(to, whole);
    return to;
  }

  const ODD: SnapshotFields[] = [
    { name: 'no extra data', vmStateSize: 77 },
    { name: 'large state', extra: [5n << 30n], vmStateSize: 77, clock: 1_234_567_890_123n },
    { name: '', extra: [0n, 10n << 20n], clock: 104n * 86400n * 10n ** 9n + 1n },
    { name: 'a/b c\td\ne"\\\x7f\x01', extra: [999n, 10n << 20n, 7n], clock: 2n ** 60n + 1n },
    { name: 'é€😀\u200b\ufffe\ufdd0', extra: [1000n, 10n << 20n, 2n ** 64n - 1n] },
    { name: 'x'.repeat(300), extra: [1n << 50n, 10n << 20n, 10n ** 12n] },
    { name: 'nul\0behind', id: '8'.repeat(200), extra: [1n << 62n, 10n << 20n, 2n ** 63n] },
    { name: 'late', date: 0xffffffff, clock: 2n ** 63n + 7n, extra: [0n, 0n, 1n, 2n, 3n] },
  ];

  it('snapshots of all kinds', () => {
    compare(withSnapshots('odd.qcow2', ODD));
  });

  it('dates in the local time zone', () => {
    const before = process.env.TZ;
    const dates = [0, 1, 951782400, 1711846799, 1711846800, 1729990800, 4102444800, 0xffffffff];
    const name = withSnapshots(
      'dates.qcow2',
      dates.map((date) => ({ name: String(date), date })),
    );
    try {
      for (const zone of ['UTC', 'Europe/Berlin', 'Asia/Kolkata', 'America/St_Johns', 'EST5EDT']) {
        process.env.TZ = zone;
        compare(name);
      }
    } finally {
      if (before === undefined) delete process.env.TZ;
      else process.env.TZ = before;
    }
  });

  it('feature bits', () => {
    compare(patched('bitmaps.qcow2', 'dirty.qcow2', [[79, [1]]]));
    compare(patched('bitmaps.qcow2', 'corrupt.qcow2', [[79, [2]]]));
    compare(patched('bitmaps.qcow2', 'both.qcow2', [[79, [3]]]));
    compare(patched('bitmaps.qcow2', 'lazy.qcow2', [[87, [1]]]));
    compare(patched('bitmaps.qcow2', 'unknown.qcow2', [[80, [0x80]]]));
    refused(patched('bitmaps.qcow2', 'future.qcow2', [[72, [0x80]]]));
  });

  it('images that cannot be opened', () => {
    const bad: [string, number, number[]][] = [
      ['version 9', 7, [9]],
      ['cluster_bits 8', 23, [8]],
      ['cluster_bits 22', 23, [22]],
      ['crypt method 3', 35, [3]],
      ['header length', 103, [8]],
      ['refcount order', 99, [7]],
      ['refcount table', 55, [1]],
      ['L1 offset', 47, [1]],
      ['L1 size', 39, [0]],
      ['snapshots', 60, [0, 1, 0, 1]],
      ['backing offset', 8, [0, 0, 0, 0, 1]],
    ];
    for (const [what, at, bytes] of bad) {
      const path = patched('bitmaps.qcow2', `bad ${what}.qcow2`, [[at, bytes]]);
      refused(path);
    }
    const luks = readFileSync('bitmaps.qcow2');
    luks.writeUInt32BE(2, 32);
    writeFileSync('no luks header.qcow2', luks);
    refused('no luks header.qcow2');
  });

  it('block devices', function () {
    qemuImg('convert', '-O', 'qcow2', 'snapshots.qcow2', 'device.qcow2');
    const size = Math.ceil(readFileSync('device.qcow2').length / 65536) * 65536;
    truncateSync('device.qcow2', size);
    const made = spawnSync('losetup', ['-f', '--show', 'device.qcow2'], { encoding: 'utf8' });
    if (made.status !== 0) {
      console.log(`      skipped: losetup: ${made.stderr?.trim()}`);
      this.skip();
    }
    const device = made.stdout.trim();
    try {
      compare(device);
      compare(device, 'raw');
      compare(device, 'host_device');
    } finally {
      spawnSync('losetup', ['-d', device]);
    }
  });

  it('infoJson() is the text of --output=json for an open image', () => {
    for (const path of ['snapshots.qcow2', 'size.raw']) {
      const { description } = openImage(path);
      try {
        const text = infoJson(description.layers[0], path);
        expect(text).to.equal(runInfo({ path, json: true, backingChain: false }));
      } finally {
        closeImage(description);
      }
    }
  });
});

interface SnapshotFields {
  readonly name: string;
  readonly id?: string;
  readonly date?: number;
  readonly clock?: bigint;
  readonly vmStateSize?: number;
  readonly extra?: readonly bigint[];
}

function snapshotEntry({ name, id = '1', extra = [], ...rest }: SnapshotFields): Buffer {
  const strings = Buffer.from(id + name);
  const at = SNAPSHOT_HEADER.size + extra.length * 8;
  const entry = Buffer.alloc(Math.ceil((at + strings.length) / 8) * 8);
  const view = new DataView(entry.buffer, entry.byteOffset, entry.length);
  SNAPSHOT_HEADER.write(view, 0, {
    l1TableOffset: 0x30000,
    l1Size: 1,
    idStrSize: id.length,
    nameSize: strings.length - id.length,
    dateSec: rest.date ?? 1_700_000_000,
    dateNsec: 999_999_999,
    vmClockNsec: rest.clock ?? 0n,
    vmStateSize: rest.vmStateSize ?? 0,
    extraDataSize: extra.length * 8,
  });
  for (const [index, value] of extra.entries()) {
    entry.writeBigUInt64BE(value, SNAPSHOT_HEADER.size + index * 8);
  }
  entry.set(strings, at);
  return entry;
}
