/**
 * Every command line of the guides, as an ordinary user types it, and what it prints. `sudo` makes a command root's, in a
 * mount namespace with a /mnt, a /srv, an /sbin and an /etc/fstab of its own.
 */
import { chownSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
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

describe('the command lines of', () => {
  skipSuite(() => noMounts() ?? lacking(...TOOLS, ...NEEDED) ?? unreadableBuild());
  const box = useSandbox();
  let space: UserSpace | undefined;
  afterEach(() => {
    space?.close();
    space = undefined;
  });

  /** What the document says of them, and is not so. */
  async function problems(steps: readonly Step[], between?: string): Promise<string[]> {
    space = await UserSpace.make(box(), { prepare: PREPARE });
    const folder = box().folder('work');
    chownSync(folder, ALICE, ALICE);
    const script = box().path('script');
    writeFileSync(script, `cd ${folder}\n${scriptOf(steps, between)}`);
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
    return problemsOf(steps, resultsOf(steps, stdout));
  }

  for (const name of readdirSync(GUIDES)) {
    it(`guides/${name}`, async () => {
      const steps = stepsOf(readFileSync(join(GUIDES, name), 'utf8'));
      expect(steps.length).to.be.above(5);
      expect(await problems(steps)).to.deep.equal([]);
    });
  }
});
