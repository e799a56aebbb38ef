import { expect } from 'chai';
import { getopt, type Option } from '#src/cli/getopt.js';
import { UsageError } from '#src/cli/program.js';

const OPTIONS: Option[] = [
  { short: 'f', value: true },
  { short: 'q' },
  { short: 'r', value: true },
  { long: 'output', value: true },
  { long: 'object', value: true },
  { long: 'force-share', short: 'U' },
  { long: 'progress', short: 'p', value: 'optional' },
];

function given(...words: string[]): [name: string, value: string][] {
  return getopt(words, OPTIONS).given.map(({ name, value }) => [name, value]);
}

function refuses(message: string, ...words: string[]): void {
  expect(() => getopt(words, OPTIONS)).to.throw(UsageError, message);
}

describe('getopt()', () => {
  it('takes values in the same word and in the next', () => {
    expect(given('-f', 'raw', '-fqcow2')).to.deep.equal([
      ['f', 'raw'],
      ['f', 'qcow2'],
    ]);
    expect(given('--output', 'json', '--output=human')).to.deep.equal([
      ['output', 'json'],
      ['output', 'human'],
    ]);
    expect(given('-f', '-q')).to.deep.equal([['f', '-q']]);
  });

  it('takes several short options in one word', () => {
    expect(given('-qUfraw')).to.deep.equal([
      ['q', ''],
      ['force-share', ''],
      ['f', 'raw'],
    ]);
  });

  it('takes options behind operands, and none behind `--`', () => {
    const { operands, has, last, all } = getopt(
      ['a', '-q', 'b', '-f', 'x', '-f', 'y', '--', '-U', '--output'],
      OPTIONS,
    );
    expect(operands).to.deep.equal(['a', 'b', '-U', '--output']);
    expect([has('q'), has('force-share')]).to.deep.equal([true, false]);
    expect([last('f'), last('output')]).to.deep.equal(['y', undefined]);
    expect(all('f')).to.deep.equal(['x', 'y']);
  });

  it('takes long names that are shortened, where they stay unique', () => {
    expect(given('--ou=json', '--force', '--ob', 'secret')).to.deep.equal([
      ['output', 'json'],
      ['force-share', ''],
      ['object', 'secret'],
    ]);
    refuses("unrecognized option '--o=json'", '--o=json');
  });

  it('takes a value that may be left out only from the same word', () => {
    expect(given('-p', '--progress=json')).to.deep.equal([
      ['progress', ''],
      ['progress', 'json'],
    ]);
  });

  it('refuses what is no option, and options without their values', () => {
    refuses("unrecognized option '-x'", '-x');
    refuses("unrecognized option '-qx'", '-qx');
    refuses("unrecognized option 'a'", 'a', '-q', '-1M');
    refuses("unrecognized option '--foo'", '--foo');
    refuses("unrecognized option '--toString'", '--toString');
    refuses("unrecognized option '--force-share=1'", '--force-share=1');
    refuses("missing argument for option '-f'", 'x', '-f');
    refuses("missing argument for option '--output'", '--output');
  });
});
