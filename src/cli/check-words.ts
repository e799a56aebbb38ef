/** What a check finds, and its result, in qemu-img's words. */
import type { CheckResult, FormatFinding } from '../image/check-result.js';
import type { Finding } from '../image/qcow2/check-findings.js';
import { formatJson } from '../mount/json.js';
import { programName } from './program.js';

/** The line of one finding. */
export function findingText(finding: Finding | FormatFinding): string {
  const verb = 'repairing' in finding && finding.repairing ? 'Repairing' : 'ERROR';
  switch (finding.kind) {
    case 'refcount':
      return refcountText(finding);
    case 'copied-l2':
      return (
        `${verb} OFLAG_COPIED L2 cluster: l1_index=${finding.l1Index} ` +
        `l1_entry=${hex(finding.entry)} refcount=${finding.refcount}`
      );
    case 'copied-data':
      return (
        `${verb} OFLAG_COPIED data cluster: l2_entry=${hex(finding.entry)} ` +
        `refcount=${finding.refcount}`
      );
    case 'past-end':
      return (
        'ERROR: counting reference for region exceeding the end of the file by one cluster or ' +
        `more: offset 0x${hex(finding.offset)} size 0x${hex(finding.size)}`
      );
    case 'overflow':
      return (
        `ERROR: overflow cluster offset=0x${hex(finding.offset)}\n` +
        'Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a ' +
        'clean copy if the image cannot be opened for writing'
      );
    case 'rebuilding':
      return 'Rebuilding refcount structure';
    case 'rebuild-needed':
      return 'ERROR need to rebuild refcount structures';
    case 'refcount-unknown':
      return `Can't get refcount for cluster ${finding.cluster}: Input/output error`;
    default:
      return entryText(finding, verb) ?? formatText(finding) ?? tableText(finding, verb);
  }
}

function refcountText(finding: Extract<Finding, { kind: 'refcount' }>): string {
  const { cluster, refcount, references, repairing } = finding;
  const verb = repairing ? 'Repairing' : refcount < references ? 'ERROR' : 'Leaked';
  return `${verb} cluster ${cluster} refcount=${countText(refcount)} reference=${references}`;
}

/** All its digits; the largest of 64 bits, which a number rounds up, as it is. */
function countText(count: number): string {
  return String(count >= 2 ** 64 ? 2n ** 64n - 1n : BigInt(count));
}

/** Of L1 and L2 entries. */
function entryText(finding: Finding | FormatFinding, verb: string): string | null {
  switch (finding.kind) {
    case 'l1-reserved':
      return `ERROR found L1 entry with reserved bits set: ${hex(finding.entry)}`;
    case 'l2-table-unaligned':
      return (
        `ERROR l2_offset=${hex(finding.offset)}: Table is not cluster aligned; ` +
        'L1 entry corrupted'
      );
    case 'l2-reserved':
      return `ERROR found l2 entry with reserved bits set: ${hex(finding.entry)}`;
    case 'data-unaligned':
      return (
        `ERROR offset=${hex(finding.offset)}: Data cluster is not properly aligned; ` +
        'L2 entry corrupted.'
      );
    case 'zero-unaligned':
      return (
        `${verb} offset=${hex(finding.offset)}: Preallocated cluster is not properly aligned; ` +
        'L2 entry corrupted.'
      );
    case 'compressed-copied':
      return (
        `ERROR: coffset=0x${hex(finding.offset)}: copied flag must never be set for ` +
        'compressed clusters'
      );
    case 'compressed-external':
      return (
        `ERROR compressed cluster ${finding.index} with data file, ` +
        `entry=0x${hex(finding.entry)}`
      );
    case 'compressed-bitmap':
      return (
        `ERROR compressed cluster ${finding.index} with non-zero subcluster allocation bitmap, ` +
        `entry=0x${hex(finding.entry)}`
      );
    case 'subclusters-both':
      return (
        `ERROR offset=${hex(finding.offset)}: Allocated cluster has corrupted subcluster ` +
        'allocation bitmap'
      );
    case 'subclusters-unallocated':
      return 'ERROR: Unallocated cluster has non-zero subcluster allocation map';
    default:
      return null;
  }
}

/** Of other formats than qcow2; null of others. */
function formatText(finding: Finding | FormatFinding): string | null {
  switch (finding.kind) {
    case 'vdi-outside':
      return `ERROR: block index ${finding.block} too large, is ${finding.entry}`;
    case 'vdi-twice':
      return `ERROR: block index ${finding.entry} also used by ${finding.entry}`;
    case 'vdi-count': {
      const { allocated, stated } = finding;
      return `ERROR: allocated blocks mismatch, is ${allocated}, should be ${stated}`;
    }
    case 'vhdx-outside': {
      const { entry, isStart, offset, fileSize } = finding;
      const place = `${isStart ? 'start' : 'end'} offset ${offset}`;
      const end = `points after end of file (${fileSize}). Image has probably been truncated.`;
      return `${programName()}: VHDX BAT entry ${entry} ${place} ${end}`;
    }
    case 'vhdx-overlap':
      return `${programName()}: ${finding.text}`;
    case 'grain-unknown':
      return `ERROR: could not get cluster_offset for sector ${finding.sector}`;
    case 'parallels-in-use':
      return 'ERROR image was not closed correctly';
    case 'parallels-outside':
      return `ERROR cluster ${finding.block} is outside image`;
    case 'parallels-lost':
      return `ERROR space leaked at the end of the image ${finding.length}`;
    case 'grain-outside':
      return `ERROR: cluster offset for sector ${finding.sector} points after EOF`;
    default:
      return null;
  }
}

/** Of the snapshot table and the refcount table. */
function tableText(finding: Finding | FormatFinding, verb: string): string {
  switch (finding.kind) {
    case 'snapshots-external':
      return `ERROR ${finding.count} snapshots in image with data file`;
    case 'snapshot-l1-unaligned':
      return (
        `ERROR snapshot ${finding.id} (${finding.name}) l1_offset=${prefixed(finding.offset)}: ` +
        'L1 table is not cluster aligned; snapshot table entry corrupted'
      );
    case 'snapshot-l1-large':
      return (
        `ERROR snapshot ${finding.id} (${finding.name}) l1_size=${prefixed(finding.l1Size)}: ` +
        'L1 table is too large; snapshot table entry corrupted'
      );
    case 'snapshots-discarded': {
      const why = finding.tooBig ? ' (snapshot table is too big)' : '';
      return `Discarding ${finding.count} overhanging snapshots${why}`;
    }
    case 'snapshot-extra-discarded':
      return (
        `Discarding too much extra metadata in snapshot table entry ${finding.index} ` +
        `(${finding.size} > 1024)`
      );
    case 'snapshot-incomplete':
      return `${verb} snapshot table entry ${finding.index} is incomplete`;
    case 'bitmap-entry':
      return `ERROR bitmap '${finding.name}': invalid table entry ${hex(finding.entry)}`;
    case 'block-reserved':
      return `ERROR refcount table entry ${finding.index} has reserved bits set`;
    case 'block-unaligned':
      return (
        `ERROR refcount block ${finding.index} is not cluster aligned; ` +
        'refcount table entry corrupted'
      );
    case 'block-outside':
      return `${verb} refcount block ${finding.index} is outside image`;
    case 'block-shared':
      return `ERROR refcount block ${finding.index} refcount=${finding.references}`;
    case 'block-unreadable':
      return (
        `qcow2: Image is corrupt: Refblock offset 0x${hex(finding.offset)} unaligned ` +
        `(reftable index: ${prefixed(finding.index)}); further non-fatal corruption events will ` +
        'be suppressed'
      );
    default:
      throw new RangeError(finding.kind);
  }
}

function hex(value: number | bigint): string {
  return value.toString(16);
}

/** As C's `%#x`: 0 has no prefix. */
function prefixed(value: number | bigint): string {
  return Number(value) === 0 ? '0' : `0x${hex(value)}`;
}

/** What was repaired, before the image is checked once more. */
export function repairedText({ leaksFixed, corruptionsFixed }: CheckResult): string {
  return (
    'The following inconsistencies were found and repaired:\n\n' +
    `    ${leaksFixed} leaked clusters\n    ${corruptionsFixed} corruptions\n\n` +
    'Double checking the fixed image now...\n'
  );
}

export function humanResult(result: CheckResult): string {
  const { corruptions, leaks, checkErrors, imageEndOffset } = result;
  const parts: string[] = [];
  if (corruptions + leaks + checkErrors === 0) {
    parts.push('No errors were found on the image.\n');
  }
  if (corruptions > 0) {
    parts.push(
      `\n${corruptions} errors were found on the image.\n` +
        'Data may be corrupted, or further writes to the image may corrupt it.\n',
    );
  }
  if (leaks > 0) {
    parts.push(
      `\n${leaks} leaked clusters were found on the image.\n` +
        'This means waste of disk space, but no harm to data.\n',
    );
  }
  if (checkErrors > 0) {
    parts.push(`\n${checkErrors} internal errors have occurred during the check.\n`);
  }
  parts.push(fragmentationText(result));
  if (imageEndOffset > 0) parts.push(`Image end offset: ${imageEndOffset}\n`);
  return parts.join('');
}

function fragmentationText(result: CheckResult): string {
  const { totalClusters, allocatedClusters, fragmentedClusters, compressedClusters } = result;
  if (totalClusters === 0 || allocatedClusters === 0) return '';
  return (
    `${allocatedClusters}/${totalClusters} = ${percent(allocatedClusters, totalClusters)} ` +
    `allocated, ${percent(fragmentedClusters, allocatedClusters)} fragmented, ` +
    `${percent(compressedClusters, allocatedClusters)} compressed clusters\n`
  );
}

/** As C prints it with two digits: what lies just between two goes to the even one. */
function percent(part: number, whole: number): string {
  const value = (part * 100) / whole;
  const isTie = Number.isInteger(value * 8) && !Number.isInteger(value * 4);
  const below = Math.floor(value * 100);
  return `${(isTie ? (below + (below % 2)) / 100 : value).toFixed(2)}%`;
}

/** The same as JSON: what is 0 is left out, but for what must be there. */
export function jsonResult(result: CheckResult, filename: string, format: string): string {
  const some = (count: number) => (count === 0 ? undefined : count);
  const object = {
    filename,
    format,
    'check-errors': result.checkErrors,
    'image-end-offset': some(result.imageEndOffset),
    corruptions: some(result.corruptions),
    leaks: some(result.leaks),
    'corruptions-fixed': some(result.corruptionsFixed),
    'leaks-fixed': some(result.leaksFixed),
    'total-clusters': some(result.totalClusters),
    'allocated-clusters': some(result.allocatedClusters),
    'fragmented-clusters': some(result.fragmentedClusters),
    'compressed-clusters': some(result.compressedClusters),
  };
  return `${formatJson(object)}\n`;
}
