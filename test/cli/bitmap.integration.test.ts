/** `bitmap` and `convert --bitmaps` beside qemu-img's: words, exit codes, and bitmaps as QEMU reads them. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { BothTools } from '../helpers/both-tools.js';
import { CLI } from '../helpers/mount.js';
import { runInProcess } from '../helpers/in-process.js';
import { qemuImg, qemuIo, type ToolResult } from '../helpers/qemu.js';
import { qemuBitmaps, qemuDirty } from '../helpers/qemu-bitmaps.js';
import { useTempFolder } from '../helpers/temp.js';

const SIDES = ['qemu', 'ours'] as const;
const BITMAP = 'bitmap';

/** QEMU names nodes that have no name. */
function withoutNode({ status, stdout, stderr }: ToolResult): ToolResult {
  return {
    status,
    stdout,
    stderr: stderr.replace(/(persistent in|bitmaps to) [^ ]+: /, '$1 NODE: '),
  };
}

async function sameOnBoth(tools: BothTools, words: readonly string[]): Promise<void> {
  const theirs = withoutNode(tools.run('qemu', words));
  const ours = withoutNode(await runInProcess(words, tools.folder('ours')));
  expect(ours, words.join(' ')).to.deep.equal(theirs);
}

describe('qcow2fs bitmap', () => {
  const temp = useTempFolder();

  it('tells of a lock of its own', () => {
    const image = temp.at('a');
    qemuImg('create', '-q', '-f', 'qcow2', image, '1M');
    qemuImg(BITMAP, '--add', image, 'one');
    const words = [BITMAP, '--merge', 'one', '-b', image, image, 'one'];
    const { status, stderr } = spawnSync(process.execPath, [CLI, ...words], { encoding: 'utf8' });
    const lock = 'Failed to get shared "write" lock (in use by this process itself)';
    expect({ status, stderr }).to.deep.equal({
      status: 1,
      stderr: `qcow2fs: Could not open '${image}': ${lock}\n`,
    });
  });
});

describe('qemu-img bitmap', () => {
  const temp = useTempFolder();
  let tools: BothTools;

  beforeEach(() => {
    tools = new BothTools(temp);
    tools.make((folder) => {
      const at = (name: string) => join(folder, name);
      qemuImg('create', '-q', '-f', 'qcow2', at('a'), '10M');
      qemuImg('create', '-q', '-f', 'qcow2', at('b'), '10M');
      qemuImg(BITMAP, '--add', at('b'), 'of-b');
      qemuIo(at('b'), 'write 5M 64k');
    });
  });

  const same = (...words: string[]) => sameOnBoth(tools, words);

  /** The bitmaps must be the same on both sides, as QEMU reads them. */
  function sameBitmaps(image: string): void {
    const [theirs, ours] = SIDES.map((side) => {
      const path = tools.at(side, image);
      return qemuBitmaps(path).map((listed) => {
        const isBroken = listed.flags.includes('in-use');
        return { ...listed, dirty: isBroken ? [] : qemuDirty(path, listed.name) };
      });
    });
    expect(ours).to.deep.equal(theirs);
    qemuImg('check', tools.at('ours', image));
  }

  it('says the same of wrong words and of what cannot be', async () => {
    tools.make((folder) => {
      const at = (name: string) => join(folder, name);
      qemuImg('create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', at('v2'), '10M');
      qemuImg('create', '-q', '-f', 'raw', at('r'), '1M');
      qemuImg('create', '-q', '-f', 'qcow2', at('large'), '4T');
      qemuImg('create', '-q', '-f', 'qcow2', at('b20'), '20M');
      qemuImg(BITMAP, '--add', at('b20'), 's');
    });
    const lines = `
      a x|--add a|--add a x y|--enable -g 64k a x|--add -g 63k a x|--add -g 256 a x|--add -g x a x
      --add -g 4G a x|--add -g 8G a x|--add -f raw r x|--clear -f raw r x|--add v2 x
      --add -g 512 large x|--remove a x|--clear a x|--enable a x|--disable a x|--merge x a x
      --merge x -b gone b of-b|--add -b b a x|--add -F qcow2 a x|--merge s -b b20 b of-b
      --merge s -b b20 -F raw b of-b|--merge x -b b20 b of-b|--merge of-b b of-b|--add b of-b
      --add -f qcow2 --image-opts a x|--add -U a x|--foo a x|--merge|--add gone x|--add -g 0 a x`;
    for (const line of lines.split(/[|\n]/).map((text) => text.trim())) {
      if (line !== '') await same(BITMAP, ...line.split(' '));
    }
    await same(BITMAP, '--add', 'a', '');
    await same(BITMAP, '--add', 'a', 'x'.repeat(1024));
    sameBitmaps('a');
    sameBitmaps('b');
  });

  it('does the same, several actions in their order, and what comes before one that fails', async () => {
    const lines = `
      --add a one|--add --disable --granularity 4k a two|--add --merge of-b -b b -F qcow2 a three
      --merge three a two|--disable --merge two a one|--clear --merge three a two|--enable a two
      --add --merge gone a four|--remove --add a two|--clear a three|--add --remove a five
      --remove --image-opts driver=qcow2,file.filename=a one`;
    for (const line of lines.split(/[|\n]/).map((text) => text.trim())) {
      if (line !== '') await same(BITMAP, ...line.split(' '));
    }
    sameBitmaps('a');
    for (const name of ['two', 'three', 'four']) await same(BITMAP, '--remove', 'a', name);
    sameBitmaps('a');
  });

  it('leaves inconsistent ones as they are, but for removing them', async () => {
    for (const side of SIDES) {
      const path = tools.at(side, 'b');
      expect(() => qemuIo(path, 'abort')).to.throw();
    }
    for (const what of ['clear', 'enable', 'disable', 'add'])
      await same(BITMAP, `--${what}`, 'b', 'of-b');
    await same(BITMAP, '--add', '--merge', 'of-b', 'b', 'x');
    await same(BITMAP, '--merge', 'gone', 'b', 'of-b');
    await same(BITMAP, '--merge', 'gone', '-b', 'a', 'b', 'of-b');
    await same(BITMAP, '--merge', 'of-b', '-b', 'b', 'a', 'gone');
    await same('resize', 'b', '20M');
    await same('amend', '-o', 'size=20M', 'b');
    await same('snapshot', '-c', 's', 'b');
    await same('snapshot', '-a', 's', 'b');
    await same('convert', '--bitmaps', '-O', 'qcow2', 'b', 'c');
    await same('convert', '--bitmaps', '--skip-broken-bitmaps', '-O', 'qcow2', 'b', 'c');
    await same('measure', '-O', 'qcow2', 'b');
    sameBitmaps('b');
    sameBitmaps('c');
    await same(BITMAP, '--remove', '--add', 'b', 'of-b');
    sameBitmaps('b');
  });

  it('are out of date once another program has written, and are told of', async () => {
    tools.make((folder) => {
      const path = join(folder, 'b');
      const bytes = readFileSync(path);
      bytes.fill(0, 88, 96);
      writeFileSync(path, bytes);
    });
    for (const line of [
      'info b --output=json',
      'map b',
      'measure -O qcow2 b',
      'compare b b',
      'convert -O raw b raw',
      'snapshot -l b',
      'check b',
      'bitmap --add b of-b',
      'check -r leaks b',
    ]) {
      const words = line.split(' ');
      const theirs = tools.run('qemu', words);
      const ours = await runInProcess(words, tools.folder('ours'));
      // No line's end behind QEMU's words.
      const told = (text: string) => text.replaceAll('fix.', 'fix.\n').replaceAll('\n\n', '\n');
      expect(told(ours.stderr), line).to.equal(told(theirs.stderr));
      expect(ours.status, line).to.equal(theirs.status);
    }
    sameBitmaps('b');
  });

  it('copies them into another image', async () => {
    tools.make((folder) => {
      const at = (name: string) => join(folder, name);
      qemuImg(BITMAP, '--add', '-g', '512', at('b'), 'fine');
      qemuIo(at('b'), 'write 100k 1k');
      qemuImg(BITMAP, '--disable', at('b'), 'fine');
      qemuImg('create', '-q', '-f', 'qcow2', at('larger'), '20M');
      qemuImg('create', '-q', '-f', 'qcow2', at('same'), '10M');
      qemuImg(BITMAP, '--add', at('same'), 'of-b');
      qemuImg('create', '-q', '-f', 'qcow2', '-b', 'b', '-F', 'qcow2', at('over'));
      qemuImg(BITMAP, '--add', at('over'), 'x');
      qemuImg('snapshot', '-c', 's', at('b'));
    });
    const convert = (...words: string[]) => same('convert', '--bitmaps', '-O', 'qcow2', ...words);
    await convert('b', 'c');
    sameBitmaps('c');
    await convert('-c', '-o', 'cluster_size=512', 'b', 'small');
    sameBitmaps('small');
    await convert('-o', 'preallocation=metadata', 'b', 'metadata');
    sameBitmaps('metadata');
    await convert('-B', 'b', '-F', 'qcow2', 'over', 'copy');
    sameBitmaps('copy');
    await convert('-n', 'b', 'larger');
    await convert('-n', 'b', 'same');
    sameBitmaps('larger');
    sameBitmaps('same');
    await convert('b', 'b', 'two');
    await convert('-o', 'compat=0.10', 'b', 'old');
    await convert('-f', 'raw', 'b', 'plain');
    await same('convert', '--bitmaps', '-O', 'raw', 'b', 'raw');
  });
});

describe('bitmaps of an image that is written to', () => {
  const temp = useTempFolder();
  let tools: BothTools;
  beforeEach(() => {
    tools = new BothTools(temp);
  });

  function sameDirty(image: string, names: readonly string[]): void {
    for (const name of names) {
      const [theirs, ours] = SIDES.map((side) => qemuDirty(tools.at(side, image), name));
      expect(ours, name).to.deep.equal(theirs);
    }
    const [theirs, ours] = SIDES.map((side) => qemuBitmaps(tools.at(side, image)));
    expect(ours).to.deep.equal(theirs);
    qemuImg('check', tools.at('ours', image));
  }

  it('are as QEMU keeps them: commands on the disk, commit, rebase, resize, amend', async () => {
    tools.make((folder) => {
      const at = (name: string) => join(folder, name);
      qemuImg('create', '-q', '-f', 'qcow2', at('base'), '4M');
      qemuIo(at('base'), 'write -P 1 0 1M');
      qemuImg('create', '-q', '-f', 'qcow2', at('other'), '4M');
      qemuImg(BITMAP, '--add', at('base'), 'b');
      qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', at('top'), '8M');
      qemuImg(BITMAP, '--add', '-g', '512', at('top'), 'fine');
      qemuImg(BITMAP, '--add', '--disable', '-g', '1M', at('top'), 'off');
    });
    const io = (...commands: string[]) => {
      qemuIo(tools.at('qemu', 'top'), ...commands);
      tools.io(tools.at('ours', 'top'), ...commands);
    };
    io('write 1000 3000', 'write -z 1M 64k', 'write -z -u 2M 100k', 'discard 3M 512k');
    io('write -c 5M 64k', 'writev 6M 1k 2k');
    sameDirty('top', ['fine', 'off']);
    await sameOnBoth(tools, ['resize', 'top', '12M']);
    sameDirty('top', ['fine', 'off']);
    io('write 11M 1M', 'truncate 6M');
    sameDirty('top', ['fine', 'off']);
    await sameOnBoth(tools, ['amend', '-o', 'size=10M', 'top']);
    await sameOnBoth(tools, ['amend', '-o', 'refcount_bits=8', 'top']);
    sameDirty('top', ['fine', 'off']);
    await sameOnBoth(tools, ['rebase', '-b', 'other', '-F', 'qcow2', 'top']);
    await sameOnBoth(tools, ['rebase', '-u', '-b', 'base', '-F', 'qcow2', 'top']);
    sameDirty('top', ['fine', 'off']);
    await sameOnBoth(tools, ['snapshot', '-c', 's', 'top']);
    await sameOnBoth(tools, ['snapshot', '-a', 's', 'top']);
    await sameOnBoth(tools, ['snapshot', '-d', 's', 'top']);
    await sameOnBoth(tools, ['commit', 'top']);
    sameDirty('top', ['fine', 'off']);
    sameDirty('base', ['b']);
  });
});
