/** `qcow2fs status`, and what a mount tells of itself in its own folder. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { CLI, noMounts, type Sandbox, skipSuite, until, useSandbox } from '../helpers/mount.js';
import { parseMetrics } from '../helpers/prometheus.js';

interface Shown {
  readonly mountpoint: string;
  readonly reachable: boolean;
  readonly problem?: string;
  readonly pid: number;
  readonly images: readonly Readonly<Record<string, number | string | boolean>>[];
  readonly requests: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

describe('qcow2fs status', () => {
  skipSuite(noMounts);
  const box = useSandbox('suite');
  let image: string;
  let mnt: string;
  before(async () => {
    image = box().path('a b.qcow2');
    await box().must('qemu-img', ['create', '-f', 'qcow2', image, '8M']);
    mnt = await box().mount(image, { options: ['-o', 'rw'] });
    writeFileSync(`${mnt}/disk.raw`, Buffer.alloc(256 << 10, 1), { flag: 'r+' });
    expect(readFileSync(`${mnt}/disk.raw`)).to.have.length(8 << 20);
  });

  async function shown(sandbox: Sandbox, words: readonly string[]): Promise<Shown[]> {
    const text = await sandbox.must(process.execPath, [CLI, 'status', '--output=json', ...words]);
    return (JSON.parse(text) as { mounts: Shown[] }).mounts;
  }

  it('tells what a mount has done', async () => {
    const [mount] = await shown(box(), [mnt]);
    expect(mount).to.include({ mountpoint: mnt, reachable: true });
    expect(mount!.images[0]).to.include({
      ...{ filename: image, format: 'qcow2', 'read-only': false, 'virtual-size': 8 << 20 },
      ...{ 'read-bytes': 8 << 20, 'written-bytes': 256 << 10, 'allocated-bytes': (256 + 64) << 10 },
    });
    const { READ, WRITE } = mount!.requests;
    expect(READ!.count).to.be.at.least(8);
    expect(WRITE!.errors).to.equal(0);
    expect(READ!['p99-seconds']).to.be.at.least(READ!['p50-seconds']!);
  });

  it('prints a table for people, of all mounts where none is named', async () => {
    // There may be others on this machine, dead ones too.
    const text = (await box().cli(['status'])).stdout;
    expect(text).to.include(`${mnt}: process `);
    expect(text).to.match(/^ {4}read {9}8 MiB in \d+ requests; .*\/s, \S+ requests\/s$/m);
    expect(text).to.match(/^ {2}READ +\d+ +0 +\d/m);
  });

  it('goes on with a line of JSON at a time, and tells of what was done between', async () => {
    const watch = box().startCli(['status', '--output=json', '--watch=0.2', mnt]);
    const lines = () => watch.stdout.split('\n').slice(0, -1);
    await until(() => lines().length >= 1, 'a first line');
    readFileSync(`${mnt}/disk.raw`);
    const rateOf = (line: string) =>
      (JSON.parse(line) as { mounts: Shown[] }).mounts[0]!.images[0]!['reads-per-second'];
    await until(
      () =>
        lines()
          .slice(1)
          .some((line) => Number(rateOf(line)) > 0),
      'a rate',
    );
    await until(() => Number(rateOf(lines().at(-1)!)) === 0, 'none');
    watch.kill('SIGINT');
    await watch.ended();
  });

  it('shows the same in a folder that is not listed, for Prometheus too', () => {
    expect(readdirSync(mnt)).not.to.include('.qcow2fs');
    const samples = parseMetrics(readFileSync(`${mnt}/.qcow2fs/metrics`, 'utf8'));
    const written = samples.find(({ name }) => name === 'qcow2fs_image_written_bytes_total');
    expect(written).to.deep.include({ value: 256 << 10, labels: { image } });
    const status = JSON.parse(readFileSync(`${mnt}/.qcow2fs/status.json`, 'utf8')) as Shown;
    expect(status.images).to.have.length(1);
  });

  it('tells of a mount over a file as well', async () => {
    const target = box().path('file');
    writeFileSync(target, '');
    await box().mount(image, { target, options: ['-o', 'force-share'] });
    expect(readFileSync(target)).to.have.length(8 << 20);
    const [mount] = await shown(box(), [target]);
    expect(mount!.images[0]).to.include({ filename: image, 'read-bytes': 8 << 20 });
    await box().unmount(target);
  });

  it('names a mount that does not answer, and one whose process has died', async () => {
    const other = await box().mount(image, { options: ['-o', 'force-share'] });
    const [mount] = await shown(box(), [other]);
    const { pid } = mount!;
    process.kill(pid, 'SIGSTOP');
    const hung = await box().cli(['status', other]);
    process.kill(pid, 'SIGCONT');
    expect(hung).to.include({ status: 1, stderr: '' });
    expect(hung.stdout).to.match(/it does not answer within 3 seconds$/m);
    process.kill(pid, 'SIGKILL');
    await until(() => !answers(other), 'its end');
    const dead = await box().cli(['status', '--output=json', other]);
    expect(dead.status).to.equal(1);
    const [told] = (JSON.parse(dead.stdout) as { mounts: Shown[] }).mounts;
    expect(told).to.include({ reachable: false, problem: 'its process has ended: unmount it' });
    await box().must('umount', [other]);
  });

  it('refuses what is no mount of ours', async () => {
    const { status, stderr } = await box().cli(['status', '/proc']);
    expect(status).to.equal(1);
    expect(stderr).to.include('of type proc (not fuse.qcow2fs)');
    expect((await box().cli(['status', '--watch=x', mnt])).stderr).to.include("not 'x'");
  });
});

function answers(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch {
    return false;
  }
}
