/** Mounts of encrypted images: where their keys come from, and what is said without. */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { makeLuksImage } from '../helpers/encrypted.js';
import { PASSPHRASE, SECRET } from '../helpers/image-words.js';
import { CLI, lacking, noMounts, skipSuite, useSandbox } from '../helpers/mount.js';
import { contentOf, put } from '../helpers/mount-write.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';

const SIZE = 1 << 20;

describe('a mount of an encrypted image', () => {
  skipSuite(() => noMounts() ?? lacking('script'));
  const sandbox = useSandbox('suite');
  let image = '';
  let key = '';
  const disk = Buffer.alloc(SIZE).fill(7, 5000, 105_000);

  before(async () => {
    image = sandbox().path('disk.qcow2');
    key = sandbox().path('key');
    writeFileSync(key, PASSPHRASE);
    await makeLuksImage(image, SIZE, 'encrypt.iter-time=0');
    qemuIo(image, 'write -P 7 5000 100000');
  });

  async function expectMounted(path: string, ...options: string[]): Promise<void> {
    const target = await sandbox().mount(path, { options });
    expect(readFileSync(join(target, 'disk.raw')).equals(disk)).to.equal(true);
    const info = JSON.parse(readFileSync(join(target, 'disk.info.json'), 'utf8'));
    expect(info.encrypted).to.equal(path === image ? true : undefined);
    await sandbox().unmount(target);
  }

  async function expectRefused(message: RegExp, ...options: string[]): Promise<void> {
    const { status, stderr } = await sandbox().cli([image, sandbox().folder(), ...options]);
    expect(status).to.equal(1);
    expect(stderr).to.match(message).and.not.contain(PASSPHRASE);
  }

  it('opens by a file or a secret, with an overlay over it, too', async () => {
    await expectMounted(image, '-o', `key-file=${key}`);
    await expectMounted(image, '--object', `secret,id=s,file=${key}`, '-o', 'key-secret=s');
    const target = await sandbox().mount(image, { options: ['-o', `overlay,key-file=${key}`] });
    expect(readFileSync(join(target, 'disk.raw')).equals(disk)).to.equal(true);
    await sandbox().unmount(target);
  });

  it('is written to, whole sectors and parts of them', async () => {
    const target = await sandbox().mount(image, { options: ['-o', `rw,key-file=${key}`] });
    const fill = (value: number, at: number, length: number) => {
      put(join(target, 'disk.raw'), at, Buffer.alloc(length, value));
      disk.fill(value, at, at + length);
    };
    fill(1, 0, 512);
    fill(2, 70_001, 3);
    fill(3, 300_500, 90_100);
    fill(4, SIZE - 1, 1);
    expect(readFileSync(join(target, 'disk.raw')).equals(disk)).to.equal(true);
    await sandbox().unmount(target);
    expect(contentOf(image).equals(disk)).to.equal(true);
  });

  it('tries each key on each layer', async () => {
    const over = sandbox().path('over.qcow2');
    const aes = 'encrypt.format=aes,encrypt.key-secret=o,backing_fmt=qcow2';
    const other = ['--object', 'secret,id=o,data=other'];
    const below = `backing_file=${image}`;
    qemuImg('create', ...other, '-f', 'qcow2', '-u', '-o', `${aes},${below}`, over, `${SIZE}`);
    const options = [...other, ...SECRET, '-o', 'key-secret=o:s'];
    const target = await sandbox().mount(over, { options });
    expect(readFileSync(join(target, 'disk.raw')).equals(disk)).to.equal(true);
    await sandbox().unmount(target);
  });

  it('says what is missing, or wrong', async () => {
    await expectRefused(/the image is encrypted: 'key-file' or 'key-secret' gives/);
    await expectRefused(/option 'key-file': \/none: No such file/, '-o', 'key-file=/none');
    await expectRefused(/No secret with id 't'/, ...SECRET, '-o', 'key-secret=t');
    await expectRefused(/Invalid password/, '-o', `key-file=${image}`);
  });

  it('asks on the terminal, without showing what is typed, and passes it to the daemon', async () => {
    const target = sandbox().folder();
    const command = `'${process.execPath}' '${CLI}' '${image}' '${target}'`;
    const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: 'pipe' });
    let shown = '';
    const answers = ['wrong\n', `${PASSPHRASE}x\x7f\n`];
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      shown += text;
      for (let asked = text.split('Passphrase of').length - 1; asked > 0; asked--) {
        child.stdin.write(answers.shift()!);
      }
    });
    const status = await new Promise((ended) => child.once('close', ended));
    expect(shown).to.match(/^Passphrase of .*disk\.qcow2: \s*Passphrase of .*disk\.qcow2: \s*$/);
    expect(status).to.equal(0);
    expect(readFileSync(join(target, 'disk.raw')).equals(disk)).to.equal(true);
    await sandbox().unmount(target);
  });
});
