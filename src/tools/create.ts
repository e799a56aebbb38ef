/** `create`: making images, and targets for what converts. Errors come in QEMU's words. */
import { alignUpExact } from '../codec/bits.js';
import { ImageError, invalid } from '../errors.js';
import type { OptionValues } from '../image/create-options.js';
import { type CreateTarget, NewFiles } from '../image/create-target.js';
import type { KeyRing } from '../image/crypto/key-ring.js';
import { makeLuks } from '../image/crypto/luks-write.js';
import { SECTOR_SIZE } from '../image/extent.js';
import { formatHeaderFile, type HeaderPlan } from '../image/header-file.js';
import { planQcow1 } from '../image/qcow1/create.js';
import { formatImage, planImage, type Qcow2Plan } from '../image/qcow2/create.js';
import { planQed } from '../image/qed/create.js';
import { fillRawFile, reserveRawFile } from '../image/raw-create.js';
import { type Preallocation, preallocationNamed } from '../image/writer.js';
import { type Creation, pathOf } from './creation.js';
import { NO_PROGRESS, type Progress } from './progress.js';
import { encryptionOf, qcow2OptionsOf } from './qcow2-options.js';

/**
 * Makes the image. A file that is there is locked, and keeps what it holds until all is known to be in
 * order; then it is emptied. Where this throws (an ImageError, a system's error, Cancelled), there is no
 * image: a file that it made is gone, another one is empty or as it was.
 */
export async function createImage(
  creation: Creation,
  progress: Progress = NO_PROGRESS,
): Promise<void> {
  const { files } = await make(creation, progress, false, []);
  files.close();
}

/** An image that is to be filled, and is no whole one before that. */
export interface UnfinishedImage {
  readonly creation: Creation;
  /** Open and locked: to be closed when it is whole, or to be abandoned. */
  readonly files: NewFiles;
  /** Zeroes must be written like all else: it is to have all of its space. */
  readonly needsAll: boolean;
}

/**
 * The same, but what is made is no image: a qcow2 image has no magic (see `showHeader`), a raw file is
 * empty, though space may be set aside for it. It need not be durable. `others`: files that are read
 * meanwhile, locked or not (`fileIdentity`).
 */
export function createUnfinished(
  creation: Creation,
  progress: Progress,
  others: readonly string[],
): Promise<UnfinishedImage> {
  return make(creation, progress, true, others);
}

type Advance = Progress['advance'];

async function make(
  creation: Creation,
  progress: Progress,
  unfinished: boolean,
  others: readonly string[],
): Promise<UnfinishedImage> {
  const { format, path, values } = creation;
  const preallocation = format === 'qcow2' ? 'off' : filePreallocation(values);
  const dataFile = format === 'qcow2' ? values.get('data_file')?.text : undefined;
  const dataPath = dataFile === undefined ? undefined : pathOf(dataFile);
  const files = NewFiles.open(path, dataPath, others);
  const advance = (fraction: number) => progress.advance(fraction);
  try {
    if (format === 'qcow2') {
      await writeQcow2(files, creation, advance, unfinished);
      return { creation, files, needsAll: false };
    }
    if (format === 'qed' || format === 'qcow') {
      const plan = format === 'qed' ? planQedOf(values) : planQcow1Of(creation);
      writeHeaderFile(files.image, plan, creation, preallocation, unfinished);
      return { creation, files, needsAll: false };
    }
    const size = alignUpExact(values.get('size')!.exact!, SECTOR_SIZE);
    const needsAll = await createRaw(files.image, size, preallocation, values, advance, unfinished);
    return { creation, files, needsAll };
  } catch (error) {
    files.abandon();
    throw error;
  }
}

/** Throws where no file can become that large. */
function fileSize(size: bigint): number {
  if (size >= 2n ** 63n) throw invalid('Could not resize file: Invalid argument');
  if (size <= Number.MAX_SAFE_INTEGER) return Number(size);
  const message = "The image size is too large for file format 'raw'";
  throw new ImageError('invalid', 'EFBIG', message, {
    limit: `${size} bytes, at most ${Number.MAX_SAFE_INTEGER}`,
  });
}

function filePreallocation(values: OptionValues): Preallocation {
  const text = values.get('preallocation')?.text ?? 'off';
  const known = preallocationNamed(text);
  if (known === undefined) throw invalid(`invalid parameter value: ${text}`);
  return known;
}

/** `values`: for what the file system may be told. True where all must be written for it to have its space. */
async function createRaw(
  target: CreateTarget,
  size: bigint,
  preallocation: Preallocation,
  values: OptionValues,
  advance: Advance,
  unfinished = false,
): Promise<boolean> {
  const { storage } = target;
  if (target.isDevice) {
    if (preallocation !== 'off') throw invalid(`Unsupported preallocation mode '${preallocation}'`);
    if (size > storage.size()) throw invalid('Cannot grow device files');
    if (size > 0n) target.begin();
    return false;
  }
  if (preallocation === 'metadata') {
    throw invalid(`Unsupported preallocation mode: ${preallocation}`);
  }
  target.begin(hintsOf(values));
  const bytes = fileSize(size);
  if (unfinished) return !reserveRawFile(storage, bytes, preallocation);
  await fillRawFile(storage, bytes, preallocation, advance);
  return false;
}

/** A device stays as large as it is. */
function checkDevice({ storage }: CreateTarget, size: number): void {
  if (size <= storage.size()) return;
  throw new ImageError('invalid', 'ENOSPC', 'Could not resize image: Cannot grow device files', {
    limit: `${size} bytes are needed`,
  });
}

function hintsOf(values: OptionValues) {
  return {
    noCow: values.get('nocow')?.flag,
    extentSizeHint: values.get('extent_size_hint')?.number,
  };
}

function planQedOf(values: OptionValues): HeaderPlan {
  return planQed({
    size: values.get('size')!.number!,
    clusterSize: values.get('cluster_size')!.number!,
    tableSize: values.get('table_size')?.number,
    backingFile: values.get('backing_file')?.text,
    backingFormat: values.get('backing_fmt')?.text,
  });
}

function planQcow1Of({ values, keys }: Creation): HeaderPlan {
  const encryption = encryptionOf(values);
  if (encryption !== undefined) {
    if (encryption.luks !== null) throw invalid('Unsupported encryption format');
    const { secret } = encryption;
    if (secret === undefined)
      throw invalid("Parameter 'encrypt.key-secret' is required for cipher");
    // It is the key: nothing of it is in the file, but it must be there.
    keys.secret(secret);
  }
  return planQcow1({
    size: values.get('size')!.number!,
    backingFile: values.get('backing_file')?.text,
    encrypted: encryption !== undefined,
  });
}

/** As QEMU: space is set aside for what the file is at first, and it is hardly anything. */
function writeHeaderFile(
  image: CreateTarget,
  plan: HeaderPlan,
  { format, values }: Creation,
  preallocation: Preallocation,
  unfinished: boolean,
): void {
  if (image.isDevice) {
    const message = `Images of format '${format}' are not made on devices`;
    throw new ImageError('unsupported', 'ENOTSUP', message);
  }
  if (preallocation === 'metadata') {
    throw invalid(`Unsupported preallocation mode: ${preallocation}`);
  }
  image.begin(hintsOf(values));
  formatHeaderFile(image.storage, plan, unfinished);
}

/** The data file is whole before the image that names it is one. */
async function writeQcow2(
  { image, data }: NewFiles,
  { values, keys }: Creation,
  advance: Advance,
  unfinished: boolean,
): Promise<void> {
  // As QEMU: what the image names is the file, without its protocol.
  const plan = planImage({ ...qcow2OptionsOf(values), dataFile: data?.storage.name });
  const { storage, isDevice } = image;
  const { preallocation } = plan.options;
  const hasSpace = preallocation === 'falloc' || preallocation === 'full';
  if (isDevice && hasSpace) {
    const below = `Preallocation mode '${preallocation}' unsupported for this non-regular file`;
    throw invalid(`Could not resize image: Failed to resize underlying file: ${below}`);
  }
  if (isDevice) checkDevice(image, plan.layout.fileSize);
  const luks = luksHeaderFor(plan, keys);
  if (data !== null) {
    if (data.isDevice) checkDevice(data, plan.layout.size);
    const space = hasSpace && !data.isDevice ? preallocation : 'off';
    await createRaw(data, BigInt(plan.layout.size), space, new Map(), advance);
    data.storage.flush();
  }
  image.begin(hintsOf(values));
  await formatImage(storage, plan, { blank: !isDevice, advance, unfinished, luks });
}

/** The bytes of the image's LUKS header, where it is to have one. The keys know it then. */
function luksHeaderFor({ options: { encryption } }: Qcow2Plan, keys: KeyRing): Buffer | undefined {
  if (encryption === undefined) return undefined;
  const passphrase = keys.secret(encryption.secret!);
  if (encryption.luks === null) return undefined;
  const { bytes, header, key } = makeLuks(encryption.luks, passphrase);
  keys.learn(header, passphrase, key);
  return bytes;
}
