/** The tree over images that the builder makes, without a kernel. */
import { fstatSync, truncateSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { AttachedImage } from '#src/image/attach.js';
import type { ImageDescription } from '#src/image/description.js';
import { allocateImageMemory } from '#src/image/memory.js';
import { closeImage, openImage } from '#src/image/open.js';
import { gatherFacts, type MountFacts } from '#src/mount/facts.js';
import { Operations } from '#src/mount/operations.js';
import { allocateStatus } from '#src/mount/status.js';
import { Tree } from '#src/mount/tree.js';
import { MIN_CACHE_SIZE } from '#src/shared/slice-cache.js';
import { expectImageError } from '../helpers/errors.js';
import { writeImage } from '../helpers/image-builder.js';
import type { ClusterSpec, ImageSpec } from '../helpers/image-spec.js';
import { useTempFolder } from '../helpers/temp.js';

const ROOT = 1;
const CLUSTER = 64 << 10;
const SIZE = 16 * CLUSTER;

/** An MBR with one partition, from sector 128 on. */
function mbr(sectors: number): Uint8Array {
  const bytes = Buffer.alloc(512);
  bytes[446 + 4] = 0x83;
  bytes.writeUInt32LE(128, 446 + 8);
  bytes.writeUInt32LE(sectors, 446 + 12);
  bytes.writeUInt16LE(0xaa55, 510);
  return bytes;
}

function dataOf(...clusters: [number, Uint8Array][]): Map<number, ClusterSpec> {
  return new Map(clusters.map(([at, bytes]) => [at, { kind: 'data', bytes }]));
}

describe('Tree', () => {
  const folder = useTempFolder();
  const opened: ImageDescription[] = [];
  afterEach(() => {
    for (const description of opened.splice(0)) closeImage(description);
  });

  /** Operations on the image at a path, as a worker would have them. */
  function open(path: string, change: Partial<MountFacts> = {}) {
    const { description } = openImage(path, {});
    opened.push(description);
    const of = { info: '{}', imageName: path, stem: 'vm' };
    const rest = { ...of, status: allocateStatus(1, new Map()), snapshot: null, rootIsFile: false };
    const facts = { ...gatherFacts(description, {}, { ...rest, ...change }), ...change };
    const memory = allocateImageMemory(description, { cacheSize: MIN_CACHE_SIZE, owners: 1 });
    const image = new AttachedImage(description, memory, 1);
    const operations = new Operations(new Tree(image, facts));
    // Nobody writes: everything happens within the image.
    operations.enter();
    return { operations, image, facts, description };
  }

  function build(spec: ImageSpec, change: Partial<MountFacts> = {}) {
    const path = folder.at('vm.qcow2');
    writeImage(path, spec);
    return open(path, change);
  }

  function nodeAt(operations: Operations, path: string) {
    let id = ROOT;
    for (const name of path.split('/')) id = operations.lookup(id, name).id;
    return operations.node(id);
  }

  function xattrsAt(operations: Operations, path: string): Record<string, string> {
    const { id } = nodeAt(operations, path);
    const names = operations.listxattr(id);
    return Object.fromEntries(
      names.map((name) => [name.replace('user.qcow2.', ''), operations.getxattr(id, name)]),
    );
  }

  /** Reads a listing one entry a time, as a small buffer makes it be. */
  function namesIn(operations: Operations, id: number): string[] {
    const names: string[] = [];
    for (let at = 0; ; ) {
      const [entry] = operations.readdir(id, at);
      if (entry === undefined) return names;
      expect(entry.next).to.be.above(at);
      names.push(entry.name);
      expect(operations.lookup(id, entry.name).id, entry.name).to.equal(entry.id);
      at = entry.next;
    }
  }

  describe('st_blocks', () => {
    it('of an overlay with nothing of its own is not 0 where the base has data', () => {
      const base = Buffer.alloc(SIZE, 7);
      base.set(mbr(128));
      writeFileSync(folder.at('base.raw'), base);
      const { operations } = build({
        size: SIZE,
        backing: { name: 'base.raw', format: 'raw' },
        snapshots: [{ id: '1', name: 'sn' }],
      });
      for (const path of ['disk.raw', 'disk.partitions/1.raw', 'disk.snapshots/sn.raw']) {
        expect(nodeAt(operations, path).attributes.blocks, path).to.be.at.least(8);
      }
    });

    it('is 0 where all is a hole', () => {
      writeFileSync(folder.at('base.raw'), '');
      truncateSync(folder.at('base.raw'), SIZE);
      const { operations } = build({
        size: SIZE,
        backing: { name: 'base.raw', format: 'raw' },
        snapshots: [{ id: '1', name: 'sn' }],
      });
      expect(nodeAt(operations, 'disk.snapshots/sn.raw').attributes.blocks).to.equal(0);
    });

    it('is counted by the map where the host cannot tell', () => {
      const spec = { size: SIZE, clusters: dataOf([3, Buffer.alloc(CLUSTER, 1)]) };
      const { operations } = build(spec, { imageBlocks: null });
      expect(nodeAt(operations, 'disk.raw').attributes.blocks).to.equal(CLUSTER / 512);
    });

    it('counts what an external data file takes', () => {
      const whole = [...Array(16).keys()].map((n): [number, Uint8Array] => [
        n,
        Buffer.alloc(CLUSTER, 1),
      ]);
      const { operations, facts, description } = build({
        size: SIZE,
        clusters: dataOf(...whole),
        dataFile: { name: 'data' },
      });
      expect(facts.imageBlocks).to.be.at.least(SIZE / 512);
      expect(facts.imageBlocks).to.be.above(fstatSync(description.layers[0].file.fd).blocks);
      expect(nodeAt(operations, 'disk.raw').attributes.blocks).to.equal(SIZE / 512);
    });
  });

  describe('disk.snapshots', () => {
    const clusters = dataOf([0, mbr(128)]);
    const spec = (count: number): ImageSpec => ({
      size: SIZE,
      snapshots: Array.from({ length: count }, (_, n) => ({
        ...{ id: String(n + 1), name: `s${n}`, clusters },
        ...(n === 1 ? { vmStateSize: 3 } : {}),
      })),
    });

    it('is listed from any place on, with what each snapshot has', () => {
      const { operations } = build(spec(2));
      const { id } = operations.lookup(ROOT, 'disk.snapshots');
      expect(namesIn(operations, id)).to.deep.equal([
        ...['s0.raw', 's0.changed.json', 's0.partitions'],
        ...['s1.raw', 's1.vmstate', 's1.changed.json', 's1.partitions'],
      ]);
      expectImageError('ENOENT', /no node/, () => operations.lookup(id, 's0.vmstate'));
      expectImageError('ENOENT', /no file/, () => operations.lookup(id, 's2.raw'));
      expectImageError('ENOENT', /no file/, () => operations.lookup(id, 's0.'));
    });

    it('finds a name without reading any disk', () => {
      const { operations, image } = build(spec(3));
      const { id } = operations.lookup(ROOT, 'disk.snapshots');
      const touched: number[] = [];
      const original = image.snapshotDisk.bind(image);
      image.snapshotDisk = (view) => {
        touched.push(view);
        return original(view);
      };
      operations.lookup(id, 's2.raw');
      expect(touched).to.deep.equal([3]);
    });

    it('with many snapshots lists no folders of partitions, and finds them', () => {
      const { operations } = build(spec(257));
      const { id } = operations.lookup(ROOT, 'disk.snapshots');
      const names = namesIn(operations, id);
      expect(names).to.have.lengthOf(2 * 257 + 1);
      expect(names.filter((name) => name.endsWith('.partitions'))).to.deep.equal([]);
      const partitions = operations.lookup(id, 's200.partitions');
      expect(namesIn(operations, partitions.id)).to.deep.equal(['1.raw']);
    });
  });

  describe('a snapshot mounted as the disk', () => {
    const spec: ImageSpec = {
      size: SIZE,
      snapshots: [
        { id: '1', name: 'one' },
        {
          ...{ id: '2', name: 'two', diskSize: 4 * CLUSTER, clusters: dataOf([0, mbr(8)]) },
          fields: { dateSec: 1234, dateNsec: 56 },
        },
      ],
    };

    it('is described by the attributes of the disk', () => {
      const { operations } = build(spec, { snapshot: 1 });
      for (const path of ['disk.raw', 'disk.partitions/1.raw', 'disk.partitions']) {
        const { attributes } = nodeAt(operations, path);
        expect(attributes.mtime, path).to.deep.equal({ sec: 1234, nsec: 56 });
        expect(xattrsAt(operations, path), path).to.include({ 'snapshot.name': 'two' });
      }
      expect(nodeAt(operations, 'disk.raw').attributes.size).to.equal(4 * CLUSTER);
      const sized = { 'virtual-size': String(4 * CLUSTER) };
      expect(xattrsAt(operations, 'disk.raw')).to.include(sized);
      expectImageError('ENOENT', /no node/, () => operations.lookup(ROOT, 'disk.snapshots'));
    });

    it('has its own virtual size as a file in the folder, too', () => {
      const { operations } = build(spec);
      const sized = (size: number) => ({ 'virtual-size': String(size) });
      expect(xattrsAt(operations, 'disk.snapshots/two.raw')).to.include(sized(4 * CLUSTER));
      expect(xattrsAt(operations, 'disk.raw')).to.include(sized(SIZE));
      expect(xattrsAt(operations, 'disk.raw')).to.not.have.property('snapshot.name');
    });
  });

  it('tells of the partition table on its folder', () => {
    // The partition is cut to the disk, with a warning.
    const { operations } = build({ size: SIZE, clusters: dataOf([0, mbr(1 << 20)]) });
    expect(xattrsAt(operations, 'disk.partitions')).to.include({
      'partition-table': 'mbr',
      'partition-warnings': 'partition 1 reaches past the end of the disk: cut',
    });
    expect(xattrsAt(operations, 'disk.raw')).to.not.have.property('partition-table');
  });

  it('counts links of folders where that is cheap', () => {
    const { operations } = build({
      size: SIZE,
      clusters: dataOf([0, mbr(8)]),
      snapshots: [{ id: '1', name: 'one' }],
    });
    expect(operations.node(ROOT).attributes.nlink).to.equal(4);
    expect(nodeAt(operations, 'disk.partitions').attributes.nlink).to.equal(2);
    expect(nodeAt(operations, 'disk.snapshots').attributes.nlink).to.equal(1);
    expect(nodeAt(operations, 'disk.raw').attributes.nlink).to.equal(1);
  });

  it('has nothing that can be executed but folders', () => {
    const { operations } = build({ size: SIZE }, { fileMode: 0o444, directoryMode: 0o555 });
    const { id } = operations.lookup(ROOT, 'disk.raw');
    operations.access(ROOT, 1);
    operations.access(id, 4);
    expectImageError('EACCES', /not executable/, () => operations.access(id, 1));
    expectImageError('EROFS', /read-only/, () => operations.access(id, 2));
  });

  it('finds the names of the image itself, unlisted', () => {
    const { operations } = build({ size: SIZE });
    const disk = operations.lookup(ROOT, 'disk.raw');
    expect(operations.lookup(ROOT, 'vm.raw').id).to.equal(disk.id);
    expect(namesIn(operations, ROOT)).to.deep.equal([
      ...['disk.raw', 'disk.snapshots', 'disk.info.json'],
    ]);
  });
});
