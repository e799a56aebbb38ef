/** Snapshots of an image that no mount serves: taken, deleted, gone back to, as qemu-img does. */
import { ImageError } from '../errors.js';
import type { SnapshotView } from '../image/attach.js';
import type { VmStateSource } from '../image/writer.js';
import { hasBitmaps } from '../image/qcow2/bitmaps.js';
import type { OpenDisk } from './open-disk.js';

/** Bytes of a name: QEMU cuts longer ones. */
const LONGEST_NAME = 255;

/** Takes a snapshot of the disk as it is. Others may have the same name. */
export function takeSnapshot(disk: OpenDisk, name: string, vmState?: VmStateSource): void {
  refuseRaw(disk);
  const options = { allowDuplicateName: true, icount: 0n };
  disk.writer.createSnapshot(cutName(name), { ...options, ...(vmState && { vmState }) });
}

/** Deletes the first snapshot of that name: ids are not looked at. ENOENT where there is none. */
export function deleteSnapshot(disk: OpenDisk, name: string): void {
  const found = disk.image.snapshots().find(({ snapshot }) => snapshot.name === name);
  disk.writer.deleteSnapshot(existing(found, name).view);
}

/** Makes the disk what a snapshot is, its size too; found by its id, then by its name. */
export function applySnapshot(disk: OpenDisk, idOrName: string): void {
  refuseRaw(disk);
  refuseDataFile(disk);
  const [top] = disk.description.layers;
  // Whether there is such a snapshot or not, as QEMU says it.
  if (top.format === 'qcow2' && top.bitmaps.length > 0) throw hasBitmaps();
  disk.writer.revertTo(existing(disk.findSnapshot(idOrName), idOrName).view);
}

/** There can be none: that is told, not that this one is missing. */
function refuseDataFile({ description: { layers } }: OpenDisk): void {
  const [top] = layers;
  if (top.format !== 'qcow2' || top.dataFile === null) return;
  throw new ImageError('unsupported', 'ENOTSUP', 'no snapshots of images with a data file');
}

function existing(found: SnapshotView | undefined, name: string): SnapshotView {
  if (found !== undefined) return found;
  throw new ImageError('missing', 'ENOENT', `no snapshot '${name}'`);
}

function refuseRaw({ description }: OpenDisk): void {
  if (description.layers[0].format === 'qcow2') return;
  throw new ImageError('unsupported', 'ENOTSUP', 'the format has no snapshots');
}

export function cutName(name: string): string {
  let cut = '';
  let room = LONGEST_NAME;
  for (const char of name) {
    room -= Buffer.byteLength(char);
    if (room < 0) break;
    cut += char;
  }
  return cut;
}
