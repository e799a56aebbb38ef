/** `info`: what an image is, for people or as JSON; in qemu-img's words. */
import { ImageError } from '../errors.js';
import type { LayerDescription } from '../image/description.js';
import { protocolOf } from '../image/file-names.js';
import { collectInfo, type ImageInfo, type Qcow2Facts } from '../image/info.js';
import { closeImage, type OpenPolicy, openImage } from '../image/open.js';
import { BITMAP_FLAG, type Bitmap } from '../image/qcow2/bitmaps.js';
import type { LuksFacts, LuksKeySlot } from '../image/qcow2/luks-header.js';
import type { Snapshot } from '../image/qcow2/snapshots.js';
import { formatClock, formatDate, formatSize, padLeft, padRight } from './human.js';
import {
  formatJson,
  isComposite,
  isList,
  type JsonObject,
  type JsonValue,
  orderedEntries,
} from './json.js';

export interface InfoOptions {
  /** Printed as it is given here. */
  readonly path: string;
  readonly format?: string | undefined;
  readonly json: boolean;
  /** Tell of the backing files too. */
  readonly backingChain: boolean;
  readonly policy?: Pick<OpenPolicy, 'noBacking' | 'backingRoot' | 'lock'> | undefined;
}

/**
 * The text of `info`, with a newline at its end. Only the image itself is opened, or with
 * `backingChain` its backing files; data files never. Throws an ImageError.
 */
export function runInfo(options: InfoOptions): string {
  const infos = readInfos(options);
  if (!options.json) return infos.map(humanInfo).join('\n');
  const objects = infos.map(infoObject);
  return `${formatJson(options.backingChain ? objects : objects[0]!)}\n`;
}

/** What `info --output=json FILENAME` prints of an image that is open already. */
export function infoJson(layer: LayerDescription, filename: string): string {
  return `${formatJson(infoObject(collectInfo(layer, filename)))}\n`;
}

/** QEMU takes what comes before a colon for a protocol: only `file:` leads to a file. */
function plainPath(name: string): string {
  const protocol = protocolOf(name);
  if (protocol === undefined) return name;
  if (protocol === 'file') return name.slice('file:'.length);
  throw new ImageError(
    'invalid',
    'EINVAL',
    `Could not open '${name}': Unknown protocol '${protocol}'`,
  );
}

function readInfos(options: InfoOptions): ImageInfo[] {
  const { format, backingChain, policy } = options;
  const path = plainPath(options.path);
  const { description } = openImage(path, {
    noBacking: policy?.noBacking,
    backingRoot: policy?.backingRoot,
    lock: policy?.lock,
    format,
    alone: !backingChain,
    allowEncrypted: true,
    noDataFiles: true,
  });
  try {
    const infos: ImageInfo[] = [];
    for (const layer of description.layers) {
      const named = infos.at(-1)?.backing?.fullName ?? path;
      const plain = infos.length === 0 || protocolOf(named) === undefined;
      infos.push(collectInfo(layer, plain ? named : layer.file.path));
    }
    // A format that is none, but QEMU's name of how the file itself is accessed.
    const isProtocol = format === 'file' || format === 'host_device';
    return isProtocol ? [{ ...infos[0]!, format }] : infos;
  } finally {
    closeImage(description);
  }
}

function infoObject(info: ImageInfo): JsonObject {
  const { backing, snapshots, qcow2 } = info;
  return {
    filename: info.filename,
    format: info.format,
    'virtual-size': info.virtualSize,
    'actual-size': info.actualSize,
    'dirty-flag': info.dirty,
    'cluster-size': info.clusterSize ?? undefined,
    encrypted: isEncrypted(info) ? true : undefined,
    'backing-filename': backing?.name,
    'full-backing-filename': backing?.fullName,
    'backing-filename-format': backing?.format ?? undefined,
    snapshots: snapshots.length > 0 ? snapshots.map(snapshotObject) : undefined,
    'format-specific': qcow2 === null ? undefined : { type: 'qcow2', data: qcow2Object(qcow2) },
  };
}

function isEncrypted({ qcow2 }: ImageInfo): boolean {
  return qcow2 !== null && qcow2.encrypt !== null;
}

const NSEC_PER_SEC = 1_000_000_000n;

function snapshotObject(snapshot: Snapshot): JsonObject {
  return {
    id: snapshot.id,
    name: snapshot.name,
    'vm-state-size': BigInt.asIntN(64, BigInt(snapshot.vmStateSize)),
    'date-sec': snapshot.dateSec,
    'date-nsec': snapshot.dateNsec,
    'vm-clock-sec': snapshot.vmClock / NSEC_PER_SEC,
    'vm-clock-nsec': snapshot.vmClock % NSEC_PER_SEC,
    icount: icountOf(snapshot) ?? undefined,
  };
}

/** Where there is no count, all bits are set. QEMU prints it signed. */
function icountOf({ icount }: Snapshot): bigint | null {
  if (icount === null) return null;
  const signed = BigInt.asIntN(64, icount);
  return signed === -1n ? null : signed;
}

function qcow2Object(facts: Qcow2Facts): JsonObject {
  const common = {
    'compression-type': facts.compressionType,
    'refcount-bits': facts.refcountBits,
    encrypt: encryptObject(facts.encrypt),
  };
  if (facts.version === 2) return { compat: '0.10', ...common };
  return {
    compat: '1.1',
    ...common,
    'lazy-refcounts': facts.lazyRefcounts,
    corrupt: facts.corrupt,
    'extended-l2': facts.extendedL2,
    'data-file': facts.dataFile ?? undefined,
    'data-file-raw': facts.dataFile === null ? undefined : facts.dataFileRaw,
    bitmaps: facts.bitmaps.length > 0 ? facts.bitmaps.map(bitmapObject) : undefined,
  };
}

function bitmapObject({ name, granularity, flags }: Bitmap): JsonObject {
  const names: string[] = [];
  if ((flags & BITMAP_FLAG.IN_USE) !== 0) names.push('in-use');
  if ((flags & BITMAP_FLAG.AUTO) !== 0) names.push('auto');
  return { name, granularity, flags: names };
}

function encryptObject(encrypt: Qcow2Facts['encrypt']): JsonObject | undefined {
  if (encrypt === null) return undefined;
  return encrypt.format === 'aes' ? { format: 'aes' } : luksObject(encrypt);
}

function luksObject(luks: LuksFacts): JsonObject {
  return {
    format: luks.format,
    'cipher-alg': luks.cipherAlg,
    'cipher-mode': luks.cipherMode,
    'ivgen-alg': luks.ivgenAlg,
    'ivgen-hash-alg': luks.ivgenHashAlg ?? undefined,
    'hash-alg': luks.hashAlg,
    uuid: luks.uuid,
    'payload-offset': luks.payloadOffset,
    'master-key-iters': luks.masterKeyIterations,
    slots: luks.slots.map(slotObject),
  };
}

function slotObject({ active, iterations, stripes, keyOffset }: LuksKeySlot): JsonObject {
  if (!active) return { active, 'key-offset': keyOffset };
  return { active, iters: iterations, stripes, 'key-offset': keyOffset };
}

function humanInfo(info: ImageInfo): string {
  const { backing, snapshots, qcow2 } = info;
  const lines = [
    `image: ${info.filename}`,
    `file format: ${info.format}`,
    `virtual size: ${formatSize(info.virtualSize)} (${info.virtualSize} bytes)`,
    `disk size: ${formatSize(info.actualSize)}`,
  ];
  if (isEncrypted(info)) lines.push('encrypted: yes');
  if (info.clusterSize !== null) lines.push(`cluster_size: ${info.clusterSize}`);
  if (info.dirty) lines.push('cleanly shut down: no');
  if (backing !== null) {
    const actual = backing.fullName === backing.name ? '' : ` (actual path: ${backing.fullName})`;
    lines.push(`backing file: ${backing.name}${actual}`);
    if (backing.format !== null) lines.push(`backing file format: ${backing.format}`);
  }
  if (snapshots.length > 0) lines.push('Snapshot list:', ...snapshotTable(snapshots));
  if (qcow2 !== null) {
    lines.push('Format specific information:', ...dumpObject(qcow2Object(qcow2), 1));
  }
  return `${lines.join('\n')}\n`;
}

/** The table of snapshots, its head included: what `snapshot -l` prints too. */
export function snapshotTable(snapshots: readonly Snapshot[]): string[] {
  const head = snapshotRow('ID', 'TAG', 'VM SIZE', 'DATE', 'VM CLOCK', 'ICOUNT');
  const rows = snapshots.map((snapshot) =>
    snapshotRow(
      snapshot.id,
      snapshot.name,
      formatSize(snapshot.vmStateSize),
      formatDate(snapshot.dateSec),
      formatClock(snapshot.vmClock),
      String(icountOf(snapshot) ?? ''),
    ),
  );
  return [head, ...rows];
}

function snapshotRow(
  id: string,
  tag: string,
  size: string,
  date: string,
  clock: string,
  icount: string,
): string {
  const left = `${padRight(id, 9)} ${padRight(tag, 16)} `;
  return left + padLeft(size, 8) + padLeft(date, 20) + padLeft(clock, 13) + padLeft(icount, 11);
}

function dumpObject(object: JsonObject, level: number): string[] {
  return orderedEntries(object).flatMap(([key, value]) =>
    dumpValue(key.replaceAll('-', ' '), value, level),
  );
}

function dumpValue(name: string, value: JsonValue, level: number): string[] {
  const indent = '    '.repeat(level);
  if (!isComposite(value)) return [`${indent}${name}: ${value}`];
  const inner = isList(value)
    ? value.flatMap((item, index) => dumpValue(`[${index}]`, item, level + 1))
    : dumpObject(value, level + 1);
  return [`${indent}${name}:`, ...inner];
}
