import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { isExpected } from '#src/errors.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { useTempFolder } from '../helpers/temp.js';
import { type WritableImage, withWritable } from '../helpers/writable-image.js';

/** More for long runs. */
const IMAGES = Number(process.env.QCOW2FS_FUZZ_IMAGES ?? 150);
const SECTOR = 512;

/** Images that somebody damaged, opened for writing: errors are told, and nothing else happens. */
describe('writing to damaged images', () => {
  printSeed();
  const folder = useTempFolder();

  for (const options of [
    'cluster_size=512',
    'cluster_size=4k,compat=0.10',
    'cluster_size=4k,refcount_bits=1',
    'cluster_size=16k,extended_l2=on,lazy_refcounts=on',
  ]) {
    it(`fails in words, and ends: ${options}`, function () {
      this.timeout(600_000);
      const random = new Random(SEED);
      const path = folder.at('whole.qcow2');
      qemuImg('create', '-f', 'qcow2', '-o', options, path, '1M');
      qemuIo(path, 'write -P 1 0 200k');
      if (!options.includes('refcount_bits=1')) qemuImg('snapshot', '-c', 'one', path);
      qemuIo(path, 'write -P 2 100k 200k');
      const whole = readFileSync(path);
      for (let n = 0; n < IMAGES; n++) {
        const bytes = damaged(whole, random);
        const image = folder.write('damaged.qcow2', bytes);
        attempt(() => withWritable(image, (opened) => use(opened, random)));
      }
    });
  }
});

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
  const size = Math.min(image.disk.size, 1 << 20);
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
