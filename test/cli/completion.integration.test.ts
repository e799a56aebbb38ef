/** The completion scripts, in real shells: what is offered for a line that is typed. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { expect } from 'chai';
import { COMMANDS } from '#src/cli/commands.js';
import { OPTIONS } from '#src/cli/command-options.js';
import { CLI, lacking, skipSuite } from '../helpers/mount.js';
import { useTempFolder } from '../helpers/temp.js';

/** Of each line, the last word in all the ways in which it can go on. */
const LINES: readonly (readonly [line: string, offered: readonly string[]])[] = [
  ['qcow2fs conv', ['convert']],
  ['qcow2fs convert --target', ['--target-image-opts', '--target-is-zero']],
  ['qcow2fs convert -O ', ['qcow', 'qcow2', 'qed', 'raw']],
  ['qcow2fs check -r ', ['all', 'leaks']],
  ['qcow2fs check --output=', ['human', 'json']],
  ['qcow2fs a b -o ca', ['cache-size=', 'cache=']],
  ['qcow2fs a b -o ro,ca', ['cache-size=', 'cache=']],
  ['qcow2fs a b --cache=write', ['writeback', 'writethrough']],
  ['qcow2fs completion ', ['bash', 'fish', 'zsh']],
  ['qcow2fs info disk', ['disk two.qcow2', 'disk.raw']],
  ['qcow2fs info --backing-root=s', ['sub']],
  ['qcow2fs io --misa', ['--misalign']],
  ['qcow2fs umo', ['umount']],
];

/** In both shells Ctrl-T puts in all that is offered, and Ctrl-G writes the line to a file. */
const BASH = `
source ./offer
bind 'set bell-style none'
bind '"\\C-t": insert-completions'
dump() { printf '%s\\n' "$READLINE_LINE" >> out; READLINE_LINE=; READLINE_POINT=0; }
bind -x '"\\C-g": dump'
`;
const ZSH = `
autoload -Uz compinit; compinit -u -D
source ./offer
zstyle ':completion:all:*' completer _all_matches _complete
zstyle ':completion:all:*' insert true
zle -C all complete-word _generic
bindkey '^T' all
dump() { print -r -- "$BUFFER" >> out; BUFFER= }
zle -N dump
bindkey '^G' dump
`;

describe('completion', () => {
  const temp = useTempFolder();
  skipSuite(() => lacking('script', 'bash', 'zsh', 'fish'));

  function prepare(shell: string): void {
    const { status, stdout } = spawnSync(CLI, ['completion', shell], { encoding: 'utf8' });
    expect(status).to.equal(0);
    writeFileSync(temp.at('offer'), stdout);
    for (const name of ['disk.raw', 'disk two.qcow2']) writeFileSync(temp.at(name), '');
    for (const name of ['sub', 'bin']) mkdirSync(temp.at(name));
    symlinkSync(CLI, temp.at('bin/qcow2fs'));
  }

  /** What the shell's lines become: the offered words, without what stands before them. */
  function typed(command: string): string[][] {
    const keys = LINES.map(([line]) => `${line}\x14\x07`).join('');
    const { stdout } = spawnSync('script', ['-qec', command, '/dev/null'], {
      ...{ cwd: dirname(temp.at('offer')), input: `${keys}exit\r`, encoding: 'utf8' },
      env: { ...environment(), ZDOTDIR: dirname(temp.at('offer')) },
    });
    const lines = readFileSync(temp.at('out'), 'utf8').trimEnd().split('\n');
    expect(lines, stdout).to.have.length(LINES.length);
    return lines.map((line, index) => offeredIn(line, LINES[index]![0]));
  }

  function environment() {
    return { ...process.env, PATH: `${temp.at('bin')}:${process.env.PATH}`, TERM: 'xterm' };
  }

  const expected = LINES.map(([, offered]) => offered);

  it('works in bash', () => {
    prepare('bash');
    writeFileSync(temp.at('rc'), BASH);
    expect(typed('bash --noprofile --rcfile rc -i')).to.deep.equal(expected);
  });

  it('works in zsh', () => {
    prepare('zsh');
    writeFileSync(temp.at('.zshrc'), ZSH);
    expect(typed('zsh -d -i')).to.deep.equal(expected);
  });

  it('works in fish', () => {
    prepare('fish');
    const ask = LINES.map(([line]) => `complete -C '${line}'; echo`).join('\n');
    const { stdout } = spawnSync('fish', ['--no-config', '-c', `source ./offer\n${ask}`], {
      ...{ cwd: dirname(temp.at('offer')), encoding: 'utf8', env: environment() },
    });
    const blocks = stdout.trimEnd().split('\n\n');
    const offered = blocks.map((block) =>
      block.split('\n').map((line) => lastPart(line.split('\t')[0]!)),
    );
    expect(offered.map((words) => words.sort(byName))).to.deep.equal(expected);
  });

  it('knows each command and each option', () => {
    for (const shell of ['bash', 'zsh', 'fish']) {
      const { stdout } = spawnSync(CLI, ['completion', shell], { encoding: 'utf8' });
      for (const { name, options } of COMMANDS) {
        expect(stdout).to.include(name);
        for (const { long } of options) if (long !== undefined) expect(stdout).to.include(long);
      }
    }
    expect(Object.keys(OPTIONS)).to.deep.equal(COMMANDS.map(({ name }) => name));
  });
});

/** The words behind the last one of what was typed. */
function offeredIn(line: string, before: string): string[] {
  const start = before.lastIndexOf(' ') + 1;
  const words =
    line
      .slice(start)
      .trim()
      .match(/(?:\\.|[^\\ ])+/g) ?? [];
  return words.map((word) => lastPart(word.replace(/\\(.)/g, '$1'))).sort(byName);
}

/** A value without its option, and an item without the list before it. */
function lastPart(word: string): string {
  const value = /^--[^=]*=(.+)$/.exec(word)?.[1] ?? word;
  return value.slice(value.lastIndexOf(',') + 1).replace(/\/$/, '');
}

function byName(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}
