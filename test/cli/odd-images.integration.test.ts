/** Images with odd bytes in their metadata: what qemu-io says and does on them, held against QEMU's own. */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { BothIo } from '../helpers/both-io.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

/** Bytes of the file, in hexadecimal, by where they lie. */
type Bytes = Readonly<Record<number, string>>;

const HEADERS: Readonly<Record<string, Bytes>> = {
  'a header extension beyond the backing file name': {
    8: '0000000000000074',
    112: '123456787fffffff',
  },
  'a header extension beyond the first cluster': { 112: '123456787fffffff' },
  'an unaligned table of no snapshots': { 64: '1234567890abcdef' },
};

/** Where they lie in an image with one data cluster. */
const COUNT_OF_DATA = 0x2_0000 + 5 * 8;
const L2_TABLE = 0x4_0000;

/** Counts of the one data cluster, of 64 bits: it is not the disk's own. */
const COUNTS = ['8000000000000000', 'ffffffffffffffff', '8000000000000001', '0020000000000000'];

describe('qemu-io on odd images', function () {
  this.timeout(60_000);
  const temp = useTempFolder();

  function poke(path: string, bytes: Bytes): void {
    const fd = openSync(path, 'r+');
    for (const [at, hex] of Object.entries(bytes)) {
      const buffer = Buffer.from(hex, 'hex');
      writeSync(fd, buffer, 0, buffer.length, Number(at));
    }
    closeSync(fd);
  }

  for (const [title, bytes] of Object.entries(HEADERS)) {
    it(`says what QEMU's own does: ${title}`, () => {
      const make = (folder: string) => {
        qemuImg('create', '-q', '-f', 'qcow2', `${folder}/a`, '1M');
        poke(`${folder}/a`, bytes);
      };
      new BothIo(temp).same(make, { words: ['a'], commands: ['read 0 512'], printsOnly: true });
    });
  }

  it('says what QEMU does: a snapshot with too much extra data', () => {
    const make = (folder: string) => {
      const path = `${folder}/a`;
      qemuImg('create', '-q', '-f', 'qcow2', path, '1M');
      for (const name of ['one', 'two']) qemuImg('snapshot', '-c', name, path);
      const table = Number(readFileSync(path).readBigUInt64BE(64));
      poke(path, { [table + 36]: '00000401' });
    };
    const commands = ['read 0 512'];
    new BothIo(temp).same(make, { words: ['-r', 'a'], commands, printsOnly: true });
  });

  for (const count of COUNTS) {
    it(`lets go of a cluster with 0x${count} references as QEMU's own does`, () => {
      const make = (folder: string) => {
        const path = `${folder}/a.qcow2`;
        qemuImg('create', '-q', '-f', 'qcow2', '-o', 'refcount_bits=64', path, '1M');
        qemuIo(path, 'write 0 512');
        poke(path, { [COUNT_OF_DATA]: count, [L2_TABLE]: '0000000000050000' });
      };
      new BothIo(temp).same(make, { words: ['a.qcow2'], commands: ['write 0 512'] });
    });
  }
});
