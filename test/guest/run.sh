#!/usr/bin/env bash
# A real guest, from end to end: a Debian root is built with debootstrap in a partition of an image that is
# mounted read-write, a snapshot is taken through the mount, the root is changed, and both are booted with
# qemu-system, under software emulation, as far as the line that their own init prints. The snapshot must be
# the same bytes at the end as when it was taken, by this program and by QEMU, and `qemu-img check` clean.
#
#   sudo test/guest/run.sh [SUITE] [MIRROR]     bookworm, and debootstrap's own mirror, where none are given
#
# It needs a build (npm run build), root, some 2 GB in TMPDIR, and several minutes.
set -euo pipefail
suite=${1:-bookworm}
mirror=${2-}
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/prepare.sh
. scripts/prepare.sh
need_commands debootstrap=debootstrap qemu-system-x86_64=qemu-system-x86 qemu-img=qemu-utils \
  sfdisk=fdisk mkfs.ext4=e2fsprogs fusermount3=fuse3

program=$PWD/dist/cli/main.js
folder=$(mktemp -d)
image=$folder/guest.qcow2
mnt=$folder/mnt
root=$folder/root
mkdir "$mnt" "$root"

finish() {
  for place in "$root/proc" "$root/dev" "$root"; do
    if mountpoint -q "$place"; then umount "$place"; fi
  done
  if mountpoint -q "$mnt"; then "$program" umount "$mnt"; fi
  rm -r "$folder"
}
trap finish EXIT

since=$SECONDS
step() {
  printf '%4d s  %s\n' $((SECONDS - since)) "$*"
}
fail() {
  echo "FAILED: $*" >&2
  exit 1
}
with_root() {
  mount -o loop,discard "$mnt/disk.partitions/1.raw" "$root"
  "$@"
  umount "$root"
}
sum() {
  sha256sum < "$1" | cut -d ' ' -f 1
}

build_root() {
  debootstrap --variant=minbase --include=linux-image-cloud-amd64,initramfs-tools "$suite" "$root" \
    ${mirror:+"$mirror"} > "$folder/debootstrap.log" 2>&1 ||
    { tail -n 20 "$folder/debootstrap.log"; fail debootstrap; }
  # The guest's init: it says which state it finds, leaves a trace of itself, and ends the machine.
  cat > "$root/sbin/init" <<'END'
#!/bin/sh
mount -t proc proc /proc
mount -o remount,rw /
echo "guest is up: $(cat /state)" | tee -a /booted > /dev/ttyS0
sync
mount -o remount,ro /
echo o > /proc/sysrq-trigger
sleep 60
END
  chmod +x "$root/sbin/init"
  echo fresh > "$root/state"
  cp "$(readlink -f "$root/vmlinuz")" "$folder/vmlinuz"
  cp "$(readlink -f "$root/initrd.img")" "$folder/initrd"
}

change_root() {
  echo changed > "$root/state"
  rm -r "$root/usr/share/doc"
  head -c 64M /dev/urandom > "$root/noise"
  fstrim "$root"
}

# boot FILE LINE [OPTION…]: boots the disk in FILE until it ends itself; its init must have said LINE.
boot() {
  local file=$1 line=$2
  shift 2
  timeout 600 qemu-system-x86_64 -accel tcg -m 512 -display none -monitor none -no-reboot \
    -serial "file:$folder/serial" -kernel "$folder/vmlinuz" -initrd "$folder/initrd" \
    -append 'root=/dev/vda1 ro console=ttyS0 panic=-1' \
    -drive "file=$file,format=raw,if=virtio" "$@" || fail "qemu-system ended with $?"
  grep -q "^$line" "$folder/serial" || { tail -n 20 "$folder/serial"; fail "no line '$line'"; }
}

"$program" create -q -f qcow2 "$image" 3G
"$program" "$image" "$mnt" -o rw
echo 'type=linux' | sfdisk -q "$mnt/disk.raw"
mkfs.ext4 -q "$mnt/disk.partitions/1.raw"
step "an empty file system lies in $(basename "$image")"

with_root build_root
step "$suite is installed in it: $(stat -c %s "$image") bytes of image"

touch "$mnt/disk.snapshots/fresh.raw"
fresh=$(sum "$mnt/disk.snapshots/fresh.raw")
step "snapshot 'fresh' is taken"

with_root change_root
step 'the root is changed'

boot "$mnt/disk.raw" 'guest is up: changed'
step 'the changed root boots, from the mounted disk'
boot "$mnt/disk.snapshots/fresh.raw" 'guest is up: fresh' -snapshot
step 'the snapshot boots, and what it writes is thrown away'

grep_booted() {
  grep -q '^guest is up: changed$' "$root/booted" || fail 'what the guest wrote is not there'
}
with_root grep_booted
for partition in "$mnt/disk.partitions/1.raw" "$mnt/disk.snapshots/fresh.partitions/1.raw"; do
  e2fsck -fn "$partition" > "$folder/fsck.log" 2>&1 || { cat "$folder/fsck.log"; fail "$partition"; }
done
[ "$(sum "$mnt/disk.snapshots/fresh.raw")" = "$fresh" ] || fail 'the snapshot is another one'
disk=$(sum "$mnt/disk.raw")
step 'both file systems are whole, and the snapshot is what it was'

"$program" umount "$mnt"
qemu-img check -q "$image" || fail "qemu-img check ends with $?"
qemu-img convert -O raw "$image" "$folder/disk.raw"
[ "$(sum "$folder/disk.raw")" = "$disk" ] || fail 'QEMU reads another disk'
qemu-img convert -l snapshot.name=fresh -O raw "$image" "$folder/disk.raw"
[ "$(sum "$folder/disk.raw")" = "$fresh" ] || fail 'QEMU reads another snapshot'
step 'qemu-img check finds nothing, and QEMU reads the same bytes from both'
echo passed
