import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { daemonChannel } from '#src/cli/daemon.js';

const MODULE = import.meta.resolve('#src/cli/daemon.js');

/** A command that makes a daemon of itself, as cli/mount does: `child` is what the daemon runs. */
function command(child: string): string {
  return `
    import * as fs from 'node:fs';
    import { daemonChannel, spawnDaemon } from '${MODULE}';
    const channel = daemonChannel();
    const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
    if (channel === undefined) {
      const again = ['--input-type=module', '-e', process.env.SCRIPT];
      process.exitCode = await spawnDaemon(again);
    } else {
      ${child}
    }`;
}

describe('spawnDaemon()', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'daemon-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  /** Runs the command to its end and to the end of its stdout and stderr. */
  function run(child: string) {
    const script = command(child);
    const result = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      cwd: directory,
      encoding: 'utf8',
      timeout: 20_000,
      env: { ...process.env, SCRIPT: script },
    });
    const { status, stdout, stderr } = result;
    return { status, stdout, stderr };
  }

  async function fileOfDaemon(name: string): Promise<string> {
    const path = join(directory, name);
    for (let tries = 0; tries < 200 && !existsSync(path); tries++) {
      await new Promise((done) => setTimeout(done, 25));
    }
    return readFileSync(path, 'utf8');
  }

  it('returns 0 when the daemon is ready, and lets go of stdout and stderr', async () => {
    const result = run(`
      const directory = process.cwd();
      fs.writeFileSync('relative', 'here');
      process.stderr.write('early\\n');
      channel.ready();
      console.error('late');
      console.log('late');
      while (!fs.existsSync(directory + '/go')) await sleep(20);
      const facts = {
        cwd: process.cwd(),
        links: [0, 1, 2].map((fd) => fs.readlinkSync('/proc/self/fd/' + fd)),
        marker: process.env.QCOW2FS_DAEMON_FD ?? null,
        session: Number(fs.readFileSync('/proc/self/stat', 'utf8').split(') ')[1].split(' ')[3]),
        pid: process.pid,
      };
      fs.writeFileSync(directory + '/facts.new', JSON.stringify(facts));
      fs.renameSync(directory + '/facts.new', directory + '/facts');`);
    expect(result).to.deep.equal({ status: 0, stdout: '', stderr: 'early\n' });
    expect(readFileSync(join(directory, 'relative'), 'utf8')).to.equal('here');
    writeFileSync(join(directory, 'go'), '');
    const { pid, ...facts } = JSON.parse(await fileOfDaemon('facts'));
    expect(facts).to.deep.equal({
      cwd: '/',
      links: ['/dev/null', '/dev/null', '/dev/null'],
      marker: null,
      session: pid,
    });
  });

  it("prints the daemon's reason and returns its code", () => {
    const result = run(`
      process.stderr.write('a warning\\n');
      channel.failed("no such image 'x'", 3);
      channel.ready();
      process.exitCode = 9;`);
    expect(result).to.deep.equal({
      status: 3,
      stdout: '',
      stderr: "a warning\nqcow2fs: no such image 'x'\n",
    });
  });

  it('waits until a failed daemon has gone', async () => {
    run(`
      channel.failed('no', 1);
      await sleep(300);
      fs.writeFileSync('gone', '');`);
    expect(existsSync(join(directory, 'gone'))).to.equal(true);
  });

  it('tells of a daemon that ends without a word, with what it wrote', () => {
    const thrown = run(`throw new Error('out of luck');`);
    expect(thrown.status).to.equal(1);
    expect(thrown.stderr).to.contain('Error: out of luck');
    expect(thrown.stderr).to.match(/qcow2fs: the daemon ended before .* ready: exit status 1\n$/);
    const silent = run('process.exit(0);');
    expect(silent.status).to.equal(1);
    expect(silent.stderr).to.match(/exit status 0\n$/);
  });

  it('tells of a daemon that is killed', () => {
    const result = run(`process.kill(process.pid, 'SIGKILL'); await sleep(5000);`);
    expect(result.status).to.equal(128 + 9);
    expect(result.stderr).to.match(/ready: killed by SIGKILL\n$/);
  });

  it('passes a signal on to a daemon that is not ready yet', () => {
    const result = run(`process.kill(process.ppid, 'SIGTERM'); await sleep(60_000);`);
    expect(result.status).to.equal(128 + 15);
    expect(result.stderr).to.match(/ready: killed by SIGTERM\n$/);
  });
});

describe('daemonChannel()', () => {
  afterEach(() => {
    delete process.env.QCOW2FS_DAEMON_FD;
  });

  it('is undefined in a process that nobody made a daemon', () => {
    expect(daemonChannel()).to.equal(undefined);
  });

  it('does not believe a marker that is left over', () => {
    process.env.QCOW2FS_DAEMON_FD = '700';
    expect(daemonChannel()).to.equal(undefined);
    expect(process.env.QCOW2FS_DAEMON_FD).to.equal(undefined);
  });
});
