/** Signals that meet commands: SIGUSR1 opens no inspector, and how a command ended is told by its status. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, readdirSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { expect } from 'chai';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
import { CLI } from '../helpers/mount.js';
import { useTempFolder } from '../helpers/temp.js';

describe('a command that a signal meets', () => {
  const temp = useTempFolder();

  it('goes on after SIGUSR1, though it has no progress to tell, and opens no inspector', async () => {
    qemuImg('create', '-q', '-f', 'qcow2', temp.at('a.qcow2'), '1M');
    const child = spawn(process.execPath, [CLI, 'io', temp.at('a.qcow2')]);
    let [said, wrong] = ['', ''];
    child.stderr.on('data', (text: Buffer) => {
      wrong += text.toString();
    });
    const answered = async (line: string, answer: RegExp) => {
      child.stdin.write(`${line}\n`);
      while (!answer.test(said)) said += (await once(child.stdout, 'data')).toString();
    };
    await answered('length', /1 MiB/);
    for (let n = 0; n < 3; n++) child.kill('SIGUSR1');
    await answered('write 0 512', /wrote 512\/512/);
    child.stdin.end('quit\n');
    expect(await once(child, 'close')).to.deep.equal([0, null]);
    expect(wrong).to.equal('');
  });

  /** What it says of its progress, in percent, and how it ended. */
  async function progressOf([command, ...more]: readonly string[], signal?: NodeJS.Signals) {
    const child = spawn(process.execPath, [CLI, command!, '--progress=json', ...more], {
      cwd: temp.path,
    });
    let said = '';
    child.stdout.on('data', (text: Buffer) => {
      said += text.toString();
      if (signal !== undefined) child.kill(signal);
    });
    const [status] = (await once(child, 'close')) as [number | null];
    const lines = said.split('\n').filter((line) => line.startsWith('{"progress":'));
    return { status, steps: lines.map((line) => JSON.parse(line).progress as number) };
  }

  it('check, create and dd tell how far they are', async () => {
    const create = ['create', '-f', 'qcow2', '-o', 'preallocation=full', 'a.qcow2', '32M'];
    for (const words of [create, ['check', 'a.qcow2'], ['dd', 'if=a.qcow2', 'of=a.raw']]) {
      const { status, steps } = await progressOf(words);
      expect(status, words[0]!).to.equal(0);
      expect([steps[0], steps.at(-1)], words[0]!).to.deep.equal([0, 100]);
    }
  });

  it('check ends by SIGINT, and leaves the image as it was', async () => {
    const image = temp.at('a.qcow2');
    const options = ['-o', 'preallocation=metadata'];
    qemuImg('create', '-q', '-f', 'qcow2', ...options, image, '256G');
    const { status, steps } = await progressOf(['check', image], 'SIGINT');
    // 0: where the machine was faster than the signal.
    expect(status).to.equal(steps.at(-1) === 100 ? 0 : 130);
    qemuImg('check', image);
  });

  for (const [format, options] of [
    ['qcow2', ''],
    ['qcow2', 'cluster_size=512,preallocation=metadata'],
    ['qcow2', `data_file=data.raw,data_file_raw=on`],
    ['raw', ''],
  ] as const) {
    it(`resize that ends by a signal leaves the size as it was: ${format} ${options}`, async () => {
      const placed = options.replace('data.raw', temp.at('data.raw'));
      const words = options === '' ? [] : ['-o', placed];
      qemuImg('create', '-q', '-f', format, ...words, temp.at('a.img'), '1M');
      qemuIo(temp.at('a.img'), 'write -P 5 0 1M');
      const resize = ['resize', '-f', format, '--preallocation=full', 'a.img'];
      const { status, steps } = await progressOf([...resize, '300M'], 'SIGTERM');
      // 0: where the machine was faster than the signal.
      expect(status).to.equal(steps.at(-1) === 100 ? 0 : 143);
      const size = status === 0 ? 300 << 20 : 1 << 20;
      const info = JSON.parse(qemuImg('info', '--output=json', '-f', format, temp.at('a.img')));
      expect(info['virtual-size']).to.equal(size);
      if (format === 'qcow2') qemuImg('check', temp.at('a.img'));
      if (format === 'raw' || options.startsWith('data')) {
        expect(statSync(temp.at(format === 'raw' ? 'a.img' : 'data.raw')).size).to.equal(size);
      } else if (status !== 0) expect(statSync(temp.at('a.img')).blocks).to.be.below(8192);
      const more = await progressOf([...resize, '+1M']);
      expect([more.status, more.steps.at(-1)]).to.deep.equal([0, 100]);
      const read = qemuIo(temp.at('a.img'), 'read -P 5 0 1M', `read -P 0 1M ${size}`);
      expect(read).not.to.match(/verification failed/);
    });
  }

  /** Sends a signal when clusters move. */
  async function compactMetBy(signal: NodeJS.Signals, image: string): Promise<number | null> {
    const child = spawn(process.execPath, [CLI, 'compact', '--progress=json', image]);
    let said = '';
    child.stdout.on('data', (text: Buffer) => {
      said += text.toString();
      const steps = [...said.matchAll(/"progress":([\d.]+)\}/g)];
      if (steps.some(([, at]) => Number(at) > 15)) child.kill(signal);
    });
    const [status] = (await once(child, 'close')) as [number | null];
    return status;
  }

  /** What it says when it is asked as soon as it has the image open. */
  async function compactAsked(image: string): Promise<string> {
    const child = spawn(process.execPath, [CLI, 'compact', '-q', image]);
    const closed = once(child, 'close');
    let said = '';
    child.stderr.on('data', (text: Buffer) => {
      said += text.toString();
    });
    const folder = `/proc/${child.pid}/fd`;
    const hasOpen = () => {
      try {
        return readdirSync(folder).some((fd) => readlinkSync(join(folder, fd)) === image);
      } catch {
        return false;
      }
    };
    while (child.exitCode === null && !hasOpen()) await setTimeout(1);
    child.kill('SIGUSR1');
    expect((await closed)[0]).to.equal(0);
    return said;
  }

  it('compact ends by a signal while it moves clusters, and goes on the next time', async () => {
    const [image, original, whole] = [temp.at('image'), temp.at('original'), temp.at('whole')];
    qemuImg('create', '-q', '-f', 'qcow2', image, '256M');
    qemuIo(image, 'write -P 1 0 64M', 'write -P 2 64M 48M', 'discard 0 63M');
    copyFileSync(image, original);
    copyFileSync(image, whole);
    expect((await progressOf(['compact', whole])).status).to.equal(0);
    for (const [signal, expected] of [
      ['SIGINT', 130],
      ['SIGTERM', 143],
    ] as const) {
      let status: number | null = 0;
      // Where the machine is faster than the signal, once more.
      for (let tries = 0; status === 0 && tries < 10; tries++) {
        copyFileSync(original, image);
        status = await compactMetBy(signal, image);
      }
      expect(status).to.equal(expected);
      expect(qemuImg('check', image)).to.match(/No errors were found/);
      qemuImg('compare', image, original);
    }
    expect(await compactAsked(image)).to.match(/^ {4}\(\d+\.\d\d\/100%\)\n$/);
    expect(statSync(image).size).to.equal(statSync(whole).size);
    expect(qemuImg('check', image)).to.match(/No errors were found/);
    qemuImg('compare', image, original);
  });

  for (const [signal, expected] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    it(`ends with ${expected} by ${signal}`, async () => {
      qemuImg('create', '-q', '-f', 'raw', temp.at('base.raw'), '64M');
      const top = temp.at('top.qcow2');
      qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', top);
      qemuIo(top, 'write -P 5 0 64M');
      // So slow that it ends by the signal alone.
      const words = ['commit', '-r', '1M', '--progress=json', top];
      const child = spawn(process.execPath, [CLI, ...words], { stdio: ['ignore', 'pipe', 'pipe'] });
      child.stdout.once('data', () => child.kill(signal));
      expect(await once(child, 'close')).to.deep.equal([expected, null]);
    });
  }
});
