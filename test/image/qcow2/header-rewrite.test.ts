import { readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { readHeader } from '#src/image/qcow2/header.js';
import { changeBackingFile, readHeaderParts } from '#src/image/qcow2/header-rewrite.js';
import type { BackingName } from '#src/image/writer.js';
import { MemoryStorage } from '#src/storage/memory.js';
import { crashStates } from '../../helpers/crash-states.js';
import { qemuImg } from '../../helpers/qemu.js';
import { printSeed, Random, SEED } from '../../helpers/random.js';
import { RecordingStorage } from '../../helpers/recording-storage.js';
import { useTempFolder } from '../../helpers/temp.js';

const OPTIONS: readonly string[] = [
  'compat=0.10',
  'compat=1.1',
  'compat=1.1,cluster_size=512',
  'compat=1.1,cluster_size=1k',
  'compat=1.1,cluster_size=2M',
  'compat=1.1,compression_type=zstd,extended_l2=on',
  'compat=1.1,data_file=data.raw',
];
const NONE = null;
const SHORT = { file: 'b', format: 'raw' };
const LONG = { file: `/${'d/'.repeat(500)}base.qcow2`, format: 'qcow2' };
const STATES = 200;

function namedIn(storage: MemoryStorage): BackingName | null {
  const { backingFile, extensions } = readHeader(storage);
  return backingFile === null ? null : { file: backingFile, format: extensions.backingFormat };
}

describe('changeBackingFile()', () => {
  const temp = useTempFolder();
  printSeed();

  function make(options: string): string {
    const path = temp.at('image.qcow2');
    const place = options.includes('data_file')
      ? options.replace('data.raw', temp.at('d'))
      : options;
    qemuImg('create', '-q', '-f', 'qcow2', '-o', place, path, '4M');
    return path;
  }

  for (const options of OPTIONS) {
    it(`changes the name and its format, and nothing else: ${options}`, () => {
      const path = make(options);
      const random = new Random(SEED);
      const storage = new MemoryStorage(readFileSync(path));
      const before = readHeaderParts(storage);
      for (let n = 0; n < 12; n++) {
        const length = 1 + random.below(options.includes('512') ? 200 : 380);
        const name = {
          file: 'n'.repeat(length),
          format: random.pick(['raw', 'qcow2', 'host_device']),
        };
        const wanted = random.chance(0.2) ? null : name;
        changeBackingFile(storage, wanted);
        expect(namedIn(storage)).to.deep.equal(wanted);
        writeFileSync(path, storage.bytes);
        const info = JSON.parse(qemuImg('info', '-U', '--output=json', path));
        expect(info['backing-filename']).to.equal(wanted?.file);
        expect(info['backing-filename-format']).to.equal(wanted?.format);
      }
      changeBackingFile(storage, null);
      const after = readHeaderParts(storage);
      expect(after.extensions).to.deep.equal(before.extensions);
      expect(after.fields).to.deep.equal(before.fields);
      writeFileSync(path, storage.bytes);
      qemuImg('check', path);
    });

    it(`is done or not done after a crash: ${options}`, () => {
      const random = new Random(SEED);
      const names = options.includes('=512') ? [NONE, SHORT] : [NONE, SHORT, LONG];
      const small = options.includes('1k') ? { ...LONG, file: LONG.file.slice(0, 350) } : LONG;
      const storage = new MemoryStorage(readFileSync(make(options)));
      let now: BackingName | null = null;
      for (const next of [...names, ...names, SHORT, LONG, SHORT, NONE]) {
        if (next === LONG && options.includes('=512')) continue;
        const wanted = next === LONG ? small : next;
        const recorder = new RecordingStorage(storage.bytes, 'image');
        changeBackingFile(recorder, wanted);
        for (const state of crashStates(recorder.recording, STATES, random)) {
          const found = namedIn(new MemoryStorage(state.bytes));
          expect([JSON.stringify(now), JSON.stringify(wanted)]).to.include(JSON.stringify(found));
        }
        storage.bytes = Uint8Array.from(recorder.bytes);
        now = wanted;
      }
    });
  }

  it('lets the name make way for extensions that grow over its place', () => {
    const path = make('compat=1.1');
    const storage = new MemoryStorage(readFileSync(path));
    // As older programs did, without a format: the name lies where its extension will push the end.
    changeBackingFile(storage, { file: 'old-name', format: null });
    const recorder = new RecordingStorage(storage.bytes, 'image');
    const wanted = { file: 'new-name', format: 'qcow2' };
    changeBackingFile(recorder, wanted);
    const old = { file: 'old-name', format: null };
    for (const state of crashStates(recorder.recording, STATES, new Random(SEED))) {
      const found = JSON.stringify(namedIn(new MemoryStorage(state.bytes)));
      expect(
        [old, wanted].map((one) => JSON.stringify(one)),
        state.description,
      ).to.include(found);
    }
    expect(namedIn(recorder)).to.deep.equal(wanted);
  });

  it('refuses what has no room, and changes nothing', () => {
    const storage = new MemoryStorage(readFileSync(make('compat=1.1,cluster_size=512')));
    const before = Buffer.from(storage.bytes);
    const name = { file: 'n'.repeat(500), format: 'raw' };
    expect(() => changeBackingFile(storage, name))
      .to.throw()
      .with.property('code', 'ENOSPC');
    const long = { file: 'n'.repeat(1024), format: 'raw' };
    expect(() => changeBackingFile(storage, long))
      .to.throw()
      .with.property('code', 'EINVAL');
    expect(Buffer.from(storage.bytes)).to.deep.equal(before);
  });
});
