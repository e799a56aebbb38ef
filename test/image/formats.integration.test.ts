/** Images of other formats than qcow2 and raw: what QEMU has made reads the same, and is told the same. */
import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { KeyRing } from '#src/image/crypto/key-ring.js';
import { openImage } from '#src/image/open.js';
import { expectImageError } from '../helpers/errors.js';
import { runInProcess } from '../helpers/in-process.js';
import { qemuImg, tryQemuImg, tryQemuIo } from '../helpers/qemu.js';
import { readImage } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';

interface Made {
  readonly format: string;
  readonly options?: string;
  readonly compressed?: boolean;
}

const MADE: readonly Made[] = [
  { format: 'qed' },
  { format: 'qed', options: 'cluster_size=4k,table_size=2' },
  { format: 'qcow' },
  { format: 'qcow', compressed: true },
];

/** Writes that make fragments, zeroes, and parts of clusters. */
const WRITES = [
  'write -P 1 0 70k',
  'write -P 2 3M 512',
  'write -P 3 1M 3k',
  'write -z 2M 128k',
  'write -P 4 5120k 300k',
  'write -P 5 6143k 1k',
];

describe('images of other formats', () => {
  const temp = useTempFolder();

  function writeTo(path: string, format: string, writes: readonly string[]): void {
    const words = writes.flatMap((write) => ['-c', write]);
    expect(tryQemuIo('-f', format, ...words, path).status).to.equal(0);
  }

  function sourceDisk(): string {
    const path = temp.at('source');
    qemuImg('create', '-q', '-f', 'raw', path, '6M');
    writeTo(path, 'raw', WRITES);
    return path;
  }

  async function same(words: readonly string[]): Promise<void> {
    const { status, stdout, stderr } = tryQemuImg(...words);
    const theirs = { status, stdout, stderr };
    expect(await runInProcess(words, temp.path), words.join(' ')).to.deep.equal(theirs);
  }

  for (const { format, options, compressed = false } of MADE) {
    it(`${format} ${options ?? ''}${compressed ? ' compressed' : ''}`, async () => {
      const [source, image] = [sourceDisk(), temp.at('image')];
      const how = options === undefined ? [] : ['-o', options];
      const words = ['convert', ...(compressed ? ['-c'] : []), '-f', 'raw', '-O', format, ...how];
      // QEMU 7.2 ends with 1 where it has compressed to qcow, and says nothing; the image is whole.
      const { stderr } = tryQemuImg(...words, source, image);
      expect(stderr).to.equal('');
      for (const command of ['info', 'map', 'check']) {
        await same([command, '--output=json', image]);
        await same([command, image]);
      }
      expect(readImage(image).equals(readFileSync(source))).to.equal(true);
    });
  }

  for (const format of ['qed', 'qcow']) {
    it(`${format} over a backing file, and below an image`, async () => {
      const [base, middle, top] = [temp.at('base'), temp.at(`middle.${format}`), temp.at('top')];
      qemuImg('convert', '-f', 'raw', '-O', 'qcow2', sourceDisk(), base);
      qemuImg('create', '-q', '-f', format, '-b', base, '-F', 'qcow2', middle);
      writeTo(middle, format, ['write -P 9 64k 5k', 'write -P 8 4M 100k']);
      qemuImg('create', '-q', '-f', 'qcow2', '-b', middle, '-F', format, top);
      await same(['map', '--output=json', top]);
      await same(['info', middle]);
      const raw = temp.at('raw');
      qemuImg('convert', '-O', 'raw', top, raw);
      expect(readImage(top).equals(readFileSync(raw))).to.equal(true);
    });
  }

  it('encrypted qcow, by its passphrase', async () => {
    const secret = ['--object', 'secret,id=s,data=key'];
    const [source, image] = [sourceDisk(), temp.at('encrypted')];
    const options = ['-o', 'encrypt.format=aes,encrypt.key-secret=s'];
    qemuImg('convert', ...secret, '-f', 'raw', '-O', 'qcow', ...options, source, image);
    const name = `driver=qcow,file.filename=${image},encrypt.key-secret=s`;
    await same(['compare', ...secret, '--image-opts', name, `driver=raw,file.filename=${source}`]);
    await same(['info', image]);
    await same(['map', image]);
    const keys = new KeyRing({ passphrases: [Buffer.from('key')] });
    const { description } = openImage({ path: image, filename: image, keys });
    expect(description.layers[0].format).to.equal('qcow');
  });

  it('are not written to', () => {
    for (const format of ['qed', 'qcow']) {
      const path = temp.at(`read-only.${format}`);
      qemuImg('create', '-q', '-f', format, path, '1M');
      expectImageError('ENOTSUP', /are read-only/, () =>
        openImage(path, { writable: true, lock: 'write' }),
      );
    }
  });
});
