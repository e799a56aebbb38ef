import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect } from 'chai';
import { type OpenedImage, closeImage, openImage } from '#src/image/open.js';
import type { LockKind } from '#src/image/lock.js';
import { qemuImg, tryQemuImg } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

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
    other.stdin!.end();
    await once(other, 'exit');
    other = undefined;
  });

  /** QEMU with the image open, until the test ends. */
  async function qemuOpens(...words: string[]): Promise<void> {
    other = spawn('qemu-io', words, { stdio: ['pipe', 'pipe', 'inherit'] });
    other.stdin!.write('length\n');
    await once(other.stdout!, 'data');
  }

  function withOpen(lock: LockKind, body: () => void): void {
    const opened: OpenedImage = openImage(image, { lock });
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
});
