import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { statSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { lockHolders } from '#src/sys/locks.js';
import { useTempFolder } from '../helpers/temp.js';

const HOLDER = `
  import { openSync, writeSync } from 'node:fs';
  import { lockByte } from '${import.meta.resolve('#src/sys/locks.js')}';
  lockByte(openSync(process.argv[1], 'r'), 100);
  writeSync(1, 'held');
  process.stdin.resume();`;

describe('lockHolders()', () => {
  const folder = useTempFolder();
  let holder: ChildProcess | undefined;
  afterEach(() => holder?.kill('SIGKILL'));

  it('names the process with a lock on that byte of that file on that device', async () => {
    const path = folder.at('file');
    writeFileSync(path, '');
    holder = spawn(process.execPath, ['--input-type=module', '-e', HOLDER, path], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await once(holder.stdout!, 'data');
    const { dev, ino } = statSync(path);
    expect(lockHolders({ dev, ino }, 100)).to.deep.equal([holder.pid]);
    expect(lockHolders({ dev, ino }, 101)).to.deep.equal([]);
    expect(lockHolders({ dev: dev + 1, ino }, 100)).to.deep.equal([]);
  });
});
