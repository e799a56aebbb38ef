#!/usr/bin/env bash
# Sourced by the other scripts: installs what is missing on a Debian or Ubuntu machine, and builds.

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# need_commands COMMAND=PACKAGE…: installs the packages whose commands are not there.
need_commands() {
  local missing=() pair
  for pair in "$@"; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  if [ "${#missing[@]}" = 0 ]; then return; fi
  if ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]} (installed by themselves on Debian and Ubuntu only)" >&2
    return 1
  fi
  echo "installing: ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
    "${missing[@]}" >/dev/null
}

# Node.js 20 or later: the machine's own, else a binary from the npm registry, kept in .cache/.
need_node() {
  local major=0
  if command -v node >/dev/null; then major=$(node -p 'process.versions.node.split(".")[0]'); fi
  if [ "$major" -ge 20 ] && command -v npm >/dev/null; then return; fi
  need_commands node=nodejs npm=npm
  major=$(node -p 'process.versions.node.split(".")[0]')
  if [ "$major" -ge 20 ]; then return; fi
  local arch folder="$PWD/.cache/node"
  arch=$(node -p process.arch)
  if [ ! -x "$folder/node_modules/node-linux-$arch/bin/node" ]; then
    echo "installing: Node.js 20 into .cache/node"
    npm install --silent --no-save --ignore-scripts --prefix "$folder" "node-linux-$arch@20"
  fi
  export PATH="$folder/node_modules/node-linux-$arch/bin:$PATH"
}

# need_build [TARGET]: the packages of package-lock.json, and the npm script `build` or TARGET.
need_build() {
  if [ ! -d node_modules ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    npm ci --loglevel=error --no-audit --no-fund
  fi
  npm run --silent "${1:-build}"
}
