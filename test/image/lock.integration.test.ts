import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { expect } from 'chai';
import { type OpenedImage, closeImage, type OpenPolicy, openImage } from '#src/image/open.js';
import { type LockKind, lockImage } from '#src/image/lock.js';
import { expectImageError } from '../helpers/errors.js';
import { qemuImg, qemuIo, tryQemuImg, tryQemuIo } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

describe('lockImage(), in place of another lock', () => {
  const folder = useTempFolder();

  it('lets nobody in between, and reads on', () => {
    const path = folder.write('file', 'bytes');
    const [reader, writer] = [openSync(path, 'r'), openSync(path, 'r+')];
    try {
      lockImage(reader, path, 'read');
      expect(() => lockImage(writer, path, 'write')).to.throw('Failed to get');
      lockImage(writer, path, 'write', { instead: reader });
      expect(tryQemuIo('-f', 'raw', '-c', 'length', path).stderr).to.contain('"write" lock');
      closeSync(reader);
      expect(tryQemuIo('-f', 'raw', '-c', 'length', path).stderr).to.contain('"write" lock');
    } finally {
      closeSync(writer);
    }
  });

  it('is refused where the file is another one by now', async () => {
    const path = folder.at('base');
    qemuImg('create', '-q', '-f', 'qcow2', path, '1M');
    const fd = openSync(folder.write('old', ''), 'r');
    const open = () => openImage(path, { lock: 'write', writable: true, readBy: [fd] });
    expect(open).to.throw('is another file by now');
    closeSync(fd);
  });
});

describe('lockImage()', () => {
  const folder = useTempFolder();
  let image = '';
  let other: ChildProcess | undefined;

  beforeEach(() => {
    image = folder.at('disk.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', folder.at('base.qcow2'), '4M');
    qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', image);
  });

  afterEach(async () => {
    if (other === undefined) return;
    const ended = once(other, 'exit');
    other.stdin!.end();
    // The daemon goes on without its monitor.
    if (other.spawnfile === 'qemu-storage-daemon') other.kill();
    await ended;
    other = undefined;
  });

  /** QEMU with the image open, until the test ends. */
  async function qemuOpens(...words: string[]): Promise<void> {
    other = spawn('qemu-io', words, { stdio: ['pipe', 'pipe', 'inherit'] });
    other.stdin!.write('length\n');
    await once(other.stdout!, 'data');
  }

  /** QEMU's daemon with the image open, until the test ends. */
  async function daemonOpens(readOnly: boolean): Promise<void> {
    const monitor = ['--chardev', 'stdio,id=c', '--monitor', 'c'];
    const node = `driver=qcow2,node-name=n,read-only=${readOnly ? 'on' : 'off'}`;
    const file = `file.driver=file,file.filename=${image}`;
    other = spawn('qemu-storage-daemon', ['--blockdev', `${node},${file}`, ...monitor], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    // In the order of its words: it greets when the image is open.
    await once(other.stdout!, 'data');
  }

  function withOpen(lock: LockKind, body: () => void, policy: OpenPolicy = {}): void {
    const opened: OpenedImage = openImage(image, { ...policy, lock });
    try {
      body();
    } finally {
      closeImage(opened.description);
    }
  }

  it('refuses an image that a running QEMU writes to, and names the process', async () => {
    await qemuOpens(image);
    for (const lock of ['read', 'info'] as const) {
      expect(() => openImage(image, { lock }))
        .to.throw(`Could not open '${image}': Failed to get shared "write" lock`)
        .with.nested.property('context.limit')
        .that.match(/in use by qemu-io \(process \d+\)/);
    }
    closeImage(openImage(image).description);
  });

  it('shares with a QEMU that only reads', async () => {
    await qemuOpens('-r', image);
    withOpen('read', () => {});
    withOpen('info', () => {});
  });

  it('shares the backing file of an image that QEMU writes to', async () => {
    await qemuOpens(image);
    closeImage(openImage(folder.at('base.qcow2'), { lock: 'read' }).description);
  });

  it('keeps QEMU from writing to the image and to its backing file, until it is closed', () => {
    const snapshot = (file: string) => tryQemuImg('snapshot', '-c', 'x', file);
    withOpen('read', () => {
      for (const file of [image, folder.at('base.qcow2')]) {
        expect(snapshot(file).status).to.equal(1);
        expect(snapshot(file).stderr).to.contain('Failed to get "write" lock');
      }
      expect(tryQemuImg('info', image).status).to.equal(0);
      expect(tryQemuImg('convert', '-O', 'raw', image, folder.at('out')).status).to.equal(0);
    });
    expect(snapshot(image).status).to.equal(0);
  });

  describe('of an image that is open for writing', () => {
    const writable: OpenPolicy = { writable: true, lock: 'read' };

    /** What qemu-io says to opening the image. */
    function qemuIoOpens(...words: string[]): string {
      const { stderr } = tryQemuIo(...words, '-c', 'length', image);
      return stderr;
    }

    it('keeps QEMU from writing and from reading, until it is closed', () => {
      withOpen(
        'write',
        () => {
          expect(qemuIoOpens()).to.contain('Failed to get "write" lock');
          expect(qemuIoOpens('-r')).to.contain('Failed to get shared "write" lock');
          for (const words of [
            ['check', image],
            ['info', image],
            ['snapshot', '-l', image],
          ]) {
            expect(tryQemuImg(...words).stderr, words[0]).to.match(/Failed to get .*"write" lock/);
          }
          expect(tryQemuImg('info', '-U', image).status).to.equal(0);
          expect(tryQemuImg('map', '-U', image).status).to.equal(0);
        },
        writable,
      );
      expect(qemuIo(image, 'write 0 512')).to.contain('wrote 512');
    });

    it('keeps QEMU from writing to its backing file, not from reading it', () => {
      const base = folder.at('base.qcow2');
      withOpen(
        'write',
        () => {
          expect(tryQemuIo('-c', 'length', base).stderr).to.contain('Failed to get "write" lock');
          expect(tryQemuIo('-r', '-c', 'length', base).status).to.equal(0);
        },
        writable,
      );
    });

    it('locks so whatever kind of lock is asked for', () => {
      for (const lock of ['read', 'info', 'write'] as const) {
        withOpen(
          lock,
          () => expect(qemuIoOpens('-r')).to.contain('Failed to get shared "write" lock'),
          { writable: true },
        );
      }
      withOpen('write', () => expect(qemuIoOpens('-r')).to.equal(''));
    });

    it('keeps others of our own away', () => {
      withOpen(
        'write',
        () => {
          for (const lock of ['read', 'info'] as const) {
            expectImageError('EAGAIN', /shared "write" lock/, () => openImage(image, { lock }));
          }
          const own = /"write" lock \(in use by this process itself\)$/;
          expectImageError('EAGAIN', own, () => openImage(image, writable));
          closeImage(openImage(image).description);
        },
        writable,
      );
    });

    it('is refused where QEMU has it open, and names the process', async () => {
      await qemuOpens('-r', image);
      const refused = /Failed to get "write" lock \(in use by qemu-io \(process \d+\)\)$/;
      expectImageError('EAGAIN', refused, () => openImage(image, writable));
      withOpen('read', () => {});
    });

    it('is refused where QEMU writes to it', async () => {
      await qemuOpens(image);
      const refused = /Failed to get "write" lock \(in use by qemu-io \(process \d+\)\)$/;
      expectImageError('EAGAIN', refused, () => openImage(image, writable));
    });

    it('is refused where QEMU writes to its backing file', async () => {
      await qemuOpens(folder.at('base.qcow2'));
      const refused =
        /shared "write" lock \(in '.*base.qcow2'; in use by qemu-io \(process \d+\)\)$/;
      expectImageError('EAGAIN', refused, () => openImage(image, writable));
    });

    for (const readOnly of [false, true]) {
      it(`is refused while the storage daemon has it, read-only: ${readOnly}`, async () => {
        await daemonOpens(readOnly);
        const refused = /"write" lock \(in use by qemu-storage-.* \(process \d+\)\)$/;
        expectImageError('EAGAIN', refused, () => openImage(image, writable));
        if (readOnly) withOpen('read', () => {});
      });
    }

    it('needs locks', () => {
      const message = /force-share can only be used with read-only images/;
      expectImageError('EINVAL', message, () => openImage(image, { writable: true }));
    });
  });
});
