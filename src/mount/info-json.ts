/** `info --output=json`: what an image is, in qemu-img's words. */
import type { AttachedImage } from '../image/attach.js';
import type { LayerDescription } from '../image/description.js';
import { collectInfo, type ImageInfo, type Qcow2Facts } from '../image/info.js';
import type { Bitmap } from '../image/qcow2/bitmaps.js';
import type { LuksFacts, LuksKeySlot } from '../image/crypto/luks-header.js';
import type { Snapshot } from '../image/qcow2/snapshots.js';
import { flagNames } from './bitmap-folder.js';
import { formatJson, type JsonObject } from './json.js';

/** What `info --output=json FILENAME` prints of an image that is open already. */
export function infoJson(layer: LayerDescription, filename: string): string {
  return `${formatJson(infoObject(collectInfo(layer, filename)))}\n`;
}

/** The same of an image that is being written to. */
export function liveInfo({ description, disk, snapshots }: LiveImage, filename: string): string {
  const top = description.layers[0];
  if (top.format === 'raw') return infoJson({ ...top, fileSize: disk.size }, filename);
  if (top.format !== 'qcow2') {
    return infoJson({ ...top, facts: { ...top.facts, size: disk.size } }, filename);
  }
  const header = { ...top.header, size: disk.size };
  return infoJson({ ...top, header, snapshots }, filename);
}

/** As much of an image as is needed here. */
export interface LiveImage extends Pick<AttachedImage, 'description' | 'disk'> {
  readonly snapshots: readonly Snapshot[];
}

/** The properties of `info`, as qemu-img names them. */
export function infoObject(info: ImageInfo): JsonObject {
  const { backing, snapshots } = info;
  return {
    filename: info.filename,
    format: info.format,
    'virtual-size': info.virtualSize,
    'actual-size': info.actualSize,
    'dirty-flag': info.dirty ?? undefined,
    'cluster-size': info.clusterSize ?? undefined,
    encrypted: info.encrypted ? true : undefined,
    'backing-filename': backing?.name,
    'full-backing-filename': backing?.fullName,
    'backing-filename-format': backing?.format ?? undefined,
    snapshots: snapshots.length > 0 ? snapshots.map(snapshotObject) : undefined,
    'format-specific': specificObject(info),
  };
}

function specificObject({ format, qcow2, specific }: ImageInfo): JsonObject | undefined {
  if (qcow2 !== null) return { type: 'qcow2', data: qcow2Object(qcow2) };
  return specific === null ? undefined : { type: format, data: specific };
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
export function icountOf({ icount }: Pick<Snapshot, 'icount'>): bigint | null {
  if (icount === null) return null;
  const signed = BigInt.asIntN(64, icount);
  return signed === -1n ? null : signed;
}

export function qcow2Object(facts: Qcow2Facts): JsonObject {
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
    'data-file-raw': facts.dataFileRaw ?? undefined,
    bitmaps: facts.bitmaps.length > 0 ? facts.bitmaps.map(bitmapObject) : undefined,
  };
}

function bitmapObject({ name, granularity, flags }: Bitmap): JsonObject {
  return { name, granularity, flags: flagNames(flags) };
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
