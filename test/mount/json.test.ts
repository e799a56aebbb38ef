import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { formatJson } from '#src/mount/json.js';

describe('formatJson()', () => {
  it('prints empty lists and objects over two lines', () => {
    expect(formatJson([])).to.equal('[\n]');
    expect(formatJson({ flags: [] })).to.equal('{\n    "flags": [\n    ]\n}');
  });

  it('escapes all but printable ASCII, in capitals', () => {
    expect(formatJson('a"\\/\b\f\n\r\t\x01\x7f é😀\ufffe')).to.equal(
      '"a\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u007F \\u00E9\\uD83D\\uDE00\\uFFFD"',
    );
  });

  it('prints 64-bit integers in full and leaves out undefined properties', () => {
    const object = { id: 2n ** 63n - 1n, name: undefined };
    expect(formatJson(object)).to.equal('{\n    "id": 9223372036854775807\n}');
  });

  it('refuses keys whose place is not known', () => {
    expect(() => formatJson({ id: 1, unheardOf: 2 })).to.throw(RangeError);
  });

  it('has the keys in the order of qemu-img check and measure', () => {
    const directory = mkdtempSync(join(tmpdir(), 'json-'));
    try {
      const path = join(directory, 'disk.qcow2');
      const raw = join(directory, 'disk.raw');
      const qemuImg = (...words: string[]) => execFileSync('qemu-img', words, { encoding: 'utf8' });
      writeFileSync(raw, Buffer.alloc(1 << 20, 'data'));
      qemuImg('convert', '-c', '-O', 'qcow2', raw, path);
      for (const command of ['check', 'measure']) {
        const words = command === 'measure' ? ['-O', 'qcow2', path] : [path];
        const text = qemuImg(command, '--output=json', ...words);
        expect(`${formatJson(JSON.parse(text))}\n`).to.equal(text);
      }
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
