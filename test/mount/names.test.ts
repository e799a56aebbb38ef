import { expect } from 'chai';
import fc from 'fast-check';
import { decodeName, encodeName, snapshotFileNames } from '#src/mount/names.js';

const LONGEST = 255 - '.changed.json'.length;

function names(...pairs: [id: string, name: string][]): string[] {
  return snapshotFileNames(pairs.map(([id, name]) => ({ id, name })));
}

describe('snapshotFileNames()', () => {
  it('keeps plain names', () => {
    expect(names(['1', 'one'], ['2', 'two words'], ['3', 'ä€😀'], ['4', '#'])).to.deep.equal([
      'one',
      'two words',
      'ä€😀',
      '#',
    ]);
  });

  it('encodes what a file name cannot hold', () => {
    expect(['a/b', '.hidden', '..', '%', 'a\nb\x00\x7f'].map(encodeName)).to.deep.equal([
      'a%2Fb',
      '%2Ehidden',
      '%2E.',
      '%25',
      'a%0Ab%00%7F',
    ]);
  });

  it('puts the id behind names that are empty or not unique', () => {
    expect(names(['1', ''], ['2', 'x'], ['3', 'x'], ['a/b', 'x'])).to.deep.equal([
      '#1',
      'x#2',
      'x#3',
      'x#a%2Fb',
    ]);
  });

  it('cuts long names between characters, with the id behind them', () => {
    const [name] = names(['17', '€'.repeat(100)]);
    expect(name).to.match(/^€+#17$/);
    expect(Buffer.byteLength(name!)).to.be.within(LONGEST - 2, LONGEST);
  });

  it('puts the place in the table where ids do not tell apart either', () => {
    expect(new Set(names(['1', 'x'], ['1', 'x'], ['1', 'x#1'])).size).to.equal(3);
  });

  it('gives every snapshot a name of its own that a file can have', () => {
    const odd = [
      '',
      '.',
      '/',
      '%',
      '#',
      'a',
      '1',
      '0',
      '##',
      '%25',
      '#1',
      '##1',
      '\0',
      '€',
      '\ud83d',
    ];
    const word = fc.array(fc.constantFrom(...odd), { maxLength: 4 }).map((parts) => parts.join(''));
    const long = word.map((tail) => 'l'.repeat(243) + tail);
    const id = fc.oneof(fc.constantFrom('', '1', '2', '#1', '#', 'i'.repeat(300)), word);
    const snapshots = fc.array(fc.record({ id, name: fc.oneof(word, word, long) }), {
      maxLength: 12,
    });
    fc.assert(
      fc.property(snapshots, (list) => {
        const made = snapshotFileNames(list);
        expect(new Set(made).size).to.equal(list.length);
        for (const name of made) {
          expect(Buffer.byteLength(name)).to.be.within(1, LONGEST);
          // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
          expect(name).to.not.match(/[/\x00-\x1f\x7f]|^\./);
        }
      }),
      { numRuns: 3000 },
    );
  });
});

describe('decodeName()', () => {
  it('is the way back, for every name that has one', () => {
    const name = fc.string({ minLength: 1, maxLength: 60, unit: 'binary' });
    fc.assert(fc.property(name, (text) => decodeName(encodeName(text)) === text));
  });

  it('finds no name behind what is never made of one, or is too long', () => {
    for (const name of ['', '.a', '%41', '%2f', '%', 'a%', 'a/b', 'x'.repeat(LONGEST + 1)]) {
      expect(decodeName(name), name).to.equal(null);
    }
    expect(decodeName('x'.repeat(LONGEST))).to.equal('x'.repeat(LONGEST));
  });
});
