/** `rebase` and `commit` that are stopped, or killed, in the middle: the chain reads as before. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { qemuImg, qemuIo, qemuRead, tryQemuImg } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

const MAIN = fileURLToPath(import.meta.resolve('#src/cli/main.js'));
const COMMANDS = {
  rebase: ['-b', 'other.qcow2', '-F', 'qcow2'],
  'rebase to nothing': ['-b', ''],
  // Slow enough to be met in the middle.
  commit: ['-r', '20M'],
};

describe('a command that ends early', () => {
  const temp = useTempFolder();

  function makeChain(): string {
    qemuImg('create', '-q', '-f', 'qcow2', temp.at('base.qcow2'), '64M');
    qemuIo(temp.at('base.qcow2'), 'write -P 1 0 40M', 'write -P 2 50M 10M');
    qemuImg('create', '-q', '-f', 'qcow2', temp.at('other.qcow2'), '64M');
    qemuIo(temp.at('other.qcow2'), 'write -P 1 0 1M', 'write -P 3 30M 34M');
    const top = temp.at('top.qcow2');
    const backing = ['-b', 'base.qcow2', '-F', 'qcow2'];
    qemuImg('create', '-q', '-f', 'qcow2', ...backing, top);
    qemuIo(top, 'write -P 5 5M 30M', 'write -z 35M 5M');
    return top;
  }

  /** Ends the command when it says that it is somewhere in the middle; answers how it ended. */
  async function endEarly(words: readonly string[], signal?: NodeJS.Signals) {
    const command = [MAIN, ...words, '--progress=json'];
    const child = spawn(process.execPath, command, {
      cwd: temp.path,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let said = '';
    child.stdout.on('data', (text: Buffer) => {
      said += text.toString();
      const middle = said.split('\n').some((line) => Number(/[\d.]+/.exec(line)?.[0] ?? 0) > 0);
      if (middle && signal !== undefined) child.kill(signal);
    });
    const [status] = (await once(child, 'close')) as [number | null];
    return status;
  }

  for (const [name, options] of Object.entries(COMMANDS)) {
    for (const signal of ['SIGINT', 'SIGKILL'] as const) {
      it(`${name}: ${signal} leaves all in order`, async () => {
        const top = makeChain();
        const bytes = qemuRead(top);
        const words = [name.split(' ')[0]!, ...options, 'top.qcow2'];
        const status = await endEarly(words, signal);
        // 0: where the machine was faster than the signal.
        expect(status).to.be.oneOf([signal === 'SIGINT' ? 130 : null, 0]);
        expect(qemuRead(top).equals(bytes)).to.equal(true);
        for (const image of ['top.qcow2', 'base.qcow2']) {
          const check = tryQemuImg('check', temp.at(image));
          // 3: leaked clusters, after a kill.
          expect(check.status, check.stdout).to.be.oneOf(signal === 'SIGINT' ? [0] : [0, 3]);
        }
        if (status === 0) return;
        const info = JSON.parse(qemuImg('info', '--output=json', top));
        expect(info['backing-filename']).to.equal('base.qcow2');
        expect(await endEarly(words)).to.equal(0);
        expect(qemuRead(top).equals(bytes)).to.equal(true);
      });
    }
  }
});
