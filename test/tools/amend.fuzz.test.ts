/**
 * Random images amended at random, as QEMU amends copies of them: the same facts and the same
 * refusals; nothing that is read changes, and nothing leaks. (What QEMU's copies read is not compared: its
 * downgrade writes zeroes over data that a snapshot shares with a zero cluster.)
 */
import { copyFileSync } from 'node:fs';
import { expect } from 'chai';
import { ImageError } from '#src/errors.js';
import { type AmendRequest, amendImage } from '#src/tools/amend.js';
import { openDisk } from '#src/tools/open-disk.js';
import { NO_PROGRESS } from '#src/tools/progress.js';
import { contentsOf, difference, makeImage } from '../helpers/amend-images.js';
import { qemuImg, tryQemuImg } from '../helpers/qemu.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { useTempFolder } from '../helpers/temp.js';

const IMAGES = 8;
const AMENDMENTS = 5;
const SIZES = [1 << 20, 1 << 20, 1 << 20, 3 << 19, 1 << 19, (1 << 20) + 1];

function randomRequest(random: Random): AmendRequest {
  const request: { -readonly [K in keyof AmendRequest]: AmendRequest[K] } = {};
  if (random.chance(0.6)) request.version = random.pick([2, 3]);
  if (random.chance(0.5)) request.refcountBits = random.pick([1, 2, 4, 8, 16, 16, 32, 64, 24]);
  if (random.chance(0.2)) request.lazyRefcounts = random.pick([true, false]);
  if (random.chance(0.2)) request.size = random.pick(SIZES);
  return request;
}

/** The same as words of `qemu-img amend -o`. */
function optionWords({ version, refcountBits, lazyRefcounts, size }: AmendRequest): string {
  return [
    version === undefined ? [] : [`compat=${version === 2 ? '0.10' : '1.1'}`],
    refcountBits === undefined ? [] : [`refcount_bits=${refcountBits}`],
    lazyRefcounts === undefined ? [] : [`lazy_refcounts=${lazyRefcounts ? 'on' : 'off'}`],
    size === undefined ? [] : [`size=${size}`],
  ]
    .flat()
    .join();
}

async function amend(path: string, request: AmendRequest): Promise<string> {
  const disk = await openDisk(path, { writable: true });
  try {
    await amendImage(disk, request, NO_PROGRESS);
    return '';
  } catch (error) {
    if (error instanceof ImageError) return error.message;
    throw error;
  } finally {
    disk.abandon();
  }
}

function factsOf(path: string): object {
  const info = JSON.parse(qemuImg('info', '--output=json', path)) as Record<string, unknown>;
  const { 'format-specific': specific, 'virtual-size': size, snapshots } = info;
  return { specific, size, snapshots };
}

describe('amendImage()', () => {
  printSeed();
  const folder = useTempFolder();

  for (let n = 0; n < IMAGES; n++) {
    it(`amends a random image as QEMU does, and changes nothing that is read (${n})`, async () => {
      const random = new Random(SEED + n);
      const path = makeImage(folder.path, random);
      const before = contentsOf(path);
      const done: string[] = [];
      for (let m = 0; m < AMENDMENTS; m++) {
        const request = randomRequest(random);
        const options = optionWords(request);
        if (options === '') continue;
        const copy = `${path}.copy`;
        copyFileSync(path, copy);
        const { stderr } = tryQemuImg('amend', '-t', 'unsafe', '-o', options, copy);
        const message = await amend(path, request);
        done.push(options);
        const what = done.join(' | ');
        const problem = stderr.trimEnd().replace(/^qemu-img: /, '');
        // QEMU finds what is wrong with a size when all else is done, and we before anything is.
        const either = problem !== '' && request.size !== undefined && message !== '';
        if (!either) expect(message, what).to.equal(problem);
        const check = tryQemuImg('check', path);
        expect(check.status, `${what}\n${check.stdout}${check.stderr}`).to.equal(0);
        // Where QEMU refuses, it may have done a part of it.
        if (message === '') expect(factsOf(path), what).to.deep.equal(factsOf(copy));
        const now = contentsOf(path);
        const common = Math.min(before.disk.length, now.disk.length);
        expect(difference(before, now, common), what).to.equal(null);
        if (now.disk.length !== before.disk.length) break;
      }
    });
  }
});
