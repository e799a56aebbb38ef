/**
 * `snapshot`: lists, takes, deletes and applies snapshots; of a closed image, or through the mount that
 * writes to it.
 */
import { describeError, ERRNO, errnoOf, errorCode } from '../errors.js';
import { ImageError, isExpected } from '../errors.js';
import { collectInfo } from '../image/info.js';
import type { ImageSpec } from '../image/spec.js';
import { strerror } from '../sys/libc.js';
import type { OpenDisk } from '../tools/open-disk.js';
import { OPTIONS } from './command-options.js';
import { openTold } from './open-told.js';
import { applySnapshot, cutName, deleteSnapshot, takeSnapshot } from '../tools/snapshots.js';
import { openVmStateFile } from '../tools/vm-state-file.js';
import { type Arguments, getopt } from './getopt.js';
import { imageSpec } from './image-options.js';
import { snapshotTable } from './info.js';
import type { ListedSnapshot } from './info.js';
import type { Outcome } from './outcome.js';
import { takeObjects } from './objects.js';
import { warnOfProbing } from './probing.js';
import { UsageError } from './program.js';

const ACTIONS = { a: 'apply', c: 'create', d: 'delete' } as const;
type ActionName = (typeof ACTIONS)[keyof typeof ACTIONS];

interface Action {
  readonly what: ActionName;
  readonly name: string;
  /** The file that `create` takes as VM state. */
  readonly vmState: string | undefined;
}

export async function runSnapshotCommand(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS.snapshot);
  const action = actionOf(args);
  takeObjects(args.all('object'));
  const [image, ...others] = args.operands;
  if (image === undefined || others.length > 0) {
    throw new UsageError('Expecting one image file name');
  }
  const spec = imageSpec(image, args);
  const target = await mountToAsk(spec);
  if (target === undefined) await onImage(spec, action, args.has('l'));
  else await onMount(target, action, args.has('l'));
  return { status: 0 };
}

/** Undefined where the snapshots are to be listed, or nothing is asked for. */
function actionOf(args: Arguments): Action | undefined {
  const asked = args.given.filter(({ name }) => name === 'l' || name in ACTIONS);
  if (asked.length > 1) throw new UsageError("Cannot mix '-l', '-a', '-c', '-d'");
  const [first] = asked;
  const what = first === undefined ? undefined : ACTIONS[first.name as keyof typeof ACTIONS];
  const vmState = args.last('vmstate');
  if (vmState !== undefined && what !== 'create')
    throw new UsageError("'--vmstate' goes with '-c'");
  return what === undefined ? undefined : { what, name: first!.value, vmState };
}

/** The mount to be asked, by its mount point or by its image. */
async function mountToAsk({ path, forceShare }: ImageSpec): Promise<string | undefined> {
  const { isOfMany, mountAt, mountThatWrites } = await import('./snapshot-mount.js');
  const mount = mountAt(path);
  if (mount !== undefined && isOfMany(mount)) {
    throw new ImageError('invalid', 'EISDIR', `'${path}' is no image`, { path });
  }
  return mount ?? (forceShare === true ? undefined : mountThatWrites(path));
}

async function onMount(target: string, action: Action | undefined, list: boolean): Promise<void> {
  const mount = await import('./snapshot-mount.js');
  if (list) printList(mount.listMounted(target));
  if (action === undefined) return;
  const { what, vmState } = action;
  inWords(action, true, () => {
    if (what === 'apply') mount.control(target, 'revert', action.name);
    else if (what === 'delete') mount.control(target, 'delete', action.name);
    else if (vmState === undefined) mount.control(target, 'create', cutName(action.name));
    else mount.createWithVmState(target, cutName(action.name), vmState);
  });
}

async function onImage(spec: ImageSpec, action: Action | undefined, list: boolean): Promise<void> {
  const disk = await openTold(spec, { writable: !list });
  if (!list) refuseReadOnly(disk, spec);
  warnOfProbing(disk);
  const [top] = disk.description.layers;
  try {
    if (list) printList(collectInfo(top, spec.filename).snapshots);
    if (action !== undefined) inWords(action, top.format === 'qcow2', () => act(disk, action));
  } catch (error) {
    closeAfterError(disk);
    throw error;
  }
  disk.close();
}

/** An image that its own options open for reading. */
function refuseReadOnly(disk: OpenDisk, { filename }: ImageSpec): void {
  if (disk.description.writable) return;
  disk.abandon();
  throw new ImageError('policy', 'EACCES', `Could not open '${filename}': Block node is read-only`);
}

/** What went wrong first is told. */
function closeAfterError(disk: OpenDisk): void {
  try {
    disk.close();
  } catch (error) {
    if (!isExpected(error)) throw error;
  }
}

function act(disk: OpenDisk, { what, name, vmState }: Action): void {
  if (what === 'apply') applySnapshot(disk, name);
  else if (what === 'delete') deleteSnapshot(disk, name);
  else if (vmState === undefined) takeSnapshot(disk, name);
  else {
    const file = openVmStateFile(vmState);
    try {
      takeSnapshot(disk, name, file);
    } finally {
      file.close();
    }
  }
}

/** Runs `body`; what it throws is said in qemu-img's words. */
function inWords({ what, name }: Action, holdsSome: boolean, body: () => void): void {
  try {
    body();
  } catch (error) {
    if (!isExpected(error)) throw error;
    const errno = errnoOf(error);
    const own = describeError(error);
    // QEMU says as much of what it refuses itself; that a mount is in use it does not know.
    const isPlain = what === 'apply' && errno === ERRNO.EBUSY;
    const words = isPlain ? own : reason(what, errno, holdsSome);
    const message = `Could not ${what} snapshot '${name}': ${words}`;
    const context = own === words ? {} : { limit: own };
    throw new ImageError('invalid', errorCode(error), message, context, error);
  }
}

function reason(what: ActionName, errno: number, holdsSome: boolean): string {
  const words = strerror(errno);
  switch (what) {
    case 'create':
      return `-${errno} (${words})`;
    case 'delete':
      return errno === ERRNO.ENOENT ? 'snapshot not found' : words;
    case 'apply':
      return holdsSome
        ? `Failed to load snapshot: ${words}`
        : 'Block driver does not support snapshots';
  }
}

function printList(snapshots: readonly ListedSnapshot[]): void {
  if (snapshots.length === 0) return;
  process.stdout.write(`${['Snapshot list:', ...snapshotTable(snapshots)].join('\n')}\n`);
}
