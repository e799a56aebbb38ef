/** The names in a mount of many images, without a mount: what keeps its number, and what gets another. */
import {
  mkdirSync,
  mkdtempSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { Catalogue, type Folder, type ImageFile } from '#src/mount/catalogue.js';
import { ROOT_ID } from '#src/mount/node.js';

describe('Catalogue', () => {
  let source: string;
  let catalogue: Catalogue;
  const free = new Set<number>();
  const open = new Set<number>();
  const renewed: number[] = [];

  beforeEach(() => {
    source = realpathSync(mkdtempSync(join(tmpdir(), 'qcow2fs-catalogue-')));
    for (const set of [free, open]) set.clear();
    renewed.length = 0;
    catalogue = make([{ name: '', path: source }]);
  });
  afterEach(() => rmSync(source, { recursive: true }));

  const make = (sources: { name: string; path: string }[]) =>
    new Catalogue({
      ...{ sources, target: join(source, 'mnt'), format: undefined },
      isMount: () => false,
      isFree: (member) => free.has(member),
      renew: (member) => renewed.push(member),
      isOpen: (member) => open.has(member),
    });
  const root = () => catalogue.folder(ROOT_ID);
  const write = (name: string, text = 'x') => writeFileSync(join(source, name), text);
  const names = (folder: Folder, from = 0) => catalogue.list(folder, from).map(({ name }) => name);
  const image = (name: string) => catalogue.lookup(root(), name)!.what as ImageFile;
  const codeOf = (body: () => unknown) => {
    try {
      body();
      return '';
    } catch (error) {
      return (error as { code: string }).code;
    }
  };

  it('lists images and folders in order; new names come last, and places stay', () => {
    for (const name of ['b.qcow2', 'a.img', 'no.txt']) write(name);
    mkdirSync(join(source, 'sub'));
    mkdirSync(join(source, 'mnt'));
    expect(names(root())).to.deep.equal(['a.img', 'b.qcow2', 'sub']);
    const { place } = catalogue.lookup(root(), 'b.qcow2')!;
    write('a.qcow2');
    rmSync(join(source, 'a.img'));
    expect(names(root(), place)).to.deep.equal(['sub']);
    expect(names(root())).to.deep.equal(['b.qcow2', 'sub', 'a.qcow2']);
    expect(catalogue.lookup(root(), 'b.qcow2')!.place).to.equal(place);
  });

  it('lists more than one answer holds, each name once', () => {
    for (let n = 0; n < 300; n++) write(`n${n}.qcow2`);
    const all: string[] = [];
    for (let from = 0; ; ) {
      const found = catalogue.list(root(), from);
      if (found.length === 0) break;
      all.push(...found.map(({ name }) => name));
      from = found.at(-1)!.place;
    }
    expect(new Set(all).size).to.equal(300);
    expect(all).to.have.length(300);
  });

  it('gives another number to what has changed, unless it is open, and to another file always', () => {
    write('a.qcow2');
    const first = image('a.qcow2');
    expect(image('a.qcow2')).to.equal(first);
    open.add(first.member);
    write('a.qcow2', 'longer');
    expect(image('a.qcow2')).to.equal(first);
    write('new', 'other');
    renameSync(join(source, 'new'), join(source, 'a.qcow2'));
    const second = image('a.qcow2');
    expect(second.member).not.to.equal(first.member);
    expect([first.gone, second.gone]).to.deep.equal([true, false]);
    write('a.qcow2', 'changed while closed');
    expect(image('a.qcow2').member).not.to.equal(second.member);
    expect(new Set(renewed).size).to.equal(3);
  });

  it('forgets what is gone when nobody knows it any more', () => {
    write('a.qcow2');
    const { member } = image('a.qcow2');
    rmSync(join(source, 'a.qcow2'));
    expect(catalogue.lookup(root(), 'a.qcow2')).to.equal(undefined);
    catalogue.sweep();
    expect(catalogue.image(member).gone).to.equal(true);
    free.add(member);
    catalogue.sweep();
    expect(codeOf(() => catalogue.image(member))).to.equal('ESTALE');
  });

  it('drops a folder with all that lies in it, whatever comes in its place', () => {
    mkdirSync(join(source, 'sub/deep'), { recursive: true });
    write('sub/deep/a.qcow2');
    let enough = 0;
    catalogue.walk(() => enough++ > 100);
    const sub = catalogue.lookup(root(), 'sub')!.what as Folder;
    const [inside] = [...catalogue.images()];
    rmSync(join(source, 'sub'), { recursive: true });
    write('sub', 'a file');
    expect(catalogue.lookup(root(), 'sub')).to.equal(undefined);
    expect(inside!.gone).to.equal(true);
    expect(codeOf(() => catalogue.folder(sub.id))).to.equal('ESTALE');
    expect(codeOf(() => catalogue.statOf(sub))).to.equal('ESTALE');
  });

  it('follows links to files of the source alone, and shows what the user named whatever it is', () => {
    write('a.qcow2');
    symlinkSync('a.qcow2', join(source, 'link.qcow2'));
    symlinkSync('/etc/passwd', join(source, 'out.raw'));
    symlinkSync('.', join(source, 'self'));
    expect(names(root())).to.deep.equal(['a.qcow2', 'link.qcow2']);
    write('notes.txt');
    catalogue = make([{ name: 'notes', path: join(source, 'notes.txt') }]);
    expect(image('notes').format).to.equal('raw');
    rmSync(join(source, 'notes.txt'));
    expect(names(root())).to.deep.equal([]);
    write('notes.txt');
    expect(names(root())).to.deep.equal(['notes']);
    expect(catalogue.lookup(root(), 'other')).to.equal(undefined);
  });
});
