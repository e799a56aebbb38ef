/** Images without counts whose entries lead where they must not: what lies there stays as it is. */
import { readFileSync, truncateSync } from 'node:fs';
import { expect } from 'chai';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { expectImageError } from '../helpers/errors.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
import { readImage } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';
import { type WritableImage, withWritable } from '../helpers/writable-image.js';

const CLUSTER = 4096;
/** Of both formats here: 512 entries, or 1024. */
const COVERAGE = 4 << 20;

interface Table {
  readonly l1: number;
  readonly l2: number;
  readonly bytes: Buffer;
  put(position: number, value: number): void;
}

const FORMATS = [
  { format: 'qed', options: ['-o', 'cluster_size=4k,table_size=2'], l1At: 40 },
  { format: 'qcow', options: [], l1At: 40 },
] as const;

for (const { format, options, l1At } of FORMATS) {
  describe(`TableGuard of ${format} images`, () => {
    const folder = useTempFolder();

    /** Data in the first clusters of two L2 tables, and then what `damage` does to it. */
    function make(damage: (table: Table) => void): { path: string; before: Buffer } {
      const path = folder.at('image');
      qemuImg('create', '-q', '-f', format, ...options, path, '16M');
      const two = (pattern: number, at: number) => `write -P ${pattern} ${COVERAGE + at} 32k`;
      qemuIo(path, 'write -P 1 0 32k', two(2, 0), two(3, 8 * CLUSTER));
      const bytes = readFileSync(path);
      const isLittle = format === 'qed';
      const at = (position: number) =>
        Number(isLittle ? bytes.readBigUInt64LE(position) : bytes.readBigUInt64BE(position));
      const put = (position: number, value: number) => {
        if (isLittle) bytes.writeBigUInt64LE(BigInt(value), position);
        else bytes.writeBigUInt64BE(BigInt(value), position);
      };
      const l1 = at(l1At);
      damage({ l1, l2: at(l1), bytes, put });
      folder.write('image', bytes);
      return { path, before: bytes };
    }

    function write({ writer }: WritableImage, offset: number, length = CLUSTER): void {
      const source = new IoBuffer(length);
      source.bytes.fill(9);
      writer.write(offset, length, source, 0);
    }

    function use(path: string, body: (opened: WritableImage) => void): void {
      withWritable(path, body, {}, format);
    }

    /** Nothing is written from then on, and no flush says that it was. */
    function expectEnd(opened: WritableImage): void {
      expectImageError('EIO', /writing has ended/, () => write(opened, CLUSTER));
      expectImageError('EIO', /writing has ended/, () => opened.writer.flush());
    }

    const targets: [string, RegExp, (table: Table) => number][] = [
      ['the L1 table', /metadata \(L1 table\)/, ({ l1 }) => l1],
      ['its own L2 table', /metadata \(L2 table\)/, ({ l2 }) => l2],
    ];
    if (format === 'qcow') targets.push(['the header', /metadata \(header\)/, () => 8]);
    else targets.push(['the end of an L2 table', /L2 table\)/, ({ l2 }) => l2 + CLUSTER]);

    for (const [what, words, target] of targets) {
      it(`refuses data over ${what}, and all that comes then`, () => {
        const { path, before } = make((table) => table.put(table.l2, target(table)));
        for (const call of ['write', 'zero', 'discard'] as const) {
          use(path, (opened) => {
            expectImageError('EIO', words, () => {
              if (call === 'write') write(opened, 0);
              else opened.writer[call](0, CLUSTER);
            });
            expectEnd(opened);
          });
          expect(readFileSync(path).equals(before), call).to.equal(true);
        }
      });
    }

    it('refuses all where two L1 entries lead to one table', () => {
      const { path, before } = make(({ l1, l2, put }) => put(l1 + (format === 'qed' ? 8 : 16), l2));
      use(path, (opened) => {
        expectImageError('EIO', /two tables lie over each other/, () => write(opened, 0));
        expectEnd(opened);
      });
      expect(readFileSync(path).equals(before)).to.equal(true);
    });

    it('lets nothing new come to where an entry leads that was cut off', () => {
      const { path, before } = make(() => {});
      const end = before.length - 3 * CLUSTER;
      truncateSync(path, end);
      use(path, (opened) => {
        // What is there still is written to, and durable.
        write(opened, 0);
        opened.writer.flush();
        const lost = COVERAGE + 15 * CLUSTER;
        expectImageError('EIO', /cannot be written to/, () => write(opened, lost));
        expectImageError('EIO', /behind the end/, () => write(opened, 1 << 20));
        expectEnd(opened);
      });
      expect(readFileSync(path).length).to.equal(end);
      expectImageError('EIO', /past the end/, () => readImage(path, { format }));
    });

    it('lets nothing new come to where an L2 table was cut off', () => {
      const { path, before } = make(({ l1, bytes, put }) => put(l1, bytes.length));
      use(path, (opened) => {
        expectImageError('EIO', /behind the end/, () => write(opened, COVERAGE + (1 << 20)));
        expectEnd(opened);
      });
      expect(readFileSync(path).equals(before)).to.equal(true);
    });
  });
}
