/** Checks by our engine, printed as the command line prints them, and by QEMU's. */
import { findingText, humanResult, repairedText } from '#src/cli/check-words.js';
import { ERRNO, ImageError, isExpected } from '#src/errors.js';
import type { Disk } from '#src/image/disk.js';
import type { Fix } from '#src/image/check-result.js';
import { strerror } from '#src/sys/libc.js';
import { check } from '#src/tools/check.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import type { ToolResult } from './qemu.js';
import { withImage } from './read.js';

/** Bytes of a disk that are looked at. */
const MOST = 8 << 20;
/** Clusters that are read at once. */
const CHUNK = 64;

/** What `check` says of the image at `path`, with its exit status. */
export function ourCheck(path: string, fix: Fix = 'none'): ToolResult {
  let stdout = '';
  let stderr = '';
  try {
    const result = check(path, {
      fix,
      report: (finding) => {
        if (finding.kind === 'block-unreadable' && stderr.includes('Refblock offset')) return;
        stderr += `${findingText(finding)}\n`;
      },
      repaired: (first) => {
        stdout += repairedText(first);
      },
    });
    const { checkErrors, corruptions, leaks } = result;
    stdout += humanResult(result);
    if (checkErrors > 0) stderr += 'qemu-img: Check failed\n';
    const status = checkErrors > 0 ? 1 : corruptions > 0 ? 2 : leaks > 0 ? 3 : 0;
    return { status, stdout, stderr };
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    if (error.context.operation !== 'check') {
      return { status: 1, stdout, stderr: `qemu-img: ${error.message}\n` };
    }
    const words = strerror(ERRNO[error.code]);
    const { hint } = error.context;
    if (error.message !== words) stderr += `qemu-img: ${error.message}\n`;
    if (hint !== undefined) stderr += `${hint}\n`;
    return { status: 1, stdout, stderr: `${stderr}qemu-img: Check failed: ${words}\n` };
  }
}

/** What can be read of the disk and of the snapshots: clusters, by the snapshot's id and their place. */
export function readableClusters(path: string, clusterSize: number): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  try {
    withImage(path, ({ image }) => {
      addClusters(found, '', clusterSize, image.disk);
      for (const { view, snapshot } of image.snapshots()) {
        const disk = orNull(() => image.snapshotDisk(view));
        if (disk !== null) addClusters(found, `${snapshot.id} `, clusterSize, disk);
      }
    });
  } catch (error) {
    if (!isExpected(error)) throw error;
  }
  return found;
}

function orNull<T>(body: () => T): T | null {
  try {
    return body();
  } catch (error) {
    if (!isExpected(error)) throw error;
    return null;
  }
}

/** Many at once, and one by one where there is one among them that cannot be read. */
function addClusters(
  found: Map<string, Buffer>,
  prefix: string,
  clusterSize: number,
  disk: Disk,
): void {
  const size = Math.min(disk.size, MOST);
  const buffer = new IoBuffer(CHUNK * clusterSize);
  const read = (at: number, length: number): boolean =>
    orNull(() => disk.read(at, length, buffer, 0) ?? true) !== null;
  for (let start = 0; start < size; start += buffer.length) {
    const end = Math.min(size, start + buffer.length);
    const whole = read(start, end - start);
    const bytes = Buffer.from(buffer.bytes);
    for (let at = start; at < end; at += clusterSize) {
      const length = Math.min(clusterSize, end - at);
      if (whole) found.set(`${prefix}${at}`, bytes.subarray(at - start, at - start + length));
      else if (read(at, length)) {
        found.set(`${prefix}${at}`, Buffer.from(buffer.bytes.subarray(0, length)));
      }
    }
  }
}

/**
 * The clusters that could be read and cannot any more, or read as something else. Of those that the damage
 * has led elsewhere all along nothing is promised: what they are is in `truth`.
 */
export function lostClusters(
  before: ReadonlyMap<string, Buffer>,
  truth: ReadonlyMap<string, Buffer>,
  after: ReadonlyMap<string, Buffer>,
): string[] {
  return [...before]
    .filter(([place, bytes]) => truth.get(place)?.equals(bytes) === true)
    .filter(([place, bytes]) => after.get(place)?.equals(bytes) !== true)
    .map(([place]) => place);
}
