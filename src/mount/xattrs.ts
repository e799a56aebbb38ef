/** Extended attributes: facts about the image, the snapshot and the partition behind a file. */
import type { ImageDescription } from '../image/description.js';
import { flagNames } from './bitmap-folder.js';
import type { Origin } from './content.js';
import type { MountFacts } from './facts.js';

/** What all of them begin with. */
export const XATTR_PREFIX = 'user.qcow2.';

/** Which process serves the mount: `qcow2fs umount` waits for it. On the root only. */
export const DAEMON_PID = `${XATTR_PREFIX}daemon-pid`;

/** What `.qcow2fs/status.json` holds, where that is no folder. On the root only, and not listed. */
export const STATUS = `${XATTR_PREFIX}status`;

/** Of a mount of many images, on its root: where they come from, as JSON (`CollectionFacts`). */
export const SOURCES = `${XATTR_PREFIX}sources`;

/** The image's path, of the overlay where there is one. */
export const IMAGE_PATH = `${XATTR_PREFIX}image`;

/** Attributes of the root that make the mount do something when they are set: CONTROLS. */
export const CONTROL_PREFIX = `${XATTR_PREFIX}control.`;

/**
 * What can be done through them; the value is a snapshot's name. Before that name, `create-with-vm-state`
 * has the number of a descriptor and a colon: a regular file that the calling process has open.
 */
export const CONTROLS = ['create', 'create-with-vm-state', 'delete', 'revert'] as const;
export type Control = (typeof CONTROLS)[number];

/** Why the last of them failed. On the root only, and not listed. */
export const CONTROL_FAILURE = `${CONTROL_PREFIX}failure`;

/** What of an image's facts can change while it is mounted. */
export interface LiveNumbers {
  readonly diskSize: number;
  readonly snapshots: number;
}

export function xattrsOf(
  description: ImageDescription,
  facts: MountFacts,
  root: boolean,
  { bitmap, disk, snapshot, partition, table }: Origin,
  live: LiveNumbers,
): ReadonlyMap<string, string> {
  const values: Record<string, string | number | bigint | null | undefined> = imageFacts(
    description,
    live,
  );
  const shownSize = disk?.size ?? snapshot?.diskSize;
  if (shownSize !== undefined) values['virtual-size'] = shownSize;
  if (snapshot !== undefined) {
    values['snapshot.id'] = snapshot.id;
    values['snapshot.name'] = snapshot.name;
    values['snapshot.disk-size'] = snapshot.diskSize;
    values['snapshot.vm-state-size'] = snapshot.vmStateSize;
    values['snapshot.vm-clock-nsec'] = snapshot.vmClock;
  }
  if (bitmap !== undefined) {
    values['bitmap.name'] = bitmap.name;
    values['bitmap.granularity'] = bitmap.granularity;
    values['bitmap.flags'] = flagNames(bitmap.flags).join();
  }
  if (partition !== undefined) {
    values['partition.number'] = partition.number;
    values['partition.offset'] = partition.offset;
    values['partition.type'] = partition.type;
    values['partition.name'] = partition.name === '' ? null : partition.name;
    values['partition.uuid'] = partition.uuid;
  }
  if (table !== undefined) {
    values['partition-table'] = table.scheme;
    if (table.warnings.length > 0) values['partition-warnings'] = table.warnings.join('\n');
  }
  const xattrs = new Map<string, string>();
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined) xattrs.set(`${XATTR_PREFIX}${name}`, String(value));
  }
  if (root) xattrs.set(DAEMON_PID, String(facts.status.pid));
  return xattrs;
}

function imageFacts(
  { layers }: ImageDescription,
  live: LiveNumbers,
): Record<string, string | number | null> {
  const [top] = layers;
  const common = {
    image: top.file.path,
    format: top.format,
    layers: layers.length,
    'virtual-size': live.diskSize,
  };
  if (top.format === 'raw') return common;
  if (top.format !== 'qcow2') {
    const { clusterSize, backing } = top.facts;
    return {
      ...common,
      'cluster-size': clusterSize,
      'backing-file': backing?.name ?? null,
      'backing-format': backing?.format ?? null,
    };
  }
  const { header } = top;
  return {
    ...common,
    version: header.geometry.version,
    'cluster-size': header.geometry.clusterSize,
    'backing-file': header.backingFile,
    'backing-format': header.extensions.backingFormat,
    'data-file': top.dataFile?.path ?? null,
    snapshots: live.snapshots,
  };
}
