#!/usr/bin/env bash
# Installs what is missing (Debian, Ubuntu), builds, and mounts IMAGE, or a small image that it makes
# without QEMU; lists the tree, reads from it, and unmounts.
#   ./scripts/demo.sh [IMAGE]
set -euo pipefail
image=${1:+$(realpath "$1")}
cd "$(dirname "$0")/.."
# shellcheck source=scripts/prepare.sh
. scripts/prepare.sh

need_commands fusermount3=fuse3
need_node
need_build build:dev

folder=$(mktemp -d)
mount=$folder/mnt
mkdir "$mount"
finish() {
  if mountpoint -q "$mount"; then node dist/cli/main.js umount "$mount"; fi
  rm -r "$folder"
}
trap finish EXIT
say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }

if [ -z "$image" ]; then
  image=$folder/disk.qcow2
  node build/scripts/demo-image.js "$image"
fi

say qcow2fs info "$image"
node dist/cli/main.js info "$image"
say qcow2fs "$image" "$mount"
node dist/cli/main.js "$image" "$mount"
say ls -lR "$mount"
ls -lR "$mount"
first=$(find "$mount" -name '*.raw' | LC_ALL=C sort | head -n 8)
while read -r file; do
  say "head -c 4096 $file | strings | head -n 3"
  head -c 4096 "$file" | tr -c '[:print:]\n' '\n' | grep -E '.{4,}' | head -n 3 || true
done <<<"$first"
say "head -c 64M $mount/disk.raw | sha256sum"
head -c 64M "$mount/disk.raw" | sha256sum
say qcow2fs umount "$mount"
node dist/cli/main.js umount "$mount"
echo "unmounted: the image is released"
