import { expect } from 'chai';
import { isDirect, type WriteOptions, writesThrough } from '#src/image/write-options.js';
import { openDisk } from '#src/tools/open-disk.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { qemuImg, tryQemuIo } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

const MODES: readonly WriteOptions['cache'][] = [
  ...(['writeback', 'writethrough', 'none', 'directsync', 'unsafe'] as const),
];

describe('cache modes', () => {
  const temp = useTempFolder();

  it('are direct, write through, or both', () => {
    expect(MODES.filter(isDirect)).to.deep.equal(['none', 'directsync']);
    expect(MODES.filter(writesThrough)).to.deep.equal(['writethrough', 'directsync']);
  });

  it('directsync has in the file what was written', async () => {
    const path = temp.at('a.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', path, '1M');
    const disk = await openDisk(path, { writable: true, write: { cache: 'directsync' } });
    const bytes = new IoBuffer(65536);
    bytes.bytes.fill(5);
    disk.writer.write(0, bytes.length, bytes, 0);
    const read = tryQemuIo('-r', '-U', '-c', 'read -P 5 0 64k', path);
    disk.abandon();
    expect(read.stdout).to.match(/^read 65536/);
  });
});
