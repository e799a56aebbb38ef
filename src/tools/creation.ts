/** What images are to be made, and what must be true before. Errors come in QEMU's words. */
import { statSync } from 'node:fs';
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
import { type ImageDescription, layerSize } from '../image/description.js';
import { fileIdentity, identityOf } from '../image/file-identity.js';
import { fullName, protocolOf, resolveName } from '../image/file-names.js';
import { closeImage, openImage } from '../image/open.js';
import { within } from '../image/open-errors.js';

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

/** Throws where it is no file of the host's. */
export function pathOf(filename: string): string {
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
  readonly size?: number | bigint | undefined;
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
  { filename, path, values }: Creation,
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
      const below = description.layers.map(({ file }) => fileIdentity(file.fd));
      const isBelow = (name: string) => {
        const stat = statOf(name);
        return stat !== undefined && below.includes(identityOf(stat));
      };
      if (isBelow(path)) throw sameFile();
      const dataFile = values.get('data_file')?.text;
      if (dataFile !== undefined && isBelow(pathOf(dataFile))) {
        throw invalid('Error: Trying to create an image whose data file is its backing file');
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
 * Opens the backing file of an image that is to be made and then opened, and its chain, with the locks of
 * who reads them: nothing of them can become the image. Null where it has none. To be closed by
 * `closeImage`. Throws as opening the image would.
 */
export function openBacking({ filename, path, keys, values }: Creation): ImageDescription | null {
  const name = values.get('backing_file')?.text;
  if (name === undefined) return null;
  const place = { name, depth: 1, image: filename };
  const backing = within(place, () => resolveName(path, name));
  // As QEMU: an empty name states no format.
  const format = values.get('backing_fmt')?.text || undefined;
  // What no image can name is the image's own error, before anything is lost.
  if (format !== undefined && !isKnownDriver(format)) return null;
  const spec = { path: backing, filename: backing, format, keys };
  return openImage(spec, { lock: 'read', overlay: filename }).description;
}

function invalid(message: string, hint?: string): ImageError {
  return new ImageError('invalid', 'EINVAL', message, hint === undefined ? {} : { hint });
}
