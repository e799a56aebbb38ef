/** Workers that have bugs or die: the request gets EIO, the mount lives on. */
import { readdirSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { findMount } from '#src/fuse/mountinfo.js';
import { FAULTS, type Fault, RELEASE_VARIABLE, sectorOf, WAIT_SECTOR } from '../helpers/faults.js';
import {
  noMounts,
  type Running,
  type Sandbox,
  skipSuite,
  until,
  useSandbox,
} from '../helpers/mount.js';
import {
  expectSame,
  expectSameDirect,
  MIB,
  noise,
  type Window,
  wholeOf,
  writeSparse,
} from '../helpers/mount-images.js';

const HOST = fileURLToPath(new URL('../helpers/mount-host.js', import.meta.url));
const SIZE = 32 * MIB;

/** What the main thread says of each. */
const WORDS: Readonly<Record<Fault, RegExp>> = {
  bug: /^qcow2fs: READ node 8: internal error: TypeError: a bug made for a test/m,
  exit: /^qcow2fs: worker \d+ died and is replaced: exit code 1$/m,
  goodExit: /^qcow2fs: worker \d+ died and is replaced: exit code 0$/m,
  uncaught: /^qcow2fs: worker \d+ died and is replaced: Error: an error made for a test/m,
  inLoad: /^qcow2fs: worker \d+ died and is replaced: exit code 5$/m,
};

describe('WorkerPool', () => {
  skipSuite(noMounts);
  const box = useSandbox();
  let truth: Window;
  let mnt: string;
  let host: Running;
  let file: string;

  async function start(
    sandbox: Sandbox,
    workers: number,
    env: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    const raw = sandbox.path('truth.raw');
    writeSparse(raw, SIZE, [{ at: 0, bytes: noise(1, SIZE - 3 * MIB) }]);
    truth = wholeOf(raw);
    const image = sandbox.path('vm.qcow2');
    const options = ['-t', 'unsafe', '-O', 'qcow2', '-o', 'cluster_size=4k'];
    await sandbox.must('qemu-img', ['convert', ...options, raw, image]);
    mnt = sandbox.folder();
    host = sandbox.start(process.execPath, [HOST, image, mnt, String(workers)], { env });
    await until(() => host.stdout.includes('ready') || host.child.exitCode !== null, 'ready');
    file = `${mnt}/disk.raw`;
  }

  /** Reads one sector; answers what dd says. */
  async function readSector(sector: number): Promise<string> {
    const words = ['iflag=direct', 'bs=512', 'count=1', `skip=${sector}`, 'status=none'];
    return (await box().run('dd', [`if=${file}`, 'of=/dev/null', ...words])).stderr;
  }

  async function end(): Promise<void> {
    await box().unmount(mnt);
    const { status, stdout } = await host.ended();
    expect({ status, stdout }).to.deep.equal({ status: 0, stdout: 'ready\nclosed\n' });
    expect(findMount(mnt)).to.equal(undefined);
  }

  for (const fault of FAULTS) {
    for (const workers of fault === 'exit' || fault === 'inLoad' ? [1, 3] : [1]) {
      it(`answers EIO and lives on after '${fault}', again and again: ${workers} workers`, async () => {
        await start(box(), workers);
        for (let pair = 0; pair < 8; pair++) {
          expect(await readSector(sectorOf(fault, pair))).to.include('Input/output error');
          // The next sector, and one that shares its slice with the one that failed.
          expect(await readSector(sectorOf(fault, pair) + 100)).to.equal('');
          expect(await readSector(sectorOf(fault, pair) + 2000)).to.equal('');
        }
        await expectSame(box(), file, truth);
        await until(() => WORDS[fault].test(host.stderr), 'the log tells of it');
        await end();
      });
    }
  }

  it('lives on with many images: what dies in one leaves none of them open for ever', async () => {
    const raw = box().path('truth.raw');
    writeSparse(raw, 8 * MIB, [{ at: 0, bytes: noise(1, 8 * MIB) }]);
    const source = box().folder('source');
    const names = ['a.qcow2', 'b.qcow2', 'c.qcow2'];
    for (const name of names) {
      await box().must('qemu-img', ['convert', '-O', 'qcow2', raw, `${source}/${name}`]);
    }
    mnt = box().folder();
    host = box().start(process.execPath, [HOST, source, mnt, '2']);
    await until(() => host.stdout.includes('ready') || host.child.exitCode !== null, 'ready');
    for (let pair = 0; pair < 3; pair++) {
      for (const [index, name] of names.entries()) {
        file = `${mnt}/${name}/disk.raw`;
        const fault = (['exit', 'bug', 'inLoad'] as const)[(pair + index) % 3]!;
        expect(await readSector(sectorOf(fault, pair)), fault).to.include('Input/output error');
        await expectSame(box(), file, wholeOf(raw));
      }
    }
    const held = () =>
      readdirSync(`/proc/${host.pid}/fd`).filter((fd) => {
        return isImage(`/proc/${host.pid}/fd/${fd}`);
      }).length;
    await until(() => held() === 0, 'all are closed when nobody uses them');
    await end();
  });

  it('logs a bug once, with where it was, however often it is met', async () => {
    await start(box(), 1);
    for (let times = 0; times < 3; times++) await readSector(sectorOf('bug', 1));
    await end();
    expect(host.stderr.match(/a bug made for a test/g)).to.have.lengthOf(1);
    expect(host.stderr).to.match(/faulty-worker/);
  });

  it('serves others rightly while its workers die, all at the same time as well', async () => {
    await start(box(), 3);
    let dying = true;
    const deaths = (async () => {
      for (let pair = 0; pair < 12; pair++) {
        const faults = FAULTS.map((fault) => readSector(sectorOf(fault, pair)));
        for (const said of await Promise.all(faults)) expect(said).to.include('Input/output error');
      }
      dying = false;
    })();
    const readers = [1, 2, 3].map(async (index) => {
      while (dying) await expectSameDirect(box(), file, truth, index * 300_001);
    });
    const looker = (async () => {
      while (dying) expect((await box().run('ls', ['-lR', mnt])).status).to.equal(0);
    })();
    await Promise.all([deaths, ...readers, looker]);
    await expectSame(box(), file, truth);
    await end();
  });

  it('leaves no descriptors behind when it replaces workers', async () => {
    await start(box(), 2);
    const count = () => readdirSync(`/proc/${host.pid}/fd`).length;
    const die = async () => {
      for (let pair = 0; pair < 6; pair++) await readSector(sectorOf('exit', pair));
      await readSector(0);
    };
    await die();
    await settled(host.pid, count);
    const before = count();
    await die();
    await die();
    await until(() => count() <= before, 'as many descriptors as before');
    await end();
  });

  it('finishes requests whose reader is killed, and takes the INTERRUPT', async () => {
    const release = box().path('release');
    await start(box(), 2, { [RELEASE_VARIABLE]: release, QCOW2FS_TEST_TRACE: '1' });
    const skip = `skip=${MIB / 512 + WAIT_SECTOR}`;
    const words = [`if=${file}`, 'of=/dev/null', 'iflag=direct', 'bs=512', 'count=1', skip];
    const reader = box().start('dd', words);
    await until(() => host.stderr.includes('waiting for release'), 'the read is being served');
    reader.kill('SIGKILL');
    await until(() => /INTERRUPT #\d+/.test(host.stderr), 'the kernel tells of the signal');
    expect(await readSector(0), 'by the other worker').to.equal('');
    writeFileSync(release, '');
    expect((await reader.ended()).status).to.equal(null);
    await expectSame(box(), file, truth);
    await end();
  });

  it('mounts nothing where a worker cannot start', async () => {
    const image = box().path('vm.raw');
    writeSparse(image, MIB, []);
    mnt = box().folder();
    const { status, stderr } = await box().run(process.execPath, [
      HOST,
      image,
      mnt,
      '2',
      './none.js',
    ]);
    expect(status).to.equal(1);
    expect(stderr).to.include('none.js');
    expect(findMount(mnt)).to.equal(undefined);
  });

  it('ends while a worker is being replaced', async () => {
    await start(box(), 2);
    expect(await readSector(sectorOf('exit', 1))).to.include('Input/output error');
    host.child.kill('SIGTERM');
    expect(await host.ended()).to.include({ status: 0, stdout: 'ready\nclosed\n' });
    expect(statSync(mnt).isDirectory()).to.equal(true);
  });
});

/** Whether a descriptor is one of an image; it may be closed meanwhile. */
function isImage(fd: string): boolean {
  try {
    return readlinkSync(fd).endsWith('.qcow2');
  } catch {
    return false;
  }
}

/** Waits until a count has stayed the same for a while. */
async function settled(pid: number, count: () => number): Promise<void> {
  let same = 0;
  for (let last = count(); same < 20; ) {
    await new Promise((done) => setTimeout(done, 20));
    const now = count();
    same = now === last ? same + 1 : 0;
    last = now;
    if (!readdirSync('/proc').includes(String(pid))) throw new Error('the process is gone');
  }
}
