import { spawnSync } from 'node:child_process';
import { symlinkSync } from 'node:fs';
import { expect } from 'chai';
import { COMMANDS } from '#src/cli/commands.js';
import { CLI } from '../helpers/mount.js';
import { useTempFolder } from '../helpers/temp.js';

describe('--help', () => {
  const temp = useTempFolder();

  function run(tool: string, ...words: string[]): string {
    const { status, stdout, stderr } = spawnSync(tool, words, { encoding: 'utf8' });
    expect({ status, stderr }, words.join(' ')).to.deep.equal({ status: 0, stderr: '' });
    return stdout;
  }

  it('knows every command, in order, with what it does', () => {
    const names = COMMANDS.map(({ name }) => name);
    expect(names).to.deep.equal([...names].sort());
    const all = run(CLI, '--help');
    for (const { name, usage, summary } of COMMANDS) {
      expect(usage).to.match(new RegExp(`^\\[?${name}\\b`));
      expect(all).to.include(`  qcow2fs ${usage}\n      ${summary}\n`);
    }
  });

  it('tells of each command, whatever words are beside it', () => {
    for (const { name, usage, summary } of COMMANDS) {
      const text = run(CLI, name, '--help');
      expect(text.startsWith(`Usage: qcow2fs ${usage}\n    ${summary}\n`), name).to.equal(true);
    }
    expect(run(CLI, 'info', '-h', 'gone')).to.match(/^Usage: qcow2fs info /);
  });

  it('goes by the name that it is called by', () => {
    symlinkSync(CLI, temp.at('qemu-img'));
    const all = run(temp.at('qemu-img'), '--help');
    for (const { usage, image } of COMMANDS) {
      expect(all.includes(`  qemu-img ${usage}\n`), usage).to.equal(image === true);
    }
    expect(run(temp.at('qemu-img'), 'map', '--help')).to.match(/^Usage: qemu-img map /);
  });
});
