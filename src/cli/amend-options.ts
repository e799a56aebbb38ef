/** The options of `amend -o`: those of the table of creation that can be changed, and their values. */
import { ImageError, invalid } from '../errors.js';
import {
  formatOptionTable,
  isKnownDriver,
  type OptionSpec,
  type OptionTable,
  type OptionValues,
  optionsHelp,
  parseOptions,
} from '../image/create-options.js';
import type { LayerDescription } from '../image/description.js';
import { CRYPT_METHOD } from '../image/qcow2/layout.js';
import type { AmendRequest, KeySlotRequest } from '../tools/amend.js';
import { iterTimeOf } from '../tools/qcow2-options.js';
import { parseKeyValues } from './key-values.js';

/** Options of creation that can be amended. */
const AMENDABLE = [
  ...['backing_file', 'backing_fmt', 'compat', 'data_file', 'data_file_raw'],
  ...['encrypt.iter-time', 'lazy_refcounts', 'refcount_bits', 'size'],
];

/** Of encrypted images alone. */
const KEY_SLOTS: OptionTable = [
  {
    name: 'encrypt.keyslot',
    type: 'num',
    help: 'Select a single keyslot to modify explicitly',
  },
  {
    name: 'encrypt.new-secret',
    type: 'str',
    help: 'New secret to set in the matching keyslots. Empty string to erase',
  },
  {
    name: 'encrypt.old-secret',
    type: 'str',
    help: 'Select all keyslots that match this password',
  },
  {
    name: 'encrypt.state',
    type: 'str',
    help: 'Select new state of affected keyslots (active/inactive)',
  },
];

const VERSIONS: Readonly<Record<string, 2 | 3>> = { '0.10': 2, v2: 2, '1.1': 3, v3: 3 };

/** Whether a list of options asks for help. */
export function asksForHelp(list: string): boolean {
  const asks = (key: string, value?: string) =>
    value === undefined && (key === 'help' || key === '?');
  return parseKeyValues(list).some(([key, value]) => asks(key, value));
}

/** The options that an image of that format can have amended. Throws where there are none. */
export function amendHelp(format: string): string {
  return `Amend options for '${format}':\n${optionsHelp(amendTable(format))}`;
}

/** What a list of options asks of that image. Throws an ImageError in QEMU's words. */
export function parseAmendOptions(list: string, layer: LayerDescription): AmendRequest {
  const table = amendTable(layer.format);
  const values = valuesOf(list, table);
  const changesSlots = [...values.keys()].some((name) => name.startsWith('encrypt.'));
  if (changesSlots) checkEncryption(layer);
  return {
    version: versionOf(values.get('compat')?.text),
    refcountBits: values.get('refcount_bits')?.number,
    lazyRefcounts: values.get('lazy_refcounts')?.flag,
    size: sizeOf(values.get('size')?.exact),
    dataFile: values.get('data_file')?.text,
    dataFileRaw: values.get('data_file_raw')?.flag,
    backingFile: values.get('backing_file')?.text,
    backingFormat: values.get('backing_fmt')?.text,
    keySlots: changesSlots ? keySlotsOf(values) : undefined,
  };
}

function amendTable(format: string): OptionTable {
  if (format !== 'qcow2') {
    if (!isKnownDriver(format)) throw invalid(`Unknown file format '${format}'`);
    const message = `Format driver '${format}' does not support option amendment`;
    throw new ImageError('unsupported', 'ENOTSUP', message);
  }
  const amendable = formatOptionTable(format).filter(({ name }) => AMENDABLE.includes(name));
  return [...amendable.map(withoutInitial), ...KEY_SLOTS];
}

/** What is not given stays as it is. */
function withoutInitial({ name, type, help }: OptionSpec): OptionSpec {
  return { name, type, help };
}

function valuesOf(list: string, table: OptionTable): OptionValues {
  const pairs = parseKeyValues(list);
  try {
    return parseOptions(pairs, table);
  } catch (error) {
    if (!(error instanceof ImageError) || !isForCreation(pairs, table)) throw error;
    const hint = 'This option is only supported for image creation';
    const context = { ...error.context, hint, limit: 'only supported for image creation' };
    throw new ImageError(error.kind, error.code, error.message, context);
  }
}

/** Whether nothing is wrong with the list but that some of it is decided when an image is made. */
function isForCreation(pairs: ReturnType<typeof parseKeyValues>, table: OptionTable): boolean {
  try {
    parseOptions(pairs, [...table, ...formatOptionTable('qcow2')]);
    return true;
  } catch {
    return false;
  }
}

function checkEncryption(layer: LayerDescription): void {
  const method = layer.format === 'qcow2' ? layer.header.cryptMethod : CRYPT_METHOD.NONE;
  if (method === CRYPT_METHOD.LUKS) return;
  const message =
    method === CRYPT_METHOD.NONE
      ? "Can't amend encryption options - encryption not present"
      : 'Only LUKS encryption options can be amended';
  throw new ImageError('invalid', 'EINVAL', message);
}

function keySlotsOf(values: OptionValues): KeySlotRequest {
  const text = (name: string) => values.get(`encrypt.${name}`)?.text;
  return {
    state: text('state'),
    slot: values.get('encrypt.keyslot')?.number,
    newSecret: text('new-secret'),
    oldSecret: text('old-secret'),
    iterTime: iterTimeOf(values),
  };
}

function versionOf(text: string | undefined): 2 | 3 | undefined {
  if (text === undefined) return undefined;
  if (Object.hasOwn(VERSIONS, text)) return VERSIONS[text];
  throw new ImageError('invalid', 'EINVAL', `Unknown compatibility level ${text}`);
}

/** As QEMU: 0 changes nothing. */
function sizeOf(size: bigint | undefined): bigint | undefined {
  if (size === undefined || size === 0n) return undefined;
  if (size < 2n ** 63n) return size;
  throw new ImageError('invalid', 'EINVAL', 'Image size cannot be negative');
}
