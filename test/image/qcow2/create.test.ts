import {
  closeSync,
  constants,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { expect } from 'chai';
import { createOverlay, formatImage, planImage } from '#src/image/qcow2/create.js';
import type { Qcow2Options } from '#src/image/qcow2/create-options.js';
import { readHeader } from '#src/image/qcow2/header.js';
import { MemoryStorage } from '#src/storage/memory.js';
import { expectImageError } from '../../helpers/errors.js';
import { qemuImg, qemuIo, qemuRead } from '../../helpers/qemu.js';
import { pattern } from '../../helpers/random.js';
import { readImage } from '../../helpers/read.js';
import { useTempFolder } from '../../helpers/temp.js';

const TB = 2 ** 40;

/** What these tests look at in the output of `qemu-img info`. */
interface QemuInfo {
  readonly 'virtual-size': number;
  readonly 'cluster-size': number;
  readonly 'backing-filename'?: string;
  readonly 'backing-filename-format'?: string;
  readonly 'format-specific': { readonly data: Readonly<Record<string, unknown>> };
}

describe('createOverlay()', () => {
  const temp = useTempFolder();

  /** Creates an image, has QEMU check it, and answers what QEMU tells of it. */
  function created(options: Qcow2Options): QemuInfo {
    const path = temp.at('new.qcow2');
    createOverlay(path, options);
    expect(qemuImg('check', path)).to.contain('No errors were found');
    return JSON.parse(qemuImg('info', '--output=json', path));
  }

  const sizes = [0, 1, 512, 65536, 1 << 29, (1 << 29) + 1, 2 ** 40 + 512, 2 ** 50, 2 ** 51];
  for (const size of sizes) {
    it(`makes an image of ${size} bytes that QEMU finds in order`, () => {
      const info = created({ size });
      expect(info['virtual-size']).to.equal(Math.ceil(size / 512) * 512);
      expect(info['cluster-size']).to.equal(65536);
      expect(info['format-specific'].data).to.deep.equal({
        compat: '1.1',
        'compression-type': 'zlib',
        'lazy-refcounts': false,
        'refcount-bits': 16,
        corrupt: false,
        'extended-l2': false,
      });
    });
  }

  for (const [clusterSize, size] of [
    [512, 2 ** 20],
    [512, 2 ** 37],
    [4096, TB],
    [2 ** 21, 0],
    [2 ** 21, 2 ** 50],
  ] as const) {
    it(`makes one of ${size} bytes in clusters of ${clusterSize}, which QEMU writes to`, () => {
      expect(created({ size, clusterSize })['cluster-size']).to.equal(clusterSize);
      if (size === 0) return;
      const path = temp.at('new.qcow2');
      qemuIo(
        path,
        `write -P 7 ${size - 512} 512`,
        'write -P 8 0 4k',
        `read -P 7 ${size - 512} 512`,
      );
      expect(qemuImg('check', path)).to.contain('No errors were found');
    });
  }

  it('shows what its backing file holds, to QEMU and to us', () => {
    const bytes = pattern(5, 1 << 20);
    const base = temp.write('base.raw', bytes);
    const info = created({ size: bytes.length, backingFile: base, backingFormat: 'raw' });
    expect(info['backing-filename']).to.equal(base);
    expect(info['backing-filename-format']).to.equal('raw');
    const path = temp.at('new.qcow2');
    expect(qemuImg('compare', path, base)).to.contain('identical');
    expect(qemuRead(path).equals(bytes)).to.equal(true);
    expect(readImage(path).equals(bytes)).to.equal(true);
    qemuIo(path, 'write -P 1 64k 4k', 'read -P 1 64k 4k');
    expect(qemuImg('check', path)).to.contain('No errors were found');
    expect(readFileSync(base).equals(bytes)).to.equal(true);
  });

  it('keeps loose refcounts where asked to', () => {
    const info = created({ size: TB, lazyRefcounts: true });
    expect(info['format-specific'].data['lazy-refcounts']).to.equal(true);
  });

  it('names a backing file as long as there is room for it', async () => {
    const backing = (length: number) => ({ backingFile: 'x'.repeat(length), backingFormat: 'raw' });
    for (const [clusterSize, most] of [
      [65536, 1023],
      [1024, 1024 - 136],
      [512, 512 - 136],
    ] as const) {
      const full = new MemoryStorage(new Uint8Array());
      const plan = planImage({ size: 512, clusterSize, ...backing(most) });
      await formatImage(full, plan, { blank: true, advance: async () => {} });
      expect(readHeader(full).backingFile).to.have.lengthOf(most);
      const code = most === 1023 ? 'EINVAL' : 'ENOSPC';
      expectImageError(code, /Could not assign backing file 'x+' with format 'raw'/, () =>
        planImage({ size: 512, clusterSize, ...backing(most + 1) }),
      );
    }
  });

  const refusals: [options: Qcow2Options, code: 'EINVAL' | 'EFBIG', message: RegExp][] = [
    [{ size: 2 ** 51 + 1 }, 'EFBIG', /too large for file format 'qcow2'/],
    [{ size: 2 ** 38, clusterSize: 512 }, 'EFBIG', /try using a larger cluster size/],
    [{ size: -1 }, 'EINVAL', /Invalid image size -1/],
    [{ size: 2 ** 53 }, 'EFBIG', /too large/],
    [{ size: 0, clusterSize: 256 }, 'EINVAL', /Cluster size must be a power of two/],
    [{ size: 0, clusterSize: 2 ** 22 }, 'EINVAL', /Cluster size/],
    [{ size: 0, clusterSize: 1000 }, 'EINVAL', /Cluster size/],
    [{ size: 0, clusterSize: Number.NaN }, 'EINVAL', /Cluster size/],
    [{ size: 0, backingFile: 'x' }, 'EINVAL', /without backing format/],
    [{ size: 0, backingFile: 'a\0b', backingFormat: 'raw' }, 'EINVAL', /holds a NUL/],
    [
      { size: 0, backingFile: 'x'.repeat(1024), backingFormat: 'raw' },
      'EINVAL',
      /Invalid argument/,
    ],
  ];
  for (const [options, code, message] of refusals) {
    it(`refuses ${JSON.stringify(options).slice(0, 60)}, and leaves no file`, () => {
      expectImageError(code, message, () => createOverlay(temp.at('new'), options));
      expect(readdirSync(temp.path)).to.deep.equal([]);
    });
  }

  it('never writes to a file that exists, nor through a link', () => {
    const path = temp.write('file', 'precious');
    symlinkSync('nowhere', temp.at('link'));
    const before = readdirSync('/proc/self/fd').length;
    for (const name of ['file', 'link']) {
      expect(() => createOverlay(temp.at(name), { size: 512 })).to.throw('EEXIST');
    }
    const fd = openSync(path, 'r+');
    expectImageError('EEXIST', /not empty/, () => createOverlay(fd, { size: 512 }));
    closeSync(fd);
    expect(readFileSync(path, 'utf8')).to.equal('precious');
    expect(readdirSync(temp.path).sort()).to.deep.equal(['file', 'link']);
    expect(readdirSync('/proc/self/fd').length, 'open descriptors').to.equal(before);
  });

  it('takes an open file, and makes files that only their owner reads', () => {
    const { O_RDWR, O_CREAT, O_EXCL } = constants;
    const fd = openSync(temp.at('open'), O_RDWR | O_CREAT | O_EXCL);
    createOverlay(fd, { size: TB });
    closeSync(fd);
    expect(qemuImg('check', temp.at('open'))).to.contain('No errors were found');
    created({ size: 512 });
    expect(statSync(temp.at('new.qcow2')).mode & 0o777).to.equal(0o600);
  });
});
