/** What a mount says of itself, and in which form: to people, to programs, to systemd's journal. */
import { readFileSync, statSync, truncateSync } from 'node:fs';
import { expect } from 'chai';
import { CLI, noMounts, type Sandbox, skipSuite, until, useSandbox } from '../helpers/mount.js';
import { MIB, noise, writeSparse } from '../helpers/mount-images.js';

/** An image whose end is missing. */
async function makeCut(sandbox: Sandbox): Promise<string> {
  const raw = sandbox.path('truth.raw');
  writeSparse(raw, MIB, [{ at: 0, bytes: noise(3, MIB) }]);
  const image = sandbox.path('vm.qcow2');
  await sandbox.must('qemu-img', ['convert', '-O', 'qcow2', raw, image]);
  truncateSync(image, statSync(image).size - 65_536);
  return image;
}

describe('the messages of a mount', () => {
  skipSuite(noMounts);
  const box = useSandbox();

  it('are an object a line with log-format=json: the request, the errno, the file and the place', async () => {
    const image = await makeCut(box());
    const log = box().path('log');
    const options = ['-v', '-o', `log=${log},log-format=json`];
    const target = await box().mount(image, { options });
    expect((await box().run('cat', [`${target}/disk.raw`])).status).to.equal(1);
    await box().unmount(target);
    const lines = readFileSync(log, 'utf8').trimEnd().split('\n');
    const objects = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(objects[0]).to.include({ level: 'info', source: image, target });
    expect(objects.at(-1)).to.include({
      level: 'info',
      message: `${image} is released from ${target}`,
    });
    const told = objects.find(({ level }) => level === 'error')!;
    expect(told).to.include({ request: 'READ', node: 8, errno: 'EIO', file: image });
    expect(told.offset).to.be.a('number');
    expect(told.message).to.match(/^READ node 8: .* lies past the end of the file/);
    for (const { time, pid } of objects) {
      expect(new Date(time as string).toISOString()).to.equal(time);
      expect(pid).to.be.a('number');
    }
  });

  it('say nothing of what is in order, without -v', async () => {
    const image = box().path('vm.qcow2');
    await box().must('qemu-img', ['create', '-q', '-f', 'qcow2', image, '1M']);
    const log = box().path('log');
    await box().unmount(await box().mount(image, { options: [`--log=${log}`] }));
    expect(readFileSync(log, 'utf8')).to.equal('');
  });

  it("have the journal's priorities where standard error is the journal", async () => {
    const image = await makeCut(box());
    const target = box().folder();
    const script = 'JOURNAL_STREAM=$(stat -Lc %d:%i /dev/stderr) exec "$0" "$@"';
    const words = [process.execPath, CLI, image, target, '-f', '-v'];
    const running = box().start('bash', ['-c', script, ...words]);
    await until(() => running.stderr.includes('is served'), 'the mount');
    await box().run('cat', [`${target}/disk.raw`]);
    await box().unmount(target);
    const { stderr } = await running.ended();
    const lines = stderr.trimEnd().split('\n');
    expect(lines[0]).to.equal(`<6>${image} is served on ${target}`);
    expect(lines.at(-1)).to.equal(`<6>${image} is released from ${target}`);
    expect(lines.some((line) => line.startsWith('<3>READ node 8: '))).to.equal(true);
  });

  it('are refused in another form', async () => {
    const { status, stderr } = await box().cli(['vm.qcow2', 'mnt', '--log-format=xml']);
    expect(status).to.equal(1);
    expect(stderr).to.match(/'log-format': unknown word 'xml'/);
  });
});
