#!/usr/bin/env bash
# Runs the public qemu-iotests, from a QEMU source folder, with this program as qemu-img and qemu-io, and
# sums up. Needs python3, and a build (npm run build).
#
#   scripts/iotests.sh [--qemu] [--format FORMAT]... [--options OPTIONS] QEMU_SOURCE_DIR [TEST…]
#
#   --qemu             with the qemu-img and qemu-io that are installed
#   --format FORMAT    qcow2 or raw; both, where none is given
#   --options OPTIONS  for new images, as compat=0.10
#   TEST               their names; all that need no other program of QEMU, where none is given
#
# A test that fails is run with QEMU's own programs, too, where they are there: it counts only if it passes
# with those. One that takes longer than IOTESTS_LIMIT seconds (300) is ended. What differs is printed. Where
# QEMU_PROG names a qemu-system-…, tests that need one are run, too.
set -euo pipefail

usage() {
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

here=$(cd "$(dirname "$0")/.." && pwd)
own=yes
formats=()
options=()
while [[ ${1-} == --* ]]; do
  case $1 in
    --qemu) own=no ;;
    --format) formats+=("${2-}"); shift ;;
    --options) options=(-o "${2-}"); shift ;;
    *) usage ;;
  esac
  shift
done
[ $# -ge 1 ] || usage
source=$(cd "$1" && pwd)/tests/qemu-iotests
shift
[ -f "$source/check" ] || { echo "$source: no qemu-iotests here" >&2; exit 2; }
[ ${#formats[@]} -gt 0 ] || formats=(qcow2 raw)

# Some tests want no dots in it.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/iotests-XXXXXXXX")
trap 'rm -rf "$scratch"' EXIT
# The test runner knows a build by a link to itself in it.
build=$scratch/build/tests/qemu-iotests
mkdir -p "$scratch/own" "$scratch/qemu" "$scratch/other" "$build"
ln -s "$source/check" "$build/check"
for name in qemu-img qemu-io; do
  ln -s "$here/dist/cli/main.js" "$scratch/own/$name"
  theirs=$(command -v $name || true)
  [ -z "$theirs" ] || ln -s "$theirs" "$scratch/qemu/$name"
done

# The runner asks for programs that most tests do not use.
for name in qemu-nbd qemu-storage-daemon qemu-system; do
  found=$(command -v $name || true)
  if [ -n "$found" ]; then
    ln -s "$found" "$scratch/other/$name"
    continue
  fi
  cat > "$scratch/other/$name" <<'END'
#!/bin/sh
case "$*" in
  *-machine*help*) echo 'none (default)' ;;
  *format=help*) printf 'Supported formats: raw qcow2\nSupported read-only formats:\n' ;;
  *) exit 1 ;;
esac
END
  chmod +x "$scratch/other/$name"
done

export QEMU_NBD_PROG=$scratch/other/qemu-nbd QSD_PROG=$scratch/other/qemu-storage-daemon
export TEST_DIR=$scratch/test SOCK_DIR=$scratch/sock
needed='_launch_qemu|run_qemu|qemu_comm|iotests\.VM|VM\(|QMPTestCase|\$QEMU([ "]|$)|QEMU_NBD|qemu_nbd|_NBD|nbd_server'
needed="$needed|QSD|QemuStorageDaemon|storage_daemon|_require_devices|blkverify|quorum|throttle"
with_machine=no
if [ -n "${QEMU_PROG-}" ]; then with_machine=yes; else export QEMU_PROG=$scratch/other/qemu-system; fi

# Those that need nothing else.
own_tests() {
  (cd "$build" && ./check "-$1" -n) | while read -r name; do
    [ $with_machine = no ] && grep -qE "$needed" "$source/$name" && continue
    echo "$name"
  done
}

# run_test own|qemu FORMAT TEST: tells what came of it, in one word; what was printed is in the log.
log=$scratch/log
run_test() {
  export QEMU_IMG_PROG=$scratch/$1/qemu-img QEMU_IO_PROG=$scratch/$1/qemu-io
  rm -rf "$TEST_DIR"
  local status=0
  (cd "$build" && timeout -k 5 "${IOTESTS_LIMIT-300}" ./check "-$2" "${options[@]}" --color off "$3") \
    > "$log" 2>&1 || status=$?
  if [ $status = 124 ] || [ $status = 137 ]; then echo slow
  elif grep -q '^Passed all 1 ' "$log"; then echo passed
  elif grep -q '^Failures:' "$log"; then echo failed
  else echo left; fi
}

status=0
for format in "${formats[@]}"; do
  if [ $# -gt 0 ]; then tests=("$@"); else mapfile -t tests < <(own_tests "$format"); fi
  passed=0 left=0 failed='' slow='' excused=''
  for name in "${tests[@]}"; do
    programs=qemu
    [ $own = no ] || programs=own
    result=$(run_test $programs "$format" "$name")
    echo "$format $name $result"
    [ "$result" != failed ] || sed -n '/^--- /,/^Failures:/p' "$log"
    if [ $own = yes ] && [[ $result =~ ^(failed|slow)$ ]] && [ -e "$scratch/qemu/qemu-img" ] &&
      [ "$(run_test qemu "$format" "$name")" != passed ]; then
      result=excused
    fi
    case $result in
      passed) passed=$((passed + 1)) ;;
      left) left=$((left + 1)) ;;
      failed) failed="$failed $name" ;;
      slow) slow="$slow $name" ;;
      excused) excused="$excused $name" ;;
    esac
  done
  echo "$format: $passed passed, $(wc -w <<< "$failed$slow") failed, $left not run"
  [ -z "$failed" ] || echo "$format failed:$failed"
  [ -z "$slow" ] || echo "$format too slow:$slow"
  [ -z "$excused" ] || echo "$format not counted, with QEMU's own they fail, too:$excused"
  [ -z "$failed$slow" ] || status=1
done
exit $status
