import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { expect } from 'chai';
import type { ErrnoName } from '#src/errors.js';
import { closeImage, type OpenedImage, type OpenPolicy, openImage } from '#src/image/open.js';
import { expectImageError } from '../helpers/errors.js';
import { buildImage } from '../helpers/image-builder.js';
import type { ImageSpec, Places } from '../helpers/image-spec.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
import { pattern } from '../helpers/random.js';
import { readImage } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';

const CLUSTER = 65536;
const SIZE = 4 * CLUSTER;
const WRITABLE: OpenPolicy = { writable: true, lock: 'read' };
const O_ACCMODE = 3;

/** How a descriptor was opened: 0 for reading, 2 for both. */
function accessOf(fd: number): number {
  const flags = /^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1]!;
  return Number.parseInt(flags, 8) & O_ACCMODE;
}

/** An image with data, snapshots and a bit of everything that the tables can lead to. */
function specimen(spec: Partial<ImageSpec> = {}): ImageSpec {
  const data = { kind: 'data', bytes: pattern(1, CLUSTER) } as const;
  const clusters = new Map([[0, data]]);
  return { size: SIZE, clusters, snapshots: [{ id: '1', name: 'one', clusters }], ...spec };
}

describe('openImage() for writing', () => {
  const temp = useTempFolder();

  function withOpen(path: string, body: (opened: OpenedImage) => void, policy = WRITABLE): void {
    const opened = openImage(path, policy);
    try {
      body(opened);
    } finally {
      closeImage(opened.description);
    }
  }

  function refuse(code: ErrnoName, message: RegExp, path: string, policy = WRITABLE): void {
    const before = readdirSync('/proc/self/fd').length;
    const bytes = readFileSync(path);
    expectImageError(code, message, () => openImage(path, policy));
    expect(readdirSync('/proc/self/fd').length, 'open descriptors').to.equal(before);
    expect(readFileSync(path).equals(bytes), 'left alone').to.equal(true);
  }

  it('opens the image itself read-write, and what it names read-only', () => {
    temp.write('base', buildImage({ size: SIZE }).bytes);
    const backing = { name: 'base', format: 'qcow2' };
    const path = temp.write('top', buildImage({ size: SIZE, backing }).bytes);
    const accesses = ({ description: { layers } }: OpenedImage) =>
      layers.map(({ file }) => accessOf(file.fd));
    withOpen(path, (opened) => {
      expect(accesses(opened)).to.deep.equal([2, 0]);
      expect(opened.description.writable).to.equal(true);
      expect(opened.warnings).to.deep.equal([]);
    });
    withOpen(
      path,
      (opened) => {
        expect(accesses(opened)).to.deep.equal([0, 0]);
        expect(opened.description.writable).to.equal(false);
      },
      { lock: 'read' },
    );
  });

  it('changes nothing in an image that has nothing to clear', () => {
    for (const spec of [specimen(), specimen({ version: 2 }), specimen({ header: { size: 0 } })]) {
      const { bytes } = buildImage(spec);
      const path = temp.write('image', bytes);
      withOpen(path, ({ warnings }) => expect(warnings).to.deep.equal([]));
      expect(readFileSync(path).equals(bytes)).to.equal(true);
    }
  });

  it("takes all that QEMU's tools make", () => {
    const path = temp.at('image');
    for (const options of [
      'cluster_size=512',
      'cluster_size=2M',
      'compat=0.10',
      'extended_l2=on',
      'refcount_bits=1',
      'lazy_refcounts=on',
      'preallocation=metadata',
      'compression_type=zstd',
    ]) {
      qemuImg('create', '-q', '-f', 'qcow2', '-o', options, path, '64M');
      withOpen(path, () => {});
      qemuIo(path, 'write -P 1 3M 1M', 'write -z 1M 64k');
      if (!options.includes('refcount_bits=1')) qemuImg('snapshot', '-c', 'x', path);
      withOpen(path, ({ description, warnings }) => {
        expect(warnings).to.deep.equal([]);
        expect(description.layers[0]).to.have.property('needsRepair', false);
      });
      expect(qemuImg('check', path)).to.contain('No errors were found');
    }
  });

  it('opens a raw image only where that is stated', () => {
    const path = temp.write('raw', pattern(2, SIZE));
    expectImageError('EINVAL', /only where it is stated/, () => openImage(path, WRITABLE));
    const policy = { ...WRITABLE, format: 'raw' };
    withOpen(path, ({ warnings }) => expect(warnings).to.deep.equal([]), policy);
  });

  it('reports an image that was not closed cleanly, and repairs it only for writing', () => {
    const { bytes } = buildImage(specimen({ header: { incompatibleFeatures: 1n } }));
    const path = temp.write('image', bytes);
    const looksLike = (policy: OpenPolicy, needsRepair: boolean) =>
      withOpen(
        path,
        ({ description, warnings }) => {
          expect(description.layers[0]).to.have.property('needsRepair', needsRepair);
          expect(warnings).to.have.lengthOf(1);
          expect(warnings[0]).to.match(/not closed cleanly/);
        },
        policy,
      );
    looksLike({ lock: 'read' }, true);
    expect(readFileSync(path).equals(bytes)).to.equal(true);
    looksLike(WRITABLE, false);
    expect(readFileSync(path).subarray(72, 80).equals(Buffer.alloc(8))).to.equal(true);
    expect(qemuImg('check', path)).to.contain('No errors were found');
  });

  it('clears what it does not keep up to date, once all is open', () => {
    const backing = { name: 'base', format: 'raw' };
    const bitmaps = [{ name: 'a' }];
    const header = { autoclearFeatures: 4n };
    const { bytes } = buildImage({ size: SIZE, backing, bitmaps, header });
    const path = temp.write('image', bytes);
    refuse('ENOENT', /base/, path);
    temp.write('base', pattern(3, SIZE));
    withOpen(path, ({ description: { layers }, warnings }) => {
      expect(warnings[0]).to.match(/image: its 1 bitmaps are out of date/);
      expect(layers[0]).to.have.property('bitmaps').that.deep.equals([]);
      expect(layers[0]).to.have.nested.property('header.autoclearFeatures', 0n);
    });
    expect(readFileSync(path).subarray(88, 96).equals(Buffer.alloc(8))).to.equal(true);
  });

  it("refuses files that the system does not let it write to, in the system's words", () => {
    const path = temp.write('image', buildImage(specimen()).bytes);
    chmodSync(path, 0o444);
    // Root may write whatever the mode says.
    if (process.getuid!() === 0) withOpen(path, () => {});
    else refuse('EACCES', /image': Permission denied \(opened for writing\)/, path);
  });

  it('refuses a file that the kernel holds', async () => {
    const path = temp.at('sleep');
    copyFileSync('/bin/sleep', path);
    chmodSync(path, 0o700);
    const child: ChildProcess = spawn(path, ['100']);
    await once(child, 'spawn');
    try {
      const policy = { ...WRITABLE, format: 'raw' };
      refuse('ETXTBSY', /Text file busy \(opened for writing\)/, path, policy);
    } finally {
      child.kill();
      await once(child, 'exit');
    }
  });

  it('refuses a block device that is mounted', function () {
    const host = temp.write('host', Buffer.alloc(16 << 20));
    const run = (...words: string[]) => execFileSync(words[0]!, words.slice(1));
    run('mkfs.ext4', '-q', host);
    const made = spawnSync('losetup', ['-f', '--show', host], { encoding: 'utf8' });
    if (made.status !== 0) {
      console.log(`      skipped: losetup: ${made.stderr?.trim()}`);
      this.skip();
    }
    const device = made.stdout.trim();
    const policy = { ...WRITABLE, format: 'raw' };
    try {
      withOpen(device, ({ warnings }) => expect(warnings).to.deep.equal([]), policy);
      mkdirSync(temp.at('mnt'));
      run('mount', device, temp.at('mnt'));
      try {
        const busy = /Device or resource busy \(it is mounted, or part of another device\)/;
        expectImageError('EBUSY', busy, () => openImage(device, policy));
        withOpen(device, () => {}, { format: 'raw', lock: 'read' });
      } finally {
        run('umount', temp.at('mnt'));
      }
    } finally {
      run('losetup', '-d', device);
    }
  });

  it('refuses what cannot be written to by its header', () => {
    const refused = (spec: Partial<ImageSpec>, code: ErrnoName, message: RegExp) =>
      refuse(code, message, temp.write('image', buildImage(specimen(spec)).bytes));
    const corrupt = /qcow2: Image is corrupt; cannot be opened read\/write/;
    refused({ header: { incompatibleFeatures: 2n } }, 'EACCES', corrupt);
    refused({ header: { cryptMethod: 1 } }, 'EACCES', /'encrypt.key-secret' is required/);
    refused({ header: { cryptMethod: 2 } }, 'EINVAL', /Missing CRYPTO header/);
    refused({ dataFile: { name: 'missing' } }, 'ENOENT', /missing/);
    refused({ header: { nbSnapshots: 1, snapshotsOffset: 0 } }, 'EINVAL', /Snapshot table offset/);
    const encrypted = buildImage(specimen({ header: { cryptMethod: 1 } })).bytes;
    const policy = { ...WRITABLE, allowEncrypted: true };
    refuse('EACCES', /'encrypt.key-secret' is required/, temp.write('image', encrypted), policy);
  });

  it('lets what lies below be as it is: only the image itself is written to', () => {
    const { bytes } = buildImage(specimen({ header: { incompatibleFeatures: 3n } }));
    temp.write('base', bytes);
    const backing = { name: 'base', format: 'qcow2' };
    const path = temp.write('top', buildImage({ size: SIZE, backing }).bytes);
    withOpen(path, ({ warnings }) => expect(warnings).to.have.lengthOf(2));
  });

  describe('refuses tables that are not in order, and reads the image all the same:', () => {
    const damages: [what: string, damage: (bytes: Buffer, places: Places) => Buffer][] = [
      ['L1 table entry 0 is invalid', (b, p) => or(b, p.l1Table, 0x20)],
      ['L1 table entry 0 is invalid', (b, p) => or(b, p.l1Table + 7, 1)],
      ['L1 table entry 0 is invalid', (b, p) => entry(b, p.l1Table, 1n << 63n)],
      ['L1 table entry 0 is not cluster-aligned', (b, p) => or(b, p.l1Table + 6, 2)],
      ['L1 table entry 0 leads past the end', (b, p) => entry(b, p.l1Table, 1n << 40n)],
      ['L1 table entry 0 leads into metadata', (b, p) => entry(b, p.l1Table, BigInt(p.l1Table))],
      ['Refcount table entry 0 is invalid', (b, p) => or(b, p.refcountTable + 7, 1)],
      ['Refcount table entry 1 leads past', (b, p) => entry(b, p.refcountTable + 8, 1n << 41n)],
      ['Refcount table entry 2 leads into', (b, p) => entry(b, p.refcountTable + 16, 0x10000n)],
      ["Snapshot 'one': Snapshot L1 table", (b, p) => entry(b, p.snapshotEntries[0]!, 0x10200n)],
      ["L1 table of snapshot 'one' lies", (b, p) => entry(b, p.snapshotEntries[0]!, 1n << 40n)],
      ['Refcount table overlaps with', (b, p) => entry(b, 48, BigInt(p.l1Table))],
      ['Refcount table lies past the end', (b) => entry(b, 48, 1n << 40n)],
      ['L1 table lies past the end', (b) => entry(b, 40, 1n << 40n)],
    ];
    for (const [what, damage] of damages) {
      it(what, () => {
        const { bytes, places } = buildImage(specimen());
        const path = temp.write('image', damage(bytes, places));
        const message = new RegExp(`${what}.*; cannot be opened read/write`);
        refuse('EIO', message, path);
        withOpen(path, () => {}, { lock: 'read' });
      });
    }

    it('a snapshot table that is cut off', () => {
      const { bytes, places } = buildImage(specimen());
      const cut = Buffer.from(bytes);
      const end = BigInt(bytes.length);
      entry(cut, 64, end);
      const path = temp.write('image', Buffer.concat([cut, Buffer.alloc(20)]));
      refuse('EIO', /snapshot table entry at offset .* past the end/, path);
      expect(places.snapshotTable).to.be.greaterThan(0);
      expect(readImage(path)).to.have.lengthOf(SIZE);
    });
  });

  it('takes a file whose last cluster is partial, and no shorter one', () => {
    const { bytes, places } = buildImage({
      size: SIZE,
      clusters: new Map([[0, { kind: 'zero' }]]),
    });
    const last = places.refcountBlocks[0]!;
    expect(bytes.length).to.equal(last + CLUSTER);
    withOpen(temp.write('image', bytes.subarray(0, last + 512)), () => {});
    const short = temp.write('image', bytes.subarray(0, last));
    refuse('EIO', /Refcount table entry 0 leads past the end of the file/, short);
  });

  function or(bytes: Buffer, at: number, bits: number): Buffer {
    bytes.writeUInt8(bytes.readUInt8(at) | bits, at);
    return bytes;
  }

  function entry(bytes: Buffer, at: number, value: bigint): Buffer {
    bytes.writeBigUInt64BE(value, at);
    return bytes;
  }
});
