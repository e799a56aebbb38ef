/** The image that qemu-io's commands work on: how it is opened, and opened anew with other options. */
import { ImageError, isExpected } from '../../errors.js';
import { closeImage } from '../../image/open.js';
import type { ImageSpec } from '../../image/spec.js';
import { type WriteOptions, writesThrough } from '../../image/write-options.js';
import { printableLines } from '../../sys/log.js';
import { check } from '../../tools/check.js';
import { DiskRequests, preparePacking } from '../../tools/disk-requests.js';
import type { OpenDisk } from '../../tools/open-disk.js';
import { openTold } from '../open-told.js';
import { openDescription } from '../../tools/open-image.js';
import { openThrowAway } from '../../tools/throw-away.js';
import { findingText } from '../check-words.js';

/** What the options of the command line and of `open` say. */
export interface OpenFlags {
  readonly readOnly: boolean;
  /** Writes go to an overlay that is thrown away. */
  readonly snapshot: boolean;
  readonly copyOnRead: boolean;
  readonly forceShare: boolean;
  readonly cache: WriteOptions['cache'];
  /** Whether requests to discard do anything. */
  readonly discards: boolean;
  /** Asked for without going past the host's cache, which QEMU refuses. */
  readonly nativeAio: boolean;
}

export interface IoImage {
  readonly disk: OpenDisk;
  readonly requests: DiskRequests;
  readonly writable: boolean;
  readonly spec: ImageSpec;
  readonly flags: OpenFlags;
}

/** The options that the image itself says, over those of the flags. */
function settingsOf(spec: ImageSpec, flags: OpenFlags) {
  const readOnly = spec.readOnly ?? flags.readOnly;
  const forceShare = spec.forceShare ?? flags.forceShare;
  const discard = spec.write?.discard ?? (flags.discards ? 'unmap' : 'ignore');
  const detectZeroes = spec.write?.detectZeroes ?? 'off';
  if (detectZeroes === 'unmap' && discard !== 'unmap') {
    throw refused(
      'setting detect-zeroes to unmap is not allowed without setting discard operation to unmap',
    );
  }
  if (flags.nativeAio) {
    throw refused(
      'aio=native was specified, but it requires cache.direct=on, which was not specified.',
    );
  }
  if (spec.copyOnRead === true && readOnly) throw refused('Block node is read-only');
  if (flags.copyOnRead && readOnly) throw refused("Can't use copy-on-read on read-only device");
  if (forceShare && !readOnly) {
    throw refused('force-share=on can only be used with read-only images');
  }
  // Zeroes are looked for here, in whole requests.
  const given = { cache: flags.cache, ...spec.write };
  const cache =
    given.cache === 'none' && writesThrough(flags.cache) ? ('directsync' as const) : given.cache;
  const write = { ...given, cache, discard, detectZeroes: 'off' as const };
  return { readOnly, forceShare, discard, detectZeroes, write };
}

/** Opens the image; errors are QEMU's words without the image's name. */
export async function openIoImage(spec: ImageSpec, flags: OpenFlags): Promise<IoImage> {
  const { readOnly, forceShare, discard, detectZeroes, write } = settingsOf(spec, flags);
  const options = { writable: !readOnly, write };
  // Where nothing is written, it could be forced.
  const opened = { ...spec, readOnly, forceShare: readOnly ? forceShare : undefined, write };
  if (!readOnly && !flags.snapshot) repairDirty(opened);
  const disk = flags.snapshot
    ? await openThrowAway(opened, options)
    : await openTold(opened, options);
  if (spec.compress === true) await prepareToCompress(disk);
  // As QEMU: a session that is cut off leaves them so, whatever it did.
  if (!readOnly) disk.writer.holdBitmaps();
  const guessedRaw =
    spec.format === undefined && !readOnly && disk.description.layers[0].format === 'raw';
  const requests = new DiskRequests(disk, {
    copyOnRead: flags.copyOnRead || spec.copyOnRead === true,
    compress: spec.compress,
    faults: spec.requestFaults,
    zeroUnit: spec.zeroUnit,
    detectZeroes,
    discards: discard === 'unmap',
    guessedRaw,
  });
  if (guessedRaw) warnOfGuess(spec.filename);
  return { disk, requests, writable: !readOnly, spec, flags };
}

async function prepareToCompress(disk: OpenDisk): Promise<void> {
  const { format } = disk.description.layers[0];
  if (format !== 'qcow2' && format !== 'qcow') {
    disk.close();
    throw refused(`Compression is not supported for underlying format: ${format}`);
  }
  await preparePacking(disk);
}

/** An image that was not closed cleanly is repaired, and what was wrong is told. */
function repairDirty(spec: ImageSpec): void {
  if (!isDirty(spec)) return;
  check(spec, {
    fix: 'all',
    report: (finding) => process.stderr.write(`${printableLines(findingText(finding))}\n`),
  });
}

function isDirty(spec: ImageSpec): boolean {
  try {
    const policy = { alone: true, noDataFiles: true, allowEncrypted: true } as const;
    const { description } = openDescription({ ...spec, forceShare: true }, policy);
    closeImage(description);
    const [top] = description.layers;
    return top.format === 'qcow2' && top.needsRepair;
  } catch (error) {
    // What is wrong is told by who opens it in earnest.
    if (!isExpected(error)) throw error;
    return false;
  }
}

function warnOfGuess(filename: string): void {
  process.stderr.write(
    `WARNING: Image format was not specified for '${filename}' and probing guessed raw.\n` +
      '         Automatically detecting the format is dangerous for raw images, ' +
      'write operations on block 0 will be restricted.\n' +
      "         Specify the 'raw' format explicitly to remove the restrictions.\n",
  );
}

function refused(message: string): ImageError {
  return new ImageError('policy', 'EINVAL', message);
}
