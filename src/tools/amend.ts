/**
 * Amending a qcow2 image: its version, features, refcounts, size and the name of its data file, in the
 * image itself. Whatever can be refused is, before anything changes. Then come steps, each of them
 * durable and the image consistent behind it; every one keeps what the disk and its snapshots read.
 */
import { ImageError, isExpected } from '../errors.js';
import type { AttachedImage } from '../image/attach.js';
import { KeyRing } from '../image/crypto/key-ring.js';
import { changeSlots, type SlotChange, slotsToChange } from '../image/crypto/key-slots.js';
import type { ImageDescription, Qcow2Description } from '../image/description.js';
import { storageOf } from '../image/file-storage.js';
import { refuseUnusable } from '../image/qcow2/bitmap-editor.js';
import { readBitmaps } from '../image/qcow2/bitmaps.js';
import { luksPlace } from '../image/qcow2/encryption.js';
import { hasBit } from '../image/qcow2/features.js';
import { setFeatures } from '../image/qcow2/header-edit.js';
import { readHeader, type Qcow2Header } from '../image/qcow2/header.js';
import { downgradeHeader, setDataFileName, upgradeHeader } from '../image/qcow2/header-version.js';
import { AUTOCLEAR, COMPATIBLE, COMPRESSION_TYPE, INCOMPATIBLE } from '../image/qcow2/layout.js';
import { readSnapshots, type Snapshot } from '../image/qcow2/snapshots.js';
import { Qcow2Writer } from '../image/qcow2/writer.js';
import type { MutableStorage } from '../storage/storage.js';
import type { OpenDisk } from './open-disk.js';
import type { Progress } from './progress.js';
import { checkQcow2Size } from './resize.js';

const VERSION_2_REFCOUNT_BITS = 16;
const MAX_VERSION_2_VM_STATE = 2 ** 32 - 1;

/** What is to be changed; what is not given stays. */
export interface AmendRequest {
  readonly version?: 2 | 3 | undefined;
  /** Any number: others than powers of two up to 64 are refused. */
  readonly refcountBits?: number | undefined;
  readonly lazyRefcounts?: boolean | undefined;
  /** Bytes. */
  readonly size?: number | bigint | undefined;
  /** The name of the external data file; the image must have one. Empty: it is not named. */
  readonly dataFile?: string | undefined;
  readonly dataFileRaw?: boolean | undefined;
  /** Only what the image has already. */
  readonly backingFile?: string | undefined;
  readonly backingFormat?: string | undefined;
  /** What is to become of the key slots of a LUKS image. */
  readonly keySlots?: KeySlotRequest | undefined;
}

export interface KeySlotRequest {
  /** `active` or `inactive`; others are refused. */
  readonly state: string | undefined;
  readonly slot: number | undefined;
  /** Ids of secrets. */
  readonly newSecret: string | undefined;
  readonly oldSecret: string | undefined;
  /** Milliseconds. */
  readonly iterTime: number | undefined;
}

export interface AmendOptions {
  /** With the secrets that the request names. */
  readonly keys?: KeyRing;
  /** Erase key slots that nothing else opens. */
  readonly force?: boolean;
}

/** The image to be amended: open for writing, by this thread alone. */
export interface AmendTarget {
  /** Its file. */
  readonly storage: MutableStorage;
  /** As it was opened. */
  readonly description: ImageDescription;
  readonly options?: AmendOptions | undefined;
  /** Attaches to the image by a description that is true now. */
  attach(description: ImageDescription): AttachedImage;
}

/** An image as it is now, after its header has changed. */
export function describeAnew({
  description,
  storage,
}: Pick<AmendTarget, 'description' | 'storage'>): ImageDescription {
  const [top, ...below] = description.layers;
  const header = readHeader(storage);
  const snapshots = readSnapshots(storage, header);
  const bitmaps = readBitmaps(storage, header);
  return {
    ...description,
    layers: [{ ...(top as Qcow2Description), header, snapshots, bitmaps }, ...below],
  };
}

/**
 * Amends the image step by step; answers how far it is, from 0 to 1. Throws an ImageError where the
 * request is refused, and the errors of the writer. Left early, the image is consistent.
 */
export function* amendSteps(target: AmendTarget, request: AmendRequest): Generator<number> {
  const amendment = new Amendment(target);
  amendment.check(request);
  const steps = [...amendment.steps(request)];
  const long = steps.filter((step) => step.long === true).length;
  let done = 0;
  let ended = false;
  try {
    for (const step of steps) {
      for (const fraction of step.run()) {
        if (step.long === true) yield (done + fraction) / long;
      }
      if (step.long === true) done++;
    }
    ended = true;
  } finally {
    if (!ended) amendment.leave();
  }
}

interface Step {
  readonly run: () => Generator<number>;
  /** It counts in how far all is, as QEMU counts. */
  readonly long?: true;
}

class Amendment {
  readonly #target: AmendTarget;
  /** Null: the header has changed since. */
  #known: ImageDescription | null;
  #image: AttachedImage | null = null;
  /** What is done with key slots, once it is checked. */
  #slots: { readonly change: SlotChange; readonly slots: readonly number[] } | null = null;

  constructor(target: AmendTarget) {
    this.#target = target;
    this.#known = target.description;
  }

  get #description(): ImageDescription {
    this.#known ??= describeAnew(this.#target);
    return this.#known;
  }

  get #top(): Qcow2Description {
    return this.#description.layers[0] as Qcow2Description;
  }

  get #header(): Qcow2Header {
    return this.#top.header;
  }

  /** Throws where any of it cannot be done, in the order and the words of QEMU. */
  check(request: AmendRequest): void {
    const header = this.#header;
    const { lazyRefcounts, refcountBits, size } = request;
    checkValues(header, request);
    if (request.keySlots !== undefined) this.#checkKeySlots(request.keySlots);
    const version = request.version ?? header.version;
    if (version < 3 && this.#asksForWidth(request)) {
      throw refusal(
        'Refcount widths other than 16 bits require compatibility level 1.1 or above ' +
          '(use compat=1.1 or greater)',
      );
    }
    checkBacking(header, request);
    if (lazyRefcounts === true && !isLazy(header) && version < 3) {
      throw refusal(
        'Lazy refcounts only supported with compatibility level 1.1 and above ' +
          '(use compat=1.1 or greater)',
      );
    }
    if (size !== undefined && Number(size) !== header.size)
      this.#top.bitmaps.forEach(refuseUnusable);
    if (size !== undefined)
      checkQcow2Size(this.#top, BigInt(size), Math.max(version, header.version));
    if (version < header.version) this.#checkDowngrade(request);
    // Else the change of the width, the first step, refuses.
    if (version > header.version && refcountBits !== undefined) {
      this.#writer.amender().checkRefcountWidth(refcountBits);
    }
  }

  /** Whether another width is wanted, and one that version 2 has not. */
  #asksForWidth({ refcountBits = VERSION_2_REFCOUNT_BITS }: AmendRequest): boolean {
    const now = this.#header.geometry.refcountBits;
    return refcountBits !== VERSION_2_REFCOUNT_BITS && refcountBits !== now;
  }

  #checkKeySlots(request: KeySlotRequest): void {
    const { keys = new KeyRing(), force = false } = this.#target.options ?? {};
    const { state, slot, newSecret, oldSecret, iterTime } = request;
    if (state === undefined) throw refusal("Parameter 'state' is missing", 'EINVAL');
    if (state !== 'active' && state !== 'inactive') {
      throw refusal(`Parameter 'state' does not accept value '${state}'`, 'EINVAL');
    }
    const secret = (id: string | undefined) => (id === undefined ? undefined : keys.secret(id));
    const change: SlotChange = {
      ...{ state, slot, iterTime, force },
      newPassphrase: secret(newSecret),
      oldPassphrase: secret(oldSecret),
    };
    const slots = slotsToChange(this.#target.storage, luksPlace(this.#header)!, change);
    this.#slots = { change, slots };
  }

  #checkDowngrade({ refcountBits, size }: AmendRequest): void {
    const header = this.#header;
    if ((refcountBits ?? header.geometry.refcountBits) !== VERSION_2_REFCOUNT_BITS) {
      throw refusal(`compat=0.10 requires refcount_bits=${VERSION_2_REFCOUNT_BITS}`);
    }
    const { incompatibleFeatures: features } = header;
    if (hasBit(features, INCOMPATIBLE.DATA_FILE)) {
      throw refusal('Cannot downgrade an image with a data file');
    }
    const fits = ({ vmStateSize, diskSize }: Snapshot) =>
      vmStateSize <= MAX_VERSION_2_VM_STATE && diskSize === Number(size ?? header.size);
    if (!this.#top.snapshots.every(fits)) {
      throw refusal('Internal snapshots prevent downgrade of image');
    }
    const compression = 1n << BigInt(INCOMPATIBLE.COMPRESSION);
    const lost = features & ~compression;
    if (lost !== 0n) {
      const mask = `0x${lost.toString(16)}`;
      throw refusal(`Cannot downgrade an image with incompatible features ${mask} set`);
    }
    const zstd = header.compressionType === COMPRESSION_TYPE.ZSTD;
    if (zstd && this.#writer.amender().hasCompressed()) {
      throw refusal(
        'Cannot downgrade an image with zstd compression type and existing compressed clusters',
      );
    }
  }

  /** What there is to do, in QEMU's order. */
  *steps(request: AmendRequest): Generator<Step> {
    const header = this.#header;
    const { version = header.version, refcountBits, lazyRefcounts, size, dataFile } = request;
    if (version > header.version) yield { run: () => this.#upgrade(), long: true };
    if (this.#slots !== null) yield { run: () => this.#changeKeySlots() };
    if (refcountBits !== undefined && refcountBits !== header.geometry.refcountBits) {
      yield { run: () => this.#changeRefcountWidth(refcountBits), long: true };
    }
    if (
      request.dataFileRaw === false &&
      hasBit(header.autoclearFeatures, AUTOCLEAR.DATA_FILE_RAW)
    ) {
      yield { run: () => this.#edit(clearAutoclear(AUTOCLEAR.DATA_FILE_RAW)) };
    }
    if (lazyRefcounts !== undefined && lazyRefcounts !== isLazy(header)) {
      yield { run: () => this.#edit((storage, now) => setLazy(storage, now, lazyRefcounts)) };
    }
    if (size !== undefined && Number(size) !== header.size) {
      yield { run: () => this.#resize(Number(size)) };
    }
    if (version < header.version) yield { run: () => this.#downgrade(), long: true };
    // Last: under its new name the file may be anywhere.
    if (dataFile !== undefined && dataFile !== header.extensions.dataFile) {
      yield { run: () => this.#edit((storage) => setDataFileName(storage, dataFile)) };
    }
  }

  *#upgrade(): Generator<number> {
    for (const _ of this.#writer.amender().completeSnapshots()) yield 0.5;
    yield* this.#edit(upgradeHeader);
  }

  *#downgrade(): Generator<number> {
    // Also where the image was opened without what it names.
    const backed = this.#header.backingFile !== null || this.#description.layers.length > 1;
    yield* this.#writer.amender().expandZeroes(backed);
    if (this.#header.extensions.bitmaps !== null) this.#dropBitmaps();
    yield* this.#edit(downgradeHeader);
  }

  /** Version 2 has none: whoever found them there would take them for out of date, and their space is lost. */
  #dropBitmaps(): void {
    const editor = this.#writer.bitmaps();
    for (const draft of [...editor.drafts]) editor.remove(draft);
    editor.store();
  }

  /** The header of LUKS lies in clusters of its own, which nothing else writes to. */
  *#changeKeySlots(): Generator<number> {
    const { change, slots } = this.#slots!;
    const place = luksPlace(this.#header)!;
    changeSlots(this.#target.storage, place, slots, change, this.#top.key!.key);
    yield 1;
  }

  *#changeRefcountWidth(bits: number): Generator<number> {
    yield* this.#writer.amender().changeRefcountWidth(bits);
    yield* this.#edit(() => {});
  }

  *#resize(size: number): Generator<number> {
    this.#writer.resize(size);
    yield 1;
    this.#settle();
  }

  /** Changes the header in the file, of which nothing is held back anywhere. */
  *#edit(change: (storage: MutableStorage, header: Qcow2Header) => void): Generator<number> {
    this.#settle();
    change(this.#target.storage, this.#header);
    this.#target.storage.flush();
    this.#known = null;
    yield 1;
  }

  /** Attached on first use after each change of the header. */
  get #writer(): Qcow2Writer {
    this.#image ??= this.#target.attach(this.#description);
    if (this.#image.writer instanceof Qcow2Writer) return this.#image.writer;
    throw new Error('amending asks for a qcow2 image that is open for writing');
  }

  /** Leaves the image clean, and lets go of it. */
  #settle(): void {
    this.#image?.writer?.close();
    this.#image = null;
    this.#known = null;
  }

  /** The same in the middle of a step, as far as that can be. */
  leave(): void {
    try {
      this.#settle();
    } catch (error) {
      if (!isExpected(error)) throw error;
    }
  }
}

function checkValues(header: Qcow2Header, { refcountBits, dataFile, dataFileRaw }: AmendRequest) {
  if (dataFile !== undefined && !hasBit(header.incompatibleFeatures, INCOMPATIBLE.DATA_FILE)) {
    throw refusal('data-file can only be set for images that use an external data file', 'EINVAL');
  }
  if (dataFileRaw === true && !hasBit(header.autoclearFeatures, AUTOCLEAR.DATA_FILE_RAW)) {
    throw refusal('data-file-raw cannot be set on existing images', 'EINVAL');
  }
  if (refcountBits === undefined) return;
  const order = Math.log2(refcountBits);
  if (Number.isInteger(order) && order >= 0 && order <= 6) return;
  throw refusal('Refcount width must be a power of two and may not exceed 64 bits', 'EINVAL');
}

/** As QEMU: a backing file is only ever named as it is, and its format with it. */
function checkBacking(header: Qcow2Header, { backingFile, backingFormat }: AmendRequest): void {
  if (backingFile === undefined && backingFormat === undefined) return;
  const file = header.backingFile ?? undefined;
  const format = header.extensions.backingFormat ?? undefined;
  if (backingFile === file && backingFormat === format) return;
  throw new ImageError('invalid', 'EINVAL', 'Cannot amend the backing file', {
    hint: "You can use 'qemu-img rebase' instead.",
  });
}

function isLazy({ compatibleFeatures }: Qcow2Header): boolean {
  return hasBit(compatibleFeatures, COMPATIBLE.LAZY_REFCOUNTS);
}

function setLazy(storage: MutableStorage, { compatibleFeatures }: Qcow2Header, on: boolean): void {
  const bit = 1n << BigInt(COMPATIBLE.LAZY_REFCOUNTS);
  setFeatures(storage, { compatible: on ? compatibleFeatures | bit : compatibleFeatures & ~bit });
}

/** Clears an autoclear bit where it is set. */
function clearAutoclear(which: number) {
  return (storage: MutableStorage, { autoclearFeatures }: Qcow2Header): void => {
    if (!hasBit(autoclearFeatures, which)) return;
    setFeatures(storage, { autoclear: autoclearFeatures & ~(1n << BigInt(which)) });
  };
}

function refusal(message: string, code: 'EINVAL' | 'ENOTSUP' = 'ENOTSUP'): ImageError {
  return new ImageError('unsupported', code, message);
}

/**
 * Amends the image of a disk that is open for writing, and that nobody has written to: it is of no use
 * afterwards, but to be abandoned. What throws leaves the image consistent.
 */
export async function amendImage(
  { description, attach }: OpenDisk,
  request: AmendRequest,
  progress: Progress,
  options?: AmendOptions,
): Promise<void> {
  const storage = storageOf(description.layers[0].file);
  const target = { storage, description, attach, options };
  for (const fraction of amendSteps(target, request)) await progress.advance(fraction);
}
