#!/usr/bin/env bash
# Runs the whole suite on a Debian or Ubuntu machine: installs the tools that it tests against,
# builds, runs every check, and ends with a line `N passed, N failed`.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/prepare.sh
. scripts/prepare.sh

need_commands qemu-img=qemu-utils fusermount3=fuse3 mkfs.ext4=e2fsprogs mkfs.xfs=xfsprogs \
  mksquashfs=squashfs-tools sfdisk=fdisk sgdisk=gdisk mkfs.vfat=dosfstools fio=fio \
  setpriv=util-linux losetup=mount findmnt=util-linux getfattr=attr strace=strace \
  zsh=zsh fish=fish man=man-db mandoc=mandoc 7z=p7zip-full fuse2fs=fuse2fs \
  chromium=chromium
need_node
need_build build:dev

failed=0
for step in lint format:check structure; do
  npm run --silent "$step" || failed=1
done

# A gate that says the same each time it is asked; other seeds are for `npm test` and the long runs.
export QCOW2FS_SEED="${QCOW2FS_SEED:-20261126}"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
npx mocha "$@" 2>&1 | tee "$log" || failed=1
passing=$(sed -n 's/^ *\([0-9]*\) passing.*/\1/p' "$log" | tail -n 1)
failing=$(sed -n 's/^ *\([0-9]*\) failing.*/\1/p' "$log" | tail -n 1)
pending=$(sed -n 's/^ *\([0-9]*\) pending.*/\1/p' "$log" | tail -n 1)
echo "${passing:-0} passed, ${failing:-0} failed${pending:+, $pending skipped}"
exit "$failed"
