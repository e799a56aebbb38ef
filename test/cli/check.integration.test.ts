/** `check` by our executable, called by a link named qemu-img, and by QEMU's: what they print, and exit with. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { DAMAGES, damaged } from '../helpers/check-damage.js';
import { writeImage } from '../helpers/image-builder.js';
import { CLI } from '../helpers/mount.js';
import { pattern } from '../helpers/random.js';
import { useTempFolder } from '../helpers/temp.js';

const LINES = [
  'check',
  'check clean leaks',
  'check clean',
  'check -q clean',
  'check --output=json clean',
  'check -f qcow2 clean',
  'check --format=qcow2 -U clean',
  'check -T none clean',
  'check -T nonsense clean',
  'check --output=xml clean',
  'check -x clean',
  'check -r',
  'check -r some clean',
  'check -U -r all clean',
  'check leaks',
  'check -q leaks',
  'check --output=json leaks',
  'check -q --output=json leaks',
  'check --output=json -r leaks leaks',
  'check -q -r all leaks',
  'check --repair=all leaks',
  'check corrupt',
  'check --output=json corrupt',
  'check -r leaks corrupt',
  'check --output=json -r all corrupt',
  'check snapshots',
  'check --output=json snapshots',
  'check raw',
  'check --output=json raw',
  'check -r all raw',
  'check -f raw clean',
  'check -f nonsense clean',
  'check nothing',
  'check --image-opts driver=qcow2,file.filename=clean',
  'check --image-opts -f qcow2 driver=qcow2,file.filename=clean',
  'check --image-opts --output=json driver=qcow2,file.filename=leaks',
  'check json:{"driver":"qcow2","file":{"driver":"file","filename":"clean"}}',
  'check external',
  'check --output=json external',
  'check external-flags',
  'check -r all external-flags',
];

describe('check by the words of qemu-img', () => {
  const temp = useTempFolder();

  function makeImages(): void {
    const named = {
      leaks: 'a leak',
      corrupt: 'one cluster twice',
      snapshots: 'too much extra data',
    };
    writeFileSync(temp.at('clean'), damaged(DAMAGES[0]!).whole);
    for (const [name, damage] of Object.entries(named)) {
      const test = DAMAGES.find((candidate) => candidate.name === damage)!;
      writeFileSync(temp.at(name), damaged(test).bytes);
    }
    writeFileSync(temp.at('raw'), pattern(1, 1 << 16));
    const clusters = new Map([0, 1, 5].map((n) => [n, { kind: 'data', bytes: pattern(n, 9) }]));
    const spec = { size: 1 << 20, clusters, dataFile: { name: 'data' } } as const;
    const { bytes, places } = writeImage(temp.at('external'), spec as never);
    bytes[places.l2Tables.get(0)!]! &= 0x7f;
    bytes[places.l2Tables.get(0)! + 8]! &= 0x7f;
    writeFileSync(temp.at('external-flags'), bytes);
  }

  function run(tool: string, line: string) {
    const words = line.split(' ');
    const saved = temp.at('saved');
    const image = words.at(-1)!;
    const changes = line.includes('-r') && ['leaks', 'corrupt', 'external-flags'].includes(image);
    if (changes) copyFileSync(temp.at(image), saved);
    const { status, stdout, stderr } = spawnSync(tool, words, { cwd: temp.path, encoding: 'utf8' });
    if (changes) copyFileSync(saved, temp.at(image));
    return { status, stdout, stderr };
  }

  it('prints the same, and exits with the same', () => {
    makeImages();
    const link = join(temp.path, 'qemu-img');
    symlinkSync(CLI, link);
    const different = LINES.filter((line) => {
      const [ours, theirs] = [run(link, line), run('qemu-img', line)];
      try {
        expect(ours).to.deep.equal(theirs);
        return false;
      } catch {
        process.stderr.write(`${line}\n${JSON.stringify({ ours, theirs }, null, 1)}\n`);
        return true;
      }
    });
    expect(different).to.deep.equal([]);
  });

  it('says so in its own name, too', () => {
    makeImages();
    const { status, stderr } = spawnSync(CLI, ['check', temp.at('raw')], { encoding: 'utf8' });
    expect(status).to.equal(63);
    expect(stderr).to.equal('qcow2fs: This image format does not support checks\n');
  });
});
