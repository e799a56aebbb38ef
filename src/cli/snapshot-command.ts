/**
 * `qcow2fs snapshot`: lists, takes, deletes and applies the snapshots of an image that is mounted for
 * writing; the mount itself does it, as it is asked through attributes of its root.
 */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { ERRNO, errnoName, errnoOf, type ErrnoName, ImageError } from '../errors.js';
import { MOUNT_TYPE } from '../fuse/device.js';
import { findMount } from '../fuse/mountinfo.js';
import { CONTROL_FAILURE, CONTROL_PREFIX, type Control } from '../mount/xattrs.js';
import { getxattr, setxattr } from '../sys/mount.js';
import { type ListedSnapshot, snapshotTable } from './info.js';
import type { Outcome } from './outcome.js';
import { parseWords } from './words.js';

const ACTIONS: Readonly<Record<string, Control>> = {
  apply: 'revert',
  create: 'create',
  delete: 'delete',
};
const LONGEST_FAILURE = 4096;

export async function runSnapshotCommand(words: string[], usage: string): Promise<Outcome> {
  const spec = {
    flags: ['list'],
    values: Object.keys(ACTIONS),
    alias: { l: 'list', a: 'apply', c: 'create', d: 'delete' },
    operands: ['MOUNTPOINT'],
  };
  const parsed = parseWords(words, spec, usage);
  const asked = Object.entries(ACTIONS).flatMap(([option, control]) =>
    parsed.values(option).map((name) => ({ control, name })),
  );
  if (asked.length + (parsed.flag('list') ? 1 : 0) > 1) {
    throw new ImageError('invalid', 'EINVAL', "Cannot mix '-l', '-a', '-c', '-d'");
  }
  const target = mountPoint(parsed.operands[0]!);
  const [action] = asked;
  if (action === undefined) process.stdout.write(listing(target));
  else control(target, action.control, action.name);
  return { status: 0 };
}

/** Where the mount is. Throws an ImageError where there is none of ours. */
function mountPoint(path: string): string {
  const mount = findMount(path);
  if (mount?.type === MOUNT_TYPE) return mount.target;
  throw new ImageError('unsupported', 'ENOTSUP', `'${path}': not a mount point of qcow2fs`, {
    limit: 'snapshots of closed images are not supported by this version',
  });
}

function control(target: string, what: Control, name: string): void {
  try {
    setxattr(target, `${CONTROL_PREFIX}${what}`, name);
  } catch (error) {
    throw explained(target, error);
  }
}

/** In the words of the mount, which knows more than an errno says. */
function explained(target: string, error: unknown): unknown {
  const errno = errnoOf(error);
  const code = errnoName(errno) as ErrnoName;
  if (errno === ERRNO.EROFS) {
    return new ImageError('policy', code, `'${target}' is mounted read-only`, { limit: '-o rw' });
  }
  const words = failureOf(target);
  return words === '' ? error : new ImageError('invalid', code, words);
}

function failureOf(target: string): string {
  try {
    return getxattr(target, CONTROL_FAILURE, LONGEST_FAILURE) ?? '';
  } catch {
    return '';
  }
}

/** What QEMU prints in JSON of a snapshot. */
interface PrintedSnapshot {
  readonly id: string;
  readonly name: string;
  readonly 'vm-state-size': number;
  readonly 'date-sec': number;
  readonly 'vm-clock-sec': number;
  readonly 'vm-clock-nsec': number;
  readonly icount?: number;
}

function listing(target: string): string {
  if (!statSync(target).isDirectory()) {
    throw new ImageError('unsupported', 'ENOTSUP', `'${target}' is a disk over a file`, {
      limit: 'its snapshots are not listed',
    });
  }
  const info = JSON.parse(readFileSync(join(target, 'disk.info.json'), 'utf8')) as {
    snapshots?: PrintedSnapshot[];
  };
  const { snapshots = [] } = info;
  if (snapshots.length === 0) return '';
  return `${['Snapshot list:', ...snapshotTable(snapshots.map(tableRow))].join('\n')}\n`;
}

function tableRow(snapshot: PrintedSnapshot): ListedSnapshot {
  const seconds = BigInt(snapshot['vm-clock-sec']);
  return {
    id: snapshot.id,
    name: snapshot.name,
    vmStateSize: snapshot['vm-state-size'],
    dateSec: snapshot['date-sec'],
    vmClock: seconds * 1_000_000_000n + BigInt(snapshot['vm-clock-nsec']),
    icount: snapshot.icount === undefined ? null : BigInt(snapshot.icount),
  };
}
