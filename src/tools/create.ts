/** `create`: making images, and targets for what converts. Errors come in QEMU's words. */
import { statSync } from 'node:fs';
import { alignUp } from '../codec/bits.js';
import { ImageError } from '../errors.js';
import {
  createOptionTable,
  isKnownDriver,
  type OptionTable,
  type OptionValues,
  parseOptions,
  withOption,
} from '../image/create-options.js';
import { KeyRing } from '../image/crypto/key-ring.js';
import { makeLuks } from '../image/crypto/luks-write.js';
import { CreateTarget } from '../image/create-target.js';
import { layerSize } from '../image/description.js';
import { SECTOR_SIZE } from '../image/extent.js';
import { fullName, protocolOf } from '../image/file-names.js';
import { closeImage, openImage } from '../image/open.js';
import { formatImage, planImage, type Qcow2Plan } from '../image/qcow2/create.js';
import { fillRawFile } from '../image/raw-create.js';
import type { Preallocation } from '../image/writer.js';
import { type Progress, NO_PROGRESS } from './progress.js';
import { qcow2OptionsOf } from './qcow2-options.js';

/** An image that can be made: it has a format, a place and options. */
export interface Creation {
  /** As the user wrote it. */
  readonly filename: string;
  readonly path: string;
  readonly format: string;
  readonly table: OptionTable;
  /** With the secrets that the options name. */
  readonly keys: KeyRing;
  /** With its `size`, when it comes to making it. */
  readonly values: OptionValues;
}

/** `pairs`: what `-o` says. Throws an ImageError: of the format, of the name, of the options. */
export function planCreation(
  filename: string,
  format: string,
  pairs: readonly (readonly [key: string, value: string | undefined])[],
  keys: KeyRing = new KeyRing(),
): Creation {
  // Formats before names, as QEMU.
  createOptionTable(format);
  const path = pathOf(filename);
  const protocol = isDevice(path) ? 'host_device' : 'file';
  if (format === 'host_device' && protocol === 'file') {
    throw invalid(
      `'host_device' driver requires '${path}' to be either a character or block device`,
    );
  }
  const table = createOptionTable(format, protocol);
  return { filename, path, format, table, keys, values: parseOptions(pairs, table) };
}

function pathOf(filename: string): string {
  const protocol = protocolOf(filename);
  if (protocol === undefined) return filename;
  if (protocol === 'file') return filename.slice('file:'.length);
  throw invalid(`Unknown protocol '${protocol}'`);
}

function isDevice(path: string): boolean {
  const stat = statOf(path);
  return stat !== undefined && (stat.isBlockDevice() || stat.isCharacterDevice());
}

function statOf(path: string) {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    // Of no folder, or not ours to look into: whoever opens it hears of it.
    return undefined;
  }
}

export interface CreateDetails {
  /** Bytes. */
  readonly size?: number | undefined;
  readonly backingFile?: string | undefined;
  readonly backingFormat?: string | undefined;
  /** Do not look at the backing file. */
  readonly unsafe?: boolean | undefined;
}

/**
 * The creation with what else was said, and what follows from it: an overlay is as large as its backing
 * file where no size is given. Throws an ImageError.
 */
export function completeCreation(creation: Creation, details: CreateDetails): Creation {
  const { table, filename, format } = creation;
  let { values } = creation;
  const set = (name: string, text: string) => {
    values = withOption(values, table, name, text);
  };
  const size = values.get('size')?.number;
  if (size !== undefined && details.size !== undefined) {
    throw invalid('The image size must be specified only once');
  }
  if (details.size !== undefined) set('size', String(BigInt(details.size)));
  for (const [name, text, problem] of [
    ['backing_file', details.backingFile, 'Backing file not supported'],
    ['backing_fmt', details.backingFormat, 'Backing file format not supported'],
  ] as const) {
    if (text === undefined) continue;
    if (!table.some((option) => option.name === name)) {
      throw invalid(`${problem} for file format '${format}'`);
    }
    set(name, text);
  }
  const backingFile = values.get('backing_file')?.text;
  if (backingFile === '') throw invalid('Expected backing file name, got empty string');
  if (backingFile !== undefined) {
    if (backingFile === filename) throw sameFile();
    const backingFormat = values.get('backing_fmt')?.text;
    const backing =
      details.unsafe === true ? null : lookAtBacking(creation, backingFile, backingFormat);
    if (backingFormat === undefined) throw withoutFormat(backing?.format);
    if (backing !== null && !values.has('size')) set('size', String(backing.size));
  }
  if (!values.has('size')) throw invalid('Image creation needs a size parameter');
  return { ...creation, values };
}

function sameFile(): ImageError {
  return invalid('Error: Trying to create an image with the same filename as the backing file');
}

function withoutFormat(detected: string | undefined): ImageError {
  const hint = detected === undefined ? undefined : `Detected format of ${detected}.`;
  return invalid('Backing file specified without backing format', hint);
}

/** Opens the backing file and its chain, without locks: nothing but its size counts. */
function lookAtBacking(
  { filename, path }: Creation,
  backingFile: string,
  format: string | undefined,
): { format: string; size: number } {
  const name = fullName(filename, backingFile);
  try {
    const image = pathOf(name);
    if (format !== undefined && !isKnownDriver(format)) throw invalid(`Unknown driver '${format}'`);
    const spec = { path: image, filename: image, format };
    const { description } = openImage(spec, { allowEncrypted: true });
    try {
      const target = statOf(path);
      for (const { file } of description.layers) {
        const stat = statOf(`/proc/self/fd/${file.fd}`);
        if (target !== undefined && stat?.dev === target.dev && stat.ino === target.ino) {
          throw sameFile();
        }
      }
      const [top] = description.layers;
      return { format: top.format, size: layerSize(top) };
    } finally {
      closeImage(description);
    }
  } catch (error) {
    if (!(error instanceof ImageError) || error.message.startsWith('Error: ')) throw error;
    const hint = [error.context.hint, 'Could not open backing image.'].filter(Boolean).join('\n');
    // As QEMU: the file is named where it cannot be opened, not where its content is wrong.
    const { operation, path: failed } = error.context;
    const isOwn = operation === 'open' && failed === pathOf(name);
    const start = isOwn ? '' : `Could not open '${name}': `;
    const message = error.message.startsWith(start)
      ? error.message.slice(start.length)
      : error.message;
    throw new ImageError(error.kind, error.code, message, { ...error.context, hint }, error);
  }
}

/**
 * Makes the image. A file that is there is locked, and keeps what it holds until all is known to be in
 * order; then it is emptied. Where this throws (an ImageError, a system's error, Cancelled), there is no
 * image: a file that it made is gone, another one is empty or as it was.
 *
 * `unfinished`: it is to be filled, and no whole image before that: a qcow2 image has no magic (see
 * `showHeader`), a raw file without its space is empty. It need not be durable.
 */
export async function createImage(
  creation: Creation,
  progress: Progress = NO_PROGRESS,
  { unfinished = false }: { readonly unfinished?: boolean } = {},
): Promise<void> {
  const { format, values } = creation;
  const advance = (fraction: number) => progress.advance(fraction);
  if (format === 'qcow2') await createQcow2(creation, advance, unfinished);
  else {
    const preallocation = filePreallocation(values);
    const size = alignUp(values.get('size')!.number!, SECTOR_SIZE);
    await withTarget(creation.path, (target) =>
      createRaw(target, size, preallocation, values, advance, unfinished),
    );
  }
}

type Advance = Progress['advance'];

async function withTarget(
  path: string,
  body: (target: CreateTarget) => Promise<void>,
  other?: CreateTarget,
): Promise<void> {
  const target = CreateTarget.open(path, other);
  try {
    await body(target);
  } catch (error) {
    target.abandon();
    throw error;
  }
  target.close();
}

const PREALLOCATIONS: readonly Preallocation[] = ['off', 'metadata', 'falloc', 'full'];

function filePreallocation(values: OptionValues): Preallocation {
  const text = values.get('preallocation')?.text ?? 'off';
  const known = PREALLOCATIONS.find((candidate) => candidate === text);
  if (known === undefined) throw invalid(`invalid parameter value: ${text}`);
  return known;
}

/** `values`: for what the file system may be told. */
async function createRaw(
  target: CreateTarget,
  size: number,
  preallocation: Preallocation,
  values: OptionValues,
  advance: Advance,
  unfinished = false,
): Promise<void> {
  const { storage } = target;
  if (target.isDevice) {
    if (preallocation !== 'off') throw invalid(`Unsupported preallocation mode '${preallocation}'`);
    if (size > storage.size()) throw invalid('Cannot grow device files');
    if (size > 0) target.begin();
    return;
  }
  if (preallocation === 'metadata') {
    throw invalid(`Unsupported preallocation mode: ${preallocation}`);
  }
  target.begin(hintsOf(values));
  if (unfinished && preallocation === 'off') return;
  await fillRawFile(storage, size, preallocation, advance);
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

async function createQcow2(
  creation: Creation,
  advance: Advance,
  unfinished: boolean,
): Promise<void> {
  await withTarget(creation.path, async (target) => {
    const dataFile = creation.values.get('data_file')?.text;
    if (dataFile === undefined) {
      await writeQcow2(target, creation, advance, unfinished);
      return;
    }
    const write = (data: CreateTarget) => writeQcow2(target, creation, advance, unfinished, data);
    await withTarget(pathOf(dataFile), write, target);
  });
}

/** The data file is whole before the image that names it is one. */
async function writeQcow2(
  target: CreateTarget,
  { values, keys }: Creation,
  advance: Advance,
  unfinished: boolean,
  data?: CreateTarget,
): Promise<void> {
  // As QEMU: what the image names is the file, without its protocol.
  const plan = planImage({ ...qcow2OptionsOf(values), dataFile: data?.storage.name });
  const { storage, isDevice } = target;
  const { preallocation } = plan.options;
  const hasSpace = preallocation === 'falloc' || preallocation === 'full';
  if (isDevice && hasSpace) {
    const below = `Preallocation mode '${preallocation}' unsupported for this non-regular file`;
    throw invalid(`Could not resize image: Failed to resize underlying file: ${below}`);
  }
  if (isDevice) checkDevice(target, plan.layout.fileSize);
  const luks = luksHeaderFor(plan, keys);
  if (data !== undefined) {
    if (data.isDevice) checkDevice(data, plan.layout.size);
    const space = hasSpace && !data.isDevice ? preallocation : 'off';
    await createRaw(data, plan.layout.size, space, new Map(), advance);
    data.storage.flush();
  }
  target.begin(hintsOf(values));
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

function invalid(message: string, hint?: string): ImageError {
  return new ImageError('invalid', 'EINVAL', message, hint === undefined ? {} : { hint });
}
