/** The packed file, as an ordinary user installs it in a clean folder: it brings all that it needs. */
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { lacking, noMounts, skipSuite, unreadableBuild, useSandbox } from '../helpers/mount.js';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
/** Who has nothing here. */
const NOBODY = 65534;
const UNREACHABLE = /\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|ETIMEDOUT)\b/;

interface Packed {
  readonly filename: string;
  readonly size: number;
  readonly unpackedSize: number;
  readonly files: readonly { readonly path: string }[];
}

/** The manifests of all packages below a folder. */
function manifestsBelow(folder: string): Record<string, unknown>[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((path) => /(^|\/)package\.json$/.test(path))
    .map((path) => JSON.parse(readFileSync(join(folder, path), 'utf8')) as Record<string, unknown>);
}

describe('the packed package', () => {
  skipSuite(
    () => noMounts() ?? lacking('npm', 'fusermount3', 'unshare', 'setpriv') ?? unreadableBuild(),
  );
  const box = useSandbox('suite');
  let packed: Packed;
  let home: string;

  /** Runs a script as the user, in a folder of hers, with a /dev/fuse that she may open. */
  function asUser(script: string): { status: number | null; stdout: string; stderr: string } {
    const device =
      'mount -t tmpfs -o mode=755 qcow2fs-test /dev/shm; mknod -m 666 /dev/shm/fuse c 10 229; ' +
      'mount --bind /dev/shm/fuse /dev/fuse; ' +
      `exec setpriv --reuid=${NOBODY} --regid=${NOBODY} --clear-groups sh -ec "$0"`;
    const env = { ...process.env, HOME: home, PATH: `${home}/own/bin:${process.env.PATH}` };
    const words = ['--mount', 'sh', '-ec', device, script];
    return spawnSync('unshare', words, { cwd: home, env, encoding: 'utf8', timeout: 120_000 });
  }

  function succeed(script: string): string {
    const { status, stdout, stderr } = asUser(script);
    expect(status, `${script}\n${stdout}${stderr}`).to.equal(0);
    return stdout;
  }

  before(function () {
    home = box().folder();
    chmodSync(home, 0o755);
    const words = ['pack', '--json', '--ignore-scripts', '--pack-destination', home];
    const { stdout } = spawnSync('npm', words, { cwd: ROOT, encoding: 'utf8' });
    packed = (JSON.parse(stdout) as Packed[])[0]!;
    chownSync(home, NOBODY, NOBODY);
    const install = `npm install -g --prefix own --cache cache --ignore-scripts=false ./${packed.filename}`;
    const installed = asUser(`${install} --no-audit --no-fund --no-update-notifier`);
    if (UNREACHABLE.test(installed.stderr) && process.env.CI === undefined) {
      process.stdout.write('    skipped: the registry of packages cannot be reached\n');
      this.skip();
    }
    expect(installed.status, installed.stderr).to.equal(0);
  });

  it('holds what is needed, and nothing of tests and builds', () => {
    const paths = packed.files.map(({ path }) => path);
    expect(paths).to.include.members([
      ...['LICENSE', 'README.md', 'CHANGELOG.md', 'dist/LICENCES.txt', 'dist/index.d.ts'],
      ...['dist/man/qcow2fs.1', 'dist/man/mount.qcow2fs.8', 'dist/cli/main.js', 'dist/index.js'],
    ]);
    const other = paths.filter((path) => !/^(dist|native-notes|scripts\/systemd)\//.test(path));
    expect(other.sort()).to.deep.equal(['CHANGELOG.md', 'LICENSE', 'README.md', 'package.json']);
    expect(paths.filter((path) => /\.ts$/.test(path) && !/\.d\.ts$/.test(path))).to.deep.equal([]);
    expect(packed.size).to.be.below(1.5e6);
    expect(packed.unpackedSize).to.be.below(4e6);
  });

  it('comes with one package more, and no script of any runs', () => {
    const modules = join(home, 'own/lib/node_modules');
    const manifests = manifestsBelow(modules);
    expect(manifests.map(({ name }) => String(name).replace(/-[^-]*$/, '')).sort()).to.deep.equal([
      ...['@koromix/koffi-linux', 'qcow2fs'],
    ]);
    for (const { name, scripts = {} } of manifests) {
      expect(scripts, String(name)).not.to.have.any.keys(
        'preinstall',
        'install',
        'postinstall',
        'prepare',
      );
    }
    expect(succeed('npm ls -g --prefix own')).to.match(/qcow2fs@/);
    expect(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')).not.to.match(
      /"resolved"|https?:\/\/registry/,
    );
  });

  it('mounts, makes, converts and tells from where it is installed', () => {
    const said = succeed(`
      qcow2fs --version
      qcow2fs create -q -f qcow2 disk.qcow2 64M
      qcow2fs io -c 'write -P 7 1M 64k' disk.qcow2 >io.txt
      qcow2fs convert -c -O qcow2 -o compression_type=zstd disk.qcow2 small.qcow2
      qcow2fs compare disk.qcow2 small.qcow2
      qcow2fs info --output=json small.qcow2 >info.json
      mkdir mnt
      qcow2fs small.qcow2 mnt
      dd if=mnt/small.raw bs=1M skip=1 count=1 of=part status=none || status=failed
      qcow2fs umount mnt
      test -z "$status"
      man -l own/share/man/man1/qcow2fs.1 | head -n 3
    `);
    expect(said)
      .to.match(/^qcow2fs version \d/)
      .and.contain('Images are identical');
    expect(said).to.contain('QCOW2FS(1)');
    const part = readFileSync(join(home, 'part'));
    expect(part.equals(Buffer.concat([Buffer.alloc(65536, 7)], 1 << 20))).to.equal(true);
    const info = JSON.parse(readFileSync(join(home, 'info.json'), 'utf8')) as { format: string };
    expect(info.format).to.equal('qcow2');
  });

  it('is a library for a project of strict TypeScript, which needs no types but its own', () => {
    const project = join(home, 'project');
    mkdirSync(project);
    writeFileSync(join(project, 'package.json'), '{ "type": "module", "private": true }');
    writeFileSync(
      join(project, 'use.ts'),
      `import { checkImage, type Disk, type Image, ImageError, openImage, SysError } from 'qcow2fs';
       const image: Image = await openImage('../disk.qcow2', { writable: true, cache: 'none' });
       const snapshot: Disk = (image.takeSnapshot('x'), image.snapshot('x'));
       const bytes: Uint8Array = snapshot.read(1 << 20, 1);
       let kind: string | undefined;
       try { image.snapshot('none'); } catch (error) {
         if (error instanceof SysError) throw error;
         if (error instanceof ImageError) kind = error.kind + error.code + error.errno.toFixed();
       }
       for (const { host } of image.extents()) if (host !== null) host.file.length;
       { using closed = image; closed.flush(); }
       if (bytes[0] !== 7 || kind !== 'missingENOENT2' || checkImage('../disk.qcow2').leaks > 0) throw kind;
      `,
    );
    chownSync(project, NOBODY, NOBODY);
    const tsc = join(ROOT, 'node_modules/typescript/bin/tsc');
    succeed(`
      cd project
      npm install --cache ../cache --prefer-offline --no-audit --no-fund --no-update-notifier \\
        --no-save --ignore-scripts ../${packed.filename}
      node ${tsc} --strict --module nodenext --target es2022 --types '' --outDir . use.ts
      node use.js
    `);
  });
});
