/** Moving what an image holds to its beginning, and cutting its file: nothing that is read changes. */
import { fstatSync } from 'node:fs';
import { ImageError } from '../errors.js';
import { cipherOf } from '../image/attach.js';
import type { ImageDescription, Qcow2Description } from '../image/description.js';
import { storageOf } from '../image/file-storage.js';
import { closeImage } from '../image/open.js';
import { checkImage } from '../image/qcow2/check.js';
import { clusterLimit } from '../image/qcow2/checked-image.js';
import { type CompactOptions, type CompactResult, compactSteps } from '../image/qcow2/compact.js';
import { setFeatures } from '../image/qcow2/header-edit.js';
import { readBitmaps } from '../image/qcow2/bitmaps.js';
import { readHeader } from '../image/qcow2/header.js';
import { INCOMPATIBLE } from '../image/qcow2/layout.js';
import { readSnapshots } from '../image/qcow2/snapshots.js';
import { type ImageSpec, specOf } from '../image/spec.js';
import { type Steps, stepsWithin } from '../image/steps.js';
import { isDirect, type WriteOptions } from '../image/write-options.js';
import type { MutableStorage } from '../storage/storage.js';
import { openDescription } from './open-image.js';

export interface CompactRequest extends Pick<CompactOptions, 'dryRun' | 'batch'> {
  readonly write?: Partial<WriteOptions>;
  /** Told of the image as it was opened. */
  readonly opened?: (description: ImageDescription) => void;
}

/**
 * Compacts an image. Throws an ImageError: of opening; 'unsupported', ENOTSUP, for other formats; 'corrupt' where
 * a check finds errors in it. Ended early, the image is in order, and the next call goes on.
 */
export function* compactImage(
  image: string | ImageSpec,
  request: CompactRequest = {},
): Steps<CompactResult> {
  const spec = specOf(image);
  const { dryRun = false, write = {} } = request;
  const { description } = openDescription(spec, {
    lock: dryRun ? 'read' : 'write',
    writable: !dryRun,
    probedRaw: true,
    allowEncrypted: dryRun,
    direct: isDirect(write.cache ?? 'writeback'),
  });
  try {
    request.opened?.(description);
    const [layer] = description.layers;
    if (layer.format !== 'qcow2') throw otherFormat(layer.format);
    const isDevice = fstatSync(layer.file.fd).isBlockDevice();
    return yield* compactLayer(storageOf(layer.file), layer, isDevice, request);
  } finally {
    closeImage(description);
  }
}

/** The same of an image that is open, with its file in `storage`. */
export function* compactLayer(
  storage: MutableStorage,
  layer: Pick<Qcow2Description, 'key'>,
  isDevice: boolean,
  { dryRun = false, batch }: Pick<CompactOptions, 'dryRun' | 'batch'>,
): Steps<CompactResult> {
  const { clusterSize } = readHeader(storage).geometry;
  const limit = clusterLimit(storage, isDevice, clusterSize);
  yield* stepsWithin(settle(storage, limit, dryRun), 0, PART.CHECKED);
  const header = readHeader(storage);
  const snapshots = readSnapshots(storage, header);
  const bitmaps = readBitmaps(storage, header);
  const source = { storage, header, snapshots, bitmaps, limit };
  const options = { dryRun, cipher: cipherOf(layer), ...(batch !== undefined && { batch }) };
  return yield* stepsWithin(compactSteps(source, options), PART.CHECKED, 1);
}

/** Refuses an image with errors; of one that a crash left, what leaks is freed. */
function* settle(storage: MutableStorage, limit: number, dryRun: boolean): Steps<void> {
  const header = readHeader(storage);
  const bitmaps = readBitmaps(storage, header);
  const image = { storage, header, bitmaps, limit };
  const found = yield* stepsWithin(
    checkImage(image, 'none', () => {}),
    0,
    0.5,
  );
  if (found.corruptions + found.checkErrors > 0) {
    const how = "'qcow2fs check' tells them, and repairs it with '-r all'";
    throw new ImageError('corrupt', 'EIO', `${storage.name}: the image has errors: ${how}`);
  }
  if (dryRun || found.leaks === 0) return;
  if (header.version >= 3) {
    // Where a count falls to 1, flags follow it: the repair clears the bit.
    const dirty = 1n << BigInt(INCOMPATIBLE.DIRTY);
    setFeatures(storage, { incompatible: header.incompatibleFeatures | dirty });
    storage.flush();
  }
  const again = { ...image, header: readHeader(storage) };
  yield* stepsWithin(
    checkImage(again, 'leaks', () => {}),
    0.5,
    1,
  );
}

const PART = { CHECKED: 0.1 } as const;

function otherFormat(format: string): ImageError {
  const instead = "'qcow2fs convert' makes a new one without what is free";
  const message = `Images of format '${format}' cannot be compacted: ${instead}`;
  return new ImageError('unsupported', 'ENOTSUP', message);
}
