/** Checks an image and repairs it: what is found is told one by one, and counted. */
import { fstatSync } from 'node:fs';
import { ImageError } from '../errors.js';
import { soleSource } from '../image/attach.js';
import type { CheckResult, Fix, FormatFinding } from '../image/check-result.js';
import type { ImageDescription, OtherDescription, Qcow2Description } from '../image/description.js';
import { storageOf } from '../image/file-storage.js';
import { formatDriver } from '../image/formats.js';
import { closeImage, type OpenPolicy } from '../image/open.js';
import { checkImage } from '../image/qcow2/check.js';
import { type CheckedImage, clusterLimit } from '../image/qcow2/checked-image.js';
import type { Finding } from '../image/qcow2/check-findings.js';
import { checkBitmapTables } from '../image/qcow2/bitmaps.js';
import { readHeader } from '../image/qcow2/header.js';
import { prepareForWriting } from '../image/qcow2/prepare-for-writing.js';
import { type ImageSpec, specOf } from '../image/spec.js';
import { runSteps, type Steps, stepsWithin } from '../image/steps.js';
import { openDescription } from './open-image.js';

export interface CheckOptions {
  readonly fix?: Fix;
  readonly policy?: OpenPolicy;
  /** Told of the image as it was opened, before it is checked. */
  readonly opened?: (description: ImageDescription) => void;
  readonly report?: (finding: Finding | FormatFinding) => void;
  /** Told what a fix has put right, before the image is checked again. */
  readonly repaired?: (result: CheckResult) => void;
}

/**
 * Checks an image. With a fix, it is repaired, and where that has changed anything, checked once more: the
 * result is of the image as it is then, with what was repaired. Throws an ImageError: 'unsupported', ENOTSUP
 * for formats that have nothing to check, errors of opening, and where the check comes to no end.
 */
export function check(image: string | ImageSpec, options: CheckOptions = {}): CheckResult {
  return runSteps(checkSteps(image, options));
}

/**
 * The same in steps. Where it is ended between two of them, a check has changed nothing, and what a repair
 * leaves is what a crash leaves of it: the next one goes on.
 */
export function* checkSteps(
  image: string | ImageSpec,
  options: CheckOptions = {},
): Steps<CheckResult> {
  const { fix = 'none', report = () => {}, repaired, policy } = options;
  const spec = specOf(image);
  const writable = fix !== 'none';
  if (writable && spec.forceShare === true) {
    const why = 'force-share=on can only be used with read-only images';
    throw new ImageError('policy', 'EINVAL', `Could not open '${spec.filename}': ${why}`);
  }
  const { description } = openDescription(spec, {
    lock: writable ? 'write' : 'read',
    writable,
    probedRaw: true,
    allowEncrypted: true,
    check: true,
    ...policy,
  });
  try {
    options.opened?.(description);
    const [layer] = description.layers;
    if (layer.format !== 'qcow2') {
      if (layer.format === 'raw') throw noChecks();
      return checkOther(layer, writable, report, repaired);
    }
    if (writable) negotiate(layer);
    refuseBitmapTables(spec, layer);
    const half = fix === 'none' ? 1 : 0.5;
    const first = yield* stepsWithin(checkImage(checkedImage(layer), fix, report), 0, half);
    const { corruptionsFixed, leaksFixed } = first;
    if (corruptionsFixed + leaksFixed === 0) return first;
    repaired?.(first);
    const again = checkImage(checkedImage(layer), 'none', report);
    const second = yield* stepsWithin(again, half, 1);
    return { ...second, corruptionsFixed, leaksFixed };
  } finally {
    closeImage(description);
  }
}

function checkOther(
  layer: OtherDescription,
  writable: boolean,
  report: (finding: FormatFinding) => void,
  repaired: CheckOptions['repaired'],
): CheckResult {
  const driver = formatDriver(layer.format);
  const look = driver?.check;
  // There is nothing that could be repaired in formats that are not written to.
  if (look === undefined || (writable && driver?.writing === undefined)) throw noChecks();
  const source = soleSource(layer);
  return withSecondLook(repaired, (again) => look(source, layer, writable && !again, report));
}

/** As for every opening to write: what other programs have said of the image may no longer be true. */
function negotiate({ file }: Qcow2Description): void {
  const storage = storageOf(file);
  prepareForWriting(storage, readHeader(storage, 'check'));
}

/** QEMU opens no image with a bitmap that it cannot load, but where it is marked as not in order. */
function refuseBitmapTables(
  { filename }: ImageSpec,
  { file, header, bitmaps }: Qcow2Description,
): void {
  try {
    checkBitmapTables(storageOf(file), header, bitmaps, false);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    const message = `Could not open '${filename}': ${error.message}: Invalid argument`;
    throw new ImageError('invalid', 'EINVAL', message);
  }
}

/** What was repaired is told, and the image checked once more. */
function withSecondLook(
  repaired: CheckOptions['repaired'],
  look: (again: boolean) => CheckResult,
): CheckResult {
  const first = look(false);
  const { corruptionsFixed, leaksFixed } = first;
  if (corruptionsFixed + leaksFixed === 0) return first;
  repaired?.(first);
  return { ...look(true), corruptionsFixed, leaksFixed };
}

function noChecks(): ImageError {
  const message = 'This image format does not support checks';
  return new ImageError('unsupported', 'ENOTSUP', message, { operation: 'check' });
}

/** With the header as it is now: a repair changes it. */
function checkedImage({ file, bitmaps }: Qcow2Description): CheckedImage {
  const storage = storageOf(file);
  const header = readHeader(storage, 'check');
  const isDevice = fstatSync(file.fd).isBlockDevice();
  const { clusterSize } = header.geometry;
  const limit = clusterLimit(storage, isDevice, clusterSize);
  return { storage, header, bitmaps, limit };
}
