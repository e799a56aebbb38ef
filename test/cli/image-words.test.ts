import { expect } from 'chai';
import { parseImageName, parseImageOptions } from '#src/cli/image-words.js';
import { parseKeyValues } from '#src/cli/key-values.js';

describe('parseKeyValues()', () => {
  it('takes two commas for one, and words without a value', () => {
    expect(parseKeyValues('a=b,c=d,,e,f,g=')).to.deep.equal([
      ['a', 'b'],
      ['c', 'd,e'],
      ['f', undefined],
      ['g', ''],
    ]);
  });

  it('gives the first word to a key that may be left out', () => {
    expect(parseKeyValues('secret,id=x', 'qom-type')).to.deep.equal([
      ['qom-type', 'secret'],
      ['id', 'x'],
    ]);
  });
});

describe('images in words', () => {
  it('are names of files', () => {
    expect(parseImageName('a.qcow2')).to.deep.equal({ path: 'a.qcow2', filename: 'a.qcow2' });
    expect(parseImageName('file:a')).to.deep.equal({ path: 'a', filename: 'file:a' });
    expect(parseImageName('./a:b').path).to.equal('./a:b');
    expect(() => parseImageName('nbd://x')).to.throw(
      "Could not open 'nbd://x': Unknown protocol 'nbd'",
    );
  });

  it('are trees of options, as JSON and as words', () => {
    const json = parseImageName(
      'json:{"driver":"qcow2","file":{"driver":"raw","offset":512,"size":1024,' +
        '"file":{"driver":"file","filename":"a"}},"backing":null,"lazy-refcounts":true}',
    );
    const words = parseImageOptions(
      'driver=qcow2,file.driver=raw,file.offset=0x200,file.size=1k,file.file.filename=a,lazy-refcounts=on',
    );
    for (const spec of [json, words]) {
      expect(spec.path).to.equal('a');
      expect(spec.format).to.equal('qcow2');
      expect(spec.window).to.deep.equal({ offset: 512, size: 1024 });
      expect(spec.write).to.deep.equal({ lazyRefcounts: true });
    }
    expect(json.backing).to.equal(null);
    expect(words.backing).to.equal(undefined);
  });

  it('can have another backing file than the image names', () => {
    const spec = parseImageOptions('file.filename=a,backing.driver=raw,backing.file.filename=b');
    expect(spec.backing).to.include({ path: 'b', format: 'raw' });
  });

  it('have a cache of a size that can be had', () => {
    expect(parseImageOptions('file.filename=a,cache-size=7E').cacheSize).to.equal(1 << 30);
    expect(parseImageOptions('file.filename=a,cache-size=0').cacheSize).to.equal(1 << 20);
  });

  const REFUSED: [word: string, problem: string][] = [
    ['driver=foo', "Unknown driver 'foo'"],
    ['driver=luks,file.filename=a', "Format 'luks' is not supported"],
    ['driver=qcow2', 'A block device must be specified for "file"'],
    ['filename=a', 'Must specify either driver or file'],
    ['a', "Cannot find device='a' nor node-name='a'"],
    ['driver=qcow2,file.filename=a,foo=1', "'qcow2' does not support the option 'foo'"],
    ['driver=qcow2,file.filename=a,file.foo=1', "'file' doesn't support the option 'foo'"],
    ['driver=file', "The 'file' block driver requires a file name"],
    ['file.filename=a,read-only=x', "Parameter 'read-only' expects 'on' or 'off'"],
    ['file.filename=a,discard=x', 'Invalid discard option'],
    ['file.filename=a,detect-zeroes=x', 'invalid parameter value: x'],
    ['file.filename=a,overlap-check=x', "Unsupported value 'x' for qcow2 option 'overlap-check'"],
    ['file.filename=a,cache-size=x', "Parameter 'cache-size' expects a non-negative number"],
  ];
  for (const [word, problem] of REFUSED) {
    it(`are refused: ${word}`, () => {
      expect(() => parseImageOptions(word)).to.throw(`Could not open '${word}': `);
      expect(() => parseImageOptions(word)).to.throw(problem);
    });
  }

  it('are refused where the JSON is none', () => {
    expect(() => parseImageName('json:{')).to.throw('Could not parse the JSON options');
    expect(() => parseImageName('json:[]')).to.throw('Invalid JSON object given');
  });
});
