/** mount(8) and umount(8) with the helpers, in a mount namespace that has them in /sbin. */
import { lstatSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs';
import { expect } from 'chai';
import { CLI, lacking, noMounts, skipSuite, useSandbox } from '../helpers/mount.js';
import { createImage, MIB } from '../helpers/mount-images.js';

/** `$0`: the program, `$1`: a folder of the namespace's own, `$2`: an image, `$3`: a mount point. */
const NAMESPACE = `
set -e
mount -t tmpfs none "$1"
# Records of the machine's own mounts stay as they are.
mkdir -p /run/mount
mount -t tmpfs none /run/mount
mkdir "$1/upper" "$1/work"
sbin=$(readlink -f /sbin)
mount -t overlay -o lowerdir="$sbin",upperdir="$1/upper",workdir="$1/work" none "$sbin"
"$0" install-helpers
`;

const NAMES = ['mount.fuse.qcow2fs', 'mount.qcow2fs', 'umount.fuse.qcow2fs', 'umount.qcow2fs'];

describe('the helpers of mount(8)', () => {
  skipSuite(() => noMounts() ?? lacking('unshare', 'findmnt', 'mount'));
  const box = useSandbox();

  async function inNamespace(script: string) {
    const image = await createImage(box(), 'vm.qcow2', 4 * MIB);
    const words = [CLI, box().folder('own'), image, box().folder('mnt')];
    return box().run('unshare', ['--mount', 'sh', '-c', NAMESPACE + script, ...words]);
  }

  it('mount by both types, and unmount only when the image is released', async () => {
    const script = `
      for type in qcow2fs fuse.qcow2fs; do
        mount -t $type "$2" "$3" -o rw,nofail,user,_netdev,x-systemd.device-timeout=1,comment=x
        findmnt -rno SOURCE,FSTYPE "$3"
        printf $type | dd of="$3/disk.raw" conv=notrunc status=none
        umount "$3"
        # Taken for writing by another: nobody holds it any more.
        qemu-io -f qcow2 -c "read -P 0x66 0 0" "$2" > /dev/null
        qemu-img dd -f qcow2 -O raw bs=16 count=1 if="$2" of="$1/start"
        head -c 7 "$1/start"; echo
      done`;
    const { status, stdout, stderr } = await inNamespace(script);
    expect({ status, stderr }).to.deep.equal({ status: 0, stderr: '' });
    const image = box().path('vm.qcow2');
    const shown = `${image} fuse.qcow2fs`;
    expect(stdout.split('\n')).to.deep.equal([shown, 'qcow2fs', shown, 'fuse.qc', '']);
  });

  it('are found by umount(8) without any option, and make no more of its records', async () => {
    const script = `
      for options in ro ro,x-a,nofail ro,_netdev,user=nobody; do
        mount -t qcow2fs "$2" "$3" -o $options
        grep -c "$3" /run/mount/utab
        grep -o _netdev /run/mount/utab || true
        umount -v "$3"
        grep -c "$3" /run/mount/utab || true
      done`;
    const { status, stdout, stderr } = await inNamespace(script);
    expect({ status, stderr }).to.deep.equal({ status: 0, stderr: '' });
    const done = [`umount.qcow2fs: ${box().path('mnt')} unmounted`, '0'];
    expect(stdout.split('\n')).to.deep.equal([
      '1',
      ...done,
      '1',
      ...done,
      '1',
      '_netdev',
      ...done,
      '',
    ]);
  });

  it('serve lines of fstab', async () => {
    const script = `
      echo "$2 $3 qcow2fs ro,noauto,user 0 0" > "$1/fstab"
      mount --bind "$1/fstab" /etc/fstab
      mount -a
      if findmnt "$3"; then exit 3; fi
      mount "$3"
      findmnt -rno OPTIONS "$3" | cut -d, -f1
      umount "$3"
      echo "$2 $3 qcow2fs defaults,nofail 0 0" > "$1/fstab"
      mount -a
      findmnt -rno OPTIONS "$3" | cut -d, -f1
      umount "$3"`;
    const { status, stdout, stderr } = await inNamespace(script);
    expect({ status, stderr }).to.deep.equal({ status: 0, stderr: '' });
    expect(stdout).to.equal('ro\nrw\n');
  });

  it('refuse to remount, and mount nothing when that is only tried', async () => {
    const script = `
      mount -f -t qcow2fs "$2" "$3"
      if findmnt "$3"; then exit 3; fi
      mount -t qcow2fs "$2" "$3" -o ro
      mount -o remount,rw "$3" || echo refused
      umount "$3"`;
    const { status, stdout, stderr } = await inNamespace(script);
    expect({ status, stdout }).to.deep.equal({ status: 0, stdout: 'refused\n' });
    expect(stderr).to.include("option 'remount': unmount, and mount with other options");
  });

  it('say what they have done, and take unknown options, when they are told to', async () => {
    const script = `
      mount -v -s -t qcow2fs "$2" "$3" -o ro,norecovery,snapshot= || true
      mount -s -t qcow2fs "$2" "$3" -o rw,norecovery,x=a && findmnt -rno OPTIONS "$3" | cut -d, -f1
      umount -v "$3"
      mount -v -t qcow2fs "$2" "$3" -o ro,user=nobody
      findmnt -rno OPTIONS "$3" | grep -o user_id=.*,group; umount "$3"
      mount -f -t qcow2fs "$2" "$3" -o norecovery || echo fake`;
    const { stdout, stderr } = await inNamespace(script);
    const [image, mnt] = [box().path('vm.qcow2'), box().path('mnt')];
    expect(stdout.split('\n')).to.deep.equal([
      'rw',
      `umount.qcow2fs: ${mnt} unmounted`,
      `mount.qcow2fs: ${image} on ${mnt} mounted`,
      'user_id=65534,group',
      'fake',
      '',
    ]);
    expect(stderr).to.include("option 'snapshot': needs a value");
    expect(stderr).to.include("option 'norecovery': unknown mount option");
  });

  it("are not needed for the type fuse.qcow2fs where fuse3's mount.fuse is there", async function () {
    const missing = lacking('mount.fuse3');
    if (missing !== null) {
      process.stdout.write(`    skipped: ${missing}\n`);
      this.skip();
    }
    // It looks for the program in the shell's own folders.
    const script = `
      "$0" install-helpers --remove
      ln -s "$0" "$sbin/qcow2fs"
      mount -t fuse.qcow2fs "$2" "$3" -o rw,nofail,user=nobody
      findmnt -rno SOURCE,FSTYPE "$3"
      "$0" umount "$3"
      mount -t fuse "qcow2fs#$2" "$3" -o ro
      findmnt -rno SOURCE,FSTYPE "$3"
      umount "$3"`;
    const { status, stdout, stderr } = await inNamespace(script);
    expect({ status, stderr }).to.deep.equal({ status: 0, stderr: '' });
    const shown = `${box().path('vm.qcow2')} fuse.qcow2fs\n`;
    expect(stdout).to.equal(shown + shown);
  });

  it('are links that are installed and removed; what else has their names stays', async () => {
    const prefix = box().folder('prefix');
    const folder = box().path('prefix', 'sbin');
    mkdirSync(folder);
    const install = (...words: string[]) =>
      box().cli(['install-helpers', `--prefix=${prefix}`, ...words]);
    for (let times = 0; times < 2; times++) expect((await install()).status).to.equal(0);
    expect(readdirSync(folder).sort()).to.deep.equal(NAMES);
    expect((await install('--remove')).status).to.equal(0);
    expect(readdirSync(folder)).to.deep.equal([]);
    symlinkSync('/elsewhere', box().path('prefix', 'sbin', NAMES[3]!));
    for (const words of [[], ['--remove']]) {
      const { status, stderr } = await install(...words);
      expect(status).to.equal(1);
      expect(stderr).to.include('umount.qcow2fs').and.include('is not a link to this program');
    }
    expect(readdirSync(folder)).to.deep.equal([NAMES[3]]);
    expect(lstatSync(box().path('prefix', 'sbin', NAMES[3]!)).isSymbolicLink()).to.equal(true);
  });
});
