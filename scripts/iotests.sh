#!/usr/bin/env bash
# Runs the public qemu-iotests, from a QEMU source folder, with this program as qemu-img and qemu-io, and
# sums up. Needs python3, and a build (npm run build).
#
#   scripts/iotests.sh [--qemu] [--format FORMAT]... QEMU_SOURCE_DIR [TEST…]
#
#   --qemu            with the qemu-img and qemu-io that are installed, to compare
#   --format FORMAT   qcow2 or raw; both, where none is given
#   TEST              their names; all that need no other program of QEMU, where none is given
#
# IOTESTS_JOBS tests run at once (1). Where QEMU_PROG names a qemu-system-…, tests that need one are run, too.
set -euo pipefail

usage() {
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

here=$(cd "$(dirname "$0")/.." && pwd)
own=yes
formats=()
while [[ ${1-} == --* ]]; do
  case $1 in
    --qemu) own=no ;;
    --format) formats+=("${2-}"); shift ;;
    *) usage ;;
  esac
  shift
done
[ $# -ge 1 ] || usage
source=$(cd "$1" && pwd)/tests/qemu-iotests
shift
[ -f "$source/check" ] || { echo "$source: no qemu-iotests here" >&2; exit 2; }
[ ${#formats[@]} -gt 0 ] || formats=(qcow2 raw)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
bin=$scratch/bin
# The test runner knows a build by a link to itself in it.
build=$scratch/build/tests/qemu-iotests
mkdir -p "$bin" "$build"
ln -s "$source/check" "$build/check"

for name in qemu-img qemu-io; do
  if [ $own = yes ]; then
    ln -s "$here/dist/cli/main.js" "$bin/$name"
  else
    ln -s "$(command -v $name)" "$bin/$name"
  fi
done

# The runner asks for programs that most tests do not use.
for name in qemu-nbd qemu-storage-daemon qemu-system; do
  found=$(command -v $name || true)
  if [ -n "$found" ]; then
    ln -s "$found" "$bin/$name"
    continue
  fi
  cat > "$bin/$name" <<'END'
#!/bin/sh
case "$*" in
  *-machine*help*) echo 'none (default)' ;;
  *format=help*) printf 'Supported formats: raw qcow2\nSupported read-only formats:\n' ;;
  *) exit 1 ;;
esac
END
  chmod +x "$bin/$name"
done

export QEMU_IMG_PROG=$bin/qemu-img QEMU_IO_PROG=$bin/qemu-io QEMU_NBD_PROG=$bin/qemu-nbd
export QSD_PROG=$bin/qemu-storage-daemon TEST_DIR=$scratch/test SOCK_DIR=$scratch/sock
needed='_launch_qemu|run_qemu|qemu_comm|iotests\.VM|VM\(|QMPTestCase|\$QEMU([ "]|$)|QEMU_NBD|qemu_nbd|_NBD|nbd_server'
needed="$needed|QSD|QemuStorageDaemon|storage_daemon|_require_devices|blkdebug|blkverify|quorum|throttle|luks|encrypt"
with_machine=no
if [ -n "${QEMU_PROG-}" ]; then with_machine=yes; else export QEMU_PROG=$bin/qemu-system; fi

# Those that need nothing else.
own_tests() {
  (cd "$build" && ./check "-$1" -n) | while read -r name; do
    [ $with_machine = no ] && grep -qE "$needed" "$source/$name" && continue
    echo "$name"
  done
}

status=0
for format in "${formats[@]}"; do
  if [ $# -gt 0 ]; then tests=("$@"); else mapfile -t tests < <(own_tests "$format"); fi
  log=$scratch/$format.log
  (cd "$build" && ./check "-$format" -j "${IOTESTS_JOBS-1}" --color off "${tests[@]}") 2>&1 | tee "$log" || true
  ran=$(sed -nE 's/^(Failed [0-9]+ of|Passed all) ([0-9]+) iotests$/\2/p' "$log")
  failed=$(sed -n 's/^Failures: //p' "$log")
  left=$(sed -n 's/^Not run: //p' "$log" | wc -w)
  count=$(wc -w <<< "$failed")
  echo "$format: $((${ran:-0} - count)) passed, $count failed, $left not run"
  if [ -n "$failed" ]; then
    echo "$format failed: $failed"
    status=1
  fi
done
exit $status
