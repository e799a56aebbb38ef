/**
 * `overlay`: what is written to a mount goes to a qcow2 overlay over the image, which is opened
 * read-only itself. Kept in a file, or in one without a name, which is gone with the process.
 */
import { closeSync, existsSync, fstatSync } from 'node:fs';
import { resolve } from 'node:path';
import { ImageError } from '../errors.js';
import type { KeyRing } from '../image/crypto/key-ring.js';
import { type ImageDescription, type LayerDescription, layerSize } from '../image/description.js';
import { closeImage, type OpenedImage, type OpenPolicy, openImage } from '../image/open.js';
import { createOverlay } from '../image/qcow2/create.js';
import type { Snapshot } from '../image/qcow2/snapshots.js';
import type { ImageSpec } from '../image/spec.js';
import { openNameless } from '../tools/throw-away.js';

export interface OverlayOptions {
  /** The image's path, absolute. */
  readonly image: string;
  readonly policy: OpenPolicy;
  /** For the image, and what lies below it. The overlay itself is not encrypted. */
  readonly keys: KeyRing;
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
  const base = openImage(specOf(image, options), { ...options.policy, writable: false });
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
    const description = showSnapshot(opened.description, snapshot);
    return { ...opened, description, warnings };
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
    return openImage(specOf(path, options), over);
  }
  const fd = openNameless(image);
  try {
    createOverlay(fd, creation);
    return openImage(specOf(`/proc/self/fd/${fd}`, options), over);
  } finally {
    closeSync(fd);
  }
}

function specOf(path: string, { keys }: OverlayOptions): ImageSpec {
  return { path, filename: path, keys };
}

/** Looks whether a file is an overlay of the image before it is opened for writing, which changes it. */
function checkFile(path: string, base: ImageDescription, options: OverlayOptions): void {
  const policy: OpenPolicy = { lock: options.policy.lock, format: 'qcow2', allowEncrypted: true };
  const { description } = openImage(path, policy);
  checkChain(description, base, options);
  closeImage(description);
}

function diskSizeOf(layer: LayerDescription): number {
  return layer.format === 'raw' ? layer.fileSize : layerSize(layer);
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
