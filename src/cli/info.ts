/** `info`: what an image is, for people or as JSON; in qemu-img's words. */
import { ERRNO, ImageError } from '../errors.js';
import { protocolOf } from '../image/file-names.js';
import type { LayerDescription } from '../image/description.js';
import { collectInfo, type ImageInfo } from '../image/info.js';
import { closeImage, type OpenedImage, type OpenPolicy } from '../image/open.js';
import type { Snapshot } from '../image/qcow2/snapshots.js';
import type { ImageSpec } from '../image/spec.js';
import { icountOf, infoObject, qcow2Object } from '../mount/info-json.js';
import {
  formatJson,
  isComposite,
  isList,
  type JsonObject,
  type JsonValue,
  orderedEntries,
} from '../mount/json.js';
import { openDescription } from '../tools/open-image.js';
import { formatClock, formatDate, formatSize, padLeft, padRight } from './human.js';
import { warnOfStaleBitmaps } from './open-told.js';

export interface InfoOptions {
  readonly spec: ImageSpec;
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

function readInfos({ spec, backingChain, policy }: InfoOptions): ImageInfo[] {
  const { description, staleBitmaps } = openChain(spec, {
    ...policy,
    alone: !backingChain,
    allowEncrypted: true,
    noDataFiles: true,
  });
  try {
    warnOfStaleBitmaps(staleBitmaps);
    const infos: ImageInfo[] = [];
    for (const layer of description.layers) {
      const named = infos.at(-1)?.backing?.fullName ?? shownName(spec, layer.format);
      const plain = infos.length === 0 || protocolOf(named) === undefined;
      infos.push(collectInfo(layer, plain ? named : layer.file.path));
    }
    return infos;
  } finally {
    closeImage(description);
  }
}

/** As QEMU, which opens one file of a chain after the other, and tells each one's own error. */
function openChain(spec: ImageSpec, policy: OpenPolicy): OpenedImage {
  try {
    return openDescription(spec, policy);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    const { path } = error.context;
    const [, own] =
      /^Could not open '.*?': (?:Could not open backing file: )+(.*)$/s.exec(error.message) ?? [];
    if (own === undefined || path === undefined) throw error;
    const isLoop = error.errno === ERRNO.ELOOP;
    const message = isLoop
      ? `Backing file '${path}' creates an infinite loop.`
      : `Could not open '${path}': ${own}`;
    throw new ImageError(error.kind, error.code, message, error.context, error);
  }
}

/** The image's name as QEMU shows it: the file's, where that says all; else what is asked for. */
function shownName(spec: ImageSpec, opened: LayerDescription['format']): string {
  const { path, filename, format, window, sizeFrom, encryption } = spec;
  const secret = encryption?.secret;
  const key = secret === undefined ? '' : `"encrypt.key-secret": ${formatJson(secret)}, `;
  const file = `{"driver": "file", "filename": ${formatJson(path)}}`;
  if (sizeFrom !== undefined) {
    return `json:{"force_size_calc": "${sizeFrom}", "driver": "vpc", "file": ${file}}`;
  }
  if (window === undefined) {
    return key === '' ? path : `json:{${key}"driver": "${opened}", "file": ${file}}`;
  }
  // Numbers that were text stay text.
  const number = (value: number): string =>
    filename.startsWith('json:') ? String(value) : `"${value}"`;
  const offset = window.offset === 0 ? '' : `"offset": ${number(window.offset)}, `;
  const size = window.size === undefined ? '' : `, "size": ${number(window.size)}`;
  const raw = `{${offset}"driver": "raw"${size}, "file": ${file}}`;
  return `json:${format === 'qcow2' ? `{${key}"driver": "qcow2", "file": ${raw}}` : raw}`;
}

function humanInfo(info: ImageInfo): string {
  const { backing, snapshots } = info;
  const lines = [
    `image: ${info.filename}`,
    `file format: ${info.format}`,
    `virtual size: ${formatSize(info.virtualSize)} (${info.virtualSize} bytes)`,
    `disk size: ${formatSize(info.actualSize)}`,
  ];
  if (info.encrypted) lines.push('encrypted: yes');
  if (info.clusterSize !== null) lines.push(`cluster_size: ${info.clusterSize}`);
  if (info.dirty === true) lines.push('cleanly shut down: no');
  if (backing !== null) {
    const actual = backing.fullName === backing.name ? '' : ` (actual path: ${backing.fullName})`;
    lines.push(`backing file: ${backing.name}${actual}`);
    if (backing.format !== null) lines.push(`backing file format: ${backing.format}`);
  }
  // There can be more than what a call takes as arguments.
  const listed = snapshots.length > 0 ? ['Snapshot list:', ...snapshotTable(snapshots)] : [];
  return `${[...lines, ...listed, ...formatFacts(info)].join('\n')}\n`;
}

/** The lines of what its format alone has. */
export function formatFacts({ qcow2, specific }: ImageInfo): string[] {
  const facts = qcow2 === null ? specific : qcow2Object(qcow2);
  return facts === null ? [] : ['Format specific information:', ...dumpObject(facts, 1)];
}

/** What of a snapshot is listed. */
export type ListedSnapshot = Pick<
  Snapshot,
  'id' | 'name' | 'vmStateSize' | 'dateSec' | 'vmClock' | 'icount'
>;

/** The table of snapshots, its head included: what `snapshot -l` prints too. */
export function snapshotTable(snapshots: readonly ListedSnapshot[]): string[] {
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
