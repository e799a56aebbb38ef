/**
 * Changing the key slots of a LUKS header: which ones, by QEMU's rules and in its words, and how.
 *
 * A slot's key material is durable before its entry says that it is in use, by four bytes of one sector; and
 * the entry of one that is erased has lost its salt before the material goes. Whenever that ends, every other
 * slot opens as before. Where the only one is written over, another one opens meanwhile.
 */
import { randomFillSync } from 'node:crypto';
import { alignUp } from '../../codec/bits.js';
import { ImageError, invalid } from '../../errors.js';
import type { MutableStorage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import {
  KEY_MATERIAL_UNIT,
  LUKS_KEY_SLOT,
  LUKS_KEY_SLOTS,
  type LuksHeader,
  readLuksHeader,
  STRIPES,
} from './luks-header.js';
import { openKeySlot } from './luks-key.js';
import { encodeSlot, makeKeySlot, slotOffset } from './luks-write.js';

/** Where a LUKS header lies in a file, with all its key slots. Bytes. */
export interface HeaderPlace {
  readonly offset: number;
  readonly length: number;
}

/** What is to become of key slots. */
export interface SlotChange {
  readonly state: 'active' | 'inactive';
  /** Which one; to be found where it is not given. */
  readonly slot: number | undefined;
  readonly newPassphrase: Uint8Array | undefined;
  readonly oldPassphrase: Uint8Array | undefined;
  /** Milliseconds. */
  readonly iterTime: number | undefined;
  /** Whatever is lost by it. */
  readonly force: boolean;
}

/** QEMU's. Milliseconds. */
const ITER_TIME = 2000;
const DATA_LOSS = 'which will erase all the data in the image irreversibly - refusing operation';

/** The slots that the change is of. Throws an ImageError where it is refused; nothing is changed. */
export function slotsToChange(
  storage: MutableStorage,
  place: HeaderPlace,
  change: SlotChange,
): readonly number[] {
  const header = readLuksHeader(storage, place);
  const chosen =
    change.state === 'active'
      ? [slotToFill(header, change)]
      : erased(storage, place, header, change);
  for (const index of chosen) checkPlace(header, index, place);
  const standIn = change.state === 'active' ? standInFor(header, chosen[0]!) : null;
  if (standIn !== null) checkPlace(header, standIn, place);
  return chosen;
}

/** `said`: as QEMU says it. */
function checkSlot(slot: number, said = BigInt(slot)): void {
  if (slot >= 0 && slot < LUKS_KEY_SLOTS) return;
  throw invalid(`Invalid keyslot ${said} specified, must be between 0 and ${LUKS_KEY_SLOTS - 1}`);
}

function slotToFill({ slots }: LuksHeader, { slot, force, ...change }: SlotChange): number {
  if (change.newPassphrase === undefined) {
    throw invalid("'new-secret' is required to activate a keyslot");
  }
  if (change.oldPassphrase !== undefined) {
    throw invalid("'old-secret' must not be given when activating keyslots");
  }
  if (slot === undefined) {
    const free = slots.findIndex(({ active }) => !active);
    if (free < 0) throw invalid("Can't add a keyslot - all keyslots are in use");
    return free;
  }
  checkSlot(slot, BigInt.asUintN(32, BigInt(slot)));
  if (!slots[slot]!.active || force) return slot;
  throw invalid(`Refusing to overwrite active keyslot ${slot} - please erase it first`);
}

function erased(
  storage: MutableStorage,
  { offset }: HeaderPlace,
  header: LuksHeader,
  { slot, oldPassphrase, newPassphrase, iterTime, force }: SlotChange,
): number[] {
  if (newPassphrase !== undefined) {
    throw invalid("'new-secret' must not be given when erasing keyslots");
  }
  if (iterTime !== undefined) throw invalid("'iter-time' must not be given when erasing keyslots");
  const active = header.slots.flatMap((one, index) => (one.active ? [index] : []));
  const opens = (index: number) =>
    openKeySlot(storage, offset, header, oldPassphrase!, index) !== null;
  if (slot !== undefined) {
    checkSlot(slot);
    if (oldPassphrase !== undefined && !opens(slot)) {
      const what = "doesn't contain the given old password for erase operation";
      throw invalid(`Given keyslot ${slot} ${what}`);
    }
    if (force) return [slot];
    if (!active.includes(slot))
      throw invalid(`Given keyslot ${slot} is already erased (inactive) `);
    if (active.length > 1) return [slot];
    throw invalid(`Attempt to erase the only active keyslot ${slot} ${DATA_LOSS}`);
  }
  if (oldPassphrase === undefined) {
    throw invalid(
      'To erase keyslot(s), either explicit keyslot index or the password currently contained in them must be given',
    );
  }
  const matching = active.filter(opens);
  if (matching.length === 0) {
    throw invalid('No keyslots match given (old) password for erase operation');
  }
  if (matching.length < active.length || force) return matching;
  const all = 'All the active keyslots match the (old) password that was given';
  throw invalid(
    `${all} and erasing them will erase all the data in the image irreversibly - refusing operation`,
  );
}

/** The slot that opens the image while the only one is written over; null where another one is active. */
function standInFor({ slots }: LuksHeader, index: number): number | null {
  const isOnly = slots[index]!.active && slots.filter(({ active }) => active).length === 1;
  return isOnly ? (index + 1) % LUKS_KEY_SLOTS : null;
}

/** Else something of the image lies there. */
function checkPlace(header: LuksHeader, index: number, { length }: HeaderPlace): void {
  const end = header.slots[index]!.keyOffset + materialBytes(header);
  if (end <= length) return;
  throw new ImageError('corrupt', 'EIO', `key slot ${index} ends behind its LUKS header`, {
    limit: `${end} of ${length} bytes`,
  });
}

function materialBytes({ keyBytes }: LuksHeader): number {
  return alignUp(keyBytes * STRIPES, KEY_MATERIAL_UNIT);
}

/** Makes the change in the slots that `slotsToChange` answered; `key`: the master key. Durable. */
export function changeSlots(
  storage: MutableStorage,
  place: HeaderPlace,
  slots: readonly number[],
  { state, newPassphrase, iterTime = ITER_TIME }: SlotChange,
  key: Uint8Array,
): void {
  const { offset } = place;
  if (state === 'inactive') {
    for (const index of slots) erase(storage, offset, readLuksHeader(storage, place), index);
    return;
  }
  const [index] = slots as [number];
  const fill = (which: number): void => {
    const header = readLuksHeader(storage, place);
    const slot = makeKeySlot(header, which, key, newPassphrase!, iterTime);
    if (header.slots[which]!.active) erase(storage, offset, header, which);
    put(storage, slot.material, offset + header.slots[which]!.keyOffset);
    // All of the entry but what says that it is in use.
    const from = LUKS_KEY_SLOT.offsets.iterations;
    const at = offset + slotOffset(which);
    put(storage, slot.entry.subarray(from), at + from);
    storage.flush();
    put(storage, slot.entry.subarray(0, from), at);
    storage.flush();
  };
  const standIn = standInFor(readLuksHeader(storage, place), index);
  if (standIn !== null) fill(standIn);
  fill(index);
  if (standIn !== null) erase(storage, offset, readLuksHeader(storage, place), standIn);
}

function erase(storage: MutableStorage, offset: number, header: LuksHeader, index: number): void {
  put(storage, encodeSlot(header, index, null), offset + slotOffset(index));
  storage.flush();
  const nothing = randomFillSync(Buffer.alloc(materialBytes(header)));
  put(storage, nothing, offset + header.slots[index]!.keyOffset);
  storage.flush();
}

function put(storage: MutableStorage, bytes: Uint8Array, position: number): void {
  const buffer = new IoBuffer(bytes.length);
  buffer.bytes.set(bytes);
  storage.write(buffer, 0, buffer.length, position);
}
