/** Amending images as no tool makes them, and amending that is ended in the middle. */
import { copyFileSync, readFileSync } from 'node:fs';
import { expect } from 'chai';
import { AttachedImage } from '#src/image/attach.js';
import { allocateImageMemory } from '#src/image/memory.js';
import { closeImage, openImage } from '#src/image/open.js';
import { readHeader } from '#src/image/qcow2/header.js';
import { readHeaderParts } from '#src/image/qcow2/header-rewrite.js';
import { SNAPSHOT_HEADER } from '#src/image/qcow2/layout.js';
import { type AmendRequest, amendImage, amendSteps } from '#src/tools/amend.js';
import { openDisk } from '#src/tools/open-disk.js';
import { Cancelled, NO_PROGRESS } from '#src/tools/progress.js';
import { MemoryStorage } from '#src/storage/memory.js';
import { contentsOf, difference, makeImage } from '../helpers/amend-images.js';
import { FailingStorage } from '../helpers/failing-storage.js';
import { writeImage } from '../helpers/image-builder.js';
import type { ClusterSpec, ImageSpec } from '../helpers/image-spec.js';
import { AES_OPTIONS } from '../helpers/encrypted.js';
import { imageOf, imageWords, SECRET } from '../helpers/image-words.js';
import { qemuImg, qemuIo, qemuRead, tryQemuImg } from '../helpers/qemu.js';
import { pattern, printSeed, Random, SEED } from '../helpers/random.js';
import { useTempFolder } from '../helpers/temp.js';

const SIZE = 1 << 20;
const CLUSTER_BITS = 12;

function expectClean(path: string, leaks = false): void {
  const { status, stdout, stderr } = tryQemuImg('check', ...imageWords(path));
  expect(status, stdout + stderr).to.be.oneOf(leaks ? [0, 3] : [0]);
}

async function amend(path: string, request: AmendRequest): Promise<void> {
  const disk = await openDisk(imageOf(path), { writable: true });
  try {
    await amendImage(disk, request, NO_PROGRESS);
  } finally {
    disk.abandon();
  }
}

function headerOf(path: string) {
  return readHeader(new MemoryStorage(readFileSync(path)));
}

describe('amendImage()', () => {
  const folder = useTempFolder();
  printSeed();

  function build(spec: Partial<ImageSpec>): string {
    const path = folder.at('image.qcow2');
    writeImage(path, { size: SIZE, clusterBits: CLUSTER_BITS, ...spec });
    return path;
  }

  async function keeps(path: string, request: AmendRequest): Promise<void> {
    const before = contentsOf(path);
    await amend(path, request);
    expectClean(path);
    expect(difference(before, contentsOf(path), Number(request.size ?? SIZE))).to.equal(null);
  }

  it('gives a zero cluster whose host cluster is data to a snapshot another one', async () => {
    const shared: ClusterSpec = { kind: 'data', bytes: pattern(1, 4096) };
    const path = build({
      clusters: new Map([[0, shared]]),
      snapshots: [{ id: '1', name: 'one', clusters: new Map([[0, shared]]) }],
    });
    qemuIo(path, 'write -z 0 4k');
    await keeps(path, { version: 2 });
  });

  it('lets the disk own what a snapshot lets go of', async () => {
    const path = folder.at('image.qcow2');
    const all = ['-o', 'cluster_size=4k'];
    qemuImg('create', '-q', '-f', 'qcow2', ...all, path, '1M');
    qemuIo(path, 'write -P 1 0 64k');
    qemuImg('snapshot', '-c', 'data', path);
    qemuIo(path, 'write -z 0 64k');
    qemuImg('snapshot', '-c', 'zero', path);
    qemuImg('snapshot', '-a', 'data', path);
    qemuImg('snapshot', '-d', 'data', path);
    await keeps(path, { version: 2 });
    expect(
      contentsOf(path)
        .disk.subarray(0, 65536)
        .every((byte) => byte === 1),
    ).to.equal(true);
  });

  it('expands zero clusters of every layer of snapshots over a backing file', async () => {
    const base = folder.write('base.raw', pattern(7, SIZE));
    const path = folder.at('image.qcow2');
    qemuImg(
      ...['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', '-b', base, '-F', 'raw', path],
    );
    for (let n = 0; n < 6; n++) {
      qemuIo(
        path,
        `write -z ${n * 40}k 100k`,
        `write -P ${n + 1} ${n * 30}k 6k`,
        'discard 500k 9k',
      );
      qemuImg('snapshot', '-c', `s${n}`, path);
    }
    await keeps(path, { version: 2 });
    await keeps(path, { version: 3 });
  });

  it('hides the backing file by zeroes, also where it was not opened', async () => {
    const base = folder.write('base.raw', pattern(7, SIZE));
    const path = folder.at('image.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', path);
    qemuIo(path, 'write -z -u 0 128k');
    const before = contentsOf(path);
    const spec = { path, filename: path, backing: null };
    const disk = await openDisk(spec, { writable: true });
    await amendImage(disk, { version: 2 }, NO_PROGRESS);
    disk.abandon();
    expectClean(path);
    expect(difference(before, contentsOf(path), SIZE)).to.equal(null);
  });

  it('completes the entries of snapshots on the way to version 3', async () => {
    const bytes = pattern(1, 4096);
    const path = build({
      version: 2,
      snapshots: [
        { id: '1', name: 'a', extraDataSize: 0, clusters: new Map([[1, { kind: 'data', bytes }]]) },
        { id: '2', name: 'second', extraDataSize: 8, vmStateSize: 77 },
        { id: '3', name: 'third', extraDataSize: 24, icount: 5n },
      ],
    });
    await keeps(path, { version: 3 });
    const { buffer, byteOffset } = readFileSync(path);
    const view = new DataView(buffer, byteOffset);
    const first = SNAPSHOT_HEADER.read(view, headerOf(path).snapshotsOffset);
    expect(first.extraDataSize).to.equal(24);
    const info = JSON.parse(qemuImg('info', '--output=json', path));
    expect(info.snapshots.map((one: { name: string }) => one.name)).to.deep.equal([
      ...['a', 'second', 'third'],
    ]);
  });

  it('keeps extensions and header bytes that it does not know, and clears autoclear bits', async () => {
    const headerTail = Buffer.from('fields of a later day');
    const extensions = [{ type: 0x1234_5678, data: Buffer.from('of who knows what') }];
    const autoclearFeatures = 1n << 40n;
    const compatibleFeatures = 1n << 41n;
    const path = build({
      headerTail,
      extensions,
      header: { autoclearFeatures, compatibleFeatures },
    });
    const before = readHeaderParts(new MemoryStorage(readFileSync(path)));
    await keeps(path, { refcountBits: 8 });
    await keeps(path, { lazyRefcounts: true, size: SIZE / 2 });
    const after = readHeaderParts(new MemoryStorage(readFileSync(path)));
    expect(after.extensions).to.deep.equal(before.extensions);
    expect(Buffer.from(after.fields).includes(headerTail)).to.equal(true);
    const header = headerOf(path);
    expect(header.autoclearFeatures).to.equal(0n);
    expect(header.compatibleFeatures).to.equal(compatibleFeatures | 1n);
  });

  it('keeps bitmaps, and lets them grow', async () => {
    const path = folder.at('image.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', path, '1M');
    qemuImg('bitmap', '--add', path, 'b0');
    const bitmaps = () =>
      JSON.parse(qemuImg('info', '--output=json', path))['format-specific'].data.bitmaps;
    const before = bitmaps();
    await keeps(path, { refcountBits: 4, lazyRefcounts: true });
    expect(bitmaps()).to.deep.equal(before);
    await amend(path, { size: 2 * SIZE });
    expect(headerOf(path).autoclearFeatures).to.equal(1n);
    expect(bitmaps()).to.deep.equal(before);
    expectClean(path);
  });

  it('drops bitmaps with version 3, and leaves nothing of them behind', async () => {
    for (const options of ['cluster_size=4k', AES_OPTIONS]) {
      const path = folder.at('image.qcow2');
      qemuImg('create', '-q', ...SECRET, '-f', 'qcow2', '-o', options, path, `${SIZE}`);
      for (const name of ['b0', 'b1']) qemuImg('bitmap', '--add', ...imageWords(path), name);
      qemuIo(path, 'write -P 1 0 300k', 'write -z 512k 64k');
      const before = qemuRead(path);
      await amend(path, { version: 2 });
      expect(qemuRead(path).equals(before)).to.equal(true);
      const { version, extensions } = headerOf(path);
      expect([version, extensions.bitmaps]).to.deep.equal([2, null]);
      expectClean(path);
    }
  });

  it('changes widths with clusters of any size, and undoes what does not fit', async () => {
    for (const cluster of ['512', '2M']) {
      const path = folder.at(`image-${cluster}.qcow2`);
      const options = `cluster_size=${cluster}`;
      qemuImg('create', '-q', '-f', 'qcow2', '-o', options, path, '1M');
      qemuIo(path, 'write -P 1 0 1M');
      for (const refcountBits of [64, 1, 32, 2, 16]) await keeps(path, { refcountBits });
      qemuImg('snapshot', '-c', 'one', path);
      const before = readFileSync(path).length;
      let message = '';
      await amend(path, { refcountBits: 1 }).catch((error: Error) => {
        message = error.message;
      });
      expect(message).to.match(
        /^Cannot decrease refcount entry width to 1 bits: Cluster at offset 0x/,
      );
      expectClean(path);
      expect(headerOf(path).geometry.refcountBits).to.equal(16);
      expect(readFileSync(path).length).to.be.at.least(before);
    }
  });

  it('changes nothing where a count does not fit, not the version either', async () => {
    const path = folder.at('image.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', path, '1M');
    qemuIo(path, 'write -P 1 0 64k');
    qemuImg('snapshot', '-c', 'one', path);
    const before = readFileSync(path);
    let message = '';
    await amend(path, { version: 3, refcountBits: 1 }).catch((error: Error) => {
      message = error.message;
    });
    expect(message).to.match(/^Cannot decrease refcount entry width to 1 bits/);
    expect(readFileSync(path).equals(before)).to.equal(true);
  });

  it('names another data file, and what is read of it stays', async () => {
    const path = folder.at('image.qcow2');
    const [data, moved] = [folder.at('data.raw'), folder.at('moved.raw')];
    qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${data},data_file_raw=on`, path, '1M');
    qemuIo(path, 'write -P 5 0 1M');
    copyFileSync(data, moved);
    await keeps(path, { dataFile: moved, dataFileRaw: false, refcountBits: 64 });
    expect(headerOf(path).extensions.dataFile).to.equal(moved);
    expect(headerOf(path).autoclearFeatures).to.equal(0n);
    await amend(path, { dataFile: '' });
    const parts = readHeaderParts(new MemoryStorage(readFileSync(path)));
    expect(
      parts.extensions.some(({ data: name }) => Buffer.from(name).equals(Buffer.from(moved))),
    ).to.equal(false);
  });

  it('accepts the backing file that there is, with its format', async () => {
    const base = folder.write('base.raw', pattern(7, SIZE));
    const path = folder.at('image.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', path);
    await keeps(path, { backingFile: base, backingFormat: 'raw', version: 2 });
    for (const wrong of [{ backingFile: base }, { backingFormat: 'raw' }, { backingFile: 'x' }]) {
      let message = '';
      await amend(path, wrong).catch((error: Error) => {
        message = error.message;
      });
      expect(message).to.equal('Cannot amend the backing file');
    }
  });
});

describe('amendSteps()', () => {
  const folder = useTempFolder();
  printSeed();

  const REQUESTS: readonly AmendRequest[] = [
    { version: 2, refcountBits: 16 },
    { version: 3, refcountBits: 64, lazyRefcounts: true },
    { version: 3, refcountBits: 8, size: 1 << 21 },
  ];

  /** The host fails at the write after so many. True where it came to that. */
  function failAt(path: string, writes: number, request: AmendRequest): boolean {
    const { description } = openImage(path, { writable: true, lock: 'write' });
    try {
      const storage = new FailingStorage(description.layers[0].file.fd, path);
      const attach = (now: typeof description) => {
        const memory = allocateImageMemory(now, { cacheSize: 256 << 10, owners: 1 });
        return new AttachedImage(now, memory, 1, { storage });
      };
      storage.failAfter(writes, writes % 2 === 0 ? 'ENOSPC' : 'EIO', writes % 3 === 0);
      try {
        for (const _ of amendSteps({ storage, description, attach }, request));
      } catch {
        // What is left of the image is looked at.
      }
      return storage.failures > 0;
    } finally {
      closeImage(description);
    }
  }

  it('leaves the disk as it was, whichever write fails', () => {
    const random = new Random(SEED);
    for (const request of REQUESTS) {
      const path = makeImage(folder.path, random);
      const kept = folder.at('kept.qcow2');
      copyFileSync(path, kept);
      const before = contentsOf(path);
      for (let writes = 0; ; writes += 1 + random.below(4 + writes)) {
        copyFileSync(kept, path);
        if (!failAt(path, writes, request)) break;
        const what = `${JSON.stringify(request)} write ${writes}`;
        const now = contentsOf(path);
        const common = Math.min(now.disk.length, before.disk.length);
        expect(difference(before, now, common), what).to.equal(null);
        // Opened for writing, it is repaired where it says so.
        const { description } = openImage(path, { writable: true, lock: 'write' });
        closeImage(description);
        expectClean(path, true);
      }
    }
  });

  it('leaves the image clean where it is stopped', async () => {
    const random = new Random(SEED);
    for (let n = 0; n < 6; n++) {
      const path = makeImage(folder.path, random);
      const before = contentsOf(path);
      for (const request of [
        { version: 3, refcountBits: 32 },
        { version: 2, refcountBits: 16 },
      ] as const) {
        const disk = await openDisk(path, { writable: true });
        let left = random.below(20);
        const advance = async () => {
          if (left-- === 0) throw new Cancelled();
        };
        try {
          await amendImage(disk, request, { advance });
        } catch (error) {
          expect(error).to.be.instanceOf(Error);
        } finally {
          disk.abandon();
        }
        expectClean(path);
        expect(difference(before, contentsOf(path), SIZE)).to.equal(null);
      }
    }
  });
});
