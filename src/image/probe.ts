/** Which format a file is in, by its first bytes. */
import type { Storage } from '../storage/storage.js';
import { isBochs } from './bochs.js';
import { CLOOP_START } from './cloop.js';
import { PARALLELS_MAGIC } from './parallels.js';
import { QCOW2_MAGIC } from './qcow2/layout.js';
import { readUpTo } from './read-bytes.js';

/** QEMU's size of a qcow2 header: a shorter file is not taken for one. */
const PROBED_HEADER_SIZE = 112;

/** Bytes of a file's start that tell its format. */
export const PROBED_SIZE = 512;

const DMG_MAGIC = 'koly';

/** Formats that are known by their magic: `supported` ones open, the others are refused by name. */
const MAGICS: readonly { format: string; magic: string; at: number }[] = [
  { format: 'qcow', magic: 'QFI\xfb\0\0\0\x01', at: 0 },
  { format: 'qed', magic: 'QED\0', at: 0 },
  { format: 'vmdk', magic: 'KDMV', at: 0 },
  { format: 'vmdk', magic: 'COWD', at: 0 },
  { format: 'vhdx', magic: 'vhdxfile', at: 0 },
  { format: 'vpc', magic: 'conectix', at: 0 },
  { format: 'vdi', magic: '\x7f\x10\xda\xbe', at: 64 },
  { format: 'parallels', magic: `${PARALLELS_MAGIC.SECTORS}\x02\0\0\0`, at: 0 },
  { format: 'parallels', magic: `${PARALLELS_MAGIC.BLOCKS}\x02\0\0\0`, at: 0 },
  { format: 'cloop', magic: CLOOP_START, at: 0 },
  { format: 'luks', magic: 'LUKS\xba\xbe', at: 0 },
];

/** The format's name as QEMU calls it; `raw` where no magic fits. */
export function probeFormat(storage: Storage): string {
  const format = formatOf(readUpTo(storage, 0, PROBED_SIZE).bytes);
  return format === 'raw' && isDmg(storage) ? 'dmg' : format;
}

/** Apple's has its mark at its end, where a guest may write, too: its name must tell the same. */
function isDmg(storage: Storage): boolean {
  if (!storage.name.endsWith('.dmg') || storage.size() < PROBED_SIZE) return false;
  const end = readUpTo(storage, storage.size() - PROBED_SIZE, DMG_MAGIC.length);
  return end.bytes.toString('latin1') === DMG_MAGIC;
}

/** The same of a file's first bytes. */
export function formatOf(bytes: Buffer): string {
  if (isQcow2(bytes)) return 'qcow2';
  const text = bytes.toString('latin1');
  const found = MAGICS.find(({ magic, at }) => text.startsWith(magic, at));
  if (found === undefined && isBochs(bytes)) return 'bochs';
  return found?.format ?? (isDescriptor(text) ? 'vmdk' : 'raw');
}

/** VMDK's: comments and lines of spaces, and then its version. */
function isDescriptor(text: string): boolean {
  return /^(?:#[^\n]*\n| +\r?\n)*version=[123]\r?\n/.test(text);
}

/** Any version from 2 on, behind the magic, and room for a header: QEMU asks for as much. */
function isQcow2(bytes: Buffer): boolean {
  if (bytes.length < PROBED_HEADER_SIZE || bytes.readUInt32BE(0) !== QCOW2_MAGIC) return false;
  return bytes.readUInt32BE(4) >= 2;
}
