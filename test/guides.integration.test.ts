/**
 * Every command line of the guides and of the README, as an ordinary user types it, and what it prints. `sudo` makes a command root's, in a
 * mount namespace with a /mnt, a /srv, an /sbin and an /etc/fstab of its own.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { problemsOf, resultsOf, type Step, scriptOf, stepsOf } from './helpers/console-blocks.js';
import { CLI, lacking, noMounts, skipSuite, unreadableBuild, useSandbox } from './helpers/mount.js';
import { ALICE, TOOLS, UserSpace } from './helpers/user-space.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const GUIDES = join(ROOT, 'native-notes', 'guides');

const NEEDED = ['mke2fs', 'debugfs', 'sfdisk', '7z', 'fuse2fs', 'losetup', 'mountpoint'];

/** A setuid copy of setpriv, which nobody outside can reach, is the namespace's sudo. */
const PREPARE = `
bin=/dev/shm/bin
mkdir -m 755 $bin
cp "$(command -v setpriv)" $bin/become
chmod 4755 $bin/become
printf '#!/bin/sh\\nexec %s/become --reuid=0 --regid=0 --clear-groups -- "$@"\\n' $bin > $bin/sudo
chmod 755 $bin/sudo
ln -s ${CLI} $bin/qcow2fs
mkdir -p /run/mount
for folder in /mnt /srv /run/mount; do mount -t tmpfs -o mode=755 none $folder; done
for folder in "$(readlink -f /sbin)" /etc; do
  own=/dev/shm/$(basename $folder)
  mkdir $own $own/upper $own/work
  mount -t overlay -o lowerdir=$folder,upperdir=$own/upper,workdir=$own/work none $folder
done
rm -f /etc/fstab /etc/fuse.conf
touch /etc/fstab /etc/fuse.conf
`;

/** What the blocks of a document begin with, each in a folder of its own. */
const FIXTURE = `
mkdir -p fixture/mnt root
cd fixture
echo hello > ../root/hello.txt
mke2fs -q -t ext4 -d ../root part.raw 16M
truncate -s 40M disk.raw
printf 'start=1MiB, size=16MiB, type=83\\nstart=20MiB, type=c\\n' | sfdisk -q disk.raw
dd if=part.raw of=disk.raw bs=1M seek=1 conv=notrunc,sparse status=none
rm part.raw
qemu-img convert -O qcow2 disk.raw plain.qcow2
mkdir -p images/web
cp plain.qcow2 images/web/vm.qcow2
head -c 200 plain.qcow2 > images/old.qcow2
for copy in disk upgrade base other renamed; do cp plain.qcow2 $copy.qcow2; done
for snapshot in monday tuesday; do
  qemu-io -f qcow2 -c "write -P 7 30M 64k" disk.qcow2 > /dev/null
  qemu-img snapshot -c $snapshot disk.qcow2
done
head -c 100000 /dev/zero > state.bin
${process.execPath} ${CLI} snapshot --vmstate state.bin -c before-upgrade upgrade.qcow2
for top in overlay top; do
  qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 $top.qcow2
  qemu-io -f qcow2 -c "write -P 8 32M 64k" $top.qcow2 > /dev/null
done
printf secret > key
printf other > new
luks=encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10
# QEMU's own gives up where the processor has other work.
${process.execPath} ${CLI} create -q --object secret,id=s,file=key -f qcow2 -o $luks encrypted.qcow2 64M
`;

/** Which image is the disk of a block, by its words; else it is one with two snapshots. */
const DISKS: readonly (readonly [words: RegExp, image: string])[] = [
  [/secret,id=s/, 'encrypted'],
  [/-c monday|before\.raw/, 'plain'],
  [/before-upgrade/, 'upgrade'],
];

/** Ends a mount of the step before, whoever made it. */
const END = 'if findmnt "$PWD/mnt"; then qcow2fs umount mnt || sudo qcow2fs umount mnt; fi';

/** What mounts: images, and the mount point. */
const MOUNTS = /^(sudo )?qcow2fs ((?!umount|snapshot|status)\S+ )+mnt\b/;

/** Each block in a folder of its own, and each mount on a free mount point. */
function beforeStep(steps: readonly Step[], index: number): string {
  const { block, command } = steps[index]!;
  const mounts = MOUNTS.test(command) ? END : '';
  if (index > 0 && steps[index - 1]!.block === block) return mounts;
  const inBlock = steps.filter((step) => step.block === block);
  const words = inBlock.flatMap((step) => [step.command, ...step.shown]).join('\n');
  const image = DISKS.find(([pattern]) => pattern.test(words))?.[1] ?? 'disk';
  const fill = `cp -r ~/fixture ~/${block} && cd ~/${block} && cp ${image}.qcow2 new.qcow2 && mv new.qcow2 disk.qcow2`;
  return `${END}\n${fill}`;
}

describe('the command lines of', () => {
  skipSuite(() => noMounts() ?? lacking(...TOOLS, ...NEEDED) ?? unreadableBuild());
  const box = useSandbox();
  let space: UserSpace | undefined;
  afterEach(() => {
    space?.close();
    space = undefined;
  });

  /** Runs them one after the other in a folder, which `prepare` has filled as root. */
  async function run(steps: readonly Step[], before: (index: number) => string, prepare = '') {
    space = await UserSpace.make(box(), { prepare: PREPARE });
    const folder = box().folder('work');
    await box().must('bash', ['-ec', `PATH=$PATH:/usr/sbin; cd "$0"; ${prepare}`, folder]);
    await box().must('chown', ['-R', `${ALICE}:${ALICE}`, folder]);
    const script = box().path('script');
    writeFileSync(script, `cd ${folder}\n${scriptOf(steps, before)}`);
    const path = ['/dev/shm/bin', dirname(process.execPath), process.env.PATH, '/usr/sbin:/sbin'];
    const words = [
      '-i',
      `HOME=${folder}`,
      `PATH=${path.join(':')}`,
      'LANG=C.UTF-8',
      'bash',
      script,
    ];
    const { stdout } = await space.start(ALICE, 'env', ...words).ended();
    return resultsOf(steps, stdout);
  }

  for (const name of ['README.md', 'native-notes/commands.md']) {
    it(name, async () => {
      const steps = stepsOf(readFileSync(join(ROOT, name), 'utf8'));
      expect(steps.length).to.be.above(10);
      const results = await run(steps, (index) => beforeStep(steps, index), FIXTURE);
      // What is not shown is not to the point there.
      expect(problemsOf(steps, results, true)).to.deep.equal([]);
    });
  }

  for (const name of readdirSync(GUIDES)) {
    it(`guides/${name}`, async () => {
      const steps = stepsOf(readFileSync(join(GUIDES, name), 'utf8'));
      expect(steps.length).to.be.above(5);
      expect(problemsOf(steps, await run(steps, () => ''))).to.deep.equal([]);
    });
  }
});
