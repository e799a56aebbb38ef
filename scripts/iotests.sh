#!/usr/bin/env bash
# Runs the public qemu-iotests of a QEMU source folder twice: with the machine's own qemu-img and qemu-io, and
# with this program in their place. Sums up, and lists what passes with QEMU's own alone.
#
#   scripts/iotests.sh QEMU_SOURCE_DIR [TEST…]
#
# Without TESTs, all are run that need only these two programs. FORMAT=raw runs those of raw images (qcow2),
# BASELINE=no leaves QEMU's own out, KEEP=DIR keeps the tests' output there.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
source_dir=$(cd "${1:?usage: scripts/iotests.sh QEMU_SOURCE_DIR [TEST…]}" && pwd)/tests/qemu-iotests
shift
[ -x "$source_dir/check" ] || { echo "$source_dir/check: not found" >&2; exit 1; }
format=${FORMAT:-qcow2}
cd "$here"
# shellcheck source=scripts/prepare.sh
. scripts/prepare.sh
need_commands qemu-img=qemu-utils python3=python3
need_node
need_build

scratch=${KEEP:-$(mktemp -d)}
mkdir -p "$scratch"
[ -n "${KEEP:-}" ] || trap 'rm -rf "$scratch"' EXIT

# What else `check` asks for: the machine's, or a stand-in that is never used by the tests chosen here.
stand_in() {
  command -v "$1" && return
  printf '#!/bin/sh\necho "none (default)"\n' >"$scratch/$1"
  chmod +x "$scratch/$1"
  echo "$scratch/$1"
}
QEMU_PROG=$(stand_in "qemu-system-$(uname -m)")
QEMU_NBD_PROG=$(stand_in qemu-nbd)
QSD_PROG=$(stand_in qemu-storage-daemon)
export QEMU_PROG QEMU_NBD_PROG QSD_PROG

# The tests that mention no other program.
others='_launch_qemu|\$QEMU |\$QEMU_PROG|"\$QEMU"|QEMU_NBD|nbd_server|iotests\.VM|QMPTestCase|qemu_nbd|QSD|qsd|common\.qemu|run_qemu|iotests\.qemu_nbd|QEMU_STORAGE'
tests=("$@")
if [ $# = 0 ]; then
  for file in "$source_dir"/[0-9][0-9][0-9] "$source_dir"/tests/*; do
    case $file in *.out*) continue ;; esac
    [ -f "$file.out" ] || [ -f "$file.out.$format" ] || continue
    grep -qE "$others" "$file" || tests+=("$(basename "$file")")
  done
fi

# run NAME QEMU_IMG QEMU_IO: leaves NAME.failed and NAME.log in the scratch folder.
run() {
  local folder=$scratch/$1
  mkdir -p "$folder/tests/qemu-iotests" "$folder/tests/scratch"
  ln -sf "$source_dir/check" "$folder/tests/qemu-iotests/check"
  (
    cd "$folder/tests/qemu-iotests"
    QEMU_IMG_PROG=$2 QEMU_IO_PROG=$3 TEST_DIR=$folder/tests/scratch SOCK_DIR=$folder/tests/scratch \
      ./check "-$format" --color off "${tests[@]}"
  ) >"$scratch/$1.log" 2>&1 || true
  sed -n 's/^Failures: //p' "$scratch/$1.log" | tr ' ' '\n' | sort >"$scratch/$1.failed"
  local failed notrun
  failed=$(grep -c . "$scratch/$1.failed" || true)
  notrun=$(sed -n 's/^Not run: //p' "$scratch/$1.log" | wc -w)
  echo "$1: $((${#tests[@]} - failed - notrun)) passed, $failed failed, $notrun not run"
}

mkdir -p "$scratch/bin"
ln -sf "$here/dist/cli/main.js" "$scratch/bin/qemu-img"
ln -sf "$here/dist/cli/main.js" "$scratch/bin/qemu-io"
: >"$scratch/qemu.failed"
if [ "${BASELINE:-yes}" != no ]; then
  run qemu "$(command -v qemu-img)" "$(command -v qemu-io)"
fi
run qcow2fs "$scratch/bin/qemu-img" "$scratch/bin/qemu-io"
only=$(comm -13 "$scratch/qemu.failed" "$scratch/qcow2fs.failed" | tr '\n' ' ')
echo "fails with qcow2fs alone: ${only:-nothing}"
[ -z "$only" ]
