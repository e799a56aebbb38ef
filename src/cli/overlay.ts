/**
 * `overlay`: what is written to a mount goes to a qcow2 overlay over the image, which is opened
 * read-only itself. Kept in a file, or in one without a name, which is gone with the process.
 */
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  mkdtempSync,
  openSync,
  rmdirSync,
} from 'node:fs';
import { unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { ImageError, isExpected } from '../errors.js';
import type { ImageDescription, LayerDescription } from '../image/description.js';
import { closeImage, type OpenedImage, type OpenPolicy, openImage } from '../image/open.js';
import { createOverlay } from '../image/qcow2/create.js';
import type { Snapshot } from '../image/qcow2/snapshots.js';

/** Linux' own; Node does not name it. With O_DIRECTORY in it. */
const O_TMPFILE = 0o20200000;

export interface OverlayOptions {
  /** The image's path, absolute. */
  readonly image: string;
  readonly policy: OpenPolicy;
  /** The overlay's file; none for one that is thrown away. */
  readonly file: string | undefined;
  /** Finds the snapshot that is the disk, if one is meant. */
  readonly snapshot: (image: ImageDescription) => Snapshot | undefined;
}

/**
 * Opens the image with an overlay over it, which is made where there is none. The overlay is the first
 * layer, open for writing; the policy holds for the image and what it names.
 */
export function openOverlaid(options: OverlayOptions): OpenedImage {
  const { image, file } = options;
  // Held open until the overlay is: nobody who keeps to the locks changes what it names meanwhile.
  const base = openImage(image, { ...options.policy, writable: false });
  try {
    const snapshot = options.snapshot(base.description);
    if (snapshot !== undefined && file !== undefined) {
      throw new ImageError('policy', 'EINVAL', "option 'overlay': no file can be kept of it", {
        limit: 'an overlay names an image, not a snapshot in it',
      });
    }
    if (snapshot !== undefined && snapshot.problem !== null) {
      throw new ImageError('corrupt', 'EIO', `${image}: ${snapshot.problem}`);
    }
    const opened = openOver(options, base.description, snapshot);
    checkChain(opened.description, base.description, options);
    const warnings = [...base.warnings, ...opened.warnings];
    return { description: showSnapshot(opened.description, snapshot), warnings };
  } finally {
    closeImage(base.description);
  }
}

function openOver(
  options: OverlayOptions,
  base: ImageDescription,
  snapshot: Snapshot | undefined,
): OpenedImage {
  const { image, file, policy } = options;
  const creation = {
    size: snapshot?.diskSize ?? diskSizeOf(base.layers[0]),
    backingFile: image,
    backingFormat: base.layers[0].format,
  };
  // The policy has let all of the image's files through: they are compared below.
  const over = { lock: policy.lock, writable: true, format: 'qcow2', direct: policy.direct };
  if (file !== undefined) {
    const path = resolve(file);
    if (!existsSync(path)) createOverlay(path, creation);
    else checkFile(path, base, options);
    return openImage(path, over);
  }
  const fd = openNameless(image);
  try {
    createOverlay(fd, creation);
    return openImage(`/proc/self/fd/${fd}`, over);
  } finally {
    closeSync(fd);
  }
}

/** Looks whether a file is an overlay of the image before it is opened for writing, which changes it. */
function checkFile(path: string, base: ImageDescription, options: OverlayOptions): void {
  const { description } = openImage(path, { lock: options.policy.lock, format: 'qcow2' });
  checkChain(description, base, options);
  closeImage(description);
}

function diskSizeOf(layer: LayerDescription): number {
  return layer.format === 'raw' ? layer.fileSize : layer.header.size;
}

/** An empty file that has no name: in the image's folder, or where that cannot be, with other such. */
function openNameless(image: string): number {
  for (const folder of [dirname(image), tmpdir()]) {
    try {
      return openSync(folder, O_TMPFILE | constants.O_RDWR, 0o600);
    } catch (error) {
      // A read-only folder; a file system that knows no such files.
      if (!isExpected(error)) throw error;
    }
  }
  const folder = mkdtempSync(join(tmpdir(), 'qcow2fs-'));
  const path = join(folder, 'overlay');
  try {
    return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  } finally {
    unlinkSync(path);
    rmdirSync(folder);
  }
}

/** Below the overlay must be what was opened under the policy, file by file. */
function checkChain(
  overlaid: ImageDescription,
  base: ImageDescription,
  { image, file }: OverlayOptions,
): void {
  const below = overlaid.layers.slice(1);
  const same =
    below.length === base.layers.length &&
    below.every((layer, index) => isSameFile(layer, base.layers[index]!));
  if (same) return;
  closeImage(overlaid);
  throw new ImageError('policy', 'EINVAL', `overlay '${file}' is not one of '${image}'`, {
    limit: `its backing file is '${below[0]?.file.path ?? 'none'}'`,
  });
}

function isSameFile(one: LayerDescription, other: LayerDescription): boolean {
  const [a, b] = [fstatSync(one.file.fd), fstatSync(other.file.fd)];
  if (one.format !== other.format) return false;
  return a.isBlockDevice() ? a.rdev === b.rdev : a.dev === b.dev && a.ino === b.ino;
}

/** The image below the overlay as that snapshot: its disk is the snapshot's. */
function showSnapshot(
  description: ImageDescription,
  snapshot: Snapshot | undefined,
): ImageDescription {
  const [overlay, image, ...rest] = description.layers;
  if (snapshot === undefined || image?.format !== 'qcow2') return description;
  const { l1TableOffset, l1Size, diskSize } = snapshot;
  const header = { ...image.header, l1TableOffset, l1Size, size: diskSize };
  return { ...description, layers: [overlay, { ...image, header }, ...rest] };
}
