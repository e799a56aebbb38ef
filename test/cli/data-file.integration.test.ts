/** Images with an external data file, against QEMU's tools: what is read, and all bytes of the data file. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { expect } from 'chai';
import { BothTools } from '../helpers/both-tools.js';
import { CLI } from '../helpers/mount.js';
import { useTempFolder } from '../helpers/temp.js';

describe('an image with a data file', () => {
  const temp = useTempFolder();
  let tools: BothTools;
  beforeEach(() => {
    tools = new BothTools(temp);
  });

  function io(...commands: string[]): void {
    const words = [...commands.flatMap((command) => ['-c', command]), 'a'];
    const strip = ({ status, stderr }: { status: number | null; stderr: string }) => [
      status,
      stderr,
    ];
    expect(strip(tools.runIo('ours', words))).to.deep.equal(strip(tools.runIo('qemu', words)));
  }

  function sameData(name: string): void {
    const [theirs, ours] = [tools.at('qemu', name), tools.at('ours', name)].map((path) =>
      readFileSync(path),
    );
    expect(ours!.equals(theirs!), name).to.equal(true);
  }

  for (const raw of ['', ',data_file_raw=on']) {
    it(`is written to, discarded and resized, and its data file is the same${raw}`, () => {
      const options = `data_file=d.raw,cluster_size=64k${raw}`;
      tools.same(['create', '-q', '-f', 'qcow2', '-o', options, 'a', '4M']);
      io('write -P 1 0 4M', 'discard 1M 128k', 'write -z -u 2M 64k', 'write -z 3M 30k');
      sameData('d.raw');
      // Parts of clusters are not discarded.
      io('discard 3500k 3k', 'discard 100k 200k', 'discard 4000k 96k');
      sameData('d.raw');
      tools.same(['resize', '-q', 'a', '6M']);
      io('write -P 5 5M 64k');
      tools.same(['resize', '-q', '--shrink', 'a', '5200k']);
      sameData('d.raw');
      tools.same(['resize', '-q', '--preallocation=full', 'a', '6M']);
      sameData('d.raw');
      expect(tools.run('qemu', ['check', '-q', tools.at('ours', 'a')]).status).to.equal(0);
    });
  }

  it('opens by a data file that it does not name', () => {
    const options = 'data_file=d.raw';
    tools.same(['create', '-q', '-f', 'qcow2', '-o', options, 'a', '1M']);
    io('write -P 3 64k 64k');
    tools.same(['amend', '-o', 'data_file=', 'a']);
    tools.same(['check', 'a']);
    const facts = (side: 'qemu' | 'ours') => {
      const { status, stdout } = tools.run(side, ['info', '--output=json', 'a']);
      return [status, JSON.parse(stdout)['format-specific']];
    };
    expect(facts('ours')).to.deep.equal(facts('qemu'));
    expect(tools.same(['map', 'a']).status).to.equal(1);
    const name = 'driver=qcow2,file.filename=a,data-file.driver=file,data-file.filename=d.raw';
    tools.same(['map', '--output=json', '--image-opts', name]);
    tools.same(['amend', '--image-opts', '-o', 'data_file=d.raw', name]);
    tools.same(['map', '--output=json', 'a']);
  });

  for (const there of [false, true]) {
    it(`is gone with its data file where its making ends by a signal${there ? ', but for what was there' : ''}`, async () => {
      temp.write('source', Buffer.alloc(32 << 20, 7));
      if (there) temp.write('d.raw', 'text');
      const options = ['-f', 'raw', '-O', 'qcow2', '-o', 'data_file=d.raw', 'source', 'new'];
      const words = ['convert', '-r', '1M', '--progress=json', ...options];
      const child = spawn(process.execPath, [CLI, ...words], { cwd: temp.path });
      child.stdout.on('data', () => child.kill('SIGINT'));
      expect((await once(child, 'close'))[0]).to.equal(130);
      const left = readdirSync(temp.path).filter((name) => name === 'new' || name === 'd.raw');
      expect(left).to.deep.equal(there ? ['d.raw'] : []);
    });
  }
});
