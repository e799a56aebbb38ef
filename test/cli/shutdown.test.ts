import { spawnSync } from 'node:child_process';
import { expect } from 'chai';

const SRC = (name: string): string => import.meta.resolve(`#src/${name}.js`);

/**
 * A process with a mount whose `unmount(lazy)` is `unmount`, and `finish` its last flush; `act` is what
 * happens to it.
 */
function run(unmount: string, act: string, finish = 'return true;') {
  const script = `
    import { watchForEnd } from '${SRC('cli/shutdown')}';
    import { ImageError, SysError, ERRNO } from '${SRC('errors')}';
    const calls = [];
    const heard = [];
    const shutdown = watchForEnd((words) => heard.push(words.split('\\n')[0]));
    const unmount = (lazy) => { calls.push(lazy); ${unmount} };
    const finish = () => { calls.push('finish'); ${finish} };
    shutdown.mounted({ target: '/mnt', unmount, finish });
    const stay = setTimeout(() => {}, 10_000);
    const kill = () => process.kill(process.pid, 'SIGTERM');
    ${act}
    const outcome = await shutdown.ended;
    clearTimeout(stay);
    process.stdout.write(JSON.stringify({ ...outcome, calls, heard }));`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    timeout: 20_000,
  });
  return { ...JSON.parse(stdout || '{}'), stderr };
}

describe('watchForEnd()', () => {
  it('takes a busy mount out of the tree, and ends at once', () => {
    const busy = `if (!lazy) throw new SysError('umount', ERRNO.EBUSY); return true;`;
    const { stderr, ...result } = run(busy, 'kill();');
    expect(result).to.deep.equal({
      ...{ status: 0, atOnce: true, heard: [] },
      calls: [false, true, 'finish'],
    });
    expect(stderr).to.match(/SIGTERM: the mount is in use/);
  });

  it('ends with status 1 where nothing can unmount, and says why, not that it is in use', () => {
    const { stderr, ...result } = run(`throw new SysError('umount', ERRNO.EPERM);`, 'kill();');
    expect(result.calls).to.deep.equal([false, true, 'finish']);
    expect(result).to.include({ status: 1, atOnce: true });
    expect(stderr).to.match(/SIGTERM: umount: EPERM\n.*SIGTERM: umount: EPERM\n$/);
  });

  it('waits for the end of the mount after the first signal, not after the second', () => {
    const result = run('return true;', 'kill(); setTimeout(kill, 100);');
    expect(result).to.include({ status: 0, atOnce: true, stderr: '' });
    expect(result.calls).to.deep.equal([false, true, 'finish']);
  });

  for (const [what, finish] of [
    ['fails', 'return false;'],
    ['has a bug', `throw new Error('a bug');`],
  ] as const) {
    it(`ends with status 1 where the last flush ${what}`, () => {
      const busy = `if (!lazy) throw new SysError('umount', ERRNO.EBUSY); return true;`;
      expect(run(busy, 'kill();', finish)).to.include({ status: 1, atOnce: true });
    });
  }

  for (const [what, act] of [
    ['an exception', `setTimeout(() => { throw new TypeError('a bug'); }, 1);`],
    ['a rejection', `Promise.reject(new TypeError('a bug'));`],
  ] as const) {
    it(`logs ${what} that nobody caught, unmounts and ends with status 1`, () => {
      const { stderr, ...result } = run(`throw new Error('no');`, act);
      const heard = ['internal error: TypeError: a bug'];
      expect(result).to.deep.equal({ status: 1, atOnce: true, calls: [true, 'finish'], heard });
      expect(stderr).to.match(/internal error: TypeError: a bug[^\n]*\n.*after an error: no\n$/);
    });
  }
});
