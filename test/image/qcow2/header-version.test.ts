import { readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { readHeader } from '#src/image/qcow2/header.js';
import { readHeaderParts } from '#src/image/qcow2/header-rewrite.js';
import {
  downgradeHeader,
  setDataFileName,
  upgradeHeader,
} from '#src/image/qcow2/header-version.js';
import { MemoryStorage } from '#src/storage/memory.js';
import { crashStates } from '../../helpers/crash-states.js';
import { buildImage } from '../../helpers/image-builder.js';
import type { ImageSpec } from '../../helpers/image-spec.js';
import { qemuImg } from '../../helpers/qemu.js';
import { printSeed, Random, SEED } from '../../helpers/random.js';
import { RecordingStorage } from '../../helpers/recording-storage.js';
import { useTempFolder } from '../../helpers/temp.js';

const UNKNOWN = { type: 0x1234_5678, data: Buffer.from('of who knows what') };
const BACKING = { name: 'base.raw', format: 'raw' };
const STATES = 200;

const IMAGES: readonly { name: string; spec: Partial<ImageSpec> }[] = [
  { name: 'nothing else', spec: {} },
  { name: 'clusters of 512', spec: { clusterBits: 9 } },
  { name: 'a backing file', spec: { backing: BACKING } },
  { name: 'a backing file, clusters of 512', spec: { clusterBits: 9, backing: BACKING } },
  { name: 'an unknown extension', spec: { extensions: [UNKNOWN] } },
  {
    name: 'an unknown extension, a backing file',
    spec: { extensions: [UNKNOWN], backing: BACKING },
  },
  { name: 'a long name', spec: { backing: { ...BACKING, name: 'n'.repeat(1000) } } },
  { name: 'a name at the second sector', spec: { backing: { ...BACKING, name: 'n'.repeat(420) } } },
];

/** All that the other version must not lose. */
function keptIn(storage: MemoryStorage) {
  const { version, headerLength, extensions, ...header } = readHeader(storage);
  const { featureNames, ...others } = extensions;
  const geometry = { ...header.geometry, version: 0 };
  return JSON.stringify({ ...header, backingFileOffset: 0, geometry, others }, bigints);
}

function bigints(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value;
}

function built(spec: Partial<ImageSpec>): MemoryStorage {
  return new MemoryStorage(buildImage({ size: 1 << 20, ...spec }).bytes);
}

describe('upgradeHeader(), downgradeHeader()', () => {
  const folder = useTempFolder();
  printSeed();

  for (const { name, spec } of IMAGES) {
    it(`change the version and keep all else: ${name}`, () => {
      const storage = built({ version: 2, ...spec });
      const before = keptIn(storage);
      const { extensions } = readHeaderParts(storage);
      upgradeHeader(storage);
      expect(readHeader(storage).version).to.equal(3);
      expect(keptIn(storage)).to.equal(before);
      const path = folder.write('image.qcow2', storage.bytes);
      qemuImg(
        'check',
        '-f',
        'qcow2',
        `json:{"driver":"qcow2","file.filename":"${path}","backing":null}`,
      );
      downgradeHeader(storage);
      expect(readHeader(storage).version).to.equal(2);
      expect(keptIn(storage)).to.equal(before);
      expect(readHeaderParts(storage).extensions).to.deep.equal(extensions);
      writeFileSync(path, storage.bytes);
      qemuImg('info', path);
    });

    it(`are done or not done after a crash: ${name}`, () => {
      const storage = built({ version: 2, ...spec });
      const before = keptIn(storage);
      const random = new Random(SEED);
      for (const change of [upgradeHeader, downgradeHeader, upgradeHeader]) {
        const recorder = new RecordingStorage(storage.bytes, 'image');
        change(recorder);
        for (const { bytes, description } of crashStates(recorder.recording, STATES, random)) {
          expect(keptIn(new MemoryStorage(bytes)), description).to.equal(before);
        }
        storage.bytes = Uint8Array.from(recorder.bytes);
      }
    });
  }

  it('name the features for older programs, as QEMU does', () => {
    const storage = built({ version: 2 });
    upgradeHeader(storage);
    const path = folder.at('made.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', path, '1M');
    const made = readHeader(new MemoryStorage(readFileSync(path)));
    const upgraded = readHeader(storage);
    expect(upgraded.extensions).to.deep.equal(made.extensions);
    expect(upgraded.headerLength).to.equal(made.headerLength);
  });
});

describe('setDataFileName()', () => {
  const dataFile = { name: 'data.raw' };

  it('changes the name alone, and keeps what it does not know', () => {
    const headerTail = Buffer.from('fields of a later day');
    const storage = built({ dataFile, extensions: [UNKNOWN], headerTail });
    const before = readHeaderParts(storage);
    for (const name of ['x', 'a/longer/name.raw', 'n'.repeat(600), '']) {
      setDataFileName(storage, name);
      const after = readHeaderParts(storage);
      expect(after.fields).to.deep.equal(before.fields);
      const others = ({ extensions }: typeof before) =>
        extensions.filter(({ data }) => !Buffer.from(data).equals(Buffer.from(name)));
      expect(others(after)).to.deep.equal(others(before).filter(({ data }) => data.length !== 8));
      if (name !== '') expect(readHeader(storage).extensions.dataFile).to.equal(name);
    }
  });
});
