/** How mounts that were written to end, overlays, and mounts that cannot be written to. */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import { expect } from 'chai';
import { CLI, lacking, noMounts, skipSuite, until, useSandbox } from '../helpers/mount.js';
import { createImage, KIB, MIB, noise } from '../helpers/mount-images.js';
import { contentOf, get, put } from '../helpers/mount-write.js';
import { qemuImg } from '../helpers/qemu.js';
import { describeTransports, withoutLimits } from '../helpers/transports.js';

const RW = ['-o', 'rw'];

describeTransports('the end of a mount that was written to', ({ transport, itByKernel }) => {
  const box = useSandbox('test', transport);
  const bytes = noise(5, 3 * MIB);

  async function serve(...options: string[]) {
    const image = await createImage(box(), 'vm.qcow2', 8 * MIB, 'lazy_refcounts=on');
    const mnt = box().folder();
    const words = ['-f', '-o', ['rw', ...options].join(','), ...box().transport];
    const daemon = box().startCli([image, mnt, ...words]);
    await until(() => box().mounts().length === 1, 'mounted');
    await until(() => statSync(mnt).dev !== statSync(box().directory).dev, 'serving');
    return { image, mnt, daemon };
  }

  it('flushes when it is unmounted by whatever means', async () => {
    const { image, mnt, daemon } = await serve();
    put(`${mnt}/disk.raw`, 100, bytes);
    await box().must('umount', [mnt]);
    const { status, stderr } = await daemon.ended();
    expect({ status, stderr: withoutLimits(stderr) }).to.deep.equal({ status: 0, stderr: '' });
    expect(
      contentOf(image)
        .subarray(100, 100 + bytes.length)
        .equals(bytes),
    ).to.equal(true);
    expect(qemuImg('info', image)).to.not.match(/cleanly shut down: no/);
  });

  for (const signals of [1, 2]) {
    (signals === 1 ? it : itByKernel)(
      `flushes after ${signals} × SIGTERM with a file open`,
      async () => {
        const { image, mnt, daemon } = await serve();
        const fd = openSync(`${mnt}/disk.raw`, 'r+');
        writeSync(fd, bytes, 0, bytes.length, 100);
        for (let n = 0; n < signals; n++) process.kill(daemon.pid, 'SIGTERM');
        expect(await daemon.ended()).to.include({ status: 0 });
        expect(() => closeSync(fd)).to.throw();
        expect(
          contentOf(image)
            .subarray(100, 100 + bytes.length)
            .equals(bytes),
        ).to.equal(true);
        expect(qemuImg('info', image)).to.not.match(/cleanly shut down: no/);
      },
    );
  }

  itByKernel('leaves the image clean a few seconds after the last write', async () => {
    const { image, mnt } = await serve();
    put(`${mnt}/disk.raw`, 0, bytes);
    const isDirty = () => (readFileSync(image)[79]! & 1) === 1;
    expect(isDirty()).to.equal(true);
    await until(() => !isDirty(), 'clean');
    put(`${mnt}/disk.raw`, 0, bytes);
    await box().unmount(mnt);
    expect(isDirty()).to.equal(false);
  });

  itByKernel('tells by its status that the last flush failed', async function () {
    const missing = lacking('strace');
    if (missing !== null) {
      process.stdout.write(`    skipped: ${missing}\n`);
      return this.skip();
    }
    const image = await createImage(box(), 'vm.qcow2', 8 * MIB);
    const mnt = box().folder();
    const inject = ['-f', '-qq', '-o', '/dev/null', '-e', 'inject=fdatasync:error=EIO'];
    const cli = [process.execPath, CLI, image, mnt, '-f', '-o', 'rw'];
    const daemon = box().start('strace', [...inject, ...cli]);
    await until(() => box().mounts().length === 1, 'mounted');
    const fd = openSync(`${mnt}/disk.raw`, 'r+');
    writeSync(fd, bytes, 0, bytes.length, 0);
    expect(() => closeSync(fd)).to.throw(/EIO/);
    execFileSync('umount', [mnt]);
    const { status, stderr } = await daemon.ended();
    expect(status).to.equal(1);
    expect(stderr).to.match(/flushing the image/);
  });
});

describe('an overlay', () => {
  skipSuite(noMounts);
  const box = useSandbox();

  async function base() {
    const image = await createImage(box(), 'vm.qcow2', 4 * MIB);
    const mnt = await box().mount(image, { options: RW });
    put(`${mnt}/disk.raw`, 0, noise(1, 2 * MIB));
    await box().must('touch', [`${mnt}/disk.snapshots/old.raw`]);
    put(`${mnt}/disk.raw`, 0, noise(2, MIB));
    await box().unmount(mnt);
    return { image, bytes: readFileSync(image), content: contentOf(image) };
  }

  it('without a name takes writes and is gone, with nothing left', async () => {
    const { image, bytes, content } = await base();
    const mnt = await box().mount(image, { options: ['--overlay'] });
    expect(readFileSync(`${mnt}/disk.raw`).equals(content)).to.equal(true);
    put(`${mnt}/disk.raw`, 5000, noise(3, 100_000));
    expect(get(`${mnt}/disk.raw`, 5000, 100_000).equals(noise(3, 100_000))).to.equal(true);
    expect(get(`${mnt}/disk.raw`, 0, 5000).equals(content.subarray(0, 5000))).to.equal(true);
    const files = await box().must('ls', ['-A', box().directory]);
    await box().unmount(mnt);
    expect(readFileSync(image).equals(bytes)).to.equal(true);
    expect(files.split('\n').filter((name) => !/^mnt/.test(name))).to.deep.equal(['vm.qcow2', '']);
  });

  it('over a protected image, and over a snapshot of it', async () => {
    const { image, bytes } = await base();
    await box().must('chmod', ['400', image]);
    const mnt = await box().mount(image, { options: ['-o', 'overlay,snapshot=old'] });
    expect(statSync(`${mnt}/disk.raw`).mode & 0o777).to.equal(0o600);
    const old = Buffer.concat([noise(1, 2 * MIB)], 4 * MIB);
    expect(readFileSync(`${mnt}/disk.raw`).equals(old)).to.equal(true);
    put(`${mnt}/disk.raw`, MIB, noise(3, 70_000));
    old.set(noise(3, 70_000), MIB);
    expect(readFileSync(`${mnt}/disk.raw`).equals(old)).to.equal(true);
    await box().unmount(mnt);
    expect(readFileSync(image).equals(bytes)).to.equal(true);
  });

  it('with a name is kept, and used again', async () => {
    const { image, content } = await base();
    const overlay = box().path('over.qcow2');
    for (const seed of [3, 4]) {
      const mnt = await box().mount(image, { options: [`--overlay=${overlay}`] });
      put(`${mnt}/disk.raw`, seed * 100_000, noise(seed, 50_000));
      content.set(noise(seed, 50_000), seed * 100_000);
      expect(readFileSync(`${mnt}/disk.raw`).equals(content)).to.equal(true);
      await box().unmount(mnt);
    }
    expect(contentOf(overlay).equals(content)).to.equal(true);
    qemuImg('check', '-q', image);
  });
});

describe('a mount that is read-only', () => {
  skipSuite(noMounts);
  const box = useSandbox();

  it('refuses to write, and to do anything with snapshots', async () => {
    const image = await createImage(box(), 'vm.qcow2', MIB);
    for (const options of [[], ['-o', 'rw,ro']]) {
      const mnt = await box().mount(image, { options });
      expect(() => openSync(`${mnt}/disk.raw`, 'r+')).to.throw(/EROFS/);
      const taken = await box().cli(['snapshot', '-c', 'x', mnt]);
      expect(taken).to.include({ status: 1 });
      expect(taken.stderr).to.match(/mounted read-only \(-o rw\)/);
      expect(await box().cli(['snapshot', '-l', mnt])).to.include({ status: 0, stdout: '' });
      await box().unmount(mnt);
    }
    expect(statSync(image).size).to.be.above(KIB);
  });
});
