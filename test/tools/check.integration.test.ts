/** `check` held against qemu-img: what it finds, and what its repairs leave, on images damaged on purpose. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { readHeader } from '#src/image/qcow2/header.js';
import { MemoryStorage } from '#src/storage/memory.js';
import { CLUSTER, DAMAGES, type DamageCase, damaged } from '../helpers/check-damage.js';
import { lostClusters, ourCheck, readableClusters } from '../helpers/check-run.js';
import { tryQemuImg, type ToolResult } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

/** All clusters that have a count are the same; QEMU punches holes where none is left. */
function expectSameInUse(ours: Buffer, theirs: Buffer): void {
  if (ours.equals(theirs)) return;
  expect(ours.length).to.equal(theirs.length);
  const header = readHeader(new MemoryStorage(ours), 'check');
  const { clusterSize, refcountBits } = header.geometry;
  const block = Number(ours.readBigUInt64BE(header.refcountTableOffset));
  for (let at = 0; at < ours.length; at += clusterSize) {
    const index = at / clusterSize;
    if (refcountBits === 16 && ours.readUInt16BE(block + index * 2) === 0) continue;
    const [mine, other] = [ours, theirs].map((bytes) => bytes.subarray(at, at + clusterSize));
    expect(mine!.equals(other!), `cluster ${index}`).to.equal(true);
  }
}

/** Less what QEMU's own guard says where it stops a repair, and whether the image is marked then. */
function plainWords({ status, stdout, stderr }: ToolResult): ToolResult {
  const said = stderr
    .replace(/^qcow2: .*Preventing invalid write.*\n/m, '')
    .replace('Marking image as corrupt', 'Image is corrupt');
  return {
    status,
    stdout,
    stderr: said.replace('; further corruption', '; further non-fatal corruption'),
  };
}

describe('check() and qemu-img check', () => {
  const temp = useTempFolder();

  function theirCheck(path: string, ...words: string[]): ToolResult {
    return plainWords(tryQemuImg('check', ...words, path));
  }

  /** The image, without the bits that say that it is not in order. */
  function expectNothingLost(before: Map<string, Buffer>, path: string, whole: Buffer): void {
    const after = readableClusters(path, CLUSTER);
    const truth = readableClusters(temp.write('whole', whole), CLUSTER);
    expect(lostClusters(before, truth, after)).to.deep.equal([]);
  }

  function expectRepaired(test: DamageCase): void {
    const { bytes, whole } = damaged(test);
    const path = temp.write('ours', bytes);
    const before = readableClusters(path, CLUSTER);
    const ours = ourCheck(path, 'all');
    const after = ourCheck(path);
    expect(theirCheck(path), 'checked by both afterwards').to.deep.equal(after);
    expectNothingLost(before, path, whole);
    if (test.all === 'better') {
      expect(after.status, ours.stderr).to.equal(0);
      return;
    }
    const other = temp.write('theirs', bytes);
    const theirs = theirCheck(other, '-r', 'all');
    expect(ours.status).to.equal(theirs.status);
    expect(theirCheck(other).status, 'afterwards').to.equal(after.status);
    if (test.all === 'moves' || test.all === 'careful') return;
    expect({ ...ours, stderr: ours.stderr.replaceAll(path, other) }).to.deep.equal(theirs);
    expectSameInUse(readFileSync(path), readFileSync(other));
  }

  for (const test of DAMAGES) {
    it(`finds and repairs ${test.name}`, () => {
      const { bytes } = damaged(test);
      const path = temp.write('image', bytes);
      const ours = ourCheck(path);
      if (test.checked === undefined) expect(ours).to.deep.equal(theirCheck(path));
      else expect(ours.status).to.equal(test.checked);
      expect(readFileSync(path).equals(bytes), 'unchanged').to.equal(true);

      const leaks = ourCheck(path, 'leaks');
      writeFileSync(path, bytes);
      if (test.checked === undefined && test.all !== 'careful') {
        expect(leaks).to.deep.equal(theirCheck(path, '-r', 'leaks'));
      }

      expectRepaired(test);
    });
  }
});
