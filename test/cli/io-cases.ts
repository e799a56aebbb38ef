/** Command lines for qemu-io, good and bad: each list of commands runs in one process. */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { IoRun } from '../helpers/both-io.js';

export interface IoCase extends IoRun {
  readonly title: string;
  readonly make?: (folder: string) => void;
}

/** Runs qemu-img in the folder: words apart by blanks. */
function img(...lines: string[]): (folder: string) => void {
  return (cwd) => {
    for (const line of lines) {
      const { status, stderr } = spawnSync('qemu-img', line.split(' '), { cwd, encoding: 'utf8' });
      if (status !== 0) throw new Error(`qemu-img ${line}: ${stderr}`);
    }
  };
}

/** Runs qemu-io in the folder before. */
function io(name: string, ...commands: string[]): (folder: string) => void {
  return (cwd) => {
    const words = [name, ...commands.flatMap((command) => ['-c', command])];
    spawnSync('qemu-io', words, { cwd, encoding: 'utf8' });
  };
}

function all(...makers: ((folder: string) => void)[]): (folder: string) => void {
  return (folder) => {
    for (const make of makers) make(folder);
  };
}

function file(name: string, content: string | Buffer): (folder: string) => void {
  return (folder) => writeFileSync(join(folder, name), content);
}

/** The same files, made once. */
function once(make: (folder: string) => void): (folder: string) => void {
  const made = new Map<string, Buffer>();
  return (folder) => {
    if (made.size === 0) {
      const others = readdirSync(folder);
      make(folder);
      for (const name of readdirSync(folder)) {
        if (!others.includes(name)) made.set(name, readFileSync(join(folder, name)));
      }
    } else for (const [name, bytes] of made) writeFileSync(join(folder, name), bytes);
  };
}

const IMAGE = once(img('create -q -f qcow2 a.qcow2 1M'));
const RAW = once(img('create -q -f raw a.raw 1M'));
const V2 = once(img('create -q -f qcow2 -o compat=0.10 a.qcow2 1M'));
const SMALL = once(img('create -q -f qcow2 -o cluster_size=4k a.qcow2 1000k'));
const SUBCLUSTERS = once(img('create -q -f qcow2 -o extended_l2=on a.qcow2 1000k'));
const OVER = all(
  img('create -q -f qcow2 -o cluster_size=4k base.qcow2 1000k'),
  io('base.qcow2', 'write -P 1 0 100k', 'write -P 2 200k 64k', 'write -z 300k 16k'),
  img('create -q -f qcow2 -F qcow2 -b base.qcow2 a.qcow2'),
);
/** Data in the middle of a cluster of the image over it. */
const OVER_PARTS = all(
  img('create -q -f qcow2 -o cluster_size=512 base.qcow2 64k'),
  io('base.qcow2', 'write -P 1 5k 1k', 'write -P 1 9k 3k', 'write -P 1 13k 1k'),
  img('create -q -f qcow2 -F qcow2 -o cluster_size=4k -b base.qcow2 a.qcow2'),
);
const V2_OVER = all(
  img('create -q -f qcow2 -o cluster_size=4k base.qcow2 1000k'),
  io('base.qcow2', 'write -P 1 0 100k', 'write -P 2 200k 64k'),
  img('create -q -f qcow2 -o compat=0.10 -F qcow2 -b base.qcow2 a.qcow2'),
);
const DATA_FILE = img('create -q -f qcow2 -o data_file=data a.qcow2 1M');
const SNAPSHOT = all(IMAGE, io('a.qcow2', 'write -P 1 0 512k'), img('snapshot -c one a.qcow2'));

/** Commands on what is written and read, and what comes of them on each kind of image. */
const REQUESTS: readonly string[] = [
  ...['write -P 1 0 1000k', 'write -z 0 4k', 'write -zu 4k 4k', 'write -z 8k 1k', 'map'],
  ...['write -zu 13k 1k', 'discard 16k 4k', 'discard 21k 8k', 'write -zn 30k 1k', 'alloc 0 1000k'],
  ...['discard 64k 128k', 'write -z 70k 1k', 'write -P 9 100k 100', 'write -z 128k 64k', 'map'],
  ...['write -zu 200k 100k', 'write -z 250k 1k', 'write -zn 401k 1k', 'write -zn 256k 64k'],
  ...['discard 300k 700k', 'write -P 3 995k 1k', 'discard 960k 40k', 'write -z 990k 10k', 'map'],
  ...['write -P 4 512k 3', 'write -P 4 999k 1k', 'write -z 980k 20k', 'discard 0 1', 'discard 1 1'],
  ...['read -P 0 128k 64k', 'read -P 1 0 64k', 'read -P 4 512k 3', 'readv -P 4 512k 1 1 1', 'map'],
];

const COMPRESSED: readonly string[] = [
  ...['write -c 0 64k', 'write -c 0 64k', 'write -z 64k 64k', 'write -c 64k 64k', 'map'],
  ...['write -zu 64k 64k', 'write -c 64k 64k', 'write 128k 64k', 'discard 128k 64k'],
  ...['write -c 128k 64k', 'write 0 512', 'write -c 0 64k', 'write -c 256k 512', 'write -c 1 512'],
  ...['write -c 256k 200k', 'write -c 320k 128k', 'write -c -P 7 512k 192k', 'write -z 600k 8k'],
  ...['write -c 512 64k', 'write -c 960k 128k', 'write -c 0 1', 'read -P 7 512k 64k', 'map'],
  ...[
    'write -c -s noise 768k 64k',
    'write -c -P 5 960k 40k',
    'write -z 256k 64k',
    'discard 64k 64k',
  ],
];

const VM_STATE: readonly string[] = [
  ...[
    'read -b 0 512',
    'write -b 0 512',
    'read -b -P 0xcd 0 512',
    'write -b 1M 64k',
    'write -b 1 1',
  ],
  ...[
    'read -b 0 1',
    'read -b 1 512',
    'write -bz 0 64k',
    'write -b -c -P 1 0 64k',
    'write -bf 0 512',
  ],
  ...['read -b -P 1 0 64k', 'read -b -P 1 0 128k', 'read -vb 1M 32', 'read -b 10M 64k', 'map'],
];

/** Words that are wrong, on any image. */
const BAD: readonly string[] = [
  ...['read', 'read 0', 'read x 512', 'read 0 x', 'read 0 512 3', 'read -x 0 512', 'read -P 0 512'],
  ...['read -P x 0 512', 'read -P 256 0 512', 'read -s 10 0 512', 'read -l 10 0 512', 'r'],
  ...['read -l 600 -P 0 0 512', 'read -s 10 -l 510 -P 0 0 512', 'read -l x -P y 0 1', 'read -P'],
  ...[
    'read 0 3G',
    'read 0 2G',
    'read 0 -1',
    'read -- -1 512',
    'read 9E 1',
    'read 8E 1',
    'read 7E 1',
  ],
  ...['read 1M 512', 'read 1M 0', 'read 2M 0', 'read 1023k 2k', 'read -Pq 0 512', 'read -a 0 512'],
  ...['readv', 'readv 0', 'readv x 1', 'readv 0 1 x', 'readv -s 1 0 1', 'readv 1M 1', 'readv 0 3G'],
  ...['readv 0 1G 1G', 'readv -P x x x', 'writev 0', 'writev -z 0 1', 'writev 1M 1', 'writev x 1'],
  ...[
    'writev 0 1 x',
    'writev 0 2G',
    'writev 0 1G 1G',
    'writev -P x 0 1',
    'write 0',
    'w',
    'write -q',
  ],
  ...['write 0 512 3', 'write -x 0 1', 'write -u 0 64k', 'write -n 0 64k', 'write -z -P 1 0 64k'],
  ...['write -z -s pat 0 1', 'write -P 1 -s pat 0 1', 'write -s empty 0 1', 'write -s no 0 1'],
  ...['write -s . 0 1', 'write -zb 0 64k', 'write -cf 0 64k', 'write -fb 0 x', 'write 1M 512'],
  ...['write 0 2G', 'write -z 0 4G', 'write -zn 0 4G', 'write x 1', 'write 0 x', 'write -zn 3G 3G'],
  ...['write -l 0 0', 'write -s no x 1', 'write -un 0 1', 'write -z 1M 1', 'write -c 2G 2G'],
  ...['discard 0', 'discard 0 1 1', 'discard x 1', 'discard 0 x', 'discard 1M 1', 'discard 0 2G'],
  ...['discard -x 0 1', 'd', 'truncate', 'truncate x', 'truncate -m foo 7M', 'truncate -x 7M'],
  ...['truncate 9E', 'truncate -1', 'truncate -m', 'truncate 1 2 3 4', 't', 'alloc', 'alloc x'],
  ...['alloc 0 x', 'alloc 0 1 2', 'alloc -- 0', 'alloc -1', 'map x', 'length x', 'info x'],
  ...['flush x', 'close x', 'aio_flush x', 'abort x', 'sleep', 'sleep x', 'sleep -1', 'sleep 1x'],
  ...[
    'sigraise',
    'sigraise x',
    'sigraise -1',
    'sigraise 1k',
    'help x',
    'help a b',
    'break',
    'break x',
  ],
  ...['break foo bar', 'break l1_update A', 'remove_break A', 'remove_break', 'resume A', 'resume'],
  ...['wait_break', 'open', 'open x y', 'open x', 'reopen x', 'reopen -x', 'reopen -r -w', 'foo'],
  ...['foo bar', 'length;length', '-c', 's 0 1', '# comment', 'READ 0 1', 'read\t0 1', ''],
  ...['aio_read', 'aio_read 0', 'aio_read x 1', 'aio_read 0 x', 'aio_read 0 3G', 'aio_read -x 0 1'],
  ...['aio_read -P x 0 1', 'aio_write', 'aio_write -z 0 1 1', 'aio_write -u 0 1', 'aio_write x 1'],
  ...['aio_write 0 x', 'aio_write 0 3G', 'aio_write -z 0 x', 'aio_write -x 0 1', 'aio_write -P'],
];

/** All that is well formed and needs no certain image. */
const GOOD: readonly string[] = [
  ...['read 0 512', 'read 1 512', 'read 0 1', 'read 0x200 0x200', 'read 1.5k 512', 'read 0 1.5k'],
  ...['read -P 0 0 512', 'read -P 1 0 512', 'read -P 0x10 0 512', 'read -P 010 0 512', 'r 0 512'],
  ...['read -P 255 -s 0 -l 10 0 512', 'read -P 0 -s 10 0 512', 'read -P 1 -s 10 -l 10 0 512'],
  ...['read -l 0 -P 0 0 512', 'read -q 0 512', 'read -C 0 512', 'read -Cq 0 512', 'read -p 0 512'],
  ...['read -v 0 20', 'read -v 500 20', 'read -P 1 -v 0 16', 'read -P 1 -qv 0 16', 'read 0 512 -q'],
  ...['read 0 -q 512', 'read -- 0 512', 'read -P 1 -P 0 0 512', 'readv 0 512 1k', 'readv 0 512 1'],
  ...['readv 0 0', 'readv -P 0 0 512', 'readv -P 1 -v 0 16', 'readv -v 0 20', 'readv -C 0 512'],
  ...[
    'readv -q 0 512',
    'readv 0 512 -q',
    'write 0 0',
    'write -z 0 0',
    'write 0 512',
    'write 1 512',
  ],
  ...[
    'write -P0x11 0 512',
    'write -s pat 0 512',
    'read -v 0 8',
    'write -s pat 7 100',
    'read -v 0 20',
  ],
  ...['write -q 0 64k', 'write -C 0 64k', 'write -f 0 64k', 'write -p 0 64k', 'write 0 -- 512'],
  ...['write -zf 0 512', 'w 0 512', 'writev 0 512', 'writev 0 512 1k', 'writev -P 3 0 512 1k'],
  ...['writev -f 0 512', 'writev -q 0 512', 'writev -C 0 512', 'writev 0 0', 'discard 0 0'],
  ...[
    'discard 0 64k',
    'discard -C 0 64k',
    'discard -q 0 64k',
    'd 0 512',
    'length',
    'l',
    'info',
    'i',
  ],
  ...['map', 'alloc 0', 'alloc 0 64k', 'alloc 1 1', 'alloc 1M', 'alloc 0 2M', 'alloc 2M', 'a 0'],
  ...[
    'alloc 0 3G',
    'sleep 1',
    'sleep 0x1',
    'flush',
    'f',
    'aio_flush',
    '',
    '   ',
    ' read  0   512 ',
  ],
  ...['sigraise 0', 'sigraise 28', 'sigraise 65', '?', 'help', 'help length', 'help close', 'c'],
];

const AIO: readonly string[] = [
  ...['aio_read 0 512', 'aio_flush', 'aio_read -P 1 0 512', 'aio_flush', 'aio_read -i 0 512'],
  ...['aio_read -i x y', 'aio_read -v 0 20', 'aio_flush', 'aio_read -q 0 512', 'aio_read -C 0 512'],
  ...['aio_flush', 'aio_read 1M 512', 'aio_flush', 'aio_read -P 1 -qv 0 16', 'aio_flush'],
  ...['aio_write 0 512 1k', 'aio_flush', 'aio_write -P 3 0 512', 'aio_flush', 'aio_write -z 0 64k'],
  ...['aio_flush', 'aio_write -z -P 1 64k 512', 'aio_flush', 'aio_write -zu 0 64k', 'aio_flush'],
  ...['aio_write -i 0 512', 'aio_write -iz 0 x', 'aio_write -f 0 512', 'aio_flush', 'map'],
  ...['aio_write 1M 512', 'aio_flush', 'aio_write -z 1M 512', 'aio_flush', 'aio_write -q 0 512'],
  ...[
    'aio_write -C 0 512',
    'aio_flush',
    'aio_write -z 0 3G',
    'aio_flush',
    'length',
    'aio_read 0 64k',
  ],
];

const NOTHING_OPEN: readonly string[] = [
  ...[
    'length',
    'read',
    'read 0 512',
    'close',
    'aio_flush',
    'reopen',
    'break a b',
    'map',
    'sleep 1',
  ],
  ...['help', 'sigraise x', 'abort x', 'open', 'open -x', 'open -t', 'open -t foo a.qcow2', 'quit'],
  ...['length'],
];

const OPENING: readonly string[] = [
  ...['open nofile', 'open .', 'open a.qcow2', 'length', 'open a.qcow2', 'close', 'close'],
  ...['open -r a.qcow2', 'write 0 512', 'write 0', 'write -x 0 1', 'truncate x', 'discard 0 1'],
  ...['writev 0 1', 'aio_write 0 1', 'flush', 'read 0 512', 'close'],
  ...['open -s a.qcow2', 'write -P 5 0 64k', 'read -P 5 0 64k', 'close'],
  ...['open -t foo a.qcow2', 'open -d foo a.qcow2', 'open -i foo a.qcow2', 'open a b', 'open -f x'],
  ...['open -U a.qcow2', 'open -Ur a.qcow2', 'length', 'close', 'open -k a.qcow2'],
  ...['open -d off a.qcow2', 'write 0 64k', 'discard 0 64k', 'read -P 0xcd 0 64k', 'close'],
  ...[
    'open -o driver=qcow2 a.qcow2',
    'length',
    'close',
    'open -o driver=raw a.raw',
    'length',
    'close',
  ],
  ...['open -o driver=qcow2,file.filename=a.qcow2', 'length', 'close', 'open -o foo=bar a.qcow2'],
  ...['open -o driver=foo a.qcow2', 'open -o driver=qcow2', 'open -o foo a.qcow2'],
  ...[
    'open -o driver=qcow2,file.driver=file,file.filename=nofile',
    'open -o lazy-refcounts=x a.qcow2',
  ],
  ...['open -o driver=raw,size=512,offset=512 a.raw', 'length', 'write -P 1 0 512', 'write 512 1'],
  ...['close', 'open -o detect-zeroes=unmap a.qcow2', 'write -P 0 0 256k', 'map', 'close'],
  ...[
    'open -o detect-zeroes=on a.qcow2',
    'write 1M 1',
    'write 512k 64k',
    'write -P 0 512k 64k',
    'map',
  ],
  ...['close', 'open -o detect-zeroes=unmap -d off a.qcow2', 'open -o detect-zeroes=foo a.qcow2'],
  ...[
    'open -d off -o discard=on a.qcow2',
    'discard 512k 64k',
    'close',
    'open -o discard=x a.qcow2',
  ],
  ...[
    'open -r -o read-only=off a.qcow2',
    'write 0 64k',
    'close',
    'open a.raw',
    'write 0 512',
    'close',
  ],
  ...['open -o driver=qcow2,file.filename=a.qcow2 a.qcow2', 'open foo:bar', 'open json:foo'],
];

const REOPENING: readonly string[] = [
  ...['reopen', 'length', 'reopen -r', 'write 0 512', 'reopen -w', 'write 0 512', 'reopen -r -w'],
  ...['reopen -r -o read-only=off', 'reopen -c foo', 'reopen -c none', 'length', 'reopen -x'],
  ...['reopen -c unsafe -o cache.direct=on', 'reopen foo', 'reopen -o foo', 'reopen -o foo=bar'],
  ...['reopen -o lazy-refcounts=on', 'info', 'write 64k 64k', 'reopen -o lazy-refcounts=x'],
  ...['reopen -o lazy-refcounts', 'reopen -o driver=raw', 'reopen -o file.filename=b.qcow2'],
  ...['reopen -o file.locking=off', 'reopen -o backing=b', 'reopen -o l2-cache-size=2M'],
  ...['reopen -o l2-cache-size=x', 'reopen -o overlap-check=none', 'reopen -o overlap-check=foo'],
  ...['reopen -o discard=foo', 'reopen -o detect-zeroes=unmap', 'write -P 0 128k 64k', 'map'],
  ...[
    'reopen -o detect-zeroes=foo',
    'reopen -o pass-discard-request=off',
    'reopen -o driver=qcow2',
  ],
  ...[
    'reopen -o pass-discard-other=maybe',
    'reopen -o cache.direct=on',
    'reopen -o cache.no-flush=on',
  ],
  ...['reopen -o read-only=on', 'write 0 512', 'reopen -o force-share=on', 'reopen -o size=512'],
  ...['reopen -o copy-on-read=on', 'reopen -o node-name=x', 'reopen -o data-file=x', 'read 0 512'],
  ...['reopen -o backing.foo=x', 'reopen -o file.foo=x', 'reopen -o cache.writeback=off'],
  ...['reopen -o driver=qcow2,file.driver=file,file.filename=a.qcow2', 'reopen -c writeback -w'],
];

const HEADER = 'QFI\xfb\0\0\0\x02';

export const IO_CASES: readonly IoCase[] = [
  {
    title: 'well-formed commands',
    make: all(IMAGE, file('pat', 'abc')),
    words: ['a.qcow2'],
    commands: GOOD,
  },
  {
    title: 'bad commands',
    make: all(IMAGE, file('pat', 'abc'), file('empty', '')),
    words: ['a.qcow2'],
    commands: BAD,
  },
  {
    title: 'the same on raw',
    make: all(RAW, file('pat', 'abc')),
    words: ['-f', 'raw', 'a.raw'],
    commands: GOOD,
  },
  { title: 'requests nobody waits for', make: IMAGE, words: ['a.qcow2'], commands: AIO },
  { title: 'no image', make: IMAGE, commands: NOTHING_OPEN },
  { title: 'open', make: all(IMAGE, RAW), commands: OPENING },
  { title: 'reopen', make: IMAGE, words: ['a.qcow2'], commands: REOPENING },
  { title: 'requests: small clusters', make: SMALL, words: ['a.qcow2'], commands: REQUESTS },
  { title: 'requests: large clusters', make: IMAGE, words: ['a.qcow2'], commands: REQUESTS },
  { title: 'requests: version 2', make: V2, words: ['a.qcow2'], commands: REQUESTS },
  { title: 'requests: subclusters', make: SUBCLUSTERS, words: ['a.qcow2'], commands: REQUESTS },
  { title: 'requests: over another', make: OVER, words: ['a.qcow2'], commands: REQUESTS },
  {
    title: 'requests: zeroes over data in a cluster of another',
    make: OVER_PARTS,
    words: ['a.qcow2'],
    commands: ['write -z 5k 2k', 'write -z 9k 1k', 'write -z 13k 1k', 'map', 'read -P 0 12k 4k'],
  },
  {
    title: 'requests: version 2 over another',
    make: V2_OVER,
    words: ['a.qcow2'],
    commands: REQUESTS,
  },
  { title: 'requests: data file', make: DATA_FILE, words: ['a.qcow2'], commands: REQUESTS },
  { title: 'requests: snapshot', make: SNAPSHOT, words: ['a.qcow2'], commands: REQUESTS },
  { title: 'requests: raw', make: RAW, words: ['-f', 'raw', 'a.raw'], commands: REQUESTS },
  {
    title: 'compressed',
    make: all(IMAGE, file('noise', noise())),
    words: ['a.qcow2'],
    commands: COMPRESSED,
  },
  {
    title: 'compressed: subclusters',
    make: all(SUBCLUSTERS, file('noise', noise())),
    words: ['a.qcow2'],
    commands: COMPRESSED,
  },
  {
    title: 'compressed: raw',
    make: RAW,
    words: ['-f', 'raw', 'a.raw'],
    commands: ['write -c 0 64k'],
  },
  {
    title: 'compressed: data file',
    make: DATA_FILE,
    words: ['a.qcow2'],
    commands: ['write -c 0 64k'],
  },
  { title: 'VM state', make: IMAGE, words: ['a.qcow2'], commands: VM_STATE },
  { title: 'VM state: raw', make: RAW, words: ['-f', 'raw', 'a.raw'], commands: VM_STATE },
  {
    title: 'copy on read',
    make: OVER,
    words: ['-C', 'a.qcow2'],
    commands: ['read 5k 1', 'map', 'read 90k 200k', 'map', 'read -b 0 512', 'read 999k 1k', 'map'],
  },
  {
    title: 'truncate',
    make: IMAGE,
    words: ['a.qcow2'],
    commands: [
      ...[
        'truncate 1',
        'truncate 2M',
        'length',
        'truncate 1k',
        'length',
        'truncate -m off 3M',
        'info',
      ],
      ...[
        'truncate -m metadata 4M',
        'truncate -m falloc 5M',
        'truncate -m full 6M',
        'map',
        'length',
      ],
      ...[
        'truncate -m full 1M',
        'truncate -m metadata 1M',
        'truncate 512M',
        'truncate 7M 8M',
        'length',
      ],
      ...['truncate 1M', 'read 1M 1', 'truncate 4E'],
    ],
  },
  {
    title: 'truncate: raw',
    make: RAW,
    words: ['-f', 'raw', 'a.raw'],
    commands: [
      ...['truncate 1', 'length', 'map', 'truncate 2M', 'truncate -m falloc 3M', 'truncate 100'],
      ...['truncate -m metadata 4M', 'truncate -m full 3M', 'truncate -m foo 1M', 'length'],
      ...[
        'truncate -m full 1M',
        'truncate 4E',
        'truncate 0',
        'map',
        'length',
        'alloc 0',
        'truncate 5',
      ],
    ],
  },
  {
    title: 'an empty disk',
    make: img('create -q -f qcow2 a.qcow2 0'),
    words: ['a.qcow2'],
    commands: GOOD,
  },
  {
    title: 'raw by its looks',
    make: all(RAW, file('head', Buffer.from(HEADER.padEnd(512, '\0'), 'latin1'))),
    words: ['a.raw'],
    commands: [
      ...['write -s head 0 512', 'write -s head 0 4', 'write -s head 512 512', 'write 0 100'],
      ...['write -z 0 512', 'write -s head 0 64k', 'write -s head 0 104', 'read -v 0 8', 'info'],
    ],
  },
  {
    title: 'a partial last sector',
    make: file('a.raw', 'abcde'),
    words: ['-f', 'raw', 'a.raw'],
    commands: ['length', 'read -v 0 16', 'write 0 1', 'map', 'write 510 2', 'read -v 0 16'],
  },
  {
    title: 'standard input',
    make: IMAGE,
    words: ['a.qcow2'],
    input: 'length\nfoo\n\n  \nlength # c\nr 5M 1\nl',
  },
  { title: 'quit in it', make: IMAGE, words: ['a.qcow2'], input: 'write 0 64k\nquit\nlength\n' },
  { title: 'nothing in it', make: IMAGE, input: '' },
  { title: 'nothing in it but an image', make: IMAGE, words: ['a.qcow2'], input: '' },
  {
    title: 'aio in it',
    make: IMAGE,
    words: ['a.qcow2'],
    input: 'open x\nclose\nlength\nopen a.qcow2\nl\n',
  },
  {
    title: 'SIGKILL',
    make: IMAGE,
    words: ['a.qcow2'],
    commands: ['write 0 512', 'sigraise 9', 'l'],
  },
  {
    title: 'SIGTERM',
    make: IMAGE,
    words: ['a.qcow2'],
    commands: ['foo', 'read 5M 1', 'sigraise 15'],
  },
  { title: 'SIGUSR1', make: IMAGE, words: ['a.qcow2'], commands: ['write 0 1', 'sigraise 10'] },
  { title: 'SIGPIPE', make: IMAGE, words: ['a.qcow2'], commands: ['write 0 1', 'sigraise 13'] },
  { title: 'abort', make: IMAGE, words: ['a.qcow2'], commands: ['write 0 512', 'abort', 'l'] },
  {
    title: 'a kill that leaves the image dirty',
    make: img('create -q -f qcow2 -o lazy_refcounts=on a.qcow2 1M'),
    words: ['a.qcow2'],
    commands: ['write 0 512', 'sigraise 9'],
  },
  {
    title: 'an image that is dirty',
    make: once(
      all(
        img('create -q -f qcow2 -o lazy_refcounts=on a.qcow2 1M'),
        io('a.qcow2', 'write 0 512', 'write 64k 512', 'sigraise 9'),
      ),
    ),
    words: ['-r', 'a.qcow2'],
    commands: ['read 0 512', 'close', 'open a.qcow2', 'write 64k 512', 'reopen', 'info'],
  },
  {
    title: 'a clean end with lazy refcounts',
    make: img('create -q -f qcow2 -o lazy_refcounts=on a.qcow2 1M'),
    words: ['a.qcow2'],
    commands: ['write 0 512'],
  },
  ...commandLines(),
];

/** Options of the command line, and images that cannot be opened. */
function commandLines(): IoCase[] {
  const lines = [
    ...['nofile', '-c length nofile', '-r nofile', '-f raw a.raw -c length -c info', '. -c length'],
    ...['-f foo a.qcow2 -c length', '-f qcow2 a.raw -c length', 'a.raw -c length', '-r a.raw -c l'],
    ...['-f foo', '-s a.qcow2 -c writeX -c length', '-rs a.qcow2 -c map', '-n a.qcow2 -c length'],
    ...['-t none a.qcow2 -c length', '-t foo a.qcow2 -c length', '-t writethrough a.qcow2 -c l'],
    ...[
      '-t unsafe a.qcow2 -c l',
      '-t directsync a.qcow2 -c l',
      '-d foo a.qcow2',
      '-d on a.qcow2 -c l',
    ],
    ...[
      '-d ignore a.qcow2 -c l',
      '-i foo a.qcow2 -c l',
      '-i native a.qcow2 -c l',
      '-k a.qcow2 -c l',
    ],
    ...['-n -k a.qcow2 -c l', '-i threads a.qcow2 -c l', '-m a.qcow2 -c l', '-C a.qcow2 -c l'],
    ...[
      '-C -r a.qcow2 -c l',
      '-U a.qcow2 -c l',
      '-U -r a.qcow2 -c l',
      '--image-opts -f qcow2 a.qcow2',
    ],
    ...['--image-opts driver=qcow2,file.filename=a.qcow2 -c l', '--image-opts foo=bar -c l'],
    ...['--image-opts driver=foo,file.filename=a -c l', '--image-opts driver=qcow2 -c l'],
    ...['json:{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}} -c l'],
    ...['json:{"driver":"raw","file":{"driver":"file","filename":"a.raw"}} -c l', 'json:foo -c l'],
    ...['--object secret,id=a,data=b a.qcow2 -c l', '--object foo a.qcow2 -c l', 'foo:bar -c l'],
    ...[
      '-T foo a.qcow2 -c l',
      '-c l -c foo -c l a.qcow2',
      'a.qcow2 -c quit -c l',
      '-c l -- a.qcow2',
    ],
    ...['--cmd l --format qcow2 --read-only a.qcow2', '--cache=none --discard=unmap a.qcow2 -c l'],
    ...[
      '--re a.qcow2 -c l',
      '-f raw -f qcow2 a.qcow2 -c info',
      '-rc l a.qcow2',
      '-U -r -c map a.qcow2',
    ],
  ];
  return lines.map((line) => ({
    title: line,
    make: all(IMAGE, RAW),
    words: line.split(' '),
    printsOnly: true,
  }));
}

/** Bytes that do not compress, the same each time. */
function noise(): Buffer {
  const bytes = Buffer.alloc(64 << 10);
  for (let at = 0, state = 1; at < bytes.length; at++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    bytes[at] = state >>> 16;
  }
  return bytes;
}
