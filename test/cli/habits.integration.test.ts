/** What a user expects of any program: a manual, hints, plain output, and to be told what is missing. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { COMMANDS } from '#src/cli/commands.js';
import { MOUNT_OPTIONS } from '#src/cli/options.js';
import { CLI, lacking, skipSuite } from '../helpers/mount.js';
import { useTempFolder } from '../helpers/temp.js';

const NOBODY = 65534;

function run(command: string, words: readonly string[], env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(command, words, {
    ...{ encoding: 'utf8', env: { ...process.env, LC_ALL: 'C.UTF-8', ...env } },
  });
  return { status, stdout, stderr };
}

describe('the manual page', () => {
  const temp = useTempFolder();
  skipSuite(() => lacking('man', 'mandoc'));

  const plain = (text: string) => text.replace(/…/g, '...');

  /** What man(1) shows of a page, which is the one that was built, and has no faults. */
  function shown(name: string, file: string): string {
    const { stdout: page } = run(CLI, ['man', name]);
    expect(readFileSync(new URL(`../man/${file}`, `file://${CLI}`), 'utf8')).to.equal(page);
    writeFileSync(temp.at(file), page);
    const lint = run('mandoc', ['-Tlint', '-W', 'warning', temp.at(file)]);
    expect(lint).to.include({ status: 0, stdout: '' });
    const words = ['--warnings', '-l', temp.at(file)];
    const { status, stdout, stderr } = run('man', words, { MANWIDTH: '1000', MANPAGER: 'cat' });
    expect({ status, stderr }).to.deep.equal({ status: 0, stderr: '' });
    return stdout;
  }

  it('tells of every command and option', () => {
    const stdout = shown('qcow2fs', 'qcow2fs.1');
    for (const { usage, options } of COMMANDS) {
      expect(stdout).to.include(plain(usage));
      for (const { help } of options) expect(stdout).to.include(plain(help));
    }
    for (const { name, help } of MOUNT_OPTIONS)
      expect(stdout).to.include(name).and.include(plain(help));
  });

  it('of the helper of mount(8) tells of every mount option', () => {
    const page = shown('mount.qcow2fs', 'mount.qcow2fs.8');
    for (const { name, help } of MOUNT_OPTIONS)
      expect(page).to.include(name).and.include(plain(help));
    expect(run(CLI, ['man', 'mount'])).to.include({ status: 1 });
  });
});

describe('a mistyped command', () => {
  const temp = useTempFolder();

  it('is told with what was meant', () => {
    for (const [word, meant] of [
      ['chekc', 'check'],
      ['convrt', 'convert'],
      ['unmount', 'umount'],
      ['inf', 'info'],
      ['hlep', 'help'],
    ] as const) {
      const message = `qcow2fs: '${word}' is no command and no file: did you mean '${meant}'?\n`;
      const { status, stderr } = run(CLI, [word, 'x']);
      expect(status).to.equal(1);
      expect(stderr.startsWith(message), stderr).to.equal(true);
    }
  });

  it('may be an image that is there, or a word that is like none', () => {
    writeFileSync(temp.at('chekc'), '');
    for (const word of [temp.at('chekc'), 'frobnicate']) {
      expect(run(CLI, [word, '/gone']).stderr).not.to.include('did you mean');
    }
  });
});

describe('qcow2fs doctor', () => {
  it('tells people and programs the same', () => {
    const json = run(CLI, ['doctor', '--output=json']);
    const { ok, checks } = JSON.parse(json.stdout);
    expect(json.status).to.equal(ok ? 0 : 1);
    const human = run(CLI, ['doctor']);
    expect(human.status).to.equal(json.status);
    for (const { name, health, found, remedy } of checks) {
      expect(human.stdout).to.include(`${health.padEnd(10)}${name}`);
      if (!found.includes('free')) expect(human.stdout).to.include(found);
      expect(remedy === undefined).to.equal(health === 'ok');
      if (remedy !== undefined) expect(human.stdout).to.include(remedy);
    }
  });

  it('finds what a container lacks', function () {
    if (process.geteuid!() !== 0 || lacking('unshare', 'setpriv') !== null) this.skip();
    // A /dev without fuse and loop devices, and no right to mount.
    const hide =
      'mount -t tmpfs none /dev/shm && touch /dev/shm/null && mount --move /dev/shm /dev';
    const become = 'exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin -- "$@"';
    const script = `${hide} && ${become}`;
    const words = ['--mount', 'sh', '-c', script, 'sh', process.execPath, CLI, 'doctor'];
    const { status, stdout } = run('unshare', [...words, '--output=json']);
    const states = new Map<string, string>(
      JSON.parse(stdout).checks.map(({ name, health }: Record<string, string>) => [name, health]),
    );
    expect(status).to.equal(1);
    expect(states.get('/dev/fuse')).to.equal('missing');
    expect(states.get('right to mount')).to.equal('missing');
    expect(states.get('loop devices')).to.equal('optional');
  });

  it('tells an ordinary user of fusermount3 and allow_other', function () {
    if (process.geteuid!() !== 0 || lacking('setpriv') !== null) this.skip();
    const become = [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--no-new-privs'];
    const { stdout } = run('setpriv', [...become, '--', process.execPath, CLI, 'doctor']);
    if (stdout === '') this.skip();
    expect(stdout).to.match(/^missing +fusermount3 .*new privileges are forbidden/m);
    expect(stdout)
      .to.match(/allow_other/)
      .and.match(/^ok +user name +nobody$/m);
  });

  it('tells whether mount(8) finds its helpers, and tries image locks on a file', function () {
    if (process.geteuid!() !== 0 || lacking('unshare', 'mount') !== null) this.skip();
    const script = `
      set -e
      mount -t tmpfs none /dev/shm && mkdir /dev/shm/upper /dev/shm/work && cd /dev/shm
      sbin=$(readlink -f /sbin)
      mount -t overlay -o "lowerdir=$sbin,upperdir=/dev/shm/upper,workdir=/dev/shm/work" none "$sbin"
      "$@" doctor
      "$@" install-helpers
      "$@" doctor
      ln -sfn /nowhere /sbin/umount.qcow2fs
      "$@" doctor`;
    const words = ['--mount', 'sh', '-c', script, 'sh', process.execPath, CLI];
    const { stdout } = run('unshare', words);
    const lines = stdout
      .split('\n')
      .filter((line) => /^\w+ +mount helpers|> as root: rm/.test(line));
    expect(lines[0]).to.match(/^optional .*: no mount -t qcow2fs, no fstab$/);
    expect(lines[1]).to.match(/^ok /);
    expect(lines[2]).to.match(/^optional .*\/umount\.qcow2fs: links that lead nowhere$/);
    expect(lines[3]).to.include('rm /sbin/umount.qcow2fs && qcow2fs install-helpers');
    expect(stdout).to.match(/^ok +image locks +\/dev\/shm knows them, tried on a file$/m);
  });

  it('is coloured on terminals, but not where NO_COLOR is set', function () {
    if (lacking('script') !== null) this.skip();
    const words = ['-qec', `${process.execPath} ${CLI} doctor; true`, '/dev/null'];
    expect(run('script', words, { TERM: 'xterm', NO_COLOR: '' }).stdout).to.include('\x1b[32m');
    expect(run('script', words, { TERM: 'xterm', NO_COLOR: '1' }).stdout).not.to.include('\x1b');
    expect(run(CLI, ['doctor']).stdout).not.to.include('\x1b');
  });
});

describe('a program whose native library is missing', () => {
  it('says so, and what it needs', () => {
    const hook =
      "import Module from 'node:module'; const load = Module._load; Module._load = function (name, ...more) {" +
      "if (name.startsWith('@koromix/')) throw new Error('no koffi here'); return load.call(this, name, ...more); };";
    const words = ['--import', `data:text/javascript,${encodeURIComponent(hook)}`, CLI];
    const examined = run(process.execPath, [...words, 'doctor']);
    expect(examined.status).to.equal(1);
    expect(examined.stdout).to.match(/^missing +program .*cannot be loaded: no koffi here/m);
    expect(examined.stdout).to.include('install it again');
    const { status, stderr } = run(process.execPath, [...words, 'info', CLI]);
    expect(status).to.equal(1);
    expect(stderr).to.match(
      /^qcow2fs: .*@koromix.* cannot be loaded: no koffi here .*Node\.js 20 or later/,
    );
    // Nothing else is asked of it than words.
    expect(run(process.execPath, [...words, '--version']).status).to.equal(0);
  });
});
