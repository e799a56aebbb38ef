import { readFileSync, statSync } from 'node:fs';
import { expect } from 'chai';
import { isExpected } from '#src/errors.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { useTempFolder } from '../helpers/temp.js';
import { type WritableImage, withWritable } from '../helpers/writable-image.js';

/** More for long runs. */
const IMAGES = Number(process.env.QCOW2FS_FUZZ_IMAGES ?? 90);
const SECTOR = 512;
const CLUSTER = 4096;
/** Bytes that an image can come to have by what is done to it. */
const MOST = 1 << 30;

/** Images that somebody damaged, opened for writing: errors are told, and nothing else happens. */
describe('writing to damaged images', () => {
  printSeed();
  const folder = useTempFolder();

  for (const [format, options] of [
    ['qcow2', 'cluster_size=512'],
    ['qcow2', 'cluster_size=4k,compat=0.10'],
    ['qcow2', 'cluster_size=4k,refcount_bits=1'],
    ['qcow2', 'cluster_size=16k,extended_l2=on,lazy_refcounts=on'],
    ['qed', 'cluster_size=4k,table_size=2'],
    ['qcow', ''],
  ] as const) {
    it(`fails in words, and ends: ${format} ${options}`, function () {
      this.timeout(600_000);
      const random = new Random(SEED);
      const path = folder.at('whole');
      const how = options === '' ? [] : ['-o', options];
      const size = format === 'qcow2' ? '1M' : '8M';
      qemuImg('create', '-f', format, ...how, path, size);
      qemuIo(path, 'write -P 1 0 200k');
      const snapshots = format === 'qcow2' && !options.includes('refcount_bits=1');
      if (snapshots) qemuImg('snapshot', '-c', 'one', path);
      qemuIo(path, 'write -P 2 100k 200k');
      // Another table.
      if (format !== 'qcow2') qemuIo(path, 'write -P 1 5M 200k');
      const whole = readFileSync(path);
      for (let n = 0; n < IMAGES; n++) {
        const bytes = damaged(whole, random);
        const image = folder.write('damaged', bytes);
        attempt(() => withWritable(image, (opened) => use(opened, random), {}, format));
        if (format === 'qcow2') continue;
        // What a field says is no reason to grow.
        expect(statSync(image).size, `image ${n}`).to.be.below(MOST);
        const [from, to] = format === 'qed' ? [4, 16] : [32, 34];
        if (!bytes.subarray(from, to).equals(whole.subarray(from, to))) continue;
        const after = sharedBytes(readFileSync(image), format);
        const before = sharedBytes(bytes, format);
        expect(after, `image ${n}: bytes in two places`).to.be.at.most(before);
      }
    });
  }
});

/** Bytes that are in more than one place of an image without counts, or lie over its tables. */
function sharedBytes(bytes: Buffer, format: string): number {
  const users = new Uint8Array(bytes.length);
  let shared = 0;
  for (const [offset, length] of places(bytes, format === 'qed')) {
    for (let at = offset; at < Math.min(bytes.length, offset + length); at++) {
      if (users[at]! === 1) shared++;
      users[at] = 1;
    }
  }
  return shared;
}

/** The header, the tables, and what they name that is no compressed data: clusters of 4 KiB. */
function* places(bytes: Buffer, isQed: boolean): Generator<[offset: number, length: number]> {
  const u64 = (at: number): number => {
    if (at + 8 > bytes.length) return 0;
    return Number(isQed ? bytes.readBigUInt64LE(at) : bytes.readBigUInt64BE(at));
  };
  if (bytes.length < 64) return;
  const [l1, l1Bytes, l2Bytes] = isQed ? [u64(40), 8192, 8192] : [u64(40), 32, 4096];
  yield [0, 48];
  yield [l1, l1Bytes];
  for (let at = l1; at < l1 + l1Bytes && at < bytes.length; at += 8) {
    const table = u64(at);
    if (table === 0 || table % CLUSTER !== 0) continue;
    yield [table, l2Bytes];
    for (let entry = table; entry < table + l2Bytes && entry < bytes.length; entry += 8) {
      const offset = u64(entry);
      if (offset > 1 && offset < 2 ** 53 && (offset % CLUSTER === 0 || !isQed))
        yield [offset, CLUSTER];
    }
  }
}

/** Some bytes changed, mostly of tables: what is no data of the guest's. */
function damaged(whole: Buffer, random: Random): Buffer {
  const bytes = Buffer.from(whole);
  const changes = 1 + random.below(6);
  for (let done = 0; done < changes; ) {
    const at = random.below(random.chance(0.3) ? 112 : bytes.length);
    if (bytes[at] === 1 || bytes[at] === 2) {
      if (!random.chance(0.05)) continue;
    }
    bytes[at] = random.chance(0.5) ? bytes[at]! ^ (1 << random.below(8)) : random.below(256);
    done++;
  }
  return random.chance(0.1) ? bytes.subarray(0, random.below(bytes.length)) : bytes;
}

function use({ image, writer }: WritableImage, random: Random): void {
  const buffer = new IoBuffer(64 << 10);
  // A damaged size can be that of petabytes.
  const size = Math.min(image.disk.size, 6 << 20);
  if (size < SECTOR) return;
  for (let n = 0; n < 12; n++) {
    const offset = random.below(size / SECTOR) * SECTOR;
    const length = Math.min(size - offset, SECTOR * (1 + random.below(128)));
    const views = image.snapshots();
    const view = views.length === 0 ? 0 : random.pick(views).view;
    attempt(
      random.pick([
        () => writer.write(offset, length, buffer, 0),
        () => writer.write(offset, length, buffer, 0),
        () => writer.discard(offset, length),
        () => writer.zero(offset, length),
        () => writer.preallocate(offset, length),
        () => writer.resize(SECTOR * (1 + random.below(4096))),
        () => writer.flush(),
        () => writer.createSnapshot(`s${n}`),
        () => writer.deleteSnapshot(view),
        () => writer.revertTo(view),
      ]),
    );
  }
  attempt(() => writer.flushAll());
}

function attempt(body: () => void): void {
  try {
    body();
  } catch (error) {
    if (!isExpected(error)) throw error;
    expect(error.message).to.not.equal('');
  }
}
