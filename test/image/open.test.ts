import { execFileSync } from 'node:child_process';
import { linkSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs';
import { relative } from 'node:path';
import { expect } from 'chai';
import type { ErrnoName } from '#src/errors.js';
import { MAX_LAYERS, type OpenPolicy, openImage } from '#src/image/open.js';
import { expectImageError } from '../helpers/errors.js';
import { buildImage } from '../helpers/image-builder.js';
import { pattern } from '../helpers/random.js';
import { readImage, withImage } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';

const SIZE = 1 << 16;
const BASE = pattern(9, SIZE);

/** An image of `SIZE` bytes without data of its own. */
function overlay(name?: string, format?: string): Buffer {
  const backing = format === undefined ? { name: name! } : { name: name!, format };
  return buildImage({ size: SIZE, ...(name === undefined ? {} : { backing }) }).bytes;
}

function refuse(code: ErrnoName, message: RegExp, path: string, policy?: OpenPolicy): void {
  const before = readdirSync('/proc/self/fd').length;
  expectImageError(code, message, () => openImage(path, policy));
  expect(readdirSync('/proc/self/fd').length, 'open descriptors').to.equal(before);
}

describe('openImage()', () => {
  const temp = useTempFolder();
  const readsBase = (path: string, policy?: OpenPolicy) =>
    expect(readImage(path, policy).equals(BASE)).to.equal(true);

  describe('of chains', () => {
    it("takes relative names from the overlay's folder", () => {
      mkdirSync(temp.at('sub'));
      temp.write('base', BASE);
      readsBase(temp.write('sub/top', overlay('../base', 'raw')));
      readsBase(relative(process.cwd(), temp.write('top', overlay('base', 'raw'))));
      readsBase(temp.write('absolute', overlay(temp.at('base'), 'raw')));
      readsBase(temp.write('file', overlay(`file:${temp.at('base')}`, 'raw')));
      temp.write('ba:se', BASE);
      readsBase(temp.write('colon', overlay('./ba:se', 'raw')));
    });

    it('lets the system resolve `..` behind a link to a folder', () => {
      mkdirSync(temp.at('real/deep'), { recursive: true });
      symlinkSync('real/deep', temp.at('link'));
      temp.write('real/base', BASE);
      temp.write('base', Buffer.alloc(SIZE));
      temp.write('real/deep/top', overlay('../base', 'raw'));
      readsBase(temp.at('link/top'));
    });

    it('reads through many layers, up to the limit', () => {
      temp.write('0', BASE);
      for (let n = 1; n < MAX_LAYERS; n++) {
        temp.write(`${n}`, overlay(`${n - 1}`, n === 1 ? 'raw' : 'qcow2'));
      }
      readsBase(temp.at(`${MAX_LAYERS - 1}`));
      const path = temp.write('deeper', overlay(`${MAX_LAYERS - 1}`, 'qcow2'));
      refuse('ELOOP', /chain too deep \(in '.*\/0'; at most 256 layers\)/, path);
    });

    it('finds loops by what the files are, and names the file', () => {
      refuse('ELOOP', /open '.*\/self': .*comes back/, temp.write('self', overlay('self')));
      temp.write('b', overlay('c', 'qcow2'));
      temp.write('c', overlay('hard', 'qcow2'));
      const a = temp.write('a', overlay('b', 'qcow2'));
      linkSync(a, temp.at('hard'));
      refuse('ELOOP', /open '.*\/hard': .*comes back/, a);
      symlinkSync('linked', temp.at('soft'));
      refuse('ELOOP', /open '.*\/soft'/, temp.write('linked', overlay('soft', 'qcow2')));
    });

    it('names the layer that is missing or bad', () => {
      temp.write('middle', overlay('missing', 'raw'));
      const path = temp.write('top', overlay('middle', 'qcow2'));
      refuse('ENOENT', /open '.*\/missing': No such file/, path);
      temp.write('missing', 'no image');
      temp.write('middle', overlay('missing', 'qcow2'));
      refuse('EINVAL', /Image is not in qcow2 format \(in '.*missing'\)/, path);
    });

    it('probes a format that is not stated, and warns of it', () => {
      temp.write('base', BASE);
      const path = temp.write('top', overlay('base'));
      readsBase(path);
      withImage(path, ({ warnings }) => {
        expect(warnings).to.have.lengthOf(1);
        expect(warnings[0]).to.match(/base' has no stated format; probed as raw/);
      });
      temp.write('base', buildImage({ size: SIZE }).bytes);
      withImage(path, ({ warnings }) => expect(warnings[0]).to.match(/probed as qcow2/));
      // As QEMU: an empty name states nothing.
      withImage(temp.write('empty', overlay('base', '')), ({ warnings }) =>
        expect(warnings[0]).to.match(/probed as qcow2/),
      );
      refuse('ENOTSUP', /Format 'luks'/, temp.write('luks', overlay('base', 'luks')));
    });

    it('never probes what is stated as raw', () => {
      const secret = temp.write('secret', pattern(3, SIZE));
      const disguised = buildImage({ size: SIZE, backing: { name: secret, format: 'raw' } }).bytes;
      temp.write('base', disguised);
      const read = readImage(temp.write('top', overlay('base', 'raw')));
      expect(read.subarray(0, SIZE).equals(disguised.subarray(0, SIZE))).to.equal(true);
      expect(readImage(temp.at('base'), { format: 'raw' }).equals(disguised)).to.equal(true);
    });

    it('opens the image alone, without what it names', () => {
      const path = temp.write('top', overlay('missing', 'raw'));
      withImage(path, ({ image }) => expect(image.description.layers).to.have.lengthOf(1), {
        alone: true,
      });
    });
  });

  describe('of what is no file', () => {
    const names: [name: string, code: ErrnoName, message: RegExp][] = [
      ['json:{"driver":"file","filename":"/etc/passwd"}', 'ENOTSUP', /'json:' is not supported/],
      ['json:{}', 'ENOTSUP', /'json:' is not supported/],
      ['nbd://host/export', 'ENOTSUP', /'nbd:' is not supported/],
      ['nbd:unix:/tmp/socket', 'ENOTSUP', /'nbd:' is not supported/],
      ['http://host/image', 'ENOTSUP', /'http:' is not supported/],
      ['fat:rw:/etc', 'ENOTSUP', /'fat:' is not supported/],
      [':nothing', 'ENOTSUP', /not supported/],
      ['ba\0se', 'EINVAL', /holds a NUL/],
      ['/dev/zero', 'EINVAL', /'\/dev\/zero' to be a regular file/],
      ['/dev/null', 'EINVAL', /to be a regular file/],
      ['.', 'EISDIR', /to be a regular file/],
      ['/proc/self/fd', 'EISDIR', /to be a regular file/],
      ['x'.repeat(300), 'ENAMETOOLONG', /File name too long/],
    ];
    for (const [name, code, message] of names) {
      it(`refuses ${JSON.stringify(name.slice(0, 40))} below or beside an image`, () => {
        refuse(code, message, temp.write('top', overlay(name, 'raw')));
        const dataFile = { name };
        refuse(code, message, temp.write('data', buildImage({ size: SIZE, dataFile }).bytes));
      });
    }

    it('refuses folders and devices as images', () => {
      refuse('EISDIR', /to be a regular file/, temp.path);
      refuse('EINVAL', /to be a regular file/, '/dev/zero');
      refuse('ENOENT', /No such file/, temp.at('nothing'));
    });

    it('refuses FIFOs and sockets without waiting for anybody', () => {
      execFileSync('mkfifo', [temp.at('fifo')]);
      refuse('EINVAL', /fifo' to be a regular file/, temp.at('fifo'));
      refuse('EINVAL', /fifo' to be a reg/, temp.write('top', overlay('fifo', 'raw')));
      symlinkSync('fifo', temp.at('link'));
      refuse('EINVAL', /link' to be a reg/, temp.write('top', overlay('link', 'raw')));
    });
  });

  describe('under a policy', () => {
    /** The base and a data file lie outside of `root`, with links into and out of it. */
    function makeRoot(): OpenPolicy {
      mkdirSync(temp.at('root/sub'), { recursive: true });
      mkdirSync(temp.at('root-beside'));
      temp.write('base', BASE);
      temp.write('root/base', BASE);
      temp.write('root-beside/base', BASE);
      symlinkSync('../base', temp.at('root/out'));
      symlinkSync('base', temp.at('root/in'));
      symlinkSync('..', temp.at('root/up'));
      return { backingRoot: temp.at('root') };
    }

    it('no-backing refuses images that name another file, and takes others', () => {
      temp.write('base', BASE);
      const policy = { noBacking: true };
      refuse('EPERM', /'no-backing'/, temp.write('top', overlay('base', 'raw')), policy);
      const dataFile = { name: temp.at('base') };
      const data = temp.write('data', buildImage({ size: SIZE, dataFile }).bytes);
      refuse('EPERM', /'no-backing'/, data, policy);
      expect(readImage(temp.write('alone', overlay()), policy).length).to.equal(SIZE);
    });

    for (const name of ['base', 'in', 'sub/../base', './up/root/base']) {
      it(`backing-root lets ${name} pass`, () => {
        const policy = makeRoot();
        readsBase(temp.write('root/top', overlay(name, 'raw')), policy);
      });
    }

    for (const name of ['../base', 'out', 'up/base', '../root-beside/base', 'sub/../../base']) {
      it(`backing-root refuses ${name}, below or beside an image`, () => {
        const policy = makeRoot();
        refuse('EPERM', /outside of back/, temp.write('root/top', overlay(name, 'raw')), policy);
        const { bytes } = buildImage({ size: SIZE, dataFile: { name } });
        refuse('EPERM', /outside of back/, temp.write('root/data', bytes), policy);
      });
    }

    it('backing-root refuses absolute names outside, and takes those inside', () => {
      const policy = makeRoot();
      const outside = temp.write('root/outside', overlay(temp.at('base'), 'raw'));
      refuse('EPERM', /outside of backing-root/, outside, policy);
      refuse('EPERM', /outside/, temp.write('root/p', overlay('/proc/self/exe', 'raw')), policy);
      readsBase(temp.write('root/inside', overlay(temp.at('root/base'), 'raw')), policy);
    });

    it('backing-root may be a link itself, and leaves the image where it is', () => {
      makeRoot();
      symlinkSync('root', temp.at('root-link'));
      const path = temp.write('top', overlay('root/base', 'raw'));
      readsBase(path, { backingRoot: temp.at('root-link') });
      readsBase(path, { backingRoot: '/' });
    });

    it('holds further down the chain too', () => {
      const policy = makeRoot();
      temp.write('root/middle', overlay('out', 'raw'));
      const path = temp.write('root/top', overlay('middle', 'qcow2'));
      refuse('EPERM', /out' lies outside/, path, policy);
    });

    it('refuses encrypted images, but for looking at them', () => {
      const image = (cryptMethod: number) =>
        temp.write('image', buildImage({ size: SIZE, header: { cryptMethod } }).bytes);
      refuse('EACCES', /'encrypt.key-secret' is required/, image(1));
      refuse('EINVAL', /Missing CRYPTO header/, image(2));
      withImage(image(1), ({ image: { disk } }) => expect(disk.size).to.equal(SIZE), {
        allowEncrypted: true,
      });
    });

    it('warns of the dirty and the corrupt bit', () => {
      const { bytes } = buildImage({ size: SIZE, header: { incompatibleFeatures: 3n } });
      withImage(temp.write('image', bytes), ({ warnings }) => {
        expect(warnings.join('\n')).to.match(/not closed cleanly.*\n.*marked corrupt/);
      });
    });
  });
});
